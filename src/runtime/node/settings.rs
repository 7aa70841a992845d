//! From the settings of a node to those of each of its parts.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use serde_json::json;

use crate::control::constants::{Constant, GroupConstants};
use crate::control::election::{ElectionSettings, Member, Mutants};
use crate::control::lane::Lane;
use crate::control::message::Standing;
use crate::control::repair::Repairs;
use crate::io::clock::HostClock;
use crate::io::interface::InterfaceChoice;
use crate::io::multicast::MulticastSettings;
use crate::io::udp::{Gso, Transport, UdpSettings};
use crate::journal::Disk;
use crate::journal::hot::{HeaderPage, HotSettings, SegmentStart};
use crate::journal::mender::Mender;
use crate::journal::node_state::NodeState;
use crate::journal::recovery::Recovered;
use crate::journal::scrub::ScrubSettings;
use crate::journal::segment_header::{Content, SegmentHeader};
use crate::journal::syncer::SyncerSettings;
use crate::link::Shared;
use crate::replica::retainer::RetainerSettings;
use crate::replica::snapshotter::SnapshotSettings;
use crate::replica::{CoreSettings, Peer};
use crate::runtime::carrier::CarrierSettings;
use crate::runtime::config::{MemberSettings, Settings, TransportKind};
use crate::session::{SessionLimits, StateLimits};
use crate::types::{CutEpoch, Nanos};

pub(in crate::runtime) fn udp_settings(
    settings: &Settings,
    kind: TransportKind,
) -> (UdpSettings, Option<UdpSettings>) {
    let members: Vec<_> = settings.members.iter().map(|m| (m.id, m.data)).collect();
    let transport = &settings.transport;
    let base = UdpSettings {
        datagram_bytes: transport.datagram_bytes,
        socket_buffer_bytes: transport.socket_buffer_bytes,
        busy_poll_us: settings.threads.busy_poll_us,
        gso: if transport.gso { Gso::Auto } else { Gso::Off },
        faults: settings.faults,
        ..UdpSettings::node(settings.node.id, members).expect("a node is on its own list")
    };
    let multicast = transport.group.map(|group| UdpSettings {
        transport: Transport::Multicast(MulticastSettings {
            source_specific: transport.source_specific,
            interface: Some(InterfaceChoice::Address(transport.interface)),
            ttl: transport.ttl,
            ..MulticastSettings::new(group)
        }),
        ..base.clone()
    });
    match (kind, multicast) {
        (TransportKind::Unicast, _) | (_, None) => (base, None),
        (TransportKind::Multicast, Some(multicast)) => (multicast, None),
        (TransportKind::Auto, Some(multicast)) => (base, Some(multicast)),
    }
}

/// Bounds of the state of a group with these settings: its logs are replayed with the same ones.
#[must_use]
pub fn state_limits(settings: &Settings) -> StateLimits {
    let group = &settings.group;
    StateLimits {
        sessions: SessionLimits {
            sessions_max: group.sessions_max,
            in_flight_max: group.session_in_flight_max,
            reply_bytes_total: group.reply_bytes_total,
            session_reply_bytes: group.session_reply_bytes,
        },
        ..StateLimits::default()
    }
}

pub(super) fn core_settings(
    settings: &Settings,
    identity: crate::link::Identity,
    multicast: bool,
) -> CoreSettings {
    let group = &settings.group;
    let peer = |member: &MemberSettings| Peer {
        node: member.id,
        address: member.data,
        voter: !member.observer,
    };
    CoreSettings {
        group: group.id,
        identity,
        peers: settings.members.iter().map(peer).collect(),
        segment_bytes: group.segment_bytes,
        window_bytes: group.window_bytes,
        command_bytes_max: group.command_bytes_max,
        durability: group.durability,
        heartbeat_ns: settings.timing.heartbeat_ns,
        leader_timeout_ns: settings.timing.leader_timeout_ns,
        multicast,
        hash_interval: group.state_hash_interval,
        in_flight_max: group.session_in_flight_max as u64,
        session_timeout_ns: settings.timing.session_timeout_ns,
        lane_pool_bytes: settings.transport.client_pool_bytes,
        limits: state_limits(settings),
        lanes_max: group.sessions_max,
        seed: RandomState::new().hash_one(settings.node.id.0),
        mutants: Mutants::NONE,
    }
}

/// How long the first election of a group that starts waits for all voters, ns.
const START_WAIT_NS: u64 = 5 * Nanos::SECOND;

pub(super) fn election_settings(
    settings: &Settings,
    state: &NodeState,
    stateless: bool,
) -> ElectionSettings {
    let member =
        |m: &MemberSettings| Member { node: m.id, voter: !m.observer, priority: m.priority };
    let random = RandomState::new();
    ElectionSettings {
        node: settings.node.id,
        members: settings.members.iter().map(member).collect(),
        promised: state.leadership,
        vote: state.vote,
        standing: match (stateless, state.provisional) {
            (true, _) => Standing::Stateless,
            (false, true) => Standing::Provisional,
            (false, false) => Standing::Clean,
        },
        won_founding: state.won_founding,
        may_ack_memory: state.may_ack_memory,
        incarnation: state.incarnation,
        durability: settings.group.durability,
        leader_timeout_ns: settings.timing.leader_timeout_ns,
        start_wait_ns: START_WAIT_NS,
        generation_random: random.hash_one(1_u8) as u32,
        instance: random.hash_one(2_u8) | 1,
        seed: random.hash_one(3_u8),
        mutants: Mutants::NONE,
    }
}

/// Of the thread that carries the catch-up lane.
pub(super) fn carrier_settings(settings: &Settings) -> CarrierSettings {
    CarrierSettings {
        group: settings.group.id,
        own: settings.node.id,
        addresses: settings.members.iter().map(|member| (member.id, member.catch_up)).collect(),
        segment_bytes: settings.group.segment_bytes,
        bytes_per_second: settings.catch_up.bytes_per_second,
    }
}

/// The lane's machine.
pub(super) fn lane_machine(settings: &Settings) -> Lane {
    let first = RandomState::new().hash_one(4_u8);
    Lane::new(first, settings.node.id, settings.members.iter().map(|member| member.id))
}

/// The machine that has damaged files repaired.
pub(in crate::runtime) fn repairs_machine(settings: &Settings) -> Repairs {
    let first = RandomState::new().hash_one(5_u8);
    let nodes = settings.members.iter().map(|member| member.id);
    Repairs::new(first, settings.node.id, nodes, settings.group.segment_bytes)
}

/// Who reads the durable files again.
pub(in crate::runtime) fn mender<D: Disk + Clone>(
    settings: &Settings,
    disk: D,
    shared: Shared,
) -> Mender<D> {
    let scrub = ScrubSettings {
        group: settings.group.id,
        segment_bytes: settings.group.segment_bytes,
        interval_ns: settings.scrub.interval_ns,
    };
    Mender::new(disk, shared, scrub, HostClock.now())
}

/// What the nodes compare when they meet; the service is the one that runs, whatever the file calls it.
pub(super) fn group_constants(settings: &Settings, service: &str) -> GroupConstants {
    let group = &settings.group;
    let list = |of: &dyn Fn(&MemberSettings) -> String| {
        let lines: String = settings.members.iter().map(|member| of(member) + "\n").collect();
        GroupConstants::digest(&lines)
    };
    GroupConstants::from_fn(|constant| match constant {
        Constant::Service => GroupConstants::digest(service),
        Constant::BookOrders => group.book.orders_max as u64,
        Constant::BookLevels => group.book.levels_max as u64,
        Constant::BookChanges => group.book.changes_max as u64,
        Constant::SegmentBytes => group.segment_bytes,
        Constant::WindowBytes => group.window_bytes,
        Constant::CommandBytes => group.command_bytes_max as u64,
        Constant::LeaderRung => group.durability.leader as u64,
        Constant::FollowerRung => group.durability.follower as u64,
        Constant::HashInterval => group.state_hash_interval,
        Constant::Sessions => group.sessions_max as u64,
        Constant::InFlight => group.session_in_flight_max as u64,
        Constant::ReplyBytes => group.reply_bytes_total as u64,
        Constant::SessionReplyBytes => group.session_reply_bytes as u64,
        Constant::DataAddresses => list(&|member| member.data.to_string()),
        Constant::ControlAddresses => list(&|member| member.control.to_string()),
        Constant::Priorities => list(&|member| member.priority.to_string()),
        Constant::Observers => list(&|member| member.observer.to_string()),
    })
}

pub(super) fn hot_settings<M, V>(settings: &Settings, recovered: &Recovered<M, V>) -> HotSettings {
    HotSettings {
        segment_bytes: settings.group.segment_bytes,
        window_bytes: settings.group.window_bytes,
        group: settings.group.id,
        generation: recovered.last.generation,
        header: HeaderPage { enter: enter_segment, before: segment_before },
        terms: recovered.terms.clone(),
    }
}

fn enter_segment(page: &mut [u8], start: &SegmentStart) {
    SegmentHeader {
        content: Content::Segment,
        group: start.group,
        generation: start.generation,
        segment_bytes: start.segment_bytes,
        before: start.before,
        cut_epoch: CutEpoch(0),
    }
    .encode_into(page);
}

fn segment_before(page: &[u8]) -> Option<crate::frame::Predecessor> {
    SegmentHeader::decode(page).ok().map(|header| header.before)
}

pub(super) fn snapshot_settings(settings: &Settings) -> SnapshotSettings {
    SnapshotSettings {
        group: settings.group.id,
        segment_bytes: settings.group.segment_bytes,
        limits: state_limits(settings),
        interval_bytes: settings.snapshot.interval_bytes,
        kept: settings.snapshot.kept,
    }
}

pub(super) fn retainer_settings(settings: &Settings) -> RetainerSettings {
    RetainerSettings {
        group: settings.group.id,
        segment_bytes: settings.group.segment_bytes,
        limits: settings.retention.limits,
        mutants: Mutants::NONE,
    }
}

pub(super) fn syncer_settings(settings: &Settings) -> SyncerSettings {
    SyncerSettings {
        batch_bytes_max: settings.sync.batch_bytes_max,
        ..SyncerSettings::new(settings.group.id, settings.group.segment_bytes)
    }
}

pub(super) fn describe(settings: &Settings, service: &str, multicast: bool) -> serde_json::Value {
    json!({
        "node": settings.node.id.0,
        "name": settings.own().name,
        "group": format!("{:016x}", settings.group.id.0),
        "group_name": settings.group.name,
        "service": service,
        "transport": if multicast { "multicast" } else { "unicast" },
        "process": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    })
}

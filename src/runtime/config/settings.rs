//! The checked layer: settings that cannot be wrong. They are made only by [`Layers::check`](super::Layers::check), which
//! has looked at each value and at how they fit together, and are read only.

use core::net::{IpAddr, SocketAddr};
use core::ops::Deref;
use std::path::PathBuf;

use super::layers::Assigned;
use super::words::{Idle, Scheduling, TransportKind};
use crate::control::disk::DiskSettings;
use crate::io::faults::FaultSettings;
use crate::journal::retention::RetentionLimits;
use crate::link::Durability;
use crate::service::ServiceKind;
use crate::service::book::BookLimits;
use crate::types::{GroupId, NodeId};

/// All settings of a node, checked. Read them through [`Values`].
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    pub(super) values: Values,
    /// What each key came from, for `config show`.
    pub(super) effective: Vec<(String, Option<Assigned>)>,
}

impl Deref for Settings {
    type Target = Values;

    fn deref(&self) -> &Values {
        &self.values
    }
}

/// All settings of a node.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Values {
    /// The same on all nodes.
    pub group: GroupSettings,
    /// The group's nodes; a node's place is its id.
    pub members: Vec<MemberSettings>,
    /// This node.
    pub node: NodeSettings,
    /// Datagrams.
    pub transport: TransportSettings,
    /// Placement and idling.
    pub threads: ThreadSettings,
    /// Intervals and time-outs.
    pub timing: TimingSettings,
    /// The sync thread.
    pub sync: SyncSettings,
    /// Nodes that catch up.
    pub catch_up: CatchUpSettings,
    /// Snapshots.
    pub snapshot: SnapshotSettings,
    /// How much of the log stays.
    pub retention: RetentionSettings,
    /// The disk.
    pub disk: DiskSettings,
    /// The scrub of the durable files.
    pub scrub: ScrubbingSettings,
    /// Planted faults; none where no key asks for any.
    pub faults: Option<FaultSettings>,
}

/// `[group]`.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct GroupSettings {
    /// Identity.
    pub id: GroupId,
    /// Name.
    pub name: String,
    /// Service.
    pub service: ServiceKind,
    /// Bounds of the book, if it is the service.
    pub book: BookLimits,
    /// Payload of a segment.
    pub segment_bytes: u64,
    /// Window of the replication stream.
    pub window_bytes: u64,
    /// Largest command.
    pub command_bytes_max: usize,
    /// Durability ladder at founding.
    pub durability: Durability,
    /// Entries between two comparisons of state hashes.
    pub state_hash_interval: u64,
    /// Sessions open at once.
    pub sessions_max: usize,
    /// Commands of a session unanswered at once.
    pub session_in_flight_max: usize,
    /// Room for kept replies.
    pub reply_bytes_total: usize,
    /// Room for those of one session.
    pub session_reply_bytes: usize,
}

/// One of `[[members]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MemberSettings {
    /// Id: its place.
    pub id: NodeId,
    /// Name.
    pub name: String,
    /// Where it takes datagrams.
    pub data: SocketAddr,
    /// Where its control thread is reached.
    pub control: SocketAddr,
    /// Where others take what they lack from its files.
    pub catch_up: SocketAddr,
    /// Election priority.
    pub priority: u8,
    /// It gets the log, and neither votes nor leads.
    pub observer: bool,
}

/// `[node]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NodeSettings {
    /// Which member.
    pub id: NodeId,
    /// Durable log and node state.
    pub data_dir: PathBuf,
    /// Hot segments; none: the program chooses.
    pub hot_dir: Option<PathBuf>,
    /// Admin socket.
    pub admin_socket: PathBuf,
}

/// `[transport]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TransportSettings {
    /// How bytes reach the others.
    pub kind: TransportKind,
    /// Multicast group; present if `kind` is [`TransportKind::Multicast`].
    pub group: Option<SocketAddr>,
    /// Join for each member's address only.
    pub source_specific: bool,
    /// Address of the interface that multicast uses.
    pub interface: IpAddr,
    /// Hops of multicast datagrams.
    pub ttl: u8,
    /// Largest UDP payload sent.
    pub datagram_bytes: usize,
    /// Size asked for the data socket's buffers.
    pub socket_buffer_bytes: usize,
    /// Room for client traffic on its way.
    pub client_pool_bytes: usize,
    /// Segmentation offload where the host has it.
    pub gso: bool,
}

/// `[threads]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ThreadSettings {
    /// CPU of the core thread.
    pub core_cpu: Option<usize>,
    /// CPU of the control thread.
    pub control_cpu: Option<usize>,
    /// CPU of the sync thread.
    pub sync_cpu: Option<usize>,
    /// What the core does when idle.
    pub idle: Idle,
    /// Keep memory in RAM.
    pub lock_memory: bool,
    /// Busy polling of the network card in a receive call, us; 0 none.
    pub busy_poll_us: u32,
    /// Scheduling class of the core thread.
    pub scheduling: Scheduling,
}

/// `[timing]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TimingSettings {
    /// Between heartbeats, ns.
    pub heartbeat_ns: u64,
    /// Silence after which a leader is held for dead, ns.
    pub leader_timeout_ns: u64,
    /// Shortest and longest silence a client may ask its session to be closed after, ns.
    pub session_timeout_ns: (u64, u64),
}

/// `[sync]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SyncSettings {
    /// Wait for more before a batch is synced, ns.
    pub group_delay_ns: u64,
    /// Most bytes of a batch.
    pub batch_bytes_max: u64,
}

/// `[catch_up]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CatchUpSettings {
    /// What is sent to them in a second, at most.
    pub bytes_per_second: u64,
}

/// `[snapshot]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SnapshotSettings {
    /// Growth of the log between two, in bytes; 0: only when asked.
    pub interval_bytes: u64,
    /// How many are kept.
    pub kept: usize,
    /// Bytes read and written in a second, at most.
    pub bytes_per_second: u64,
}

/// `[retention]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RetentionSettings {
    /// Size and age of the log.
    pub limits: RetentionLimits,
    /// Where segments are copied before they leave.
    pub archive: Option<PathBuf>,
}

/// `[scrub]`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ScrubbingSettings {
    /// From one round to the next, ns; 0: none.
    pub interval_ns: u64,
    /// Bytes read in a second, at most.
    pub bytes_per_second: u64,
}

impl Settings {
    /// Every key in order, with its value and where that comes from; none where it is absent.
    #[must_use]
    pub fn effective(&self) -> &[(String, Option<Assigned>)] {
        &self.effective
    }

    /// The member that this node is.
    #[must_use]
    pub fn own(&self) -> &MemberSettings {
        &self.values.members[self.values.node.id.0 as usize]
    }
}

//! From what was typed to what cannot be wrong: required keys, then how the values fit together.

use core::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::error::{ConfigError, ConfigErrors, Rule};
use super::keys::{Default, KEYS, Key, find};
use super::layers::{Layers, is_auto};
use super::settings::{
    CatchUpSettings, GroupSettings, MemberSettings, NodeSettings, RetentionSettings,
    ScrubbingSettings, Settings, SnapshotSettings, SyncSettings, ThreadSettings, TimingSettings,
    TransportSettings, Values,
};
use super::value::Value;
use super::words::{Idle, RungName, Scheduling, TransportKind};
use crate::control::disk::DiskSettings;
use crate::io::faults::FaultSettings;
use crate::journal::retention::RetentionLimits;
use crate::limits::{COMMAND_PREFIX_BYTES, FRAME_ALIGNMENT, FRAME_HEADER_BYTES, NODES_MAX};
use crate::link::Durability;
use crate::service::book::BookLimits;
use crate::types::{GroupId, Nanos, NodeId};

/// Bytes of a Unix socket's path that the host takes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Looks at everything, and names everything that is wrong.
pub(super) fn check(mut layers: Layers) -> Result<Settings, ConfigErrors> {
    let (mut errors, readable) = layers.take_errors();
    if !readable {
        return Err(ConfigErrors(errors));
    }
    let members = layers.member_count();
    let names = names(members);
    for name in &names {
        missing(&layers, name, &mut errors);
    }
    if members == 0 {
        let origin = layers.origin("members");
        let rule = Rule::MemberCount { max: NODES_MAX };
        errors.push(ConfigError { origin, key: "members".into(), found: None, rule });
    }
    if !errors.is_empty() {
        errors.sort_by(|a, b| a.origin.cmp(&b.origin));
        return Err(ConfigErrors(errors));
    }
    let node = Reader(&layers).number("node.id") as usize;
    if node >= members {
        refuse(&layers, "node.id", Rule::Member { members }, &mut errors);
        return Err(ConfigErrors(errors));
    }
    let values = Reader(&layers).values(members, node);
    fit(&layers, &values, &mut errors);
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let effective = |name: String| (name.clone(), layers.effective(&name));
    let effective = names.into_iter().map(effective).collect();
    Ok(Settings { values, effective })
}

/// Names of all keys, those of the members once for each.
fn names(members: usize) -> Vec<String> {
    let is_member = |key: &&Key| key.section() == "members";
    let mut names = Vec::new();
    names.extend(KEYS.iter().filter(|key| key.section() == "group").map(|key| key.name.into()));
    for place in 0..members {
        let own = |key: &Key| key.name.replacen('*', &place.to_string(), 1);
        names.extend(KEYS.iter().filter(is_member).map(own));
    }
    let rest = KEYS.iter().filter(|key| !["group", "members"].contains(&key.section()));
    names.extend(rest.map(|key| key.name.into()));
    names
}

fn missing(layers: &Layers, name: &str, errors: &mut Vec<ConfigError>) {
    let key = find(name).expect("of the table");
    let wrong_already = errors.iter().any(|error| error.key == name);
    if key.default == Default::Required && layers.get(name).is_none() && !wrong_already {
        refuse(layers, name, Rule::Required { takes: key.takes }, errors);
    }
}

fn refuse(layers: &Layers, name: &str, rule: Rule, errors: &mut Vec<ConfigError>) {
    let found = layers.get(name).map(|assigned| assigned.value.to_string());
    errors.push(ConfigError { origin: layers.origin(name), key: name.into(), found, rule });
}

/// Bytes of the frame of a command of `command_bytes`.
const fn frame_bytes(command_bytes: u64) -> u64 {
    ((FRAME_HEADER_BYTES + COMMAND_PREFIX_BYTES) as u64 + command_bytes)
        .next_multiple_of(FRAME_ALIGNMENT as u64)
}

/// How the values fit together.
fn fit(layers: &Layers, values: &Values, errors: &mut Vec<ConfigError>) {
    let mut wrong = |name: &str, rule: Rule| refuse(layers, name, rule, errors);
    let group = &values.group;
    let command_bytes_max = group.command_bytes_max as u64;
    let window = 2 * frame_bytes(command_bytes_max);
    if group.window_bytes < window {
        wrong("group.window_bytes", Rule::Window { bytes: window, command_bytes_max });
    }
    if group.segment_bytes < 2 * group.window_bytes {
        let window_bytes = group.window_bytes;
        let rule = Rule::Segment { bytes: 2 * window_bytes, window_bytes };
        wrong("group.segment_bytes", rule);
    }
    let transport = &values.transport;
    if transport.kind == TransportKind::Multicast && transport.group.is_none() {
        wrong("transport.group", Rule::MulticastGroup);
    }
    let disk = &values.disk;
    if disk.low_bytes < disk.full_bytes {
        let rule = Rule::AtLeast { min: disk.full_bytes, because: "disk.full_bytes" };
        wrong("disk.low_bytes", rule);
    }
    let timing = &values.timing;
    let three = 3 * timing.heartbeat_ns;
    if timing.leader_timeout_ns < three {
        let min = three / Nanos::MILLISECOND;
        let rule = Rule::AtLeast { min, because: "timing.heartbeat_ms" };
        wrong("timing.leader_timeout_ms", rule);
    }
    let (shortest, longest) = timing.session_timeout_ns;
    if shortest < 2 * timing.leader_timeout_ns {
        let min = 2 * timing.leader_timeout_ns / Nanos::MILLISECOND;
        let rule = Rule::AtLeast { min, because: "timing.leader_timeout_ms" };
        wrong("timing.session_timeout_min_ms", rule);
    }
    if longest < shortest {
        let min = shortest / Nanos::MILLISECOND;
        let rule = Rule::AtLeast { min, because: "timing.session_timeout_min_ms" };
        wrong("timing.session_timeout_max_ms", rule);
    }
    if group.reply_bytes_total < group.session_reply_bytes {
        let min = group.session_reply_bytes as u64;
        let rule = Rule::AtLeast { min, because: "group.session_reply_bytes" };
        wrong("group.reply_bytes_total", rule);
    }
    if values.node.admin_socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        wrong("node.admin_socket", Rule::SocketPath { bytes_max: SOCKET_PATH_BYTES_MAX });
    }
    for (name, rule) in member_rules(layers, values) {
        wrong(&name, rule);
    }
}

/// What is wrong with the member list.
fn member_rules(layers: &Layers, values: &Values) -> Vec<(String, Rule)> {
    let mut wrong = Vec::new();
    let members = &values.members;
    let first = members[0].data;
    let mut addresses: Vec<(String, SocketAddr)> = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let key = |field: &str| format!("members.{place}.{field}");
        let id = layers.effective(&key("id")).map(|assigned| assigned.value);
        if id.is_some_and(|id| id != Value::Number(place as u64)) {
            wrong.push((key("id"), Rule::MemberPlace { place }));
        }
        if let Some(other) = members[..place].iter().position(|other| other.name == member.name) {
            wrong.push((key("name"), Rule::MemberName { other }));
        }
        for (name, address) in [(key("data"), member.data), (key("control"), member.control)] {
            if let Some((other, _)) = addresses.iter().find(|(_, other)| *other == address) {
                wrong.push((name.clone(), Rule::MemberAddress { other: other.clone() }));
            }
            if address.is_ipv4() != first.is_ipv4() {
                let other = "members.0.data".to_owned();
                wrong.push((name.clone(), Rule::Family { other, address: first }));
            }
            addresses.push((name, address));
        }
    }
    for (place, member) in members.iter().enumerate() {
        let key = format!("members.{place}.catch_up");
        let taken = |other: &MemberSettings| other.catch_up == member.catch_up;
        if let Some(other) = members[..place].iter().position(taken)
            && layers.get(&key).is_some()
        {
            let other = format!("members.{other}.catch_up");
            wrong.push((key.clone(), Rule::MemberAddress { other }));
        }
        if member.catch_up.is_ipv4() != first.is_ipv4() {
            let other = "members.0.data".to_owned();
            wrong.push((key, Rule::Family { other, address: first }));
        }
    }
    if members.iter().all(|member| member.observer) {
        wrong.push(("members.0.observer".to_owned(), Rule::NobodyVotes));
    } else if members.iter().all(|member| member.observer || member.priority == 0) {
        wrong.push(("members.0.priority".to_owned(), Rule::NobodyLeads));
    }
    let transport = &values.transport;
    let family = |ip: IpAddr| ip.is_ipv4() == first.is_ipv4();
    let rule = || Rule::Family { other: "members.0.data".to_owned(), address: first };
    if transport.group.is_some_and(|group| !family(group.ip())) {
        wrong.push(("transport.group".to_owned(), rule()));
    }
    if !family(transport.interface) && layers.get("transport.interface").is_some() {
        wrong.push(("transport.interface".to_owned(), rule()));
    }
    wrong
}

/// Reads values that are known to be there and of their type.
struct Reader<'a>(&'a Layers);

impl Reader<'_> {
    fn values(&self, members: usize, node: usize) -> Values {
        let members: Vec<_> = (0..members).map(|place| self.member(place)).collect();
        let transport = self.transport(members[node].data);
        Values {
            group: self.group(),
            node: self.node(),
            transport,
            threads: self.threads(),
            timing: TimingSettings {
                heartbeat_ns: self.number("timing.heartbeat_ms") * Nanos::MILLISECOND,
                leader_timeout_ns: self.number("timing.leader_timeout_ms") * Nanos::MILLISECOND,
                session_timeout_ns: (
                    self.number("timing.session_timeout_min_ms") * Nanos::MILLISECOND,
                    self.number("timing.session_timeout_max_ms") * Nanos::MILLISECOND,
                ),
            },
            sync: SyncSettings {
                group_delay_ns: self.number("sync.group_delay_us") * Nanos::MICROSECOND,
                batch_bytes_max: self.number("sync.batch_bytes_max"),
            },
            catch_up: CatchUpSettings {
                bytes_per_second: self.number("catch_up.bytes_per_second"),
            },
            snapshot: SnapshotSettings {
                interval_bytes: self.number("snapshot.interval_bytes"),
                kept: self.number("snapshot.kept") as usize,
                bytes_per_second: self.number("snapshot.bytes_per_second"),
            },
            retention: RetentionSettings {
                limits: RetentionLimits {
                    size_bytes: self.number("retention.size_bytes"),
                    age_ns: self.number("retention.age_s") * Nanos::SECOND,
                    member_bytes: self.number("retention.member_bytes"),
                },
                archive: self.path("retention.archive_dir"),
            },
            disk: DiskSettings {
                low_bytes: self.number("disk.low_bytes"),
                full_bytes: self.number("disk.full_bytes"),
                stall_ns: self.number("disk.stall_ms") * Nanos::MILLISECOND,
            },
            scrub: ScrubbingSettings {
                interval_ns: self.number("scrub.interval_s") * Nanos::SECOND,
                bytes_per_second: self.number("scrub.bytes_per_second"),
            },
            faults: self.faults(),
            members,
        }
    }

    fn group(&self) -> GroupSettings {
        let rung = |name: &str| self.word(name, RungName::from_name).into();
        GroupSettings {
            id: GroupId(self.identity("group.id")),
            name: self.text("group.name"),
            service: self.word("group.service", |name| name.parse().ok()),
            book: BookLimits {
                orders_max: self.number("group.book.orders_max") as usize,
                levels_max: self.number("group.book.levels_max") as usize,
                changes_max: self.number("group.book.changes_max") as usize,
                ..BookLimits::default()
            },
            segment_bytes: self.number("group.segment_bytes"),
            window_bytes: self.number("group.window_bytes"),
            command_bytes_max: self.number("group.command_bytes_max") as usize,
            durability: Durability {
                leader: rung("group.durability.leader"),
                follower: rung("group.durability.follower"),
            },
            state_hash_interval: self.number("group.state_hash_interval"),
            sessions_max: self.number("group.sessions_max") as usize,
            session_in_flight_max: self.number("group.session_in_flight_max") as usize,
            reply_bytes_total: self.number("group.reply_bytes_total") as usize,
            session_reply_bytes: self.number("group.session_reply_bytes") as usize,
        }
    }

    fn member(&self, place: usize) -> MemberSettings {
        let key = |field: &str| format!("members.{place}.{field}");
        let name = match self.value(&key("name")) {
            Some(Value::Text(name)) => name,
            _ => format!("node-{place}"),
        };
        let control = self.address(&key("control")).expect("required");
        MemberSettings {
            id: NodeId(place as u16),
            name,
            data: self.address(&key("data")).expect("required"),
            control,
            catch_up: self.address(&key("catch_up")).unwrap_or(control),
            priority: self.number(&key("priority")) as u8,
            observer: self.flag(&key("observer")),
        }
    }

    fn node(&self) -> NodeSettings {
        let data_dir = self.path("node.data_dir").expect("required");
        NodeSettings {
            id: NodeId(self.number("node.id") as u16),
            hot_dir: self.path("node.hot_dir").filter(|path| !is_auto(path)),
            admin_socket: self
                .path("node.admin_socket")
                .unwrap_or_else(|| data_dir.join("admin.sock")),
            data_dir,
        }
    }

    fn transport(&self, own: SocketAddr) -> TransportSettings {
        let interface = match self.value("transport.interface") {
            Some(Value::Interface(Some(ip))) => ip,
            _ => own.ip(),
        };
        TransportSettings {
            kind: self.word("transport.kind", TransportKind::from_name),
            group: self.address("transport.group"),
            source_specific: self.flag("transport.source_specific"),
            interface,
            ttl: self.number("transport.ttl") as u8,
            datagram_bytes: self.number("transport.datagram_bytes") as usize,
            socket_buffer_bytes: self.number("transport.socket_buffer_bytes") as usize,
            client_pool_bytes: self.number("transport.client_pool_bytes") as usize,
            gso: self.flag("transport.gso"),
        }
    }

    fn faults(&self) -> Option<FaultSettings> {
        let faults = FaultSettings {
            loss: self.probability("faults.loss"),
            duplicate: self.probability("faults.duplicate"),
            corrupt: self.probability("faults.corrupt"),
            delay_ms: self.number("faults.delay_ms"),
            reorder_ms: self.number("faults.reorder_ms"),
            seed: self.number("faults.seed"),
        };
        let none = FaultSettings { seed: faults.seed, ..FaultSettings::default() };
        (faults != none).then_some(faults)
    }

    fn threads(&self) -> ThreadSettings {
        let cpu = |name: &str| match self.value(name) {
            Some(Value::Cpu(cpu)) => cpu,
            _ => None,
        };
        ThreadSettings {
            core_cpu: cpu("threads.core.cpu"),
            control_cpu: cpu("threads.control.cpu"),
            sync_cpu: cpu("threads.sync.cpu"),
            idle: self.word("threads.idle", Idle::from_name),
            lock_memory: self.flag("threads.lock_memory"),
            busy_poll_us: self.number("threads.busy_poll_us") as u32,
            scheduling: self.word("threads.scheduling", Scheduling::from_name),
        }
    }

    fn value(&self, name: &str) -> Option<Value> {
        self.0.effective(name).map(|assigned| assigned.value)
    }

    fn number(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Number(number)) => number,
            other => unreachable!("{name} is a number with a value, not {other:?}"),
        }
    }

    fn identity(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Identity(number)) => number,
            other => unreachable!("{name} is an identity with a value, not {other:?}"),
        }
    }

    fn flag(&self, name: &str) -> bool {
        match self.value(name) {
            Some(Value::Flag(flag)) => flag,
            other => unreachable!("{name} is a flag with a value, not {other:?}"),
        }
    }

    fn probability(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Probability(share)) => share,
            other => unreachable!("{name} is a share with a value, not {other:?}"),
        }
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Some(Value::Text(text)) => text,
            other => unreachable!("{name} is a text with a value, not {other:?}"),
        }
    }

    fn word<T>(&self, name: &str, from_name: impl Fn(&str) -> Option<T>) -> T {
        from_name(&self.text(name)).expect("the words of a key are those of its type")
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        match self.value(name) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    fn address(&self, name: &str) -> Option<SocketAddr> {
        match self.value(name) {
            Some(Value::Address(address)) => Some(address),
            _ => None,
        }
    }
}

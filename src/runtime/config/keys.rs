//! The one table of settings. Parsing, ranges, defaults, `QUORATE_*` names, `config show` and `config reference` all read it,
//! so a key that is added here exists everywhere, and a key that is not here exists nowhere.

use super::words::{Idle, RungName, Scheduling, TransportKind};
use crate::limits::{
    CATCH_UP_BYTES_PER_SECOND_DEFAULT, COMMAND_BYTES_MAX, DATAGRAM_BYTES_DEFAULT,
    DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, DISK_FULL_BYTES_DEFAULT, DISK_LOW_BYTES_DEFAULT,
    NODES_MAX, REPLY_BYTES_MAX, REPLY_SPACE_BYTES_DEFAULT, RETENTION_BYTES_DEFAULT,
    SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SESSION_IN_FLIGHT_MAX,
    SESSION_REPLY_BYTES_DEFAULT, SESSIONS_DEFAULT, SESSIONS_MAX, SOCKET_BUFFER_BYTES_DEFAULT,
    WINDOW_BYTES_DEFAULT,
};
use crate::service::ServiceKind;

/// One setting: all that is to be said about it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its full name; `members.*` stands for each entry of the member list.
    pub name: &'static str,
    /// What values it takes.
    pub takes: Takes,
    /// What it is when nobody sets it.
    pub default: Default,
    /// What it does.
    pub meaning: &'static str,
}

/// The values a setting takes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Takes {
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, of this unit.
    Number {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
        /// What it counts; may be empty.
        unit: &'static str,
    },
    /// A whole number of bytes within bounds, or a text such as `"16 MiB"`.
    Bytes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
        /// Only powers of two.
        power_of_two: bool,
    },
    /// A probability, 0 to 1.
    Probability,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A number of 64 bits as hexadecimal text, not 0.
    Identity,
    /// Text of 1 to this many bytes without control characters.
    Text(usize),
    /// A path; one in a file is relative to that file's folder.
    Path,
    /// `ip:port`, neither of them 0.
    Address,
    /// `ip:port` of a multicast group.
    MulticastAddress,
    /// An IP address of this host, or `auto`.
    Interface,
    /// The number of a CPU, or `any`.
    Cpu,
}

/// What a setting is when nobody sets it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Default {
    /// It must be set.
    Required,
    /// It is absent, which means this.
    Absent(&'static str),
    /// A number.
    Number(u64),
    /// Anything else, as it would be typed.
    Text(&'static str),
    /// A flag.
    Flag(bool),
}

const fn key(name: &'static str, takes: Takes, default: Default, meaning: &'static str) -> Key {
    Key { name, takes, default, meaning }
}

const fn number(min: u64, max: u64, unit: &'static str) -> Takes {
    Takes::Number { min, max, unit }
}

const fn bytes(min: u64, max: u64) -> Takes {
    Takes::Bytes { min, max, power_of_two: false }
}

/// Names of the built-in services.
pub const SERVICES: &[&str] =
    &[ServiceKind::Book.name(), ServiceKind::Echo.name(), ServiceKind::Sequencer.name()];

/// All settings, in the order in which they are shown.
pub const KEYS: &[Key] = &[
    key(
        "group.id",
        Takes::Identity,
        Default::Required,
        "Identity of the group, drawn by `quorate init`; the same on all its nodes. Datagrams and logs of another group are refused.",
    ),
    key(
        "group.name",
        Takes::Text(64),
        Default::Text("quorate"),
        "What people call the group; `quorate status` shows it.",
    ),
    key(
        "group.service",
        Takes::Word(SERVICES),
        Default::Text("echo"),
        "The built-in state machine that the group runs.",
    ),
    key(
        "group.book.orders_max",
        number(1, 1 << 26, "orders"),
        Default::Number(1 << 17),
        "Orders that rest in the book at once; one more is rejected.",
    ),
    key(
        "group.book.levels_max",
        number(1, 1 << 20, "levels"),
        Default::Number(1 << 12),
        "Price levels of one side of the book; an order that opens one more is rejected.",
    ),
    key(
        "group.book.changes_max",
        number(1, 1 << 26, "orders"),
        Default::Number(1 << 16),
        "Orders that one command, or a whole batch, may change; more is rejected.",
    ),
    key(
        "group.segment_bytes",
        Takes::Bytes { min: SEGMENT_BYTES_MIN, max: SEGMENT_BYTES_MAX, power_of_two: true },
        Default::Number(SEGMENT_BYTES_DEFAULT),
        "Payload of one file of the log; fixed for the life of the group. At least two windows.",
    ),
    key(
        "group.window_bytes",
        bytes(4096, SEGMENT_BYTES_MAX / 2),
        Default::Number(WINDOW_BYTES_DEFAULT),
        "How far the leader sends ahead of what a quorum has answered. At least two of the largest frames.",
    ),
    key(
        "group.command_bytes_max",
        bytes(1, COMMAND_BYTES_MAX as u64),
        Default::Number(COMMAND_BYTES_MAX as u64),
        "Largest command, or batch of commands, that a client may send.",
    ),
    key(
        "group.durability.leader",
        Takes::Word(RungName::NAMES),
        Default::Text("disk"),
        "How far an entry must have come on the leader before it counts for commit, from the founding on; `quorate durability` changes it.",
    ),
    key(
        "group.durability.follower",
        Takes::Word(RungName::NAMES),
        Default::Text("memory"),
        "How far an entry must have come on a follower before it counts for commit, from the founding on; `quorate durability` changes it.",
    ),
    key(
        "group.state_hash_interval",
        number(1, 1 << 32, "entries"),
        Default::Number(256),
        "Every so many entries the nodes compare the hash of their state; the minority stops.",
    ),
    key(
        "group.sessions_max",
        number(1, SESSIONS_MAX as u64, "sessions"),
        Default::Number(SESSIONS_DEFAULT as u64),
        "Client sessions open at once; one more is refused by name.",
    ),
    key(
        "group.session_in_flight_max",
        number(1, SESSION_IN_FLIGHT_MAX as u64, "commands"),
        Default::Number(SESSION_IN_FLIGHT_MAX as u64),
        "Commands of one session that may be unanswered at once.",
    ),
    key(
        "group.reply_bytes_total",
        bytes(REPLY_BYTES_MAX as u64, 1 << 34),
        Default::Number(REPLY_SPACE_BYTES_DEFAULT as u64),
        "Room for the replies that clients have not yet acknowledged, of all sessions together.",
    ),
    key(
        "group.session_reply_bytes",
        bytes(REPLY_BYTES_MAX as u64, 1 << 34),
        Default::Number(SESSION_REPLY_BYTES_DEFAULT as u64),
        "Of that, room for one session. At most group.reply_bytes_total.",
    ),
    key(
        "members.*.id",
        number(0, NODES_MAX as u64 - 1, ""),
        Default::Absent("its place in the list"),
        "The node's id: its place in the list, from 0.",
    ),
    key(
        "members.*.name",
        Takes::Text(64),
        Default::Absent("`node-` and its id"),
        "What people call the node.",
    ),
    key(
        "members.*.data",
        Takes::Address,
        Default::Required,
        "Where the node takes datagrams of the log and of clients (UDP).",
    ),
    key(
        "members.*.control",
        Takes::Address,
        Default::Required,
        "Where the node's control thread is reached.",
    ),
    key(
        "members.*.catch_up",
        Takes::Address,
        Default::Absent("the address of its control thread"),
        "Where other nodes take from the node's files what they lack (TCP).",
    ),
    key(
        "members.*.priority",
        number(0, 255, ""),
        Default::Number(1),
        "Who leads: the node with the highest, of equals the first in the list; 0 never leads.",
    ),
    key(
        "members.*.observer",
        Takes::Flag,
        Default::Flag(false),
        "An observer gets the whole log and applies it, but neither votes nor counts, and never leads.",
    ),
    key(
        "node.id",
        number(0, NODES_MAX as u64 - 1, ""),
        Default::Required,
        "Which of the members this node is.",
    ),
    key(
        "node.data_dir",
        Takes::Path,
        Default::Required,
        "Folder of the durable log and the node's own state; made when absent. One node only.",
    ),
    key(
        "node.hot_dir",
        Takes::Path,
        Default::Text("auto"),
        "Folder of the hot segments, on a memory file system; `auto`: one of its own below /dev/shm, or the data folder where that is missing or too small.",
    ),
    key(
        "node.admin_socket",
        Takes::Path,
        Default::Absent("`admin.sock` in node.data_dir"),
        "Unix socket on which `quorate status` and its like reach the node.",
    ),
    key(
        "transport.kind",
        Takes::Word(TransportKind::NAMES),
        Default::Text("auto"),
        "How the leader's bytes reach the others: one multicast datagram, the same datagram to each, or multicast where a probe of it comes back.",
    ),
    key(
        "transport.group",
        Takes::MulticastAddress,
        Default::Absent("unicast, unless transport.kind asks for multicast"),
        "Multicast group and port; the same on all nodes.",
    ),
    key(
        "transport.source_specific",
        Takes::Flag,
        Default::Flag(false),
        "Join the multicast group for each member's address only, so that no other sender is heard (addresses of 232.0.0.0/8 are meant for it).",
    ),
    key(
        "transport.interface",
        Takes::Interface,
        Default::Text("auto"),
        "Address of the interface that multicast uses; `auto`: the one of the node's own data address.",
    ),
    key(
        "transport.ttl",
        number(0, 255, "hops"),
        Default::Number(1),
        "Routers that a multicast datagram may cross, plus one; 0 stays on the host.",
    ),
    key(
        "transport.datagram_bytes",
        bytes(DATAGRAM_BYTES_MIN as u64, DATAGRAM_BYTES_MAX as u64),
        Default::Number(DATAGRAM_BYTES_DEFAULT as u64),
        "Largest UDP payload sent, header included. Above the path's MTU each loss costs a whole fragmented datagram.",
    ),
    key(
        "transport.socket_buffer_bytes",
        bytes(4096, 1 << 30),
        Default::Number(SOCKET_BUFFER_BYTES_DEFAULT as u64),
        "Size asked of the host for the data socket's buffers; what it does not grant is one warning.",
    ),
    key(
        "transport.client_pool_bytes",
        bytes(4 << 20, 1 << 34),
        Default::Number(64 << 20),
        "Room for commands and replies that are on their way from and to the clients of this node, all together.",
    ),
    key(
        "transport.gso",
        Takes::Flag,
        Default::Flag(true),
        "Hand runs of datagrams to the host in one call (segmentation offload) where it can do so.",
    ),
    key("threads.core.cpu", Takes::Cpu, Default::Text("any"), "CPU that the core thread stays on."),
    key(
        "threads.control.cpu",
        Takes::Cpu,
        Default::Text("any"),
        "CPU that the control thread stays on.",
    ),
    key("threads.sync.cpu", Takes::Cpu, Default::Text("any"), "CPU that the sync thread stays on."),
    key(
        "threads.idle",
        Takes::Word(Idle::NAMES),
        Default::Text("adaptive"),
        "What the core thread does when there is nothing to do: burn its CPU, give it away, or sleep; `adaptive` does each when it is right.",
    ),
    key(
        "threads.lock_memory",
        Takes::Flag,
        Default::Flag(false),
        "Keep all memory of the process in RAM.",
    ),
    key(
        "threads.busy_poll_us",
        number(0, 1_000, "us"),
        Default::Number(0),
        "Let the host poll the network card this long in a receive call; 0 does not.",
    ),
    key(
        "threads.scheduling",
        Takes::Word(Scheduling::NAMES),
        Default::Text("normal"),
        "Scheduling class of the core thread: `fifo` runs before everything else on its CPU.",
    ),
    key(
        "timing.heartbeat_ms",
        number(1, 10_000, "ms"),
        Default::Number(10),
        "A leader that has nothing to send says so this often.",
    ),
    key(
        "timing.leader_timeout_ms",
        number(3, 60_000, "ms"),
        Default::Number(150),
        "Silence after which the others hold the leader for dead, and a leader its quorum for lost. At least three heartbeats.",
    ),
    key(
        "timing.session_timeout_min_ms",
        number(100, 86_400_000, "ms"),
        Default::Number(1_000),
        "Shortest silence that a client may ask its session to be closed after. At least two leader time-outs.",
    ),
    key(
        "timing.session_timeout_max_ms",
        number(100, 86_400_000, "ms"),
        Default::Number(600_000),
        "Longest silence that a client may ask its session to be closed after.",
    ),
    key(
        "sync.group_delay_us",
        number(0, 100_000, "us"),
        Default::Number(0),
        "How long the sync thread waits for more before it syncs a batch.",
    ),
    key(
        "sync.batch_bytes_max",
        bytes(4096, 1 << 30),
        Default::Number(4 << 20),
        "Most bytes that one sync makes durable.",
    ),
    key(
        "catch_up.bytes_per_second",
        bytes(1 << 20, 1 << 40),
        Default::Number(CATCH_UP_BYTES_PER_SECOND_DEFAULT),
        "How much of its files the node sends in a second to nodes that catch up, all together; one that is about to lead takes them as fast as they come.",
    ),
    key(
        "snapshot.interval_bytes",
        bytes(0, 1 << 50),
        Default::Number(256 << 20),
        "Take a snapshot of the state when the log has grown by so much since the last one; 0: only when asked (`quorate snapshot`).",
    ),
    key(
        "snapshot.kept",
        number(2, 64, ""),
        Default::Number(2),
        "Snapshots that are kept; older ones are removed. The log stays from the oldest of them on.",
    ),
    key(
        "snapshot.bytes_per_second",
        bytes(64 << 10, 1 << 40),
        Default::Number(64 << 20),
        "How fast the replay worker reads the log and writes a snapshot, at most, so that the disk stays free for the log.",
    ),
    key(
        "retention.size_bytes",
        bytes(0, 1 << 50),
        Default::Number(RETENTION_BYTES_DEFAULT),
        "Segments leave when the log on the disk is larger than this, all kept snapshots cover them, and no member lacks them; 0: the log's size is no reason.",
    ),
    key(
        "retention.age_s",
        number(0, 1 << 32, "s"),
        Default::Number(0),
        "Segments leave, likewise, when all in them is older than this; 0: age is no reason.",
    ),
    key(
        "retention.member_bytes",
        bytes(0, 1 << 50),
        Default::Number(4 * RETENTION_BYTES_DEFAULT),
        "Segments that a member lacks stay until the log is larger than this; then it is to take a snapshot, and the log from there on.",
    ),
    key(
        "retention.archive_dir",
        Takes::Path,
        Default::Absent("segments leave for good"),
        "Folder of this node's own into which a segment is copied before it leaves; one that cannot be copied stays.",
    ),
    key(
        "disk.low_bytes",
        Takes::Bytes { min: 0, max: 1 << 50, power_of_two: false },
        Default::Number(DISK_LOW_BYTES_DEFAULT),
        "With less free than this on the disk of node.data_dir the node says so, and leads only if no other with more room can.",
    ),
    key(
        "disk.full_bytes",
        Takes::Bytes { min: 0, max: 1 << 50, power_of_two: false },
        Default::Number(DISK_FULL_BYTES_DEFAULT),
        "So much of the disk is left free: a segment that would take of it is not made. At most disk.low_bytes.",
    ),
    key(
        "disk.stall_ms",
        number(50, 600_000, "ms"),
        Default::Number(1000),
        "When nothing has become durable for so long though something waits for it, the disk counts as stalled: a leader gives up its lead where another could take it.",
    ),
    key(
        "scrub.interval_s",
        number(0, 31_536_000, "s"),
        Default::Number(86_400),
        "Read all durable files again so often, to find what rots on the disk; 0: never (what others cannot read is still looked at, and repaired).",
    ),
    key(
        "scrub.bytes_per_second",
        bytes(64 << 10, 1 << 40),
        Default::Number(4 << 20),
        "How fast the durable files are read again, at most.",
    ),
    key(
        "faults.loss",
        Takes::Probability,
        Default::Text("0"),
        "For tests and demonstrations: share of the arriving datagrams that is dropped.",
    ),
    key(
        "faults.duplicate",
        Takes::Probability,
        Default::Text("0"),
        "For tests and demonstrations: share of the arriving datagrams that arrives twice.",
    ),
    key(
        "faults.corrupt",
        Takes::Probability,
        Default::Text("0"),
        "For tests and demonstrations: share of the arriving datagrams in which one bit is turned.",
    ),
    key(
        "faults.delay_ms",
        number(0, 10_000, "ms"),
        Default::Number(0),
        "For tests and demonstrations: each arriving datagram waits this long.",
    ),
    key(
        "faults.reorder_ms",
        number(0, 10_000, "ms"),
        Default::Number(0),
        "For tests and demonstrations: each arriving datagram waits a random time of up to this more, so that later ones pass it.",
    ),
    key(
        "faults.seed",
        number(0, i64::MAX as u64, ""),
        Default::Number(1),
        "For tests and demonstrations: the faults of one seed are the same in each run.",
    ),
];

/// Variables with names of this form set keys.
pub const VARIABLE_PREFIX: &str = "QUORATE_";

impl Key {
    /// The environment variable that sets it; `*` stands for the place in the member list.
    #[must_use]
    pub fn variable(&self) -> String {
        variable(self.name)
    }
    /// Its section: what stands in brackets in a file.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.name.split('.').next().unwrap_or(self.name)
    }
}

/// The environment variable that sets the key of this name.
#[must_use]
pub fn variable(name: &str) -> String {
    let mut variable = String::from(VARIABLE_PREFIX);
    variable.extend(name.chars().map(|c| if c == '.' { '_' } else { c.to_ascii_uppercase() }));
    variable
}

/// The key of this full name, in which `members.3.data` is a `members.*.data`.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    let general;
    let name = match member_place(name) {
        Some((_, field)) => {
            general = format!("members.*.{field}");
            &general
        }
        None => name,
    };
    KEYS.iter().find(|key| key.name == name)
}

/// Splits `members.3.data` into 3 and `data`.
pub(super) fn member_place(name: &str) -> Option<(usize, &str)> {
    let (place, field) = name.strip_prefix("members.")?.split_once('.')?;
    Some((place.parse().ok()?, field))
}

/// Whether this is a section, or a table within one.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// All sections.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    let names = KEYS.iter().map(Key::section);
    names
        .scan("", |last, name| Some((core::mem::replace(last, name) != name).then_some(name)))
        .flatten()
}

/// The name that somebody who typed `name` most likely meant.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let score = |candidate: &str| {
        let parts = distance(&last(name), &last(candidate)) + 1;
        let stem = last(candidate).starts_with(&last(name)) && !last(name).is_empty();
        distance(name, candidate).min(parts).min(if stem { 2 } else { usize::MAX })
    };
    candidates
        .into_iter()
        .map(|candidate| (score(candidate), candidate))
        .min_by_key(|&(score, _)| score)
        .filter(|&(score, _)| score <= 2.max(name.len() / 4))
        .map(|(_, candidate)| candidate)
}

/// Insertions, removals, replacements and swaps of neighbours that turn one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replace = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::book::BookLimits;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_variables_are_unique() {
        let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
        let variables: BTreeSet<_> = KEYS.iter().map(Key::variable).collect();
        assert_eq!((names.len(), variables.len()), (KEYS.len(), KEYS.len()));
        assert_eq!(variable("node.data_dir"), "QUORATE_NODE_DATA_DIR");
    }

    #[test]
    fn services_and_their_bounds_are_the_services_own() {
        assert_eq!(SERVICES, ServiceKind::ALL.map(ServiceKind::name));
        let default = BookLimits::default();
        let of = |name| find(name).map(|key| key.default);
        for (name, limit) in [
            ("group.book.orders_max", default.orders_max),
            ("group.book.levels_max", default.levels_max),
            ("group.book.changes_max", default.changes_max),
        ] {
            assert_eq!(of(name), Some(Default::Number(limit as u64)), "{name}");
        }
    }

    #[test]
    fn every_meaning_is_a_sentence() {
        for key in KEYS {
            assert!(key.meaning.ends_with('.'), "{}", key.name);
        }
    }

    #[test]
    fn members_are_found_by_place() {
        assert_eq!(find("members.12.data").map(|key| key.name), Some("members.*.data"));
        assert!(find("members.x.data").is_none() && find("members.1.dta").is_none());
        assert!(is_section("group") && is_section("group.durability") && !is_section("group.id"));
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let names = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("timing.hartbeat_ms", names()), Some("timing.heartbeat_ms"));
        assert_eq!(nearest("timing.heartbeat", names()), Some("timing.heartbeat_ms"));
        assert_eq!(nearest("group.heartbeat_ms", names()), Some("timing.heartbeat_ms"));
        assert_eq!(nearest("trasnport.ttl", names()), Some("transport.ttl"));
        assert_eq!(nearest("group.colour", names()), None);
        assert_eq!(distance("abcd", "acbd"), 1);
    }
}

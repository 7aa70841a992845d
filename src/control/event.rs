//! What operators are told: stable codes, one line each.
//!
//! Q-1001…Q-1015 keep the meaning of the HA-1001…HA-1015 messages of Qpid Broker-J; Q-11xx are our own.

use core::fmt;

use super::constants::Difference;
use crate::link::{CoreEvent, Durability};
use crate::types::{Generation, Leadership, NodeId, Position, Sequence, Tail};

/// Something an operator may want to know, with everything needed to understand it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Q-1005: a member answers (again).
    Joined {
        /// Which.
        node: NodeId,
    },
    /// Q-1006: a member no longer answers.
    Left {
        /// Which.
        node: NodeId,
    },
    /// Q-1008: a node that speaks for this group is not on the list, or disagrees about what the group is.
    Intruder {
        /// The number it gave itself.
        node: NodeId,
        /// What does not fit.
        why: IntruderReason,
    },
    /// Q-1009: the leader does not hear a quorum: commands are refused.
    InsufficientNodes,
    /// Q-1010: this node took up a role.
    RoleChange {
        /// In which leadership.
        leadership: Leadership,
        /// Leading or following.
        leads: bool,
        /// Its log then.
        tail: Tail,
    },
    /// Q-1014: entries of this node were cut because the group went on without them.
    Discarded {
        /// First byte cut.
        from: Position,
        /// End of the log before.
        to: Position,
        /// Entries cut.
        entries: u64,
    },
    /// Q-1101: the leader hears a quorum again.
    QuorumRegained,
    /// Q-1102: this node is behind what its leader holds in memory.
    CatchUpNeeded {
        /// First byte needed.
        needed: Position,
        /// Lowest the leader holds.
        lowest: Position,
    },
    /// Q-1103: this log contradicts the leader's below what was committed: the node does not follow.
    Diverged {
        /// Where.
        position: Position,
    },
    /// Q-1104: acknowledged bytes were among those cut: possibly committed.
    PossiblyCommitted {
        /// Bytes that this node had promised to keep.
        bytes: u64,
    },
    /// Q-1105: the state of this node differs from the majority's: it stops.
    StateHashMismatch {
        /// After which entry.
        sequence: Sequence,
        /// Its own hash.
        own: u64,
        /// The majority's.
        majority: u64,
    },
    /// Q-1106: no majority agrees on the state: every node stops.
    NoMajorityState {
        /// After which entry.
        sequence: Sequence,
    },
    /// Q-1107: a write or sync failed for good: the node stops acknowledging.
    DiskFailed,
    /// Q-1108: no prepared segment: commands are turned away until there is one.
    SpaceLow {
        /// End of the log.
        position: Position,
    },
    /// Q-1109: segments are prepared again.
    SpaceBack,
    /// Q-1110: datagrams of another group or protocol version arrive.
    Foreign {
        /// The version, if that is what differs, and the one that this program speaks.
        version: Option<(u8, u8)>,
        /// The group, if that is what differs.
        group: Option<u64>,
    },
    /// Q-1111: a frame arrived whole and did not chain.
    BadFrame {
        /// Where.
        position: Position,
    },
    /// Q-1112: this node may have forgotten what it promised: it does not lead.
    MayNotLead {
        /// It has no state of an earlier life at all.
        stateless: bool,
    },
    /// Q-1113: the group was founded.
    Founded {
        /// Its first generation.
        generation: Generation,
    },
    /// Q-1115: the lead was handed over as planned.
    Transferred {
        /// To whom.
        to: NodeId,
    },
    /// Q-1116: a planned hand-over came to nothing.
    TransferFailed {
        /// To whom.
        to: NodeId,
        /// Why.
        why: TransferFailure,
    },
    /// Q-1117: this node, which might have forgotten what it promised, is a voter again.
    Readmitted,
    /// Q-1118: a node that may not lead has the most recent log: it is taken over before anybody stands.
    LeaderSync {
        /// That node.
        from: NodeId,
        /// End of its log.
        tail: Tail,
    },
    /// Q-1119: this node takes what it lacks from another's files.
    CatchUpStarted {
        /// Whose.
        from: NodeId,
        /// End of its own log.
        position: Position,
        /// So far that node's log is to be had now.
        goal: Position,
    },
    /// Q-1120: it has taken it, and goes back to its leader's stream.
    CaughtUp {
        /// From whom.
        from: NodeId,
        /// End of its own log.
        position: Position,
        /// Bytes taken.
        bytes: u64,
        /// How long it took, ms.
        passed_ms: u64,
    },
    /// Q-1121: that node did not help; another one is asked, or the same again.
    CatchUpFailed {
        /// Which.
        from: NodeId,
        /// Why.
        why: CatchUpFailure,
    },
    /// Q-1153: the log that is needed has left everywhere: a snapshot is taken from a node instead.
    SnapshotFetched {
        /// From whom.
        from: NodeId,
        /// Its position.
        position: Position,
    },
    /// Q-1160: there is little room on the disk; a leader hands over where another node has more.
    DiskLow {
        /// Bytes free, as far as anybody can tell.
        free_bytes: Option<u64>,
    },
    /// Q-1161: there is no room for more segments; a leader hands over where another node has some.
    DiskFull {
        /// Bytes free, as far as anybody can tell.
        free_bytes: Option<u64>,
    },
    /// Q-1162: there is room on the disk again.
    DiskRoom {
        /// Bytes free, as far as anybody can tell.
        free_bytes: Option<u64>,
    },
    /// Q-1163: what was written does not become durable: the disk stands still.
    DiskStalled {
        /// For so long by now, ms.
        passed_ms: u64,
    },
    /// Q-1164: the disk moves again.
    DiskMoves {
        /// So long it stood still, ms.
        passed_ms: u64,
    },
    /// Q-1165: this leader has given its leadership up, for its disk stands still.
    GaveUpLead {
        /// Who was asked to lead.
        to: NodeId,
    },
    /// Q-1166: another durability is in force.
    DurabilityChanged {
        /// The one before.
        before: Durability,
        /// The one in force.
        now: Durability,
        /// The entry that says so.
        sequence: Sequence,
    },
}

/// Why a node did not help another to catch up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CatchUpFailure {
    /// It did not answer, or brought nothing for too long.
    Silent,
    /// It has no more than this node.
    NothingMore,
    /// The log that is needed has left it.
    Gone,
    /// Its snapshot is damaged.
    Damaged,
    /// The log that is needed has left it, and this node's own is of another generation.
    OtherGeneration,
    /// The logs do not fit together.
    Refused,
}

/// Why a planned hand-over came to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TransferFailure {
    /// The target lacks too much of the log.
    Behind {
        /// So many bytes.
        bytes: u64,
    },
    /// The target did not take over in time: this node leads on.
    TooSlow,
    /// This node lost its quorum meanwhile.
    LostQuorum,
    /// Another node took the lead.
    AnotherLeads {
        /// Which.
        node: NodeId,
    },
}

/// Why a node is not one of ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IntruderReason {
    /// Not on the member list, or not at this address.
    Unknown,
    /// It was configured differently.
    Constant(Difference),
    /// It lives in another generation: what it says is not mixed with this one's.
    Generation {
        /// Its own.
        theirs: Generation,
        /// Ours.
        ours: Generation,
    },
}

impl Event {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Joined { .. } => 1005,
            Self::Left { .. } => 1006,
            Self::Intruder { .. } => 1008,
            Self::InsufficientNodes => 1009,
            Self::RoleChange { .. } => 1010,
            Self::Discarded { .. } => 1014,
            Self::QuorumRegained => 1101,
            Self::CatchUpNeeded { .. } => 1102,
            Self::Diverged { .. } => 1103,
            Self::PossiblyCommitted { .. } => 1104,
            Self::StateHashMismatch { .. } => 1105,
            Self::NoMajorityState { .. } => 1106,
            Self::DiskFailed => 1107,
            Self::SpaceLow { .. } => 1108,
            Self::SpaceBack => 1109,
            Self::Foreign { .. } => 1110,
            Self::BadFrame { .. } => 1111,
            Self::MayNotLead { .. } => 1112,
            Self::Founded { .. } => 1113,
            Self::Transferred { .. } => 1115,
            Self::TransferFailed { .. } => 1116,
            Self::Readmitted => 1117,
            Self::LeaderSync { .. } => 1118,
            Self::CatchUpStarted { .. } => 1119,
            Self::CaughtUp { .. } => 1120,
            Self::CatchUpFailed { .. } => 1121,
            Self::SnapshotFetched { .. } => 1153,
            Self::DiskLow { .. } => 1160,
            Self::DiskFull { .. } => 1161,
            Self::DiskRoom { .. } => 1162,
            Self::DiskStalled { .. } => 1163,
            Self::DiskMoves { .. } => 1164,
            Self::GaveUpLead { .. } => 1165,
            Self::DurabilityChanged { .. } => 1166,
        }
    }

    /// What a core reports, in the operators' words; some facts are two events.
    #[must_use]
    pub fn of_core(event: CoreEvent) -> [Option<Self>; 2] {
        match event {
            CoreEvent::Cut { from, to, entries, promised_bytes } => [
                Some(Self::Discarded { from, to, entries }),
                (promised_bytes > 0).then_some(Self::PossiblyCommitted { bytes: promised_bytes }),
            ],
            CoreEvent::RangeGone { needed, lowest } => {
                [Some(Self::CatchUpNeeded { needed, lowest }), None]
            }
            CoreEvent::Diverged { position, .. } => [Some(Self::Diverged { position }), None],
            CoreEvent::OutOfSegments { position } => [Some(Self::SpaceLow { position }), None],
            CoreEvent::SegmentsBack => [Some(Self::SpaceBack), None],
            CoreEvent::Quorum { present: true } => [Some(Self::QuorumRegained), None],
            CoreEvent::Quorum { present: false } => [Some(Self::InsufficientNodes), None],
            CoreEvent::ForeignVersion { version, spoken } => {
                [Some(Self::Foreign { version: Some((version, spoken)), group: None }), None]
            }
            CoreEvent::ForeignGroup { group } => {
                [Some(Self::Foreign { version: None, group: Some(group) }), None]
            }
            CoreEvent::BadFrame { position } => [Some(Self::BadFrame { position }), None],
            CoreEvent::DiskFailed => [Some(Self::DiskFailed), None],
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Q-{} ", self.code())?;
        match self {
            Self::Joined { node } => write!(f, "node {node} joined"),
            Self::Left { node } => write!(f, "node {node} left: it does not answer"),
            Self::Intruder { node, why } => write!(f, "node {node} {why}: refused"),
            Self::InsufficientNodes => {
                write!(f, "no quorum hears this leader: commands are refused (NO_QUORUM)")
            }
            Self::RoleChange { leadership, leads, tail } => {
                let role = if *leads { "leader" } else { "follower" };
                write!(f, "this node is {role} of leadership {leadership}, its log ends at {tail}")
            }
            Self::Discarded { from, to, entries } => write!(
                f,
                "{entries} entries from {from} to {to} were cut: the group went on without them; \
                 they are kept in quarantine/"
            ),
            Self::QuorumRegained => write!(f, "a quorum hears this leader"),
            Self::CatchUpNeeded { needed, lowest } => write!(
                f,
                "this node needs the log from {needed}, the leader holds it in memory from {lowest}"
            ),
            Self::Diverged { position } => write!(
                f,
                "this log and the leader's differ at {position}, which was committed: not following"
            ),
            Self::PossiblyCommitted { bytes } => {
                write!(f, "of what was cut, {bytes} bytes had been promised: possibly committed")
            }
            Self::StateHashMismatch { sequence, own, majority } => write!(
                f,
                "state after entry {sequence} is {own:016x}, the majority has {majority:016x}: \
                 this node stops"
            ),
            Self::NoMajorityState { sequence } => {
                write!(f, "no majority agrees on the state after entry {sequence}: all nodes stop")
            }
            Self::DiskFailed => {
                write!(f, "a write or sync failed: this node acknowledges nothing more")
            }
            Self::SpaceLow { position } => write!(
                f,
                "no segment is ready behind {position}: commands are turned away until there is"
            ),
            Self::SpaceBack => write!(f, "segments are ready again"),
            Self::Foreign { version, group } => match (version, group) {
                (Some((version, spoken)), _) => {
                    write!(
                        f,
                        "datagrams of protocol version {version} arrive, this program speaks {spoken}: ignored, counted"
                    )
                }
                (None, Some(group)) => {
                    write!(f, "datagrams of group {group:016x} arrive: ignored, counted")
                }
                (None, None) => write!(f, "foreign datagrams arrive: ignored, counted"),
            },
            Self::BadFrame { position } => {
                write!(
                    f,
                    "the frame at {position} arrived whole and did not chain: asked for again"
                )
            }
            Self::Founded { generation } => write!(f, "group founded, generation {generation}"),
            Self::Transferred { to } => write!(f, "the lead was handed to node {to}"),
            Self::TransferFailed { to, why } => write!(f, "no hand-over to node {to}: {why}"),
            Self::Readmitted => write!(f, "this node counts as a voter again"),
            Self::LeaderSync { from, tail } => write!(
                f,
                "node {from} may not lead and has the most recent log, to {tail}: taken over first"
            ),
            Self::MayNotLead { stateless } => may_not_lead(f, *stateless),
            _ => self.tell_catch_up(f),
        }
    }
}

impl Event {
    fn tell_catch_up(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CatchUpStarted { from, position, goal } => {
                write!(f, "the log from {position} to {goal} is taken from node {from}")
            }
            Self::CaughtUp { from, position, bytes, passed_ms } => write!(
                f,
                "{bytes} bytes were taken from node {from} in {passed_ms} ms, to {position}: back to \
                 the leader's stream"
            ),
            Self::CatchUpFailed { from, why } => {
                write!(f, "nothing could be taken from node {from}: {why}")
            }
            Self::SnapshotFetched { from, position } => write!(
                f,
                "the log that this node needs has left the others: the snapshot at {position} is taken from node {from}"
            ),
            _ => self.tell_of_the_disk(f),
        }
    }
}

fn may_not_lead(f: &mut fmt::Formatter<'_>, stateless: bool) -> fmt::Result {
    let why = if stateless {
        "has no state, and other nodes have"
    } else {
        "may have forgotten what it promised (power loss in memory)"
    };
    write!(f, "this node {why}: without a leader it takes every voter to elect one")
}

impl fmt::Display for IntruderReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "is not on the member list, or not there"),
            Self::Constant(difference) => write!(f, "has {difference}"),
            Self::Generation { theirs, ours } => {
                write!(f, "lives in generation {theirs}, this node in {ours}")
            }
        }
    }
}

impl fmt::Display for CatchUpFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => write!(f, "it is silent"),
            Self::NothingMore => write!(f, "it has no more than this node"),
            Self::Gone => write!(f, "the log that is needed has left it"),
            Self::Damaged => write!(f, "its snapshot is damaged"),
            Self::OtherGeneration => write!(
                f,
                "the log that is needed has left it, and the one that is here is of another generation"
            ),
            Self::Refused => write!(f, "its log does not fit this one"),
        }
    }
}

impl fmt::Display for TransferFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { bytes } => write!(f, "it is {bytes} bytes behind"),
            Self::TooSlow => write!(f, "it did not take over in time; this node leads on"),
            Self::LostQuorum => write!(f, "this node lost its quorum meanwhile"),
            Self::AnotherLeads { node } => write!(f, "node {node} leads"),
        }
    }
}

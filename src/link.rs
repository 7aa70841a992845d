//! What the threads of a node say to each other: small messages over bounded mailboxes, and positions as latest values.
//!
//! Control decides, the core obeys and reports, sync makes durable, the keeper prepares and clears away. In the simulator
//! the same mailboxes join the same state machines.

mod outlet;
mod repair;
mod wake;

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

pub use self::outlet::{Inlet, Outlet, ServiceEvent, outlet};
pub use repair::{RepairOrder, RepairReport};
pub use wake::{CoreWakers, NoWake, Wake};

use crate::frame::Predecessor;
use crate::limits::{LANE_MAILBOX_DEPTH, MAILBOX_DEPTH};
use crate::types::{
    Chain, Commit, CutEpoch, Durable, Generation, Incarnation, Leadership, NodeId, Position,
    Sequence, Tail, Term,
};

/// How far an acknowledgement must have come on the node that gives it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Rung {
    /// In the hot tier: survives a crash of the process.
    Memory = 0,
    /// On the disk, after the grouped sync.
    Disk = 1,
}

/// The durability ladder: one rung for the leader, one for its followers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Durability {
    /// Of the leader.
    pub leader: Rung,
    /// Of each follower.
    pub follower: Rung,
}

impl core::fmt::Display for Durability {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "leader {}, followers {}", self.leader.name(), self.follower.name())
    }
}

impl Durability {
    /// As in an entry of the log, and in the shared words: leader's rung | followers' rung << 8.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.leader as u64 | (self.follower as u64) << 8
    }

    /// What such a value says; none where it says nothing that is known here.
    #[must_use]
    pub const fn of_value(value: u64) -> Option<Self> {
        let (leader, follower) = (Rung::of(value & 0xFF), Rung::of(value >> 8));
        match (leader, follower) {
            (Some(leader), Some(follower)) => Some(Self { leader, follower }),
            _ => None,
        }
    }

    /// For each role the higher of the two rungs: what is in force while one takes the place of the other.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        Self { leader: self.leader.max(other.leader), follower: self.follower.max(other.follower) }
    }
}

impl Rung {
    const fn of(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Memory),
            1 => Some(Self::Disk),
            _ => None,
        }
    }

    /// Its name, as in the settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// Recency of a log: generation and term of its last frame, then its tail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Recency {
    /// Leadership of the last frame.
    pub last: Leadership,
    /// End of the log.
    pub tail: Tail,
}

/// Control to core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ControlToCore {
    /// Accept and acknowledge nothing of a leadership older than this; answer [`CoreToControl::Fenced`].
    Fence(Leadership),
    /// Lead: append a term start, then accept commands.
    Lead(Leadership),
    /// Follow `leader`: find the match point with it, cut what lies above, take its stream.
    Follow {
        /// Leadership to enter.
        leadership: Leadership,
        /// Who leads it.
        leader: NodeId,
    },
    /// `may_ack_memory` is durable (or no longer): statuses may promise what is only in memory.
    MayAckMemory(bool),
    /// The node is admitted: no longer provisional.
    Admitted,
    /// Take no more commands, and say when `to` holds everything: [`CoreToControl::HandOver`].
    HandOver {
        /// Who is to lead.
        to: NodeId,
    },
    /// The hand-over came to nothing: take commands again.
    KeepLead,
    /// Make this the group's durability: an entry of the log says so, and what it says is in force when it is committed.
    SetDurability(Durability),
    /// Lead no more, at once: others are asked to. Clients are turned away until one of them does.
    GiveUp,
    /// Take over another node's log, and ask where the logs part: [`LaneFact::Asks`].
    TakeOver {
        /// Of this take-over: what belongs to another one is void.
        number: u64,
        /// Newest leadership whose frames may stand in what is taken; not above the fence.
        last: Leadership,
        /// What for.
        purpose: Purpose,
    },
    /// What the other node's core said to [`LaneFact::Asks`].
    MatchReply {
        /// Of the take-over.
        number: u64,
        /// Its answer.
        reply: MatchReply,
        /// Up to here it answers for its log.
        end: Position,
    },
    /// All that could be had was taken: the leader is asked again where the logs part.
    Rejoin {
        /// Of the take-over.
        number: u64,
    },
    /// Another node takes over this one's log, and asks: [`LaneFact::Answers`].
    MatchQuestion {
        /// Who asks.
        asker: NodeId,
        /// What.
        question: MatchQuestion,
    },
    /// Stop acknowledging and answer [`CoreToControl::Stopped`].
    Stop,
}

/// What a log is taken over for, and so what of it: its source answers for no more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Purpose {
    /// To stand with it: all of it.
    LeaderSync,
    /// To follow this leadership again, whose leader no longer holds in memory what is missing: what is committed; of the
    /// leader itself all of it, as over the live stream.
    CatchUp(Leadership),
    /// To replace damaged bytes of a file, which the asker checks against its own chain: what is committed.
    Repair,
}

/// Where do two logs part? The latest frames of the asker's log at or below a leadership.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MatchQuestion {
    /// Of the take-over.
    pub number: u64,
    /// What for.
    pub purpose: Purpose,
    /// Leadership of those frames.
    pub leadership: Leadership,
    /// Where they end.
    pub end: Position,
    /// The chain there.
    pub chain: Chain,
}

/// What a log says to a [`MatchQuestion`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MatchReply {
    /// Both hold frames of that leadership, up to here.
    Agreed {
        /// The lower of the two ends.
        position: Position,
        /// The chain there.
        chain: Chain,
    },
    /// It has none of that leadership: ask again, at or below this one.
    AskBelow(Leadership),
    /// Both hold frames of that leadership, up to here, where the chain is in the durable files alone: whoever can read
    /// them makes [`MatchReply::Agreed`] of it.
    Filed(Position),
    /// It remembers no `leadership` that is so old, but all from `below` on: whoever can read the durable files looks there.
    /// The other node has frames of it up to `end`.
    #[allow(missing_docs)] // said above
    Older { leadership: Leadership, end: Position, below: Position },
    /// They part below this position, where the log begins: what was before has left.
    Gone(Position),
    /// It cannot tell: no frame of it ends there.
    Unknown,
}

/// A piece of a snapshot and of the log that leads up to it, as a node sends it to another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SnapshotPiece {
    /// Position of the snapshot; 0: there is none.
    pub position: Position,
    /// Bytes of the whole.
    pub total: u64,
    /// First byte of this piece.
    pub from: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What such a piece came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnapshotTaken {
    /// So much of the snapshot at `position` is here.
    Part {
        /// Its position; 0: nothing is here.
        position: Position,
        /// Bytes of the whole.
        total: u64,
        /// The next byte that is wanted.
        end: u64,
    },
    /// All of it is here, checked and on the disk.
    Whole(Position),
    /// It is not what it claims: nothing of it is kept.
    Damaged(Position),
}

/// Control to core: bytes of the log that is taken over. Control keeps them until the core has answered with
/// [`LaneFact::Stands`], so that the core never frees memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogChunk {
    /// Of the take-over.
    pub number: u64,
    /// Where they stand. What the core has of them already it passes over.
    pub from: Position,
    /// The bytes.
    pub bytes: Arc<[u8]>,
    /// Commit position of the log that they are of.
    pub committed: Commit,
}

/// What a core says of a take-over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LaneFact {
    /// The leader that it follows no longer holds in memory what this node needs. Said again as long as it is so and
    /// nothing is taken.
    Behind {
        /// The leadership.
        leadership: Leadership,
        /// Who leads it.
        leader: NodeId,
        /// Lowest that the leader holds.
        lowest: Position,
        /// End of this node's log.
        tail: Position,
    },
    /// It wants to know where the logs part.
    Asks(MatchQuestion),
    /// Its log is the other's up to here: the logs were found to part there, or a chunk was taken.
    Stands {
        /// Of the take-over.
        number: u64,
        /// End of its log.
        tail: Position,
        /// End of the bytes it has: of the frame at the tail a part may be there.
        received: Position,
    },
    /// It takes no more.
    Refuses {
        /// Of the take-over.
        number: u64,
        /// Why.
        why: LaneRefusal,
    },
    /// To [`ControlToCore::MatchQuestion`].
    Answers {
        /// Who asked.
        asker: NodeId,
        /// Of the asker's take-over.
        number: u64,
        /// The answer.
        reply: MatchReply,
        /// Up to here this node answers for its log, for that purpose.
        end: Position,
    },
}

/// Why a core takes no more of a log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LaneRefusal {
    /// It is not what the core is about any more: a newer fence, another role.
    Void,
    /// The logs contradict each other, nothing says where they part, or bytes do not chain.
    Log,
}

/// What is made durable before it is acted upon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Promise {
    /// Accept nothing older than this.
    pub leadership: Leadership,
    /// Voted for this node in it.
    pub vote: Option<NodeId>,
    /// Acknowledgements from memory may be given from now on.
    pub may_ack_memory: bool,
    /// Every voter granted its vote in this leadership: the node is no longer provisional.
    pub admitted: bool,
    /// That election is the founding, and the node has won it.
    pub founding: bool,
    /// The leader re-admits the node, which holds everything up to here on its disk.
    pub readmitted: Option<Position>,
    /// Made ahead, for a hand-over: the core still has its role in an older leadership. The vote is not decided yet.
    pub ahead: bool,
}

/// Core to control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CoreToControl {
    /// The core accepts nothing older than `leadership` from now on, and this is its log.
    Fenced {
        /// The fence.
        leadership: Leadership,
        /// Its log.
        recency: Recency,
        /// What of it is on the disk.
        durable: Durable,
    },
    /// A datagram of a newer leadership than the fence came in from a node.
    LeadershipSeen {
        /// The newer leadership.
        leadership: Leadership,
        /// Who sent it.
        node: NodeId,
    },
    /// The role given has been taken up at this position.
    Entered {
        /// Leadership.
        leadership: Leadership,
        /// Leading or following.
        leads: bool,
        /// Own tail at that moment.
        tail: Tail,
    },
    /// The state at `sequence` has this hash.
    StateHash {
        /// Last applied entry.
        sequence: Sequence,
        /// Hash of service and sessions.
        hash: u64,
    },
    /// A voter that may have forgotten what it promised can be one again: it holds `needed` on its disk, and an entry that
    /// was appended after it rejoined is committed.
    Readmit {
        /// Which.
        node: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
        /// End of the log when it rejoined.
        needed: Position,
    },
    /// The answer to [`ControlToCore::HandOver`].
    HandOver {
        /// Who is to lead.
        to: NodeId,
        /// None: it holds everything, and no commands are taken. Else: it is so many bytes behind, and commands are taken on.
        behind: Option<u64>,
    },
    /// Another durability is in force: an entry that says so was applied.
    Durability {
        /// The one before.
        before: Durability,
        /// The one in force.
        now: Durability,
        /// The entry.
        sequence: Sequence,
    },
    /// Of a log that is taken over.
    Lane(LaneFact),
    /// Something an operator may want to know.
    Event(CoreEvent),
    /// The core has stopped acknowledging; its log ends here.
    Stopped {
        /// End of the log, for the clean mark.
        tail: Predecessor,
        /// Known commit position.
        commit: Commit,
    },
}

/// What the core reports besides. Numbers only: control writes the words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CoreEvent {
    /// A suffix was cut on entering a leadership.
    Cut {
        /// First byte cut.
        from: Position,
        /// End of the log before.
        to: Position,
        /// Entries cut.
        entries: u64,
        /// Of those, bytes below the end of what this node had promised.
        promised_bytes: u64,
    },
    /// The leader no longer holds in memory what this node needs.
    RangeGone {
        /// First byte needed.
        needed: Position,
        /// Lowest the leader holds.
        lowest: Position,
    },
    /// This log contradicts the leader's below what both know as committed.
    Diverged {
        /// Where.
        position: Position,
        /// Own chain there.
        own: Chain,
        /// The leader's.
        leaders: Chain,
    },
    /// No segment was ready: commands were turned away.
    OutOfSegments {
        /// Where the log stopped.
        position: Position,
    },
    /// Segments are there again.
    SegmentsBack,
    /// The leader lost its quorum (fresh echoes) or has it again.
    Quorum {
        /// Whether it has one.
        present: bool,
    },
    /// Datagrams of another protocol version arrive.
    ForeignVersion {
        /// Version of the first one.
        version: u8,
        /// The one that this program speaks.
        spoken: u8,
    },
    /// Datagrams of another group arrive.
    ForeignGroup {
        /// Group of the first one.
        group: u64,
    },
    /// A frame arrived whole but did not chain; its range was asked for again.
    BadFrame {
        /// Where.
        position: Position,
    },
    /// A write or sync failed for good.
    DiskFailed,
}

/// Keeper to core: the next hot segment, zero-filled and populated.
#[derive(Debug)]
pub struct SegmentReady<M> {
    /// Base of its payload.
    pub base: Position,
    /// Its memory.
    pub memory: M,
}

/// Core to keeper: a segment that is no longer needed hot.
#[derive(Debug)]
pub struct SegmentRetired<M> {
    /// Base of its payload.
    pub base: Position,
    /// Its memory, to be unmapped there.
    pub memory: M,
}

/// Core to sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CoreToSync {
    /// Cut the log at `at`: the core writes nothing until [`SyncToCore::CutDone`].
    Cut {
        /// What stands before the cut: the log's new end.
        at: Predecessor,
        /// End of the log before the cut.
        end: Position,
        /// Number of this cut.
        epoch: CutEpoch,
    },
}

/// Sync to core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncToCore {
    /// Everything below is on the disk.
    Durable {
        /// Cut epoch the report belongs to; older ones are dropped.
        epoch: CutEpoch,
        /// End of what is durable.
        durable: Durable,
    },
    /// Suffix saved, truncation recorded, files cut.
    CutDone {
        /// Number of the cut.
        epoch: CutEpoch,
    },
    /// A write or sync failed, for good.
    Failed,
}

/// Keeper to sync: the durable file for this segment exists, and this is how its hot bytes are read.
#[derive(Debug)]
pub struct SegmentOpened<V> {
    /// Base of its payload.
    pub base: Position,
    /// The hot bytes.
    pub view: V,
}

/// The core's ends of its mailboxes.
#[derive(Debug)]
pub struct CoreLink<M> {
    /// From control.
    pub from_control: Receiver<ControlToCore>,
    /// Bytes of a log that is taken over, from control.
    pub from_lane: Receiver<LogChunk>,
    /// To control.
    pub to_control: Sender<CoreToControl>,
    /// From the keeper.
    pub from_keeper: Receiver<SegmentReady<M>>,
    /// To the keeper.
    pub to_keeper: Sender<SegmentRetired<M>>,
    /// From sync.
    pub from_sync: Receiver<SyncToCore>,
    /// To sync.
    pub to_sync: Sender<CoreToSync>,
}

/// Control's ends.
#[derive(Debug)]
pub struct ControlLink {
    /// From the core.
    pub from_core: Receiver<CoreToControl>,
    /// To the core.
    pub to_core: Sender<ControlToCore>,
    /// Bytes of a log that is taken over.
    pub to_lane: Sender<LogChunk>,
}

/// Sync's ends.
#[derive(Debug)]
pub struct SyncLink<V> {
    /// From the core.
    pub from_core: Receiver<CoreToSync>,
    /// To the core.
    pub to_core: Sender<SyncToCore>,
    /// From the keeper.
    pub from_keeper: Receiver<SegmentOpened<V>>,
}

/// The keeper's ends.
#[derive(Debug)]
pub struct KeeperLink<M, V> {
    /// From the core.
    pub from_core: Receiver<SegmentRetired<M>>,
    /// To the core.
    pub to_core: Sender<SegmentReady<M>>,
    /// To sync.
    pub to_sync: Sender<SegmentOpened<V>>,
}

/// All mailboxes of a node, joined.
#[must_use]
pub fn link<M, V>() -> (CoreLink<M>, ControlLink, SyncLink<V>, KeeperLink<M, V>) {
    let (control_to_core, from_control) = bounded(MAILBOX_DEPTH);
    let (to_lane, from_lane) = bounded(LANE_MAILBOX_DEPTH);
    let (to_control, core_to_control) = bounded(MAILBOX_DEPTH);
    let (keeper_to_core, from_keeper) = bounded(MAILBOX_DEPTH);
    let (to_keeper, core_to_keeper) = bounded(MAILBOX_DEPTH);
    let (sync_to_core, from_sync) = bounded(MAILBOX_DEPTH);
    let (to_sync, core_to_sync) = bounded(MAILBOX_DEPTH);
    let (keeper_to_sync, sync_from_keeper) = bounded(MAILBOX_DEPTH);
    (
        CoreLink {
            from_control,
            from_lane,
            to_control,
            from_keeper,
            to_keeper,
            from_sync,
            to_sync,
        },
        ControlLink { from_core: core_to_control, to_core: control_to_core, to_lane },
        SyncLink { from_core: core_to_sync, to_core: sync_to_core, from_keeper: sync_from_keeper },
        KeeperLink { from_core: core_to_keeper, to_core: keeper_to_core, to_sync: keeper_to_sync },
    )
}

macro_rules! shared_words {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Latest values that the core shares with the other threads and, through a mapped page, with other processes.
        /// One writer each (named below), relaxed but for the three positions, which are stored with release ordering after
        /// the bytes they cover.
        #[repr(C, align(64))]
        #[derive(Debug, Default)]
        pub struct SharedWords { $($(#[$doc])* pub $name: AtomicU64,)* }

        impl SharedWords {
            /// Names of the words, in the order in which they lie in memory.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];
            /// All values, in that order.
            pub fn values(&self) -> impl Iterator<Item = u64> + '_ {
                [$(self.$name.load(Ordering::Relaxed)),*].into_iter()
            }
        }
    };
}

shared_words! {
    /// End of the verified log (core). Sync writes up to here; acquire/release.
    verified,
    /// Commit position (core). Outside readers stop here; acquire/release.
    commit,
    /// Durable position (sync); acquire/release.
    durable,
    /// Number of cuts so far (core): `verified` belongs to it.
    cut_epoch,
    /// End of what the service was given (core).
    applied,
    /// Sequence of the last applied entry (core).
    applied_sequence,
    /// Sequence of the last entry of the log (core).
    tail_sequence,
    /// Leadership: generation (core).
    generation,
    /// Leadership: term (core).
    term,
    /// 1 follower, 2 leader, 0 neither (core).
    role,
    /// Node that leads, plus one (core).
    leader,
    /// 1 while a quorum is heard, on the leader (core).
    quorum,
    /// Lowest position held hot (core).
    hot_base,
    /// State hash at `hash_sequence` (core).
    state_hash,
    /// See `state_hash` (core).
    hash_sequence,
    /// Generation of the last frame of the log (core).
    last_generation,
    /// Term of the last frame of the log (core).
    last_term,
    /// When something last came in from the leader that is followed, on this machine's monotonic clock (core).
    leader_heard,
    /// Sessions open (core).
    sessions,
    /// Commands applied (core).
    commands_applied,
    /// Commands turned away with back-pressure (core).
    back_pressure,
    /// Commands that were already applied and answered from the store (core).
    duplicates,
    /// Commands refused because one before them is missing (core).
    gaps_refused,
    /// Datagrams received (core).
    datagrams_received,
    /// Datagrams sent (core).
    datagrams_sent,
    /// Bytes received (core).
    bytes_received,
    /// Bytes sent (core).
    bytes_sent,
    /// NAKs sent (core).
    naks_sent,
    /// NAKs received (core).
    naks_received,
    /// Repairs sent (core).
    repairs_sent,
    /// Bytes received again though they were there (core).
    bytes_duplicate,
    /// Datagrams dropped as garbage: short, or not ours (core).
    dropped_garbage,
    /// Datagrams of another protocol version (core).
    dropped_version,
    /// Datagrams of another group (core).
    dropped_group,
    /// Datagrams of an older leadership (core).
    dropped_stale,
    /// Datagrams outside the window, or for which there was no room (core).
    dropped_window,
    /// Datagrams that the fault layer dropped (core).
    dropped_fault,
    /// Frames that arrived whole and did not chain (core).
    bad_frames,
    /// Datagrams the host did not take (core).
    send_failures,
    /// Facts for which a mailbox had no room (core).
    facts_lost,
    /// Duty cycles (core).
    duty_cycles,
    /// Duty cycles with work (core).
    busy_cycles,
    /// Duty cycles that took longer than 0.1 ms, whatever the host did in between (core).
    cycles_over_100us,
    /// Duty cycles that took longer than 1 ms (core).
    cycles_over_1ms,
    /// The longest duty cycle, ns (core).
    longest_cycle_ns,
    /// Batches synced (sync).
    syncs,
    /// Bytes synced (sync).
    synced_bytes,
    /// 1 after a write or sync failed for good (sync).
    sync_failed,
    /// Control datagrams refused: garbage, or of nodes that are not of this group (control).
    control_refused,
    /// Leaderships of this node that ended because no quorum heard it (core).
    quorum_losses,
    /// Requests and hellos of clients turned away for want of a quorum (core).
    no_quorum_refusals,
    /// Commands and hellos turned away because no more segments can be made (core).
    no_space_refusals,
    /// Durability in force: leader's rung | followers' rung << 8 (core).
    durability,
    /// Bytes free on the disk, plus one; 0: nobody can tell (keeper).
    free_bytes,
    /// 1 while no segment can be made (keeper).
    segments_blocked,
    /// Datagrams passed on between the leader and clients that do not reach it (core).
    forwarded,
    /// Local queries answered (core).
    local_answers,
    /// Local queries refused: too stale, behind, no room (core).
    local_refusals,
}

/// Where the shared words live: in a mapped page on a host, on the heap in tests.
pub trait SharedPage: Send + Sync + core::fmt::Debug {
    /// The words.
    fn words(&self) -> &SharedWords;
}

impl SharedPage for SharedWords {
    fn words(&self) -> &SharedWords {
        self
    }
}

/// A handle to the shared words.
pub type Shared = Arc<dyn SharedPage>;

/// What a node is in its group, as given to the core at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Which node.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// It may have forgotten what it promised.
    pub provisional: bool,
    /// It has no state of an earlier life.
    pub stateless: bool,
    /// Generation of its last frame.
    pub generation: Generation,
    /// Newest term it has promised not to go below.
    pub fence: Term,
}

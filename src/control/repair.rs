//! Repairing damaged files from peers: which file when, whom to ask for what, and when to say that nobody can help.
//!
//! One file at a time, and only one that the log has left: nothing of it can be cut or written any more. Somebody else reads
//! and judges the file (`journal::repair`), and says what it lacks; this machine asks one node after the other for it, in
//! pieces, over the catch-up lane, and orders the swap once everything fits. Peers serve what is committed; the lane carries
//! nothing between generations.

mod cover;
#[cfg(test)]
mod tests;

use core::fmt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::cover::Instead;
use super::lane::{LaneAnswer, LaneInput, LaneRequest, RangeRequest};
use crate::link::{Purpose, RepairOrder, RepairReport};
use crate::types::{Nanos, NodeId, Position};

/// A node that was asked and has not answered is left for the next one after this, ns. It may send no faster than it may.
const ANSWER_NS: u64 = 2 * Nanos::SECOND;
/// When nobody could help, or the disk could not be written: the first wait, doubled each time, ns.
const AGAIN_NS: u64 = 500 * Nanos::MILLISECOND;
/// Longest wait, ns.
const AGAIN_MAX_NS: u64 = 5 * Nanos::SECOND;
/// Damaged files kept in mind, at most: the others are found again by the next round.
const CASES_MAX: usize = 1024;

/// What it wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepairOutput {
    /// To whoever reads the files.
    Order(RepairOrder),
    /// Ask another node.
    Ask(NodeId, LaneRequest),
    /// Tell the operator.
    Event(RepairEvent),
}

/// What operators are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepairEvent {
    /// Q-1171: a file is repaired.
    Repaired {
        /// Base of its segment.
        base: Position,
        /// Bytes that came from other nodes.
        bytes: u64,
        /// From whom.
        nodes: Vec<NodeId>,
        /// Where the damaged one is kept.
        kept_at: Option<String>,
    },
    /// Q-1172: it could not be repaired now.
    NotRepaired {
        /// Base of its segment.
        base: Position,
        /// Why.
        why: NotRepaired,
        /// When it is tried again, ms.
        again_ms: u64,
    },
    /// Q-1173: it is repaired as soon as the log has left the file.
    Waits {
        /// Base of its segment.
        base: Position,
    },
    /// Q-1176: nobody had what a file lacked: it has left the log, which goes on above a snapshot.
    Covered {
        /// Base of its segment.
        base: Position,
        /// The snapshot.
        by: Position,
        /// Whose snapshot that was; none: this node's own.
        node: Option<NodeId>,
        /// Segments that are kept aside: it, and what was below it.
        segments: u64,
    },
    /// Q-1174: what a node sent does not fit: its own log may be damaged.
    Unfit {
        /// Base of the segment.
        base: Position,
        /// Which node.
        node: NodeId,
    },
}

/// Why a file was not repaired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotRepaired {
    /// No other node gave what is missing.
    Nobody {
        /// First byte that is missing.
        from: Position,
    },
    /// All others have let what is missing go, and no snapshot of theirs, or of this node's own, covers it yet.
    NoSnapshot,
    /// The files around it do not allow it, or the host does not.
    Here(String),
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Repairs {
    segment_bytes: u64,
    /// Before the first question.
    first: u64,
    /// Of the last question.
    number: u64,
    /// The others, in the order in which they are asked.
    nodes: Vec<NodeId>,
    reach: Position,
    /// End of what is certain, of a node that does not run yet.
    certain: Option<Position>,
    cases: BTreeMap<Position, Case>,
    current: Option<Current>,
    repaired: u64,
    taken_bytes: u64,
    outputs: VecDeque<RepairOutput>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Case {
    not_before: Nanos,
    failures: u32,
    waits_told: bool,
}

/// The file that is being repaired.
#[derive(Clone, Debug)]
struct Current {
    base: Position,
    /// What is asked for now. None: whoever reads the file has the word.
    question: Option<Question>,
    /// Whose bytes did not fit, or who had none.
    useless: BTreeSet<NodeId>,
    /// Whose did.
    helped: BTreeSet<NodeId>,
    /// Whose log begins above what is missing.
    gone: Vec<NodeId>,
    /// Somebody did not answer.
    silent: bool,
    /// It is done without.
    instead: Option<Instead>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Question {
    number: u64,
    node: NodeId,
    wanted: Wanted,
    until: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Bytes { from: Position, to: Position },
    Snapshot,
}

impl Repairs {
    /// For node `own` in a group of these nodes. Questions are numbered from `first` on: another number in each life.
    #[must_use]
    pub fn new(
        first: u64,
        own: NodeId,
        nodes: impl IntoIterator<Item = NodeId>,
        segment_bytes: u64,
    ) -> Self {
        let (after, before): (Vec<_>, Vec<_>) =
            nodes.into_iter().filter(|node| *node != own).partition(|node| *node > own);
        Self {
            segment_bytes,
            first,
            number: first,
            nodes: after.into_iter().chain(before).collect(),
            reach: Position(0),
            certain: None,
            cases: BTreeMap::new(),
            current: None,
            repaired: 0,
            taken_bytes: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The node does not run yet, and its log is certain up to here: every file may be touched, and a snapshot be no newer.
    pub fn not_running(&mut self, certain: Position) {
        (self.reach, self.certain) = (Position(u64::MAX), Some(certain));
    }

    /// Time passed.
    pub fn tick(&mut self, now: Nanos) {
        self.advance(now);
    }

    /// Takes a report; drain [`Repairs::poll`] afterwards.
    pub fn handle(&mut self, now: Nanos, report: RepairReport) {
        match report {
            RepairReport::Reach(reach) => self.reach = self.reach.max(reach),
            RepairReport::Damaged(base) => self.damaged(now, base),
            RepairReport::Mended(base) => {
                if !self.is_current(base) {
                    self.cases.remove(&base);
                }
            }
            RepairReport::Left(base) => {
                self.current.take_if(|current| current.base == base);
                self.cases.remove(&base);
            }
            RepairReport::Needs { base, from, to } if self.is_current(base) => {
                self.ask(now, from, to);
            }
            RepairReport::Refused { base, node } if self.is_current(base) => {
                self.outputs.push_back(RepairOutput::Event(RepairEvent::Unfit { base, node }));
                if let Some(current) = &mut self.current {
                    current.useless.insert(node);
                    current.helped.remove(&node);
                }
            }
            RepairReport::Whole(base) if self.is_current(base) => {
                self.order(RepairOrder::Swap(base));
            }
            RepairReport::Swapped { base, bytes, kept_at } if self.is_current(base) => {
                self.swapped(base, bytes, kept_at);
            }
            // One behind the current file, which was repaired with it.
            RepairReport::Swapped { base, bytes, kept_at } if self.adjoins(base) => {
                self.repaired(base, bytes, kept_at);
            }
            RepairReport::Unjoined(base) if self.is_current(base) => self.unjoined(),
            RepairReport::Uncovered(base) if self.is_current(base) => self.uncovered(now),
            RepairReport::Took { base, node, what } if self.is_current(base) => {
                self.took(now, node, what);
            }
            RepairReport::Covered { base, through, by, segments } if self.is_current(base) => {
                self.covered(through, by, segments);
            }
            RepairReport::Failed { base, why } if self.is_current(base) => {
                self.give_up(now, NotRepaired::Here(why));
            }
            // Of a repair that was left.
            RepairReport::Needs { .. }
            | RepairReport::Refused { .. }
            | RepairReport::Whole(_)
            | RepairReport::Swapped { .. }
            | RepairReport::Unjoined(_)
            | RepairReport::Uncovered(_)
            | RepairReport::Took { .. }
            | RepairReport::Covered { .. }
            | RepairReport::Failed { .. } => {}
        }
        self.advance(now);
    }

    /// What the lane brings may be an answer to this machine.
    pub fn lane(&mut self, now: Nanos, news: &LaneInput) {
        let Some(question) = self.current.as_ref().and_then(|current| current.question) else {
            return;
        };
        match news {
            LaneInput::Answered { from: node, answer } if *node == question.node => {
                self.on_answer(now, question, answer);
            }
            LaneInput::Broken(node) if *node == question.node => self.silent(now, question),
            _ => {}
        }
    }

    fn on_answer(&mut self, now: Nanos, question: Question, answer: &LaneAnswer) {
        match (answer, question.wanted) {
            (LaneAnswer::Bytes { number, from, bytes, .. }, Wanted::Bytes { .. })
                if *number == question.number =>
            {
                self.answered(now, question, *from, bytes);
            }
            // It has no longer what is asked of it.
            (LaneAnswer::Gone { number, .. }, Wanted::Bytes { .. })
                if *number == question.number =>
            {
                if let Some(current) = &mut self.current {
                    current.gone.push(question.node);
                }
                self.useless(now, question);
            }
            (LaneAnswer::Part { number, piece }, Wanted::Snapshot)
                if *number == question.number =>
            {
                self.on_piece(now, question.node, piece);
            }
            _ => {}
        }
    }

    /// Whether a question of this number was this machine's, also one to which it wants no answer any more.
    #[must_use]
    pub const fn has_asked(&self, number: u64) -> bool {
        number.wrapping_sub(self.first) <= self.number.wrapping_sub(self.first)
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self) -> Option<RepairOutput> {
        self.outputs.pop_front()
    }

    /// When to tick again.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let never = Nanos(u64::MAX);
        if let Some(current) = &self.current {
            return current.question.map_or(never, |question| question.until);
        }
        let ready = self.cases.iter().filter(|(base, _)| self.is_left(**base));
        ready.map(|(_, case)| case.not_before).min().unwrap_or(never)
    }

    /// Files that are damaged, as far as is known.
    pub fn damaged_segments(&self) -> impl Iterator<Item = Position> {
        self.cases.keys().copied()
    }

    /// Files repaired, and bytes taken for them, in this life of the process.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.repaired, self.taken_bytes)
    }

    fn order(&mut self, order: RepairOrder) {
        self.outputs.push_back(RepairOutput::Order(order));
    }

    fn is_current(&self, base: Position) -> bool {
        self.current.as_ref().is_some_and(|current| current.base == base)
    }

    /// The log has gone on behind it: nobody writes to it, and no cut reaches it or its seals.
    fn is_left(&self, base: Position) -> bool {
        base.0.saturating_add(self.segment_bytes) < self.reach.0
    }

    fn damaged(&mut self, now: Nanos, base: Position) {
        if self.cases.len() < CASES_MAX {
            let fresh = Case { not_before: now, failures: 0, waits_told: false };
            self.cases.entry(base).or_insert(fresh);
        }
    }

    /// Asks the next node that may help.
    fn ask(&mut self, now: Nanos, from: Position, to: Position) {
        let Some(current) = &mut self.current else { return };
        let may = |node: &&NodeId| !current.useless.contains(*node);
        // Who has helped goes on.
        let helper = self.nodes.iter().filter(may).find(|node| current.helped.contains(*node));
        let Some(&node) = helper.or_else(|| self.nodes.iter().find(may)) else {
            return self.nobody(now, from);
        };
        let number = self.question(now, node, Wanted::Bytes { from, to });
        let range = RangeRequest { number, purpose: Purpose::Repair, from, to };
        self.outputs.push_back(RepairOutput::Ask(node, LaneRequest::Range(range)));
    }

    /// The number of the next question.
    fn question(&mut self, now: Nanos, node: NodeId, wanted: Wanted) -> u64 {
        self.number = self.number.wrapping_add(1);
        let (number, until) = (self.number, now.plus(ANSWER_NS));
        if let Some(current) = &mut self.current {
            current.question = Some(Question { number, node, wanted, until });
        }
        number
    }

    fn answered(&mut self, now: Nanos, question: Question, from: Position, bytes: &Arc<[u8]>) {
        let Wanted::Bytes { from: wanted, .. } = question.wanted else { return };
        if from != wanted || bytes.is_empty() {
            return self.useless(now, question);
        }
        let Some(current) = &mut self.current else { return };
        current.question = None;
        current.helped.insert(question.node);
        self.taken_bytes += bytes.len() as u64;
        let base = current.base;
        let (node, bytes) = (question.node, Arc::clone(bytes));
        self.order(RepairOrder::Patch { base, node, from, bytes });
    }

    /// That node does not help.
    fn useless(&mut self, now: Nanos, question: Question) {
        let Some(current) = &mut self.current else { return };
        current.question = None;
        match question.wanted {
            Wanted::Bytes { from, to } => {
                current.useless.insert(question.node);
                self.ask(now, from, to);
            }
            Wanted::Snapshot => self.refuse_snapshot(now, question.node),
        }
    }

    /// Nor does it say why.
    fn silent(&mut self, now: Nanos, question: Question) {
        if let Some(current) = &mut self.current {
            current.silent = true;
        }
        self.useless(now, question);
    }

    fn adjoins(&self, base: Position) -> bool {
        self.current.as_ref().is_some_and(|current| current.base < base)
    }

    fn swapped(&mut self, base: Position, bytes: u64, kept_at: Option<String>) {
        self.repaired(base, bytes, kept_at);
        self.current = None;
    }

    fn repaired(&mut self, base: Position, bytes: u64, kept_at: Option<String>) {
        let Some(current) = &self.current else { return };
        self.cases.remove(&base);
        self.repaired += 1;
        let nodes = current.helped.iter().copied().collect();
        let event = RepairEvent::Repaired { base, bytes, nodes, kept_at };
        self.outputs.push_back(RepairOutput::Event(event));
    }

    fn give_up(&mut self, now: Nanos, why: NotRepaired) {
        let Some(current) = self.current.take() else { return };
        let base = current.base;
        self.order(RepairOrder::Leave);
        let Some(case) = self.cases.get_mut(&base) else { return };
        let wait_ns = (AGAIN_NS << case.failures.min(20)).min(AGAIN_MAX_NS);
        case.failures = case.failures.saturating_add(1);
        case.not_before = now.plus(wait_ns);
        // Told at once, and then ever more rarely: it may take a person days to change it.
        if case.failures.is_power_of_two() {
            let again_ms = wait_ns / Nanos::MILLISECOND;
            let event = RepairEvent::NotRepaired { base, why, again_ms };
            self.outputs.push_back(RepairOutput::Event(event));
        }
    }

    /// Begins with the next file, or leaves a node that does not answer.
    fn advance(&mut self, now: Nanos) {
        if let Some(current) = &self.current {
            if let Some(question) = current.question.filter(|question| now >= question.until) {
                self.silent(now, question);
            }
            return;
        }
        let reach = self.reach;
        let end = |base: Position| base.0.saturating_add(self.segment_bytes);
        for (&base, case) in &mut self.cases {
            if end(base) >= reach.0 && !core::mem::replace(&mut case.waits_told, true) {
                self.outputs.push_back(RepairOutput::Event(RepairEvent::Waits { base }));
            }
        }
        let mut ready = self
            .cases
            .iter()
            .filter(|(base, case)| end(**base) < reach.0 && now >= case.not_before);
        let Some((&base, _)) = ready.next() else { return };
        self.current = Some(Current {
            base,
            question: None,
            useless: BTreeSet::new(),
            helped: BTreeSet::new(),
            gone: Vec::new(),
            silent: false,
            instead: None,
        });
        self.order(RepairOrder::Examine(base));
    }
}

impl RepairEvent {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> u16 {
        match self {
            Self::Repaired { .. } => 1171,
            Self::NotRepaired { .. } => 1172,
            Self::Waits { .. } => 1173,
            Self::Unfit { .. } => 1174,
            Self::Covered { .. } => 1176,
        }
    }
}

impl fmt::Display for RepairEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repaired { base, bytes, nodes, kept_at } => {
                write!(f, "the segment at {base} is repaired with {bytes} bytes of ")?;
                if nodes.is_empty() {
                    write!(f, "no other node")?;
                }
                for (number, node) in nodes.iter().enumerate() {
                    write!(f, "{}node {node}", if number == 0 { "" } else { ", " })?;
                }
                match kept_at {
                    Some(name) => write!(f, "; the damaged file is kept in {name}"),
                    None => write!(f, "; its file was not there"),
                }
            }
            Self::NotRepaired { base, why, again_ms } => {
                write!(
                    f,
                    "the segment at {base} is not repaired: {why}; tried again in {again_ms} ms"
                )
            }
            Self::Waits { base } => {
                write!(f, "the segment at {base} is repaired as soon as the log has left it")
            }
            Self::Covered { base, by, node, segments } => {
                write!(
                    f,
                    "all others have let go what the segment at {base} lacks: the snapshot at {by} covers it, "
                )?;
                match node {
                    Some(node) => write!(f, "taken from node {node}")?,
                    None => write!(f, "one of this node's own")?,
                }
                write!(
                    f,
                    "; the log goes on above it, and {segments} segments are kept in quarantine/"
                )
            }
            Self::Unfit { base, node } => write!(
                f,
                "what node {node} sent for the segment at {base} does not fit this log: its own may be damaged"
            ),
        }
    }
}

impl fmt::Display for NotRepaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody { from } => write!(f, "no other node gives what stands at {from}"),
            Self::NoSnapshot => {
                write!(f, "all others have let it go, and none gives a snapshot that covers it")
            }
            Self::Here(why) => f.write_str(why),
        }
    }
}

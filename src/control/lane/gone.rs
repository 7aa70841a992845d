//! What a node needs has left the logs of the others: it takes a snapshot of one of them, and the log from there on.
//!
//! Only when every other node was asked for the log in vain, and one at least said that it has left: then the two logs part
//! below where that one's begins. Its snapshot is of what is committed, and lies above that: nothing that this node has
//! beyond the place where they part was ever committed.
//!
//! A leader sync has one source, and nobody leads meanwhile: its snapshot is taken as soon as it says that the log has left. The
//! node starts again with it, and takes the rest over then.

use std::collections::VecDeque;

use super::sources::Sources;
use super::{
    ASK_AGAIN_NS, CATCH_UP_PATIENCE, Lane, LaneOutput, Progress, Pull, SnapshotRequest, Step,
};
use crate::control::event::{CatchUpFailure, Event};
use crate::limits::{LANE_PIECE_BYTES, LANE_PIECES_MAX};
use crate::link::{Purpose, SnapshotTaken};
use crate::types::{Generation, Leadership, Nanos, NodeId, Position};

/// What a piece of a snapshot came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// So much of it is here.
    Part {
        /// Its position; 0: nothing is here.
        position: Position,
        /// Bytes of the whole.
        total: u64,
        /// The next byte that is wanted.
        end: u64,
    },
    /// The other node has none.
    Nothing,
    /// All of it is here, checked and on the disk.
    Whole(Position),
    /// It is damaged.
    Damaged(Position),
    /// This node's disk failed.
    Failed,
}

impl From<SnapshotTaken> for Fetched {
    fn from(taken: SnapshotTaken) -> Self {
        match taken {
            SnapshotTaken::Part { position, total, end } => Self::Part { position, total, end },
            SnapshotTaken::Whole(position) => Self::Whole(position),
            SnapshotTaken::Damaged(position) => Self::Damaged(position),
        }
    }
}

/// A node whose log has left where this one needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ceiling {
    node: NodeId,
    /// Where its log begins.
    first: Position,
    /// Its newest snapshot at or below this is taken.
    at_most: Position,
}

#[cfg(test)]
impl Ceiling {
    pub(super) const fn at_most(self) -> Position {
        self.at_most
    }
}

/// Which nodes were asked in vain since this one fell behind, and what they said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct GoneSources {
    /// Of the leadership that this node fell behind in.
    generation: Generation,
    failed: Vec<NodeId>,
    gone: VecDeque<Ceiling>,
}

impl GoneSources {
    /// What was said in another generation does not count.
    pub(super) fn are_of(&mut self, generation: Generation) {
        if self.generation != generation {
            *self = Self { generation, ..Self::default() };
        }
    }

    /// Where its log begins.
    fn note(&mut self, node: NodeId, first: Position) {
        match self.gone.iter_mut().find(|known| known.node == node) {
            Some(known) => known.first = first,
            None => self.gone.push_back(Ceiling { node, first, at_most: Position(u64::MAX) }),
        }
    }

    /// What is known of this one's.
    pub(super) fn of(&self, node: NodeId) -> Option<Ceiling> {
        self.gone.iter().copied().find(|known| known.node == node)
    }

    /// A leader sync got no snapshot there: what it said may have changed when it is asked again.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.gone.retain(|known| known.node != node);
    }

    /// Whose snapshot is taken next. None: the log is asked for.
    pub(super) fn next(&self, sources: &Sources) -> Option<Ceiling> {
        let all = sources.nodes().all(|node| self.failed.contains(&node));
        self.gone.front().copied().filter(|_| all)
    }

    /// A node did not help: with a snapshot, or with the log.
    pub(super) fn failed(&mut self, node: NodeId, snapshot: bool, why: CatchUpFailure) {
        if !self.failed.contains(&node) {
            self.failed.push(node);
        }
        if !snapshot {
            return;
        }
        // The next one first; whoever has none is asked for its log again.
        let place = self.gone.iter().position(|known| known.node == node);
        let taken = place.and_then(|place| self.gone.remove(place));
        match taken {
            Some(known) if why != CatchUpFailure::NothingMore => self.gone.push_back(known),
            _ => {}
        }
        if self.gone.is_empty() {
            self.failed.clear();
        }
    }

    /// The snapshot at `position`, which it sent, is of no use there.
    fn lower(&mut self, node: NodeId, position: Position) {
        let below = Position(position.0.saturating_sub(1));
        let known = self.gone.iter_mut().filter(|known| known.node == node);
        known.for_each(|known| known.at_most = known.at_most.min(below));
    }
}

/// A snapshot on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fetch {
    ceiling: Ceiling,
    /// What is here of it was said.
    resumed: bool,
    /// What was here has left its source: this is the second attempt, with nothing here.
    anew: bool,
    /// Position of the one that comes; none: the source was not asked yet.
    position: Option<Position>,
    total: u64,
    end: u64,
    /// What was here at the beginning.
    began: u64,
    /// Asked for below this.
    asked: u64,
    /// Ends of what is asked for, in order.
    asks: VecDeque<u64>,
    hold_until: Nanos,
    /// What is asked for and is not here then is held for lost.
    lost_at: Nanos,
    whole: bool,
}

impl Fetch {
    fn new(now: Nanos, ceiling: Ceiling) -> Self {
        Self {
            ceiling,
            resumed: false,
            anew: false,
            position: None,
            total: 0,
            end: 0,
            began: 0,
            asked: 0,
            asks: VecDeque::new(),
            hold_until: now,
            lost_at: now,
            whole: false,
        }
    }

    #[cfg(test)]
    pub(super) fn lower(&mut self, at_most: Position) {
        self.ceiling.at_most = at_most;
    }

    /// What is asked for will not come: asked for again from `at` on.
    pub(super) fn forget_asks(&mut self, at: Nanos) {
        self.asked = self.end;
        self.asks.clear();
        self.hold_until = at;
    }

    /// Whether a snapshot there is one that this source is asked for.
    fn fits(&self, position: Position) -> bool {
        position >= self.ceiling.first && position <= self.ceiling.at_most
    }

    fn wants_more(&self) -> bool {
        let room = self.asks.len() < LANE_PIECES_MAX;
        let more = match self.position {
            None => self.asks.is_empty(),
            Some(_) => self.asked < self.total,
        };
        self.resumed && !self.whole && room && more
    }

    /// When something is to be done by itself.
    pub(super) fn deadline(&self) -> Nanos {
        let never = Nanos(u64::MAX);
        let ask = if self.wants_more() { self.hold_until } else { never };
        let lost = if self.asks.is_empty() { never } else { self.lost_at };
        ask.min(lost)
    }

    /// The next request, if it is time for one.
    pub(super) fn ask(
        &mut self,
        now: Nanos,
        number: u64,
        silence_ns: u64,
    ) -> Option<SnapshotRequest> {
        if !self.asks.is_empty() && now >= self.lost_at {
            self.forget_asks(now);
        }
        if now < self.hold_until || !self.wants_more() {
            return None;
        }
        let from = self.asked;
        let at_most = self.position.unwrap_or(self.ceiling.at_most);
        if self.asks.is_empty() {
            self.lost_at = now.plus(silence_ns);
        }
        self.asked = from.saturating_add(LANE_PIECE_BYTES);
        self.asks.push_back(self.asked);
        Some(SnapshotRequest { number, at_most, from })
    }

    /// So much is here; whether that is more than before.
    fn stands(&mut self, now: Nanos, position: Position, total: u64, end: u64) -> bool {
        if !self.fits(position) {
            return false;
        }
        let another = self.position != Some(position);
        let more = another || end > self.end;
        (self.position, self.total) = (Some(position), total);
        self.end = end;
        if another {
            self.began = end;
        }
        while self.asks.front().is_some_and(|&asked| asked <= end) {
            self.asks.pop_front();
        }
        if another || !more {
            self.forget_asks(now);
        } else {
            self.asked = self.asked.max(end);
            self.lost_at = now.plus(CATCH_UP_PATIENCE.silence_ns);
        }
        more
    }

    pub(super) fn progress(&self, now: Nanos, from: NodeId, since: Nanos) -> Option<Progress> {
        let taken = u128::from(self.end - self.began.min(self.end));
        let passed = u128::from(now.since(since).max(1));
        Some(Progress {
            from,
            leader_sync: false,
            snapshot: Some(self.position?),
            position: Position(self.end),
            goal: Position(self.total),
            bytes_per_second: (taken * u128::from(Nanos::SECOND) / passed) as u64,
        })
    }
}

impl Lane {
    /// The log that is needed has left this source.
    ///
    /// Nothing is cut for a newer generation, and a snapshot takes the place of all that is here: whether this node's log leads
    /// up to it nobody can tell any more. If bytes were taken already it does.
    pub(super) fn on_gone(&mut self, now: Nanos, from: NodeId, first: Position) {
        let other = |pull: &Pull| {
            let generation = pull.own.map_or(pull.last.generation, |own| own.generation);
            matches!(pull.step, Step::Match(_)) && generation != pull.last.generation
        };
        if self.pull.as_ref().is_some_and(other) {
            return self.fail(now, CatchUpFailure::OtherGeneration);
        }
        self.gone.note(from, first);
        let sync = self.pull.as_ref().is_some_and(|pull| pull.purpose == Purpose::LeaderSync);
        match self.gone.of(from).filter(|_| sync) {
            Some(ceiling) => self.fetch(now, Purpose::LeaderSync, ceiling),
            None => self.fail(now, CatchUpFailure::Gone),
        }
    }

    /// Begins to take a snapshot.
    pub(super) fn fetch(&mut self, now: Nanos, purpose: Purpose, ceiling: Ceiling) {
        self.number = self.number.wrapping_add(1);
        self.pull = Some(Pull {
            from: ceiling.node,
            purpose,
            last: Leadership::default(), // the core has no part in it
            own: None,
            patience: CATCH_UP_PATIENCE,
            goal: Position(0),
            step: Step::Fetching(Fetch::new(now, ceiling)),
            ask_at: now,
            moved: now,
            until: Nanos(u64::MAX),
            since: now,
            began: None,
            told: false,
        });
        self.outputs.push_back(LaneOutput::Resume(self.number));
    }

    pub(super) fn on_fetched(&mut self, now: Nanos, number: u64, what: Fetched) {
        let own = self.number == number;
        let Some(pull) = self.pull.as_mut().filter(|_| own) else { return };
        let from = pull.from;
        let Step::Fetching(fetch) = &mut pull.step else { return };
        let asked = core::mem::replace(&mut fetch.resumed, true);
        match what {
            Fetched::Part { position, .. } | Fetched::Whole(position)
                if !asked && !fetch.fits(position) =>
            {
                // What is here from before is of no use: the source's own is asked for.
                if position > Position(0) {
                    self.discard();
                }
            }
            Fetched::Part { position, .. } if position < fetch.ceiling.first => {
                // It begins before its log does: of no use to anybody.
                self.fail(now, CatchUpFailure::NothingMore);
            }
            Fetched::Part { position, total, end } => {
                if fetch.stands(now, position, total, end) {
                    pull.moved = now;
                    if asked {
                        self.tell_fetched(from, position);
                    }
                }
            }
            Fetched::Whole(position) if fetch.fits(position) => {
                (fetch.whole, pull.moved) = (true, now);
                fetch.asks.clear();
                self.tell_fetched(from, position);
                self.outputs.push_back(LaneOutput::Install(position));
            }
            Fetched::Whole(position) | Fetched::Damaged(position) => {
                self.discard();
                self.gone.lower(from, position);
                self.fail(now, CatchUpFailure::Damaged);
            }
            Fetched::Nothing => self.on_nothing(now),
            Fetched::Failed => fetch.forget_asks(now.plus(ASK_AGAIN_NS)),
        }
    }

    /// The source has none that it could go on with. If some of one is here, that one has left it: its newest is asked for,
    /// once, under another number, as other answers about the old one are on their way.
    fn on_nothing(&mut self, now: Nanos) {
        let Some(pull) = &self.pull else { return };
        let Step::Fetching(fetch) = &pull.step else { return };
        let (purpose, ceiling) = (pull.purpose, fetch.ceiling);
        if fetch.position.is_none() || fetch.anew {
            return self.fail(now, CatchUpFailure::NothingMore);
        }
        self.discard();
        self.fetch(now, purpose, ceiling);
        if let Some(Pull { step: Step::Fetching(fetch), .. }) = &mut self.pull {
            fetch.anew = true;
        }
    }

    /// Nothing of a snapshot that came in is kept: it would be found again by every later attempt.
    fn discard(&mut self) {
        self.outputs.push_back(LaneOutput::Discard);
    }

    /// Once for each.
    fn tell_fetched(&mut self, from: NodeId, position: Position) {
        let Some(pull) = &mut self.pull else { return };
        if !core::mem::replace(&mut pull.told, true) {
            let event = Event::SnapshotFetched { from, position };
            self.outputs.push_back(LaneOutput::Event(event));
        }
    }

    /// The node goes on with what it has.
    pub(super) fn not_installed(&mut self, now: Nanos) {
        self.discard();
        if self.pull.as_ref().is_some_and(|pull| matches!(pull.step, Step::Fetching(_))) {
            self.fail(now, CatchUpFailure::NothingMore);
        }
    }
}

//! The catch-up lane: a node takes over another's log by asking for it, piece by piece.
//!
//! The node that needs the log asks; the other answers, and keeps nothing of the asker in mind: so whatever is lost on the
//! way is asked for again, and a take-over that was broken off goes on where its log ends. First the cores find out where
//! the logs part ([`crate::link::MatchQuestion`]); then bytes from there on are asked for, a few pieces ahead, read from
//! the source's durable files, and handed to the core, which takes what chains.
//!
//! It serves the leader sync of elections, which ends where the source's log ended when it was canvassed, and followers that
//! fell behind what their leader holds in memory. Those take what is committed from any node that has it, from other
//! followers first, and go back to the leader's stream where that ends; if a source fails they try the next.

mod ask;
mod gone;
mod sources;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::VecDeque;
use std::sync::Arc;

pub use self::ask::{LaneAnswer, LaneRequest, MatchAnswer, RangeRequest, SnapshotRequest, Source};
pub use self::gone::Fetched;
use self::gone::{Fetch, GoneSources};
use self::sources::Sources;
use super::event::{CatchUpFailure, Event};
use crate::limits::{LANE_AHEAD_BYTES, LANE_MAILBOX_DEPTH, LANE_PIECE_BYTES, LANE_PIECES_MAX};
use crate::link::{
    ControlToCore, LaneFact, LaneRefusal, LogChunk, MatchQuestion, MatchReply, Purpose, Recency,
};
use crate::types::{Commit, Leadership, Nanos, NodeId, Position};

/// What brought nothing, or could not be asked, is asked for again after this, ns.
const ASK_AGAIN_NS: u64 = 10 * Nanos::MILLISECOND;
/// A piece for which the core had no room is offered again after this, ns.
const ROOM_AGAIN_NS: u64 = Nanos::MILLISECOND;
/// A leader sync is given up after this in any case, ns: what was taken stays, and another one goes on from there.
const SYNC_NS: u64 = 5 * Nanos::SECOND;

/// How patient a take-over is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(clippy::struct_field_names)] // units stand last
struct Patience {
    /// What was asked for and did not come is asked for again after this, ns. It may be on its way, slowly.
    silence_ns: u64,
    /// Where the logs part is asked of another node after this, ns: whether this one is there at all is not known before.
    answer_ns: u64,
    /// A take-over that gets nowhere for so long is given up, ns.
    stall_ns: u64,
}

/// Nobody leads meanwhile.
const SYNC_PATIENCE: Patience = Patience {
    silence_ns: 50 * Nanos::MILLISECOND,
    answer_ns: 300 * Nanos::MILLISECOND,
    stall_ns: 300 * Nanos::MILLISECOND,
};
/// The group goes on without this node, and sources send no faster than they are allowed.
const CATCH_UP_PATIENCE: Patience = Patience {
    silence_ns: Nanos::SECOND,
    answer_ns: 500 * Nanos::MILLISECOND,
    stall_ns: 3 * Nanos::SECOND,
};

/// What happens to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneInput {
    /// Time passed.
    Tick,
    /// Make the log equal to that of `from`, which ends like this.
    Pull {
        /// Whose.
        from: NodeId,
        /// Its end.
        recency: Recency,
    },
    /// The core reports.
    Core(LaneFact),
    /// The core accepts nothing older than this any more.
    Fenced(Leadership),
    /// Another node asks where the logs part. Bytes are asked of whoever reads the files.
    Asked {
        /// Which.
        asker: NodeId,
        /// What.
        question: MatchQuestion,
    },
    /// Another node answers.
    Answered {
        /// Which.
        from: NodeId,
        /// What.
        answer: LaneAnswer,
    },
    /// What was asked of a node and not answered yet is lost: it cannot be reached, or the connection broke.
    Broken(NodeId),
    /// What a piece of a snapshot came to, or what of one is here.
    Fetched {
        /// Of the take-over.
        number: u64,
        /// What.
        what: Fetched,
    },
    /// The node does not stop for the snapshot: its own log goes further.
    NotInstalled,
}

/// What it wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneOutput {
    /// To the core.
    ToCore(ControlToCore),
    /// To the core's mailbox for bytes. Never are more under way than it holds; if there is no room, the core is gone.
    Chunk(LogChunk),
    /// Ask another node. What is lost is asked again.
    Ask(NodeId, LaneRequest),
    /// Answer another node. What is lost is asked for again.
    Answer(NodeId, MatchAnswer),
    /// The leader sync has ended: whether the log now ends where the source's did.
    Ended(bool),
    /// Say what of a snapshot is here: [`LaneInput::Fetched`].
    Resume(u64),
    /// Keep nothing of a snapshot that came in. What cannot be removed is reported, and thrown away, again.
    Discard,
    /// All of the snapshot at this position is here: stop, and start with it. If not: [`LaneInput::NotInstalled`].
    Install(Position),
    /// Tell the operator.
    Event(Event),
}

/// What a take-over has come to, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Whose log.
    pub from: NodeId,
    /// For a leader sync. If not: to follow again.
    pub leader_sync: bool,
    /// End of what was taken.
    pub position: Position,
    /// Where it is to end, as far as is known: the source's log may grow.
    pub goal: Position,
    /// Position of the snapshot that is taken; the other two are bytes of it then.
    pub snapshot: Option<Position>,
    /// Bytes taken in a second, so far.
    pub bytes_per_second: u64,
}

/// The lane of a node: at most one log that it takes over, and what others ask of it.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Of the last take-over.
    number: u64,
    pull: Option<Pull>,
    /// What the core said when it fell behind; none: it has not, or it was seen to.
    behind: Option<Behind>,
    sources: Sources,
    gone: GoneSources,
    /// Bytes that the core was given and has not answered for: it must not be the one that frees them.
    held: VecDeque<Arc<[u8]>>,
    outputs: VecDeque<LaneOutput>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Behind {
    leadership: Leadership,
    leader: NodeId,
    lowest: Position,
    retry_at: Nanos,
}

/// A take-over under way.
#[derive(Clone, Debug)]
struct Pull {
    from: NodeId,
    purpose: Purpose,
    /// What the log that is taken over ends with, and what this node's does; none: it is empty, or the core did not say.
    last: Leadership,
    own: Option<Leadership>,
    patience: Patience,
    /// Where it ends: of a leader sync fixed, else as the source last said.
    goal: Position,
    step: Step,
    /// A question is asked (again) then.
    ask_at: Nanos,
    /// When it last got further.
    moved: Nanos,
    until: Nanos,
    since: Nanos,
    /// Where bytes were first taken from.
    began: Option<Position>,
    told: bool,
}

impl Pull {
    /// It is given up then, unless it gets further.
    fn given_up_at(&self) -> Nanos {
        let patience_ns = match self.step {
            Step::Match(_) => self.patience.answer_ns,
            Step::Core | Step::Taking(_) | Step::Fetching(_) => self.patience.stall_ns,
        };
        self.moved.plus(patience_ns).min(self.until)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    /// The core has the word.
    Core,
    /// The other core is asked where the logs part.
    Match(MatchQuestion),
    /// Bytes are asked for and handed on.
    Taking(Taking),
    /// A snapshot is asked for: the log that would be needed has left.
    Fetching(Fetch),
}

/// Bytes on their way: taken by the core below `received`, here below `next`, asked for below `asked`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Taking {
    tail: Position,
    received: Position,
    /// With the core, in order.
    given: VecDeque<Piece>,
    /// How many of them it has not spoken of yet.
    unanswered: usize,
    /// They are offered again then: there was no room.
    again: Option<Nanos>,
    /// Here, in order, and not given yet.
    waiting: VecDeque<Piece>,
    next: Position,
    asked: Position,
    /// Ends of the ranges that are asked for, in order.
    asks: VecDeque<Position>,
    /// Nothing is asked for before this: there was nothing, or nobody.
    hold_until: Nanos,
    /// What is asked for and is not here then is held for lost.
    lost_at: Nanos,
}

impl Taking {
    fn new(now: Nanos, tail: Position, received: Position) -> Self {
        Self {
            tail,
            received,
            given: VecDeque::new(),
            unanswered: 0,
            again: None,
            waiting: VecDeque::new(),
            next: received,
            asked: received,
            asks: VecDeque::new(),
            hold_until: now,
            lost_at: now,
        }
    }

    /// What is asked for will not come: asked for again from `at` on.
    fn forget_asks(&mut self, at: Nanos) {
        self.asked = self.next;
        self.asks.clear();
        self.hold_until = at;
    }

    /// How far may be asked for now.
    fn limit(&self, goal: Position) -> Position {
        goal.min(self.received.plus(LANE_AHEAD_BYTES))
    }

    /// When something is to be done by itself.
    fn deadline(&self, goal: Position) -> Nanos {
        let never = Nanos(u64::MAX);
        let again = self.again.unwrap_or(never);
        let ask = if self.asked < self.limit(goal) { self.hold_until } else { never };
        let lost = if self.asks.is_empty() { never } else { self.lost_at };
        again.min(ask).min(lost)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Piece {
    from: Position,
    bytes: Arc<[u8]>,
    committed: Commit,
}

impl Piece {
    fn end(&self) -> Position {
        self.from.plus(self.bytes.len() as u64)
    }
}

impl Lane {
    /// The lane of node `own` in a group of these nodes. Take-overs are numbered from `first` on: another number in each
    /// life of the process.
    #[must_use]
    pub fn new(first: u64, own: NodeId, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            number: first,
            pull: None,
            behind: None,
            sources: Sources::new(own, nodes),
            gone: GoneSources::default(),
            held: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input; drain [`Lane::poll`] afterwards.
    pub fn handle(&mut self, now: Nanos, input: LaneInput) {
        match input {
            LaneInput::Tick => {}
            LaneInput::Pull { from, recency } => self.start_sync(now, from, recency),
            LaneInput::Core(fact) => self.on_core(now, fact),
            LaneInput::Fenced(leadership) => self.on_fenced(leadership),
            LaneInput::Asked { asker, question } => {
                let order = ControlToCore::MatchQuestion { asker, question };
                self.outputs.push_back(LaneOutput::ToCore(order));
            }
            LaneInput::Answered { from, answer } => self.on_answer(now, from, answer),
            LaneInput::Broken(node) => self.on_broken(now, node),
            LaneInput::Fetched { number, what } => self.on_fetched(now, number, what),
            LaneInput::NotInstalled => self.not_installed(now),
        }
        self.advance(now);
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self) -> Option<LaneOutput> {
        self.outputs.pop_front()
    }

    /// When to tick again.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let never = Nanos(u64::MAX);
        let Some(pull) = &self.pull else {
            return self.behind.map_or(never, |behind| behind.retry_at);
        };
        let given_up = pull.given_up_at();
        let next = match &pull.step {
            Step::Core => never,
            Step::Match(_) => pull.ask_at,
            Step::Taking(taking) => taking.deadline(pull.goal),
            Step::Fetching(fetch) => fetch.deadline(),
        };
        given_up.min(next)
    }

    /// What is being taken over, and how far it is.
    #[must_use]
    pub fn progress(&self, now: Nanos) -> Option<Progress> {
        let pull = self.pull.as_ref()?;
        if let Step::Fetching(fetch) = &pull.step {
            let leader_sync = pull.purpose == Purpose::LeaderSync;
            let progress = fetch.progress(now, pull.from, pull.since)?;
            return Some(Progress { leader_sync, ..progress });
        }
        let Step::Taking(taking) = &pull.step else { return None };
        let taken = taking.tail.0.saturating_sub(pull.began?.0);
        let passed = now.since(pull.since).max(1);
        Some(Progress {
            from: pull.from,
            leader_sync: pull.purpose == Purpose::LeaderSync,
            position: taking.tail,
            goal: pull.goal,
            snapshot: None,
            bytes_per_second: (u128::from(taken) * u128::from(Nanos::SECOND) / u128::from(passed))
                as u64,
        })
    }

    /// Whether the node fell behind what its leader holds in memory, and is not back yet.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    fn start_sync(&mut self, now: Nanos, from: NodeId, recency: Recency) {
        self.behind = None;
        let until = now.plus(SYNC_NS);
        self.start(now, from, Purpose::LeaderSync, recency.last, until);
        if let Some(pull) = &mut self.pull {
            pull.goal = recency.tail.0;
        }
    }

    fn start(
        &mut self,
        now: Nanos,
        from: NodeId,
        purpose: Purpose,
        last: Leadership,
        until: Nanos,
    ) {
        self.number = self.number.wrapping_add(1);
        let sync = purpose == Purpose::LeaderSync;
        self.pull = Some(Pull {
            from,
            purpose,
            last,
            own: None,
            patience: if sync { SYNC_PATIENCE } else { CATCH_UP_PATIENCE },
            goal: Position(0),
            step: Step::Core,
            ask_at: now,
            moved: now,
            until,
            since: now,
            began: None,
            told: false,
        });
        let order = ControlToCore::TakeOver { number: self.number, last, purpose };
        self.outputs.push_back(LaneOutput::ToCore(order));
    }

    fn on_core(&mut self, now: Nanos, fact: LaneFact) {
        match fact {
            LaneFact::Behind { leadership, leader, lowest, .. } => {
                self.falls_behind(now, leadership, leader, lowest);
            }
            LaneFact::Answers { asker, number, reply, end } => {
                let answer = MatchAnswer { number, reply, end };
                self.outputs.push_back(LaneOutput::Answer(asker, answer));
            }
            LaneFact::Asks(question) if question.number == self.number => {
                if let Some(pull) = &mut self.pull {
                    // It asks for older ones later.
                    let own = Some(question.leadership).filter(|_| question.end > Position(0));
                    pull.own = pull.own.or(own);
                    (pull.step, pull.ask_at, pull.moved) = (Step::Match(question), now, now);
                }
            }
            LaneFact::Stands { number, tail, received } if number == self.number => {
                self.stands(now, tail, received);
            }
            LaneFact::Refuses { number, why } if number == self.number => {
                if why == LaneRefusal::Void {
                    self.behind = None; // the core says so anew if it is not true
                }
                self.fail(now, CatchUpFailure::Refused);
            }
            LaneFact::Asks(_) | LaneFact::Stands { .. } | LaneFact::Refuses { .. } => {}
        }
    }

    fn falls_behind(
        &mut self,
        now: Nanos,
        leadership: Leadership,
        leader: NodeId,
        lowest: Position,
    ) {
        self.gone.are_of(leadership.generation);
        let catching_up = self.pull.as_ref().map(|pull| pull.purpose);
        let known = self.behind.filter(|behind| behind.leadership == leadership);
        let retry_at = known.map_or(now, |behind| behind.retry_at);
        self.behind = Some(Behind { leadership, leader, lowest, retry_at });
        if catching_up != Some(Purpose::CatchUp(leadership)) {
            self.pull = None; // whatever it was, the core is about something else
        }
    }

    /// What belongs to an older leadership is void.
    fn on_fenced(&mut self, fence: Leadership) {
        self.behind = self.behind.filter(|behind| behind.leadership >= fence);
        let old = |pull: &mut Pull| matches!(pull.purpose, Purpose::CatchUp(of) if of < fence);
        self.pull.take_if(old);
        // A leader sync that the core knows of ends there. A snapshot is taken without it.
        let snapshot = |pull: &mut Pull| {
            pull.purpose == Purpose::LeaderSync && matches!(pull.step, Step::Fetching(_))
        };
        if self.pull.take_if(snapshot).is_some() {
            self.outputs.push_back(LaneOutput::Ended(false));
        }
    }

    /// The core's log is the other's up to `tail`, and it has the bytes up to `received`.
    fn stands(&mut self, now: Nanos, tail: Position, received: Position) {
        let Some(pull) = &mut self.pull else { return };
        if !matches!(pull.step, Step::Taking(_)) {
            pull.step = Step::Taking(Taking::new(now, tail, received));
            (pull.since, pull.moved) = (now, now);
            pull.began = Some(tail);
        }
        let Step::Taking(taking) = &mut pull.step else { return };
        if received > taking.received {
            pull.moved = now;
        }
        (taking.tail, taking.received) = (tail, received);
        taking.unanswered = taking.unanswered.saturating_sub(1);
        while taking.given.front().is_some_and(|piece| piece.end() <= received) {
            taking.given.pop_front();
        }
        if taking.unanswered == 0 && !taking.given.is_empty() {
            taking.again = Some(now.plus(ROOM_AGAIN_NS));
        }
        self.go_on(now);
    }

    /// Ends what is complete, and hands on what comes next.
    fn go_on(&mut self, now: Nanos) {
        let Some(pull) = &mut self.pull else { return };
        let Step::Taking(taking) = &mut pull.step else { return };
        let idle = taking.given.is_empty() && taking.waiting.is_empty();
        if idle && taking.tail >= pull.goal {
            let whole = taking.tail == pull.goal;
            return match pull.purpose {
                Purpose::LeaderSync => self.end_sync(whole),
                Purpose::CatchUp(_) | Purpose::Repair => self.caught_up(now),
            };
        }
        while taking.given.len() < LANE_MAILBOX_DEPTH
            && taking.again.is_none()
            && let Some(piece) = taking.waiting.pop_front()
        {
            self.outputs.push_back(LaneOutput::Chunk(chunk(self.number, &piece)));
            taking.unanswered += 1;
            self.held.push_back(Arc::clone(&piece.bytes));
            taking.given.push_back(piece);
        }
        // The core has spoken of all but the last ones.
        let kept = taking.given.len().max(taking.unanswered);
        while self.held.len() > kept {
            self.held.pop_front();
        }
    }

    /// The source has no more that it answers for.
    fn caught_up(&mut self, now: Nanos) {
        let (Some(pull), Some(behind)) = (&self.pull, self.behind) else { return };
        let Step::Taking(taking) = &pull.step else { return };
        if taking.tail < behind.lowest {
            return self.fail(now, CatchUpFailure::NothingMore);
        }
        let bytes = taking.tail.0.saturating_sub(pull.began.map_or(taking.tail.0, |began| began.0));
        let (from, position) = (pull.from, taking.tail);
        let passed_ms = now.since(pull.since) / Nanos::MILLISECOND;
        self.outputs.push_back(LaneOutput::Event(Event::CaughtUp {
            from,
            position,
            bytes,
            passed_ms,
        }));
        let order = ControlToCore::Rejoin { number: self.number };
        self.outputs.push_back(LaneOutput::ToCore(order));
        self.sources.served(from);
        self.gone = GoneSources::default();
        (self.pull, self.behind) = (None, None); // the core says so anew if it is not enough
    }

    fn on_answer(&mut self, now: Nanos, from: NodeId, answer: LaneAnswer) {
        let own = self.number;
        let Some(pull) = self.pull.as_mut().filter(|pull| pull.from == from) else { return };
        match answer {
            LaneAnswer::Match(MatchAnswer { number, reply: MatchReply::Gone(first), .. })
            | LaneAnswer::Gone { number, first }
                if number == own =>
            {
                self.on_gone(now, from, first);
            }
            LaneAnswer::Match(MatchAnswer { number, reply, end }) if number == own => {
                if !matches!(pull.step, Step::Match(_)) {
                    return; // a late one
                }
                pull.step = Step::Core;
                pull.moved = now;
                if pull.purpose != Purpose::LeaderSync {
                    pull.goal = end;
                }
                let order = ControlToCore::MatchReply { number, reply, end };
                self.outputs.push_back(LaneOutput::ToCore(order));
            }
            LaneAnswer::Bytes { number, from, end, committed, bytes } if number == own => {
                self.on_bytes(now, from, end, committed, bytes);
            }
            LaneAnswer::Match(_)
            | LaneAnswer::Bytes { .. }
            | LaneAnswer::Gone { .. }
            | LaneAnswer::Part { .. } => {}
        }
    }

    fn on_bytes(
        &mut self,
        now: Nanos,
        from: Position,
        end: Position,
        committed: Commit,
        mut bytes: Arc<[u8]>,
    ) {
        let Some(pull) = &mut self.pull else { return };
        let Step::Taking(taking) = &mut pull.step else { return };
        if pull.purpose == Purpose::LeaderSync {
            let wanted = pull.goal.0.saturating_sub(from.0);
            if wanted < bytes.len() as u64 {
                bytes = bytes[..wanted as usize].into();
            }
        } else {
            pull.goal = pull.goal.max(end);
        }
        let next = from == taking.next;
        if !next || bytes.is_empty() || taking.waiting.len() >= LANE_PIECES_MAX {
            // Late, or behind a gap, or nothing is there yet: asked for again, in a while.
            if from >= taking.next {
                taking.forget_asks(now.plus(ASK_AGAIN_NS));
            }
            return self.go_on(now);
        }
        let piece = Piece { from, bytes, committed };
        taking.next = piece.end();
        taking.lost_at = now.plus(pull.patience.silence_ns);
        if taking.asks.pop_front().is_some_and(|to| to > taking.next) {
            taking.forget_asks(now.plus(ASK_AGAIN_NS)); // the rest was not there
        }
        taking.asked = taking.asked.max(taking.next);
        taking.waiting.push_back(piece);
        if !core::mem::replace(&mut pull.told, true) && pull.purpose != Purpose::LeaderSync {
            let (from, position, goal) = (pull.from, taking.tail, pull.goal);
            let event = Event::CatchUpStarted { from, position, goal };
            self.outputs.push_back(LaneOutput::Event(event));
        }
        self.go_on(now);
    }

    fn on_broken(&mut self, now: Nanos, node: NodeId) {
        let Some(pull) = self.pull.as_mut().filter(|pull| pull.from == node) else { return };
        let at = now.plus(ASK_AGAIN_NS);
        pull.ask_at = at;
        match &mut pull.step {
            Step::Taking(taking) => taking.forget_asks(at),
            Step::Fetching(fetch) => fetch.forget_asks(at),
            Step::Core | Step::Match(_) => {}
        }
    }

    /// Begins, asks (again), or gives up.
    fn advance(&mut self, now: Nanos) {
        self.catch_up(now);
        let number = self.number;
        let Some(pull) = &mut self.pull else { return };
        if now >= pull.given_up_at() {
            return self.fail(now, CatchUpFailure::Silent);
        }
        let (from, silence_ns) = (pull.from, pull.patience.silence_ns);
        match &mut pull.step {
            Step::Core => {}
            Step::Fetching(fetch) => {
                while let Some(request) = fetch.ask(now, number, silence_ns) {
                    self.outputs.push_back(LaneOutput::Ask(from, LaneRequest::Snapshot(request)));
                }
            }
            Step::Match(question) => {
                if now >= pull.ask_at {
                    pull.ask_at = now.plus(silence_ns);
                    let request = LaneRequest::Match(*question);
                    self.outputs.push_back(LaneOutput::Ask(from, request));
                }
            }
            Step::Taking(taking) => {
                if taking.again.is_some_and(|at| now >= at) {
                    taking.again = None;
                    taking.unanswered = taking.given.len();
                    for piece in &taking.given {
                        self.outputs.push_back(LaneOutput::Chunk(chunk(number, piece)));
                    }
                }
                if !taking.asks.is_empty() && now >= taking.lost_at {
                    taking.forget_asks(now);
                }
                let limit = taking.limit(pull.goal);
                while now >= taking.hold_until && taking.asked < limit {
                    let to = taking.asked.plus(LANE_PIECE_BYTES).min(pull.goal);
                    let (purpose, first) = (pull.purpose, taking.asked);
                    let range = RangeRequest { number, purpose, from: first, to };
                    self.outputs.push_back(LaneOutput::Ask(from, LaneRequest::Range(range)));
                    if taking.asks.is_empty() {
                        taking.lost_at = now.plus(silence_ns);
                    }
                    taking.asks.push_back(to);
                    taking.asked = to;
                }
            }
        }
    }

    /// Whoever is behind takes what is missing from somebody.
    fn catch_up(&mut self, now: Nanos) {
        let Some(Behind { leadership, leader, retry_at, .. }) = self.behind else { return };
        if self.pull.is_some() || now < retry_at {
            return;
        }
        let purpose = Purpose::CatchUp(leadership);
        if let Some(ceiling) = self.gone.next(&self.sources) {
            return self.fetch(now, purpose, ceiling);
        }
        let Some(from) = self.sources.next(leader) else { return };
        self.start(now, from, purpose, leadership, Nanos(u64::MAX));
    }

    fn fail(&mut self, now: Nanos, why: CatchUpFailure) {
        let Some(pull) = self.pull.take() else { return };
        if pull.purpose == Purpose::LeaderSync {
            return self.fail_sync(&pull, why);
        }
        let Some(behind) = &mut self.behind else { return };
        self.gone.failed(pull.from, matches!(pull.step, Step::Fetching(_)), why);
        behind.retry_at = now.plus(self.sources.failed(pull.from));
        if self.sources.is_news(pull.from, why) || pull.told {
            let from = pull.from;
            self.outputs.push_back(LaneOutput::Event(Event::CatchUpFailed { from, why }));
        }
    }

    fn fail_sync(&mut self, pull: &Pull, why: CatchUpFailure) {
        let other = why == CatchUpFailure::OtherGeneration;
        if other || matches!(pull.step, Step::Fetching(_)) {
            if why == CatchUpFailure::NothingMore {
                self.gone.forget(pull.from);
            }
            if self.sources.is_news(pull.from, why) {
                let from = pull.from;
                self.outputs.push_back(LaneOutput::Event(Event::CatchUpFailed { from, why }));
            }
        }
        self.outputs.push_back(LaneOutput::Ended(false));
    }

    fn end_sync(&mut self, whole: bool) {
        self.pull = None;
        self.outputs.push_back(LaneOutput::Ended(whole));
    }
}

fn chunk(number: u64, piece: &Piece) -> LogChunk {
    let Piece { from, ref bytes, committed } = *piece;
    LogChunk { number, from, bytes: Arc::clone(bytes), committed }
}

//! Local queries: clients ask this node by itself, whatever its role, and its answer states how old the state may be.
//!
//! How old that is no node can tell from what it was sent: a datagram may have been under way for any time. So it *asks*. A
//! follower sends its leader a question and notes when; the leader answers with its commit position once a quorum has echoed
//! a stamp that it took after the question came, as for a linearizable query. Then everything that anybody in the group was
//! told before that note is at or below this position, whatever clocks and networks do, and also if that leader was followed
//! by another since. A leader asks itself. What nobody answers for only gets older.

use core::net::SocketAddr;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::core::{Core, Now, Work};
use super::quorum;
use super::settings::CoreSettings;
use crate::journal::SegmentMemory;
use crate::journal::hot::HotLog;
use crate::limits::{
    LOCAL_QUERIES_MAX, LOCAL_QUESTION_BYTES_MAX, LOCAL_REPLY_BYTES_MAX, NODES_MAX,
};
use crate::mutants::Mutant;
use crate::service::{Reply, Service};
use crate::stream::datagram::{DatagramKind, parse};
use crate::stream::local::{
    ANY_AGE_NS, CommitAnswer, CommitQuestion, LocalAnswerBody, LocalOutcome, LocalQueryBody,
};
use crate::stream::network::{Destination, Network};
use crate::types::{Generation, Leadership, Nanos, Position, Sequence, Term};

/// Longest that a question waits here, ns, whatever its client says.
const WAIT_NS_MAX: u64 = 10 * Nanos::SECOND;
/// Questions answered in one duty cycle, at most.
const ANSWERS_MAX: usize = 16;
/// A question to the leader is repeated after this, doubling up to the heartbeat, ns.
const RETRY_NS: u64 = 2 * Nanos::MILLISECOND;

/// Questions that wait, and what is known of the age of the state.
#[derive(Debug)]
pub(super) struct Locals {
    waiting: Vec<Waiting>,
    /// One of them came in the duty cycle before this one.
    came: bool,
    /// Places of questions that are free.
    free: Vec<usize>,
    questions: Box<[u8]>,
    reply: Box<[u8]>,
    /// The newest that was found out, and is applied.
    known: Option<Known>,
    asking: Asking,
    /// Number of the last question to a leader. Each life of the process begins elsewhere.
    number: u64,
    /// Somebody asked without a bound: the age that is stated the next time should be a young one.
    curious: bool,
    /// As a leader, by peer: those who asked, this node among them.
    askers: [Option<Asker>; NODES_MAX],
    /// How many there are.
    askers_count: usize,
    /// In which leadership they did.
    asked_in: Leadership,
    /// Term of the last entry applied.
    pub(super) applied_term: Term,
}

/// A question that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    from: SocketAddr,
    nonce: U64,
    number: U64,
    within_ns: u64,
    at_least: Sequence,
    /// A moment after it came. None in the duty cycle that took it.
    since: Option<Nanos>,
    until: Nanos,
    place: usize,
    length: usize,
}

/// Everything that anybody was told before `since` ends at or below `commit`.
#[derive(Clone, Copy, Debug)]
struct Known {
    since: Nanos,
    commit: Position,
    generation: Generation,
}

/// How far this node is with finding that out.
#[derive(Clone, Copy, Debug)]
enum Asking {
    No,
    /// The leader is asked, which may be this node: then a quorum is waited for.
    Leader(Asked),
    /// It was answered in this leadership, and the state is not there yet.
    Answered(Known, Leadership),
}

/// A question to the leader.
#[derive(Clone, Copy, Debug)]
struct Asked {
    number: u64,
    leadership: Leadership,
    since: Nanos,
    retry_at: Option<Nanos>,
    retry_ns: u64,
}

/// A node that wants to know what is committed.
#[derive(Clone, Copy, Debug)]
struct Asker {
    number: u64,
    since: Nanos,
    commit: Position,
}

/// What becomes of a question that came.
enum Taken {
    Waits,
    Garbage,
    /// It is refused at once.
    Refused(LocalQueryBody, LocalOutcome),
}

impl Waiting {
    /// Whether an answer with this knowledge is as fresh as was asked.
    fn is_satisfied(&self, since: Nanos, known: Option<Known>) -> bool {
        let oldest = Nanos(since.0.saturating_sub(self.within_ns));
        self.within_ns == ANY_AGE_NS || known.is_some_and(|known| known.since >= oldest)
    }
}

impl Locals {
    pub(super) fn new<M: SegmentMemory>(
        settings: &CoreSettings,
        log: &HotLog<M>,
        applied: Position,
    ) -> Self {
        // The table of terms may begin above it, where the log does not reach back to its birth.
        let below = log.terms().iter().take_while(|start| start.base < applied);
        let last = below.last().map(|start| start.leadership.term);
        let hot = log.predecessor_at(applied).map(|before| before.term);
        Self {
            waiting: Vec::with_capacity(LOCAL_QUERIES_MAX),
            came: false,
            free: (0..LOCAL_QUERIES_MAX).rev().collect(),
            questions: vec![0; LOCAL_QUERIES_MAX * LOCAL_QUESTION_BYTES_MAX].into_boxed_slice(),
            reply: vec![0; LOCAL_REPLY_BYTES_MAX].into_boxed_slice(),
            known: None,
            asking: Asking::No,
            number: settings.seed >> 1,
            curious: false,
            askers: [None; NODES_MAX],
            askers_count: 0,
            asked_in: Leadership::default(),
            applied_term: hot.or(last).unwrap_or(Term(0)),
        }
    }

    /// Takes a question out of the network's ring.
    fn take(&mut self, now: Nanos, from: SocketAddr, bytes: &[u8]) -> Taken {
        let Ok((body, question)) = LocalQueryBody::read_from_prefix(bytes) else {
            return Taken::Garbage;
        };
        if question.len() > LOCAL_QUESTION_BYTES_MAX {
            return Taken::Refused(body, LocalOutcome::TooLong);
        }
        let until = now.plus(body.wait.get().min(WAIT_NS_MAX));
        let (nonce, number) = (body.nonce, body.number);
        let same = |known: &&mut Waiting| {
            known.from == from && known.nonce == nonce && known.number == number
        };
        if let Some(known) = self.waiting.iter_mut().find(same) {
            // It came again, and waits still; but not for longer than one may.
            known.until = known.since.map_or(until, |since| until.min(since.plus(WAIT_NS_MAX)));
            return Taken::Waits;
        }
        let Some(place) = self.free.pop() else {
            return Taken::Refused(body, LocalOutcome::BackPressure);
        };
        let start = place * LOCAL_QUESTION_BYTES_MAX;
        let length = question.len();
        self.questions[start..start + length].copy_from_slice(question);
        let (within_ns, at_least) = (body.within.get(), Sequence(body.at_least.get()));
        self.curious |= within_ns == ANY_AGE_NS;
        self.waiting.push(Waiting {
            from,
            nonce,
            number,
            within_ns,
            at_least,
            since: None,
            until,
            place,
            length,
        });
        self.came = true;
        Taken::Waits
    }

    /// A duty cycle begins. What the one before took has come by now; its own reading of the clock was taken before it looked
    /// at the network, and whoever stood still in between would state too small an age.
    pub(super) fn cycle_begins(&mut self, now: Nanos) {
        if core::mem::take(&mut self.came) {
            for waiting in self.waiting.iter_mut().filter(|waiting| waiting.since.is_none()) {
                waiting.since = Some(now);
            }
        }
    }

    /// When something is due: a question to the leader again, the end of a client's patience.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let retry = match self.asking {
            Asking::Leader(asked) => asked.retry_at,
            Asking::No | Asking::Answered(..) => None,
        };
        // What has just come is looked at in the next cycle.
        let due = |waiting: &Waiting| waiting.since.map_or(Nanos(0), |_| waiting.until);
        self.waiting.iter().map(due).chain(retry).min()
    }

    /// Nobody asks, and nothing is to be found out.
    fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && !self.curious && matches!(self.asking, Asking::No)
    }

    /// Whether a question waits for more than is known.
    fn wants_to_know(&self, now: Nanos, young_ns: u64) -> bool {
        let old = self.known.is_none_or(|known| now.since(known.since) >= young_ns);
        (self.curious && old)
            || self.waiting.iter().any(|waiting| {
                waiting.since.is_some_and(|since| !waiting.is_satisfied(since, self.known))
            })
    }
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// A client asks this node, with this datagram of the batch.
    pub(super) fn hear_local(&mut self, index: usize, now: Now) {
        let (from, bytes) = self.network.datagram(index);
        let Ok((_, _, body)) = parse(bytes, self.settings.group) else { return };
        match self.locals.take(now.at, from, body) {
            Taken::Waits => {}
            Taken::Garbage => self.counters.dropped_garbage += 1,
            Taken::Refused(body, why) => self.refuse_local(now, from, &body, why),
        }
    }

    /// The body of a datagram of the batch, if it is a whole one.
    fn body_of<B: FromBytes>(&mut self, index: usize) -> Option<B> {
        let (_, bytes) = self.network.datagram(index);
        let parsed = parse(bytes, self.settings.group).ok();
        let body = parsed.and_then(|(_, _, body)| B::read_from_prefix(body).ok());
        self.counters.dropped_garbage += u64::from(body.is_none());
        body.map(|(body, _)| body)
    }

    /// A question came that is not taken.
    fn refuse_local(
        &mut self,
        now: Now,
        from: SocketAddr,
        body: &LocalQueryBody,
        why: LocalOutcome,
    ) {
        self.counters.local_refusals += 1;
        let mut answer = self.local_answer(now, body.nonce, body.number, why);
        answer.lag = U64::new(ANY_AGE_NS); // it came after this cycle's time, nobody knows how long
        let header = self.header(DatagramKind::LocalAnswer, now);
        self.send(Destination::Address(from), &header, answer.as_bytes());
    }

    /// One duty cycle: finds out what is asked for, and answers what can be. Returns how many.
    pub(super) fn serve_locals(&mut self, now: Now) -> usize {
        self.confirm(now);
        if self.locals.is_quiet() {
            return 0;
        }
        // Alone in its group a leader has its answer in the next cycle: that is not to wait for.
        let asked = self.find_out(now);
        let (mut at, mut done) = (0, 0);
        while done < ANSWERS_MAX
            && let Some(&waiting) = self.locals.waiting.get(at)
        {
            let Some(outcome) = self.local_outcome(now, &waiting) else {
                at += 1;
                continue;
            };
            self.locals.waiting.remove(at);
            self.locals.free.push(waiting.place);
            self.answer_local(now, &waiting, outcome);
            done += 1;
        }
        done + usize::from(asked)
    }

    /// What can be said to a question now. None: it waits.
    fn local_outcome(&self, now: Now, waiting: &Waiting) -> Option<LocalOutcome> {
        let since = waiting.since?;
        if matches!(self.work, Work::Halted) {
            return Some(LocalOutcome::Stopping);
        }
        let there = self.state.sequence() >= waiting.at_least || self.planted(Mutant::IgnoreDemand);
        if there && waiting.is_satisfied(since, self.locals.known) {
            return Some(LocalOutcome::Answered);
        }
        let why = if there { LocalOutcome::TooStale } else { LocalOutcome::Behind };
        (now.at >= waiting.until).then_some(why)
    }

    fn answer_local(&mut self, now: Now, waiting: &Waiting, outcome: LocalOutcome) {
        let start = waiting.place * LOCAL_QUESTION_BYTES_MAX;
        let Locals { questions, reply, .. } = &mut self.locals;
        let question = &questions[start..start + waiting.length];
        let mut reply = Reply::new(reply);
        let (mut outcome, mut code) = (outcome, 0);
        if outcome == LocalOutcome::Answered {
            self.counters.local_answers += 1;
            if let Err(rejection) = self.state.query(question, &mut reply) {
                (outcome, code) = (LocalOutcome::Rejected, rejection.0);
                reply.truncate(0);
            }
        } else {
            self.counters.local_refusals += 1;
        }
        let length = reply.written().len();
        let mut answer = self.local_answer(now, waiting.nonce, waiting.number, outcome);
        (answer.code, answer.length) = (U16::new(code), U32::new(length as u32));
        let mut header = self.header(DatagramKind::LocalAnswer, now);
        if let Work::Follower(following) = &self.work {
            header.commit = U64::new(self.commit.0.max(following.leader_commit()).0);
        }
        let to = Destination::Address(waiting.from);
        self.network.send(to, &header, answer.as_bytes(), &self.locals.reply[..length]);
    }

    /// An answer without a reply: where the state is, and how old it may be.
    fn local_answer(
        &self,
        now: Now,
        nonce: U64,
        number: U64,
        outcome: LocalOutcome,
    ) -> LocalAnswerBody {
        let heard = match &self.work {
            Work::Leader(leading) if !leading.over => Some(0),
            Work::Follower(following) => following.heard_ago(now.at),
            _ => None,
        };
        let lag = self.locals.known.map_or(ANY_AGE_NS, |known| now.at.since(known.since));
        LocalAnswerBody {
            nonce,
            number,
            outcome: outcome as u8,
            reserved: 0,
            code: U16::new(0),
            length: U32::new(0),
            term: U32::new(self.locals.applied_term.0),
            reserved_term: U32::new(0),
            applied: U64::new(self.applied.0.0),
            sequence: U64::new(self.state.sequence().0),
            lag: U64::new(lag),
            heard: U64::new(heard.unwrap_or(ANY_AGE_NS)),
        }
    }

    /// Asks, asks again, and takes note of what was answered once the state is there. Whether something new was asked.
    fn find_out(&mut self, now: Now) -> bool {
        let generation = self.fence.generation;
        if self.locals.known.is_some_and(|known| known.generation != generation) {
            // A person began another history: what was certain of the one before says nothing of it.
            self.locals.known = None;
        }
        match self.locals.asking {
            // First of all: what is applied says nothing of a position in another history.
            Asking::Answered(known, _) if known.generation != generation => {
                self.locals.asking = Asking::No;
            }
            Asking::Answered(known, leadership) => {
                let applied = self.applied.0 >= known.commit;
                if applied || self.planted(Mutant::FreshUnapplied) {
                    self.locals.known = Some(known);
                    self.locals.asking = Asking::No;
                } else if leadership != self.fence {
                    // The log of whoever leads now may end below it, and stay there.
                    self.locals.asking = Asking::No;
                }
            }
            Asking::Leader(asked) if asked.leadership != self.fence || self.leader().is_none() => {
                self.locals.asking = Asking::No; // nobody answers any more
            }
            Asking::Leader(asked) if asked.retry_at.is_some_and(|at| now.at >= at) => {
                self.ask_leader(now, asked);
            }
            Asking::Leader(_) | Asking::No => {}
        }
        if self.planted(Mutant::FreshOnHearing) {
            self.believe_what_is_heard(now);
        }
        if !matches!(self.locals.asking, Asking::No) {
            return false;
        }
        let wants = self.locals.wants_to_know(now.at, self.settings.heartbeat_ns);
        self.locals.curious = false;
        if wants {
            self.ask(now);
        }
        wants && matches!(self.locals.asking, Asking::Leader(_))
    }

    fn believe_what_is_heard(&mut self, now: Now) {
        let Work::Follower(following) = &self.work else { return };
        let Some(heard_ns) = following.heard_ago(now.at) else { return };
        let since = Nanos(now.at.0 - heard_ns);
        let generation = self.fence.generation;
        self.locals.known = Some(Known { since, commit: self.applied.0, generation });
    }

    /// Begins to find out, if there is somebody to ask.
    fn ask(&mut self, now: Now) {
        self.locals.number += 1;
        let (number, leadership) = (self.locals.number, self.fence);
        let asked = Asked { number, leadership, since: now.at, retry_at: None, retry_ns: RETRY_NS };
        match &self.work {
            Work::Leader(_) => {
                if self.note_asker(now, self.settings.own_index(), number) {
                    self.locals.asking = Asking::Leader(asked);
                }
            }
            Work::Follower(_) => self.ask_leader(now, asked),
            Work::Idle | Work::Puller(_) | Work::Halted => {}
        }
    }

    /// Sends the question; the same one again, until it is answered.
    fn ask_leader(&mut self, now: Now, mut asked: Asked) {
        let Some(leader) = self.leader() else { return };
        asked.retry_at = Some(now.at.plus(asked.retry_ns));
        asked.retry_ns = (asked.retry_ns * 2).min(self.settings.heartbeat_ns.max(RETRY_NS));
        self.locals.asking = Asking::Leader(asked);
        let question = CommitQuestion { number: U64::new(asked.number) };
        let header = self.header(DatagramKind::CommitQuestion, now);
        self.send(Destination::Node(leader), &header, question.as_bytes());
    }

    /// A follower wants to know what is committed.
    pub(super) fn on_commit_question(&mut self, index: usize, now: Now, peer: usize) {
        if let Some(question) = self.body_of::<CommitQuestion>(index) {
            self.note_asker(now, peer, question.number.get());
        }
    }

    /// Somebody wants to know: told when a quorum has echoed a stamp taken from now on. Whether that may come.
    fn note_asker(&mut self, now: Now, peer: usize, number: u64) -> bool {
        let Work::Leader(leading) = &self.work else { return false };
        if leading.over || leading.term_opened == Position(u64::MAX) {
            return false; // whoever asked asks again
        }
        let commit = leading.vouches_for(self.commit);
        if self.locals.asked_in != self.fence {
            // What was committed when somebody asked in another leadership says nothing of this one.
            self.locals.askers = [None; NODES_MAX];
            self.locals.askers_count = 0;
            self.locals.asked_in = self.fence;
        }
        let slot = &mut self.locals.askers[peer];
        if slot.is_none_or(|asker| asker.number != number) {
            self.locals.askers_count += usize::from(slot.is_none());
            *slot = Some(Asker { number, since: now.at, commit });
            self.sender.speak_now();
        }
        true
    }

    /// Tells those whose quorum has echoed.
    fn confirm(&mut self, now: Now) {
        if self.locals.askers_count == 0 || self.locals.asked_in != self.fence {
            return;
        }
        let (own, nodes) = (self.settings.own_index(), self.settings.peers.len());
        for peer in 0..nodes {
            let Some(asker) = self.locals.askers[peer] else { continue };
            let Work::Leader(leading) = &self.work else { return };
            if leading.over {
                return;
            }
            let heard =
                quorum::quorum_heard(leading.others(nodes), self.settings.voters(), asker.since);
            if !heard && !self.planted(Mutant::ConfirmWithoutQuorum) {
                continue;
            }
            self.locals.askers[peer] = None;
            self.locals.askers_count -= 1;
            if peer == own {
                self.answered(asker.number, asker.commit);
            } else {
                let (number, commit) = (U64::new(asker.number), U64::new(asker.commit.0));
                let header = self.header(DatagramKind::CommitAnswer, now);
                let to = Destination::Node(self.settings.peers[peer].node);
                self.send(to, &header, CommitAnswer { number, commit }.as_bytes());
            }
        }
    }

    /// The leader answers.
    pub(super) fn on_commit_answer(&mut self, index: usize, peer: usize) {
        let Some(answer) = self.body_of::<CommitAnswer>(index) else { return };
        if Some(self.settings.peers[peer].node) == self.leader() {
            self.answered(answer.number.get(), Position(answer.commit.get()));
        }
    }

    /// What was asked for is known, if this is the answer to it.
    fn answered(&mut self, to: u64, commit: Position) {
        let Asking::Leader(asked) = self.locals.asking else { return };
        if asked.number == to && asked.leadership == self.fence {
            let (since, generation) = (asked.since, self.fence.generation);
            let known = Known { since, commit, generation };
            self.locals.asking = Asking::Answered(known, asked.leadership);
        }
    }
}

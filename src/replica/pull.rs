//! Taking over another node's log: control carries questions and bytes, the core decides what becomes of them.
//!
//! Only the core moves the tail. It finds out where the logs part as a follower does, cuts what lies above in the one cut
//! protocol, never below what it knows as committed, and then takes whole frames that chain. A fence ends it: what comes
//! later is dropped (D7).
//!
//! A leader sync is done without a role. A follower that catches up stays one: it hears its leader, says so, and counts for
//! nothing until it has found its place in the leader's stream again.

use super::core::{Core, Now, Work};
use super::matching;
use super::take_over::{Placed, Reply, TakeOver};
use crate::journal::SegmentMemory;
use crate::link::{
    CoreEvent, CoreToControl, LaneFact, LaneRefusal, LogChunk, MatchQuestion, MatchReply, Purpose,
};
use crate::service::Service;
use crate::stream::network::Network;
use crate::types::{Commit, Leadership, NodeId, Position};

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// The take-over under way, with or without a role.
    fn taking(work: &mut Work) -> Option<&mut TakeOver> {
        match work {
            Work::Puller(taking) => Some(taking),
            Work::Follower(following) => following.taking(),
            Work::Idle | Work::Leader(_) | Work::Halted => None,
        }
    }

    /// Begins to take over a log whose frames are of `last` at the newest: for a leader sync the role is given up.
    pub(super) fn take_over(&mut self, number: u64, last: Leadership, purpose: Purpose) {
        let may = match (&self.work, purpose) {
            (Work::Follower(following), Purpose::CatchUp(_)) => following.is_behind(),
            (_, Purpose::CatchUp(_) | Purpose::Repair) => false,
            (work, Purpose::LeaderSync) => !matches!(work, Work::Halted),
        };
        let void = may.then_some(()).ok_or(LaneRefusal::Void);
        let begun =
            void.and_then(|()| TakeOver::begin(&self.log, self.fence, number, last, purpose));
        let begun = match begun {
            Ok(begun) => begun,
            Err(why) => return self.lane(LaneFact::Refuses { number, why }),
        };
        if let (Work::Follower(following), Purpose::CatchUp(_)) = (&mut self.work, purpose) {
            following.take_over(begun);
        } else {
            self.leave_role();
            self.work = Work::Puller(begun);
        }
        self.log.forget_above_tail();
        self.ask_where();
    }

    fn ask_where(&mut self) {
        let taking = Self::taking(&mut self.work);
        if let Some(question) = taking.and_then(|taking| taking.question(&self.log)) {
            self.lane(LaneFact::Asks(question));
        }
    }

    /// Another node takes over this one's log. Up to where it may is said with the same view of the log as the rest.
    pub(super) fn on_match_question(&mut self, asker: NodeId, question: &MatchQuestion) {
        let reply = matching::reply(&self.log, question);
        let all = match question.purpose {
            Purpose::LeaderSync => true,
            Purpose::CatchUp(leadership) => {
                matches!(self.work, Work::Leader(_)) && self.fence == leadership
            }
            Purpose::Repair => false,
        };
        let end = if all { self.log.tail().position } else { self.commit.0 };
        self.lane(LaneFact::Answers { asker, number: question.number, reply, end });
    }

    /// The other node's core has answered; it answers for its log up to `end`.
    pub(super) fn on_match_reply(&mut self, number: u64, reply: MatchReply, end: Position) {
        let Some(taking) = Self::taking(&mut self.work) else { return };
        match taking.on_reply(&self.log, self.commit, number, reply, end) {
            Reply::Ignored => {}
            Reply::AskAgain(question) => self.lane(LaneFact::Asks(question)),
            Reply::Cut(at) => self.start_cut(at),
            Reply::Take => self.start_taking(),
            Reply::Refuse => self.refuse_log(number),
            Reply::Diverged { position, own, leaders } => {
                self.event(CoreEvent::Diverged { position, own, leaders });
                self.refuse_log(number);
            }
        }
    }

    /// What a take-over wanted cut is cut.
    pub(super) fn cut_for_take_over(&mut self) {
        if Self::taking(&mut self.work).is_some_and(|taking| taking.on_cut_done(&self.log)) {
            self.start_taking();
        }
    }

    /// The log ends at the match point: bytes are taken from here on.
    fn start_taking(&mut self) {
        let tail = self.log.tail().position;
        if let Some(taking) = Self::taking(&mut self.work) {
            let number = taking.number();
            self.lane(LaneFact::Stands { number, tail, received: tail });
        }
    }

    /// Takes the bytes of a chunk that come next. Control holds them too: nothing is freed here.
    pub(super) fn take_chunk(&mut self, chunk: LogChunk) {
        let LogChunk { number, from, bytes, committed } = chunk;
        let Some(taking) = Self::taking(&mut self.work) else { return };
        let placed = taking.place(&mut self.log, number, from, &bytes);
        drop(bytes);
        let Some(Placed { verification, received }) = placed else { return };
        self.share_positions();
        if let Some(bad) = verification.bad {
            self.counters.bad_frames += 1;
            self.event(CoreEvent::BadFrame { position: bad.position });
            return self.refuse_log(number);
        }
        let tail = self.log.tail().position;
        // What the source knows as committed is the same here, below the tail: so it is applied, and leaves memory again.
        let known = committed.0.min(self.log.named_end());
        if known > self.commit.0 {
            self.set_commit(Commit(known));
        }
        self.lane(LaneFact::Stands { number, tail, received });
    }

    /// All that could be had was taken: the rest comes with the leader's stream, if it still holds it.
    pub(super) fn rejoin(&mut self, number: u64, now: Now) {
        let follows = matches!(self.work, Work::Follower(_));
        if follows && Self::taking(&mut self.work).is_some_and(|taking| taking.number() == number) {
            self.start_matching(now);
        }
    }

    fn refuse_log(&mut self, number: u64) {
        self.log.forget_above_tail();
        match &mut self.work {
            Work::Follower(following) => following.stop_taking(),
            _ => self.work = Work::Idle,
        }
        self.lane(LaneFact::Refuses { number, why: LaneRefusal::Log });
    }

    pub(super) fn lane(&mut self, fact: LaneFact) {
        self.tell(CoreToControl::Lane(fact));
    }
}

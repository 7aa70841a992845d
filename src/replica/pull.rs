//! Taking over another node's log: control carries questions and bytes, the core decides what becomes of them.
//!
//! Only the core moves the tail. It finds out where the logs part as a follower does, cuts what lies above in the one cut
//! protocol, never below what it knows as committed, and then takes whole frames that chain. A fence ends it: what comes
//! later is dropped (D7).
//!
//! A leader sync is done without a role. A follower that catches up stays one: it hears its leader, says so, and counts for
//! nothing until it has found its place in the leader's stream again.

use super::core::{Core, Now, Work};
use super::matching::{self, Verdict};
use crate::journal::SegmentMemory;
use crate::link::{
    CoreEvent, CoreToControl, LaneFact, LaneRefusal, LogChunk, MatchQuestion, MatchReply, Purpose,
};
use crate::service::Service;
use crate::stream::network::Network;
use crate::types::{Commit, Leadership, NodeId, Position, Received};

/// A take-over under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulling {
    number: u64,
    purpose: Purpose,
    /// No newer frame belongs to the log that is taken.
    last: Leadership,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Asking where the logs part, at or below this. An answer is used once.
    Asking(Leadership),
    /// The match point is known; what lies above it may still be being cut.
    Cutting,
    /// Bytes are taken, and all up to here are in memory: at the tail there may be a part of a frame.
    Taking(Position),
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    fn pulling(&mut self) -> Option<&mut Pulling> {
        match &mut self.work {
            Work::Puller(pulling) => Some(pulling),
            Work::Follower(following) => following.pulling(),
            Work::Idle | Work::Leader(_) | Work::Halted => None,
        }
    }

    /// Begins to take over a log whose frames are of `last` at the newest: for a leader sync the role is given up.
    pub(super) fn take_over(&mut self, number: u64, last: Leadership, purpose: Purpose) {
        let own = self.log.last_leadership();
        let empty = self.log.tail().position == Position(0);
        let behind = matches!(&self.work, Work::Follower(following)
            if following.is_behind() && purpose == Purpose::CatchUp(self.fence));
        let may = match purpose {
            Purpose::CatchUp(_) => behind && last == self.fence,
            Purpose::LeaderSync => !matches!(self.work, Work::Halted) && last <= self.fence,
        };
        if !may {
            return self.lane(LaneFact::Refuses { number, why: LaneRefusal::Void });
        }
        if !empty && own.generation != last.generation {
            return self.lane(LaneFact::Refuses { number, why: LaneRefusal::Log });
        }
        let pulling = Pulling { number, purpose, last, phase: Phase::Asking(own) };
        if let (Work::Follower(following), Purpose::CatchUp(_)) = (&mut self.work, purpose) {
            following.pull(pulling);
        } else {
            self.leave_role();
            self.work = Work::Puller(pulling);
        }
        self.log.forget_above_tail();
        self.ask_where(own);
    }

    fn ask_where(&mut self, limit: Leadership) {
        let Some(pulling) = self.pulling() else { return };
        pulling.phase = Phase::Asking(limit);
        let (number, purpose) = (pulling.number, pulling.purpose);
        self.lane(LaneFact::Asks(matching::lane_question(&self.log, number, purpose, limit)));
    }

    /// Another node takes over this one's log. Up to where it may is said with the same view of the log as the rest.
    pub(super) fn on_match_question(&mut self, asker: NodeId, question: &MatchQuestion) {
        let reply = matching::reply(&self.log, question);
        let all = match question.purpose {
            Purpose::LeaderSync => true,
            Purpose::CatchUp(leadership) => {
                matches!(self.work, Work::Leader(_)) && self.fence == leadership
            }
        };
        let end = if all { self.log.tail().position } else { self.commit.0 };
        self.lane(LaneFact::Answers { asker, number: question.number, reply, end });
    }

    /// The other node's core has answered; it answers for its log up to `end`.
    pub(super) fn on_match_reply(&mut self, number: u64, reply: MatchReply, end: Position) {
        let Some(&mut Pulling { number: own, purpose, phase, .. }) = self.pulling() else { return };
        let Phase::Asking(limit) = phase else { return };
        if own != number || self.cutting.is_some() {
            return;
        }
        match matching::judge_reply(&self.log, reply) {
            // Downwards only: it comes to an end.
            Verdict::AskBelow(below) if below < limit => self.ask_where(below),
            Verdict::Match(at) if at.position < self.commit.0 => {
                // A log that lacks what is committed is not taken over: nobody's bytes are cut for it.
                let own = self.log.predecessor_at(self.commit.0).map_or(at.chain, |p| p.chain);
                self.event(CoreEvent::Diverged { position: at.position, own, leaders: at.chain });
                self.refuse_log(number);
            }
            Verdict::Match(at) if at.position == self.log.tail().position => self.start_taking(),
            // What the source has above the match point and answers for takes the place of what is cut here. If it has
            // nothing, it may only be behind: what this node acknowledged is not cut for that.
            Verdict::Match(at) if purpose == Purpose::LeaderSync || end > at.position => {
                if let Some(pulling) = self.pulling() {
                    pulling.phase = Phase::Cutting;
                }
                self.start_cut(at);
            }
            Verdict::Contradiction { position, own, leaders } => {
                self.event(CoreEvent::Diverged { position, own, leaders });
                self.refuse_log(number);
            }
            Verdict::Match(_) | Verdict::AskBelow(_) | Verdict::Gone(_) | Verdict::Nonsense => {
                self.refuse_log(number);
            }
        }
    }

    /// The log ends at the match point: bytes are taken from here on.
    pub(super) fn start_taking(&mut self) {
        let tail = self.log.tail().position;
        let Some(pulling) = self.pulling() else { return };
        pulling.phase = Phase::Taking(tail);
        let number = pulling.number;
        self.lane(LaneFact::Stands { number, tail, received: tail });
    }

    /// Takes the bytes of a chunk that come next, as far as there is room, and the whole frames among them, if they chain.
    /// Control holds the bytes too: nothing is freed here.
    pub(super) fn take_chunk(&mut self, chunk: LogChunk) {
        let LogChunk { number, from, bytes, committed } = chunk;
        let Some(&mut Pulling { number: own, last, phase, .. }) = self.pulling() else { return };
        let Phase::Taking(before) = phase else { return };
        if own != number {
            return;
        }
        if from > before {
            // There was no room for all of one before it.
            let tail = self.log.tail().position;
            return self.lane(LaneFact::Stands { number, tail, received: before });
        }
        let known = before.since(from).min(bytes.len() as u64);
        let fresh = &bytes[known as usize..];
        let room = self.log.end_of_room().0.saturating_sub(before.0);
        let fresh = &fresh[..room.min(fresh.len() as u64) as usize];
        self.log.place(before, fresh);
        let received = before.plus(fresh.len() as u64);
        drop(bytes);
        let verification = self.log.verify(Received(received), usize::MAX, last.term);
        self.share_positions();
        if let Some(bad) = verification.bad {
            self.counters.bad_frames += 1;
            self.event(CoreEvent::BadFrame { position: bad.position });
            return self.refuse_log(number);
        }
        let tail = self.log.tail().position;
        let received = received.max(tail); // the body of padding need not have come
        // What the source knows as committed is the same here, below the tail: so it is applied, and leaves memory again.
        let known = committed.0.min(self.log.named_end());
        if known > self.commit.0 {
            self.set_commit(Commit(known));
        }
        if let Some(pulling) = self.pulling() {
            pulling.phase = Phase::Taking(received);
        }
        self.lane(LaneFact::Stands { number, tail, received });
    }

    /// All that could be had was taken: the rest comes with the leader's stream, if it still holds it.
    pub(super) fn rejoin(&mut self, number: u64, now: Now) {
        let follows = matches!(self.work, Work::Follower(_));
        if follows && self.pulling().is_some_and(|pulling| pulling.number == number) {
            self.log.forget_above_tail();
            self.start_matching(now);
        }
    }

    fn refuse_log(&mut self, number: u64) {
        self.log.forget_above_tail();
        match &mut self.work {
            Work::Follower(following) => following.stop_pulling(),
            _ => self.work = Work::Idle,
        }
        self.lane(LaneFact::Refuses { number, why: LaneRefusal::Log });
    }

    pub(super) fn lane(&mut self, fact: LaneFact) {
        self.tell(CoreToControl::Lane(fact));
    }
}

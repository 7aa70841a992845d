//! Taking over another node's log: control carries questions and bytes, the core decides what becomes of them.
//!
//! Only the core moves the tail. It finds out where the logs part as a follower does, cuts what lies above in the one cut
//! protocol, never below what it knows as committed, and then takes whole frames that chain. A fence ends it: what comes
//! later is dropped.

use super::core::{Core, Work};
use super::matching::{self, Verdict};
use crate::journal::SegmentMemory;
use crate::link::{CoreEvent, CoreToControl, LaneFact, LogChunk, MatchReply};
use crate::service::Service;
use crate::stream::network::Network;
use crate::types::{Leadership, Position, Received};

/// A take-over under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pulling {
    number: u64,
    /// Leadership of the last frame of the log that is taken: no newer frame belongs to it.
    last: Leadership,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Asking where the logs part, at or below this. An answer is used once.
    Asking(Leadership),
    /// The match point is known; what lies above it may still be being cut.
    Taking,
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Gives up the role and begins to take over a log that ends in `last`.
    pub(super) fn take_over(&mut self, number: u64, last: Leadership) {
        let own = self.log.last_leadership();
        let empty = self.log.tail().position == Position(0);
        let halted = matches!(self.work, Work::Halted);
        if halted || last > self.fence || !(empty || own.generation == last.generation) {
            return self.lane(LaneFact::Refuses { number });
        }
        self.leave_role();
        self.log.forget_above_tail();
        self.ask_where(number, last, own);
    }

    fn ask_where(&mut self, number: u64, last: Leadership, limit: Leadership) {
        self.work = Work::Puller(Pulling { number, last, phase: Phase::Asking(limit) });
        let question = matching::lane_question(&self.log, number, limit);
        self.lane(LaneFact::Asks(question));
    }

    /// The other node's core has answered.
    pub(super) fn on_match_reply(&mut self, number: u64, reply: MatchReply) {
        let Work::Puller(pulling) = self.work else { return };
        let Phase::Asking(limit) = pulling.phase else { return };
        if pulling.number != number {
            return;
        }
        match matching::judge_reply(&self.log, reply) {
            // Downwards only: it comes to an end.
            Verdict::AskBelow(below) if below < limit => {
                self.ask_where(number, pulling.last, below);
            }
            Verdict::Match(at) if at.position >= self.commit.0 => {
                self.work = Work::Puller(Pulling { phase: Phase::Taking, ..pulling });
                if at.position < self.log.tail().position {
                    self.start_cut(at);
                } else {
                    self.start_taking();
                }
            }
            Verdict::Match(at) => {
                // A log that lacks what is committed is not taken over: nobody's bytes are cut for it.
                let own = self.log.predecessor_at(self.commit.0).map_or(at.chain, |p| p.chain);
                self.event(CoreEvent::Diverged { position: at.position, own, leaders: at.chain });
                self.refuse_log(number);
            }
            Verdict::Contradiction { position, own, leaders } => {
                self.event(CoreEvent::Diverged { position, own, leaders });
                self.refuse_log(number);
            }
            Verdict::AskBelow(_) | Verdict::Gone(_) | Verdict::Nonsense => self.refuse_log(number),
        }
    }

    /// The log ends at the match point: bytes are taken from here on.
    pub(super) fn start_taking(&mut self) {
        if let Work::Puller(Pulling { number, phase: Phase::Taking, .. }) = self.work {
            let tail = self.log.tail().position;
            self.lane(LaneFact::Stands { number, tail });
        }
    }

    /// Takes the whole frames at the start of a chunk, if they chain. Control holds the bytes too: nothing is freed here.
    pub(super) fn take_chunk(&mut self, chunk: LogChunk) {
        let LogChunk { number, from, bytes } = chunk;
        let Work::Puller(pulling) = self.work else { return };
        let tail = self.log.tail().position;
        if pulling.number != number || pulling.phase != Phase::Taking || from != tail {
            return;
        }
        let room = self.log.end_of_room().0.saturating_sub(tail.0);
        let length = room.min(bytes.len() as u64);
        self.log.place(tail, &bytes[..length as usize]);
        drop(bytes);
        let received = Received(tail.plus(length));
        let verification = self.log.verify(received, usize::MAX, pulling.last.term);
        self.log.forget_above_tail();
        self.share_positions();
        if let Some(bad) = verification.bad {
            self.counters.bad_frames += 1;
            self.event(CoreEvent::BadFrame { position: bad.position });
            return self.refuse_log(number);
        }
        let tail = self.log.tail().position;
        self.lane(LaneFact::Stands { number, tail });
    }

    fn refuse_log(&mut self, number: u64) {
        self.work = Work::Idle;
        self.lane(LaneFact::Refuses { number });
    }

    fn lane(&mut self, fact: LaneFact) {
        self.tell(CoreToControl::Lane(fact));
    }
}

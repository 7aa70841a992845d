//! Taking over another node's log: control carries questions and bytes, the core decides what becomes of them.
//!
//! Only the core moves the tail. It finds out where the logs part as a follower does, cuts what lies above in the one cut
//! protocol, never below what it knows as committed, and then takes whole frames that chain. A fence ends it: what comes
//! later is dropped.

use super::core::{Core, Work};
use super::take_over::{Reply, TakeOver};
use crate::journal::SegmentMemory;
use crate::link::{CoreEvent, CoreToControl, LaneFact, LogChunk, MatchReply};
use crate::service::Service;
use crate::stream::network::Network;
use crate::types::Leadership;

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Gives up the role and begins to take over a log that ends in `last`.
    pub(super) fn take_over(&mut self, number: u64, last: Leadership) {
        let begun = TakeOver::begin(&self.log, self.fence, number, last);
        let Some(begun) = begun.filter(|_| !matches!(self.work, Work::Halted)) else {
            return self.lane(LaneFact::Refuses { number });
        };
        self.leave_role();
        self.log.forget_above_tail();
        self.lane(LaneFact::Asks(begun.question(&self.log)));
        self.work = Work::Puller(begun);
    }

    /// The other node's core has answered.
    pub(super) fn on_match_reply(&mut self, number: u64, reply: MatchReply) {
        let Work::Puller(taking) = &mut self.work else { return };
        match taking.on_reply(&self.log, self.commit, number, reply) {
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

    /// The log ends at the match point: bytes are taken from here on.
    pub(super) fn start_taking(&mut self) {
        if let Work::Puller(taking) = &self.work
            && let Some(number) = taking.takes()
        {
            let tail = self.log.tail().position;
            self.lane(LaneFact::Stands { number, tail });
        }
    }

    /// Takes the whole frames at the start of a chunk, if they chain. Control holds the bytes too: nothing is freed here.
    pub(super) fn take_chunk(&mut self, chunk: LogChunk) {
        let LogChunk { number, from, bytes } = chunk;
        let Work::Puller(taking) = &self.work else { return };
        let Some(verification) = taking.place(&mut self.log, number, from, &bytes) else { return };
        drop(bytes);
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

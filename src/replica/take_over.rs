//! What a core decides when it takes over another node's log (leader sync): the decisions alone, over the log.

use super::matching::{self, Verdict};
use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::journal::hot::{HotLog, Verification};
use crate::link::{MatchQuestion, MatchReply};
use crate::types::{Chain, Commit, Leadership, Position, Received};

/// A take-over under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TakeOver {
    number: u64,
    /// Leadership of the last frame of the log that is taken: no newer frame belongs to it.
    last: Leadership,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// Asking where the logs part, at or below this. An answer is used once.
    Asking(Leadership),
    /// The match point is known; what lies above it may still be being cut.
    Taking,
}

/// What a reply came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Nothing: it fits no open question.
    Ignored,
    /// Ask this.
    AskAgain(MatchQuestion),
    /// Cut what lies above; then bytes are taken.
    Cut(Predecessor),
    /// Bytes are taken from the tail on.
    Take,
    /// That log is not taken over.
    Refuse,
    /// Nor is this one: one of the two is not what it claims, or it lacks what is committed here.
    Diverged {
        /// Where.
        position: Position,
        /// This log's chain there, or where it is known as committed.
        own: Chain,
        /// The other's.
        leaders: Chain,
    },
}

impl TakeOver {
    /// Begins to take over a log that ends in `last`. `None`: it is refused, because a newer leadership is not promised
    /// here, or the log is of another generation.
    #[must_use]
    pub fn begin<M: SegmentMemory>(
        log: &HotLog<M>,
        fence: Leadership,
        number: u64,
        last: Leadership,
    ) -> Option<Self> {
        let own = log.last_leadership();
        let empty = log.tail().position == Position(0);
        let may = last <= fence && (empty || own.generation == last.generation);
        may.then_some(Self { number, last, phase: Phase::Asking(own) })
    }

    /// What to ask the other core now.
    #[must_use]
    pub fn question<M: SegmentMemory>(&self, log: &HotLog<M>) -> MatchQuestion {
        let limit = match self.phase {
            Phase::Asking(limit) => limit,
            Phase::Taking => log.last_leadership(),
        };
        matching::lane_question(log, self.number, limit)
    }

    /// Its number, once bytes are taken.
    #[must_use]
    pub fn takes(&self) -> Option<u64> {
        (self.phase == Phase::Taking).then_some(self.number)
    }

    /// Judges the other core's reply: never is anything cut that is known as committed here.
    pub fn on_reply<M: SegmentMemory>(
        &mut self,
        log: &HotLog<M>,
        commit: Commit,
        number: u64,
        reply: MatchReply,
    ) -> Reply {
        let Phase::Asking(limit) = self.phase else { return Reply::Ignored };
        if self.number != number {
            return Reply::Ignored;
        }
        match matching::judge_reply(log, reply) {
            // Downwards only: it comes to an end.
            Verdict::AskBelow(below) if below < limit => {
                self.phase = Phase::Asking(below);
                Reply::AskAgain(self.question(log))
            }
            Verdict::Match(at) if at.position >= commit.0 => {
                self.phase = Phase::Taking;
                if at.position < log.tail().position { Reply::Cut(at) } else { Reply::Take }
            }
            Verdict::Match(at) => {
                // A log that lacks what is committed is not taken over: nobody's bytes are cut for it.
                let own = log.predecessor_at(commit.0).map_or(at.chain, |p| p.chain);
                Reply::Diverged { position: at.position, own, leaders: at.chain }
            }
            Verdict::Contradiction { position, own, leaders } => {
                Reply::Diverged { position, own, leaders }
            }
            Verdict::AskBelow(_) | Verdict::Gone(_) | Verdict::Nonsense => Reply::Refuse,
        }
    }

    /// Takes the whole frames at the start of `bytes`, if they stand at the tail. `None`: they are not taken.
    pub fn place<M: SegmentMemory>(
        &self,
        log: &mut HotLog<M>,
        number: u64,
        from: Position,
        bytes: &[u8],
    ) -> Option<Verification> {
        let tail = log.tail().position;
        if self.takes() != Some(number) || from != tail {
            return None;
        }
        let room = log.end_of_room().0.saturating_sub(tail.0);
        let length = room.min(bytes.len() as u64);
        log.place(tail, &bytes[..length as usize]);
        let end = Received(tail.plus(length));
        let verification = log.verify(end, usize::MAX, self.last.term);
        log.forget_above_tail();
        Some(verification)
    }
}

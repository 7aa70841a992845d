//! What a core decides when it takes over another node's log: the decisions alone, over the log.

use super::matching::{self, Verdict};
use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::journal::hot::{HotLog, Verification};
use crate::link::{LaneRefusal, MatchQuestion, MatchReply, Purpose};
use crate::types::{Chain, Commit, Leadership, Position, Received};

/// A take-over under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TakeOver {
    number: u64,
    purpose: Purpose,
    /// No newer frame belongs to the log that is taken.
    last: Leadership,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// Asking where the logs part, at or below this. An answer is used once.
    Asking(Leadership),
    /// The match point is known; what lies above it is being cut.
    Cutting,
    /// Bytes are taken, and all up to here are in memory: at the tail there may be a part of a frame.
    Taking(Position),
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

/// What was made of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// Of the whole frames in it.
    pub verification: Verification,
    /// All up to here are in memory.
    pub received: Position,
}

impl TakeOver {
    /// Begins to take over a log whose frames are of `last` at the newest.
    ///
    /// # Errors
    /// Why not: a newer leadership is not promised here, or the log is of another generation.
    pub fn begin<M: SegmentMemory>(
        log: &HotLog<M>,
        fence: Leadership,
        number: u64,
        last: Leadership,
        purpose: Purpose,
    ) -> Result<Self, LaneRefusal> {
        let may = match purpose {
            Purpose::CatchUp(leadership) => leadership == fence && last == fence,
            Purpose::LeaderSync => last <= fence,
            Purpose::Repair => false, // of files, which is not the core's
        };
        if !may {
            return Err(LaneRefusal::Void);
        }
        let own = log.last_leadership();
        let empty = log.tail().position == Position(0);
        if !empty && own.generation > last.generation {
            return Err(LaneRefusal::Log);
        }
        Ok(Self { number, purpose, last, phase: Phase::Asking(own) })
    }

    /// Which take-over it is.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What to ask the other core, while nothing is known of where the logs part.
    #[must_use]
    pub fn question<M: SegmentMemory>(&self, log: &HotLog<M>) -> Option<MatchQuestion> {
        let Phase::Asking(limit) = self.phase else { return None };
        Some(matching::lane_question(log, self.number, self.purpose, limit))
    }

    /// Judges the other core's reply, which answers for its log up to `end`: never is anything cut that is known as
    /// committed here.
    pub fn on_reply<M: SegmentMemory>(
        &mut self,
        log: &HotLog<M>,
        commit: Commit,
        number: u64,
        reply: MatchReply,
        end: Position,
    ) -> Reply {
        let Phase::Asking(limit) = self.phase else { return Reply::Ignored };
        if self.number != number {
            return Reply::Ignored;
        }
        match matching::judge_reply(log, reply) {
            // Downwards only: it comes to an end.
            Verdict::AskBelow(below) if below < limit => {
                self.phase = Phase::Asking(below);
                self.question(log).map_or(Reply::Refuse, Reply::AskAgain)
            }
            Verdict::Match(at) if at.position < commit.0 => {
                // A log that lacks what is committed is not taken over: nobody's bytes are cut for it.
                let own = log.predecessor_at(commit.0).map_or(at.chain, |p| p.chain);
                Reply::Diverged { position: at.position, own, leaders: at.chain }
            }
            Verdict::Match(at) if at.position == log.tail().position => {
                self.phase = Phase::Taking(at.position);
                Reply::Take
            }
            // Nothing is cut for a log of a newer generation: that this one is behind on the way there is all that is taken for
            // granted.
            Verdict::Match(_) if log.last_leadership().generation != self.last.generation => {
                Reply::Refuse
            }
            // What the source has above the match point and answers for takes the place of what is cut here. If it has
            // nothing, it may only be behind: what this node acknowledged is not cut for that.
            Verdict::Match(at) if end > at.position && self.is_newer(log) => {
                self.phase = Phase::Cutting;
                Reply::Cut(at)
            }
            Verdict::Contradiction { position, own, leaders } => {
                Reply::Diverged { position, own, leaders }
            }
            Verdict::Match(_) | Verdict::AskBelow(_) | Verdict::Gone(_) | Verdict::Nonsense => {
                Reply::Refuse
            }
        }
    }

    /// Whether the log that is taken is still the more recent one. Control chose it for what it knew of this log before the
    /// role was given up: until then the core went on, and may have acknowledged what of the same leadership the source
    /// lacks.
    fn is_newer<M: SegmentMemory>(&self, log: &HotLog<M>) -> bool {
        self.purpose != Purpose::LeaderSync || log.last_leadership() < self.last
    }

    /// A cut has ended. Whether it was the one that this take-over asked for: then bytes are taken from the tail on.
    #[must_use]
    pub fn on_cut_done<M: SegmentMemory>(&mut self, log: &HotLog<M>) -> bool {
        let own = self.phase == Phase::Cutting;
        if own {
            self.phase = Phase::Taking(log.tail().position);
        }
        own
    }

    /// Takes the bytes that come next, as far as there is room, and the whole frames among them, if they chain. `None`: they
    /// are not taken.
    pub fn place<M: SegmentMemory>(
        &mut self,
        log: &mut HotLog<M>,
        number: u64,
        from: Position,
        bytes: &[u8],
    ) -> Option<Placed> {
        let Phase::Taking(before) = self.phase else { return None };
        if self.number != number {
            return None;
        }
        // Of several pieces under way there may have been no room for all of one before this: then nothing of it is taken.
        let known = before.0.saturating_sub(from.0).min(bytes.len() as u64);
        let fresh = if from > before { &[] } else { &bytes[known as usize..] };
        let room = log.end_of_room().0.saturating_sub(before.0);
        let fresh = &fresh[..room.min(fresh.len() as u64) as usize];
        log.place(before, fresh);
        let end = before.plus(fresh.len() as u64);
        let verification = log.verify(Received(end), usize::MAX, self.last.term);
        let received = end.max(log.tail().position); // the body of padding need not have come
        self.phase = Phase::Taking(received);
        Some(Placed { verification, received })
    }
}

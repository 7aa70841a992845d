//! Entering a leadership as a follower: which answer is taken, what becomes of the log, and what may be said meanwhile.
//!
//! The decisions alone, over the log and the receiver: no network, and time only to hand on. Every schedule of them is
//! explored (`tests/model.rs`).

use super::matching::{self, Verdict};
use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::journal::hot::{BadFrame, HotLog, Refusal};
use crate::mutants::{Mutant, Mutants};
use crate::stream::datagram::MatchAnswer;
use crate::stream::{DataOutcome, Receiver};
use crate::types::{Chain, Commit, Leadership, Nanos, Position, Term};

/// How far a follower has come with its leader's log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Entering {
    /// Asking where the logs part.
    Matching {
        /// The answer is bound to it.
        request: u64,
        /// It was asked for frames at or below this.
        limit: Leadership,
    },
    /// It was answered; what lies above the match point is being cut.
    Cutting,
    /// The log is the leader's, as far as it goes: the stream is taken.
    Streaming,
    /// The leader's memory does not reach back to here, or the logs contradict each other: control knows.
    Stuck,
}

/// What an answer came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: it fits no open question.
    Ignored,
    /// Ask again, as [`Entering::Matching`] now says.
    AskAgain,
    /// Cut what lies above; then [`Entering::stream`].
    Cut(Predecessor),
    /// Nothing to cut: [`Entering::stream`].
    Stream,
    /// Stuck: the leader's memory begins here.
    Gone(Position),
    /// Stuck: one of the two logs is not what it claims.
    Diverged {
        /// Where.
        position: Position,
        /// This log's chain there, or where it is known as committed.
        own: Chain,
        /// The leader's.
        leaders: Chain,
    },
    /// It is no answer.
    Nonsense,
}

/// Bytes that arrived: a part of the leader's log.
#[derive(Clone, Copy, Debug)]
pub struct Arrived<'a> {
    /// First byte.
    pub from: Position,
    /// The bytes.
    pub bytes: &'a [u8],
    /// They end with the header of padding, whose body is zero and was not sent.
    pub pads: bool,
    /// Sent because somebody asked.
    pub repair: bool,
}

/// Frames that were verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progressed {
    /// How many.
    pub frames: usize,
    /// The next one is not what the leader has: it is missing again.
    pub bad: Option<BadFrame>,
}

impl Entering {
    /// Enters `leadership`: whatever else arrived from older ones is forgotten.
    pub fn begin<M: SegmentMemory>(
        log: &mut HotLog<M>,
        leadership: Leadership,
        request: u64,
        mutants: Mutants,
    ) -> Self {
        if !mutants.has(Mutant::KeepOldRanges) {
            log.forget_above_tail();
        }
        let limit = Leadership { generation: leadership.generation, term: Term(u32::MAX) };
        Self::Matching { request, limit }
    }

    /// Whether the log is known to be the leader's.
    #[must_use]
    pub fn is_matched(self) -> bool {
        matches!(self, Self::Streaming)
    }

    /// Judges an answer: it is used once, so that a late duplicate never cuts. `next_request` is the number of another
    /// question, should there be one.
    pub fn on_answer<M: SegmentMemory>(
        &mut self,
        log: &HotLog<M>,
        commit: Commit,
        answer: &MatchAnswer,
        next_request: u64,
        mutants: Mutants,
    ) -> Step {
        let open = match *self {
            Self::Matching { request, .. } => answer.request.get() == request,
            Self::Streaming => mutants.has(Mutant::MatchTwice),
            Self::Cutting | Self::Stuck => false,
        };
        if !open {
            return Step::Ignored;
        }
        match matching::judge(log, answer) {
            Verdict::AskBelow(limit) => {
                *self = Self::Matching { request: next_request, limit };
                Step::AskAgain
            }
            Verdict::Match(at) => self.matched(log, commit, at, mutants),
            Verdict::Gone(lowest) => {
                *self = Self::Stuck;
                Step::Gone(lowest)
            }
            Verdict::Contradiction { position, own, leaders } => {
                *self = Self::Stuck;
                Step::Diverged { position, own, leaders }
            }
            Verdict::Nonsense => Step::Nonsense,
        }
    }

    fn matched<M: SegmentMemory>(
        &mut self,
        log: &HotLog<M>,
        commit: Commit,
        at: Predecessor,
        mutants: Mutants,
    ) -> Step {
        if mutants.has(Mutant::CutCommitted) {
            *self = Self::Cutting;
            return Step::Cut(log.predecessor_at(log.hot_base()).unwrap_or(at));
        }
        if at.position < commit.0 {
            // Within one generation a leader holds everything committed; this one does not: nobody's bytes are cut for it.
            *self = Self::Stuck;
            let own = log.predecessor_at(commit.0).map_or(at.chain, |p| p.chain);
            return Step::Diverged { position: at.position, own, leaders: at.chain };
        }
        if at.position == log.tail().position {
            return Step::Stream;
        }
        *self = Self::Cutting;
        Step::Cut(at)
    }

    /// The log ends at the match point: from here on the leader's bytes are verified against it.
    pub fn stream<M: SegmentMemory>(
        &mut self,
        log: &HotLog<M>,
        receiver: &mut Receiver,
        mutants: Mutants,
    ) {
        *self = Self::Streaming;
        let tail = log.tail().position;
        if !mutants.has(Mutant::KeepOldRanges) || receiver.received().0 != tail {
            receiver.restart(tail);
        }
    }

    /// Nothing more is taken from this leader.
    pub fn give_up(&mut self) {
        *self = Self::Stuck;
    }

    /// Places what is new of what arrived. `None`: it is not taken now.
    #[inline]
    pub fn place<M: SegmentMemory>(
        self,
        now: Nanos,
        arrived: Arrived<'_>,
        receiver: &mut Receiver,
        log: &mut HotLog<M>,
    ) -> Option<DataOutcome> {
        if !self.is_matched() {
            return None;
        }
        let Arrived { from, bytes, pads, repair } = arrived;
        let end = from.plus(bytes.len() as u64);
        let to = if pads {
            // Padding ends its segment.
            let last = Position(end.0.saturating_sub(1));
            last.segment_base(log.segment_bytes()).plus(log.segment_bytes())
        } else {
            end
        };
        if to > log.end_of_room() {
            return None; // no segment for it yet: it will be asked for again
        }
        Some(receiver.on_data(now, from, to, repair, |missing_from, missing_to| {
            let missing_to = missing_to.min(end);
            if missing_from < missing_to {
                let start = missing_from.since(from) as usize;
                let stop = missing_to.since(from) as usize;
                log.place(missing_from, &bytes[start..stop]);
            }
        }))
    }

    /// Verifies what is contiguous. `whole_end` is where the leader's log is known to end.
    #[inline]
    pub fn verify<M: SegmentMemory>(
        self,
        receiver: &Receiver,
        log: &mut HotLog<M>,
        frames_max: usize,
        term: Term,
        whole_end: Position,
    ) -> Progressed {
        if !self.is_matched() {
            return Progressed { frames: 0, bad: None };
        }
        let end = receiver.received();
        let verification = log.verify(end, frames_max, term);
        // A frame that claims to end above all that the leader has is as bad as one that does not chain.
        let beyond = verification.incomplete.is_some_and(|frame| frame > whole_end)
            && whole_end > log.tail().position
            && end.0 >= whole_end;
        let bad =
            if beyond { Some(log.reopen(end, Refusal::BeyondSender)) } else { verification.bad };
        Progressed { frames: verification.frames, bad }
    }

    /// Whether this log may be acknowledged. Before the match point is known, nothing in it is known to be the leader's.
    #[must_use]
    pub fn acknowledges(self, mutants: Mutants) -> bool {
        self.is_matched() || mutants.has(Mutant::AcknowledgeUnmatched)
    }

    /// What of the leader's commit position is committed here.
    #[inline]
    #[must_use]
    pub fn commits(self, leaders: Position, tail: Position, mutants: Mutants) -> Position {
        if self.is_matched() || mutants.has(Mutant::CommitUnmatched) {
            leaders.min(tail)
        } else {
            Position(0)
        }
    }
}

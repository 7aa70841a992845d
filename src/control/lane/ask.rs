//! What nodes ask of each other on the lane, and what they answer.

use core::sync::atomic::Ordering::Acquire;
use std::sync::Arc;

use crate::limits::LANE_PIECE_BYTES;
use crate::link::{MatchQuestion, MatchReply, Purpose, SharedWords, SnapshotPiece};
use crate::types::{Commit, Generation, Leadership, Position, Term};

/// What one node asks of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LaneRequest {
    /// Where the logs part.
    Match(MatchQuestion),
    /// Bytes of the log.
    Range(RangeRequest),
    /// Bytes of a snapshot, and of the log that leads up to it.
    Snapshot(SnapshotRequest),
}

/// See [`LaneRequest::Snapshot`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SnapshotRequest {
    /// Of the take-over.
    pub number: u64,
    /// The newest at or below this position.
    pub at_most: Position,
    /// First byte.
    pub from: u64,
}

/// See [`LaneRequest::Range`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RangeRequest {
    /// Of the take-over.
    pub number: u64,
    /// What for.
    pub purpose: Purpose,
    /// First byte.
    pub from: Position,
    /// Byte after the last.
    pub to: Position,
}

/// What it is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneAnswer {
    /// To [`LaneRequest::Match`].
    Match(MatchAnswer),
    /// To [`LaneRequest::Range`]: as many of its first bytes as are durable and answered for, perhaps none yet.
    Bytes {
        /// Of the take-over.
        number: u64,
        /// Where they stand.
        from: Position,
        /// Up to here the source answers for its log.
        end: Position,
        /// Its commit position.
        committed: Commit,
        /// The bytes.
        bytes: Arc<[u8]>,
    },
    /// To [`LaneRequest::Range`]: what stands there has left.
    Gone {
        /// Of the take-over.
        number: u64,
        /// Where the log begins.
        first: Position,
    },
    /// To [`LaneRequest::Snapshot`]. Whoever can write to the disk takes it, and says what it came to:
    /// [`LaneInput::Fetched`](super::LaneInput::Fetched).
    Part {
        /// Of the take-over.
        number: u64,
        /// The bytes.
        piece: SnapshotPiece,
    },
}

/// See [`LaneAnswer::Match`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MatchAnswer {
    /// Of the take-over.
    pub number: u64,
    /// What the other core says.
    pub reply: MatchReply,
    /// Up to here it answers for its log.
    pub end: Position,
}

/// What a node that is asked for bytes knows of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// The leadership that it leads, if it leads.
    pub leads: Option<Leadership>,
    /// Its commit position.
    pub committed: Commit,
    /// End of what is in its durable files.
    pub durable: Position,
}

impl Source {
    /// What the node shares now.
    #[must_use]
    pub fn of(words: &SharedWords) -> Self {
        /// The shared word `role` of a leader.
        const LEADS: u64 = 2;
        // The leadership first: a core gives a role up before it enters another leadership.
        let generation = Generation::from_u64(words.generation.load(Acquire));
        let leadership = Leadership { generation, term: Term(words.term.load(Acquire) as u32) };
        Self {
            leads: (words.role.load(Acquire) == LEADS).then_some(leadership),
            committed: Commit(Position(words.commit.load(Acquire))),
            durable: Position(words.durable.load(Acquire)),
        }
    }

    /// Up to where it answers for its log: a leader sync takes everything; who catches up takes what is committed, and from
    /// the leader that it follows what it would take from its stream.
    #[must_use]
    pub fn end_for(&self, purpose: Purpose) -> Position {
        match purpose {
            Purpose::LeaderSync => self.durable,
            Purpose::CatchUp(leadership) if self.leads == Some(leadership) => self.durable,
            Purpose::CatchUp(_) | Purpose::Repair => self.committed.0,
        }
    }

    /// Which of the bytes that are asked for it may send now, and up to where it answers.
    #[must_use]
    pub fn serves(&self, request: &RangeRequest) -> (Position, Position) {
        let end = self.end_for(request.purpose);
        let most = request.from.0.saturating_add(LANE_PIECE_BYTES);
        let to = request.to.min(Position(most)).min(end).min(self.durable);
        (to.max(request.from), end)
    }
}

//! What control and whoever reads the durable files say to each other about damaged ones.

use std::sync::Arc;

use super::{SnapshotPiece, SnapshotTaken};
use crate::types::{NodeId, Position};

/// From the reader of the files. A segment is named by its base.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepairReport {
    /// All below this is committed and on this disk.
    Reach(Position),
    /// This segment is damaged.
    Damaged(Position),
    /// It is not, any more.
    Mended(Position),
    /// Its file has left the log for good, as retention allows: nothing is left to repair.
    Left(Position),
    /// The one that is being repaired lacks bytes.
    Needs {
        /// Which segment.
        base: Position,
        /// First byte.
        from: Position,
        /// Byte after the last.
        to: Position,
    },
    /// What this node gave does not fit; it is dropped.
    Refused {
        /// For which segment.
        base: Position,
        /// Whose bytes.
        node: NodeId,
    },
    /// Everything fits together.
    Whole(Position),
    /// The repaired file is in its place.
    Swapped {
        /// Which segment.
        base: Position,
        /// Bytes that came from others.
        bytes: u64,
        /// Where the damaged one is kept; none: it was not there.
        kept_at: Option<String>,
    },
    /// It is the log's first, and what stands before its first entry is not known: no bytes of others help.
    Unjoined(Position),
    /// No good snapshot of this log covers it.
    Uncovered(Position),
    /// What a piece of a snapshot came to.
    Took {
        /// For which segment.
        base: Position,
        /// Whose snapshot.
        node: NodeId,
        /// `Whole`: it is one of this node's own now.
        what: SnapshotTaken,
    },
    /// It has left the log, which goes on above a snapshot.
    Covered {
        /// Which segment.
        base: Position,
        /// The last one that has left with it.
        through: Position,
        /// The snapshot.
        by: Position,
        /// How many segments are kept aside.
        segments: u64,
    },
    /// It could not be read, or written.
    Failed {
        /// Which segment.
        base: Position,
        /// Why.
        why: String,
    },
}

/// To the reader of the files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RepairOrder {
    /// Read this segment's file, and say what it lacks.
    Examine(Position),
    /// Bytes for it.
    Patch {
        /// For which segment.
        base: Position,
        /// Whose.
        node: NodeId,
        /// Where they stand.
        from: Position,
        /// The bytes.
        bytes: Arc<[u8]>,
    },
    /// Put the repaired file in its place.
    Swap(Position),
    /// Nobody has it any more: let it leave, and all below it, if a good snapshot covers that.
    Cover(Position),
    /// Some of a snapshot that is to cover it.
    Piece {
        /// For which segment.
        base: Position,
        /// Whose.
        node: NodeId,
        /// The bytes.
        piece: SnapshotPiece,
    },
    /// Leave it: nobody can help now.
    Leave,
    /// Somebody could not read the log there: look at it.
    Suspect(Position),
}

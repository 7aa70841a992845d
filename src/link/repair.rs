//! What control and whoever reads the durable files say to each other about damaged ones.

use std::sync::Arc;

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
    /// Leave it: nobody can help now.
    Leave,
    /// Somebody could not read the log there: look at it.
    Suspect(Position),
}

//! The one layout of a log entry, on disk, in memory, on the wire and in the tools.
//!
//! ```text
//!  0        4        8        12   13    14      16                24                32
//!  +--------+--------+--------+----+-----+-------+-----------------+-----------------+---------
//!  | length | crc32c |  term  |kind|flags|version|    sequence     |  timestamp (ns) | payload…
//!  +--------+--------+--------+----+-----+-------+-----------------+-----------------+---------
//! ```
//!
//! Little-endian. Frames are 32-byte aligned, the bytes between the payload's end and the next frame are zero, and no frame
//! crosses a segment: a padding frame fills the rest.

pub mod check;
pub mod crc;
mod header;
mod kind;
pub mod payload;

pub use check::{FrameError, Predecessor, check_frame};
pub use header::{FRAME_VERSION, FrameHeader, span};
pub use kind::Kind;

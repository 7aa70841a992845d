//! The log of one node: hot segments in memory, durable files beside them, and the way back after a crash.

mod cut;
pub mod files;
pub mod heap;
pub mod hot;
mod index;
pub mod keeper;
pub mod memory;
pub mod memory_disk;
pub mod mender;
pub mod node_state;
pub mod reader;
pub mod recovery;
pub mod recovery_table;
pub mod repair;
#[cfg(test)]
pub(crate) mod rig;
pub mod scrub;
pub mod seal;
pub mod segment_file;
pub mod segment_header;
pub mod snapshot;
pub mod syncer;
pub mod terms;

pub use heap::{HeapHotTier, HeapMemory, HeapView};
pub use hot::{HotLog, HotSettings};
pub use memory::{
    Disk, DurableFile, HotTier, SegmentMemory, SegmentView, parse_segment_name, segment_name,
};
pub use terms::{TermSpan, TermStartAt};

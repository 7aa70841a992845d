//! The log of one node: hot segments in memory, durable files beside them, and the way back after a crash.

pub mod memory;
pub mod memory_disk;
pub mod node_state;
pub mod seal;
pub mod segment_header;

pub use memory::{
    Disk, DurableFile, HotTier, SegmentMemory, SegmentView, parse_segment_name, segment_name,
};

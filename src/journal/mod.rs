//! The log of one node: hot segments in memory, durable files beside them, and the way back after a crash.

pub mod memory;

pub use memory::{
    Disk, DurableFile, HotTier, SegmentMemory, SegmentView, parse_segment_name, segment_name,
};

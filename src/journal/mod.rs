//! The log of one node: hot segments in memory, durable files beside them, and the way back after a crash.

pub mod backup;
pub mod cover;
mod cut;
pub mod files;
pub mod heap;
pub mod hot;
pub mod incoming;
mod index;
pub mod keeper;
mod match_point;
pub mod memory;
pub mod memory_disk;
pub mod mender;
pub mod node_state;
pub mod reader;
pub mod recovery;
pub mod recovery_table;
pub mod repair;
pub mod retention;
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

/// A name in `quarantine/` for a file of the data directory, whose files have `names`: one that nothing has yet.
fn quarantine_name(names: &[String], bare: &str) -> String {
    let mut kept = format!("quarantine/{bare}");
    let mut number = 1;
    while names.contains(&kept) {
        kept = format!("quarantine/{number}-{bare}");
        number += 1;
    }
    kept
}

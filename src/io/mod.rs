//! The host: mapping, files, sockets, clock, CPUs. The only module with system calls.

pub mod hot_tier;
pub mod log_reader;
pub mod mapping;
pub mod shared_page;
#[cfg(test)]
pub(crate) mod test_directory;

pub use hot_tier::{HostHotTier, HotTierError, HotTierSettings, HotTierWarning};
pub use log_reader::{LogReader, OpenError, ReadOptions, SegmentFile, Tier, Tiers};
pub use mapping::{MappedMemory, MappedView};
pub use shared_page::{MappedWords, SharedReader};

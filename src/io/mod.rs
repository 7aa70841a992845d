//! The host: mapping, files, sockets, clock, CPUs. The only module with system calls.

pub mod hot_tier;
pub mod mapping;
pub mod shared_page;
#[cfg(test)]
pub(crate) mod test_directory;

pub use hot_tier::{HostHotTier, HotTierError, HotTierSettings, HotTierWarning};
pub use mapping::{MappedMemory, MappedView};
pub use shared_page::{MappedWords, SharedReader};

//! The host: mapping, files, sockets, clock, CPUs. The only module with system calls.

pub mod archive;
pub mod backup_folder;
mod batch;
pub mod beside;
pub mod clock;
pub mod cpu;
pub mod faults;
pub mod files;
pub mod hot_tier;
pub mod interface;
pub mod log_reader;
pub mod mapping;
pub mod multicast;
pub mod network_error;
pub mod network_settings;
mod option;
pub mod port;
pub mod process;
mod ring;
pub mod shared_page;
#[cfg(test)]
pub(crate) mod test_directory;
pub mod udp;

pub use hot_tier::{HostHotTier, HotTierError, HotTierSettings, HotTierWarning};
pub use log_reader::{LogReader, OpenError, ReadOptions, SegmentFile, Tier, Tiers};
pub use mapping::{MappedMemory, MappedView};
pub use shared_page::{MappedWords, SharedReader};
pub mod wake;

//! What the journal needs of memory and of disks: small traits that `io` implements on the host and tests in memory.

use std::io;

use crate::types::Position;

/// The hot memory of one segment, owned by the core: a header page and a zero-filled payload.
///
/// The owner writes above the published frames only. Other threads and processes read through views of their own, below
/// the positions that the core has shared with release ordering.
pub trait SegmentMemory: Send {
    /// Bytes of the payload.
    fn payload_bytes(&self) -> u64;
    /// The header page.
    fn header_mut(&mut self) -> &mut [u8];
    /// Payload bytes at `offset..offset + length`. Panics when they are not all inside.
    fn bytes(&self, offset: u64, length: usize) -> &[u8];
    /// As [`SegmentMemory::bytes`], to be written.
    fn bytes_mut(&mut self, offset: u64, length: usize) -> &mut [u8];
    /// Stores the publish word at `offset` with release ordering.
    fn publish(&mut self, offset: u64, word: u32);
    /// Loads the publish word at `offset` with acquire ordering.
    fn published(&self, offset: u64) -> u32;
}

/// A reader's view of the hot memory of one segment: for the sync thread, the keeper and readers on other threads.
pub trait SegmentView: Send {
    /// Payload bytes at `offset..offset + length`, which the caller knows to be below a position shared by the core.
    fn bytes(&self, offset: u64, length: usize) -> &[u8];
}

/// Where hot segments live: a memory file system, or the data directory where there is none.
pub trait HotTier {
    /// The core's memory of a segment.
    type Memory: SegmentMemory;
    /// A reader's view of it.
    type View: SegmentView;
    /// Creates an empty segment file: header page and payload, sparse.
    ///
    /// # Errors
    /// The host's; `AlreadyExists` when there is one.
    fn create(&mut self, base: Position) -> io::Result<()>;
    /// Zero-fills and populates `length` bytes of the file from `offset` (of the file) on: one paced piece of preparing it.
    ///
    /// # Errors
    /// `StorageFull` when there is no space: here, never as a signal in the core.
    fn populate(&mut self, base: Position, offset: u64, length: u64) -> io::Result<()>;
    /// Maps a segment that was created here, or found by [`HotTier::list`], for the core and for readers.
    ///
    /// # Errors
    /// The host's, or `InvalidData` for a file of another size.
    fn open(&mut self, base: Position) -> io::Result<(Self::Memory, Self::View)>;
    /// Bases of the segment files that exist, sorted.
    ///
    /// # Errors
    /// The host's.
    fn list(&self) -> io::Result<Vec<Position>>;
    /// Unlinks a segment file.
    ///
    /// # Errors
    /// The host's.
    fn remove(&mut self, base: Position) -> io::Result<()>;
    /// A random number kept in the tier itself and made when the tier is new: tells whether it is the one of last time.
    fn id(&self) -> u64;
}

/// A file that the sync thread or the keeper writes explicitly. One owner, one descriptor.
pub trait DurableFile {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The host's; the file is then not written again.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads until `bytes` is full or the file ends; returns how many were read.
    ///
    /// # Errors
    /// The host's.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written durable.
    ///
    /// # Errors
    /// The host's. A sync that failed is never tried again on this file.
    fn sync(&mut self) -> io::Result<()>;
    /// Bytes of the file.
    ///
    /// # Errors
    /// The host's.
    fn length(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// The host's.
    fn set_length(&mut self, length: u64) -> io::Result<()>;
}

/// The data directory of a node. Names are relative to it and may hold one level of folders (`quarantine/x`).
pub trait Disk {
    /// An open file.
    type File: DurableFile;
    /// Opens an existing file, to be read and written.
    ///
    /// # Errors
    /// The host's.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Creates a file that must not exist yet.
    ///
    /// # Errors
    /// The host's.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Names of the files, sorted.
    ///
    /// # Errors
    /// The host's.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Renames over whatever has the new name.
    ///
    /// # Errors
    /// The host's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The host's.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// The host's.
    fn sync_directory(&self) -> io::Result<()>;
    /// Bytes that new files may still take. None, which is the default: it cannot tell.
    ///
    /// # Errors
    /// The host's.
    fn space_left(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// Name of the segment file whose payload starts at `base`: 16 hex digits and `.qlog`.
#[must_use]
pub fn segment_name(base: Position) -> String {
    format!("{:016x}.qlog", base.0)
}

/// The base in a segment file's name.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(".qlog")?;
    (digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
        .then(|| u64::from_str_radix(digits, 16).ok().map(Position))
        .flatten()
}

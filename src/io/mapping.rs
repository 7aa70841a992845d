//! One hot segment as a shared mapping: the core writes it, readers on other threads look at it through a view.
#![allow(unsafe_code)] // memory shared with other threads and processes; each block says why it is sound

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::fs::File;
use std::io;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};

use crate::journal::{SegmentMemory, SegmentView};
use crate::limits::SEGMENT_HEADER_BYTES;

/// Page tables are filled in pieces of this many bytes, so that the kernel's lock on them is never held for long.
const POPULATE_BYTES: usize = 1024 * 1024;
/// Smallest page of any host this runs on.
const PAGE_BYTES: usize = 4096;

/// The core's memory of one segment. There is one for each mapping, and it alone writes.
#[derive(Debug)]
pub struct MappedMemory {
    payload: Payload,
    mapping: Arc<MmapRaw>,
}

/// A reader's view of one segment.
#[derive(Debug, Clone)]
pub struct MappedView {
    payload: Payload,
    /// Header page, then payload. Unmapped with its last holder.
    _mapping: Arc<MmapRaw>,
}

/// Where the payload lies: valid as long as the mapping beside it, and kept here so that the core finds it at once.
#[derive(Debug, Clone, Copy)]
struct Payload {
    start: NonNull<u8>,
    bytes: u64,
}

// SAFETY: `start` points into a mapping that is not tied to a thread, and everything done through it is said to be sound
// where it is done, whichever thread does it.
unsafe impl Send for Payload {}
// SAFETY: likewise; through a shared reference bytes are only read.
unsafe impl Sync for Payload {}

/// Maps a segment file whose every byte is allocated, and fills the page tables, so that no store faults later.
///
/// # Errors
/// The host's; a file with holes on a full tier ends here, not as a signal in the core.
pub(super) fn map_segment(
    file: &File,
    payload_bytes: u64,
) -> io::Result<(MappedMemory, MappedView)> {
    let length = SEGMENT_HEADER_BYTES + payload_bytes as usize;
    let raw = MmapOptions::new().len(length).map_raw(file)?;
    populate(&raw, file)?;
    // SAFETY: the mapping is longer than a header page.
    let start = unsafe { raw.as_mut_ptr().add(SEGMENT_HEADER_BYTES) };
    let start = NonNull::new(start).expect("a mapping is never at 0");
    let payload = Payload { start, bytes: payload_bytes };
    let mapping = Arc::new(raw);
    let memory = MappedMemory { payload, mapping: Arc::clone(&mapping) };
    Ok((memory, MappedView { payload, _mapping: mapping }))
}

fn populate(raw: &MmapRaw, file: &File) -> io::Result<()> {
    for offset in (0..raw.len()).step_by(POPULATE_BYTES) {
        let length = POPULATE_BYTES.min(raw.len() - offset);
        match raw.advise_range(memmap2::Advice::PopulateWrite, offset, length) {
            Ok(()) => {}
            // Kernels before 5.14 do not know it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return touch(raw, file),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Provokes the write fault of every page without changing a byte.
fn touch(raw: &MmapRaw, file: &File) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    if file.metadata()?.blocks() * 512 < raw.len() as u64 {
        return Err(io::Error::new(io::ErrorKind::StorageFull, "the segment file has holes"));
    }
    for offset in (0..raw.len()).step_by(PAGE_BYTES) {
        // SAFETY: `offset` is inside the mapping.
        let byte = unsafe { raw.as_mut_ptr().add(offset) };
        // SAFETY: the byte is mapped for the whole call, and this access is atomic: a process that reads it sees the same
        // value before and after. The file has no holes (above), so the fault finds its page.
        unsafe { AtomicU8::from_ptr(byte) }.fetch_or(0, Ordering::Relaxed);
    }
    Ok(())
}

impl Payload {
    /// Start of `length` payload bytes at `offset`. Panics when they are not all inside.
    #[inline]
    fn at(&self, offset: u64, length: usize) -> *mut u8 {
        let inside = offset <= self.bytes && length as u64 <= self.bytes - offset;
        assert!(inside, "outside the segment");
        // SAFETY: `bytes` bytes from `start` on are mapped and `offset` is at most that many, so the result is inside the
        // mapping or one past its end.
        unsafe { self.start.as_ptr().add(offset as usize) }
    }

    #[inline]
    #[allow(clippy::cast_ptr_alignment)] // checked: the payload starts at a page
    fn word(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < self.bytes, "outside the segment");
        // SAFETY: inside the mapping (above).
        let word = unsafe { self.start.as_ptr().add(offset as usize) }.cast::<u32>();
        // SAFETY: four bytes inside the mapping (its payload and `offset` are multiples of four), aligned (it starts at a page),
        // and mapped as long as the holder of `self`. Every access to a publish word that may race with another thread is
        // atomic: other threads and processes look at bytes only below a shared position, and the owner writes those no
        // more.
        unsafe { AtomicU32::from_ptr(word) }
    }
}

impl SegmentMemory for MappedMemory {
    #[inline]
    fn payload_bytes(&self) -> u64 {
        self.payload.bytes
    }

    fn header_mut(&mut self) -> &mut [u8] {
        let start = self.mapping.as_mut_ptr();
        // SAFETY: the header page is inside the mapping, which lives as long as `self`. `self` is the only writer of the
        // mapping (not `Clone`, made once per `map_segment`, in a tier that is locked against other processes) and borrowed
        // mutably here. Views never show the header page.
        unsafe { core::slice::from_raw_parts_mut(start, SEGMENT_HEADER_BYTES) }
    }

    #[inline]
    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        let start = self.payload.at(offset, length);
        // SAFETY: inside the mapping, initialised (file bytes), mapped as long as `self` lives, and written by nobody while
        // `self` is borrowed: it is the only writer (see `header_mut`).
        unsafe { core::slice::from_raw_parts(start, length) }
    }

    #[inline]
    fn bytes_mut(&mut self, offset: u64, length: usize) -> &mut [u8] {
        let start = self.payload.at(offset, length);
        // SAFETY: as `bytes`, and exclusive: `self` is borrowed mutably, and views look only below a position that the core
        // shared (contract of `SegmentView::bytes`), where the core writes no more. A cut, which does, first has every
        // reader stop (the cut protocol).
        unsafe { core::slice::from_raw_parts_mut(start, length) }
    }

    #[inline]
    fn publish(&mut self, offset: u64, word: u32) {
        self.payload.word(offset).store(word.to_le(), Ordering::Release);
    }

    #[inline]
    fn published(&self, offset: u64) -> u32 {
        u32::from_le(self.payload.word(offset).load(Ordering::Acquire))
    }
}

impl SegmentView for MappedView {
    #[inline]
    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        let start = self.payload.at(offset, length);
        // SAFETY: inside the mapping, initialised, mapped as long as `self` lives. By the contract of the trait the caller
        // loaded, with acquire ordering, a position above these bytes that the core had stored with release ordering after
        // writing them; the core does not write there again before a cut, and then not before this reader stopped.
        unsafe { core::slice::from_raw_parts(start, length) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::io::test_directory::TestDirectory;

    const PAYLOAD: u64 = 64 * 1024;

    fn segment(directory: &TestDirectory) -> File {
        let path = directory.path().join("segment");
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.write_all_at(&vec![0; SEGMENT_HEADER_BYTES + PAYLOAD as usize], 0).unwrap();
        file
    }

    #[test]
    fn core_view_and_file_are_the_same_bytes() {
        let directory = TestDirectory::new("mapping");
        let file = segment(&directory);
        let (mut memory, view) = map_segment(&file, PAYLOAD).unwrap();
        assert_eq!(memory.payload_bytes(), PAYLOAD);
        memory.header_mut()[0] = 9;
        memory.bytes_mut(4, 60).fill(7);
        memory.publish(0, 0x0102_0304);
        assert_eq!(memory.published(0), 0x0102_0304);
        assert_eq!(view.bytes(0, 8), [4, 3, 2, 1, 7, 7, 7, 7]);
        let mut read = [0; 8];
        file.read_exact_at(&mut read, SEGMENT_HEADER_BYTES as u64).unwrap();
        assert_eq!(read, [4, 3, 2, 1, 7, 7, 7, 7]);
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(read[0], 9);
        drop(memory);
        assert_eq!(view.bytes(PAYLOAD - 1, 1), [0]);
    }

    #[test]
    fn touching_changes_nothing_and_refuses_holes() {
        let directory = TestDirectory::new("touch");
        let file = segment(&directory);
        file.write_all_at(&[5; 5000], 3000).unwrap();
        let raw = MmapOptions::new().map_raw(&file).unwrap();
        touch(&raw, &file).unwrap();
        let mut read = [0; 5000];
        file.read_exact_at(&mut read, 3000).unwrap();
        assert_eq!(read, [5; 5000]);
        let path = directory.path().join("sparse");
        let sparse = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        sparse.set_len(SEGMENT_HEADER_BYTES as u64 + PAYLOAD).unwrap();
        let raw = MmapOptions::new().map_raw(&sparse).unwrap();
        assert_eq!(touch(&raw, &sparse).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    #[should_panic(expected = "outside the segment")]
    fn bytes_outside_the_segment_are_refused() {
        let directory = TestDirectory::new("outside");
        let (memory, _view) = map_segment(&segment(&directory), PAYLOAD).unwrap();
        let _ = memory.bytes(PAYLOAD - 1, 2);
    }
}

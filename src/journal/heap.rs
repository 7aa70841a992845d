//! Hot segments on the heap, for tests and the simulator: what a mapping shares between threads is copied here, so that no
//! `unsafe` is needed.
//!
//! The core's bytes reach the readers when a publish word is stored, frame by frame; that is all a reader may look at. When
//! the core's memory is dropped, as by a crash of the process, everything is written back: unpublished bytes, too, survive
//! in the tier, and recovery has to cope with them.

use core::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::{HotTier, SegmentMemory, SegmentView};
use crate::frame::span;
use crate::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::types::Position;

/// A hot tier on the heap. Its segments live as long as the tier; clones share them.
#[derive(Clone, Debug)]
pub struct HeapHotTier {
    segment_bytes: u64,
    id: u64,
    files: Arc<Mutex<BTreeMap<Position, File>>>,
}

#[derive(Clone, Debug)]
struct File {
    bytes: Shared,
    populated: u64,
}

/// Header page and payload, as a file would hold them.
type Shared = Arc<Mutex<Vec<u8>>>;

/// The core's memory of one segment.
#[derive(Debug)]
pub struct HeapMemory {
    own: Vec<u8>,
    file: Shared,
}

/// A reader's view of one segment.
#[derive(Debug)]
pub struct HeapView {
    file: Shared,
    read: Pieces,
}

impl HeapHotTier {
    /// An empty tier for segments of `segment_bytes`, with this identity.
    #[must_use]
    pub fn new(segment_bytes: u64, id: u64) -> Self {
        Self { segment_bytes, id, files: Arc::default() }
    }

    fn file_bytes(&self) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + self.segment_bytes
    }

    fn found(&self, base: Position) -> io::Result<File> {
        let files = lock(&self.files);
        files.get(&base).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl HotTier for HeapHotTier {
    type Memory = HeapMemory;
    type View = HeapView;

    fn create(&mut self, base: Position) -> io::Result<()> {
        let mut files = lock(&self.files);
        if files.contains_key(&base) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let bytes = vec![0; self.file_bytes() as usize];
        files.insert(base, File { bytes: Arc::new(Mutex::new(bytes)), populated: 0 });
        Ok(())
    }

    fn populate(&mut self, base: Position, offset: u64, length: u64) -> io::Result<()> {
        let mut files = lock(&self.files);
        let file = files.get_mut(&base).ok_or(io::ErrorKind::NotFound)?;
        let end = offset.checked_add(length).filter(|&end| end <= self.file_bytes());
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        lock(&file.bytes)[offset as usize..end as usize].fill(0);
        file.populated = file.populated.max(end);
        Ok(())
    }

    fn open(&mut self, base: Position) -> io::Result<(HeapMemory, HeapView)> {
        let file = self.found(base)?.bytes;
        let own = lock(&file).clone();
        let view = HeapView { file: Arc::clone(&file), read: Pieces::default() };
        Ok((HeapMemory { own, file }, view))
    }

    fn list(&self) -> io::Result<Vec<Position>> {
        Ok(lock(&self.files).keys().copied().collect())
    }

    fn remove(&mut self, base: Position) -> io::Result<()> {
        lock(&self.files).remove(&base).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn id(&self) -> u64 {
        self.id
    }
}

impl HeapMemory {
    /// Zero-filled memory of one segment that nobody else reads.
    #[must_use]
    pub fn new(segment_bytes: u64) -> Self {
        let own = vec![0; SEGMENT_HEADER_BYTES + segment_bytes as usize];
        Self { file: Arc::new(Mutex::new(own.clone())), own }
    }

    fn write_back(&self, from: usize, to: usize) {
        lock(&self.file)[from..to].copy_from_slice(&self.own[from..to]);
    }
}

impl SegmentMemory for HeapMemory {
    fn payload_bytes(&self) -> u64 {
        (self.own.len() - SEGMENT_HEADER_BYTES) as u64
    }

    fn header_mut(&mut self) -> &mut [u8] {
        &mut self.own[..SEGMENT_HEADER_BYTES]
    }

    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        &self.own[SEGMENT_HEADER_BYTES..][offset as usize..][..length]
    }

    fn bytes_mut(&mut self, offset: u64, length: usize) -> &mut [u8] {
        &mut self.own[SEGMENT_HEADER_BYTES..][offset as usize..][..length]
    }

    fn publish(&mut self, offset: u64, word: u32) {
        let at = SEGMENT_HEADER_BYTES + offset as usize;
        self.own[at..at + 4].copy_from_slice(&word.to_le_bytes());
        if offset == 0 {
            self.write_back(0, SEGMENT_HEADER_BYTES);
        }
        // With the frame goes the word behind it, which is 0 before this one is stored.
        let bytes =
            if word == 0 { 4 } else { span(word).max(FRAME_HEADER_BYTES as u64) as usize + 4 };
        self.write_back(at, (at + bytes).min(self.own.len()));
    }

    fn published(&self, offset: u64) -> u32 {
        let at = SEGMENT_HEADER_BYTES + offset as usize;
        let word: [u8; 4] = core::array::from_fn(|n| self.own[at + n]);
        u32::from_le_bytes(word)
    }
}

impl Drop for HeapMemory {
    fn drop(&mut self) {
        self.write_back(0, self.own.len());
    }
}

impl SegmentView for HeapView {
    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        let start = SEGMENT_HEADER_BYTES + offset as usize;
        self.read.keep(lock(&self.file)[start..start + length].to_vec())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here leaves a value half changed when it panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies handed out by reference: they stay where they are until the view is dropped.
#[derive(Default)]
struct Pieces {
    count: Cell<usize>,
    /// Rows of 1, 2, 4, … pieces: made when needed, never moved.
    rows: [OnceCell<Row>; 32],
}

type Row = Box<[OnceCell<Vec<u8>>]>;

impl Pieces {
    fn keep(&self, piece: Vec<u8>) -> &[u8] {
        let number = self.count.get() + 1;
        self.count.set(number);
        let row = number.ilog2();
        let length = 1_usize << row;
        let cells = self.rows[row as usize]
            .get_or_init(|| core::iter::repeat_with(OnceCell::new).take(length).collect());
        cells[number - length].get_or_init(|| piece)
    }
}

impl core::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} pieces", self.count.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 64 * 1024;

    #[test]
    fn readers_see_what_is_published_and_nothing_else() {
        let mut tier = HeapHotTier::new(SEGMENT, 1);
        tier.create(Position(0)).unwrap();
        let (mut memory, view) = tier.open(Position(0)).unwrap();
        memory.bytes_mut(4, 60).fill(7);
        assert_eq!(view.bytes(0, 64), [0; 64]);
        memory.publish(0, 40);
        let seen = view.bytes(0, 64);
        assert_eq!(memory.published(0), 40);
        assert_eq!((seen[0], seen[4], seen[63]), (40, 7, 7));
        memory.bytes_mut(64, 64).fill(9);
        assert_eq!(view.bytes(64, 64), [0; 64]);
        drop(memory);
        assert_eq!(view.bytes(64, 64), [9; 64]);
        for n in 0..100 {
            assert_eq!(view.bytes(n, 1).len(), 1);
        }
        assert_eq!((seen[0], seen[4]), (40, 7));
    }

    #[test]
    fn files_are_made_once_found_again_and_removed() {
        let mut tier = HeapHotTier::new(SEGMENT, 1);
        assert_eq!(tier.open(Position(0)).unwrap_err().kind(), io::ErrorKind::NotFound);
        tier.create(Position(SEGMENT)).unwrap();
        tier.create(Position(0)).unwrap();
        assert_eq!(tier.create(Position(0)).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        tier.populate(Position(0), 0, SEGMENT).unwrap();
        let beyond = tier.populate(Position(0), SEGMENT, SEGMENT).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(tier.list().unwrap(), [Position(0), Position(SEGMENT)]);
        tier.remove(Position(0)).unwrap();
        assert_eq!(tier.remove(Position(0)).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

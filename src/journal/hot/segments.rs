//! The segments a hot log holds: contiguous, in a ring, so that a position leads to its segment by a shift and a mask.

use crate::frame::Predecessor;
use crate::journal::index::SparseIndex;
use crate::journal::memory::SegmentMemory;
use crate::limits::HOT_SEGMENTS_MAX;
use crate::types::Position;

/// The segments, oldest first.
#[derive(Clone, Hash)]
pub(super) struct Segments<M> {
    /// Bytes of a segment's payload, the same as a shift, and what of a position is its offset.
    bytes: u64,
    shift: u32,
    mask: u64,
    /// The segment numbered n (its base / its bytes) is at n modulo the length.
    ring: Box<[Entry<M>; HOT_SEGMENTS_MAX]>,
    oldest: Position,
    count: usize,
}

/// A power of two in size, so that its place is found by a shift.
#[derive(Clone, Hash)]
#[repr(align(128))]
struct Entry<M> {
    /// Stays when the segment goes: its memory is taken once.
    index: SparseIndex,
    slot: Option<Slot<M>>,
}

/// One segment.
#[derive(Clone, Hash)]
pub(super) struct Slot<M> {
    pub(super) base: Position,
    pub(super) memory: M,
    /// Above this offset every byte is zero, unless it lies below the tail.
    pub(super) dirty_end: u64,
    /// Where its padding frame stands.
    pub(super) pad: Option<u64>,
    /// Its header page is filled: a frame was published in it.
    pub(super) entered: bool,
}

impl<M> Segments<M> {
    /// None yet, of `bytes` payload each (a power of two).
    pub(super) fn new(bytes: u64) -> Self {
        let entry = |_| Entry { index: SparseIndex::new(bytes), slot: None };
        let ring = Box::new(core::array::from_fn(entry));
        Self {
            bytes,
            shift: bytes.trailing_zeros(),
            mask: bytes - 1,
            ring,
            oldest: Position(0),
            count: 0,
        }
    }

    /// Bytes of a segment's payload.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many are held.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Lowest position held.
    pub(super) fn base(&self) -> Option<Position> {
        (self.count > 0).then_some(self.oldest)
    }

    /// First position above all that is held.
    pub(super) fn end(&self) -> Option<Position> {
        (self.count > 0).then(|| self.oldest.plus(self.count as u64 * self.bytes))
    }

    /// Offset of a position in its segment.
    #[inline]
    pub(super) fn offset(&self, position: Position) -> u64 {
        position.0 & self.mask
    }

    /// The segment that holds `position`.
    #[inline]
    pub(super) fn at(&self, position: Position) -> Option<&Slot<M>> {
        let slot = self.ring[self.number(position)].slot.as_ref()?;
        (slot.base == position.segment_base(self.bytes)).then_some(slot)
    }

    /// As [`Segments::at`], to be written.
    #[inline]
    pub(super) fn at_mut(&mut self, position: Position) -> Option<&mut Slot<M>> {
        let base = position.segment_base(self.bytes);
        let slot = self.ring[self.number(position)].slot.as_mut()?;
        (slot.base == base).then_some(slot)
    }

    /// The number of the segment that holds `position`, for [`Segments::numbered`].
    #[inline]
    pub(super) fn number(&self, position: Position) -> usize {
        (position.0 >> self.shift) as usize % HOT_SEGMENTS_MAX
    }

    /// The segment of a number that is known to be held.
    #[inline]
    pub(super) fn numbered(&mut self, number: usize) -> &mut Slot<M> {
        self.ring[number % HOT_SEGMENTS_MAX].slot.as_mut().expect("a segment that is held")
    }

    /// The index over the segment of `position`; empty, or of another one, unless that is held.
    #[inline]
    pub(super) fn index(&self, position: Position) -> &SparseIndex {
        &self.ring[self.number(position)].index
    }

    /// Takes note of a frame. Returns where the next one stands of which the index wants to know.
    pub(super) fn record(&mut self, before: Predecessor) -> Position {
        let number = self.number(before.position);
        let index = &mut self.ring[number].index;
        index.record(before);
        index.next()
    }

    /// Forgets what the index says of frames at or above `position` in the segment of `within`.
    pub(super) fn cut_index(&mut self, within: Position, position: Position) {
        self.ring[self.number(within)].index.cut(position);
    }

    /// Adds the next segment upward; the first may stand anywhere.
    pub(super) fn push(&mut self, slot: Slot<M>) {
        assert!(self.count < HOT_SEGMENTS_MAX && self.end().is_none_or(|end| end == slot.base));
        if self.count == 0 {
            self.oldest = slot.base;
        }
        self.count += 1;
        let number = self.number(slot.base);
        self.ring[number].slot = Some(slot);
    }

    /// Gives up the oldest.
    pub(super) fn pop_oldest(&mut self) -> Option<Slot<M>> {
        let number = self.number(self.oldest);
        let slot = self.ring[number].slot.take()?;
        self.ring[number].index.clear();
        self.oldest = self.oldest.plus(self.bytes);
        self.count -= 1;
        Some(slot)
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Slot<M>> {
        (0..self.count as u64).filter_map(|n| self.at(Position(self.oldest.0 + n * self.bytes)))
    }

    /// All of them, in no order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot<M>> {
        self.ring.iter_mut().filter_map(|entry| entry.slot.as_mut())
    }
}

impl<M: SegmentMemory> Slot<M> {
    /// Zeroes the segment from `offset` on; the publish word there first.
    pub(super) fn clear_above(&mut self, offset: u64) {
        if self.dirty_end > offset {
            self.memory.publish(offset, 0);
            self.memory.bytes_mut(offset, (self.dirty_end - offset) as usize).fill(0);
            self.dirty_end = offset;
        }
        self.pad = self.pad.filter(|&pad| pad < offset);
        if offset == 0 && self.entered {
            self.memory.header_mut().fill(0);
            self.entered = false;
        }
    }
}

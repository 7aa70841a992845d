//! A sparse index over one segment: where a walk over frame headers may start, so that no look-up walks far.

use crate::frame::Predecessor;
use crate::limits::{HOT_INDEX_BYTES_MIN, HOT_INDEX_ENTRIES_MAX};
use crate::types::{Position, Sequence};

/// One entry per step: what stands before the first frame at least one step above the entry before.
///
/// All memory is taken at construction; recording never allocates.
#[derive(Hash, Debug)]
pub(crate) struct SparseIndex {
    step_bytes: u64,
    entries: Vec<Predecessor>,
    /// The next frame at or above this is recorded.
    next: Position,
}

impl Clone for SparseIndex {
    /// With as much room: recording never allocates in a copy either.
    fn clone(&self) -> Self {
        let mut entries = Vec::with_capacity(self.entries.capacity());
        entries.extend_from_slice(&self.entries);
        Self { entries, ..*self }
    }
}

impl SparseIndex {
    /// An empty index for segments of `segment_bytes`.
    pub(crate) fn new(segment_bytes: u64) -> Self {
        let step_bytes = (segment_bytes / HOT_INDEX_ENTRIES_MAX as u64).max(HOT_INDEX_BYTES_MIN);
        let entries = segment_bytes.div_ceil(step_bytes) as usize;
        Self { step_bytes, entries: Vec::with_capacity(entries), next: Position(0) }
    }

    /// Takes note of a frame that starts at `before.position`; frames come in order.
    pub(crate) fn record(&mut self, before: Predecessor) {
        if before.position >= self.next {
            debug_assert!(self.entries.len() < self.entries.capacity());
            self.entries.push(before);
            self.next = before.position.plus(self.step_bytes);
        }
    }

    /// The next frame at or above this is recorded.
    pub(crate) fn next(&self) -> Position {
        self.next
    }

    /// The last recorded frame that starts at or below `position`.
    pub(crate) fn at_or_below(&self, position: Position) -> Option<Predecessor> {
        let above = self.entries.partition_point(|entry| entry.position <= position);
        above.checked_sub(1).map(|index| self.entries[index])
    }

    /// The last recorded frame that starts below the entry `sequence`: what stands before it is older.
    pub(crate) fn before_sequence(&self, sequence: Sequence) -> Option<Predecessor> {
        let above = self.entries.partition_point(|entry| entry.sequence < sequence);
        above.checked_sub(1).map(|index| self.entries[index])
    }

    /// Forgets every frame that starts at or above `position`.
    pub(crate) fn cut(&mut self, position: Position) {
        let keep = self.entries.partition_point(|entry| entry.position < position);
        self.entries.truncate(keep);
        self.next =
            self.entries.last().map_or(Position(0), |last| last.position.plus(self.step_bytes));
    }

    /// Empties the index for the next segment that uses it.
    pub(crate) fn clear(&mut self) {
        self.cut(Position(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(position: u64, sequence: u64) -> Predecessor {
        Predecessor {
            position: Position(position),
            sequence: Sequence(sequence),
            ..Predecessor::default()
        }
    }

    #[test]
    fn keeps_one_frame_per_step_and_finds_the_one_below() {
        let mut index = SparseIndex::new(1 << 20);
        let base = 3 << 20;
        for n in 0..(1 << 20) / 96 {
            index.record(before(base + n * 96, n));
        }
        assert_eq!(index.entries.len(), 16);
        for n in 0..(1 << 20) / 96 {
            let found = index.at_or_below(Position(base + n * 96)).unwrap();
            assert!(found.position.0 <= base + n * 96);
            assert!(found.position.0 + index.step_bytes + 96 > base + n * 96);
            let found = index.before_sequence(Sequence(n + 1)).unwrap();
            assert!(found.sequence.0 <= n && n - found.sequence.0 <= index.step_bytes / 96 + 1);
        }
        assert_eq!(index.at_or_below(Position(base - 1)), None);
        assert_eq!(index.before_sequence(Sequence(0)), None);
    }

    #[test]
    fn a_cut_forgets_what_is_above_and_recording_goes_on() {
        let mut index = SparseIndex::new(1 << 20);
        for n in 0..16 {
            index.record(before(n * 65_536, n));
        }
        index.cut(Position(5 * 65_536));
        assert_eq!(index.at_or_below(Position(u64::MAX)), Some(before(4 * 65_536, 4)));
        index.record(before(5 * 65_536, 50));
        assert_eq!(index.at_or_below(Position(u64::MAX)), Some(before(5 * 65_536, 50)));
        index.clear();
        assert_eq!(index.at_or_below(Position(u64::MAX)), None);
    }

    #[test]
    fn steps_grow_with_the_segment_and_never_outgrow_the_memory() {
        let segment = 1 << 30;
        let mut index = SparseIndex::new(segment);
        let capacity = index.entries.capacity();
        assert!(capacity <= HOT_INDEX_ENTRIES_MAX);
        for n in 0..segment / 65_536 {
            index.record(before(n * 65_536, n));
        }
        assert_eq!(index.entries.capacity(), capacity);
    }
}

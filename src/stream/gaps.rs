//! The set of missing ranges below the highest byte known to exist: sorted, disjoint, of bounded number.

use crate::types::{Nanos, Position};

/// One missing range and what was done about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Gap {
    /// First missing byte.
    pub(crate) from: Position,
    /// First byte behind it that is not missing (or belongs to the next gap).
    pub(crate) to: Position,
    /// When to ask (again).
    pub(crate) due: Nanos,
    /// When it was asked for first; only meaningful once asked.
    pub(crate) first_asked: Nanos,
    /// How often it was asked for.
    pub(crate) asked: u32,
}

impl Gap {
    /// A gap just seen, to be asked for at `due`.
    pub(crate) fn seen(from: Position, to: Position, due: Nanos) -> Self {
        Self { from, to, due, first_asked: Nanos(0), asked: 0 }
    }
    /// Bytes missing.
    pub(crate) fn bytes(&self) -> u64 {
        self.to.since(self.from)
    }
}

/// The gaps. Never allocates after construction.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Gaps {
    list: Vec<Gap>,
    capacity: usize,
}

impl Gaps {
    /// None missing, room for `capacity` gaps.
    pub(crate) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a receiver that cannot remember a gap cannot repair it");
        Self { list: Vec::with_capacity(capacity), capacity }
    }
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() == self.capacity
    }
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
    pub(crate) fn first(&self) -> Option<&Gap> {
        self.list.first()
    }
    pub(crate) fn last_mut(&mut self) -> Option<&mut Gap> {
        self.list.last_mut()
    }
    pub(crate) fn get(&self, index: usize) -> Option<&Gap> {
        self.list.get(index)
    }
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Gap> {
        self.list.get_mut(index)
    }
    pub(crate) fn iter(&self) -> core::slice::Iter<'_, Gap> {
        self.list.iter()
    }
    pub(crate) fn iter_mut(&mut self) -> core::slice::IterMut<'_, Gap> {
        self.list.iter_mut()
    }

    /// Whether taking `from..to` out leaves one gap more than before.
    pub(crate) fn splits(&self, from: Position, to: Position) -> bool {
        let gap = self.list.get(self.first_behind(from));
        gap.is_some_and(|gap| gap.from < from && to < gap.to)
    }

    /// Adds a gap that stands where no other does; false if there is no room.
    pub(crate) fn insert(&mut self, gap: Gap) -> bool {
        debug_assert!(gap.from < gap.to);
        if self.is_full() {
            return false;
        }
        let index = self.first_behind(gap.from);
        debug_assert!(self.list.get(index).is_none_or(|next| gap.to <= next.from));
        self.list.insert(index, gap);
        true
    }

    /// Cuts the gap at `index` in two at `at`, strictly inside it; false if there is no room.
    pub(crate) fn split(&mut self, index: usize, at: Position) -> bool {
        if self.is_full() {
            return false;
        }
        let behind = Gap { from: at, ..self.list[index] };
        debug_assert!(self.list[index].from < at && at < behind.to);
        self.list[index].to = at;
        self.list.insert(index + 1, behind);
        true
    }

    /// Takes `from..to` out of the set; calls back for each part that was missing, with the gap it was missing from.
    /// The caller has made sure that a split
    /// finds room.
    pub(crate) fn fill(
        &mut self,
        from: Position,
        to: Position,
        mut missing: impl FnMut(Position, Position, &Gap),
    ) {
        let mut index = self.first_behind(from);
        // Gaps covered whole stand side by side: they go in one piece.
        let mut covered = index..index;
        while let Some(gap) = self.list.get_mut(index).filter(|gap| gap.from < to) {
            let (start, end) = (gap.from.max(from), gap.to.min(to));
            missing(start, end, gap);
            // Repairs come: what is left of the gap does not wait as long as if none did.
            gap.asked = gap.asked.min(2);
            match (gap.from < start, end < gap.to) {
                (false, false) => covered.end = index + 1,
                (true, false) => {
                    gap.to = start;
                    covered = index + 1..index + 1;
                }
                (false, true) => gap.from = end,
                (true, true) => {
                    let split = self.split(index, end);
                    self.list[index].to = start;
                    debug_assert!(split, "the caller made sure of the room");
                    return;
                }
            }
            index += 1;
        }
        if !covered.is_empty() {
            self.list.drain(covered);
        }
    }

    /// Index of the first gap that ends behind `position`.
    fn first_behind(&self, position: Position) -> usize {
        // Repairs and new data come mostly in order: the first or no gap is the usual answer.
        match self.list.first() {
            None => 0,
            Some(first) if first.to > position => 0,
            Some(_) => self.list.partition_point(|gap| gap.to <= position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gap(from: u64, to: u64) -> Gap {
        Gap::seen(Position(from), Position(to), Nanos(0))
    }
    fn ranges(gaps: &Gaps) -> Vec<(u64, u64)> {
        gaps.iter().map(|gap| (gap.from.0, gap.to.0)).collect()
    }

    #[test]
    fn filling_shrinks_splits_and_removes() {
        let mut gaps = Gaps::new(8);
        for (from, to) in [(10, 20), (30, 40), (50, 60), (70, 80)] {
            assert!(gaps.insert(gap(from, to)));
        }
        let mut parts = Vec::new();
        gaps.fill(Position(15), Position(55), |from, to, _| parts.push((from.0, to.0)));
        assert_eq!(parts, [(15, 20), (30, 40), (50, 55)]);
        assert_eq!(ranges(&gaps), [(10, 15), (55, 60), (70, 80)]);
        gaps.fill(Position(72), Position(74), |_, _, _| {});
        assert_eq!(ranges(&gaps), [(10, 15), (55, 60), (70, 72), (74, 80)]);
        gaps.fill(Position(0), Position(100), |_, _, _| {});
        assert!(gaps.is_empty());
    }

    #[test]
    fn a_full_set_takes_no_more_and_only_the_inside_of_a_gap_splits_it() {
        let mut gaps = Gaps::new(1);
        assert!(gaps.insert(gap(10, 20)));
        assert!(gaps.is_full() && !gaps.insert(gap(30, 40)));
        assert!(gaps.splits(Position(12), Position(14)));
        assert!(!gaps.splits(Position(10), Position(14)));
        assert!(!gaps.splits(Position(12), Position(20)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn behaves_like_a_bitmap(fills in prop::collection::vec((0_u64..200, 1_u64..40), 1..60)) {
            let mut gaps = Gaps::new(256);
            gaps.insert(gap(0, 100));
            gaps.insert(gap(100, 150));
            gaps.insert(gap(160, 200));
            let mut missing: Vec<bool> = (0..240).map(|at| at < 150 || (160..200).contains(&at)).collect();
            for (from, length) in fills {
                let to = from + length;
                let mut called = vec![false; 240];
                gaps.fill(Position(from), Position(to), |from, to, _| {
                    for at in from.0..to.0 {
                        assert!(!std::mem::replace(&mut called[at as usize], true));
                    }
                });
                for at in from..to {
                    assert_eq!(called[at as usize], missing[at as usize]);
                    missing[at as usize] = false;
                }
                let mut left = vec![false; 240];
                for gap in gaps.iter() {
                    assert!(gap.from < gap.to);
                    left[gap.from.0 as usize..gap.to.0 as usize].fill(true);
                }
                assert_eq!(left, missing);
            }
        }
    }
}

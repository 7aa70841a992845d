//! When each of many lanes wants to be looked at again: a heap in which each lane stands at most once, so that a duty
//! cycle touches only those whose time has come.

use crate::types::Nanos;

/// A lane that stands nowhere in the heap.
const ABSENT: u32 = u32::MAX;

/// The heap. Never allocates after construction.
#[derive(Clone, Debug)]
pub(crate) struct Deadlines {
    heap: Vec<(Nanos, u32)>,
    /// Where in the heap each lane stands.
    places: Box<[u32]>,
}

impl Deadlines {
    /// For lanes numbered below `lanes`.
    pub(crate) fn new(lanes: usize) -> Self {
        Self { heap: Vec::with_capacity(lanes), places: vec![ABSENT; lanes].into_boxed_slice() }
    }
    /// Looks at `lane` at `due` at the latest. A later time than the one it has is not noted: when that one comes the lane
    /// is asked again, which is cheaper than moving it each time something happens.
    pub(crate) fn by(&mut self, lane: u32, due: Nanos) {
        match self.places[lane as usize] {
            ABSENT if due == Nanos(u64::MAX) => {}
            ABSENT => {
                self.heap.push((due, lane));
                self.places[lane as usize] = self.heap.len() as u32 - 1;
                self.rise(self.heap.len() - 1);
            }
            place if due < self.heap[place as usize].0 => {
                self.heap[place as usize].0 = due;
                self.rise(place as usize);
            }
            _ => {}
        }
    }
    /// The earliest time of all.
    pub(crate) fn earliest(&self) -> Option<Nanos> {
        self.heap.first().map(|&(due, _)| due)
    }
    /// Takes out a lane whose time has come.
    pub(crate) fn pop(&mut self, now: Nanos) -> Option<u32> {
        let &(due, lane) = self.heap.first()?;
        if due > now {
            return None;
        }
        self.remove(lane);
        Some(lane)
    }
    /// Takes a lane out.
    pub(crate) fn remove(&mut self, lane: u32) {
        let place = core::mem::replace(&mut self.places[lane as usize], ABSENT);
        if place == ABSENT {
            return;
        }
        let place = place as usize;
        self.heap.swap_remove(place);
        if let Some(&(_, moved)) = self.heap.get(place) {
            self.places[moved as usize] = place as u32;
            self.sink(place);
            self.rise(place);
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.swap(parent, place);
            place = parent;
        }
    }
    fn sink(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child]) else { break };
            if self.heap[place] <= self.heap[least] {
                break;
            }
            self.swap(place, least);
            place = least;
        }
    }
    fn swap(&mut self, one: usize, other: usize) {
        self.heap.swap(one, other);
        self.places[self.heap[one].1 as usize] = one as u32;
        self.places[self.heap[other].1 as usize] = other as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn each_lane_comes_out_once_at_its_earliest_time(
            acts in prop::collection::vec((0_u32..40, 0_u64..1_000, 0_u8..5), 1..200),
        ) {
            let mut deadlines = Deadlines::new(40);
            let mut model: [Option<u64>; 40] = [None; 40];
            for (lane, due, act) in acts {
                match act {
                    0 => {
                        deadlines.remove(lane);
                        model[lane as usize] = None;
                    }
                    1 => while let Some(lane) = deadlines.pop(Nanos(due)) {
                        let expected = model.iter().flatten().min().copied();
                        prop_assert!(expected <= Some(due));
                        prop_assert_eq!(model[lane as usize].take(), expected);
                    },
                    _ => {
                        deadlines.by(lane, Nanos(due));
                        let slot = &mut model[lane as usize];
                        *slot = Some(slot.map_or(due, |before| before.min(due)));
                    }
                }
                let expected = model.iter().flatten().min().copied().map(Nanos);
                prop_assert_eq!(deadlines.earliest(), expected);
            }
        }
    }
}

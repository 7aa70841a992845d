//! A map from 64-bit keys to 32-bit values with a fixed capacity: what replicated state uses instead of a hash map that
//! allocates, rehashes, or iterates in an order of its own.
//!
//! Open addressing with linear probing at a load of at most one half; removal shifts later entries back, so that no
//! tombstones pile up. It cannot be iterated: the order of its entries depends on their history, and nothing that is
//! replicated may.

use super::hash::mix;

/// The value that marks a vacant entry, never stored.
const VACANT: u32 = u32::MAX;

/// The map.
#[derive(Clone, Debug)]
pub struct Index {
    entries: Box<[Entry]>,
    count: usize,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u64,
    value: u32,
}

impl Index {
    /// An empty map for up to `capacity` keys, all of its memory allocated.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let entries = (capacity.max(1) * 2).next_power_of_two();
        Self {
            entries: vec![Entry { key: 0, value: VACANT }; entries].into_boxed_slice(),
            count: 0,
            capacity,
        }
    }
    /// Keys in the map.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<u32> {
        let entry = self.entries[self.find(key)];
        (entry.value != VACANT).then_some(entry.value)
    }
    /// Sets the value of `key`. Panics at a value of `u32::MAX`, or when it would be one key too many: the owner bounds both.
    pub fn set(&mut self, key: u64, value: u32) {
        assert!(value != VACANT, "u32::MAX marks a vacant entry");
        let at = self.find(key);
        if self.entries[at].value == VACANT {
            assert!(self.count < self.capacity, "an index holds what it was made for");
            self.count += 1;
        }
        self.entries[at] = Entry { key, value };
    }
    /// Removes `key`; returns its value.
    pub fn remove(&mut self, key: u64) -> Option<u32> {
        let mut hole = self.find(key);
        let removed = self.entries[hole].value;
        if removed == VACANT {
            return None;
        }
        let mask = self.mask();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.entries[at];
            if entry.value == VACANT {
                break;
            }
            // An entry may move back into the hole only if its probe sequence passes it.
            let start = self.home(entry.key);
            if (at.wrapping_sub(start) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.entries[hole] = entry;
                hole = at;
            }
        }
        self.entries[hole].value = VACANT;
        self.count -= 1;
        Some(removed)
    }
    /// Removes all keys.
    pub fn clear(&mut self) {
        self.entries.fill(Entry { key: 0, value: VACANT });
        self.count = 0;
    }

    fn mask(&self) -> usize {
        self.entries.len() - 1
    }
    fn home(&self, key: u64) -> usize {
        mix(key, 0) as usize & self.mask()
    }
    /// Where `key` is, or the vacant entry where it would go: there always is one, half of them are.
    fn find(&self, key: u64) -> usize {
        let mut at = self.home(key);
        while self.entries[at].value != VACANT && self.entries[at].key != key {
            at = (at + 1) & self.mask();
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0u64..40, any::<bool>(), 0u32..9), 0..400)) {
            let mut index = Index::new(40);
            let mut model = HashMap::new();
            for (key, set, value) in steps {
                if set {
                    index.set(key, value);
                    model.insert(key, value);
                } else {
                    prop_assert_eq!(index.remove(key), model.remove(&key));
                }
                prop_assert_eq!(index.count(), model.len());
            }
            for key in 0..40 {
                prop_assert_eq!(index.get(key), model.get(&key).copied());
            }
            index.clear();
            prop_assert!((0..40).all(|key| index.get(key).is_none()));
        }
    }

    #[test]
    #[should_panic(expected = "what it was made for")]
    fn one_key_too_many_is_a_defect_of_the_owner() {
        let mut index = Index::new(1);
        index.set(1, 1);
        index.set(2, 2);
    }
}

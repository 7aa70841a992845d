//! From a session's number to its lane: a table of fixed size with open addressing and a fixed hash.

/// Nothing stands here: sessions are numbered by log entries, which begin at 1.
const EMPTY: u64 = 0;

/// The table. Never allocates after construction; at most half full.
#[derive(Clone, Debug)]
pub(crate) struct SessionIndex {
    slots: Box<[(u64, u32)]>,
}

impl SessionIndex {
    /// Room for `sessions`.
    pub(crate) fn new(sessions: usize) -> Self {
        let slots = (2 * sessions.max(1)).next_power_of_two();
        Self { slots: vec![(EMPTY, 0); slots].into_boxed_slice() }
    }
    pub(crate) fn find(&self, session: u64) -> Option<u32> {
        let slot = self.slots[self.locate(session)];
        (slot.0 == session && session != EMPTY).then_some(slot.1)
    }
    /// The caller keeps to the room and uses no number twice.
    pub(crate) fn insert(&mut self, session: u64, lane: u32) {
        assert!(session != EMPTY, "no session has number 0");
        let at = self.locate(session);
        self.slots[at] = (session, lane);
    }
    pub(crate) fn remove(&mut self, session: u64) {
        let mut free = self.locate(session);
        if self.slots[free].0 != session || session == EMPTY {
            return;
        }
        // What stands behind the free slot and does not belong behind it moves up.
        let mask = self.slots.len() - 1;
        let mut at = free;
        loop {
            at = (at + 1) & mask;
            let moving = self.slots[at];
            if moving.0 == EMPTY {
                break;
            }
            let home = self.home(moving.0);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(free) & mask) {
                self.slots[free] = moving;
                free = at;
            }
        }
        self.slots[free] = (EMPTY, 0);
    }

    /// Where `session` stands, or would.
    fn locate(&self, session: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.home(session);
        while self.slots[at].0 != session && self.slots[at].0 != EMPTY {
            at = (at + 1) & mask;
        }
        at
    }
    fn home(&self, session: u64) -> usize {
        let mixed = session.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32) as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn behaves_like_a_map(acts in prop::collection::vec((0_u64..60, any::<bool>()), 1..300)) {
            let mut index = SessionIndex::new(32);
            let mut model = BTreeMap::new();
            for (number, (session, insert)) in acts.into_iter().enumerate() {
                if insert && session > 0 && (model.len() < 32 || model.contains_key(&session)) {
                    index.insert(session, number as u32);
                    model.insert(session, number as u32);
                } else {
                    index.remove(session);
                    model.remove(&session);
                }
                for session in 0..60 {
                    prop_assert_eq!(index.find(session), model.get(&session).copied());
                }
            }
        }
    }
}

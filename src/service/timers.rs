//! Timers of a service, as replicated state: a bounded heap by due time, an index by id, and an undo list for one unit.
//!
//! Nothing here looks at a clock. The leader sees what is due by cluster time and says so in the log; what an entry says
//! takes effect only if that very timer is still pending, so one that was cancelled or moved meanwhile does not fire.

use std::io::{self, Read, Write};

use super::Rejection;
use super::hash::Fingerprint;
use super::image::{read_limit, read_words, require, write_words};
use super::index::Index;
use crate::limits::{TIMERS_MAX, UNIT_TIMERS_MAX};
use crate::types::{Nanos, Timestamp};

/// One that is pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timer {
    /// The service's own name for it.
    pub id: u64,
    /// Number of this scheduling: scheduled again, it has another one.
    pub schedule: u64,
    /// Cluster time before which it does not fire.
    pub due: Timestamp,
}

impl Timer {
    fn rank(&self) -> (Timestamp, u64) {
        (self.due, self.schedule)
    }
    fn fingerprint(&self) -> u64 {
        Fingerprint::new(0x71AE).word(self.id).word(self.schedule).word(self.due.0).finish()
    }
}

/// What a timer was before a unit touched it.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    id: u64,
    timer: Option<Timer>,
}

/// All that are pending.
#[derive(Clone, Debug)]
pub struct Timers {
    /// A binary heap in its first `count` places: the one that is due first is at its top.
    heap: Box<[Timer]>,
    count: usize,
    /// Place in the heap, by id.
    places: Index,
    /// Number of the next scheduling.
    next: u64,
    /// Sum of the fingerprints: no order of the heap is in it.
    hash: u64,
    undo: Box<[Before]>,
    undo_count: usize,
    /// `next` when the unit began; none outside of one.
    unit: Option<u64>,
}

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}

impl Timers {
    /// None pending; all of its memory allocated.
    #[must_use]
    pub fn new() -> Self {
        Self {
            heap: vec![Timer::default(); TIMERS_MAX].into_boxed_slice(),
            count: 0,
            places: Index::new(TIMERS_MAX),
            next: 1,
            hash: 0,
            undo: vec![Before::default(); UNIT_TIMERS_MAX].into_boxed_slice(),
            undo_count: 0,
            unit: None,
        }
    }
    /// How many are pending.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
    /// The pending timer of this id.
    #[must_use]
    pub fn pending(&self, id: u64) -> Option<Timer> {
        self.places.get(id).map(|place| self.heap[place as usize])
    }
    /// The one that is due first.
    #[must_use]
    pub fn first(&self) -> Option<Timer> {
        self.heap[..self.count].first().copied()
    }
    /// Those that are due at `time`, first things first, as many as `due` holds. Returns how many. They stay pending.
    pub fn due(&self, time: Timestamp, due: &mut [Timer]) -> usize {
        // Best first: the top, then always the least of the children of those taken so far. At most one more waits than is
        // taken, so this table is never full.
        let mut waiting = [0_usize; DUE_MAX + 1];
        let (mut waits, mut found) = (usize::from(self.count > 0), 0);
        while waits > 0 && found < due.len().min(DUE_MAX) {
            let least = (0..waits).min_by_key(|&at| self.heap[waiting[at]].rank());
            let Some(at) = least else { break };
            let place = waiting[at];
            if self.heap[place].due > time {
                break;
            }
            due[found] = self.heap[place];
            found += 1;
            waits -= 1;
            waiting[at] = waiting[waits];
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.count {
                    waiting[waits] = child;
                    waits += 1;
                }
            }
        }
        found
    }
    /// Schedules `id` for `due`; if it is pending, it moves there.
    ///
    /// # Errors
    /// [`Rejection::TIMERS_FULL`], or [`Rejection::UNIT_TIMERS_FULL`] when the unit has changed as many as can be undone.
    pub fn schedule(&mut self, id: u64, due: Timestamp) -> Result<(), Rejection> {
        let before = self.pending(id);
        if before.is_none() && self.count == TIMERS_MAX {
            return Err(Rejection::TIMERS_FULL);
        }
        self.note(Before { id, timer: before })?;
        self.remove(id);
        self.insert(Timer { id, schedule: self.next, due });
        self.next += 1;
        Ok(())
    }
    /// Cancels `id`; whether it was pending.
    ///
    /// # Errors
    /// [`Rejection::UNIT_TIMERS_FULL`].
    pub fn cancel(&mut self, id: u64) -> Result<bool, Rejection> {
        let Some(timer) = self.pending(id) else { return Ok(false) };
        self.note(Before { id, timer: Some(timer) })?;
        self.remove(id);
        Ok(true)
    }
    /// A unit begins: what changes from here on may be undone.
    pub fn begin(&mut self) {
        (self.unit, self.undo_count) = (Some(self.next), 0);
    }
    /// The unit stands.
    pub fn keep(&mut self) {
        (self.unit, self.undo_count) = (None, 0);
    }
    /// The unit leaves no trace.
    pub fn roll_back(&mut self) {
        for at in (0..core::mem::take(&mut self.undo_count)).rev() {
            let Before { id, timer } = self.undo[at];
            self.remove(id);
            if let Some(timer) = timer {
                self.insert(timer);
            }
        }
        self.next = self.unit.take().unwrap_or(self.next);
    }
    /// Fingerprint of what is pending.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        Fingerprint::new(self.hash).word(self.count as u64).word(self.next).finish()
    }
    /// Writes `timers_max u64 | count u64 | next u64 | count × (id u64, schedule u64, due u64)`.
    ///
    /// # Errors
    /// The writer's.
    pub fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_words(writer, &[TIMERS_MAX as u64, self.count as u64, self.next])?;
        let timers = &self.heap[..self.count];
        timers
            .iter()
            .try_for_each(|timer| write_words(writer, &[timer.id, timer.schedule, timer.due.0]))
    }
    /// Replaces all of it by what [`Timers::snapshot`] wrote.
    ///
    /// # Errors
    /// The reader's, or `InvalidData`.
    pub fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        read_limit(reader, "timers_max", TIMERS_MAX as u64)?;
        let [count, next] = read_words(reader)?;
        require(count <= TIMERS_MAX as u64, "timer count", count)?;
        self.places.clear();
        (self.count, self.hash, self.next) = (0, 0, next);
        self.keep();
        for _ in 0..count {
            let [id, schedule, due] = read_words(reader)?;
            require(schedule < next, "timer schedule", schedule)?;
            require(self.pending(id).is_none(), "timer id", id)?;
            self.insert(Timer { id, schedule, due: Timestamp(due) });
        }
        Ok(())
    }

    fn note(&mut self, before: Before) -> Result<(), Rejection> {
        if self.unit.is_none() {
            return Ok(());
        }
        let space = self.undo.get_mut(self.undo_count).ok_or(Rejection::UNIT_TIMERS_FULL)?;
        *space = before;
        self.undo_count += 1;
        Ok(())
    }
    fn insert(&mut self, timer: Timer) {
        self.hash = self.hash.wrapping_add(timer.fingerprint());
        self.count += 1;
        self.put(self.count - 1, timer);
        self.rise(self.count - 1);
    }
    fn remove(&mut self, id: u64) {
        let Some(place) = self.places.remove(id) else { return };
        let place = place as usize;
        self.hash = self.hash.wrapping_sub(self.heap[place].fingerprint());
        self.count -= 1;
        if place < self.count {
            self.put(place, self.heap[self.count]);
            self.rise(place);
            self.sink(place);
        }
    }
    fn put(&mut self, place: usize, timer: Timer) {
        self.heap[place] = timer;
        self.places.set(timer.id, place as u32);
    }
    fn exchange(&mut self, one: usize, other: usize) {
        let (first, second) = (self.heap[one], self.heap[other]);
        self.put(one, second);
        self.put(other, first);
    }
    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let above = (place - 1) / 2;
            if self.heap[above].rank() <= self.heap[place].rank() {
                break;
            }
            self.exchange(above, place);
            place = above;
        }
    }
    fn sink(&mut self, mut place: usize) {
        loop {
            let below = [2 * place + 1, 2 * place + 2].into_iter().filter(|&at| at < self.count);
            let Some(least) = below.min_by_key(|&at| self.heap[at].rank()) else { break };
            if self.heap[place].rank() <= self.heap[least].rank() {
                break;
            }
            self.exchange(least, place);
            place = least;
        }
    }
}

/// A timer that the service rejected fires again after this, ns of cluster time.
pub const TIMER_RETRY_NS: u64 = 10 * Nanos::MILLISECOND;
/// Timers that [`Timers::due`] finds at once, at most.
pub const DUE_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn image(timers: &Timers) -> Vec<u8> {
        let mut bytes = Vec::new();
        timers.snapshot(&mut bytes).expect("memory takes it");
        bytes
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Schedule(u64, u64),
        Cancel(u64),
        Unit { stands: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..30u64, 0..50u64).prop_map(|(id, due)| Step::Schedule(id, due)),
            2 => (0..30u64).prop_map(Step::Cancel),
            1 => any::<bool>().prop_map(|stands| Step::Unit { stands }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_like_a_map_and_a_unit_undone_leaves_no_trace(
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let mut timers = Timers::new();
            let mut model = BTreeMap::new();
            let mut before = (model.clone(), timers.state_hash());
            timers.begin();
            for step in steps {
                match step {
                    Step::Schedule(id, due) => {
                        timers.schedule(id, Timestamp(due)).expect("there is room");
                        model.insert(id, due);
                    }
                    Step::Cancel(id) => {
                        prop_assert_eq!(timers.cancel(id), Ok(model.remove(&id).is_some()));
                    }
                    Step::Unit { stands } => {
                        if stands {
                            timers.keep();
                        } else {
                            timers.roll_back();
                            model = before.0.clone();
                            prop_assert_eq!(timers.state_hash(), before.1);
                        }
                        before = (model.clone(), timers.state_hash());
                        timers.begin();
                    }
                }
                prop_assert_eq!(timers.count(), model.len());
                let mut found = [Timer::default(); DUE_MAX];
                let count = timers.due(Timestamp(25), &mut found);
                let mut due: Vec<_> = model.values().copied().filter(|&due| due <= 25).collect();
                due.sort_unstable();
                let told: Vec<_> = found[..count].iter().map(|timer| timer.due.0).collect();
                prop_assert_eq!(told, due);
                prop_assert!(found[..count].is_sorted_by_key(Timer::rank));
            }
            timers.keep();
            let bytes = image(&timers);
            let mut other = Timers::new();
            other.restore(&mut &bytes[..]).expect("it is one");
            prop_assert_eq!(other.state_hash(), timers.state_hash());
            prop_assert_eq!(image(&other), bytes);
        }
    }

    #[test]
    fn as_many_as_there_is_room_for_and_then_a_refusal_by_name() {
        let mut timers = Timers::new();
        for id in 0..TIMERS_MAX as u64 {
            timers.schedule(id, Timestamp(id)).expect("there is room");
        }
        assert_eq!(timers.schedule(u64::MAX, Timestamp(0)), Err(Rejection::TIMERS_FULL));
        timers.schedule(7, Timestamp(0)).expect("one that is pending moves");
        timers.begin();
        for id in 0..UNIT_TIMERS_MAX as u64 {
            assert_eq!(timers.cancel(id), Ok(true));
        }
        assert_eq!(timers.cancel(1 << 13), Err(Rejection::UNIT_TIMERS_FULL));
        timers.roll_back();
        assert_eq!(timers.count(), TIMERS_MAX);
    }
}

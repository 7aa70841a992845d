//! Events of a service for the outside, as replicated state: those since the cursor, numbered from 1, in a bounded ring.
//!
//! They are kept until an entry of the log says that they were delivered, so whoever leads next goes on there.

use std::io::{self, Read, Write};

use super::Rejection;
use super::hash::Fingerprint;
use super::image::{read_limit, read_words, require, write_words};
use crate::limits::{EVENT_BYTES_MAX, EVENTS_MAX};

/// One event.
#[derive(Clone, Copy, Debug)]
struct Slot {
    length: u16,
    bytes: [u8; EVENT_BYTES_MAX],
}

/// Events that were not delivered yet, as far as the log knows.
#[derive(Clone, Debug)]
pub struct Outbox {
    slots: Box<[Slot]>,
    /// Everything through this number was delivered.
    cursor: u64,
    /// Number of the last one.
    last: u64,
    /// Of all there ever were, in their order.
    hash: u64,
    /// `last` and `hash` when the unit began.
    before: (u64, u64),
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Outbox {
    /// An empty one; all of its memory allocated.
    #[must_use]
    pub fn new() -> Self {
        let slot = Slot { length: 0, bytes: [0; EVENT_BYTES_MAX] };
        let slots = vec![slot; EVENTS_MAX].into_boxed_slice();
        Self { slots, cursor: 0, last: 0, hash: 0, before: (0, 0) }
    }
    /// Everything through this number was delivered.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.cursor
    }
    /// Number of the last event; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }
    /// The event of this number, if it is kept.
    #[must_use]
    pub fn event(&self, number: u64) -> Option<&[u8]> {
        let slot = &self.slots[Self::place(number)];
        let kept = number > self.cursor && number <= self.last;
        kept.then(|| &slot.bytes[..usize::from(slot.length)])
    }
    /// Puts an event at the end; returns its number.
    ///
    /// # Errors
    /// [`Rejection::EVENTS_FULL`] when nobody takes them, [`Rejection::EVENT_TOO_LONG`].
    pub fn emit(&mut self, bytes: &[u8]) -> Result<u64, Rejection> {
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(Rejection::EVENT_TOO_LONG);
        }
        if self.last - self.cursor == EVENTS_MAX as u64 {
            return Err(Rejection::EVENTS_FULL);
        }
        self.last += 1;
        let slot = &mut self.slots[Self::place(self.last)];
        slot.length = bytes.len() as u16;
        slot.bytes[..bytes.len()].copy_from_slice(bytes);
        self.hash = Fingerprint::new(self.hash).word(self.last).bytes(bytes).finish();
        Ok(self.last)
    }
    /// Everything through `number` was delivered; never more than there is, never back.
    pub fn delivered(&mut self, number: u64) {
        self.cursor = number.clamp(self.cursor, self.last);
    }
    /// A unit begins.
    pub fn begin(&mut self) {
        self.before = (self.last, self.hash);
    }
    /// The unit leaves no trace.
    pub fn roll_back(&mut self) {
        (self.last, self.hash) = self.before;
    }
    /// Fingerprint of it.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        Fingerprint::new(self.hash).word(self.cursor).word(self.last).finish()
    }
    /// Writes `events_max u64 | event_bytes_max u64 | cursor u64 | last u64 | hash u64 | each since the cursor: length u64,
    /// bytes`.
    ///
    /// # Errors
    /// The writer's.
    pub fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        write_words(writer, &[EVENTS_MAX as u64, EVENT_BYTES_MAX as u64])?;
        write_words(writer, &[self.cursor, self.last, self.hash])?;
        let events = (self.cursor + 1..=self.last).filter_map(|number| self.event(number));
        for event in events {
            write_words(writer, &[event.len() as u64])?;
            writer.write_all(event)?;
        }
        Ok(())
    }
    /// Replaces all of it by what [`Outbox::snapshot`] wrote.
    ///
    /// # Errors
    /// The reader's, or `InvalidData`.
    pub fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        read_limit(reader, "events_max", EVENTS_MAX as u64)?;
        read_limit(reader, "event_bytes_max", EVENT_BYTES_MAX as u64)?;
        let [cursor, last, hash] = read_words(reader)?;
        let kept = last.checked_sub(cursor).filter(|&kept| kept <= EVENTS_MAX as u64);
        require(kept.is_some(), "event cursor", cursor)?;
        (self.cursor, self.last, self.hash) = (cursor, last, hash);
        for number in cursor + 1..=last {
            let [length] = read_words(reader)?;
            require(length <= EVENT_BYTES_MAX as u64, "event length", length)?;
            let slot = &mut self.slots[Self::place(number)];
            slot.length = length as u16;
            reader.read_exact(&mut slot.bytes[..length as usize])?;
        }
        self.begin();
        Ok(())
    }

    fn place(number: u64) -> usize {
        (number % EVENTS_MAX as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_numbered_kept_in_order_and_go_at_the_cursor() {
        let mut outbox = Outbox::new();
        for number in 1..=EVENTS_MAX as u64 {
            assert_eq!(outbox.emit(&number.to_le_bytes()), Ok(number));
        }
        assert_eq!(outbox.emit(b"one more"), Err(Rejection::EVENTS_FULL));
        outbox.delivered(10);
        outbox.delivered(3);
        assert_eq!((outbox.cursor(), outbox.event(10)), (10, None));
        assert_eq!(outbox.event(11), Some(&11u64.to_le_bytes()[..]));
        assert_eq!(outbox.emit(b"one more"), Ok(EVENTS_MAX as u64 + 1));
        outbox.delivered(u64::MAX);
        assert_eq!(outbox.cursor(), outbox.last());
        let long = [0; EVENT_BYTES_MAX + 1];
        assert_eq!(outbox.emit(&long), Err(Rejection::EVENT_TOO_LONG));
    }

    #[test]
    fn a_unit_undone_leaves_no_trace_and_an_image_brings_all_of_it_back() {
        let mut outbox = Outbox::new();
        outbox.emit(b"first").expect("there is room");
        outbox.emit(b"second").expect("there is room");
        outbox.delivered(1);
        let hash = outbox.state_hash();
        outbox.begin();
        outbox.emit(b"third").expect("there is room");
        assert_ne!(outbox.state_hash(), hash);
        outbox.roll_back();
        assert_eq!((outbox.state_hash(), outbox.last()), (hash, 2));
        let mut bytes = Vec::new();
        outbox.snapshot(&mut bytes).expect("memory takes it");
        let mut other = Outbox::new();
        other.restore(&mut &bytes[..]).expect("it is one");
        assert_eq!((other.state_hash(), other.event(2)), (hash, Some(&b"second"[..])));
        assert!(other.restore(&mut &bytes[..bytes.len() - 1]).is_err());
    }
}

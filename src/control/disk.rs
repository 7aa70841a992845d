//! What a node makes of its disk: whether there is room, and whether it moves.
//!
//! Whoever watches is told by events, once each; the election is told the [`DiskState`], and does the rest: a leader on a
//! disk that is worse than another's hands over, and who has such a disk does not stand where a better one can win.

use core::fmt;
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use std::collections::VecDeque;

use super::event::Event;
use crate::link::SharedWords;
use crate::types::{Nanos, Position};

/// Room must have come back by this part more than a threshold before it counts as back: a disk that stands at a threshold
/// is told of once.
const BACK_PARTS: u64 = 8;

/// How a disk is, from best to worst: the lead goes to the better one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum DiskState {
    /// There is room, and it takes what is written.
    #[default]
    Good,
    /// There is little room: the node goes on as it is, and had better not lead.
    Low,
    /// There is none: no more segments can be made, and the log ends with those that are there.
    Full,
    /// What was written has not become durable for too long.
    Stalled,
}

impl DiskState {
    /// All of them, by their numbers on the wire.
    pub const ALL: [Self; 4] = [Self::Good, Self::Low, Self::Full, Self::Stalled];

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Low => "low",
            Self::Full => "full",
            Self::Stalled => "stalled",
        }
    }
}

/// When a disk is which.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DiskSettings {
    /// Less free than this is little room, in bytes.
    pub low_bytes: u64,
    /// Less free than this is none, in bytes.
    pub full_bytes: u64,
    /// So long a write or sync may be under way before the disk counts as stalled, ns.
    pub stall_ns: u64,
}

/// What is known of a disk at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DiskFacts {
    /// Bytes free; none: nobody can tell.
    pub free_bytes: Option<u64>,
    /// No segment can be made, for want of room on the disk or in memory.
    pub blocked: bool,
    /// End of the log.
    pub verified: Position,
    /// End of what is durable.
    pub durable: Position,
    /// Syncs so far: one may make no more durable, and is a sign of life all the same.
    pub syncs: u64,
}

impl DiskFacts {
    /// What the threads share now.
    #[must_use]
    pub fn of(words: &SharedWords) -> Self {
        // Durable first: it never seems to be behind for being looked at earlier than the end of the log.
        let syncs = words.syncs.load(Relaxed);
        let verified = Position(words.verified.load(Acquire));
        let durable = Position(words.durable.load(Acquire));
        let free_bytes = words.free_bytes.load(Relaxed).checked_sub(1);
        let blocked = words.segments_blocked.load(Relaxed) != 0;
        Self { free_bytes, blocked, verified, durable, syncs }
    }
}

/// Watches the disk of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DiskWatch {
    settings: DiskSettings,
    /// Of the room alone.
    room: DiskState,
    /// Since when nothing has become durable though something waits for it; and what was the sign of life before.
    waits_since: Option<Nanos>,
    seen: (Position, u64),
    stalled_since: Option<Nanos>,
    events: VecDeque<Event>,
}

impl DiskWatch {
    /// A disk of which nothing is known is good.
    #[must_use]
    pub fn new(settings: DiskSettings) -> Self {
        Self {
            settings,
            room: DiskState::Good,
            waits_since: None,
            seen: (Position(0), 0),
            stalled_since: None,
            events: VecDeque::new(),
        }
    }

    /// Looks at it. Drain [`DiskWatch::poll`] afterwards.
    pub fn look(&mut self, now: Nanos, facts: DiskFacts) {
        self.look_at_room(facts);
        self.look_at_progress(now, facts);
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> DiskState {
        if self.stalled_since.is_some() { DiskState::Stalled } else { self.room }
    }

    /// The next event, if there is one.
    pub fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn look_at_room(&mut self, facts: DiskFacts) {
        let below = |bytes: u64, already: bool| {
            let bytes = if already { bytes.saturating_add(bytes / BACK_PARTS) } else { bytes };
            facts.free_bytes.is_some_and(|free| free < bytes)
        };
        let before = self.room;
        self.room = if facts.blocked || below(self.settings.full_bytes, before >= DiskState::Full) {
            DiskState::Full
        } else if below(self.settings.low_bytes, before >= DiskState::Low) {
            DiskState::Low
        } else {
            DiskState::Good
        };
        let free_bytes = facts.free_bytes;
        match self.room {
            room if room == before => {}
            DiskState::Good => self.events.push_back(Event::DiskRoom { free_bytes }),
            DiskState::Low => self.events.push_back(Event::DiskLow { free_bytes }),
            _ => self.events.push_back(Event::DiskFull { free_bytes }),
        }
    }

    fn look_at_progress(&mut self, now: Nanos, facts: DiskFacts) {
        let seen = (facts.durable, facts.syncs);
        let moved = core::mem::replace(&mut self.seen, seen) != seen;
        let waits = facts.durable < facts.verified;
        if !waits || moved {
            self.waits_since = waits.then_some(now);
            if let Some(since) = self.stalled_since.take() {
                let passed_ms = now.since(since) / Nanos::MILLISECOND;
                self.events.push_back(Event::DiskMoves { passed_ms });
            }
            return;
        }
        let since = *self.waits_since.get_or_insert(now);
        if self.stalled_since.is_none() && now.since(since) >= self.settings.stall_ns {
            self.stalled_since = Some(since);
            let passed_ms = now.since(since) / Nanos::MILLISECOND;
            self.events.push_back(Event::DiskStalled { passed_ms });
        }
    }
}

impl Event {
    /// What the events about the disk say.
    pub(super) fn tell_of_the_disk(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskLow { free_bytes } => {
                write!(f, "little room on the disk: {}", Free(*free_bytes))?;
                write!(f, "; this node leads only if no other with more room can")
            }
            Self::DiskFull { free_bytes } => write!(
                f,
                "no room for more segments: {}; commands that reach the end of those that are there are \
                 refused (NO_SPACE)",
                Free(*free_bytes)
            ),
            Self::DiskRoom { free_bytes } => {
                write!(f, "there is room on the disk again: {}", Free(*free_bytes))
            }
            Self::DiskStalled { passed_ms } => {
                write!(f, "the disk stands still: nothing has become durable for {passed_ms} ms")
            }
            Self::DiskMoves { passed_ms } => {
                write!(f, "the disk moves again, after {passed_ms} ms")
            }
            Self::GaveUpLead { to } => {
                write!(
                    f,
                    "this leader's disk stands still: it gives up, node {to} is asked to lead"
                )
            }
            Self::DurabilityChanged { before, now, sequence } => {
                write!(f, "durability is {now} from entry {sequence} on, it was {before}")
            }
            _ => Ok(()), // the others are told above
        }
    }
}

/// Bytes that are free, in words.
struct Free(Option<u64>);

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} bytes are free"),
            None => write!(f, "nobody can tell how much is free"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = Nanos::MILLISECOND;
    const SETTINGS: DiskSettings =
        DiskSettings { low_bytes: 800, full_bytes: 80, stall_ns: 500 * MS };

    fn free(bytes: u64) -> DiskFacts {
        DiskFacts { free_bytes: Some(bytes), ..DiskFacts::default() }
    }

    fn codes(watch: &mut DiskWatch) -> Vec<u16> {
        core::iter::from_fn(|| watch.poll()).map(|event| event.code()).collect()
    }

    #[test]
    fn room_goes_and_comes_back_and_each_is_told_once() {
        let mut watch = DiskWatch::new(SETTINGS);
        for (facts, state, told) in [
            (DiskFacts::default(), DiskState::Good, &[][..]),
            (free(800), DiskState::Good, &[]),
            (free(799), DiskState::Low, &[1160]),
            (free(801), DiskState::Low, &[]),
            (free(79), DiskState::Full, &[1161]),
            (free(85), DiskState::Full, &[]),
            (free(90), DiskState::Low, &[1160]),
            (DiskFacts { blocked: true, ..free(5000) }, DiskState::Full, &[1161]),
            (free(899), DiskState::Low, &[1160]),
            (free(900), DiskState::Good, &[1162]),
        ] {
            watch.look(Nanos(1), facts);
            assert_eq!((watch.state(), &codes(&mut watch)[..]), (state, told), "{facts:?}");
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_for_too_long_is_stalled_until_it_moves() {
        let mut watch = DiskWatch::new(SETTINGS);
        let at = |verified, durable, syncs| DiskFacts {
            verified: Position(verified),
            durable: Position(durable),
            syncs,
            ..DiskFacts::default()
        };
        for (ms, facts, state, told) in [
            (0, at(0, 0, 0), DiskState::Good, &[][..]),
            // Nothing waits: it may be as silent as it likes.
            (9_000, at(0, 0, 0), DiskState::Good, &[]),
            (9_100, at(64, 0, 0), DiskState::Good, &[]),
            (9_599, at(96, 0, 0), DiskState::Good, &[]),
            (9_600, at(128, 0, 0), DiskState::Stalled, &[1163]),
            (11_600, at(128, 0, 0), DiskState::Stalled, &[]),
            (11_700, at(192, 32, 1), DiskState::Good, &[1164]),
            // A slow one that moves is none.
            (12_100, at(192, 64, 2), DiskState::Good, &[]),
            (12_599, at(192, 64, 2), DiskState::Good, &[]),
            (12_600, at(192, 64, 2), DiskState::Stalled, &[1163]),
            (12_700, at(192, 192, 3), DiskState::Good, &[1164]),
        ] {
            watch.look(Nanos(ms * MS), facts);
            assert_eq!((watch.state(), &codes(&mut watch)[..]), (state, told), "at {ms} ms");
        }
    }
}

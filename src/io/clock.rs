//! The host's clocks: the monotonic one for every decision, and the wall clock only as an offset to it.
//!
//! The core never reads the wall clock. Control measures now and then how far it is from the monotonic clock and publishes
//! that one number; a time stamp is then an addition. Small corrections are slewed in, so that time stamps neither stop nor jump.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::types::{Nanos, Timestamp};

/// Difference beyond which a correction is a step, in nanoseconds: the wall clock was set.
pub const STEP_NS: i64 = 500_000_000;
/// Slew: nanoseconds corrected per microsecond passed, at most (500 parts per million).
const SLEW_NS_PER_US: f64 = 0.5;

/// The monotonic clock of the host: one time for all processes on it, from its start. It stands still while the host is
/// suspended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostClock;

impl HostClock {
    /// Now. About 20 ns; no system call.
    #[must_use]
    pub fn now(self) -> Nanos {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live place of that type.
        let answer = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        assert!(answer == 0, "every Linux has a monotonic clock");
        let seconds = time.tv_sec.cast_unsigned() * Nanos::SECOND;
        Nanos(seconds + time.tv_nsec.cast_unsigned())
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Anchor {
    /// The wall clock.
    pub wall: Timestamp,
    /// The monotonic clock.
    pub monotonic: Nanos,
}

impl Anchor {
    /// Measures: the wall clock is read between two readings of the other, the closest of a few tries counts.
    #[must_use]
    pub fn measure(clock: HostClock) -> Self {
        let tries = (0..5).map(|_| {
            let before = clock.now();
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let width = clock.now().since(before);
            let wall = Timestamp(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
            (width, Self { wall, monotonic: before.plus(width / 2) })
        });
        tries
            .min_by_key(|attempt| attempt.0)
            .map_or(Self { wall: Timestamp(0), monotonic: Nanos(0) }, |best| best.1)
    }

    /// What to add to the monotonic clock.
    fn offset(self) -> i64 {
        self.wall.0.wrapping_sub(self.monotonic.0).cast_signed()
    }
}

/// Time stamps for the core: reads the published offset.
#[derive(Clone, Debug)]
pub struct WallOffset(Arc<AtomicI64>);

impl WallOffset {
    /// The time stamp of `now`.
    #[must_use]
    pub fn timestamp(&self, now: Nanos) -> Timestamp {
        Timestamp(now.0.saturating_add_signed(self.0.load(Ordering::Relaxed)))
    }
}

/// What an anchoring did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Correction {
    /// Moved by this many nanoseconds, all there was or as much as the slew allows.
    Slewed(i64),
    /// The wall clock was set: moved by this many nanoseconds at once. Worth an event.
    Stepped(i64),
}

/// Control's side: keeps the offset close to the wall clock.
#[derive(Debug)]
pub struct Anchoring {
    published: Arc<AtomicI64>,
    last: Nanos,
}

impl Anchoring {
    /// Starts with this anchor.
    #[must_use]
    pub fn new(anchor: Anchor) -> Self {
        Self { published: Arc::new(AtomicI64::new(anchor.offset())), last: anchor.monotonic }
    }

    /// For the core.
    #[must_use]
    pub fn reader(&self) -> WallOffset {
        WallOffset(Arc::clone(&self.published))
    }

    /// Takes a new measurement in.
    pub fn correct(&mut self, anchor: Anchor) -> Correction {
        let published = self.published.load(Ordering::Relaxed);
        let error = anchor.offset().saturating_sub(published);
        let passed_us = anchor.monotonic.since(self.last) / Nanos::MICROSECOND;
        self.last = anchor.monotonic;
        if error.abs() >= STEP_NS {
            self.published.store(anchor.offset(), Ordering::Relaxed);
            return Correction::Stepped(error);
        }
        #[allow(clippy::cast_possible_wrap)] // of a minute or so
        let most = (passed_us as f64 * SLEW_NS_PER_US) as i64;
        let moved = error.clamp(-most, most);
        self.published.store(published + moved, Ordering::Relaxed);
        Correction::Slewed(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(monotonic: u64, wall: u64) -> Anchor {
        Anchor { wall: Timestamp(wall), monotonic: Nanos(monotonic) }
    }

    #[test]
    fn the_clock_moves_on_and_the_anchor_is_the_wall_clock() {
        let first = HostClock.now();
        while HostClock.now() == first {}
        assert!(HostClock.now() > first);
        let anchoring = Anchoring::new(Anchor::measure(HostClock));
        let stamp = anchoring.reader().timestamp(HostClock.now());
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        assert!(wall.abs_diff(u128::from(stamp.0)) < 1_000_000_000, "{stamp} is not {wall}");
    }

    #[test]
    fn small_errors_are_slewed_and_large_ones_stepped() {
        let mut anchoring = Anchoring::new(anchor(1_000, 1_000_000));
        let reader = anchoring.reader();
        assert_eq!(reader.timestamp(Nanos(2_000)), Timestamp(1_001_000));
        // 10 ms later the wall clock is 4 us ahead: all of it; then 20 us behind: 5 us of it.
        let later = 1_000 + 10_000_000;
        let slewed = anchoring.correct(anchor(later, later + 999_000 + 4_000));
        assert_eq!(slewed, Correction::Slewed(4_000));
        let later = later + 10_000_000;
        let slewed = anchoring.correct(anchor(later, later + 999_000 - 16_000));
        assert_eq!(slewed, Correction::Slewed(-5_000));
        let stepped = anchoring.correct(anchor(later, later + 3_000_000_000));
        assert!(matches!(stepped, Correction::Stepped(by) if by > 2_900_000_000));
        assert_eq!(reader.timestamp(Nanos(later)), Timestamp(later + 3_000_000_000));
    }

    #[test]
    fn a_wall_clock_before_the_epoch_or_far_off_saturates() {
        let reader = Anchoring::new(anchor(5_000, 0)).reader();
        assert_eq!(reader.timestamp(Nanos(4_000)), Timestamp(0));
    }
}

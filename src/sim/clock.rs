//! The clock of a machine: it began at some time of its own, and runs a little too fast or too slow.

use crate::types::{Nanos, Timestamp};

/// Wall clocks begin here, ns since 1970.
const WALL_START_NS: u64 = 1_700_000_000 * Nanos::SECOND;
const MILLION: u128 = 1_000_000;

/// One machine's clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Clock {
    offset_ns: u64,
    /// Its second lasts so many millionths of a second.
    rate: u128,
    wall_ns: i64,
}

impl Clock {
    /// A clock that shows `offset_ns` at the beginning and runs fast by `drift_ppm`.
    pub(super) fn new(offset_ns: u64, drift_ppm: i64) -> Self {
        let rate = u128::try_from(1_000_000 + i128::from(drift_ppm)).unwrap_or(MILLION);
        Self { offset_ns: offset_ns.max(1), rate, wall_ns: 0 }
    }

    /// What it shows at `now`.
    pub(super) fn local(&self, now: Nanos) -> Nanos {
        Nanos(self.offset_ns + (u128::from(now.0) * self.rate / MILLION) as u64)
    }

    /// The first moment at which it shows `local`.
    pub(super) fn world(&self, local: Nanos) -> Nanos {
        let since = u128::from(local.0.saturating_sub(self.offset_ns));
        Nanos((since * MILLION).div_ceil(self.rate).try_into().unwrap_or(u64::MAX))
    }

    /// Its wall clock.
    pub(super) fn wall(&self, now: Nanos) -> Timestamp {
        Timestamp((WALL_START_NS + now.0).saturating_add_signed(self.wall_ns))
    }

    /// The wall clock is set.
    pub(super) fn step_wall(&mut self, by_ns: i64) {
        self.wall_ns += by_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for drift in [-200, 0, 37, 200] {
            let clock = Clock::new(12_345, drift);
            for now in [0, 1, 999, 1_000_003, 77 * Nanos::SECOND] {
                let local = clock.local(Nanos(now));
                let back = clock.world(local);
                assert!(back.0 <= now && clock.local(back) == local, "{drift} {now}");
            }
        }
    }
}

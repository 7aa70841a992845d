//! How fast a node sends to those who catch up: so many bytes in a second, all of them together.

use crate::limits::LANE_PIECE_BYTES;
use crate::types::Nanos;

/// What may be sent at once after a pause, ns at the full rate; at least one piece.
const BURST_NS: u64 = 10 * Nanos::MILLISECOND;

/// The pace. Time is spent, not bytes: what was sent moves the moment at which more may be.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// Everything that was sent so far is paid for then.
    paid_at: Nanos,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: Nanos(0) }
    }

    fn cost_ns(&self, bytes: u64) -> u64 {
        let cost =
            u128::from(bytes) * u128::from(Nanos::SECOND) / u128::from(self.bytes_per_second);
        u64::try_from(cost).unwrap_or(u64::MAX)
    }

    /// When the next piece may be sent; not later than `now`: at once.
    pub(super) fn next_at(&self, now: Nanos) -> Nanos {
        let ahead = BURST_NS.max(self.cost_ns(LANE_PIECE_BYTES));
        if self.paid_at.since(now) < ahead { now } else { Nanos(self.paid_at.0 - ahead).plus(1) }
    }

    /// So many were sent.
    pub(super) fn spend(&mut self, now: Nanos, bytes: u64) {
        self.paid_at = self.paid_at.max(now).plus(self.cost_ns(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_rate_goes_out_and_not_much_less() {
        for rate in [1 << 20, 64 << 20, 4 << 30] {
            let mut pace = Pace::new(rate);
            let (mut now, mut sent) = (Nanos(5), 0);
            let end = Nanos(5 + 2 * Nanos::SECOND);
            while now < end {
                if pace.next_at(now) > now {
                    now = pace.next_at(now).max(now.plus(Nanos::MILLISECOND)); // as a poll sleeps
                } else {
                    pace.spend(now, LANE_PIECE_BYTES);
                    sent += LANE_PIECE_BYTES;
                }
            }
            let burst = (rate / 100).max(LANE_PIECE_BYTES) + LANE_PIECE_BYTES;
            assert!(sent <= 2 * rate + burst, "{sent} of {rate}");
            assert!(sent >= 2 * rate / 10 * 9, "{sent} of {rate}");
        }
    }
}

//! When to send. Pure: the time is given.
//!
//! At a constant rate every send has an *intended* time, fixed before the run starts: `start + n / rate`. Latency is counted
//! from there. A generator that was held up sends what is overdue at once and charges the delay to the system it measures;
//! one that stamped the moment it got around to sending would hide exactly the delays that matter.

use std::num::NonZeroU64;

const SECOND_NS: u128 = 1_000_000_000;

/// The sends of one round, in order.
#[derive(Clone, Debug)]
pub(crate) enum Schedule {
    /// One after the other: the next as soon as the one before is answered, until `end_ns`.
    Closed {
        /// No send at or after this.
        end_ns: u64,
    },
    /// `total` sends, evenly spaced from `start_ns` on.
    Open {
        /// Intended time of the first.
        start_ns: u64,
        /// Sends per second.
        rate: NonZeroU64,
        /// Sends taken so far.
        taken: u64,
        /// Sends in all.
        total: u64,
    },
}

impl Schedule {
    /// As fast as answers come, for `duration_ns`.
    pub(crate) fn closed(start_ns: u64, duration_ns: u64) -> Self {
        Self::Closed { end_ns: start_ns.saturating_add(duration_ns) }
    }

    /// `rate` a second, for `duration_ns`.
    pub(crate) fn open(start_ns: u64, rate: NonZeroU64, duration_ns: u64) -> Self {
        let total = u128::from(rate.get()) * u128::from(duration_ns) / SECOND_NS;
        let total = u64::try_from(total).unwrap_or(u64::MAX);
        Self::Open { start_ns, rate, taken: 0, total }
    }

    /// The intended time of the send that is due at `now_ns`, with `unanswered` before it without an answer; nothing
    /// if none is due.
    pub(crate) fn due(&mut self, now_ns: u64, unanswered: usize) -> Option<u64> {
        let intended_ns = self.next_ns(now_ns)?;
        match self {
            Self::Closed { .. } if unanswered > 0 => return None,
            Self::Open { .. } if now_ns < intended_ns => return None,
            Self::Closed { .. } => {}
            Self::Open { taken, .. } => *taken += 1,
        }
        Some(intended_ns)
    }

    /// Whether nothing will be due any more.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        self.next_ns(now_ns).is_none()
    }

    /// Intended time of the next send, if there is one to come.
    fn next_ns(&self, now_ns: u64) -> Option<u64> {
        match *self {
            Self::Closed { end_ns } => (now_ns < end_ns).then_some(now_ns),
            Self::Open { start_ns, rate, taken, total } => (taken < total).then(|| {
                let offset = u128::from(taken) * SECOND_NS / u128::from(rate.get());
                start_ns.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u64) -> NonZeroU64 {
        NonZeroU64::new(per_second).expect("not zero")
    }

    #[test]
    fn intended_times_are_even_and_do_not_drift() {
        let mut schedule = Schedule::open(500, rate(3), 2_000_000_000);
        let all: Vec<u64> = std::iter::from_fn(|| schedule.due(u64::MAX, 0)).collect();
        let wanted = [500, 333_333_833, 666_667_166, 1_000_000_500, 1_333_333_833, 1_666_667_166];
        assert_eq!(all, wanted);
        assert!(schedule.is_over(0));
    }

    #[test]
    fn nothing_is_due_early() {
        let mut schedule = Schedule::open(1_000, rate(1_000_000), 1_000_000);
        assert_eq!(schedule.due(999, 0), None);
        assert_eq!(schedule.due(1_000, 0), Some(1_000));
        assert_eq!(schedule.due(1_999, 0), None);
        assert_eq!(schedule.due(2_000, 0), Some(2_000));
    }

    #[test]
    fn a_stall_makes_the_overdue_due_with_their_own_times() {
        let mut schedule = Schedule::open(0, rate(1_000), 10_000_000);
        assert_eq!(schedule.due(0, 0), Some(0));
        let burst: Vec<u64> = std::iter::from_fn(|| schedule.due(4_500_000, 9)).collect();
        assert_eq!(burst, [1_000_000, 2_000_000, 3_000_000, 4_000_000]);
        assert!(!schedule.is_over(20_000_000), "what is overdue at the end is still sent");
        let rest: Vec<u64> = std::iter::from_fn(|| schedule.due(20_000_000, 0)).collect();
        assert_eq!(rest, [5_000_000, 6_000_000, 7_000_000, 8_000_000, 9_000_000]);
        assert!(schedule.is_over(20_000_000));
    }

    #[test]
    fn closed_loop_waits_for_the_answer_and_stops_at_the_end() {
        let mut schedule = Schedule::closed(0, 100);
        assert_eq!(schedule.due(7, 0), Some(7));
        assert_eq!(schedule.due(8, 1), None);
        assert_eq!(schedule.due(99, 0), Some(99));
        assert!(schedule.is_over(100));
        assert_eq!(schedule.due(100, 0), None);
    }
}

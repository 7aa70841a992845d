//! How long an answer takes: a running mean and its variation, from which every retry of the stream is derived.

/// Shortest round trip believed, in nanoseconds: below it a host answers from its own queue.
const SHORTEST_NS: u64 = 1_000;
/// Longest round trip believed, in nanoseconds: above it a node was away, not far.
const LONGEST_NS: u64 = 1_000_000_000;
/// A retry never comes sooner than this, in nanoseconds: the other side must get a turn on its CPU.
const RETRY_FLOOR_NS: u64 = 20_000;

/// A measured round trip, smoothed (weights 1/8 for the mean, 1/4 for the variation).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RoundTrip {
    smoothed_ns: u64,
    variation_ns: u64,
    measured: bool,
}

impl RoundTrip {
    /// Nothing measured yet: `initial_ns` is believed until the first sample.
    #[must_use]
    pub fn new(initial_ns: u64) -> Self {
        let smoothed_ns = initial_ns.clamp(SHORTEST_NS, LONGEST_NS);
        Self { smoothed_ns, variation_ns: 0, measured: false }
    }
    /// Takes a sample in; the first one replaces what was believed.
    pub fn sample(&mut self, round_trip_ns: u64) {
        let sample = round_trip_ns.clamp(SHORTEST_NS, LONGEST_NS);
        if self.measured {
            let apart = sample.abs_diff(self.smoothed_ns);
            self.variation_ns = (3 * self.variation_ns + apart) / 4;
            self.smoothed_ns = (7 * self.smoothed_ns + sample) / 8;
        } else {
            self.smoothed_ns = sample;
            self.variation_ns = sample / 8;
            self.measured = true;
        }
    }
    /// A better guess than the first: believed until there is a sample.
    pub fn guess(&mut self, round_trip_ns: u64) {
        if !self.measured {
            *self = Self::new(round_trip_ns);
        }
    }
    /// It is longer than believed, and at most `at_most_ns`: grows by half, without the leap counting as variation.
    pub fn raise(&mut self, at_most_ns: u64) {
        let raised = (self.smoothed_ns / 2 * 3).min(at_most_ns).clamp(SHORTEST_NS, LONGEST_NS);
        self.smoothed_ns = self.smoothed_ns.max(raised);
        self.variation_ns = self.smoothed_ns / 8;
    }
    /// The mean, in nanoseconds.
    #[must_use]
    pub const fn smoothed_ns(&self) -> u64 {
        self.smoothed_ns
    }
    /// Whether there was a sample.
    #[must_use]
    pub const fn is_measured(&self) -> bool {
        self.measured
    }
    /// An answer that has not come after this long is lost: a round trip and a little, in nanoseconds.
    #[must_use]
    pub fn retry_ns(&self) -> u64 {
        let slack = (2 * self.variation_ns).max(self.smoothed_ns / 16);
        (self.smoothed_ns + slack).max(RETRY_FLOOR_NS)
    }
    /// Silence after which a sender repeats its tail: one and a half round trips, in nanoseconds.
    #[must_use]
    pub fn repeat_ns(&self) -> u64 {
        (self.smoothed_ns + self.smoothed_ns / 2 + self.variation_ns).max(RETRY_FLOOR_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_sample_replaces_the_guess_and_a_steady_one_makes_the_retry_one_round_trip() {
        let mut round_trip = RoundTrip::new(1_000_000);
        assert!(!round_trip.is_measured() && round_trip.retry_ns() >= 1_000_000);
        for _ in 0..40 {
            round_trip.sample(80_000);
        }
        assert_eq!(round_trip.smoothed_ns(), 80_000);
        assert!(round_trip.retry_ns() < 90_000, "{}", round_trip.retry_ns());
        assert!((110_000..130_000).contains(&round_trip.repeat_ns()));
    }

    #[test]
    fn absurd_samples_stay_within_what_is_believed() {
        let mut round_trip = RoundTrip::new(0);
        round_trip.sample(u64::MAX);
        assert_eq!(round_trip.smoothed_ns(), LONGEST_NS);
        for _ in 0..1_000 {
            round_trip.sample(0);
        }
        assert!(round_trip.smoothed_ns() < 2 * SHORTEST_NS);
        assert_eq!(round_trip.retry_ns(), RETRY_FLOOR_NS);
    }
}

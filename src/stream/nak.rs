//! When to ask for what is missing, and for how much: the pace of NAKs.

use super::prng::Prng;
use super::round_trip::RoundTrip;
use crate::types::Nanos;

/// Who hears what a sender sends: it decides how soon a receiver asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Medium {
    /// Nobody else: a receiver asks at once.
    Unicast,
    /// `receivers` hear the same datagrams and mostly miss the same ones: each waits a short random time, so that the
    /// repair that the first one gets spares the others their question.
    Multicast {
        /// How many hear it.
        receivers: u16,
    },
}

/// Bytes asked for and not yet come, at the start.
const ASK_BYTES_INITIAL: u64 = 256 * 1024;
/// Bytes asked for and not yet come, at least: 64 repairs of a default datagram always fit.
const ASK_BYTES_MIN: u64 = 96 * 1024;
/// Questions asked a round trip apart; later ones wait twice as long each.
const STEADY_RETRIES: u32 = 4;
/// Doublings of the wait at most.
const DOUBLINGS_MAX: u32 = 6;
/// Longest wait between two questions for the same bytes, in nanoseconds, unless the round trip itself is longer.
const RETRY_MAX_NS: u64 = 100 * Nanos::MILLISECOND;

const _: () = assert!(
    ASK_BYTES_MIN >= (crate::limits::NAK_RANGES_MAX * crate::limits::DATAGRAM_BYTES_DEFAULT) as u64,
    "one NAK full of lost datagrams is asked for at once"
);

/// Decides when a gap is due, and how many bytes may be asked for at once: doubled per round trip while repairs come,
/// halved when they get lost, so that a receiver that is far behind does not have its own socket buffer flooded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct NakPace {
    medium: Medium,
    round_trip: RoundTrip,
    random: Prng,
    ask_bytes: u64,
    ask_bytes_max: u64,
    halved_at: Nanos,
    /// When the gaps that wait for their first question are asked for.
    first_due: Nanos,
    /// When the first guess was raised last.
    guessed_at: Nanos,
}

impl NakPace {
    pub(crate) fn new(medium: Medium, round_trip_ns: u64, window_bytes: u64, seed: u64) -> Self {
        Self {
            medium,
            round_trip: RoundTrip::new(round_trip_ns),
            random: Prng::new(seed),
            ask_bytes: ASK_BYTES_INITIAL.min(window_bytes),
            ask_bytes_max: window_bytes,
            halved_at: Nanos(0),
            first_due: Nanos(0),
            guessed_at: Nanos(0),
        }
    }
    #[cfg(feature = "sim")]
    pub(crate) fn fold(&mut self) {
        (self.halved_at, self.first_due, self.guessed_at) = (Nanos(0), Nanos(0), Nanos(0));
    }
    pub(crate) fn round_trip(&self) -> &RoundTrip {
        &self.round_trip
    }
    /// A repair came so long after it was asked for. On multicast it may be the answer to somebody else, who asked a little
    /// sooner, or later when one's own question was lost: once something was measured, such times count for little.
    pub(crate) fn answered_after(&mut self, nanoseconds: u64) {
        let smoothed = self.round_trip.smoothed_ns();
        let doubtful =
            matches!(self.medium, Medium::Multicast { .. }) && self.round_trip.is_measured();
        self.round_trip.sample(if doubtful {
            nanoseconds.clamp(smoothed / 2, smoothed / 4 * 5)
        } else {
            nanoseconds
        });
    }
    /// Repairs come so late, or get lost so often, that nothing could be measured yet: the first guess grows, once per
    /// round of questions, and never beyond what a lost repair may cost.
    pub(crate) fn guess_longer(&mut self, now: Nanos, at_most_ns: u64) {
        if now.since(self.guessed_at) >= 2 * self.round_trip.smoothed_ns() {
            self.guessed_at = now;
            self.round_trip.raise(at_most_ns.min(RETRY_MAX_NS));
        }
    }
    pub(crate) fn round_trip_mut(&mut self) -> &mut RoundTrip {
        &mut self.round_trip
    }
    /// Bytes that may be on their way at once.
    pub(crate) fn ask_bytes(&self) -> u64 {
        self.ask_bytes
    }
    /// When a gap seen now is asked for. Gaps seen while an earlier one waits are asked for with it, in one datagram.
    pub(crate) fn first(&mut self, now: Nanos) -> Nanos {
        let Medium::Multicast { receivers } = self.medium else { return now };
        if self.first_due <= now {
            // Of those who miss the same, one or two ask early; the others hear that half a round trip later, before their
            // own time comes. Nobody waits as long as a round trip, so that gaps that only one has are soon repaired too.
            let round_trip = self.round_trip.smoothed_ns();
            let early = self.random.below(2 * u64::from(receivers.max(1))) < 3;
            let delay = if early {
                self.random.below(round_trip / 8)
            } else {
                round_trip / 8 * 5 + self.random.below(round_trip / 4)
            };
            self.first_due = now.plus(delay);
        }
        self.first_due
    }
    /// Drawn once per question, so that all its ranges stay together: what each of its retries waits longer.
    pub(crate) fn retry_jitter_ns(&mut self) -> u64 {
        match self.medium {
            Medium::Unicast => 0,
            Medium::Multicast { .. } => self.random.below(self.round_trip.retry_ns() / 4),
        }
    }
    /// When a gap that has now been asked for `asked` times is asked for again.
    pub(crate) fn again(&self, now: Nanos, asked: u32, jitter_ns: u64) -> Nanos {
        let retry = self.round_trip.retry_ns();
        let doublings = asked.saturating_sub(STEADY_RETRIES).min(DOUBLINGS_MAX);
        let wait = (retry << doublings).min(RETRY_MAX_NS.max(retry));
        now.plus(wait + jitter_ns)
    }
    /// Repairs of `bytes` came.
    pub(crate) fn repaired(&mut self, bytes: u64) {
        self.ask_bytes = (self.ask_bytes + bytes).min(self.ask_bytes_max);
    }
    /// A repair did not come in time.
    pub(crate) fn repair_lost(&mut self, now: Nanos) {
        if now.since(self.halved_at) >= self.round_trip.smoothed_ns() {
            self.halved_at = now;
            self.ask_bytes = (self.ask_bytes / 2).max(ASK_BYTES_MIN.min(self.ask_bytes_max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unicast_asks_at_once_and_again_after_about_a_round_trip() {
        let mut pace = NakPace::new(Medium::Unicast, 100_000, 1 << 22, 1);
        for _ in 0..64 {
            pace.round_trip_mut().sample(100_000);
        }
        let now = Nanos(5_000);
        assert_eq!(pace.first(now), now);
        let again = pace.again(now, 1, 0).since(now);
        assert!((100_000..115_000).contains(&again), "{again}");
        assert!(pace.again(now, 30, 0).since(now) <= RETRY_MAX_NS, "the wait is bounded");
        assert!(pace.again(now, 30, 0).since(now) > 10 * again, "and grows before it is");
    }

    #[test]
    fn multicast_waits_a_part_of_the_round_trip_that_differs_by_seed() {
        let delays: Vec<u64> = (0..50)
            .map(|seed| {
                let medium = Medium::Multicast { receivers: 4 };
                NakPace::new(medium, 100_000, 1 << 22, seed).first(Nanos(0)).0
            })
            .collect();
        assert!(delays.iter().all(|&delay| delay < 100_000), "{delays:?}");
        let early = delays.iter().filter(|&&delay| delay < 12_500).count();
        assert!((12..28).contains(&early), "{early}: three of eight, on average");
        let between = delays.iter().filter(|&&delay| (12_500..62_500).contains(&delay)).count();
        assert_eq!(between, 0, "an early question is heard before the others ask");
    }

    #[test]
    fn gaps_seen_while_one_waits_are_asked_for_with_it() {
        let medium = Medium::Multicast { receivers: 2 };
        let mut pace = NakPace::new(medium, 100_000, 1 << 22, 3);
        let due = pace.first(Nanos(1_000));
        assert!(due > Nanos(1_000));
        assert_eq!(pace.first(Nanos(due.0 - 1)), due);
        assert!(pace.first(due) >= due);
    }

    #[test]
    fn the_amount_asked_for_halves_once_per_round_trip_and_doubles_with_repairs() {
        let mut pace = NakPace::new(Medium::Unicast, 100_000, 4 << 20, 1);
        let before = pace.ask_bytes();
        pace.repair_lost(Nanos(1_000_000));
        pace.repair_lost(Nanos(1_000_001));
        assert_eq!(pace.ask_bytes(), before / 2);
        for _ in 0..20 {
            pace.repaired(pace.ask_bytes());
        }
        assert_eq!(pace.ask_bytes(), 4 << 20);
        for round in 2..40 {
            pace.repair_lost(Nanos(round * 1_000_000));
        }
        assert_eq!(pace.ask_bytes(), ASK_BYTES_MIN);
    }
}

//! The receiving side of a stream: which bytes are new, which are missing, when to ask for them.
//!
//! It knows positions only. The caller hands in what arrives, places the bytes it is told are new, sends the NAKs that
//! [`Receiver::poll`] gives it, and calls again at [`Receiver::deadline`]. Nothing here reads a clock or allocates after
//! construction, and two receivers that are fed the same are the same.

use super::datagram::NakRange;
use super::gaps::{Gap, Gaps};
use super::nak::{Medium, NakPace};
use super::round_trip::RoundTrip;
use crate::limits::{GAPS_MAX, NAK_RANGES_MAX, WINDOW_BYTES_DEFAULT};
use crate::types::{Nanos, Position, Received};

/// What a receiver is built with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReceiverSettings {
    /// Room behind what is contiguous, in bytes.
    pub window_bytes: u64,
    /// Who else hears the sender.
    pub medium: Medium,
    /// Round trip believed until the first one is measured, in nanoseconds.
    pub round_trip_ns: u64,
    /// Separate gaps kept track of, at least 2.
    pub gaps_max: usize,
    /// Draws the delays on multicast: different on each receiver.
    pub seed: u64,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        Self {
            window_bytes: WINDOW_BYTES_DEFAULT,
            medium: Medium::Unicast,
            round_trip_ns: 200 * Nanos::MICROSECOND,
            gaps_max: GAPS_MAX,
            seed: 0,
        }
    }
}

/// What became of a range that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DataOutcome {
    /// So many bytes were new.
    Placed {
        /// New bytes, in bytes.
        new_bytes: u64,
    },
    /// All of it was there already.
    Duplicate,
    /// It reaches beyond the window: not taken.
    BeyondWindow,
    /// It would open one gap more than is kept track of: not taken, and asked for later.
    TooManyGaps,
}

/// What a receiver wants sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiverOutput<'a> {
    /// Ask for these ranges: one datagram.
    Nak(&'a [NakRange]),
}

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ReceiverCounters {
    /// NAKs given out.
    pub naks: u64,
    /// Ranges asked for, repeated ones included.
    pub ranges: u64,
    /// Ranges asked for again because no repair came.
    pub retries: u64,
    /// Bytes that arrived though they were there.
    pub duplicate_bytes: u64,
    /// Datagrams not taken: outside the window, or one gap too many.
    pub dropped: u64,
}

/// The receiving side.
#[derive(Clone, Hash, Debug)]
pub struct Receiver {
    window_bytes: u64,
    gaps: Gaps,
    pace: NakPace,
    /// End of what is known to exist and fits: everything below is received or in `gaps`.
    highest: Position,
    /// End of what the sender is known to have sent, whether it fits or not.
    tail: Position,
    /// First position not taken; never goes back.
    window_end: Position,
    /// Where the caller's room ends.
    limit: Position,
    /// No gap is due before this.
    next_due: Nanos,
    /// A gap is due, but as many bytes as may be are on their way already.
    waits_for_room: bool,
    nak: Box<[NakRange]>,
    counters: ReceiverCounters,
}

impl Receiver {
    /// A receiver of everything from `start` on.
    #[must_use]
    pub fn new(settings: ReceiverSettings, start: Position) -> Self {
        assert!(settings.window_bytes > 0 && settings.gaps_max >= 2);
        let ReceiverSettings { window_bytes, medium, round_trip_ns, gaps_max, seed } = settings;
        let nothing = NakRange { from: 0.into(), to: 0.into() };
        Self {
            window_bytes,
            gaps: Gaps::new(gaps_max),
            pace: NakPace::new(medium, round_trip_ns, window_bytes, seed),
            highest: start,
            tail: start,
            window_end: start.plus(window_bytes),
            limit: Position(u64::MAX),
            next_due: Nanos(u64::MAX),
            waits_for_room: false,
            nak: vec![nothing; NAK_RANGES_MAX.min(gaps_max)].into_boxed_slice(),
            counters: ReceiverCounters::default(),
        }
    }

    /// Forgets what only says when things happen, so that those who explore every schedule see states that differ in
    /// nothing else as one.
    #[cfg(feature = "sim")]
    pub fn fold(&mut self) {
        for gap in self.gaps.iter_mut() {
            *gap = Gap::seen(gap.from, gap.to, Nanos(0));
        }
        self.next_due = Nanos(u64::MAX);
        self.waits_for_room = false;
        self.counters = ReceiverCounters::default();
        self.pace.fold();
    }

    /// Forgets every range and starts over at `start`, as on entering a leadership. What was measured stays.
    pub fn restart(&mut self, start: Position) {
        self.gaps.clear();
        (self.highest, self.tail) = (start, start);
        self.limit = Position(u64::MAX);
        self.window_end = start.plus(self.window_bytes);
        self.next_due = Nanos(u64::MAX);
        self.waits_for_room = false;
    }

    /// The range `from..to` arrived; `repair` says that it was sent because somebody asked. Calls `missing` for each part
    /// of it that was not there yet, in order: those bytes, and only those, are to be placed.
    pub fn on_data(
        &mut self,
        now: Nanos,
        from: Position,
        to: Position,
        repair: bool,
        missing: impl FnMut(Position, Position),
    ) -> DataOutcome {
        if to <= self.received().position() || to <= from {
            self.counters.duplicate_bytes += to.0.saturating_sub(from.0);
            return DataOutcome::Duplicate;
        }
        self.tail = self.tail.max(to);
        if to > self.window_end {
            self.counters.dropped += 1;
            self.learn_tail(now);
            return DataOutcome::BeyondWindow;
        }
        self.take(now, from, to, repair, missing)
    }

    /// The caller has `from..to` without it having been sent (the body of padding is zeros): counts as received, also
    /// beyond the window.
    pub fn advance_over(&mut self, now: Nanos, from: Position, to: Position) -> DataOutcome {
        if to <= from {
            return DataOutcome::Duplicate;
        }
        self.tail = self.tail.max(to);
        self.take(now, from, to, false, |_, _| {})
    }

    /// The sender has sent everything below `tail`: what of it is not here is missing.
    pub fn on_tail(&mut self, now: Nanos, tail: Position) {
        if tail > self.tail {
            self.tail = tail;
        }
        self.learn_tail(now);
    }

    /// Somebody else asked for these ranges where this receiver hears it: it waits for that repair. On multicast, NAKs
    /// that go to the whole group spare more questions than those that go to the sender alone.
    pub fn on_overheard_nak(&mut self, now: Nanos, ranges: &[NakRange]) {
        let jitter_ns = self.pace.retry_jitter_ns();
        let wait = self.pace.again(now, 1, jitter_ns);
        for range in ranges {
            let (from, to) = (Position(range.from.get()), Position(range.to.get()));
            for gap in self.gaps.iter_mut().filter(|gap| from <= gap.from && gap.to <= to) {
                gap.due = gap.due.max(wait);
            }
        }
    }

    /// What stands in `from..to` is not what the sender meant: it is missing again. False if that cannot be remembered
    /// now; then the caller does it again later. `from..to` must have been received.
    #[must_use]
    pub fn reopen(&mut self, now: Nanos, from: Position, to: Position) -> bool {
        assert!(from < to && to <= self.highest, "only what was received can be bad");
        if !self.gaps.insert(Gap::seen(from, to, now)) {
            return false;
        }
        self.next_due = self.next_due.min(now);
        true
    }

    /// Room ends at `limit`, whatever the window says; a window end once told is never taken back.
    pub fn set_limit(&mut self, now: Nanos, limit: Position) {
        self.limit = limit;
        self.move_window(now);
    }
    /// Room behind what is contiguous is now `window_bytes`; a window end once told is never taken back.
    pub fn set_window_bytes(&mut self, now: Nanos, window_bytes: u64) {
        self.window_bytes = window_bytes;
        self.move_window(now);
    }

    /// End of what is contiguous.
    #[must_use]
    pub fn received(&self) -> Received {
        Received(self.gaps.first().map_or(self.highest, |gap| gap.from))
    }
    /// First position that is not taken now.
    #[must_use]
    pub fn window_end(&self) -> Position {
        self.window_end
    }
    /// End of what the sender is known to have sent.
    #[must_use]
    pub fn tail(&self) -> Position {
        self.tail
    }
    /// Separate gaps below the highest byte known.
    #[must_use]
    pub fn gap_count(&self) -> usize {
        self.gaps.len()
    }
    /// The round trip as measured between questions and repairs.
    #[must_use]
    pub fn round_trip(&self) -> &RoundTrip {
        self.pace.round_trip()
    }
    /// A round trip measured by other means, in nanoseconds.
    pub fn hint_round_trip(&mut self, round_trip_ns: u64) {
        self.pace.round_trip_mut().sample(round_trip_ns);
    }
    /// As [`Receiver::hint_round_trip`], but only a better guess: the first repair replaces it, and once something was
    /// measured it is not believed.
    pub fn guess_round_trip(&mut self, round_trip_ns: u64) {
        self.pace.round_trip_mut().guess(round_trip_ns);
    }
    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &ReceiverCounters {
        &self.counters
    }

    /// When [`Receiver::poll`] has something to say, if nothing arrives before.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        (!self.gaps.is_empty()).then_some(self.next_due)
    }

    /// What to send now; call until `None`.
    pub fn poll(&mut self, now: Nanos) -> Option<ReceiverOutput<'_>> {
        if now < self.next_due || self.gaps.is_empty() {
            return None;
        }
        let count = self.collect_due(now);
        if count == 0 {
            return None;
        }
        self.counters.naks += 1;
        Some(ReceiverOutput::Nak(&self.nak[..count]))
    }

    /// Fills `nak` with what is due and may be asked for; sets the next due time. Returns the ranges filled.
    fn collect_due(&mut self, now: Nanos) -> usize {
        let waiting = |gap: &&Gap| gap.asked > 0 && gap.due > now;
        let on_the_way: u64 = self.gaps.iter().filter(waiting).map(Gap::bytes).sum();
        if self.gaps.iter().any(|gap| gap.asked > 0 && gap.due <= now) {
            self.pace.repair_lost(now);
        }
        let mut room = self.pace.ask_bytes().saturating_sub(on_the_way);
        let jitter_ns = self.pace.retry_jitter_ns();
        let mut count = 0;
        let mut index = 0;
        self.next_due = Nanos(u64::MAX);
        self.waits_for_room = false;
        while let Some(&gap) = self.gaps.get(index) {
            if gap.due > now {
                self.next_due = self.next_due.min(gap.due);
                index += 1;
                continue;
            }
            if room == 0 {
                self.waits_for_room = true;
                index += 1;
                continue;
            }
            let to = gap.to.min(gap.from.plus(room));
            let joins = count > 0 && self.nak[count - 1].to.get() == gap.from.0;
            if !joins && count == self.nak.len() {
                self.next_due = now;
                break;
            }
            if joins {
                self.nak[count - 1].to = to.0.into();
            } else {
                self.nak[count] = NakRange { from: gap.from.0.into(), to: to.0.into() };
                count += 1;
            }
            if to < gap.to {
                // What does not fit is a gap of its own, due as it was; without room for it, it is asked for with the rest.
                self.gaps.split(index, to);
            }
            room -= to.since(gap.from);
            self.mark_asked(now, index, jitter_ns);
            index += 1;
        }
        self.counters.ranges += count as u64;
        count
    }

    fn mark_asked(&mut self, now: Nanos, index: usize, jitter_ns: u64) {
        let Some(gap) = self.gaps.get_mut(index) else { return };
        if gap.asked == 0 {
            gap.first_asked = now;
        } else {
            self.counters.retries += 1;
        }
        gap.asked += 1;
        gap.due = self.pace.again(now, gap.asked, jitter_ns);
        self.next_due = self.next_due.min(gap.due);
    }

    /// Takes a range in that fits the window.
    fn take(
        &mut self,
        now: Nanos,
        from: Position,
        to: Position,
        repair: bool,
        mut missing: impl FnMut(Position, Position),
    ) -> DataOutcome {
        // The last slot is kept for `reopen`, which must not fail just because much is missing.
        if self.is_nearly_full() && (from > self.highest || self.gaps.splits(from, to)) {
            self.counters.dropped += 1;
            return DataOutcome::TooManyGaps;
        }
        let mut new_bytes = 0;
        if from < self.highest {
            new_bytes += self.fill(now, from, to.min(self.highest), repair, &mut missing);
        }
        if to > self.highest {
            if from > self.highest {
                self.open(now, self.highest, from);
            }
            let start = from.max(self.highest);
            missing(start, to);
            new_bytes += to.since(start);
            self.highest = to;
        }
        self.counters.duplicate_bytes += to.since(from) - new_bytes;
        if new_bytes == 0 {
            return DataOutcome::Duplicate;
        }
        self.move_window(now);
        DataOutcome::Placed { new_bytes }
    }

    /// Takes `from..to`, all of it below `highest`, out of the gaps; learns the round trip from it.
    fn fill(
        &mut self,
        now: Nanos,
        from: Position,
        to: Position,
        repair: bool,
        missing: &mut impl FnMut(Position, Position),
    ) -> u64 {
        let (mut new_bytes, mut asked_bytes, mut shown) = (0, 0, None);
        let measured = self.pace.round_trip().is_measured();
        self.gaps.fill(from, to, |from, to, gap| {
            new_bytes += to.since(from);
            if repair && gap.asked > 0 {
                asked_bytes += to.since(from);
                shown = shown.or(shown_by(now, gap, measured));
            }
            missing(from, to);
        });
        match shown {
            Some(Shown::Took(nanoseconds)) => self.pace.answered_after(nanoseconds),
            Some(Shown::Longer(at_most_ns)) => self.pace.guess_longer(now, at_most_ns),
            None => {}
        }
        self.pace.repaired(asked_bytes);
        if new_bytes > 0 && self.waits_for_room {
            self.next_due = self.next_due.min(now);
        }
        new_bytes
    }

    fn is_nearly_full(&self) -> bool {
        self.gaps.len() + 1 >= self.gaps.capacity()
    }

    /// Notes that `from..to`, at the high end, is missing.
    fn open(&mut self, now: Nanos, from: Position, to: Position) {
        // A missing tail that grows before it was asked for stays one gap.
        if let Some(last) = self.gaps.last_mut().filter(|last| last.to == from && last.asked == 0) {
            last.to = to;
            return;
        }
        let due = self.pace.first(now);
        let opened = self.gaps.insert(Gap::seen(from, to, due));
        assert!(opened, "the caller keeps a slot");
        self.next_due = self.next_due.min(due);
    }

    /// What the sender has sent, as far as it fits, and is not here, is missing.
    fn learn_tail(&mut self, now: Nanos) {
        let known = self.tail.min(self.window_end);
        if known > self.highest && !self.is_nearly_full() {
            self.open(now, self.highest, known);
            self.highest = known;
        }
    }

    fn move_window(&mut self, now: Nanos) {
        let end = self.received().position().plus(self.window_bytes).min(self.limit);
        if end > self.window_end {
            self.window_end = end;
            self.learn_tail(now);
        }
    }
}

/// What the repair of a gap shows of the round trip.
#[derive(Clone, Copy)]
enum Shown {
    /// It took so long, in nanoseconds.
    Took(u64),
    /// It takes longer than believed, but not longer than this, in nanoseconds.
    Longer(u64),
}

/// The repair of a gap that was asked for more than once may answer any of the questions. Where nothing was measured yet,
/// the first guess is then too short. Later it says nothing: what is lost must never be taken for a long way.
fn shown_by(now: Nanos, gap: &Gap, measured: bool) -> Option<Shown> {
    let since_first_ns = now.since(gap.first_asked);
    match gap.asked {
        0 => None,
        1 => Some(Shown::Took(since_first_ns)),
        _ => (!measured).then_some(Shown::Longer(since_first_ns)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Nanos = Nanos(1_000_000);

    fn receiver(gaps_max: usize) -> Receiver {
        let settings = ReceiverSettings { window_bytes: 1_000, gaps_max, ..Default::default() };
        Receiver::new(settings, Position(100))
    }
    fn data(receiver: &mut Receiver, from: u64, to: u64) -> (DataOutcome, Vec<(u64, u64)>) {
        let mut new = Vec::new();
        let (from, to) = (Position(from), Position(to));
        let outcome = receiver.on_data(NOW, from, to, false, |from, to| new.push((from.0, to.0)));
        (outcome, new)
    }
    fn asked(receiver: &mut Receiver, now: Nanos) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        while let Some(ReceiverOutput::Nak(nak)) = receiver.poll(now) {
            ranges.extend(nak.iter().map(|range| (range.from.get(), range.to.get())));
        }
        ranges
    }

    #[test]
    fn d13_only_what_is_missing_is_ever_placed() {
        let mut receiver = receiver(16);
        assert_eq!(data(&mut receiver, 100, 200).1, [(100, 200)]);
        assert_eq!(data(&mut receiver, 300, 400).1, [(300, 400)]);
        for (from, to) in [(0, 50), (0, 200), (150, 200), (310, 390), (100, 200), (400, 400)] {
            assert_eq!(data(&mut receiver, from, to), (DataOutcome::Duplicate, vec![]), "{from}");
        }
        assert_eq!(data(&mut receiver, 50, 350).1, [(200, 300)]);
        assert_eq!(receiver.received().position(), Position(400));
        assert_eq!(data(&mut receiver, 0, 500).1, [(400, 500)]);
    }

    #[test]
    fn d13_an_older_tail_changes_nothing() {
        let mut receiver = receiver(16);
        data(&mut receiver, 100, 400);
        receiver.on_tail(NOW, Position(300));
        assert_eq!(
            (receiver.received().position(), receiver.tail()),
            (Position(400), Position(400))
        );
        assert_eq!(receiver.deadline(), None);
    }

    #[test]
    fn beyond_the_window_nothing_is_taken_but_what_fits_below_is_asked_for() {
        let mut receiver = receiver(16);
        assert_eq!(data(&mut receiver, 1_050, 1_101).0, DataOutcome::BeyondWindow);
        assert_eq!(asked(&mut receiver, NOW), [(100, 1_100)]);
        assert_eq!(receiver.window_end(), Position(1_100));
        receiver.set_limit(NOW, Position(1_200));
        data(&mut receiver, 100, 1_000);
        assert_eq!(receiver.window_end(), Position(1_200), "room ends before the window does");
        assert_eq!(data(&mut receiver, 1_200, 1_201).0, DataOutcome::BeyondWindow);
    }

    #[test]
    fn all_gaps_are_asked_for_at_once_and_again_only_after_a_round_trip() {
        let mut receiver = receiver(128);
        let mut expected = Vec::new();
        for at in 0..80 {
            data(&mut receiver, 105 + at * 10, 110 + at * 10);
            expected.push((100 + at * 10, 105 + at * 10));
        }
        let mut naks = Vec::new();
        while let Some(ReceiverOutput::Nak(nak)) = receiver.poll(NOW) {
            naks.push(nak.len());
        }
        assert_eq!(naks, [NAK_RANGES_MAX, 80 - NAK_RANGES_MAX]);
        let retry = receiver.round_trip().retry_ns();
        assert_eq!(receiver.deadline(), Some(NOW.plus(retry)));
        assert_eq!(asked(&mut receiver, NOW.plus(retry - 1)), []);
        assert_eq!(asked(&mut receiver, NOW.plus(retry)), expected);
        assert_eq!(receiver.counters().retries, 80);
    }

    #[test]
    fn more_gaps_than_are_kept_are_not_taken_and_one_slot_stays_for_bad_frames() {
        let mut receiver = receiver(3);
        data(&mut receiver, 110, 120);
        data(&mut receiver, 130, 140);
        assert_eq!(data(&mut receiver, 150, 160).0, DataOutcome::TooManyGaps);
        assert_eq!(data(&mut receiver, 102, 104).0, DataOutcome::TooManyGaps, "it would split");
        assert_eq!(data(&mut receiver, 100, 110).1, [(100, 110)]);
        assert!(receiver.reopen(NOW, Position(100), Position(120)));
        assert_eq!(receiver.received().position(), Position(100));
        assert_eq!(asked(&mut receiver, NOW), [(100, 130), (140, 160)]);
        assert_eq!(data(&mut receiver, 100, 140).1, [(100, 120), (120, 130)]);
    }

    #[test]
    fn padding_bodies_count_as_received_also_beyond_the_window() {
        let mut receiver = receiver(16);
        data(&mut receiver, 100, 132);
        receiver.advance_over(NOW, Position(132), Position(5_000));
        assert_eq!(receiver.received().position(), Position(5_000));
        assert_eq!(receiver.window_end(), Position(6_000));
        assert_eq!(data(&mut receiver, 5_000, 5_010).1, [(5_000, 5_010)]);
    }

    #[test]
    fn what_is_far_behind_is_asked_for_in_amounts_that_grow_with_the_repairs() {
        let settings = ReceiverSettings { window_bytes: 4 << 20, ..Default::default() };
        let mut receiver = Receiver::new(settings, Position(0));
        receiver.on_tail(NOW, Position(4 << 20));
        let first = asked(&mut receiver, NOW);
        assert_eq!(first, [(0, 256 * 1024)]);
        let (mut repaired, mut now, mut rounds) = (0, NOW, 0);
        let mut ranges = first;
        while repaired < 4 << 20 {
            now = now.plus(100_000);
            for (from, to) in std::mem::take(&mut ranges) {
                receiver.on_data(now, Position(from), Position(to), true, |_, _| {});
                repaired = to;
            }
            ranges = asked(&mut receiver, now);
            rounds += 1;
        }
        assert!(rounds <= 5, "{rounds} round trips for 4 MiB");
    }

    #[test]
    fn a_round_trip_far_longer_than_believed_is_learned_from_repairs() {
        let mut receiver = receiver(16);
        let far = 80_000_000;
        let (mut now, mut at) = (NOW, 100);
        for _ in 0..40 {
            // One gap, asked for again and again until the first answer is here.
            receiver.on_data(now, Position(at + 10), Position(at + 20), false, |_, _| {});
            let answered = now.plus(far);
            while receiver.deadline().is_some_and(|due| due < answered) {
                now = now.max(receiver.deadline().expect("a gap"));
                asked(&mut receiver, now);
            }
            now = answered;
            receiver.on_data(now, Position(at), Position(at + 10), true, |_, _| {});
            at += 20;
        }
        let learned = receiver.round_trip().smoothed_ns();
        assert!(
            (far / 3..far * 5 / 4).contains(&learned),
            "{learned}: one question too many at most"
        );
    }

    #[test]
    fn a_guess_sets_the_first_retry_and_is_replaced_by_the_first_repair() {
        let mut receiver = receiver(16);
        receiver.guess_round_trip(5_000_000);
        data(&mut receiver, 110, 120);
        assert_eq!(asked(&mut receiver, NOW), [(100, 110)]);
        let retry = receiver.deadline().expect("asked").since(NOW);
        assert!((5_000_000..7_000_000).contains(&retry), "{retry}");
        receiver.on_data(NOW.plus(80_000), Position(100), Position(110), true, |_, _| {});
        assert_eq!(receiver.round_trip().smoothed_ns(), 80_000);
        receiver.guess_round_trip(5_000_000);
        assert_eq!(receiver.round_trip().smoothed_ns(), 80_000, "measured is better than guessed");
    }

    #[test]
    fn an_overheard_question_spares_ones_own() {
        let medium = Medium::Multicast { receivers: 3 };
        let settings = ReceiverSettings { medium, ..Default::default() };
        let mut receiver = Receiver::new(settings, Position(0));
        data(&mut receiver, 10, 20);
        let due = receiver.deadline().expect("a gap");
        receiver.on_overheard_nak(NOW, &[NakRange { from: 0.into(), to: 10.into() }]);
        assert_eq!(asked(&mut receiver, due), []);
        let again = receiver.deadline().expect("still a gap");
        assert!(again >= NOW.plus(receiver.round_trip().smoothed_ns()));
        assert_eq!(asked(&mut receiver, again), [(0, 10)]);
    }
}

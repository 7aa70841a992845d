//! The accounts of one round: what was sent when, what came back, how long it took. Pure: the time is given.

use std::collections::VecDeque;

use crate::distribution::Distribution;
use crate::schedule::Schedule;

/// An unanswered send is lost after this.
pub(crate) const REPLY_TIMEOUT_NS: u64 = 1_000_000_000;
/// Sends without an answer at once, at most: as many as a session may have, and few enough that the receive buffers of
/// the floors hold them all.
pub(crate) const UNANSWERED_MAX: usize = 256;

/// What a round came to.
#[derive(Clone)]
pub(crate) struct Outcome {
    /// From the intended time to the answer: what a caller would see.
    pub(crate) response: Distribution,
    /// From the actual send to the answer: what the system itself took.
    pub(crate) service: Distribution,
    /// Sends after the warm-up.
    pub(crate) sent: u64,
    /// Answers to those.
    pub(crate) answered: u64,
    /// Sends, warm-up included, that no answer came to in time.
    pub(crate) lost: u64,
    /// Answers to nothing that was waiting: second ones, or late ones.
    pub(crate) unexpected: u64,
    /// Times the system said "not now" to a send, which was then tried again.
    pub(crate) refused: u64,
    /// From the end of the warm-up to the last send, in nanoseconds.
    pub(crate) sending_ns: u64,
}

/// One round under way. Sends are numbered from 0.
pub(crate) struct Load {
    schedule: Schedule,
    /// Samples intended before this are not counted.
    warm_until_ns: u64,
    /// Sends from `first` on; the front one is always unanswered.
    flights: VecDeque<Flight>,
    first: u64,
    unanswered: usize,
    /// Taken from the schedule, not yet accepted by the system.
    waiting: Option<u64>,
    outcome: Outcome,
}

struct Flight {
    intended_ns: u64,
    sent_ns: u64,
    answered: bool,
}

impl Load {
    /// A round that sends as `schedule` says and counts what is intended at `warm_until_ns` or later.
    pub(crate) fn new(schedule: Schedule, warm_until_ns: u64) -> Self {
        let outcome = Outcome {
            response: Distribution::new(),
            service: Distribution::new(),
            sent: 0,
            answered: 0,
            lost: 0,
            unexpected: 0,
            refused: 0,
            sending_ns: 0,
        };
        Self {
            schedule,
            warm_until_ns,
            flights: VecDeque::with_capacity(4 * UNANSWERED_MAX),
            first: 0,
            unanswered: 0,
            waiting: None,
            outcome,
        }
    }

    /// The number to send now, if one is due. Follow with [`Load::sent`] or [`Load::refused`].
    pub(crate) fn next(&mut self, now_ns: u64) -> Option<u64> {
        if self.unanswered >= UNANSWERED_MAX {
            return None;
        }
        if self.waiting.is_none() {
            self.waiting = self.schedule.due(now_ns, self.unanswered);
        }
        self.waiting.map(|_| self.first + self.flights.len() as u64)
    }

    /// The number from [`Load::next`] is on its way since `sent_ns`.
    pub(crate) fn sent(&mut self, sent_ns: u64) {
        let intended_ns = self.waiting.take().expect("`next` gave a number");
        self.unanswered += 1;
        self.flights.push_back(Flight { intended_ns, sent_ns, answered: false });
        if intended_ns >= self.warm_until_ns {
            self.outcome.sent += 1;
            self.outcome.sending_ns = sent_ns.saturating_sub(self.warm_until_ns);
        }
    }

    /// The system did not take it: it stays due, with its intended time.
    pub(crate) fn refused(&mut self) {
        self.outcome.refused += 1;
    }

    /// An answer.
    pub(crate) fn answered(&mut self, number: u64, now_ns: u64) {
        let flight = number
            .checked_sub(self.first)
            .and_then(|index| self.flights.get_mut(usize::try_from(index).ok()?))
            .filter(|flight| !flight.answered);
        let Some(flight) = flight else {
            self.outcome.unexpected += 1;
            return;
        };
        flight.answered = true;
        self.unanswered -= 1;
        if flight.intended_ns >= self.warm_until_ns {
            self.outcome.answered += 1;
            self.outcome.response.record_ns(now_ns.saturating_sub(flight.intended_ns));
            self.outcome.service.record_ns(now_ns.saturating_sub(flight.sent_ns));
        }
        self.forget_answered();
    }

    /// Gives up what has waited too long. Cheap; call it when idle.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        while let Some(flight) = self.flights.front()
            && now_ns.saturating_sub(flight.sent_ns) >= REPLY_TIMEOUT_NS
        {
            self.flights.pop_front();
            self.first += 1;
            self.unanswered -= 1;
            self.outcome.lost += 1;
            self.forget_answered();
        }
    }

    /// Whether everything has been sent and is answered or given up.
    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        self.unanswered == 0 && self.waiting.is_none() && self.schedule.is_over(now_ns)
    }

    /// The result.
    pub(crate) fn finish(self) -> Outcome {
        self.outcome
    }

    fn forget_answered(&mut self) {
        while self.flights.front().is_some_and(|flight| flight.answered) {
            self.flights.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const MS: u64 = 1_000_000;

    fn open(per_second: u64, duration_ns: u64, warm_until_ns: u64) -> Load {
        let rate = NonZeroU64::new(per_second).expect("not zero");
        Load::new(Schedule::open(0, rate, duration_ns), warm_until_ns)
    }

    fn only(distribution: &Distribution) -> u64 {
        assert_eq!(distribution.count(), 1);
        distribution.max_ns().expect("one sample")
    }

    #[test]
    fn response_counts_from_the_intended_time_and_service_from_the_send() {
        let mut load = open(1_000, MS, 0);
        assert_eq!(load.next(3 * MS), Some(0));
        load.sent(3 * MS);
        load.answered(0, 5 * MS);
        assert!(load.is_over(5 * MS));
        let outcome = load.finish();
        assert!(only(&outcome.response).abs_diff(5 * MS) < MS / 100);
        assert!(only(&outcome.service).abs_diff(2 * MS) < MS / 100);
    }

    #[test]
    fn a_system_that_stalls_is_charged_for_every_send_it_held_up() {
        // 100 sends, 1 ms apart; the system takes the first and then nothing for 100 ms, then answers at once.
        let mut load = open(1_000, 100 * MS, 0);
        assert_eq!(load.next(0), Some(0));
        load.refused();
        let mut number = 0;
        while let Some(next) = load.next(100 * MS) {
            assert_eq!(next, number);
            load.sent(100 * MS);
            load.answered(next, 100 * MS);
            number += 1;
        }
        let outcome = load.finish();
        assert_eq!((outcome.sent, outcome.answered, outcome.refused), (100, 100, 1));
        let median = outcome.response.at_ns(&crate::distribution::PERCENTILES[0]);
        assert!(median.expect("enough samples").abs_diff(51 * MS) < MS);
        assert!(outcome.service.max_ns().expect("samples") <= 1);
    }

    #[test]
    fn warm_up_is_not_counted() {
        let mut load = open(1_000, 10 * MS, 4 * MS);
        for now in (0..10).map(|n| n * MS) {
            let number = load.next(now).expect("due");
            load.sent(now);
            load.answered(number, now + 1_000);
        }
        let outcome = load.finish();
        assert_eq!((outcome.sent, outcome.answered), (6, 6));
        assert_eq!(outcome.response.count(), 6);
        assert_eq!(outcome.sending_ns, 5 * MS);
    }

    #[test]
    fn lost_second_and_unknown_answers_are_told_apart() {
        let mut load = open(1_000, 3 * MS, 0);
        for now in (0..3).map(|n| n * MS) {
            load.next(now).expect("due");
            load.sent(now);
        }
        load.answered(1, 3 * MS);
        load.answered(1, 3 * MS);
        load.answered(77, 3 * MS);
        load.expire(REPLY_TIMEOUT_NS - 1);
        assert!(!load.is_over(REPLY_TIMEOUT_NS));
        load.expire(REPLY_TIMEOUT_NS + 2 * MS);
        assert!(load.is_over(REPLY_TIMEOUT_NS + 2 * MS));
        let outcome = load.finish();
        assert_eq!((outcome.sent, outcome.answered), (3, 1));
        assert_eq!((outcome.lost, outcome.unexpected), (2, 2));
    }

    #[test]
    fn the_window_holds_sends_back_but_not_their_intended_times() {
        let mut load = open(1_000_000, MS, 0);
        while load.next(MS).is_some() {
            load.sent(MS);
        }
        assert_eq!(load.unanswered, UNANSWERED_MAX);
        load.answered(0, 2 * MS);
        assert_eq!(load.next(2 * MS), Some(UNANSWERED_MAX as u64));
        load.sent(2 * MS);
        load.answered(UNANSWERED_MAX as u64, 2 * MS);
        let longest = load.finish().response.max_ns().expect("two samples");
        assert!(longest.abs_diff(2 * MS) < MS / 100, "number 0 was intended at 0");
    }

    #[test]
    fn an_answer_far_behind_a_lost_one_is_found() {
        let mut load = open(1_000, 600 * MS, 0);
        for n in 0..600 {
            let number = load.next(n * MS).expect("due");
            load.sent(n * MS);
            if number != 0 {
                load.answered(number, n * MS + 1);
            }
        }
        load.expire(2 * REPLY_TIMEOUT_NS);
        let outcome = load.finish();
        assert_eq!((outcome.answered, outcome.lost, outcome.unexpected), (599, 1, 0));
    }
}

//! Several subjects in turn within one run (A B C A B C ...), so that the machine's mood is the same for all of them, and
//! their comparison round by round.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::distribution::{Distribution, PERCENTILES, ratio};
use crate::failure::Failure;
use crate::load::{Load, Outcome};
use crate::schedule::Schedule;
use crate::subject::{Clock, Subject, drive};

/// The load of each round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Rounds of each subject.
    pub(crate) rounds: usize,
    /// Sends a second; none: closed loop.
    pub(crate) rate: Option<NonZeroU64>,
    /// Load before anything counts, in nanoseconds.
    pub(crate) warm_up_ns: u64,
    /// What counts of a round, in nanoseconds.
    pub(crate) measure_ns: u64,
}

/// All rounds of one subject.
pub(crate) struct Series {
    /// The subject's name.
    pub(crate) name: &'static str,
    /// In the order they ran.
    pub(crate) rounds: Vec<Outcome>,
}

/// Runs all rounds of all subjects.
pub(crate) fn run(
    subjects: &mut [Box<dyn Subject + '_>],
    plan: &Plan,
    stop: &AtomicBool,
    mut told: impl FnMut(usize, &'static str, &Outcome),
) -> Result<Vec<Series>, Failure> {
    let mut all: Vec<Series> = subjects
        .iter()
        .map(|subject| Series { name: subject.name(), rounds: Vec::new() })
        .collect();
    for round in 0..plan.rounds {
        for (subject, series) in subjects.iter_mut().zip(&mut all) {
            let result = subject.begin().and_then(|()| {
                let clock = Clock::start();
                drive(&mut **subject, plan.load(clock.now_ns()), clock, stop)
            });
            let result = result.map_err(|failure| why(&mut **subject, failure, stop));
            subject.end();
            let outcome = result?;
            told(round, series.name, &outcome);
            series.rounds.push(outcome);
        }
    }
    Ok(all)
}

/// The failure that is at the bottom of this one: Ctrl-C reaches the processes of a subject too, and a node that has ended
/// says more than a client that waits for it.
fn why(subject: &mut dyn Subject, failure: Failure, stop: &AtomicBool) -> Failure {
    if stop.load(Ordering::Relaxed) {
        return Failure::Interrupted;
    }
    subject.explain().err().unwrap_or(failure)
}

impl Plan {
    fn load(&self, start_ns: u64) -> Load {
        let duration_ns = self.warm_up_ns.saturating_add(self.measure_ns);
        let schedule = match self.rate {
            Some(rate) => Schedule::open(start_ns, rate, duration_ns),
            None => Schedule::closed(start_ns, duration_ns),
        };
        Load::new(schedule, start_ns.saturating_add(self.warm_up_ns))
    }
}

impl Series {
    /// Response times of all rounds.
    pub(crate) fn response(&self) -> Distribution {
        Distribution::merged(&self.by_round())
    }
    /// Service times of all rounds.
    pub(crate) fn service(&self) -> Distribution {
        let by_round: Vec<_> = self.rounds.iter().map(|outcome| &outcome.service).collect();
        Distribution::merged(&by_round)
    }
    /// Adds up one count of all rounds.
    pub(crate) fn sum(&self, count: impl Fn(&Outcome) -> u64) -> u64 {
        self.rounds.iter().map(count).sum()
    }
    /// Answers a second while it was sent to, over all rounds.
    pub(crate) fn per_second(&self) -> f64 {
        let seconds = self.sum(|outcome| outcome.sending_ns) as f64 / 1e9;
        if seconds > 0.0 { self.sum(|outcome| outcome.answered) as f64 / seconds } else { 0.0 }
    }
    fn by_round(&self) -> Vec<&Distribution> {
        self.rounds.iter().map(|outcome| &outcome.response).collect()
    }
}

/// [`ratio`] of every percentile of the response times.
pub(crate) fn ratios(subject: &Series, base: &Series) -> Vec<(&'static str, Option<f64>)> {
    let (subject, base) = (subject.by_round(), base.by_round());
    PERCENTILES.iter().map(|of| (of.key, ratio(&subject, &base, of))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Sent;

    /// Answers everything at once, and notes who ran when.
    struct Immediate<'a> {
        name: &'static str,
        waiting: Vec<u64>,
        log: &'a std::cell::RefCell<Vec<String>>,
    }

    impl Subject for Immediate<'_> {
        fn name(&self) -> &'static str {
            self.name
        }
        fn begin(&mut self) -> Result<(), Failure> {
            self.log.borrow_mut().push(format!("{}+", self.name));
            Ok(())
        }
        fn try_send(&mut self, number: u64) -> Result<Sent, Failure> {
            self.waiting.push(number);
            Ok(Sent::Yes)
        }
        fn poll(&mut self, answered: &mut dyn FnMut(u64)) -> Result<usize, Failure> {
            Ok(self.waiting.drain(..).map(answered).count())
        }
        fn idle(&mut self) {}
        fn end(&mut self) {
            self.log.borrow_mut().push(format!("{}-", self.name));
        }
    }

    #[test]
    fn subjects_take_turns_and_only_one_is_up_at_a_time() {
        let log = std::cell::RefCell::default();
        let new = |name| Immediate { name, waiting: Vec::new(), log: &log };
        let mut both: [Box<dyn Subject + '_>; 2] = [Box::new(new("a")), Box::new(new("b"))];
        let rate = NonZeroU64::new(10_000);
        let plan = Plan { rounds: 2, rate, warm_up_ns: 1_000_000, measure_ns: 4_000_000 };
        let stop = AtomicBool::new(false);
        let all = run(&mut both, &plan, &stop, |_, _, _| ()).expect("nothing fails");
        assert_eq!(*log.borrow(), ["a+", "a-", "b+", "b-", "a+", "a-", "b+", "b-"]);
        for series in &all {
            assert_eq!(series.sum(|outcome| outcome.sent), 80);
            assert_eq!(series.response().count(), 80);
            assert_eq!(series.sum(|outcome| outcome.lost), 0);
        }
    }
}

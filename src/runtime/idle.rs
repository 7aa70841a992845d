//! What a thread does when a duty cycle did nothing: burn its CPU, give it away, or sleep.
//!
//! The default adapts. While there is traffic it spins on a CPU of its own and yields on a shared one; it sleeps only after
//! milliseconds of silence, because sleeping sooner doubles the latency of a moderate load (measured) and sleeping then costs
//! nothing. Heartbeats are not traffic: a node that exchanges nothing else goes back to sleep at once, and stays under 2 % of
//! a core.
//!
//! [`Idle`] only decides; [`Idler`] does it.

use core::hint;
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread;

use crate::io::wake::{Parker, Woke};
use crate::limits::NODES_MAX;
use crate::types::Nanos;

/// The strategies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IdleKind {
    /// Try again at once: lowest latency, a CPU of one's own.
    Spin,
    /// Let others run, then try again: never sleeps.
    Yield,
    /// Spin, then yield, then sleep longer and longer.
    Backoff,
    /// Sleep at once.
    Park,
    /// Each of these when it is right.
    #[default]
    Adaptive,
}

/// When something must be done even if nothing comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deadlines {
    /// Repairs and hand-overs: a sleep must not come near, since it may end late.
    pub sharp: Option<Nanos>,
    /// Heartbeats and expiry: 2 ms late is fine.
    pub soft: Option<Nanos>,
}

/// What to do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdleAction {
    /// Go on: there was work.
    Continue,
    /// Try again at once.
    Spin,
    /// Let others run first.
    Yield,
    /// Sleep until woken or until then; `None`: until woken.
    Park {
        /// When to wake up by oneself.
        until: Option<Nanos>,
    },
}

/// Sharp deadlines closer than this keep the thread awake: sleeps end late by up to a time slice.
const SHARP_GUARD_NS: u64 = 2 * Nanos::MILLISECOND;
/// Sleeps shorter than this are not worth the two switches.
const PARK_MIN_NS: u64 = 50 * Nanos::MICROSECOND;
/// Silence before a sleep, after traffic and without.
const LINGER_TRAFFIC_NS: u64 = 2 * Nanos::MILLISECOND;
const LINGER_QUIET_NS: u64 = 5 * Nanos::MICROSECOND;
/// Backoff: rounds of spinning, then of yielding, then the first and the longest sleep.
const BACKOFF_SPINS: u32 = 100;
const BACKOFF_YIELDS: u32 = 100;
const BACKOFF_PARK_MIN_NS: u64 = 50 * Nanos::MICROSECOND;
const BACKOFF_PARK_MAX_NS: u64 = 2 * Nanos::MILLISECOND;

/// The decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Idle {
    kind: IdleKind,
    shared_cpu: bool,
    traffic: Traffic,
    /// Start of the silence.
    quiet_since: Nanos,
    /// Idle cycles in a row.
    rounds: u32,
    /// Next sleep of the backoff.
    backoff_ns: u64,
}

impl Idle {
    /// Starts on a CPU that counts as shared.
    #[must_use]
    pub fn new(kind: IdleKind) -> Self {
        Self {
            kind,
            shared_cpu: true,
            traffic: Traffic::default(),
            quiet_since: Nanos(0),
            rounds: 0,
            backoff_ns: BACKOFF_PARK_MIN_NS,
        }
    }

    /// Whether others want the CPU too (judged from the run queue).
    pub fn set_shared_cpu(&mut self, shared: bool) {
        self.shared_cpu = shared;
    }

    /// What to do after a duty cycle that did `work` and ended at `now`.
    pub fn idle(&mut self, work: usize, deadlines: Deadlines, now: Nanos) -> IdleAction {
        if work > 0 {
            self.traffic.busy(now);
            self.quiet_since = now;
            self.rounds = 0;
            self.backoff_ns = BACKOFF_PARK_MIN_NS;
            return IdleAction::Continue;
        }
        self.rounds = self.rounds.saturating_add(1);
        match self.kind {
            IdleKind::Spin => IdleAction::Spin,
            IdleKind::Yield => IdleAction::Yield,
            IdleKind::Park => park(deadlines, now, None),
            IdleKind::Backoff if self.rounds <= BACKOFF_SPINS => IdleAction::Spin,
            IdleKind::Backoff if self.rounds <= BACKOFF_SPINS + BACKOFF_YIELDS => IdleAction::Yield,
            IdleKind::Backoff => {
                let until = now.plus(self.backoff_ns);
                self.backoff_ns = (2 * self.backoff_ns).min(BACKOFF_PARK_MAX_NS);
                park(deadlines, now, Some(until))
            }
            IdleKind::Adaptive => self.adapt(deadlines, now),
        }
    }

    fn adapt(&mut self, deadlines: Deadlines, now: Nanos) -> IdleAction {
        let traffic = self.traffic.is_heavy(now);
        let linger = if traffic { LINGER_TRAFFIC_NS } else { LINGER_QUIET_NS };
        if now.since(self.quiet_since) < linger {
            return if self.shared_cpu { IdleAction::Yield } else { IdleAction::Spin };
        }
        park(deadlines, now, None)
    }
}

/// A sleep until the next deadline or `until`, or staying awake when that is too close.
fn park(deadlines: Deadlines, now: Nanos, until: Option<Nanos>) -> IdleAction {
    let sharp = deadlines.sharp.map(|sharp| Nanos(sharp.0.saturating_sub(SHARP_GUARD_NS)));
    let until = [sharp, deadlines.soft, until].into_iter().flatten().min();
    match until {
        Some(until) if until < now.plus(PARK_MIN_NS) => IdleAction::Yield,
        until => IdleAction::Park { until },
    }
}

/// Tells traffic from heartbeats: by the number of recent milliseconds in which something happened, and by bursts.
///
/// Heartbeats each 10 ms, from five peers that are not in step, touch half of them; a thousand messages a second at random
/// touch 63 %. A burst of more busy cycles than an exchange of heartbeats in the largest group has is traffic at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Traffic {
    /// One bit per millisecond; bit 0: the current one.
    history: u64,
    slot: u64,
    /// Busy cycles of the current millisecond and of the three before.
    cycles: [u32; 4],
}

const SLOT_NS: u64 = Nanos::MILLISECOND;
/// Busy milliseconds that are traffic: of the last 64, and, so that a start is seen soon, of the last 16.
const HEAVY_OF_64: u32 = 36;
const HEAVY_OF_16: u32 = 12;
const HEAVY_CYCLES: u32 = NODES_MAX as u32 + 2;

impl Traffic {
    fn busy(&mut self, now: Nanos) {
        self.advance(now);
        self.history |= 1;
        self.cycles[0] = self.cycles[0].saturating_add(1);
    }

    fn is_heavy(&mut self, now: Nanos) -> bool {
        self.advance(now);
        self.history.count_ones() >= HEAVY_OF_64
            || (self.history as u16).count_ones() >= HEAVY_OF_16
            || self.cycles.iter().fold(0, |sum: u32, n| sum.saturating_add(*n)) >= HEAVY_CYCLES
    }

    fn advance(&mut self, now: Nanos) {
        let slot = now.0 / SLOT_NS;
        let passed = slot.saturating_sub(self.slot);
        if passed == 0 {
            return;
        }
        self.slot = slot;
        let shift = u32::try_from(passed).unwrap_or(u32::MAX);
        self.history = self.history.checked_shl(shift).unwrap_or(0);
        for _ in 0..passed.min(4) {
            let [a, b, c, _] = self.cycles;
            self.cycles = [0, a, b, c];
        }
    }
}

/// What an [`Idler`] did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IdleCounters {
    /// Times the CPU was given away.
    pub yields: u64,
    /// Sleeps.
    pub parks: u64,
    /// Sleeps that did not begin, because mail came in.
    pub parks_avoided: u64,
    /// Sleeps that a waker ended.
    pub rung: u64,
}

/// Carries the decision out.
#[derive(Debug)]
pub struct Idler {
    idle: Idle,
    parker: Parker,
    shared_cpu: Arc<AtomicBool>,
    counters: IdleCounters,
}

impl Idler {
    /// `shared_cpu` is set by whoever watches the thread's run queue.
    #[must_use]
    pub fn new(kind: IdleKind, parker: Parker, shared_cpu: Arc<AtomicBool>) -> Self {
        Self { idle: Idle::new(kind), parker, shared_cpu, counters: IdleCounters::default() }
    }

    /// Does what is right after a duty cycle that did `work` and ended at `now`. A sleep ends when one of `descriptors` has
    /// something, or a waker rings; `mail` tells whether something waits in a mailbox.
    pub fn idle<'a>(
        &mut self,
        work: usize,
        deadlines: Deadlines,
        now: Nanos,
        descriptors: impl Iterator<Item = BorrowedFd<'a>>,
        mail: impl FnOnce() -> bool,
    ) {
        self.idle.set_shared_cpu(self.shared_cpu.load(Ordering::Relaxed));
        match self.idle.idle(work, deadlines, now) {
            IdleAction::Continue => {}
            IdleAction::Spin => hint::spin_loop(),
            IdleAction::Yield => {
                self.counters.yields += 1;
                thread::yield_now();
            }
            IdleAction::Park { until } => {
                let timeout_ns = until.map(|until| until.since(now));
                match self.parker.park(descriptors, timeout_ns, mail) {
                    Woke::Mail => self.counters.parks_avoided += 1,
                    Woke::Bell => {
                        self.counters.parks += 1;
                        self.counters.rung += 1;
                    }
                    Woke::Descriptor | Woke::Timeout => self.counters.parks += 1,
                }
            }
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> IdleCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::prng::Prng;

    const US: u64 = Nanos::MICROSECOND;
    const MS: u64 = Nanos::MILLISECOND;
    const NONE: Deadlines = Deadlines { sharp: None, soft: None };

    fn soft(at: u64) -> Deadlines {
        Deadlines { sharp: None, soft: Some(Nanos(at)) }
    }

    /// Runs one thread for a second of virtual time, with `events` of one busy cycle each, and a microsecond per cycle.
    /// Returns the nanoseconds it was awake, and how many events found it asleep.
    fn second(idle: &mut Idle, events: &[u64]) -> (u64, usize) {
        let (mut now, mut awake, mut asleep, mut next) = (0, 0, 0, 0);
        while now < Nanos::SECOND {
            now += US;
            awake += US;
            let work = usize::from(events.get(next).is_some_and(|&at| at <= now));
            next += work;
            match idle.idle(work, NONE, Nanos(now)) {
                IdleAction::Park { .. } => {
                    let Some(&at) = events.get(next) else { break };
                    asleep += 1;
                    now = at.max(now);
                    // Falling asleep and waking up.
                    awake += 5 * US;
                }
                IdleAction::Yield => assert!(idle.shared_cpu),
                IdleAction::Spin => assert!(!idle.shared_cpu),
                IdleAction::Continue => assert_eq!(work, 1),
            }
        }
        (awake, asleep)
    }

    #[test]
    fn heartbeats_alone_leave_the_thread_asleep() {
        // Four peers and control, each every 10 ms at its own phase, and the own heartbeat answered by all at once.
        let mut events: Vec<u64> = (0..100)
            .flat_map(|n| {
                [0, 40, 45, 50, 55, 2_000, 3_700, 6_100, 7_900].map(|us| n * 10 * MS + us * US)
            })
            .collect();
        events.sort_unstable();
        let mut idle = Idle::new(IdleKind::Adaptive);
        let (awake, _) = second(&mut idle, &events);
        assert!(awake < Nanos::SECOND / 50, "awake for {} us of a second", awake / US);
    }

    #[test]
    fn traffic_of_a_thousand_a_second_keeps_it_awake_and_silence_lets_it_sleep() {
        for (interval, allowed) in [(MS, 20), (100 * US, 20), (20 * US, 20)] {
            let events: Vec<u64> = (0..Nanos::SECOND / interval).map(|n| n * interval).collect();
            let mut idle = Idle::new(IdleKind::Adaptive);
            let (_, asleep) = second(&mut idle, &events);
            assert!(asleep < allowed, "{asleep} of the events each {interval} ns found it asleep");
        }
        // At random moments some of them find it asleep, but few.
        let mut prng = Prng::new(3);
        let mut random: Vec<u64> = (0..1_000).map(|_| prng.below(Nanos::SECOND)).collect();
        random.sort_unstable();
        let (_, asleep) = second(&mut Idle::new(IdleKind::Adaptive), &random);
        assert!(asleep < 350, "{asleep} of 1,000 at random found it asleep");
        let mut idle = Idle::new(IdleKind::Adaptive);
        for n in 0..20 {
            assert_eq!(idle.idle(1, NONE, Nanos(n * MS)), IdleAction::Continue);
        }
        let last = 19 * MS;
        assert_eq!(idle.idle(0, NONE, Nanos(last + MS)), IdleAction::Yield);
        idle.set_shared_cpu(false);
        assert_eq!(idle.idle(0, NONE, Nanos(last + 2 * MS - 1)), IdleAction::Spin);
        assert_eq!(idle.idle(0, NONE, Nanos(last + 2 * MS)), IdleAction::Park { until: None });
    }

    #[test]
    fn a_burst_is_traffic_at_once() {
        let mut idle = Idle::new(IdleKind::Adaptive);
        for n in 0..u64::from(HEAVY_CYCLES) {
            idle.idle(1, NONE, Nanos(n * 30 * US));
        }
        assert_eq!(idle.idle(0, NONE, Nanos(MS + 500 * US)), IdleAction::Yield);
    }

    #[test]
    fn no_sleep_comes_near_a_sharp_deadline() {
        for kind in [IdleKind::Park, IdleKind::Adaptive, IdleKind::Backoff] {
            let mut idle = Idle::new(kind);
            idle.rounds = 1_000;
            let now = Nanos(10 * MS);
            let sharp = |at| Deadlines { sharp: Some(Nanos(at)), soft: Some(Nanos(Nanos::SECOND)) };
            assert_eq!(idle.idle(0, sharp(11 * MS), now), IdleAction::Yield);
            assert_eq!(idle.idle(0, sharp(12 * MS), now), IdleAction::Yield);
            let IdleAction::Park { until: Some(until) } = idle.idle(0, sharp(15 * MS), now) else {
                panic!("{kind:?} may sleep for 3 ms")
            };
            assert!(until <= Nanos(13 * MS));
        }
    }

    #[test]
    fn soft_deadlines_end_a_sleep_and_near_ones_prevent_it() {
        let mut idle = Idle::new(IdleKind::Park);
        let until = Some(Nanos(10 * MS));
        assert_eq!(idle.idle(0, soft(10 * MS), Nanos(MS)), IdleAction::Park { until });
        assert_eq!(idle.idle(0, soft(10 * MS), Nanos(10 * MS - 10 * US)), IdleAction::Yield);
        assert_eq!(idle.idle(0, soft(10 * MS), Nanos(11 * MS)), IdleAction::Yield);
    }

    #[test]
    fn backoff_goes_through_its_steps_and_starts_over_with_work() {
        let mut idle = Idle::new(IdleKind::Backoff);
        let mut now = 0;
        let mut steps = Vec::new();
        for _ in 0..220 {
            now += US;
            let step = match idle.idle(0, NONE, Nanos(now)) {
                IdleAction::Park { until } => {
                    let slept = until.unwrap().since(Nanos(now));
                    now += slept;
                    slept
                }
                IdleAction::Spin => 0,
                IdleAction::Yield => 1,
                IdleAction::Continue => panic!("there was no work"),
            };
            if steps.last() != Some(&step) {
                steps.push(step);
            }
        }
        assert_eq!(steps, [0, 1, 50_000, 100_000, 200_000, 400_000, 800_000, 1_600_000, 2_000_000]);
        assert_eq!(idle.idle(1, NONE, Nanos(now)), IdleAction::Continue);
        assert_eq!(idle.idle(0, NONE, Nanos(now)), IdleAction::Spin);
    }

    #[test]
    fn spin_and_yield_never_sleep() {
        let (mut spin, mut gives) = (Idle::new(IdleKind::Spin), Idle::new(IdleKind::Yield));
        for n in 0..100 {
            assert_eq!(spin.idle(0, NONE, Nanos(n * Nanos::SECOND)), IdleAction::Spin);
            assert_eq!(gives.idle(0, NONE, Nanos(n * Nanos::SECOND)), IdleAction::Yield);
        }
    }
}

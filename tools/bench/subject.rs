//! What can be measured: something that takes a numbered send and gives the number back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::failure::Failure;
use crate::load::{Load, Outcome};

/// What became of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sent {
    /// It is on its way.
    Yes,
    /// Not now: try again.
    Refused,
}

/// One thing under load. A subject is idle, and takes no CPU to speak of, outside `begin`..`end`.
pub(crate) trait Subject {
    /// Its name in reports.
    fn name(&self) -> &'static str;
    /// Brings it up for one round.
    fn begin(&mut self) -> Result<(), Failure>;
    /// Sends what carries `number`.
    fn try_send(&mut self, number: u64) -> Result<Sent, Failure>;
    /// Hands over the numbers that came back; how many those were.
    fn poll(&mut self, answered: &mut dyn FnMut(u64)) -> Result<usize, Failure>;
    /// Waits a little, the way this subject's processes wait: nothing came back and nothing is due.
    fn idle(&mut self);
    /// After a failure: says what is behind it, if that can be known.
    ///
    /// # Errors
    /// What is behind it.
    fn explain(&mut self) -> Result<(), Failure> {
        Ok(())
    }
    /// Puts it to rest until the next round.
    fn end(&mut self);
}

/// Runs one round: `load` decides when, `clock` tells the time, `stop` ends it early.
pub(crate) fn drive(
    subject: &mut dyn Subject,
    mut load: Load,
    clock: Clock,
    stop: &AtomicBool,
) -> Result<Outcome, Failure> {
    let mut cycles = 0_u32;
    loop {
        let now_ns = clock.now_ns();
        cycles = cycles.wrapping_add(1);
        if cycles.is_multiple_of(256) {
            load.expire(now_ns);
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
        }
        let mut worked = false;
        if let Some(number) = load.next(now_ns) {
            let sent_ns = clock.now_ns();
            match subject.try_send(number)? {
                Sent::Yes => {
                    load.sent(sent_ns);
                    worked = true;
                }
                Sent::Refused => load.refused(),
            }
        }
        worked |= subject.poll(&mut |number| load.answered(number, clock.now_ns()))? > 0;
        if worked {
            continue;
        }
        if load.is_over(now_ns) {
            return Ok(load.finish());
        }
        subject.idle();
    }
}

/// Monotonic nanoseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
    /// Now.
    pub(crate) fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

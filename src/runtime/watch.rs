//! Watches the core thread's run queue: an idle strategy that spins must know whether others want its CPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::io::cpu::{Contention, RunQueue, ThreadNumber};
use crate::types::Nanos;

/// How often the core thread's run queue is looked at, ns.
const CONTENTION_NS: u64 = 100 * Nanos::MILLISECOND;

/// Tells the core whether others want its CPU.
#[derive(Debug)]
pub(super) struct Watch {
    number: Arc<AtomicU32>,
    shared_cpu: Arc<AtomicBool>,
    queue: Option<RunQueue>,
    contention: Contention,
    due: Nanos,
}

impl Watch {
    /// Of the thread that will store its number there.
    pub(super) fn new(number: Arc<AtomicU32>, shared_cpu: Arc<AtomicBool>) -> Self {
        let contention = Contention::default();
        Self { number, shared_cpu, queue: None, contention, due: Nanos(0) }
    }

    /// Looks, now and then.
    pub(super) fn look(&mut self, now: Nanos) {
        if now < self.due {
            return;
        }
        self.due = now.plus(CONTENTION_NS);
        let number = self.number.load(Ordering::Acquire);
        if self.queue.is_none() && number != 0 {
            self.queue = RunQueue::open(ThreadNumber(number.cast_signed())).ok();
        }
        // Where the host does not tell, a CPU counts as shared.
        if let Some(times) = self.queue.as_ref().and_then(RunQueue::read) {
            self.shared_cpu.store(self.contention.sample(now, times), Ordering::Relaxed);
        }
    }
}

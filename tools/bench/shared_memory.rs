//! The mood of the machine: how long a word takes from one CPU to another and back. Printed beside every latency run,
//! because on virtual machines it differs by factors from one run to the next, and with it everything else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate::io::cpu::pin_thread;

use crate::distribution::Distribution;

/// Round trips at most.
const ROUND_TRIPS: u64 = 200_000;
/// Time at most: two threads on one CPU take a scheduler's slice per message.
const TIME_MAX: Duration = Duration::from_millis(200);

/// A cache line of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// Round trips between this thread and one on `other_cpu` (anywhere, if none).
pub(crate) fn round_trips(other_cpu: Option<usize>) -> Distribution {
    let (there, back) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
    let stop = AtomicBool::new(false);
    let mut distribution = Distribution::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Not granted: then anywhere, which is slower and shows.
            let _ = other_cpu.map(pin_thread);
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let word = there.0.load(Ordering::Acquire);
                if word != seen {
                    seen = word;
                    back.0.store(word, Ordering::Release);
                }
                std::hint::spin_loop();
            }
        });
        let end = Instant::now() + TIME_MAX;
        for word in 1..=ROUND_TRIPS {
            let begin = Instant::now();
            if begin >= end {
                break;
            }
            there.0.store(word, Ordering::Release);
            while back.0.load(Ordering::Acquire) != word {
                std::hint::spin_loop();
            }
            // The first ones wait for the thread to start.
            if word > 1_000 {
                let ns = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
                distribution.record_ns(ns);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    distribution
}

//! Where a thread runs, and how: CPU, scheduling class, locked memory, name; and how long it waits for its CPU.
//!
//! All of it is a wish: what the host does not grant is a [`Refused`], of which the caller makes one warning.
#![allow(unsafe_code)]

use core::fmt;
use core::mem::{size_of, zeroed};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use crate::types::Nanos;

/// Something the host did not grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// What was asked for.
    pub what: String,
    /// The host's reason.
    pub why: String,
}

impl Refused {
    pub(crate) fn host(what: impl Into<String>, error: &io::Error) -> Self {
        Self { what: what.into(), why: error.to_string() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not granted: {}", self.what, self.why)
    }
}

/// The host's number of a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThreadNumber(pub i32);

/// The calling thread's number.
#[must_use]
pub fn this_thread() -> ThreadNumber {
    // SAFETY: takes nothing, cannot fail.
    ThreadNumber(unsafe { libc::gettid() })
}

/// The CPUs that the calling thread may use, in order.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a plain bit set, for which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: the pointer and the length are those of a live set, to which the host may write.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: the number is below the size of the set.
    (0..CPUS_MAX).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// CPUs that a set has room for.
const CPUS_MAX: usize = libc::CPU_SETSIZE as usize;

/// Keeps the calling thread on `cpu`.
///
/// # Errors
/// There is no such CPU, or this process may not use it.
pub fn pin_thread(cpu: usize) -> Result<(), Refused> {
    let what = || format!("running on CPU {cpu}");
    if cpu >= CPUS_MAX {
        return Err(Refused { what: what(), why: format!("CPUs are 0 to {}", CPUS_MAX - 1) });
    }
    // SAFETY: a plain bit set, for which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: the number is below the size of the set, as just checked.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer and the length are those of a live set; the host only reads it.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let allowed = allowed_cpus();
    Err(Refused { what: what(), why: format!("{error}; it may use {allowed:?}") })
}

/// Keeps all memory of the process in RAM, now and later.
///
/// # Errors
/// The limit of locked memory is finite and the process has not the privilege to pass it. Then nothing is locked at all:
/// with later memory locked too, the limit would make allocations fail at the worst moment.
pub fn lock_memory() -> Result<(), Refused> {
    let what = "locking memory";
    let limit = raise_lock_limit();
    if limit != libc::RLIM_INFINITY && !has_capability(CAPABILITY_IPC_LOCK) {
        let why = format!("the limit of locked memory (ulimit -l) is {limit} bytes, not unlimited");
        return Err(Refused { what: what.into(), why });
    }
    // SAFETY: takes flags only.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } == 0 {
        return Ok(());
    }
    Err(Refused::host(what, &io::Error::last_os_error()))
}

/// Runs the calling thread before all normal ones, at `priority` 1 (lowest) to 99. A thread that never sleeps then keeps its
/// CPU from everything else: give it one of its own. Threads it starts are normal again.
///
/// # Errors
/// The host does not allow it.
pub fn schedule_fifo(priority: u8) -> Result<(), Refused> {
    // SAFETY: a plain C structure of integers, for which zeros are a value.
    let mut parameters: libc::sched_param = unsafe { zeroed() };
    parameters.sched_priority = i32::from(priority);
    let class = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is to a live structure; the host only reads it.
    if unsafe { libc::sched_setscheduler(0, class, &raw const parameters) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(Refused::host(format!("scheduling class fifo at priority {priority}"), &error))
}

/// Lets others go before the calling thread: 1 a little, 19 whenever they want.
///
/// # Errors
/// [`Refused`].
pub fn be_nice(niceness: i32) -> Result<(), Refused> {
    // On Linux a "process" of this call is a thread, and 0 the calling one.
    // SAFETY: takes numbers only.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) } == 0 {
        return Ok(());
    }
    Err(Refused::host(format!("niceness {niceness}"), &io::Error::last_os_error()))
}

/// Gives the calling thread a name for the host's tools; what is beyond 15 bytes is cut off.
///
/// # Errors
/// The host does not take it.
pub fn name_thread(name: &str) -> Result<(), Refused> {
    let mut text = [0_u8; 16];
    let bytes = name.bytes().take_while(|&byte| byte != 0);
    for (place, byte) in text[..15].iter_mut().zip(bytes) {
        *place = byte;
    }
    // SAFETY: the text ends with a zero byte and is only read.
    if unsafe { libc::prctl(libc::PR_SET_NAME, text.as_ptr()) } == 0 {
        return Ok(());
    }
    Err(Refused::host(format!("thread name {name}"), &io::Error::last_os_error()))
}

/// How long a thread has run, and has been ready and waited for a CPU, in total.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunTimes {
    /// Nanoseconds on a CPU.
    pub ran_ns: u64,
    /// Nanoseconds in the run queue.
    pub waited_ns: u64,
}

/// Reads the run times of one thread of this process, from any other.
#[derive(Debug)]
pub struct RunQueue(File);

impl RunQueue {
    /// Opens the host's record of the thread.
    ///
    /// # Errors
    /// No such thread, or the host keeps none.
    pub fn open(thread: ThreadNumber) -> Result<Self, Refused> {
        let path = format!("/proc/self/task/{}/schedstat", thread.0);
        File::open(&path).map(Self).map_err(|error| Refused::host(path, &error))
    }

    /// The times so far; `None` when the thread has ended.
    #[must_use]
    pub fn read(&self) -> Option<RunTimes> {
        let mut text = [0_u8; 96];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let mut numbers = core::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace();
        let mut next = || numbers.next()?.parse().ok();
        Some(RunTimes { ran_ns: next()?, waited_ns: next()? })
    }
}

/// Judges from the waiting times whether a thread shares its CPU.
///
/// Quick to say yes, slow to say no: a thread that spins on a CPU that others want makes everybody wait a time slice, while one
/// that yields on a CPU of its own loses a fraction of a microsecond.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contention {
    shared: bool,
    last: Option<(Nanos, u64)>,
    calm: u32,
}

/// Share of the time waited from which on the CPU is shared, and below which a sample is calm, in thousandths.
const SHARED_PER_MILLE: u64 = 10;
const CALM_PER_MILLE: u64 = 2;
/// Calm samples in a row after which the CPU counts as the thread's own.
const CALM_SAMPLES: u32 = 10;

impl Default for Contention {
    /// Shared, until shown otherwise.
    fn default() -> Self {
        Self { shared: true, last: None, calm: 0 }
    }
}

impl Contention {
    /// Takes a sample (every 100 ms or so) and judges.
    pub fn sample(&mut self, now: Nanos, times: RunTimes) -> bool {
        if let Some((before, waited)) = self.last.replace((now, times.waited_ns)) {
            let passed = now.since(before).max(1);
            let per_mille = times.waited_ns.saturating_sub(waited).saturating_mul(1000) / passed;
            if per_mille >= SHARED_PER_MILLE {
                self.shared = true;
                self.calm = 0;
            } else if per_mille >= CALM_PER_MILLE {
                self.calm = 0;
            } else {
                self.calm = (self.calm + 1).min(CALM_SAMPLES);
                self.shared &= self.calm < CALM_SAMPLES;
            }
        }
        self.shared
    }
}

/// `CAP_IPC_LOCK` (`linux/capability.h`).
const CAPABILITY_IPC_LOCK: u32 = 14;

fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_some_and(|set| set >> number & 1 == 1)
}

/// Raises the limit of locked memory as far as this process may, and returns it.
fn raise_lock_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live structure, to which the host may write.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return 0;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the pointer is to a live structure; the host only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const raised) } == 0 {
        raised.rlim_cur
    } else {
        limit.rlim_cur
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_thread_is_pinned_where_it_may_run_and_told_where_it_may_not() {
        thread::spawn(|| {
            let allowed = allowed_cpus();
            let cpu = *allowed.last().unwrap();
            pin_thread(cpu).unwrap();
            assert_eq!(allowed_cpus(), [cpu]);
            let refused = pin_thread(CPUS_MAX - 1).unwrap_err();
            assert!(refused.why.contains(&format!("[{cpu}]")), "{refused}");
            assert!(pin_thread(usize::MAX).is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn names_reach_the_host() {
        thread::spawn(|| {
            name_thread("a name of more than 15").unwrap();
            let path = format!("/proc/self/task/{}/comm", this_thread().0);
            assert_eq!(fs::read_to_string(path).unwrap(), "a name of more \n");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn fifo_is_granted_or_refused_by_name() {
        thread::spawn(|| {
            assert!(schedule_fifo(100).unwrap_err().what.contains("priority 100"));
            match schedule_fifo(1) {
                Ok(()) => {
                    // SAFETY: takes a number only.
                    let class = unsafe { libc::sched_getscheduler(0) };
                    assert_eq!(class & !libc::SCHED_RESET_ON_FORK, libc::SCHED_FIFO);
                }
                Err(refused) => println!("SKIPPED: {refused}"),
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn memory_is_locked_or_refused_whole() {
        let locked = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        match lock_memory() {
            Ok(()) => {
                assert!(locked() > 0);
                // SAFETY: takes nothing.
                assert_eq!(unsafe { libc::munlockall() }, 0);
            }
            Err(refused) => {
                println!("SKIPPED: {refused}");
                assert_eq!(locked(), 0);
            }
        }
    }

    #[test]
    fn run_times_of_another_thread_grow() {
        let (send, receive) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let other = thread::spawn(move || {
            send.send(this_thread()).unwrap();
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {}
        });
        let queue = RunQueue::open(receive.recv().unwrap()).unwrap();
        let first = queue.read().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while queue.read().unwrap().ran_ns == first.ran_ns {
            assert!(std::time::Instant::now() < end, "a thread that spins does not run");
        }
        drop(stop);
        other.join().unwrap();
        assert!(RunQueue::open(ThreadNumber(-1)).is_err());
    }

    #[test]
    fn contention_is_seen_at_once_and_forgotten_slowly() {
        let mut contention = Contention::default();
        let mut waited_ns = 0;
        let mut now = Nanos(0);
        let mut sample = |waits: u64| {
            waited_ns += waits;
            now = now.plus(100 * Nanos::MILLISECOND);
            contention.sample(now, RunTimes { ran_ns: 0, waited_ns })
        };
        assert!(sample(0), "shared until shown otherwise");
        let judged: Vec<_> = (0..11).map(|_| sample(0)).collect();
        assert_eq!(judged.iter().filter(|shared| **shared).count(), 9);
        assert!(!sample(500_000), "half a per cent changes nothing");
        assert!(sample(2_000_000), "two per cent do");
        assert!(sample(0));
    }
}

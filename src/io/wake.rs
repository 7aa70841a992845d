//! Sleeping until something happens, and being woken, without a lost wake-up and without a system call when nobody sleeps.
//!
//! A thread that goes to sleep raises its flag, then looks at its mailboxes once more, then sleeps. A thread that leaves mail
//! looks at the flag afterwards. With a sequentially consistent fence between the two steps on both sides, at least one of
//! them sees what the other did: the mail is found, or the sleeper is woken.
#![allow(unsafe_code)]

use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicBool, Ordering, fence};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use crate::types::Nanos;

/// Descriptors that a thread can wait for besides its own bell.
pub const WAITS_MAX: usize = 7;

/// The sleeping side; one thread has it.
#[derive(Debug)]
pub struct Parker(Arc<Bell>);

/// The waking side; any number of threads.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    event: OwnedFd,
    parked: AtomicBool,
}

/// Why a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woke {
    /// It did not begin: mail was there.
    Mail,
    /// A [`Waker`].
    Bell,
    /// One of the descriptors has something.
    Descriptor,
    /// Time passed, or a signal came.
    Timeout,
}

/// A sleeper and its waker.
///
/// # Errors
/// The host has no descriptor left.
pub fn parking() -> io::Result<(Parker, Waker)> {
    // SAFETY: takes numbers only.
    let event = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    let event = unsafe { OwnedFd::from_raw_fd(event) };
    let bell = Arc::new(Bell { event, parked: AtomicBool::new(false) });
    Ok((Parker(Arc::clone(&bell)), Waker(bell)))
}

impl Waker {
    /// Wakes the sleeper, if it sleeps. To be called after the mail was left.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.0.parked.load(Ordering::Relaxed) && self.0.parked.swap(false, Ordering::SeqCst) {
            let one = 1_u64.to_ne_bytes();
            // SAFETY: the pointer and the length are those of a live value; the host only reads it. Nothing can be done
            // about an answer, and none is possible but "full", which wakes too.
            unsafe { libc::write(self.0.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }
}

impl crate::link::Wake for Waker {
    fn wake(&self) {
        Self::wake(self);
    }
}

impl Parker {
    /// Sleeps until woken, until one of `descriptors` has something, or for `timeout_ns`. Does not sleep when `mail` says,
    /// after the flag is up, that something waits.
    pub fn park<'a>(
        &self,
        descriptors: impl Iterator<Item = BorrowedFd<'a>>,
        timeout_ns: Option<u64>,
        mail: impl FnOnce() -> bool,
    ) -> Woke {
        self.prepare();
        if mail() {
            self.finish();
            return Woke::Mail;
        }
        self.sleep(descriptors, timeout_ns)
    }

    /// Sleeps as [`Parker::park`], for a thread that has called [`Parker::prepare`] and looked for mail itself.
    pub fn sleep<'a>(
        &self,
        descriptors: impl Iterator<Item = BorrowedFd<'a>>,
        timeout_ns: Option<u64>,
    ) -> Woke {
        let nothing = libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 };
        let mut waits = [nothing; 1 + WAITS_MAX];
        waits[0].fd = self.0.event.as_raw_fd();
        let mut count = 1;
        for descriptor in descriptors {
            waits[count].fd = descriptor.as_raw_fd();
            count += 1;
        }
        poll(&mut waits[..count], timeout_ns);
        let rung = waits[0].revents != 0;
        self.finish();
        if rung {
            Woke::Bell
        } else if waits[1..count].iter().any(|wait| wait.revents != 0) {
            Woke::Descriptor
        } else {
            Woke::Timeout
        }
    }

    /// First step for a thread that sleeps by other means (with [`Parker`]'s descriptor among what it waits for): raises the
    /// flag. Then look for mail, sleep if there is none, and call [`Parker::finish`] in any case.
    pub fn prepare(&self) {
        self.0.parked.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Last step: takes the flag down and the bell's ringing away.
    pub fn finish(&self) {
        if self.0.parked.swap(false, Ordering::SeqCst) {
            return; // nobody rang
        }
        let mut count = [0_u8; 8];
        // SAFETY: the pointer and the length are those of a live place, to which the host may write. An answer of "nothing
        // there yet" only means that the ringing ends the next sleep at once.
        unsafe { libc::read(self.0.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for Parker {
    /// Readable when a waker rang.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

/// A waker for a thread that writes much: wakes at most once per interval, and keeps what it held back.
#[derive(Debug)]
pub struct PacedWaker {
    waker: Waker,
    interval_ns: u64,
    next: Nanos,
    owed: bool,
}

impl PacedWaker {
    /// At most one wake per `interval_ns`.
    #[must_use]
    pub fn new(waker: Waker, interval_ns: u64) -> Self {
        Self { waker, interval_ns, next: Nanos(0), owed: false }
    }

    /// Wakes now, or when the interval ends.
    pub fn wake(&mut self, now: Nanos) {
        self.owed = true;
        self.tick(now);
    }

    /// Sends what was held back, when it is time. Once per duty cycle.
    pub fn tick(&mut self, now: Nanos) {
        if self.owed && now >= self.next {
            self.owed = false;
            self.next = now.plus(self.interval_ns);
            self.waker.wake();
        }
    }

    /// When a wake that is held back is due: a soft deadline for whoever parks.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.owed.then_some(self.next)
    }
}

/// Waits; what the host answers is in the events.
fn poll(waits: &mut [libc::pollfd], timeout_ns: Option<u64>) {
    let time = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / Nanos::SECOND).cast_signed(),
        tv_nsec: (ns % Nanos::SECOND).cast_signed(),
    });
    let time = time.as_ref().map_or(null(), core::ptr::from_ref);
    // SAFETY: the pointers and the length are those of live places; the host writes the events only.
    let answer = unsafe { libc::ppoll(waits.as_mut_ptr(), waits.len() as u64, time, null_mut()) };
    if answer < 0 {
        // A signal, or no memory: awake, with nothing to show.
        for wait in waits {
            wait.revents = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::iter::empty;
    use core::sync::atomic::AtomicU64;
    use std::net::UdpSocket;
    use std::thread;
    use std::time::{Duration, Instant};

    const SECOND: Option<u64> = Some(Nanos::SECOND);

    #[test]
    fn mail_bell_descriptor_and_time_each_end_a_sleep() {
        let (parker, waker) = parking().unwrap();
        assert_eq!(parker.park(empty(), SECOND, || true), Woke::Mail);
        let start = Instant::now();
        assert_eq!(parker.park(empty(), Some(3_000_000), || false), Woke::Timeout);
        assert!(start.elapsed() >= Duration::from_millis(3));
        let rings = || {
            waker.wake();
            waker.wake();
            false
        };
        assert_eq!(parker.park(empty(), SECOND, rings), Woke::Bell);
        assert_eq!(parker.park(empty(), Some(1), || false), Woke::Timeout, "one ring, one wake");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        let woke = parker.park(core::iter::once(socket.as_fd()), SECOND, || false);
        assert_eq!(woke, Woke::Descriptor);
    }

    #[test]
    fn a_waker_does_nothing_while_nobody_sleeps() {
        let (parker, waker) = parking().unwrap();
        waker.wake();
        assert_eq!(parker.park(empty(), Some(1), || false), Woke::Timeout);
    }

    #[test]
    fn no_wake_up_is_lost() {
        let (parker, waker) = parking().unwrap();
        let mail = Arc::new(AtomicU64::new(0));
        let letters = 20_000;
        let sender = {
            let mail = Arc::clone(&mail);
            thread::spawn(move || {
                for n in 1..=letters {
                    // Each letter waits for the last to be taken, so that a lost wake-up stops everything.
                    while mail.load(Ordering::Acquire) != 0 {
                        thread::yield_now();
                    }
                    mail.store(n, Ordering::Release);
                    waker.wake();
                }
            })
        };
        let mut taken = 0;
        while taken < letters {
            match mail.swap(0, Ordering::AcqRel) {
                0 => {
                    let woke = parker.park(empty(), Some(5 * Nanos::SECOND), || {
                        mail.load(Ordering::Acquire) != 0
                    });
                    assert_ne!(woke, Woke::Timeout, "slept through letter {}", taken + 1);
                }
                n => taken = n,
            }
        }
        sender.join().unwrap();
    }

    #[test]
    fn a_paced_waker_holds_back_and_owes() {
        let (parker, waker) = parking().unwrap();
        let mut paced = PacedWaker::new(waker, 100);
        let mut rings = |now, wake| {
            parker.prepare();
            if wake {
                paced.wake(Nanos(now));
            } else {
                paced.tick(Nanos(now));
            }
            let rang = !parker.0.parked.load(Ordering::SeqCst);
            parker.finish();
            (rang, paced.next_deadline())
        };
        assert_eq!(rings(1_000, true), (true, None));
        assert_eq!(rings(1_050, true), (false, Some(Nanos(1_100))));
        assert_eq!(rings(1_099, false), (false, Some(Nanos(1_100))));
        assert_eq!(rings(1_100, false), (true, None));
        assert_eq!(rings(1_300, false), (false, None));
    }
}

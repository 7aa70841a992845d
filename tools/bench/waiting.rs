//! What a process does while nothing arrives. On shared cores this decides the result more than the code does.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// Silence after which [`Waiting::YieldPoll`] parks.
const PARK_AFTER: Duration = Duration::from_millis(2);
/// Longest time parked at once.
const PARK_MAX: Duration = Duration::from_millis(100);

/// The ways to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Waiting {
    /// `sched_yield` for ever.
    Yield,
    /// `sched_yield`; after 2 ms of silence, sleep in the kernel until a datagram comes.
    YieldPoll,
    /// Keep the CPU.
    Spin,
}

impl Waiting {
    /// Its name on the command line and in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Yield => "yield",
            Self::YieldPoll => "yield-poll",
            Self::Spin => "spin",
        }
    }
}

/// A [`Waiting`] at work on one socket.
pub(crate) struct Waiter {
    waiting: Waiting,
    silent_since: Option<Instant>,
    park: Option<(Poll, Events)>,
}

impl Waiter {
    /// Waits for `socket`, which is non-blocking and read until it is empty before each [`Waiter::idle`].
    pub(crate) fn new(waiting: Waiting, socket: &impl AsRawFd) -> io::Result<Self> {
        let park = match waiting {
            Waiting::YieldPoll => Some(register(socket.as_raw_fd())?),
            Waiting::Yield | Waiting::Spin => None,
        };
        Ok(Self { waiting, silent_since: None, park })
    }

    /// Something arrived.
    pub(crate) fn busy(&mut self) {
        self.silent_since = None;
    }

    /// Nothing arrived: waits a little.
    pub(crate) fn idle(&mut self) -> io::Result<()> {
        match (self.waiting, &mut self.park) {
            (Waiting::Spin, _) => std::hint::spin_loop(),
            (Waiting::YieldPoll, Some((poll, events))) => {
                let since = *self.silent_since.get_or_insert_with(Instant::now);
                if since.elapsed() < PARK_AFTER {
                    std::thread::yield_now();
                } else if let Err(error) = poll.poll(events, Some(PARK_MAX))
                    && error.kind() != io::ErrorKind::Interrupted
                {
                    return Err(error);
                }
            }
            (Waiting::Yield | Waiting::YieldPoll, _) => std::thread::yield_now(),
        }
        Ok(())
    }
}

fn register(socket: RawFd) -> io::Result<(Poll, Events)> {
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&socket), Token(0), Interest::READABLE)?;
    Ok((poll, Events::with_capacity(4)))
}

//! Checks of a [`ControlNetwork`]: whole messages or none, from whom they say, to whom they were sent.
//!
//! Loss, repetition and disorder are allowed: what does not arrive is sent again, as control threads do.

use core::fmt;
use core::net::SocketAddr;

use crate::runtime::environment::ControlNetwork;

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Messages that arrived where they should.
    pub messages: usize,
    /// Messages that nobody took and that were dropped, as they must be.
    pub dropped: usize,
}

/// What a network broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// A message did not arrive, though it was sent many times.
    Lost {
        /// By whom it was sent, in the order of the ends.
        from: usize,
        /// Who should have it.
        to: usize,
        /// Its bytes.
        length: usize,
    },
    /// A message arrived that nobody has sent there so, or whose address is not its sender's.
    Altered {
        /// Where.
        at: usize,
    },
    /// There are always more messages, though nobody sends any.
    Endless {
        /// Where.
        at: usize,
    },
    /// Everything that nobody took was kept: memory has no bound.
    Unbounded,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { from, to, length } => {
                write!(f, "{length} bytes from control {from} never arrived at control {to}")
            }
            Self::Altered { at } => {
                write!(f, "control {at} got a message that nobody has sent there so")
            }
            Self::Endless { at } => write!(f, "there is no end to what arrives at control {at}"),
            Self::Unbounded => {
                write!(f, "messages to a control thread that takes none are all kept")
            }
        }
    }
}

impl core::error::Error for Failure {}

/// Lengths of messages, bytes; those of this version have 64.
const LENGTHS: [usize; 4] = [1, 64, 65, 512];
/// Times that a message is sent, and rounds of looking for it after each.
const SENDS_MAX: usize = 10;
const ROUNDS_MAX: usize = 100;
/// Messages to somebody who takes none, and their length, bytes.
const FLOOD: usize = 100_000;
const FLOOD_BYTES: usize = 512;
/// Bytes that a receiver has room for.
const BUFFER_BYTES: usize = 2048;

/// Checks networks that reach each other, each with its address, two at least. `wait` is called when nothing has arrived
/// yet: it sleeps for about a millisecond where that helps.
///
/// # Errors
/// The first [`Failure`].
pub fn check<C: ControlNetwork>(
    ends: Vec<(SocketAddr, C)>,
    wait: impl FnMut(),
) -> Result<Passed, Failure> {
    assert!(ends.len() >= 2, "there is somebody to talk to");
    let mut suite = Suite { ends, wait, sent: Vec::new(), passed: Passed::default() };
    suite.take()?;
    for from in 0..suite.ends.len() {
        for to in (0..suite.ends.len()).filter(|to| *to != from) {
            suite.exchange(from, to)?;
        }
    }
    let mut nobody = suite.ends[0].0;
    nobody.set_port(1);
    suite.ends[0].1.send(nobody, b"nobody");
    suite.exchange(0, 1)?;
    suite.flood()?;
    suite.exchange(0, 1)?;
    suite.exchange(1, 0)?;
    Ok(suite.passed)
}

struct Suite<C, W> {
    ends: Vec<(SocketAddr, C)>,
    wait: W,
    /// By whom, to whom, and what.
    sent: Vec<(usize, usize, Vec<u8>)>,
    passed: Passed,
}

impl<C: ControlNetwork, W: FnMut()> Suite<C, W> {
    fn exchange(&mut self, from: usize, to: usize) -> Result<(), Failure> {
        for length in LENGTHS {
            // Every message is another one, also where there is room for a byte only.
            let number = self.sent.len();
            let bytes = (0..length).map(|at| (at.wrapping_mul(31) ^ number) as u8).collect();
            self.sent.push((from, to, bytes));
            self.arrive(number)?;
            self.passed.messages += 1;
        }
        Ok(())
    }

    fn arrive(&mut self, number: usize) -> Result<(), Failure> {
        let (from, to, bytes) = self.sent[number].clone();
        for _ in 0..SENDS_MAX {
            let target = self.ends[to].0;
            self.ends[from].1.send(target, &bytes);
            for _ in 0..ROUNDS_MAX {
                let taken = self.take()?;
                if taken.contains(&number) {
                    return Ok(());
                }
                if taken.is_empty() {
                    (self.wait)();
                }
            }
        }
        Err(Failure::Lost { from, to, length: bytes.len() })
    }

    /// Takes all that is there; returns the numbers of the messages.
    fn take(&mut self) -> Result<Vec<usize>, Failure> {
        let mut taken = Vec::new();
        let mut buffer = [0; BUFFER_BYTES];
        for at in 0..self.ends.len() {
            let before = taken.len();
            while let Some((length, source)) = self.ends[at].1.receive(&mut buffer) {
                let altered = Failure::Altered { at };
                let found = buffer.get(..length).ok_or(altered)?;
                let known = self.sent.iter().rposition(|(from, to, bytes)| {
                    *to == at && self.ends[*from].0 == source && bytes == found
                });
                taken.push(known.ok_or(altered)?);
                if taken.len() - before > FLOOD {
                    return Err(Failure::Endless { at });
                }
            }
        }
        Ok(taken)
    }

    /// Much is sent to somebody who takes nothing: the sender is not kept waiting, and not everything is kept.
    fn flood(&mut self) -> Result<(), Failure> {
        let number = self.sent.len();
        self.sent.push((0, 1, vec![0xF1; FLOOD_BYTES]));
        let target = self.ends[1].0;
        for _ in 0..FLOOD {
            self.ends[0].1.send(target, &self.sent[number].2);
        }
        let mut kept = 0;
        loop {
            let taken = self.take()?.len();
            if taken == 0 {
                break;
            }
            kept += taken;
        }
        self.passed.dropped = FLOOD.saturating_sub(kept);
        if kept >= FLOOD { Err(Failure::Unbounded) } else { Ok(()) }
    }
}

//! A client at a constant rate, on a thread of its own, that tells how long it went without an answer.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use quorate::client::{ClientState, Outcome, Refusal, Request};
use quorate::runtime::{ConnectOptions, HostClient};
use quorate::types::{ClientSequence, Nanos};

use std::collections::VecDeque;

use crate::failure::Failure;

/// How long a group may take to let a client in, or to answer the last commands.
const PATIENCE_NS: u64 = 30 * Nanos::SECOND;

/// What the client's thread and the one that troubles the group tell each other.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Which trouble the group is in, counted from 1; 0: none.
    trouble: AtomicUsize,
    /// When the last answered command was to be sent, ns.
    answered_ns: AtomicU64,
    /// The run is over.
    over: AtomicBool,
    /// By trouble: the longest time without an answer, although a command should have been sent, ns.
    gaps_ns: Mutex<Vec<u64>>,
}

impl Watch {
    /// From now on the client's gaps belong to trouble `number`; 0: to none.
    pub(crate) fn set_trouble(&self, number: usize) {
        self.trouble.store(number, Ordering::Release);
    }
    /// When the last command that was answered had been intended, ns.
    pub(crate) fn answered_ns(&self) -> u64 {
        self.answered_ns.load(Ordering::Acquire)
    }
    /// Ends the client.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
    /// The longest gap of each trouble so far, ns.
    pub(crate) fn gaps_ns(&self) -> Vec<u64> {
        self.gaps_ns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn note(&self, gap_ns: u64) {
        let trouble = self.trouble.load(Ordering::Acquire);
        if trouble > 0 {
            let mut gaps = self.gaps_ns.lock().unwrap_or_else(PoisonError::into_inner);
            let length = gaps.len().max(trouble);
            gaps.resize(length, 0);
            gaps[trouble - 1] = gap_ns.max(gaps[trouble - 1]);
        }
    }
}

/// What became of the commands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Sent.
    pub(crate) sent: u64,
    /// Answered by the service.
    pub(crate) answered: u64,
    /// Ended in another way, or not in time.
    pub(crate) failed: u64,
}

/// Sends `rate` commands a second until it is told to end, then waits for the last answers.
pub(crate) fn send(
    options: ConnectOptions,
    rate: u64,
    payload: &[u8],
    watch: &Watch,
) -> Result<Counts, Failure> {
    let failed = |what: String| Failure::Child { verb: "client", what };
    let mut client = HostClient::new(options).map_err(|error| failed(error.to_string()))?;
    client.connect(PATIENCE_NS).map_err(|error| failed(error.to_string()))?;
    let start = client.now();
    let mut waiting: VecDeque<(ClientSequence, Nanos)> = VecDeque::new();
    let (mut counts, mut last) = (Counts::default(), start);
    let mut until = None;
    loop {
        let now = client.now();
        let due = start.plus(u128_share(counts.sent, rate));
        if until.is_none() && watch.over.load(Ordering::Acquire) {
            until = Some(now.plus(PATIENCE_NS));
        }
        match until {
            Some(until) if waiting.is_empty() || now >= until => break,
            None if now >= due => match client.client.send(payload) {
                Ok(number) => {
                    waiting.push_back((number, due));
                    counts.sent += 1;
                    client.client.flush(now);
                    continue;
                }
                Err(refusal @ (Refusal::TooLong { .. } | Refusal::Closed)) => {
                    return Err(failed(refusal.to_string()));
                }
                Err(_) => {}
            },
            _ => {}
        }
        let wait_ns = due.since(now).clamp(1, 100 * Nanos::MICROSECOND);
        client.turn_within(wait_ns, |answer| {
            let Request::Command(number) = answer.request else { return };
            let Some(&(_, intended)) = waiting.front().filter(|(first, _)| *first == number) else {
                return; // answers come in the order of the numbers: this one is counted as failed in the end
            };
            waiting.pop_front();
            if answer.outcome == Outcome::Applied && answer.reply == payload {
                counts.answered += 1;
            }
            watch.note(now.since(intended.max(last)));
            watch.answered_ns.store(intended.0, Ordering::Release);
            last = now;
        });
        if matches!(client.client.state(), ClientState::Closed(_)) {
            return Err(failed("the group closed the session".to_owned()));
        }
    }
    counts.failed = counts.sent - counts.answered;
    client.close(Nanos::SECOND);
    Ok(counts)
}

/// When send number `count` is to be sent, after the start.
fn u128_share(count: u64, rate: u64) -> u64 {
    (u128::from(count) * u128::from(Nanos::SECOND) / u128::from(rate)) as u64
}

//! One question at a time and its answer, for programs that need no more than that.

use core::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use super::Engine;
use crate::client::{Client, ClientState, Outcome, Refusal, Request};
use crate::runtime::environment::{Environment, LiveNetwork};
use crate::runtime::host_client::{ConnectError, HostClient};
use crate::types::{Nanos, Sequence};

/// A session that was not used for so long is not used again, ns: the group may be about to close it.
const STALE_NS: u64 = 5 * Nanos::SECOND;
/// Longest wait for the end of the engine's own session, ns.
const CLOSE_NS: u64 = Nanos::SECOND;

/// A command that was applied, or a query that was answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Executed {
    /// The entry of the log that decided it; 0 for a query.
    pub sequence: Sequence,
    /// The service's reply.
    pub reply: Vec<u8>,
}

/// Why there is no reply.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExecuteError {
    /// No session: nothing was sent.
    Connect(ConnectError),
    /// The client did not take it: nothing was sent.
    Refused(Refusal),
    /// The service or the engine rejected it, without a trace.
    Rejected {
        /// The service's own code, or one of the engine's (from 0xFF00 up).
        code: u16,
        /// The entry of the log that decided so.
        sequence: Sequence,
    },
    /// It was decided, but its reply was no longer kept.
    Forgotten,
    /// Longer than the group takes now, though not when the session began: it took no effect.
    TooLong,
    /// It took effect or not: no answer came in time.
    Unknown,
}

impl fmt::Display for ExecuteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Refused(refusal) => write!(f, "not sent: {refusal}"),
            Self::Rejected { code, sequence } => {
                write!(f, "rejected with code {code} by entry {sequence}")
            }
            Self::Forgotten => write!(f, "decided earlier, the reply is no longer kept"),
            Self::TooLong => write!(f, "longer than the group takes now"),
            Self::Unknown => write!(f, "no answer in time: it may have been applied"),
        }
    }
}

impl std::error::Error for ExecuteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// The engine's own client.
#[derive(Debug)]
pub(super) struct Asker<N> {
    client: HostClient<N>,
    used: Nanos,
}

impl<N: LiveNetwork> Asker<N> {
    /// Ends the session in order.
    pub(super) fn close(mut self) {
        self.client.close(CLOSE_NS);
    }

    fn is_usable(&self) -> bool {
        let stale = self.client.now().since(self.used) >= STALE_NS;
        !stale && !matches!(self.client.client.state(), ClientState::Closed(_))
    }

    /// Sends what `send` sends, as soon as the client takes it.
    fn send(
        &mut self,
        deadline: Nanos,
        mut send: impl FnMut(&mut Client<N>) -> Result<Request, Refusal>,
    ) -> Result<Request, Refusal> {
        loop {
            match send(&mut self.client.client) {
                Ok(request) => return Ok(request),
                Err(refusal @ (Refusal::TooLong { .. } | Refusal::Closed)) => return Err(refusal),
                Err(refusal) if self.client.now() >= deadline => return Err(refusal),
                Err(_) => self.client.turn_within(Nanos::MILLISECOND, |_| {}),
            };
        }
    }

    /// Waits for the answer to `request`.
    fn wait(&mut self, deadline: Nanos, request: Request) -> (Outcome, Executed) {
        let mut found = None;
        loop {
            let mut take = |answer: crate::client::Answer<'_>| {
                if answer.request == request {
                    let (sequence, reply) = (answer.sequence, answer.reply.to_vec());
                    found = Some((answer.outcome, Executed { sequence, reply }));
                }
            };
            let now = self.client.now();
            if now < deadline {
                self.client.turn_within(deadline.since(now).min(Nanos::SECOND), &mut take);
            } else {
                // Ends everything unanswered as unknown, and this with it.
                self.client.client.give_up(&mut take);
            }
            self.used = self.client.now();
            if let Some(found) = found.take() {
                return found;
            }
        }
    }
}

impl<E: Environment> Engine<E> {
    pub(super) fn ask(
        &self,
        timeout: Duration,
        send: impl FnMut(&mut Client<E::Network>) -> Result<Request, Refusal>,
    ) -> Result<Executed, ExecuteError> {
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX / 2);
        let mut slot = self.asker.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: what does not come back whole is made anew for the next question.
        let mut asker = if let Some(asker) = slot.take().filter(Asker::is_usable) {
            asker
        } else {
            let client = self.client_within("engine", timeout_ns);
            let client = client.map_err(ExecuteError::Connect)?;
            let used = client.now();
            Asker { client, used }
        };
        let deadline = asker.client.now().plus(timeout_ns);
        let request = match asker.send(deadline, send) {
            Ok(request) => request,
            Err(refusal) => {
                *slot = Some(asker);
                return Err(ExecuteError::Refused(refusal));
            }
        };
        let (outcome, executed) = asker.wait(deadline, request);
        *slot = Some(asker);
        match outcome {
            Outcome::Applied => Ok(executed),
            Outcome::Rejected { code } => {
                Err(ExecuteError::Rejected { code, sequence: executed.sequence })
            }
            Outcome::Forgotten => Err(ExecuteError::Forgotten),
            Outcome::TooLong => Err(ExecuteError::TooLong),
            Outcome::Unknown => Err(ExecuteError::Unknown),
        }
    }
}

//! A reader on a host: the polling [`Reader`] with a socket, a clock, and something to do while it waits.

use core::fmt;
use core::net::SocketAddr;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::environment::{Host, LiveNetwork, Transport};
use super::host_client::{ConnectError, ConnectOptions};
use super::idle::{Deadlines, Idler};
use crate::client::{Demand, Lag, ReadOutcome, ReadRefusal, Reader, Reading};
use crate::io::clock::HostClock;
use crate::io::udp::UdpNetwork;
use crate::io::wake::parking;
use crate::types::{Nanos, NodeId};

/// A reader with a network of its own and a clock.
#[derive(Debug)]
pub struct HostReader<N = UdpNetwork> {
    /// The reader itself: `ask` with addresses, many at once.
    pub reader: Reader<N>,
    members: Vec<(NodeId, SocketAddr)>,
    idler: Idler,
    clock: HostClock,
}

/// An answer of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// How far the state is that it is of, and how old it may be.
    pub lag: Lag,
    /// The service's reply.
    pub reply: Vec<u8>,
}

/// Why there is none.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no reader.
    Connect(ConnectError),
    /// No such node is on the list.
    UnknownNode {
        /// As given.
        node: NodeId,
    },
    /// The reader did not take it: nothing was sent.
    Refused(ReadRefusal),
    /// The node refused it, or said nothing; and where it is, if it said that.
    Unanswered(ReadOutcome, Option<Lag>),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::UnknownNode { node } => write!(f, "node {node} is not on the member list"),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Unanswered(outcome, _) => outcome.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

impl HostReader {
    /// A reader of the group that these options name.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new(options: &ConnectOptions) -> Result<Self, ConnectError> {
        Self::new_in(&Host, options)
    }
}

impl<N: LiveNetwork> HostReader<N> {
    /// As [`HostReader::new`], over a transport of one's own.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new_in(
        transport: &impl Transport<Network = N>,
        options: &ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let (parker, waker) = parking().map_err(ConnectError::Host)?;
        let network = transport.client(options, Arc::new(waker))?;
        let seed = RandomState::new().hash_one(std::process::id());
        let reader = Reader::new(options.group, seed, network);
        let idler = Idler::new(options.idle, parker, Arc::new(AtomicBool::new(true)));
        Ok(Self { reader, members: options.members.clone(), idler, clock: HostClock })
    }

    /// Asks one node, and waits for its answer.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn ask(
        &mut self,
        node: NodeId,
        question: &[u8],
        demand: Demand,
    ) -> Result<Read, ReadError> {
        let found = self.members.iter().find(|(member, _)| *member == node);
        let Some(&(_, address)) = found else { return Err(ReadError::UnknownNode { node }) };
        let asked = self.reader.ask(self.clock.now(), address, question, demand);
        let number = asked.map_err(ReadError::Refused)?;
        let mut end = None;
        while end.is_none() {
            self.turn(|reading| {
                if reading.number == number {
                    end = Some((reading.outcome, reading.lag, reading.reply.to_vec()));
                }
            });
        }
        match end {
            Some((ReadOutcome::Answered, Some(lag), reply)) => Ok(Read { lag, reply }),
            Some((outcome, lag, _)) => Err(ReadError::Unanswered(outcome, lag)),
            None => Err(ReadError::Unanswered(ReadOutcome::Silent, None)),
        }
    }

    /// Polls once, and idles if nothing happened, until something arrives or is due.
    pub fn turn(&mut self, handler: impl FnMut(Reading<'_>)) -> usize {
        let work = self.reader.poll(self.clock.now(), handler);
        let now = self.clock.now();
        let network = self.reader.network();
        let soft = network.next_release().unwrap_or(Nanos(u64::MAX));
        let soft = soft.min(now.plus(100 * Nanos::MILLISECOND));
        let deadlines = Deadlines { sharp: Some(self.reader.deadline()), soft: Some(soft) };
        self.idler.idle(work, deadlines, now, network.descriptors(), || network.waits());
        work
    }
}

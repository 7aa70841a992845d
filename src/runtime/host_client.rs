//! A client on a host: the polling [`Client`] with a socket, a clock, and something to do while it waits.

use core::fmt;
use core::net::SocketAddr;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::config::Settings;
use super::environment::{Host, LiveNetwork, Transport};
use super::idle::{Deadlines, IdleKind, Idler};
use crate::client::{
    Answer, Client, ClientSettings, ClientSettingsError, ClientState, CloseCause,
    FORWARD_AFTER_NS_DEFAULT, SESSION_TIMEOUT_NS_DEFAULT, SessionTicket,
};
use crate::io::clock::HostClock;
use crate::io::faults::FaultSettings;
use crate::io::network_error::NetworkError;
use crate::io::udp::UdpNetwork;
use crate::io::wake::parking;
use crate::types::{GroupId, Nanos, NodeId};

/// Whom to connect to, and how.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectOptions {
    /// Group.
    pub group: GroupId,
    /// Its nodes, and where they take datagrams.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// Name of the client, for people.
    pub name: String,
    /// Commands that may be unanswered at once.
    pub in_flight_max: usize,
    /// See [`ClientSettings::resume`].
    pub resume: Option<SessionTicket>,
    /// Silence after which the group may close the session, ns; the group has bounds for it.
    pub session_timeout_ns: u64,
    /// See [`ClientSettings::forward_after_ns`].
    pub forward_after_ns: u64,
    /// Planted faults.
    pub faults: Option<FaultSettings>,
    /// What it does while it waits.
    pub idle: IdleKind,
}

impl ConnectOptions {
    /// A client of the group that a node's settings describe.
    #[must_use]
    pub fn of(settings: &Settings, name: &str) -> Self {
        Self {
            group: settings.group.id,
            members: settings.members.iter().map(|member| (member.id, member.data)).collect(),
            name: name.to_owned(),
            in_flight_max: settings.group.session_in_flight_max,
            resume: None,
            session_timeout_ns: SESSION_TIMEOUT_NS_DEFAULT,
            forward_after_ns: FORWARD_AFTER_NS_DEFAULT,
            faults: settings.faults,
            idle: IdleKind::Adaptive,
        }
    }
}

/// Why there is no client.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// Its socket.
    Network(NetworkError),
    /// Its transport, where that is not the host's.
    Environment(Box<dyn std::error::Error + Send + Sync>),
    /// Its settings.
    Settings(ClientSettingsError),
    /// The host.
    Host(io::Error),
    /// No leader has welcomed it in time.
    NoLeader {
        /// What it was doing then.
        state: ClientState,
        /// How long it waited, ns.
        waited_ns: u64,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(error) => error.fmt(f),
            Self::Environment(error) => error.fmt(f),
            Self::Settings(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::NoLeader { state: ClientState::NoQuorum, waited_ns } => write!(
                f,
                "the nodes that answer hear no quorum (NO_QUORUM), after {} ms",
                waited_ns / Nanos::MILLISECOND
            ),
            Self::NoLeader { state: ClientState::Closed(CloseCause::SessionLost), .. } => {
                write!(f, "the group does not know the session any more")
            }
            Self::NoLeader { waited_ns, .. } => write!(
                f,
                "no leader answered in {} ms: do the nodes run?",
                waited_ns / Nanos::MILLISECOND
            ),
        }
    }
}

impl std::error::Error for ConnectError {}

/// A client with a network of its own and a clock.
#[derive(Debug)]
pub struct HostClient<N = UdpNetwork> {
    /// The client itself: `send`, `query`, `close`.
    pub client: Client<N>,
    idler: Idler,
    clock: HostClock,
}

impl HostClient {
    /// A client that looks for the leader when it is polled.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new(options: ConnectOptions) -> Result<Self, ConnectError> {
        Self::new_in(&Host, options)
    }
}

impl<N: LiveNetwork> HostClient<N> {
    /// As [`HostClient::new`], over a transport of one's own.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new_in(
        transport: &impl Transport<Network = N>,
        options: ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let (parker, waker) = parking().map_err(ConnectError::Host)?;
        let network = transport.client(&options, Arc::new(waker))?;
        let members: Vec<SocketAddr> = options.members.iter().map(|(_, at)| *at).collect();
        let seed = RandomState::new().hash_one(std::process::id());
        let settings = ClientSettings {
            name: options.name,
            in_flight_max: options.in_flight_max,
            resume: options.resume,
            session_timeout_ns: options.session_timeout_ns,
            forward_after_ns: options.forward_after_ns,
            ..ClientSettings::new(options.group, members, seed)
        };
        let client = Client::new(settings, network).map_err(ConnectError::Settings)?;
        // A client's thread has nothing to say about its CPU: it shares it until told otherwise.
        let idler = Idler::new(options.idle, parker, Arc::new(AtomicBool::new(true)));
        Ok(Self { client, idler, clock: HostClock })
    }

    /// Polls until the group has welcomed it.
    ///
    /// # Errors
    /// [`ConnectError::NoLeader`] after `timeout_ns`, or when the session that it was to go on with has ended.
    pub fn connect(&mut self, timeout_ns: u64) -> Result<(), ConnectError> {
        let deadline = self.clock.now().plus(timeout_ns);
        while self.client.state() != ClientState::Open {
            let ended = matches!(self.client.state(), ClientState::Closed(_));
            if ended || self.clock.now() >= deadline {
                let state = self.client.state();
                return Err(ConnectError::NoLeader { state, waited_ns: timeout_ns });
            }
            self.turn(|_| {});
        }
        Ok(())
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Polls once, and idles if nothing happened: until something arrives or is due, or for `wait_ns` at most where that
    /// is given by [`HostClient::turn_within`].
    pub fn turn(&mut self, handler: impl FnMut(Answer<'_>)) -> usize {
        self.turn_within(100 * Nanos::MILLISECOND, handler)
    }

    /// As [`HostClient::turn`], for `wait_ns` at most.
    pub fn turn_within(&mut self, wait_ns: u64, handler: impl FnMut(Answer<'_>)) -> usize {
        let work = self.client.poll(self.clock.now(), handler);
        let now = self.clock.now();
        let due = self.client.deadline();
        let network = self.client.network();
        let soft = network.next_release().unwrap_or(Nanos(u64::MAX)).min(now.plus(wait_ns));
        let deadlines = Deadlines { sharp: Some(due), soft: Some(soft) };
        self.idler.idle(work, deadlines, now, network.descriptors(), || network.waits());
        work
    }

    /// Polls once without idling.
    pub fn poll(&mut self, handler: impl FnMut(Answer<'_>)) -> usize {
        self.client.poll(self.clock.now(), handler)
    }

    /// Ends the session in order, waiting for at most `timeout_ns`.
    pub fn close(&mut self, timeout_ns: u64) {
        let now = self.clock.now();
        self.client.close(now);
        let deadline = now.plus(timeout_ns);
        while !matches!(self.client.state(), ClientState::Closed(_)) && self.clock.now() < deadline
        {
            self.turn_within(Nanos::MILLISECOND, |_| {});
        }
    }
}

//! Checks of a [`Transport`]: its networks, who may be where, sleeping beside it, and the datagrams of control threads.

use core::fmt;
use core::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::control;
use super::network::{self, Group};
use crate::io::wake::{Parker, Woke, parking};
use crate::link::Wake;
use crate::runtime::config::{ConfigErrors, Founding, FoundingMember, Settings, TransportKind};
use crate::runtime::environment::{ControlNetwork, LiveNetwork, Transport};
use crate::runtime::{ConnectError, ConnectOptions, NodeError};
use crate::stream::datagram::{DatagramHeader, DatagramKind};
use crate::stream::network::{Destination, Network};
use crate::types::{GroupId, Leadership, Nanos};

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Of the networks of cores and clients.
    pub network: network::Passed,
    /// A thread can sleep beside them: one that has to be polled does not show what arrives.
    pub wakes: bool,
    /// Of the networks of control threads.
    pub control: control::Passed,
}

/// What a transport broke.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The settings of the check.
    Settings(ConfigErrors),
    /// The host gave no wake-up.
    Host(std::io::Error),
    /// Addresses for a group could not be had, or were the same.
    Addresses,
    /// A node's networks could not be opened.
    Open(NodeError),
    /// A client's network could not be opened.
    Client(ConnectError),
    /// Two were given the same address.
    Taken(&'static str),
    /// Its networks.
    Network(network::Failure),
    /// A sleeper was woken by some datagrams and not by others, before it slept or while it did.
    Missed {
        /// The sleep that did not end.
        sleep: &'static str,
    },
    /// There is always something that ends a sleep.
    Sleepless,
    /// Its networks of control threads.
    Control(control::Failure),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(errors) => errors.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::Addresses => write!(f, "no addresses for a group"),
            Self::Open(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
            Self::Taken(what) => write!(f, "two were given the same {what}"),
            Self::Network(failure) => failure.fmt(f),
            Self::Missed { sleep } => write!(f, "a datagram did not end a sleep: {sleep}"),
            Self::Sleepless => write!(f, "a sleep ends at once though nothing has arrived"),
            Self::Control(failure) => failure.fmt(f),
        }
    }
}

impl core::error::Error for Failure {}

/// Nodes of the group that [`check`] makes.
const NODES: usize = 3;
/// How long the check waits for what is under way, and how long a sleeper sleeps at most.
const WAIT_NS: u64 = Nanos::MILLISECOND;
const SLEEP_NS: u64 = 500 * Nanos::MILLISECOND;
/// Times that addresses are drawn until they differ.
const DRAWS_MAX: usize = 20;
/// Times that a sleeper takes what is there until nothing is.
const ROUNDS_MAX: usize = 100;

/// Checks a transport with a group of three at the addresses that it gives.
///
/// # Errors
/// The first [`Failure`].
pub fn check<T: Transport>(transport: &T) -> Result<Passed, Failure> {
    let mut members = Vec::new();
    for _ in 0..DRAWS_MAX {
        let drawn = transport.addresses(None).map_err(|_| Failure::Addresses)?;
        let known = |address| {
            let has = |member: &FoundingMember| [member.data, member.control].contains(&address);
            members.iter().any(has)
        };
        if drawn.data != drawn.control && !known(drawn.data) && !known(drawn.control) {
            members.push(drawn);
        }
        if members.len() == NODES {
            break;
        }
    }
    if members.len() < NODES {
        return Err(Failure::Addresses);
    }
    let founding = Founding {
        group: GroupId(0xC0F0_12AC),
        transport: TransportKind::Unicast,
        multicast_port: 0,
        members,
        settings: Vec::new(),
    };
    let settings = (0..NODES).map(|node| founding.settings(Path::new("/conformance"), node));
    let settings: Result<Vec<_>, _> = settings.collect();
    check_group(transport, &settings.map_err(Failure::Settings)?)
}

/// Checks a transport with a group of these settings, one for each node and three at least. Nothing else may use its
/// addresses meanwhile; files that the settings name are not touched.
///
/// # Errors
/// The first [`Failure`].
pub fn check_group<T: Transport>(transport: &T, settings: &[Settings]) -> Result<Passed, Failure> {
    let control = check_control(transport, settings)?;
    let wakes = check_sleep(transport, settings)?;
    let (timer, _) = bell()?;
    let mut nodes = Vec::new();
    for settings in settings {
        let (_, wake) = bell()?;
        let network = transport.network(settings, wake).map_err(Failure::Open)?;
        nodes.push((settings.node.id, settings.own().data, network));
    }
    let client = open_client(transport, &settings[0])?.0;
    let wait = || sleep(&timer);
    let passed = network::check(Group { nodes, client }, wait).map_err(Failure::Network)?;
    Ok(Passed { network: passed, wakes, control })
}

type Bell = (Parker, Arc<dyn Wake>);

fn bell() -> Result<Bell, Failure> {
    let (parker, waker) = parking().map_err(Failure::Host)?;
    Ok((parker, Arc::new(waker)))
}

fn sleep(timer: &Parker) {
    timer.park(core::iter::empty(), Some(WAIT_NS), || false);
}

fn open_client<T: Transport>(
    transport: &T,
    settings: &Settings,
) -> Result<(T::Network, Parker), Failure> {
    let (parker, wake) = bell()?;
    let options = ConnectOptions::of(settings, "conformance");
    let client = transport.client(&options, wake).map_err(Failure::Client)?;
    Ok((client, parker))
}

/// Sleeps of a node end when a datagram of a client is there, or comes; and two clients are not one.
fn check_sleep<T: Transport>(transport: &T, settings: &[Settings]) -> Result<bool, Failure> {
    let (parker, wake) = bell()?;
    let (timer, other_wake) = bell()?;
    let mut node = transport.network(&settings[0], wake).map_err(Failure::Open)?;
    if transport.network(&settings[0], other_wake).is_ok() {
        return Err(Failure::Taken("data address"));
    }
    let (mut first, client_parker) = open_client(transport, &settings[0])?;
    let (mut second, _second_parker) = open_client(transport, &settings[0])?;
    let hello =
        DatagramHeader::new(DatagramKind::Hello, settings[0].group.id, None, Leadership::default());
    let to_node = Destination::Node(settings[0].node.id);
    let mut sleeps = Vec::new();
    drain(&mut node, &timer, &parker)?;
    first.send(to_node, &hello, &[], b"there before the sleep");
    let ended = parker.park(node.descriptors(), Some(SLEEP_NS), || node.waits());
    sleeps.push(("there before", ended != Woke::Timeout));
    let source = drain(&mut node, &timer, &parker)?;
    parker.prepare();
    if node.waits() {
        return Err(Failure::Sleepless);
    }
    second.send(to_node, &hello, &[], b"in the sleep");
    sleeps.push((
        "comes while it sleeps",
        parker.sleep(node.descriptors(), Some(SLEEP_NS)) != Woke::Timeout,
    ));
    let other_source = drain(&mut node, &timer, &parker)?;
    if source.is_some() && source == other_source {
        return Err(Failure::Taken("address of a client"));
    }
    if let Some(source) = source {
        drain(&mut first, &timer, &client_parker)?;
        client_parker.prepare();
        node.send(Destination::Address(source), &hello, &[], b"in the client's sleep");
        sleeps.push((
            "comes to a client",
            client_parker.sleep(first.descriptors(), Some(SLEEP_NS)) != Woke::Timeout,
        ));
    }
    let awake = sleeps.iter().any(|(_, woke)| *woke);
    match sleeps.iter().find(|(_, woke)| !woke) {
        Some((sleep, _)) if awake => Err(Failure::Missed { sleep }),
        _ => Ok(awake),
    }
}

/// Takes all that is there, until a sleep lasts; returns whence the last one came.
fn drain(
    network: &mut impl LiveNetwork,
    timer: &Parker,
    parker: &Parker,
) -> Result<Option<SocketAddr>, Failure> {
    let mut source = None;
    for _ in 0..ROUNDS_MAX {
        let count = network.poll();
        if count > 0 {
            source = Some(network.datagram(count - 1).0);
            continue;
        }
        sleep(timer);
        let mail = || network.waits();
        if parker.park(network.descriptors(), Some(WAIT_NS), mail) == Woke::Timeout {
            return Ok(source);
        }
    }
    Err(Failure::Sleepless)
}

/// Checks the networks of the control threads, one of which sleeps.
fn check_control<T: Transport>(
    transport: &T,
    settings: &[Settings],
) -> Result<control::Passed, Failure> {
    let (timer, _) = bell()?;
    let mut ends = Vec::new();
    let mut parkers = Vec::new();
    for settings in settings {
        let (parker, wake) = bell()?;
        let network = transport.control(settings, wake).map_err(Failure::Open)?;
        ends.push((settings.own().control, network));
        parkers.push(parker);
    }
    let (_, wake) = bell()?;
    if transport.control(&settings[0], wake).is_ok() {
        return Err(Failure::Taken("control address"));
    }
    parkers[0].prepare();
    let target = ends[0].0;
    ends[1].1.send(target, b"in the sleep");
    if parkers[0].sleep(ends[0].1.descriptors(), Some(SLEEP_NS)) == Woke::Timeout {
        return Err(Failure::Missed { sleep: "comes to a control thread" });
    }
    while ends[0].1.receive(&mut [0; 64]).is_some() {}
    control::check(ends, || sleep(&timer)).map_err(Failure::Control)
}

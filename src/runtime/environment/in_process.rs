//! Datagrams between the threads of one process, without sockets: for tests, and for nodes that live together.
//!
//! Each end has a fixed number of buffers. A sender takes a free one, fills it and leaves it in the receiver's queue; the
//! receiver gives it back with its next poll. When none is free the datagram is lost, as it would be on a wire. Nothing is
//! allocated and nobody waits for a lock while the ends stay the same; the first sends after one came or went look them up.

use core::net::{Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};
use zerocopy::IntoBytes;

use super::{ControlNetwork, LiveNetwork, Transport};
use crate::io::udp::NetworkCounters;
use crate::limits::{DATAGRAM_BYTES_DEFAULT, DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES};
use crate::link::Wake;
use crate::runtime::config::{FoundingMember, Settings};
use crate::runtime::host_client::{ConnectError, ConnectOptions};
use crate::runtime::node::NodeError;
use crate::stream::datagram::{DatagramHeader, FLAG_PADS};
use crate::stream::network::{Destination, Network};
use crate::types::NodeId;

/// Memory of an end for what has arrived, bytes, and the datagrams that it holds at least and at most.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
const QUEUE_MIN: usize = 64;
const QUEUE_MAX: usize = 1024;
/// Datagrams that one poll hands on, at most.
const BATCH: usize = 64;
/// Messages that wait for a control thread, at most, and their length, bytes.
const CONTROL_QUEUE: usize = 256;
const CONTROL_BYTES_MAX: usize = 2048;
/// Second byte of the addresses that are drawn. Those of members stand in settings, and may be older than the place.
const MEMBERS_NETWORK: u8 = 200;
const CLIENTS_NETWORK: u8 = 201;

/// A place where nodes and clients of one process meet. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub struct InProcess {
    place: Arc<Place>,
}

#[derive(Debug, Default)]
struct Place {
    ends: Mutex<BTreeMap<SocketAddr, Port>>,
    /// +1 whenever an end comes or goes.
    version: AtomicU64,
    drawn: AtomicU64,
}

/// Where others leave what is for one end.
#[derive(Clone, Debug)]
struct Port {
    free: Receiver<Box<[u8]>>,
    full: Sender<Filled>,
    /// Length of each buffer.
    bytes: usize,
    wake: Arc<dyn Wake>,
}

/// From where, how long, and the bytes.
#[derive(Debug)]
struct Filled(SocketAddr, usize, Box<[u8]>);

/// One end.
#[derive(Debug)]
struct End {
    place: Arc<Place>,
    address: SocketAddr,
    free: Sender<Box<[u8]>>,
    full: Receiver<Filled>,
    /// The ends as they were in `version`.
    ends: BTreeMap<SocketAddr, Port>,
    version: u64,
    counters: NetworkCounters,
}

/// What could not be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken(
    /// The address that somebody has.
    pub SocketAddr,
);

impl core::fmt::Display for Taken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: somebody in this process is there", self.0)
    }
}

impl core::error::Error for Taken {}

impl InProcess {
    /// An empty place.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An address that nobody has drawn here before, for the settings of a member.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.draw(MEMBERS_NETWORK)
    }

    fn draw(&self, network: u8) -> SocketAddr {
        let drawn = self.place.drawn.fetch_add(1, Ordering::Relaxed);
        let (high, low) = (drawn / u64::from(u16::MAX), drawn % u64::from(u16::MAX));
        let [.., a, b] = high.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(127, network, a, b), 1 + low as u16))
    }

    fn end(
        &self,
        address: SocketAddr,
        (count, bytes): (usize, usize),
        wake: Arc<dyn Wake>,
    ) -> Result<End, Taken> {
        let (free, take) = bounded(count);
        let (leave, full) = bounded(count);
        for _ in 0..count {
            free.try_send(vec![0; bytes].into_boxed_slice()).expect("as many as it has room for");
        }
        let mut ends = self.place.ends();
        if ends.contains_key(&address) {
            return Err(Taken(address));
        }
        ends.insert(address, Port { free: take, full: leave, bytes, wake });
        self.place.version.fetch_add(1, Ordering::Release);
        let (place, ends) = (Arc::clone(&self.place), BTreeMap::new());
        let counters = NetworkCounters::default();
        Ok(End { place, address, free, full, ends, version: 0, counters })
    }

    fn open(
        &self,
        node: Option<NodeId>,
        address: SocketAddr,
        members: Vec<(NodeId, SocketAddr)>,
        datagram_bytes: usize,
        wake: Arc<dyn Wake>,
    ) -> Result<ProcessNetwork, Taken> {
        // A client takes datagrams of every length that a group may be set to; a node those of clients too.
        let most = datagram_bytes.max(DATAGRAM_BYTES_DEFAULT);
        let most = if node.is_some() { most } else { DATAGRAM_BYTES_MAX };
        let count = (QUEUE_BYTES / most).clamp(QUEUE_MIN, QUEUE_MAX);
        let end = self.end(address, (count, most), wake)?;
        let batch = Vec::with_capacity(BATCH);
        Ok(ProcessNetwork { end, node, members, datagram_bytes, batch, counter: 0 })
    }
}

impl Transport for InProcess {
    type Network = ProcessNetwork;
    type Control = ProcessControl;

    fn network(
        &self,
        settings: &Settings,
        wake: Arc<dyn Wake>,
    ) -> Result<ProcessNetwork, NodeError> {
        let members = settings.members.iter().map(|member| (member.id, member.data)).collect();
        let (node, bytes) = (Some(settings.node.id), settings.transport.datagram_bytes);
        let network = self.open(node, settings.own().data, members, bytes, wake);
        network.map_err(|error| NodeError::Environment(error.into()))
    }

    fn control(
        &self,
        settings: &Settings,
        wake: Arc<dyn Wake>,
    ) -> Result<ProcessControl, NodeError> {
        let room = (CONTROL_QUEUE, CONTROL_BYTES_MAX);
        let end = self.end(settings.own().control, room, wake);
        let end = end.map_err(|error| NodeError::Environment(error.into()))?;
        Ok(ProcessControl { end })
    }

    fn client(
        &self,
        options: &ConnectOptions,
        wake: Arc<dyn Wake>,
    ) -> Result<ProcessNetwork, ConnectError> {
        let members = options.members.clone();
        let address = self.draw(CLIENTS_NETWORK);
        let network = self.open(None, address, members, DATAGRAM_BYTES_DEFAULT, wake);
        network.map_err(|error| ConnectError::Environment(error.into()))
    }

    fn addresses(&self, last: Option<FoundingMember>) -> io::Result<FoundingMember> {
        let ends = self.place.ends();
        let is_free = |last: &FoundingMember| {
            !ends.contains_key(&last.data) && !ends.contains_key(&last.control)
        };
        let drawn = || FoundingMember { data: self.address(), control: self.address() };
        Ok(last.filter(is_free).unwrap_or_else(drawn))
    }
}

impl Place {
    fn ends(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Port>> {
        // Nothing here leaves the map half changed when it panics.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    /// Leaves a datagram of these parts with whoever is at `to`.
    fn leave(&mut self, to: SocketAddr, parts: [&[u8]; 3]) {
        let version = self.place.version.load(Ordering::Acquire);
        if version != self.version {
            self.ends.clone_from(&self.place.ends());
            self.version = version;
        }
        let Some(port) = self.ends.get(&to) else {
            self.counters.send_nowhere += 1;
            return;
        };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // What is too long for the other end is as lost as what finds no free buffer there.
        let Some(mut buffer) = (length <= port.bytes).then(|| port.free.try_recv().ok()).flatten()
        else {
            self.counters.send_failures += 1;
            return;
        };
        let mut at = 0;
        for part in parts {
            buffer[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        if port.full.try_send(Filled(self.address, length, buffer)).is_ok() {
            self.counters.datagrams_sent += 1;
            self.counters.bytes_sent += length as u64;
            port.wake.wake();
        } else {
            self.counters.send_failures += 1; // it has just gone
        }
    }

    fn take(&mut self) -> Option<Filled> {
        let filled = self.full.try_recv().ok()?;
        self.counters.datagrams_received += 1;
        self.counters.bytes_received += filled.1 as u64;
        Some(filled)
    }

    fn give_back(&self, filled: Filled) {
        let kept = self.free.try_send(filled.2);
        assert!(kept.is_ok(), "there is room for every buffer");
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.place.ends().remove(&self.address);
        self.place.version.fetch_add(1, Ordering::Release);
    }
}

/// The network of a node or a client in the process.
#[derive(Debug)]
pub struct ProcessNetwork {
    end: End,
    node: Option<NodeId>,
    members: Vec<(NodeId, SocketAddr)>,
    datagram_bytes: usize,
    batch: Vec<Filled>,
    counter: u64,
}

impl Network for ProcessNetwork {
    fn poll(&mut self) -> usize {
        for filled in self.batch.drain(..) {
            self.end.give_back(filled);
        }
        while self.batch.len() < BATCH
            && let Some(filled) = self.end.take()
        {
            self.batch.push(filled);
        }
        self.batch.len()
    }

    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        let Filled(from, length, bytes) = &self.batch[index];
        (*from, &bytes[..*length])
    }

    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        let each = self.body_bytes(prefix.len());
        assert!(each > 0, "a prefix that leaves no room for a body");
        let mut own = *header;
        let mut at = 0;
        loop {
            let body = &bytes[at..bytes.len().min(at + each)];
            let is_last = at + body.len() == bytes.len();
            own.flags = if is_last { header.flags } else { header.flags & !FLAG_PADS };
            own.position.set(header.position.get().wrapping_add(at as u64));
            self.counter += 1;
            own.counter.set(self.counter);
            let parts = [own.as_bytes(), prefix, body];
            match to {
                Destination::Members => {
                    for (node, address) in &self.members {
                        if Some(*node) != self.node {
                            self.end.leave(*address, parts);
                        }
                    }
                }
                Destination::Node(to) => match self.members.iter().find(|(node, _)| *node == to) {
                    Some((_, address)) => self.end.leave(*address, parts),
                    None => self.end.counters.send_nowhere += 1,
                },
                Destination::Address(address) => self.end.leave(address, parts),
            }
            at += body.len();
            if is_last {
                return;
            }
        }
    }

    fn body_bytes(&self, prefix: usize) -> usize {
        self.datagram_bytes.saturating_sub(DATAGRAM_HEADER_BYTES + prefix)
    }
}

impl LiveNetwork for ProcessNetwork {
    fn waits(&self) -> bool {
        !self.end.full.is_empty()
    }
    fn counters(&self) -> NetworkCounters {
        self.end.counters
    }
}

/// The network of a control thread in the process.
#[derive(Debug)]
pub struct ProcessControl {
    end: End,
}

impl ControlNetwork for ProcessControl {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        self.end.leave(to, [datagram, &[], &[]]);
    }
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            let filled = self.end.take()?;
            let (from, length) = (filled.0, filled.1);
            let fits = length <= buffer.len();
            if fits {
                buffer[..length].copy_from_slice(&filled.2[..length]);
            }
            self.end.give_back(filled);
            if fits {
                return Some((length, from));
            }
        }
    }
}

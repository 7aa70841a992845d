//! The network as its users see it: ports with bounded buffers. What becomes of a datagram on its way, the world decides.

use core::net::{Ipv4Addr, SocketAddr};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use zerocopy::IntoBytes;

use crate::stream::datagram::{DatagramHeader, FLAG_PADS};
use crate::stream::network::{Destination, Network};
use crate::types::NodeId;

/// Bytes that wait at a port, at most: a socket's buffer.
const INBOX_BYTES_MAX: usize = 1024 * 1024;
/// Datagrams of one batch, at most.
const BATCH_MAX: usize = 32;
/// Bytes of a datagram behind its header, prefix included.
const BODY_BYTES: usize = 1344;

const DATA_PORTS: u16 = 1000;
const CLIENT_PORTS: u16 = 3000;

/// Who is at an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Endpoint {
    /// A node's core.
    Node(usize),
    /// A client.
    Client(usize),
}

impl Endpoint {
    /// Its address.
    pub(super) fn address(self) -> SocketAddr {
        let port = match self {
            Self::Node(node) => DATA_PORTS + node as u16,
            Self::Client(client) => CLIENT_PORTS + client as u16,
        };
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Who is at `address`.
    pub(super) fn at(address: SocketAddr) -> Self {
        match address.port() {
            port if port >= CLIENT_PORTS => Self::Client(usize::from(port - CLIENT_PORTS)),
            port => Self::Node(usize::from(port - DATA_PORTS)),
        }
    }
}

/// A datagram that its sender has given to the network.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) to: Endpoint,
    pub(super) bytes: Rc<[u8]>,
}

/// One socket: what has arrived, and what was sent since the world looked.
#[derive(Debug, Default)]
pub(super) struct Port {
    inbox: VecDeque<(SocketAddr, Rc<[u8]>)>,
    inbox_bytes: usize,
    pub(super) outbox: Vec<Sent>,
    pub(super) overflowed: u64,
}

/// A port that its owner and the world share.
pub(super) type SharedPort = Rc<RefCell<Port>>;

impl Port {
    /// A datagram arrives; a full buffer drops it.
    pub(super) fn arrive(&mut self, from: Endpoint, bytes: Rc<[u8]>) {
        if self.inbox_bytes + bytes.len() > INBOX_BYTES_MAX {
            self.overflowed += 1;
            return;
        }
        self.inbox_bytes += bytes.len();
        self.inbox.push_back((from.address(), bytes));
    }

    /// Its owner has died.
    pub(super) fn clear(&mut self) {
        *self = Self { overflowed: self.overflowed, ..Self::default() };
    }
}

/// A port as the stream machines use it.
#[derive(Debug)]
pub(super) struct SimNetwork {
    own: Endpoint,
    nodes: usize,
    port: SharedPort,
    batch: Vec<(SocketAddr, Rc<[u8]>)>,
    counter: u64,
}

impl SimNetwork {
    /// The network of `own` in a group of `nodes`.
    pub(super) fn new(own: Endpoint, nodes: usize, port: SharedPort) -> Self {
        Self { own, nodes, port, batch: Vec::new(), counter: 0 }
    }

    fn targets(&self, to: Destination) -> Vec<Endpoint> {
        match to {
            Destination::Members => {
                (0..self.nodes).map(Endpoint::Node).filter(|node| *node != self.own).collect()
            }
            Destination::Node(NodeId(node)) => vec![Endpoint::Node(usize::from(node))],
            Destination::Address(address) => vec![Endpoint::at(address)],
        }
    }
}

impl Network for SimNetwork {
    fn poll(&mut self) -> usize {
        let mut port = self.port.borrow_mut();
        let count = port.inbox.len().min(BATCH_MAX);
        self.batch.clear();
        self.batch.extend(port.inbox.drain(..count));
        let taken: usize = self.batch.iter().map(|(_, bytes)| bytes.len()).sum();
        port.inbox_bytes -= taken;
        count
    }

    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        let (from, bytes) = &self.batch[index];
        (*from, bytes)
    }

    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        let targets = self.targets(to);
        let room = self.body_bytes(prefix.len());
        let count = bytes.len().div_ceil(room).max(1);
        for piece in 0..count {
            let part = &bytes[piece * room..bytes.len().min((piece + 1) * room)];
            let mut header = *header;
            header.position = (header.position.get() + (piece * room) as u64).into();
            self.counter += 1;
            header.counter = self.counter.into();
            if piece + 1 < count {
                header.flags &= !FLAG_PADS;
            }
            let datagram: Rc<[u8]> = [header.as_bytes(), prefix, part].concat().into();
            let mut shared = self.port.borrow_mut();
            for &to in &targets {
                shared.outbox.push(Sent { to, bytes: Rc::clone(&datagram) });
            }
        }
    }

    fn body_bytes(&self, prefix: usize) -> usize {
        BODY_BYTES - prefix
    }
}

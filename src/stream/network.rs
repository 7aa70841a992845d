//! What the stream machines need of a network. `io` implements it over UDP, the simulator over a queue.

use core::net::SocketAddr;

use super::datagram::DatagramHeader;
use crate::types::NodeId;

/// Whom to send to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Destination {
    /// All other nodes: one multicast datagram, or the same bytes to each.
    Members,
    /// One node.
    Node(NodeId),
    /// A client, or whoever sent a datagram from there.
    Address(SocketAddr),
}

/// Datagrams in and out. Never blocks; never allocates after construction.
pub trait Network {
    /// Receives what waits, up to a bounded batch, into the ring. Returns how many datagrams the batch holds.
    fn poll(&mut self) -> usize;
    /// One datagram of the last batch: from where, and its bytes.
    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]);
    /// Sends `bytes` in as many datagrams as it takes, each with `header` and `prefix` in front; at least one, also for no
    /// bytes. Each datagram's `position` is the header's plus the offset of its bytes, its `counter` the next of this
    /// network; `FLAG_PADS` stays on the last one only. What the host does not take is dropped and counted: the stream
    /// machine repairs it.
    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]);
    /// Bytes of stream that fit in one datagram with a prefix of `prefix` bytes.
    fn body_bytes(&self, prefix: usize) -> usize;
}

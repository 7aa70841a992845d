//! The network of a host: UDP, to each member or by multicast, with every trap of either handled at the start.
//!
//! There is always one socket on the data address: all sending leaves by it, so that the source of a datagram is the sender's
//! data address, and answers come back to it. A node of a multicast group has a second one that hears the group.

use core::net::SocketAddr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::batch::{self, Batcher};
use super::clock::HostClock;
use super::cpu::Refused;
use super::faults::{FaultCounters, FaultLayer};
use super::multicast;
use super::network_error::{NetworkError, SocketOwner};
pub use super::network_settings::{Gso, Transport, UdpSettings};
use super::ring::{Ring, UDP_GRO};
use super::{option, port};
use crate::limits::DATAGRAM_HEADER_BYTES;
use crate::stream::datagram::{DatagramHeader, DatagramKind};
use crate::stream::network::{Destination, Network};
use crate::types::{GroupId, Leadership, Nanos, NodeId};

/// What went in and out so far. Datagrams count on the wire: one to each of two members is two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetworkCounters {
    /// Datagrams the host took.
    pub datagrams_sent: u64,
    /// Their bytes, headers included.
    pub bytes_sent: u64,
    /// Calls that took them.
    pub send_calls: u64,
    /// Datagrams the host did not take (buffers full, nobody there, no route): dropped, the stream machine repairs them.
    pub send_failures: u64,
    /// Datagrams to a node that is no member, or to an address to which nothing can be sent: dropped.
    pub send_nowhere: u64,
    /// Runs that the host or the path refused, and that went out one by one.
    pub offload_refused: u64,
    /// Datagrams received, before faults.
    pub datagrams_received: u64,
    /// Their bytes, headers included.
    pub bytes_received: u64,
    /// Calls that asked for them.
    pub receive_calls: u64,
    /// Calls that failed (not: found nothing), and datagrams from no address.
    pub receive_failures: u64,
    /// Own multicast datagrams, looped back: dropped.
    pub own_dropped: u64,
    /// Datagrams longer than a receive buffer: dropped.
    pub truncated: u64,
    /// What the fault layer did.
    pub faults: FaultCounters,
}

impl NetworkCounters {
    pub(super) fn sent(&mut self, datagrams: usize, bytes: usize) {
        self.datagrams_sent += datagrams as u64;
        self.bytes_sent += bytes as u64;
    }
}

/// [`Network`] over UDP.
#[derive(Debug)]
pub struct UdpNetwork {
    sockets: Sockets,
    faults: Option<Box<FaultLayer>>,
    clock: HostClock,
    refused: Vec<Refused>,
}

/// The sockets without faults.
#[derive(Debug)]
struct Sockets {
    node: Option<NodeId>,
    members: Box<[(NodeId, SockAddr)]>,
    group: Option<SockAddr>,
    datagram_bytes: usize,
    unicast: Endpoint,
    multicast: Option<Endpoint>,
    batcher: Batcher,
    counters: NetworkCounters,
}

#[derive(Debug)]
struct Endpoint {
    socket: Socket,
    ring: Ring,
}

impl UdpNetwork {
    /// Opens the sockets. What the host grants only in part is in [`UdpNetwork::refused`].
    ///
    /// # Errors
    /// A setting that cannot be, or a socket that cannot be had: see [`NetworkError`].
    pub fn open(settings: &UdpSettings) -> Result<Self, NetworkError> {
        settings.check()?;
        let faults = match &settings.faults {
            Some(faults) => {
                let faults = faults.for_node(settings.node);
                Some(Box::new(FaultLayer::new(&faults, settings.datagram_bytes)?))
            }
            None => None,
        };
        let mut refused = Vec::new();
        let sockets = Sockets::open(settings, &mut refused)?;
        Ok(Self { sockets, faults, clock: HostClock, refused })
    }

    /// What the host did not grant: a warning each.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// What went in and out so far.
    #[must_use]
    pub fn counters(&self) -> NetworkCounters {
        let mut counters = self.sockets.counters;
        if let Some(faults) = &self.faults {
            counters.faults = faults.counters();
        }
        counters
    }

    /// The address of the data socket, its port included.
    ///
    /// # Errors
    /// What the host answers.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = self.sockets.unicast.socket.local_addr()?;
        address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// The sockets, to be waited for while parked.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let multicast = self.sockets.multicast.iter().map(|endpoint| endpoint.socket.as_fd());
        core::iter::once(self.sockets.unicast.socket.as_fd()).chain(multicast)
    }

    /// Whether one datagram to the members reaches all of them.
    #[must_use]
    pub fn is_multicast(&self) -> bool {
        self.sockets.group.is_some()
    }

    /// When the next datagram that the fault layer holds back is due: a deadline for whoever parks.
    #[must_use]
    pub fn next_release(&self) -> Option<Nanos> {
        self.faults.as_ref()?.next_release()
    }

    /// Datagrams that the host dropped because a receive buffer was full, if it says. A system call per socket.
    #[must_use]
    pub fn host_drops(&self) -> Option<u64> {
        let mut sum = 0;
        for descriptor in self.descriptors() {
            sum += u64::from(option::drops(&descriptor).ok()?);
        }
        Some(sum)
    }

    /// An option of the data socket, as the host has it.
    #[cfg(test)]
    pub(crate) fn option(&self, level: i32, name: i32) -> io::Result<i32> {
        option::get(&self.sockets.unicast.socket, level, name)
    }

    /// Whether runs of datagrams go out in one call.
    #[must_use]
    pub fn offloads(&self) -> bool {
        self.sockets.batcher.offload()
    }
}

impl Network for UdpNetwork {
    fn poll(&mut self) -> usize {
        let received = self.sockets.poll();
        match &mut self.faults {
            None => received,
            Some(faults) => faults.filter(&self.sockets, received, self.clock.now()),
        }
    }
    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        match &self.faults {
            None => self.sockets.datagram(index),
            Some(faults) => faults.datagram(&self.sockets, index),
        }
    }
    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        self.sockets.send(to, header, prefix, bytes);
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        self.sockets.body_bytes(prefix)
    }
}

impl Sockets {
    fn open(settings: &UdpSettings, refused: &mut Vec<Refused>) -> Result<Self, NetworkError> {
        let owner = settings.node.map_or(SocketOwner::Client, SocketOwner::Data);
        let unicast = open_data_socket(settings.bind, owner)?;
        let mut group = None;
        let mut multicast = None;
        if let (Transport::Multicast(multi), Some(node)) = (&settings.transport, settings.node) {
            let interface = multicast::check(multi, settings.bind, settings.own_address())?;
            multicast::prepare_sender(&unicast, multi, &interface)?;
            group = Some(multicast::target(multi.group, &interface));
            let sources = settings.sources();
            let owner = SocketOwner::Multicast(node);
            multicast = Some(multicast::open_receiver(multi, &interface, &sources, owner)?);
        }
        let offload = settings.gso == Gso::Auto && batch::offload_known(&unicast);
        let template =
            DatagramHeader::new(DatagramKind::Data, GroupId(0), None, Leadership::default());
        Ok(Self {
            node: settings.node,
            members: settings.members.iter().map(|&(node, at)| (node, at.into())).collect(),
            group,
            datagram_bytes: settings.datagram_bytes,
            unicast: Endpoint::new(unicast, settings, refused),
            multicast: multicast.map(|socket| Endpoint::new(socket, settings, refused)),
            batcher: Batcher::new(template, offload),
            counters: NetworkCounters::default(),
        })
    }
}

impl Network for Sockets {
    fn poll(&mut self) -> usize {
        let unicast = &mut self.unicast;
        let received = unicast.ring.receive(unicast.socket.as_fd(), None, &mut self.counters);
        let Some(group) = &mut self.multicast else { return received };
        received + group.ring.receive(group.socket.as_fd(), self.node, &mut self.counters)
    }

    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        let first = self.unicast.ring.len();
        match &self.multicast {
            Some(group) if index >= first => group.ring.datagram(index - first),
            _ => self.unicast.ring.datagram(index),
        }
    }

    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        let each = self.body_bytes(prefix.len());
        assert!(each > 0, "a prefix that leaves no room for a body");
        let Self { node, members, group, unicast, batcher, counters, .. } = self;
        let socket = &unicast.socket;
        let mut rest = bytes;
        loop {
            let offset = (bytes.len() - rest.len()) as u64;
            let run = batcher.next_run(header, prefix, each, &mut rest, offset);
            match (to, group.as_ref()) {
                (Destination::Members, Some(group)) => {
                    batcher.transmit(socket, group, &run, counters);
                }
                (Destination::Members, None) => {
                    for (_, address) in members.iter().filter(|member| Some(member.0) != *node) {
                        batcher.transmit(socket, address, &run, counters);
                    }
                }
                (Destination::Node(to), _) => match members.iter().find(|member| member.0 == to) {
                    Some((_, address)) => batcher.transmit(socket, address, &run, counters),
                    None => counters.send_nowhere += 1,
                },
                (Destination::Address(to), _) if to.port() == 0 => counters.send_nowhere += 1,
                (Destination::Address(to), _) => {
                    batcher.transmit(socket, &SockAddr::from(to), &run, counters);
                }
            }
            if rest.is_empty() {
                return;
            }
        }
    }

    fn body_bytes(&self, prefix: usize) -> usize {
        self.datagram_bytes.saturating_sub(DATAGRAM_HEADER_BYTES + prefix)
    }
}

impl Endpoint {
    fn new(socket: Socket, settings: &UdpSettings, refused: &mut Vec<Refused>) -> Self {
        buffers(&socket, settings.socket_buffer_bytes, refused);
        if settings.busy_poll_us > 0 {
            let micros = settings.busy_poll_us.cast_signed();
            if let Err(error) = option::set(&socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &micros)
            {
                refused.push(Refused::host("busy polling of the network card", &error));
            }
        }
        let offload = settings.gso == Gso::Auto
            && option::set(&socket, libc::SOL_UDP, UDP_GRO, &1_i32).is_ok();
        let ring = Ring::new(settings.receive_batch, settings.datagram_bytes, offload);
        Self { socket, ring }
    }
}

/// One socket per data address: without `SO_REUSEADDR`, or two nodes could take datagrams from each other.
fn open_data_socket(bind_to: SocketAddr, owner: SocketOwner) -> Result<Socket, NetworkError> {
    let failed = |error: io::Error| NetworkError::Host {
        what: "open the data socket",
        code: error.raw_os_error().unwrap_or(0),
    };
    let socket = Socket::new(Domain::for_address(bind_to), Type::DGRAM, Some(Protocol::UDP))
        .map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    // Bound to all addresses it would else get what any other process joined on the same port.
    if bind_to.is_ipv6() {
        socket.set_only_v6(true).map_err(failed)?;
        socket.set_multicast_all_v6(false).map_err(failed)?;
    } else {
        socket.set_multicast_all_v4(false).map_err(failed)?;
    }
    bind(&socket, &bind_to.into(), bind_to, owner)?;
    Ok(socket)
}

/// Binds, or says who wanted what and why not.
pub(super) fn bind(
    socket: &Socket,
    to: &SockAddr,
    address: SocketAddr,
    owner: SocketOwner,
) -> Result<(), NetworkError> {
    socket.bind(to).map_err(|error| match error.raw_os_error().unwrap_or(0) {
        libc::EADDRINUSE => {
            let holder = port::holder(port::Protocol::Udp, address);
            NetworkError::PortTaken { owner, address, holder }
        }
        libc::EADDRNOTAVAIL => NetworkError::AddressNotHere { owner, address },
        code => NetworkError::BindRefused { owner, address, code },
    })
}

/// Asks for socket buffers, by force where that is allowed, and notes what was not given.
fn buffers(socket: &Socket, bytes: usize, refused: &mut Vec<Refused>) {
    let asked = i32::try_from(bytes).unwrap_or(i32::MAX);
    let kinds = [
        ("receive buffer", libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, "net.core.rmem_max"),
        ("send buffer", libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, "net.core.wmem_max"),
    ];
    for (what, plain, force, limit) in kinds {
        let set = option::set(socket, libc::SOL_SOCKET, force, &asked)
            .or_else(|_| option::set(socket, libc::SOL_SOCKET, plain, &asked));
        // The host reports twice what it grants: it counts its own bookkeeping in.
        let given =
            option::get::<i32>(socket, libc::SOL_SOCKET, plain).map_or(0, |twice| twice / 2);
        if let Err(error) = set {
            refused.push(Refused::host(what, &error));
        } else if given < asked {
            let why = format!("{given} bytes of {asked} ({limit})");
            refused.push(Refused { what: what.into(), why });
        }
    }
}

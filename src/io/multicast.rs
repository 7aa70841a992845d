//! Joins multicast groups, and keeps out of the traps around them.
//!
//! * A socket gets what *any* socket of the host joined unless `IP_MULTICAST_ALL` is off; it is bound to the group's own
//!   address besides, so that nothing but the group's datagrams reach it.
//! * The interface is named on both sides, by its number: the routing table decides nothing.
//! * `SO_REUSEADDR` lets several nodes of one host join (each gets every datagram); `SO_REUSEPORT` would share them out.
//! * Datagrams leave by the data socket, so that their source is the sender's data address; source-specific joins name those.
#![allow(unsafe_code)]

use core::mem::zeroed;
use core::net::{IpAddr, SocketAddr};
use std::io::{self, Read};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::clock::HostClock;
use super::interface::{Interface, InterfaceChoice};
use super::network_error::{NetworkError, SocketOwner};
use super::{interface, option};
use crate::types::NodeId;

/// Multicast settings of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MulticastSettings {
    /// Group and port; the same on all nodes.
    pub group: SocketAddr,
    /// Join for each member's address only, so that no other sender is heard.
    pub source_specific: bool,
    /// Interface; without one, that of the address that is bound.
    pub interface: Option<InterfaceChoice>,
    /// Routers that a datagram may cross, plus one; 0 stays on the host.
    pub ttl: u8,
}

impl MulticastSettings {
    /// Any source, the interface of the node's own address, no router crossed.
    #[must_use]
    pub fn new(group: SocketAddr) -> Self {
        Self { group, source_specific: false, interface: None, ttl: 1 }
    }
}

/// Checks the settings against the host; `own` is the address that the data socket binds, or else is known by.
pub(super) fn check(
    settings: &MulticastSettings,
    bind: SocketAddr,
    own: IpAddr,
) -> Result<Interface, NetworkError> {
    let group = settings.group;
    if !group.ip().is_multicast() || group.port() == 0 {
        return Err(NetworkError::GroupNotMulticast { group });
    }
    if group.is_ipv4() != bind.is_ipv4() {
        return Err(NetworkError::FamilyMixed { bind, address: group });
    }
    if group.port() == bind.port() && bind.ip().is_unspecified() {
        return Err(NetworkError::GroupPort { group });
    }
    let interface = interface::resolve(settings.interface.as_ref(), own)?;
    if interface.address_like(group.ip()).is_none() {
        return Err(NetworkError::InterfaceFamily { interface: interface.name, group });
    }
    Ok(interface)
}

/// Makes the data socket send multicast out of `interface`.
pub(super) fn prepare_sender(
    socket: &Socket,
    settings: &MulticastSettings,
    interface: &Interface,
) -> Result<(), NetworkError> {
    let failed = |error| host("set up the data socket for multicast", &error);
    if settings.group.is_ipv4() {
        // SAFETY: a plain C structure of integers, for which zeros are a value.
        let mut by_index: libc::ip_mreqn = unsafe { zeroed() };
        by_index.imr_ifindex = interface.index.cast_signed();
        option::set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &by_index).map_err(failed)?;
        socket.set_multicast_ttl_v4(u32::from(settings.ttl)).map_err(failed)?;
        socket.set_multicast_loop_v4(true).map_err(failed)
    } else {
        socket.set_multicast_if_v6(interface.index).map_err(failed)?;
        socket.set_multicast_hops_v6(u32::from(settings.ttl)).map_err(failed)?;
        socket.set_multicast_loop_v6(true).map_err(failed)
    }
}

/// The address to which datagrams for the group go.
pub(super) fn target(group: SocketAddr, interface: &Interface) -> SockAddr {
    match group {
        SocketAddr::V6(mut v6) if v6.scope_id() == 0 => {
            v6.set_scope_id(interface.index);
            SockAddr::from(v6)
        }
        _ => SockAddr::from(group),
    }
}

/// Opens the socket that hears the group: from anybody, or from `sources` only.
pub(super) fn open_receiver(
    settings: &MulticastSettings,
    interface: &Interface,
    sources: &[IpAddr],
    owner: SocketOwner,
) -> Result<Socket, NetworkError> {
    let group = settings.group;
    let failed = |error| host("open the multicast socket", &error);
    let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))
        .map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.set_reuse_address(true).map_err(failed)?;
    if group.is_ipv4() {
        socket.set_multicast_all_v4(false).map_err(failed)?;
    } else {
        socket.set_only_v6(true).map_err(failed)?;
        socket.set_multicast_all_v6(false).map_err(failed)?;
    }
    super::udp::bind(&socket, &target(group, interface), group, owner)?;
    if settings.source_specific {
        for &source in sources {
            join(&socket, group, Some(source), interface)?;
        }
    } else {
        join(&socket, group, None, interface)?;
    }
    Ok(socket)
}

/// Does multicast work on this host's interface? Sends to the group from `bind`'s address and any port, and waits up to
/// `timeout` for that to come back. It cannot know whether the network between the hosts carries it: the nodes find out by
/// hearing each other. Blocks; for the start of a node whose transport is chosen by itself.
///
/// # Errors
/// As [`super::udp::UdpNetwork::open`] has for these settings, but for a network that takes no multicast: that is `false`.
pub fn probe(
    settings: &MulticastSettings,
    node: NodeId,
    bind: SocketAddr,
    timeout: Duration,
) -> Result<bool, NetworkError> {
    let failed = |error| host("probe multicast", &error);
    let owner = SocketOwner::Multicast(node);
    let interface = check(settings, bind, bind.ip())?;
    let receiver = open_receiver(settings, &interface, &[bind.ip()], owner)?;
    let sender =
        Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP)).map_err(failed)?;
    let any_port = SocketAddr::new(bind.ip(), 0);
    super::udp::bind(&sender, &any_port.into(), any_port, owner)?;
    prepare_sender(&sender, settings, &interface)?;
    let start = HostClock.now();
    let token = format!("quorate probe {} {start}", std::process::id());
    if sender.send_to(token.as_bytes(), &target(settings.group, &interface)).is_err() {
        return Ok(false);
    }
    receiver.set_nonblocking(false).map_err(failed)?;
    receiver.set_read_timeout(Some(Duration::from_millis(1))).map_err(failed)?;
    let mut buffer = [0; 64];
    while u128::from(HostClock.now().since(start)) < timeout.as_nanos() {
        // What others send to the group meanwhile is not the token.
        if (&receiver).read(&mut buffer).is_ok_and(|n| buffer[..n] == *token.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The calls for IPv4 and IPv6 are the same: the address says which it is.
fn join(
    socket: &Socket,
    group: SocketAddr,
    source: Option<IpAddr>,
    interface: &Interface,
) -> Result<(), NetworkError> {
    let level = if group.is_ipv4() { libc::IPPROTO_IP } else { libc::IPPROTO_IPV6 };
    let group_storage = storage(group);
    let joined = if let Some(source) = source {
        let request = libc::group_source_req {
            gsr_interface: interface.index,
            gsr_group: group_storage,
            gsr_source: storage(SocketAddr::new(source, 0)),
        };
        option::set(socket, level, libc::MCAST_JOIN_SOURCE_GROUP, &request)
    } else {
        let request = libc::group_req { gr_interface: interface.index, gr_group: group_storage };
        option::set(socket, level, libc::MCAST_JOIN_GROUP, &request)
    };
    joined.map_err(|error| NetworkError::JoinRefused {
        group,
        source,
        interface: interface.name.clone(),
        code: error.raw_os_error().unwrap_or(0),
    })
}

fn storage(address: SocketAddr) -> libc::sockaddr_storage {
    // SAFETY: a plain C structure of integers, for which zeros are a value.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let address = SockAddr::from(address);
    // SAFETY: the address is that long, and `sockaddr_storage` has room for every kind of address.
    unsafe {
        core::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            (&raw mut storage).cast::<u8>(),
            address.len() as usize,
        );
    }
    storage
}

fn host(what: &'static str, error: &io::Error) -> NetworkError {
    NetworkError::Host { what, code: error.raw_os_error().unwrap_or(0) }
}

//! What a network is made from, and the checks that need no socket.

use core::net::{IpAddr, SocketAddr};

use super::faults::FaultSettings;
use super::multicast::MulticastSettings;
use super::network_error::NetworkError;
use crate::limits::{
    DATAGRAM_BYTES_DEFAULT, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, NODES_MAX, RECEIVE_BATCH_MAX,
    SOCKET_BUFFER_BYTES_DEFAULT,
};
use crate::types::NodeId;

/// How the members are reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Transport {
    /// The same bytes to each.
    Unicast,
    /// One datagram to a group that all have joined.
    Multicast(MulticastSettings),
}

/// Whether runs of datagrams are handed over in one call.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Gso {
    /// Where the host can do so.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// What a network is made from.
#[derive(Clone, PartialEq, Debug)]
pub struct UdpSettings {
    /// Which node this is; `None`: a client.
    pub node: Option<NodeId>,
    /// Data addresses of the group's nodes, the own one included.
    pub members: Vec<(NodeId, SocketAddr)>,
    /// What the data socket binds. Port 0 takes any.
    pub bind: SocketAddr,
    /// How members are reached.
    pub transport: Transport,
    /// Largest UDP payload sent, in bytes, header included. Longer ones are received only with offload.
    pub datagram_bytes: usize,
    /// Receive buffers per socket: what one poll takes from it at most.
    pub receive_batch: usize,
    /// Size asked of the host for each socket's buffers, in bytes.
    pub socket_buffer_bytes: usize,
    /// Let the host poll the network card this long in a receive call, in microseconds; 0 does not.
    pub busy_poll_us: u32,
    /// Runs of datagrams in one call, out and in.
    pub gso: Gso,
    /// Faults to bring in, for tests and demonstrations.
    pub faults: Option<FaultSettings>,
}

impl UdpSettings {
    /// Of a node, with defaults: unicast, bound to its own data address.
    ///
    /// # Errors
    /// The node is not in the list.
    pub fn node(node: NodeId, members: Vec<(NodeId, SocketAddr)>) -> Result<Self, NetworkError> {
        let own = members.iter().find(|member| member.0 == node);
        let bind = own.ok_or(NetworkError::NotMember { node })?.1;
        Ok(Self { node: Some(node), receive_batch: 32, ..Self::client(members, bind) })
    }

    /// Of a client, with defaults: a few small buffers, any port of `bind` if its port is 0.
    #[must_use]
    pub fn client(members: Vec<(NodeId, SocketAddr)>, bind: SocketAddr) -> Self {
        Self {
            node: None,
            members,
            bind,
            transport: Transport::Unicast,
            datagram_bytes: DATAGRAM_BYTES_DEFAULT,
            receive_batch: 8,
            socket_buffer_bytes: SOCKET_BUFFER_BYTES_DEFAULT,
            busy_poll_us: 0,
            gso: Gso::Auto,
            faults: None,
        }
    }

    /// Checks what can be checked without the host.
    pub(super) fn check(&self) -> Result<(), NetworkError> {
        let ranges = [
            ("datagram_bytes", self.datagram_bytes, DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_MAX),
            ("receive_batch", self.receive_batch, 1, RECEIVE_BATCH_MAX),
            ("socket_buffer_bytes", self.socket_buffer_bytes, 4096, 1 << 30),
            ("busy_poll_us", self.busy_poll_us as usize, 0, 1_000_000),
        ];
        for (setting, value, lowest, highest) in ranges {
            if !(lowest..=highest).contains(&value) {
                let [value, lowest, highest] = [value, lowest, highest].map(|n| n as u64);
                return Err(NetworkError::Setting { setting, value, lowest, highest });
            }
        }
        let members = &self.members;
        if members.len() > NODES_MAX {
            return Err(NetworkError::MembersMax { members: members.len() });
        }
        for (n, &(node, address)) in members.iter().enumerate() {
            let ip = address.ip();
            if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
                return Err(NetworkError::MemberAddress { node, address });
            }
            if address.is_ipv4() != self.bind.is_ipv4() {
                return Err(NetworkError::FamilyMixed { bind: self.bind, address });
            }
            if members[..n].iter().any(|member| member.0 == node) {
                return Err(NetworkError::MemberTwice { node });
            }
            if let Some(other) = members[..n].iter().find(|member| member.1 == address) {
                return Err(NetworkError::AddressTwice { node: other.0, other: node, address });
            }
        }
        match self.node {
            Some(node) if members.iter().all(|member| member.0 != node) => {
                Err(NetworkError::NotMember { node })
            }
            None if self.transport != Transport::Unicast => Err(NetworkError::ClientMulticast),
            _ => Ok(()),
        }
    }

    /// The address by which the others know this node, or what it binds if that says more.
    pub(super) fn own_address(&self) -> IpAddr {
        if !self.bind.ip().is_unspecified() {
            return self.bind.ip();
        }
        let own = self.members.iter().find(|member| Some(member.0) == self.node);
        own.map_or(self.bind.ip(), |member| member.1.ip())
    }

    /// The other members' addresses, each once: the sources that a source-specific join names.
    pub(super) fn sources(&self) -> Vec<IpAddr> {
        let others = self.members.iter().filter(|member| Some(member.0) != self.node);
        let mut sources: Vec<IpAddr> = others.map(|member| member.1.ip()).collect();
        sources.sort_unstable();
        sources.dedup();
        if sources.is_empty() {
            // A group of one hears nobody but itself; without any join it would hear everybody.
            sources.push(self.own_address());
        }
        sources
    }
}

//! Why a network cannot be opened: closed, and each says which address, interface or setting it is about.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::io;

use super::port::Holder;
use crate::types::NodeId;

/// Who wanted a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketOwner {
    /// The data socket of a node.
    Data(NodeId),
    /// The multicast socket of a node.
    Multicast(NodeId),
    /// The socket of a client.
    Client,
}

impl fmt::Display for SocketOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(node) => write!(f, "the data socket of node {node}"),
            Self::Multicast(node) => write!(f, "the multicast socket of node {node}"),
            Self::Client => f.write_str("the socket of the client"),
        }
    }
}

/// Why a network cannot be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum NetworkError {
    /// Another socket has the port.
    PortTaken {
        /// Who wanted it.
        owner: SocketOwner,
        /// Which one.
        address: SocketAddr,
        /// Who has it, if that could be seen.
        holder: Option<Holder>,
    },
    /// This host does not have that address.
    AddressNotHere {
        /// Who wanted it.
        owner: SocketOwner,
        /// Which one.
        address: SocketAddr,
    },
    /// The host refuses to bind for another reason.
    BindRefused {
        /// Who wanted it.
        owner: SocketOwner,
        /// Which one.
        address: SocketAddr,
        /// The host's error number.
        code: i32,
    },
    /// The node is not in its own member list.
    NotMember {
        /// The node.
        node: NodeId,
    },
    /// More members than a group may have.
    MembersMax {
        /// As given.
        members: usize,
    },
    /// A node is twice in the member list.
    MemberTwice {
        /// The node.
        node: NodeId,
    },
    /// Two members have one data address.
    AddressTwice {
        /// The first.
        node: NodeId,
        /// The other.
        other: NodeId,
        /// Their address.
        address: SocketAddr,
    },
    /// A data address to which nothing can be sent.
    MemberAddress {
        /// The node.
        node: NodeId,
        /// Its address.
        address: SocketAddr,
    },
    /// One socket speaks IPv4 or IPv6, not both.
    FamilyMixed {
        /// What is bound.
        bind: SocketAddr,
        /// What cannot be reached from it.
        address: SocketAddr,
    },
    /// Not a multicast address.
    GroupNotMulticast {
        /// As given.
        group: SocketAddr,
    },
    /// The group's port is the data port: the two sockets would be in each other's way.
    GroupPort {
        /// As given.
        group: SocketAddr,
    },
    /// Clients do not use multicast.
    ClientMulticast,
    /// No such interface.
    InterfaceUnknown {
        /// As given.
        asked: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// No interface is given, and the address that is bound does not tell it.
    InterfaceUnclear {
        /// The address that is bound.
        own: IpAddr,
    },
    /// The interface is switched off.
    InterfaceDown {
        /// Its name.
        interface: String,
    },
    /// The interface has no address of the group's family.
    InterfaceFamily {
        /// Its name.
        interface: String,
        /// The group.
        group: SocketAddr,
    },
    /// The host refuses to join the group.
    JoinRefused {
        /// The group.
        group: SocketAddr,
        /// For this sender only.
        source: Option<IpAddr>,
        /// On this interface.
        interface: String,
        /// The host's error number.
        code: i32,
    },
    /// A setting out of its range.
    Setting {
        /// Its name.
        setting: &'static str,
        /// As given.
        value: u64,
        /// Smallest allowed.
        lowest: u64,
        /// Largest allowed.
        highest: u64,
    },
    /// A share of faults that is not within 0 to 1.
    FaultShare {
        /// Its name.
        setting: &'static str,
    },
    /// Another system call failed.
    Host {
        /// What it was to do.
        what: &'static str,
        /// The host's error number.
        code: i32,
    },
}

impl fmt::Display for NetworkError {
    #[allow(clippy::too_many_lines)] // one sentence per variant
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { owner, address, holder } => {
                write!(f, "port {} is taken: {owner} wants {address}", address.port())?;
                match holder {
                    Some(holder) => write!(f, ", and {holder} has it"),
                    None => f.write_str(", and another process has it"),
                }
            }
            Self::AddressNotHere { owner, address } => {
                write!(f, "{owner} wants {address}, but this host does not have that address")
            }
            Self::BindRefused { owner, address, code } => {
                write!(f, "{owner} wants {address}: {}", host_text(*code))
            }
            Self::NotMember { node } => write!(f, "node {node} is not in its own member list"),
            Self::MembersMax { members } => {
                write!(f, "{members} members; at most {} are possible", crate::limits::NODES_MAX)
            }
            Self::MemberTwice { node } => write!(f, "node {node} is twice in the member list"),
            Self::AddressTwice { node, other, address } => {
                write!(f, "nodes {node} and {other} have the same data address {address}")
            }
            Self::MemberAddress { node, address } => write!(
                f,
                "nothing can be sent to {address}, the data address of node {node}: it must be the address of one host, with a port"
            ),
            Self::FamilyMixed { bind, address } => {
                write!(f, "{address} cannot be reached from {bind}: one is IPv4, the other IPv6")
            }
            Self::ClientMulticast => {
                f.write_str("a client is asked to use multicast: only nodes do")
            }
            Self::Setting { setting, value, lowest, highest } => {
                write!(f, "{setting} is {value}; it must be {lowest} to {highest}")
            }
            Self::FaultShare { setting } => {
                write!(f, "faults.{setting} is a share: it must be 0 to 1")
            }
            Self::Host { what, code } => write!(f, "cannot {what}: {}", host_text(*code)),
            Self::GroupNotMulticast { group } => write!(
                f,
                "{group} is not a multicast group: these are 224.0.0.0 to 239.255.255.255, and ff00::/8"
            ),
            Self::GroupPort { group } => {
                write!(f, "multicast group {group} must have another port than the data socket")
            }
            Self::InterfaceUnknown { asked, known } => {
                write!(f, "there is no interface {asked}; there are: {}", known.join("; "))
            }
            Self::InterfaceUnclear { own } => {
                write!(
                    f,
                    "multicast needs an interface: none is given, and {own} does not tell which"
                )
            }
            Self::InterfaceDown { interface } => write!(f, "interface {interface} is switched off"),
            Self::InterfaceFamily { interface, group } => write!(
                f,
                "interface {interface} has no IPv{} address for multicast group {group}",
                if group.is_ipv4() { 4 } else { 6 }
            ),
            Self::JoinRefused { group, source, interface, code } => {
                write!(f, "cannot join multicast group {group} on interface {interface}")?;
                if let Some(source) = source {
                    write!(f, " for sender {source}")?;
                }
                write!(f, ": {}", host_text(*code))?;
                if *code == libc::ENOBUFS {
                    f.write_str(" (net.ipv4.igmp_max_msf and igmp_max_memberships limit it)")?;
                }
                Ok(())
            }
        }
    }
}

impl core::error::Error for NetworkError {}

/// The host's own words for its error number.
fn host_text(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

//! The network interfaces of the host, and which of them a setting means.
//!
//! Multicast without an explicit interface goes where the routing table happens to point, which differs from host to host;
//! so a node always names one, if only by the address it binds.
#![allow(unsafe_code)]

use core::ffi::CStr;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ptr::null_mut;
use core::str::FromStr;
use std::io;

use super::network_error::NetworkError;

/// Which interface multicast uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InterfaceChoice {
    /// The one with this name.
    Name(String),
    /// The one that has this address.
    Address(IpAddr),
}

impl FromStr for InterfaceChoice {
    type Err = core::convert::Infallible;

    /// An address, or else a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Address))
    }
}

impl fmt::Display for InterfaceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// One interface of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Name, such as `eth0`.
    pub name: String,
    /// The host's number for it.
    pub index: u32,
    /// It is switched on.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// Its first address of the family of `like`.
    #[must_use]
    pub fn address_like(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
    }
}

/// All interfaces that have an address or are known by name, in the host's order.
///
/// # Errors
/// What the host answers; in practice only out of memory.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut list = List(null_mut());
    // SAFETY: the pointer to write to is valid; the list is freed by `List`.
    if unsafe { libc::getifaddrs(&raw mut list.0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found: Vec<Interface> = Vec::new();
    let mut next = list.0;
    while !next.is_null() {
        // SAFETY: `getifaddrs` gave a list of valid entries that ends with null, and it is not freed before `list` is.
        let entry = unsafe { &*next };
        // SAFETY: the name of an entry is a C string that lives as long as the list.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        let place = place_of(&mut found, name, entry.ifa_flags);
        if let Some(address) = address_of(entry.ifa_addr) {
            found[place].addresses.push(address);
        }
        next = entry.ifa_next;
    }
    Ok(found)
}

/// The interface that `choice` means; without one, the one that has `own`.
///
/// # Errors
/// Unknown or switched off, or `own` is on none of them.
pub fn resolve(choice: Option<&InterfaceChoice>, own: IpAddr) -> Result<Interface, NetworkError> {
    let all = interfaces().map_err(|error| NetworkError::Host {
        what: "list the network interfaces",
        code: error.raw_os_error().unwrap_or(0),
    })?;
    let asked = match choice {
        Some(choice) => choice.clone(),
        None if own.is_unspecified() => return Err(NetworkError::InterfaceUnclear { own }),
        None => InterfaceChoice::Address(own),
    };
    let chosen = all.iter().find(|interface| match &asked {
        InterfaceChoice::Name(name) => interface.name == *name,
        // The host answers to all of 127.0.0.0/8, though the interface lists one address of it.
        InterfaceChoice::Address(address) => interface.addresses.iter().any(|has| {
            has == address
                || (has.is_loopback()
                    && address.is_loopback()
                    && has.is_ipv4() == address.is_ipv4())
        }),
    });
    match chosen {
        None => Err(NetworkError::InterfaceUnknown {
            asked: asked.to_string(),
            known: all.iter().map(describe).collect(),
        }),
        Some(interface) if !interface.up => {
            Err(NetworkError::InterfaceDown { interface: interface.name.clone() })
        }
        Some(interface) => Ok(interface.clone()),
    }
}

fn describe(interface: &Interface) -> String {
    use fmt::Write as _;
    let mut text = interface.name.clone();
    for (n, address) in interface.addresses.iter().enumerate() {
        let _ = write!(text, "{}{address}", if n == 0 { " " } else { ", " });
    }
    text
}

struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: null, or what `getifaddrs` gave; freed once.
        unsafe { libc::freeifaddrs(self.0) };
    }
}

fn place_of(found: &mut Vec<Interface>, name: &CStr, flags: u32) -> usize {
    let text = name.to_string_lossy();
    found.iter().position(|interface| interface.name == text).unwrap_or_else(|| {
        // SAFETY: the name is a C string.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let up = flags & libc::IFF_UP.cast_unsigned() != 0;
        found.push(Interface { name: text.into_owned(), index, up, addresses: Vec::new() });
        found.len() - 1
    })
}

fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: a non-null address of an entry starts with a family.
    match i32::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => {
            // SAFETY: the family says that this is a `sockaddr_in`; the host aligns it.
            let v4 = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that this is a `sockaddr_in6`; the host aligns it.
            let v6 = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_by_address_and_by_its_name() {
        let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let by_address = resolve(None, own).unwrap();
        assert!(by_address.up && by_address.index > 0 && by_address.addresses.contains(&own));
        let choice: InterfaceChoice = by_address.name.parse().unwrap();
        assert_eq!(resolve(Some(&choice), own).unwrap(), by_address);
    }

    #[test]
    fn an_unknown_interface_is_refused_with_the_ones_there_are() {
        let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let choice = InterfaceChoice::Name("nowhere7".into());
        let text = resolve(Some(&choice), own).unwrap_err().to_string();
        assert!(text.contains("nowhere7") && text.contains("127.0.0.1"), "{text}");
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert_eq!(resolve(None, any), Err(NetworkError::InterfaceUnclear { own: any }));
    }
}

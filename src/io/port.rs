//! Who has a port: read from the process table, as far as the host lets us see it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fs;

/// Which table of the host a port is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// A process that has a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.process == std::process::id() {
            return f.write_str("this process itself");
        }
        write!(f, "process {} ({})", self.process, self.name)
    }
}

/// The process whose socket is in the way of `address`, if it can be seen: those of other users cannot.
#[must_use]
pub fn holder(protocol: Protocol, address: SocketAddr) -> Option<Holder> {
    let tables = match protocol {
        Protocol::Udp => ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"],
        Protocol::Tcp => ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"],
    };
    let inode = tables.iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| {
            let (local, inode) = parse_line(line)?;
            in_the_way(local, address).then_some(inode)
        })
    })?;
    process_of(inode)
}

/// Local address and inode of one line of the table.
fn parse_line(line: &str) -> Option<(SocketAddr, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let inode = fields.nth(7)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(parse_address(address)?, port), inode))
}

/// 32-bit words in the byte order of the host, each as 8 hex digits.
fn parse_address(hex: &str) -> Option<IpAddr> {
    if !hex.is_ascii() {
        return None;
    }
    let word = |n: usize| {
        let digits = hex.get(n * 8..n * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (n, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(n)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// Would a socket on `taken` keep another from binding `wanted`?
fn in_the_way(taken: SocketAddr, wanted: SocketAddr) -> bool {
    taken.port() == wanted.port()
        && (taken.ip() == wanted.ip()
            || taken.ip().is_unspecified()
            || wanted.ip().is_unspecified())
}

fn process_of(inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let mut links = descriptors.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        if links.any(|link| link.as_os_str() == wanted.as_str()) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some(Holder { process, name: name.trim_end().to_owned() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn lines_of_the_table_are_read() {
        let line = "  123: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4242 2 0000000000000000 0";
        assert_eq!(parse_line(line), Some((SocketAddr::from(([127, 0, 0, 1], 8080)), 4242)));
        let v6 = "00000000000000000000000001000000";
        assert_eq!(parse_address(v6), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        for garbage in ["", "  1: 0100007F", "1: zz:1 a b c d e f g h", "1: 01:02 a b c d e f 7 9"]
        {
            assert_eq!(parse_line(garbage), None);
        }
    }

    #[test]
    fn a11_the_holder_of_a_port_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = holder(Protocol::Udp, socket.local_addr().unwrap()).unwrap();
        assert_eq!(found.process, std::process::id());
    }
}

//! The network between hosts, as far as one machine can have several: network namespaces joined by a bridge, with the MTU of
//! an Ethernet. Needs the privilege to make them.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do
#![allow(unsafe_code)]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use quorate::io::multicast::MulticastSettings;
use quorate::io::udp::{Transport, UdpNetwork, UdpSettings};
use quorate::stream::datagram::{DatagramHeader, DatagramKind, parse};
use quorate::stream::network::{Destination, Network};
use quorate::types::{GroupId, Leadership, NodeId};

const GROUP: GroupId = GroupId(78);
const NODES: u16 = 3;

/// One namespace per node and one for the bridge; gone when dropped. One test at a time has them: a process that another test
/// starts holds the sockets of this one for a moment, and ports are used twice here.
struct Hosts(String, #[allow(dead_code)] MutexGuard<'static, ()>);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

impl Hosts {
    /// `None`, with the reason printed, where that is not possible.
    fn new(name: &str) -> Option<Self> {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let hosts = Self(format!("quorate-{}-{name}", std::process::id()), guard);
        match hosts.build() {
            Ok(()) => Some(hosts),
            Err(why) => {
                println!("SKIPPED: no network namespaces: {why}");
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.name("bridge");
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        for node in 0..NODES {
            let (host, port) = (self.name(&node.to_string()), format!("port{node}"));
            ip(&["netns", "add", &host])?;
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", &host];
            ip(&[&["-n", &bridge, "link", "add", &port], &pair[..]].concat())?;
            ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
            let (v4, v6) = (format!("{}/24", address(node)), format!("{}/64", address_v6(node)));
            ip(&["-n", &host, "address", "add", &v4, "dev", "eth0"])?;
            ip(&["-n", &host, "address", "add", &v6, "dev", "eth0", "nodad"])?;
            ip(&["-n", &host, "link", "set", "eth0", "up"])?;
            ip(&["-n", &host, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn name(&self, of: &str) -> String {
        format!("{}-{of}", self.0)
    }

    /// Opens the network of a node in its namespace; sockets stay where they were opened.
    fn open(&self, settings: UdpSettings) -> UdpNetwork {
        let node = settings.node.unwrap();
        let file = File::open(format!("/run/netns/{}", self.name(&node.to_string()))).unwrap();
        let inside = move || {
            // SAFETY: takes a live descriptor and a flag; moves this thread only, which ends here.
            assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            UdpNetwork::open(&settings).unwrap()
        };
        thread::spawn(inside).join().unwrap()
    }

    fn open_all(&self, change: impl Fn(&mut UdpSettings)) -> Vec<UdpNetwork> {
        self.open_all_at(address, change)
    }

    fn open_all_at(
        &self,
        address: fn(u16) -> IpAddr,
        change: impl Fn(&mut UdpSettings),
    ) -> Vec<UdpNetwork> {
        let member = |node| (NodeId(node), SocketAddr::new(address(node), 9_000));
        let members: Vec<_> = (0..NODES).map(member).collect();
        (0..NODES)
            .map(|node| {
                let mut settings = UdpSettings::node(NodeId(node), members.clone()).unwrap();
                change(&mut settings);
                self.open(settings)
            })
            .collect()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let of = (0..NODES).map(|node| node.to_string()).chain(["bridge".into()]);
        for name in of {
            // Those that were never made are not there to be removed.
            let _ = ip(&["netns", "delete", &self.name(&name)]);
        }
    }
}

fn address(node: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, node as u8 + 1))
}

fn address_v6(node: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, node + 1))
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("ip");
    let output = command.args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

fn header(node: u16, position: u64) -> DatagramHeader {
    let kind = DatagramKind::Data;
    let mut header = DatagramHeader::new(kind, GROUP, Some(NodeId(node)), Leadership::default());
    header.position.set(position);
    header
}

/// Bodies by node and position of all that arrives until `bytes` of them are there, or for 3 seconds.
fn receive(network: &mut UdpNetwork, bytes: usize) -> Vec<(u16, u64, Vec<u8>)> {
    let mut seen: Vec<(u16, u64, Vec<u8>)> = Vec::new();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end && seen.iter().map(|seen| seen.2.len()).sum::<usize>() < bytes {
        for index in 0..network.poll() {
            let (from, bytes) = network.datagram(index);
            let (header, _, body) = parse(bytes, GROUP).unwrap();
            let node = header.node.get();
            assert!([address(node), address_v6(node)].contains(&from.ip()) && from.port() == 9_000);
            seen.push((header.node.get(), header.position.get(), body.to_vec()));
        }
        thread::yield_now();
    }
    seen.sort();
    seen
}

/// Everybody sends 40,000 bytes to the others; each other one gets exactly these.
fn everybody_hears_everybody(networks: &mut [UdpNetwork]) {
    let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n * 7 / 3) as u8).collect();
    for (node, network) in (0..).zip(networks.iter_mut()) {
        network.send(Destination::Members, &header(node, 0), &[], &bytes);
    }
    for (own, network) in (0..).zip(networks.iter_mut()) {
        let seen = receive(network, 2 * bytes.len());
        for node in (0..NODES).filter(|&node| node != own) {
            let mut whole = Vec::new();
            for (_, position, body) in seen.iter().filter(|seen| seen.0 == node) {
                assert_eq!(*position, whole.len() as u64, "node {own} from node {node}");
                whole.extend_from_slice(body);
            }
            assert!(
                whole == bytes,
                "node {own} from node {node}: {} bytes {:?}",
                whole.len(),
                network.counters()
            );
        }
    }
}

#[test]
fn unicast_and_multicast_between_hosts() {
    let Some(hosts) = Hosts::new("cast") else { return };
    everybody_hears_everybody(&mut hosts.open_all(|_| {}));
    for (group, source_specific) in [("239.255.78.1:9001", false), ("232.78.1.1:9001", true)] {
        let group = group.parse().unwrap();
        let mut networks = hosts.open_all(|settings| {
            let multi = MulticastSettings { source_specific, ..MulticastSettings::new(group) };
            settings.transport = Transport::Multicast(multi);
        });
        everybody_hears_everybody(&mut networks);
        let sent = networks[0].counters().datagrams_sent;
        assert_eq!(sent, 40_000_u64.div_ceil(1344), "one datagram for all of them");
    }
}

#[test]
fn ipv6_between_hosts() {
    let Some(hosts) = Hosts::new("six") else { return };
    everybody_hears_everybody(&mut hosts.open_all_at(address_v6, |_| {}));
    for (group, source_specific) in [("[ff15::78:1]:9001", false), ("[ff35::78:1]:9001", true)] {
        let group = group.parse().unwrap();
        let mut networks = hosts.open_all_at(address_v6, |settings| {
            let multi = MulticastSettings { source_specific, ..MulticastSettings::new(group) };
            settings.transport = Transport::Multicast(multi);
        });
        everybody_hears_everybody(&mut networks);
        assert_eq!(
            networks[0].counters().own_dropped,
            40_000_u64.div_ceil(1344) * u64::from(!source_specific)
        );
    }
}

#[test]
fn an_interface_is_chosen_by_name_when_any_address_is_bound() {
    let Some(hosts) = Hosts::new("name") else { return };
    let mut networks = hosts.open_all(|settings| {
        let group = "239.255.78.2:9001".parse().unwrap();
        let interface = Some("eth0".parse().unwrap());
        let multi = MulticastSettings { interface, ..MulticastSettings::new(group) };
        settings.transport = Transport::Multicast(multi);
        settings.bind = SocketAddr::from(([0, 0, 0, 0], 9_000));
    });
    everybody_hears_everybody(&mut networks);
}

#[test]
fn datagrams_longer_than_the_path_takes_go_out_one_by_one() {
    let Some(hosts) = Hosts::new("mtu") else { return };
    let mut networks = hosts.open_all(|settings| settings.datagram_bytes = 8_000);
    let offloads = networks[0].offloads();
    everybody_hears_everybody(&mut networks);
    let counters = networks[0].counters();
    // Two members, 40,000 bytes in 7,936 each: the runs were refused, and then went out as 6 datagrams each.
    assert_eq!((counters.datagrams_sent, counters.send_failures), (12, 0), "{counters:?}");
    if offloads {
        assert_eq!(counters.offload_refused, 2, "{counters:?}");
    }
}

//! Settings of the data network, seen on real sockets of the loopback interface.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{Pair, addresses, settings};
use crate::io::network_error::NetworkError;
use crate::io::udp::UdpNetwork;
use crate::limits::DATAGRAM_HEADER_BYTES;
use crate::link::NoWake;
use crate::replica::tests::GROUP;
use crate::runtime::environment::{Host, Transport};
use crate::runtime::node::NodeError;
use crate::stream::datagram::{DatagramHeader, DatagramKind};
use crate::stream::network::{Destination, Network};
use crate::types::{Leadership, NodeId};

/// The network of one node, opened as a node opens it.
fn open(node: usize, members: &[SocketAddr], set: &[Pair<'_>]) -> Result<UdpNetwork, NetworkError> {
    match Host.network(&settings(node, members, set), Arc::new(NoWake)) {
        Err(NodeError::Network(error)) => Err(error),
        opened => Ok(opened.expect("a network fails as a network")),
    }
}

fn opened<const NODES: usize>(set: &[Pair<'_>]) -> [UdpNetwork; NODES] {
    let members = addresses(NODES);
    core::array::from_fn(|node| open(node, &members, set).expect("loopback takes it"))
}

/// A multicast group on a port that no other test has.
fn multicast_group(address: &str) -> String {
    let port = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    format!("{address}:{}", port.expect("a free port").port())
}

fn send(network: &mut UdpNetwork, node: u16, position: u64, bytes: usize) {
    let kind = DatagramKind::Data;
    let mut header = DatagramHeader::new(kind, GROUP, Some(NodeId(node)), Leadership::default());
    header.position.set(position);
    let body: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
    network.send(Destination::Members, &header, &[], &body);
}

/// What arrives until nothing has for a while: looks are counted, so that a thread that is kept waiting misses nothing.
fn heard(network: &mut UdpNetwork) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    let mut quiet = 0;
    while quiet < 60 {
        let count = network.poll();
        heard.extend((0..count).map(|index| network.datagram(index).1.to_vec()));
        quiet = if count > 0 { 0 } else { quiet + 1 };
        std::thread::sleep(Duration::from_millis(1));
    }
    heard
}

/// Positions of what arrives.
fn positions(network: &mut UdpNetwork) -> Vec<u64> {
    let position = |bytes: Vec<u8>| {
        let at = core::mem::offset_of!(DatagramHeader, position);
        bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    heard(network).into_iter().map(position).collect()
}

fn sent(set: &[Pair<'_>], bytes: usize) -> u64 {
    let mut networks = opened::<3>(set);
    send(&mut networks[0], 0, 0, bytes);
    networks[0].counters().datagrams_sent
}

#[test]
fn r15_transport_kind() {
    let group = multicast_group("239.255.78.1");
    let with = |kind| sent(&[("transport.kind", kind), ("transport.group", &group)], 100);
    assert_eq!((with("unicast"), with("multicast")), (2, 1));
    assert_eq!(with("auto"), 1, "a probe comes back on loopback");
    assert_eq!(
        sent(&[("transport.kind", "auto")], 100),
        2,
        "without a group there is nothing to probe"
    );
}

#[test]
fn r15_transport_group() {
    let members = addresses(3);
    let [one, two] = ["239.255.78.2", "239.255.78.3"].map(multicast_group);
    let with = |node, group: &str| {
        open(node, &members, &[("transport.kind", "multicast"), ("transport.group", group)])
            .expect("loopback takes it")
    };
    let mut networks = [with(0, &one), with(1, &one), with(2, &two)];
    send(&mut networks[0], 0, 7, 10);
    assert_eq!(positions(&mut networks[1]), [7]);
    assert_eq!(positions(&mut networks[2]), [0_u64; 0]);
}

#[test]
fn r15_transport_source_specific() {
    for (source_specific, expected) in [("false", vec![5]), ("true", vec![])] {
        let group = multicast_group("232.78.1.1");
        let members: Vec<SocketAddr> = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
            .iter()
            .filter_map(|ip| UdpSocket::bind((*ip, 0)).and_then(|socket| socket.local_addr()).ok())
            .collect();
        let with = |node, members: &[SocketAddr]| {
            let set = [
                ("transport.kind", "multicast"),
                ("transport.group", &*group),
                ("transport.source_specific", source_specific),
            ];
            open(node, members, &set).expect("loopback takes it")
        };
        // The third is on nobody's list but its own.
        let mut listener = with(0, &members[..2]);
        let mut stranger = with(2, &members);
        send(&mut stranger, 2, 5, 10);
        assert_eq!(positions(&mut listener), expected, "source specific: {source_specific}");
    }
}

#[test]
fn r15_transport_interface() {
    let members = addresses(1);
    let group = multicast_group("239.255.78.4");
    let with = |interface| {
        let set = [
            ("transport.kind", "multicast"),
            ("transport.group", &*group),
            ("transport.interface", interface),
        ];
        open(0, &members, &set).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(with("auto"), Ok(()));
    assert_eq!(with("127.0.0.1"), Ok(()));
    let error = with("203.0.113.9").expect_err("no host has this address");
    assert!(error.contains("203.0.113.9"), "{error}");
}

#[test]
fn r15_transport_ttl() {
    for ttl in [0, 1, 9] {
        let members = addresses(1);
        let group = multicast_group("239.255.78.5");
        let set = [
            ("transport.kind", "multicast"),
            ("transport.group", &*group),
            ("transport.ttl", &*ttl.to_string()),
        ];
        let network = open(0, &members, &set).expect("loopback takes it");
        let data = network.descriptors().next().expect("the data socket");
        assert_eq!(SockRef::from(&data).multicast_ttl_v4().ok(), Some(ttl));
    }
}

#[test]
fn r15_transport_datagram_bytes() {
    for bytes in [256, 1408, 8000] {
        let each = bytes - DATAGRAM_HEADER_BYTES;
        let datagrams = sent(&[("transport.datagram_bytes", &bytes.to_string())], 10_000);
        assert_eq!(datagrams as usize, 2 * 10_000_usize.div_ceil(each), "{bytes}");
    }
}

#[test]
fn r15_transport_socket_buffer_bytes() {
    for bytes in [8192, 65_536] {
        let [network] = opened::<1>(&[("transport.socket_buffer_bytes", &bytes.to_string())]);
        let data = network.descriptors().next().expect("the data socket");
        let socket = SockRef::from(&data);
        // The host counts its own bookkeeping in.
        assert_eq!(socket.recv_buffer_size().ok(), Some(2 * bytes));
        assert_eq!(socket.send_buffer_size().ok(), Some(2 * bytes));
    }
}

#[test]
fn r15_transport_gso() {
    let calls = |gso| {
        let mut networks = opened::<2>(&[("transport.gso", gso)]);
        send(&mut networks[0], 0, 0, 40 * 1344);
        let counters = networks[0].counters();
        assert_eq!(counters.datagrams_sent, 40);
        (networks[0].offloads(), counters.send_calls)
    };
    let (offloads, without) = calls("false");
    assert!(!offloads && without > 1);
    let (offloads, with) = calls("true");
    if !offloads {
        println!("SKIPPED: this host has no segmentation offload");
        return;
    }
    assert_eq!(with, 1);
}

#[test]
fn r15_threads_busy_poll_us() {
    let [none] = opened::<1>(&[]);
    let busy_poll =
        |network: &UdpNetwork| network.option(libc::SOL_SOCKET, libc::SO_BUSY_POLL).ok();
    let default = busy_poll(&none);
    let [network] = opened::<1>(&[("threads.busy_poll_us", "73")]);
    let refused = network.refused().iter().any(|refused| refused.what.contains("busy polling"));
    assert!(none.refused().iter().all(|refused| !refused.what.contains("busy polling")));
    assert_eq!(refused, busy_poll(&network) == default, "granted, or a warning");
    if refused {
        println!(
            "SKIPPED: this host grants no busy polling; it was asked for, and the refusal told"
        );
    } else {
        assert_eq!(busy_poll(&network), Some(73));
    }
}

/// What arrives of 100 datagrams at a node with these settings.
fn through(set: &[Pair<'_>]) -> Vec<u64> {
    let mut networks = opened::<2>(set);
    for position in 0..100 {
        send(&mut networks[0], 0, position, 10);
        // Where the buffers of the host end is not asked here.
        std::thread::sleep(Duration::from_micros(100));
    }
    positions(&mut networks[1])
}

#[test]
fn r15_faults_loss() {
    assert_eq!(through(&[]), (0..100).collect::<Vec<_>>());
    assert_eq!(through(&[("faults.loss", "1")]), [0_u64; 0]);
    let half = through(&[("faults.loss", "0.5")]).len();
    assert!((20..80).contains(&half), "{half}");
}

#[test]
fn r15_faults_duplicate() {
    let twice = through(&[("faults.duplicate", "1")]);
    assert_eq!(twice.len(), 200);
}

#[test]
fn r15_faults_corrupt() {
    let arrived = |share| {
        let mut networks = opened::<2>(&[("faults.corrupt", share)]);
        send(&mut networks[0], 0, 0, 10);
        heard(&mut networks[1])
    };
    let [whole, damaged] = ["0", "1"].map(arrived);
    assert_eq!((whole.len(), damaged.len()), (1, 1));
    // Both left with the same counters, from a sender of its own: one bit is the difference.
    let bits = whole[0].iter().zip(&damaged[0]).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
    assert_eq!((whole[0].len(), bits), (damaged[0].len(), 1));
}

#[test]
fn r15_faults_delay_ms() {
    for delay in [0, 40] {
        let mut networks = opened::<2>(&[("faults.delay_ms", &delay.to_string())]);
        let start = Instant::now();
        send(&mut networks[0], 0, 0, 10);
        if delay > 0 {
            assert_eq!(networks[1].poll(), 0, "it waits");
            assert!(networks[1].next_release().is_some());
        }
        while networks[1].poll() == 0 {
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        assert!(start.elapsed() >= Duration::from_millis(delay));
    }
}

#[test]
fn r15_faults_reorder_ms() {
    let mixed = through(&[("faults.reorder_ms", "20")]);
    assert!(!mixed.is_sorted(), "{mixed:?}");
    let mut sorted = mixed;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..100).collect::<Vec<_>>(), "nothing is lost");
}

#[test]
fn r15_faults_seed() {
    let lost = |seed| through(&[("faults.loss", "0.5"), ("faults.seed", seed)]);
    let first = lost("5");
    assert_eq!(first, lost("5"));
    assert_ne!(first, lost("6"));
}

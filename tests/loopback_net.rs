//! The network over real sockets on the loopback interface: unicast, multicast, offload, faults, and what is refused.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use quorate::io::clock::HostClock;
use quorate::io::cpu::{RunQueue, this_thread};

use quorate::io::faults::FaultSettings;
use quorate::io::multicast::{MulticastSettings, probe};
use quorate::io::network_error::NetworkError;
use quorate::io::udp::{Gso, Transport, UdpNetwork, UdpSettings};
use quorate::io::wake::parking;
use quorate::runtime::idle::{Deadlines, IdleKind, Idler};
use quorate::stream::datagram::{DatagramHeader, DatagramKind, FLAG_PADS, parse};
use quorate::stream::network::{Destination, Network};
use quorate::types::{GroupId, Leadership, Nanos, NodeId, Position};

const GROUP: GroupId = GroupId(77);

/// Data addresses that were free a moment ago.
fn addresses(nodes: u16) -> Vec<(NodeId, SocketAddr)> {
    let sockets: Vec<_> = (0..nodes).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    (0..nodes).map(NodeId).zip(sockets.iter().map(|s| s.local_addr().unwrap())).collect()
}

/// A multicast port that no other test has.
fn group_address(group: &str) -> SocketAddr {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    SocketAddr::new(group.parse().unwrap(), port)
}

fn open_all(nodes: u16, change: impl Fn(&mut UdpSettings)) -> Vec<UdpNetwork> {
    let members = addresses(nodes);
    (0..nodes)
        .map(|node| {
            let mut settings = UdpSettings::node(NodeId(node), members.clone()).unwrap();
            change(&mut settings);
            UdpNetwork::open(&settings).unwrap()
        })
        .collect()
}

fn multicast(group: SocketAddr, source_specific: bool) -> impl Fn(&mut UdpSettings) {
    move |settings| {
        let multi = MulticastSettings { source_specific, ..MulticastSettings::new(group) };
        settings.transport = Transport::Multicast(multi);
    }
}

fn header(node: u16, position: u64) -> DatagramHeader {
    let kind = DatagramKind::Data;
    let mut header = DatagramHeader::new(kind, GROUP, Some(NodeId(node)), Leadership::default());
    header.position.set(position);
    header
}

/// What one datagram said.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    from: SocketAddr,
    node: u16,
    position: Position,
    counter: u64,
    pads: bool,
    body: Vec<u8>,
}

/// Polls until `count` datagrams are there, and a little longer for those that should not be.
fn receive(network: &mut UdpNetwork, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    let end = Instant::now() + Duration::from_secs(5);
    let mut quiet = 0;
    while Instant::now() < end && (seen.len() < count || quiet < 20) {
        let batch = network.poll();
        for index in 0..batch {
            let (from, bytes) = network.datagram(index);
            let (header, _, body) = parse(bytes, GROUP).unwrap();
            seen.push(Seen {
                from,
                node: header.node.get(),
                position: header.position(),
                counter: header.counter.get(),
                pads: header.flags & FLAG_PADS != 0,
                body: body.to_vec(),
            });
        }
        if batch == 0 {
            quiet += 1;
            thread::sleep(Duration::from_millis(1));
        } else {
            quiet = 0;
        }
    }
    seen
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// Each node sends to the members; each other one gets each datagram once, from the sender's data address.
fn everybody_hears_everybody_once(networks: &mut [UdpNetwork]) {
    let rounds = 10_u64;
    for round in 0..rounds {
        for (node, network) in (0..).zip(networks.iter_mut()) {
            network.send(Destination::Members, &header(node, round * 100), &[], &bytes(96));
        }
    }
    let from: Vec<_> = networks.iter().map(|n| n.local_address().unwrap()).collect();
    let others = networks.len() - 1;
    for (own, network) in networks.iter_mut().enumerate() {
        let seen = receive(network, others * rounds as usize);
        assert_eq!(seen.len(), others * rounds as usize, "node {own}");
        for (node, address) in from.iter().enumerate().filter(|(node, _)| *node != own) {
            let of_node: Vec<_> =
                seen.iter().filter(|seen| usize::from(seen.node) == node).collect();
            let positions: Vec<_> = of_node.iter().map(|seen| seen.position.0).collect();
            assert_eq!(positions, (0..rounds).map(|round| round * 100).collect::<Vec<_>>());
            assert!(of_node.iter().all(|seen| seen.from == *address && seen.body == bytes(96)));
        }
    }
}

#[test]
fn unicast_every_node_hears_every_other_once() {
    let mut networks = open_all(3, |_| {});
    everybody_hears_everybody_once(&mut networks);
    assert_eq!(networks[0].counters().datagrams_sent, 20, "one to each of two members, ten times");
}

#[test]
fn multicast_from_any_source_every_node_hears_every_other_once() {
    let mut networks = open_all(5, multicast(group_address("239.255.77.1"), false));
    everybody_hears_everybody_once(&mut networks);
    for network in &networks {
        assert_eq!(network.counters().own_dropped, 10, "own datagrams come back and are dropped");
    }
}

#[test]
fn multicast_source_specific_hears_members_only() {
    let group = group_address("232.77.1.1");
    let members = [("127.0.0.1", 0), ("127.0.0.2", 1), ("127.0.0.3", 2)].map(|(ip, node)| {
        let port = UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
        (NodeId(node), port)
    });
    let open = |node: u16, members: &[(NodeId, SocketAddr)]| {
        let mut settings = UdpSettings::node(NodeId(node), members.to_vec()).unwrap();
        multicast(group, true)(&mut settings);
        UdpNetwork::open(&settings).unwrap()
    };
    // Nodes 0 and 1 know each other; node 2 knows all, but nobody has joined for it.
    let mut networks: Vec<_> = vec![open(0, &members[..2]), open(1, &members[..2])];
    let mut intruder = open(2, &members);
    for round in 0..5 {
        intruder.send(Destination::Members, &header(2, round), &[], &[]);
    }
    everybody_hears_everybody_once(&mut networks);
    assert_eq!(receive(&mut intruder, 20).len(), 20, "the third hears both of the others");
    assert_eq!(intruder.counters().send_failures, 0);
}

#[test]
fn multicast_really_is_one_datagram_whatever_the_members() {
    for nodes in [2, 3, 5] {
        let mut networks = open_all(nodes, multicast(group_address("239.255.77.2"), false));
        for _ in 0..100 {
            networks[0].send(Destination::Members, &header(0, 0), &[], &bytes(500));
        }
        let counters = networks[0].counters();
        assert_eq!((counters.datagrams_sent, counters.send_calls), (100, 100), "{nodes} nodes");
        let mut unicast = open_all(nodes, |_| {});
        unicast[0].send(Destination::Members, &header(0, 0), &[], &bytes(500));
        assert_eq!(unicast[0].counters().datagrams_sent, u64::from(nodes) - 1);
    }
}

#[test]
fn a_probe_tells_whether_multicast_comes_back() {
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let wait = Duration::from_millis(500);
    for (group, source_specific) in [("239.255.77.8", false), ("232.77.1.8", true)] {
        let group = group_address(group);
        let multi = MulticastSettings { source_specific, ..MulticastSettings::new(group) };
        assert_eq!(probe(&multi, NodeId(0), bind, wait), Ok(true));
    }
    // The loopback interface has no route for IPv6 multicast of this scope, or it has: both are an answer.
    let group = group_address("ff15::77");
    let v6 = SocketAddr::new("::1".parse().unwrap(), 0);
    if UdpSocket::bind(v6).is_ok() {
        probe(&MulticastSettings::new(group), NodeId(0), v6, Duration::from_millis(20)).unwrap();
    }
    let wrong = MulticastSettings::new(SocketAddr::from(([10, 0, 0, 1], 5)));
    assert!(probe(&wrong, NodeId(0), bind, wait).is_err());
}

#[test]
fn two_groups_on_one_port_do_not_hear_each_other() {
    let group = group_address("239.255.77.3");
    let mut one = open_all(2, multicast(group, false));
    let other = SocketAddr::new("239.255.77.4".parse().unwrap(), group.port());
    let mut two = open_all(2, multicast(other, false));
    one[0].send(Destination::Members, &header(0, 1), &[], &[]);
    two[0].send(Destination::Members, &header(0, 2), &[], &[]);
    assert_eq!(receive(&mut one[1], 1).iter().map(|s| s.position.0).collect::<Vec<_>>(), [1]);
    assert_eq!(receive(&mut two[1], 1).iter().map(|s| s.position.0).collect::<Vec<_>>(), [2]);
}

/// What arrives is the header, the prefix and the bytes, cut as the trait says.
fn split_exactly(length: usize, gso: Gso, prefix: &[u8], transport: impl Fn(&mut UdpSettings)) {
    let mut networks = open_all(3, |settings| {
        settings.gso = gso;
        transport(settings);
    });
    let bytes = bytes(length);
    let mut template = header(0, 1 << 40);
    template.flags = FLAG_PADS;
    let each = networks[0].body_bytes(prefix.len());
    assert_eq!(each, 1408 - 64 - prefix.len());
    networks[0].send(Destination::Members, &template, prefix, &bytes);
    networks[0].send(Destination::Node(NodeId(1)), &header(0, 9), prefix, &[]);
    let datagrams = length.div_ceil(each).max(1);
    for node in [1, 2] {
        let network = &mut networks[node];
        let mut seen = receive(network, datagrams + usize::from(node == 1));
        let counters = network.counters();
        if node == 1 {
            // The two sockets of a node have no order between them.
            let single = seen.iter().position(|seen| seen.position == Position(9)).unwrap();
            assert_eq!(seen.remove(single).body, prefix);
        }
        assert_eq!(seen.len(), datagrams, "{gso:?}, {length} bytes: {counters:?}");
        let mut whole = Vec::new();
        for (n, seen) in seen.iter().enumerate() {
            assert_eq!(seen.position, Position((1 << 40) + whole.len() as u64));
            assert_eq!(seen.counter, 1 + n as u64);
            assert_eq!(seen.pads, n + 1 == datagrams, "the flag stays on the last one only");
            assert!(n + 1 == datagrams || seen.body.len() == each + prefix.len());
            assert!(seen.body.starts_with(prefix));
            whole.extend_from_slice(&seen.body[prefix.len()..]);
        }
        assert_eq!(whole, bytes);
    }
}

#[test]
fn datagrams_are_cut_byte_for_byte_with_offload_and_without() {
    let each = 1408 - 64;
    for length in [0, 1, each - 1, each, each + 1, 2 * each, 50_000, 200_000] {
        for gso in [Gso::Off, Gso::Auto] {
            split_exactly(length, gso, &[], |_| {});
        }
    }
    for gso in [Gso::Off, Gso::Auto] {
        split_exactly(30_000, gso, b"0123456789abcdef", |_| {});
        let group = group_address("239.255.77.5");
        split_exactly(100_000, gso, b"0123456789abcdef", multicast(group, false));
    }
}

#[test]
fn offload_takes_many_datagrams_in_one_call() {
    let mut networks = open_all(2, |_| {});
    if !networks[0].offloads() {
        println!("SKIPPED: this host has no segmentation offload");
        return;
    }
    networks[0].send(Destination::Members, &header(0, 0), &[], &bytes(40 * 1344));
    let sent = networks[0].counters();
    assert_eq!((sent.datagrams_sent, sent.send_calls, sent.offload_refused), (40, 1, 0));
    assert_eq!(receive(&mut networks[1], 40).len(), 40);
    let received = networks[1].counters();
    assert!(received.receive_calls < 40 + 20 + 5, "they come in runs: {received:?}");
}

#[test]
fn the_largest_datagrams_pass() {
    for gso in [Gso::Off, Gso::Auto] {
        let mut networks = open_all(2, |settings| {
            settings.gso = gso;
            settings.datagram_bytes = 65_507;
        });
        networks[0].send(Destination::Members, &header(0, 0), &[], &bytes(150_000));
        let whole: usize = receive(&mut networks[1], 3).iter().map(|seen| seen.body.len()).sum();
        assert_eq!(whole, 150_000);
    }
}

#[test]
fn what_the_host_drops_is_known() {
    let mut networks = open_all(2, |settings| settings.socket_buffer_bytes = 8192);
    for _ in 0..200 {
        networks[0].send(Destination::Members, &header(0, 0), &[], &bytes(1000));
    }
    let received = receive(&mut networks[1], 1).len() as u64;
    assert!(received < 200, "a buffer of 8 KiB does not hold 200 datagrams");
    assert_eq!(networks[1].host_drops(), Some(200 - received));
    assert_eq!(networks[0].host_drops(), Some(0));
}

#[test]
fn a_client_and_a_node_talk() {
    let members = addresses(1);
    let mut node =
        UdpNetwork::open(&UdpSettings::node(NodeId(0), members.clone()).unwrap()).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut client = UdpNetwork::open(&UdpSettings::client(members, any)).unwrap();
    client.send(Destination::Node(NodeId(0)), &header(9, 5), b"lane", b"bytes");
    let seen = receive(&mut node, 1);
    assert_eq!((seen.len(), &seen[0].body[..]), (1, &b"lanebytes"[..]));
    node.send(Destination::Address(seen[0].from), &header(0, 6), &[], b"answer");
    assert_eq!(receive(&mut client, 1)[0].body, b"answer");
    client.send(Destination::Members, &header(9, 7), &[], &[]);
    assert_eq!(receive(&mut node, 1)[0].position, Position(7));
}

#[test]
fn nobody_there_is_counted_and_never_an_error() {
    let mut network = open_all(3, |_| {}).remove(0);
    network.send(Destination::Members, &header(0, 0), &[], &bytes(5_000));
    network.send(Destination::Node(NodeId(9)), &header(0, 0), &[], &[]);
    let port_zero = SocketAddr::from(([127, 0, 0, 1], 0));
    network.send(Destination::Address(port_zero), &header(0, 0), &[], &[]);
    let unroutable = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9));
    network.send(Destination::Address(unroutable), &header(0, 0), &[], &[]);
    let counters = network.counters();
    assert_eq!((counters.send_nowhere, counters.send_failures), (2, 1), "{counters:?}");
    assert_eq!(network.poll(), 0);
}

#[test]
fn a11_a_taken_port_says_which_one_who_wanted_it_and_who_has_it() {
    let members = addresses(2);
    let taken = UdpSocket::bind(members[1].1).unwrap();
    let settings = UdpSettings::node(NodeId(1), members).unwrap();
    let error = UdpNetwork::open(&settings).unwrap_err();
    let text = error.to_string();
    let port = taken.local_addr().unwrap().port();
    assert!(text.starts_with(&format!("port {port} is taken: ")), "{text}");
    assert!(text.contains("the data socket of node 1") && text.contains("this process"), "{text}");
    drop(taken);
    UdpNetwork::open(&settings).unwrap();
}

#[test]
fn a11_a_taken_group_port_says_so_too() {
    let group = group_address("239.255.77.6");
    let _taken = UdpSocket::bind(("0.0.0.0", group.port())).unwrap();
    let mut settings = UdpSettings::node(NodeId(0), addresses(1)).unwrap();
    multicast(group, false)(&mut settings);
    let text = UdpNetwork::open(&settings).unwrap_err().to_string();
    assert!(text.contains("the multicast socket of node 0"), "{text}");
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let members = addresses(2);
    let good = UdpSettings::node(NodeId(0), members.clone()).unwrap();
    let error = |change: &dyn Fn(&mut UdpSettings)| {
        let mut settings = good.clone();
        change(&mut settings);
        UdpNetwork::open(&settings).unwrap_err()
    };
    let with = |multi: MulticastSettings| {
        error(&|settings| settings.transport = Transport::Multicast(multi.clone()))
    };
    let group = group_address("239.255.77.7");
    let wrong = SocketAddr::from(([10, 1, 2, 3], 9000));
    assert_eq!(
        with(MulticastSettings::new(wrong)),
        NetworkError::GroupNotMulticast { group: wrong }
    );
    let nowhere = MulticastSettings {
        interface: Some("nowhere9".parse().unwrap()),
        ..MulticastSettings::new(group)
    };
    let text = with(nowhere).to_string();
    assert!(text.contains("nowhere9") && text.contains("127.0.0.1"), "{text}");
    let v6 = SocketAddr::new("ff15::7".parse().unwrap(), 9000);
    assert!(matches!(with(MulticastSettings::new(v6)), NetworkError::FamilyMixed { .. }));
    let any = SocketAddr::from(([0, 0, 0, 0], group.port()));
    let same_port = error(&|settings| {
        settings.bind = any;
        settings.transport = Transport::Multicast(MulticastSettings::new(group));
    });
    assert_eq!(same_port, NetworkError::GroupPort { group });
    let foreign = SocketAddr::from(([203, 0, 113, 9], 9000));
    let not_here = error(&|settings| settings.bind = foreign);
    assert!(matches!(not_here, NetworkError::AddressNotHere { address, .. } if address == foreign));
    assert!(matches!(
        error(&|settings| settings.datagram_bytes = 100),
        NetworkError::Setting { setting: "datagram_bytes", value: 100, .. }
    ));
    assert_eq!(
        error(&|settings| settings.node = Some(NodeId(7))),
        NetworkError::NotMember { node: NodeId(7) }
    );
    assert_eq!(
        error(&|settings| settings.members[1].0 = NodeId(0)),
        NetworkError::MemberTwice { node: NodeId(0) }
    );
    assert!(matches!(
        error(&|settings| settings.members[1].1 = members[0].1),
        NetworkError::AddressTwice { .. }
    ));
    assert!(matches!(
        error(&|settings| settings.members[1].1.set_port(0)),
        NetworkError::MemberAddress { node: NodeId(1), .. }
    ));
    let faults = FaultSettings { duplicate: -0.5, ..FaultSettings::default() };
    assert_eq!(
        error(&|settings| settings.faults = Some(faults)).to_string(),
        "faults.duplicate is a share: it must be 0 to 1"
    );
}

#[test]
fn faults_of_a_seed_are_the_same_on_real_sockets() {
    let lost = |seed| {
        let mut networks = open_all(2, |settings| {
            settings.faults = Some(FaultSettings { loss: 0.3, seed, ..FaultSettings::default() });
        });
        let mut positions = Vec::new();
        for position in 0..200 {
            networks[0].send(Destination::Members, &header(0, position), &[], &[]);
            // Loopback delivers within the call: what is not there now was dropped on purpose.
            for index in 0..networks[1].poll() {
                positions.push(parse(networks[1].datagram(index).1, GROUP).unwrap().0.position());
            }
        }
        let counters = networks[1].counters();
        assert_eq!(counters.faults.lost + positions.len() as u64, counters.datagrams_received);
        positions
    };
    let first = lost(5);
    assert!((100..180).contains(&first.len()), "{} of 200 at 30 % loss", first.len());
    assert_eq!(first, lost(5));
    assert_ne!(first, lost(6));
}

#[test]
fn held_back_datagrams_come_when_they_are_due() {
    let mut networks = open_all(2, |settings| {
        settings.faults = Some(FaultSettings { delay_ms: 30, ..FaultSettings::default() });
    });
    let start = Instant::now();
    networks[0].send(Destination::Members, &header(0, 3), &[], b"late");
    assert_eq!(networks[1].poll(), 0);
    assert!(networks[1].next_release().is_some());
    let seen = receive(&mut networks[1], 1);
    assert_eq!((seen.len(), &seen[0].body[..]), (1, &b"late"[..]));
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(networks[1].next_release(), None);
}

/// A thread that sends a heartbeat each 10 ms, answers those of others, and idles as a core does. Returns the share of a CPU
/// it took.
fn beat(mut network: UdpNetwork, seconds: u64) -> f64 {
    let shared_cpu = Arc::new(AtomicBool::new(true));
    let mut idler = Idler::new(IdleKind::default(), parking().unwrap().0, shared_cpu);
    let queue = RunQueue::open(this_thread()).unwrap();
    let before = queue.read().unwrap().ran_ns;
    let start = HostClock.now();
    let (mut next, mut heard) = (start, 0);
    loop {
        let now = HostClock.now();
        if now.since(start) > seconds * Nanos::SECOND {
            break;
        }
        let mut work = network.poll();
        for index in 0..work {
            let (from, bytes) = network.datagram(index);
            if parse(bytes, GROUP).unwrap().1 == DatagramKind::Heartbeat {
                heard += 1;
                let mut answer = header(0, 0);
                answer.kind = DatagramKind::Status as u8;
                network.send(Destination::Address(from), &answer, &[], &[0; 72]);
            }
        }
        if now >= next {
            let mut beat = header(0, 0);
            beat.kind = DatagramKind::Heartbeat as u8;
            network.send(Destination::Members, &beat, &[], &[]);
            next = next.plus(10 * Nanos::MILLISECOND);
            work += 1;
        }
        let deadlines = Deadlines { sharp: None, soft: Some(next) };
        idler.idle(work, deadlines, HostClock.now(), network.descriptors(), || false);
    }
    assert!(heard >= 150 * seconds, "heard {heard} heartbeats of two others in {seconds} s");
    (queue.read().unwrap().ran_ns - before) as f64 / (seconds * Nanos::SECOND) as f64
}

#[test]
fn an_idle_node_with_heartbeats_takes_under_two_per_cent_of_a_core() {
    let threads: Vec<_> =
        open_all(3, |_| {}).into_iter().map(|network| thread::spawn(|| beat(network, 1))).collect();
    for thread in threads {
        let share = thread.join().unwrap();
        println!("{:.2} % of a core", share * 100.0);
        // Code that is not optimised spends more on each wake-up.
        let limit = if cfg!(debug_assertions) { 0.04 } else { 0.02 };
        assert!(share < limit, "{:.2} % of a core", share * 100.0);
    }
}

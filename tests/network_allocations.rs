//! After construction the network, its fault layer and the idle strategy allocate nothing.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // helpers of tests fail as tests do
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use quorate::io::clock::HostClock;
use quorate::io::faults::FaultSettings;
use quorate::io::multicast::MulticastSettings;
use quorate::io::udp::{Gso, Transport, UdpNetwork, UdpSettings};
use quorate::io::wake::{PacedWaker, parking};
use quorate::runtime::idle::{Deadlines, IdleKind, Idler};
use quorate::stream::datagram::{DatagramHeader, DatagramKind};
use quorate::stream::network::{Destination, Network};
use quorate::types::{GroupId, Leadership, NodeId};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what each thread allocates.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: hands everything on to the system's allocator, and counts besides.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the promises.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the promises.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn pair(change: impl Fn(&mut UdpSettings)) -> [UdpNetwork; 2] {
    let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let members: Vec<_> =
        (0..2).map(|n| (NodeId(n as u16), sockets[n].local_addr().unwrap())).collect();
    drop(sockets);
    [0, 1].map(|node| {
        let mut settings = UdpSettings::node(NodeId(node), members.clone()).unwrap();
        change(&mut settings);
        UdpNetwork::open(&settings).unwrap()
    })
}

/// Sends runs and single ones in all directions, and receives them.
fn exercise(one: &mut UdpNetwork, two: &mut UdpNetwork, bytes: &[u8]) -> usize {
    let header =
        DatagramHeader::new(DatagramKind::Data, GroupId(1), Some(NodeId(0)), Leadership::default());
    let to = two.local_address().unwrap();
    let mut received = 0;
    for _ in 0..20 {
        one.send(Destination::Members, &header, b"prefix", bytes);
        one.send(Destination::Node(NodeId(1)), &header, &[], &bytes[..10]);
        one.send(Destination::Node(NodeId(5)), &header, &[], &[]);
        one.send(Destination::Address(to), &header, &[], &[]);
        let mut polls = 0;
        while polls < 10 || two.next_release().is_some() {
            for index in 0..two.poll() {
                received += two.datagram(index).1.len();
            }
            polls += 1;
        }
        let _ = (one.counters(), two.host_drops(), two.next_release());
    }
    received
}

type Change<'a> = &'a dyn Fn(&mut UdpSettings);

#[test]
fn sending_and_receiving_allocate_nothing() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let group = SocketAddr::new("239.255.76.1".parse().unwrap(), port);
    let faults = FaultSettings {
        loss: 0.05,
        duplicate: 0.05,
        corrupt: 0.05,
        reorder_ms: 1,
        ..FaultSettings::default()
    };
    let bytes = vec![7; 30_000];
    let cases: [(&str, Change<'_>); 4] = [
        ("unicast", &|_| {}),
        ("plain calls", &|settings| settings.gso = Gso::Off),
        ("multicast", &|settings| {
            settings.transport = Transport::Multicast(MulticastSettings::new(group));
        }),
        ("faults", &|settings| settings.faults = Some(faults)),
    ];
    for (name, change) in cases {
        let [mut one, mut two] = pair(change);
        let before = allocations();
        let received = exercise(&mut one, &mut two, &bytes);
        assert_eq!(allocations() - before, 0, "{name}");
        assert!(received > 20 * 20_000, "{name}: {received} bytes");
    }
}

#[test]
fn idling_and_waking_allocate_nothing() {
    let [one, _two] = pair(|_| {});
    let (parker, waker) = parking().unwrap();
    let mut paced = PacedWaker::new(waker.clone(), 1_000);
    let mut idler = Idler::new(IdleKind::Backoff, parker, Arc::new(AtomicBool::new(true)));
    let before = allocations();
    for _ in 0..220 {
        let now = HostClock.now();
        let deadlines = Deadlines { sharp: None, soft: Some(now.plus(100_000)) };
        idler.idle(0, deadlines, now, one.descriptors(), || false);
        waker.wake();
        paced.wake(now);
    }
    assert_eq!(allocations() - before, 0);
    assert!(idler.counters().parks > 0);
}

//! Once built, neither the stream machine nor lanes nor a client take memory: counted by the allocator itself.

#![allow(unsafe_code)] // a global allocator is unsafe by its trait
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use quorate::client::{Client, ClientSettings, ClientState};
use quorate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_LANE, HelloBody, WelcomeBody, parse,
};
use quorate::stream::message::{AnswerHeader, AnswerKind};
use quorate::stream::network::{Destination, Network};
use quorate::stream::{
    LanesSettings, NodeLanes, Receiver, ReceiverOutput, ReceiverSettings, Report, Sender,
    SenderSettings, Transmit,
};
use quorate::types::{GroupId, Leadership, Nanos, Position, Sequence, SessionId};
use zerocopy::{FromBytes, IntoBytes};

thread_local! {
    static COUNTED: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches a thread-local number only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNTED.with(|counted| counted.set(counted.get().map(|count| count + 1)));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `run` runs.
fn allocations(run: impl FnOnce()) -> u64 {
    COUNTED.with(|counted| counted.set(Some(0)));
    run();
    COUNTED.with(Cell::take).expect("set above")
}

#[test]
fn sender_and_receiver_take_no_memory_after_construction() {
    let mut sender = Sender::new(SenderSettings::default(), Position(0));
    let mut receiver = Receiver::new(ReceiverSettings::default(), Position(0));
    let count = allocations(|| {
        let (mut now, mut tail, mut random) = (Nanos(1_000), Position(0), 1_u64);
        for _ in 0..20_000 {
            now = now.plus(10_000);
            tail = tail.plus(3_000);
            sender.set_tail(tail);
            while let Some(transmit) = sender.poll(now) {
                let (mut from, to, repair) = match transmit {
                    Transmit::Fresh { from, to } => (from, to, false),
                    Transmit::Repair { from, to, .. } => (from, to, true),
                    Transmit::Heartbeat { tail } => {
                        receiver.on_tail(now, tail);
                        continue;
                    }
                };
                while from < to {
                    let end = to.min(from.plus(500));
                    random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(11);
                    if random >> 61 > 2 {
                        receiver.on_data(now, from, end, repair, |_, _| {});
                    }
                    from = end;
                }
            }
            while let Some(ReceiverOutput::Nak(ranges)) = receiver.poll(now) {
                sender.on_nak(now, 0, ranges);
            }
            let window_end = receiver.window_end();
            let report = Report { window_end, ..Report::received(receiver.received()) };
            assert!(sender.on_status(now, 0, &report));
        }
        assert!(receiver.counters().retries > 1_000, "the machine was made to work");
    });
    assert_eq!(count, 0);
}

const SLOT_BYTES: usize = 1_500;

/// A wire without allocations: slots of fixed size, one way.
struct Wire {
    slots: Box<[u8]>,
    lengths: Vec<usize>,
}

struct Pipe {
    incoming: Rc<RefCell<Wire>>,
    outgoing: Rc<RefCell<Wire>>,
    batch: Wire,
    from: SocketAddr,
}

fn wire() -> Wire {
    Wire { slots: vec![0; 512 * SLOT_BYTES].into(), lengths: Vec::with_capacity(512) }
}

impl Network for Pipe {
    fn poll(&mut self) -> usize {
        core::mem::swap(&mut self.batch, &mut self.incoming.borrow_mut());
        self.incoming.borrow_mut().lengths.clear();
        self.batch.lengths.len()
    }
    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        let start = index * SLOT_BYTES;
        (self.from, &self.batch.slots[start..start + self.batch.lengths[index]])
    }
    fn send(&mut self, _to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        let mut wire = self.outgoing.borrow_mut();
        let room = self.body_bytes(prefix.len());
        let (mut header, mut rest) = (*header, bytes);
        loop {
            let (now, behind) = rest.split_at(room.min(rest.len()));
            let mut at = wire.lengths.len() * SLOT_BYTES;
            let start = at;
            for part in [header.as_bytes(), prefix, now] {
                wire.slots[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            assert!(wire.lengths.len() < 512, "the wire is drained each round");
            wire.lengths.push(at - start);
            header.position = (header.position.get() + now.len() as u64).into();
            rest = behind;
            if rest.is_empty() {
                return;
            }
        }
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        1_408 - size_of::<DatagramHeader>() - prefix
    }
}

/// Everything the node does in one step: welcomes, takes commands, answers with their bytes.
fn step_node(now: Nanos, lanes: &mut NodeLanes, network: &mut Pipe, reply: &mut [u8]) {
    let group = GroupId(1);
    let header = |kind| DatagramHeader::new(kind, group, None, Leadership::default());
    let count = network.poll();
    for index in 0..count {
        let mut welcome = None;
        let (from, bytes) = network.datagram(index);
        let (received, kind, body) = parse(bytes, group).expect("ours");
        if received.flags & FLAG_LANE != 0 {
            lanes.on_datagram(now, from, received, kind, body).expect("in order");
        } else if let Ok((hello, _)) = HelloBody::ref_from_prefix(body) {
            lanes.open(now, SessionId(1), hello.epoch.get(), from).expect("room");
            welcome = Some(WelcomeBody {
                nonce: hello.nonce,
                session: 1.into(),
                epoch: hello.epoch,
                last_client_sequence: 0.into(),
                command_bytes_max: 100_000.into(),
                in_flight_max: 64.into(),
            });
        }
        if let Some(welcome) = welcome {
            let header = header(DatagramKind::Welcome);
            network.send(Destination::Address(from), &header, &[], welcome.as_bytes());
        }
    }
    while let Some(lane) = lanes.next_ready() {
        let message = lanes.message(lane).expect("good").expect("whole");
        let number = message.request().client_sequence();
        let bytes = message.payload.len();
        message.payload.copy_to(reply);
        let answer = AnswerHeader::new(AnswerKind::Applied, number, Sequence(number.0));
        if lanes.answer(lane, answer, &[&reply[..bytes]]).is_err() {
            lanes.put_back(lane);
            break;
        }
        lanes.consume(now, lane);
    }
    lanes.transmit(now, network, &header(DatagramKind::Data), 64);
}

#[test]
fn lanes_and_client_take_no_memory_after_construction() {
    let (up, down) = (Rc::new(RefCell::new(wire())), Rc::new(RefCell::new(wire())));
    let node_address = SocketAddr::from(([127, 0, 0, 1], 1));
    let client_address = SocketAddr::from(([127, 0, 0, 1], 2));
    let pipe = |incoming: &Rc<RefCell<Wire>>, outgoing: &Rc<RefCell<Wire>>, from| Pipe {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        batch: wire(),
        from,
    };
    let mut node_network = pipe(&up, &down, client_address);
    let client_network = pipe(&down, &up, node_address);
    let settings = LanesSettings { lanes: 4, pool_bytes: 8 << 20, ..LanesSettings::default() };
    let mut lanes = NodeLanes::new(&settings);
    let settings = ClientSettings::new(GroupId(1), vec![node_address], 1);
    let mut client = Client::new(settings, client_network).expect("good settings");
    let (mut reply, command) = (vec![0; 100_000], vec![7; 60_000]);
    let (mut answers, mut sent) = (0_u64, 0_u64);
    let count = allocations(|| {
        let mut now = Nanos(1_000_000);
        for step in 0..20_000_usize {
            now = now.plus(20_000);
            if client.state() == ClientState::Open {
                // Mostly small, now and then one that takes many datagrams.
                let bytes = if step % 100 == 0 { 60_000 } else { step % 200 };
                sent += u64::from(client.send(&command[..bytes]).is_ok());
            }
            client.poll(now, |answer| {
                assert!(answer.reply.iter().all(|&byte| byte == 7));
                answers += 1;
            });
            step_node(now, &mut lanes, &mut node_network, &mut reply);
        }
    });
    assert_eq!(count, 0);
    assert!(answers > 15_000 && sent - answers < 64, "{answers} of {sent}");
}

#[cfg(feature = "io")]
#[test]
fn datagrams_in_the_process_take_no_memory() {
    use quorate::link::NoWake;
    use quorate::runtime::config::{Founding, FoundingMember, TransportKind};
    use quorate::runtime::environment::{InProcess, ProcessNetwork, Transport as _};
    use std::path::Path;
    use std::sync::Arc;

    let place = InProcess::new();
    let address = || FoundingMember { data: place.address(), control: place.address() };
    let founding = Founding {
        group: GroupId(7),
        transport: TransportKind::Unicast,
        multicast_port: 0,
        members: vec![address(), address(), address()],
        settings: Vec::new(),
    };
    let open = |node| {
        let settings = founding.settings(Path::new("/nowhere"), node).unwrap();
        place.network(&settings, Arc::new(NoWake)).unwrap()
    };
    let mut ends = [0, 1, 2].map(open);
    let header = DatagramHeader::new(DatagramKind::Data, GroupId(7), None, Leadership::default());
    let mut arrived = 0;
    let mut exchange = |ends: &mut [ProcessNetwork; 3]| {
        for sender in 0..3 {
            ends[sender].send(Destination::Members, &header, &[], &[1; 5000]);
            for end in ends.iter_mut() {
                let count = end.poll();
                arrived += (0..count).map(|index| end.datagram(index).1.len()).sum::<usize>();
            }
        }
    };
    // The first time, ends find each other.
    exchange(&mut ends);
    // More than there are buffers, so that each of them was used.
    assert_eq!(allocations(|| (0..1000).for_each(|_| exchange(&mut ends))), 0);
    assert!(arrived > 1000 * 6 * 5000, "{arrived} bytes arrived");
}

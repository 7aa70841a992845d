//! Feeds datagrams made of arbitrary bytes to everything that reads them: the parser, the lanes of a node, a client, a
//! reader. Used by the fuzz target `datagram` and by a property test; nothing may panic, and no memory may be lost.
//!
//! The input is a row of records: one byte of length, one byte of mode, then that many bytes of a datagram. By its mode a
//! datagram is taken as it is (0), or given a header that is let in (bit 0) and the right lane, or question (bit 1), from
//! the right address (bit 2).

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use quorate::client::{Client, ClientSettings, Demand, Reader};
use quorate::stream::datagram::{
    DATAGRAM_MAGIC, DATAGRAM_VERSION, DatagramHeader, DatagramKind, FLAG_LANE, LaneHeader,
    WelcomeBody, parse,
};
use quorate::stream::message::{AnswerHeader, AnswerKind};
use quorate::stream::network::{Destination, Network};
use quorate::stream::{LanesSettings, NodeLanes};
use quorate::types::{ClientSequence, GroupId, Leadership, Nanos, Sequence, SessionId};
use zerocopy::{FromBytes, IntoBytes};

const GROUP: GroupId = GroupId(7);
const SESSION: u64 = 3;
const NODE_EPOCH: u64 = 5;
const NONCE: u64 = 11;

fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

/// A datagram and where it comes from.
type Datagram = Option<(SocketAddr, Vec<u8>)>;

/// One datagram in, the last hello out.
#[derive(Default)]
struct Tap {
    batch: Datagram,
    sent: Rc<RefCell<Vec<u8>>>,
    next: Rc<RefCell<Datagram>>,
}

impl Network for Tap {
    fn poll(&mut self) -> usize {
        self.batch = self.next.borrow_mut().take();
        usize::from(self.batch.is_some())
    }
    fn datagram(&self, _index: usize) -> (SocketAddr, &[u8]) {
        let (from, bytes) = self.batch.as_ref().expect("poll said so");
        (*from, bytes)
    }
    fn send(&mut self, _to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        if header.kind == DatagramKind::Hello as u8 {
            *self.sent.borrow_mut() = prefix.to_vec();
        }
        assert!(bytes.len() < 1 << 20);
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        1_408 - size_of::<DatagramHeader>() - prefix
    }
}

/// Feeds all records of `input`.
pub(crate) fn feed(input: &[u8]) {
    let settings = LanesSettings { lanes: 2, pool_bytes: 8 << 20, ..LanesSettings::default() };
    let mut lanes = NodeLanes::new(&settings);
    lanes.open(Nanos(1), SessionId(SESSION), NODE_EPOCH, peer()).expect("room");
    let tap = Tap::default();
    let (sent, incoming) = (tap.sent.clone(), tap.next.clone());
    let mut client = Client::new(ClientSettings::new(GROUP, vec![peer()], 1), tap).expect("good");
    let mut now = Nanos(1_000_000);
    let tap = Tap::default();
    let answers = tap.next.clone();
    let mut reader = Reader::new(GROUP, NONCE, tap);
    let client_epoch = welcome(&mut client, now, &sent, &incoming);
    let mut rest = input;
    while let [length, mode, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        rest = behind;
        now = now.plus(30_000 + u64::from(*mode) * 1_000);
        let from = if mode & 4 == 0 { peer() } else { SocketAddr::from(([9, 9, 9, 9], 9)) };
        feed_node(&mut lanes, now, from, &dress(bytes, *mode, NODE_EPOCH));
        let _ = client.send(&bytes[..bytes.len() / 2]);
        *incoming.borrow_mut() = Some((from, dress(bytes, *mode, client_epoch)));
        client.poll(now, |answer| assert!(answer.reply.len() <= 1 << 20));
        assert!(client.unanswered() <= 256);
        let number = reader.ask(now, peer(), bytes, Demand::default()).unwrap_or(1);
        *answers.borrow_mut() = Some((from, dress_answer(bytes, *mode, number)));
        reader.poll(now, |reading| assert!(reading.reply.len() <= 1 << 16));
    }
    lanes.close_all();
    for pool in lanes.pools() {
        assert_eq!(pool.free_count(), pool.chunk_count(), "memory was lost");
    }
}

/// Brings the client to an open lane; returns its epoch.
fn welcome(
    client: &mut Client<Tap>,
    now: Nanos,
    sent: &Rc<RefCell<Vec<u8>>>,
    incoming: &Rc<RefCell<Datagram>>,
) -> u64 {
    client.poll(now, |_| {});
    let hello = sent.borrow().clone();
    let word = |at: usize| u64::from_le_bytes(hello[at..at + 8].try_into().expect("8 bytes"));
    let (nonce, epoch) = (word(0), word(16));
    let body = WelcomeBody {
        nonce: nonce.into(),
        session: SESSION.into(),
        epoch: epoch.into(),
        last_client_sequence: 0.into(),
        command_bytes_max: 1_000.into(),
        in_flight_max: 16.into(),
    };
    let header = DatagramHeader::new(DatagramKind::Welcome, GROUP, None, Leadership::default());
    *incoming.borrow_mut() = Some((peer(), [header.as_bytes(), body.as_bytes()].concat()));
    client.poll(now, |_| {});
    assert!(client.session().is_some());
    epoch
}

/// Gives a datagram what its mode says.
fn dress(bytes: &[u8], mode: u8, epoch: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if mode & 1 != 0 && bytes.len() >= size_of::<DatagramHeader>() {
        bytes[..2].copy_from_slice(&DATAGRAM_MAGIC.to_le_bytes());
        bytes[2] = DATAGRAM_VERSION;
        bytes[3] = 1 + bytes[3] % 11;
        bytes[8..16].copy_from_slice(&GROUP.0.to_le_bytes());
        if mode & 2 != 0 {
            bytes[4] |= FLAG_LANE;
            let lane = LaneHeader { session: SESSION.into(), epoch: epoch.into() };
            let end = bytes.len().min(64 + size_of::<LaneHeader>());
            let room = end - 64;
            bytes[64..end].copy_from_slice(&lane.as_bytes()[..room]);
        }
    }
    bytes
}

/// The same for an answer to a reader's question `number`.
fn dress_answer(bytes: &[u8], mode: u8, number: u64) -> Vec<u8> {
    let mut bytes = dress(bytes, mode & !2, 0);
    if mode & 1 != 0 && bytes.len() >= size_of::<DatagramHeader>() {
        bytes[3] = DatagramKind::LocalAnswer as u8;
        if let (Some(body), true) = (bytes.get_mut(64..80), mode & 2 != 0) {
            body[..8].copy_from_slice(&NONCE.to_le_bytes());
            body[8..].copy_from_slice(&number.to_le_bytes());
        }
    }
    bytes
}

fn feed_node(lanes: &mut NodeLanes, now: Nanos, from: SocketAddr, bytes: &[u8]) {
    if let Ok((header, kind, body)) = parse(bytes, GROUP) {
        // What a lane is not told, its lanes must refuse by themselves.
        let _ = lanes.on_datagram(now, from, header, kind, body);
        let _ = WelcomeBody::ref_from_prefix(body);
    }
    for _ in 0..lanes.ready_count() {
        let Some(lane) = lanes.next_ready() else { break };
        let Ok(Some(message)) = lanes.message(lane) else {
            // No message: the lane ends, and another one begins.
            lanes.close(lane);
            lanes.open(now, SessionId(SESSION), NODE_EPOCH, peer()).expect("room");
            continue;
        };
        let number = message.request().client_sequence();
        let bytes: usize = message.payload.map(<[u8]>::len).sum();
        lanes.consume(now, lane);
        let answer = AnswerHeader::new(AnswerKind::Applied, ClientSequence(number.0), Sequence(1));
        let _ = lanes.answer(lane, answer, &[&vec![1; bytes]]);
    }
    let template = DatagramHeader::new(DatagramKind::Data, GROUP, None, Leadership::default());
    lanes.transmit(now, &mut Tap::default(), &template, 4);
}

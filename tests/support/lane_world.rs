//! Clients and nodes on one lossy network in virtual time. The nodes share one exactly-once table, as replicas do, and one
//! of them leads; what they do with a command is to note it and to answer with its bytes turned round.

#![allow(dead_code)] // each user takes what it needs

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use quorate::client::{Client, ClientSettings, Outcome, Request};
use quorate::limits::{COMMAND_BYTES_MAX, SESSION_IN_FLIGHT_MAX};
use quorate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_LANE, HelloBody, LaneHeader, RefuseBody, RefuseReason,
    WelcomeBody, parse,
};
use quorate::stream::message::{ANSWER_TO_QUERY, AnswerHeader, AnswerKind, RequestKind};
use quorate::stream::network::{Destination, Network};
use quorate::stream::redirect::RedirectText;
use quorate::stream::{LaneError, LaneIndex, LanesSettings, NodeLanes};
use quorate::types::{ClientSequence, GroupId, Leadership, Nanos, NodeId, Sequence, SessionId};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) const GROUP: GroupId = GroupId(77);

/// What is on the wire of one host: what came in, what goes out.
#[derive(Default, Debug)]
pub(crate) struct Wire {
    pub(crate) inbox: VecDeque<(SocketAddr, Vec<u8>)>,
    pub(crate) outbox: Vec<(SocketAddr, Vec<u8>)>,
}

#[derive(Debug)]
pub(crate) struct MemoryNetwork {
    wire: Rc<RefCell<Wire>>,
    batch: Vec<(SocketAddr, Vec<u8>)>,
    datagram_bytes: usize,
}

impl Network for MemoryNetwork {
    fn poll(&mut self) -> usize {
        self.batch = self.wire.borrow_mut().inbox.drain(..).collect();
        self.batch.len()
    }
    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        let (from, bytes) = &self.batch[index];
        (*from, bytes)
    }
    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        let Destination::Address(to) = to else { panic!("lanes go to addresses") };
        let room = self.body_bytes(prefix.len());
        let mut header = *header;
        let mut rest = bytes;
        loop {
            let (now, behind) = rest.split_at(room.min(rest.len()));
            let datagram = [header.as_bytes(), prefix, now].concat();
            self.wire.borrow_mut().outbox.push((to, datagram));
            header.position = (header.position.get() + now.len() as u64).into();
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        self.datagram_bytes - size_of::<DatagramHeader>() - prefix
    }
}

/// The exactly-once table that all nodes share.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) sessions: BTreeMap<u64, Entry>,
    next_id: u64,
    log: u64,
}

#[derive(Default)]
pub(crate) struct Entry {
    nonce: u64,
    pub(crate) last: u64,
    pub(crate) applied: Vec<Vec<u8>>,
    replies: BTreeMap<u64, (u64, Vec<u8>)>,
    pub(crate) kept_max: usize,
}

impl Table {
    fn open(&mut self, nonce: u64) -> u64 {
        if let Some((&id, _)) = self.sessions.iter().find(|(_, entry)| entry.nonce == nonce) {
            return id;
        }
        self.next_id += 1;
        self.log += 1;
        self.sessions.insert(self.next_id, Entry { nonce, ..Entry::default() });
        self.next_id
    }
    fn command(
        &mut self,
        id: u64,
        number: u64,
        through: u64,
        bytes: &[u8],
    ) -> (AnswerHeader, Vec<u8>) {
        let answer = |kind, log| AnswerHeader::new(kind, ClientSequence(number), Sequence(log));
        let Some(entry) = self.sessions.get_mut(&id) else {
            return (answer(AnswerKind::UnknownSession, 0), vec![]);
        };
        if number > entry.last + 1 {
            return (answer(AnswerKind::Gap, 0), vec![]);
        }
        if number == entry.last + 1 {
            self.log += 1;
            entry.last = number;
            entry.applied.push(bytes.to_vec());
            entry.replies.retain(|&number, _| number > through);
            let mut reply = bytes.to_vec();
            reply.reverse();
            entry.replies.insert(number, (self.log, reply));
            entry.kept_max = entry.kept_max.max(entry.replies.len());
        }
        match entry.replies.get(&number) {
            Some((log, reply)) => (answer(AnswerKind::Applied, *log), reply.clone()),
            None => (answer(AnswerKind::Forgotten, 0), vec![]),
        }
    }
}

pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) lanes: NodeLanes,
    pub(crate) alive: bool,
    network: MemoryNetwork,
    wire: Rc<RefCell<Wire>>,
    pub(crate) errors: Vec<LaneError>,
    /// Commands to be turned away with back-pressure before one is taken.
    pub(crate) turn_away: u32,
}

pub(crate) struct User {
    pub(crate) client: Client<MemoryNetwork>,
    address: SocketAddr,
    wire: Rc<RefCell<Wire>>,
    pub(crate) answers: Vec<(Request, Outcome, Sequence, Vec<u8>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) delay_ns: u64,
    pub(crate) jitter_ns: u64,
    pub(crate) loss_per_mille: u64,
    pub(crate) duplicate_per_mille: u64,
}

impl Link {
    pub(crate) fn clean() -> Self {
        Self { delay_ns: 50_000, jitter_ns: 0, loss_per_mille: 0, duplicate_per_mille: 0 }
    }
}

type InFlight = Reverse<(u64, u64, SocketAddr, SocketAddr, Vec<u8>)>;

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) users: Vec<User>,
    pub(crate) leader: Option<usize>,
    pub(crate) quorum: bool,
    pub(crate) table: Table,
    pub(crate) link: Link,
    /// Time goes in steps of at least this, in nanoseconds.
    pub(crate) grain_ns: u64,
    /// During these times nothing arrives.
    pub(crate) blackout: std::ops::Range<u64>,
    pub(crate) datagrams: u64,
    /// Everything that was ever sent, if wanted.
    pub(crate) recording: Option<Vec<(SocketAddr, SocketAddr, Vec<u8>)>>,
    queue: BinaryHeap<InFlight>,
    ticket: u64,
    random: u64,
}

fn host_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + index as u8], 9_000))
}
fn user_address(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, (index >> 8) as u8, index as u8], 4_000))
}
fn network(wire: &Rc<RefCell<Wire>>) -> MemoryNetwork {
    MemoryNetwork { wire: wire.clone(), batch: Vec::new(), datagram_bytes: 1_408 }
}

impl World {
    pub(crate) fn new(hosts: usize, lanes: &LanesSettings, link: Link, seed: u64) -> Self {
        let host = |index| {
            let wire = Rc::default();
            Host {
                address: host_address(index),
                lanes: NodeLanes::new(lanes),
                alive: true,
                network: network(&wire),
                wire,
                errors: Vec::new(),
                turn_away: 0,
            }
        };
        Self {
            now: 1_000_000,
            hosts: (0..hosts).map(host).collect(),
            users: Vec::new(),
            leader: Some(0),
            quorum: true,
            table: Table::default(),
            link,
            grain_ns: 0,
            blackout: 0..0,
            datagrams: 0,
            recording: None,
            queue: BinaryHeap::new(),
            ticket: 0,
            random: seed,
        }
    }
    pub(crate) fn members(&self) -> Vec<SocketAddr> {
        self.hosts.iter().map(|host| host.address).collect()
    }
    /// Adds a client with the default settings, changed by `change`.
    pub(crate) fn add_user(&mut self, change: impl Fn(&mut ClientSettings)) -> usize {
        let index = self.users.len();
        let mut settings = ClientSettings::new(GROUP, self.members(), next(&mut self.random));
        change(&mut settings);
        let wire = Rc::default();
        let client = Client::new(settings, network(&wire)).expect("good settings");
        self.users.push(User { client, address: user_address(index), wire, answers: Vec::new() });
        index
    }

    /// Runs until `done` or until virtual time `until`; true if done.
    pub(crate) fn run(&mut self, until: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            // What `done` has sent goes out.
            self.settle();
            let users = self.users.iter().map(|user| user.client.deadline().0);
            let hosts = self.hosts.iter().filter(|host| host.alive);
            let hosts = hosts.filter_map(|host| host.lanes.deadline()).map(|due| due.0);
            let arrival = self.queue.peek().map(|Reverse((due, ..))| *due);
            let due = users.chain(hosts).chain(arrival).min().unwrap_or(u64::MAX);
            if due > until {
                self.now = until;
                return done(self);
            }
            self.now = (self.now + self.grain_ns).max(due);
            while let Some(Reverse((due, ..))) = self.queue.peek() {
                if *due > self.now {
                    break;
                }
                let Reverse((_, _, from, to, bytes)) = self.queue.pop().expect("peeked");
                self.arrive(from, to, bytes);
            }
        }
    }

    /// A datagram comes in from nowhere.
    pub(crate) fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.queue.push(Reverse((self.now, self.ticket, from, to, bytes)));
        self.ticket += 1;
    }

    fn settle(&mut self) {
        let now = Nanos(self.now);
        for index in 0..self.users.len() {
            let user = &mut self.users[index];
            if user.wire.borrow().inbox.is_empty() && user.client.deadline() > now {
                continue;
            }
            let answers = &mut user.answers;
            user.client.poll(now, |answer| {
                answers.push((
                    answer.request,
                    answer.outcome,
                    answer.sequence,
                    answer.reply.to_vec(),
                ));
            });
            let (address, sent) =
                (user.address, core::mem::take(&mut user.wire.borrow_mut().outbox));
            self.put(address, sent);
        }
        for index in 0..self.hosts.len() {
            if self.hosts[index].alive {
                self.step_host(index);
            }
            let host = &mut self.hosts[index];
            let (address, sent) =
                (host.address, core::mem::take(&mut host.wire.borrow_mut().outbox));
            if self.hosts[index].alive {
                self.put(address, sent);
            }
        }
    }

    fn put(&mut self, from: SocketAddr, datagrams: Vec<(SocketAddr, Vec<u8>)>) {
        for (to, bytes) in datagrams {
            self.datagrams += 1;
            if let Some(recording) = &mut self.recording {
                recording.push((from, to, bytes.clone()));
            }
            if next(&mut self.random) % 1_000 < self.link.loss_per_mille {
                continue;
            }
            let twice = next(&mut self.random) % 1_000 < self.link.duplicate_per_mille;
            for _ in 0..=usize::from(twice) {
                let jitter = next(&mut self.random) % (self.link.jitter_ns + 1);
                let due = self.now + self.link.delay_ns + jitter;
                self.queue.push(Reverse((due, self.ticket, from, to, bytes.clone())));
                self.ticket += 1;
            }
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.blackout.contains(&self.now) {
            return;
        }
        let wire = match (
            self.hosts.iter().find(|host| host.address == to && host.alive),
            self.users.iter().find(|user| user.address == to),
        ) {
            (Some(host), _) => &host.wire,
            (_, Some(user)) => &user.wire,
            _ => return,
        };
        wire.borrow_mut().inbox.push_back((from, bytes));
    }

    fn step_host(&mut self, index: usize) {
        let (now, leads) = (Nanos(self.now), self.leader == Some(index));
        let leader = self.leader.map(host_address);
        let host = &mut self.hosts[index];
        let count = host.network.poll();
        let node = Some(NodeId(index as u16));
        let header = |kind| DatagramHeader::new(kind, GROUP, node, Leadership::default());
        for at in 0..count {
            let (from, bytes) = host.network.datagram(at);
            let bytes = bytes.to_vec();
            let Ok((received, kind, body)) = parse(&bytes, GROUP) else { continue };
            let to = Destination::Address(from);
            if received.flags & FLAG_LANE != 0 {
                let lane = &body[..size_of::<LaneHeader>().min(body.len())];
                if !leads {
                    let mut header = header(DatagramKind::Redirect);
                    header.flags = FLAG_LANE;
                    let text = RedirectText::new(leader);
                    host.network.send(to, &header, lane, text.as_bytes());
                } else if let Err(error) = host.lanes.on_datagram(now, from, received, kind, body) {
                    host.errors.push(error);
                    if matches!(error, LaneError::UnknownSession { .. }) {
                        let mut header = header(DatagramKind::Refuse);
                        header.flags = FLAG_LANE;
                        let refuse = refuse(0, RefuseReason::UnknownSession);
                        host.network.send(to, &header, lane, refuse.as_bytes());
                    }
                }
                continue;
            }
            if kind != DatagramKind::Hello {
                continue;
            }
            let Ok((hello, _)) = HelloBody::ref_from_prefix(body) else { continue };
            let (nonce, session) = (hello.nonce.get(), hello.session.get());
            if !leads {
                let text = RedirectText::new(leader);
                host.network.send(to, &header(DatagramKind::Redirect), &[], text.as_bytes());
            } else if !self.quorum || session > 0 && !self.table.sessions.contains_key(&session) {
                let reason =
                    if self.quorum { RefuseReason::UnknownSession } else { RefuseReason::NoQuorum };
                let refuse = refuse(nonce, reason);
                host.network.send(to, &header(DatagramKind::Refuse), &[], refuse.as_bytes());
            } else {
                let session = if session > 0 { session } else { self.table.open(nonce) };
                let id = SessionId(session);
                if host.lanes.open(now, id, hello.epoch.get(), from).is_ok() {
                    let welcome = WelcomeBody {
                        nonce: nonce.into(),
                        session: session.into(),
                        epoch: hello.epoch,
                        last_client_sequence: self.table.sessions[&session].last.into(),
                        command_bytes_max: (COMMAND_BYTES_MAX as u32).into(),
                        in_flight_max: (SESSION_IN_FLIGHT_MAX as u32).into(),
                    };
                    host.network.send(to, &header(DatagramKind::Welcome), &[], welcome.as_bytes());
                }
            }
        }
        if self.quorum && leads {
            // Until every message is taken, or one finds no room for its answer.
            while let Some(lane) = host.lanes.next_ready() {
                if !take(host, &mut self.table, now, lane) {
                    host.lanes.put_back(lane);
                    break;
                }
            }
        }
        if leads {
            let header = header(DatagramKind::Data);
            while host.lanes.transmit(now, &mut host.network, &header, 64) > 0 {}
        }
    }
}

/// Takes the message at the front of a lane; false if there is no room for its answer.
fn take(host: &mut Host, table: &mut Table, now: Nanos, lane: LaneIndex) -> bool {
    let id = host.lanes.end(lane).session().0;
    let message = host.lanes.message(lane).expect("clients keep the protocol");
    let message = message.expect("a ready lane has a message");
    let header = message.request();
    let number = header.client_sequence().0;
    let known = header.kind() != Some(RequestKind::Query)
        && table.sessions.get(&id).is_some_and(|entry| number <= entry.last);
    let mut payload = vec![0; if known { 0 } else { message.payload.len() }];
    if !known {
        message.payload.copy_to(&mut payload);
    }
    let (answer, reply) = match header.kind().expect("known kinds") {
        RequestKind::Command | RequestKind::Batch if host.turn_away > 0 => {
            host.turn_away -= 1;
            let number = ClientSequence(number);
            (AnswerHeader::new(AnswerKind::BackPressure, number, Sequence(0)), vec![])
        }
        RequestKind::Command | RequestKind::Batch => {
            table.command(id, number, header.received_through().0, &payload)
        }
        RequestKind::Query => {
            let number = ClientSequence(number);
            let mut answer = AnswerHeader::new(AnswerKind::Applied, number, Sequence(0));
            answer.flags = ANSWER_TO_QUERY;
            (answer, payload)
        }
        RequestKind::Close => {
            table.sessions.remove(&id);
            host.lanes.consume(now, lane);
            return true;
        }
        RequestKind::KeepAlive => {
            host.lanes.consume(now, lane);
            return true;
        }
    };
    if host.lanes.answer(lane, answer, &[&reply]).is_err() {
        return false;
    }
    host.lanes.consume(now, lane);
    true
}

fn refuse(nonce: u64, reason: RefuseReason) -> RefuseBody {
    RefuseBody { nonce: nonce.into(), reason: (reason as u32).into(), reserved: 0.into() }
}

/// The next number of a seeded row (`SplitMix64`).
pub(crate) fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

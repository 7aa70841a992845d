//! One sender, some receivers, and a network between them that loses, doubles, delays and reorders by a seed, in virtual
//! time. Bytes are real: what a receiver is told to place is copied, and placing a byte twice is a failure.

#![allow(dead_code)] // each user takes what it needs

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use quorate::stream::datagram::NakRange;
use quorate::stream::{
    DataOutcome, Receiver, ReceiverOutput, ReceiverSettings, Report, Sender, SenderSettings,
    Transmit,
};
use quorate::types::{Nanos, Position};

/// What the network does to each datagram.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) delay_ns: u64,
    /// Up to so much more, drawn for each datagram: this reorders.
    pub(crate) jitter_ns: u64,
    pub(crate) loss_per_mille: u64,
    pub(crate) duplicate_per_mille: u64,
}

impl Link {
    pub(crate) fn clean(round_trip_ns: u64) -> Self {
        Self {
            delay_ns: round_trip_ns / 2,
            jitter_ns: 0,
            loss_per_mille: 0,
            duplicate_per_mille: 0,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Packet {
    Data { from: u64, to: u64, repair: bool, stamp: u64 },
    Heartbeat { tail: u64, stamp: u64 },
    Nak { ranges: Vec<(u64, u64)> },
    Overheard { ranges: Vec<(u64, u64)> },
    Status { received: u64, window_end: u64, echo: u64 },
}

/// On its way: due, tie-break, receiver (of or to), what.
type InFlight = Reverse<(u64, u64, usize, Packet)>;

pub(crate) struct Node {
    pub(crate) receiver: Receiver,
    pub(crate) bytes: Vec<u8>,
    placed: Vec<bool>,
    echo: u64,
    status_due: bool,
    /// When all that had been sent was first received.
    pub(crate) complete_at: Option<u64>,
}

/// Sees each datagram before it leaves; true: it is lost.
pub(crate) type Dropper = Box<dyn FnMut(u64, usize, &Packet) -> bool>;

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) sender: Sender,
    pub(crate) nodes: Vec<Node>,
    pub(crate) source: Vec<u8>,
    pub(crate) link: Link,
    pub(crate) multicast: bool,
    /// NAKs go to everybody, too.
    pub(crate) overheard: bool,
    pub(crate) datagram_bytes: u64,
    pub(crate) lose: Dropper,
    pub(crate) naks: u64,
    pub(crate) repairs: u64,
    pub(crate) heartbeats: u64,
    queue: BinaryHeap<InFlight>,
    ticket: u64,
    random: u64,
}

impl World {
    pub(crate) fn new(
        sender: SenderSettings,
        receiver: ReceiverSettings,
        bytes: usize,
        link: Link,
        seed: u64,
    ) -> Self {
        let start = Position(0);
        let node = |index: u64| Node {
            receiver: Receiver::new(ReceiverSettings { seed: seed ^ index, ..receiver }, start),
            bytes: vec![0; bytes],
            placed: vec![false; bytes],
            echo: 0,
            status_due: false,
            complete_at: None,
        };
        let mut random = seed;
        Self {
            now: 1_000,
            multicast: sender.multicast,
            overheard: sender.multicast,
            nodes: (0..sender.receivers as u64).map(node).collect(),
            sender: Sender::new(sender, start),
            source: (0..bytes).map(|_| next(&mut random) as u8).collect(),
            link,
            datagram_bytes: 1_344,
            lose: Box::new(|_, _, _| false),
            naks: 0,
            repairs: 0,
            heartbeats: 0,
            queue: BinaryHeap::new(),
            ticket: 0,
            random,
        }
    }

    /// Lets the sender have bytes up to `tail`, and runs until nothing more happens at this instant.
    pub(crate) fn write(&mut self, tail: u64) {
        self.sender.set_tail(Position(tail));
        self.settle();
    }

    /// Runs until `done` or until virtual time `until`; true if done.
    pub(crate) fn run(&mut self, until: u64, done: impl Fn(&Self) -> bool) -> bool {
        self.settle();
        while !done(self) {
            let deadlines = self.nodes.iter().filter_map(|node| node.receiver.deadline());
            let timer = deadlines.map(|due| due.0).chain([self.sender.deadline().0]).min();
            let arrival = self.queue.peek().map(|Reverse((due, ..))| *due);
            let next = timer.into_iter().chain(arrival).min().unwrap_or(u64::MAX);
            if next > until {
                self.now = until;
                return done(self);
            }
            self.now = self.now.max(next);
            while let Some(Reverse((due, _, node, packet))) = self.queue.pop() {
                if due > self.now {
                    self.queue.push(Reverse((due, self.ticket, node, packet)));
                    self.ticket += 1;
                    break;
                }
                self.arrive(node, packet);
            }
            self.settle();
        }
        true
    }

    /// Everybody has everything that was written.
    pub(crate) fn complete(&self) -> bool {
        let tail = self.sender.tail();
        self.nodes.iter().all(|node| node.receiver.received().position() == tail)
    }

    /// What the receivers hold is what the sender wrote.
    pub(crate) fn assert_equal_bytes(&self) {
        let tail = self.sender.tail().0 as usize;
        for node in &self.nodes {
            assert_eq!(node.bytes[..tail], self.source[..tail]);
        }
    }

    /// Sends and asks as long as anybody has something to say now.
    fn settle(&mut self) {
        let now = Nanos(self.now);
        while let Some(transmit) = self.sender.poll(now) {
            match transmit {
                Transmit::Fresh { from, to } => self.send_bytes(None, from.0, to.0, false),
                Transmit::Repair { to_receiver, from, to } => {
                    self.send_bytes(to_receiver, from.0, to.0, true);
                }
                Transmit::Heartbeat { tail } => {
                    self.heartbeats += 1;
                    let packet = Packet::Heartbeat { tail: tail.0, stamp: self.now };
                    self.send_down(None, &packet);
                }
            }
        }
        for index in 0..self.nodes.len() {
            let tail = self.sender.tail();
            let node = &mut self.nodes[index];
            if node.complete_at.is_none() && node.receiver.received().position() == tail {
                node.complete_at = Some(self.now);
            }
            let mut out = Vec::new();
            while let Some(ReceiverOutput::Nak(ranges)) = node.receiver.poll(now) {
                let ranges = ranges.iter().map(|range| (range.from.get(), range.to.get()));
                out.push(Packet::Nak { ranges: ranges.collect() });
            }
            self.naks += out.len() as u64;
            if core::mem::take(&mut node.status_due) {
                let received = node.receiver.received().position().0;
                let window_end = node.receiver.window_end().0;
                out.push(Packet::Status { received, window_end, echo: node.echo });
            }
            for packet in out {
                self.put(index, &packet);
                if let (Packet::Nak { ranges }, true) = (&packet, self.overheard) {
                    for other in (0..self.nodes.len()).filter(|&other| other != index) {
                        self.put(other, &Packet::Overheard { ranges: ranges.clone() });
                    }
                }
            }
        }
    }

    fn send_bytes(&mut self, to_receiver: Option<usize>, from: u64, to: u64, repair: bool) {
        let mut at = from;
        while at < to {
            let end = to.min(at + self.datagram_bytes);
            let packet = Packet::Data { from: at, to: end, repair, stamp: self.now };
            self.repairs += u64::from(repair);
            self.send_down(to_receiver, &packet);
            at = end;
        }
    }

    fn send_down(&mut self, to_receiver: Option<usize>, packet: &Packet) {
        for node in 0..self.nodes.len() {
            if to_receiver.is_none_or(|receiver| receiver == node) {
                self.put(node, packet);
            }
        }
    }

    fn put(&mut self, node: usize, packet: &Packet) {
        let lost = (self.lose)(self.now, node, packet);
        if lost || next(&mut self.random) % 1_000 < self.link.loss_per_mille {
            return;
        }
        let twice = next(&mut self.random) % 1_000 < self.link.duplicate_per_mille;
        for _ in 0..=usize::from(twice) {
            let jitter = next(&mut self.random) % (self.link.jitter_ns + 1);
            let due = self.now + self.link.delay_ns + jitter;
            self.queue.push(Reverse((due, self.ticket, node, packet.clone())));
            self.ticket += 1;
        }
    }

    fn arrive(&mut self, index: usize, packet: Packet) {
        let now = Nanos(self.now);
        let node = &mut self.nodes[index];
        match packet {
            Packet::Data { from, to, repair, stamp } => {
                let (bytes, placed, source) = (&mut node.bytes, &mut node.placed, &self.source);
                let mut new = 0;
                let (from, to) = (Position(from), Position(to));
                let outcome = node.receiver.on_data(now, from, to, repair, |from, to| {
                    let range = from.0 as usize..to.0 as usize;
                    assert!(placed[range.clone()].iter().all(|&there| !there), "placed twice");
                    placed[range.clone()].fill(true);
                    bytes[range.clone()].copy_from_slice(&source[range]);
                    new += to.since(from);
                });
                match outcome {
                    DataOutcome::Placed { new_bytes } => assert_eq!(new_bytes, new),
                    _ => assert_eq!(new, 0),
                }
                node.echo = node.echo.max(stamp);
                node.status_due = true;
            }
            Packet::Heartbeat { tail, stamp } => {
                node.receiver.on_tail(now, Position(tail));
                node.echo = node.echo.max(stamp);
                node.status_due = true;
            }
            Packet::Nak { ranges } => {
                self.sender.on_nak(now, index, &nak_ranges(&ranges));
            }
            Packet::Overheard { ranges } => {
                node.receiver.on_overheard_nak(now, &nak_ranges(&ranges));
            }
            Packet::Status { received, window_end, echo } => {
                let report = Report {
                    window_end: Position(window_end),
                    echo: Nanos(echo),
                    ..Report::received(quorate::types::Received(Position(received)))
                };
                assert!(self.sender.on_status(now, index, &report));
            }
        }
    }
}

fn nak_ranges(ranges: &[(u64, u64)]) -> Vec<NakRange> {
    ranges.iter().map(|&(from, to)| NakRange { from: from.into(), to: to.into() }).collect()
}

/// The next number of a seeded row (`SplitMix64`).
pub(crate) fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

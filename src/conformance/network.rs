//! Checks of a [`Network`]: whole datagrams or none, from whom they say, to whom they were sent.
//!
//! Loss, repetition and disorder are allowed: what does not arrive is sent again, as the stream machine does. What is not
//! allowed is another byte, another sender, another receiver, and waiting.

use core::fmt;
use core::net::{Ipv4Addr, SocketAddr};
use std::collections::BTreeMap;

use crate::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MIN, DATAGRAM_HEADER_BYTES};
use crate::stream::datagram::{DatagramHeader, DatagramKind, FLAG_LANE, FLAG_PADS, parse};
use crate::stream::network::{Destination, Network};
use crate::types::{Generation, GroupId, Leadership, NodeId, Term};

/// Networks that reach each other.
#[derive(Debug)]
pub struct Group<N> {
    /// At least three nodes, each with its data address.
    pub nodes: Vec<(NodeId, SocketAddr, N)>,
    /// A client, whose address shows in what it sends.
    pub client: N,
}

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Messages, each of one datagram or more, that arrived where they should.
    pub messages: usize,
    /// Datagrams that arrived.
    pub datagrams: usize,
    /// Of these, that had arrived before.
    pub repeated: usize,
    /// Messages that were sent again because a part had not arrived.
    pub resent: usize,
    /// Largest batch of one poll.
    pub batch_max: usize,
    /// Bytes that nobody took and that were dropped, as they must be.
    pub dropped_bytes: usize,
}

/// Who, in the order of [`Group::nodes`]; the client comes last.
pub type End = usize;

/// What a network broke.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The room for a body is not what is left of the largest datagram behind header and prefix, or too small or large.
    Body {
        /// Bytes of the prefix.
        prefix: usize,
        /// Room that it says there is.
        found: usize,
    },
    /// A message did not arrive, though it was sent many times.
    Lost {
        /// By whom it was sent.
        from: End,
        /// Who should have it.
        to: End,
        /// How it was addressed.
        destination: Destination,
        /// Its bytes.
        length: usize,
    },
    /// A datagram arrived that nobody has sent so: its bytes, its length or its header are others.
    Altered {
        /// Where.
        at: End,
    },
    /// A datagram arrived at somebody to whom it was not sent.
    Misdelivered {
        /// By whom it was sent.
        from: End,
        /// Where it arrived.
        at: End,
        /// How it was addressed.
        destination: Destination,
    },
    /// A datagram's address is not the one of its sender.
    Source {
        /// By whom it was sent.
        from: End,
        /// What it says.
        found: SocketAddr,
    },
    /// The counter of a datagram is not above those before it.
    Counter {
        /// By whom it was sent.
        from: End,
    },
    /// `FLAG_PADS` is missing on the last datagram of a message, or stands on another.
    Pads {
        /// By whom it was sent.
        from: End,
    },
    /// A datagram of the batch is not the same when it is looked at twice.
    Batch {
        /// Where.
        at: End,
    },
    /// There are always more datagrams, though nobody sends any; or one poll gave very many.
    Endless {
        /// Where.
        at: End,
    },
    /// Everything that nobody took was kept: memory has no bound.
    Unbounded {
        /// Bytes of it.
        bytes: usize,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body { prefix, found } => {
                write!(f, "behind a prefix of {prefix} bytes there cannot be room for {found}")
            }
            Self::Lost { from, to, destination, length } => write!(
                f,
                "{length} bytes from end {from} to {destination:?} never arrived at end {to}"
            ),
            Self::Altered { at } => write!(f, "end {at} got a datagram that nobody has sent so"),
            Self::Misdelivered { from, at, destination } => {
                write!(f, "what end {from} sent to {destination:?} arrived at end {at}")
            }
            Self::Source { from, found } => {
                write!(f, "a datagram of end {from} says that it came from {found}")
            }
            Self::Counter { from } => write!(f, "counters of end {from} do not rise"),
            Self::Pads { from } => write!(f, "FLAG_PADS of end {from} is not on the last one only"),
            Self::Batch { at } => write!(f, "the batch of end {at} changes while it is read"),
            Self::Endless { at } => write!(f, "there is no end to what arrives at end {at}"),
            Self::Unbounded { bytes } => {
                write!(f, "all of {bytes} bytes were kept, though nobody took them")
            }
        }
    }
}

impl core::error::Error for Failure {}

/// Group of the datagrams of this suite.
const GROUP: GroupId = GroupId(0xC0F0_12AC);
/// Times that a message is sent, and rounds of polls after each.
const SENDS_MAX: usize = 10;
const ROUNDS_MAX: usize = 100;
/// Datagrams of one poll, at most.
const BATCH_MAX: usize = 16 * 1024;
/// Times that a datagram may arrive, on the average.
const REPEATS_MAX: usize = 16;
/// What is sent to somebody who does not poll, bytes.
const FLOOD_BYTES: usize = 64 << 20;
/// One message of the flood, bytes.
const FLOOD_MESSAGE_BYTES: usize = 32 << 10;

/// Checks the networks of a group in which nobody else sends. `wait` is called when nothing has arrived yet, some hundred
/// times at most for each message: it sleeps for about a millisecond where that helps.
///
/// A `poll` or `send` that waits for something lets the check hang.
///
/// # Errors
/// The first [`Failure`].
pub fn check<N: Network>(group: Group<N>, wait: impl FnMut()) -> Result<Passed, Failure> {
    assert!(group.nodes.len() >= 3, "a group has three nodes here");
    let mut suite = Suite::new(group, wait);
    suite.quiet()?;
    suite.room()?;
    let all = suite.ends.len();
    let (client, node) = (all - 1, |end: End| end < all - 1);
    // First, so that the client's address is known.
    suite.exchange(client, Destination::Node(suite.id(0)), &[0], b"hello")?;
    for from in 0..all {
        for to in (0..all).filter(|to| *to != from) {
            if node(to) {
                suite.exchange(from, Destination::Node(suite.id(to)), &[], b"to a node")?;
            }
            let address = suite.addresses[to].expect("everybody has sent");
            suite.exchange(from, Destination::Address(address), &[1; 16], b"to an address")?;
        }
    }
    for from in (0..all).filter(|from| node(*from)) {
        for length in suite.lengths(from, 16) {
            let bytes = vec![from as u8 | 1; length];
            suite.exchange(from, Destination::Members, &[2; 16], &bytes)?;
        }
    }
    for length in suite.lengths(0, 0) {
        suite.exchange(0, Destination::Node(suite.id(1)), &[], &vec![3; length])?;
    }
    suite.nowhere()?;
    suite.quiet()?;
    suite.flood()?;
    suite.exchange(1, Destination::Node(suite.id(0)), &[4; 8], b"back")?;
    suite.exchange(0, Destination::Members, &[4; 8], b"and on")?;
    suite.quiet()?;
    Ok(suite.passed)
}

/// What one `send` was given.
#[derive(Debug)]
struct Sent {
    from: End,
    destination: Destination,
    to: Vec<End>,
    header: DatagramHeader,
    prefix: Vec<u8>,
    bytes: Vec<u8>,
    /// Room for a body.
    each: usize,
    /// Counter of the first datagram, once one of them has arrived.
    counter: Option<u64>,
}

struct Suite<N, W> {
    ends: Vec<N>,
    ids: Vec<NodeId>,
    addresses: Vec<Option<SocketAddr>>,
    wait: W,
    /// By the stamp in the header.
    sent: Vec<Sent>,
    /// Offsets that have arrived, by message and receiver.
    arrived: BTreeMap<(usize, End), BTreeMap<usize, u64>>,
    passed: Passed,
}

impl<N: Network, W: FnMut()> Suite<N, W> {
    fn new(group: Group<N>, wait: W) -> Self {
        let (mut ends, mut ids, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for (id, address, network) in group.nodes {
            ends.push(network);
            ids.push(id);
            addresses.push(Some(address));
        }
        ends.push(group.client);
        addresses.push(None);
        let (arrived, passed) = (BTreeMap::new(), Passed::default());
        Self { ends, ids, addresses, wait, sent: Vec::new(), arrived, passed }
    }

    fn id(&self, end: End) -> NodeId {
        self.ids[end]
    }

    fn room(&self) -> Result<(), Failure> {
        for end in &self.ends {
            let all = end.body_bytes(0);
            let datagram = all + DATAGRAM_HEADER_BYTES;
            if !(DATAGRAM_BYTES_MIN..=DATAGRAM_BYTES_MAX).contains(&datagram) {
                return Err(Failure::Body { prefix: 0, found: all });
            }
            for prefix in 1..=64 {
                let found = end.body_bytes(prefix);
                if found != all - prefix {
                    return Err(Failure::Body { prefix, found });
                }
            }
        }
        Ok(())
    }

    /// Lengths of bytes around those at which one more datagram is needed.
    fn lengths(&self, from: End, prefix: usize) -> [usize; 8] {
        let each = self.ends[from].body_bytes(prefix);
        [0, 1, each - 1, each, each + 1, 2 * each, 3 * each + 7, 100 * each + 1]
    }

    fn send(&mut self, from: End, destination: Destination, prefix: &[u8], bytes: &[u8]) -> usize {
        let number = self.sent.len();
        let to = match destination {
            Destination::Members => (0..self.ids.len()).filter(|end| *end != from).collect(),
            Destination::Node(id) => {
                self.ids.iter().position(|own| *own == id).into_iter().collect()
            }
            Destination::Address(address) => {
                self.addresses.iter().position(|own| *own == Some(address)).into_iter().collect()
            }
        };
        let leadership = Leadership { generation: Generation::from_u64(77), term: Term(7) };
        let node = self.ids.get(from).copied();
        let mut header = DatagramHeader::new(DatagramKind::Data, GROUP, node, leadership);
        header.flags = FLAG_LANE | FLAG_PADS;
        header.position.set(1 << 40 | (number as u64) << 20);
        header.commit.set(number as u64 ^ 0x5555);
        header.stamp.set(number as u64);
        let each = self.ends[from].body_bytes(prefix.len());
        self.ends[from].send(destination, &header, prefix, bytes);
        let (prefix, bytes) = (prefix.to_vec(), bytes.to_vec());
        let counter = None;
        self.sent.push(Sent { from, destination, to, header, prefix, bytes, each, counter });
        number
    }

    /// Sends until everybody who should has all of it.
    fn exchange(
        &mut self,
        from: End,
        destination: Destination,
        prefix: &[u8],
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let mut numbers = Vec::new();
        self.passed.messages += 1;
        for attempt in 0..SENDS_MAX {
            self.passed.resent += usize::from(attempt > 0);
            numbers.push(self.send(from, destination, prefix, bytes));
            for _ in 0..ROUNDS_MAX {
                let found = self.poll_all()?;
                if self.missing(&numbers).is_none() {
                    return Ok(());
                }
                if found == 0 {
                    (self.wait)();
                }
            }
        }
        let to = self.missing(&numbers).expect("else it had arrived");
        Err(Failure::Lost { from, to, destination, length: bytes.len() })
    }

    /// A receiver that lacks a part of a message that was sent as these.
    fn missing(&self, numbers: &[usize]) -> Option<End> {
        let sent = &self.sent[numbers[0]];
        let lacks = |to: &&End| {
            let mut offsets = (0..sent.datagrams()).map(|datagram| datagram * sent.each);
            !offsets.all(|offset| {
                let mut arrived =
                    numbers.iter().filter_map(|number| self.arrived.get(&(*number, **to)));
                arrived.any(|offsets| offsets.contains_key(&offset))
            })
        };
        sent.to.iter().find(lacks).copied()
    }

    fn poll_all(&mut self) -> Result<usize, Failure> {
        let mut all = 0;
        for at in 0..self.ends.len() {
            all += self.poll(at)?;
        }
        Ok(all)
    }

    fn poll(&mut self, at: End) -> Result<usize, Failure> {
        let count = self.ends[at].poll();
        self.passed.batch_max = self.passed.batch_max.max(count);
        if count > BATCH_MAX {
            return Err(Failure::Endless { at });
        }
        let batch: Vec<(SocketAddr, Vec<u8>)> = (0..count)
            .map(|index| self.ends[at].datagram(index))
            .map(|(from, bytes)| (from, bytes.to_vec()))
            .collect();
        for (index, (from, bytes)) in batch.iter().enumerate().rev() {
            if self.ends[at].datagram(index) != (*from, &bytes[..]) {
                return Err(Failure::Batch { at });
            }
        }
        for (from, bytes) in batch {
            self.judge(at, from, &bytes)?;
        }
        self.passed.datagrams += count;
        Ok(count)
    }

    /// Holds a datagram against what was sent.
    fn judge(&mut self, at: End, source: SocketAddr, datagram: &[u8]) -> Result<(), Failure> {
        let altered = Failure::Altered { at };
        let Ok((header, _, body)) = parse(datagram, GROUP) else { return Err(altered) };
        let number = header.stamp.get() as usize;
        let Some(sent) = self.sent.get_mut(number) else { return Err(altered) };
        let offset = header.position.get().wrapping_sub(sent.header.position.get());
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = sent.bytes.get(offset..).filter(|_| offset.is_multiple_of(sent.each));
        let due = rest.map(|rest| &rest[..rest.len().min(sent.each)]);
        let due = due.filter(|due| !due.is_empty() || offset == 0);
        let Some(due) = due else { return Err(altered) };
        if body.strip_prefix(&sent.prefix[..]) != Some(due) {
            return Err(altered);
        }
        let is_last = offset + due.len() == sent.bytes.len();
        let mut expected = sent.header;
        (expected.position, expected.counter) = (header.position, header.counter);
        expected.flags = header.flags;
        if expected != *header || header.flags | FLAG_PADS != sent.header.flags {
            return Err(altered);
        }
        let from = sent.from;
        if (header.flags & FLAG_PADS != 0) != is_last {
            return Err(Failure::Pads { from });
        }
        if !sent.to.contains(&at) {
            return Err(Failure::Misdelivered { from, at, destination: sent.destination });
        }
        let first = header.counter.get().checked_sub((offset / sent.each) as u64);
        if first.is_none() || sent.counter.is_some_and(|known| Some(known) != first) {
            return Err(Failure::Counter { from });
        }
        sent.counter = first;
        self.counters_rise(number)?;
        let known = *self.addresses[from].get_or_insert(source);
        if known != source {
            return Err(Failure::Source { from, found: source });
        }
        let seen = self.arrived.entry((number, at)).or_default().entry(offset).or_default();
        *seen += 1;
        self.passed.repeated += usize::from(*seen > 1);
        Ok(())
    }

    /// Counters of this message lie above those of the one before of the same sender, and below those of the one after.
    fn counters_rise(&self, number: usize) -> Result<(), Failure> {
        let own = &self.sent[number];
        let known = |sent: &&Sent| sent.from == own.from && sent.counter.is_some();
        let before = self.sent[..number].iter().rev().find(known);
        let after = self.sent[number + 1..].iter().find(known);
        let rises = |low: &Sent, high: &Sent| {
            low.counter.zip(high.counter).is_none_or(|(l, h)| l + low.datagrams() as u64 <= h)
        };
        if before.is_none_or(|low| rises(low, own)) && after.is_none_or(|high| rises(own, high)) {
            return Ok(());
        }
        Err(Failure::Counter { from: own.from })
    }

    /// What is still under way arrives, and then nothing does.
    fn quiet(&mut self) -> Result<(), Failure> {
        for at in 0..self.ends.len() {
            let sent: usize = self.sent.iter().map(Sent::datagrams).sum();
            let (mut silent, mut taken) = (0, 0);
            while silent < 3 {
                let found = self.poll(at)?;
                taken += found;
                if taken > REPEATS_MAX * (1 + sent) {
                    return Err(Failure::Endless { at });
                }
                if found > 0 {
                    silent = 0;
                } else {
                    silent += 1;
                    (self.wait)();
                }
            }
        }
        Ok(())
    }

    /// What is sent to nobody arrives nowhere and does no harm.
    fn nowhere(&mut self) -> Result<(), Failure> {
        let unused = self.ids.iter().map(|id| id.0).max().unwrap_or(0) + 1;
        let own = self.addresses[0].map_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), |at| at);
        let mut no_port = own;
        no_port.set_port(0);
        // Port 1 is nobody's on most hosts; who is there instead gets one datagram.
        let mut nobody = own;
        nobody.set_port(1);
        for from in [0, self.ends.len() - 1] {
            self.send(from, Destination::Node(NodeId(unused)), &[5; 8], b"nobody");
            self.send(from, Destination::Address(no_port), &[5; 8], b"nobody");
            if !self.addresses.contains(&Some(nobody)) {
                self.send(from, Destination::Address(nobody), &[5; 8], b"nobody");
            }
            for to in (0..self.ids.len()).filter(|to| *to != from) {
                self.exchange(from, Destination::Node(self.id(to)), &[6; 8], b"somebody")?;
            }
        }
        Ok(())
    }

    /// Much is sent to a node that does not poll: the sender is not kept waiting, and not everything is kept.
    fn flood(&mut self) -> Result<(), Failure> {
        let first = self.sent.len();
        let bytes = vec![0xF1; FLOOD_MESSAGE_BYTES];
        for _ in 0..FLOOD_BYTES / FLOOD_MESSAGE_BYTES {
            self.send(0, Destination::Node(self.id(1)), &[7; 16], &bytes);
        }
        self.quiet()?;
        let mut kept = 0;
        for number in first..self.sent.len() {
            let each = self.sent[number].each;
            let offsets = self.arrived.get(&(number, 1)).into_iter().flat_map(BTreeMap::keys);
            kept += offsets.map(|offset| each.min(bytes.len() - offset)).sum::<usize>();
        }
        self.passed.dropped_bytes = FLOOD_BYTES - kept;
        if kept == FLOOD_BYTES { Err(Failure::Unbounded { bytes: kept }) } else { Ok(()) }
    }
}

impl Sent {
    fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.each).max(1)
    }
}

//! The thread that carries the catch-up lane: connections between nodes, and the reading of what goes over them.
//!
//! It decides nothing. What is to be asked comes from control, whose machine ([`crate::control::lane`]) gets the answers; what
//! others ask for it reads from the durable files and sends, no faster than it may. It is a thread of its own, so that neither
//! a slow disk nor a full socket holds up an election, let alone the core.
//!
//! Whoever dials asks. A connection that breaks loses what was asked over it, which control is told; a frame that does not fit
//! ends the connection it came on. Every buffer is bounded and every wait has an end.

mod connection;
mod counts;
pub(super) mod net;
mod pace;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use self::connection::{Connection, Ending, Wanted};
pub(super) use self::counts::CarrierCounts;
use self::counts::Refused;
use self::net::LaneNet;
use self::pace::Pace;
use crate::control::lane::wire::{LaneEnd, LaneMessage, LaneNodes};
use crate::control::lane::{
    Fetched, LaneAnswer, LaneInput, LaneRequest, MatchAnswer, RangeRequest, SnapshotRequest, Source,
};
use crate::io::clock::HostClock;
use crate::journal::Disk;
use crate::journal::files::{LogFiles, gone_below};
use crate::journal::incoming::{Incoming, IncomingSettings, read_piece};
use crate::limits::{LANE_PIECE_BYTES, NODES_MAX};
use crate::link::{Purpose, Shared, Wake};
use crate::types::{Generation, GroupId, Nanos, NodeId, Position};

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_CONNECTION: usize = 16;

/// Orders, and news, that wait, at most. What is lost is asked for again.
pub(super) const CARRIER_MAILBOX_DEPTH: usize = 64;
/// Connections that others have dialled, at most: each node has one, and one that it has not noticed is dead.
const ACCEPTED_MAX: usize = 2 * NODES_MAX;
/// Longest sleep: the end of the node is looked for as often, ns.
const SLEEP_NS: u64 = 50 * Nanos::MILLISECOND;
/// After a connection could not be made, or broke, no other one is tried for so long: the first time, and at most, ns.
const REDIAL_NS: (u64, u64) = (10 * Nanos::MILLISECOND, Nanos::SECOND);

/// What control wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum CarrierOrder {
    /// Ask a node.
    Ask(NodeId, LaneRequest),
    /// Ask a node for some of a snapshot, which control's machine for repairs gets.
    AskForRepair(NodeId, SnapshotRequest),
    /// Answer a node that asked where the logs part.
    Answer(NodeId, MatchAnswer),
    /// Say what of a snapshot is here, for this take-over.
    Resume(u64),
    /// Keep nothing of a snapshot that came in.
    Discard,
}

/// Control's ends.
#[derive(Debug)]
pub(super) struct CarrierLink {
    pub(super) orders: Sender<CarrierOrder>,
    pub(super) news: Receiver<LaneInput>,
    pub(super) waker: Arc<Waker>,
    pub(super) counts: Arc<CarrierCounts>,
}

/// What the carrier is told once.
#[derive(Clone, Debug)]
pub(super) struct CarrierSettings {
    pub(super) group: GroupId,
    pub(super) own: NodeId,
    /// Where every node listens.
    pub(super) addresses: Vec<(NodeId, SocketAddr)>,
    pub(super) segment_bytes: u64,
    /// What it sends to those who catch up, at most.
    pub(super) bytes_per_second: u64,
}

/// The thread.
pub(super) struct Carrier<D: Disk> {
    settings: CarrierSettings,
    disk: D,
    shared: Shared,
    clock: HostClock,
    ended: Arc<AtomicBool>,
    control: Arc<dyn Wake>,
    orders: Receiver<CarrierOrder>,
    news: Sender<LaneInput>,
    counts: Arc<CarrierCounts>,
    poll: Poll,
    net: Box<dyn LaneNet>,
    connections: BTreeMap<usize, Connection>,
    next_token: usize,
    /// By node that was dialled in vain, or whose connection broke: how often in a row, and until when it is left alone.
    redial: BTreeMap<NodeId, (u32, Nanos)>,
    pace: Pace,
    /// The snapshot that comes in.
    incoming: Incoming<D::File>,
    /// Numbers of the first and the last question for a snapshot whose answer is control's.
    of_repair: Option<(u64, u64)>,
}

impl<D: Disk> Carrier<D> {
    /// A carrier over `net`, and control's ends.
    pub(super) fn new(
        settings: CarrierSettings,
        disk: D,
        net: Box<dyn LaneNet>,
        shared: Shared,
        ended: Arc<AtomicBool>,
        control: Arc<dyn Wake>,
    ) -> io::Result<(Self, CarrierLink)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let listener = net.listener().as_raw_fd();
        poll.registry().register(&mut SourceFd(&listener), LISTENER, Interest::READABLE)?;
        let (to_carrier, orders) = crossbeam_channel::bounded(CARRIER_MAILBOX_DEPTH);
        let (news, to_control) = crossbeam_channel::bounded(CARRIER_MAILBOX_DEPTH);
        let counts = Arc::<CarrierCounts>::default();
        let link = CarrierLink {
            orders: to_carrier,
            news: to_control,
            waker,
            counts: Arc::clone(&counts),
        };
        let pace = Pace::new(settings.bytes_per_second);
        let carrier = Self {
            incoming: Incoming::new(settings.incoming()),
            settings,
            disk,
            shared,
            clock: HostClock,
            ended,
            control,
            orders,
            news,
            counts,
            poll,
            net,
            connections: BTreeMap::new(),
            next_token: FIRST_CONNECTION,
            redial: BTreeMap::new(),
            pace,
            of_repair: None,
        };
        Ok((carrier, link))
    }

    /// Runs until the node ends.
    pub(super) fn run(mut self) {
        let mut polled = Events::with_capacity(64);
        while !self.ended.load(Ordering::Acquire) {
            let sleep = self.sleep_ns();
            // What the poll could not do it is asked again after a while; nothing depends on it but this thread.
            let _ = self.poll.poll(&mut polled, Some(Duration::from_nanos(sleep)));
            let now = self.clock.now();
            for event in &polled {
                if event.token() == LISTENER {
                    self.accept(now);
                }
            }
            while let Ok(order) = self.orders.try_recv() {
                self.obey(now, &order);
            }
            let tokens: Vec<_> = self.connections.keys().copied().collect();
            for token in tokens {
                self.turn(now, token);
            }
        }
    }

    /// Rounded up by the poll to whole milliseconds.
    fn sleep_ns(&self) -> u64 {
        let now = self.clock.now();
        let next = self.connections.values().map(|connection| connection.deadline(now, &self.pace));
        let next = next.min().unwrap_or(Nanos(u64::MAX));
        next.since(now).min(SLEEP_NS)
    }

    fn nodes(&self) -> LaneNodes {
        let generation = self.shared.words().generation.load(Ordering::Acquire);
        let generation = Generation::from_u64(generation);
        LaneNodes { group: self.settings.group, own: self.settings.own, generation }
    }

    /// Also of a question to which no answer is wanted any more.
    fn is_of_repair(&self, number: u64) -> bool {
        let asked = self.of_repair;
        asked.is_some_and(|(first, last)| number.wrapping_sub(first) <= last.wrapping_sub(first))
    }

    fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.settings.addresses.iter().find(|(known, _)| *known == node).map(|(_, at)| *at)
    }

    fn accept(&mut self, now: Nanos) {
        loop {
            match self.net.accept() {
                Ok((stream, from)) => {
                    if !self.is_member(from) {
                        self.counts.refuse(Refused::Stranger);
                        continue;
                    }
                    let accepted = self.connections.values().filter(|c| c.end() == LaneEnd::Source);
                    if accepted.count() >= ACCEPTED_MAX {
                        self.counts.refuse(Refused::TooMany);
                        continue;
                    }
                    self.add(Connection::accepted(now, stream));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It is gone again, or there are no descriptors: others may come later.
                Err(_) => return,
            }
        }
    }

    fn is_member(&self, from: Option<IpAddr>) -> bool {
        let canonical = |ip: IpAddr| ip.to_canonical();
        let Some(from) = from.map(canonical) else { return true };
        self.settings.addresses.iter().any(|(_, address)| canonical(address.ip()) == from)
    }

    fn add(&mut self, connection: Connection) -> Option<usize> {
        let token = self.next_token;
        self.next_token += 1;
        let descriptor = connection.descriptor();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered =
            self.poll.registry().register(&mut SourceFd(&descriptor), Token(token), interest);
        registered.ok()?;
        self.connections.insert(token, connection);
        Some(token)
    }

    fn obey(&mut self, now: Nanos, order: &CarrierOrder) {
        let nodes = self.nodes();
        match *order {
            CarrierOrder::AskForRepair(to, request) => {
                let first = self.of_repair.map_or(request.number, |(first, _)| first);
                self.of_repair = Some((first, request.number));
                self.obey(now, &CarrierOrder::Ask(to, LaneRequest::Snapshot(request)));
            }
            CarrierOrder::Ask(to, request) => {
                let Some(token) = self.dialled(now, to) else {
                    return self.tell(LaneInput::Broken(to));
                };
                let message = LaneMessage::Request(request);
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.ask(now, &message, to, &nodes);
                }
            }
            CarrierOrder::Answer(to, answer) => {
                let files = LogFiles::new(&self.disk, self.settings.segment_bytes);
                let reply = files.filed(self.settings.group, answer.reply);
                let answer = MatchAnswer { reply, ..answer };
                let message = LaneMessage::Answer(LaneAnswer::Match(answer));
                let asked =
                    |c: &&mut Connection| c.end() == LaneEnd::Source && c.node() == Some(to);
                if let Some(connection) = self.connections.values_mut().find(asked) {
                    connection.answer(now, &message, to, &nodes);
                }
            }
            CarrierOrder::Resume(number) => {
                let taken = self.incoming.resume(&self.disk);
                let what = taken.map_or(Fetched::Failed, Fetched::from);
                self.tell(LaneInput::Fetched { number, what });
            }
            CarrierOrder::Discard => {
                let _ = self.incoming.discard(&self.disk); // what stays is reported, and thrown away, again
            }
        }
    }

    /// The connection to a node that this one dialled, perhaps just now.
    fn dialled(&mut self, now: Nanos, to: NodeId) -> Option<usize> {
        let known = |c: &Connection| c.end() == LaneEnd::Asker && c.node() == Some(to);
        if let Some((token, _)) = self.connections.iter().find(|(_, c)| known(c)) {
            return Some(*token);
        }
        if self.redial.get(&to).is_some_and(|(_, until)| now < *until) {
            return None;
        }
        let address = self.address(to)?;
        let Ok(stream) = self.net.connect(address) else {
            self.left_alone(now, to);
            return None;
        };
        self.add(Connection::dialled(now, stream, to))
    }

    fn left_alone(&mut self, now: Nanos, node: NodeId) {
        let (times, until) = self.redial.entry(node).or_default();
        let (first, longest) = REDIAL_NS;
        *until = now.plus((first << (*times).min(10)).min(longest));
        *times = times.saturating_add(1);
    }

    /// Everything that one connection can do now.
    fn turn(&mut self, now: Nanos, token: usize) {
        let ended = self.listen(now, token).and_then(|()| self.serve(now, token));
        let Err(ending) = ended else { return };
        let Some(connection) = self.connections.remove(&token) else { return };
        if let Ending::Refused(why) = ending {
            self.counts.refuse(why);
        }
        if connection.end() == LaneEnd::Asker
            && let Some(node) = connection.node()
        {
            self.left_alone(now, node);
            self.tell(LaneInput::Broken(node));
        }
    }

    /// Takes in what came.
    fn listen(&mut self, now: Nanos, token: usize) -> Result<(), Ending> {
        let nodes = self.nodes();
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        for (from, message) in connection.take(now, &nodes)? {
            self.identify(token, from)?;
            self.taken(token, from, message)?;
        }
        Ok(())
    }

    /// A frame says from whom it is: a member, and always the same one.
    fn identify(&mut self, token: usize, from: NodeId) -> Result<(), Ending> {
        let is_other = from != self.settings.own && self.address(from).is_some();
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        if !is_other || connection.node().is_some_and(|node| node != from) {
            return Err(Ending::Refused(Refused::Stranger));
        }
        match connection.end() {
            LaneEnd::Asker => drop(self.redial.remove(&from)),
            LaneEnd::Source if connection.node().is_none() => {
                connection.is_of(from);
                // It has dialled anew: what is left of an earlier connection is dead.
                self.connections.retain(|other, earlier| {
                    let same = earlier.end() == LaneEnd::Source && earlier.node() == Some(from);
                    *other == token || !same
                });
            }
            LaneEnd::Source => {}
        }
        Ok(())
    }

    fn taken(&mut self, token: usize, from: NodeId, message: LaneMessage) -> Result<(), Ending> {
        match message {
            LaneMessage::Request(LaneRequest::Match(question)) => {
                self.tell(LaneInput::Asked { asker: from, question });
            }
            LaneMessage::Request(LaneRequest::Range(range)) => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.queue(Wanted::Range(range))?;
                }
            }
            LaneMessage::Request(LaneRequest::Snapshot(snapshot)) => {
                if let Some(connection) = self.connections.get_mut(&token) {
                    connection.queue(Wanted::Snapshot(snapshot))?;
                }
            }
            LaneMessage::Answer(LaneAnswer::Part { number, piece })
                if !self.is_of_repair(number) =>
            {
                self.counts.took(piece.bytes.len());
                let what = if piece.position == Position(0) {
                    Fetched::Nothing
                } else {
                    let come = self.incoming.take(&self.disk, &piece);
                    come.map_or(Fetched::Failed, Fetched::from)
                };
                self.tell(LaneInput::Fetched { number, what });
            }
            LaneMessage::Answer(answer) => {
                match &answer {
                    LaneAnswer::Bytes { bytes, .. } => self.counts.took(bytes.len()),
                    LaneAnswer::Part { piece, .. } => self.counts.took(piece.bytes.len()),
                    LaneAnswer::Match(_) | LaneAnswer::Gone { .. } => {}
                }
                self.tell(LaneInput::Answered { from, answer });
            }
        }
        Ok(())
    }

    /// Sends what waits, and the bytes that are asked for, as far as the other side and the pace allow.
    fn serve(&mut self, now: Nanos, token: usize) -> Result<(), Ending> {
        let nodes = self.nodes();
        let Some(connection) = self.connections.get_mut(&token) else { return Ok(()) };
        connection.flush(now)?;
        while let Some((to, wanted)) = connection.next_range() {
            // Nobody leads while a leader sync waits.
            let limited =
                !matches!(wanted, Wanted::Range(range) if range.purpose == Purpose::LeaderSync);
            if limited && self.pace.next_at(now) > now {
                connection.put_off(wanted);
                break;
            }
            let source = Source::of(self.shared.words());
            let answer = match wanted {
                Wanted::Range(range) => {
                    read(&self.disk, self.settings.segment_bytes, source, &range)
                }
                Wanted::Snapshot(request) => part(&self.disk, &self.settings, &request),
            };
            let bytes = match &answer {
                LaneAnswer::Bytes { bytes, .. } => bytes.len(),
                LaneAnswer::Part { piece, .. } => piece.bytes.len(),
                LaneAnswer::Match(_) | LaneAnswer::Gone { .. } => 0,
            };
            if limited {
                self.pace.spend(now, bytes as u64);
            }
            self.counts.served(bytes);
            if let (Wanted::Range(range), LaneAnswer::Bytes { .. }) = (&wanted, &answer) {
                let read_to = range.from.plus(bytes as u64);
                if read_to < source.serves(range).0 {
                    self.counts.could_not_read(read_to);
                }
            }
            connection.answer(now, &LaneMessage::Answer(answer), to, &nodes);
            connection.flush(now)?;
        }
        Ok(())
    }

    fn tell(&self, news: LaneInput) {
        // A full mailbox: control is slow, and asks again for what it misses.
        if self.news.try_send(news).is_err() {
            self.counts.refuse(Refused::NoRoom);
        }
        self.control.wake();
    }
}

/// What this node has of a range and answers for. A disk that cannot be read has none of it.
fn read<D: Disk>(disk: &D, segment_bytes: u64, source: Source, range: &RangeRequest) -> LaneAnswer {
    let (to, end) = source.serves(range);
    let bytes = LogFiles::new(disk, segment_bytes).piece(range.from, to).unwrap_or_default();
    let (number, from) = (range.number, range.from);
    if bytes.is_empty()
        && to > from
        && let Ok(Some(first)) = gone_below(disk, from)
    {
        return LaneAnswer::Gone { number, first };
    }
    LaneAnswer::Bytes { number, from, end, committed: source.committed, bytes: bytes.into() }
}

/// What this node has of a snapshot. A disk that cannot be read has none.
fn part<D: Disk>(disk: &D, settings: &CarrierSettings, request: &SnapshotRequest) -> LaneAnswer {
    let SnapshotRequest { number, at_most, from } = *request;
    let piece = read_piece(disk, &settings.incoming(), at_most, from, LANE_PIECE_BYTES);
    LaneAnswer::Part { number, piece: piece.unwrap_or_default() }
}

impl CarrierSettings {
    fn incoming(&self) -> IncomingSettings {
        IncomingSettings::new(self.group, self.segment_bytes)
    }
}

//! One end of a lane, on a node or a client: a receiver and its buffer for what comes, a sender for what goes, and the
//! statuses between them. The bytes that go are the caller's: in the shared pool on a node, in a ring on a client.
//!
//! Every datagram of a lane says in its header's `commit` field how far its sender has received the other direction. So a
//! status of its own is needed only when nothing else goes out soon, when much room came free, or now and then to measure
//! the round trip.

use core::net::SocketAddr;

use zerocopy::{FromBytes, IntoBytes};

use super::datagram::{
    DatagramHeader, DatagramKind, FLAG_LANE, FLAG_REPAIR, LaneHeader, NakRange, StatusBody,
};
use super::flow::{Pace, Report};
use super::lane::{BadMessage, LaneIn, Message};
use super::nak::Medium;
use super::network::{Destination, Network};
use super::pool::Pool;
use super::receiver::{DataOutcome, Receiver, ReceiverOutput, ReceiverSettings};
use super::sender::{Sender, SenderSettings, Transmit};
use crate::limits::{LANE_GAPS_MAX, LANE_REPAIRS_MAX, LANE_WINDOW_BYTES_DEFAULT};
use crate::types::{Nanos, Position, Received, SessionId};

/// A status is sent at least this often while data comes, in nanoseconds: it alone measures the round trip.
const STATUS_EVERY_NS: u64 = 20 * Nanos::MILLISECOND;

/// What an end of a lane is built with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EndSettings {
    /// Room for what comes, beyond what was taken, in bytes. Also believed of the other end.
    pub window_bytes: u64,
    /// How long an acknowledgement may wait for a datagram that goes anyway, in nanoseconds.
    pub status_delay_ns: u64,
    /// Silence after which the tail is repeated while something is unacknowledged, at most, in nanoseconds.
    pub heartbeat_ns: u64,
    /// Silence after which a word is said although there is nothing to say, in nanoseconds; `u64::MAX`: never.
    pub keep_alive_ns: u64,
    /// Round trip believed until it is measured, in nanoseconds.
    pub round_trip_ns: u64,
}

impl Default for EndSettings {
    /// Those of a node: it acknowledges at once and never speaks unasked.
    fn default() -> Self {
        Self {
            window_bytes: LANE_WINDOW_BYTES_DEFAULT,
            status_delay_ns: 0,
            heartbeat_ns: 250 * Nanos::MILLISECOND,
            keep_alive_ns: u64::MAX,
            round_trip_ns: 200 * Nanos::MICROSECOND,
        }
    }
}

/// Why a datagram changed nothing. Each is counted by the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LaneError {
    /// It is not of a lane, or not of a kind that belongs on one.
    Kind,
    /// Its body does not fit its kind.
    Body,
    /// No lane of that session is open here.
    UnknownSession {
        /// As found.
        session: SessionId,
    },
    /// Of an older (or another) lane of the session.
    StaleEpoch,
    /// Not from where the other end is.
    ForeignAddress,
    /// It speaks of bytes that were never sent.
    Future,
    /// Beyond the window, or one gap too many.
    NoRoom,
    /// The pool has nothing to spare.
    PoolEmpty,
}

/// Where the bytes lie that go out.
pub trait Outgoing {
    /// Bytes of the lane from `from` on, at least one and at most up to `to`.
    fn bytes(&mut self, from: Position, to: Position) -> &[u8];
}

/// One end.
#[derive(Clone, Debug)]
pub struct LaneEnd {
    session: SessionId,
    epoch: u64,
    peer: SocketAddr,
    window_bytes: u64,
    status_delay_ns: u64,
    receiver: Receiver,
    input: LaneIn,
    sender: Sender,
    /// When anything valid came last.
    heard: Nanos,
    /// The newest stamp of the other end, and when it came.
    echo: (Nanos, Nanos),
    /// When an acknowledgement must be out; `u64::MAX`: none is owed.
    status_due: Nanos,
    /// When a status was sent last.
    status_sent: Nanos,
    /// The window end told last.
    told_window_end: Position,
}

impl LaneEnd {
    /// An end of no lane yet. `lane` names it to its pool.
    #[must_use]
    pub fn new(settings: &EndSettings, lane: u32, seed: u64) -> Self {
        let receiver = ReceiverSettings {
            window_bytes: settings.window_bytes,
            medium: Medium::Unicast,
            round_trip_ns: settings.round_trip_ns,
            gaps_max: LANE_GAPS_MAX,
            seed,
        };
        let sender = SenderSettings {
            receivers: 1,
            pace: Pace::All,
            window_bytes: settings.window_bytes,
            burst_bytes: settings.window_bytes,
            heartbeat_ns: settings.heartbeat_ns,
            idle_heartbeat_ns: settings.keep_alive_ns,
            round_trip_ns: settings.round_trip_ns,
            multicast: false,
            repairs_max: LANE_REPAIRS_MAX,
        };
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut end = Self {
            session: SessionId(0),
            epoch: 0,
            peer: nowhere,
            window_bytes: settings.window_bytes,
            status_delay_ns: settings.status_delay_ns,
            receiver: Receiver::new(receiver, Position(0)),
            input: LaneIn::new(lane),
            sender: Sender::new(sender, Position(0)),
            heard: Nanos(0),
            echo: (Nanos(0), Nanos(0)),
            status_due: Nanos(u64::MAX),
            status_sent: Nanos(0),
            told_window_end: Position(0),
        };
        end.begin(Nanos(0), SessionId(0), 0, nowhere);
        end
    }
    /// A new lane begins: both directions at position 0, nothing under way. The caller has cleared the buffers.
    pub fn begin(&mut self, now: Nanos, session: SessionId, epoch: u64, peer: SocketAddr) {
        (self.session, self.epoch, self.peer) = (session, epoch, peer);
        self.receiver.restart(Position(0));
        self.receiver.set_limit(now, Position(self.window_bytes));
        self.sender.restart(Position(0), Position(0));
        self.sender.spoke(now);
        self.heard = now;
        self.echo = (Nanos(0), now);
        self.status_due = Nanos(u64::MAX);
        self.status_sent = now;
        self.told_window_end = self.receiver.window_end();
    }
    /// Gives back what the input holds.
    pub fn clear_input(&mut self, pool: &mut Pool) {
        self.input.clear(pool);
    }

    /// Takes a datagram of this lane: `body` is what follows the [`LaneHeader`].
    ///
    /// # Errors
    /// Why it changed nothing.
    pub fn on_datagram(
        &mut self,
        now: Nanos,
        header: &DatagramHeader,
        kind: DatagramKind,
        body: &[u8],
        pool: &mut Pool,
    ) -> Result<(), LaneError> {
        if header.commit() > self.sender.next() {
            return Err(LaneError::Future);
        }
        let outcome = match kind {
            DatagramKind::Data => self.on_data(now, header, body, pool),
            DatagramKind::Heartbeat => {
                self.receiver.on_tail(now, header.position());
                // It may be asking for room: what was told before may have been lost.
                self.told_window_end = Position(0);
                self.status_due = now;
                Ok(())
            }
            DatagramKind::Nak => self.on_nak(now, body),
            DatagramKind::Status => {
                let (status, _) = StatusBody::ref_from_prefix(body).map_err(|_| LaneError::Body)?;
                self.on_report(now, &Report::from(status))
            }
            _ => return Err(LaneError::Kind),
        };
        if matches!(outcome, Err(LaneError::Body | LaneError::Future)) {
            return outcome;
        }
        self.on_report(now, &Report::received(Received(header.commit())))?;
        self.heard = now;
        if header.stamp() > self.echo.0 {
            self.echo = (header.stamp(), now);
        }
        outcome
    }

    /// The message at the front, once whole.
    ///
    /// # Errors
    /// The other end breaks the protocol.
    pub fn message<'p>(&self, pool: &'p Pool) -> Result<Option<Message<'p>>, BadMessage> {
        self.input.message(pool, self.receiver.received().position())
    }
    /// Whether [`LaneEnd::message`] has something to say.
    #[must_use]
    pub fn has_message(&self) -> bool {
        self.input.has_message(self.receiver.received().position())
    }
    /// The message at the front was taken.
    pub fn consume(&mut self, now: Nanos, pool: &mut Pool) {
        self.input.consume(pool, self.receiver.received().position());
        self.move_window(now, pool);
    }

    /// There are bytes to send up to `tail`.
    pub fn set_tail(&mut self, tail: Position) {
        self.sender.set_tail(tail);
    }
    /// The other end has everything below.
    #[must_use]
    pub fn acknowledged(&self) -> Position {
        self.sender.acknowledged()
    }

    /// What came is acknowledged with the next [`LaneEnd::transmit`].
    pub fn acknowledge_now(&mut self) {
        self.status_due = Nanos(0);
    }

    /// Sends all that is due; returns how many times it called the network. `template` gives group, node, leadership and
    /// incarnation.
    pub fn transmit<N: Network>(
        &mut self,
        now: Nanos,
        network: &mut N,
        template: &DatagramHeader,
        output: &mut impl Outgoing,
    ) -> usize {
        let lane = LaneHeader { session: self.session.0.into(), epoch: self.epoch.into() };
        let to = Destination::Address(self.peer);
        let mut header = *template;
        header.flags |= FLAG_LANE;
        header.stamp = now.0.into();
        header.commit = self.receiver.received().position().0.into();
        let plain = header.flags;
        let mut calls = 0;
        let mut send = |header: &DatagramHeader, bytes: &[u8]| {
            network.send(to, header, lane.as_bytes(), bytes);
            calls += 1;
        };
        while let Some(transmit) = self.sender.poll(now) {
            let (from, to, flags) = match transmit {
                Transmit::Fresh { from, to } => (from, to, plain),
                Transmit::Repair { from, to, .. } => (from, to, plain | FLAG_REPAIR),
                Transmit::Heartbeat { tail } => {
                    (header.kind, header.flags) = (DatagramKind::Heartbeat as u8, plain);
                    header.position = tail.0.into();
                    send(&header, &[]);
                    continue;
                }
            };
            (header.kind, header.flags) = (DatagramKind::Data as u8, flags);
            let mut at = from;
            while at < to {
                let bytes = output.bytes(at, to);
                header.position = at.0.into();
                send(&header, bytes);
                at = at.plus(bytes.len() as u64);
            }
        }
        header.flags = plain;
        while let Some(ReceiverOutput::Nak(ranges)) = self.receiver.poll(now) {
            header.kind = DatagramKind::Nak as u8;
            header.position = 0.into();
            send(&header, ranges.as_bytes());
        }
        if self.status_due == Nanos(u64::MAX) {
            return calls;
        }
        let spoke = calls > 0;
        if spoke && !self.has_much_room_to_tell() && !self.has_long_been_silent(now) {
            // What went out has acknowledged what came, and there is nothing else to tell.
            self.status_due = Nanos(u64::MAX);
        } else if spoke || now >= self.status_due {
            header.kind = DatagramKind::Status as u8;
            header.position = header.commit;
            let (status, window_end) = self.status(now);
            network.send(to, &header, lane.as_bytes(), status.as_bytes());
            calls += 1;
            (self.status_sent, self.told_window_end) = (now, window_end);
            self.status_due = Nanos(u64::MAX);
        }
        calls
    }
    /// When [`LaneEnd::transmit`] has something to do; 0: now.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let nak = self.receiver.deadline().unwrap_or(Nanos(u64::MAX));
        self.sender.deadline().min(nak).min(self.status_due)
    }

    /// Session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }
    /// Which lane of the session.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
    /// Where the other end is.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
    /// When anything valid came last.
    #[must_use]
    pub fn heard(&self) -> Nanos {
        self.heard
    }
    /// The sender, to look at.
    #[must_use]
    pub fn sender(&self) -> &Sender {
        &self.sender
    }
    /// The receiver, to look at.
    #[must_use]
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    fn on_data(
        &mut self,
        now: Nanos,
        header: &DatagramHeader,
        body: &[u8],
        pool: &mut Pool,
    ) -> Result<(), LaneError> {
        // Something came: what is there already is acknowledged again, or the other end would send it for ever.
        self.status_due = self.status_due.min(now.plus(self.status_delay_ns));
        let from = header.position();
        let Some(to) = from.0.checked_add(body.len() as u64).map(Position) else {
            return Err(LaneError::Body);
        };
        let before = self.receiver.received().position();
        if to > before && to <= self.receiver.window_end() {
            let covered = self.input.cover(pool, to, from <= before);
            covered.map_err(|_| LaneError::PoolEmpty)?;
        }
        let repair = header.flags & FLAG_REPAIR != 0;
        let input = &mut self.input;
        let outcome = self.receiver.on_data(now, from, to, repair, |start, end| {
            let bytes = &body[start.since(from) as usize..end.since(from) as usize];
            input.place(pool, start, bytes);
        });
        match outcome {
            DataOutcome::Placed { .. } => self.move_window(now, pool),
            DataOutcome::Duplicate => {}
            DataOutcome::BeyondWindow | DataOutcome::TooManyGaps => return Err(LaneError::NoRoom),
        }
        Ok(())
    }

    fn on_nak(&mut self, now: Nanos, body: &[u8]) -> Result<(), LaneError> {
        let ranges = <[NakRange]>::ref_from_bytes(body).map_err(|_| LaneError::Body)?;
        self.sender.on_nak(now, 0, ranges);
        Ok(())
    }

    fn on_report(&mut self, now: Nanos, report: &Report) -> Result<(), LaneError> {
        let before = self.sender.last_echo(0);
        if !self.sender.on_status(now, 0, report) {
            return Err(LaneError::Future);
        }
        if self.sender.last_echo(0) != before {
            // The way back is the same way.
            self.receiver.hint_round_trip(self.sender.round_trip(0).smoothed_ns());
        }
        // What is acknowledged is never asked for again.
        self.sender.set_lowest(self.sender.acknowledged());
        Ok(())
    }

    /// Room is given behind what was taken; a message that is larger than the window gets as much as it needs.
    fn move_window(&mut self, now: Nanos, pool: &Pool) {
        let received = self.receiver.received().position();
        let front = self.input.look(pool, received).unwrap_or(Position(0));
        let room = self.input.consumed().plus(self.window_bytes);
        self.receiver.set_limit(now, room.max(front));
        if self.has_much_room_to_tell() {
            self.status_due = self.status_due.min(now);
        }
    }
    fn has_much_room_to_tell(&self) -> bool {
        self.receiver.window_end().since(self.told_window_end) >= self.window_bytes / 2
    }
    fn has_long_been_silent(&self, now: Nanos) -> bool {
        now.since(self.status_sent) >= STATUS_EVERY_NS
    }

    fn status(&self, now: Nanos) -> (StatusBody, Position) {
        let received = self.receiver.received().position();
        let window_end = self.receiver.window_end();
        let body = StatusBody {
            received: received.0.into(),
            verified: received.0.into(),
            durable: 0.into(),
            promised: 0.into(),
            window_end: window_end.0.into(),
            echo: self.echo.0.0.into(),
            held: now.since(self.echo.1).into(),
            flags: 0.into(),
            reserved: 0.into(),
        };
        (body, window_end)
    }
}

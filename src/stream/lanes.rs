//! All client lanes of a node. A duty cycle touches only lanes that have something to do: those that something happened
//! to, and those whose time has come.
//!
//! ```text
//! datagram -> on_datagram -> ready list -> message / consume    (commands to the log)
//! reply    -> answer      -> dirty list -> transmit             (datagrams to the clients)
//!                            deadlines  /
//! ```

use core::net::SocketAddr;
use std::collections::VecDeque;

use zerocopy::FromBytes;

use super::datagram::{DatagramHeader, DatagramKind, FLAG_LANE, LaneHeader};
use super::deadlines::Deadlines;
use super::endpoint::{EndSettings, LaneEnd, LaneError, Outgoing};
use super::index::SessionIndex;
use super::lane::{BadMessage, LaneOut, LaneRefusal, Message};
use super::message::AnswerHeader;
use super::network::Network;
use super::pool::Pool;
use crate::limits::{
    LANE_CHUNK_BYTES_DEFAULT, LANE_POOL_BYTES_DEFAULT, LANE_WINDOW_BYTES_DEFAULT, SESSIONS_MAX,
};
use crate::types::{Nanos, Position, SessionId};

/// Bytes gathered at once where they do not lie together.
const SCRATCH_BYTES: usize = 16 * 1024;

/// What the lanes of a node are built with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LanesSettings {
    /// Lanes at most: one per session.
    pub lanes: usize,
    /// Memory shared by all of them, in bytes: half for what comes, half for what goes, so that neither ever waits for the
    /// other to make room.
    pub pool_bytes: usize,
    /// Piece in which it is given out, in bytes; a power of two.
    pub chunk_bytes: usize,
    /// Answers of one lane that may be unacknowledged, in bytes; one larger answer alone always may.
    pub buffer_bytes: u64,
    /// Each end.
    pub end: EndSettings,
    /// Makes lanes differ from those of other nodes.
    pub seed: u64,
}

impl Default for LanesSettings {
    fn default() -> Self {
        Self {
            lanes: SESSIONS_MAX,
            pool_bytes: LANE_POOL_BYTES_DEFAULT,
            chunk_bytes: LANE_CHUNK_BYTES_DEFAULT,
            buffer_bytes: 4 * LANE_WINDOW_BYTES_DEFAULT,
            end: EndSettings::default(),
            seed: 0,
        }
    }
}

/// Which lane. Valid until that lane is closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneIndex(pub u32);

/// Why no lane is opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OpenError {
    /// As many are open as may be.
    Full,
    /// A newer lane of that session is open: the hello was under way for long.
    OlderEpoch,
}

/// What opening a lane did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Opened {
    /// A lane begins.
    New(LaneIndex),
    /// That very lane was open already: the hello came twice.
    Same(LaneIndex),
}

impl Opened {
    /// Which lane.
    #[must_use]
    pub fn lane(self) -> LaneIndex {
        let (Self::New(lane) | Self::Same(lane)) = self;
        lane
    }
}

/// The node's side of one lane.
#[derive(Clone, Debug)]
struct NodeLane {
    end: LaneEnd,
    output: LaneOut,
    life: Life,
    /// Stands in the ready list.
    ready: bool,
    /// Stands in the dirty list.
    dirty: bool,
}

/// Of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Closed,
    Open,
    /// Ends with the next transmission.
    Leaving,
}

/// All lanes.
#[derive(Clone, Debug)]
pub struct NodeLanes {
    lanes: Box<[NodeLane]>,
    input_pool: Pool,
    output_pool: Pool,
    index: SessionIndex,
    free: Vec<u32>,
    ready: VecDeque<u32>,
    dirty: VecDeque<u32>,
    deadlines: Deadlines,
    scratch: Box<[u8]>,
}

impl NodeLanes {
    /// No lane open yet; all memory is there.
    #[must_use]
    pub fn new(settings: &LanesSettings) -> Self {
        assert!(settings.lanes > 0 && settings.lanes < u32::MAX as usize);
        let lane = |lane: u32| NodeLane {
            end: LaneEnd::new(&settings.end, lane, settings.seed ^ u64::from(lane)),
            output: LaneOut::new(lane, settings.buffer_bytes),
            life: Life::Closed,
            ready: false,
            dirty: false,
        };
        let count = settings.lanes as u32;
        Self {
            lanes: (0..count).map(lane).collect(),
            input_pool: Pool::new(settings.pool_bytes / 2, settings.chunk_bytes),
            output_pool: Pool::new(settings.pool_bytes / 2, settings.chunk_bytes),
            index: SessionIndex::new(settings.lanes),
            free: (0..count).rev().collect(),
            ready: VecDeque::with_capacity(settings.lanes),
            dirty: VecDeque::with_capacity(settings.lanes),
            deadlines: Deadlines::new(settings.lanes),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
        }
    }

    /// A hello was accepted: lane `epoch` of `session` begins, both ways at position 0, in place of any older one.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        &mut self,
        now: Nanos,
        session: SessionId,
        epoch: u64,
        peer: SocketAddr,
    ) -> Result<Opened, OpenError> {
        if let Some(lane) = self.find(session) {
            let end = &self.lane(lane).end;
            if end.epoch() == epoch && end.peer() == peer {
                return Ok(Opened::Same(lane));
            }
            if end.epoch() > epoch {
                return Err(OpenError::OlderEpoch);
            }
            self.close(lane);
        }
        let number = self.free.pop().ok_or(OpenError::Full)?;
        let lane = &mut self.lanes[number as usize];
        lane.life = Life::Open;
        lane.end.begin(now, session, epoch, peer);
        self.index.insert(session.0, number);
        self.deadlines.by(number, lane.end.deadline());
        Ok(Opened::New(LaneIndex(number)))
    }
    /// Forgets a lane and all it holds.
    pub fn close(&mut self, lane: LaneIndex) {
        let slot = &mut self.lanes[lane.0 as usize];
        assert!(slot.life != Life::Closed, "a lane is closed once");
        slot.life = Life::Closed;
        slot.end.clear_input(&mut self.input_pool);
        slot.output.clear(&mut self.output_pool);
        self.index.remove(slot.end.session().0);
        self.deadlines.remove(lane.0);
        if core::mem::take(&mut slot.ready) {
            self.ready.retain(|&other| other != lane.0);
        }
        if core::mem::take(&mut slot.dirty) {
            self.dirty.retain(|&other| other != lane.0);
        }
        self.free.push(lane.0);
    }
    /// Closes a lane with the next [`NodeLanes::transmit`], which says a last time what came in: the client that asked for
    /// the end hears that it was heard. Should that word be lost, its next one finds no lane and is told so.
    pub fn close_after_last_word(&mut self, lane: LaneIndex) {
        let slot = &mut self.lanes[lane.0 as usize];
        assert!(slot.life != Life::Closed, "a lane is closed once");
        slot.life = Life::Leaving;
        slot.end.acknowledge_now();
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push_back(lane.0);
        }
    }
    /// Forgets all lanes, as when this node no longer leads.
    pub fn close_all(&mut self) {
        self.ready.clear();
        self.dirty.clear();
        for number in 0..self.lanes.len() as u32 {
            let slot = &mut self.lanes[number as usize];
            (slot.ready, slot.dirty) = (false, false);
            if slot.life != Life::Closed {
                self.close(LaneIndex(number));
            }
        }
    }
    /// The lane of a session.
    #[must_use]
    pub fn find(&self, session: SessionId) -> Option<LaneIndex> {
        self.index.find(session.0).map(LaneIndex)
    }
    /// All open lanes.
    pub fn open_lanes(&self) -> impl Iterator<Item = LaneIndex> + '_ {
        let numbers = (0..).zip(&self.lanes);
        numbers.filter(|(_, lane)| lane.life != Life::Closed).map(|(number, _)| LaneIndex(number))
    }
    /// The first open lane that is not below `from`.
    #[must_use]
    pub fn open_from(&self, from: LaneIndex) -> Option<LaneIndex> {
        let mut numbers = (from.0..).zip(&self.lanes[from.0 as usize..]);
        numbers.find(|(_, lane)| lane.life != Life::Closed).map(|(number, _)| LaneIndex(number))
    }
    /// How many are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.lanes.len() - self.free.len()
    }

    /// Takes a datagram that has [`FLAG_LANE`] set. `body` is the whole body, with its [`LaneHeader`].
    ///
    /// # Errors
    /// Why it changed nothing; [`LaneError::UnknownSession`] is worth an answer, so that the client says hello again.
    pub fn on_datagram(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        header: &DatagramHeader,
        kind: DatagramKind,
        body: &[u8],
    ) -> Result<LaneIndex, LaneError> {
        if header.flags & FLAG_LANE == 0 {
            return Err(LaneError::Kind);
        }
        let (prefix, body) = LaneHeader::ref_from_prefix(body).map_err(|_| LaneError::Body)?;
        let session = SessionId(prefix.session.get());
        let lane = self.find(session).ok_or(LaneError::UnknownSession { session })?;
        let slot = &mut self.lanes[lane.0 as usize];
        if slot.end.epoch() != prefix.epoch.get() {
            return Err(LaneError::StaleEpoch);
        }
        if slot.end.peer() != from {
            return Err(LaneError::ForeignAddress);
        }
        let outcome = slot.end.on_datagram(now, header, kind, body, &mut self.input_pool);
        slot.output.acknowledge(&mut self.output_pool, slot.end.acknowledged());
        if slot.end.has_message() && !slot.ready {
            slot.ready = true;
            self.ready.push_back(lane.0);
        }
        self.attend(now, lane);
        outcome.map(|()| lane)
    }

    /// The next lane with a whole message, each in turn. It stands in the list again after [`NodeLanes::consume`] if there
    /// is another message, or after [`NodeLanes::put_back`].
    pub fn next_ready(&mut self) -> Option<LaneIndex> {
        let number = self.ready.pop_front()?;
        self.lanes[number as usize].ready = false;
        Some(LaneIndex(number))
    }
    /// Lanes with a whole message.
    #[must_use]
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }
    /// The message of this lane cannot be taken now: it is the next one again.
    pub fn put_back(&mut self, lane: LaneIndex) {
        let slot = &mut self.lanes[lane.0 as usize];
        if slot.life != Life::Closed && !slot.ready {
            slot.ready = true;
            self.ready.push_front(lane.0);
        }
    }
    /// The message at the front of a lane.
    ///
    /// # Errors
    /// The client breaks the protocol: its session is to be closed.
    pub fn message(&self, lane: LaneIndex) -> Result<Option<Message<'_>>, BadMessage> {
        self.lane(lane).end.message(&self.input_pool)
    }
    /// The message at the front was taken.
    pub fn consume(&mut self, now: Nanos, lane: LaneIndex) {
        let slot = &mut self.lanes[lane.0 as usize];
        slot.end.consume(now, &mut self.input_pool);
        if slot.end.has_message() && !slot.ready {
            slot.ready = true;
            self.ready.push_back(lane.0);
        }
        self.attend(now, lane);
    }

    /// Writes an answer, its payload the `parts` one behind the other.
    ///
    /// # Errors
    /// [`LaneRefusal`]: nothing was written; after the client has acknowledged something it may be.
    pub fn answer(
        &mut self,
        lane: LaneIndex,
        header: AnswerHeader,
        parts: &[&[u8]],
    ) -> Result<(), LaneRefusal> {
        let slot = &mut self.lanes[lane.0 as usize];
        let tail = slot.output.write(&mut self.output_pool, header, parts)?;
        slot.end.set_tail(tail);
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push_back(lane.0);
        }
        Ok(())
    }

    /// Sends what is due, of at most `lanes_max` lanes; returns how many lanes that were. `template` gives group, node,
    /// leadership and incarnation.
    pub fn transmit<N: Network>(
        &mut self,
        now: Nanos,
        network: &mut N,
        template: &DatagramHeader,
        lanes_max: usize,
    ) -> usize {
        let room = lanes_max.saturating_sub(self.dirty.len());
        for _ in 0..room {
            let Some(number) = self.deadlines.pop(now) else { break };
            self.attend(now, LaneIndex(number));
        }
        let body_bytes = network.body_bytes(size_of::<LaneHeader>()).max(1);
        let whole = (SCRATCH_BYTES / body_bytes).max(1) * body_bytes;
        let mut done = 0;
        while done < lanes_max {
            let Some(number) = self.dirty.pop_front() else { break };
            let NodeLane { end, output, dirty, life, .. } = &mut self.lanes[number as usize];
            *dirty = false;
            let scratch = &mut self.scratch[..whole.min(SCRATCH_BYTES)];
            let mut bytes = PoolBytes { output, pool: &self.output_pool, scratch };
            end.transmit(now, network, template, &mut bytes);
            done += 1;
            if *life == Life::Leaving {
                self.close(LaneIndex(number));
            } else {
                self.deadlines.by(number, end.deadline());
            }
        }
        done
    }
    /// When [`NodeLanes::transmit`] has something to do; 0: now. `None`: not before something happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        if self.dirty.is_empty() { self.deadlines.earliest() } else { Some(Nanos(0)) }
    }

    /// One end, to look at: session, epoch, address, when it was heard.
    #[must_use]
    pub fn end(&self, lane: LaneIndex) -> &LaneEnd {
        &self.lane(lane).end
    }
    /// The memory for what comes and for what goes, to look at.
    #[must_use]
    pub fn pools(&self) -> [&Pool; 2] {
        [&self.input_pool, &self.output_pool]
    }

    fn lane(&self, lane: LaneIndex) -> &NodeLane {
        let slot = &self.lanes[lane.0 as usize];
        assert!(slot.life != Life::Closed, "the lane is open");
        slot
    }

    /// Something happened to a lane: it is looked at now or at its time.
    fn attend(&mut self, now: Nanos, lane: LaneIndex) {
        let slot = &mut self.lanes[lane.0 as usize];
        let due = slot.end.deadline();
        if due > now {
            self.deadlines.by(lane.0, due);
        } else if !slot.dirty {
            slot.dirty = true;
            self.dirty.push_back(lane.0);
        }
    }
}

/// The bytes of one lane in the pool.
struct PoolBytes<'a> {
    output: &'a mut LaneOut,
    pool: &'a Pool,
    scratch: &'a mut [u8],
}

impl Outgoing for PoolBytes<'_> {
    fn bytes(&mut self, from: Position, to: Position) -> &[u8] {
        self.output.chunk(self.pool, from, to, self.scratch)
    }
}

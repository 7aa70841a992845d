//! Clients of a leader: their lanes, their sessions, their commands into the log, and the answers back.
//!
//! What is here is the leader's own and is forgotten with its role. What must survive it (which command of a session was
//! applied, and its reply) is the replicated session table.

use core::net::SocketAddr;
use core::sync::atomic::Ordering;
use std::collections::VecDeque;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::core::{Core, HelloBytes, Now, Work};
use super::counters::Counters;
use super::early::EarlyHellos;
use super::quorum;
use super::settings::CoreSettings;
use super::text::Text;
use crate::frame::Kind;
use crate::frame::payload::{CommandPrefix, SessionClose, SessionOpen};
use crate::journal::SegmentMemory;
use crate::limits::{
    COMMAND_PREFIX_BYTES, LANE_WINDOW_BYTES_DEFAULT, REPLY_BYTES_MAX, REPLY_CHUNK_BYTES,
};
use crate::mutants::Mutant;
use crate::service::{CloseReason, Reply, Service};
use crate::session::{Answer, Outcome, State, Verdict};
use crate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_LANE, HelloBody, LaneHeader, RefuseBody, RefuseReason,
    WelcomeBody,
};
use crate::stream::endpoint::{EndSettings, LaneError};
use crate::stream::lanes::{LaneIndex, LanesSettings, NodeLanes};
use crate::stream::message::{
    ANSWER_TO_QUERY, AnswerHeader, AnswerKind, RequestHeader, RequestKind,
};
use crate::stream::network::{Destination, Network};
use crate::types::{ClientSequence, Nanos, Position, Sequence, SessionId, Timestamp};

/// Hellos that wait for their session to be committed, at most: more are answered with back-pressure.
const HELLOS_MAX: usize = 1024;
/// Messages of clients taken in one duty cycle, at most.
const MESSAGES_MAX: usize = 64;
/// Lanes that send in one duty cycle, at most.
const LANES_MAX: usize = 64;
/// How long the acknowledgement of a command waits for the answer that carries it, ns.
const ACKNOWLEDGE_NS: u64 = 300 * Nanos::MICROSECOND;
/// How often sessions are looked at for silence, ns.
const EXPIRY_INTERVAL_NS: u64 = Nanos::MILLISECOND;
/// A new leader gives every client so many leader timeouts to find it.
const GRACE_TIMEOUTS: u64 = 10;
/// Longest name of a client, bytes.
const NAME_BYTES_MAX: usize = 64;

/// Clients of a leader.
#[derive(Debug)]
pub(super) struct Clients {
    lanes: NodeLanes,
    /// By lane.
    ingress: Box<[Ingress]>,
    /// Those that came before the term was open.
    pub(super) early: EarlyHellos,
    hellos: VecDeque<PendingHello>,
    /// Queries that wait until it is certain that this node still leads.
    queries: VecDeque<PendingQuery>,
    /// Lanes whose answers found no room.
    owing: VecDeque<LaneIndex>,
    scratch: Box<[u8]>,
    expiry_at: Nanos,
}

/// What a leader knows of one lane's commands.
#[derive(Clone, Copy, Debug, Default)]
struct Ingress {
    session: SessionId,
    /// The last command that is in the log.
    appended: ClientSequence,
    /// The last command whose answer was written to the lane.
    answered: ClientSequence,
    /// A command of this lane was taken in or turned away: what follows is the next one, or misses it.
    judged: bool,
    owes: bool,
    /// The message at the front is a query that waits.
    queries: bool,
}

#[derive(Clone, Copy, Debug)]
struct PendingHello {
    nonce: u64,
    epoch: u64,
    from: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct PendingQuery {
    lane: LaneIndex,
    session: SessionId,
    since: Nanos,
    commit: Position,
}

impl Clients {
    pub(super) fn new(settings: &CoreSettings) -> Self {
        let end = EndSettings { status_delay_ns: ACKNOWLEDGE_NS, ..EndSettings::default() };
        let lanes = NodeLanes::new(&LanesSettings {
            lanes: settings.lanes_max,
            pool_bytes: settings.lane_pool_bytes,
            buffer_bytes: 4 * LANE_WINDOW_BYTES_DEFAULT,
            end,
            seed: settings.seed,
            ..LanesSettings::default()
        });
        Self {
            lanes,
            ingress: vec![Ingress::default(); settings.lanes_max].into_boxed_slice(),
            early: EarlyHellos::new(),
            hellos: VecDeque::with_capacity(HELLOS_MAX),
            queries: VecDeque::with_capacity(settings.lanes_max),
            owing: VecDeque::with_capacity(settings.lanes_max),
            scratch: vec![0; REPLY_BYTES_MAX].into_boxed_slice(),
            expiry_at: Nanos(0),
        }
    }

    /// Memory for what is on its way from and to clients.
    #[cfg(test)]
    pub(super) fn pool_bytes(&self) -> usize {
        self.lanes.pools().iter().map(|pool| pool.chunk_count() * pool.chunk_bytes()).sum()
    }

    /// The role is over: clients find the next leader by themselves.
    pub(super) fn close(&mut self) {
        self.lanes.close_all();
        self.early.clear();
        self.hellos.clear();
        self.queries.clear();
        self.owing.clear();
    }

    pub(super) fn deadline(&self) -> Nanos {
        self.lanes.deadline().unwrap_or(Nanos(u64::MAX))
    }

    /// Takes a datagram of a lane. Returns whose it was, or the session that is not known here.
    pub(super) fn on_lane(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        header: &DatagramHeader,
        kind: DatagramKind,
        body: &[u8],
        counters: &mut Counters,
    ) -> Result<SessionId, Option<LaneHeader>> {
        match self.lanes.on_datagram(now, from, header, kind, body) {
            Ok(lane) => Ok(self.ingress[lane.0 as usize].session),
            Err(LaneError::UnknownSession { .. }) => {
                counters.dropped_stale += 1;
                Err(LaneHeader::read_from_prefix(body).ok().map(|(lane, _)| lane))
            }
            Err(LaneError::StaleEpoch | LaneError::ForeignAddress | LaneError::Future) => {
                counters.dropped_stale += 1;
                Err(None)
            }
            Err(LaneError::NoRoom | LaneError::PoolEmpty) => {
                counters.dropped_window += 1;
                Err(None)
            }
            Err(LaneError::Kind | LaneError::Body) => {
                counters.dropped_garbage += 1;
                Err(None)
            }
        }
    }

    /// An entry was applied: whoever waits for it is answered.
    pub(super) fn answer<S: Service>(&mut self, state: &State<S>, outcome: &Outcome) {
        match *outcome {
            Outcome::Replied { session, .. } | Outcome::Repeated { session, .. } => {
                if let Some(lane) = self.lanes.find(session) {
                    self.settle(lane, state);
                }
            }
            Outcome::Refused { session, client_sequence, why } => {
                if let Some(lane) = self.lanes.find(session) {
                    if let (Verdict::Gap { .. }, Some(info)) = (why, state.sessions().info(session))
                    {
                        // It is in the log, and took no effect: when it comes again, it is not there yet.
                        self.ingress[lane.0 as usize].appended = info.last;
                    }
                    let kind = refusal(why);
                    let header = AnswerHeader::new(kind, client_sequence, state.sequence());
                    // Without room the client learns it by asking again.
                    let _ = self.lanes.answer(lane, header, &[]);
                }
            }
            Outcome::SessionClosed { id, .. } => {
                if let Some(lane) = self.lanes.find(id) {
                    self.lanes.close_after_last_word(lane);
                }
            }
            Outcome::None
            | Outcome::SessionOpened { .. }
            | Outcome::SessionsFull { .. }
            | Outcome::TimerFired
            | Outcome::Malformed => {}
        }
    }

    /// Writes every answer that a lane is owed, in order, as far as there is room.
    fn settle<S: Service>(&mut self, lane: LaneIndex, state: &State<S>) {
        let ingress = self.ingress[lane.0 as usize];
        let Some(info) = state.sessions().info(ingress.session) else { return };
        let mut next = ClientSequence(ingress.answered.0 + 1);
        while next <= info.last {
            if !self.write_stored(lane, state, next) {
                break;
            }
            self.ingress[lane.0 as usize].answered = next;
            next = ClientSequence(next.0 + 1);
        }
        let slot = &mut self.ingress[lane.0 as usize];
        let owes = slot.answered < info.last;
        if owes && !core::mem::replace(&mut slot.owes, owes) {
            self.owing.push_back(lane);
        }
        slot.owes = owes;
    }

    /// Writes the stored reply to a command; whether there was room.
    fn write_stored<S: Service>(
        &mut self,
        lane: LaneIndex,
        state: &State<S>,
        command: ClientSequence,
    ) -> bool {
        let session = self.ingress[lane.0 as usize].session;
        let Some(mut reply) = state.sessions().reply(session, command) else {
            let header = AnswerHeader::new(AnswerKind::Forgotten, command, Sequence(0));
            return self.lanes.answer(lane, header, &[]).is_ok();
        };
        let header = match reply.answer {
            Answer::Applied => AnswerHeader::new(AnswerKind::Applied, command, reply.sequence),
            Answer::Rejected(rejection) => AnswerHeader {
                code: rejection.0.into(),
                ..AnswerHeader::new(AnswerKind::Rejected, command, reply.sequence)
            },
        };
        let bytes = if reply.length <= REPLY_CHUNK_BYTES {
            reply.chunks.next().unwrap_or(&[])
        } else {
            let length =
                reply.copy_to(&mut self.scratch).expect("no reply is longer than any may be");
            &self.scratch[..length]
        };
        self.lanes.answer(lane, header, &[bytes]).is_ok()
    }

    /// A lane begins for a session that is open.
    fn begin<S: Service>(
        &mut self,
        now: Nanos,
        state: &State<S>,
        session: SessionId,
        hello: PendingHello,
    ) -> Option<ClientSequence> {
        let last = state.sessions().info(session)?.last;
        // Commands of an older lane may be in the log and not applied yet: they are not appended again.
        let appended = self
            .lanes
            .find(session)
            .map_or(last, |old| self.ingress[old.0 as usize].appended.max(last));
        let opened = self.lanes.open(now, session, hello.epoch, hello.from).ok()?;
        if let crate::stream::lanes::Opened::New(lane) = opened {
            // What an older lane in this place asked is not in this one: its client asks again.
            self.queries.retain(|query| query.lane != lane);
            self.ingress[lane.0 as usize] =
                Ingress { session, appended, answered: last, ..Ingress::default() };
        }
        Some(last)
    }
}

/// The answer to a command that consumed nothing.
fn refusal(why: Verdict) -> AnswerKind {
    match why {
        Verdict::Gap { .. } => AnswerKind::Gap,
        Verdict::Forgotten => AnswerKind::Forgotten,
        Verdict::UnknownSession => AnswerKind::UnknownSession,
        Verdict::Apply | Verdict::Stored => unreachable!("these are not refusals"),
    }
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Lanes of clients that are open.
    #[cfg(test)]
    pub(super) fn open_lanes(&self) -> usize {
        self.clients.lanes.open_count()
    }

    /// The lane of a session.
    #[cfg(test)]
    pub(super) fn lane_of(&self, session: SessionId) -> Option<u64> {
        let lane = self.clients.lanes.find(session)?;
        Some(self.clients.lanes.end(lane).epoch())
    }

    /// A client says hello: it gets a lane, or is told where to go.
    pub(super) fn on_hello(&mut self, now: Now, from: SocketAddr, hello: &HelloBytes) {
        let Ok((body, name)) = HelloBody::read_from_prefix(hello.bytes()) else {
            self.counters.dropped_garbage += 1;
            return;
        };
        let opened = match &self.work {
            Work::Leader(leading) if leading.handing.is_some() => return, // soon: the client asks again
            Work::Leader(leading) if leading.accepts(now.at) => leading.opened,
            Work::Follower(following)
                if following.hears(now.at, self.settings.leader_timeout_ns) =>
            {
                return self.redirect(now, from, None);
            }
            Work::Halted => return self.refuse(now, from, body.nonce, RefuseReason::Stopping),
            // Nobody leads, as far as this node knows, or whom it follows has fallen silent.
            Work::Leader(_) | Work::Follower(_) | Work::Idle | Work::Puller(_) => {
                return self.refuse(now, from, body.nonce, RefuseReason::NoQuorum);
            }
        };
        let pending = PendingHello { nonce: body.nonce.get(), epoch: body.epoch.get(), from };
        let session = SessionId(body.session.get());
        let known = self.state.sessions().info(session);
        if known.is_some_and(|info| info.nonce == pending.nonce) {
            // Also before the term is open: its commands share the sync of the term's first entry. What of them is in the
            // log and not applied yet comes again, behind itself, and is answered with what the first one did.
            return self.welcome(now, session, pending);
        }
        if !opened {
            return self.clients.early.keep(from, hello); // whether its session is there is not known yet
        }
        if session.0 != 0 {
            return self.refuse(now, from, body.nonce, RefuseReason::UnknownSession);
        }
        if let Some(session) = self.state.sessions().find_nonce(pending.nonce) {
            return self.welcome(now, session, pending);
        }
        let waiting = self.clients.hellos.iter_mut().find(|known| known.nonce == pending.nonce);
        if let Some(known) = waiting {
            *known = pending;
            return;
        }
        let sessions = self.state.sessions();
        if sessions.count() + self.clients.hellos.len() >= sessions.limits().sessions_max {
            return self.refuse(now, from, body.nonce, RefuseReason::SessionsFull);
        }
        let timeout = body
            .timeout
            .get()
            .clamp(self.settings.session_timeout_ns.0, self.settings.session_timeout_ns.1);
        let open = SessionOpen { nonce: body.nonce, timeout: U64::new(timeout) };
        let name = &name[..name.len().min(NAME_BYTES_MAX)];
        let full = self.clients.hellos.len() == HELLOS_MAX;
        if full || !self.append_entry(now, Kind::SessionOpen, &[open.as_bytes(), name]) {
            let reason = if self.lacks_space(!full) {
                RefuseReason::NoSpace
            } else {
                RefuseReason::BackPressure
            };
            return self.refuse(now, from, body.nonce, reason);
        }
        self.clients.hellos.push_back(pending);
    }

    /// A session was opened, or not, by an entry that was applied: its client is told.
    pub(super) fn on_session_outcome(&mut self, now: Now, outcome: &Outcome) {
        let (nonce, session) = match *outcome {
            Outcome::SessionOpened { id, nonce } => (nonce, Some(id)),
            Outcome::SessionsFull { nonce } => (nonce, None),
            _ => return,
        };
        let Some(at) = self.clients.hellos.iter().position(|hello| hello.nonce == nonce) else {
            return;
        };
        let Some(hello) = self.clients.hellos.remove(at) else { return };
        match session {
            Some(session) => self.welcome(now, session, hello),
            None => self.refuse(now, hello.from, U64::new(nonce), RefuseReason::SessionsFull),
        }
    }

    fn welcome(&mut self, now: Now, session: SessionId, hello: PendingHello) {
        let Some(last) = self.clients.begin(now.at, &self.state, session, hello) else {
            return self.refuse(now, hello.from, U64::new(hello.nonce), RefuseReason::BackPressure);
        };
        let time = self.cluster_time(now);
        self.state.sessions_mut().touch(session, time);
        let body = WelcomeBody {
            nonce: U64::new(hello.nonce),
            session: U64::new(session.0),
            epoch: U64::new(hello.epoch),
            last_client_sequence: U64::new(last.0),
            command_bytes_max: U32::new(self.settings.command_bytes_max as u32),
            in_flight_max: U32::new(self.settings.in_flight_max as u32),
        };
        let header = self.header(DatagramKind::Welcome, now);
        self.send(Destination::Address(hello.from), &header, body.as_bytes());
    }

    fn refuse(&mut self, now: Now, to: SocketAddr, nonce: U64, reason: RefuseReason) {
        self.counters.no_quorum_refusals += u64::from(reason == RefuseReason::NoQuorum);
        let body = RefuseBody { nonce, reason: U32::new(reason as u32), reserved: U32::new(0) };
        let header = self.header(DatagramKind::Refuse, now);
        self.send(Destination::Address(to), &header, body.as_bytes());
    }

    /// Tells a client where the leader is, as text; nothing when that is not known.
    pub(super) fn redirect(&mut self, now: Now, to: SocketAddr, lane: Option<LaneHeader>) {
        let leader = self.leader().and_then(|node| self.settings.index_of(node));
        let mut text = Text::default();
        if let Some(index) = leader {
            text.address(self.settings.peers[index].address);
        }
        let mut header = self.header(DatagramKind::Redirect, now);
        let to = Destination::Address(to);
        if let Some(lane) = lane {
            header.flags |= FLAG_LANE;
            self.network.send(to, &header, lane.as_bytes(), text.bytes());
        } else {
            self.send(to, &header, text.bytes());
        }
    }

    /// A datagram of a lane came in.
    pub(super) fn after_lane(
        &mut self,
        now: Now,
        from: SocketAddr,
        taken: Result<SessionId, Option<LaneHeader>>,
    ) {
        match taken {
            Ok(session) => {
                let time = self.cluster_time(now);
                self.state.sessions_mut().touch(session, time);
            }
            Err(Some(lane)) => {
                // It has a lane of another leader, or of another life of this one: it says hello again.
                self.refuse_lane(now, from, lane, RefuseReason::UnknownSession);
            }
            Err(None) => {}
        }
    }

    pub(super) fn refuse_lane(
        &mut self,
        now: Now,
        to: SocketAddr,
        lane: LaneHeader,
        reason: RefuseReason,
    ) {
        let reason = U32::new(reason as u32);
        let body = RefuseBody { nonce: U64::new(0), reason, reserved: U32::new(0) };
        let mut header = self.header(DatagramKind::Refuse, now);
        header.flags |= FLAG_LANE;
        let to = Destination::Address(to);
        self.network.send(to, &header, lane.as_bytes(), body.as_bytes());
    }

    /// Tells those who have nothing under way, too, some of them in each duty cycle. Who does not hear it hears it when it
    /// sends something.
    fn tell_lanes_of_no_quorum(&mut self, now: Now) -> usize {
        let mut told = 0;
        while told < LANES_MAX {
            let Work::Leader(leading) = &mut self.work else { break };
            let Some(lane) = self.clients.lanes.open_from(leading.lanes_told) else { break };
            leading.lanes_told = LaneIndex(lane.0 + 1);
            told += 1;
            let end = self.clients.lanes.end(lane);
            let (session, epoch) = (U64::new(end.session().0), U64::new(end.epoch()));
            let (peer, header) = (end.peer(), LaneHeader { session, epoch });
            self.counters.no_quorum_refusals += 1;
            self.refuse_lane(now, peer, header, RefuseReason::NoQuorum);
        }
        told
    }

    /// The disk has failed for good: whoever waits for an answer of this node must not wait for a time-out. What it sent may be
    /// in the log or not: the next leader knows.
    pub(super) fn tell_lanes_of_the_end(&mut self, now: Now) {
        let mut from = LaneIndex(0);
        while let Some(lane) = self.clients.lanes.open_from(from) {
            from = LaneIndex(lane.0 + 1);
            let end = self.clients.lanes.end(lane);
            let (session, epoch) = (U64::new(end.session().0), U64::new(end.epoch()));
            let (peer, header) = (end.peer(), LaneHeader { session, epoch });
            self.refuse_lane(now, peer, header, RefuseReason::Stopping);
        }
    }

    pub(super) fn cluster_time(&self, now: Now) -> Timestamp {
        if self.settings.mutants.has(Mutant::ClockGoesBack) {
            return now.time;
        }
        self.state.time().max(now.time)
    }

    /// Appends an entry of the engine's own; whether there was room.
    pub(super) fn append_entry(&mut self, now: Now, kind: Kind, parts: &[&[u8]]) -> bool {
        let term = self.fence.term;
        let time = self.cluster_time(now);
        let appended = self.log.append(kind, term, time, parts).is_ok();
        if appended {
            self.appended();
        } else {
            self.out_of_segments();
        }
        appended
    }

    /// Takes what clients sent and sends what they are owed. Returns how much was done.
    pub(super) fn serve_clients(&mut self, now: Now) -> usize {
        let mut work = 0;
        let handing = matches!(&self.work, Work::Leader(leading) if leading.handing.is_some());
        while work < MESSAGES_MAX && !handing {
            let Some(lane) = self.clients.lanes.next_ready() else { break };
            work += 1;
            if !self.take_message(now, lane) {
                self.clients.lanes.put_back(lane);
                break;
            }
        }
        if work > 0 {
            self.appended();
        }
        self.answer_queries(now);
        self.settle_owed();
        let opened = matches!(&self.work, Work::Leader(leading) if leading.opened);
        if now.at >= self.clients.expiry_at && opened && !handing {
            self.clients.expiry_at = now.at.plus(EXPIRY_INTERVAL_NS);
            self.expire_session(now);
        }
        work
    }

    /// This node leads no more, and nobody may know who does: every command is answered so.
    pub(super) fn turn_clients_away(&mut self, now: Now) -> usize {
        let mut work = self.tell_lanes_of_no_quorum(now);
        while work < MESSAGES_MAX {
            let Some(lane) = self.clients.lanes.next_ready() else { break };
            let Ok(Some(message)) = self.clients.lanes.message(lane) else { continue };
            let number = message.request().client_sequence();
            self.clients.ingress[lane.0 as usize].judged = true;
            if !self.tell_client(lane, AnswerKind::NoQuorum, number) {
                self.clients.lanes.put_back(lane);
                break;
            }
            work += 1;
            self.counters.no_quorum_refusals += 1;
            self.clients.lanes.consume(now.at, lane);
        }
        work
    }

    /// Sends answers and acknowledgements. Returns for how many lanes.
    pub(super) fn transmit_lanes(&mut self, now: Now) -> usize {
        let template = self.header(DatagramKind::Data, now);
        self.clients.lanes.transmit(now.at, &mut self.network, &template, LANES_MAX)
    }

    fn settle_owed(&mut self) {
        for _ in 0..self.clients.owing.len() {
            let Some(lane) = self.clients.owing.pop_front() else { return };
            let slot = &mut self.clients.ingress[lane.0 as usize];
            if core::mem::take(&mut slot.owes)
                && self.clients.lanes.find(slot.session) == Some(lane)
            {
                self.clients.settle(lane, &self.state);
            }
        }
    }

    /// Takes the message at the front of a lane; false: there is no room for it, or for the answer, now.
    fn take_message(&mut self, now: Now, lane: LaneIndex) -> bool {
        let request = match self.clients.lanes.message(lane) {
            Ok(Some(message)) => message.request(),
            Ok(None) => return true,
            Err(_) => return self.close_session(now, lane, CloseReason::Protocol),
        };
        let taken = match request.kind() {
            Some(kind @ (RequestKind::Command | RequestKind::Batch)) => {
                self.take_command(now, lane, kind, request)
            }
            Some(RequestKind::Query) => return self.take_query(now, lane),
            Some(RequestKind::Close) => {
                return self.close_session(now, lane, CloseReason::Asked);
            }
            Some(RequestKind::KeepAlive) => true,
            None => return self.close_session(now, lane, CloseReason::Protocol),
        };
        if taken {
            self.clients.lanes.consume(now.at, lane);
        }
        taken
    }

    /// A command goes into the log, or is answered at once with why not. False: no room for the answer.
    fn take_command(
        &mut self,
        now: Now,
        lane: LaneIndex,
        kind: RequestKind,
        request: RequestHeader,
    ) -> bool {
        let ingress = self.clients.ingress[lane.0 as usize];
        let command = request.client_sequence();
        let Some(info) = self.state.sessions().info(ingress.session) else {
            return self.tell_client(lane, AnswerKind::UnknownSession, command);
        };
        // Commands of an earlier leader's may have been applied since the lane began.
        let appended = ingress.appended.max(info.last);
        let again = command <= appended && self.settings.mutants.has(Mutant::ApplyTwice);
        if command <= info.last && !again {
            self.counters.duplicates += 1;
            return self.clients.write_stored(lane, &self.state, command);
        }
        if command <= appended && !again {
            self.counters.duplicates += 1;
            return true; // in the log already: its answer comes when it is applied
        }
        let opened = matches!(&self.work, Work::Leader(leading) if leading.opened);
        // Before the term is open a client may have the answers of commands that are not applied here yet: what is missing
        // before this one is judged when it is applied.
        let judged = core::mem::replace(&mut self.clients.ingress[lane.0 as usize].judged, true);
        if (opened || judged) && command.0 != appended.0 + 1 && !again {
            self.counters.gaps_refused += 1;
            return self.tell_client(lane, AnswerKind::Gap, command);
        }
        let Ok(Some(message)) = self.clients.lanes.message(lane) else { return true };
        if message.payload.len() > self.settings.command_bytes_max {
            return self.tell_client(lane, AnswerKind::TooLong, command);
        }
        let quorum = match &self.work {
            Work::Leader(leading) => leading.accepts(now.at),
            _ => false,
        };
        if !quorum {
            return self.tell_client(lane, AnswerKind::NoQuorum, command);
        }
        if appended.0 - info.last.0 >= self.settings.in_flight_max {
            self.counters.back_pressure += 1;
            return self.tell_client(lane, AnswerKind::BackPressure, command);
        }
        let Ok(space) = self.log.claim(COMMAND_PREFIX_BYTES + message.payload.len()) else {
            self.out_of_segments();
            if self.lacks_space(true) {
                return self.tell_client(lane, AnswerKind::NoSpace, command);
            }
            self.counters.back_pressure += 1;
            return self.tell_client(lane, AnswerKind::BackPressure, command);
        };
        let prefix = CommandPrefix {
            session: U64::new(ingress.session.0),
            client_sequence: request.client_sequence,
            received_through: request.received_through,
        };
        space[..COMMAND_PREFIX_BYTES].copy_from_slice(prefix.as_bytes());
        message.payload.copy_to(&mut space[COMMAND_PREFIX_BYTES..]);
        let kind = if kind == RequestKind::Batch { Kind::CommandBatch } else { Kind::Command };
        let time = self.cluster_time(now);
        self.log.commit(kind, self.fence.term, time);
        self.clients.ingress[lane.0 as usize].appended = command;
        true
    }

    /// Whether what found no room finds none because no more segments can be made, and not because the next is on its way.
    fn lacks_space(&mut self, no_room: bool) -> bool {
        let blocked = self.shared.words().segments_blocked.load(Ordering::Relaxed) != 0;
        self.counters.no_space_refusals += u64::from(no_room && blocked);
        no_room && blocked
    }

    fn tell_client(&mut self, lane: LaneIndex, kind: AnswerKind, command: ClientSequence) -> bool {
        let header = AnswerHeader::new(kind, command, Sequence(0));
        self.clients.lanes.answer(lane, header, &[]).is_ok()
    }

    /// A query waits, at the front of its lane, until a quorum has echoed a stamp taken after it came.
    fn take_query(&mut self, now: Now, lane: LaneIndex) -> bool {
        if self.clients.queries.len() == self.clients.ingress.len() {
            return false; // as many wait as there are lanes
        }
        let ingress = &mut self.clients.ingress[lane.0 as usize];
        if core::mem::replace(&mut ingress.queries, true) {
            return true; // it waits already
        }
        let session = ingress.session;
        let commit = match &self.work {
            Work::Leader(leading) => leading.vouches_for(self.commit),
            _ => self.commit.0,
        };
        self.clients.queries.push_back(PendingQuery { lane, session, since: now.at, commit });
        self.sender.speak_now();
        true
    }

    fn answer_queries(&mut self, now: Now) {
        while let Some(&query) = self.clients.queries.front() {
            let Work::Leader(leading) = &self.work else { return };
            let others = leading.others(self.settings.peers.len());
            if self.applied.0 < query.commit
                || !(quorum::quorum_heard(others, self.settings.voters(), query.since)
                    || self.settings.mutants.has(Mutant::AnswerWithoutQuorum))
            {
                return;
            }
            if self.clients.lanes.find(query.session) != Some(query.lane) {
                self.clients.queries.pop_front();
                continue;
            }
            if !self.answer_query(query.lane) {
                return; // no room for the answer now
            }
            self.clients.queries.pop_front();
            self.clients.ingress[query.lane.0 as usize].queries = false;
            self.clients.lanes.consume(now.at, query.lane);
        }
    }

    fn answer_query(&mut self, lane: LaneIndex) -> bool {
        let Clients { lanes, scratch, .. } = &mut self.clients;
        let Ok(Some(message)) = lanes.message(lane) else { return true };
        let number = message.request().client_sequence();
        let (question, space) =
            scratch.split_at_mut(message.payload.len().min(REPLY_BYTES_MAX / 2));
        if question.len() < message.payload.len() {
            return self.tell_client(lane, AnswerKind::TooLong, number);
        }
        message.payload.copy_to(question);
        let mut reply = Reply::new(space);
        let answered = self.state.query(question, &mut reply);
        let (kind, code) = match answered {
            Ok(()) => (AnswerKind::Applied, 0),
            Err(rejection) => (AnswerKind::Rejected, rejection.0),
        };
        let mut header = AnswerHeader::new(kind, number, self.state.sequence());
        header.flags = ANSWER_TO_QUERY;
        header.code = code.into();
        lanes.answer(lane, header, &[reply.written()]).is_ok()
    }

    /// Ends a session through the log; its lane goes when that is applied. False: no room in the log now.
    fn close_session(&mut self, now: Now, lane: LaneIndex, why: CloseReason) -> bool {
        let session = self.clients.ingress[lane.0 as usize].session;
        if !self.append_close(now, session, why) {
            return false;
        }
        if why == CloseReason::Protocol {
            self.clients.lanes.close(lane); // nothing behind this can be understood
        } else {
            self.clients.lanes.consume(now.at, lane);
        }
        true
    }

    fn append_close(&mut self, now: Now, session: SessionId, why: CloseReason) -> bool {
        let close =
            SessionClose { session: U64::new(session.0), reason: why as u8, reserved: [0; 7] };
        self.append_entry(now, Kind::SessionClose, &[close.as_bytes()])
    }

    /// Closes one session whose client has been silent for too long.
    fn expire_session(&mut self, now: Now) {
        let grace_ns = GRACE_TIMEOUTS * self.settings.leader_timeout_ns;
        let not_before = Timestamp(self.state.term_started().0.saturating_add(grace_ns));
        let time = self.cluster_time(now);
        if let Some(session) = self.state.sessions_mut().expired(time, not_before)
            && !self.append_close(now, session, CloseReason::Silent)
        {
            self.state.sessions_mut().touch(session, time); // tried again when it falls silent again
        }
    }
}

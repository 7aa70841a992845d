//! What a client knows and does, but for its network and its public face.

use core::net::SocketAddr;

use zerocopy::{FromBytes, IntoBytes};

use super::connect::{Ask, Search};
use super::core::Claim;
use super::outbox::{Outbox, Place};
use super::settings::ClientSettings;
use super::ticket::SessionTicket;
use super::{Answer, ClientCounters, ClientState, CloseCause, Outcome, Refusal, Request};
use crate::limits::{COMMAND_BYTES_MAX, REPLY_BYTES_MAX};
use crate::stream::LaneEnd;
use crate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_FORWARD, FLAG_LANE, HelloBody, LaneHeader, RefuseBody,
    RefuseReason, WelcomeBody, parse,
};
use crate::stream::message::{
    AnswerHeader, AnswerKind, RequestHeader, RequestKind, message_length,
};
use crate::stream::network::{Destination, Network};
use crate::stream::pool::Pool;
use crate::stream::prng::Prng;
use crate::stream::redirect::parse_redirect;
use crate::types::{ClientSequence, Leadership, Nanos, Sequence, SessionId};

/// Memory for replies under way, in bytes, and the piece in which it is given out.
const POOL_BYTES: usize = 4 * 1024 * 1024;
const POOL_CHUNK_BYTES: usize = 64 * 1024;
/// Messages without an answer of their own (close) that may be under way beside the requests.
const RECORDS_SPARE: usize = 4;
/// After a refusal that may pass, a new lane is asked for this much later, in nanoseconds.
const TRY_AGAIN_NS: u64 = 5 * Nanos::MILLISECOND;
/// A close that is not acknowledged is believed after this long, in nanoseconds: the session then ends by its time-out.
const CLOSE_NS: u64 = Nanos::SECOND;

/// What the client does now.
#[derive(Clone, Debug)]
enum Phase {
    Searching(Search),
    Open,
    Closed(CloseCause),
}

/// Everything but the network.
#[derive(Debug)]
pub(super) struct Session {
    settings: ClientSettings,
    phase: Phase,
    /// Since when nodes say that there is no quorum.
    pub(super) no_quorum: Option<Nanos>,
    /// Since when it has been turned away for want of room.
    pub(super) no_space: Option<Nanos>,
    /// Since when the program wants it closed.
    pub(super) closing: Option<Nanos>,
    close_sent: bool,
    /// Its last lane went through a node that does not lead.
    pub(super) forwarded: bool,
    /// 0: none yet.
    pub(super) id: SessionId,
    nonce: u64,
    epoch: u64,
    random: Prng,
    template: DatagramHeader,
    pub(super) end: LaneEnd,
    pub(super) outbox: Outbox,
    pool: Pool,
    /// Where replies are put together that lie in pieces.
    reply: Box<[u8]>,
    /// Number of the next command and the next query.
    next_command: ClientSequence,
    next_query: u64,
    /// Every command up to here was answered.
    answered_through: ClientSequence,
    command_bytes_max: usize,
    in_flight_max: usize,
    /// When bytes last moved, either way, or the lane began, or the first request was made after quiet.
    waits_since: Nanos,
    pub(super) counters: ClientCounters,
}

impl Session {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }
    pub(super) fn new(settings: ClientSettings) -> Self {
        let mut random = Prng::new(settings.seed);
        // Later lanes count up from here, so that a hello that was long under way never replaces a newer lane.
        let (nonce, epoch) = (random.next_u64().max(1), random.next_u64() >> 1);
        let fresh = SessionTicket { session: SessionId(0), nonce, epoch, next: ClientSequence(1) };
        let ticket = settings.resume.map_or(fresh, SessionTicket::next_life);
        let SessionTicket { session: id, nonce, epoch, next: next_command } = ticket;
        let records_max = settings.in_flight_max + RECORDS_SPARE;
        let template =
            DatagramHeader::new(DatagramKind::Data, settings.group, None, Leadership::default());
        Self {
            phase: Phase::Searching(Search::new(Nanos(0), epoch, None, settings.forward_after_ns)),
            forwarded: false,
            no_quorum: None,
            no_space: None,
            closing: None,
            close_sent: false,
            id,
            nonce,
            epoch,
            random,
            template,
            end: LaneEnd::new(&settings.end, 0, nonce),
            outbox: Outbox::new(settings.buffer_bytes, records_max),
            pool: Pool::new(POOL_BYTES, POOL_CHUNK_BYTES),
            reply: vec![0; REPLY_BYTES_MAX].into_boxed_slice(),
            next_command,
            next_query: 1,
            answered_through: ClientSequence(next_command.0 - 1),
            command_bytes_max: COMMAND_BYTES_MAX,
            in_flight_max: settings.in_flight_max,
            waits_since: Nanos(0),
            counters: ClientCounters::default(),
            settings,
        }
    }
    /// What another client needs to go on where this one is, while the group may know the session.
    pub(super) fn ticket(&self) -> Option<SessionTicket> {
        let over = match self.phase {
            Phase::Closed(cause) => cause != CloseCause::GaveUp,
            _ => self.close_sent,
        };
        let next = ClientSequence(self.answered_through.0 + 1);
        let ticket = SessionTicket { session: self.id, nonce: self.nonce, epoch: self.epoch, next };
        (self.id.0 > 0 && !over).then_some(ticket)
    }
    pub(super) fn state(&self) -> ClientState {
        match &self.phase {
            Phase::Closed(cause) => ClientState::Closed(*cause),
            _ if self.closing.is_some() => ClientState::Closing,
            Phase::Open | Phase::Searching(_) if self.no_space.is_some() => ClientState::NoSpace,
            Phase::Open => ClientState::Open,
            Phase::Searching(_) if self.no_quorum.is_some() => ClientState::NoQuorum,
            Phase::Searching(_) => ClientState::Connecting,
        }
    }

    pub(super) fn claim(&mut self, bytes: usize, kind: RequestKind) -> Result<Claim<'_>, Refusal> {
        match self.state() {
            ClientState::Open => {}
            ClientState::Connecting => return Err(Refusal::NotConnected),
            ClientState::NoQuorum => return Err(Refusal::NoQuorum),
            ClientState::NoSpace => return Err(Refusal::NoSpace),
            ClientState::Closing | ClientState::Closed(_) => return Err(Refusal::Closed),
        }
        let bytes_max = self.command_bytes_max;
        let length = message_length(bytes).filter(|_| bytes <= bytes_max);
        let length = length.ok_or(Refusal::TooLong { bytes, bytes_max })?;
        if self.outbox.unanswered() >= self.in_flight_max {
            return Err(Refusal::BackPressured);
        }
        let place = self.outbox.find_room(length).map_err(|_| Refusal::BackPressured)?;
        Ok(Claim::new(self, place, kind))
    }
    pub(super) fn put(&mut self, place: Place, kind: RequestKind) -> Request {
        let (number, request) = if kind == RequestKind::Query {
            let number = self.next_query;
            self.next_query += 1;
            (ClientSequence(number), Request::Query(number))
        } else {
            let number = self.next_command;
            self.next_command = ClientSequence(number.0 + 1);
            (number, Request::Command(number))
        };
        if self.outbox.unanswered() == 0 {
            // The clock of the wait starts when the next poll tells the time.
            self.waits_since = Nanos(u64::MAX);
        }
        let header = RequestHeader::new(kind, number, self.answered_through);
        self.outbox.push(place, header, Some(request));
        self.end.set_tail(self.outbox.tail());
        request
    }

    /// Takes one datagram in; says whom to greet because of it.
    pub(super) fn on_datagram(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<Ask> {
        let parsed = parse(bytes, self.settings.group);
        let taken = parsed.ok().and_then(|(header, kind, body)| {
            if header.flags & FLAG_LANE != 0 {
                self.on_lane_datagram(now, from, header, kind, body)
            } else {
                self.on_answer_to_hello(now, from, kind, body)
            }
        });
        match taken {
            Some(Reaction::Ask(ask)) => Some(ask),
            Some(Reaction::None) => None,
            None => {
                self.counters.dropped += 1;
                None
            }
        }
    }

    fn on_lane_datagram(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        header: &DatagramHeader,
        kind: DatagramKind,
        body: &[u8],
    ) -> Option<Reaction> {
        let (lane, body) = LaneHeader::ref_from_prefix(body).ok()?;
        let ours = lane.session.get() == self.id.0 && lane.epoch.get() == self.end.epoch();
        if !ours || from != self.end.peer() || !self.is_open() {
            return None;
        }
        match kind {
            DatagramKind::Redirect => {
                let leader = parse_redirect(body).ok()?;
                self.search(now, leader);
            }
            DatagramKind::Refuse => {
                let (refuse, _) = RefuseBody::ref_from_prefix(body).ok()?;
                let reason = RefuseReason::from_u32(refuse.reason.get())?;
                self.hear_of_quorum(now, reason == RefuseReason::NoQuorum);
                self.search(now.plus(TRY_AGAIN_NS), None);
            }
            _ => {
                let acknowledged = self.end.acknowledged();
                let received = self.end.receiver().received();
                self.end.on_datagram(now, header, kind, body, &mut self.pool).ok()?;
                let moved = self.end.acknowledged() > acknowledged
                    || self.end.receiver().received() > received;
                if moved && self.waits_since < now {
                    // A long message under way, either way, is no reason to look elsewhere.
                    self.waits_since = now;
                }
                self.outbox.release(self.end.acknowledged());
            }
        }
        Some(Reaction::None)
    }

    fn on_answer_to_hello(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        kind: DatagramKind,
        body: &[u8],
    ) -> Option<Reaction> {
        let resumes = self.resumes();
        let Phase::Searching(search) = &mut self.phase else { return None };
        match kind {
            DatagramKind::Welcome => {
                let (welcome, _) = WelcomeBody::ref_from_prefix(body).ok()?;
                let ours = welcome.nonce.get() == self.nonce && welcome.epoch.get() == search.epoch;
                let known = self.id.0 == 0 || self.id.0 == welcome.session.get();
                if !ours || !known || welcome.session.get() == 0 {
                    return None;
                }
                self.forwarded = search.through() == Some(from);
                self.begin_lane(now, from, welcome);
            }
            DatagramKind::Redirect => {
                let leader = parse_redirect(body).ok()?;
                if let Some(ask) = leader.and_then(|leader| search.on_redirect(now, from, leader)) {
                    self.counters.redirects += 1;
                    return Some(Reaction::Ask(ask));
                }
            }
            DatagramKind::Refuse => {
                let (refuse, _) = RefuseBody::ref_from_prefix(body).ok()?;
                if refuse.nonce.get() != self.nonce {
                    return None;
                }
                let reason = RefuseReason::from_u32(refuse.reason.get())?;
                if reason == RefuseReason::BackPressure && resumes {
                    // Another life of this session has had more lanes than its ticket knew of.
                    search.epoch = SessionTicket::later(search.epoch);
                    self.epoch = search.epoch;
                }
                self.hear_of_quorum(now, reason == RefuseReason::NoQuorum);
                self.hear_of_space(now, reason == RefuseReason::NoSpace);
                if reason == RefuseReason::UnknownSession && self.id.0 > 0 {
                    // A close may take effect before its acknowledgement is here; then the lane is gone, and this is the
                    // answer: nothing was lost.
                    let asked = self.closing.is_some() && self.outbox.unanswered() == 0;
                    let cause = if asked { CloseCause::Asked } else { CloseCause::SessionLost };
                    self.phase = Phase::Closed(cause);
                }
            }
            _ => return None,
        }
        Some(Reaction::None)
    }

    /// A node that turned it away said whether that is for want of a quorum.
    fn hear_of_quorum(&mut self, now: Nanos, lost: bool) {
        self.no_quorum = lost.then(|| self.no_quorum.unwrap_or(now));
    }

    /// A node that turned it away said whether that is for want of room. A lane alone says nothing of it: an answer does.
    fn hear_of_space(&mut self, now: Nanos, lacks: bool) {
        self.no_space = lacks.then(|| self.no_space.unwrap_or(now));
    }

    /// It goes on with a session of an earlier client, and has not been welcomed yet.
    fn resumes(&self) -> bool {
        self.settings.resume.is_some() && self.counters.lanes == 0
    }

    fn begin_lane(&mut self, now: Nanos, from: SocketAddr, welcome: &WelcomeBody) {
        let last = welcome.last_client_sequence.get();
        if self.resumes() && self.answered_through.0 > last {
            // Nobody was told of a command that did not take effect: the ticket is not of this session.
            self.phase = Phase::Closed(CloseCause::SessionLost);
            return;
        }
        self.id = SessionId(welcome.session.get());
        let command_bytes_max = welcome.command_bytes_max.get() as usize;
        self.command_bytes_max = command_bytes_max.min(COMMAND_BYTES_MAX);
        let in_flight_max = welcome.in_flight_max.get() as usize;
        self.in_flight_max = in_flight_max.clamp(1, self.settings.in_flight_max);
        self.end.clear_input(&mut self.pool);
        self.end.begin(now, self.id, welcome.epoch.get(), from);
        self.outbox.rewind();
        self.end.set_tail(self.outbox.tail());
        self.no_quorum = None;
        if self.outbox.unanswered() == 0 {
            self.no_space = None;
        }
        self.close_sent = false;
        self.waits_since = now;
        self.phase = Phase::Open;
        self.counters.lanes += 1;
        self.counters.forwarded += u64::from(self.forwarded);
    }

    /// Looks for the leader, from `begin` on.
    fn search(&mut self, begin: Nanos, preferred: Option<SocketAddr>) {
        self.epoch += 1;
        // Who did not reach the last leader does not wait long for the next one.
        let settings = &self.settings;
        let patient = !self.forwarded || settings.forward_after_ns == u64::MAX;
        let forward_after_ns = if patient { settings.forward_after_ns } else { 0 };
        let search = Search::new(begin, self.epoch, preferred, forward_after_ns);
        self.phase = Phase::Searching(search);
    }

    /// Hands out the answers that are whole.
    pub(super) fn deliver(&mut self, now: Nanos, handler: &mut impl FnMut(Answer<'_>)) {
        while self.is_open() {
            let Ok(message) = self.end.message(&self.pool) else {
                // The node breaks the protocol: another lane may do better.
                self.search(now.plus(TRY_AGAIN_NS), None);
                break;
            };
            let Some(message) = message else { break };
            let header = message.answer();
            let bytes = message.payload.len();
            let reply = if let Some(reply) = message.payload.contiguous() {
                reply
            } else {
                message.payload.copy_to(&mut self.reply[..bytes]);
                &self.reply[..bytes]
            };
            let verdict = judge(&header);
            if let Verdict::Final(request, outcome) = verdict {
                if self.outbox.answer(request) {
                    let waits = self.outbox.first_waiting_command();
                    self.answered_through =
                        ClientSequence(waits.unwrap_or(self.next_command).0 - 1);
                    self.counters.answers += 1;
                    if matches!(request, Request::Command(_)) {
                        self.no_space = None;
                    }
                    handler(Answer { request, outcome, sequence: header.sequence(), reply });
                } else {
                    self.counters.duplicates += 1;
                }
            }
            self.waits_since = now;
            self.end.consume(now, &mut self.pool);
            match verdict {
                Verdict::Final(_, Outcome::TooLong) => self.end_with(CloseCause::TooLong, handler),
                Verdict::Final(..) => self.outbox.release(self.end.acknowledged()),
                Verdict::TryAgain { why } => {
                    self.hear_of_quorum(now, why == AnswerKind::NoQuorum);
                    self.hear_of_space(now, why == AnswerKind::NoSpace);
                    self.search(now.plus(TRY_AGAIN_NS), None);
                }
                Verdict::AskForSession => self.search(now, Some(self.end.peer())),
                Verdict::Nonsense => self.counters.dropped += 1,
            }
        }
        if matches!(self.phase, Phase::Closed(CloseCause::SessionLost)) {
            self.end_with(CloseCause::SessionLost, handler);
        }
    }

    /// Everything that waits ends as unknown.
    pub(super) fn end_with(&mut self, cause: CloseCause, handler: &mut impl FnMut(Answer<'_>)) {
        self.phase = Phase::Closed(cause);
        while let Some(request) = self.outbox.give_up_first() {
            self.counters.answers += 1;
            let (outcome, sequence) = (Outcome::Unknown, Sequence(0));
            handler(Answer { request, outcome, sequence, reply: &[] });
        }
    }

    /// What time brings: hellos, a leader that fell silent, the end of a close; then sends what is due.
    pub(super) fn tick(
        &mut self,
        now: Nanos,
        network: &mut impl Network,
        handler: &mut impl FnMut(Answer<'_>),
    ) -> usize {
        if self.waits_since == Nanos(u64::MAX) {
            self.waits_since = now;
        }
        self.tick_close(now, handler);
        if self.is_open() && now >= self.patience_ends() {
            self.search(now, None);
        }
        let mut ask = None;
        if let Phase::Searching(search) = &mut self.phase {
            let random = self.random.next_u64();
            ask = search.poll(now, random);
            self.epoch = search.epoch;
        }
        if let Some(ask) = ask {
            self.say_hello(now, ask, network);
            return 1;
        }
        self.transmit(now, network)
    }

    fn tick_close(&mut self, now: Nanos, handler: &mut impl FnMut(Answer<'_>)) {
        let Some(since) = self.closing else { return };
        if matches!(self.phase, Phase::Closed(_)) || self.outbox.unanswered() > 0 {
            return;
        }
        let sent = self.close_sent && self.end.acknowledged() == self.outbox.tail();
        if self.id.0 == 0 || sent || now.since(since.max(self.waits_since)) >= CLOSE_NS {
            self.end_with(CloseCause::Asked, handler);
        } else if self.is_open() && !self.close_sent {
            let length = message_length(0).expect("a header alone is a message");
            if let Ok(place) = self.outbox.find_room(length) {
                let header = RequestHeader::new(
                    RequestKind::Close,
                    self.next_command,
                    self.answered_through,
                );
                self.outbox.push(place, header, None);
                self.end.set_tail(self.outbox.tail());
                self.close_sent = true;
            }
        }
    }

    pub(super) fn transmit(&mut self, now: Nanos, network: &mut impl Network) -> usize {
        if !self.is_open() {
            return 0;
        }
        let calls = self.end.transmit(now, network, &self.template, &mut self.outbox);
        usize::from(calls > 0)
    }

    pub(super) fn say_hello(&mut self, now: Nanos, ask: Ask, network: &mut impl Network) {
        let Phase::Searching(search) = &self.phase else { return };
        let hello = HelloBody {
            nonce: self.nonce.into(),
            session: self.id.0.into(),
            epoch: search.epoch.into(),
            timeout: self.settings.session_timeout_ns.into(),
        };
        let mut header = self.template;
        header.kind = DatagramKind::Hello as u8;
        header.stamp = now.0.into();
        let name = self.settings.name.as_bytes();
        if let Ask::Through(_) = ask {
            header.flags |= FLAG_FORWARD;
        }
        let mut send = |address| {
            network.send(Destination::Address(address), &header, hello.as_bytes(), name);
            self.counters.hellos += 1;
        };
        match ask {
            Ask::One(address) | Ask::Through(address) => send(address),
            Ask::All => self.settings.members.iter().copied().for_each(&mut send),
        }
    }

    /// When the node has been silent for too long.
    fn patience_ends(&self) -> Nanos {
        let (settings, heard) = (&self.settings, self.end.heard());
        let idle = settings.end.keep_alive_ns.saturating_mul(3).max(settings.reconnect_ns);
        let owed = self.outbox.tail() > self.end.acknowledged();
        let silent = heard.plus(if owed { settings.reconnect_ns } else { idle });
        if self.outbox.unanswered() == 0 {
            return silent;
        }
        silent.min(self.waits_since.plus(settings.answer_timeout_ns))
    }

    pub(super) fn deadline(&self) -> Nanos {
        let closing = match self.closing {
            Some(since) if self.outbox.unanswered() == 0 => {
                if self.close_sent {
                    since.max(self.waits_since).plus(CLOSE_NS)
                } else {
                    Nanos(0)
                }
            }
            _ => Nanos(u64::MAX),
        };
        match &self.phase {
            Phase::Closed(_) => Nanos(u64::MAX),
            Phase::Searching(search) => search.deadline().min(closing),
            Phase::Open => self.end.deadline().min(self.patience_ends()).min(closing),
        }
    }
}

/// What a datagram leads to.
enum Reaction {
    None,
    Ask(Ask),
}

/// What an answer means for its request.
#[derive(Clone, Copy)]
enum Verdict {
    Final(Request, Outcome),
    /// It was not logged: everything unanswered is sent again on a new lane.
    TryAgain {
        why: AnswerKind,
    },
    /// The node does not know the session: a hello finds out whether anybody does.
    AskForSession,
    Nonsense,
}

fn judge(header: &AnswerHeader) -> Verdict {
    let number = header.client_sequence();
    let request =
        if header.is_to_query() { Request::Query(number.0) } else { Request::Command(number) };
    let Some(kind) = header.outcome() else { return Verdict::Nonsense };
    match kind {
        AnswerKind::Applied => Verdict::Final(request, Outcome::Applied),
        AnswerKind::Rejected => {
            Verdict::Final(request, Outcome::Rejected { code: header.code.get() })
        }
        AnswerKind::Forgotten => Verdict::Final(request, Outcome::Forgotten),
        AnswerKind::TooLong => Verdict::Final(request, Outcome::TooLong),
        AnswerKind::Gap | AnswerKind::BackPressure | AnswerKind::NoQuorum | AnswerKind::NoSpace => {
            Verdict::TryAgain { why: kind }
        }
        AnswerKind::UnknownSession => Verdict::AskForSession,
    }
}

//! The duty cycle.

use core::mem;
use core::net::SocketAddr;

use zerocopy::{FromBytes, IntoBytes};

use super::clients::Clients;
use super::counters::Counters;
use super::cut::Cutting;
use super::effects::Outgoing;
use super::follower::Following;
use super::forward::Forwarding;
use super::leader::Leading;
use super::local::Locals;
use super::settings::CoreSettings;
use super::take_over::TakeOver;
use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::journal::hot::HotLog;
use crate::limits::{MAILBOX_DEPTH, NAK_RANGES_MAX};
use crate::link::{
    ControlToCore, CoreEvent, CoreLink, CoreToControl, CoreWakers, Durability, LaneFact, Recency,
    Rung, SegmentRetired, Shared, SyncToCore,
};
use crate::mutants::Mutant;
use crate::service::{Role, Service};
use crate::session::State;
use crate::stream::datagram::{
    DATAGRAM_VERSION, DatagramError, DatagramHeader, DatagramKind, FLAG_LANE, MatchAnswer,
    MatchRequest, NakRange, StatusBody, parse,
};
use crate::stream::network::{Destination, Network};
use crate::stream::{Receiver, Sender};
use crate::types::{Applied, Commit, CutEpoch, Durable, Leadership, Nanos, Position, Timestamp};

/// The time of one duty cycle, read once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Monotonic: all that decisions use.
    pub at: Nanos,
    /// The leader's clock: recorded in entries, never decided upon.
    pub time: Timestamp,
}

/// When a core has something to do by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deadlines {
    /// Repairs and hand-overs: being late costs a client that much.
    pub sharp: Option<Nanos>,
    /// Heartbeats, statuses, expiry: 2 ms late is fine.
    pub soft: Option<Nanos>,
}

/// What the core is doing.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there is one, in the core itself: boxing it would allocate
pub(super) enum Work {
    /// Nothing: no role was given yet, or it was fenced.
    Idle,
    /// Leading.
    Leader(Leading),
    /// Following.
    Follower(Following),
    /// Taking over another node's log, without a role.
    Puller(TakeOver),
    /// A disk failed, or the log contradicts the leader's, or the node is stopping: nothing is accepted or acknowledged.
    Halted,
}

/// The core of a node.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Core<N, M, S> {
    pub(super) settings: CoreSettings,
    pub(super) network: N,
    pub(super) log: HotLog<M>,
    pub(super) state: State<S>,
    pub(super) link: CoreLink<M>,
    pub(super) shared: Shared,
    pub(super) counters: Counters,
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) clients: Clients,
    pub(super) outgoing: Outgoing,
    pub(super) forwarding: Forwarding,
    pub(super) locals: Locals,
    pub(super) work: Work,
    /// Nothing of an older leadership is accepted or acknowledged.
    pub(super) fence: Leadership,
    pub(super) commit: Commit,
    pub(super) applied: Applied,
    pub(super) durable: Durable,
    pub(super) cut_epoch: CutEpoch,
    pub(super) cutting: Option<Cutting>,
    pub(super) may_ack_memory: bool,
    pub(super) provisional: bool,
    /// In force: what the newest applied entry about it says.
    pub(super) durability: Durability,
    wakers: CoreWakers,
    /// There is a fact for control, or bytes for sync, that they were not woken for.
    pub(super) wake_control: bool,
    pub(super) wake_sync: bool,
    wake_control_at: Nanos,
    /// Number of the last match request. Each life of the process begins elsewhere: what was answered to an earlier one,
    /// about a shorter log of the same leadership, would cut what was acknowledged since.
    pub(super) match_requests: u64,
    out_of_segments: bool,
    /// Newest leadership that control was told of.
    leadership_told: Leadership,
    foreign_version_told: bool,
    foreign_group_told: bool,
    counters_due: Nanos,
}

/// How often the counters are copied to where others read them, ns.
const COUNTERS_INTERVAL_NS: u64 = 5 * Nanos::MILLISECOND;
/// Control is woken at most this often, ns: a suppressed wake follows when the interval ends.
const WAKE_INTERVAL_NS: u64 = 500 * Nanos::MICROSECOND;
/// Slots of the mailbox to control that only answers may take.
const ANSWERS_RESERVED: usize = 32;
/// Datagram batches handled in one duty cycle.
const RECEIVE_BATCHES_MAX: usize = 4;

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// A core over a recovered log (segments already added) and the state after `applied`.
    #[allow(clippy::too_many_arguments)] // each is one thing the threads hand over at the start
    pub fn new(
        settings: CoreSettings,
        network: N,
        log: HotLog<M>,
        state: State<S>,
        link: CoreLink<M>,
        shared: Shared,
        wakers: CoreWakers,
        start: Start,
    ) -> Self {
        settings.assert_valid();
        let tail = log.tail().position;
        assert!(start.applied.0 <= tail && start.durable.0 <= tail, "nothing is ahead of the log");
        let own = settings.own_index();
        let sender = super::leader::sender(&settings, tail);
        let receiver = super::follower::receiver(&settings, tail);
        let clients = Clients::new(&settings);
        let locals = Locals::new(&settings, &log, start.applied.0);
        assert!(own < settings.peers.len());
        let provisional = settings.identity.provisional;
        let match_requests = settings.seed >> 1;
        let durability = super::ladder::in_force(&state).unwrap_or(settings.durability);
        let mut core = Self {
            settings,
            network,
            log,
            state,
            link,
            shared,
            counters: Counters::default(),
            sender,
            receiver,
            clients,
            outgoing: Outgoing::default(),
            forwarding: Forwarding::new(),
            locals,
            work: Work::Idle,
            fence: start.fence,
            commit: start.commit,
            applied: start.applied,
            durable: start.durable,
            cut_epoch: start.cut_epoch,
            cutting: None,
            may_ack_memory: false,
            provisional,
            durability,
            wakers,
            wake_control: false,
            wake_sync: false,
            wake_control_at: Nanos(0),
            match_requests,
            out_of_segments: false,
            leadership_told: Leadership::default(),
            foreign_version_told: false,
            foreign_group_told: false,
            counters_due: Nanos(0),
        };
        core.share_positions();
        core.share_applied();
        core.share_durability();
        core
    }

    /// One duty cycle. Returns how much was done; 0 means that the thread may idle until [`Core::deadlines`].
    pub fn step(&mut self, now: Now) -> usize {
        self.locals.cycle_begins(now.at);
        let mut work = self.take_mail(now);
        if self.cutting.is_none() {
            work += self.work(now);
        } else {
            // The log must not change until sync has saved and recorded what is cut; the leader is answered meanwhile.
            work += self.receive(now);
            work += self.serve_locals(now);
            self.send_status(now);
        }
        self.wake_others(now);
        work
    }

    fn work(&mut self, now: Now) -> usize {
        // D9: first of all, so that nothing is accepted by a leader that slept through the end of its leadership.
        self.check_quorum(now);
        let mut work = self.receive(now);
        work += self.serve_locals(now);
        work += match self.work {
            Work::Leader(_) => self.lead(now),
            Work::Follower(_) => self.follow(now),
            Work::Idle | Work::Puller(_) | Work::Halted => 0,
        };
        work += self.apply_committed(now);
        if matches!(self.work, Work::Leader(_)) {
            work += self.serve_outgoing(now);
            work += self.transmit_lanes(now);
        }
        if now.at >= self.counters_due {
            self.counters_due = now.at.plus(COUNTERS_INTERVAL_NS);
            self.retire_segments();
            self.publish_counters();
        }
        work
    }

    /// Wakes control for facts, not oftener than every so often, and sync for bytes, if it sleeps.
    fn wake_others(&mut self, now: Now) {
        if self.wake_control && now.at >= self.wake_control_at {
            self.wake_control = false;
            self.wake_control_at = now.at.plus(WAKE_INTERVAL_NS);
            self.wakers.control.wake();
        }
        if mem::take(&mut self.wake_sync) {
            self.wakers.sync.wake();
        }
    }

    /// When the next duty cycle has something to do even if nothing arrives.
    #[must_use]
    pub fn deadlines(&self) -> Deadlines {
        let role = match &self.work {
            Work::Leader(_) => self.leader_deadlines(),
            Work::Follower(_) => self.follower_deadlines(),
            Work::Idle | Work::Puller(_) | Work::Halted => Deadlines::default(),
        };
        let wake = self.wake_control.then_some(self.wake_control_at);
        let counters = Some(self.counters_due.plus(COUNTERS_SOFT_NS));
        let soft = [role.soft, wake, counters].into_iter().flatten().min();
        let sharp = [role.sharp, self.locals.deadline()].into_iter().flatten().min();
        Deadlines { sharp, soft }
    }

    /// Whether anything in the mailboxes waits: looked at once more after the parked flag is set.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        !self.link.from_control.is_empty()
            || !self.link.from_lane.is_empty()
            || !self.link.from_keeper.is_empty()
            || !self.link.from_sync.is_empty()
    }

    /// The network, for the idle strategy to wait on.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// Gives back what the core owned, at the end.
    pub fn into_parts(self) -> (N, HotLog<M>, State<S>) {
        (self.network, self.log, self.state)
    }

    fn take_mail(&mut self, now: Now) -> usize {
        let mut work = 0;
        while let Ok(segment) = self.link.from_keeper.try_recv() {
            work += 1;
            assert!(
                self.log.add_segment(segment.base, segment.memory).is_ok(),
                "the keeper prepares segments in order"
            );
            if mem::take(&mut self.out_of_segments) {
                self.event(CoreEvent::SegmentsBack);
            }
        }
        while let Ok(message) = self.link.from_sync.try_recv() {
            work += 1;
            self.on_sync(message, now);
        }
        // An order that arrives during a cut waits: what control decides on is the log after it.
        while self.cutting.is_none()
            && let Ok(message) = self.link.from_control.try_recv()
        {
            work += 1;
            self.on_control(message, now);
        }
        while self.cutting.is_none()
            && let Ok(chunk) = self.link.from_lane.try_recv()
        {
            work += 1;
            self.take_chunk(chunk);
        }
        self.continue_cut();
        work
    }

    fn on_sync(&mut self, message: SyncToCore, now: Now) {
        match message {
            SyncToCore::Durable { epoch, durable } => {
                // D4: a report about bytes that were cut since makes nothing durable.
                if epoch == self.cut_epoch {
                    self.durable = self.durable.max(durable);
                    assert!(self.durable.0 <= self.log.tail().position, "durable beyond the log");
                }
            }
            SyncToCore::CutDone { epoch } => self.cut_done(epoch, now),
            SyncToCore::Failed => {
                self.tell_lanes_of_the_end(now);
                self.halt();
                self.event(CoreEvent::DiskFailed);
            }
        }
    }

    fn on_control(&mut self, message: ControlToCore, now: Now) {
        match message {
            ControlToCore::Fence(leadership) => {
                if leadership > self.fence {
                    let pulls = matches!(self.work, Work::Puller(_));
                    if !(pulls && self.planted(Mutant::LateChunk)) {
                        self.leave_role();
                    }
                    self.fence = leadership;
                    self.publish_role();
                }
                self.tell(CoreToControl::Fenced {
                    leadership: self.fence,
                    recency: self.recency(),
                    durable: self.durable,
                });
            }
            ControlToCore::Lead(leadership) => self.start_leading(leadership, now),
            ControlToCore::Follow { leadership, leader } => {
                self.start_following(leadership, leader, now);
            }
            ControlToCore::MayAckMemory(may) => self.may_ack_memory = may,
            ControlToCore::Admitted => self.provisional = false,
            ControlToCore::HandOver { to } => self.hand_over(to),
            ControlToCore::KeepLead => self.keep_lead(),
            ControlToCore::GiveUp => self.give_up(),
            ControlToCore::SetDurability(durability) => self.set_durability(durability, now),
            ControlToCore::TakeOver { number, last, purpose } => {
                self.take_over(number, last, purpose);
            }
            ControlToCore::MatchReply { number, reply, end } => {
                self.on_match_reply(number, reply, end);
            }
            ControlToCore::Rejoin { number } => self.rejoin(number, now),
            ControlToCore::MatchQuestion { asker, question } => {
                self.on_match_question(asker, &question);
            }
            ControlToCore::Stop => {
                self.halt();
                self.tell(CoreToControl::Stopped { tail: self.log.tail(), commit: self.commit });
            }
        }
    }

    /// Generation and term of the last frame, and the tail: what elections compare.
    fn recency(&self) -> Recency {
        let tail = self.log.tail().position;
        let last = self.log.last_leadership();
        Recency { last, tail: crate::types::Tail(tail) }
    }

    /// Stops leading or following; what was acknowledged stays in the log.
    pub(super) fn leave_role(&mut self) {
        if matches!(self.work, Work::Leader(_)) {
            self.state.role_changed(Role::Follower);
            self.clients.close();
            self.shared.words().quorum.store(0, core::sync::atomic::Ordering::Relaxed);
        }
        self.forwarding.clear();
        self.work = Work::Idle;
        self.publish_role();
    }

    pub(super) fn halt(&mut self) {
        self.leave_role();
        self.work = Work::Halted;
    }

    fn receive(&mut self, now: Now) -> usize {
        let mut received = 0;
        for _ in 0..RECEIVE_BATCHES_MAX {
            let batch = self.network.poll();
            for index in 0..batch {
                self.on_datagram(index, now);
            }
            received += batch;
            if batch == 0 {
                break;
            }
        }
        self.counters.datagrams_received += received as u64;
        received
    }

    fn on_datagram(&mut self, index: usize, now: Now) {
        let (from, bytes) = self.network.datagram(index);
        self.counters.bytes_received += bytes.len() as u64;
        let (header, kind, body) = match parse(bytes, self.settings.group) {
            Ok((header, kind, body)) => (*header, kind, body),
            Err(error) => return self.refuse_datagram(error),
        };
        if header.flags & FLAG_LANE != 0 {
            if !matches!(self.work, Work::Leader(_)) {
                self.forwarding.take(body);
                return self.pass_on(now, from, &header);
            }
            let counters = &mut self.counters;
            let taken = self.clients.on_lane(now.at, from, &header, kind, body, counters);
            return self.after_lane(now, from, taken);
        }
        if kind == DatagramKind::Hello {
            return self.hear_hello(now, from, &header, &HelloBytes::copy(body));
        }
        if kind == DatagramKind::LocalQuery {
            return self.hear_local(index, now);
        }
        // Between nodes: only from an address on the list, under its own number.
        let Some(peer) = self.peer(&header, from) else {
            self.counters.dropped_garbage += 1;
            return;
        };
        let leadership = header.leadership();
        if leadership < self.fence && !self.counts_old_acks(kind) {
            self.counters.dropped_stale += 1;
            return;
        }
        if leadership > self.fence {
            return self.newer_leadership(leadership, kind, &header);
        }
        match kind {
            DatagramKind::Data => {
                // Split borrow: the bytes lie in the network's ring, and go from there straight into the map.
                let Self { work, receiver, log, counters, .. } = self;
                if let Work::Follower(following) = work {
                    following.on_data(now.at, &header, body, receiver, log, counters);
                }
            }
            DatagramKind::Heartbeat => self.on_heartbeat(now, &header),
            DatagramKind::Nak => {
                let mut ranges = NakCopy::default();
                let count = ranges.take(body);
                self.on_nak(now, peer, &ranges.ranges[..count]);
                self.overhear_nak(now, &ranges.ranges[..count]);
            }
            DatagramKind::Status => {
                if let Ok((status, _)) = StatusBody::read_from_prefix(body) {
                    self.on_status(now, peer, &header, &status);
                } else {
                    self.counters.dropped_garbage += 1;
                }
            }
            DatagramKind::Gone => self.on_gone(&header, now),
            DatagramKind::MatchRequest => {
                if let Ok((question, _)) = MatchRequest::read_from_prefix(body) {
                    self.on_match_request(now, peer, &question);
                }
            }
            DatagramKind::MatchAnswer => {
                if let Ok((answer, _)) = MatchAnswer::read_from_prefix(body) {
                    self.on_match_answer(now, &answer);
                }
            }
            DatagramKind::Welcome | DatagramKind::Refuse => self.answer_forwarded(index, now),
            DatagramKind::CommitQuestion => self.on_commit_question(index, now, peer),
            DatagramKind::CommitAnswer => self.on_commit_answer(index, peer),
            DatagramKind::Hello | DatagramKind::Redirect => self.counters.dropped_garbage += 1,
            DatagramKind::LocalQuery | DatagramKind::LocalAnswer => {
                self.counters.dropped_garbage += 1;
            }
        }
    }

    fn refuse_datagram(&mut self, error: DatagramError) {
        match error {
            DatagramError::Version { version } => {
                self.counters.dropped_version += 1;
                if !mem::replace(&mut self.foreign_version_told, true) {
                    let spoken = DATAGRAM_VERSION;
                    self.event(CoreEvent::ForeignVersion { version, spoken });
                }
            }
            DatagramError::Group { group } => {
                self.counters.dropped_group += 1;
                if !mem::replace(&mut self.foreign_group_told, true) {
                    self.event(CoreEvent::ForeignGroup { group: group.0 });
                }
            }
            _ => self.counters.dropped_garbage += 1,
        }
    }

    /// Index of the sending node, if it is another member and sends from its own address.
    fn peer(&self, header: &DatagramHeader, from: SocketAddr) -> Option<usize> {
        let node = header.node()?;
        let index = self.settings.index_of(node)?;
        let known = self.settings.peers[index].address == from;
        (known && node != self.settings.identity.node).then_some(index)
    }

    /// Somebody leads that control has not told us about: control decides what to make of it.
    fn newer_leadership(
        &mut self,
        leadership: Leadership,
        kind: DatagramKind,
        header: &DatagramHeader,
    ) {
        self.counters.dropped_stale += 1;
        // Only a leader sends these: what else is newer comes from one who follows.
        let leads = matches!(kind, DatagramKind::Data | DatagramKind::Heartbeat);
        if let Some(node) = header.node().filter(|_| leads) {
            // Once: the leader calls control too, until it is followed.
            if mem::replace(&mut self.leadership_told, leadership) != leadership {
                self.tell(CoreToControl::LeadershipSeen { leadership, node });
            }
        }
    }

    fn counts_old_acks(&self, kind: DatagramKind) -> bool {
        kind == DatagramKind::Status && self.planted(Mutant::CountOldAcks)
    }

    /// Whether a rule is taken out: never, but in tests and in the simulator.
    pub(super) fn planted(&self, mutant: Mutant) -> bool {
        self.settings.mutants.has(mutant)
    }

    /// Hands a fact to control. Answers to requests have slots that nothing else may take.
    pub(super) fn tell(&mut self, fact: CoreToControl) {
        let answer = matches!(
            fact,
            CoreToControl::Fenced { .. }
                | CoreToControl::Lane(
                    LaneFact::Asks(_) | LaneFact::Stands { .. } | LaneFact::Refuses { .. }
                )
                | CoreToControl::Entered { .. }
                | CoreToControl::HandOver { .. }
                | CoreToControl::Readmit { .. }
                | CoreToControl::Durability { .. }
                | CoreToControl::Stopped { .. }
        );
        let room = answer || self.link.to_control.len() < MAILBOX_DEPTH - ANSWERS_RESERVED;
        if !room || self.link.to_control.try_send(fact).is_err() {
            self.counters.facts_lost += 1;
        }
        self.wake_control = true;
    }

    pub(super) fn event(&mut self, event: CoreEvent) {
        self.tell(CoreToControl::Event(event));
    }

    /// What this node promises to keep: what its rung of the ladder, and its state, allow.
    pub(super) fn promised(&self, rung: Rung) -> Position {
        match rung {
            Rung::Memory if self.may_ack_memory && !self.provisional => self.log.tail().position,
            _ => self.durable.0,
        }
    }

    /// Takes a new commit position; outside readers may read up to it from now on.
    pub(super) fn set_commit(&mut self, commit: Commit) {
        assert!(commit >= self.commit, "commit never goes back");
        assert!(commit.0 <= self.log.tail().position, "commit stays within what is verified");
        self.commit = commit;
        self.share_positions();
    }

    pub(super) fn out_of_segments(&mut self) {
        if !mem::replace(&mut self.out_of_segments, true) {
            let position = self.log.tail().position;
            self.event(CoreEvent::OutOfSegments { position });
        }
    }

    /// Gives segments back that are durable and applied beyond their end (D16).
    fn retire_segments(&mut self) {
        let below = self.durable.0.min(self.applied.0);
        while let Some((base, memory)) = self.log.retire(below) {
            if let Err(full) = self.link.to_keeper.try_send(SegmentRetired { base, memory }) {
                // The keeper is behind by hundreds of segments: a leak is better than an unmapping stall on the core.
                mem::forget(full);
                self.counters.facts_lost += 1;
                break;
            }
        }
        if matches!(self.work, Work::Leader(_)) {
            // Who asks for what is gone must be told so, not left to ask for ever.
            self.sender.set_lowest(self.log.hot_base());
        }
    }

    pub(super) fn send(&mut self, to: Destination, header: &DatagramHeader, bytes: &[u8]) {
        self.network.send(to, header, &[], bytes);
    }

    /// A header of this node, of the leadership it obeys.
    pub(super) fn header(&self, kind: DatagramKind, now: Now) -> DatagramHeader {
        let identity = &self.settings.identity;
        let mut header =
            DatagramHeader::new(kind, self.settings.group, Some(identity.node), self.fence);
        header.incarnation = identity.incarnation.0.into();
        header.commit = self.commit.0.0.into();
        header.stamp = now.at.0.into();
        header
    }
}

/// Where a recovered node begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// Newest leadership this node has promised not to go below.
    pub fence: Leadership,
    /// Known commit position.
    pub commit: Commit,
    /// End of what the service was given.
    pub applied: Applied,
    /// End of what is on the disk.
    pub durable: Durable,
    /// Number of cuts so far.
    pub cut_epoch: CutEpoch,
    /// What stands before the next frame.
    pub tail: Predecessor,
}

/// Counters are copied this much later than due when nothing else is to be done: they are soft.
const COUNTERS_SOFT_NS: u64 = 100 * Nanos::MILLISECOND;

/// The ranges of a NAK, copied out of the network's ring: they are answered while the ring is borrowed.
struct NakCopy {
    ranges: [NakRange; NAK_RANGES_MAX],
}

impl Default for NakCopy {
    fn default() -> Self {
        Self { ranges: [NakRange { from: 0.into(), to: 0.into() }; NAK_RANGES_MAX] }
    }
}

impl NakCopy {
    /// Takes the whole ranges of `body`, as many as a NAK may have.
    fn take(&mut self, body: &[u8]) -> usize {
        let count = (body.len() / size_of::<NakRange>()).min(NAK_RANGES_MAX);
        let bytes = &body[..count * size_of::<NakRange>()];
        self.ranges[..count].as_mut_bytes().copy_from_slice(bytes);
        count
    }
}

/// The body of a hello, copied out of the network's ring: it is answered while the ring is borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct HelloBytes {
    bytes: [u8; HELLO_BYTES_MAX],
    length: usize,
}

/// Longest hello: its fixed part and a name.
const HELLO_BYTES_MAX: usize = 32 + 64;

impl HelloBytes {
    pub(super) fn copy(body: &[u8]) -> Self {
        let length = body.len().min(HELLO_BYTES_MAX);
        let mut bytes = [0; HELLO_BYTES_MAX];
        bytes[..length].copy_from_slice(&body[..length]);
        Self { bytes, length }
    }
    /// Which client says it: the nonce; 0 where there is none.
    pub(super) fn nonce(&self) -> u64 {
        self.bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
    /// What arrived.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

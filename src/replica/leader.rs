//! Leading one term: append, send, count promises, commit.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::core::{Core, Deadlines, Now, Work};
use super::matching;
use super::quorum::{self, LeaderSide, Progress};
use super::settings::CoreSettings;
use crate::frame::Kind;
use crate::frame::payload::{GroupSetting, TermStart};
use crate::journal::SegmentMemory;
use crate::limits::NODES_MAX;
use crate::link::{CoreEvent, CoreToControl, Durability};
use crate::mutants::Mutant;
use crate::service::{Role, Service};
use crate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_PADS, FLAG_REPAIR, FLAG_WHOLE, MatchRequest, NakRange,
    STATUS_ENTERING, STATUS_PROVISIONAL, STATUS_STATELESS, StatusBody,
};
use crate::stream::lanes::LaneIndex;
use crate::stream::network::{Destination, Network};
use crate::stream::{Pace, Report, Sender, SenderSettings, Transmit};
use crate::types::{Commit, Incarnation, Leadership, Nanos, NodeId, Position, Tail};

/// Bytes handed to the network in one piece: as many datagrams as segmentation offload takes at once.
const SEND_BYTES_MAX: usize = 60 * 1024;
/// Pieces sent in one duty cycle, at most: fresh bytes never starve what comes in.
const SENDS_MAX: usize = 16;

/// State of a leader within one term.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub(super) struct Leading {
    leadership: Leadership,
    others: [Progress; NODES_MAX],
    /// End of the entry that opened the term; only when it is applied are new sessions and queries served.
    pub(super) term_opened: Position,
    /// The term's own entry is committed and applied. Before that, clients whose sessions are known may send commands.
    pub(super) opened: bool,
    /// A quorum echoed a fresh stamp.
    pub(super) quorum: bool,
    /// The quorum was lost, or never there in time: this node leads no more, and waits for control to say so. It accepts,
    /// sends and commits nothing, and tells its clients.
    pub(super) over: bool,
    /// Clients with a lane below this one were told so.
    pub(super) lanes_told: LaneIndex,
    /// The lead is being handed to this peer: no commands are taken.
    pub(super) handing: Option<usize>,
    handed: bool,
    /// Another durability stands in the log up to here, and is not applied yet.
    pub(super) coming: Option<(Position, Durability)>,
    /// What is counted by meanwhile.
    pub(super) strictest: Durability,
    /// By peer: those who may have forgotten what they promised.
    rejoins: [Option<Rejoin>; NODES_MAX],
    quorum_check_at: Nanos,
    since: Nanos,
    young_ns: u64,
    /// Commit position that the followers were last told, and when it must be told without other traffic.
    commit_told: Position,
    commit_due: Option<Nanos>,
}

/// The way back of a node that may have forgotten what it promised (DESIGN §6).
#[derive(Clone, Copy, Debug)]
struct Rejoin {
    incarnation: Incarnation,
    /// End of the log when it was first heard of.
    needed: Position,
    /// End of an entry that was appended after that.
    proof: Option<Position>,
    told: bool,
}

/// A commit position that no other datagram carries is told after this, ns.
const COMMIT_QUIET_NS: u64 = Nanos::MILLISECOND;

impl Leading {
    /// What is known of the other nodes.
    pub(super) fn others(&self, peers: usize) -> &[Progress] {
        &self.others[..peers]
    }

    /// It has a quorum, or has not led for long enough to know that it has none.
    pub(super) fn accepts(&self, now: Nanos) -> bool {
        !self.over && (self.quorum || now.since(self.since) < self.young_ns)
    }

    /// Where everything ends that anybody was told of until now. Until the term is open, what was committed before it is not
    /// known; but a commit position may be far beyond what is applied here, and followers are told it at once.
    pub(super) fn vouches_for(&self, commit: Commit) -> Position {
        if self.opened { commit.0 } else { commit.0.max(self.term_opened) }
    }
}

/// The sender of a leader, made once.
pub(super) fn sender(settings: &CoreSettings, start: Position) -> Sender {
    let others = settings.peers.len() - 1;
    let mut sender = Sender::new(
        SenderSettings {
            receivers: others,
            pace: Pace::Fastest((quorum::majority(settings.voters()) - 1).min(others)),
            window_bytes: settings.window_bytes,
            heartbeat_ns: settings.heartbeat_ns,
            idle_heartbeat_ns: settings.heartbeat_ns,
            multicast: settings.multicast && others > 1,
            ..SenderSettings::default()
        },
        start,
    );
    for other in 0..others {
        sender.set_paces(other, settings.other(other).voter);
    }
    sender
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Takes the lead: opens the term with an entry of its own.
    pub(super) fn start_leading(&mut self, leadership: Leadership, now: Now) {
        if leadership != self.fence || matches!(self.work, Work::Leader(_)) {
            return; // control fences first; an order that a newer fence overtook is void
        }
        self.log.forget_above_tail();
        let tail = self.log.tail();
        let mut others = [Progress::default(); NODES_MAX];
        for (other, peer) in others.iter_mut().zip(&self.settings.peers) {
            other.voter = peer.voter && peer.node != self.settings.identity.node;
        }
        self.sender.restart(self.log.hot_base(), tail.position);
        self.work = Work::Leader(Leading {
            leadership,
            others,
            term_opened: Position(u64::MAX),
            opened: false,
            quorum: false,
            over: false,
            lanes_told: LaneIndex(0),
            handing: None,
            handed: false,
            coming: None,
            strictest: self.durability,
            rejoins: [None; NODES_MAX],
            quorum_check_at: now.at.plus(self.settings.leader_timeout_ns),
            since: now.at,
            young_ns: self.settings.leader_timeout_ns,
            commit_told: Position(0),
            commit_due: None,
        });
        self.publish_role();
        self.open_term(now);
    }

    /// Appends the term start (and, in a new log, the group's settings); waits for a segment if none is ready.
    fn open_term(&mut self, now: Now) -> bool {
        let first = self.log.tail().sequence.0 == 0;
        let opening = TermStart {
            generation: U64::new(self.fence.generation.to_u64()),
            base: U64::new(self.log.tail().position.0),
            service_version: U32::new(self.state.service().version()),
            leader: U16::new(self.settings.identity.node.0),
            reserved: U16::new(0),
        };
        let setting = super::ladder::setting(self.settings.durability);
        if !self.log.room_for(size_of::<TermStart>() + size_of::<GroupSetting>() + 128) {
            self.out_of_segments();
            return false;
        }
        let term = self.fence.term;
        let opened = self.log.append(Kind::TermStart, term, now.time, &[opening.as_bytes()]);
        let mut end = opened.expect("room was checked").end;
        if first {
            let appended =
                self.log.append(Kind::GroupSetting, term, now.time, &[setting.as_bytes()]);
            end = appended.expect("room was checked").end;
        }
        self.appended();
        let mutants = self.settings.mutants;
        let Work::Leader(leading) = &mut self.work else {
            unreachable!("only a leader opens a term")
        };
        leading.term_opened = end;
        leading.opened = mutants.has(Mutant::OpenEarly);
        let leadership = leading.leadership;
        self.tell(CoreToControl::Entered { leadership, leads: true, tail: Tail(end) });
        self.state.role_changed(Role::Leader);
        true
    }

    /// Bytes were appended: they may be sent, synced and, alone in a group, committed.
    pub(super) fn appended(&mut self) {
        self.sender.set_tail(self.log.tail().position);
        self.share_positions();
    }

    /// One duty cycle of a leader.
    pub(super) fn lead(&mut self, now: Now) -> usize {
        let Work::Leader(leading) = &self.work else { return 0 };
        if leading.over {
            return self.turn_clients_away(now);
        }
        if leading.term_opened == Position(u64::MAX) && !self.open_term(now) {
            return 0;
        }
        let mut work = self.serve_clients(now);
        work += self.transmit(now);
        work += self.advance_commit(now);
        self.see_rejoins(now);
        self.see_hand_over();
        work
    }

    pub(super) fn leader_deadlines(&self) -> Deadlines {
        let Work::Leader(leading) = &self.work else { return Deadlines::default() };
        if leading.over {
            return Deadlines { sharp: Some(self.clients.deadline()), soft: None };
        }
        let stream = self.sender.deadline();
        // Once those who set the pace have everything, the rest is heartbeats (to a node that is down, say).
        let settled = self.sender.acknowledged() >= self.sender.tail();
        let clients = self.clients.deadline();
        let (sharp, soft) = if settled { (clients, stream) } else { (clients.min(stream), stream) };
        let soft = soft.min(leading.quorum_check_at).min(leading.commit_due.unwrap_or(soft));
        let due = self.outgoing.due;
        let sooner = |one: Nanos, other: Option<Nanos>| other.map_or(one, |at| one.min(at));
        Deadlines { sharp: Some(sooner(sharp, due.sharp)), soft: Some(sooner(soft, due.soft)) }
    }

    /// Sends what the stream machine wants sent, straight from the map.
    fn transmit(&mut self, now: Now) -> usize {
        let mut sent = 0;
        while sent < SENDS_MAX {
            let Some(transmit) = self.sender.poll(now.at) else { break };
            sent += 1;
            match transmit {
                Transmit::Fresh { from, to } => {
                    self.send_range(now, Destination::Members, from, to, 0);
                    self.told_commit();
                }
                Transmit::Repair { to_receiver, from, to } => {
                    let destination = match to_receiver {
                        Some(other) => Destination::Node(self.settings.other(other).node),
                        None => Destination::Members,
                    };
                    self.counters.repairs_sent += 1;
                    self.send_range(now, destination, from, to, FLAG_REPAIR);
                }
                Transmit::Heartbeat { tail } => {
                    self.send_heartbeat(now, tail);
                }
            }
        }
        if let Work::Leader(leading) = &self.work
            && leading.commit_due.is_some_and(|due| now.at >= due)
        {
            self.send_heartbeat(now, self.sender.next());
        }
        sent
    }

    fn send_heartbeat(&mut self, now: Now, tail: Position) {
        let mut header = self.header(DatagramKind::Heartbeat, now);
        header.position = U64::new(tail.0);
        if tail == self.log.tail().position {
            header.flags |= FLAG_WHOLE;
        }
        self.send(Destination::Members, &header, &[]);
        self.told_commit();
    }

    fn told_commit(&mut self) {
        let commit = self.commit.0;
        if let Work::Leader(leading) = &mut self.work {
            leading.commit_told = commit;
            leading.commit_due = None;
        }
    }

    /// Sends `from..to` of the log; below what is held in memory, says so instead.
    fn send_range(
        &mut self,
        now: Now,
        to: Destination,
        mut from: Position,
        end: Position,
        flags: u8,
    ) {
        from = from.max(self.log.hot_base());
        let mut header = self.header(DatagramKind::Data, now);
        while from < end {
            let Some(chunk) = self.log.chunk(from, end, SEND_BYTES_MAX) else { break };
            header.position = U64::new(from.0);
            header.flags = flags | if chunk.pads { FLAG_PADS } else { 0 };
            self.network.send(to, &header, &[], chunk.bytes);
            from = chunk.next;
        }
    }

    pub(super) fn on_status(
        &mut self,
        now: Now,
        peer: usize,
        header: &DatagramHeader,
        status: &StatusBody,
    ) {
        let Work::Leader(leading) = &mut self.work else { return };
        let tail = self.log.tail().position;
        let flags = status.flags.get();
        let progress = Progress {
            voter: leading.others[peer].voter,
            incarnation: header.incarnation(),
            verified: Position(status.verified.get()),
            durable: Position(status.durable.get()),
            promised: Position(status.promised.get()),
            provisional: flags & STATUS_PROVISIONAL != 0,
            stateless: flags & STATUS_STATELESS != 0,
            echo: if self.settings.mutants.has(Mutant::EchoOnArrival) {
                now.at
            } else {
                Nanos(status.echo.get())
            },
        };
        if leading.over {
            return;
        }
        // Nobody holds more of this leadership's log than the leader made, nor echoes a stamp from the future.
        if progress.verified > tail
            || progress.promised > progress.verified
            || progress.durable > progress.verified
            || progress.echo > now.at
        {
            self.counters.dropped_garbage += 1;
            return;
        }
        if !leading.others[peer].update(progress) {
            self.counters.dropped_stale += 1;
            return;
        }
        leading.rejoins[peer] = match leading.rejoins[peer] {
            // An observer has no vote to come back to.
            _ if !progress.provisional || !progress.voter => None,
            Some(known) if known.incarnation == progress.incarnation => Some(known),
            _ => Some(Rejoin {
                incarnation: progress.incarnation,
                needed: tail,
                proof: None,
                told: false,
            }),
        };
        if flags & STATUS_ENTERING != 0 {
            return;
        }
        let other = self.settings.other_index(peer);
        // Who caught up from this node's files may have more than was sent so far.
        self.sender.skip_to(progress.verified);
        if !self.sender.on_status(now.at, other, &Report::from(status)) {
            self.counters.dropped_garbage += 1;
        }
    }

    pub(super) fn on_nak(&mut self, now: Now, peer: usize, ranges: &[NakRange]) {
        if let Work::Leader(_) = self.work {
            self.counters.naks_received += 1;
            let other = self.settings.other_index(peer);
            let outcome = self.sender.on_nak(now.at, other, ranges);
            if outcome.gone {
                let mut header = self.header(DatagramKind::Gone, now);
                header.position = U64::new(self.log.hot_base().0);
                self.send(Destination::Node(self.settings.peers[peer].node), &header, &[]);
            }
        }
    }

    pub(super) fn on_match_request(&mut self, now: Now, peer: usize, question: &MatchRequest) {
        if let Work::Leader(_) = self.work {
            let answer = matching::answer(&self.log, question);
            let header = self.header(DatagramKind::MatchAnswer, now);
            let to = Destination::Node(self.settings.peers[peer].node);
            self.send(to, &header, answer.as_bytes());
        }
    }

    fn advance_commit(&mut self, now: Now) -> usize {
        let durability = self.counted_durability();
        let mut promised = self.promised(durability.leader);
        if self.planted(Mutant::CommitBeforeDisk) {
            promised = self.log.tail().position;
        }
        let Work::Leader(leading) = &mut self.work else { return 0 };
        let mutants = self.settings.mutants;
        let counts_old = mutants.has(Mutant::CommitOldTerm);
        let term_opened = if counts_old { Position(0) } else { leading.term_opened };
        let side = LeaderSide { promised, term_opened, followers: durability.follower };
        let others = &leading.others[..self.settings.peers.len()];
        let voters = if mutants.has(Mutant::CommitAlone) { 1 } else { self.settings.voters() };
        let Some(commit) = quorum::commit_position(side, others, voters, self.commit) else {
            return 0;
        };
        leading.commit_due.get_or_insert(now.at.plus(COMMIT_QUIET_NS));
        self.set_commit(commit);
        1
    }

    /// Without fresh echoes from a quorum this leadership is over: clients are told, control too, and the others hear nothing
    /// more of it.
    pub(super) fn check_quorum(&mut self, now: Now) {
        let timeout = self.settings.leader_timeout_ns;
        let voters = self.settings.voters();
        let Work::Leader(leading) = &mut self.work else { return };
        if leading.over {
            return;
        }
        if now.at >= leading.quorum_check_at {
            leading.quorum_check_at = now.at.plus(timeout / 4);
        }
        let oldest = Nanos(now.at.0.saturating_sub(timeout));
        let mut heard = quorum::quorum_heard(&leading.others, voters, oldest.max(Nanos(1)));
        heard |= self.settings.mutants.has(Mutant::NoCheckQuorum) && leading.quorum;
        if heard == leading.quorum {
            return;
        }
        if !heard && now.at.since(leading.since) < timeout {
            return;
        }
        leading.quorum = heard;
        leading.over = !heard;
        self.event(CoreEvent::Quorum { present: heard });
        self.shared.words().quorum.store(u64::from(heard), core::sync::atomic::Ordering::Relaxed);
        if !heard {
            self.counters.quorum_losses += 1;
            self.publish_role();
        }
    }

    /// Those who may have forgotten what they promised: each needs an entry appended after it came back, and when that is
    /// committed and everything before is on its disk, control makes it a voter again.
    fn see_rejoins(&mut self, now: Now) {
        for peer in 0..self.settings.peers.len() {
            let Work::Leader(leading) = &mut self.work else { return };
            let progress = leading.others[peer];
            let Some(rejoin) = &mut leading.rejoins[peer] else { continue };
            match rejoin.proof {
                None if leading.handing.is_some() => {}
                None => {
                    let setting = self.coming_durability();
                    let appended =
                        self.append_entry(now, Kind::GroupSetting, &[setting.as_bytes()]);
                    let end = self.log.tail().position;
                    if let Work::Leader(leading) = &mut self.work
                        && let Some(rejoin) = &mut leading.rejoins[peer]
                    {
                        rejoin.proof = appended.then_some(end);
                    }
                }
                Some(proof) => {
                    let whole = progress.durable >= rejoin.needed && self.commit.0 >= proof;
                    if whole && !core::mem::replace(&mut rejoin.told, true) {
                        let Rejoin { incarnation, needed, .. } = *rejoin;
                        let node = self.settings.peers[peer].node;
                        self.tell(CoreToControl::Readmit { node, incarnation, needed });
                    }
                }
            }
        }
    }

    /// Control wants the lead handed over: no more commands are taken, and it is told when the other holds everything.
    pub(super) fn hand_over(&mut self, to: NodeId) {
        let tail = self.log.tail().position;
        let window = self.settings.window_bytes;
        let peer = self.settings.index_of(to);
        let Work::Leader(leading) = &mut self.work else { return };
        let Some(peer) = peer.filter(|_| !leading.over) else { return };
        let bytes = tail.0.saturating_sub(leading.others[peer].verified.0);
        if bytes > window {
            return self.tell(CoreToControl::HandOver { to, behind: Some(bytes) });
        }
        (leading.handing, leading.handed) = (Some(peer), false);
    }

    /// The hand-over came to nothing.
    pub(super) fn keep_lead(&mut self) {
        if let Work::Leader(leading) = &mut self.work {
            leading.handing = None;
        }
    }

    /// Control ends this leadership: nothing more is accepted, sent or committed, and clients are told.
    pub(super) fn give_up(&mut self) {
        let Work::Leader(leading) = &mut self.work else { return };
        (leading.over, leading.quorum) = (true, false);
        self.shared.words().quorum.store(0, core::sync::atomic::Ordering::Relaxed);
        self.publish_role();
    }

    fn see_hand_over(&mut self) {
        let tail = self.log.tail().position;
        let Work::Leader(leading) = &mut self.work else { return };
        let Some(peer) = leading.handing else { return };
        if leading.others[peer].verified == tail && !core::mem::replace(&mut leading.handed, true) {
            let to = self.settings.peers[peer].node;
            self.tell(CoreToControl::HandOver { to, behind: None });
        }
    }
}

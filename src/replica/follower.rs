//! Following one leadership: find the match point, cut what lies above it, take the stream, say how far it got.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::core::{Core, Deadlines, Now, Work};
use super::counters::Counters;
use super::cut::Cutting;
use super::matching::{self, Verdict};
use super::pull::Pulling;
use super::settings::CoreSettings;
use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::journal::hot::{HotLog, Refusal};
use crate::link::{CoreEvent, CoreToControl, LaneFact};
use crate::mutants::Mutant;
use crate::service::{Role, Service};
use crate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_PADS, FLAG_REPAIR, FLAG_WHOLE, MatchAnswer, NakRange,
    STATUS_ENTERING, STATUS_PROVISIONAL, STATUS_STATELESS, StatusBody,
};
use crate::stream::network::{Destination, Network};
use crate::stream::{Medium, Receiver, ReceiverOutput, ReceiverSettings};
use crate::types::{Commit, Leadership, Nanos, NodeId, Position, Received, Tail, Term};

/// A match request is repeated after this, doubling up to the heartbeat, ns.
const MATCH_RETRY_NS: u64 = 2 * Nanos::MILLISECOND;
/// Frames verified in one duty cycle, at most: bounds the cycle, not the rate.
const VERIFY_FRAMES_MAX: usize = 1024;
/// Times a frame that does not chain is asked for again before the node gives up on its leader's stream.
const BAD_FRAMES_MAX: u32 = 16;

/// State of a follower within one leadership.
#[derive(Debug)]
pub(super) struct Following {
    leadership: Leadership,
    leader: NodeId,
    phase: Phase,
    /// Commit position the leader told, which may lie above what is verified here.
    leader_commit: Position,
    /// The leader's newest send stamp, and when it came.
    echo: (Nanos, Nanos),
    /// Positions as the leader knows them from the last status.
    told: Option<(Position, Position)>,
    status_due: Nanos,
    bad_frames: u32,
    /// End of the leader's log as last told: a frame ends there.
    whole_end: Position,
}

#[derive(Debug)]
enum Phase {
    /// Asking where the logs part. The answer is bound to `request` and used once.
    Matching {
        request: u64,
        limit: Leadership,
        retry_at: Nanos,
        retry_ns: u64,
        /// When it was asked, if once: then the answer's delay is a round trip.
        asked_once_at: Option<Nanos>,
    },
    /// Taking the stream.
    Streaming,
    /// The leader's memory does not reach back to here: what is missing is taken from durable files, of any node.
    Behind {
        /// Lowest that the leader held when it said so.
        lowest: Position,
        /// Control is told again then, unless it is under way.
        tell_at: Nanos,
        pulling: Option<Pulling>,
    },
    /// The logs contradict each other: control knows.
    Stuck,
}

/// A node that is behind says so this often, unless something is being done about it, ns.
const BEHIND_AGAIN_NS: u64 = Nanos::SECOND;

/// The receiver of a follower, made once.
pub(super) fn receiver(settings: &CoreSettings, start: Position) -> Receiver {
    Receiver::new(
        ReceiverSettings {
            window_bytes: settings.window_bytes,
            medium: if settings.multicast {
                Medium::Multicast { receivers: settings.peers.len() as u16 - 1 }
            } else {
                Medium::Unicast
            },
            seed: settings.seed,
            ..ReceiverSettings::default()
        },
        start,
    )
}

impl Following {
    /// The log is known to be the leader's, as far as it goes.
    pub(super) fn is_matched(&self) -> bool {
        matches!(self.phase, Phase::Streaming)
    }

    /// The leader no longer holds in memory what is missing here.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self.phase, Phase::Behind { .. })
    }

    /// What is done about that.
    pub(super) fn pulling(&mut self) -> Option<&mut Pulling> {
        match &mut self.phase {
            Phase::Behind { pulling, .. } => pulling.as_mut(),
            Phase::Matching { .. } | Phase::Streaming | Phase::Stuck => None,
        }
    }

    pub(super) fn pull(&mut self, new: Pulling) {
        if let Phase::Behind { pulling, .. } = &mut self.phase {
            *pulling = Some(new);
        }
    }

    pub(super) fn stop_pulling(&mut self) {
        if let Phase::Behind { pulling, .. } = &mut self.phase {
            *pulling = None;
        }
    }

    /// Places the bytes of one datagram of this leadership.
    pub(super) fn on_data<M: SegmentMemory>(
        &mut self,
        now: Nanos,
        header: &DatagramHeader,
        body: &[u8],
        receiver: &mut Receiver,
        log: &mut HotLog<M>,
        counters: &mut Counters,
    ) {
        if header.node() != Some(self.leader) {
            counters.dropped_stale += 1;
            return;
        }
        self.heard(now, header);
        if !matches!(self.phase, Phase::Streaming) {
            counters.dropped_window += 1;
            return;
        }
        let from = header.position();
        let end = from.plus(body.len() as u64);
        let to = if header.flags & FLAG_PADS != 0 {
            // Padding ends its segment; its body is zero and was not sent.
            let last = Position(end.0.saturating_sub(1));
            last.segment_base(log.segment_bytes()).plus(log.segment_bytes())
        } else {
            end
        };
        if to > log.end_of_room() {
            // No segment for it yet: it will be asked for again.
            counters.dropped_window += 1;
            return;
        }
        let repair = header.flags & FLAG_REPAIR != 0;
        let outcome = receiver.on_data(now, from, to, repair, |missing_from, missing_to| {
            let missing_to = missing_to.min(end);
            if missing_from < missing_to {
                let start = missing_from.since(from) as usize;
                let stop = missing_to.since(from) as usize;
                log.place(missing_from, &body[start..stop]);
            }
        });
        counters.count(outcome);
    }

    fn heard(&mut self, now: Nanos, header: &DatagramHeader) {
        if header.stamp() >= self.echo.0 {
            self.echo = (header.stamp(), now);
        }
        self.leader_commit = self.leader_commit.max(header.commit());
    }
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Enters `leadership` as a follower: nothing counts before the match point is found.
    pub(super) fn start_following(&mut self, leadership: Leadership, leader: NodeId, now: Now) {
        if leadership != self.fence || leader == self.settings.identity.node {
            return; // control fences first; an order that a newer fence overtook is void
        }
        if matches!(&self.work, Work::Follower(following) if following.leadership == leadership) {
            return;
        }
        self.leave_role();
        self.log.forget_above_tail();
        self.work = Work::Follower(Following {
            leadership,
            leader,
            phase: Phase::Stuck,
            leader_commit: Position(0),
            echo: (Nanos(0), now.at),
            told: None,
            status_due: now.at,
            bad_frames: 0,
            whole_end: Position(0),
        });
        self.start_matching(now);
        self.state.role_changed(Role::Follower);
        self.publish_role();
        self.publish_heard(now.at);
    }

    /// Asks the leader where the logs part.
    pub(super) fn start_matching(&mut self, now: Now) {
        let Work::Follower(following) = &mut self.work else { return };
        self.match_requests += 1;
        let generation = following.leadership.generation;
        following.phase = Phase::Matching {
            request: self.match_requests,
            limit: Leadership { generation, term: Term(u32::MAX) },
            retry_at: now.at,
            retry_ns: MATCH_RETRY_NS,
            asked_once_at: None,
        };
    }

    /// One duty cycle of a follower.
    pub(super) fn follow(&mut self, now: Now) -> usize {
        self.ask_for_match(now);
        self.tell_behind(now);
        if let Work::Follower(Following { echo: (_, heard), .. }) = self.work {
            self.publish_heard(heard);
        }
        let work = self.verify(now);
        self.advance_follower_commit();
        self.send_naks(now);
        self.send_status(now);
        work
    }

    pub(super) fn follower_deadlines(&self) -> Deadlines {
        let Work::Follower(following) = &self.work else { return Deadlines::default() };
        let sharp = match following.phase {
            Phase::Matching { .. } if self.cutting.is_some() => None,
            Phase::Matching { retry_at, .. } => Some(retry_at),
            Phase::Streaming => self.receiver.deadline(),
            Phase::Behind { .. } | Phase::Stuck => None,
        };
        Deadlines { sharp, soft: Some(following.status_due) }
    }

    fn ask_for_match(&mut self, now: Now) {
        let Work::Follower(following) = &mut self.work else { return };
        let leader = following.leader;
        let Phase::Matching { request, limit, retry_at, retry_ns, asked_once_at } =
            &mut following.phase
        else {
            return;
        };
        if now.at < *retry_at {
            return;
        }
        let (request, limit) = (*request, *limit);
        *asked_once_at = (*retry_ns == MATCH_RETRY_NS).then_some(now.at);
        *retry_at = now.at.plus(*retry_ns);
        *retry_ns = (*retry_ns * 2).min(self.settings.heartbeat_ns.max(MATCH_RETRY_NS));
        let question = matching::question(&self.log, request, limit);
        let header = self.header(DatagramKind::MatchRequest, now);
        self.send(Destination::Node(leader), &header, question.as_bytes());
    }

    pub(super) fn on_match_answer(&mut self, now: Now, answer: &MatchAnswer) {
        if self.cutting.is_some() {
            return; // it was answered
        }
        let Work::Follower(following) = &mut self.work else { return };
        let Phase::Matching { request, limit, retry_at, retry_ns, asked_once_at } =
            &mut following.phase
        else {
            return; // used once: a late duplicate never cuts
        };
        if answer.request.get() != *request {
            return;
        }
        if let Some(asked_at) = *asked_once_at {
            self.receiver.guess_round_trip(now.at.since(asked_at));
        }
        match matching::judge(&self.log, answer) {
            Verdict::AskBelow(below) => {
                self.match_requests += 1;
                *request = self.match_requests;
                *limit = below;
                (*retry_at, *retry_ns) = (now.at, MATCH_RETRY_NS);
            }
            Verdict::Match(at) => self.enter_at(at, now),
            Verdict::Gone(lowest) => self.fall_behind(lowest, now),
            Verdict::Contradiction { position, own, leaders } => {
                following.phase = Phase::Stuck;
                self.event(CoreEvent::Diverged { position, own, leaders });
            }
            Verdict::Nonsense => self.counters.dropped_garbage += 1,
        }
    }

    /// The match point is known: cut what lies above, or begin at once.
    fn enter_at(&mut self, mut at: Predecessor, now: Now) {
        if self.planted(Mutant::CutCommitted) {
            at = self.log.predecessor_at(self.log.hot_base()).unwrap_or(at);
            return self.start_cut(at);
        }
        if at.position < self.commit.0 {
            // Within one generation a leader holds everything committed; this one does not: nobody's bytes are cut for it.
            if let Work::Follower(following) = &mut self.work {
                following.phase = Phase::Stuck;
            }
            let own = self.log.predecessor_at(self.commit.0).map_or(at.chain, |p| p.chain);
            self.event(CoreEvent::Diverged { position: at.position, own, leaders: at.chain });
            return;
        }
        if at.position < self.log.tail().position {
            self.start_cut(at);
        } else {
            self.enter_stream(now);
        }
    }

    /// The log ends at the match point: from here on the leader's bytes are verified against it.
    pub(super) fn enter_stream(&mut self, now: Now) {
        let Work::Follower(following) = &mut self.work else { return };
        let tail = self.log.tail().position;
        following.phase = Phase::Streaming;
        following.status_due = now.at;
        self.receiver.restart(tail);
        let leadership = following.leadership;
        self.tell(CoreToControl::Entered { leadership, leads: false, tail: Tail(tail) });
    }

    /// D16: what is needed left the leader's memory. The catch-up lane has it.
    fn fall_behind(&mut self, lowest: Position, now: Now) {
        let Work::Follower(following) = &mut self.work else { return };
        following.phase = Phase::Behind { lowest, tell_at: now.at, pulling: None };
        let needed = self.log.tail().position;
        self.event(CoreEvent::RangeGone { needed, lowest });
    }

    fn tell_behind(&mut self, now: Now) {
        let tail = self.log.tail().position;
        let Work::Follower(following) = &mut self.work else { return };
        let (leadership, leader) = (following.leadership, following.leader);
        if let Phase::Behind { lowest, tell_at, pulling } = &mut following.phase
            && pulling.is_none()
            && now.at >= *tell_at
        {
            *tell_at = now.at.plus(BEHIND_AGAIN_NS);
            let lowest = *lowest;
            self.lane(LaneFact::Behind { leadership, leader, lowest, tail });
        }
    }

    pub(super) fn on_gone(&mut self, header: &DatagramHeader, now: Now) {
        let Work::Follower(following) = &self.work else { return };
        let needed = self.receiver.received().0;
        if following.is_matched()
            && header.node() == Some(following.leader)
            && header.position() > needed
        {
            self.fall_behind(header.position(), now);
        }
    }

    pub(super) fn on_heartbeat(&mut self, now: Now, header: &DatagramHeader) {
        let Work::Follower(following) = &mut self.work else { return };
        if header.node() != Some(following.leader) {
            self.counters.dropped_stale += 1;
            return;
        }
        following.heard(now.at, header);
        following.status_due = now.at; // the echo is what tells the leader that it is heard
        if matches!(following.phase, Phase::Streaming) {
            if header.flags & FLAG_WHOLE != 0 {
                following.whole_end = following.whole_end.max(header.position());
            }
            self.receiver.on_tail(now.at, header.position());
        }
    }

    fn verify(&mut self, now: Now) -> usize {
        let Work::Follower(following) = &mut self.work else { return 0 };
        if !matches!(following.phase, Phase::Streaming) {
            return 0;
        }
        let received: Received = self.receiver.received();
        let verification = self.log.verify(received, VERIFY_FRAMES_MAX, following.leadership.term);
        if verification.frames > 0 {
            following.bad_frames = 0;
        }
        let whole_end = following.whole_end;
        if verification.frames > 0 {
            self.share_positions();
        }
        // A frame that claims to end above all that the leader has is as bad as one that does not chain.
        let beyond = verification.incomplete.is_some_and(|end| end > whole_end)
            && whole_end > self.log.tail().position
            && received.0 >= whole_end;
        let bad = if beyond {
            Some(self.log.reopen(received, Refusal::BeyondSender))
        } else {
            verification.bad
        };
        if let Some(bad) = bad {
            self.counters.bad_frames += 1;
            let Work::Follower(following) = &mut self.work else { return 0 };
            following.bad_frames += 1;
            let give_up = following.bad_frames > BAD_FRAMES_MAX
                || !self.receiver.reopen(now.at, bad.position, bad.reopened_to);
            if give_up {
                following.phase = Phase::Stuck;
            }
            if give_up || self.counters.bad_frames == 1 {
                self.event(CoreEvent::BadFrame { position: bad.position });
            }
        }
        verification.frames
    }

    fn advance_follower_commit(&mut self) {
        let Work::Follower(following) = &self.work else { return };
        if !matches!(following.phase, Phase::Streaming) {
            return;
        }
        let known = following.leader_commit.min(self.log.named_end());
        if known > self.commit.0 {
            self.set_commit(Commit(known));
        }
    }

    fn send_naks(&mut self, now: Now) {
        let Work::Follower(following) = &self.work else { return };
        if !matches!(following.phase, Phase::Streaming) {
            return;
        }
        // On multicast the others hear it too and wait for the same repair: one datagram either way.
        let to = if self.settings.multicast {
            Destination::Members
        } else {
            Destination::Node(following.leader)
        };
        while let Some(ReceiverOutput::Nak(ranges)) = self.receiver.poll(now.at) {
            let identity = &self.settings.identity;
            let mut header = DatagramHeader::new(
                DatagramKind::Nak,
                self.settings.group,
                Some(identity.node),
                self.fence,
            );
            header.incarnation = U32::new(identity.incarnation.0);
            header.stamp = U64::new(now.at.0);
            self.counters.naks_sent += 1;
            self.network.send(to, &header, &[], ranges.as_bytes());
        }
    }

    /// Another follower asked: what is missing here too comes with its repair.
    pub(super) fn overhear_nak(&mut self, now: Now, ranges: &[NakRange]) {
        let Work::Follower(following) = &self.work else { return };
        if matches!(following.phase, Phase::Streaming) {
            self.receiver.on_overheard_nak(now.at, ranges);
        }
    }

    /// Says how far this node is: at once when that changed, and with every heartbeat.
    pub(super) fn send_status(&mut self, now: Now) {
        let mut verified = self.log.tail().position;
        let mut promised = self.promised(self.settings.durability.follower);
        let mut durable = self.durable.0;
        let mut window_end = self.receiver.window_end().min(self.log.end_of_room());
        let mut received = self.receiver.received().0;
        let mutants = self.settings.mutants;
        let Work::Follower(following) = &mut self.work else { return };
        let mut flags = 0;
        let entering = !matches!(following.phase, Phase::Streaming);
        if !entering && mutants.has(Mutant::AcknowledgeAhead) {
            verified = verified.max(following.whole_end);
            promised = verified;
        }
        if entering && !mutants.has(Mutant::AcknowledgeUnmatched) {
            // Nothing here is known to be of the leader's log: it is heard, and that is all.
            flags = STATUS_ENTERING;
            let nothing = Position(0);
            (verified, promised, durable) = (nothing, nothing, nothing);
            (window_end, received) = (nothing, nothing);
        }
        if following.told == Some((verified, promised)) && now.at < following.status_due {
            return;
        }
        following.told = Some((verified, promised));
        following.status_due = now.at.plus(self.settings.heartbeat_ns);
        if self.provisional {
            flags |= STATUS_PROVISIONAL;
        }
        if self.provisional && self.settings.identity.stateless {
            flags |= STATUS_STATELESS;
        }
        let status = StatusBody {
            received: U64::new(received.0),
            verified: U64::new(verified.0),
            durable: U64::new(durable.0),
            promised: U64::new(promised.0),
            window_end: U64::new(window_end.0),
            echo: U64::new(following.echo.0.0),
            held: U64::new(now.at.since(following.echo.1)),
            flags: U32::new(flags),
            reserved: U32::new(0),
        };
        let leader = following.leader;
        let header = self.header(DatagramKind::Status, now);
        self.send(Destination::Node(leader), &header, status.as_bytes());
    }

    /// Control looks here before it gives a leader up.
    fn publish_heard(&self, at: Nanos) {
        self.shared.words().leader_heard.store(at.0, core::sync::atomic::Ordering::Relaxed);
    }

    /// Who leads, as far as this node knows.
    pub(super) fn leader(&self) -> Option<NodeId> {
        match &self.work {
            Work::Leader(leading) if leading.over => None,
            Work::Leader(_) => Some(self.settings.identity.node),
            Work::Follower(following) => Some(following.leader),
            Work::Idle | Work::Puller(_) | Work::Halted => None,
        }
    }

    pub(super) fn start_cut(&mut self, at: Predecessor) {
        let (from, end) = (at, self.log.tail());
        let promised_bytes =
            self.promised(self.settings.durability.follower).0.saturating_sub(at.position.0);
        self.event(CoreEvent::Cut {
            from: from.position,
            to: end.position,
            entries: end.sequence.0 - from.sequence.0,
            promised_bytes,
        });
        self.cutting = Some(Cutting::new(at, end.position));
        self.continue_cut();
    }
}

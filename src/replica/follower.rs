//! Following one leadership: find the match point, cut what lies above it, take the stream, say how far it got.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::core::{Core, Deadlines, Now, Work};
use super::counters::Counters;
use super::cut::Cutting;
use super::entering::{Arrived, Entering, Progressed, Step};
use super::matching;
use super::settings::CoreSettings;
use super::take_over::TakeOver;
use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::journal::hot::{BadFrame, HotLog};
use crate::link::{CoreEvent, CoreToControl, LaneFact};
use crate::mutants::Mutant;
use crate::service::{Role, Service};
use crate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_PADS, FLAG_REPAIR, FLAG_WHOLE, MatchAnswer, NakRange,
    STATUS_ENTERING, STATUS_PROVISIONAL, STATUS_STATELESS, StatusBody,
};
use crate::stream::network::{Destination, Network};
use crate::stream::{Medium, Receiver, ReceiverOutput, ReceiverSettings};
use crate::types::{Commit, Leadership, Nanos, NodeId, Position, Tail};

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
    entering: Entering,
    asking: Asking,
    /// While the leader's memory does not reach back to here.
    behind: Option<Behind>,
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

/// When the leader is asked where the logs part.
#[derive(Debug)]
struct Asking {
    retry_at: Nanos,
    retry_ns: u64,
    /// When it was asked, if once: then the answer's delay is a round trip.
    once_at: Option<Nanos>,
}

impl Asking {
    fn at(now: Nanos) -> Self {
        Self { retry_at: now, retry_ns: MATCH_RETRY_NS, once_at: None }
    }
}

/// The leader's memory does not reach back to here: what is missing is taken from durable files, of any node.
#[derive(Debug)]
struct Behind {
    /// Lowest that the leader held when it said so.
    lowest: Position,
    /// Control is told again then, unless it is under way.
    tell_at: Nanos,
    taking: Option<TakeOver>,
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
        self.entering.is_matched()
    }

    /// Its leader was heard lately.
    pub(super) fn hears(&self, now: Nanos, timeout_ns: u64) -> bool {
        now.since(self.echo.1) < timeout_ns
    }

    /// How long ago, ns; none before the first word.
    pub(super) fn heard_ago(&self, now: Nanos) -> Option<u64> {
        (self.echo.0 > Nanos(0)).then(|| now.since(self.echo.1))
    }

    /// Commit position that the leader told.
    pub(super) fn leader_commit(&self) -> Position {
        self.leader_commit
    }

    /// The leader no longer holds in memory what is missing here.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// What is done about that.
    pub(super) fn taking(&mut self) -> Option<&mut TakeOver> {
        self.behind.as_mut().and_then(|behind| behind.taking.as_mut())
    }

    pub(super) fn take_over(&mut self, begun: TakeOver) {
        if let Some(behind) = &mut self.behind {
            behind.taking = Some(begun);
        }
    }

    pub(super) fn stop_taking(&mut self) {
        if let Some(behind) = &mut self.behind {
            behind.taking = None;
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
        let arrived = Arrived {
            from: header.position(),
            bytes: body,
            pads: header.flags & FLAG_PADS != 0,
            repair: header.flags & FLAG_REPAIR != 0,
        };
        match self.entering.place(now, arrived, receiver, log) {
            Some(outcome) => counters.count(outcome),
            None => counters.dropped_window += 1,
        }
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
        self.match_requests += 1;
        let (request, mutants) = (self.match_requests, self.settings.mutants);
        self.work = Work::Follower(Following {
            leadership,
            leader,
            entering: Entering::begin(&mut self.log, leadership, request, mutants),
            asking: Asking::at(now.at),
            behind: None,
            leader_commit: Position(0),
            echo: (Nanos(0), now.at),
            told: None,
            status_due: now.at,
            bad_frames: 0,
            whole_end: Position(0),
        });
        self.state.role_changed(Role::Follower);
        self.publish_role();
        self.publish_heard(now.at);
        if self.planted(Mutant::ForgetAtEntering)
            && self.commit.0 < self.log.tail().position
            && let Some(at) = self.log.predecessor_at(self.commit.0)
        {
            self.start_cut(at);
        }
    }

    /// Asks the leader again where the logs part.
    pub(super) fn start_matching(&mut self, now: Now) {
        let Work::Follower(following) = &mut self.work else { return };
        self.match_requests += 1;
        let (leadership, request) = (following.leadership, self.match_requests);
        following.entering =
            Entering::begin(&mut self.log, leadership, request, self.settings.mutants);
        following.asking = Asking::at(now.at);
        following.behind = None;
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
        let sharp = match following.entering {
            Entering::Matching { .. } => Some(following.asking.retry_at),
            Entering::Streaming => self.receiver.deadline(),
            Entering::Cutting | Entering::Stuck => None,
        };
        Deadlines { sharp, soft: Some(following.status_due) }
    }

    fn ask_for_match(&mut self, now: Now) {
        let Work::Follower(following) = &mut self.work else { return };
        let leader = following.leader;
        let Entering::Matching { request, limit } = following.entering else { return };
        let asking = &mut following.asking;
        if now.at < asking.retry_at {
            return;
        }
        asking.once_at = (asking.retry_ns == MATCH_RETRY_NS).then_some(now.at);
        asking.retry_at = now.at.plus(asking.retry_ns);
        asking.retry_ns = (asking.retry_ns * 2).min(self.settings.heartbeat_ns.max(MATCH_RETRY_NS));
        let question = matching::question(&self.log, request, limit);
        let header = self.header(DatagramKind::MatchRequest, now);
        self.send(Destination::Node(leader), &header, question.as_bytes());
    }

    pub(super) fn on_match_answer(&mut self, now: Now, answer: &MatchAnswer) {
        let Work::Follower(following) = &mut self.work else { return };
        let (commit, next, mutants) = (self.commit, self.match_requests + 1, self.settings.mutants);
        let step = following.entering.on_answer(&self.log, commit, answer, next, mutants);
        if step != Step::Ignored
            && let Some(asked_at) = following.asking.once_at
        {
            self.receiver.guess_round_trip(now.at.since(asked_at));
        }
        match step {
            Step::Ignored => {}
            Step::AskAgain => {
                self.match_requests = next;
                following.asking = Asking::at(now.at);
            }
            Step::Cut(at) => self.start_cut(at),
            Step::Stream => self.enter_stream(now),
            Step::Gone(lowest) => self.fall_behind(lowest, now),
            Step::Diverged { position, own, leaders } => {
                self.event(CoreEvent::Diverged { position, own, leaders });
            }
            Step::Nonsense => self.counters.dropped_garbage += 1,
        }
    }

    /// The log ends at the match point: from here on the leader's bytes are verified against it.
    pub(super) fn enter_stream(&mut self, now: Now) {
        let Work::Follower(following) = &mut self.work else { return };
        let tail = self.log.tail().position;
        following.entering.stream(&self.log, &mut self.receiver, self.settings.mutants);
        following.status_due = now.at;
        let leadership = following.leadership;
        self.tell(CoreToControl::Entered { leadership, leads: false, tail: Tail(tail) });
    }

    /// D16: what is needed left the leader's memory. The catch-up lane has it.
    fn fall_behind(&mut self, lowest: Position, now: Now) {
        let Work::Follower(following) = &mut self.work else { return };
        following.entering.give_up();
        following.behind = Some(Behind { lowest, tell_at: now.at, taking: None });
        let needed = self.log.tail().position;
        self.event(CoreEvent::RangeGone { needed, lowest });
    }

    fn tell_behind(&mut self, now: Now) {
        let tail = self.log.tail().position;
        let Work::Follower(following) = &mut self.work else { return };
        let (leadership, leader) = (following.leadership, following.leader);
        if let Some(Behind { lowest, tell_at, taking: None }) = &mut following.behind
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
        if following.is_matched() {
            if header.flags & FLAG_WHOLE != 0 {
                following.whole_end = following.whole_end.max(header.position());
            }
            self.receiver.on_tail(now.at, header.position());
        }
    }

    fn verify(&mut self, now: Now) -> usize {
        let Work::Follower(following) = &mut self.work else { return 0 };
        let (term, whole_end) = (following.leadership.term, following.whole_end);
        let Progressed { frames, bad } = following.entering.verify(
            &self.receiver,
            &mut self.log,
            VERIFY_FRAMES_MAX,
            term,
            whole_end,
        );
        if frames > 0 {
            following.bad_frames = 0;
            self.share_positions();
        }
        if let Some(bad) = bad {
            self.bad_frame(now, bad);
        }
        frames
    }

    /// It is asked for again, a bounded number of times.
    fn bad_frame(&mut self, now: Now, bad: BadFrame) {
        self.counters.bad_frames += 1;
        let Work::Follower(following) = &mut self.work else { return };
        following.bad_frames += 1;
        let give_up = following.bad_frames > BAD_FRAMES_MAX
            || !self.receiver.reopen(now.at, bad.position, bad.reopened_to);
        if give_up {
            following.entering.give_up();
        }
        if give_up || self.counters.bad_frames == 1 {
            self.event(CoreEvent::BadFrame { position: bad.position });
        }
    }

    fn advance_follower_commit(&mut self) {
        let Work::Follower(following) = &self.work else { return };
        let (told, end) = (following.leader_commit, self.log.named_end());
        let known = following.entering.commits(told, end, self.settings.mutants);
        if known > self.commit.0 {
            self.set_commit(Commit(known));
        }
    }

    fn send_naks(&mut self, now: Now) {
        let Work::Follower(following) = &self.work else { return };
        if !following.is_matched() {
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
        if following.is_matched() {
            self.receiver.on_overheard_nak(now.at, ranges);
        }
    }

    /// Says how far this node is: at once when that changed, and with every heartbeat.
    pub(super) fn send_status(&mut self, now: Now) {
        let mut verified = self.log.tail().position;
        let mut promised = self.promised(self.durability.follower);
        let mut durable = self.durable.0;
        let mut window_end = self.receiver.window_end().min(self.log.end_of_room());
        let mut received = self.receiver.received().0;
        let mutants = self.settings.mutants;
        let Work::Follower(following) = &mut self.work else { return };
        let mut flags = 0;
        if following.is_matched() && mutants.has(Mutant::AcknowledgeAhead) {
            verified = verified.max(following.whole_end);
            promised = verified;
        }
        if !following.entering.acknowledges(mutants) {
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
            self.promised(self.durability.follower).0.saturating_sub(at.position.0);
        if !self.planted(Mutant::CutUntold) {
            self.event(CoreEvent::Cut {
                from: from.position,
                to: end.position,
                entries: end.sequence.0 - from.sequence.0,
                promised_bytes,
            });
        }
        self.cutting = Some(Cutting::new(at, end.position));
        self.continue_cut();
    }
}

//! Who leads: elections over two threads, as safe as Raft's, with what a log that is acknowledged from memory needs.
//!
//! The order of steps is the same for every role: fence the core, decide on the positions that it reports after the fence,
//! make the term and the vote durable, and only then answer, lead or follow.
//!
//! *Canvass*: a node that no longer hears its leader asks the others what they would do, and binds nobody by it. The best
//! stands first: recency decides, then priority, then the order of the member list; the others stand later, in that order.
//! *Stand*: a quorum of votes of nodes that have forgotten nothing wins at once. Without such a quorum every voter must
//! grant its vote in the same term; *founding* is that election among nodes without state.
//! *Lead*: until the core loses its quorum, which ends the leadership for good; a node that promised a newer term makes the
//! leader stand again, above it.
//! *Hand over*: the votes of the coming term are kept for the chosen node, on the disks, while this leader leads on; then it
//! stops, and no disk is waited for until the next one leads. A vote that is kept is decided like any other: after the fence.
//!
//! Messages are idempotent and sent again; those that come while a fence or a write is under way are ignored.

mod canvass;
mod disk;
#[cfg(any(test, feature = "sim"))]
mod explored;
mod intent;
mod ladder;
mod lead;
mod members;
mod reserve;
mod speak;
mod strangers;
mod vote;

#[cfg(test)]
mod founding_tests;
#[cfg(test)]
mod reserve_tests;
#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering::{Acquire, Relaxed};
use std::collections::VecDeque;

pub use self::lead::TransferRefusal;
pub use self::members::{ElectionSettings, Member};
pub use crate::mutants::{Mutant, Mutants};

use self::canvass::Looking;
use self::intent::Intent;
use self::lead::Reign;
use self::members::Known;
use self::reserve::Reservation;
use self::vote::Candidacy;
use super::disk::DiskState;
use super::event::{Event, TransferFailure};
use super::hashes::{Comparison, StateHashes};
use super::message::{Announce, Envelope, Message, Standing};
use super::rejoin::next_generation;
use crate::link::{ControlToCore, CoreEvent, CoreToControl, Promise, Recency, Rung, SharedWords};
use crate::types::{Generation, Leadership, Nanos, NodeId, Position, Tail, Term};

/// A node that has no role yet says what it is, and a leader calls who does not follow, this often, ns.
const CALL_NS: u64 = 50 * Nanos::MILLISECOND;

/// What happens to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// The core reports.
    Core(CoreToControl),
    /// What the core shares, looked at just now.
    Glance(Glance),
    /// Another node says something.
    Message(Envelope),
    /// This node is not listened to: what is known of it is void.
    Refused(NodeId),
    /// What [`Output::Persist`] asked for is durable.
    Persisted,
    /// How [`Output::Pull`] ended: whether the log now ends where the source's did.
    Pulled(bool),
}

/// Facts that the core shares without being asked. They start things; nothing that must be certain is decided on them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Glance {
    /// When the core last took something in from its leader.
    pub heard: Nanos,
    /// Its log.
    pub recency: Recency,
}

impl Glance {
    /// What the core shares now: each word the latest, not all of one moment.
    #[must_use]
    pub fn of(words: &SharedWords) -> Self {
        let generation = Generation::from_u64(words.last_generation.load(Relaxed));
        let last = Leadership { generation, term: Term(words.last_term.load(Relaxed) as u32) };
        let tail = Tail(Position(words.verified.load(Acquire)));
        let heard = Nanos(words.leader_heard.load(Relaxed));
        Self { heard, recency: Recency { last, tail } }
    }
}

/// What it wants done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// To the core.
    ToCore(ControlToCore),
    /// Make this durable, then say [`Input::Persisted`].
    Persist(Promise),
    /// Send to another node.
    Send(NodeId, Envelope),
    /// Make this node's log equal to that of `from` (leader sync), then say [`Input::Pulled`]. The leadership of its last
    /// frame is promised already.
    Pull {
        /// Who has the most recent log and will not lead.
        from: NodeId,
        /// Its log as it told.
        recency: Recency,
    },
    /// Tell the operator.
    Event(Event),
    /// The node must stop: its state cannot be trusted.
    Halt,
}

/// A leadership to enter, and who leads it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Target {
    leadership: Leadership,
    leader: NodeId,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// Leads, follows and asks nobody: it has voted, or may not stand.
    Waiting { until: Nanos },
    /// Asks the others what they would do.
    Looking(Looking),
    /// The core was told to fence.
    Fencing(Intent),
    /// Term and vote are being made durable.
    Persisting { intent: Intent, promise: Promise, recency: Recency },
    /// Asks for votes.
    Standing(Candidacy),
    /// Takes over a log before it stands.
    Pulling,
    /// The role was handed to the core.
    Following { target: Target, since: Nanos },
    /// The role was handed to the core.
    Leading(Reign),
}

/// The control machine of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct Election {
    settings: ElectionSettings,
    own: usize,
    /// By member.
    known: Vec<Known>,
    phase: Phase,
    promised: Leadership,
    /// In `promised`.
    vote: Option<NodeId>,
    /// That vote was decided in this life of the process. If not, it is only kept for that node.
    decided: bool,
    /// That memory may be promised is being made durable: the role goes on.
    allowing: bool,
    /// A vote is being kept: the role goes on, and nothing else is made durable.
    reserving: Option<Reservation>,
    standing: Standing,
    /// Acknowledgements from memory are allowed by the durable node state.
    may_ack_memory: bool,
    /// The newest leadership that the core of this life was fenced to.
    fenced: Leadership,
    /// Newest leadership anybody spoke of: the next term is above it.
    highest: Leadership,
    glance: Glance,
    started: Option<Nanos>,
    seen_leader: bool,
    round: u64,
    /// Elections that came to nothing, in a row.
    attempts: u32,
    not_before: Nanos,
    pull_not_before: Nanos,
    /// The founding election that this node won, if it did.
    founded_in: Option<Leadership>,
    /// Votes that it gave before it was of a group, in this life: the winner of one may say so late.
    given: Vec<(Leadership, NodeId)>,
    /// Whom the lead is being handed to.
    handing: Option<NodeId>,
    random: u64,
    /// This node's disk.
    disk: DiskState,
    /// The core's log has come to the end of its segments.
    out_of_segments: bool,
    /// When this leader looks again whether another has a better disk.
    relieve_at: Nanos,
    hashes: StateHashes,
    outputs: VecDeque<Output>,
    announce_at: Nanos,
    call_at: Nanos,
    may_not_lead_told: bool,
}

impl Election {
    /// A machine that has done nothing yet; call [`Election::handle`] with [`Input::Tick`] to begin.
    #[must_use]
    pub fn new(settings: ElectionSettings) -> Self {
        let own = settings.index_of(settings.node).expect("a node is on its own member list");
        let won = settings.won_founding && settings.standing == Standing::Clean;
        let known = vec![Known::default(); settings.members.len()];
        let hashes = settings.hashes();
        Self {
            own,
            known,
            phase: Phase::Waiting { until: Nanos(0) },
            promised: settings.promised,
            vote: settings.vote.filter(|_| !settings.mutants.has(Mutant::ForgetVote)),
            decided: false,
            allowing: false,
            reserving: None,
            standing: settings.standing,
            may_ack_memory: settings.may_ack_memory,
            fenced: settings.promised,
            highest: settings.promised,
            glance: Glance::default(),
            started: None,
            seen_leader: false,
            // Each life begins elsewhere: what was said to an earlier one is no answer.
            round: settings.instance >> 1,
            attempts: 0,
            not_before: Nanos(0),
            pull_not_before: Nanos(0),
            founded_in: won.then_some(settings.promised),
            given: Vec::new(),
            handing: None,
            random: settings.seed,
            disk: DiskState::Good,
            out_of_segments: false,
            relieve_at: Nanos(0),
            hashes,
            outputs: VecDeque::new(),
            announce_at: Nanos(0),
            call_at: Nanos(0),
            may_not_lead_told: false,
            settings,
        }
    }

    /// Takes one input; drain [`Election::poll`] afterwards.
    pub fn handle(&mut self, now: Nanos, input: Input) {
        if self.started.replace(self.started.unwrap_or(now)).is_none() {
            self.tell_founders();
        }
        match input {
            Input::Glance(glance) if !self.keeps_old_positions() => self.glance = glance,
            Input::Tick | Input::Glance(_) => {}
            Input::Core(fact) => self.on_core(now, fact),
            Input::Message(envelope) => self.on_message(now, envelope),
            Input::Refused(node) => self.forget(node),
            Input::Persisted => self.on_persisted(now),
            Input::Pulled(whole) => self.on_pulled(now, whole),
        }
        self.advance(now);
        self.speak(now);
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to tick again.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        let phase = match &self.phase {
            Phase::Waiting { until } => *until,
            Phase::Looking(looking) => self.looking_deadline(looking),
            Phase::Standing(candidacy) => candidacy.deadline(),
            Phase::Following { since, .. } if self.is_electable() => self.loses_leader_at(*since),
            Phase::Leading(reign) => self.reign_deadline(reign),
            Phase::Following { .. }
            | Phase::Fencing(_)
            | Phase::Persisting { .. }
            | Phase::Pulling => Nanos(u64::MAX),
        };
        phase.min(self.announce_at)
    }

    /// Members that answered lately, this node included.
    pub fn present(&self) -> impl Iterator<Item = NodeId> + '_ {
        let own = self.settings.node;
        self.settings
            .members
            .iter()
            .zip(&self.known)
            .filter(move |(member, known)| member.node == own || known.present)
            .map(|(member, _)| member.node)
    }

    /// The newest leadership that this node promised.
    #[must_use]
    pub fn promised(&self) -> Leadership {
        self.promised
    }

    /// What this node's word is worth.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether the core was told to lead, and has not lost its quorum since.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.phase, Phase::Leading(_))
    }

    /// Whether a leader is heard, this node itself included.
    #[must_use]
    pub fn hears(&self, now: Nanos) -> bool {
        match &self.phase {
            Phase::Leading(_) => true,
            Phase::Following { since, .. } => {
                now.since((*since).max(self.glance.heard)) < self.settings.leader_timeout_ns
            }
            _ => false,
        }
    }

    /// Whether this node follows that one.
    #[must_use]
    pub fn is_led_by(&self, node: NodeId) -> bool {
        node != self.settings.node && self.leader() == Some(node)
    }

    fn leader(&self) -> Option<NodeId> {
        match &self.phase {
            Phase::Leading(_) => Some(self.settings.node),
            Phase::Following { target, .. } => Some(target.leader),
            _ => None,
        }
    }

    fn is_electable(&self) -> bool {
        self.settings.members[self.own].is_electable()
    }

    /// Whether it votes and counts. If not, it is an observer.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.settings.members[self.own].voter
    }

    /// It has been part of a founded group. An observer, which nobody admits, has since it was first called.
    fn is_founded(&self) -> bool {
        let followed = !self.is_voter() && self.promised != Leadership::default();
        self.standing != Standing::Stateless || followed
    }

    /// A follower looks for another leader when its own has been silent for so long: each node after another time.
    fn loses_leader_at(&self, since: Nanos) -> Nanos {
        let timeout = self.settings.leader_timeout_ns;
        let spread = timeout / 8;
        let nodes = self.settings.members.len() as u64;
        let jitter = spread * self.own as u64 / nodes + self.peek_random(spread / nodes);
        since.max(self.glance.heard).plus(timeout + jitter)
    }

    /// Moves on from phases that wait for a time or a condition.
    fn advance(&mut self, now: Nanos) {
        self.allow_memory();
        match &self.phase {
            Phase::Waiting { until } if now >= *until => {
                if self.is_electable() {
                    self.look(now);
                } else {
                    self.phase = Phase::Waiting { until: Nanos(u64::MAX) };
                }
            }
            Phase::Following { since, .. }
                if self.is_electable() && now >= self.loses_leader_at(*since) =>
            {
                self.look(now);
            }
            Phase::Looking(_) => self.consider(now),
            Phase::Standing(_) => self.campaign(now),
            Phase::Leading(_) => self.reign(now),
            _ => {}
        }
    }

    fn on_core(&mut self, now: Nanos, fact: CoreToControl) {
        match fact {
            CoreToControl::Fenced { leadership, recency, .. } => {
                self.on_fenced(now, leadership, recency);
            }
            CoreToControl::LeadershipSeen { leadership, node } => {
                // A node without state waits to be called: only the call says whether it is one of the founders.
                // Data says nothing of who sends it: it counts from nodes that control has heard.
                let known = self.settings.index_of(node).is_some_and(|n| self.known[n].present);
                let same = leadership.generation == self.promised.generation;
                if known && self.is_founded() && same {
                    self.highest = self.highest.max(leadership);
                    self.called(now, Target { leadership, leader: node }, None);
                }
            }
            CoreToControl::Entered { leadership, leads, tail } => {
                self.entered(leadership, leads, tail);
            }
            CoreToControl::StateHash { sequence, hash } => {
                self.broadcast(Message::StateHash { sequence, hash });
                let comparison = self.hashes.hear(self.settings.node, sequence, hash);
                self.judge(comparison, sequence);
            }
            CoreToControl::Event(event) => {
                for event in Event::of_core(event).into_iter().flatten() {
                    self.event(event);
                }
                match event {
                    CoreEvent::Quorum { present: false } => self.lost_quorum(now),
                    CoreEvent::OutOfSegments { .. } => self.out_of_segments = true,
                    CoreEvent::SegmentsBack => self.out_of_segments = false,
                    // Final for its file: a new life writes what is not certain into new ones.
                    CoreEvent::DiskFailed => self.outputs.push_back(Output::Halt),
                    _ => {}
                }
            }
            CoreToControl::Readmit { node, incarnation, needed } => {
                self.readmits(node, incarnation, needed);
            }
            CoreToControl::Durability { before, now, sequence } => {
                self.on_durability(before, now, sequence);
            }
            CoreToControl::HandOver { to, behind } => self.on_hand_over(now, to, behind),
            CoreToControl::Lane(_) | CoreToControl::Stopped { .. } => {} // of other machines
        }
    }

    /// The core accepts nothing older any more, and this is its log.
    fn on_fenced(&mut self, now: Nanos, leadership: Leadership, recency: Recency) {
        self.fenced = self.fenced.max(leadership);
        let Phase::Fencing(intent) = self.phase else { return };
        if intent.leadership() != leadership {
            return;
        }
        self.persist(now, intent, recency);
    }

    fn fence(&mut self, intent: Intent) {
        if self.is_busy() {
            return;
        }
        let leadership = intent.leadership();
        self.phase = Phase::Fencing(intent);
        self.outputs.push_back(Output::ToCore(ControlToCore::Fence(leadership)));
    }

    /// Makes durable what `intent` promises; `recency` is the core's log after the fence.
    fn persist(&mut self, now: Nanos, mut intent: Intent, recency: Recency) {
        let leadership = intent.leadership();
        let durability = self.settings.durability;
        let memory = |rung: Rung| rung == Rung::Memory;
        let clean = self.standing == Standing::Clean;
        let kept = (leadership == self.promised).then_some(self.vote).flatten();
        let mut promise = Promise {
            leadership,
            vote: kept,
            may_ack_memory: false,
            admitted: false,
            founding: false,
            readmitted: None,
            ahead: false,
        };
        match &mut intent {
            Intent::Vote { candidate, recency: theirs, granted, .. } => {
                let own = if self.has(Mutant::VoteOnOldPositions) {
                    self.glance.recency
                } else {
                    recency
                };
                *granted = *theirs >= own || self.has(Mutant::VoteForOlderLog);
                if *granted {
                    promise.vote = Some(*candidate);
                    // It will follow, most likely: one write for both.
                    promise.may_ack_memory = clean && memory(durability.follower);
                }
            }
            Intent::Stand { .. } => {
                promise.vote = Some(self.settings.node);
                promise.may_ack_memory = clean && memory(durability.leader);
            }
            Intent::Win { founding, .. } => {
                promise.admitted = true;
                promise.founding = *founding;
                promise.may_ack_memory = memory(durability.leader);
            }
            Intent::Found { .. } => promise.admitted = true,
            Intent::Follow { founder, .. } => {
                promise.admitted = *founder;
                promise.may_ack_memory = (clean || *founder) && memory(durability.follower);
            }
            Intent::Readmit { needed, .. } => {
                promise.readmitted = Some(*needed);
                promise.may_ack_memory = memory(durability.follower);
            }
            Intent::Pull { .. } => {}
        }
        if self.has(Mutant::AckMemoryUnrecorded) {
            promise.may_ack_memory = false;
        }
        self.phase = Phase::Persisting { intent, promise, recency };
        if self.is_durable(&promise) {
            return self.on_persisted(now);
        }
        if self.has(Mutant::AnswerBeforeDurable) {
            self.on_persisted(now);
        }
        self.outputs.push_back(Output::Persist(promise));
    }

    fn on_persisted(&mut self, now: Nanos) {
        if core::mem::take(&mut self.allowing) {
            return self.allowed();
        }
        if let Some(reservation) = self.reserving.take() {
            return self.reserved(now, &reservation);
        }
        let Phase::Persisting { intent, promise, recency } = self.phase else { return };
        self.takes_vote(&intent, &promise);
        self.promised = promise.leadership;
        self.may_ack_memory |= promise.may_ack_memory;
        if promise.admitted || promise.readmitted.is_some() {
            self.standing = Standing::Clean;
            self.outputs.push_back(Output::ToCore(ControlToCore::Admitted));
        }
        // D3: what it heard of other generations while it was part of none is void from here on.
        if self.is_founded() && self.highest.generation != self.promised.generation {
            self.highest = self.promised;
        }
        self.highest = self.highest.max(self.promised);
        match intent {
            Intent::Vote { candidate, instance, granted, .. } => {
                self.voted(now, candidate, granted, instance);
            }
            Intent::Stand { leadership, transfer } => {
                self.stands(now, leadership, transfer, recency);
            }
            Intent::Win { leadership, founding } => self.wins(now, leadership, founding),
            Intent::Follow { target, founder } => {
                if founder {
                    let generation = target.leadership.generation;
                    self.event(Event::Founded { generation });
                }
                self.follows(now, target);
            }
            Intent::Found { leadership } => {
                self.event(Event::Founded { generation: leadership.generation });
                self.phase = Phase::Waiting { until: now };
            }
            Intent::Readmit { target, since, .. } => {
                self.may_ack(self.settings.durability.follower);
                self.event(Event::Readmitted);
                self.phase = Phase::Following { target, since };
                self.announce_at = Nanos(0);
            }
            Intent::Pull { from, recency } => {
                self.phase = Phase::Pulling;
                self.outputs.push_back(Output::Pull { from, recency });
            }
        }
    }

    fn entered(&mut self, leadership: Leadership, leads: bool, tail: Tail) {
        self.seen_leader = true;
        self.attempts = 0;
        self.event(Event::RoleChange { leadership, leads, tail });
        if let Phase::Following { target, .. } = self.phase
            && target.leadership == leadership
        {
            self.say_following(target);
        }
    }

    fn say_following(&mut self, target: Target) {
        let instance = self.settings.instance;
        self.send(target.leader, target.leadership, Message::Following { instance });
    }

    /// A leader calls: fence, persist, follow. Called again for the leadership already entered, confirm.
    fn called(&mut self, now: Nanos, target: Target, founder: Option<crate::types::Incarnation>) {
        if target.leader == self.settings.node {
            return;
        }
        if target.leadership < self.current() {
            // It does not know yet that a newer term was promised here.
            self.announce_to(target.leader);
            return;
        }
        match &self.phase {
            _ if self.is_busy() => return,
            Phase::Following { target: own, .. } if own.leadership == target.leadership => {
                if own.leader == target.leader {
                    self.say_following(target);
                }
                return;
            }
            Phase::Leading(reign) if target.leadership == reign.leadership() => return,
            _ => {}
        }
        let founder = founder == Some(self.settings.incarnation) && !self.is_founded();
        let intent = Intent::Follow { target, founder };
        if self.fenced < target.leadership {
            return self.fence(intent);
        }
        let clean = self.standing == Standing::Clean;
        let memory = self.settings.durability.follower == Rung::Memory;
        if self.promised < target.leadership || founder || (clean && memory && !self.may_ack_memory)
        {
            return self.persist(now, intent, Recency::default());
        }
        self.follows(now, target);
    }

    /// Hands the role to the core.
    fn follows(&mut self, now: Nanos, target: Target) {
        let Target { leadership, leader } = target;
        self.may_ack(self.settings.durability.follower);
        self.outputs.push_back(Output::ToCore(ControlToCore::Follow { leadership, leader }));
        self.phase = Phase::Following { target, since: now };
        self.announce_at = Nanos(0);
        if let Some(to) = self.handing.take() {
            self.event(if to == leader {
                Event::Transferred { to }
            } else {
                Event::TransferFailed { to, why: TransferFailure::AnotherLeads { node: leader } }
            });
        }
    }

    fn on_message(&mut self, now: Nanos, envelope: Envelope) {
        let Envelope { from, leadership, message } = envelope;
        let Some(index) = self.settings.index_of(from) else {
            return self.on_stranger(now, envelope);
        };
        if index == self.own {
            return; // listing oneself is fine
        }
        if let Some(why) = self.misfit(leadership, message) {
            if !core::mem::replace(&mut self.known[index].intruder_told, true) {
                self.event(Event::Intruder { node: from, why });
            }
            return;
        }
        let known = &mut self.known[index];
        known.heard = Some(now);
        if !core::mem::replace(&mut known.present, true) {
            self.event(Event::Joined { node: from });
        }
        if !self.is_founded() || leadership.generation == self.promised.generation {
            self.highest = self.highest.max(leadership);
        }
        if message.is_about_promise() {
            self.known[index].promised = leadership;
        }
        match message {
            Message::Announce(announce) => self.on_announce(index, leadership, announce),
            Message::Lead { founder } => {
                self.called(now, Target { leadership, leader: from }, founder);
            }
            Message::Following { instance } => {
                // What another life of its process said comes late, or before the word that it lives: it is called again.
                let known = &mut self.known[index];
                if known.instance == 0 || known.instance == instance {
                    (known.following, known.instance) = (Some(leadership), instance);
                }
            }
            Message::StateHash { sequence, hash } => {
                let comparison = self.hashes.hear(from, sequence, hash);
                self.judge(comparison, sequence);
            }
            Message::Canvass { round } => self.canvassed(now, index, round),
            Message::Opinion(opinion) => self.on_opinion(index, opinion),
            Message::VoteRequest { recency, instance, transfer } => {
                let candidate = from;
                let intent =
                    Intent::Vote { candidate, leadership, recency, instance, granted: false };
                self.on_vote_request(now, intent, transfer);
            }
            Message::Vote { granted, instance, standing, incarnation } => {
                let ballot = vote::Ballot { standing, incarnation };
                self.on_vote(now, index, leadership, instance, granted.then_some(ballot));
            }
            Message::Founded => self.on_founded(now, Target { leadership, leader: from }),
            Message::Stand => self.on_stand(now, from, leadership),
            Message::Reserve { term, candidate } => {
                let by = Target { leadership, leader: from };
                self.on_reserve(by, Leadership { term, ..leadership }, candidate);
            }
            Message::Reserved { term } => {
                self.on_reserved(now, index, leadership, Leadership { term, ..leadership });
            }
            Message::Readmit { incarnation, needed } => {
                self.on_readmit(now, Target { leadership, leader: from }, incarnation, needed);
            }
        }
    }

    fn on_announce(&mut self, index: usize, leadership: Leadership, announce: Announce) {
        let current = self.current();
        let known = &mut self.known[index];
        known.disk = announce.disk;
        let before = core::mem::replace(&mut known.instance, announce.instance);
        // It does not follow, or no longer does (an earlier life of its process did): it is called again.
        if before != announce.instance || leadership < current {
            known.following = None;
        }
        if announce.standing == Standing::Clean {
            known.readmit = None;
        }
    }

    fn judge(&mut self, comparison: Comparison, sequence: crate::types::Sequence) {
        let event = match comparison {
            Comparison::Open => return,
            _ if self.has(Mutant::IgnoreStateHash) => return,
            Comparison::Minority { own, majority } => {
                Event::StateHashMismatch { sequence, own, majority }
            }
            Comparison::NoMajority => Event::NoMajorityState { sequence },
        };
        self.event(event);
        self.outputs.push_back(Output::Halt);
    }

    fn send(&mut self, to: NodeId, leadership: Leadership, message: Message) {
        let from = self.settings.node;
        self.outputs.push_back(Output::Send(to, Envelope { from, leadership, message }));
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Only with a rule taken out: while a vote waits for its fence, what was known before it stands.
    fn keeps_old_positions(&self) -> bool {
        self.has(Mutant::VoteOnOldPositions)
            && matches!(self.phase, Phase::Fencing(Intent::Vote { .. }))
    }

    fn has(&self, mutant: Mutant) -> bool {
        self.settings.mutants.has(mutant)
    }

    /// A term above everything that anybody spoke of.
    fn next_leadership(&self) -> Leadership {
        let base = self.highest.max(self.promised);
        // Nodes without state may have logs (of a backup, say). What they found is above all that a log holds: of the
        // generation that they know of, others may live who went on after it. Terms never go down in a log.
        let log = self.glance.recency.last;
        let term = Term(base.term.0.max(log.term.0).saturating_add(1)); // no datagram brings the last one
        if base.generation.counter == 0 || (!self.is_founded() && base.generation <= log.generation)
        {
            let random = self.settings.generation_random;
            return Leadership { generation: next_generation(log.generation, random), term };
        }
        Leadership { term, ..base }
    }

    /// A number below `below`, the same until [`Election::draw`] is called. 0 when `below` is 0.
    fn peek_random(&self, below: u64) -> u64 {
        let mut word = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)).checked_rem(below).unwrap_or(0)
    }

    /// A new number below `below`.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.peek_random(below)
    }
}

//! A fixed leader: one node of the member list leads, whenever it runs and has not forgotten what it promised.
//!
//! The order of steps is the one elections will keep: fence the core, decide on the positions that it reports after the
//! fence, make the term and the vote durable, and only then lead or follow.
//!
//! *Founding* is an agreement of all: a node without state leads a new group only when every listed voter has announced
//! itself as blank; each of them makes the founding term durable before it follows.
//!
//! Only a call makes a node follow: it comes through the [`Door`](super::constants::Door), data does not.

use std::collections::VecDeque;

use super::event::Event;
use super::hashes::{Comparison, StateHashes};
use super::message::{Announce, Envelope, Message};
use crate::link::{ControlToCore, CoreToControl, Durability, Rung};
use crate::types::{Generation, Leadership, Nanos, NodeId, Tail, Term};

/// A node that does not follow yet says so this often, ns; a leader repeats its claim as often.
const ANNOUNCE_NS: u64 = 50 * Nanos::MILLISECOND;
/// Sign of life between members that are settled, ns.
const SIGN_OF_LIFE_NS: u64 = 500 * Nanos::MILLISECOND;
/// Silence after which a member is said to have left, ns.
const LEFT_NS: u64 = 3 * Nanos::SECOND;

/// What a control machine is told once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FixedSettings {
    /// This node.
    pub node: NodeId,
    /// All nodes in list order.
    pub members: Vec<NodeId>,
    /// Which of them leads.
    pub leader: NodeId,
    /// Which of them vote.
    pub voters: Vec<NodeId>,
    /// Newest leadership this node has promised.
    pub promised: Leadership,
    /// No state of an earlier life, and an empty log.
    pub stateless: bool,
    /// It may have forgotten what it promised.
    pub provisional: bool,
    /// Durability ladder.
    pub durability: Durability,
    /// Random number for the generation, should this node found the group.
    pub generation_random: u32,
    /// Random number of this life of the process, not 0.
    pub instance: u64,
}

/// What happens to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// The core reports.
    Core(CoreToControl),
    /// Another node says something.
    Message(Envelope),
    /// This node is not listened to: what is known of it is void.
    Refused(NodeId),
    /// What [`Output::Persist`] asked for is durable.
    Persisted,
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
    /// Tell the operator.
    Event(Event),
    /// The node must stop: its state cannot be trusted.
    Halt,
}

/// What is made durable before it is acted upon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Promise {
    /// Accept nothing older than this.
    pub leadership: Leadership,
    /// Voted for this node in it.
    pub vote: NodeId,
    /// Acknowledgements from memory are about to be given.
    pub may_ack_memory: bool,
    /// The node is no longer provisional.
    pub admitted: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Phase {
    /// The leader-to-be waits for every voter to be blank too.
    Founding,
    /// The leader-to-be may not lead.
    Barred,
    /// Waiting for the leader to call.
    Waiting,
    /// The core was told to fence.
    Fencing(Target),
    /// The term and the vote are being made durable.
    Persisting(Target),
    /// The role was handed to the core.
    Settled(Target),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Target {
    leadership: Leadership,
    leader: NodeId,
    founding: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Known {
    /// Blank, and which instance it is.
    announced: Option<(bool, u64)>,
    /// The instance that is a founder, from the moment of founding on.
    founder: u64,
    heard_at: Option<Nanos>,
    present: bool,
    following: Option<Leadership>,
}

/// The control machine of a node whose group has a fixed leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FixedLeader {
    settings: FixedSettings,
    phase: Phase,
    promised: Leadership,
    blank: bool,
    provisional: bool,
    /// Highest leadership anybody spoke of: the next term is above it.
    highest: Leadership,
    known: Vec<Known>,
    hashes: StateHashes,
    outputs: VecDeque<Output>,
    announce_at: Nanos,
    barred_told: bool,
}

impl FixedLeader {
    /// A machine that has done nothing yet; call [`FixedLeader::handle`] with [`Input::Tick`] to begin.
    #[must_use]
    pub fn new(settings: FixedSettings) -> Self {
        assert!(settings.members.contains(&settings.node), "a node is on its own member list");
        assert!(settings.members.contains(&settings.leader), "the leader is on the list too");
        let leads = settings.leader == settings.node;
        let phase = match (leads, settings.stateless, settings.provisional) {
            (true, true, _) => Phase::Founding,
            (true, false, true) => Phase::Barred,
            (false, ..) | (true, false, false) => Phase::Waiting,
        };
        let known = vec![Known::default(); settings.members.len()];
        let hashes = StateHashes::new(settings.node, settings.voters.len());
        Self {
            phase,
            promised: settings.promised,
            blank: settings.stateless,
            provisional: settings.provisional,
            highest: settings.promised,
            known,
            hashes,
            outputs: VecDeque::new(),
            announce_at: Nanos(0),
            barred_told: false,
            settings,
        }
    }

    /// Takes one input; drain [`FixedLeader::poll`] afterwards.
    pub fn handle(&mut self, now: Nanos, input: Input) {
        match input {
            Input::Tick => {}
            Input::Core(fact) => self.on_core(fact),
            Input::Message(envelope) => self.on_message(now, envelope),
            Input::Refused(node) => {
                if let Some(index) = self.index_of(node) {
                    let founder = self.known[index].founder;
                    self.known[index] = Known { founder, ..Known::default() };
                }
            }
            Input::Persisted => self.on_persisted(),
        }
        self.advance();
        self.speak(now);
    }

    /// The next thing to do, if there is one.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to tick again.
    #[must_use]
    pub fn deadline(&self) -> Nanos {
        self.announce_at
    }

    /// Members that answered lately, this node included.
    pub fn present(&self) -> impl Iterator<Item = NodeId> + '_ {
        let own = self.settings.node;
        self.settings
            .members
            .iter()
            .zip(&self.known)
            .filter(move |(node, known)| **node == own || known.present)
            .map(|(node, _)| *node)
    }

    fn leads(&self) -> bool {
        self.settings.leader == self.settings.node
    }

    fn index_of(&self, node: NodeId) -> Option<usize> {
        self.settings.members.iter().position(|member| *member == node)
    }

    /// Moves on from phases that wait for a condition.
    fn advance(&mut self) {
        match &self.phase {
            Phase::Founding if self.everybody_is_blank() => {
                for known in &mut self.known {
                    known.founder = known.announced.map_or(0, |(_, instance)| instance);
                }
                let generation = Generation { counter: 1, random: self.settings.generation_random };
                let leadership = Leadership { generation, term: Term(1) };
                self.fence(Target { leadership, leader: self.settings.node, founding: true });
            }
            Phase::Founding if self.somebody_has_state() => self.phase = Phase::Barred,
            Phase::Waiting if self.leads() => self.open_next_term(),
            Phase::Settled(target) if self.leads() && self.highest > target.leadership => {
                // Somebody promised a newer term than this one: only a newer one still will be followed.
                self.open_next_term();
            }
            Phase::Barred if !self.barred_told => {
                self.barred_told = true;
                let stateless = self.settings.stateless;
                self.outputs.push_back(Output::Event(Event::MayNotLead { stateless }));
            }
            _ => {}
        }
    }

    fn open_next_term(&mut self) {
        let base = self.highest.max(self.promised);
        let leadership = Leadership { term: Term(base.term.0 + 1), ..base };
        self.fence(Target { leadership, leader: self.settings.node, founding: false });
    }

    fn everybody_is_blank(&self) -> bool {
        self.settings.voters.iter().all(|voter| {
            *voter == self.settings.node
                || self
                    .index_of(*voter)
                    .is_some_and(|i| matches!(self.known[i].announced, Some((true, _))))
        })
    }

    fn somebody_has_state(&self) -> bool {
        self.known.iter().any(|known| matches!(known.announced, Some((false, _))))
    }

    fn fence(&mut self, target: Target) {
        self.phase = Phase::Fencing(target);
        self.outputs.push_back(Output::ToCore(ControlToCore::Fence(target.leadership)));
    }

    fn on_core(&mut self, fact: CoreToControl) {
        match fact {
            CoreToControl::Fenced { leadership, .. } => {
                if let Phase::Fencing(target) = self.phase
                    && target.leadership == leadership
                {
                    self.phase = Phase::Persisting(target);
                    let rung = self.rung(target);
                    let admitted = target.founding && self.blank;
                    let provisional = self.provisional && !admitted;
                    self.outputs.push_back(Output::Persist(Promise {
                        leadership,
                        vote: target.leader,
                        may_ack_memory: rung == Rung::Memory && !provisional,
                        admitted,
                    }));
                }
            }
            CoreToControl::LeadershipSeen { leadership, node } => {
                // Data says nothing of who sends it: it counts from nodes that control knows, and calls nobody. Only the
                // call says that its sender is of this group, and whether a blank node is one of the founders.
                if self.index_of(node).is_some_and(|index| self.known[index].present) {
                    self.highest = self.highest.max(leadership);
                }
            }
            CoreToControl::Entered { leadership, leads, tail } => {
                self.entered(leadership, leads, tail);
            }
            CoreToControl::StateHash { sequence, hash } => {
                let message = Message::StateHash { sequence, hash };
                self.broadcast(message);
                let own = self.settings.node;
                let comparison = self.hashes.hear(own, sequence, hash);
                self.judge(comparison, sequence);
            }
            CoreToControl::Event(event) => {
                for event in Event::of_core(event).into_iter().flatten() {
                    self.outputs.push_back(Output::Event(event));
                }
            }
            CoreToControl::Stopped { .. } => {}
        }
    }

    fn rung(&self, target: Target) -> Rung {
        if target.leader == self.settings.node {
            self.settings.durability.leader
        } else {
            self.settings.durability.follower
        }
    }

    fn entered(&mut self, leadership: Leadership, leads: bool, tail: Tail) {
        self.outputs.push_back(Output::Event(Event::RoleChange { leadership, leads, tail }));
        if !leads {
            let leader = self.settings.leader;
            self.send(leader, leadership, Message::Following);
        }
    }

    fn on_persisted(&mut self) {
        let Phase::Persisting(target) = self.phase else { return };
        self.promised = target.leadership;
        self.highest = self.highest.max(target.leadership);
        if target.founding && self.blank {
            self.provisional = false;
            self.outputs.push_back(Output::ToCore(ControlToCore::Admitted));
            let generation = target.leadership.generation;
            self.outputs.push_back(Output::Event(Event::Founded { generation }));
        }
        self.blank = false;
        let may = self.rung(target) == Rung::Memory && !self.provisional;
        self.outputs.push_back(Output::ToCore(ControlToCore::MayAckMemory(may)));
        let Target { leadership, leader, .. } = target;
        self.outputs.push_back(Output::ToCore(if leader == self.settings.node {
            ControlToCore::Lead(leadership)
        } else {
            ControlToCore::Follow { leadership, leader }
        }));
        self.phase = Phase::Settled(target);
        self.announce_at = Nanos(0);
    }

    fn on_message(&mut self, now: Nanos, envelope: Envelope) {
        let Some(index) = self.index_of(envelope.from) else { return };
        if envelope.from == self.settings.node {
            return; // listing oneself is fine
        }
        let known = &mut self.known[index];
        known.heard_at = Some(now);
        if !core::mem::replace(&mut known.present, true) {
            self.outputs.push_back(Output::Event(Event::Joined { node: envelope.from }));
        }
        self.highest = self.highest.max(envelope.leadership);
        match envelope.message {
            Message::Announce(announce) => {
                let heard = Some((announce.blank, announce.instance));
                let before = core::mem::replace(&mut self.known[index].announced, heard);
                // It does not follow, or no longer does (an earlier life of its process did): it is called again with
                // the next word.
                let reborn = before.is_some_and(|(_, instance)| instance != announce.instance);
                if reborn || envelope.leadership < self.promised || announce.blank {
                    self.known[index].following = None;
                }
                if reborn || before.is_none() {
                    self.announce_at = now; // it need not wait for what it does not know yet
                }
            }
            Message::Lead { founder } => {
                if envelope.from == self.settings.leader {
                    let founding = self.blank && founder == self.settings.instance;
                    self.called(envelope.leadership, envelope.from, founding);
                }
            }
            Message::Following => self.known[index].following = Some(envelope.leadership),
            Message::StateHash { sequence, hash } => {
                let comparison = self.hashes.hear(envelope.from, sequence, hash);
                self.judge(comparison, sequence);
            }
        }
    }

    /// The leader calls: fence, persist, follow. Called again for the leadership already entered, confirm.
    fn called(&mut self, leadership: Leadership, leader: NodeId, founding: bool) {
        if self.leads() || leadership < self.promised {
            return;
        }
        let target = Target { leadership, leader, founding };
        match self.phase {
            Phase::Settled(now) if now.leadership == leadership => {
                self.send(leader, leadership, Message::Following);
            }
            Phase::Fencing(now) | Phase::Persisting(now) if now.leadership >= leadership => {}
            _ => self.fence(target),
        }
    }

    fn judge(&mut self, comparison: Comparison, sequence: crate::types::Sequence) {
        let event = match comparison {
            Comparison::Open => return,
            Comparison::Minority { own, majority } => {
                Event::StateHashMismatch { sequence, own, majority }
            }
            Comparison::NoMajority => Event::NoMajorityState { sequence },
        };
        self.outputs.push_back(Output::Event(event));
        self.outputs.push_back(Output::Halt);
    }

    /// What is said at intervals: announcements, the leader's call, signs of life; and who has fallen silent.
    fn speak(&mut self, now: Nanos) {
        for index in 0..self.known.len() {
            let known = &mut self.known[index];
            if known.present && known.heard_at.is_some_and(|at| now.since(at) > LEFT_NS) {
                known.present = false;
                known.following = None;
                let node = self.settings.members[index];
                self.outputs.push_back(Output::Event(Event::Left { node }));
            }
        }
        if now < self.announce_at {
            return;
        }
        let mut next = SIGN_OF_LIFE_NS;
        if let Phase::Settled(target) = self.phase
            && self.leads()
        {
            for index in 0..self.known.len() {
                let node = self.settings.members[index];
                let follows = self.known[index].following == Some(target.leadership);
                if node != self.settings.node && !follows {
                    next = ANNOUNCE_NS;
                    let founder = if target.founding { self.known[index].founder } else { 0 };
                    let message = Message::Lead { founder };
                    self.send(node, target.leadership, message);
                }
            }
        } else if !matches!(self.phase, Phase::Settled(_)) {
            next = ANNOUNCE_NS;
        }
        let announce = Announce {
            blank: self.blank,
            provisional: self.provisional,
            instance: self.settings.instance,
        };
        self.broadcast(Message::Announce(announce));
        self.announce_at = now.plus(next);
    }

    fn broadcast(&mut self, message: Message) {
        for index in 0..self.settings.members.len() {
            let node = self.settings.members[index];
            if node != self.settings.node {
                self.send(node, self.promised, message);
            }
        }
    }

    fn send(&mut self, to: NodeId, leadership: Leadership, message: Message) {
        let from = self.settings.node;
        self.outputs.push_back(Output::Send(to, Envelope { from, leadership, message }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Recency;
    use crate::types::Durable;

    fn settings(node: u16, nodes: u16) -> FixedSettings {
        let members: Vec<_> = (0..nodes).map(NodeId).collect();
        FixedSettings {
            node: NodeId(node),
            voters: members.clone(),
            members,
            leader: NodeId(0),
            promised: Leadership::default(),
            stateless: true,
            provisional: true,
            durability: Durability { leader: Rung::Disk, follower: Rung::Memory },
            generation_random: 77,
            instance: u64::from(node) + 1,
        }
    }

    /// Runs machines against obedient cores and disks until nothing more happens; returns what each core was told.
    fn run(machines: &mut [FixedLeader], rounds: u64) -> Vec<Vec<ControlToCore>> {
        let mut told = vec![Vec::new(); machines.len()];
        for round in 0..rounds {
            let now = Nanos(round * ANNOUNCE_NS);
            for index in 0..machines.len() {
                machines[index].handle(now, Input::Tick);
                while let Some(output) = machines[index].poll() {
                    match output {
                        Output::ToCore(order) => {
                            told[index].push(order);
                            if let ControlToCore::Fence(leadership) = order {
                                let fenced = CoreToControl::Fenced {
                                    leadership,
                                    recency: Recency::default(),
                                    durable: Durable::default(),
                                };
                                machines[index].handle(now, Input::Core(fenced));
                            }
                        }
                        Output::Persist(_) => machines[index].handle(now, Input::Persisted),
                        Output::Send(to, envelope) => {
                            if let Some(machine) = machines.get_mut(to.0 as usize) {
                                machine.handle(now, Input::Message(envelope));
                            }
                        }
                        Output::Event(_) => {}
                        Output::Halt => panic!("halted"),
                    }
                }
            }
        }
        told
    }

    #[test]
    fn a_blank_group_is_founded_by_all_and_led_by_the_first() {
        let mut machines: Vec<_> = (0..3).map(|n| FixedLeader::new(settings(n, 3))).collect();
        let told = run(&mut machines, 10);
        let leadership =
            Leadership { generation: Generation { counter: 1, random: 77 }, term: Term(1) };
        assert!(told[0].contains(&ControlToCore::Lead(leadership)));
        for follower in &told[1..] {
            let follow = ControlToCore::Follow { leadership, leader: NodeId(0) };
            assert!(follower.contains(&follow), "{follower:?}");
            assert!(follower.contains(&ControlToCore::MayAckMemory(true)));
            let fence = follower.iter().position(|o| *o == ControlToCore::Fence(leadership));
            assert!(fence < follower.iter().position(|o| *o == follow), "fence first");
        }
        assert!(told[0].contains(&ControlToCore::MayAckMemory(false)), "the leader's rung is disk");
    }

    #[test]
    fn r11_listing_oneself_is_fine_and_one_node_alone_is_a_group() {
        let mut machines = [FixedLeader::new(settings(0, 1))];
        let told = run(&mut machines, 3);
        assert!(told[0].iter().any(|order| matches!(order, ControlToCore::Lead(_))));
    }

    #[test]
    fn blank_nodes_do_not_found_a_group_while_one_is_missing() {
        let mut machines: Vec<_> = (0..2).map(|n| FixedLeader::new(settings(n, 3))).collect();
        let told = run(&mut machines, 20);
        assert!(told.iter().all(Vec::is_empty), "{told:?}");
    }

    #[test]
    fn a_leader_whose_disk_was_wiped_does_not_lead_over_those_who_have_state() {
        let promised =
            Leadership { generation: Generation { counter: 1, random: 5 }, term: Term(4) };
        let mut machines: Vec<_> = (0..3).map(|n| settings(n, 3)).map(FixedLeader::new).collect();
        for machine in &mut machines[1..] {
            let mut with_state = machine.settings.clone();
            (with_state.promised, with_state.stateless, with_state.provisional) =
                (promised, false, false);
            *machine = FixedLeader::new(with_state);
        }
        let told = run(&mut machines, 20);
        assert!(told.iter().all(Vec::is_empty), "{told:?}");
    }

    #[test]
    fn d6_a_follower_wiped_after_the_founding_is_no_founder() {
        let mut machines: Vec<_> = (0..3).map(|n| FixedLeader::new(settings(n, 3))).collect();
        run(&mut machines, 10);
        let mut wiped = settings(2, 3);
        wiped.instance = 99;
        machines[2] = FixedLeader::new(wiped);
        let told = run(&mut machines, 30);
        assert!(told[2].iter().any(|order| matches!(order, ControlToCore::Follow { .. })));
        assert!(
            told[2].contains(&ControlToCore::MayAckMemory(false)),
            "it follows, but promises nothing"
        );
        assert!(!told[2].contains(&ControlToCore::Admitted));
    }

    #[test]
    fn data_that_overtakes_the_call_does_not_cost_a_founder_its_vote() {
        let mut machines: Vec<_> = (0..3).map(|n| FixedLeader::new(settings(n, 3))).collect();
        let leadership =
            Leadership { generation: Generation { counter: 1, random: 77 }, term: Term(1) };
        let seen = CoreToControl::LeadershipSeen { leadership, node: NodeId(0) };
        machines[2].handle(Nanos(0), Input::Core(seen));
        let told = run(&mut machines, 10);
        assert!(told[2].contains(&ControlToCore::Admitted), "{:?}", told[2]);
    }

    #[test]
    fn a_refused_node_is_forgotten_and_its_data_moves_nothing() {
        let mut machines: Vec<_> = (0..3).map(|n| FixedLeader::new(settings(n, 3))).collect();
        run(&mut machines, 10);
        let promised = machines[1].promised;
        let leadership = Leadership { term: Term(promised.term.0 + 1), ..promised };
        let seen = Input::Core(CoreToControl::LeadershipSeen { leadership, node: NodeId(0) });
        let machine = &mut machines[1];
        machine.handle(Nanos(0), Input::Refused(NodeId(0)));
        machine.handle(Nanos(0), seen);
        assert_eq!((machine.highest, machine.promised), (promised, promised));
        assert!(machine.present().all(|node| node != NodeId(0)));
        let fences = |output: &Output| matches!(output, Output::ToCore(_));
        assert!(!core::iter::from_fn(|| machine.poll()).any(|output| fences(&output)));
        // Let in again, it is followed when it calls.
        let message = Message::Lead { founder: 0 };
        let call = Input::Message(Envelope { from: NodeId(0), leadership, message });
        machine.handle(Nanos(1), call);
        let fence = Output::ToCore(ControlToCore::Fence(leadership));
        assert!(core::iter::from_fn(|| machine.poll()).any(|output| output == fence));
        machine.handle(Nanos(2), seen);
        assert_eq!(machine.highest, leadership);
    }

    #[test]
    fn a_leader_that_restarts_opens_a_term_above_everybody_elses() {
        let promised =
            Leadership { generation: Generation { counter: 1, random: 5 }, term: Term(4) };
        let mut machines: Vec<_> = (0..3)
            .map(|n| {
                let mut with_state = settings(n, 3);
                (with_state.promised, with_state.stateless, with_state.provisional) =
                    (promised, false, false);
                if n == 2 {
                    with_state.promised.term = Term(9);
                }
                FixedLeader::new(with_state)
            })
            .collect();
        let told = run(&mut machines, 30);
        let led = told[0].iter().filter_map(|order| match order {
            ControlToCore::Lead(leadership) => Some(leadership.term),
            _ => None,
        });
        assert_eq!(led.max(), Some(Term(10)));
        let followed = |order: &ControlToCore| match order {
            ControlToCore::Follow { leadership, .. } => leadership.term == Term(10),
            _ => false,
        };
        assert!(told[1..].iter().all(|orders| orders.iter().any(followed)), "{told:?}");
    }

    #[test]
    fn k2_a_follower_that_was_restarted_is_called_again_in_the_same_term() {
        let mut machines: Vec<_> = (0..3).map(|n| FixedLeader::new(settings(n, 3))).collect();
        run(&mut machines, 10);
        let leadership = machines[0].promised;
        machines[2] = FixedLeader::new(FixedSettings {
            promised: leadership,
            stateless: false,
            provisional: false,
            instance: 99,
            ..settings(2, 3)
        });
        let told = run(&mut machines, 30);
        let follow = ControlToCore::Follow { leadership, leader: NodeId(0) };
        assert!(told[2].contains(&follow), "{:?}", told[2]);
        assert!(!told[1].contains(&follow), "who follows already is left alone");
    }
}

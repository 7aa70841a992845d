//! A group of control machines on one thread: cores that obey, disks that keep, wires that can be cut, a clock moved by hand.

use super::{Election, ElectionSettings, Glance, Input, Member, Mutants, Output};
use crate::control::event::Event;
use crate::control::message::{Envelope, Message, Standing};
use crate::link::{ControlToCore, CoreEvent, CoreToControl, Durability, Promise, Recency, Rung};
use crate::types::{
    Durable, Generation, Incarnation, Leadership, Nanos, NodeId, Position, Tail, Term,
};

pub(crate) const TIMEOUT_NS: u64 = 150 * Nanos::MILLISECOND;
const STEP_NS: u64 = Nanos::MILLISECOND;

/// What the fake core of a node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Role {
    #[default]
    None,
    Leads(Leadership),
    Follows(Leadership, NodeId),
}

pub(crate) struct Node {
    pub(crate) machine: Election,
    pub(crate) settings: ElectionSettings,
    pub(crate) up: bool,
    /// Its process does not run, though it lives.
    pub(crate) paused: bool,
    pub(crate) role: Role,
    pub(crate) recency: Recency,
    pub(crate) told: Vec<ControlToCore>,
    pub(crate) events: Vec<Event>,
    pub(crate) pulls: Vec<NodeId>,
    /// Writes of its node state.
    pub(crate) writes: usize,
    heard: Nanos,
    echoes: Vec<Nanos>,
    since: Nanos,
}

/// A group.
pub(crate) struct Rig {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Nanos,
    /// From, to: nothing gets through.
    pub(crate) cut: Vec<(usize, usize)>,
    flying: Vec<(Nanos, usize, Envelope)>,
    /// Everything that was ever sent, for those who look.
    pub(crate) sent: Vec<(NodeId, Envelope)>,
    pub(crate) leaders: Vec<(Leadership, NodeId)>,
}

pub(crate) fn leadership(term: u32) -> Leadership {
    Leadership { generation: Generation { counter: 1, random: 5 }, term: Term(term) }
}

pub(crate) fn recency(term: u32, tail: u64) -> Recency {
    Recency { last: leadership(term), tail: Tail(Position(tail)) }
}

/// Settings of a node of a new group.
pub(crate) fn settings(node: u16, priorities: &[u8]) -> ElectionSettings {
    let member = |(n, &priority)| Member { node: NodeId(n as u16), voter: true, priority };
    ElectionSettings {
        node: NodeId(node),
        members: priorities.iter().enumerate().map(member).collect(),
        promised: Leadership::default(),
        vote: None,
        standing: Standing::Stateless,
        won_founding: false,
        may_ack_memory: false,
        incarnation: Incarnation(u32::from(node) + 100),
        durability: Durability { leader: Rung::Disk, follower: Rung::Memory },
        leader_timeout_ns: TIMEOUT_NS,
        start_wait_ns: 5 * Nanos::SECOND,
        generation_random: 77 + u32::from(node),
        instance: u64::from(node) + 1,
        seed: u64::from(node) + 3,
        mutants: Mutants::NONE,
    }
}

/// Settings of a member of a group that has lived, with a log to `tail`.
pub(crate) fn member(node: u16, priorities: &[u8], promised: u32) -> ElectionSettings {
    ElectionSettings {
        promised: leadership(promised),
        standing: Standing::Clean,
        may_ack_memory: true,
        ..settings(node, priorities)
    }
}

impl Rig {
    pub(crate) fn new(settings: impl IntoIterator<Item = ElectionSettings>) -> Self {
        let nodes = settings.into_iter().map(Node::new).collect();
        let now = Nanos(10 * Nanos::SECOND);
        let (cut, flying) = (Vec::new(), Vec::new());
        Self { nodes, now, cut, flying, sent: Vec::new(), leaders: Vec::new() }
    }

    /// A blank group of these priorities.
    pub(crate) fn blank(priorities: &[u8]) -> Self {
        Self::new((0..priorities.len()).map(|node| settings(node as u16, priorities)))
    }

    /// A group that has been led in term 1, with equal logs, all just started.
    pub(crate) fn lived(priorities: &[u8]) -> Self {
        let mut rig = Self::new((0..priorities.len()).map(|n| member(n as u16, priorities, 1)));
        for node in &mut rig.nodes {
            node.recency = recency(1, 64);
        }
        rig
    }

    /// Lets time pass, a millisecond at a time.
    pub(crate) fn run(&mut self, milliseconds: u64) {
        self.until(milliseconds, |_| false);
    }

    /// The same, until something is so; returns after how many milliseconds.
    pub(crate) fn until(
        &mut self,
        milliseconds: u64,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Option<u64> {
        for passed in 0..milliseconds {
            if done(self) {
                return Some(passed);
            }
            self.step();
        }
        done(self).then_some(milliseconds)
    }

    /// Who leads with a quorum, as its core sees it.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| match node.role {
            Role::Leads(leadership) if node.up && !node.paused => Some(leadership),
            _ => None,
        };
        let best = self.nodes.iter().enumerate().filter_map(|(i, n)| Some((leads(n)?, i))).max();
        best.map(|(_, index)| index)
    }

    /// Everybody who is up follows the leader.
    pub(crate) fn settled(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let Role::Leads(term) = self.nodes[leader].role else { return false };
        let leader = self.nodes[leader].settings.node;
        self.nodes
            .iter()
            .filter(|node| node.up)
            .all(|node| node.role == Role::Leads(term) || node.role == Role::Follows(term, leader))
    }

    pub(crate) fn settle(&mut self) -> usize {
        assert!(self.until(8000, Self::settled).is_some(), "nobody leads all");
        self.leader().expect("settled")
    }

    /// The process ends; what is on its disk and in its log stays.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.nodes[node].role = Role::None;
    }

    pub(crate) fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.settings.instance += 100;
        node.machine = Election::new(node.settings.clone());
        (node.up, node.role) = (true, Role::None);
    }

    /// No datagram passes between the two sides.
    pub(crate) fn partition(&mut self, one: &[usize], other: &[usize]) {
        for &a in one {
            for &b in other {
                self.cut.extend([(a, b), (b, a)]);
            }
        }
    }

    fn passes(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to)) && self.nodes[from].up && self.nodes[to].up
    }

    pub(crate) fn step(&mut self) {
        self.now = self.now.plus(STEP_NS);
        let now = self.now;
        self.beat();
        let (due, rest): (Vec<_>, Vec<_>) = self.flying.drain(..).partition(|m| m.0 <= now);
        self.flying = rest;
        for (_, to, envelope) in due {
            if self.nodes[to].paused {
                self.flying.push((now, to, envelope));
            } else if self.passes(envelope.from.0 as usize, to) {
                self.nodes[to].machine.handle(now, Input::Message(envelope));
                self.obey(to);
            }
        }
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if node.up && !node.paused {
                let glance = Glance { heard: node.heard, recency: node.recency };
                node.machine.handle(now, Input::Glance(glance));
                self.obey(index);
            }
        }
    }

    /// What cores do: heartbeats with echoes, and the end of a leadership without them.
    fn beat(&mut self) {
        for leader in 0..self.nodes.len() {
            let Role::Leads(term) = self.nodes[leader].role else { continue };
            if !self.nodes[leader].up || self.nodes[leader].paused {
                continue;
            }
            for other in 0..self.nodes.len() {
                let id = self.nodes[leader].settings.node;
                let follows = self.nodes[other].role == Role::Follows(term, id);
                if !follows || self.nodes[other].paused || !self.passes(leader, other) {
                    continue;
                }
                let recency = self.nodes[leader].recency;
                let node = &mut self.nodes[other];
                (node.heard, node.recency) = (self.now, recency);
                if self.passes(other, leader) {
                    self.nodes[leader].echoes[other] = self.now;
                }
            }
            let node = &mut self.nodes[leader];
            let oldest = Nanos(self.now.0 - TIMEOUT_NS);
            let heard = node.echoes.iter().filter(|at| **at >= oldest).count() + 1;
            if heard < node.settings.quorum() && self.now.since(node.since) > TIMEOUT_NS {
                node.role = Role::None;
                let fact = CoreToControl::Event(CoreEvent::Quorum { present: false });
                node.machine.handle(self.now, Input::Core(fact));
                self.obey(leader);
            }
        }
    }

    /// Does what a machine wants.
    pub(crate) fn obey(&mut self, index: usize) {
        let now = self.now;
        while let Some(output) = self.nodes[index].machine.poll() {
            let node = &mut self.nodes[index];
            match output {
                Output::ToCore(order) => {
                    node.told.push(order);
                    let led = node.obey(order, now);
                    self.leaders.extend(led.map(|leadership| (leadership, node.settings.node)));
                }
                Output::Persist(promise) => {
                    node.writes += 1;
                    node.keep(promise);
                    node.machine.handle(now, Input::Persisted);
                }
                Output::Send(to, envelope) => {
                    self.sent.push((to, envelope));
                    let at = now.plus(STEP_NS / 2);
                    self.flying.push((at, to.0 as usize, envelope));
                }
                Output::Pull { from, .. } => {
                    node.pulls.push(from);
                    let recency = self.nodes[from.0 as usize].recency;
                    let node = &mut self.nodes[index];
                    node.recency = recency;
                    node.machine.handle(now, Input::Glance(Glance { heard: node.heard, recency }));
                    node.machine.handle(now, Input::Pulled(true));
                }
                Output::Event(event) => node.events.push(event),
                Output::Halt => panic!("halted"),
            }
        }
    }

    /// Gives a machine a message that nobody of the rig sent.
    pub(crate) fn deliver(&mut self, to: usize, from: u16, term: u32, message: Message) {
        let envelope = Envelope { from: NodeId(from), leadership: leadership(term), message };
        self.nodes[to].machine.handle(self.now, Input::Message(envelope));
        self.obey(to);
    }
}

impl Node {
    fn new(settings: ElectionSettings) -> Self {
        Self {
            machine: Election::new(settings.clone()),
            up: true,
            paused: false,
            role: Role::None,
            recency: Recency::default(),
            told: Vec::new(),
            events: Vec::new(),
            pulls: Vec::new(),
            writes: 0,
            heard: Nanos(0),
            echoes: vec![Nanos(0); settings.members.len()],
            since: Nanos(0),
            settings,
        }
    }

    /// What the node state keeps.
    fn keep(&mut self, promise: Promise) {
        let settings = &mut self.settings;
        assert!(promise.leadership >= settings.promised, "promises never go back");
        if promise.leadership == settings.promised && settings.vote.is_some() {
            assert_eq!(promise.vote, settings.vote, "one vote in one term");
        }
        let settled = promise.leadership == settings.promised && promise.readmitted.is_none();
        settings.won_founding =
            if promise.admitted { promise.founding } else { settings.won_founding && settled };
        (settings.promised, settings.vote) = (promise.leadership, promise.vote);
        settings.may_ack_memory |= promise.may_ack_memory;
        if promise.admitted || promise.readmitted.is_some() {
            settings.standing = Standing::Clean;
        }
    }

    fn obey(&mut self, order: ControlToCore, now: Nanos) -> Option<Leadership> {
        match order {
            ControlToCore::Fence(leadership) => {
                self.role = Role::None;
                let durable = Durable(self.recency.tail.0);
                let fact = CoreToControl::Fenced { leadership, recency: self.recency, durable };
                self.machine.handle(now, Input::Core(fact));
            }
            ControlToCore::Lead(leadership) => {
                self.role = Role::Leads(leadership);
                self.since = now;
                self.echoes.fill(Nanos(0));
                let tail = Tail(self.recency.tail.0.plus(64));
                self.recency = Recency { last: leadership, tail };
                let fact = CoreToControl::Entered { leadership, leads: true, tail };
                self.machine.handle(now, Input::Core(fact));
                return Some(leadership);
            }
            ControlToCore::Follow { leadership, leader } => {
                self.role = Role::Follows(leadership, leader);
                let tail = self.recency.tail;
                let fact = CoreToControl::Entered { leadership, leads: false, tail };
                self.machine.handle(now, Input::Core(fact));
            }
            ControlToCore::HandOver { to } => {
                let fact = CoreToControl::HandOver { to, behind: None };
                self.machine.handle(now, Input::Core(fact));
            }
            _ => {}
        }
        None
    }
}

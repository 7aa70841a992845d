//! A group of shipped control machines and node states over small cores, every schedule of which can be explored.
//!
//! Messages are monotone facts: what was once sent may arrive at any later time, any number of times, or never. That is
//! loss, delay, reordering and duplication. Control and core are separate steps, joined by their mailbox; a write of the
//! node state is a step of its own where the case asks for it. The canvass is left out: it binds nobody, and nodes stand
//! whenever they like. Positions count entries.

use std::collections::VecDeque;

use quorate::control::election::{
    Election, ElectionSettings, Glance, Input, Member, Mutants, Output,
};
use quorate::control::message::{Envelope, Message, Standing};
use quorate::journal::node_state::{BootId, NodeState, StartDecision, StartInput};
use quorate::link::{ControlToCore, CoreToControl, Durability, Promise, Recency, Rung};
use quorate::replica::quorum::{LeaderSide, Progress, commit_position};
use quorate::types::{
    Commit, Durable, Generation, GroupId, Incarnation, Leadership, Nanos, NodeId, Position, Tail,
    Term,
};

use crate::explore::{Model, Part, fingerprint};

const NODES_MAX: usize = 5;
const TERMS_MAX: usize = 5;
const ENTRIES_MAX: usize = 6;
const NOW: Nanos = Nanos(Nanos::SECOND);

/// What is explored, and within which bounds.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a choice of its own
pub(crate) struct Group {
    pub(crate) nodes: usize,
    pub(crate) terms: u32,
    pub(crate) entries: u8,
    /// Processes that end and come back: the hot tier stays.
    pub(crate) process_crashes: u8,
    /// Machines that do: what was only in memory goes.
    pub(crate) machine_crashes: u8,
    pub(crate) wipes: u8,
    /// Blank nodes, before the founding. Otherwise node 0 leads term 1.
    pub(crate) founding: bool,
    /// What is in the log gets to the disk in a step of its own.
    pub(crate) syncs: bool,
    /// So does the node state.
    pub(crate) writes: bool,
    /// It begins with an entry that was committed and then lost by one of those who had acknowledged it.
    pub(crate) forgotten: bool,
    /// Control looks at the core's positions at any time.
    pub(crate) glances: bool,
    /// Orders to hand the lead over. Its core reports at once that the target has everything, and takes commands on: whatever
    /// a real one does, and more.
    pub(crate) hand_overs: u8,
    pub(crate) mutants: Mutants,
    /// Rules of the core taken out.
    pub(crate) core: CoreRules,
}

/// Rules of the core that the small core keeps, and that can be taken out.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a rule of its own
pub(crate) struct CoreRules {
    /// An entry of an older term is not committed by counting.
    pub(crate) own_term_commit: bool,
    /// After the fence nothing older is taken.
    pub(crate) fence: bool,
    /// A node without state does not count.
    pub(crate) stateless_counts_not: bool,
    /// Readmission waits for what the node lacked, on its disk.
    pub(crate) readmission_waits: bool,
}

impl CoreRules {
    pub(crate) const ALL: Self = Self {
        own_term_commit: true,
        fence: true,
        stateless_counts_not: true,
        readmission_waits: true,
    };
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Log {
    terms: [u8; ENTRIES_MAX],
    length: u8,
}

impl Log {
    fn push(&mut self, term: u8) {
        self.terms[self.length as usize] = term;
        self.length += 1;
    }
    fn upto(self, length: u8) -> Self {
        let mut log = self;
        log.length = log.length.min(length);
        log.terms[log.length as usize..].fill(0);
        log
    }
    fn common(self, other: Self) -> u8 {
        let length = self.length.min(other.length);
        (0..length).take_while(|&at| self.terms[at as usize] == other.terms[at as usize]).count()
            as u8
    }
    fn last(self) -> u8 {
        self.length.checked_sub(1).map_or(0, |at| self.terms[at as usize])
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Role {
    #[default]
    None,
    Leads,
    Follows(u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Rejoin {
    incarnation: Incarnation,
    needed: u8,
}

/// What a core is: of one term, like the shipped one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Core {
    fence: Leadership,
    role: Role,
    entered: bool,
    log: Log,
    durable: u8,
    commit: u8,
    opened: u8,
    provisional: bool,
    may_ack: bool,
    others: [Progress; NODES_MAX],
    rejoins: [Option<Rejoin>; NODES_MAX],
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Node {
    machine: Election,
    core: Core,
    orders: VecDeque<ControlToCore>,
    disk: NodeState,
    /// Being written.
    writing: Option<Promise>,
    life: u64,
}

/// What exists about one term.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Reign {
    leader: Option<u16>,
    log: Log,
    /// By node, what it said of itself, a status for each of its lives.
    statuses: [Vec<Progress>; NODES_MAX],
}

#[derive(Clone, Hash, Debug)]
pub(crate) struct State {
    nodes: Vec<Part<Node>>,
    /// Sorted by fingerprint, so that equal sets are equal.
    messages: Part<Vec<(u64, usize, Envelope)>>,
    terms: [Part<Reign>; TERMS_MAX],
    committed: Log,
    /// By entry, the lowest term in which it was committed.
    committed_in: [u8; ENTRIES_MAX],
    crashes: [u8; 3],
    hand_overs: u8,
    bad: Option<&'static str>,
}

#[derive(Clone, Debug)]
#[allow(dead_code)] // read by people, in a schedule
pub(crate) enum Step {
    Stand { node: usize },
    HandOver { leader: usize, to: usize },
    Deliver { to: usize, envelope: Envelope },
    CoreObeys { node: usize, order: ControlToCore },
    Written { node: usize },
    Glance { node: usize },
    Propose { leader: usize },
    Receive { node: usize, upto: u8 },
    Synced { node: usize },
    Status { leader: usize, of: usize },
    Commit { leader: usize },
    Readmits { leader: usize, node: usize },
    ProcessCrash { node: usize },
    MachineCrash { node: usize },
    Wipe { node: usize },
}

fn leadership(term: u32) -> Leadership {
    if term == 0 {
        return Leadership::default();
    }
    Leadership { generation: Generation { counter: 1, random: 1 }, term: Term(term) }
}

fn position(entries: u8) -> Position {
    Position(u64::from(entries))
}

impl Group {
    pub(crate) const THREE: Self = Self {
        nodes: 3,
        terms: 2,
        entries: 2,
        process_crashes: 0,
        machine_crashes: 0,
        wipes: 0,
        founding: false,
        syncs: false,
        writes: false,
        forgotten: false,
        glances: false,
        hand_overs: 0,
        mutants: Mutants::NONE,
        core: CoreRules::ALL,
    };

    fn machine(&self, node: usize, disk: &NodeState, stateless: bool, life: u64) -> Election {
        let member = |n| Member { node: NodeId(n as u16), voter: true, priority: 1 };
        let mut machine = Election::new(ElectionSettings {
            node: NodeId(node as u16),
            members: (0..self.nodes).map(member).collect(),
            promised: disk.leadership,
            vote: disk.vote,
            standing: match (stateless, disk.provisional) {
                (true, _) => Standing::Stateless,
                (false, true) => Standing::Provisional,
                (false, false) => Standing::Clean,
            },
            won_founding: disk.won_founding,
            may_ack_memory: disk.may_ack_memory,
            incarnation: disk.incarnation,
            durability: Durability { leader: Rung::Disk, follower: Rung::Memory },
            leader_timeout_ns: Nanos::SECOND,
            start_wait_ns: 0,
            generation_random: 1,
            instance: 1 + node as u64 + 10 * life,
            seed: 1,
            mutants: self.mutants,
        });
        machine.fold();
        machine
    }

    /// A process starts over what is on the disk and in the log.
    fn start(&self, node: usize, decision: StartDecision, log: Log, life: u64) -> Node {
        let disk = decision.state;
        let core = Core {
            fence: disk.leadership,
            role: Role::None,
            entered: false,
            log,
            durable: log.length,
            commit: 0,
            opened: 0,
            provisional: disk.provisional,
            may_ack: false,
            others: core::array::from_fn(|n| Progress {
                voter: n != node && n < self.nodes,
                ..Progress::default()
            }),
            rejoins: [None; NODES_MAX],
        };
        let machine = self.machine(node, &disk, decision.stateless, life);
        Node { machine, core, orders: VecDeque::new(), disk, writing: None, life }
    }

    fn blank(node: usize, wipes: u8) -> StartDecision {
        let input = input(1, Incarnation(10 * u32::from(wipes) + node as u32));
        NodeState::start(None, GroupId(1), NodeId(node as u16), input)
    }

    /// Gives an input to a machine, and does what it wants.
    fn feed(&self, state: &mut State, node: usize, input: Input) {
        state.nodes[node].machine.handle(NOW, input);
        self.obey(state, node);
    }

    fn obey(&self, state: &mut State, node: usize) {
        while let Some(output) = state.nodes[node].machine.poll() {
            match output {
                Output::ToCore(order) => state.nodes[node].orders.push_back(order),
                Output::Persist(promise) if self.writes => {
                    state.nodes[node].writing = Some(promise);
                }
                Output::Persist(promise) => {
                    state.nodes[node].write(promise);
                    state.nodes[node].machine.handle(NOW, Input::Persisted);
                }
                Output::Send(to, envelope) => state.send(to.0 as usize, envelope),
                Output::Pull { .. } | Output::Event(_) => {}
                Output::Halt => state.bad = Some("a machine halted"),
            }
        }
        state.nodes[node].machine.fold();
    }

    /// The core takes its next order.
    fn core_obeys(&self, state: &mut State, node: usize) -> Option<ControlToCore> {
        let order = state.nodes[node].orders.pop_front()?;
        let core = &mut state.nodes[node].core;
        match order {
            ControlToCore::Fence(leadership) => {
                if leadership > core.fence {
                    (core.fence, core.role, core.entered) = (leadership, Role::None, false);
                }
                let fact = CoreToControl::Fenced {
                    leadership: core.fence,
                    recency: core.recency(),
                    durable: Durable(position(core.durable)),
                };
                self.feed(state, node, Input::Core(fact));
            }
            ControlToCore::Lead(leadership) if leadership == core.fence => {
                self.lead(state, node);
            }
            ControlToCore::Follow { leadership, leader } if leadership == core.fence => {
                (core.role, core.entered) = (Role::Follows(leader.0), false);
            }
            ControlToCore::MayAckMemory(may) => core.may_ack = may,
            ControlToCore::HandOver { to } if core.role == Role::Leads => {
                let fact = CoreToControl::HandOver { to, behind: None };
                self.feed(state, node, Input::Core(fact));
            }
            ControlToCore::Admitted => core.provisional = false,
            _ => {}
        }
        Some(order)
    }

    fn lead(&self, state: &mut State, node: usize) {
        let core = &mut state.nodes[node].core;
        let term = core.fence.term.0;
        let reign = &mut state.terms[term as usize];
        if reign.leader.is_some_and(|leader| leader as usize != node) {
            state.bad = Some("two leaders in one term");
        }
        reign.leader = Some(node as u16);
        let before = |at: &u8| u32::from(state.committed_in[*at as usize]) < term;
        let must = (0..state.committed.length).filter(before).map(|at| at + 1).max().unwrap_or(0);
        if core.log.common(state.committed) < must {
            state.bad = Some("a leader lacks a committed entry");
        }
        core.role = Role::Leads;
        core.others.iter_mut().for_each(|other| {
            *other = Progress { voter: other.voter, ..Progress::default() };
        });
        core.rejoins = [None; NODES_MAX];
        if core.log.length < ENTRIES_MAX as u8 {
            core.log.push(term as u8);
        }
        core.opened = core.log.length;
        if !self.syncs {
            core.durable = core.log.length;
        }
        reign.log = core.log;
    }

    /// The core of a follower takes its leader's log up to `upto`, and says how far it is.
    fn receive(&self, state: &mut State, node: usize, upto: u8) -> bool {
        let core = &mut state.nodes[node].core;
        let term = core.fence.term.0 as usize;
        let Role::Follows(leader) = core.role else { return false };
        let reign = &state.terms[term];
        if reign.leader != Some(leader) || upto > reign.log.length {
            return false;
        }
        if core.entered && upto <= core.log.length {
            return false;
        }
        let same = core.log.common(reign.log);
        core.log = reign.log.upto(upto.max(same));
        core.durable = core.durable.min(same);
        core.entered = true;
        if !self.syncs {
            core.durable = core.log.length;
        }
        state.say_status(node);
        true
    }

    /// What the mutant core does: it takes, after its fence, what an older leader published.
    fn receive_old(&self, state: &mut State, node: usize, term: usize) -> bool {
        let fence = state.nodes[node].core.fence.term.0 as usize;
        let reign = &state.terms[term];
        let core = &mut state.nodes[node].core;
        if self.core.fence
            || term >= fence
            || reign.leader.is_none_or(|l| l as usize == node)
            || core.role == Role::Leads
        {
            return false;
        }
        let same = core.log.common(reign.log);
        if same != core.log.length || reign.log.length == same {
            return false;
        }
        core.log = reign.log;
        core.durable = core.log.length;
        let progress = Progress {
            voter: true,
            incarnation: state.nodes[node].disk.incarnation,
            verified: position(reign.log.length),
            durable: position(reign.log.length),
            promised: position(reign.log.length),
            ..Progress::default()
        };
        state.terms[term].statuses[node] = vec![progress];
        true
    }

    fn status(&self, state: &mut State, leader: usize, of: usize, which: usize) {
        let core = &mut state.nodes[leader].core;
        let mut progress = state.terms[core.fence.term.0 as usize].statuses[of][which];
        if !self.core.stateless_counts_not {
            progress.stateless = false;
        }
        if !core.others[of].update(progress) {
            return;
        }
        core.rejoins[of] = match core.rejoins[of] {
            _ if !progress.provisional => None,
            Some(known) if known.incarnation == progress.incarnation => Some(known),
            _ => Some(Rejoin { incarnation: progress.incarnation, needed: core.log.length }),
        };
    }

    fn commit(&self, state: &mut State, node: usize) -> bool {
        let core = &state.nodes[node].core;
        if core.role != Role::Leads {
            return false;
        }
        let opened = if self.core.own_term_commit { core.opened } else { 0 };
        let side = LeaderSide {
            promised: position(core.durable),
            term_opened: position(opened),
            followers: Rung::Memory,
        };
        let before = Commit(position(core.commit));
        let others = &core.others[..self.nodes];
        let Some(commit) = commit_position(side, others, self.nodes, before) else { return false };
        let length = commit.0.0 as u8;
        let (now, term) = (core.log.upto(length), core.fence.term.0 as u8);
        state.nodes[node].core.commit = length;
        if now.common(state.committed) < now.length.min(state.committed.length) {
            state.bad = Some("two committed histories");
        }
        for first in &mut state.committed_in[..length as usize] {
            *first = if *first == 0 { term } else { term.min(*first) };
        }
        if now.length > state.committed.length {
            state.committed = now;
        }
        true
    }

    fn readmits(&self, state: &mut State, leader: usize, node: usize) -> bool {
        let core = &state.nodes[leader].core;
        let Some(Rejoin { incarnation, needed }) = core.rejoins[node] else { return false };
        let held = core.others[node].durable >= position(needed) && core.commit > needed;
        if core.role != Role::Leads || (self.core.readmission_waits && !held) {
            return false;
        }
        let node = NodeId(node as u16);
        let fact = CoreToControl::Readmit { node, incarnation, needed: position(needed) };
        self.feed(state, leader, Input::Core(fact));
        true
    }

    fn crash(&self, state: &mut State, node: usize, kind: usize) {
        state.crashes[kind] += 1;
        let before = &state.nodes[node];
        let life = before.life + 1;
        let (boot, log) = match kind {
            0 => (before.disk.boot_id.0[0], before.core.log),
            _ => (before.disk.boot_id.0[0] + 1, before.core.log.upto(before.core.durable)),
        };
        let id = NodeId(node as u16);
        let mut after = if kind == 2 {
            self.start(node, Self::blank(node, state.crashes[2]), Log::default(), life)
        } else {
            let input = input(boot, Incarnation(0));
            let decision = NodeState::start(Some(&before.disk), GroupId(1), id, input);
            self.start(node, decision, log, life)
        };
        // What the process had in memory survives its end, and is not on the disk for that.
        if kind == 0 {
            after.core.durable = before.core.durable;
        }
        state.nodes[node] = Part::new(after);
    }
}

fn input(boot: u8, first_incarnation: Incarnation) -> StartInput {
    let boot_id = BootId([boot; 16]);
    StartInput { boot_id, hot_tier_id: 1, hot_whole: true, promise_lost: false, first_incarnation }
}

impl Core {
    fn recency(&self) -> Recency {
        let last = leadership(u32::from(self.log.last()));
        Recency { last, tail: Tail(position(self.log.length)) }
    }
}

impl Node {
    /// What the shell writes, as the shell does it. A planted bug may want what the node state refuses: then it is forced.
    fn write(&mut self, promise: Promise) {
        let durable = Durable(position(self.core.durable));
        let mut next = self.disk.clone();
        if next.keep(&promise, durable).is_err() {
            (next.leadership, next.vote) = (promise.leadership, promise.vote);
            next.provisional &= promise.readmitted.is_none();
        }
        self.disk = next;
    }
}

impl State {
    fn send(&mut self, to: usize, envelope: Envelope) {
        let matters = match envelope.message {
            Message::Lead { .. }
            | Message::VoteRequest { .. }
            | Message::Readmit { .. }
            | Message::Reserve { .. }
            | Message::Reserved { .. }
            | Message::Stand
            | Message::Founded => true,
            Message::Vote { granted, .. } => granted,
            _ => false,
        };
        let key = fingerprint(&(to, envelope));
        if matters && let Err(at) = self.messages.binary_search_by_key(&key, |(key, ..)| *key) {
            self.messages.insert(at, (key, to, envelope));
        }
    }

    /// A follower's status: one for each of its lives.
    fn say_status(&mut self, node: usize) {
        let Node { core, disk, machine, .. } = &*self.nodes[node];
        let Role::Follows(_) = core.role else { return };
        if !core.entered {
            return;
        }
        let promised =
            if core.may_ack && !core.provisional { core.log.length } else { core.durable };
        let progress = Progress {
            voter: true,
            incarnation: disk.incarnation,
            verified: position(core.log.length),
            durable: position(core.durable),
            promised: position(promised),
            provisional: core.provisional,
            stateless: core.provisional && machine.standing() == Standing::Stateless,
            echo: Nanos(0),
        };
        let said = &mut self.terms[core.fence.term.0 as usize].statuses[node];
        match said.iter_mut().find(|known| known.incarnation == progress.incarnation) {
            Some(known) => *known = progress,
            None => said.push(progress),
        }
    }
}

impl Model for Group {
    type State = State;
    type Step = Step;

    fn begin(&self) -> State {
        let mut state = State {
            nodes: (0..self.nodes)
                .map(|node| Part::new(self.start(node, Self::blank(node, 0), Log::default(), 0)))
                .collect(),
            messages: Part::new(Vec::new()),
            terms: core::array::from_fn(|_| Part::new(Reign::default())),
            committed: Log::default(),
            committed_in: [0; ENTRIES_MAX],
            crashes: [0; 3],
            hand_overs: 0,
            bad: None,
        };
        if !self.founding {
            self.found(&mut state);
        }
        state
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut steps = Vec::new();
        let mut try_step = |step: Step, act: &dyn Fn(&mut State) -> bool| {
            let mut after = state.clone();
            if act(&mut after) {
                steps.push((step, after));
            }
        };
        for (_, to, envelope) in state.messages.iter() {
            let (to, envelope) = (*to, *envelope);
            try_step(Step::Deliver { to, envelope }, &|s| {
                self.feed(s, to, Input::Message(envelope));
                s.nodes[to].machine != state.nodes[to].machine
                    || s.messages.len() != state.messages.len()
            });
        }
        for node in 0..self.nodes {
            self.steps_of_control(state, node, &mut try_step);
            self.steps_of_core(state, node, &mut try_step);
            self.steps_of_leader(state, node, &mut try_step);
        }
        steps
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        state.bad
    }
}

type Try<'a> = dyn FnMut(Step, &dyn Fn(&mut State) -> bool) + 'a;

impl Group {
    /// Drives the group to where node 0 leads term 1 and everybody holds its first entry.
    fn found(&self, state: &mut State) {
        let group = Self { syncs: false, writes: false, mutants: Mutants::NONE, ..*self };
        for node in &mut state.nodes {
            node.machine.plant(Mutants::NONE);
        }
        state.nodes[0].machine.stand_at_once();
        group.obey(state, 0);
        for _ in 0..20 {
            let messages = state.messages.clone();
            for &(_, to, envelope) in messages.iter() {
                group.feed(state, to, Input::Message(envelope));
            }
            for node in 0..self.nodes {
                while group.core_obeys(state, node).is_some() {}
                if group.receive(state, node, 1) {
                    state.nodes[node].core.durable = 1;
                }
                state.say_status(node);
            }
        }
        state.nodes[0].core.durable = 1;
        for node in 1..self.nodes {
            self.status(state, 0, node, 0);
        }
        assert!(self.commit(state, 0), "the term's own entry is committed");
        assert!(state.nodes.iter().all(|node| node.machine.standing() == Standing::Clean));
        for node in &mut state.nodes {
            node.machine.plant(self.mutants);
        }
        // Of the founding only the leader's call matters any more: who forgot follows again.
        state.messages.retain(|(.., envelope)| matches!(envelope.message, Message::Lead { .. }));
        for node in 0..self.nodes {
            state.nodes[node].machine.forget_founders();
        }
        if self.forgotten {
            self.forget(state);
        }
    }

    /// An entry is committed by the smallest quorum, and the machine of node 1 goes down before it is on its disk there.
    fn forget(&self, state: &mut State) {
        let leader = &mut state.nodes[0].core;
        leader.log.push(1);
        leader.durable = 2;
        state.terms[1].log = leader.log;
        assert!(self.syncs, "memory and disk are two things here");
        for node in 1..=self.nodes / 2 {
            assert!(self.receive(state, node, 2));
            self.status(state, 0, node, 0);
        }
        assert!(self.commit(state, 0) && state.committed.length == 2);
        self.crash(state, 1, 1);
        state.crashes = [0; 3];
    }

    fn steps_of_control(&self, state: &State, node: usize, try_step: &mut Try<'_>) {
        let own = &state.nodes[node];
        if own.machine.promised().term.0 < self.terms && own.orders.is_empty() {
            try_step(Step::Stand { node }, &|s| {
                s.nodes[node].machine.stand_at_once();
                self.obey(s, node);
                let fence = s.nodes[node].orders.back();
                matches!(fence, Some(ControlToCore::Fence(l)) if l.term.0 <= self.terms)
            });
        }
        let term = own.machine.promised().term.0;
        if state.hand_overs < self.hand_overs && term < self.terms && own.machine.leads() {
            for to in (0..self.nodes).filter(|to| *to != node) {
                try_step(Step::HandOver { leader: node, to }, &|s| {
                    s.hand_overs += 1;
                    let begun = s.nodes[node].machine.hand_over_at_once(NOW, NodeId(to as u16));
                    self.obey(s, node);
                    begun
                });
            }
        }
        if let Some(order) = own.orders.front() {
            try_step(Step::CoreObeys { node, order: *order }, &|s| {
                while self.core_obeys(s, node).is_some() {}
                s.say_status(node);
                true
            });
        }
        if let Some(promise) = own.writing {
            try_step(Step::Written { node }, &|s| {
                s.nodes[node].writing = None;
                s.nodes[node].write(promise);
                self.feed(s, node, Input::Persisted);
                true
            });
        }
        if self.glances {
            try_step(Step::Glance { node }, &|s| {
                let recency = s.nodes[node].core.recency();
                self.feed(s, node, Input::Glance(Glance { heard: Nanos(0), recency }));
                s.nodes[node].machine != own.machine
            });
        }
        let allowed = [self.process_crashes, self.machine_crashes, self.wipes];
        let crashes =
            [Step::ProcessCrash { node }, Step::MachineCrash { node }, Step::Wipe { node }];
        for (kind, step) in crashes.into_iter().enumerate() {
            if state.crashes[kind] < allowed[kind] {
                try_step(step, &|s| {
                    self.crash(s, node, kind);
                    true
                });
            }
        }
    }

    fn steps_of_core(&self, state: &State, node: usize, try_step: &mut Try<'_>) {
        let core = &state.nodes[node].core;
        let longest = state.terms[core.fence.term.0 as usize].log.length;
        for upto in 1..=longest {
            try_step(Step::Receive { node, upto }, &|s| self.receive(s, node, upto));
        }
        for term in 1..core.fence.term.0 as usize {
            try_step(Step::Receive { node, upto: 0 }, &|s| self.receive_old(s, node, term));
        }
        if self.syncs && core.durable < core.log.length {
            try_step(Step::Synced { node }, &|s| {
                s.nodes[node].core.durable = s.nodes[node].core.log.length;
                s.say_status(node);
                true
            });
        }
    }

    fn steps_of_leader(&self, state: &State, leader: usize, try_step: &mut Try<'_>) {
        let core = &state.nodes[leader].core;
        if core.role != Role::Leads {
            return;
        }
        if core.log.length < self.entries {
            try_step(Step::Propose { leader }, &|s| {
                let core = &mut s.nodes[leader].core;
                core.log.push(core.fence.term.0 as u8);
                if !self.syncs {
                    core.durable = core.log.length;
                }
                s.terms[core.fence.term.0 as usize].log = core.log;
                true
            });
        }
        let said = &state.terms[core.fence.term.0 as usize].statuses;
        for (of, statuses) in said.iter().enumerate() {
            for which in 0..statuses.len() {
                try_step(Step::Status { leader, of }, &|s| {
                    self.status(s, leader, of, which);
                    s.nodes[leader].core != *core
                });
            }
            try_step(Step::Readmits { leader, node: of }, &|s| {
                self.readmits(s, leader, of)
                    && (s.nodes[leader].machine != state.nodes[leader].machine
                        || s.messages.len() != state.messages.len())
            });
        }
        try_step(Step::Commit { leader }, &|s| self.commit(s, leader));
    }
}

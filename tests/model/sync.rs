//! M6: leader sync. Some nodes never lead; where such a node has the most recent log, the best of the others takes it over
//! before a term is raised. The election, the lane between controls, and what a core decides in a take-over, as they ship.
//!
//! A canvass is one step, with the vote that follows where it comes to one: among the nodes that are heard in it. One node
//! may die for good.

#[path = "forget.rs"]
mod forget;

use std::collections::VecDeque;
use std::sync::Arc;

use quorate::control::election::{
    Election, ElectionSettings, Glance, Input, Member, Mutants, Output,
};
use quorate::control::lane::{
    Lane, LaneAnswer, LaneInput, LaneOutput, LaneRequest, MatchAnswer, RangeRequest,
};
use quorate::control::membership::{Change, Held, Leader, Membership};
use quorate::control::message::{Envelope, Message, Standing};
use quorate::link::{
    ControlToCore, CoreEvent, CoreToControl, Durability, LaneFact, LaneRefusal, LogChunk, Recency,
    Rung,
};
use quorate::replica::matching;
use quorate::replica::quorum::{LeaderSide, Progress, commit_position};
use quorate::replica::take_over::{Placed, Reply, TakeOver};
use quorate::types::{Commit, Durable, Incarnation, Leadership, Nanos, NodeId, Position};

use crate::explore::{Model, Part};
use crate::small::{
    FRAME, Log, append, append_list, blank_log, bytes_of, common, copy, entries, leadership,
    list_in, recency,
};

const NODES_MAX: usize = 5;
const TERMS_MAX: usize = 12;
const TIMEOUT_NS: u64 = Nanos::SECOND;
/// After so long the answers to a canvass are judged.
const COLLECTED_NS: u64 = 30 * Nanos::MILLISECOND;
const NOW: Nanos = Nanos(Nanos::SECOND);
/// So late that nobody hears a leader any more.
const LATER: Nanos = Nanos(9 * Nanos::SECOND);

/// What is explored, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sync {
    pub(crate) nodes: usize,
    /// From this one on they never lead: priority 0,
    pub(crate) never: usize,
    /// and from this one on they are observers.
    pub(crate) observers: usize,
    pub(crate) terms: u32,
    pub(crate) entries: u64,
    /// A core that is told to follow ends its take-over.
    pub(crate) call_ends_take_over: bool,
    /// Leaders change who votes; who does not is an observer.
    pub(crate) changes: bool,
    /// One may die, and the others must then get somebody to lead.
    pub(crate) deaths: bool,
    /// So often a machine goes down, and the last entry of its log is lost.
    pub(crate) forgets: u32,
    /// What has happened before it begins, where the whole way is too long to search.
    pub(crate) before: &'static [Before],
    pub(crate) mutants: Mutants,
}

#[derive(Clone, Hash, Debug)]
struct Node {
    id: u16,
    /// What control knows as the list.
    known: Vec<Member>,
    machine: Election,
    log: Part<Log>,
    lists: Membership,
    fence: Leadership,
    /// End of the entry that opened its term.
    leads: Option<Position>,
    commit: Position,
    pulls: Option<(NodeId, Recency)>,
    /// Its last durable vote.
    vote: Option<(Leadership, NodeId)>,
    /// How often its machine has gone down.
    life: u32,
    dead: bool,
}

#[derive(Clone, Hash, Debug, Default)]
struct Reign {
    leader: Option<usize>,
    log: Option<Part<Log>>,
    said: [Position; NODES_MAX],
    /// Of those who may have forgotten something: where the leader's log ended when they came back.
    rejoined: [Option<Position>; NODES_MAX],
}

#[derive(Clone, Hash, Debug)]
pub(crate) struct State {
    nodes: Vec<Part<Node>>,
    reigns: [Part<Reign>; TERMS_MAX],
    /// By entry: its bytes, and the lowest term in which it was committed.
    committed: Vec<(u64, u32)>,
    forgot: u32,
    bad: Option<&'static str>,
}

#[derive(Clone, Debug)]
#[allow(dead_code)] // read by people, in a schedule
pub(crate) enum Step {
    Die { node: usize },
    Canvass { node: usize, heard: Vec<usize>, leads: bool, pulls: bool },
    TakesOver { node: usize, pieces: u64, whole: bool },
    LosesQuorum { node: usize },
    Receive { node: usize, term: u32, upto: u64 },
    Propose { leader: usize },
    Change { leader: usize, change: Change },
    Commit { leader: usize, upto: u64 },
    Forgets { node: usize },
    Readmits { leader: usize, node: usize },
}

/// What may have happened before.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Before {
    Receives {
        node: usize,
        term: usize,
        upto: u64,
    },
    Commits {
        leader: usize,
    },
    Forgets {
        node: usize,
    },
    /// The other becomes an observer, or a voter.
    Changes {
        leader: usize,
        other: usize,
    },
    Elected {
        node: usize,
        heard: u32,
    },
}

type Mail = VecDeque<(usize, Envelope)>;

fn term_of(leadership: Leadership) -> usize {
    leadership.term.0 as usize
}

impl Sync {
    pub(crate) const THREE: Self = Self {
        nodes: 3,
        never: 2,
        observers: 3,
        terms: 3,
        entries: 2,
        call_ends_take_over: true,
        changes: false,
        deaths: true,
        forgets: 0,
        before: &[],
        mutants: Mutants::NONE,
    };

    fn members(&self, voters: u32) -> Vec<Member> {
        let member = |n| Member {
            node: NodeId(n as u16),
            voter: voters >> n & 1 == 1,
            priority: u8::from(n < self.never),
        };
        (0..self.nodes).map(member).collect()
    }

    fn founded(&self) -> Membership {
        let voters = (1 << self.nodes.min(self.observers)) - 1;
        let mut lists = Membership::founded_with(self.members(voters));
        lists.plant(self.mutants);
        lists
    }

    /// A log changed: it was `same` up to so many entries. The lists in it hold from now on, and no others.
    fn relist(&self, node: &mut Node, same: u64) {
        node.lists.cut(Position(same * FRAME));
        for entry in same..entries(&node.log) {
            let voters = list_in(&node.log, entry);
            if voters != 0 {
                node.lists.appended(Position((entry + 1) * FRAME), self.members(voters));
            }
        }
        node.lists.committed(Commit(node.commit));
    }

    /// Control knows the newest list in the log before it decides on a fence's answer.
    fn learn_list(node: &mut Node, now: Nanos) {
        let members = node.lists.seen_by(NodeId(node.id));
        if node.known != members {
            node.machine.set_members(now, &members);
            node.known = members;
        }
    }

    fn is_electable(&self, state: &State, n: usize) -> bool {
        n < self.never && state.nodes[n].lists.is_voter(NodeId(n as u16))
    }

    fn settings(&self, n: usize) -> ElectionSettings {
        ElectionSettings {
            node: NodeId(n as u16),
            members: self.founded().seen_by(NodeId(n as u16)),
            promised: leadership(0),
            vote: None,
            standing: Standing::Clean,
            won_founding: false,
            may_ack_memory: true,
            incarnation: Incarnation(0),
            durability: Durability { leader: Rung::Memory, follower: Rung::Memory },
            leader_timeout_ns: TIMEOUT_NS,
            start_wait_ns: 0,
            generation_random: 1,
            instance: 1 + n as u64,
            seed: 1,
            mutants: self.mutants,
        }
    }

    fn node(&self, n: usize) -> Node {
        let machine = Election::new(self.settings(n));
        Node {
            id: n as u16,
            known: self.founded().seen_by(NodeId(n as u16)),
            machine,
            log: Part::new(blank_log(Mutants::NONE)),
            lists: self.founded(),
            fence: leadership(0),
            leads: None,
            commit: Position(0),
            pulls: None,
            vote: None,
            life: 0,
            dead: false,
        }
    }

    /// Gives an input to a machine, and does what it wants; what it sends goes to `mail`.
    fn feed(&self, state: &mut State, n: usize, now: Nanos, input: Input, mail: &mut Mail) {
        state.nodes[n].machine.handle(now, input);
        while let Some(output) = state.nodes[n].machine.poll() {
            let node = &mut *state.nodes[n];
            match output {
                Output::ToCore(ControlToCore::Fence(leadership)) => {
                    if leadership > node.fence {
                        (node.fence, node.leads, node.pulls) = (leadership, None, None);
                    }
                    Self::learn_list(node, now);
                    let fact = CoreToControl::Fenced {
                        leadership: node.fence,
                        recency: recency(&node.log),
                        durable: Durable(node.log.tail().position),
                    };
                    node.machine.handle(now, Input::Core(fact));
                }
                Output::ToCore(ControlToCore::Lead(leadership)) => self.lead(state, n, leadership),
                Output::ToCore(ControlToCore::Follow { .. }) if self.call_ends_take_over => {
                    node.pulls = None;
                }
                Output::Persist(promise) => {
                    if let Some(vote) = promise.vote {
                        node.vote = Some((promise.leadership, vote));
                    }
                    node.machine.handle(now, Input::Persisted);
                }
                Output::Send(to, envelope) => mail.push_back((to.0 as usize, envelope)),
                Output::Pull { from, recency } => node.pulls = Some((from, recency)),
                Output::ToCore(_) | Output::Event(_) => {}
                Output::Halt => state.bad = Some("a machine halted"),
            }
        }
    }

    fn lead(&self, state: &mut State, n: usize, leadership: Leadership) {
        let node = &mut *state.nodes[n];
        let term = leadership.term.0;
        let held = entries(&node.log);
        for (entry, (bytes, in_term)) in state.committed.iter().enumerate() {
            let lacks = entry as u64 >= held || bytes_of(&node.log, entry) != *bytes;
            if *in_term < term && lacks {
                state.bad = Some("a leader lacks a committed entry");
            }
        }
        if n >= self.never || !node.lists.is_voter(NodeId(n as u16)) {
            state.bad = Some("a node leads that never may");
        }
        if state.reigns[term as usize].leader.is_some_and(|leader| leader != n) {
            state.bad = Some("two leaders in one term");
        }
        append(&mut node.log, term, true);
        node.leads = Some(node.log.tail().position);
        let reign = &mut state.reigns[term as usize];
        (reign.leader, reign.log) = (Some(n), Some(node.log.clone()));
    }

    fn folded(state: &mut State) {
        for node in &mut state.nodes {
            node.machine.fold();
        }
    }

    /// Delivers what is sent among `heard` until nothing is, but for what a new leader calls.
    fn deliver(&self, state: &mut State, heard: u32, now: Nanos, mail: &mut Mail) {
        while let Some((to, envelope)) = mail.pop_front() {
            let from = envelope.from.0 as usize;
            let calls = matches!(envelope.message, Message::Lead { .. } | Message::Announce(_));
            if !calls && heard >> to & 1 == 1 && heard >> from & 1 == 1 {
                self.feed(state, to, now, Input::Message(envelope), mail);
            }
        }
    }

    /// Node `n` asks those in `heard` (itself among them), and stands or takes over a log if that is what comes of it.
    fn canvass(&self, state: &mut State, n: usize, heard: u32) {
        let mut mail = Mail::new();
        for node in 0..self.nodes {
            Self::learn_list(&mut state.nodes[node], NOW);
            let glance = Glance { heard: Nanos(0), recency: recency(&state.nodes[node].log) };
            self.feed(state, node, NOW, Input::Glance(glance), &mut mail);
        }
        mail.clear();
        Self::folded(state);
        let fence = state.nodes[n].fence;
        state.nodes[n].machine.look_at_once(LATER);
        self.feed(state, n, LATER, Input::Tick, &mut mail);
        // Only this node's questions: what others come to think is a step of theirs.
        mail.retain(|(_, envelope)| envelope.from.0 as usize == n);
        let mut requests = Mail::new();
        for _ in 0..4 * self.nodes {
            let Some((to, envelope)) = mail.pop_front() else { break };
            let heard = heard >> to & 1 == 1 && heard >> envelope.from.0 & 1 == 1;
            let asks = matches!(envelope.message, Message::Canvass { .. } | Message::Opinion(_));
            if heard && asks {
                let mut said = Mail::new();
                self.feed(state, to, LATER, Input::Message(envelope), &mut said);
                let opinion = |e: &Envelope| matches!(e.message, Message::Opinion(_));
                requests
                    .extend(said.iter().filter(|(from, e)| *from != to && !opinion(e)).copied());
                said.retain(|(_, e)| opinion(e));
                mail.extend(said);
            }
        }
        let mut mail = requests;
        // The answers are in; then its turn comes, however far down the list it is.
        let mut turn = LATER;
        for wait_ns in [COLLECTED_NS, TIMEOUT_NS * self.nodes as u64 / 4] {
            if state.nodes[n].fence == fence && state.nodes[n].pulls.is_none() {
                turn = turn.plus(wait_ns);
                self.feed(state, n, turn, Input::Tick, &mut mail);
            }
        }
        mail.retain(|(_, e)| matches!(e.message, Message::VoteRequest { .. }));
        self.deliver(state, heard, turn, &mut mail);
        Self::folded(state);
    }

    /// The lane carries the log of another node here, `pieces` frames of it at most; the core takes it.
    fn take_over(&self, state: &mut State, n: usize, pieces: u64) -> bool {
        let (from, goal) = state.nodes[n].pulls.take().unwrap();
        let source = state.nodes[from.0 as usize].clone();
        let asker = NodeId(n as u16);
        let nodes = (0..self.nodes).map(|node| NodeId(node as u16));
        let (mut lane, mut core) = (Lane::new(0, asker, nodes), None);
        let mut left = pieces;
        let mut inputs = VecDeque::from([LaneInput::Pull { from, recency: goal }]);
        let mut whole = false;
        while let Some(input) = inputs.pop_front() {
            lane.handle(NOW, input);
            while let Some(output) = lane.poll() {
                match output {
                    LaneOutput::ToCore(order) => {
                        inputs.extend(Self::core_takes(state, n, &mut core, order));
                    }
                    LaneOutput::Ask(_, _) if source.dead => {}
                    LaneOutput::Ask(_, LaneRequest::Match(question)) => {
                        let reply = matching::reply(&source.log, &question);
                        let (number, end) = (question.number, source.log.tail().position);
                        let answer = LaneAnswer::Match(MatchAnswer { number, reply, end });
                        inputs.push_back(LaneInput::Answered { from, answer });
                    }
                    LaneOutput::Ask(_, LaneRequest::Range(request)) => {
                        let RangeRequest { number, from: at, to, .. } = request;
                        let end = source.log.tail().position;
                        let to = to.min(at.plus(FRAME)).min(end);
                        if left > 0 && at < to {
                            left -= 1;
                            let chunk = source.log.chunk(at, to, FRAME as usize).unwrap();
                            let bytes: Arc<[u8]> = chunk.bytes.into();
                            let committed = Commit(source.commit);
                            let answer =
                                LaneAnswer::Bytes { number, from: at, end, committed, bytes };
                            inputs.push_back(LaneInput::Answered { from, answer });
                        }
                    }
                    LaneOutput::Chunk(chunk) => {
                        let node = &mut *state.nodes[n];
                        let taking: &mut TakeOver = core.as_mut().unwrap();
                        let LogChunk { number, from, bytes, committed } = chunk;
                        let before = entries(&node.log);
                        let Placed { verification, received } =
                            taking.place(&mut node.log, number, from, &bytes).unwrap();
                        let tail = node.log.tail().position;
                        self.relist(node, before);
                        // The source has another log by now, perhaps: its newer frames are not taken.
                        inputs.push_back(LaneInput::Core(if verification.bad.is_some() {
                            LaneFact::Refuses { number, why: LaneRefusal::Log }
                        } else {
                            node.commit = node.commit.max(committed.0.min(tail));
                            LaneFact::Stands { number, tail, received }
                        }));
                    }
                    LaneOutput::Ended(ended) => whole = ended,
                    LaneOutput::Event(_) => {}
                    LaneOutput::Answer(..) => unreachable!("node {asker} asks only"),
                    LaneOutput::Ask(_, LaneRequest::Snapshot(_))
                    | LaneOutput::Resume(_)
                    | LaneOutput::Discard
                    | LaneOutput::Install(_) => unreachable!("no log begins later"),
                }
            }
        }
        self.feed(state, n, NOW, Input::Pulled(whole), &mut Mail::new());
        Self::folded(state);
        whole
    }

    /// What the shell of the decisions does: fence, cut, report.
    fn core_takes(
        state: &mut State,
        n: usize,
        core: &mut Option<TakeOver>,
        order: ControlToCore,
    ) -> Option<LaneInput> {
        let node = &mut *state.nodes[n];
        let fact = match order {
            ControlToCore::TakeOver { number, last, purpose } => {
                match TakeOver::begin(&node.log, node.fence, number, last, purpose) {
                    Ok(begun) => LaneFact::Asks(core.insert(begun).question(&node.log)?),
                    Err(why) => LaneFact::Refuses { number, why },
                }
            }
            ControlToCore::MatchReply { number, reply, end } => {
                let taking = core.as_mut()?;
                let step = taking.on_reply(&node.log, Commit(node.commit), number, reply, end);
                if let Reply::Cut(at) = step {
                    node.log.cut(at).unwrap();
                    node.lists.cut(at.position);
                    assert!(taking.on_cut_done(&node.log), "it asked for it");
                }
                let tail = node.log.tail().position;
                match step {
                    Reply::Ignored => return None,
                    Reply::AskAgain(question) => LaneFact::Asks(question),
                    Reply::Cut(_) | Reply::Take => {
                        LaneFact::Stands { number, tail, received: tail }
                    }
                    Reply::Refuse | Reply::Diverged { .. } => {
                        LaneFact::Refuses { number, why: LaneRefusal::Log }
                    }
                }
            }
            _ => return None,
        };
        Some(LaneInput::Core(fact))
    }

    fn loses_quorum(&self, state: &mut State, n: usize) {
        state.nodes[n].leads = None;
        let lost = Input::Core(CoreToControl::Event(CoreEvent::Quorum { present: false }));
        self.feed(state, n, NOW, lost, &mut Mail::new());
        Self::folded(state);
    }

    /// The leader of `term` calls node `n`, which takes its log up to `upto`.
    fn receive(&self, state: &mut State, n: usize, term: usize, upto: u64) {
        let Reign { leader, log, .. } = (*state.reigns[term]).clone();
        let (leader, log) = (leader.unwrap(), log.unwrap());
        let leadership = leadership(term as u32);
        let message = Message::Lead { founder: None };
        let call = Envelope { from: NodeId(leader as u16), leadership, message };
        self.feed(state, n, NOW, Input::Message(call), &mut Mail::new());
        Self::folded(state);
        let node = &mut *state.nodes[n];
        assert_eq!(term_of(node.fence), term, "it follows");
        let same = common(&node.log, &log);
        copy(&mut node.log, &log, upto);
        self.relist(node, same);
        let tail = node.log.tail().position;
        state.reigns[term].said[n] = state.reigns[term].said[n].max(tail);
        Self::rejoin(state, n, term, log.tail().position);
    }

    fn commit(&self, state: &mut State, n: usize) -> Option<u64> {
        let node = &state.nodes[n];
        let term = term_of(node.fence);
        let side = LeaderSide {
            promised: node.log.tail().position,
            term_opened: node.leads?,
            followers: Rung::Memory,
        };
        let others: Vec<_> = (0..self.nodes)
            .filter(|&j| j != n)
            .map(|j| {
                let promised = state.reigns[term].said[j];
                let voter = node.lists.is_voter(NodeId(j as u16));
                Progress { voter, promised, ..Progress::default() }
            })
            .collect();
        let commit = commit_position(side, &others, node.lists.voters(), Commit(node.commit))?.0;
        let log = node.log.clone();
        state.nodes[n].commit = commit;
        state.nodes[n].lists.committed(Commit(commit));
        for entry in 0..(commit.0 / FRAME) as usize {
            let bytes = bytes_of(&log, entry);
            match state.committed.get_mut(entry) {
                Some((known, _)) if *known != bytes => state.bad = Some("two committed histories"),
                Some((_, in_term)) => *in_term = (*in_term).min(term as u32),
                None => state.committed.push((bytes, term as u32)),
            }
        }
        Some(commit.0 / FRAME)
    }

    /// By the list of every node that is alive, a majority is. A change that is not committed yet may leave the group without
    /// one: a list of two has no majority when one of them is dead.
    fn has_quorums(&self, state: &State) -> bool {
        let alive = |n: usize| !state.nodes[n].dead;
        (0..self.nodes).filter(|&n| alive(n)).all(|n| {
            let lists = &state.nodes[n].lists;
            let voters = (0..self.nodes).filter(|&j| alive(j) && lists.is_voter(NodeId(j as u16)));
            voters.count() > lists.voters() / 2
        })
    }

    /// When all who are alive talk, and nothing else happens, somebody leads before long.
    fn settles(&self, state: &State) -> bool {
        let mut state = state.clone();
        let alive = (0..self.nodes).filter(|&n| !state.nodes[n].dead);
        let heard = alive.fold(0, |set, n| set | 1u32 << n);
        for n in 0..self.nodes {
            if state.nodes[n].leads.is_some() {
                self.loses_quorum(&mut state, n);
            }
        }
        for round in 0..2 * self.nodes * self.nodes {
            let n = round % self.nodes;
            if state.nodes[n].dead || !self.is_electable(&state, n) {
                continue;
            }
            if state.nodes[n].pulls.is_none() {
                self.canvass(&mut state, n, heard);
            }
            if state.nodes[n].pulls.is_some() {
                self.take_over(&mut state, n, u64::MAX);
            }
            if state.nodes[n].leads.is_some() {
                return true;
            }
        }
        false
    }
}

impl Model for Sync {
    type State = State;
    type Step = Step;

    /// Node 0 leads term 1.
    fn begin(&self) -> State {
        let mut state = State {
            nodes: (0..self.nodes).map(|n| Part::new(self.node(n))).collect(),
            reigns: core::array::from_fn(|_| Part::new(Reign::default())),
            committed: Vec::new(),
            forgot: 0,
            bad: None,
        };
        self.canvass(&mut state, 0, (1 << self.nodes) - 1);
        assert!(state.nodes[0].leads.is_some(), "node 0 leads");
        for before in self.before {
            self.act(&mut state, *before);
        }
        state
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut steps = Vec::new();
        for n in 0..self.nodes {
            if !state.nodes[n].dead {
                self.steps_of_control(state, n, &mut steps);
                self.steps_of_core(state, n, &mut steps);
                self.steps_of_memory(state, n, &mut steps);
            }
        }
        steps
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let stuck = "a majority is alive and talks, and nobody leads";
        let due = self.deaths && self.has_quorums(state);
        state.bad.or_else(|| (due && !self.settles(state)).then_some(stuck))
    }
}

impl Sync {
    fn act(&self, state: &mut State, before: Before) {
        match before {
            Before::Receives { node, term, upto } => self.receive(state, node, term, upto),
            Before::Commits { leader } => assert!(self.commit(state, leader).is_some()),
            Before::Forgets { node } => self.forget(state, node),
            Before::Changes { leader, other } => {
                *state = self.change(state, leader, other).unwrap().1;
            }
            Before::Elected { node, heard } => {
                self.canvass(state, node, heard);
                assert!(state.nodes[node].leads.is_some(), "node {node} leads");
            }
        }
    }

    fn steps_of_control(&self, state: &State, n: usize, steps: &mut Vec<(Step, State)>) {
        let node = &state.nodes[n];
        if self.deaths && state.nodes.iter().all(|node| !node.dead) {
            let mut after = state.clone();
            (after.nodes[n].dead, after.nodes[n].leads) = (true, None);
            steps.push((Step::Die { node: n }, after));
        }
        if node.leads.is_some() {
            let mut after = state.clone();
            self.loses_quorum(&mut after, n);
            steps.push((Step::LosesQuorum { node: n }, after));
        }
        if let Some((from, goal)) = node.pulls {
            let source = &state.nodes[from.0 as usize];
            let most = entries(&source.log).min(goal.tail.0.0 / FRAME);
            let pieces = if source.dead { 0..=0 } else { 0..=most };
            for pieces in pieces {
                let mut after = state.clone();
                let whole = self.take_over(&mut after, n, pieces);
                steps.push((Step::TakesOver { node: n, pieces, whole }, after));
                if whole {
                    break;
                }
            }
        } else if node.leads.is_none() && self.is_electable(state, n) {
            self.canvasses(state, n, steps);
        }
    }

    fn canvasses(&self, state: &State, n: usize, steps: &mut Vec<(Step, State)>) {
        let alive = |j: usize| !state.nodes[j].dead;
        for heard in 0..1u32 << self.nodes {
            let set: Vec<_> = (0..self.nodes).filter(|j| heard >> j & 1 == 1).collect();
            let few = set.len() <= state.nodes[n].lists.voters() / 2;
            if heard >> n & 1 == 0 || few || !set.iter().all(|&j| alive(j)) {
                continue;
            }
            let mut after = state.clone();
            self.canvass(&mut after, n, heard);
            let own = &after.nodes[n];
            let (leads, pulls) = (own.leads.is_some(), own.pulls.is_some());
            // An election that comes to nothing only raises terms.
            let high = after.nodes.iter().any(|node| node.fence.term.0 > self.terms);
            let long = leads && entries(&own.log) > self.entries;
            if (leads || pulls) && !high && !long {
                steps.push((Step::Canvass { node: n, heard: set, leads, pulls }, after));
            }
        }
    }

    /// Makes a voter an observer, or an observer a voter, if the rules let it.
    fn change(&self, state: &State, n: usize, j: usize) -> Option<(Step, State)> {
        let node = &state.nodes[n];
        let term_opened = node.leads?;
        let leader = Leader { node: NodeId(n as u16), term_opened, commit: Commit(node.commit) };
        let term = term_of(node.fence);
        let other = NodeId(j as u16);
        let voter = node.lists.is_voter(other);
        let change = if voter { Change::Demote(other) } else { Change::Promote(other, 1) };
        let provisional = state.nodes[j].machine.standing() == Standing::Provisional;
        let held = Held { provisional, promised: state.reigns[term].said[j] };
        let members = node.lists.changed(leader, change, held).ok()?;
        let voters = members.iter().filter(|m| m.voter).fold(0u32, |set, m| set | 1 << m.node.0);
        if voters.count_ones() < 2 {
            return None;
        }
        let mut after = state.clone();
        let own = &mut *after.nodes[n];
        let same = entries(&own.log);
        append_list(&mut own.log, term as u32, false, voters);
        self.relist(own, same);
        after.reigns[term].log = Some(own.log.clone());
        Some((Step::Change { leader: n, change }, after))
    }

    fn steps_of_core(&self, state: &State, n: usize, steps: &mut Vec<(Step, State)>) {
        let node = &state.nodes[n];
        let own = term_of(node.fence);
        if node.leads.is_some() {
            if entries(&node.log) < self.entries {
                let mut after = state.clone();
                append(&mut after.nodes[n].log, own as u32, false);
                after.reigns[own].log = Some(after.nodes[n].log.clone());
                steps.push((Step::Propose { leader: n }, after));
                let others = (0..self.nodes).filter(|&j| self.changes && j != n);
                steps.extend(others.filter_map(|j| self.change(state, n, j)));
            }
            let mut after = state.clone();
            if let Some(upto) = self.commit(&mut after, n) {
                steps.push((Step::Commit { leader: n, upto }, after));
            }
        }
        for term in own.max(1)..=self.terms as usize {
            let reign = &state.reigns[term];
            let (Some(leader), Some(log)) = (reign.leader, &reign.log) else { continue };
            if leader == n {
                continue;
            }
            for upto in 1..=entries(log) {
                if reign.said[n] >= Position(upto * FRAME) {
                    continue;
                }
                let mut after = state.clone();
                self.receive(&mut after, n, term, upto);
                steps.push((Step::Receive { node: n, term: term as u32, upto }, after));
            }
        }
    }
}

//! M1: verified, not received, counts. What a follower is made of as it ships (its log, its receiver, the way it enters a
//! leadership, where logs part) under leaders that come and go.
//!
//! Elections are one step: a candidate, and the smallest quorum that may vote for it. Datagrams, answers and statuses are
//! facts: they may arrive at any later time, any number of times. Nodes are interchangeable, so states are sorted. All
//! frames are of one length.

use quorate::mutants::Mutants;
use quorate::replica::entering::{Arrived, Entering, Step as Entered};
use quorate::replica::matching;
use quorate::replica::quorum::{LeaderSide, Progress, commit_position};
use quorate::stream::datagram::MatchAnswer;
use quorate::stream::{Receiver, ReceiverSettings};
use quorate::types::{Commit, Nanos, Position, Term};

use crate::explore::{Model, Part, fingerprint};
use crate::small::{FRAME, Log, append, blank_log, bytes_of, leadership, recency};

const TERMS_MAX: usize = 4;
const NOW: Nanos = Nanos(Nanos::SECOND);
/// Of a frame, a byte of its payload.
const SPOILED: usize = 48;
/// Frames verified at once.
const FRAMES: usize = 64;

/// What is explored, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verified {
    pub(crate) nodes: usize,
    pub(crate) terms: u32,
    pub(crate) entries: u64,
    /// Bytes of a datagram.
    pub(crate) piece: u64,
    /// Datagrams whose payload is not what was sent.
    pub(crate) spoiled: u8,
    pub(crate) mutants: Mutants,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Role {
    None,
    Leads { opened: Position },
    Follows(Entering),
}

#[derive(Clone, Hash, Debug)]
struct Node {
    term: u32,
    role: Role,
    log: Part<Log>,
    receiver: Part<Receiver>,
    requests: u64,
    /// Known as committed, and given to the service.
    commit: Position,
    /// By term, the most that it acknowledged.
    said: [Position; TERMS_MAX],
    /// What leaders answered it.
    answers: Vec<(u32, MatchAnswer)>,
}

#[derive(Clone, Hash, Debug, Default)]
struct Reign {
    /// What its leader has published.
    log: Option<Part<Log>>,
    /// Told as committed.
    commit: Position,
}

#[derive(Clone, Hash, Debug)]
pub(crate) struct State {
    nodes: Vec<Part<Node>>,
    reigns: [Reign; TERMS_MAX],
    /// By entry: its bytes, and the lowest term in which it was committed.
    committed: Vec<(u64, u32)>,
    spoiled: u8,
    bad: Option<&'static str>,
}

#[derive(Clone, Debug)]
#[allow(dead_code)] // read by people, in a schedule
pub(crate) enum Step {
    Elect { term: u32, last: (u32, u64) },
    Propose { term: u32 },
    Follow { term: u32, tail: u64 },
    Ask { term: u32, answer: MatchAnswer },
    Answer { term: u32, tail: u64, after: u64 },
    Datagram { term: u32, from: u64, verified: u64 },
    Spoiled { term: u32, from: u64, verified: u64 },
    Commit { term: u32, upto: u64 },
    LearnsCommit { term: u32, upto: u64 },
}

impl Verified {
    pub(crate) const THREE: Self =
        Self { nodes: 3, terms: 3, entries: 2, piece: FRAME, spoiled: 0, mutants: Mutants::NONE };

    /// Candidate `i` is elected by `others`, and opens its term.
    fn elect(state: &mut State, i: usize, others: &[usize], term: u32) {
        for &j in others {
            (state.nodes[j].term, state.nodes[j].role) = (term, Role::None);
        }
        let node = &mut *state.nodes[i];
        node.log.forget_above_tail();
        let held = node.log.tail().position.0 / FRAME;
        for (entry, (bytes, in_term)) in state.committed.iter().enumerate() {
            let lacks = entry as u64 >= held || bytes_of(&node.log, entry) != *bytes;
            if *in_term < term && lacks {
                state.bad = Some("a leader lacks a committed entry");
            }
        }
        append(&mut node.log, term, true);
        let opened = node.log.tail().position;
        (node.term, node.role) = (term, Role::Leads { opened });
        state.reigns[term as usize].log = Some(node.log.clone());
    }

    fn follow(&self, node: &mut Node, term: u32) {
        node.term = term;
        node.requests += 1;
        let entering =
            Entering::begin(&mut node.log, leadership(term), node.requests, self.mutants);
        node.role = Role::Follows(entering);
        self.say(node);
    }

    /// What the core says of itself at the end of its duty cycle.
    fn say(&self, node: &mut Node) {
        let Role::Follows(entering) = node.role else { return };
        if entering.acknowledges(self.mutants) {
            let said = &mut node.said[node.term as usize];
            *said = (*said).max(node.log.tail().position);
        }
    }

    fn ask(node: &mut Node, leader: &Log) -> Option<MatchAnswer> {
        let Role::Follows(Entering::Matching { request, limit }) = node.role else { return None };
        let question = matching::question(&node.log, request, limit);
        let answer = matching::answer(leader, &question);
        let fact = (node.term, answer);
        if node.answers.contains(&fact) {
            return None;
        }
        node.answers.push(fact);
        node.answers
            .sort_by_key(|(term, answer)| (*term, answer.request.get(), fingerprint(answer)));
        Some(answer)
    }

    fn answer(&self, state: &mut State, i: usize, answer: &MatchAnswer) -> bool {
        let node = &mut *state.nodes[i];
        let Role::Follows(mut entering) = node.role else { return false };
        let (commit, next) = (Commit(node.commit), node.requests + 1);
        let step = entering.on_answer(&node.log, commit, answer, next, self.mutants);
        match step {
            Entered::Ignored | Entered::Nonsense => return false,
            Entered::AskAgain => node.requests = next,
            Entered::Stream | Entered::Cut(_) => {
                if let Entered::Cut(at) = step {
                    if at.position < node.commit {
                        state.bad = Some("what was applied is cut");
                        return true;
                    }
                    node.log.cut(at).unwrap();
                }
                entering.stream(&node.log, &mut node.receiver, self.mutants);
                node.receiver.fold();
            }
            Entered::Gone(_) | Entered::Diverged { .. } => state.bad = Some("stuck"),
        }
        node.role = Role::Follows(entering);
        self.say(node);
        true
    }

    fn datagram(&self, node: &mut Node, leader: &Log, from: u64, spoiled: bool) -> bool {
        let Role::Follows(entering) = node.role else { return false };
        let to = Position(from + self.piece).min(leader.tail().position);
        let chunk = leader.chunk(Position(from), to, self.piece as usize).unwrap();
        let mut bytes = chunk.bytes.to_vec();
        if spoiled {
            let payload = SPOILED.min(bytes.len() - 1);
            bytes[payload] ^= 1;
        }
        let arrived = Arrived { from: Position(from), bytes: &bytes, pads: false, repair: false };
        let before = fingerprint(&(&node.log, &node.receiver));
        entering.place(NOW, arrived, &mut node.receiver, &mut node.log);
        let end = leader.tail().position;
        let done = entering.verify(&node.receiver, &mut node.log, FRAMES, Term(node.term), end);
        if let Some(bad) = done.bad {
            assert!(node.receiver.reopen(NOW, bad.position, bad.reopened_to), "few gaps");
        }
        node.receiver.fold();
        self.say(node);
        fingerprint(&(&node.log, &node.receiver)) != before
    }

    fn commit(&self, state: &mut State, i: usize) -> Option<u64> {
        let node = &state.nodes[i];
        let Role::Leads { opened } = node.role else { return None };
        let term = node.term as usize;
        let side = LeaderSide {
            promised: node.log.tail().position,
            term_opened: opened,
            followers: quorate::link::Rung::Memory,
        };
        let others: Vec<_> = (0..self.nodes)
            .filter(|&j| j != i)
            .map(|j| {
                let promised = state.nodes[j].said[term];
                Progress { voter: true, promised, verified: promised, ..Progress::default() }
            })
            .collect();
        let before = Commit(state.reigns[term].commit);
        let commit = commit_position(side, &others, self.nodes, before)?.0;
        let log = node.log.clone();
        state.reigns[term].commit = commit;
        for entry in 0..(commit.0 / FRAME) as usize {
            let bytes = bytes_of(&log, entry);
            match state.committed.get_mut(entry) {
                Some((known, _)) if *known != bytes => state.bad = Some("two committed histories"),
                Some((_, in_term)) => *in_term = (*in_term).min(term as u32),
                None => state.committed.push((bytes, term as u32)),
            }
        }
        state.nodes[i].commit = state.nodes[i].commit.max(commit);
        Some(commit.0)
    }

    fn learn(&self, state: &mut State, i: usize, told: Position) -> bool {
        let node = &mut *state.nodes[i];
        let Role::Follows(entering) = node.role else { return false };
        let known = entering.commits(told, node.log.tail().position, self.mutants);
        if known <= node.commit {
            return false;
        }
        node.commit = known;
        for entry in 0..(known.0 / FRAME) as usize {
            if Some(bytes_of(&node.log, entry)) != state.committed.get(entry).map(|(b, _)| *b) {
                state.bad = Some("a node applied what is not committed");
            }
        }
        true
    }

    fn sorted(mut state: State) -> State {
        state.nodes.sort_by_cached_key(fingerprint);
        state
    }
}

impl Model for Verified {
    type State = State;
    type Step = Step;

    /// Node 0 has won term 1, and everybody follows it.
    fn begin(&self) -> State {
        let settings = ReceiverSettings { gaps_max: 16, ..ReceiverSettings::default() };
        let mut receiver = Receiver::new(settings, Position(0));
        receiver.fold();
        let node = Part::new(Node {
            term: 0,
            role: Role::None,
            log: Part::new(blank_log(self.mutants)),
            receiver: Part::new(receiver),
            requests: 0,
            commit: Position(0),
            said: [Position(0); TERMS_MAX],
            answers: Vec::new(),
        });
        let mut state = State {
            nodes: vec![node; self.nodes],
            reigns: core::array::from_fn(|_| Reign::default()),
            committed: Vec::new(),
            spoiled: 0,
            bad: None,
        };
        Self::elect(&mut state, 0, &[], 1);
        let leader = state.reigns[1].log.clone().unwrap();
        for i in 1..self.nodes {
            self.follow(&mut state.nodes[i], 1);
            let answer = Self::ask(&mut state.nodes[i], &leader).unwrap();
            assert!(self.answer(&mut state, i, &answer));
            state.nodes[i].answers.clear();
        }
        Self::sorted(state)
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut steps = Vec::new();
        for i in 0..self.nodes {
            if i > 0 && fingerprint(&state.nodes[i]) == fingerprint(&state.nodes[i - 1]) {
                continue; // as the one before
            }
            let mut take = |step, after| steps.push((step, Self::sorted(after)));
            self.elections(state, i, &mut take);
            self.leads(state, i, &mut take);
            self.follows(state, i, &mut take);
        }
        steps
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        state.bad
    }
}

type Take<'a> = dyn FnMut(Step, State) + 'a;

impl Verified {
    fn elections(&self, state: &State, i: usize, take: &mut Take<'_>) {
        let node = &state.nodes[i];
        let own = recency(&node.log);
        if own.tail.0.0 >= self.entries * FRAME {
            return;
        }
        for term in node.term + 1..=self.terms {
            if state.reigns[term as usize].log.is_some() {
                continue;
            }
            let may = |j: usize| {
                let other = &state.nodes[j];
                j != i && other.term < term && own >= recency(&other.log)
            };
            let willing: Vec<_> = (0..self.nodes).filter(|&j| may(j)).collect();
            for set in 0..1u32 << willing.len() {
                if set.count_ones() as usize != self.nodes / 2 {
                    continue;
                }
                let others: Vec<_> =
                    (0..willing.len()).filter(|&k| set >> k & 1 == 1).map(|k| willing[k]).collect();
                let mut after = state.clone();
                Self::elect(&mut after, i, &others, term);
                take(Step::Elect { term, last: (own.last.term.0, own.tail.0.0) }, after);
            }
        }
    }

    fn leads(&self, state: &State, i: usize, take: &mut Take<'_>) {
        let node = &state.nodes[i];
        if !matches!(node.role, Role::Leads { .. }) {
            return;
        }
        let term = node.term;
        if node.log.tail().position.0 < self.entries * FRAME {
            let mut after = state.clone();
            append(&mut after.nodes[i].log, term, false);
            after.reigns[term as usize].log = Some(after.nodes[i].log.clone());
            take(Step::Propose { term }, after);
        }
        let mut after = state.clone();
        if let Some(upto) = self.commit(&mut after, i) {
            take(Step::Commit { term, upto }, after);
        }
    }

    fn follows(&self, state: &State, i: usize, take: &mut Take<'_>) {
        let node = &state.nodes[i];
        let tail = node.log.tail().position.0;
        for term in node.term..=self.terms {
            let free = term > node.term || node.role == Role::None;
            if free && state.reigns[term as usize].log.is_some() {
                let mut after = state.clone();
                self.follow(&mut after.nodes[i], term);
                take(Step::Follow { term, tail }, after);
            }
        }
        let term = node.term;
        let reign = &state.reigns[term as usize];
        let (Role::Follows(_), Some(leader)) = (&node.role, &reign.log) else { return };
        let mut after = state.clone();
        if let Some(answer) = Self::ask(&mut after.nodes[i], leader) {
            take(Step::Ask { term, answer }, after);
        }
        // The core takes what is of its own leadership.
        for (_, answer) in node.answers.iter().filter(|(of, _)| *of == term) {
            let mut after = state.clone();
            if self.answer(&mut after, i, answer) {
                let now = after.nodes[i].log.tail().position.0;
                take(Step::Answer { term, tail, after: now }, after);
            }
        }
        for from in (0..leader.tail().position.0).step_by(self.piece as usize) {
            let mut after = state.clone();
            if self.datagram(&mut after.nodes[i], leader, from, false) {
                let verified = after.nodes[i].log.tail().position.0;
                take(Step::Datagram { term, from, verified }, after);
            }
            let mut after = state.clone();
            after.spoiled += 1;
            if after.spoiled <= self.spoiled
                && self.datagram(&mut after.nodes[i], leader, from, true)
            {
                let verified = after.nodes[i].log.tail().position.0;
                take(Step::Spoiled { term, from, verified }, after);
            }
        }
        let mut after = state.clone();
        if self.learn(&mut after, i, reign.commit) {
            let upto = after.nodes[i].commit.0;
            take(Step::LearnsCommit { term, upto }, after);
        }
    }
}

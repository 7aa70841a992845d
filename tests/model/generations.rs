//! M5: generations that a person opens, and nodes that meet a group whose log is not their own. What a node answers for,
//! when it refuses, and who votes in a new generation, as they ship (`control::rejoin`), with the commit rule.
//!
//! An election inside a generation is one step, without the election type: its votes are explored elsewhere. Appends,
//! acknowledgements and what is known as committed are facts.

use quorate::control::election::Member;
use quorate::control::rejoin::{Answerable, Meeting, Verdict, judge, next_generation, survivors};
use quorate::mutants::Mutants;
use quorate::replica::quorum::{LeaderSide, Progress, commit_position, majority};
use quorate::types::{Commit, Generation, NodeId, Position};

use crate::explore::Model;

const NODES: usize = 3;
const GENERATIONS: usize = 3;
const TERMS: usize = 3;
const ENTRIES: usize = 5;

/// What is explored, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Histories {
    pub(crate) terms: u8,
    pub(crate) entries: u8,
    pub(crate) overrides: usize,
    pub(crate) restarts: u8,
    /// A random number is drawn for each generation.
    pub(crate) random: bool,
    /// An override opens a generation; else the node just leads alone.
    pub(crate) opens: bool,
    /// Who is not named is an observer.
    pub(crate) observers: bool,
    pub(crate) mutants: Mutants,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Log {
    /// Generation, term, and the voters if the entry names them.
    entries: [u16; ENTRIES],
    length: u8,
}

impl Log {
    fn common(&self, other: &Self) -> u8 {
        let length = self.length.min(other.length) as usize;
        (0..length).take_while(|&at| self.entries[at] == other.entries[at]).count() as u8
    }
    fn upto(mut self, length: u8) -> Self {
        self.length = self.length.min(length);
        self.entries[self.length as usize..].fill(0);
        self
    }
    fn push(&mut self, generation: usize, term: u8, voters: u8) {
        let entry = (generation as u16) << 8 | u16::from(term) << 4 | u16::from(voters);
        self.entries[self.length as usize] = entry;
        self.length += 1;
    }
    fn voters(&self) -> u8 {
        let lists = self.entries[..self.length as usize].iter().rev();
        lists.map(|entry| (entry & 15) as u8).find(|&voters| voters != 0).unwrap_or(7)
    }
    fn last(&self) -> (u16, u8) {
        let last = self.length.checked_sub(1).map_or(0, |at| self.entries[at as usize] >> 4);
        (last, self.length)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Node {
    generation: usize,
    term: u8,
    log: Log,
    leads: bool,
    answers_for: Answerable,
    /// Known as committed, on the disk.
    persisted: u8,
    /// It leads alone by its own say.
    alone: bool,
    refused: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Reign {
    leader: Option<usize>,
    opened: u8,
    log: Log,
    commit: u8,
    said: [u8; NODES],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Opened {
    name: Generation,
    reigns: [Reign; TERMS],
    committed: Log,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    nodes: [Node; NODES],
    generations: [Opened; GENERATIONS],
    used: usize,
    restarts: u8,
    /// By node, the longest log that it told clients is committed.
    told: [Log; NODES],
    bad: Option<&'static str>,
}

#[derive(Clone, Debug)]
#[allow(dead_code)] // read by people, in a schedule
pub(crate) enum Step {
    Override { node: usize, voters: u8, generation: Generation },
    Elect { node: usize, voters: u8, term: u8 },
    Propose { leader: usize },
    Receive { node: usize, generation: Generation, term: u8, upto: u8 },
    Commit { leader: usize, upto: u8 },
    Persist { node: usize },
    Restart { node: usize },
    Join { node: usize, generation: Generation, cut: u8 },
    Refuse { node: usize, generation: Generation },
}

fn position(entries: u8) -> Position {
    Position(u64::from(entries))
}

fn count(position: Position) -> u8 {
    position.0 as u8
}

impl Histories {
    pub(crate) const ON: Self = Self {
        terms: 2,
        entries: 2,
        overrides: 2,
        restarts: 1,
        random: true,
        opens: true,
        observers: true,
        mutants: Mutants::NONE,
    };

    fn open(state: &mut State, n: usize, generation: usize, term: u8, voters: u8) {
        let node = &mut state.nodes[n];
        (node.generation, node.term, node.leads) = (generation, term, true);
        let base = &state.generations[generation].committed;
        if node.log.common(base) < base.length {
            state.bad = Some("two committed histories in one generation");
        }
        node.log.push(generation, term, voters);
        node.answers_for.offered = position(node.log.length);
        let reign = &mut state.generations[generation].reigns[term as usize];
        (reign.leader, reign.opened, reign.log) = (Some(n), node.log.length, node.log);
    }

    fn opens(&self, state: &State, n: usize, with: usize) -> Option<(Step, State)> {
        let (node, other) = (&state.nodes[n], &state.nodes[with]);
        if state.used > self.overrides || node.log.length >= self.entries {
            return None;
        }
        let mut after = *state;
        let name = state.generations[node.generation].name;
        if !self.opens {
            after.nodes[n].alone = true;
            return (with == n && !node.alone)
                .then_some((Step::Override { node: n, voters: 1 << n, generation: name }, after));
        }
        let rank = |node: &Node| (state.generations[node.generation].name, node.log.last());
        if rank(other) > rank(node) {
            return None;
        }
        let member = |m| Member { node: NodeId(m), voter: true, priority: 1 };
        let list: Vec<_> = (0..NODES as u16).map(member).collect();
        let named = [NodeId(n as u16), NodeId(with as u16)];
        let voters = survivors(&list, NodeId(n as u16), &named).ok()?;
        let voters = voters.iter().filter(|m| m.voter).fold(0u8, |set, m| set | 1 << m.node.0);
        let random = if self.random { 1 + state.used as u32 } else { 1 };
        let generation = next_generation(name, random);
        after.generations[state.used] = Opened { name: generation, ..Opened::default() };
        after.used += 1;
        Self::open(&mut after, n, state.used, 1, voters);
        Some((Step::Override { node: n, voters, generation }, after))
    }

    /// Generations of one name are one to those who see the name only.
    fn alike(state: &State, a: usize, b: usize) -> bool {
        state.generations[a].name == state.generations[b].name
    }

    fn voters(&self, state: &State, n: usize) -> u8 {
        let node = &state.nodes[n];
        let opener = state.generations[node.generation].reigns[1].leader == Some(n);
        if self.observers || opener { node.log.voters() } else { 7 }
    }

    fn elect(&self, state: &State, n: usize, out: &mut Vec<(Step, State)>) {
        let node = &state.nodes[n];
        let (voters, term) = (self.voters(state, n), node.term + 1);
        let may = !node.leads && voters >> n & 1 == 1 && node.log.length < self.entries;
        let free =
            |term: u8| state.generations[node.generation].reigns[term as usize].leader.is_none();
        if !may || term > self.terms || !free(term) {
            return;
        }
        for set in 1..8u8 {
            let needed = majority(voters.count_ones() as usize);
            let enough = set.count_ones() as usize == needed || (node.alone && set == 1 << n);
            let agree = |m: &usize| {
                let other = &state.nodes[*m];
                let same = Self::alike(state, other.generation, node.generation);
                same && other.term < term && other.log.last() <= node.log.last()
            };
            let mut members = (0..NODES).filter(|m| set >> m & 1 == 1);
            if set >> n & 1 == 0 || set & !voters != 0 || !enough || !members.all(|m| agree(&m)) {
                continue;
            }
            let mut after = *state;
            for m in (0..NODES).filter(|m| set >> m & 1 == 1) {
                (after.nodes[m].term, after.nodes[m].leads) = (term, false);
            }
            Self::open(&mut after, n, node.generation, term, 0);
            out.push((Step::Elect { node: n, voters: set, term }, after));
        }
    }

    fn commit(&self, state: &State, n: usize) -> Option<(Step, State)> {
        let node = &state.nodes[n];
        let voters = self.voters(state, n);
        let reign = &state.generations[node.generation].reigns[node.term as usize];
        let said = |m: usize| {
            let alike = (0..state.used).filter(|&g| Self::alike(state, g, node.generation));
            alike.map(|g| state.generations[g].reigns[node.term as usize].said[m]).max()
        };
        let others: Vec<_> = (0..NODES)
            .filter(|&m| m != n)
            .map(|m| {
                let promised = position(said(m).unwrap_or(0));
                Progress { voter: voters >> m & 1 == 1, promised, ..Progress::default() }
            })
            .collect();
        let side = LeaderSide {
            promised: position(node.log.length),
            term_opened: position(reign.opened),
            followers: quorate::link::Rung::Memory,
        };
        let number = if node.alone { 1 } else { voters.count_ones() as usize };
        let commit = commit_position(side, &others, number, node.answers_for.commit)?;
        let (now, mut after) = (node.log.upto(count(commit.0)), *state);
        let opened = &mut after.generations[node.generation];
        opened.reigns[node.term as usize].commit = now.length;
        if now.common(&opened.committed) < now.length.min(opened.committed.length) {
            after.bad = Some("two committed histories in one generation");
        }
        if now.length > opened.committed.length {
            opened.committed = now;
        }
        after.nodes[n].answers_for.commit = commit;
        after.told[n] = now;
        Some((Step::Commit { leader: n, upto: now.length }, after))
    }

    /// Node `n` takes the log of a leader, up to `upto`. Returns what it cut.
    fn adopt(state: &mut State, n: usize, from: (usize, u8), upto: u8, across: bool) -> u8 {
        let (generation, term) = from;
        let reign = state.generations[generation].reigns[term as usize];
        let node = &mut state.nodes[n];
        let keep = node.log.common(&reign.log);
        let cut = node.log.length - keep;
        if across && cut > 0 && node.log.common(&state.told[n]) > keep {
            state.bad = Some("what it told clients is committed was cut without a refusal");
        }
        node.log = reign.log.upto(upto.max(keep));
        (node.generation, node.term, node.leads) = (generation, term, false);
        let held = &mut node.answers_for;
        let known = if across { held.commit.0.min(position(keep)) } else { held.commit.0 };
        held.commit = Commit(known.max(position(reign.commit.min(node.log.length))));
        let end = position(node.log.length);
        held.offered = if across { end } else { held.offered.max(end) };
        held.unsure &= held.commit.0 < held.offered;
        node.persisted = node.persisted.min(count(held.commit.0));
        let said = &mut state.generations[generation].reigns[term as usize].said[n];
        *said = (*said).max(node.log.length);
        cut
    }

    fn meets(&self, state: &State, n: usize, from: (usize, u8), out: &mut Vec<(Step, State)>) {
        let (generation, term) = from;
        let node = &state.nodes[n];
        let reign = &state.generations[generation].reigns[term as usize];
        let name = state.generations[generation].name;
        let meeting = Meeting {
            own: state.generations[node.generation].name,
            tail: position(node.log.length),
            theirs: name,
            their_tail: position(reign.log.length),
            common: position(node.log.common(&reign.log)),
        };
        let mut after = *state;
        match judge(meeting, node.answers_for, self.mutants) {
            Verdict::Older => {}
            Verdict::Follow | Verdict::Cut { .. } => {
                let cut = Self::adopt(&mut after, n, from, reign.log.length, true);
                out.push((Step::Join { node: n, generation: name, cut }, after));
            }
            Verdict::Refuse(_) if node.refused => {}
            Verdict::Refuse(_) => {
                after.nodes[n].refused = true;
                out.push((Step::Refuse { node: n, generation: name }, after));
            }
        }
    }

    fn follows(&self, state: &State, n: usize, out: &mut Vec<(Step, State)>) {
        let node = &state.nodes[n];
        for generation in 0..state.used {
            for term in 1..=self.terms {
                let reign = &state.generations[generation].reigns[term as usize];
                if reign.leader.is_none_or(|leader| leader == n) {
                    continue;
                }
                if !Self::alike(state, generation, node.generation) {
                    self.meets(state, n, (generation, term), out);
                    continue;
                }
                for upto in 1..=reign.log.length {
                    let known = count(node.answers_for.commit.0);
                    let news = reign.said[n] < upto || known < reign.commit.min(upto);
                    if term < node.term || !news {
                        continue;
                    }
                    let mut after = *state;
                    Self::adopt(&mut after, n, (generation, term), upto, false);
                    let name = state.generations[generation].name;
                    out.push((Step::Receive { node: n, generation: name, term, upto }, after));
                }
            }
        }
    }

    fn keeps(&self, state: &State, n: usize, out: &mut Vec<(Step, State)>) {
        let node = &state.nodes[n];
        let known = count(node.answers_for.commit.0);
        if node.persisted < known {
            let mut after = *state;
            after.nodes[n].persisted = known;
            out.push((Step::Persist { node: n }, after));
        }
        if state.restarts < self.restarts && (node.leads || known > node.persisted) {
            let mut after = *state;
            let own = &mut after.nodes[n];
            own.leads = false;
            own.answers_for.commit = Commit(position(own.persisted));
            own.answers_for.unsure = true;
            after.restarts += 1;
            out.push((Step::Restart { node: n }, after));
        }
    }
}

impl Model for Histories {
    type State = State;
    type Step = Step;

    /// Node 0 leads term 1 of the generation that the group was founded in.
    fn begin(&self) -> State {
        let mut state = State {
            nodes: [Node { term: 1, ..Node::default() }; NODES],
            generations: [Opened::default(); GENERATIONS],
            used: 1,
            restarts: 0,
            told: [Log::default(); NODES],
            bad: None,
        };
        state.generations[0].name = Generation { counter: 1, random: 99 };
        Self::open(&mut state, 0, 0, 1, 0);
        state
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut out = Vec::new();
        for n in 0..NODES {
            out.extend((0..NODES).filter_map(|with| self.opens(state, n, with)));
            self.elect(state, n, &mut out);
            if state.nodes[n].leads {
                if state.nodes[n].log.length < self.entries {
                    let mut after = *state;
                    let node = &mut after.nodes[n];
                    node.log.push(node.generation, node.term, 0);
                    node.answers_for.offered = position(node.log.length);
                    let opened = &mut after.generations[node.generation];
                    opened.reigns[node.term as usize].log = node.log;
                    out.push((Step::Propose { leader: n }, after));
                }
                out.extend(self.commit(state, n));
            }
            self.keeps(state, n, &mut out);
            self.follows(state, n, &mut out);
        }
        out
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        state.bad
    }
}

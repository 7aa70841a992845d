//! The logs of the nodes, frame by frame, and the one log that is committed.

use std::collections::BTreeMap;

use super::{Checked, Violation};
use crate::frame::Predecessor;
use crate::journal::Disk;
use crate::journal::memory_disk::MemoryDisk;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::link::{Durability, Rung};
use crate::replica::{Doing, Observation};
use crate::sim::machine::{GROUP, SimCore, Started};
use crate::sim::plan::Plan;
use crate::types::{Chain, CutEpoch, Incarnation, Leadership, Nanos, Position, Term};

/// Log matching, commitment, durability and promises.
pub(super) struct Logs {
    plan: Plan,
    nodes: Vec<Node>,
    /// Ends of all committed frames.
    committed: Vec<Predecessor>,
    /// In which leaderships, and how many were committed at the end of each.
    committed_in: Vec<(Leadership, usize)>,
    /// When each of them was.
    committed_at: Vec<Nanos>,
    /// How long the first committed entry that an observer lacked had been so, at most, ns.
    pub(super) observer_lag_ns: u64,
    /// The chain at the end of each frame ever seen, and whose it was first.
    chains: BTreeMap<(Term, Position), (Chain, usize)>,
}

struct Node {
    /// Ends of the frames of its log, whatever became of them later.
    ends: Vec<Predecessor>,
    /// What of `ends` a power loss took: how many frames were left, and the ends of the others. What it acknowledged of them
    /// may still be on its way, and counts; that it has forgotten them is known, and bars it from voting.
    forgotten: (usize, Vec<Predecessor>),
    /// How much of them was durable: the disk is another one now.
    durable_then: Position,
    cut_epoch: CutEpoch,
    /// Of `ends`, how many are known to be committed.
    committed: usize,
    /// In force when it was last looked at.
    durability: Durability,
    /// What its core was told is on its disk, and what it may have promised.
    durable: Position,
    promised: Position,
    /// Its life as a voter, and what was committed when that began.
    incarnation: Incarnation,
    committed_then: usize,
    /// The newest fence that its core was told of in this life, and the one when it was last told to take over a log.
    fence_sent: Leadership,
    pull_fence: Option<Leadership>,
    /// Its fence when it was last looked at.
    fence_seen: Leadership,
    /// If nothing may have grown its log since: that fence, and where the log ended when it was first seen.
    fenced_at: Option<(Leadership, Position)>,
    cuts: Cuts,
}

/// Cuts in this life of a process.
#[derive(Default)]
struct Cuts {
    /// Done, with the number of each.
    done: Vec<CutEpoch>,
    /// Told: from where to where.
    told: Vec<(Position, Position)>,
    looked_at: usize,
}

/// For each role the lower of the two rungs.
fn looser(one: Durability, other: Durability) -> Durability {
    let follower = one.follower.min(other.follower);
    Durability { leader: one.leader.min(other.leader), follower }
}

impl Logs {
    pub(super) fn new(plan: &Plan) -> Self {
        let node = || Node {
            ends: vec![Predecessor::genesis(GROUP)],
            forgotten: (0, Vec::new()),
            durable_then: Position(0),
            cut_epoch: CutEpoch(0),
            committed: 1,
            durability: plan.durability,
            durable: Position(0),
            promised: Position(0),
            incarnation: Incarnation(0),
            committed_then: 1,
            fence_sent: Leadership::default(),
            pull_fence: None,
            fence_seen: Leadership::default(),
            fenced_at: None,
            cuts: Cuts::default(),
        };
        Self {
            plan: plan.clone(),
            nodes: (0..plan.nodes).map(|_| node()).collect(),
            committed: vec![Predecessor::genesis(GROUP)],
            committed_in: Vec::new(),
            committed_at: vec![Nanos(0)],
            observer_lag_ns: 0,
            chains: BTreeMap::new(),
        }
    }

    /// Entries committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed.len() as u64 - 1
    }

    /// Takes note of what a core has appended, cut and committed.
    pub(super) fn follow(
        &mut self,
        now: Nanos,
        node: usize,
        core: &SimCore,
        observed: &Observation,
    ) -> Checked {
        if observed.cut_epoch != self.nodes[node].cut_epoch && observed.cutting_at.is_none() {
            self.nodes[node].cut_epoch = observed.cut_epoch;
            self.cut(node, core)?;
        }
        self.appended(node, core, observed)?;
        self.promises(node, observed);
        self.commit(node, observed)?;
        self.nodes[node].durability = observed.durability;
        self.committed_at.resize(self.committed.len(), now);
        let lacks = self.committed_at.get(self.nodes[node].committed);
        if let (Some(at), true, Doing::Follows { matched: true }) =
            (lacks, self.plan.observers[node], observed.doing)
        {
            self.observer_lag_ns = self.observer_lag_ns.max(now.since(*at));
        }
        Ok(())
    }

    fn cut(&mut self, node: usize, core: &SimCore) -> Checked {
        let log = core.log();
        let known = &mut self.nodes[node];
        known.cuts.done.push(known.cut_epoch);
        while let Some(&end) = known.ends.last()
            && end.position >= log.hot_base()
            && log.predecessor_at(end.position) != Some(end)
        {
            known.ends.pop();
            let index = known.ends.len();
            if self.committed.get(index) == Some(&end) {
                let text = format!("node {node} cut the committed entry before {}", end.position);
                return Err(Violation::new("committed_cut", text));
            }
        }
        let end = known.ends.last().map_or(Position(0), |end| end.position);
        known.durable = known.durable.min(end);
        known.promised = known.promised.min(end);
        known.committed = known.committed.min(known.ends.len());
        Ok(())
    }

    fn appended(&mut self, node: usize, core: &SimCore, observed: &Observation) -> Checked {
        let known = &mut self.nodes[node];
        let mut end = *known.ends.last().expect("genesis stays");
        if end.position == observed.tail.position {
            return Ok(());
        }
        // D7: what was asked for before a fence is not taken after it. One step may append (a leader's change of the
        // durability, say) and fence behind that: what the fence reports has it then.
        let fenced_before = observed.fence == known.fence_seen;
        let pulls = known.pull_fence.is_some_and(|at| at >= observed.fence);
        if observed.doing == Doing::Idle && fenced_before && !pulls {
            let text = format!("the log of node {node} grows after the fence {}", observed.fence);
            return Err(Violation::new("fence", text));
        }
        for (_, header, _) in core.log().frames(end.position, observed.tail.position) {
            end = end.after(&header);
            known.ends.push(end);
            let (chain, first) =
                *self.chains.entry((end.term, end.position)).or_insert((end.chain, node));
            if chain != end.chain {
                let text = format!(
                    "nodes {first} and {node} differ at {} in term {}",
                    end.position, end.term
                );
                return Err(Violation::new("log_matching", text));
            }
        }
        if end == observed.tail {
            return Ok(());
        }
        let text = format!("node {node} ends at {:?}, walked to {end:?}", observed.tail);
        Err(Violation::new("log_matching", text))
    }

    fn promises(&mut self, node: usize, observed: &Observation) {
        let known = &mut self.nodes[node];
        if observed.fence != known.fence_seen {
            let pulls = known.pull_fence.is_some_and(|at| at >= observed.fence);
            let rests = observed.doing == Doing::Idle && !pulls;
            known.fenced_at = rests.then_some((observed.fence, observed.tail.position));
        }
        known.fence_seen = observed.fence;
        let floor =
            |position: Position| observed.cutting_at.map_or(position, |at| position.min(at));
        known.durable = floor(known.durable.max(observed.durable.0));
        let follows = matches!(observed.doing, Doing::Follows { matched: true });
        if follows
            && observed.may_ack_memory
            && !observed.provisional
            && observed.durability.follower == Rung::Memory
        {
            known.promised = known.promised.max(observed.tail.position);
        }
        known.promised = floor(known.promised.max(known.durable));
    }

    fn commit(&mut self, node: usize, observed: &Observation) -> Checked {
        let commit = observed.commit.0.min(observed.tail.position);
        let from = self.committed.len();
        let known = &self.nodes[node];
        let mut index = known.committed;
        while let Some(&end) = known.ends.get(index)
            && end.position <= commit
        {
            match self.committed.get(index) {
                None => self.committed.push(end),
                Some(committed) if *committed == end => {}
                Some(committed) => {
                    let text = format!(
                        "node {node} took {end:?} as committed where {committed:?} was committed"
                    );
                    return Err(Violation::new("committed_changed", text));
                }
            }
            index += 1;
        }
        self.nodes[node].committed = index;
        if self.committed.len() == from {
            return Ok(());
        }
        match self.committed_in.last_mut() {
            Some((last, count)) if *last == observed.fence => *count = self.committed.len(),
            _ => self.committed_in.push((observed.fence, self.committed.len())),
        }
        self.newly_committed(node, observed)
    }

    /// `node` is the first to know: it has counted.
    fn newly_committed(&self, node: usize, observed: &Observation) -> Checked {
        let index = self.committed.len() - 1;
        let end = self.committed[index];
        // An entry that changes it may be committed and applied in one step.
        let rungs = looser(self.nodes[node].durability, observed.durability);
        let holds = |other: &usize| self.holds(*other, node, index, rungs);
        let held = self.plan.voters().filter(holds).count();
        if held < self.plan.majority() {
            let text = format!("node {node} committed {end:?}, which {held} voters hold");
            return Err(Violation::new("committed_on_a_quorum", text));
        }
        if matches!(observed.doing, Doing::Leads { .. }) && end.term != observed.fence.term {
            let text = format!("node {node} committed {end:?} in {}", observed.fence);
            return Err(Violation::new("own_term_commit", text));
        }
        Ok(())
    }

    /// Whether a node holds a committed entry as its rung of the ladder asks.
    fn holds(&self, other: usize, leader: usize, index: usize, durability: Durability) -> bool {
        let rung = if other == leader { durability.leader } else { durability.follower };
        let (known, end) = (&self.nodes[other], self.committed[index]);
        let there = known.ends.get(index) == Some(&end);
        let (left, forgotten) = &known.forgotten;
        let forgot = index.checked_sub(*left).and_then(|index| forgotten.get(index));
        if forgot == Some(&end) && (rung == Rung::Memory || end.position <= known.durable_then) {
            return true;
        }
        there && (rung == Rung::Memory || known.durable >= end.position)
    }

    /// A new leader's log holds everything that was committed in older leaderships. One that is elected late may lack what was
    /// committed in a newer one: no quorum listens to it any more.
    pub(super) fn leader_is_complete(&self, node: usize, leadership: Leadership) -> Checked {
        let older = self.committed_in.iter().filter(|(of, _)| *of < leadership);
        let Some(index) = older.map(|(_, count)| count - 1).max() else { return Ok(()) };
        if self.nodes[node].ends.get(index) == Some(&self.committed[index]) {
            return Ok(());
        }
        let text = format!(
            "node {node} leads {leadership} without the committed entry before {}",
            self.committed[index].position
        );
        Err(Violation::new("leader_completeness", text))
    }

    pub(super) fn fence_sent(&mut self, node: usize, to: Leadership) {
        let known = &mut self.nodes[node];
        known.fence_sent = known.fence_sent.max(to);
    }

    /// D7, within one step: what the core says of its log at a fence is all that it has after it.
    pub(super) fn ended_at_fence(
        &mut self,
        node: usize,
        at: Leadership,
        tail: Position,
    ) -> Checked {
        let seen = self.nodes[node].fenced_at.take_if(|(fence, _)| *fence == at);
        match seen {
            Some((_, end)) if end != tail => {
                let text =
                    format!("node {node} ended at {tail} at the fence {at}, and then at {end}");
                Err(Violation::new("fence", text))
            }
            _ => Ok(()),
        }
    }

    /// D7: what a core's answer to a fence says of its log holds, until it has a role or takes over a log again.
    pub(super) fn fenced(
        &self,
        node: usize,
        (to, tail): (Leadership, Position),
        now: &Observation,
    ) -> Checked {
        let pulls = self.nodes[node].pull_fence.is_some_and(|at| at >= to);
        let stands = now.fence == to && now.doing == Doing::Idle && !pulls;
        if stands && now.tail.position > tail {
            let end = now.tail.position;
            let text = format!("node {node} answered the fence {to} with {tail}, and has {end}");
            return Err(Violation::new("fence", text));
        }
        Ok(())
    }

    pub(super) fn take_over(&mut self, node: usize) {
        let known = &mut self.nodes[node];
        known.pull_fence = Some(known.fence_sent);
    }

    pub(super) fn cut_told(&mut self, node: usize, from: Position, to: Position) {
        self.nodes[node].cuts.told.push((from, to));
    }

    /// D12: every cut was told, and what was cut is in a file of its own.
    pub(super) fn cuts_are_kept(&mut self, node: usize, disk: &MemoryDisk) -> Checked {
        let cuts = &mut self.nodes[node].cuts;
        while let Some(epoch) = cuts.done.get(cuts.looked_at) {
            let Some((from, to)) = cuts.told.get(cuts.looked_at) else {
                let text = format!("node {node} cut its log, number {}, and told nobody", epoch.0);
                return Err(Violation::new("cut_kept", text));
            };
            cuts.looked_at += 1;
            let stem = format!("quarantine/{:08x}-{:016x}-{:016x}", epoch.0, from.0, to.0);
            // A number stands behind it where an attempt that was broken off left a file.
            let names = disk.list().unwrap_or_default().into_iter();
            let name = names.filter(|name| name.starts_with(&stem)).max_by_key(String::len);
            let kept =
                name.and_then(|name| disk.bytes(&name)).map_or(0, |bytes| bytes.len() as u64);
            if kept != SEGMENT_HEADER_BYTES as u64 + to.since(*from) {
                let text = format!("node {node} cut {from} to {to}, and kept {kept} bytes of it");
                return Err(Violation::new("cut_kept", text));
            }
        }
        Ok(())
    }

    /// A node that may have forgotten something is a voter again: what was committed when it came back is on its disk.
    pub(super) fn readmitted(&self, node: usize) -> Checked {
        let known = &self.nodes[node];
        let end = self.committed[known.committed_then - 1];
        let there = known.ends.get(known.committed_then - 1) == Some(&end);
        if there && known.durable >= end.position {
            return Ok(());
        }
        let text = format!("node {node} without the committed entry before {}", end.position);
        Err(Violation::new("readmitted_early", text))
    }

    /// The node has forgotten everything.
    pub(super) fn wiped(&mut self, node: usize) {
        let known = &mut self.nodes[node];
        let forgotten = known.ends.split_off(1);
        *known = Node {
            ends: core::mem::take(&mut known.ends),
            forgotten: (1, forgotten),
            durable_then: known.durable,
            cut_epoch: CutEpoch(0),
            committed: 1,
            durability: known.durability,
            durable: Position(0),
            promised: Position(0),
            incarnation: Incarnation(0),
            committed_then: 1,
            fence_sent: Leadership::default(),
            pull_fence: None,
            fence_seen: Leadership::default(),
            fenced_at: None,
            cuts: Cuts::default(),
        };
    }

    /// A snapshot of another node has taken the place of the log: it is of what is committed, and goes further.
    fn installed(&mut self, node: usize, position: Position) -> Checked {
        let Some(index) = self.committed.iter().position(|end| end.position == position) else {
            let text =
                format!("node {node} took a snapshot at {position}, where nothing was committed");
            return Err(Violation::new("snapshot_committed", text));
        };
        let known = &mut self.nodes[node];
        if index < known.committed {
            let text =
                format!("node {node} took a snapshot at {position} and gave up committed entries");
            return Err(Violation::new("committed_cut", text));
        }
        known.ends = self.committed[..=index].to_vec();
        known.durable = known.durable.min(position);
        known.promised = known.promised.min(position);
        Ok(())
    }

    /// What came back after a crash: a prefix, with everything that was durable, or it is known that it may not be.
    pub(super) fn started(&mut self, node: usize, started: &Started) -> Checked {
        if let Some(position) = started.installed {
            self.installed(node, position)?;
        }
        let known = &mut self.nodes[node];
        let tail = started.tail;
        let Some(last) = known.ends.iter().rposition(|end| *end == tail) else {
            let text = format!("node {node} came back with {tail:?}, which it never had");
            return Err(Violation::new("durable_lost", text));
        };
        // Seed 5000523: what no seal says yet, and rots before the power fails, looks torn. It is cut, and the node says that it
        // may have forgotten something.
        let taken_for_torn = started.rotted && started.torn && started.provisional;
        if tail.position < known.durable && !taken_for_torn {
            let text =
                format!("node {node}: {} was durable, came back with {tail:?}", known.durable);
            return Err(Violation::new("durable_lost", text));
        }
        if tail.position < known.promised && !started.provisional {
            let text = format!(
                "node {node} had promised {}, came back with {tail:?} and does not say so",
                known.promised
            );
            return Err(Violation::new("promise_lost", text));
        }
        // One that comes back while it is provisional has promised nothing since.
        if started.provisional
            && core::mem::replace(&mut known.incarnation, started.incarnation)
                != started.incarnation
        {
            known.committed_then = self.committed.len();
        }
        let forgotten = known.ends.split_off(last + 1);
        // What was wiped before is forgotten still.
        if !started.stateless || !forgotten.is_empty() {
            known.forgotten = (last + 1, if started.provisional { forgotten } else { Vec::new() });
            known.durable_then = if taken_for_torn { known.durable } else { Position(0) };
        }
        known.committed = known.committed.min(known.ends.len());
        known.durable = tail.position;
        known.promised = tail.position;
        (known.fence_sent, known.pull_fence) = (started.fence, None);
        (known.fence_seen, known.fenced_at) = (started.fence, None);
        known.cuts = Cuts::default();
        // Recovery numbers no cuts of its own; the core's count goes on from the node state.
        known.cut_epoch = started.cut_epoch;
        Ok(())
    }
}

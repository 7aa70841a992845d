//! Who leads, who voted for whom, and that nobody goes back.

use std::collections::BTreeMap;

use super::{Checked, Violation};
use crate::control::message::Standing;
use crate::link::Promise;
use crate::replica::{Doing, Observation};
use crate::sim::machine::Started;
use crate::sim::plan::Plan;
use crate::types::{Generation, Leadership, Nanos, NodeId};

/// One leader for each term of each generation; one vote; fences only rise.
pub(super) struct Leaderships {
    plan: Plan,
    leaders: BTreeMap<Leadership, usize>,
    generation: Option<Generation>,
    nodes: Vec<Node>,
}

#[derive(Clone, Default)]
struct Node {
    /// Newest leadership that is durable there.
    promised: Leadership,
    /// The vote in it was made durable ahead of the fence.
    ahead: bool,
    /// For whom it voted, and what its word was worth then.
    votes: BTreeMap<Leadership, (NodeId, Standing)>,
    /// It is part of a group that was founded, and has not forgotten it.
    member: bool,
    /// Its votes up to here were on a disk that it has no more.
    wiped_at: Leadership,
    /// The core's fence in this life.
    fence: Leadership,
    /// Since when it leads, as its core sees it, and when datagrams of each other node last arrived there.
    leads_since: Option<Nanos>,
    heard: Vec<Nanos>,
}

impl Leaderships {
    pub(super) fn new(plan: &Plan) -> Self {
        let nodes = plan.nodes;
        let node = Node { heard: vec![Nanos(0); nodes], ..Node::default() };
        Self {
            plan: plan.clone(),
            leaders: BTreeMap::new(),
            generation: None,
            nodes: vec![node; nodes],
        }
    }

    /// The core's fence never falls.
    pub(super) fn fence(&mut self, node: usize, observed: &Observation) -> Checked {
        let known = &mut self.nodes[node];
        if observed.fence < known.fence {
            let text = format!("node {node} fell from {} to {}", known.fence, observed.fence);
            return Err(Violation::new("fence", text));
        }
        known.fence = observed.fence;
        Ok(())
    }

    /// Takes note of leaders; returns whether this one is new.
    pub(super) fn role(&mut self, node: usize, observed: &Observation) -> Result<bool, Violation> {
        if !matches!(observed.doing, Doing::Leads { .. }) {
            return Ok(false);
        }
        let leadership = observed.fence;
        if !self.plan.is_electable(node) {
            let text = format!("node {node}, which never may, leads {leadership}");
            return Err(Violation::new("never_leads", text));
        }
        if self.nodes[node].promised < leadership {
            let text = format!("node {node} leads {leadership}, which is not durable there");
            return Err(Violation::new("fence", text));
        }
        let generation = *self.generation.get_or_insert(leadership.generation);
        if generation != leadership.generation {
            let text =
                format!("node {node} leads {leadership}, and the group is of {generation:?}");
            return Err(Violation::new("one_generation", text));
        }
        match self.leaders.insert(leadership, node) {
            None => self.elected(node, leadership).map(|()| true),
            Some(same) if same == node => Ok(false),
            Some(other) => {
                let text = format!("nodes {other} and {node} lead {leadership}");
                Err(Violation::new("one_leader", text))
            }
        }
    }

    /// It has the durable votes of a quorum that has forgotten nothing; or every voter's, none or all of them without state.
    fn elected(&self, node: usize, leadership: Leadership) -> Checked {
        let vote = |voter: &Node| voter.votes.get(&leadership).copied();
        let given: Vec<_> = self.plan.voters().filter_map(|n| vote(&self.nodes[n])).collect();
        let votes = given.iter().filter(|(who, _)| usize::from(who.0) == node);
        let standings: Vec<_> = votes.map(|(_, standing)| *standing).collect();
        let with = |which| standings.iter().filter(|standing| **standing == which).count();
        let (clean, stateless) = (with(Standing::Clean), with(Standing::Stateless));
        let count = self.plan.voters().count();
        let all = standings.len() == count;
        let witnessed = stateless == 0 || stateless == count;
        if clean >= self.plan.majority() || (all && witnessed) {
            return Ok(());
        }
        let text = format!("node {node} leads {leadership} by the votes of {standings:?}");
        Err(Violation::new("elected", text))
    }

    /// The node has forgotten everything.
    pub(super) fn wiped(&mut self, node: usize) {
        let known = &mut self.nodes[node];
        // What it promised in another founding is no word of this group's.
        if self.generation.is_none_or(|of| of == known.promised.generation) {
            known.wiped_at = known.wiped_at.max(known.promised);
        }
        known.member = false;
        known.promised = Leadership::default();
        known.fence = Leadership::default();
    }

    /// A core has got an answer to what it sent at `now`.
    pub(super) fn heard(&mut self, now: Nanos, node: usize, from: usize) {
        let known = &mut self.nodes[node].heard[from];
        *known = now.max(*known);
    }

    /// A leader that hears no quorum for longer than its time-out says so: an echo cannot have come without a datagram.
    pub(super) fn quorum(&mut self, now: Nanos, node: usize, observed: &Observation) -> Checked {
        let known = &mut self.nodes[node];
        if !matches!(observed.doing, Doing::Leads { quorum: true, .. }) {
            known.leads_since = None;
            return Ok(());
        }
        let patience = 2 * self.plan.leader_timeout_ns;
        let since = *known.leads_since.get_or_insert(now);
        let lately = |other: &usize| now.since(known.heard[*other]) <= patience;
        let heard = self.plan.voters().filter(lately).count();
        if now.since(since) <= patience || heard + 1 >= self.plan.majority() {
            return Ok(());
        }
        let text = format!("node {node} leads {}, and {heard} others were heard", observed.fence);
        Err(Violation::new("check_quorum", text))
    }

    pub(super) fn promised(&mut self, node: usize, promise: &Promise, by: Standing) -> Checked {
        let to = promise.leadership;
        let known = &mut self.nodes[node];
        if to < known.promised {
            let text = format!("node {node} promised {} before {to}", known.promised);
            return Err(Violation::new("fence", text));
        }
        if known.fence < to && !promise.ahead {
            let text = format!("node {node} promised {to}, its core is fenced at {}", known.fence);
            return Err(Violation::new("fence", text));
        }
        // D3: who is part of one founding has no part in another.
        if known.member && to.generation != known.promised.generation {
            let text = format!("node {node}, which promised {}, promises {to}", known.promised);
            return Err(Violation::new("one_generation", text));
        }
        known.member |= promise.admitted || promise.readmitted.is_some();
        known.ahead = promise.ahead || (known.ahead && known.promised == to);
        known.promised = to;
        if let Some(vote) = promise.vote
            && self.plan.observers[node]
        {
            let text = format!("node {node}, an observer, votes for {vote} in {to}");
            return Err(Violation::new("one_vote", text));
        }
        known.vote(node, to, promise.vote, by)
    }

    /// A vote is sent only when it is durable, and the core takes nothing older any more.
    pub(super) fn votes(
        &self,
        node: usize,
        of: Leadership,
        to: NodeId,
        fence: Leadership,
    ) -> Result<bool, Violation> {
        let known = &self.nodes[node];
        let durable = known.votes.get(&of).map(|(vote, _)| *vote) == Some(to);
        if !durable && of > known.wiped_at {
            let text = format!("node {node} gives {to} a vote in {of} that is not durable");
            return Err(Violation::new("one_vote", text));
        }
        if fence < of {
            let text = format!("node {node} votes in {of}, its core is fenced at {fence}");
            return Err(Violation::new("fence", text));
        }
        Ok(known.ahead && known.promised == of)
    }

    /// What is on its disk may be more than it said: the power went while it wrote.
    pub(super) fn started(&mut self, node: usize, started: &Started) -> Checked {
        let &Started { fence, vote, provisional, stateless, .. } = started;
        let known = &mut self.nodes[node];
        known.fence = fence;
        if fence < known.promised {
            let text = format!("node {node} promised {}, and starts at {fence}", known.promised);
            return Err(Violation::new("fence", text));
        }
        known.ahead |= fence > known.promised;
        known.promised = fence;
        known.member = started.stranger || !started.stateless;
        let by = match (stateless, provisional) {
            (true, _) => Standing::Stateless,
            (false, true) => Standing::Provisional,
            (false, false) => Standing::Clean,
        };
        known.vote(node, fence, vote, by)
    }
}

impl Node {
    fn vote(&mut self, node: usize, of: Leadership, vote: Option<NodeId>, by: Standing) -> Checked {
        let Some(vote) = vote else { return Ok(()) };
        if of <= self.wiped_at && self.votes.contains_key(&of) {
            return Ok(()); // it cannot know, and its word is worth that of a node without state
        }
        let clean = self.votes.get(&of).is_some_and(|(_, standing)| *standing == Standing::Clean);
        let by = if clean { Standing::Clean } else { by };
        match self.votes.insert(of, (vote, by)) {
            Some((before, Standing::Clean | Standing::Provisional)) if before != vote => {
                let text = format!("node {node} voted for {before} and {vote} in {of}");
                Err(Violation::new("one_vote", text))
            }
            _ => Ok(()),
        }
    }
}

//! Who leads, who voted for whom, and that nobody goes back.

use std::collections::BTreeMap;

use super::{Checked, Violation};
use crate::control::message::Standing;
use crate::link::Promise;
use crate::replica::{Doing, Observation};
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
    /// For whom it voted, and what its word was worth then.
    votes: BTreeMap<Leadership, (NodeId, Standing)>,
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
        let votes: Vec<_> = self.nodes.iter().filter_map(vote).collect();
        let votes = votes.iter().filter(|(who, _)| usize::from(who.0) == node);
        let standings: Vec<_> = votes.map(|(_, standing)| *standing).collect();
        let with = |which| standings.iter().filter(|standing| **standing == which).count();
        let (clean, stateless) = (with(Standing::Clean), with(Standing::Stateless));
        let all = standings.len() == self.plan.nodes;
        let witnessed = stateless == 0 || stateless == self.plan.nodes;
        if clean >= self.plan.majority() || (all && witnessed) {
            return Ok(());
        }
        let text = format!("node {node} leads {leadership} by the votes of {standings:?}");
        Err(Violation::new("elected", text))
    }

    /// The node has forgotten everything.
    pub(super) fn wiped(&mut self, node: usize) {
        let known = &mut self.nodes[node];
        known.wiped_at = known.wiped_at.max(known.promised);
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
        let lately = |at: &&Nanos| now.since(**at) <= patience;
        let heard = known.heard.iter().filter(lately).count();
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
        if known.fence < to {
            let text = format!("node {node} promised {to}, its core is fenced at {}", known.fence);
            return Err(Violation::new("fence", text));
        }
        known.promised = to;
        let Some(vote) = promise.vote else { return Ok(()) };
        if to <= known.wiped_at && known.votes.contains_key(&to) {
            return Ok(()); // it cannot know, and its word is worth that of a node without state
        }
        let clean = known.votes.get(&to).is_some_and(|(_, standing)| *standing == Standing::Clean);
        let by = if clean { Standing::Clean } else { by };
        match known.votes.insert(to, (vote, by)) {
            Some((before, Standing::Clean | Standing::Provisional)) if before != vote => {
                let text = format!("node {node} voted for {before} and {vote} in {to}");
                Err(Violation::new("one_vote", text))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn started(&mut self, node: usize, fence: Leadership) -> Checked {
        let known = &mut self.nodes[node];
        known.fence = fence;
        if fence < known.promised {
            let text = format!("node {node} promised {}, and starts at {fence}", known.promised);
            return Err(Violation::new("fence", text));
        }
        Ok(())
    }
}

//! Who leads, who voted for whom, and that nobody goes back.

use std::collections::BTreeMap;

use super::{Checked, Violation};
use crate::link::Promise;
use crate::replica::{Doing, Observation};
use crate::types::{Leadership, NodeId};

/// One leader for each term of each generation; one vote; fences only rise.
pub(super) struct Leaderships {
    leaders: BTreeMap<Leadership, usize>,
    nodes: Vec<Node>,
}

#[derive(Clone, Default)]
struct Node {
    /// Newest leadership that is durable there.
    promised: Leadership,
    votes: BTreeMap<Leadership, NodeId>,
    /// The core's fence in this life.
    fence: Leadership,
}

impl Leaderships {
    pub(super) fn new(nodes: usize) -> Self {
        Self { leaders: BTreeMap::new(), nodes: vec![Node::default(); nodes] }
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
        match self.leaders.insert(leadership, node) {
            None => Ok(true),
            Some(same) if same == node => Ok(false),
            Some(other) => {
                let text = format!("nodes {other} and {node} lead {leadership}");
                Err(Violation::new("one_leader", text))
            }
        }
    }

    pub(super) fn promised(&mut self, node: usize, promise: &Promise) -> Checked {
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
        match known.votes.insert(to, vote) {
            Some(before) if before != vote => {
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

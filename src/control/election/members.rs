//! What a node is told of its group, and what it knows of the others.

use super::{Election, Mutants};
use crate::control::disk::DiskState;
use crate::control::hashes::StateHashes;
use crate::control::message::Standing;
use crate::limits::NODES_MAX;
use crate::link::Durability;
use crate::types::{Incarnation, Leadership, Nanos, NodeId, Position};

/// One node of the group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// It votes and counts. If not, it is an observer.
    pub voter: bool,
    /// Tie-break among equally recent nodes; 0: it never leads.
    pub priority: u8,
}

impl Member {
    /// Whether it may lead.
    #[must_use]
    pub const fn is_electable(&self) -> bool {
        self.voter && self.priority > 0
    }
}

/// What a control machine is told once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ElectionSettings {
    /// This node.
    pub node: NodeId,
    /// All nodes in list order. [`Election::set_members`] changes it.
    pub members: Vec<Member>,
    /// Newest leadership this node has promised.
    pub promised: Leadership,
    /// For whom it voted in that leadership.
    pub vote: Option<NodeId>,
    /// What it may have forgotten.
    pub standing: Standing,
    /// It has won the founding election in `promised`.
    pub won_founding: bool,
    /// The durable node state allows acknowledgements from memory.
    pub may_ack_memory: bool,
    /// Its life as a voter.
    pub incarnation: Incarnation,
    /// Durability ladder.
    pub durability: Durability,
    /// Silence after which a leader is held for dead, ns.
    pub leader_timeout_ns: u64,
    /// How long the first election of a group that starts waits for all voters, ns.
    pub start_wait_ns: u64,
    /// Random number for the generation, should this node found the group.
    pub generation_random: u32,
    /// Random number of this life of the process, not 0.
    pub instance: u64,
    /// Seed of the small random delays.
    pub seed: u64,
    /// Rules taken out, to prove that this is noticed.
    pub mutants: Mutants,
}

impl ElectionSettings {
    /// Place of a node on the list.
    #[must_use]
    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.members.iter().position(|member| member.node == node)
    }

    /// Compares state hashes, of which nothing is known yet.
    pub(super) fn hashes(&self) -> StateHashes {
        let voters = self.members.iter().filter(|member| member.voter);
        StateHashes::new(self.node, voters.map(|member| member.node))
    }

    /// How many vote.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.members.iter().filter(|member| member.voter).count()
    }

    /// Votes that win.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.voters() / 2 + 1
    }
}

/// What a node knows of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Known {
    pub(super) heard: Option<Nanos>,
    pub(super) present: bool,
    /// As it said last.
    pub(super) disk: DiskState,
    pub(super) intruder_told: bool,
    /// The life of its process that last announced itself.
    pub(super) instance: u64,
    pub(super) following: Option<Leadership>,
    /// The newest leadership it promised, as far as it said.
    pub(super) promised: Leadership,
    /// Its life at the founding, when this node founded the group.
    pub(super) founder: Option<Incarnation>,
    /// The newest leadership for which it has kept its vote for the target of a hand-over.
    pub(super) reserved: Leadership,
    /// It is to be told that it is a voter again.
    pub(super) readmit: Option<(Incarnation, Position)>,
}

impl Election {
    /// Takes another member list: effective at once.
    ///
    /// # Panics
    /// When this node is not on it, or there are more than [`NODES_MAX`].
    pub fn set_members(&mut self, now: Nanos, members: &[Member]) {
        assert!(members.len() <= NODES_MAX, "at most {NODES_MAX} nodes");
        let known = |member: &Member| {
            let before = self.settings.index_of(member.node);
            before.map_or_else(Known::default, |index| self.known[index])
        };
        let known = members.iter().map(known).collect();
        self.known = known;
        self.settings.members = members.to_vec();
        self.own = self.settings.index_of(self.settings.node).expect("it is on its own list");
        self.hashes = self.settings.hashes();
        self.relist(now);
    }
}

//! What a core is told once, before it starts.

use core::net::SocketAddr;

use crate::limits::NODES_MAX;
use crate::link::{Durability, Identity};
use crate::mutants::Mutants;
use crate::session::StateLimits;
use crate::types::{GroupId, NodeId};

/// One node of the group, as the core needs to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its id.
    pub node: NodeId,
    /// Where its datagrams come from and go to.
    pub address: SocketAddr,
    /// Counts for the quorum.
    pub voter: bool,
}

/// Settings of a core; checked by [`CoreSettings::assert_valid`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreSettings {
    /// Group.
    pub group: GroupId,
    /// Which node this is, and what it may have forgotten.
    pub identity: Identity,
    /// All nodes, this one included, in the order of the member list.
    pub peers: Vec<Peer>,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// Window of the replication stream, bytes.
    pub window_bytes: u64,
    /// Largest command, bytes.
    pub command_bytes_max: usize,
    /// Durability ladder.
    pub durability: Durability,
    /// Silence after which a leader says that it is there, ns.
    pub heartbeat_ns: u64,
    /// Age of the newest echo after which a leader no longer counts a voter as hearing it, ns.
    pub leader_timeout_ns: u64,
    /// Replication goes by multicast: NAKs wait a little, so that one of them serves all.
    pub multicast: bool,
    /// State hashes are compared every so many entries.
    pub hash_interval: u64,
    /// Unanswered commands per session.
    pub in_flight_max: u64,
    /// Shortest and longest silence a client may ask for before its session is closed, ns.
    pub session_timeout_ns: (u64, u64),
    /// Bytes for client traffic in flight, both directions, all sessions together.
    pub lane_pool_bytes: usize,
    /// Bounds of sessions and replies: constants of the group.
    pub limits: StateLimits,
    /// Sessions that may have a lane here at once.
    pub lanes_max: usize,
    /// Seed of the small random delays of the stream machines.
    pub seed: u64,
    /// Rules taken out, to prove that this is noticed.
    pub mutants: Mutants,
}

impl CoreSettings {
    /// Index of this node among [`CoreSettings::peers`].
    ///
    /// # Panics
    /// When the node is not on its own list: the configuration is validated before.
    #[must_use]
    pub fn own_index(&self) -> usize {
        self.index_of(self.identity.node).expect("a node is on its own member list")
    }

    /// Index of a node among [`CoreSettings::peers`].
    #[must_use]
    pub fn index_of(&self, node: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.node == node)
    }

    /// Place of a node among the *other* nodes: how the stream machines name their receivers.
    #[must_use]
    pub fn other_index(&self, index: usize) -> usize {
        let own = self.own_index();
        assert!(index != own, "a node is not its own receiver");
        index - usize::from(index > own)
    }

    /// The inverse of [`CoreSettings::other_index`].
    #[must_use]
    pub fn other(&self, other: usize) -> &Peer {
        &self.peers[other + usize::from(other >= self.own_index())]
    }

    /// Voters of the group.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.peers.iter().filter(|peer| peer.voter).count()
    }

    /// Asserts what the core relies on; the configuration gives clear errors long before.
    pub fn assert_valid(&self) {
        assert!(!self.peers.is_empty() && self.peers.len() <= NODES_MAX, "1 to {NODES_MAX} nodes");
        assert!(self.segment_bytes.is_power_of_two(), "segments are powers of two");
        assert!(self.window_bytes <= self.segment_bytes, "two segments cover two windows");
        assert!(self.heartbeat_ns > 0 && self.leader_timeout_ns > self.heartbeat_ns);
        assert!(self.hash_interval > 0 && self.in_flight_max > 0 && self.lanes_max > 0);
        let _ = self.own_index();
    }
}

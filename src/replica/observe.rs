//! What a core shows to those who check it from outside: positions and role, and its log and state to read.

use super::core::{Core, Work};
use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::journal::hot::HotLog;
use crate::link::Durability;
use crate::service::Service;
use crate::session::State;
use crate::stream::network::Network;
use crate::types::{Applied, Commit, CutEpoch, Durable, Leadership, Position};

/// A core at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Nothing of an older leadership is accepted or acknowledged. While a role is held: its leadership.
    pub fence: Leadership,
    /// What it does.
    pub doing: Doing,
    /// End of its log.
    pub tail: Predecessor,
    /// Commit position it knows.
    pub commit: Commit,
    /// End of what the service was given.
    pub applied: Applied,
    /// End of what sync has reported.
    pub durable: Durable,
    /// Cuts so far.
    pub cut_epoch: CutEpoch,
    /// Where the cut under way ends the log.
    pub cutting_at: Option<Position>,
    /// It may have forgotten what it promised.
    pub provisional: bool,
    /// What is in memory only may be promised.
    pub may_ack_memory: bool,
    /// Durability in force here.
    pub durability: Durability,
}

/// What a core does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Doing {
    /// It has no role.
    Idle,
    /// It leads.
    Leads {
        /// A quorum is heard.
        quorum: bool,
        /// Clients are served.
        open: bool,
    },
    /// It follows.
    Follows {
        /// Its log is known to be the leader's: what comes is placed, acknowledged and applied.
        matched: bool,
    },
    /// It has stopped for good.
    Halted,
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// What it is and how far it has come.
    #[must_use]
    pub fn observe(&self) -> Observation {
        let doing = match &self.work {
            Work::Idle | Work::Puller(_) => Doing::Idle,
            Work::Halted => Doing::Halted,
            Work::Leader(leading) => Doing::Leads { quorum: leading.quorum, open: leading.opened },
            Work::Follower(following) => Doing::Follows { matched: following.is_matched() },
        };
        Observation {
            fence: self.fence,
            doing,
            tail: self.log.tail(),
            commit: self.commit,
            applied: self.applied,
            durable: self.durable,
            cut_epoch: self.cut_epoch,
            cutting_at: self.cutting.as_ref().map(super::cut::Cutting::position),
            provisional: self.provisional,
            may_ack_memory: self.may_ack_memory,
            durability: self.durability,
        }
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &HotLog<M> {
        &self.log
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> &State<S> {
        &self.state
    }
}

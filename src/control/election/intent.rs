//! Why the core is fenced, or the node state written.

use super::Target;
use crate::link::Recency;
use crate::types::{Leadership, Nanos, NodeId, Position};

/// Why the core is fenced, or the node state written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Intent {
    /// To decide on a vote; whether it is granted is known after the fence.
    Vote {
        candidate: NodeId,
        leadership: Leadership,
        recency: Recency,
        instance: u64,
        granted: bool,
    },
    /// To stand.
    Stand { leadership: Leadership, transfer: bool },
    /// To lead, after an election by all votes.
    Win { leadership: Leadership, founding: bool },
    /// To be a founder: who won the founding election says so.
    Found { leadership: Leadership },
    /// To follow.
    Follow { target: Target, founder: bool },
    /// To be a voter again.
    Readmit { target: Target, since: Nanos, needed: Position },
    /// To take over a log.
    Pull { from: NodeId, recency: Recency },
}

impl Intent {
    pub(super) fn leadership(&self) -> Leadership {
        match self {
            Self::Vote { leadership, .. }
            | Self::Stand { leadership, .. }
            | Self::Found { leadership }
            | Self::Win { leadership, .. } => *leadership,
            Self::Follow { target, .. } | Self::Readmit { target, .. } => target.leadership,
            Self::Pull { recency, .. } => recency.last,
        }
    }
}

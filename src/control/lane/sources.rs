//! Of whom a node that is behind asks, and how long it waits when nobody helps.

use crate::control::event::CatchUpFailure;
use crate::types::{Nanos, NodeId};

/// The next source is tried after this, ns.
const NEXT_NS: u64 = 10 * Nanos::MILLISECOND;
/// When all have failed: the first wait, doubled each time around, ns.
const AROUND_NS: u64 = 100 * Nanos::MILLISECOND;
/// Longest wait, ns.
const AROUND_MAX_NS: u64 = 5 * Nanos::SECOND;

/// The other nodes, in the order in which this one asks them; each begins with the one that comes after it on the list.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    nodes: Vec<Known>,
    failures_in_row: u32,
}

#[derive(Clone, Debug)]
struct Known {
    node: NodeId,
    failures: u32,
    /// Why it failed last: said once.
    told: Option<CatchUpFailure>,
}

impl Sources {
    pub(super) fn new(own: NodeId, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let (after, before): (Vec<_>, Vec<_>) =
            nodes.into_iter().filter(|node| *node != own).partition(|node| *node > own);
        let known = |node| Known { node, failures: 0, told: None };
        Self { nodes: after.into_iter().chain(before).map(known).collect(), failures_in_row: 0 }
    }

    /// All of them.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().map(|known| known.node)
    }

    /// Who is asked next: who failed least, and of those the leader last, for it has other things to do.
    pub(super) fn next(&self, leader: NodeId) -> Option<NodeId> {
        let best = self.nodes.iter().min_by_key(|known| (known.failures, known.node == leader))?;
        Some(best.node)
    }

    /// It helped.
    pub(super) fn served(&mut self, node: NodeId) {
        self.failures_in_row = 0;
        for known in self.nodes.iter_mut().filter(|known| known.node == node) {
            (known.failures, known.told) = (0, None);
        }
    }

    /// It did not; returns how long to wait before the next is asked, ns.
    pub(super) fn failed(&mut self, node: NodeId) -> u64 {
        let others = self.nodes.len().max(1) as u32;
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        for known in self.nodes.iter_mut().filter(|known| known.node == node) {
            known.failures = known.failures.saturating_add(1);
        }
        match (self.failures_in_row / others).checked_sub(1) {
            None => NEXT_NS,
            Some(around) => (AROUND_NS << around.min(10)).min(AROUND_MAX_NS),
        }
    }

    /// Whether this is another reason than it failed for before.
    pub(super) fn is_news(&mut self, node: NodeId, why: CatchUpFailure) -> bool {
        let known = self.nodes.iter_mut().find(|known| known.node == node);
        known.is_some_and(|known| known.told.replace(why) != Some(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_are_asked_before_the_leader_and_who_failed_comes_last() {
        let mut sources = Sources::new(NodeId(1), (0..4).map(NodeId));
        let leader = NodeId(2);
        assert_eq!(sources.next(leader), Some(NodeId(3)));
        assert_eq!(sources.failed(NodeId(3)), NEXT_NS);
        assert_eq!(sources.next(leader), Some(NodeId(0)));
        sources.failed(NodeId(0));
        assert_eq!(sources.next(leader), Some(leader));
        assert_eq!(sources.failed(leader), AROUND_NS, "all of them: it waits");
        assert_eq!(sources.next(leader), Some(NodeId(3)));
        for _ in 0..100 {
            assert!(sources.failed(NodeId(3)) <= AROUND_MAX_NS);
        }
        sources.served(NodeId(3));
        assert_eq!(sources.failed(NodeId(0)), NEXT_NS);
        assert_eq!(sources.next(leader), Some(NodeId(3)));
        assert_eq!(Sources::new(NodeId(0), [NodeId(0)]).next(leader), None, "nobody else");
    }

    #[test]
    fn a_reason_is_told_once() {
        let mut sources = Sources::new(NodeId(1), (0..3).map(NodeId));
        assert!(sources.is_news(NodeId(0), CatchUpFailure::Silent));
        assert!(!sources.is_news(NodeId(0), CatchUpFailure::Silent));
        assert!(sources.is_news(NodeId(2), CatchUpFailure::Silent));
        assert!(sources.is_news(NodeId(0), CatchUpFailure::Refused));
    }
}

//! What a campaign has really hit: faults, and states of the protocol.

use std::collections::BTreeMap;

/// States of the protocol that a campaign should reach, each counted where it is seen.
pub const STATES: &[&str] = &[
    "founded",
    "leader",
    "follower-matched",
    "observer-follows",
    "quorum-lost",
    "cut",
    "torn-tail",
    "provisional",
    "nak",
    "repair",
    "stale-dropped",
    "bad-frame",
    "duplicate-answered",
    "redirect",
    "forwarded",
    "resolved-later",
    "session-lost",
    "disk-failed",
    "disk-stall-told",
    "lead-given-up",
    "intruder",
    "durability-changed",
    "pull",
    "leader-sync",
    "handed-over",
    "kept-vote-given",
    "range-gone",
    "caught-up",
    "snapshot-taken",
    "segment-left",
    "snapshot-installed",
    "halted",
    "damage-named",
    "rot-while-running",
    "file-repaired",
    "repaired-by-snapshot",
    "needs-a-person",
    "timer-fired",
    "event-out",
    "event-after-failover",
    "local-answered",
    "local-fresh",
    "local-too-stale",
    "local-behind",
];

/// Counts by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Coverage {
    counts: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// `what` was seen `times` more.
    pub(super) fn hit(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.counts.entry(what).or_default() += times;
        }
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.counts {
            self.hit(what, *times);
        }
    }

    /// How often `what` was seen.
    #[must_use]
    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }
}

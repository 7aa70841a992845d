//! What a node sees of its group: whether there is a quorum, who leads, and since when that has been so.

use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use jiff::Timestamp;

use crate::control::election::Election;
use crate::control::event::Event;
use crate::link::SharedWords;
use crate::types::{Nanos, NodeId};

/// The latest look at it.
#[derive(Debug)]
pub(super) struct Outlook {
    seen: Seen,
    /// When that began, on the monotonic clock and on the wall's.
    since: (Nanos, Timestamp),
    /// How the last hand-over by this node ended, in words.
    last_transfer: Option<String>,
}

/// What is seen at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    quorum: bool,
    leader: Option<NodeId>,
    term: u64,
}

impl Outlook {
    /// Before anything was seen.
    pub(super) fn new(now: Nanos) -> Self {
        let seen = Seen { quorum: false, leader: None, term: 0 };
        Self { seen, since: (now, wall()), last_transfer: None }
    }

    /// Keeps how a hand-over ended, for whoever ordered it.
    pub(super) fn note(&mut self, event: &Event) {
        if matches!(event, Event::Transferred { .. } | Event::TransferFailed { .. }) {
            self.last_transfer = Some(event.to_string());
        }
    }

    /// Looks.
    pub(super) fn look(&mut self, now: Nanos, words: &SharedWords, machine: &Election) {
        const LEADS: u64 = 2;
        let leads = words.role.load(Relaxed) == LEADS;
        let quorum = if leads { words.quorum.load(Relaxed) != 0 } else { machine.hears(now) };
        // A leader that is no longer heard is none: what follows it is waiting for another.
        let leader = words.leader.load(Relaxed).checked_sub(1).filter(|_| quorum || leads);
        let leader = leader.map(|leader| NodeId(leader as u16));
        let seen = Seen { quorum, leader, term: words.term.load(Relaxed) };
        if seen != self.seen {
            (self.seen, self.since) = (seen, (now, wall()));
        }
    }

    /// Whether this node leads and hears a quorum, or hears such a leader.
    pub(super) fn quorum(&self) -> bool {
        self.seen.quorum
    }

    /// Who leads.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.seen.leader
    }

    /// Since when both have been so, by the wall clock.
    pub(super) fn since(&self) -> Timestamp {
        self.since.1
    }

    /// How the last hand-over by this node ended.
    pub(super) fn last_transfer(&self) -> Option<&str> {
        self.last_transfer.as_deref()
    }

    /// For how long, ms.
    pub(super) fn lasts_ms(&self, now: Nanos) -> u64 {
        now.since(self.since.0) / Nanos::MILLISECOND
    }
}

fn wall() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}

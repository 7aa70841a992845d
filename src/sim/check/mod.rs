//! What must always hold, looked at after every step of every thread. One file for each kind of promise.

mod history;
mod leadership;
mod log;

use history::History;
use leadership::Leaderships;
use log::Logs;

use super::client::Ended;
use super::machine::{SimCore, Started};
use super::plan::Plan;
use crate::link::{Promise, Shared};
use crate::types::{Leadership, Nanos, NodeId};

/// A promise that was broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which checker says so.
    pub checker: &'static str,
    /// What happened.
    pub text: String,
}

impl Violation {
    fn new(checker: &'static str, text: String) -> Self {
        Self { checker, text }
    }

    /// The group does not come back to work.
    pub(super) fn liveness(text: String) -> Self {
        Self::new("liveness", text)
    }

    /// A node does not come back.
    pub(super) fn recovery(text: String) -> Self {
        Self::new("recovery", text)
    }
}

/// Names of all checkers.
pub const CHECKERS: &[&str] = &[
    "one_leader",
    "leader_completeness",
    "one_vote",
    "never_leads",
    "fence",
    "log_matching",
    "committed_cut",
    "committed_changed",
    "committed_on_a_quorum",
    "own_term_commit",
    "check_quorum",
    "durable_lost",
    "promise_lost",
    "state_hash",
    "applied_twice",
    "applied_order",
    "answered_too_early",
    "acknowledged_lost",
    "linearizable",
    "wrong_answer",
    "liveness",
    "recovery",
];

/// All checkers of a run.
pub(super) struct Checks {
    logs: Logs,
    leaderships: Leaderships,
    history: History,
}

type Checked = Result<(), Violation>;

impl Checks {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            logs: Logs::new(plan),
            leaderships: Leaderships::new(plan),
            history: History::new(plan.nodes),
        }
    }

    /// The core of `node` has done a step.
    pub(super) fn core_stepped(
        &mut self,
        now: Nanos,
        node: usize,
        core: &SimCore,
        shared: &Shared,
    ) -> Checked {
        let observed = core.observe();
        self.leaderships.fence(node, &observed)?;
        self.leaderships.quorum(now, node, &observed)?;
        self.logs.follow(now, node, core, &observed)?;
        if self.leaderships.role(node, &observed)? {
            self.logs.leader_is_complete(node, observed.fence)?;
        }
        self.history.applied(node, core.state().service())?;
        self.history.hash(node, shared)
    }

    /// A datagram of a core has arrived at another one's.
    pub(super) fn heard(&mut self, now: Nanos, node: usize, from: usize) {
        self.leaderships.heard(now, node, from);
    }

    /// Control of `node` made this durable.
    pub(super) fn promised(&mut self, node: usize, promise: &Promise) -> Checked {
        self.leaderships.promised(node, promise)
    }

    /// Control of `node` sends its vote, its core being fenced to `fence`. Whether that vote had been kept ahead.
    pub(super) fn votes(
        &self,
        node: usize,
        of: Leadership,
        to: NodeId,
        fence: Leadership,
    ) -> Result<bool, Violation> {
        self.leaderships.votes(node, of, to, fence)
    }

    /// The process of `node` has started again.
    pub(super) fn started(&mut self, node: usize, started: &Started) -> Checked {
        self.history.restarted(node);
        self.leaderships.started(node, started)?;
        self.logs.started(node, started)
    }

    /// A client was told something.
    pub(super) fn ended(&mut self, now: Nanos, ended: &Ended) -> Checked {
        self.history.ended(now, ended)
    }

    /// The end: everything acknowledged is there.
    pub(super) fn finish(&self) -> Checked {
        self.history.finish()
    }

    /// How far behind an observer that followed was, at most, ns.
    pub(super) fn observer_lag_ns(&self) -> u64 {
        self.logs.observer_lag_ns
    }

    /// Commands that took effect, entries committed.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.history.commands(), self.logs.committed())
    }
}

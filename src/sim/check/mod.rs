//! What must always hold, looked at after every step of every thread. One file for each kind of promise.

mod effects;
mod history;
mod leadership;
mod local;
mod log;

use effects::Effects;
use history::History;
use leadership::Leaderships;
use local::Locals;
use log::Logs;

use super::client::Ended;
use super::coverage::Coverage;
use super::machine::{Process, SimCore, Started};
use super::plan::Plan;
use super::reader::Read;
use crate::client::ReadOutcome;
use crate::control::message::Standing;
use crate::journal::memory_disk::MemoryDisk;
use crate::link::{Promise, Shared};
use crate::replica::Observation;
use crate::types::{Leadership, Nanos, NodeId, Position, Sequence};

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

    /// A leader that is heard was given up.
    pub(super) fn deposed(text: String) -> Self {
        Self::new("heard_leader_deposed", text)
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
    "elected",
    "one_generation",
    "heard_leader_deposed",
    "readmitted_early",
    "cluster_time",
    "timers",
    "events",
    "cut_kept",
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
    "local_answer",
    "local_lag",
    "local_demand",
    "local_backward",
    "wrong_answer",
    "liveness",
    "recovery",
];

/// All checkers of a run.
pub(super) struct Checks {
    logs: Logs,
    leaderships: Leaderships,
    history: History,
    locals: Locals,
    effects: Effects,
}

type Checked = Result<(), Violation>;

impl Checks {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            logs: Logs::new(plan),
            leaderships: Leaderships::new(plan),
            history: History::new(
                plan.nodes,
                plan.voters().map(|node| NodeId(node as u16)).collect(),
            ),
            locals: Locals::default(),
            effects: Effects::default(),
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
        self.history.time(node, core.state().time())?;
        if self.leaderships.role(node, &observed)? {
            self.logs.leader_is_complete(node, observed.fence)?;
        }
        self.history.applied(node, core.state().service())?;
        self.history.hash(node, shared)
    }

    /// What the service did besides commands, after a step of the core of `node`.
    pub(super) fn effects(
        &mut self,
        node: usize,
        now: Nanos,
        process: &mut Process,
        coverage: &mut Coverage,
    ) -> Checked {
        self.effects.look(node, now, process, coverage)
    }

    /// The core of `node` has got an answer of another one to what it sent at `now`.
    pub(super) fn heard(&mut self, now: Nanos, node: usize, from: usize) {
        self.leaderships.heard(now, node, from);
    }

    /// Control of `node` made this durable.
    pub(super) fn promised(&mut self, node: usize, promise: &Promise, by: Standing) -> Checked {
        if promise.readmitted.is_some() {
            self.logs.readmitted(node)?;
        }
        self.leaderships.promised(node, promise, by)
    }

    /// Control of `node` tells its core to fence.
    pub(super) fn fence_sent(&mut self, node: usize, to: Leadership) {
        self.logs.fence_sent(node, to);
    }

    /// The core of `node` says that it was fenced, and where its log ended then.
    pub(super) fn ended_at_fence(
        &mut self,
        node: usize,
        at: Leadership,
        tail: Position,
    ) -> Checked {
        self.logs.ended_at_fence(node, at, tail)
    }

    /// Control of `node` reads its core's answer to a fence: up to where its log went then. It has got to `now` since.
    pub(super) fn fenced(
        &self,
        node: usize,
        answer: (Leadership, Position),
        now: &Observation,
    ) -> Checked {
        self.logs.fenced(node, answer, now)
    }

    /// Control of `node` tells its core to take over a log.
    pub(super) fn take_over(&mut self, node: usize) {
        self.logs.take_over(node);
    }

    /// The core of `node` says that it cuts.
    pub(super) fn cut_told(&mut self, node: usize, from: Position, to: Position) {
        self.logs.cut_told(node, from, to);
    }

    /// Every cut of `node` was told, and what was cut is kept.
    pub(super) fn cuts_are_kept(&mut self, node: usize, disk: &MemoryDisk) -> Checked {
        self.logs.cuts_are_kept(node, disk)
    }

    /// The disk of `node` is another one now.
    pub(super) fn wiped(&mut self, node: usize) {
        self.leaderships.wiped(node);
        self.logs.wiped(node);
        self.history.restarted(node);
    }

    /// The service of `node` goes another way from here on.
    pub(super) fn diverged(&mut self, node: usize) {
        self.history.diverged(node);
    }

    /// Control of `node` hears what hash another one has.
    pub(super) fn hash_heard(&mut self, node: usize, from: NodeId, after: Sequence, hash: u64) {
        self.history.hash_heard(node, from, after, hash);
    }

    /// Whether some service does.
    pub(super) fn has_diverged(&self) -> bool {
        self.history.has_diverged()
    }

    /// Whether a node still goes on that a majority contradicts.
    pub(super) fn is_contradicted(&self) -> bool {
        self.history.is_contradicted()
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

    /// A reader was told something by a node whose process is in this life now.
    pub(super) fn read(
        &mut self,
        now: Nanos,
        read: &Read,
        life: u64,
        certain: Option<Nanos>,
    ) -> Checked {
        self.locals.ended(&self.history, read, life, certain)?;
        if let (ReadOutcome::Answered, Some((count, _))) = (read.outcome, read.told) {
            self.history.told(now, count);
        }
        Ok(())
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

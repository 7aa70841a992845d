//! Scenarios by number: a fixed world without faults of its own, given strikes at given times, then the ordinary phases, in
//! which every client must be answered and all nodes must agree. All checkers look on.

mod disks;
mod elections;
mod failures;
mod holes;
mod ladder;
mod planted;
mod power;
mod power_storage;
mod quorum;
mod retention;
mod rules;
mod schedules;
mod stage;
mod startup;
mod storage;
mod terms;

use super::Plan;
use super::faults::{Fault, Strike};
use super::world::{Outcome, run_script};
use crate::link::{Durability, Rung};
use crate::mutants::Mutant;
use crate::types::Nanos;

const MS: u64 = Nanos::MILLISECOND;

/// A scripted world.
struct Script {
    plan: Plan,
    strikes: Vec<(u64, Strike)>,
}

impl Script {
    /// A group at default durability with three clients, in a world in which nothing goes wrong by itself.
    fn of(nodes: usize) -> Self {
        let mut plan = Plan::draw(1, Some(nodes));
        plan.priorities = vec![1; nodes];
        plan.durability = Durability { leader: Rung::Disk, follower: Rung::Memory };
        (plan.clients, plan.commands, plan.in_flight, plan.readers) = (3, 400, 4, 0);
        (plan.think_ns, plan.command_bytes_max) = (10 * MS, 64);
        (plan.loss, plan.duplicate, plan.corrupt, plan.detour) = (0, 0, 0, (0, 1));
        (plan.delay_ns, plan.sync_ns) = ((20_000, 50_000), MS);
        (plan.chaos_ns, plan.fault_gap_ns) = (4 * Nanos::SECOND, u64::MAX / 4);
        (plan.look_ns, plan.start_wait_ns) = (0, Nanos::SECOND);
        plan.stories = Vec::new();
        Self { plan, strikes: Vec::new() }
    }

    fn priorities(mut self, priorities: &[u8]) -> Self {
        self.plan.priorities = priorities.to_vec();
        self
    }

    /// `fault` strikes the node that stands at `node` behind the one that leads then, after so many ms, for so many.
    fn at(self, ms: u64, fault: Fault, node: usize, for_ms: u64) -> Self {
        self.way(ms, fault, (node, node), for_ms)
    }

    fn way(mut self, ms: u64, fault: Fault, (node, other): (usize, usize), for_ms: u64) -> Self {
        let lasts_ns = for_ms * MS;
        let strike = Strike { fault, aimed: true, node, other, sides: 1, lasts_ns };
        self.strikes.push((ms * MS, strike));
        self
    }

    /// As [`Script::way`], of the nodes with these numbers, whoever leads.
    fn on(mut self, ms: u64, fault: Fault, nodes: (usize, usize), for_ms: u64) -> Self {
        self = self.way(ms, fault, nodes, for_ms);
        self.strikes.last_mut().expect("just pushed").1.aimed = false;
        self
    }

    /// Nodes with these numbers (a bit each), and all clients if `clients`, are parted from all others.
    fn part_off(mut self, ms: u64, nodes: u64, clients: bool, for_ms: u64) -> Self {
        self = self.on(ms, Fault::Partition, (0, 0), for_ms);
        self.strikes.last_mut().expect("just pushed").1.sides =
            nodes | if clients { 0xFF << 32 } else { 0 };
        self
    }

    /// A rule is taken out.
    fn without(mut self, rule: Mutant) -> Self {
        self.plan.mutant = Some(rule);
        self
    }

    /// Plays it, whatever becomes of it.
    fn played(self) -> Played {
        Played { outcome: run_script(&self.plan, &self.strikes) }
    }

    /// Plays it, and says which checker notices something.
    fn noticed(self) -> Option<&'static str> {
        self.played().outcome.violation.map(|(_, broken)| broken.checker)
    }

    /// The nodes of `side`, counted from the leader, and all clients are parted from the others.
    fn part(mut self, ms: u64, side: u64, for_ms: u64) -> Self {
        let (sides, lasts_ns) = (side | 0xFF << 32, for_ms * MS);
        let fault = Fault::Partition;
        self.strikes
            .push((ms * MS, Strike { fault, aimed: true, node: 0, other: 0, sides, lasts_ns }));
        self
    }

    /// Plays it; every promise is kept.
    fn play(self) -> Played {
        let outcome = run_script(&self.plan, &self.strikes);
        let struck =
            self.strikes.iter().filter(|(_, strike)| outcome.coverage.of(strike.fault.name()) == 0);
        assert_eq!(struck.count(), 0, "every fault has struck");
        assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
        Played { outcome }
    }
}

/// What became of it.
struct Played {
    outcome: Outcome,
}

impl Played {
    /// Lines of the trace with `what` in them: the time of each, ms, and the text.
    fn lines(&self, what: &str) -> Vec<(u64, &str)> {
        let line = |line: &'_ String| -> Option<u64> {
            let (seconds, micros) = line.split_whitespace().next()?.split_once('.')?;
            Some(seconds.parse::<u64>().ok()? * 1000 + micros.parse::<u64>().ok()? / 1000)
        };
        let lines = self.outcome.lines.iter().filter(|line| line.contains(what));
        lines.filter_map(|text| Some((line(text)?, text.as_str()))).collect()
    }

    /// Who took the lead, and when, ms.
    fn leads(&self) -> Vec<(u64, usize)> {
        let node = |text: &str| text.split("node ").nth(1)?.split(':').next()?.parse().ok();
        let lines = self.lines("leads: true");
        let lines = lines.into_iter().filter(|(_, text)| text.contains("RoleChange"));
        lines.filter_map(|(at, text)| Some((at, node(text)?))).collect()
    }

    /// Commands that were answered between these times, ms.
    fn answered(&self, from: u64, to: u64) -> usize {
        self.lines("told: Placed").iter().filter(|(at, _)| (from..to).contains(at)).count()
    }
}

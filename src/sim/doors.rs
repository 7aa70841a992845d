//! Clients that reach one node alone: whatever that node is to the group, it lets them take part.

use super::client::SimClient;
use super::faults::{Fault, Strike};
use super::nemesis::Phase;
use super::plan::Plan;
use super::world::{Event, World};
use crate::stream::prng::Prng;
use crate::types::Nanos;

/// Mean time between two clients that are left one door, ns.
const GAP_NS: u64 = Nanos::SECOND;
/// How long it is their only one at most, ns.
const LASTS_NS: u64 = 2 * Nanos::SECOND;
/// Requests that a client must have answered through its only door when all is well again.
const THROUGH: u64 = 3;

impl Plan {
    /// In a third of the worlds clients reach one node alone now and then. Drawn apart, so that a seed stays what it was.
    pub(super) fn draw_doors(&mut self) {
        let happens = Prng::new(self.seed ^ 0x444F_4F52).below(3) == 0 && self.nodes > 1;
        let bit = Fault::OneDoor.bit();
        self.faults = if happens { self.faults | bit } else { self.faults & !bit };
    }
}

impl World {
    pub(super) fn draw_door(&mut self) {
        if !self.plan.has(Fault::OneDoor) {
            return;
        }
        let random = &mut self.door_random;
        let at = self.now.plus(random.below(2 * GAP_NS) + 1);
        let strike = Strike {
            fault: Fault::OneDoor,
            aimed: false,
            node: 0,
            other: random.below(self.plan.nodes as u64) as usize,
            sides: random.below(self.plan.clients as u64),
            lasts_ns: random.below(LASTS_NS) + 1,
        };
        if at.0 < self.plan.chaos_ns {
            self.schedule(at, Event::Door(strike));
        }
    }

    /// A client reaches only `door`, or all again.
    pub(super) fn shut(&mut self, client: usize, door: usize, cut: bool) {
        for node in (0..self.plan.nodes).filter(|&node| node != door) {
            self.paths.cut_client(client, node, cut);
        }
    }

    /// All is well, but for one client that reaches one node alone.
    pub(super) fn leave_one_door(&mut self) {
        if !self.plan.has(Fault::OneDoor) || self.plan.far.0 > 0 {
            return;
        }
        let client = self.door_random.below(self.plan.clients as u64) as usize;
        let door = self.door_random.below(self.plan.nodes as u64) as usize;
        self.trace.line(self.now, || format!("client {client} reaches node {door} alone"));
        self.shut(client, door, true);
        let behind = &mut self.clients[client];
        behind.budget += 2 * THROUGH;
        self.behind_a_door = Some((client, behind.answered + THROUGH));
    }

    /// Whether that client got its answers.
    pub(super) fn is_served_through_its_door(&self) -> bool {
        assert!(matches!(self.phase, Phase::Whole { .. }), "there is none before");
        self.behind_a_door.is_none_or(|(client, enough)| self.clients[client].answered >= enough)
    }
}

impl SimClient {
    /// Lanes through nodes that pass on, in this life.
    pub(super) fn forwarded(&self) -> u64 {
        self.library.counters().forwarded
    }
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::*;

    /// A quiet world in which clients reach one node alone, now and then.
    fn with_doors(forward: bool) -> super::super::Outcome {
        let ordinary = |plan: &Plan| plan.stories.is_empty() && plan.far.0 == 0;
        let mut plan =
            (0..100).map(|seed| Plan::draw(seed, Some(3))).find(ordinary).expect("many are");
        plan.only(&[Fault::OneDoor]);
        plan.forward = forward;
        (plan.clients, plan.readers, plan.fault_gap_ns) = (2, 0, 1_000 * Nanos::SECOND);
        (plan.think_ns, plan.chaos_ns) = (3 * Nanos::MILLISECOND, 20 * Nanos::SECOND);
        run(&plan, false)
    }

    #[test]
    fn g126_clients_that_reach_one_node_alone_are_served_through_it() {
        let outcome = with_doors(true);
        assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
        assert!(outcome.coverage.of("forwarded") > 0 && outcome.coverage.of("one-door") > 5);
        // Without it the same world does not come to its end: the simulator sees the difference.
        let violation = with_doors(false).violation.expect("a client waits for ever");
        assert_eq!(violation.1.checker, "liveness", "{violation:?}");
    }
}

//! D3: a machine that comes back with the disk of another founding of the group. It keeps what it promised there and is
//! refused here, until a person gives it an empty disk.

use super::faults::Strike;
use super::machine::{GROUP, Machine};
use super::world::{Event, World};
use crate::journal::node_state::{NodeState, NodeStateStore};
use crate::types::{Generation, Leadership, Nanos, NodeId};

/// It starts so long after it got that disk, at most, ns.
const START_NS: u64 = 5 * Nanos::MILLISECOND;

impl World {
    /// The disk of `node` is one of another founding from now on. The leadership that was promised there is older or newer than
    /// the one here only by the random part of its generation: the terms are equal.
    pub(super) fn estrange(&mut self, strike: &Strike) {
        let (node, draw) = (strike.node, strike.sides);
        let leader = self.leader();
        let process = leader.and_then(|leader| self.machines[leader].process.as_ref());
        let Some(of) = process.map(|process| process.core.observe().fence) else { return };
        let random = of.generation.random ^ (draw as u32 | 1);
        let generation = Generation { random, ..of.generation };
        self.wipe(node);
        self.machines[node].found_apart(Leadership { generation, ..of });
        self.strangers |= 1 << node;
        self.trace.line(self.now, || format!("node {node}: a disk of {generation:?}"));
        let at = self.now.plus(1 + draw % START_NS);
        self.schedule(at, Event::Start(node));
        self.schedule(self.now.plus(strike.lasts_ns), Event::Relent(*strike));
    }

    /// A person finds out what is wrong, and gives it an empty disk.
    pub(super) fn end_estrangement(&mut self, node: usize) {
        if self.is_stranger(node) {
            self.wipe(node);
            self.schedule(self.now.plus(1), Event::Start(node));
        }
    }

    /// Whether it is of another founding.
    pub(super) fn is_stranger(&self, node: usize) -> bool {
        self.strangers & 1 << node != 0
    }
}

impl Machine {
    /// Its empty disk gets the state of a node that was part of a founding, with nothing in its log.
    fn found_apart(&self, leadership: Leadership) {
        let node = NodeId(self.node as u16);
        let store = NodeStateStore::open(&self.disk, GROUP, node).expect("the disk is empty");
        let mut state = NodeState::blank(GROUP, node);
        state.found(leadership).expect("it has promised nothing");
        store.record_start(&self.disk, &state).expect("the disk is good");
    }
}

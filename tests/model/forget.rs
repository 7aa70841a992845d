//! Machines that go down inside a change of the list: the last entry of such a node is gone, and it may have promised it.

use quorate::control::election::{Election, ElectionSettings, Input};
use quorate::control::message::Standing;
use quorate::link::CoreToControl;
use quorate::types::{Incarnation, NodeId, Position};

use super::{Mail, Mutants, Node, State, Step, Sync};
use crate::explore::Part;
use crate::small::{FRAME, blank_log, copy, entries};

impl Sync {
    /// The machine of a node goes down and comes back; the end of its log was in memory alone.
    pub(super) fn forget(&self, state: &mut State, n: usize) {
        state.forgot += 1;
        let node = &mut *state.nodes[n];
        let left = entries(&node.log).saturating_sub(1);
        let mut log = blank_log(Mutants::NONE);
        copy(&mut log, &node.log, left);
        node.log = Part::new(log);
        (node.leads, node.pulls) = (None, None);
        node.commit = node.commit.min(Position(left * FRAME));
        self.relist(node, left);
        node.known = node.lists.seen_by(NodeId(node.id));
        node.life += 1;
        node.machine = Election::new(ElectionSettings {
            members: node.known.clone(),
            promised: node.fence,
            vote: node.vote.filter(|(of, _)| *of == node.fence).map(|(_, vote)| vote),
            standing: Standing::Provisional,
            incarnation: Incarnation(node.life),
            instance: 1 + n as u64 + 10 * u64::from(node.life),
            ..self.settings(n)
        });
        for reign in &mut state.reigns {
            reign.rejoined[n] = None;
        }
    }

    /// It is in the term of this leader, which takes note of where its log ends.
    pub(super) fn rejoin(state: &mut State, n: usize, term: usize, end: Position) {
        if state.nodes[n].machine.standing() == Standing::Provisional {
            state.reigns[term].rejoined[n].get_or_insert(end);
        }
    }

    /// The leader has seen all that its log had when the node came back on that node's disk, and more committed: a voter again.
    pub(super) fn readmit(&self, state: &mut State, leader: usize, n: usize) -> bool {
        let own: &Node = &state.nodes[leader];
        let term = own.fence.term.0 as usize;
        let Some(needed) = state.reigns[term].rejoined[n] else { return false };
        let other = &state.nodes[n];
        let same = other.fence == own.fence && other.log.tail().position >= needed;
        if own.leads.is_none() || !same || own.commit <= needed {
            return false;
        }
        let (node, incarnation) = (NodeId(n as u16), Incarnation(other.life));
        let fact = CoreToControl::Readmit { node, incarnation, needed };
        let mut mail = Mail::new();
        self.feed(state, leader, super::NOW, Input::Core(fact), &mut mail);
        for (to, envelope) in core::mem::take(&mut mail) {
            if to == n {
                self.feed(state, n, super::NOW, Input::Message(envelope), &mut Mail::new());
            }
        }
        Self::folded(state);
        state.nodes[n].machine.standing() == Standing::Clean
    }

    pub(super) fn steps_of_memory(&self, state: &State, n: usize, steps: &mut Vec<(Step, State)>) {
        if state.forgot < self.forgets && entries(&state.nodes[n].log) > 1 {
            let mut after = state.clone();
            self.forget(&mut after, n);
            steps.push((Step::Forgets { node: n }, after));
        }
        if state.nodes[n].leads.is_some() && self.forgets > 0 {
            for node in (0..self.nodes).filter(|&node| node != n) {
                let mut after = state.clone();
                let was = after.nodes[node].machine.standing();
                if was == Standing::Provisional && self.readmit(&mut after, n, node) {
                    steps.push((Step::Readmits { leader: n, node }, after));
                }
            }
        }
    }
}

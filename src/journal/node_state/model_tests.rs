//! The write-order rules, explored exhaustively: every interleaving of one node's steps with crashes of its process and its
//! machine, with the shipped transitions. Then each rule is taken out, and the exploration must find the broken promise.

use std::collections::{HashSet, VecDeque};

use super::*;
use crate::types::{Chain, Generation, Sequence, Term};

/// Which rule is left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Without {
    Nothing,
    CleanMarkRemovedFirst,
    MayAckBeforeAck,
    ProvisionalIsDurable,
    CleanMarkKeepsProvisional,
    SyncBeforeCleanMark,
    SyncBeforeClear,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    disk: NodeState,
    durable: u8,
    machine_boot: u8,
    hot: u8,
    hot_whole: bool,
    running: Option<Running>,
    memory_policy: bool,
    /// End of everything acknowledged by any life of this node: the rest of the group relies on it.
    acked: u8,
    crashes: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Running {
    /// As decided by the start; on the disk once `recorded`.
    state: NodeState,
    recorded: bool,
    stopping: bool,
}

const CRASHES: u8 = 4;
const ENTRIES: u8 = 2;

fn position(entries: u8) -> Position {
    Position(u64::from(entries) * 32)
}

fn mark(entries: u8) -> CleanMark {
    let tail = Predecessor {
        position: position(entries),
        sequence: Sequence(u64::from(entries)),
        term: Term(1),
        chain: Chain(1),
    };
    CleanMark { tail, commit: Commit(Position(0)) }
}

impl World {
    fn first() -> Self {
        let mut disk = NodeState::blank(GroupId(1), NodeId(0));
        let leadership = Leadership { generation: Generation::default(), term: Term(1) };
        disk.found(leadership).expect("a blank state can be founded");
        disk.boot_id = BootId([1; 16]);
        disk.stop(mark(0), Durable(Position(0))).expect("nothing is not durable");
        Self {
            disk,
            durable: 0,
            machine_boot: 1,
            hot: 0,
            hot_whole: false,
            running: None,
            memory_policy: true,
            acked: 0,
            crashes: 0,
        }
    }

    fn crash(&self, machine: bool) -> Self {
        let mut world = Self { running: None, crashes: self.crashes + 1, ..self.clone() };
        if machine {
            world.machine_boot += 1;
            world.hot = 0;
            world.hot_whole = false;
        }
        world
    }

    fn start(&self, without: Without) -> Self {
        let input = StartInput {
            boot_id: BootId([self.machine_boot; 16]),
            hot_tier_id: 0,
            hot_whole: self.hot_whole,
            promise_lost: false,
            first_incarnation: Incarnation(1),
        };
        let mut decision = NodeState::start(Some(&self.disk), GroupId(1), NodeId(0), input);
        if without == Without::CleanMarkKeepsProvisional && self.disk.clean_mark.is_some() {
            decision.state.provisional = false;
        }
        let mut world = self.clone();
        if !decision.hot_intact {
            world.hot = self.durable;
            world.hot_whole = true;
        }
        world.running = Some(Running { state: decision.state, recorded: false, stopping: false });
        world
    }

    /// All worlds one step away.
    fn steps(&self, without: Without, out: &mut Vec<Self>) {
        let Some(running) = &self.running else {
            out.push(self.start(without));
            if self.crashes < CRASHES {
                out.push(self.crash(true));
            }
            return;
        };
        if self.crashes < CRASHES {
            out.push(self.crash(true));
            out.push(self.crash(false));
        }
        if self.durable < self.hot {
            out.push(Self { durable: self.hot, ..self.clone() });
        }
        if !running.recorded {
            let mut world = self.clone();
            world.disk = running.state.clone();
            if without == Without::ProvisionalIsDurable {
                world.disk.provisional = self.disk.provisional;
            }
            world.set(|running| running.recorded = true);
            out.push(world);
            if without != Without::CleanMarkRemovedFirst {
                return;
            }
        }
        if running.stopping {
            self.finish(without, out);
        } else {
            self.work(running, without, out);
        }
    }

    fn work(&self, running: &Running, without: Without, out: &mut Vec<Self>) {
        if running.recorded && self.memory_policy && !running.state.may_ack_memory {
            self.write(out, NodeState::allow_memory);
        }
        if self.hot < ENTRIES {
            out.push(Self { hot: self.hot + 1, ..self.clone() });
        }
        let may = running.state.may_promise_memory()
            || (without == Without::MayAckBeforeAck && running.state.may_vote());
        if may && self.memory_policy && self.acked < self.hot {
            out.push(Self { acked: self.hot, ..self.clone() });
        }
        if running.recorded && running.state.provisional {
            // Re-admission: everything the leader has, which includes all that was acknowledged, is on the disk first.
            let hot = self.hot.max(self.acked);
            let world = Self { hot, durable: hot, ..self.clone() };
            world.write(out, |state| state.readmit(position(hot), Durable(position(hot))));
        }
        if self.memory_policy {
            out.push(Self { memory_policy: false, ..self.clone() });
        } else if running.recorded && running.state.may_ack_memory {
            let durable = if without == Without::SyncBeforeClear { self.hot } else { self.durable };
            self.write(out, |state| {
                state.forbid_memory(position(self.hot), Durable(position(durable)))
            });
        }
        let mut world = self.clone();
        world.set(|running| running.stopping = true);
        out.push(world);
    }

    fn finish(&self, without: Without, out: &mut Vec<Self>) {
        let durable = if without == Without::SyncBeforeCleanMark { self.hot } else { self.durable };
        let mut stopped = Vec::new();
        self.write(&mut stopped, |state| state.stop(mark(self.hot), Durable(position(durable))));
        out.extend(stopped.into_iter().map(|world| Self { running: None, ..world }));
    }

    /// A durable change of the state, unless it is refused.
    fn write(
        &self,
        out: &mut Vec<Self>,
        change: impl FnOnce(&mut NodeState) -> Result<(), Refused>,
    ) {
        let mut world = self.clone();
        if change(&mut world.disk).is_ok() {
            let state = world.disk.clone();
            world.set(|running| running.state = state);
            out.push(world);
        }
    }

    fn set(&mut self, change: impl FnOnce(&mut Running)) {
        if let Some(running) = &mut self.running {
            change(running);
        }
    }

    /// It may vote as an ordinary voter without something it acknowledged.
    fn broken(&self, without: Without) -> bool {
        let Some(running) = &self.running else { return false };
        let ready = running.recorded || without == Without::CleanMarkRemovedFirst;
        ready && !running.stopping && running.state.may_vote() && self.hot < self.acked
    }
}

/// Explores everything; the number of worlds, or `None` when a broken one was found.
fn explore(without: Without) -> Option<usize> {
    let first = World::first();
    let mut seen = HashSet::from([first.clone()]);
    let mut queue = VecDeque::from([first]);
    let mut next = Vec::new();
    while let Some(world) = queue.pop_front() {
        if world.broken(without) {
            return None;
        }
        world.steps(without, &mut next);
        for world in next.drain(..) {
            if seen.insert(world.clone()) {
                queue.push_back(world);
            }
        }
    }
    Some(seen.len())
}

#[test]
fn every_order_of_steps_and_crashes_keeps_the_promise() {
    let worlds = explore(Without::Nothing).expect("the rules hold");
    assert!(worlds > 1000, "only {worlds} worlds: the exploration is stunted");
}

#[test]
fn each_rule_is_needed() {
    for without in [
        Without::CleanMarkRemovedFirst,
        Without::MayAckBeforeAck,
        Without::ProvisionalIsDurable,
        Without::CleanMarkKeepsProvisional,
        Without::SyncBeforeCleanMark,
        Without::SyncBeforeClear,
    ] {
        assert_eq!(explore(without), None, "{without:?} makes no difference");
    }
}

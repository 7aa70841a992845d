//! Cores that take over each other's logs. What control carries, in short: the lane of `control` is not seen from here.

use std::sync::Arc;

use super::tests::{Faults, World, leadership};
use crate::frame::Predecessor;
use crate::link::{
    ControlToCore, CoreEvent, CoreToControl, LaneFact, LaneRefusal, LogChunk, MatchReply, Purpose,
};
use crate::types::{Commit, NodeId, Position};

const NUMBER: u64 = 7;
/// Bytes carried at once: frames straddle two pieces.
const PIECE: u64 = 3000;

impl World {
    /// Whether `node` is at the end of the log of `source`, which it was told to take over.
    fn take_over(&mut self, node: usize, source: usize) -> bool {
        let last = self.nodes[source].core.log().last_leadership();
        self.nodes[node].order(ControlToCore::TakeOver {
            number: NUMBER,
            purpose: Purpose::LeaderSync,
            last,
        });
        self.carry(node, source, |_| {})
    }

    /// Carries questions, answers and bytes, which `change` may change, until the core refuses or has all.
    fn carry(&mut self, node: usize, source: usize, mut change: impl FnMut(&mut Vec<u8>)) -> bool {
        for _ in 0..10_000 {
            self.run(1, |_| true);
            if let Some(LaneFact::Answers { asker, number, reply, end }) = self.lane_fact(source) {
                assert_eq!(asker, NodeId(node as u16));
                self.nodes[node].order(ControlToCore::MatchReply { number, reply, end });
            }
            match self.lane_fact(node) {
                Some(LaneFact::Asks(question)) => {
                    let asker = NodeId(node as u16);
                    self.nodes[source].order(ControlToCore::MatchQuestion { asker, question });
                }
                Some(LaneFact::Stands { number, tail, received }) => {
                    let end = self.tail(source).position;
                    if tail == end {
                        return true;
                    }
                    let mut bytes = self.bytes(source, received, end.min(received.plus(PIECE)));
                    change(&mut bytes);
                    let bytes: Arc<[u8]> = bytes.into();
                    self.nodes[node].give(LogChunk {
                        number,
                        from: received,
                        bytes,
                        committed: Commit(Position(0)),
                    });
                }
                Some(LaneFact::Refuses { .. }) => return false,
                Some(LaneFact::Answers { .. } | LaneFact::Behind { .. }) | None => {}
            }
        }
        panic!("neither taken over nor refused");
    }

    fn lane_fact(&mut self, node: usize) -> Option<LaneFact> {
        let facts = &mut self.nodes[node].facts;
        let at = facts.iter().position(|fact| matches!(fact, CoreToControl::Lane(_)))?;
        let CoreToControl::Lane(fact) = facts.remove(at) else { return None };
        Some(fact)
    }

    fn bytes(&self, node: usize, from: Position, to: Position) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut at = from;
        while let Some(chunk) = self.nodes[node].core.log().chunk(at, to, PIECE as usize) {
            bytes.extend_from_slice(chunk.bytes);
            bytes.resize(chunk.next.since(from) as usize, 0);
            at = chunk.next;
        }
        bytes
    }

    fn cuts(&self, node: usize) -> usize {
        let facts = self.nodes[node].facts.iter();
        facts.filter(|f| matches!(f, CoreToControl::Event(CoreEvent::Cut { .. }))).count()
    }
}

/// Node 2 has entries of node 0's leadership that node 1 lacks; node 0 is gone.
fn behind() -> World {
    let mut world = World::new(3, Faults { loss: 0, duplicate: 0, reorder_ns: 0 }, 1);
    assert_eq!(world.elect(1, &[0, 1, 2]), 0);
    assert!(world.run(20_000, |w| w.tail(1) == w.tail(0) && w.tail(2) == w.tail(0)));
    world.append_at(0, 5, 500);
    assert!(world.run(20_000, |world| world.all_applied()));
    world.cut_off(&[1]);
    world.append_at(0, 60, 900);
    assert!(world.run(20_000, |w| w.tail(2) == w.tail(0) && w.tail(1) != w.tail(0)));
    world.cut_off(&[0]);
    world
}

#[test]
fn r3_a_node_that_is_behind_takes_over_what_a_more_recent_one_has() {
    let mut world = behind();
    assert!(world.take_over(1, 2));
    assert_eq!(world.tail(1), world.tail(2));
    assert_eq!(world.cuts(1), 0);
    // Once more: there is nothing left to take.
    assert!(world.take_over(1, 2));
}

#[test]
fn what_a_deposed_leader_has_alone_is_cut_before_it_takes_a_log_over() {
    let mut world = behind();
    world.append_at(0, 3, 100);
    assert_eq!(world.elect(2, &[1, 2]), 2);
    assert!(world.run(20_000, |w| w.tail(1) == w.tail(2)));
    world.nodes[0].order(ControlToCore::Fence(leadership(2)));
    assert!(world.take_over(0, 2));
    assert_eq!(world.tail(0), world.tail(2));
    assert_eq!(world.cuts(0), 1);
}

#[test]
fn r3_what_was_acknowledged_since_the_canvass_is_not_cut_for_a_log_that_lacks_it() {
    let mut world = World::new(3, Faults { loss: 0, duplicate: 0, reorder_ns: 0 }, 1);
    assert_eq!(world.elect(1, &[0, 1, 2]), 0);
    assert!(world.run(20_000, |w| w.tail(1) == w.tail(0) && w.tail(2) == w.tail(0)));
    world.append_at(0, 5, 500);
    assert!(world.run(20_000, |world| world.all_applied()));
    world.cut_off(&[1]);
    let before = world.tail(1);
    world.append_at(0, 1, 500);
    assert!(world.run(20_000, |w| w.tail(2) != before));
    // Node 2 has acknowledged it, and does not know that it is committed. Control saw node 1 ahead, before it came.
    world.cut_off(&[0]);
    let tail = world.tail(2);
    assert!(world.nodes[2].core.observe().commit.0 < tail.position);
    assert!(!world.take_over(2, 1));
    assert_eq!((world.tail(1), world.tail(2), world.cuts(2)), (before, tail, 0));
}

#[test]
fn d7_a_chunk_that_comes_after_the_fence_is_refused() {
    let mut world = behind();
    let (last, tail) = (leadership(1), world.tail(1));
    world.nodes[1].order(ControlToCore::TakeOver {
        number: NUMBER,
        purpose: Purpose::LeaderSync,
        last,
    });
    world.run(10, |_| false);
    let Some(LaneFact::Asks(question)) = world.lane_fact(1) else { panic!("it asks first") };
    let reply = super::matching::reply(world.nodes[2].core.log(), &question);
    world.nodes[1].order(ControlToCore::MatchReply {
        number: NUMBER,
        reply,
        end: Position(u64::MAX),
    });
    world.nodes[1].order(ControlToCore::Fence(leadership(5)));
    let bytes = world.bytes(2, tail.position, tail.position.plus(PIECE));
    let given = bytes.len();
    world.nodes[1].give(LogChunk {
        number: NUMBER,
        from: tail.position,
        bytes: bytes.into(),
        committed: Commit(Position(0)),
    });
    world.run(100, |_| false);
    assert!(given > 1000 && world.tail(1) == tail, "nothing is taken behind the fence");
}

#[test]
fn a_log_newer_than_the_fence_is_refused() {
    let mut world = behind();
    world.nodes[1].order(ControlToCore::TakeOver {
        number: NUMBER,
        purpose: Purpose::LeaderSync,
        last: leadership(2),
    });
    assert!(!world.carry(1, 2, |_| {}));
}

#[test]
fn bytes_that_do_not_chain_are_refused_and_whole_frames_before_them_stay() {
    let mut world = behind();
    let before = world.tail(1);
    world.nodes[1].order(ControlToCore::TakeOver {
        number: NUMBER,
        purpose: Purpose::LeaderSync,
        last: leadership(1),
    });
    let mut count = 0;
    let whole = world.carry(1, 2, |bytes| {
        count += 1;
        if count == 3 {
            bytes[40] ^= 1;
        }
    });
    assert!(!whole);
    let tail = world.tail(1);
    assert!(tail.position > before.position);
    assert_eq!(world.nodes[2].core.log().predecessor_at(tail.position), Some(tail));
    // What was taken stays: another one goes on from there.
    assert!(world.take_over(1, 2));
    assert_eq!(world.tail(1), world.tail(2));
}

#[test]
fn nothing_that_is_known_to_be_committed_is_cut_for_a_log_that_lacks_it() {
    let mut world = behind();
    let tail = world.tail(1);
    world.nodes[1].order(ControlToCore::TakeOver {
        number: NUMBER,
        purpose: Purpose::LeaderSync,
        last: leadership(1),
    });
    let genesis = Predecessor::genesis(super::tests::GROUP);
    let reply = MatchReply::Agreed { position: genesis.position, chain: genesis.chain };
    world.nodes[1].order(ControlToCore::MatchReply {
        number: NUMBER,
        reply,
        end: Position(u64::MAX),
    });
    world.run(100, |_| false);
    let diverged =
        |f: &CoreToControl| matches!(f, CoreToControl::Event(CoreEvent::Diverged { .. }));
    assert!(world.nodes[1].facts.iter().any(diverged));
    assert!(world.nodes[1].facts.contains(&CoreToControl::Lane(LaneFact::Refuses {
        number: NUMBER,
        why: LaneRefusal::Log
    })));
    assert_eq!((world.tail(1), world.cuts(1)), (tail, 0));
}

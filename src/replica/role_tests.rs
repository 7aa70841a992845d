//! Cores that change roles: who led follows, who followed leads, over a network that loses and a log that must not.

use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use super::core::Work;
use super::tests::{Faults, GROUP, Node, World, address, leadership};
use crate::frame::{Kind, Predecessor};
use crate::link::{ControlToCore, CoreEvent, CoreToControl, Recency};
use crate::mutants::{Mutant, Mutants};
use crate::stream::datagram::{DatagramHeader, DatagramKind, StatusBody};
use crate::stream::prng::Prng;
use crate::types::{Nanos, NodeId, Position, Term, Timestamp};

impl World {
    /// Fences these nodes, and lets the most recent of them lead; the others of them follow. What control does, in short.
    /// Returns who leads.
    pub(super) fn elect(&mut self, term: u32, electors: &[usize]) -> usize {
        for &node in electors {
            self.nodes[node].facts.clear();
            self.nodes[node].order(ControlToCore::Fence(leadership(term)));
            self.nodes[node].order(ControlToCore::MayAckMemory(true));
        }
        let all = |world: &mut Self| {
            electors.iter().all(|&node| world.nodes[node].fenced(term).is_some())
        };
        assert!(self.run(20_000, all), "every core answers its fence");
        let recency = |node: &usize| (self.nodes[*node].fenced(term), usize::MAX - node);
        let leader = electors.iter().copied().max_by_key(recency).expect("somebody");
        self.nodes[leader].order(ControlToCore::Lead(leadership(term)));
        for &node in electors {
            if node != leader {
                self.follow(node, term, leader);
            }
        }
        leader
    }

    fn follow(&self, node: usize, term: u32, leader: usize) {
        let follow =
            ControlToCore::Follow { leadership: leadership(term), leader: NodeId(leader as u16) };
        self.nodes[node].order(ControlToCore::Fence(leadership(term)));
        self.nodes[node].order(follow);
    }

    /// Appends entries at a leader as if clients had sent them.
    pub(super) fn append_at(&mut self, node: usize, count: u64, bytes: usize) {
        let time = Timestamp(self.now.0);
        let core = &mut self.nodes[node].core;
        let leads = matches!(&core.work, Work::Leader(leading) if leading.opened && !leading.over);
        for number in 0..count * u64::from(leads) {
            let payload = vec![number as u8; bytes];
            let term = core.fence.term;
            if core.log.append(Kind::GroupSetting, term, time, &[&payload]).is_ok() {
                core.appended();
            }
        }
    }

    pub(super) fn tail(&self, node: usize) -> Predecessor {
        self.nodes[node].core.log.tail()
    }

    fn commit_of(&self, node: usize) -> Position {
        self.nodes[node].core.commit.0
    }

    /// These nodes have the same log, all of it applied.
    fn agree(&self, nodes: &[usize]) -> bool {
        let tail = self.tail(nodes[0]);
        let same = |&node: &usize| {
            self.tail(node) == tail && self.nodes[node].core.applied.0 == tail.position
        };
        nodes.iter().all(same)
    }

    pub(super) fn cut_off(&self, nodes: &[u16]) {
        self.wire.borrow_mut().cut_off = nodes.iter().map(|node| address(*node)).collect();
    }
}

impl Node {
    fn fenced(&self, term: u32) -> Option<Recency> {
        self.facts.iter().rev().find_map(|fact| match fact {
            CoreToControl::Fenced { leadership: at, recency, .. } if *at == leadership(term) => {
                Some(*recency)
            }
            _ => None,
        })
    }
    fn has_quorum_fact(&self, present: bool) -> bool {
        self.facts.contains(&CoreToControl::Event(CoreEvent::Quorum { present }))
    }
}

fn faults() -> Faults {
    Faults { loss: 5, duplicate: 5, reorder_ns: 200_000 }
}

#[test]
fn the_lead_goes_round_and_every_log_stays_the_same() {
    for seed in 0..4 {
        let mut world = World::new(3, faults(), seed);
        for term in 1..=12 {
            let leader = world.elect(term, &[0, 1, 2]);
            assert!(world.run(20_000, |w| w.agree(&[0, 1, 2]) && w.tail(0).term == Term(term)));
            world.append_at(leader, 30, 500);
            assert!(world.run(50_000, |world| world.agree(&[0, 1, 2])), "seed {seed} term {term}");
        }
        world.assert_equal_logs();
    }
}

#[test]
fn d12_a_deposed_leader_cuts_what_only_it_has_lists_it_and_follows() {
    let mut world = World::new(3, Faults::default(), 20);
    assert_eq!(world.elect(1, &[0, 1, 2]), 0);
    assert!(world.run(5000, |world| world.agree(&[0, 1, 2])));
    world.cut_off(&[0]);
    world.append_at(0, 7, 300);
    world.run(100, |_| false);
    let lost = world.tail(0);
    assert_eq!(world.elect(2, &[1, 2]), 1);
    assert!(world.run(5000, |w| w.agree(&[1, 2]) && w.tail(1).term == Term(2)));
    world.append_at(1, 3, 100);
    assert!(world.run(5000, |world| world.agree(&[1, 2])));
    world.cut_off(&[]);
    world.follow(0, 2, 1);
    assert!(world.run(20_000, |world| world.agree(&[0, 1, 2])));
    world.assert_equal_logs();
    let cut = world.nodes[0].facts.iter().find_map(|fact| match fact {
        CoreToControl::Event(CoreEvent::Cut { to, entries, .. }) => Some((*to, *entries)),
        _ => None,
    });
    assert_eq!(cut, Some((lost.position, 7)));
}

#[test]
fn d1_old_bytes_over_the_same_positions_count_for_nothing() {
    let mut world = World::new(5, Faults::default(), 21);
    assert_eq!(world.elect(1, &[0, 1, 2, 3, 4]), 0);
    let all = [0, 1, 2, 3, 4];
    assert!(world.run(5000, |world| world.agree(&all)));
    // Bytes of node 0 that reach only node 1.
    world.cut_off(&[2, 3, 4]);
    world.append_at(0, 20, 300);
    assert!(world.run(2000, |world| world.tail(1) == world.tail(0)));
    let old = world.tail(1);
    // Node 2 leads the rest, and appends less over the same positions, before node 1 enters its term.
    world.cut_off(&[0, 1]);
    assert_eq!(world.elect(2, &[2, 3, 4]), 2);
    assert!(world.run(5000, |w| w.agree(&[2, 3, 4]) && w.tail(2).term == Term(2)));
    world.cut_off(&[0, 3, 4]);
    world.append_at(2, 2, 100);
    let (before, end) = (world.commit_of(2), world.tail(2).position);
    assert!(end < old.position);
    world.follow(1, 2, 2);
    // Its statuses of term 2 begin with nothing; only what it verified of node 2's log counts. Two of five is no quorum.
    world.run(3000, |world| {
        assert!(world.commit_of(1) <= end && world.commit_of(2) == before);
        world.tail(1) == world.tail(2)
    });
    assert_eq!(world.tail(1), world.tail(2), "its old bytes are gone");
    world.cut_off(&[]);
    for node in [0, 3, 4] {
        world.follow(node, 2, 2);
    }
    assert!(world.run(20_000, |world| world.agree(&all)));
    world.assert_equal_logs();
}

/// Node 1 says that it holds all of node 0's log, in a datagram of `term`, while nothing else of it arrives. Returns what that
/// made node 0 commit, and where its log ends.
fn acknowledged_in(term: u32, mutants: Mutants) -> (Position, Position, Position) {
    let mut world = World::new(3, Faults::default(), 25);
    world.nodes[0].core.settings.mutants = mutants;
    for term in 1..=2 {
        assert_eq!(world.elect(term, &[0, 1, 2]), 0);
        assert!(world.run(5000, |w| w.agree(&[0, 1, 2]) && w.tail(0).term == Term(term)));
    }
    world.cut_off(&[1, 2]);
    let before = world.commit_of(0);
    world.append_at(0, 5, 100);
    let end = world.tail(0).position;
    let header =
        DatagramHeader::new(DatagramKind::Status, GROUP, Some(NodeId(1)), leadership(term));
    let holds = U64::new(end.0);
    let status =
        StatusBody { verified: holds, durable: holds, promised: holds, ..StatusBody::new_zeroed() };
    let bytes = [header.as_bytes(), status.as_bytes()].concat();
    world.wire.borrow_mut().flying.push((world.now, 0, address(1), address(0), bytes));
    world.run(1000, |_| false); // 20 ms
    (before, world.commit_of(0), end)
}

#[test]
fn a1_what_a_member_said_in_an_older_term_commits_nothing() {
    let (before, commit, end) = acknowledged_in(1, Mutants::NONE);
    assert!(before < end);
    assert_eq!(commit, before);
    // The same words count in the term that they are of: it is the term that decides.
    let (_, commit, end) = acknowledged_in(2, Mutants::NONE);
    assert_eq!(commit, end);
}

#[test]
fn a1_off_what_was_said_in_an_older_term_commits() {
    let (_, commit, end) = acknowledged_in(1, Mutants::NONE.with(Mutant::CountOldAcks));
    assert_eq!(commit, end);
}

#[test]
fn d19_an_entry_on_three_of_five_outlives_two_leaders() {
    let mut world = World::new(5, Faults::default(), 22);
    assert_eq!(world.elect(1, &[0, 1, 2, 3, 4]), 0);
    assert!(world.run(5000, |world| world.agree(&[0, 1, 2, 3, 4])));
    world.cut_off(&[3, 4]);
    world.append_at(0, 1, 100);
    let entry = world.tail(0);
    assert!(world.run(3000, |world| world.commit_of(0) == entry.position));
    // Its leader dies; the next one dies before the others found their match point.
    world.cut_off(&[0]);
    assert_eq!(world.elect(2, &[1, 2, 3, 4]), 1);
    world.cut_off(&[0, 1]);
    world.run(200, |_| false);
    assert_eq!(world.elect(3, &[2, 3, 4]), 2, "the entry decides");
    assert!(world.run(20_000, |w| w.agree(&[2, 3, 4]) && w.tail(2).term == Term(3)));
    let kept = world.nodes[3].core.log.predecessor_at(entry.position);
    assert_eq!(kept, Some(entry));
}

#[test]
fn r16_a_gap_shorter_than_the_leader_timeout_heals_without_an_election() {
    let mut world = World::new(3, Faults::default(), 23);
    world.elect(1, &[0, 1, 2]);
    assert!(world.run(5000, |world| world.agree(&[0, 1, 2])));
    world.cut_off(&[1, 2]);
    world.append_at(0, 10, 100);
    world.run(6000, |_| false); // 120 ms
    world.cut_off(&[]);
    assert!(world.run(20_000, |world| world.agree(&[0, 1, 2])));
    assert!(!world.nodes[0].has_quorum_fact(false));
}

#[test]
fn r1_a_leader_without_its_quorum_is_over_for_good() {
    let mut world = World::new(3, Faults::default(), 24);
    world.elect(1, &[0, 1, 2]);
    assert!(world.run(5000, |world| world.agree(&[0, 1, 2])));
    let before = world.commit_of(0);
    world.cut_off(&[1, 2]);
    world.append_at(0, 10, 100);
    world.run(10_000, |_| false); // 200 ms
    assert!(world.nodes[0].has_quorum_fact(false));
    world.cut_off(&[]);
    let sent = world.wire.borrow().sent_by(0);
    world.run(10_000, |_| false);
    assert_eq!(world.wire.borrow().sent_by(0), sent, "its heartbeats have stopped");
    assert_eq!(world.commit_of(0), before, "it commits nothing more in its term");
    assert_eq!(world.elect(2, &[0, 1, 2]), 0);
    assert!(world.run(20_000, |world| world.agree(&[0, 1, 2])));
    assert!(world.commit_of(0) > before, "its log is the most recent: nothing was lost");
}

#[test]
fn d9_a_leader_that_slept_accepts_and_commits_nothing_when_it_wakes() {
    let mut world = World::new(3, Faults::default(), 25);
    world.elect(1, &[0, 1, 2]);
    assert!(world.run(5000, |world| world.agree(&[0, 1, 2])));
    world.append_at(0, 5, 100);
    // Its bytes and their acknowledgements are under way; it sleeps before it reads them.
    world.run(3, |_| false);
    let before = world.commit_of(0);
    world.now = world.now.plus(400 * Nanos::MILLISECOND);
    world.run(1, |_| false);
    assert!(matches!(&world.nodes[0].core.work, Work::Leader(leading) if leading.over));
    world.run(5000, |_| false);
    assert_eq!(world.commit_of(0), before);
    assert_eq!(world.elect(2, &[1, 2]), 1);
    world.follow(0, 2, 1);
    assert!(world.run(20_000, |w| w.agree(&[0, 1, 2]) && w.tail(0).term == Term(2)));
}

#[test]
fn a_follower_that_cuts_answers_its_leader_meanwhile() {
    let mut world = World::new(3, Faults::default(), 26);
    world.elect(1, &[0, 1, 2]);
    assert!(world.run(5000, |world| world.agree(&[0, 1, 2])));
    world.cut_off(&[0]);
    world.append_at(0, 7, 300);
    world.run(100, |_| false);
    world.elect(2, &[1, 2]);
    assert!(world.run(5000, |world| world.agree(&[1, 2])));
    // Node 2 is gone; node 0, whose disk is slow to save what it cuts, is all that node 1 hears.
    world.cut_off(&[2]);
    world.nodes[0].stalled = true;
    world.follow(0, 2, 1);
    world.run(20_000, |_| false); // 400 ms
    assert!(world.nodes[0].core.cutting.is_some());
    assert!(!world.nodes[1].has_quorum_fact(false), "{:?}", world.nodes[1].facts);
    world.nodes[0].stalled = false;
    assert!(world.run(20_000, |world| world.agree(&[0, 1])));
}

#[test]
fn a_provisional_node_is_readmitted_by_an_entry_appended_after_it_came_back() {
    let mut world = World::new(3, Faults::default(), 27);
    world.nodes[2].core.provisional = true;
    world.nodes[2].stalled = true;
    world.elect(1, &[0, 1, 2]);
    world.run(5000, |_| false);
    let readmit = |world: &World| {
        world.nodes[0].facts.iter().find_map(|fact| match fact {
            CoreToControl::Readmit { node, needed, .. } => Some((*node, *needed)),
            _ => None,
        })
    };
    assert_eq!(readmit(&world), None, "it holds nothing on its disk");
    world.nodes[2].stalled = false;
    assert!(world.run(5000, |world| readmit(world).is_some()));
    let (node, needed) = readmit(&world).expect("just seen");
    assert_eq!(node, NodeId(2));
    assert!(world.commit_of(0) > needed, "an entry after its return is committed");
    world.nodes[2].order(ControlToCore::Admitted);
    world.run(5000, |_| false);
    assert!(world.agree(&[0, 1, 2]));
}

#[test]
fn a_leader_that_hands_over_takes_no_commands_until_it_is_told_to_keep_the_lead() {
    let mut world = World::new(3, Faults::default(), 28);
    world.elect(1, &[0, 1, 2]);
    assert!(world.run(5000, |world| world.agree(&[0, 1, 2])));
    world.cut_off(&[1]);
    world.append_at(0, 3, 100);
    world.nodes[0].order(ControlToCore::HandOver { to: NodeId(1) });
    world.run(1000, |_| false);
    let told = |world: &World, behind: Option<u64>| {
        world.nodes[0].facts.contains(&CoreToControl::HandOver { to: NodeId(1), behind })
    };
    assert!(!told(&world, None), "it lacks something");
    world.cut_off(&[]);
    assert!(world.run(5000, |world| told(world, None)));
    assert_eq!(world.tail(1), world.tail(0));
    let Work::Leader(leading) = &world.nodes[0].core.work else { panic!("it leads") };
    assert!(leading.handing.is_some());
    world.nodes[0].order(ControlToCore::KeepLead);
    world.run(10, |_| false);
    let Work::Leader(leading) = &world.nodes[0].core.work else { panic!("it leads") };
    assert!(leading.handing.is_none());
}

#[test]
fn an_order_of_an_older_fence_is_void_and_older_datagrams_are_dropped() {
    let mut world = World::new(3, Faults::default(), 29);
    world.elect(1, &[0, 1, 2]);
    assert!(world.run(5000, |world| world.agree(&[0, 1, 2])));
    let before = world.tail(1);
    // A1: fenced, it neither takes nor acknowledges the old leader's bytes.
    world.nodes[1].order(ControlToCore::Fence(leadership(5)));
    world.nodes[1].order(ControlToCore::Follow { leadership: leadership(4), leader: NodeId(2) });
    world.nodes[1].order(ControlToCore::Lead(leadership(4)));
    world.append_at(0, 10, 100);
    world.run(2000, |_| false);
    assert_eq!(world.tail(1), before);
    assert!(matches!(world.nodes[1].core.work, Work::Idle));
    assert!(world.nodes[1].core.counters.dropped_stale > 0);
}

/// Elections of any majority, at any moment, over a bad network: what was committed once stays, in every later leader's log.
#[test]
fn whatever_was_committed_is_in_every_later_leaders_log() {
    for seed in 0..24 {
        let nodes = [3, 5][seed as usize % 2];
        let mut random = Prng::new(seed + 77);
        let mut world = World::new(nodes, faults(), seed);
        let mut committed: Vec<Predecessor> = Vec::new();
        let all: Vec<usize> = (0..nodes as usize).collect();
        for term in 1..=10 {
            let mut electors = all.clone();
            while electors.len() > all.len() / 2 + 1 && random.below(3) > 0 {
                electors.swap_remove(random.below(electors.len() as u64) as usize);
            }
            let leader = world.elect(term, &electors);
            for node in &committed {
                let own = world.nodes[leader].core.log.predecessor_at(node.position);
                assert_eq!(own, Some(*node), "seed {seed} term {term}");
            }
            let late: Vec<_> = all.iter().copied().filter(|n| !electors.contains(n)).collect();
            for _ in 0..random.below(6) {
                world.run(random.below(400) as usize, |_| false);
                world.append_at(leader, random.below(8), 300);
                if let Some(&node) = late.get(random.below(8) as usize) {
                    world.follow(node, term, leader);
                }
                if random.below(4) == 0 {
                    world.cut_off(&[random.below(u64::from(nodes)) as u16]);
                }
            }
            world.cut_off(&[]);
            let commit = world.commit_of(leader);
            committed.extend(world.nodes[leader].core.log.predecessor_at(commit));
        }
        let leader = world.elect(11, &all);
        assert!(world.run(100_000, |w| w.agree(&all) && w.tail(leader).term == Term(11)));
        world.assert_equal_logs();
        assert!(committed.len() > 3, "something was committed");
    }
}

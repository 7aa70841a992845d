//! Whole groups of cores on one thread, over a network that loses, doubles and reorders, with a clock moved by hand.

use core::net::{Ipv4Addr, SocketAddr};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::core::{Core, Now, Start};
use super::settings::{CoreSettings, Peer};
use crate::frame::{Kind, Predecessor};
use crate::journal::HotTier;
use crate::journal::heap::{HeapHotTier, HeapMemory, HeapView};
use crate::journal::hot::{HeaderPage, HotLog, HotSettings};
use crate::link::{
    ControlLink, ControlToCore, CoreToControl, CoreToSync, CoreWakers, Durability, Identity,
    KeeperLink, LogChunk, NoWake, Rung, SegmentReady, Shared, SharedWords, SyncLink, SyncToCore,
    link,
};
use crate::mutants::Mutants;
use crate::service::echo::Echo;
use crate::session::{State, StateLimits};
use crate::stream::datagram::{DatagramHeader, FLAG_PADS};
use crate::stream::network::{Destination, Network};
use crate::stream::prng::Prng;
use crate::types::{
    Applied, Commit, CutEpoch, Durable, Generation, GroupId, Incarnation, Leadership, Nanos,
    NodeId, Position, Term, Timestamp,
};

pub(crate) const GROUP: GroupId = GroupId(0x67_726f_7570);
const SEGMENT_BYTES: u64 = 64 * 1024;
const WINDOW_BYTES: u64 = 32 * 1024;
const BODY_BYTES: usize = 1024;
pub(crate) const STEP_NS: u64 = 20 * Nanos::MICROSECOND;

/// What the network does to datagrams, in percent and nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) duplicate: u64,
    pub(crate) reorder_ns: u64,
}

/// One wire for all, multicast and unicast.
pub(crate) struct Wire {
    pub(crate) flying: Vec<(Nanos, u64, SocketAddr, SocketAddr, Vec<u8>)>,
    random: Prng,
    faults: Faults,
    now: Nanos,
    pub(crate) sent: u64,
    /// Data sent to the members: position, address of the bytes, and how many.
    pub(crate) sends: Vec<(Position, usize, usize)>,
    pub(crate) cut_off: Vec<SocketAddr>,
    /// Pairs that do not hear each other.
    pub(crate) parted: Vec<[SocketAddr; 2]>,
    /// Datagrams that each address sent, whatever became of them.
    sent_from: Vec<SocketAddr>,
}

impl Wire {
    pub(super) fn sent_by(&self, node: u16) -> usize {
        self.sent_from.iter().filter(|from| **from == address(node)).count()
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.sent_from.push(from);
        let parted = self.parted.iter().any(|pair| pair.contains(&from) && pair.contains(&to));
        if parted || self.cut_off.contains(&from) || self.cut_off.contains(&to) {
            return;
        }
        let copies = if self.random.below(100) < self.faults.duplicate { 2 } else { 1 };
        for _ in 0..copies {
            if self.random.below(100) < self.faults.loss {
                continue;
            }
            let delay = 10_000 + self.random.below(self.faults.reorder_ns.max(1));
            self.sent += 1;
            self.flying.push((self.now.plus(delay), self.sent, from, to, bytes.to_vec()));
        }
    }

    fn arrived(&mut self, to: SocketAddr) -> VecDeque<(SocketAddr, Vec<u8>)> {
        let now = self.now;
        let (mut here, rest): (Vec<_>, Vec<_>) =
            self.flying.drain(..).partition(|(at, _, _, target, _)| *target == to && *at <= now);
        self.flying = rest;
        here.sort_by_key(|(at, number, ..)| (*at, *number));
        here.into_iter().map(|(_, _, from, _, bytes)| (from, bytes)).collect()
    }
}

pub(crate) struct TestNetwork {
    pub(crate) own: SocketAddr,
    pub(crate) members: Vec<(NodeId, SocketAddr)>,
    pub(crate) wire: Rc<RefCell<Wire>>,
    pub(crate) batch: Vec<(SocketAddr, Vec<u8>)>,
}

impl Network for TestNetwork {
    fn poll(&mut self) -> usize {
        self.batch = self.wire.borrow_mut().arrived(self.own).into();
        self.batch.len()
    }
    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        let (from, bytes) = &self.batch[index];
        (*from, bytes)
    }
    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        let mut wire = self.wire.borrow_mut();
        let targets: Vec<_> = match to {
            Destination::Members => {
                if !bytes.is_empty() {
                    let position = Position(header.position.get());
                    wire.sends.push((position, bytes.as_ptr() as usize, bytes.len()));
                }
                let others = self.members.iter().filter(|(_, address)| *address != self.own);
                others.map(|(_, address)| *address).collect()
            }
            Destination::Node(node) => {
                let found = self.members.iter().filter(|(member, _)| *member == node);
                found.map(|(_, address)| *address).collect()
            }
            Destination::Address(address) => vec![address],
        };
        let body = BODY_BYTES - prefix.len();
        let count = bytes.len().div_ceil(body).max(1);
        for piece in 0..count {
            let part = &bytes[piece * body..bytes.len().min((piece + 1) * body)];
            let mut header = *header;
            header.position = (header.position.get() + (piece * body) as u64).into();
            if piece + 1 < count {
                header.flags &= !FLAG_PADS;
            }
            let datagram = [header.as_bytes(), prefix, part].concat();
            for target in &targets {
                wire.send(self.own, *target, &datagram);
            }
        }
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        BODY_BYTES - prefix
    }
}

/// One node: its core, and the other threads played by the test.
pub(crate) struct Node {
    pub(crate) core: Core<TestNetwork, HeapMemory, Echo>,
    pub(crate) control: ControlLink,
    sync: SyncLink<HeapView>,
    keeper: KeeperLink<HeapMemory, HeapView>,
    shared: Shared,
    tier: HeapHotTier,
    next_segment: Position,
    pub(crate) facts: Vec<CoreToControl>,
    /// Sync does nothing.
    pub(crate) stalled: bool,
}

/// A group.
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) wire: Rc<RefCell<Wire>>,
    pub(crate) now: Nanos,
}

pub(crate) fn address(node: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 1000 + node))
}

pub(crate) fn leadership(term: u32) -> Leadership {
    Leadership { generation: Generation { counter: 1, random: 5 }, term: Term(term) }
}

fn header_page() -> HeaderPage {
    HeaderPage {
        enter: |page, start| {
            page[..8].copy_from_slice(&(start.before.position.0 + 1).to_le_bytes());
            page[8..16].copy_from_slice(&start.before.sequence.0.to_le_bytes());
            page[16..20].copy_from_slice(&start.before.term.0.to_le_bytes());
            page[20..24].copy_from_slice(&start.before.chain.0.to_le_bytes());
        },
        before: |_| None,
    }
}

fn settings(node: u16, nodes: u16) -> CoreSettings {
    let peer = |n| Peer { node: NodeId(n), address: address(n), voter: true };
    CoreSettings {
        group: GROUP,
        identity: Identity {
            node: NodeId(node),
            incarnation: Incarnation(0),
            provisional: false,
            stateless: false,
            generation: Generation::default(),
            fence: Term(0),
        },
        peers: (0..nodes).map(peer).collect(),
        segment_bytes: SEGMENT_BYTES,
        window_bytes: WINDOW_BYTES,
        command_bytes_max: 8192,
        durability: Durability { leader: Rung::Disk, follower: Rung::Memory },
        heartbeat_ns: 10 * Nanos::MILLISECOND,
        leader_timeout_ns: 150 * Nanos::MILLISECOND,
        multicast: true,
        hash_interval: 16,
        in_flight_max: 64,
        session_timeout_ns: (Nanos::SECOND, 10 * Nanos::SECOND),
        lane_pool_bytes: 1 << 20,
        limits: StateLimits::default(),
        lanes_max: 16,
        seed: u64::from(node) + 1,
        mutants: Mutants::NONE,
    }
}

impl World {
    pub(crate) fn new(nodes: u16, faults: Faults, seed: u64) -> Self {
        Self::of((0..nodes).map(|node| settings(node, nodes)).collect(), faults, seed)
    }

    /// Of cores with these settings: their group is [`GROUP`], and each node is at its [`address`].
    pub(crate) fn of(nodes: Vec<CoreSettings>, faults: Faults, seed: u64) -> Self {
        let wire = Rc::new(RefCell::new(Wire {
            flying: Vec::new(),
            random: Prng::new(seed),
            faults,
            now: Nanos(1),
            sent: 0,
            sends: Vec::new(),
            cut_off: Vec::new(),
            parted: Vec::new(),
            sent_from: Vec::new(),
        }));
        let nodes = nodes.into_iter().map(|settings| Node::new(settings, &wire)).collect();
        Self { nodes, wire, now: Nanos(1) }
    }

    /// Lets virtual time pass in small steps, until `done` or for `steps`; returns whether it was done.
    pub(crate) fn run(&mut self, steps: usize, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        for _ in 0..steps {
            self.now = self.now.plus(STEP_NS);
            self.wire.borrow_mut().now = self.now;
            for node in &mut self.nodes {
                node.step(self.now);
            }
            if done(self) {
                return true;
            }
        }
        false
    }

    /// Node 0 leads `term`, the others follow it.
    pub(crate) fn lead(&mut self, term: u32) {
        self.led_by(0, term);
    }

    /// `leader` leads `term`, the others follow it.
    pub(crate) fn led_by(&mut self, leader: u16, term: u32) {
        for node in &mut self.nodes {
            node.order(ControlToCore::Fence(leadership(term)));
            node.order(ControlToCore::MayAckMemory(true));
        }
        let leadership = leadership(term);
        for (number, node) in (0..).zip(&self.nodes) {
            node.order(if number == leader {
                ControlToCore::Lead(leadership)
            } else {
                ControlToCore::Follow { leadership, leader: NodeId(leader) }
            });
        }
    }

    /// Appends entries at the leader as if clients had sent them.
    pub(crate) fn append(&mut self, count: u64, bytes: usize) {
        let time = Timestamp(self.now.0);
        let core = &mut self.nodes[0].core;
        for number in 0..count {
            let payload = vec![number as u8; bytes];
            let term = core.fence.term;
            if core.log.append(Kind::GroupSetting, term, time, &[&payload]).is_ok() {
                core.appended();
            }
        }
    }

    /// The leader's commit position.
    pub(crate) fn commit(&self) -> Position {
        self.nodes[0].core.commit.0
    }

    /// Memory that a core has for its clients' traffic.
    pub(crate) fn client_pool_bytes(&self) -> usize {
        self.nodes[0].core.clients.pool_bytes()
    }

    pub(crate) fn all_applied(&self) -> bool {
        self.all_at(0)
    }

    /// All have applied all that `leader` has.
    pub(crate) fn all_at(&self, leader: u16) -> bool {
        let tail = self.nodes[usize::from(leader)].core.log.tail().position;
        self.nodes.iter().all(|node| node.core.applied.0 == tail)
    }

    pub(crate) fn assert_equal_logs(&self) {
        let first = &self.nodes[0].core;
        for node in &self.nodes[1..] {
            assert_eq!(node.core.log.tail(), first.log.tail());
            assert_eq!(node.core.state.state_hash(), first.state.state_hash());
        }
    }
}

impl Node {
    fn new(settings: CoreSettings, wire: &Rc<RefCell<Wire>>) -> Self {
        let (core_link, control, sync, keeper) = link();
        let own = address(settings.identity.node.0);
        let members = settings.peers.iter().map(|peer| (peer.node, peer.address)).collect();
        let network = TestNetwork { own, members, wire: Rc::clone(wire), batch: Vec::new() };
        let hot = HotSettings {
            segment_bytes: SEGMENT_BYTES,
            window_bytes: settings.window_bytes,
            group: GROUP,
            generation: Generation::default(),
            header: header_page(),
            terms: Vec::new(),
        };
        let genesis = Predecessor::genesis(GROUP);
        let log = HotLog::new(hot, genesis);
        let shared: Shared = Arc::new(SharedWords::default());
        let wakers = CoreWakers { control: Arc::new(NoWake), sync: Arc::new(NoWake) };
        let state = State::new(Echo::new(), settings.limits);
        let start = Start { tail: genesis, ..Start::default() };
        let core =
            Core::new(settings, network, log, state, core_link, Arc::clone(&shared), wakers, start);
        let tier = HeapHotTier::new(SEGMENT_BYTES, 1);
        let facts = Vec::new();
        let next_segment = Position(0);
        Self { core, control, sync, keeper, shared, tier, next_segment, facts, stalled: false }
    }

    pub(crate) fn give(&self, chunk: LogChunk) {
        self.control.to_lane.try_send(chunk).expect("room in the mailbox");
    }

    pub(crate) fn order(&self, order: ControlToCore) {
        self.control.to_core.try_send(order).expect("room in the mailbox");
    }

    fn step(&mut self, now: Nanos) {
        self.core.step(Now { at: now, time: Timestamp(now.0) });
        self.facts.extend(self.control.from_core.try_iter());
        if self.core.log.end_of_room().0 < self.core.log.tail().position.0 + 2 * SEGMENT_BYTES {
            let base = self.next_segment;
            self.tier.create(base).unwrap();
            self.tier.populate(base, 0, 4096 + SEGMENT_BYTES).unwrap();
            let (memory, _) = self.tier.open(base).unwrap();
            self.keeper.to_core.try_send(SegmentReady { base, memory }).unwrap();
            self.next_segment = base.plus(SEGMENT_BYTES);
        }
        self.keeper.from_core.try_iter().for_each(drop);
        if self.stalled {
            return;
        }
        let words = self.shared.words();
        let load =
            |word: &std::sync::atomic::AtomicU64| word.load(std::sync::atomic::Ordering::Acquire);
        for CoreToSync::Cut { epoch, .. } in self.sync.from_core.try_iter() {
            self.sync.to_core.try_send(SyncToCore::CutDone { epoch }).unwrap();
        }
        let durable = Durable(Position(load(&words.verified)));
        let epoch = CutEpoch(load(&words.cut_epoch) as u32);
        let _ = self.sync.to_core.try_send(SyncToCore::Durable { epoch, durable });
    }
}

#[test]
fn three_nodes_commit_and_apply_the_same() {
    let mut world = World::new(3, Faults::default(), 1);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    world.append(100, 100);
    assert!(world.run(5000, |world| world.all_applied()));
    world.assert_equal_logs();
}

#[test]
fn loss_duplication_and_reordering_change_nothing_across_many_segments() {
    for seed in 0..6 {
        let faults = Faults { loss: 10, duplicate: 5, reorder_ns: 200_000 };
        let mut world = World::new(3, faults, seed);
        world.lead(1);
        for _ in 0..40 {
            world.append(20, 700);
            world.run(50, |_| false);
        }
        assert!(world.run(100_000, |world| world.all_applied()), "seed {seed}");
        world.assert_equal_logs();
        assert!(world.nodes[0].core.log.tail().position.0 > 4 * SEGMENT_BYTES);
        let naks: u64 = world.nodes.iter().map(|node| node.core.counters.naks_sent).sum();
        assert!(naks > 0, "something was lost and asked for");
    }
}

#[test]
fn the_leader_commits_nothing_that_is_not_on_its_disk() {
    let mut world = World::new(3, Faults::default(), 4);
    world.nodes[0].stalled = true;
    world.lead(1);
    world.run(3000, |_| false);
    assert_eq!(world.nodes[0].core.commit, Commit::default());
    world.nodes[0].stalled = false;
    assert!(world.run(3000, |world| world.all_applied()));
}

#[test]
fn a_follower_with_a_tail_of_its_own_cuts_it_and_follows() {
    let mut world = World::new(3, Faults::default(), 5);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    // Nodes 1 and 2 hear nothing more; the old leader appends what nobody else gets, and node 0 stays the newest only
    // in its own eyes: node 2 takes a tail of another term, which nobody commits.
    world.wire.borrow_mut().cut_off = vec![address(2)];
    world.nodes[2].order(ControlToCore::Fence(leadership(2)));
    world.nodes[2].order(ControlToCore::Lead(leadership(2)));
    world.run(100, |_| false);
    let own = world.nodes[2].core.log.tail();
    assert_eq!(own.term, Term(2));
    world.append(20, 300);
    world.run(2000, |_| false);
    world.wire.borrow_mut().cut_off.clear();
    world.lead(3);
    assert!(world.run(20_000, |world| world.all_applied()
        && world.nodes[0].core.log.tail().term == Term(3)));
    world.assert_equal_logs();
    let cut = |fact: &CoreToControl| {
        matches!(fact, CoreToControl::Event(crate::link::CoreEvent::Cut { entries: 1, .. }))
    };
    assert!(world.nodes[2].facts.iter().any(cut), "{:?}", world.nodes[2].facts);
}

#[test]
fn d4_a_late_report_after_a_cut_makes_nothing_durable() {
    let mut world = World::new(3, Faults::default(), 6);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    let node = &mut world.nodes[1];
    node.core.cut_epoch = CutEpoch(4);
    let before = node.core.durable;
    let durable = Durable(Position(u64::MAX));
    let late = SyncToCore::Durable { epoch: CutEpoch(3), durable };
    node.sync.to_core.try_send(late).unwrap();
    node.core.step(Now { at: world.now, time: Timestamp(0) });
    assert_eq!(node.core.durable, before);
}

#[test]
fn d13_stale_and_foreign_datagrams_change_nothing() {
    let mut world = World::new(3, Faults::default(), 7);
    world.lead(2);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    world.append(5, 64);
    assert!(world.run(5000, |world| world.all_applied()));
    let before = world.nodes[1].core.log.tail();
    let send = |group: GroupId, node: u16, term: u32, from: SocketAddr, position: u64| {
        let kind = crate::stream::datagram::DatagramKind::Data;
        let mut header = DatagramHeader::new(kind, group, Some(NodeId(node)), leadership(term));
        header.position = position.into();
        let bytes = [header.as_bytes(), &[0xAA; 256]].concat();
        world.wire.borrow_mut().send(from, address(1), &bytes);
    };
    send(GROUP, 0, 1, address(0), 0); // an older term
    send(GroupId(9), 0, 2, address(0), 0); // another group
    send(GROUP, 0, 2, address(2), 0); // a node under another's number
    send(GROUP, 2, 2, address(2), before.position.0); // a member that does not lead
    send(GROUP, 0, 2, address(0), 0); // the leader's own, over bytes that are verified
    world.run(500, |_| false);
    let core = &world.nodes[1].core;
    assert_eq!(core.log.tail(), before);
    assert_eq!(core.counters.dropped_group, 1);
    assert!(core.counters.dropped_stale >= 2 && core.counters.dropped_garbage >= 1);
    world.append(5, 64);
    assert!(world.run(5000, |world| world.all_applied()));
    world.assert_equal_logs();
}

#[test]
fn a_frame_that_was_corrupted_on_the_way_is_asked_for_again() {
    let mut world = World::new(3, Faults::default(), 8);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    world.append(3, 2000);
    // Turn a bit in everything that flies to node 1 once.
    world.run(1, |_| false);
    for (.., to, bytes) in &mut world.wire.borrow_mut().flying {
        if *to == address(1) && bytes.len() > 500 {
            let at = bytes.len() - 100;
            bytes[at] ^= 1;
        }
    }
    assert!(world.run(20_000, |world| world.all_applied()));
    world.assert_equal_logs();
    assert!(world.nodes[1].core.counters.bad_frames > 0);
}

/// Every follower of five misses the same datagram, again and again: NAKs that all of them sent together.
fn naks_for_common_losses(rounds: u64) -> (u64, u64) {
    let mut world = World::new(5, Faults { reorder_ns: 20_000, ..Faults::default() }, 13);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    let naks = |world: &World| -> u64 {
        world.nodes.iter().map(|node| node.core.counters.naks_sent).sum()
    };
    for _ in 0..rounds {
        world.append(1, 300);
        world.run(1, |_| false);
        world.wire.borrow_mut().flying.retain(|(_, _, from, ..)| *from != address(0));
        world.append(1, 300);
        assert!(world.run(20_000, |world| world.all_applied()));
    }
    world.assert_equal_logs();
    (naks(&world), world.nodes[0].core.counters.repairs_sent)
}

#[test]
fn on_multicast_a_followers_question_spares_the_others_theirs() {
    let rounds = 60;
    let (naks, repairs) = naks_for_common_losses(rounds);
    assert!(naks >= rounds, "each loss was asked for");
    assert!(2 * naks < 5 * rounds, "{naks} questions for {rounds} losses on 4 followers");
    assert!(repairs < 2 * rounds, "{repairs} repairs");
}

#[test]
fn the_first_guess_at_the_round_trip_is_the_match_answers() {
    let mut world = World::new(3, Faults::default(), 14);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    for node in &world.nodes[1..] {
        // Two ways of 10 us, each rounded up to a step of 20 us.
        let guess = node.core.receiver.round_trip();
        assert!(!guess.is_measured());
        assert!((20_000..=80_000).contains(&guess.smoothed_ns()), "{}", guess.smoothed_ns());
    }
}

#[test]
fn every_node_tells_the_hash_of_the_same_entries() {
    let mut world = World::new(3, Faults::default(), 9);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    world.append(64, 32);
    assert!(world.run(5000, |world| world.all_applied()));
    let hashes = |node: &Node| -> Vec<_> {
        let hash = |fact: &CoreToControl| match fact {
            CoreToControl::StateHash { sequence, hash } => Some((*sequence, *hash)),
            _ => None,
        };
        node.facts.iter().filter_map(hash).collect()
    };
    let first = hashes(&world.nodes[0]);
    assert!(first.len() >= 3);
    for node in &world.nodes[1..] {
        assert_eq!(hashes(node), first);
    }
}

#[test]
fn a_single_node_is_a_group_of_its_own() {
    let mut world = World::new(1, Faults::default(), 10);
    world.lead(1);
    world.append(10, 10);
    assert!(world.run(1000, |world| world.all_applied()));
    assert_eq!(world.nodes[0].core.applied, Applied(world.nodes[0].core.log.tail().position));
}

#[test]
fn one_send_serves_all_members_and_its_bytes_lie_in_the_log() {
    let sends = |nodes| {
        let mut world = World::new(nodes, Faults::default(), 11);
        world.lead(1);
        let led = |world: &mut World| world.all_applied() && world.nodes[0].core.commit.0.0 > 0;
        assert!(world.run(1000, led));
        world.wire.borrow_mut().sends.clear();
        for _ in 0..10 {
            world.append(5, 200);
            assert!(world.run(5000, |world| world.all_applied()));
        }
        let log = &world.nodes[0].core.log;
        let sends = std::mem::take(&mut world.wire.borrow_mut().sends);
        for &(position, address, length) in &sends {
            let chunk = log.chunk(position, log.tail().position, length).unwrap();
            assert_eq!(chunk.bytes.as_ptr() as usize, address, "sent from where it is kept");
        }
        sends.len()
    };
    let three = sends(3);
    assert_eq!(three, 10, "one send for each batch");
    assert_eq!(sends(5), three, "as many for five nodes as for three");
}

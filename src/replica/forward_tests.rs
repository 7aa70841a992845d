//! Clients that reach a follower and not the leader, on the virtual wire.

use std::rc::Rc;

use zerocopy::IntoBytes;

use super::forward::ROUTES_MAX;
use super::tests::{Faults, GROUP, TestNetwork, World, address, leadership};
use crate::client::{Client, ClientSettings, ClientState, Outcome, Request};
use crate::limits::LANE_WINDOW_BYTES_DEFAULT;
use crate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_FORWARD, FLAG_LANE, HelloBody, LaneHeader, parse,
};
use crate::stream::network::{Destination, Network};
use crate::types::{Leadership, Nanos, NodeId};

/// Clients are here and behind.
const CLIENTS: u16 = 1000;

/// A client that sends numbered commands, one behind the other, and keeps what it was told.
struct User {
    client: Client<TestNetwork>,
    sent: u64,
    answers: Vec<(Request, Outcome, Vec<u8>)>,
}

impl User {
    fn new(world: &World, number: u16) -> Self {
        Self::with(world, number, |_| {})
    }
    fn with(world: &World, number: u16, change: impl FnOnce(&mut ClientSettings)) -> Self {
        let network = network(world, number);
        let addresses = network.members.iter().map(|(_, address)| *address).collect();
        let mut settings = ClientSettings::new(GROUP, addresses, u64::from(number) + 7);
        change(&mut settings);
        Self { client: Client::new(settings, network).unwrap(), sent: 0, answers: vec![] }
    }
    fn poll(&mut self, now: Nanos) -> ClientState {
        let answers = &mut self.answers;
        self.client.poll(now, |answer| {
            answers.push((answer.request, answer.outcome, answer.reply.to_vec()));
        });
        self.client.state()
    }
    fn send(&mut self, bytes: usize) {
        let mut command = vec![self.sent as u8; bytes];
        command[..8].copy_from_slice(&self.sent.to_le_bytes());
        if self.client.send(&command).is_ok() {
            self.sent += 1;
        }
    }
    /// Each command was applied, in its order, and answered with itself.
    fn assert_told(&self) {
        assert_eq!(self.answers.len() as u64, self.sent);
        for (number, (_, outcome, reply)) in (0_u64..).zip(&self.answers) {
            assert_eq!(*outcome, Outcome::Applied);
            assert_eq!(reply[..8], number.to_le_bytes());
        }
    }
}

fn network(world: &World, number: u16) -> TestNetwork {
    let members = (0..world.nodes.len() as u16).map(|n| (NodeId(n), address(n))).collect();
    let own = address(CLIENTS + number);
    TestNetwork { own, members, wire: Rc::clone(&world.wire), batch: vec![] }
}

/// A client no longer reaches these nodes.
fn part(world: &World, client: u16, nodes: &[u16]) {
    let mut wire = world.wire.borrow_mut();
    wire.parted.extend(nodes.iter().map(|node| [address(CLIENTS + client), address(*node)]));
}

fn forwarded(world: &World, node: usize) -> u64 {
    world.nodes[node].core.counters.forwarded
}

/// What every node's service has been given.
fn applied(world: &World) -> Vec<u64> {
    world.nodes.iter().map(|node| node.core.state.service().seen().count).collect()
}

/// Each client sends so many commands more; whether all were answered in the time.
fn turn(world: &mut World, users: &mut [User], steps: usize, commands: u64) -> bool {
    let mut left: Vec<_> = users.iter().map(|_| commands).collect();
    world.run(steps, |world| {
        for (user, left) in users.iter_mut().zip(&mut left) {
            if *left > 0 && user.client.unanswered() < 8 {
                let before = user.sent;
                user.send(600);
                *left -= user.sent - before;
            }
            user.poll(world.now);
        }
        left.iter().all(|left| *left == 0) && users.iter().all(|user| user.client.unanswered() == 0)
    })
}

#[test]
fn g126_a_client_that_reaches_one_follower_alone_is_served_through_it() {
    let mut world = World::new(3, Faults::default(), 1);
    world.lead(1);
    part(&world, 0, &[0, 1]);
    let mut user = User::new(&world, 0);
    assert!(world.run(50_000, |world| user.poll(world.now) == ClientState::Open));
    assert_eq!((user.client.node(), user.client.counters().forwarded), (Some(address(2)), 1));
    // More than a window, in many datagrams, so that room must be told of through the follower too.
    let bytes = 8000;
    while user.sent * bytes < 3 * LANE_WINDOW_BYTES_DEFAULT {
        user.send(bytes as usize);
        world.run(1, |world| user.poll(world.now) == ClientState::Closing);
    }
    assert!(world.run(50_000, |world| {
        user.poll(world.now);
        user.client.unanswered() == 0
    }));
    user.assert_told();
    assert!(world.run(5_000, |world| world.all_applied()));
    assert_eq!(applied(&world), [user.sent; 3]);
    assert_eq!(user.client.counters().lanes, 1, "nothing made it look elsewhere");
    assert!(forwarded(&world, 2) > 0 && forwarded(&world, 0) == 0 && forwarded(&world, 1) == 0);
}

#[test]
fn g126_who_reaches_the_leader_is_shown_there_and_who_does_not_want_it_is_not_passed_on() {
    let mut world = World::new(3, Faults::default(), 2);
    world.lead(1);
    let mut direct = User::new(&world, 0);
    assert!(world.run(50_000, |world| direct.poll(world.now) == ClientState::Open));
    assert_eq!(direct.client.node(), Some(address(0)));
    let mut wary = User::with(&world, 1, |settings| settings.forward_after_ns = u64::MAX);
    part(&world, 1, &[0]);
    assert!(!world.run(50_000, |world| wary.poll(world.now) == ClientState::Open));
    assert_eq!((forwarded(&world, 1), forwarded(&world, 2)), (0, 0));
}

#[test]
fn a12_g1_a_client_behind_a_follower_outlives_leaders_and_whoever_passes_it_on() {
    for seed in 0..4 {
        let faults = Faults { loss: 3, duplicate: 3, reorder_ns: 100_000 };
        let mut world = World::new(3, faults, seed);
        world.lead(1);
        // Two clients behind the same node: to the leader they are at one address.
        let mut users = [User::new(&world, 0), User::new(&world, 1)];
        for number in [0, 1] {
            part(&world, number, &[0]);
        }
        assert!(turn(&mut world, &mut users, 50_000, 50));
        // The next leader is one that they do not reach either, or do, as it comes.
        for (leader, term) in [(1, 2), (0, 3), (2, 4), (0, 5)] {
            // What is under way when the leader goes is decided once.
            turn(&mut world, &mut users, 40, 50);
            // As an election would have it: whoever leads next has all that is committed.
            assert!(world.run(50_000, |world| {
                let committed = world.nodes.iter().map(|node| node.core.commit.0).max();
                Some(world.nodes[usize::from(leader)].core.log.tail().position) >= committed
            }));
            world.led_by(leader, term);
            assert!(turn(&mut world, &mut users, 100_000, 50), "seed {seed}, term {term}");
            assert!(world.run(50_000, |world| world.all_at(leader)), "seed {seed}, term {term}");
        }
        // Whoever passes them on falls silent, twice: with less than what is kept in memory for it.
        for _ in 0..2 {
            let door = users[0].client.node().expect("it has a lane");
            assert_ne!(door, address(0));
            world.wire.borrow_mut().cut_off = vec![door];
            assert!(turn(&mut world, &mut users, 100_000, 10), "seed {seed}");
            let next = users[0].client.node().expect("through the other one");
            assert!(next != door && next != address(0), "seed {seed}: {next}");
            world.wire.borrow_mut().cut_off.clear();
            assert!(world.run(50_000, |world| world.all_at(0)), "seed {seed}");
        }
        let total: u64 = users.iter().map(|user| user.sent).sum();
        assert!(total >= 2 * 270, "seed {seed}: {total}");
        for user in &users {
            user.assert_told();
            let counters = user.client.counters();
            assert!(counters.forwarded >= 3, "seed {seed}: {counters:?}");
        }
        assert!(world.run(50_000, |world| world.all_applied()), "seed {seed}");
        assert_eq!(applied(&world), [total; 3], "seed {seed}: each once, on every node");
        world.assert_equal_logs();
    }
}

#[test]
fn d3_what_a_leader_says_whose_term_is_over_is_not_passed_on() {
    let mut world = World::new(3, Faults::default(), 5);
    world.lead(1);
    part(&world, 0, &[0, 1]);
    let mut user = User::new(&world, 0);
    assert!(world.run(50_000, |world| user.poll(world.now) == ClientState::Open));
    let session = user.client.session().expect("it is open").0;
    let lane = world.nodes[0].core.lane_of(user.client.session().expect("open"));
    let lane = LaneHeader { session: session.into(), epoch: lane.expect("it has one").into() };
    world.run(5_000, |_| false);
    let say = |world: &mut World, term: u32, from: u16| {
        let before = forwarded(world, 2);
        let members = (0..3).map(|n| (NodeId(n), address(n))).collect();
        let (own, wire) = (address(from), Rc::clone(&world.wire));
        let mut network = TestNetwork { own, members, wire, batch: vec![] };
        let node = Some(NodeId(from));
        let mut header = DatagramHeader::new(DatagramKind::Data, GROUP, node, leadership(term));
        header.flags = FLAG_LANE;
        header.position = (1_u64 << 40).into();
        network.send(Destination::Address(address(2)), &header, lane.as_bytes(), &[7; 32]);
        // The client is not polled: nobody else says anything on its lane, but for heartbeats.
        let stale = world.nodes[2].core.counters.dropped_stale;
        world.run(2, |_| false);
        (forwarded(world, 2) > before, world.nodes[2].core.counters.dropped_stale > stale)
    };
    assert_eq!(say(&mut world, 1, 0), (true, false), "of its leader, in its term");
    assert_eq!(say(&mut world, 1, 1), (false, true), "of another node");
    world.nodes[2].order(crate::link::ControlToCore::Fence(leadership(2)));
    world.nodes[2]
        .order(crate::link::ControlToCore::Follow { leadership: leadership(2), leader: NodeId(0) });
    world.run(1, |_| false);
    assert!(!say(&mut world, 1, 0).0, "the term is over");
    assert!(!say(&mut world, 2, 0).0, "and so are the routes of it");
}

#[test]
fn a_node_passes_on_so_many_clients_and_shows_the_others_to_the_leader() {
    let mut world = World::new(3, Faults::default(), 6);
    world.lead(1);
    world.run(1000, |world| world.all_applied());
    let mut stranger = network(&world, 0);
    let mut say = |world: &mut World, nonce: u64, flags: u8, to: u16| {
        let mut header =
            DatagramHeader::new(DatagramKind::Hello, GROUP, None, Leadership::default());
        header.flags = flags;
        let hello = HelloBody {
            nonce: nonce.into(),
            session: 0.into(),
            epoch: 1.into(),
            timeout: Nanos::SECOND.into(),
        };
        stranger.send(Destination::Address(address(to)), &header, &[], hello.as_bytes());
        let mut redirected = false;
        world.run(3, |_| {
            for index in 0..stranger.poll() {
                let (from, bytes) = stranger.datagram(index);
                let (_, kind, _) = parse(bytes, GROUP).expect("a node's");
                redirected |= kind == DatagramKind::Redirect && from == address(to);
            }
            false
        });
        redirected
    };
    assert!(say(&mut world, 1, 0, 2), "who does not ask for it is shown to the leader");
    assert_eq!(forwarded(&world, 2), 0);
    for nonce in 1..=ROUTES_MAX as u64 {
        assert!(!say(&mut world, nonce, FLAG_FORWARD, 2), "{nonce}");
    }
    assert!(forwarded(&world, 2) >= ROUTES_MAX as u64);
    assert!(say(&mut world, 1 << 32, FLAG_FORWARD, 2), "one too many");
    assert!(!say(&mut world, 1 << 32, FLAG_FORWARD, 1), "and another node has room");
}

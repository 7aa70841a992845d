//! Clients of a group on the virtual wire: how a session ends, and commands out of their order.

use std::rc::Rc;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, IntoBytes};

use super::tests::{Faults, GROUP, TestNetwork, World, address};
use crate::client::{Client, ClientSettings, ClientState, CloseCause, Refusal};
use crate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_LANE, HelloBody, LaneHeader, WelcomeBody, parse,
};
use crate::stream::message::{AnswerHeader, AnswerKind, RequestHeader, RequestKind};
use crate::stream::network::{Destination, Network};
use crate::types::{ClientSequence, Leadership, Nanos, NodeId};

/// A client on the same wire, at an address of its own.
struct User {
    client: Client<TestNetwork>,
    answers: usize,
}

impl User {
    fn new(world: &World) -> Self {
        let network = network(world);
        let addresses = network.members.iter().map(|(_, address)| *address).collect();
        Self::with(network, ClientSettings::new(GROUP, addresses, 7))
    }
    fn with(network: TestNetwork, settings: ClientSettings) -> Self {
        Self { client: Client::new(settings, network).unwrap(), answers: 0 }
    }
    fn poll(&mut self, now: Nanos) -> ClientState {
        self.client.poll(now, |_| self.answers += 1);
        self.client.state()
    }
}

#[test]
fn a_client_that_closes_hears_so_in_round_trips_and_not_in_time_outs() {
    for seed in 0..5 {
        let mut world = World::new(3, Faults { reorder_ns: 40_000, ..Faults::default() }, seed);
        world.lead(1);
        let mut user = User::new(&world);
        assert!(world.run(20_000, |world| user.poll(world.now) == ClientState::Open));
        user.client.send(b"a command").expect("open");
        assert!(world.run(5000, |world| {
            user.poll(world.now);
            user.answers == 1
        }));
        user.client.close(world.now);
        let (before, asked) = (world.now, ClientState::Closed(CloseCause::Asked));
        assert!(world.run(50_000, |world| user.poll(world.now) == asked));
        // To the leader, to the followers and back, and back again, each 10 to 50 us; a step of the virtual world is 20 us.
        let took = world.now.since(before);
        assert!(took < Nanos::MILLISECOND, "seed {seed}: {took} ns");
        assert_eq!(user.client.counters().lanes, 1, "nothing made it look for a leader");
        assert_eq!(world.nodes[0].core.state.sessions().count(), 0);
        // Its lane is gone too, and nothing is left to be sent.
        let sent = world.wire.borrow().sent;
        world.run(200, |_| false);
        assert!(world.wire.borrow().sent - sent < 20, "heartbeats only");
        assert_eq!(world.nodes[0].core.open_lanes(), 0);
    }
}

#[test]
fn a12_a_hello_that_comes_before_the_term_is_open_is_answered_when_it_is() {
    let mut world = World::new(3, Faults::default(), 3);
    world.lead(1);
    // Alone, the new leader cannot commit the entry that opens its term.
    world.wire.borrow_mut().cut_off = vec![address(1), address(2)];
    world.run(50, |_| false);
    let mut user = User::new(&world);
    world.run(50, |world| user.poll(world.now) == ClientState::Open);
    assert_eq!(user.client.state(), ClientState::Connecting);
    let hellos = user.client.counters().hellos;
    world.wire.borrow_mut().cut_off.clear();
    assert!(world.run(5000, |world| user.poll(world.now) == ClientState::Open));
    assert_eq!(user.client.counters().hellos, hellos, "it need not ask again");
}

#[test]
fn a12_a_session_that_only_says_it_lives_outlives_a_change_of_leader() {
    let mut world = World::new(3, Faults::default(), 4);
    world.lead(1);
    let network = network(&world);
    let addresses = network.members.iter().map(|(_, address)| *address).collect();
    let mut settings = ClientSettings::new(GROUP, addresses, 7);
    settings.session_timeout_ns = Nanos::SECOND;
    settings.end.keep_alive_ns = 200 * Nanos::MILLISECOND;
    let mut user = User::with(network, settings);
    assert!(world.run(20_000, |world| user.poll(world.now) == ClientState::Open));
    let session = user.client.session();
    // Followers hear nothing of it meanwhile, and the term began longer ago than its time-out and the leader's patience.
    let long_ago = world.now.plus(4 * Nanos::SECOND);
    assert!(world.run(400_000, |world| {
        user.poll(world.now);
        world.now > long_ago
    }));
    world.led_by(1, 2);
    assert!(world.run(50_000, |world| {
        user.poll(world.now) == ClientState::Open && user.client.node() == Some(address(1))
    }));
    world.run(10_000, |world| user.poll(world.now) == ClientState::Closing);
    assert_eq!(user.client.session(), session);
    assert_eq!(world.nodes[1].core.state.sessions().count(), 1);
}

#[test]
fn a12_commands_share_the_sync_of_the_entry_that_opens_the_term() {
    let mut world = World::new(3, Faults::default(), 5);
    world.lead(1);
    let mut user = User::new(&world);
    assert!(world.run(20_000, |world| user.poll(world.now) == ClientState::Open));
    user.client.send(b"one").expect("open");
    assert!(world.run(5000, |world| {
        user.poll(world.now);
        user.answers == 1 && world.all_applied()
    }));
    // The next leader commits nothing for now: its followers hear it, and say nothing.
    world.led_by(1, 2);
    world.nodes.iter_mut().for_each(|node| node.stalled = true);
    let opened = world.nodes[1].core.log.tail().sequence.0;
    assert!(world.run(5000, |world| {
        user.poll(world.now);
        let _ = user.client.send(b"two");
        world.nodes[1].core.log.tail().sequence.0 > opened + 2
    }));
    assert_eq!(user.answers, 1);
    assert!(world.nodes[1].core.commit.0.0 < world.nodes[1].core.log.tail().position.0);
    world.nodes.iter_mut().for_each(|node| node.stalled = false);
    assert!(world.run(5000, |world| {
        user.poll(world.now);
        user.client.unanswered() == 0 && world.all_at(1)
    }));
    world.assert_equal_logs();
}

#[test]
fn a_client_whose_last_acknowledgement_is_lost_closes_all_the_same() {
    let mut world = World::new(3, Faults::default(), 12);
    world.lead(1);
    let mut user = User::new(&world);
    assert!(world.run(20_000, |world| user.poll(world.now) == ClientState::Open));
    user.client.close(world.now);
    assert!(world.run(5000, |world| {
        user.poll(world.now);
        world.nodes[0].core.open_lanes() == 0
    }));
    world.wire.borrow_mut().flying.retain(|(_, _, _, to, _)| *to != address(1000));
    let (before, asked) = (world.now, ClientState::Closed(CloseCause::Asked));
    assert!(world.run(50_000, |world| user.poll(world.now) == asked));
    let took = world.now.since(before);
    assert!(took < 20 * Nanos::MILLISECOND, "{took} ns");
}

/// The wire as a client sees it.
fn network(world: &World) -> TestNetwork {
    let members = (0..world.nodes.len() as u16).map(|n| (NodeId(n), address(n))).collect();
    TestNetwork { own: address(1000), members, wire: Rc::clone(&world.wire), batch: vec![] }
}

/// A client that numbers its commands as it likes, over a lane made by hand. Nothing is lost on its wire.
struct Raw {
    network: TestNetwork,
    /// The node that it speaks to.
    node: u16,
    lane: LaneHeader,
    welcomed: bool,
    sent_bytes: u64,
    /// Answers: to which command, and what.
    answers: Vec<(u64, AnswerKind)>,
}

impl Raw {
    fn open(world: &mut World) -> Self {
        let lane = LaneHeader { session: 0.into(), epoch: 0.into() };
        let mut raw = Self {
            network: network(world),
            node: 0,
            lane,
            welcomed: false,
            sent_bytes: 0,
            answers: vec![],
        };
        raw.begin(world, 0);
        raw
    }
    /// Another lane of its session, to this node.
    fn begin(&mut self, world: &mut World, node: u16) {
        let epoch = self.lane.epoch.get() + 1;
        let session = self.lane.session;
        (self.node, self.sent_bytes, self.welcomed) = (node, 0, false);
        self.lane.epoch = epoch.into();
        let hello = HelloBody {
            nonce: 5.into(),
            session,
            epoch: epoch.into(),
            timeout: Nanos::SECOND.into(),
        };
        self.send(DatagramKind::Hello, 0, &[], hello.as_bytes());
        assert!(world.run(1000, |_| self.poll() && self.welcomed), "welcomed");
        self.answers.clear();
    }
    fn send(&mut self, kind: DatagramKind, flags: u8, prefix: &[u8], body: &[u8]) {
        let mut header = DatagramHeader::new(kind, GROUP, None, Leadership::default());
        header.flags = flags;
        header.position = self.sent_bytes.into();
        self.network.send(Destination::Address(address(self.node)), &header, prefix, body);
    }
    fn command(&mut self, number: u64, payload: &[u8]) {
        let number = ClientSequence(number);
        let mut header = RequestHeader::new(RequestKind::Command, number, ClientSequence(0));
        header.length = U32::new((size_of::<RequestHeader>() + payload.len()) as u32);
        let mut bytes = [header.as_bytes(), payload].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let lane = self.lane;
        self.send(DatagramKind::Data, FLAG_LANE, lane.as_bytes(), &bytes);
        self.sent_bytes += bytes.len() as u64;
    }
    /// Takes what came: answers without a payload, one after the other. Always true, to stand in a condition.
    fn poll(&mut self) -> bool {
        for index in 0..self.network.poll() {
            let (_, bytes) = self.network.datagram(index);
            let (header, kind, body) = parse(bytes, GROUP).expect("a node's");
            if kind == DatagramKind::Welcome {
                let (welcome, _) = WelcomeBody::read_from_prefix(body).expect("whole");
                self.lane.session = welcome.session;
                self.welcomed = welcome.epoch == self.lane.epoch;
            } else if kind == DatagramKind::Data && header.flags & FLAG_LANE != 0 {
                let mut rest = &body[size_of::<LaneHeader>()..];
                while let Ok((answer, _)) = AnswerHeader::read_from_prefix(rest) {
                    let kind = answer.outcome().expect("a known one");
                    let said = (answer.client_sequence().0, kind);
                    if !self.answers.contains(&said) {
                        self.answers.push(said);
                    }
                    let length = (answer.length.get() as usize).next_multiple_of(8);
                    rest = rest.get(length..).unwrap_or(&[]);
                }
            }
        }
        true
    }
}

#[test]
fn d10_a_leader_logs_no_command_before_the_one_before_it() {
    let mut world = World::new(3, Faults::default(), 15);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    let mut raw = Raw::open(&mut world);
    let mut say = |world: &mut World, number: u64, kind: AnswerKind| {
        raw.command(number, b"");
        let answered =
            world.run(500, |_| raw.poll() && raw.answers.last() == Some(&(number, kind)));
        assert!(answered, "{number} {kind:?}: {:?}", raw.answers);
    };
    for number in 1..=3 {
        say(&mut world, number, AnswerKind::Applied);
    }
    let before = world.nodes[0].core.log.tail();
    say(&mut world, 5, AnswerKind::Gap);
    assert_eq!(world.nodes[0].core.log.tail(), before, "nothing was logged");
    assert_eq!(world.nodes[0].core.counters.gaps_refused, 1);
    say(&mut world, 4, AnswerKind::Applied);
    say(&mut world, 5, AnswerKind::Applied);
    assert!(world.run(1000, |world| world.all_applied()));
    world.assert_equal_logs();
    let tail = world.nodes[0].core.log.tail();
    assert_eq!(tail.sequence.0, before.sequence.0 + 2, "each once");
}

#[test]
fn d10_what_a_leader_logged_too_early_is_taken_when_it_comes_again() {
    let mut world = World::new(3, Faults::default(), 16);
    world.lead(1);
    assert!(world.run(1000, |world| world.all_applied() && world.nodes[0].core.commit.0.0 > 0));
    let mut raw = Raw::open(&mut world);
    raw.command(1, b"");
    assert!(world.run(500, |_| raw.poll() && raw.answers == [(1, AnswerKind::Applied)]));
    assert!(world.run(1000, |world| world.all_applied()));
    // The next leader commits nothing for now: whether the client lacks a command that comes first here, it cannot know.
    world.led_by(1, 2);
    world.nodes.iter_mut().for_each(|node| node.stalled = true);
    raw.begin(&mut world, 1);
    let opened = world.nodes[1].core.log.tail().sequence.0;
    for number in [3, 4, 6] {
        raw.command(number, b"");
    }
    world.run(200, |_| !raw.poll());
    assert_eq!(
        world.nodes[1].core.log.tail().sequence.0,
        opened + 2,
        "but that 5 is missing it can"
    );
    world.nodes.iter_mut().for_each(|node| node.stalled = false);
    let gaps = [(6, AnswerKind::Gap), (3, AnswerKind::Gap), (4, AnswerKind::Gap)];
    let told = world.run(5000, |_| raw.poll() && gaps.iter().all(|gap| raw.answers.contains(gap)));
    assert!(told, "{:?}", raw.answers);
    raw.begin(&mut world, 1);
    for number in 2..=4 {
        raw.command(number, b"");
        let answer = (number, AnswerKind::Applied);
        let answered = world.run(500, |_| raw.poll() && raw.answers.contains(&answer));
        assert!(answered, "{number}: {:?}", raw.answers);
    }
    assert!(world.run(1000, |world| world.all_applied()));
    world.assert_equal_logs();
}

#[test]
fn g3_a_follower_that_hears_its_leader_no_more_says_no_quorum_and_names_nobody() {
    let mut world = World::new(3, Faults::default(), 3);
    world.lead(1);
    assert!(world.run(20_000, |world| world.all_applied()));
    world.wire.borrow_mut().cut_off = vec![address(0), address(1)];
    let mut user = User::new(&world);
    assert!(world.run(50_000, |world| user.poll(world.now) == ClientState::NoQuorum));
    let since = user.client.no_quorum_since().expect("it was told");
    assert!(since <= world.now);
    assert_eq!(user.client.send(b"a command"), Err(Refusal::NoQuorum));
    world.run(5_000, |world| user.poll(world.now) == ClientState::Open);
    assert_eq!(
        user.client.no_quorum_since(),
        Some(since),
        "since then, and not since the last word"
    );
    world.wire.borrow_mut().cut_off.clear();
    assert!(world.run(100_000, |world| user.poll(world.now) == ClientState::Open));
    assert_eq!(user.client.no_quorum_since(), None);
}

//! Clients and nodes over lanes on a network that does its worst, in virtual time: each command takes effect once, in
//! order, and its own reply comes back.

#[path = "support/lane_world.rs"]
mod lane_world;

use lane_world::{Link, World, next};
use proptest::prelude::*;
use quorate::client::{ClientState, CloseCause, Outcome, Refusal, Request};
use quorate::limits::COMMAND_BYTES_MAX;
use quorate::stream::{LaneError, LanesSettings};
use quorate::types::{ClientSequence, Nanos};

const SECOND: u64 = 1_000_000_000;

fn few() -> LanesSettings {
    LanesSettings { lanes: 8, pool_bytes: 8 << 20, ..LanesSettings::default() }
}

fn open(world: &mut World) {
    let until = world.now + 10 * SECOND;
    let all_open =
        |world: &mut World| world.users.iter().all(|user| user.client.state() == ClientState::Open);
    assert!(world.run(until, all_open), "not connected");
}

/// Sends `payloads` as fast as the client takes them, until all are answered.
fn send_all(world: &mut World, user: usize, payloads: &[Vec<u8>], seconds: u64) {
    let before = world.users[user].answers.len();
    let (mut sent, until) = (0, world.now + seconds * SECOND);
    let done = world.run(until, |world| {
        let user = &mut world.users[user];
        while sent < payloads.len() {
            match user.client.send(&payloads[sent]) {
                Ok(_) => sent += 1,
                Err(
                    Refusal::BackPressured
                    | Refusal::NotConnected
                    | Refusal::NoQuorum
                    | Refusal::NoSpace,
                ) => break,
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
        user.answers.len() - before == payloads.len()
    });
    assert!(done, "{} of {} answered", world.users[user].answers.len() - before, payloads.len());
}

/// Everything took effect once, in order, and each answer is its own.
fn assert_once(world: &World, user: usize, payloads: &[Vec<u8>]) {
    let user = &world.users[user];
    let id = user.client.session().expect("a session").0;
    let entry = &world.table.sessions[&id];
    assert!(entry.applied == payloads, "applied {} of {}", entry.applied.len(), payloads.len());
    let mut last = 0;
    for (at, (request, outcome, sequence, reply)) in user.answers.iter().enumerate() {
        assert_eq!(*request, Request::Command(ClientSequence(at as u64 + 1)));
        assert_eq!(*outcome, Outcome::Applied);
        assert!(sequence.0 > last, "replies come in log order");
        last = sequence.0;
        let turned: Vec<u8> = payloads[at].iter().rev().copied().collect();
        assert!(*reply == turned, "the reply to {at} is another's");
    }
}

fn payloads(count: usize, bytes_max: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut random = seed;
    let mut payload = |_| {
        let bytes = next(&mut random) as usize % (bytes_max + 1);
        (0..bytes).map(|_| next(&mut random) as u8).collect()
    };
    (0..count).map(&mut payload).collect()
}

#[test]
fn a_command_and_its_answer_take_one_round_trip_and_few_datagrams() {
    let mut world = World::new(1, &few(), Link::clean(), 1);
    let user = world.add_user(|_| {});
    open(&mut world);
    send_all(&mut world, user, &payloads(50, 32, 1), 1);
    let (from, before) = (world.now, world.datagrams);
    for payload in payloads(100, 32, 2) {
        send_all(&mut world, user, &[payload], 1);
    }
    let took = (world.now - from) / 100;
    assert_eq!(took, 100_000, "one round trip");
    let datagrams = (world.datagrams - before) as f64 / 100.0;
    assert!(datagrams < 2.5, "{datagrams} datagrams per command");
}

#[test]
fn commands_and_replies_from_nothing_to_one_mebibyte() {
    let link = Link { loss_per_mille: 20, jitter_ns: 30_000, ..Link::clean() };
    let mut world = World::new(1, &few(), link, 3);
    let user = world.add_user(|_| {});
    open(&mut world);
    let sizes = [0, 1, COMMAND_BYTES_MAX, 7, COMMAND_BYTES_MAX - 1, 100_000, 0];
    let payloads: Vec<Vec<u8>> =
        sizes.iter().map(|&bytes| (0..bytes).map(|at| (at * 7) as u8).collect()).collect();
    send_all(&mut world, user, &payloads, 20);
    assert_once(&world, user, &payloads);
    let client = &mut world.users[user].client;
    assert_eq!(
        client.send(&vec![0; COMMAND_BYTES_MAX + 1]),
        Err(Refusal::TooLong { bytes: COMMAND_BYTES_MAX + 1, bytes_max: COMMAND_BYTES_MAX })
    );
    let idle = world.now + SECOND;
    world.run(idle, |_| false);
    for pool in world.hosts[0].lanes.pools() {
        assert_eq!(pool.free_count(), pool.chunk_count(), "an idle lane holds no memory");
    }
}

#[test]
fn a12_a_client_whose_leader_is_gone_reconnects_and_its_commands_apply_once() {
    let link = Link { loss_per_mille: 30, jitter_ns: 100_000, ..Link::clean() };
    let mut world = World::new(3, &few(), link, 5);
    let user = world.add_user(|_| {});
    open(&mut world);
    let payloads = payloads(600, 200, 9);
    let (mut sent, mut gone) = (0, None);
    for round in 0..6 {
        let target = (round + 1) * 100;
        let until = world.now + 20 * SECOND;
        let done = world.run(until, |world| {
            let user = &mut world.users[user];
            while sent < target && user.client.send(&payloads[sent]).is_ok() {
                sent += 1;
            }
            // Some are answered, some are under way.
            sent == target && user.answers.len() >= target - 40
        });
        assert!(done, "round {round}");
        let dead = world.leader.expect("a leader");
        if round % 2 == 0 {
            // It stays dead until another has led: nobody tells the client, who must find out by itself.
            world.hosts[dead].alive = false;
            world.leader = None;
            gone = Some(dead);
            let pause = world.now + SECOND / 10;
            world.run(pause, |_| false);
        } else {
            if let Some(back) = gone.take() {
                world.hosts[back].alive = true;
                world.hosts[back].lanes.close_all();
            }
            // Deposed, not dead: it says so.
            world.hosts[dead].lanes.close_all();
        }
        world.leader = Some((dead + 1) % 3);
    }
    let until = world.now + 20 * SECOND;
    assert!(world.run(until, |world| world.users[user].answers.len() == payloads.len()));
    assert_once(&world, user, &payloads);
    let counters = world.users[user].client.counters();
    assert!(counters.lanes >= 6, "{counters:?}");
}

#[test]
fn r16_a_silent_network_heals_without_losing_or_doubling_anything() {
    let mut world = World::new(3, &few(), Link::clean(), 6);
    let user = world.add_user(|_| {});
    open(&mut world);
    let payloads = payloads(300, 64, 4);
    // Longer than all the growing intervals of the search together.
    world.blackout = world.now + 120_000..world.now + 6 * SECOND;
    let from = world.now;
    send_all(&mut world, user, &payloads, 20);
    assert!(world.now - from > 6 * SECOND, "it was answered before the silence");
    assert_once(&world, user, &payloads);
}

#[test]
fn d10_what_is_turned_away_is_sent_again_and_nothing_overtakes_it() {
    let mut world = World::new(1, &few(), Link::clean(), 8);
    let user = world.add_user(|_| {});
    open(&mut world);
    let payloads = payloads(60, 64, 4);
    world.hosts[0].turn_away = 3;
    send_all(&mut world, user, &payloads, 10);
    assert_once(&world, user, &payloads);
    assert!(world.users[user].client.counters().lanes > 1, "a new lane began for it");
}

#[test]
fn replies_are_kept_no_longer_than_the_client_needs_them() {
    let mut world = World::new(1, &few(), Link::clean(), 8);
    let user = world.add_user(|settings| settings.in_flight_max = 10);
    open(&mut world);
    let payloads = payloads(500, 64, 4);
    send_all(&mut world, user, &payloads, 10);
    assert_once(&world, user, &payloads);
    let kept = world.table.sessions.values().map(|entry| entry.kept_max).max();
    assert!(kept <= Some(20), "{kept:?}");
}

#[test]
fn d13_what_was_captured_on_an_older_lane_changes_nothing_on_the_next() {
    let mut world = World::new(1, &few(), Link::clean(), 8);
    world.recording = Some(Vec::new());
    let user = world.add_user(|_| {});
    open(&mut world);
    let mut payloads = payloads(40, 300, 4);
    send_all(&mut world, user, &payloads, 1);
    // The same node, another lane.
    world.hosts[0].lanes.close_all();
    let more = self::payloads(40, 300, 5);
    send_all(&mut world, user, &more, 10);
    payloads.extend(more);
    let lanes = world.users[user].client.counters().lanes;
    let captured = world.recording.take().expect("recorded");
    let count = captured.len();
    for (from, to, bytes) in captured {
        world.inject(from, to, bytes);
    }
    let settle = world.now + SECOND / 10;
    world.run(settle, |_| false);
    let more = self::payloads(40, 300, 6);
    send_all(&mut world, user, &more, 1);
    payloads.extend(more);
    assert_once(&world, user, &payloads);
    assert_eq!(world.users[user].client.counters().lanes, lanes, "nothing made it look again");
    let stale = world.hosts[0].errors.iter().filter(|&&error| error == LaneError::StaleEpoch);
    assert!(stale.count() > 10, "of {count} captured");
}

#[test]
fn refusals_have_names() {
    let mut world = World::new(2, &few(), Link::clean(), 8);
    let user = world.add_user(|settings| settings.in_flight_max = 4);
    assert_eq!(world.users[user].client.send(b"x"), Err(Refusal::NotConnected));
    open(&mut world);
    for number in 1..=4 {
        assert_eq!(world.users[user].client.send(b"x"), Ok(ClientSequence(number)));
    }
    assert_eq!(world.users[user].client.send(b"x"), Err(Refusal::BackPressured));
    let until = world.now + SECOND;
    assert!(world.run(until, |world| world.users[user].answers.len() == 4));
    world.quorum = false;
    world.hosts[0].lanes.close_all();
    let _ = world.users[user].client.send(b"y");
    let until = world.now + SECOND;
    let no_quorum = |world: &mut World| world.users[user].client.state() == ClientState::NoQuorum;
    assert!(world.run(until, no_quorum));
    assert_eq!(world.users[user].client.send(b"z"), Err(Refusal::NoQuorum));
    world.quorum = true;
    let until = world.now + 2 * SECOND;
    assert!(world.run(until, |world| world.users[user].answers.len() == 5), "y was kept");
    world.users[user].client.close(Nanos(world.now));
    assert_eq!(world.users[user].client.send(b"x"), Err(Refusal::Closed));
    let until = world.now + 2 * SECOND;
    let closed = ClientState::Closed(CloseCause::Asked);
    assert!(world.run(until, |world| world.users[user].client.state() == closed));
    assert!(world.table.sessions.is_empty(), "the group heard it");
}

#[test]
fn a_session_the_group_forgot_ends_as_unknown() {
    let mut world = World::new(2, &few(), Link::clean(), 8);
    let user = world.add_user(|_| {});
    open(&mut world);
    world.table.sessions.clear();
    world.hosts[0].lanes.close_all();
    world.users[user].client.send(b"lost").expect("open");
    let until = world.now + 5 * SECOND;
    let lost = ClientState::Closed(CloseCause::SessionLost);
    assert!(world.run(until, |world| world.users[user].client.state() == lost));
    let (request, outcome, ..) = &world.users[user].answers[0];
    assert_eq!((*request, *outcome), (Request::Command(ClientSequence(1)), Outcome::Unknown));
}

#[test]
fn a_close_whose_acknowledgement_is_lost_is_a_close() {
    let mut world = World::new(2, &few(), Link::clean(), 8);
    let user = world.add_user(|_| {});
    open(&mut world);
    // As if the close had been applied, and the lane was gone before the client heard of it.
    world.table.sessions.clear();
    world.hosts[0].lanes.close_all();
    world.users[user].client.close(Nanos(world.now));
    let ended =
        |world: &mut World| matches!(world.users[user].client.state(), ClientState::Closed(_));
    let until = world.now + 5 * SECOND;
    assert!(world.run(until, ended));
    assert_eq!(world.users[user].client.state(), ClientState::Closed(CloseCause::Asked));
}

#[test]
fn giving_up_ends_everything_as_unknown_at_once() {
    let mut world = World::new(1, &few(), Link::clean(), 8);
    let user = world.add_user(|_| {});
    open(&mut world);
    let user = &mut world.users[user];
    user.client.send(b"one").expect("open");
    user.client.query(b"two").expect("open");
    let mut ends = Vec::new();
    user.client.give_up(|answer| ends.push((answer.request, answer.outcome)));
    let one = Request::Command(ClientSequence(1));
    assert_eq!(ends, [(one, Outcome::Unknown), (Request::Query(1), Outcome::Unknown)]);
    assert_eq!(user.client.state(), ClientState::Closed(CloseCause::GaveUp));
}

#[test]
fn batches_and_claims_and_queries() {
    let mut world = World::new(1, &few(), Link::clean(), 8);
    let user = world.add_user(|_| {});
    open(&mut world);
    let client = &mut world.users[user].client;
    let mut claim = client.try_claim(5).expect("room");
    claim.copy_from_slice(b"claim");
    assert_eq!(claim.commit(), ClientSequence(1));
    assert_eq!(client.try_claim(100).expect("room").len(), 100, "not committed: as if never taken");
    assert_eq!(client.send_batch(&[b"ab", b"", b"c"]), Ok(ClientSequence(2)));
    assert_eq!(client.query(b"why"), Ok(Request::Query(1)));
    let until = world.now + SECOND;
    assert!(world.run(until, |world| world.users[user].answers.len() == 3));
    let entry = world.table.sessions.values().next().expect("a session");
    assert_eq!(entry.applied[0], b"claim");
    assert_eq!(entry.applied[1], [2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0, 1, 0, 0, 0, b'c']);
    assert_eq!(entry.applied.len(), 2, "a query leaves nothing");
    assert_eq!(world.users[user].answers[2].0, Request::Query(1));
}

#[test]
fn an_idle_client_stays_connected_with_a_few_datagrams_a_second() {
    let mut world = World::new(1, &few(), Link::clean(), 8);
    let user = world.add_user(|_| {});
    open(&mut world);
    send_all(&mut world, user, &payloads(5, 32, 1), 1);
    let (before, until) = (world.datagrams, world.now + 60 * SECOND);
    world.run(until, |_| false);
    assert!(world.datagrams - before <= 150, "{} datagrams", world.datagrams - before);
    assert_eq!(world.users[user].client.counters().lanes, 1);
    let lane = world.hosts[0].lanes.open_lanes().next().expect("open");
    let silence = Nanos(world.now).since(world.hosts[0].lanes.end(lane).heard());
    assert!(silence < 2 * SECOND, "the node knows that the client is there");
}

#[test]
fn a_thousand_sessions_at_once_share_one_bounded_pool() {
    let settings = LanesSettings { lanes: 1_000, pool_bytes: 8 << 20, ..LanesSettings::default() };
    let link = Link { loss_per_mille: 20, jitter_ns: 50_000, ..Link::clean() };
    let mut world = World::new(1, &settings, link, 9);
    world.grain_ns = 500_000;
    for _ in 0..1_000 {
        world.add_user(|settings| {
            settings.buffer_bytes = 2 * quorate::limits::LANE_MESSAGE_BYTES_MAX;
            settings.in_flight_max = 8;
        });
    }
    open(&mut world);
    assert_eq!(world.hosts[0].lanes.open_count(), 1_000);
    let mut sent = vec![0_u8; 1_000];
    let until = world.now + 60 * SECOND;
    let done = world.run(until, |world| {
        for (user, sent) in world.users.iter_mut().zip(&mut sent) {
            // 3 commands of 4 kB each: more at once than the pool holds.
            while *sent < 3 && user.client.send(&[*sent; 4_000]).is_ok() {
                *sent += 1;
            }
        }
        world.users.iter().all(|user| user.answers.len() == 3)
    });
    assert!(done);
    assert!(world.table.sessions.values().all(|entry| entry.applied.len() == 3));
    let full = world.hosts[0].errors.iter().filter(|&&error| error == LaneError::PoolEmpty);
    assert!(full.count() > 0, "the test is to fill the pool");
    // Then nobody has anything to say, and a duty cycle touches nobody.
    let settle = world.now + SECOND / 2;
    world.run(settle, |_| false);
    assert_eq!(world.hosts[0].lanes.ready_count(), 0);
    assert!(world.hosts[0].lanes.deadline().is_none_or(|due| due.0 > world.now));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_order_loss_and_duplication_applies_each_command_once(
        seed in any::<u64>(),
        loss_per_mille in 0_u64..300,
        duplicate_per_mille in 0_u64..300,
        jitter_ns in 0_u64..5_000_000,
        count in 1_usize..150,
        bytes_max in prop::sample::select(vec![0_usize, 40, 1_500, 20_000]),
    ) {
        let link = Link { delay_ns: 50_000, jitter_ns, loss_per_mille, duplicate_per_mille };
        let mut world = World::new(2, &few(), link, seed);
        let user = world.add_user(|_| {});
        open(&mut world);
        let payloads = payloads(count, bytes_max, seed);
        send_all(&mut world, user, &payloads, 600);
        assert_once(&world, user, &payloads);
    }
}

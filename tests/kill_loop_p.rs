//! G71, G122: a group of real processes whose nodes are killed at random, over and over, on every rung of the durability
//! ladder, to which the running group is brought from the one before. What was acknowledged is in every log, once.
//!
//! `QUORATE_KILL_ROUNDS=200` makes it a long one; by default it is a handful, so that the test stays fast. The seed is
//! printed, and `QUORATE_KILL_SEED` repeats the choice of nodes (not the moments).
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::time::{Duration, Instant, SystemTime};

use group::{Caller, Group, PATIENCE, err, numbered};
use quorate::client::Refusal;
use quorate::stream::prng::Prng;
use quorate::types::Nanos;
use serde_json::{Value, json};

const ROUNDS_DEFAULT: u64 = 4;
/// Leader and follower, in an order in which each differs from the one before in one of them only.
const LADDER: [(&str, &str); 4] =
    [("disk", "memory"), ("disk", "disk"), ("memory", "disk"), ("memory", "memory")];
const SETTINGS: &[&str] = &[
    "timing.leader_timeout_ms=200",
    "timing.session_timeout_min_ms=60000",
    "snapshot.interval_bytes=0",
    "group.segment_bytes=1048576",
    "group.window_bytes=262144",
    "group.command_bytes_max=65536",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What a part of the loop came to.
#[derive(Default, Debug)]
struct Tally {
    kills: u64,
    leaders: u64,
    pairs: u64,
    acknowledged: usize,
    longest_ms: u128,
}

#[test]
fn g71_no_kill_on_any_rung_of_the_ladder_loses_what_was_acknowledged_p() {
    let rounds = number("QUORATE_KILL_ROUNDS").unwrap_or(ROUNDS_DEFAULT);
    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("QUORATE_KILL_SEED").unwrap_or(clock);
    println!("QUORATE_KILL_SEED={seed} QUORATE_KILL_ROUNDS={rounds}");
    let mut random = Prng::new(seed);
    let mut group = Group::start(3, "echo", SETTINGS);
    let mut caller = group.client("one");
    for (leader, follower) in LADDER {
        change(&mut group, leader, follower);
        let (before, mut tally) = (caller.done.len(), Tally::default());
        for _ in 0..rounds {
            round(&mut group, &mut caller, &mut random, &mut tally);
        }
        tally.acknowledged = caller.done.len() - before;
        println!(
            "leader {leader}, followers {follower}: {rounds} rounds, {tally:?}, 0 lost so far"
        );
    }
    caller.drain();
    caller.assert_all_applied();
    group.settle();
    group.stop_all();
    // Every acknowledged command is in the log, at the place that the answer named, and none is there twice.
    let replayed = group.replay_all();
    replayed.assert_holds(&caller);
    println!("{} acknowledged, {} in the logs, 0 lost", caller.done.len(), replayed.commands.len());
}

/// Kills one or two of three at a random moment under load, and starts them again.
fn round(group: &mut Group, caller: &mut Caller, random: &mut Prng, tally: &mut Tally) {
    let first = random.below(3) as usize;
    // A kill leaves what is in memory: two at once are no more than a pause.
    let second = (random.below(4) == 0).then(|| (first + 1) % 3);
    let began = Instant::now();
    send_for(caller, Duration::from_micros(500 + random.below(20_000)));
    for node in [Some(first), second].into_iter().flatten() {
        let leads = group.status(node).is_some_and(|status| status["role"] == "leader");
        tally.leaders += u64::from(leads);
        group.kill(node);
        tally.kills += 1;
    }
    tally.pairs += u64::from(second.is_some());
    send_for(caller, Duration::from_micros(random.below(100_000)));
    for node in [Some(first), second].into_iter().flatten() {
        group.start_node(node);
    }
    // The next round begins with a group that can lose a node.
    caller.call(&numbered(caller.done.len() as u64, 100));
    group.wait_until("all three are there", |statuses| {
        statuses.len() == 3
            && statuses.iter().all(|status| {
                status["role"] != "none"
                    && status["quorum"] == true
                    && status["standing"] == "voter"
            })
    });
    tally.longest_ms = tally.longest_ms.max(began.elapsed().as_millis());
}

/// Sends some thousands a second, so that a long loop keeps a log that is soon read, and takes what is answered.
fn send_for(caller: &mut Caller, time: Duration) {
    let end = Instant::now() + time;
    let mut sent = caller.done.len() as u64;
    while Instant::now() < end {
        match caller.host.client.send(&numbered(sent, 100)) {
            Ok(_) => sent += 1,
            Err(refusal @ (Refusal::TooLong { .. } | Refusal::Closed)) => panic!("{refusal:?}"),
            Err(_) => {}
        }
        caller.turn_within(Nanos::MILLISECOND);
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Brings the running group to another rung; all its nodes say so.
fn change(group: &mut Group, leader: &str, follower: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leads = group
            .runs()
            .find(|node| group.status(*node).is_some_and(|status| status["role"] == "leader"));
        let asked = leads.map(|node| {
            group.run(node, "durability", &["--leader", leader, "--follower", follower, "--json"])
        });
        if let Some(output) = asked {
            if output.status.success() {
                break;
            }
            assert!(Instant::now() < deadline, "{}", err(&output));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let wanted: Value = json!({"leader": leader, "follower": follower});
    group.wait_until("everybody goes by it", |statuses| {
        statuses.iter().all(|status| status["durability"] == wanted)
    });
}

//! Years of running, in seconds: logs that are shortened while nodes are away, dead, slow or damaged, and what comes of a node
//! that must have a log which nobody has any more.

use super::super::world::{Event, World};
use super::retention::trimming;
use super::{Fault, MS, Played, Script};
use crate::journal::snapshot::{snapshot_name, snapshots};
use crate::journal::{Disk, parse_segment_name};
use crate::sim::Plan;
use crate::types::Nanos;

/// Plays a script to its end, and looks at the world after each event.
fn watch(script: &Script, mut look: impl FnMut(&mut World)) -> World {
    let mut world = World::new(&script.plan, false);
    world.begin();
    for (at, strike) in &script.strikes {
        world.schedule(Nanos(*at), Event::Strike(*strike));
    }
    while !world.is_over() {
        world.play().expect("every promise is kept");
        look(&mut world);
    }
    world
}

/// Bytes of the log in the files of a node.
fn log_bytes(world: &World, node: usize) -> u64 {
    let names = world.machines[node].disk.list().unwrap_or_default();
    let segments = names.iter().filter(|name| parse_segment_name(name).is_some()).count();
    segments as u64 * world.plan.segment_bytes
}

/// The most that the log of any node takes, once a node is away.
fn most_log_bytes(script: &Script) -> u64 {
    let mut most = 0;
    watch(script, |world| {
        let nodes = 0..world.plan.nodes;
        most = most.max(nodes.map(|node| log_bytes(world, node)).max().unwrap_or(0));
    });
    most
}

/// A group whose clients go on evenly, until the faults end and beyond.
fn steady(nodes: usize) -> Script {
    let mut script = trimming(nodes);
    let plan = &mut script.plan;
    (plan.commands, plan.in_flight, plan.think_ns) = (2_000, 4, 5 * MS);
    script
}

#[test]
fn d18_a_dead_voter_does_not_fill_the_disks() {
    let mut script = steady(3).at(300, Fault::Crash, 1, 5_500);
    script.plan.chaos_ns = 6 * Nanos::SECOND;
    let Plan { segment_bytes, retention_bytes, .. } = script.plan;
    // What a member that is away is worth; back to the older of two snapshots; half a second until it is looked again; and
    // what is being written, and made ahead.
    let bound = 2 * retention_bytes + 2 * retention_bytes + 8 * segment_bytes + 4 * segment_bytes;
    let most = most_log_bytes(&script);
    assert!(most <= bound, "{most} bytes");
    // There was more to keep than that.
    script.plan.retention_bytes = 0;
    let all = most_log_bytes(&script);
    assert!(all > bound + bound / 2, "{all} bytes in all");
}

#[test]
fn d17_a_node_alone_takes_snapshots_and_its_log_is_shortened() {
    let one_of_two_that_votes = {
        let mut script = trimming(2).at(300, Fault::Crash, 1, 3_000);
        script.plan.observers = vec![false, true];
        script
    };
    for script in [trimming(1), one_of_two_that_votes] {
        let first = |world: &World| {
            let names = world.machines[0].disk.list().unwrap_or_default();
            names.iter().filter_map(|name| parse_segment_name(name)).min().unwrap_or_default()
        };
        let mut lone = 0;
        watch(&script, |world| {
            let alone = world.machines[1..].iter().all(|other| other.process.is_none());
            if alone && world.now.0 > 1_000 * MS {
                lone = lone.max(first(world).0);
            }
        });
        assert!(lone > script.plan.retention_bytes, "it begins at {lone}");
    }
}

#[test]
fn r9_transfers_that_break_are_noticed_and_go_on_and_nobody_waits_for_ever() {
    // The log is gone where it is needed; ways lose much, and the sources die one after the other while they send.
    let mut script = trimming(3).at(300, Fault::Isolate, 1, 2_000);
    (script.plan.loss, script.plan.chaos_ns) = (100_000, 5 * Nanos::SECOND);
    for (turn, node) in [2, 1, 2, 2].into_iter().enumerate() {
        script = script.at(2_320 + 150 * turn as u64, Fault::Crash, node, 100);
    }
    let world = watch(&script, |_| {});
    assert!(world.coverage.of("snapshot-installed") > 0, "{:?}", world.coverage);
    for machine in &world.machines {
        let process = machine.process.as_ref().expect("all run at the end");
        assert!(process.lane.progress(Nanos(0)).is_none() && !process.lane.is_behind());
    }
}

/// As the trimming one, but all of the log stays.
fn short_memory(nodes: usize) -> Script {
    let mut script = steady(nodes);
    script.plan.retention_bytes = 0;
    script
}

#[test]
fn k2_a_node_that_was_behind_is_brought_up_and_follows() {
    let played = short_memory(3).at(300, Fault::Isolate, 1, 2_500).play();
    assert_eq!(played.leads().len(), 1);
    assert!(played.outcome.coverage.of("caught-up") > 0);
    assert_eq!(played.outcome.coverage.of("snapshot-installed"), 0, "the log was there");
}

#[test]
fn a4_a_follower_that_is_stuck_stops_nobody_and_is_back_at_once() {
    let played = short_memory(3).at(1_000, Fault::Pause, 1, 1_500).play();
    assert_eq!(played.leads().len(), 1);
    let (before, meanwhile) = (played.answered(500, 1_000), played.answered(1_500, 2_000));
    assert!(meanwhile * 10 > before * 9, "{before} before, {meanwhile} meanwhile");
    let caught_up = played.lines("CaughtUp");
    assert!(
        caught_up.iter().any(|(at, _)| (2_500..3_000).contains(at)),
        "within half a second: {caught_up:?}"
    );
}

#[test]
fn a9_a_snapshot_stops_nothing() {
    let play = |retention_bytes| {
        let mut script = trimming(3);
        script.plan.retention_bytes = retention_bytes;
        script.play().outcome
    };
    let (with, without) = (play(128 * 1024), play(0));
    assert!(with.coverage.of("snapshot-taken") > 5 && without.coverage.of("snapshot-taken") == 0);
    let mean = |pace: &crate::sim::Pace| pace.waited_ns / pace.answers;
    let (a, b) = (with.pace, without.pace);
    assert!(mean(&a) <= mean(&b) * 11 / 10, "{} and {} ns", mean(&a), mean(&b));
    assert!(a.longest_wait_ns <= b.longest_wait_ns * 3 / 2, "{a:?} {b:?}");
}

#[test]
fn r8_events_of_leaders_that_die_come_out_of_the_next_ones_in_order() {
    let mut script = Script::of(3);
    script.plan.seed = 2; // one with timers and events
    assert!(script.plan.effects());
    for at in [1_000, 1_800, 2_600, 3_400] {
        script = script.at(at, Fault::Crash, 0, 400);
    }
    let coverage = script.play().outcome.coverage;
    assert!(coverage.of("event-after-failover") >= 4 && coverage.of("timer-fired") > 0);
}

#[test]
fn r14_a_snapshot_that_rots_falls_back_to_the_older_one() {
    let script = trimming(3).at(2_000, Fault::Crash, 1, 300);
    let mut rotten = None;
    let world = watch(&script, |world| {
        let down =
            (0..3).find(|&node| world.now.0 > 2_000 * MS && world.machines[node].process.is_none());
        if let (Some(node), None) = (down, rotten) {
            let disk = &world.machines[node].disk;
            let newest = snapshots(disk).expect("it reads").pop().expect("there is one");
            disk.rot(&snapshot_name(newest), 4096 + 40, |bytes| bytes[0] ^= 1);
            rotten = Some((node, newest));
        }
    });
    let (node, newest) = rotten.expect("it was down");
    let left = snapshots(&world.machines[node].disk).expect("it reads");
    assert!(!left.contains(&newest) && left.len() == 2, "{newest} of {left:?}");
}

#[test]
fn r6_a_blank_node_gets_a_snapshot_of_nodes_that_have_started_since_their_logs_began() {
    let mut script = steady(3);
    for (turn, node) in [1, 2, 0].into_iter().enumerate() {
        script = script.at(1_300 + 300 * turn as u64, Fault::Crash, node, 50);
    }
    // Not one beside which another is damaged: then the next time.
    for at in [2_700, 2_900, 3_100] {
        script = script.at(at, Fault::Wipe, 1, 100);
    }
    let coverage = script.play().outcome.coverage;
    assert!(coverage.of("snapshot-installed") > 0, "{coverage:?}");
}

/// Node 1 leads, node 2 never does, and node 0 may, but its log ends where that of the others does not begin any more.
fn left_behind() -> Script {
    let mut script = steady(3).priorities(&[1, 2, 0]).at(300, Fault::Isolate, 2, 2_500);
    script.plan.chaos_ns = 6 * Nanos::SECOND;
    // Those who have it all: the one dies when the others can be heard again, the other stays, and may not lead.
    script.at(2_790, Fault::Crash, 0, 2_500)
}

fn led_by(played: &Played) -> Vec<usize> {
    played.leads().iter().map(|(_, node)| *node).collect()
}

#[test]
fn r3_who_may_lead_takes_a_snapshot_of_one_who_may_not_where_its_log_has_left() {
    let played = left_behind().play();
    let coverage = &played.outcome.coverage;
    assert!(coverage.of("segment-left") > 0 && coverage.of("snapshot-installed") > 0);
    assert!(coverage.of("leader-sync") > 0, "and the rest of its log");
    let leads = played.leads();
    assert_eq!(led_by(&played)[..2], [1, 0], "{leads:?}");
    assert!(leads[1].0 < 4_500, "long before the other is back: {leads:?}");
    assert!(played.answered(leads[1].0, 5_200) > 50);
}

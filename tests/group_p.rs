//! Groups of real processes: what becomes of them, and of what they acknowledged, when nodes die, stop, freeze and return.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::time::{Duration, Instant};

use group::{CALM, Caller, Group, PATIENCE, SMALL, numbered};
use quorate::client::ClientState;

/// Stops everything in order, and compares the logs with each other and with what the client was told.
fn finish(mut group: Group, mut caller: Caller, commands: usize) {
    caller.drain();
    caller.close();
    group.settle();
    group.stop_all();
    caller.assert_all_applied();
    assert_eq!(caller.done.len(), commands);
    let log = group.replay_all();
    log.assert_holds(&caller);
    assert_eq!(log.commands.len(), commands);
}

/// Leaves commands unanswered.
fn send_without_waiting(caller: &mut Caller, commands: u64) {
    for number in 0..commands {
        caller.send(&numbered(1 << 32 | number, 64));
    }
}

#[test]
fn k2_a_follower_killed_under_load_returns_catches_up_and_keeps_its_memory_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    caller.load(500, 64);
    group.kill(2);
    caller.load(200, 64);
    group.start_node(2);
    caller.load(500, 64);
    let statuses = group.settle();
    assert_eq!(statuses.len(), 3);
    assert!(statuses.iter().all(|status| status["term"] == 1), "it causes no new term");
    // Its hot tier outlived the process, so it forgot nothing that it had promised.
    let told = group.told(2);
    let start = told.lines().rfind(|line| line.contains("started")).unwrap();
    assert!(start.contains("hot_intact=true") && start.contains("provisional=false"), "{start}");
    finish(group, caller, 1200);
}

/// The node that leads, once all running nodes say the same.
fn leader(group: &mut Group) -> usize {
    let statuses = group.wait_until("one leads and the others follow it", |statuses| {
        let leads = |status: &&serde_json::Value| status["role"] == "leader";
        statuses.iter().filter(leads).count() == 1
            && statuses
                .iter()
                .all(|status| status["role"] != "none" && status["leader"] == statuses[0]["leader"])
    });
    statuses[0]["leader"].as_u64().unwrap() as usize
}

#[test]
fn a12_the_leader_is_killed_again_and_again_and_every_command_is_applied_once_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(300, 64);
    let mut outages = Vec::new();
    for _ in 0..5 {
        send_without_waiting(&mut caller, 60);
        caller.turn();
        let dead = leader(&mut group);
        group.kill(dead);
        let killed = Instant::now();
        // However many of the first were answered in time: of these none is.
        send_without_waiting(&mut caller, 10);
        caller.drain();
        outages.push(killed.elapsed().as_millis());
        assert_ne!(leader(&mut group), dead, "two are enough");
        group.start_node(dead);
        group.settle();
    }
    println!("outages as the client saw them, ms: {outages:?}");
    outages.sort_unstable();
    assert!(outages[2] < 1000, "{outages:?}: these are shared cores, but not that much");
    assert!(caller.host.client.counters().lanes >= 5, "it came back by itself");
    finish(group, caller, 300 + 5 * 70);
}

#[test]
fn g10_the_lead_is_handed_over_under_load_and_wrong_targets_are_refused_by_name_p() {
    let mut group = Group::start(3, "echo", &[SMALL, &["members.2.priority=0"]].concat());
    let mut caller = group.client("load");
    caller.load(200, 64);
    assert_eq!(leader(&mut group), 0);
    let refused = |group: &Group, node: usize, to: &str| {
        let output = group.run(node, "transfer", &["--to", to]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        group::err(&output)
    };
    assert!(refused(&group, 0, "0").contains("leads already"));
    assert!(refused(&group, 0, "2").contains("priority 0"));
    assert!(refused(&group, 0, "9").contains("not a member"));
    assert!(refused(&group, 0, "nobody").contains("nobody"));
    assert!(refused(&group, 1, "0").contains("node 0 does"));
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        send_without_waiting(&mut caller, 60);
        caller.turn();
        let output = group.run(from, "transfer", &["--to", &to.to_string(), "--json"]);
        assert!(output.status.success(), "{output:?}\n{}", group.told(from));
        assert!(group::out(&output).contains(&format!("\"leader\":{to}")));
        caller.drain();
        assert_eq!(leader(&mut group), to);
    }
    assert_eq!(group.events_with(0, "Q-1115"), 2, "{}", group.events(0));
    let output = group.run(1, "step-down", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(leader(&mut group), 0);
    finish(group, caller, 200 + 180);
}

#[test]
fn d9_g130_a_leader_that_slept_follows_when_it_wakes_and_nothing_is_lost_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(200, 64);
    for _ in 0..3 {
        let asleep = leader(&mut group);
        send_without_waiting(&mut caller, 60);
        caller.turn();
        group.signal(asleep, "STOP");
        send_without_waiting(&mut caller, 10);
        caller.drain();
        group.signal(asleep, "CONT");
        caller.load(20, 64);
        assert_ne!(leader(&mut group), asleep);
        group.settle();
    }
    finish(group, caller, 200 + 3 * 90);
}

#[test]
fn a2_all_nodes_are_killed_and_nothing_acknowledged_is_lost_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    for _ in 0..2 {
        caller.load(300, 64);
        send_without_waiting(&mut caller, 50);
        caller.turn();
        for node in 0..3 {
            group.kill(node);
        }
        for node in 0..3 {
            group.start_node(node);
        }
        caller.drain();
    }
    finish(group, caller, 700);
}

/// Kills a node as a power loss does: what was only in memory is gone.
fn cut_power(group: &mut Group, node: usize) {
    group.kill(node);
    std::fs::remove_dir_all(group.hot(node)).unwrap();
}

fn provisional(group: &Group, node: usize) -> bool {
    let told = group.told(node);
    let start = told.lines().rfind(|line| line.contains("started")).unwrap();
    start.contains("provisional=true")
}

#[test]
fn a_follower_that_lost_its_memory_is_a_voter_again_by_itself_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    caller.load(200, 64);
    cut_power(&mut group, 2);
    caller.load(50, 64);
    group.start_node(2);
    // Nobody sends anything: the leader sees to it.
    group.wait_until("all are voters", |statuses| {
        statuses.iter().all(|status| status["standing"] == "voter")
    });
    assert!(provisional(&group, 2));
    assert_eq!(group.events_with(2, "Q-1117"), 1, "{}", group.events(2));
    // It counts: with it and one other there is a quorum.
    group.kill(1);
    caller.load(50, 64);
    group.start_node(1);
    group.settle();
    finish(group, caller, 300);
}

#[test]
fn d21_after_a_power_loss_of_the_site_the_group_comes_back_when_all_are_there_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(300, 64);
    send_without_waiting(&mut caller, 50);
    caller.turn();
    let led = leader(&mut group);
    for node in 0..3 {
        cut_power(&mut group, node);
    }
    // The two that followed: they may have forgotten what they acknowledged.
    let followed: Vec<_> = (0..3).filter(|node| *node != led).collect();
    for &node in &followed {
        group.start_node(node);
    }
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        caller.turn();
        assert!(
            group
                .runs()
                .all(|node| { group.status(node).is_none_or(|status| status["role"] == "none") })
        );
    }
    assert!(followed.iter().all(|node| provisional(&group, *node)));
    group.start_node(led);
    caller.drain();
    group.wait_until("all are voters", |statuses| {
        statuses.iter().all(|status| status["standing"] == "voter")
    });
    group.settle();
    finish(group, caller, 350);
}

#[test]
fn a_group_stopped_in_order_goes_on_where_it_was_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(300, 100);
    let before = group.settle();
    group.stop_all();
    // As the page for operators says: after an orderly stop nothing depends on the hot segments. Node 2 keeps its own.
    for node in [0, 1] {
        let path = std::fs::read_to_string(group.data(node).join("hot.path")).unwrap();
        let tier = std::path::Path::new(path.lines().next().unwrap());
        assert!(tier.join("hot.id").is_file(), "left behind: {}", tier.display());
        std::fs::remove_dir_all(tier).unwrap();
    }
    for node in 0..3 {
        group.start_node(node);
    }
    caller.load(100, 100);
    let after = group.settle();
    assert!(after[0]["sequence"].as_u64() > before[0]["sequence"].as_u64());
    assert_eq!(after[0]["generation"], before[0]["generation"]);
    for node in 0..3 {
        let told = group.told(node);
        let start = told.lines().rfind(|line| line.contains("started")).unwrap();
        assert!(start.contains("clean_start=true"), "{start}");
        assert!(start.contains("provisional=false"), "{start}");
    }
    finish(group, caller, 400);
}

#[test]
fn a_group_with_faults_outlives_the_restart_of_a_follower_p() {
    let faults = ["faults.loss=0.02", "faults.duplicate=0.02", "faults.reorder_ms=3"];
    let mut group = Group::start(3, "echo", &[SMALL, &faults].concat());
    let mut caller = group.client("load");
    caller.load(200, 200);
    group.kill(1);
    caller.load(100, 200);
    group.start_node(1);
    caller.load(200, 200);
    group.settle();
    let repairs: u64 = (0..3).map(|node| group.word(node, "repairs_sent")).sum();
    assert!(repairs > 0, "the faults are really there");
    finish(group, caller, 500);
}

#[test]
fn r1_without_a_quorum_the_client_is_told_and_with_one_it_goes_on_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(100, 64);
    for node in [1, 2] {
        group.signal(node, "STOP");
    }
    // Sent while the leader still believes in its quorum: it waits, and is applied once in the end.
    send_without_waiting(&mut caller, 20);
    let deadline = Instant::now() + PATIENCE;
    while caller.state() != ClientState::NoQuorum {
        assert!(Instant::now() < deadline, "{:?}", caller.state());
        caller.turn();
    }
    let status = group.status(0).unwrap();
    assert_eq!((&status["quorum"], &status["role"]), (&false.into(), &"none".into()));
    assert_eq!(group.events_with(0, "Q-1009"), 1, "{}", group.told(0));
    let refused = group.run(0, "send", &["--timeout", "1", "--input", "/dev/null"]);
    assert!(group::err(&refused).contains("NO_QUORUM"), "{refused:?}");
    assert_eq!(refused.status.code(), Some(3));
    for node in [1, 2] {
        group.signal(node, "CONT");
    }
    caller.drain();
    caller.load(100, 64);
    assert_eq!(group.events_with(0, "Q-1009"), 1);
    leader(&mut group);
    finish(group, caller, 220);
}

#[test]
fn r16_a_gap_shorter_than_the_leader_timeout_causes_no_election_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    caller.load(100, 64);
    for node in [1, 2] {
        group.signal(node, "STOP");
    }
    send_without_waiting(&mut caller, 20);
    std::thread::sleep(Duration::from_millis(400));
    for node in [1, 2] {
        group.signal(node, "CONT");
    }
    caller.drain();
    let statuses = group.settle();
    assert!(statuses.iter().all(|status| status["term"] == 1), "{statuses:?}");
    finish(group, caller, 120);
}

#[test]
fn r7_numbers_are_the_logs_own_and_the_same_everywhere_p() {
    let mut group = Group::start(3, "sequencer", SMALL);
    let mut callers = [group.client("one"), group.client("two"), group.client("three")];
    let mut seen = Vec::new();
    for round in 0..60 {
        for caller in &mut callers {
            caller.send(&numbered(round, 40));
        }
    }
    for caller in &mut callers {
        caller.drain();
        for done in caller.done.values() {
            assert_eq!(done.reply, done.sequence.0.to_le_bytes(), "the reply is the log's number");
            seen.push(done.sequence);
        }
        let own: Vec<_> = caller.done.values().map(|done| done.sequence).collect();
        assert!(own.is_sorted(), "one client's commands keep their order");
        caller.close();
    }
    seen.sort_unstable();
    let all = seen.len();
    seen.dedup();
    assert_eq!((all, seen.len()), (180, 180), "no number twice");
    group.settle();
    group.stop_all();
    let log = group.replay_all();
    for caller in &callers {
        log.assert_holds(caller);
    }
}

#[test]
fn r11_each_node_lists_itself_and_one_node_alone_is_a_group_p() {
    let mut three = Group::start(3, "echo", SMALL);
    let present = three.wait_until("all know each other", |statuses| {
        statuses.iter().all(|status| status["present"] == serde_json::json!([0, 1, 2]))
    });
    assert_eq!(present.len(), 3);
    assert_eq!(three.events_with(0, "Q-1008"), 0, "{}", three.events(0));
    let mut one = Group::start(1, "echo", SMALL);
    let mut caller = one.client("alone");
    assert_eq!(caller.call(b"hello").reply, b"hello");
    assert_eq!(one.status(0).unwrap()["present"], serde_json::json!([0]));
    caller.load(50, 64);
    one.kill(0);
    one.start_node(0);
    caller.load(50, 64);
    one.settle();
    finish(one, caller, 101);
}

#[test]
fn d16_hot_segments_are_retired_once_durable_and_pile_up_nowhere_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    let mut most = [0; 3];
    for _ in 0..20 {
        group.load(&mut caller, 60, 3000);
        for (node, most) in most.iter_mut().enumerate() {
            *most = (*most).max(segments(&group.hot(node)));
        }
    }
    group.settle();
    let hot_base = group.word(0, "hot_base");
    assert!(hot_base > 10 * 131_072, "{hot_base}");
    for (node, most) in most.into_iter().enumerate() {
        let durable = segments(group.data(node));
        assert!(durable >= 28, "node {node}: {durable} durable segments");
        assert!(most <= 10, "node {node}: {most} hot segments at once, of {durable}");
    }
    finish(group, caller, 1200);
}

fn segments(directory: &std::path::Path) -> usize {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".qlog")).count()
}

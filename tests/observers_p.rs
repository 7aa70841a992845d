//! Observers among real nodes: they hold and apply everything, and decide nothing.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs;
use std::thread;
use std::time::Duration;

use group::{Group, SMALL, err, out};

/// The last of four nodes only observes, whatever its priority.
const OBSERVED: &[&str] = &["members.3.observer=true", "members.3.priority=9"];

#[test]
fn k9_an_observer_receives_everything_and_never_leads_not_alone_nor_after_a_restart_p() {
    let mut group = Group::found(4, "echo", &[SMALL, OBSERVED].concat());
    // The voters found the group without it, and nobody waits for it.
    (0..3).for_each(|node| group.start_node(node));
    group.wait_until("the voters are whole", |statuses| {
        statuses.iter().all(|status| status["standing"] == "voter" && status["role"] != "none")
    });
    let mut caller = group.client("load");
    caller.load(100, 64);
    group.start_node(3);
    group.wait_until("it follows", |statuses| statuses[3]["role"] == "follower");
    caller.load(100, 64);
    let statuses = group.settle();
    assert_eq!(statuses[3]["standing"], "observer");
    assert_eq!(statuses[3]["state_hash"], statuses[0]["state_hash"]);
    let status = out(&group.run(3, "status", &[]));
    assert!(status.contains("standing     observer"), "{status}");
    // A client that asks it is sent to the leader.
    let line = group.path().join("line");
    fs::write(&line, "one\n").unwrap();
    let sent = group.run(3, "send", &["--input", line.to_str().unwrap()]);
    assert_eq!((sent.status.code(), out(&sent).as_str()), (Some(0), "one\n"), "{}", err(&sent));
    let refused = group.run(0, "transfer", &["--to", "3"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("node 3 is an observer: it never leads"), "{}", err(&refused));
    // Without it the voters go on; it is no help to one of them.
    group.kill(3);
    caller.load(20, 64);
    group.start_node(3);
    group.settle();
    group.kill(1);
    group.kill(2);
    group.wait_until("the quorum is lost", |statuses| {
        statuses.iter().all(|status| status["quorum"] == false)
    });
    // Alone, and after a restart, it leads nobody.
    group.kill(0);
    for life in 0..2 {
        thread::sleep(Duration::from_millis(700));
        let status = group.status(3).unwrap();
        assert!(status["role"] != "leader" && status["quorum"] == false, "life {life}: {status}");
        group.kill(3);
        group.start_node(3);
        group.wait_until("it runs", |_| true);
    }
    (0..3).for_each(|node| group.start_node(node));
    caller.load(20, 64);
    caller.assert_all_applied();
    caller.close();
    group.settle();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
    assert!(!group.events(3).contains("this node is leader"));
}

#[test]
fn k12_an_observer_becomes_a_voter_by_its_setting_and_votes_only_when_it_holds_everything_p() {
    let mut group = Group::start(4, "echo", &[SMALL, OBSERVED].concat());
    let mut caller = group.client("load");
    caller.load(50, 64);
    group.settle();
    group.stop_all();
    // Three of the four are started as what the four now are: the new one has no vote yet, and they need no vote of it.
    let voter = &["members.3.observer=false", "members.3.priority=1"];
    (0..3).for_each(|node| group.start_node_with(node, voter));
    caller.load(10, 64);
    group.start_node_with(3, voter);
    let statuses = group.wait_until("it is a voter", |statuses| {
        statuses.iter().all(|status| status["standing"] == "voter")
    });
    assert_eq!(statuses.len(), 4);
    assert_eq!(group.events_with(3, "Q-1117"), 1, "re-admitted: {}", group.events(3));
    // As a voter it counts: with it, three of four are a quorum.
    group.kill(2);
    caller.load(10, 64);
    caller.assert_all_applied();
    // And back: what it promised no longer counts, so that later it has to be re-admitted again.
    group.stop_all();
    (0..4).for_each(|node| group.start_node(node));
    caller.load(10, 64);
    group.wait_until("it observes", |statuses| {
        statuses[3]["standing"] == "observer" && statuses[3]["role"] == "follower"
    });
    group.settle();
    group.stop_all();
    group.start_node_with(3, voter);
    group.wait_until("it is no voter yet", |statuses| statuses[0]["standing"] == "provisional");
    group.stop_all();
}

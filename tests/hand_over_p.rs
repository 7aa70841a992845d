//! Groups of real processes: what is said of a quorum that goes and comes back, hand-overs that go wrong, and two of whom one
//! alone votes.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::thread;
use std::time::{Duration, Instant};

use group::{CALM, Caller, Group, PATIENCE, SMALL, err};
use serde_json::Value;

/// One leads with a quorum, and all others follow it.
fn whole(statuses: &[Value]) -> bool {
    let leads = |status: &&Value| status["role"] == "leader" && status["quorum"] == true;
    statuses.iter().filter(leads).count() == 1
        && statuses
            .iter()
            .all(|status| status["role"] != "none" && status["leader"] == statuses[0]["leader"])
}

fn leader(group: &mut Group) -> usize {
    let statuses = group.wait_until("one leads and the others follow it", whole);
    statuses[0]["leader"].as_u64().unwrap() as usize
}

/// Stops everything in order; each command is in the log once, as it was acknowledged.
fn finish(mut group: Group, mut caller: Caller) {
    caller.drain();
    caller.close();
    caller.assert_all_applied();
    group.settle();
    group.stop_all();
    let log = group.replay_all();
    log.assert_holds(&caller);
    assert_eq!(log.commands.len(), caller.done.len());
}

#[test]
fn g59_that_the_quorum_is_lost_and_regained_is_an_event_each_time_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(20, 64);
    let lead = leader(&mut group);
    let count = |group: &Group, code: &str| -> usize {
        (0..3).map(|node| group.events_with(node, code)).sum()
    };
    let (lost, regained) = (count(&group, "Q-1009"), count(&group, "Q-1101"));
    for round in 1..=2 {
        let lead = if round == 1 { lead } else { leader(&mut group) };
        let others: Vec<_> = (0..3).filter(|node| *node != lead).collect();
        for node in &others {
            group.kill(*node);
        }
        group.wait_until("it is lost", |statuses| statuses[0]["quorum"] == false);
        assert_eq!(count(&group, "Q-1009"), lost + round, "{}", group.events(lead));
        assert_eq!(count(&group, "Q-1101"), regained + round - 1);
        for node in &others {
            group.start_node(*node);
        }
        group.wait_until("all are back", whole);
        caller.load(20, 64);
        assert_eq!(count(&group, "Q-1101"), regained + round, "by whoever leads now");
    }
    finish(group, caller);
}

#[test]
fn g97_a_target_that_dies_or_is_late_and_orders_that_overlap_cost_nothing_and_the_lead_goes_later_p()
 {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    caller.load(50, 64);
    assert_eq!(leader(&mut group), 0);
    // It stands still while the leader waits for it, and meanwhile the lead is to go there once more.
    group.signal(1, "STOP");
    let outputs = thread::scope(|scope| {
        let order = || scope.spawn(|| group.run(0, "transfer", &["--to", "1"]));
        [order(), order()].map(|order| order.join().unwrap())
    });
    assert!(outputs.iter().all(|output| output.status.code() == Some(1)), "{outputs:?}");
    let told = outputs.map(|output| err(&output));
    assert_eq!(
        told.iter().filter(|told| told.contains("this node leads on")).count(),
        1,
        "{told:?}"
    );
    let busy = "the lead is being handed to node 1";
    assert_eq!(told.iter().filter(|told| told.contains(busy)).count(), 1, "{told:?}");
    group.signal(1, "CONT");
    assert_eq!(leader(&mut group), 0);
    caller.load(20, 64);
    // One that joins late is given the lead once it has caught up.
    group.kill(1);
    caller.load(50, 64);
    group.start_node(1);
    let deadline = Instant::now() + PATIENCE;
    while !group.run(0, "transfer", &["--to", "1"]).status.success() {
        assert!(Instant::now() < deadline, "never");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(leader(&mut group), 1);
    caller.load(20, 64);
    assert_eq!(caller.host.client.session(), Some(caller.session()));
    finish(group, caller);
}

#[test]
fn g14_g16_of_two_the_only_voter_goes_on_without_the_other_and_starts_again_alone_p() {
    let mut group = Group::start(2, "echo", &[SMALL, &["members.1.observer=true"]].concat());
    let mut caller = group.client("load");
    caller.load(50, 64);
    let term = group.settle()[0]["term"].clone();
    group.kill(1);
    caller.load(50, 64);
    assert_eq!(group.status(0).unwrap()["term"], term, "it does not notice");
    assert_eq!(group.events_with(0, "Q-1009"), 0);
    group.kill(0);
    group.start_node(0);
    caller.load(50, 64);
    assert_eq!(group.status(0).unwrap()["role"], "leader", "alone");
    // The other way round nothing is led: the second does not promote itself.
    group.start_node(1);
    group.settle();
    group.kill(0);
    group.wait_until("it is alone", |statuses| statuses[0]["quorum"] == false);
    thread::sleep(Duration::from_millis(500));
    assert_ne!(group.status(1).unwrap()["role"], "leader", "g18");
    group.start_node(0);
    caller.load(20, 64);
    finish(group, caller);
}

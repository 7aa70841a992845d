//! Groups of real processes that lose nodes, or hand the lead over: what their clients see of it.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use group::{CALM, Caller, Group, PATIENCE, SMALL, err, numbered};
use quorate::client::ClientState;
use quorate::runtime::ConnectOptions;
use quorate::types::{Nanos, Sequence};
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

/// A client that knows the address of one node only.
fn through(group: &Group, node: usize, name: &str) -> Caller {
    let mut options = ConnectOptions::of(&group.nodes[node].settings, name);
    options.faults = None;
    options.members.retain(|(member, _)| usize::from(member.0) == node);
    Caller::with(options)
}

/// Its answers are in the order of its commands, in the log too.
fn assert_in_order(caller: &Caller) {
    let places: Vec<Sequence> = caller.done.values().map(|done| done.sequence).collect();
    assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
}

/// Stops everything in order; each command is in the log once, as it was acknowledged.
fn finish(mut group: Group, mut callers: Vec<Caller>) {
    for caller in &mut callers {
        caller.drain();
        caller.close();
        caller.assert_all_applied();
    }
    group.settle();
    group.stop_all();
    let log = group.replay_all();
    for caller in &callers {
        log.assert_holds(caller);
    }
    let acknowledged: usize = callers.iter().map(|caller| caller.done.len()).sum();
    assert_eq!(log.commands.len(), acknowledged);
}

#[test]
fn g1_the_leader_is_lost_and_a_client_that_knows_one_other_node_goes_on_with_the_next_p() {
    let mut group = Group::start(3, "echo", SMALL);
    assert_eq!(leader(&mut group), 0);
    // A12: it finds the leader through a node that is none, and again when that leader is gone.
    let mut caller = through(&group, 2, "one address");
    let session = caller.session();
    caller.load(100, 64);
    assert!(caller.host.client.counters().redirects >= 1, "it was sent to the leader");
    (0..20).for_each(|number| {
        caller.send(&numbered(1 << 32 | number, 64));
    });
    caller.turn();
    group.kill(0);
    caller.drain();
    assert_ne!(leader(&mut group), 0);
    caller.load(100, 64);
    assert_eq!(caller.host.client.session(), Some(session));
    group.start_node(0);
    group.settle();
    finish(group, vec![caller]);
}

#[test]
fn g126_a_client_finds_the_leader_through_every_node_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let lead = leader(&mut group);
    let callers = (0..3).map(|node| {
        let mut caller = through(&group, node, "any");
        caller.load(20, 64);
        let redirected = caller.host.client.counters().redirects > 0;
        assert_eq!(redirected, node != lead, "through node {node}");
        let at = group.nodes[lead].settings.members[lead].data;
        assert_eq!(caller.host.client.node(), Some(at));
        caller
    });
    let callers = callers.collect();
    finish(group, callers);
}

#[test]
fn g2_a_follower_is_lost_and_the_client_does_not_notice_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    for dead in [1, 2] {
        caller.load(100, 64);
        group.kill(dead);
        caller.load(200, 64);
        assert_eq!(caller.state(), ClientState::Open);
        assert_eq!(caller.host.client.session(), Some(caller.session()));
        group.start_node(dead);
        group.settle();
    }
    assert!(group.status(0).unwrap()["term"] == 1, "nobody was elected meanwhile");
    finish(group, vec![caller]);
}

#[test]
fn r10_one_node_that_stands_still_again_and_again_stalls_nobody_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    caller.load(50, 64);
    for _ in 0..4 {
        group.signal(2, "STOP");
        // All of it is answered while the slow one does nothing at all.
        caller.load(100, 64);
        group.signal(2, "CONT");
    }
    assert_eq!(caller.host.client.session(), Some(caller.session()));
    let statuses = group.settle();
    assert!(statuses.iter().all(|status| status["term"] == 1), "and without an election");
    finish(group, vec![caller]);
}

#[test]
fn g5_the_order_of_a_clients_commands_is_kept_when_the_leader_is_lost_p() {
    let mut group = Group::start(3, "sequencer", SMALL);
    let mut callers = vec![group.client("one"), group.client("two")];
    for round in 0..2 {
        for number in 0..200 {
            for caller in &mut callers {
                caller.send(&numbered(round << 32 | number, 48));
            }
            if number == 100 {
                let dead = leader(&mut group);
                group.kill(dead);
                for caller in &mut callers {
                    caller.turn();
                }
            }
        }
        for caller in &mut callers {
            caller.drain();
        }
        leader(&mut group);
        let dead = (0..3).find(|node| !group.runs().any(|runs| runs == *node)).unwrap();
        group.start_node(dead);
        group.settle();
    }
    for one in &callers {
        assert_in_order(one);
    }
    finish(group, callers);
}

/// A client under load while something else is done with the group; every command must be answered by the service.
struct Load {
    thread: thread::JoinHandle<Caller>,
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(group: &Group, name: &str) -> Self {
        let mut caller = group.client(name);
        let (answered, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, ending) = (Arc::clone(&answered), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut number = 0;
            while !ending.load(Ordering::Acquire) {
                caller.send(&numbered(number, 64));
                number += 1;
                caller.turn_within(2 * Nanos::MILLISECOND);
                count.store(caller.done.len(), Ordering::Release);
            }
            caller.drain();
            caller
        });
        Self { thread, answered, stop }
    }
    /// Waits until it is answered again.
    fn goes_on(&self) {
        let before = self.answered.load(Ordering::Acquire);
        let deadline = Instant::now() + PATIENCE;
        while self.answered.load(Ordering::Acquire) <= before {
            assert!(Instant::now() < deadline, "nothing is answered");
            thread::sleep(Duration::from_millis(2));
        }
    }
    fn end(self) -> Caller {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// Hands the lead over; a target that has not caught up yet may be refused for a moment.
fn hand_over(group: &mut Group, from: usize, to: usize, how: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = group.run(from, how[0], &how[1..]);
        if output.status.success() {
            break;
        }
        assert!(Instant::now() < deadline, "from {from} to {to}: {}", err(&output));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(leader(group), to);
}

#[test]
fn g6_the_lead_goes_back_and_forth_three_times_p() {
    let mut group = Group::start(2, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    let session = caller.session();
    caller.load(50, 64);
    for _ in 0..3 {
        for (from, to) in [(0, 1), (1, 0)] {
            hand_over(&mut group, from, to, &["step-down"]);
            caller.load(20, 64);
        }
    }
    assert_eq!(caller.host.client.session(), Some(session));
    assert_in_order(&caller);
    assert_eq!(group.status(0).unwrap()["term"], 7, "one leadership for each, and no other");
    finish(group, vec![caller]);
}

#[test]
fn g7_the_lead_goes_to_a_chosen_node_three_times_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    for (from, to) in [(0, 2), (2, 1), (1, 0)] {
        caller.load(20, 64);
        // By its name; the node with the best place in the list is not asked.
        hand_over(&mut group, from, to, &["transfer", "--to", &format!("node-{to}")]);
    }
    caller.load(20, 64);
    assert_eq!(group.status(0).unwrap()["term"], 4);
    finish(group, vec![caller]);
}

#[test]
fn g8_the_lead_is_handed_over_under_load_with_no_client_error_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let loads = ["one", "two", "three"].map(|name| Load::start(&group, name));
    for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 2), (2, 1), (1, 0)] {
        for load in &loads {
            load.goes_on();
        }
        hand_over(&mut group, from, to, &["transfer", "--to", &to.to_string()]);
    }
    for load in &loads {
        load.goes_on();
    }
    let callers: Vec<_> = loads.into_iter().map(Load::end).collect();
    // G125: their sessions went along.
    for caller in &callers {
        assert_eq!(caller.host.client.session(), Some(caller.session()));
        assert_in_order(caller);
    }
    finish(group, callers);
}

#[test]
fn g125_sessions_and_unanswered_commands_survive_a_transfer_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut callers: Vec<_> = (0..8).map(|n| group.client(&format!("client-{n}"))).collect();
    let sessions: Vec<_> = callers.iter().map(Caller::session).collect();
    for (from, to) in [(0, 1), (1, 2)] {
        for caller in &mut callers {
            (0..16).for_each(|number| {
                caller.send(&numbered(number, 64));
            });
            caller.turn_within(1);
        }
        hand_over(&mut group, from, to, &["transfer", "--to", &to.to_string()]);
        for caller in &mut callers {
            caller.drain();
        }
    }
    for (caller, session) in callers.iter().zip(&sessions) {
        assert_eq!(caller.host.client.session(), Some(*session));
        assert_eq!(caller.done.len(), 32);
        assert_in_order(caller);
    }
    let open = group.settle()[0]["words"]["sessions"].as_u64();
    assert_eq!(open, Some(8), "the same sessions, and no others");
    finish(group, callers);
}

#[test]
fn g10_wrong_targets_of_a_transfer_are_refused_by_name_and_nothing_changes_p() {
    let set = ["members.2.priority=0", "members.4.observer=true"];
    let mut group = Group::start(5, "echo", &[SMALL, CALM, &set].concat());
    let mut caller = group.client("load");
    caller.load(50, 64);
    assert_eq!(leader(&mut group), 0);
    let refused = |group: &Group, node: usize, to: &str| {
        let output = group.run(node, "transfer", &["--to", to]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
        err(&output)
    };
    for (node, to, why) in [
        (0, "0", "node 0 leads already"),
        (0, "node-0", "node 0 leads already"),
        (0, "2", "node 2 has priority 0: it never leads"),
        (0, "4", "node 4 is an observer: it never leads"),
        (0, "node-4", "node 4 is an observer: it never leads"),
        (0, "9", "node 9 is not a member"),
        (0, "nobody", "no member is named \"nobody\""),
        (1, "3", "this node does not lead: node 0 does"),
    ] {
        let told = refused(&group, node, to);
        assert!(told.contains(why), "{node} to {to}: {told}");
    }
    // One that stands still does not make its vote durable, let alone catch up: the leader says so, and leads on.
    group.signal(3, "STOP");
    for number in 0..40 {
        caller.send(&numbered(number, 4000));
    }
    caller.drain();
    let told = refused(&group, 0, "3");
    assert!(told.contains("Q-1116") && told.contains("this node leads on"), "{told}");
    group.signal(3, "CONT");
    caller.load(20, 64);
    let status = group.status(0).unwrap();
    assert_eq!((&status["role"], &status["term"]), (&"leader".into(), &1.into()));
    // One that does not run does not follow.
    group.kill(3);
    group.wait_until("it has left", |statuses| {
        statuses[0]["present"].as_array().unwrap().iter().all(|node| node != 3)
    });
    assert!(refused(&group, 0, "3").contains("node 3 does not follow now"));
    caller.assert_all_applied();
}

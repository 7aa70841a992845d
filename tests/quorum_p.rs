//! Groups of real processes with and without a quorum: who is told what, what is not accepted, and what becomes of commands
//! that were under way.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use group::{Caller, Group, PATIENCE, SMALL, err, numbered, out};
use quorate::client::{ClientState, Outcome, Refusal};
use quorate::runtime::{ConnectError, ConnectOptions, HostClient};
use quorate::types::Nanos;
use serde_json::Value;

/// One leads with a quorum, and all others follow it.
fn whole(statuses: &[Value]) -> bool {
    let leads = |status: &&Value| status["role"] == "leader" && status["quorum"] == true;
    statuses.iter().filter(leads).count() == 1
        && statuses.iter().all(|status| {
            status["role"] != "none"
                && status["quorum"] == true
                && status["leader"] == statuses[0]["leader"]
        })
}

fn lost(statuses: &[Value]) -> bool {
    statuses.iter().all(|status| status["quorum"] == false && status["leader"].is_null())
}

/// Polls until the client knows that there is no quorum.
fn wait_no_quorum(caller: &mut Caller) {
    let deadline = Instant::now() + PATIENCE;
    while caller.state() != ClientState::NoQuorum {
        assert!(Instant::now() < deadline, "{:?}", caller.state());
        caller.turn();
    }
}

/// What a new client is told.
fn new_session(group: &Group, node: usize) -> Result<(), ConnectError> {
    let mut options = ConnectOptions::of(&group.nodes[node].settings, "new");
    options.members.retain(|(member, _)| usize::from(member.0) == node);
    HostClient::new(options).unwrap().connect(500 * Nanos::MILLISECOND)
}

fn assert_refused(group: &Group, node: usize) {
    let refused = new_session(group, node).expect_err("there is no quorum");
    let reason = matches!(refused, ConnectError::NoLeader { state: ClientState::NoQuorum, .. });
    assert!(reason, "{refused}");
    assert!(refused.to_string().contains("NO_QUORUM"), "{refused}");
}

#[test]
fn g3_without_a_quorum_writes_stop_and_new_sessions_are_refused_on_every_node_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(100, 64);
    group.settle();
    let before = group.status(0).unwrap();
    assert_eq!(group.run(0, "status", &["--is-leader"]).status.code(), Some(0));
    group.kill(1);
    group.kill(2);
    let alone = group.wait_until("the leader knows", lost);
    assert!(alone[0]["role"] == "none" && alone[0]["standing"] == "voter", "{}", alone[0]);
    assert!(alone[0]["since"].as_str() > before["since"].as_str(), "it says since when");
    assert!(alone[0]["since_ms"].as_u64().is_some(), "and how long ago that was: {}", alone[0]);
    let told = out(&group.run(0, "status", &[]));
    assert!(told.contains("quorum       false") && told.contains("leader       -"), "{told}");
    assert!(told.lines().any(|line| line.starts_with("since        20")), "{told}");
    assert_eq!(group.run(0, "status", &["--is-leader"]).status.code(), Some(1));
    wait_no_quorum(&mut caller);
    assert_eq!(caller.host.client.send(b"a write"), Err(Refusal::NoQuorum));
    let since = caller.host.client.no_quorum_since().expect("it says since when");
    assert!(since <= caller.host.now());
    assert_refused(&group, 0);
    let line = group.path().join("line");
    fs::write(&line, "one\n").unwrap();
    let sent = group.run(0, "send", &["--timeout", "1", "--input", line.to_str().unwrap()]);
    assert_eq!((sent.status.code(), out(&sent).as_str()), (Some(3), ""), "{}", err(&sent));
    let status = group.status(0).unwrap();
    assert_eq!(status["positions"]["tail"], before["positions"]["tail"], "nothing was accepted");
    assert_eq!((status["words"]["quorum_losses"].as_u64()), Some(1));
    assert!(group.word(0, "no_quorum_refusals") > 0);

    // A follower whose leader is gone, and with it the quorum, says the same.
    group.start_node(1);
    group.wait_until("two are a quorum", whole);
    caller.load(20, 64);
    group.start_node(2);
    let statuses = group.wait_until("all are", whole);
    let leader = statuses[0]["leader"].as_u64().unwrap() as usize;
    let follower = (leader + 1) % 3;
    group.kill(leader);
    group.kill((leader + 2) % 3);
    group.wait_until("the follower knows", lost);
    assert_refused(&group, follower);
    assert_eq!(group.run(follower, "status", &["--is-leader"]).status.code(), Some(1));
    group.start_node(leader);
    group.wait_until("two are a quorum again", whole);
    caller.load(20, 64);
    caller.assert_all_applied();
}

#[test]
fn g4_commands_under_way_when_the_quorum_goes_are_each_decided_once_when_it_is_back_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut patient = group.client("patient");
    let mut absent = group.client("absent");
    let mut hasty = group.client("hasty");
    for caller in [&mut patient, &mut absent, &mut hasty] {
        caller.load(20, 64);
    }
    let terms = group.wait_until("all", whole)[0]["term"].as_u64();
    for node in [1, 2] {
        group.signal(node, "STOP");
    }
    for caller in [&mut patient, &mut absent, &mut hasty] {
        for number in 0..20 {
            caller.send(&numbered(1 << 32 | number, 64));
        }
        caller.turn();
        assert!(caller.host.client.unanswered() > 0, "nothing can commit");
    }
    // One asks on and on; one does something else meanwhile; one waits no longer, and is told only then that nobody knows.
    wait_no_quorum(&mut patient);
    let answered = patient.done.len();
    for _ in 0..100 {
        patient.turn();
    }
    assert_eq!(patient.done.len(), answered, "nothing is acknowledged, and nothing given up");
    let waiting = hasty.host.client.unanswered();
    let (mut unknown, mut known) = (0, 0);
    hasty.host.client.give_up(|answer| match answer.outcome {
        Outcome::Unknown => unknown += 1,
        _ => known += 1,
    });
    assert_eq!((unknown, known), (waiting, 0));
    for node in [1, 2] {
        group.signal(node, "CONT");
    }
    let statuses = group.wait_until("they are whole again", whole);
    assert!(statuses[0]["term"].as_u64() > terms, "another leadership");
    patient.drain();
    absent.drain();
    patient.load(20, 64);
    for caller in [&mut patient, &mut absent] {
        caller.assert_all_applied();
        caller.close();
    }
    group.settle();
    group.stop_all();
    // Replaying ends the test where a command was applied twice.
    let log = group.replay_all();
    log.assert_holds(&patient);
    log.assert_holds(&absent);
    let of = |caller: &Caller| {
        let session = caller.session();
        log.commands.keys().filter(|(other, _)| *other == session).count()
    };
    assert_eq!((of(&patient), of(&absent)), (60, 40));
    assert!((20..=40).contains(&of(&hasty)), "what nobody waited for took effect or not");
}

/// Sends until told to end; what became of each command is kept.
fn work(mut caller: Caller, answered: &AtomicUsize, stop: &AtomicBool) -> Caller {
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        if caller.host.client.unanswered() < 4 {
            let sent = caller.host.client.send(&numbered(number, 32));
            number += u64::from(sent.is_ok());
        }
        caller.turn_within(2 * Nanos::MILLISECOND);
        answered.store(caller.done.len(), Ordering::Release);
    }
    caller.drain();
    caller
}

#[test]
fn g9_twenty_clients_at_work_while_the_majority_stops_three_times_all_recover_p() {
    // Large segments: whoever comes back finds in memory what it missed.
    let mut group = Group::start(3, "echo", &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let answered: Arc<Vec<AtomicUsize>> = Arc::new((0..20).map(|_| AtomicUsize::new(0)).collect());
    let threads: Vec<_> = (0..20)
        .map(|client| {
            let caller = group.client(&format!("client-{client}"));
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            thread::spawn(move || work(caller, &answered[client], &stop))
        })
        .collect();
    let counts = || answered.iter().map(|count| count.load(Ordering::Acquire)).collect::<Vec<_>>();
    let all_go_on = |since: &[usize]| {
        let deadline = Instant::now() + PATIENCE;
        while counts().iter().zip(since).any(|(now, then)| now <= then) {
            assert!(Instant::now() < deadline, "some hang: {since:?}, then {:?}", counts());
            thread::sleep(Duration::from_millis(5));
        }
    };
    all_go_on(&[0; 20]);
    for _ in 0..3 {
        let statuses = group.wait_until("they are whole", whole);
        let leader = statuses[0]["leader"].as_u64().unwrap() as usize;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        for node in others {
            group.kill(node);
        }
        group.wait_until("the quorum is lost", lost);
        let then = counts();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(counts(), then, "nothing is acknowledged without a quorum");
        for node in others {
            group.start_node(node);
        }
        group.wait_until("there is a quorum", |statuses| {
            statuses.iter().any(|status| status["quorum"] == true)
        });
        all_go_on(&then);
    }
    stop.store(true, Ordering::Release);
    let mut callers: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for caller in &mut callers {
        caller.close();
    }
    group.wait_until("no process has ended", whole);
    group.settle();
    group.stop_all();
    let log = group.replay_all();
    for caller in &callers {
        caller.assert_all_applied();
        log.assert_holds(caller);
    }
    let acknowledged: usize = callers.iter().map(|caller| caller.done.len()).sum();
    assert_eq!(log.commands.len(), acknowledged);
}

#[test]
fn g66_a_quorum_that_is_lost_without_any_traffic_is_told_and_so_is_its_return_p() {
    let mut group = Group::start(3, "echo", SMALL);
    group.settle();
    let tail = group.word(0, "verified");
    let regained = group.events_with(0, "Q-1101");
    group.kill(1);
    group.kill(2);
    group.wait_until("it is told", lost);
    assert_eq!(group.events_with(0, "Q-1009"), 1, "{}", group.events(0));
    assert_eq!(group.word(0, "verified"), tail, "nobody had anything to write");
    group.start_node(1);
    group.wait_until("it is back", whole);
    // Who leads now says so: it hears a quorum.
    let told: usize = (0..2).map(|node| group.events_with(node, "Q-1101")).sum();
    assert!(told > regained, "{}", group.events(0));
    assert_eq!(group.events_with(0, "Q-1009"), 1, "told once");
}

#[test]
fn g103_a_node_that_starts_without_a_leader_waits_says_so_and_joins_when_there_is_one_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(50, 64);
    group.settle();
    (0..3).for_each(|node| group.kill(node));
    group.start_node(2);
    group.wait_until("it runs", |statuses| statuses[0]["role"] == "none" && lost(statuses));
    assert_refused(&group, 2);
    thread::sleep(Duration::from_millis(500));
    assert!(lost(&[group.status(2).unwrap()]), "for as long as it is alone");
    group.start_node(0);
    group.start_node(1);
    let statuses = group.wait_until("all are there", whole);
    assert_eq!(statuses.len(), 3);
    caller.load(50, 64);
    caller.assert_all_applied();
}

#[test]
fn k3_nodes_that_are_started_together_are_whole_before_they_take_changes_p() {
    let mut group = Group::found(3, "echo", SMALL);
    group.start_node(0);
    group.start_node(1);
    group.wait_until("two run", lost);
    thread::sleep(Duration::from_millis(300));
    for node in 0..2 {
        assert_eq!((group.word(node, "verified"), group.events_with(node, "Q-1113")), (0, 0));
        assert_refused(&group, node);
    }
    group.start_node(2);
    group.wait_until("it is founded", whole);
    let mut caller = group.client("load");
    caller.load(50, 64);
    let statuses = group.settle();
    assert!(statuses.len() == 3 && whole(&statuses), "{statuses:?}");
    assert!((0..3).all(|node| group.events_with(node, "Q-1113") == 1));
    caller.assert_all_applied();
}

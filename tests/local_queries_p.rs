//! Real nodes that are asked by themselves, while their leader, or they, stand still.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;
#[path = "support/hosts.rs"]
mod hosts;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use group::{Group, PATIENCE, SMALL, err, numbered, out};
use hosts::among_hosts;
use quorate::client::{Demand, Lag, ReadOutcome};
use quorate::runtime::{ConnectOptions, HostReader, ReadError};
use quorate::types::{NodeId, Sequence};
use serde_json::Value;

/// The last of four nodes only observes.
const OBSERVED: &[&str] = &["members.3.observer=true"];
const ALL: u64 = 0;

fn reader(group: &Group) -> HostReader {
    let mut options = ConnectOptions::of(&group.nodes[0].settings, "reader");
    options.faults = None;
    HostReader::new(&options).unwrap()
}

fn within(within_ns: u64, wait: Duration) -> Demand {
    Demand { within_ns, wait_ns: wait.as_nanos() as u64, ..Demand::default() }
}

/// Commands that the state of a node holds, and how old it may be; or why it does not say.
fn ask(reader: &mut HostReader, node: usize, demand: Demand) -> Result<(u64, Lag), ReadOutcome> {
    match reader.ask(NodeId(node as u16), b"", demand) {
        Ok(read) => Ok((u64::from_le_bytes(read.reply[..8].try_into().unwrap()), read.lag)),
        Err(ReadError::Unanswered(outcome, _)) => Err(outcome),
        Err(error) => panic!("{error}"),
    }
}

fn leader(statuses: &[Value]) -> usize {
    statuses.iter().position(|status| status["role"] == "leader").unwrap()
}

#[test]
fn g136_followers_and_an_observer_answer_and_claim_nothing_while_they_hear_no_leader_p() {
    let mut group = Group::start(4, "echo", &[SMALL, OBSERVED].concat());
    let mut caller = group.client("load");
    caller.load(50, 64);
    let mut reader = reader(&group);
    for node in 0..4 {
        // All that was answered by now, whoever leads.
        let (count, lag) = ask(&mut reader, node, within(ALL, PATIENCE)).unwrap();
        assert_eq!((count, lag.node), (50, Some(NodeId(node as u16))));
        assert!(lag.lag_ns.unwrap() < PATIENCE.as_nanos() as u64, "{lag:?}");
    }
    for node in 0..4 {
        let wrote = caller.call(&numbered(node as u64, 64)).sequence;
        let demand = Demand { at_least: wrote, ..within(u64::MAX, PATIENCE) };
        let (count, lag) = ask(&mut reader, node, demand).unwrap();
        assert!(count >= 51 + node as u64 && lag.sequence >= wrote, "node {node}: {lag:?}");
    }
    group.wait_until("they are counted", |statuses| {
        statuses.iter().all(|status| status["words"]["local_answers"].as_u64() >= Some(2))
    });

    // The leader and another voter stand still: nobody leads, and nobody can.
    let lead = leader(&group.settle());
    let (left, stopped) = ((lead + 1) % 3, [lead, (lead + 2) % 3]);
    for node in stopped {
        group.signal(node, "STOP");
    }
    let since = Instant::now();
    let short = Duration::from_millis(300);
    thread::sleep(short);
    for node in [left, 3] {
        let refused = ask(&mut reader, node, within(1_000_000, short));
        assert_eq!(refused.unwrap_err(), ReadOutcome::TooStale);
        let demand = Demand { at_least: Sequence(1 << 40), ..within(u64::MAX, short) };
        assert_eq!(ask(&mut reader, node, demand).unwrap_err(), ReadOutcome::Behind);
        // What may be old is to be had all the time, and grows older.
        let mut ages = Vec::new();
        for _ in 0..2 {
            let (count, lag) = ask(&mut reader, node, Demand::default()).unwrap();
            assert_eq!(count, 54);
            ages.push(lag.lag_ns.unwrap());
            assert!(ages[0] >= short.as_nanos() as u64, "{lag:?}");
            thread::sleep(short);
        }
        assert!(ages[1] - ages[0] >= short.as_nanos() as u64, "{ages:?}");
        assert!(ages[1] <= since.elapsed().as_nanos() as u64 + PATIENCE.as_nanos() as u64);
    }
    for node in stopped {
        group.signal(node, "CONT");
    }
    for node in 0..4 {
        assert_eq!(ask(&mut reader, node, within(ALL, PATIENCE)).unwrap().0, 54);
    }
    caller.close();
}

#[test]
fn g136_a_follower_that_stood_still_is_not_fresh_by_what_lay_in_its_socket_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(20, 64);
    let follower = (leader(&group.settle()) + 1) % 3;
    let mut reader = reader(&group);
    for round in 0..5 {
        assert!(ask(&mut reader, follower, within(ALL, PATIENCE)).is_ok());
        group.signal(follower, "STOP");
        let stopped = Instant::now();
        caller.load(20, 64);
        let all = 20 * (round + 2);
        thread::sleep(Duration::from_millis(50));
        let stood = stopped.elapsed().as_nanos() as u64;
        group.signal(follower, "CONT");
        // Whatever it has taken in by then: what it says of it is so.
        let (count, lag) = ask(&mut reader, follower, Demand::default()).unwrap();
        assert!(count == all || lag.lag_ns.is_none_or(|lag| lag >= stood), "{count}: {lag:?}");
        let (count, _) = ask(&mut reader, follower, within(ALL, PATIENCE)).unwrap();
        assert_eq!(count, all, "round {round}");
    }
    caller.close();
    group.settle();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

#[test]
fn g136_r1_whoever_is_cut_off_claims_nothing_leader_or_follower_p() {
    among_hosts(3, |hosts| {
        let founded = Group::found_with(3, "echo", SMALL, |init, folder| {
            let list = folder.write("members.csv", hosts.members());
            init.arg("--members").arg(list).args(["--transport", "unicast"]);
            (0..3).map(|node| hosts.host(node)).collect()
        });
        let mut group = founded.start_all();
        let mut caller = group.client("load");
        let mut reader = reader(&group);
        for round in 0..4 {
            caller.load(10, 64);
            let lead = leader(&group.settle());
            // The reader reaches all of them, the others each other, and one nobody but the reader.
            let apart = (lead + round) % 3;
            assert!(ask(&mut reader, apart, within(ALL, PATIENCE)).is_ok());
            let rest: Vec<usize> = (0..3).filter(|node| *node != apart).collect();
            let parted = Instant::now();
            hosts.part(&[apart], &rest);
            let before = 10 + 20 * round as u64;
            // At once, while a leader may still believe that it leads.
            let wait = Duration::from_millis(100);
            assert_eq!(ask(&mut reader, apart, within(ALL, wait)), Err(ReadOutcome::TooStale));
            caller.load(10, 64);
            let since = parted.elapsed();
            let (count, lag) = ask(&mut reader, apart, Demand::default()).unwrap();
            assert_eq!(count, before, "none of what the others decided");
            let lag_ns = lag.lag_ns.expect("it was asked before");
            assert!(u128::from(lag_ns) >= since.as_nanos(), "{lag:?}, {since:?}");
            assert_eq!(ask(&mut reader, rest[0], within(ALL, PATIENCE)).unwrap().0, before + 10);
            hosts.heal();
            assert_eq!(ask(&mut reader, apart, within(ALL, PATIENCE)).unwrap().0, before + 10);
        }
        caller.close();
        group.settle();
        group.stop_all();
        group.replay_all().assert_holds(&caller);
    });
}

#[test]
fn g136_the_program_asks_one_node_and_ends_with_1_where_that_refuses_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(5, 64);
    let lead = leader(&group.settle());
    let other = (lead + 1) % 3;
    let line = group.path().join("line");
    fs::write(&line, "what\n").unwrap();
    let query = |group: &Group, more: &[&str]| {
        let node = other.to_string();
        let args = [&["--input", line.to_str().unwrap(), "--node", &node], more].concat();
        let done = group.run(lead, "query", &args);
        (done.status.code(), out(&done), err(&done))
    };
    let wait = ["--within-ms", "0", "--wait-ms", "10000", "--json"];
    let (code, text, told) = query(&group, &wait);
    assert_eq!(code, Some(0), "{told}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert!(answer["outcome"] == "answered" && answer["lag"]["node"] == other, "{answer}");
    assert!(answer["lag"]["lag_ns"].as_u64() > Some(0), "{answer}");
    let (code, text, _) = query(&group, &["--at-least", "1000000", "--wait-ms", "20"]);
    assert_eq!(code, Some(1));
    assert!(text.starts_with("behind: ") && text.contains("(BEHIND)"), "{text}");
    group.kill(lead);
    let last = (lead + 2) % 3;
    group.kill(last);
    let (code, text, _) = query(&group, &["--within-ms", "1", "--wait-ms", "50"]);
    assert_eq!(code, Some(1));
    assert!(text.starts_with("too-stale: ") && text.contains("(TOO_STALE)"), "{text}");
    assert_eq!(query(&group, &[]).0, Some(0), "however old");
    let done = group.run(0, "query", &["--input", line.to_str().unwrap(), "--node", "9"]);
    assert_eq!((done.status.code(), err(&done).contains("node 9 is not on")), (Some(2), true));
    let gone = last.to_string();
    let args = ["--input", line.to_str().unwrap(), "--node", &gone, "--wait-ms", "0"];
    assert_eq!(group.run(0, "query", &args).status.code(), Some(3), "it says nothing");
    caller.host.client.give_up(|_| {});
}

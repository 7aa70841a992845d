//! Groups of real processes on hosts of their own (network namespaces), parted from each other and healed: who leads, how long
//! a client that reaches them all waits, and what becomes of what was acknowledged, and of what was not.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;
#[path = "support/hosts.rs"]
mod hosts;

use std::time::{Duration, Instant};

use group::{Caller, Group, SMALL, numbered};
use hosts::{Hosts, among_hosts};
use serde_json::Value;

/// An outage is bounded: 2.5 leader timeouts by design, and what a host that is busy with other tests adds.
const OUTAGE_MAX: Duration = Duration::from_secs(5);
/// Longer than the leader timeout, several times.
const LONG: Duration = Duration::from_millis(600);
const PORTIONS: u32 = 20;

fn start(hosts: &Hosts, nodes: u16) -> Group {
    let founded = Group::found_with(nodes, "echo", SMALL, |init, folder| {
        let list = folder.write("members.csv", hosts.members());
        init.arg("--members").arg(list).args(["--transport", "unicast"]);
        (0..nodes).map(|node| hosts.host(node)).collect()
    });
    founded.start_all()
}

/// Leaves commands unanswered.
fn send_without_waiting(caller: &mut Caller, commands: u64) {
    for number in 0..commands {
        caller.send(&numbered(1 << 32 | number, 64));
    }
}

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

fn leads(status: &Value) -> bool {
    status["role"] == "leader" && status["quorum"] == true
}

/// The node that leads, once all but those `without` say the same.
fn leader(group: &mut Group, without: &[usize]) -> usize {
    let seen = |statuses: &[Value]| {
        let asked = |status: &&Value| !without.iter().any(|node| status["node"] == *node);
        let asked: Vec<_> = statuses.iter().filter(asked).cloned().collect();
        let leader =
            asked.iter().find(|status| leads(status)).map(|status| status["node"].clone())?;
        asked
            .iter()
            .all(|status| status["leader"] == leader && status["term"] == asked[0]["term"])
            .then(|| leader.as_u64().unwrap() as usize)
    };
    let statuses = group.wait_until("one leads and the others follow it", |s| seen(s).is_some());
    seen(&statuses).unwrap()
}

fn others(nodes: usize, than: usize) -> Vec<usize> {
    (0..nodes).filter(|&node| node != than).collect()
}

/// What the client did not get an answer to in the time.
fn outage(caller: &mut Caller) -> Duration {
    let begin = Instant::now();
    caller.drain();
    begin.elapsed()
}

#[test]
fn g91_r1_d12_a_leader_cut_off_acknowledges_nothing_and_its_tail_is_kept_and_told_p() {
    among_hosts(3, |hosts| {
        let mut group = start(hosts, 3);
        let mut caller = group.client("load");
        caller.load(200, 64);
        let old = leader(&mut group, &[]);
        group.settle();
        hosts.part(&[old], &others(3, old));
        // It takes them in, and answers none: nobody else has them.
        send_without_waiting(&mut caller, 30);
        let took = outage(&mut caller);
        assert!(took < OUTAGE_MAX, "{took:?}");
        assert_ne!(leader(&mut group, &[old]), old);
        let status = group.status(old).unwrap();
        assert_eq!((&status["quorum"], &status["role"]), (&false.into(), &"none".into()));
        assert_eq!(group.events_with(old, "Q-1009"), 1, "{}", group.told(old));
        caller.load(100, 64);
        hosts.heal();
        assert_ne!(leader(&mut group, &[]), old, "it comes back as a follower");
        group.settle();
        // Of what it had taken alone nothing is lost without a word.
        assert_eq!(group.events_with(old, "Q-1014"), 1, "{}", group.told(old));
        let kept = std::fs::read_dir(group.data(old).join("quarantine")).unwrap();
        assert!(kept.count() > 0, "and the bytes are there to be looked at");
        finish(group, caller, 330);
    });
}

#[test]
fn d8_g129_a_leader_that_can_send_but_not_hear_or_hear_but_not_send_is_replaced_p() {
    among_hosts(3, |hosts| {
        let mut group = start(hosts, 3);
        let mut caller = group.client("load");
        caller.load(100, 64);
        for deaf in [true, false] {
            let old = leader(&mut group, &[]);
            group.settle();
            for other in others(3, old) {
                let (from, to) = if deaf { (other, old) } else { (old, other) };
                hosts.cut(from, to);
            }
            send_without_waiting(&mut caller, 30);
            let took = outage(&mut caller);
            assert!(took < OUTAGE_MAX, "deaf {deaf}: {took:?}");
            assert_ne!(leader(&mut group, &[old]), old);
            caller.load(20, 64);
            hosts.heal();
            assert_ne!(leader(&mut group, &[]), old);
            group.settle();
        }
        finish(group, caller, 100 + 2 * 50);
    });
}

#[test]
fn g129_a_follower_that_the_leader_alone_cannot_reach_disturbs_nobody_p() {
    among_hosts(3, |hosts| {
        let mut group = start(hosts, 3);
        let mut caller = group.client("load");
        caller.load(100, 64);
        let lead = leader(&mut group, &[]);
        let term = group.settle()[lead]["term"].clone();
        let apart = (lead + 1) % 3;
        for both in [true, false] {
            hosts.cut(lead, apart);
            if both {
                hosts.cut(apart, lead);
            }
            // Not more than what is kept in memory for the one that hears nothing.
            for _ in 0..PORTIONS {
                caller.load(5, 64);
                std::thread::sleep(LONG / PORTIONS);
            }
            let status = group.status(lead).unwrap();
            assert_eq!((&status["term"], status["quorum"] == true), (&term, true), "both {both}");
            hosts.heal();
            group.settle();
        }
        finish(group, caller, 100 + 2 * 5 * PORTIONS as usize);
    });
}

#[test]
fn g92_the_larger_side_of_five_goes_on_also_when_its_leader_dies_p() {
    among_hosts(5, |hosts| {
        let mut group = start(hosts, 5);
        let mut caller = group.client("load");
        caller.load(100, 64);
        let lead = leader(&mut group, &[]);
        group.settle();
        let apart = (lead + 1) % 5;
        hosts.part(&[apart], &others(5, apart));
        caller.load(50, 64);
        group.kill(lead);
        send_without_waiting(&mut caller, 30);
        let took = outage(&mut caller);
        assert!(took < OUTAGE_MAX, "{took:?}");
        let next = leader(&mut group, &[apart]);
        assert!(next != lead && next != apart);
        group.start_node(lead);
        hosts.heal();
        group.settle();
        finish(group, caller, 180);
    });
}

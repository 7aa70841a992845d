//! Clients of real processes on hosts of their own that do not reach the leader, and a follower alone: it passes on what they
//! and the leader say to each other.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;
#[path = "support/hosts.rs"]
mod hosts;

use group::{Caller, Group, SMALL, numbered};
use hosts::{Hosts, among_hosts};

/// Node 2 never leads.
const LAST_FOLLOWS: &str = "members.2.priority=0";

fn start(hosts: &Hosts) -> Group {
    let set = [SMALL, &[LAST_FOLLOWS]].concat();
    let founded = Group::found_with(3, "echo", &set, |init, folder| {
        let list = folder.write("members.csv", hosts.members());
        init.arg("--members").arg(list).args(["--transport", "unicast"]);
        (0..3).map(|node| hosts.host(node)).collect()
    });
    founded.start_all()
}

/// Everybody follows one that leads, and which one.
fn leader(group: &mut Group) -> usize {
    let statuses = group.wait_until("one leads and the others follow it", |statuses| {
        statuses.iter().any(|status| status["role"] == "leader" && status["quorum"] == true)
            && statuses.iter().all(|status| status["leader"] == statuses[0]["leader"])
    });
    statuses[0]["leader"].as_u64().unwrap() as usize
}

fn send_without_waiting(caller: &mut Caller, base: u64) {
    for number in 0..30 {
        caller.send(&numbered(base << 32 | number, 64));
    }
}

/// The node that the client talks to.
fn at(group: &Group, caller: &Caller) -> Option<usize> {
    let address = caller.host.client.node()?;
    group.nodes[0].settings.members.iter().position(|member| member.data == address)
}

#[test]
fn g126_a12_a_client_that_reaches_a_follower_alone_outlives_leader_and_follower_p() {
    among_hosts(3, |hosts| {
        let mut group = start(hosts);
        let first = leader(&mut group);
        assert_ne!(first, 2);
        let other = 1 - first;
        let clients = hosts.clients();
        hosts.part(&[clients], &[0, 1]);
        let mut caller = group.client("behind a follower");
        let session = caller.session();
        caller.load(200, 64);
        assert_eq!(at(&group, &caller), Some(2), "through the only node it reaches");
        // Counters are shown at intervals.
        group.wait_until("it passed them on", |statuses| {
            statuses[2]["words"]["forwarded"].as_u64() >= Some(200 / 30)
        });

        // The leader dies with commands under way; the next one is out of reach too.
        send_without_waiting(&mut caller, 1);
        group.kill(first);
        caller.drain();
        caller.load(50, 64);
        assert_eq!((leader(&mut group), at(&group, &caller)), (other, Some(2)));
        group.start_node(first);
        group.settle();

        // The node that passes on dies with commands under way; another follower is in reach by now.
        hosts.heal();
        hosts.part(&[clients], &[other]);
        assert_eq!(leader(&mut group), other);
        send_without_waiting(&mut caller, 2);
        group.kill(2);
        caller.drain();
        caller.load(50, 64);
        assert_eq!(at(&group, &caller), Some(first));
        assert!(group.word(first, "forwarded") > 0);
        assert_eq!(caller.host.client.session(), Some(session), "and it is the same session");
        group.start_node(2);

        caller.close();
        caller.assert_all_applied();
        assert_eq!(caller.done.len(), 360);
        group.settle();
        group.stop_all();
        let log = group.replay_all();
        log.assert_holds(&caller);
        assert_eq!(log.commands.len(), 360, "each once");
    });
}

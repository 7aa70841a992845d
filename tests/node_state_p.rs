//! The file `node.state` of a real node: one copy is enough; damaged, foreign or of another version it is refused by name;
//! gone it is no state, and never a fresh vote.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use group::{Caller, Group, SMALL, err, quorate};

/// Where the second copy begins.
const COPY: usize = 4096;

/// A group that has lived and was stopped in order, and its client.
fn lived() -> (Group, Caller) {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(50, 64);
    caller.close();
    group.settle();
    group.stop_all();
    (group, caller)
}

fn state(group: &Group, node: usize) -> PathBuf {
    group.data(node).join("node.state")
}

/// Starts a node that must refuse, and returns what it says.
fn refusal(group: &Group, node: usize) -> String {
    let before = fs::read(state(group, node)).unwrap();
    let mut command = quorate();
    command.args(["node", "--config"]).arg(&group.nodes[node].file);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert_eq!(fs::read(state(group, node)).unwrap(), before, "it is left as it is");
    let told = err(&output);
    assert!(told.contains("node.state"), "{told}");
    told
}

#[test]
fn one_damaged_copy_of_the_node_state_is_made_good_from_the_other_p() {
    let (mut group, caller) = lived();
    for copy in 0..2 {
        let path = state(&group, 2);
        let mut bytes = fs::read(&path).unwrap();
        bytes[copy * COPY + 100] ^= 1;
        fs::write(&path, &bytes).unwrap();
        (0..3).for_each(|node| group.start_node(node));
        let statuses = group.settle();
        assert!(statuses.iter().all(|status| status["standing"] == "voter"), "{statuses:?}");
        group.stop_all();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[..COPY], bytes[COPY..2 * COPY], "both are whole and the same");
    }
    group.replay_all().assert_holds(&caller);
}

#[test]
fn a_node_state_that_is_damaged_foreign_or_of_another_node_is_refused_by_name_p() {
    let (mut group, caller) = lived();
    let path = state(&group, 2);
    let good = fs::read(&path).unwrap();
    let mut damaged = good.clone();
    (damaged[100], damaged[COPY + 100]) = (damaged[100] ^ 1, damaged[COPY + 100] ^ 1);
    let mut half = good.clone();
    half.truncate(COPY / 2);
    for bytes in [damaged, half, Vec::new()] {
        fs::write(&path, bytes).unwrap();
        let told = refusal(&group, 2);
        assert!(told.contains("both copies are damaged") && told.contains("unknown"), "{told}");
    }
    fs::write(&path, vec![b'x'; 2 * COPY]).unwrap();
    assert!(refusal(&group, 2).contains("not written by Quorate"));
    fs::copy(state(&group, 1), &path).unwrap();
    let told = refusal(&group, 2);
    assert!(told.contains("of node 1, this is node 2"), "{told}");
    // The two others go on meanwhile; with its own state back it is one of them again.
    group.start_node(0);
    group.start_node(1);
    fs::write(&path, good).unwrap();
    group.start_node(2);
    let statuses = group.settle();
    assert!(statuses.iter().all(|status| status["standing"] == "voter"), "{statuses:?}");
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

#[test]
fn a_node_state_of_another_group_is_refused_by_name_p() {
    let (group, _) = lived();
    let mut other = Group::found(3, "echo", SMALL);
    other.start_node(2);
    other.wait_until("it runs", |_| true);
    other.stop(2);
    let path = state(&other, 2);
    fs::copy(state(&group, 2), &path).unwrap();
    let told = refusal(&other, 2);
    let ids = [&group, &other].map(|group| format!("{:016x}", group.nodes[2].settings.group.id.0));
    assert!(told.contains(&format!("of group {}, this node's is {}", ids[0], ids[1])), "{told}");
}

#[test]
fn d6_a_node_whose_state_is_gone_beside_its_log_helps_to_elect_nobody_p() {
    let (mut group, mut caller) = lived();
    group.start_node(0);
    group.start_node(1);
    group.settle();
    fs::remove_file(state(&group, 2)).unwrap();
    // Its leader gone, it and the one left are two of three, and no quorum: it may have voted, and does not know for whom.
    group.stop(0);
    group.start_node(2);
    group.wait_until("both run", |statuses| {
        let standing = |node: usize| statuses[node]["standing"].as_str().unwrap_or("").to_owned();
        standing(0) == "voter" && standing(1) == "stateless"
    });
    thread::sleep(Duration::from_millis(1500));
    for node in [1, 2] {
        let status = group.status(node).unwrap();
        assert!(status["role"] != "leader" && status["quorum"] == false, "{status}");
    }
    // With a quorum that remembers there is a leader, and it is admitted again, once.
    group.start_node(0);
    group.wait_until("it is a voter again", |statuses| {
        statuses.iter().all(|status| status["standing"] == "voter" && status["role"] != "none")
    });
    assert_eq!(group.events_with(2, "Q-1117"), 1, "{}", group.events(2));
    caller = {
        let mut again = group.client("again");
        again.load(20, 64);
        again.close();
        caller.assert_all_applied();
        again
    };
    group.settle();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

//! Real nodes on small disks that get full, and have room again: nobody ends, nothing acknowledged is lost, and the lead goes
//! where there is room.
//!
//! Each node has a small memory file system of its own for its data. The test mounts them in a mount namespace that it makes
//! by running itself again, so that nothing is left of them afterwards.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use group::{Caller, Group, PATIENCE, SMALL, numbered};
use quorate::client::{ClientState, Refusal};

/// Set in the process that has mounts of its own.
const INSIDE: &str = "QUORATE_TEST_MOUNTS";
/// Of each node's disk.
const DISK_BYTES: u64 = 12 * 1024 * 1024;
/// What fills it up.
const FILLER: &str = "filler";
const SETTINGS: &[&str] = &[
    "disk.low_bytes=2097152",
    "disk.full_bytes=524288",
    "snapshot.interval_bytes=0",
    "timing.leader_timeout_ms=1000",
    "timing.session_timeout_min_ms=2000",
];

/// Runs the test of this name again where it may mount; returns whether this is that run.
fn has_mounts(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let own: &[&str] = &["--mount", "--propagation", "private"];
    let mapped: &[&str] = &["--map-root-user", "--mount", "--propagation", "private"];
    let works = |flags: &&&[&str]| {
        let mut tried = Command::new("unshare");
        tried.args(**flags).args(["mount", "-t", "tmpfs", "none", "/mnt"]);
        tried.output().is_ok_and(|output| output.status.success())
    };
    let Some(flags) = [own, mapped].iter().find(works).copied() else {
        eprintln!(
            "SKIPPED: no mount namespace can be made here (CAP_SYS_ADMIN, or user namespaces)"
        );
        return false;
    };
    let program = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.args(flags).arg(program).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    assert!(again.status().unwrap().success(), "see above");
    false
}

/// A group with a small disk for each node.
fn on_small_disks(nodes: u16) -> Group {
    let group = Group::found(nodes, "echo", &[SMALL, SETTINGS].concat());
    for node in 0..usize::from(nodes) {
        fs::create_dir_all(group.data(node)).unwrap();
        let size = format!("size={DISK_BYTES}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(group.data(node));
        assert!(mount.status().unwrap().success());
    }
    group.start_all()
}

/// Leaves no room on the disk of a node.
fn fill(group: &Group, node: usize) {
    let mut file = File::create(group.data(node).join(FILLER)).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
}

fn make_room(group: &Group, node: usize) {
    fs::remove_file(group.data(node).join(FILLER)).unwrap();
}

fn leader(group: &mut Group) -> usize {
    let leads = |statuses: &[serde_json::Value]| {
        statuses.iter().any(|status| status["role"] == "leader" && status["quorum"] == true)
    };
    let statuses = group.wait_until("somebody leads", leads);
    statuses.iter().position(|status| status["role"] == "leader").unwrap()
}

fn state(group: &mut Group, node: usize, state: &str) {
    group.wait_until(&format!("the disk of node {node} is {state}"), |statuses| {
        statuses[node]["disk"]["state"] == state
    });
}

/// Waits until a node has said so on stderr: its own file may be full, too.
fn wait_told(group: &Group, node: usize, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !group.told(node).contains(text) {
        assert!(Instant::now() < deadline, "{text}:\n{}", group.told(node));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn g127_a_leader_on_a_full_disk_hands_over_follows_and_is_whole_again_p() {
    if !has_mounts("g127_a_leader_on_a_full_disk_hands_over_follows_and_is_whole_again_p") {
        return;
    }
    let mut group = on_small_disks(3);
    let mut caller = group.client("one");
    group.load(&mut caller, 50, 1000);
    let first = leader(&mut group);
    fill(&group, first);
    group.wait_until("the lead is where there is room", |statuses| {
        let leads = statuses.iter().position(|status| status["role"] == "leader");
        leads.is_some_and(|leads| leads != first) && statuses[first]["role"] == "follower"
    });
    // More than the segments that are there take: it acknowledges no more from its disk, and the others go on.
    caller.load(600, 1000);
    state(&mut group, first, "full");
    wait_told(&group, first, "no room for more segments");
    wait_told(&group, first, "cannot be made: ");
    make_room(&group, first);
    state(&mut group, first, "good");
    wait_told(&group, first, "room on the disk again");
    caller.load(50, 1000);
    group.settle();
    caller.assert_all_applied();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

#[test]
fn g80_a_group_without_any_room_refuses_by_name_and_takes_up_again_by_itself_p() {
    if !has_mounts("g80_a_group_without_any_room_refuses_by_name_and_takes_up_again_by_itself_p") {
        return;
    }
    let mut group = on_small_disks(3);
    let mut caller = group.client("one");
    group.load(&mut caller, 50, 1000);
    (0..3).for_each(|node| fill(&group, node));
    let sent = send_until_refused(&mut caller);
    assert_eq!(caller.state(), ClientState::NoSpace);
    assert!(caller.host.client.no_space_since().is_some() && sent > 0);
    group.wait_until("it is counted", |statuses| {
        statuses.iter().any(|status| status["words"]["no_space_refusals"].as_u64() > Some(0))
    });
    let statuses = group.wait_until("all say so", |statuses| {
        statuses.iter().all(|status| status["disk"]["state"] == "full")
    });
    assert!(statuses.iter().all(|status| status["role"] != "none"), "{statuses:#?}");
    (0..3).for_each(|node| make_room(&group, node));
    caller.drain();
    caller.load(100, 1000);
    group.settle();
    caller.assert_all_applied();
    (0..3).for_each(|node| wait_told(&group, node, "room on the disk again"));
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

/// Sends until there is no room for more; returns how many were taken.
fn send_until_refused(caller: &mut Caller) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    loop {
        match caller.host.client.send(&numbered(sent, 1000)) {
            Ok(_) => sent += 1,
            Err(Refusal::NoSpace) => return sent,
            Err(refusal) => assert!(Instant::now() < deadline, "{refusal:?}"),
        }
        caller.turn();
    }
}

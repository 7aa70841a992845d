//! Snapshots of real nodes: taken while they run, read back at their next start, and refused when they are damaged.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use group::{Caller, Group, PATIENCE, SMALL, err, numbered, out};
use serde_json::Value;

/// `quorate snapshot` of a node.
fn snapshot(group: &Group, node: usize) -> Value {
    let output = group.run(node, "snapshot", &["--json"]);
    assert!(output.status.success(), "{}", err(&output));
    serde_json::from_str(out(&output).trim()).unwrap()
}

/// The files of a node's snapshots, oldest first.
fn files(group: &Group, node: usize) -> Vec<PathBuf> {
    let entries = fs::read_dir(group.data(node).join("snapshots")).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "qsnap"));
    files.sort();
    files
}

/// Waits until a node has `count` snapshots, or the newest satisfies `good`.
fn wait_for(group: &Group, node: usize, good: impl Fn(&[PathBuf]) -> bool) -> Vec<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let files = files(group, node);
        if good(&files) {
            return files;
        }
        assert!(Instant::now() < deadline, "{files:?}\n{}", group.events(node));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn r6_a_node_that_starts_from_a_snapshot_has_the_same_state_and_says_so_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("one");
    caller.load(200, 300);
    group.settle();
    let taken = snapshot(&group, 2);
    assert_eq!(taken["sequence"], group.status(2).unwrap()["sequence"]);
    // Nothing new: the same one.
    assert_eq!(snapshot(&group, 2), taken);
    assert_eq!(files(&group, 2).len(), 1);
    caller.load(100, 300);
    group.kill(2);
    caller.load(100, 300);
    group.start_node(2);
    let statuses = group.settle();
    assert_eq!(statuses[2]["snapshot"]["newest"], taken);
    assert_eq!(statuses[2]["state_hash"], statuses[0]["state_hash"]);
    let position = taken["position"].to_string();
    let begun =
        group.events(2).lines().filter(|line| line.contains("begins with the snapshot")).count();
    assert_eq!(begun, 1, "{position}: {}", group.events(2));
    caller.assert_all_applied();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

#[test]
fn r14_a_damaged_snapshot_is_kept_aside_and_the_node_starts_from_the_older_one_p() {
    let mut group = Group::start(1, "book", SMALL);
    let mut caller = group.client("one");
    load_orders(&mut caller, 50);
    let older = snapshot(&group, 0);
    load_orders(&mut caller, 50);
    let newer = snapshot(&group, 0);
    let before = group.status(0).unwrap()["sequence"].clone();
    group.kill(0);
    let file = files(&group, 0).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    group.start_node(0);
    let statuses = group.settle();
    assert_eq!(statuses[0]["snapshot"]["newest"], older);
    assert!(statuses[0]["sequence"].as_u64() >= before.as_u64());
    assert_eq!(group.events_with(0, "Q-1131"), 1, "{}", group.events(0));
    assert!(
        !file.exists() && group.data(0).join("quarantine").join(file.file_name().unwrap()).exists()
    );
    assert_ne!(older["position"], newer["position"]);
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

/// Commands that are no orders are refused by the book, and kept as refusals: state all the same.
fn load_orders(caller: &mut Caller, count: u64) {
    for number in 0..count {
        caller.send(&numbered(number, 40));
    }
    caller.drain();
}

#[test]
fn r15_snapshot_interval_bytes() {
    let set = [SMALL, &["snapshot.interval_bytes=65536"]].concat();
    let mut group = Group::start(1, "echo", &set);
    let mut caller = group.client("one");
    caller.load(300, 1000);
    let found = wait_for(&group, 0, |files| !files.is_empty());
    assert!(!found.is_empty());
    group.stop_all();
    // 0: none by itself.
    let set = [SMALL, &["snapshot.interval_bytes=0"]].concat();
    drop(group);
    let mut group = Group::start(1, "echo", &set);
    let mut caller = group.client("one");
    caller.load(300, 1000);
    snapshot(&group, 0);
    assert_eq!(files(&group, 0).len(), 1, "only the one that was asked for");
    group.stop_all();
}

#[test]
fn r15_snapshot_kept() {
    let set = [SMALL, &["snapshot.kept=3"]].concat();
    let mut group = Group::start(1, "echo", &set);
    let mut caller = group.client("one");
    let mut taken = Vec::new();
    for _ in 0..5 {
        caller.load(3, 100);
        taken.push(snapshot(&group, 0)["position"].as_u64().unwrap());
    }
    let kept = files(&group, 0);
    let names: Vec<_> =
        taken[2..].iter().map(|position| format!("{position:016x}.qsnap")).collect();
    let found: Vec<_> =
        kept.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(found, names);
    group.stop_all();
}

#[test]
fn r15_snapshot_bytes_per_second() {
    let took = |rate: &str| {
        let rate = format!("snapshot.bytes_per_second={rate}");
        let set = [SMALL, &[rate.as_str()]].concat();
        let mut group = Group::start(1, "echo", &set);
        let mut caller = group.client("one");
        caller.load(200, 1000);
        let begin = Instant::now();
        snapshot(&group, 0);
        let took = begin.elapsed();
        group.stop_all();
        took
    };
    // 200 kB of log at 100 kB a second: no machine makes it quicker.
    assert!(took("102400") >= Duration::from_secs(2));
    took("1 GiB");
}

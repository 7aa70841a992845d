//! Rot in the files of real nodes: found while they run, named, and had back from the others.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use group::{Caller, Group, PATIENCE, SMALL};
use serde_json::Value;

const SEGMENT: u64 = 131_072;
const PAGE: u64 = 4096;
/// A round a second.
const EAGER: &[&str] = &["scrub.interval_s=1", "scrub.bytes_per_second=1GiB"];

fn eager() -> Vec<&'static str> {
    [SMALL, EAGER].concat()
}

/// A group whose log is at least four segments long, and who wrote it.
fn grown(nodes: u16, set: &[&str]) -> (Group, Caller) {
    let mut group = Group::start(nodes, "echo", set);
    let mut caller = group.client("one");
    caller.load(400, 1500);
    group.settle();
    (group, caller)
}

fn segment(group: &Group, node: usize, number: u64) -> PathBuf {
    group.data(node).join(format!("{:016x}.qlog", number * SEGMENT))
}

/// Bytes of a file change behind everybody's back.
fn flip(file: &PathBuf, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

fn payload(file: &PathBuf) -> Vec<u8> {
    fs::read(file).unwrap()[PAGE as usize..].to_vec()
}

fn wait_for(group: &Group, node: usize, what: &str, good: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !good() {
        assert!(Instant::now() < deadline, "{what}\n{}", group.events(node));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn role(group: &Group, role: &str) -> usize {
    let is = |node: &usize| group.status(*node).is_some_and(|status| status["role"] == role);
    (0..3).find(is).unwrap()
}

/// The group goes on, and all logs hold what its clients were told. The first one's session may have ended meanwhile.
fn finish(mut group: Group, first: &Caller) {
    let mut second = group.client("two");
    second.load(50, 300);
    group.settle();
    for caller in [first, &second] {
        caller.assert_all_applied();
    }
    group.stop_all();
    let replayed = group.replay_all();
    for caller in [first, &second] {
        replayed.assert_holds(caller);
    }
}

#[test]
fn k11_a_flipped_byte_of_a_sealed_segment_is_found_and_had_back_while_the_node_runs_p() {
    let (group, caller) = grown(3, &eager());
    for (who, part) in [("follower", 60_000), ("leader", PAGE + 8), ("follower", 20)] {
        let node = role(&group, who);
        let file = segment(&group, node, 1);
        let (good, repaired) = (payload(&file), group.events_with(node, "Q-1171"));
        flip(&file, part);
        wait_for(&group, node, who, || group.events_with(node, "Q-1171") > repaired);
        assert_eq!(payload(&file), good, "{who}: to the byte");
        let events = group.events(node);
        let named = format!("{} at byte ", file.file_name().unwrap().to_string_lossy());
        assert!(events.lines().any(|l| l.contains("Q-1170") && l.contains(&named)), "{events}");
        let kept = fs::read_dir(group.data(node).join("quarantine")).unwrap().count();
        assert!(kept >= 1, "the damaged file is kept");
        let scrub = group.status(node).unwrap()["scrub"].clone();
        assert!(
            scrub["repaired"].as_u64() >= Some(1) && scrub["found"].as_u64() >= Some(1),
            "{scrub}"
        );
    }
    finish(group, &caller);
}

#[test]
fn k11_a_segment_file_that_is_gone_is_had_back_whole_p() {
    let (group, caller) = grown(3, &eager());
    let node = role(&group, "follower");
    let file = segment(&group, node, 1);
    let good = payload(&file);
    fs::remove_file(&file).unwrap();
    wait_for(&group, node, "repaired", || group.events_with(node, "Q-1171") == 1);
    assert_eq!(payload(&file), good);
    finish(group, &caller);
}

/// Nothing is scrubbed here: it is the node that catches up for which the file cannot be read, and that is said and mended.
#[test]
fn k11_what_cannot_be_read_for_a_node_that_catches_up_is_named_and_repaired_p() {
    let set = [SMALL, &["scrub.interval_s=0"]].concat();
    let (mut group, caller) = grown(3, &set);
    let leader = role(&group, "leader");
    let (blank, source) = ((leader + 1) % 3, (leader + 2) % 3);
    let file = segment(&group, source, 1);
    let good = payload(&file);
    group.kill(blank);
    fs::remove_dir_all(group.data(blank)).unwrap();
    fs::remove_dir_all(group.hot(blank)).unwrap();
    fs::remove_file(&file).unwrap();
    group.start_node(blank);
    wait_for(&group, source, "repaired", || group.events_with(source, "Q-1171") == 1);
    assert_eq!(payload(&file), good);
    group.settle();
    finish(group, &caller);
}

/// Nobody else is there: it is named, with what is missing, and the node goes on with what it has.
#[test]
fn d17_a_group_of_one_names_what_it_cannot_have_back_p() {
    let (group, caller) = grown(1, &eager());
    flip(&segment(&group, 0, 1), 60_000);
    wait_for(&group, 0, "named", || group.events_with(0, "Q-1172") >= 1);
    assert!(group.events_with(0, "Q-1170") == 1 && group.events_with(0, "Q-1171") == 0);
    let scrub = group.status(0).unwrap()["scrub"].clone();
    assert_eq!(scrub["flawed_files"], 1, "{scrub}");
    flip(&segment(&group, 0, 1), 60_000);
    finish(group, &caller);
}

#[test]
fn r14_a_snapshot_that_rots_is_kept_aside_and_another_one_is_taken_p() {
    let (group, caller) = grown(3, &eager());
    assert!(group.run(1, "snapshot", &["--json"]).status.success());
    let folder = group.data(1).join("snapshots");
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    flip(&file, PAGE + 20);
    wait_for(&group, 1, "refused", || group.events_with(1, "Q-1131") == 1);
    wait_for(&group, 1, "taken again", || group.events_with(1, "Q-1130") == 2);
    let kept = group.data(1).join("quarantine").join(file.file_name().unwrap());
    assert!(kept.exists(), "{}", group.events(1));
    finish(group, &caller);
}

/// Damage in the middle of the log, and in the file in which it ends, of a node that does not run: it asks the others before it
/// starts, and neither cuts nor forgets anything.
#[test]
fn r13_a_node_that_starts_with_damage_is_repaired_by_the_others_first_p() {
    let (mut group, caller) = grown(3, &eager());
    let node = role(&group, "follower");
    for with_memory in [true, false] {
        let tail = group.status(node).unwrap()["positions"]["tail"].as_u64().unwrap();
        group.stop(node);
        let sealed = segment(&group, node, 1);
        let good = payload(&sealed);
        flip(&sealed, 60_000);
        if !with_memory {
            fs::remove_dir_all(group.hot(node)).unwrap();
            let last = segment(&group, node, tail / SEGMENT);
            flip(&last, PAGE + tail % SEGMENT / 2);
        }
        let repaired = group.events_with(node, "Q-1171");
        group.start_node(node);
        group.settle();
        assert!(group.events_with(node, "Q-1171") > repaired, "{}", group.events(node));
        assert_eq!(payload(&sealed), good);
    }
    finish(group, &caller);
}

/// A missing file, and one of which only the first half is there.
#[test]
fn r13_a_node_that_starts_without_one_of_its_files_gets_it_back_first_p() {
    let (mut group, caller) = grown(3, &eager());
    let node = role(&group, "follower");
    group.kill(node);
    let (gone, short) = (segment(&group, node, 1), segment(&group, node, 3));
    let good = (payload(&gone), payload(&short));
    fs::remove_file(&gone).unwrap();
    OpenOptions::new().write(true).open(&short).unwrap().set_len(60_000).unwrap();
    group.start_node(node);
    group.settle();
    assert_eq!((payload(&gone), payload(&short)), good);
    finish(group, &caller);
}

/// Two files that adjoin: neither says what the other must begin or end with. While the node runs, and before it starts.
#[test]
fn g131_files_that_adjoin_are_had_back_together_p() {
    let (mut group, caller) = grown(3, &eager());
    let node = role(&group, "follower");
    let files = [1, 2].map(|number| segment(&group, node, number));
    let good = files.each_ref().map(payload);
    for running in [true, false] {
        let repaired = group.events_with(node, "Q-1171");
        if !running {
            group.kill(node);
        }
        for file in &files {
            fs::remove_file(file).unwrap();
        }
        if !running {
            group.start_node(node);
        }
        wait_for(&group, node, "repaired", || group.events_with(node, "Q-1171") >= repaired + 2);
        group.settle();
        assert!(files.each_ref().map(payload) == good, "running: {running}");
    }
    finish(group, &caller);
}

#[test]
fn r13_a_node_that_nobody_can_help_refuses_by_name_and_changes_nothing_p() {
    let (mut group, _caller) = grown(1, &eager());
    group.stop(0);
    let file = segment(&group, 0, 0); // far below what memory may still hold, from which a start repairs
    flip(&file, 60_000);
    let damaged = payload(&file);
    group.start_node(0);
    assert_eq!(group.wait_end(0).code(), Some(3));
    let told = group.told(0);
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(told.contains("damaged where it was durable") && told.contains(&name), "{told}");
    assert_eq!(payload(&file), damaged);
    flip(&file, 60_000);
    group.start_node(0);
    group.settle();
    group.stop_all();
}

#[test]
fn r15_scrub_interval_s() {
    // 0: nothing is read by itself.
    let set = [SMALL, &["scrub.interval_s=0"]].concat();
    let (mut group, _) = grown(1, &set);
    flip(&segment(&group, 0, 1), 60_000);
    std::thread::sleep(Duration::from_millis(2_500));
    let scrub: Value = group.status(0).unwrap()["scrub"].clone();
    assert!(scrub["rounds"] == 0 && scrub["last_round"].is_null(), "{scrub}");
    flip(&segment(&group, 0, 1), 60_000);
    group.stop_all();
    drop(group);
    let (mut group, _) = grown(1, &eager());
    wait_for(&group, 0, "rounds", || {
        group.status(0).is_some_and(|s| s["scrub"]["rounds"].as_u64() >= Some(2))
    });
    group.stop_all();
}

#[test]
fn r15_scrub_bytes_per_second() {
    let set = [SMALL, &["scrub.interval_s=1", "scrub.bytes_per_second=128KiB"]].concat();
    let (mut group, _) = grown(1, &set);
    let log = group.status(0).unwrap()["positions"]["commit"].as_u64().unwrap();
    wait_for(&group, 0, "a round", || {
        group.status(0).is_some_and(|status| !status["scrub"]["last_round"].is_null())
    });
    let round = group.status(0).unwrap()["scrub"]["last_round"].clone();
    let (bytes, took_ms) = (round["bytes"].as_u64().unwrap(), round["took_ms"].as_u64().unwrap());
    assert!(bytes >= log, "{round}");
    // The last piece is read, and then waited for.
    assert!(took_ms >= (log - 256 * 1024) * 1000 / (128 * 1024), "{round}");
    group.stop_all();
}

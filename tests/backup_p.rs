//! Backups of real nodes: taken under load while segments leave, checked, cut short, damaged, and restored, for a node of the
//! same group and as a group of its own.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use group::{CALM, Caller, Group, PATIENCE, SMALL, err, numbered, out, quorate};
use quorate::client::Outcome;
use quorate::io::log_reader::{LogReader, ReadOptions, Tiers};
use serde_json::Value;

/// Bytes of a segment of [`SMALL`].
const SEGMENT: u64 = 131_072;

/// Snapshots and segments come and go quickly.
const QUICK: &[&str] = &[
    "snapshot.interval_bytes=262144",
    "snapshot.bytes_per_second=1 GiB",
    "retention.size_bytes=524288",
    "retention.member_bytes=524288",
    "group.state_hash_interval=16",
];

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}{}", out(output), err(output));
    serde_json::from_str(out(output).lines().last().unwrap()).unwrap()
}

/// `quorate backup` of a node, to its end.
fn backup(group: &Group, node: usize, to: &Path) -> Value {
    json(&group.run(node, "backup", &["--json", "--to", to.to_str().unwrap()]))
}

/// `quorate backup` of a node, so slow that much happens meanwhile.
fn slow_backup(group: &Group, node: usize, to: &Path) -> Child {
    let mut command = quorate();
    command.args(["backup", "--json", "--bytes-per-second", "200000", "--config"]);
    command.arg(&group.nodes[node].file).arg("--to").arg(to);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn restore(group: &Group, node: usize, from: &Path, more: &[&str]) -> Output {
    let from = ["--json", "--from", from.to_str().unwrap()];
    group.run(node, "restore", &[&from, more].concat())
}

fn verify(path: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-log"));
    command.args(["verify", "--json"]).arg(path).output().unwrap()
}

fn assert_good(path: &Path) -> Value {
    let verified = json(&verify(path));
    assert_eq!(verified["verdict"], "good", "{verified}");
    verified
}

/// Bases of the segment files in a folder, lowest first.
fn first(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let base = |name: String| u64::from_str_radix(name.strip_suffix(".qlog")?, 16).ok();
    names.filter_map(base).min().unwrap_or(u64::MAX)
}

/// Base of the last segment file of a node that was not prepared alone.
fn last(folder: &Path) -> u64 {
    let options = ReadOptions { uncommitted: true, tiers: Tiers::Durable };
    let reader = LogReader::open(folder, options).unwrap();
    let entered = reader.segments().iter().filter(|segment| segment.header.is_ok());
    entered.map(|segment| segment.base.0).max().unwrap_or(0)
}

fn grow(group: &mut Group, caller: &mut Caller, segments: u64) {
    group.load(caller, segments * SEGMENT / 2000, 2000);
}

/// A directory is lost, and its memory with it.
fn lose(group: &Group, node: usize) {
    fs::remove_dir_all(group.data(node)).unwrap();
    let _ = fs::remove_dir_all(group.hot(node));
}

/// All are at the same place with the same state, after some more commands.
fn agree(group: &mut Group) -> Vec<Value> {
    group.settle();
    let mut late = group.client("late");
    group.load(&mut late, 64, 100);
    late.close();
    let statuses = group.settle();
    for status in &statuses[1..] {
        assert_eq!(status["state_hash"], statuses[0]["state_hash"], "{statuses:#?}");
    }
    statuses
}

#[test]
fn g110_a_backup_under_load_while_segments_leave_brings_a_lost_node_back_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM, QUICK].concat());
    let mut caller = group.client("load");
    grow(&mut group, &mut caller, 8);
    for _ in 0..2 {
        grow(&mut group, &mut caller, 2);
        assert!(group.run(1, "snapshot", &[]).status.success());
    }
    let to = group.path().join("monday");
    let mut process = slow_backup(&group, 1, &to);
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        grow(&mut group, &mut caller, 3);
        assert!(group.run(1, "snapshot", &[]).status.success());
        if process.try_wait().unwrap().is_some() {
            break process.wait_with_output().unwrap();
        }
        assert!(Instant::now() < deadline, "the backup does not end");
    };
    let taken = json(&ended);
    let verified = assert_good(&to);
    assert_eq!((&verified["to"], &verified["from"]), (&taken["position"], &taken["first"]));
    assert_eq!(taken["snapshots"].as_array().unwrap().len(), 2, "{taken}");
    let begins = taken["first"].as_u64().unwrap();
    wait("its first segment has left the node", || first(group.data(1)) > begins);
    // The same into the same place is refused, and changes nothing.
    let again = group.run(1, "backup", &["--to", to.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2), "{}", err(&again));
    assert_good(&to);

    group.kill(2);
    lose(&group, 2);
    let done = json(&restore(&group, 2, &to, &[]));
    assert_eq!(done["sequence"], taken["sequence"]);
    let names: Vec<_> = fs::read_dir(group.data(2)).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!names.iter().any(|name| name.ends_with("node.state")), "{names:?}");
    let full = restore(&group, 2, &to, &[]);
    assert_eq!(full.status.code(), Some(2), "{}", err(&full));
    group.start_node(2);
    agree(&mut group);
    assert!(group.told(2).contains("provisional=true"), "{}", group.told(2));
    assert!(group.told(2).contains("state_missing=true"), "{}", group.told(2));
    group.wait_until("it is a voter", |statuses| statuses[2]["standing"] == "voter");
    caller.drain();
    caller.assert_all_applied();
    group.stop_all();
}

fn wait(what: &str, until: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !until() {
        assert!(Instant::now() < deadline, "waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn leader(group: &mut Group) -> usize {
    let statuses = group.wait_until("one leads and the others follow it", |statuses| {
        statuses.iter().any(|status| status["role"] == "leader" && status["quorum"] == true)
            && statuses.iter().all(|status| status["leader"] == statuses[0]["leader"])
    });
    statuses[0]["leader"].as_u64().unwrap() as usize
}

/// Stops a process where it is, and waits until none of its threads runs any more.
fn stand_still(group: &Group, node: usize) {
    group.signal(node, "STOP");
    let tasks = format!("/proc/{}/task", group.process(node));
    wait("it stands still", || {
        fs::read_dir(&tasks).unwrap().all(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        })
    });
}

/// A client that has commands applied whose replies it never got, kept as `quorate send --session` keeps them.
fn give_up(group: &mut Group, session: &Path) {
    let lead = leader(group);
    group.settle();
    let followers: Vec<_> = (0..3).filter(|node| *node != lead).collect();
    let mut caller = group.client("gives up");
    caller.call(b"first");
    for node in &followers {
        stand_still(group, *node);
    }
    let late = ["late 0", "late 1", "late 2"];
    for command in late {
        caller.send(command.as_bytes());
    }
    (0..20).for_each(|_| caller.turn());
    let mut unknown = 0;
    caller.host.client.give_up(|answer| unknown += u32::from(answer.outcome == Outcome::Unknown));
    assert_eq!(unknown, 3);
    let mut kept = format!("{}\n", caller.host.client.ticket().expect("the session is open"));
    for command in late {
        command.bytes().for_each(|byte| write!(kept, "{byte:02x}").unwrap());
        kept.push('\n');
    }
    fs::write(session, kept).unwrap();
    for node in &followers {
        group.signal(*node, "CONT");
    }
}

/// Answers to what was sent again: number and sequence of each.
fn ask_again(group: &Group, session: &Path) -> Vec<(u64, u64)> {
    let session = session.to_str().unwrap();
    let asked = group.run(0, "send", &["--json", "--input", "/dev/null", "--session", session]);
    assert_eq!(asked.status.code(), Some(0), "{}{}", out(&asked), err(&asked));
    let mut answers = Vec::new();
    for line in out(&asked).lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        assert_eq!(answer["outcome"], "applied", "{answer}");
        let place = answers.len();
        assert!(answer.to_string().contains(&format!("late {place}")), "{answer}");
        answers.push((answer["request"].as_u64().unwrap(), answer["sequence"].as_u64().unwrap()));
    }
    answers
}

fn send_orders(group: &Group, ids: std::ops::Range<u32>) {
    let order = |id| format!("new buy {} @ {} id {id}\n", 1 + id % 7, 100 + id % 9);
    let file = group.path().join("orders");
    fs::write(&file, ids.map(order).collect::<String>()).unwrap();
    let sent = group.run(0, "send", &["--input", file.to_str().unwrap()]);
    assert!(sent.status.success(), "{}{}", out(&sent), err(&sent));
}

fn identity(group: &Group) -> String {
    format!("{:016x}", group.nodes[0].settings.group.id.0)
}

#[test]
fn g108_a_backup_becomes_a_group_of_its_own_with_the_state_and_the_replies_it_had_p() {
    let settings = [SMALL, CALM].concat();
    let mut old = Group::start(3, "book", &settings);
    // Led more than once: the new group's terms are above those of the log.
    for _ in 0..2 {
        old.settle();
        let lead = leader(&mut old);
        assert!(old.run(lead, "step-down", &[]).status.success());
    }
    send_orders(&old, 1..60);
    let statuses = old.settle();
    let snapshot = json(&old.run(0, "snapshot", &["--json"]));
    assert_eq!(snapshot["sequence"], statuses[0]["sequence"]);
    let to = old.path().join("book");
    let taken = backup(&old, 0, &to);
    assert_eq!(taken["sequence"], statuses[0]["sequence"], "{taken}");
    old.stop_all();
    // Also of a node that is stopped, and it is the same.
    let stopped = backup(&old, 1, &old.path().join("stopped"));
    assert!(stopped["sequence"].as_u64() >= taken["sequence"].as_u64(), "{stopped}");

    let new = Group::found(3, "book", &settings);
    let as_new = ["--as-new-group", &identity(&new)];
    for node in 0..3 {
        let plain = restore(&new, node, &to, &[]);
        assert_eq!(plain.status.code(), Some(2));
        assert!(err(&plain).contains("--as-new-group"), "{}", err(&plain));
        let done = json(&restore(&new, node, &to, &as_new));
        assert_eq!(
            (&done["group"], &done["of_group"]),
            (&Value::from(identity(&new)), &taken["group"])
        );
    }
    let mut new = new.start_all();
    let statuses = new.settle();
    for status in &statuses {
        assert_eq!(status["state_hash"], statuses[0]["state_hash"]);
        let newest = &status["snapshot"]["newest"];
        assert_eq!(newest["state_hash"], snapshot["state_hash"], "the state is what it was there");
        assert_eq!(newest["sequence"], snapshot["sequence"]);
    }
    send_orders(&new, 60..100);
    new.settle();
    new.stop_all();
    let log = new.replay_all();
    assert!(log.sequence.0 > taken["sequence"].as_u64().unwrap());
}

#[test]
fn g110_what_was_decided_before_the_backup_is_answered_by_the_new_group_as_it_was_p() {
    let settings = [SMALL, CALM, &["timing.session_timeout_min_ms=60000"]].concat();
    let mut old = Group::start(3, "echo", &settings);
    let mut caller = old.client("load");
    old.load(&mut caller, 100, 500);
    let session = old.path().join("session");
    give_up(&mut old, &session);
    old.settle();
    assert!(old.run(2, "snapshot", &[]).status.success());
    let to = old.path().join("echo");
    let taken = backup(&old, 2, &to);
    old.settle();
    let kept = fs::read(&session).unwrap();
    let answers = ask_again(&old, &session);
    assert_eq!(answers.len(), 3);
    let end = taken["sequence"].as_u64().unwrap();
    assert!(answers.iter().all(|(_, sequence)| *sequence <= end), "{answers:?} {end}");
    old.stop_all();

    let new = Group::found(3, "echo", &settings);
    let as_new = ["--as-new-group", &identity(&new)];
    // One node is restored, the others are blank and take it over.
    json(&restore(&new, 1, &to, &as_new));
    let mut new = new.start_all();
    new.settle();
    fs::write(&session, kept).unwrap();
    assert_eq!(ask_again(&new, &session), answers, "decided once, at the same places");
    caller.assert_all_applied();
    // A node of the old group in the new one's place is listened to by nobody.
    new.stop(2);
    lose(&new, 2);
    let old_identity = format!("group.id={}", identity(&old));
    new.start_node_with(2, &[&old_identity]);
    new.wait_until("it is refused", |statuses| {
        statuses[0]["control_dropped"]["group"].as_u64() > Some(0)
            && statuses[1]["control_dropped"]["group"].as_u64() > Some(0)
    });
    assert_eq!(new.status(2).unwrap()["role"], "none");
    new.kill(2);
    // Nor does it start on the new group's log.
    lose(&new, 2);
    json(&restore(&new, 2, &to, &as_new));
    new.start_node_with(2, &[&old_identity]);
    let ended = new.wait_end(2);
    assert_eq!(ended.code(), Some(3));
    assert!(new.told(2).contains("of group"), "{}", new.told(2));
    new.stop_all();
}

#[test]
fn g108_blank_nodes_of_a_restored_group_take_its_log_also_when_they_are_cut_short_p() {
    // Nothing of the log leaves, and there is no snapshot: all of it is taken, at a mebibyte a second.
    let whole = [
        "snapshot.interval_bytes=0",
        "catch_up.bytes_per_second=1 MiB",
        "group.state_hash_interval=16",
    ];
    let settings = [SMALL, CALM, &whole].concat();
    let mut old = Group::start(1, "echo", &settings);
    let mut caller = old.client("load");
    for _ in 0..2 {
        grow(&mut old, &mut caller, 12);
        old.kill(0);
        old.start_node(0);
        old.settle();
    }
    let to = old.path().join("old");
    let taken = backup(&old, 0, &to);
    let end = taken["position"].as_u64().unwrap();
    old.stop_all();

    let mut new = Group::found(3, "echo", &settings);
    json(&restore(&new, 0, &to, &["--as-new-group", &identity(&new)]));
    (0..3).for_each(|node| new.start_node(node));
    let has = |new: &Group| {
        let status = new.status(2);
        status.and_then(|status| status["positions"]["durable"].as_u64()).unwrap_or(0)
    };
    loop {
        wait("some of it is taken", || has(&new) > end / 8);
        new.kill(2);
        // What is on its disk now is where it goes on; a busy host may have looked too late.
        if last(new.data(2)) < end - SEGMENT {
            break;
        }
        lose(&new, 2);
        new.start_node(2);
    }
    new.start_node(2);
    agree(&mut new);
    assert!(new.events_with(2, "Q-1119") > 0, "{}", new.told(2));
    assert_eq!(new.events_with(2, "Q-1153"), 0, "it had no need of a snapshot");
    new.stop_all();
    new.replay_all();
}

/// What is there of a backup that is being written.
fn partial(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap().to_owned();
    name.push(".partial");
    to.with_file_name(name)
}

#[test]
fn g110_a_backup_that_is_killed_leaves_nothing_that_looks_like_one_p() {
    let mut group = Group::start(1, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    grow(&mut group, &mut caller, 6);
    group.settle();
    let to = group.path().join("backup");
    for pieces in [1, 3] {
        let mut process = slow_backup(&group, 0, &to);
        let enough = || {
            let entries = fs::read_dir(partial(&to)).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().to_string_lossy().ends_with("log")).count()
                >= pieces
        };
        wait("something is copied", enough);
        process.kill().unwrap();
        process.wait().unwrap();
        assert!(!to.exists());
        let mut fresh = Group::found(1, "echo", SMALL);
        let refused = restore(&fresh, 0, &partial(&to), &[]);
        assert_eq!(refused.status.code(), Some(2), "{}", err(&refused));
        assert!(err(&refused).contains("cut short"), "{}", err(&refused));
        fresh.stop_all();
    }
    backup(&group, 0, &to);
    assert!(!partial(&to).exists());
    assert_good(&to);
    group.stop_all();
}

#[test]
fn g110_a_damaged_backup_is_refused_by_name_and_nothing_is_written_p() {
    let mut group = Group::start(1, "echo", &[SMALL, CALM].concat());
    let nothing = Group::found(1, "echo", SMALL);
    let refused =
        nothing.run(0, "backup", &["--to", nothing.path().join("none").to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(3), "no directory: {}", err(&refused));
    let mut caller = group.client("load");
    grow(&mut group, &mut caller, 3);
    group.settle();
    assert!(group.run(0, "snapshot", &[]).status.success());
    let to = group.path().join("backup");
    backup(&group, 0, &to);
    group.stop_all();
    lose(&group, 0);
    let segment = to.join("0000000000020000.qlog");
    let snapshot = fs::read_dir(to.join("snapshots")).unwrap().next().unwrap().unwrap().path();
    for damaged in [segment, snapshot] {
        let good = fs::read(&damaged).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 4;
        fs::write(&damaged, &bad).unwrap();
        let name = damaged.file_name().unwrap().to_str().unwrap();
        let found = verify(&to);
        assert_eq!(found.status.code(), Some(3), "{}", err(&found));
        assert!(out(&found).contains(name), "{}", out(&found));
        let refused = restore(&group, 0, &to, &[]);
        assert_eq!(refused.status.code(), Some(3));
        assert!(err(&refused).contains(name), "{}", err(&refused));
        let left: Vec<_> = fs::read_dir(group.data(0)).unwrap().collect();
        assert_eq!(left.len(), 1, "the lock alone: {left:?}");
        fs::write(&damaged, good).unwrap();
    }
    fs::write(to.join("notes"), "").unwrap();
    assert_eq!(verify(&to).status.code(), Some(1), "a file that is not part of it");
    fs::remove_file(to.join("notes")).unwrap();
    // A restore that is killed is no log: the node says so and does not start; the next restore goes on.
    let mut slow = quorate();
    slow.args(["restore", "--bytes-per-second", "200000", "--config"]);
    slow.arg(&group.nodes[0].file).arg("--from").arg(&to);
    let mut process = slow.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let data = group.data(0).to_owned();
    wait("a segment is there", || first(&data) == 0);
    process.kill().unwrap();
    process.wait().unwrap();
    group.start_node(0);
    assert_eq!(group.wait_end(0).code(), Some(3));
    assert!(group.told(0).contains("run `quorate restore` again"), "{}", group.told(0));
    json(&restore(&group, 0, &to, &[]));
    group.start_node(0);
    group.settle();
    let mut late = group.client("late");
    assert_eq!(late.call(&numbered(1, 9)).reply, numbered(1, 9));
    group.stop_all();
    caller.assert_all_applied();
    let log = group.replay_all();
    log.assert_holds(&caller);
}

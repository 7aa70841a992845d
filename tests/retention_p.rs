//! Segments that leave real nodes by themselves, and nodes that were away longer than the log reaches back: they come back
//! with a snapshot of another node, and the log from there on.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use group::{CALM, Caller, Done, Group, PATIENCE, SMALL, err, numbered, out};
use quorate::frame::Kind;
use quorate::frame::payload::CommandPrefix;
use quorate::io::log_reader::{LogReader, ReadOptions};
use quorate::runtime::ConnectOptions;
use quorate::types::{ClientSequence, Nanos, SessionId};
use serde_json::Value;
use zerocopy::FromBytes;

/// Bytes of a segment of [`SMALL`], and of its file.
const SEGMENT: u64 = 131_072;

/// Snapshots and segments come and go quickly.
const QUICK: &[&str] = &[
    "snapshot.interval_bytes=262144",
    "snapshot.bytes_per_second=1 GiB",
    "retention.size_bytes=524288",
    "group.state_hash_interval=16",
];

fn settings<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [SMALL, CALM, QUICK, more].concat()
}

/// Bases of the segment files in a folder, lowest first.
fn bases(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let base = |name: String| u64::from_str_radix(name.strip_suffix(".qlog")?, 16).ok();
    let mut bases: Vec<_> = names.filter_map(base).collect();
    bases.sort_unstable();
    bases
}

fn first(group: &Group, node: usize) -> u64 {
    bases(group.data(node))[0]
}

fn wait(group: &Group, what: &str, mut until: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !until() {
        let told: String = (0..group.nodes.len()).map(|node| group.told(node)).collect();
        assert!(Instant::now() < deadline, "waiting until {what}\n{told}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Commands until the log has grown by so many segments.
fn grow(group: &mut Group, caller: &mut Caller, segments: u64) {
    group.load(caller, segments * SEGMENT / 2000, 2000);
}

#[test]
fn a10_the_disk_holds_no_more_than_the_limit_and_a_restart_is_what_it_was_p() {
    let mut group = Group::start(3, "echo", &settings(&[]));
    let mut caller = group.client("one");
    let first_reply = caller.call(&numbered(1, 100));
    for _ in 0..8 {
        grow(&mut group, &mut caller, 6);
        // Back to the older of two snapshots, one for each of these rounds; and what is made ahead.
        for node in 0..3 {
            assert!(group.run(node, "snapshot", &[]).status.success());
            wait(&group, "what may leave has left", || bases(group.data(node)).len() <= 12);
        }
    }
    let statuses = group.settle();
    for (node, status) in statuses.iter().enumerate() {
        let reported = status["retention"]["first"].as_u64().unwrap();
        assert!(reported >= 30 * SEGMENT, "{status}");
        assert!(group.events_with(node, "Q-1150") > 0);
        assert_eq!(status["retention"]["snapshots"].as_array().unwrap().len(), 2);
    }
    group.kill(1);
    group.start_node(1);
    group.stop(2);
    group.start_node(2);
    group.settle();
    let mut late = group.client("two");
    group.load(&mut late, 100, 100);
    let statuses = group.settle();
    assert_eq!(statuses[1]["state_hash"], statuses[0]["state_hash"]);
    assert_eq!(statuses[2]["state_hash"], statuses[0]["state_hash"]);
    assert_eq!(first_reply.reply, numbered(1, 100));
    caller.assert_all_applied();
    // What reads logs begins where the log does.
    group.stop_all();
    let log = quorate_log(&["verify", group.data(0).to_str().unwrap()]);
    assert!(log.status.success(), "{}{}", out(&log), err(&log));
    for node in 0..3 {
        group.start_node(node);
    }
    group.settle();
    group.stop_all();
}

/// `quorate-log`.
fn quorate_log(args: &[&str]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_quorate-log")).args(args).output().unwrap()
}

#[test]
fn r15_retention_size_bytes() {
    // 0: the size is no reason.
    let set = [SMALL, CALM, &QUICK[..2], &["retention.size_bytes=0"]].concat();
    let mut group = Group::start(1, "echo", &set);
    let mut caller = group.client("one");
    grow(&mut group, &mut caller, 12);
    wait(&group, "it has looked", || {
        let status = group.status(0).unwrap();
        status["retention"]["snapshots"].as_array().is_some_and(|all| all.len() == 2)
    });
    assert_eq!((first(&group, 0), group.events_with(0, "Q-1150")), (0, 0));
    let status = group.status(0).unwrap();
    assert_eq!(status["retention"]["pinned_by"], "limits", "{status}");
    group.stop_all();
    group.start_node_with(0, &["retention.size_bytes=524288"]);
    wait(&group, "the oldest have left", || first(&group, 0) > 0);
    group.stop_all();
}

#[test]
fn r15_retention_age_s() {
    let set = [SMALL, CALM, &QUICK[..2], &["retention.size_bytes=0"]].concat();
    let mut group = Group::start(1, "echo", &set);
    let mut caller = group.client("one");
    for _ in 0..2 {
        grow(&mut group, &mut caller, 4);
        assert!(group.run(0, "snapshot", &[]).status.success());
    }
    group.stop_all();
    group.start_node_with(0, &["retention.age_s=3600"]);
    wait(&group, "it has looked", || {
        group.status(0).is_some_and(|status| status["retention"]["pinned_by"] == "limits")
    });
    assert_eq!(first(&group, 0), 0, "nothing is an hour old");
    group.stop_all();
    std::thread::sleep(Duration::from_millis(1100));
    group.start_node_with(0, &["retention.age_s=1"]);
    wait(&group, "the oldest have left", || first(&group, 0) > 0);
    group.stop_all();
}

#[test]
fn r15_retention_member_bytes() {
    let mut group = Group::start(3, "echo", &settings(&["retention.member_bytes=2097152"]));
    let mut caller = group.client("one");
    grow(&mut group, &mut caller, 2);
    let away = group.settle()[2]["positions"]["durable"].as_u64().unwrap();
    group.kill(2);
    grow(&mut group, &mut caller, 10);
    group.wait_until("the log is kept for it", |statuses| {
        statuses.iter().all(|status| status["retention"]["member"] == 2)
    });
    assert!(first(&group, 0) <= away);
    grow(&mut group, &mut caller, 12);
    wait(&group, "it is worth no more", || first(&group, 0) > away && first(&group, 1) > away);
    group.stop_all();
}

#[test]
fn r15_retention_archive_dir() {
    let mut group = Group::found(1, "echo", &settings(&[]));
    let archive = group.path().join("archive");
    // A file is in the way of the folder.
    fs::write(&archive, "").unwrap();
    let set = format!("retention.archive_dir={}", archive.display());
    group.start_node_with(0, &[&set]);
    group.settle();
    let mut caller = group.client("one");
    grow(&mut group, &mut caller, 10);
    wait(&group, "it is told that nothing is archived", || group.events_with(0, "Q-1151") > 0);
    assert_eq!((first(&group, 0), group.events_with(0, "Q-1150")), (0, 0));
    let oldest = fs::read(group.data(0).join("0000000000000000.qlog")).unwrap();
    fs::remove_file(&archive).unwrap();
    wait(&group, "the oldest have left", || first(&group, 0) > 0);
    let left = first(&group, 0);
    let kept = bases(&archive);
    assert_eq!(kept, (0..kept.len() as u64).map(|n| n * SEGMENT).collect::<Vec<_>>());
    assert!(kept.len() as u64 * SEGMENT >= left, "each of them was archived");
    assert_eq!(fs::read(archive.join("0000000000000000.qlog")).unwrap(), oldest);
    group.stop_all();
}

/// Loads until the oldest that any running node has of its log is above `position`.
fn leave_behind(group: &mut Group, caller: &mut Caller, position: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        grow(group, caller, 3);
        let running: Vec<_> = group.runs().collect();
        for &node in &running {
            assert!(group.run(node, "snapshot", &[]).status.success());
        }
        std::thread::sleep(Duration::from_millis(600)); // it looks every half second
        if running.iter().all(|&node| first(group, node) > position) {
            return;
        }
        assert!(Instant::now() < deadline, "nothing leaves: {:?}", group.status(running[0]));
    }
}

/// All nodes are at the same place with the same state, after some more commands.
fn agree(group: &mut Group) {
    group.settle();
    let mut late = group.client("late");
    group.load(&mut late, 64, 100);
    late.close();
    let statuses = group.settle();
    for status in &statuses[1..] {
        assert_eq!(status["state_hash"], statuses[0]["state_hash"], "{statuses:#?}");
        assert_ne!(status["state_hash"], "0000000000000000");
    }
}

#[test]
fn r6_a_node_that_was_away_longer_than_the_log_reaches_comes_back_with_a_snapshot_p() {
    let set = settings(&["retention.member_bytes=524288"]);
    let mut group = Group::start(3, "echo", &set);
    let mut caller = group.client("one");
    grow(&mut group, &mut caller, 2);
    let away = group.settle()[2]["positions"]["durable"].as_u64().unwrap();
    group.kill(2);
    leave_behind(&mut group, &mut caller, away + SEGMENT);
    group.start_node(2);
    agree(&mut group);
    assert!(first(&group, 2) > away, "its log begins anew");
    assert_eq!(group.events_with(2, "Q-1153"), 1, "{}", group.told(2));
    assert_eq!(group.events_with(2, "Q-1154"), 1, "{}", group.told(2));
    caller.assert_all_applied();
    // It is a voter like any other: it carries the group with one of the others.
    group.wait_until("it is a voter", |statuses| statuses[2]["standing"] == "voter");
    group.stop(1);
    agree(&mut group);
    group.start_node(1);
    agree(&mut group);
    group.stop_all();
}

#[test]
fn a_blank_node_joins_with_nothing_but_its_configuration_though_the_logs_beginning_is_gone_p() {
    let set = settings(&["retention.member_bytes=524288"]);
    let mut group = Group::start(3, "echo", &set);
    let mut caller = group.client("one");
    grow(&mut group, &mut caller, 2);
    group.kill(1);
    fs::remove_dir_all(group.data(1)).unwrap();
    fs::remove_dir_all(group.hot(1)).unwrap();
    leave_behind(&mut group, &mut caller, 3 * SEGMENT);
    group.start_node(1);
    agree(&mut group);
    assert!(first(&group, 1) > 0);
    caller.assert_all_applied();
    group.wait_until("it is a voter", |statuses| statuses[1]["standing"] == "voter");
    group.stop_all();
}

#[test]
fn r14_a_damaged_snapshot_is_not_taken_from_another_node_p() {
    let set = settings(&["retention.member_bytes=524288"]);
    let mut group = Group::start(3, "echo", &set);
    let mut caller = group.client("one");
    grow(&mut group, &mut caller, 2);
    let away = group.settle()[2]["positions"]["durable"].as_u64().unwrap();
    group.kill(2);
    leave_behind(&mut group, &mut caller, away + SEGMENT);
    // The newest of both others rots: an older one is as good.
    for node in 0..2 {
        let folder = group.data(node).join("snapshots");
        let mut files: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let newest = files.pop().unwrap();
        let mut bytes = fs::read(&newest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&newest, bytes).unwrap();
    }
    group.start_node(2);
    agree(&mut group);
    assert!(group.told(2).contains("its snapshot is damaged"), "{}", group.told(2));
    assert_eq!(group.events_with(2, "Q-1154"), 1, "{}", group.told(2));
    caller.assert_all_applied();
    group.stop_all();
}

/// A client that has all its answers, has not said that it has the last three, and is gone: the commands, what it was told,
/// and what another one needs to send them again.
fn gone_client(group: &Group) -> (Vec<String>, Vec<(ClientSequence, Done)>, SessionId, String) {
    let mut options = ConnectOptions::of(&group.nodes[0].settings, "gone");
    (options.faults, options.session_timeout_ns) = (None, 60 * Nanos::SECOND);
    let mut gone = Caller::with(options);
    gone.load(20, 64);
    let commands: Vec<_> = (0..3).map(|number| format!("old command {number}")).collect();
    for command in &commands {
        gone.send(command.as_bytes());
    }
    let ticket = gone.host.client.ticket().unwrap().to_string();
    gone.drain();
    gone.assert_all_applied();
    let told = gone.done.iter().skip(20).map(|(number, done)| (*number, done.clone()));
    (commands, told.collect(), gone.session(), ticket)
}

/// Another client goes on with that session, through one node, and sends the commands again.
fn send_again(group: &Group, node: usize, ticket: &str, commands: &[String]) -> Vec<Value> {
    let mut kept = format!("{ticket}\n");
    for command in commands {
        for byte in command.bytes() {
            write!(kept, "{byte:02x}").unwrap();
        }
        kept.push('\n');
    }
    let file = group.path().join("session");
    fs::write(&file, kept).unwrap();
    let session = file.to_str().unwrap();
    let sent = group.run(node, "send", &["--json", "--input", "/dev/null", "--session", session]);
    assert!(sent.status.success(), "{}{}", out(&sent), err(&sent));
    out(&sent).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn leader(group: &mut Group) -> u64 {
    let statuses = group.wait_until("one leads and the others follow it", |statuses| {
        statuses.iter().any(|status| status["role"] == "leader" && status["quorum"] == true)
            && statuses.iter().all(|status| status["leader"] == statuses[0]["leader"])
    });
    statuses[0]["leader"].as_u64().unwrap()
}

fn lead_with(group: &mut Group, node: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut told = String::new();
    while leader(group) != node as u64 {
        assert!(Instant::now() < deadline, "{told}");
        let from = leader(group) as usize;
        told = err(&group.run(from, "transfer", &["--to", &node.to_string()]));
    }
}

/// Commands of a session that are in the log of a node that has stopped.
fn commands_in_the_log(group: &Group, node: usize, session: SessionId) -> Vec<ClientSequence> {
    let options = ReadOptions { uncommitted: true, ..ReadOptions::default() };
    let mut reader = LogReader::open(group.data(node), options).unwrap();
    let mut found = Vec::new();
    while let Ok(Some(frame)) = reader.next_frame() {
        if frame.header.kind() == Some(Kind::Command) {
            let (prefix, _) = CommandPrefix::read_from_prefix(frame.payload).unwrap();
            if prefix.session.get() == session.0 {
                found.push(ClientSequence(prefix.client_sequence.get()));
            }
        }
    }
    found
}

/// Neither the entries nor what came of them is in the log of this node: only in the snapshot that it took.
#[test]
fn r6_after_a_restore_a_command_that_comes_again_has_its_stored_reply_p() {
    let set = settings(&["retention.member_bytes=524288"]);
    for blank in [false, true] {
        let mut group = Group::start(3, "echo", &set);
        let (commands, told, session, ticket) = gone_client(&group);
        let away = group.settle()[2]["positions"]["durable"].as_u64().unwrap();
        group.kill(2);
        if blank {
            fs::remove_dir_all(group.data(2)).unwrap();
            fs::remove_dir_all(group.hot(2)).unwrap();
        }
        let mut caller = group.client("one");
        leave_behind(&mut group, &mut caller, away + SEGMENT);
        group.start_node(2);
        agree(&mut group);
        assert!(first(&group, 2) > away && group.events_with(2, "Q-1154") == 1);
        group.wait_until("it is a voter", |statuses| statuses[2]["standing"] == "voter");
        lead_with(&mut group, 2);
        let answers = send_again(&group, 2, &ticket, &commands);
        assert_eq!(answers.len(), told.len());
        for ((answer, (number, done)), command) in answers.iter().zip(&told).zip(&commands) {
            assert_eq!(answer["request"], number.0, "{answer}");
            assert_eq!(answer["outcome"], "applied", "{answer}");
            assert_eq!(answer["sequence"], done.sequence.0, "where it was applied then: {answer}");
            assert!(answer.to_string().contains(command), "{answer}");
            assert_eq!(done.reply, command.as_bytes());
        }
        let statuses = group.settle();
        for status in &statuses {
            assert_eq!(status["state_hash"], statuses[2]["state_hash"]);
        }
        caller.assert_all_applied();
        group.stop_all();
        assert_eq!(commands_in_the_log(&group, 2, session), [], "not logged again");
    }
}

/// It lets nothing go, and takes no snapshots.
const HOARDS: &[&str] = &["retention.size_bytes=0", "snapshot.interval_bytes=0"];

/// A group whose logs are scrubbed every second, and whose last node has a file of its log that both others have let go.
fn hoarded() -> (Group, Caller) {
    let eager = ["scrub.interval_s=1", "scrub.bytes_per_second=1GiB"];
    let mut group = Group::found(3, "echo", &settings(&eager));
    group.start_node(0);
    group.start_node(1);
    group.start_node_with(2, HOARDS);
    group.wait_until("the group is whole", |statuses| {
        statuses.iter().all(|status| status["role"] != "none")
    });
    let mut caller = group.client("one");
    let deadline = Instant::now() + PATIENCE;
    while (0..2).any(|node| first(&group, node) <= 2 * SEGMENT) {
        assert!(Instant::now() < deadline, "nothing leaves: {:?}", group.status(0));
        grow(&mut group, &mut caller, 3);
        for node in 0..2 {
            assert!(group.run(node, "snapshot", &[]).status.success());
        }
        std::thread::sleep(Duration::from_millis(600)); // it looks every half second
    }
    group.settle();
    assert_eq!(first(&group, 2), 0);
    (group, caller)
}

/// A byte of its second segment changes behind a node's back.
fn flip(group: &Group, node: usize) {
    let name = format!("{SEGMENT:016x}.qlog");
    let file = group.data(node).join(name);
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 60_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 60_000).unwrap();
}

/// The damaged file, and the one below it, have left the last node's log, which goes on, also in another process.
fn covered(mut group: Group, caller: &Caller) {
    let told = group.told(2);
    assert!(told.contains("taken from node"), "{told}");
    assert_eq!(first(&group, 2), 2 * SEGMENT, "{told}");
    assert_eq!(bases(&group.data(2).join("quarantine")), [0, SEGMENT]);
    agree(&mut group);
    group.kill(2);
    group.start_node(2);
    agree(&mut group);
    caller.assert_all_applied();
    group.stop_all();
}

#[test]
fn d17_a_damaged_file_that_all_others_have_let_go_is_covered_while_the_node_runs_p() {
    let (group, caller) = hoarded();
    flip(&group, 2);
    wait(&group, "it is covered", || group.events_with(2, "Q-1176") == 1);
    covered(group, &caller);
}

#[test]
fn d17_a_node_that_starts_with_a_damaged_file_that_all_others_have_let_go_is_covered_first_p() {
    let (mut group, caller) = hoarded();
    group.stop(2);
    flip(&group, 2);
    group.start_node_with(2, HOARDS);
    group.settle();
    assert_eq!(group.events_with(2, "Q-1176"), 1, "{}", group.told(2));
    covered(group, &caller);
}

//! Whatever is wrong with a node's surroundings gets one clear line, and costs nothing that was there.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use group::{CALM, Folder, Group, PATIENCE, SMALL, err, numbered, quorate};
use quorate::client::Outcome;
use quorate::control::constants::GroupConstants;
use quorate::control::disk::DiskState;
use quorate::control::message::{Announce, Envelope, Message, Standing};
use quorate::io::log_reader::{LogReader, ReadOptions};
use quorate::stream::datagram::{DatagramHeader, DatagramKind};
use quorate::types::{Generation, GroupId, Leadership, NodeId, Term};
use zerocopy::IntoBytes;

/// Starts a node that must refuse to start, and ends by itself.
fn refused(file: &Path, set: &[&str]) -> Output {
    let mut command = quorate();
    command.arg("node").arg("--config").arg(file);
    for pair in set {
        command.args(["--set", pair]);
    }
    let mut node = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while node.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            node.kill().unwrap();
            panic!("it runs: {}", err(&node.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = node.wait_with_output().unwrap();
    assert!(!err(&output).contains("panicked"), "{}", err(&output));
    output
}

/// It ended with this code, and said each of these, in one line.
fn assert_said(output: &Output, code: i32, words: &[&str]) {
    let text = err(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let line = text.lines().find(|line| words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "{words:?} are not in one line of: {text}");
}

#[test]
fn an_unknown_key_is_named_with_file_and_line_p() {
    let group = Group::found(3, "echo", SMALL);
    let file = &group.nodes[0].file;
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, text.replacen("[node]\n", "[node]\ncolour = \"red\"\n", 1)).unwrap();
    let line = 1 + fs::read_to_string(file)
        .unwrap()
        .lines()
        .position(|l| l.starts_with("colour"))
        .unwrap();
    let place = format!("{}:{line}", file.display());
    assert_said(&refused(file, &[]), 2, &[&place, "node.colour"]);
    let other = refused(&group.nodes[1].file, &["node.colour=red"]);
    assert_said(&other, 2, &["--set", "node.colour"]);
    let missing = refused(&group.path().join("nothing.toml"), &[]);
    assert_said(&missing, 2, &["nothing.toml"]);
}

#[test]
fn a11_a_taken_port_is_named_with_who_wanted_it_p() {
    let group = Group::found(3, "echo", SMALL);
    let own = &group.nodes[1].settings.members[1];
    let data = UdpSocket::bind(own.data).unwrap();
    let output = refused(&group.nodes[1].file, &[]);
    let holder = format!("{}", std::process::id());
    assert_said(&output, 3, &[&own.data.to_string(), "the data socket of node 1", &holder]);
    drop(data);
    let _control = UdpSocket::bind(own.control).unwrap();
    let output = refused(&group.nodes[1].file, &[]);
    assert_said(&output, 3, &[&own.control.to_string(), "the control socket", &holder]);
}

#[test]
fn an_interface_that_is_not_here_is_named_p() {
    let group = Group::found(3, "echo", SMALL);
    let set = ["transport.kind=multicast", "transport.interface=203.0.113.7"];
    let output = refused(&group.nodes[0].file, &set);
    assert_said(&output, 3, &["203.0.113.7"]);
}

#[test]
fn a_data_folder_that_cannot_be_made_is_named_p() {
    let group = Group::found(3, "echo", SMALL);
    let below = group.path().join("a-file");
    fs::write(&below, "").unwrap();
    let folder = below.join("data");
    let set = format!("node.data_dir={}", folder.display());
    assert_said(&refused(&group.nodes[0].file, &[&set]), 3, &[folder.to_str().unwrap()]);
}

#[test]
fn a_foreign_file_in_the_data_folder_is_named_and_left_alone_p() {
    let mut group = Group::start(1, "echo", SMALL);
    let mut caller = group.client("before");
    caller.load(20, 64);
    caller.close();
    group.stop(0);
    let notes = group.data(0).join("notes.txt");
    fs::write(&notes, "mine").unwrap();
    assert_said(&refused(&group.nodes[0].file, &[]), 3, &["notes.txt", "not a file of this node"]);
    assert_eq!(fs::read(&notes).unwrap(), b"mine");
    fs::remove_file(&notes).unwrap();
    group.start_node(0);
    group.settle();
    group.stop(0);
    group.replay(0).assert_holds(&caller);
}

#[test]
fn two_nodes_on_one_data_folder_is_one_too_many_p() {
    let mut group = Group::start(1, "echo", SMALL);
    let folder = group.data(0).to_str().unwrap().to_owned();
    let output = refused(&group.nodes[0].file, &[]);
    assert_said(&output, 3, &[&folder, "process", "runs a node with it"]);
    let mut caller = group.client("still there");
    assert_eq!(caller.call(b"hello").outcome, Outcome::Applied);
    caller.close();
    group.stop(0);
}

#[test]
fn the_data_of_another_group_is_refused_p() {
    let mut group = Group::start(1, "echo", SMALL);
    let mut caller = group.client("first");
    caller.load(20, 64);
    caller.close();
    group.stop(0);
    let other = Group::found(1, "echo", SMALL);
    let [own, others] =
        [&group, &other].map(|g| format!("{:016x}", g.nodes[0].settings.group.id.0));
    let set = format!("node.data_dir={}", group.data(0).display());
    let output = refused(&other.nodes[0].file, &[&set]);
    assert_said(&output, 3, &[&own, &others]);
    group.start_node(0);
    group.settle();
    group.stop(0);
    group.replay(0).assert_holds(&caller);
}

/// The durable segments of a node, oldest first.
fn segments(group: &Group, node: usize) -> Vec<PathBuf> {
    let paths = fs::read_dir(group.data(node)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "qlog")).collect();
    paths.sort();
    paths
}

#[test]
fn r13_damage_in_the_middle_is_refused_with_its_range_and_never_cut_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    group.load(&mut caller, 200, 2000);
    caller.close();
    group.settle();
    group.stop_all();
    let damaged = &segments(&group, 2)[1];
    let file = fs::File::options().read(true).write(true).open(damaged).unwrap();
    let (offset, mut byte) = (4096 + 50_000, [0]);
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    let before = fs::read(damaged).unwrap();
    let name = damaged.file_name().unwrap().to_str().unwrap();
    let output = refused(&group.nodes[2].file, &[]);
    assert_said(&output, 3, &["damaged where it was durable"]);
    assert_said(&output, 3, &[name]);
    assert!(fs::read(damaged).unwrap() == before, "it is left as it is");
    let text = err(&output);
    println!("{text}");
    let numbers = text.lines().find(|line| line.contains(name)).unwrap();
    let numbers =
        numbers.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
    assert!(numbers.into_iter().any(|n| n <= offset && offset < n + 4200), "{text}");
    // Healed by hand, it is a log again; and the others had gone on anyway.
    file.write_all_at(&byte, offset).unwrap();
    for node in 0..3 {
        group.start_node(node);
    }
    group.settle();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

#[test]
fn a3_a_torn_last_frame_across_pages_is_cut_with_a_report_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(100, 500);
    group.settle();
    group.kill(2);
    let options = ReadOptions { uncommitted: true, ..ReadOptions::default() };
    let mut reader = LogReader::open(group.data(2), options).unwrap();
    while let Ok(Some(_)) = reader.next_frame() {}
    let tail = reader.before().position;
    // Power went while a frame was written: its header and a part are there, beyond what was synced.
    fs::remove_dir_all(group.hot(2)).unwrap();
    let last = segments(&group, 2).into_iter().rfind(|path| {
        let base = path.file_stem().unwrap().to_str().unwrap();
        u64::from_str_radix(base, 16).unwrap() <= tail.0
    });
    let last = last.unwrap();
    let base = u64::from_str_radix(last.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
    let file = fs::File::options().write(true).open(&last).unwrap();
    let mut torn = numbered(9, 5000);
    torn[..4].copy_from_slice(&6000_u32.to_le_bytes());
    file.write_all_at(&torn, 4096 + tail.0 - base).unwrap();
    group.start_node(2);
    caller.load(100, 500);
    group.settle();
    let (told, events) = (group.told(2), group.events(2));
    assert!(events.contains("were torn and cut; they are kept in"), "{told}");
    caller.close();
    group.settle();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

#[test]
fn d13_garbage_and_foreign_datagrams_are_counted_and_change_nothing_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    caller.load(50, 64);
    let own = group.nodes[0].settings.group.id;
    let members = group.nodes[0].settings.members.clone();
    let newest = Leadership { generation: Generation { counter: 9, random: 9 }, term: Term(99) };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let data = |group, leadership| {
        let mut header =
            DatagramHeader::new(DatagramKind::Data, group, Some(NodeId(0)), leadership);
        header.position.set(64);
        header.commit.set(1 << 40);
        header
    };
    let mut older = data(own, newest);
    older.version = 0;
    let count = 20;
    for round in 0..count {
        for member in &members {
            let send = |bytes: &[u8]| {
                socket.send_to(bytes, member.data).unwrap();
                socket.send_to(bytes, member.control).unwrap();
            };
            send(b"");
            send(&numbered(round, 10));
            send(&numbered(round, 64));
            send(&numbered(round, 1300));
            send(&[data(GroupId(own.0 ^ 1), newest).as_bytes(), &[7; 96]].concat());
            send(&[older.as_bytes(), &[7; 96]].concat());
            // The right group and a high term, from an address that is no member's.
            send(&[data(own, newest).as_bytes(), &[7; 96]].concat());
            let announce = Announce {
                standing: Standing::Clean,
                instance: 1,
                holds: quorate::types::Position(0),
                disk: DiskState::Good,
            };
            let constants = GroupConstants::from_fn(|_| 1);
            let message = Message::Announce(announce);
            let envelope = Envelope { from: NodeId(1), leadership: newest, message };
            send(envelope.encode(own, &constants).as_bytes());
            send(envelope.encode(GroupId(own.0 ^ 1), &constants).as_bytes());
            let mut older = envelope.encode(own, &constants);
            older.version = 0;
            send(older.as_bytes());
        }
        caller.load(10, 64);
    }
    let arrived = |word: &str, least: u64| {
        let deadline = Instant::now() + PATIENCE;
        for node in 0..3 {
            while group.word(node, word) < least {
                assert!(
                    Instant::now() < deadline,
                    "node {node}: {word}: {}",
                    group.word(node, word)
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    };
    arrived("dropped_garbage", 5 * count);
    arrived("dropped_group", count);
    arrived("dropped_version", count);
    arrived("control_refused", 9 * count);
    for node in 0..3 {
        assert_eq!(group.word(node, "dropped_group"), count);
        assert_eq!(group.word(node, "dropped_version"), count);
        assert_eq!(group.events_with(node, "Q-1110"), 2, "each told once: {}", group.events(node));
        assert_eq!(group.events_with(node, "Q-1008"), 1, "told once: {}", group.events(node));
        assert_eq!(group.word(node, "term"), 1);
    }
    // Four of noise and three of data's own format are garbage to control.
    let expected = serde_json::json!({
        "garbage": 7 * count, "version": count, "group": count, "stranger": count,
    });
    for node in 0..3 {
        let deadline = Instant::now() + PATIENCE;
        while group.status(node).unwrap()["control_dropped"] != expected {
            let status = group.status(node).unwrap();
            assert!(Instant::now() < deadline, "node {node}: {}", status["control_dropped"]);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(group.events_with(node, "Q-1193"), 1, "told, not again and again");
    }
    caller.load(50, 64);
    caller.close();
    group.settle();
    group.stop_all();
    caller.assert_all_applied();
    let log = group.replay_all();
    log.assert_holds(&caller);
    assert_eq!(log.commands.len() as u64, 100 + 10 * count);
}

/// A small file system in memory, unmounted with the test.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(path);
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: the node may still run.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_the_group_goes_on_when_there_is_space_p() {
    let last_byte = &["disk.low_bytes=0", "disk.full_bytes=0"][..];
    let mut group = Group::found(3, "echo", &[SMALL, last_byte].concat());
    let Some(_mount) = Mount::new(group.data(0), 8 << 20) else {
        println!("SKIPPED: mounting a small disk needs a privilege");
        return;
    };
    // Not in the data folder itself: there it would be a foreign file. Inside quarantine, whose content is the operator's.
    let aside = group.data(0).join("quarantine");
    fs::create_dir_all(&aside).unwrap();
    let filler = aside.join("filler");
    fs::write(&filler, vec![1; 5 << 20]).unwrap();
    for node in 0..3 {
        group.start_node(node);
    }
    let mut caller = group.client("load");
    let deadline = Instant::now() + PATIENCE;
    let mut sent = 0;
    while group.events_with(0, "Q-1108") == 0 || caller.host.client.unanswered() > 0 {
        assert!(Instant::now() < deadline, "{sent} sent\n{}", group.told(0));
        // Room for more than the disk has, and for no more than that.
        if sent < 1000 && caller.host.client.send(&numbered(sent, 4000)).is_ok() {
            sent += 1;
        }
        caller.turn();
    }
    // The others have room, and one of them leads.
    assert_ne!(group.status(0).expect("it runs")["role"], "leader", "{}", group.told(0));
    assert!(group.events_with(0, "Q-1161") > 0, "{}", group.told(0));
    fs::remove_file(&filler).unwrap();
    group.settle();
    assert_eq!(caller.done.len() as u64, sent);
    assert!(group.events_with(0, "Q-1162") > 0, "{}", group.told(0));
    caller.assert_all_applied();
    caller.close();
    group.settle();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

#[test]
fn the_program_says_what_a_folder_without_a_log_is_p() {
    let folder = Folder::new();
    let mut out = fs::File::create(folder.path().join("x.toml")).unwrap();
    out.write_all(b"[group\n").unwrap();
    let output = refused(&folder.path().join("x.toml"), &[]);
    assert_said(&output, 2, &["x.toml:1"]);
}

//! `quorate init` and `quorate config` as processes: files written, text printed, exit codes.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeSet;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of this test alone, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("quorate-cli-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn quorate(folder: &Folder, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(args)
        .current_dir(&folder.0)
        .env_remove("QUORATE_CONFIG")
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn init_writes_one_good_configuration_for_each_node() {
    let folder = Folder::new();
    let output = quorate(&folder, &["init", "--nodes", "3", "--dir", "g", "--service", "book"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let lines = out(&output);
    let written: Vec<_> = lines.lines().map(Path::new).collect();
    assert_eq!(written.len(), 4);
    let mut groups = BTreeSet::new();
    let mut addresses = BTreeSet::new();
    for node in 0..3 {
        let file = format!("g/node-{node}.toml");
        assert_eq!(written[node], folder.0.join(&file));
        let check = quorate(&folder, &["config", "check", &file]);
        assert_eq!(code(&check), 0, "{}", out(&check));
        assert!(
            out(&check).starts_with(&format!("good: node {node} (node-{node}) of 3 in group "))
        );
        let show = out(&quorate(&folder, &["config", "show", "--json", &file]));
        let show: serde_json::Value = serde_json::from_str(&show).unwrap();
        groups.insert(show["group.id"]["value"].to_string());
        assert_eq!(show["group.service"]["value"], "book");
        assert_eq!(
            show["node.data_dir"]["value"].as_str(),
            folder.0.join(format!("g/node-{node}")).to_str()
        );
        for kind in ["data", "control"] {
            let address =
                show[format!("members.{node}.{kind}")]["value"].as_str().unwrap().to_owned();
            let _free = UdpSocket::bind(&address).unwrap();
            addresses.insert(address);
        }
    }
    assert_eq!((groups.len(), addresses.len()), (1, 6));
    let list = fs::read_to_string(folder.0.join("g/failover.csv")).unwrap();
    assert_eq!(list.lines().filter(|line| line.starts_with("127.0.0.1,")).count(), 3);

    let other = Folder::new();
    quorate(&other, &["init", "--nodes", "1", "--dir", "g"]);
    let text = fs::read_to_string(other.0.join("g/node-0.toml")).unwrap();
    assert!(!groups.iter().any(|group| text.contains(group.as_str())), "each group its own id");
}

#[test]
fn init_overwrites_nothing_and_writes_all_or_none() {
    let folder = Folder::new();
    let kept = folder.write("node-1.toml", "mine");
    let output = quorate(&folder, &["init", "--nodes", "3", "--dir", "."]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("node-1.toml: exists already; nothing was written"));
    assert_eq!(fs::read_to_string(kept).unwrap(), "mine");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn k10_init_reads_a_member_list_and_refuses_a_bad_line_with_its_number() {
    let folder = Folder::new();
    folder.write("failover.csv", "# ours\n10.0.0.1,7000\n10.0.0.2,7000\n10.0.0.3,7000\n");
    let args = ["init", "--members", "failover.csv", "--dir", ".", "--transport", "multicast"];
    let output = quorate(&folder, &args);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert_eq!(out(&output).lines().count(), 3, "the list itself is left alone");
    let text = fs::read_to_string(folder.0.join("node-2.toml")).unwrap();
    assert!(text.contains("data = \"10.0.0.3:7000\"\ncontrol = \"10.0.0.3:7001\""), "{text}");
    assert!(text.contains("kind = \"multicast\"\ngroup = \"239.255."), "{text}");

    folder.write("bad.csv", "10.0.0.1,7000\n10.0.0.2:7000\n");
    let output = quorate(&folder, &["init", "--members", "bad.csv", "--dir", "h"]);
    assert_eq!(code(&output), 2);
    let expected = "quorate: bad.csv:2: `10.0.0.2:7000`: 1 fields where `host,port` are two\n";
    assert_eq!(err(&output), expected);
    assert!(!folder.0.join("h").exists());
}

#[test]
fn r15_members_observer_is_written_by_init_from_a_number_or_a_list() {
    let folder = Folder::new();
    let made = quorate(&folder, &["init", "--nodes", "4", "--observers", "2", "--dir", "g"]);
    assert_eq!(code(&made), 0, "{}", err(&made));
    let shown = |file: &str| {
        let shown = out(&quorate(&folder, &["config", "show", file]));
        let lines = shown.lines().filter(|line| line.starts_with("observer = "));
        lines.map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect::<Vec<_>>()
    };
    for node in 0..4 {
        let lines = shown(&format!("g/node-{node}.toml"));
        assert_eq!(lines, ["false", "false", "true", "true"]);
    }
    // The list that it wrote founds the same group.
    let list = fs::read_to_string(folder.0.join("g/failover.csv")).unwrap();
    assert_eq!(list.lines().filter(|line| line.ends_with(",observer")).count(), 2, "{list}");
    let made = quorate(&folder, &["init", "--members", "g/failover.csv", "--dir", "h"]);
    assert_eq!(code(&made), 0, "{}", err(&made));
    assert_eq!(shown("h/node-0.toml"), ["false", "false", "true", "true"]);
    let refused = quorate(&folder, &["init", "--nodes", "2", "--observers", "2", "--dir", "i"]);
    assert_eq!(code(&refused), 2);
    assert!(err(&refused).contains("no voter"), "{}", err(&refused));
}

#[test]
fn init_takes_ports_from_a_base_and_settings_by_key() {
    let folder = Folder::new();
    let base = ["init", "--nodes", "2", "--dir", "g", "--base-port", "40000"];
    let output = quorate(&folder, &[&base[..], &["--set", "timing.heartbeat_ms=5"]].concat());
    assert_eq!(code(&output), 0, "{}", err(&output));
    let text = fs::read_to_string(folder.0.join("g/node-1.toml")).unwrap();
    for line in [
        "data = \"127.0.0.1:40000\"",
        "control = \"127.0.0.1:40003\"",
        ":40004\"",
        "heartbeat_ms = 5",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    let output = quorate(&folder, &["init", "--nodes", "9", "--dir", "h", "--base-port", "65530"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("9 nodes need 19 ports"), "{}", err(&output));
    let output =
        quorate(&folder, &["init", "--nodes", "2", "--dir", "h", "--set", "timing.beat=1"]);
    assert_eq!(code(&output), 2);
    assert!(err(&output).contains("timing.beat: no such key"), "{}", err(&output));
    for wrong in [&["init", "--dir", "h"][..], &["init", "--nodes", "17", "--dir", "h"]] {
        assert_eq!(code(&quorate(&folder, wrong)), 2);
    }
    assert!(!folder.0.join("h").exists());
}

#[test]
fn check_answers_no_with_every_mistake_and_a_missing_file_is_wrong_use() {
    let folder = Folder::new();
    folder.write("bad.toml", "[group]\nid = \"1\"\nwindw_bytes = 1\n[node]\nid = 0\n");
    let output = quorate(&folder, &["config", "check", "bad.toml"]);
    assert_eq!(code(&output), 1);
    let text = out(&output);
    assert!(text.contains("bad.toml:3: group.windw_bytes: no such key; did you mean"), "{text}");
    assert!(text.contains("bad.toml: node.data_dir: must be set: a path"), "{text}");
    let json = out(&quorate(&folder, &["config", "check", "--json", "bad.toml"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["good"], false);
    assert_eq!(json["errors"].as_array().unwrap().len(), text.lines().count());

    let output = quorate(&folder, &["config", "check", "none.toml"]);
    assert_eq!((code(&output), out(&output).lines().count()), (2, 1));
    let output = quorate(&folder, &["config", "show", "bad.toml"]);
    assert_eq!((code(&output), out(&output)), (2, String::new()));
    assert!(err(&output).lines().all(|line| line.starts_with("quorate: bad.toml")));
}

#[test]
fn without_a_file_the_one_in_quorate_config_is_read() {
    let folder = Folder::new();
    let run = |configured: &Path, id: &str| {
        Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["config", "check"])
            .env("QUORATE_CONFIG", configured)
            .env("QUORATE_NODE_ID", id)
            .output()
            .unwrap()
    };
    assert_eq!(code(&quorate(&folder, &["config", "check"])), 2);
    let empty = run(&folder.0, "");
    assert!(out(&empty).contains("holds no node.toml or node-<id>.toml"), "{}", out(&empty));
    let init = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["init", "--nodes", "2"])
        .env("QUORATE_CONFIG", &folder.0)
        .output()
        .unwrap();
    assert_eq!(code(&init), 0, "{}", err(&init));
    assert_eq!(code(&run(&folder.0.join("node-1.toml"), "")), 0);
    let several = run(&folder.0, "");
    assert_eq!(code(&several), 2);
    assert!(out(&several).contains("holds node-0.toml, node-1.toml: choose"), "{}", out(&several));
    assert!(out(&run(&folder.0, "1")).starts_with("good: node 1 "));
}

#[test]
fn show_and_reference_print_what_they_say() {
    let folder = Folder::new();
    quorate(&folder, &["init", "--nodes", "3", "--dir", "."]);
    let show = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["config", "show", "node-0.toml", "--set", "faults.loss=0.05"])
        .env("QUORATE_SYNC_GROUP_DELAY_US", "50")
        .current_dir(&folder.0)
        .output()
        .unwrap();
    let text = out(&show);
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("loss =").ends_with("# --set"), "{text}");
    assert!(line("group_delay_us = 50").ends_with("# $QUORATE_SYNC_GROUP_DELAY_US"), "{text}");
    assert!(line("id =").ends_with("# node-0.toml:4"), "{text}");
    assert!(line("window_bytes =").ends_with("# default"), "{text}");
    folder.write("again.toml", &text);
    assert_eq!(code(&quorate(&folder, &["config", "check", "again.toml"])), 0);

    let reference = out(&quorate(&folder, &["config", "reference", "--json"]));
    for line in reference.lines() {
        let key: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(key["meaning"].as_str().unwrap().len() > 10, "{line}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let folder = Folder::new();
    let script = format!("{} config reference | head -n 1", env!("CARGO_BIN_EXE_quorate"));
    let output = Command::new("sh")
        .args(["-c", &format!("set -e; {script}")])
        .current_dir(&folder.0)
        .output()
        .unwrap();
    assert_eq!(out(&output), "# Configuration\n");
    assert_eq!(err(&output), "");
}

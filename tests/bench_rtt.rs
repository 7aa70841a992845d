//! `quorate-bench rtt` as a program: a real group beside the floors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn bench(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-bench"));
    command.arg("rtt").args(arguments.split(' ')).arg("--dir").arg(dir);
    // Built for this test, and beside the other program.
    command.arg("--program").arg(env!("CARGO_BIN_EXE_quorate"));
    command
}

/// A folder of this test's own, so that what is left behind is seen.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("quorate-rtt-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a writable temp folder");
        Self(path)
    }
    fn entries(&self) -> usize {
        fs::read_dir(&self.0).expect("our own folder").count()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let talk = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_else(|| panic!("nothing was printed: {talk}"));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}, {talk}"))
}

#[test]
fn a_group_stands_beside_its_floors() {
    let folder = Folder::new("report");
    let load = "--rounds 2 --seconds 0.3 --warm-up-ms 100 --rate 500 --json";
    let output = bench(&folder.0, load).output().expect("the program starts");
    let report = report(&output);
    for name in ["commit", "skeleton", "raw_udp"] {
        let distribution = &report[format!("{name}_us")];
        assert_eq!(distribution["count"], 300, "{report}");
        assert!(distribution["p50"].as_f64().expect("enough samples") > 0.5, "{report}");
        assert_eq!(report["counts"][name]["lost"], 0, "{report}");
    }
    for pair in ["commit_to_skeleton", "skeleton_to_raw_udp"] {
        assert!(report["ratios"][pair]["p50"].as_f64().expect("a ratio") > 0.0, "{report}");
    }
    assert_eq!(report["settings"]["durability"], "memory");
    let valid = report["valid"].as_bool().expect("yes or no");
    assert_eq!(output.status.code(), Some(i32::from(!valid)));
    assert_eq!(folder.entries(), 0, "nothing is left behind");
}

#[test]
fn large_commands_go_through_in_a_closed_loop() {
    let folder = Folder::new("large");
    let load = "--rounds 1 --seconds 0.3 --warm-up-ms 50 --payload 100000 --json";
    let output = bench(&folder.0, load).output().expect("the program starts");
    let report = report(&output);
    assert!(report["commit_us"]["count"].as_u64().expect("a count") > 5, "{report}");
    assert_eq!(report["settings"]["payload_bytes"], 100_000);
}

#[test]
fn a_group_that_does_not_come_up_is_told_with_its_own_words() {
    let folder = Folder::new("broken");
    let run = |program: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-bench"));
        command.args(["rtt", "--rounds", "1", "--seconds", "0.05", "--warm-up-ms", "0"]);
        command.arg("--dir").arg(&folder.0).args(["--program", program]);
        let output = command.output().expect("the program starts");
        assert_eq!(output.status.code(), Some(3));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let talk = run("/nowhere/quorate");
    assert!(talk.contains("starting quorate init: No such file"), "{talk}");
    let talk = run("false");
    assert!(talk.contains("process quorate init"), "{talk}");
    assert_eq!(folder.entries(), 0, "nothing is left behind");
}

#[test]
fn nodes_end_with_a_run_that_is_killed() {
    let folder = Folder::new("killed");
    let mut parent = bench(&folder.0, "--rounds 100 --seconds 0.05 --warm-up-ms 0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let nodes = within(|| Some(nodes_of(parent.id())).filter(|them| them.len() == 3));
    parent.kill().expect("it is ours");
    parent.wait().expect("it was killed");
    let nodes = nodes.expect("three nodes were started");
    let gone = within(|| nodes.iter().all(|id| !runs(*id)).then_some(()));
    assert!(gone.is_some(), "{nodes:?} outlived the run");

    // Nobody could clean up; the next run does, also where hot segments were.
    assert_eq!(folder.entries(), 1);
    let mut next = Command::new(env!("CARGO_BIN_EXE_quorate-bench"));
    next.args(["rtt", "--rounds", "1", "--seconds", "0.05", "--warm-up-ms", "0"]);
    next.args(["--program", "false"]).arg("--dir").arg(&folder.0);
    assert_eq!(next.output().expect("the program starts").status.code(), Some(3));
    assert_eq!(folder.entries(), 0);
}

fn within<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + Duration::from_secs(30);
    while Instant::now() < end {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// Children that have become `quorate`.
fn nodes_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("a proc file system");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.contains(" (quorate) ") && stat.split(' ').nth(3) == Some(&parent.to_string())
    })
    .collect()
}

/// A zombie whose new parent has not looked yet runs no more.
fn runs(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, behind)| !behind.starts_with(['Z', 'X']))
}

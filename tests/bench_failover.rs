//! `quorate-bench failover` as a program: a real group whose leaders are killed, paused, and hand over.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// A folder of this test's own, so that what is left behind is seen.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("quorate-failover-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a writable temp folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bench(folder: &Folder, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-bench"));
    command.arg("failover").args(arguments).arg("--dir").arg(&folder.0);
    command.arg("--program").arg(env!("CARGO_BIN_EXE_quorate"));
    command.output().expect("the program starts")
}

#[test]
fn a12_every_trouble_is_got_over_and_its_outage_told() {
    let folder = Folder::new("report");
    let output = bench(&folder, &["--rounds", "1", "--rate", "300", "--json"]);
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("nothing was printed: {talk}"));
    let report: Value = serde_json::from_str(last).unwrap_or_else(|why| panic!("{why}: {last}"));
    assert_eq!(report["outages_ms"]["count"], 1, "{report}");
    for kind in ["kill", "pause", "transfer", "calm"] {
        let each = report["kinds"][kind]["each_ms"].as_array().expect("a list");
        assert_eq!(each.len(), 1, "{report}");
        assert!(each[0].as_f64() > Some(0.0), "{report}");
    }
    let counts = &report["counts"];
    assert!(counts["sent"].as_u64() > Some(300), "{report}");
    assert_eq!((&counts["answered"], &counts["failed"]), (&counts["sent"], &0.into()), "{report}");
    assert_eq!(report["sync_ms"]["count"], 100);
    let valid = report["valid"].as_bool().expect("yes or no");
    assert_eq!(output.status.code(), Some(i32::from(!valid)));
    assert_eq!(fs::read_dir(&folder.0).expect("our own folder").count(), 0, "nothing is left");
}

#[test]
fn d8_r1_a_leader_that_is_cut_off_is_got_over_and_its_outage_told() {
    let folder = Folder::new("partition");
    let kinds = ["partition", "deaf", "mute"];
    let arguments = ["--kinds", "partition,deaf,mute", "--rounds", "1", "--rate", "300", "--json"];
    let output = bench(&folder, &arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("left out") {
        assert!(kinds.iter().all(|kind| text.contains(&format!("{kind}: left out"))), "{text}");
        return println!("SKIPPED: {text}");
    }
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = text.lines().last().unwrap_or_else(|| panic!("nothing was printed: {talk}"));
    let report: Value = serde_json::from_str(last).unwrap_or_else(|why| panic!("{why}: {last}"));
    for kind in kinds {
        // The run waits for another leader each time: without a cut there would be none.
        let outage = report["kinds"][kind]["each_ms"][0].as_f64();
        assert!(outage > Some(0.0), "{kind}: {report}");
    }
    let counts = &report["counts"];
    assert_eq!((&counts["answered"], &counts["failed"]), (&counts["sent"], &0.into()), "{report}");
    assert_eq!(report["settings"]["transport"], "unicast");
    assert_eq!(fs::read_dir(&folder.0).expect("our own folder").count(), 0, "nothing is left");
}

#[test]
fn wrong_use_of_failover_is_named() {
    let folder = Folder::new("usage");
    for wrong in [&["--kinds", "flood"][..], &["--nodes", "2"], &["--rate", "0"]] {
        let output = bench(&folder, wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wrong[0]), "{wrong:?}");
    }
}

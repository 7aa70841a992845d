//! `quorate demo` as a process: every variant ends with logs that agree, and nothing of it is left behind.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use group::{Folder, PATIENCE, err, market_data, out, quorate, send_signal};
use quorate::io::hot_tier::MEMORY_DIRECTORY;
use serde_json::Value;

/// A demo whose temporary folder is one of its own.
struct Demo {
    folder: Folder,
    process: Child,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let folder = Folder::new();
        let mut command = quorate();
        command.arg("demo").args(args).env("TMPDIR", folder.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().unwrap();
        Self { folder, process }
    }
    fn wait(self) -> (Output, u32, Folder) {
        let process = self.process.id();
        (self.process.wait_with_output().unwrap(), process, self.folder)
    }
}

/// Runs a demo to its end, and looks for what it leaves behind.
fn demo(args: &[&str]) -> Output {
    let (output, process, folder) = Demo::start(args).wait();
    assert_nothing_left(process, folder.path());
    output
}

fn assert_nothing_left(process: u32, folder: &Path) {
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(memory_of(process), None);
    assert_eq!(nodes_of(process), [0; 0]);
}

/// Its folder in memory, if there is one.
fn memory_of(process: u32) -> Option<PathBuf> {
    let name = format!("quorate-demo-{process}-");
    let entries = fs::read_dir(MEMORY_DIRECTORY).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap())
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&name))
        .map(|entry| entry.path())
}

/// Processes of its nodes.
fn nodes_of(process: u32) -> Vec<u32> {
    let mark = format!("\0--with-parent\0{process}\0");
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|id| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&mark)
        })
        .collect()
}

fn report(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}\n{}", out(output), err(output));
    serde_json::from_str(out(output).lines().last().unwrap()).unwrap()
}

/// Runs a demo that must end well; returns its report.
fn good(args: &[&str]) -> Value {
    let report = report(&demo(&[args, &["--json"]].concat()));
    assert_eq!(report["agree"], true, "{report}");
    for none in ["lost", "duplicated", "unknown"] {
        assert_eq!(report[none], 0, "{report}");
    }
    assert_eq!(report["acknowledged"], report["commands"], "{report}");
    report
}

#[test]
fn demo_of_the_book_agrees_p() {
    let report = good(&["--commands", "2000"]);
    assert_eq!((&report["commands"], &report["nodes"]), (&2000.into(), &3.into()));
    assert_eq!((&report["service"], &report["durability"]), (&"book".into(), &"disk".into()));
    assert_eq!(report["latency_us"]["count"], 2000);
    assert!(report["latency_us"]["p99"].as_f64() >= report["latency_us"]["p50"].as_f64());
}

#[test]
fn demo_by_unicast_agrees_p() {
    let report = good(&["--commands", "2000", "--transport", "unicast"]);
    assert_eq!(report["transport"], "unicast");
}

#[test]
fn demo_by_multicast_agrees_where_the_host_has_it_p() {
    let report = good(&["--commands", "2000", "--transport", "auto"]);
    if report["transport"] == "unicast" {
        println!("SKIPPED: this host delivers no multicast on loopback");
        return;
    }
    let report = good(&["--commands", "2000", "--transport", "multicast"]);
    assert_eq!(report["transport"], "multicast");
}

#[test]
fn demo_with_loss_duplicates_and_reordering_agrees_p() {
    let faults = ["--loss", "0.05", "--duplicate", "0.02", "--reorder-ms", "20"];
    let report = good(&[&["--commands", "600", "--seed", "7"][..], &faults].concat());
    assert!(report["repairs"].as_u64() > Some(0), "{report}");
    assert_eq!(report["seed"], 7);
}

#[test]
fn demo_of_the_other_services_agrees_p() {
    good(&["--commands", "2000", "--service", "echo", "--payload", "1000"]);
    good(&["--commands", "2000", "--service", "sequencer", "--durability", "memory"]);
}

#[test]
fn demo_of_one_and_of_five_nodes_agrees_p() {
    assert_eq!(good(&["--commands", "2000", "--nodes", "1"])["nodes"], 1);
    assert_eq!(good(&["--commands", "1000", "--nodes", "5"])["nodes"], 5);
}

#[test]
fn demo_at_a_rate_keeps_it_p() {
    let report = good(&["--commands", "400", "--rate", "400"]);
    let rate = report["per_second"].as_u64().unwrap();
    assert!((100..=480).contains(&rate), "{report}");
}

#[test]
fn demo_of_the_exchanges_messages_agrees_p() {
    let Some(messages) = market_data("AAPL_2012-06-21_message_10.csv") else {
        println!("SKIPPED: no market data (set QUORATE_DATA)");
        return;
    };
    let report = good(&["--input", messages.to_str().unwrap()]);
    let lines = fs::read_to_string(messages).unwrap().lines().count();
    assert_eq!(report["commands"], lines);
}

/// Runs a demo that kills leaders; every kill must have been an outage that the client got over.
fn killing(kills: usize, args: &[&str]) {
    let number = kills.to_string();
    let report = good(&[&["--kill-leader", "--kills", &number][..], args].concat());
    let outages = report["outages_ms"].as_array().unwrap();
    assert_eq!(outages.len(), kills, "{report}");
    assert!(outages.iter().all(|ms| ms.as_f64() > Some(0.0)), "{report}");
    // Term start, first setting and session, and one more term for each kill.
    let commands = report["commands"].as_u64().unwrap();
    assert!(report["sequence"].as_u64().unwrap() >= commands + 2 + kills as u64, "{report}");
}

#[test]
fn a12_demo_that_kills_its_leaders_loses_and_doubles_nothing_p() {
    killing(3, &["--commands", "1500"]);
    killing(2, &["--durability", "memory", "--service", "sequencer", "--rate", "400"]);
}

#[test]
fn a12_demo_that_kills_its_leaders_at_full_speed_and_on_a_bad_network_agrees_p() {
    killing(2, &["--rate", "0", "--service", "echo"]);
    let faults = ["--loss", "0.02", "--duplicate", "0.02", "--reorder-ms", "5"];
    killing(2, &[&["--rate", "200"][..], &faults].concat());
}

#[test]
fn q2_the_exchanges_messages_outlive_killed_leaders_p() {
    let Some(messages) = market_data("AAPL_2012-06-21_message_10.csv") else {
        println!("SKIPPED: no market data (set QUORATE_DATA)");
        return;
    };
    let input = messages.to_str().unwrap();
    let report = good(&["--input", input, "--rate", "50", "--kill-leader", "--kills", "2"]);
    assert_eq!(report["commands"], fs::read_to_string(&messages).unwrap().lines().count());
    assert!(!report["outages_ms"].as_array().unwrap().is_empty(), "{report}");
}

#[test]
fn demo_names_what_is_wrong_with_its_input_p() {
    let folder = Folder::new();
    let missing = demo(&["--input", "/no/such/orders.csv"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("/no/such/orders.csv"), "{}", err(&missing));

    let text = "34200.004241176,1,16113575,18,5853300,1\n34200.1,1,16113576,many,5853300,1\n";
    let file = folder.write("orders.csv", text);
    let wrong = demo(&["--input", file.to_str().unwrap()]);
    assert_eq!(wrong.status.code(), Some(2), "{}", err(&wrong));
    let named = format!("{}: line 2, column 20: expected a size", file.display());
    assert!(err(&wrong).contains(&named), "{}", err(&wrong));

    for wrong in [
        &["--transport", "pigeon"][..],
        &["--nodes", "0"],
        &["--service", "boook"],
        &["--loss", "2"],
        &["--kills", "0", "--kill-leader"],
        &["--payload", "9999999", "--service", "echo"],
        &["--colour"],
    ] {
        let output = demo(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", err(&output));
        assert!(err(&output).contains(wrong[1.min(wrong.len() - 1)]), "{}", err(&output));
    }
}

#[test]
fn demo_keeps_its_folder_when_asked_p() {
    let kept = Folder::new();
    let keep = kept.path().join("kept");
    good(&["--commands", "50", "--keep", keep.to_str().unwrap()]);
    let config = keep.join("node-0.toml");
    let tail = quorate().args(["tail", "--no-follow", "--config"]).arg(config).output().unwrap();
    assert!(out(&tail).lines().count() >= 50, "{}", err(&tail));
}

/// Waits until a demo that never ends by itself is at work.
fn at_work(demo: &Demo) {
    let deadline = Instant::now() + PATIENCE;
    let process = demo.process.id();
    let working = || {
        nodes_of(process).len() == 3
            && fs::read_dir(demo.folder.path()).unwrap().any(|entry| {
                let log = entry.unwrap().path().join("node-2/events.jsonl");
                fs::read_to_string(log).is_ok_and(|text| text.contains("follower of"))
            })
    };
    while !working() {
        assert!(Instant::now() < deadline, "it does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
}

#[test]
fn demo_leaves_nothing_behind_when_interrupted_p() {
    for (signal, more) in [("INT", &[][..]), ("TERM", &[]), ("INT", &["--kill-leader"])] {
        let demo = Demo::start(&[&["--commands", "1000000000"], more].concat());
        at_work(&demo);
        send_signal(demo.process.id(), signal);
        let (output, process, folder) = demo.wait();
        assert_eq!(output.status.code(), Some(3), "{}", err(&output));
        assert!(err(&output).contains("stopped"), "{}", err(&output));
        assert_nothing_left(process, folder.path());
    }
}

#[test]
fn demo_that_is_killed_takes_its_nodes_along_p() {
    let mut demo = Demo::start(&["--commands", "1000000000"]);
    at_work(&demo);
    demo.process.kill().unwrap();
    let (_, process, _folder) = demo.wait();
    let deadline = Instant::now() + PATIENCE;
    while !nodes_of(process).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", nodes_of(process));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nobody is left to remove the hot tier: that is for the next start, or for us.
    if let Some(memory) = memory_of(process) {
        fs::remove_dir_all(memory).unwrap();
    }
}

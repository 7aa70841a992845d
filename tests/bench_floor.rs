//! `quorate-bench floor` as a program: what it prints, and that nothing it starts outlives it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn bench(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-bench"));
    command.args(arguments.split(' '));
    command
}

/// Runs to the end; exit code and the object on the last line.
fn json(arguments: &str) -> (Option<i32>, Value) {
    let output = bench(arguments).output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("text");
    let talk = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or_else(|| panic!("nothing was printed: {talk}"));
    (output.status.code(), serde_json::from_str(last).expect("an object"))
}

#[test]
fn a_few_hundred_round_trips_through_both_floors() {
    let arguments = "floor --rounds 2 --seconds 0.2 --warm-up-ms 50 --rate 2000 --json";
    let (code, report) = json(arguments);
    for name in ["skeleton", "raw_udp"] {
        let distribution = &report[format!("{name}_us")];
        assert_eq!(distribution["count"], 800, "{report}");
        let p50 = distribution["p50"].as_f64().expect("enough samples for a median");
        let max = distribution["max"].as_f64().expect("samples");
        assert!(p50 > 0.5 && p50 <= max, "{report}");
        assert!(distribution["p90"].is_number() && distribution["p99_9"].is_null(), "{report}");
        let service = &report[format!("{name}_service_us")];
        assert!(service["max"].as_f64().expect("samples") <= max, "{report}");
        assert_eq!(report["counts"][name]["sent"], 800);
        assert_eq!(report["counts"][name]["lost"], 0, "{report}");
        assert_eq!(report["counts"][name]["unexpected"], 0, "{report}");
    }
    assert!(report["ratios"]["skeleton_to_raw_udp"]["p50"].as_f64().expect("a ratio") > 0.0);
    assert!(report.get("commit_us").is_none(), "no group was measured");
    for key in ["kernel", "cpu", "cores", "virtual", "clock_source", "load_average", "build"] {
        assert!(report["environment"].get(key).is_some(), "{key} is missing: {report}");
    }
    assert!(report["shared_memory_ns"].get("p99_9").is_some());

    let why = report["why"].as_array().expect("a list");
    let valid = report["valid"].as_bool().expect("yes or no");
    assert_eq!(valid, why.is_empty());
    assert_eq!(code, Some(i32::from(!valid)));
    if cfg!(debug_assertions) {
        assert!(why[0].as_str().expect("text").contains("debug build"), "{report}");
    }
}

#[test]
fn closed_loop_goes_on_without_a_rate_in_groups_of_any_size() {
    for nodes in [1, 2, 5] {
        let arguments =
            format!("floor --nodes {nodes} --rounds 1 --seconds 0.1 --warm-up-ms 20 --json");
        let (_, report) = json(&arguments);
        assert!(report["skeleton_us"]["count"].as_u64().expect("a count") > 0, "{report}");
        assert_eq!(report["counts"]["skeleton"]["lost"], 0, "{report}");
        assert!(report.get("skeleton_service_us").is_none());
    }
}

#[test]
fn wrong_use_is_told_by_the_flags_name() {
    for (arguments, name) in [
        ("floor --nodes 0", "--nodes 0 is not between 1 and"),
        ("floor --nodes 99", "--nodes 99 is not between 1 and"),
        ("floor --seconds 0", "--seconds 0 is not between"),
        ("floor --seconds NaN", "--seconds NaN is not between"),
        ("floor --payload 70000", "--payload 70000 is not between 0 and 65443"),
        ("floor --rate 99999999", "--rate 99999999 is not between"),
        ("floor --cpus 0,4095", "--cpus: \"4095\" is none of the CPUs"),
        ("floor --wait blocking", "--wait"),
    ] {
        let output = bench(arguments).output().expect("the program starts");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {talk}");
        assert!(talk.contains(name), "{arguments}: {talk}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn nothing_outlives_a_parent_that_is_killed() {
    ends_its_children("KILL");
}

#[test]
fn nothing_outlives_an_interrupted_run() {
    let (code, talk) = ends_its_children("INT");
    assert_eq!(code, Some(1));
    assert!(talk.contains("interrupted"), "{talk}");
}

/// Starts a long run, waits for its children, sends it the signal, and waits for all of them to be gone.
fn ends_its_children(signal: &str) -> (Option<i32>, String) {
    let mut parent = bench("floor --seconds 60 --rate 1000")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let children = within(|| Some(children_of(parent.id())).filter(|them| them.len() == 3));
    let Some(children) = children else {
        let _ = parent.kill();
        panic!("a skeleton of three nodes has three processes");
    };
    send(signal, &parent);
    let status = within(|| parent.try_wait().expect("it is ours"));
    let Some(status) = status else {
        let _ = parent.kill();
        panic!("it did not end after SIG{signal}");
    };
    let gone = within(|| children.iter().all(|id| !runs(*id)).then_some(()));
    assert!(gone.is_some(), "{children:?} are still there after SIG{signal}");
    let mut talk = String::new();
    parent.stderr.take().expect("a pipe").read_to_string(&mut talk).expect("text");
    (status.code(), talk)
}

fn send(signal: &str, to: &Child) {
    let kill = format!("kill -{signal} {}", to.id());
    let sent = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
    assert!(sent.success());
}

fn within<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// State and parent of a process.
fn stat(id: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut behind_name = stat.rsplit_once(") ")?.1.split(' ');
    Some((behind_name.next()?.chars().next()?, behind_name.next()?.parse().ok()?))
}

fn children_of(parent: u32) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").expect("a proc file system");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id| stat(*id).is_some_and(|(_, its_parent)| its_parent == parent)).collect()
}

/// A zombie whose new parent has not looked yet runs no more.
fn runs(id: u32) -> bool {
    stat(id).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

//! `quorate-bench journal` as a program.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate-bench"))
        .arg("journal")
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn appends_stand_beside_their_floor() {
    let dir = std::env::temp_dir().join(format!("quorate-bench-journal-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a writable temp folder");
    let name = dir.to_str().expect("text").to_owned();
    let output = bench(&["--payloads", "1024,4096", "--rounds", "2", "--dir", &name, "--json"]);
    let left_behind = std::fs::read_dir(&dir).expect("our own folder").count();
    std::fs::remove_dir_all(&dir).expect("our own folder");
    assert_eq!(left_behind, 0);

    let text = String::from_utf8(output.stdout).expect("text");
    let last = text.lines().last().expect("a report");
    let report: Value = serde_json::from_str(last).expect("an object");
    let payloads = report["payloads"].as_array().expect("a list");
    assert_eq!(payloads.len(), 2);
    for (one, bytes) in payloads.iter().zip([1024, 4096]) {
        assert_eq!(one["payload_bytes"], bytes);
        // Two rounds of 32 MiB, in batches of 32 frames; only the end of a segment is left out.
        let frames = 2 * 32 * 1024 * 1024 / (32 + bytes);
        for key in ["append_ns", "floor_ns"] {
            let count = one[key]["count"].as_i64().expect("a count");
            assert!((frames - count * 32).abs() < 32 * 8, "{key}: {count} of {frames}: {report}");
            let p50 = one[key]["p50"].as_f64().expect("enough samples for a median");
            assert!(p50 > 1.0 && p50 <= one[key]["max"].as_f64().expect("samples"), "{report}");
            assert!(one[key]["p99_9"].is_null(), "{report}");
            let name = key.trim_end_matches("_ns");
            let quickest = one["quickest_round_ns"][name].as_f64().expect("a median of a round");
            assert!(quickest > 1.0 && quickest <= p50 * 1.01, "{key}: {report}");
        }
        assert!(one["append_to_floor"]["p50"].as_f64().expect("a ratio") > 0.1, "{report}");
    }
    assert_eq!(report["append_ns"], payloads[0]["append_ns"], "no size is 64: the first one");
    assert!(report["environment"]["cores"].as_u64().expect("a count") > 0);
    let valid = report["valid"].as_bool().expect("yes or no");
    assert_eq!(output.status.code(), Some(i32::from(!valid)));
    assert_eq!(valid, report["why"].as_array().expect("a list").is_empty());
}

#[test]
fn wrong_use_is_told_by_the_flags_name() {
    for (arguments, code, name) in [
        (["--rounds", "0"], 2, "--rounds 0 is not between 1 and"),
        (["--payloads", "64,70000"], 2, "--payloads 70000 is not between 0 and 65536"),
        (["--payloads", "x"], 2, "--payloads"),
        (["--cpu", "4095"], 2, "--cpu 4095 is none of the CPUs"),
        (["--dir", "/nowhere"], 3, "creating a folder: No such file"),
    ] {
        let output = bench(&arguments);
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {talk}");
        assert!(talk.contains(name), "{arguments:?}: {talk}");
        assert!(output.stdout.is_empty());
    }
}

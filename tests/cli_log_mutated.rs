//! Every verb of `quorate-log` on logs that something went over: no panic, no hang, no write, and an exit code of its own.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod log_files;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use log_files::{Folder, Log, SEGMENT};

/// A call takes milliseconds; one that takes so long does not end.
const HANGS: Duration = Duration::from_secs(60);
const CALLS: &[&[&str]] = &[
    &["info"],
    &["ls"],
    &["dump", "-r", "--uncommitted"],
    &["tail", "-n", "3"],
    &["get", "700"],
    &["find", "--time", "2026-11-22T09:00:00.9Z"],
    &["grep", "9$", "--uncommitted"],
    &["verify", "--uncommitted"],
    &["hash", "--every", "100"],
    &["stats", "--uncommitted"],
    &["gaps"],
    &["terms"],
    &["sessions"],
    &["snapshots"],
    &["members"],
    &["trace", "700"],
    &["latency"],
    &["retention", "--size", "1"],
    &["export", "--uncommitted"],
    &["diff", "."],
];

fn shuffle(draw: &mut u64, below: u64) -> u64 {
    *draw ^= *draw << 13;
    *draw ^= *draw >> 7;
    *draw ^= *draw << 17;
    *draw % below
}

/// Changes a file as disks, people and other programs do.
fn mutate(draw: &mut u64, bytes: &mut Vec<u8>) {
    let mut random = |below: u64| shuffle(draw, below);
    let whole = bytes.len() as u64;
    let (at, length) = (random(whole) as usize, 1 + random(300) as usize);
    let end = bytes.len().min(at + length);
    match random(7) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << random(8),
        2 => bytes[at..end].fill(0),
        3 => bytes[at..end].fill(0xFF),
        // Numbers at their ends, where headers and frames have theirs.
        4 => {
            let at = at / 8 * 8;
            let value = [0, 1, u64::MAX, u64::MAX - 31, 1 << 63][random(5) as usize];
            bytes[at..][..8].copy_from_slice(&value.to_le_bytes());
        }
        5 => {
            let from = random(whole) as usize / 32 * 32;
            let copied = bytes[from..bytes.len().min(from + length)].to_vec();
            let at = at.min(bytes.len() - copied.len());
            bytes[at..][..copied.len()].copy_from_slice(&copied);
        }
        _ => {
            // In the header page, where the checksum is checked first.
            let at = random(4096) as usize;
            bytes[at] = random(256) as u8;
        }
    }
}

#[test]
fn no_mutation_of_a_log_makes_a_verb_panic_hang_or_write() {
    let made = Log::with_commands(1200);
    let rounds = std::env::var("QUORATE_MUTATIONS").ok().and_then(|text| text.parse().ok());
    let mut draw = 0x9E37_79B9_7F4A_7C15_u64;
    for round in 0..rounds.unwrap_or(20_u32) {
        let folder = Folder::new();
        made.write(&folder.0, made.tail.position);
        for _ in 0..=shuffle(&mut draw, 3) {
            let number = shuffle(&mut draw, made.starts.len() as u64);
            let file = format!("{:016x}.qlog", number * SEGMENT);
            folder.change(&file, |bytes| {
                if bytes.len() > 8192 {
                    mutate(&mut draw, bytes);
                }
            });
        }
        let before = files(&folder);
        for call in CALLS {
            let args = [&[call[0], "."], &call[1..], &["--json"]].concat();
            let mut child = Command::new(env!("CARGO_BIN_EXE_quorate-log"))
                .args(&args)
                .current_dir(&folder.0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let begun = Instant::now();
            while child.try_wait().unwrap().is_none() && begun.elapsed() < HANGS {
                std::thread::sleep(Duration::from_millis(1));
            }
            let ended = child.try_wait().unwrap().is_some();
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(ended, "round {round}: {args:?} does not end: {said}");
            let code = output.status.code();
            assert!(matches!(code, Some(0..=3)), "round {round}: {args:?}: {code:?}: {said}");
        }
        assert!(before == files(&folder), "round {round}: something was written");
    }
}

fn files(folder: &Folder) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(&folder.0).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

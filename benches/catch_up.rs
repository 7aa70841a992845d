//! How fast a follower that was away catches up, without other load, beside the same bytes copied over TCP between two
//! processes.
//!
//! A group of three on this host writes `--megabytes N` while one follower is away; what it takes to get them is what its
//! event says (Q-1120). By turns with that another process sends the files of a node over a plain connection to this one, which
//! (a) throws them away, and (b) writes them to files and syncs those at the end: what the follower must do besides checking
//! and applying them. `--rounds N`; the folder is the temporary one (`TMPDIR`).
//!
//! Informs only: the exit code is 0 whatever the figures are.
#![allow(clippy::unwrap_used)] // what cannot be measured is not worth going on for

#[path = "../tests/support/group.rs"]
mod group;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use group::Group;
use serde_json::Value;

const COMMAND_BYTES: usize = 16 * 1024;
const COPY_BYTES: usize = 128 * 1024;
/// Every node sends as fast as it can.
const UNPACED: &str = "catch_up.bytes_per_second=1099511627776";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    if let (Some(from), Some(to)) = (value("--send"), value("--to")) {
        return send(Path::new(&from), &to);
    }
    let number = |name: &str, default| value(name).map_or(default, |text| text.parse().unwrap());
    let (megabytes, rounds) = (number("--megabytes", 256), number("--rounds", 3));
    println!("catching up {megabytes} MB, {rounds} rounds; MB/s");
    println!(
        "{:>10} {:>12} {:>16} {:>8} {:>8}",
        "catch-up", "a TCP copy", "b and to files", "of a", "of b"
    );
    for _ in 0..rounds {
        let mut group = Group::start(3, "echo", &[UNPACED]);
        let taken = catch_up(&mut group, megabytes);
        let (thrown, kept) = (copy(&group, None), copy(&group, Some(group.path())));
        group.stop_all();
        let (of_thrown, of_kept) = (taken / thrown * 100.0, taken / kept * 100.0);
        println!("{taken:>10.0} {thrown:>12.0} {kept:>16.0} {of_thrown:>7.0}% {of_kept:>7.0}%");
    }
}

/// MB/s of a follower that was away.
fn catch_up(group: &mut Group, megabytes: u64) -> f64 {
    group.stop(2);
    let mut caller = group.client("load");
    caller.load(megabytes * 1_000_000 / COMMAND_BYTES as u64, COMMAND_BYTES);
    caller.close();
    group.settle();
    group.start_node(2);
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(Instant::now() < deadline, "it does not catch up:\n{}", group.told(2));
        if let Some((bytes, ms)) = caught_up(&group.events(2)) {
            return bytes / 1000.0 / ms;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What was taken, in bytes, and how long that took, ms.
fn caught_up(events: &str) -> Option<(f64, f64)> {
    let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let event = events.into_iter().find(|event| event["code"] == "Q-1120")?;
    let text = event["text"].as_str()?.to_owned();
    let (bytes, rest) = text.split_once(" bytes were taken")?;
    let (_, rest) = rest.split_once(" in ")?;
    let (ms, _) = rest.split_once(" ms")?;
    let bytes = bytes.rsplit(' ').next()?;
    Some((bytes.parse().ok()?, ms.parse::<f64>().ok()?.max(1.0)))
}

/// MB/s of the files of node 0, sent by another process and thrown away, or kept in files.
fn copy(group: &Group, keep: Option<&Path>) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = Command::new(std::env::current_exe().unwrap());
    sender.arg("--send").arg(group.data(0)).arg("--to");
    let mut sender = sender.arg(listener.local_addr().unwrap().to_string()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let started = Instant::now();
    let mut buffer = vec![0; COPY_BYTES];
    let (mut all, mut file) =
        (0_u64, keep.map(|folder| File::create(folder.join("copy")).unwrap()));
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        if let Some(file) = &mut file {
            file.write_all(&buffer[..count]).unwrap();
        }
        all += count as u64;
    }
    if let Some(file) = file {
        file.sync_data().unwrap();
    }
    let passed = started.elapsed();
    assert!(sender.wait().unwrap().success());
    all as f64 / 1e6 / passed.as_secs_f64()
}

/// The other process.
fn send(folder: &Path, to: &str) {
    let mut stream = TcpStream::connect(to).unwrap();
    let mut buffer = vec![0; COPY_BYTES];
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == "qlog"));
    files.sort();
    for path in files {
        let mut file = File::open(path).unwrap();
        loop {
            let count = file.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            stream.write_all(&buffer[..count]).unwrap();
        }
    }
}

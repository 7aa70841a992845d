//! Programs that `quorate-bench` starts end with it, even when it is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BENCH: &str = env!("CARGO_BIN_EXE_quorate-bench");

#[test]
fn a_program_that_was_become_ends_with_its_parent() {
    // The shell is the parent: it starts one, says its number, and waits.
    let script = format!("{BENCH} bench-become --parent $$ -- sleep 60 & echo $!; wait");
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    let mut line = String::new();
    let output = shell.stdout.take().expect("a pipe");
    BufReader::new(output).read_line(&mut line).expect("text");
    let id: u32 = line.trim().parse().expect("a process number");
    let became = within(|| name(id).is_some_and(|name| name == "sleep"));
    shell.kill().expect("it is ours");
    shell.wait().expect("it was killed");
    assert!(became, "it never became the program");
    assert!(within(|| name(id).is_none()), "{id} outlived its parent");
}

#[test]
fn what_cannot_be_become_is_an_error() {
    let run = |parent: u32, command: &str| {
        let output = Command::new(BENCH)
            .args(["bench-become", "--parent", &parent.to_string(), "--", command])
            .output()
            .expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, talk) = run(std::process::id(), "/nowhere/program");
    assert_eq!(code, Some(3), "{talk}");
    assert!(talk.contains("becoming another program: No such file"), "{talk}");
    let (code, talk) = run(1, "true");
    assert_eq!(code, Some(3), "{talk}");
    assert!(talk.contains("the parent process has already ended"), "{talk}");
}

/// Name of a process that runs.
fn name(id: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (before, behind) = stat.rsplit_once(") ")?;
    let dead = behind.starts_with(['Z', 'X']);
    (!dead).then(|| before.split_once('(').map(|(_, name)| name.to_owned())).flatten()
}

fn within(mut look: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if look() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

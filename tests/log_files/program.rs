//! `quorate-log` as a process.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs it.
pub fn log(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate-log")).args(args).output().unwrap()
}

/// Runs a line of a shell in a folder, in which the program is found by its name.
pub fn shell(folder: &Path, line: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_quorate-log"));
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", program.parent().unwrap().display());
    Command::new("sh").args(["-c", line]).current_dir(folder).env("PATH", path).output().unwrap()
}

/// What it printed.
pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it said.
pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// How it ended; a signal is none of the ways.
pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

/// Runs a verb with `--json` and reads its lines.
pub fn json(args: &[&str]) -> (Vec<Value>, i32) {
    let output = log(&[args, &["--json"]].concat());
    let lines = out(&output);
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), code(&output))
}

/// The numbers of the entries that a verb shows.
pub fn sequences(args: &[&str]) -> Vec<u64> {
    let (lines, _) = json(args);
    lines.iter().filter_map(|line| line["sequence"].as_u64()).collect()
}

/// All verbs, as its help lists them.
pub fn verbs() -> Vec<String> {
    let help = out(&log(&["--help"]));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

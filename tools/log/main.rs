//! `quorate-log`: looks into the log of a node, live or dead, and never writes to it.
//!
//! Every verb takes a node's data directory, a directory of copied segments, one segment file, or a file of `quarantine/`.
//! What cannot be read is said exactly (file, offset, position, the rule that is broken), and the rest is decoded.

mod about;
mod args;
mod backup;
mod cursor;
mod decode;
mod decoder;
mod diff;
mod dump;
mod export;
mod find;
mod gaps;
mod get;
mod grep;
mod hash;
mod import;
mod info;
mod latency;
mod list;
mod ls;
mod members;
mod parallel;
mod parse;
mod pcap;
mod problem;
mod render;
mod resume;
mod retention;
mod select;
mod sessions;
mod snapshots;
mod stats;
mod tail;
mod terms;
mod trace;
mod verify;
mod walk;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Looks into the log of a node, live or dead. Never writes to it.
///
/// PATH is a node's data directory, a directory of copied segments, a backup, one segment file (.qlog), or a file of
/// quarantine/. On a directory, reading stops at the commit position as far as it is known; --uncommitted reads on.
///
/// Exit codes: 0 done, 1 findings, 2 wrong use, 3 damage or failure.
#[derive(Parser)]
#[command(name = "quorate-log", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Info(info::Args),
    Ls(ls::Args),
    Dump(dump::Args),
    Tail(tail::Args),
    Get(get::Args),
    Find(find::Args),
    Grep(grep::Args),
    Gaps(gaps::Args),
    Hash(hash::Args),
    Diff(diff::Args),
    Sessions(sessions::Args),
    Terms(terms::Args),
    Snapshots(snapshots::Args),
    Members(members::Args),
    Trace(trace::Args),
    Latency(latency::Args),
    Retention(retention::Args),
    Export(export::Args),
    Import(import::Args),
    Completions(about::Completions),
    Man(about::Manual),
    Verify(verify::Args),
    Stats(stats::Args),
}

fn main() -> ExitCode {
    let code = match Cli::parse().verb {
        Verb::Info(args) => info::run(&args),
        Verb::Ls(args) => ls::run(&args),
        Verb::Dump(args) => dump::run(&args),
        Verb::Tail(args) => tail::run(&args),
        Verb::Get(args) => get::run(&args),
        Verb::Find(args) => find::run(&args),
        Verb::Grep(args) => grep::run(&args),
        Verb::Gaps(args) => gaps::run(&args),
        Verb::Hash(args) => hash::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Sessions(args) => sessions::run(&args),
        Verb::Terms(args) => terms::run(&args),
        Verb::Snapshots(args) => snapshots::run(&args),
        Verb::Members(args) => members::run(&args),
        Verb::Trace(args) => trace::run(&args),
        Verb::Latency(args) => latency::run(&args),
        Verb::Retention(args) => retention::run(&args),
        Verb::Export(args) => export::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Completions(args) => about::completions(&args, Cli::command()),
        Verb::Man(args) => about::manual(&args, &Cli::command()),
        Verb::Verify(args) => verify::run(&args),
        Verb::Stats(args) => stats::run(&args),
    };
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}

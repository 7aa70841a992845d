//! `quorate-log snapshots`: the states that are kept beside a log.

use std::io::{self, Write};

use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_FAILURE};
use quorate::io::beside::BesideDisk;
use quorate::io::log_reader::LogReader;
use quorate::journal::snapshot::{SnapshotReader, Stamp, snapshot_name, snapshots, verify};
use quorate::runtime::terminal::with_stdout;

use crate::args::Source;
use crate::render::{table, time_text};

/// Lists the snapshots of a data directory or a backup; exit code 3: one of them is damaged
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log snapshots group/node-0
  quorate-log snapshots group/node-0 --deep --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Read every block of each
    #[arg(long)]
    deep: bool,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(reader) => with_stdout(|out| list(out, args, &reader)),
        Err(code) => code,
    }
}

fn list(out: &mut dyn Write, args: &Args, reader: &LogReader) -> io::Result<u8> {
    let disk = BesideDisk::new(args.source.path());
    let mut code = EXIT_DONE;
    let titles =
        ["FILE", "SEQUENCE", "TERM", "GENERATION", "SERVICE", "BYTES", "STATE_HASH", "TIME"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let mut wrong = Vec::new();
    // Beside a single file there are none.
    let found = if args.source.path().is_dir() { snapshots(&disk)? } else { Vec::new() };
    for position in found {
        let name = snapshot_name(position);
        let stamp = if args.deep {
            verify(&disk, reader.group(), position, &mut |_| Ok(()))
        } else {
            SnapshotReader::open(&disk, reader.group(), position).map(|found| found.stamp().clone())
        };
        match stamp {
            Ok(stamp) if args.source.json => writeln!(out, "{}", object(&name, &stamp))?,
            Ok(stamp) => rows.push(row(&name, &stamp)),
            Err(error) => {
                code = EXIT_FAILURE;
                if args.source.json {
                    writeln!(out, "{}", json!({ "file": name, "problem": error.to_string() }))?;
                } else {
                    wrong.push(format!("! {name}: {error}"));
                }
            }
        }
    }
    if !args.source.json {
        table(out, &rows, &["FILE", "GENERATION", "SERVICE", "STATE_HASH", "TIME"])?;
    }
    for line in wrong {
        writeln!(out, "{line}")?;
    }
    Ok(code)
}

fn object(name: &str, stamp: &Stamp) -> serde_json::Value {
    json!({
        "file": name,
        "position": stamp.before.position.0,
        "sequence": stamp.before.sequence.0,
        "term": stamp.before.term.0,
        "generation": stamp.generation.to_string(),
        "chain": format!("{:08x}", stamp.before.chain.0),
        "time": time_text(stamp.time),
        "service": stamp.service,
        "service_version": stamp.service_version,
        "state_bytes": stamp.state_bytes,
        "state_hash": format!("{:016x}", stamp.state_hash),
    })
}

fn row(name: &str, stamp: &Stamp) -> Vec<String> {
    vec![
        name.to_owned(),
        stamp.before.sequence.to_string(),
        stamp.before.term.to_string(),
        stamp.generation.to_string(),
        format!("{} {}", stamp.service, stamp.service_version),
        stamp.state_bytes.to_string(),
        format!("{:016x}", stamp.state_hash),
        time_text(stamp.time),
    ]
}

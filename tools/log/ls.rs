//! `quorate-log ls`: the files of a log.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use quorate::error::{EXIT_DONE, EXIT_FAILURE};
use quorate::io::log_reader::{LogReader, SegmentFile, Tier};
use quorate::journal::segment_header::{Content, HeaderError};
use quorate::runtime::terminal::with_stdout;

use crate::args::Source;
use crate::render::table;

/// Folder of saved bytes in a data directory.
const QUARANTINE: &str = "quarantine";

/// Lists the files of a log, hot and durable, and what was cut from it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log ls group/node-0
  quorate-log ls group/node-0 --durable --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(reader) => with_stdout(|out| list(out, args, &reader)),
        Err(code) => code,
    }
}

fn list(out: &mut dyn Write, args: &Args, reader: &LogReader) -> io::Result<u8> {
    let mut files = reader.segments().to_vec();
    files.extend(saved(args.source.path()));
    let mut code = EXIT_DONE;
    let titles =
        ["FILE", "TIER", "BASE", "BYTES", "SEQUENCE", "TERM", "GENERATION", "CERTAIN", "CLAIMED"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for file in &files {
        if !matches!(file.header, Ok(_) | Err(HeaderError::Blank)) {
            code = EXIT_FAILURE;
        }
        if args.source.json {
            writeln!(out, "{}", object(file))?;
        } else {
            rows.push(row(file));
        }
    }
    if !args.source.json {
        table(out, &rows, &["FILE", "TIER", "GENERATION"])?;
        for file in &files {
            match file.header {
                Ok(_) | Err(HeaderError::Blank) => {}
                Err(error) => writeln!(out, "! {}: {error}", file.path.display())?,
            }
        }
    }
    Ok(code)
}

/// Files of bytes that were cut from the log of this directory.
pub(crate) fn saved(data: &Path) -> Vec<SegmentFile> {
    let entries = fs::read_dir(data.join(QUARANTINE)).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter_map(|entry| LogReader::open(&entry.path(), crate::args::EVERYTHING).ok())
        .flat_map(|reader| reader.segments().to_vec())
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn tier(file: &SegmentFile) -> &'static str {
    match (&file.header, file.tier) {
        (Ok(header), _) if header.content == Content::Quarantine => "saved",
        (_, Tier::Durable) => "durable",
        (_, Tier::Hot) => "hot",
    }
}

/// What is said of the header page where it cannot be read.
fn state(error: &HeaderError) -> String {
    match error {
        HeaderError::Blank => "prepared".to_owned(),
        error => error.to_string(),
    }
}

fn row(file: &SegmentFile) -> Vec<String> {
    let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut row = vec![name, tier(file).to_owned(), file.base.to_string(), file.bytes.to_string()];
    match &file.header {
        Ok(header) => row.extend([
            header.before.sequence.next().to_string(),
            header.before.term.to_string(),
            header.generation.to_string(),
        ]),
        Err(HeaderError::Blank) => {
            row.extend(["-".to_owned(), "-".to_owned(), "(prepared)".to_owned()]);
        }
        Err(_) => row.extend(["-".to_owned(), "-".to_owned(), "(damaged)".to_owned()]),
    }
    let seal = file.seal.as_ref();
    row.push(seal.map_or("-".to_owned(), |seal| seal.certain.position.to_string()));
    row.push(seal.map_or("-".to_owned(), |seal| seal.claimed.position.to_string()));
    row
}

fn object(file: &SegmentFile) -> Value {
    let header = file.header.ok();
    json!({
        "file": file.path.display().to_string(),
        "tier": tier(file),
        "base": file.base.0,
        "bytes": file.bytes,
        "header": file.header.as_ref().err().map_or("good".to_owned(), state),
        "group": header.map(|header| format!("{:016x}", header.group.0)),
        "generation": header.map(|header| header.generation.to_string()),
        "segment_bytes": header.map(|header| header.segment_bytes),
        "first_sequence": header.map(|header| header.before.sequence.next().0),
        "term_before": header.map(|header| header.before.term.0),
        "chain_before": header.map(|header| format!("{:08x}", header.before.chain.0)),
        "cut_epoch": header.map(|header| header.cut_epoch.0),
        "seal": file.seal.map(|seal| json!({
            "number": seal.number,
            "epoch": seal.epoch.0,
            "certain": seal.certain.position.0,
            "claimed": seal.claimed.position.0,
            "known_commit": seal.known_commit.position().0,
        })),
    })
}

//! `quorate-log terms`: who led, from where to where, and how long.

use core::ops::ControlFlow;
use std::io::{self, Write};

use serde_json::json;
use zerocopy::FromBytes;

use quorate::error::EXIT_DONE;
use quorate::frame::Kind;
use quorate::frame::payload::TermStart;
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::runtime::terminal::with_stdout;
use quorate::types::{Generation, Timestamp};

use crate::args::Source;
use crate::dump::say_end;
use crate::render::{self, table, time_text};
use crate::select::Selection;
use crate::walk::{Step, walk};

/// Lists leaderships: term, leader, generation, entries, and how long each lasted
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log terms group/node-0
  quorate-log terms group/node-0 --term 1.. --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    selection: Selection,
}

/// A leadership, as far as its entries are in the log.
struct Leadership {
    term: u32,
    /// None: its start is not in the log, or not among what was selected.
    start: Option<TermStart>,
    position: u64,
    sequences: (u64, u64),
    entries: u64,
    times: (Timestamp, Timestamp),
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| list(out, args, &mut reader)),
        Err(code) => code,
    }
}

fn list(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let mut terms: Vec<Leadership> = Vec::new();
    let mut problems = Vec::new();
    let mut code = EXIT_DONE;
    args.selection.start(reader);
    let end = walk(reader, |step| {
        match step {
            Step::Problem(problem) => {
                code = code.max(problem.what.code(false));
                problems.push(problem.clone());
            }
            Step::Frame(_, found) if args.selection.is_over(&found) => {
                return Ok(ControlFlow::Break(()));
            }
            Step::Frame(_, found) if args.selection.wants(&found) => count(&mut terms, &found),
            Step::Frame(..) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    print(out, args.source.json, &terms)?;
    for problem in &problems {
        render::problem(out, args.source.json, problem)?;
    }
    out.flush()?;
    say_end(reader, end);
    Ok(code)
}

fn count(terms: &mut Vec<Leadership>, found: &Found<'_>) {
    let header = &found.header;
    let (term, sequence, time) = (header.term().0, header.sequence().0, header.timestamp());
    match terms.last_mut().filter(|last| last.term == term) {
        Some(last) => {
            last.entries += 1;
            last.sequences.1 = sequence;
            last.times.1 = last.times.1.max(time);
        }
        None => terms.push(Leadership {
            term,
            start: None,
            position: found.position.0,
            sequences: (sequence, sequence),
            entries: 1,
            times: (time, time),
        }),
    }
    if header.kind() == Some(Kind::TermStart)
        && let Some(last) = terms.last_mut()
    {
        last.start = TermStart::read_from_prefix(found.payload).ok().map(|(start, _)| start);
    }
}

fn print(out: &mut dyn Write, json: bool, terms: &[Leadership]) -> io::Result<()> {
    let titles = [
        "TERM",
        "GENERATION",
        "LEADER",
        "POSITION",
        "FIRST",
        "LAST",
        "ENTRIES",
        "STARTED",
        "SECONDS",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for Leadership { term, start, position, sequences, entries, times } in terms {
        let generation =
            start.map(|start| Generation::from_u64(start.generation.get()).to_string());
        let leader = start.map(|start| start.leader.get());
        let seconds = times.1.0.saturating_sub(times.0.0) as f64 / 1e9;
        if json {
            let line = json!({
                "term": term,
                "generation": generation,
                "leader": leader,
                "position": position,
                "first_sequence": sequences.0,
                "last_sequence": sequences.1,
                "entries": entries,
                "first_time": time_text(times.0),
                "last_time": time_text(times.1),
                "seconds": seconds,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        rows.push(vec![
            term.to_string(),
            generation.unwrap_or_else(|| "-".to_owned()),
            leader.map_or("-".to_owned(), |leader| leader.to_string()),
            position.to_string(),
            sequences.0.to_string(),
            sequences.1.to_string(),
            entries.to_string(),
            time_text(times.0),
            format!("{seconds:.3}"),
        ]);
    }
    if json { Ok(()) } else { table(out, &rows, &["GENERATION", "STARTED"]) }
}

//! `quorate-log hash`: the running checksum at places of the log, to be compared with another node's by whatever compares text.

use core::ops::ControlFlow;
use std::io::{self, Write};

use serde_json::json;

use quorate::error::EXIT_DONE;
use quorate::frame::{Kind, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::runtime::terminal::with_stdout;

use crate::args::Source;
use crate::dump::say_end;
use crate::list::starts;
use crate::render;
use crate::walk::{Step, start_at, walk};

/// Prints the running checksum, which covers all before it, at the start of each segment and at the end
///
/// Two logs with the same line are the same up to there. Without --every only header pages and the last segment are read.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log hash group/node-0
  quorate-log hash group/node-0 --every 5 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// After each entry whose number is a multiple of N: reads all of it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| hash(out, args, &mut reader)),
        Err(code) => code,
    }
}

fn hash(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let json = args.source.json;
    if !json {
        writeln!(out, "{:>16} {:>12} {:>8}  CHAIN", "POSITION", "SEQUENCE", "TERM")?;
    }
    if args.every.is_none() {
        for start in starts(reader) {
            line(out, json, start)?;
        }
        start_at(reader, |_| true);
    }
    let mut code = EXIT_DONE;
    let mut last = None;
    let end = walk(reader, |step| {
        match (step, args.every) {
            (Step::Problem(problem), _) => {
                render::problem(out, json, problem)?;
                code = code.max(problem.what.code(false));
            }
            (Step::Frame(before, found), Some(every)) => {
                let at = before.after(&found.header);
                let wanted = found.header.kind() != Some(Kind::Padding)
                    && found.header.sequence().0.is_multiple_of(every);
                if wanted {
                    line(out, json, at)?;
                    last = Some(at);
                }
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if last != Some(end.at) {
        line(out, json, end.at)?;
    }
    out.flush()?;
    say_end(reader, end);
    Ok(code)
}

fn line(out: &mut dyn Write, json: bool, at: Predecessor) -> io::Result<()> {
    let Predecessor { position, sequence, term, chain } = at;
    if json {
        let chain = format!("{:08x}", chain.0);
        let line = json!({ "position": position.0, "sequence": sequence.0, "term": term.0, "chain": chain });
        return writeln!(out, "{line}");
    }
    writeln!(out, "{position:>16} {sequence:>12} {term:>8}  {:08x}", chain.0)
}

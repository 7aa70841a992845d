//! `quorate-log diff`: where two logs part.
//!
//! Each header page names the running checksum of all before it. So the last segment up to which two logs are the same is
//! found by bisection over header pages, and only that segment is read.

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::{Value, json};

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS};
use quorate::frame::{FrameHeader, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::Position;

use crate::args::Source;
use crate::dump::{Look, decoder_code};
use crate::list::starts;
use crate::problem::Problem;
use crate::render;
use crate::walk::{damage, start_at, walk};

/// Says where two logs part; exit code 1: they do. One that is behind the other is no difference
///
/// Reads header pages, and the one segment in which they part or end. Whether the bytes below are as they were written is
/// for `verify` to say, or for --deep, which reads all of both.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log diff group/node-0 group/node-1
  quorate-log diff group/node-0 group/node-1 --uncommitted --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// The other log
    other: PathBuf,
    /// Read all of both
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    look: Look,
}

/// How two logs are to each other.
enum Verdict {
    /// Of two groups.
    Groups,
    /// No segment start is in both: there is nothing to compare.
    Apart,
    /// Already before the first segment that both have.
    Below(Predecessor, Predecessor),
    /// From behind this on.
    Part(Predecessor),
    /// At least one ends, and nothing before is different.
    Same(Predecessor),
}

pub(crate) fn run(args: &Args) -> u8 {
    let other = args.source.beside(&args.other);
    let opened = args.source.open().and_then(|first| Ok((first, other.open()?)));
    match opened {
        Ok((mut first, mut second)) => with_stdout(|out| diff(out, args, &mut first, &mut second)),
        Err(code) => code,
    }
}

fn diff(
    out: &mut dyn Write,
    args: &Args,
    first: &mut LogReader,
    second: &mut LogReader,
) -> io::Result<u8> {
    let verdict = match compare(args.deep, first, second) {
        Ok(verdict) => verdict,
        Err(problem) => {
            complain(&problem);
            return Ok(EXIT_FAILURE);
        }
    };
    let decoder = match args.look.decoder() {
        Ok(decoder) => decoder,
        Err(code) => return Ok(code),
    };
    let show = args.look.commands(args.source.json, decoder.as_ref());
    let names = [args.source.path(), &args.other].map(|path| path.display().to_string());
    let code = match verdict {
        Verdict::Same(_) => EXIT_DONE,
        _ => EXIT_FINDINGS,
    };
    if show.json {
        writeln!(out, "{}", object(&verdict, &names, first, second)?)?;
    } else {
        say(out, &verdict, &names, first, second)?;
    }
    if let Verdict::Part(before) = verdict {
        for (sign, reader) in [("-", first), ("+", second)] {
            reader.restart(before);
            if let Ok(Some(found)) = reader.next_frame() {
                if !show.json {
                    write!(out, "{sign} ")?;
                }
                render::entry(out, show, &found)?;
            }
        }
    }
    Ok(code.max(decoder_code(decoder.as_ref())))
}

fn compare(deep: bool, first: &mut LogReader, second: &mut LogReader) -> Result<Verdict, Problem> {
    if first.group() != second.group() || first.segment_bytes() != second.segment_bytes() {
        return Ok(Verdict::Groups);
    }
    let by_position = |reader: &LogReader| -> BTreeMap<Position, Predecessor> {
        starts(reader).into_iter().map(|start| (start.position, start)).collect()
    };
    let (in_first, in_second) = (by_position(first), by_position(second));
    let common: Vec<_> = in_first
        .iter()
        .filter_map(|(position, start)| Some((*start, *in_second.get(position)?)))
        .collect();
    let Some(&lowest) = common.first() else { return Ok(Verdict::Apart) };
    if lowest.0 != lowest.1 {
        return Ok(Verdict::Below(lowest.0, lowest.1));
    }
    let same = if deep { 1 } else { common.partition_point(|(first, second)| first == second) };
    let (start, _) = common[same - 1];
    first.restart(start);
    second.restart(start);
    step_by_step(first, second)
}

fn step_by_step(first: &mut LogReader, second: &mut LogReader) -> Result<Verdict, Problem> {
    loop {
        let before = first.before();
        let (one, other) = (next(first)?, next(second)?);
        match (one, other) {
            (Some(one), Some(other)) if one == other => {}
            (Some(_), Some(_)) => return Ok(Verdict::Part(before)),
            _ => return Ok(Verdict::Same(before)),
        }
    }
}

/// The next frame's header; none: the log ends.
fn next(reader: &mut LogReader) -> Result<Option<FrameHeader>, Problem> {
    match reader.next_frame() {
        Ok(found) => Ok(found.map(|Found { header, .. }| header)),
        Err(trouble) => damage(reader, &trouble).map_or(Ok(None), Err),
    }
}

/// Where a log ends.
fn end_of(reader: &mut LogReader) -> io::Result<Predecessor> {
    start_at(reader, |_| true);
    Ok(walk(reader, |_| Ok(ControlFlow::Continue(())))?.at)
}

fn say(
    out: &mut dyn Write,
    verdict: &Verdict,
    names: &[String; 2],
    first: &mut LogReader,
    second: &mut LogReader,
) -> io::Result<()> {
    match verdict {
        Verdict::Groups => writeln!(out, "logs of two groups, or of segments of two sizes"),
        Verdict::Apart => writeln!(out, "no segment is in both: nothing to compare"),
        Verdict::Below(one, other) => writeln!(
            out,
            "they part below position {}, where the first segment begins that both have: checksum {:08x} and {:08x}",
            one.position, one.chain.0, other.chain.0
        ),
        Verdict::Part(before) => {
            writeln!(out, "the same up to position {}, entry {}", before.position, before.sequence)
        }
        Verdict::Same(at) => {
            let ends = [end_of(first)?, end_of(second)?];
            writeln!(out, "the same up to position {}, entry {}", at.position, at.sequence)?;
            for (name, end) in names.iter().zip(ends) {
                match end.sequence.0.saturating_sub(at.sequence.0) {
                    0 => writeln!(out, "{name} ends there")?,
                    more => writeln!(out, "{name} has {more} entries more")?,
                }
            }
            Ok(())
        }
    }
}

fn object(
    verdict: &Verdict,
    names: &[String; 2],
    first: &mut LogReader,
    second: &mut LogReader,
) -> io::Result<Value> {
    let place = |word: &str, at: &Predecessor| {
        let (position, sequence) = (at.position.0, at.sequence.0);
        json!({ "verdict": word, "logs": names, "position": position, "sequence": sequence })
    };
    Ok(match verdict {
        Verdict::Groups => json!({ "verdict": "two groups", "logs": names }),
        Verdict::Apart => json!({ "verdict": "apart", "logs": names }),
        Verdict::Below(one, _) => place("different below", one),
        Verdict::Part(before) => place("different", before),
        Verdict::Same(at) => {
            let ends = [end_of(first)?, end_of(second)?].map(|end| end.sequence.0);
            let mut object = place("same", at);
            object["last_sequences"] = json!(ends);
            object
        }
    })
}

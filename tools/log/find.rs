//! `quorate-log find`: where in the log, and in which file, a time, an entry or a position is.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use quorate::error::{EXIT_DONE, EXIT_FINDINGS};
use quorate::frame::Kind;
use quorate::io::log_reader::{LogReader, Target};
use quorate::journal::reader::Trouble;
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::{Position, Sequence, Timestamp};

use crate::args::Source;
use crate::get::{gone, wanted};
use crate::parse::time;
use crate::render::{head, print_fields};

/// Says where the first entry at or after a time, or a number, or a position stands; exit code 1: there is none
///
/// However long the log is, a handful of its pages are read.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log find group/node-0 --time 2026-11-22T09:00:00.004Z
  quorate-log find group/node-0 --sequence 5 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    what: What,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The first entry at or after it: 2026-11-22T09:30:00Z, 09:30 today (UTC), nanoseconds since 1970, `5m`, `2 hours ago`
    #[arg(long, value_name = "TIME", value_parser = time)]
    time: Option<Timestamp>,
    /// The entry of this number
    #[arg(long, value_name = "NUMBER", value_parser = wanted)]
    sequence: Option<u64>,
    /// The entry that holds this position
    #[arg(long, value_name = "POSITION", value_parser = wanted)]
    position: Option<u64>,
}

pub(crate) fn run(args: &Args) -> u8 {
    let target = match (args.what.time, args.what.sequence, args.what.position) {
        (Some(time), ..) => Target::Time(time),
        (_, Some(sequence), _) => Target::Sequence(Sequence(sequence)),
        (.., position) => Target::Position(Position(position.unwrap_or(0))),
    };
    match args.source.open_for(target) {
        Ok(mut reader) => with_stdout(|out| find(out, args, target, &mut reader)),
        Err(code) => code,
    }
}

/// Goes to it; padding in front of an entry has its time and its sequence is passed.
pub(crate) fn arrive(reader: &mut LogReader, target: Target) -> Result<bool, Trouble> {
    if !reader.go_to(target)? {
        return Ok(false);
    }
    let here = reader.before();
    let is_padding = reader.next_frame()?.is_some_and(|found| {
        found.header.kind() == Some(Kind::Padding) && !matches!(target, Target::Position(_))
    });
    if !is_padding {
        reader.restart(here);
    }
    Ok(true)
}

fn find(
    out: &mut dyn Write,
    args: &Args,
    target: Target,
    reader: &mut LogReader,
) -> io::Result<u8> {
    let arrived = arrive(reader, target);
    let place = reader.place_of(reader.before().position);
    let place = place.map(|(path, offset)| (path.display().to_string(), offset));
    let found = match arrived {
        Ok(true) => reader.next_frame(),
        Ok(false) => Ok(None),
        Err(trouble) => Err(trouble),
    };
    match found {
        Ok(Some(found)) => {
            let (file, offset) = place.unzip();
            let mut fields: Vec<(&str, Value)> = head(&found).to_vec();
            fields.extend([("file", json!(file)), ("offset", json!(offset))]);
            if args.source.json {
                let object: Map<_, _> =
                    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                writeln!(out, "{}", Value::Object(object))?;
            } else {
                print_fields(out, &fields)?;
            }
            Ok(EXIT_DONE)
        }
        Ok(None) => {
            complain(&format_args!("the log ends below it, at {}", reader.before().position));
            Ok(EXIT_FINDINGS)
        }
        Err(trouble) => Ok(gone(reader, &trouble)),
    }
}

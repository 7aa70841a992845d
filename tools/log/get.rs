//! `quorate-log get`: one entry, all of it.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use quorate::error::{EXIT_FAILURE, EXIT_FINDINGS};
use quorate::io::log_reader::{LogReader, Target};
use quorate::journal::reader::{Found, Trouble};
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::{Position, Sequence};

use crate::args::Source;
use crate::decode::{Commands, fields};
use crate::decoder::Decoder;
use crate::dump::{Look, decoder_code};
use crate::find::arrive;
use crate::parse::number;
use crate::render::{self, head, print_fields};
use crate::select::digits;
use crate::walk::damage;

/// Shows one entry, all of it: fields, bytes, and where it stands; exit code 1: there is none
///
/// However long the log is, a handful of its pages are read.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log get group/node-0 5
  quorate-log get group/node-0 --position 0 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Its number
    #[arg(value_parser = wanted, required_unless_present = "position", conflicts_with = "position")]
    sequence: Option<u64>,
    /// The entry that holds this position
    #[arg(long, value_name = "POSITION", value_parser = wanted)]
    position: Option<u64>,
    #[command(flatten)]
    look: Look,
}

/// A number, said what it should be where it is none.
pub(crate) fn wanted(text: &str) -> Result<u64, String> {
    number(text).ok_or_else(|| "a number (0x for hexadecimal)".to_owned())
}

pub(crate) fn run(args: &Args) -> u8 {
    let target = match (args.sequence, args.position) {
        (Some(sequence), _) => Target::Sequence(Sequence(sequence)),
        (None, position) => Target::Position(Position(position.unwrap_or(0))),
    };
    let opened = args.source.open_for(target).and_then(|reader| Ok((reader, args.look.decoder()?)));
    match opened {
        Ok((mut reader, decoder)) => {
            with_stdout(|out| get(out, args, target, decoder.as_ref(), &mut reader))
        }
        Err(code) => code,
    }
}

fn get(
    out: &mut dyn Write,
    args: &Args,
    target: Target,
    decoder: Option<&Decoder>,
    reader: &mut LogReader,
) -> io::Result<u8> {
    let mut show = args.look.commands(args.source.json, decoder);
    show.whole = true;
    let arrived = arrive(reader, target);
    let limit = reader.limit();
    let place = reader.place_of(reader.before().position);
    let found = match arrived {
        Ok(true) => reader.next_frame(),
        Ok(false) => Ok(None),
        Err(trouble) => Err(trouble),
    };
    match found {
        Ok(Some(found)) if is_it(target, &found) => {
            let place = place.map(|(path, offset)| (path.display().to_string(), offset));
            whole(out, show, &found, place)?;
            Ok(decoder_code(decoder))
        }
        Ok(_) => {
            let known = limit < Position(u64::MAX);
            if known {
                complain(&format_args!("not in this log, up to the commit position {limit}"));
            } else {
                complain(&"not in this log");
            }
            Ok(EXIT_FINDINGS)
        }
        Err(trouble) => Ok(gone(reader, &trouble)),
    }
}

/// Says that what is looked for is not there, and whether that is damage.
pub(crate) fn gone(reader: &mut LogReader, trouble: &Trouble) -> u8 {
    if let Some(problem) = damage(reader, trouble) {
        complain(&problem);
        return EXIT_FAILURE;
    }
    complain(&format_args!("not in this log, which ends at {}", trouble.position));
    EXIT_FINDINGS
}

fn is_it(target: Target, found: &Found<'_>) -> bool {
    match target {
        Target::Sequence(sequence) => found.header.sequence() == sequence,
        Target::Position(position) => found.position <= position,
        Target::Time(_) | Target::Term(_) => true,
    }
}

fn whole(
    out: &mut dyn Write,
    show: Commands<'_>,
    found: &Found<'_>,
    place: Option<(String, u64)>,
) -> io::Result<()> {
    let (file, offset) = place.unzip();
    let place = [("file", json!(file)), ("offset", json!(offset))];
    let all = head(found).into_iter().chain(place).chain(fields(found, show));
    let mut all: Vec<(&str, Value)> = all.collect();
    if show.json {
        all.push(("payload", json!(String::from_utf8_lossy(&digits(found.payload)))));
        let object: Map<_, _> =
            all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        return writeln!(out, "{}", Value::Object(object));
    }
    print_fields(out, &all)?;
    render::hexdump(out, found.payload)
}

//! `quorate-log dump`: entries, decoded.

use core::ops::ControlFlow;
use std::io::{self, Write};

use quorate::error::EXIT_DONE;
use quorate::io::log_reader::LogReader;
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::service::ServiceKind;

use crate::args::Source;
use crate::decode::Commands;
use crate::render;
use crate::select::Selection;
use crate::walk::{End, Step, Why, walk};

/// Shows entries, decoded; says in their place what cannot be decoded
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    look: Look,
    /// At most so many entries
    #[arg(short = 'n', value_name = "N")]
    count: Option<u64>,
}

/// How commands are shown.
#[derive(clap::Args)]
pub(crate) struct Look {
    /// Whose commands they are (book, echo, sequencer): shown as that service reads them
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceKind>,
    /// Show all bytes of each command
    #[arg(long)]
    whole: bool,
}

impl Look {
    pub(crate) fn commands(&self, json: bool) -> Commands {
        Commands { service: self.service, whole: self.whole, json }
    }
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| dump(out, args, &mut reader)),
        Err(code) => code,
    }
}

fn dump(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let show = args.look.commands(args.source.json);
    args.selection.start(reader);
    render::heading(out, show)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut code = EXIT_DONE;
    if left == 0 {
        return Ok(code);
    }
    let end = walk(reader, |step| {
        match step {
            Step::Problem(problem) => {
                render::problem(out, show.json, problem)?;
                code = code.max(problem.what.code(false));
            }
            Step::Frame(_, found) if args.selection.is_over(&found) => {
                return Ok(ControlFlow::Break(()));
            }
            Step::Frame(_, found) if args.selection.wants(&found) => {
                render::entry(out, show, &found)?;
                left -= 1;
            }
            Step::Frame(..) => {}
        }
        Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    // Behind the data, where both go to one terminal.
    out.flush()?;
    say_end(reader, end);
    Ok(code)
}

/// Says that there is more than was shown, if so.
pub(crate) fn say_end(reader: &LogReader, end: End) {
    let limit = reader.limit();
    let mut word = [0; 4];
    let more = match reader.shared() {
        Some(shared) => shared.verified().position() > limit,
        None => reader.bytes_at(limit, &mut word).is_ok_and(|read| read == 4 && word != [0; 4]),
    };
    if end.why == Why::Limit && more {
        complain(&format_args!(
            "read up to the commit position, {limit} (sequence {}); --uncommitted reads on",
            end.at.sequence
        ));
    }
}

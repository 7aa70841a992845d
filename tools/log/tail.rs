//! `quorate-log tail`: the last entries, and those to come.

use core::ops::ControlFlow;
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::thread;

use quorate::error::{EXIT_DONE, EXIT_FAILURE};
use quorate::frame::Predecessor;
use quorate::io::log_reader::LogReader;
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::Sequence;

use crate::args::Source;
use crate::decode::Commands;
use crate::dump::{Look, decoder_code, say_end};
use crate::render;
use crate::select::Selection;
use crate::walk::{End, Step, Why, lowest, start_at, walk};

/// How long the end of a log is left alone before it is looked at again.
const PAUSE: Duration = Duration::from_millis(20);
/// Pauses between looks for new files and for a node that was started anew.
const PAUSES_PER_REFRESH: u32 = 5;

/// Shows the last entries, and with -f those to come
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log tail group/node-0 -n 3
  quorate-log tail group/node-0 --kind term-start,session-open --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    look: Look,
    /// So many entries
    #[arg(short = 'n', value_name = "N", default_value_t = 10)]
    count: usize,
    /// Follow the log as it grows
    #[arg(short, long)]
    follow: bool,
}

pub(crate) fn run(args: &Args) -> u8 {
    let opened = args.source.open().and_then(|reader| Ok((reader, args.look.decoder()?)));
    match opened {
        Ok((mut reader, decoder)) => with_stdout(|out| {
            let show = args.look.commands(args.source.json, decoder.as_ref());
            let code = tail(out, args, show, &mut reader)?;
            Ok(code.max(decoder_code(decoder.as_ref())))
        }),
        Err(code) => code,
    }
}

fn tail(
    out: &mut dyn Write,
    args: &Args,
    show: Commands<'_>,
    reader: &mut LogReader,
) -> io::Result<u8> {
    render::heading(out, show)?;
    if args.selection.is_everything() {
        start_near_the_end(reader, args.count)?;
    } else {
        args.selection.start(reader);
    }
    let (lines, mut code, mut end) = last(args, show, reader)?;
    for line in lines {
        out.write_all(&line)?;
    }
    out.flush()?;
    if !args.follow {
        say_end(reader, end);
        return Ok(code);
    }
    let mut pauses = 0;
    loop {
        if end.why == Why::Undecodable {
            return Ok(code.max(EXIT_FAILURE));
        }
        if end.why == Why::Enough {
            return Ok(code);
        }
        thread::sleep(PAUSE);
        pauses += 1;
        if pauses % PAUSES_PER_REFRESH == 0
            && let Err(error) = reader.refresh()
        {
            complain(&error);
            return Ok(EXIT_FAILURE);
        }
        end = walk(reader, |step| print(out, args, show, &mut code, step))?;
        out.flush()?;
    }
}

fn print(
    out: &mut dyn Write,
    args: &Args,
    show: Commands<'_>,
    code: &mut u8,
    step: Step<'_>,
) -> io::Result<ControlFlow<()>> {
    match step {
        Step::Problem(problem) => {
            render::problem(out, show.json, problem)?;
            *code = (*code).max(problem.what.code(false));
        }
        Step::Frame(_, found) if args.selection.is_over(&found) => {
            return Ok(ControlFlow::Break(()));
        }
        Step::Frame(_, found) if args.selection.wants(&found) => {
            render::entry(out, show, &found)?;
        }
        Step::Frame(..) => {}
    }
    Ok(ControlFlow::Continue(()))
}

type Lines = VecDeque<Vec<u8>>;

/// The last lines from where the reader stands, problems in between included.
fn last(args: &Args, show: Commands<'_>, reader: &mut LogReader) -> io::Result<(Lines, u8, End)> {
    let mut lines = Lines::new();
    let mut code = EXIT_DONE;
    let end = walk(reader, |step| {
        let mut line = Vec::new();
        let flow = print(&mut line, args, show, &mut code, step)?;
        if !line.is_empty() {
            lines.push_back(line);
        }
        if lines.len() > args.count {
            lines.pop_front();
        }
        Ok(flow)
    })?;
    Ok((lines, code, end))
}

/// Goes to a segment from which at least `count` entries follow, without reading what lies before it.
fn start_near_the_end(reader: &mut LogReader, count: usize) -> io::Result<()> {
    start_at(reader, |_: &Predecessor| true);
    let last = walk(reader, |_| Ok(ControlFlow::Continue(())))?.at.sequence;
    let first = Sequence(last.0.saturating_sub(count as u64));
    let bottom = lowest(reader);
    start_at(reader, |start| start.sequence <= first || start.position == bottom);
    Ok(())
}

//! `quorate-log gaps`: what is not there: silences, times that go backwards, numbers that clients left out, lost ranges.

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::SignedDuration;
use serde_json::{Value, json};

use quorate::error::{EXIT_DONE, EXIT_FINDINGS};
use quorate::frame::Kind;
use quorate::frame::payload::SessionClose;
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::runtime::terminal::with_stdout;
use quorate::types::Timestamp;
use zerocopy::FromBytes;

use crate::args::Source;
use crate::dump::say_end;
use crate::parse::duration;
use crate::render::{self, time_text};
use crate::select::{Selection, client_sequence_of, session_of};
use crate::walk::{Step, walk};

/// Lists silences, times that go backwards, clients' numbers that are not there, and lost ranges; exit code 1: there are some
///
/// A number that a client left out is no loss: a command that was refused, or given up, is never in the log.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log gaps group/node-0
  quorate-log gaps group/node-0 --over 100ms --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    selection: Selection,
    /// A silence is longer than this
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    over: SignedDuration,
}

/// What is missing before an entry.
enum Gap {
    Silence { nanoseconds: u64 },
    Backwards { nanoseconds: u64 },
    Numbers { session: u64, from: u64, to: u64 },
}

/// What was seen until now.
struct Seen {
    over_ns: u64,
    time: Option<Timestamp>,
    /// The last number of each session that is open.
    numbers: BTreeMap<u64, u64>,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| gaps(out, args, &mut reader)),
        Err(code) => code,
    }
}

fn gaps(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let over_ns = u64::try_from(args.over.as_nanos()).unwrap_or(u64::MAX);
    let mut seen = Seen { over_ns, time: None, numbers: BTreeMap::new() };
    let mut code = EXIT_DONE;
    args.selection.start(reader);
    let end = walk(reader, |step| {
        match step {
            Step::Problem(problem) => {
                render::problem(out, args.source.json, problem)?;
                code = code.max(problem.what.code(true));
            }
            Step::Frame(_, found) if args.selection.is_over(&found) => {
                return Ok(ControlFlow::Break(()));
            }
            Step::Frame(_, found) if args.selection.wants(&found) => {
                for gap in seen.before(&found) {
                    code = code.max(EXIT_FINDINGS);
                    line(out, args.source.json, &gap, &found)?;
                }
            }
            Step::Frame(..) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    out.flush()?;
    say_end(reader, end);
    Ok(code)
}

impl Seen {
    fn before(&mut self, found: &Found<'_>) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let time = found.header.timestamp();
        match self.time.replace(time) {
            Some(last) if time < last => gaps.push(Gap::Backwards { nanoseconds: last.0 - time.0 }),
            Some(last) if time.0 - last.0 > self.over_ns => {
                gaps.push(Gap::Silence { nanoseconds: time.0 - last.0 });
            }
            _ => {}
        }
        match (found.header.kind(), session_of(found), client_sequence_of(found)) {
            (Some(Kind::SessionOpen), Some(session), _) => drop(self.numbers.insert(session, 0)),
            (Some(Kind::SessionClose), ..) => {
                if let Ok((close, _)) = SessionClose::read_from_prefix(found.payload) {
                    self.numbers.remove(&close.session.get());
                }
            }
            (_, Some(session), Some(number)) => {
                let last = self.numbers.insert(session, number);
                if let Some(last) = last.filter(|&last| number > last.saturating_add(1)) {
                    gaps.push(Gap::Numbers { session, from: last + 1, to: number - 1 });
                }
            }
            _ => {}
        }
        gaps
    }
}

fn line(out: &mut dyn Write, json: bool, gap: &Gap, found: &Found<'_>) -> io::Result<()> {
    let sequence = found.header.sequence().0;
    let time = time_text(found.header.timestamp());
    if json {
        let mut object = match gap {
            Gap::Silence { nanoseconds } => json!({ "gap": "silence", "ns": nanoseconds }),
            Gap::Backwards { nanoseconds } => json!({ "gap": "time backwards", "ns": nanoseconds }),
            Gap::Numbers { session, from, to } => {
                json!({ "gap": "client numbers", "session": session, "from": from, "to": to })
            }
        };
        object["before_sequence"] = json!(sequence);
        object["position"] = Value::from(found.position.0);
        object["time"] = json!(time);
        return writeln!(out, "{object}");
    }
    write!(out, "{time}  before entry {sequence}: ")?;
    match gap {
        Gap::Silence { nanoseconds } => {
            writeln!(out, "silence of {:.6} s", *nanoseconds as f64 / 1e9)
        }
        Gap::Backwards { nanoseconds } => {
            writeln!(out, "cluster time goes back by {:.6} s", *nanoseconds as f64 / 1e9)
        }
        Gap::Numbers { session, from, to } => {
            writeln!(out, "session {session}: numbers {from} to {to} are not there")
        }
    }
}

//! `quorate-log latency`: what the stamps of entries say about time.

use core::ops::ControlFlow;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};

use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde_json::json;
use zerocopy::FromBytes;

use quorate::error::EXIT_DONE;
use quorate::frame::Kind;
use quorate::frame::payload::{CommandPrefix, SessionClose};
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::runtime::terminal::with_stdout;
use quorate::types::Timestamp;

use crate::args::Source;
use crate::dump::say_end;
use crate::render::{self, table};
use crate::select::Selection;
use crate::walk::{Step, walk};

/// Commands of one session that wait for the word that their reply arrived; older ones are left out.
const WAITING_MAX: usize = 1 << 16;
/// Longest time that is told apart: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// Lines of a `.hgrm` file for each halving of what is left.
const TICKS_PER_HALF: u32 = 5;

/// Distributions of times between stamps of entries
///
/// `between`: from one entry to the next. `replied`: from a command to the next command of its client that says that the reply
/// has arrived, which is the client's round trip and what it did before it went on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log latency group/node-0
  quorate-log latency group/node-0 --session 2 --hgrm replied")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    selection: Selection,
    /// Print this one as an .hgrm file, in microseconds
    #[arg(long, value_name = "WHICH", conflicts_with = "json")]
    hgrm: Option<Which>,
}

/// Which distribution.
#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Between,
    Replied,
}

struct Times {
    last: Option<Timestamp>,
    between: Histogram<u64>,
    replied: Histogram<u64>,
    /// Number and time of each session's commands of whose replies nothing is known.
    waiting: BTreeMap<u64, VecDeque<(u64, Timestamp)>>,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| latency(out, args, &mut reader)),
        Err(code) => code,
    }
}

fn latency(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let empty = || Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("in bounds");
    let mut times =
        Times { last: None, between: empty(), replied: empty(), waiting: BTreeMap::new() };
    let mut code = EXIT_DONE;
    args.selection.start(reader);
    let end = walk(reader, |step| {
        match step {
            Step::Problem(problem) => {
                if args.hgrm.is_none() {
                    render::problem(out, args.source.json, problem)?;
                }
                code = code.max(problem.what.code(false));
            }
            Step::Frame(_, found) if args.selection.is_over(&found) => {
                return Ok(ControlFlow::Break(()));
            }
            Step::Frame(_, found) if args.selection.wants(&found) => times.count(&found),
            Step::Frame(..) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match args.hgrm {
        Some(Which::Between) => hgrm(out, &times.between)?,
        Some(Which::Replied) => hgrm(out, &times.replied)?,
        None => summary(out, args.source.json, &times)?,
    }
    out.flush()?;
    say_end(reader, end);
    Ok(code)
}

impl Times {
    fn count(&mut self, found: &Found<'_>) {
        let time = found.header.timestamp();
        if let Some(last) = self.last.replace(time) {
            self.between.saturating_record(time.0.saturating_sub(last.0));
        }
        match found.header.kind() {
            Some(Kind::Command | Kind::CommandBatch) => {}
            Some(Kind::SessionClose) => {
                if let Ok((close, _)) = SessionClose::read_from_prefix(found.payload) {
                    self.waiting.remove(&close.session.get());
                }
                return;
            }
            _ => return,
        }
        let Ok((prefix, _)) = CommandPrefix::read_from_prefix(found.payload) else { return };
        let waiting = self.waiting.entry(prefix.session.get()).or_default();
        while let Some(&(number, sent)) = waiting.front()
            && number <= prefix.received_through.get()
        {
            self.replied.saturating_record(time.0.saturating_sub(sent.0));
            waiting.pop_front();
        }
        waiting.push_back((prefix.client_sequence.get(), time));
        if waiting.len() > WAITING_MAX {
            waiting.pop_front();
        }
    }
}

fn summary(out: &mut dyn Write, json: bool, times: &Times) -> io::Result<()> {
    let titles = ["TIMES_US", "COUNT", "P50", "P90", "P99", "P99.9", "MAX"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for (name, times) in [("between", &times.between), ("replied", &times.replied)] {
        let at = |quantile| times.value_at_quantile(quantile);
        if json {
            let line = json!({
                "times": name, "count": times.len(), "p50_ns": at(0.5), "p90_ns": at(0.9),
                "p99_ns": at(0.99), "p99_9_ns": at(0.999), "max_ns": times.max(),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let values = [at(0.5), at(0.9), at(0.99), at(0.999), times.max()];
        let values = values.map(|value| format!("{:.3}", value as f64 / 1e3));
        rows.push([name.to_owned(), times.len().to_string()].into_iter().chain(values).collect());
    }
    if json { Ok(()) } else { table(out, &rows, &["TIMES_US"]) }
}

/// The text format that plotters of HDR histograms read.
fn hgrm(out: &mut dyn Write, times: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in times.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        write!(out, "{:12.3} {quantile:14.12} {total:10}", step.value_iterated_to() as f64 / 1e3)?;
        if quantile < 1.0 {
            writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    let (mean, deviation) = (times.mean() / 1e3, times.stdev() / 1e3);
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    let max = times.max() as f64 / 1e3;
    writeln!(out, "#[Max     = {max:12.3}, Total count    = {:12}]", times.len())
}

//! `quorate-log stats`: what a log is made of.

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use quorate::error::EXIT_DONE;
use quorate::frame::{Kind, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::limits::{COMMAND_PREFIX_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use quorate::runtime::terminal::with_stdout;
use quorate::types::Timestamp;

use crate::args::Source;
use crate::dump::say_end;
use crate::parallel::{Jobs, Pieces, each};
use crate::problem::Problem;
use crate::render::{self, table, time_text};
use crate::select::{Selection, session_of};
use crate::walk::{End, Step};

/// Sessions that are named, busiest first.
const SESSIONS_SHOWN: usize = 5;

/// Counts entries and bytes by kind, terms, sessions, sizes and rates
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log stats group/node-0
  quorate-log stats group/node-0 --session 2 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    jobs: Jobs,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| stats(out, args, &mut reader)),
        Err(code) => code,
    }
}

/// What was counted.
struct Stats {
    /// Frames and bytes by kind, as they lie in the log.
    kinds: BTreeMap<Kind, (u64, u64)>,
    /// Entries by term.
    terms: BTreeMap<u32, u64>,
    /// Commands by session.
    sessions: BTreeMap<u64, u64>,
    opened: u64,
    closed: u64,
    /// Bytes of commands.
    sizes: Histogram<u64>,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Stats {
    fn new() -> Self {
        Self {
            kinds: BTreeMap::new(),
            terms: BTreeMap::new(),
            sessions: BTreeMap::new(),
            opened: 0,
            closed: 0,
            // Sizes from 1 (an empty command counts as 1) with three digits.
            sizes: Histogram::new_with_bounds(1, FRAME_BYTES_MAX as u64, 3).expect("in bounds"),
            first: None,
            last: None,
        }
    }

    fn count(&mut self, found: &Found<'_>) {
        let Some(kind) = found.header.kind() else { return };
        let (frames, bytes) = self.kinds.entry(kind).or_default();
        *frames += 1;
        *bytes += found.header.span();
        if kind == Kind::Padding {
            return;
        }
        *self.terms.entry(found.header.term().0).or_default() += 1;
        let time = found.header.timestamp();
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        self.last = self.last.max(Some(time));
        match kind {
            Kind::SessionOpen => self.opened += 1,
            Kind::SessionClose => self.closed += 1,
            Kind::Command | Kind::CommandBatch => {
                if let Some(session) = session_of(found) {
                    *self.sessions.entry(session).or_default() += 1;
                }
                let head = FRAME_HEADER_BYTES + COMMAND_PREFIX_BYTES;
                let size = (found.header.length() as usize).saturating_sub(head);
                self.sizes.saturating_record(size as u64);
            }
            _ => {}
        }
    }

    /// What was counted elsewhere, too.
    fn add(&mut self, more: Self) {
        for (kind, (frames, bytes)) in more.kinds {
            let here = self.kinds.entry(kind).or_default();
            *here = (here.0 + frames, here.1 + bytes);
        }
        for (term, entries) in more.terms {
            *self.terms.entry(term).or_default() += entries;
        }
        for (session, commands) in more.sessions {
            *self.sessions.entry(session).or_default() += commands;
        }
        self.opened += more.opened;
        self.closed += more.closed;
        // Of the same bounds.
        self.sizes.add(more.sizes).expect("the same bounds");
        self.first = self.first.into_iter().chain(more.first).min();
        self.last = self.last.max(more.last);
    }

    fn entries(&self) -> u64 {
        self.terms.values().sum()
    }

    fn bytes(&self) -> u64 {
        self.kinds.values().map(|(_, bytes)| bytes).sum()
    }

    fn seconds(&self) -> f64 {
        match (self.first, self.last) {
            (Some(first), Some(last)) => (last.0 - first.0) as f64 / 1e9,
            _ => 0.0,
        }
    }

    /// Entries a second between the first and the last; none for a log of one moment.
    fn rate(&self) -> Option<f64> {
        (self.seconds() > 0.0).then(|| (self.entries() - 1) as f64 / self.seconds())
    }

    fn busiest(&self) -> Vec<(u64, u64)> {
        let mut sessions: Vec<_> = self.sessions.iter().map(|(&id, &count)| (id, count)).collect();
        sessions.sort_by_key(|&(id, count)| (core::cmp::Reverse(count), id));
        sessions.truncate(SESSIONS_SHOWN);
        sessions
    }

    fn json(&self, problems: u64) -> Value {
        let kind = |(kind, (frames, bytes)): (&Kind, &(u64, u64))| {
            (kind.name().to_owned(), json!({ "frames": frames, "bytes": bytes }))
        };
        let busiest = self.busiest();
        json!({
            "entries": self.entries(),
            "bytes": self.bytes(),
            "kinds": self.kinds.iter().map(kind).collect::<serde_json::Map<_, _>>(),
            "terms": self.terms.len(),
            "first_time": self.first.map(time_text),
            "last_time": self.last.map(time_text),
            "seconds": self.seconds(),
            "entries_per_second": self.rate(),
            "sessions_opened": self.opened,
            "sessions_closed": self.closed,
            "sessions_with_commands": self.sessions.len(),
            "busiest_sessions": busiest.iter()
                .map(|(session, commands)| json!({ "session": session, "commands": commands }))
                .collect::<Vec<_>>(),
            "command_bytes": {
                "count": self.sizes.len(),
                "p50": self.sizes.value_at_quantile(0.5),
                "p90": self.sizes.value_at_quantile(0.9),
                "p99": self.sizes.value_at_quantile(0.99),
                "max": self.sizes.max(),
            },
            "problems": problems,
        })
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut rows = vec![["KIND", "FRAMES", "BYTES", "SHARE_%"].map(str::to_owned).to_vec()];
        let all = self.bytes().max(1) as f64;
        for (kind, (frames, bytes)) in &self.kinds {
            let share = format!("{:.1}", 100.0 * *bytes as f64 / all);
            rows.push(vec![kind.name().to_owned(), frames.to_string(), bytes.to_string(), share]);
        }
        table(out, &rows, &["KIND"])?;
        writeln!(out)?;
        writeln!(out, "entries   {} in {} bytes", self.entries(), self.bytes())?;
        let terms: Vec<_> = self.terms.iter().map(|(term, n)| format!("{term} ({n})")).collect();
        writeln!(out, "terms     {}", terms.join(", "))?;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            writeln!(out, "time      {} to {}", time_text(first), time_text(last))?;
        }
        if let Some(rate) = self.rate() {
            writeln!(out, "rate      {rate:.1} entries/s over {:.3} s", self.seconds())?;
        }
        writeln!(
            out,
            "sessions  {} opened, {} closed, {} with commands",
            self.opened,
            self.closed,
            self.sessions.len()
        )?;
        for (session, commands) in self.busiest() {
            writeln!(out, "          session {session}: {commands} commands")?;
        }
        if !self.sizes.is_empty() {
            let at = |quantile| self.sizes.value_at_quantile(quantile);
            writeln!(
                out,
                "commands  bytes p50 {}, p90 {}, p99 {}, max {}",
                at(0.5),
                at(0.9),
                at(0.99),
                self.sizes.max()
            )?;
        }
        Ok(())
    }
}

/// Counts what a selection wants.
struct Counting<'a>(&'a Selection);

/// What was counted, problems, and the exit code that they earn.
type Counted = (Stats, Vec<Problem>, u8);

impl Pieces for Counting<'_> {
    type Found = Counted;

    fn empty(&self) -> Counted {
        (Stats::new(), Vec::new(), EXIT_DONE)
    }

    fn step(&self, found: &mut Counted, step: Step<'_>) -> io::Result<ControlFlow<()>> {
        let (stats, problems, code) = found;
        match step {
            Step::Problem(problem) => {
                *code = (*code).max(problem.what.code(false));
                problems.push(problem.clone());
            }
            Step::Frame(_, found) if self.0.is_over(&found) => {
                return Ok(ControlFlow::Break(()));
            }
            Step::Frame(_, found) => {
                let padding = found.header.kind() == Some(Kind::Padding);
                if self.0.wants(&found) || (padding && self.0.is_everything()) {
                    stats.count(&found);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn done(&self, _: &mut Counted, _: &LogReader, _: End) {}

    fn may_skip(&self, next: &Predecessor) -> bool {
        self.0.is_under(next)
    }
}

fn stats(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let counting = Counting(&args.selection);
    let (mut stats, mut problems, mut code) = counting.empty();
    args.selection.start(reader);
    let again = || LogReader::open(args.source.path(), args.source.options()).ok();
    let end = each(reader, args.jobs, &counting, again, |(more, wrong, worst)| {
        stats.add(more);
        problems.extend(wrong);
        code = code.max(worst);
        Ok(())
    })?;
    if args.source.json {
        writeln!(out, "{}", stats.json(problems.len() as u64))?;
    } else {
        stats.text(out)?;
        for problem in &problems {
            render::problem(out, false, problem)?;
        }
    }
    out.flush()?;
    say_end(reader, end);
    Ok(code)
}

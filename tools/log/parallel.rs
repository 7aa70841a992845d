//! Reading a long log on all cores: every segment starts with a header page that says what stands before it, so that pieces
//! can be walked side by side. What comes out is what one walk gives, in its order: where a piece does not end as the next
//! one begins, the rest is walked in one go.

use core::ops::ControlFlow;
use core::time::Duration;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use quorate::frame::Predecessor;
use quorate::io::log_reader::LogReader;
use quorate::types::Position;

use crate::args::is_live;
use crate::list::starts;
use crate::walk::{End, Step, Why, walk};

/// Results of one worker that wait to be taken.
const RESULTS_WAITING: usize = 2;
/// Work that takes longer is worth a word, and how often it is said.
const SAY_EVERY: Duration = Duration::from_millis(250);

/// On how many cores.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Jobs {
    /// Read on N cores; unless given on all, and on one beside a node that runs
    #[arg(long, short, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

impl Jobs {
    fn number(self, reader: &LogReader) -> usize {
        let all = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let unless_given = || if is_live(reader) { 1 } else { all() };
        self.jobs.map_or_else(unless_given, NonZeroUsize::get)
    }
}

/// From behind what stands before it, up to where another one begins; the last one goes to the end.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: Predecessor,
    next: Option<Predecessor>,
}

impl Piece {
    fn end(&self) -> Option<Position> {
        self.next.map(|next| next.position)
    }

    /// Whether a walk of it ended where the next one begins.
    fn goes_on(&self, end: End) -> bool {
        end.why == Why::Enough && self.end() == Some(end.at.position)
    }
}

/// What is made of the pieces of a log.
pub(crate) trait Pieces: Sync {
    /// What comes of one piece.
    type Found: Send;

    /// Nothing yet.
    fn empty(&self) -> Self::Found;
    /// What is met, in order.
    fn step(&self, found: &mut Self::Found, step: Step<'_>) -> io::Result<ControlFlow<()>>;
    /// After the last step, while the files are at hand.
    fn done(&self, found: &mut Self::Found, reader: &LogReader, end: End);
    /// Whether nothing is wanted from a piece that ends where `next` begins.
    fn may_skip(&self, next: &Predecessor) -> bool;
}

/// Walks a log from where the reader stands, and gives what comes of each piece to `take`, in order. `open` opens the log
/// once more, for a worker.
pub(crate) fn each<P: Pieces>(
    reader: &mut LogReader,
    jobs: Jobs,
    pieces: &P,
    open: impl Fn() -> Option<LogReader> + Sync,
    mut take: impl FnMut(P::Found) -> io::Result<()>,
) -> io::Result<End> {
    let plan = plan(reader, pieces);
    let jobs = jobs.number(reader).min(plan.len());
    let mut progress = Progress::new(&plan, reader);
    if jobs > 1 {
        let left = side_by_side(pieces, &plan, jobs, &open, |piece, (found, end)| {
            progress.say(piece);
            take(found).map(|()| end)
        })?;
        match left {
            Left::Nothing(end) => {
                reader.restart(end.at);
                return Ok(end);
            }
            Left::From(before) => reader.restart(before),
        }
    }
    // Piece by piece as well, so that nothing grows with the log.
    loop {
        let start = reader.before();
        let above = |piece: &&Piece| piece.start.position > start.position;
        let piece = Piece { start, next: plan.iter().find(above).map(|piece| piece.start) };
        let (found, end) = one(reader, pieces, piece)?;
        take(found)?;
        progress.say(piece);
        if !piece.goes_on(end) {
            return Ok(end);
        }
        reader.restart(end.at);
    }
}

/// The pieces from where the reader stands.
fn plan<P: Pieces>(reader: &LogReader, pieces: &P) -> Vec<Piece> {
    let here = reader.before();
    let above = starts(reader).into_iter().filter(|start| start.position > here.position);
    let starts: Vec<_> = [here].into_iter().chain(above).collect();
    let next = starts.iter().skip(1).copied().map(Some).chain([None]);
    let all = starts.iter().zip(next).map(|(&start, next)| Piece { start, next });
    // What may be skipped comes first: selections that name a place begin with it.
    all.skip_while(|piece| piece.next.is_some_and(|next| pieces.may_skip(&next))).collect()
}

/// Walks one piece.
fn one<P: Pieces>(reader: &mut LogReader, pieces: &P, piece: Piece) -> io::Result<(P::Found, End)> {
    let mut found = pieces.empty();
    let mut after = piece.start;
    let mut stopped = None;
    let end = walk(reader, |step| {
        let from = match step {
            Step::Frame(before, _) => before.position,
            Step::Problem(problem) => problem.from,
        };
        if let Some(next) = piece.next.filter(|next| from >= next.position) {
            stopped = Some(match step {
                Step::Frame(before, _) => before,
                Step::Problem(_) if after.position == from => after,
                Step::Problem(_) => next,
            });
            return Ok(ControlFlow::Break(()));
        }
        if let Step::Frame(before, frame) = step {
            after = before.after(&frame.header);
        }
        pieces.step(&mut found, step)
    })?;
    let end = stopped.map_or(end, |at| End { at, why: Why::Enough });
    pieces.done(&mut found, reader, end);
    Ok((found, end))
}

/// What is left when the workers are done.
enum Left {
    Nothing(End),
    From(Predecessor),
}

/// What a worker sends.
type Sent<F> = io::Result<(F, End)>;

fn side_by_side<P: Pieces>(
    pieces: &P,
    plan: &[Piece],
    jobs: usize,
    open: &(impl Fn() -> Option<LogReader> + Sync),
    mut take: impl FnMut(Piece, (P::Found, End)) -> io::Result<End>,
) -> io::Result<Left> {
    thread::scope(|scope| {
        let mut results: Vec<Receiver<Sent<P::Found>>> = Vec::new();
        for number in 0..jobs {
            let (sender, receiver): (SyncSender<Sent<P::Found>>, _) = sync_channel(RESULTS_WAITING);
            results.push(receiver);
            scope.spawn(move || {
                let Some(mut reader) = open() else { return };
                for &piece in plan.iter().skip(number).step_by(jobs) {
                    reader.restart(piece.start);
                    if sender.send(one(&mut reader, pieces, piece)).is_err() {
                        return;
                    }
                }
            });
        }
        let mut before = plan[0].start;
        for (number, &piece) in plan.iter().enumerate() {
            // Not as the last one ended: what its header page says is not what the frames say.
            let Ok(result) = results[number % jobs].recv() else { return Ok(Left::From(before)) };
            if piece.start != before {
                return Ok(Left::From(before));
            }
            let end = take(piece, result?)?;
            before = end.at;
            if !piece.goes_on(end) {
                return Ok(Left::Nothing(end));
            }
        }
        Ok(Left::From(before))
    })
}

/// How far it is, on a terminal.
struct Progress {
    begun: Instant,
    said: Instant,
    done: u64,
    whole: u64,
    shown: bool,
    segment_bytes: u64,
}

impl Progress {
    fn new(plan: &[Piece], reader: &LogReader) -> Self {
        let segment_bytes = reader.segment_bytes();
        let now = Instant::now();
        let whole = plan.len() as u64 * segment_bytes;
        let shown = io::stderr().is_terminal();
        Self { begun: now, said: now, done: 0, whole, shown, segment_bytes }
    }

    fn say(&mut self, piece: Piece) {
        let bytes = piece.end().map_or(self.segment_bytes, |end| end.since(piece.start.position));
        self.done += bytes;
        if !self.shown || self.said.elapsed() < SAY_EVERY {
            return;
        }
        self.said = Instant::now();
        let seconds = self.begun.elapsed().as_secs_f64();
        let rate = self.done as f64 / seconds;
        let gibibytes = rate / f64::from(1 << 30);
        let left = self.whole.saturating_sub(self.done) as f64 / rate;
        let percent = 100 * self.done / self.whole.max(1);
        let line = format!("\r{percent:3} %  {gibibytes:.2} GiB/s  {left:.0} s left \x1b[K");
        // Nobody is left to be told when stderr is gone.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.said > self.begun {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

//! The client of a demo: sends commands, at a rate or as fast as they are answered, and keeps what became of each.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::sync::atomic::AtomicBool;

use hdrhistogram::Histogram;

use quorate::client::{Answer, ClientState, Outcome, Refusal, Request};
use quorate::limits::COMMAND_BYTES_MAX;
use quorate::runtime::config::Settings;
use quorate::runtime::{ConnectOptions, HostClient};
use quorate::service::ServiceKind;
use quorate::service::generator::Generator;
use quorate::stream::prng::Prng;
use quorate::types::{ClientSequence, Nanos, SessionId};

use super::kill::Progress;
use super::{Args, DemoError, check};

/// Commands that are unanswered at once when no rate is given: enough to keep batches full.
const OUTSTANDING_MAX: usize = 64;
/// How long a leader is looked for, ns.
const CONNECT_NS: u64 = 30 * Nanos::SECOND;
/// How long the last answers are waited for, ns.
const DRAIN_NS: u64 = 30 * Nanos::SECOND;
/// How often progress is shown, ns.
const PROGRESS_NS: u64 = 500 * Nanos::MILLISECOND;
/// Longest latency that is told apart, ns.
const LATENCY_MAX_NS: u64 = 60 * Nanos::SECOND;

/// Where commands come from.
pub(super) enum Source {
    /// Lines of a file or of stdin.
    Lines {
        name: String,
        kind: ServiceKind,
        lines: Box<dyn Iterator<Item = io::Result<Vec<u8>>> + Send>,
        number: u64,
    },
    /// Generated orders.
    Orders { generator: Box<Generator>, left: u64 },
    /// Random bytes.
    Bytes { random: Prng, bytes: Vec<u8>, left: u64 },
}

impl Source {
    pub(super) fn open(args: &Args, seed: u64) -> Result<Self, DemoError> {
        if args.payload > COMMAND_BYTES_MAX {
            let text = format!("--payload {}: at most {COMMAND_BYTES_MAX} bytes", args.payload);
            return Err(DemoError::Usage(text));
        }
        let Some(path) = &args.input else {
            let left = args.commands();
            return Ok(if args.service == ServiceKind::Book {
                Self::Orders { generator: Box::new(Generator::new(seed)), left }
            } else {
                Self::Bytes { random: Prng::new(seed), bytes: vec![0; args.payload], left }
            });
        };
        let name = path.display().to_string();
        let reader: Box<dyn BufRead + Send> = if name == "-" {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let file = File::open(path);
            Box::new(BufReader::new(file.map_err(|e| DemoError::Usage(format!("{name}: {e}")))?))
        };
        let lines = Box::new(reader.split(b'\n'));
        Ok(Self::Lines { name, kind: args.service, lines, number: 0 })
    }

    /// How many there will be, if that is known.
    fn total(&self) -> Option<u64> {
        match self {
            Self::Lines { .. } => None,
            Self::Orders { left, .. } | Self::Bytes { left, .. } => Some(*left),
        }
    }

    /// The next command's bytes; false at the end. Where they are generated, `go_on` has more made than were asked for.
    fn next(&mut self, target: &mut Vec<u8>, go_on: bool) -> Result<bool, DemoError> {
        target.clear();
        match self {
            Self::Lines { name, kind, lines, number } => {
                for line in lines {
                    *number += 1;
                    let line =
                        line.map_err(|error| DemoError::Usage(format!("{name}: {error}")))?;
                    let encoded = kind.encode(*number, &line, target);
                    if encoded.map_err(|error| DemoError::Usage(format!("{name}: {error}")))? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Orders { left: 0, .. } | Self::Bytes { left: 0, .. } if !go_on => Ok(false),
            Self::Orders { generator, left } => {
                *left = left.saturating_sub(1);
                target.extend_from_slice(generator.command());
                Ok(true)
            }
            Self::Bytes { random, bytes, left } => {
                *left = left.saturating_sub(1);
                for chunk in bytes.chunks_mut(8) {
                    chunk.copy_from_slice(&random.next_u64().to_le_bytes()[..chunk.len()]);
                }
                target.extend_from_slice(bytes);
                Ok(true)
            }
        }
    }
}

/// What a client saw.
pub(super) struct Load {
    pub(super) session: Option<SessionId>,
    /// By the client's number of each command: the entry that decided it, 0 if none is known.
    pub(super) acknowledged: HashMap<ClientSequence, u64>,
    pub(super) sent: u64,
    pub(super) rejected: u64,
    pub(super) unknown: u64,
    pub(super) bytes: u64,
    pub(super) elapsed_ns: u64,
    pub(super) latency_ns: Histogram<u64>,
    /// For each kill, the longest time until the next one without an answer, although a command should have been sent.
    pub(super) outages_ns: Vec<u64>,
}

impl Load {
    /// Sends everything that `source` gives, and waits for every answer.
    pub(super) fn run(
        args: &Args,
        settings: &Settings,
        mut source: Source,
        progress: &Progress,
        stop: &AtomicBool,
    ) -> Result<Self, DemoError> {
        let rate = args.rate();
        let mut options = ConnectOptions::of(settings, "quorate demo");
        options.in_flight_max = OUTSTANDING_MAX.min(options.in_flight_max);
        let in_flight_max = if rate == 0 { OUTSTANDING_MAX } else { usize::MAX };
        let fail = |error: &dyn core::fmt::Display| DemoError::Failed(error.to_string());
        let mut client = HostClient::new(options).map_err(|error| fail(&error))?;
        let deadline = client.now().plus(CONNECT_NS);
        while client.client.state() != ClientState::Open {
            go_on(stop, progress)?;
            client.turn_within(20 * Nanos::MILLISECOND, |_| {});
            if client.now() > deadline {
                return Err(DemoError::Failed(
                    "no leader answered: see --keep for the events".into(),
                ));
            }
        }
        progress.connect();
        let total = source.total().filter(|_| args.kills() == 0);
        let mut sending = Sending::new(total, client.now());
        let mut command = Vec::new();
        let kills_left = || args.kills() > 0 && !progress.is_peace();
        let mut more = source.next(&mut command, kills_left())?;
        while more {
            let due = sending.due(rate);
            if client.now() >= due && client.client.unanswered() < in_flight_max {
                match client.client.send(&command) {
                    Ok(number) => {
                        sending.sent(number, due.max(sending.start), command.len(), client.now());
                        more = source.next(&mut command, kills_left())?;
                        client.client.flush(client.now());
                        continue;
                    }
                    Err(Refusal::TooLong { bytes, bytes_max }) => {
                        let text =
                            format!("a command of {bytes} bytes, at most {bytes_max} are taken");
                        return Err(DemoError::Usage(text));
                    }
                    Err(Refusal::Closed) => {
                        return Err(DemoError::Failed("the group closed the session".into()));
                    }
                    Err(_) => {}
                }
            }
            sending.wait(&mut client, progress, stop)?;
        }
        let deadline = client.now().plus(DRAIN_NS);
        while client.client.unanswered() > 0 && client.now() < deadline {
            sending.wait(&mut client, progress, stop)?;
        }
        sending.load.session = client.client.session();
        sending.load.elapsed_ns = sending.last_answer.since(sending.start).max(1);
        let mut unknown = 0;
        client.client.give_up(|answer| unknown += u64::from(answer.outcome == Outcome::Unknown));
        sending.load.unknown += unknown;
        sending.show(client.now(), true);
        Ok(sending.load)
    }
}

/// Ends sending if somebody asked for it, or the watcher of the nodes has given up.
fn go_on(stop: &AtomicBool, progress: &Progress) -> Result<(), DemoError> {
    check(stop)?;
    if progress.is_over() { Err(DemoError::Stopped) } else { Ok(()) }
}

struct Sending {
    load: Load,
    start: Nanos,
    last_answer: Nanos,
    due_from: HashMap<ClientSequence, Nanos>,
    total: Option<u64>,
    shown: Nanos,
    shown_count: u64,
    terminal: bool,
}

impl Sending {
    fn new(total: Option<u64>, start: Nanos) -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)
            .expect("these bounds are what the library allows");
        Self {
            load: Load {
                session: None,
                acknowledged: HashMap::new(),
                sent: 0,
                rejected: 0,
                unknown: 0,
                bytes: 0,
                elapsed_ns: 0,
                latency_ns,
                outages_ns: Vec::new(),
            },
            start,
            last_answer: start,
            due_from: HashMap::new(),
            total,
            shown: start,
            shown_count: 0,
            terminal: io::stderr().is_terminal(),
        }
    }

    /// When the next command is to be sent: at its intended time, or now.
    fn due(&self, rate: u64) -> Nanos {
        match self.load.sent.saturating_mul(Nanos::SECOND).checked_div(rate) {
            Some(after) => self.start.plus(after),
            None => Nanos(0),
        }
    }

    /// A command went out. Its latency counts from when it was due, so that a late sender hides nothing.
    fn sent(&mut self, number: ClientSequence, due: Nanos, bytes: usize, now: Nanos) {
        self.load.sent += 1;
        self.load.bytes += bytes as u64;
        let from = if due > self.start { due } else { now };
        self.due_from.insert(number, from);
    }

    /// Takes answers, or waits a little for them.
    fn wait(
        &mut self,
        client: &mut HostClient,
        progress: &Progress,
        stop: &AtomicBool,
    ) -> Result<(), DemoError> {
        let (now, kills) = (client.now(), progress.kills());
        client.turn_within(100 * Nanos::MICROSECOND, |answer| self.answered(now, kills, &answer));
        let now = client.now();
        if now.since(self.shown) >= PROGRESS_NS {
            go_on(stop, progress)?;
            self.show(now, false);
        }
        Ok(())
    }

    fn answered(&mut self, now: Nanos, kills: usize, answer: &Answer<'_>) {
        let Request::Command(number) = answer.request else { return };
        match answer.outcome {
            Outcome::Applied => {}
            Outcome::Rejected { .. } => self.load.rejected += 1,
            Outcome::TooLong | Outcome::Forgotten | Outcome::Unknown => {
                self.load.unknown += 1;
                return;
            }
        }
        let before = core::mem::replace(&mut self.last_answer, now);
        self.load.acknowledged.insert(number, answer.sequence.0);
        if let Some(from) = self.due_from.remove(&number) {
            let waited_ns = now.since(from).max(1);
            self.load.latency_ns.saturating_record(waited_ns);
            self.load.outages_ns.resize(kills, 0);
            if let Some(outage_ns) = self.load.outages_ns.last_mut() {
                *outage_ns = now.since(from.max(before)).max(*outage_ns);
            }
        }
    }

    fn show(&mut self, now: Nanos, last: bool) {
        let done = self.load.acknowledged.len() as u64;
        let passed = now.since(self.shown).max(1);
        let rate = (done - self.shown_count) * Nanos::SECOND / passed;
        let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
        (self.shown, self.shown_count) = (now, done);
        if self.terminal {
            let end = if last { "\n" } else { "" };
            eprint!("\rquorate: {done}{of} commands acknowledged, {rate}/s   {end}");
        } else if !last {
            eprintln!("quorate: {done}{of} commands acknowledged, {rate}/s");
        }
    }
}

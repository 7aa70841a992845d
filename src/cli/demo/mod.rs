//! `quorate demo`: a whole group on this machine, real orders through it, and a check that reads its three logs.

mod group;
mod kill;
mod load;
mod report;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::service::ServiceKind;

use self::group::Group;
use self::load::Source;
use self::report::Report;

/// Commands of a demo, unless it is told.
const COMMANDS: u64 = 100_000;
/// Commands a second while leaders are killed: at a rate, each has a time when it was to be sent, and waits from then.
const KILLING_RATE: u64 = 1000;

/// Runs a group of nodes as processes on loopback, sends it orders, and checks that all logs and states agree
///
/// Needs no configuration and no privilege, and cleans up after itself. Exit code 0 only if the logs of all nodes agree and
/// no acknowledged command was lost or applied twice, as read from the logs themselves.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Nodes
    #[arg(long, value_name = "N", default_value = "3",
          value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    /// So many of them, the last ones, are observers: they get the whole log, but neither vote nor lead
    #[arg(long, value_name = "N", default_value = "0")]
    observers: u16,
    /// How the leader's bytes reach the others
    #[arg(long, value_name = "KIND", default_value = "auto",
          value_parser = ["auto", "multicast", "unicast"])]
    transport: String,
    /// State machine: book, echo or sequencer
    #[arg(long, value_name = "NAME", default_value = "book")]
    service: ServiceKind,
    /// File of commands, one per line (for book: LOBSTER messages or orders); - is stdin. Without it, generated orders
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Commands to send, when they are generated; with --kill-leader more if that takes longer [default: 100000, or 0]
    #[arg(long, value_name = "N")]
    commands: Option<u64>,
    /// Commands per second; 0 is as fast as they are answered [default: 0, with --kill-leader 1000]
    #[arg(long, value_name = "R")]
    rate: Option<u64>,
    /// Kills the leader's process under load, again and again, starts it anew, and says how long the client had to wait
    #[arg(long)]
    kill_leader: bool,
    /// How often the leader is killed
    #[arg(long, value_name = "N", default_value = "5", requires = "kill_leader",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    kills: u16,
    /// Bytes of each generated command (echo and sequencer)
    #[arg(long, value_name = "BYTES", default_value = "32")]
    payload: usize,
    /// What the leader waits for before it commits
    #[arg(long, value_name = "RUNG", default_value = "disk", value_parser = ["memory", "disk"])]
    durability: String,
    /// Share of datagrams that every node and the client lose, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    loss: f64,
    /// Share of datagrams that arrive twice, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    duplicate: f64,
    /// Datagrams are held back for a random time up to this
    #[arg(long, value_name = "MS", default_value = "0")]
    reorder_ms: u64,
    /// Keeps configuration, logs and events of the nodes in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Seed of orders and faults; drawn and printed unless given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// The report as one JSON object on the last line
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("from 0 to 1".to_owned()) }
}

impl Args {
    fn commands(&self) -> u64 {
        self.commands.unwrap_or(if self.kill_leader { 0 } else { COMMANDS })
    }
    fn rate(&self) -> u64 {
        self.rate.unwrap_or(if self.kill_leader { KILLING_RATE } else { 0 })
    }
    fn kills(&self) -> usize {
        if self.kill_leader { self.kills.into() } else { 0 }
    }
}

/// Why a demo ends early.
#[derive(Debug)]
pub(crate) enum DemoError {
    /// Wrong use.
    Usage(String),
    /// The host, or a node, failed.
    Failed(String),
    /// Somebody pressed Ctrl-C.
    Stopped,
}

pub(crate) fn run(args: &Args) -> u8 {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            complain(&format!("signals: {error}"));
            return EXIT_FAILURE;
        }
    }
    match demo(args, &stop) {
        Ok(report) => with_stdout(|out| {
            if args.json {
                report.json(out)?;
            } else {
                report.human(out)?;
            }
            Ok(if report.is_good() { EXIT_DONE } else { EXIT_FINDINGS })
        }),
        Err(DemoError::Usage(text)) => {
            complain(&text);
            EXIT_USAGE
        }
        Err(DemoError::Failed(text)) => {
            complain(&text);
            EXIT_FAILURE
        }
        Err(DemoError::Stopped) => {
            complain(&"stopped; everything it started has ended");
            EXIT_FAILURE
        }
    }
}

fn demo(args: &Args, stop: &AtomicBool) -> Result<Report, DemoError> {
    let seed = args.seed.unwrap_or_else(draw_seed);
    let source = Source::open(args, seed)?;
    let mut group = Group::start(args, seed)?;
    eprintln!(
        "quorate: {} nodes, service {}, durability {}, seed {seed}, in {}",
        args.nodes,
        args.service,
        args.durability,
        group.folder().display()
    );
    let load = kill::run(args, seed, &mut group, source, stop)?;
    let statuses = group.settle(stop)?;
    group.stop()?;
    eprintln!("quorate: reading the logs of all nodes");
    let verified = verify::verify(args, &group, &load)?;
    Ok(Report::new(args, seed, &load, &statuses, verified))
}

fn draw_seed() -> u64 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(1_u8) >> 16
}

/// Ends the demo if somebody asked for it.
fn check(stop: &AtomicBool) -> Result<(), DemoError> {
    if stop.load(Ordering::Relaxed) { Err(DemoError::Stopped) } else { Ok(()) }
}

//! `quorate-bench`: figures that can be compared, each beside the floor it stands on, in one run.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use quorate::error::{EXIT_DONE, EXIT_FINDINGS};
use signal_hook::consts::{SIGINT, SIGTERM};

mod append;
mod bare;
mod children;
mod commit;
mod distribution;
mod environment;
mod failover;
mod failure;
mod floor;
mod group;
mod hosts;
mod journal;
mod load;
mod report;
mod round_trip;
mod rounds;
mod schedule;
mod scratch;
mod settings;
mod shared_memory;
mod subject;
mod waiting;
mod watched;

use children::ChildArgs;
use failover::FailoverArgs;
use failure::Failure;
use journal::JournalArgs;
use settings::{LoadArgs, RttArgs};

#[derive(Parser)]
#[command(name = "quorate-bench", version, about = "Measures Quorate beside its floors")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The floors of a round trip alone: raw UDP, and the bare quorum skeleton
    Floor(LoadArgs),
    /// A group's commit, from a command to its reply, beside the floors
    Rtt(RttArgs),
    /// What a client sees of a leader that is killed, paused, cut off, or hands over
    Failover(FailoverArgs),
    /// Appending to the log, beside a header, a copy and a CRC
    Journal(JournalArgs),
    #[command(name = floor::ECHO, hide = true)]
    Echo(ChildArgs),
    #[command(name = floor::FORWARD, hide = true)]
    Forward(ChildArgs),
    #[command(name = group::BECOME, hide = true)]
    Become(group::BecomeArgs),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().verb) {
        Ok(true) => ExitCode::from(EXIT_DONE),
        Ok(false) => ExitCode::from(EXIT_FINDINGS),
        Err(failure) => {
            eprintln!("quorate-bench: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Runs a verb; whether its result may be believed.
fn run(verb: &Verb) -> Result<bool, Failure> {
    match verb {
        Verb::Floor(args) => round_trip::floor(args, &*stop_on_signal()?),
        Verb::Rtt(args) => round_trip::rtt(args, &*stop_on_signal()?),
        Verb::Failover(args) => failover::run(args, &*stop_on_signal()?),
        Verb::Journal(args) => journal::run(args, &*stop_on_signal()?),
        Verb::Echo(args) => floor::run_echo(args).map(|()| true),
        Verb::Forward(args) => floor::run_forward(args).map(|()| true),
        Verb::Become(args) => Err(group::run_become(args)),
    }
}

/// Set by Ctrl-C and by a request to end: the run stops, and what it started is ended on the way out.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(Failure::host("watching for signals"))?;
    }
    Ok(stop)
}

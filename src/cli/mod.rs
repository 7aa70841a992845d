//! The command line: one file for each subcommand, with its `Args` and its `run`, which returns an exit code of
//! [`quorate::error`]. What a subcommand does is the library's; what it reads from the command line and what it prints is
//! decided here.

mod backup;
mod config;
mod demo;
mod durability;
mod flags;
mod init;
mod kept_session;
mod node;
mod query;
mod restore;
mod send;
#[cfg(feature = "sim")]
mod simulate;
mod snapshot;
mod status;
mod tail;
mod transfer;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A replicated state machine engine for low-latency, trading-style deployments.
///
/// Exit codes: 0 done, 1 the answer is no, 2 wrong use or configuration, 3 damage or failure.
#[derive(Parser)]
#[command(name = "quorate", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Args),
    Demo(demo::Args),
    Node(node::Args),
    Send(send::Args),
    Query(query::Args),
    Snapshot(snapshot::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Status(status::Args),
    Tail(tail::Args),
    Transfer(transfer::TransferArgs),
    StepDown(transfer::StepDownArgs),
    Durability(durability::Args),
    #[command(subcommand)]
    Config(config::Args),
    #[cfg(feature = "sim")]
    Simulate(simulate::Args),
}

/// Runs the subcommand that the command line names.
pub(crate) fn run() -> ExitCode {
    // A wrong use ends here, with code 2; `--help` and `--version` with 0.
    let code = match Cli::parse().command {
        Command::Init(args) => init::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Node(args) => node::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Query(args) => query::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Transfer(args) => transfer::run_transfer(&args),
        Command::StepDown(args) => transfer::run_step_down(&args),
        Command::Durability(args) => durability::run(&args),
        Command::Config(args) => config::run(&args),
        #[cfg(feature = "sim")]
        Command::Simulate(args) => simulate::run_campaign(&args),
    };
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}

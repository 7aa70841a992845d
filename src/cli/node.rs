//! `quorate node`: runs one node until it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use quorate::error::{EXIT_DONE, EXIT_FAILURE};
use quorate::runtime::terminal::complain;
use quorate::runtime::{Ended, Node, NodeOptions};
use quorate::service::BuiltIn;

use super::flags::ConfigFlags;

/// Runs one node until it gets SIGTERM or SIGINT, or must stop by itself
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// Writes events to the data directory only, not to stderr
    #[arg(long)]
    quiet: bool,
    /// Ends when this process ends: for programs that start nodes
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<u32>,
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // A second signal ends the process at once, as an operator expects of one that hangs.
        let registered = signal_hook::flag::register_conditional_shutdown(
            signal,
            i32::from(EXIT_FAILURE),
            Arc::clone(&stop),
        )
        .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)));
        if let Err(error) = registered {
            complain(&format!("signals: {error}"));
            return EXIT_FAILURE;
        }
    }
    if let Some(parent) = args.with_parent
        && let Err(error) = quorate::io::process::die_with_parent(parent)
    {
        complain(&format!("process {parent}: {error}"));
        return EXIT_FAILURE;
    }
    let service = BuiltIn::new(settings.group.service, settings.group.book);
    let options = NodeOptions { quiet: args.quiet, stop, ..NodeOptions::default() };
    loop {
        let node = match Node::start(&settings, service.clone(), options.clone()) {
            Ok(node) => node,
            Err(error) => {
                complain(&error);
                return EXIT_FAILURE;
            }
        };
        match node.wait() {
            Ended::Renewed if !options.stop.load(Ordering::Acquire) => {}
            Ended::Orderly | Ended::Renewed => return EXIT_DONE,
            Ended::Unsynced | Ended::Halted => return EXIT_FAILURE,
        }
    }
}

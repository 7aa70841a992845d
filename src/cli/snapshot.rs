//! `quorate snapshot`: a snapshot of the state, now.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS};
use quorate::runtime::terminal::{complain, with_stdout};

use super::flags::ConfigFlags;
use super::status::{Unanswered, request};

const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// Has a running node take a snapshot of its state, and waits until it is on the disk; exit code 1 when none could be taken
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// How long to wait for it, in seconds: large states and long logs take their time
    #[arg(long, default_value_t = 600)]
    wait: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let socket = &settings.node.admin_socket;
    match take(socket, Duration::from_secs(args.wait)) {
        Ok(Ok(snapshot)) => with_stdout(|out| {
            if args.json {
                writeln!(out, "{snapshot}")?;
            } else {
                let field = |name: &str| snapshot[name].to_string();
                writeln!(
                    out,
                    "snapshot at entry {}, position {}: {} bytes, state hash {}",
                    field("sequence"),
                    field("position"),
                    field("bytes"),
                    snapshot["state_hash"].as_str().unwrap_or_default()
                )?;
            }
            Ok(EXIT_DONE)
        }),
        Ok(Err(why)) => {
            complain(&why);
            EXIT_FINDINGS
        }
        Err(error) => {
            complain(&error.text(socket));
            EXIT_FAILURE
        }
    }
}

/// Asks, and waits for the answer: the snapshot, or why there is none.
fn take(socket: &Path, patience: Duration) -> Result<Result<Value, String>, Unanswered> {
    let begin = Instant::now();
    let Some(number) = request(socket, "snapshot")?["request"].as_u64() else {
        return Ok(Err("the node does not know snapshots: it is of another version".to_owned()));
    };
    loop {
        let status = request(socket, "status")?;
        let snapshot = &status["snapshot"];
        if snapshot["answered"].as_u64() >= Some(number) {
            return Ok(match (&snapshot["failure"], &snapshot["newest"]) {
                (Value::String(why), _) => Err(format!("no snapshot was taken: {why}")),
                (_, Value::Null) => Err("nothing is committed yet".to_owned()),
                (_, newest) => Ok(newest.clone()),
            });
        }
        if begin.elapsed() >= patience {
            let seconds = patience.as_secs();
            return Ok(Err(format!("not taken within {seconds} s: the node goes on with it")));
        }
        std::thread::sleep(ASK_INTERVAL);
    }
}

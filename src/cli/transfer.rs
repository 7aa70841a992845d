//! `quorate transfer` and `quorate step-down`: the leader hands the lead over, as planned, and its clients go on.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::runtime::config::Settings;
use quorate::runtime::terminal::{complain, with_stdout};

use super::flags::ConfigFlags;
use super::status::{Unanswered, request};

/// How long the hand-over may take before it is called failed.
const PATIENCE: Duration = Duration::from_secs(5);
const ASK_INTERVAL: Duration = Duration::from_millis(2);

/// Makes the leader hand the lead to another node; exit code 1 when it refuses, or the other does not take over
#[derive(clap::Args)]
pub(crate) struct TransferArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// Who is to lead: its number or its name
    #[arg(long, value_name = "NODE")]
    to: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Makes the leader hand the lead to the best of the others; exit code 1 when there is none
#[derive(clap::Args)]
pub(crate) struct StepDownArgs {
    #[command(flatten)]
    config: ConfigFlags,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run_transfer(args: &TransferArgs) -> u8 {
    let settings = match args.config.load(None) {
        Ok(settings) => settings,
        Err(errors) => {
            complain(&errors);
            return EXIT_USAGE;
        }
    };
    let named = settings.members.iter().find(|member| member.name == args.to);
    let number = named.map(|member| member.id.0).or_else(|| args.to.parse().ok());
    let Some(number) = number else {
        complain(&format!("no member is named {:?}", args.to));
        return EXIT_FINDINGS;
    };
    hand_over(&settings, &format!("transfer {number}"), args.json)
}

pub(crate) fn run_step_down(args: &StepDownArgs) -> u8 {
    match args.config.load(None) {
        Ok(settings) => hand_over(&settings, "step-down", args.json),
        Err(errors) => {
            complain(&errors);
            EXIT_USAGE
        }
    }
}

fn hand_over(settings: &Settings, order: &str, json: bool) -> u8 {
    let socket = &settings.node.admin_socket;
    match begin_and_wait(socket, order) {
        Ok(outcome) => with_stdout(|out| {
            if json {
                writeln!(out, "{outcome}")?;
            } else {
                let leader = &outcome["leader"];
                writeln!(out, "node {leader} leads, {} ms after the order", outcome["ms"])?;
            }
            Ok(EXIT_DONE)
        }),
        Err(Failure::Refused(why)) => {
            complain(&why);
            EXIT_FINDINGS
        }
        Err(Failure::Unanswered(error)) => {
            complain(&error.text(socket));
            EXIT_FAILURE
        }
    }
}

enum Failure {
    Refused(String),
    Unanswered(Unanswered),
}

fn begin_and_wait(socket: &Path, order: &str) -> Result<Value, Failure> {
    let begin = Instant::now();
    let answer = request(socket, order).map_err(Failure::Unanswered)?;
    let Some(to) = answer["handing_to"].as_u64() else {
        let why = answer["error"].as_str().unwrap_or("an answer that means nothing");
        return Err(Failure::Refused(with_the_leader(socket, why)));
    };
    while begin.elapsed() < PATIENCE {
        let status = request(socket, "status").map_err(Failure::Unanswered)?;
        if status["leader"].as_u64() == Some(to) {
            let ms = begin.elapsed().as_secs_f64() * 1000.0;
            return Ok(json!({"leader": to, "ms": (ms * 10.0).round() / 10.0}));
        }
        if status["handing_to"].is_null() && !status["leader"].is_null() {
            let why = status["last_transfer"].as_str().unwrap_or("see the events of this node");
            return Err(Failure::Refused(format!("node {to} did not take over: {why}")));
        }
        std::thread::sleep(ASK_INTERVAL);
    }
    let why = format!(
        "node {to} did not take over in {} s: see the events of this node",
        PATIENCE.as_secs()
    );
    Err(Failure::Refused(why))
}

/// A refusal, and where the order should go.
fn with_the_leader(socket: &Path, why: &str) -> String {
    let status = request(socket, "status").ok();
    match status.filter(|status| status["role"] != "leader" && !status["leader"].is_null()) {
        Some(status) => format!("{why}: node {} does", status["leader"]),
        None => why.to_owned(),
    }
}

//! `quorate status`: what a node is doing, asked of the running node itself.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS};
use quorate::runtime::ask;
use quorate::runtime::terminal::{complain, with_stdout};

use super::flags::ConfigFlags;

/// Says what a running node is doing
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// Prints nothing; exit code 0 if the node leads, 1 if not (or if it does not run)
    #[arg(long)]
    is_leader: bool,
    /// One JSON object, with all counters
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let status = match request(&settings.node.admin_socket, "status") {
        Ok(status) => status,
        Err(Unanswered::NotRunning) if args.is_leader => return EXIT_FINDINGS,
        Err(error) => {
            complain(&error.text(&settings.node.admin_socket));
            return if matches!(error, Unanswered::NotRunning) {
                EXIT_FINDINGS
            } else {
                EXIT_FAILURE
            };
        }
    };
    if args.is_leader {
        return if status["role"] == "leader" { EXIT_DONE } else { EXIT_FINDINGS };
    }
    with_stdout(|out| {
        if args.json {
            writeln!(out, "{status}")?;
        } else {
            human(out, &status)?;
        }
        Ok(EXIT_DONE)
    })
}

/// Why a node did not answer.
pub(crate) enum Unanswered {
    /// Nothing listens there.
    NotRunning,
    /// Something else.
    Failed(String),
}

impl Unanswered {
    /// In words.
    pub(crate) fn text(&self, socket: &Path) -> String {
        match self {
            Self::NotRunning => {
                format!("no node runs here: nothing listens at {}", socket.display())
            }
            Self::Failed(why) => format!("{}: {why}", socket.display()),
        }
    }
}

/// Asks a running node.
pub(crate) fn request(socket: &Path, request: &str) -> Result<Value, Unanswered> {
    let answer = ask(socket, request).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Unanswered::NotRunning,
        _ => Unanswered::Failed(error.to_string()),
    })?;
    serde_json::from_str(&answer).map_err(|error| Unanswered::Failed(error.to_string()))
}

fn human(out: &mut dyn Write, status: &Value) -> std::io::Result<()> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    for key in [
        "node",
        "name",
        "group",
        "group_name",
        "service",
        "transport",
        "role",
        "leader",
        "generation",
        "term",
    ] {
        writeln!(out, "{key:<12} {}", text(&status[key]))?;
    }
    let lasts = Duration::from_millis(status["since_ms"].as_u64().unwrap_or(0));
    writeln!(out, "{:<12} {}", "quorum", text(&status["quorum"]))?;
    writeln!(out, "{:<12} {} ({lasts:?})", "since", text(&status["since"]))?;
    for key in ["standing", "sequence"] {
        writeln!(out, "{key:<12} {}", text(&status[key]))?;
    }
    for key in ["tail", "durable", "commit", "applied"] {
        writeln!(out, "{key:<12} {}", text(&status["positions"][key]))?;
    }
    for key in ["state_hash", "present"] {
        writeln!(out, "{key:<12} {}", text(&status[key]))?;
    }
    let words = &status["words"];
    for key in [
        "sessions",
        "quorum_losses",
        "no_quorum_refusals",
        "forwarded",
        "local_answers",
        "local_refusals",
        "commands_applied",
        "back_pressure",
        "no_space_refusals",
        "naks_sent",
        "repairs_sent",
        "bad_frames",
    ] {
        writeln!(out, "{key:<12} {}", text(&words[key]))?;
    }
    writeln!(out, "{:<12} {}", "disk", text(&status["disk"]["state"]))?;
    let taking = &status["catch_up"]["taking"];
    if taking.is_object() {
        let [from, position, goal] = ["from", "position", "goal"].map(|key| text(&taking[key]));
        let megabytes = taking["bytes_per_second"].as_u64().unwrap_or(0) / 1_000_000;
        writeln!(
            out,
            "{:<12} {position} of {goal}, from node {from}, {megabytes} MB/s",
            "catch_up"
        )?;
    }
    kept(out, &status["retention"])?;
    let reasons = ["garbage", "version", "group"];
    let data = reasons.map(|reason| (reason, &words[format!("dropped_{reason}")]));
    let control = &status["control_dropped"];
    let control = reasons.into_iter().chain(["stranger"]).map(|reason| (reason, &control[reason]));
    dropped(out, "data port", data.into_iter())?;
    dropped(out, "control port", control)
}

/// Where the log begins, the snapshots, and why the oldest segment stays.
fn kept(out: &mut dyn Write, retention: &Value) -> std::io::Result<()> {
    let Some(first) = retention["first"].as_u64() else { return Ok(()) };
    let why = match (retention["pinned_by"].as_str(), &retention["failure"]) {
        (Some("member"), _) => format!("kept for node {}", retention["member"]),
        (Some("snapshots"), _) => "kept until two snapshots cover it".to_owned(),
        (Some(_), _) => "within its limits".to_owned(),
        (None, Value::String(failure)) => failure.clone(),
        (None, _) => "about to leave".to_owned(),
    };
    writeln!(out, "{:<12} {first} ({why})", "log begins")?;
    let snapshots = retention["snapshots"].as_array().map(Vec::as_slice).unwrap_or_default();
    let at: Vec<_> = snapshots.iter().map(Value::to_string).collect();
    let at = if at.is_empty() { "none".to_owned() } else { at.join(", ") };
    writeln!(out, "{:<12} {at}", "snapshots")
}

/// Datagrams that were not looked at, by reason; nothing while there were none.
fn dropped<'a>(
    out: &mut dyn Write,
    port: &str,
    reasons: impl Iterator<Item = (&'static str, &'a Value)>,
) -> std::io::Result<()> {
    let counted = reasons.filter(|(_, count)| count.as_u64().unwrap_or(0) > 0);
    let text: Vec<_> = counted.map(|(reason, count)| format!("{reason} {count}")).collect();
    if text.is_empty() {
        return Ok(());
    }
    writeln!(out, "{:<12} dropped: {}", port, text.join(", "))
}

//! `quorate query`: one question per line in, one answer per line out, of one node, whoever leads.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

use serde_json::json;

use quorate::client::{Demand, Lag, ReadOutcome};
use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::runtime::{ConnectOptions, HostReader, Read, ReadError};
use quorate::service::{Rejection, ServiceKind};
use quorate::types::{Nanos, NodeId, Sequence};

use super::flags::ConfigFlags;

/// Asks one node of a running group, one question per line, and prints one answer per line
///
/// The node answers from its own state, whoever leads, and says how old that may be. Exit code 1 if it refused one: it
/// cannot tell that its state is fresh enough, or does not hold the entry that was asked for. Questions to the leader, whose
/// answers hold everything: `quorate send --query`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// File of questions, one per line, as the group's service reads them; - is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Which node [default: the one of the configuration]
    #[arg(long, value_name = "ID")]
    node: Option<u16>,
    /// An answer must hold all that anybody was told up to so long before it was asked for; 0: all of it [default: any]
    #[arg(long, value_name = "MILLISECONDS")]
    within_ms: Option<u64>,
    /// An answer must hold this entry of the log
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    at_least: u64,
    /// How long the node may wait until it can say so
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    wait_ms: u64,
    /// One JSON object per answer, with its lag
    #[arg(long)]
    json: bool,
}

impl Args {
    fn demand(&self) -> Demand {
        let ns = |ms: u64| ms.saturating_mul(Nanos::MILLISECOND);
        Demand {
            within_ns: self.within_ms.map_or(Demand::default().within_ns, ns),
            at_least: Sequence(self.at_least),
            wait_ns: ns(self.wait_ms),
        }
    }

    fn questions(&self) -> io::Result<Box<dyn BufRead>> {
        if self.input.as_os_str() == "-" {
            return Ok(Box::new(BufReader::new(io::stdin())));
        }
        Ok(Box::new(BufReader::new(File::open(&self.input)?)))
    }
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let questions = match args.questions() {
        Ok(questions) => questions,
        Err(error) => {
            complain(&format!("{}: {error}", args.input.display()));
            return EXIT_USAGE;
        }
    };
    let mut options = ConnectOptions::of(&settings, "quorate query");
    options.faults = None;
    let mut reader = match HostReader::new(&options) {
        Ok(reader) => reader,
        Err(error) => {
            complain(&error);
            return EXIT_FAILURE;
        }
    };
    let node = args.node.map_or(settings.node.id, NodeId);
    let kind = settings.group.service;
    with_stdout(|out| {
        let mut code = EXIT_DONE;
        for (number, line) in (1..).zip(questions.split(b'\n')) {
            let mut question = Vec::new();
            if let Err(error) = kind.encode_query(number, &line?, &mut question) {
                complain(&error);
                return Ok(EXIT_USAGE);
            }
            match reader.ask(node, &question, args.demand()) {
                Ok(read) => print(out, kind, number, &read, args.json)?,
                Err(ReadError::Unanswered(outcome, lag)) => {
                    code = code.max(code_of(outcome));
                    refused(out, kind, number, outcome, lag, args.json)?;
                }
                Err(error) => {
                    complain(&format!("line {number}: {error}"));
                    return Ok(EXIT_USAGE);
                }
            }
        }
        Ok(code)
    })
}

/// A node that says nothing, or has stopped, has failed; else its answer is no.
fn code_of(outcome: ReadOutcome) -> u8 {
    match outcome {
        ReadOutcome::Silent | ReadOutcome::Stopping => EXIT_FAILURE,
        _ => EXIT_FINDINGS,
    }
}

fn print(
    out: &mut dyn Write,
    kind: ServiceKind,
    number: u64,
    read: &Read,
    as_json: bool,
) -> io::Result<()> {
    let described = kind.describe_reply(&read.reply);
    if !as_json {
        return writeln!(out, "{}", described.text);
    }
    let text = || json!(described.text);
    let reply = serde_json::from_str(&described.to_json()).unwrap_or_else(|_| text());
    let lag = lag_json(Some(read.lag));
    let object = json!({ "request": number, "outcome": "answered", "reply": reply, "lag": lag });
    writeln!(out, "{object}")
}

fn refused(
    out: &mut dyn Write,
    kind: ServiceKind,
    number: u64,
    outcome: ReadOutcome,
    lag: Option<Lag>,
    as_json: bool,
) -> io::Result<()> {
    let (word, text) = match outcome {
        ReadOutcome::Rejected { code } => ("rejected", kind.describe_rejection(Rejection(code))),
        ReadOutcome::TooStale => ("too-stale", outcome.to_string()),
        ReadOutcome::Behind => ("behind", outcome.to_string()),
        ReadOutcome::Silent => ("silent", outcome.to_string()),
        _ => ("refused", outcome.to_string()),
    };
    if !as_json {
        return writeln!(out, "{word}: {text}");
    }
    let lag = lag_json(lag);
    let object = json!({ "request": number, "outcome": word, "reply": text, "lag": lag });
    writeln!(out, "{object}")
}

fn lag_json(lag: Option<Lag>) -> serde_json::Value {
    let Some(lag) = lag else { return json!(null) };
    json!({
        "node": lag.node.map(|node| node.0),
        "leader_term": lag.leadership.term.0,
        "term": lag.term.0,
        "sequence": lag.sequence.0,
        "applied": lag.applied.0,
        "commit": lag.commit.0,
        "lag_ns": lag.lag_ns,
        "heard_ns": lag.heard_ns,
    })
}

//! `quorate-log sessions`: the clients of a log, and what each of them sent.

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use quorate::error::EXIT_DONE;
use quorate::frame::Kind;
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::runtime::terminal::with_stdout;
use quorate::types::Timestamp;

use crate::args::Source;
use crate::decode::{Commands, fields};
use crate::dump::say_end;
use crate::render::{self, table, time_text};
use crate::select::{Selection, client_sequence_of, own_bytes, session_of};
use crate::walk::{Step, walk};

/// Lists sessions: whose, since when, closed why, commands and the last of their numbers
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log sessions group/node-0
  quorate-log sessions group/node-0 --session 2 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    selection: Selection,
}

/// A session, as far as its entries are in the log.
#[derive(Default)]
struct Session {
    name: Option<String>,
    opened: Option<Timestamp>,
    closed: Option<(Timestamp, String)>,
    commands: u64,
    bytes: u64,
    last_number: Option<u64>,
    last: Timestamp,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| list(out, args, &mut reader)),
        Err(code) => code,
    }
}

fn list(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let mut sessions: BTreeMap<u64, Session> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut code = EXIT_DONE;
    args.selection.start(reader);
    let end = walk(reader, |step| {
        match step {
            Step::Problem(problem) => {
                code = code.max(problem.what.code(false));
                problems.push(problem.clone());
            }
            Step::Frame(_, found) if args.selection.is_over(&found) => {
                return Ok(ControlFlow::Break(()));
            }
            Step::Frame(_, found) if args.selection.wants(&found) => {
                if let Some(id) = session_of(&found) {
                    sessions.entry(id).or_default().count(&found);
                }
            }
            Step::Frame(..) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if args.source.json {
        for (id, session) in &sessions {
            writeln!(out, "{}", session.object(*id))?;
        }
    } else {
        let titles = ["SESSION", "NAME", "OPENED", "CLOSED", "COMMANDS", "BYTES", "LAST", "SEEN"];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(sessions.iter().map(|(id, session)| session.row(*id)));
        table(out, &rows, &["NAME", "OPENED", "CLOSED", "SEEN"])?;
    }
    for problem in &problems {
        render::problem(out, args.source.json, problem)?;
    }
    out.flush()?;
    say_end(reader, end);
    Ok(code)
}

impl Session {
    fn count(&mut self, found: &Found<'_>) {
        let time = found.header.timestamp();
        self.last = self.last.max(time);
        let field = |name: &str| {
            let all = fields(found, Commands::PLAIN);
            let value = all.into_iter().find(|(key, _)| *key == name)?.1;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        match found.header.kind() {
            Some(Kind::SessionOpen) => {
                self.name = field("name");
                self.opened = Some(time);
            }
            Some(Kind::SessionClose) => {
                self.closed = Some((time, field("reason").unwrap_or_default()));
            }
            _ => {
                self.commands += 1;
                self.bytes += own_bytes(found).len() as u64;
                self.last_number = self.last_number.max(client_sequence_of(found));
            }
        }
    }

    fn object(&self, id: u64) -> Value {
        json!({
            "session": id,
            "name": self.name,
            "opened": self.opened.map(time_text),
            "closed": self.closed.as_ref().map(|(time, _)| time_text(*time)),
            "reason": self.closed.as_ref().map(|(_, reason)| reason),
            "commands": self.commands,
            "command_bytes": self.bytes,
            "last_client_sequence": self.last_number,
            "last_time": time_text(self.last),
        })
    }

    fn row(&self, id: u64) -> Vec<String> {
        let absent = || "-".to_owned();
        vec![
            id.to_string(),
            self.name.clone().unwrap_or_else(absent),
            self.opened.map_or_else(absent, time_text),
            self.closed.as_ref().map_or_else(absent, |(_, reason)| reason.clone()),
            self.commands.to_string(),
            self.bytes.to_string(),
            self.last_number.map_or_else(absent, |number| number.to_string()),
            time_text(self.last),
        ]
    }
}

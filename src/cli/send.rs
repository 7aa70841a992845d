//! `quorate send`: one command per line in, one reply per line out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

use serde_json::json;

use quorate::client::{Answer, Outcome, Refusal, Request};
use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::runtime::{ConnectOptions, HostClient};
use quorate::service::{Rejection, ServiceKind};
use quorate::types::Nanos;

use super::flags::ConfigFlags;
use super::kept_session::Kept;

/// Sends commands to a running group, one per line, and prints one reply per line
///
/// Lines are what the group's service reads: for `book`, `new buy 100 @ 585.33 id 7` and the like, or LOBSTER messages; for
/// `echo` and `sequencer`, anything. Exit code 1 if a command was rejected.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// File of lines; - is stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Lines are questions, answered by the leader without changing anything
    #[arg(long)]
    query: bool,
    /// How long to look for a leader, and to wait for the last replies
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    timeout: u64,
    /// Keeps a session with unanswered commands in this file, and takes it up from there: they are sent again first, and each
    /// is answered as it was decided, once. The file is secret, and is removed when everything is answered
    #[arg(long, value_name = "FILE", conflicts_with = "query")]
    session: Option<PathBuf>,
    /// One JSON object per reply
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let input: Box<dyn BufRead> = if args.input.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        match File::open(&args.input) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => {
                complain(&format!("{}: {error}", args.input.display()));
                return EXIT_USAGE;
            }
        }
    };
    let mut options = ConnectOptions::of(&settings, "quorate send");
    options.faults = None;
    let mut kept = Kept::default();
    if let Some(file) = &args.session {
        // As long as the group allows: somebody is to come back.
        options.session_timeout_ns = u64::MAX;
        kept = match Kept::read(file) {
            Ok(kept) => kept,
            Err(error) => {
                complain(&format!("{}: {error}", file.display()));
                return EXIT_USAGE;
            }
        };
        options.resume = kept.ticket;
    }
    let timeout_ns = args.timeout.saturating_mul(Nanos::SECOND);
    let connected = HostClient::new(options).and_then(|mut client| {
        client.connect(timeout_ns)?;
        Ok(client)
    });
    let mut client = match connected {
        Ok(client) => client,
        Err(error) => {
            complain(&error);
            return EXIT_FAILURE;
        }
    };
    let kind = settings.group.service;
    with_stdout(|out| {
        let mut sending = Sending {
            kind,
            json: args.json,
            query: args.query,
            rejected: 0,
            unknown: 0,
            unanswered: args.session.is_some().then(VecDeque::new),
        };
        let code = sending.all(kept.commands, input, &mut client, out, timeout_ns)?;
        client.close(Nanos::SECOND);
        if let (Some(file), Some(commands)) = (&args.session, sending.unanswered) {
            let kept = Kept { ticket: client.client.ticket(), commands: commands.into() };
            if let Err(error) = kept.write(file) {
                complain(&format!("{}: {error}", file.display()));
                return Ok(EXIT_FAILURE);
            }
        }
        Ok(code)
    })
}

struct Sending {
    kind: ServiceKind,
    json: bool,
    query: bool,
    rejected: u64,
    unknown: u64,
    /// The commands without an answer, oldest first, where they are to be kept.
    unanswered: Option<VecDeque<Vec<u8>>>,
}

impl Sending {
    fn all(
        &mut self,
        again: Vec<Vec<u8>>,
        input: Box<dyn BufRead>,
        client: &mut HostClient,
        out: &mut dyn Write,
        timeout_ns: u64,
    ) -> io::Result<u8> {
        for bytes in again {
            if let Err(why) = self.one(&bytes, client, out, timeout_ns)? {
                complain(&format!("a command of before: {why}"));
                self.drain(client, out, timeout_ns)?;
                return Ok(EXIT_FAILURE);
            }
        }
        let mut bytes = Vec::new();
        for (number, line) in (1..).zip(input.split(b'\n')) {
            bytes.clear();
            let encoded = if self.query {
                self.kind.encode_query(number, &line?, &mut bytes).map(|()| true)
            } else {
                self.kind.encode(number, &line?, &mut bytes)
            };
            match encoded {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    complain(&error);
                    self.drain(client, out, timeout_ns)?;
                    return Ok(EXIT_USAGE);
                }
            }
            if let Err(why) = self.one(&bytes, client, out, timeout_ns)? {
                complain(&format!("line {number}: {why}"));
                self.drain(client, out, timeout_ns)?;
                return Ok(EXIT_FAILURE);
            }
        }
        self.drain(client, out, timeout_ns)?;
        Ok(match (self.unknown, self.rejected) {
            (0, 0) => EXIT_DONE,
            (0, _) => EXIT_FINDINGS,
            _ => EXIT_FAILURE,
        })
    }

    /// Sends one line, taking replies while there is no room for it.
    fn one(
        &mut self,
        bytes: &[u8],
        client: &mut HostClient,
        out: &mut dyn Write,
        timeout_ns: u64,
    ) -> io::Result<Result<(), String>> {
        let deadline = client.now().plus(timeout_ns);
        loop {
            let sent = if self.query {
                client.client.query(bytes).map(drop)
            } else {
                client.client.send(bytes).map(drop)
            };
            match sent {
                Ok(()) => {
                    if let Some(unanswered) = &mut self.unanswered {
                        unanswered.push_back(bytes.to_vec());
                    }
                    self.take(client, out, false)?;
                    return Ok(Ok(()));
                }
                Err(Refusal::TooLong { bytes, bytes_max }) => {
                    return Ok(Err(format!("{bytes} bytes, at most {bytes_max} are taken")));
                }
                Err(Refusal::Closed) => return Ok(Err("the session has ended".into())),
                Err(refusal) if client.now() >= deadline => {
                    return Ok(Err(format!("not taken in time: {refusal:?}")));
                }
                Err(_) => self.take(client, out, true)?,
            }
        }
    }

    fn drain(
        &mut self,
        client: &mut HostClient,
        out: &mut dyn Write,
        timeout_ns: u64,
    ) -> io::Result<()> {
        let deadline = client.now().plus(timeout_ns);
        while client.client.unanswered() > 0 && client.now() < deadline {
            self.take(client, out, true)?;
        }
        let mut written = Ok(());
        // Giving up ends the client at once, and leaves its session to the time-out.
        if client.client.unanswered() > 0 {
            client.client.give_up(|answer| {
                if written.is_ok() {
                    written = self.print(out, &answer);
                }
            });
        }
        written
    }

    fn take(&mut self, client: &mut HostClient, out: &mut dyn Write, idle: bool) -> io::Result<()> {
        let mut written = Ok(());
        let handler = |answer: Answer<'_>| {
            if written.is_ok() {
                written = self.print(out, &answer);
            }
        };
        if idle {
            client.turn_within(Nanos::MILLISECOND, handler)
        } else {
            client.poll(handler)
        };
        written
    }

    fn print(&mut self, out: &mut dyn Write, answer: &Answer<'_>) -> io::Result<()> {
        if let Some(unanswered) = &mut self.unanswered
            && answer.outcome != Outcome::Unknown
        {
            unanswered.pop_front(); // they are answered in their order
        }
        let (word, text) = match answer.outcome {
            Outcome::Applied => ("applied", self.kind.describe_reply(answer.reply).text),
            Outcome::Rejected { code } => {
                self.rejected += 1;
                ("rejected", self.kind.describe_rejection(Rejection(code)))
            }
            Outcome::Forgotten => {
                ("forgotten", "decided earlier, the reply is no longer kept".into())
            }
            Outcome::TooLong => {
                self.rejected += 1;
                ("rejected", "too long".into())
            }
            Outcome::Unknown => {
                self.unknown += 1;
                ("unknown", "no answer in time: ask again later".into())
            }
        };
        let number = match answer.request {
            Request::Command(command) => command.0,
            Request::Query(query) => query,
        };
        if self.json {
            let reply = match answer.outcome {
                Outcome::Applied => {
                    serde_json::from_str(&self.kind.describe_reply(answer.reply).to_json())
                        .unwrap_or_else(|_| json!(text))
                }
                _ => json!(text),
            };
            writeln!(
                out,
                "{}",
                json!({
                    "request": number, "outcome": word, "sequence": answer.sequence.0, "reply": reply,
                })
            )
        } else if answer.outcome == Outcome::Applied {
            writeln!(out, "{text}")
        } else {
            writeln!(out, "{word}: {text}")
        }
    }
}

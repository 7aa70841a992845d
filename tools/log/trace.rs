//! `quorate-log trace`: the life of one command, as far as the log and what is kept beside it tell it.

use core::ops::ControlFlow;
use std::io::{self, Write};

use serde_json::{Value, json};
use zerocopy::FromBytes;

use quorate::error::{EXIT_DONE, EXIT_FINDINGS};
use quorate::frame::payload::{CommandPrefix, SessionOpen, TermStart};
use quorate::frame::{FrameHeader, Kind};
use quorate::io::beside::BesideDisk;
use quorate::io::log_reader::{LogReader, Target};
use quorate::journal::reader::{Found, Trouble};
use quorate::journal::snapshot::snapshots;
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::{Position, Sequence, Timestamp};

use crate::args::Source;
use crate::find::arrive;
use crate::get::{gone, wanted};
use crate::render::{table, time_text};
use crate::select::session_of;
use crate::walk::{Step, walk};

/// Tells the life of one command: its client, its leader, its place, when its reply was in the client's hands; exit code 1:
/// it is not in the log
///
/// Times are the cluster's, as leaders stamped entries. That a reply arrived is known from the client's next command, which
/// says so.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log trace group/node-0 5
  quorate-log trace group/node-0 --session 2 --client-sequence 3 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Number of its entry
    #[arg(value_parser = wanted, required_unless_present = "session", conflicts_with = "session")]
    sequence: Option<u64>,
    /// Whose command
    #[arg(long, value_name = "ID", requires = "client_sequence")]
    session: Option<u64>,
    /// The number that its client gave it
    #[arg(long, value_name = "NUMBER", requires = "session")]
    client_sequence: Option<u64>,
}

/// One thing that happened to it.
struct Event {
    what: &'static str,
    /// Cluster time; none: it is a fact without a time.
    time: Option<Timestamp>,
    detail: Value,
}

/// The command itself.
struct Command {
    position: Position,
    end: Position,
    header: FrameHeader,
    prefix: CommandPrefix,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| match trace(args, &mut reader) {
            Ok(Some(events)) => print(out, args.source.json, &events),
            Ok(None) => {
                complain(&"no such command in this log");
                Ok(EXIT_FINDINGS)
            }
            Err(trouble) => Ok(gone(&mut reader, &trouble)),
        }),
        Err(code) => code,
    }
}

fn trace(args: &Args, reader: &mut LogReader) -> Result<Option<Vec<Event>>, Trouble> {
    let Some(command) = command(args, reader)? else { return Ok(None) };
    let behind = reader.before();
    let mut events = Vec::new();
    let session = command.prefix.session.get();
    if let Some(found) = entry(reader, Target::Sequence(Sequence(session)))?
        && let Ok((_, name)) = SessionOpen::read_from_prefix(found.payload)
        && found.header.kind() == Some(Kind::SessionOpen)
    {
        let detail = json!({ "session": session, "name": String::from_utf8_lossy(name) });
        events.push(Event { what: "session opened", time: Some(found.header.timestamp()), detail });
    }
    let header = command.header;
    if let Some(found) = entry(reader, Target::Term(header.term()))?
        && let Ok((start, _)) = TermStart::read_from_prefix(found.payload)
        && found.header.kind() == Some(Kind::TermStart)
    {
        let detail = json!({ "term": header.term().0, "leader": start.leader.get() });
        events.push(Event { what: "term began", time: Some(found.header.timestamp()), detail });
    }
    let detail = json!({
        "sequence": header.sequence().0,
        "position": command.position.0,
        "client_sequence": command.prefix.client_sequence.get(),
        "chain": format!("{:08x}", header.chain().0),
    });
    events.push(Event { what: "appended", time: Some(header.timestamp()), detail });
    reader.restart(behind);
    events.extend(afterwards(reader, &command));
    events.extend(facts(args, reader, &command));
    Ok(Some(events))
}

/// Goes to the command, and behind it.
fn command(args: &Args, reader: &mut LogReader) -> Result<Option<Command>, Trouble> {
    let Some((session, number)) = args.session.zip(args.client_sequence) else {
        let target = Target::Sequence(Sequence(args.sequence.unwrap_or(0)));
        let found = entry(reader, target)?;
        return Ok(found
            .filter(|found| Some(found.header.sequence().0) == args.sequence)
            .and_then(|found| of(&found)));
    };
    if !ends(reader.go_to(Target::Sequence(Sequence(session))))?.unwrap_or(false) {
        return Ok(None);
    }
    while let Some(found) = ends(reader.next_frame())?.flatten() {
        let command = of(&found).filter(|command| command.prefix.session.get() == session);
        if command.as_ref().is_some_and(|c| c.prefix.client_sequence.get() == number) {
            return Ok(command);
        }
    }
    Ok(None)
}

fn of(found: &Found<'_>) -> Option<Command> {
    let is_command = matches!(found.header.kind(), Some(Kind::Command | Kind::CommandBatch));
    let (prefix, _) = CommandPrefix::read_from_prefix(found.payload).ok().filter(|_| is_command)?;
    let (position, header) = (found.position, found.header);
    Some(Command { position, end: position.plus(header.span()), header, prefix })
}

/// The end of a log is an answer, not a trouble.
fn ends<T>(result: Result<T, Trouble>) -> Result<Option<T>, Trouble> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(trouble) if trouble.may_be_end() => Ok(None),
        Err(trouble) => Err(trouble),
    }
}

fn entry(reader: &mut LogReader, target: Target) -> Result<Option<Found<'_>>, Trouble> {
    if !ends(arrive(reader, target))?.unwrap_or(false) {
        return Ok(None);
    }
    Ok(ends(reader.next_frame())?.flatten())
}

/// What its session did next: until it said that it has the reply, or ended.
fn afterwards(reader: &mut LogReader, command: &Command) -> Vec<Event> {
    let session = command.prefix.session.get();
    let number = command.prefix.client_sequence.get();
    let mut events = Vec::new();
    // A walk does not fail but by what it calls.
    let _ = walk(reader, |step| {
        let Step::Frame(_, found) = step else { return Ok(ControlFlow::Continue(())) };
        if session_of(&found) != Some(session) {
            return Ok(ControlFlow::Continue(()));
        }
        let time = found.header.timestamp();
        let detail = json!({
            "sequence": found.header.sequence().0,
            "after_ns": time.0.saturating_sub(command.header.timestamp().0),
        });
        if found.header.kind() == Some(Kind::SessionClose) {
            events.push(Event { what: "session closed", time: Some(time), detail });
            return Ok(ControlFlow::Break(()));
        }
        let has_reply = CommandPrefix::read_from_prefix(found.payload)
            .is_ok_and(|(prefix, _)| prefix.received_through.get() >= number);
        if has_reply {
            events.push(Event { what: "reply received", time: Some(time), detail });
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    });
    events
}

/// What the node says of everything up to there.
fn facts(args: &Args, reader: &LogReader, command: &Command) -> Vec<Event> {
    let mut events = Vec::new();
    let mut fact = |what, yes: bool, detail| {
        if yes {
            events.push(Event { what, time: None, detail });
        }
    };
    if let Some(commit) = reader.commit() {
        let here = commit.position() >= command.end;
        fact("committed", here, json!({ "known_commit": commit.position().0 }));
        fact("not known to be committed", !here, json!({ "known_commit": commit.position().0 }));
    }
    if let Some(seal) = reader.seal() {
        let certain = seal.certain.position;
        fact("durable here", certain >= command.end, json!({ "certain": certain.0 }));
    }
    let disk = BesideDisk::new(args.source.path());
    let above = snapshots(&disk).unwrap_or_default();
    if let Some(first) = above.into_iter().find(|&at| at >= command.end) {
        fact("in a snapshot", true, json!({ "snapshot_position": first.0 }));
    }
    events
}

fn print(out: &mut dyn Write, json: bool, events: &[Event]) -> io::Result<u8> {
    let mut rows = vec![["EVENT", "TIME", "DETAIL"].map(str::to_owned).to_vec()];
    for Event { what, time, detail } in events {
        if json {
            let mut object = json!({ "event": what, "time": time.map(time_text) });
            for (key, value) in detail.as_object().into_iter().flatten() {
                object[key] = value.clone();
            }
            writeln!(out, "{object}")?;
            continue;
        }
        let detail = detail.as_object().into_iter().flatten().map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        });
        let detail = detail.collect::<Vec<_>>().join(" ");
        rows.push(vec![(*what).to_owned(), time.map_or("-".to_owned(), time_text), detail]);
    }
    if !json {
        table(out, &rows, &["EVENT", "TIME", "DETAIL"])?;
    }
    Ok(EXIT_DONE)
}

//! `quorate tail`: the committed log as it grows.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_FAILURE};
use quorate::frame::payload::CommandPrefix;
use quorate::frame::{FrameHeader, Kind};
use quorate::io::log_reader::{LogReader, ReadOptions};
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::service::ServiceKind;
use quorate::types::{Position, Sequence};
use zerocopy::FromBytes;

use super::flags::ConfigFlags;

/// How often a log that stands still is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Prints the committed log as it grows, beside the node that writes it
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// First entry; the first of the log unless given
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<u64>,
    /// Ends after so many entries
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// Ends at the end of the committed log
    #[arg(long)]
    no_follow: bool,
    /// One JSON object per entry
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let directory = &settings.node.data_dir;
    let mut reader = match LogReader::open(directory, ReadOptions::default()) {
        Ok(reader) => reader,
        Err(error) => {
            complain(&error);
            return EXIT_FAILURE;
        }
    };
    let kind = settings.group.service;
    with_stdout(|out| {
        let mut left = args.count.unwrap_or(u64::MAX);
        let mut sought = args.from.is_none();
        while left > 0 {
            if let Some(from) = args.from
                && !sought
            {
                sought = reader.seek_sequence(Sequence(from)).unwrap_or(false);
            }
            let next = if sought { reader.next_frame() } else { Ok(None) };
            match next {
                Ok(Some(found)) => {
                    if found.header.kind() == Some(Kind::Padding) {
                        continue;
                    }
                    print(out, kind, args.json, found.position, &found.header, found.payload)?;
                    left -= 1;
                }
                Ok(None) if args.no_follow => break,
                Ok(None) => {
                    out.flush()?;
                    std::thread::sleep(LOOK_INTERVAL);
                    if let Err(error) = reader.refresh() {
                        complain(&error);
                        return Ok(EXIT_FAILURE);
                    }
                }
                Err(trouble) => {
                    out.flush()?;
                    complain(&format!("{}: {trouble}", directory.display()));
                    return Ok(EXIT_FAILURE);
                }
            }
        }
        Ok(EXIT_DONE)
    })
}

fn print(
    out: &mut dyn Write,
    service: ServiceKind,
    as_json: bool,
    position: Position,
    header: &FrameHeader,
    payload: &[u8],
) -> std::io::Result<()> {
    let kind = header.kind().map_or("unknown", Kind::name);
    let command = match header.kind() {
        Some(Kind::Command) => CommandPrefix::read_from_prefix(payload).ok(),
        _ => None,
    };
    let text = command.map(|(_, bytes)| service.describe_command(bytes).text);
    if as_json {
        let object = json!({
            "sequence": header.sequence().0, "position": position.0, "term": header.term().0,
            "kind": kind, "timestamp": header.timestamp().0, "bytes": payload.len(),
            "session": command.map(|(prefix, _)| prefix.session.get()),
            "client_sequence": command.map(|(prefix, _)| prefix.client_sequence.get()),
            "command": text,
        });
        return writeln!(out, "{object}");
    }
    let sequence = header.sequence().0;
    match (command, text) {
        (Some((prefix, _)), Some(text)) => {
            writeln!(out, "{sequence} {kind} {}/{} {text}", prefix.session, prefix.client_sequence)
        }
        _ => writeln!(out, "{sequence} {kind}"),
    }
}

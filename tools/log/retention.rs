//! `quorate-log retention`: what would leave a log under which limits, and why the rest stays. Nothing is removed.

use std::io::{self, Write};
use std::time::SystemTime;

use jiff::SignedDuration;
use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_USAGE};
use quorate::io::beside::BesideDisk;
use quorate::io::log_reader::{LogReader, Tier};
use quorate::journal::retention::{Pin, Retention, RetentionLimits, SegmentHeld};
use quorate::journal::snapshot::{SnapshotReader, snapshots};
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::{Commit, NodeId, Position, Timestamp};

use crate::args::Source;
use crate::list::starts;
use crate::parse::{duration, size, time};
use crate::render::table;

/// Says which segments would leave under these limits, and why the others stay; nothing is removed
///
/// A node decides the same, but with the members that it knows of: name with --member how far each of the others is. Snapshots
/// count whose stamp is good.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log retention group/node-0 --size 64KiB
  quorate-log retention group/node-0 --age 7d --member 1=1048576 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Bytes of the log that may stay (KiB, MiB, GiB, TiB)
    #[arg(long, value_name = "BYTES", value_parser = size)]
    size: Option<u64>,
    /// Age that segments may have
    #[arg(long, value_name = "TIME", value_parser = duration)]
    age: Option<SignedDuration>,
    /// Bytes that stay, at most, for a member that lacks them
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "64GiB")]
    member_size: u64,
    /// Another member, and where the log on its disk ends
    #[arg(long, value_name = "NODE=POSITION", value_parser = member)]
    member: Vec<(NodeId, Option<Position>)>,
    /// By the clock of then, not of now
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
}

fn member(text: &str) -> Result<(NodeId, Option<Position>), String> {
    let wrong = || "a node's number and a position: 1=4096".to_owned();
    let (node, position) = text.split_once('=').ok_or_else(wrong)?;
    let node = node.parse().map_err(|_| wrong())?;
    let position = position.parse().map_err(|_| wrong())?;
    Ok((NodeId(node), Some(Position(position))))
}

pub(crate) fn run(args: &Args) -> u8 {
    if args.size.is_none() && args.age.is_none() {
        complain(&"no limit: --size, --age or both");
        return EXIT_USAGE;
    }
    match args.source.open() {
        Ok(reader) => with_stdout(|out| retention(out, args, &reader)),
        Err(code) => code,
    }
}

fn retention(out: &mut dyn Write, args: &Args, reader: &LogReader) -> io::Result<u8> {
    let end = reader.commit().map_or(Position(0), Commit::position);
    let disk = BesideDisk::new(args.source.path());
    let kept = if args.source.path().is_dir() { snapshots(&disk)? } else { Vec::new() };
    let good = |&at: &Position| SnapshotReader::open(&disk, reader.group(), at).is_ok();
    let kept: Vec<_> = kept.into_iter().filter(good).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = Timestamp(now.map_or(0, |now| now.as_nanos() as u64));
    let age_ns = args.age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
    let (size_bytes, member_bytes) = (args.size.unwrap_or(0), args.member_size);
    let retention = Retention {
        limits: RetentionLimits { size_bytes, age_ns, member_bytes },
        segment_bytes: reader.segment_bytes(),
        now: args.at.unwrap_or(now),
        end,
        snapshots: &kept,
        members: &args.member,
    };
    let mut rows = vec![["BASE", "BYTES", "LEAVES", "WHY"].map(str::to_owned).to_vec()];
    let (mut leaving, mut bytes, mut stayed) = (0_u64, 0_u64, false);
    for segment in segments(reader) {
        let (base, length, held) = segment;
        // One after the other: behind one that stays, all do. The newest is being written.
        let pin = held.map_or(Some(Pin::Limits), |held| retention.pin(&held));
        let leaves = !stayed && pin.is_none();
        let why = match pin {
            None if stayed => "an older one stays".to_owned(),
            None => "not needed any more".to_owned(),
            Some(Pin::Limits) => "within the limits".to_owned(),
            Some(Pin::Snapshots) => "too few good snapshots lie above it".to_owned(),
            Some(Pin::Member(node)) => format!("node {} lacks some of it", node.0),
        };
        stayed |= !leaves;
        leaving += u64::from(leaves);
        bytes += if leaves { length } else { 0 };
        if args.source.json {
            let line = json!({ "base": base.0, "bytes": length, "leaves": leaves, "why": why });
            writeln!(out, "{line}")?;
        } else {
            let word = if leaves { "yes" } else { "no" };
            rows.push(vec![base.to_string(), length.to_string(), word.to_owned(), why]);
        }
    }
    if !args.source.json {
        table(out, &rows, &["LEAVES", "WHY"])?;
        writeln!(out, "{leaving} segments of {bytes} bytes would leave")?;
    }
    Ok(EXIT_DONE)
}

/// Durable segments, oldest first: base, bytes of the file, and when the next one was begun; none: there is none behind it.
fn segments(reader: &LogReader) -> Vec<(Position, u64, Option<SegmentHeld>)> {
    let starts = starts(reader);
    let durable = reader.segments().iter();
    let durable = durable.filter(|segment| segment.tier == Tier::Durable && segment.header.is_ok());
    let all = durable.map(|segment| {
        let next = starts.iter().find(|start| start.position > segment.base);
        let closed = next.and_then(|next| reader.time_at(next.position));
        let held = closed.map(|closed| SegmentHeld { base: segment.base, closed });
        (segment.base, segment.bytes, held)
    });
    all.collect()
}

//! `quorate-log import`: the log that was exported as JSON lines, with the same bytes and checksums.

use core::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zerocopy::IntoBytes;

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_USAGE};
use quorate::frame::payload::TermStart;
use quorate::frame::{FrameHeader, Kind, Predecessor, check_frame};
use quorate::journal::seal::Seal;
use quorate::journal::segment_header::{Content, SegmentHeader};
use quorate::journal::segment_name;
use quorate::limits::{
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
};
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::{
    Chain, Commit, CutEpoch, Generation, GroupId, Position, Sequence, Term, Timestamp,
};

use crate::export::EXPORT_VERSION;
use crate::parse;

/// Longest line that can be an entry: its payload in digits, the payload decoded, and the rest.
const LINE_BYTES_MAX: u64 = 8 * FRAME_BYTES_MAX as u64;

/// Makes a log of what `export --format jsonl` wrote, in a directory of its own
///
/// Every checksum is computed anew and must be the one that the line names. Nothing is left behind unless all of it is good.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log export group/node-0 | quorate-log import - copy-of-log
  quorate-log export group/node-1 > log.jsonl; quorate-log import log.jsonl rebuilt --json")]
pub(crate) struct Args {
    /// JSON lines; `-`: stdin
    file: PathBuf,
    /// Where the log is to be: nothing, or an empty directory
    directory: PathBuf,
    /// One JSON object to a line
    #[arg(long)]
    json: bool,
}

/// What went wrong, and whose fault it is.
struct Wrong {
    code: u8,
    what: String,
}

fn wrong(code: u8, what: &dyn Display) -> Wrong {
    Wrong { code, what: what.to_string() }
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        wrong(EXIT_FAILURE, &error)
    }
}

pub(crate) fn run(args: &Args) -> u8 {
    let target = &args.directory;
    let mut new = target.clone().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    match import(args, &new).and_then(|made| {
        File::open(&new)?.sync_all()?;
        fs::rename(&new, target)?;
        Ok(made)
    }) {
        Ok((entries, end)) => with_stdout(|out| {
            let (position, chain) = (end.position.0, format!("{:08x}", end.chain.0));
            if args.json {
                let line = json!({ "entries": entries, "end_position": position,
                    "end_sequence": end.sequence.0, "end_chain": chain });
                writeln!(out, "{line}")?;
            } else {
                writeln!(out, "{entries} entries, up to position {position}, checksum {chain}")?;
            }
            Ok(EXIT_DONE)
        }),
        Err(wrong) => {
            // Ours alone: it was made by this run, or the run ended before.
            if wrong.code != EXIT_USAGE {
                let _ = fs::remove_dir_all(&new);
            }
            complain(&wrong.what);
            wrong.code
        }
    }
}

fn import(args: &Args, new: &Path) -> Result<(u64, Predecessor), Wrong> {
    let taken = |path: &Path| {
        let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        path.exists() && !empty
    };
    for path in [&*args.directory, new] {
        if taken(path) {
            return Err(wrong(EXIT_USAGE, &format_args!("{}: is there already", path.display())));
        }
    }
    let input: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        let said = |error| wrong(EXIT_USAGE, &format_args!("{}: {error}", args.file.display()));
        Box::new(File::open(&args.file).map_err(said)?)
    };
    let mut lines = Lines { input: BufReader::new(input), number: 0 };
    let Some(first) = lines.next()? else { return Err(lines.bad(&"no line is there")) };
    let mut making = Making::begin(&first, new).map_err(|what| lines.bad(&what))?;
    fs::create_dir_all(new)?;
    while let Some(line) = lines.next()? {
        making.append(&line).map_err(|what| lines.bad(&what))?;
        if making.is_full() {
            making.write()?;
        }
    }
    making.finish()?;
    Ok((making.entries, making.tail))
}

struct Lines {
    input: BufReader<Box<dyn Read>>,
    number: u64,
}

impl Lines {
    fn next(&mut self) -> Result<Option<Value>, Wrong> {
        let mut line = Vec::new();
        let read = (&mut self.input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        self.number += 1;
        if read == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| self.bad(&error))
    }

    fn bad(&self, what: &dyn Display) -> Wrong {
        wrong(EXIT_FAILURE, &format_args!("line {}: {what}", self.number))
    }
}

/// A log in the making, a segment at a time.
struct Making {
    directory: PathBuf,
    header: SegmentHeader,
    commit: Position,
    /// The payload of the segment until now.
    bytes: Vec<u8>,
    tail: Predecessor,
    generation: Generation,
    entries: u64,
    /// The last file that is whole.
    written: Option<PathBuf>,
}

fn number(line: &Value, key: &str) -> Result<u64, String> {
    line[key].as_u64().ok_or_else(|| format!("{key}: a number was expected"))
}

fn hex(line: &Value, key: &str) -> Result<u64, String> {
    let digits = line[key].as_str().and_then(|text| u64::from_str_radix(text, 16).ok());
    digits.ok_or_else(|| format!("{key}: hexadecimal digits were expected"))
}

fn small(line: &Value, key: &str) -> Result<u32, String> {
    u32::try_from(number(line, key)?).map_err(|_| format!("{key}: too large"))
}

impl Making {
    fn begin(line: &Value, directory: &Path) -> Result<Self, String> {
        if line["quorate_log"] != json!(EXPORT_VERSION) {
            return Err(format!("quorate_log: {EXPORT_VERSION} was expected, in the first line"));
        }
        let segment_bytes = number(line, "segment_bytes")?;
        let sizes = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        if !segment_bytes.is_power_of_two() || !sizes.contains(&segment_bytes) {
            return Err("segment_bytes: no size of segments".to_owned());
        }
        let chain = u32::try_from(hex(line, "chain")?).map_err(|_| "chain: too large")?;
        let before = Predecessor {
            position: Position(number(line, "position")?),
            sequence: Sequence(number(line, "sequence")?),
            term: Term(small(line, "term")?),
            chain: Chain(chain),
        };
        let last = u64::MAX - SEGMENT_BYTES_MAX;
        if !before.position.0.is_multiple_of(segment_bytes) || before.position.0 > last {
            return Err("position: a log begins at the start of a segment".to_owned());
        }
        let generation = Generation::from_u64(hex(line, "generation")?);
        let group = GroupId(hex(line, "group")?);
        let content = Content::Segment;
        let cut_epoch = CutEpoch(0);
        let header = SegmentHeader { content, group, generation, segment_bytes, before, cut_epoch };
        let commit = Position(line["commit"].as_u64().unwrap_or(0));
        let (directory, bytes) = (directory.to_owned(), Vec::new());
        let (entries, written) = (0, None);
        let tail = before;
        Ok(Self { directory, header, commit, bytes, tail, generation, entries, written })
    }

    fn append(&mut self, line: &Value) -> Result<(), String> {
        if number(line, "position")? != self.tail.position.0 {
            return Err(format!("position: {} follows", self.tail.position));
        }
        let kind = line["kind"].as_str().and_then(|name| parse::kind(name).ok());
        let kind = kind.ok_or_else(|| "kind: none of an entry".to_owned())?;
        let payload = bytes(line["payload"].as_str().unwrap_or_default())?;
        let (length, term) = (small(line, "length")?, Term(small(line, "term")?));
        let (sequence, time) = (number(line, "sequence")?, number(line, "time_ns")?);
        let mut header = FrameHeader::new(length, kind, term, Sequence(sequence), Timestamp(time));
        let chain = u32::try_from(hex(line, "chain")?).map_err(|_| "chain: too large")?;
        header.crc.set(chain);
        let whole = if kind == Kind::Padding { FRAME_HEADER_BYTES } else { length as usize };
        if whole != FRAME_HEADER_BYTES + payload.len() {
            return Err("length: not that of the payload and a header".to_owned());
        }
        let mut frame = header.as_bytes().to_vec();
        frame.extend_from_slice(&payload);
        frame.resize(frame.len().next_multiple_of(32), 0);
        let checked = check_frame(self.tail, self.header.segment_bytes, length, &frame);
        let header = checked.map_err(|error| error.to_string())?;
        if kind == Kind::TermStart
            && let Ok((start, _)) = <TermStart as zerocopy::FromBytes>::read_from_prefix(&payload)
        {
            self.generation = Generation::from_u64(start.generation.get());
        }
        self.entries += u64::from(kind != Kind::Padding);
        self.bytes.extend_from_slice(&frame);
        self.tail = self.tail.after(&header);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.tail.position.since(self.header.before.position) == self.header.segment_bytes
    }

    /// Writes the segment, and begins the next one.
    fn write(&mut self) -> io::Result<()> {
        let path = self.directory.join(segment_name(self.header.before.position));
        let mut file = File::create_new(&path)?;
        file.write_all(&self.header.encode())?;
        file.write_all(&self.bytes)?;
        file.set_len(SEGMENT_HEADER_BYTES as u64 + self.header.segment_bytes)?;
        file.sync_all()?;
        self.bytes.clear();
        self.header.before = self.tail;
        self.header.generation = self.generation;
        self.written = Some(path);
        Ok(())
    }

    /// Writes what is left, and the seal, which says how far it is all there and committed.
    fn finish(&mut self) -> io::Result<()> {
        if !self.bytes.is_empty() || self.written.is_none() {
            self.write()?;
        }
        let Some(path) = &self.written else { return Ok(()) };
        let seal = Seal {
            number: 1,
            epoch: CutEpoch(0),
            certain: self.tail,
            claimed: self.tail,
            known_commit: Commit(self.commit.min(self.tail.position)),
        };
        let file = File::options().write(true).open(path)?;
        let sector = seal.encode(self.header.group);
        std::os::unix::fs::FileExt::write_all_at(&file, &sector, seal.offset() as u64)?;
        file.sync_all()
    }
}

/// Bytes of hexadecimal digits.
fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
    let both = |&[high, low]: &[u8; 2]| Some(value(high)? << 4 | value(low)?);
    let bytes: Option<Vec<u8>> = pairs.iter().map(both).collect();
    bytes
        .filter(|_| odd.is_empty())
        .ok_or_else(|| "payload: pairs of hexadecimal digits".to_owned())
}

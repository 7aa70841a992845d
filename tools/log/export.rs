//! `quorate-log export`: entries for other programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use quorate::frame::{Kind, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::runtime::terminal::with_stdout;
use quorate::types::{Generation, GroupId};

use crate::args::Source;
use crate::decode::{Commands, fields};
use crate::decoder::Decoder;
use crate::dump::{Look, decoder_code, say_end};
use crate::list::{Entry, Listing, Visit};
use crate::pcap;
use crate::problem::Problem;
use crate::render::time_text;
use crate::select::{client_sequence_of, digits, session_of};

/// Version of the lines of `--format jsonl`.
pub(crate) const EXPORT_VERSION: u64 = 1;

/// Writes entries to stdout for other programs: JSON lines, CSV, or a capture of datagrams
///
/// `jsonl` begins with a line about the log and holds every byte: `import` makes the same log of it. `pcap` shows each frame as
/// the datagrams that would carry it, at the time of its stamp.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log export group/node-0 --format jsonl > log.jsonl
  quorate-log export group/node-0 --format csv --kind command -n 100")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// For which programs
    #[arg(long, short, value_name = "FORMAT", default_value = "jsonl")]
    format: Format,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    look: Look,
}

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Jsonl,
    Csv,
    Pcap,
}

pub(crate) fn run(args: &Args) -> u8 {
    let opened = args.source.open().and_then(|reader| Ok((reader, args.look.decoder()?)));
    match opened {
        Ok((mut reader, decoder)) => {
            with_stdout(|out| export(out, args, decoder.as_ref(), &mut reader))
        }
        Err(code) => code,
    }
}

fn export(
    out: &mut dyn Write,
    args: &Args,
    decoder: Option<&Decoder>,
    reader: &mut LogReader,
) -> io::Result<u8> {
    let mut show = args.look.commands(true, decoder);
    show.whole = true;
    let listing = match args.format {
        Format::Csv => args.listing.clone(),
        Format::Jsonl | Format::Pcap => args.listing.with_padding(),
    };
    let mut writer = Writer { format: args.format, show, log: About::of(reader), begun: false };
    match args.format {
        Format::Csv => writeln!(out, "{CSV_HEADING}")?,
        Format::Pcap => pcap::begin(out)?,
        Format::Jsonl => {}
    }
    let listed = listing.list(out, true, reader, &mut writer)?;
    out.flush()?;
    if let Some(end) = listed.end {
        say_end(reader, end);
    }
    Ok(listed.code.max(decoder_code(decoder)))
}

/// What entries do not say of their log.
struct About {
    group: u64,
    segment_bytes: u64,
    commit: Option<u64>,
    /// Generation before each segment.
    generations: Vec<(u64, Generation)>,
}

impl About {
    fn of(reader: &LogReader) -> Self {
        let headers = reader.segments().iter().filter_map(|segment| segment.header.ok());
        Self {
            group: reader.group().0,
            segment_bytes: reader.segment_bytes(),
            commit: reader.commit().map(|commit| commit.position().0),
            generations: headers.map(|h| (h.before.position.0, h.generation)).collect(),
        }
    }

    /// The generation before the segment in which something stands.
    fn generation(&self, position: u64) -> Generation {
        let below = self.generations.iter().filter(|(base, _)| *base <= position);
        below.max_by_key(|(base, _)| *base).map_or(Generation::default(), |(_, found)| *found)
    }

    /// The first line: all that is needed to make a log of those behind it.
    fn line(&self, before: Predecessor) -> Value {
        json!({
            "quorate_log": EXPORT_VERSION,
            "group": format!("{:016x}", self.group),
            "segment_bytes": self.segment_bytes,
            "generation": format!("{:016x}", self.generation(before.position.0).to_u64()),
            "position": before.position.0,
            "sequence": before.sequence.0,
            "term": before.term.0,
            "chain": format!("{:08x}", before.chain.0),
            "commit": self.commit,
        })
    }
}

struct Writer<'a> {
    format: Format,
    show: Commands<'a>,
    log: About,
    begun: bool,
}

impl Visit for Writer<'_> {
    fn entry(&mut self, out: &mut dyn Write, entry: Entry<'_>) -> io::Result<bool> {
        if !self.begun && self.format == Format::Jsonl {
            writeln!(out, "{}", self.log.line(entry.before))?;
        }
        self.begun = true;
        match self.format {
            Format::Jsonl => json_line(out, self.show, &entry)?,
            Format::Csv => csv_line(out, self.show, &entry)?,
            Format::Pcap => {
                let generation = self.log.generation(entry.found.position.0);
                pcap::frame(out, GroupId(self.log.group), generation, &entry.found)?;
            }
        }
        Ok(entry.found.header.kind() != Some(Kind::Padding))
    }

    /// On a line of its own, where lines are what is written; import refuses it. The exit code tells the others.
    fn problem(&mut self, out: &mut dyn Write, problem: &Problem) -> io::Result<()> {
        if self.format == Format::Jsonl { writeln!(out, "{}", problem.json()) } else { Ok(()) }
    }
}

fn json_line(out: &mut dyn Write, show: Commands<'_>, entry: &Entry<'_>) -> io::Result<()> {
    let found = &entry.found;
    let header = &found.header;
    let detail: Map<_, _> =
        fields(found, show).into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let line = json!({
        "position": found.position.0,
        "sequence": header.sequence().0,
        "term": header.term().0,
        "time_ns": header.timestamp().0,
        "time": time_text(header.timestamp()),
        "kind": header.kind().map_or("unknown", Kind::name),
        "length": header.length(),
        "chain": format!("{:08x}", header.chain().0),
        "payload": String::from_utf8_lossy(&digits(found.payload)),
        "detail": detail,
    });
    writeln!(out, "{line}")
}

const CSV_HEADING: &str =
    "position,sequence,term,time_ns,time,kind,length,chain,session,client_sequence,detail,payload";

fn csv_line(out: &mut dyn Write, show: Commands<'_>, entry: &Entry<'_>) -> io::Result<()> {
    let found = &entry.found;
    let header = &found.header;
    let optional = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
    let detail = fields(found, Commands { json: false, ..show }).into_iter();
    let detail: Vec<_> = detail
        .filter(|(key, _)| !matches!(*key, "session" | "client_sequence"))
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    let cells = [
        found.position.to_string(),
        header.sequence().to_string(),
        header.term().to_string(),
        header.timestamp().0.to_string(),
        time_text(header.timestamp()),
        header.kind().map_or("unknown", Kind::name).to_owned(),
        header.length().to_string(),
        format!("{:08x}", header.chain().0),
        optional(session_of(found)),
        optional(client_sequence_of(found)),
        quoted(&detail.join(" ")),
        String::from_utf8_lossy(&digits(found.payload)).into_owned(),
    ];
    writeln!(out, "{}", cells.join(","))
}

/// A cell of text as RFC 4180 has it.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

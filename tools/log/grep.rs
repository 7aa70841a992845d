//! `quorate-log grep`: entries whose bytes, or what a service reads in them, match a pattern.

use core::ops::ControlFlow;
use std::io::{self, Write};

use regex::bytes::Regex;
use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_FINDINGS};
use quorate::frame::payload::batch_items;
use quorate::frame::{Kind, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::runtime::terminal::with_stdout;

use crate::args::Source;
use crate::decode::Commands;
use crate::decoder::Decoder;
use crate::dump::{Look, decoder_code, say_end};
use crate::list::{Entry, Listed, Listing, Visit};
use crate::parallel::{Jobs, Pieces, each};
use crate::parse::pattern;
use crate::problem::Problem;
use crate::render;
use crate::select::{digits, own_bytes};
use crate::walk::{End, Step};

/// Shows entries that match a pattern; exit code 1: none does
///
/// The pattern is looked for in the bytes of an entry (of a command: its own), or, with --service, in the command as that
/// service reads it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log grep group/node-0 '(?i)command 7' -n 5
  quorate-log grep group/node-0 'buy .* @ 585' --service book --since '1 day ago' --count")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// A regular expression; (?i) in front ignores case
    #[arg(value_parser = pattern)]
    pattern: Regex,
    /// Look in the hexadecimal digits of the bytes
    #[arg(long = "digits", conflicts_with = "service")]
    digits: bool,
    /// Entries that do not match
    #[arg(short = 'v', long)]
    invert: bool,
    /// Say only how many there are
    #[arg(short, long)]
    count: bool,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    jobs: Jobs,
}

pub(crate) fn run(args: &Args) -> u8 {
    let opened = args.source.open().and_then(|reader| Ok((reader, args.look.decoder()?)));
    match opened {
        Ok((mut reader, decoder)) => {
            with_stdout(|out| grep(out, args, decoder.as_ref(), &mut reader))
        }
        Err(code) => code,
    }
}

fn grep(
    out: &mut dyn Write,
    args: &Args,
    decoder: Option<&Decoder>,
    reader: &mut LogReader,
) -> io::Result<u8> {
    let show = args.look.commands(args.source.json, decoder);
    if !args.count {
        render::heading(out, show)?;
    }
    let listed = if decoder.is_none() && args.listing.is_plain() {
        side_by_side(out, args, show.json, reader)?
    } else {
        args.listing.list(out, show.json, reader, &mut Matching { args, show })?
    };
    match (args.count, show.json) {
        (true, true) => writeln!(out, "{}", json!({ "count": listed.entries }))?,
        (true, false) => writeln!(out, "{}", listed.entries)?,
        (false, _) => {}
    }
    out.flush()?;
    if let Some(end) = listed.end {
        say_end(reader, end);
    }
    let found = if listed.entries == 0 { EXIT_FINDINGS } else { EXIT_DONE };
    Ok(found.max(listed.code).max(decoder_code(decoder)))
}

/// On all cores: in order, from one end to the other.
fn side_by_side(
    out: &mut dyn Write,
    args: &Args,
    json: bool,
    reader: &mut LogReader,
) -> io::Result<Listed> {
    let mut listed = Listed { code: EXIT_DONE, entries: 0, end: None };
    args.listing.selection().start(reader);
    let again = || LogReader::open(args.source.path(), args.source.options()).ok();
    let end = each(reader, args.jobs, &Searching { args, json }, again, |found| {
        listed.code = listed.code.max(found.code);
        listed.entries += found.entries;
        out.write_all(&found.text)
    })?;
    listed.end = Some(end);
    Ok(listed)
}

struct Searching<'a> {
    args: &'a Args,
    json: bool,
}

#[derive(Default)]
struct Hits {
    text: Vec<u8>,
    entries: u64,
    code: u8,
}

impl Pieces for Searching<'_> {
    type Found = Hits;

    fn empty(&self) -> Hits {
        Hits::default()
    }

    fn step(&self, hits: &mut Hits, step: Step<'_>) -> io::Result<ControlFlow<()>> {
        let selection = self.args.listing.selection();
        let mut matching =
            Matching { args: self.args, show: self.args.look.commands(self.json, None) };
        match step {
            Step::Problem(problem) => {
                matching.problem(&mut hits.text, problem)?;
                hits.code = hits.code.max(problem.what.code(false));
            }
            Step::Frame(_, found) if selection.is_over(&found) => {
                return Ok(ControlFlow::Break(()));
            }
            Step::Frame(before, found) => {
                let hit = selection.wants(&found)
                    && matching.entry(&mut hits.text, Entry { before, found })?;
                hits.entries += u64::from(hit);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn done(&self, _: &mut Hits, _: &LogReader, _: End) {}

    fn may_skip(&self, next: &Predecessor) -> bool {
        self.args.listing.selection().is_under(next)
    }
}

struct Matching<'a> {
    args: &'a Args,
    show: Commands<'a>,
}

impl Matching<'_> {
    fn matches(&self, found: &Found<'_>) -> bool {
        let bytes = own_bytes(found);
        let pattern = &self.args.pattern;
        let decoded = |command: &[u8]| {
            let service = self.args.look.service?;
            Some(pattern.is_match(service.describe_command(command).text.as_bytes()))
        };
        match found.header.kind() {
            Some(Kind::Command) if self.args.look.service.is_some() => decoded(bytes) == Some(true),
            Some(Kind::CommandBatch) if self.args.look.service.is_some() => {
                batch_items(bytes).flatten().any(|command| decoded(command) == Some(true))
            }
            _ if self.args.digits => pattern.is_match(&digits(bytes)),
            _ => pattern.is_match(bytes),
        }
    }
}

impl Visit for Matching<'_> {
    fn entry(&mut self, out: &mut dyn Write, entry: Entry<'_>) -> io::Result<bool> {
        let found = entry.found;
        let wanted = self.matches(&found) != self.args.invert;
        if wanted && !self.args.count {
            render::entry(out, self.show, &found)?;
        }
        Ok(wanted)
    }

    fn problem(&mut self, out: &mut dyn Write, problem: &Problem) -> io::Result<()> {
        if self.args.count && !self.show.json {
            return Ok(());
        }
        render::problem(out, self.show.json, problem)
    }
}

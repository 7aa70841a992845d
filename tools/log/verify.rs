//! `quorate-log verify`: is every byte that was promised there, and does everything chain?

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS};
use quorate::frame::{Kind, Predecessor};
use quorate::io::log_reader::{LogReader, ReadOptions, Tiers};
use quorate::journal::segment_header::HeaderError;
use quorate::limits::FRAME_HEADER_BYTES;
use quorate::runtime::terminal::with_stdout;
use quorate::types::Position;

use crate::args::{Source, is_live};
use crate::backup;
use crate::parallel::{Jobs, Pieces, each};
use crate::problem::{Problem, What, contradiction};
use crate::render;
use crate::walk::{End, Step, Why};

/// Checks every frame, header page and seal, of a backup every file; exit code 1 for a torn tail or stray bytes, 3 for damage
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log verify group/node-0
  quorate-log verify group/node-0 --jobs 1 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    jobs: Jobs,
}

pub(crate) fn run(args: &Args) -> u8 {
    if backup::is_one(args.source.path()) {
        return backup::verify(args.source.path(), args.source.json);
    }
    let reader = match args.source.open() {
        Ok(reader) => reader,
        Err(code) => return code,
    };
    // Above the commit position a running node is still writing; a dead one is looked at to the end.
    let uncommitted = args.source.options().uncommitted || !is_live(&reader);
    let has_hot = reader.tier().is_some() && args.source.options().tiers == Tiers::Both;
    let mut passes = vec![("durable files", Tiers::Durable)];
    if has_hot {
        passes.push(("hot and durable files", Tiers::Both));
    }
    let mut opened = Vec::new();
    for (name, tiers) in passes {
        let options = ReadOptions { uncommitted, tiers };
        match args.source.open_with(options) {
            Ok(reader) => opened.push((name, reader, options)),
            Err(code) => return code,
        }
    }
    with_stdout(|out| {
        let mut code = EXIT_DONE;
        for (name, reader, options) in &mut opened {
            code = code.max(verify(out, args, name, reader, *options)?);
        }
        Ok(code)
    })
}

/// What was found in a piece, or in all of them.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    entries: u64,
    bytes: u64,
    /// Padding whose body is to be looked at.
    padding: Vec<(Position, u64)>,
}

impl Pieces for Marks {
    type Found = Found;

    fn empty(&self) -> Found {
        Found::default()
    }

    fn step(&self, found: &mut Found, step: Step<'_>) -> io::Result<ControlFlow<()>> {
        match step {
            Step::Problem(problem) => found.problems.push(problem.clone()),
            Step::Frame(before, frame) => {
                let is_padding = frame.header.kind() == Some(Kind::Padding);
                found.entries += u64::from(!is_padding);
                found.bytes += frame.header.span();
                if is_padding {
                    found.padding.push((frame.position, frame.header.span()));
                }
                found.problems.extend(self.contradicted(before));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn done(&self, found: &mut Found, reader: &LogReader, _: End) {
        let padding = found.padding.drain(..);
        found.problems.extend(padding.filter_map(|(at, span)| stray(reader, at, span)));
    }

    fn may_skip(&self, _: &Predecessor) -> bool {
        false
    }
}

fn verify(
    out: &mut dyn Write,
    args: &Args,
    name: &str,
    reader: &mut LogReader,
    options: ReadOptions,
) -> io::Result<u8> {
    let json = args.source.json;
    let marks = Marks::of(reader);
    let mut problems = Vec::new();
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    let first = reader.before();
    let again = || LogReader::open(args.source.path(), options).ok();
    let end = each(reader, args.jobs, &marks, again, |found| {
        entries += found.entries;
        bytes += found.bytes;
        problems.extend(found.problems);
        Ok(())
    })?;
    problems.extend(marks.contradicted(end.at));
    problems.extend(bad_headers(reader, end));
    problems.sort_by_key(|problem| problem.from);
    let code = problems.iter().map(|problem| problem.what.code(true)).max().unwrap_or(EXIT_DONE);
    for problem in &problems {
        render::problem(out, json, problem)?;
    }
    let seal = reader.seal();
    let verdict = match code {
        EXIT_DONE => "good",
        EXIT_FINDINGS => "findings",
        _ => "damage",
    };
    if json {
        let summary = json!({
            "verified": name,
            "verdict": verdict,
            "from": first.position.0,
            "to": end.at.position.0,
            "first_sequence": first.sequence.next().0,
            "last_sequence": end.at.sequence.0,
            "entries": entries,
            "bytes": bytes,
            "stopped_at": stopped(end),
            "certain": seal.map(|seal| seal.certain.position.0),
            "claimed": seal.map(|seal| seal.claimed.position.0),
            "problems": problems.len(),
        });
        writeln!(out, "{summary}")?;
        return Ok(code);
    }
    writeln!(
        out,
        "{name}: {verdict}: {entries} entries, positions {} to {}, sequences {} to {}; {}",
        first.position,
        end.at.position,
        first.sequence.next(),
        end.at.sequence,
        match stopped(end) {
            Value::String(text) => format!("stopped at {text}"),
            _ => format!("{} problems", problems.len()),
        }
    )?;
    Ok(code)
}

fn stopped(end: End) -> Value {
    match end.why {
        Why::Limit => json!("the commit position"),
        Why::Undecodable => json!("what cannot be decoded"),
        Why::Nothing | Why::Enough => Value::Null,
    }
}

/// Bytes of a padding frame's body from the first to the last that is not zero: no checksum covers them. What is not
/// there, or cannot be read, says nothing.
fn stray(reader: &LogReader, padding: Position, span: u64) -> Option<Problem> {
    let (from, to) = (padding.plus(FRAME_HEADER_BYTES as u64), padding.plus(span));
    let mut bytes = vec![0; (1 << 20).min(to.since(from) as usize)];
    let (mut at, mut range) = (from, None);
    while at < to {
        let wanted = bytes.len().min(to.since(at) as usize);
        let Ok(read @ 1..) = reader.bytes_at(at, &mut bytes[..wanted]) else { break };
        let mut others = bytes[..read].iter().enumerate().filter(|&(_, &byte)| byte != 0);
        if let Some((first, _)) = others.next() {
            let last = others.next_back().map_or(first, |(last, _)| last);
            let (start, _) = range.unwrap_or((at.plus(first as u64), at));
            range = Some((start, at.plus(last as u64 + 1)));
        }
        at = at.plus(read as u64);
    }
    let (from, to) = range?;
    let (path, offset) = reader.place_of(from)?;
    Some(Problem {
        file: path.display().to_string(),
        offset,
        from,
        to: Some(to),
        what: What::Stray,
        rule: "the body of padding is not zero".to_owned(),
    })
}

/// What header pages and seals say about what stands before a position, and which file says so.
struct Marks(BTreeMap<Position, Vec<(String, &'static str, u64, Predecessor)>>);

impl Marks {
    fn of(reader: &LogReader) -> Self {
        let mut marks = BTreeMap::<_, Vec<_>>::new();
        for segment in reader.segments() {
            let mut add = |what, offset, at: Predecessor| {
                let file = segment.path.display().to_string();
                marks.entry(at.position).or_default().push((file, what, offset, at));
            };
            if let Ok(header) = segment.header {
                add("header page", 0, header.before);
            }
            if let Some(seal) = segment.seal {
                add("seal (certain)", seal.offset() as u64, seal.certain);
                add("seal (claimed)", seal.offset() as u64, seal.claimed);
            }
        }
        Self(marks)
    }

    /// What is said about `before` and is not so.
    fn contradicted(&self, before: Predecessor) -> Vec<Problem> {
        let said = self.0.get(&before.position).into_iter().flatten();
        let wrong = said.filter(|(.., at)| *at != before);
        let problem = |(file, what, offset, at): &(String, &str, u64, Predecessor)| Problem {
            file: file.clone(),
            offset: *offset,
            from: before.position,
            to: Some(before.position),
            what: What::Damaged,
            rule: contradiction(what, *at, before),
        };
        wrong.map(problem).collect()
    }
}

/// Header pages that cannot be read. Above the end of the log a prepared or torn one means nothing.
fn bad_headers(reader: &LogReader, end: End) -> Vec<Problem> {
    let bad = reader.segments().iter().filter_map(|segment| Some((segment, segment.header.err()?)));
    let bad = bad.filter(|(segment, error)| {
        let above = segment.base >= end.at.position;
        let blank = *error == HeaderError::Blank;
        !(above && (blank || error.may_be_torn()))
    });
    bad.map(|(segment, error)| Problem {
        file: segment.path.display().to_string(),
        offset: 0,
        from: segment.base,
        to: Some(segment.base),
        what: What::Damaged,
        rule: format!("header page: {error}"),
    })
    .collect()
}

const _: () = assert!(EXIT_DONE < EXIT_FINDINGS && EXIT_FINDINGS < EXIT_FAILURE);

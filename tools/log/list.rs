//! Going through the entries that are wanted, in either direction, from where the last time ended: what `dump`, `grep` and
//! `export` have in common.

use core::ops::ControlFlow;
use std::collections::VecDeque;
use std::io::{self, Write};

use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_USAGE};
use quorate::frame::{Kind, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::runtime::terminal::complain;

use crate::cursor::{Cursor, Cursors};
use crate::problem::Problem;
use crate::select::Selection;
use crate::walk::{End, Step, walk};

/// Which entries, how many, in which order, and from where.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Listing {
    #[command(flatten)]
    selection: Selection,
    /// At most so many entries
    #[arg(short = 'n', value_name = "N")]
    most: Option<u64>,
    /// Newest first
    #[arg(short, long)]
    reverse: bool,
    #[command(flatten)]
    cursors: Cursors,
}

/// An entry, and what stands before it.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) before: Predecessor,
    pub(crate) found: Found<'a>,
}

/// What is done with what is met. It returns whether an entry counted: one that is not wanted after all does not.
pub(crate) trait Visit {
    /// An entry that the selection wants.
    fn entry(&mut self, out: &mut dyn Write, entry: Entry<'_>) -> io::Result<bool>;
    /// A range that cannot be decoded.
    fn problem(&mut self, out: &mut dyn Write, problem: &Problem) -> io::Result<()>;
}

/// What was said of each entry and problem, and whether it counts.
type Pieces = VecDeque<(bool, Vec<u8>)>;

/// How it went.
pub(crate) struct Listed {
    /// Exit code, as far as problems decide it.
    pub(crate) code: u8,
    /// Entries that counted.
    pub(crate) entries: u64,
    /// Where it ended; none: it was not begun, or not at the end.
    pub(crate) end: Option<End>,
}

impl Listing {
    /// The newest entries of a selection, newest first.
    pub(crate) fn newest(selection: Selection, most: Option<u64>) -> Self {
        Self { selection, most, reverse: true, cursors: Cursors::default() }
    }

    /// The same, padding included.
    pub(crate) fn with_padding(&self) -> Self {
        Self { selection: self.selection.with_padding(), ..self.clone() }
    }

    /// Which entries.
    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Whether it goes through all of them in order, from no cursor and to none.
    pub(crate) fn is_plain(&self) -> bool {
        self.most.is_none() && !self.reverse && !self.cursors.are_used()
    }

    /// Gives every entry that is wanted to `visit`.
    pub(crate) fn list(
        &self,
        out: &mut dyn Write,
        json: bool,
        reader: &mut LogReader,
        visit: &mut dyn Visit,
    ) -> io::Result<Listed> {
        let refused = |code| Ok(Listed { code, entries: 0, end: None });
        if self.reverse && self.cursors.are_used() {
            complain(&"-r goes backward, and cursors forward: use one of them");
            return refused(EXIT_USAGE);
        }
        if self.most == Some(0) {
            return refused(EXIT_DONE);
        }
        if self.reverse {
            return self.backward(out, reader, visit);
        }
        self.selection.start(reader);
        let started = reader.before();
        let cursor = match self.cursors.start(reader) {
            Ok(cursor) => cursor,
            Err(code) => return refused(code),
        };
        if cursor.is_some() && reader.before().position < started.position {
            reader.restart(started);
        }
        let (listed, last) = self.forward(out, reader, visit)?;
        let cursor = last.or(cursor);
        if let Some(cursor) = cursor.filter(|_| self.cursors.show_cursor) {
            if json {
                writeln!(out, "{}", json!({ "cursor": cursor.to_string() }))?;
            } else {
                writeln!(out, "-- cursor: {cursor}")?;
            }
        }
        // What the cursor vouches for has been handed on by then.
        out.flush()?;
        self.cursors.keep(cursor)?;
        Ok(listed)
    }

    fn forward(
        &self,
        out: &mut dyn Write,
        reader: &mut LogReader,
        visit: &mut dyn Visit,
    ) -> io::Result<(Listed, Option<Cursor>)> {
        let mut listed = Listed { code: EXIT_DONE, entries: 0, end: None };
        let most = self.most.unwrap_or(u64::MAX);
        let mut last = None;
        let group = reader.group();
        let end = walk(reader, |step| {
            match step {
                Step::Problem(problem) => {
                    visit.problem(out, problem)?;
                    listed.code = listed.code.max(problem.what.code(false));
                }
                Step::Frame(_, found) if self.selection.is_over(&found) => {
                    return Ok(ControlFlow::Break(()));
                }
                Step::Frame(before, found) => {
                    if found.header.kind() != Some(Kind::Padding) {
                        last = Some(Cursor::of(group, &found));
                    }
                    if self.selection.wants(&found) && visit.entry(out, Entry { before, found })? {
                        listed.entries += 1;
                    }
                }
            }
            let enough = listed.entries == most;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        listed.end = Some(end);
        Ok((listed, last))
    }

    /// Newest first: segment by segment from the last one down, so that the newest few cost one segment.
    fn backward(
        &self,
        out: &mut dyn Write,
        reader: &mut LogReader,
        visit: &mut dyn Visit,
    ) -> io::Result<Listed> {
        let mut listed = Listed { code: EXIT_DONE, entries: 0, end: None };
        let mut left = self.most.unwrap_or(u64::MAX);
        let mut above = None;
        for start in starts(reader).into_iter().rev() {
            if above.is_some_and(|above: Predecessor| self.selection.is_under(&above)) {
                break;
            }
            reader.restart(start);
            let (pieces, end) = self.piece(reader, visit, &mut listed.code, left, above)?;
            listed.end.get_or_insert(end);
            for (counts, text) in pieces.into_iter().rev() {
                out.write_all(&text)?;
                listed.entries += u64::from(counts);
                left -= u64::from(counts);
            }
            if left == 0 {
                break;
            }
            above = Some(start);
        }
        Ok(listed)
    }

    /// The last `most` entries that are wanted, and the problems among them, from where the reader stands up to `above`.
    fn piece(
        &self,
        reader: &mut LogReader,
        visit: &mut dyn Visit,
        code: &mut u8,
        most: u64,
        above: Option<Predecessor>,
    ) -> io::Result<(Pieces, End)> {
        let mut pieces = VecDeque::new();
        let mut entries = 0;
        let end = walk(reader, |step| {
            let mut text = Vec::new();
            let counts = match step {
                Step::Problem(problem) => {
                    visit.problem(&mut text, problem)?;
                    *code = (*code).max(problem.what.code(false));
                    false
                }
                Step::Frame(before, found)
                    if above.is_some_and(|above| before.position >= above.position)
                        || self.selection.is_over(&found) =>
                {
                    return Ok(ControlFlow::Break(()));
                }
                Step::Frame(before, found) => {
                    self.selection.wants(&found)
                        && visit.entry(&mut text, Entry { before, found })?
                }
            };
            if !text.is_empty() || counts {
                pieces.push_back((counts, text));
                entries += u64::from(counts);
            }
            while entries > most {
                entries -= u64::from(pieces.pop_front().is_some_and(|(counts, _)| counts));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((pieces, end))
    }
}

/// What stands before each segment that can be entered, lowest first.
pub(crate) fn starts(reader: &LogReader) -> Vec<Predecessor> {
    let headers = reader.segments().iter().filter_map(|segment| segment.header.ok());
    let limit = reader.limit();
    let mut starts: Vec<_> =
        headers.map(|header| header.before).filter(|start| start.position < limit).collect();
    starts.dedup_by_key(|start| start.position);
    starts
}

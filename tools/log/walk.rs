//! Walks a log from where its reader stands to its end, around whatever is wrong in between.

use core::ops::ControlFlow;
use std::io;

use quorate::frame::Predecessor;
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::{Cause, Found, Trouble};
use quorate::journal::segment_name;
use quorate::types::Position;

use crate::problem::{Problem, What, judge};
use crate::resume::resume;

/// What a walk meets.
#[derive(Clone, Copy)]
pub(crate) enum Step<'a> {
    /// A frame that chains, padding included, and what stands before it.
    Frame(Predecessor, Found<'a>),
    /// A range that cannot be decoded.
    Problem(&'a Problem),
}

/// Where a walk ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// What stands before whatever comes next.
    pub(crate) at: Predecessor,
    /// Why.
    pub(crate) why: Why,
}

/// See [`End`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// The limit of reading: the commit position.
    Limit,
    /// Nothing is behind it.
    Nothing,
    /// What is behind it cannot be decoded.
    Undecodable,
    /// The visitor had enough.
    Enough,
}

/// Gives every frame and every problem to `visit`, in order, until the log ends or `visit` breaks off.
pub(crate) fn walk(
    reader: &mut LogReader,
    mut visit: impl FnMut(Step<'_>) -> io::Result<ControlFlow<()>>,
) -> io::Result<End> {
    let ended = |reader: &LogReader, why| Ok(End { at: reader.before(), why });
    loop {
        let before = reader.before();
        let trouble = match reader.next_frame() {
            Ok(Some(found)) => {
                if visit(Step::Frame(before, found))?.is_break() {
                    return ended(reader, Why::Enough);
                }
                continue;
            }
            Ok(None) => return ended(reader, Why::Limit),
            Err(trouble) => trouble,
        };
        if simply_ends(reader, &trouble) {
            return ended(reader, Why::Nothing);
        }
        let resumed = resume(reader, before, reader.limit());
        let problem = describe(reader, &trouble, resumed);
        let go_on = visit(Step::Problem(&problem))?.is_continue();
        match resumed {
            Some(resumed) => reader.restart(resumed),
            None => return ended(reader, Why::Undecodable),
        }
        if !go_on {
            return ended(reader, Why::Enough);
        }
    }
}

/// What is wrong where a reader met trouble, for whoever goes no further. None: the log ends there, torn or not.
pub(crate) fn damage(reader: &mut LogReader, trouble: &Trouble) -> Option<Problem> {
    // A reader that was opened for one place knows few of the files. What it cannot see now, it says of what it knows.
    let _ = reader.refresh();
    if simply_ends(reader, trouble) {
        return None;
    }
    let before = Predecessor { position: trouble.position, ..reader.before() };
    let resumed = resume(reader, before, reader.limit());
    Some(describe(reader, trouble, resumed)).filter(|problem| problem.what > What::Torn)
}

/// Nothing is published at the end of a log, nothing is behind it, and nobody promised that there would be.
fn simply_ends(reader: &LogReader, trouble: &Trouble) -> bool {
    let at = trouble.position;
    let promised = reader.seal().is_some_and(|seal| at < seal.claimed.position);
    let goes_on = reader.segments().iter().any(|s| s.header.is_ok() && s.base > at);
    if !trouble.may_be_end() || promised || goes_on {
        return false;
    }
    let segment_end = at.segment_base(reader.segment_bytes()).plus(reader.segment_bytes());
    let mut bytes = vec![0; 1 << 20];
    let mut at = at;
    while at < segment_end {
        let wanted = bytes.len().min(segment_end.since(at) as usize);
        match reader.bytes_at(at, &mut bytes[..wanted]) {
            Ok(0) => return true,
            Ok(read) if bytes[..read].iter().all(|&byte| byte == 0) => at = at.plus(read as u64),
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

fn describe(reader: &LogReader, trouble: &Trouble, resumed: Option<Predecessor>) -> Problem {
    let from = trouble.position;
    let place = reader.place_of(from);
    let base = from.segment_base(reader.segment_bytes());
    let header = reader.segments().iter().find(|segment| segment.base == base);
    let rule = match (&trouble.cause, &place) {
        (Cause::Frame(_), None) => {
            format!("segment file {} is missing", segment_name(base))
        }
        (Cause::Frame(error), _) => error.to_string(),
        (Cause::Gone(first), _) => format!("it has left: the log begins at {first}"),
        (Cause::Host(error), _) => format!("cannot be read: {error}"),
    };
    let rule = match header.and_then(|segment| segment.header.err()) {
        Some(error) => format!("{rule}; header page: {error}"),
        None => rule,
    };
    let (file, offset) = place.map_or_else(
        || (segment_name(base), 0),
        |(path, offset)| (path.display().to_string(), offset),
    );
    // A single file's seal speaks of the time when the log ended in it: above that, its own frames are the only witness.
    let seal = reader.seal().filter(|seal| {
        reader.segments().len() > 1 || from < seal.claimed.position || resumed.is_none()
    });
    let what = judge(trouble, seal, resumed.is_some());
    Problem { file, offset, from, to: resumed.map(|resumed| resumed.position), what, rule }
}

/// Goes to where a walk for everything at or above `lowest` starts: the segment that holds it.
pub(crate) fn start_at(reader: &mut LogReader, lowest: impl Fn(&Predecessor) -> bool) {
    let starts = reader.segments().iter().filter_map(|segment| segment.header.ok());
    let limit = reader.limit();
    let start = starts
        .map(|header| header.before)
        .filter(|start| start.position <= limit && lowest(start))
        .max_by_key(|start| start.position);
    if let Some(start) = start {
        reader.restart(start);
    }
}

/// The lowest position that there is.
pub(crate) fn lowest(reader: &LogReader) -> Position {
    let starts = reader.segments().iter().filter_map(|segment| segment.header.ok());
    starts.map(|header| header.before.position).min().unwrap_or(reader.before().position)
}

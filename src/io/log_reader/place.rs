//! Opening a log at one place: a handful of pages of it are read, however long it is.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

use super::{
    Files, LogReader, OpenError, Place, ReadOptions, SegmentFile, Tier, directories, host,
    list_segments, read_page, told_tier,
};
use crate::frame::{FrameHeader, Predecessor};
use crate::journal::reader::Trouble;
use crate::journal::reader::proof::narrow;
use crate::journal::segment_name;
use crate::types::{Position, Sequence, Term, Timestamp};

/// Segments at the end of a log whose header pages are read: one of them has the newest seal.
const LAST_SEGMENTS: usize = 4;

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The entry of this number, or the first above it.
    Sequence(Sequence),
    /// The frame that holds this position.
    Position(Position),
    /// The first entry at or after this time.
    Time(Timestamp),
    /// The first entry of this term, or of the first above it.
    Term(Term),
}

impl Target {
    /// Whether it stands behind what `before` describes; `time` is that of the frame there.
    fn is_behind(self, before: &Predecessor, time: impl FnOnce() -> Option<Timestamp>) -> bool {
        match self {
            Self::Sequence(sequence) => before.sequence < sequence,
            Self::Position(position) => before.position <= position,
            Self::Term(term) => before.term < term,
            Self::Time(wanted) => time().is_some_and(|time| time < wanted),
        }
    }

    /// Whether the frame at `at` lies wholly before it.
    fn is_above(self, at: Position, header: &FrameHeader) -> bool {
        match self {
            Self::Sequence(sequence) => header.sequence() < sequence,
            Self::Position(position) => at.plus(header.span()) <= position,
            Self::Time(time) => header.timestamp() < time,
            Self::Term(term) => header.term() < term,
        }
    }
}

/// What was read of a log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reads {
    /// Calls.
    pub calls: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
}

impl Reads {
    pub(super) fn count(cell: &Cell<Self>, bytes: usize) {
        let Self { calls, bytes: before } = cell.get();
        cell.set(Self { calls: calls + 1, bytes: before + bytes as u64 });
    }
}

impl LogReader {
    /// As [`LogReader::open`], for whoever looks for one thing: of a directory only the header pages that lead there are read,
    /// and of the segments only these are known until [`LogReader::refresh`]. Where one of them cannot be read, all are.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_for(path: &Path, options: ReadOptions, target: Target) -> Result<Self, OpenError> {
        if path.is_file() {
            return Self::open(path, options);
        }
        match Self::open_few(path, options, target).map_err(host(path))? {
            Some(reader) => Ok(reader),
            None => Self::open(path, options),
        }
    }

    fn open_few(path: &Path, options: ReadOptions, target: Target) -> io::Result<Option<Self>> {
        let tier = told_tier(path).ok().filter(|tier| tier.is_dir());
        let places = directories(path, tier.as_deref(), options);
        let mut found: Vec<(Position, Tier, PathBuf)> = Vec::new();
        for (tier, directory) in &places {
            let bases = list_segments(directory)?;
            found.extend(bases.into_iter().map(|base| (base, *tier, directory.clone())));
        }
        found.sort_by_key(|&(base, tier, _)| (base, tier));
        let reads = Cell::new(Reads::default());
        let page = |index: usize| {
            let (base, tier, directory): &(Position, Tier, PathBuf) = &found[index];
            let path = directory.join(segment_name(*base));
            Reads::count(&reads, crate::limits::SEGMENT_HEADER_BYTES);
            let (header, seal, bytes) = read_page(&path, Some(*base)).ok()?;
            Some(SegmentFile { path, tier: *tier, base: *base, bytes, header, seal })
        };
        let Some(first) = (!found.is_empty()).then(|| page(0)).flatten() else { return Ok(None) };
        let Ok(header) = first.header else { return Ok(None) };
        let files = Files::new(header.segment_bytes, Place::Directories(places));
        let (mut low, mut high) = (0, found.len());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let Some(segment) = page(middle) else { return Ok(None) };
            match segment.header {
                Ok(header) => {
                    let time = || files.time_at(header.before.position);
                    let behind = target.is_behind(&header.before, time);
                    if behind { low = middle } else { high = middle }
                }
                // A hot one that was prepared and not entered; nothing is behind it either.
                Err(_) => high = middle,
            }
        }
        let near = low.saturating_sub(1)..(low + 2).min(found.len());
        let last = found.len().saturating_sub(LAST_SEGMENTS)..found.len();
        let mut known: Vec<usize> = [0].into_iter().chain(near).chain(last).collect();
        known.sort_unstable();
        known.dedup();
        let mut segments = Vec::new();
        for index in known {
            let Some(segment) = page(index) else { return Ok(None) };
            let foreign = segment.header.is_ok_and(|found| found.group != header.group);
            let unread = segment.header.is_err() && segment.tier == Tier::Durable;
            if foreign || unread {
                return Ok(None);
            }
            segments.push(segment);
        }
        files.reads.set(reads.get());
        Ok(Some(Self::over(path, options, segments, tier, header, files)))
    }

    /// Goes to what is looked for. False: the limit came first.
    ///
    /// # Errors
    /// [`Trouble`] on the way.
    pub fn go_to(&mut self, target: Target) -> Result<bool, Trouble> {
        let starts = self.starts();
        let files = self.walker.source();
        let behind =
            |start: &Predecessor| target.is_behind(start, || files.time_at(start.position));
        let number = starts.partition_point(behind).saturating_sub(1);
        let limit = self.limit();
        if let Some(&start) = starts.get(number) {
            let end = start.position.segment_base(files.segment_bytes).plus(files.segment_bytes);
            let end = end.min(limit);
            let narrowed =
                narrow(files, files.segment_bytes, start, end, |at, h| target.is_above(at, h));
            // A place that cannot be read is found, and named, by the walk.
            self.walker.restart(narrowed.unwrap_or(start));
        }
        self.walker.seek(limit, |at, header| !target.is_above(at, header))
    }

    /// What was read until now.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.walker.source().reads.get()
    }
}

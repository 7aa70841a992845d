//! The scrub: reads again, slowly, what is durable, so that rot is found while other nodes still have what it took.
//!
//! A round reads every segment file, frame by frame, against its chain, its header page, its seals and the file before it, up
//! to what is committed and on this disk (never cut any more, so nothing that is found is somebody's work in progress), then
//! every snapshot, block by block. It decides nothing and changes nothing: what it finds is told once, and looked at again in
//! the next round, or when somebody says so.

#[cfg(test)]
mod tests;

use core::fmt;
use core::sync::atomic::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read};

use super::files::LogFiles;
use super::memory::{Disk, DurableFile, parse_segment_name, segment_name};
use super::reader::{Cause, Trouble, Walker};
use super::seal::Seal;
use super::segment_file::file_offset;
use super::segment_header::{HeaderError, SEAL_OFFSETS, SegmentHeader};
use super::snapshot::{SnapshotError, SnapshotReader, snapshot_name, snapshots};
use crate::frame::{FrameError, Predecessor};
use crate::limits::{SEAL_BYTES, SEGMENT_HEADER_BYTES, SNAPSHOT_BLOCK_BYTES};
use crate::link::Shared;
use crate::types::{GroupId, Nanos, Position};

/// Bytes of the log that are judged in one step, about.
const STEP_BYTES: u64 = 256 * 1024;
/// Flaws kept in mind, at most: more are found again when these are mended.
const FLAWS_MAX: usize = 1024;

/// How a node's files are scrubbed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubSettings {
    /// Whose log.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// From the beginning of one round to that of the next, ns; 0: only what is asked for.
    pub interval_ns: u64,
}

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// In which file.
    pub file: String,
    /// Where in that file.
    pub offset: u64,
    /// Base of its segment, or position of its snapshot.
    pub base: Position,
    /// Position in the log of the first byte that is not proven.
    pub position: Position,
    /// What is wrong.
    pub what: Wrong,
}

/// What is wrong with a durable file.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Wrong {
    /// The file is not there.
    Missing,
    /// The medium gives an error.
    Unreadable(ErrorKind),
    /// The header page is not what it was.
    Header(HeaderError),
    /// The header page names another predecessor than the file before it ends with.
    Joint,
    /// A seal of the header page is not what it was.
    Seal,
    /// A frame does not follow from the one before.
    Frame(FrameError),
    /// A snapshot cannot be used, and why.
    Snapshot(String),
}

/// What is said of a round.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Round {
    /// When it began.
    pub began: Nanos,
    /// How long it took, ns; of one under way: 0.
    pub took_ns: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Segment files looked at.
    pub segments: u64,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Files found wrong.
    pub flaws: u64,
}

/// What an operator may want to know, and control acts upon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ScrubEvent {
    /// Something is wrong: said once, until it is right again.
    Flaw(Flaw),
    /// A file that was wrong is right again.
    Mended(Position),
    /// A round has ended.
    Round(Round),
}

/// The machine.
pub struct Scrubber<D: Disk> {
    disk: D,
    shared: Shared,
    settings: ScrubSettings,
    work: Work<D>,
    next_round: Nanos,
    /// Segments that somebody wants looked at.
    suspects: BTreeSet<Position>,
    flaws: BTreeMap<String, Flaw>,
    round: Round,
    last: Option<Round>,
    events: VecDeque<ScrubEvent>,
}

enum Work<D: Disk> {
    Resting,
    Segment(Walk),
    Snapshots(Vec<Position>),
    Snapshot(Box<Reading<D>>),
}

/// A segment being read.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
struct Walk {
    base: Position,
    /// Where it stands. None: what stands before the segment is not known.
    at: Option<Predecessor>,
    page_done: bool,
    /// Something did not fit once: it is read again before anybody is told.
    doubted: bool,
    in_round: bool,
    flawed: bool,
}

/// A snapshot being read.
struct Reading<D: Disk> {
    position: Position,
    reader: SnapshotReader<D::File>,
    left: Vec<Position>,
}

impl<D: Disk> Scrubber<D> {
    /// A scrub of the node's data directory. The first round begins one interval after `now`: a start has read everything.
    #[must_use]
    pub fn new(disk: D, shared: Shared, settings: ScrubSettings, now: Nanos) -> Self {
        Self {
            disk,
            shared,
            settings,
            work: Work::Resting,
            next_round: now.plus(settings.interval_ns),
            suspects: BTreeSet::new(),
            flaws: BTreeMap::new(),
            round: Round::default(),
            last: None,
            events: VecDeque::new(),
        }
    }

    /// Somebody could not read the log at `position`: it is looked at next.
    pub fn suspect(&mut self, position: Position) {
        self.suspects.insert(position.segment_base(self.settings.segment_bytes));
    }

    /// A round is wanted now.
    pub fn hurry(&mut self) {
        self.next_round = Nanos(0);
    }

    /// Takes the oldest event that was not taken yet.
    pub fn poll_event(&mut self) -> Option<ScrubEvent> {
        self.events.pop_front()
    }

    /// The round that is under way, and the last whole one.
    #[must_use]
    pub fn rounds(&self) -> (Option<Round>, Option<Round>) {
        let resting = matches!(self.work, Work::Resting);
        ((!resting).then_some(self.round), self.last)
    }

    /// Where it reads now.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match &self.work {
            Work::Segment(walk) => Some(walk.at.map_or(walk.base, |at| at.position)),
            _ => None,
        }
    }

    /// What is wrong now, as far as is known.
    pub fn flaws(&self) -> impl Iterator<Item = &Flaw> {
        self.flaws.values()
    }

    /// What is committed and on this disk: nothing below it is cut or written any more.
    #[must_use]
    pub fn reach(&self) -> Position {
        let words = self.shared.words();
        let commit = words.commit.load(Ordering::Acquire);
        Position(commit.min(words.durable.load(Ordering::Acquire)))
    }

    /// Does a bounded amount; returns the bytes it read, at least 1 if it did anything.
    pub fn step(&mut self, now: Nanos) -> u64 {
        let work = core::mem::replace(&mut self.work, Work::Resting);
        let (work, bytes) = match work {
            Work::Resting => self.begin(now),
            Work::Segment(walk) => self.read_segment(walk),
            Work::Snapshots(left) => self.open_snapshot(now, left),
            Work::Snapshot(reading) => self.read_snapshot(reading),
        };
        self.work = work;
        self.round.bytes += bytes;
        bytes
    }

    fn begin(&mut self, now: Nanos) -> (Work<D>, u64) {
        if let Some(base) = self.suspects.pop_first() {
            return (Work::Segment(Walk::new(base, None, false)), 1);
        }
        let due = self.settings.interval_ns > 0 && now >= self.next_round;
        if !due && self.next_round > Nanos(0) {
            return (Work::Resting, 0);
        }
        let pause_ns = self.settings.interval_ns;
        self.next_round = if pause_ns == 0 { Nanos(u64::MAX) } else { now.plus(pause_ns) };
        self.round = Round { began: now, ..Round::default() };
        let lowest = self.lowest();
        // Of what has left nothing is wrong any more.
        self.flaws.retain(|_, flaw| {
            matches!(flaw.what, Wrong::Snapshot(_))
                || lowest.is_none_or(|lowest| flaw.base >= lowest)
        });
        let work = match lowest.filter(|lowest| *lowest < self.reach()) {
            Some(base) => Work::Segment(Walk::new(base, None, true)),
            None => self.go_on_with_snapshots(),
        };
        (work, 1)
    }

    /// Base of the oldest segment file. What lies below it has been removed on purpose.
    fn lowest(&self) -> Option<Position> {
        self.disk.list().ok()?.iter().filter_map(|name| parse_segment_name(name)).min()
    }

    /// Whether the segment at `base` lies below the oldest one that is here.
    pub(super) fn has_left(&self, base: Position) -> bool {
        self.lowest().is_none_or(|lowest| base < lowest)
    }

    /// Whether it is the oldest one.
    pub(super) fn is_lowest(&self, base: Position) -> bool {
        self.lowest() == Some(base)
    }

    fn go_on_with_snapshots(&self) -> Work<D> {
        let mut left = snapshots(&self.disk).unwrap_or_default();
        left.reverse();
        Work::Snapshots(left)
    }

    fn read_segment(&mut self, walk: Walk) -> (Work<D>, u64) {
        match walk.at.filter(|_| walk.page_done) {
            Some(at) => self.read_frames(walk, at),
            None => self.read_page(walk),
        }
    }

    fn read_page(&mut self, mut walk: Walk) -> (Work<D>, u64) {
        let (reach, bytes) = (self.reach(), SEGMENT_HEADER_BYTES as u64);
        match self.judge_page(&walk, reach) {
            Ok(at) => walk.at = at,
            Err(_) if !walk.doubts() => return (Work::Segment(walk), bytes),
            Err((what, offset, at)) => {
                walk.at = at;
                let (base, file) = (walk.base, segment_name(walk.base));
                self.found(&mut walk, Flaw { file, offset, base, position: base, what });
            }
        }
        (walk.page_done, walk.doubted) = (true, false);
        if walk.at.is_some() {
            return (Work::Segment(walk), bytes);
        }
        // Frames of a file that is not there, or of which it is not known what stands before it, say nothing.
        (self.leave(walk, None, reach), bytes)
    }

    fn read_frames(&mut self, mut walk: Walk, at: Predecessor) -> (Work<D>, u64) {
        let (reach, segment_bytes) = (self.reach(), self.settings.segment_bytes);
        let end = walk.base.plus(segment_bytes);
        let (limit, enough) = (end.min(reach), at.position.plus(STEP_BYTES));
        let files = LogFiles::new(&self.disk, segment_bytes);
        let mut walker = Walker::new(files, segment_bytes, at);
        let stopped = loop {
            if walker.before().position >= enough {
                break None;
            }
            match walker.next_frame(limit) {
                Ok(Some(_)) => {}
                Ok(None) => break Some(None),
                Err(trouble) => break Some(Some(trouble)),
            }
        };
        let stands = walker.before();
        let bytes = stands.position.since(at.position).max(1);
        walk.at = Some(stands);
        match stopped {
            None => {
                walk.doubted = false;
                (Work::Segment(walk), bytes)
            }
            Some(None) => {
                let whole = (stands.position == end).then_some(stands);
                (self.leave(walk, whole, reach), bytes)
            }
            Some(Some(_)) if !walk.doubts() => (Work::Segment(walk), bytes),
            Some(Some(trouble)) => {
                let flaw = Self::of_trouble(walk.base, &trouble);
                self.found(&mut walk, flaw);
                (self.leave(walk, None, reach), bytes)
            }
        }
    }

    fn of_trouble(base: Position, trouble: &Trouble) -> Flaw {
        let position = trouble.position;
        let what = match &trouble.cause {
            Cause::Frame(error) => Wrong::Frame(*error),
            Cause::Host(error) => Wrong::Unreadable(error.kind()),
            Cause::Gone(_) => Wrong::Missing,
        };
        Flaw { file: segment_name(base), offset: file_offset(base, position), base, position, what }
    }

    /// Judges a header page. It says what stands before the first frame, which the file before knows, too.
    #[allow(clippy::type_complexity)] // what is wrong, where, and what is known all the same
    fn judge_page(
        &self,
        walk: &Walk,
        reach: Position,
    ) -> Result<Option<Predecessor>, (Wrong, u64, Option<Predecessor>)> {
        let ScrubSettings { group, segment_bytes, .. } = self.settings;
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let before =
            walk.at.or_else(|| (walk.base == Position(0)).then(|| Predecessor::genesis(group)));
        let read =
            self.disk.open(&segment_name(walk.base)).and_then(|file| file.read_at(&mut page, 0));
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err((Wrong::Missing, 0, None));
            }
            Err(error) => return Err((Wrong::Unreadable(error.kind()), 0, before)),
            Ok(_) => {}
        }
        let header = SegmentHeader::decode_segment(&page, group, segment_bytes, walk.base)
            .map_err(|error| (Wrong::Header(error), 0, before))?;
        if before.is_some_and(|before| before != header.before) {
            return Err((Wrong::Joint, 0, before));
        }
        // The sync thread seals the last file, and, after a cut, the one in which the log then ends.
        let quiet = walk.base.plus(segment_bytes) < reach;
        if quiet && let Some(offset) = bad_seal(&page, group) {
            return Err((Wrong::Seal, offset as u64, Some(header.before)));
        }
        Ok(Some(header.before))
    }

    fn found(&mut self, walk: &mut Walk, flaw: Flaw) {
        // Removed meanwhile, and all below it: as it should be.
        if flaw.what == Wrong::Missing && self.has_left(flaw.base) {
            self.forget(&flaw.file);
        } else {
            walk.flawed = true;
            self.note(flaw);
        }
    }

    fn note(&mut self, flaw: Flaw) {
        self.round.flaws += 1;
        if self.flaws.len() < FLAWS_MAX && !self.flaws.contains_key(&flaw.file) {
            self.events.push_back(ScrubEvent::Flaw(flaw.clone()));
            self.flaws.insert(flaw.file.clone(), flaw);
        }
    }

    /// On to the next file. `end` is what stands before it, if that is proven.
    fn leave(&mut self, walk: Walk, end: Option<Predecessor>, reach: Position) -> Work<D> {
        let Walk { base, in_round, flawed, .. } = walk;
        if !flawed && self.flaws.remove(&segment_name(base)).is_some() {
            self.events.push_back(ScrubEvent::Mended(base));
        }
        if !in_round {
            return Work::Resting;
        }
        self.round.segments += 1;
        let next = base.plus(self.settings.segment_bytes);
        let lowest = self.lowest().unwrap_or(next);
        let next = next.max(lowest);
        if next >= reach {
            return self.go_on_with_snapshots();
        }
        let end = end.filter(|end| end.position == next);
        Work::Segment(Walk::new(next, end, true))
    }

    fn open_snapshot(&mut self, now: Nanos, mut left: Vec<Position>) -> (Work<D>, u64) {
        let Some(position) = left.pop() else {
            self.round.took_ns = now.since(self.round.began);
            self.last = Some(self.round);
            self.events.push_back(ScrubEvent::Round(self.round));
            return (Work::Resting, 1);
        };
        self.round.snapshots += 1;
        match SnapshotReader::open(&self.disk, self.settings.group, position) {
            Ok(reader) => (Work::Snapshot(Box::new(Reading { position, reader, left })), 1),
            Err(error) => {
                self.refuse(position, &error);
                (Work::Snapshots(left), 1)
            }
        }
    }

    fn read_snapshot(&mut self, mut reading: Box<Reading<D>>) -> (Work<D>, u64) {
        let mut block = vec![0; SNAPSHOT_BLOCK_BYTES];
        match reading.reader.read(&mut block) {
            Ok(0) => {
                let Reading { position, reader, left } = *reading;
                match reader.finish() {
                    Ok(()) => drop(self.flaws.remove(&snapshot_name(position))),
                    Err(error) => self.refuse(position, &SnapshotError::State(error)),
                }
                (Work::Snapshots(left), 1)
            }
            Ok(read) => (Work::Snapshot(reading), read as u64),
            Err(error) => {
                self.refuse(reading.position, &SnapshotError::State(error));
                (Work::Snapshots(reading.left), 1)
            }
        }
    }

    fn refuse(&mut self, position: Position, error: &SnapshotError) {
        // Old ones are removed while the round is under way.
        if matches!(error, SnapshotError::Host(error) if error.kind() == ErrorKind::NotFound) {
            return;
        }
        let what = Wrong::Snapshot(error.to_string());
        self.note(Flaw {
            file: snapshot_name(position),
            offset: 0,
            base: position,
            position,
            what,
        });
    }

    /// A file that was wrong is gone or has been replaced: what was said of it is void.
    pub fn forget(&mut self, file: &str) {
        self.flaws.remove(file);
    }
}

impl Walk {
    fn new(base: Position, at: Option<Predecessor>, in_round: bool) -> Self {
        Self { base, at, page_done: false, doubted: false, in_round, flawed: false }
    }

    /// Whether what does not fit did not fit before either.
    fn doubts(&mut self) -> bool {
        core::mem::replace(&mut self.doubted, true)
    }
}

/// Where a page holds something that is no seal, in the place of one.
fn bad_seal(page: &[u8], group: GroupId) -> Option<usize> {
    SEAL_OFFSETS.into_iter().find(|&offset| {
        let sector = &page[offset..offset + SEAL_BYTES];
        sector.iter().any(|&byte| byte != 0) && Seal::decode(sector, group).is_none()
    })
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, position, what, .. } = self;
        write!(f, "{file} at byte {offset}, position {position}: {what}")
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "the file is not there"),
            Self::Unreadable(kind) => write!(f, "the disk gives an error: {kind}"),
            Self::Header(error) => error.fmt(f),
            Self::Joint => {
                write!(f, "the header page names another predecessor than the file before")
            }
            Self::Seal => write!(f, "a seal that is not what it was"),
            Self::Frame(error) => error.fmt(f),
            Self::Snapshot(error) => f.write_str(error),
        }
    }
}

/// The position at which a replay or a reader could not go on, if that is what `error` says.
#[must_use]
pub fn trouble_in(error: &io::Error) -> Option<Position> {
    error.get_ref()?.downcast_ref::<Trouble>().map(|trouble| trouble.position)
}

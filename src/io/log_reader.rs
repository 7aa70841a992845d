//! Reading a node's log from outside: for `quorate-log`, `quorate tail` and whoever follows the log in another process.
//!
//! Nothing is locked, written or mapped but the page of shared words, read-only: a live node does not notice. On a live
//! log the reader stops at the commit position that the node shares; where there is no such page (the machine was started
//! anew, or this is a copy), at the last commit position that the files themselves record. [`ReadOptions::uncommitted`]
//! lifts that, and a single file is read to its end.

mod place;

use core::cell::{Cell, RefCell};
use core::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::hot_tier::{list_segments, told_tier};
use super::shared_page::SharedReader;
use crate::frame::{FrameHeader, Predecessor};
use crate::journal::node_state::{NODE_STATE_COPY_BYTES, NODE_STATE_NAME, decode_node_state};
use crate::journal::reader::{Cause, Found, LogBytes, Trouble, Walker, segment_of_sequence};
use crate::journal::seal::Seal;
use crate::journal::segment_header::{Content, HeaderError, SegmentHeader};
use crate::journal::segment_name;
use crate::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::types::{Commit, GroupId, Position, Sequence, Timestamp};

pub use place::{Reads, Target};

/// What to read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReadOptions {
    /// Read on above the commit position: what is there may still be cut.
    pub uncommitted: bool,
    /// Which files.
    pub tiers: Tiers,
}

/// Which files of a node are read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Tiers {
    /// The hot ones where there are any, else the durable ones.
    #[default]
    Both,
    /// The durable ones alone, at most up to what is durable.
    Durable,
}

/// Which tier a file is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// A file of the data directory, or one given by its own path.
    Durable,
    /// One of the hot tier.
    Hot,
}

/// A segment file that was found.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// The file.
    pub path: PathBuf,
    /// Where it is.
    pub tier: Tier,
    /// Where its payload starts, by its name; for a single file, by its header.
    pub base: Position,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its header page. A hot one that was never entered is blank.
    pub header: Result<SegmentHeader, HeaderError>,
    /// The newest seal in its header page.
    pub seal: Option<Seal>,
}

/// Why there is nothing to read.
#[derive(Debug)]
pub enum OpenError {
    /// The directory holds no segment, or none with a whole header page.
    NoSegments {
        /// Which directory.
        path: PathBuf,
    },
    /// Not a file of a log, or one whose header page is damaged.
    Header {
        /// Which file.
        path: PathBuf,
        /// What is wrong with its header page.
        error: HeaderError,
    },
    /// Files of two groups in one directory.
    Groups {
        /// The first file of the second group.
        path: PathBuf,
        /// Its group.
        found: GroupId,
        /// Group of those before it.
        expected: GroupId,
    },
    /// The host refused.
    Host {
        /// What was being read.
        path: PathBuf,
        /// The host's error.
        error: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSegments { path } => write!(f, "{}: no log is here", path.display()),
            Self::Header { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Groups { path, found, expected } => write!(
                f,
                "{}: of group {:016x}, the files before it are of {:016x}",
                path.display(),
                found.0,
                expected.0
            ),
            Self::Host { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Header { error, .. } => Some(error),
            Self::Host { error, .. } => Some(error),
            Self::NoSegments { .. } | Self::Groups { .. } => None,
        }
    }
}

/// A log, as seen from outside.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    options: ReadOptions,
    group: GroupId,
    /// By base; of one base the durable file first.
    segments: Vec<SegmentFile>,
    tier: Option<PathBuf>,
    shared: Option<SharedReader>,
    /// Commit position that an orderly stop left in the node state.
    marked: Option<Commit>,
    walker: Walker<Files>,
}

impl LogReader {
    /// Opens a data directory, a directory of copied segments, or one segment or quarantine file; reading starts at the
    /// oldest entry.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, options: ReadOptions) -> Result<Self, OpenError> {
        let single = fs::metadata(path).map_err(host(path))?.is_file();
        let tier = if single { None } else { told_tier(path).ok().filter(|tier| tier.is_dir()) };
        let segments = if single {
            let (header, seal, bytes) = read_page(path, None).map_err(host(path))?;
            let found = header.map_err(|error| OpenError::Header { path: path.into(), error })?;
            let (path, base) = (path.to_path_buf(), found.before.position);
            vec![SegmentFile { path, tier: Tier::Durable, base, bytes, header: Ok(found), seal }]
        } else {
            list(path, tier.as_deref(), options)?
        };
        let first = segments.iter().find_map(|segment| segment.header.ok());
        let first = first.ok_or_else(|| OpenError::NoSegments { path: path.into() })?;
        let place = if single {
            Place::File(path.into(), first.before.position)
        } else {
            Place::Directories(directories(path, tier.as_deref(), options))
        };
        let files = Files::new(first.segment_bytes, place);
        Ok(Self::over(path, options, segments, tier, first, files))
    }

    /// A reader of these files, which starts behind what `first` says stands before it.
    fn over(
        path: &Path,
        options: ReadOptions,
        segments: Vec<SegmentFile>,
        tier: Option<PathBuf>,
        first: SegmentHeader,
        files: Files,
    ) -> Self {
        let mut reader = Self {
            path: path.into(),
            options,
            group: first.group,
            segments,
            tier,
            shared: None,
            marked: None,
            walker: Walker::new(files, first.segment_bytes, first.before),
        };
        reader.find_page();
        reader
    }

    /// Whose log it is.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Bytes of a segment's payload.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.walker.source().segment_bytes
    }

    /// The files, as of the last [`LogReader::refresh`]: by base, of one base the durable one first.
    #[must_use]
    pub fn segments(&self) -> &[SegmentFile] {
        &self.segments
    }

    /// Where the hot segments are, if the node's are known and this is its own directory.
    #[must_use]
    pub fn tier(&self) -> Option<&Path> {
        self.tier.as_deref()
    }

    /// What the node shares. It may have stopped since.
    #[must_use]
    pub fn shared(&self) -> Option<&SharedReader> {
        self.shared.as_ref()
    }

    /// The newest seal: what the node has promised to hold.
    #[must_use]
    pub fn seal(&self) -> Option<Seal> {
        self.segments.iter().filter_map(|segment| segment.seal).max_by_key(Seal::order)
    }

    /// The commit position as far as it can be known from outside: shared by the node, else as the files record it.
    #[must_use]
    pub fn commit(&self) -> Option<Commit> {
        let shared = self.shared.as_ref().map(SharedReader::commit);
        shared.or_else(|| self.recorded())
    }

    /// The commit position that the files record: the newest seal, or the mark of an orderly stop.
    fn recorded(&self) -> Option<Commit> {
        self.seal().map(|seal| seal.known_commit).max(self.marked)
    }

    /// Reading stops here for now.
    #[must_use]
    pub fn limit(&self) -> Position {
        if self.options.uncommitted || matches!(self.walker.source().place, Place::File(..)) {
            return Position(u64::MAX);
        }
        match &self.shared {
            Some(shared) if self.options.tiers == Tiers::Durable => {
                shared.readable().min(shared.durable().position())
            }
            Some(shared) => shared.readable(),
            None => self.recorded().map_or(Position(0), Commit::position),
        }
    }

    /// What stands before the next entry: where reading is.
    #[must_use]
    pub fn before(&self) -> Predecessor {
        self.walker.before()
    }

    /// The next frame (padding included) below the limit. None: there is none yet; call [`LogReader::refresh`] before asking
    /// again, now and then.
    ///
    /// # Errors
    /// [`Trouble`]. Without a limit that is also how the log ends: see [`Trouble::may_be_end`]. Segments that left before they
    /// were read are [`Cause::Gone`].
    pub fn next_frame(&mut self) -> Result<Option<Found<'_>>, Trouble> {
        let limit = self.limit();
        let position = self.walker.before().position;
        match self.walker.source().gone(position) {
            Some(first) => Err(Trouble { position, cause: Cause::Gone(first) }),
            None => self.walker.next_frame(limit),
        }
    }

    /// Goes on behind a frame for which the caller answers: how tools read on behind damage.
    pub fn restart(&mut self, before: Predecessor) {
        self.walker.restart(before);
    }

    /// The bytes that stand at `position` and behind it in one segment, judged by nobody. Returns how many there are.
    ///
    /// # Errors
    /// The host's.
    pub fn bytes_at(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        self.walker.source().read(position, bytes)
    }

    /// The file in which `position` stands, and where in it. None: there is none.
    #[must_use]
    pub fn place_of(&self, position: Position) -> Option<(PathBuf, u64)> {
        let files = self.walker.source();
        let place = |path: &Path, base: Position| {
            let offset = position.0.checked_sub(base.0)?;
            Some((path.to_path_buf(), SEGMENT_HEADER_BYTES as u64 + offset))
        };
        match &files.place {
            Place::File(path, base) => place(path, *base),
            Place::Directories(_) => {
                let base = position.segment_base(files.segment_bytes);
                let here = |segment: &&SegmentFile| segment.base == base;
                let hot =
                    |segment: &&SegmentFile| segment.tier == Tier::Hot && segment.header.is_ok();
                let found = self.segments.iter().filter(here).find(hot);
                let found = found.or_else(|| self.segments.iter().find(here))?;
                place(&found.path, base)
            }
        }
    }

    /// Looks again for segments, for the hot tier and for the page of a node that was started since.
    ///
    /// # Errors
    /// [`OpenError`]; reading goes on as before.
    pub fn refresh(&mut self) -> Result<(), OpenError> {
        if matches!(self.walker.source().place, Place::File(..)) {
            return Ok(());
        }
        let tier = told_tier(&self.path).ok().filter(|tier| tier.is_dir());
        self.segments = list(&self.path, tier.as_deref(), self.options)?;
        self.tier = tier;
        let place = directories(&self.path, self.tier.as_deref(), self.options);
        let files = self.walker.source_mut();
        files.place = Place::Directories(place);
        files.open.take();
        self.find_page();
        Ok(())
    }

    /// Goes to the entry `sequence`, or to the first above it that there is. False: the limit came first.
    ///
    /// # Errors
    /// [`Trouble`] on the way.
    pub fn seek_sequence(&mut self, sequence: Sequence) -> Result<bool, Trouble> {
        let starts = self.starts();
        let number = segment_of_sequence(&starts, sequence).unwrap_or(0);
        self.seek_from(&starts, number, |_, header| header.sequence() >= sequence)
    }

    /// Goes to the frame at `position`, or to the first above it. False: the limit came first.
    ///
    /// # Errors
    /// [`Trouble`] on the way.
    pub fn seek_position(&mut self, position: Position) -> Result<bool, Trouble> {
        let starts = self.starts();
        let number = starts.partition_point(|start| start.position <= position).saturating_sub(1);
        self.seek_from(&starts, number, |at, _| at >= position)
    }

    /// Goes to the first entry at or after `time`. False: the limit came first.
    ///
    /// # Errors
    /// [`Trouble`] on the way.
    pub fn seek_time(&mut self, time: Timestamp) -> Result<bool, Trouble> {
        let starts = self.starts();
        let number = self.number_before(&starts, time).saturating_sub(1);
        self.seek_from(&starts, number, |_, header| header.timestamp() >= time)
    }

    /// Time of the frame that starts a segment. None: it cannot be read.
    #[must_use]
    pub fn time_at(&self, start: Position) -> Option<Timestamp> {
        self.walker.source().time_at(start)
    }

    /// What stands before the last segment whose first frame is older than `time`: an entry of that time, or the first one
    /// after it, is not looked for further down. None: no segment begins so early.
    #[must_use]
    pub fn segment_before(&self, time: Timestamp) -> Option<Predecessor> {
        let starts = self.starts();
        let number = self.number_before(&starts, time);
        starts.get(number.checked_sub(1)?).copied()
    }

    /// How many of these segments begin before `time`.
    fn number_before(&self, starts: &[Predecessor], time: Timestamp) -> usize {
        let files = self.walker.source();
        let earlier = |start: &Predecessor| files.time_at(start.position).is_some_and(|t| t < time);
        starts.partition_point(earlier)
    }

    fn seek_from(
        &mut self,
        starts: &[Predecessor],
        number: usize,
        reached: impl FnMut(Position, &FrameHeader) -> bool,
    ) -> Result<bool, Trouble> {
        let limit = self.limit();
        if let Some(&start) = starts.get(number) {
            self.walker.restart(start);
        }
        self.walker.seek(limit, reached)
    }

    /// What stands before each segment below the limit.
    fn starts(&self) -> Vec<Predecessor> {
        let limit = self.limit();
        let headers = self.segments.iter().filter_map(|segment| segment.header.ok());
        let mut starts: Vec<_> = headers.map(|header| header.before).collect();
        starts.retain(|start| start.position < limit);
        starts.dedup_by_key(|start| start.position);
        starts
    }

    fn find_page(&mut self) {
        if matches!(self.walker.source().place, Place::Directories(_)) {
            self.marked = clean_mark(&self.path, self.group);
        }
        let Some(tier) = &self.tier else {
            self.shared = None;
            return;
        };
        if !self.shared.as_ref().is_some_and(|shared| shared.is_current(tier)) {
            self.shared = SharedReader::open(tier).ok();
        }
    }
}

/// The files as a log's bytes.
#[derive(Debug)]
struct Files {
    segment_bytes: u64,
    place: Place,
    /// The file read last, and the base of its payload.
    open: RefCell<Option<(Position, File)>>,
    reads: Cell<Reads>,
}

#[derive(Debug)]
enum Place {
    /// One file, its payload starting here.
    File(PathBuf, Position),
    /// Directories in which to look for a segment, best first.
    Directories(Vec<(Tier, PathBuf)>),
}

impl Files {
    fn new(segment_bytes: u64, place: Place) -> Self {
        Self { segment_bytes, place, open: RefCell::new(None), reads: Cell::default() }
    }

    fn open(&self, position: Position) -> io::Result<Option<(Position, File)>> {
        let directories = match &self.place {
            Place::File(path, base) => return File::open(path).map(|file| Some((*base, file))),
            Place::Directories(directories) => directories,
        };
        let base = position.segment_base(self.segment_bytes);
        for (tier, directory) in directories {
            let path = directory.join(segment_name(base));
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                // A hot segment that was prepared and not entered yet holds nothing.
                Ok(file) if *tier == Tier::Hot && !is_entered(&file)? => {}
                Ok(file) => return Ok(Some((base, file))),
            }
        }
        Ok(None)
    }

    /// Where the log begins, if what stands at `position` has left. Looked up only where a file is to be opened.
    fn gone(&self, position: Position) -> Option<Position> {
        let Place::Directories(directories) = &self.place else { return None };
        let base = position.segment_base(self.segment_bytes);
        let known = self.open.borrow().as_ref().is_some_and(|&(open, _)| open == base);
        let holds = |(_, directory): &(Tier, PathBuf)| directory.join(segment_name(base)).exists();
        if known || directories.iter().any(holds) {
            return None;
        }
        let lowest =
            |(_, directory): &(Tier, PathBuf)| list_segments(directory).ok()?.first().copied();
        directories.iter().filter_map(lowest).min().filter(|&first| first > position)
    }

    /// Time of the frame at a segment's start.
    fn time_at(&self, position: Position) -> Option<Timestamp> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let whole = self.read(position, &mut bytes).is_ok_and(|read| read == bytes.len());
        let header = <FrameHeader as zerocopy::FromBytes>::read_from_bytes(&bytes).ok()?;
        whole.then(|| header.timestamp())
    }
}

impl LogBytes for Files {
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        let mut open = self.open.borrow_mut();
        let holds = |base: Position| match self.place {
            Place::File(..) => true,
            Place::Directories(_) => position.segment_base(self.segment_bytes) == base,
        };
        if !open.as_ref().is_some_and(|&(base, _)| holds(base)) {
            *open = self.open(position)?;
        }
        let Some((base, file)) = open.as_ref() else { return Ok(0) };
        let Some(offset) = position.0.checked_sub(base.0) else { return Ok(0) };
        Reads::count(&self.reads, bytes.len());
        read_full(file, bytes, SEGMENT_HEADER_BYTES as u64 + offset)
    }
}

fn read_full(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn is_entered(file: &File) -> io::Result<bool> {
    let mut page = [0; SEGMENT_HEADER_BYTES];
    let read = read_full(file, &mut page, 0)?;
    Ok(SegmentHeader::decode(&page[..read]).is_ok())
}

type Page = (Result<SegmentHeader, HeaderError>, Option<Seal>, u64);

/// Header, newest seal and length of a file. With a base: it must be the segment of that name.
fn read_page(path: &Path, base: Option<Position>) -> io::Result<Page> {
    let file = File::open(path)?;
    let mut page = [0; SEGMENT_HEADER_BYTES];
    let read = read_full(&file, &mut page, 0)?;
    let header = SegmentHeader::decode(&page[..read]).and_then(|header| match base {
        Some(expected) if header.before.position != expected => {
            Err(HeaderError::Base { found: header.before.position, expected })
        }
        Some(_) if header.content != Content::Segment => {
            Err(HeaderError::Field { field: "content", value: header.content as u64 })
        }
        _ => Ok(header),
    });
    let seal = header.ok().and_then(|header| Seal::newest(&page, header.group));
    Ok((header, seal, file.metadata()?.len()))
}

/// The commit position in the clean mark of the node state, if it is whole and of this group.
fn clean_mark(data: &Path, group: GroupId) -> Option<Commit> {
    let bytes = fs::read(data.join(NODE_STATE_NAME)).ok()?;
    let copies =
        bytes.chunks(NODE_STATE_COPY_BYTES).filter_map(|copy| decode_node_state(copy).ok());
    let (state, _) = copies.max_by_key(|&(_, number)| number)?;
    state.clean_mark.filter(|_| state.group == group).map(|mark| mark.commit)
}

fn directories(data: &Path, tier: Option<&Path>, options: ReadOptions) -> Vec<(Tier, PathBuf)> {
    let hot = tier.filter(|_| options.tiers == Tiers::Both).map(|tier| (Tier::Hot, tier.into()));
    hot.into_iter().chain([(Tier::Durable, data.into())]).collect()
}

/// The segment files of a node. Hot files of another group are not its own, and left out.
fn list(
    data: &Path,
    tier: Option<&Path>,
    options: ReadOptions,
) -> Result<Vec<SegmentFile>, OpenError> {
    let mut found = Vec::new();
    let mut group = None;
    for (tier, directory) in directories(data, tier, options).into_iter().rev() {
        for base in list_segments(&directory).map_err(host(&directory))? {
            let path = directory.join(segment_name(base));
            let (header, seal, bytes) = match read_page(&path, Some(base)) {
                Ok(page) => page,
                // Retired since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(host(&path)(error)),
            };
            if let Ok(header) = header {
                let expected = *group.get_or_insert(header.group);
                if header.group != expected && tier == Tier::Hot {
                    continue;
                }
                if header.group != expected {
                    return Err(OpenError::Groups { path, found: header.group, expected });
                }
            }
            found.push(SegmentFile { path, tier, base, bytes, header, seal });
        }
    }
    found.sort_by_key(|segment| (segment.base, segment.tier));
    Ok(found)
}

fn host(path: &Path) -> impl Fn(io::Error) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |error| OpenError::Host { path: path.clone(), error }
}

#[cfg(test)]
mod tests;

//! The durable files of a log as one run of bytes: what is replayed at a start, and what other nodes are served from.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use super::memory::{Disk, DurableFile, parse_segment_name, segment_name};
use super::reader::{Cause, LogBytes, Trouble, Walker};
use super::segment_file::{file_offset, seal_base};
use super::segment_header::SegmentHeader;
use crate::frame::Predecessor;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::{Chain, GroupId, Position};

/// What the files say of a place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// An entry ends there.
    Entry(Predecessor),
    /// The place is within an entry.
    Nothing,
    /// They do not say: what stands below it in its segment has left, is damaged, or is not there.
    Unknown,
}

/// The segment files of a directory. The last one read stays open.
#[derive(Debug)]
pub struct LogFiles<'a, D: Disk> {
    pub(super) disk: &'a D,
    pub(super) segment_bytes: u64,
    open: RefCell<Option<(Position, D::File)>>,
}

/// Where the log in a data directory begins: the base of its first segment file.
///
/// # Errors
/// The host's.
pub fn first_segment<D: Disk>(disk: &D) -> io::Result<Option<Position>> {
    Ok(disk.list()?.iter().filter_map(|name| parse_segment_name(name)).min())
}

/// Where the log begins, if that is above `position`: what stands there has left.
///
/// # Errors
/// The host's.
pub fn gone_below<D: Disk>(disk: &D, position: Position) -> io::Result<Option<Position>> {
    Ok(first_segment(disk)?.filter(|&first| first > position))
}

impl<'a, D: Disk> LogFiles<'a, D> {
    /// Files of segments of `segment_bytes` each; none is opened yet.
    #[must_use]
    pub fn new(disk: &'a D, segment_bytes: u64) -> Self {
        Self { disk, segment_bytes, open: RefCell::new(None) }
    }

    /// The log's bytes from `from` up to `to`, or up to where the files end. None are there: empty.
    ///
    /// The caller knows what is durable: above that the files hold anything.
    ///
    /// # Errors
    /// The host's.
    pub fn piece(&self, from: Position, to: Position) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; to.0.saturating_sub(from.0) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            let at = from.plus(filled as u64);
            let segment_end = at.segment_base(self.segment_bytes).plus(self.segment_bytes);
            let here = (bytes.len() - filled).min(segment_end.since(at) as usize);
            match self.read(at, &mut bytes[filled..][..here])? {
                0 => break,
                more => filled += more,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// What stands before the entry at `position`: one segment is walked for it. None: no entry starts or ends there, or what
    /// stands there has left, or is damaged.
    ///
    /// # Errors
    /// The host's.
    pub fn predecessor_at(
        &self,
        group: GroupId,
        position: Position,
    ) -> io::Result<Option<Predecessor>> {
        Ok(match self.look_at(group, position)? {
            Standing::Entry(before) => Some(before),
            Standing::Nothing | Standing::Unknown => None,
        })
    }

    /// What stands before the entry at `position`, and whether the files can tell.
    ///
    /// # Errors
    /// The host's.
    pub fn look_at(&self, group: GroupId, position: Position) -> io::Result<Standing> {
        let base = seal_base(position, Position(0), self.segment_bytes);
        let before = if base == Position(0) {
            Predecessor::genesis(group)
        } else {
            let before = match self.before_segment(group, base)? {
                // The log may begin just here: then the first segment says what stood before it.
                None if position == position.segment_base(self.segment_bytes) => {
                    self.before_segment(group, position)?
                }
                before => before,
            };
            let Some(before) = before else { return Ok(Standing::Unknown) };
            before
        };
        let mut walker = Walker::new(self, self.segment_bytes, before);
        loop {
            let found = walker.before();
            if found.position >= position {
                let there = found.position == position;
                return Ok(if there { Standing::Entry(found) } else { Standing::Nothing });
            }
            match walker.next_frame(position) {
                Ok(Some(_)) => {}
                Err(Trouble { cause: Cause::Host(error), .. }) => return Err(error),
                Ok(None) => return Ok(Standing::Nothing), // within an entry
                Err(_) => return Ok(Standing::Unknown),
            }
        }
    }

    /// The chain at the entry that ends at `position`. None: no entry does.
    ///
    /// # Errors
    /// Where the log begins, if what stands there has left.
    pub(super) fn chain_at(
        &self,
        group: GroupId,
        position: Position,
    ) -> Result<Option<Chain>, Position> {
        match gone_below(self.disk, position) {
            Ok(Some(first)) => Err(first),
            // What the host cannot read is not known.
            _ => Ok(self.predecessor_at(group, position).ok().flatten().map(|at| at.chain)),
        }
    }

    /// What its header page says stands before the segment at `base`. None: there is none, or its page is damaged, which is
    /// recovery's to tell.
    ///
    /// # Errors
    /// The host's.
    pub fn before_segment(
        &self,
        group: GroupId,
        base: Position,
    ) -> io::Result<Option<Predecessor>> {
        Ok(self.header(group, base)?.map(|header| header.before))
    }

    /// The header page of the segment at `base`, as [`LogFiles::before_segment`].
    pub(super) fn header(
        &self,
        group: GroupId,
        base: Position,
    ) -> io::Result<Option<SegmentHeader>> {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let Some(read) = self.with_file(base, |file| file.read_at(&mut page, 0))? else {
            return Ok(None);
        };
        let header = SegmentHeader::decode_segment(&page[..read?], group, self.segment_bytes, base);
        Ok(header.ok())
    }

    /// Does something with the file of a segment. None: there is none.
    fn with_file<T>(
        &self,
        base: Position,
        act: impl FnOnce(&D::File) -> T,
    ) -> io::Result<Option<T>> {
        let mut open = self.open.borrow_mut();
        if open.as_ref().is_none_or(|(known, _)| *known != base) {
            let file = match self.disk.open(&segment_name(base)) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            *open = Some((base, file));
        }
        let (_, file) = open.as_ref().expect("just opened");
        Ok(Some(act(file)))
    }
}

impl<D: Disk> LogBytes for LogFiles<'_, D> {
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        let base = position.segment_base(self.segment_bytes);
        let read = self.with_file(base, |file| file.read_at(bytes, file_offset(base, position)))?;
        read.unwrap_or(Ok(0))
    }
}

//! The durable files of a log as one run of bytes: what is replayed at a start, and what other nodes are served from.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use super::memory::{Disk, DurableFile, segment_name};
use super::reader::{Cause, LogBytes, Trouble, Walker};
use super::segment_file::{file_offset, seal_base};
use super::segment_header::SegmentHeader;
use crate::frame::Predecessor;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::{GroupId, Position};

/// The segment files of a directory. The last one read stays open.
#[derive(Debug)]
pub struct LogFiles<'a, D: Disk> {
    disk: &'a D,
    segment_bytes: u64,
    open: RefCell<Option<(Position, D::File)>>,
}

impl<'a, D: Disk> LogFiles<'a, D> {
    /// Files of segments of `segment_bytes` each; none is opened yet.
    #[must_use]
    pub fn new(disk: &'a D, segment_bytes: u64) -> Self {
        Self { disk, segment_bytes, open: RefCell::new(None) }
    }

    /// The log's bytes from `from` up to `to`, or up to where its segment or the files end. None are there: empty.
    ///
    /// The caller knows what is durable: above that the files hold anything.
    ///
    /// # Errors
    /// The host's.
    pub fn piece(&self, from: Position, to: Position) -> io::Result<Vec<u8>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let end = to.min(from.segment_base(self.segment_bytes).plus(self.segment_bytes));
        let mut bytes = vec![0; end.since(from) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.read(from.plus(filled as u64), &mut bytes[filled..])? {
                0 => break,
                more => filled += more,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// What stands before the entry at `position`: one segment is walked for it. None: no entry starts or ends there.
    ///
    /// # Errors
    /// The host's.
    pub fn predecessor_at(
        &self,
        group: GroupId,
        position: Position,
    ) -> io::Result<Option<Predecessor>> {
        let base = seal_base(position, Position(0), self.segment_bytes);
        let before = if base == Position(0) {
            Predecessor::genesis(group)
        } else {
            let mut page = [0; SEGMENT_HEADER_BYTES];
            let read = match self.disk.open(&segment_name(base)) {
                Ok(file) => file.read_at(&mut page, 0)?,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let bytes = self.segment_bytes;
            match SegmentHeader::decode_segment(&page[..read], group, bytes, base) {
                Ok(header) => header.before,
                Err(_) => return Ok(None), // its damage is recovery's to tell
            }
        };
        let mut walker = Walker::new(self, self.segment_bytes, before);
        loop {
            if walker.before().position >= position {
                return Ok(Some(walker.before()).filter(|found| found.position == position));
            }
            match walker.next_frame(position) {
                Ok(Some(_)) => {}
                Err(Trouble { cause: Cause::Host(error), .. }) => return Err(error),
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

impl<D: Disk> LogBytes for LogFiles<'_, D> {
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        let base = position.segment_base(self.segment_bytes);
        let mut open = self.open.borrow_mut();
        if open.as_ref().is_none_or(|(known, _)| *known != base) {
            let file = match self.disk.open(&segment_name(base)) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
                Err(error) => return Err(error),
            };
            *open = Some((base, file));
        }
        let (_, file) = open.as_ref().expect("just opened");
        file.read_at(bytes, file_offset(base, position))
    }
}

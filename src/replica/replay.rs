//! Bringing the state up to what is known to be committed, before the threads start: the log is the state.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use crate::frame::Predecessor;
use crate::journal::reader::{LogBytes, Trouble, Walker};
use crate::journal::{Disk, DurableFile, segment_name};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::service::Service;
use crate::session::State;
use crate::types::{Applied, Commit, GroupId, Position};

/// The durable files of a log as one run of bytes.
struct DurableLog<'a, D: Disk> {
    disk: &'a D,
    segment_bytes: u64,
    open: RefCell<Option<(Position, D::File)>>,
}

impl<D: Disk> LogBytes for DurableLog<'_, D> {
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
        file.read_at(bytes, SEGMENT_HEADER_BYTES as u64 + position.since(base))
    }
}

/// Applies the log from its start up to `commit`.
///
/// # Errors
/// Where the durable log could not be read, and why.
pub fn replay<D: Disk, S: Service>(
    disk: &D,
    group: GroupId,
    segment_bytes: u64,
    commit: Commit,
    state: &mut State<S>,
) -> Result<Applied, Trouble> {
    let log = DurableLog { disk, segment_bytes, open: RefCell::new(None) };
    let mut walker = Walker::new(log, segment_bytes, Predecessor::genesis(group));
    while let Some(found) = walker.next_frame(commit.position())? {
        let kind = found.header.kind().expect("the walk lets only known kinds pass");
        state.apply_frame(kind, &found.header, found.payload);
    }
    Ok(Applied(walker.before().position))
}

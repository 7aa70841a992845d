//! Doing without a damaged segment that no node has any more: a good snapshot of this log above it covers it, one of this
//! node's own, or one that another node gives while this one runs.
//!
//! A snapshot that is given goes straight into the folder of the snapshots, under a name that means nothing. Its stamp must be
//! what this node's own log says at that place, which must be committed and on this disk; each block is checked as it comes;
//! all of it is synced, renamed and the directory synced. So whatever a crash leaves is the whole of it, or a file that the
//! next start removes, and nothing of the log is cut for it.
//!
//! Then the damaged segment leaves, with all that lies below it: to `quarantine/`, the lowest first, each move durable before
//! the next. So the log is one run after a crash, too. A snapshot from which the rest of the log cannot be reached goes the
//! same way.

#[cfg(test)]
mod tests;

use std::io;

use super::files::LogFiles;
use super::memory::{Disk, DurableFile, parse_segment_name, segment_name};
use super::quarantine_name;
use super::snapshot::{
    BlockCheck, NEW_SUFFIX, SNAPSHOT_PAGE_BYTES, SnapshotError, SnapshotReader, Stamp, set_aside,
    snapshot_name, snapshots, verify,
};
use crate::limits::SNAPSHOT_BLOCK_BYTES;
use crate::link::{SnapshotPiece, SnapshotTaken};
use crate::types::{GroupId, Position};

/// Bytes written between two syncs.
const SYNC_BYTES: u64 = 1024 * 1024;

/// The log that is to be covered.
#[derive(Debug)]
pub struct OwnLog<'a, D> {
    /// The node's data directory.
    pub disk: &'a D,
    /// Whose log.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// All below this is committed and on this disk.
    pub limit: Position,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Covered {
    /// The last segment that has left.
    pub through: Position,
    /// The snapshot that covers them.
    pub by: Position,
    /// Segments that are in `quarantine/` now.
    pub segments: u64,
}

impl<D: Disk> OwnLog<'_, D> {
    /// Whether a snapshot is one of this log, and of what is committed and on this disk.
    fn has(&self, stamp: &Stamp) -> io::Result<bool> {
        let place = stamp.before;
        if stamp.group != self.group || place.position > self.limit {
            return Ok(false);
        }
        let files = LogFiles::new(self.disk, self.segment_bytes);
        Ok(files.predecessor_at(self.group, place.position)? == Some(place))
    }

    /// Lets the damaged segment at `base` leave, and all below it, if a good snapshot covers them. None: none does.
    ///
    /// # Errors
    /// The host's: what has left until then has left.
    pub fn cover(&self, base: Position) -> io::Result<Option<Covered>> {
        let Some(through) = self.through(base)? else { return Ok(None) };
        let Some(by) = self.covering(through)? else { return Ok(None) };
        let mut bases: Vec<_> =
            self.disk.list()?.iter().filter_map(|name| parse_segment_name(name)).collect();
        bases.sort_unstable();
        let mut segments = 0;
        for base in bases.into_iter().take_while(|base| *base <= through) {
            let name = segment_name(base);
            self.disk.rename(&name, &quarantine_name(&self.disk.list()?, &name))?;
            self.disk.sync_directory()?;
            segments += 1;
        }
        for old in snapshots(self.disk)? {
            if old <= through.plus(self.segment_bytes) {
                set_aside(self.disk, old)?;
            }
        }
        Ok(Some(Covered { through, by, segments }))
    }

    /// The last segment that must leave with the one at `base`: the next one can be the log's first, for its page is good.
    fn through(&self, base: Position) -> io::Result<Option<Position>> {
        let files = LogFiles::new(self.disk, self.segment_bytes);
        let mut through = base;
        while through.plus(self.segment_bytes) < self.limit {
            if files.before_segment(self.group, through.plus(self.segment_bytes))?.is_some() {
                return Ok(Some(through));
            }
            through = through.plus(self.segment_bytes);
        }
        Ok(None)
    }

    /// The newest good snapshot of this log that needs nothing below the segment behind `through`.
    fn covering(&self, through: Position) -> io::Result<Option<Position>> {
        let first = through.plus(self.segment_bytes);
        let above = snapshots(self.disk)?.into_iter().rev().filter(|position| *position > first);
        for position in above {
            let stamp = match SnapshotReader::open(self.disk, self.group, position) {
                Ok(reader) => reader.stamp().clone(),
                Err(SnapshotError::Host(error)) => return Err(error),
                Err(_) => continue,
            };
            if !self.has(&stamp)? {
                continue;
            }
            match verify(self.disk, self.group, position, &mut |_| Ok(())) {
                Ok(_) => return Ok(Some(position)),
                Err(SnapshotError::Host(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// A snapshot that another node gives.
#[derive(Debug)]
pub struct Given<F> {
    position: Position,
    /// Bytes taken, and of those the last ones, which are no whole block yet.
    end: u64,
    rest: Vec<u8>,
    stamp: Option<Stamp>,
    blocks: BlockCheck,
    file: F,
    unsynced: u64,
}

impl<F: DurableFile> Given<F> {
    /// Nothing of the snapshot at `position` is here yet.
    ///
    /// # Errors
    /// The host's.
    pub fn begin<D: Disk<File = F>>(disk: &D, position: Position) -> io::Result<Self> {
        let name = new_name(position);
        if disk.list()?.contains(&name) {
            disk.remove(&name)?;
        }
        Ok(Self {
            position,
            end: 0,
            rest: Vec::new(),
            stamp: None,
            blocks: BlockCheck::default(),
            file: disk.create(&name)?,
            unsynced: 0,
        })
    }

    /// Its position.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Nothing of it is wanted any more. A file that cannot be removed now the next start removes.
    pub fn discard<D: Disk<File = F>>(self, disk: &D) {
        let _ = disk.remove(&new_name(self.position));
    }

    /// Takes the bytes that come next. `Whole`: it is one of this node's own snapshots now. After `Damaged` it is worth nothing.
    ///
    /// # Errors
    /// The host's; it is worth nothing then.
    pub fn take<D: Disk<File = F>>(
        &mut self,
        log: &OwnLog<'_, D>,
        piece: &SnapshotPiece,
    ) -> io::Result<SnapshotTaken> {
        let Self { position, .. } = *self;
        let damaged = Ok(SnapshotTaken::Damaged(position));
        if (piece.position, piece.from) != (position, self.end) {
            return damaged;
        }
        self.end += piece.bytes.len() as u64;
        self.rest.extend_from_slice(&piece.bytes);
        while let Some(unit) = self.next_unit() {
            let rest = self.rest.split_off(unit);
            let whole = core::mem::replace(&mut self.rest, rest);
            let at = self.end - (whole.len() + self.rest.len()) as u64;
            if !self.keep(log, at, &whole)? {
                return damaged;
            }
        }
        let Some(stamp) = self.stamp.as_ref().filter(|stamp| self.end >= stamp.file_bytes()) else {
            return Ok(SnapshotTaken::Part { position, total: piece.total, end: self.end });
        };
        if !self.blocks.is_whole(stamp) {
            return damaged;
        }
        self.file.sync()?;
        log.disk.rename(&new_name(position), &snapshot_name(position))?;
        log.disk.sync_directory()?;
        Ok(SnapshotTaken::Whole(position))
    }

    /// Bytes at the start of `rest` that can be judged on their own. What comes behind the snapshot is not wanted.
    fn next_unit(&self) -> Option<usize> {
        let at = self.end - self.rest.len() as u64;
        let unit = match &self.stamp {
            None => SNAPSHOT_PAGE_BYTES as u64,
            Some(stamp) => stamp.file_bytes().saturating_sub(at).min(SNAPSHOT_BLOCK_BYTES as u64),
        };
        Some(unit as usize).filter(|&unit| unit > 0 && unit <= self.rest.len())
    }

    /// Judges a unit and writes it. False: it is not good.
    fn keep<D: Disk<File = F>>(
        &mut self,
        log: &OwnLog<'_, D>,
        at: u64,
        bytes: &[u8],
    ) -> io::Result<bool> {
        if self.stamp.is_some() {
            if !self.blocks.next(bytes) {
                return Ok(false);
            }
            self.file.write_at(bytes, at)?;
        } else {
            let Ok(stamp) = Stamp::decode(bytes) else { return Ok(false) };
            if stamp.before.position != self.position || !log.has(&stamp)? {
                return Ok(false);
            }
            self.file.write_at(&stamp.encode(), 0)?;
            self.blocks = BlockCheck::of(&stamp);
            self.stamp = Some(stamp);
        }
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync()?;
        }
        Ok(true)
    }
}

fn new_name(position: Position) -> String {
    format!("{}{NEW_SUFFIX}", snapshot_name(position))
}

//! Lets segments of the durable log leave, on the replay worker's thread: one at a time, the oldest first, each removal
//! durable before the next, so that a crash anywhere leaves one run of segments.
//!
//! Before the first one leaves, every snapshot that is kept is read to its end: what is removed can be had from nowhere else.
//! With an archive, a segment is there, durably, before it is gone here.

#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::io;

use zerocopy::FromBytes;

use crate::frame::FrameHeader;
use crate::journal::files::LogFiles;
use crate::journal::reader::LogBytes;
use crate::journal::retention::{Pin, Retention, RetentionLimits, SegmentHeld};
use crate::journal::snapshot::{SnapshotError, set_aside, snapshots, verify};
use crate::journal::{Disk, parse_segment_name, segment_name};
use crate::limits::FRAME_HEADER_BYTES;
use crate::link::Shared;
use crate::mutants::{Mutant, Mutants};
use crate::types::{GroupId, Nanos, NodeId, Position, Timestamp};

/// How often it is looked whether something may leave, ns.
const LOOK_NS: u64 = 500 * Nanos::MILLISECOND;
/// After a failure it is not tried again for so long, ns.
const RETRY_NS: u64 = 5 * Nanos::SECOND;

/// Copies the file of this name, durably, to where it stays when it has left.
pub type Archive<D> = Box<dyn FnMut(&D, &str, Paced<'_>) -> io::Result<()> + Send>;
/// Is told of the bytes of each piece that is read or written: it may wait, and its error ends the work.
pub type Paced<'a> = &'a mut dyn FnMut(usize) -> io::Result<()>;

/// How the log is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetainerSettings {
    /// Whose log.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// How much stays.
    pub limits: RetentionLimits,
    /// Rules taken out, to prove that this is noticed.
    pub mutants: Mutants,
}

/// What an operator may want to know.
#[derive(Debug)]
pub enum RetentionEvent {
    /// Segments have left.
    Left {
        /// How many.
        segments: u64,
        /// Where the log begins now.
        first: Position,
    },
    /// A segment could not be archived: it stays, and is tried again. Said once until one can.
    NotArchived {
        /// The segment.
        base: Position,
        /// Why.
        error: io::Error,
    },
    /// A segment that may leave could not be removed: it is tried again. Said once until one can.
    NotRemoved {
        /// Why.
        error: io::Error,
    },
    /// A snapshot that the log was to begin with is damaged, and was moved there.
    Damaged {
        /// Its position.
        position: Position,
        /// What is wrong with it.
        error: SnapshotError,
        /// Its new name; none: it could not be moved.
        kept_at: Option<String>,
    },
}

/// What is kept, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RetentionView {
    /// Where the log begins.
    pub first: Position,
    /// Snapshots, oldest first.
    pub snapshots: Vec<Position>,
    /// Why the oldest segment stays. None: it is about to leave.
    pub pin: Option<Pin>,
    /// Why it could not be archived or removed.
    pub failure: Option<String>,
}

/// The machine.
pub struct Retainer<D> {
    disk: D,
    shared: Shared,
    settings: RetainerSettings,
    archive: Option<Archive<D>>,
    /// Snapshots that were read to their end and found good, oldest first.
    verified: Vec<Position>,
    look_at: Nanos,
    /// Segments that have left since it was last told.
    left: u64,
    view: RetentionView,
    events: VecDeque<RetentionEvent>,
}

impl<D: Disk> Retainer<D> {
    /// Over the node's data directory.
    pub fn new(
        disk: D,
        shared: Shared,
        settings: RetainerSettings,
        archive: Option<Archive<D>>,
    ) -> Self {
        Self {
            disk,
            shared,
            settings,
            archive,
            verified: Vec::new(),
            look_at: Nanos(0),
            left: 0,
            view: RetentionView::default(),
            events: VecDeque::new(),
        }
    }

    /// Takes the oldest event that was not taken yet.
    pub fn poll_event(&mut self) -> Option<RetentionEvent> {
        self.events.pop_front()
    }

    /// What is kept, as it was seen last.
    #[must_use]
    pub fn view(&self) -> &RetentionView {
        &self.view
    }

    /// Looks whether something may leave, if it is time to, and lets one segment go; returns how much that was: 0 means that
    /// nothing is to be done now. `pace` is told of what is read: it may wait, and its error ends the reading.
    pub fn step(
        &mut self,
        now: Nanos,
        time: Timestamp,
        members: &[(NodeId, Option<Position>)],
        pace: Paced<'_>,
    ) -> u64 {
        if now < self.look_at {
            return 0;
        }
        self.look_at = now.plus(LOOK_NS);
        match self.look(time, members, pace) {
            Ok(true) => {
                self.look_at = now;
                1
            }
            Ok(false) => {
                self.tell_left();
                0
            }
            Err(error) => {
                self.look_at = now.plus(RETRY_NS);
                self.tell_left();
                if self.view.failure.replace(error.to_string()).is_none() {
                    self.events.push_back(RetentionEvent::NotRemoved { error });
                }
                0
            }
        }
    }

    /// Whether something was done, and there may be more.
    fn look(
        &mut self,
        time: Timestamp,
        members: &[(NodeId, Option<Position>)],
        pace: Paced<'_>,
    ) -> io::Result<bool> {
        let mut bases: Vec<_> =
            self.disk.list()?.iter().filter_map(|name| parse_segment_name(name)).collect();
        bases.sort_unstable();
        let kept = snapshots(&self.disk)?;
        self.view.snapshots.clone_from(&kept);
        let Some(&base) = bases.first() else { return Ok(false) };
        self.view.first = base;
        let RetainerSettings { limits, segment_bytes, mutants, .. } = self.settings;
        let end = Position(self.shared.words().durable.load(Ordering::Acquire));
        let retention =
            Retention { limits, segment_bytes, now: time, end, snapshots: &kept, members };
        let segment = SegmentHeld { base, closed: self.closed(base, time)? };
        self.view.pin = retention.pin(&segment);
        let uncovered = mutants.has(Mutant::TrimUncovered)
            && matches!(self.view.pin, Some(Pin::Snapshots | Pin::Member(_)));
        if self.view.pin.is_some() && !uncovered {
            return Ok(false);
        }
        if self.verified != kept {
            return self.verify(&kept, pace);
        }
        self.let_go(base, pace)
    }

    /// Time of the first entry behind the segment; now, if there is none yet.
    fn closed(&self, base: Position, now: Timestamp) -> io::Result<Timestamp> {
        let segment_bytes = self.settings.segment_bytes;
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let files = LogFiles::new(&self.disk, segment_bytes);
        let read = files.read(base.plus(segment_bytes), &mut bytes)?;
        let header = FrameHeader::read_from_bytes(&bytes).ok();
        let header = header.filter(|header| read == bytes.len() && header.length() > 0);
        Ok(header.map_or(now, |header| header.timestamp()))
    }

    fn verify(&mut self, kept: &[Position], pace: Paced<'_>) -> io::Result<bool> {
        for &position in kept {
            match verify(&self.disk, self.settings.group, position, pace) {
                Ok(_) => {}
                Err(SnapshotError::Host(error)) => return Err(error),
                Err(error) => {
                    let kept_at = set_aside(&self.disk, position).ok();
                    self.events.push_back(RetentionEvent::Damaged { position, error, kept_at });
                    return Ok(false);
                }
            }
        }
        self.verified = kept.to_vec();
        Ok(true)
    }

    fn let_go(&mut self, base: Position, pace: Paced<'_>) -> io::Result<bool> {
        let name = segment_name(base);
        if let Some(archive) = &mut self.archive
            && let Err(error) = archive(&self.disk, &name, pace)
        {
            let text = format!("archiving {name}: {error}");
            if self.view.failure.replace(text).is_none() {
                self.events.push_back(RetentionEvent::NotArchived { base, error });
            }
            return Ok(false);
        }
        self.disk.remove(&name)?;
        self.disk.sync_directory()?;
        self.left += 1;
        self.view.first = base.plus(self.settings.segment_bytes);
        self.view.failure = None;
        Ok(true)
    }

    fn tell_left(&mut self) {
        let segments = core::mem::take(&mut self.left);
        if segments > 0 {
            let first = self.view.first;
            self.events.push_back(RetentionEvent::Left { segments, first });
        }
    }
}

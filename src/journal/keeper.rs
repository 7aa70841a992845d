//! The keeper's machine: the next segments are made before anybody needs them, and the old ones are cleared away.
//!
//! A segment is two files: the durable one, created, zero-filled and synced with its directory, and the hot one, created,
//! populated and mapped. Both are made in pieces, one per step, so that the disk stays free for the sync thread. A full disk
//! or memory is an error here and nowhere else; the keeper reports it, clears away what it has begun, and tries again.
//!
//! The sync thread learns of a segment before the core does.

#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::io;

use super::memory::{Disk, DurableFile, HotTier, segment_name};
use super::segment_file::{file_bytes, write_zeroes};
use crate::limits::HOT_SEGMENTS_MAX;
use crate::link::{KeeperLink, SegmentOpened, SegmentReady, Shared};
use crate::types::{Nanos, Position};

/// How the keeper works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeeperSettings {
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// Segments that are ready beyond the one that is being written.
    pub segments_ahead: u64,
    /// Hot segments that exist at once, at most: what a slow disk may pile up in memory.
    pub hot_segments_max: u64,
    /// Bytes prepared in one step.
    pub piece_bytes: u64,
    /// First wait after a failure; doubled up to `retry_max_ns`.
    pub retry_ns: u64,
    /// Longest wait after a failure.
    pub retry_max_ns: u64,
    /// No segment is made that would leave less of the disk free than this: room for what is not the log, such as the
    /// bytes of a cut.
    pub reserve_bytes: u64,
    /// How often it is looked how much is free, ns.
    pub space_interval_ns: u64,
}

impl KeeperSettings {
    /// Defaults.
    #[must_use]
    pub const fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes,
            segments_ahead: 2,
            hot_segments_max: HOT_SEGMENTS_MAX as u64,
            piece_bytes: 1024 * 1024,
            retry_ns: 50 * Nanos::MILLISECOND,
            retry_max_ns: 2 * Nanos::SECOND,
            reserve_bytes: 0,
            space_interval_ns: 200 * Nanos::MILLISECOND,
        }
    }
}

/// What an operator may want to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum KeeperEvent {
    /// A segment cannot be made; it is tried again. Said once until it succeeds.
    Blocked {
        /// Which step failed.
        step: KeeperStep,
        /// Base of the segment.
        base: Position,
        /// `StorageFull` for a full disk or memory.
        kind: io::ErrorKind,
    },
    /// Segments can be made again.
    Resumed {
        /// Base of the first one.
        base: Position,
    },
    /// A hot segment that nobody needs could not be removed: its memory stays taken.
    NotRemoved {
        /// Base of the segment.
        base: Position,
        /// Why.
        kind: io::ErrorKind,
    },
}

/// A step in making a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeeperStep {
    /// Making the durable file.
    DurableFile,
    /// Making the hot segment.
    HotSegment,
}

/// The keeper's machine.
pub struct Keeper<D: Disk, H: HotTier> {
    disk: D,
    hot: H,
    link: KeeperLink<H::Memory, H::View>,
    shared: Shared,
    settings: KeeperSettings,
    /// Base of the next segment to be made.
    next: Position,
    /// Base of the lowest hot segment that still exists.
    lowest: Position,
    stage: Stage<D::File, H::Memory, H::View>,
    blocked: Option<Blocked>,
    /// When it is looked again how much is free.
    space_at: Nanos,
    /// The last failure was for want of room on the disk.
    lacked_room: bool,
    events: VecDeque<KeeperEvent>,
}

/// How far the next segment is.
enum Stage<F, M, V> {
    Idle,
    /// The durable file is zero up to here.
    Durable(F, u64),
    /// The hot segment is populated up to here.
    Hot(u64),
    /// Made, and the sync thread has not been told.
    Made(M, V),
    /// Made, and the core has not been told.
    Opened(M),
}

#[derive(Clone, Copy)]
struct Blocked {
    until: Nanos,
    wait_ns: u64,
}

impl<D: Disk, H: HotTier> Keeper<D, H> {
    /// Takes over from recovery, which made the hot segments `lowest..next`.
    #[must_use]
    pub fn new(
        disk: D,
        hot: H,
        link: KeeperLink<H::Memory, H::View>,
        shared: Shared,
        settings: KeeperSettings,
        lowest: Position,
        next: Position,
    ) -> Self {
        assert!(settings.segment_bytes.is_power_of_two() && settings.piece_bytes > 0);
        assert!(
            settings.segments_ahead > 0
                && settings.segments_ahead < settings.hot_segments_max
                && settings.hot_segments_max <= HOT_SEGMENTS_MAX as u64,
            "at least one ahead, and no more than the core can hold"
        );
        let stage = Stage::Idle;
        let events = VecDeque::new();
        Self {
            disk,
            hot,
            link,
            shared,
            settings,
            next,
            lowest,
            stage,
            blocked: None,
            space_at: Nanos(0),
            lacked_room: false,
            events,
        }
    }

    /// One turn: clears away what the core gave back, and does at most one piece of the next segment. Returns how much it
    /// did; 0 means: nothing until [`Keeper::deadline`], or until the log grows or the core gives a segment back.
    pub fn step(&mut self, now: Nanos) -> usize {
        let mut work = 0;
        while let Ok(retired) = self.link.from_core.try_recv() {
            drop(retired.memory);
            self.remove_hot(retired.base);
            self.lowest = self.lowest.max(retired.base.plus(self.settings.segment_bytes));
            work += 1;
        }
        self.look_at_space(now);
        if self.blocked.is_some_and(|blocked| now < blocked.until) {
            return work;
        }
        work + self.advance(now)
    }

    /// When [`Keeper::step`] should be called even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanos> {
        self.blocked.map(|blocked| blocked.until)
    }

    /// Takes the oldest event that was not taken yet.
    pub fn poll_event(&mut self) -> Option<KeeperEvent> {
        self.events.pop_front()
    }

    /// Segments cannot be made at the moment.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// The disk or memory is worth another try at once.
    pub fn retry_now(&mut self) {
        if let Some(blocked) = &mut self.blocked {
            blocked.until = Nanos(0);
        }
    }

    /// Tells the other threads how much is free.
    fn look_at_space(&mut self, now: Nanos) {
        if now < self.space_at {
            return;
        }
        self.space_at = now.plus(self.settings.space_interval_ns);
        let left = self.disk.space_left().ok().flatten();
        let word = left.map_or(0, |bytes| bytes.saturating_add(1));
        self.shared.words().free_bytes.store(word, Ordering::Relaxed);
        // Somebody has made room: nobody should wait for a pause that has grown meanwhile.
        if self.lacked_room && left.is_some_and(|left| left >= self.needed_bytes()) {
            self.lacked_room = false;
            self.retry_now();
        }
    }

    /// What must be free for one more segment.
    fn needed_bytes(&self) -> u64 {
        file_bytes(self.settings.segment_bytes) + self.settings.reserve_bytes
    }

    fn advance(&mut self, now: Nanos) -> usize {
        let stage = core::mem::replace(&mut self.stage, Stage::Idle);
        let (done, step) = match stage {
            Stage::Idle if !self.wanted() => return 0,
            Stage::Idle => (self.begin(), KeeperStep::DurableFile),
            Stage::Durable(file, offset) => (self.fill(file, offset), KeeperStep::DurableFile),
            Stage::Hot(offset) => (self.populate(offset), KeeperStep::HotSegment),
            Stage::Made(memory, view) => {
                self.tell_sync(memory, view);
                return usize::from(matches!(self.stage, Stage::Opened(_)));
            }
            Stage::Opened(memory) => {
                self.tell_core(memory);
                return usize::from(matches!(self.stage, Stage::Idle));
            }
        };
        match done {
            Ok(stage) => self.stage = stage,
            Err(error) => self.block(now, step, &error),
        }
        1
    }

    /// The log has come close enough to the end of what is there, and memory for one more is granted.
    fn wanted(&self) -> bool {
        let segment_bytes = self.settings.segment_bytes;
        let verified = Position(self.shared.words().verified.load(Ordering::Acquire));
        let ahead = self.settings.segments_ahead * segment_bytes;
        let held = self.next.0.saturating_sub(self.lowest.0) / segment_bytes;
        self.next <= verified.segment_base(segment_bytes).plus(ahead)
            && held < self.settings.hot_segments_max
    }

    fn begin(&mut self) -> io::Result<Stage<D::File, H::Memory, H::View>> {
        let needed = self.needed_bytes();
        if self.disk.space_left()?.is_some_and(|left| left < needed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Stage::Durable(self.disk.create(&segment_name(self.next))?, 0))
    }

    /// One more piece of the durable file; the last one makes its name durable too.
    fn fill(
        &mut self,
        mut file: D::File,
        offset: u64,
    ) -> io::Result<Stage<D::File, H::Memory, H::View>> {
        let bytes = file_bytes(self.settings.segment_bytes);
        let end = bytes.min(offset + self.settings.piece_bytes);
        write_zeroes(&mut file, offset, end)?;
        // Piece by piece, so that the sync thread never queues behind a whole segment of zeroes.
        file.sync()?;
        if end < bytes {
            return Ok(Stage::Durable(file, end));
        }
        drop(file);
        self.disk.sync_directory()?;
        Ok(Stage::Hot(0))
    }

    fn populate(&mut self, offset: u64) -> io::Result<Stage<D::File, H::Memory, H::View>> {
        if offset == 0 {
            self.create_hot()?;
        }
        let bytes = file_bytes(self.settings.segment_bytes);
        let end = bytes.min(offset + self.settings.piece_bytes);
        self.hot.populate(self.next, offset, end - offset)?;
        if end < bytes {
            return Ok(Stage::Hot(end));
        }
        let (memory, view) = self.hot.open(self.next)?;
        if self.blocked.take().is_some() {
            self.shared.words().segments_blocked.store(0, Ordering::Relaxed);
            self.events.push_back(KeeperEvent::Resumed { base: self.next });
        }
        Ok(Stage::Made(memory, view))
    }

    /// A file in the hot tier that nobody remembers is made anew, never filled again in place.
    fn create_hot(&mut self) -> io::Result<()> {
        match self.hot.create(self.next) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.hot.remove(self.next)?;
                self.hot.create(self.next)
            }
            other => other,
        }
    }

    fn tell_sync(&mut self, memory: H::Memory, view: H::View) {
        let opened = SegmentOpened { base: self.next, view };
        self.stage = match self.link.to_sync.try_send(opened) {
            Ok(()) => Stage::Opened(memory),
            Err(refused) => Stage::Made(memory, refused.into_inner().view),
        };
    }

    fn tell_core(&mut self, memory: H::Memory) {
        let ready = SegmentReady { base: self.next, memory };
        match self.link.to_core.try_send(ready) {
            Ok(()) => self.next = self.next.plus(self.settings.segment_bytes),
            Err(refused) => self.stage = Stage::Opened(refused.into_inner().memory),
        }
    }

    /// Clears away what the failed step has begun, and waits.
    fn block(&mut self, now: Nanos, step: KeeperStep, error: &io::Error) {
        let base = self.next;
        self.lacked_room =
            step == KeeperStep::DurableFile && error.kind() == io::ErrorKind::StorageFull;
        match step {
            KeeperStep::HotSegment => {
                let _ = self.hot.remove(base);
                self.stage = Stage::Hot(0);
            }
            // A file that was there before is not ours to remove.
            KeeperStep::DurableFile if error.kind() == io::ErrorKind::AlreadyExists => {}
            KeeperStep::DurableFile => {
                let _ = self.disk.remove(&segment_name(base));
            }
        }
        let wait_ns = if let Some(before) = self.blocked {
            (before.wait_ns * 2).min(self.settings.retry_max_ns)
        } else {
            self.shared.words().segments_blocked.store(1, Ordering::Relaxed);
            self.events.push_back(KeeperEvent::Blocked { step, base, kind: error.kind() });
            self.settings.retry_ns
        };
        self.blocked = Some(Blocked { until: now.plus(wait_ns), wait_ns });
    }

    fn remove_hot(&mut self, base: Position) {
        if let Err(error) = self.hot.remove(base)
            && error.kind() != io::ErrorKind::NotFound
        {
            self.events.push_back(KeeperEvent::NotRemoved { base, kind: error.kind() });
        }
    }
}

//! The replay worker: takes snapshots off the core, from a state of its own that follows the committed log on the disk.
//!
//! It works when the log has grown by the interval, or when it is asked to: the newest snapshot is restored, the log from
//! there on is applied, and the state is written. So every snapshot but the first was read back before the next one stood
//! on it, and between two of them the worker holds no state at all. The core, its service and its files are not touched.

#[cfg(test)]
mod tests;

use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::io;

use super::replay::{Place, ReplayLog};
use crate::journal::Disk;
use crate::journal::reader::Trouble;
use crate::journal::snapshot::{
    SnapshotError, SnapshotReader, SnapshotWriter, Stamp, remove_unfinished, set_aside,
    set_aside_for, snapshot_name, snapshots, verify,
};
use crate::link::Shared;
use crate::service::Service;
use crate::session::{State, StateLimits};
use crate::types::{GroupId, Nanos, Position};

/// Bytes of the log applied in one step.
const STEP_BYTES: u64 = 1024 * 1024;
/// After a failure it is not tried again for so long, ns.
const RETRY_NS: u64 = 10 * Nanos::SECOND;

/// How snapshots are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotSettings {
    /// Whose log.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// Bounds of the state.
    pub limits: StateLimits,
    /// Bytes by which the log grows between two snapshots; 0: only when asked.
    pub interval_bytes: u64,
    /// Snapshots that are kept; at least 1.
    pub kept: usize,
}

/// What an operator may want to know.
#[derive(Debug)]
pub enum SnapshotEvent {
    /// One was taken.
    Taken {
        /// Which.
        stamp: Stamp,
        /// The newest request that it answers.
        answers: u64,
    },
    /// One was asked for, and nothing is new since the last.
    Current {
        /// Position of the last, 0 for none.
        position: Position,
        /// The newest request that this answers.
        answers: u64,
    },
    /// One could not be used, and was moved there.
    Damaged {
        /// Its position.
        position: Position,
        /// What is wrong with it.
        error: SnapshotError,
        /// Its new name; none: it could not be moved.
        kept_at: Option<String>,
    },
    /// None could be taken; it is tried again later.
    Failed {
        /// Why.
        error: io::Error,
        /// The newest request that this answers.
        answers: u64,
    },
}

/// The machine.
pub struct Snapshotter<D, S> {
    disk: D,
    shared: Shared,
    settings: SnapshotSettings,
    /// In its first state.
    service: S,
    /// Position of the newest snapshot, 0 for none.
    newest: Position,
    /// Number of the newest request, and of the newest that is being answered.
    asked: u64,
    answers: u64,
    /// The newest was lost: another one takes its place.
    lost: bool,
    not_before: Nanos,
    work: Option<Work<S>>,
    events: VecDeque<SnapshotEvent>,
}

/// A state on its way.
struct Work<S> {
    state: Box<State<S>>,
    at: Place,
    goal: Position,
}

impl<D: Disk, S: Service + Clone> Snapshotter<D, S> {
    /// A worker over the node's data directory; `service` is in its first state.
    ///
    /// # Errors
    /// The host's, of looking at the directory.
    pub fn new(
        disk: D,
        shared: Shared,
        settings: SnapshotSettings,
        service: S,
    ) -> io::Result<Self> {
        assert!(settings.kept > 0, "the newest snapshot is kept");
        remove_unfinished(&disk)?;
        let newest = snapshots(&disk)?.pop().unwrap_or_default();
        let (not_before, events) = (Nanos(0), VecDeque::new());
        Ok(Self {
            disk,
            shared,
            settings,
            service,
            newest,
            asked: 0,
            answers: 0,
            lost: false,
            not_before,
            work: None,
            events,
        })
    }

    /// One is to be taken of what is committed now, whatever the interval: request `number`, counted from 1.
    pub fn ask(&mut self, number: u64) {
        if number > self.asked {
            (self.asked, self.not_before) = (number, Nanos(0));
        }
    }

    /// The snapshot at `position` has been found damaged: it is kept aside, and another one is taken in its place.
    pub fn lose(&mut self, position: Position) {
        match SnapshotReader::open(&self.disk, self.settings.group, position)
            .and_then(SnapshotReader::check)
        {
            Ok(()) => {}
            Err(SnapshotError::Host(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.refuse(position, error);
                let left = snapshots(&self.disk).unwrap_or_default().pop().unwrap_or_default();
                self.lost |= left < self.newest;
                self.newest = left;
                self.not_before = Nanos(0);
            }
        }
    }

    /// Takes the oldest event that was not taken yet.
    pub fn poll_event(&mut self) -> Option<SnapshotEvent> {
        self.events.pop_front()
    }

    /// Does a bounded amount; returns the bytes it was: 0 means that nothing is to be done. `pace` is called with the
    /// bytes of each piece that is written: it may wait, and its error ends the writing.
    pub fn step(&mut self, now: Nanos, pace: &mut dyn FnMut(usize) -> io::Result<()>) -> u64 {
        let done = match self.work.take() {
            None => return self.begin(now),
            Some(work) if work.at.before.position < work.goal => self.follow(work),
            Some(work) => self.write(&work, pace),
        };
        done.unwrap_or_else(|error| {
            self.work = None;
            self.not_before = now.plus(RETRY_NS);
            self.events.push_back(SnapshotEvent::Failed { error, answers: self.answers });
            1
        })
    }

    /// What is committed, and on this disk: a snapshot never is of more than the log that stands beside it.
    fn reach(&self) -> Position {
        let words = self.shared.words();
        let commit = words.commit.load(Ordering::Acquire);
        Position(commit.min(words.durable.load(Ordering::Acquire)))
    }

    fn begin(&mut self, now: Nanos) -> u64 {
        let goal = self.reach();
        let interval = self.settings.interval_bytes;
        let due = interval > 0 && goal.0 >= self.newest.0.saturating_add(interval);
        let lost = self.lost && goal > self.newest;
        if now < self.not_before || !(due || lost || self.asked > self.answers) {
            return 0;
        }
        self.answers = self.asked;
        if goal <= self.newest {
            return self.is_current();
        }
        let mut state = Box::new(State::new(self.service.clone(), self.settings.limits));
        let (stamp, refused) = self.log().restore(goal, &mut state);
        for (position, error) in refused {
            self.refuse(position, error);
        }
        let at = stamp.as_ref().map_or_else(|| Place::genesis(self.settings.group), Place::of);
        self.work = Some(Work { state, at, goal });
        1
    }

    fn follow(&mut self, mut work: Work<S>) -> io::Result<u64> {
        let from = work.at.before.position;
        let at = self.log().apply(work.at, work.goal, STEP_BYTES, &mut work.state);
        work.at = at.map_err(broken)?;
        let done = work.at.before.position.since(from);
        if done == 0 {
            work.goal = from; // the goal lies within an entry: what ends below it is all there is
        }
        self.work = Some(work);
        Ok(done.max(1))
    }

    fn write(
        &mut self,
        work: &Work<S>,
        pace: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<u64> {
        let Work { state, at, .. } = work;
        let position = at.before.position;
        if position <= self.newest {
            return Ok(self.is_current());
        }
        let mut writer = SnapshotWriter::create(&self.disk, at.before, pace)?;
        state.snapshot(&mut writer)?;
        let stamp = writer.finish(Stamp {
            group: self.settings.group,
            generation: at.generation,
            before: at.before,
            time: state.time(),
            state_hash: state.state_hash(),
            service: state.service().name().to_owned(),
            service_version: state.service().version(),
            state_bytes: 0,
            blocks_crc: 0,
        })?;
        // Others leave because of it: so it is read back first.
        match verify(&self.disk, self.settings.group, position, pace) {
            Ok(_) => {}
            Err(SnapshotError::Host(error)) => return Err(error), // it may be good
            Err(error) => {
                let _ = set_aside(&self.disk, position);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        (self.newest, self.lost) = (position, false);
        self.events.push_back(SnapshotEvent::Taken { stamp, answers: self.answers });
        self.remove_old()?;
        Ok(1)
    }

    /// Somebody else has moved snapshots away, or brought one.
    ///
    /// # Errors
    /// The host's.
    pub fn look_again(&mut self) -> io::Result<()> {
        self.newest = snapshots(&self.disk)?.pop().unwrap_or_default();
        Ok(())
    }

    /// One has been brought that lies above what could not be read. Another one is taken as soon as there is more to be
    /// taken: alone it has no other behind it.
    ///
    /// # Errors
    /// The host's.
    pub fn brought(&mut self) -> io::Result<()> {
        (self.lost, self.not_before) = (true, Nanos(0));
        self.look_again()
    }

    fn is_current(&mut self) -> u64 {
        let Self { newest: position, answers, .. } = *self;
        self.events.push_back(SnapshotEvent::Current { position, answers });
        1
    }

    fn remove_old(&self) -> io::Result<()> {
        let positions = snapshots(&self.disk)?;
        let old = positions.len().saturating_sub(self.settings.kept);
        for &position in &positions[..old] {
            self.disk.remove(&snapshot_name(position))?;
        }
        Ok(())
    }

    /// One that cannot be used is in nobody's way any more. One that may be used later is not spoken of: what is in its way is
    /// met again by what is done instead.
    fn refuse(&mut self, position: Position, error: SnapshotError) {
        if matches!(error, SnapshotError::Unconfirmed { .. }) {
            return;
        }
        let kept_at = set_aside_for(&self.disk, position, &error);
        self.events.push_back(SnapshotEvent::Damaged { position, error, kept_at });
    }

    fn log(&self) -> ReplayLog<'_, D> {
        let SnapshotSettings { group, segment_bytes, .. } = self.settings;
        ReplayLog { disk: &self.disk, group, segment_bytes }
    }
}

fn broken(trouble: Trouble) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, trouble)
}

//! Who reads the durable files in the background: the scrub, and the repair of what it finds, as control orders it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::cover::{Covered, Given, OwnLog};
use super::memory::{Disk, segment_name};
use super::repair::{FarSide, Mended, Repair, RepairError, RepairStep};
use super::scrub::{ScrubEvent, ScrubSettings, Scrubber, Wrong};
use crate::frame::Predecessor;
use crate::link::{RepairOrder, RepairReport, Shared, SnapshotPiece, SnapshotTaken};
use crate::types::{Nanos, NodeId, Position};

/// The machine: at most one file is being repaired; while one is, nothing is scrubbed.
pub struct Mender<D: Disk> {
    disk: D,
    settings: ScrubSettings,
    scrub: Scrubber<D>,
    repair: Option<Repair>,
    /// A snapshot that comes, to cover what nobody has.
    given: Option<Given<D::File>>,
    /// One that came has not been told to who takes them.
    brought: bool,
    /// Nobody writes to the log, which is certain up to here.
    certain: Option<Predecessor>,
    /// There are bytes to be judged.
    goes_on: bool,
    reach: Position,
    reports: VecDeque<RepairReport>,
    events: VecDeque<ScrubEvent>,
}

impl<D: Disk + Clone> Mender<D> {
    /// Over the node's data directory.
    #[must_use]
    pub fn new(disk: D, shared: Shared, settings: ScrubSettings, now: Nanos) -> Self {
        let scrub = Scrubber::new(disk.clone(), shared, settings, now);
        Self {
            disk,
            settings,
            scrub,
            repair: None,
            given: None,
            brought: false,
            certain: None,
            goes_on: false,
            reach: Position(0),
            reports: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The node does not run, and its log is certain up to here: the file in which that is may be repaired, too.
    pub fn not_running(&mut self, certain: Predecessor) {
        self.certain = Some(certain);
    }

    /// Whether a file is being repaired.
    #[must_use]
    pub const fn is_repairing(&self) -> bool {
        self.repair.is_some() || self.given.is_some()
    }

    /// Whether a snapshot has come since this was last asked.
    pub fn take_brought(&mut self) -> bool {
        core::mem::take(&mut self.brought)
    }

    /// The scrub.
    pub fn scrub(&mut self) -> &mut Scrubber<D> {
        &mut self.scrub
    }

    /// Control wants something.
    pub fn obey(&mut self, order: RepairOrder) {
        match order {
            RepairOrder::Examine(base) => self.examine(base),
            RepairOrder::Patch { base, node, from, bytes } => {
                if let Some(repair) = self.repair.as_mut().filter(|repair| repair.base() == base) {
                    repair.patch(node, from, &bytes);
                    self.goes_on = true;
                }
            }
            RepairOrder::Swap(base) => self.swap(base),
            RepairOrder::Cover(base) => self.cover(base),
            RepairOrder::Piece { base, node, piece } => self.take(base, node, &piece),
            RepairOrder::Leave => self.leave(),
            RepairOrder::Suspect(position) => self.scrub.suspect(position),
        }
    }

    /// Whether retention has let the file go meanwhile. It works on this thread, too: nothing comes between this and a swap.
    fn let_go(&mut self, base: Position) -> bool {
        let left = self.scrub.has_left(base);
        if left {
            self.leave();
            self.scrub.forget(&segment_name(base));
            self.reports.push_back(RepairReport::Left(base));
        }
        left
    }

    fn leave(&mut self) {
        self.repair = None;
        if let Some(given) = self.given.take() {
            given.discard(&self.disk);
        }
    }

    fn log(&mut self) -> OwnLog<'_, D> {
        let ScrubSettings { group, segment_bytes, .. } = self.settings;
        let limit = self.certain.map_or(self.scrub.reach(), |certain| certain.position);
        OwnLog { disk: &self.disk, group, segment_bytes, limit }
    }

    fn cover(&mut self, base: Position) {
        self.repair = None;
        if self.let_go(base) {
            return;
        }
        match self.log().cover(base) {
            Ok(Some(Covered { through, by, segments })) => {
                let mut gone = base;
                while gone <= through {
                    self.scrub.forget(&segment_name(gone));
                    gone = gone.plus(self.settings.segment_bytes);
                }
                self.reports.push_back(RepairReport::Covered { base, through, by, segments });
            }
            Ok(None) => self.reports.push_back(RepairReport::Uncovered(base)),
            Err(error) => self.failed(base, error.to_string()),
        }
    }

    fn take(&mut self, base: Position, node: NodeId, piece: &SnapshotPiece) {
        if self.let_go(base) {
            return;
        }
        let goes_on = |given: &Given<D::File>| given.position() == piece.position && piece.from > 0;
        let given = match self.given.take() {
            Some(given) if goes_on(&given) => Ok(given),
            other => {
                if let Some(other) = other {
                    other.discard(&self.disk);
                }
                Given::begin(&self.disk, piece.position)
            }
        };
        let taken = given.and_then(|mut given| {
            let taken = given.take(&self.log(), piece);
            if matches!(taken, Ok(SnapshotTaken::Part { .. })) {
                self.given = Some(given);
            } else if !matches!(taken, Ok(SnapshotTaken::Whole(_))) {
                given.discard(&self.disk);
            }
            taken
        });
        match taken {
            Ok(what) => {
                self.brought |= matches!(what, SnapshotTaken::Whole(_));
                self.reports.push_back(RepairReport::Took { base, node, what });
            }
            Err(error) => self.failed(base, error.to_string()),
        }
    }

    fn examine(&mut self, base: Position) {
        if self.let_go(base) {
            return;
        }
        let ScrubSettings { group, segment_bytes, .. } = self.settings;
        let end = base.plus(segment_bytes);
        let far = match self.certain.filter(|certain| certain.position <= end) {
            Some(certain) => FarSide::Seal(certain),
            None => FarSide::NextFile,
        };
        match Repair::new(&self.disk, group, segment_bytes, base, far) {
            Ok(repair) => {
                // While nobody writes every file may be touched.
                let reach = self.certain.map_or_else(|| self.scrub.reach(), |_| Position(u64::MAX));
                (self.repair, self.goes_on) = (Some(repair.reaching(reach, self.certain)), true);
            }
            Err(RepairError::NearSide) if self.scrub.is_lowest(base) => {
                self.reports.push_back(RepairReport::Unjoined(base));
            }
            Err(error) => self.failed(base, error.to_string()),
        }
    }

    fn swap(&mut self, base: Position) {
        let Some(repair) = self.repair.take().filter(|repair| repair.base() == base) else {
            return;
        };
        if self.let_go(base) {
            return;
        }
        match repair.swap(&self.disk) {
            Ok(mended) => {
                // The one that was asked for last: it ends the repair.
                for Mended { base, kept_at, peer_bytes: bytes } in mended.into_iter().rev() {
                    self.scrub.forget(&segment_name(base));
                    self.scrub.suspect(base); // it is read back, from the disk
                    self.reports.push_back(RepairReport::Swapped { base, bytes, kept_at });
                }
            }
            Err(error) => self.failed(base, error.to_string()),
        }
    }

    fn failed(&mut self, base: Position, why: String) {
        self.leave();
        self.reports.push_back(RepairReport::Failed { base, why });
    }

    /// Does a bounded amount; returns the bytes it read, at least 1 if it did anything.
    pub fn step(&mut self, now: Nanos) -> u64 {
        let reach = self.scrub.reach();
        if reach > self.reach {
            self.reach = reach;
            self.reports.push_back(RepairReport::Reach(reach));
        }
        if self.is_repairing() {
            return self.step_repair();
        }
        let done = self.scrub.step(now);
        while let Some(event) = self.scrub.poll_event() {
            match &event {
                ScrubEvent::Flaw(flaw) if !matches!(flaw.what, Wrong::Snapshot(_)) => {
                    self.reports.push_back(RepairReport::Damaged(flaw.base));
                }
                ScrubEvent::Mended(base) => self.reports.push_back(RepairReport::Mended(*base)),
                _ => {}
            }
            self.events.push_back(event);
        }
        done
    }

    fn step_repair(&mut self) -> u64 {
        let Some(base) = self.repair.as_ref().filter(|_| self.goes_on).map(Repair::base) else {
            return 0;
        };
        if self.let_go(base) {
            return 1;
        }
        let Some(repair) = self.repair.as_mut() else { return 0 };
        let step = repair.step(&self.disk);
        self.goes_on = matches!(step, Ok(RepairStep::Going | RepairStep::Refused(_)));
        match step {
            Ok(RepairStep::Going) => {}
            Ok(RepairStep::Needs(from, to)) => {
                self.reports.push_back(RepairReport::Needs { base, from, to });
            }
            Ok(RepairStep::Refused(node)) => {
                self.reports.push_back(RepairReport::Refused { base, node });
            }
            Ok(RepairStep::Whole) => self.reports.push_back(RepairReport::Whole(base)),
            Err(error) => self.failed(base, error.to_string()),
        }
        self.settings.segment_bytes.min(super::repair::STEP_BYTES)
    }

    /// Takes the oldest report that was not taken yet.
    pub fn poll_report(&mut self) -> Option<RepairReport> {
        self.reports.pop_front()
    }

    /// Takes the oldest event of the scrub that was not taken yet.
    pub fn poll_event(&mut self) -> Option<ScrubEvent> {
        self.events.pop_front()
    }
}

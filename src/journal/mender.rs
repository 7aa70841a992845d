//! Who reads the durable files in the background: the scrub, and the repair of what it finds, as control orders it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::memory::{Disk, segment_name};
use super::repair::{FarSide, Repair, RepairStep};
use super::scrub::{ScrubEvent, ScrubSettings, Scrubber, Wrong};
use crate::frame::Predecessor;
use crate::link::{RepairOrder, RepairReport, Shared};
use crate::types::{Nanos, Position};

/// The machine: at most one file is being repaired; while one is, nothing is scrubbed.
pub struct Mender<D: Disk> {
    disk: D,
    settings: ScrubSettings,
    scrub: Scrubber<D>,
    repair: Option<Repair>,
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
        self.repair.is_some()
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
            RepairOrder::Leave => self.repair = None,
            RepairOrder::Suspect(position) => self.scrub.suspect(position),
        }
    }

    /// Whether retention has let the file go meanwhile. It works on this thread, too: nothing comes between this and a swap.
    fn let_go(&mut self, base: Position) -> bool {
        let left = self.scrub.has_left(base);
        if left {
            self.repair = None;
            self.scrub.forget(&segment_name(base));
            self.reports.push_back(RepairReport::Left(base));
        }
        left
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
            Ok(repair) => (self.repair, self.goes_on) = (Some(repair), true),
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
                self.scrub.forget(&segment_name(base));
                self.scrub.suspect(base); // it is read back, from the disk
                let (bytes, kept_at) = (mended.peer_bytes, mended.kept_at);
                self.reports.push_back(RepairReport::Swapped { base, bytes, kept_at });
            }
            Err(error) => self.failed(base, error.to_string()),
        }
    }

    fn failed(&mut self, base: Position, why: String) {
        self.repair = None;
        self.reports.push_back(RepairReport::Failed { base, why });
    }

    /// Does a bounded amount; returns the bytes it read, at least 1 if it did anything.
    pub fn step(&mut self, now: Nanos) -> u64 {
        let reach = self.scrub.reach();
        if reach > self.reach {
            self.reach = reach;
            self.reports.push_back(RepairReport::Reach(reach));
        }
        if self.repair.is_some() {
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

//! Rot in the files of nodes that run, and the scrub and repair that must undo it.

use super::world::{Event, World};
use crate::control::repair::{RepairEvent, RepairOutput};
use crate::journal::files::first_segment;
use crate::journal::parse_segment_name;
use crate::journal::scrub::ScrubEvent;
use crate::journal::snapshot::snapshots;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::{Nanos, Position};

/// Steps of the mender in one turn of the keeper.
const STEPS: usize = 4;
/// From one rot to the next, at most, ns.
const ROT_GAP_NS: u64 = 3 * Nanos::SECOND;
/// Longest burst, bytes.
const BURST_BYTES: u64 = 600;

impl World {
    /// When the next bytes rot: in worlds whose logs are many files long, for others hardly leave one.
    pub(super) fn draw_rot(&mut self) {
        if self.plan.segment_bytes > 64 * 1024 {
            return;
        }
        let at = self.now.plus(1 + self.rot_random.below(ROT_GAP_NS));
        if at.0 < self.plan.chaos_ns {
            self.schedule(at, Event::Rot);
        }
    }

    /// Some bytes of a file that a node has left change on its disk, and it does not know.
    pub(super) fn rot_running(&mut self) {
        let node = self.rot_random.below(self.plan.nodes as u64) as usize;
        let draw = self.rot_random.next_u64();
        if !self.may_rot(node) {
            return;
        }
        let Some(process) = &mut self.machines[node].process else { return };
        let (reach, segment) = (process.mender.scrub().reach(), self.plan.segment_bytes);
        let machine = &self.machines[node];
        let left = |base: &Position| base.0 + segment < reach.0;
        let names = crate::journal::Disk::list(&machine.disk).unwrap_or_default();
        let mut names: Vec<_> = names
            .iter()
            .filter(|name| parse_segment_name(name).is_some_and(|b| left(&b)))
            .collect();
        if names.is_empty() {
            return;
        }
        let name = names.swap_remove(draw as usize % names.len());
        let offset = (draw >> 8) % (SEGMENT_HEADER_BYTES as u64 + segment);
        let (length, change) = (1 + (draw >> 32) % BURST_BYTES, 1 << (draw >> 60 & 7));
        machine.disk.rot(name, offset, |bytes| {
            bytes.iter_mut().take(length as usize).for_each(|byte| *byte ^= change);
        });
        self.rotten[node] = Some(machine.clock.local(self.now));
        self.coverage.hit("rot-while-running", 1);
        self.trace
            .line(self.now, || format!("node {node}: {length} bytes of {name} rot at {offset}"));
    }

    /// One good copy is left, as for disks that are lost: a node that starts before it is repaired may lose its own.
    fn may_rot(&self, node: usize) -> bool {
        let founded = self.founders.count_ones() as usize == self.plan.voters().count();
        let others = (0..self.plan.nodes).filter(|&other| other != node && self.is_blank(other));
        founded && others.count() + 1 < self.plan.majority() && !self.is_blank(node)
    }

    /// Nothing of its log is damaged any more. But for a log's first file whose header page has rotted: what stood before it no
    /// bytes of others say, and until somebody has a snapshot above it, which takes a log that grows, nothing covers it.
    pub(super) fn is_mended(&self, node: usize) -> bool {
        let Some(process) = self.machines[node].process.as_ref() else { return false };
        let first = first_segment(&self.machines[node].disk).ok().flatten();
        let above = |base: Position| base.plus(self.plan.segment_bytes);
        let covered = |base: Position| {
            self.machines.iter().any(|machine| {
                let newest = snapshots(&machine.disk).ok().and_then(|mut all| all.pop());
                newest.is_some_and(|position| position > above(base))
            })
        };
        let mut damaged = process.repairs.damaged_segments().peekable();
        let waits = |base: Position| Some(base) == first && !covered(base);
        self.rotten[node].is_none() || (damaged.peek().is_some() && damaged.all(waits))
    }

    /// A turn of who reads the files of a node again.
    pub(super) fn mend(&mut self, node: usize, local: Nanos) {
        for _ in 0..STEPS {
            let Some(process) = &mut self.machines[node].process else { return };
            if process.mender.step(local) == 0 {
                break;
            }
            while let Some(event) = process.mender.poll_event() {
                // A whole round has read everything since, and nothing is wrong.
                if let ScrubEvent::Round(round) = &event
                    && round.flaws == 0
                    && self.rotten[node].is_some_and(|since| round.began >= since)
                {
                    self.rotten[node] = None;
                }
                self.trace.line(self.now, || format!("node {node}: scrub: {event:?}"));
            }
        }
    }

    /// What is to be repaired, as control decides.
    pub(super) fn obey_repairs(&mut self, node: usize) {
        let local = self.machines[node].clock.local(self.now);
        let Some(process) = &mut self.machines[node].process else { return };
        while let Some(report) = process.mender.poll_report() {
            process.repairs.handle(local, report);
        }
        process.repairs.tick(local);
        while let Some(process) = &mut self.machines[node].process
            && let Some(output) = process.repairs.poll()
        {
            match output {
                RepairOutput::Order(order) => process.mender.obey(order),
                RepairOutput::Ask(to, request) => {
                    self.send_lane(node, to, &super::lane::LaneLetter::Request(request));
                }
                RepairOutput::Event(event) => {
                    let repaired = matches!(event, RepairEvent::Repaired { .. });
                    let covered = matches!(event, RepairEvent::Covered { .. });
                    let unfit = matches!(event, RepairEvent::Unfit { .. });
                    self.coverage.hit("file-repaired", u64::from(repaired));
                    self.coverage.hit("repaired-by-snapshot", u64::from(covered));
                    self.coverage.hit("repair-refused", u64::from(unfit));
                    self.trace.line(self.now, || format!("node {node}: {event}"));
                }
            }
        }
        let Some(process) = &mut self.machines[node].process else { return };
        if let Some(worker) = process.worker.as_mut().filter(|_| process.mender.take_brought()) {
            worker.brought();
        }
    }
}

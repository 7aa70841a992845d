//! Snapshots that simulated nodes take, segments that leave their logs, and snapshots that they take of each other.

use std::sync::Arc;

use super::ledger::Ledger;
use super::machine::{GROUP, limits};
use super::plan::Plan;
use super::world::World;
use crate::control::holdings::Holdings;
use crate::control::lane::{Fetched, LaneAnswer, LaneInput, SnapshotRequest};
use crate::journal::incoming::{IncomingSettings, Piece, adopt, read_piece};
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::retention::RetentionLimits;
use crate::limits::LANE_PIECE_BYTES;
use crate::link::Shared;
use crate::replica::retainer::{Retainer, RetainerSettings, RetentionEvent};
use crate::replica::snapshotter::{SnapshotEvent, SnapshotSettings, Snapshotter};
use crate::types::{Nanos, NodeId, Position, Timestamp};

/// The replay worker: it takes snapshots, and lets segments go.
pub(super) struct Worker {
    snapshotter: Snapshotter<MemoryDisk, Ledger>,
    retainer: Retainer<MemoryDisk>,
    /// Where the logs of the others end, as far as they said.
    pub(super) holdings: Holdings,
}

impl Worker {
    /// Of a node in a world in which segments leave.
    pub(super) fn of(plan: &Plan, node: usize, disk: &MemoryDisk, shared: &Shared) -> Option<Self> {
        let bytes = Some(plan.retention_bytes).filter(|&bytes| bytes > 0)?;
        let settings = SnapshotSettings {
            group: GROUP,
            segment_bytes: plan.segment_bytes,
            limits: limits(plan),
            interval_bytes: bytes,
            kept: 2,
        };
        let first = Ledger::new(Arc::default(), plan.effects());
        let (disk, shared) = (disk.clone(), Arc::clone(shared));
        let snapshotter = Snapshotter::new(disk.clone(), Arc::clone(&shared), settings, first);
        let settings = RetainerSettings {
            group: GROUP,
            segment_bytes: plan.segment_bytes,
            limits: RetentionLimits { size_bytes: bytes, age_ns: 0, member_bytes: 2 * bytes },
            mutants: plan.mutants(),
        };
        let nodes = (0..plan.nodes as u16).map(NodeId);
        Some(Self {
            snapshotter: snapshotter.ok()?,
            retainer: Retainer::new(disk, shared, settings, None),
            holdings: Holdings::new(NodeId(node as u16), nodes),
        })
    }
}

impl Worker {
    /// A snapshot of another node has come into the folder.
    pub(super) fn brought(&mut self) {
        let _ = self.snapshotter.brought(); // a disk that fails now is looked at later
    }
}

impl World {
    /// A turn of the replay worker.
    pub(super) fn step_worker(&mut self, node: usize, local: Nanos) {
        let Some(worker) = self.process(node).worker.as_mut() else { return };
        let (mut taken, mut left, mut damaged) = (0, 0, 0);
        worker.snapshotter.step(local, &mut |_| Ok(()));
        while let Some(event) = worker.snapshotter.poll_event() {
            taken += u64::from(matches!(event, SnapshotEvent::Taken { .. }));
        }
        let members: Vec<_> = worker.holdings.iter().collect();
        worker.retainer.step(local, Timestamp(local.0), &members, &mut |_| Ok(()));
        while let Some(event) = worker.retainer.poll_event() {
            match event {
                RetentionEvent::Left { segments, .. } => left += segments,
                RetentionEvent::Damaged { .. } => damaged += 1,
                RetentionEvent::NotArchived { .. } | RetentionEvent::NotRemoved { .. } => {}
            }
        }
        if damaged > 0 {
            let _ = worker.snapshotter.look_again(); // a disk that fails now is looked at later
        }
        self.coverage.hit("snapshot-taken", taken);
        self.coverage.hit("segment-left", left);
    }

    fn incoming_settings(&self, node: usize) -> IncomingSettings {
        let segment_bytes = self.machines[node].segment_bytes;
        IncomingSettings { group: GROUP, segment_bytes, mutants: self.plan.mutants() }
    }

    /// A part of a snapshot for one that asks for it. A disk that cannot be read has none.
    pub(super) fn serve_snapshot(&mut self, node: usize, request: &SnapshotRequest) -> LaneAnswer {
        let SnapshotRequest { number, at_most, from } = *request;
        let settings = self.incoming_settings(node);
        let disk = &self.machines[node].disk;
        let piece = read_piece(disk, &settings, at_most, from, LANE_PIECE_BYTES);
        LaneAnswer::Part { number, piece: piece.unwrap_or_default() }
    }

    /// A part arrives.
    pub(super) fn take_snapshot(&mut self, node: usize, number: u64, piece: &Piece) {
        let disk = self.machines[node].disk.clone();
        let what = if piece.position == Position(0) {
            Fetched::Nothing
        } else {
            let taken = self.process(node).incoming.take(&disk, piece);
            taken.map_or(Fetched::Failed, Fetched::from)
        };
        self.tell_lane(node, LaneInput::Fetched { number, what });
    }

    pub(super) fn resume_snapshot(&mut self, node: usize, number: u64) {
        let disk = self.machines[node].disk.clone();
        let taken = self.process(node).incoming.resume(&disk);
        let what = taken.map_or(Fetched::Failed, Fetched::from);
        self.tell_lane(node, LaneInput::Fetched { number, what });
    }

    pub(super) fn discard_snapshot(&mut self, node: usize) {
        let disk = self.machines[node].disk.clone();
        let _ = self.process(node).incoming.discard(&disk); // what stays is reported, and thrown away, again
    }

    /// All of a snapshot is here: the process stops for it, in order, unless its own log goes further.
    pub(super) fn install_snapshot(&mut self, node: usize, position: Position) {
        let process = self.process(node);
        let seen = process.core.observe();
        if seen.commit.0 >= position || seen.tail.position >= position {
            return self.tell_lane(node, LaneInput::NotInstalled);
        }
        process.renews = Some(position);
        self.stop(node);
    }

    /// The process has stopped, and what it said is on its disk: a snapshot that goes further takes the place of its log.
    pub(super) fn renew(&mut self, node: usize, tail: Position) {
        let Some(position) = self.process(node).renews.filter(|&position| position > tail) else {
            return;
        };
        let machine = &self.machines[node];
        if adopt(&machine.disk, machine.segment_bytes, position).is_ok() {
            self.coverage.hit("snapshot-installed", 1);
        }
    }
}

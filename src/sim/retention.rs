//! Snapshots that simulated nodes take, segments that leave their logs, and snapshots that they take of each other.

use super::machine::{GROUP, Process};
use super::world::World;
use crate::control::lane::{Fetched, LaneAnswer, LaneInput, SnapshotRequest};
use crate::journal::incoming::{IncomingSettings, Piece, adopt, read_piece};
use crate::limits::LANE_PIECE_BYTES;
use crate::types::Position;

impl World {
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

    /// All of a snapshot is here: the process ends for it, unless its own log goes further. Returns whether it did.
    pub(super) fn install_snapshot(&mut self, node: usize, position: Position) -> bool {
        let Process { core, .. } = self.process(node);
        let seen = core.observe();
        if seen.commit.0 >= position || seen.tail.position >= position {
            self.tell_lane(node, LaneInput::NotInstalled);
            return false;
        }
        let machine = &self.machines[node];
        if adopt(&machine.disk, machine.segment_bytes, position).is_ok() {
            self.coverage.hit("snapshot-installed", 1);
        }
        true
    }
}

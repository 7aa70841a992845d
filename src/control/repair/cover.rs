//! What is missing of a damaged file has left all other logs: it is covered by a snapshot instead, this node's own or one of
//! another node, and the file leaves.
//!
//! Only when every other node was asked for the bytes in vain, and one at least said that they have left it. A node that
//! does not answer may have them: it is waited for through some attempts, but not for ever, for the log grows meanwhile.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{NotRepaired, RepairEvent, RepairOutput, Repairs, Wanted};
use crate::control::lane::{LaneRequest, SnapshotRequest};
use crate::link::{RepairOrder, SnapshotPiece, SnapshotTaken};
use crate::types::{Nanos, NodeId, Position};

/// After so many attempts nobody is waited for who does not answer.
const SILENT_TRIES: u32 = 3;

/// How a file is done without.
#[derive(Clone, Debug, Default)]
pub(super) struct Instead {
    /// Position of the snapshot that comes from the node that is asked, and how much of it is here, bytes.
    position: Option<Position>,
    end: u64,
    /// Whose did not fit, or who had none.
    refused: BTreeSet<NodeId>,
    /// From whom one was taken.
    taken: Option<NodeId>,
}

impl Repairs {
    /// No other node gave what is missing from `from` on.
    pub(super) fn nobody(&mut self, now: Nanos, from: Position) {
        let Some(current) = &mut self.current else { return };
        let tries = self.cases.get(&current.base).map_or(0, |case| case.failures);
        if current.gone.is_empty() || (current.silent && tries < SILENT_TRIES) {
            return self.give_up(now, NotRepaired::Nobody { from });
        }
        self.cover();
    }

    /// No bytes help: what stands before the first entry of the log's first file is not known.
    pub(super) fn unjoined(&mut self) {
        if let Some(current) = &mut self.current {
            current.gone.clone_from(&self.nodes);
            self.cover();
        }
    }

    fn cover(&mut self) {
        if let Some(current) = &mut self.current {
            let base = current.base;
            current.instead.get_or_insert_default();
            self.order(RepairOrder::Cover(base));
        }
    }

    /// No snapshot of this node's own covers the file.
    pub(super) fn uncovered(&mut self, now: Nanos) {
        let instead = self.current.as_ref().and_then(|current| current.instead.as_ref());
        match instead {
            Some(instead) if instead.taken.is_none() => self.fetch(now),
            _ => self.give_up(now, NotRepaired::NoSnapshot),
        }
    }

    /// Asks the next node for its newest snapshot of what this one has.
    pub(super) fn fetch(&mut self, now: Nanos) {
        let at_most = self.certain.unwrap_or(self.reach);
        let Some(current) = &mut self.current else { return };
        let Some(instead) = &mut current.instead else { return };
        (instead.position, instead.end) = (None, 0);
        let next = current.gone.iter().find(|node| !instead.refused.contains(*node)).copied();
        let Some(node) = next else { return self.give_up(now, NotRepaired::NoSnapshot) };
        self.ask_snapshot(now, node, at_most, 0);
    }

    fn ask_snapshot(&mut self, now: Nanos, node: NodeId, at_most: Position, from: u64) {
        let number = self.question(now, node, Wanted::Snapshot);
        let request = LaneRequest::Snapshot(SnapshotRequest { number, at_most, from });
        self.outputs.push_back(RepairOutput::Ask(node, request));
    }

    /// That node's snapshot does not help.
    pub(super) fn refuse_snapshot(&mut self, now: Nanos, node: NodeId) {
        let instead = self.current.as_mut().and_then(|current| current.instead.as_mut());
        if let Some(instead) = instead {
            instead.refused.insert(node);
            self.fetch(now);
        }
    }

    /// Some of a snapshot came.
    pub(super) fn on_piece(&mut self, now: Nanos, node: NodeId, piece: &SnapshotPiece) {
        let (at_most, segment_bytes) = (self.certain.unwrap_or(self.reach), self.segment_bytes);
        let Some(current) = &mut self.current else { return };
        let Some(instead) = &mut current.instead else { return };
        let base = current.base;
        let covers = piece.position > base.plus(segment_bytes) && piece.position <= at_most;
        let same = instead.position.is_none_or(|known| known == piece.position);
        if !covers || !same || piece.from != instead.end || piece.bytes.is_empty() {
            // It has none, or the one that came has gone meanwhile.
            return self.refuse_snapshot(now, node);
        }
        instead.position = Some(piece.position);
        current.question = None;
        self.taken_bytes += piece.bytes.len() as u64;
        let piece = piece.clone();
        self.order(RepairOrder::Piece { base, node, piece });
    }

    /// What a piece came to.
    pub(super) fn took(&mut self, now: Nanos, node: NodeId, what: SnapshotTaken) {
        let Some(current) = &mut self.current else { return };
        let Some(instead) = &mut current.instead else { return };
        let base = current.base;
        match what {
            SnapshotTaken::Part { position, end, .. } => {
                instead.end = end;
                self.ask_snapshot(now, node, position, end);
            }
            SnapshotTaken::Whole(_) => {
                instead.taken = Some(node);
                self.cover();
            }
            SnapshotTaken::Damaged(_) => {
                self.outputs.push_back(RepairOutput::Event(RepairEvent::Unfit { base, node }));
                self.refuse_snapshot(now, node);
            }
        }
    }

    /// The file has left, with all up to `through`.
    pub(super) fn covered(&mut self, through: Position, by: Position, segments: u64) {
        let Some(current) = self.current.take() else { return };
        self.cases.retain(|base, _| *base > through);
        let (base, node) = (current.base, current.instead.and_then(|instead| instead.taken));
        let event = RepairEvent::Covered { base, by, node, segments };
        self.outputs.push_back(RepairOutput::Event(event));
    }
}

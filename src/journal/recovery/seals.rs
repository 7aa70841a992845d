//! When the seals that are gone were those that mattered.

use std::collections::BTreeMap;

use super::scan::{Found, Marks};
use super::{RecoverySettings, Stop};
use crate::journal::node_state::NodeState;
use crate::journal::recovery_table::{Decision, Finding};
use crate::journal::segment_file::seal_base;
use crate::types::Position;

/// What is known of the directory once its log has been followed.
pub(super) struct Known<'a> {
    pub(super) settings: &'a RecoverySettings,
    pub(super) files: &'a BTreeMap<Position, Found>,
    pub(super) marks: &'a Marks,
    pub(super) previous: Option<&'a NodeState>,
}

impl Known<'_> {
    /// The file whose two damaged seals may have said that what is about to be cut at `tail` is durable. None: nothing is
    /// cut, or the seals that say how far all is certain are there.
    pub(super) fn lost_seals(
        &self,
        stop: Stop,
        decision: Decision,
        tail: Position,
    ) -> Option<Position> {
        let RecoverySettings { log_start, segment_bytes, .. } = *self.settings;
        let lowest = match decision {
            // The record of a cut is newer than all seals that are left: was it finished, or were its own seals lost?
            Decision::CleanEnd if stop.finding == Finding::CutRecorded => {
                seal_base(tail, log_start, segment_bytes)
            }
            Decision::CutTorn | Decision::CutProvisional => self.newest_seal_at(),
            Decision::Keep | Decision::CleanEnd | Decision::Damage => return None,
        };
        // The log reaches the file, or stops right in front of it.
        let reached = self
            .files
            .range(lowest..)
            .take_while(|(base, _)| **base <= tail || stop.finding == Finding::CutRecorded);
        let lost = |(base, found): &(&Position, &Found)| {
            found.seals_lost && !self.torn_by_a_cut(**base, found)
        };
        reached.filter(lost).map(|(&base, _)| base).last()
    }

    /// Base of the file with the newest seal that is left.
    fn newest_seal_at(&self) -> Position {
        let seals = self.files.iter().filter_map(|(&base, found)| Some((found.seal?, base)));
        let newest = seals.max_by_key(|(seal, _)| seal.order());
        newest.map_or(self.settings.log_start, |(_, base)| base)
    }

    /// Files above a cut are blanked, with both seals, once the cut's own seal is durable; none was begun after it.
    fn torn_by_a_cut(&self, base: Position, found: &Found) -> bool {
        let cut = self.previous.and_then(|state| state.truncation);
        cut.is_some_and(|cut| {
            let begun_after = found.header.is_some_and(|header| header.cut_epoch >= cut.epoch);
            self.marks.limit.is_none() && base >= cut.at.position && !begun_after
        })
    }
}

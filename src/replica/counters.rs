//! What the core counts, and how others get to see it.

use core::sync::atomic::Ordering::{Relaxed, Release};

use super::core::{Core, Work};
use crate::journal::SegmentMemory;
use crate::service::Service;
use crate::stream::DataOutcome;
use crate::stream::network::Network;

/// Counters of the core. Plain numbers: copied to the shared words every few milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counters {
    pub(super) commands_applied: u64,
    pub(super) back_pressure: u64,
    pub(super) duplicates: u64,
    pub(super) gaps_refused: u64,
    pub(super) datagrams_received: u64,
    pub(super) bytes_received: u64,
    pub(super) naks_sent: u64,
    pub(super) naks_received: u64,
    pub(super) repairs_sent: u64,
    pub(super) dropped_garbage: u64,
    pub(super) dropped_version: u64,
    pub(super) dropped_group: u64,
    pub(super) dropped_stale: u64,
    pub(super) dropped_window: u64,
    pub(super) bad_frames: u64,
    pub(super) facts_lost: u64,
    pub(super) quorum_losses: u64,
    pub(super) no_quorum_refusals: u64,
    pub(super) no_space_refusals: u64,
    /// Datagrams passed on between clients and the leader.
    pub(super) forwarded: u64,
    /// Local queries answered, and refused.
    pub(super) local_answers: u64,
    pub(super) local_refusals: u64,
}

impl Counters {
    /// Counts what became of a datagram with bytes.
    pub(super) fn count(&mut self, outcome: DataOutcome) {
        match outcome {
            DataOutcome::Placed { .. } | DataOutcome::Duplicate => {}
            DataOutcome::BeyondWindow | DataOutcome::TooManyGaps => self.dropped_window += 1,
        }
    }
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Shares how far the log goes: after the bytes themselves, with release ordering.
    pub(super) fn share_positions(&mut self) {
        let words = self.shared.words();
        let tail = self.log.tail();
        words.cut_epoch.store(u64::from(self.cut_epoch.0), Release);
        words.tail_sequence.store(tail.sequence.0, Relaxed);
        let last = self.log.last_leadership();
        words.last_generation.store(last.generation.to_u64(), Relaxed);
        words.last_term.store(u64::from(last.term.0), Relaxed);
        words.verified.store(tail.position.0, Release);
        words.commit.store(self.commit.0.0, Release);
        self.wake_sync = true;
    }

    /// How far the state is: also what a start began with.
    pub(super) fn share_applied(&self) {
        let words = self.shared.words();
        words.applied.store(self.applied.0.0, Relaxed);
        words.applied_sequence.store(self.state.sequence().0, Relaxed);
    }

    /// Copies the counters.
    pub(super) fn publish_counters(&mut self) {
        let words = self.shared.words();
        let counters = &self.counters;
        words.hot_base.store(self.log.hot_base().0, Relaxed);
        words.sessions.store(self.state.sessions().count() as u64, Relaxed);
        words.commands_applied.store(counters.commands_applied, Relaxed);
        words.back_pressure.store(counters.back_pressure, Relaxed);
        words.duplicates.store(counters.duplicates, Relaxed);
        words.gaps_refused.store(counters.gaps_refused, Relaxed);
        words.datagrams_received.store(counters.datagrams_received, Relaxed);
        words.bytes_received.store(counters.bytes_received, Relaxed);
        words.naks_sent.store(counters.naks_sent, Relaxed);
        words.naks_received.store(counters.naks_received, Relaxed);
        words.repairs_sent.store(counters.repairs_sent, Relaxed);
        words.bytes_duplicate.store(self.receiver.counters().duplicate_bytes, Relaxed);
        words.dropped_garbage.store(counters.dropped_garbage, Relaxed);
        words.dropped_version.store(counters.dropped_version, Relaxed);
        words.dropped_group.store(counters.dropped_group, Relaxed);
        words.dropped_stale.store(counters.dropped_stale, Relaxed);
        words.dropped_window.store(counters.dropped_window, Relaxed);
        words.bad_frames.store(counters.bad_frames, Relaxed);
        words.facts_lost.store(counters.facts_lost, Relaxed);
        words.quorum_losses.store(counters.quorum_losses, Relaxed);
        words.no_quorum_refusals.store(counters.no_quorum_refusals, Relaxed);
        words.no_space_refusals.store(counters.no_space_refusals, Relaxed);
        words.forwarded.store(counters.forwarded, Relaxed);
        words.local_answers.store(counters.local_answers, Relaxed);
        words.local_refusals.store(counters.local_refusals, Relaxed);
    }

    /// Shares what this node is doing.
    pub(super) fn publish_role(&mut self) {
        let words = self.shared.words();
        words.generation.store(self.fence.generation.to_u64(), Relaxed);
        words.term.store(u64::from(self.fence.term.0), Relaxed);
        words.leader.store(self.leader().map_or(0, |node| u64::from(node.0) + 1), Relaxed);
        let role = match &self.work {
            Work::Idle | Work::Puller(_) | Work::Halted => 0,
            Work::Follower(_) => 1,
            Work::Leader(leading) if leading.over => 0,
            Work::Leader(_) => 2,
        };
        words.role.store(role, Relaxed);
    }
}

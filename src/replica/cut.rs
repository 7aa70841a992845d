//! The core's half of the cut protocol (DESIGN §5): stop, let sync save and record the suffix, lower the log, go on.

use core::sync::atomic::Ordering::Release;

use super::core::{Core, Now, Work};
use crate::frame::Predecessor;
use crate::journal::SegmentMemory;
use crate::link::CoreToSync;
use crate::service::Service;
use crate::stream::network::Network;
use crate::types::{CutEpoch, Durable, Position};

/// A cut under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cutting {
    at: Predecessor,
    end: Position,
    asked: bool,
}

impl Cutting {
    pub(super) fn new(at: Predecessor, end: Position) -> Self {
        Self { at, end, asked: false }
    }

    /// Where the log ends afterwards.
    pub(super) fn position(&self) -> Position {
        self.at.position
    }
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Asks sync to save what is cut; repeated until its mailbox takes the request.
    pub(super) fn continue_cut(&mut self) {
        let Some(cutting) = &mut self.cutting else { return };
        if cutting.asked {
            return;
        }
        if self.link.to_sync.is_full() {
            return;
        }
        assert!(self.applied.0 <= cutting.at.position, "what was applied is never cut here");
        cutting.asked = true;
        self.cut_epoch = CutEpoch(self.cut_epoch.0 + 1);
        // Sync reads these words: the epoch first, then the position that belongs to it.
        let words = self.shared.words();
        words.cut_epoch.store(u64::from(self.cut_epoch.0), Release);
        words.verified.store(cutting.at.position.0, Release);
        let request = CoreToSync::Cut { at: cutting.at, end: cutting.end, epoch: self.cut_epoch };
        assert!(
            self.link.to_sync.try_send(request).is_ok(),
            "only the core sends, and there was room"
        );
        self.wake_sync = true;
    }

    /// Saved, recorded and cut on the disk: now in memory.
    pub(super) fn cut_done(&mut self, epoch: CutEpoch, now: Now) {
        let Some(cutting) = self.cutting.take_if(|cutting| cutting.asked) else { return };
        assert_eq!(epoch, self.cut_epoch, "one cut at a time");
        self.log.cut(cutting.at).expect("the match point is a frame's end in the hot log");
        self.durable = Durable(self.durable.0.min(cutting.at.position));
        self.share_positions();
        match self.work {
            Work::Follower(ref following) if following.is_behind() => self.cut_for_take_over(),
            Work::Follower(_) => self.enter_stream(now),
            Work::Puller(_) => self.cut_for_take_over(),
            Work::Leader(_) | Work::Idle | Work::Halted => {}
        }
    }
}

//! A node that starts again with a snapshot of another node, because the log that it needs has left them all.

use std::sync::atomic::Ordering;

use super::control_thread::{ControlThread, Ended};
use super::environment::Storage;
use crate::control::lane::LaneInput;
use crate::journal::incoming::adopt;
use crate::types::{Nanos, Position};

/// What the control thread needs for it.
pub(super) struct Renewal<D> {
    pub(super) disk: D,
    pub(super) segment_bytes: u64,
    /// Position of the snapshot, all of which is here.
    pub(super) asked: Option<Position>,
}

impl<E: Storage> ControlThread<E> {
    /// Stops for a snapshot that goes further than all that this node has. None: there is none, or the node goes on.
    ///
    /// It is stopped first, and what it said is on its disk, before the snapshot is decided upon: from then on its log does not
    /// grow, so that nothing it acknowledges is replaced.
    pub(super) fn renew(&mut self, now: Nanos) -> Option<Ended> {
        let position = self.renewal.asked.take()?;
        let words = self.shared.words();
        let reaches = [&words.commit, &words.verified].map(|word| word.load(Ordering::Acquire));
        if reaches.into_iter().any(|end| end >= position.0) {
            self.lane.machine.handle(now, LaneInput::NotInstalled);
            return None;
        }
        let ended = self.stop_core(now);
        if ended != Ended::Orderly {
            return Some(ended);
        }
        let end = self.shared.words().verified.load(Ordering::Acquire);
        if end < position.0 {
            match adopt(&self.renewal.disk, self.renewal.segment_bytes, position) {
                Ok(()) => {
                    let text = format!(
                        "the snapshot at {position} takes the place of this log, which ends at {end}"
                    );
                    self.events.line(1154, &text);
                }
                Err(error) => {
                    let text = format!("the snapshot at {position} was not put in place: {error}");
                    self.events.line(1155, &text);
                }
            }
        }
        Some(Ended::Renewed)
    }
}

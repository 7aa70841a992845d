//! The durability ladder while it changes: an entry of the log says what is in force, and every node goes by what it applied.
//!
//! While a change is on its way its leader counts by the stricter of both for each role: what is looser holds when it is
//! committed, what is stricter from the moment it was asked for. A follower that has not heard of it yet is no danger: where the
//! policy says disk, the leader counts nothing beyond the follower's disk, whatever that promises.

use core::sync::atomic::Ordering::Relaxed;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::core::{Core, Now, Work};
use crate::frame::Kind;
use crate::frame::payload::{GroupSetting, SETTING_DURABILITY};
use crate::journal::SegmentMemory;
use crate::link::{CoreToControl, Durability};
use crate::service::Service;
use crate::session::State;
use crate::stream::network::Network;
use crate::types::{Position, Sequence};

/// What the entries that `state` was given say; none: nothing that is known here.
#[must_use]
pub fn in_force<S: Service>(state: &State<S>) -> Option<Durability> {
    state.durability().and_then(Durability::of_value)
}

/// The entry that says so.
pub(super) fn setting(durability: Durability) -> GroupSetting {
    GroupSetting {
        key: U32::new(SETTING_DURABILITY),
        reserved: U32::new(0),
        value: U64::new(durability.value()),
    }
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// Control wants another durability. Without room for the entry nothing changes: who asked sees that, and asks again.
    pub(super) fn set_durability(&mut self, durability: Durability, now: Now) {
        let ready = match &self.work {
            Work::Leader(leading) => leading.opened && leading.accepts(now.at),
            _ => false,
        };
        if !ready || self.coming() == durability {
            return;
        }
        let before = self.counted_durability();
        if self.append_entry(now, Kind::GroupSetting, &[setting(durability).as_bytes()]) {
            let end = self.log.tail().position;
            if let Work::Leader(leading) = &mut self.work {
                // A change of a change: what was asked for last holds in the end, the strictest of all until then.
                leading.coming = Some((end, durability));
                leading.strictest = before.stricter(durability);
            }
        }
    }

    /// What holds when everything in the log is applied.
    fn coming(&self) -> Durability {
        match &self.work {
            Work::Leader(leading) => leading.coming.map_or(self.durability, |(_, coming)| coming),
            _ => self.durability,
        }
    }

    /// The entry that says what is coming, again.
    pub(super) fn coming_durability(&self) -> GroupSetting {
        setting(self.coming())
    }

    /// What a leader counts by.
    pub(super) fn counted_durability(&self) -> Durability {
        match &self.work {
            Work::Leader(leading) if leading.coming.is_some() => leading.strictest,
            _ => self.durability,
        }
    }

    /// Entries were applied up to `applied`, the last about durability with this number.
    pub(super) fn durability_applied(&mut self, applied: Position, sequence: Sequence) {
        if let Work::Leader(leading) = &mut self.work
            && leading.coming.is_some_and(|(end, _)| end <= applied)
        {
            leading.coming = None;
        }
        let Some(now) = in_force(&self.state) else { return };
        let before = core::mem::replace(&mut self.durability, now);
        if before != now {
            self.share_durability();
            self.tell(CoreToControl::Durability { before, now, sequence });
        }
    }

    pub(super) fn share_durability(&self) {
        self.shared.words().durability.store(self.durability.value(), Relaxed);
    }
}

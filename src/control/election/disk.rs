//! Leading on a bad disk: the lead goes to a node whose disk is better, as long as there is one.

use core::cmp::Reverse;

use super::{Election, Output, Phase};
use crate::control::disk::DiskState;
use crate::control::event::{Event, TransferFailure};
use crate::control::message::Message;
use crate::link::{ControlToCore, Rung};
use crate::types::Nanos;

/// A leader on a bad disk looks this often for a node on a better one, ns.
const RELIEVE_AGAIN_NS: u64 = Nanos::SECOND;
/// What befalls its disk may befall the others' too, a moment later: so long it waits for their word, ns. Where commands wait
/// for the disk it is the shorter one.
const RELIEVE_AFTER_NS: u64 = 300 * Nanos::MILLISECOND;
const GIVE_UP_AFTER_NS: u64 = 100 * Nanos::MILLISECOND;

impl Election {
    /// Takes how this node's disk is. The others are told at once when it has changed.
    pub fn set_disk(&mut self, now: Nanos, disk: DiskState) {
        if disk != self.disk {
            let stalled = disk == DiskState::Stalled;
            let after_ns = if stalled { GIVE_UP_AFTER_NS } else { RELIEVE_AFTER_NS };
            self.disk = disk;
            (self.announce_at, self.relieve_at) = (now, now.plus(after_ns));
        }
    }

    /// How this node's disk is.
    #[must_use]
    pub fn disk(&self) -> DiskState {
        self.disk
    }

    /// Its disk is a reason to look for another leader. One that stands still is, where somebody waits for it, or the log can
    /// go on no more.
    pub(super) fn wants_relief(&self) -> bool {
        let waits = self.settings.durability.leader == Rung::Disk || self.out_of_segments;
        match self.disk {
            DiskState::Good => false,
            DiskState::Low | DiskState::Full => true,
            DiskState::Stalled => waits,
        }
    }

    /// The best of those who follow this leader and may lead, among those with such a disk.
    pub(super) fn best_follower(&self, disk: impl Fn(DiskState) -> bool) -> Option<usize> {
        let Phase::Leading(reign) = &self.phase else { return None };
        let members = self.settings.members.iter().enumerate();
        let could = members.filter(|(index, member)| {
            let known = self.known[*index];
            *index != self.own
                && member.is_electable()
                && known.present
                && known.following == Some(reign.leadership())
                && disk(known.disk)
        });
        let best = could.max_by_key(|(index, member)| {
            (Reverse(self.known[*index].disk), member.priority, Reverse(*index))
        });
        best.map(|(index, _)| index)
    }

    /// Hands the lead to a node with a better disk. Without one this node leads on: it is as good as any.
    pub(super) fn relieve(&mut self, now: Nanos) {
        self.relieve_at = now.plus(RELIEVE_AGAIN_NS);
        let own = self.disk;
        let Some(to) = self.best_follower(|disk| disk < own) else { return };
        if own == DiskState::Stalled {
            return self.give_up(now, to);
        }
        let node = self.settings.members[to].node;
        // How it ends is told by an event; if it came to nothing it is tried again.
        let _ = self.transfer(now, node);
    }

    /// A planned hand-over wants a write of this node's own state: on a disk that stands still it would stand still, too. So
    /// the leadership just ends, and the other is asked to stand at once; the clients wait for an election, and no longer.
    fn give_up(&mut self, now: Nanos, to: usize) {
        let Some(leadership) = self.role() else { return };
        let node = self.settings.members[to].node;
        self.fail_transfer(TransferFailure::LostQuorum);
        self.outputs.push_back(Output::ToCore(ControlToCore::GiveUp));
        self.event(Event::GaveUpLead { to: node });
        self.send(node, leadership, Message::Stand);
        let timeout_ns = self.settings.leader_timeout_ns;
        self.not_before = now.plus(timeout_ns + self.draw(timeout_ns / 2));
        self.look(now);
    }
}

//! Those who are not on the list, or not of this history.

use super::members::Known;
use super::{Election, Intent, Mutant, Target};
use crate::control::event::IntruderReason;
use crate::control::message::{Envelope, Message, Standing};
use crate::types::{Leadership, Nanos, NodeId};

impl Election {
    /// A node that is not on this node's list, which may be an older or a newer one than the other's: who stands or leads in
    /// this generation is judged as anybody is. But its term alone disturbs nobody: it may have been removed.
    pub(super) fn on_stranger(&mut self, now: Nanos, envelope: Envelope) {
        let Envelope { from, leadership, message } = envelope;
        let same = leadership.generation == self.promised.generation;
        if !self.is_founded() || !same || self.has(Mutant::JudgeByList) {
            return;
        }
        match message {
            Message::Lead { .. } => self.called(now, Target { leadership, leader: from }, None),
            Message::VoteRequest { recency, instance, transfer: false } => {
                let candidate = from;
                let intent =
                    Intent::Vote { candidate, leadership, recency, instance, granted: false };
                self.on_vote_request(now, intent, false);
            }
            _ => {}
        }
    }

    /// What is known of a node is void: it is not one of this group as it is now.
    pub(super) fn forget(&mut self, node: NodeId) {
        if let Some(index) = self.settings.index_of(node) {
            let founder = self.known[index].founder;
            self.known[index] = Known { founder, ..Known::default() };
        }
    }

    /// Why a message is not for this group's history.
    pub(super) fn misfit(
        &self,
        leadership: Leadership,
        message: Message,
    ) -> Option<IntruderReason> {
        // D3: what two generations say is never mixed. A node without state has none yet.
        let stateless = match message {
            Message::Announce(announce) => announce.standing == Standing::Stateless,
            Message::Opinion(opinion) => opinion.standing == Standing::Stateless,
            Message::Vote { standing, .. } => standing == Standing::Stateless,
            Message::Canvass { .. } => true, // it binds nobody
            _ => false,
        };
        let (theirs, ours) = (leadership.generation, self.promised.generation);
        (self.is_founded() && !stateless && theirs != ours && !self.has(Mutant::MixGenerations))
            .then_some(IntruderReason::Generation { theirs, ours })
    }
}

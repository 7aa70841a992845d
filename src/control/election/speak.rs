//! Signs of life: what a node says of itself at intervals, and who has fallen silent.

use super::{CALL_NS, Election, Phase};
use crate::control::event::Event;
use crate::control::message::{Announce, Message};
use crate::types::{Nanos, NodeId, Position};

/// Sign of life between members that are settled, ns.
const SIGN_OF_LIFE_NS: u64 = 500 * Nanos::MILLISECOND;
/// Silence after which a member is said to have left, ns.
const LEFT_NS: u64 = 3 * Nanos::SECOND;

impl Election {
    /// What is said at intervals, and who has fallen silent.
    pub(super) fn speak(&mut self, now: Nanos) {
        for index in 0..self.known.len() {
            let known = &mut self.known[index];
            if known.present && known.heard.is_some_and(|at| now.since(at) > LEFT_NS) {
                known.present = false;
                known.following = None;
                let node = self.settings.members[index].node;
                self.event(Event::Left { node });
            }
        }
        if now >= self.announce_at {
            let settled = matches!(self.phase, Phase::Leading(_) | Phase::Following { .. });
            self.announce_at = now.plus(if settled { SIGN_OF_LIFE_NS } else { CALL_NS });
            let announce = self.announcement();
            self.broadcast(announce);
        }
    }

    pub(super) fn announcement(&self) -> Message {
        let (standing, instance) = (self.standing, self.settings.instance);
        Message::Announce(Announce {
            standing,
            instance,
            holds: Position::default(),
            disk: self.disk,
        })
    }

    pub(super) fn announce_to(&mut self, node: NodeId) {
        let announce = self.announcement();
        self.send(node, self.current(), announce);
    }

    pub(super) fn broadcast(&mut self, message: Message) {
        for index in 0..self.settings.members.len() {
            let node = self.settings.members[index].node;
            if index != self.own {
                self.send(node, self.current(), message);
            }
        }
    }
}

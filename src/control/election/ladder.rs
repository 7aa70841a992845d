//! The durability ladder while it changes: what this node may promise follows what its core applied.

use core::fmt;

use super::{Election, Mutant, Output, Phase};
use crate::control::event::Event;
use crate::control::message::Standing;
use crate::link::{ControlToCore, Durability, Promise, Rung};
use crate::types::Sequence;

/// Why a durability is not asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NotLeading;

impl fmt::Display for NotLeading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this node does not lead")
    }
}

impl core::error::Error for NotLeading {}

impl Election {
    /// Asks for another durability; it is in force when the core says so.
    ///
    /// # Errors
    /// `NotLeading`: it is the leader's to write it into the log.
    pub fn set_durability(&mut self, durability: Durability) -> Result<(), NotLeading> {
        if !matches!(self.phase, Phase::Leading(_)) {
            return Err(NotLeading);
        }
        self.outputs.push_back(Output::ToCore(ControlToCore::SetDurability(durability)));
        Ok(())
    }

    /// In force, as far as this node has heard.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.settings.durability
    }

    /// Another one is in force.
    pub(super) fn on_durability(&mut self, before: Durability, now: Durability, at: Sequence) {
        self.settings.durability = now;
        self.event(Event::DurabilityChanged { before, now, sequence: at });
        if let Some(rung) = self.rung() {
            self.may_ack(rung);
        }
    }

    /// Tells the core whether it may promise what is only in memory.
    pub(super) fn may_ack(&mut self, rung: Rung) {
        let clean = self.standing == Standing::Clean;
        let recorded = self.may_ack_memory || self.has(Mutant::AckMemoryUnrecorded);
        let may = rung == Rung::Memory && clean && recorded;
        self.outputs.push_back(Output::ToCore(ControlToCore::MayAckMemory(may)));
    }

    /// Of the role that it has.
    fn rung(&self) -> Option<Rung> {
        match self.phase {
            Phase::Leading(_) => Some(self.settings.durability.leader),
            Phase::Following { .. } => Some(self.settings.durability.follower),
            _ => None,
        }
    }

    /// D20: a role that was entered while the policy said disk may promise what is in memory only when the node state says so
    /// durably. Until then it promises what is on its disk.
    pub(super) fn allow_memory(&mut self) {
        let wanted = self.rung() == Some(Rung::Memory)
            && self.standing == Standing::Clean
            && !self.may_ack_memory
            && !self.has(Mutant::AckMemoryUnrecorded);
        if !wanted || self.is_busy() {
            return;
        }
        self.allowing = true;
        self.outputs.push_back(Output::Persist(Promise {
            leadership: self.promised,
            vote: self.vote,
            may_ack_memory: true,
            admitted: false,
            founding: false,
            readmitted: None,
            ahead: Some(self.promised) > self.role(),
        }));
    }

    /// That is durable.
    pub(super) fn allowed(&mut self) {
        self.may_ack_memory = true;
        if let Some(rung) = self.rung() {
            self.may_ack(rung);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::super::rig::{Rig, member, recency};
    use super::*;
    use crate::link::CoreToControl;
    use crate::types::Nanos;

    const STRICT: Durability = Durability { leader: Rung::Disk, follower: Rung::Disk };
    const LOOSE: Durability = Durability { leader: Rung::Memory, follower: Rung::Memory };

    /// A group in which nobody was ever allowed to promise memory, and somebody leads.
    fn strict() -> (Rig, usize) {
        let settings = |node| super::super::ElectionSettings {
            may_ack_memory: false,
            durability: STRICT,
            ..member(node, &[1, 1, 1], 1)
        };
        let mut rig = Rig::new((0..3).map(settings));
        rig.nodes.iter_mut().for_each(|node| node.recency = recency(1, 64));
        let leader = rig.settle();
        (rig, leader)
    }

    fn outputs(machine: &mut Election) -> Vec<Output> {
        core::iter::from_fn(|| machine.poll()).collect()
    }

    #[test]
    fn d20_memory_is_promised_only_when_the_node_state_says_so_durably() {
        let (mut rig, _) = strict();
        for node in 0..3 {
            let now = rig.now.plus(Nanos::MILLISECOND);
            let machine = &mut rig.nodes[node].machine;
            let fact =
                CoreToControl::Durability { before: STRICT, now: LOOSE, sequence: Sequence(9) };
            machine.handle(now, Input::Core(fact));
            let told = outputs(machine);
            let may =
                |output: &Output| *output == Output::ToCore(ControlToCore::MayAckMemory(true));
            let written = |output: &Output| {
                let Output::Persist(promise) = output else { return false };
                promise.may_ack_memory && !promise.ahead
            };
            assert!(!told.iter().any(may), "{told:?}");
            assert_eq!(told.iter().filter(|output| written(output)).count(), 1, "{told:?}");
            machine.handle(now, Input::Tick);
            assert!(!outputs(machine).iter().any(may), "it is not durable yet");
            machine.handle(now, Input::Persisted);
            assert!(outputs(machine).iter().any(may));
        }
    }

    #[test]
    fn only_a_leader_asks_for_another_one() {
        let (mut rig, leader) = strict();
        for node in 0..3 {
            let machine = &mut rig.nodes[node].machine;
            let asked = machine.set_durability(LOOSE);
            assert_eq!(asked.is_ok(), node == leader);
            let order = Output::ToCore(ControlToCore::SetDurability(LOOSE));
            assert_eq!(outputs(machine).contains(&order), node == leader);
        }
    }
}

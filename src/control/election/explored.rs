//! What those who explore every schedule need of the machine, besides what it ships with.

use super::members::Known;
use super::{Election, Mutants, Phase};
use crate::types::{Nanos, NodeId};

impl Election {
    /// Stands, as if its canvass had told it to: those who explore every schedule leave the canvass out, which binds nobody.
    pub fn stand_at_once(&mut self) {
        if !self.is_busy() && self.phase != Phase::Pulling {
            self.stand(self.next_leadership(), true);
        }
    }

    /// Begins to hand the lead over, as if `to` were known to follow; returns whether it did.
    pub fn hand_over_at_once(&mut self, now: Nanos, to: NodeId) -> bool {
        let leadership = self.role();
        let index = self.settings.index_of(to).expect("it is on the list");
        let before = self.known[index];
        self.known[index].following = leadership;
        let begun = self.transfer(now, to).is_ok();
        self.known[index].following = before.following;
        begun
    }

    /// Asks the others, as if its leader had been silent for long enough. Only who may lead does.
    pub fn look_at_once(&mut self, now: Nanos) {
        let idle = matches!(self.phase, Phase::Waiting { .. } | Phase::Following { .. });
        if idle && self.is_electable() {
            self.look(now);
        }
    }

    /// Takes rules out of a machine that runs already.
    pub fn plant(&mut self, mutants: Mutants) {
        self.settings.mutants = mutants;
    }

    /// A group that was founded long ago: nobody needs to know who was there.
    pub fn forget_founders(&mut self) {
        self.known.iter_mut().for_each(|known| known.founder = None);
    }

    /// Forgets what only says when things happen, so that states which differ in nothing else are one.
    pub fn fold(&mut self) {
        let never = Nanos(u64::MAX);
        match &mut self.phase {
            Phase::Waiting { until } => *until = never,
            Phase::Looking(_) => self.phase = Phase::Waiting { until: never },
            Phase::Standing(candidacy) => candidacy.fold(),
            Phase::Leading(reign) => {
                if let Some(hand_over) = &mut reign.hand_over {
                    hand_over.fold();
                }
            }
            _ => {}
        }
        (self.round, self.attempts, self.random) = (0, 0, self.settings.seed);
        (self.announce_at, self.call_at) = (never, never);
        (self.not_before, self.pull_not_before) = (Nanos(0), Nanos(0));
        self.relieve_at = Nanos(0);
        (self.seen_leader, self.may_not_lead_told) = (true, true);
        for known in &mut self.known {
            let Known { founder, readmit, reserved, .. } = *known;
            *known = Known { founder, readmit, reserved, present: true, ..Known::default() };
        }
    }
}

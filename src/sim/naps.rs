//! Clients that stand still for longer than their sessions last: a leader ends these, and no other.

use super::faults::{Fault, Strike};
use super::plan::Plan;
use super::world::{Event, World};
use crate::stream::prng::Prng;
use crate::types::Nanos;

/// Mean time between two naps, ns.
const GAP_NS: u64 = 2 * Nanos::SECOND;
/// A nap takes that long at least, and as much again at most: longer than a leader waits after the beginning of its term.
const LASTS_NS: u64 = 3 * Nanos::SECOND;
/// Sessions of such worlds outlive their clients' silence so long, ns: the shortest that the nodes allow.
const SESSION_TIMEOUT_NS: u64 = Nanos::SECOND;

impl Plan {
    /// In a quarter of the worlds clients stand still now and then. Drawn apart, so that a seed stays what it was.
    pub(super) fn draw_naps(&mut self) {
        let happens = Prng::new(self.seed ^ 0x4E41_5053).below(4) == 0;
        let bit = Fault::Nap.bit();
        self.faults = if happens { self.faults | bit } else { self.faults & !bit };
        if happens {
            self.session_timeout_ns = SESSION_TIMEOUT_NS;
        }
    }
}

impl World {
    pub(super) fn draw_nap(&mut self) {
        if !self.plan.has(Fault::Nap) {
            return;
        }
        let random = &mut self.nap_random;
        let at = self.now.plus(random.below(2 * GAP_NS) + 1);
        let strike = Strike {
            fault: Fault::Nap,
            aimed: false,
            node: 0,
            other: 0,
            sides: random.below(self.plan.clients as u64),
            lasts_ns: LASTS_NS + random.below(LASTS_NS),
        };
        if at.0 < self.plan.chaos_ns {
            self.schedule(at, Event::Nap(strike));
        }
    }

    /// A client's program stands still.
    pub(super) fn nap(&mut self, strike: &Strike) {
        let client = strike.sides as usize;
        let until = self.now.plus(strike.lasts_ns);
        self.clients[client].asleep_until = until;
        self.wake_client(client, until);
    }
}

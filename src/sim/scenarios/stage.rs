//! A scripted world that is stopped now and then: to look at its nodes, and to let something arrive that no fault brings.

use std::rc::Rc;

use super::super::check::Violation;
use super::super::machine::Process;
use super::super::wire::Endpoint;
use super::super::world::{Event, World, play_out};
use super::{MS, Played, Script};
use crate::replica::{Doing, Observation};
use crate::types::Nanos;

/// See the module.
pub(super) struct Stage {
    pub(super) world: World,
}

impl Script {
    /// Sets it up; nothing has happened yet.
    pub(super) fn stage(&self) -> Stage {
        let mut world = World::new(&self.plan, true);
        world.begin();
        for (at, strike) in &self.strikes {
            world.schedule(Nanos(*at), Event::Strike(*strike));
        }
        Stage { world }
    }
}

impl Stage {
    /// Plays on until then, ms.
    pub(super) fn until(&mut self, ms: u64) -> Result<(), Violation> {
        while self.world.now.0 < ms * MS {
            self.world.play()?;
        }
        Ok(())
    }

    /// Plays on until it is so; a second is enough.
    pub(super) fn until_so(&mut self, so: impl Fn(&Self) -> bool) -> Result<(), Violation> {
        let last = self.world.now.plus(Nanos::SECOND);
        while !so(self) {
            assert!(self.world.now < last, "it does not come to that");
            self.world.play()?;
        }
        Ok(())
    }

    /// Plays the rest.
    pub(super) fn end(self) -> Result<Played, Violation> {
        let outcome = play_out(self.world);
        match &outcome.violation {
            Some((_, broken)) => Err(broken.clone()),
            None => Ok(Played { outcome }),
        }
    }

    /// Now, ms.
    pub(super) fn now_ms(&self) -> u64 {
        self.world.now.0 / MS
    }

    pub(super) fn process(&self, node: usize) -> &Process {
        self.world.machines[node].process.as_ref().expect("it runs")
    }

    /// Where the core of a node is.
    pub(super) fn seen(&self, node: usize) -> Observation {
        self.process(node).core.observe()
    }

    /// Whether a node leads and serves clients.
    pub(super) fn serves(&self, node: usize) -> bool {
        let process = self.world.machines[node].process.as_ref();
        process.is_some_and(|process| {
            matches!(process.core.observe().doing, Doing::Leads { open: true, .. })
        })
    }

    /// A datagram between cores arrives now.
    pub(super) fn arrives(&mut self, from: usize, to: usize, bytes: &Rc<[u8]>) {
        let (from, to) = (Endpoint::Node(from), Endpoint::Node(to));
        let bytes = Rc::clone(bytes);
        self.world.schedule(self.world.now, Event::Arrive { from, to, bytes });
    }
}

//! Timers fire once, when due and while pending; events come out in order, none skipped, whoever leads.

use std::collections::BTreeMap;

use super::{Checked, Violation};
use crate::sim::coverage::Coverage;
use crate::sim::machine::Process;
use crate::types::{Nanos, NodeId};

/// Whoever takes events says so this often, of moments cut into milliseconds.
const TAKES_EVERY: u64 = 8;

/// What came out, and how far it was taken.
#[derive(Default)]
pub(super) struct Effects {
    events: BTreeMap<u64, Vec<u8>>,
    taken: u64,
    /// Who handed out last.
    from: Option<NodeId>,
    fired: BTreeMap<usize, u64>,
}

impl Effects {
    pub(super) fn look(
        &mut self,
        node: usize,
        now: Nanos,
        process: &mut Process,
        coverage: &mut Coverage,
    ) -> Checked {
        let ledger = process.core.state().service();
        if let Some((id, time)) = ledger.wrong() {
            let text = format!("{id:x} fired on node {node} at {}, not pending or not due", time.0);
            return Err(Violation::new("timers", text));
        }
        let fired = self.fired.insert(node, ledger.fired()).unwrap_or(0);
        coverage.hit("timer-fired", ledger.fired().saturating_sub(fired));
        while let Some(event) = process.inlet.try_next() {
            let number = event.number();
            if number > self.taken.max(process.event_seen) + 1 {
                let text = format!("{number} from node {node}, when {} were taken", self.taken);
                return Err(Violation::new("events", text));
            }
            let known = self.events.entry(number).or_insert_with(|| event.bytes().to_vec());
            if known != event.bytes() {
                let text = format!("{number} is another one on node {node}");
                return Err(Violation::new("events", text));
            }
            process.event_seen = number;
            let from = NodeId(node as u16);
            let other = self.from.replace(from).is_some_and(|before| before != from);
            coverage.hit("event-after-failover", u64::from(other));
            coverage.hit("event-out", 1);
        }
        if (now.0 / Nanos::MILLISECOND).is_multiple_of(TAKES_EVERY) {
            self.taken = self.taken.max(process.event_seen);
            process.inlet.taken_through(process.event_seen);
        }
        Ok(())
    }
}

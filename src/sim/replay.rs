//! Datagrams that come once more, long after: what a network may do with what it was once given.

use std::collections::VecDeque;
use std::rc::Rc;

use super::wire::Endpoint;
use super::world::{Event, World};
use crate::stream::datagram::{DatagramKind, parse};
use crate::types::Nanos;

/// Datagrams of each kind that are remembered for a node.
const KEPT_MAX: usize = 512;
/// Of each kind, as many come again at once.
const BURST_MAX: usize = 48;

/// What was sent to one node: the newest, oldest first.
#[derive(Default)]
pub(super) struct Captured {
    control: VecDeque<Rc<[u8]>>,
    data: VecDeque<(usize, Rc<[u8]>)>,
}

impl Captured {
    pub(super) fn control(&mut self, bytes: &Rc<[u8]>) {
        if self.control.len() == KEPT_MAX {
            self.control.pop_front();
        }
        self.control.push_back(Rc::clone(bytes));
    }

    /// What the core of `from` sent, oldest first.
    #[cfg(test)]
    pub(super) fn data_of(&self, from: usize) -> Vec<Rc<[u8]>> {
        let own = self.data.iter().filter(|(sender, _)| *sender == from);
        own.map(|(_, bytes)| Rc::clone(bytes)).collect()
    }

    /// All that cores and control threads sent, oldest first.
    #[cfg(test)]
    pub(super) fn all(&self) -> (Vec<(usize, Rc<[u8]>)>, Vec<Rc<[u8]>>) {
        (self.data.iter().cloned().collect(), self.control.iter().cloned().collect())
    }

    /// Of one core to another: but for heartbeats, which are many and say little.
    pub(super) fn data(&mut self, from: usize, bytes: &Rc<[u8]>) {
        let kind = parse(bytes, super::machine::GROUP).map(|(_, kind, _)| kind);
        if matches!(kind, Ok(DatagramKind::Heartbeat) | Err(_)) {
            return;
        }
        if self.data.len() == KEPT_MAX {
            self.data.pop_front();
        }
        self.data.push_back((from, Rc::clone(bytes)));
    }
}

impl World {
    /// Some of what was sent to `node` comes again, in its order.
    pub(super) fn replay(&mut self, node: usize, draw: u64) {
        let captured = &self.captured[node];
        let window = |kept: usize, draw: u64| {
            let first = draw as usize % kept.max(1);
            first..kept.min(first + BURST_MAX)
        };
        let control = window(captured.control.len(), draw);
        let data = window(captured.data.len(), draw >> 20);
        let control: Vec<_> = captured.control.range(control).cloned().collect();
        let data: Vec<_> = captured.data.range(data).cloned().collect();
        let mut after = 0;
        for bytes in control {
            after += self.random.below(100_000);
            let event = Event::Control { to: node, bytes };
            self.schedule(self.now.plus(after), event);
        }
        after = 0;
        for (from, bytes) in data {
            after += self.random.below(Nanos::MILLISECOND / 10);
            let (from, to) = (Endpoint::Node(from), Endpoint::Node(node));
            self.schedule(self.now.plus(after), Event::Arrive { from, to, bytes });
        }
    }
}

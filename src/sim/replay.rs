//! Datagrams that come once more, long after: what a network may do with what it was once given.

use std::collections::VecDeque;
use std::rc::Rc;

use super::wire::Endpoint;
use super::world::{Event, World};
use crate::stream::datagram::{DatagramKind, FLAG_LANE, parse};
use crate::types::{Leadership, Nanos};

/// Datagrams of each kind that are remembered for a node.
const KEPT_MAX: usize = 512;
/// Of each kind, as many come again at once.
const BURST_MAX: usize = 48;

/// Leaderships whose acknowledgements are remembered for a node, and how many of each.
const REIGNS_MAX: usize = 4;
const WORDS_MAX: usize = 128;

/// Datagrams of cores, and who sent each.
type Words = VecDeque<(usize, Rc<[u8]>)>;

/// What was sent to one node: the newest, oldest first.
#[derive(Default)]
pub(super) struct Captured {
    control: VecDeque<Rc<[u8]>>,
    data: Words,
    /// What it was told as a leader, apart: of the last leaderships the newest each.
    reigns: VecDeque<(Leadership, Words)>,
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

    /// What all cores sent, each time with which, oldest first.
    #[cfg(test)]
    pub(super) fn datagrams(&self) -> Vec<(usize, Rc<[u8]>)> {
        self.data.iter().cloned().collect()
    }

    /// What control threads sent, oldest first.
    #[cfg(test)]
    pub(super) fn letters(&self) -> Vec<Rc<[u8]>> {
        self.control.iter().cloned().collect()
    }

    /// Of one core to another: but for heartbeats, which are many and say little.
    pub(super) fn data(&mut self, from: usize, bytes: &Rc<[u8]>) {
        let Ok((header, kind, _)) = parse(bytes, super::machine::GROUP) else { return };
        if kind == DatagramKind::Heartbeat {
            return;
        }
        if kind == DatagramKind::Status && header.flags & FLAG_LANE == 0 {
            self.words(header.leadership(), from, bytes);
        }
        if self.data.len() == KEPT_MAX {
            self.data.pop_front();
        }
        self.data.push_back((from, Rc::clone(bytes)));
    }

    fn words(&mut self, of: Leadership, from: usize, bytes: &Rc<[u8]>) {
        if self.reigns.iter().all(|(known, _)| *known < of) {
            self.reigns.push_back((of, VecDeque::new()));
            let old = self.reigns.len().saturating_sub(REIGNS_MAX);
            self.reigns.drain(..old);
        }
        let Some((_, words)) = self.reigns.iter_mut().find(|(known, _)| *known == of) else {
            return; // what came again is known, or forgotten
        };
        if words.len() == WORDS_MAX {
            words.pop_front();
        }
        words.push_back((from, Rc::clone(bytes)));
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

    /// What `node` was told as a leader of older terms comes again.
    pub(super) fn replay_old_words(&mut self, node: usize) {
        let Some(process) = &self.machines[node].process else { return };
        let fence = process.core.observe().fence;
        let reigns = self.captured[node].reigns.iter().filter(|(of, _)| *of < fence);
        let words: Vec<_> = reigns.flat_map(|(_, words)| words.iter().cloned()).collect();
        let mut after = 0;
        for (from, bytes) in words {
            after += self.random.below(20_000);
            let (from, to) = (Endpoint::Node(from), Endpoint::Node(node));
            self.schedule(self.now.plus(after), Event::Arrive { from, to, bytes });
        }
    }
}

//! What clients were told, against what took effect.
//!
//! A command's answer is its place in the one order of all commands, so the history is linearizable if and only if the places
//! agree with that order, and no request that began after another had ended has an earlier place.

use core::sync::atomic::Ordering::Relaxed;
use std::collections::{BTreeMap, BTreeSet};

use super::{Checked, Violation};
use crate::link::Shared;
use crate::sim::client::{Ended, Told};
use crate::sim::ledger::Ledger;
use crate::types::{Nanos, NodeId, Sequence, Timestamp};

/// By entry: a node's own hash, and those of the others.
type Hashes = BTreeMap<u64, (Option<u64>, BTreeMap<NodeId, u64>)>;

/// The history of all clients.
pub(super) struct History {
    /// Whose hashes make a majority.
    voters: Vec<NodeId>,
    /// Commands in the order in which they took effect, and the same as a set.
    order: Vec<u64>,
    known: BTreeSet<u64>,
    /// Of `order`, how many each node has applied in its present life.
    applied: Vec<usize>,
    hashes: BTreeMap<u64, (u64, usize)>,
    hashed: Vec<u64>,
    /// Places that were answered: by the time of the answer, the number of commands known to have taken effect.
    told: Vec<(Nanos, u64)>,
    acknowledged: BTreeMap<u64, u64>,
    /// By node: cluster time as last seen there.
    times: Vec<Timestamp>,
    /// By node whose service was made to go another way: what it shared since, and what others told it.
    diverged: Vec<Option<Hashes>>,
}

impl History {
    pub(super) fn new(nodes: usize, voters: Vec<NodeId>) -> Self {
        Self {
            voters,
            order: Vec::new(),
            known: BTreeSet::new(),
            applied: vec![0; nodes],
            hashes: BTreeMap::new(),
            hashed: vec![0; nodes],
            told: Vec::new(),
            acknowledged: BTreeMap::new(),
            times: vec![Timestamp(0); nodes],
            diverged: vec![None; nodes],
        }
    }

    /// Commands that took effect.
    pub(super) fn commands(&self) -> u64 {
        self.order.len() as u64
    }

    /// The command at this place.
    pub(super) fn at(&self, place: u64) -> Option<u64> {
        self.order.get(place as usize).copied()
    }

    /// Commands that somebody had been told of before `time`.
    pub(super) fn known_before(&self, time: Nanos) -> u64 {
        let before = self.told.partition_point(|(at, _)| *at < time);
        before.checked_sub(1).map_or(0, |index| self.told[index].1)
    }

    pub(super) fn restarted(&mut self, node: usize) {
        self.applied[node] = 0;
        self.hashed[node] = 0;
        self.times[node] = Timestamp(0);
        self.diverged[node] = None;
    }

    /// Cluster time never goes back.
    pub(super) fn time(&mut self, node: usize, time: Timestamp) -> Checked {
        let before = core::mem::replace(&mut self.times[node], time);
        if time >= before {
            return Ok(());
        }
        let text = format!("on node {node} it went from {} back to {}", before.0, time.0);
        Err(Violation::new("cluster_time", text))
    }

    pub(super) fn diverged(&mut self, node: usize) {
        self.diverged[node] = Some(BTreeMap::new());
    }

    pub(super) fn has_diverged(&self) -> bool {
        self.diverged.iter().any(Option::is_some)
    }

    pub(super) fn is_contradicted(&self) -> bool {
        let majority = self.voters.len() / 2 + 1;
        let contradicted = |(own, others): &(Option<u64>, BTreeMap<NodeId, u64>)| {
            let others = others.iter().filter(|(node, _)| self.voters.contains(node));
            own.is_some() && others.filter(|(_, hash)| Some(**hash) != *own).count() >= majority
        };
        self.diverged.iter().flatten().any(|hashes| hashes.values().any(contradicted))
    }

    pub(super) fn hash_heard(&mut self, node: usize, from: NodeId, after: Sequence, hash: u64) {
        if let Some(hashes) = &mut self.diverged[node] {
            hashes.entry(after.0).or_default().1.insert(from, hash);
        }
    }

    /// Compares what a node has applied with what others have.
    pub(super) fn applied(&mut self, node: usize, ledger: &Ledger) -> Checked {
        let entries = ledger.entries();
        while let Some(&number) = entries.get(self.applied[node]) {
            let place = self.applied[node];
            match self.order.get(place) {
                None => {
                    self.order.push(number);
                    if !self.known.insert(number) {
                        let text = format!("command {number:x} took effect twice, on node {node}");
                        return Err(Violation::new("applied_twice", text));
                    }
                }
                Some(first) if *first == number => {}
                Some(first) => {
                    let text = format!("place {place}: {first:x}, and {number:x} on node {node}");
                    return Err(Violation::new("applied_order", text));
                }
            }
            self.applied[node] += 1;
        }
        Ok(())
    }

    /// Compares the hash that a node's core shares.
    pub(super) fn hash(&mut self, node: usize, shared: &Shared) -> Checked {
        let words = shared.words();
        let (sequence, hash) = (words.hash_sequence.load(Relaxed), words.state_hash.load(Relaxed));
        if sequence == self.hashed[node] {
            return Ok(());
        }
        self.hashed[node] = sequence;
        if let Some(hashes) = &mut self.diverged[node] {
            hashes.entry(sequence).or_default().0 = Some(hash);
            return Ok(());
        }
        let (known, first) = *self.hashes.entry(sequence).or_insert((hash, node));
        if known == hash {
            return Ok(());
        }
        let text = format!("after entry {sequence}: nodes {first} and {node} differ");
        Err(Violation::new("state_hash", text))
    }

    pub(super) fn ended(&mut self, now: Nanos, ended: &Ended) -> Checked {
        let reached = match ended.told {
            Told::Placed { number, place } => {
                if self.order.get(place as usize) != Some(&number) {
                    let text = format!("command {number:x} was told place {place}");
                    return Err(Violation::new("answered_too_early", text));
                }
                if let Some(before) = self.acknowledged.insert(number, place) {
                    let text = format!("command {number:x} was answered twice: {before}, {place}");
                    return Err(Violation::new("wrong_answer", text));
                }
                place + 1
            }
            Told::Counted { count } => {
                if count > self.commands() {
                    let text = format!("told {count} of {} commands", self.commands());
                    return Err(Violation::new("answered_too_early", text));
                }
                count
            }
            Told::Refused { number } => {
                if self.known.contains(&number) {
                    let text = format!("command {number:x} was refused, and took effect");
                    return Err(Violation::new("wrong_answer", text));
                }
                return Ok(());
            }
            Told::Unknown => return Ok(()),
            Told::Wrong(outcome) => {
                return Err(Violation::new("wrong_answer", format!("{outcome:?}")));
            }
        };
        let known = self.known_before(ended.sent_at);
        // A command takes a place above all that was known when it was sent; a count reaches at least as far.
        let least = match ended.told {
            Told::Placed { .. } => known + 1,
            _ => known,
        };
        if reached < least {
            let text =
                format!("{:?} sent at {}, when {known} were known", ended.told, ended.sent_at);
            return Err(Violation::new("linearizable", text));
        }
        self.told(now, reached);
        Ok(())
    }

    /// Somebody was told that so many commands had taken effect.
    pub(super) fn told(&mut self, now: Nanos, reached: u64) {
        let highest = self.told.last().map_or(0, |(_, reached)| *reached);
        self.told.push((now, highest.max(reached)));
    }

    /// Everything that was acknowledged has its place still, on every node that has applied as much.
    pub(super) fn finish(&self) -> Checked {
        for (number, place) in &self.acknowledged {
            if self.order.get(*place as usize) != Some(number)
                || self.applied.iter().any(|&applied| applied as u64 <= *place)
            {
                let text = format!("command {number:x}, acknowledged with place {place}");
                return Err(Violation::new("acknowledged_lost", text));
            }
        }
        Ok(())
    }
}

//! Faults on purpose: a seeded layer that loses, duplicates, delays, reorders and damages what arrives.
//!
//! For tests and demonstrations, between the sockets and the core, so that what is proven with it is proven of the shipped
//! program. The same seed and the same arrivals give the same faults. All memory is made at construction.

use core::cmp::Reverse;
use core::net::SocketAddr;
use std::collections::BinaryHeap;

use super::network_error::NetworkError;
use crate::stream::datagram::DatagramHeader;
use crate::stream::network::{Destination, Network};
use crate::stream::prng::{Prng, Share};
use crate::types::{Nanos, NodeId};

/// Datagrams held back at once, at most, and the bytes they may take: more are let through at once, and counted.
const HELD_MAX: usize = 4096;
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Datagrams handed on by one poll, at most: more are dropped, and counted as lost.
const BATCH_MAX: usize = 3 * HELD_MAX;

/// Which faults, and how often. The default has none.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FaultSettings {
    /// Share of the arriving datagrams that is dropped, 0 to 1.
    pub loss: f64,
    /// Share that arrives twice, 0 to 1.
    pub duplicate: f64,
    /// Share in which one bit is turned, 0 to 1.
    pub corrupt: f64,
    /// Each waits this long, in milliseconds.
    pub delay_ms: u64,
    /// Each waits a random time of up to this more, in milliseconds, so that later ones pass it.
    pub reorder_ms: u64,
    /// Of the random choices.
    pub seed: u64,
}

impl Default for FaultSettings {
    fn default() -> Self {
        Self { loss: 0.0, duplicate: 0.0, corrupt: 0.0, delay_ms: 0, reorder_ms: 0, seed: 1 }
    }
}

impl FaultSettings {
    /// The same faults, but other choices for each node: a multicast datagram has its own fate at each receiver.
    #[must_use]
    pub fn for_node(self, node: Option<NodeId>) -> Self {
        let apart =
            node.map_or(0, |node| u64::from(node.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { seed: self.seed ^ apart, ..self }
    }
}

/// What the layer did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounters {
    /// Datagrams dropped.
    pub lost: u64,
    /// Datagrams that came twice.
    pub duplicated: u64,
    /// Datagrams in which a bit was turned.
    pub corrupted: u64,
    /// Datagrams held back.
    pub delayed: u64,
    /// Datagrams let through unharmed because there was no room to hold them.
    pub overflowed: u64,
}

/// A network with faults on the receiving side.
#[derive(Debug)]
pub struct FaultyNetwork<N> {
    inner: N,
    layer: FaultLayer,
    now: Nanos,
}

/// The layer itself, beside the network it filters.
#[derive(Debug)]
pub(super) struct FaultLayer {
    loss: Share,
    duplicate: Share,
    corrupt: Share,
    delay_ns: u64,
    reorder_ns: u64,
    prng: Prng,
    slot_bytes: usize,
    bytes: Box<[u8]>,
    held: Box<[(SocketAddr, usize)]>,
    free: Vec<u32>,
    /// Release time, order of arrival, slot.
    waiting: BinaryHeap<Reverse<(Nanos, u64, u32)>>,
    arrivals: u64,
    batch: Vec<Entry>,
    counters: FaultCounters,
}

/// One datagram of the batch handed on.
#[derive(Clone, Copy, Debug)]
enum Entry {
    /// As it lies in the inner network.
    Inner(u32),
    /// In one of our slots.
    Held(u32),
}

impl<N: Network> FaultyNetwork<N> {
    /// Faults over `inner`; datagrams of up to `datagram_bytes` can be held back.
    ///
    /// # Errors
    /// A share that is not within 0 to 1.
    pub fn new(
        inner: N,
        settings: &FaultSettings,
        datagram_bytes: usize,
    ) -> Result<Self, NetworkError> {
        let layer = FaultLayer::new(settings, datagram_bytes)?;
        Ok(Self { inner, layer, now: Nanos(0) })
    }

    /// Time passes: the next poll releases what is due.
    pub fn tick(&mut self, now: Nanos) {
        self.now = self.now.max(now);
    }

    /// What was done so far.
    #[must_use]
    pub fn faults(&self) -> FaultCounters {
        self.layer.counters()
    }

    /// When the next datagram that is held back is due.
    #[must_use]
    pub fn next_release(&self) -> Option<Nanos> {
        self.layer.next_release()
    }

    /// The network below.
    pub fn inner_mut(&mut self) -> &mut N {
        &mut self.inner
    }
}

impl<N: Network> Network for FaultyNetwork<N> {
    fn poll(&mut self) -> usize {
        let received = self.inner.poll();
        self.layer.filter(&self.inner, received, self.now)
    }
    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        self.layer.datagram(&self.inner, index)
    }
    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        self.inner.send(to, header, prefix, bytes);
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        self.inner.body_bytes(prefix)
    }
}

impl FaultLayer {
    pub(super) fn new(
        settings: &FaultSettings,
        datagram_bytes: usize,
    ) -> Result<Self, NetworkError> {
        let share = |setting, value| Share::new(value).ok_or(NetworkError::FaultShare { setting });
        let slot_bytes = datagram_bytes.max(1);
        let slots = (HELD_BYTES_MAX / slot_bytes).clamp(1, HELD_MAX);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Ok(Self {
            loss: share("loss", settings.loss)?,
            duplicate: share("duplicate", settings.duplicate)?,
            corrupt: share("corrupt", settings.corrupt)?,
            delay_ns: settings.delay_ms.saturating_mul(Nanos::MILLISECOND),
            reorder_ns: settings.reorder_ms.saturating_mul(Nanos::MILLISECOND),
            prng: Prng::new(settings.seed),
            slot_bytes,
            bytes: vec![0; slots * slot_bytes].into_boxed_slice(),
            held: vec![(nowhere, 0); slots].into_boxed_slice(),
            free: (0..slots as u32).rev().collect(),
            waiting: BinaryHeap::with_capacity(slots),
            arrivals: 0,
            batch: Vec::with_capacity(BATCH_MAX),
            counters: FaultCounters::default(),
        })
    }

    pub(super) fn counters(&self) -> FaultCounters {
        self.counters
    }

    pub(super) fn next_release(&self) -> Option<Nanos> {
        self.waiting.peek().map(|Reverse((release, ..))| *release)
    }

    /// Makes the batch to hand on: what is due, then what of the `received` ones comes through at once.
    pub(super) fn filter(&mut self, inner: &impl Network, received: usize, now: Nanos) -> usize {
        for entry in self.batch.drain(..) {
            if let Entry::Held(slot) = entry {
                self.free.push(slot);
            }
        }
        while let Some(Reverse((release, _, slot))) = self.waiting.peek().copied() {
            if release > now {
                break;
            }
            self.waiting.pop();
            self.batch.push(Entry::Held(slot));
        }
        for index in 0..received {
            self.arrive(inner, index, now);
        }
        self.batch.len()
    }

    pub(super) fn datagram<'a>(
        &'a self,
        inner: &'a impl Network,
        index: usize,
    ) -> (SocketAddr, &'a [u8]) {
        match self.batch[index] {
            Entry::Inner(index) => inner.datagram(index as usize),
            Entry::Held(slot) => {
                let (from, length) = self.held[slot as usize];
                let start = slot as usize * self.slot_bytes;
                (from, &self.bytes[start..start + length])
            }
        }
    }

    fn arrive(&mut self, inner: &impl Network, index: usize, now: Nanos) {
        if self.prng.chance(self.loss) {
            self.counters.lost += 1;
            return;
        }
        let twice = self.prng.chance(self.duplicate);
        self.counters.duplicated += u64::from(twice);
        for _ in 0..=u8::from(twice) {
            let damage = self.prng.chance(self.corrupt).then(|| self.prng.next_u64());
            let random = if self.reorder_ns > 0 { self.prng.below(self.reorder_ns) } else { 0 };
            let release = now.plus(self.delay_ns.saturating_add(random));
            self.pass(inner, index, now, release, damage);
        }
    }

    /// Hands one datagram on, now or at `release`, with the bit that `damage` draws turned.
    fn pass(
        &mut self,
        inner: &impl Network,
        index: usize,
        now: Nanos,
        release: Nanos,
        damage: Option<u64>,
    ) {
        let (from, bytes) = inner.datagram(index);
        let kept = release > now || damage.is_some();
        let entry = match (kept, self.free.last().copied()) {
            (true, Some(slot)) if bytes.len() <= self.slot_bytes => {
                self.free.pop();
                self.held[slot as usize] = (from, bytes.len());
                let start = slot as usize * self.slot_bytes;
                let place = &mut self.bytes[start..start + bytes.len()];
                place.copy_from_slice(bytes);
                if let (Some(draw), false) = (damage, place.is_empty()) {
                    let bit = (draw % (place.len() as u64 * 8)) as usize;
                    place[bit / 8] ^= 1 << (bit % 8);
                    self.counters.corrupted += 1;
                }
                if release > now {
                    self.arrivals += 1;
                    self.counters.delayed += 1;
                    self.waiting.push(Reverse((release, self.arrivals, slot)));
                    return;
                }
                Entry::Held(slot)
            }
            (true, _) => {
                self.counters.overflowed += 1;
                Entry::Inner(index as u32)
            }
            (false, _) => Entry::Inner(index as u32),
        };
        if self.batch.len() < self.batch.capacity() {
            self.batch.push(entry);
        } else {
            self.counters.lost += 1;
            if let Entry::Held(slot) = entry {
                self.free.push(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::datagram::DatagramKind;
    use crate::types::{GroupId, Leadership};

    /// Hands out numbered datagrams, so many per poll.
    struct Numbers {
        next: u64,
        batch: Vec<[u8; 8]>,
        each: usize,
    }

    impl Network for Numbers {
        fn poll(&mut self) -> usize {
            self.batch.clear();
            for _ in 0..self.each {
                self.batch.push(self.next.to_le_bytes());
                self.next += 1;
            }
            self.each
        }
        fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
            (SocketAddr::from(([10, 0, 0, 1], 9)), &self.batch[index])
        }
        fn send(&mut self, _: Destination, _: &DatagramHeader, _: &[u8], bytes: &[u8]) {
            self.next = bytes.len() as u64;
        }
        fn body_bytes(&self, prefix: usize) -> usize {
            100 - prefix
        }
    }

    /// The datagrams of `polls` polls, one a millisecond.
    fn run(settings: FaultSettings, polls: u64) -> (Vec<u64>, FaultCounters) {
        let inner = Numbers { next: 0, batch: Vec::new(), each: 4 };
        let mut network = FaultyNetwork::new(inner, &settings, 8).unwrap();
        let mut seen = Vec::new();
        for poll in 0..polls + 50 {
            if poll == polls {
                network.inner_mut().each = 0;
            }
            network.tick(Nanos(poll * Nanos::MILLISECOND));
            for index in 0..network.poll() {
                seen.push(u64::from_le_bytes(network.datagram(index).1.try_into().unwrap()));
            }
        }
        assert_eq!(network.next_release(), None, "everything held back is released in the end");
        (seen, network.faults())
    }

    #[test]
    fn without_faults_everything_comes_through_in_order() {
        let (seen, counters) = run(FaultSettings::default(), 100);
        assert_eq!(seen, (0..400).collect::<Vec<_>>());
        assert_eq!(counters, FaultCounters::default());
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
        let settings = FaultSettings {
            loss: 0.05,
            duplicate: 0.02,
            corrupt: 0.01,
            delay_ms: 1,
            reorder_ms: 20,
            seed: 42,
        };
        let first = run(settings, 500);
        assert_eq!(first, run(settings, 500));
        assert_ne!(first.0, run(FaultSettings { seed: 43, ..settings }, 500).0);
        assert_ne!(first.0, run(settings.for_node(Some(NodeId(0))), 500).0);
        let counters = first.1;
        assert!((50..150).contains(&counters.lost), "{counters:?}");
        assert!((15..80).contains(&counters.duplicated), "{counters:?}");
        assert!((5..50).contains(&counters.corrupted), "{counters:?}");
        assert_eq!(first.0.len() as u64, 2000 - counters.lost + counters.duplicated);
    }

    #[test]
    fn delay_keeps_the_order_and_reordering_does_not() {
        let (delayed, _) = run(FaultSettings { delay_ms: 7, ..FaultSettings::default() }, 50);
        assert_eq!(delayed, (0..200).collect::<Vec<_>>());
        let (mut mixed, _) = run(FaultSettings { reorder_ms: 20, ..FaultSettings::default() }, 50);
        assert_ne!(mixed, delayed);
        mixed.sort_unstable();
        assert_eq!(mixed, delayed);
    }

    #[test]
    fn damage_turns_exactly_one_bit() {
        let (seen, counters) = run(FaultSettings { corrupt: 1.0, ..FaultSettings::default() }, 10);
        assert_eq!((seen.len(), counters.corrupted), (40, 40));
        assert!(seen.iter().zip(0_u64..).all(|(&seen, sent)| (seen ^ sent).is_power_of_two()));
    }

    #[test]
    fn what_cannot_be_held_is_let_through_and_counted() {
        let settings = FaultSettings { delay_ms: 10, ..FaultSettings::default() };
        let inner = Numbers { next: 0, batch: Vec::new(), each: HELD_MAX + 5 };
        let mut network = FaultyNetwork::new(inner, &settings, 8).unwrap();
        assert_eq!(network.poll(), 5);
        assert_eq!(network.faults().overflowed, 5);
        assert_eq!(network.next_release(), Some(Nanos(10 * Nanos::MILLISECOND)));
    }

    #[test]
    fn sending_is_passed_on_and_wrong_shares_are_refused() {
        let inner = Numbers { next: 0, batch: Vec::new(), each: 0 };
        let mut network = FaultyNetwork::new(inner, &FaultSettings::default(), 8).unwrap();
        let header =
            DatagramHeader::new(DatagramKind::Data, GroupId(1), None, Leadership::default());
        network.send(Destination::Members, &header, &[], &[0; 33]);
        assert_eq!((network.inner_mut().next, network.body_bytes(20)), (33, 80));
        let wrong = FaultSettings { loss: 1.5, ..FaultSettings::default() };
        let error = FaultLayer::new(&wrong, 8).unwrap_err();
        assert_eq!(error, NetworkError::FaultShare { setting: "loss" });
    }
}

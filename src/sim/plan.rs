//! What a seed stands for: the group, its clients, and how hostile their world is. Everything is drawn here, so that a run
//! is a function of its plan.

use super::faults::Fault;
use super::stories::Story;
use crate::client::SESSION_TIMEOUT_NS_DEFAULT;
use crate::link::{Durability, Rung};
use crate::mutants::{Mutant, Mutants};
use crate::stream::prng::Prng;
use crate::types::Nanos;

/// The world of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Seeds everything else.
    pub seed: u64,
    /// Nodes of the group.
    pub nodes: usize,
    /// Clients.
    pub clients: usize,
    /// Payload of a segment, in bytes: small, so that a node is quickly made.
    pub segment_bytes: u64,
    /// Window of the replication stream, in bytes: two of them stay in memory.
    pub window_bytes: u64,
    /// Commands of each client, at most.
    pub commands: u64,
    /// Mean time between two commands of a client, ns.
    pub think_ns: u64,
    /// Unanswered commands of a client, at most.
    pub in_flight: usize,
    /// Longest command, in bytes.
    pub command_bytes_max: usize,
    /// The ladder.
    pub durability: Durability,
    /// Priority of each node.
    pub priorities: Vec<u8>,
    /// Which nodes only observe.
    pub observers: Vec<bool>,
    /// What the ways to and from observers take longer, ns, and lose besides, in a million: they stand elsewhere.
    pub far: (u64, u64),
    /// Replication by multicast.
    pub multicast: bool,
    /// Of the group, ns.
    pub heartbeat_ns: u64,
    /// Of the group, ns.
    pub leader_timeout_ns: u64,
    /// Chance of a datagram to be lost, to come twice, to come with other bytes, in a million.
    pub loss: u64,
    /// See `loss`.
    pub duplicate: u64,
    /// See `loss`.
    pub corrupt: u64,
    /// Shortest way of a datagram, and what chance adds at most, ns.
    pub delay_ns: (u64, u64),
    /// Chance, in a million, and length at most of a datagram's detour, ns.
    pub detour: (u64, u64),
    /// How long a disk takes for a sync, at most, ns.
    pub sync_ns: u64,
    /// Clocks run faster or slower by so many millionths, at most.
    pub drift_ppm: u64,
    /// How long the sessions of clients outlive their silence, ns.
    pub session_timeout_ns: u64,
    /// How long there are faults, ns.
    pub chaos_ns: u64,
    /// Mean time between two of them, ns.
    pub fault_gap_ns: u64,
    /// Mean time between two orders to hand over, ns.
    pub hand_over_gap_ns: u64,
    /// A rule that is taken out, to see that this is noticed.
    pub mutant: Option<Mutant>,
    /// Kinds of faults that happen, a bit each (`Fault::KINDS`).
    pub faults: u32,
    /// How long a control thread may be held up, at most, between its look at the core and what it does about it, ns.
    pub look_ns: u64,
    /// How long the first election of a group that starts waits for all voters, ns.
    pub start_wait_ns: u64,
    /// Clients ask nodes to pass on what a leader out of reach and they say to each other.
    pub forward: bool,
    /// So many of the clients only ask questions.
    pub readers: usize,
    /// Readers besides: they ask nodes by themselves.
    pub askers: usize,
    /// Faults that belong together, told over and over.
    pub stories: Vec<Story>,
    /// Bytes of the log that stay, and twice that for a member that lacks them; snapshots are taken as often. 0: all stays.
    pub retention_bytes: u64,
}

/// In a million.
pub(super) const MILLION: u64 = 1_000_000;

/// Of each four seeds, the one with timers and events: no draw is spent on it, so that the others stay as they were.
const EFFECTS_OF_FOUR: u64 = 2;
/// Of so many seeds one has readers; no draw is spent on it either.
const ASKERS_EVERY: u64 = 5;

/// Readers of a seed's world.
fn askers(seed: u64) -> usize {
    let some = seed.is_multiple_of(ASKERS_EVERY);
    if some { 1 + (seed / ASKERS_EVERY % 2) as usize } else { 0 }
}

impl Plan {
    /// Whether the service uses timers and events.
    pub(super) fn effects(&self) -> bool {
        self.seed % 4 == EFFECTS_OF_FOUR
    }

    /// The plan of a seed; `nodes` where the group's size is given.
    #[must_use]
    pub fn draw(seed: u64, nodes: Option<usize>) -> Self {
        let (mut random, given) = (Prng::new(seed), nodes);
        let nodes =
            nodes.unwrap_or_else(|| [1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7][index(&mut random, 11)]);
        let rung = |memory| if memory { Rung::Memory } else { Rung::Disk };
        let durability =
            Durability { leader: rung(random.below(3) == 0), follower: rung(random.below(3) > 0) };
        let rough = random.below(3) > 0;
        let clients = 1 + index(&mut random, 4);
        let mut plan = Self {
            seed,
            nodes,
            clients,
            segment_bytes: 256 * 1024,
            window_bytes: 256 * 1024,
            commands: 1200 / clients as u64,
            think_ns: [1, 3, 10, 30][index(&mut random, 4)] * Nanos::MILLISECOND,
            in_flight: [1, 4, 16][index(&mut random, 3)],
            command_bytes_max: [16, 64, 200][index(&mut random, 3)],
            durability,
            priorities: vec![1; nodes],
            observers: vec![false; nodes],
            far: (0, 0),
            multicast: random.below(2) == 0,
            heartbeat_ns: 10 * Nanos::MILLISECOND,
            leader_timeout_ns: 150 * Nanos::MILLISECOND,
            loss: if rough { [0, 1_000, 20_000, 100_000][index(&mut random, 4)] } else { 0 },
            duplicate: if rough { [0, 5_000, 50_000][index(&mut random, 3)] } else { 0 },
            corrupt: if rough { [0, 0, 2_000][index(&mut random, 3)] } else { 0 },
            delay_ns: (
                [5, 20, 200][index(&mut random, 3)] * MICROSECOND,
                [5, 50, 1_000][index(&mut random, 3)] * MICROSECOND,
            ),
            detour: if rough {
                (10_000, [1, 20, 300][index(&mut random, 3)] * Nanos::MILLISECOND)
            } else {
                (0, 1)
            },
            sync_ns: [100, 1_000, 10_000][index(&mut random, 3)] * MICROSECOND,
            drift_ppm: random.below(200),
            session_timeout_ns: SESSION_TIMEOUT_NS_DEFAULT,
            chaos_ns: (2 + random.below(8)) * Nanos::SECOND,
            fault_gap_ns: [100, 400, 1_500][index(&mut random, 3)] * Nanos::MILLISECOND,
            hand_over_gap_ns: Nanos::SECOND,
            mutant: None,
            faults: u32::MAX,
            look_ns: 0,
            start_wait_ns: Nanos::SECOND,
            forward: true,
            readers: 0,
            askers: askers(seed),
            stories: Vec::new(),
            retention_bytes: 0,
        };
        // A quarter of the worlds are quieter and last longer: hours count there, in the others what happens in them.
        if random.below(4) == 0 {
            plan.think_ns *= 50;
            plan.chaos_ns *= 20;
            plan.fault_gap_ns *= 10;
        }
        plan.draw_priorities(&mut random);
        // Half of the worlds know only some kinds of faults: what all of them together hide, few of them show.
        if random.below(2) == 0 {
            plan.faults = random.next_u64() as u32 & random.next_u64() as u32;
        }
        plan.look_ns = [0, 0, 20 * MICROSECOND, 10 * Nanos::MILLISECOND][index(&mut random, 4)];
        plan.draw_hand_overs();
        if random.below(2) == 0 {
            plan.tell(&mut random, given.is_none());
        } else {
            plan.draw_observers();
            plan.shrink_memory();
        }
        plan
    }

    /// In a third of the worlds some are preferred, and some never lead.
    fn draw_priorities(&mut self, random: &mut Prng) {
        if random.below(3) > 0 {
            return;
        }
        for priority in &mut self.priorities {
            *priority = random.below(4) as u8;
        }
        if self.priorities.iter().all(|priority| *priority == 0) {
            self.priorities[0] = 1;
        }
    }

    /// In a third of the worlds the lead is handed over now and then, and in a third clients are left one door. Drawn apart, so
    /// that the other two thirds do not change.
    fn draw_hand_overs(&mut self) {
        let mut random = Prng::new(self.seed ^ 0x4841_4E44);
        self.hand_over_gap_ns = [30, 200, 1_000][index(&mut random, 3)] * Nanos::MILLISECOND;
        let bit = Fault::HandOver.bit();
        self.faults = if random.below(3) == 0 { self.faults | bit } else { self.faults & !bit };
        self.draw_doors();
        self.draw_naps();
    }

    /// Whether this kind of fault happens.
    pub(super) fn has(&self, kind: Fault) -> bool {
        self.faults & kind.bit() != 0
    }

    /// A quarter of the groups have observers, some of them far away. Drawn apart, so that the rest of a seed's world stays.
    fn draw_observers(&mut self) {
        let mut random = Prng::new(self.seed ^ 0x4F42_5345);
        if self.nodes == 1 || random.below(4) > 0 {
            return;
        }
        for _ in 0..=index(&mut random, 2) {
            let node = index(&mut random, self.nodes as u64);
            self.observers[node] = true;
            if !(0..self.nodes).any(|node| self.is_electable(node)) {
                self.observers[node] = false;
            }
        }
        if random.below(3) == 0 {
            self.far = (80 * Nanos::MILLISECOND, 10_000);
        }
    }

    /// Whether a node may lead.
    #[must_use]
    pub fn is_electable(&self, node: usize) -> bool {
        !self.observers[node] && self.priorities[node] > 0
    }

    /// The nodes that vote and count.
    pub fn voters(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes).filter(|&node| !self.observers[node])
    }

    /// In a part of the worlds memory holds only a small part of the log: nodes that were away fall behind it. Drawn apart,
    /// so that all else stays what it was for a seed.
    fn shrink_memory(&mut self) {
        let mut random = Prng::new(self.seed ^ 0x4c41_4e45);
        if random.below(3) == 0 {
            self.segment_bytes = 64 * 1024;
            self.window_bytes = 32 * 1024;
            self.command_bytes_max = [200, 1_000, 4_000][index(&mut random, 3)];
            // In half of them the log on the disk is short, too.
            self.retention_bytes = [0, 128 * 1024][index(&mut random, 2)];
        }
    }

    /// The world of a seed with this story instead of its own, for a group of the size that it asks for.
    #[cfg(test)]
    pub(super) fn telling(seed: u64, story: Story) -> Self {
        let mut plan = Self::draw(seed, Some(story.size().unwrap_or(3)));
        let mut random = Prng::new(seed);
        plan.tell(&mut random, false);
        plan.stories = vec![story];
        story.set_up(&mut plan, &mut random);
        plan
    }

    /// Stories are told, in a world that is made for them: busy, and without much else.
    fn tell(&mut self, random: &mut Prng, any_size: bool) {
        let mut story = Story::ALL[index(random, Story::ALL.len() as u64)];
        self.stories = vec![story];
        if random.below(4) == 0 {
            self.stories.push(Story::ALL[index(random, Story::ALL.len() as u64)]);
        }
        let mut apart = Prng::new(self.seed ^ 0x4150_4152);
        if apart.below(4) == 0 {
            story = Story::APART[index(&mut apart, Story::APART.len() as u64)];
            self.stories = vec![story];
        }
        self.start_wait_ns = [100 * Nanos::MILLISECOND, Nanos::SECOND][index(random, 2)];
        self.think_ns = [1, 3][index(random, 2)] * Nanos::MILLISECOND;
        self.chaos_ns = (4 + random.below(6)) * Nanos::SECOND;
        self.commands = 2_000 / self.clients as u64;
        if random.below(4) > 0 {
            self.fault_gap_ns = 4 * Nanos::SECOND;
        }
        if let (Some(nodes), true) = (story.size(), any_size) {
            self.nodes = nodes;
            self.priorities.resize(nodes, 1);
            self.observers.resize(nodes, false);
            self.priorities[0] = self.priorities[0].max(1);
        }
        story.set_up(self, random);
    }

    /// Only these kinds of faults happen.
    pub fn only(&mut self, faults: &[Fault]) {
        self.faults = faults.iter().fold(0, |bits, kind| bits | kind.bit());
    }

    pub(super) fn mutants(&self) -> Mutants {
        self.mutant.map_or(Mutants::NONE, |mutant| Mutants::NONE.with(mutant))
    }

    /// Votes that elect, acknowledgements that commit.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters().count() / 2 + 1
    }
}

const MICROSECOND: u64 = 1_000;

fn index(random: &mut Prng, bound: u64) -> usize {
    random.below(bound) as usize
}

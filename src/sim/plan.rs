//! What a seed stands for: the group, its clients, and how hostile their world is. Everything is drawn here, so that a run
//! is a function of its plan.

use super::faults::Fault;
use super::stories::Story;
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
    /// Commands of each client, at most: the log must fit the hot tier.
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
    /// How long there are faults, ns.
    pub chaos_ns: u64,
    /// Mean time between two of them, ns.
    pub fault_gap_ns: u64,
    /// A rule that is taken out, to see that this is noticed.
    pub mutant: Option<Mutant>,
    /// Kinds of faults that happen, a bit each (`Fault::KINDS`).
    pub faults: u32,
    /// How long a control thread may be held up, at most, between its look at the core and what it does about it, ns.
    pub look_ns: u64,
    /// How long the first election of a group that starts waits for all voters, ns.
    pub start_wait_ns: u64,
    /// So many of the clients only ask questions.
    pub readers: usize,
    /// Faults that belong together, told over and over.
    pub stories: Vec<Story>,
}

/// In a million.
pub(super) const MILLION: u64 = 1_000_000;

impl Plan {
    /// The plan of a seed; `nodes` where the group's size is given.
    #[must_use]
    pub fn draw(seed: u64, nodes: Option<usize>) -> Self {
        let mut random = Prng::new(seed);
        let given = nodes;
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
            commands: 1200 / clients as u64,
            think_ns: [1, 3, 10, 30][index(&mut random, 4)] * Nanos::MILLISECOND,
            in_flight: [1, 4, 16][index(&mut random, 3)],
            command_bytes_max: [16, 64, 200][index(&mut random, 3)],
            durability,
            priorities: vec![1; nodes],
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
            chaos_ns: (2 + random.below(8)) * Nanos::SECOND,
            fault_gap_ns: [100, 400, 1_500][index(&mut random, 3)] * Nanos::MILLISECOND,
            mutant: None,
            faults: u32::MAX,
            look_ns: 0,
            start_wait_ns: Nanos::SECOND,
            readers: 0,
            stories: Vec::new(),
        };
        // A quarter of the worlds are quieter and last longer: hours count there, in the others what happens in them.
        if random.below(4) == 0 {
            plan.think_ns *= 50;
            plan.chaos_ns *= 20;
            plan.fault_gap_ns *= 10;
        }
        if random.below(3) == 0 {
            for priority in &mut plan.priorities {
                *priority = random.below(4) as u8;
            }
            if plan.priorities.iter().all(|priority| *priority == 0) {
                plan.priorities[0] = 1;
            }
        }
        // Half of the worlds know only some kinds of faults: what all of them together hide, few of them show.
        if random.below(2) == 0 {
            plan.faults = random.next_u64() as u32 & random.next_u64() as u32;
        }
        plan.look_ns = [0, 0, 20 * MICROSECOND, 10 * Nanos::MILLISECOND][index(&mut random, 4)];
        if random.below(2) == 0 {
            plan.tell(&mut random, given.is_none());
        }
        plan
    }

    /// Stories are told, in a world that is made for them: busy, and without much else.
    fn tell(&mut self, random: &mut Prng, any_size: bool) {
        let story = Story::ALL[index(random, Story::ALL.len() as u64)];
        self.stories = vec![story];
        if random.below(4) == 0 {
            self.stories.push(Story::ALL[index(random, Story::ALL.len() as u64)]);
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
            self.priorities[0] = self.priorities[0].max(1);
        }
        story.set_up(self, random);
    }

    /// Only these kinds of faults happen.
    pub fn only(&mut self, faults: &[Fault]) {
        let kinds = Fault::KINDS.iter().enumerate();
        self.faults =
            kinds.filter(|(_, kind)| faults.contains(kind)).map(|(bit, _)| 1 << bit).sum();
    }

    pub(super) fn mutants(&self) -> Mutants {
        self.mutant.map_or(Mutants::NONE, |mutant| Mutants::NONE.with(mutant))
    }

    /// Votes that elect, acknowledgements that commit.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.nodes / 2 + 1
    }
}

const MICROSECOND: u64 = 1_000;

fn index(random: &mut Prng, bound: u64) -> usize {
    random.below(bound) as usize
}

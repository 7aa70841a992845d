//! A simulated reader: the shipped one under a program that asks nodes by themselves, and remembers what each had said before.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::clock::Clock;
use super::machine::GROUP;
use super::plan::Plan;
use super::wire::{Endpoint, SharedPort, SimNetwork};
use crate::client::{Demand, Lag, ReadOutcome, Reader};
use crate::stream::prng::Prng;
use crate::types::{Nanos, Sequence};

/// What a bounded answer may be old, at most, ns.
const WITHIN_NS: u64 = 50 * Nanos::MILLISECOND;
/// How long a question may wait, at most, ns.
const WAIT_NS: u64 = 200 * Nanos::MILLISECOND;

/// A command that a client was told of: its entry, and its place in the order.
pub(super) type Wrote = (Sequence, u64);

/// A question on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) node: usize,
    /// Of the node's process, when it was asked.
    pub(super) life: u64,
    pub(super) sent_at: Nanos,
    pub(super) demand: Demand,
    /// What it must hold by its demand.
    pub(super) wrote: Option<Wrote>,
    /// What that process had answered before: entry, and commands.
    pub(super) before: (Sequence, u64),
}

/// A question that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Read {
    pub(super) asked: Asked,
    pub(super) outcome: ReadOutcome,
    pub(super) lag: Option<Lag>,
    /// Commands that had taken effect, and the last of them.
    pub(super) told: Option<(u64, u64)>,
}

/// One reader.
pub(super) struct SimReader {
    pub(super) clock: Clock,
    pub(super) port: SharedPort,
    library: Reader<SimNetwork>,
    random: Prng,
    waiting: BTreeMap<u64, Asked>,
    /// By node: life of its process, and the most that it answered.
    seen: Vec<(u64, (Sequence, u64))>,
    next_at: Nanos,
    pub(super) wake_at: Nanos,
}

impl SimReader {
    /// The reader at the address of client `number`, which is nobody else's.
    pub(super) fn new(number: usize, plan: &Plan, clock: Clock, seed: u64) -> Self {
        let port = SharedPort::default();
        let network = SimNetwork::new(Endpoint::Client(number), plan.nodes, Rc::clone(&port));
        Self {
            clock,
            port,
            library: Reader::new(GROUP, seed, network),
            random: Prng::new(seed),
            waiting: BTreeMap::new(),
            seen: vec![(0, (Sequence(0), 0)); plan.nodes],
            next_at: Nanos(0),
            wake_at: Nanos(0),
        }
    }

    /// One turn at `now`. `lives` are those of the nodes' processes, `wrote` is what a client was told last.
    pub(super) fn step(
        &mut self,
        now: Nanos,
        plan: &Plan,
        lives: &[u64],
        wrote: Option<Wrote>,
    ) -> Vec<Read> {
        let local = self.clock.local(now);
        let (waiting, seen, mut ended) = (&mut self.waiting, &mut self.seen, Vec::new());
        self.library.poll(local, |reading| {
            let asked = waiting.remove(&reading.number).expect("each question ends once");
            let told = reading.reply.first_chunk().zip(reading.reply.last_chunk());
            let told =
                told.map(|(count, last)| (u64::from_le_bytes(*count), u64::from_le_bytes(*last)));
            let read = Read { asked, outcome: reading.outcome, lag: reading.lag, told };
            if let (Some(lag), Some((count, _))) = (read.lag, told)
                && asked.life == lives[asked.node]
            {
                let (life, most) = &mut seen[asked.node];
                let before = if *life == asked.life { *most } else { (Sequence(0), 0) };
                *life = asked.life;
                *most = (before.0.max(lag.sequence), before.1.max(count));
            }
            ended.push(read);
        });
        if now >= self.next_at {
            self.next_at = now.plus(self.random.below(4 * plan.think_ns) + 1);
            self.ask(now, plan, lives, wrote);
        }
        self.wake_at = self.clock.world(self.library.deadline()).min(self.next_at);
        ended
    }

    fn ask(&mut self, now: Nanos, plan: &Plan, lives: &[u64], wrote: Option<Wrote>) {
        let node = self.random.below(plan.nodes as u64) as usize;
        let kind = self.random.below(5);
        let (within, wait_ns) = (self.random.below(WITHIN_NS), self.random.below(WAIT_NS));
        let wrote = wrote.filter(|_| kind < 2);
        let demand = Demand {
            within_ns: [0, u64::MAX, u64::MAX, within, 0][kind as usize],
            at_least: wrote.map_or(Sequence(0), |(entry, _)| entry),
            wait_ns: if kind == 2 { 0 } else { wait_ns },
        };
        let life = lives[node];
        let before = self.seen[node];
        let before = if before.0 == life { before.1 } else { (Sequence(0), 0) };
        let address = Endpoint::Node(node).address();
        let local = self.clock.local(now);
        if let Ok(number) = self.library.ask(local, address, b"", demand) {
            let asked = Asked { node, life, sent_at: now, demand, wrote, before };
            self.waiting.insert(number, asked);
        }
    }
}

impl super::world::World {
    pub(super) fn wake_reader(&mut self, reader: usize, at: Nanos) {
        let at = at.max(self.now);
        self.readers[reader].wake_at = at;
        self.schedule(at, super::world::Event::Reader(reader));
    }

    /// Runs a reader.
    pub(super) fn step_reader(&mut self, reader: usize) -> Result<(), super::check::Violation> {
        self.trace.event(self.now, [3, reader as u64, 0]);
        let lives: Vec<u64> = self.machines.iter().map(|machine| machine.life).collect();
        // It stands beside a client, and reads what that one wrote.
        let client = reader % self.clients.len();
        let wrote = self.clients[client].wrote;
        for read in self.readers[reader].step(self.now, &self.plan, &lives, wrote) {
            self.trace.line(self.now, || format!("reader {reader}: {read:?}"));
            let clock = self.machines[read.asked.node].clock;
            let certain = read.lag.and_then(|lag| {
                Some(clock.world(Nanos(lag.given_at.0.saturating_sub(lag.lag_ns?))))
            });
            let follows = read.lag.is_some_and(|lag| lag.heard_ns != Some(0));
            self.coverage.hit(
                match read.outcome {
                    ReadOutcome::Answered if read.asked.demand.within_ns == u64::MAX => {
                        "local-answered"
                    }
                    ReadOutcome::Answered if follows => "local-fresh",
                    ReadOutcome::TooStale => "local-too-stale",
                    ReadOutcome::Behind => "local-behind",
                    _ => "local-other",
                },
                1,
            );
            self.checks.read(self.now, &read, lives[read.asked.node], certain)?;
        }
        self.transmit(Endpoint::Client(self.plan.clients + reader));
        let at = self.readers[reader].wake_at.max(self.now.plus(10_000));
        self.wake_reader(reader, at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Outcome, Plan, run};
    use crate::mutants::Mutant;
    use crate::types::Nanos;

    /// A world with readers in which `mutant` is planted.
    fn world(seed: u64, nodes: usize, mutant: Option<Mutant>) -> Outcome {
        let mut plan = Plan::draw(seed, Some(nodes));
        plan.askers = 2;
        plan.think_ns = plan.think_ns.min(3 * Nanos::MILLISECOND);
        plan.mutant = mutant;
        run(&plan, false)
    }

    #[test]
    fn g136_readers_are_told_the_truth_whatever_happens_to_nodes_and_network() {
        let mut total = super::super::Coverage::default();
        for seed in 0..6 {
            let outcome = world(seed, 3, None);
            assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
            total.add(&outcome.coverage);
        }
        for what in ["local-answered", "local-fresh", "local-too-stale", "local-behind"] {
            assert!(total.of(what) > 10, "{what}: {}", total.of(what));
        }
    }

    #[test]
    fn g136_a_node_that_claims_more_than_it_knows_is_found_out() {
        for (mutant, checker) in [
            (Mutant::FreshOnHearing, "local_lag"),
            (Mutant::FreshUnapplied, "local_lag"),
            (Mutant::IgnoreDemand, "local_demand"),
        ] {
            let found = (0..20).find_map(|seed| world(seed, 3, Some(mutant)).violation);
            let (_, violation) = found.expect("it is noticed");
            assert_eq!(violation.checker, checker, "{mutant:?}: {}", violation.text);
        }
    }
}

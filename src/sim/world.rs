//! The world: what happens next, and when.

use core::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

use zerocopy::FromBytes;

use super::check::{Checks, Violation};
use super::client::SimClient;
use super::clock::Clock;
use super::coverage::Coverage;
use super::faults::Strike;
use super::lane::LaneLetter;
use super::machine::{GROUP, Machine, Part};
use super::nemesis::Phase;
use super::paths::Paths;
use super::plan::Plan;
use super::reader::SimReader;
use super::replay::Captured;
use super::trace::Trace;
use super::wire::{Endpoint, Sent};
use crate::stream::datagram::{DatagramKind, FLAG_LANE, StatusBody, parse};
use crate::stream::prng::Prng;
use crate::types::Nanos;

/// Events of one run, at most: a world that never comes to rest is a bug, too.
const EVENTS_MAX: u64 = 50_000_000;
/// Machines' clocks begin somewhere below this.
const CLOCK_OFFSETS_NS: u64 = 1_000 * Nanos::SECOND;

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The first promise that was broken, and when.
    pub violation: Option<(Nanos, Violation)>,
    /// Virtual time that passed.
    pub simulated: Nanos,
    /// Events played.
    pub events: u64,
    /// Commands that took effect.
    pub commands: u64,
    /// Entries committed.
    pub entries: u64,
    /// How long clients waited, and how far behind observers were.
    pub pace: Pace,
    /// Equal for two runs of one plan.
    pub trace_hash: u64,
    /// What was hit.
    pub coverage: Coverage,
    /// The trace in words, if it was asked for.
    pub lines: Vec<String>,
}

/// What clients and observers saw of a run's speed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Pace {
    /// Requests of clients that ended.
    pub answers: u64,
    /// From sending to the end of each, together, ns.
    pub waited_ns: u64,
    /// The longest of them, ns.
    pub longest_wait_ns: u64,
    /// How long the first entry that an observer lacked had been committed, at most, while it followed, ns.
    pub observer_lag_ns: u64,
}

/// What happens at a moment.
#[derive(Debug)]
pub(super) enum Event {
    /// A datagram arrives.
    Arrive { from: Endpoint, to: Endpoint, bytes: Rc<[u8]> },
    /// A datagram between control threads arrives.
    Control { to: usize, bytes: Rc<[u8]> },
    /// Something of the catch-up lane arrives.
    Lane { from: usize, to: usize, letter: LaneLetter },
    /// A thread runs.
    Run { node: usize, part: Part, life: u64 },
    /// A client runs.
    Client(usize),
    /// A reader runs.
    Reader(usize),
    /// A fault strikes, and the next one is drawn.
    Drawn(Strike),
    /// A fault of a story or of a script strikes.
    Strike(Strike),
    /// An order to hand over, and the next one is drawn.
    HandOver(Strike),
    /// A client is left one door, and the next one is drawn.
    Door(Strike),
    /// A client falls asleep, and the next one is drawn.
    Nap(Strike),
    /// Bytes of a node that runs change on its disk, and the next time is drawn.
    Rot,
    /// A story begins.
    Story,
    /// The one that is told when the faults end.
    LastStory,
    /// It ends.
    Relent(Strike),
    /// A process starts.
    Start(usize),
    /// A process that has halted is ended and started again, if it is still the one of this life.
    Replace { node: usize, life: u64 },
    /// A process dies, if it is still the one of this life.
    Die { node: usize, life: u64, down_ns: u64 },
    /// A machine loses its power.
    PowerOff { node: usize, seed: u64 },
    /// The next phase of the run.
    Next(Phase),
}

/// An event and its moment; of several at one moment the first that was scheduled comes first.
#[derive(Debug)]
struct Scheduled {
    at: Nanos,
    number: u64,
    event: Event,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Scheduled {}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) now: Nanos,
    /// Of the schedule and the network; faults have one of their own, so that they stay when a schedule changes.
    pub(super) random: Prng,
    pub(super) fault_random: Prng,
    pub(super) hand_over_random: Prng,
    pub(super) rot_random: Prng,
    /// By node: since when, on its own clock, bytes of its files are not what they were.
    pub(super) rotten: Vec<Option<Nanos>>,
    /// The durability changes in this world: what is acknowledged may be in memory alone.
    pub(super) memory_may_count: bool,
    pub(super) door_random: Prng,
    pub(super) nap_random: Prng,
    /// A client that reaches one node alone at the end, and how many answers it must have had then.
    pub(super) behind_a_door: Option<(usize, u64)>,
    pub(super) machines: Vec<Machine>,
    pub(super) clients: Vec<SimClient>,
    pub(super) readers: Vec<SimReader>,
    pub(super) paths: Paths,
    pub(super) checks: Checks,
    pub(super) coverage: Coverage,
    pub(super) pace: Pace,
    pub(super) trace: Trace,
    pub(super) phase: Phase,
    /// Nodes that know the group as founded, a bit each.
    pub(super) founders: u32,
    /// Nodes whose process dies at their next vote, until when, and for how long.
    pub(super) dies_voting: Vec<Option<(Nanos, u64)>>,
    /// By node: until when an end that it cannot escape is on its way.
    pub(super) doomed_until: Vec<Nanos>,
    pub(super) captured: Vec<Captured>,
    /// Nodes without state, or with damage, a bit each.
    pub(super) blank: u32,
    /// Nodes of another founding, a bit each.
    pub(super) strangers: u32,
    /// The next core that is given bytes of another log stands still: until when that holds, and for how long.
    pub(super) stalls_pulling: Option<(Nanos, u64)>,
    /// Commands each client had answered when the faults ended.
    pub(super) answered_before: Vec<u64>,
    queue: BinaryHeap<Scheduled>,
    scheduled: u64,
    played: u64,
}

/// Plays a plan to its end, or to the first broken promise.
#[must_use]
pub fn run(plan: &Plan, text: bool) -> Outcome {
    let mut world = World::new(plan, text);
    world.begin();
    play_out(world)
}

/// The same, with strikes at given times, ns, besides those that the plan draws.
#[cfg(test)]
pub(super) fn run_script(plan: &Plan, script: &[(u64, Strike)]) -> Outcome {
    let mut world = World::new(plan, true);
    world.begin();
    for (at, strike) in script {
        world.schedule(Nanos(*at), Event::Strike(*strike));
    }
    play_out(world)
}

fn play_out(mut world: World) -> Outcome {
    let mut violation = None;
    while !world.is_over() {
        if let Err(broken) = world.play() {
            world.trace.line(world.now, || format!("{}: {}", broken.checker, broken.text));
            violation = Some((world.now, broken));
            break;
        }
    }
    world.count_processes();
    let (commands, entries) = world.checks.totals();
    let pace = Pace { observer_lag_ns: world.checks.observer_lag_ns(), ..world.pace };
    Outcome {
        pace,
        violation,
        simulated: world.now,
        events: world.played,
        commands,
        entries,
        trace_hash: world.trace.hash(),
        coverage: world.coverage,
        lines: world.trace.into_lines(),
    }
}

impl World {
    pub(super) fn new(plan: &Plan, text: bool) -> Self {
        let mut random = Prng::new(plan.seed ^ 0x5749_5245);
        let mut clock = || {
            let drift = random.below(2 * plan.drift_ppm + 1).cast_signed();
            let drift = drift - plan.drift_ppm.cast_signed();
            Clock::new(random.below(CLOCK_OFFSETS_NS), drift)
        };
        let machines = (0..plan.nodes).map(|node| Machine::new(node, plan, clock())).collect();
        let clients = (0..plan.clients)
            .map(|client| {
                let seed = plan.seed.wrapping_mul(31).wrapping_add(client as u64 + 1);
                SimClient::new(client, plan, clock(), seed)
            })
            .collect();
        let readers = (0..plan.askers)
            .map(|reader| {
                let seed = plan.seed.wrapping_mul(37).wrapping_add(reader as u64 + 1);
                SimReader::new(plan.clients + reader, plan, clock(), seed)
            })
            .collect();
        Self {
            plan: plan.clone(),
            now: Nanos(0),
            fault_random: Prng::new(plan.seed ^ 0x4641_554C),
            hand_over_random: Prng::new(plan.seed ^ 0x4F56_4552),
            rot_random: Prng::new(plan.seed ^ 0x524F_5421),
            rotten: vec![None; plan.nodes],
            memory_may_count: false,
            door_random: Prng::new(plan.seed ^ 0x4F50_454E),
            nap_random: Prng::new(plan.seed ^ 0x4E41_5020),
            behind_a_door: None,
            random,
            machines,
            clients,
            readers,
            paths: Paths::new(plan),
            checks: Checks::new(plan),
            coverage: Coverage::default(),
            pace: Pace::default(),
            trace: Trace::new(text),
            phase: Phase::Chaos,
            founders: 0,
            dies_voting: vec![None; plan.nodes],
            doomed_until: vec![Nanos(0); plan.nodes],
            blank: 0,
            strangers: 0,
            stalls_pulling: None,
            captured: (0..plan.nodes).map(|_| Captured::default()).collect(),
            answered_before: Vec::new(),
            queue: BinaryHeap::new(),
            scheduled: 0,
            played: 0,
        }
    }

    /// `event` happens at `at`, or now.
    pub(super) fn schedule(&mut self, at: Nanos, event: Event) {
        self.scheduled += 1;
        let at = at.max(self.now);
        self.queue.push(Scheduled { at, number: self.scheduled, event });
    }

    /// Plays the next event.
    pub(super) fn play(&mut self) -> Result<(), Violation> {
        let Some(Scheduled { at, event, .. }) = self.queue.pop() else {
            return Err(Violation::liveness("nothing is left to happen".to_owned()));
        };
        self.now = at;
        self.played += 1;
        if self.played > EVENTS_MAX {
            return Err(Violation::liveness(format!("{EVENTS_MAX} events and no end")));
        }
        match event {
            Event::Arrive { from, to, bytes } => self.arrive(from, to, bytes),
            Event::Control { to, bytes } => self.control_arrives(to, bytes),
            Event::Lane { from, to, letter } => self.lane_arrives(from, to, letter),
            Event::Run { node, part, life } => {
                let machine = &mut self.machines[node];
                let index = part as usize;
                if machine.life != life || machine.wake_at[index] != at {
                    return Ok(()); // of an earlier life, or put off since
                }
                machine.wake_at[index] = Nanos(u64::MAX);
                if machine.paused_until[index] > at {
                    let until = machine.paused_until[index];
                    self.wake(node, part, until);
                    return Ok(());
                }
                return self.step(node, part);
            }
            Event::Client(client) => {
                if self.clients[client].wake_at == at {
                    return self.step_client(client);
                }
            }
            Event::Reader(reader) => {
                if self.readers[reader].wake_at == at {
                    return self.step_reader(reader);
                }
            }
            Event::Drawn(strike) => {
                self.draw_strike();
                self.strike(&strike);
            }
            Event::HandOver(strike) => {
                self.draw_hand_over();
                self.strike(&strike);
            }
            Event::Door(strike) => {
                self.draw_door();
                self.strike(&strike);
            }
            Event::Nap(strike) => {
                self.draw_nap();
                self.strike(&strike);
            }
            Event::Strike(strike) => self.strike(&strike),
            Event::Rot => {
                self.draw_rot();
                self.rot_running();
            }
            Event::Story => self.tell_story(),
            Event::LastStory => self.tell_last_story(),
            Event::Relent(strike) => self.relent(&strike),
            Event::Start(node) => return self.start(node),
            Event::Replace { node, life } => {
                if self.machines[node].life == life {
                    self.end(node, "replaced");
                }
            }
            Event::Die { node, life, down_ns } => {
                if self.machines[node].life == life {
                    self.trace.line(self.now, || format!("node {node}: dies at its vote"));
                    self.crash(node);
                    self.schedule(self.now.plus(down_ns), Event::Start(node));
                }
            }
            Event::PowerOff { node, seed } => self.power_off(node, seed),
            Event::Next(phase) => return self.enter(phase),
        }
        Ok(())
    }

    /// A thread of a node runs at `at`, if it does not run before.
    pub(super) fn wake(&mut self, node: usize, part: Part, at: Nanos) {
        let machine = &mut self.machines[node];
        if machine.process.is_none() || at >= machine.wake_at[part as usize] {
            return;
        }
        let at = at.max(self.now);
        machine.wake_at[part as usize] = at;
        let life = machine.life;
        self.schedule(at, Event::Run { node, part, life });
    }

    /// As [`World::wake`], after the time that it takes one thread to see what another has done.
    pub(super) fn wake_soon(&mut self, node: usize, part: Part) {
        let slow = self.random.below(100) == 0;
        let longest = if slow { 5 * Nanos::MILLISECOND } else { 20 * Nanos::MICROSECOND };
        let at = self.now.plus(self.random.below(longest) + 1);
        self.wake(node, part, at);
    }

    pub(super) fn wake_client(&mut self, client: usize, at: Nanos) {
        let at = at.max(self.now).max(self.clients[client].asleep_until);
        self.clients[client].wake_at = at;
        self.schedule(at, Event::Client(client));
    }

    /// Sends what a port holds on its way.
    pub(super) fn transmit(&mut self, from: Endpoint) {
        let port = match from {
            Endpoint::Node(node) => &self.machines[node].port,
            Endpoint::Client(client) => match client.checked_sub(self.clients.len()) {
                Some(reader) => &self.readers[reader].port,
                None => &self.clients[client].port,
            },
        };
        let outbox = core::mem::take(&mut port.borrow_mut().outbox);
        for Sent { to, bytes } in outbox {
            let fates = self.paths.fates(&mut self.random, &self.plan, (from, to), false);
            for fate in fates.into_iter().flatten() {
                let bytes = if fate.corrupt { self.corrupted(&bytes) } else { Rc::clone(&bytes) };
                self.schedule(self.now.plus(fate.after_ns), Event::Arrive { from, to, bytes });
            }
        }
    }

    /// Changes a bit of the log's bytes. Headers and everything that is not the log are left alone: the datagram's own
    /// checksum covers them on a network, and a key where that is not enough; the log is chained besides.
    fn corrupted(&mut self, bytes: &Rc<[u8]>) -> Rc<[u8]> {
        const HEADER: usize = crate::limits::DATAGRAM_HEADER_BYTES;
        let is_log = parse(bytes, GROUP).is_ok_and(|(header, kind, body)| {
            kind == DatagramKind::Data && header.flags & FLAG_LANE == 0 && !body.is_empty()
        });
        if !is_log {
            return Rc::clone(bytes);
        }
        self.coverage.hit("corrupted", 1);
        let mut changed = bytes.to_vec();
        let at = HEADER + self.random.below((bytes.len() - HEADER) as u64) as usize;
        changed[at] ^= 1 << self.random.below(8);
        changed.into()
    }

    fn arrive(&mut self, from: Endpoint, to: Endpoint, bytes: Rc<[u8]>) {
        match to {
            Endpoint::Node(node)
                if self.machines.get(node).is_some_and(|m| m.process.is_some()) =>
            {
                if let Endpoint::Node(from) = from {
                    self.captured[node].data(from, &bytes);
                }
                self.machines[node].port.borrow_mut().arrive(from, Rc::clone(&bytes));
                if let (Endpoint::Node(from), Some(stamp)) = (from, echo(&bytes)) {
                    let sent_at = self.machines[node].clock.world(stamp);
                    self.checks.heard(sent_at, node, from);
                }
                let at = self.now.plus(self.random.below(2_000));
                self.wake(node, Part::Core, at);
            }
            Endpoint::Client(client) if client < self.clients.len() => {
                self.clients[client].port.borrow_mut().arrive(from, bytes);
                let at = self.now.plus(self.random.below(20_000));
                if at < self.clients[client].wake_at {
                    self.wake_client(client, at);
                }
            }
            Endpoint::Client(end) => {
                let reader = end - self.clients.len();
                self.readers[reader].port.borrow_mut().arrive(from, bytes);
                let at = self.now.plus(self.random.below(20_000));
                if at < self.readers[reader].wake_at {
                    self.wake_reader(reader, at);
                }
            }
            Endpoint::Node(_) => {}
        }
    }
}

/// The stamp that a status echoes.
fn echo(bytes: &[u8]) -> Option<Nanos> {
    let (header, kind, body) = parse(bytes, GROUP).ok()?;
    let (status, _) = StatusBody::read_from_prefix(body).ok()?;
    // What is passed on for a client speaks of that client's clock.
    let own = kind == DatagramKind::Status && header.flags & FLAG_LANE == 0;
    own.then_some(Nanos(status.echo.get()))
}

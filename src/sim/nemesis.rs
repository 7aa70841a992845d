//! The course of a run: faults, then a healed quorum that must make progress, then a whole group that must agree.

use core::sync::atomic::Ordering::Relaxed;

use super::check::Violation;
use super::client::SimClient;
use super::faults::{self, Fault, Strike};
use super::machine::{Part, SESSIONS_MAX};
use super::paths::Traffic;
use super::world::{Event, World};
use crate::journal::segment_name;
use crate::link::{Durability, Rung};
use crate::replica::Doing;
use crate::types::{Nanos, NodeId, Position};

/// Time in which a healed quorum must answer every client, ns.
const PROGRESS_NS: u64 = 10 * Nanos::SECOND;
/// Time in which a whole group must agree, ns.
const AGREE_NS: u64 = 10 * Nanos::SECOND;
/// How often it is looked whether it does, ns.
const LOOK_NS: u64 = 20 * Nanos::MILLISECOND;
/// Processes that were started are given this long before it is decided which of them make a quorum, ns.
const SETTLE_NS: u64 = Nanos::MILLISECOND;
/// Commands that each client may send after the faults.
const AFTERWARDS: u64 = 5;

/// Where a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Faults.
    Chaos,
    /// No more faults; every process is started.
    Calm,
    /// A quorum is healed, the others are cut off. It must answer every client by then.
    Quorum { until: Nanos },
    /// All are healed, and must agree by then.
    Whole { until: Nanos },
    /// Done.
    Over,
}

impl World {
    /// The first events.
    pub(super) fn begin(&mut self) {
        for node in 0..self.plan.nodes {
            let at = Nanos(self.random.below(50 * Nanos::MILLISECOND));
            self.schedule(at, Event::Start(node));
        }
        for client in 0..self.plan.clients {
            let at = Nanos(self.random.below(100 * Nanos::MILLISECOND));
            self.wake_client(client, at);
        }
        for reader in 0..self.plan.askers {
            self.wake_reader(reader, Nanos(50 * Nanos::MILLISECOND));
        }
        self.draw_strike();
        self.draw_hand_over();
        self.draw_rot();
        for (at, strike) in faults::draw_ladder(&self.plan) {
            self.memory_may_count = true;
            self.schedule(Nanos(at), Event::Strike(strike));
        }
        self.draw_door();
        self.draw_nap();
        self.begin_stories();
        self.schedule(Nanos(self.plan.chaos_ns), Event::Next(Phase::Calm));
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn draw_strike(&mut self) {
        let (wait, strike) = faults::draw(&mut self.fault_random, &self.plan);
        let at = self.now.plus(wait);
        if at.0 < self.plan.chaos_ns {
            self.schedule(at, Event::Drawn(strike));
        }
    }

    pub(super) fn draw_hand_over(&mut self) {
        if !self.plan.has(Fault::HandOver) {
            return;
        }
        let (wait, strike) = faults::draw_hand_over(&mut self.hand_over_random, &self.plan);
        let at = self.now.plus(wait);
        if at.0 < self.plan.chaos_ns {
            self.schedule(at, Event::HandOver(strike));
        }
    }

    /// A fault strikes.
    pub(super) fn strike(&mut self, strike: &Strike) {
        let strike = &self.aim(strike);
        if self.phase != Phase::Chaos || !self.may_strike(strike) {
            return;
        }
        self.coverage.hit(strike.fault.name(), 1);
        self.trace.line(self.now, || format!("fault: {strike:?}"));
        let &Strike { fault, node, sides, lasts_ns, .. } = strike;
        let until = self.now.plus(lasts_ns);
        match fault {
            Fault::Crash => {
                self.crash(node);
                self.schedule(until, Event::Start(node));
            }
            Fault::VoteCrash => {
                self.dies_voting[node] = Some((self.now.plus(500 * Nanos::MILLISECOND), lasts_ns));
            }
            Fault::Replay => self.replay(node, sides),
            Fault::OldWords => self.replay_old_words(node),
            Fault::PullStall => self.stall_next_pull(lasts_ns),
            Fault::OtherFounding => self.estrange(strike),
            Fault::Wipe => {
                self.wipe(node);
                self.schedule(until, Event::Start(node));
            }
            Fault::Rot => {
                self.rot(node, sides);
                self.schedule(until, Event::Start(node));
            }
            Fault::DiskStall => {
                let until = self.now.plus(lasts_ns % Nanos::SECOND * 4);
                self.machines[node].disk_stalls_until = until;
            }
            Fault::Diverge => {
                self.machines[node].twist.store(sides | 1, Relaxed);
                self.checks.diverged(node);
            }
            Fault::PowerLoss => self.lose_power(node, sides, until),
            Fault::Blackout => {
                for node in 0..self.plan.nodes {
                    self.lose_power(node, sides.rotate_left(node as u32), until);
                }
            }
            Fault::Restart => self.stop(node),
            Fault::Pause => {
                self.machines[node].paused_until = [until; 4];
            }
            Fault::Stall => {
                self.machines[node].paused_until[(sides % 4) as usize] = until;
            }
            Fault::ClockStep => {
                let range = 2 * Nanos::SECOND;
                let by = (sides % (2 * range)).cast_signed() - range.cast_signed();
                self.machines[node].clock.step_wall(by);
            }
            Fault::SyncFails => {
                let base = self.machines[node].tail_segment();
                self.machines[node].disk.fail_syncs(&segment_name(base));
            }
            Fault::DiskFull => {
                self.machines[node].disk.set_space(Some(0));
                self.schedule(until, Event::Relent(*strike));
            }
            Fault::ClientDies => self.end_client(node % self.plan.clients, sides & 1 == 1),
            Fault::HandOver => self.hand_over(strike.other),
            Fault::Nap => self.nap(strike),
            Fault::Ladder => self.change_durability(sides),
            _ => {
                self.cut(strike, true);
                self.schedule(until, Event::Relent(*strike));
            }
        }
    }

    /// A client's program dies; the next one goes on with its session, or not.
    fn end_client(&mut self, client: usize, resumes: bool) {
        if resumes {
            self.clients[client].resume(&self.plan);
        } else {
            self.clients[client].restart(&self.plan);
        }
    }

    /// The atlas: one good copy of everything acknowledged is left, so that a group that stops is a bug.
    fn may_strike(&self, strike: &Strike) -> bool {
        let memory_counts = self.plan.durability.leader == Rung::Memory || self.memory_may_count;
        // A node that loses its power while the group is being founded may be left without state beside others that have
        // one: a known limit, which a person resolves.
        let founded = self.founders.count_ones() as usize == self.plan.voters().count();
        if matches!(strike.fault, Fault::Blackout | Fault::PowerLoss) && !founded {
            return false;
        }
        match strike.fault {
            // What is acknowledged may be in memory alone: that of a minority may go.
            Fault::Blackout => !memory_counts,
            Fault::PowerLoss if self.plan.observers[strike.node] => true,
            Fault::PowerLoss if memory_counts => {
                let shaky = |node: usize| {
                    let process = self.machines[node].process.as_ref();
                    process.is_none_or(|process| process.core.observe().provisional)
                        || self.is_stranger(node)
                };
                let others = self.plan.voters().filter(|&node| node != strike.node);
                others.filter(|&node| shaky(node)).count() + 1 < self.plan.majority()
                    && self.plan.voters().count() > 2
            }
            Fault::OneWay | Fault::Lag => strike.node != strike.other,
            Fault::Bridge => self.plan.nodes > 2,
            // A minority may be blank: then everybody who may lead knows of everything that is committed.
            Fault::Wipe | Fault::Rot | Fault::OtherFounding => {
                let blank = |&node: &usize| node != strike.node && self.is_blank(node);
                let others = (0..self.plan.nodes).filter(blank).count();
                founded && others + 1 < self.plan.majority() && !self.is_blank(strike.node)
            }
            // Whom a majority contradicts stops. Two that contradict each other both do, for ever.
            Fault::Diverge => {
                let runs = self.machines[strike.node].process.is_some();
                runs && self.plan.voters().count() > 2 && !self.checks.has_diverged()
            }
            // The dead leave their sessions behind until these time out: there must be room for the living.
            Fault::ClientDies => {
                let lives: u64 = self.clients.iter().map(|client| client.lives).sum();
                lives < SESSIONS_MAX as u64 / 2
            }
            _ => true,
        }
    }

    /// Whoever leads is told to hand over to `other`, or to the best if it is that one itself.
    fn hand_over(&mut self, other: usize) {
        for node in 0..self.plan.nodes {
            let machine = &mut self.machines[node];
            let local = machine.clock.local(self.now);
            let Some(process) = &mut machine.process else { continue };
            let begun = if node == other {
                process.control.step_down(local).is_ok()
            } else {
                process.control.transfer(local, NodeId(other as u16)).is_ok()
            };
            if begun {
                self.coverage.hit("hand-over-begun", 1);
                self.wake_soon(node, Part::Control);
            }
        }
    }

    /// Whoever leads is told to change the durability to what two bits say.
    fn change_durability(&mut self, bits: u64) {
        let rung = |bit: u64| if bits >> bit & 1 == 0 { Rung::Memory } else { Rung::Disk };
        let wanted = Durability { leader: rung(0), follower: rung(1) };
        for node in 0..self.plan.nodes {
            let Some(process) = &mut self.machines[node].process else { continue };
            if process.control.set_durability(wanted).is_ok() {
                self.wake_soon(node, Part::Control);
            }
        }
    }

    fn lose_power(&mut self, node: usize, seed: u64, until: Nanos) {
        // Perhaps in the middle of what its threads are writing.
        self.machines[node].disk.stop_after(seed % 16);
        let at = self.now.plus(seed % (2 * Nanos::MILLISECOND));
        self.doom(node, at);
        self.schedule(at, Event::PowerOff { node, seed });
        self.schedule(until.max(at.plus(1)), Event::Start(node));
    }

    pub(super) fn power_off(&mut self, node: usize, seed: u64) {
        self.count_process(node);
        self.machines[node].power_off(seed);
        self.trace.line(self.now, || format!("node {node}: no power"));
    }

    /// A fault ends.
    pub(super) fn relent(&mut self, strike: &Strike) {
        if self.phase != Phase::Chaos {
            return; // everything is healed already
        }
        self.trace.line(self.now, || format!("over: {strike:?}"));
        match strike.fault {
            Fault::DiskFull => self.machines[strike.node].disk.set_space(None),
            Fault::OtherFounding => self.end_estrangement(strike.node),
            _ => self.cut(strike, false),
        }
    }

    /// Cuts ways, or opens them.
    fn cut(&mut self, strike: &Strike, cut: bool) {
        let &Strike { fault, node, other, sides, .. } = strike;
        let nodes = self.plan.nodes;
        let all = |paths: &mut super::paths::Paths, traffic| {
            for other in (0..nodes).filter(|&other| other != node) {
                paths.cut(node, other, traffic, cut);
                paths.cut(other, node, traffic, cut);
            }
        };
        let side = |who: usize| sides >> who & 1;
        match fault {
            Fault::OneWay => self.paths.cut(node, other, Traffic::Both, cut),
            Fault::Lag => self.paths.cut(node, other, Traffic::Data, cut),
            Fault::Bridge => {
                let rest = |&who: &usize| who != node;
                for from in (0..nodes).filter(rest) {
                    for to in (0..nodes).filter(rest).filter(|&to| side(from) != side(to)) {
                        self.paths.cut(from, to, Traffic::Both, cut);
                    }
                }
            }
            Fault::ControlCut => all(&mut self.paths, Traffic::Control),
            Fault::DataCut => all(&mut self.paths, Traffic::Data),
            Fault::Isolate => {
                all(&mut self.paths, Traffic::Both);
                let ends = self.plan.clients + self.plan.askers;
                (0..ends).for_each(|end| self.paths.cut_client(end, node, cut));
            }
            Fault::Partition => {
                for from in 0..nodes {
                    for to in (0..nodes).filter(|&to| side(from) != side(to)) {
                        self.paths.cut(from, to, Traffic::Both, cut);
                    }
                    // A reader stands beside a client.
                    let clients = (0..self.plan.clients).map(|client| (client, client));
                    let readers = (0..self.plan.askers).map(|at| (self.plan.clients + at, at));
                    for (end, beside) in clients.chain(readers) {
                        if side(from) != side(32 + beside) {
                            self.paths.cut_client(end, from, cut);
                        }
                    }
                }
            }
            Fault::OneDoor => self.shut(sides as usize, other, cut),
            _ => unreachable!("{fault:?} cuts no way"),
        }
    }

    /// The next phase begins, or is looked at again.
    pub(super) fn enter(&mut self, phase: Phase) -> Result<(), Violation> {
        let first = phase != self.phase;
        if first {
            self.trace.line(self.now, || format!("phase: {phase:?}"));
        }
        self.phase = phase;
        match phase {
            Phase::Chaos | Phase::Over => {}
            Phase::Calm => {
                self.calm();
                let until = self.now.plus(PROGRESS_NS);
                let at = self.now.plus(SETTLE_NS);
                self.schedule(at, Event::Next(Phase::Quorum { until }));
            }
            Phase::Quorum { until } => {
                if first {
                    self.cut_off_the_rest();
                }
                if self.is_hopeless() {
                    self.stop_as_it_must();
                    return Ok(());
                }
                if self.clients_are_answered() {
                    self.paths.heal();
                    let until = self.now.plus(AGREE_NS);
                    return self.enter(Phase::Whole { until });
                }
                self.look_again(until, phase)?;
            }
            Phase::Whole { until } => {
                if self.is_hopeless() {
                    self.stop_as_it_must();
                    return Ok(());
                }
                if first && self.plan.far.0 > 0 {
                    // Who is far away is never at the end while there is more all the time.
                    self.clients.iter_mut().for_each(|client| client.budget = 0);
                }
                if first {
                    self.leave_one_door();
                }
                if self.all_agree() && self.is_served_through_its_door() {
                    self.phase = Phase::Over;
                    return self.checks.finish();
                }
                self.look_again(until, phase)?;
            }
        }
        Ok(())
    }

    fn look_again(&mut self, until: Nanos, phase: Phase) -> Result<(), Violation> {
        if self.now >= until {
            return Err(Violation::liveness(format!("{phase:?}: {}", self.describe())));
        }
        self.schedule(self.now.plus(LOOK_NS), Event::Next(phase));
        Ok(())
    }

    fn calm(&mut self) {
        self.paths.heal();
        for node in 0..self.plan.nodes {
            self.machines[node].disk.set_space(None);
            self.machines[node].disk.syncs_succeed();
            self.machines[node].paused_until = [Nanos(0); 4];
            self.machines[node].disk_stalls_until = Nanos(0);
            self.dies_voting[node] = None;
            self.end_estrangement(node);
            if self.machines[node].process.is_none() {
                self.schedule(self.now.plus(1), Event::Start(node));
            }
            for part in Part::ALL {
                self.wake_soon(node, part);
            }
        }
        self.answered_before = self.clients.iter().map(|client| client.answered).collect();
        for client in &mut self.clients {
            client.budget += AFTERWARDS;
        }
    }

    /// In half of the worlds only a majority comes back at first, none of which has forgotten anything, or is about to: what
    /// struck in the last moment of the chaos may still be on its way.
    fn cut_off_the_rest(&mut self) {
        let sides = self.fault_random.next_u64();
        let whole = |node: usize| {
            let process = self.machines[node].process.as_ref();
            let whole = process.is_some_and(|process| !process.core.observe().provisional);
            whole && self.doomed_until[node] < self.now
        };
        let electable = |node: &usize| self.plan.is_electable(*node);
        let mut order: Vec<usize> = self.plan.voters().filter(|&node| whole(node)).collect();
        let told = self.plan.stories.contains(&super::stories::Story::NeverLeads);
        if (sides.is_multiple_of(2) && !told) || order.len() < self.plan.majority() {
            return;
        }
        // In half of those, whoever leads is not among them.
        let leader = self.leader().filter(|_| sides & 2 != 0 || told);
        if order.len() > self.plan.majority() {
            order.retain(|node| Some(*node) != leader);
        }
        let turn = (sides >> 8) as usize % order.len();
        order.rotate_left(turn);
        order.truncate(self.plan.majority());
        if !order.iter().any(electable) {
            return;
        }
        let rest: Vec<_> = (0..self.plan.nodes).filter(|node| !order.contains(node)).collect();
        self.trace.line(self.now, || format!("cut off: {rest:?}"));
        for node in rest {
            let fault = Fault::Isolate;
            self.cut(
                &Strike { fault, aimed: false, node, other: node, sides: 0, lasts_ns: 0 },
                true,
            );
        }
    }

    fn clients_are_answered(&self) -> bool {
        let mut clients = self.clients.iter().zip(&self.answered_before);
        clients.all(|(client, before)| client.is_satisfied() && client.answered > *before)
    }

    fn all_agree(&self) -> bool {
        let mut ends = self.machines.iter().map(|machine| {
            let observed = machine.process.as_ref()?.core.observe();
            let whole = observed.applied.0 == observed.tail.position;
            (whole && observed.cutting_at.is_none()).then_some(observed.tail)
        });
        let first = ends.next().flatten();
        first.is_some()
            && (0..self.plan.nodes).all(|node| self.is_mended(node))
            && ends.all(|end| end == first)
            && !self.checks.is_contradicted()
            && !self.timers_are_overdue()
            && self.clients.iter().all(SimClient::is_satisfied)
    }

    /// A timer that is due waits still.
    fn timers_are_overdue(&self) -> bool {
        self.machines.iter().any(|machine| {
            let Some(process) = &machine.process else { return false };
            let (state, doing) = (process.core.state(), process.core.observe().doing);
            let time = state.time().max(machine.clock.wall(self.now));
            let first = state.effects().timers.first();
            matches!(doing, Doing::Leads { .. }) && first.is_some_and(|timer| timer.due <= time)
        })
    }

    /// Where everybody stands, for those who ask why nothing goes on.
    fn describe(&self) -> String {
        use core::fmt::Write;
        let mut text = String::new();
        for machine in &self.machines {
            let process = machine.process.as_ref();
            let seen = process.map(|process| process.core.observe());
            let _ = write!(text, "\n    node {}: {seen:?}", machine.node);
        }
        for (client, before) in self.clients.iter().zip(&self.answered_before) {
            let (state, more) = (client.state(), client.answered - before);
            let _ = write!(text, "\n    client: {state:?}, {more} answers since, ");
            text += if client.is_satisfied() { "nothing open" } else { "waits" };
        }
        let damaged: Vec<_> = (0..self.plan.nodes).filter(|&node| !self.is_mended(node)).collect();
        let contradicted = self.checks.is_contradicted();
        let overdue = self.timers_are_overdue();
        let _ = write!(
            text,
            "\n    not mended: {damaged:?}, contradicted: {contradicted}, timers overdue: {overdue}, all agree: {}",
            self.all_agree()
        );
        text
    }
}

impl super::machine::Machine {
    fn tail_segment(&self) -> Position {
        let process = self.process.as_ref();
        let tail = process.map_or(Position(0), |process| process.core.observe().tail.position);
        tail.segment_base(self.segment_bytes)
    }
}

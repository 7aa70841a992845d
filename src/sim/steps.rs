//! One turn of each thread, as the shells of the runtime give it to the same machines.

use core::sync::atomic::Ordering::{Acquire, Relaxed};
use std::rc::Rc;

use zerocopy::IntoBytes;

use super::check::Violation;
use super::machine::{GROUP, Part, Process, Stopping};
use super::wire::Endpoint;
use super::world::{Event, World};
use crate::control;
use crate::control::constants::GroupConstants;
use crate::control::disk::DiskFacts;
use crate::control::election::{Glance, Input, Output};
use crate::control::holdings::Holdings;
use crate::control::lane::LaneInput;
use crate::control::message::{Envelope, Message};
use crate::journal::keeper::KeeperEvent;
use crate::journal::node_state::{CleanMark, NodeStateError};
use crate::journal::recovery::RecoveryError;
use crate::link::{ControlToCore, CoreEvent, CoreToControl, Promise};
use crate::mutants::Mutant;
use crate::replica::{Doing, Now};
use crate::types::{Durable, Nanos, Position};

/// Longest and shortest sleep of the control thread, ns.
const CONTROL_SLEEP_NS: (u64, u64) = (Nanos::MILLISECOND, 50 * Nanos::MILLISECOND);
/// Longest sleep of the sync thread while bytes wait, ns.
const SYNC_SLEEP_NS: u64 = 20 * Nanos::MILLISECOND;
/// Sleep of the keeper, ns.
const KEEPER_SLEEP_NS: u64 = 20 * Nanos::MILLISECOND;
/// A soft deadline is this late at most, ns.
const SOFT_NS: u64 = 2 * Nanos::MILLISECOND;
/// A process that has ended is started again after this, ns.
const SUPERVISOR_NS: u64 = 300 * Nanos::MILLISECOND;

impl World {
    /// Runs one thread of a node.
    pub(super) fn step(&mut self, node: usize, part: Part) -> Result<(), Violation> {
        if self.machines[node].process.is_none() {
            return Ok(());
        }
        self.trace.event(self.now, [1, node as u64, part as u64]);
        match part {
            Part::Core => self.step_core(node),
            Part::Sync => {
                self.step_sync(node);
                Ok(())
            }
            Part::Keeper => {
                self.step_keeper(node);
                Ok(())
            }
            Part::Control => self.step_control(node),
        }
    }

    pub(super) fn process(&mut self, node: usize) -> &mut Process {
        self.machines[node].process.as_mut().expect("only running processes are stepped")
    }

    fn step_core(&mut self, node: usize) -> Result<(), Violation> {
        let machine = &mut self.machines[node];
        let Some(process) = &mut machine.process else { return Ok(()) };
        let now = Now { at: machine.clock.local(self.now), time: machine.clock.wall(self.now) };
        let work = process.core.step(now);
        let observed = process.core.observe();
        self.trace.event(self.now, [observed.tail.position.0, observed.commit.0.0, work as u64]);
        let (control, sync) = (process.control_bell.rang(), process.sync_bell.rang());
        let deadlines = process.core.deadlines();
        let clock = machine.clock;
        self.checks.core_stepped(self.now, node, &process.core, &process.shared)?;
        self.checks.effects(node, self.now, process, &mut self.coverage)?;
        match observed.doing {
            Doing::Leads { quorum, .. } => {
                self.coverage.hit("leader", 1);
                self.coverage.hit("quorum-lost", u64::from(!quorum));
            }
            Doing::Follows { matched: true } if self.plan.observers[node] => {
                self.coverage.hit("observer-follows", 1);
            }
            Doing::Follows { matched: true } => self.coverage.hit("follower-matched", 1),
            _ => {}
        }
        self.transmit(Endpoint::Node(node));
        if control {
            self.wake_soon(node, Part::Control);
        }
        if sync {
            self.wake_soon(node, Part::Sync);
        }
        let next = if work > 0 {
            self.now.plus(1_000 + self.random.below(2_000))
        } else {
            let late = self.random.below(SOFT_NS);
            let soft = deadlines.soft.map(|at| clock.world(at).plus(late));
            let sharp = deadlines.sharp.map(|at| clock.world(at));
            let at = [soft, sharp].into_iter().flatten().min().unwrap_or(Nanos(u64::MAX));
            at.max(self.now.plus(1_000))
        };
        self.wake(node, Part::Core, next);
        Ok(())
    }

    fn step_sync(&mut self, node: usize) {
        let local = self.machines[node].clock.local(self.now);
        if self.waits_for_disk(node, Part::Sync) {
            return;
        }
        let Some(process) = &mut self.machines[node].process else { return };
        let delay = process.sync_delay();
        process.syncer.set_group_delay_ns(delay);
        let worked = process.syncer.step(local) > 0;
        let mail = process.core.has_mail();
        let words = process.shared.words();
        let waits = words.durable.load(Acquire) < words.verified.load(Acquire);
        let deadline = process.syncer.deadline();
        if mail {
            self.wake_soon(node, Part::Core);
        }
        let next = if worked {
            self.now.plus(1_000 + self.random.below(self.plan.sync_ns))
        } else {
            let at = deadline.map(|at| self.machines[node].clock.world(at));
            let longest = if waits { SYNC_SLEEP_NS } else { 10 * SYNC_SLEEP_NS };
            let longest = self.now.plus(longest);
            at.map_or(longest, |at| at.min(longest)).max(self.now.plus(10_000))
        };
        self.wake(node, Part::Sync, next);
    }

    /// Whether its disk stands still: then the thread does, too.
    fn waits_for_disk(&mut self, node: usize, part: Part) -> bool {
        let until = self.machines[node].disk_stalls_until;
        if self.now < until {
            self.wake(node, part, until);
        }
        self.now < until
    }

    fn step_keeper(&mut self, node: usize) {
        let local = self.machines[node].clock.local(self.now);
        if self.waits_for_disk(node, Part::Keeper) {
            return;
        }
        self.step_worker(node, local);
        let Some(process) = &mut self.machines[node].process else { return };
        let worked = process.keeper.step(local) > 0;
        let mail = process.core.has_mail();
        self.mend(node, local);
        let Some(process) = &mut self.machines[node].process else { return };
        while let Some(event) = process.keeper.poll_event() {
            let blocked = matches!(event, KeeperEvent::Blocked { .. });
            self.coverage.hit("segments-blocked", u64::from(blocked));
        }
        if mail {
            self.wake_soon(node, Part::Core);
        }
        let sleep = if worked { self.random.below(200_000) + 1 } else { KEEPER_SLEEP_NS };
        self.wake(node, Part::Keeper, self.now.plus(sleep));
    }

    /// A datagram for a control thread arrives: it waits in the socket until the thread looks.
    pub(super) fn control_arrives(&mut self, to: usize, bytes: Rc<[u8]>) {
        const WAITING_MAX: usize = 512;
        self.captured[to].control(&bytes);
        if self.machines[to].process.is_none() || self.machines[to].letters.len() >= WAITING_MAX {
            return;
        }
        self.machines[to].letters.push_back(bytes);
        let at = self.now.plus(self.random.below(50_000));
        self.wake(to, Part::Control, at);
    }

    fn step_control(&mut self, node: usize) -> Result<(), Violation> {
        let now = self.now;
        let local = self.machines[node].clock.local(now);
        if let Some((promise, until)) = self.process(node).persisting {
            if now < until {
                self.wake(node, Part::Control, until);
                return Ok(());
            }
            self.process(node).persisting = None;
            if self.persist(node, promise)?.is_err() {
                self.end(node, "halted");
                return Ok(());
            }
            self.process(node).control.handle(local, Input::Persisted);
        }
        if self.is_held_up(node, local) {
            return Ok(());
        }
        let letters = core::mem::take(&mut self.machines[node].letters);
        if self.process(node).stopping != Stopping::No {
            self.step_stopping(node);
            return Ok(());
        }
        let process = self.process(node);
        let fresh = Glance::of(process.shared.words());
        // What was looked at before it was held up, and the time of then.
        let (glance, local) = process.looked.take().unwrap_or((fresh, local));
        process.control.handle(local, Input::Glance(glance));
        for letter in letters {
            if let Ok((envelope, _)) = Envelope::decode(&letter, GROUP) {
                self.hear(node, local, envelope)?;
            }
        }
        self.look_at_disk(node, local);
        let facts: Vec<_> = self.process(node).control_link.from_core.try_iter().collect();
        for fact in facts {
            self.fact(node, &fact)?;
            if let CoreToControl::Fenced { leadership, recency, .. } = fact {
                self.checks.ended_at_fence(node, leadership, recency.tail.0)?;
            }
            match fact {
                CoreToControl::Lane(fact) => self.tell_lane(node, LaneInput::Core(fact)),
                CoreToControl::Fenced { leadership, .. } => {
                    self.tell_lane(node, LaneInput::Fenced(leadership));
                }
                _ => {}
            }
            self.process(node).control.handle(local, Input::Core(fact));
        }
        self.checks.cuts_are_kept(node, &self.machines[node].disk)?;
        self.process(node).control.handle(local, Input::Tick);
        self.read_lane(node);
        // What one of the machines wants may be a word for the other.
        let alive =
            self.obey(node)? && self.obey_lane(node) && self.obey(node)? && self.obey_lane(node);
        self.obey_repairs(node);
        if !alive {
            self.end(node, "halted");
            return Ok(());
        }
        let process = self.process(node);
        let persisting = process.persisting;
        let deadline = process.control.deadline().min(process.lane.deadline());
        let (shortest, longest) = CONTROL_SLEEP_NS;
        let next = if let Some((_, until)) = persisting {
            until
        } else {
            let at = self.machines[node].clock.world(deadline);
            at.clamp(self.now.plus(shortest), self.now.plus(longest))
        };
        self.wake(node, Part::Control, next);
        Ok(())
    }

    fn look_at_disk(&mut self, node: usize, local: Nanos) {
        let process = self.process(node);
        process.disk_watch.look(local, DiskFacts::of(process.shared.words()));
        process.control.set_disk(local, process.disk_watch.state());
        let events: Vec<_> = core::iter::from_fn(|| process.disk_watch.poll()).collect();
        for event in events {
            let stalled = matches!(event, control::event::Event::DiskStalled { .. });
            self.coverage.hit("disk-stall-told", u64::from(stalled));
            self.trace.line(self.now, || format!("node {node}: {event:?}"));
        }
    }

    fn fact(&mut self, node: usize, fact: &CoreToControl) -> Result<(), Violation> {
        self.trace.line(self.now, || format!("node {node}: {fact:?}"));
        match fact {
            CoreToControl::Event(CoreEvent::Cut { from, to, .. }) => {
                self.coverage.hit("cut", 1);
                self.checks.cut_told(node, *from, *to);
            }
            CoreToControl::Fenced { leadership, recency, .. } => {
                let now = self.process(node).core.observe();
                self.checks.fenced(node, (*leadership, recency.tail.0), &now)?;
            }
            CoreToControl::Event(CoreEvent::DiskFailed) => {
                self.coverage.hit("disk-failed", 1);
                // Whoever looks after the process starts it again: recovery writes the range into a new file.
                let at = self.now.plus(self.random.below(SUPERVISOR_NS));
                let life = self.machines[node].life;
                self.schedule(at, Event::Replace { node, life });
            }
            CoreToControl::Event(CoreEvent::RangeGone { .. }) => self.coverage.hit("range-gone", 1),
            CoreToControl::Event(CoreEvent::OutOfSegments { .. }) => {
                self.coverage.hit("out-of-segments", 1);
            }
            _ => {}
        }
        Ok(())
    }

    /// Does what control wants; returns whether the process lives on.
    fn obey(&mut self, node: usize) -> Result<bool, Violation> {
        let constants = GroupConstants::from_fn(|_| 0);
        while let Some(output) = self.process(node).control.poll() {
            match output {
                Output::ToCore(order) => {
                    self.trace.line(self.now, || format!("node {node}: core is told {order:?}"));
                    if let ControlToCore::Fence(to) = order {
                        self.checks.fence_sent(node, to);
                    }
                    // The core takes its mail every duty cycle: a full mailbox means that it stands still.
                    if self.process(node).control_link.to_core.try_send(order).is_err() {
                        return Ok(false);
                    }
                    self.wake_soon(node, Part::Core);
                }
                Output::Persist(promise) => {
                    self.trace.line(self.now, || format!("node {node}: persists {promise:?}"));
                    let until = self.write_ends(node, &promise);
                    self.process(node).persisting = Some((promise, until));
                    return Ok(true); // the thread stands still until it is written
                }
                Output::Send(to, envelope) => {
                    if let Message::Vote { granted: true, .. } = envelope.message {
                        let core = &self.process(node).core;
                        let (of, fence) = (envelope.leadership, core.observe().fence);
                        let kept = self.checks.votes(node, of, to, fence)?;
                        self.coverage.hit("kept-vote-given", u64::from(kept));
                    }
                    let durable = self.process(node).shared.words().durable.load(Acquire);
                    let envelope = Holdings::fill_in(envelope, Durable(Position(durable)));
                    let bytes: Rc<[u8]> = envelope.encode(GROUP, &constants).as_bytes().into();
                    let to = usize::from(to.0);
                    let ends = (Endpoint::Node(node), Endpoint::Node(to));
                    let fates = self.paths.fates(&mut self.random, &self.plan, ends, true);
                    for fate in fates.into_iter().flatten() {
                        let bytes = Rc::clone(&bytes);
                        self.schedule(self.now.plus(fate.after_ns), Event::Control { to, bytes });
                    }
                }
                Output::Event(event) => {
                    match event {
                        control::event::Event::Founded { .. } => {
                            self.coverage.hit("founded", 1);
                            self.founders |= 1 << node;
                        }
                        control::event::Event::Transferred { .. } => {
                            self.coverage.hit("handed-over", 1);
                        }
                        control::event::Event::DurabilityChanged { .. } => {
                            self.coverage.hit("durability-changed", 1);
                        }
                        control::event::Event::Intruder { .. } => {
                            self.coverage.hit("intruder", 1);
                        }
                        control::event::Event::GaveUpLead { .. } => {
                            self.coverage.hit("lead-given-up", 1);
                        }
                        control::event::Event::TransferFailed { .. } => {
                            self.coverage.hit("hand-over-failed", 1);
                        }
                        _ => {}
                    }
                    self.trace.line(self.now, || format!("node {node}: {event:?}"));
                }
                Output::Pull { from, recency } => {
                    self.coverage.hit("pull", 1);
                    self.trace.line(self.now, || format!("node {node}: takes over {from:?}'s log"));
                    self.tell_lane(node, LaneInput::Pull { from, recency });
                }
                Output::Halt => return Ok(false),
            }
        }
        Ok(true)
    }

    fn persist(
        &mut self,
        node: usize,
        promise: Promise,
    ) -> Result<Result<(), NodeStateError>, Violation> {
        let process = self.process(node);
        let durable = Durable(Position(process.shared.words().durable.load(Acquire)));
        let forced = matches!(
            self.plan.mutant,
            Some(
                Mutant::VoteTwice
                    | Mutant::ReservedVoteTwice
                    | Mutant::ForgetVote
                    | Mutant::ReadmitAnyLife
            )
        );
        let process = self.process(node);
        let update = process.store.update(|state| {
            let kept = state.keep(&promise, durable);
            if kept.is_err() && forced && promise.leadership >= state.leadership {
                // A planted bug may want what the node state refuses: two rules stand in its way, and both are out.
                (state.leadership, state.vote) = (promise.leadership, promise.vote);
                state.provisional &= promise.readmitted.is_none();
                return Ok(());
            }
            kept
        });
        if update.is_ok() {
            let standing = self.process(node).control.standing();
            self.checks.promised(node, &promise, standing)?;
            if promise.admitted || promise.readmitted.is_some() {
                self.blank &= !(1 << node);
            }
        }
        Ok(update.map(drop))
    }

    /// An orderly stop: the core's last word, the disk, the clean mark.
    fn step_stopping(&mut self, node: usize) {
        let process = self.process(node);
        while let Ok(fact) = process.control_link.from_core.try_recv() {
            if let CoreToControl::Stopped { tail, commit } = fact {
                process.stopping = Stopping::Said(tail, commit);
            }
        }
        if process.shared.words().sync_failed.load(Relaxed) != 0 {
            return self.end(node, "stopped");
        }
        if let Stopping::Said(tail, commit) = process.stopping {
            let durable = Durable(Position(process.shared.words().durable.load(Acquire)));
            if durable.0 >= tail.position {
                let marked =
                    process.store.update(|state| state.stop(CleanMark { tail, commit }, durable));
                let how = if marked.is_ok() { "stopped in order" } else { "stopped" };
                self.renew(node, tail.position);
                return self.end(node, how);
            }
        }
        self.wake(node, Part::Control, self.now.plus(Nanos::MILLISECOND));
    }

    /// Stops a process in order.
    pub(super) fn stop(&mut self, node: usize) {
        let Some(process) = &mut self.machines[node].process else { return };
        if process.stopping == Stopping::No
            && process.control_link.to_core.try_send(ControlToCore::Stop).is_ok()
        {
            process.stopping = Stopping::Asked;
            self.wake_soon(node, Part::Core);
            self.wake_soon(node, Part::Control);
        }
    }

    /// The process ends, and is started again after a while.
    pub(super) fn end(&mut self, node: usize, how: &'static str) {
        self.trace.line(self.now, || format!("node {node}: {how}"));
        self.coverage.hit(how, 1);
        self.crash(node);
        let at = self.now.plus(self.random.below(SUPERVISOR_NS));
        self.schedule(at, Event::Start(node));
    }

    /// Whether control was held up after it had looked at the core: it goes on with what it saw then.
    fn is_held_up(&mut self, node: usize, local: Nanos) -> bool {
        const ONE_IN: u64 = 2;
        let held_ns = self.plan.look_ns;
        let calm = self.phase != super::nemesis::Phase::Chaos;
        let process = self.process(node);
        if process.looked.is_some() || held_ns == 0 || calm || process.stopping != Stopping::No {
            return false;
        }
        let glance = Glance::of(process.shared.words());
        if self.random.below(ONE_IN) > 0 {
            return false;
        }
        self.process(node).looked = Some((glance, local));
        let until = self.now.plus(1 + self.random.below(held_ns));
        self.machines[node].paused_until[Part::Control as usize] = until;
        self.wake(node, Part::Control, until);
        true
    }

    /// When the write of `promise` will be done; perhaps the process dies at about that time.
    fn write_ends(&mut self, node: usize, promise: &Promise) -> Nanos {
        let took = 1_000 + self.random.below(self.plan.sync_ns);
        let until = self.now.max(self.machines[node].disk_stalls_until).plus(took);
        if let Some((before, down_ns)) = self.dies_voting[node]
            && promise.vote.is_some()
        {
            self.dies_voting[node] = None;
            if self.now < before && self.phase == super::nemesis::Phase::Chaos {
                let at = self.now.plus(self.random.below(2 * took + 400_000));
                let life = self.machines[node].life;
                self.doom(node, at);
                self.schedule(at, Event::Die { node, life, down_ns });
            }
        }
        until
    }

    /// Control hears another node. One that hears its leader does not help to depose it.
    fn hear(&mut self, node: usize, local: Nanos, envelope: Envelope) -> Result<(), Violation> {
        if let Some(worker) = &mut self.process(node).worker {
            worker.holdings.hear(&envelope);
        }
        let control = &mut self.process(node).control;
        // A leader that learns of a newer term stands again, above it: that is no follower that gives its leader up.
        let follows = control.hears(local) && !control.leads();
        let before = follows && !control.is_led_by(envelope.from);
        control.handle(local, Input::Message(envelope));
        if let Message::StateHash { sequence, hash } = envelope.message {
            self.checks.hash_heard(node, envelope.from, sequence, hash);
        }
        let control = &mut self.process(node).control;
        let asked = matches!(envelope.message, Message::VoteRequest { transfer: false, .. });
        if asked && before && !control.hears(local) {
            let text = format!("node {node} hears its leader, and gives it up for {envelope:?}");
            return Err(Violation::deposed(text));
        }
        Ok(())
    }

    /// Starts the process of a node, if it does not run.
    pub(super) fn start(&mut self, node: usize) -> Result<(), Violation> {
        if self.machines[node].process.is_some() {
            return Ok(());
        }
        let seed = self.random.next_u64();
        let local = self.machines[node].clock.local(self.now);
        let started = self.machines[node].start(&self.plan, local, seed);
        match started {
            Ok(mut started) => {
                started.stranger = self.is_stranger(node);
                started.stateless |= started.stranger;
                started.rotted = self.is_blank(node) && !started.stateless;
                let (tail, provisional) = (started.tail, started.provisional);
                self.trace.line(self.now, || {
                    format!("node {node}: starts, ends at {tail:?}, provisional: {provisional}")
                });
                self.coverage.hit("provisional", u64::from(provisional));
                self.coverage.hit("torn-tail", u64::from(started.torn));
                self.checks.started(node, &started)?;
                self.rotten[node] = None; // it has read everything, and found it good
                if !started.stateless {
                    self.blank &= !(1 << node);
                }
                for part in Part::ALL {
                    self.wake_soon(node, part);
                }
                Ok(())
            }
            Err(error) if self.machines[node].is_failing() => {
                // The machine dies in the middle of it.
                self.trace.line(self.now, || format!("node {node}: does not start: {error}"));
                let at = self.now.plus(SUPERVISOR_NS);
                self.schedule(at, Event::Start(node));
                Ok(())
            }
            Err(RecoveryError::Damage { .. } | RecoveryError::Header { .. })
                if self.is_blank(node) =>
            {
                // It has said so and left everything as it was. A person gives the machine another disk.
                self.trace.line(self.now, || format!("node {node}: damaged"));
                self.coverage.hit("damage-named", 1);
                self.wipe(node);
                let at = self.now.plus(self.random.below(SUPERVISOR_NS));
                self.schedule(at, Event::Start(node));
                Ok(())
            }
            Err(error) => Err(Violation::recovery(format!("node {node} does not start: {error}"))),
        }
    }

    /// Runs a client.
    pub(super) fn step_client(&mut self, client: usize) -> Result<(), Violation> {
        self.trace.event(self.now, [2, client as u64, 0]);
        let mut ended = Vec::new();
        let (lives, redirects) = (self.clients[client].lives, self.clients[client].redirects());
        let (forwarded, resolved) =
            (self.clients[client].forwarded(), self.clients[client].resolved);
        self.clients[client].step(self.now, &self.plan, &mut ended);
        self.coverage.hit("session-lost", self.clients[client].lives - lives);
        let more = self.clients[client].redirects().saturating_sub(redirects);
        self.coverage.hit("redirect", more);
        let more = self.clients[client].forwarded().saturating_sub(forwarded);
        self.coverage.hit("forwarded", more);
        self.coverage.hit("resolved-later", self.clients[client].resolved - resolved);
        for ended in &ended {
            self.trace.line(self.now, || format!("client {client}: {ended:?}"));
            let waited_ns = self.now.since(ended.sent_at);
            self.pace.answers += 1;
            self.pace.waited_ns += waited_ns;
            self.pace.longest_wait_ns = self.pace.longest_wait_ns.max(waited_ns);
            self.checks.ended(self.now, ended)?;
        }
        self.transmit(Endpoint::Client(client));
        let at = self.clients[client].wake_at.max(self.now.plus(10_000));
        self.wake_client(client, at);
        Ok(())
    }

    /// Adds what the process of a node has counted.
    pub(super) fn count_process(&mut self, node: usize) {
        let Some(process) = &self.machines[node].process else { return };
        let words = process.shared.words();
        for (name, word) in [
            ("nak", &words.naks_sent),
            ("repair", &words.repairs_sent),
            ("stale-dropped", &words.dropped_stale),
            ("bad-frame", &words.bad_frames),
            ("duplicate-answered", &words.duplicates),
            ("no-space-refused", &words.no_space_refusals),
        ] {
            self.coverage.hit(name, word.load(Relaxed));
        }
    }

    /// Adds what all processes have counted.
    pub(super) fn count_processes(&mut self) {
        (0..self.machines.len()).for_each(|node| self.count_process(node));
    }
}

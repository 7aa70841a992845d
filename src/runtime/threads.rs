//! The loops of the core, sync and keeper threads: thin shells around their machines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::environment::{Environment, LiveNetwork, MemoryOf, Storage, Transport, ViewOf};
use super::idle::{Deadlines, IdleKind, Idler};
use crate::io::clock::{HostClock, WallOffset};
use crate::io::wake::{Parker, Waker};
use crate::journal::keeper::{Keeper, KeeperEvent};
use crate::journal::syncer::Syncer;
use crate::link::{Durability, Rung, Shared, SharedWords};
use crate::replica::{Core, Now};
use crate::service::Service;
use crate::types::Nanos;

/// How often the counters of the network are shared, ns.
const COUNTERS_NS: u64 = 5 * Nanos::MILLISECOND;
/// Longest sleep of the sync thread while nothing is to be synced, ns: bytes wake it before.
const SYNC_SLEEP_NS: u64 = 20 * Nanos::MILLISECOND;
/// Where nobody waits for the disk, sync gathers at least this long, ns: it leaves the CPU to those who work.
const MEMORY_GROUP_DELAY_NS: u64 = 5 * Nanos::MILLISECOND;
/// The shared word `role` of a leader.
const ROLE_LEADER: u64 = 2;
/// Longest sleep of the keeper, ns: it looks by itself whether the log has grown.
const KEEPER_SLEEP_NS: u64 = 2 * Nanos::MILLISECOND;
/// Duty cycles of the core that are counted for their length, ns.
const LONG_CYCLES_NS: [u64; 2] = [Nanos::MILLISECOND / 10, Nanos::MILLISECOND];
/// After silence the keeper looks less often, ns.
const KEEPER_QUIET_SLEEP_NS: u64 = 20 * Nanos::MILLISECOND;

/// The core of a node in an environment.
pub(super) type CoreOf<E, S> = Core<<E as Transport>::Network, MemoryOf<E>, S>;

/// What the threads of a node have in common.
pub(super) struct Common {
    pub(super) shared: Shared,
    /// Set when all must end.
    pub(super) ended: Arc<AtomicBool>,
    /// Ends a sleep of the core.
    pub(super) core_waker: Waker,
}

/// The core thread.
pub(super) struct CoreThread<E: Environment, S> {
    core: CoreOf<E, S>,
    idler: Idler,
    clock: HostClock,
    wall: WallOffset,
    ended: Arc<AtomicBool>,
    shared: Shared,
}

impl<E: Environment, S: Service> CoreThread<E, S> {
    /// The thread, not started yet.
    pub(super) fn new(core: CoreOf<E, S>, idler: Idler, wall: WallOffset, common: &Common) -> Self {
        let (ended, shared) = (Arc::clone(&common.ended), Arc::clone(&common.shared));
        Self { core, idler, clock: HostClock, wall, ended, shared }
    }

    /// Runs until the node ends; gives the core back.
    pub(super) fn run(mut self) -> CoreOf<E, S> {
        // One reading of the clock serves a duty cycle and the idling before it.
        let mut at = self.clock.now();
        let mut cycles = Cycles::default();
        loop {
            let work = self.core.step(Now { at, time: self.wall.timestamp(at) });
            if self.ended.load(Ordering::Acquire) {
                return self.core;
            }
            cycles.count(work, at, self.core.network(), &self.shared);
            let deadlines = self.core.deadlines();
            let release = self.core.network().next_release();
            let soft = [deadlines.soft, release].into_iter().flatten().min();
            let deadlines = Deadlines { sharp: deadlines.sharp, soft };
            let began = at;
            at = self.clock.now();
            cycles.took(at.since(began));
            let (core, network) = (&self.core, self.core.network());
            let mail = || core.has_mail() || network.waits();
            self.idler.idle(work, deadlines, at, network.descriptors(), mail);
            if work == 0 {
                at = self.clock.now();
            }
        }
    }
}

/// Duty cycles, counted, and when they and the network's counters were shared last.
#[derive(Default)]
struct Cycles {
    all: u64,
    busy: u64,
    /// Of those that took longer than that, ns.
    long: [u64; LONG_CYCLES_NS.len()],
    longest_ns: u64,
    share_at: Nanos,
}

impl Cycles {
    /// One has ended, and took so long.
    fn took(&mut self, ns: u64) {
        if ns <= LONG_CYCLES_NS[0] {
            return;
        }
        for (count, least) in self.long.iter_mut().zip(LONG_CYCLES_NS) {
            *count += u64::from(ns > least);
        }
        self.longest_ns = self.longest_ns.max(ns);
    }

    fn count(&mut self, work: usize, now: Nanos, network: &impl LiveNetwork, shared: &Shared) {
        self.all += 1;
        self.busy += u64::from(work > 0);
        if now < self.share_at {
            return;
        }
        self.share_at = now.plus(COUNTERS_NS);
        let (words, network) = (shared.words(), network.counters());
        words.duty_cycles.store(self.all, Ordering::Relaxed);
        words.busy_cycles.store(self.busy, Ordering::Relaxed);
        let [over_100us, over_1ms] = self.long;
        words.cycles_over_100us.store(over_100us, Ordering::Relaxed);
        words.cycles_over_1ms.store(over_1ms, Ordering::Relaxed);
        words.longest_cycle_ns.store(self.longest_ns, Ordering::Relaxed);
        words.datagrams_sent.store(network.datagrams_sent, Ordering::Relaxed);
        words.bytes_sent.store(network.bytes_sent, Ordering::Relaxed);
        words.send_failures.store(network.send_failures, Ordering::Relaxed);
        words.dropped_fault.store(network.faults.lost, Ordering::Relaxed);
    }
}

/// The sync thread.
pub(super) struct SyncThread<E: Storage> {
    syncer: Syncer<E::Disk, ViewOf<E>>,
    parker: Parker,
    shared: Shared,
    clock: HostClock,
    ended: Arc<AtomicBool>,
    core_waker: Waker,
    /// How long it gathers where somebody waits for the disk, ns.
    group_delay_ns: u64,
}

impl<E: Storage> SyncThread<E> {
    /// The thread, not started yet.
    pub(super) fn new(
        syncer: Syncer<E::Disk, ViewOf<E>>,
        parker: Parker,
        group_delay_ns: u64,
        common: &Common,
    ) -> Self {
        let (ended, shared) = (Arc::clone(&common.ended), Arc::clone(&common.shared));
        let core_waker = common.core_waker.clone();
        Self { syncer, parker, shared, clock: HostClock, ended, core_waker, group_delay_ns }
    }

    /// Runs until the node ends; hands on what the disk refused, if it did.
    pub(super) fn run(mut self, failures: &Sender<String>) {
        while !self.ended.load(Ordering::Acquire) {
            let now = self.clock.now();
            let delay_ns = group_delay(self.shared.words(), self.group_delay_ns);
            self.syncer.set_group_delay_ns(delay_ns);
            if self.syncer.step(now) > 0 {
                if let Some(failure) = self.syncer.failure() {
                    // There is one: it is final.
                    let _ = failures.try_send(format!("{}: {}", failure.action, failure.error));
                }
                self.core_waker.wake();
                continue;
            }
            let until = self.syncer.deadline().map_or(SYNC_SLEEP_NS, |at| at.since(now));
            let until = until.min(SYNC_SLEEP_NS);
            let words = self.shared.words();
            let verified = || words.verified.load(Ordering::Acquire);
            let seen = verified();
            if words.durable.load(Ordering::Acquire) < seen {
                // Bytes are being gathered: only time ends that, and the core need not ring for each of them.
                std::thread::sleep(Duration::from_nanos(until));
            } else {
                let mail = || verified() != seen || self.syncer.has_mail();
                self.parker.park(core::iter::empty(), Some(until), mail);
            }
        }
    }
}

/// How long sync gathers now: where nobody waits for the disk, it need not be in a hurry.
pub(super) fn group_delay(words: &SharedWords, group_delay_ns: u64) -> u64 {
    let durability = Durability::of_value(words.durability.load(Ordering::Relaxed));
    let leads = words.role.load(Ordering::Relaxed) == ROLE_LEADER;
    let rung = durability.map(|of| if leads { of.leader } else { of.follower });
    match rung {
        Some(Rung::Memory) => group_delay_ns.max(MEMORY_GROUP_DELAY_NS),
        _ => group_delay_ns,
    }
}

/// The keeper thread.
pub(super) struct KeeperThread<E: Storage> {
    keeper: Keeper<E::Disk, E::HotTier>,
    clock: HostClock,
    ended: Arc<AtomicBool>,
    parker: Parker,
    core_waker: Waker,
    events: Sender<KeeperEvent>,
}

/// Reports of the keeper that wait for control, at most: it says each thing once.
const KEEPER_EVENTS_MAX: usize = 64;

impl<E: Storage> KeeperThread<E> {
    /// The thread, not started yet, and where its reports come out.
    pub(super) fn new(
        keeper: Keeper<E::Disk, E::HotTier>,
        parker: Parker,
        common: &Common,
    ) -> (Self, Receiver<KeeperEvent>) {
        let (events, reports) = bounded(KEEPER_EVENTS_MAX);
        let (ended, core_waker) = (Arc::clone(&common.ended), common.core_waker.clone());
        (Self { keeper, clock: HostClock, ended, parker, core_waker, events }, reports)
    }

    /// Runs until the node ends.
    pub(super) fn run(mut self) {
        let mut quiet: u32 = 0;
        while !self.ended.load(Ordering::Acquire) {
            let work = self.keeper.step(self.clock.now());
            while let Some(event) = self.keeper.poll_event() {
                // A full channel has enough to tell already.
                let _ = self.events.try_send(event);
            }
            if work > 0 {
                quiet = 0;
                self.core_waker.wake();
                continue;
            }
            quiet = quiet.saturating_add(1);
            let sleep_ns = if quiet > 50 { KEEPER_QUIET_SLEEP_NS } else { KEEPER_SLEEP_NS };
            self.parker.park(core::iter::empty(), Some(sleep_ns), || false);
        }
    }
}

/// The idle strategy that a word of the configuration names.
pub(super) fn idle_kind(idle: super::config::Idle) -> IdleKind {
    use super::config::Idle;
    match idle {
        Idle::Adaptive => IdleKind::Adaptive,
        Idle::Spin => IdleKind::Spin,
        Idle::Yield => IdleKind::Yield,
        Idle::Backoff => IdleKind::Backoff,
        Idle::Park => IdleKind::Park,
    }
}

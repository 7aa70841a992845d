//! The threads of a node, joined by their mailboxes, and where they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};

use super::open::{Front, Opened};
use super::settings::{
    carrier_settings, core_settings, describe, election_settings, group_constants, hot_settings,
    lane_machine, retainer_settings, syncer_settings,
};
use super::{NodeError, host};
use crate::control::constants::Door;
use crate::control::election::{Election, ElectionSettings};
use crate::io::archive::ArchiveFolder;
use crate::io::clock::{Anchor, Anchoring, HostClock};
use crate::io::cpu::{self, Refused};
use crate::io::files::HostDisk;
use crate::io::wake::{Parker, Waker, parking};
use crate::journal::hot::HotLog;
use crate::journal::keeper::{Keeper, KeeperSettings};
use crate::journal::node_state::NodeStateStore;
use crate::journal::recovery::Recovered;
use crate::journal::snapshot::Stamp;
use crate::journal::syncer::Syncer;
use crate::link::{CoreWakers, Durability, KeeperLink, Outlet, Shared, SyncLink, Wake, link};
use crate::replica::ladder::in_force;
use crate::replica::retainer::Retainer;
use crate::replica::snapshotter::Snapshotter;
use crate::replica::{Core, CoreSettings, Start};
use crate::runtime::carrier::Carrier;
use crate::runtime::config::{Scheduling, Settings};
use crate::runtime::control_dropped::ControlDropped;
use crate::runtime::control_thread::{ControlThread, Ended, Sources};
use crate::runtime::disk_desk::DiskDesk;
use crate::runtime::environment::{
    Environment, FileOf, LaneNet, LiveNetwork, MemoryOf, Storage, ViewOf,
};
use crate::runtime::idle::Idler;
use crate::runtime::lane_desk::LaneDesk;
use crate::runtime::outlook::Outlook;
use crate::runtime::renewal::Renewal;
use crate::runtime::retention::{RetentionDesk, RetentionWork, archive, retention};
use crate::runtime::scrub::{RepairDesk, scrubbing};
use crate::runtime::snapshots::SnapshotThread;
use crate::runtime::threads::{Common, CoreThread, KeeperThread, SyncThread, idle_kind};
use crate::runtime::watch::Watch;
use crate::service::Service;
use crate::session::State;
use crate::types::{Applied, Commit};

/// Priority of a core thread of class fifo: above everything ordinary, below the kernel's own.
const FIFO_PRIORITY: u8 = 10;

/// Of the replay worker: everybody else comes first.
const SNAPSHOT_NICENESS: i32 = 19;

/// What recovery and the networks gave, and the state brought up to `applied`.
pub(super) struct Ready<E: Environment, S> {
    pub(super) opened: Opened<E>,
    pub(super) front: Front<E>,
    pub(super) bells: Bells,
    pub(super) state: State<S>,
    pub(super) applied: Applied,
    pub(super) snapshotter: Snapshotter<E::Disk, S>,
    /// The snapshot that the state begins with.
    pub(super) newest: Option<Stamp>,
    /// Gets the events of the service.
    pub(super) outlet: Option<Outlet>,
}

/// Builds every thread's machine and shell; nothing runs yet.
pub(super) fn wire<E: Environment, S: Service + Clone>(
    settings: &Settings,
    stop: &Arc<AtomicBool>,
    ready: Ready<E, S>,
) -> Result<Threads<E, S>, NodeError> {
    let Ready { opened, front, bells, state, applied, snapshotter, newest, outlet } = ready;
    let Opened { lock, disk, hot, store, recovered, shared, .. } = opened;
    let Front { sources, control_waker, network, catch_up, events } = front;
    let Bells { core_parker, core_waker, sync_parker, sync_waker, keeper_parker } = bells;
    let multicast = network.is_multicast();
    let description = describe(settings, state.service().name(), multicast);
    let door = Door::new(group_constants(settings, state.service().name()));
    let (core_link, control_link, sync_link, keeper_link) = link();
    let (ended, shared_cpu) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let (scrub, repairs) = scrubbing(settings, disk.clone(), &shared, &control_waker);
    let waker = &control_waker;
    let (carrier, lane) = lane::<E>(settings, catch_up, &disk, repairs, (&shared, &ended, waker))?;
    let wakers = CoreWakers { control: control_waker, sync: Arc::new(sync_waker) };
    let wall = Anchoring::new(Anchor::measure(HostClock));
    let core_settings = core_settings(settings, recovered.identity(), multicast);
    let durability = in_force(&state).unwrap_or(settings.group.durability);
    let machine = election(settings, &recovered, durability);
    let (retention_work, retention) = retention_parts::<E>(settings, &disk, &shared);
    let segment_bytes = core_settings.segment_bytes;
    let renewal = Renewal { disk: disk.clone(), segment_bytes, asked: None };
    let durable =
        Durable::<E> { disk, hot, store: &store, shared: &shared, sync_link, keeper_link };
    let Machines { log, syncer, keeper, start } =
        durable.machines(settings, recovered, &core_settings, applied);
    let words = Arc::clone(&shared);
    let mut core = Core::new(core_settings, network, log, state, core_link, words, wakers, start);
    core.set_outlet(outlet);
    let idle = idle_kind(settings.threads.idle);
    let idler = Idler::new(idle, core_parker, Arc::clone(&shared_cpu));
    let common = common(&shared, &ended, &core_waker);
    let core_thread = CoreThread::new(core, idler, wall.reader(), &common);
    let sync_thread = SyncThread::new(syncer, sync_parker, settings.sync.group_delay_ns, &common);
    let (keeper_thread, from_keeper) = KeeperThread::new(keeper, keeper_parker, &common);
    let (rate, others) = (settings.snapshot.bytes_per_second, (retention_work, scrub));
    let (snapshot_thread, snapshots) =
        SnapshotThread::new(snapshotter, others, newest, &common, rate);
    let core_number = Arc::new(AtomicU32::new(0));
    let control_thread = ControlThread {
        group: settings.group.id,
        machine,
        outlook: Outlook::new(HostClock.now()),
        lane,
        disk: DiskDesk::new(settings.disk),
        door,
        dropped: ControlDropped::default(),
        link: control_link,
        core_waker: Arc::new(core_waker),
        addresses: settings.members.iter().map(|member| (member.id, member.control)).collect(),
        store,
        shared,
        clock: HostClock,
        wall,
        events,
        stop: Arc::clone(stop),
        ended,
        description,
        keeper: from_keeper,
        snapshots,
        retention,
        renewal,
        contention: Watch::new(Arc::clone(&core_number), shared_cpu),
        sync_failures: bounded(1),
    };
    Ok(Threads {
        core_thread,
        sync_thread,
        keeper_thread,
        snapshot_thread,
        carrier,
        control_thread,
        sources,
        core_number,
        lock,
    })
}

/// The control machine, which begins with the durability that is in force.
fn election<M, V>(
    settings: &Settings,
    recovered: &Recovered<M, V>,
    durability: Durability,
) -> Election {
    let of = election_settings(settings, &recovered.state, recovered.stateless);
    Election::new(ElectionSettings { durability, ..of })
}

fn common(shared: &Shared, ended: &Arc<AtomicBool>, core_waker: &Waker) -> Common {
    let (shared, ended, core_waker) = (Arc::clone(shared), Arc::clone(ended), core_waker.clone());
    Common { shared, ended, core_waker }
}

/// What lets segments leave, and control's side of it.
fn retention_parts<E: Environment>(
    settings: &Settings,
    disk: &E::Disk,
    shared: &Shared,
) -> (RetentionWork<E::Disk>, RetentionDesk) {
    let folder = settings.retention.archive.as_deref().map(ArchiveFolder::new);
    let archive = folder.map(archive);
    let machine =
        Retainer::new(disk.clone(), Arc::clone(shared), retainer_settings(settings), archive);
    retention(machine, settings.node.id, settings.members.iter().map(|member| member.id))
}

/// A node's catch-up lane.
type CatchUp<E> = (Option<Carrier<<E as Storage>::Disk>>, LaneDesk);

/// The thread that carries the catch-up lane over `net`, if there is one, and control's side of it.
fn lane<E: Environment>(
    settings: &Settings,
    net: Option<Box<dyn LaneNet>>,
    disk: &E::Disk,
    repairs: RepairDesk,
    (shared, ended, control): (&Shared, &Arc<AtomicBool>, &Arc<dyn Wake>),
) -> Result<CatchUp<E>, NodeError> {
    let machine = lane_machine(settings);
    let Some(net) = net else { return Ok((None, LaneDesk { machine, carrier: None, repairs })) };
    let carrier = Carrier::new(
        carrier_settings(settings),
        disk.clone(),
        net,
        Arc::clone(shared),
        Arc::clone(ended),
        Arc::clone(control),
    );
    let (carrier, link) = carrier.map_err(host("opening the catch-up lane"))?;
    Ok((Some(carrier), LaneDesk { machine, carrier: Some(link), repairs }))
}

/// How the threads sleep, and who wakes them.
pub(super) struct Bells {
    core_parker: Parker,
    core_waker: Waker,
    sync_parker: Parker,
    sync_waker: Waker,
    keeper_parker: Parker,
}

impl Bells {
    pub(super) fn new() -> Result<Self, NodeError> {
        let failed = || host("making a wake-up");
        let (core_parker, core_waker) = parking().map_err(failed())?;
        let (sync_parker, sync_waker) = parking().map_err(failed())?;
        let (keeper_parker, _) = parking().map_err(failed())?;
        Ok(Self { core_parker, core_waker, sync_parker, sync_waker, keeper_parker })
    }

    /// What ends a sleep of the core.
    pub(super) fn core_waker(&self) -> Arc<dyn Wake> {
        Arc::new(self.core_waker.clone())
    }
}

/// What the journal's machines are made of.
struct Durable<'a, E: Storage> {
    disk: E::Disk,
    hot: E::HotTier,
    store: &'a Arc<NodeStateStore<FileOf<E>>>,
    shared: &'a Shared,
    sync_link: SyncLink<ViewOf<E>>,
    keeper_link: KeeperLink<MemoryOf<E>, ViewOf<E>>,
}

struct Machines<E: Storage> {
    log: HotLog<MemoryOf<E>>,
    syncer: Syncer<E::Disk, ViewOf<E>>,
    keeper: Keeper<E::Disk, E::HotTier>,
    start: Start,
}

impl<E: Storage> Durable<'_, E> {
    /// Hot log, sync and keeper, each taking over from recovery.
    fn machines(
        self,
        settings: &Settings,
        recovered: Recovered<MemoryOf<E>, ViewOf<E>>,
        core: &CoreSettings,
        applied: Applied,
    ) -> Machines<E> {
        let start = Start {
            fence: recovered.state.leadership,
            // A snapshot is of what was committed, also if the seal did not know that yet.
            commit: recovered.known_commit.max(Commit(applied.0)),
            applied,
            durable: recovered.durable,
            cut_epoch: recovered.sync.epoch,
            tail: recovered.tail,
        };
        let mut log = HotLog::new(hot_settings(settings, &recovered), recovered.tail);
        let mut next = recovered.tail.position.segment_base(core.segment_bytes);
        let lowest = recovered.segments.first().map_or(next, |(base, ..)| *base);
        let mut views = Vec::new();
        for (base, memory, view) in recovered.segments {
            assert!(log.add_segment(base, memory).is_ok(), "recovery hands segments over in order");
            views.push((base, view));
            next = base.plus(core.segment_bytes);
        }
        let shared = || Arc::clone(self.shared);
        let syncer = Syncer::new(
            self.disk.clone(),
            Arc::clone(self.store),
            self.sync_link,
            shared(),
            syncer_settings(settings),
            recovered.sync,
            views,
        );
        let keeper_settings = KeeperSettings {
            reserve_bytes: settings.disk.full_bytes,
            ..KeeperSettings::new(core.segment_bytes)
        };
        let keeper = Keeper::new(
            self.disk,
            self.hot,
            self.keeper_link,
            shared(),
            keeper_settings,
            lowest,
            next,
        );
        Machines { log, syncer, keeper, start }
    }
}

/// Everything that is about to run.
pub(super) struct Threads<E: Environment, S> {
    core_thread: CoreThread<E, S>,
    sync_thread: SyncThread<E>,
    keeper_thread: KeeperThread<E>,
    snapshot_thread: SnapshotThread<E, S>,
    carrier: Option<Carrier<E::Disk>>,
    control_thread: ControlThread<E>,
    sources: Sources<E::Control>,
    core_number: Arc<AtomicU32>,
    /// Locked until those are gone who write the log.
    lock: HostDisk,
}

/// The control thread, whose end is the node's, and the others.
pub(super) type Running = (JoinHandle<Ended>, Vec<JoinHandle<()>>);

impl<E: Environment, S: Service + Clone + 'static> Threads<E, S> {
    /// Starts the threads, each where the settings want it; what the host refuses is one warning.
    pub(super) fn spawn(self, settings: &Settings) -> Result<Running, NodeError> {
        self.start(settings).map_err(host("starting a thread"))
    }

    fn start(self, settings: &Settings) -> std::io::Result<Running> {
        let Self {
            core_thread,
            sync_thread,
            keeper_thread,
            snapshot_thread,
            carrier,
            mut control_thread,
            sources,
            core_number,
            lock,
        } = self;
        let placement = &settings.threads;
        if placement.lock_memory
            && let Err(refused) = cpu::lock_memory()
        {
            control_thread.events.line(1192, &refused.to_string());
        }
        let (refusals, refused) = bounded::<Refused>(8);
        let named = |name: &str| thread::Builder::new().name(format!("quorate-{name}"));
        let mut others = Vec::new();
        let (core_cpu, fifo) = (placement.core_cpu, placement.scheduling == Scheduling::Fifo);
        let told = refusals.clone();
        others.push(named("core").spawn(move || {
            core_number.store(cpu::this_thread().0.cast_unsigned(), Ordering::Release);
            pin(core_cpu, &told);
            if fifo && let Err(refusal) = cpu::schedule_fifo(FIFO_PRIORITY) {
                let _ = told.try_send(refusal); // it has room for one of each thread
            }
            drop(told);
            drop(core_thread.run());
        })?);
        let (sync_cpu, told) = (placement.sync_cpu, refusals.clone());
        let (failures, sync_lock) = (control_thread.sync_failures.0.clone(), lock.clone());
        others.push(named("sync").spawn(move || {
            pin(sync_cpu, &told);
            drop(told);
            sync_thread.run(&failures);
            drop(sync_lock);
        })?);
        let snapshot_lock = lock.clone();
        others.push(named("keeper").spawn(move || {
            keeper_thread.run();
            drop(lock);
        })?);
        let told = refusals.clone();
        others.push(named("snapshot").spawn(move || {
            if let Err(refusal) = cpu::be_nice(SNAPSHOT_NICENESS) {
                let _ = told.try_send(refusal); // it has room for one of each thread
            }
            drop(told);
            snapshot_thread.run();
            drop(snapshot_lock);
        })?);
        if let Some(carrier) = carrier {
            others.push(named("lane").spawn(move || carrier.run())?);
        }
        let (control_cpu, told) = (placement.control_cpu, refusals);
        let control = named("control").spawn(move || {
            pin(control_cpu, &told);
            drop(told);
            control_thread.run(sources, &refused)
        })?;
        Ok((control, others))
    }
}

fn pin(cpu: Option<usize>, refusals: &Sender<Refused>) {
    if let Some(Err(refusal)) = cpu.map(cpu::pin_thread) {
        let _ = refusals.try_send(refusal); // it has room for one of each thread
    }
}

//! One machine of a simulated group: what outlives its process, and the process with the machines of its four threads, which
//! are the shipped ones, over a disk, a hot tier, a network and a clock of the simulated world.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::clock::Clock;
use super::lane::LaneLetter;
use super::ledger::Ledger;
use super::plan::Plan;
use super::retention::Worker;
use super::wire::{Endpoint, SharedPort, SimNetwork};
use crate::control::disk::{DiskSettings, DiskWatch};
use crate::control::election::{Election, ElectionSettings, Glance, Member};
use crate::control::lane::Lane;
use crate::control::message::Standing;
use crate::control::repair::Repairs;
use crate::frame::Predecessor;
use crate::journal::hot::{HeaderPage, HotLog, HotSettings};
use crate::journal::incoming::{INCOMING_FOLDER, Incoming, IncomingSettings, install};
use crate::journal::keeper::{Keeper, KeeperSettings};
use crate::journal::memory_disk::{MemoryDisk, MemoryFile};
use crate::journal::mender::Mender;
use crate::journal::node_state::{BootId, NodeStateStore};
use crate::journal::recovery::{Boot, Recovered, RecoveryError, RecoverySettings, recover};
use crate::journal::scrub::ScrubSettings;
use crate::journal::snapshot::{SNAPSHOT_FOLDER, set_aside_for};
use crate::journal::syncer::{Syncer, SyncerSettings};
use crate::journal::{HeapHotTier, HeapMemory, HeapView};
use crate::link::{
    ControlLink, CoreWakers, Inlet, Promise, Rung, Shared, SharedWords, Wake, link, outlet,
};
use crate::replica::ladder::in_force;
use crate::replica::{Core, CoreSettings, Peer, ReplayLog, Start};
use crate::session::{SessionLimits, State, StateLimits};
use crate::types::{
    Applied, Commit, CutEpoch, GroupId, Incarnation, Leadership, Nanos, NodeId, Position,
};

/// Group of all simulated nodes.
pub(super) const GROUP: GroupId = GroupId(0x5147_0001);
pub(super) const SESSIONS_MAX: usize = 32;
const LANE_POOL_BYTES: usize = 2 * 1024 * 1024;
const REPLY_BYTES_MAX: usize = 64;
/// From one round of the scrub to the next, ns.
const SCRUB_NS: u64 = 300 * Nanos::MILLISECOND;
/// When a disk counts as short of room, and as stalled.
const DISK: DiskSettings =
    DiskSettings { low_bytes: LOW_BYTES, full_bytes: 0, stall_ns: 400 * Nanos::MILLISECOND };
/// A disk with less room than this is low.
pub(super) const LOW_BYTES: u64 = 1 << 40;
/// Entries between two comparisons of the state hashes.
const HASH_INTERVAL: u64 = 16;

/// The threads of a node, each scheduled on its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Part {
    Core,
    Control,
    Sync,
    Keeper,
}

impl Part {
    pub(super) const ALL: [Self; 4] = [Self::Core, Self::Control, Self::Sync, Self::Keeper];
}

/// A thread's bell: rung by a core.
#[derive(Debug, Default)]
pub(super) struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Bell {
    /// Whether it rang since the last time.
    pub(super) fn rang(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

pub(super) type SimCore = Core<SimNetwork, HeapMemory, Ledger>;

/// A process: the machines of its threads, joined by their mailboxes.
pub(super) struct Process {
    pub(super) core: SimCore,
    pub(super) control: Election,
    pub(super) lane: Lane,
    pub(super) incoming: Incoming<MemoryFile>,
    /// Its replay worker, where there is one.
    pub(super) worker: Option<Worker>,
    pub(super) mender: Mender<MemoryDisk>,
    pub(super) repairs: Repairs,
    pub(super) disk_watch: DiskWatch,
    pub(super) control_link: ControlLink,
    pub(super) syncer: Syncer<MemoryDisk, HeapView>,
    pub(super) keeper: Keeper<MemoryDisk, HeapHotTier>,
    pub(super) store: Arc<NodeStateStore<MemoryFile>>,
    pub(super) shared: Shared,
    pub(super) control_bell: Arc<Bell>,
    pub(super) sync_bell: Arc<Bell>,
    /// Control waits for this to be durable, until then.
    pub(super) persisting: Option<(Promise, Nanos)>,
    /// Control has looked at the core, and was held up before it did anything about it.
    pub(super) looked: Option<(Glance, Nanos)>,
    pub(super) stopping: Stopping,
    /// It stops for the snapshot at this position, all of which is here.
    pub(super) renews: Option<Position>,
    /// Where the service's events come out.
    pub(super) inlet: Inlet,
    /// The last of them that came out in this life.
    pub(super) event_seen: u64,
}

/// An orderly stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stopping {
    No,
    /// The core was told.
    Asked,
    /// The core's last word: its log and its commit position.
    Said(Predecessor, Commit),
}

/// What is known of a start.
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub(super) struct Started {
    pub(super) tail: Predecessor,
    pub(super) provisional: bool,
    pub(super) stateless: bool,
    pub(super) incarnation: Incarnation,
    pub(super) cut_epoch: CutEpoch,
    pub(super) fence: Leadership,
    /// In that leadership.
    pub(super) vote: Option<NodeId>,
    /// Recovery cut bytes that were torn.
    pub(super) torn: bool,
    /// A snapshot of another node has taken the place of the log.
    pub(super) installed: Option<Position>,
    /// Bytes of its files had changed.
    pub(super) rotted: bool,
    /// Its disk is one of another founding: what it has is worth nothing here.
    pub(super) stranger: bool,
}

/// The machine.
pub(super) struct Machine {
    pub(super) node: usize,
    pub(super) disk: MemoryDisk,
    pub(super) segment_bytes: u64,
    tier: HeapHotTier,
    boots: u64,
    pub(super) clock: Clock,
    pub(super) port: SharedPort,
    pub(super) process: Option<Process>,
    /// Lives of its process so far: wake-ups of an earlier one are void.
    pub(super) life: u64,
    /// Datagrams that wait at the control thread's socket.
    pub(super) letters: VecDeque<Rc<[u8]>>,
    /// What other nodes said on the lane, and which.
    pub(super) lane_letters: VecDeque<(usize, LaneLetter)>,
    /// When each thread runs next.
    pub(super) wake_at: [Nanos; 4],
    /// None of it runs before this.
    pub(super) paused_until: [Nanos; 4],
    /// Its disk does nothing before this.
    pub(super) disk_stalls_until: Nanos,
    /// What its service is made to go wrong by; 0: nothing.
    pub(super) twist: Arc<AtomicU64>,
}

impl Machine {
    pub(super) fn new(node: usize, plan: &Plan, clock: Clock) -> Self {
        Self {
            node,
            disk: MemoryDisk::new(),
            segment_bytes: plan.segment_bytes,
            tier: HeapHotTier::new(plan.segment_bytes, 1),
            boots: 1,
            clock,
            port: Rc::default(),
            process: None,
            life: 0,
            letters: VecDeque::new(),
            lane_letters: VecDeque::new(),
            wake_at: [Nanos(u64::MAX); 4],
            paused_until: [Nanos(0); 4],
            disk_stalls_until: Nanos(0),
            twist: Arc::default(),
        }
    }

    /// Another disk takes the place of the one it had.
    pub(super) fn replace_disk(&mut self) {
        self.power_off(0);
        self.disk = MemoryDisk::new();
    }

    /// The process dies.
    pub(super) fn crash_process(&mut self) {
        self.process = None;
        self.disk.crash_process();
        self.port.borrow_mut().clear();
        self.letters.clear();
        self.lane_letters.clear();
        self.wake_at = [Nanos(u64::MAX); 4];
        self.paused_until = [Nanos(0); 4];
        self.twist.store(0, Ordering::Relaxed);
        self.life += 1;
    }

    /// Whether its disk refuses every change: it is about to lose power.
    pub(super) fn is_failing(&self) -> bool {
        self.disk.has_stopped() || self.disk.is_full()
    }

    /// The power goes: memory is lost, and the disk keeps what `seed` says.
    pub(super) fn power_off(&mut self, seed: u64) {
        self.crash_process();
        self.disk.crash(seed);
        self.boots += 1;
        self.tier = HeapHotTier::new(self.segment_bytes, self.boots);
    }

    /// Starts the process: recovery, then the machines.
    pub(super) fn start(
        &mut self,
        plan: &Plan,
        now: Nanos,
        seed: u64,
    ) -> Result<Started, RecoveryError> {
        assert!(self.process.is_none(), "one process at a time");
        let node = NodeId(self.node as u16);
        let store =
            NodeStateStore::open(&self.disk, GROUP, node).map_err(RecoveryError::NodeState)?;
        let mut boot_id = [0; 16];
        boot_id[..8].copy_from_slice(&self.boots.to_le_bytes());
        let first_incarnation = Incarnation(self.boots as u32 * 1000);
        let boot = Boot { boot_id: BootId(boot_id), first_incarnation };
        let mut settings = RecoverySettings::new(GROUP, node, plan.segment_bytes);
        settings.hot_bytes = 2 * plan.window_bytes;
        settings.mutants = plan.mutants();
        settings.known_names = vec![SNAPSHOT_FOLDER.to_owned(), INCOMING_FOLDER.to_owned()];
        let epoch = store.state().map_or(CutEpoch(0), |state| state.cut_epoch());
        let installed = install(&self.disk, &incoming_settings(plan), epoch);
        let installed = installed.map_err(|error| RecoveryError::Io {
            action: "installing a snapshot".to_owned(),
            error,
        })?;
        let recovered = recover(&self.disk, &mut self.tier, &settings, &store, boot)?;
        let started = Started {
            tail: recovered.tail,
            provisional: recovered.state.provisional,
            stateless: recovered.stateless,
            incarnation: recovered.state.incarnation,
            cut_epoch: recovered.sync.epoch,
            fence: recovered.state.leadership,
            vote: recovered.state.vote,
            torn: recovered.report.cut.is_some(),
            installed,
            rotted: false,
            stranger: false,
        };
        self.life += 1;
        self.process = Some(self.process_of(plan, now, seed, Arc::new(store), recovered));
        Ok(started)
    }

    /// The state as a start makes it, and what the core is told of it.
    fn bring_up(
        &self,
        plan: &Plan,
        recovered: &Recovered<HeapMemory, HeapView>,
        limits: StateLimits,
    ) -> (State<Ledger>, Start) {
        let mut state = State::new(Ledger::new(Arc::clone(&self.twist), plan.effects()), limits);
        state.plant(plan.mutants());
        let log = ReplayLog { disk: &self.disk, group: GROUP, segment_bytes: plan.segment_bytes };
        let replayed = log.replay(recovered.known_commit, recovered.tail.position, &mut state);
        let replayed = replayed.expect("recovery has read the same files");
        for (position, error) in &replayed.refused {
            let _ = set_aside_for(&self.disk, *position, error); // one that cannot be moved is refused again
        }
        let applied = replayed.at.before.position;
        let commit = recovered.known_commit.max(Commit(applied));
        let start = Start {
            fence: recovered.state.leadership,
            commit,
            applied: Applied(applied),
            durable: recovered.durable,
            cut_epoch: recovered.sync.epoch,
            tail: recovered.tail,
        };
        (state, start)
    }

    /// Who reads its files again, and again.
    fn mender(&self, plan: &Plan, shared: &Shared, now: Nanos) -> Mender<MemoryDisk> {
        let (group, segment_bytes) = (GROUP, plan.segment_bytes);
        let settings = ScrubSettings { group, segment_bytes, interval_ns: SCRUB_NS };
        Mender::new(self.disk.clone(), Arc::clone(shared), settings, now)
    }

    fn process_of(
        &self,
        plan: &Plan,
        boot_time: Nanos,
        seed: u64,
        store: Arc<NodeStateStore<MemoryFile>>,
        recovered: Recovered<HeapMemory, HeapView>,
    ) -> Process {
        let (core_link, control_link, sync_link, keeper_link) = link();
        let shared: Shared = Arc::new(SharedWords::default());
        let core_settings = core_settings(plan, seed, recovered.identity());
        let (state, start) = self.bring_up(plan, &recovered, core_settings.limits);
        let durability = in_force(&state).unwrap_or(plan.durability);
        let settings = control_settings(plan, self.node, seed, &recovered);
        let control = Election::new(ElectionSettings { durability, ..settings });
        let mut log = hot_log(plan, &recovered);
        let mut next = recovered.tail.position.segment_base(plan.segment_bytes);
        let lowest = recovered.segments.first().map_or(next, |(base, ..)| *base);
        let mut views = Vec::new();
        for (base, memory, view) in recovered.segments {
            assert!(log.add_segment(base, memory).is_ok(), "recovery hands segments over in order");
            views.push((base, view));
            next = base.plus(plan.segment_bytes);
        }
        let syncer = Syncer::new(
            self.disk.clone(),
            Arc::clone(&store),
            sync_link,
            Arc::clone(&shared),
            syncer_settings(plan),
            recovered.sync,
            views,
        );
        let keeper_settings =
            KeeperSettings { segments_ahead: 1, ..KeeperSettings::new(plan.segment_bytes) };
        let (disk, tier, words) = (self.disk.clone(), self.tier.clone(), Arc::clone(&shared));
        let keeper = Keeper::new(disk, tier, keeper_link, words, keeper_settings, lowest, next);
        let (control_bell, sync_bell) = (Arc::<Bell>::default(), Arc::<Bell>::default());
        let wakers = CoreWakers { control: control_bell.clone(), sync: sync_bell.clone() };
        let network = SimNetwork::new(Endpoint::Node(self.node), plan.nodes, Rc::clone(&self.port));
        let mut core = Core::new(
            core_settings,
            network,
            log,
            state,
            core_link,
            Arc::clone(&shared),
            wakers,
            start,
        );
        let nodes = || (0..plan.nodes as u16).map(NodeId);
        let (outlet, inlet) = outlet();
        core.set_outlet(Some(outlet));
        Process {
            core,
            control,
            incoming: Incoming::new(incoming_settings(plan)),
            worker: Worker::of(plan, self.node, &self.disk, &shared),
            lane: Lane::new(seed, NodeId(self.node as u16), nodes()),
            mender: self.mender(plan, &shared, boot_time),
            repairs: Repairs::new(!seed, NodeId(self.node as u16), nodes(), plan.segment_bytes),
            disk_watch: DiskWatch::new(DISK),
            control_link,
            syncer,
            keeper,
            store,
            shared,
            control_bell,
            sync_bell,
            persisting: None,
            looked: None,
            stopping: Stopping::No,
            renews: None,
            inlet,
            event_seen: 0,
        }
    }
}

impl Process {
    /// How long sync gathers now: not at all where somebody waits for the disk.
    pub(super) fn sync_delay(&self) -> u64 {
        const GATHER_NS: u64 = 5 * Nanos::MILLISECOND;
        const LEADER: u64 = 2;
        let leads = self.shared.words().role.load(Ordering::Relaxed) == LEADER;
        let durability = self.core.observe().durability;
        let rung = if leads { durability.leader } else { durability.follower };
        if rung == Rung::Disk { 0 } else { GATHER_NS }
    }
}

fn syncer_settings(plan: &Plan) -> SyncerSettings {
    let mutants = plan.mutants();
    SyncerSettings { mutants, ..SyncerSettings::new(GROUP, plan.segment_bytes) }
}

fn incoming_settings(plan: &Plan) -> IncomingSettings {
    let segment_bytes = plan.segment_bytes;
    IncomingSettings { group: GROUP, segment_bytes, mutants: plan.mutants() }
}

fn hot_log(plan: &Plan, recovered: &Recovered<HeapMemory, HeapView>) -> HotLog<HeapMemory> {
    let mut log = HotLog::new(hot_settings(plan, recovered), recovered.tail);
    log.set_terms_max(plan.terms_max);
    log
}

fn hot_settings(plan: &Plan, recovered: &Recovered<HeapMemory, HeapView>) -> HotSettings {
    HotSettings {
        segment_bytes: plan.segment_bytes,
        window_bytes: plan.window_bytes,
        group: GROUP,
        generation: recovered.last.generation,
        header: HeaderPage::standard(),
        terms: recovered.terms.clone(),
    }
}

fn control_settings(
    plan: &Plan,
    node: usize,
    seed: u64,
    recovered: &Recovered<HeapMemory, HeapView>,
) -> ElectionSettings {
    let member = |(node, &priority): (usize, &u8)| Member {
        node: NodeId(node as u16),
        voter: !plan.observers[node],
        priority,
    };
    let state = &recovered.state;
    ElectionSettings {
        node: NodeId(node as u16),
        members: plan.priorities.iter().enumerate().map(member).collect(),
        promised: state.leadership,
        vote: state.vote,
        standing: match (recovered.stateless, state.provisional) {
            (true, _) => Standing::Stateless,
            (false, true) => Standing::Provisional,
            (false, false) => Standing::Clean,
        },
        won_founding: state.won_founding,
        may_ack_memory: state.may_ack_memory,
        incarnation: state.incarnation,
        durability: plan.durability,
        leader_timeout_ns: plan.leader_timeout_ns,
        start_wait_ns: plan.start_wait_ns,
        generation_random: seed as u32,
        instance: seed | 1,
        seed,
        mutants: plan.mutants(),
    }
}

fn core_settings(plan: &Plan, seed: u64, identity: crate::link::Identity) -> CoreSettings {
    let peer = |node: usize| Peer {
        node: NodeId(node as u16),
        address: Endpoint::Node(node).address(),
        voter: !plan.observers[node],
    };
    CoreSettings {
        group: GROUP,
        identity,
        peers: (0..plan.nodes).map(peer).collect(),
        segment_bytes: plan.segment_bytes,
        window_bytes: plan.window_bytes,
        command_bytes_max: 8192,
        durability: plan.durability,
        heartbeat_ns: plan.heartbeat_ns,
        leader_timeout_ns: plan.leader_timeout_ns,
        multicast: plan.multicast,
        hash_interval: HASH_INTERVAL,
        in_flight_max: plan.in_flight as u64,
        session_timeout_ns: (Nanos::SECOND, 60 * Nanos::SECOND),
        lane_pool_bytes: LANE_POOL_BYTES,
        limits: limits(plan),
        lanes_max: SESSIONS_MAX,
        seed,
        mutants: plan.mutants(),
    }
}

pub(super) fn limits(plan: &Plan) -> StateLimits {
    let sessions = SessionLimits {
        sessions_max: SESSIONS_MAX,
        in_flight_max: plan.in_flight,
        reply_bytes_total: 64 * 1024,
        session_reply_bytes: 16 * 1024,
    };
    StateLimits { sessions, reply_bytes_max: REPLY_BYTES_MAX }
}

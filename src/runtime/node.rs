//! One node: opens what it owns, brings its log back, starts its threads, and ends them in order.

mod open;
mod settings;
mod wiring;

use core::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use self::open::{Front, Opened};
pub use self::settings::state_limits;
use self::wiring::{Ready, wire};
use super::config::Settings;
use super::control_thread::{Ended, SourceError};
use super::replay::replay;
use crate::control::event::Event;
use crate::io::files::DiskError;
use crate::io::hot_tier::HotTierError;
use crate::io::network_error::NetworkError;
use crate::journal::node_state::NodeStateError;
use crate::journal::reader::Trouble;
use crate::journal::recovery::RecoveryError;
use crate::link::{Shared, SharedWords};
use crate::service::Service;
use crate::session::State;

/// How a node is started, besides its settings.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Events go to the data directory only.
    pub quiet: bool,
    /// Set it to stop the node.
    pub stop: Arc<AtomicBool>,
    /// Gets every event.
    pub listener: Option<crossbeam_channel::Sender<Event>>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    stop: Arc<AtomicBool>,
    shared: Shared,
    control: JoinHandle<Ended>,
    others: Vec<JoinHandle<()>>,
}

/// Why a node does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum NodeError {
    /// Its data directory.
    Disk(DiskError),
    /// Its hot tier.
    HotTier(HotTierError),
    /// Its node state.
    NodeState(NodeStateError),
    /// Its log.
    Recovery {
        /// The data directory.
        directory: PathBuf,
        /// Why.
        error: RecoveryError,
    },
    /// Its log, read to bring the state back.
    Replay {
        /// The data directory.
        directory: PathBuf,
        /// Where, and why.
        trouble: Trouble,
    },
    /// Its data sockets.
    Network(NetworkError),
    /// Its control sockets.
    Control(SourceError),
    /// Something else of the host.
    Host {
        /// What was being done.
        action: &'static str,
        /// What the host said.
        error: io::Error,
    },
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => error.fmt(f),
            Self::HotTier(error) => error.fmt(f),
            Self::NodeState(error) => error.fmt(f),
            Self::Recovery { directory, error } => write!(f, "{}: {error}", directory.display()),
            Self::Replay { directory, trouble } => {
                write!(f, "{}: replaying the log: {trouble}", directory.display())
            }
            Self::Network(error) => error.fmt(f),
            Self::Control(SourceError::Poll(error)) => write!(f, "control thread: {error}"),
            Self::Control(SourceError::Control { address, error }) => {
                write!(f, "control socket {address}: {error}")
            }
            Self::Control(SourceError::Admin { path, error }) => {
                write!(f, "admin socket {}: {error}", path.display())
            }
            Self::Host { action, error } => write!(f, "{action}: {error}"),
        }
    }
}

impl std::error::Error for NodeError {}

fn host(action: &'static str) -> impl FnOnce(io::Error) -> NodeError {
    move |error| NodeError::Host { action, error }
}

impl Node {
    /// Starts a node of these settings that runs `service`, which is in its first state.
    ///
    /// # Errors
    /// [`NodeError`]: nothing runs then.
    pub fn start<S: Service + 'static>(
        settings: &Settings,
        service: S,
        options: NodeOptions,
    ) -> Result<Self, NodeError> {
        let opened = Opened::open(settings)?;
<<<<<<< HEAD
        let front = Front::open(settings, &options, &opened)?;
        let mut state = State::new(service, state_limits(settings));
        let (group, disk) = (&settings.group, &opened.disk);
        let commit = opened.recovered.known_commit;
        let applied = replay(disk, group.id, group.segment_bytes, commit, &mut state);
        let applied = applied.map_err(|trouble| NodeError::Replay {
            directory: settings.node.data_dir.clone(),
            trouble,
        })?;
        let shared = Arc::clone(&opened.shared);
        let ready = Ready { opened, front, state, applied };
        let (control, others) = wire(settings, &options.stop, ready)?.spawn(settings)?;
        Ok(Self { stop: options.stop, shared, control, others })
=======
        let sources = Sources::open(settings.own().control, &settings.node.admin_socket)
            .map_err(NodeError::Control)?;
        let udp = udp_settings(settings, settings.transport.kind);
        let (network, multicast) = open_network(udp).map_err(NodeError::Network)?;
        let mut events = EventSink::open(&settings.node.data_dir, settings.node.id, options.quiet)
            .map_err(host("opening the file of events"))?;
        if let Some(listener) = options.listener {
            events.listen(listener);
        }
        announce(&mut events, &opened, &network);

        let description = describe(settings, service.name(), multicast);
        let mut state = State::new(service, state_limits(settings));
        let Opened { disk, hot, store, recovered, shared, .. } = opened;
        let commit = recovered.known_commit;
        let segment_bytes = settings.group.segment_bytes;
        let applied = replay(&disk, settings.group.id, segment_bytes, commit, &mut state).map_err(
            |trouble| NodeError::Replay { directory: disk.directory().to_owned(), trouble },
        )?;

        let (core_link, control_link, sync_link, keeper_link) = link();
        let (core_parker, core_waker) = parking().map_err(host("making a wake-up"))?;
        let (sync_parker, sync_waker) = parking().map_err(host("making a wake-up"))?;
        let (keeper_parker, _keeper_waker) = parking().map_err(host("making a wake-up"))?;
        let control_waker = Arc::new(sources.waker().map_err(host("making a wake-up"))?);
        let wakers = CoreWakers { control: control_waker, sync: Arc::new(sync_waker) };
        let ended = Arc::new(AtomicBool::new(false));
        let shared_cpu = Arc::new(AtomicBool::new(true));
        let clock = HostClock;
        let wall = Anchoring::new(Anchor::measure(clock));

        let identity = recovered.identity();
        let core_settings = core_settings(settings, identity, multicast);
        let fixed = FixedLeader::new(fixed_settings(settings, &recovered));
        let start = Start {
            fence: recovered.state.leadership,
            commit,
            applied,
            durable: recovered.durable,
            cut_epoch: recovered.sync.epoch,
            tail: recovered.tail,
        };
        let next_segment = recovered
            .segments
            .last()
            .map_or(recovered.tail.position.segment_base(segment_bytes), |(base, ..)| {
                base.plus(segment_bytes)
            });
        let lowest = recovered.segments.first().map_or(next_segment, |(base, ..)| *base);
        let mut log = HotLog::new(hot_settings(settings, &recovered), recovered.tail);
        let mut views = Vec::new();
        for (base, memory, view) in recovered.segments {
            assert!(log.add_segment(base, memory).is_ok(), "recovery hands segments over in order");
            views.push((base, view));
        }
        let syncer = Syncer::new(
            disk.clone(),
            Arc::clone(&store),
            sync_link,
            Arc::clone(&shared),
            syncer_settings(settings),
            recovered.sync,
            views,
        );
        let keeper = Keeper::new(
            disk,
            hot,
            keeper_link,
            Arc::clone(&shared),
            KeeperSettings::new(segment_bytes),
            lowest,
            next_segment,
        );
        let core = Core::new(
            core_settings,
            network,
            log,
            state,
            core_link,
            Arc::clone(&shared),
            wakers,
            start,
        );

        let (keeper_events, from_keeper) = bounded(64);
        let core_thread = CoreThread {
            core,
            idler: Idler::new(
                idle_kind(settings.threads.idle),
                core_parker,
                Arc::clone(&shared_cpu),
            ),
            clock,
            wall: wall.reader(),
            ended: Arc::clone(&ended),
        };
        let sync_thread = SyncThread {
            syncer,
            parker: sync_parker,
            shared: Arc::clone(&shared),
            clock,
            ended: Arc::clone(&ended),
            core_waker: core_waker.clone(),
            delays: group_delays(settings),
        };
        let keeper_thread = KeeperThread {
            keeper,
            clock,
            ended: Arc::clone(&ended),
            parker: keeper_parker,
            core_waker: core_waker.clone(),
            events: keeper_events,
        };
        let core_number = Arc::new(AtomicU32::new(0));
        let control_thread = ControlThread {
            group: settings.group.id,
            machine: fixed,
            link: control_link,
            core_waker: Arc::new(core_waker),
            addresses: settings.members.iter().map(|m| (m.id, m.control)).collect(),
            store,
            shared: Arc::clone(&shared),
            clock,
            wall,
            events,
            stop: Arc::clone(&options.stop),
            ended,
            description,
            keeper: from_keeper,
            contention: Watch::new(Arc::clone(&core_number), shared_cpu),
            sync_failures: bounded(4),
        };
        spawn(
            settings,
            Threads {
                core_thread,
                sync_thread,
                keeper_thread,
                control_thread,
                sources,
                core_number,
            },
        )
        .map(|(control, others)| Self { stop: options.stop, shared, control, others })
>>>>>>> service
    }

    /// What the core shares: positions and counters.
    #[must_use]
    pub fn words(&self) -> &SharedWords {
        self.shared.words()
    }

    /// Asks the node to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.control.is_finished()
    }

    /// Waits until the node has ended.
    pub fn wait(self) -> Ended {
        // A thread that panicked has taken the process with it in release builds; in others it counts as a halt.
        let ended = self.control.join().unwrap_or(Ended::Halted);
        let all = self.others.into_iter().all(|thread| thread.join().is_ok());
        if all { ended } else { Ended::Halted }
    }
}
<<<<<<< HEAD
=======

/// What a node owns on the host, and the log in it.
struct Opened {
    disk: HostDisk,
    hot: HostHotTier,
    store: Arc<NodeStateStore<crate::io::files::HostFile>>,
    recovered: Recovered<crate::io::MappedMemory, crate::io::MappedView>,
    shared: Shared,
    warnings: Vec<String>,
}

impl Opened {
    fn open(settings: &Settings) -> Result<Self, NodeError> {
        let directory = &settings.node.data_dir;
        let disk = HostDisk::open(directory).map_err(NodeError::Disk)?;
        let (mut hot, warning) = HostHotTier::open(&HotTierSettings {
            data_directory: directory.clone(),
            directory: settings.node.hot_dir.clone(),
            segment_bytes: settings.group.segment_bytes,
            segments_min: HOT_SEGMENTS_MIN,
        })
        .map_err(NodeError::HotTier)?;
        let store = NodeStateStore::open(&disk, settings.group.id, settings.node.id)
            .map_err(NodeError::NodeState)?;
        let mut recovery = RecoverySettings::new(
            settings.group.id,
            settings.node.id,
            settings.group.segment_bytes,
        );
        recovery.hot_bytes = 2 * settings.group.window_bytes;
        let own = ["events.1.jsonl", "hot/", EVENTS_NAME, LOCK_NAME, HOT_PATH_FILE];
        recovery.known_names = own.iter().map(ToString::to_string).collect();
        if let Some(name) = settings.node.admin_socket.file_name() {
            recovery.known_names.push(name.to_string_lossy().into_owned());
        }
        let boot = Boot {
            boot_id: boot_id().map_err(host("reading the boot id"))?,
            first_incarnation: first_incarnation(),
        };
        let recovered = recover(&disk, &mut hot, &recovery, &store, boot)
            .map_err(|error| NodeError::Recovery { directory: directory.clone(), error })?;
        let words = MappedWords::create(hot.directory()).map_err(host("making the shared page"))?;
        Ok(Self {
            disk,
            hot,
            store: Arc::new(store),
            recovered,
            shared: Arc::new(words),
            warnings: warning.iter().map(ToString::to_string).collect(),
        })
    }
}

/// Seconds since 2020: later starts of a node whose state was lost get higher numbers.
fn first_incarnation() -> Incarnation {
    const YEAR_2020: u64 = 1_577_836_800;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Incarnation(u32::try_from(now.saturating_sub(YEAR_2020)).unwrap_or(u32::MAX / 2))
}

fn announce(events: &mut EventSink, opened: &Opened, network: &UdpNetwork) {
    let recovered = &opened.recovered;
    events.line(1191, &format!("started: {}", recovered.report));
    if let Some(cut) = &recovered.report.cut {
        let text = format!(
            "{} entries from {} to {} were torn and cut; they are kept in {}",
            cut.entries, cut.from, cut.to, cut.kept_at
        );
        events.line(1104, &text);
    }
    for warning in &opened.warnings {
        events.line(1192, warning);
    }
    for refused in network.refused() {
        events.line(1192, &refused.to_string());
    }
}

/// The network of these settings, and whether it is multicast; `auto` is, where a probe of it comes back.
fn open_network(
    (udp, auto): (UdpSettings, Option<UdpSettings>),
) -> Result<(UdpNetwork, bool), NetworkError> {
    let udp = match auto {
        Some(multicast) if probe(&multicast) => multicast,
        _ => udp,
    };
    let multicast = matches!(udp.transport, Transport::Multicast(_));
    UdpNetwork::open(&udp).map(|network| (network, multicast))
}

fn udp_settings(settings: &Settings, kind: TransportKind) -> (UdpSettings, Option<UdpSettings>) {
    let members: Vec<_> = settings.members.iter().map(|m| (m.id, m.data)).collect();
    let transport = &settings.transport;
    let base = UdpSettings {
        datagram_bytes: transport.datagram_bytes,
        socket_buffer_bytes: transport.socket_buffer_bytes,
        busy_poll_us: settings.threads.busy_poll_us,
        gso: if transport.gso { Gso::Auto } else { Gso::Off },
        faults: settings.faults,
        ..UdpSettings::node(settings.node.id, members).expect("a node is on its own list")
    };
    let multicast = transport.group.map(|group| UdpSettings {
        transport: Transport::Multicast(MulticastSettings {
            source_specific: transport.source_specific,
            interface: Some(InterfaceChoice::Address(transport.interface)),
            ttl: transport.ttl,
            ..MulticastSettings::new(group)
        }),
        ..base.clone()
    });
    match (kind, multicast) {
        (TransportKind::Unicast, _) | (_, None) => (base, None),
        (TransportKind::Multicast, Some(multicast)) => (multicast, None),
        (TransportKind::Auto, Some(multicast)) => (base, Some(multicast)),
    }
}

/// Bounds of the state of a group with these settings: its logs are replayed with the same ones.
#[must_use]
pub fn state_limits(settings: &Settings) -> StateLimits {
    let group = &settings.group;
    StateLimits {
        sessions: SessionLimits {
            sessions_max: group.sessions_max,
            in_flight_max: group.session_in_flight_max,
            reply_bytes_total: group.reply_bytes_total,
            session_reply_bytes: group.session_reply_bytes,
        },
        ..StateLimits::default()
    }
}

fn core_settings(
    settings: &Settings,
    identity: crate::link::Identity,
    multicast: bool,
) -> CoreSettings {
    let group = &settings.group;
    let peer =
        |member: &MemberSettings| Peer { node: member.id, address: member.data, voter: true };
    CoreSettings {
        group: group.id,
        identity,
        peers: settings.members.iter().map(peer).collect(),
        segment_bytes: group.segment_bytes,
        window_bytes: group.window_bytes,
        command_bytes_max: group.command_bytes_max,
        durability: group.durability,
        heartbeat_ns: settings.timing.heartbeat_ns,
        leader_timeout_ns: settings.timing.leader_timeout_ns,
        multicast,
        hash_interval: group.state_hash_interval,
        in_flight_max: group.session_in_flight_max as u64,
        session_timeout_ns: settings.timing.session_timeout_ns,
        lane_pool_bytes: settings.transport.client_pool_bytes,
        limits: state_limits(settings),
        lanes_max: group.sessions_max,
        seed: RandomState::new().hash_one(settings.node.id.0),
    }
}

fn fixed_settings<M, V>(settings: &Settings, recovered: &Recovered<M, V>) -> FixedSettings {
    let members: Vec<NodeId> = settings.members.iter().map(|member| member.id).collect();
    let random = RandomState::new();
    FixedSettings {
        node: settings.node.id,
        voters: members.clone(),
        members,
        promised: recovered.state.leadership,
        stateless: recovered.stateless,
        provisional: recovered.state.provisional,
        durability: settings.group.durability,
        segment_bytes: settings.group.segment_bytes,
        command_bytes_max: settings.group.command_bytes_max as u64,
        generation_random: random.hash_one(1_u8) as u32,
        instance: random.hash_one(2_u8) | 1,
    }
}

fn hot_settings<M, V>(settings: &Settings, recovered: &Recovered<M, V>) -> HotSettings {
    HotSettings {
        segment_bytes: settings.group.segment_bytes,
        window_bytes: settings.group.window_bytes,
        group: settings.group.id,
        generation: recovered.last.generation,
        header: HeaderPage { enter: enter_segment, before: segment_before },
        terms: recovered.terms.clone(),
    }
}

fn enter_segment(page: &mut [u8], start: &SegmentStart) {
    SegmentHeader {
        content: Content::Segment,
        group: start.group,
        generation: start.generation,
        segment_bytes: start.segment_bytes,
        before: start.before,
        cut_epoch: CutEpoch(0),
    }
    .encode_into(page);
}

fn segment_before(page: &[u8]) -> Option<crate::frame::Predecessor> {
    SegmentHeader::decode(page).ok().map(|header| header.before)
}

fn syncer_settings(settings: &Settings) -> SyncerSettings {
    SyncerSettings {
        batch_bytes_max: settings.sync.batch_bytes_max,
        ..SyncerSettings::new(settings.group.id, settings.group.segment_bytes)
    }
}

/// How long sync gathers, as leader and as follower: not at all where somebody waits for the disk.
fn group_delays(settings: &Settings) -> [u64; 2] {
    let durability = settings.group.durability;
    [durability.leader, durability.follower].map(|rung| match rung {
        Rung::Disk => settings.sync.group_delay_ns,
        Rung::Memory => settings.sync.group_delay_ns.max(super::threads::MEMORY_GROUP_DELAY_NS),
    })
}

fn describe(settings: &Settings, service: &str, multicast: bool) -> serde_json::Value {
    json!({
        "node": settings.node.id.0,
        "name": settings.own().name,
        "group": format!("{:016x}", settings.group.id.0),
        "group_name": settings.group.name,
        "service": service,
        "transport": if multicast { "multicast" } else { "unicast" },
        "process": std::process::id(),
    })
}

/// Everything that is about to run.
struct Threads<S> {
    core_thread: CoreThread<S>,
    sync_thread: SyncThread,
    keeper_thread: KeeperThread,
    control_thread: ControlThread,
    sources: Sources,
    core_number: Arc<AtomicU32>,
}

type Running = (JoinHandle<Ended>, Vec<JoinHandle<()>>);

/// Starts the threads, each where the settings want it; what the host refuses is one warning.
fn spawn<S: Service + 'static>(
    settings: &Settings,
    threads: Threads<S>,
) -> Result<Running, NodeError> {
    let Threads {
        core_thread,
        sync_thread,
        keeper_thread,
        mut control_thread,
        sources,
        core_number,
    } = threads;
    let placement = &settings.threads;
    if placement.lock_memory
        && let Err(refused) = cpu::lock_memory()
    {
        control_thread.events.line(1192, &refused.to_string());
    }
    let (refusals, refused) = bounded::<Refused>(8);
    let spawning = host("starting a thread");
    let named = |name: &str| thread::Builder::new().name(format!("quorate-{name}"));
    let place = move |cpu: Option<usize>, refusals: &crossbeam_channel::Sender<Refused>| {
        if let Some(Err(refusal)) = cpu.map(cpu::pin_thread) {
            let _ = refusals.try_send(refusal);
        }
    };
    let mut others = Vec::new();
    let (core_cpu, fifo) = (placement.core_cpu, placement.scheduling == Scheduling::Fifo);
    let told = refusals.clone();
    let core = named("core").spawn(move || {
        core_number.store(cpu::this_thread().0.cast_unsigned(), Ordering::Release);
        place(core_cpu, &told);
        if fifo && let Err(refusal) = cpu::schedule_fifo(FIFO_PRIORITY) {
            let _ = told.try_send(refusal);
        }
        drop(told);
        drop(core_thread.run());
    });
    let started = core.and_then(|core| {
        others.push(core);
        let (sync_cpu, told) = (placement.sync_cpu, refusals.clone());
        let failures = control_thread.sync_failures.0.clone();
        others.push(named("sync").spawn(move || {
            place(sync_cpu, &told);
            drop(told);
            if let Some(failure) = sync_thread.run() {
                let _ = failures.try_send(failure);
            }
        })?);
        others.push(named("keeper").spawn(move || keeper_thread.run())?);
        let (control_cpu, told) = (placement.control_cpu, refusals);
        named("control").spawn(move || {
            place(control_cpu, &told);
            drop(told);
            control_thread.run(sources, &refused)
        })
    });
    started.map(|control| (control, others)).map_err(spawning)
}

/// Tells the core whether others want its CPU.
#[derive(Debug)]
pub(super) struct Watch {
    number: Arc<AtomicU32>,
    shared_cpu: Arc<AtomicBool>,
    queue: Option<RunQueue>,
    contention: Contention,
    due: Nanos,
}

impl Watch {
    fn new(number: Arc<AtomicU32>, shared_cpu: Arc<AtomicBool>) -> Self {
        let contention = Contention::default();
        Self { number, shared_cpu, queue: None, contention, due: Nanos(0) }
    }

    /// Looks, now and then.
    pub(super) fn look(&mut self, now: Nanos) {
        if now < self.due {
            return;
        }
        self.due = now.plus(CONTENTION_NS);
        let number = self.number.load(Ordering::Acquire);
        if self.queue.is_none() && number != 0 {
            self.queue = RunQueue::open(ThreadNumber(number.cast_signed())).ok();
        }
        // Where the host does not tell, a CPU counts as shared.
        if let Some(times) = self.queue.as_ref().and_then(RunQueue::read) {
            self.shared_cpu.store(self.contention.sample(now, times), Ordering::Relaxed);
        }
    }
}

/// The newest leadership of a node, for those who only look.
#[must_use]
pub fn leadership(words: &SharedWords) -> Leadership {
    Leadership {
        generation: crate::types::Generation::from_u64(words.generation.load(Ordering::Relaxed)),
        term: crate::types::Term(words.term.load(Ordering::Relaxed) as u32),
    }
}
>>>>>>> service

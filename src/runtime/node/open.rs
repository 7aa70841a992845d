//! What a node owns on the host: its data directory and the log in it, its hot tier, its sockets.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::mend::{Damaged, mend};
use super::{NodeError, NodeOptions, host};
use crate::io::files::{HostDisk, LOCK_NAME, boot_id};
use crate::io::hot_tier::HOT_PATH_FILE;
use crate::journal::incoming::{INCOMING_FOLDER, IncomingSettings, install};
use crate::journal::node_state::{NodeState, NodeStateStore};
use crate::journal::recovery::{Boot, Recovered, RecoveryError, RecoverySettings, recover};
use crate::journal::snapshot::{SNAPSHOT_FOLDER, SnapshotError, of_another_version};
use crate::link::{Shared, Wake};
use crate::runtime::config::Settings;
use crate::runtime::control_thread::{Bell, Sources};
use crate::runtime::environment::{
    Environment, FileOf, LaneNet, LiveNetwork, MemoryOf, Storage, Transport, ViewOf,
};
use crate::runtime::events::{EVENTS_NAME, EventSink};
use crate::types::{CutEpoch, Incarnation, Position};

/// What a node owns, and the log in it.
pub(super) struct Opened<E: Storage> {
    /// Of the data directory, wherever the log is.
    pub(super) lock: HostDisk,
    pub(super) disk: E::Disk,
    pub(super) hot: E::HotTier,
    pub(super) store: Arc<NodeStateStore<FileOf<E>>>,
    pub(super) recovered: Recovered<MemoryOf<E>, ViewOf<E>>,
    pub(super) shared: Shared,
    warnings: Vec<String>,
    /// A snapshot of another node that has taken the place of the log.
    installed: Option<Position>,
}

impl<E: Environment> Opened<E> {
    pub(super) fn open(
        storage: &E,
        settings: &Settings,
        options: &NodeOptions,
    ) -> Result<Self, NodeError> {
        let directory = &settings.node.data_dir;
        let folder = HostDisk::open(directory).map_err(NodeError::Disk)?;
        let disk = storage.disk(&folder)?;
        let (mut hot, warnings) = storage.hot_tier(&folder, settings)?;
        let other = of_another_version(&disk).map_err(host("looking at the snapshots"))?;
        if let Some((name, found)) = other {
            let error = SnapshotError::Version { found };
            let path = directory.join(name);
            return Err(NodeError::Version { path, what: error.to_string() });
        }
        let store = NodeStateStore::open(&disk, settings.group.id, settings.node.id)
            .map_err(NodeError::NodeState)?;
        let mut recovery = RecoverySettings::new(
            settings.group.id,
            settings.node.id,
            settings.group.segment_bytes,
        );
        recovery.hot_bytes = 2 * settings.group.window_bytes;
        let own = [
            "events.1.jsonl",
            "hot/",
            SNAPSHOT_FOLDER,
            INCOMING_FOLDER,
            EVENTS_NAME,
            LOCK_NAME,
            HOT_PATH_FILE,
        ];
        recovery.known_names = own.iter().map(ToString::to_string).collect();
        if let Some(name) = settings.node.admin_socket.file_name() {
            recovery.known_names.push(name.to_string_lossy().into_owned());
        }
        let boot = Boot {
            boot_id: boot_id().map_err(host("reading the boot id"))?,
            first_incarnation: first_incarnation(),
        };
        let incoming = IncomingSettings::new(settings.group.id, settings.group.segment_bytes);
        let epoch = store.state().map_or(CutEpoch(0), |state| state.cut_epoch());
        let installed = install(&disk, &incoming, epoch).map_err(host("installing a snapshot"))?;
        let mut recovered = recover(&disk, &mut hot, &recovery, &store, boot);
        if let Err(RecoveryError::Damage { ranges, certain }) = &recovered {
            let state = store.state();
            let generation = state.map(|state| state.leadership.generation).unwrap_or_default();
            let damaged = Damaged { ranges, certain: *certain, generation };
            if mend(storage, settings, options, &disk, &damaged)? {
                recovered = recover(&disk, &mut hot, &recovery, &store, boot);
            }
        }
        let mut recovered = recovered
            .map_err(|error| NodeError::Recovery { directory: directory.clone(), error })?;
        if settings.own().observer {
            recovered.state = store.update(NodeState::observe).map_err(NodeError::NodeState)?;
        }
        let shared = storage.words(&hot).map_err(host("making the shared page"))?;
        Ok(Self {
            lock: folder,
            disk,
            hot,
            store: Arc::new(store),
            recovered,
            shared,
            warnings,
            installed,
        })
    }
}

/// Seconds since 2020: later starts of a node whose state was lost get higher numbers.
fn first_incarnation() -> Incarnation {
    const YEAR_2020: u64 = 1_577_836_800;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Incarnation(u32::try_from(now.saturating_sub(YEAR_2020)).unwrap_or(u32::MAX / 2))
}

/// How a node is reached: its networks, and where its events go.
pub(super) struct Front<E: Transport> {
    pub(super) sources: Sources<E::Control>,
    /// Ends a sleep of the control thread.
    pub(super) control_waker: Arc<dyn Wake>,
    pub(super) network: E::Network,
    /// Over which nodes take each other's files.
    pub(super) catch_up: Option<Box<dyn LaneNet>>,
    pub(super) events: EventSink,
}

impl<E: Environment> Front<E> {
    /// Opens them, and says how the node was found. The network may end sleeps of the core with `core_waker`.
    pub(super) fn open(
        environment: &E,
        settings: &Settings,
        options: &NodeOptions,
        opened: &Opened<E>,
        core_waker: Arc<dyn Wake>,
    ) -> Result<Self, NodeError> {
        let bell = Bell::new().map_err(NodeError::Control)?;
        let control_waker = bell.waker();
        let control = environment.control(settings, bell.waker())?;
        let sources =
            bell.sources(control, &settings.node.admin_socket).map_err(NodeError::Control)?;
        let catch_up = environment.catch_up(settings)?;
        let network = environment.network(settings, core_waker)?;
        let mut events = EventSink::open(&settings.node.data_dir, settings.node.id, options.quiet)
            .map_err(host("opening the file of events"))?;
        if let Some(listener) = &options.listener {
            events.listen(listener.clone());
        }
        announce(&mut events, opened, &network);
        Ok(Self { sources, control_waker, network, catch_up, events })
    }
}

fn announce<E: Environment>(events: &mut EventSink, opened: &Opened<E>, network: &E::Network) {
    let recovered = &opened.recovered;
    events.line(1191, &format!("started: {}", recovered.report));
    if let Some(position) = opened.installed {
        let text =
            format!("the log is another node's from here on, up to its snapshot at {position}");
        events.line(1191, &text);
    }
    if let Some(cut) = &recovered.report.cut {
        let text = format!(
            "{} entries from {} to {} were torn and cut; they are kept in {}",
            cut.entries, cut.from, cut.to, cut.kept_at
        );
        events.line(1104, &text);
    }
    for warning in opened.warnings.iter().chain(&network.warnings()) {
        events.line(1192, warning);
    }
}

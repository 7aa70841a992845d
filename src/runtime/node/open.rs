//! What a node owns on the host: its data directory and the log in it, its hot tier, its sockets.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::settings::udp_settings;
use super::{NodeError, NodeOptions, host};
use crate::io::files::{HostDisk, HostFile, LOCK_NAME, boot_id};
use crate::io::hot_tier::{HOT_PATH_FILE, HostHotTier, HotTierSettings};
use crate::io::multicast::probe;
use crate::io::network_error::NetworkError;
use crate::io::shared_page::MappedWords;
use crate::io::udp::{Transport, UdpNetwork, UdpSettings};
use crate::io::{MappedMemory, MappedView};
use crate::journal::node_state::NodeStateStore;
use crate::journal::recovery::{Boot, Recovered, RecoverySettings, recover};
use crate::link::Shared;
use crate::runtime::config::Settings;
use crate::runtime::control_thread::Sources;
use crate::runtime::events::{EVENTS_NAME, EventSink};
use crate::types::Incarnation;

/// How long a probe of multicast waits for its own datagram.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// Hot segments that must find room when a node starts.
const HOT_SEGMENTS_MIN: u64 = 4;

/// What a node owns on the host, and the log in it.
pub(super) struct Opened {
    pub(super) disk: HostDisk,
    pub(super) hot: HostHotTier,
    pub(super) store: Arc<NodeStateStore<HostFile>>,
    pub(super) recovered: Recovered<MappedMemory, MappedView>,
    pub(super) shared: Shared,
    warnings: Vec<String>,
}

impl Opened {
    pub(super) fn open(settings: &Settings) -> Result<Self, NodeError> {
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

/// How a node is reached: its sockets, and where its events go.
pub(super) struct Front {
    pub(super) sources: Sources,
    pub(super) network: UdpNetwork,
    pub(super) multicast: bool,
    pub(super) events: EventSink,
}

impl Front {
    /// Opens them, and says how the node was found.
    pub(super) fn open(
        settings: &Settings,
        options: &NodeOptions,
        opened: &Opened,
    ) -> Result<Self, NodeError> {
        let sources = Sources::open(settings.own().control, &settings.node.admin_socket)
            .map_err(NodeError::Control)?;
        let udp = udp_settings(settings, settings.transport.kind);
        let (network, multicast) = open_network(udp).map_err(NodeError::Network)?;
        let mut events = EventSink::open(&settings.node.data_dir, settings.node.id, options.quiet)
            .map_err(host("opening the file of events"))?;
        if let Some(listener) = &options.listener {
            events.listen(listener.clone());
        }
        announce(&mut events, opened, &network);
        Ok(Self { sources, network, multicast, events })
    }
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
pub(super) fn open_network(
    (udp, auto): (UdpSettings, Option<UdpSettings>),
) -> Result<(UdpNetwork, bool), NetworkError> {
    let udp = match auto {
        Some(multicast) if carries_multicast(&multicast) => multicast,
        _ => udp,
    };
    let multicast = matches!(udp.transport, Transport::Multicast(_));
    UdpNetwork::open(&udp).map(|network| (network, multicast))
}

/// Whether a datagram of this node to its group comes back. What is wrong with the host otherwise, opening the network
/// tells.
fn carries_multicast(udp: &UdpSettings) -> bool {
    match (&udp.transport, udp.node) {
        (Transport::Multicast(settings), Some(node)) => {
            probe(settings, node, udp.bind, PROBE_TIMEOUT).unwrap_or(false)
        }
        _ => false,
    }
}

//! One node: opens what it owns, brings its log back, starts its threads, and ends them in order.

mod mend;
mod open;
mod settings;
#[cfg(test)]
mod tests;
mod wiring;

use core::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use self::open::{Front, Opened};
use self::settings::snapshot_settings;
pub use self::settings::state_limits;
pub(in crate::runtime) use self::settings::{mender, repairs_machine, udp_settings};
use self::wiring::{Bells, Ready, wire};
use super::config::Settings;
use super::control_thread::{Ended, SourceError};
use super::environment::{Environment, Host, Storage};
use super::events::EventSink;
use super::snapshots::{damaged, describe};
use crate::control::event::Event;
use crate::io::files::DiskError;
use crate::io::hot_tier::HotTierError;
use crate::io::network_error::NetworkError;
use crate::journal::node_state::NodeStateError;
use crate::journal::reader::Trouble;
use crate::journal::recovery::RecoveryError;
use crate::journal::snapshot::set_aside_for;
use crate::link::{Outlet, Shared, SharedWords};
use crate::replica::snapshotter::Snapshotter;
use crate::replica::{ReplayLog, Replayed};
use crate::service::Service;
use crate::session::State;
use crate::types::{Applied, Generation, Leadership, Term};

/// How a node is started, besides its settings.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Events go to the data directory only.
    pub quiet: bool,
    /// Set it to stop the node.
    pub stop: Arc<AtomicBool>,
    /// Gets every event.
    pub listener: Option<crossbeam_channel::Sender<Event>>,
    /// Gets the service's events while the node leads.
    pub outlet: Option<Outlet>,
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
        /// Snapshots that would have spared it, and why they cannot be used.
        refused: Vec<String>,
    },
    /// A file that another version of the program wrote.
    Version {
        /// Which.
        path: PathBuf,
        /// What it is, which version was found, and which is read.
        what: String,
    },
    /// Its data sockets.
    Network(NetworkError),
    /// Its control sockets.
    Control(SourceError),
    /// Its environment, where that is not the host's.
    Environment(Box<dyn std::error::Error + Send + Sync>),
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
            Self::Replay { directory, trouble, refused } => {
                write!(f, "{}: replaying the log: {trouble}", directory.display())?;
                refused.iter().try_for_each(|refused| write!(f, "\n  {refused}"))
            }
            Self::Version { path, what } => write!(f, "{}: {what}", path.display()),
            Self::Network(error) => error.fmt(f),
            Self::Control(error) => error.fmt(f),
            Self::Environment(error) => error.fmt(f),
            Self::Host { action, error } => write!(f, "{action}: {error}"),
        }
    }
}

impl std::error::Error for NodeError {}

fn host(action: &'static str) -> impl FnOnce(io::Error) -> NodeError {
    move |error| NodeError::Host { action, error }
}

impl Node {
    /// Starts a node of these settings that runs `service`, which is in its first state. Its copies make the snapshots.
    ///
    /// # Errors
    /// [`NodeError`]: nothing runs then.
    pub fn start<S: Service + Clone + 'static>(
        settings: &Settings,
        service: S,
        options: NodeOptions,
    ) -> Result<Self, NodeError> {
        Self::start_in(&Host, settings, service, options)
    }

    /// As [`Node::start`], in an environment of one's own.
    ///
    /// # Errors
    /// [`NodeError`]: nothing runs then.
    pub fn start_in<E: Environment, S: Service + Clone + 'static>(
        environment: &E,
        settings: &Settings,
        service: S,
        options: NodeOptions,
    ) -> Result<Self, NodeError> {
        let opened = Opened::open(environment, settings, &options)?;
        let bells = Bells::new()?;
        let mut front = Front::open(environment, settings, &options, &opened, bells.core_waker())?;
        let pristine = service.clone();
        let mut state = State::new(service, state_limits(settings));
        let replayed = bring_up(settings, &opened, &mut state, &mut front.events)?;
        let shared = Arc::clone(&opened.shared);
        let applied = Applied(replayed.at.before.position);
        let snapshotter = Snapshotter::new(
            opened.disk.clone(),
            Arc::clone(&shared),
            snapshot_settings(settings),
            pristine,
        );
        let snapshotter = snapshotter.map_err(host("looking at the snapshots"))?;
        let newest = replayed.snapshot;
        let ready = Ready {
            opened,
            front,
            bells,
            state,
            applied,
            snapshotter,
            newest,
            outlet: options.outlet,
        };
        let (control, others) = wire(settings, &options.stop, ready)?.spawn(settings)?;
        Ok(Self { stop: options.stop, shared, control, others })
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
    #[must_use]
    pub fn wait(self) -> Ended {
        // A thread that panicked has taken the process with it in release builds; in others it counts as a halt.
        let ended = self.control.join().unwrap_or(Ended::Halted);
        let all = self.others.into_iter().all(|thread| thread.join().is_ok());
        if all { ended } else { Ended::Halted }
    }
}

/// Restores the newest snapshot that can be used, and applies the log from there on.
fn bring_up<E: Storage, S: Service>(
    settings: &Settings,
    opened: &Opened<E>,
    state: &mut State<S>,
    events: &mut EventSink,
) -> Result<Replayed, NodeError> {
    let (group, disk) = (&settings.group, &opened.disk);
    let log = ReplayLog { disk, group: group.id, segment_bytes: group.segment_bytes };
    let recovered = &opened.recovered;
    let tail = recovered.tail.position;
    let replayed = log.replay(recovered.known_commit, tail, state).map_err(|trouble| {
        let (_, refused) = log.restore(tail, state);
        let refused = refused.iter().map(|(position, error)| damaged(*position, error, None));
        let directory = settings.node.data_dir.clone();
        NodeError::Replay { directory, trouble, refused: refused.collect() }
    })?;
    for (position, error) in &replayed.refused {
        let kept = set_aside_for(disk, *position, error);
        events.line(1131, &damaged(*position, error, kept.as_deref()));
    }
    if let Some(stamp) = &replayed.snapshot {
        events.line(1191, &format!("the state begins with the snapshot {}", describe(stamp)));
    }
    Ok(replayed)
}

/// The newest leadership of a node, for those who only look.
#[must_use]
pub fn leadership(words: &SharedWords) -> Leadership {
    Leadership {
        generation: Generation::from_u64(words.generation.load(Ordering::Relaxed)),
        term: Term(words.term.load(Ordering::Relaxed) as u32),
    }
}

//! A node inside one's own program: `Engine::open(path, service)`.
//!
//! ```text
//! <path>/engine.toml   what the group was founded with, and where it listens now
//! <path>/node-0/       its node: log, node state, events, lock, admin socket
//! ```
//!
//! It is the same node that `quorate node` runs, so the tools work on it: `quorate status --config <path>/engine.toml`,
//! `quorate-log tail <path>/node-0`. Its threads run in the program's process; they start none and touch no signal handlers,
//! stdout or stderr of the program unless asked to.

mod asking;
mod folder;
mod reading;

use core::fmt;
use core::sync::atomic::Ordering;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use self::asking::Asker;
pub use self::asking::{ExecuteError, Executed};
pub use self::folder::ENGINE_FILE;
use super::config::{ConfigErrors, Layers, Settings};
use super::control_thread::Ended;
use super::environment::{Environment, Host, Transport};
use super::host_client::{ConnectError, ConnectOptions, HostClient};
use super::host_reader::HostReader;
use super::node::{Node, NodeError, NodeOptions, leadership};
use crate::control::event::Event;
use crate::link::{Inlet, SharedWords, outlet};
use crate::service::{Role, Service};
use crate::types::{Leadership, Nanos, NodeId, Position, Sequence};

/// Events that are kept for somebody who does not look; later ones are missed, and still stand in `events.jsonl`.
const EVENTS_MAX: usize = 1024;
/// How long a new client looks for the leader, ns.
const CONNECT_NS: u64 = 10 * Nanos::SECOND;

/// A running node with a service of the program's own. Dropped, it stops in order.
///
/// ```
/// use quorate::Engine;
/// use quorate::service::Echo;
/// use std::time::Duration;
///
/// let path = std::env::temp_dir().join(format!("quorate-engine-{}", std::process::id()));
/// let engine = Engine::open(&path, Echo::new())?;
/// let answer = engine.execute(b"hello", Duration::from_secs(10))?;
/// assert_eq!(answer.reply, b"hello");
/// engine.stop();
/// # std::fs::remove_dir_all(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine<E: Environment = Host> {
    /// None once it has stopped.
    node: Option<Node>,
    environment: E,
    settings: Settings,
    events: Receiver<Event>,
    service_events: Inlet,
    asker: Mutex<Option<Asker<<E as Transport>::Network>>>,
    reader: Mutex<Option<HostReader<<E as Transport>::Network>>>,
    /// The node is the only one of its group, and its folder was chosen by the program.
    own_folder: bool,
}

impl<E: Environment> fmt::Debug for Engine<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("node", &self.node).finish_non_exhaustive()
    }
}

/// How an engine is opened: [`Engine::builder`], [`Engine::node_of`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct EngineBuilder<E = Host> {
    environment: E,
    start: Laid,
}

/// What the settings are made of.
#[derive(Clone, Debug)]
struct Laid {
    base: Base,
    files: Vec<PathBuf>,
    keys: Vec<(String, String)>,
    stderr: bool,
}

#[derive(Clone, Debug)]
enum Base {
    /// A group of one node in this folder.
    Folder(PathBuf),
    /// A node that these describe.
    Node(Layers),
}

/// Why an engine does not open. Nothing runs then.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// Its settings.
    Config(ConfigErrors),
    /// Its node.
    Node(NodeError),
    /// A file of its folder, or the folder.
    File {
        /// Which.
        path: PathBuf,
        /// What the host said.
        error: io::Error,
    },
    /// There is a log, and the file that says which group it belongs to is gone.
    Orphan {
        /// The file.
        file: PathBuf,
        /// Where the log is.
        data_dir: PathBuf,
    },
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => errors.fmt(f),
            Self::Node(error) => error.fmt(f),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Orphan { file, data_dir } => write!(
                f,
                "{} is missing, and {} holds the log of a group: put the file back, or start in an empty folder",
                file.display(),
                data_dir.display()
            ),
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(errors) => Some(errors),
            Self::Node(error) => Some(error),
            Self::File { error, .. } => Some(error),
            Self::Orphan { .. } => None,
        }
    }
}

impl EngineBuilder {
    fn new(base: Base) -> Self {
        let start = Laid { base, files: Vec::new(), keys: Vec::new(), stderr: false };
        Self { environment: Host, start }
    }
}

impl<E> EngineBuilder<E> {
    /// Sets a key of the configuration, as text: `.set("timing.heartbeat_ms", "5")`. It wins over every file. Keys of `group`
    /// that are set when a group is founded are written to its file and need not be set again.
    pub fn set(mut self, key: &str, text: &str) -> Self {
        self.start.keys.push((key.to_owned(), text.to_owned()));
        self
    }

    /// Lays a TOML file of settings over those that the engine has; it need not hold all of them.
    pub fn config_file(mut self, path: impl AsRef<Path>) -> Self {
        self.start.files.push(path.as_ref().to_owned());
        self
    }

    /// Also writes events to stderr, one line each. They always stand in `events.jsonl` in the node's data directory.
    pub fn stderr(mut self, write: bool) -> Self {
        self.start.stderr = write;
        self
    }

    /// Runs on a transport and a storage of one's own. A pair of the two is an environment: `(mine, Host)` replaces the
    /// transport alone, `(Host, mine)` the storage.
    ///
    /// The folder of the engine still holds what is for people and tools: its settings, events, and the admin socket.
    pub fn environment<F: Environment>(self, environment: F) -> EngineBuilder<F> {
        EngineBuilder { environment, start: self.start }
    }
}

impl<E: Environment> EngineBuilder<E> {
    /// Starts the node with this service, which is in its first state: the log brings the rest back.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn open<S: Service + Clone + 'static>(self, service: S) -> Result<Engine<E>, EngineError> {
        let Self { environment, start } = self;
        let settings = match &start.base {
            Base::Folder(folder) => folder::settings(folder, &environment, &start, service.name())?,
            Base::Node(layers) => start.lay(layers.clone()).check().map_err(EngineError::Config)?,
        };
        let (listener, events) = bounded(EVENTS_MAX);
        let (outlet, service_events) = outlet();
        let options = NodeOptions {
            quiet: !start.stderr,
            listener: Some(listener),
            outlet: Some(outlet),
            ..NodeOptions::default()
        };
        let node = Node::start_in(&environment, &settings, service, options);
        let node = Some(node.map_err(EngineError::Node)?);
        let own_folder = matches!(start.base, Base::Folder(_));
        let (asker, reader) = (Mutex::new(None), Mutex::new(None));
        Ok(Engine {
            node,
            environment,
            settings,
            events,
            service_events,
            asker,
            reader,
            own_folder,
        })
    }
}

impl Laid {
    /// Lays what the program said over what is there.
    fn lay(&self, layers: Layers) -> Layers {
        let layers = self.files.iter().fold(layers, |layers, file| layers.file(file));
        self.keys.iter().fold(layers, |layers, (key, text)| layers.set(key, text))
    }
}

impl Engine {
    /// Opens the group of one node in this folder; founds it if the folder is empty or absent.
    ///
    /// Everything has its default: an entry counts once it is on the disk, the node listens on loopback at ports that are free
    /// now, and events go to `events.jsonl` only.
    ///
    /// # Errors
    /// [`EngineError`]: for example, another process has the folder.
    pub fn open<S: Service + Clone + 'static>(
        path: impl AsRef<Path>,
        service: S,
    ) -> Result<Self, EngineError> {
        Self::builder(path).open(service)
    }

    /// As [`Engine::open`], with settings.
    pub fn builder(path: impl AsRef<Path>) -> EngineBuilder {
        EngineBuilder::new(Base::Folder(path.as_ref().to_owned()))
    }

    /// One node of a group of several, which `quorate init` has founded:
    /// `Engine::node_of(Layers::new().file(Path::new("group/node-0.toml")))`. All nodes of a group run the same service.
    pub fn node_of(layers: Layers) -> EngineBuilder {
        EngineBuilder::new(Base::Node(layers))
    }
}

impl<E: Environment> Engine<E> {
    fn node(&self) -> &Node {
        self.node.as_ref().expect("only stopping takes it, and that takes the engine")
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A client of the group, welcomed by its leader. It must be polled to keep its session: at least every few seconds.
    ///
    /// # Errors
    /// [`ConnectError`]: of a group of several, no leader may be there, or no quorum.
    pub fn client(&self) -> Result<HostClient<E::Network>, ConnectError> {
        self.client_within("engine", CONNECT_NS)
    }

    fn client_within(
        &self,
        name: &str,
        timeout_ns: u64,
    ) -> Result<HostClient<E::Network>, ConnectError> {
        let options = ConnectOptions::of(&self.settings, name);
        let mut client = HostClient::new_in(&self.environment, options)?;
        client.connect(timeout_ns)?;
        Ok(client)
    }

    /// Has a command applied, and waits for its reply. One at a time: threads that ask together wait for each other; a client
    /// of their own ([`Engine::client`]) has many in flight.
    ///
    /// The session that carries it is the engine's own. It ends with the engine, or by its time-out when nothing was asked for
    /// long.
    ///
    /// # Errors
    /// [`ExecuteError`]: after [`ExecuteError::Unknown`] it may have taken effect, after a rejection or refusal it has not.
    pub fn execute(&self, command: &[u8], timeout: Duration) -> Result<Executed, ExecuteError> {
        self.ask(timeout, |client| client.send(command).map(crate::client::Request::Command))
    }

    /// Has several commands applied together or not at all. Each one's reply is behind its length in the reply:
    /// [`batch_items`](crate::frame::payload::batch_items) splits it.
    ///
    /// # Errors
    /// As [`Engine::execute`]; a rejection has the code of the command that was rejected.
    pub fn execute_batch(
        &self,
        commands: &[&[u8]],
        timeout: Duration,
    ) -> Result<Executed, ExecuteError> {
        self.ask(timeout, |client| client.send_batch(commands).map(crate::client::Request::Command))
    }

    /// Asks the service something that changes nothing.
    ///
    /// # Errors
    /// As [`Engine::execute`].
    pub fn query(&self, question: &[u8], timeout: Duration) -> Result<Executed, ExecuteError> {
        self.ask(timeout, |client| client.query(question))
    }

    /// What happens to the node, as it happens: roles, members, everything with a code. Events since the start wait here, up
    /// to 1,024 of them. All receivers share them: each event comes out of one.
    #[must_use]
    pub fn events(&self) -> Receiver<Event> {
        self.events.clone()
    }

    /// What the service tells the outside ([`Context::emit`](crate::service::Context::emit)), while this node leads: at least
    /// once, in order. Who takes events says how far with [`Inlet::taken_through`]; what was not said to be taken comes again
    /// from the next leader. When nobody takes them, 4,096 wait, and a command that would emit another is rejected.
    #[must_use]
    pub fn service_events(&self) -> Inlet {
        self.service_events.clone()
    }

    /// What the node is doing.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        EngineStatus::of(self.words())
    }

    /// Every position and counter of the node.
    #[must_use]
    pub fn words(&self) -> &SharedWords {
        self.node().words()
    }

    /// Whether the node has ended by itself: halted, or stopped over its admin socket.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.node().is_ended()
    }

    /// Ends the engine's own session and stops the node; returns when its threads are gone.
    #[allow(clippy::must_use_candidate)] // many only want it to stop
    pub fn stop(mut self) -> Ended {
        self.end().expect("it has not been stopped before")
    }
}

impl<E: Environment> Engine<E> {
    fn end(&mut self) -> Option<Ended> {
        let node = self.node.take()?;
        let asker = self.asker.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(asker) = asker
            && !node.is_ended()
        {
            asker.close();
        }
        node.stop();
        let ended = node.wait();
        if self.own_folder && ended == Ended::Orderly {
            folder::tidy(&self.settings);
        }
        Some(ended)
    }
}

impl<E: Environment> Drop for Engine<E> {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a node is doing. Read piece by piece while the node works: the parts may be a moment apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EngineStatus {
    /// None before it has one.
    pub role: Option<Role>,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
    /// The newest leadership it knows.
    pub leadership: Leadership,
    /// It leads and hears a quorum: commands are taken.
    pub quorum: bool,
    /// Last entry that the service was given.
    pub applied_sequence: Sequence,
    /// End of the log.
    pub tail: Position,
    /// End of what is on the disk.
    pub durable: Position,
    /// End of what the group has decided.
    pub commit: Position,
    /// End of what the service was given.
    pub applied: Position,
    /// Sessions open.
    pub sessions: u64,
}

impl EngineStatus {
    fn of(words: &SharedWords) -> Self {
        let position =
            |word: &core::sync::atomic::AtomicU64| Position(word.load(Ordering::Acquire));
        // From the end of the way to its start: what is behind never looks further than what is ahead.
        let (applied, commit) = (position(&words.applied), position(&words.commit));
        let (durable, tail) = (position(&words.durable), position(&words.verified));
        Self {
            role: match words.role.load(Ordering::Relaxed) {
                1 => Some(Role::Follower),
                2 => Some(Role::Leader),
                _ => None,
            },
            leader: match words.leader.load(Ordering::Relaxed) {
                0 => None,
                node => Some(NodeId((node - 1) as u16)),
            },
            leadership: leadership(words),
            quorum: words.quorum.load(Ordering::Relaxed) != 0,
            applied_sequence: Sequence(words.applied_sequence.load(Ordering::Relaxed)),
            tail,
            durable,
            commit,
            applied,
            sessions: words.sessions.load(Ordering::Relaxed),
        }
    }
}

//! The control thread: sleeps in `poll`, feeds the control machine, does what it wants done.

use core::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use serde_json::{Value, json};
use zerocopy::IntoBytes;

use super::admin::{Admin, FIRST_TOKEN};
use super::carrier::CarrierOrder;
use super::control_dropped::ControlDropped;
use super::disk_desk::DiskDesk;
use super::environment::{ControlNetwork, FileOf, Storage};
use super::events::EventSink;
use super::ladder_desk::{self, set_durability};
use super::lane_desk::LaneDesk;
use super::outlook::Outlook;
use super::renewal::Renewal;
use super::retention::RetentionDesk;
use super::snapshots::SnapshotDesk;
use super::watch::Watch;
use crate::control::constants::Door;
use crate::control::election::{Election, Glance, Input, Output};
use crate::control::lane::{LaneInput, LaneOutput};
use crate::control::message::{Envelope, Standing};
use crate::frame::Predecessor;
use crate::io::clock::{Anchor, Anchoring, Correction, HostClock};
use crate::io::cpu::Refused;
use crate::io::port::{self, Holder};
use crate::journal::keeper::{KeeperEvent, KeeperStep};
use crate::journal::node_state::{CleanMark, NodeStateStore};
use crate::link::{ControlLink, ControlToCore, CoreToControl, Promise, Shared, Wake};
use crate::types::{Commit, Durable, Generation, GroupId, Nanos, NodeId, Position};

const SOCKET: Token = Token(0);
const ADMIN: Token = Token(1);
const WAKER: Token = Token(2);
const _: () = assert!(WAKER.0 < FIRST_TOKEN);

/// Longest sleep: the clock is anchored and the stop flag looked at as often, ns.
const SLEEP_NS: u64 = 50 * Nanos::MILLISECOND;
/// How often the wall clock is compared with the monotonic one, ns.
const ANCHOR_NS: u64 = Nanos::SECOND;
/// How long an orderly stop waits for the disk before it leaves without a clean mark, ns.
const STOP_TIMEOUT_NS: u64 = 10 * Nanos::SECOND;

/// Wakes the control thread.
#[derive(Debug)]
pub(super) struct ControlWaker(pub(super) Waker);

impl Wake for ControlWaker {
    fn wake(&self) {
        // The only error is a full eventfd counter: then it is awake already.
        let _ = self.0.wake();
    }
}

/// Why a node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was asked to, and everything it acknowledged is on its disk.
    Orderly,
    /// It has taken a snapshot of another node, because the log that it needs has left them all: it is to be started again, and
    /// begins with that.
    Renewed,
    /// It was asked to, and the disk did not take everything in time.
    Unsynced,
    /// Its state cannot be trusted, or a disk failed.
    Halted,
}

/// All that the control thread owns.
pub(super) struct ControlThread<E: Storage> {
    pub(super) group: GroupId,
    pub(super) machine: Election,
    /// What this node sees of its group.
    pub(super) outlook: Outlook,
    /// What this node takes of others' logs, and they of its.
    pub(super) lane: LaneDesk,
    /// How this node's disk is.
    pub(super) disk: DiskDesk,
    /// Who is let in to it.
    pub(super) door: Door,
    /// What came to the control port and was not let in.
    pub(super) dropped: ControlDropped,
    pub(super) link: ControlLink,
    pub(super) core_waker: Arc<dyn Wake>,
    pub(super) addresses: Vec<(NodeId, SocketAddr)>,
    pub(super) store: Arc<NodeStateStore<FileOf<E>>>,
    pub(super) shared: Shared,
    pub(super) clock: HostClock,
    pub(super) wall: Anchoring,
    pub(super) events: EventSink,
    /// Set from outside to stop the node.
    pub(super) stop: Arc<AtomicBool>,
    /// Set here when all other threads must end.
    pub(super) ended: Arc<AtomicBool>,
    pub(super) description: Value,
    /// What the keeper reports.
    pub(super) keeper: Receiver<KeeperEvent>,
    /// The replay worker.
    pub(super) snapshots: SnapshotDesk,
    /// What leaves the log, and what the others lack of it.
    pub(super) retention: RetentionDesk,
    /// A snapshot of another node that is to take the place of the log.
    pub(super) renewal: Renewal<E::Disk>,
    /// Watches the core thread's run queue.
    pub(super) contention: Watch,
    /// What the sync thread's disk refused.
    pub(super) sync_failures: (Sender<String>, Receiver<String>),
}

/// The sources of wake-ups, made before the thread so that errors surface at the start.
#[derive(Debug)]
pub(super) struct Sources<C> {
    poll: Poll,
    network: C,
    admin: Admin,
}

/// Sources without the network, which is to wake the thread.
#[derive(Debug)]
pub(super) struct Bell {
    poll: Poll,
    waker: Arc<ControlWaker>,
}

impl Bell {
    pub(super) fn new() -> Result<Self, SourceError> {
        let poll = Poll::new().map_err(SourceError::Poll)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(SourceError::Poll)?;
        Ok(Self { poll, waker: Arc::new(ControlWaker(waker)) })
    }

    /// What ends a sleep of the thread.
    pub(super) fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    /// Takes the network in, and binds the admin socket.
    pub(super) fn sources<C: ControlNetwork>(
        self,
        network: C,
        admin: &Path,
    ) -> Result<Sources<C>, SourceError> {
        let poll = self.poll;
        let registry = poll.registry();
        for descriptor in network.descriptors() {
            let descriptor = descriptor.as_raw_fd();
            let registered =
                registry.register(&mut SourceFd(&descriptor), SOCKET, Interest::READABLE);
            registered.map_err(SourceError::Poll)?;
        }
        let admin = Admin::open(admin, registry, ADMIN)
            .map_err(|error| SourceError::Admin { path: admin.into(), error })?;
        Ok(Sources { poll, network, admin })
    }
}

/// Why the control thread's sockets could not be opened.
#[derive(Debug)]
pub enum SourceError {
    /// The host's poll.
    Poll(io::Error),
    /// The control socket.
    Control {
        /// Its address.
        address: SocketAddr,
        /// What the host said.
        error: io::Error,
        /// Who has the port, if that is what is wrong and could be seen.
        holder: Option<Holder>,
    },
    /// The listening socket for nodes that catch up.
    CatchUp {
        /// Its address.
        address: SocketAddr,
        /// What the host said.
        error: io::Error,
        /// Who has the port, if that is what is wrong and could be seen.
        holder: Option<Holder>,
    },
    /// The admin socket.
    Admin {
        /// Its path.
        path: PathBuf,
        /// What the host said.
        error: io::Error,
    },
}

impl SourceError {
    /// It could not be bound.
    pub(super) fn control(address: SocketAddr, error: io::Error) -> Self {
        let taken = error.kind() == ErrorKind::AddrInUse;
        let holder = taken.then(|| port::holder(port::Protocol::Udp, address)).flatten();
        Self::Control { address, error, holder }
    }

    /// It could not be bound.
    pub(super) fn catch_up(address: SocketAddr, error: io::Error) -> Self {
        let taken = error.kind() == ErrorKind::AddrInUse;
        let holder = taken.then(|| port::holder(port::Protocol::Tcp, address)).flatten();
        Self::CatchUp { address, error, holder }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poll(error) => write!(f, "control thread: {error}"),
            Self::Control { address, error, holder } => {
                socket(f, "control socket", *address, error, holder.as_ref())
            }
            Self::CatchUp { address, error, holder } => {
                socket(f, "catch-up listener", *address, error, holder.as_ref())
            }
            Self::Admin { path, error } => write!(f, "admin socket {}: {error}", path.display()),
        }
    }
}

fn socket(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    address: SocketAddr,
    error: &io::Error,
    holder: Option<&Holder>,
) -> fmt::Result {
    if error.kind() != ErrorKind::AddrInUse {
        return write!(f, "{what} {address}: {error}");
    }
    write!(f, "port {} is taken: the {what} wants {address}, and ", address.port())?;
    match holder {
        Some(holder) => write!(f, "{holder} has it"),
        None => f.write_str("another process has it"),
    }
}

impl<E: Storage> ControlThread<E> {
    /// Runs until the node is stopped or must stop.
    pub(super) fn run<C: ControlNetwork>(
        mut self,
        mut sources: Sources<C>,
        refused: &Receiver<Refused>,
    ) -> Ended {
        let mut polled = Events::with_capacity(64);
        let mut anchor_at = Nanos(0);
        let ended = loop {
            let now = self.clock.now();
            let until = self
                .machine
                .deadline()
                .min(self.lane.machine.deadline())
                .since(now)
                .clamp(Nanos::MILLISECOND, SLEEP_NS);
            match sources.poll.poll(&mut polled, Some(Duration::from_nanos(until))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    self.events.line(1199, &format!("poll failed: {error}"));
                    break Ended::Halted;
                }
                _ => {}
            }
            let now = self.clock.now();
            if now >= anchor_at {
                anchor_at = now.plus(ANCHOR_NS);
                if let Correction::Stepped(by) = self.wall.correct(Anchor::measure(self.clock)) {
                    self.events.line(1114, &format!("the wall clock jumped by {by} ns"));
                }
            }
            self.contention.look(now);
            self.disk.look(now, self.shared.words(), &mut self.machine, &mut self.events);
            self.machine.handle(now, Input::Glance(Glance::of(self.shared.words())));
            self.take_datagrams(&mut sources.network, now);
            while let Ok(refused) = refused.try_recv() {
                self.events.line(1192, &refused.to_string());
            }
            self.tell_of_the_disk();
            self.snapshots.tell(&mut self.events);
            self.retention.tell(&mut self.events);
            while let Ok(fact) = self.link.from_core.try_recv() {
                self.lane.on_core(now, &fact);
                self.machine.handle(now, Input::Core(fact));
            }
            self.outlook.look(now, self.shared.words(), &self.machine);
            self.lane.take_news(now);
            self.lane.repair(now, &mut self.events);
            self.answer_admin(&mut sources, &polled, now);
            self.machine.handle(now, Input::Tick);
            // What one of the machines wants may be a word for the other.
            let mut halts = self.obey(&mut sources.network, now);
            while !halts && self.obey_lane(now) {
                halts = self.obey(&mut sources.network, now);
            }
            if halts {
                self.tell_of_the_disk();
                break Ended::Halted;
            }
            if self.stop.load(Ordering::Acquire) {
                break self.stop_core(now);
            }
            if let Some(ended) = self.renew(now) {
                break ended;
            }
        };
        self.events.line(1190, &format!("stopped: {}", ended.text()));
        self.ended.store(true, Ordering::Release);
        self.core_waker.wake();
        ended
    }

    fn tell_of_the_disk(&mut self) {
        while let Ok(event) = self.keeper.try_recv() {
            match event {
                KeeperEvent::Blocked { step, base, kind } => {
                    let what = match step {
                        KeeperStep::DurableFile => "the file of",
                        KeeperStep::HotSegment => "the memory of",
                    };
                    let text = format!(
                        "{what} the segment at {base} cannot be made: {kind}; tried again, \
                         commands are turned away when the log reaches it"
                    );
                    self.events.line(1108, &text);
                }
                KeeperEvent::Resumed { base } => {
                    self.events.line(1109, &format!("segments are made again, from {base}"));
                }
                KeeperEvent::NotRemoved { base, kind } => {
                    let text = format!("hot segment {base} could not be removed: {kind}");
                    self.events.line(1192, &text);
                }
            }
        }
        while let Ok(failure) = self.sync_failures.1.try_recv() {
            self.events.line(1107, &failure);
        }
    }

    fn take_datagrams(&mut self, network: &mut impl ControlNetwork, now: Nanos) {
        let mut buffer = [0; 2048];
        while let Some((length, from)) = network.receive(&mut buffer) {
            if !self.take_datagram(&buffer[..length], from, now) {
                self.shared.words().control_refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(line) = self.dropped.line(now) {
            self.events.line(1193, &line);
        }
    }

    /// Returns whether it was for this node, from one that is let in.
    fn take_datagram(&mut self, bytes: &[u8], from: SocketAddr, now: Nanos) -> bool {
        let (envelope, constants) = match Envelope::decode(bytes, self.group) {
            Ok(message) => message,
            Err(error) => {
                self.dropped.count(error);
                return false;
            }
        };
        let listed = self.addresses.contains(&(envelope.from, from));
        match self.door.admit(&envelope, &constants, listed) {
            Ok(()) => {
                self.retention.hear(&envelope);
                self.machine.handle(now, Input::Message(envelope));
            }
            Err(refused) => {
                self.dropped.count_stranger();
                // Others may use its name: only what comes from its own address says anything of it.
                if listed {
                    self.machine.handle(now, Input::Refused(envelope.from));
                }
                if let Some(event) = refused.event {
                    self.events.event(&event);
                }
                return false;
            }
        }
        true
    }

    /// Does what the machine wants; returns whether the node must halt.
    fn obey(&mut self, network: &mut impl ControlNetwork, now: Nanos) -> bool {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::ToCore(order) => self.order(order),
                Output::Persist(promise) => {
                    if let Err(error) = self.persist(promise) {
                        self.events.line(1107, &format!("node state not written: {error}"));
                        return true;
                    }
                    self.machine.handle(now, Input::Persisted);
                }
                Output::Send(to, envelope) => {
                    if let Some((_, address)) = self.addresses.iter().find(|(node, _)| *node == to)
                    {
                        let durable = self.shared.words().durable.load(Ordering::Acquire);
                        let envelope = RetentionDesk::fill_in(envelope, Durable(Position(durable)));
                        let datagram = envelope.encode(self.group, self.door.constants());
                        network.send(*address, datagram.as_bytes());
                    }
                }
                Output::Pull { from, recency } => {
                    self.lane.machine.handle(now, LaneInput::Pull { from, recency });
                }
                Output::Event(event) => {
                    self.outlook.note(&event);
                    self.events.event(&event);
                }
                Output::Halt => return true,
            }
        }
        false
    }

    /// Does what the lane wants; returns whether that is news for the other machine.
    fn obey_lane(&mut self, now: Nanos) -> bool {
        let mut news = false;
        while let Some(output) = self.lane.machine.poll() {
            match output {
                LaneOutput::ToCore(order) => self.order(order),
                LaneOutput::Chunk(chunk) => {
                    // No more are under way than it holds: there is room, or the core is gone.
                    let _ = self.link.to_lane.try_send(chunk);
                    self.core_waker.wake();
                }
                LaneOutput::Ask(to, request) => {
                    self.lane.order(now, to, CarrierOrder::Ask(to, request));
                }
                LaneOutput::Answer(to, answer) => {
                    self.lane.order(now, to, CarrierOrder::Answer(to, answer));
                }
                LaneOutput::Ended(whole) => {
                    self.machine.handle(now, Input::Pulled(whole));
                    news = true;
                }
                LaneOutput::Resume(number) => self.lane.snapshot(CarrierOrder::Resume(number)),
                LaneOutput::Discard => self.lane.snapshot(CarrierOrder::Discard),
                LaneOutput::Install(position) => self.renewal.asked = Some(position),
                LaneOutput::Event(event) => self.events.event(&event),
            }
        }
        news
    }

    fn order(&self, order: ControlToCore) {
        // The core takes its mail every duty cycle; a mailbox of hundreds that is full means that it is gone.
        if self.link.to_core.send_timeout(order, Duration::from_secs(1)).is_ok() {
            self.core_waker.wake();
        }
    }

    /// Term, vote and what may be promised: durable before anything follows from them.
    fn persist(&self, promise: Promise) -> Result<(), String> {
        let durable = Durable(Position(self.shared.words().durable.load(Ordering::Acquire)));
        let update = self.store.update(|state| state.keep(&promise, durable));
        update.map(drop).map_err(|error| error.to_string())
    }

    fn answer_admin<C>(&mut self, sources: &mut Sources<C>, polled: &Events, now: Nanos) {
        for event in polled {
            match event.token() {
                ADMIN => sources.admin.accept(sources.poll.registry()),
                token if token.0 >= FIRST_TOKEN => {
                    let Self { shared, machine, lane, description, stop, dropped, outlook, .. } =
                        self;
                    let (snapshots, disk, retention) =
                        (&self.snapshots, &self.disk, &self.retention);
                    sources.admin.ready(token, |request| match request {
                        "status" => {
                            let status = status(shared, machine, description, dropped);
                            let mut status = with_outlook(status, outlook, now);
                            status["snapshot"] = snapshots.json();
                            status["catch_up"] = lane.json(now);
                            status["retention"] = retention.json();
                            status["disk"] = disk.json();
                            status["scrub"] = lane.repairs.json();
                            status.to_string()
                        }
                        "snapshot" => snapshots.ask().to_string(),
                        "step-down" => handed(machine.step_down(now)),
                        other if other.starts_with("durability ") => set_durability(machine, other),
                        other if other.starts_with("transfer ") => {
                            match other["transfer ".len()..].trim().parse() {
                                Ok(node) => {
                                    let to = NodeId(node);
                                    handed(machine.transfer(now, to).map(|()| to))
                                }
                                Err(_) => json!({"error": "transfer takes the number of a node"})
                                    .to_string(),
                            }
                        }
                        "stop" => {
                            stop.store(true, Ordering::Release);
                            json!({"stopping": true}).to_string()
                        }
                        other => json!({
                            "error": format!("unknown request {other:?}: status, stop, snapshot, durability, transfer or step-down"),
                        })
                        .to_string(),
                    });
                }
                _ => {}
            }
        }
    }

    /// An orderly stop: the core stops acknowledging, sync writes the rest, the clean mark is the last word.
    pub(super) fn stop_core(&mut self, now: Nanos) -> Ended {
        self.order(ControlToCore::Stop);
        let deadline = now.plus(STOP_TIMEOUT_NS);
        let mut end: Option<(Predecessor, Commit)> = None;
        while self.clock.now() < deadline {
            if let Ok(CoreToControl::Stopped { tail, commit }) =
                self.link.from_core.recv_timeout(Duration::from_millis(1))
            {
                end = Some((tail, commit));
            }
            let words = self.shared.words();
            let durable = Durable(Position(words.durable.load(Ordering::Acquire)));
            if words.sync_failed.load(Ordering::Relaxed) != 0 {
                return Ended::Halted;
            }
            if let Some((tail, commit)) = end
                && durable.0 >= tail.position
            {
                let mark = CleanMark { tail, commit };
                return match self.store.update(|state| state.stop(mark, durable)) {
                    Ok(_) => Ended::Orderly,
                    Err(error) => {
                        self.events.line(1107, &format!("clean mark not written: {error}"));
                        Ended::Unsynced
                    }
                };
            }
        }
        Ended::Unsynced
    }
}

impl Ended {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Orderly => "everything acknowledged is on the disk",
            Self::Renewed => "it starts again, with the snapshot that it took",
            Self::Unsynced => "the disk did not take everything in time",
            Self::Halted => "halted: see the events before this one",
        }
    }
}

/// The answer to an order to hand over: whether it was begun.
fn handed(begun: Result<NodeId, crate::control::election::TransferRefusal>) -> String {
    match begun {
        Ok(to) => json!({"handing_to": to.0}),
        Err(refusal) => json!({"error": refusal.to_string(), "refused": true}),
    }
    .to_string()
}

/// What `quorate status` shows.
fn status(
    shared: &Shared,
    machine: &Election,
    description: &Value,
    dropped: &ControlDropped,
) -> Value {
    let words = shared.words();
    let word = |atomic: &std::sync::atomic::AtomicU64| atomic.load(Ordering::Relaxed);
    let role = match word(&words.role) {
        1 => "follower",
        2 => "leader",
        _ => "none",
    };
    let generation = Generation::from_u64(word(&words.generation));
    let counters: serde_json::Map<String, Value> = crate::link::SharedWords::NAMES
        .iter()
        .zip(words.values())
        .map(|(name, value)| ((*name).to_string(), value.into()))
        .collect();
    let mut status = description.clone();
    let members: Vec<_> = machine.present().map(|node| node.0).collect();
    if let Some(object) = status.as_object_mut() {
        object.insert("role".into(), role.into());
        object.insert("generation".into(), generation.to_string().into());
        object.insert("term".into(), word(&words.term).into());
        object.insert("handing_to".into(), machine.handing().map(|node| node.0).into());
        object.insert("standing".into(), standing(machine).into());
        object.insert("durability".into(), ladder_desk::json(machine.durability()));
        object.insert("sequence".into(), word(&words.applied_sequence).into());
        object.insert(
            "positions".into(),
            json!({
                "tail": word(&words.verified), "durable": word(&words.durable),
                "commit": word(&words.commit), "applied": word(&words.applied),
            }),
        );
        object.insert("state_hash".into(), format!("{:016x}", word(&words.state_hash)).into());
        object.insert("present".into(), members.into());
        object.insert("words".into(), counters.into());
        object.insert("control_dropped".into(), dropped.json());
    }
    status
}

/// The status with what the node sees of its group.
fn with_outlook(mut status: Value, outlook: &Outlook, now: Nanos) -> Value {
    if let Some(object) = status.as_object_mut() {
        object.insert("leader".into(), outlook.leader().map(|node| node.0).into());
        object.insert("quorum".into(), outlook.quorum().into());
        object.insert("since".into(), format!("{:.3}", outlook.since()).into());
        object.insert("since_ms".into(), outlook.lasts_ms(now).into());
        object.insert("last_transfer".into(), outlook.last_transfer().into());
    }
    status
}

/// What this node's word is worth, in words.
fn standing(machine: &Election) -> &'static str {
    match machine.standing() {
        _ if !machine.is_voter() => "observer",
        Standing::Clean => "voter",
        Standing::Provisional => "provisional",
        Standing::Stateless => "stateless",
    }
}

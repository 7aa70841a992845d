//! A log that is damaged where it was durable, before the node starts: what is missing is had from the others, who run.
//!
//! The same machines as while a node runs (`control::repair`, `journal::mender`), driven by a loop that may wait: nothing else
//! of this node exists yet. What all others have let go is covered by a snapshot, as while a node runs. When nobody can help in
//! time the node does not start, and names the damage.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::settings::{mender, repairs_machine};
use super::{NodeError, NodeOptions, host};
use crate::control::lane::wire::{LaneEnd, LaneMessage, LaneNodes, decode, encode};
use crate::control::lane::{LaneInput, LaneRequest};
use crate::control::repair::{RepairOutput, Repairs};
use crate::frame::Predecessor;
use crate::io::clock::HostClock;
use crate::journal::Disk;
use crate::journal::mender::Mender;
use crate::journal::recovery::DamagedRange;
use crate::journal::recovery_table::Finding;
use crate::link::{RepairReport, SharedWords};
use crate::runtime::config::Settings;
use crate::runtime::environment::{Environment, LaneNet, LaneStream};
use crate::runtime::events::EventSink;
use crate::types::{Generation, Nanos, NodeId, Position};

/// So long the others are asked before the node gives up, ns: they may be starting, too.
const PATIENCE_NS: u64 = 30 * Nanos::SECOND;
/// Pause when there is nothing to do.
const NAP: Duration = Duration::from_millis(1);
/// Bytes read from a connection at once.
const READ_BYTES: usize = 64 * 1024;

/// What is wrong, and what is known of the log all the same.
pub(super) struct Damaged<'a> {
    pub(super) ranges: &'a [DamagedRange],
    /// End of what is certain.
    pub(super) certain: Predecessor,
    /// That this node promised: nobody of another one is listened to.
    pub(super) generation: Generation,
}

/// Has the damaged files repaired; returns whether all of them are.
pub(super) fn mend<E: Environment>(
    environment: &E,
    settings: &Settings,
    options: &NodeOptions,
    disk: &E::Disk,
    damaged: &Damaged<'_>,
) -> Result<bool, NodeError> {
    let bytes = |range: &DamagedRange| {
        !matches!(range.finding, Finding::SealsLost | Finding::NotTheSealedLog)
    };
    if !damaged.ranges.iter().all(bytes) {
        return Ok(false); // what is missing is no bytes that another node could give
    }
    let Some(net) = environment.catch_up(settings)? else { return Ok(false) };
    let mut events = EventSink::open(&settings.node.data_dir, settings.node.id, options.quiet)
        .map_err(host("opening the file of events"))?;
    for range in damaged.ranges {
        events.line(1170, &format!("damage: {range}"));
    }
    let mut mending = Mending {
        mender: mender(settings, disk.clone(), Arc::new(SharedWords::default())),
        machine: repairs_machine(settings),
        lane: Dialler::new(settings, net, damaged.generation),
        events,
        open: Vec::new(),
    };
    mending.mender.not_running(damaged.certain);
    let clock = HostClock;
    mending.begin(clock.now(), damaged, settings.group.segment_bytes);
    let until = clock.now().plus(PATIENCE_NS);
    while !mending.open.is_empty() {
        let now = clock.now();
        if now >= until || options.stop.load(Ordering::Acquire) {
            return Ok(false);
        }
        if !mending.turn(now) {
            std::thread::sleep(NAP);
        }
    }
    Ok(true)
}

struct Mending<D: Disk> {
    mender: Mender<D>,
    machine: Repairs,
    lane: Dialler,
    events: EventSink,
    /// Segments that are not repaired yet.
    open: Vec<Position>,
}

impl<D: Disk + Clone> Mending<D> {
    /// Nothing runs: every file may be touched. A range may reach over many.
    fn begin(&mut self, now: Nanos, damaged: &Damaged<'_>, segment_bytes: u64) {
        self.machine.not_running(damaged.certain.position);
        for range in damaged.ranges {
            let mut base = range.from.segment_base(segment_bytes);
            while base < range.to.max(range.from.plus(1)) {
                if !self.open.contains(&base) {
                    self.open.push(base);
                    self.machine.handle(now, RepairReport::Damaged(base));
                }
                base = base.plus(segment_bytes);
            }
        }
    }

    /// Returns whether there was anything to do.
    fn turn(&mut self, now: Nanos) -> bool {
        let mut worked = self.mender.step(now) > 0;
        while let Some(report) = self.mender.poll_report() {
            worked = true;
            match &report {
                RepairReport::Swapped { base, .. } => self.open.retain(|open| open != base),
                RepairReport::Covered { through, .. } => self.open.retain(|open| open > through),
                _ => {}
            }
            self.machine.handle(now, report);
        }
        while let Some(news) = self.lane.poll() {
            worked = true;
            self.machine.lane(now, &news);
        }
        self.machine.tick(now);
        while let Some(output) = self.machine.poll() {
            worked = true;
            match output {
                RepairOutput::Order(order) => self.mender.obey(order),
                RepairOutput::Ask(to, request) => self.lane.ask(to, request),
                RepairOutput::Event(event) => self.events.line(event.code(), &event.to_string()),
            }
        }
        worked
    }
}

/// Connections to the others, for one that has no threads yet.
struct Dialler {
    net: Box<dyn LaneNet>,
    nodes: LaneNodes,
    addresses: Vec<(NodeId, SocketAddr)>,
    connections: BTreeMap<NodeId, Line>,
    broken: Vec<NodeId>,
}

struct Line {
    stream: Box<dyn LaneStream>,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Dialler {
    fn new(settings: &Settings, net: Box<dyn LaneNet>, generation: Generation) -> Self {
        let addresses =
            settings.members.iter().map(|member| (member.id, member.catch_up)).collect();
        let nodes = LaneNodes { group: settings.group.id, own: settings.node.id, generation };
        Self { net, nodes, addresses, connections: BTreeMap::new(), broken: Vec::new() }
    }

    fn ask(&mut self, to: NodeId, request: LaneRequest) {
        if !self.connections.contains_key(&to) {
            let address = self.addresses.iter().find(|(node, _)| *node == to);
            let stream = address.and_then(|(_, address)| self.net.connect(*address).ok());
            let Some(stream) = stream else { return self.broken.push(to) };
            let line = Line { stream, output: Vec::new(), input: Vec::new() };
            self.connections.insert(to, line);
        }
        if let Some(line) = self.connections.get_mut(&to) {
            encode(&mut line.output, &LaneMessage::Request(request), to, &self.nodes);
        }
    }

    /// The next answer, or the news that there is none.
    fn poll(&mut self) -> Option<LaneInput> {
        if let Some(node) = self.broken.pop() {
            return Some(LaneInput::Broken(node));
        }
        let mut broken = None;
        for (&node, line) in &mut self.connections {
            match line.turn(&self.nodes) {
                Ok(None) => {}
                Ok(Some(answer)) => return Some(answer),
                Err(()) => {
                    broken = Some(node);
                    break;
                }
            }
        }
        let node = broken?;
        self.connections.remove(&node);
        Some(LaneInput::Broken(node))
    }
}

impl Line {
    /// Sends and takes what there is. An error ends the connection.
    fn turn(&mut self, nodes: &LaneNodes) -> Result<Option<LaneInput>, ()> {
        let waits = |kind| {
            matches!(kind, ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
        };
        if !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(error) if waits(error.kind()) => return Ok(None),
                Err(_) => return Err(()),
            }
        }
        let filled = self.input.len();
        self.input.resize(filled + READ_BYTES, 0);
        let read = self.stream.read(&mut self.input[filled..]);
        self.input.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => return Err(()),
            Err(error) if !waits(error.kind()) => return Err(()),
            _ => {}
        }
        let Some(frame) = decode(&self.input, LaneEnd::Asker, nodes).map_err(drop)? else {
            return Ok(None);
        };
        self.input.drain(..frame.bytes);
        match frame.message {
            LaneMessage::Answer(answer) => {
                Ok(Some(LaneInput::Answered { from: frame.from, answer }))
            }
            LaneMessage::Request(_) => Err(()),
        }
    }
}

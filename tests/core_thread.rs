//! The core thread never allocates after its start, and makes only the system calls of a short list: proved on a running
//! group, not claimed.
#![cfg(feature = "io")]
#![allow(unsafe_code)] // the counting allocator
#![allow(clippy::unwrap_used)] // helpers of tests are tests too

#[path = "support/watched.rs"]
mod watched;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quorate::client::{Demand, Outcome, Refusal};
use quorate::link::Wake;
use quorate::runtime::config::{Founding, FoundingMember, Settings, TransportKind};
use quorate::runtime::environment::{Host, LiveNetwork, Transport};
use quorate::runtime::{
    ConnectError, ConnectOptions, Ended, HostClient, HostReader, Node, NodeError, NodeOptions,
};
use quorate::service::book::BookLimits;
use quorate::service::generator::Generator;
use quorate::service::{BuiltIn, Context, ServiceKind};
use quorate::stream::datagram::DatagramHeader;
use quorate::stream::network::{Destination, Network};
use quorate::types::{GroupId, Nanos, NodeId, Timestamp};
use watched::{Watch, Watched};

/// Allocations by thread id, modulo the table.
static ALLOCATIONS: [AtomicU64; 8192] = [const { AtomicU64::new(0) }; 8192];

struct Counting;

fn thread_id() -> usize {
    // SAFETY: takes nothing, returns a number, and cannot fail.
    let id = unsafe { libc::gettid() };
    id.unsigned_abs() as usize % ALLOCATIONS.len()
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS[thread_id()].fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATIONS[thread_id()].fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One group at a time: the tests look at the threads of this process.
static ALONE: Mutex<()> = Mutex::new(());

/// Notes whether each command that a service is given lies inside a mapped segment file.
#[derive(Clone)]
struct Spy(&'static SegmentRanges);

/// Commands looked at that lay inside a segment file, and outside.
struct SegmentRanges {
    inside: AtomicU64,
    outside: AtomicU64,
}

static SEGMENTS: SegmentRanges =
    SegmentRanges { inside: AtomicU64::new(0), outside: AtomicU64::new(0) };

impl Watch for Spy {
    fn command(&mut self, context: &Context<'_>, command: &[u8]) {
        // Timers and events are the engine's, so the service need not know: what they take is taken on the core.
        if context.client_sequence.0.is_multiple_of(16) {
            let (id, due) = (context.sequence.0, context.time.0 + Nanos::MILLISECOND);
            let _ = context.schedule(id, Timestamp(due)); // as many as there is room for
            let _ = context.emit(&id.to_le_bytes());
        }
        // Reading the maps allocates: not while allocations count.
        if context.client_sequence.0 % 64 == 1 && COUNTING.load(Ordering::Relaxed) == 0 {
            let inside = in_segment(command.as_ptr() as u64);
            let counter = if inside { &self.0.inside } else { &self.0.outside };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

type Spied = Watched<BuiltIn, Spy>;

/// 1 while allocations count.
static COUNTING: AtomicU64 = AtomicU64::new(0);

/// Whether an address of this process lies in a mapped segment file.
fn in_segment(address: u64) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(".qlog")).any(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        (number(from)..number(to)).contains(&address)
    })
}

/// A group of nodes in this process, in folders that are gone afterwards.
struct Group {
    nodes: Vec<Node>,
    settings: Vec<Settings>,
    folders: [PathBuf; 2],
}

/// A transport for a client that does not reach the node at this address.
struct Blind(SocketAddr);

/// Its network.
struct BlindNetwork {
    network: <Host as Transport>::Network,
    hidden: SocketAddr,
}

impl Transport for Blind {
    type Network = BlindNetwork;
    type Control = <Host as Transport>::Control;

    fn network(&self, _: &Settings, _: Arc<dyn Wake>) -> Result<BlindNetwork, NodeError> {
        unreachable!("for clients alone")
    }
    fn control(&self, _: &Settings, _: Arc<dyn Wake>) -> Result<Self::Control, NodeError> {
        unreachable!("for clients alone")
    }
    fn client(
        &self,
        options: &ConnectOptions,
        wake: Arc<dyn Wake>,
    ) -> Result<BlindNetwork, ConnectError> {
        let network = Host.client(options, wake)?;
        Ok(BlindNetwork { network, hidden: self.0 })
    }
}

impl Network for BlindNetwork {
    fn poll(&mut self) -> usize {
        self.network.poll()
    }
    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        self.network.datagram(index)
    }
    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        if to != Destination::Address(self.hidden) {
            self.network.send(to, header, prefix, bytes);
        }
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        self.network.body_bytes(prefix)
    }
}

impl LiveNetwork for BlindNetwork {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        LiveNetwork::descriptors(&self.network)
    }
    fn next_release(&self) -> Option<Nanos> {
        LiveNetwork::next_release(&self.network)
    }
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Group {
    fn start(name: &str, nodes: usize, service: impl Fn() -> Box<dyn FnOnce() -> Spied>) -> Self {
        let name = format!("quorate-test-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(&name);
        let memory = PathBuf::from("/dev/shm");
        let hot = if memory.is_dir() { memory.join(&name) } else { folder.join("hot") };
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(&hot).unwrap();
        let member = |_| FoundingMember {
            data: ([127, 0, 0, 1], free_port()).into(),
            control: ([127, 0, 0, 1], free_port()).into(),
        };
        let founding = Founding {
            group: GroupId(u64::from(std::process::id()) << 8 | nodes as u64),
            transport: TransportKind::Multicast,
            multicast_port: free_port(),
            members: (0..nodes).map(member).collect(),
            settings: [
                ("group.service", "book"),
                // Small segments: many of them are entered and retired while it is counted.
                ("group.segment_bytes", "256 KiB"),
                ("group.command_bytes_max", "16 KiB"),
                ("group.window_bytes", "128 KiB"),
                ("group.durability.leader", "memory"),
                ("group.state_hash_interval", "100"),
                // A little loss, so that NAKs and repairs are counted too.
                ("faults.loss", "0.01"),
                ("faults.seed", "7"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        };
        let mut settings = Vec::new();
        let mut running = Vec::new();
        for node in 0..nodes {
            let text = founding.file(&folder, node).unwrap();
            let file = folder.join(format!("node-{node}.toml"));
            fs::write(&file, text).unwrap();
            let place = hot.join(format!("node-{node}"));
            let layers = quorate::runtime::config::Layers::new().file(&file);
            let layers = layers.flag("test", "node.hot_dir", &place.to_string_lossy());
            let checked = layers.check().unwrap();
            let options = NodeOptions { quiet: true, ..NodeOptions::default() };
            running.push(Node::start(&checked, service()(), options).unwrap());
            settings.push(checked);
        }
        Self { nodes: running, settings, folders: [folder, hot] }
    }

    fn client(&self) -> HostClient {
        let mut options = ConnectOptions::of(&self.settings[0], "core thread test");
        options.faults = None;
        let mut client = HostClient::new(options).unwrap();
        client.connect(20 * Nanos::SECOND).unwrap();
        client
    }

    /// A node that is late still looks at what it is given, and looking allocates.
    fn wait_until_all_have_applied(&self, client: &mut HostClient) {
        let applied = |node: &Node| node.words().applied.load(Ordering::Acquire);
        let tail = |node: &Node| node.words().verified.load(Ordering::Acquire);
        let deadline = client.now().plus(60 * Nanos::SECOND);
        loop {
            let end = self.nodes.iter().map(tail).max();
            if self.nodes.iter().all(|node| Some(applied(node)) == end) {
                return;
            }
            assert!(client.now() < deadline, "a node does not get there");
            client.turn_within(Nanos::MILLISECOND, |_| {});
        }
    }

    fn reader(&self) -> HostReader {
        let mut options = ConnectOptions::of(&self.settings[0], "core thread test");
        options.faults = None;
        HostReader::new(&options).unwrap()
    }

    /// A client that reaches the followers alone.
    fn client_behind_a_follower(&self) -> HostClient<BlindNetwork> {
        let leader = self.nodes[0].words().leader.load(Ordering::Relaxed) - 1;
        let blind = Blind(self.settings[0].members[leader as usize].data);
        let mut options = ConnectOptions::of(&self.settings[0], "behind a follower");
        (options.faults, options.forward_after_ns) = (None, 0);
        let mut client = HostClient::new_in(&blind, options).unwrap();
        client.connect(20 * Nanos::SECOND).unwrap();
        client
    }

    fn stop(mut self) {
        for node in &self.nodes {
            node.stop();
        }
        for node in self.nodes.drain(..) {
            assert_eq!(node.wait(), Ended::Orderly);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.stop();
        }
        for node in self.nodes.drain(..) {
            let _ = node.wait();
        }
        for folder in &self.folders {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// Sends orders and waits until all are answered.
fn send_orders<N: LiveNetwork>(client: &mut HostClient<N>, orders: &mut Generator, count: u64) {
    let mut answered = 0;
    let mut sent = 0;
    let mut command = orders.command().to_vec();
    let deadline = client.now().plus(60 * Nanos::SECOND);
    while answered < count {
        if sent < count {
            match client.client.send(&command) {
                Ok(_) => {
                    sent += 1;
                    command = orders.command().to_vec();
                }
                Err(
                    Refusal::BackPressured
                    | Refusal::NotConnected
                    | Refusal::NoQuorum
                    | Refusal::NoSpace,
                ) => {}
                Err(refusal) => panic!("{refusal:?}"),
            }
        }
        client.turn_within(Nanos::MILLISECOND, |answer| {
            assert!(matches!(answer.outcome, Outcome::Applied | Outcome::Rejected { .. }));
            answered += 1;
        });
        assert!(client.now() < deadline, "{answered} of {count} answered in time");
    }
}

/// Numbers of the threads of this process with a name.
fn threads(name: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/task").unwrap() {
        let path = entry.unwrap().path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            found.push(path.file_name().unwrap().to_str().unwrap().parse().unwrap());
        }
    }
    found
}

fn spy(segments: &'static SegmentRanges) -> Box<dyn FnOnce() -> Spied> {
    Box::new(move || Watched {
        service: BuiltIn::new(ServiceKind::Book, BookLimits::default()),
        watch: Spy(segments),
    })
}

#[test]
fn the_core_thread_allocates_nothing_and_applies_what_lies_in_the_map() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let group = Group::start("allocations", 3, || spy(&SEGMENTS));
    let mut client = group.client();
    let mut orders = Generator::new(1);
    send_orders(&mut client, &mut orders, 640);
    group.wait_until_all_have_applied(&mut client);
    let (inside, outside) = (&SEGMENTS.inside, &SEGMENTS.outside);
    assert_eq!(outside.load(Ordering::Relaxed), 0, "every slice given to apply is in the map");
    assert!(inside.load(Ordering::Relaxed) >= 10, "looked at on each node");

    COUNTING.store(1, Ordering::SeqCst);
    let cores = threads("quorate-core");
    assert_eq!(cores.len(), 3);
    let count = || -> Vec<u64> {
        let of = |id: &usize| ALLOCATIONS[id % ALLOCATIONS.len()].load(Ordering::SeqCst);
        cores.iter().map(of).collect()
    };
    let before = count();
    let own = ALLOCATIONS[thread_id()].load(Ordering::SeqCst);
    assert!(own > 1_000, "the allocator counts: {own} on this thread");
    // Many segments, sessions that come and go, losses and repairs, state hashes, a query.
    send_orders(&mut client, &mut orders, 6_000);
    let mut other = group.client();
    send_orders(&mut other, &mut Generator::new(2), 200);
    other.close(Nanos::SECOND);
    // Followers pass datagrams on between the leader and a client that does not reach it.
    let mut behind = group.client_behind_a_follower();
    send_orders(&mut behind, &mut Generator::new(3), 200);
    behind.close(Nanos::SECOND);
    assert_eq!(behind.client.counters().forwarded, behind.client.counters().lanes);
    let forwarded = |node: &Node| node.words().forwarded.load(Ordering::Relaxed);
    assert!(group.nodes.iter().map(forwarded).sum::<u64>() > 0, "it was passed on");
    let mut question = Vec::new();
    ServiceKind::Book.encode_query(1, b"depth 3", &mut question).unwrap();
    client.client.query(&question).unwrap();
    let mut replied = false;
    let deadline = client.now().plus(10 * Nanos::SECOND);
    while !replied && client.now() < deadline {
        client.turn_within(Nanos::MILLISECOND, |_| replied = true);
    }
    assert!(replied, "the query was answered");
    // Each node by itself, which asks the leader, which asks a quorum.
    let demand = Demand { within_ns: 0, wait_ns: 10 * Nanos::SECOND, ..Demand::default() };
    for node in 0..3 {
        let mut reader = group.reader();
        reader.ask(NodeId(node), &question, demand).expect("it answers");
    }
    let after = count();
    COUNTING.store(0, Ordering::SeqCst);
    assert_eq!(before, after, "allocations and frees on the core threads");
    let words = group.nodes[0].words();
    let tail = words.verified.load(Ordering::Relaxed);
    assert!(tail > 2 * 256 * 1024, "several segments were written: {tail} bytes");
    let repairs = |node: &Node| node.words().repairs_sent.load(Ordering::Relaxed);
    assert!(group.nodes.iter().map(repairs).sum::<u64>() > 0, "something was repaired");
    client.close(Nanos::SECOND);
    group.stop();
}

/// What a core may ask of the host after its start: datagrams, its sleep, its bell, its place in the run queue.
const ALLOWED: [&str; 8] =
    ["recvmmsg", "recvmsg", "sendmsg", "sendmmsg", "ppoll", "sched_yield", "read", "write"];

#[test]
fn the_core_thread_makes_only_the_system_calls_of_the_list() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: strace is not installed");
        return;
    }
    COUNTING.store(1, Ordering::SeqCst);
    let group = Group::start("calls", 3, || spy(&SEGMENTS));
    let mut client = group.client();
    let mut orders = Generator::new(1);
    send_orders(&mut client, &mut orders, 100);
    let trace = group.folders[0].join("calls.strace");
    let mut command = Command::new("strace");
    for id in threads("quorate-core") {
        command.args(["-p", &id.to_string()]);
    }
    command.args(["-qq", "-y", "-o"]).arg(&trace).stderr(Stdio::piped());
    let mut strace = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    if let Ok(Some(_)) = strace.try_wait() {
        println!("SKIPPED: this user may not trace a process");
        return;
    }
    send_orders(&mut client, &mut orders, 1_500);
    std::thread::sleep(std::time::Duration::from_millis(100));
    // SAFETY: sends a signal to a child of ours, which is not reaped yet.
    unsafe { libc::kill(strace.id().cast_signed(), libc::SIGINT) };
    strace.wait().unwrap();
    let text = fs::read_to_string(&trace).unwrap();
    let mut calls = BTreeSet::new();
    for line in text.lines() {
        // "1234 sendmsg(…" or "1234 <... ppoll resumed>…"; signals and exits are no calls.
        let rest = line.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
        let name = rest.strip_prefix("<... ").unwrap_or(rest);
        let name: String =
            name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        // Bells are all that it reads and writes: no file, no terminal.
        if ["read", "write"].contains(&name.as_str()) && !rest.starts_with("<... ") {
            assert!(rest.contains("[eventfd]"), "{line}");
        }
        if !name.is_empty() {
            calls.insert(name);
        }
    }
    assert!(calls.contains("sendmsg") && text.lines().count() > 1_000, "traced: {calls:?}");
    let foreign: Vec<_> = calls.iter().filter(|call| !ALLOWED.contains(&call.as_str())).collect();
    assert!(foreign.is_empty(), "calls that are not on the list: {foreign:?}");
    COUNTING.store(0, Ordering::SeqCst);
    client.close(Nanos::SECOND);
    group.stop();
}

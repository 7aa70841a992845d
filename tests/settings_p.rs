//! R15: settings whose effect takes a whole node to be seen, in the same process or in one of its own; and what becomes of a
//! node that was configured differently from the others.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use group::{Caller, Folder, Group, PATIENCE, SMALL, numbered, out, quorate};
use quorate::Engine;
use quorate::client::{ClientState, Outcome, Refusal};
use quorate::frame::payload::{CommandPrefix, SessionOpen};
use quorate::frame::{FrameHeader, Kind};
use quorate::io::cpu::allowed_cpus;
use quorate::io::log_reader::{LogReader, ReadOptions};
use quorate::runtime::config::{Layers, Settings};
use quorate::runtime::{ConnectOptions, ExecuteError, HostClient, ask, state_limits};
use quorate::service::book::command;
use quorate::service::{Echo, Rejection};
use quorate::session::{Answer, Outcome as Applied, State};
use quorate::types::{Nanos, Sequence, Term, Timestamp};

type Pair<'a> = (&'a str, &'a str);

/// A group of one node in this process, in a folder of its own.
struct One {
    engine: Option<Engine>,
    settings: Settings,
    folder: Folder,
}

fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Its settings: everything lies in `folder`.
fn settings(folder: &Path, set: &[Pair<'_>]) -> Settings {
    let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let [data, control] = sockets.map(|socket| socket.local_addr().unwrap());
    let text = format!(
        "[group]\nid = \"a7\"\n[[members]]\ndata = \"{data}\"\ncontrol = \"{control}\"\n\
         [node]\nid = 0\ndata_dir = \"data\"\nhot_dir = \"hot\"\n"
    );
    let layers = Layers::new().text(&folder.join("node.toml"), &text);
    let small = [
        ("group.command_bytes_max", "4096"),
        ("group.window_bytes", "65536"),
        ("group.segment_bytes", "131072"),
        ("transport.client_pool_bytes", "8 MiB"),
    ];
    let layers =
        small.iter().chain(set).fold(layers, |layers, (key, value)| layers.set(key, value));
    layers.check().unwrap_or_else(|errors| panic!("{set:?}: {errors}"))
}

impl One {
    fn start(set: &[Pair<'_>]) -> Self {
        let folder = Folder::new();
        let settings = settings(folder.path(), set);
        // What `config show` prints is a configuration: the engine takes it as a file.
        let file = folder.write("shown.toml", quorate::runtime::config::settings_toml(&settings));
        let engine = Engine::node_of(Layers::new().file(&file)).open(Echo::new()).unwrap();
        Self { engine: Some(engine), settings, folder }
    }
    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }
    fn status(&self) -> serde_json::Value {
        let answer = ask(&self.settings.node.admin_socket, "status").unwrap();
        serde_json::from_str(&answer).unwrap()
    }
    fn execute(&self, bytes: usize) -> Result<Vec<u8>, ExecuteError> {
        let command = numbered(7, bytes);
        self.engine().execute(&command, PATIENCE).map(|done| done.reply)
    }
    /// A client that asks for all it may have, whatever the configuration says.
    fn client(&self) -> HostClient {
        let mut options = ConnectOptions::of(&self.settings, "test");
        options.in_flight_max = 256;
        HostClient::new(options).unwrap()
    }
    fn stop(&mut self) {
        self.engine.take().unwrap().stop();
    }
}

/// Segments of a log in this folder.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == "qlog")).collect()
}

#[test]
fn r15_group_name() {
    for name in ["alpha", "beta"] {
        let one = One::start(&[("group.name", name)]);
        assert_eq!(one.status()["group_name"], name);
        let file = one.folder.path().join("shown.toml");
        let shown = quorate().args(["status", "--config"]).arg(file).output().unwrap();
        assert!(out(&shown).contains(name), "{}", out(&shown));
    }
}

#[test]
fn r15_members_name() {
    assert_eq!(One::start(&[]).status()["name"], "node-0");
    assert_eq!(One::start(&[("members.0.name", "north")]).status()["name"], "north");
}

/// Whether the node has the address that this key gives it.
fn takes(key: &str) -> bool {
    let address = free_address();
    let one = One::start(&[(key, &address.to_string())]);
    let taken = UdpSocket::bind(address).is_err();
    assert!(one.execute(10).is_ok());
    drop(one);
    taken && UdpSocket::bind(address).is_ok()
}

#[test]
fn r15_members_data() {
    assert!(takes("members.0.data"));
}

#[test]
fn r15_members_control() {
    assert!(takes("members.0.control"));
}

#[test]
fn r15_node_data_dir() {
    let elsewhere = Folder::new();
    let chosen = elsewhere.path().join("chosen");
    let one = One::start(&[("node.data_dir", chosen.to_str().unwrap())]);
    assert!(!segments(&chosen).is_empty() && chosen.join("events.jsonl").exists());
    assert!(!one.folder.path().join("data").exists());
}

#[test]
fn r15_node_hot_dir() {
    let elsewhere = Folder::new();
    let chosen = elsewhere.path().join("chosen");
    let one = One::start(&[("node.hot_dir", chosen.to_str().unwrap())]);
    assert!(!segments(&chosen).is_empty());
    assert!(!one.folder.path().join("hot").exists());
}

#[test]
fn r15_node_admin_socket() {
    let elsewhere = Folder::new();
    let chosen = elsewhere.path().join("a.sock");
    let one = One::start(&[("node.admin_socket", chosen.to_str().unwrap())]);
    assert!(ask(&chosen, "status").is_ok());
    assert!(!one.folder.path().join("data/admin.sock").exists());
    let usual = One::start(&[]);
    assert!(ask(&usual.folder.path().join("data/admin.sock"), "status").is_ok());
}

#[test]
fn r15_group_segment_bytes() {
    for bytes in [131_072_u64, 262_144] {
        let one = One::start(&[("group.segment_bytes", &bytes.to_string())]);
        one.execute(10).unwrap();
        // The one that is in use: the next is being made.
        let first = one.settings.node.data_dir.join("0000000000000000.qlog");
        assert_eq!(fs::metadata(&first).unwrap().len(), 4096 + bytes);
    }
}

#[test]
fn r15_group_command_bytes_max() {
    for bytes_max in [100, 2000] {
        let one = One::start(&[("group.command_bytes_max", &bytes_max.to_string())]);
        assert_eq!(one.execute(bytes_max).unwrap().len(), bytes_max);
        let expected = Refusal::TooLong { bytes: bytes_max + 1, bytes_max };
        let refused = one.execute(bytes_max + 1).unwrap_err();
        assert!(matches!(refused, ExecuteError::Refused(found) if found == expected), "{refused}");
    }
}

/// Clients that are welcomed, of three.
fn welcomed(sessions_max: &str) -> usize {
    let one = One::start(&[("group.sessions_max", sessions_max)]);
    let mut clients = [(); 3].map(|()| one.client());
    clients[0].connect(PATIENCE.as_nanos() as u64).unwrap();
    for client in &mut clients[1..] {
        // Whoever is refused goes on asking: it need not be waited for.
        let _ = client.connect(300 * Nanos::MILLISECOND);
    }
    clients.iter().filter(|client| client.client.state() == ClientState::Open).count()
}

#[test]
fn r15_group_sessions_max() {
    assert_eq!(welcomed("1"), 1);
    assert_eq!(welcomed("2"), 2);
}

/// Commands that a client may send before the first is answered.
fn in_flight(in_flight_max: &str) -> usize {
    let one = One::start(&[("group.session_in_flight_max", in_flight_max)]);
    let mut client = one.client();
    client.connect(PATIENCE.as_nanos() as u64).unwrap();
    (0..300).take_while(|_| client.client.send(b"x").is_ok()).count()
}

#[test]
fn r15_group_session_in_flight_max() {
    assert_eq!(in_flight("3"), 3);
    assert_eq!(in_flight("40"), 40);
}

/// The time-out, in ms, with which the session of a client is logged that asks for 10 s.
fn session_timeout_ms(set: &[Pair<'_>]) -> u64 {
    let mut one = One::start(set);
    one.execute(10).unwrap();
    one.stop();
    let options = ReadOptions { uncommitted: true, ..ReadOptions::default() };
    let mut reader = LogReader::open(&one.settings.node.data_dir, options).unwrap();
    while let Some(found) = reader.next_frame().unwrap() {
        if found.header.kind() == Some(Kind::SessionOpen) {
            let (open, _) = SessionOpen::read_from_prefix(found.payload).unwrap();
            return open.timeout.get() / Nanos::MILLISECOND;
        }
    }
    panic!("no session was opened");
}

#[test]
fn r15_timing_session_timeout_min_ms() {
    assert_eq!(session_timeout_ms(&[]), 10_000);
    assert_eq!(session_timeout_ms(&[("timing.session_timeout_min_ms", "25000")]), 25_000);
}

#[test]
fn r15_timing_session_timeout_max_ms() {
    assert_eq!(session_timeout_ms(&[("timing.session_timeout_max_ms", "4000")]), 4000);
}

/// The state machine that a node of these settings has, and a log that feeds it.
struct Log {
    state: State<Echo>,
    time: u64,
}

impl Log {
    fn of(set: &[Pair<'_>]) -> Self {
        let settings = settings(Path::new("/"), set);
        Self { state: State::new(Echo::new(), state_limits(&settings)), time: 1 }
    }
    fn entry(&mut self, kind: Kind, payload: &[u8]) -> Applied {
        self.time += 1;
        let sequence = Sequence(self.state.sequence().0 + 1);
        let length = 32 + payload.len() as u32;
        let header = FrameHeader::new(length, kind, Term(1), sequence, Timestamp(self.time));
        self.state.apply_frame(kind, &header, payload).outcome
    }
    /// Opens a session, and has each of these many bytes echoed to it; returns whether the replies found room.
    fn echo(&mut self, nonce: u64, commands: &[usize]) -> Vec<bool> {
        let open = SessionOpen { nonce: U64::new(nonce), timeout: U64::new(1 << 40) };
        let Applied::SessionOpened { id, .. } = self.entry(Kind::SessionOpen, open.as_bytes())
        else {
            panic!("no session");
        };
        let mut found = Vec::new();
        for (bytes, number) in commands.iter().zip(1..) {
            let prefix = CommandPrefix {
                session: U64::new(id.0),
                client_sequence: U64::new(number),
                received_through: U64::new(0),
            };
            let payload = [prefix.as_bytes(), &vec![1; *bytes]].concat();
            let Applied::Replied { answer, .. } = self.entry(Kind::Command, &payload) else {
                panic!("not decided");
            };
            assert!([Answer::Applied, Answer::Rejected(Rejection::REPLY_SPACE)].contains(&answer));
            found.push(answer == Answer::Applied);
        }
        found
    }
}

const REPLY: usize = 600 * 1024;

#[test]
fn r15_group_session_reply_bytes() {
    for (room, second) in [("1 MiB", false), ("2 MiB", true)] {
        let mut log = Log::of(&[("group.session_reply_bytes", room)]);
        assert_eq!(log.echo(1, &[REPLY, REPLY]), [true, second], "{room}");
    }
}

#[test]
fn r15_group_reply_bytes_total() {
    for (room, second) in [("1 MiB", false), ("2 MiB", true)] {
        let set = [("group.reply_bytes_total", room), ("group.session_reply_bytes", "1 MiB")];
        let mut log = Log::of(&set);
        assert_eq!(log.echo(1, &[REPLY]), [true]);
        assert_eq!(log.echo(2, &[REPLY]), [second], "{room}");
    }
}

/// Duty cycles of an idle node in a fifth of a second.
fn idle_cycles(idle: &str) -> u64 {
    let one = One::start(&[("threads.idle", idle)]);
    one.execute(10).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let cycles = || one.engine().words().duty_cycles.load(Ordering::Relaxed);
    let before = cycles();
    std::thread::sleep(Duration::from_millis(200));
    cycles() - before
}

#[test]
fn r15_threads_idle() {
    let [spin, yields, backoff, park, adaptive] =
        ["spin", "yield", "backoff", "park", "adaptive"].map(idle_cycles);
    println!("spin {spin}, yield {yields}, backoff {backoff}, park {park}, adaptive {adaptive}");
    assert!(backoff < spin);
    for asleep in [park, adaptive] {
        // However little of a CPU the others leave to who burns it.
        assert!(5 * asleep < spin && 5 * asleep < yields, "{asleep} of {spin} and {yields}");
    }
}

#[test]
fn sync_gathers_and_cuts_its_batches_as_configured() {
    let fastest = |delay_us: &str| {
        let one = One::start(&[("sync.group_delay_us", delay_us)]);
        let time = |_| {
            let start = Instant::now();
            one.execute(10).unwrap();
            start.elapsed()
        };
        (0..4).map(time).min().unwrap()
    };
    let (at_once, gathered) = (fastest("0"), fastest("60000"));
    assert!(gathered >= Duration::from_millis(60), "{gathered:?}");
    assert!(at_once < gathered, "{at_once:?} {gathered:?}");
    // What is gathered in that time is made durable at once, or in pieces.
    let syncs = |batch: &str| {
        let set = [("sync.group_delay_us", "60000"), ("sync.batch_bytes_max", batch)];
        let one = One::start(&set);
        let mut client = one.client();
        client.connect(PATIENCE.as_nanos() as u64).unwrap();
        let count = || one.engine().words().syncs.load(Ordering::Relaxed);
        let before = count();
        for number in 0..40 {
            client.client.send(&numbered(number, 1000)).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while client.client.unanswered() > 0 {
            assert!(Instant::now() < deadline);
            client.turn(|answer| assert_eq!(answer.outcome, Outcome::Applied));
        }
        count() - before
    };
    let (few, many) = (syncs("1 MiB"), syncs("4096"));
    assert!(few < 8 && many >= 8, "{few} {many}");
}

/// What a group of one says to each of these lines, in a process of its own.
fn book(set: &[&str], lines: &[&str]) -> Vec<Outcome> {
    let group = Group::start(1, "book", &[SMALL, set].concat());
    let mut caller = group.client("book");
    let kind = group.nodes[0].settings.group.service;
    let outcome = |line: &&str| {
        let mut command = Vec::new();
        kind.encode(1, line.as_bytes(), &mut command).unwrap();
        caller.call(&command).outcome
    };
    lines.iter().map(outcome).collect()
}

#[test]
fn the_limits_of_a_book_are_those_of_the_configuration_p() {
    let rest = ["new buy 10 @ 5.00 id 1", "new buy 10 @ 5.01 id 2", "new sell 20 @ 5.00 id 3"];
    let rejected = |why: Rejection| Outcome::Rejected { code: why.0 };
    let all = [Outcome::Applied; 3];
    assert_eq!(book(&[], &rest), all);
    assert_eq!(book(&["group.book.orders_max=1"], &rest)[1], rejected(command::ORDERS_FULL));
    assert_eq!(book(&["group.book.levels_max=1"], &rest)[1], rejected(command::LEVELS_FULL));
    assert_eq!(book(&["group.book.changes_max=1"], &rest)[2], rejected(command::UNIT_TOO_LARGE));
}

/// What the host says of a thread of a process: a line of its `status`.
fn of_thread(process: u64, thread: &str, line: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for entry in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            let value = |name: &str| {
                let found =
                    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                found.unwrap_or_default().trim().to_owned()
            };
            if value("Name") == thread {
                return value(line);
            }
        }
        assert!(Instant::now() < deadline, "no thread {thread}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The scheduling class of a thread: field 41 of its `stat`.
fn policy(process: u64, thread: &str) -> String {
    let number = of_thread(process, thread, "Pid");
    let stat = fs::read_to_string(format!("/proc/{process}/task/{number}/stat")).unwrap();
    let behind_name = &stat[stat.rfind(')').unwrap() + 2..];
    behind_name.split(' ').nth(41 - 3).unwrap().to_owned()
}

const THREADS: [&str; 3] = ["quorate-core", "quorate-control", "quorate-sync"];

/// What the host says of the process itself.
fn of_process(process: u64, line: &str) -> String {
    of_thread(process, "quorate", line)
}

#[test]
fn threads_run_where_and_how_the_configuration_says_p() {
    let cpus = allowed_cpus();
    let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
    if first == last {
        println!("SKIPPED: this host has one CPU, so that no thread can be kept from another");
        return;
    }
    let process = |group: &Group| group.status(0).unwrap()["process"].as_u64().unwrap();
    let usual = Group::start(1, "echo", SMALL);
    let at = process(&usual);
    let anywhere = of_process(at, "Cpus_allowed_list");
    for thread in THREADS {
        assert_eq!(of_thread(at, thread, "Cpus_allowed_list"), anywhere);
    }
    assert_eq!((&*policy(at, "quorate-core"), &*of_process(at, "VmLck")), ("0", "0 kB"));
    drop(usual);

    let set = [
        &*format!("threads.core.cpu={first}"),
        &*format!("threads.control.cpu={last}"),
        &*format!("threads.sync.cpu={last}"),
        "threads.lock_memory=true",
        "threads.scheduling=fifo",
    ];
    let group = Group::start(1, "echo", &[SMALL, &set].concat());
    let at = process(&group);
    for (thread, cpu) in THREADS.into_iter().zip([first, last, last]) {
        let deadline = Instant::now() + PATIENCE;
        while of_thread(at, thread, "Cpus_allowed_list") != cpu.to_string() {
            assert!(Instant::now() < deadline, "{thread} is not kept on CPU {cpu}");
        }
    }
    assert_eq!(of_thread(at, "quorate-keeper", "Cpus_allowed_list"), anywhere, "nobody pinned it");
    let refused = |what: &str| group.told(0).contains(what);
    if refused("locking memory") {
        println!("SKIPPED: this host lets no memory be locked; it was asked, and the refusal told");
    } else {
        assert_ne!(of_process(at, "VmLck"), "0 kB");
    }
    if refused("scheduling class fifo") {
        println!("SKIPPED: this host grants no class fifo; it was asked, and the refusal told");
    } else {
        assert_eq!(policy(at, "quorate-core"), "1");
        assert_eq!(policy(at, "quorate-sync"), "0", "the core alone");
    }
}

/// Waits until a node has told of an intruder, and that its constant of this key differs.
fn wait_refused(group: &Group, node: usize, key: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !group.events(node).lines().any(|line| line.contains("Q-1008") && line.contains(key)) {
        assert!(Instant::now() < deadline, "node {node} refuses nobody: {}", group.events(node));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_node_with_other_constants_is_refused_by_name_and_does_no_harm_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(100, 64);
    // A follower: the others refuse it, it refuses them, and the group goes on.
    for (lives, key, value) in [(1, "group.sessions_max", "77"), (2, "members.1.priority", "9")] {
        group.settle();
        group.stop(2);
        group.start_node_with(2, &[&format!("{key}={value}")]);
        let name = key.replace(".1.", ".*.");
        for node in 0..3 {
            wait_refused(&group, node, &name);
        }
        caller.load(100, 64);
        let status = group.status(2).unwrap();
        assert_eq!(status["role"], "none", "{status}");
        assert!(group.word(2, "control_refused") > 0 && group.word(0, "control_refused") > 0);
        assert_eq!(group.events_with(0, "Q-1008"), lives, "told once: {}", group.events(0));
        group.stop(2);
        group.start_node(2);
    }
    group.settle();
    // The leader: nobody votes for it or follows it, another one is elected.
    let statuses = group.settle();
    let before = statuses.iter().position(|status| status["role"] == "leader").unwrap();
    group.stop(before);
    group.start_node_with(before, &["group.window_bytes=60000"]);
    for node in (0..3).filter(|node| *node != before) {
        wait_refused(&group, node, "group.window_bytes = 60000, this node 65536");
    }
    caller.load(100, 64);
    assert_eq!(group.status(before).unwrap()["role"], "none");
    group.stop(before);
    group.start_node(before);
    caller.load(100, 64);
    caller.close();
    group.settle();
    group.stop_all();
    caller.assert_all_applied();
    let log = group.replay_all();
    log.assert_holds(&caller);
    assert_eq!(log.commands.len(), 500);
}

#[test]
fn a_stranger_among_blank_nodes_keeps_the_group_from_being_founded_p() {
    let mut group = Group::found(3, "echo", SMALL);
    group.start_node(0);
    group.start_node(1);
    group.start_node_with(2, &["group.durability.follower=disk"]);
    for node in 0..3 {
        wait_refused(&group, node, "group.durability.follower");
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!((0..3).all(|node| group.events_with(node, "Q-1113") == 0));
    group.stop(2);
    group.start_node(2);
    group.settle();
    assert_eq!(group.events_with(0, "Q-1113"), 1);
    let mut caller: Caller = group.client("load");
    caller.load(50, 64);
    caller.assert_all_applied();
}

//! Timers and events of a service: with an engine in this process, and with engines in processes of their own that are killed.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/reminders.rs"]
mod reminders;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate::Engine;
use quorate::client::Outcome;
use quorate::limits::EVENTS_MAX;
use quorate::link::Inlet;
use quorate::runtime::config::{Founding, FoundingMember, Layers, TransportKind};
use quorate::runtime::{ConnectOptions, EngineBuilder, ExecuteError, HostClient};
use quorate::service::Rejection;
use quorate::types::{GroupId, Nanos};
use reminders::{Reminders, cancel, remind, say};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names the node's file to a process that embeds an engine.
const CHILD_VARIABLE: &str = "TEST_TIMERS_CHILD";

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("quorate-timers-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
    fn open(&self) -> Engine {
        small(Engine::builder(&self.0)).open(Reminders::default()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn small(builder: EngineBuilder) -> EngineBuilder {
    builder
        .set("group.command_bytes_max", "64 KiB")
        .set("group.window_bytes", "256 KiB")
        .set("group.segment_bytes", "1 MiB")
}

fn fired(engine: &Engine) -> u64 {
    let reply = engine.query(b"", PATIENCE).unwrap().reply;
    u64::from_le_bytes(reply[..8].try_into().unwrap())
}

fn wait(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The next event, as text, with its number.
fn next(inlet: &Inlet) -> (u64, String) {
    let event = inlet.next(PATIENCE).expect("an event comes");
    (event.number(), String::from_utf8(event.bytes().to_vec()).unwrap())
}

#[test]
fn a_timer_fires_once_after_its_time_and_one_that_was_cancelled_does_not() {
    let folder = Folder::new("once");
    let engine = folder.open();
    let events = engine.service_events();
    for (id, after) in [(1, 30_000), (2, 0), (3, 20), (4, 20)] {
        engine.execute(&remind(id, after), PATIENCE).unwrap();
    }
    let cancelled = engine.execute(&cancel(4), PATIENCE).unwrap().reply;
    // Scheduled again, it moves: what was in the log for the first time is nothing.
    engine.execute(&remind(1, 60), PATIENCE).unwrap();
    let mut told: Vec<_> = (0..3).map(|_| next(&events).1).collect();
    told.sort_unstable();
    if cancelled == [1] {
        assert_eq!(told, ["fired 1", "fired 2", "fired 3"]);
        assert_eq!(fired(&engine), 3);
    }
    engine.execute(&say("last"), PATIENCE).unwrap();
    let last = next(&events);
    assert!(cancelled == [0] || last == (4, "last".to_owned()), "{last:?}");
}

#[test]
fn a_timer_and_events_that_were_not_taken_survive_a_restart() {
    let folder = Folder::new("restart");
    let engine = folder.open();
    for text in ["one", "two", "three"] {
        engine.execute(&say(text), PATIENCE).unwrap();
    }
    engine.execute(&remind(7, 500), PATIENCE).unwrap();
    let events = engine.service_events();
    let numbers: Vec<_> = (0..3).map(|_| next(&events).0).collect();
    assert_eq!(numbers, [1, 2, 3]);
    events.taken_through(1);
    // The cursor stands in the log once its entry is applied, behind the four commands and the entries of the start.
    let before = engine.status().applied_sequence;
    wait("the cursor is recorded", || engine.status().applied_sequence > before);
    let _ = engine.stop();
    std::thread::sleep(Duration::from_millis(600));
    let engine = folder.open();
    let events = engine.service_events();
    let told: Vec<_> = (0..3).map(|_| next(&events)).collect();
    let expected = [(2, "two"), (3, "three"), (4, "fired 7")];
    assert_eq!(told, expected.map(|(number, text)| (number, text.to_owned())));
    assert_eq!(fired(&engine), 1);
}

#[test]
fn without_anybody_to_take_events_a_command_that_emits_is_rejected_by_name() {
    let folder = Folder::new("full");
    let engine = folder.open();
    let batch: Vec<Vec<u8>> = (0..64).map(|number| say(&number.to_string())).collect();
    let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
    for _ in 0..EVENTS_MAX / 64 {
        engine.execute_batch(&batch, PATIENCE).unwrap();
    }
    match engine.execute(&say("one too many"), PATIENCE).unwrap_err() {
        ExecuteError::Rejected { code, .. } => assert_eq!(code, Rejection::EVENTS_FULL.0),
        other => panic!("{other}"),
    }
    // A timer waits for room, and fires when there is some.
    engine.execute(&remind(1, 0), PATIENCE).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fired(&engine), 0);
    let events = engine.service_events();
    for expected in 1..=EVENTS_MAX as u64 {
        assert_eq!(next(&events).0, expected);
        events.taken_through(expected);
    }
    assert_eq!(next(&events), (EVENTS_MAX as u64 + 1, "fired 1".to_owned()));
    assert_eq!(fired(&engine), 1);
}

/// The other half of the next test; on its own it does nothing.
#[test]
fn child_that_embeds_a_node() {
    let Some(file) = std::env::var_os(CHILD_VARIABLE) else { return };
    let file = Path::new(&file);
    let builder = Engine::node_of(Layers::new().file(file));
    let hot = file.with_extension("hot");
    let builder = small(builder).set("node.hot_dir", &hot.to_string_lossy());
    let engine = builder.open(Reminders::default()).unwrap();
    let events = engine.service_events();
    loop {
        let Some(event) = events.next(PATIENCE) else { continue };
        let text = String::from_utf8_lossy(event.bytes());
        // Whole lines: the parent reads them while they are written.
        let line = format!("event {} {text}\n", event.number());
        io::stdout().write_all(line.as_bytes()).unwrap();
        // Every other one is taken late: a leader that dies leaves some that come again.
        if event.number() % 2 == 0 {
            events.taken_through(event.number());
        }
    }
}

/// What came out, in the order in which it was read: node, number, text.
type Told = Arc<Mutex<Vec<(usize, u64, String)>>>;

/// Nodes in processes of their own, killed with the test.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(node: usize, file: &Path, told: &Told) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_embeds_a_node", "--exact", "--nocapture"])
        .env(CHILD_VARIABLE, file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (lines, told) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(told));
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let Some((_, event)) = line.split_once("event ") else { continue };
            let (number, text) = event.split_once(' ').unwrap();
            told.lock().unwrap().push((node, number.parse().unwrap(), text.to_owned()));
        }
    });
    child
}

fn send(client: &mut HostClient, command: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    while client.client.send(command).is_err() {
        assert!(Instant::now() < deadline, "not sent in time");
        client.turn_within(10 * Nanos::MILLISECOND, |_| {});
    }
    while client.client.unanswered() > 0 {
        assert!(Instant::now() < deadline, "not answered in time");
        client.turn(|answer| assert_eq!(answer.outcome, Outcome::Applied));
    }
}

/// R8 (events of a leader that dies are delivered by the next one, in order), and the same of timers.
#[test]
fn r8_a_timer_and_events_survive_a_killed_leader_p() {
    let folder = Folder::new("killed");
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sockets: Vec<_> = (0..3).map(|_| (bind(), bind())).collect();
    let members = sockets.iter().map(|(data, control)| FoundingMember {
        data: data.local_addr().unwrap(),
        control: control.local_addr().unwrap(),
    });
    let founding = Founding {
        group: GroupId(0x00C0_FFEF),
        transport: TransportKind::Unicast,
        multicast_port: 0,
        members: members.collect(),
        settings: Vec::new(),
    };
    drop(sockets);
    fs::create_dir_all(&folder.0).unwrap();
    let files = [0, 1, 2].map(|node| {
        let file = folder.0.join(Founding::file_name(node));
        fs::write(&file, founding.file(&folder.0, node).unwrap()).unwrap();
        file
    });
    let told = Told::default();
    let mut children = Children(Vec::new());
    for (node, file) in files.iter().enumerate() {
        children.0.push(start(node, file, &told));
    }
    let settings = Layers::new().file(&files[0]).check().unwrap();
    let mut client = HostClient::new(ConnectOptions::of(&settings, "test")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while client.connect(Nanos::SECOND).is_err() {
        assert!(Instant::now() < deadline, "no leader in time");
    }
    send(&mut client, &remind(1, 0));
    send(&mut client, &remind(2, 3000));
    for number in 0..21 {
        send(&mut client, &say(&format!("said {number}")));
    }
    wait("the leader hands out what there is", || told.lock().unwrap().len() >= 22);
    let leader = told.lock().unwrap().last().unwrap().0;
    children.0[leader].kill().unwrap();
    children.0[leader].wait().unwrap();
    send(&mut client, &say("after"));
    let fired = |id: u64| {
        let text = format!("fired {id}");
        told.lock().unwrap().iter().any(|(_, _, told)| *told == text)
    };
    wait("the timer fires", || fired(2));
    let told = told.lock().unwrap().clone();
    let next = told.iter().map(|(node, ..)| *node).find(|node| *node != leader).unwrap();
    // One number, one event, whoever told it; and of each node in order, without a gap to what was told before it.
    let mut events = BTreeMap::new();
    let mut last = BTreeMap::new();
    for (node, number, text) in &told {
        let before = last.insert(*node, *number).unwrap_or(number - 1);
        assert_eq!(before + 1, *number, "node {node}");
        let known = events.entry(*number).or_insert_with(|| text.clone());
        assert_eq!(known, text);
    }
    let numbers: Vec<_> = events.keys().copied().collect();
    assert_eq!(numbers, (1..=24).collect::<Vec<_>>(), "nothing is lost, by {leader} and {next}");
    for text in ["fired 1", "fired 2", "after"] {
        assert_eq!(events.values().filter(|event| *event == text).count(), 1, "{text}");
    }
}

//! Nodes on a transport and a storage that are not the host's: no socket, no file of a log.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quorate::Engine;
use quorate::client::Outcome;
use quorate::journal::Disk;
use quorate::runtime::config::{Founding, FoundingMember, Layers, TransportKind};
use quorate::runtime::environment::{Environment, Host, InMemory, InProcess};
use quorate::runtime::{Ended, EngineBuilder, EngineError, HostClient, NodeError};
use quorate::service::Sequencer;
use quorate::types::{GroupId, Nanos};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("quorate-environment-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Small segments: many of them are entered and retired.
fn small<E>(builder: EngineBuilder<E>) -> EngineBuilder<E> {
    builder
        .set("group.segment_bytes", "256 KiB")
        .set("group.command_bytes_max", "16 KiB")
        .set("group.window_bytes", "128 KiB")
}

/// Names of the files in a folder and the folders in it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found.sort();
    found
}

#[test]
fn one_node_keeps_its_log_where_the_program_says() {
    let folder = Folder::new("one");
    let (place, memory) = (InProcess::new(), InMemory::new());
    let open = || {
        let builder = small(Engine::builder(&folder.0));
        builder.environment((place.clone(), memory.clone())).open(Sequencer::new())
    };
    let engine = open().unwrap();
    let first = engine.execute(b"one", PATIENCE).unwrap().sequence;
    let second = engine.execute(b"two", PATIENCE).unwrap().sequence;
    assert!(first < second);
    // Another one of the same folder, and another one of the same storage.
    assert!(matches!(open(), Err(EngineError::Node(NodeError::Disk(_)))));
    let elsewhere = Folder::new("one-elsewhere");
    let other = Engine::builder(&elsewhere.0).environment((Host, memory.clone()));
    let refused = other.open(Sequencer::new()).unwrap_err();
    assert!(matches!(&refused, EngineError::Node(NodeError::Environment(_))), "{refused}");

    assert_eq!(engine.stop(), Ended::Orderly);
    assert_eq!(files(&folder.0), ["engine.toml", "events.jsonl", "lock"]);
    assert!(memory.memory_disk().list().unwrap().contains(&"0000000000000000.qlog".to_owned()));

    // The log brings it back; a machine that lost its power has lost nothing either.
    for crash in [None, Some(7)] {
        if let Some(seed) = crash {
            memory.memory_disk().crash(seed);
        }
        let engine = open().unwrap();
        let third = engine.execute(b"three", PATIENCE).unwrap().sequence;
        assert!(third > second);
        assert_eq!(engine.stop(), Ended::Orderly);
    }
    // Without its settings nobody knows whose log it is.
    std::fs::remove_file(folder.0.join("engine.toml")).unwrap();
    assert!(matches!(open(), Err(EngineError::Orphan { .. })));
}

/// A group of three with these environments, on one of them a client that sends `commands`.
fn group<E: Environment>(
    folder: &Folder,
    address: impl Fn() -> FoundingMember,
    environments: [E; 3],
    commands: u64,
    settings: &[(String, String)],
) -> Vec<Engine<E>> {
    let founding = Founding {
        group: GroupId(u64::from(std::process::id())),
        transport: TransportKind::Unicast,
        multicast_port: 0,
        members: (0..3).map(|_| address()).collect(),
        settings: vec![("group.state_hash_interval".into(), "50".into())],
    };
    let hot = |node| folder.0.join(format!("hot-{node}")).to_string_lossy().into_owned();
    let open = |(node, environment): (usize, E)| {
        let text = founding.file(&folder.0, node).unwrap();
        let layers = Layers::new().text(&folder.0.join(Founding::file_name(node)), &text);
        // Of the host's storage; nobody else looks at it.
        let builder = small(Engine::node_of(layers)).set("node.hot_dir", &hot(node));
        let builder = settings.iter().fold(builder, |builder, (key, text)| builder.set(key, text));
        let builder = builder.environment(environment);
        builder.open(Sequencer::new()).unwrap()
    };
    let engines: Vec<Engine<E>> = environments.into_iter().enumerate().map(open).collect();
    let mut client: HostClient<E::Network> = engines[1].client().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let (mut sent, mut applied) = (0, 0);
    while applied < commands {
        assert!(Instant::now() < deadline, "{applied} of {sent} applied");
        // Some are longer than a datagram.
        let command = vec![sent as u8; if sent % 50 == 0 { 9000 } else { 32 }];
        sent += u64::from(sent < commands && client.client.send(&command).is_ok());
        client.poll(|answer| {
            assert_eq!(answer.outcome, Outcome::Applied);
            applied += 1;
        });
    }
    client.close(5 * Nanos::SECOND);
    agree(&engines, commands);
    engines
}

/// All have applied the same, and say that they are in the same state.
fn agree<E: Environment>(engines: &[Engine<E>], commands: u64) {
    let state = |engine: &Engine<E>| {
        let words = engine.words();
        let word = |word: &std::sync::atomic::AtomicU64| word.load(Ordering::Acquire);
        (word(&words.applied_sequence), word(&words.state_hash))
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let states: Vec<_> = engines.iter().map(state).collect();
        let same = states.iter().all(|state| *state == states[0]);
        if same && states[0].0 >= commands && states[0].1 != 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{states:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn three_nodes_commit_without_a_socket_and_without_a_file() {
    let (folder, place) = (Folder::new("three"), InProcess::new());
    let memories = [(); 3].map(|()| InMemory::new());
    let environments = memories.clone().map(|memory| (place.clone(), memory));
    let address = || FoundingMember { data: place.address(), control: place.address() };
    let engines = group(&folder, address, environments, 2000, &[]);
    let counted = |engine: &Engine<_>| engine.words().datagrams_sent.load(Ordering::Relaxed);
    assert!(engines.iter().all(|engine| counted(engine) > 0), "datagrams went by this transport");
    for engine in engines {
        assert_eq!(engine.stop(), Ended::Orderly);
    }
    let logs = memories.map(|memory| memory.memory_disk().bytes("0000000000000000.qlog").unwrap());
    // Behind the header page, which has each node's own seals.
    let starts = logs.each_ref().map(|log| &log[8192..16 * 1024]);
    assert!(starts[0].iter().any(|byte| *byte != 0) && starts.iter().all(|log| *log == starts[0]));
}

#[test]
fn one_half_is_replaced_and_sleepers_are_woken() {
    let (folder, place) = (Folder::new("half"), InProcess::new());
    let address = || FoundingMember { data: place.address(), control: place.address() };
    // Every thread sleeps whenever it has nothing to do, so every datagram has to wake one.
    let idle = [("threads.idle".to_owned(), "park".to_owned())];
    let engines = group(&folder, address, [(); 3].map(|()| (place.clone(), Host)), 300, &idle);
    let started = Instant::now();
    for _ in 0..20 {
        engines[2].execute(b"one at a time", PATIENCE).unwrap();
    }
    println!("{:?} for 20 round trips, asleep in between", started.elapsed());
    for engine in engines {
        assert_eq!(engine.stop(), Ended::Orderly);
    }
}

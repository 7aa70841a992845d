//! Nodes in this process on disks that a test lets stand still or run out of room, and what the settings of `[disk]` do then.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorate::Engine;
use quorate::client::Outcome;
use quorate::control::event::Event;
use quorate::io::files::HostDisk;
use quorate::journal::memory_disk::MemoryFile;
use quorate::journal::{Disk, DurableFile, HeapHotTier};
use quorate::runtime::config::{Founding, FoundingMember, Layers, Settings, TransportKind};
use quorate::runtime::environment::{InMemory, InProcess, OwnedDisk, Storage};
use quorate::runtime::{Ended, NodeError};
use quorate::service::{Role, Sequencer};
use quorate::types::GroupId;

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A storage in memory whose writes and syncs wait while it stands still.
#[derive(Clone, Default)]
struct Stalling {
    memory: InMemory,
    stands_still: Arc<AtomicBool>,
}

#[derive(Clone)]
struct StallingDisk {
    disk: OwnedDisk,
    stands_still: Arc<AtomicBool>,
}

struct StallingFile {
    file: MemoryFile,
    stands_still: Arc<AtomicBool>,
}

impl Storage for Stalling {
    type Disk = StallingDisk;
    type HotTier = HeapHotTier;

    fn disk(&self, folder: &HostDisk) -> Result<StallingDisk, NodeError> {
        let stands_still = Arc::clone(&self.stands_still);
        self.memory.disk(folder).map(|disk| StallingDisk { disk, stands_still })
    }
    fn hot_tier(
        &self,
        folder: &HostDisk,
        settings: &Settings,
    ) -> Result<(HeapHotTier, Vec<String>), NodeError> {
        self.memory.hot_tier(folder, settings)
    }
}

impl StallingDisk {
    fn file(&self, file: MemoryFile) -> StallingFile {
        StallingFile { file, stands_still: Arc::clone(&self.stands_still) }
    }
}

impl Disk for StallingDisk {
    type File = StallingFile;

    fn open(&self, name: &str) -> io::Result<StallingFile> {
        self.disk.open(name).map(|file| self.file(file))
    }
    fn create(&self, name: &str) -> io::Result<StallingFile> {
        self.disk.create(name).map(|file| self.file(file))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
    fn space_left(&self) -> io::Result<Option<u64>> {
        self.disk.space_left()
    }
}

impl StallingFile {
    fn wait(&self) {
        while self.stands_still.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl DurableFile for StallingFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.wait();
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.wait();
        self.file.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.wait();
        self.file.set_length(length)
    }
}

type Node = Engine<(InProcess, Stalling)>;

/// A group in a folder of its own, with the settings of `set`; the folder goes with it.
struct Group {
    nodes: Vec<Node>,
    disks: Vec<Stalling>,
    folder: PathBuf,
}

impl Group {
    fn start(name: &str, nodes: usize, set: &[(&str, &str)]) -> Self {
        let folder =
            std::env::temp_dir().join(format!("quorate-disk-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let place = InProcess::new();
        let address = |_| FoundingMember { data: place.address(), control: place.address() };
        let founding = Founding {
            group: GroupId(u64::from(std::process::id())),
            transport: TransportKind::Unicast,
            multicast_port: 0,
            members: (0..nodes).map(address).collect(),
            settings: Vec::new(),
        };
        let disks: Vec<_> = (0..nodes).map(|_| Stalling::default()).collect();
        let open = |(node, disk): (usize, &Stalling)| {
            let text = founding.file(&folder, node).unwrap();
            let layers = Layers::new().text(&folder.join(Founding::file_name(node)), &text);
            let builder = Engine::node_of(layers)
                .set("group.segment_bytes", "262144")
                .set("group.window_bytes", "131072")
                .set("group.command_bytes_max", "16384")
                .set("timing.leader_timeout_ms", "500");
            let builder = set.iter().fold(builder, |builder, (key, text)| builder.set(key, text));
            builder.environment((place.clone(), disk.clone())).open(Sequencer::new()).unwrap()
        };
        let nodes = disks.iter().enumerate().map(open).collect();
        Self { nodes, disks, folder }
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| {
            let status = node.status();
            status.role == Some(Role::Leader) && status.quorum
        })
    }

    fn stop(self) {
        let stops: Vec<_> = self.nodes.into_iter().map(Engine::stop).collect();
        assert!(stops.iter().all(|ended| *ended == Ended::Orderly), "{stops:?}");
        let _ = std::fs::remove_dir_all(self.folder);
    }
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for an event of this code.
fn wait_told(node: &Node, code: u16) -> Event {
    let events = node.events();
    loop {
        let event = events.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no Q-{code}"));
        if event.code() == code {
            return event;
        }
    }
}

#[test]
fn r15_disk_stall_ms() {
    let group = Group::start("stall", 3, &[("disk.stall_ms", "300")]);
    let ask = |node: &Node| node.execute(b"a command", PATIENCE).unwrap().sequence;
    let mut last = ask(&group.nodes[0]);
    let leader = group.leader().unwrap();
    let other = (leader + 1) % 3;
    // A follower's disk stands still: nobody waits for it.
    group.disks[other].stands_still.store(true, Ordering::Release);
    for _ in 0..20 {
        let sequence = ask(&group.nodes[leader]);
        assert!(sequence > last);
        last = sequence;
    }
    let Event::DiskStalled { passed_ms } = wait_told(&group.nodes[other], 1163) else { panic!() };
    assert!(passed_ms >= 300, "{passed_ms}");
    assert_eq!(group.leader(), Some(leader), "for a follower there is no election");
    group.disks[other].stands_still.store(false, Ordering::Release);
    wait_told(&group.nodes[other], 1164);
    // The leader's: another leads, without a word of this one, whose thread may wait for its disk.
    group.disks[leader].stands_still.store(true, Ordering::Release);
    let rest: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    let sequence = ask(&group.nodes[rest[0]]);
    assert!(sequence > last, "it was acknowledged by a group that went on");
    wait_told(&group.nodes[leader], 1165);
    assert!(group.leader().is_some_and(|now| now != leader));
    group.disks[leader].stands_still.store(false, Ordering::Release);
    wait_told(&group.nodes[leader], 1164);
    let sequence = ask(&group.nodes[leader]);
    wait_until("all hold the same", || {
        group.nodes.iter().all(|node| node.status().applied_sequence >= sequence)
    });
    group.stop();
}

#[test]
fn g73_a_sync_that_fails_is_final_and_the_client_that_waits_is_told_at_once() {
    let mut group = Group::start("fails", 3, &[]);
    let first = group.nodes[0].execute(b"a command", PATIENCE).unwrap().sequence;
    let leader = group.leader().unwrap();
    // It is with the leader: without a word of it only its own time-out would send it elsewhere.
    let mut client = group.nodes[(leader + 1) % 3].client().unwrap();
    let disk = group.disks[leader].memory.memory_disk();
    let lanes = client.client.counters().lanes;
    disk.fail_syncs("0000000000000000.qlog");
    assert!(client.client.send(b"what the disk does not take").is_ok());
    let mut answer = None;
    wait_until("it is answered", || {
        client.poll(|told| answer = Some((told.outcome, told.sequence)));
        answer.is_some()
    });
    let (outcome, sequence) = answer.unwrap();
    assert!(outcome == Outcome::Applied && sequence > first, "by the next leader: {outcome:?}");
    assert!(client.client.counters().lanes > lanes);
    wait_told(&group.nodes[leader], 1107);
    wait_until("the node has ended", || group.nodes[leader].is_ended());
    let failed = group.nodes.remove(leader);
    assert_eq!(failed.stop(), Ended::Halted);
    client.close(1_000_000_000);
    group.stop();
}

#[test]
fn r15_disk_low_bytes() {
    let set = [("disk.low_bytes", "9 MiB"), ("disk.full_bytes", "1 MiB")];
    let group = Group::start("low", 1, &set);
    let disk = group.disks[0].memory.memory_disk();
    disk.set_space(Some(9 * 1024 * 1024 - 1));
    let told = wait_told(&group.nodes[0], 1160);
    // What was written in between is gone from it, too.
    let low = |free: u64| free < 9 * 1024 * 1024 && free > 1024 * 1024;
    assert!(matches!(told, Event::DiskLow { free_bytes: Some(free) } if low(free)), "{told:?}");
    group.nodes[0].execute(b"it goes on", PATIENCE).unwrap();
    disk.set_space(None);
    wait_told(&group.nodes[0], 1162);
    group.stop();
}

#[test]
fn r15_disk_full_bytes() {
    let set = [("disk.low_bytes", "2 MiB"), ("disk.full_bytes", "1 MiB")];
    let group = Group::start("full", 1, &set);
    group.nodes[0].execute(b"a command", PATIENCE).unwrap();
    let disk = group.disks[0].memory.memory_disk();
    let left = 1024 * 1024 + 1000;
    disk.set_space(Some(left));
    // A segment would fit, and take of what is to be left free: it is not made.
    let refused =
        std::iter::repeat_with(|| group.nodes[0].execute(&[7; 16_000], Duration::from_millis(500)));
    assert!(refused.take(200).any(|answer| answer.is_err()), "the log comes to its end");
    wait_told(&group.nodes[0], 1161);
    assert_eq!(disk.space_left().unwrap(), Some(left), "nothing was taken");
    disk.set_space(None);
    wait_told(&group.nodes[0], 1162);
    group.nodes[0].execute(b"it goes on by itself", PATIENCE).unwrap();
    group.stop();
}

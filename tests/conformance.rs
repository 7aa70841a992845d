//! The project's own transports and storages are held to the suites that others use.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use quorate::conformance::{disk, hot_tier, storage, transport};
use quorate::io::files::HostDisk;
use quorate::io::{HostHotTier, HotTierSettings};
use quorate::journal::HeapHotTier;
use quorate::journal::memory_disk::MemoryDisk;
use quorate::runtime::config::{Founding, FoundingMember, Settings, TransportKind};
use quorate::runtime::environment::{Host, InMemory, InProcess};
use quorate::types::GroupId;

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("quorate-conformance-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_conform() {
    let folder = Folder::new("files");
    let disk = HostDisk::open(&folder.0).unwrap();
    let reopen = |disk| {
        drop(disk);
        Ok(HostDisk::open(&folder.0).unwrap())
    };
    let passed = disk::check(disk, reopen).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(passed.steps > 50 && passed.reopened == 3, "{passed:?}");
}

#[test]
fn a_disk_in_memory_conforms_through_power_losses() {
    for seed in 0..32 {
        let mut losses = 0;
        let reopen = |disk: MemoryDisk| {
            losses += 1;
            disk.crash(seed * 100 + losses);
            Ok(disk)
        };
        let passed = disk::check(MemoryDisk::new(), reopen);
        passed.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[test]
fn mapped_memory_conforms() {
    const BYTES: u64 = 256 * 1024;
    let folder = Folder::new("mapped");
    std::fs::create_dir_all(&folder.0).unwrap();
    let open = |directory: &Path| {
        let settings = HotTierSettings {
            data_directory: folder.0.clone(),
            directory: Some(directory.to_owned()),
            segment_bytes: BYTES,
            segments_min: 1,
        };
        HostHotTier::open(&settings).unwrap().0
    };
    // On a disk, and in memory where there is a memory file system.
    let memory = Folder(Path::new("/dev/shm").join(folder.0.file_name().unwrap()));
    let memory = Path::new("/dev/shm").is_dir().then_some(&memory);
    let places = [Some(folder.0.join("hot")), memory.map(|memory| memory.0.clone())];
    for place in places.into_iter().flatten() {
        let reopen = |tier| {
            drop(tier);
            Ok(open(&place))
        };
        let passed = hot_tier::check(open(&place), BYTES, reopen);
        let passed = passed.unwrap_or_else(|failure| panic!("{}: {failure}", place.display()));
        assert!(passed.frames == 5 && passed.steps > 30, "{passed:?}");
    }
}

#[test]
fn heap_memory_conforms() {
    const BYTES: u64 = 64 * 1024;
    let passed = hot_tier::check(HeapHotTier::new(BYTES, 7), BYTES, Ok);
    passed.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_storages_conform() {
    let folder = Folder::new("storages");
    let passed = storage::check(&Host, &folder.0.join("host"), || {});
    passed.unwrap_or_else(|failure| panic!("{failure}"));
    let memory = InMemory::new();
    let mut seed = 0;
    let power_loss = || {
        seed += 1;
        memory.memory_disk().crash(seed);
    };
    let passed = storage::check(&memory, &folder.0.join("memory"), power_loss);
    passed.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn udp_conforms() {
    let passed = transport::check(&Host).unwrap_or_else(|failure| panic!("{failure}"));
    println!("{passed:?}");
    assert!(passed.wakes && passed.network.messages > 50 && passed.control.messages > 30);
    assert!(passed.network.dropped_bytes > 0 && passed.control.dropped > 0);
}

#[test]
fn multicast_conforms() {
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let sockets: Vec<_> = (0..7).map(|_| free()).collect();
    let address = |at: usize| sockets[at].local_addr().unwrap();
    let founding = Founding {
        group: GroupId(0xC0F0),
        transport: TransportKind::Multicast,
        multicast_port: address(6).port(),
        members: (0..3)
            .map(|node| FoundingMember { data: address(2 * node), control: address(2 * node + 1) })
            .collect(),
        settings: Vec::new(),
    };
    let settings = |node| founding.settings(Path::new("/conformance"), node).unwrap();
    let settings: Vec<Settings> = (0..3).map(settings).collect();
    drop(sockets);
    let passed = transport::check_group(&Host, &settings);
    let passed = passed.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(passed.wakes, "{passed:?}");
}

#[test]
fn a_place_in_the_process_conforms() {
    let passed = transport::check(&InProcess::new()).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(passed.wakes, "{passed:?}");
    assert_eq!(passed.network.repeated, 0);
    println!("{passed:?}");
}

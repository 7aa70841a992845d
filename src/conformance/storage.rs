//! Checks of a [`Storage`]: its disk, its hot tier, one owner at a time, and words to be shared.

use core::fmt;
use core::sync::atomic::Ordering;
use std::io;
use std::path::Path;

use super::{disk, hot_tier};
use crate::io::files::{DiskError, HostDisk};
use crate::journal::Disk;
use crate::runtime::NodeError;
use crate::runtime::config::{
    ConfigErrors, Founding, FoundingMember, Layers, Settings, TransportKind,
};
use crate::runtime::environment::Storage;
use crate::types::GroupId;

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Of the disk.
    pub disk: disk::Passed,
    /// Of the hot tier.
    pub hot_tier: hot_tier::Passed,
}

/// What a storage broke.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The folder of the check.
    Folder(DiskError),
    /// The settings of the check.
    Settings(ConfigErrors),
    /// It could not be opened.
    Open(NodeError),
    /// Its disk.
    Disk(disk::Failure),
    /// Its hot tier.
    HotTier(hot_tier::Failure),
    /// The disk of one node was given to another one too.
    Shared,
    /// The shared page could not be made, does not start at zero, or forgets.
    Words,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Settings(errors) => errors.fmt(f),
            Self::Open(error) => error.fmt(f),
            Self::Disk(failure) => write!(f, "disk: {failure}"),
            Self::HotTier(failure) => write!(f, "hot tier: {failure}"),
            Self::Shared => write!(f, "two nodes were given the same disk"),
            Self::Words => write!(f, "the shared words are not there, not zero, or forgotten"),
        }
    }
}

impl core::error::Error for Failure {}

/// Payload of the check's segments, bytes.
const SEGMENT_BYTES: u64 = 1 << 20;
/// What the disk of one node must not show another one.
const MARK: &str = "conformance-mark";

/// Checks a storage that holds nothing, as that of a node in `folder`. The folder is made, and left to be removed.
///
/// `restart` is called between closing the storage and opening it again: it simulates a power loss where the storage can have
/// one, and otherwise does nothing.
///
/// # Errors
/// The first [`Failure`].
pub fn check<S: Storage>(
    storage: &S,
    folder: &Path,
    mut restart: impl FnMut(),
) -> Result<Passed, Failure> {
    let open_folder = |name: &str| HostDisk::open(&folder.join(name)).map_err(Failure::Folder);
    let (own, other) = (open_folder("node-0")?, open_folder("other")?);
    let settings = settings(folder)?;
    let opened = storage.disk(&own).map_err(Failure::Open)?;
    one_owner(storage, &opened, &other)?;
    let disk = disk::check(opened, |disk| {
        drop(disk);
        restart();
        storage.disk(&own).map_err(io::Error::other)
    });
    let disk = disk.map_err(Failure::Disk)?;
    let (opened, _) = storage.hot_tier(&own, &settings).map_err(Failure::Open)?;
    words(storage, &opened)?;
    let hot_tier = hot_tier::check(opened, SEGMENT_BYTES, |tier| {
        drop(tier);
        storage.hot_tier(&own, &settings).map(|(tier, _)| tier).map_err(io::Error::other)
    });
    Ok(Passed { disk, hot_tier: hot_tier.map_err(Failure::HotTier)? })
}

/// Settings of a node in the folder.
fn settings(folder: &Path) -> Result<Settings, Failure> {
    let address = |port| ([127, 0, 0, 1], port).into();
    let founding = Founding {
        group: GroupId(0xC0F0_12AC),
        transport: TransportKind::Unicast,
        multicast_port: 0,
        members: vec![FoundingMember { data: address(1), control: address(2) }],
        settings: vec![
            ("group.segment_bytes".into(), format!("{SEGMENT_BYTES}")),
            ("group.command_bytes_max".into(), "64 KiB".into()),
            ("group.window_bytes".into(), "256 KiB".into()),
        ],
    };
    let text = founding.file(folder, 0).map_err(Failure::Settings)?;
    let hot = folder.join("hot").to_string_lossy().into_owned();
    let layers = Layers::new().text(&folder.join("conformance.toml"), &text);
    layers.set("node.hot_dir", &hot).check().map_err(Failure::Settings)
}

/// While somebody has the disk of a node, that of another node is another one, or is refused.
fn one_owner<S: Storage>(storage: &S, disk: &S::Disk, other: &HostDisk) -> Result<(), Failure> {
    let step = "creating a mark";
    let refused =
        |error: io::Error| Failure::Disk(disk::Failure::Refused { step, error: error.to_string() });
    let Ok(other) = storage.disk(other) else { return Ok(()) };
    drop(other.create(MARK).map_err(refused)?);
    let shared = disk.list().map_err(refused)?.iter().any(|name| name == MARK);
    other.remove(MARK).map_err(refused)?;
    if shared { Err(Failure::Shared) } else { Ok(()) }
}

/// The page starts at zero, and keeps what is stored.
fn words<S: Storage>(storage: &S, tier: &S::HotTier) -> Result<(), Failure> {
    let page = storage.words(tier).map_err(|_| Failure::Words)?;
    if page.words().values().any(|value| value != 0) {
        return Err(Failure::Words);
    }
    page.words().commit.store(77, Ordering::Release);
    let kept = page.words().commit.load(Ordering::Acquire) == 77;
    page.words().commit.store(0, Ordering::Release);
    if kept { Ok(()) } else { Err(Failure::Words) }
}

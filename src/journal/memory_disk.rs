//! A disk in memory that can lose power: what was written and what is durable are two images, and a crash decides for each
//! sector in between.
//!
//! For tests of recovery and for the simulator. It is stricter than most file systems on purpose: nothing is durable before
//! its own sync, a new name is not durable before the directory's, and after a failed sync the pages are clean and the data
//! is gone. A crash of the process alone loses nothing that was written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::memory::{Disk, DurableFile};

/// Bytes that a disk writes as a whole, or tears.
const SECTOR_BYTES: usize = 512;

/// A data directory in memory. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    world: Arc<Mutex<World>>,
}

/// An open file of a [`MemoryDisk`]. A crash ends it.
#[derive(Debug)]
pub struct MemoryFile {
    world: Arc<Mutex<World>>,
    id: u64,
    boot: u64,
}

#[derive(Debug, Default)]
struct World {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
    next_id: u64,
    boot: u64,
    space: Option<u64>,
    /// Changes (writes, syncs, names) that still succeed before everything fails.
    changes_left: Option<u64>,
    failing_syncs: BTreeSet<u64>,
    unreadable: BTreeMap<u64, Range<u64>>,
    changes: u64,
    syncs: u64,
}

#[derive(Clone, Debug)]
struct NameChange {
    link: Option<(String, u64)>,
    unlink: Option<String>,
}

#[derive(Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    allocated: u64,
}

impl MemoryDisk {
    /// An empty disk of unlimited size.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The power fails. Of everything that was not synced, `seed` decides sector by sector what is on the disk: the old
    /// bytes, the new ones, or a part of each; names that were not synced are there or not. Open files are dead.
    pub fn crash(&self, seed: u64) {
        let mut world = self.lock();
        let mut draw = Draw(seed);
        for inode in world.files.values_mut() {
            inode.crash(&mut draw);
        }
        let pending = core::mem::take(&mut world.pending);
        let mut names = core::mem::take(&mut world.durable_names);
        for change in pending {
            if draw.below(2) == 0 {
                change.apply(&mut names);
            }
        }
        let kept: BTreeSet<u64> = names.values().copied().collect();
        world.files.retain(|id, _| kept.contains(id));
        world.names.clone_from(&names);
        world.durable_names = names;
        world.restart();
    }

    /// The process dies and the machine lives: everything written is still there. Open files are dead.
    pub fn crash_process(&self) {
        self.lock().restart();
    }

    /// Bytes that may be written to new space from now on; `None` for no limit.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.lock().space = bytes;
    }

    /// After this many more changes every change fails, as if the machine had stopped; then call [`MemoryDisk::crash`].
    pub fn stop_after(&self, changes: u64) {
        self.lock().changes_left = Some(changes);
    }

    /// Whether it fails every change, after [`MemoryDisk::stop_after`].
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.lock().changes_left == Some(0)
    }

    /// Whether nothing more may be written to new space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lock().space == Some(0)
    }

    /// Every sync of the file that has this name now fails from now on, and what it should have made durable is lost though
    /// it reads well.
    pub fn fail_syncs(&self, name: &str) {
        let mut world = self.lock();
        let id = world.names.get(name).copied();
        world.failing_syncs.extend(id);
    }

    /// No sync fails any more.
    pub fn syncs_succeed(&self) {
        self.lock().failing_syncs.clear();
    }

    /// Reading any of these bytes of the file that has this name now fails.
    pub fn fail_reads(&self, name: &str, range: Range<u64>) {
        let mut world = self.lock();
        if let Some(&id) = world.names.get(name) {
            world.unreadable.insert(id, range);
        }
    }

    /// Changes bytes on the medium behind everybody's back.
    pub fn rot(&self, name: &str, offset: u64, change: impl FnOnce(&mut [u8])) {
        let mut world = self.lock();
        let Some(inode) = world.names.get(name).copied().and_then(|id| world.files.get_mut(&id))
        else {
            return;
        };
        let offset = (offset as usize).min(inode.live.len());
        change(&mut inode.live[offset..]);
        inode.durable = inode.live.clone();
    }

    /// The bytes of a file as they read now.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let world = self.lock();
        let id = world.names.get(name)?;
        world.files.get(id).map(|inode| inode.live.clone())
    }

    /// Puts a file there, durably.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut world = self.lock();
        let id = world.next_id;
        world.next_id += 1;
        let inode = Inode {
            live: bytes.to_vec(),
            durable: bytes.to_vec(),
            dirty: BTreeSet::new(),
            allocated: bytes.len() as u64,
        };
        world.files.insert(id, inode);
        world.names.insert(name.to_owned(), id);
        world.durable_names.insert(name.to_owned(), id);
    }

    /// Writes, syncs and changes of names so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Syncs of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, id: u64, boot: u64) -> MemoryFile {
        MemoryFile { world: Arc::clone(&self.world), id, boot }
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        let world = self.lock();
        let id = *world.names.get(name).ok_or(ErrorKind::NotFound)?;
        let boot = world.boot;
        drop(world);
        Ok(self.file(id, boot))
    }

    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        let mut world = self.lock();
        world.change()?;
        if world.names.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = world.next_id;
        world.next_id += 1;
        world.files.insert(id, Inode::default());
        world.rename(NameChange { link: Some((name.to_owned(), id)), unlink: None });
        let boot = world.boot;
        drop(world);
        Ok(self.file(id, boot))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.change()?;
        let id = *world.names.get(from).ok_or(ErrorKind::NotFound)?;
        let link = Some((to.to_owned(), id));
        world.rename(NameChange { link, unlink: Some(from.to_owned()) });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.lock();
        world.change()?;
        if !world.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        world.rename(NameChange { link: None, unlink: Some(name.to_owned()) });
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut world = self.lock();
        world.change()?;
        world.pending.clear();
        world.durable_names = world.names.clone();
        Ok(())
    }

    fn space_left(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.lock().space.unwrap_or(u64::MAX)))
    }
}

impl DurableFile for MemoryFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.world()?;
        world.change()?;
        let end = offset + bytes.len() as u64;
        let space = world.space;
        let inode = world.inode(self.id)?;
        let new = end.saturating_sub(inode.allocated);
        if space.is_some_and(|space| new > space) {
            return Err(ErrorKind::StorageFull.into());
        }
        inode.allocated = inode.allocated.max(end);
        let (start, end) = (offset as usize, end as usize);
        if inode.live.len() < end {
            inode.live.resize(end, 0);
        }
        inode.live[start..end].copy_from_slice(bytes);
        if start < end {
            inode.dirty.extend(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        }
        world.space = space.map(|space| space - new);
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world()?;
        let wanted = offset..offset + bytes.len() as u64;
        let range = world.unreadable.get(&self.id);
        let bad = range.is_some_and(|range| range.start < wanted.end && wanted.start < range.end);
        if bad {
            return Err(io::Error::other("media error"));
        }
        let inode = world.inode(self.id)?;
        let from = inode.live.len().min(offset as usize);
        let length = bytes.len().min(inode.live.len() - from);
        bytes[..length].copy_from_slice(&inode.live[from..from + length]);
        Ok(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.world()?;
        world.change()?;
        world.syncs += 1;
        let fails = world.failing_syncs.contains(&self.id);
        let inode = world.inode(self.id)?;
        if fails {
            // The kernel marks the pages clean and reports the failure once.
            inode.dirty.clear();
            return Err(io::Error::other("sync failed"));
        }
        inode.sync();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut world = self.world()?;
        Ok(world.inode(self.id)?.live.len() as u64)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let mut world = self.world()?;
        world.change()?;
        let inode = world.inode(self.id)?;
        inode.live.resize(length as usize, 0);
        inode.allocated = inode.allocated.min(length);
        Ok(())
    }
}

impl MemoryFile {
    fn world(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        if world.boot != self.boot {
            return Err(io::Error::other("the file was opened before the crash"));
        }
        Ok(world)
    }
}

impl World {
    fn change(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.changes_left {
            if *left == 0 {
                return Err(io::Error::other("the machine has stopped"));
            }
            *left -= 1;
        }
        self.changes += 1;
        Ok(())
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.files.get_mut(&id).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn restart(&mut self) {
        self.boot += 1;
        self.changes_left = None;
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        if let Some(name) = &self.unlink {
            names.remove(name);
        }
        if let Some((name, id)) = &self.link {
            names.insert(name.clone(), *id);
        }
    }
}

impl Inode {
    fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        for sector in core::mem::take(&mut self.dirty) {
            let start = (sector * SECTOR_BYTES).min(self.live.len());
            let end = (start + SECTOR_BYTES).min(self.live.len());
            self.durable[start..end].copy_from_slice(&self.live[start..end]);
        }
    }

    fn crash(&mut self, draw: &mut Draw) {
        if self.durable.len() != self.live.len() && draw.below(2) == 0 {
            self.durable.resize(self.live.len(), 0);
        }
        for sector in core::mem::take(&mut self.dirty) {
            let start = (sector * SECTOR_BYTES).min(self.durable.len());
            let end = (start + SECTOR_BYTES).min(self.durable.len()).min(self.live.len());
            if start >= end {
                continue;
            }
            let split = start + draw.below((end - start) as u64) as usize;
            let new = match draw.below(8) {
                0..=2 => start..end,
                3..=5 => start..start,
                6 => start..split,
                _ => split..end,
            };
            self.durable[new.clone()].copy_from_slice(&self.live[new]);
        }
        self.live = self.durable.clone();
    }
}

/// The generator `SplitMix64`: all the randomness a crash needs, from its seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synced(disk: &MemoryDisk, name: &str, bytes: &[u8]) -> MemoryFile {
        let mut file = disk.create(name).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync().unwrap();
        disk.sync_directory().unwrap();
        file
    }

    #[test]
    fn what_was_synced_survives_every_crash_and_the_rest_varies() {
        let mut seen = BTreeSet::new();
        for seed in 0..64 {
            let disk = MemoryDisk::new();
            let mut file = synced(&disk, "a", &[1; 1024]);
            file.write_at(&[2; 512], 512).unwrap();
            drop(disk.create("b").unwrap());
            disk.crash(seed);
            assert!(file.read_at(&mut [0; 1], 0).is_err());
            let bytes = disk.bytes("a").unwrap();
            assert_eq!(bytes[..512], [1; 512]);
            assert!(bytes[512..].iter().all(|&byte| byte == 1 || byte == 2));
            let twos = bytes.split(|&byte| byte == 2).count() - 1;
            seen.insert((twos.min(1) + twos / 512, disk.bytes("b").is_some()));
        }
        assert_eq!(seen.len(), 6, "old, torn and new, with and without the name: {seen:?}");
    }

    #[test]
    fn a_crash_of_the_process_loses_nothing_written() {
        let disk = MemoryDisk::new();
        disk.create("a").unwrap().write_at(&[7; 9], 0).unwrap();
        disk.crash_process();
        assert_eq!(disk.bytes("a").unwrap(), [7; 9]);
    }

    #[test]
    fn after_a_failed_sync_the_bytes_read_well_and_are_gone_with_the_power() {
        let disk = MemoryDisk::new();
        let mut file = synced(&disk, "a", &[1; 512]);
        disk.fail_syncs("a");
        file.write_at(&[2; 512], 0).unwrap();
        assert!(file.sync().is_err());
        assert_eq!(disk.bytes("a").unwrap(), [2; 512]);
        for seed in 0..20 {
            disk.crash(seed);
            assert_eq!(disk.bytes("a").unwrap(), [1; 512]);
        }
    }

    #[test]
    fn a_full_disk_and_a_stopped_machine_are_errors() {
        let disk = MemoryDisk::new();
        disk.set_space(Some(100));
        let mut file = disk.create("a").unwrap();
        file.write_at(&[1; 100], 0).unwrap();
        assert_eq!(file.write_at(&[1; 1], 100).unwrap_err().kind(), ErrorKind::StorageFull);
        file.write_at(&[2; 100], 0).unwrap();
        disk.stop_after(1);
        file.sync().unwrap();
        assert!(file.sync().is_err() && disk.remove("a").is_err());
    }
}

//! A log in the memory of the process: for tests, and for groups whose state may go with the process.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Storage;
use crate::io::files::HostDisk;
use crate::journal::memory_disk::{MemoryDisk, MemoryFile};
use crate::journal::{Disk, HeapHotTier};
use crate::runtime::config::Settings;
use crate::runtime::node::NodeError;

/// A [`Storage`] of one node. Clones are handles to the same one: who keeps one can open the node again.
///
/// It copies what a mapping would share, and takes locks on the core thread: for tests, not for speed.
#[derive(Clone, Debug, Default)]
pub struct InMemory {
    disk: MemoryDisk,
    hot: Arc<Mutex<Option<(u64, HeapHotTier)>>>,
    owned: Arc<AtomicBool>,
}

/// The disk of an [`InMemory`] storage; there is one at a time. Clones share it.
#[derive(Clone, Debug)]
pub struct OwnedDisk {
    disk: MemoryDisk,
    _lock: Arc<Lock>,
}

#[derive(Debug)]
struct Lock(Arc<AtomicBool>);

impl InMemory {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk, to be looked at, or to let its power fail.
    #[must_use]
    pub fn memory_disk(&self) -> &MemoryDisk {
        &self.disk
    }

    /// The disk, for one owner at a time.
    ///
    /// # Errors
    /// `ResourceBusy` while somebody has it.
    pub fn own(&self) -> io::Result<OwnedDisk> {
        if self.owned.swap(true, Ordering::AcqRel) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let lock = Arc::new(Lock(Arc::clone(&self.owned)));
        Ok(OwnedDisk { disk: self.disk.clone(), _lock: lock })
    }
}

impl Storage for InMemory {
    type Disk = OwnedDisk;
    type HotTier = HeapHotTier;

    fn disk(&self, _: &HostDisk) -> Result<OwnedDisk, NodeError> {
        self.own().map_err(|error| NodeError::Environment(error.into()))
    }

    fn hot_tier(
        &self,
        _: &HostDisk,
        settings: &Settings,
    ) -> Result<(HeapHotTier, Vec<String>), NodeError> {
        let bytes = settings.group.segment_bytes;
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        let known = hot.take().filter(|(known, _)| *known == bytes);
        // Memory of another size is not the memory of last time: it gets another identity.
        let (_, tier) =
            hot.insert(known.unwrap_or_else(|| (bytes, HeapHotTier::new(bytes, bytes))));
        Ok((tier.clone(), Vec::new()))
    }
}

impl Disk for OwnedDisk {
    type File = MemoryFile;

    fn open(&self, name: &str) -> io::Result<MemoryFile> {
        self.disk.open(name)
    }
    fn create(&self, name: &str) -> io::Result<MemoryFile> {
        self.disk.create(name)
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

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

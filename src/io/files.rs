//! The data directory of a node: files written and synced explicitly, one owner at a time.

use core::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::journal::node_state::BootId;
use crate::journal::{Disk, DurableFile};

/// Name of the file whose lock says that a node owns the directory; it holds the node's process id.
pub const LOCK_NAME: &str = "lock";
/// Put by file systems into their root, readable by nobody, and nobody's.
const LOST_AND_FOUND: &str = "lost+found";
/// Where Linux tells which boot this is.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// A data directory, locked. Clones share the lock, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct HostDisk {
    directory: PathBuf,
    _lock: Arc<File>,
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub enum DiskError {
    /// Another process has it.
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process id that the other one left, if it did.
        holder: Option<u32>,
    },
    /// The host refused.
    Host {
        /// What was being worked on.
        path: PathBuf,
        /// The host's error.
        error: io::Error,
    },
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { directory, holder: Some(holder) } => {
                write!(f, "{}: process {holder} runs a node with it", directory.display())
            }
            Self::InUse { directory, holder: None } => {
                write!(f, "{}: another process runs a node with it", directory.display())
            }
            Self::Host { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for DiskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Host { error, .. } = self { Some(error) } else { None }
    }
}

impl HostDisk {
    /// Makes the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(directory: &Path) -> Result<Self, DiskError> {
        let host = |path: &Path| {
            let path = path.to_owned();
            move |error| DiskError::Host { path, error }
        };
        fs::create_dir_all(directory).map_err(host(directory))?;
        let path = directory.join(LOCK_NAME);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(&path).map_err(host(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let holder =
                    lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(DiskError::InUse { directory: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(host(&path)(error)),
        }
        lock.set_len(0).map_err(host(&path))?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(host(&path))?;
        Ok(Self { directory: directory.to_owned(), _lock: Arc::new(lock) })
    }

    /// Bytes that may still be written to new files.
    ///
    /// # Errors
    /// The host's.
    pub fn free_bytes(&self) -> io::Result<u64> {
        super::hot_tier::free_bytes(&self.directory)
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn parent(&self, name: &str) -> PathBuf {
        let path = self.directory.join(name);
        path.parent().map_or_else(|| self.directory.clone(), Path::to_owned)
    }
}

impl Disk for HostDisk {
    type File = HostFile;

    fn open(&self, name: &str) -> io::Result<HostFile> {
        let file = OpenOptions::new().read(true).write(true).open(self.directory.join(name))?;
        Ok(HostFile { file })
    }

    fn create(&self, name: &str) -> io::Result<HostFile> {
        fs::create_dir_all(self.parent(name))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(HostFile { file: options.open(self.directory.join(name))? })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list_directory(&self.directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::create_dir_all(self.parent(to))?;
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && entry.file_name() != LOST_AND_FOUND {
                File::open(entry.path())?.sync_all()?;
            }
        }
        File::open(&self.directory)?.sync_all()
    }

    fn space_left(&self) -> io::Result<Option<u64>> {
        self.free_bytes().map(Some)
    }
}

/// Names of the files in a directory and in its folders, sorted.
pub(super) fn list_directory(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type()?.is_dir() {
            names.push(name);
        } else if name != LOST_AND_FOUND {
            list_folder(&entry.path(), &name, &mut names)?;
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn list_folder(path: &Path, folder: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        // A folder in a folder is nothing of ours: listed with a slash, so that it is noticed.
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{folder}/{}{slash}", name.to_string_lossy()));
    }
    Ok(())
}

/// One file of it.
#[derive(Debug)]
pub struct HostFile {
    file: File,
}

impl HostFile {
    /// A file that somebody opened in his own way.
    pub(super) fn of(file: File) -> Self {
        Self { file }
    }
}

impl DurableFile for HostFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

/// Which boot of this machine it is.
///
/// # Errors
/// The host's, or `InvalidData` for text that is no UUID.
pub fn boot_id() -> io::Result<BootId> {
    let text = fs::read_to_string(BOOT_ID_PATH)?;
    let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
    let mut id = [0; 16];
    if digits.len() != 2 * id.len() {
        return Err(ErrorKind::InvalidData.into());
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = core::str::from_utf8(pair).map_err(|_| ErrorKind::InvalidData)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| ErrorKind::InvalidData)?;
    }
    Ok(BootId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::test_directory::TestDirectory;

    #[test]
    fn one_writer_at_a_time_and_the_other_is_told_who() {
        let directory = TestDirectory::new("files-lock");
        let first = HostDisk::open(directory.path()).unwrap();
        let error = HostDisk::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first.clone());
        assert!(HostDisk::open(directory.path()).is_err(), "a clone still holds it");
        drop(first);
        assert!(HostDisk::open(directory.path()).is_ok());
    }

    #[test]
    fn files_are_written_read_and_listed_with_one_level_of_folders() {
        let directory = TestDirectory::new("files-io");
        let disk = HostDisk::open(directory.path()).unwrap();
        let mut file = disk.create("quarantine/a").unwrap();
        file.write_at(b"abc", 5).unwrap();
        file.sync().unwrap();
        disk.sync_directory().unwrap();
        fs::create_dir_all(directory.path().join("lost+found")).unwrap();
        fs::create_dir_all(directory.path().join("quarantine/deeper")).unwrap();
        assert_eq!(disk.list().unwrap(), ["lock", "quarantine/a", "quarantine/deeper/"]);
        assert!(disk.free_bytes().unwrap() > 0);
        let mut bytes = [1; 16];
        assert_eq!(disk.open("quarantine/a").unwrap().read_at(&mut bytes, 0).unwrap(), 8);
        assert_eq!(&bytes[..8], b"\0\0\0\0\0abc");
        disk.rename("quarantine/a", "b").unwrap();
        assert_eq!(disk.create("b").unwrap_err().kind(), ErrorKind::AlreadyExists);
        disk.remove("b").unwrap();
        assert_eq!(disk.open("b").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn every_boot_has_an_id() {
        assert_ne!(boot_id().unwrap(), BootId::default());
    }
}

//! Where a backup is written: a directory under another name, which gets its own when all of it is durable.

use core::fmt;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::files::{DiskError, HostDisk, LOCK_NAME};
use crate::journal::Disk;
use crate::journal::backup::MANIFEST_NAME;
use crate::journal::parse_segment_name;
use crate::journal::snapshot::parse_snapshot_name;

/// What the directory's name ends with before it is whole.
const PARTIAL_SUFFIX: &str = ".partial";

/// The directory, while it is written.
#[derive(Debug)]
pub struct BackupFolder {
    path: PathBuf,
    partial: PathBuf,
    disk: HostDisk,
}

/// Why no backup can be written there.
#[derive(Debug)]
pub enum BackupFolderError {
    /// There is something.
    NotEmpty {
        /// The directory, or the file.
        path: PathBuf,
    },
    /// Another process writes a backup there.
    InUse {
        /// The directory that it writes.
        path: PathBuf,
    },
    /// The host refused.
    Host {
        /// What was being worked on.
        path: PathBuf,
        /// The host's error.
        error: io::Error,
    },
}

impl fmt::Display for BackupFolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmpty { path } => write!(
                f,
                "{}: there is something already; a backup goes into a directory that is new, or empty",
                path.display()
            ),
            Self::InUse { path } => {
                write!(f, "{}: another process writes a backup there", path.display())
            }
            Self::Host { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BackupFolderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Host { error, .. } = self { Some(error) } else { None }
    }
}

impl BackupFolder {
    /// Begins a backup in `path`, which must not be there, or be an empty directory. What a process left that was ended in
    /// the middle of one is removed.
    ///
    /// # Errors
    /// [`BackupFolderError`].
    pub fn begin(path: &Path) -> Result<Self, BackupFolderError> {
        let path = std::path::absolute(path).map_err(host(path))?;
        match fs::read_dir(&path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() != ErrorKind::NotADirectory => {
                return Err(host(&path)(error));
            }
            _ => return Err(BackupFolderError::NotEmpty { path }),
        }
        let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
        name.push(PARTIAL_SUFFIX);
        let partial = path.with_file_name(name);
        let disk = HostDisk::open(&partial).map_err(|error| match error {
            DiskError::InUse { directory: path, .. } => BackupFolderError::InUse { path },
            DiskError::Host { path, error } => BackupFolderError::Host { path, error },
        })?;
        let left = disk.list().map_err(host(&partial))?;
        let left: Vec<_> = left.iter().filter(|name| *name != LOCK_NAME).collect();
        if let Some(other) = left.iter().find(|name| !is_of_a_backup(name)) {
            return Err(BackupFolderError::NotEmpty { path: partial.join(other) });
        }
        for name in left {
            disk.remove(name).map_err(host(&partial.join(name)))?;
        }
        Ok(Self { path, partial, disk })
    }

    /// Where its files go.
    #[must_use]
    pub fn disk(&self) -> &HostDisk {
        &self.disk
    }

    /// All of it is durable: gives it its name.
    ///
    /// # Errors
    /// The host's: it is under the other name still.
    pub fn finish(self) -> Result<(), BackupFolderError> {
        let Self { path, partial, disk } = self;
        fs::rename(&partial, &path).map_err(host(&partial))?;
        // Not before it has its name: whoever finds the other name without a lock clears it.
        let lock = path.join(LOCK_NAME);
        fs::remove_file(&lock).map_err(host(&lock))?;
        drop(disk);
        for directory in [Some(path.as_path()), path.parent()].into_iter().flatten() {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(host(directory))?;
        }
        Ok(())
    }
}

fn is_of_a_backup(name: &str) -> bool {
    let bare = name.strip_suffix(".new").unwrap_or(name);
    bare == MANIFEST_NAME
        || parse_segment_name(bare).is_some()
        || parse_snapshot_name(bare).is_some()
}

fn host(path: &Path) -> impl FnOnce(io::Error) -> BackupFolderError + use<> {
    let path = path.to_owned();
    move |error| BackupFolderError::Host { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::test_directory::TestDirectory;

    #[test]
    fn it_has_its_name_only_when_it_is_whole() {
        let directory = TestDirectory::new("backup-folder");
        let path = directory.path().join("monday");
        for empty in [false, true] {
            if empty {
                fs::create_dir(&path).unwrap();
            }
            let folder = BackupFolder::begin(&path).unwrap();
            let again = BackupFolder::begin(&path).unwrap_err();
            assert!(matches!(again, BackupFolderError::InUse { .. }), "{again}");
            folder.disk().create(MANIFEST_NAME).unwrap();
            assert_eq!(path.exists(), empty);
            folder.finish().unwrap();
            let names: Vec<_> = fs::read_dir(&path).unwrap().map(Result::unwrap).collect();
            assert_eq!(names.len(), 1, "{names:?}");
            fs::remove_dir_all(&path).unwrap();
        }
        assert!(!directory.path().join("monday.partial").exists());
    }

    #[test]
    fn what_was_cut_short_is_cleared_and_what_is_not_ours_is_not() {
        let directory = TestDirectory::new("backup-left");
        let path = directory.path().join("monday");
        let folder = BackupFolder::begin(&path).unwrap();
        folder.disk().create("0000000000000000.qlog").unwrap();
        folder.disk().create("snapshots/0000000000000040.qsnap").unwrap();
        drop(folder);
        let folder = BackupFolder::begin(&path).unwrap();
        assert_eq!(folder.disk().list().unwrap(), [LOCK_NAME]);
        folder.disk().create("letters").unwrap();
        drop(folder);
        let refused = BackupFolder::begin(&path).unwrap_err();
        assert!(refused.to_string().contains("letters"), "{refused}");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("anything"), "").unwrap();
        let refused = BackupFolder::begin(&path).unwrap_err();
        assert!(matches!(refused, BackupFolderError::NotEmpty { .. }), "{refused}");
        let file = path.join("anything");
        let refused = BackupFolder::begin(&file).unwrap_err();
        assert!(matches!(refused, BackupFolderError::NotEmpty { .. }), "{refused}");
    }
}

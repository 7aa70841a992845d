//! A directory of files that is read and never written: a backup, or the data directory of a node that may be running.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::files::{HostFile, list_directory};
use crate::journal::Disk;

/// The directory. It is not locked; what changes anything is refused, by this or by the host.
#[derive(Clone, Debug)]
pub struct BesideDisk {
    directory: PathBuf,
}

impl BesideDisk {
    /// The directory, which need not be there.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(ErrorKind::PermissionDenied, "this directory is only read"))
}

impl Disk for BesideDisk {
    type File = HostFile;

    fn open(&self, name: &str) -> io::Result<HostFile> {
        File::open(self.directory.join(name)).map(HostFile::of)
    }

    fn create(&self, _: &str) -> io::Result<HostFile> {
        refused()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list_directory(&self.directory)
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_directory(&self) -> io::Result<()> {
        refused()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::test_directory::TestDirectory;
    use crate::journal::DurableFile;

    #[test]
    fn everything_is_read_and_nothing_changed() {
        let directory = TestDirectory::new("beside");
        std::fs::write(directory.path().join("a"), "abc").unwrap();
        let disk = BesideDisk::new(directory.path());
        assert_eq!(disk.list().unwrap(), ["a"]);
        let mut file = disk.open("a").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(file.read_at(&mut bytes, 1).unwrap(), 2);
        assert!(file.write_at(b"x", 0).is_err());
        assert!(disk.create("b").is_err() && disk.remove("a").is_err());
        assert!(disk.rename("a", "b").is_err() && disk.sync_directory().is_err());
        assert_eq!(std::fs::read(directory.path().join("a")).unwrap(), b"abc");
        assert_eq!(disk.open("b").unwrap_err().kind(), ErrorKind::NotFound);
        let gone = BesideDisk::new(&directory.path().join("gone"));
        assert_eq!(gone.list().unwrap_err().kind(), ErrorKind::NotFound);
    }
}

//! Where segments go before they leave a node: a folder, on any file system, into which they are copied.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::journal::DurableFile;

/// Bytes copied at once.
const PIECE_BYTES: usize = 256 * 1024;

/// The folder. A copy has its own name only once all of it is durable.
#[derive(Clone, Debug)]
pub struct ArchiveFolder {
    path: PathBuf,
}

impl ArchiveFolder {
    /// A folder, which is made when it is needed.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Copies `file` there under this name, over an earlier copy of it. `pace` is told of each piece: it may wait, and its error
    /// ends the copying.
    ///
    /// # Errors
    /// The host's: nothing has the name then that had it not before.
    pub fn keep(
        &self,
        name: &str,
        file: &impl DurableFile,
        pace: &mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let part = self.path.join(format!("{name}.part"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut copy = options.open(&part)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        loop {
            let read = file.read_at(&mut piece, offset)?;
            if read == 0 {
                break;
            }
            pace(read)?;
            copy.write_all(&piece[..read])?;
            offset += read as u64;
        }
        copy.sync_all()?;
        fs::rename(&part, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::files::HostDisk;
    use crate::io::test_directory::TestDirectory;
    use crate::journal::Disk;

    #[test]
    fn a_file_is_kept_as_it_is_and_again_after_a_failure() {
        let directory = TestDirectory::new("archive");
        let disk = HostDisk::open(&directory.path().join("data")).unwrap();
        let bytes: Vec<_> = (0..PIECE_BYTES + 77).map(|n| (n % 251) as u8).collect();
        let mut file = disk.create("a").unwrap();
        file.write_at(&bytes, 0).unwrap();
        let path = directory.path().join("archive");
        let folder = ArchiveFolder::new(&path);
        let mut pieces = 0;
        let mut gives_up = |_| {
            pieces += 1;
            if pieces == 2 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
        };
        assert!(folder.keep("a", &file, &mut gives_up).is_err());
        assert!(!path.join("a").exists(), "half of it is nothing");
        for _ in 0..2 {
            folder.keep("a", &file, &mut |_| Ok(())).unwrap();
            assert_eq!(fs::read(path.join("a")).unwrap(), bytes);
        }
        assert!(!path.join("a.part").exists());
        fs::write(directory.path().join("no-folder"), "").unwrap();
        let refused = ArchiveFolder::new(&directory.path().join("no-folder"));
        assert!(refused.keep("a", &file, &mut |_| Ok(())).is_err());
    }
}

//! Folders that are gone afterwards: with the run, or, when that was killed, with the next one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Failure;

/// What their names begin with.
const PREFIX: &str = "quorate-bench-";
/// A file in each, locked by the run that made it.
const LOCK: &str = "in-use";

/// A folder of our own, removed with all that is in it.
pub(crate) struct Scratch {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Scratch {
    /// A new one in `parent`, from which those of runs that were killed are removed.
    pub(crate) fn new(parent: &Path) -> Result<Self, Failure> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        remove_abandoned(parent);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => {
                    let lock = lock(&path).map_err(Failure::host("locking a folder"))?;
                    return Ok(Self { path, _lock: lock });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::Host { what: "creating a folder", error }),
            }
        }
    }
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("quorate-bench: {} was not removed: {error}", self.path.display());
        }
    }
}

/// The lock has its name only once it is held, so that nobody takes a folder that is being made for an abandoned one.
fn lock(folder: &Path) -> io::Result<File> {
    let unheld = folder.join("new");
    let file = File::create(&unheld)?;
    file.lock()?;
    fs::rename(unheld, folder.join(LOCK))?;
    Ok(file)
}

/// Removes what nobody holds the lock of. What cannot be removed is somebody else's, and stays.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let names = entries.filter_map(|entry| Some(entry.ok()?.path()));
    for path in names.filter(|path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX))
    }) {
        let abandoned = File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if abandoned {
            let _ = fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_folder_goes_with_its_content() {
        let scratch = Scratch::new(&std::env::temp_dir()).expect("a writable temp folder");
        let other = Scratch::new(&std::env::temp_dir()).expect("a writable temp folder");
        let path = scratch.path().to_owned();
        assert_ne!(path, other.path());
        fs::write(path.join("file"), b"content").expect("our own folder");
        drop(scratch);
        assert!(!path.exists() && other.path().exists());
    }

    #[test]
    fn an_unusable_folder_is_an_error() {
        let failed = Scratch::new(Path::new("/proc/nowhere"));
        assert!(matches!(failed, Err(Failure::Host { what: "creating a folder", .. })));
    }

    #[test]
    fn what_a_killed_run_left_behind_is_removed_and_nothing_else() {
        let parent = Scratch::new(&std::env::temp_dir()).expect("a writable temp folder");
        let alive = Scratch::new(parent.path()).expect("our own folder");
        let abandoned = parent.path().join(format!("{PREFIX}1-1"));
        let foreign = parent.path().join(format!("{PREFIX}notes"));
        for folder in [&abandoned, &foreign] {
            fs::create_dir(folder).expect("our own folder");
            fs::write(folder.join("content"), b"content").expect("our own folder");
        }
        fs::write(abandoned.join(LOCK), b"").expect("our own folder");
        let next = Scratch::new(parent.path()).expect("our own folder");
        assert!(!abandoned.exists(), "nobody holds its lock");
        assert!(foreign.exists(), "it has no lock: it is not ours");
        assert!(alive.path().exists() && next.path().exists());
    }
}

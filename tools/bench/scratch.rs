//! Folders that are gone afterwards.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::failure::Failure;

/// A folder of our own, removed with all that is in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new one in `parent`.
    pub(crate) fn new(parent: &Path) -> Result<Self, Failure> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("quorate-bench-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left behind by a process of this number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::Host { what: "creating a folder", error }),
            }
        }
    }
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("quorate-bench: {} was not removed: {error}", self.0.display());
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
}

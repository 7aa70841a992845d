//! Where hot segments live on this host: a directory of a memory file system, or of the data directory where that is
//! missing or too small.
//!
//! ```text
//! <tier>/hot.id                  16 hex digits, drawn when the tier was new; locked while a node runs
//! <tier>/<base>.qlog             header page and payload, as in the data directory
//! <tier>/shared.words            what the node shares with tools (io::shared_page)
//! <data directory>/hot.path      where the tier is, for tools; then, whose: a copied data directory has none
//! ```
#![allow(unsafe_code)] // one call: free space of a file system

use core::fmt;
use core::hash::BuildHasher;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::mapping::{MappedMemory, MappedView, map_segment};
use crate::frame::crc::crc32c;
use crate::journal::{HotTier, parse_segment_name, segment_name};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::Position;

/// Name of the file in the data directory that says where the hot tier is.
pub const HOT_PATH_FILE: &str = "hot.path";
/// Name of the file in the tier that holds its identity and its lock.
pub const HOT_ID_FILE: &str = "hot.id";
/// Where memory file systems are, on the hosts this runs on.
pub const MEMORY_DIRECTORY: &str = "/dev/shm";
/// Name of the tier inside the data directory, where there is no memory file system.
const FALLBACK_DIRECTORY: &str = "hot";
/// Zeroes are written in blocks of this size: larger ones make the kernel use larger folios, which are dearer to write back
/// where the tier is on a disk.
const ZERO_BLOCK: [u8; 4096] = [0; 4096];

/// What a tier is opened with.
#[derive(Clone, Debug)]
pub struct HotTierSettings {
    /// The node's data directory; it exists.
    pub data_directory: PathBuf,
    /// A directory of the operator's choice, made when missing. None: one of [`MEMORY_DIRECTORY`]'s.
    pub directory: Option<PathBuf>,
    /// Bytes of a segment's payload.
    pub segment_bytes: u64,
    /// Segments that must find room, those that are there counted in.
    pub segments_min: u64,
}

/// Why the tier is not where it would do best. Not a failure: the node runs, appends are slower.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HotTierWarning {
    /// There is no memory file system, or this user may not write there.
    Missing {
        /// Where it was looked for.
        directory: PathBuf,
        /// What the host said.
        error: String,
        /// What is used instead.
        instead: PathBuf,
    },
    /// It has too little room.
    Small {
        /// Which directory.
        directory: PathBuf,
        /// Bytes available there.
        available: u64,
        /// Bytes needed.
        needed: u64,
        /// What is used instead.
        instead: PathBuf,
    },
    /// The better place has room again, but the segments of the last run are in the other one. They stay there until a
    /// start finds none.
    Kept {
        /// What is used.
        directory: PathBuf,
    },
}

impl fmt::Display for HotTierWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { directory, error, instead } => write!(
                f,
                "hot segments are kept in {}, on a disk, which makes appends slower: {}: {error}",
                instead.display(),
                directory.display()
            ),
            Self::Small { directory, available, needed, instead } => write!(
                f,
                "hot segments are kept in {}, on a disk, which makes appends slower: {} has room for {available} bytes, \
                 {needed} are needed",
                instead.display(),
                directory.display()
            ),
            Self::Kept { directory } => write!(
                f,
                "hot segments are kept in {}, on a disk, where those of the last run are",
                directory.display()
            ),
        }
    }
}

/// Why there is no tier.
#[derive(Debug)]
pub enum HotTierError {
    /// Another node runs with it.
    InUse {
        /// Which directory.
        directory: PathBuf,
    },
    /// It belongs to another user.
    Foreign {
        /// Which directory.
        directory: PathBuf,
    },
    /// Its identity file holds something else.
    Identity {
        /// Which file.
        file: PathBuf,
    },
    /// The host refused.
    Host {
        /// What was being worked on.
        path: PathBuf,
        /// The host's error.
        error: io::Error,
    },
}

impl fmt::Display for HotTierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { directory } => {
                write!(f, "{}: another node runs with these hot segments", directory.display())
            }
            Self::Foreign { directory } => {
                write!(f, "{}: belongs to another user, or is no directory", directory.display())
            }
            Self::Identity { file } => {
                write!(f, "{}: 16 hex digits were expected in it", file.display())
            }
            Self::Host { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for HotTierError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Host { error, .. } = self { Some(error) } else { None }
    }
}

/// The hot tier of a node on this host. Locked against other nodes as long as it lives.
#[derive(Debug)]
pub struct HostHotTier {
    directory: PathBuf,
    segment_bytes: u64,
    id: u64,
    new: bool,
    /// Holds the lock.
    _lock: File,
}

impl HostHotTier {
    /// Opens the tier of a data directory, or makes it, and leaves [`HOT_PATH_FILE`] behind for tools.
    ///
    /// # Errors
    /// [`HotTierError`].
    pub fn open(
        settings: &HotTierSettings,
    ) -> Result<(Self, Option<HotTierWarning>), HotTierError> {
        let data = &settings.data_directory;
        let canonical = data.canonicalize().map_err(host(data))?;
        let (directory, warning) = choose(settings, &canonical)?;
        let (lock, id, new) = identify(&directory)?;
        let path_file = canonical.join(HOT_PATH_FILE);
        write_path(&path_file, &directory, &canonical).map_err(host(&path_file))?;
        let segment_bytes = settings.segment_bytes;
        Ok((Self { directory, segment_bytes, id, new, _lock: lock }, warning))
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// It was made just now: its identity is not one that anybody remembers.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.new
    }

    fn path(&self, base: Position) -> PathBuf {
        self.directory.join(segment_name(base))
    }

    fn open_file(&self, base: Position) -> io::Result<File> {
        File::options().read(true).write(true).open(self.path(base))
    }

    fn file_bytes(&self) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + self.segment_bytes
    }
}

impl HotTier for HostHotTier {
    type Memory = MappedMemory;
    type View = MappedView;

    fn create(&mut self, base: Position) -> io::Result<()> {
        let options = File::options().write(true).create_new(true).mode(0o600).clone();
        options.open(self.path(base))?.set_len(self.file_bytes())
    }

    fn populate(&mut self, base: Position, offset: u64, length: u64) -> io::Result<()> {
        let end = offset.checked_add(length).filter(|&end| end <= self.file_bytes());
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        let file = self.open_file(base)?;
        let mut at = offset;
        while at < end {
            let block = (end - at).min(ZERO_BLOCK.len() as u64);
            file.write_all_at(&ZERO_BLOCK[..block as usize], at)?;
            at += block;
        }
        Ok(())
    }

    fn open(&mut self, base: Position) -> io::Result<(MappedMemory, MappedView)> {
        let file = self.open_file(base)?;
        if file.metadata()?.len() != self.file_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not of the size of a segment of this group",
            ));
        }
        map_segment(&file, self.segment_bytes)
    }

    fn list(&self) -> io::Result<Vec<Position>> {
        list_segments(&self.directory)
    }

    fn remove(&mut self, base: Position) -> io::Result<()> {
        fs::remove_file(self.path(base))
    }

    fn id(&self) -> u64 {
        self.id
    }
}

/// Bases of the segment files in a directory, sorted.
pub(super) fn list_segments(directory: &Path) -> io::Result<Vec<Position>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(directory)? {
        bases.extend(entry?.file_name().to_str().and_then(parse_segment_name));
    }
    bases.sort_unstable();
    Ok(bases)
}

fn host(path: &Path) -> impl FnOnce(io::Error) -> HotTierError {
    let path = path.to_path_buf();
    move |error| HotTierError::Host { path, error }
}

/// The directory to use, made when missing.
fn choose(
    settings: &HotTierSettings,
    data: &Path,
) -> Result<(PathBuf, Option<HotTierWarning>), HotTierError> {
    let instead = data.join(FALLBACK_DIRECTORY);
    let wanted =
        settings.directory.clone().unwrap_or_else(|| memory_directory(MEMORY_DIRECTORY, data));
    let warning = match prepare(&wanted, data) {
        // What the last run left behind is worth more than a better place.
        Ok(()) if holds_segments(&wanted) => return Ok((wanted, None)),
        Ok(()) if holds_segments(&instead) => HotTierWarning::Kept { directory: instead.clone() },
        Ok(()) => {
            let file_bytes = SEGMENT_HEADER_BYTES as u64 + settings.segment_bytes;
            let needed = settings.segments_min * file_bytes;
            let available = available(&wanted).map_err(host(&wanted))?;
            if available >= needed {
                return Ok((wanted, None));
            }
            // Nothing of a node that could not start there is left behind.
            let _ = fs::remove_dir(&wanted);
            HotTierWarning::Small { directory: wanted, available, needed, instead: instead.clone() }
        }
        // What an operator asked for is not replaced by something else.
        Err(error) if settings.directory.is_some() => return Err(error),
        Err(error @ HotTierError::Foreign { .. }) => return Err(error),
        Err(error) => HotTierWarning::Missing {
            directory: wanted,
            error: match error {
                HotTierError::Host { error, .. } => error.to_string(),
                other => other.to_string(),
            },
            instead: instead.clone(),
        },
    };
    prepare(&instead, data)?;
    Ok((instead, Some(warning)))
}

/// A tier with an identity and segments.
fn holds_segments(directory: &Path) -> bool {
    directory.join(HOT_ID_FILE).exists()
        && list_segments(directory).is_ok_and(|bases| !bases.is_empty())
}

/// The tier of a data directory in a memory file system: two nodes on a host never share one.
fn memory_directory(memory: &str, data: &Path) -> PathBuf {
    let name = data.as_os_str().as_encoded_bytes();
    let hash = u64::from(crc32c(0, name)) << 32 | u64::from(crc32c(!0, name));
    Path::new(memory).join(format!("quorate-{hash:016x}"))
}

/// Makes the directory for this user alone. One that is there must belong to whoever owns the data directory: anybody may
/// have made it.
fn prepare(directory: &Path, data: &Path) -> Result<(), HotTierError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(host(directory)(error)),
        _ => {
            let found = fs::symlink_metadata(directory).map_err(host(directory))?;
            let own = fs::metadata(data).map_err(host(data))?;
            if found.is_dir() && found.uid() == own.uid() {
                Ok(())
            } else {
                Err(HotTierError::Foreign { directory: directory.to_path_buf() })
            }
        }
    }
}

/// Bytes that segments may take there: what is free, and what segments hold already.
fn available(directory: &Path) -> io::Result<u64> {
    let mut bytes = free_bytes(directory)?;
    for base in list_segments(directory)? {
        bytes += fs::metadata(directory.join(segment_name(base)))?.blocks() * 512;
    }
    Ok(bytes)
}

/// Bytes that an ordinary user may still take on the file system of `path`.
///
/// # Errors
/// The host's.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut found = core::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a terminated string and `found` has room for the result; both outlive the call.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled the structure.
    let found = unsafe { found.assume_init() };
    Ok(found.f_bavail * found.f_frsize)
}

/// Locks the tier and reads its identity; draws one when it has none.
fn identify(directory: &Path) -> Result<(File, u64, bool), HotTierError> {
    let path = directory.join(HOT_ID_FILE);
    let options = File::options().read(true).write(true).create(true).mode(0o600).clone();
    let file = options.open(&path).map_err(host(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(HotTierError::InUse { directory: directory.to_path_buf() });
        }
        Err(TryLockError::Error(error)) => return Err(host(&path)(error)),
    }
    let text = fs::read_to_string(&path).map_err(host(&path))?;
    if text.is_empty() {
        let id = draw();
        file.write_all_at(format!("{id:016x}\n").as_bytes(), 0).map_err(host(&path))?;
        return Ok((file, id, true));
    }
    let digits = text.trim_end();
    match u64::from_str_radix(digits, 16) {
        Ok(id) if digits.len() == 16 => Ok((file, id, false)),
        _ => Err(HotTierError::Identity { file: path }),
    }
}

/// A number that no other tier has: from the host's random source, by way of the standard library's hash keys.
fn draw() -> u64 {
    std::hash::RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()))
}

/// The tier of a data directory, as the node that ran there last has written it down.
///
/// # Errors
/// The host's; `NotFound` when none ran, `InvalidData` when the directory is a copy of another one.
pub fn told_tier(data_directory: &Path) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let data = data_directory.canonicalize()?;
    let text = fs::read(data.join(HOT_PATH_FILE))?;
    let mut lines = text.split(|&byte| byte == b'\n');
    match (lines.next(), lines.next()) {
        (Some(tier), Some(of)) if of == data.as_os_str().as_encoded_bytes() => {
            Ok(PathBuf::from(std::ffi::OsStr::from_bytes(tier)))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "hot.path is of another directory")),
    }
}

fn write_path(file: &Path, directory: &Path, data: &Path) -> io::Result<()> {
    let lines =
        [directory.as_os_str().as_encoded_bytes(), data.as_os_str().as_encoded_bytes(), b""];
    let text = lines.join(&b'\n');
    if fs::read(file).is_ok_and(|found| found == text) {
        return Ok(());
    }
    // Renamed into place: a tool never reads half of it.
    let new = file.with_extension("path.new");
    File::create(&new)?.write_all(&text)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::test_directory::TestDirectory;
    use crate::journal::{SegmentMemory, SegmentView};

    const SEGMENT: u64 = 64 * 1024;

    fn settings(data: &TestDirectory, directory: Option<&Path>) -> HotTierSettings {
        HotTierSettings {
            data_directory: data.path().to_path_buf(),
            directory: directory.map(Path::to_path_buf),
            segment_bytes: SEGMENT,
            segments_min: 2,
        }
    }

    #[test]
    fn segments_are_made_populated_mapped_listed_and_removed() {
        let data = TestDirectory::new("tier");
        let place = data.path().join("chosen");
        let (mut tier, warning) = HostHotTier::open(&settings(&data, Some(&place))).unwrap();
        assert_eq!((warning, tier.directory()), (None, place.as_path()));
        assert!(tier.is_new());
        let base = Position(3 * SEGMENT);
        tier.create(base).unwrap();
        assert_eq!(tier.create(base).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        tier.populate(base, 0, SEGMENT).unwrap();
        tier.populate(base, SEGMENT, 4096).unwrap();
        let beyond = tier.populate(base, SEGMENT, 4097).unwrap_err();
        assert_eq!(beyond.kind(), io::ErrorKind::InvalidInput);
        let (mut memory, view) = tier.open(base).unwrap();
        memory.bytes_mut(32, 3).copy_from_slice(b"abc");
        assert_eq!(view.bytes(32, 3), b"abc");
        fs::write(tier.directory().join("notes.txt"), "not a segment").unwrap();
        assert_eq!(tier.list().unwrap(), [base]);
        fs::write(tier.directory().join(segment_name(Position(0))), "short").unwrap();
        assert_eq!(tier.open(Position(0)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        tier.remove(base).unwrap();
        assert_eq!(tier.list().unwrap(), [Position(0)]);
        assert_eq!(view.bytes(32, 3), b"abc");
        let told = fs::read_to_string(data.path().join(HOT_PATH_FILE)).unwrap();
        assert_eq!(told, format!("{}\n{}\n", place.display(), data.path().display()));
        assert_eq!(told_tier(data.path()).unwrap(), place);
        let copy = TestDirectory::new("copy");
        assert_eq!(told_tier(copy.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::copy(data.path().join(HOT_PATH_FILE), copy.path().join(HOT_PATH_FILE)).unwrap();
        assert_eq!(told_tier(copy.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_tier_keeps_its_identity_and_has_one_owner() {
        let data = TestDirectory::new("identity");
        let place = data.path().join("chosen");
        let settings = settings(&data, Some(&place));
        let (tier, _) = HostHotTier::open(&settings).unwrap();
        let id = tier.id();
        assert!(matches!(HostHotTier::open(&settings), Err(HotTierError::InUse { .. })));
        drop(tier);
        let (tier, _) = HostHotTier::open(&settings).unwrap();
        assert_eq!((tier.id(), tier.is_new()), (id, false));
        drop(tier);
        fs::write(place.join(HOT_ID_FILE), "rubbish").unwrap();
        assert!(matches!(HostHotTier::open(&settings), Err(HotTierError::Identity { .. })));
        fs::remove_file(place.join(HOT_ID_FILE)).unwrap();
        let (tier, _) = HostHotTier::open(&settings).unwrap();
        assert!(tier.id() != id && tier.is_new());
    }

    #[test]
    fn a_small_tier_is_replaced_with_a_warning_and_a_missing_one_is_an_error_when_asked_for() {
        let data = TestDirectory::new("small");
        let mut large = settings(&data, Some(&data.path().join("chosen")));
        large.segments_min = 1 << 40;
        let (tier, warning) = HostHotTier::open(&large).unwrap();
        assert_eq!(tier.directory(), data.path().join("hot"));
        assert!(matches!(warning, Some(HotTierWarning::Small { .. })));
        assert!(!data.path().join("chosen").exists());
        let missing = settings(&data, Some(Path::new("/nonexistent/quorate/hot")));
        assert!(matches!(HostHotTier::open(&missing), Err(HotTierError::Host { .. })));
        let nowhere = memory_directory("/nonexistent", data.path());
        assert!(prepare(&nowhere, data.path()).is_err());
    }

    #[test]
    fn segments_of_the_last_run_decide_where_the_tier_is() {
        let data = TestDirectory::new("kept");
        let chosen = settings(&data, Some(&data.path().join("chosen")));
        let large = HotTierSettings { segments_min: 1 << 40, ..chosen.clone() };
        let (mut tier, _) = HostHotTier::open(&large).unwrap();
        tier.create(Position(0)).unwrap();
        let id = tier.id();
        drop(tier);
        let (mut tier, warning) = HostHotTier::open(&chosen).unwrap();
        assert_eq!(tier.id(), id);
        assert!(matches!(warning, Some(HotTierWarning::Kept { .. })));
        tier.remove(Position(0)).unwrap();
        drop(tier);
        let (mut tier, warning) = HostHotTier::open(&chosen).unwrap();
        assert_eq!((tier.directory(), warning), (data.path().join("chosen").as_path(), None));
        tier.create(Position(0)).unwrap();
        drop(tier);
        let (tier, warning) = HostHotTier::open(&large).unwrap();
        assert_eq!((tier.directory(), warning), (data.path().join("chosen").as_path(), None));
    }

    #[test]
    fn a_link_in_the_tiers_place_is_refused() {
        let data = TestDirectory::new("link");
        let place = data.path().join("chosen");
        std::os::unix::fs::symlink(data.path(), &place).unwrap();
        let opened = HostHotTier::open(&settings(&data, Some(&place)));
        assert!(matches!(opened, Err(HotTierError::Foreign { .. })));
    }

    #[test]
    fn the_default_is_in_memory_where_the_host_has_it() {
        if !Path::new(MEMORY_DIRECTORY).is_dir() {
            println!("SKIPPED: no {MEMORY_DIRECTORY} on this host");
            return;
        }
        let data = TestDirectory::new("default");
        let (tier, warning) = HostHotTier::open(&settings(&data, None)).unwrap();
        let directory = tier.directory().to_path_buf();
        assert_eq!(directory, memory_directory(MEMORY_DIRECTORY, data.path()));
        fs::remove_dir_all(&directory).unwrap();
        assert!(warning.is_none());
    }

    #[test]
    fn a_full_file_system_is_an_error_value() {
        let data = TestDirectory::new("full");
        let place = data.path().join("chosen");
        fs::create_dir(&place).unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128k", "quorate-test"])
            .arg(&place)
            .output();
        if !mount.is_ok_and(|done| done.status.success()) {
            println!("SKIPPED: may not mount a small file system here");
            return;
        }
        let _mounted = Mounted(&place);
        let settings = HotTierSettings { segments_min: 1, ..settings(&data, Some(&place)) };
        let (mut tier, warning) = HostHotTier::open(&settings).unwrap();
        assert_eq!(warning, None);
        tier.create(Position(0)).unwrap();
        tier.populate(Position(0), 0, SEGMENT + 4096).unwrap();
        tier.create(Position(SEGMENT)).unwrap();
        let full = tier.populate(Position(SEGMENT), 0, SEGMENT).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert!(tier.open(Position(SEGMENT)).is_err(), "a file with holes is not mapped");
    }

    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            // Detached at once, and gone when the tier's files are closed.
            let done = std::process::Command::new("umount").arg("-l").arg(self.0).status();
            assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
        }
    }
}

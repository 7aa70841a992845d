//! The shared words as a mapped file in the hot tier, so that tools see a live node without asking it anything.
//!
//! ```text
//!    0  "quorate shared words 1\n", zero-filled
//!   40  u64  process that writes
//!   48  u32  count of words
//!   52  u32  CRC-32C of their names, each followed by a newline
//!   64  the words, u64 each
//! 2048  their names, each followed by a newline, zero-filled
//! ```
//! Little-endian, 4096 bytes. A reader of another version finds its way by the names.
#![allow(unsafe_code)] // memory shared with other processes; each block says why it is sound

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use memmap2::{MmapOptions, MmapRaw};

use crate::frame::crc::crc32c;
use crate::link::{SharedPage, SharedWords};
use crate::types::{Commit, Durable, Position, Verified};

/// Name of the file in the hot tier.
pub const SHARED_WORDS_FILE: &str = "shared.words";

const MAGIC: &[u8] = b"quorate shared words 1\n";
/// Its words, and the version behind them.
const MAGIC_WORDS: &[u8] = b"quorate shared words ";
const VERSION: &str = "1";
const PAGE_BYTES: usize = 4096;
const PROCESS_AT: usize = 40;
const COUNT_AT: usize = 48;
const NAMES_CRC_AT: usize = 52;
const WORDS_AT: usize = 64;
const NAMES_AT: usize = 2048;

const _: () =
    assert!(MAGIC.len() <= PROCESS_AT && WORDS_AT.is_multiple_of(align_of::<SharedWords>()));
const _: () = assert!(
    SharedWords::NAMES.len() * 8 <= size_of::<SharedWords>()
        && WORDS_AT + size_of::<SharedWords>() <= NAMES_AT
);

/// The page as its node holds it: writable.
#[derive(Debug)]
pub struct MappedWords {
    raw: MmapRaw,
}

impl MappedWords {
    /// Makes the page of a node that starts, in its hot tier. One that is there is used again, with all words 0, so that
    /// tools that have it open go on; one of another version is replaced.
    ///
    /// # Errors
    /// The host's.
    pub fn create(tier: &Path) -> io::Result<Self> {
        let path = tier.join(SHARED_WORDS_FILE);
        let page = page();
        let mut options = File::options();
        options.read(true).write(true).create(true).mode(0o600);
        let mut file = options.open(&path)?;
        if same_words(&file, &page)? {
            file.write_all_at(&page[..WORDS_AT], 0)?;
        } else {
            let new = path.with_extension("words.new");
            file = options.truncate(true).open(&new)?;
            file.write_all_at(&page, 0)?;
            fs::rename(new, path)?;
        }
        let words = Self { raw: MmapOptions::new().len(PAGE_BYTES).map_raw(&file)? };
        words.clear();
        Ok(words)
    }

    fn clear(&self) {
        for number in 0..SharedWords::NAMES.len() {
            word(&self.raw, number).store(0, Ordering::Relaxed);
        }
    }
}

impl SharedPage for MappedWords {
    #[allow(clippy::cast_ptr_alignment)] // checked: the mapping starts at a page
    fn words(&self) -> &SharedWords {
        // SAFETY: `WORDS_AT` is inside the page.
        let start = unsafe { self.raw.as_ptr().add(WORDS_AT) };
        // SAFETY: the page holds a `SharedWords` there (const assertion) at its alignment (const assertion, the mapping starts
        // at a page). It is atomics alone: valid whatever the bytes are, and every access by anybody is atomic. The mapping
        // is writable and lives as long as `self`.
        unsafe { &*start.cast::<SharedWords>() }
    }
}

/// Why a page cannot be read.
#[derive(Debug)]
pub enum SharedPageError {
    /// Not such a page.
    Foreign,
    /// Such a page, of another version of the format.
    Version {
        /// As found.
        found: String,
    },
    /// Words of this name are missing: it was written by another version.
    Word {
        /// The first one missing.
        name: &'static str,
    },
    /// The host refused.
    Host(io::Error),
}

impl fmt::Display for SharedPageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => write!(f, "not a page of shared words that this program reads"),
            Self::Version { found } => {
                write!(f, "shared words of format {found}, this program reads {VERSION}")
            }
            Self::Word { name } => write!(f, "no word `{name}`: written by another version"),
            Self::Host(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SharedPageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Host(error) = self { Some(error) } else { None }
    }
}

/// The page as tools see it: read-only, words found by name.
#[derive(Debug)]
pub struct SharedReader {
    raw: MmapRaw,
    names: Vec<String>,
    process: u64,
    file: (u64, u64),
    /// Numbers of verified, commit and durable.
    positions: [usize; 3],
}

impl SharedReader {
    /// Opens the page of a hot tier. The node need not run: the page keeps its last values.
    ///
    /// # Errors
    /// [`SharedPageError`]; `Host` with `NotFound` when there is none.
    pub fn open(tier: &Path) -> Result<Self, SharedPageError> {
        let file = File::open(tier.join(SHARED_WORDS_FILE)).map_err(SharedPageError::Host)?;
        let mut page = [0; PAGE_BYTES];
        let metadata = file.metadata().map_err(SharedPageError::Host)?;
        if metadata.len() != PAGE_BYTES as u64 {
            return Err(SharedPageError::Foreign);
        }
        file.read_exact_at(&mut page, 0).map_err(SharedPageError::Host)?;
        if let Some(found) = other_version(&page) {
            return Err(SharedPageError::Version { found });
        }
        let names = names(&page).ok_or(SharedPageError::Foreign)?;
        let find = |name| {
            let number = names.iter().position(|found| found == name);
            number.ok_or(SharedPageError::Word { name })
        };
        let positions = [find("verified")?, find("commit")?, find("durable")?];
        let process = u64_at(&page, PROCESS_AT);
        let raw = MmapOptions::new().len(PAGE_BYTES).map_raw_read_only(&file);
        let raw = raw.map_err(SharedPageError::Host)?;
        Ok(Self { raw, names, process, file: file_id(&metadata), positions })
    }

    /// Process id of the node that wrote it, in that node's own namespace.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.process
    }

    /// End of the verified log.
    #[must_use]
    pub fn verified(&self) -> Verified {
        Verified(Position(self.load(self.positions[0])))
    }

    /// Where an outside reader stops: below it everything is committed, and verified on this node.
    #[must_use]
    pub fn readable(&self) -> Position {
        let commit = self.commit().position();
        commit.min(self.verified().position())
    }

    /// The page that a tier holds now is still this one.
    #[must_use]
    pub fn is_current(&self, tier: &Path) -> bool {
        fs::metadata(tier.join(SHARED_WORDS_FILE)).is_ok_and(|found| file_id(&found) == self.file)
    }

    /// Commit position. A follower may know of a commit before it holds the bytes: see [`SharedReader::readable`].
    #[must_use]
    pub fn commit(&self) -> Commit {
        Commit(Position(self.load(self.positions[1])))
    }

    /// End of what is on the disk.
    #[must_use]
    pub fn durable(&self) -> Durable {
        Durable(Position(self.load(self.positions[2])))
    }

    /// All words, with their names.
    pub fn words(&self) -> impl Iterator<Item = (&str, u64)> + '_ {
        let names = self.names.iter().enumerate();
        names.map(|(number, name)| (name.as_str(), self.load(number)))
    }

    fn load(&self, number: usize) -> u64 {
        word(&self.raw, number).load(Ordering::Acquire)
    }
}

/// The file is a page with the very words of `page`.
fn same_words(file: &File, page: &[u8; PAGE_BYTES]) -> io::Result<bool> {
    let mut found = [0; PAGE_BYTES];
    if file.metadata()?.len() != PAGE_BYTES as u64 {
        return Ok(false);
    }
    file.read_exact_at(&mut found, 0)?;
    Ok(found[..PROCESS_AT] == page[..PROCESS_AT]
        && found[COUNT_AT..WORDS_AT] == page[COUNT_AT..WORDS_AT])
}

/// A word of a mapped page. On a read-only page it may only be loaded: callers here keep to that.
fn word(raw: &MmapRaw, number: usize) -> &AtomicU64 {
    assert!(raw.len() == PAGE_BYTES && WORDS_AT + number * 8 < NAMES_AT);
    // SAFETY: inside the page (above).
    let start = unsafe { raw.as_ptr().add(WORDS_AT + number * 8) };
    // SAFETY: eight bytes inside the page, aligned (the mapping starts at a page), mapped as long as `raw` lives, and
    // accessed atomically by everybody. Loads of this size are allowed on read-only memory.
    unsafe { AtomicU64::from_ptr(start.cast_mut().cast()) }
}

fn file_id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A fresh page.
fn page() -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    let names: String = SharedWords::NAMES.iter().flat_map(|&name| [name, "\n"]).collect();
    page[..MAGIC.len()].copy_from_slice(MAGIC);
    page[PROCESS_AT..][..8].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
    page[COUNT_AT..][..4].copy_from_slice(&(SharedWords::NAMES.len() as u32).to_le_bytes());
    page[NAMES_CRC_AT..][..4].copy_from_slice(&crc32c(0, names.as_bytes()).to_le_bytes());
    page[NAMES_AT..][..names.len()].copy_from_slice(names.as_bytes());
    page
}

/// The names in a page, if it is one.
fn names(page: &[u8; PAGE_BYTES]) -> Option<Vec<String>> {
    let count = (u64_at(page, COUNT_AT) & u64::from(u32::MAX)) as usize;
    let text = page[NAMES_AT..].split(|&byte| byte == 0).next()?;
    let crc = (u64_at(page, COUNT_AT) >> 32) as u32;
    if !page.starts_with(MAGIC) || WORDS_AT + count * 8 > NAMES_AT || crc32c(0, text) != crc {
        return None;
    }
    let names: Vec<_> = core::str::from_utf8(text).ok()?.lines().map(str::to_owned).collect();
    (names.len() == count).then_some(names)
}

/// The version in the page's first line, if it is not ours.
fn other_version(page: &[u8; PAGE_BYTES]) -> Option<String> {
    let line = page[..PROCESS_AT].strip_prefix(MAGIC_WORDS)?.split(|&byte| byte == b'\n').next()?;
    let found = core::str::from_utf8(line).ok()?;
    (found != VERSION && found.bytes().all(|byte| byte.is_ascii_digit())).then(|| found.to_owned())
}

fn u64_at(page: &[u8; PAGE_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|n| page[at + n]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::test_directory::TestDirectory;

    #[test]
    fn a_reader_sees_what_the_node_stores_and_goes_on_after_its_restart() {
        let tier = TestDirectory::new("words");
        let open = SharedReader::open(tier.path());
        assert!(
            matches!(open, Err(SharedPageError::Host(error)) if error.kind() == io::ErrorKind::NotFound)
        );
        let node = MappedWords::create(tier.path()).unwrap();
        let reader = SharedReader::open(tier.path()).unwrap();
        node.words().commit.store(640, Ordering::Release);
        node.words().sync_failed.store(7, Ordering::Relaxed);
        assert_eq!(reader.commit(), Commit(Position(640)));
        assert_eq!(reader.verified(), Verified(Position(0)));
        assert_eq!(reader.readable(), Position(0), "committed, but not here yet");
        assert_eq!(reader.process(), u64::from(std::process::id()));
        assert!(reader.words().map(|(_, value)| value).eq(node.words().values()));
        assert!(reader.words().map(|(name, _)| name).eq(SharedWords::NAMES.iter().copied()));
        drop(node);
        assert_eq!(reader.commit(), Commit(Position(640)));
        let node = MappedWords::create(tier.path()).unwrap();
        assert_eq!(reader.commit(), Commit(Position(0)));
        node.words().commit.store(96, Ordering::Release);
        assert_eq!(reader.commit(), Commit(Position(96)));
    }

    #[test]
    fn pages_of_other_versions_are_replaced_by_nodes_and_understood_or_refused_by_readers() {
        let tier = TestDirectory::new("versions");
        let path = tier.path().join(SHARED_WORDS_FILE);
        let mut other = page();
        let text = b"commit\nnew_word\ndurable\nverified\n";
        other[NAMES_AT..].fill(0);
        other[NAMES_AT..][..text.len()].copy_from_slice(text);
        other[COUNT_AT..][..4].copy_from_slice(&4_u32.to_le_bytes());
        other[NAMES_CRC_AT..][..4].copy_from_slice(&crc32c(0, text).to_le_bytes());
        other[WORDS_AT] = 32;
        other[WORDS_AT + 24] = 64;
        fs::write(&path, other).unwrap();
        let reader = SharedReader::open(tier.path()).unwrap();
        assert_eq!(reader.commit(), Commit(Position(32)));
        assert_eq!(reader.verified(), Verified(Position(64)));
        drop(MappedWords::create(tier.path()).unwrap());
        let fresh = SharedReader::open(tier.path()).unwrap();
        assert_eq!(fresh.words().count(), SharedWords::NAMES.len());
        assert_eq!(reader.commit(), Commit(Position(32)), "the old page is another file now");
        assert!(!reader.is_current(tier.path()) && fresh.is_current(tier.path()));
        let mut bad = page();
        bad[NAMES_AT] ^= 1;
        for foreign in [&bad[..], b"short", &[0; PAGE_BYTES]] {
            fs::write(&path, foreign).unwrap();
            assert!(matches!(SharedReader::open(tier.path()), Err(SharedPageError::Foreign)));
        }
        MappedWords::create(tier.path()).unwrap();
        SharedReader::open(tier.path()).unwrap();
    }
}

//! Checks of a [`Disk`]: names, bytes, refusals, and what has to be there after a power loss.
//!
//! ```
//! use quorate::conformance::disk;
//! use quorate::journal::memory_disk::MemoryDisk;
//!
//! let mut seed = 0;
//! let power_loss = |disk: MemoryDisk| {
//!     seed += 1;
//!     disk.crash(seed);
//!     Ok(disk)
//! };
//! let passed = disk::check(MemoryDisk::new(), power_loss).expect("the disk conforms");
//! assert!(passed.steps > 50);
//! ```

use core::fmt;
use std::io::{self, ErrorKind};

use crate::journal::{Disk, DurableFile};

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Steps that did what they should.
    pub steps: usize,
    /// Times that the disk was opened again.
    pub reopened: usize,
}

/// What a disk broke.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Something that must succeed was refused.
    Refused {
        /// What was tried.
        step: &'static str,
        /// The disk's answer.
        error: String,
    },
    /// Something that must be refused succeeded, or was refused with an error of another kind.
    NotRefused {
        /// What was tried.
        step: &'static str,
        /// How it must be refused.
        expected: ErrorKind,
        /// How it was.
        found: Option<ErrorKind>,
    },
    /// A file has another length.
    Length {
        /// What was tried.
        step: &'static str,
        /// Bytes that it must have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// Other bytes, or another number of them, were read.
    Bytes {
        /// What was tried.
        step: &'static str,
        /// Offset in the file of the first that is wrong or missing.
        at: u64,
    },
    /// The names are others, or not sorted.
    Names {
        /// What was tried.
        step: &'static str,
        /// Those of this suite that must be there.
        expected: Vec<String>,
        /// Those that are.
        found: Vec<String>,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { step, error } => write!(f, "{step}: refused: {error}"),
            Self::NotRefused { step, expected, found: None } => {
                write!(f, "{step}: must be refused ({expected})")
            }
            Self::NotRefused { step, expected, found: Some(found) } => {
                write!(f, "{step}: must be refused with {expected}, not {found}")
            }
            Self::Length { step, expected, found } => {
                write!(f, "{step}: {expected} bytes are due, not {found}")
            }
            Self::Bytes { step, at } => write!(f, "{step}: wrong or missing bytes from {at} on"),
            Self::Names { step, expected, found } => {
                write!(f, "{step}: the names must be {expected:?}, not {found:?}")
            }
        }
    }
}

impl core::error::Error for Failure {}

/// All names of this suite begin with it.
const PREFIX: &str = "conformance-";
const A: &str = "conformance-a";
const B: &str = "conformance-b";
const C: &str = "conformance-c";
const INSIDE: &str = "conformance-folder/inside";
/// A large write, bytes.
const LARGE: usize = 256 << 10;

/// Checks a disk on which no name begins with `conformance-`; leaves none behind.
///
/// `reopen` lets go of the disk, whose files are all closed, and opens it again: after a simulated power loss where the disk
/// can have one. What was not synced may be gone then.
///
/// # Errors
/// The first [`Failure`].
pub fn check<D: Disk>(
    disk: D,
    mut reopen: impl FnMut(D) -> io::Result<D>,
) -> Result<Passed, Failure> {
    let mut suite = Suite { disk, passed: Passed::default() };
    suite.names("at the start", &[])?;
    suite.bytes_of_a_file()?;
    suite.lengths()?;
    suite.refusals()?;
    suite.names_change()?;
    suite.make_durable()?;
    for step in [Suite::change_durably, Suite::change_again, Suite::clean_up] {
        let Suite { disk, mut passed } = suite;
        passed.reopened += 1;
        let disk = reopen(disk).map_err(|error| Failure::Refused {
            step: "opening it again",
            error: error.to_string(),
        })?;
        suite = Suite { disk, passed };
        step(&mut suite)?;
    }
    suite.names("after everything was removed", &[])?;
    Ok(suite.passed)
}

struct Suite<D> {
    disk: D,
    passed: Passed,
}

/// Bytes that differ from place to place and from `seed` to `seed`.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let byte = |at: u64| ((at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1;
    (0..length as u64).map(byte).collect()
}

impl<D: Disk> Suite<D> {
    fn ok<T>(&mut self, step: &'static str, result: io::Result<T>) -> Result<T, Failure> {
        self.passed.steps += 1;
        result.map_err(|error| Failure::Refused { step, error: error.to_string() })
    }

    fn refused<T>(
        &mut self,
        step: &'static str,
        expected: ErrorKind,
        result: io::Result<T>,
    ) -> Result<(), Failure> {
        self.passed.steps += 1;
        match result.err().map(|error| error.kind()) {
            Some(kind) if kind == expected => Ok(()),
            found => Err(Failure::NotRefused { step, expected, found }),
        }
    }

    fn create(&mut self, step: &'static str, name: &str) -> Result<D::File, Failure> {
        let created = self.disk.create(name);
        self.ok(step, created)
    }

    fn open(&mut self, step: &'static str, name: &str) -> Result<D::File, Failure> {
        let opened = self.disk.open(name);
        self.ok(step, opened)
    }

    fn rename(&mut self, step: &'static str, from: &str, to: &str) -> Result<(), Failure> {
        let renamed = self.disk.rename(from, to);
        self.ok(step, renamed)
    }

    fn remove(&mut self, step: &'static str, name: &str) -> Result<(), Failure> {
        let removed = self.disk.remove(name);
        self.ok(step, removed)
    }

    fn sync_directory(&mut self) -> Result<(), Failure> {
        let synced = self.disk.sync_directory();
        self.ok("syncing the directory", synced)
    }

    /// The file holds exactly these bytes.
    fn holds(
        &mut self,
        step: &'static str,
        file: &D::File,
        expected: &[u8],
    ) -> Result<(), Failure> {
        let length = file.length();
        let found = self.ok(step, length)?;
        if found != expected.len() as u64 {
            return Err(Failure::Length { step, expected: expected.len() as u64, found });
        }
        self.reads(step, file, 0, expected, expected.len() + 100)
    }

    /// Reading `room` bytes at `offset` gives `expected`, and leaves the rest of the room alone or not.
    fn reads(
        &mut self,
        step: &'static str,
        file: &D::File,
        offset: u64,
        expected: &[u8],
        room: usize,
    ) -> Result<(), Failure> {
        let mut bytes = vec![0xEE; room];
        let read = file.read_at(&mut bytes, offset);
        let read = self.ok(step, read)?;
        let same = bytes.iter().zip(expected).take_while(|(found, due)| found == due).count();
        if read == expected.len() && same == read {
            Ok(())
        } else {
            Err(Failure::Bytes { step, at: offset + same.min(read) as u64 })
        }
    }

    /// These names of the suite are there, and no other; `expected` is sorted.
    fn names(&mut self, step: &'static str, expected: &[&str]) -> Result<(), Failure> {
        let listed = self.disk.list();
        let listed = self.ok(step, listed)?;
        let own = listed.iter().filter(|name| name.starts_with(PREFIX));
        let found: Vec<String> = own.cloned().collect();
        if listed.is_sorted() && found == expected {
            return Ok(());
        }
        let expected = expected.iter().map(ToString::to_string).collect();
        Err(Failure::Names { step, expected, found })
    }

    fn bytes_of_a_file(&mut self) -> Result<(), Failure> {
        let mut file = self.create("creating a file", A)?;
        self.holds("reading a new file", &file, &[])?;
        let mut image = pattern(1, 1000);
        let written = file.write_at(&image, 0);
        self.ok("writing", written)?;
        self.holds("reading what was written", &file, &image)?;
        let written = file.write_at(&[7; 10], 495);
        self.ok("writing in the middle", written)?;
        image[495..505].fill(7);
        self.holds("reading what was written over", &file, &image)?;
        let more = pattern(2, 3000);
        let written = file.write_at(&more, 5001);
        self.ok("writing behind the end", written)?;
        image.resize(5001, 0);
        image.extend(&more);
        self.holds("reading a gap that nobody wrote", &file, &image)?;
        let written = file.write_at(&[], 3);
        self.ok("writing nothing", written)?;
        self.holds("reading after nothing was written", &file, &image)?;
        let last = &image[8000..];
        self.reads("reading over the end", &file, 8000, last, 4096)?;
        self.reads("reading behind the end", &file, 20_000, &[], 10)?;
        self.reads("reading a piece", &file, 501, &image[501..511], 10)?;
        let other = self.open("opening a file that somebody has open", A)?;
        self.holds("reading by another handle before a sync", &other, &image)?;
        let large = pattern(3, LARGE);
        let written = file.write_at(&large, 0);
        self.ok("writing much at once", written)?;
        self.holds("reading much by another handle", &other, &large)?;
        drop((file, other));
        let file = self.open("opening again", A)?;
        self.holds("reading after all handles were closed", &file, &large)
    }

    fn lengths(&mut self) -> Result<(), Failure> {
        let mut file = self.open("opening", A)?;
        let cut = file.set_length(100);
        self.ok("cutting", cut)?;
        let mut image = pattern(3, 100);
        self.holds("reading what was cut", &file, &image)?;
        let extended = file.set_length(300);
        self.ok("extending", extended)?;
        image.resize(300, 0);
        self.holds("reading what was extended: zeros, not what was cut off", &file, &image)?;
        let synced = file.sync();
        self.ok("syncing", synced)?;
        let synced = file.sync();
        self.ok("syncing what is synced", synced)
    }

    fn refusals(&mut self) -> Result<(), Failure> {
        let mut image = pattern(3, 100);
        image.resize(300, 0);
        let again = self.disk.create(A);
        self.refused("creating a file that is there", ErrorKind::AlreadyExists, again)?;
        let file = self.open("opening", A)?;
        self.holds("reading after a refused creation", &file, &image)?;
        drop(file);
        let missing = self.disk.open(B);
        self.refused("opening what is not there", ErrorKind::NotFound, missing)?;
        let missing = self.disk.remove(B);
        self.refused("removing what is not there", ErrorKind::NotFound, missing)?;
        let missing = self.disk.rename(B, A);
        self.refused("renaming what is not there", ErrorKind::NotFound, missing)?;
        self.names("after refusals", &[A])?;
        let file = self.open("opening", A)?;
        self.holds("reading the target of a refused renaming", &file, &image)
    }

    fn names_change(&mut self) -> Result<(), Failure> {
        for (name, seed) in [(C, 4), (INSIDE, 5), (B, 6)] {
            let mut file = self.create("creating a file", name)?;
            let written = file.write_at(&pattern(seed, 64), 0);
            self.ok("writing", written)?;
        }
        self.names("several files, one in a folder", &[A, B, C, INSIDE])?;
        self.rename("renaming over a file", B, A)?;
        self.names("after renaming over a file", &[A, C, INSIDE])?;
        let file = self.open("opening what was renamed", A)?;
        self.holds("reading what was renamed over a file", &file, &pattern(6, 64))?;
        drop(file);
        self.rename("renaming out of a folder", INSIDE, B)?;
        self.names("after renaming out of a folder", &[A, B, C])?;
        self.rename("renaming into a folder", C, INSIDE)?;
        self.names("after renaming into a folder", &[A, B, INSIDE])?;
        let file = self.open("opening a file in a folder", INSIDE)?;
        self.holds("reading what was renamed into a folder", &file, &pattern(4, 64))?;
        drop(file);
        self.remove("removing", B)?;
        let missing = self.disk.open(B);
        self.refused("opening what was removed", ErrorKind::NotFound, missing)?;
        let file = self.create("creating what was removed", B)?;
        self.holds("reading a new file of an old name", &file, &[])
    }

    fn make_durable(&mut self) -> Result<(), Failure> {
        for name in [A, B, INSIDE] {
            let mut file = self.open("opening", name)?;
            let synced = file.sync();
            self.ok("syncing", synced)?;
        }
        self.sync_directory()
    }

    fn change_durably(&mut self) -> Result<(), Failure> {
        self.names("after synced names and a power loss", &[A, B, INSIDE])?;
        for (name, seed) in [(A, 6), (INSIDE, 4)] {
            let file = self.open("opening after a power loss", name)?;
            self.holds("reading what was synced after a power loss", &file, &pattern(seed, 64))?;
        }
        let mut file = self.open("opening", A)?;
        let written = file.write_at(&pattern(7, 5000), 32);
        self.ok("writing", written)?;
        let synced = file.sync();
        self.ok("syncing bytes and length", synced)?;
        drop(file);
        self.remove("removing", INSIDE)?;
        self.rename("renaming", B, C)?;
        self.sync_directory()
    }

    fn change_again(&mut self) -> Result<(), Failure> {
        self.names("after synced changes of names and a power loss", &[A, C])?;
        let mut image = pattern(6, 32);
        image.extend(pattern(7, 5000));
        let mut file = self.open("opening after a power loss", A)?;
        self.holds("reading a synced length after a power loss", &file, &image)?;
        let cut = file.set_length(10);
        self.ok("cutting", cut)?;
        let synced = file.sync();
        self.ok("syncing", synced)?;
        drop(file);
        // Not synced: it has happened after a power loss, or it has not, as a whole.
        self.rename("renaming over a file", A, C)
    }

    fn clean_up(&mut self) -> Result<(), Failure> {
        let step = "after a renaming that was not synced and a power loss";
        let names = self.disk.list();
        let names = self.ok(step, names)?;
        let done = !names.iter().any(|name| name == A);
        self.names(step, if done { &[C] } else { &[A, C] })?;
        let file = self.open("opening after a power loss", C)?;
        let image = if done { pattern(6, 10) } else { Vec::new() };
        self.holds(step, &file, &image)?;
        drop(file);
        for name in if done { &[C][..] } else { &[A, C] } {
            self.remove("removing", name)?;
        }
        self.sync_directory()
    }
}

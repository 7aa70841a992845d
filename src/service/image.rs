//! Reading and writing of snapshots: little-endian numbers, and what is said about bytes that are no snapshot.

use std::io::{self, ErrorKind, Read, Write};

/// Why bytes are not a snapshot of this kind of state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ImageError {
    /// They start with another mark.
    Magic {
        /// As found.
        found: u32,
        /// As it should be.
        expected: u32,
    },
    /// A version of the format that this program does not read.
    Version {
        /// As found.
        found: u32,
        /// The one it reads.
        expected: u32,
    },
    /// A bound that is a constant of the group is another one here.
    Limit {
        /// Which.
        name: &'static str,
        /// In the snapshot.
        found: u64,
        /// On this node.
        expected: u64,
    },
    /// A field has a value that no state has.
    Field {
        /// Which.
        name: &'static str,
        /// As found.
        found: u64,
    },
    /// The state read does not have the fingerprint that was written with it.
    Hash {
        /// As written.
        found: u64,
        /// As computed.
        computed: u64,
    },
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic { found, expected } => {
                write!(f, "not this state: starts with {found:#010x}, not {expected:#010x}")
            }
            Self::Version { found, expected } => {
                write!(f, "snapshot version {found}, this program reads {expected}")
            }
            Self::Limit { name, found, expected } => {
                write!(f, "snapshot of a group with {name} {found}, here it is {expected}")
            }
            Self::Field { name, found } => write!(f, "impossible {name} {found} in the snapshot"),
            Self::Hash { found, computed } => {
                write!(f, "state hash {found:#018x} written, {computed:#018x} read")
            }
        }
    }
}

impl core::error::Error for ImageError {}

impl From<ImageError> for io::Error {
    fn from(error: ImageError) -> Self {
        Self::new(ErrorKind::InvalidData, error)
    }
}

/// Writes 64-bit numbers.
///
/// # Errors
/// The writer's.
pub fn write_words(writer: &mut dyn Write, words: &[u64]) -> io::Result<()> {
    words.iter().try_for_each(|word| writer.write_all(&word.to_le_bytes()))
}

/// Reads `N` 64-bit numbers.
///
/// # Errors
/// The reader's.
pub fn read_words<const N: usize>(reader: &mut dyn Read) -> io::Result<[u64; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let mut bytes = [0; 8];
        reader.read_exact(&mut bytes)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(words)
}

/// Writes what a snapshot starts with: a mark and the version of its format.
///
/// # Errors
/// The writer's.
pub fn write_start(writer: &mut dyn Write, magic: [u8; 4], version: u32) -> io::Result<()> {
    writer.write_all(&magic)?;
    writer.write_all(&version.to_le_bytes())
}

/// Reads what [`write_start`] wrote.
///
/// # Errors
/// The reader's, or [`ImageError`] for anything else than that.
pub fn read_start(reader: &mut dyn Read, magic: [u8; 4], version: u32) -> io::Result<()> {
    let [word] = read_words(reader)?;
    let (found_magic, found_version) = (word as u32, (word >> 32) as u32);
    let expected = u32::from_le_bytes(magic);
    if found_magic != expected {
        return Err(ImageError::Magic { found: found_magic, expected }.into());
    }
    if found_version != version {
        return Err(ImageError::Version { found: found_version, expected: version }.into());
    }
    Ok(())
}

/// Reads a bound and compares it.
///
/// # Errors
/// The reader's, or [`ImageError::Limit`].
pub fn read_limit(reader: &mut dyn Read, name: &'static str, expected: u64) -> io::Result<()> {
    let [found] = read_words(reader)?;
    if found == expected { Ok(()) } else { Err(ImageError::Limit { name, found, expected }.into()) }
}

/// Refuses a field's value unless `holds`.
///
/// # Errors
/// [`ImageError::Field`].
pub fn require(holds: bool, name: &'static str, found: u64) -> Result<(), ImageError> {
    if holds { Ok(()) } else { Err(ImageError::Field { name, found }) }
}

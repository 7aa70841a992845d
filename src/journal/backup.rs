//! A backup of a log: the newest snapshots and the segments from the older of them on, up to what was committed and on the
//! disk, with a manifest that vouches for every byte of it.
//!
//! ```text
//! backup.manifest              what it is; written last
//! <base>.qlog                  segments, without the seals of the node; the last one is sealed where the backup ends
//! snapshots/<position>.qsnap   as they were
//! ```
//!
//! It is taken beside a running node, which does not notice. Nobody writes to what is below the durable position, and
//! snapshots never change; but they may leave. So what would leave first is held open while it waits for its turn, and
//! when something left all the same, the work begins anew with what is there then.
//!
//! The node state is not part of it, nor can it be: whoever goes on with an old vote may give it twice. A node that is
//! restored is one that has a log and no state, the strictest there is.

mod check;
mod manifest;
mod restore;
mod take;
#[cfg(test)]
mod tests;

use core::fmt;
use std::io;

pub use check::{Checked, Flaw, check};
pub use manifest::{
    FileSum, MANIFEST_NAME, MANIFEST_VERSION, Manifest, ManifestError, read_manifest,
};
pub use restore::{RESTORE_MARK, Restored, Restoring, restore};
pub use take::{Taken, Taking, take};

use super::memory::DurableFile;
use super::reader::{FileBytes, Found, Trouble, Walker};
use super::seal::Seal;
use super::segment_header::SegmentHeader;
use crate::frame::Predecessor;
use crate::frame::crc::crc32c;
use crate::types::{Commit, CutEpoch, Generation, GroupId, Position};

/// Is told of each piece before it is written: it may wait, and its error ends the work.
pub type Pace<'a> = dyn FnMut(usize) -> io::Result<()> + 'a;

/// Who holds it says that a directory is in use; part of no backup.
const LOCK_NAME: &str = "lock";
/// Bytes copied at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Why there is no backup, or nothing was restored.
#[derive(Debug)]
#[non_exhaustive]
pub enum BackupError {
    /// Nothing is committed and on the disk.
    Nothing,
    /// Files left faster than they were copied, again and again.
    Left {
        /// How often it was tried.
        attempts: u32,
    },
    /// The log begins here, and no good snapshot covers what is before.
    NoStart {
        /// Where.
        first: Position,
    },
    /// What is to be copied is damaged.
    Damaged(Vec<Flaw>),
    /// It is no whole backup.
    Manifest(ManifestError),
    /// It is of another group than the configuration's.
    Group {
        /// The backup's.
        found: GroupId,
        /// The configuration's.
        expected: GroupId,
    },
    /// A new group with the identity of the old one.
    SameGroup {
        /// The identity.
        group: GroupId,
    },
    /// Its segments have another size than the configuration's.
    SegmentBytes {
        /// The backup's.
        found: u64,
        /// The configuration's.
        expected: u64,
    },
    /// There is something where the log is to be put.
    NotEmpty {
        /// A file of it.
        name: String,
    },
    /// The host failed.
    Io {
        /// What was being done, and to what.
        action: String,
        /// What the host said.
        error: io::Error,
    },
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing is committed and on the disk yet"),
            Self::Left { attempts } => write!(
                f,
                "the log left faster than it was copied, {attempts} times: allow more bytes per second, or keep more of the log"
            ),
            Self::NoStart { first } => {
                write!(f, "the log begins at {first}, and no good snapshot covers what is before")
            }
            Self::Damaged(flaws) => {
                write!(f, "damaged:")?;
                flaws.iter().try_for_each(|flaw| write!(f, "\n  {flaw}"))
            }
            Self::Manifest(error) => error.fmt(f),
            Self::Group { found, expected } => write!(
                f,
                "the backup is of group {:016x}, the configuration of {:016x}: a change into another group must be asked for",
                found.0, expected.0
            ),
            Self::SameGroup { group } => write!(
                f,
                "the backup is of group {:016x} itself: a new group has an identity of its own",
                group.0
            ),
            Self::SegmentBytes { found, expected } => write!(
                f,
                "segments of {found} bytes in the backup, of {expected} in the configuration (group.segment_bytes)"
            ),
            Self::NotEmpty { name } => {
                write!(f, "{name} is in the data directory: a log is restored into an empty one")
            }
            Self::Io { action, error } => write!(f, "{action}: {error}"),
        }
    }
}

impl core::error::Error for BackupError {}

/// Names an I/O error after what was being done.
fn failed(action: &str, name: impl fmt::Display) -> impl FnOnce(io::Error) -> BackupError {
    let action = format!("{action} {name}");
    move |error| BackupError::Io { action, error }
}

/// A place in the log, between two frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    before: Predecessor,
    generation: Generation,
}

/// Follows the chain through one segment, up to `limit` or its end; `each` sees every frame, and what stands behind it.
fn follow<F: DurableFile>(
    file: &F,
    header: &SegmentHeader,
    limit: Position,
    mut each: impl FnMut(&Found<'_>, Predecessor) -> io::Result<()>,
) -> Result<Place, FollowError> {
    let base = header.before.position;
    let limit = limit.min(base.plus(header.segment_bytes));
    let mut walker = Walker::new(FileBytes { base, file }, header.segment_bytes, header.before);
    let mut place = Place { before: header.before, generation: header.generation };
    while let Some(found) = walker.next_frame(limit).map_err(FollowError::Log)? {
        let opened = found.leadership(place.generation);
        place.generation = opened.map_or(place.generation, |opened| opened.generation);
        place.before = Predecessor {
            position: found.position.plus(found.header.span()),
            sequence: found.header.sequence(),
            term: found.header.term(),
            chain: found.header.chain(),
        };
        each(&found, place.before).map_err(FollowError::Each)?;
    }
    Ok(place)
}

/// Why [`follow`] went no further.
#[derive(Debug)]
enum FollowError {
    Log(Trouble),
    Each(io::Error),
}

/// The seal of a log that is restored: all of it is on the disk, and committed.
fn seal_at(end: Predecessor, epoch: CutEpoch) -> Seal {
    Seal { number: 1, epoch, certain: end, claimed: end, known_commit: Commit(end.position) }
}

/// Length and checksum of a file.
fn sum<F: DurableFile>(file: &F, pace: &mut Pace<'_>) -> io::Result<(u64, u32)> {
    let mut piece = vec![0; PIECE_BYTES];
    let (mut at, mut crc) = (0, 0);
    loop {
        let read = file.read_at(&mut piece, at)?;
        if read == 0 {
            return Ok((at, crc));
        }
        pace(read)?;
        crc = crc32c(crc, &piece[..read]);
        at += read as u64;
    }
}

/// Copies `from..to` of one file to the same place of another.
fn copy<S: DurableFile, T: DurableFile>(
    source: &S,
    target: &mut T,
    from: u64,
    to: u64,
    pace: &mut Pace<'_>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = from;
    while at < to {
        let wanted = ((to - at) as usize).min(piece.len());
        let read = source.read_at(&mut piece[..wanted], at)?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it ends at byte {at}"),
            ));
        }
        pace(read)?;
        target.write_at(&piece[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

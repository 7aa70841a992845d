//! The way back after a stop, a crash or a power loss: run once, before the threads start.
//!
//! 1. **Examine** (reads only): every segment file's header page and seals; then the chain of frames from the start of the log,
//!    first through the durable files by explicit reads, then, if the hot tier is the one of last time, through the hot
//!    segments. Where it stops, [`super::recovery_table`] decides.
//! 2. **Record** the start in the node state: what this node may have lost is durable before anything is cut.
//! 3. **Settle**: bytes that are cut are saved to `quarantine/`; everything above what is certain is written into new files,
//!    which replace the old ones (a sync that failed is never tried again on a file, and after one the old pages may read well
//!    and not be on the disk); the log is sealed. From here on all of it is durable and certain.
//! 4. **Rebuild** the hot segments from the durable files.
//!
//! A crash in any step leaves a directory that the next run handles the same way.

mod damage;
mod rebuild;
mod report;
#[cfg(test)]
mod rot_tests;
mod scan;
#[cfg(test)]
mod seal_tests;
mod seals;
mod settle;
#[cfg(test)]
mod tests;

use core::fmt;
use std::io;

pub use damage::DamagedRange;
pub use report::{CutReport, RecoveryReport};

use super::backup::RESTORE_MARK;
use super::memory::{Disk, HotTier};
use super::node_state::{BootId, NodeState, NodeStateError, NodeStateStore, StartInput};
use super::recovery_table::{Decision, Finding};
use super::segment_header::HeaderError;
use super::syncer::SyncerStart;
use super::terms::TermStartAt;
use crate::frame::{FrameError, Predecessor};
use crate::limits::WINDOW_BYTES_DEFAULT;
use crate::link::Identity;
use crate::mutants::{Mutant, Mutants};
use crate::types::{Commit, Durable, GroupId, Incarnation, Leadership, NodeId, Position};

/// What recovery is told about the log and the node.
#[derive(Clone, Debug)]
pub struct RecoverySettings {
    /// Whose log.
    pub group: GroupId,
    /// Which node.
    pub node: NodeId,
    /// Payload bytes of a segment: the group's constant.
    pub segment_bytes: u64,
    /// Lowest position that must be there, unless a snapshot covers what is missing above it.
    pub log_start: Position,
    /// Bytes below the tail that are hot again when the node starts: at least two windows.
    pub hot_bytes: u64,
    /// Names, and beginnings of names that end in `/`, which others put into the data directory.
    pub known_names: Vec<String>,
    /// Rules taken out, to prove that this is noticed.
    pub mutants: Mutants,
}

impl RecoverySettings {
    /// A whole log, and the defaults.
    #[must_use]
    pub fn new(group: GroupId, node: NodeId, segment_bytes: u64) -> Self {
        Self {
            group,
            node,
            segment_bytes,
            log_start: Position(0),
            hot_bytes: 2 * WINDOW_BYTES_DEFAULT,
            known_names: Vec::new(),
            mutants: Mutants::NONE,
        }
    }
}

/// What the host says about this start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Boot {
    /// The machine's boot.
    pub boot_id: BootId,
    /// See [`StartInput::first_incarnation`].
    pub first_incarnation: Incarnation,
}

/// A log that is whole, durable and certain, and the node that owns it, started.
#[derive(Debug)]
pub struct Recovered<M, V> {
    /// End of the log.
    pub tail: Predecessor,
    /// Leadership of the last frame.
    pub last: Leadership,
    /// Starts of terms, oldest first.
    pub terms: Vec<TermStartAt>,
    /// Commit position that this node knew.
    pub known_commit: Commit,
    /// End of what is on the disk: the tail.
    pub durable: Durable,
    /// Hot segments, contiguous, the last one holding the tail.
    pub segments: Vec<(Position, M, V)>,
    /// What the sync thread starts with.
    pub sync: SyncerStart,
    /// The node state as written for this start.
    pub state: NodeState,
    /// The node has no state of an earlier life.
    pub stateless: bool,
    /// What was found and done.
    pub report: RecoveryReport,
}

impl<M, V> Recovered<M, V> {
    /// What the core is told about itself.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity {
            node: self.state.node,
            incarnation: self.state.incarnation,
            provisional: self.state.provisional,
            stateless: self.stateless,
            generation: self.last.generation,
            fence: self.state.leadership.term,
        }
    }
}

/// Why a node does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecoveryError {
    /// A file that is not ours lies in the data directory.
    ForeignFile {
        /// Its name.
        name: String,
    },
    /// A segment file is not one of this log.
    Header {
        /// Its name.
        name: String,
        /// Why.
        error: HeaderError,
    },
    /// The beginning of the log is not there, and no snapshot covers it.
    NoStart {
        /// The oldest segment file that is there.
        name: String,
        /// Where it begins.
        lowest: Position,
    },
    /// Bytes that were durable are damaged: never cut, never denied.
    Damage {
        /// The damaged ranges, in order (the first ones, if there are very many).
        ranges: Vec<DamagedRange>,
        /// End of what is certain.
        certain: Predecessor,
    },
    /// The node state cannot be used.
    NodeState(NodeStateError),
    /// The host failed.
    Io {
        /// What was being done, and to what.
        action: String,
        /// What the host said.
        error: io::Error,
    },
}

/// Brings the log of this node back. `disk` must be locked against other processes.
///
/// # Errors
/// [`RecoveryError`]. Nothing that could be needed has been removed.
pub fn recover<D: Disk, H: HotTier>(
    disk: &D,
    hot: &mut H,
    settings: &RecoverySettings,
    node_state: &NodeStateStore<D::File>,
    boot: Boot,
) -> Result<Recovered<H::Memory, H::View>, RecoveryError> {
    assert_eq!(node_state.owner(), (settings.group, settings.node), "one node, one state");
    let previous = node_state.state();
    let same_tier = previous
        .as_ref()
        .is_some_and(|state| state.boot_id == boot.boot_id && state.hot_tier_id == hot.id());
    let scan = scan::examine(disk, hot, settings, previous.as_ref(), same_tier)?;
    if scan.decision == Decision::Damage {
        let ranges = damage::ranges(disk, settings, &scan);
        return Err(RecoveryError::Damage { ranges, certain: scan.marks.certain });
    }
    let input = StartInput {
        boot_id: boot.boot_id,
        hot_tier_id: hot.id(),
        hot_whole: scan.hot_whole,
        promise_lost: scan.decision == Decision::CutProvisional,
        first_incarnation: boot.first_incarnation,
    };
    let start = NodeState::start(previous.as_ref(), settings.group, settings.node, input);
    if settings.mutants.has(Mutant::KeepCleanMark) && previous.is_some() {
        node_state.assume_start(&start.state);
    } else {
        node_state.record_start(disk, &start.state).map_err(RecoveryError::NodeState)?;
    }
    let mut report = RecoveryReport::new(&scan, previous.as_ref(), &start);
    let seal_number = settle::settle(disk, settings, &scan, &mut report)?;
    let tail = scan.tail;
    let last = Leadership { generation: scan.generation(), term: tail.term };
    let known_commit = Commit(scan.marks.commit.position().min(tail.position));
    let sync = SyncerStart {
        durable: tail,
        log_start: scan.log_start,
        seal_number,
        epoch: scan.marks.epoch,
        generation: scan.first_generation,
        terms: scan.terms.iter().collect(),
    };
    let segments = rebuild::rebuild(disk, hot, settings, scan, start.hot_intact)?;
    Ok(Recovered {
        tail,
        last,
        terms: sync.terms.clone(),
        known_commit,
        durable: Durable(tail.position),
        segments,
        sync,
        state: start.state,
        stateless: start.stateless,
        report,
    })
}

/// Names an I/O error after what was being done.
fn io_error(action: &str, name: impl fmt::Display) -> impl FnOnce(io::Error) -> RecoveryError {
    let action = format!("{action} {name}");
    move |error| RecoveryError::Io { action, error }
}

/// A stop of the log, as the scan saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stop {
    finding: Finding,
    frame: Option<FrameError>,
}

impl Stop {
    const fn new(finding: Finding) -> Self {
        Self { finding, frame: None }
    }
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignFile { name } if name == RESTORE_MARK => write!(
                f,
                "{name}: a backup was being restored here, and that was cut short; run `quorate restore` again"
            ),
            Self::ForeignFile { name } => write!(
                f,
                "{name}: not a file of this node; move it out of the data directory, or choose another directory"
            ),
            Self::Header { name, error } => write!(f, "{name}: {error}"),
            Self::NoStart { name, lowest } => write!(
                f,
                "{name}: the log before position {lowest} is not here, and no snapshot covers it: bring the missing segments \
                 or a snapshot back, or empty the data directory to take everything from the group"
            ),
            Self::Damage { ranges, .. } => {
                write!(f, "the log is damaged where it was durable, and is left as it is:")?;
                ranges.iter().try_for_each(|range| write!(f, "\n  {range}"))
            }
            Self::NodeState(error) => error.fmt(f),
            Self::Io { action, error } => write!(f, "{action}: {error}"),
        }
    }
}

impl core::error::Error for RecoveryError {}

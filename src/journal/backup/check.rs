//! Reading a backup to its end, and naming everything that is not as it was written.

use core::fmt;
use std::collections::BTreeMap;

use super::manifest::{FileSum, MANIFEST_NAME, Manifest, ManifestError, read_manifest};
use super::{FollowError, LOCK_NAME, Pace, follow, sum};
use crate::frame::Predecessor;
use crate::journal::memory::{Disk, DurableFile, segment_name};
use crate::journal::segment_header::SegmentHeader;
use crate::journal::snapshot::{SnapshotError, snapshot_name, verify};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::{GroupId, Position};

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// In which file.
    pub file: String,
    /// What.
    pub what: String,
}

impl Flaw {
    pub(super) fn new(file: &str, what: impl fmt::Display) -> Self {
        Self { file: file.to_owned(), what: what.to_string() }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

/// A backup that was read to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Damage: it is not to be used.
    pub flaws: Vec<Flaw>,
    /// Files that are not part of it.
    pub strays: Vec<String>,
}

/// Reads all of a backup: the manifest, the checksum of every file, every frame and how it chains, every block of the
/// snapshots, and that they are of this log.
///
/// # Errors
/// [`ManifestError`]: nothing can be said of the rest then.
pub fn check<D: Disk>(disk: &D, pace: &mut Pace<'_>) -> Result<Checked, ManifestError> {
    let manifest = read_manifest(disk)?;
    let names = disk.list().map_err(ManifestError::Host)?;
    let part = |name: &String| {
        name == MANIFEST_NAME
            || name == LOCK_NAME
            || manifest.files.iter().any(|file| file.name == *name)
    };
    let strays = names.iter().filter(|name| !part(name)).cloned().collect();
    let mut flaws = Vec::new();
    for file in &manifest.files {
        flaws.extend(compare(disk, file, pace));
    }
    let mut ends: BTreeMap<_, _> = manifest.snapshots().map(|at| (at, None)).collect();
    flaws.extend(log(disk, &manifest, &mut ends));
    for (position, end) in ends {
        flaws.extend(snapshot(disk, manifest.group, position, end, pace));
    }
    Ok(Checked { manifest, flaws, strays })
}

/// Length and checksum of one file.
fn compare<D: Disk>(disk: &D, file: &FileSum, pace: &mut Pace<'_>) -> Option<Flaw> {
    let FileSum { name, bytes, crc } = file;
    let found = disk.open(name).and_then(|file| sum(&file, pace));
    let what = match found {
        Ok((length, _)) if length != *bytes => format!("{length} bytes, written were {bytes}"),
        Ok((_, found)) if found != *crc => {
            format!("checksum {found:08x}, written was {crc:08x}")
        }
        Ok(_) => return None,
        Err(error) => error.to_string(),
    };
    Some(Flaw::new(name, what))
}

/// Follows the chain. `ends` gets what stands before the positions that it names.
fn log<D: Disk>(
    disk: &D,
    manifest: &Manifest,
    ends: &mut BTreeMap<Position, Option<Predecessor>>,
) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    // Where the segment before led to, if that is known.
    let mut led_to = (manifest.first == Position(0)).then(|| Predecessor::genesis(manifest.group));
    for base in manifest.segments() {
        let name = segment_name(base);
        let limit = manifest.end.position.min(base.plus(manifest.segment_bytes));
        match segment(disk, manifest, base, limit, ends) {
            Ok((header, end)) => {
                if led_to.is_some_and(|end| end != header.before) {
                    flaws.push(Flaw::new(&name, "it does not follow from what is before it"));
                }
                led_to = Some(end);
            }
            Err(what) => {
                flaws.push(Flaw::new(&name, what));
                led_to = None;
            }
        }
    }
    if led_to.is_some_and(|end| end != manifest.end) {
        flaws.push(Flaw::new(MANIFEST_NAME, "the log ends with another entry"));
    }
    flaws
}

/// Every frame of a segment below `limit`.
fn segment<D: Disk>(
    disk: &D,
    manifest: &Manifest,
    base: Position,
    limit: Position,
    ends: &mut BTreeMap<Position, Option<Predecessor>>,
) -> Result<(SegmentHeader, Predecessor), String> {
    let file = disk.open(&segment_name(base)).map_err(|error| error.to_string())?;
    let mut page = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(&mut page, 0).map_err(|error| error.to_string())?;
    let (group, bytes) = (manifest.group, manifest.segment_bytes);
    let header = SegmentHeader::decode_segment(&page[..read], group, bytes, base)
        .map_err(|error| error.to_string())?;
    let mut note = |at: Predecessor| {
        if let Some(end) = ends.get_mut(&at.position) {
            *end = Some(at);
        }
    };
    note(header.before);
    let place = follow(&file, &header, limit, |_, before| {
        note(before);
        Ok(())
    });
    match place {
        Ok(place) if place.before.position == limit => Ok((header, place.before)),
        Ok(place) => Err(format!("the log ends at {}, not at {limit}", place.before.position)),
        Err(FollowError::Log(trouble)) => Err(trouble.to_string()),
        Err(FollowError::Each(error)) => Err(error.to_string()),
    }
}

/// Every block of a snapshot, and that it is of the log.
pub(super) fn snapshot<D: Disk>(
    disk: &D,
    group: GroupId,
    position: Position,
    end: Option<Predecessor>,
    pace: &mut Pace<'_>,
) -> Option<Flaw> {
    let what = match verify(disk, group, position, &mut |bytes| pace(bytes)) {
        Ok(stamp) if Some(stamp.before) == end => return None,
        Ok(stamp) => SnapshotError::OtherLog { stamped: stamp.before, log: end }.to_string(),
        Err(error) => error.to_string(),
    };
    Some(Flaw::new(&snapshot_name(position), what))
}

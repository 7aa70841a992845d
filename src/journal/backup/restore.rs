//! Putting a backup into an empty data directory: as it is, or as the beginning of another group.
//!
//! The group's identity stands in every header page, seal and stamp, and the chain of a log starts from it. A new group
//! gets all of it anew: every frame is chained again, from another beginning, and every snapshot is stamped again. So nothing
//! of the one log fits the other, not even where a header page is lost and written from the frames around it.
//!
//! While it is under way a file says so, which a start of the node refuses by name.

use std::collections::BTreeMap;
use std::io::{self, Write};

use zerocopy::IntoBytes;

use super::check::{Flaw, check};
use super::manifest::{FileSum, Manifest};
use super::{
    BackupError, FollowError, LOCK_NAME, PIECE_BYTES, Pace, copy, failed, follow, seal_at, sum,
};
use crate::frame::crc::{self, crc32c};
use crate::frame::{Kind, Predecessor};
use crate::journal::memory::{Disk, DurableFile, segment_name};
use crate::journal::node_state::NODE_STATE_NAME;
use crate::journal::segment_file::{file_bytes, file_offset, write_seal, write_zeroes};
use crate::journal::segment_header::SegmentHeader;
use crate::journal::snapshot::{SnapshotReader, SnapshotWriter, Stamp, snapshot_name};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::{Chain, CutEpoch, GroupId, Position};

/// The file that is there while a log is being restored: a node does not start beside it.
pub const RESTORE_MARK: &str = "restore.unfinished";

/// What is to become of a backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Restoring {
    /// Identity of the group for which it is restored.
    pub group: GroupId,
    /// Payload bytes of that group's segments.
    pub segment_bytes: u64,
    /// It is another group than the backup's, and that is what is wanted.
    pub as_new_group: bool,
}

/// What was restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// End of the log that is there now: of a new group, with another chain.
    pub end: Predecessor,
}

/// Restores the backup in `from` into `to`, which must be empty, or hold what an earlier restore left that was cut short.
/// The backup is read to its end before anything is written.
///
/// # Errors
/// [`BackupError`]: the directory is as it was, or a node refuses to start in it.
pub fn restore<S: Disk, T: Disk>(
    from: &S,
    to: &T,
    restoring: &Restoring,
    pace: &mut Pace<'_>,
) -> Result<Restored, BackupError> {
    let checked = check(from, pace).map_err(BackupError::Manifest)?;
    let manifest = checked.manifest;
    let (found, expected) = (manifest.group, restoring.group);
    match (found == expected, restoring.as_new_group) {
        (true, true) => return Err(BackupError::SameGroup { group: found }),
        (false, false) => return Err(BackupError::Group { found, expected }),
        _ => {}
    }
    let (found, expected) = (manifest.segment_bytes, restoring.segment_bytes);
    if found != expected {
        return Err(BackupError::SegmentBytes { found, expected });
    }
    if !checked.flaws.is_empty() {
        return Err(BackupError::Damaged(checked.flaws));
    }
    begin(to)?;
    let mut work = Work { from, to, manifest: &manifest, group: restoring.group, pace };
    let end = if restoring.as_new_group { work.chain_anew()? } else { work.copy_all()? };
    finish(to)?;
    Ok(Restored { manifest, end })
}

/// Makes sure that the directory is empty, and says what is being done to it.
fn begin<T: Disk>(to: &T) -> Result<(), BackupError> {
    let names = to.list().map_err(failed("listing", "the data directory"))?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let mut there = names.iter().filter(|name| *name != LOCK_NAME && *name != RESTORE_MARK);
    if has(RESTORE_MARK) && !has(NODE_STATE_NAME) {
        // The directory was empty when that was written: all of it is what was being restored.
        for name in there {
            to.remove(name).map_err(failed("removing", name))?;
        }
        return Ok(());
    }
    if let Some(name) = there.next() {
        return Err(BackupError::NotEmpty { name: name.clone() });
    }
    let mut mark = to.create(RESTORE_MARK).map_err(failed("creating", RESTORE_MARK))?;
    mark.sync().and_then(|()| to.sync_directory()).map_err(failed("writing", RESTORE_MARK))
}

/// All of it is there: from here on a node may start with it.
fn finish<T: Disk>(to: &T) -> Result<(), BackupError> {
    to.sync_directory()
        .and_then(|()| to.remove(RESTORE_MARK))
        .and_then(|()| to.sync_directory())
        .map_err(failed("finishing", "the data directory"))
}

struct Work<'a, 'p, S, T> {
    from: &'a S,
    to: &'a T,
    manifest: &'a Manifest,
    /// Identity of the group for which it is restored.
    group: GroupId,
    pace: &'a mut Pace<'p>,
}

impl<S: Disk, T: Disk> Work<'_, '_, S, T> {
    /// As it is.
    fn copy_all(&mut self) -> Result<Predecessor, BackupError> {
        for FileSum { name, bytes, crc } in &self.manifest.files {
            let source = self.from.open(name).map_err(failed("opening", name))?;
            let mut target = self.to.create(name).map_err(failed("creating", name))?;
            let summed = copy(&source, &mut target, 0, *bytes, self.pace)
                .and_then(|()| target.sync())
                .and_then(|()| sum(&target, &mut |_| Ok(())));
            if summed.map_err(failed("copying", name))? != (*bytes, *crc) {
                let flaw = Flaw::new(name, "it was read otherwise than when it was checked");
                return Err(BackupError::Damaged(vec![flaw]));
            }
        }
        Ok(self.manifest.end)
    }

    /// As the beginning of another group.
    fn chain_anew(&mut self) -> Result<Predecessor, BackupError> {
        let mut ends: BTreeMap<_, _> = self.manifest.snapshots().map(|at| (at, None)).collect();
        let mut end = None;
        let mut epoch = CutEpoch(0);
        for base in self.manifest.segments() {
            let name = segment_name(base);
            let source = self.from.open(&name).map_err(failed("opening", &name))?;
            let mut page = [0; SEGMENT_HEADER_BYTES];
            let read = source.read_at(&mut page, 0).map_err(failed("reading", &name))?;
            let (group, bytes) = (self.manifest.group, self.manifest.segment_bytes);
            let old = SegmentHeader::decode_segment(&page[..read], group, bytes, base)
                .map_err(|error| BackupError::Damaged(vec![Flaw::new(&name, error)]))?;
            let before = end.unwrap_or_else(|| beginning(self.group, old.before));
            end = Some(self.segment(&source, &old, before, &mut ends)?);
            epoch = epoch.max(old.cut_epoch);
        }
        let end = end.ok_or(BackupError::Nothing)?;
        let last = self.manifest.segments().last().map(segment_name).unwrap_or_default();
        let mut file = self.to.open(&last).map_err(failed("opening", &last))?;
        write_seal(&mut file, &seal_at(end, epoch), self.group)
            .and_then(|()| file.sync())
            .map_err(failed("sealing", &last))?;
        for (position, before) in ends {
            self.snapshot(position, before)?;
        }
        Ok(end)
    }

    /// Writes a segment whose frames follow from `before`; what stands behind the last of them.
    fn segment(
        &mut self,
        source: &S::File,
        old: &SegmentHeader,
        before: Predecessor,
        ends: &mut BTreeMap<Position, Option<Predecessor>>,
    ) -> Result<Predecessor, BackupError> {
        let base = before.position;
        let name = segment_name(base);
        let mut file = self.to.create(&name).map_err(failed("creating", &name))?;
        let header = SegmentHeader { group: self.group, before, ..*old };
        file.write_at(&header.encode(), 0).map_err(failed("writing", &name))?;
        let mut note = |at: Predecessor| {
            if let Some(end) = ends.get_mut(&at.position) {
                *end = Some(at);
            }
        };
        note(before);
        let mut at = before;
        let mut out = Out { file: &mut file, base, bytes: Vec::new(), from: base };
        let limit = self.manifest.end.position;
        let pace = &mut *self.pace;
        let followed = follow(source, old, limit, |found, _| {
            let mut header = found.header;
            header.crc = crc::chain(at.chain, &header, found.position, found.payload).0.into();
            at = at.after(&header);
            note(at);
            out.frame(found.position, header.as_bytes(), found.payload);
            if found.header.kind() == Some(Kind::Padding) || out.bytes.len() >= PIECE_BYTES {
                out.flush(pace)?;
            }
            Ok(())
        });
        match followed {
            Ok(_) => {}
            Err(FollowError::Each(error)) => return Err(failed("writing", &name)(error)),
            Err(FollowError::Log(trouble)) => {
                return Err(BackupError::Damaged(vec![Flaw::new(&name, trouble)]));
            }
        }
        out.flush(pace)
            .and_then(|()| {
                let written = file_offset(base, out.from);
                write_zeroes(&mut file, written, file_bytes(old.segment_bytes))
            })
            .and_then(|()| file.sync())
            .map_err(failed("writing", &name))?;
        Ok(at)
    }

    /// Writes the snapshot at `position` with another stamp: its state is behind `before` of the new log.
    fn snapshot(
        &mut self,
        position: Position,
        before: Option<Predecessor>,
    ) -> Result<(), BackupError> {
        let name = snapshot_name(position);
        let flaw = |what: &dyn core::fmt::Display| {
            BackupError::Damaged(vec![Flaw::new(&snapshot_name(position), what)])
        };
        let before = before.ok_or_else(|| flaw(&"no entry of the log ends there"))?;
        let mut reader = SnapshotReader::open(self.from, self.manifest.group, position)
            .map_err(|error| flaw(&error))?;
        let stamp = Stamp { group: self.group, before, ..reader.stamp().clone() };
        let pace = &mut *self.pace;
        let mut pace = |bytes| pace(bytes);
        let mut writer = SnapshotWriter::create(self.to, before, &mut pace)
            .map_err(failed("creating", &name))?;
        io::copy(&mut reader, &mut writer)
            .and_then(|_| writer.flush())
            .and_then(|()| reader.finish())
            .and_then(|()| writer.finish(stamp))
            .map_err(failed("writing", &name))?;
        Ok(())
    }
}

/// What stands before the first entry of a new group's log. A log that has lost its beginning starts from what the old group's
/// chain was there and from the new identity: nodes that are restored of the same backup agree.
fn beginning(group: GroupId, old: Predecessor) -> Predecessor {
    let genesis = Predecessor::genesis(group);
    if old.position == Position(0) {
        return genesis;
    }
    Predecessor { chain: Chain(crc32c(genesis.chain.0, &old.chain.0.to_le_bytes())), ..old }
}

/// Frames on their way into a segment's file.
struct Out<'a, F> {
    file: &'a mut F,
    base: Position,
    bytes: Vec<u8>,
    /// Where `bytes` stand.
    from: Position,
}

impl<F: DurableFile> Out<'_, F> {
    fn frame(&mut self, position: Position, header: &[u8], payload: &[u8]) {
        // Between the end of a payload and the next frame there are zeros.
        self.bytes.resize(position.since(self.from) as usize, 0);
        self.bytes.extend_from_slice(header);
        self.bytes.extend_from_slice(payload);
    }

    fn flush(&mut self, pace: &mut Pace<'_>) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        pace(self.bytes.len())?;
        self.file.write_at(&self.bytes, file_offset(self.base, self.from))?;
        self.from = self.from.plus(self.bytes.len() as u64);
        self.bytes.clear();
        Ok(())
    }
}

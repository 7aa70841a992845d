//! Cutting the durable log: nothing is taken away before it is kept elsewhere, and nothing that was cut can come back.
//!
//! Order: the cut bytes are saved to `quarantine/` and synced, with their directory; snapshots above the cut would be moved
//! there next (this version takes none); the truncation record, which voids what older seals claim above the cut, is synced
//! into the node state; the suffix is zeroed in its file; a seal of the new epoch is written there; the files above are
//! blanked, so that they are as the keeper prepared them. A crash in between leaves the log as it was, or a record from
//! which recovery finishes the cut.

use std::collections::VecDeque;
use std::io;

use super::memory::{Disk, DurableFile, SegmentView, segment_name};
use super::node_state::{NodeStateError, NodeStateStore, Truncation};
use super::seal::Seal;
use super::segment_file::{file_offset, seal_base, write_header, write_seal, write_zeroes};
use super::segment_header::{Content, SegmentHeader};
use super::syncer::{SyncFailure, failed};
use crate::frame::Predecessor;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::{Commit, CutEpoch, Generation, GroupId, Position};

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 * 1024;

/// A cut of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The log's end after it.
    pub(super) at: Predecessor,
    /// The log's end before it.
    pub(super) end: Position,
    pub(super) epoch: CutEpoch,
    /// End of what is durable before it, not below `at`.
    pub(super) durable: Position,
    pub(super) log_start: Position,
    /// Number of the seal that ends it.
    pub(super) seal_number: u64,
    pub(super) group: GroupId,
    pub(super) segment_bytes: u64,
    pub(super) generation: Generation,
    pub(super) commit: Commit,
    /// Always, but with a rule taken out.
    pub(super) saves: bool,
}

/// Why a cut was not done.
#[derive(Debug)]
pub(super) enum CutFailure {
    /// No space to save the bytes, or their last segment is not known yet: nothing has changed.
    Wait,
    /// A write or sync failed.
    Final(SyncFailure),
}

/// Does all of it, in order.
pub(super) fn execute<D: Disk, V: SegmentView>(
    disk: &D,
    node_state: &NodeStateStore<D::File>,
    views: &VecDeque<(Position, V)>,
    cut: &Cut,
) -> Result<(), CutFailure> {
    assert!(
        cut.log_start <= cut.at.position
            && cut.at.position <= cut.durable
            && cut.durable <= cut.end,
        "what stays is on the disk: {cut:?}"
    );
    if cut.saves {
        save(disk, views, cut)?;
    }
    let truncation = Truncation { at: cut.at, epoch: cut.epoch };
    match node_state.update(|state| state.truncate(truncation)) {
        Ok(_) => {}
        Err(NodeStateError::Refused(refused)) => panic!("cuts come one after the other: {refused}"),
        Err(error) => {
            let error = io::Error::other(error.to_string());
            let action = "recording the cut".to_owned();
            return Err(CutFailure::Final(SyncFailure { action, error }));
        }
    }
    cut_files(disk, cut).map_err(CutFailure::Final)
}

/// Saves the suffix.
fn save<D: Disk, V: SegmentView>(
    disk: &D,
    views: &VecDeque<(Position, V)>,
    cut: &Cut,
) -> Result<(), CutFailure> {
    let segment_bytes = cut.segment_bytes;
    // Durable bytes are read back from their files, the rest from the hot segments.
    let mut base = cut.durable.segment_base(segment_bytes);
    while base < cut.end {
        if !views.iter().any(|(known, _)| *known == base) {
            return Err(CutFailure::Wait);
        }
        base = base.plus(segment_bytes);
    }
    let mut pieces = Pieces { disk, views, cut, file: None };
    let header = SegmentHeader {
        content: Content::Quarantine,
        group: cut.group,
        generation: cut.generation,
        segment_bytes,
        before: cut.at,
        cut_epoch: cut.epoch,
    };
    match quarantine(disk, &header, cut.end, |from, bytes| pieces.read(from, bytes)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(CutFailure::Wait),
        Err(error) => {
            let action = "saving the cut bytes".to_owned();
            Err(CutFailure::Final(SyncFailure { action, error }))
        }
    }
}

/// Where the bytes of the suffix come from.
struct Pieces<'a, D: Disk, V> {
    disk: &'a D,
    views: &'a VecDeque<(Position, V)>,
    cut: &'a Cut,
    file: Option<(Position, D::File)>,
}

impl<D: Disk, V: SegmentView> Pieces<'_, D, V> {
    /// Reads as many bytes from `from` on as one segment and one source give; returns how many.
    fn read(&mut self, from: Position, bytes: &mut [u8]) -> io::Result<usize> {
        let base = from.segment_base(self.cut.segment_bytes);
        let durable = self.cut.durable;
        let source_end = if from < durable { durable } else { self.cut.end };
        let end = source_end.min(base.plus(self.cut.segment_bytes));
        let length = bytes.len().min(end.since(from) as usize);
        let bytes = &mut bytes[..length];
        if from < durable {
            if self.file.as_ref().is_none_or(|(known, _)| *known != base) {
                self.file = Some((base, self.disk.open(&segment_name(base))?));
            }
            if let Some((_, file)) = &self.file {
                let read = file.read_at(bytes, file_offset(base, from))?;
                bytes[read..].fill(0);
            }
        } else if let Some((_, view)) = self.views.iter().find(|(known, _)| *known == base) {
            bytes.copy_from_slice(view.bytes(from.since(base), length));
        }
        Ok(length)
    }
}

/// Saves `header.before.position..end`, as `read` gives the bytes, to a new file in `quarantine/`, durably; returns its name.
/// An empty range leaves no file and no name.
pub(super) fn quarantine<D: Disk>(
    disk: &D,
    header: &SegmentHeader,
    end: Position,
    read: impl FnMut(Position, &mut [u8]) -> io::Result<usize>,
) -> io::Result<Option<String>> {
    let at = header.before;
    if at.position == end {
        return Ok(None);
    }
    let name = quarantine_name(disk, header.cut_epoch, at.position, end)?;
    let file = disk.create(&name)?;
    let saved = save_to(file, header, end, read);
    if saved.is_err() {
        // Half a file is worth nothing, and its space may be what is missing.
        let _ = disk.remove(&name);
    }
    saved?;
    disk.sync_directory()?;
    Ok(Some(name))
}

fn save_to<F: DurableFile>(
    mut file: F,
    header: &SegmentHeader,
    end: Position,
    mut read: impl FnMut(Position, &mut [u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let at = header.before;
    file.write_at(&header.encode(), 0)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut from = at.position;
    while from < end {
        let want = (end.since(from) as usize).min(COPY_BYTES);
        let length = read(from, &mut buffer[..want])?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(&buffer[..length], SEGMENT_HEADER_BYTES as u64 + from.since(at.position))?;
        from = from.plus(length as u64);
    }
    file.sync()
}

/// A name that is free: `quarantine/<epoch>-<from>-<to>.qlog`, and a number behind it when an earlier attempt left one.
fn quarantine_name<D: Disk>(
    disk: &D,
    epoch: CutEpoch,
    from: Position,
    to: Position,
) -> io::Result<String> {
    let names = disk.list()?;
    let stem = format!("quarantine/{:08x}-{:016x}-{:016x}", epoch.0, from.0, to.0);
    let mut name = format!("{stem}.qlog");
    let mut number = 1;
    while names.contains(&name) {
        name = format!("{stem}-{number}.qlog");
        number += 1;
    }
    Ok(name)
}

/// Takes the suffix out of the durable files.
fn cut_files<D: Disk>(disk: &D, cut: &Cut) -> Result<(), SyncFailure> {
    let (at, durable, segment_bytes) = (cut.at.position, cut.durable, cut.segment_bytes);
    let sealed = seal_base(at, cut.log_start, segment_bytes);
    let first = at.segment_base(segment_bytes);
    if at > first {
        let mut file = open(disk, first)?;
        let until = durable.min(first.plus(segment_bytes));
        write_zeroes(&mut file, file_offset(first, at), file_offset(first, until))
            .map_err(failed("cutting", first))?;
        file.sync().map_err(failed("syncing", first))?;
    }
    seal_cut(disk, cut, sealed)?;
    let mut base = if at > first { first.plus(segment_bytes) } else { first };
    while base < durable {
        let mut file = open(disk, base)?;
        // The seal of a log that is cut to nothing stands in the first file's page.
        let from = if base == sealed { SEGMENT_HEADER_BYTES as u64 } else { 0 };
        let until = durable.min(base.plus(segment_bytes));
        write_zeroes(&mut file, from, file_offset(base, until)).map_err(failed("cutting", base))?;
        file.sync().map_err(failed("syncing", base))?;
        base = base.plus(segment_bytes);
    }
    Ok(())
}

fn seal_cut<D: Disk>(disk: &D, cut: &Cut, sealed: Position) -> Result<(), SyncFailure> {
    let seal = Seal {
        number: cut.seal_number,
        epoch: cut.epoch,
        certain: cut.at,
        claimed: cut.at,
        known_commit: cut.commit.min(Commit(cut.at.position)),
    };
    let mut file = open(disk, sealed)?;
    if cut.at.position == cut.log_start {
        // Nothing has been written to this file yet, or nothing is left of it: its page says whose it is.
        let header = SegmentHeader {
            content: Content::Segment,
            group: cut.group,
            generation: cut.generation,
            segment_bytes: cut.segment_bytes,
            before: cut.at,
            cut_epoch: cut.epoch,
        };
        write_header(&mut file, &header).map_err(failed("writing the header of", sealed))?;
    }
    write_seal(&mut file, &seal, cut.group).map_err(failed("sealing", sealed))?;
    file.sync().map_err(failed("syncing", sealed))
}

fn open<D: Disk>(disk: &D, base: Position) -> Result<D::File, SyncFailure> {
    disk.open(&segment_name(base)).map_err(failed("opening", base))
}

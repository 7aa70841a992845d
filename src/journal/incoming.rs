//! A snapshot that comes from another node, with the log that leads up to it.
//!
//! What is sent is one run of bytes: the snapshot's file as it is; then the file of the segment in which the snapshot's last
//! entry lies, header page and all, up to the end of that entry. So a node that takes it has what any node has whose older
//! segments have left: a log that begins with a segment, and a snapshot that covers what is before.
//!
//! Nothing of it is believed: every block is checked as it comes, against the stamp and the block before it, and the log's
//! frames must chain from the segment's header page to the very entry of the stamp. All of it is on the disk, under other
//! names, before the node is stopped for it ([`adopt`]) and its next start puts it in place of what it had ([`install`]).
//!
//! ```text
//! incoming/<position>.qsnap.part    blocks that were checked; taken up again by the next process
//! incoming/<base>.qlog.part         the log, checked when it is whole
//! incoming/<base>.qlog              decided: once the next is there too
//! incoming/<position>.qsnap         decided: the next start installs it
//! ```

#[cfg(test)]
mod tests;

use core::cmp::Ordering;
use std::io::{self, ErrorKind};

use super::memory::{Disk, DurableFile, parse_segment_name, segment_name};
use super::quarantine_name;
use super::reader::{FileBytes, follow_chain};
use super::seal::Seal;
use super::segment_file::{file_bytes, seal_base, write_seal, write_zeroes};
use super::segment_header::{Content, SegmentHeader};
use super::snapshot::{
    BlockCheck, SNAPSHOT_PAGE_BYTES, SnapshotReader, Stamp, parse_snapshot_name, snapshot_name,
    snapshots,
};
use crate::frame::Predecessor;
use crate::limits::{SEGMENT_HEADER_BYTES, SNAPSHOT_BLOCK_BYTES};
pub use crate::link::{SnapshotPiece as Piece, SnapshotTaken as Taken};
use crate::mutants::{Mutant, Mutants};
use crate::types::{Commit, CutEpoch, GroupId, Position};

/// Folder of what is coming in, in the data directory.
pub const INCOMING_FOLDER: &str = "incoming/";
/// Ending of what is not decided.
const PART_SUFFIX: &str = ".part";
/// Bytes written between two syncs.
const SYNC_BYTES: u64 = 1024 * 1024;

/// Whose logs they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IncomingSettings {
    /// Group.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// Rules taken out, to prove that this is noticed.
    pub mutants: Mutants,
}

impl IncomingSettings {
    /// All rules stand.
    #[must_use]
    pub const fn new(group: GroupId, segment_bytes: u64) -> Self {
        Self { group, segment_bytes, mutants: Mutants::NONE }
    }
}

/// Base of the segment that goes with a snapshot at `position`.
fn base_of(position: Position, segment_bytes: u64) -> Position {
    seal_base(position, Position(0), segment_bytes)
}

/// Bytes of the segment's file that go with it.
fn log_bytes(position: Position, segment_bytes: u64) -> u64 {
    SEGMENT_HEADER_BYTES as u64 + position.since(base_of(position, segment_bytes))
}

/// Bytes of the whole.
fn total_bytes(stamp: &Stamp, position: Position, segment_bytes: u64) -> u64 {
    stamp.file_bytes().saturating_add(log_bytes(position, segment_bytes))
}

/// What a node sends of its newest snapshot at or below `at_most`, from byte `from` on: at most `bytes` bytes. Of one that it
/// has no longer nothing is sent, but the beginning of the next older one.
///
/// # Errors
/// The host's.
pub fn read_piece<D: Disk>(
    disk: &D,
    settings: &IncomingSettings,
    at_most: Position,
    from: u64,
    bytes: u64,
) -> io::Result<Piece> {
    let IncomingSettings { group, segment_bytes, .. } = *settings;
    let below = snapshots(disk)?.into_iter().rev().filter(|&position| position <= at_most);
    for position in below {
        // One whose stamp is damaged is nobody's.
        let Ok(reader) = SnapshotReader::open(disk, group, position) else { continue };
        let snapshot = reader.stamp().file_bytes();
        let total = total_bytes(reader.stamp(), position, segment_bytes);
        let from = if position == at_most { from.min(total) } else { 0 };
        let length = bytes.min(total - from);
        let mut piece = vec![0; length as usize];
        let of_snapshot = snapshot.saturating_sub(from).min(length) as usize;
        let (head, rest) = piece.split_at_mut(of_snapshot);
        let mut whole = disk.open(&snapshot_name(position))?.read_at(head, from)? == head.len();
        if !rest.is_empty() {
            let name = segment_name(base_of(position, segment_bytes));
            let offset = from.max(snapshot) - snapshot;
            whole &= disk.open(&name)?.read_at(rest, offset)? == rest.len();
        }
        if whole {
            return Ok(Piece { position, total, from, bytes: piece });
        }
    }
    Ok(Piece { position: Position(0), total: 0, from: 0, bytes: Vec::new() })
}

/// What is coming in: one snapshot at a time.
#[derive(Debug)]
pub struct Incoming<F> {
    settings: IncomingSettings,
    open: Option<Open<F>>,
}

#[derive(Debug)]
struct Open<F> {
    position: Position,
    total: u64,
    /// Bytes taken.
    end: u64,
    /// Of those, the last ones, which are no whole block yet.
    rest: Vec<u8>,
    stamp: Option<Stamp>,
    blocks: BlockCheck,
    snapshot: F,
    segment: Option<F>,
    unsynced: u64,
}

/// Why a piece is not taken.
enum Wrong {
    Damaged,
    Host(io::Error),
}

impl From<io::Error> for Wrong {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

impl<F: DurableFile> Incoming<F> {
    /// Nothing is open yet.
    #[must_use]
    pub fn new(settings: IncomingSettings) -> Self {
        Self { settings, open: None }
    }

    /// What is here, also from an earlier life of the process: blocks that are good.
    ///
    /// # Errors
    /// The host's.
    pub fn resume<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<Taken> {
        if self.open.is_none() {
            let part = |name: &String| {
                let bare = name.strip_prefix(INCOMING_FOLDER)?.strip_suffix(PART_SUFFIX)?;
                parse_snapshot_name(&format!("snapshots/{bare}"))
            };
            if let Some(position) = disk.list()?.iter().find_map(part) {
                self.take_up(disk, position)?;
            }
        }
        Ok(match &self.open {
            None => Taken::Part { position: Position(0), total: 0, end: 0 },
            Some(open) if open.end == open.total => Taken::Whole(open.position),
            Some(Open { position, total, end, .. }) => {
                Taken::Part { position: *position, total: *total, end: *end }
            }
        })
    }

    /// Goes on with what an earlier process left: as far as its blocks are good.
    fn take_up<D: Disk<File = F>>(&mut self, disk: &D, position: Position) -> io::Result<()> {
        let file = disk.open(&part_name(position))?;
        let length = file.length()?;
        let mut piece = vec![0; SNAPSHOT_PAGE_BYTES];
        let read = file.read_at(&mut piece, 0)?;
        let Ok(stamp) = Stamp::decode(&piece[..read]) else { return self.discard(disk) };
        let total = total_bytes(&stamp, position, self.settings.segment_bytes);
        self.begin(disk, position, total)?;
        let mut from = 0;
        loop {
            let open = self.open.as_ref().map_or(0, |open| open.end);
            match self.take(disk, &Piece { position, total, from, bytes: piece }) {
                Ok(Taken::Part { end, .. }) if end > open => from = end,
                _ => break,
            }
            let stop = length.min(self.snapshot_bytes());
            let wanted = stop.saturating_sub(from).min(SNAPSHOT_BLOCK_BYTES as u64) as usize;
            if wanted == 0 {
                break;
            }
            piece = vec![0; wanted];
            if file.read_at(&mut piece, from)? < wanted {
                break;
            }
        }
        // What is no whole block is asked for again.
        if let Some(open) = &mut self.open {
            open.end -= open.rest.len() as u64;
            open.rest.clear();
        }
        Ok(())
    }

    fn snapshot_bytes(&self) -> u64 {
        let stamp = self.open.as_ref().and_then(|open| open.stamp.as_ref());
        stamp.map_or(u64::MAX, Stamp::file_bytes)
    }

    /// Nothing that came in is kept.
    ///
    /// # Errors
    /// The host's.
    pub fn discard<D: Disk<File = F>>(&mut self, disk: &D) -> io::Result<()> {
        self.open = None;
        let names = disk.list()?;
        let parts = names.iter().filter(|name| name.starts_with(INCOMING_FOLDER) && is_part(name));
        parts.map(String::as_str).try_for_each(|name| disk.remove(name))?;
        disk.sync_directory()
    }

    fn begin<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        position: Position,
        total: u64,
    ) -> io::Result<()> {
        let name = part_name(position);
        let keep = disk.list()?.contains(&name);
        if !keep {
            self.discard(disk)?;
        }
        let snapshot = if keep { disk.open(&name)? } else { disk.create(&name)? };
        self.open = Some(Open {
            position,
            total,
            end: 0,
            rest: Vec::new(),
            stamp: None,
            blocks: BlockCheck::default(),
            snapshot,
            segment: None,
            unsynced: 0,
        });
        Ok(())
    }

    /// Takes a piece, if it is the one that comes next: the first piece of another snapshot begins anew.
    ///
    /// # Errors
    /// The host's: what could not be written is asked for again.
    pub fn take<D: Disk<File = F>>(&mut self, disk: &D, piece: &Piece) -> io::Result<Taken> {
        let known = self
            .open
            .as_ref()
            .is_some_and(|open| (open.position, open.total) == (piece.position, piece.total));
        if !known {
            if piece.from > 0 {
                return self.resume(disk);
            }
            self.discard(disk)?;
            self.begin(disk, piece.position, piece.total)?;
        }
        let settings = self.settings;
        let Some(open) = &mut self.open else { return self.resume(disk) };
        if piece.from == open.end {
            match open.take(disk, &settings, &piece.bytes) {
                Ok(()) => {}
                Err(Wrong::Damaged) => {
                    self.discard(disk)?;
                    return Ok(Taken::Damaged(piece.position));
                }
                Err(Wrong::Host(error)) => {
                    self.open = None; // what is on the disk is looked at anew
                    return Err(error);
                }
            }
            if open.end == open.total {
                return Ok(Taken::Whole(open.position));
            }
        }
        Ok(Taken::Part { position: open.position, total: open.total, end: open.end })
    }
}

impl<F: DurableFile> Open<F> {
    fn take<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        settings: &IncomingSettings,
        bytes: &[u8],
    ) -> Result<(), Wrong> {
        if bytes.len() as u64 > self.total - self.end {
            return Err(Wrong::Damaged);
        }
        self.end += bytes.len() as u64;
        self.rest.extend_from_slice(bytes);
        while let Some(unit) = self.next_unit(settings)? {
            let rest = self.rest.split_off(unit);
            let whole = core::mem::replace(&mut self.rest, rest);
            let at = self.end - (whole.len() + self.rest.len()) as u64;
            self.keep(disk, settings, at, &whole)?;
        }
        if self.end == self.total {
            self.finish(settings)?;
        }
        Ok(())
    }

    /// Bytes at the start of `rest` that can be judged on their own.
    fn next_unit(&self, settings: &IncomingSettings) -> Result<Option<usize>, Wrong> {
        let at = self.end - self.rest.len() as u64;
        let unit = match &self.stamp {
            None => SNAPSHOT_PAGE_BYTES as u64,
            Some(stamp) => {
                let snapshot = stamp.file_bytes();
                if self.total != total_bytes(stamp, self.position, settings.segment_bytes) {
                    return Err(Wrong::Damaged);
                }
                match at.cmp(&snapshot) {
                    Ordering::Less => (SNAPSHOT_BLOCK_BYTES as u64).min(snapshot - at),
                    Ordering::Equal => SEGMENT_HEADER_BYTES as u64,
                    Ordering::Greater => (self.rest.len() as u64).min(self.total - at),
                }
            }
        };
        Ok(Some(unit as usize).filter(|&unit| unit > 0 && unit <= self.rest.len()))
    }

    /// Judges a unit and writes it.
    fn keep<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        settings: &IncomingSettings,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), Wrong> {
        let Some(stamp) = &self.stamp else {
            let stamp = Stamp::decode(bytes).map_err(|_| Wrong::Damaged)?;
            if stamp.group != settings.group || stamp.before.position != self.position {
                return Err(Wrong::Damaged);
            }
            self.blocks = BlockCheck::of(&stamp);
            self.snapshot.write_at(bytes, 0)?;
            self.stamp = Some(stamp);
            return Ok(());
        };
        let snapshot = stamp.file_bytes();
        if at < snapshot {
            let good = self.blocks.next(bytes) || settings.mutants.has(Mutant::TakeUnverified);
            let last = at + bytes.len() as u64 == snapshot;
            let ends = !last || self.blocks.is_whole(stamp);
            if !good || !(ends || settings.mutants.has(Mutant::TakeUnverified)) {
                return Err(Wrong::Damaged);
            }
            self.snapshot.write_at(bytes, at)?;
            self.unsynced += bytes.len() as u64;
            if self.unsynced >= SYNC_BYTES || last {
                self.unsynced = 0;
                self.snapshot.sync()?;
            }
            return Ok(());
        }
        if self.segment.is_none() {
            let base = base_of(self.position, settings.segment_bytes);
            let name = format!("{INCOMING_FOLDER}{}{PART_SUFFIX}", segment_name(base));
            if disk.list()?.contains(&name) {
                disk.remove(&name)?;
            }
            self.segment = Some(disk.create(&name)?);
        }
        if let Some(segment) = &mut self.segment {
            segment.write_at(bytes, at - snapshot)?;
        }
        Ok(())
    }

    /// The log must lead up to the entry of the stamp; then all of it is made durable.
    fn finish(&mut self, settings: &IncomingSettings) -> Result<(), Wrong> {
        let (Some(stamp), Some(segment)) = (&self.stamp, &mut self.segment) else {
            return Err(Wrong::Damaged);
        };
        let base = base_of(self.position, settings.segment_bytes);
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let read = segment.read_at(&mut page, 0)?;
        let header = SegmentHeader::decode_segment(
            &page[..read],
            settings.group,
            settings.segment_bytes,
            base,
        );
        let header = header.map_err(|_| Wrong::Damaged)?;
        let end = follow_chain(
            FileBytes { base, file: &*segment },
            settings.segment_bytes,
            header.before,
            header.generation,
            self.position,
        );
        let unverified = settings.mutants.has(Mutant::TakeUnverified);
        if end.tail != stamp.before && !unverified {
            return Err(Wrong::Damaged);
        }
        // The source's seals speak of the source's disk.
        let header = SegmentHeader { content: Content::Segment, ..header };
        segment.write_at(&header.encode(), 0)?;
        let written = SEGMENT_HEADER_BYTES as u64 + self.position.since(base);
        write_zeroes(segment, written, file_bytes(settings.segment_bytes))?;
        segment.sync()?;
        self.snapshot.sync()?;
        Ok(())
    }
}

fn part_name(position: Position) -> String {
    format!("{}{PART_SUFFIX}", decided_name(position))
}

fn decided_name(position: Position) -> String {
    snapshot_name(position).replacen("snapshots/", INCOMING_FOLDER, 1)
}

fn is_part(name: &str) -> bool {
    name.strip_suffix(PART_SUFFIX).is_some()
}

/// The snapshot at `position`, of which all is here, takes the place of the log: at the next start, come what may. The node
/// has stopped.
///
/// # Errors
/// The host's: perhaps it is decided all the same.
pub fn adopt<D: Disk>(disk: &D, segment_bytes: u64, position: Position) -> io::Result<()> {
    let segment = format!("{INCOMING_FOLDER}{}", segment_name(base_of(position, segment_bytes)));
    disk.rename(&format!("{segment}{PART_SUFFIX}"), &segment)?;
    disk.sync_directory()?;
    disk.rename(&part_name(position), &decided_name(position))?;
    disk.sync_directory()
}

/// Puts a snapshot that was decided upon, and the log that leads up to it, in the place of the log that is here: before
/// recovery looks at it. `epoch` counts the cuts that this node has recorded. Returns its position, if there was one.
///
/// What of the old log was not known as committed goes to `quarantine/`. A crash at any point leaves what the next start goes on
/// with.
///
/// # Errors
/// The host's, or `InvalidData` if what is there is not what was decided.
pub fn install<D: Disk>(
    disk: &D,
    settings: &IncomingSettings,
    epoch: CutEpoch,
) -> io::Result<Option<Position>> {
    let names = disk.list()?;
    let decided = |name: &String| {
        let bare = name.strip_prefix(INCOMING_FOLDER)?;
        parse_snapshot_name(&format!("snapshots/{bare}"))
    };
    let Some(position) = names.iter().find_map(decided) else { return Ok(None) };
    let base = base_of(position, settings.segment_bytes);
    let segment = format!("{INCOMING_FOLDER}{}", segment_name(base));
    if names.contains(&segment) {
        if !is_whole(disk, settings, position)? {
            // It rotted since it was taken. The old log is still here, and it can be taken again.
            for name in [decided_name(position), segment] {
                let kept = quarantine_name(&disk.list()?, &name[INCOMING_FOLDER.len()..]);
                disk.rename(&name, &kept)?;
            }
            disk.sync_directory()?;
            return Ok(None);
        }
        seal(disk, settings, &segment, &decided_name(position), epoch)?;
        clear(disk, settings, &names)?;
        disk.rename(&segment, &segment_name(base))?;
        disk.sync_directory()?;
    }
    for old in snapshots(disk)? {
        disk.remove(&snapshot_name(old))?;
    }
    disk.rename(&decided_name(position), &snapshot_name(position))?;
    disk.sync_directory()?;
    Ok(Some(position))
}

/// Whether what was decided is still what was taken: before the old log goes for it.
fn is_whole<D: Disk>(
    disk: &D,
    settings: &IncomingSettings,
    position: Position,
) -> io::Result<bool> {
    let (base, snapshot) = (base_of(position, settings.segment_bytes), decided_name(position));
    let file = disk.open(&snapshot)?;
    let mut bytes = vec![0; SNAPSHOT_PAGE_BYTES.max(SNAPSHOT_BLOCK_BYTES)];
    let read = file.read_at(&mut bytes[..SNAPSHOT_PAGE_BYTES], 0)?;
    let Ok(stamp) = Stamp::decode(&bytes[..read]) else { return Ok(false) };
    let (mut blocks, mut at) = (BlockCheck::of(&stamp), SNAPSHOT_PAGE_BYTES as u64);
    while at < stamp.file_bytes() {
        let want = (stamp.file_bytes() - at).min(SNAPSHOT_BLOCK_BYTES as u64) as usize;
        let read = file.read_at(&mut bytes[..want], at)?;
        if read < want || !blocks.next(&bytes[..want]) {
            return Ok(false);
        }
        at += want as u64;
    }
    let segment = disk.open(&format!("{INCOMING_FOLDER}{}", segment_name(base)))?;
    let mut page = [0; SEGMENT_HEADER_BYTES];
    let read = segment.read_at(&mut page, 0)?;
    let (group, segment_bytes) = (settings.group, settings.segment_bytes);
    let header = SegmentHeader::decode_segment(&page[..read], group, segment_bytes, base);
    let log = FileBytes { base, file: &segment };
    Ok(blocks.is_whole(&stamp)
        && header.is_ok_and(|header| {
            let SegmentHeader { before, generation, .. } = header;
            follow_chain(log, segment_bytes, before, generation, position).tail == stamp.before
        }))
}

/// The segment says that this node has all of it on its disk, and that it is committed.
fn seal<D: Disk>(
    disk: &D,
    settings: &IncomingSettings,
    segment: &str,
    snapshot: &str,
    epoch: CutEpoch,
) -> io::Result<()> {
    let mut page = vec![0; SNAPSHOT_PAGE_BYTES];
    let read = disk.open(snapshot)?.read_at(&mut page, 0)?;
    let stamp = Stamp::decode(&page[..read])
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, format!("{snapshot}: {error}")))?;
    let end: Predecessor = stamp.before;
    let seal =
        Seal { number: 1, epoch, certain: end, claimed: end, known_commit: Commit(end.position) };
    let mut file = disk.open(segment)?;
    write_seal(&mut file, &seal, settings.group)?;
    file.sync()
}

/// The old log goes: what was not known as committed is kept aside.
fn clear<D: Disk>(disk: &D, settings: &IncomingSettings, names: &[String]) -> io::Result<()> {
    let bases: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    let mut newest: Option<Seal> = None;
    let mut written = Vec::new();
    for &base in &bases {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let read = disk.open(&segment_name(base))?.read_at(&mut page, 0)?;
        if page[..read].iter().any(|&byte| byte != 0) {
            written.push(base);
        }
        let seal = Seal::newest(&page, settings.group);
        newest = newest.into_iter().chain(seal).max_by_key(Seal::order);
    }
    let committed = newest.map_or(Position(0), |seal| seal.known_commit.position());
    for base in bases {
        let name = segment_name(base);
        if written.contains(&base) && base.plus(settings.segment_bytes) > committed {
            disk.rename(&name, &quarantine_name(&disk.list()?, &name))?;
        } else {
            disk.remove(&name)?;
        }
    }
    disk.sync_directory()
}

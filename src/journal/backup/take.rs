//! Taking a backup beside a node that may be running.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;

use super::check::{Flaw, snapshot};
use super::manifest::{FileSum, MANIFEST_NAME, Manifest};
use super::{BackupError, FollowError, Pace, Place, copy, failed, follow, seal_at, sum};
use crate::frame::Predecessor;
use crate::journal::memory::{Disk, DurableFile, parse_segment_name, segment_name};
use crate::journal::segment_file::{file_bytes, file_offset, seal_base, write_seal};
use crate::journal::segment_header::{Content, SegmentHeader};
use crate::journal::snapshot::{parse_snapshot_name, snapshot_name, snapshots, verify};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::{GroupId, NodeId, Position, Timestamp};

/// Snapshots in a backup: should the newest be damaged one day, the one before it is as good.
const SNAPSHOTS: usize = 2;
/// Segment files held open at once, lest they leave before their turn: those that leave first.
const HELD_MAX: usize = 256;
/// How often it is tried before it is said that files leave too fast.
const ATTEMPTS_MAX: u32 = 8;

/// What is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taking {
    /// Whose log.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// Of which node.
    pub node: NodeId,
    /// What is below it is committed, and on the disk.
    pub limit: Position,
    /// When.
    pub taken: Timestamp,
}

/// What was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Taken {
    /// The backup.
    pub manifest: Manifest,
    /// Snapshots that are not in it, because they are damaged.
    pub left_out: Vec<Flaw>,
}

/// Takes a backup of the log in `from` into `to`, which holds nothing yet. All of it is durable when this returns, but for
/// the name of the directory. When the work begins anew, `limit` says up to where everything is committed and on the disk by
/// then; nothing: as before.
///
/// # Errors
/// [`BackupError`]: there is no manifest then, so what is there is no backup.
pub fn take<S: Disk, T: Disk>(
    from: &S,
    to: &T,
    taking: &Taking,
    limit: &mut dyn FnMut() -> Option<Position>,
    pace: &mut Pace<'_>,
) -> Result<Taken, BackupError> {
    let mut taking = *taking;
    for _ in 0..ATTEMPTS_MAX {
        for name in to.list().map_err(failed("listing", "the backup"))? {
            if parse_segment_name(&name).is_some() || parse_snapshot_name(&name).is_some() {
                to.remove(&name).map_err(failed("removing", &name))?;
            }
        }
        let mut attempt =
            Attempt { from, to, taking: &taking, pace: &mut *pace, left_out: Vec::new() };
        if let Some(manifest) = attempt.run()? {
            return Ok(Taken { manifest, left_out: attempt.left_out });
        }
        taking.limit = limit().map_or(taking.limit, |now| now.max(taking.limit));
    }
    Err(BackupError::Left { attempts: ATTEMPTS_MAX })
}

/// A segment or a snapshot that is held open, and its position.
type Opened<S> = (Position, <S as Disk>::File);

struct Attempt<'a, 'p, S, T> {
    from: &'a S,
    to: &'a T,
    taking: &'a Taking,
    pace: &'a mut Pace<'p>,
    left_out: Vec<Flaw>,
}

impl<S: Disk, T: Disk> Attempt<'_, '_, S, T> {
    /// None: something left before it was copied.
    fn run(&mut self) -> Result<Option<Manifest>, BackupError> {
        let Taking { group, segment_bytes, node, limit, taken } = *self.taking;
        let names = self.from.list().map_err(failed("listing", "the data directory"))?;
        let mut bases: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
        bases.retain(|&base| base < limit);
        bases.sort_unstable();
        let Some(&lowest) = bases.first() else { return Err(BackupError::Nothing) };
        let Some(opened) = self.open_snapshots(lowest)? else { return Ok(None) };
        let base_of = |at| seal_base(at, lowest, segment_bytes).max(lowest);
        // What will be needed if they are good is held before they are copied, which takes its time.
        let needed = opened.get(SNAPSHOTS - 1).map_or(lowest, |&(at, _)| base_of(at));
        let mut held = self.hold(bases.iter().copied().filter(|&base| base >= needed))?;
        let stamps = self.snapshots(opened)?;
        let oldest = stamps.first().filter(|_| stamps.len() == SNAPSHOTS);
        let first = oldest.map_or(lowest, |&at| base_of(at));
        if first > Position(0) && stamps.is_empty() {
            return Err(BackupError::NoStart { first });
        }
        bases.retain(|&base| base >= first);
        let mut ends: BTreeMap<_, _> = stamps.iter().map(|&at| (at, None)).collect();
        if first != needed {
            held.clear();
        }
        let Some((files, end)) = self.segments(&bases, held, &mut ends)? else { return Ok(None) };
        let mut manifest = Manifest {
            group,
            segment_bytes,
            node,
            taken,
            first,
            end: end.before,
            generation: end.generation,
            files,
        };
        for (&position, &end) in &ends {
            // It was read to its end before: what can be wrong now is the log.
            if let Some(flaw) = snapshot(self.to, group, position, end, self.pace) {
                return Err(BackupError::Damaged(vec![flaw]));
            }
            let name = snapshot_name(position);
            manifest.files.push(self.summed(&name)?);
        }
        self.write_manifest(&manifest)?;
        Ok(Some(manifest))
    }

    /// Opens the snapshots, newest first. None: one left before it was opened, or all of them for such that lie above the limit.
    fn open_snapshots(&self, lowest: Position) -> Result<Option<Vec<Opened<S>>>, BackupError> {
        let mut positions = snapshots(self.from).map_err(failed("listing", "the snapshots"))?;
        positions.retain(|&at| at >= lowest);
        let all = positions.len();
        positions.retain(|&at| at <= self.taking.limit);
        if positions.is_empty() && all > 0 && lowest > Position(0) {
            return Ok(None);
        }
        let mut opened = Vec::new();
        for &position in positions.iter().rev() {
            let name = snapshot_name(position);
            match self.from.open(&name) {
                Ok(file) => opened.push((position, file)),
                // A newer one has taken its place.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed("opening", &name)(error)),
            }
        }
        Ok(Some(opened))
    }

    /// Opens segments, as many as are held at once. One that has left is not among them.
    fn hold(
        &self,
        bases: impl Iterator<Item = Position>,
    ) -> Result<VecDeque<Opened<S>>, BackupError> {
        let mut held = VecDeque::new();
        for base in bases.take(HELD_MAX) {
            let name = segment_name(base);
            match self.from.open(&name) {
                Ok(file) => held.push_back((base, file)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed("opening", &name)(error)),
            }
        }
        Ok(held)
    }

    /// Copies the newest good snapshots; their positions, oldest first.
    fn snapshots(&mut self, opened: Vec<Opened<S>>) -> Result<Vec<Position>, BackupError> {
        let mut kept = Vec::new();
        for (position, file) in opened {
            if kept.len() < SNAPSHOTS && self.snapshot(position, &file)? {
                kept.push(position);
            }
        }
        kept.reverse();
        Ok(kept)
    }

    /// Copies one, and reads the copy to its end. False: it is damaged, and not kept.
    fn snapshot(&mut self, position: Position, file: &S::File) -> Result<bool, BackupError> {
        let name = snapshot_name(position);
        let mut target = self.to.create(&name).map_err(failed("creating", &name))?;
        let copied = file
            .length()
            .and_then(|length| copy(file, &mut target, 0, length, self.pace))
            .and_then(|()| target.sync());
        copied.map_err(failed("copying", &name))?;
        drop(target);
        let pace = &mut *self.pace;
        let Err(error) = verify(self.to, self.taking.group, position, &mut |bytes| pace(bytes))
        else {
            return Ok(true);
        };
        self.left_out.push(Flaw::new(&name, error));
        self.to.remove(&name).map_err(failed("removing", &name))?;
        Ok(false)
    }

    /// Copies the segments. None: one left before its turn.
    fn segments(
        &mut self,
        bases: &[Position],
        mut held: VecDeque<Opened<S>>,
        ends: &mut BTreeMap<Position, Option<Predecessor>>,
    ) -> Result<Option<(Vec<FileSum>, Place)>, BackupError> {
        if held.iter().zip(bases).any(|((base, _), wanted)| base != wanted) {
            return Ok(None);
        }
        let mut waiting = bases.iter().copied().skip(held.len());
        let mut files = Vec::new();
        let mut end: Option<Place> = None;
        loop {
            while held.len() < HELD_MAX
                && let Some(base) = waiting.next()
            {
                let name = segment_name(base);
                match self.from.open(&name) {
                    Ok(file) => held.push_back((base, file)),
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(failed("opening", &name)(error)),
                }
            }
            let Some((base, source)) = held.pop_front() else { break };
            let last = held.is_empty();
            let place = self.segment(base, &source, end, last, ends)?;
            files.push(self.summed(&segment_name(base))?);
            end = Some(place);
        }
        Ok(end.map(|end| (files, end)))
    }

    /// Copies one segment, and follows the chain through the copy; the last one gets the seal.
    fn segment(
        &mut self,
        base: Position,
        source: &S::File,
        led_to: Option<Place>,
        last: bool,
        ends: &mut BTreeMap<Position, Option<Predecessor>>,
    ) -> Result<Place, BackupError> {
        let Taking { group, segment_bytes, limit, .. } = *self.taking;
        let name = segment_name(base);
        let flaw = |what: String| BackupError::Damaged(vec![Flaw::new(&name, what)]);
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let read = source.read_at(&mut page, 0).map_err(failed("reading", &name))?;
        let header = SegmentHeader::decode_segment(&page[..read], group, segment_bytes, base)
            .map_err(|error| flaw(error.to_string()))?;
        let follows = match led_to {
            Some(place) => place.before == header.before,
            None => base > Position(0) || header.before == Predecessor::genesis(group),
        };
        if !follows {
            return Err(flaw("it does not follow from what is before it".to_owned()));
        }
        let mut target = self.to.create(&name).map_err(failed("creating", &name))?;
        // The node's seals speak of the node's disk.
        let plain = SegmentHeader { content: Content::Segment, ..header };
        let payload_end = file_offset(base, limit.min(base.plus(segment_bytes)));
        target
            .write_at(&plain.encode(), 0)
            .and_then(|()| {
                copy(source, &mut target, SEGMENT_HEADER_BYTES as u64, payload_end, self.pace)
            })
            .and_then(|()| target.set_length(file_bytes(segment_bytes)))
            .map_err(failed("copying", &name))?;
        let mut note = |at: Predecessor| {
            if let Some(end) = ends.get_mut(&at.position) {
                *end = Some(at);
            }
        };
        note(header.before);
        let place = follow(&target, &header, limit, |_, before| {
            note(before);
            Ok(())
        });
        let place = match place {
            Ok(place) if last || place.before.position == base.plus(segment_bytes) => place,
            Ok(place) => return Err(flaw(format!("the log ends at {}", place.before.position))),
            Err(FollowError::Log(trouble)) => return Err(flaw(trouble.to_string())),
            Err(FollowError::Each(error)) => return Err(flaw(error.to_string())),
        };
        if place.before.position < limit.min(base.plus(segment_bytes)) {
            // The beginning of an entry that ends above the limit: it is not part of this.
            let end = file_offset(base, place.before.position);
            let cut = target.set_length(end);
            cut.and_then(|()| target.set_length(file_bytes(segment_bytes)))
                .map_err(failed("cutting", &name))?;
        }
        if last {
            let seal = seal_at(place.before, header.cut_epoch);
            write_seal(&mut target, &seal, group).map_err(failed("sealing", &name))?;
        }
        target.sync().map_err(failed("syncing", &name))?;
        Ok(place)
    }

    fn summed(&mut self, name: &str) -> Result<FileSum, BackupError> {
        let file = self.to.open(name).map_err(failed("opening", name))?;
        // What was just written is read from memory: it waits for nobody.
        let (bytes, crc) = sum(&file, &mut |_| Ok(())).map_err(failed("reading", name))?;
        Ok(FileSum { name: name.to_owned(), bytes, crc })
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), BackupError> {
        self.to.sync_directory().map_err(failed("syncing", "the backup"))?;
        let mut file = self.to.create(MANIFEST_NAME).map_err(failed("creating", MANIFEST_NAME))?;
        file.write_at(manifest.encode().as_bytes(), 0)
            .and_then(|()| file.sync())
            .and_then(|()| self.to.sync_directory())
            .map_err(failed("writing", MANIFEST_NAME))
    }
}

//! Makes the disk say what the examination found: cut bytes kept aside, everything else in good files, sealed and certain.

use super::damage;
use super::report::{CutReport, RecoveryReport};
use super::scan::{NEW_SUFFIX, READ_BYTES, Scan};
use super::{RecoveryError, RecoverySettings, io_error};
use crate::frame::Predecessor;
use crate::journal::cut::quarantine;
use crate::journal::memory::{Disk, DurableFile, SegmentMemory, segment_name};
use crate::journal::recovery_table::{Decision, Finding};
use crate::journal::seal::Seal;
use crate::journal::segment_file::{file_bytes, file_offset, seal_base, write_seal, write_zeroes};
use crate::journal::segment_header::{Content, SegmentHeader};
use crate::types::{Commit, Generation, Position};

/// Does it; returns the number of the newest seal.
pub(super) fn settle<D: Disk, M: SegmentMemory, V>(
    disk: &D,
    settings: &RecoverySettings,
    scan: &Scan<M, V>,
    report: &mut RecoveryReport,
) -> Result<u64, RecoveryError> {
    let settling = Settling { disk, settings, scan };
    report.cut = settling.keep_aside()?;
    report.moved = settling.move_strays()?;
    for name in &scan.leftovers {
        disk.remove(name).map_err(io_error("removing", name))?;
    }
    let mut seal_number = scan.marks.seal_number;
    if settling.is_settled() {
        settling.remove_above()?;
    } else {
        report.rewritten = settling.rewrite()?;
        settling.sync_directory()?;
        settling.remove_above()?;
        settling.sync_directory()?;
        settling.seal()?;
        seal_number += 2;
    }
    settling.prepare_tail()?;
    settling.sync_directory()?;
    Ok(seal_number)
}

struct Settling<'a, D, M, V> {
    disk: &'a D,
    settings: &'a RecoverySettings,
    scan: &'a Scan<M, V>,
}

impl<D: Disk, M: SegmentMemory, V> Settling<'_, D, M, V> {
    /// Base of the file that takes the log's seal: the last one that holds any of it.
    fn last_base(&self) -> Position {
        seal_base(self.scan.tail.position, self.scan.log_start, self.settings.segment_bytes)
    }

    /// Nothing on the disk has to change but for prepared files.
    fn is_settled(&self) -> bool {
        let Scan { marks, tail, files, bases, .. } = self.scan;
        let last = self.last_base();
        marks.limit.is_none()
            && marks.certain == *tail
            && marks.claimed == *tail
            && marks.seal_number > 0
            && self.scan.durable_end == *tail
            && self.scan.beyond.is_none()
            && self.is_whole(last)
            && bases.keys().all(|&base| self.is_whole(base))
            && files.iter().all(|(&base, found)| base <= last || found.blank)
    }

    /// The file has a good header page, not two damaged seals, and all its bytes: a padding frame's zero body is never looked
    /// at, and may be missing.
    fn is_whole(&self, base: Position) -> bool {
        let bytes = file_bytes(self.settings.segment_bytes);
        let found = self.scan.files.get(&base);
        found.is_some_and(|found| {
            found.header.is_some() && !found.seals_lost && found.length == bytes
        })
    }

    /// Saves what is cut to `quarantine/`.
    fn keep_aside(&self) -> Result<Option<CutReport>, RecoveryError> {
        let Scan { tail, stop, decision, .. } = self.scan;
        // What a recorded cut takes away was saved before it was recorded.
        if stop.finding == Finding::CutRecorded {
            return Ok(None);
        }
        let from_hot = stop.finding == Finding::HotBadFrame;
        let end = if from_hot { self.hot_end() } else { self.scan.beyond };
        let Some(end) = end.filter(|&end| end > tail.position) else { return Ok(None) };
        let header = SegmentHeader {
            content: Content::Quarantine,
            group: self.settings.group,
            generation: self.scan.generation(),
            segment_bytes: self.settings.segment_bytes,
            before: *tail,
            cut_epoch: self.scan.marks.epoch,
        };
        let kept = quarantine(self.disk, &header, end, |from, bytes| {
            let length = if from_hot { self.read_hot(from, bytes) } else { self.read(from, bytes) };
            Ok(length)
        });
        let kept_at = kept.map_err(io_error("saving", "the cut bytes"))?.unwrap_or_default();
        let entries = damage::count_entries(self.disk, self.settings, self.scan, end);
        let promised = *decision == Decision::CutProvisional;
        Ok(Some(CutReport { from: tail.position, to: end, entries, kept_at, promised }))
    }

    /// Files that do not adjoin the log go to `quarantine/` as they are.
    fn move_strays(&self) -> Result<Vec<String>, RecoveryError> {
        let names = self.disk.list().map_err(io_error("listing", "the data directory"))?;
        let mut moved = Vec::new();
        for &base in &self.scan.strays {
            let name = segment_name(base);
            let mut kept = format!("quarantine/stray-{name}");
            let mut number = 1;
            while names.contains(&kept) {
                kept = format!("quarantine/stray-{number}-{name}");
                number += 1;
            }
            self.disk.rename(&name, &kept).map_err(io_error("moving", &name))?;
            moved.push(kept);
        }
        Ok(moved)
    }

    /// End of the last byte in the hot segment of the tail that is not zero.
    fn hot_end(&self) -> Option<Position> {
        let base = self.scan.tail.position.segment_base(self.settings.segment_bytes);
        let (memory, _) = self.scan.hot.get(&base)?;
        let offset = self.scan.tail.position.since(base);
        let bytes = memory.bytes(offset, (self.settings.segment_bytes - offset) as usize);
        let last = bytes.iter().rposition(|&byte| byte != 0)?;
        Some(self.scan.tail.position.plus(last as u64 + 1))
    }

    /// Bytes of the durable files as they are; what cannot be read is zero.
    fn read(&self, from: Position, bytes: &mut [u8]) -> usize {
        let base = from.segment_base(self.settings.segment_bytes);
        let left = base.plus(self.settings.segment_bytes).since(from) as usize;
        let length = bytes.len().min(left);
        let file = self.disk.open(&segment_name(base));
        let read =
            file.and_then(|file| file.read_at(&mut bytes[..length], file_offset(base, from)));
        bytes[read.unwrap_or(0)..length].fill(0);
        length
    }

    fn read_hot(&self, from: Position, bytes: &mut [u8]) -> usize {
        let base = from.segment_base(self.settings.segment_bytes);
        let left = base.plus(self.settings.segment_bytes).since(from) as usize;
        let length = bytes.len().min(left);
        if let Some((memory, _)) = self.scan.hot.get(&base) {
            bytes[..length].copy_from_slice(memory.bytes(from.since(base), length));
        }
        length
    }

    /// Writes every file anew that holds anything above what is certain, or that is not whole; in ascending order,
    /// so that a crash leaves good files below old ones.
    fn rewrite(&self) -> Result<Vec<Position>, RecoveryError> {
        let Scan { marks, tail, durable_end, bases, .. } = self.scan;
        let trusted = marks.certain.position.min(durable_end.position).min(tail.position);
        let first = trusted.segment_base(self.settings.segment_bytes).min(self.last_base());
        let last = self.last_base();
        let nothing = (*tail, self.scan.generation());
        let mut rewritten = Vec::new();
        let entered = bases.iter().map(|(&base, &before)| (base, before));
        // A log without entries has a first file all the same: it says whose log this is.
        let empty = bases.is_empty().then_some((last, nothing));
        for (base, (before, generation)) in entered.chain(empty) {
            if base >= first || !self.is_whole(base) {
                self.rewrite_file(base, before, generation, base >= first)?;
                rewritten.push(base);
            }
        }
        Ok(rewritten)
    }

    fn rewrite_file(
        &self,
        base: Position,
        before: Predecessor,
        generation: Generation,
        sealed: bool,
    ) -> Result<(), RecoveryError> {
        let name = segment_name(base);
        let new = format!("{name}{NEW_SUFFIX}");
        let mut file = self.disk.create(&new).map_err(io_error("creating", &new))?;
        let header = SegmentHeader {
            content: Content::Segment,
            group: self.settings.group,
            generation,
            segment_bytes: self.settings.segment_bytes,
            before,
            cut_epoch: self.scan.marks.epoch,
        };
        let written = io_error("writing", &new);
        self.fill_file(&mut file, base, &header, sealed).map_err(written)?;
        drop(file);
        self.disk.rename(&new, &name).map_err(io_error("renaming", &new))
    }

    fn fill_file(
        &self,
        file: &mut D::File,
        base: Position,
        header: &SegmentHeader,
        sealed: bool,
    ) -> std::io::Result<()> {
        let end = base.plus(self.settings.segment_bytes).min(self.scan.tail.position);
        file.write_at(&header.encode(), 0)?;
        if sealed {
            // Until all files are in place this is no more certain than it was.
            write_seal(file, &self.interim_seal(), self.settings.group)?;
        }
        let mut buffer = vec![0; READ_BYTES];
        let mut from = base;
        while from < end {
            let good = self.scan.durable_end.position;
            let (hot, to) = if from < good { (false, end.min(good)) } else { (true, end) };
            let want = (to.since(from) as usize).min(READ_BYTES);
            let bytes = &mut buffer[..want];
            let length = if hot { self.read_hot(from, bytes) } else { self.read(from, bytes) };
            file.write_at(&buffer[..length], file_offset(base, from))?;
            from = from.plus(length as u64);
        }
        let written = file_offset(base, from);
        write_zeroes(file, written, file_bytes(self.settings.segment_bytes))?;
        file.sync()
    }

    fn interim_seal(&self) -> Seal {
        let Scan { marks, tail, .. } = self.scan;
        let lower = |mark: Predecessor| if mark.position < tail.position { mark } else { *tail };
        let claimed = lower(marks.claimed);
        Seal {
            number: marks.seal_number + 1,
            epoch: marks.epoch,
            certain: lower(marks.certain),
            claimed,
            known_commit: marks.commit.min(Commit(claimed.position)),
        }
    }

    /// Everything is in synced files: all of it is certain.
    fn seal(&self) -> Result<(), RecoveryError> {
        let Scan { marks, tail, .. } = self.scan;
        let name = segment_name(self.last_base());
        let seal = Seal {
            number: marks.seal_number + 2,
            epoch: marks.epoch,
            certain: *tail,
            claimed: *tail,
            known_commit: marks.commit.min(Commit(tail.position)),
        };
        let mut file = self.disk.open(&name).map_err(io_error("opening", &name))?;
        write_seal(&mut file, &seal, self.settings.group).map_err(io_error("sealing", &name))?;
        file.sync().map_err(io_error("syncing", &name))
    }

    /// Removes the files above the log: prepared ones, and what has been kept aside.
    fn remove_above(&self) -> Result<(), RecoveryError> {
        let last = self.last_base();
        let above = self.scan.files.keys().filter(|&&base| base > last);
        for &base in above.filter(|base| !self.scan.strays.contains(base)) {
            let name = segment_name(base);
            self.disk.remove(&name).map_err(io_error("removing", &name))?;
        }
        Ok(())
    }

    /// The file for the next frame is there, if the log ends with a full one.
    fn prepare_tail(&self) -> Result<(), RecoveryError> {
        let base = self.scan.tail.position.segment_base(self.settings.segment_bytes);
        if base <= self.last_base() {
            return Ok(());
        }
        let name = segment_name(base);
        let mut file = self.disk.create(&name).map_err(io_error("creating", &name))?;
        write_zeroes(&mut file, 0, file_bytes(self.settings.segment_bytes))
            .and_then(|()| file.sync())
            .map_err(io_error("preparing", &name))
    }

    fn sync_directory(&self) -> Result<(), RecoveryError> {
        self.disk.sync_directory().map_err(io_error("syncing", "the data directory"))
    }
}

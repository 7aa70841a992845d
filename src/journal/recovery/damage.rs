//! Where exactly a log is damaged: from the first frame that cannot be proven to the first that can be again.

use core::fmt;

use super::scan::{Reader, Scan};
use super::{RecoverySettings, Stop};
use crate::frame::{FRAME_VERSION, FrameError, FrameHeader, Kind, Predecessor};
use crate::journal::memory::{Disk, segment_name};
use crate::journal::recovery_table::Finding;
use crate::journal::segment_file::file_offset;
use crate::journal::segment_header::SEAL_OFFSETS;
use crate::limits::{FRAME_ALIGNMENT, FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::types::Position;
use zerocopy::FromBytes;

/// Ranges listed, at most: an operator needs the first ones, and a peer sends whole ranges anyway.
const RANGES_MAX: usize = 64;

/// Bytes of the log that were durable and cannot be proven any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedRange {
    /// The file in which it begins.
    pub file: String,
    /// Where in that file.
    pub offset: u64,
    /// First position that is not proven.
    pub from: Position,
    /// First position behind it at which the chain goes on, or the end of what is certain.
    pub to: Position,
    /// What was found.
    pub finding: Finding,
    /// The rule that the frame there broke, if it is one.
    pub frame: Option<FrameError>,
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, from, to, finding, .. } = self;
        write!(
            f,
            "{file} at byte {offset}: positions {from} to {to} ({} bytes): {}",
            to.since(*from),
            finding.name()
        )?;
        self.frame.map_or(Ok(()), |error| write!(f, " ({error})"))
    }
}

/// All damaged ranges below what is certain.
pub(super) fn ranges<D: Disk, M, V>(
    disk: &D,
    settings: &RecoverySettings,
    scan: &Scan<M, V>,
) -> Vec<DamagedRange> {
    let mut search = Search { reader: Reader::new(disk, settings.segment_bytes), settings, scan };
    let mut ranges = Vec::new();
    if let Some(base) = scan.lost_seals {
        let to = scan.beyond.unwrap_or(scan.tail.position);
        ranges.push(DamagedRange {
            file: segment_name(base),
            offset: SEAL_OFFSETS[0] as u64,
            from: scan.tail.position,
            to,
            finding: Finding::SealsLost,
            frame: None,
        });
        if scan.stop.finding == Finding::CutRecorded {
            return ranges;
        }
    }
    let (mut before, mut stop) = (scan.tail, scan.stop);
    loop {
        let resumed =
            if stop.finding == Finding::NotTheSealedLog { None } else { search.resume(before) };
        let end = scan.marks.certain.position.max(before.position);
        let to = resumed.map_or(end, |resumed| resumed.position);
        let base = before.position.segment_base(settings.segment_bytes);
        ranges.push(DamagedRange {
            file: segment_name(base),
            offset: file_offset(base, before.position),
            from: before.position,
            to,
            finding: stop.finding,
            frame: stop.frame,
        });
        let Some(resumed) = resumed else { break };
        (before, stop) = search.walk(resumed);
        if before.position >= end || ranges.len() == RANGES_MAX {
            break;
        }
    }
    ranges
}

/// Entries on the disk from the log's end up to `end`, as far as they can be told apart: frames from whose checksum the next
/// one's follows, and one that ends where the bytes do.
pub(super) fn count_entries<D: Disk, M, V>(
    disk: &D,
    settings: &RecoverySettings,
    scan: &Scan<M, V>,
    end: Position,
) -> u64 {
    let mut search = Search { reader: Reader::new(disk, settings.segment_bytes), settings, scan };
    let mut entries = 0;
    let mut at = scan.tail.position;
    while at < end {
        let segment_end = at.segment_base(settings.segment_bytes).plus(settings.segment_bytes);
        let step = match search.candidate(scan.tail, at, segment_end) {
            Some(after) if after.position >= end || search.continues(after) => after.position,
            _ => {
                at = at.plus(FRAME_ALIGNMENT as u64);
                continue;
            }
        };
        entries += 1;
        at = step;
    }
    entries
}

struct Search<'a, D: Disk, M, V> {
    reader: Reader<'a, D>,
    settings: &'a RecoverySettings,
    scan: &'a Scan<M, V>,
}

impl<D: Disk, M, V> Search<'_, D, M, V> {
    /// Follows the chain as far as it goes.
    fn walk(&mut self, mut at: Predecessor) -> (Predecessor, Stop) {
        loop {
            match self.reader.frame(at) {
                Ok((header, _)) => at = at.after(&header),
                Err(stop) => return (at, stop),
            }
        }
    }

    /// Where the chain goes on behind the bad frame that follows `before`: a stored checksum from which the next frame's
    /// checksum follows, or the header page of the next segment.
    fn resume(&mut self, before: Predecessor) -> Option<Predecessor> {
        let segment_bytes = self.settings.segment_bytes;
        let end = before.position.segment_base(segment_bytes).plus(segment_bytes);
        let mut at = before.position;
        while at < end {
            if let Some(after) = self.candidate(before, at, end)
                && self.continues(after)
            {
                return Some(after);
            }
            at = at.plus(FRAME_ALIGNMENT as u64);
        }
        let next = self.scan.files.range(end..).find_map(|(_, found)| found.header)?;
        Some(next.before)
    }

    /// The place behind something at `at` that looks like a frame later than `before`.
    fn candidate(
        &mut self,
        before: Predecessor,
        at: Position,
        end: Position,
    ) -> Option<Predecessor> {
        let bytes = self.reader.bytes(at, FRAME_HEADER_BYTES).ok()?;
        let (header, _) = FrameHeader::read_from_prefix(bytes).ok()?;
        let length = header.length() as usize;
        let padding = header.kind()? == Kind::Padding;
        let plausible = length >= FRAME_HEADER_BYTES
            && (padding || length <= FRAME_BYTES_MAX)
            && at.plus(header.span()) <= end
            && header.version.get() == FRAME_VERSION
            && header.term() >= before.term
            && header.sequence() >= before.sequence;
        plausible.then(|| Predecessor { position: at, ..before }.after(&header))
    }

    /// A frame follows from `after`, or a segment says it begins there.
    fn continues(&mut self, after: Predecessor) -> bool {
        if let Some(header) = self.scan.files.get(&after.position).and_then(|f| f.header) {
            return header.before == after;
        }
        self.reader.frame(after).is_ok()
    }
}

//! Where a log can be read on behind a place that cannot be read.
//!
//! Two things prove a predecessor again: the header page of a later segment, which names what stands before it; and a frame
//! that chains to the checksum of the one in front of it, whatever that one looks like itself.

use zerocopy::FromBytes;

use quorate::frame::{FRAME_VERSION, FrameHeader, Kind, Predecessor, check_frame};
use quorate::io::log_reader::LogReader;
use quorate::limits::{FRAME_ALIGNMENT, FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use quorate::types::Position;

/// Bytes searched at a time; each piece overlaps the next one by what two of the largest frames need.
const PIECE_BYTES: usize = 8 * 1024 * 1024;
const OVERLAP_BYTES: usize = 2 * FRAME_BYTES_MAX;

/// What stands before the first frame behind `before` that is proven again, below `limit`.
pub(crate) fn resume(
    reader: &LogReader,
    before: Predecessor,
    limit: Position,
) -> Option<Predecessor> {
    let here = before.position;
    let headers = reader.segments().iter().filter_map(|segment| segment.header.ok());
    let next = headers
        .map(|header| header.before)
        .filter(|next| next.position > here && next.position < limit)
        .min_by_key(|next| next.position);
    let segment_bytes = reader.segment_bytes();
    let mut end = here.segment_base(segment_bytes).plus(segment_bytes).min(limit);
    if let Some(next) = next {
        end = end.min(next.position);
    }
    within(reader, before, end).or(next)
}

/// As [`resume`], within one segment: from `before` to `end`.
fn within(reader: &LogReader, before: Predecessor, end: Position) -> Option<Predecessor> {
    let mut bytes = vec![0; PIECE_BYTES + OVERLAP_BYTES];
    let mut at = before.position;
    while at < end {
        let wanted = (end.since(at) as usize).min(bytes.len());
        let read = reader.bytes_at(at, &mut bytes[..wanted]).ok()?;
        if read < FRAME_HEADER_BYTES {
            return None;
        }
        let piece = &bytes[..read];
        for offset in (0..read.min(PIECE_BYTES)).step_by(FRAME_ALIGNMENT) {
            let found =
                proven(reader.segment_bytes(), before, at.plus(offset as u64), piece, offset);
            if found.is_some() {
                return found;
            }
        }
        at = at.plus(PIECE_BYTES as u64);
    }
    None
}

/// If something like a header stands at `offset` of `bytes` (position `at`), and the frame behind it chains to its checksum:
/// what stands before that frame.
fn proven(
    segment_bytes: u64,
    before: Predecessor,
    at: Position,
    bytes: &[u8],
    offset: usize,
) -> Option<Predecessor> {
    let (header, _) = FrameHeader::read_from_prefix(&bytes[offset..]).ok()?;
    // Each entry takes an aligned piece, so that so many fit at most between the two.
    let entries_max = at.since(before.position) / FRAME_ALIGNMENT as u64 + 1;
    let plausible = header.version.get() == FRAME_VERSION
        && header.flags == 0
        && header.kind().is_some_and(|kind| kind != Kind::Padding)
        && (FRAME_HEADER_BYTES..=FRAME_BYTES_MAX).contains(&(header.length() as usize))
        && header.sequence() > before.sequence
        && header.sequence().0 - before.sequence.0 <= entries_max
        && header.term() >= before.term;
    if !plausible {
        return None;
    }
    let start = Predecessor { position: at, ..before }.after(&header);
    let next = bytes.get(offset + header.span() as usize..)?;
    let word = u32::from_le_bytes(*next.first_chunk()?);
    check_frame(start, segment_bytes, word, next).is_ok().then_some(start)
}

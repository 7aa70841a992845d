//! Where a log can be read on behind a place that cannot be read.
//!
//! Two things prove a predecessor again: the header page of a later segment, which names what stands before it; and a frame
//! that chains to the checksum of the one in front of it, whatever that one looks like itself.

use quorate::frame::Predecessor;
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::proof::chained_pair;
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
            let place = at.plus(offset as u64);
            let found = chained_pair(reader.segment_bytes(), before, place, piece, offset);
            if let Some((_, behind)) = found {
                return Some(behind);
            }
        }
        at = at.plus(PIECE_BYTES as u64);
    }
    None
}

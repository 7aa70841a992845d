//! Entering a log in the middle, where nobody says what stands before.
//!
//! A frame that chains to the checksum of something in front of it proves what that is: two frames that fit each other where
//! 32-byte steps put them. That is evidence for tools, not proof: a command may carry the bytes of frames. Recovery and nodes
//! never enter a log so; `quorate-log verify` does only behind what it has found damaged.

use zerocopy::FromBytes;

use super::LogBytes;
use crate::frame::{FRAME_VERSION, FrameHeader, Kind, Predecessor, check_frame};
use crate::limits::{FRAME_ALIGNMENT, FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::types::Position;

/// A walk of so many bytes costs less than looking for a later place to start it.
pub const NARROW_BYTES: u64 = 256 * 1024;
/// Bytes looked at for a place to enter; the second number where frames are large.
const PROBES_BYTES: [usize; 2] = [16 * 1024, 2 * FRAME_BYTES_MAX + 2 * FRAME_HEADER_BYTES];

/// If something like a header stands at `offset` of `bytes` (position `at`), and the frame behind it chains to its checksum:
/// that header, and what stands before the frame behind it. `before` stands somewhere below `at`.
#[must_use]
pub fn chained_pair(
    segment_bytes: u64,
    before: Predecessor,
    at: Position,
    bytes: &[u8],
    offset: usize,
) -> Option<(FrameHeader, Predecessor)> {
    let (header, _) = FrameHeader::read_from_prefix(bytes.get(offset..)?).ok()?;
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
    check_frame(start, segment_bytes, word, next).is_ok().then_some((header, start))
}

/// The last place found between `start` and `end`, both of one segment, before which every entry is `below` what is looked
/// for: a walk from there meets it. Reads a few pages, by bisection.
///
/// # Errors
/// The host's.
pub fn narrow(
    source: &impl LogBytes,
    segment_bytes: u64,
    start: Predecessor,
    end: Position,
    below: impl Fn(Position, &FrameHeader) -> bool,
) -> std::io::Result<Predecessor> {
    let (mut low, mut high) = (start, end);
    while high.0.saturating_sub(low.position.0) > NARROW_BYTES {
        let half = high.since(low.position) / 2;
        let middle = low.position.plus(half / FRAME_ALIGNMENT as u64 * FRAME_ALIGNMENT as u64);
        match enter(source, segment_bytes, low, middle, high)? {
            Some((at, header, behind)) if below(at, &header) => low = behind,
            // It stands below, or nothing can be told from here: then the walk goes through it.
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first frame at or behind `middle` that is proven by the next one, and what stands behind it.
fn enter(
    source: &impl LogBytes,
    segment_bytes: u64,
    low: Predecessor,
    middle: Position,
    high: Position,
) -> std::io::Result<Option<(Position, FrameHeader, Predecessor)>> {
    for most in PROBES_BYTES {
        let mut bytes = vec![0; most.min(high.since(middle) as usize)];
        let read = source.read(middle, &mut bytes)?;
        let bytes = &bytes[..read];
        for offset in (0..read).step_by(FRAME_ALIGNMENT) {
            let at = middle.plus(offset as u64);
            if let Some((header, behind)) = chained_pair(segment_bytes, low, at, bytes, offset) {
                return Ok(Some((at, header, behind)));
            }
        }
        // The body of padding, or of nothing at all: there is no more to be seen with more of it.
        if bytes.iter().all(|&byte| byte == 0) {
            break;
        }
    }
    Ok(None)
}

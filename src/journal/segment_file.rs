//! What the sync thread, the keeper, the cut and recovery all do with the files of a log.

use std::io;

use super::memory::DurableFile;
use super::seal::Seal;
use super::segment_header::SegmentHeader;
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::{GroupId, Position};

/// Zeroes are written in pieces of this many bytes: large pieces make later syncs dearer.
pub const ZERO_PIECE_BYTES: usize = 64 * 1024;
/// Bytes of the sector that holds the header page's fields.
const FIELDS_SECTOR_BYTES: usize = 512;

/// Bytes of a segment file.
#[must_use]
pub const fn file_bytes(segment_bytes: u64) -> u64 {
    SEGMENT_HEADER_BYTES as u64 + segment_bytes
}

/// Base of the segment in whose header page the seal of a log that ends at `end` stands: that of the last byte.
#[must_use]
pub const fn seal_base(end: Position, log_start: Position, segment_bytes: u64) -> Position {
    let last = if end.0 > log_start.0 { Position(end.0 - 1) } else { end };
    last.segment_base(segment_bytes)
}

/// Offset in its file of a position in the segment at `base`.
#[must_use]
pub const fn file_offset(base: Position, position: Position) -> u64 {
    SEGMENT_HEADER_BYTES as u64 + position.since(base)
}

/// Writes the fields of the header page, and leaves its seals alone.
///
/// # Errors
/// The host's.
pub fn write_header<F: DurableFile>(file: &mut F, header: &SegmentHeader) -> io::Result<()> {
    file.write_at(&header.encode()[..FIELDS_SECTOR_BYTES], 0)
}

/// Writes a seal to its place in the header page.
///
/// # Errors
/// The host's.
pub fn write_seal<F: DurableFile>(file: &mut F, seal: &Seal, group: GroupId) -> io::Result<()> {
    file.write_at(&seal.encode(group), seal.offset() as u64)
}

/// Writes zeroes to `from..to` of the file.
///
/// # Errors
/// The host's.
pub fn write_zeroes<F: DurableFile>(file: &mut F, from: u64, to: u64) -> io::Result<()> {
    static ZEROES: [u8; ZERO_PIECE_BYTES] = [0; ZERO_PIECE_BYTES];
    let mut at = from;
    while at < to {
        let piece = (to - at).min(ZERO_PIECE_BYTES as u64);
        file.write_at(&ZEROES[..piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

//! The hot segments as the core wants them: what the durable files hold, and zeroes above.

use std::collections::BTreeMap;

use super::scan::{READ_BYTES, Scan};
use super::{RecoveryError, RecoverySettings, io_error};
use crate::frame::{FrameHeader, Kind, Predecessor};
use crate::journal::memory::{Disk, DurableFile, HotTier, SegmentMemory, segment_name};
use crate::journal::segment_file::{file_bytes, file_offset};
use crate::journal::segment_header::{Content, SegmentHeader};
use crate::limits::{FRAME_HEADER_BYTES, HOT_SEGMENTS_MAX};
use crate::types::{CutEpoch, Generation, Position};
use zerocopy::FromBytes;

type Segments<H> = Vec<(Position, <H as HotTier>::Memory, <H as HotTier>::View)>;

/// Fills hot segments for the last `settings.hot_bytes` of the log, and removes all others.
///
/// The segments of a hot tier that was intact are filled again in place, with the bytes they had: until then, or until the
/// state says otherwise, they may not be missing.
pub(super) fn rebuild<D: Disk, H: HotTier>(
    disk: &D,
    hot: &mut H,
    settings: &RecoverySettings,
    mut scan: Scan<H::Memory, H::View>,
    intact: bool,
) -> Result<Segments<H>, RecoveryError> {
    let segment_bytes = settings.segment_bytes;
    let tail = scan.tail.position;
    let tail_base = tail.segment_base(segment_bytes);
    let most = (HOT_SEGMENTS_MAX as u64 / 2 - 1) * segment_bytes;
    // What may still have to be applied is hot too: it is read from there.
    let below = Position(tail.0.saturating_sub(settings.hot_bytes));
    let below = below.min(scan.marks.commit.position());
    let first = below
        .segment_base(segment_bytes)
        .max(scan.log_start)
        .max(Position(tail_base.0.saturating_sub(most)));
    if !intact {
        scan.hot.clear();
    }
    let listed = hot.list().map_err(io_error("listing", "the hot tier"))?;
    for &base in listed.iter().filter(|&&base| !intact || base < first || base > tail_base) {
        scan.hot.remove(&base);
        hot.remove(base).map_err(io_error("removing hot segment", base))?;
    }
    let mut segments = Vec::new();
    let mut base = first;
    while base <= tail_base {
        let (mut memory, view, found) = open(hot, settings, base, &mut scan.hot)?;
        let before = scan.bases.get(&base).copied();
        fill(disk, settings, base, before, tail, &mut memory, found)?;
        segments.push((base, memory, view));
        base = base.plus(segment_bytes);
    }
    Ok(segments)
}

/// A hot segment that is there, or a new one; and whether it was there.
fn open<H: HotTier>(
    hot: &mut H,
    settings: &RecoverySettings,
    base: Position,
    opened: &mut BTreeMap<Position, (H::Memory, H::View)>,
) -> Result<(H::Memory, H::View, bool), RecoveryError> {
    if let Some((memory, view)) = opened.remove(&base) {
        return Ok((memory, view, true));
    }
    let listed = hot.list().map_err(io_error("listing", "the hot tier"))?;
    if listed.contains(&base) {
        match hot.open(base) {
            Ok((memory, view)) => return Ok((memory, view, true)),
            // Of another size, or unreadable: of no use to anybody.
            Err(_) => hot.remove(base).map_err(io_error("removing hot segment", base))?,
        }
    }
    let made = hot
        .create(base)
        .and_then(|()| hot.populate(base, 0, file_bytes(settings.segment_bytes)))
        .and_then(|()| hot.open(base));
    let (memory, view) = made.map_err(io_error("making hot segment", base))?;
    Ok((memory, view, false))
}

fn fill<D: Disk, M: SegmentMemory>(
    disk: &D,
    settings: &RecoverySettings,
    base: Position,
    before: Option<(Predecessor, Generation)>,
    tail: Position,
    memory: &mut M,
    found: bool,
) -> Result<(), RecoveryError> {
    let end = tail.min(base.plus(settings.segment_bytes)).since(base);
    memory.header_mut().fill(0);
    if let Some((before, generation)) = before.filter(|_| end > 0) {
        let header = SegmentHeader {
            content: Content::Segment,
            group: settings.group,
            generation,
            segment_bytes: settings.segment_bytes,
            before,
            cut_epoch: CutEpoch(0),
        };
        header.encode_into(memory.header_mut());
        let name = segment_name(base);
        let file = disk.open(&name).map_err(io_error("opening", &name))?;
        let mut from = 0;
        while from < end {
            let length = ((end - from) as usize).min(READ_BYTES);
            let bytes = memory.bytes_mut(from, length);
            let read = file
                .read_at(bytes, file_offset(base, base.plus(from)))
                .map_err(io_error("reading", &name))?;
            if read < length {
                let error = std::io::ErrorKind::UnexpectedEof.into();
                return Err(RecoveryError::Io { action: format!("reading {name}"), error });
            }
            from += length as u64;
        }
        publish(memory, end);
    }
    if found && end < settings.segment_bytes {
        memory.publish(end, 0);
        memory.bytes_mut(end, (settings.segment_bytes - end) as usize).fill(0);
    }
    Ok(())
}

/// Stores the publish word of every frame below `end` as the core would have: readers see them then.
fn publish<M: SegmentMemory>(memory: &mut M, end: u64) {
    let mut offset = 0;
    while offset < end {
        let bytes = memory.bytes(offset, FRAME_HEADER_BYTES);
        let header = FrameHeader::read_from_bytes(bytes).expect("a header's bytes");
        assert!(header.span() > 0, "settled bytes are frames");
        memory.publish(offset, header.length());
        if header.kind == Kind::Padding as u8 {
            break;
        }
        offset += header.span();
    }
}

//! What is below the tail, for sending, applying, and finding one's place. Every slice lies inside the map.

use zerocopy::FromBytes;

use super::HotLog;
use crate::frame::{FrameHeader, Kind, Predecessor};
use crate::journal::memory::SegmentMemory;
use crate::limits::FRAME_HEADER_BYTES;
use crate::types::{Position, Sequence};

/// One contiguous piece of the log, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// The range goes on as zeros to the end of the segment: the last frame is padding.
    pub pads: bool,
    /// First position after the piece, and after the zeros when it pads.
    pub next: Position,
}

impl<M: SegmentMemory> HotLog<M> {
    /// At most `max` bytes of the log from `from` on, and none at or above `to` or the tail. Ends at a segment's end and
    /// behind a padding header; from inside padding it is empty and pads. None: nothing of that range is held.
    #[must_use]
    pub fn chunk(&self, from: Position, to: Position, max: usize) -> Option<Chunk<'_>> {
        let to = to.min(self.tail.position);
        if from >= to {
            return None;
        }
        let slot = self.segments.at(from)?;
        let segment_end = slot.base.plus(self.segments.bytes());
        let offset = self.offset(from);
        let length = to.min(segment_end).since(from).min(max as u64);
        let body = slot.pad.map(|pad| pad + FRAME_HEADER_BYTES as u64);
        if let Some(body) = body
            && offset + length >= body
        {
            let length = body.saturating_sub(offset) as usize;
            let bytes = if length == 0 { &[] } else { slot.memory.bytes(offset, length) };
            return Some(Chunk { bytes, pads: true, next: segment_end });
        }
        let bytes = slot.memory.bytes(offset, length as usize);
        Some(Chunk { bytes, pads: false, next: from.plus(length) })
    }

    /// The frames from `from` (where one starts) up to `to`, each as its position, header and payload. Padding is among
    /// them, without a payload.
    #[must_use]
    pub fn frames(&self, from: Position, to: Position) -> Frames<'_, M> {
        Frames { log: self, at: from, to: to.min(self.tail.position) }
    }

    /// What stands before the frame that starts at `position`. None: no frame starts there, or it is not held. At most one
    /// step of the sparse index is walked.
    #[must_use]
    pub fn predecessor_at(&self, position: Position) -> Option<Predecessor> {
        if position == self.tail.position {
            return Some(self.tail);
        }
        self.segments.at(position)?;
        let mut before = self.segments.index(position).at_or_below(position)?;
        while before.position < position {
            before = before.after(&self.header_at(before.position)?);
        }
        (before.position == position).then_some(before)
    }

    /// Where the entry `sequence` stands. None: it is not held, or not written yet.
    #[must_use]
    pub fn seek_sequence(&self, sequence: Sequence) -> Option<Position> {
        if sequence > self.tail.sequence || sequence == Sequence(0) {
            return None;
        }
        let bases = self.segments.iter().rev().map(|slot| slot.base);
        let mut indexes = bases.map(|base| self.segments.index(base));
        let mut before = indexes.find_map(|index| index.before_sequence(sequence))?;
        loop {
            let position = before.position;
            before = before.after(&self.header_at(position)?);
            if before.sequence == sequence {
                return Some(position);
            }
        }
    }

    /// The header at a position where a frame of this log starts.
    #[inline]
    fn header_at(&self, position: Position) -> Option<FrameHeader> {
        if position >= self.tail.position {
            return None;
        }
        let memory = &self.segments.at(position)?.memory;
        let bytes = memory.bytes(self.offset(position), FRAME_HEADER_BYTES);
        FrameHeader::read_from_bytes(bytes).ok()
    }
}

/// Frames of a log in order: [`HotLog::frames`].
#[derive(Debug)]
pub struct Frames<'a, M> {
    log: &'a HotLog<M>,
    at: Position,
    to: Position,
}

impl<'a, M: SegmentMemory> Iterator for Frames<'a, M> {
    type Item = (Position, FrameHeader, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.to {
            return None;
        }
        let log = self.log;
        let position = self.at;
        let header = log.header_at(position)?;
        let payload = if header.kind == Kind::Padding as u8 {
            &[]
        } else {
            let offset = log.offset(position) + FRAME_HEADER_BYTES as u64;
            let memory = &log.segments.at(position)?.memory;
            memory.bytes(offset, header.length() as usize - FRAME_HEADER_BYTES)
        };
        self.at = position.plus(header.span());
        Some((position, header, payload))
    }
}

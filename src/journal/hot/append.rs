//! The leader's half: frames written in place.

use core::fmt;

use zerocopy::IntoBytes;

use super::{Claim, HotLog};
use crate::frame::{FrameHeader, Kind, crc, span};
use crate::journal::memory::SegmentMemory;
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::types::{Position, Sequence, Term, Timestamp};

/// A frame that joined the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Where it stands.
    pub position: Position,
    /// Its entry number.
    pub sequence: Sequence,
    /// Where the next one will stand.
    pub end: Position,
}

/// Why no space was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimError {
    /// The payload would make a frame longer than any may be.
    TooLong {
        /// Bytes asked for.
        payload_bytes: usize,
        /// Bytes that a frame may carry.
        limit: usize,
    },
    /// The next segment is not ready: try again.
    NoRoom {
        /// Where the log stops.
        position: Position,
    },
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { payload_bytes, limit } => {
                write!(f, "a payload of {payload_bytes} bytes, at most {limit} fit in a frame")
            }
            Self::NoRoom { position } => write!(f, "no segment is ready above {position}"),
        }
    }
}

impl core::error::Error for ClaimError {}

impl<M: SegmentMemory> HotLog<M> {
    /// Largest payload of a frame, in bytes: of any frame, and in segments this small.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        FRAME_BYTES_MAX.min(self.segment_bytes as usize) - FRAME_HEADER_BYTES
    }

    /// A payload of this many bytes would find room now.
    #[must_use]
    pub fn room_for(&self, payload_bytes: usize) -> bool {
        self.place_for(payload_bytes).is_ok()
    }

    /// Hands out the space of the next frame's payload, in place. [`HotLog::commit`] makes the frame; without it nothing has
    /// happened, and the next claim gets the same space.
    ///
    /// # Errors
    /// [`ClaimError`]; nothing has changed.
    #[inline]
    pub fn claim(&mut self, payload_bytes: usize) -> Result<&mut [u8], ClaimError> {
        let (slot, offset, pads) = self.place_for(payload_bytes)?;
        self.claimed = Some(Claim { payload_bytes, pads });
        let start = offset + FRAME_HEADER_BYTES as u64;
        let slot = &mut self.slots[slot];
        slot.dirty_end = slot.dirty_end.max(start + payload_bytes as u64);
        Ok(slot.memory.bytes_mut(start, payload_bytes))
    }

    /// Makes a frame of what was claimed. Panics when nothing was, or when `term` is older than the log's.
    #[inline]
    pub fn commit(&mut self, kind: Kind, term: Term, timestamp: Timestamp) -> Appended {
        let claim = self.claimed.take().expect("commit follows claim");
        assert!(kind != Kind::Padding && term >= self.tail.term);
        if claim.pads {
            self.pad(term, timestamp);
        }
        let sequence = self.tail.sequence.next();
        let length = (FRAME_HEADER_BYTES + claim.payload_bytes) as u32;
        let position = self.tail.position;
        let header = FrameHeader::new(length, kind, term, sequence, timestamp);
        self.clear_fill(&header);
        self.seal(header, claim.payload_bytes);
        Appended { position, sequence, end: self.tail.position }
    }

    /// Claims, copies `parts` one after the other, and commits.
    ///
    /// # Errors
    /// [`ClaimError`]; nothing has changed.
    pub fn append(
        &mut self,
        kind: Kind,
        term: Term,
        timestamp: Timestamp,
        parts: &[&[u8]],
    ) -> Result<Appended, ClaimError> {
        let length = parts.iter().map(|part| part.len()).sum();
        let mut space = self.claim(length)?;
        for part in parts {
            let (here, rest) = space.split_at_mut(part.len());
            here.copy_from_slice(part);
            space = rest;
        }
        Ok(self.commit(kind, term, timestamp))
    }

    /// Segment and offset of the next frame, and whether the segment before must be padded.
    #[inline]
    fn place_for(&self, payload_bytes: usize) -> Result<(usize, u64, bool), ClaimError> {
        let limit = self.payload_bytes_max();
        if payload_bytes > limit {
            return Err(ClaimError::TooLong { payload_bytes, limit });
        }
        let position = self.tail.position;
        let no_room = ClaimError::NoRoom { position };
        let slot = self.slot_number(position).ok_or(no_room)?;
        let offset = self.offset(position);
        let span = span((FRAME_HEADER_BYTES + payload_bytes) as u32);
        if offset + span <= self.segment_bytes {
            return Ok((slot, offset, false));
        }
        if slot + 1 < self.slots.len() { Ok((slot + 1, 0, true)) } else { Err(no_room) }
    }

    /// Fills the segment to its end.
    #[cold]
    fn pad(&mut self, term: Term, timestamp: Timestamp) {
        let left = self.segment_bytes - self.offset(self.tail.position);
        let sequence = self.tail.sequence;
        self.clear_padding_body();
        self.seal(FrameHeader::new(left as u32, Kind::Padding, term, sequence, timestamp), 0);
    }

    /// Zeroes whatever was ever written behind a padding header at the tail.
    pub(super) fn clear_padding_body(&mut self) {
        let position = self.tail.position;
        let body = self.offset(position) + FRAME_HEADER_BYTES as u64;
        let slot = self.slot_number(position).expect("the tail's segment is held");
        let slot = &mut self.slots[slot];
        if slot.dirty_end > body {
            slot.memory.bytes_mut(body, (slot.dirty_end - body) as usize).fill(0);
            slot.dirty_end = body;
        }
    }

    /// Zeroes the bytes between the payload's end and the next frame.
    #[inline]
    fn clear_fill(&mut self, header: &FrameHeader) {
        let position = self.tail.position;
        let slot = self.slot_number(position).expect("claimed space is held");
        let from = self.offset(position) + u64::from(header.length());
        let fill = header.span() - u64::from(header.length());
        self.slots[slot].memory.bytes_mut(from, fill as usize).fill(0);
    }

    /// Writes header and checksum in front of a payload that is in place, and publishes.
    ///
    /// The order of the stores is what a crash relies on: the next publish word is 0 before this one is stored.
    #[inline]
    fn seal(&mut self, mut header: FrameHeader, payload_bytes: usize) {
        let before = self.tail;
        let slot = self.slot_number(before.position).expect("claimed space is held");
        let offset = self.offset(before.position);
        let body = offset + FRAME_HEADER_BYTES as u64;
        let next = offset + header.span();
        let memory = &mut self.slots[slot].memory;
        if next < self.segment_bytes {
            memory.publish(next, 0);
        }
        let payload = memory.bytes(body, payload_bytes);
        header.crc = crc::chain(before.chain, &header, before.position, payload).0.into();
        memory
            .bytes_mut(offset + 4, FRAME_HEADER_BYTES - 4)
            .copy_from_slice(&header.as_bytes()[4..]);
        self.note(slot, &header);
        self.slots[slot].memory.publish(offset, header.length());
        self.tail = before.after(&header);
        self.frontier = [0; 4];
    }
}

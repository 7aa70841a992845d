//! The leader's half: frames written in place.

use core::fmt;

use super::{Claim, HotLog};
use crate::frame::{FrameHeader, Kind, Predecessor, crc, span};
use crate::journal::memory::SegmentMemory;
use crate::limits::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES};
use crate::types::{Position, Sequence, Term, Timestamp};

/// Bytes of a publish word.
const WORD_BYTES: usize = 4;

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
        self.payload_bytes_max
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
        if self.claimed.is_some() {
            self.drop_claim();
        }
        let (place, pads) = self.place_for(payload_bytes)?;
        let span = span((FRAME_HEADER_BYTES + payload_bytes) as u32);
        self.claimed = Some(Claim { payload_bytes, pads });
        let offset = self.offset(place);
        let last = offset + span == self.segments.bytes();
        let number = if pads { self.segments.number(place) } else { self.here.number };
        let memory = &mut self.segments.numbered(number).memory;
        let body = span as usize - FRAME_HEADER_BYTES + if last { 0 } else { WORD_BYTES };
        let body = memory.bytes_mut(offset + FRAME_HEADER_BYTES as u64, body);
        // What follows the payload is zero up to the next publish word, and that word is, too. A whole block is cheaper than
        // the few bytes it takes.
        if let Some(end) = body.last_chunk_mut::<{ FRAME_ALIGNMENT + WORD_BYTES }>() {
            *end = [0; FRAME_ALIGNMENT + WORD_BYTES];
        } else {
            body.fill(0);
        }
        Ok(&mut body[..payload_bytes])
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
        self.seal(FrameHeader::new(length, kind, term, sequence, timestamp), claim.payload_bytes);
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

    /// Where the next frame will stand, and whether the segment before must be padded.
    #[inline]
    fn place_for(&self, payload_bytes: usize) -> Result<(Position, bool), ClaimError> {
        let limit = self.payload_bytes_max;
        if payload_bytes > limit {
            return Err(ClaimError::TooLong { payload_bytes, limit });
        }
        let position = self.tail.position;
        let span = span((FRAME_HEADER_BYTES + payload_bytes) as u32);
        if position.plus(span) <= self.here.room_end {
            return Ok((position, false));
        }
        let next = self.here.room_end;
        if next > position && self.segments.at(next).is_some() {
            return Ok((next, true));
        }
        Err(ClaimError::NoRoom { position })
    }

    /// What was written into space that was claimed and not committed must be zeroed one day.
    #[cold]
    pub(super) fn drop_claim(&mut self) {
        let Some(claim) = self.claimed.take() else { return };
        let place = if claim.pads { self.here.room_end } else { self.tail.position };
        let end = self.offset(place) + span((FRAME_HEADER_BYTES + claim.payload_bytes) as u32);
        if let Some(slot) = self.segments.at_mut(place) {
            slot.dirty_end = slot.dirty_end.max(end);
        }
    }

    /// Fills the segment to its end.
    #[cold]
    fn pad(&mut self, term: Term, timestamp: Timestamp) {
        let left = self.segments.bytes() - self.offset(self.tail.position);
        let sequence = self.tail.sequence;
        self.clear_padding_body();
        self.seal(FrameHeader::new(left as u32, Kind::Padding, term, sequence, timestamp), 0);
    }

    /// Zeroes whatever was ever written behind a padding header at the tail.
    pub(super) fn clear_padding_body(&mut self) {
        let body = self.offset(self.tail.position) + FRAME_HEADER_BYTES as u64;
        let slot = self.slot();
        if slot.dirty_end > body {
            slot.memory.bytes_mut(body, (slot.dirty_end - body) as usize).fill(0);
            slot.dirty_end = body;
        }
    }

    /// Writes header and checksum in front of a payload that is in place, and publishes.
    ///
    /// The order of the stores is what a crash relies on: the next publish word is 0 (see [`HotLog::claim`]; padding has none
    /// behind it) before this one is stored.
    #[inline]
    fn seal(&mut self, header: FrameHeader, payload_bytes: usize) {
        self.note(header);
        let before = self.tail;
        let offset = self.offset(before.position);
        let end = before.position.plus(header.span());
        let memory = &mut self.slot().memory;
        let frame = memory.bytes_mut(offset, FRAME_HEADER_BYTES + payload_bytes);
        let (head, payload) = frame.split_at_mut(FRAME_HEADER_BYTES);
        let chain = crc::chain(before.chain, &header, before.position, payload);
        let [first, sequence, timestamp] = header.words();
        head[4..8].copy_from_slice(&chain.0.to_le_bytes());
        head[8..16].copy_from_slice(&first.to_le_bytes());
        head[16..24].copy_from_slice(&sequence.to_le_bytes());
        head[24..32].copy_from_slice(&timestamp.to_le_bytes());
        memory.publish(offset, header.length());
        let (sequence, term) = (header.sequence(), header.term());
        self.tail = Predecessor { position: end, sequence, term, chain };
        self.frontier = [0; 4];
        if end == self.here.room_end {
            self.settle();
        }
    }
}

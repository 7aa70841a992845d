//! The least that appending a frame of this format could cost: header, copy and chained checksum of the same bytes, stored
//! one frame after the other. `quorate-bench journal` and the bench of the log measure against this one definition.
//!
//! It is what no log of this format can avoid. What the hot log does above it is finding and clearing the frame's place,
//! and the order of its stores.

use quorate::frame::{FrameHeader, Kind, crc, span};
use quorate::journal::SegmentMemory;
use quorate::limits::FRAME_HEADER_BYTES;
use quorate::types::{Chain, Position, Sequence, Term, Timestamp};
use zerocopy::IntoBytes;

/// Frames that are stored and nothing else. It goes on from segment to segment: position and chain never start again.
pub(crate) struct Bare {
    position: Position,
    sequence: Sequence,
    chain: Chain,
}

impl Bare {
    /// Nothing stored yet.
    pub(crate) fn new() -> Self {
        Self { position: Position(0), sequence: Sequence(0), chain: Chain(0) }
    }

    /// Stores the next frame, `offset` bytes into a segment's content, and returns the offset of the one after it.
    #[inline]
    pub(crate) fn append<M: SegmentMemory>(
        &mut self,
        memory: &mut M,
        offset: u64,
        payload: &[u8],
    ) -> u64 {
        let length = FRAME_HEADER_BYTES + payload.len();
        self.sequence = self.sequence.next();
        let frame = memory.bytes_mut(offset, length);
        let (head, body) = frame.split_at_mut(FRAME_HEADER_BYTES);
        body.copy_from_slice(payload);
        let time = Timestamp(self.sequence.0);
        let mut header =
            FrameHeader::new(length as u32, Kind::Command, Term(1), self.sequence, time);
        self.chain = crc::chain(self.chain, &header, self.position, body);
        header.crc = self.chain.0.into();
        head.copy_from_slice(header.as_bytes());
        let step = span(length as u32);
        self.position = self.position.plus(step);
        offset + step
    }

    /// Depends on every byte that was stored, so that no compiler leaves any of it out.
    pub(crate) fn chain(&self) -> Chain {
        self.chain
    }
}

//! The follower's half: bytes placed as they come, frames verified in order.

use core::fmt;

use zerocopy::FromBytes;

use super::HotLog;
use crate::frame::payload::TermStart;
use crate::frame::{FrameError, FrameHeader, Kind, check_frame, span};
use crate::journal::memory::SegmentMemory;
use crate::limits::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES};
use crate::mutants::Mutant;
use crate::types::{Position, Received, Term};

/// Bytes of the frame of a term start.
const TERM_START_FRAME_BYTES: u64 =
    (FRAME_HEADER_BYTES + size_of::<TermStart>()).next_multiple_of(FRAME_ALIGNMENT) as u64;

/// How far [`HotLog::verify`] came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verification {
    /// Frames that joined the log.
    pub frames: usize,
    /// The frame at the tail, if it does not belong there. Its range is zero again and must be received again.
    pub bad: Option<BadFrame>,
    /// Where the frame at the tail ends, by its own account, when only a part of it is here. One that ends above the
    /// sender's log is a bad one: [`HotLog::reopen`] it.
    pub incomplete: Option<Position>,
}

/// A frame that arrived and does not belong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadFrame {
    /// Where it stands: the start of the range to receive again.
    pub position: Position,
    /// End of that range.
    pub reopened_to: Position,
    /// The rule it broke.
    pub refusal: Refusal,
}

/// The rule that a received frame broke.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// One of the format's.
    Frame(FrameError),
    /// Its term is newer than that of the leadership it came from.
    TermAhead {
        /// As found.
        found: Term,
        /// Newest that may stand in this leadership's log.
        highest: Term,
    },
    /// It ends above the sender's log: the caller found out.
    BeyondSender,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::TermAhead { found, highest } => {
                write!(f, "term {found} in the log of a leadership of term {highest}")
            }
            Self::BeyondSender => write!(f, "ends above the sender's log"),
        }
    }
}

impl core::error::Error for Refusal {}

impl<M: SegmentMemory> HotLog<M> {
    /// Copies received bytes to their place above the tail. Only for ranges that were missing, and below
    /// [`HotLog::end_of_room`]: panics otherwise.
    ///
    /// The four bytes at the tail itself are kept beside the map until their frame is verified, so that memory never shows a
    /// frame that was not.
    pub fn place(&mut self, from: Position, bytes: &[u8]) {
        self.drop_claim();
        let tail = self.tail.position;
        assert!(from >= tail && from.plus(bytes.len() as u64) <= self.end_of_room());
        let mut at = from;
        let mut rest = bytes;
        let word = tail.plus(4).0.saturating_sub(from.0).min(rest.len() as u64) as usize;
        if word > 0 {
            let (early, late) = rest.split_at(word);
            self.frontier[from.since(tail) as usize..][..word].copy_from_slice(early);
            (at, rest) = (at.plus(word as u64), late);
        }
        while !rest.is_empty() {
            let offset = self.offset(at);
            let here = (self.segments.bytes() - offset).min(rest.len() as u64);
            let (now, later) = rest.split_at(here as usize);
            let slot = self.segments.at_mut(at).expect("below the end of room");
            slot.memory.bytes_mut(offset, now.len()).copy_from_slice(now);
            slot.dirty_end = slot.dirty_end.max(offset + here);
            (at, rest) = (at.plus(here), later);
        }
    }

    /// Lets up to `frames_max` whole frames below `received` join the log, as long as they chain and no term is above
    /// `highest_term`.
    ///
    /// The body of a padding frame is never sent: the caller counts the rest of the segment as received.
    pub fn verify(
        &mut self,
        received: Received,
        frames_max: usize,
        highest_term: Term,
    ) -> Verification {
        let mut done = Verification { frames: 0, bad: None, incomplete: None };
        while done.frames < frames_max {
            match self.next_frame(received.0, highest_term) {
                Ok(Some(header)) => {
                    self.accept(&header);
                    done.frames += 1;
                }
                Ok(None) => break,
                Err(Refusal::Frame(FrameError::Short { needed })) => {
                    done.incomplete = Some(self.tail.position.plus(needed));
                    break;
                }
                Err(refusal) => {
                    done.bad = Some(self.reopen(received, refusal));
                    break;
                }
            }
        }
        done
    }

    /// Zeroes the frame at the tail, which is known to be bad, so that its range can be received again.
    pub fn reopen(&mut self, received: Received, refusal: Refusal) -> BadFrame {
        let position = self.tail.position;
        let word = u32::from_le_bytes(self.frontier);
        let length = match refusal {
            // Where the next frame would start is not known: what is sure to be wrong is the header.
            Refusal::Frame(FrameError::Length { .. }) | Refusal::BeyondSender => 0,
            Refusal::Frame(FrameError::Unpublished) => self.zeros_at_tail(received.0),
            _ => span(word),
        };
        let room = received.0.min(self.end_of_room()).0.saturating_sub(position.0);
        let length = length.max(FRAME_HEADER_BYTES as u64).min(room);
        self.frontier = [0; 4];
        let mut at = position;
        let end = position.plus(length);
        while at < end {
            let offset = self.offset(at);
            let here = (self.segments.bytes() - offset).min(end.since(at));
            let slot = self.segments.at_mut(at).expect("below the end of room");
            slot.memory.bytes_mut(offset, here as usize).fill(0);
            at = at.plus(here);
        }
        BadFrame { position, reopened_to: end, refusal }
    }

    /// The frame at the tail, if it is whole. None: not even its header is.
    fn next_frame(
        &self,
        received: Position,
        highest: Term,
    ) -> Result<Option<FrameHeader>, Refusal> {
        let position = self.tail.position;
        let available = received.0.saturating_sub(position.0);
        let Some(slot) = self.segments.at(position) else { return Ok(None) };
        if available < FRAME_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let offset = self.offset(position);
        let available = available.min(self.segments.bytes() - offset) as usize;
        let bytes = slot.memory.bytes(offset, available);
        let word = u32::from_le_bytes(self.frontier);
        let header = match check_frame(self.tail, self.segments.bytes(), word, bytes) {
            Err(FrameError::Chain { .. }) if self.mutants.has(Mutant::SkipChain) => {
                let (header, _) = FrameHeader::read_from_prefix(bytes).expect("it was judged");
                FrameHeader { length: word.into(), ..header }
            }
            judged => judged.map_err(Refusal::Frame)?,
        };
        if header.term() > highest {
            return Err(Refusal::TermAhead { found: header.term(), highest });
        }
        // Padding in front of a term start joins with it: alone it would not be known whose it is, and be cut where logs part.
        let opens = header.kind == Kind::Padding as u8 && header.term() > self.tail.term;
        if opens && received.0 < position.0 + header.span() + TERM_START_FRAME_BYTES {
            return Ok(None);
        }
        Ok(Some(header))
    }

    /// Publishes a frame that was verified. The publish word behind it leaves memory first.
    fn accept(&mut self, header: &FrameHeader) {
        let offset = self.offset(self.tail.position);
        if header.kind == Kind::Padding as u8 {
            self.clear_padding_body();
        }
        let after = self.tail.after(header);
        let frontier = self.take_word(after.position);
        self.note(*header);
        self.slot().memory.publish(offset, header.length());
        self.tail = after;
        self.frontier = frontier;
        if after.position >= self.here.room_end {
            self.settle();
        }
    }

    /// The publish word at `position`, taken out of memory.
    fn take_word(&mut self, position: Position) -> [u8; 4] {
        let offset = self.offset(position);
        let Some(slot) = self.segments.at_mut(position) else { return [0; 4] };
        let word = slot.memory.published(offset);
        slot.memory.publish(offset, 0);
        word.to_le_bytes()
    }

    /// Bytes from the tail on that are zero, in whole frame alignments, up to `received`.
    fn zeros_at_tail(&self, received: Position) -> u64 {
        let position = self.tail.position;
        let Some(slot) = self.segments.at(position) else { return 0 };
        let offset = self.offset(position);
        let available = received.since(position).min(self.segments.bytes() - offset) as usize;
        let bytes = slot.memory.bytes(offset, available);
        let blocks =
            bytes.chunks(FRAME_ALIGNMENT).take_while(|block| block.iter().all(|&b| b == 0));
        blocks.map(|block| block.len() as u64).sum()
    }
}

//! Segments come and go, and a log is cut.

use core::fmt;

use zerocopy::FromBytes;

use super::HotLog;
use super::segments::Slot;
use crate::frame::{FrameHeader, Kind, Predecessor};
use crate::journal::memory::SegmentMemory;
use crate::limits::{FRAME_HEADER_BYTES, HOT_SEGMENTS_MAX, HOT_WINDOWS_MIN};
use crate::types::Position;

/// A segment that was not taken, and why.
#[derive(Debug)]
pub struct AddError<M> {
    /// Given back.
    pub memory: M,
    /// Why.
    pub reason: AddRefusal,
}

/// Why a segment is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddRefusal {
    /// It does not follow the last one, or, as the first, does not start at or below the tail's segment.
    Base {
        /// Where it would have to start (the first: at or below).
        expected: Position,
    },
    /// Its payload is not of the group's size.
    Size {
        /// As found, in bytes.
        payload_bytes: u64,
    },
    /// As many are held as may be.
    Full,
    /// It lies below the tail, and its header page does not say what stands before it.
    Header,
    /// It lies below the tail, and its frames do not lead there.
    Content {
        /// The first place where they do not.
        position: Position,
    },
}

impl fmt::Display for AddRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Base { expected } => write!(f, "the segment at {expected} comes next"),
            Self::Size { payload_bytes } => {
                write!(f, "a payload of {payload_bytes} bytes is not the group's segment size")
            }
            Self::Full => write!(f, "{HOT_SEGMENTS_MAX} segments are held already"),
            Self::Header => write!(f, "its header page does not say what stands before it"),
            Self::Content { position } => {
                write!(f, "its frames do not lead to the end of the log: stopped at {position}")
            }
        }
    }
}

impl<M: fmt::Debug> core::error::Error for AddError<M> {}

impl<M> fmt::Display for AddError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment not taken: {}", self.reason)
    }
}

/// Why a log was not cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutError {
    /// Below what is held in memory.
    BelowHot {
        /// Lowest position held.
        lowest: Position,
    },
    /// Above the end of the log.
    AboveTail {
        /// End of the log.
        tail: Position,
    },
    /// The frame before that position is not the one named, or no frame starts there.
    OtherLog {
        /// What stands before it here, if a frame starts there.
        own: Option<Predecessor>,
    },
}

impl fmt::Display for CutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BelowHot { lowest } => write!(f, "cut below {lowest}, the lowest in memory"),
            Self::AboveTail { tail } => write!(f, "cut above {tail}, the end of the log"),
            Self::OtherLog { own: Some(own) } => {
                write!(f, "cut after another frame than the one of term {} here", own.term)
            }
            Self::OtherLog { own: None } => write!(f, "cut where no frame starts"),
        }
    }
}

impl core::error::Error for CutError {}

impl<M: SegmentMemory> HotLog<M> {
    /// Takes the next segment upward. The first one may start anywhere at or below the tail's segment.
    ///
    /// A segment that starts below the tail holds the log's bytes up to there, and whatever lies above the tail in it is
    /// zeroed. One that starts at or above the tail is zero-filled: a found one must be made anew.
    ///
    /// # Errors
    /// [`AddRefusal`], with the memory; nothing has changed.
    pub fn add_segment(&mut self, base: Position, memory: M) -> Result<(), AddError<M>> {
        if let Err(reason) = self.may_add(base, &memory) {
            return Err(AddError { memory, reason });
        }
        let mut slot = Slot { base, memory, dirty_end: 0, pad: None, entered: false };
        if base < self.tail.position
            && let Err(reason) = self.adopt(&mut slot)
        {
            self.segments.cut_index(base, Position(0));
            return Err(AddError { memory: slot.memory, reason });
        }
        self.segments.push(slot);
        self.settle();
        Ok(())
    }

    fn may_add(&self, base: Position, memory: &M) -> Result<(), AddRefusal> {
        let tail_base = self.tail.position.segment_base(self.segments.bytes());
        let (expected, fits) = match self.segments.end() {
            Some(expected) => (expected, base == expected),
            None => (tail_base, base <= tail_base && self.offset(base) == 0),
        };
        if !fits {
            return Err(AddRefusal::Base { expected });
        }
        if self.segments.count() == HOT_SEGMENTS_MAX {
            return Err(AddRefusal::Full);
        }
        let payload_bytes = memory.payload_bytes();
        if payload_bytes != self.segments.bytes() {
            return Err(AddRefusal::Size { payload_bytes });
        }
        Ok(())
    }

    /// Learns a segment whose frames are in the log already: walks it up to the tail. Only at start.
    fn adopt(&mut self, slot: &mut Slot<M>) -> Result<(), AddRefusal> {
        let mut before = (self.header.before)(slot.memory.header_mut())
            .filter(|before| before.position == slot.base)
            .ok_or(AddRefusal::Header)?;
        let segment_end = slot.base.plus(self.segments.bytes());
        let end = segment_end.min(self.tail.position);
        while before.position < end {
            let position = before.position;
            let wrong = AddRefusal::Content { position };
            let offset = self.offset(position);
            let header = slot.memory.bytes(offset, FRAME_HEADER_BYTES);
            let header = FrameHeader::read_from_bytes(header).map_err(|_| wrong)?;
            if (header.length() as usize) < FRAME_HEADER_BYTES
                || position.plus(header.span()) > end
                || header.term() < before.term
            {
                return Err(wrong);
            }
            self.segments.record(before);
            if header.kind == Kind::Padding as u8 {
                slot.pad = Some(offset);
                if self.terms.last().is_none_or(|last| last.leadership.term < header.term()) {
                    self.terms.pad(position);
                }
            }
            before = before.after(&header);
        }
        if end == self.tail.position && before != self.tail {
            return Err(AddRefusal::Content { position: before.position });
        }
        slot.entered = true;
        slot.dirty_end = self.segments.bytes();
        if end < segment_end {
            slot.clear_above(self.offset(end));
        }
        Ok(())
    }

    /// Gives up the oldest segment when the log below `below` is on the disk and nobody needs it hot: it ends at or below
    /// `below`, and two windows remain between its end and the tail.
    pub fn retire(&mut self, below: Position) -> Option<(Position, M)> {
        let end = self.segments.base()?.plus(self.segments.bytes());
        let kept = end.plus(HOT_WINDOWS_MIN * self.window_bytes);
        if end > below || kept > self.tail.position {
            return None;
        }
        self.segments.pop_oldest().map(|slot| (slot.base, slot.memory))
    }

    /// Cuts the log behind the frame that `at` describes, and zeroes everything above, published or not.
    ///
    /// Readers on other threads must have stopped reading above `at`: this is the middle of the cut protocol.
    ///
    /// # Errors
    /// [`CutError`]; nothing has changed.
    pub fn cut(&mut self, at: Predecessor) -> Result<(), CutError> {
        if at.position > self.tail.position {
            return Err(CutError::AboveTail { tail: self.tail.position });
        }
        if at.position < self.hot_base() {
            return Err(CutError::BelowHot { lowest: self.hot_base() });
        }
        let own = self.predecessor_at(at.position);
        if own != Some(at) {
            return Err(CutError::OtherLog { own });
        }
        self.drop_claim();
        let old = core::mem::replace(&mut self.tail, at).position;
        let segment_bytes = self.segments.bytes();
        let mut base = at.position.segment_base(segment_bytes);
        while base < old {
            self.segments.cut_index(base, at.position);
            if let Some(slot) = self.segments.at_mut(base) {
                slot.dirty_end = slot.dirty_end.max(old.since(base).min(segment_bytes));
            }
            base = base.plus(segment_bytes);
        }
        self.terms.cut(at.position);
        self.forget_above_tail();
        Ok(())
    }

    /// Zeroes every byte above the tail: placed out of order, or claimed and never committed.
    pub fn forget_above_tail(&mut self) {
        self.frontier = [0; 4];
        self.drop_claim();
        self.settle();
        let tail = self.tail.position;
        let segment_bytes = self.segments.bytes();
        for slot in self.segments.iter_mut() {
            if tail < slot.base.plus(segment_bytes) {
                slot.clear_above(tail.0.saturating_sub(slot.base.0));
            }
        }
    }
}

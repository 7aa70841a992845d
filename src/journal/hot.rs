//! The core's log: hot segments in memory, written, sent from, read and cut by one thread.
//!
//! One writer. A leader appends in place ([`HotLog::claim`], [`HotLog::commit`]); a follower places the bytes it receives
//! and lets the frontier advance over frames that chain ([`HotLog::place`], [`HotLog::verify`]). Either way the publish word
//! of a frame is stored last, and the word at the tail is 0: whoever walks the memory after a crash stops exactly there.
//!
//! Nothing here allocates after construction, blocks, or looks at a clock.

mod append;
mod change;
mod read;
mod receive;
mod segments;
#[cfg(test)]
mod tests;

use core::fmt;

use zerocopy::FromBytes;

pub use append::{Appended, ClaimError};
pub use change::{AddError, AddRefusal, CutError};
pub use read::{Chunk, Frames};
pub use receive::{BadFrame, Refusal, Verification};

use self::segments::{Segments, Slot};
use super::memory::SegmentMemory;
use super::segment_header::{Content, SegmentHeader};
use super::terms::{TermSpan, TermStartAt, TermTable};
use crate::frame::payload::TermStart;
use crate::frame::{FrameHeader, Kind, Predecessor};
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::mutants::Mutants;
use crate::types::{CutEpoch, Generation, GroupId, Leadership, Position, Term, Verified};

/// What a hot log is made with.
#[derive(Clone, Debug)]
pub struct HotSettings {
    /// Bytes of a segment's payload: a power of two, the group's constant.
    pub segment_bytes: u64,
    /// Window of the replication stream, in bytes: at least two of them stay hot below the tail.
    pub window_bytes: u64,
    /// Group.
    pub group: GroupId,
    /// Generation of the last frame, for a log whose `terms` do not say.
    pub generation: Generation,
    /// How header pages are written and read.
    pub header: HeaderPage,
    /// Starts of the terms that recovery found, oldest first.
    pub terms: Vec<TermStartAt>,
}

/// The layout of a segment's header page, as two functions.
#[derive(Clone, Copy, Hash, Debug)]
pub struct HeaderPage {
    /// Fills the page of a segment whose first frame is about to be published.
    pub enter: fn(page: &mut [u8], start: &SegmentStart),
    /// Reads back what stands before the first frame; `None` when the page was never filled.
    pub before: fn(page: &[u8]) -> Option<Predecessor>,
}

impl HeaderPage {
    /// The layout of every file of a log: [`SegmentHeader`].
    #[must_use]
    pub const fn standard() -> Self {
        Self { enter: enter_standard, before: before_standard }
    }
}

fn enter_standard(page: &mut [u8], start: &SegmentStart) {
    let header = SegmentHeader {
        content: Content::Segment,
        group: start.group,
        generation: start.generation,
        segment_bytes: start.segment_bytes,
        before: start.before,
        // Only durable files answer for cuts: a hot one that was cut is empty again.
        cut_epoch: CutEpoch(0),
    };
    header.encode_into(page);
}

fn before_standard(page: &[u8]) -> Option<Predecessor> {
    let header = SegmentHeader::decode(page).ok()?;
    (header.content == Content::Segment).then_some(header.before)
}

/// What a header page records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentStart {
    /// Group.
    pub group: GroupId,
    /// Generation of the last frame before the segment.
    pub generation: Generation,
    /// Bytes of the segment's payload.
    pub segment_bytes: u64,
    /// What stands before the first frame; its position is the segment's base.
    pub before: Predecessor,
}

/// The log of one node as its core holds it.
#[derive(Clone, Hash)]
pub struct HotLog<M> {
    segments: Segments<M>,
    payload_bytes_max: usize,
    window_bytes: u64,
    group: GroupId,
    generation: Generation,
    header: HeaderPage,
    terms: TermTable,
    /// What stands before the next frame: end of the log, and of what is verified.
    tail: Predecessor,
    /// The publish word at the tail, as received: it goes into memory only when its frame is verified.
    frontier: [u8; 4],
    /// Space handed out and not yet committed.
    claimed: Option<Claim>,
    /// What the hottest path would otherwise look up again for each frame.
    here: Here,
    /// Rules taken out, to prove that this is noticed.
    mutants: Mutants,
}

/// The tail's segment.
#[derive(Clone, Copy, Hash)]
struct Here {
    /// Its number.
    number: usize,
    /// Where it ends; the tail itself when it is not held.
    room_end: Position,
    /// A frame at or above this is looked at by [`HotLog::step`].
    step_at: Position,
}

#[derive(Clone, Copy, Hash)]
struct Claim {
    payload_bytes: usize,
    pads: bool,
}

impl<M: SegmentMemory> HotLog<M> {
    /// A log that ends at `tail`, without segments yet.
    #[must_use]
    pub fn new(settings: HotSettings, tail: Predecessor) -> Self {
        let segment_bytes = settings.segment_bytes;
        assert!(
            segment_bytes.is_power_of_two()
                && (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes),
            "a segment of {segment_bytes} bytes"
        );
        Self {
            segments: Segments::new(segment_bytes),
            payload_bytes_max: FRAME_BYTES_MAX.min(segment_bytes as usize) - FRAME_HEADER_BYTES,
            window_bytes: settings.window_bytes,
            group: settings.group,
            generation: settings.generation,
            header: settings.header,
            terms: TermTable::new(settings.terms),
            tail,
            frontier: [0; 4],
            claimed: None,
            here: Here { number: 0, room_end: tail.position, step_at: tail.position },
            mutants: Mutants::NONE,
        }
    }

    /// Takes rules out.
    #[cfg(feature = "sim")]
    pub fn plant(&mut self, mutants: Mutants) {
        self.mutants = mutants;
    }

    /// End of the log, and all that is needed to judge or write the next frame.
    #[must_use]
    pub fn tail(&self) -> Predecessor {
        self.tail
    }

    /// End of the last frame that chains. In this log that is its tail.
    #[must_use]
    pub fn verified(&self) -> Verified {
        Verified(self.tail.position)
    }

    /// Lowest position held. Equal to the tail's when there are no segments.
    #[must_use]
    pub fn hot_base(&self) -> Position {
        self.segments.base().unwrap_or(self.tail.position)
    }

    /// End of the last segment: there is no room from here on.
    #[must_use]
    pub fn end_of_room(&self) -> Position {
        self.segments.end().unwrap_or(self.tail.position)
    }

    /// Segments held.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.count()
    }

    /// Bytes of a segment's payload.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segments.bytes()
    }

    /// End of the frames of which it is known whose they are: padding that a new leader wrote in front of its term start is
    /// its own only together with that. Nothing above counts as committed: where logs part is told by leadership.
    #[must_use]
    pub fn named_end(&self) -> Position {
        self.terms.unnamed().unwrap_or(self.tail.position)
    }

    /// Starts of terms that are remembered.
    #[must_use]
    pub fn terms(&self) -> &TermTable {
        &self.terms
    }

    /// The newest leadership in this log at or below `leadership`, and where its frames lie. `None`: it has none so old, or
    /// has forgotten it.
    #[must_use]
    pub fn latest_at_or_below(&self, leadership: Leadership) -> Option<TermSpan> {
        self.terms.latest_at_or_below(leadership, self.tail.position)
    }

    /// From where on it remembers all starts of terms; older ones are in the durable files alone. None: it remembers all.
    #[must_use]
    pub fn forgot_terms_below(&self) -> Option<Position> {
        self.terms.forgot_below(self.tail.position)
    }

    /// Remembers no more starts of terms than this: tests make it few.
    #[cfg(any(test, feature = "sim"))]
    pub fn set_terms_max(&mut self, most: usize) {
        self.terms.set_most(most);
    }

    /// Leadership of the last frame.
    #[must_use]
    pub fn last_leadership(&self) -> Leadership {
        Leadership { generation: self.last_generation(), term: self.tail.term }
    }

    fn last_generation(&self) -> Generation {
        self.terms.last().map_or(self.generation, |start| start.leadership.generation)
    }

    #[inline]
    fn offset(&self, position: Position) -> u64 {
        self.segments.offset(position)
    }

    /// Finds the tail's segment. Whenever it may be another one, or be held now.
    #[cold]
    fn settle(&mut self) {
        let tail = self.tail.position;
        let held = self.segments.at(tail).map(|slot| slot.base.plus(self.segments.bytes()));
        self.here = Here {
            number: self.segments.number(tail),
            room_end: held.unwrap_or(tail),
            // The next frame is looked at whatever it is, and says when the one after it is.
            step_at: tail,
        };
    }

    /// Every frame that joins the log passes here, in order, just before its publish word is stored.
    #[inline]
    fn note(&mut self, header: FrameHeader) {
        const { assert!(Kind::Padding as u8 <= 2 && Kind::TermStart as u8 <= 2) }
        if self.tail.position >= self.here.step_at {
            self.step();
        }
        if header.kind <= 2 {
            self.note_kind(header);
        }
    }

    /// A frame that opens its segment, or that the index wants to know.
    #[cold]
    fn step(&mut self) {
        if self.offset(self.tail.position) == 0 {
            self.enter_segment();
        }
        self.here.step_at = self.segments.record(self.tail);
    }

    #[cold]
    fn note_kind(&mut self, header: FrameHeader) {
        if header.kind == Kind::Padding as u8 {
            let before = self.tail;
            let offset = self.offset(before.position);
            self.slot().pad = Some(offset);
            if header.term() > before.term {
                self.terms.pad(before.position);
            }
        } else if header.kind == Kind::TermStart as u8 {
            self.note_term_start(header.term(), header.length());
        }
    }

    fn note_term_start(&mut self, term: Term, length: u32) {
        let offset = self.offset(self.tail.position) + FRAME_HEADER_BYTES as u64;
        let payload = length as usize - FRAME_HEADER_BYTES;
        let before = self.last_generation();
        let payload = self.slot().memory.bytes(offset, payload);
        // One too short to name its generation is of the generation before.
        let generation = TermStart::read_from_prefix(payload)
            .map_or(before, |(start, _)| Generation::from_u64(start.generation.get()));
        self.terms.push(Leadership { generation, term }, self.tail.position);
    }

    fn enter_segment(&mut self) {
        let start = SegmentStart {
            group: self.group,
            generation: self.last_generation(),
            segment_bytes: self.segments.bytes(),
            before: self.tail,
        };
        let enter = self.header.enter;
        let slot = self.slot();
        enter(slot.memory.header_mut(), &start);
        slot.entered = true;
    }

    /// The tail's segment, which the caller has found to be held.
    #[inline]
    fn slot(&mut self) -> &mut Slot<M> {
        self.segments.numbered(self.here.number)
    }
}

impl<M> fmt::Debug for HotLog<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotLog")
            .field("tail", &self.tail)
            .field("hot_base", &self.segments.base())
            .field("segments", &self.segments.count())
            .finish_non_exhaustive()
    }
}

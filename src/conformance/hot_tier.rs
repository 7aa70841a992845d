//! Checks of a [`HotTier`]: memory that is zeros at first, stays where it is, shows readers what is published, and is found
//! again by the next process.
//!
//! ```
//! use quorate::conformance::hot_tier;
//! use quorate::journal::HeapHotTier;
//!
//! let bytes = 64 * 1024;
//! let passed = hot_tier::check(HeapHotTier::new(bytes, 1), bytes, Ok);
//! assert!(passed.expect("the tier conforms").steps > 30);
//! ```

use core::fmt;
use std::io::{self, ErrorKind};

use crate::frame::span;
use crate::journal::{HotTier, SegmentMemory, SegmentView};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::Position;

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Passed {
    /// Steps that did what they should.
    pub steps: usize,
    /// Frames published and read by a view.
    pub frames: usize,
}

/// What a tier broke.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Something that must succeed was refused.
    Refused {
        /// What was tried.
        step: &'static str,
        /// The tier's answer.
        error: String,
    },
    /// Something that must be refused succeeded, or was refused with an error of another kind.
    NotRefused {
        /// What was tried.
        step: &'static str,
        /// How it was refused, if it was.
        found: Option<ErrorKind>,
    },
    /// The segments are others, or not sorted.
    Segments {
        /// What was tried.
        step: &'static str,
        /// Those that must be there.
        expected: Vec<Position>,
        /// Those that are.
        found: Vec<Position>,
    },
    /// A header page or a payload of another length.
    Size {
        /// What was tried.
        step: &'static str,
        /// Bytes that it must have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// Other bytes were read.
    Bytes {
        /// What was tried.
        step: &'static str,
        /// Offset of the first that is wrong.
        at: u64,
    },
    /// The payload is not in one piece, or has moved.
    Moved {
        /// What was tried.
        step: &'static str,
    },
    /// Another publish word was loaded than was stored.
    Word {
        /// What was tried.
        step: &'static str,
        /// As stored.
        expected: u32,
        /// As loaded.
        found: u32,
    },
    /// A tier that was opened again has another identity, though its segments are there.
    Identity,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { step, error } => write!(f, "{step}: refused: {error}"),
            Self::NotRefused { step, found: None } => write!(f, "{step}: must be refused"),
            Self::NotRefused { step, found: Some(found) } => {
                write!(f, "{step}: refused with the wrong error: {found}")
            }
            Self::Segments { step, expected, found } => {
                write!(f, "{step}: the segments must be {expected:?}, not {found:?}")
            }
            Self::Size { step, expected, found } => {
                write!(f, "{step}: {expected} bytes are due, not {found}")
            }
            Self::Bytes { step, at } => write!(f, "{step}: wrong bytes from {at} on"),
            Self::Moved { step } => write!(f, "{step}: the payload is not where it was"),
            Self::Word { step, expected, found } => {
                write!(f, "{step}: the publish word must be {expected}, not {found}")
            }
            Self::Identity => write!(f, "opened again, the tier has another identity"),
        }
    }
}

impl core::error::Error for Failure {}

/// Lengths of the frames that are published.
const LENGTHS: [u32; 5] = [32, 33, 64, 1000, 4097];
/// Pieces in which a segment is populated.
const PIECES: u64 = 8;

/// Checks a tier without segments, whose payloads have `segment_bytes` (16 KiB at least); leaves none behind.
///
/// `reopen` lets go of the tier and opens it again, as the next process does when this one was killed.
///
/// # Errors
/// The first [`Failure`].
pub fn check<H: HotTier>(
    tier: H,
    segment_bytes: u64,
    mut reopen: impl FnMut(H) -> io::Result<H>,
) -> Result<Passed, Failure> {
    assert!(segment_bytes >= 16 * 1024, "room for the frames of the suite");
    let mut suite = Suite { tier, segment_bytes, passed: Passed::default() };
    let (first, second) = (Position(0), Position(segment_bytes));
    suite.files(first, second)?;
    let (memory, view) = suite.open("opening", first)?;
    let frames = suite.frames(memory, &view, second)?;
    drop(view);
    let id = suite.tier.id();
    let Suite { tier, passed, .. } = suite;
    let tier = reopen(tier)
        .map_err(|error| Failure::Refused { step: "opening it again", error: error.to_string() })?;
    let mut suite = Suite { tier, segment_bytes, passed };
    if suite.tier.id() != id {
        return Err(Failure::Identity);
    }
    suite.segments("after it was opened again", &[first, second])?;
    let (mut memory, view) = suite.open("opening what was there", first)?;
    let found = view.bytes(0, frames.len());
    same("reading what was published before", found, &frames)?;
    same("reading it by the core", memory.bytes(0, frames.len()), &frames)?;
    let header = memory.header_mut();
    same("reading a header page written before", header, &[0x5A; SEGMENT_HEADER_BYTES])?;
    drop((memory, view));
    suite.zeros_again(first, second)?;
    Ok(suite.passed)
}

struct Suite<H> {
    tier: H,
    segment_bytes: u64,
    passed: Passed,
}

impl<H: HotTier> Suite<H> {
    fn ok<T>(&mut self, step: &'static str, result: io::Result<T>) -> Result<T, Failure> {
        self.passed.steps += 1;
        result.map_err(|error| Failure::Refused { step, error: error.to_string() })
    }

    fn refused<T>(
        &mut self,
        step: &'static str,
        expected: Option<ErrorKind>,
        result: io::Result<T>,
    ) -> Result<(), Failure> {
        self.passed.steps += 1;
        match result.err().map(|error| error.kind()) {
            Some(kind) if expected.is_none_or(|expected| kind == expected) => Ok(()),
            found => Err(Failure::NotRefused { step, found }),
        }
    }

    fn segments(&mut self, step: &'static str, expected: &[Position]) -> Result<(), Failure> {
        let found = self.tier.list();
        let found = self.ok(step, found)?;
        if found == expected {
            return Ok(());
        }
        Err(Failure::Segments { step, expected: expected.to_vec(), found })
    }

    /// Creates a segment, and populates all of it.
    fn make(&mut self, base: Position) -> Result<(), Failure> {
        let created = self.tier.create(base);
        self.ok("creating", created)?;
        self.populate(base)
    }

    fn populate(&mut self, base: Position) -> Result<(), Failure> {
        let all = SEGMENT_HEADER_BYTES as u64 + self.segment_bytes;
        let piece = all.div_ceil(PIECES);
        let mut at = 0;
        while at < all {
            let length = piece.min(all - at);
            let populated = self.tier.populate(base, at, length);
            self.ok("populating a piece", populated)?;
            at += length;
        }
        Ok(())
    }

    fn files(&mut self, first: Position, second: Position) -> Result<(), Failure> {
        self.segments("at the start", &[])?;
        let missing = self.tier.open(first);
        self.refused("opening what is not there", Some(ErrorKind::NotFound), missing)?;
        let missing = self.tier.remove(first);
        self.refused("removing what is not there", Some(ErrorKind::NotFound), missing)?;
        let missing = self.tier.populate(first, 0, 1);
        self.refused("populating what is not there", Some(ErrorKind::NotFound), missing)?;
        self.make(second)?;
        self.make(first)?;
        self.segments("two segments, the later one made first", &[first, second])?;
        let again = self.tier.create(first);
        self.refused("creating what is there", Some(ErrorKind::AlreadyExists), again)?;
        let all = SEGMENT_HEADER_BYTES as u64 + self.segment_bytes;
        let beyond = self.tier.populate(first, all - 1, 2);
        self.refused("populating behind the end", None, beyond)
    }

    /// Opens a segment that was populated and not written.
    fn open(
        &mut self,
        step: &'static str,
        base: Position,
    ) -> Result<(H::Memory, H::View), Failure> {
        let opened = self.tier.open(base);
        let (mut memory, view) = self.ok(step, opened)?;
        let (found, expected) = (memory.payload_bytes(), self.segment_bytes);
        if found != expected {
            return Err(Failure::Size { step, expected, found });
        }
        let (found, expected) = (memory.header_mut().len() as u64, SEGMENT_HEADER_BYTES as u64);
        if found != expected {
            return Err(Failure::Size { step, expected, found });
        }
        Ok((memory, view))
    }

    fn is_zero(&mut self, memory: &mut H::Memory, view: &H::View) -> Result<(), Failure> {
        self.passed.steps += 3;
        let length = self.segment_bytes as usize;
        zeros("reading a new header page", memory.header_mut())?;
        zeros("reading a new payload", memory.bytes(0, length))?;
        zeros("reading a new payload by a view", view.bytes(0, length))?;
        word("loading a new publish word", memory, 0, 0)
    }

    /// Publishes frames one behind the other; returns their bytes.
    fn frames(
        &mut self,
        mut memory: H::Memory,
        view: &H::View,
        other: Position,
    ) -> Result<Vec<u8>, Failure> {
        self.is_zero(&mut memory, view)?;
        let place = memory.bytes(0, self.segment_bytes as usize).as_ptr();
        memory.header_mut().fill(0x5A);
        let mut frames = Vec::new();
        for length in LENGTHS {
            let at = frames.len() as u64;
            let body = length as usize - 4;
            memory.bytes_mut(at + 4, body).fill(length as u8 | 1);
            word("loading a word before it is published", &memory, at, 0)?;
            memory.publish(at, length);
            word("loading a publish word", &memory, at, length)?;
            frames.extend(length.to_le_bytes());
            frames.resize(frames.len() + body, length as u8 | 1);
            frames.resize((at + span(length)) as usize, 0);
            same("reading what is published, by the core", memory.bytes(0, frames.len()), &frames)?;
            same("reading what is published, by a view", view.bytes(0, frames.len()), &frames)?;
            self.passed.frames += 1;
        }
        // Taken back, as by a cut: a view sees that there is no frame.
        let at = frames.len() as u64;
        memory.bytes_mut(at + 4, 28).fill(9);
        memory.publish(at, 32);
        memory.publish(at, 0);
        word("loading a word that was taken back", &memory, at, 0)?;
        zeros("reading a word that was taken back, by a view", view.bytes(at, 4))?;
        memory.bytes_mut(at + 4, 28).fill(0);
        // The core's slices are handed out while the owner moves and other segments come.
        let (mut other, other_view) = self.open("opening a second segment", other)?;
        self.is_zero(&mut other, &other_view)?;
        let moved = Box::new(memory);
        let step = "after publishing, moving the owner and opening another segment";
        let now = moved.bytes(0, self.segment_bytes as usize).as_ptr();
        let inside = moved.bytes(4096, 8).as_ptr();
        if now != place || inside.addr() != place.addr() + 4096 {
            return Err(Failure::Moved { step });
        }
        same(step, moved.bytes(0, frames.len()), &frames)?;
        Ok(frames)
    }

    /// Segments that are populated or made again have forgotten everything.
    fn zeros_again(&mut self, first: Position, second: Position) -> Result<(), Failure> {
        self.populate(first)?;
        let (mut memory, view) = self.open("opening what was populated again", first)?;
        self.is_zero(&mut memory, &view)?;
        memory.bytes_mut(4, 28).fill(3);
        memory.publish(0, 32);
        drop((memory, view));
        let removed = self.tier.remove(first);
        self.ok("removing", removed)?;
        self.segments("after a segment was removed", &[second])?;
        self.make(first)?;
        let (mut memory, view) = self.open("opening what was made again", first)?;
        self.is_zero(&mut memory, &view)?;
        drop((memory, view));
        for base in [first, second] {
            let removed = self.tier.remove(base);
            self.ok("removing", removed)?;
        }
        self.segments("after all were removed", &[])
    }
}

fn same(step: &'static str, found: &[u8], expected: &[u8]) -> Result<(), Failure> {
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).take_while(|(found, due)| found == due).count() as u64;
    Err(Failure::Bytes { step, at })
}

fn zeros(step: &'static str, found: &[u8]) -> Result<(), Failure> {
    match found.iter().position(|byte| *byte != 0) {
        Some(at) => Err(Failure::Bytes { step, at: at as u64 }),
        None => Ok(()),
    }
}

fn word(
    step: &'static str,
    memory: &impl SegmentMemory,
    at: u64,
    expected: u32,
) -> Result<(), Failure> {
    let found = memory.published(at);
    if found == expected { Ok(()) } else { Err(Failure::Word { step, expected, found }) }
}

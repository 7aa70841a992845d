//! Walking a log frame by frame: recovery, tools and tailing processes all judge a log with this.
//!
//! Nothing is believed but what chains. A walk stops with the exact position and the exact rule that was broken; whether
//! that is the end of the log, a torn tail or damage is for the caller to say, who knows what was promised.

pub mod proof;

use core::fmt;
use std::io;

use zerocopy::FromBytes;

use super::memory::{DurableFile, SegmentMemory};
use super::terms::TermStartAt;
use crate::frame::payload::TermStart;
use crate::frame::{FrameError, FrameHeader, Kind, Predecessor, check_frame};
use crate::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::types::{Generation, Leadership, Position, Sequence, Timestamp};

/// Bytes read at once, unless a frame needs more.
const READ_BYTES: usize = 256 * 1024;

/// A log's bytes by position.
pub trait LogBytes {
    /// Fills `bytes` with what stands at `position` and behind it, as far as there is something; returns how many were
    /// filled. Never called across the end of a segment.
    ///
    /// # Errors
    /// The host's.
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize>;
}

impl<S: LogBytes + ?Sized> LogBytes for &S {
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        (**self).read(position, bytes)
    }
}

/// Bytes in memory that stand at `base` and behind it.
#[derive(Clone, Copy, Debug)]
pub struct SliceBytes<'a> {
    /// Where they start.
    pub base: Position,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl LogBytes for SliceBytes<'_> {
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        let from = position.0.checked_sub(self.base.0).map(|from| from as usize);
        let here = from.and_then(|from| self.bytes.get(from..)).unwrap_or(&[]);
        let length = here.len().min(bytes.len());
        bytes[..length].copy_from_slice(&here[..length]);
        Ok(length)
    }
}

/// The payload of one segment file.
#[derive(Clone, Copy, Debug)]
pub struct FileBytes<'a, F> {
    /// Base of the segment.
    pub base: Position,
    /// The file: header page, then payload.
    pub file: &'a F,
}

impl<F: DurableFile> LogBytes for FileBytes<'_, F> {
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        let Some(offset) = position.0.checked_sub(self.base.0) else { return Ok(0) };
        self.file.read_at(bytes, SEGMENT_HEADER_BYTES as u64 + offset)
    }
}

/// Hot segments that were found, contiguous and in order.
#[derive(Clone, Copy, Debug)]
pub struct HotBytes<'a, M> {
    /// Bases and memory.
    pub segments: &'a [(Position, M)],
}

impl<M: SegmentMemory> LogBytes for HotBytes<'_, M> {
    fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
        let above = self.segments.partition_point(|&(base, _)| base <= position);
        let Some((base, memory)) = above.checked_sub(1).map(|number| &self.segments[number]) else {
            return Ok(0);
        };
        let offset = position.since(*base);
        let length = memory.payload_bytes().saturating_sub(offset).min(bytes.len() as u64) as usize;
        if length > 0 {
            bytes[..length].copy_from_slice(memory.bytes(offset, length));
        }
        Ok(length)
    }
}

/// A frame that chains to all before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'a> {
    /// Where it stands.
    pub position: Position,
    /// Its header.
    pub header: FrameHeader,
    /// What it carries; nothing for padding.
    pub payload: &'a [u8],
}

impl Found<'_> {
    /// The leadership that it opens, if it is a term start. Its generation is `before`'s when the payload is too short to
    /// name one.
    #[must_use]
    pub fn leadership(&self, before: Generation) -> Option<Leadership> {
        (self.header.kind() == Some(Kind::TermStart)).then(|| {
            let generation = TermStart::read_from_prefix(self.payload)
                .map_or(before, |(start, _)| Generation::from_u64(start.generation.get()));
            Leadership { generation, term: self.header.term() }
        })
    }
}

/// Where and why a walk went no further.
#[derive(Debug)]
pub struct Trouble {
    /// Start of the frame that should stand there.
    pub position: Position,
    /// What is wrong.
    pub cause: Cause,
}

/// See [`Trouble`].
#[derive(Debug)]
pub enum Cause {
    /// A rule of the format is broken. `Unpublished` and `Short` are also what the end of a log looks like.
    Frame(FrameError),
    /// What stands there has left: the log begins at this position.
    Gone(Position),
    /// The host could not read.
    Host(io::Error),
}

impl Trouble {
    /// What a log that simply ends looks like: nothing is published here, or no bytes are.
    #[must_use]
    pub fn may_be_end(&self) -> bool {
        matches!(self.cause, Cause::Frame(FrameError::Unpublished | FrameError::Short { .. }))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: ", self.position)?;
        match &self.cause {
            Cause::Frame(error) => error.fmt(f),
            Cause::Gone(first) => {
                write!(
                    f,
                    "the log begins at {first}, and no snapshot that can be used covers what is before"
                )
            }
            Cause::Host(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Frame(error) => Some(error),
            Cause::Host(error) => Some(error),
            Cause::Gone(_) => None,
        }
    }
}

/// Walks a log upward from a known predecessor.
#[derive(Debug)]
pub struct Walker<S> {
    source: S,
    segment_bytes: u64,
    before: Predecessor,
    /// Bytes from `buffered` on.
    buffer: Vec<u8>,
    buffered: Position,
}

impl<S: LogBytes> Walker<S> {
    /// A walk that starts behind the frame that `before` describes, over a log of segments of `segment_bytes`.
    #[must_use]
    pub fn new(source: S, segment_bytes: u64, before: Predecessor) -> Self {
        Self { source, segment_bytes, before, buffer: Vec::new(), buffered: before.position }
    }

    /// What stands before the next frame.
    #[must_use]
    pub fn before(&self) -> Predecessor {
        self.before
    }

    /// Where the bytes come from.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    /// As [`Walker::source`], to be changed: bytes already read are read again.
    pub fn source_mut(&mut self) -> &mut S {
        self.buffer.clear();
        &mut self.source
    }

    /// Goes on behind another frame.
    pub fn restart(&mut self, before: Predecessor) {
        self.before = before;
        self.buffer.clear();
    }

    /// The next frame that ends at or below `limit`. None: there is none yet. Bytes at or above `limit` are never read, so
    /// the limit may be a live log's commit position.
    ///
    /// # Errors
    /// [`Trouble`]; asking again reads again.
    pub fn next_frame(&mut self, limit: Position) -> Result<Option<Found<'_>>, Trouble> {
        let Some(header) = self.judge(limit)? else { return Ok(None) };
        let position = self.before.position;
        self.before = self.before.after(&header);
        let payload = if header.kind() == Some(Kind::Padding) {
            &[]
        } else {
            let start = position.since(self.buffered) as usize;
            &self.buffer[start..][FRAME_HEADER_BYTES..header.length() as usize]
        };
        Ok(Some(Found { position, header, payload }))
    }

    /// Walks up to the first frame for which `reached` holds, and stops in front of it. False: `limit` came first.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn seek(
        &mut self,
        limit: Position,
        mut reached: impl FnMut(Position, &FrameHeader) -> bool,
    ) -> Result<bool, Trouble> {
        while let Some(header) = self.judge(limit)? {
            if reached(self.before.position, &header) {
                return Ok(true);
            }
            self.before = self.before.after(&header);
        }
        Ok(false)
    }

    /// Judges the next frame without passing it.
    fn judge(&mut self, limit: Position) -> Result<Option<FrameHeader>, Trouble> {
        let judged = self.try_judge(limit);
        if judged.is_err() {
            self.buffer.clear();
        }
        judged
    }

    fn try_judge(&mut self, limit: Position) -> Result<Option<FrameHeader>, Trouble> {
        let (before, segment_bytes) = (self.before, self.segment_bytes);
        let position = before.position;
        let trouble = |cause| Trouble { position, cause };
        let mut needed = FRAME_HEADER_BYTES;
        loop {
            if position.plus(needed as u64) > limit {
                return Ok(None);
            }
            let bytes = self.bytes(needed, limit).map_err(|e| trouble(Cause::Host(e)))?;
            let whole = bytes.len() >= needed;
            let word = bytes.first_chunk().map_or(0, |&word| u32::from_le_bytes(word));
            match check_frame(before, segment_bytes, word, bytes) {
                Ok(header) if position.plus(header.span()) > limit => return Ok(None),
                Ok(header) => return Ok(Some(header)),
                Err(FrameError::Short { needed: more }) if whole && more as usize > needed => {
                    needed = more as usize;
                }
                // Some of a header is there, and then nothing.
                Err(FrameError::Unpublished) if !whole && !bytes.is_empty() => {
                    let needed = FRAME_HEADER_BYTES as u64;
                    return Err(trouble(Cause::Frame(FrameError::Short { needed })));
                }
                Err(error) => return Err(trouble(Cause::Frame(error))),
            }
        }
    }

    /// The bytes from the next frame on: at least `needed`, if there are so many below `limit`.
    fn bytes(&mut self, needed: usize, limit: Position) -> io::Result<&[u8]> {
        let position = self.before.position;
        let skip = position.0.checked_sub(self.buffered.0).map(|skip| skip as usize);
        let skip = skip.filter(|&skip| skip <= self.buffer.len());
        match skip {
            Some(skip) if self.buffer.len() - skip >= needed => return Ok(&self.buffer[skip..]),
            Some(skip) => drop(self.buffer.drain(..skip)),
            None => self.buffer.clear(),
        }
        self.buffered = position;
        let segment_end = position.segment_base(self.segment_bytes).plus(self.segment_bytes);
        let most = segment_end.min(limit).since(position);
        let wanted = (needed.max(READ_BYTES) as u64).min(most) as usize;
        let held = self.buffer.len();
        if held < wanted {
            self.buffer.resize(wanted, 0);
            let read = self.source.read(position.plus(held as u64), &mut self.buffer[held..]);
            self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
            read?;
        }
        Ok(&self.buffer)
    }
}

/// How far a log can be followed.
#[derive(Debug)]
pub struct ChainEnd {
    /// End of the last frame that chains.
    pub tail: Predecessor,
    /// Frames up to there, padding included.
    pub frames: u64,
    /// Starts of terms among them.
    pub terms: Vec<TermStartAt>,
    /// Why it ends there. None: `limit` came first.
    pub stopped: Option<Trouble>,
}

/// Follows a log from behind `before` as far as it chains, at most to `limit`. `generation` is the one before the first term
/// start that is found.
#[must_use]
pub fn follow_chain(
    source: impl LogBytes,
    segment_bytes: u64,
    before: Predecessor,
    generation: Generation,
    limit: Position,
) -> ChainEnd {
    let mut walker = Walker::new(source, segment_bytes, before);
    let mut end = ChainEnd { tail: before, frames: 0, terms: Vec::new(), stopped: None };
    let mut generation = generation;
    let mut first_of_term = before.position;
    loop {
        let term = walker.before().term;
        match walker.next_frame(limit) {
            Ok(Some(found)) => {
                if found.header.term() > term {
                    first_of_term = found.position;
                }
                if let Some(leadership) = found.leadership(generation) {
                    generation = leadership.generation;
                    // Padding may stand in front of the term start: the term begins with it.
                    end.terms.push(TermStartAt { leadership, base: first_of_term });
                }
                end.frames += 1;
            }
            Ok(None) => break,
            Err(trouble) => {
                end.stopped = Some(trouble);
                break;
            }
        }
        end.tail = walker.before();
    }
    end
}

/// Of segments that start behind these frames, in order, the one to look for an entry in. None: it is older than all.
#[must_use]
pub fn segment_of_sequence(starts: &[Predecessor], sequence: Sequence) -> Option<usize> {
    starts.partition_point(|start| start.sequence < sequence).checked_sub(1)
}

/// Of segments whose first frames have these times, in order, the one where the first entry at or after `time` is looked
/// for: entries of one time may begin in the segment before.
#[must_use]
pub fn segment_of_time(starts: &[Timestamp], time: Timestamp) -> Option<usize> {
    let later = starts.partition_point(|&start| start < time);
    (!starts.is_empty()).then(|| later.saturating_sub(1))
}

#[cfg(test)]
mod tests;

//! Is this frame the next link of the chain? The one place that decides it, for receivers, recovery and tools alike.

use core::fmt;

use zerocopy::FromBytes;

use super::{FRAME_VERSION, FrameHeader, Kind, crc, span};
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use crate::types::{Chain, GroupId, Position, Sequence, Term};

/// What stands before a frame: all that is needed to judge the next one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Predecessor {
    /// Where the next frame starts.
    pub position: Position,
    /// Sequence of the last entry.
    pub sequence: Sequence,
    /// Term of the last frame.
    pub term: Term,
    /// Checksum of the last frame.
    pub chain: Chain,
}

impl Predecessor {
    /// What stands before the first frame of a group's log: its checksum is drawn from the group's identity, so that logs of
    /// two groups never chain.
    #[must_use]
    pub fn genesis(group: GroupId) -> Self {
        Self { chain: Chain(crc::crc32c(0, &group.0.to_le_bytes())), ..Self::default() }
    }
    /// What stands before the frame that follows `header`.
    #[must_use]
    pub fn after(self, header: &FrameHeader) -> Self {
        Self {
            position: self.position.plus(header.span()),
            sequence: header.sequence(),
            term: header.term(),
            chain: header.chain(),
        }
    }
}

/// The rule that bytes broke which stand where a frame should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// The publish word is 0: nothing has been published here.
    Unpublished,
    /// The length is below a header, above the largest frame, or crosses the segment's end.
    Length {
        /// As found.
        length: u32,
    },
    /// Fewer bytes are here than the frame needs.
    Short {
        /// Bytes it needs.
        needed: u64,
    },
    /// Not a kind of this format.
    UnknownKind {
        /// As found.
        kind: u8,
    },
    /// A version of the format that this program does not read.
    Version {
        /// As found.
        version: u16,
    },
    /// Reserved flags are set.
    Flags {
        /// As found.
        flags: u8,
    },
    /// The sequence does not follow.
    Sequence {
        /// As found.
        found: Sequence,
        /// What would follow.
        expected: Sequence,
    },
    /// The term is older than the frame before.
    TermBackwards {
        /// As found.
        found: Term,
        /// Term of the frame before.
        before: Term,
    },
    /// Padding that does not reach exactly to the end of its segment.
    PaddingLength {
        /// As found.
        length: u32,
    },
    /// The bytes between the payload and the next frame are not zero.
    Fill,
    /// The checksum does not chain to the frame before.
    Chain {
        /// As found.
        found: Chain,
        /// As computed.
        computed: Chain,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpublished => write!(f, "nothing published here (length 0)"),
            Self::Length { length } => write!(f, "impossible length {length}"),
            Self::Short { needed } => write!(f, "cut short: needs {needed} bytes"),
            Self::UnknownKind { kind } => write!(f, "unknown kind {kind}"),
            Self::Version { version } => {
                write!(f, "format version {version}, this program reads {FRAME_VERSION}")
            }
            Self::Flags { flags } => write!(f, "reserved flags {flags:#04x} are set"),
            Self::Sequence { found, expected } => {
                write!(f, "sequence {found} where {expected} follows")
            }
            Self::TermBackwards { found, before } => write!(f, "term {found} after term {before}"),
            Self::PaddingLength { length } => {
                write!(f, "padding of {length} bytes does not end its segment")
            }
            Self::Fill => write!(f, "bytes after the payload are not zero"),
            Self::Chain { found, computed } => {
                write!(
                    f,
                    "checksum {:#010x} does not chain, computed {:#010x}",
                    found.0, computed.0
                )
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// Judges the frame that starts `bytes`, which stand at `before.position` in a log of segments of `segment_bytes`.
///
/// `word` is the frame's publish word, taken separately because a receiver keeps it out of the map until the frame is
/// verified; readers pass the word they loaded. `bytes` may run on behind the frame and, for padding, need hold only the
/// header. Returns the header, its length set to `word`.
///
/// # Errors
/// The first rule that is broken, in the order of [`FrameError`]'s variants.
pub fn check_frame(
    before: Predecessor,
    segment_bytes: u64,
    word: u32,
    bytes: &[u8],
) -> Result<FrameHeader, FrameError> {
    if word == 0 {
        return Err(FrameError::Unpublished);
    }
    let length = word as usize;
    let span = span(word);
    let left =
        before.position.segment_base(segment_bytes).plus(segment_bytes).since(before.position);
    if length < FRAME_HEADER_BYTES || span > left {
        return Err(FrameError::Length { length: word });
    }
    let Ok((header, rest)) = FrameHeader::read_from_prefix(bytes) else {
        return Err(FrameError::Short { needed: FRAME_HEADER_BYTES as u64 });
    };
    let header = FrameHeader { length: word.into(), ..header };
    let kind = header.kind().ok_or(FrameError::UnknownKind { kind: header.kind })?;
    let padding = kind == Kind::Padding;
    if !padding && length > FRAME_BYTES_MAX {
        return Err(FrameError::Length { length: word });
    }
    if header.version.get() != FRAME_VERSION {
        return Err(FrameError::Version { version: header.version.get() });
    }
    if header.flags != 0 {
        return Err(FrameError::Flags { flags: header.flags });
    }
    let expected = if padding { before.sequence } else { before.sequence.next() };
    if header.sequence() != expected {
        return Err(FrameError::Sequence { found: header.sequence(), expected });
    }
    if header.term() < before.term {
        return Err(FrameError::TermBackwards { found: header.term(), before: before.term });
    }
    let payload = if padding {
        if u64::from(word) != left {
            return Err(FrameError::PaddingLength { length: word });
        }
        &[][..]
    } else {
        let body = span as usize - FRAME_HEADER_BYTES;
        let Some(body) = rest.get(..body) else {
            return Err(FrameError::Short { needed: span });
        };
        let (payload, fill) = body.split_at(length - FRAME_HEADER_BYTES);
        if fill.iter().any(|&byte| byte != 0) {
            return Err(FrameError::Fill);
        }
        payload
    };
    let computed = crc::chain(before.chain, &header, before.position, payload);
    if computed != header.chain() {
        return Err(FrameError::Chain { found: header.chain(), computed });
    }
    Ok(header)
}

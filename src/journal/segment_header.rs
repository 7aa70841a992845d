//! The header page in front of every segment: whose log this is, where in it the payload starts, and what stands before.
//!
//! ```text
//!    0 +-----------------------------------------------------------+
//!      | magic, format version, what it holds, group, generation,  |
//!      | base, segment bytes, predecessor of the base, cut epoch,  |   128 bytes, crc last
//!      | crc32c                                                    |
//!  128 +-----------------------------------------------------------+
//!      | zero                                                      |
//! 1024 +-----------------------------------------------------------+
//!      | seals with even numbers                                   |   512 bytes
//! 1536 +-----------------------------------------------------------+
//!      | seals with odd numbers                                    |   512 bytes
//! 2048 +-----------------------------------------------------------+
//!      | zero                                                      |
//! 4096 +-----------------------------------------------------------+
//!      | payload: frames                                           |
//! ```
//!
//! Little-endian. Fields and seals lie in sectors of their own, so that tearing one leaves the others. The same page starts a
//! durable segment, a hot segment and a file of saved bytes in `quarantine/`, so every tool reads all three.

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::hot::{HeaderPage, SegmentStart};
use crate::frame::Predecessor;
use crate::frame::crc::crc32c;
use crate::limits::{
    FRAME_ALIGNMENT, SEAL_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
};
use crate::types::{Chain, CutEpoch, Generation, GroupId, Position, Sequence, Term};

/// First bytes of every file of a log.
pub const SEGMENT_MAGIC: [u8; 8] = *b"QUORLOG\n";
/// Version of the segment format that this program writes.
pub const SEGMENT_VERSION: u16 = 1;
/// Where the two seals stand in the header page.
pub const SEAL_OFFSETS: [usize; 2] = [1024, 1024 + SEAL_BYTES];

/// The page as the hot log writes and reads it.
pub const HEADER_PAGE: HeaderPage = HeaderPage { enter, before };

/// What the payload of a file with a header page is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
pub enum Content {
    /// A segment of the log: base a multiple of the segment's bytes, payload of exactly that many.
    Segment = 1,
    /// Bytes that were cut from the log: any aligned base, as many bytes as the file has, possibly damaged.
    Quarantine = 2,
}

/// The header page's own fields, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SegmentHeader {
    /// What follows the page.
    pub content: Content,
    /// Whose log.
    pub group: GroupId,
    /// Generation of the last frame before the base, when the file was begun.
    pub generation: Generation,
    /// Payload bytes of a segment in this log: a constant of the group.
    pub segment_bytes: u64,
    /// What stands before the first frame of the payload; its position is the file's base.
    pub before: Predecessor,
    /// Cuts that the log had seen when the file was begun; 0 in a hot segment.
    pub cut_epoch: CutEpoch,
}

/// Why a header page is not one that this log can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HeaderError {
    /// All zero: prepared, and never used.
    Blank,
    /// Fewer bytes than a header page.
    Short {
        /// Bytes found.
        found: usize,
    },
    /// Not a file of ours.
    Foreign {
        /// Its first eight bytes.
        magic: [u8; 8],
    },
    /// Ours, but another version of the format.
    Version {
        /// As found.
        found: u16,
    },
    /// The checksum does not match: torn, or damaged.
    Checksum {
        /// As found.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// The checksum matches and a field is impossible.
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Of another group.
    Group {
        /// As found.
        found: GroupId,
        /// Ours.
        expected: GroupId,
    },
    /// Of a log with segments of another size.
    SegmentBytes {
        /// As found.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// The file has been renamed, or written over another: its base is not the one in its name.
    Base {
        /// As found.
        found: Position,
        /// As the name says.
        expected: Position,
    },
}

impl HeaderError {
    /// Whether a crash during the first write of the page can leave this behind.
    #[must_use]
    pub const fn may_be_torn(&self) -> bool {
        matches!(self, Self::Blank | Self::Short { .. } | Self::Checksum { .. })
    }
}

impl SegmentHeader {
    /// The page, with two empty seals.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        self.encode_into(&mut page);
        page
    }

    /// Writes the fields into the first bytes of a page and leaves its seals alone.
    pub fn encode_into(&self, page: &mut [u8]) {
        assert!(
            self.before.position.0.is_multiple_of(FRAME_ALIGNMENT as u64),
            "a file begins where a frame does"
        );
        let mut fields = Fields {
            magic: SEGMENT_MAGIC,
            version: U16::new(SEGMENT_VERSION),
            content: U16::new(self.content as u16),
            header_bytes: U32::new(SEGMENT_HEADER_BYTES as u32),
            group: U64::new(self.group.0),
            generation: U64::new(self.generation.to_u64()),
            base: U64::new(self.before.position.0),
            segment_bytes: U64::new(self.segment_bytes),
            sequence: U64::new(self.before.sequence.0),
            term: U32::new(self.before.term.0),
            chain: U32::new(self.before.chain.0),
            cut_epoch: U32::new(self.cut_epoch.0),
            reserved: [0; 56],
            crc: U32::new(0),
        };
        fields.crc = U32::new(fields.checksum());
        page[..FIELDS_BYTES].copy_from_slice(fields.as_bytes());
    }

    /// Reads a page, whoever's it is.
    ///
    /// # Errors
    /// The first rule of [`HeaderError`] that is broken, but for the last three.
    pub fn decode(page: &[u8]) -> Result<Self, HeaderError> {
        let Ok((fields, _)) = Fields::ref_from_prefix(page) else {
            return Err(HeaderError::Short { found: page.len() });
        };
        fields.check()?;
        Ok(Self {
            content: fields.content()?,
            group: GroupId(fields.group.get()),
            generation: Generation::from_u64(fields.generation.get()),
            segment_bytes: fields.segment_bytes.get(),
            before: Predecessor {
                position: Position(fields.base.get()),
                sequence: Sequence(fields.sequence.get()),
                term: Term(fields.term.get()),
                chain: Chain(fields.chain.get()),
            },
            cut_epoch: CutEpoch(fields.cut_epoch.get()),
        })
    }

    /// Reads the page of the segment that should stand at `base` of this group's log.
    ///
    /// # Errors
    /// The first rule of [`HeaderError`] that is broken.
    pub fn decode_segment(
        page: &[u8],
        group: GroupId,
        segment_bytes: u64,
        base: Position,
    ) -> Result<Self, HeaderError> {
        let header = Self::decode(page)?;
        if header.content != Content::Segment {
            return Err(HeaderError::Field { field: "content", value: header.content as u64 });
        }
        if header.group != group {
            return Err(HeaderError::Group { found: header.group, expected: group });
        }
        if header.segment_bytes != segment_bytes {
            return Err(HeaderError::SegmentBytes {
                found: header.segment_bytes,
                expected: segment_bytes,
            });
        }
        if header.before.position != base {
            return Err(HeaderError::Base { found: header.before.position, expected: base });
        }
        Ok(header)
    }
}

fn enter(page: &mut [u8], start: &SegmentStart) {
    let header = SegmentHeader {
        content: Content::Segment,
        group: start.group,
        generation: start.generation,
        segment_bytes: start.segment_bytes,
        before: start.before,
        cut_epoch: CutEpoch(0),
    };
    header.encode_into(page);
}

fn before(page: &[u8]) -> Option<Predecessor> {
    SegmentHeader::decode(page).ok().map(|header| header.before)
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => write!(f, "a header page that was never written"),
            Self::Short { found } => write!(f, "{found} bytes where a header page should be"),
            Self::Foreign { magic } => {
                write!(f, "not a Quorate log: it starts with \"{}\"", magic.escape_ascii())
            }
            Self::Version { found } => {
                write!(f, "segment format {found}, this program reads {SEGMENT_VERSION}")
            }
            Self::Checksum { found, computed } => {
                write!(f, "header checksum {found:#010x}, computed {computed:#010x}")
            }
            Self::Field { field, value } => write!(f, "header field {field} cannot be {value}"),
            Self::Group { found, expected } => {
                write!(f, "of group {:016x}, this node's is {:016x}", found.0, expected.0)
            }
            Self::SegmentBytes { found, expected } => {
                write!(f, "segments of {found} bytes, this group's have {expected}")
            }
            Self::Base { found, expected } => {
                write!(f, "base {:016x} in a file named {:016x}", found.0, expected.0)
            }
        }
    }
}

impl core::error::Error for HeaderError {}

/// Bytes of the fields in front of the page.
const FIELDS_BYTES: usize = 128;

/// The fields as they lie in the file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Fields {
    magic: [u8; 8],
    version: U16,
    content: U16,
    header_bytes: U32,
    group: U64,
    generation: U64,
    base: U64,
    segment_bytes: U64,
    sequence: U64,
    term: U32,
    chain: U32,
    cut_epoch: U32,
    reserved: [u8; 56],
    crc: U32,
}

const _: () = assert!(size_of::<Fields>() == FIELDS_BYTES && align_of::<Fields>() == 1);
const _: () = assert!(
    FIELDS_BYTES <= SEAL_OFFSETS[0] && FIELDS_BYTES <= 512,
    "fields and seals share no sector"
);
const _: () = assert!(
    SEAL_OFFSETS[0].is_multiple_of(512)
        && SEAL_OFFSETS[1].is_multiple_of(512)
        && SEAL_OFFSETS[1] + SEAL_BYTES <= SEGMENT_HEADER_BYTES,
    "each seal is a sector of its own inside the page"
);

impl Fields {
    fn checksum(&self) -> u32 {
        crc32c(0, &self.as_bytes()[..FIELDS_BYTES - 4])
    }

    fn content(&self) -> Result<Content, HeaderError> {
        match self.content.get() {
            1 => Ok(Content::Segment),
            2 => Ok(Content::Quarantine),
            other => Err(HeaderError::Field { field: "content", value: other.into() }),
        }
    }

    fn check(&self) -> Result<(), HeaderError> {
        if self.as_bytes().iter().all(|&byte| byte == 0) {
            return Err(HeaderError::Blank);
        }
        // A torn first write leaves each byte of the magic as it was (zero) or as it should be: not foreign, but torn.
        if self.magic.iter().zip(SEGMENT_MAGIC).any(|(&found, ours)| found != 0 && found != ours) {
            return Err(HeaderError::Foreign { magic: self.magic });
        }
        let computed = self.checksum();
        // Another version may checksum otherwise, so a whole magic with another version says so first.
        let version = self.version.get();
        if self.magic == SEGMENT_MAGIC && version != SEGMENT_VERSION && version != 0 {
            return Err(HeaderError::Version { found: version });
        }
        if self.crc.get() != computed || self.magic != SEGMENT_MAGIC {
            return Err(HeaderError::Checksum { found: self.crc.get(), computed });
        }
        if version != SEGMENT_VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let content = self.content()?;
        let segment_bytes = self.segment_bytes.get();
        let impossible = |field, value| Err(HeaderError::Field { field, value });
        if self.header_bytes.get() as usize != SEGMENT_HEADER_BYTES {
            return impossible("header_bytes", self.header_bytes.get().into());
        }
        if !segment_bytes.is_power_of_two()
            || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
        {
            return impossible("segment_bytes", segment_bytes);
        }
        let alignment =
            if content == Content::Segment { segment_bytes } else { FRAME_ALIGNMENT as u64 };
        if !self.base.get().is_multiple_of(alignment) {
            return impossible("base", self.base.get());
        }
        if self.reserved.iter().any(|&byte| byte != 0) {
            return impossible("reserved", 1);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> SegmentHeader {
        SegmentHeader {
            content: Content::Segment,
            group: GroupId(0x1122_3344_5566_7788),
            generation: Generation { counter: 3, random: 9 },
            segment_bytes: SEGMENT_BYTES_MIN,
            before: Predecessor {
                position: Position(2 * SEGMENT_BYTES_MIN),
                sequence: Sequence(77),
                term: Term(5),
                chain: Chain(0xDEAD_BEEF),
            },
            cut_epoch: CutEpoch(1),
        }
    }

    #[test]
    fn round_trips_and_every_flipped_bit_is_noticed() {
        let header = example();
        let page = header.encode();
        assert_eq!(SegmentHeader::decode(&page), Ok(header));
        for bit in 0..FIELDS_BYTES * 8 {
            let mut page = page;
            page[bit / 8] ^= 1 << (bit % 8);
            let error = SegmentHeader::decode(&page).unwrap_err();
            if bit < 64 {
                assert!(matches!(
                    error,
                    HeaderError::Foreign { .. } | HeaderError::Checksum { .. }
                ));
            }
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let header = example();
        let page = header.encode();
        let segment = |group, bytes, base| {
            SegmentHeader::decode_segment(&page, group, bytes, base).unwrap_err()
        };
        let base = header.before.position;
        let other = GroupId(1);
        assert_eq!(
            segment(other, SEGMENT_BYTES_MIN, base),
            HeaderError::Group { found: header.group, expected: other }
        );
        assert!(matches!(
            segment(header.group, 2 * SEGMENT_BYTES_MIN, base),
            HeaderError::SegmentBytes { .. }
        ));
        assert!(matches!(
            segment(header.group, SEGMENT_BYTES_MIN, Position(0)),
            HeaderError::Base { .. }
        ));
        assert_eq!(SegmentHeader::decode(&[0; 4096]), Err(HeaderError::Blank));
        assert_eq!(SegmentHeader::decode(&page[..100]), Err(HeaderError::Short { found: 100 }));
        let text = b"# a configuration file, surely not a log of ours; it goes on and on until it is long enough to \
                     hold the fields of a header page, which takes a while";
        assert!(matches!(SegmentHeader::decode(text), Err(HeaderError::Foreign { .. })));
        let mut newer = page;
        newer[8] = 9;
        assert_eq!(SegmentHeader::decode(&newer), Err(HeaderError::Version { found: 9 }));
    }

    #[test]
    fn a_torn_first_write_is_torn_and_not_foreign() {
        let page = example().encode();
        for at in 1..FIELDS_BYTES {
            let mut head = [0; SEGMENT_HEADER_BYTES];
            head[..at].copy_from_slice(&page[..at]);
            let mut tail = page;
            tail[..at].fill(0);
            for torn in [head, tail] {
                if torn[..FIELDS_BYTES] != page[..FIELDS_BYTES] {
                    let error = SegmentHeader::decode(&torn).unwrap_err();
                    assert!(error.may_be_torn(), "{at}: {error}");
                }
            }
        }
    }
}

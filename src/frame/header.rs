//! The 32 bytes in front of every entry.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Kind;
use crate::limits::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES};
use crate::types::{Chain, Sequence, Term, Timestamp};

/// Version of the frame format that this program writes.
pub const FRAME_VERSION: u16 = 1;

/// Header of a frame: on disk, in memory and on the wire, byte for byte.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct FrameHeader {
    /// The **publish word**: bytes of header and payload. Stored last, with release ordering; 0 means nothing is here yet.
    pub length: U32,
    /// CRC-32C chained from the frame before ([`super::crc::chain`]).
    pub crc: U32,
    /// Term of the leadership that appended it.
    pub term: U32,
    /// [`Kind`].
    pub kind: u8,
    /// Reserved, 0.
    pub flags: u8,
    /// [`FRAME_VERSION`].
    pub version: U16,
    /// Entry number.
    pub sequence: U64,
    /// Cluster time at which the leader appended it, ns since the Unix epoch.
    pub timestamp: U64,
}

const _: () =
    assert!(size_of::<FrameHeader>() == FRAME_HEADER_BYTES && align_of::<FrameHeader>() == 1);

impl FrameHeader {
    /// A header with everything but its checksum.
    #[inline]
    #[must_use]
    pub fn new(
        length: u32,
        kind: Kind,
        term: Term,
        sequence: Sequence,
        timestamp: Timestamp,
    ) -> Self {
        Self {
            length: U32::new(length),
            crc: U32::new(0),
            term: U32::new(term.0),
            kind: kind as u8,
            flags: 0,
            version: U16::new(FRAME_VERSION),
            sequence: U64::new(sequence.0),
            timestamp: U64::new(timestamp.0),
        }
    }
    /// Bytes of header and payload, as stored.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length.get()
    }
    /// Its checksum.
    #[must_use]
    pub fn chain(&self) -> Chain {
        Chain(self.crc.get())
    }
    /// Its term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.term.get())
    }
    /// Its kind, if it is one.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.kind)
    }
    /// Its entry number.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        Sequence(self.sequence.get())
    }
    /// Its time.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        Timestamp(self.timestamp.get())
    }
    /// The header behind length and checksum, as three little-endian words: built in registers, where a copy of the struct
    /// would be read back from memory in other widths than it was just written in.
    #[inline]
    pub(crate) fn words(&self) -> [u64; 3] {
        let first = u64::from(self.term.get())
            | u64::from(self.kind) << 32
            | u64::from(self.flags) << 40
            | u64::from(self.version.get()) << 48;
        [first, self.sequence.get(), self.timestamp.get()]
    }
    /// Bytes from this frame's position to the next one's.
    #[must_use]
    pub fn span(&self) -> u64 {
        span(self.length.get())
    }
}

/// Bytes that a frame of `length` bytes takes in the log.
#[inline]
#[must_use]
pub const fn span(length: u32) -> u64 {
    let step = FRAME_ALIGNMENT as u64;
    (length as u64 + step - 1) & !(step - 1)
}

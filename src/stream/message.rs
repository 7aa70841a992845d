//! What travels on a lane: messages, back to back, each at a multiple of 8 bytes.
//!
//! ```text
//! client to node
//!  0        4     5     6        8                 16                24
//!  +--------+-----+-----+--------+-----------------+-----------------+---------
//!  | length |kind |flags|reserved| client sequence | received through| payload…
//!  +--------+-----+-----+--------+-----------------+-----------------+---------
//! node to client
//!  +--------+-----+-----+--------+-----------------+-----------------+---------
//!  | length |outc.|flags|  code  | client sequence |    sequence     | payload…
//!  +--------+-----+-----+--------+-----------------+-----------------+---------
//! ```
//!
//! Little-endian. `length` counts header and payload; zeros fill up to the next multiple of 8.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::{
    LANE_MESSAGE_ALIGNMENT, LANE_MESSAGE_BYTES_MAX, LANE_MESSAGE_HEADER_BYTES as HEADER_BYTES,
};
use crate::types::{ClientSequence, Sequence};

/// What a client wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RequestKind {
    /// One command, to be applied once.
    Command = 1,
    /// Several commands that take effect together or not at all; the payload is theirs.
    Batch = 2,
    /// A question that changes nothing; numbered apart from commands.
    Query = 3,
    /// The session is no longer needed.
    Close = 4,
    /// Nothing, but the client is there and has received replies.
    KeepAlive = 5,
}

impl RequestKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Command,
            2 => Self::Batch,
            3 => Self::Query,
            4 => Self::Close,
            5 => Self::KeepAlive,
            _ => return None,
        })
    }
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum AnswerKind {
    /// Done; the payload is the reply.
    Applied = 1,
    /// The service (or the engine, by its codes) refused it, and it left no trace. `code` says why.
    Rejected = 2,
    /// A command before it is missing: it was not logged. The client sends from there on again.
    Gap = 3,
    /// It was decided earlier, and its reply is no longer kept.
    Forgotten = 4,
    /// The session does not exist (any more).
    UnknownSession = 5,
    /// No quorum hears the leader: it was not logged. The client tries again.
    NoQuorum = 6,
    /// There was no room: it was not logged. The client tries again.
    BackPressure = 7,
    /// It is longer than the node takes: it was not logged, and never will be.
    TooLong = 8,
    /// There is no room on the leader's disk, or in its memory, for more of the log: it was not logged. The client tries again.
    NoSpace = 9,
}

impl AnswerKind {
    /// The outcome with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Applied,
            2 => Self::Rejected,
            3 => Self::Gap,
            4 => Self::Forgotten,
            5 => Self::UnknownSession,
            6 => Self::NoQuorum,
            7 => Self::BackPressure,
            8 => Self::TooLong,
            9 => Self::NoSpace,
            _ => return None,
        })
    }
}

/// [`AnswerHeader::flags`]: it answers a query; `client_sequence` is the query's number.
pub const ANSWER_TO_QUERY: u8 = 1;

/// Header of a message from a client.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RequestHeader {
    /// Bytes of header and payload.
    pub length: U32,
    /// [`RequestKind`].
    pub kind: u8,
    /// Reserved, 0.
    pub flags: u8,
    /// Reserved, 0.
    pub reserved: U16,
    /// The client's number for it.
    pub client_sequence: U64,
    /// The client has every reply up to here: they need not be kept.
    pub received_through: U64,
}

/// Header of a message to a client.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct AnswerHeader {
    /// Bytes of header and payload.
    pub length: U32,
    /// [`AnswerKind`].
    pub outcome: u8,
    /// [`ANSWER_TO_QUERY`].
    pub flags: u8,
    /// Of a rejection.
    pub code: U16,
    /// What it answers.
    pub client_sequence: U64,
    /// The entry of the log that decided it, 0 if none.
    pub sequence: U64,
}

const _: () = assert!(size_of::<RequestHeader>() == HEADER_BYTES);
const _: () = assert!(size_of::<AnswerHeader>() == HEADER_BYTES);

impl RequestHeader {
    /// A header; [`super::lane`] sets the length.
    #[must_use]
    pub fn new(
        kind: RequestKind,
        client_sequence: ClientSequence,
        received_through: ClientSequence,
    ) -> Self {
        Self {
            length: U32::new(0),
            kind: kind as u8,
            flags: 0,
            reserved: U16::new(0),
            client_sequence: U64::new(client_sequence.0),
            received_through: U64::new(received_through.0),
        }
    }
    /// Its kind, if it is one.
    #[must_use]
    pub fn kind(&self) -> Option<RequestKind> {
        RequestKind::from_u8(self.kind)
    }
    /// The client's number for it.
    #[must_use]
    pub fn client_sequence(&self) -> ClientSequence {
        ClientSequence(self.client_sequence.get())
    }
    /// The client has every reply up to here.
    #[must_use]
    pub fn received_through(&self) -> ClientSequence {
        ClientSequence(self.received_through.get())
    }
}

impl AnswerHeader {
    /// A header; [`super::lane`] sets the length.
    #[must_use]
    pub fn new(outcome: AnswerKind, client_sequence: ClientSequence, sequence: Sequence) -> Self {
        Self {
            length: U32::new(0),
            outcome: outcome as u8,
            flags: 0,
            code: U16::new(0),
            client_sequence: U64::new(client_sequence.0),
            sequence: U64::new(sequence.0),
        }
    }
    /// Its outcome, if it is one.
    #[must_use]
    pub fn outcome(&self) -> Option<AnswerKind> {
        AnswerKind::from_u8(self.outcome)
    }
    /// Whether it answers a query.
    #[must_use]
    pub fn is_to_query(&self) -> bool {
        self.flags & ANSWER_TO_QUERY != 0
    }
    /// What it answers.
    #[must_use]
    pub fn client_sequence(&self) -> ClientSequence {
        ClientSequence(self.client_sequence.get())
    }
    /// The entry of the log that decided it.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        Sequence(self.sequence.get())
    }
}

/// Bytes from the start of a message of `length` bytes to the next one.
#[must_use]
pub const fn message_span(length: u32) -> u64 {
    (length as u64).next_multiple_of(LANE_MESSAGE_ALIGNMENT as u64)
}

/// The length word of a message with `payload_bytes`, if that is allowed.
#[must_use]
pub const fn message_length(payload_bytes: usize) -> Option<u32> {
    if payload_bytes <= LANE_MESSAGE_BYTES_MAX - HEADER_BYTES {
        Some((HEADER_BYTES + payload_bytes) as u32)
    } else {
        None
    }
}

/// Whether a length word found on a lane may be believed.
#[must_use]
pub const fn is_message_length(length: u32) -> bool {
    length as usize >= HEADER_BYTES && length as usize <= LANE_MESSAGE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_nothing_else_is_a_kind() {
        for number in 0..=u8::MAX {
            assert_eq!(RequestKind::from_u8(number).is_some(), (1..=5).contains(&number));
            assert_eq!(AnswerKind::from_u8(number).is_some(), (1..=9).contains(&number));
            assert!(RequestKind::from_u8(number).is_none_or(|kind| kind as u8 == number));
            assert!(AnswerKind::from_u8(number).is_none_or(|kind| kind as u8 == number));
        }
    }

    #[test]
    fn lengths_from_nothing_to_the_largest_command() {
        assert_eq!(message_length(0), Some(24));
        assert!(message_length(crate::limits::COMMAND_BYTES_MAX).is_some_and(is_message_length));
        assert_eq!(message_length(crate::limits::COMMAND_BYTES_MAX + 8), None);
        assert!(!is_message_length(23) && !is_message_length(u32::MAX));
        assert_eq!((message_span(24), message_span(25)), (24, 32));
    }
}

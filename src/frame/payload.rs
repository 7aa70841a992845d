//! What follows the header, kind by kind. Variable parts (names, the command's own bytes) follow the fixed part.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::COMMAND_PREFIX_BYTES;

/// [`super::Kind::TermStart`].
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct TermStart {
    /// Generation the leadership belongs to.
    pub generation: U64,
    /// Where this frame stands: the base of the term.
    pub base: U64,
    /// Version of the service that applies what follows.
    pub service_version: U32,
    /// Who leads.
    pub leader: U16,
    /// Reserved, 0.
    pub reserved: U16,
}

/// [`super::Kind::SessionOpen`]. The session's id is the sequence of this entry. The client's name (UTF-8) follows.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SessionOpen {
    /// Drawn by the client: a repeated request finds the session it opened.
    pub nonce: U64,
    /// Silence after which the group closes the session, ns of cluster time.
    pub timeout: U64,
}

/// [`super::Kind::SessionClose`].
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SessionClose {
    /// Which session.
    pub session: U64,
    /// Why: 1 the client asked, 2 it fell silent, 3 an operator, 4 it broke the protocol.
    pub reason: u8,
    /// Reserved, 0.
    pub reserved: [u8; 7],
}

/// What starts the payload of [`super::Kind::Command`] and [`super::Kind::CommandBatch`]; the command's bytes follow.
///
/// In a batch the commands follow one another, each as a little-endian `u32` length and that many bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CommandPrefix {
    /// Whose command.
    pub session: U64,
    /// The client's number for it.
    pub client_sequence: U64,
    /// The client holds every reply through this number.
    pub received_through: U64,
}

/// [`super::Kind::Timer`].
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct TimerFired {
    /// The service's own name for it.
    pub id: U64,
    /// Number of the scheduling that fires: one that is not pending any more does not.
    pub schedule: U64,
}

/// [`super::Kind::EventCursor`].
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct EventCursor {
    /// Number of the last event that has reached the outside.
    pub through: U64,
}

/// One node in a [`super::Kind::Membership`] entry; name and addresses (UTF-8, lengths given) follow each.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Member {
    /// Its id.
    pub node: U16,
    /// Bit 0: voter.
    pub flags: u8,
    /// Election priority.
    pub priority: u8,
    /// Bytes of its name.
    pub name_length: U16,
    /// Bytes of its address, `host:port`.
    pub address_length: U16,
}

/// [`super::Kind::GroupSetting`]: a key, and a value whose meaning the key gives.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct GroupSetting {
    /// [`SETTING_DURABILITY`].
    pub key: U32,
    /// Reserved, 0.
    pub reserved: U32,
    /// The value.
    pub value: U64,
}

/// [`GroupSetting::key`]: value = leader's rung | followers' rung << 8; 0 memory, 1 disk.
pub const SETTING_DURABILITY: u32 = 1;

const _: () = assert!(size_of::<CommandPrefix>() == COMMAND_PREFIX_BYTES);
const _: () = assert!(
    size_of::<TermStart>() == 24
        && size_of::<SessionOpen>() == 16
        && size_of::<SessionClose>() == 16
);
const _: () = assert!(size_of::<TimerFired>() == 16 && size_of::<EventCursor>() == 8);
const _: () = assert!(size_of::<Member>() == 8 && size_of::<GroupSetting>() == 16);

/// Splits the commands of a batch: yields each command's bytes, or an error at the first impossible length.
pub fn batch_items(mut bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], MalformedBatch>> {
    core::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
            bytes = &[];
            return Some(Err(MalformedBatch));
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some((item, rest)) = rest.split_at_checked(length) else {
            bytes = &[];
            return Some(Err(MalformedBatch));
        };
        bytes = rest;
        Some(Ok(item))
    })
}

/// A batch whose lengths do not add up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedBatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_split_and_bad_lengths_end_in_one_error() {
        let bytes = [1, 0, 0, 0, 7, 0, 0, 0, 0, 2, 0, 0, 0, 8, 9];
        let items: Vec<_> = batch_items(&bytes).collect();
        assert_eq!(items, [Ok(&[7][..]), Ok(&[][..]), Ok(&[8, 9][..])]);
        let items: Vec<_> = batch_items(&bytes[..14]).collect();
        assert_eq!(items.last(), Some(&Err(MalformedBatch)));
        assert_eq!(batch_items(&[1, 0]).count(), 1);
    }
}

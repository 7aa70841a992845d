//! What control threads say to each other: small unicast datagrams, idempotent and re-sent.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::constants::GroupConstants;
use crate::types::{Generation, GroupId, Leadership, NodeId, Sequence, Term};

/// First two bytes of every control datagram: "Qc".
pub const CONTROL_MAGIC: u16 = u16::from_le_bytes(*b"Qc");
/// Version of the control protocol.
pub const CONTROL_VERSION: u8 = 1;
/// Bytes of every control datagram.
pub const CONTROL_BYTES: usize = 64 + 8 * GroupConstants::COUNT;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// A node says what it is: repeated while it does not follow, and as a sign of life.
    Announce(Announce),
    /// The leader of the leadership in the header wants to be followed.
    Lead {
        /// It founds the group, with this instance of the receiver as one of the founders; 0: it does not. The receiver's
        /// entering is its vote. A node that was wiped since is another instance, and no founder.
        founder: u64,
    },
    /// The sender follows the leadership in the header.
    Following,
    /// The sender's state after `sequence` has this hash.
    StateHash {
        /// Last applied entry.
        sequence: Sequence,
        /// Its hash.
        hash: u64,
    },
}

/// What a node says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Announce {
    /// It has no state of an earlier life, and an empty log.
    pub blank: bool,
    /// It may have forgotten what it promised.
    pub provisional: bool,
    /// Drawn at its start, never 0: tells one life of its process from the next.
    pub instance: u64,
}

/// The wire form: one fixed layout for all kinds.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ControlDatagram {
    /// [`CONTROL_MAGIC`].
    pub magic: U16,
    /// [`CONTROL_VERSION`].
    pub version: u8,
    /// 1 announce, 2 lead, 3 following, 4 state hash.
    pub kind: u8,
    /// Sender.
    pub node: U16,
    /// Announce: bit 0 blank, bit 1 provisional.
    pub flags: U16,
    /// Group.
    pub group: U64,
    /// Generation the message is about (announce: the newest the sender promised).
    pub generation: U64,
    /// Term of it.
    pub term: U32,
    /// Reserved, 0.
    pub reserved: U32,
    /// State hash: sequence.
    pub first: U64,
    /// State hash: hash.
    pub second: U64,
    /// Announce: the sender's instance. Lead: the founding instance of the receiver, or 0.
    pub instance: U64,
    /// Reserved, 0.
    pub rest: U64,
    /// What must be the same on all nodes of the group: see [`GroupConstants`].
    pub constants: [U64; GroupConstants::COUNT],
}

const _: () = assert!(size_of::<ControlDatagram>() == CONTROL_BYTES);

/// Who says what about which leadership.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Envelope {
    /// Sender.
    pub from: NodeId,
    /// What the message is about.
    pub leadership: Leadership,
    /// The message.
    pub message: Message,
}

/// Why a control datagram is not looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlError {
    /// Of another length, or not ours.
    Garbage,
    /// Another version.
    Version(u8),
    /// Another group.
    Group(GroupId),
}

impl Envelope {
    /// Its wire form, from a node with these constants.
    #[must_use]
    pub fn encode(&self, group: GroupId, constants: &GroupConstants) -> ControlDatagram {
        let (kind, flags, first, second, instance) = match self.message {
            Message::Announce(a) => {
                (1, u16::from(a.blank) | u16::from(a.provisional) << 1, 0, 0, a.instance)
            }
            Message::Lead { founder } => (2, 0, 0, 0, founder),
            Message::Following => (3, 0, 0, 0, 0),
            Message::StateHash { sequence, hash } => (4, 0, sequence.0, hash, 0),
        };
        ControlDatagram {
            magic: U16::new(CONTROL_MAGIC),
            version: CONTROL_VERSION,
            kind,
            node: U16::new(self.from.0),
            flags: U16::new(flags),
            group: U64::new(group.0),
            generation: U64::new(self.leadership.generation.to_u64()),
            term: U32::new(self.leadership.term.0),
            reserved: U32::new(0),
            first: U64::new(first),
            second: U64::new(second),
            instance: U64::new(instance),
            rest: U64::new(0),
            constants: constants.numbers().map(U64::new),
        }
    }

    /// The message in a datagram, and the constants of its sender.
    ///
    /// # Errors
    /// Why it is none for this group.
    pub fn decode(bytes: &[u8], group: GroupId) -> Result<(Self, GroupConstants), ControlError> {
        let datagram =
            ControlDatagram::read_from_bytes(bytes).map_err(|_| ControlError::Garbage)?;
        if datagram.magic.get() != CONTROL_MAGIC {
            return Err(ControlError::Garbage);
        }
        if datagram.version != CONTROL_VERSION {
            return Err(ControlError::Version(datagram.version));
        }
        if datagram.group.get() != group.0 {
            return Err(ControlError::Group(GroupId(datagram.group.get())));
        }
        let flags = datagram.flags.get();
        let message = match datagram.kind {
            1 => Message::Announce(Announce {
                blank: flags & 1 != 0,
                provisional: flags & 2 != 0,
                instance: datagram.instance.get(),
            }),
            2 => Message::Lead { founder: datagram.instance.get() },
            3 => Message::Following,
            4 => Message::StateHash {
                sequence: Sequence(datagram.first.get()),
                hash: datagram.second.get(),
            },
            _ => return Err(ControlError::Garbage),
        };
        let leadership = Leadership {
            generation: Generation::from_u64(datagram.generation.get()),
            term: Term(datagram.term.get()),
        };
        let constants = GroupConstants::from_numbers(datagram.constants.map(U64::get));
        Ok((Self { from: NodeId(datagram.node.get()), leadership, message }, constants))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_foreign_ones_are_named() {
        let leadership =
            Leadership { generation: Generation { counter: 1, random: 7 }, term: Term(3) };
        let announce = Announce { blank: true, provisional: true, instance: 11 };
        let constants = GroupConstants::from_fn(|constant| constant as u64 + 1);
        for message in [
            Message::Announce(announce),
            Message::Lead { founder: 12 },
            Message::Following,
            Message::StateHash { sequence: Sequence(9), hash: 10 },
        ] {
            let envelope = Envelope { from: NodeId(2), leadership, message };
            let wire = envelope.encode(GroupId(5), &constants);
            assert_eq!(Envelope::decode(wire.as_bytes(), GroupId(5)), Ok((envelope, constants)));
            let other = Envelope::decode(wire.as_bytes(), GroupId(6));
            assert_eq!(other, Err(ControlError::Group(GroupId(5))));
            assert_eq!(
                Envelope::decode(&wire.as_bytes()[1..], GroupId(5)),
                Err(ControlError::Garbage)
            );
        }
    }
}

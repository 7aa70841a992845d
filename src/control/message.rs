//! What control threads say to each other: small unicast datagrams, idempotent and re-sent.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::constants::GroupConstants;
use super::disk::DiskState;
use crate::link::Recency;
use crate::types::{
    Generation, GroupId, Incarnation, Leadership, NodeId, Position, Sequence, Tail, Term,
};

/// First two bytes of every control datagram: "Qc".
pub const CONTROL_MAGIC: u16 = u16::from_le_bytes(*b"Qc");
/// Version of the control protocol.
pub const CONTROL_VERSION: u8 = 3;
/// Bytes of every control datagram.
pub const CONTROL_BYTES: usize = 64 + 8 * GroupConstants::COUNT;

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// A node says what it is: a sign of life. The header names the newest leadership that it promised.
    Announce(Announce),
    /// The leader of the leadership in the header wants to be followed.
    Lead {
        /// It founded the group with this life of the receiver as one of the founders. None: it did not. A node that was
        /// wiped since is another incarnation, and no founder.
        founder: Option<Incarnation>,
    },
    /// The sender follows the leadership in the header.
    Following {
        /// This life of its process: what an earlier one said says nothing about the next.
        instance: u64,
    },
    /// The sender's state after `sequence` has this hash.
    StateHash {
        /// Last applied entry.
        sequence: Sequence,
        /// Its hash.
        hash: u64,
    },
    /// Would you vote? Asked before anybody raises a term; binds nobody.
    Canvass {
        /// Which round of the asker.
        round: u64,
    },
    /// What the sender would do. The header names the newest leadership that it promised.
    Opinion(Opinion),
    /// Vote for the sender in the leadership of the header.
    VoteRequest {
        /// Its log, as its core reported it after the fence.
        recency: Recency,
        /// This life of its process.
        instance: u64,
        /// A leader asked for it: the receiver need not have lost its leader.
        transfer: bool,
    },
    /// The answer to a vote request. The header names the newest leadership that the sender promised: when it granted,
    /// the one it was asked about.
    Vote {
        /// It voted for the receiver, durably, and after its fence.
        granted: bool,
        /// The life of the receiver's process that asked.
        instance: u64,
        /// What the sender may have forgotten.
        standing: Standing,
        /// The sender's life as a voter.
        incarnation: Incarnation,
    },
    /// The leader of the header's leadership wants the receiver to lead from now on: it stands at once.
    Stand,
    /// The sender, leader of the leadership in the header, wants to hand the lead to `candidate`: the receiver, who follows it,
    /// keeps its vote of the coming term for that node, durably, and follows on. Nobody else gets that vote; nor does
    /// `candidate` yet.
    Reserve {
        /// The coming term, of the same generation.
        term: Term,
        /// Who is to lead then.
        candidate: NodeId,
    },
    /// The sender has done so.
    Reserved {
        /// The coming term.
        term: Term,
    },
    /// The sender won the founding election of the leadership in the header, and its process ended before it could call: who
    /// voted for it there is a founder.
    Founded,
    /// A voter that may have forgotten what it promised is one again: it holds `needed` on its disk, and an entry of the
    /// header's leadership that was appended after it rejoined is committed.
    Readmit {
        /// Which life of the receiver.
        incarnation: Incarnation,
        /// End of the leader's log when it rejoined.
        needed: Position,
    },
}

impl Message {
    /// Whether the header names the newest leadership that the sender promised.
    #[must_use]
    pub const fn is_about_promise(&self) -> bool {
        matches!(
            self,
            Self::Announce(_) | Self::Canvass { .. } | Self::Opinion(_) | Self::Vote { .. }
        )
    }
}

/// What a voter's word is worth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Standing {
    /// It remembers everything that it promised.
    #[default]
    Clean,
    /// It may have forgotten what it promised from memory.
    Provisional,
    /// It has no state of an earlier life.
    Stateless,
}

impl Standing {
    const fn flags(self) -> u16 {
        match self {
            Self::Clean => 0,
            Self::Provisional => FLAG_PROVISIONAL,
            Self::Stateless => FLAG_STATELESS | FLAG_PROVISIONAL,
        }
    }
    const fn from_flags(flags: u16) -> Self {
        match (flags & FLAG_STATELESS != 0, flags & FLAG_PROVISIONAL != 0) {
            (true, _) => Self::Stateless,
            (false, true) => Self::Provisional,
            (false, false) => Self::Clean,
        }
    }
}

/// What a node answers when it is canvassed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Opinion {
    /// The round of the asker.
    pub round: u64,
    /// It leads with a quorum, or heard its leader within the leader timeout.
    pub hears: bool,
    /// It has seen a leader since its own start.
    pub seen_leader: bool,
    /// What it may have forgotten.
    pub standing: Standing,
    /// Its log.
    pub recency: Recency,
    /// Its disk.
    pub disk: DiskState,
}

const FLAG_STATELESS: u16 = 1;
const FLAG_PROVISIONAL: u16 = 2;
const FLAG_HEARS: u16 = 4;
const FLAG_SEEN_LEADER: u16 = 8;
const FLAG_GRANTED: u16 = 16;
const FLAG_TRANSFER: u16 = 32;
/// Two bits: the sender's disk.
const DISK_SHIFT: u16 = 6;

/// What a node says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Announce {
    /// What it may have forgotten.
    pub standing: Standing,
    /// Drawn at its start, never 0: tells one life of its process from the next.
    pub instance: u64,
    /// End of the log on its disk: others keep what it lacks. Whoever sends the message fills it in.
    pub holds: Position,
    /// Its disk.
    pub disk: DiskState,
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
    /// 1 announce, 2 lead, 3 following, 4 state hash, 5 canvass, 6 opinion, 7 vote request, 8 vote, 9 stand, 10 readmit,
    /// 11 founded, 12 reserve, 13 reserved.
    pub kind: u8,
    /// Sender.
    pub node: U16,
    /// 1 stateless, 2 provisional, 4 hears a leader, 8 has seen one, 16 granted, 32 transfer; 64 and 128 the disk: 0 good,
    /// 1 low, 2 full, 3 stalled.
    pub flags: U16,
    /// Group.
    pub group: U64,
    /// Generation the message is about (announce, canvass, opinion, vote: the newest the sender promised).
    pub generation: U64,
    /// Term of it.
    pub term: U32,
    /// Opinion, vote request: term of the sender's last frame.
    pub last_term: U32,
    /// Announce: end of the log on its disk. State hash: sequence. Opinion, vote request: end of the log. Readmit: position.
    /// Reserve, reserved: the coming term.
    pub first: U64,
    /// State hash: hash. Opinion, vote request: generation of the last frame. Lead, vote,
    /// readmit: an incarnation, plus one (0: none). Reserve: the candidate.
    pub second: U64,
    /// Announce, following, vote request: the sender's instance. Vote: the receiver's.
    pub instance: U64,
    /// Canvass, opinion: the round.
    pub round: U64,
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
        let mut wire = ControlDatagram {
            magic: U16::new(CONTROL_MAGIC),
            version: CONTROL_VERSION,
            node: U16::new(self.from.0),
            group: U64::new(group.0),
            generation: U64::new(self.leadership.generation.to_u64()),
            term: U32::new(self.leadership.term.0),
            constants: constants.numbers().map(U64::new),
            ..ControlDatagram::new_zeroed()
        };
        let mut flags = 0;
        wire.kind = match self.message {
            Message::Announce(announce) => {
                flags = announce.standing.flags() | (announce.disk as u16) << DISK_SHIFT;
                wire.instance = U64::new(announce.instance);
                wire.first = U64::new(announce.holds.0);
                1
            }
            Message::Lead { founder } => {
                wire.second = incarnation_to_wire(founder);
                2
            }
            Message::Following { instance } => {
                wire.instance = U64::new(instance);
                3
            }
            Message::StateHash { sequence, hash } => {
                wire.first = U64::new(sequence.0);
                wire.second = U64::new(hash);
                4
            }
            Message::Canvass { round } => {
                wire.round = U64::new(round);
                5
            }
            Message::Opinion(opinion) => {
                flags = opinion.standing.flags();
                flags |= if opinion.hears { FLAG_HEARS } else { 0 };
                flags |= if opinion.seen_leader { FLAG_SEEN_LEADER } else { 0 };
                flags |= (opinion.disk as u16) << DISK_SHIFT;
                wire.put_recency(opinion.recency);
                wire.round = U64::new(opinion.round);
                6
            }
            Message::VoteRequest { recency, instance, transfer } => {
                flags = if transfer { FLAG_TRANSFER } else { 0 };
                wire.put_recency(recency);
                wire.instance = U64::new(instance);
                7
            }
            Message::Vote { granted, instance, standing, incarnation } => {
                flags = standing.flags() | if granted { FLAG_GRANTED } else { 0 };
                wire.second = incarnation_to_wire(Some(incarnation));
                wire.instance = U64::new(instance);
                8
            }
            Message::Stand => 9,
            Message::Readmit { incarnation, needed } => {
                wire.first = U64::new(needed.0);
                wire.second = incarnation_to_wire(Some(incarnation));
                10
            }
            Message::Founded => 11,
            Message::Reserve { term, candidate } => {
                wire.first = U64::new(term.0.into());
                wire.second = U64::new(candidate.0.into());
                12
            }
            Message::Reserved { term } => {
                wire.first = U64::new(term.0.into());
                13
            }
        };
        wire.flags = U16::new(flags);
        wire
    }

    /// The message in a datagram, and the constants of its sender.
    ///
    /// # Errors
    /// Why it is none for this group.
    pub fn decode(bytes: &[u8], group: GroupId) -> Result<(Self, GroupConstants), ControlError> {
        // Another version may have another length: what stays in all of them is looked at first.
        let (magic, rest) = U16::read_from_prefix(bytes).map_err(|_| ControlError::Garbage)?;
        let version = *rest.first().ok_or(ControlError::Garbage)?;
        if magic.get() != CONTROL_MAGIC {
            return Err(ControlError::Garbage);
        }
        if version != CONTROL_VERSION {
            return Err(ControlError::Version(version));
        }
        let wire = ControlDatagram::read_from_bytes(bytes).map_err(|_| ControlError::Garbage)?;
        if wire.group.get() != group.0 {
            return Err(ControlError::Group(GroupId(wire.group.get())));
        }
        // The last term has none above it, which the next leadership would need.
        let last = [&wire.term, &wire.last_term].iter().any(|term| term.get() == u32::MAX);
        let message = wire.message().filter(|_| !last).ok_or(ControlError::Garbage)?;
        let leadership = Leadership {
            generation: Generation::from_u64(wire.generation.get()),
            term: Term(wire.term.get()),
        };
        let constants = GroupConstants::from_numbers(wire.constants.map(U64::get));
        Ok((Self { from: NodeId(wire.node.get()), leadership, message }, constants))
    }
}

impl ControlDatagram {
    fn put_recency(&mut self, recency: Recency) {
        self.first = U64::new(recency.tail.0.0);
        self.second = U64::new(recency.last.generation.to_u64());
        self.last_term = U32::new(recency.last.term.0);
    }

    fn recency(&self) -> Recency {
        let generation = Generation::from_u64(self.second.get());
        let last = Leadership { generation, term: Term(self.last_term.get()) };
        Recency { last, tail: Tail(Position(self.first.get())) }
    }

    fn term_to_come(&self) -> Option<Term> {
        u32::try_from(self.first.get()).ok().filter(|&term| term < u32::MAX).map(Term)
    }

    fn message(&self) -> Option<Message> {
        let flags = self.flags.get();
        let standing = Standing::from_flags(flags);
        let disk = DiskState::ALL[usize::from(flags >> DISK_SHIFT & 3)];
        let incarnation = incarnation_from_wire(self.second);
        Some(match self.kind {
            1 => Message::Announce(Announce {
                standing,
                instance: self.instance.get(),
                holds: Position(self.first.get()),
                disk,
            }),
            2 => Message::Lead { founder: incarnation },
            3 => Message::Following { instance: self.instance.get() },
            4 => {
                Message::StateHash { sequence: Sequence(self.first.get()), hash: self.second.get() }
            }
            5 => Message::Canvass { round: self.round.get() },
            6 => Message::Opinion(Opinion {
                round: self.round.get(),
                hears: flags & FLAG_HEARS != 0,
                seen_leader: flags & FLAG_SEEN_LEADER != 0,
                standing,
                recency: self.recency(),
                disk,
            }),
            7 => Message::VoteRequest {
                recency: self.recency(),
                instance: self.instance.get(),
                transfer: flags & FLAG_TRANSFER != 0,
            },
            8 => Message::Vote {
                granted: flags & FLAG_GRANTED != 0,
                instance: self.instance.get(),
                standing,
                incarnation: incarnation?,
            },
            9 => Message::Stand,
            10 => {
                Message::Readmit { incarnation: incarnation?, needed: Position(self.first.get()) }
            }
            11 => Message::Founded,
            12 => Message::Reserve {
                term: self.term_to_come()?,
                candidate: NodeId(u16::try_from(self.second.get()).ok()?),
            },
            13 => Message::Reserved { term: self.term_to_come()? },
            _ => return None,
        })
    }
}

fn incarnation_to_wire(incarnation: Option<Incarnation>) -> U64 {
    U64::new(incarnation.map_or(0, |incarnation| u64::from(incarnation.0) + 1))
}

/// None for 0, and for what no incarnation is.
fn incarnation_from_wire(wire: U64) -> Option<Incarnation> {
    u32::try_from(wire.get().checked_sub(1)?).ok().map(Incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_foreign_ones_are_named() {
        let leadership =
            Leadership { generation: Generation { counter: 1, random: 7 }, term: Term(3) };
        let announce = Announce {
            standing: Standing::Stateless,
            instance: 11,
            holds: Position(96),
            disk: DiskState::Stalled,
        };
        let constants = GroupConstants::from_fn(|constant| constant as u64 + 1);
        let recency = Recency { last: leadership, tail: Tail(Position(4096)) };
        let opinion = Opinion {
            round: 13,
            hears: true,
            seen_leader: true,
            standing: Standing::Provisional,
            recency,
            disk: DiskState::Low,
        };
        for message in [
            Message::Announce(announce),
            Message::Lead { founder: Some(Incarnation(12)) },
            Message::Lead { founder: None },
            Message::Following { instance: 8 },
            Message::StateHash { sequence: Sequence(9), hash: 10 },
            Message::Canvass { round: 3 },
            Message::Opinion(opinion),
            Message::Opinion(Opinion { hears: false, standing: Standing::Clean, ..opinion }),
            Message::VoteRequest { recency, instance: 7, transfer: true },
            Message::Vote {
                granted: true,
                instance: 7,
                standing: Standing::Stateless,
                incarnation: Incarnation(0),
            },
            Message::Stand,
            Message::Founded,
            Message::Reserve { term: Term(u32::MAX - 1), candidate: NodeId(u16::MAX) },
            Message::Reserved { term: Term(4) },
            Message::Readmit { incarnation: Incarnation(u32::MAX), needed: Position(64) },
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

    #[test]
    fn the_last_term_of_all_is_refused_as_none_could_follow() {
        let of = |term| Leadership { term: Term(term), ..Leadership::default() };
        let tail = Tail(Position(4096));
        let judged = |leadership, message| {
            let envelope = Envelope { from: NodeId(2), leadership, message };
            let wire = envelope.encode(GroupId(5), &GroupConstants::from_fn(|_| 0));
            Envelope::decode(wire.as_bytes(), GroupId(5)).map(|(envelope, _)| envelope.leadership)
        };
        let vote = |term| {
            let recency = Recency { last: of(term), tail };
            Message::VoteRequest { recency, instance: 7, transfer: false }
        };
        let (last, high) = (u32::MAX, u32::MAX - 1);
        assert_eq!(judged(of(high), vote(high)), Ok(of(high)));
        let reserved = Message::Reserved { term: Term(last) };
        let wrong = [(last, Message::Stand), (last, vote(1)), (1, vote(last)), (1, reserved)];
        for (term, message) in wrong {
            assert_eq!(judged(of(term), message), Err(ControlError::Garbage), "{term} {message:?}");
        }
    }
}

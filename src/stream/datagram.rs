//! What one datagram is: 64 bytes of header, then a body whose meaning the kind gives.
//!
//! The same header serves the replication stream between nodes and the *lanes* between clients and nodes. On a lane the
//! flag [`FLAG_LANE`] is set, the body starts with a [`LaneHeader`], and positions are positions of that lane.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::DATAGRAM_HEADER_BYTES;
use crate::types::{Generation, GroupId, Incarnation, Leadership, Nanos, NodeId, Position, Term};

/// First two bytes of every datagram: "Qr".
pub const DATAGRAM_MAGIC: u16 = u16::from_le_bytes(*b"Qr");
/// Version of the protocol that this program speaks.
pub const DATAGRAM_VERSION: u8 = 1;
/// The `node` of a sender that is no node: a client.
pub const NODE_NONE: u16 = u16::MAX;

/// The body's last frame is padding: the range goes on, as zeros, to the end of the segment.
pub const FLAG_PADS: u8 = 1;
/// These bytes were sent before and are sent again because somebody asked.
pub const FLAG_REPAIR: u8 = 2;
/// This belongs to a client lane.
pub const FLAG_LANE: u8 = 4;

/// Heartbeat: `position` is the end of the sender's log, so a frame ends there.
pub const FLAG_WHOLE: u8 = 8;

/// Hello: the client does not reach the leader, and asks the node to pass its datagrams on.
pub const FLAG_FORWARD: u8 = 16;

/// What a datagram is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum DatagramKind {
    /// Bytes of the stream from `position` on.
    Data = 1,
    /// No bytes: `position` is the sender's tail, `commit` its commit position.
    Heartbeat = 2,
    /// Ranges that are missing: [`NakRange`]s.
    Nak = 3,
    /// How far a receiver is: [`StatusBody`].
    Status = 4,
    /// The bytes asked for are no longer in memory: `position` is the lowest that are.
    Gone = 5,
    /// Where do our logs part? [`MatchRequest`].
    MatchRequest = 6,
    /// Here: [`MatchAnswer`].
    MatchAnswer = 7,
    /// A client asks for a session: [`HelloBody`].
    Hello = 8,
    /// It has one: [`WelcomeBody`].
    Welcome = 9,
    /// The leader is elsewhere: its address as text. Empty: not known.
    Redirect = 10,
    /// No, and why: [`RefuseBody`].
    Refuse = 11,
    /// A client asks this node by itself: [`LocalQueryBody`](super::local::LocalQueryBody), and the question.
    LocalQuery = 12,
    /// The node answers: [`LocalAnswerBody`](super::local::LocalAnswerBody), and the reply.
    LocalAnswer = 13,
    /// A follower asks its leader how far everything reaches that anybody was told by now:
    /// [`CommitQuestion`](super::local::CommitQuestion).
    CommitQuestion = 14,
    /// So far: [`CommitAnswer`](super::local::CommitAnswer).
    CommitAnswer = 15,
}

impl DatagramKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Data,
            2 => Self::Heartbeat,
            3 => Self::Nak,
            4 => Self::Status,
            5 => Self::Gone,
            6 => Self::MatchRequest,
            7 => Self::MatchAnswer,
            8 => Self::Hello,
            9 => Self::Welcome,
            10 => Self::Redirect,
            11 => Self::Refuse,
            12 => Self::LocalQuery,
            13 => Self::LocalAnswer,
            14 => Self::CommitQuestion,
            15 => Self::CommitAnswer,
            _ => return None,
        })
    }
}

/// The header.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DatagramHeader {
    /// [`DATAGRAM_MAGIC`].
    pub magic: U16,
    /// [`DATAGRAM_VERSION`].
    pub version: u8,
    /// [`DatagramKind`].
    pub kind: u8,
    /// [`FLAG_PADS`], [`FLAG_REPAIR`], [`FLAG_LANE`], [`FLAG_WHOLE`], [`FLAG_FORWARD`].
    pub flags: u8,
    /// Key of the trailing tag; 0: no tag.
    pub key_id: u8,
    /// Sender; [`NODE_NONE`] for a client.
    pub node: U16,
    /// Group.
    pub group: U64,
    /// Generation of the sender's leadership (for a follower: of the one it follows).
    pub generation: U64,
    /// Term of it.
    pub term: U32,
    /// The sender's incarnation.
    pub incarnation: U32,
    /// Stream position the datagram is about.
    pub position: U64,
    /// Commit position the sender knows.
    pub commit: U64,
    /// The sender's monotonic clock, ns; echoed by statuses.
    pub stamp: U64,
    /// +1 per datagram of this sender, incarnation and key: the replay window.
    pub counter: U64,
}

const _: () = assert!(size_of::<DatagramHeader>() == DATAGRAM_HEADER_BYTES);

impl DatagramHeader {
    /// A header of this kind, otherwise zero but for magic and version.
    #[must_use]
    pub fn new(
        kind: DatagramKind,
        group: GroupId,
        node: Option<NodeId>,
        leadership: Leadership,
    ) -> Self {
        Self {
            magic: U16::new(DATAGRAM_MAGIC),
            version: DATAGRAM_VERSION,
            kind: kind as u8,
            flags: 0,
            key_id: 0,
            node: U16::new(node.map_or(NODE_NONE, |node| node.0)),
            group: U64::new(group.0),
            generation: U64::new(leadership.generation.to_u64()),
            term: U32::new(leadership.term.0),
            incarnation: U32::new(0),
            position: U64::new(0),
            commit: U64::new(0),
            stamp: U64::new(0),
            counter: U64::new(0),
        }
    }
    /// The leadership it speaks of.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership {
            generation: Generation::from_u64(self.generation.get()),
            term: Term(self.term.get()),
        }
    }
    /// The sending node, if it is one.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        (self.node.get() != NODE_NONE).then(|| NodeId(self.node.get()))
    }
    /// Position.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(self.position.get())
    }
    /// Commit position.
    #[must_use]
    pub fn commit(&self) -> Position {
        Position(self.commit.get())
    }
    /// Send stamp.
    #[must_use]
    pub fn stamp(&self) -> Nanos {
        Nanos(self.stamp.get())
    }
    /// Incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.get())
    }
}

/// Why a datagram is not looked at; each reason has a counter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DatagramError {
    /// Shorter than a header, or than its body must be.
    Short,
    /// Not ours at all.
    Magic,
    /// Another version of the protocol.
    Version {
        /// As found.
        version: u8,
    },
    /// Unknown kind.
    Kind {
        /// As found.
        kind: u8,
    },
    /// Of another group.
    Group {
        /// As found.
        group: GroupId,
    },
    /// A body that does not fit its kind.
    Body,
}

/// Splits a datagram into header, kind and body, and refuses what is not for this group.
///
/// # Errors
/// The first reason that applies, in the order of [`DatagramError`]'s variants.
pub fn parse(
    bytes: &[u8],
    group: GroupId,
) -> Result<(&DatagramHeader, DatagramKind, &[u8]), DatagramError> {
    let (header, body) =
        DatagramHeader::ref_from_prefix(bytes).map_err(|_| DatagramError::Short)?;
    if header.magic.get() != DATAGRAM_MAGIC {
        return Err(DatagramError::Magic);
    }
    if header.version != DATAGRAM_VERSION {
        return Err(DatagramError::Version { version: header.version });
    }
    let kind =
        DatagramKind::from_u8(header.kind).ok_or(DatagramError::Kind { kind: header.kind })?;
    if header.group.get() != group.0 {
        return Err(DatagramError::Group { group: GroupId(header.group.get()) });
    }
    Ok((header, kind, body))
}

/// One missing range, `from..to`.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
#[derive(Hash)]
pub struct NakRange {
    /// First missing byte.
    pub from: U64,
    /// First byte that is not missing.
    pub to: U64,
}

/// [`StatusBody::flags`]: the sender may have forgotten what it promised.
pub const STATUS_PROVISIONAL: u32 = 1;
/// [`StatusBody::flags`]: it has no node state of an earlier life: it neither counts nor votes.
pub const STATUS_STATELESS: u32 = 2;
/// [`StatusBody::flags`]: it has not found its match point yet: only the echo means something.
pub const STATUS_ENTERING: u32 = 4;

/// How far a receiver is.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct StatusBody {
    /// End of the contiguous bytes.
    pub received: U64,
    /// End of the last verified frame.
    pub verified: U64,
    /// End of what is on its disk.
    pub durable: U64,
    /// What it promises to keep: counts for commit.
    pub promised: U64,
    /// First position it has no room for.
    pub window_end: U64,
    /// The last send stamp it saw from the one it answers.
    pub echo: U64,
    /// How long it held that stamp before answering, ns: not part of the round trip.
    pub held: U64,
    /// [`STATUS_PROVISIONAL`], [`STATUS_STATELESS`], [`STATUS_ENTERING`].
    pub flags: U32,
    /// Reserved, 0.
    pub reserved: U32,
}

/// A follower that enters a leadership asks where the logs part.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct MatchRequest {
    /// Number of the request: the answer is bound to it and used once.
    pub request: U64,
    /// End of the asker's frames of `generation` and `term`.
    pub end: U64,
    /// Generation of those frames.
    pub generation: U64,
    /// Term of those frames.
    pub term: U32,
    /// Chain at `end`.
    pub chain: U32,
}

/// The leader's answer: its own latest frames at or below the asked (generation, term).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
#[derive(Hash)]
pub struct MatchAnswer {
    /// The request it answers.
    pub request: U64,
    /// The logs agree up to here, if `agreed` is 1; else the asker asks again below `generation` and `term`.
    pub position: U64,
    /// Generation of the leader's frames that end at `position`.
    pub generation: U64,
    /// Term of them.
    pub term: U32,
    /// The leader's chain at `position`.
    pub chain: U32,
    /// 1: agreed. 0: ask again. 2: `position` is below what the leader holds in memory.
    pub agreed: u8,
    /// Reserved, 0.
    pub reserved: [u8; 7],
}

/// What starts the body of a datagram on a lane. `epoch` is drawn by the client at each hello: older lanes are ignored.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LaneHeader {
    /// Session.
    pub session: U64,
    /// Lane.
    pub epoch: U64,
}

/// A client asks for a session. Its name (UTF-8) follows.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct HelloBody {
    /// Identifies the request: opening twice with one nonce opens one session.
    pub nonce: U64,
    /// Session to resume; 0 opens one.
    pub session: U64,
    /// The lane that starts with the welcome.
    pub epoch: U64,
    /// Silence after which the session may be closed, ns.
    pub timeout: U64,
}

/// The client has a session.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct WelcomeBody {
    /// Nonce of the hello.
    pub nonce: U64,
    /// Session.
    pub session: U64,
    /// Lane.
    pub epoch: U64,
    /// Last client sequence that took effect: the client goes on behind it and asks for replies it lacks.
    pub last_client_sequence: U64,
    /// Largest command, in bytes.
    pub command_bytes_max: U32,
    /// Commands that may be unanswered at once.
    pub in_flight_max: U32,
}

/// Why a client, or one request of it, is refused.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RefuseBody {
    /// Nonce of the hello, or 0 on an open lane.
    pub nonce: U64,
    /// [`RefuseReason`].
    pub reason: U32,
    /// Reserved, 0.
    pub reserved: U32,
}

/// The reasons.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum RefuseReason {
    /// No quorum hears the leader.
    NoQuorum = 1,
    /// As many sessions are open as may be.
    SessionsFull = 2,
    /// That session does not exist (any more).
    UnknownSession = 3,
    /// The node cannot take more now: try again.
    BackPressure = 4,
    /// The node is stopping.
    Stopping = 5,
    /// There is no room on the leader's disk, or in its memory, for more of the log.
    NoSpace = 6,
}

impl RefuseReason {
    /// The reason with this number.
    #[must_use]
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::NoQuorum,
            2 => Self::SessionsFull,
            3 => Self::UnknownSession,
            4 => Self::BackPressure,
            5 => Self::Stopping,
            6 => Self::NoSpace,
            _ => return None,
        })
    }
}

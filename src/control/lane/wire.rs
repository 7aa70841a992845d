//! What goes over a catch-up connection: frames of a header and a body, checksummed together.
//!
//! Whoever needs a log dials and asks; the other answers on the same connection. Every frame says which group and generation
//! it belongs to and who speaks to whom, so that a connection has no state of its own, and nothing has to be agreed upon at
//! its start. How long a body may be is known from its kind before it is read.

use core::fmt;
use std::sync::Arc;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{LaneAnswer, LaneRequest, MatchAnswer, RangeRequest, SnapshotRequest};
use crate::frame::crc::crc32c;
use crate::limits::LANE_PIECE_BYTES;
use crate::link::{MatchQuestion, MatchReply, Purpose, SnapshotPiece as Piece};
use crate::types::{Chain, Commit, Generation, GroupId, Leadership, NodeId, Position, Term};

/// First two bytes of every frame: "Ql".
pub const LANE_MAGIC: u16 = u16::from_le_bytes(*b"Ql");
/// Version of the protocol.
pub const LANE_VERSION: u8 = 1;
/// Bytes of a frame's header.
pub const LANE_HEADER_BYTES: usize = 40;

const KIND_MATCH: u8 = 1;
const KIND_RANGE: u8 = 2;
const KIND_MATCHED: u8 = 3;
const KIND_BYTES: u8 = 4;
const KIND_GONE: u8 = 5;
const KIND_SNAPSHOT: u8 = 6;
const KIND_PART: u8 = 7;

/// Positions of snapshots, at most: far above what a log comes to, and so far below the end of the numbers that a segment's
/// length can be added.
const PART_POSITION_MAX: Position = Position(1 << 63);

const PURPOSE_LEADER_SYNC: u8 = 1;
const PURPOSE_CATCH_UP: u8 = 2;
const PURPOSE_REPAIR: u8 = 3;

const REPLY_ASK_LOWER: u8 = 0;
const REPLY_AGREED: u8 = 1;
const REPLY_UNKNOWN: u8 = 2;
const REPLY_GONE: u8 = 3;

/// What stands before every body.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CatchUpHeader {
    /// [`LANE_MAGIC`].
    pub magic: U16,
    /// [`LANE_VERSION`].
    pub version: u8,
    /// 1 match question, 2 range request, 3 match answer, 4 bytes, 5 gone, 6 snapshot request, 7 part of a snapshot.
    pub kind: u8,
    /// Bytes of the body.
    pub length: U32,
    /// Group.
    pub group: U64,
    /// The newest generation that the sender promised.
    pub generation: U64,
    /// Sender.
    pub from: U16,
    /// Receiver.
    pub to: U16,
    /// CRC-32C of the header with zeros here, then of the body.
    pub checksum: U32,
    /// Of the asker's take-over.
    pub number: U64,
}

/// Body of a match question: the asker's latest frames at or below a leadership.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LaneMatchBody {
    /// Generation of those frames.
    pub generation: U64,
    /// Where they end.
    pub end: U64,
    /// Term of those frames.
    pub term: U32,
    /// The chain there.
    pub chain: U32,
    /// What for.
    pub purpose: LanePurpose,
}

/// Body of a range request.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LaneRangeBody {
    /// First byte.
    pub from: U64,
    /// Byte after the last.
    pub to: U64,
    /// What for.
    pub purpose: LanePurpose,
}

/// What a log is taken over for.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LanePurpose {
    /// Generation of the leadership that is to be followed again; else 0.
    pub generation: U64,
    /// Term of it; else 0.
    pub term: U32,
    /// 1 leader sync, 2 to follow again, 3 repair of a damaged file.
    pub kind: u8,
    /// 0.
    pub reserved: [u8; 3],
}

/// Body of a match answer.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LaneMatchedBody {
    /// Agreed: the lower of the two ends. Gone: where the log begins.
    pub position: U64,
    /// Ask lower: generation to ask at or below.
    pub generation: U64,
    /// Up to here the source answers for its log.
    pub end: U64,
    /// Ask lower: term to ask at or below.
    pub term: U32,
    /// Agreed: the chain at `position`.
    pub chain: U32,
    /// 0 ask lower, 1 agreed, 2 it cannot tell, 3 gone.
    pub reply: u8,
    /// 0.
    pub reserved: [u8; 7],
}

/// What stands before the log's bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LaneBytesBody {
    /// Where they stand.
    pub from: U64,
    /// Up to here the source answers for its log.
    pub end: U64,
    /// Its commit position.
    pub committed: U64,
}

/// Body that says that a range has left.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LaneGoneBody {
    /// Where the log begins.
    pub first: U64,
}

/// Body of a request for a snapshot.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LaneSnapshotBody {
    /// The newest at or below this position.
    pub at_most: U64,
    /// First byte.
    pub from: U64,
}

/// What stands before the bytes of a snapshot and of the log that leads up to it.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LanePartBody {
    /// Position of the snapshot; 0: there is none.
    pub position: U64,
    /// Bytes of the whole.
    pub total: U64,
    /// First byte of these.
    pub from: U64,
}

const _: () = assert!(size_of::<LaneGoneBody>() == 8 && size_of::<LaneSnapshotBody>() == 16);
const _: () = assert!(size_of::<LanePartBody>() == size_of::<LaneBytesBody>());
const _: () = assert!(size_of::<CatchUpHeader>() == LANE_HEADER_BYTES);
const _: () = assert!(size_of::<LaneMatchBody>() == 40 && size_of::<LaneRangeBody>() == 32);
const _: () = assert!(size_of::<LaneMatchedBody>() == 40 && size_of::<LaneBytesBody>() == 24);

/// Longest body of all.
pub const LANE_BODY_BYTES_MAX: usize = size_of::<LaneBytesBody>() + LANE_PIECE_BYTES as usize;
/// Longest body of what is asked.
pub const LANE_REQUEST_BYTES_MAX: usize = size_of::<LaneMatchBody>();

/// One frame's contents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneMessage {
    /// Of who takes a log over.
    Request(LaneRequest),
    /// Of its source.
    Answer(LaneAnswer),
}

/// Which end of a connection is reading: what the other one may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneEnd {
    /// The one that was dialled: it is asked.
    Source,
    /// The one that dialled: it is answered.
    Asker,
}

/// Both ends of a connection, as this one sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneNodes {
    /// Group.
    pub group: GroupId,
    /// This node.
    pub own: NodeId,
    /// The newest generation that this node promised.
    pub generation: Generation,
}

/// Why a frame is not listened to. Its connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum LaneError {
    /// Not ours, of a kind that nobody sends this way, or with fields that mean nothing.
    Garbage,
    /// Longer than its kind may be.
    Oversize,
    /// Its bytes are not those that were sent.
    Checksum,
    /// Another version.
    Version(u8),
    /// Another group.
    Group(GroupId),
    /// Another generation.
    Generation(Generation),
    /// Not for this node.
    Misdirected(NodeId),
}

impl fmt::Display for LaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage => write!(f, "not a frame of this protocol"),
            Self::Oversize => write!(f, "a frame that is too long"),
            Self::Checksum => write!(f, "a frame whose checksum is wrong"),
            Self::Version(version) => {
                write!(f, "protocol version {version}, this program speaks {LANE_VERSION}")
            }
            Self::Group(group) => write!(f, "group {:016x}", group.0),
            Self::Generation(generation) => write!(f, "generation {generation}"),
            Self::Misdirected(node) => write!(f, "for node {node}"),
        }
    }
}

impl core::error::Error for LaneError {}

/// A whole frame that was found at the start of some bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneFrame {
    /// Who sent it.
    pub from: NodeId,
    /// What it says.
    pub message: LaneMessage,
    /// Bytes it took.
    pub bytes: usize,
}

/// The frame at the start of `bytes`. None: it is not whole yet.
///
/// # Errors
/// [`LaneError`], as soon as it is certain; what follows cannot be read then.
pub fn decode(
    bytes: &[u8],
    end: LaneEnd,
    nodes: &LaneNodes,
) -> Result<Option<LaneFrame>, LaneError> {
    let Ok((header, rest)) = CatchUpHeader::read_from_prefix(bytes) else { return Ok(None) };
    if header.magic.get() != LANE_MAGIC {
        return Err(LaneError::Garbage);
    }
    if header.version != LANE_VERSION {
        return Err(LaneError::Version(header.version));
    }
    let (least, most) = bounds(header.kind, end).ok_or(LaneError::Garbage)?;
    let length = header.length.get() as usize;
    if length > most {
        return Err(LaneError::Oversize);
    }
    if length < least {
        return Err(LaneError::Garbage);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    if checksum(&header, &[body]) != header.checksum.get() {
        return Err(LaneError::Checksum);
    }
    if header.group.get() != nodes.group.0 {
        return Err(LaneError::Group(GroupId(header.group.get())));
    }
    if header.to.get() != nodes.own.0 {
        return Err(LaneError::Misdirected(NodeId(header.to.get())));
    }
    let generation = Generation::from_u64(header.generation.get());
    if generation != nodes.generation {
        return Err(LaneError::Generation(generation));
    }
    let message = message(&header, body).ok_or(LaneError::Garbage)?;
    let from = NodeId(header.from.get());
    Ok(Some(LaneFrame { from, message, bytes: LANE_HEADER_BYTES + length }))
}

/// Shortest and longest body of a kind that may come in at this end.
const fn bounds(kind: u8, end: LaneEnd) -> Option<(usize, usize)> {
    match (end, kind) {
        (LaneEnd::Source, KIND_MATCH) => {
            Some((size_of::<LaneMatchBody>(), size_of::<LaneMatchBody>()))
        }
        (LaneEnd::Source, KIND_RANGE) => {
            Some((size_of::<LaneRangeBody>(), size_of::<LaneRangeBody>()))
        }
        (LaneEnd::Asker, KIND_MATCHED) => {
            Some((size_of::<LaneMatchedBody>(), size_of::<LaneMatchedBody>()))
        }
        (LaneEnd::Asker, KIND_BYTES) => Some((size_of::<LaneBytesBody>(), LANE_BODY_BYTES_MAX)),
        (LaneEnd::Source, KIND_SNAPSHOT) => {
            Some((size_of::<LaneSnapshotBody>(), size_of::<LaneSnapshotBody>()))
        }
        (LaneEnd::Asker, KIND_GONE) => Some((size_of::<LaneGoneBody>(), size_of::<LaneGoneBody>())),
        (LaneEnd::Asker, KIND_PART) => Some((size_of::<LanePartBody>(), LANE_BODY_BYTES_MAX)),
        _ => None,
    }
}

fn checksum(header: &CatchUpHeader, body: &[&[u8]]) -> u32 {
    let bare = CatchUpHeader { checksum: U32::new(0), ..*header };
    body.iter().fold(crc32c(0, bare.as_bytes()), |crc, part| crc32c(crc, part))
}

fn message(header: &CatchUpHeader, body: &[u8]) -> Option<LaneMessage> {
    let number = header.number.get();
    Some(match header.kind {
        KIND_MATCH => {
            let body = LaneMatchBody::read_from_bytes(body).ok()?;
            LaneMessage::Request(LaneRequest::Match(MatchQuestion {
                number,
                purpose: body.purpose.read()?,
                leadership: leadership(body.generation, body.term),
                end: Position(body.end.get()),
                chain: Chain(body.chain.get()),
            }))
        }
        KIND_RANGE => {
            let body = LaneRangeBody::read_from_bytes(body).ok()?;
            let (from, to) = (Position(body.from.get()), Position(body.to.get()));
            let purpose = body.purpose.read()?;
            if from > to {
                return None;
            }
            let range = RangeRequest { number, purpose, from, to };
            LaneMessage::Request(LaneRequest::Range(range))
        }
        KIND_MATCHED => {
            let body = LaneMatchedBody::read_from_bytes(body).ok()?;
            let reply = match body.reply {
                REPLY_ASK_LOWER => MatchReply::AskBelow(leadership(body.generation, body.term)),
                REPLY_AGREED => MatchReply::Agreed {
                    position: Position(body.position.get()),
                    chain: Chain(body.chain.get()),
                },
                REPLY_UNKNOWN => MatchReply::Unknown,
                REPLY_GONE => MatchReply::Gone(Position(body.position.get())),
                _ => return None,
            };
            let end = Position(body.end.get());
            LaneMessage::Answer(LaneAnswer::Match(MatchAnswer { number, reply, end }))
        }
        KIND_BYTES => {
            let (head, bytes) = LaneBytesBody::read_from_prefix(body).ok()?;
            let from = Position(head.from.get());
            from.0.checked_add(bytes.len() as u64)?; // no log is that long
            LaneMessage::Answer(LaneAnswer::Bytes {
                number,
                from,
                end: Position(head.end.get()),
                committed: Commit(Position(head.committed.get())),
                bytes: Arc::from(bytes),
            })
        }
        KIND_GONE => {
            let body = LaneGoneBody::read_from_bytes(body).ok()?;
            LaneMessage::Answer(LaneAnswer::Gone { number, first: Position(body.first.get()) })
        }
        KIND_SNAPSHOT => {
            let body = LaneSnapshotBody::read_from_bytes(body).ok()?;
            let (at_most, from) = (Position(body.at_most.get()), body.from.get());
            LaneMessage::Request(LaneRequest::Snapshot(SnapshotRequest { number, at_most, from }))
        }
        KIND_PART => {
            let (head, bytes) = LanePartBody::read_from_prefix(body).ok()?;
            let (total, from) = (head.total.get(), head.from.get());
            let end = from.checked_add(bytes.len() as u64)?;
            if end > total {
                return None;
            }
            let position = Position(head.position.get());
            if position > PART_POSITION_MAX {
                return None;
            }
            let piece = Piece { position, total, from, bytes: bytes.to_vec() };
            LaneMessage::Answer(LaneAnswer::Part { number, piece })
        }
        _ => return None,
    })
}

fn leadership(generation: U64, term: U32) -> Leadership {
    Leadership { generation: Generation::from_u64(generation.get()), term: Term(term.get()) }
}

impl LanePurpose {
    fn of(purpose: Purpose) -> Self {
        let (kind, of) = match purpose {
            Purpose::LeaderSync => (PURPOSE_LEADER_SYNC, Leadership::default()),
            Purpose::CatchUp(leadership) => (PURPOSE_CATCH_UP, leadership),
            Purpose::Repair => (PURPOSE_REPAIR, Leadership::default()),
        };
        Self {
            generation: U64::new(of.generation.to_u64()),
            term: U32::new(of.term.0),
            kind,
            reserved: [0; 3],
        }
    }

    fn read(&self) -> Option<Purpose> {
        match self.kind {
            PURPOSE_LEADER_SYNC => Some(Purpose::LeaderSync),
            PURPOSE_CATCH_UP => Some(Purpose::CatchUp(leadership(self.generation, self.term))),
            PURPOSE_REPAIR => Some(Purpose::Repair),
            _ => None,
        }
    }
}

/// Appends the frame of `message` to `out`, from this node to `to`.
pub fn encode(out: &mut Vec<u8>, message: &LaneMessage, to: NodeId, nodes: &LaneNodes) {
    match message {
        LaneMessage::Request(LaneRequest::Match(question)) => {
            let body = LaneMatchBody {
                generation: U64::new(question.leadership.generation.to_u64()),
                end: U64::new(question.end.0),
                term: U32::new(question.leadership.term.0),
                chain: U32::new(question.chain.0),
                purpose: LanePurpose::of(question.purpose),
            };
            frame(out, KIND_MATCH, question.number, to, nodes, &[body.as_bytes()]);
        }
        LaneMessage::Request(LaneRequest::Range(range)) => {
            let body = LaneRangeBody {
                from: U64::new(range.from.0),
                to: U64::new(range.to.0),
                purpose: LanePurpose::of(range.purpose),
            };
            frame(out, KIND_RANGE, range.number, to, nodes, &[body.as_bytes()]);
        }
        LaneMessage::Answer(LaneAnswer::Match(answer)) => {
            let body = matched(answer);
            frame(out, KIND_MATCHED, answer.number, to, nodes, &[body.as_bytes()]);
        }
        LaneMessage::Answer(LaneAnswer::Bytes { number, from, end, committed, bytes }) => {
            let head = LaneBytesBody {
                from: U64::new(from.0),
                end: U64::new(end.0),
                committed: U64::new(committed.0.0),
            };
            frame(out, KIND_BYTES, *number, to, nodes, &[head.as_bytes(), bytes]);
        }
        LaneMessage::Request(LaneRequest::Snapshot(_))
        | LaneMessage::Answer(LaneAnswer::Gone { .. } | LaneAnswer::Part { .. }) => {
            encode_gone(out, message, to, nodes);
        }
    }
}

/// The frames that are about what has left.
fn encode_gone(out: &mut Vec<u8>, message: &LaneMessage, to: NodeId, nodes: &LaneNodes) {
    match message {
        LaneMessage::Request(LaneRequest::Snapshot(request)) => {
            let body = LaneSnapshotBody {
                at_most: U64::new(request.at_most.0),
                from: U64::new(request.from),
            };
            frame(out, KIND_SNAPSHOT, request.number, to, nodes, &[body.as_bytes()]);
        }
        LaneMessage::Answer(LaneAnswer::Gone { number, first }) => {
            let body = LaneGoneBody { first: U64::new(first.0) };
            frame(out, KIND_GONE, *number, to, nodes, &[body.as_bytes()]);
        }
        LaneMessage::Answer(LaneAnswer::Part { number, piece }) => {
            let head = LanePartBody {
                position: U64::new(piece.position.0),
                total: U64::new(piece.total),
                from: U64::new(piece.from),
            };
            frame(out, KIND_PART, *number, to, nodes, &[head.as_bytes(), &piece.bytes]);
        }
        LaneMessage::Request(_) | LaneMessage::Answer(_) => {}
    }
}

fn matched(answer: &MatchAnswer) -> LaneMatchedBody {
    let mut body = LaneMatchedBody { end: U64::new(answer.end.0), ..LaneMatchedBody::new_zeroed() };
    body.reply = match answer.reply {
        MatchReply::AskBelow(below) => {
            body.generation = U64::new(below.generation.to_u64());
            body.term = U32::new(below.term.0);
            REPLY_ASK_LOWER
        }
        MatchReply::Agreed { position, chain } => {
            body.position = U64::new(position.0);
            body.chain = U32::new(chain.0);
            REPLY_AGREED
        }
        MatchReply::Gone(first) => {
            body.position = U64::new(first.0);
            REPLY_GONE
        }
        // Who could have read it did not: that is not to know.
        MatchReply::Filed(_) | MatchReply::Older { .. } | MatchReply::Unknown => REPLY_UNKNOWN,
    };
    body
}

fn frame(out: &mut Vec<u8>, kind: u8, number: u64, to: NodeId, nodes: &LaneNodes, body: &[&[u8]]) {
    let length: usize = body.iter().map(|part| part.len()).sum();
    debug_assert!(length <= LANE_BODY_BYTES_MAX, "a body of {length} bytes");
    let mut header = CatchUpHeader {
        magic: U16::new(LANE_MAGIC),
        version: LANE_VERSION,
        kind,
        length: U32::new(length as u32),
        group: U64::new(nodes.group.0),
        generation: U64::new(nodes.generation.to_u64()),
        from: U16::new(nodes.own.0),
        to: U16::new(to.0),
        checksum: U32::new(0),
        number: U64::new(number),
    };
    header.checksum = U32::new(checksum(&header, body));
    out.reserve(LANE_HEADER_BYTES + length);
    out.extend_from_slice(header.as_bytes());
    for part in body {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(own: u16) -> LaneNodes {
        let generation = Generation { counter: 1, random: 7 };
        LaneNodes { group: GroupId(0xabc), own: NodeId(own), generation }
    }

    fn messages() -> Vec<(LaneEnd, LaneMessage)> {
        let leadership =
            Leadership { generation: Generation { counter: 1, random: 7 }, term: Term(3) };
        let catch_up = Purpose::CatchUp(leadership);
        let (number, position) = (9, Position(4096));
        let question =
            |purpose| MatchQuestion { number, purpose, leadership, end: position, chain: Chain(5) };
        let answer = |reply| LaneAnswer::Match(MatchAnswer { number, reply, end: Position(8192) });
        let range = RangeRequest { number, purpose: catch_up, from: position, to: Position(9000) };
        let bytes = |bytes: &[u8]| LaneAnswer::Bytes {
            number,
            from: position,
            end: Position(8192),
            committed: Commit(Position(6000)),
            bytes: bytes.into(),
        };
        let requests = [
            LaneRequest::Match(question(Purpose::LeaderSync)),
            LaneRequest::Match(question(catch_up)),
            LaneRequest::Range(range),
            LaneRequest::Snapshot(SnapshotRequest { number, at_most: position, from: 77 }),
        ];
        let answers = [
            answer(MatchReply::Agreed { position, chain: Chain(8) }),
            answer(MatchReply::AskBelow(leadership)),
            answer(MatchReply::Unknown),
            answer(MatchReply::Gone(position)),
            LaneAnswer::Gone { number, first: position },
            LaneAnswer::Part {
                number,
                piece: Piece { position, total: 9000, from: 5, bytes: vec![3; 700] },
            },
            bytes(&[]),
            bytes(&[7; 3000]),
        ];
        let requests = requests.map(|request| (LaneEnd::Source, LaneMessage::Request(request)));
        let answers = answers.map(|answer| (LaneEnd::Asker, LaneMessage::Answer(answer)));
        requests.into_iter().chain(answers).collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in_one_after_the_other_and_byte_by_byte() {
        for end in [LaneEnd::Source, LaneEnd::Asker] {
            let sent: Vec<_> = messages().into_iter().filter(|(of, _)| *of == end).collect();
            let mut stream = Vec::new();
            for (_, message) in &sent {
                encode(&mut stream, message, NodeId(2), &nodes(1));
            }
            let (mut seen, mut come) = (Vec::new(), Vec::new());
            for byte in stream {
                come.push(byte);
                if let Some(frame) = decode(&come, end, &nodes(2)).unwrap() {
                    assert_eq!((frame.from, frame.bytes), (NodeId(1), come.len()));
                    come.clear();
                    seen.push((end, frame.message));
                }
            }
            assert_eq!(seen, sent);
        }
    }

    #[test]
    fn strangers_are_named_and_a_changed_bit_is_seen() {
        for (end, message) in messages() {
            let mut good = Vec::new();
            encode(&mut good, &message, NodeId(2), &nodes(1));
            assert!(decode(&good, end, &nodes(2)).unwrap().is_some());
            for bit in 0..8 * good.len() {
                let mut changed = good.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let judged = decode(&changed, end, &nodes(2));
                assert!(!matches!(judged, Ok(Some(_))), "bit {bit} of {message:?}");
            }
            let other = LaneNodes { group: GroupId(1), ..nodes(2) };
            assert_eq!(decode(&good, end, &other), Err(LaneError::Group(GroupId(0xabc))));
            let to = Err(LaneError::Misdirected(NodeId(2)));
            assert_eq!(decode(&good, end, &nodes(3)), to);
            let generation = Generation { counter: 2, random: 1 };
            let other = LaneNodes { generation, ..nodes(2) };
            let told = Err(LaneError::Generation(nodes(1).generation));
            assert_eq!(decode(&good, end, &other), told);
            let wrong_way = if end == LaneEnd::Source { LaneEnd::Asker } else { LaneEnd::Source };
            assert_eq!(decode(&good, wrong_way, &nodes(2)), Err(LaneError::Garbage));
        }
    }

    #[test]
    fn a_snapshot_at_a_position_that_no_log_comes_to_is_refused() {
        let judged = |position| {
            let piece = Piece { position: Position(position), total: 9, from: 0, bytes: vec![1] };
            let message = LaneMessage::Answer(LaneAnswer::Part { number: 1, piece });
            let mut frame = Vec::new();
            encode(&mut frame, &message, NodeId(2), &nodes(1));
            decode(&frame, LaneEnd::Asker, &nodes(2))
        };
        assert!(matches!(judged(1 << 63), Ok(Some(_))));
        for position in [(1 << 63) + 1, u64::MAX - 4096, u64::MAX] {
            assert_eq!(judged(position), Err(LaneError::Garbage), "{position}");
        }
    }

    #[test]
    fn a_length_beyond_its_kind_is_refused_before_its_bytes_are_awaited() {
        for (end, message) in messages() {
            let mut frame = Vec::new();
            encode(&mut frame, &message, NodeId(2), &nodes(1));
            frame[4..8].copy_from_slice(&(LANE_BODY_BYTES_MAX as u32 + 1).to_le_bytes());
            let head = &frame[..LANE_HEADER_BYTES];
            assert_eq!(decode(head, end, &nodes(2)), Err(LaneError::Oversize));
        }
    }
}

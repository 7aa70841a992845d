//! The log as it ships, in as little memory as a small world needs. All frames are of one length.

use quorate::frame::payload::TermStart;
use quorate::frame::{Kind, Predecessor};
use quorate::journal::SegmentMemory;
use quorate::journal::hot::{HeaderPage, HotLog, HotSettings};
use quorate::limits::{FRAME_HEADER_BYTES, SEGMENT_BYTES_MIN};
use quorate::link::Recency;
use quorate::mutants::Mutants;
use quorate::types::{Generation, GroupId, Leadership, Position, Tail, Term, Timestamp};
use zerocopy::{FromBytes, IntoBytes};

use crate::explore::fingerprint;

pub(crate) const GROUP: GroupId = GroupId(7);
pub(crate) const GENERATION: Generation = Generation { counter: 1, random: 1 };
pub(crate) const FRAME: u64 = 64;
/// As much memory as the longest log needs, and the word behind it.
const MEMORY: usize = 8 * FRAME as usize;

pub(crate) type Log = HotLog<Small>;

/// A segment that says that it is large.
#[derive(Clone, Hash)]
pub(crate) struct Small([u8; MEMORY]);

impl SegmentMemory for Small {
    fn payload_bytes(&self) -> u64 {
        SEGMENT_BYTES_MIN
    }
    fn header_mut(&mut self) -> &mut [u8] {
        &mut []
    }
    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        &self.0[offset as usize..][..length]
    }
    fn bytes_mut(&mut self, offset: u64, length: usize) -> &mut [u8] {
        &mut self.0[offset as usize..][..length]
    }
    fn publish(&mut self, offset: u64, word: u32) {
        self.0[offset as usize..][..4].copy_from_slice(&word.to_le_bytes());
    }
    fn published(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.0[offset as usize..][..4].try_into().unwrap())
    }
}

pub(crate) fn leadership(term: u32) -> Leadership {
    Leadership { generation: GENERATION, term: Term(term) }
}

pub(crate) fn recency(log: &Log) -> Recency {
    Recency { last: log.last_leadership(), tail: Tail(log.tail().position) }
}

/// The bytes of an entry, its chain among them.
pub(crate) fn bytes_of(log: &Log, entry: usize) -> u64 {
    let from = Position(entry as u64 * FRAME);
    fingerprint(&log.chunk(from, from.plus(FRAME), FRAME as usize).unwrap().bytes)
}

pub(crate) fn append(log: &mut Log, term: u32, opening: bool) {
    append_list(log, term, opening, 0);
}

/// An entry that says who votes, if `voters` is not empty: a bit for each node.
pub(crate) fn append_list(log: &mut Log, term: u32, opening: bool, voters: u32) {
    let start = TermStart {
        generation: GENERATION.to_u64().into(),
        base: log.tail().position.0.into(),
        service_version: voters.into(),
        leader: 0.into(),
        reserved: 0.into(),
    };
    let kind = if opening { Kind::TermStart } else { Kind::GroupSetting };
    log.append(kind, Term(term), Timestamp(1), &[start.as_bytes()]).unwrap();
}

/// A log without frames.
pub(crate) fn blank_log(mutants: Mutants) -> Log {
    let settings = HotSettings {
        segment_bytes: SEGMENT_BYTES_MIN,
        window_bytes: SEGMENT_BYTES_MIN / 4,
        group: GROUP,
        generation: GENERATION,
        header: HeaderPage { enter: |_, _| {}, before: |_| None },
        terms: Vec::new(),
    };
    let mut log = HotLog::new(settings, Predecessor::genesis(GROUP));
    assert!(log.add_segment(Position(0), Small([0; MEMORY])).is_ok());
    log.plant(mutants);
    log
}

pub(crate) fn entries(log: &Log) -> u64 {
    log.tail().position.0 / FRAME
}

/// Entries that two logs have in common.
pub(crate) fn common(a: &Log, b: &Log) -> u64 {
    let shorter = entries(a).min(entries(b));
    (0..shorter).take_while(|&n| bytes_of(a, n as usize) == bytes_of(b, n as usize)).count() as u64
}

/// Makes `log` the first `upto` entries of `leader`, or as many as it has of them.
pub(crate) fn copy(log: &mut Log, leader: &Log, upto: u64) {
    let same = common(log, leader);
    if same < entries(log) {
        let at = log.predecessor_at(Position(same * FRAME)).unwrap();
        log.cut(at).unwrap();
    }
    for entry in same..upto {
        let from = Position(entry * FRAME);
        let chunk = leader.chunk(from, from.plus(FRAME), FRAME as usize).unwrap();
        log.place(from, chunk.bytes);
        let end = quorate::types::Received(from.plus(FRAME));
        assert_eq!(log.verify(end, 1, Term(u32::MAX)).frames, 1, "it chains");
    }
}

/// The voters that an entry names; none if it is of another kind.
pub(crate) fn list_in(log: &Log, entry: u64) -> u32 {
    let from = Position(entry * FRAME);
    let chunk = log.chunk(from, from.plus(FRAME), FRAME as usize).unwrap();
    let payload = &chunk.bytes[FRAME_HEADER_BYTES..];
    TermStart::read_from_prefix(payload).unwrap().0.service_version.get()
}

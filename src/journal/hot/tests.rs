//! The hot log against a plain model: appended, sent, received in any order, cut, retired, found again.
mod receiving;

use zerocopy::IntoBytes;

use super::*;
use crate::frame::payload::TermStart;
use crate::journal::heap::HeapMemory;
use crate::limits::HOT_SEGMENTS_MAX;
use crate::types::{Chain, Sequence, Term, Timestamp};

const SEGMENT: u64 = SEGMENT_BYTES_MIN;
const GROUP: GroupId = GroupId(0xFEED);
const GENERATION: Generation = Generation { counter: 1, random: 0xABCD };
const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn settings() -> HotSettings {
    HotSettings {
        segment_bytes: SEGMENT,
        window_bytes: SEGMENT / 4,
        group: GROUP,
        generation: GENERATION,
        header: HeaderPage::standard(),
        terms: Vec::new(),
    }
}

fn log(segments: u64) -> HotLog<HeapMemory> {
    let mut log = HotLog::new(settings(), Predecessor::genesis(GROUP));
    for n in 0..segments {
        log.add_segment(Position(n * SEGMENT), HeapMemory::new(SEGMENT)).unwrap();
    }
    log
}

fn start_term(log: &mut HotLog<HeapMemory>, term: u32) -> Appended {
    let payload = TermStart {
        generation: GENERATION.to_u64().into(),
        base: log.tail().position.0.into(),
        service_version: 1.into(),
        leader: 0.into(),
        reserved: 0.into(),
    };
    log.append(Kind::TermStart, Term(term), NOW, &[payload.as_bytes()]).unwrap()
}

fn command(log: &mut HotLog<HeapMemory>, payload: &[u8]) -> Appended {
    let term = log.tail().term;
    log.append(Kind::Command, term, NOW, &[payload]).unwrap()
}

/// The whole log as a reader sees it, padding bodies as zeros.
fn image(log: &HotLog<HeapMemory>) -> Vec<u8> {
    let mut image = Vec::new();
    let mut at = log.hot_base();
    while let Some(chunk) = log.chunk(at, log.tail().position, 1000) {
        image.extend_from_slice(chunk.bytes);
        image.resize(chunk.next.since(log.hot_base()) as usize, 0);
        at = chunk.next;
    }
    assert_eq!(at, log.tail().position);
    image
}

/// Checks everything that must hold between a log's bytes and what it says about them.
fn check(log: &HotLog<HeapMemory>) {
    let mut before = log.predecessor_at(log.hot_base()).unwrap();
    for (position, header, payload) in log.frames(log.hot_base(), log.tail().position) {
        assert_eq!(position, before.position);
        assert_eq!(log.predecessor_at(position), Some(before));
        assert_eq!(log.predecessor_at(position.plus(1)), None);
        let slot = log.segments.at(position).unwrap();
        let offset = log.offset(position);
        assert_eq!(slot.memory.published(offset), header.length());
        let held = (header.span().min(SEGMENT - offset)) as usize;
        let bytes = slot.memory.bytes(offset, held);
        let judged = crate::frame::check_frame(before, SEGMENT, header.length(), bytes).unwrap();
        assert_eq!(judged, header);
        if header.kind == Kind::Padding as u8 {
            assert!(bytes[FRAME_HEADER_BYTES..].iter().all(|&byte| byte == 0));
        } else {
            assert_eq!(payload, &bytes[FRAME_HEADER_BYTES..header.length() as usize]);
            assert_eq!(log.seek_sequence(header.sequence()), Some(position));
        }
        if offset == 0 {
            assert!(slot.entered);
        }
        before = before.after(&header);
    }
    assert_eq!(before, log.tail());
    if let Some(slot) = log.segments.at(log.tail().position) {
        assert_eq!(slot.memory.published(log.offset(log.tail().position)), 0);
    }
}

#[test]
fn golden_bytes_of_one_frame() {
    let mut log = log(1);
    log.append(Kind::Command, Term(3), Timestamp(0x0102_0304_0506_0708), &[b"buy", b" 100"])
        .unwrap();
    let mut golden = vec![
        0x27, 0, 0, 0, // length: 32 + 7
        0, 0, 0, 0, // crc32c, below
        3, 0, 0, 0, // term
        5, 0, 1, 0, // kind, flags, version
        1, 0, 0, 0, 0, 0, 0, 0, // sequence
        8, 7, 6, 5, 4, 3, 2, 1, // timestamp
    ];
    golden.extend_from_slice(b"buy 100");
    golden.resize(64, 0);
    // Computed bit by bit elsewhere: CRC-32C of the group's eight bytes is 0x90216052; started from there, over the length,
    // bytes 8..32, the position's eight bytes and the payload, it is this.
    golden[4..8].copy_from_slice(&0x8854_C8DF_u32.to_le_bytes());
    assert_eq!(image(&log), golden);
}

#[test]
fn appends_pads_and_reads_back() {
    let mut log = log(3);
    start_term(&mut log, 1);
    let mut sequence = 1;
    for n in 0..200_usize {
        let payload = vec![n as u8; n * 13 % 1700];
        let appended = command(&mut log, &payload);
        sequence += 1;
        assert_eq!(appended.sequence, Sequence(sequence));
        assert_eq!(log.tail().position, appended.end);
    }
    assert!(log.tail().position > Position(2 * SEGMENT));
    let pads = log.frames(Position(0), log.tail().position);
    assert_eq!(pads.filter(|(_, header, _)| header.kind() == Some(Kind::Padding)).count(), 2);
    check(&log);
}

#[test]
fn a_claim_without_commit_leaves_nothing() {
    let mut log = log(2);
    start_term(&mut log, 1);
    let tail = log.tail();
    log.claim(5000).unwrap().fill(0xFF);
    assert_eq!(log.tail(), tail);
    let mut plain = self::log(2);
    start_term(&mut plain, 1);
    for length in [0, 1, 31, 32, 33] {
        command(&mut log, &vec![1; length]);
        command(&mut plain, &vec![1; length]);
        check(&log);
    }
    let rest = (SEGMENT - log.tail().position.0) as usize - 64;
    log.claim(rest).unwrap().fill(0xFF);
    // The next one does not fit: padding covers what the dropped claim wrote.
    command(&mut log, &vec![2; rest + 100]);
    command(&mut plain, &vec![2; rest + 100]);
    check(&log);
    assert_eq!(image(&log), image(&plain));
}

#[test]
fn refusals_are_named_and_change_nothing() {
    let mut log = log(1);
    let limit = log.payload_bytes_max();
    assert_eq!(limit as u64, SEGMENT - 32);
    let too_long = ClaimError::TooLong { payload_bytes: limit + 1, limit };
    assert_eq!(log.claim(limit + 1).unwrap_err(), too_long);
    start_term(&mut log, 1);
    assert!(!log.room_for(limit) && log.room_for(limit - 64));
    let full = ClaimError::NoRoom { position: Position(64) };
    assert_eq!(log.append(Kind::Command, Term(1), NOW, &[&vec![0; limit]]), Err(full));
    command(&mut log, &vec![1; limit - 64]);
    assert_eq!(log.tail().position, Position(SEGMENT));
    assert_eq!(log.claim(0).unwrap_err(), ClaimError::NoRoom { position: Position(SEGMENT) });
    log.add_segment(Position(SEGMENT), HeapMemory::new(SEGMENT)).unwrap();
    command(&mut log, &vec![2; limit]);
    check(&log);
}

#[test]
fn segments_that_do_not_belong_are_given_back() {
    let mut log = log(2);
    let refused = |log: &mut HotLog<HeapMemory>, base, bytes| {
        log.add_segment(Position(base), HeapMemory::new(bytes)).unwrap_err().reason
    };
    let expected = Position(2 * SEGMENT);
    assert_eq!(refused(&mut log, 3 * SEGMENT, SEGMENT), AddRefusal::Base { expected });
    assert_eq!(refused(&mut log, 0, SEGMENT), AddRefusal::Base { expected });
    let size = AddRefusal::Size { payload_bytes: 2 * SEGMENT };
    assert_eq!(refused(&mut log, 2 * SEGMENT, 2 * SEGMENT), size);
    for n in 2..HOT_SEGMENTS_MAX as u64 {
        log.add_segment(Position(n * SEGMENT), HeapMemory::new(SEGMENT)).unwrap();
    }
    let next = HOT_SEGMENTS_MAX as u64 * SEGMENT;
    assert_eq!(refused(&mut log, next, SEGMENT), AddRefusal::Full);
    let mut later = HotLog::new(
        settings(),
        Predecessor { position: Position(SEGMENT + 64), ..Predecessor::default() },
    );
    let base = AddRefusal::Base { expected: Position(SEGMENT) };
    assert_eq!(refused(&mut later, 2 * SEGMENT, SEGMENT), base);
    assert_eq!(refused(&mut later, SEGMENT, SEGMENT), AddRefusal::Header);
}

#[test]
fn a_restarted_log_goes_on_over_the_same_memory() {
    let mut log = log(3);
    start_term(&mut log, 1);
    while log.tail().position < Position(2 * SEGMENT + 500) {
        command(&mut log, &[7; 700]);
    }
    log.claim(3000).unwrap().fill(0xEE);
    let (tail, before) = (log.tail(), image(&log));
    let terms = log.terms().iter().collect();
    let memories: Vec<_> = core::iter::from_fn(|| log.segments.pop_oldest())
        .map(|slot| (slot.base, slot.memory))
        .collect();
    let mut again = HotLog::new(HotSettings { terms, ..settings() }, tail);
    for (base, memory) in memories {
        again.add_segment(base, memory).unwrap();
    }
    assert_eq!(image(&again), before);
    check(&again);
    let free =
        again.segments.at(tail.position).unwrap().memory.bytes(again.offset(tail.position), 4000);
    assert!(free.iter().all(|&byte| byte == 0));
    command(&mut again, &[8; 4000]);
    check(&again);
    assert_eq!(again.latest_at_or_below(again.last_leadership()).unwrap().base, Position(0));
}

#[test]
fn content_that_does_not_lead_to_the_tail_is_refused() {
    let mut log = log(1);
    start_term(&mut log, 1);
    command(&mut log, &[7; 700]);
    let tail = Predecessor { chain: Chain(1), ..log.tail() };
    let memory = log.segments.pop_oldest().unwrap().memory;
    let mut again = HotLog::new(settings(), tail);
    let error = again.add_segment(Position(0), memory).unwrap_err();
    assert_eq!(error.reason, AddRefusal::Content { position: tail.position });
    let tail = Predecessor { position: Position(4096), ..tail };
    let mut again = HotLog::new(settings(), tail);
    let error = again.add_segment(Position(0), error.memory).unwrap_err();
    assert_eq!(error.reason, AddRefusal::Content { position: Position(64 + 736) });
}

#[test]
fn a_cut_restores_the_log_of_that_moment() {
    let mut log = log(4);
    start_term(&mut log, 1);
    for _ in 0..60 {
        command(&mut log, &[1; 900]);
    }
    let (at, then) = (log.tail(), image(&log));
    start_term(&mut log, 2);
    while log.tail().position < Position(3 * SEGMENT + 5000) {
        command(&mut log, &[2; 1300]);
    }
    assert_eq!(log.terms().iter().count(), 2);
    log.cut(at).unwrap();
    assert_eq!((log.tail(), image(&log)), (at, then.clone()));
    check(&log);
    assert_eq!(log.terms().iter().count(), 1);
    for slot in log.segments.iter_mut() {
        let from = at.position.0.saturating_sub(slot.base.0).min(SEGMENT);
        assert!(slot.memory.bytes(from, (SEGMENT - from) as usize).iter().all(|&b| b == 0));
        assert_eq!(slot.entered, slot.base < at.position);
        let before = before_standard(slot.memory.header_mut());
        assert_eq!(before.is_some(), slot.base < at.position);
    }
    start_term(&mut log, 3);
    while log.tail().position < Position(2 * SEGMENT) {
        command(&mut log, &[3; 1300]);
    }
    check(&log);
    assert_eq!(image(&log)[..then.len()], then);
}

#[test]
fn cuts_elsewhere_are_refused() {
    let mut log = log(2);
    start_term(&mut log, 1);
    command(&mut log, &[1; 100]);
    let tail = log.tail();
    let above = Predecessor { position: tail.position.plus(32), ..tail };
    assert_eq!(log.cut(above), Err(CutError::AboveTail { tail: tail.position }));
    let other = Predecessor { chain: Chain(5), ..tail };
    assert_eq!(log.cut(other), Err(CutError::OtherLog { own: Some(tail) }));
    let inside = Predecessor { position: Position(96), ..tail };
    assert_eq!(log.cut(inside), Err(CutError::OtherLog { own: None }));
    assert_eq!(log.tail(), tail);
    check(&log);
}

#[test]
fn d16_a_segment_is_retired_only_when_durable_and_two_windows_stay() {
    let mut log = log(4);
    start_term(&mut log, 1);
    while log.tail().position < Position(SEGMENT + SEGMENT / 2 - 2000) {
        command(&mut log, &[1; 900]);
    }
    let durable = log.tail().position;
    assert!(log.retire(durable).is_none(), "less than two windows would stay");
    while log.tail().position < Position(SEGMENT + SEGMENT / 2) {
        command(&mut log, &[1; 900]);
    }
    assert!(log.retire(Position(SEGMENT - 32)).is_none(), "its end is not durable");
    let (base, memory) = log.retire(Position(SEGMENT)).unwrap();
    assert_eq!((base, memory.payload_bytes()), (Position(0), SEGMENT));
    assert_eq!(log.hot_base(), Position(SEGMENT));
    assert!(log.retire(log.tail().position).is_none());
    check(&log);
    assert!(log.chunk(Position(SEGMENT - 64), log.tail().position, 64).is_none());
    assert_eq!(log.predecessor_at(Position(0)), None);
    assert_eq!(log.seek_sequence(Sequence(1)), None);
    let below = Predecessor { position: Position(64), ..Predecessor::default() };
    assert_eq!(log.cut(below), Err(CutError::BelowHot { lowest: Position(SEGMENT) }));
}

#[test]
fn terms_are_found_for_the_match_protocol() {
    let mut log = log(2);
    start_term(&mut log, 1);
    command(&mut log, &[1; 100]);
    let second = start_term(&mut log, 4).position;
    command(&mut log, &[1; 100]);
    let of = |term| Leadership { generation: GENERATION, term: Term(term) };
    let span = |term, base, end| Some(TermSpan { leadership: of(term), base, end });
    assert_eq!(log.latest_at_or_below(of(3)), span(1, Position(0), second));
    assert_eq!(log.latest_at_or_below(of(9)), span(4, second, log.tail().position));
    assert_eq!(log.latest_at_or_below(of(0)), None);
    assert_eq!(log.last_leadership(), of(4));
}

#[test]
fn a_term_that_begins_with_padding_begins_there() {
    let mut log = log(2);
    start_term(&mut log, 1);
    let rest = (SEGMENT - log.tail().position.0) as usize;
    command(&mut log, &vec![1; rest - 64]);
    let pad = log.tail().position;
    assert_eq!(pad, Position(SEGMENT - 32));
    assert_eq!(start_term(&mut log, 2).position, Position(SEGMENT));
    let of = |term| Leadership { generation: GENERATION, term: Term(term) };
    assert_eq!(log.latest_at_or_below(of(1)).unwrap().end, pad);
    assert_eq!(log.latest_at_or_below(of(2)).unwrap().base, pad);
    check(&log);
}

use proptest::prelude::*;

use super::*;
use crate::journal::heap::{HeapHotTier, HeapMemory};
use crate::journal::hot::{HeaderPage, HotLog, HotSettings};
use crate::journal::memory::HotTier;
use crate::limits::SEGMENT_BYTES_MIN;
use crate::types::{GroupId, Received, Term};
use zerocopy::IntoBytes;

const SEGMENT: u64 = SEGMENT_BYTES_MIN;
const GROUP: GroupId = GroupId(77);
const GENERATION: Generation = Generation { counter: 2, random: 9 };
const ALL: Position = Position(u64::MAX);

fn empty() -> HotLog<HeapMemory> {
    let header = HeaderPage::standard();
    let settings = HotSettings {
        segment_bytes: SEGMENT,
        window_bytes: SEGMENT,
        group: GROUP,
        generation: GENERATION,
        header,
        terms: Vec::new(),
    };
    HotLog::new(settings, Predecessor::genesis(GROUP))
}

fn start_term(log: &mut HotLog<HeapMemory>, term: u32) {
    let start = TermStart {
        generation: GENERATION.to_u64().into(),
        base: log.tail().position.0.into(),
        service_version: 1.into(),
        leader: 0.into(),
        reserved: 0.into(),
    };
    let time = Timestamp(u64::from(term) * 1000);
    log.append(Kind::TermStart, Term(term), time, &[start.as_bytes()]).unwrap();
}

/// A log of two segments and a bit, several terms; the n-th entry at time 10 n.
fn sample() -> HotLog<HeapMemory> {
    let mut log = empty();
    for n in 0..3 {
        log.add_segment(Position(n * SEGMENT), HeapMemory::new(SEGMENT)).unwrap();
    }
    start_term(&mut log, 1);
    for n in 0.. {
        if n % 100 == 99 {
            let term = log.tail().term.0 + 1;
            start_term(&mut log, term);
        }
        let payload = vec![n as u8; n * 37 % 1800];
        let time = Timestamp(10 * log.tail().sequence.next().0);
        log.append(Kind::Command, log.tail().term, time, &[&payload]).unwrap();
        if log.tail().position > Position(2 * SEGMENT + 9000) {
            return log;
        }
    }
    unreachable!()
}

fn image(log: &HotLog<HeapMemory>) -> Vec<u8> {
    let mut image = Vec::new();
    let mut at = Position(0);
    while let Some(chunk) = log.chunk(at, log.tail().position, usize::MAX) {
        image.extend_from_slice(chunk.bytes);
        at = chunk.next;
        image.resize(at.0 as usize, 0);
    }
    image
}

fn follow(bytes: &[u8]) -> ChainEnd {
    let source = SliceBytes { base: Position(0), bytes };
    follow_chain(source, SEGMENT, Predecessor::genesis(GROUP), GENERATION, ALL)
}

#[test]
fn a_whole_log_is_walked_with_every_frame_and_term() {
    let log = sample();
    let image = image(&log);
    let source = SliceBytes { base: Position(0), bytes: &image };
    let mut walker = Walker::new(source, SEGMENT, Predecessor::genesis(GROUP));
    let mut frames = log.frames(Position(0), log.tail().position);
    while let Some(found) = walker.next_frame(log.tail().position).unwrap() {
        assert_eq!(frames.next(), Some((found.position, found.header, found.payload)));
    }
    assert_eq!(frames.next(), None);
    assert_eq!(walker.before(), log.tail());
    let end = follow(&image);
    assert!(end.terms.iter().copied().eq(log.terms().iter()));
    assert_eq!(end.frames as usize, log.frames(Position(0), log.tail().position).count());
    let stopped = end.stopped.unwrap();
    assert!(stopped.may_be_end() && stopped.position == log.tail().position);
}

#[test]
fn the_limit_is_never_read_beyond() {
    struct Guarded<'a>(SliceBytes<'a>, std::cell::Cell<u64>);
    impl LogBytes for Guarded<'_> {
        fn read(&self, position: Position, bytes: &mut [u8]) -> io::Result<usize> {
            assert!(position.0 + bytes.len() as u64 <= self.1.get(), "read beyond the limit");
            self.0.read(position, bytes)
        }
    }
    let log = sample();
    let image = image(&log);
    let slice = SliceBytes { base: Position(0), bytes: &image };
    let source = Guarded(slice, std::cell::Cell::new(0));
    let mut walker = Walker::new(source, SEGMENT, Predecessor::genesis(GROUP));
    let mut seen = 0;
    for limit in (0..=image.len() as u64).step_by(1777).chain([image.len() as u64]) {
        walker.source().1.set(limit);
        while let Some(found) = walker.next_frame(Position(limit)).unwrap() {
            assert!(found.position.plus(found.header.span()).0 <= limit);
            seen += 1;
        }
    }
    assert_eq!(seen, log.frames(Position(0), log.tail().position).count());
}

#[test]
fn what_was_read_before_it_was_written_is_read_again() {
    let log = sample();
    let image = image(&log);
    let mut partial = image[..20_000].to_vec();
    partial.resize(SEGMENT as usize, 0);
    let source = SliceBytes { base: Position(0), bytes: &partial };
    let mut walker = Walker::new(source, SEGMENT, Predecessor::genesis(GROUP));
    while matches!(walker.next_frame(ALL), Ok(Some(_))) {}
    let stopped = walker.before();
    assert!(stopped.position < Position(20_000));
    walker.source_mut().bytes = &image;
    while matches!(walker.next_frame(log.tail().position), Ok(Some(_))) {}
    assert_eq!(walker.before(), log.tail());
}

#[test]
fn seeks_by_position_sequence_and_time_stop_in_front() {
    let log = sample();
    let image = image(&log);
    let source = SliceBytes { base: Position(0), bytes: &image };
    let walker = || Walker::new(source, SEGMENT, Predecessor::genesis(GROUP));
    let end = log.tail().position;
    let third = log.seek_sequence(Sequence(3)).unwrap();
    let mut by_sequence = walker();
    assert!(by_sequence.seek(end, |_, header| header.sequence() >= Sequence(3)).unwrap());
    assert_eq!(by_sequence.before().position, third);
    let mut by_position = walker();
    assert!(by_position.seek(end, |position, _| position >= third).unwrap());
    assert_eq!(by_position.before(), by_sequence.before());
    let mut by_time = walker();
    assert!(by_time.seek(end, |_, header| header.timestamp() >= Timestamp(30)).unwrap());
    let mut none = walker();
    assert!(!none.seek(end, |_, header| header.sequence() > log.tail().sequence).unwrap());
    assert_eq!(none.before(), log.tail());
}

#[test]
fn segments_are_chosen_so_that_the_entry_cannot_lie_below() {
    let start = |sequence| Predecessor { sequence: Sequence(sequence), ..Predecessor::default() };
    let starts = [start(0), start(10), start(20)];
    let of = |sequence| segment_of_sequence(&starts, Sequence(sequence));
    assert_eq!((of(0), of(1), of(10), of(11)), (None, Some(0), Some(0), Some(1)));
    assert_eq!(of(9999), Some(2));
    let times = [Timestamp(5), Timestamp(50), Timestamp(50), Timestamp(90)];
    let at = |time| segment_of_time(&times, Timestamp(time));
    assert_eq!(
        (at(0), at(5), at(6), at(50), at(51), at(1000)),
        (Some(0), Some(0), Some(0), Some(0), Some(2), Some(3))
    );
    assert_eq!(segment_of_time(&[], Timestamp(1)), None);
}

/// After a crash of the process the memory holds the verified log, and possibly bytes that came out of order.
#[test]
fn hot_memory_leads_exactly_to_what_was_verified() {
    let leader = sample();
    let image = image(&leader);
    for received in [0_usize, 500, 64, 30_000, SEGMENT as usize, SEGMENT as usize + 700] {
        let mut tier = HeapHotTier::new(SEGMENT, 1);
        let mut follower = empty();
        for n in 0..3 {
            tier.create(Position(n * SEGMENT)).unwrap();
            let (memory, _) = tier.open(Position(n * SEGMENT)).unwrap();
            follower.add_segment(Position(n * SEGMENT), memory).unwrap();
        }
        follower.place(Position(0), &image[..received]);
        follower.place(Position(received as u64 + 32), &image[received + 32..]);
        follower.verify(Received(Position(received as u64)), usize::MAX, leader.tail().term);
        let tail = follower.tail();
        drop(follower);
        let found: Vec<_> = tier.list().unwrap();
        let segments: Vec<_> =
            found.into_iter().map(|base| (base, tier.open(base).unwrap().0)).collect();
        let source = HotBytes { segments: &segments };
        let end = follow_chain(source, SEGMENT, Predecessor::genesis(GROUP), GENERATION, ALL);
        assert_eq!(end.tail, tail);
        assert!(end.stopped.unwrap().may_be_end());
    }
}

#[test]
fn errors_of_the_host_are_told_with_their_position() {
    struct Broken;
    impl LogBytes for Broken {
        fn read(&self, _: Position, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unreadable sector"))
        }
    }
    let mut walker = Walker::new(Broken, SEGMENT, Predecessor::genesis(GROUP));
    let trouble = walker.next_frame(ALL).unwrap_err();
    assert_eq!(trouble.to_string(), "at 0: unreadable sector");
    assert!(!trouble.may_be_end());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cut anywhere, and followed by nothing, zeros or rubbish: exactly the whole frames below the cut are found.
    #[test]
    fn any_cut_recovers_to_a_prefix(cut in 0_u64..=1000, behind in 0_u8..3, noise in any::<u8>()) {
        let log = sample();
        let image = image(&log);
        let cut = image.len() * cut as usize / 1000;
        let mut torn = image[..cut].to_vec();
        match behind {
            0 => {}
            1 => torn.resize(3 * SEGMENT as usize, 0),
            _ => torn.extend((0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ noise)),
        }
        let end = follow(&torn);
        // Bytes of the last frame may happen to be what was cut off: all zero, or padding's body.
        let last = log.frames(Position(0), log.tail().position)
            .map(|(position, header, _)| position.plus(header.span()))
            .take_while(|end| end.0 as usize <= cut)
            .last()
            .unwrap_or(Position(0));
        let expected = log.predecessor_at(last).unwrap();
        prop_assert!(end.tail.position >= last);
        if end.tail != expected {
            let own = log.predecessor_at(end.tail.position);
            prop_assert_eq!(own, Some(end.tail), "only this log's own frames");
        }
        prop_assert!(end.stopped.is_some() || end.tail == log.tail());
    }

    /// One changed byte anywhere: everything below its frame is found, and nothing from it on.
    #[test]
    fn any_changed_byte_ends_the_walk_at_its_frame(at in 0_u64..1_000_000, xor in 1_u8..) {
        let log = sample();
        let mut image = image(&log);
        let at = image.len() * at as usize / 1_000_000;
        image[at] ^= xor;
        let end = follow(&image);
        let frame = log.frames(Position(0), log.tail().position)
            .find(|(position, header, _)| position.plus(header.span()).0 as usize > at)
            .unwrap();
        let in_pad = frame.1.kind() == Some(Kind::Padding) && at >= frame.0.0 as usize + 32;
        let expected = if in_pad { log.tail().position } else { frame.0 };
        prop_assert_eq!(end.tail.position, expected);
    }
}

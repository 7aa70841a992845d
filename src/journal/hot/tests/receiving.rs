//! Bytes that come in pieces, in any order, twice, wrong or not at all: the follower ends with the leader's log.

use proptest::prelude::*;

use super::*;
use crate::frame::FrameError;
use crate::types::Received;

/// The part of a receiver that a hot log relies on: what is missing, byte by byte.
struct Follower {
    log: HotLog<HeapMemory>,
    here: Vec<bool>,
    reopened: usize,
    looked: usize,
}

impl Follower {
    fn new(segments: u64) -> Self {
        let here = vec![false; (segments * SEGMENT) as usize];
        Self { log: log(segments), here, reopened: 0, looked: 0 }
    }

    fn received(&self) -> Received {
        let from = self.log.tail().position.0 as usize;
        let more = self.here[from..].iter().take_while(|&&here| here).count();
        Received(Position((from + more) as u64))
    }

    /// Places what is missing of these bytes, as a receiver does, and verifies.
    fn take(&mut self, from: Position, bytes: &[u8], pads: bool, sender: &HotLog<HeapMemory>) {
        let start = from.0 as usize;
        let mut at = 0;
        while at < bytes.len() {
            let missing = !self.here[start + at];
            let run = bytes[at..].iter().zip(&self.here[start + at..]);
            let run = run.take_while(|&(_, &here)| here != missing).count();
            if missing {
                self.log.place(from.plus(at as u64), &bytes[at..at + run]);
            }
            at += run;
        }
        self.here[start..start + bytes.len()].fill(true);
        if pads {
            let end = start + bytes.len();
            self.here[end..end.next_multiple_of(SEGMENT as usize)].fill(true);
        }
        self.verify(sender);
    }

    fn verify(&mut self, sender: &HotLog<HeapMemory>) {
        loop {
            let received = self.received();
            let mut done = self.log.verify(received, 7, sender.tail().term);
            if done.incomplete.is_some_and(|end| end > sender.tail().position) {
                done.bad = Some(self.log.reopen(received, Refusal::BeyondSender));
            }
            self.frontier_is_hidden();
            let Some(bad) = done.bad else {
                if done.frames == 7 {
                    continue;
                }
                return;
            };
            assert!(bad.position == self.log.tail().position && bad.reopened_to > bad.position);
            self.here[bad.position.0 as usize..bad.reopened_to.0 as usize].fill(false);
            self.reopened += 1;
        }
    }

    fn frontier_is_hidden(&self) {
        let tail = self.log.tail().position;
        if let Some(slot) = self.log.segments.at(tail) {
            assert_eq!(slot.memory.published(self.log.offset(tail)), 0);
        }
    }

    /// Looks at the end of the log each time, and at all of it now and then.
    fn holds_a_prefix_of(&mut self, sender: &[u8]) {
        self.looked += 1;
        let tail = self.log.tail().position;
        let mut at = Position(0);
        if !self.looked.is_multiple_of(16) {
            at = Position(tail.0.saturating_sub(4096));
        }
        while let Some(chunk) = self.log.chunk(at, tail, usize::MAX) {
            assert!(sender[at.0 as usize..].starts_with(chunk.bytes));
            at = chunk.next;
        }
        assert_eq!(at, tail);
    }

    /// Asks for all that is missing until nothing is.
    fn repair(&mut self, sender: &HotLog<HeapMemory>) {
        for _ in 0..1000 {
            let from = self.received().0;
            if from >= sender.tail().position {
                break;
            }
            let missing = self.here[from.0 as usize..].iter().take_while(|&&here| !here).count();
            let to = from.plus(missing as u64);
            let chunk = sender.chunk(from, to, 1400).unwrap();
            self.take(from, chunk.bytes, chunk.pads, sender);
        }
        assert_eq!(self.log.tail(), sender.tail());
    }
}

/// What became of one datagram.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Lost,
    Once,
    Twice,
    Corrupted { byte: usize, xor: u8 },
    Foreign,
}

fn fates() -> impl Strategy<Value = Vec<(Fate, u16)>> {
    let fate = prop_oneof![
        2 => Just(Fate::Lost),
        12 => Just(Fate::Once),
        2 => Just(Fate::Twice),
        2 => (0_usize..1400, 1_u8..).prop_map(|(byte, xor)| Fate::Corrupted { byte, xor }),
        1 => Just(Fate::Foreign),
    ];
    prop::collection::vec((fate, any::<u16>()), 1..200)
}

fn sender_of(lengths: &[usize]) -> HotLog<HeapMemory> {
    let mut sender = log(3);
    start_term(&mut sender, 1);
    for (n, &length) in lengths.iter().enumerate() {
        // Frames of any length leave any room, also less than a term start takes.
        if !sender.room_for(length.max(size_of::<TermStart>())) {
            break;
        }
        if n % 16 == 15 {
            let term = sender.tail().term.0 + 1;
            start_term(&mut sender, term);
        }
        let payload: Vec<u8> = (0..length).map(|byte| (byte * 31 + n) as u8).collect();
        if !sender.room_for(length) {
            break;
        }
        command(&mut sender, &payload);
    }
    sender
}

/// A log of another group: its bytes stand at the same positions and never belong.
fn foreign() -> HotLog<HeapMemory> {
    let group = GroupId(1);
    let mut log = HotLog::new(HotSettings { group, ..settings() }, Predecessor::genesis(group));
    for n in 0..3 {
        log.add_segment(Position(n * SEGMENT), HeapMemory::new(SEGMENT)).unwrap();
    }
    start_term(&mut log, 1);
    while log.room_for(1000) {
        command(&mut log, &[0xF0; 1000]);
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn d13_any_order_loss_duplication_and_corruption_gives_the_senders_bytes(
        lengths in prop::collection::vec(
            prop_oneof![6 => 0_usize..300, 2 => 300_usize..3000, 1 => 20_000_usize..40_000], 1..120),
        sizes in prop::collection::vec(1_usize..1400, 1..20),
        fates in fates(),
    ) {
        let sender = sender_of(&lengths);
        let whole = image(&sender);
        let foreign = foreign();
        let mut datagrams = Vec::new();
        let mut at = Position(0);
        for n in 0.. {
            let size = sizes[n % sizes.len()];
            let Some(chunk) = sender.chunk(at, sender.tail().position, size) else { break };
            let (fate, order) = fates[n % fates.len()];
            // A datagram overtakes up to a dozen others.
            datagrams.push((n * 4 + usize::from(order % 50), at, chunk, fate));
            at = chunk.next;
        }
        datagrams.sort_by_key(|&(order, ..)| order);
        let mut follower = Follower::new(3);
        for (_, from, chunk, fate) in datagrams {
            match fate {
                Fate::Lost => {}
                Fate::Once => follower.take(from, chunk.bytes, chunk.pads, &sender),
                Fate::Twice => {
                    follower.take(from, chunk.bytes, chunk.pads, &sender);
                    follower.take(from, chunk.bytes, chunk.pads, &sender);
                }
                Fate::Corrupted { byte, xor } => {
                    let mut bytes = chunk.bytes.to_vec();
                    if let Some(length) = bytes.len().checked_sub(1) {
                        bytes[byte.min(length)] ^= xor;
                    }
                    follower.take(from, &bytes, chunk.pads, &sender);
                }
                Fate::Foreign => {
                    let to = foreign.tail().position;
                    if let Some(stale) = foreign.chunk(from, to, chunk.bytes.len()) {
                        follower.take(from, stale.bytes, stale.pads, &sender);
                    }
                }
            }
            follower.holds_a_prefix_of(&whole);
        }
        follower.repair(&sender);
        prop_assert_eq!(image(&follower.log), whole);
        prop_assert!(follower.log.terms().iter().eq(sender.terms().iter()));
        check(&follower.log);
    }
}

#[test]
fn one_byte_at_a_time_from_the_end_verifies_all_at_once() {
    let sender = sender_of(&[10, 200, 0, 31, 32, 33]);
    let whole = image(&sender);
    let mut follower = Follower::new(1);
    for at in (1..whole.len()).rev() {
        follower.take(Position(at as u64), &whole[at..=at], false, &sender);
        assert_eq!(follower.log.tail().position, Position(0));
    }
    follower.take(Position(0), &whole[..1], false, &sender);
    assert_eq!(image(&follower.log), whole);
    assert_eq!(follower.reopened, 0);
    check(&follower.log);
}

#[test]
fn frames_of_a_newer_term_than_the_leadership_are_refused() {
    let mut sender = sender_of(&[10]);
    let good = sender.tail().position;
    start_term(&mut sender, 5);
    let whole = image(&sender);
    let mut log = log(1);
    log.place(Position(0), &whole);
    let received = Received(sender.tail().position);
    let done = log.verify(received, 10, Term(4));
    assert_eq!((done.frames, done.incomplete), (2, None));
    let bad = done.bad.unwrap();
    assert_eq!(bad.refusal, Refusal::TermAhead { found: Term(5), highest: Term(4) });
    assert_eq!((bad.position, bad.reopened_to), (good, received.0));
    let offset = log.offset(good);
    assert!(
        log.segments
            .at(Position(0))
            .unwrap()
            .memory
            .bytes(offset, 64)
            .iter()
            .all(|&byte| byte == 0)
    );
}

#[test]
fn a_bad_length_says_where_it_would_end_and_is_reopened() {
    let sender = sender_of(&[10]);
    let mut whole = image(&sender);
    whole[64] = 0xFF; // the command's length: 66 becomes 255
    let mut log = log(1);
    log.place(Position(0), &whole);
    let received = Received(sender.tail().position);
    let done = log.verify(received, 10, Term(1));
    assert_eq!((done.frames, done.bad), (1, None));
    assert_eq!(done.incomplete, Some(Position(64 + 256)));
    let bad = log.reopen(received, Refusal::BeyondSender);
    assert_eq!((bad.position, bad.reopened_to), (Position(64), Position(96)));
    log.place(Position(64), &image(&sender)[64..96]);
    assert_eq!(log.verify(received, 10, Term(1)).frames, 1);
    check(&log);
}

#[test]
fn zeros_that_claim_to_have_been_sent_are_reopened_as_a_whole() {
    let sender = sender_of(&[100, 100]);
    let whole = image(&sender);
    let mut log = log(1);
    log.place(Position(0), &whole[..64]);
    log.place(Position(64), &[0; 160]);
    log.place(Position(224), &whole[224..]);
    let received = Received(sender.tail().position);
    let bad = log.verify(received, 10, Term(1)).bad.unwrap();
    assert_eq!(bad.refusal, Refusal::Frame(FrameError::Unpublished));
    assert_eq!((bad.position, bad.reopened_to), (Position(64), Position(224)));
    log.place(Position(64), &whole[64..224]);
    log.verify(received, 10, Term(1));
    assert_eq!(image(&log), whole);
}

#[test]
fn garbage_in_the_body_of_padding_is_zeroed_when_the_padding_is_verified() {
    let mut sender = log(2);
    start_term(&mut sender, 1);
    let large = vec![3; 40_000];
    command(&mut sender, &large);
    command(&mut sender, &large);
    let whole = image(&sender);
    let mut log = log(2);
    log.place(Position(SEGMENT - 900), &[0xAA; 900]);
    let pad = sender.chunk(Position(0), Position(SEGMENT), usize::MAX).unwrap();
    log.place(Position(0), pad.bytes);
    log.place(Position(SEGMENT), &whole[SEGMENT as usize..]);
    log.verify(Received(sender.tail().position), 10, Term(1));
    assert_eq!(log.tail(), sender.tail());
    check(&log);
}

#[test]
fn space_claimed_by_a_leader_that_follows_now_is_zero_below_padding() {
    let mut sender = log(2);
    start_term(&mut sender, 1);
    command(&mut sender, &vec![3; 40_000]);
    let pad = sender.tail().position;
    command(&mut sender, &vec![3; 40_000]);
    let mut log = log(2);
    log.place(Position(0), sender.chunk(Position(0), pad, usize::MAX).unwrap().bytes);
    log.verify(Received(pad), 10, Term(1));
    log.claim(9000).unwrap().fill(0xFF);
    let rest = sender.chunk(pad, sender.tail().position, usize::MAX).unwrap();
    log.place(pad, rest.bytes);
    log.verify(Received(rest.next), 10, Term(1));
    assert_eq!(log.tail().position, Position(SEGMENT));
    check(&log);
}

#[test]
fn a_new_leader_forgets_what_it_had_received_out_of_order() {
    let sender = sender_of(&[100; 300]);
    let whole = image(&sender);
    let mut log = log(2);
    log.place(Position(0), &whole[..640]);
    log.place(Position(704), &whole[704..2000]);
    log.verify(Received(Position(640)), 10, Term(1));
    log.forget_above_tail();
    let tail = log.tail();
    let offset = log.offset(tail.position);
    assert!(
        log.segments
            .at(Position(0))
            .unwrap()
            .memory
            .bytes(offset, 2000)
            .iter()
            .all(|&byte| byte == 0)
    );
    start_term(&mut log, 2);
    command(&mut log, &[5; 5]);
    check(&log);
}

#[test]
fn a_frame_may_end_where_there_is_no_room_yet() {
    let mut sender = log(2);
    start_term(&mut sender, 1);
    command(&mut sender, &vec![1; SEGMENT as usize - 64 - 32]);
    command(&mut sender, &[2; 20]);
    let mut follower = log(1);
    let first = sender.chunk(Position(0), Position(SEGMENT), usize::MAX).unwrap();
    follower.place(Position(0), first.bytes);
    assert_eq!(follower.verify(Received(Position(SEGMENT)), 10, Term(1)).frames, 2);
    assert_eq!(follower.verify(Received(Position(SEGMENT)), 10, Term(1)).frames, 0);
    follower.add_segment(Position(SEGMENT), HeapMemory::new(SEGMENT)).unwrap();
    let second = sender.chunk(first.next, sender.tail().position, usize::MAX).unwrap();
    follower.place(first.next, second.bytes);
    assert_eq!(follower.verify(Received(second.next), 10, Term(1)).frames, 1);
    assert_eq!(image(&follower), image(&sender));
    check(&follower);
}

#[test]
fn chunks_start_inside_padding_and_end_behind_its_header() {
    let mut sender = log(2);
    start_term(&mut sender, 1);
    let large = vec![3; 40_000];
    let pad = command(&mut sender, &large).end;
    command(&mut sender, &large);
    let tail = sender.tail().position;
    let body = pad.plus(32);
    let next = Position(SEGMENT);
    let at = |from: Position, to, max| sender.chunk(from, to, max).unwrap();
    assert_eq!(at(body, tail, 100), Chunk { bytes: &[], pads: true, next });
    assert_eq!(at(Position(SEGMENT - 1), tail, 100), Chunk { bytes: &[], pads: true, next });
    let header = at(pad, tail, 100);
    assert_eq!((header.bytes.len(), header.pads, header.next), (32, true, next));
    let part = at(pad, tail, 31);
    assert_eq!((part.bytes.len(), part.pads, part.next), (31, false, pad.plus(31)));
    let rest = at(part.next, tail, 100);
    assert_eq!((rest.bytes.len(), rest.pads, rest.next), (1, true, next));
    assert_eq!(at(next, tail, usize::MAX).next, tail);
    assert_eq!(sender.chunk(tail, tail, 1), None);
}

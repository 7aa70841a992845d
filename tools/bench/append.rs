//! What appending a frame costs, beside the least that it could cost.
//!
//! The floor is [`Bare`], in memory of the same kind.
//!
//! Frames are timed in batches, because reading the clock costs more than appending; a sample is the time of one frame in
//! its batch. Log and floor take turns, each in segments made anew, filled from beginning to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quorate::frame::{Kind, Predecessor, span};
use quorate::journal::hot::{ClaimError, HeaderPage, HotLog, HotSettings};
use quorate::journal::{HotTier, SegmentMemory};
use quorate::limits::{FRAME_HEADER_BYTES, SEGMENT_BYTES_DEFAULT, SEGMENT_HEADER_BYTES};
use quorate::types::{Generation, GroupId, Position, Term, Timestamp};

use crate::bare::Bare;
use crate::distribution::Distribution;
use crate::failure::Failure;

/// Frames that are timed together.
pub(crate) const BATCH: u32 = 32;
/// Largest payload that is measured: a batch of them must fit in a segment.
pub(crate) const PAYLOAD_MAX: usize = 64 * 1024;
/// Segments that are filled in one turn.
pub(crate) const SEGMENTS: usize = 2;
/// Small payloads are cut from this many bytes: in the first cache, as what has just been received is.
const SOURCE_STARTS: usize = 8 * 1024;
/// Bytes that payloads are cut from.
const SOURCE_BYTES: usize = SOURCE_STARTS + PAYLOAD_MAX;
/// Bytes populated at once while preparing.
const POPULATE_BYTES: u64 = 1024 * 1024;

/// What is known about one payload size.
pub(crate) struct Measured {
    /// The size.
    pub(crate) payload_bytes: usize,
    /// Batches of appends, by round.
    pub(crate) append: Vec<Distribution>,
    /// Batches of the floor, by round.
    pub(crate) floor: Vec<Distribution>,
}

/// Measures every size of `payloads` in each of `rounds`, the log and the floor taking turns.
pub(crate) fn measure<T: HotTier>(
    tier: &mut T,
    payloads: &[usize],
    rounds: usize,
    stop: &AtomicBool,
) -> Result<Vec<Measured>, Failure> {
    let source = Source::new();
    let new = |payload_bytes| Measured { payload_bytes, append: Vec::new(), floor: Vec::new() };
    let mut all: Vec<Measured> = payloads.iter().copied().map(new).collect();
    for round in 0..rounds {
        for one in &mut all {
            // Who goes first changes, so that nobody always finds the caches as the other left them.
            for turn in 0..2 {
                if stop.load(Ordering::Relaxed) {
                    return Err(Failure::Interrupted);
                }
                let segments = prepare(tier)?;
                if (round + turn) % 2 == 0 {
                    one.append.push(fill_log(segments, &source, one.payload_bytes));
                } else {
                    one.floor.push(fill_bare(segments, &source, one.payload_bytes));
                }
            }
        }
    }
    Ok(all)
}

/// Fresh segments, populated, mapped, and already without a name: nothing is left behind, however this ends.
fn prepare<T: HotTier>(tier: &mut T) -> Result<Vec<(Position, T::Memory)>, Failure> {
    let file_bytes = SEGMENT_HEADER_BYTES as u64 + SEGMENT_BYTES_DEFAULT;
    let mut segments = Vec::with_capacity(SEGMENTS);
    for number in 0..SEGMENTS as u64 {
        let base = Position(number * SEGMENT_BYTES_DEFAULT);
        tier.create(base).map_err(Failure::host("creating a segment"))?;
        let populated = (0..file_bytes).step_by(POPULATE_BYTES as usize).try_for_each(|offset| {
            tier.populate(base, offset, POPULATE_BYTES.min(file_bytes - offset))
        });
        let opened = populated.and_then(|()| tier.open(base));
        tier.remove(base).map_err(Failure::host("removing a segment"))?;
        let (memory, _) = opened.map_err(Failure::host("preparing a segment"))?;
        segments.push((base, memory));
    }
    Ok(segments)
}

/// Appends until there is no room.
fn fill_log<M: SegmentMemory>(
    segments: Vec<(Position, M)>,
    source: &Source,
    payload_bytes: usize,
) -> Distribution {
    let settings = HotSettings {
        segment_bytes: SEGMENT_BYTES_DEFAULT,
        window_bytes: SEGMENT_BYTES_DEFAULT,
        group: GroupId(1),
        generation: Generation::default(),
        header: HeaderPage { enter: |_, _| (), before: |_| None },
        terms: Vec::new(),
    };
    let mut log = HotLog::new(settings, Predecessor::default());
    for (base, memory) in segments {
        let added = log.add_segment(base, memory);
        assert!(added.is_ok(), "segments in order, of the log's size");
    }
    let mut number = 0;
    Distribution::of_batches(|| {
        for _ in 0..BATCH {
            append(&mut log, source.payload(number, payload_bytes)).ok()?;
            number += 1;
        }
        Some(())
    })
}

/// As a leader does it: claim, write in place, commit.
fn append<M: SegmentMemory>(log: &mut HotLog<M>, payload: &[u8]) -> Result<(), ClaimError> {
    log.claim(payload.len())?.copy_from_slice(payload);
    log.commit(Kind::Command, Term(1), Timestamp(1));
    Ok(())
}

/// Stores as many bare frames as fit.
fn fill_bare<M: SegmentMemory>(
    mut segments: Vec<(Position, M)>,
    source: &Source,
    payload_bytes: usize,
) -> Distribution {
    let batch_bytes = u64::from(BATCH) * span((FRAME_HEADER_BYTES + payload_bytes) as u32);
    // A segment that is full is kept until the end: unmapping it is not part of what is timed, for the log neither.
    let mut segments = segments.iter_mut();
    let mut current = segments.next();
    let (mut bare, mut offset, mut number) = (Bare::new(), 0, 0);
    let distribution = Distribution::of_batches(|| {
        if offset + batch_bytes > SEGMENT_BYTES_DEFAULT {
            current = segments.next();
            offset = 0;
        }
        let (_, memory) = current.as_mut()?;
        for _ in 0..BATCH {
            offset = bare.append(memory, offset, source.payload(number, payload_bytes));
            number += 1;
        }
        Some(())
    });
    std::hint::black_box(bare.chain());
    distribution
}

impl Distribution {
    /// Runs batches until one cannot be completed. The clock is read once per batch, as the core reads it once per cycle.
    fn of_batches(mut batch: impl FnMut() -> Option<()>) -> Self {
        let mut distribution = Self::new();
        let mut begin = Instant::now();
        while batch().is_some() {
            let end = Instant::now();
            let ns = u64::try_from((end - begin).as_nanos()).unwrap_or(u64::MAX);
            distribution.record_ns(ns);
            begin = end;
        }
        distribution
    }
}

/// Bytes to append, the same for log and floor.
struct Source(Vec<u8>);

impl Source {
    fn new() -> Self {
        // Any bytes that differ from place to place: a multiplicative sequence.
        let bytes = (0..SOURCE_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
        Self(bytes.collect())
    }
    fn payload(&self, number: usize, length: usize) -> &[u8] {
        let start = number.wrapping_mul(64) % SOURCE_STARTS;
        &self.0[start..start + length]
    }
}

#[cfg(test)]
mod tests {
    use quorate::journal::HeapHotTier;

    use super::*;

    #[test]
    fn log_and_floor_are_filled_with_as_many_frames() {
        let mut tier = HeapHotTier::new(SEGMENT_BYTES_DEFAULT, 1);
        let stop = AtomicBool::new(false);
        let all = measure(&mut tier, &[PAYLOAD_MAX], 2, &stop).expect("memory on the heap");
        let [one] = &all[..] else { panic!("one size was asked for") };
        assert_eq!(one.payload_bytes, PAYLOAD_MAX);
        let frames = SEGMENT_BYTES_DEFAULT / span((FRAME_HEADER_BYTES + PAYLOAD_MAX) as u32);
        let in_log = SEGMENTS as u64 * frames / u64::from(BATCH);
        let in_floor = SEGMENTS as u64 * (frames / u64::from(BATCH));
        for (append, floor) in one.append.iter().zip(&one.floor) {
            assert_eq!((append.count(), floor.count()), (in_log, in_floor));
        }
        assert_eq!((one.append.len(), one.floor.len()), (2, 2));
        assert!(tier.list().expect("a heap").is_empty(), "nothing is left behind");
    }

    #[test]
    fn an_interrupted_run_ends_at_once() {
        let mut tier = HeapHotTier::new(SEGMENT_BYTES_DEFAULT, 1);
        let stop = AtomicBool::new(true);
        assert!(matches!(measure(&mut tier, &[64], 1, &stop), Err(Failure::Interrupted)));
    }

    #[test]
    fn every_payload_lies_in_the_source() {
        let source = Source::new();
        for number in 0..5_000 {
            assert_eq!(source.payload(number, PAYLOAD_MAX).len(), PAYLOAD_MAX);
        }
        assert_ne!(source.payload(0, 64), source.payload(1, 64));
    }
}

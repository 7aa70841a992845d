//! Appending to the hot log beside its floor: header, copy and checksum of the same bytes into a populated mapping.
//!
//! Log and floor take turns, each in a segment of its own that was zero-filled and populated just before. Medians are of
//! batches of frames, since reading the clock costs as much as a frame, and of the best round: what the code costs. Tails
//! are of frames timed alone, the clock included on both sides, and of the median round: what host and code cost together.
//! Informs only: the exit code is 0 whatever the ratios are.

#[path = "../tools/bench/bare.rs"]
mod bare;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use bare::Bare;
use hdrhistogram::Histogram;
use quorate::frame::{Kind, Predecessor, span};
use quorate::io::hot_tier::{HostHotTier, HotTierSettings, MEMORY_DIRECTORY};
use quorate::io::mapping::MappedMemory;
use quorate::journal::HotTier;
use quorate::journal::hot::{HeaderPage, HotLog, HotSettings};
use quorate::limits::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use quorate::types::{Generation, GroupId, Position, Term, Timestamp};

const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
const PAYLOADS: [usize; 4] = [32, 64, 256, 1024];
const BATCH: usize = 32;
const ROUNDS: usize = 15;
/// What payloads are copied from: in the cache, as what has just been received is.
const SOURCE_BYTES: usize = 16 * 1024;

fn main() {
    let directory = Scratch::new();
    let settings = HotTierSettings {
        data_directory: directory.0.clone(),
        directory: Some(directory.0.join("hot")),
        segment_bytes: SEGMENT_BYTES,
        segments_min: 2,
    };
    let (mut tier, warning) = HostHotTier::open(&settings).expect("a directory for segments");
    if let Some(warning) = warning {
        println!("note: {warning}");
    }
    println!("append to the hot log, in {}, {ROUNDS} rounds", tier.directory().display());
    println!("ns a frame; p99.9 with the clock read for each frame ({} ns)", clock_ns());
    println!("payload   p50 append    floor   ratio   p99.9 append    floor   ratio");
    for payload in PAYLOADS {
        let (append, floor) = measure(&mut tier, payload, BATCH);
        let best = |rounds: Vec<f64>| rounds[0];
        let (a50, f50) = (best(quantiles(&append, 0.5)), best(quantiles(&floor, 0.5)));
        let (append, floor) = measure(&mut tier, payload, 1);
        let middle = |rounds: Vec<f64>| rounds[rounds.len() / 2];
        let (a999, f999) = (middle(quantiles(&append, 0.999)), middle(quantiles(&floor, 0.999)));
        let (a50, f50) = (a50 / BATCH as f64, f50 / BATCH as f64);
        let (r50, r999) = (a50 / f50, a999 / f999);
        println!(
            "{payload:7}   {a50:10.1} {f50:8.1} {r50:7.2}   {a999:12.0} {f999:8.0} {r999:7.2}"
        );
    }
}

/// One histogram per round, of the log and of the floor.
fn measure(
    tier: &mut HostHotTier,
    payload: usize,
    batch: usize,
) -> (Vec<Histogram<u64>>, Vec<Histogram<u64>>) {
    // Any bytes that differ from place to place: a multiplicative sequence.
    let bytes = (0..SOURCE_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
    let source: Vec<u8> = bytes.collect();
    let (mut append, mut floor) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let memory = fresh_segment(tier);
            if (round + turn) % 2 == 0 {
                append.push(fill_log(memory, &source, payload, batch));
            } else {
                floor.push(fill_bare(memory, &source, payload, batch));
            }
        }
    }
    (append, floor)
}

/// That quantile of each round, in ns, sorted.
fn quantiles(rounds: &[Histogram<u64>], quantile: f64) -> Vec<f64> {
    let mut values: Vec<u64> = rounds.iter().map(|h| h.value_at_quantile(quantile)).collect();
    values.sort_unstable();
    values.into_iter().map(|value| value as f64).collect()
}

/// A segment made anew, already without a name: nothing is left behind however this ends.
fn fresh_segment(tier: &mut HostHotTier) -> MappedMemory {
    tier.create(Position(0)).expect("room for a segment");
    let bytes = SEGMENT_HEADER_BYTES as u64 + SEGMENT_BYTES;
    tier.populate(Position(0), 0, bytes).expect("room for a segment");
    let (memory, _view) = tier.open(Position(0)).expect("a segment just made");
    tier.remove(Position(0)).expect("a segment just made");
    memory
}

fn fill_log(memory: MappedMemory, source: &[u8], payload: usize, batch: usize) -> Histogram<u64> {
    let settings = HotSettings {
        segment_bytes: SEGMENT_BYTES,
        window_bytes: SEGMENT_BYTES / 2,
        group: GroupId(1),
        generation: Generation::default(),
        header: HeaderPage::standard(),
        terms: Vec::new(),
    };
    let mut log = HotLog::new(settings, Predecessor::genesis(GroupId(1)));
    assert!(log.add_segment(Position(0), memory).is_ok());
    time(batch, frames(payload), |number| {
        log.claim(payload).expect("room").copy_from_slice(part(source, number, payload));
        black_box(log.commit(Kind::Command, Term(1), Timestamp(number as u64)));
    })
}

fn fill_bare(
    mut memory: MappedMemory,
    source: &[u8],
    payload: usize,
    batch: usize,
) -> Histogram<u64> {
    let (mut bare, mut offset) = (Bare::new(), 0);
    let histogram = time(batch, frames(payload), |number| {
        offset = bare.append(&mut memory, offset, part(source, number, payload));
    });
    black_box(bare.chain());
    histogram
}

fn frames(payload: usize) -> usize {
    (SEGMENT_BYTES / span((FRAME_HEADER_BYTES + payload) as u32)) as usize
}

#[inline]
fn part(source: &[u8], number: usize, length: usize) -> &[u8] {
    &source[number * 64 % (SOURCE_BYTES / 2)..][..length]
}

/// Runs `frame` as often as fits into whole batches; one sample per batch.
fn time(batch: usize, frames: usize, mut frame: impl FnMut(usize)) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("valid bounds");
    let mut number = 0;
    let mut begin = Instant::now();
    while number + batch <= frames {
        for _ in 0..batch {
            frame(number);
            number += 1;
        }
        let end = Instant::now();
        histogram.saturating_record((end - begin).as_nanos() as u64);
        begin = end;
    }
    histogram
}

fn clock_ns() -> u128 {
    let reads = 10_000;
    let begin = Instant::now();
    for _ in 0..reads {
        black_box(Instant::now());
    }
    begin.elapsed().as_nanos() / reads
}

/// A directory of this run, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let memory = PathBuf::from(MEMORY_DIRECTORY);
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = parent.join(format!("quorate-bench-append-{}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory of this run's own");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

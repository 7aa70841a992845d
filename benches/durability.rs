//! Why there are two tiers: what a store into the log costs the thread that does it, while the same bytes are made durable.
//!
//! A thread stores 256-byte frames into a mapped segment, each timed alone. Meanwhile, by turns: (a) the segment is a file on
//! the disk and another thread syncs that very file; (b) the segment is in memory, and another thread copies the new bytes
//! into a file on the disk and syncs that; (c) the segment is in memory and nobody syncs anything. (a) is the design that was
//! not chosen, (b) the one that was, (c) the floor. The clock is part of every figure; its own cost is printed.
//!
//! Informs only: the exit code is 0 whatever the figures are. `--seconds N` sets how long each case runs in each of the
//! rounds, `--directory DIR` chooses the disk.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use quorate::io::hot_tier::{HostHotTier, HotTierSettings, MEMORY_DIRECTORY};
use quorate::io::mapping::{MappedMemory, MappedView};
use quorate::journal::{HotTier, SegmentMemory, SegmentView, segment_name};
use quorate::types::Position;

const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
const FRAME_BYTES: u64 = 256;
/// Between two stores, so that a few seconds do not go around the segment too often.
const PACE_NS: u64 = 2_000;
const ROUNDS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    SyncedInPlace,
    CopiedAndSynced,
    NobodySyncs,
}

impl Case {
    const ALL: [Self; 3] = [Self::SyncedInPlace, Self::CopiedAndSynced, Self::NobodySyncs];

    fn name(self) -> &'static str {
        match self {
            Self::SyncedInPlace => "a  file on the disk, mapped, synced in place",
            Self::CopiedAndSynced => "b  memory, copied to a file that is synced",
            Self::NobodySyncs => "c  memory, nobody syncs",
        }
    }
}

struct Outcome {
    stores: Histogram<u64>,
    syncs: Histogram<u64>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let seconds = value("--seconds").and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let place = value("--directory").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").to_owned());
    let name = format!("quorate-durability-{}", std::process::id());
    let scratch = Scratch::new(&Path::new(&place).join(&name));
    let shared_memory = Scratch::new(&Path::new(MEMORY_DIRECTORY).join(&name));
    let mut tiers = [
        tier(&scratch.0.join("disk"), &scratch.0.join("disk-hot")),
        tier(&scratch.0.join("memory"), &shared_memory.0.join("hot")),
    ];
    println!("disk {}, memory {}", scratch.0.display(), shared_memory.0.display());
    println!(
        "{FRAME_BYTES}-byte frames, one each {PACE_NS} ns, {ROUNDS} rounds of {seconds} s by turns; \
         the clock costs {} ns",
        clock_ns()
    );
    let empty = || Outcome { stores: histogram(), syncs: histogram() };
    let mut outcomes = Case::ALL.map(|case| (case, empty()));
    for _ in 0..ROUNDS {
        for (case, outcome) in &mut outcomes {
            let tier = &mut tiers[usize::from(*case != Case::SyncedInPlace)];
            run(*case, tier, &scratch.0, Duration::from_secs_f64(seconds), outcome);
        }
    }
    report(&outcomes);
}

fn report(outcomes: &[(Case, Outcome); 3]) {
    let title = "store";
    println!("\n{title:<46} p50 ns    p99 ns  p99.9 ns     max ns  over 1 us");
    for (case, outcome) in outcomes {
        let stores = &outcome.stores;
        let slow = stores.count_between(1_001, u64::MAX);
        println!(
            "{:<44} {:>8}  {:>8}  {:>8}  {:>9}  {:>8.3}%",
            case.name(),
            stores.value_at_quantile(0.5),
            stores.value_at_quantile(0.99),
            stores.value_at_quantile(0.999),
            stores.max(),
            slow as f64 * 100.0 / stores.len() as f64
        );
    }
    let title = "sync, on its own thread";
    println!("\n{title:<46}  count    p50 us    p99 us     max us");
    for (case, outcome) in outcomes.iter().filter(|(case, _)| *case != Case::NobodySyncs) {
        let syncs = &outcome.syncs;
        println!(
            "{:<44} {:>8}  {:>8}  {:>8}  {:>9}",
            case.name(),
            syncs.len(),
            syncs.value_at_quantile(0.5) / 1000,
            syncs.value_at_quantile(0.99) / 1000,
            syncs.max() / 1000
        );
    }
}

/// One turn of one case, added to its figures.
fn run(case: Case, tier: &mut HostHotTier, scratch: &Path, time: Duration, outcome: &mut Outcome) {
    let base = Position(0);
    tier.create(base).expect("space for a segment");
    tier.populate(base, 0, 4096 + SEGMENT_BYTES).expect("space for a segment");
    let (mut memory, view) = tier.open(base).expect("a segment just made");
    let end = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let durable = scratch.join("durable");
    let syncer = match case {
        Case::NobodySyncs => None,
        Case::SyncedInPlace => {
            let path = tier.directory().join(segment_name(base));
            let file = File::options().write(true).open(path).expect("a segment just made");
            // Populating has dirtied all of it: that is not what is measured.
            file.sync_all().expect("a disk that works");
            let stop = Arc::clone(&stop);
            Some(thread::spawn(move || sync_in_place(&file, &stop)))
        }
        Case::CopiedAndSynced => {
            let file = prepared(&durable);
            let (stop, end) = (Arc::clone(&stop), Arc::clone(&end));
            Some(thread::spawn(move || copy_and_sync(&file, &view, &end, &stop)))
        }
    };
    store(&mut memory, &end, time, &mut outcome.stores);
    stop.store(true, Ordering::Release);
    if let Some(syncer) = syncer {
        let syncs = syncer.join().expect("no panic");
        outcome.syncs.add(syncs).expect("histograms of one kind");
    }
    drop(memory);
    tier.remove(base).expect("a segment just made");
    let _ = std::fs::remove_file(durable);
}

fn store(memory: &mut MappedMemory, end: &AtomicU64, time: Duration, stores: &mut Histogram<u64>) {
    let frame = [7_u8; FRAME_BYTES as usize];
    let began = Instant::now();
    let mut due = began;
    let mut position = 0;
    while began.elapsed() < time {
        due += Duration::from_nanos(PACE_NS);
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        let offset = position % SEGMENT_BYTES;
        let before = Instant::now();
        memory.bytes_mut(offset + 4, frame.len() - 4).copy_from_slice(black_box(&frame[4..]));
        memory.publish(offset, FRAME_BYTES as u32);
        let took = before.elapsed();
        position += FRAME_BYTES;
        end.store(position, Ordering::Release);
        stores.saturating_record(took.as_nanos() as u64);
    }
}

fn sync_in_place(file: &File, stop: &AtomicBool) -> Histogram<u64> {
    let mut syncs = histogram();
    while !stop.load(Ordering::Acquire) {
        sync(file, &mut syncs);
    }
    syncs
}

fn copy_and_sync(
    file: &File,
    view: &MappedView,
    end: &AtomicU64,
    stop: &AtomicBool,
) -> Histogram<u64> {
    let mut syncs = histogram();
    let mut written = 0;
    while !stop.load(Ordering::Acquire) {
        let end = end.load(Ordering::Acquire);
        while written < end {
            let offset = written % SEGMENT_BYTES;
            let piece = (end - written).min(SEGMENT_BYTES - offset).min(1024 * 1024);
            let bytes = view.bytes(offset, piece as usize);
            file.write_all_at(bytes, 4096 + offset).expect("a prepared file");
            written += piece;
        }
        sync(file, &mut syncs);
    }
    syncs
}

fn sync(file: &File, syncs: &mut Histogram<u64>) {
    let before = Instant::now();
    file.sync_data().expect("a disk that works");
    syncs.saturating_record(before.elapsed().as_nanos() as u64);
}

/// A durable file as the keeper prepares it: zero-filled and synced.
fn prepared(path: &Path) -> File {
    let file = File::create(path).expect("a directory to write to");
    let zeroes = vec![0; 64 * 1024];
    for piece in 0..SEGMENT_BYTES / zeroes.len() as u64 {
        let offset = 4096 + piece * zeroes.len() as u64;
        file.write_all_at(&zeroes, offset).expect("space for a segment");
    }
    file.sync_all().expect("a disk that works");
    file
}

fn tier(data: &Path, hot: &Path) -> HostHotTier {
    std::fs::create_dir_all(data).expect("a directory to write to");
    let settings = HotTierSettings {
        data_directory: data.to_owned(),
        directory: Some(hot.to_owned()),
        segment_bytes: SEGMENT_BYTES,
        segments_min: 1,
    };
    let (tier, warning) = HostHotTier::open(&settings).expect("a place for segments");
    if let Some(warning) = warning {
        println!("note: {warning}");
    }
    tier
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds in order")
}

fn clock_ns() -> u64 {
    let began = Instant::now();
    for _ in 0..10_000 {
        black_box(Instant::now());
    }
    began.elapsed().as_nanos() as u64 / 10_000
}

/// A directory that is removed with everything in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: &Path) -> Self {
        std::fs::create_dir_all(path).expect("a directory to write to");
        Self(path.canonicalize().expect("a directory just made"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! The keeper's machine over a disk and a hot tier in memory, both of which can be full.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::journal::memory::SegmentMemory;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::{HeapHotTier, HeapMemory, HeapView};
use crate::limits::SEGMENT_BYTES_MIN;
use crate::link::{CoreLink, SegmentRetired, SharedWords, SyncLink, link};

const SEGMENT: u64 = SEGMENT_BYTES_MIN;

/// A hot tier that can be full.
#[derive(Clone)]
struct Tier {
    heap: HeapHotTier,
    full: Arc<AtomicBool>,
}

impl HotTier for Tier {
    type Memory = HeapMemory;
    type View = HeapView;

    fn create(&mut self, base: Position) -> io::Result<()> {
        self.heap.create(base)
    }
    fn populate(&mut self, base: Position, offset: u64, length: u64) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.heap.populate(base, offset, length)
    }
    fn open(&mut self, base: Position) -> io::Result<(HeapMemory, HeapView)> {
        self.heap.open(base)
    }
    fn list(&self) -> io::Result<Vec<Position>> {
        self.heap.list()
    }
    fn remove(&mut self, base: Position) -> io::Result<()> {
        self.heap.remove(base)
    }
    fn id(&self) -> u64 {
        self.heap.id()
    }
}

struct Fixture {
    disk: MemoryDisk,
    tier: Tier,
    shared: Arc<SharedWords>,
    core: CoreLink<HeapMemory>,
    sync: SyncLink<HeapView>,
    keeper: Keeper<MemoryDisk, Tier>,
    now: Nanos,
}

impl Fixture {
    fn new(change: impl FnOnce(&mut KeeperSettings)) -> Self {
        let disk = MemoryDisk::new();
        let tier = Tier { heap: HeapHotTier::new(SEGMENT, 1), full: Arc::default() };
        let shared = Arc::new(SharedWords::default());
        let (core, _, sync, keeper_link) = link();
        let mut settings =
            KeeperSettings { piece_bytes: 16 * 1024, ..KeeperSettings::new(SEGMENT) };
        change(&mut settings);
        let keeper = Keeper::new(
            disk.clone(),
            tier.clone(),
            keeper_link,
            shared.clone(),
            settings,
            Position(0),
            Position(0),
        );
        Self { disk, tier, shared, core, sync, keeper, now: Nanos(1) }
    }

    /// Steps until there is nothing to do.
    fn run(&mut self) -> usize {
        let steps = (0..1000).take_while(|_| self.keeper.step(self.now) > 0).count();
        assert!(steps < 1000, "it comes to rest");
        steps
    }

    fn ready(&self) -> Vec<(u64, HeapMemory)> {
        self.core.from_keeper.try_iter().map(|ready| (ready.base.0, ready.memory)).collect()
    }

    fn opened(&self) -> Vec<u64> {
        self.sync.from_keeper.try_iter().map(|opened| opened.base.0).collect()
    }
}

fn bases(segments: &[(u64, HeapMemory)]) -> Vec<u64> {
    segments.iter().map(|(base, _)| base / SEGMENT).collect()
}

#[test]
fn segments_are_ready_ahead_durably_named_and_in_pieces() {
    let mut fixture = Fixture::new(|_| {});
    let steps = fixture.run();
    let ready = fixture.ready();
    assert_eq!(bases(&ready), [0, 1, 2], "the one in use and two ahead");
    assert_eq!(fixture.opened(), [0, SEGMENT, 2 * SEGMENT]);
    assert!(steps > 3 * 2 * 4, "no step does much: {steps}");
    fixture.disk.crash(1);
    for (base, memory) in &ready {
        let file = fixture.disk.bytes(&segment_name(Position(*base))).unwrap();
        assert_eq!(file, vec![0; (4096 + SEGMENT) as usize]);
        assert_eq!(memory.payload_bytes(), SEGMENT);
    }
}

#[test]
fn the_next_one_is_made_when_the_log_has_entered_the_one_before() {
    let mut fixture = Fixture::new(|settings| settings.segments_ahead = 1);
    fixture.run();
    let mut ready = fixture.ready();
    assert_eq!(bases(&ready), [0, 1]);
    fixture.shared.verified.store(SEGMENT - 32, Ordering::Release);
    assert_eq!(fixture.run(), 0);
    fixture.shared.verified.store(SEGMENT, Ordering::Release);
    fixture.run();
    ready.extend(fixture.ready());
    assert_eq!(bases(&ready), [0, 1, 2]);
}

#[test]
fn the_sync_thread_is_told_before_the_core() {
    let mut fixture = Fixture::new(|_| {});
    let mut told = 0;
    for _ in 0..200 {
        fixture.keeper.step(fixture.now);
        told += fixture.opened().len();
        let ready = fixture.ready().len();
        assert!(ready <= told);
        told -= ready;
    }
}

#[test]
fn d16_a_segment_that_was_given_back_is_unmapped_and_unlinked() {
    let mut fixture = Fixture::new(|settings| {
        settings.segments_ahead = 1;
        settings.hot_segments_max = 2;
    });
    fixture.shared.verified.store(5 * SEGMENT, Ordering::Release);
    fixture.run();
    let mut ready = fixture.ready();
    assert_eq!(bases(&ready), [0, 1], "no more memory than was granted");
    assert_eq!(fixture.run(), 0);
    let (base, memory) = ready.remove(0);
    fixture.core.to_keeper.try_send(SegmentRetired { base: Position(base), memory }).unwrap();
    fixture.run();
    assert_eq!(bases(&fixture.ready()), [2]);
    assert_eq!(fixture.tier.list().unwrap(), [Position(SEGMENT), Position(2 * SEGMENT)]);
    assert!(fixture.disk.bytes(&segment_name(Position(0))).is_some(), "the durable file stays");
}

#[test]
fn a_full_disk_is_an_event_and_work_goes_on_by_itself_when_there_is_space() {
    let mut fixture = Fixture::new(|_| {});
    fixture.disk.set_space(Some(SEGMENT + 4096 + 20_000));
    fixture.run();
    assert_eq!(bases(&fixture.ready()), [0], "as far as the space goes");
    let event = fixture.keeper.poll_event().unwrap();
    let (base, kind) = (Position(SEGMENT), io::ErrorKind::StorageFull);
    assert_eq!(event, KeeperEvent::Blocked { step: KeeperStep::DurableFile, base, kind });
    assert!(fixture.keeper.is_blocked());
    assert_eq!(fixture.disk.bytes(&segment_name(base)), None, "what was begun is cleared away");
    let mut waits = Vec::new();
    for _ in 0..8 {
        let until = fixture.keeper.deadline().unwrap();
        waits.push(until.since(fixture.now));
        assert_eq!(fixture.keeper.step(Nanos(until.0 - 1)), 0);
        fixture.now = until;
        fixture.run();
    }
    assert!(waits.windows(2).all(|pair| pair[1] == (2 * pair[0]).min(2 * Nanos::SECOND)));
    assert_eq!(*waits.last().unwrap(), 2 * Nanos::SECOND);
    assert_eq!(fixture.keeper.poll_event(), None, "said once");
    fixture.disk.set_space(None);
    fixture.now = fixture.keeper.deadline().unwrap();
    fixture.run();
    assert_eq!(fixture.keeper.poll_event(), Some(KeeperEvent::Resumed { base }));
    assert_eq!(bases(&fixture.ready()), [1, 2]);
    assert!(!fixture.keeper.is_blocked());
}

#[test]
fn full_memory_is_an_event_and_the_durable_file_is_not_made_twice() {
    let mut fixture = Fixture::new(|settings| settings.segments_ahead = 1);
    fixture.tier.full.store(true, Ordering::Relaxed);
    fixture.run();
    let (base, kind) = (Position(0), io::ErrorKind::StorageFull);
    let blocked = KeeperEvent::Blocked { step: KeeperStep::HotSegment, base, kind };
    assert_eq!(fixture.keeper.poll_event(), Some(blocked));
    assert_eq!(fixture.tier.list().unwrap(), []);
    let syncs = fixture.disk.syncs();
    fixture.now = fixture.keeper.deadline().unwrap();
    fixture.run();
    assert_eq!(fixture.disk.syncs(), syncs);
    fixture.tier.full.store(false, Ordering::Relaxed);
    fixture.keeper.retry_now();
    fixture.run();
    assert_eq!(fixture.keeper.poll_event(), Some(KeeperEvent::Resumed { base }));
    assert_eq!(bases(&fixture.ready()), [0, 1]);
}

#[test]
fn a_file_that_is_there_already_is_not_touched() {
    let mut fixture = Fixture::new(|settings| settings.segments_ahead = 1);
    fixture.disk.put(&segment_name(Position(SEGMENT)), b"somebody's");
    fixture.run();
    let event = fixture.keeper.poll_event().unwrap();
    assert!(
        matches!(event, KeeperEvent::Blocked { kind: io::ErrorKind::AlreadyExists, .. }),
        "{event:?}"
    );
    let bytes = fixture.disk.bytes(&segment_name(Position(SEGMENT))).unwrap();
    assert_eq!(bytes, b"somebody's");
    assert_eq!(bases(&fixture.ready()), [0]);
}

#[test]
fn a_forgotten_hot_segment_is_made_anew() {
    let mut fixture = Fixture::new(|settings| settings.segments_ahead = 1);
    fixture.tier.create(Position(0)).unwrap();
    let (mut memory, _) = fixture.tier.open(Position(0)).unwrap();
    memory.bytes_mut(0, 4).fill(9);
    drop(memory);
    fixture.run();
    let ready = fixture.ready();
    assert_eq!(bases(&ready), [0, 1]);
    assert_eq!(ready[0].1.bytes(0, 4), [0; 4]);
}

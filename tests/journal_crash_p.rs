//! The journal on the host's own files and mappings, in a process that is killed amidst its work, again and again: what it said
//! of its log before it died is there when the next one starts. (A kill leaves memory and page cache as they are; what a power
//! loss leaves is tried on `memory_disk`.)
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quorate::frame::{Kind, Predecessor};
use quorate::io::files::{HostDisk, HostFile, boot_id};
use quorate::io::hot_tier::{HostHotTier, HotTierSettings};
use quorate::io::mapping::{MappedMemory, MappedView};
use quorate::journal::hot::{HotLog, HotSettings};
use quorate::journal::keeper::{Keeper, KeeperSettings};
use quorate::journal::node_state::{NodeState, NodeStateStore};
use quorate::journal::recovery::{Boot, Recovered, RecoverySettings, recover};
use quorate::journal::segment_header::HEADER_PAGE;
use quorate::journal::syncer::{Syncer, SyncerSettings};
use quorate::limits::SEGMENT_BYTES_MIN as SEGMENT;
use quorate::link::{CoreLink, SegmentRetired, SharedWords, link};
use quorate::types::{GroupId, Incarnation, Leadership, Nanos, NodeId, Position, Term, Timestamp};

const GROUP: GroupId = GroupId(0xABCD);
const NODE: NodeId = NodeId(0);
const DIRECTORY: &str = "QUORATE_TEST_JOURNAL";
const ROUNDS: u64 = 6;

#[test]
fn what_a_killed_process_said_of_its_log_is_there() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        write_until_killed(Path::new(&directory));
    }
    let scratch = Scratch::new();
    let mut last = Said::default();
    for round in 0..ROUNDS {
        let said = run_and_kill(&scratch.0, Duration::from_millis(60 + 40 * round));
        assert!(said.tail >= last.tail, "a new life begins where the old one ended");
        last = said;
        let opened = Opened::open(&scratch.0);
        let recovered = &opened.recovered;
        let report = &recovered.report;
        assert!(recovered.tail.position.0 >= said.tail, "{said:?} {report}");
        assert!(recovered.tail.sequence.0 >= said.sequence, "{said:?} {report}");
        assert!(report.hot_intact && !report.provisional, "{report}");
        assert_eq!(recovered.durable.position(), recovered.tail.position);
        assert!(report.cut.is_none(), "a kill tears nothing: {report}");
        last.tail = recovered.tail.position.0;
    }
    assert!(last.tail > 2 * SEGMENT && last.durable > 0, "it has written: {last:?}");
}

/// What the process said last.
#[derive(Clone, Copy, Default, Debug)]
struct Said {
    tail: u64,
    sequence: u64,
    durable: u64,
}

fn run_and_kill(directory: &Path, time: Duration) -> Said {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_a_killed_process_said_of_its_log_is_there", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut said = Said::default();
    let mut began = None;
    for line in output.lines() {
        let line = line.unwrap();
        let Some(words) = line.strip_prefix("said ") else { continue };
        let mut numbers = words.split(' ').map(|word| word.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        said = Said { tail: next(), sequence: next(), durable: next() };
        // What is still in the pipe when it is dead counts, too.
        if began.get_or_insert_with(Instant::now).elapsed() > time {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it was killed");
    said
}

struct Opened {
    disk: HostDisk,
    hot: HostHotTier,
    state: NodeStateStore<HostFile>,
    recovered: Recovered<MappedMemory, MappedView>,
}

impl Opened {
    fn open(directory: &Path) -> Self {
        let disk = HostDisk::open(&directory.join("data")).unwrap();
        let settings = HotTierSettings {
            data_directory: directory.join("data"),
            directory: None,
            segment_bytes: SEGMENT,
            segments_min: 4,
        };
        let (mut hot, _) = HostHotTier::open(&settings).unwrap();
        let state = NodeStateStore::open(&disk, GROUP, NODE).unwrap();
        let mut settings = RecoverySettings::new(GROUP, NODE, SEGMENT);
        settings.hot_bytes = SEGMENT;
        settings.known_names = vec!["hot.path".to_owned(), "hot/".to_owned()];
        let boot = Boot { boot_id: boot_id().unwrap(), first_incarnation: Incarnation(1) };
        let recovered = recover(&disk, &mut hot, &settings, &state, boot).unwrap();
        Self { disk, hot, state, recovered }
    }
}

/// The life of the process: one thread takes the parts of all of them by turns.
fn write_until_killed(directory: &Path) -> ! {
    let Opened { disk, hot, state, recovered } = Opened::open(directory);
    if recovered.stateless {
        state.update(|state| state.found(Leadership::default())).unwrap();
    }
    state.update(NodeState::allow_memory).unwrap();
    let shared = Arc::new(SharedWords::default());
    shared.verified.store(recovered.tail.position.0, Ordering::Release);
    shared.cut_epoch.store(u64::from(recovered.sync.epoch.0), Ordering::Release);
    let (mut core, _control, sync_link, keeper_link) = link();
    let lowest = recovered.segments[0].0;
    let (mut log, views) = hot_log(recovered.tail, recovered.last, recovered.segments);
    let settings = SyncerSettings::new(GROUP, SEGMENT);
    let mut syncer = Syncer::new(
        disk.clone(),
        Arc::new(state),
        sync_link,
        shared.clone(),
        settings,
        recovered.sync,
        views,
    );
    let next = log.end_of_room();
    let settings = KeeperSettings::new(SEGMENT);
    let mut keeper = Keeper::new(disk, hot, keeper_link, shared.clone(), settings, lowest, next);
    let began = Instant::now();
    let mut out = std::io::stdout().lock();
    for turn in 0.. {
        let now = Nanos(1 + began.elapsed().as_nanos() as u64);
        keeper.step(now);
        core_turn(&mut core, &mut log, &shared);
        // Sync is slower than the core: there is always something that is only in memory.
        if turn % 4 == 0 {
            syncer.step(now);
        }
        let tail = log.tail();
        let durable = shared.durable.load(Ordering::Acquire);
        writeln!(out, "said {} {} {durable}", tail.position, tail.sequence).unwrap();
        out.flush().unwrap();
    }
    unreachable!("it goes on until it is killed")
}

type Views = Vec<(Position, MappedView)>;

fn hot_log(
    tail: Predecessor,
    last: Leadership,
    segments: Vec<(Position, MappedMemory, MappedView)>,
) -> (HotLog<MappedMemory>, Views) {
    let settings = HotSettings {
        segment_bytes: SEGMENT,
        window_bytes: SEGMENT / 4,
        group: GROUP,
        generation: last.generation,
        header: HEADER_PAGE,
        terms: Vec::new(),
    };
    let mut log = HotLog::new(settings, tail);
    let mut views = Vec::new();
    for (base, memory, view) in segments {
        assert!(log.add_segment(base, memory).is_ok(), "what recovery made fits");
        views.push((base, view));
    }
    (log, views)
}

fn core_turn(
    core: &mut CoreLink<MappedMemory>,
    log: &mut HotLog<MappedMemory>,
    shared: &SharedWords,
) {
    while let Ok(ready) = core.from_keeper.try_recv() {
        assert!(log.add_segment(ready.base, ready.memory).is_ok());
    }
    while core.from_sync.try_recv().is_ok() {}
    for size in [0, 40, 1000, 7, 2500] {
        let payload = vec![log.tail().sequence.0 as u8 | 1; size];
        // No segment is ready: the next turn, then.
        let _ = log.append(Kind::Command, Term(1), Timestamp(1), &[&payload]);
    }
    let durable = Position(shared.durable.load(Ordering::Acquire));
    while let Some((base, memory)) = log.retire(durable) {
        core.to_keeper.try_send(SegmentRetired { base, memory }).unwrap();
    }
    shared.hot_base.store(log.hot_base().0, Ordering::Release);
    shared.verified.store(log.tail().position.0, Ordering::Release);
}

/// A directory that is removed with everything in it, its hot tier too.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let name = format!("quorate-journal-crash-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("data")).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Ok(tier) = std::fs::read_to_string(self.0.join("data/hot.path")) {
            let tier = tier.lines().next().unwrap_or_default();
            if tier.contains("quorate") {
                let _ = std::fs::remove_dir_all(tier);
            }
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

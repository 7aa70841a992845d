//! The sync thread's machine over a disk in memory.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::journal::recovery::RecoveryError;
use crate::journal::recovery_table::Decision;
use crate::journal::rig::{GROUP, Rig, SEGMENT};
use crate::types::Term;

fn newest_seal(rig: &Rig, base: u64) -> Option<Seal> {
    let bytes = rig.disk.bytes(&segment_name(Position(base)))?;
    Seal::newest(&bytes[..4096], GROUP)
}

/// The only file in quarantine: its header, and its payload.
fn quarantined(rig: &Rig) -> Vec<(SegmentHeader, Vec<u8>)> {
    let names = rig.disk.list().unwrap();
    let saved = names.iter().filter(|name| name.starts_with("quarantine/"));
    saved
        .map(|name| {
            let bytes = rig.disk.bytes(name).unwrap();
            (SegmentHeader::decode(&bytes).unwrap(), bytes[4096..].to_vec())
        })
        .collect()
}

#[test]
fn the_durable_files_are_the_hot_bytes() {
    let mut rig = Rig::started();
    rig.fill_to(2 * SEGMENT + 5000);
    rig.sync_all();
    let tail = rig.tail();
    assert_eq!(rig.reported, tail.position);
    assert_eq!(rig.node().shared.durable.load(Ordering::Acquire), tail.position.0);
    for base in [0, SEGMENT, 2 * SEGMENT] {
        let header = rig.disk.bytes(&segment_name(Position(base))).unwrap();
        let header =
            SegmentHeader::decode_segment(&header, GROUP, SEGMENT, Position(base)).unwrap();
        assert_eq!(header.before, rig.ends[&Position(base)]);
    }
    // Those that are still hot.
    for base in [SEGMENT, 2 * SEGMENT] {
        let durable = rig.payload(base);
        let hot = rig.hot_payload(base);
        assert!(durable == hot, "segment {base:#x}");
    }
}

#[test]
fn bytes_are_gathered_as_long_as_they_may_be() {
    let mut rig = Rig::started();
    rig.sync_all();
    let syncs = rig.disk.syncs();
    rig.node().syncer.set_group_delay_ns(5 * Nanos::MILLISECOND);
    rig.append(b"one");
    assert_eq!(rig.step_sync(), 0);
    let first = rig.now;
    assert_eq!(rig.node().syncer.deadline(), Some(first.plus(5 * Nanos::MILLISECOND)));
    rig.append(b"two");
    for _ in 0..4 {
        assert_eq!(rig.step_sync(), 0);
    }
    assert!(rig.step_sync() > 0);
    assert_eq!(rig.disk.syncs(), syncs + 1, "both in one batch, with one sync");
    let tail = rig.tail();
    assert_eq!(rig.reported, tail.position);
}

#[test]
fn a_batch_is_bounded_and_ends_with_a_frame() {
    let mut rig = Rig::new();
    rig.syncer.batch_bytes_max = 2000;
    rig.start().unwrap();
    rig.append_term_start(1);
    rig.fill_to(20_000);
    let mut last = Position(0);
    while rig.step_sync() > 0 && rig.reported > last {
        let batch = rig.reported.since(last);
        assert!((1..2000 + 1000).contains(&batch) && rig.ends.contains_key(&rig.reported));
        last = rig.reported;
    }
    assert_eq!(last, rig.tail().position);
}

#[test]
fn a_seal_makes_the_batch_before_certain_and_silence_the_last_one() {
    let mut rig = Rig::started();
    rig.append(b"first");
    rig.step_sync();
    let first = rig.tail();
    rig.node().shared.commit.store(first.position.0 + 999, Ordering::Release);
    rig.append(b"second");
    rig.step_sync();
    let second = rig.tail();
    let seal = newest_seal(&rig, 0).unwrap();
    assert_eq!((seal.certain, seal.claimed), (first, second));
    assert_eq!(seal.known_commit, Commit(second.position), "never above what is claimed");
    assert_eq!(rig.node().syncer.settled(), None);
    let deadline = rig.node().syncer.deadline().unwrap();
    assert_eq!(rig.step_sync(), 0);
    rig.now = deadline;
    assert!(rig.step_sync() > 0);
    let seal = newest_seal(&rig, 0).unwrap();
    assert_eq!((seal.certain, seal.claimed), (second, second));
    assert_eq!(rig.node().syncer.settled(), Some(second));
    assert_eq!(rig.node().syncer.deadline(), None);
}

#[test]
fn a_failed_sync_is_final_and_the_file_is_replaced_by_recovery() {
    let mut rig = Rig::started();
    rig.sync_all();
    let durable = rig.reported;
    rig.disk.fail_syncs(&segment_name(Position(0)));
    rig.append(b"lost to the disk");
    let tail = rig.tail();
    rig.step_sync();
    assert!(rig.node().failed);
    assert_eq!(rig.node().shared.sync_failed.load(Ordering::Acquire), 1);
    let failure = rig.node().syncer.failure().unwrap();
    assert!(failure.action.contains("0000000000000000.qlog"), "{}", failure.action);
    let changes = rig.disk.changes();
    rig.append(b"more");
    assert_eq!(rig.step_sync(), 0);
    assert_eq!((rig.disk.changes(), rig.reported), (changes, durable), "nothing is tried again");
    // The bytes read well after a restart of the process, and are not on the disk. Recovery must not believe them.
    rig.crash_process();
    rig.start().unwrap();
    assert!(rig.tail().position > tail.position);
    let recovered = rig.tail();
    assert_eq!(rig.node().report.rewritten, [Position(0)]);
    rig.power_loss(3);
    rig.start().unwrap();
    assert_eq!(rig.tail(), recovered, "what recovery said to be durable was");
}

#[test]
fn d4_a_cut_while_old_bytes_are_in_flight_makes_nothing_durable() {
    let mut rig = Rig::started();
    rig.append(b"stays");
    rig.sync_all();
    let at = rig.tail();
    rig.append(b"goes, and is being synced while the core decides so");
    // Sync has done its work; the report is on its way when the core cuts.
    let now = rig.now.plus(1);
    assert!(rig.node().syncer.step(now) > 0);
    rig.ask_cut(at);
    let late = rig.node().core.from_sync.try_iter().collect::<Vec<_>>();
    let [SyncToCore::Durable { epoch, durable }] = late[..] else { panic!("{late:?}") };
    assert!(epoch < rig.node().epoch && durable.position() > at.position);
    rig.sync_all();
    assert!(rig.node().cutting.is_none());
    assert_eq!(rig.node().shared.durable.load(Ordering::Acquire), at.position.0);
    assert_eq!(rig.reported, at.position, "the late report counted for nothing");
    // Other bytes take their place, and only those come back.
    rig.append(b"new");
    let new = rig.tail();
    rig.sync_all();
    rig.power_loss(5);
    rig.start().unwrap();
    assert_eq!(rig.tail(), new);
}

#[test]
fn d4_words_of_another_epoch_are_not_acted_on() {
    let mut rig = Rig::started();
    rig.sync_all();
    rig.append(b"written in an epoch of which the message has not come yet");
    let changes = rig.disk.changes();
    rig.node().shared.cut_epoch.store(1, Ordering::Release);
    assert_eq!(rig.step_sync(), 0);
    assert_eq!(rig.disk.changes(), changes);
}

#[test]
fn a_cut_keeps_the_bytes_and_survives_a_power_loss() {
    for keep in [0, 3000, SEGMENT, SEGMENT + 7000, 2 * SEGMENT + 3000] {
        let mut rig = Rig::started();
        rig.fill_to(2 * SEGMENT + 4000);
        rig.sync_all();
        rig.fill_to(2 * SEGMENT + 9000);
        let end = rig.tail();
        let (_, &at) = rig.ends.range(..=Position(keep)).next_back().unwrap();
        let mut bytes = Vec::new();
        for base in [0, SEGMENT, 2 * SEGMENT] {
            // Segments that were retired from the hot tier are in the files.
            let hot = rig.node().log.hot_base() <= Position(base);
            bytes.extend(if hot { rig.hot_payload(base) } else { rig.payload(base) });
        }
        if at.position < rig.node().log.hot_base() {
            continue;
        }
        let lost = bytes[at.position.0 as usize..end.position.0 as usize].to_vec();
        rig.ask_cut(at);
        rig.sync_all();
        let saved = quarantined(&rig);
        assert_eq!(saved.len(), 1);
        assert_eq!(saved[0].0.before, at);
        assert_eq!(saved[0].0.content, Content::Quarantine);
        assert!(saved[0].1 == lost, "cut at {keep}");
        assert_eq!(rig.tail(), at);
        rig.power_loss(keep);
        rig.start().unwrap();
        assert_eq!(rig.tail(), at, "{}", rig.node().report);
        assert_eq!(rig.node().epoch, CutEpoch(1));
        assert!(!rig.node().report.provisional);
        // Life goes on, through another cut.
        rig.append_term_start(2);
        rig.fill_to(at.position.0 + SEGMENT);
        rig.sync_all();
        rig.ask_cut(at);
        rig.sync_all();
        assert_eq!(quarantined(&rig).len(), 2);
        rig.crash_process();
        rig.start().unwrap();
        assert_eq!((rig.tail(), rig.node().epoch), (at, CutEpoch(2)));
    }
}

#[test]
fn a_cut_of_bytes_that_were_never_durable_keeps_them_too() {
    let mut rig = Rig::started();
    rig.sync_all();
    rig.append(b"stays");
    let at = rig.tail();
    rig.append(b"goes");
    rig.ask_cut(at);
    rig.sync_all();
    assert_eq!(rig.reported, at.position, "what stays is durable first");
    let saved = quarantined(&rig);
    assert!(saved[0].1.windows(4).any(|window| window == b"goes"));
}

#[test]
fn a_disk_too_full_to_keep_the_cut_bytes_makes_the_cut_wait() {
    let mut rig = Rig::started();
    rig.fill_to(5000);
    rig.sync_all();
    let at = rig.ends[&Position(0)];
    rig.disk.set_space(Some(4200));
    rig.ask_cut(at);
    assert_eq!(rig.step_sync(), 0);
    assert!(rig.node().syncer.cut_waits_for_space() && !rig.node().failed);
    assert!(quarantined(&rig).is_empty(), "half a file is removed");
    assert!(rig.node().state.state().unwrap().truncation.is_none(), "nothing is cut unsaved");
    rig.disk.set_space(None);
    rig.now = rig.node().syncer.deadline().unwrap();
    rig.sync_all();
    assert_eq!(rig.tail(), at);
}

/// One thing that happens to a node.
#[derive(Clone, Debug)]
enum Event {
    Append(usize),
    NewTerm,
    Sync,
    Keep,
    Settle,
    /// Back by this share (of 256) of what is hot.
    Cut(u8),
    CrashProcess,
    PowerLoss(u64),
    /// The machine stops in the middle of what comes next.
    StopAfter(u64),
    CleanStop,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0_usize..4000).prop_map(Event::Append),
        2 => (30_000_usize..60_000).prop_map(Event::Append),
        1 => Just(Event::NewTerm),
        8 => Just(Event::Sync),
        2 => Just(Event::Keep),
        2 => Just(Event::Settle),
        2 => any::<u8>().prop_map(Event::Cut),
        2 => Just(Event::CrashProcess),
        2 => any::<u64>().prop_map(Event::PowerLoss),
        3 => (0_u64..40).prop_map(Event::StopAfter),
        1 => Just(Event::CleanStop),
    ]
}

/// Starts, through as many power losses as the stopped machine needs.
fn start(rig: &mut Rig, mut seed: u64) {
    loop {
        match rig.start() {
            Ok(()) => break,
            Err(RecoveryError::Io { .. } | RecoveryError::NodeState(_)) => {
                seed = seed.wrapping_mul(3) + 1;
                rig.power_loss(seed);
            }
            Err(other) => panic!("{other}"),
        }
    }
    let report = &rig.node().report;
    assert_ne!(report.decision, Decision::Damage);
    if rig.node().stateless {
        rig.append_term_start(1);
    }
}

fn happen(rig: &mut Rig, event: &Event, stopped: &mut bool) {
    if rig.node().failed && !matches!(event, Event::PowerLoss(_)) {
        // Nothing but a restart helps.
        rig.power_loss(0);
        *stopped = false;
        start(rig, 1);
    }
    match *event {
        Event::Append(length) if rig.node().cutting.is_none() => {
            let room = rig.node().log.room_for(length);
            if room || !*stopped {
                rig.append(&vec![7; length]);
            }
        }
        Event::NewTerm if rig.node().cutting.is_none() && rig.node().log.room_for(24) => {
            let term = rig.tail().term.0 + 1;
            rig.append_term_start(term);
        }
        Event::Sync | Event::Append(_) | Event::NewTerm => {
            rig.step_sync();
        }
        Event::Keep => rig.keep(),
        Event::Settle => {
            rig.now = rig.now.plus(Nanos::SECOND);
            rig.step_sync();
        }
        Event::Cut(share) if rig.node().cutting.is_none() => {
            let (low, high) = (rig.node().log.hot_base(), rig.tail().position);
            let at = low.plus(high.since(low) * u64::from(share) / 256);
            let (_, &at) = rig.ends.range(..=at).next_back().unwrap();
            if at.position >= low {
                rig.ask_cut(at);
            }
        }
        Event::Cut(_) => {
            rig.step_sync();
        }
        Event::CrashProcess => {
            let (tail, cutting) = (rig.tail(), rig.node().cutting.is_some());
            rig.crash_process();
            *stopped = false;
            start(rig, 1);
            assert!(cutting || rig.tail() == tail, "nothing that was in memory is lost");
        }
        Event::PowerLoss(seed) => {
            rig.power_loss(seed);
            *stopped = false;
            start(rig, seed);
        }
        Event::StopAfter(changes) => {
            rig.disk.stop_after(changes);
            *stopped = true;
        }
        Event::CleanStop if !*stopped && rig.node().cutting.is_none() => {
            rig.sync_all();
            let tail = rig.tail();
            assert_eq!(rig.node().syncer.settled(), Some(tail));
            rig.crash_process();
            start(rig, 1);
            assert!(rig.tail() == tail && rig.node().report.rewritten.is_empty());
        }
        Event::CleanStop => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// After a crash of any kind at any point, recovery finds a prefix of what was written that holds everything that was
    /// reported durable; the rig checks it at each start.
    #[test]
    fn any_crash_recovers_to_a_prefix_with_everything_durable(
        events in proptest::collection::vec(event(), 1..60),
        last in any::<u64>(),
    ) {
        let mut rig = Rig::started();
        let mut stopped = false;
        for event in &events {
            happen(&mut rig, event, &mut stopped);
        }
        rig.power_loss(last);
        start(&mut rig, last);
        prop_assert!(rig.tail().term >= Term(0));
    }
}

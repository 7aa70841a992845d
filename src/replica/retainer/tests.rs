use core::sync::atomic::Ordering::Release;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::frame::Predecessor;
use crate::journal::DurableFile;
use crate::journal::files::first_segment;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::recovery::RecoveryError;
use crate::journal::rig::GENERATION;
use crate::journal::rig::{GROUP, Rig, SEGMENT};
use crate::journal::snapshot::{SNAPSHOT_FOLDER, SnapshotWriter, Stamp, snapshot_name};

/// A log of `segments` whole segments, all of it on the disk and committed.
fn long(segments: u64) -> Rig {
    let mut rig = Rig::started();
    rig.settings.known_names.push(SNAPSHOT_FOLDER.to_owned());
    grow(&mut rig, segments * SEGMENT + 1000);
    rig
}

fn grow(rig: &mut Rig, position: u64) {
    rig.fill_to(position);
    rig.keep();
    rig.sync_all();
    let tail = rig.tail().position;
    rig.node().shared.commit.store(tail.0, Release);
}

/// The end of the last entry at or below `position`.
fn end_below(rig: &Rig, position: u64) -> Predecessor {
    *rig.ends.range(..=Position(position)).next_back().unwrap().1
}

/// A snapshot there, of no matter what.
fn snapshot(rig: &Rig, position: u64) -> Position {
    let before = end_below(rig, position);
    let mut pace = |_| Ok(());
    let writer = SnapshotWriter::create(&rig.disk, before, &mut pace).unwrap();
    let stamp = Stamp {
        group: GROUP,
        generation: GENERATION,
        before,
        time: Timestamp(7),
        state_hash: 1,
        service: "none".to_owned(),
        service_version: 1,
        state_bytes: 0,
        blocks_crc: 0,
    };
    writer.finish(stamp).unwrap().before.position
}

fn retainer(rig: &mut Rig, archive: Option<Archive<MemoryDisk>>) -> Retainer<MemoryDisk> {
    let limits = RetentionLimits { size_bytes: SEGMENT, age_ns: 0, member_bytes: 100 * SEGMENT };
    let mutants = Mutants::NONE;
    let settings = RetainerSettings { group: GROUP, segment_bytes: SEGMENT, limits, mutants };
    Retainer::new(rig.disk.clone(), rig.node().shared.clone(), settings, archive)
}

/// Lets it work until it has nothing to do.
fn run(retainer: &mut Retainer<MemoryDisk>, members: &[(NodeId, Option<Position>)]) {
    for _ in 0..100 {
        if retainer.step(retainer.look_at, Timestamp(7), members, &mut |_| Ok(())) == 0 {
            return;
        }
    }
    panic!("it never comes to rest");
}

fn first(rig: &Rig) -> u64 {
    first_segment(&rig.disk).unwrap().unwrap().0
}

#[test]
fn a10_segments_leave_when_two_snapshots_cover_them_and_the_node_starts_again() {
    let mut rig = long(6);
    let mut keeper = retainer(&mut rig, None);
    run(&mut keeper, &[]);
    assert_eq!((first(&rig), keeper.view().pin), (0, Some(Pin::Snapshots)), "without a snapshot");
    snapshot(&rig, 3 * SEGMENT + 2000);
    run(&mut keeper, &[]);
    assert_eq!(first(&rig), 0, "with one, which may be damaged tomorrow");
    snapshot(&rig, 5 * SEGMENT + 2000);
    let behind = [(NodeId(1), Some(Position(2 * SEGMENT)))];
    run(&mut keeper, &behind);
    assert_eq!((first(&rig), keeper.view().pin), (2 * SEGMENT, Some(Pin::Member(NodeId(1)))));
    let there = [(NodeId(1), Some(Position(6 * SEGMENT)))];
    run(&mut keeper, &there);
    assert_eq!(first(&rig), 3 * SEGMENT, "what the older snapshot stands on stays");
    let mut told = 0;
    while let Some(event) = keeper.poll_event() {
        match event {
            RetentionEvent::Left { segments, .. } => told += segments,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told, 3);
    let tail = rig.tail();
    for power in [false, true] {
        if power {
            rig.power_loss(3);
        } else {
            rig.crash_process();
        }
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail);
        assert_eq!(rig.payload(3 * SEGMENT).len() as u64, SEGMENT);
    }
    grow(&mut rig, 8 * SEGMENT);
}

#[test]
fn the_lower_end_of_a_log_whose_beginning_has_left_is_known() {
    let mut rig = long(4);
    snapshot(&rig, 2 * SEGMENT + 2000);
    snapshot(&rig, 3 * SEGMENT + 2000);
    let mut keeper = retainer(&mut rig, None);
    run(&mut keeper, &[]);
    rig.crash_process();
    rig.start().unwrap();
    let files = LogFiles::new(&rig.disk, SEGMENT);
    let at = |position| files.predecessor_at(GROUP, Position(position)).unwrap();
    let start = rig.ends[&Position(2 * SEGMENT)];
    assert_eq!(at(2 * SEGMENT), Some(start), "where the log begins");
    assert_eq!(at(SEGMENT), None, "what has left");
    let log = &rig.node().log;
    let first = log.latest_at_or_below(log.last_leadership());
    assert!(first.is_some_and(|span| span.base < start.position), "its frames began before");
}

#[test]
fn a_log_without_its_beginning_is_refused_unless_a_snapshot_covers_it() {
    let mut rig = long(4);
    let covered = snapshot(&rig, SEGMENT + 2000);
    let tail = rig.tail();
    rig.power_loss(1);
    rig.disk.remove(&segment_name(Position(0))).unwrap();
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    rig.power_loss(2);
    rig.disk.remove(&segment_name(Position(SEGMENT))).unwrap();
    let refused = rig.start().unwrap_err();
    assert!(matches!(refused, RecoveryError::Damage { .. }), "{covered} is below: {refused}");
    rig.disk.remove(&snapshot_name(covered)).unwrap();
    let refused = rig.start().unwrap_err();
    assert!(matches!(refused, RecoveryError::Damage { .. }), "{refused}");
    // Nor when nothing says any more what was promised.
    for base in 2..6 {
        rig.disk.rot(&segment_name(Position(base * SEGMENT)), 1024, |bytes| bytes[..1024].fill(0));
    }
    let refused = rig.start().unwrap_err();
    assert!(matches!(refused, RecoveryError::NoStart { .. }), "{refused}");
}

#[test]
fn a_hole_in_the_log_is_damage_whatever_covers_it() {
    let mut rig = long(4);
    snapshot(&rig, 3 * SEGMENT + 2000);
    rig.power_loss(1);
    rig.disk.remove(&segment_name(Position(2 * SEGMENT))).unwrap();
    assert!(matches!(rig.start().unwrap_err(), RecoveryError::Damage { .. }));
}

#[test]
fn r14_a_damaged_snapshot_keeps_what_the_older_one_stands_on() {
    let mut rig = long(6);
    snapshot(&rig, 2 * SEGMENT + 2000);
    let damaged = snapshot(&rig, 5 * SEGMENT + 2000);
    rig.disk.rot(&snapshot_name(damaged), 40, |bytes| bytes[0] ^= 1);
    let mut keeper = retainer(&mut rig, None);
    run(&mut keeper, &[]);
    let event = keeper.poll_event();
    assert!(matches!(event, Some(RetentionEvent::Damaged { position, .. }) if position == damaged));
    assert_eq!(first(&rig), 0, "one good snapshot is not enough");
    snapshot(&rig, 6 * SEGMENT + 900);
    run(&mut keeper, &[]);
    assert_eq!(first(&rig), 2 * SEGMENT);
}

#[test]
fn what_is_not_archived_stays() {
    let mut rig = long(5);
    snapshot(&rig, 3 * SEGMENT + 2000);
    snapshot(&rig, 5 * SEGMENT);
    let archive = MemoryDisk::new();
    let refuses = Arc::new(AtomicBool::new(true));
    let (copy, no) = (archive.clone(), Arc::clone(&refuses));
    let mut keeper = retainer(
        &mut rig,
        Some(Box::new(move |disk: &MemoryDisk, name: &str, _: Paced<'_>| {
            if no.load(Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            copy.put(name, &disk.bytes(name).unwrap());
            Ok(())
        })),
    );
    run(&mut keeper, &[]);
    run(&mut keeper, &[]);
    assert_eq!(first(&rig), 0);
    assert!(matches!(keeper.poll_event(), Some(RetentionEvent::NotArchived { .. })));
    assert!(keeper.poll_event().is_none(), "it is said once");
    assert!(keeper.view().failure.is_some());
    let before: Vec<_> = (0..3).map(|number| rig.payload(number * SEGMENT)).collect();
    refuses.store(false, Relaxed);
    run(&mut keeper, &[]);
    assert_eq!((first(&rig), keeper.view().failure.clone()), (3 * SEGMENT, None));
    for (number, payload) in before.iter().enumerate() {
        let kept = archive.open(&segment_name(Position(number as u64 * SEGMENT))).unwrap();
        let mut bytes = vec![0; SEGMENT as usize];
        assert_eq!(kept.read_at(&mut bytes, 4096).unwrap(), bytes.len());
        assert_eq!(&bytes, payload);
    }
}

#[test]
fn power_may_fail_at_any_step_of_the_removal() {
    for changes in 0.. {
        let mut rig = long(6);
        snapshot(&rig, 4 * SEGMENT + 2000);
        snapshot(&rig, 5 * SEGMENT + 2000);
        let mut keeper = retainer(&mut rig, None);
        rig.disk.stop_after(changes);
        run(&mut keeper, &[]);
        let stopped = rig.disk.has_stopped();
        let tail = rig.tail();
        rig.power_loss(changes * 31 + 7);
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail, "after {changes} changes");
        let mut keeper = retainer(&mut rig, None);
        run(&mut keeper, &[]);
        assert_eq!(first(&rig), 4 * SEGMENT);
        if !stopped {
            return;
        }
    }
}

#[test]
fn a_failure_is_tried_again_later() {
    let mut rig = long(4);
    snapshot(&rig, 2 * SEGMENT + 2000);
    snapshot(&rig, 3 * SEGMENT + 2000);
    let mut keeper = retainer(&mut rig, None);
    rig.disk.stop_after(0);
    assert_eq!(keeper.step(Nanos(0), Timestamp(7), &[], &mut |_| Ok(())), 1, "it verifies");
    assert_eq!(keeper.step(Nanos(0), Timestamp(7), &[], &mut |_| Ok(())), 0);
    assert!(matches!(keeper.poll_event(), Some(RetentionEvent::NotRemoved { .. })));
    assert_eq!(keeper.look_at, Nanos(RETRY_NS));
}

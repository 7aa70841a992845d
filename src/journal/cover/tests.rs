use std::io::Write;

use super::*;
use crate::frame::Predecessor;
use crate::journal::incoming::{IncomingSettings, read_piece};
use crate::journal::memory_disk::{MemoryDisk, MemoryFile};
use crate::journal::recovery::RecoveryError;
use crate::journal::rig::{GENERATION, GROUP, Rig, SEGMENT};
use crate::journal::snapshot::{SNAPSHOT_FOLDER, SnapshotWriter};
use crate::types::Timestamp;

const PIECE: u64 = 50_000;
const BASE: Position = Position(SEGMENT);
const SETTINGS: IncomingSettings = IncomingSettings::new(GROUP, SEGMENT);

/// A node whose log has four segments, all of them on its disk.
fn grown() -> Rig {
    let mut rig = Rig::started();
    rig.settings.known_names.push(SNAPSHOT_FOLDER.to_owned());
    rig.fill_to(4 * SEGMENT + 3000);
    rig.keep();
    rig.sync_all();
    rig
}

/// The entry that ends at `position`, or before it.
fn place(rig: &Rig, position: u64) -> Predecessor {
    *rig.ends.range(..=Position(position)).next_back().unwrap().1
}

fn snapshot(disk: &MemoryDisk, before: Predecessor) -> Position {
    let mut pace = |_| Ok(());
    let mut writer = SnapshotWriter::create(disk, before, &mut pace).unwrap();
    let state: Vec<_> = (0..150_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
    writer.write_all(&state).unwrap();
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
    writer.finish(stamp).unwrap();
    before.position
}

/// Another node of the same log, with a snapshot in its fourth segment.
fn source() -> (Rig, Position) {
    let rig = grown();
    let at = snapshot(&rig.disk, place(&rig, 3 * SEGMENT + 9000));
    (rig, at)
}

fn log(disk: &MemoryDisk, limit: u64) -> OwnLog<'_, MemoryDisk> {
    OwnLog { disk, group: GROUP, segment_bytes: SEGMENT, limit: Position(limit) }
}

/// Takes the newest snapshot of `from`.
fn transfer(from: &MemoryDisk, own: &OwnLog<'_, MemoryDisk>) -> io::Result<SnapshotTaken> {
    let (mut given, mut at_most, mut end) = (None, Position(u64::MAX), 0);
    loop {
        let piece = read_piece(from, &SETTINGS, at_most, end, PIECE).unwrap();
        let given: &mut Given<MemoryFile> = match &mut given {
            Some(given) => given,
            none => none.insert(Given::begin(own.disk, piece.position)?),
        };
        match given.take(own, &piece)? {
            SnapshotTaken::Part { position, end: more, .. } => (at_most, end) = (position, more),
            other => return Ok(other),
        }
    }
}

fn damage(rig: &Rig, base: Position) {
    rig.disk.rot(&segment_name(base), 9000, |bytes| bytes[0] ^= 1);
}

fn names(disk: &MemoryDisk, prefix: &str) -> Vec<String> {
    disk.list().unwrap().into_iter().filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn d17_a_snapshot_of_another_node_covers_what_nobody_has_and_the_log_goes_on_above() {
    let (theirs, at) = source();
    let mut rig = grown();
    let tail = rig.tail();
    damage(&rig, BASE);
    let own = log(&rig.disk, tail.position.0);
    assert_eq!(own.cover(BASE).unwrap(), None, "nothing covers it yet");
    assert_eq!(transfer(&theirs.disk, &own).unwrap(), SnapshotTaken::Whole(at));
    verify(&rig.disk, GROUP, at, &mut |_| Ok(())).unwrap();
    let covered = own.cover(BASE).unwrap();
    assert_eq!(covered, Some(Covered { through: BASE, by: at, segments: 2 }));
    assert_eq!(names(&rig.disk, "quarantine/").len(), 2, "the damaged one, and the one below it");
    // The node goes on with it, and starts with it.
    rig.fill_to(5 * SEGMENT);
    rig.keep();
    rig.sync_all();
    let tail = rig.tail();
    rig.power_loss(3);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    assert!(!rig.disk.list().unwrap().contains(&segment_name(Position(0))));
}

#[test]
fn only_a_snapshot_of_this_very_log_and_of_what_is_certain_is_taken() {
    let (theirs, at) = source();
    let rig = grown();
    let whole = place(&rig, 4 * SEGMENT).position.0;
    let refused = |disk: &MemoryDisk, limit: u64, why: &str| {
        let taken = transfer(disk, &log(&rig.disk, limit)).unwrap();
        assert!(matches!(taken, SnapshotTaken::Damaged(_)), "{why}: {taken:?}");
        assert_eq!(names(&rig.disk, SNAPSHOT_FOLDER).len(), 1, "{why}: it has no name of its own");
        let left = Given::<MemoryFile>::begin(&rig.disk, at).unwrap();
        left.discard(&rig.disk);
        assert_eq!(names(&rig.disk, SNAPSHOT_FOLDER), Vec::<String>::new());
    };
    refused(&theirs.disk, at.0 - 1, "of more than is certain here");
    for offset in [4096, 100_000] {
        theirs.disk.rot(&snapshot_name(at), offset, |bytes| bytes[0] ^= 4);
        refused(&theirs.disk, whole, "a block is damaged");
        theirs.disk.rot(&snapshot_name(at), offset, |bytes| bytes[0] ^= 4);
    }
    // The same place in another log.
    let before = place(&rig, 3 * SEGMENT + 9000);
    theirs.disk.remove(&snapshot_name(at)).unwrap();
    let chain = crate::types::Chain(before.chain.0 ^ 1);
    snapshot(&theirs.disk, Predecessor { chain, ..before });
    refused(&theirs.disk, whole, "another history");
}

#[test]
fn what_cannot_be_reached_from_its_own_page_leaves_too_and_never_without_cover() {
    let mut rig = grown();
    let limit = rig.tail().position.0;
    let third = place(&rig, 2 * SEGMENT + 5000);
    snapshot(&rig.disk, third);
    damage(&rig, BASE);
    let next = segment_name(Position(2 * SEGMENT));
    rig.disk.rot(&next, 20, |bytes| bytes[0] ^= 1);
    let all = rig.disk.list().unwrap();
    // The snapshot stands on the segment that would be the log's first, and could not be.
    assert_eq!(log(&rig.disk, limit).cover(BASE).unwrap(), None);
    assert_eq!(rig.disk.list().unwrap(), all);
    // A damaged one covers nothing; nor does one above what is certain.
    let fourth = snapshot(&rig.disk, place(&rig, 3 * SEGMENT + 5000));
    assert_eq!(log(&rig.disk, fourth.0 - 1).cover(BASE).unwrap(), None);
    rig.disk.rot(&snapshot_name(fourth), 100_000, |bytes| bytes[0] ^= 4);
    assert_eq!(log(&rig.disk, limit).cover(BASE).unwrap(), None);
    rig.disk.rot(&snapshot_name(fourth), 100_000, |bytes| bytes[0] ^= 4);
    let covered = log(&rig.disk, limit).cover(BASE).unwrap().unwrap();
    assert_eq!(covered, Covered { through: Position(2 * SEGMENT), by: fourth, segments: 3 });
    assert_eq!(
        names(&rig.disk, SNAPSHOT_FOLDER),
        [snapshot_name(fourth)],
        "the other leads nowhere"
    );
    rig.power_loss(9);
    rig.start().unwrap();
    assert_eq!(rig.tail().position.0, limit);
}

/// Power fails after so many changes, and the disk is what `seed` leaves of it. Whether the node was mended before, and whether
/// its start named the damage.
fn power_fails(theirs: &MemoryDisk, at: Position, changes: u64, seed: u64) -> (bool, bool) {
    let base = Position(2 * SEGMENT);
    let mut rig = grown();
    let tail = rig.tail();
    damage(&rig, base);
    rig.crash_process();
    rig.disk.stop_after(changes);
    let all = |disk: &MemoryDisk| -> io::Result<()> {
        let own = log(disk, tail.position.0);
        if own.cover(base)?.is_none() {
            assert_eq!(transfer(theirs, &own)?, SnapshotTaken::Whole(at));
            assert!(own.cover(base)?.is_some());
        }
        Ok(())
    };
    let done = all(&rig.disk).is_ok();
    rig.power_loss(seed);
    // Nothing is ever cut: the damage is named, as before, or it is mended.
    let named = rig.disk.list().unwrap().contains(&segment_name(base));
    assert!(!(done && named), "what was done is done");
    if named {
        let refused = rig.start();
        assert!(matches!(refused, Err(RecoveryError::Damage { .. })), "{changes}: {refused:?}");
        all(&rig.disk).unwrap();
    }
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail, "after {changes} changes");
    verify(&rig.disk, GROUP, at, &mut |_| Ok(())).unwrap();
    (done, named)
}

#[test]
fn power_may_fail_at_any_change_of_taking_and_covering() {
    const SEEDS: u64 = 8;
    let (theirs, at) = source();
    let (mut changes, mut refused, mut done) = (0, 0, false);
    while !done {
        for seed in 0..SEEDS {
            let named;
            (done, named) = power_fails(&theirs.disk, at, changes, changes * 13 + seed);
            refused += u64::from(named);
        }
        changes += 1;
    }
    assert!(refused > 5 * SEEDS && refused < changes * SEEDS, "{refused}");
}

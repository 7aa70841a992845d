use super::*;
use crate::frame::Predecessor;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::rig::{GENERATION, GROUP, Rig, SEGMENT};
use crate::journal::snapshot::{SNAPSHOT_FOLDER, SnapshotWriter, verify};
use crate::types::Timestamp;
use std::io::Write;

const PIECE: u64 = 50_000;
const SETTINGS: IncomingSettings =
    IncomingSettings { group: GROUP, segment_bytes: SEGMENT, mutants: Mutants::NONE };

/// A source whose log has four segments, and snapshots of some bytes in the second and the fourth.
fn source() -> (Rig, Vec<Predecessor>) {
    let mut rig = started();
    rig.fill_to(4 * SEGMENT);
    rig.keep();
    rig.sync_all();
    let at = |position| *rig.ends.range(..=Position(position)).next_back().unwrap().1;
    let places = vec![at(SEGMENT + 5000), at(3 * SEGMENT + 9000)];
    for place in &places {
        snapshot(&rig.disk, *place);
    }
    (rig, places)
}

fn started() -> Rig {
    let mut rig = Rig::started();
    rig.settings.known_names.extend([SNAPSHOT_FOLDER.to_owned(), INCOMING_FOLDER.to_owned()]);
    rig
}

fn snapshot(disk: &MemoryDisk, before: Predecessor) {
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
}

/// Takes the newest snapshot at or below `at_most`, from wherever it stands; how it ended, and the bytes that were sent.
fn transfer(from: &MemoryDisk, to: &MemoryDisk, at_most: u64) -> io::Result<(Taken, u64)> {
    let mut incoming = Incoming::new(SETTINGS);
    let mut sent = 0;
    let mut taken = incoming.resume(to)?;
    loop {
        let (at_most, next) = match taken {
            Taken::Part { position, end, .. } if position > Position(0) => (position, end),
            Taken::Part { .. } => (Position(at_most), 0),
            done => return Ok((done, sent)),
        };
        let piece = read_piece(from, &SETTINGS, at_most, next, PIECE).unwrap();
        sent += piece.bytes.len() as u64;
        assert!(piece.position > Position(0), "the source has one");
        taken = incoming.take(to, &piece)?;
    }
}

/// The one with this ending.
fn quarantined(disk: &MemoryDisk, ending: &str) -> String {
    let names = disk.list().unwrap();
    names
        .into_iter()
        .find(|name| name.starts_with("quarantine/") && name.ends_with(ending))
        .unwrap()
}

/// The node of `rig` starts again, and must have the source's log up to `place`, if that was installed.
fn start_at(rig: &mut Rig, place: Predecessor) -> bool {
    let installed = install(&rig.disk, &SETTINGS, CutEpoch(0)).unwrap();
    if installed.is_some() {
        rig.ends.clear();
        rig.ends.insert(place.position, place);
        rig.reported = place.position;
    }
    rig.start().unwrap();
    installed.is_some()
}

#[test]
fn r6_a_snapshot_and_its_log_take_the_place_of_what_a_node_had() {
    let (theirs, places) = source();
    for (at_most, place) in [(u64::MAX, places[1]), (2 * SEGMENT, places[0])] {
        let mut rig = started();
        rig.fill_to(3000);
        rig.sync_all();
        let (taken, _) = transfer(&theirs.disk, &rig.disk, at_most).unwrap();
        assert_eq!(taken, Taken::Whole(place.position));
        rig.crash_process();
        assert!(!start_at(&mut rig, place), "nothing is decided yet");
        rig.crash_process();
        adopt(&rig.disk, SEGMENT, place.position).unwrap();
        assert!(start_at(&mut rig, place));
        assert_eq!(rig.tail(), place);
        verify(&rig.disk, GROUP, place.position, &mut |_| Ok(())).unwrap();
        let kept = rig.disk.list().unwrap();
        assert!(!kept.iter().any(|name| name.starts_with(INCOMING_FOLDER)), "{kept:?}");
        // It goes on like any log.
        rig.fill_to(place.position.0 + 3 * SEGMENT);
        rig.sync_all();
        rig.power_loss(5);
        rig.start().unwrap();
        assert!(rig.tail().position.0 >= place.position.0 + 3 * SEGMENT);
    }
}

#[test]
fn what_was_not_known_as_committed_is_kept_aside() {
    let (theirs, places) = source();
    let mut rig = started();
    rig.fill_to(2 * SEGMENT);
    rig.keep();
    rig.node().shared.commit.store(SEGMENT + 100, core::sync::atomic::Ordering::Release);
    rig.fill_to(2 * SEGMENT + 500);
    rig.keep();
    rig.sync_all();
    let old = rig.payload(SEGMENT);
    transfer(&theirs.disk, &rig.disk, u64::MAX).unwrap();
    rig.crash_process();
    adopt(&rig.disk, SEGMENT, places[1].position).unwrap();
    start_at(&mut rig, places[1]);
    let name = format!("quarantine/{}", segment_name(Position(SEGMENT)));
    assert_eq!(rig.disk.bytes(&name).unwrap()[4096..], old);
    let first = format!("quarantine/{}", segment_name(Position(0)));
    assert!(!rig.disk.list().unwrap().contains(&first), "the group has all of that");
}

#[test]
fn what_broke_off_goes_on_where_it_was() {
    let (theirs, places) = source();
    let whole = read_piece(&theirs.disk, &SETTINGS, Position(u64::MAX), 0, 1).unwrap().total;
    let mut all = 0;
    let disk = MemoryDisk::new();
    for pieces in [2, 3, 90] {
        // Another process each time.
        let mut incoming = Incoming::new(SETTINGS);
        let mut taken = incoming.resume(&disk).unwrap();
        for _ in 0..pieces {
            let Taken::Part { position, end, .. } = taken else { break };
            let at_most = if end == 0 { Position(u64::MAX) } else { position };
            let piece = read_piece(&theirs.disk, &SETTINGS, at_most, end, PIECE).unwrap();
            all += piece.bytes.len() as u64;
            // Late, early and repeated pieces change nothing.
            let late = Piece { from: piece.from + 1, ..piece.clone() };
            if end > 0 {
                incoming.take(&disk, &late).unwrap();
            }
            taken = incoming.take(&disk, &piece).unwrap();
            if end > 0 && !matches!(taken, Taken::Whole(_)) {
                assert_eq!(incoming.take(&disk, &piece).unwrap(), taken);
            }
        }
        if pieces == 90 {
            assert_eq!(taken, Taken::Whole(places[1].position));
        }
    }
    assert!(all < whole + 3 * SNAPSHOT_BLOCK_BYTES as u64, "{all} of {whole}");
}

#[test]
fn r14_damage_anywhere_is_refused_and_an_older_one_is_taken() {
    let (theirs, places) = source();
    let snapshot = snapshot_name(places[1].position);
    let segment = segment_name(Position(3 * SEGMENT));
    let spots = [(&snapshot, 20), (&snapshot, 4096), (&snapshot, 100_000), (&segment, 17)];
    for (name, offset) in spots.into_iter().chain([(&segment, 4096 + 40), (&segment, 4096 + 8000)])
    {
        theirs.disk.rot(name, offset, |bytes| bytes[0] ^= 4);
        let disk = MemoryDisk::new();
        let (taken, _) = transfer(&theirs.disk, &disk, u64::MAX).unwrap();
        // A source that sees the damage itself sends an older one.
        let refused = taken == Taken::Damaged(places[1].position);
        assert!(refused || taken == Taken::Whole(places[0].position), "{name} {offset}: {taken:?}");
        if refused {
            assert_eq!(disk.list().unwrap(), Vec::<String>::new(), "nothing of it is kept");
            let (taken, _) = transfer(&theirs.disk, &disk, places[1].position.0 - 1).unwrap();
            assert_eq!(taken, Taken::Whole(places[0].position));
        }
        theirs.disk.rot(name, offset, |bytes| bytes[0] ^= 4);
    }
    let none = read_piece(&theirs.disk, &SETTINGS, Position(32), 0, PIECE).unwrap();
    assert_eq!((none.position, none.total), (Position(0), 0));
}

#[test]
fn r14_what_rots_after_it_was_decided_is_kept_aside_and_taken_again() {
    let (theirs, places) = source();
    let place = places[1];
    let segment = format!("incoming/{}", segment_name(Position(3 * SEGMENT)));
    let snapshot = decided_name(place.position);
    for (name, offset) in [(&snapshot, 20), (&snapshot, 100_000), (&segment, 17), (&segment, 9000)]
    {
        let mut rig = started();
        rig.fill_to(3000);
        rig.sync_all();
        let own = rig.tail();
        transfer(&theirs.disk, &rig.disk, u64::MAX).unwrap();
        rig.crash_process();
        adopt(&rig.disk, SEGMENT, place.position).unwrap();
        rig.disk.rot(name, offset, |bytes| bytes[0] ^= 4);
        assert!(!start_at(&mut rig, place), "{name} at {offset}");
        assert_eq!(rig.tail(), own, "it has its own log");
        let kept = rig.disk.list().unwrap();
        assert_eq!(kept.iter().filter(|name| name.starts_with("quarantine/")).count(), 2);
        rig.crash_process();
        transfer(&theirs.disk, &rig.disk, u64::MAX).unwrap();
        adopt(&rig.disk, SEGMENT, place.position).unwrap();
        assert!(start_at(&mut rig, place));
        assert_eq!(rig.tail(), place);
    }
}

#[test]
fn without_the_check_a_damaged_snapshot_would_be_taken() {
    let (theirs, places) = source();
    let name = snapshot_name(places[1].position);
    theirs.disk.rot(&name, 100_000, |bytes| bytes[0] ^= 4);
    let settings =
        IncomingSettings { mutants: Mutants::NONE.with(Mutant::TakeUnverified), ..SETTINGS };
    let disk = MemoryDisk::new();
    let mut incoming = Incoming::new(settings);
    let mut taken = incoming.resume(&disk).unwrap();
    while let Taken::Part { position, end, .. } = taken {
        let at_most = if end == 0 { Position(u64::MAX) } else { position };
        let piece = read_piece(&theirs.disk, &settings, at_most, end, PIECE).unwrap();
        taken = incoming.take(&disk, &piece).unwrap();
    }
    assert_eq!(taken, Taken::Whole(places[1].position));
    adopt(&disk, SEGMENT, places[1].position).unwrap();
    // Nor would it be used: it is looked at again.
    assert_eq!(install(&disk, &settings, CutEpoch(0)).unwrap(), None);
    disk.rename(&quarantined(&disk, "qsnap"), &name).unwrap();
    assert!(verify(&disk, GROUP, places[1].position, &mut |_| Ok(())).is_err());
}

#[test]
fn power_may_fail_at_any_step_of_taking_and_installing() {
    let (theirs, places) = source();
    let place = places[1];
    for changes in 0.. {
        let mut rig = started();
        rig.fill_to(2 * SEGMENT);
        rig.keep();
        rig.sync_all();
        let own = rig.tail();
        rig.crash_process();
        rig.disk.stop_after(changes);
        let all = || -> io::Result<()> {
            let (taken, _) = transfer(&theirs.disk, &rig.disk, u64::MAX)?;
            assert_eq!(taken, Taken::Whole(place.position));
            adopt(&rig.disk, SEGMENT, place.position)?;
            install(&rig.disk, &SETTINGS, CutEpoch(0)).map(drop)
        };
        let done = all().is_ok();
        rig.power_loss(changes * 13 + 3);
        // Now or before, it was decided; or it never was.
        let decided =
            rig.disk.list().unwrap().iter().any(|name| *name == decided_name(place.position));
        let installed = rig.disk.list().unwrap().contains(&snapshot_name(place.position));
        if decided || installed {
            rig.ends.clear();
            rig.ends.insert(place.position, place);
            rig.reported = place.position;
            start_at(&mut rig, place);
            assert_eq!(rig.tail(), place, "after {changes} changes");
        } else {
            assert!(!start_at(&mut rig, place));
            assert_eq!(rig.tail(), own, "after {changes} changes");
            let (taken, _) = transfer(&theirs.disk, &rig.disk, u64::MAX).unwrap();
            assert_eq!(taken, Taken::Whole(place.position));
            rig.crash_process();
            adopt(&rig.disk, SEGMENT, place.position).unwrap();
            start_at(&mut rig, place);
            assert_eq!(rig.tail(), place);
        }
        verify(&rig.disk, GROUP, place.position, &mut |_| Ok(())).unwrap();
        if done {
            return;
        }
    }
}

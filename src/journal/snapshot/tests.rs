use super::*;
use crate::journal::memory_disk::MemoryDisk;

const GROUP: GroupId = GroupId(0xFEED);

fn before() -> Predecessor {
    Predecessor { position: Position(96), sequence: Sequence(3), term: Term(2), chain: Chain(77) }
}

fn stamp() -> Stamp {
    Stamp {
        group: GROUP,
        generation: Generation { counter: 1, random: 9 },
        before: before(),
        time: Timestamp(11),
        state_hash: 0xABCD,
        service: "echo".to_owned(),
        service_version: 4,
        state_bytes: 0,
        blocks_crc: 0,
    }
}

fn state(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn write(disk: &MemoryDisk, bytes: &[u8]) -> io::Result<Stamp> {
    let mut pace = |_| Ok(());
    let mut writer = SnapshotWriter::create(disk, before(), &mut pace)?;
    bytes.chunks(1000).try_for_each(|piece| writer.write_all(piece))?;
    writer.finish(stamp())
}

fn read(disk: &MemoryDisk) -> Result<(Stamp, Vec<u8>), SnapshotError> {
    let mut reader = SnapshotReader::open(disk, GROUP, before().position)?;
    let (stamp, mut bytes) = (reader.stamp().clone(), Vec::new());
    reader.read_to_end(&mut bytes).map_err(SnapshotError::State)?;
    reader.finish().map_err(SnapshotError::State)?;
    Ok((stamp, bytes))
}

#[test]
fn states_of_every_size_round_trip() {
    for bytes in [0, 1, BLOCK_STATE_BYTES - 1, BLOCK_STATE_BYTES, 3 * BLOCK_STATE_BYTES + 5] {
        let disk = MemoryDisk::new();
        let written = write(&disk, &state(bytes)).unwrap();
        assert_eq!(written.state_bytes, bytes as u64);
        assert_eq!(read(&disk).unwrap(), (written, state(bytes)));
        assert_eq!(snapshots(&disk).unwrap(), [Position(96)]);
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let disk = MemoryDisk::new();
    write(&disk, &state(BLOCK_STATE_BYTES + 100)).unwrap();
    let name = snapshot_name(before().position);
    let length = disk.bytes(&name).unwrap().len();
    let stamp = (0..STAMP_BYTES).chain([STAMP_BYTES, 2000, PAGE_BYTES - 1]);
    let fronts = [PAGE_BYTES, PAGE_BYTES + SNAPSHOT_BLOCK_BYTES].map(|at| at..at + 12);
    let ends = [PAGE_BYTES + SNAPSHOT_BLOCK_BYTES - 3, length - 3].map(|at| at..at + 3);
    for at in stamp.chain(fronts.into_iter().flatten()).chain(ends.into_iter().flatten()) {
        disk.rot(&name, at as u64, |bytes| bytes[0] ^= 0x10);
        assert!(read(&disk).is_err(), "byte {at}");
        disk.rot(&name, at as u64, |bytes| bytes[0] ^= 0x10);
    }
    read(&disk).unwrap();
}

#[test]
fn a_file_that_is_cut_anywhere_is_no_snapshot() {
    let disk = MemoryDisk::new();
    write(&disk, &state(2 * BLOCK_STATE_BYTES)).unwrap();
    let name = snapshot_name(before().position);
    let whole = disk.bytes(&name).unwrap();
    for length in [0, 7, STAMP_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 5, whole.len() - 1] {
        let disk = MemoryDisk::new();
        disk.put(&name, &whole[..length]);
        let error = read(&disk).unwrap_err().to_string();
        assert!(!error.is_empty(), "{length}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let disk = MemoryDisk::new();
    write(&disk, b"state").unwrap();
    let name = snapshot_name(before().position);
    let open = |group, position| SnapshotReader::open(&disk, group, position).unwrap_err();
    let other = GroupId(1);
    assert!(matches!(open(other, Position(96)), SnapshotError::Group { found: GROUP, .. }));
    disk.put(&snapshot_name(Position(128)), &disk.bytes(&name).unwrap());
    let renamed = open(GROUP, Position(128));
    assert!(matches!(renamed, SnapshotError::Position { found: Position(96), .. }));
    disk.rot(&name, 8, |bytes| bytes[0] = 9);
    assert!(matches!(open(GROUP, Position(96)), SnapshotError::Version { found: 9 }));
    disk.rot(&name, 0, |bytes| bytes[0] = b'X');
    assert!(matches!(open(GROUP, Position(96)), SnapshotError::Foreign { .. }));
    assert!(matches!(open(GROUP, Position(32)), SnapshotError::Host(_)));
}

#[test]
fn a_power_loss_anywhere_leaves_the_whole_of_it_or_nothing() {
    let bytes = state(SYNC_BYTES as usize + BLOCK_STATE_BYTES + 9);
    for changes in 0.. {
        let disk = MemoryDisk::new();
        disk.stop_after(changes);
        let written = write(&disk, &bytes).is_ok();
        disk.crash(changes);
        let there = snapshots(&disk).unwrap();
        if written || !there.is_empty() {
            assert_eq!(read(&disk).unwrap().1, bytes, "after {changes} changes");
        }
        remove_unfinished(&disk).unwrap();
        assert_eq!(disk.list().unwrap().len(), there.len(), "nothing else is left");
        if written {
            return;
        }
    }
}

#[test]
fn the_pace_may_end_it() {
    let disk = MemoryDisk::new();
    let mut left = 2;
    let mut pace = |_| {
        left -= 1;
        if left == 0 { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
    };
    let mut writer = SnapshotWriter::create(&disk, before(), &mut pace).unwrap();
    let ended = writer.write_all(&state(4 * BLOCK_STATE_BYTES));
    assert!(ended.is_err());
    assert_eq!(snapshots(&disk).unwrap(), []);
}

#[test]
fn what_is_set_aside_keeps_its_bytes_and_never_covers_another() {
    let disk = MemoryDisk::new();
    for bytes in [b"one".as_slice(), b"two"] {
        write(&disk, bytes).unwrap();
        set_aside(&disk, before().position).unwrap();
    }
    assert_eq!(snapshots(&disk).unwrap(), []);
    let bare = &snapshot_name(before().position)[SNAPSHOT_FOLDER.len()..];
    let mut kept = [format!("quarantine/{bare}"), format!("quarantine/1-{bare}")];
    kept.sort();
    assert_eq!(disk.list().unwrap(), kept);
}

#[test]
fn what_the_host_could_not_read_is_not_set_aside() {
    let disk = MemoryDisk::new();
    write(&disk, b"one").unwrap();
    let name = snapshot_name(before().position);
    disk.fail_reads(&name, 0..1 << 20);
    let error = verify(&disk, GROUP, before().position, &mut |_| Ok(())).unwrap_err();
    assert_eq!(set_aside_for(&disk, before().position, &error), None, "{error}");
    assert_eq!(disk.list().unwrap(), [name]);
    let damaged = SnapshotError::State(io::Error::from(ErrorKind::InvalidData));
    assert!(set_aside_for(&disk, before().position, &damaged).is_some());
}

//! Backups of a node that really wrote, with its segments leaving meanwhile, cut short anywhere, damaged anywhere, restored.

use std::cell::Cell;
use std::io::Write as _;

use super::*;
use crate::journal::memory::{Disk, parse_segment_name, segment_name};
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::node_state::{BootId, NodeStateStore};
use crate::journal::recovery::{Boot, Recovered, RecoveryError, RecoverySettings, recover};
use crate::journal::rig::{GENERATION, GROUP, Rig, SEGMENT};
use crate::journal::snapshot::{SnapshotWriter, Stamp, snapshot_name, verify};
use crate::journal::{HeapHotTier, HeapMemory, HeapView};
use crate::types::{Incarnation, NodeId, Timestamp};

const NODE: NodeId = NodeId(3);
const NEW_GROUP: GroupId = GroupId(0xBEEF);

/// A rig with a log of some segments, all of it on the disk and committed, and snapshots of it.
fn source(segments: u64, snapshots: &[u64]) -> Rig {
    let mut rig = Rig::started();
    rig.fill_to(segments * SEGMENT + 5000);
    rig.sync_all();
    for &at in snapshots {
        let (_, &before) = rig.ends.range(Position(at)..).next().unwrap();
        write_snapshot(&rig.disk, before);
    }
    rig
}

fn write_snapshot(disk: &MemoryDisk, before: Predecessor) {
    let mut pace = |_| Ok(());
    let mut writer = SnapshotWriter::create(disk, before, &mut pace).unwrap();
    writer.write_all(&vec![before.sequence.0 as u8; 100_000]).unwrap();
    let stamp = Stamp {
        group: GROUP,
        generation: GENERATION,
        before,
        time: Timestamp(7),
        state_hash: before.sequence.0,
        service: "echo".to_owned(),
        service_version: 1,
        state_bytes: 0,
        blocks_crc: 0,
    };
    writer.finish(stamp).unwrap();
}

fn taking(limit: Position) -> Taking {
    Taking { group: GROUP, segment_bytes: SEGMENT, node: NODE, limit, taken: Timestamp(11) }
}

fn take_all(rig: &mut Rig) -> (MemoryDisk, Manifest) {
    let (to, limit) = (MemoryDisk::new(), rig.tail().position);
    let taken = take(&rig.disk, &to, &taking(limit), &mut || None, &mut |_| Ok(())).unwrap();
    assert_eq!(taken.left_out, []);
    (to, taken.manifest)
}

fn checked(disk: &MemoryDisk) -> Checked {
    check(disk, &mut |_| Ok(())).unwrap()
}

fn restoring(group: GroupId) -> Restoring {
    Restoring { group, segment_bytes: SEGMENT, as_new_group: group != GROUP }
}

fn restored(from: &MemoryDisk, group: GroupId) -> (MemoryDisk, Restored) {
    let to = MemoryDisk::new();
    let restored = restore(from, &to, &restoring(group), &mut |_| Ok(())).unwrap();
    (to, restored)
}

/// A start of a node of `group` in a directory, with a hot tier that holds nothing.
fn start(
    disk: &MemoryDisk,
    group: GroupId,
) -> Result<Recovered<HeapMemory, HeapView>, RecoveryError> {
    let mut settings = RecoverySettings::new(group, NODE, SEGMENT);
    settings.known_names = vec!["snapshots/".to_owned()];
    settings.hot_bytes = SEGMENT;
    let store = NodeStateStore::open(disk, group, NODE).map_err(RecoveryError::NodeState)?;
    let boot = Boot { boot_id: BootId([9; 16]), first_incarnation: Incarnation(5000) };
    recover(disk, &mut HeapHotTier::new(SEGMENT, 1), &settings, &store, boot)
}

/// The log's entries: sequence, kind and payload.
fn entries(disk: &MemoryDisk, manifest: &Manifest, group: GroupId) -> Vec<(u64, u8, Vec<u8>)> {
    let mut entries = Vec::new();
    for base in manifest.segments() {
        let file = disk.open(&segment_name(base)).unwrap();
        let mut page = [0; 4096];
        file.read_at(&mut page, 0).unwrap();
        let header = SegmentHeader::decode_segment(&page, group, SEGMENT, base).unwrap();
        let followed = follow(&file, &header, manifest.end.position, |found, _| {
            let header = &found.header;
            entries.push((header.sequence().0, header.kind, found.payload.to_vec()));
            Ok(())
        });
        followed.unwrap();
    }
    entries
}

#[test]
fn a_backup_begins_with_the_older_of_two_snapshots_and_a_node_starts_with_it_as_one_without_state()
{
    let snapshots = [SEGMENT / 2, 2 * SEGMENT + 100, 3 * SEGMENT + 100];
    let mut rig = source(5, &snapshots);
    let tail = rig.tail();
    let (backup, manifest) = take_all(&mut rig);
    assert_eq!((manifest.first, manifest.end), (Position(2 * SEGMENT), tail));
    assert_eq!((manifest.group, manifest.node, manifest.generation), (GROUP, NODE, GENERATION));
    assert_eq!((manifest.segments().count(), manifest.snapshots().count()), (4, 2));
    let found = checked(&backup);
    assert_eq!((found.flaws, found.strays), (vec![], vec![]));
    assert_eq!(found.manifest, manifest);
    let (disk, done) = restored(&backup, GROUP);
    assert_eq!(done, Restored { manifest, end: tail });
    let changes = disk.changes();
    let node = start(&disk, GROUP).unwrap();
    assert_eq!((node.tail, node.known_commit.position()), (tail, tail.position));
    assert!(node.stateless && node.state.provisional, "its votes are not in a backup");
    assert_eq!(node.state.vote, None);
    assert!(node.report.rewritten.is_empty() && node.report.cut.is_none(), "{}", node.report);
    assert!(disk.changes() > changes, "it has a node state of its own now");
}

#[test]
fn without_two_snapshots_it_is_the_whole_log_and_nothing_above_the_limit_is_in_it() {
    for snapshots in [&[][..], &[SEGMENT + 700]] {
        let mut rig = source(3, snapshots);
        let (_, &end) = rig.ends.range(Position(2 * SEGMENT + 3000)..).next().unwrap();
        // In the middle of the entry behind it: that one is not part of it.
        for limit in [end.position, end.position.plus(16)] {
            let to = MemoryDisk::new();
            let taken =
                take(&rig.disk, &to, &taking(limit), &mut || None, &mut |_| Ok(())).unwrap();
            assert_eq!((taken.manifest.first, taken.manifest.end), (Position(0), end));
            assert_eq!(taken.manifest.snapshots().count(), snapshots.len());
            assert_eq!(checked(&to).flaws, []);
            let (disk, _) = restored(&to, GROUP);
            let node = start(&disk, GROUP).unwrap();
            assert_eq!(node.tail, end);
            assert!(node.report.cut.is_none(), "{}", node.report);
        }
        drop(rig.node.take());
    }
    let nothing = take(
        &Rig::started().disk,
        &MemoryDisk::new(),
        &taking(Position(0)),
        &mut || None,
        &mut |_| Ok(()),
    );
    assert!(matches!(nothing, Err(BackupError::Nothing)));
}

#[test]
fn a_log_that_ends_with_a_full_segment_is_backed_up_and_goes_on() {
    let mut rig = source(2, &[]);
    let end = rig.ends[&Position(2 * SEGMENT)];
    let to = MemoryDisk::new();
    let taken = take(&rig.disk, &to, &taking(end.position), &mut || None, &mut |_| Ok(())).unwrap();
    assert_eq!((taken.manifest.end, taken.manifest.segments().count()), (end, 2));
    let (disk, _) = restored(&to, GROUP);
    assert_eq!(start(&disk, GROUP).unwrap().tail, end);
    drop(rig.node.take());
}

#[test]
fn what_leaves_while_it_is_copied_is_held() {
    let snapshots = [SEGMENT + 100, 2 * SEGMENT + 100];
    let mut begun_anew = 0;
    for call in 1..60 {
        let mut rig = source(6, &snapshots);
        let (to, limit) = (MemoryDisk::new(), rig.tail().position);
        let newer = [4 * SEGMENT + 100, 5 * SEGMENT + 100];
        let newer = newer.map(|at| *rig.ends.range(Position(at)..).next().unwrap().1);
        let disk = rig.disk.clone();
        let calls = Cell::new(0);
        // With one of the pieces retention does its work: newer snapshots, older ones gone, and the segments before them.
        let mut pace = |_| {
            calls.set(calls.get() + 1);
            if calls.get() == call {
                for before in newer {
                    write_snapshot(&disk, before);
                }
                for name in disk.list()? {
                    let leaves = name < segment_name(Position(4 * SEGMENT))
                        || (name.starts_with("snapshots/")
                            && name < snapshot_name(Position(4 * SEGMENT)));
                    if leaves && name.contains(".q") {
                        disk.remove(&name)?;
                    }
                }
            }
            Ok(())
        };
        let taken = take(&rig.disk, &to, &taking(limit), &mut || None, &mut pace).unwrap();
        begun_anew += u32::from(taken.manifest.first == Position(4 * SEGMENT));
        assert_eq!(checked(&to).flaws, [], "at piece {call}");
        assert_eq!(taken.manifest.end, rig.tail());
        let (disk, _) = restored(&to, GROUP);
        assert_eq!(start(&disk, GROUP).unwrap().tail, rig.tail(), "at piece {call}");
        let over = calls.get() < call;
        if over {
            break;
        }
    }
    assert_eq!(begun_anew, 0, "all of it is held before any of it is copied");
}

#[test]
fn a_log_that_leaves_faster_than_it_is_copied_is_said_to_do_so() {
    let mut rig = source(60, &[]);
    write_snapshot(&rig.disk, *rig.ends.range(Position(59 * SEGMENT)..).next().unwrap().1);
    let limit = rig.tail().position;
    let disk = rig.disk.clone();
    // A disk whose lowest segment leaves whenever somebody has looked.
    let from = Leaving { disk, lists: Cell::new(0) };
    let taken = take(&from, &MemoryDisk::new(), &taking(limit), &mut || None, &mut |_| Ok(()));
    assert!(matches!(taken, Err(BackupError::Left { .. })), "{taken:?}");
}

#[test]
fn snapshots_that_were_all_replaced_since_the_limit_was_read_are_taken_with_a_newer_limit() {
    let rig = source(6, &[4 * SEGMENT + 100, 5 * SEGMENT + 100]);
    for base in 0..4 {
        rig.disk.remove(&segment_name(Position(base * SEGMENT))).unwrap();
    }
    let end = *rig.ends.last_key_value().unwrap().0;
    let early = taking(Position(4 * SEGMENT + 50));
    let taken = take(&rig.disk, &MemoryDisk::new(), &early, &mut || Some(end), &mut |_| Ok(()));
    let manifest = taken.unwrap().manifest;
    assert_eq!((manifest.end.position, manifest.snapshots().count()), (end, 2));
    let taken = take(&rig.disk, &MemoryDisk::new(), &early, &mut || None, &mut |_| Ok(()));
    assert!(matches!(taken, Err(BackupError::Left { .. })), "{taken:?}");
}

struct Leaving {
    disk: MemoryDisk,
    lists: Cell<u32>,
}

impl Disk for Leaving {
    type File = <MemoryDisk as Disk>::File;
    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.disk.open(name)
    }
    fn create(&self, name: &str) -> io::Result<Self::File> {
        self.disk.create(name)
    }
    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.disk.list()?;
        // Each attempt lists twice: for the segments, and then for the snapshots.
        self.lists.set(self.lists.get() + 1);
        let lowest = names.iter().find(|name| parse_segment_name(name).is_some());
        if let Some(lowest) = lowest.filter(|_| self.lists.get().is_multiple_of(2)) {
            self.disk.remove(lowest)?;
        }
        Ok(names)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
}

#[test]
fn a_damaged_snapshot_is_left_out_and_damaged_log_is_refused_by_name() {
    let snapshots = [SEGMENT / 2, 2 * SEGMENT + 100, 3 * SEGMENT + 100];
    let mut rig = source(5, &snapshots);
    let newest = crate::journal::snapshot::snapshots(&rig.disk).unwrap()[2];
    rig.disk.rot(&snapshot_name(newest), 70_000, |bytes| bytes[0] ^= 1);
    let limit = rig.tail().position;
    let to = MemoryDisk::new();
    let taken = take(&rig.disk, &to, &taking(limit), &mut || None, &mut |_| Ok(())).unwrap();
    assert_eq!(taken.left_out.len(), 1);
    assert_eq!(taken.left_out[0].file, snapshot_name(newest));
    assert_eq!((taken.manifest.first, taken.manifest.snapshots().count()), (Position(0), 2));
    assert_eq!(checked(&to).flaws, []);
    rig.disk.rot(&segment_name(Position(SEGMENT)), 9000, |bytes| bytes[0] ^= 1);
    let to = MemoryDisk::new();
    let refused = take(&rig.disk, &to, &taking(limit), &mut || None, &mut |_| Ok(())).unwrap_err();
    assert!(refused.to_string().contains(&segment_name(Position(SEGMENT))), "{refused}");
    assert!(matches!(check(&to, &mut |_| Ok(())), Err(ManifestError::Absent)));
}

#[test]
fn every_damage_is_named_with_its_file_and_nothing_damaged_is_restored() {
    let mut rig = source(4, &[SEGMENT + 100, 2 * SEGMENT + 100]);
    let (backup, manifest) = take_all(&mut rig);
    let bits = [0, 9, 20, 1030, 4100, 5000, 20_000];
    for file in &manifest.files {
        for at in bits.into_iter().chain([file.bytes - 1]).filter(|&at| at < file.bytes) {
            backup.rot(&file.name, at, |bytes| bytes[0] ^= 0x10);
            let flaws = checked(&backup).flaws;
            assert!(flaws.iter().any(|flaw| flaw.file == file.name), "{} at {at}", file.name);
            let to = MemoryDisk::new();
            for group in [GROUP, NEW_GROUP] {
                let refused = restore(&backup, &to, &restoring(group), &mut |_| Ok(()));
                assert!(matches!(refused, Err(BackupError::Damaged(_))), "{refused:?}");
            }
            assert_eq!(to.list().unwrap(), [""; 0], "nothing was written");
            backup.rot(&file.name, at, |bytes| bytes[0] ^= 0x10);
        }
    }
    // Two damages in two files are two names.
    let mut twice: Vec<_> = manifest.segments().take(2).map(segment_name).collect();
    let turn = || {
        for base in manifest.segments().take(2) {
            backup.rot(&segment_name(base), 6000, |bytes| bytes[0] ^= 1);
        }
    };
    turn();
    let mut found: Vec<_> = checked(&backup).flaws.into_iter().map(|flaw| flaw.file).collect();
    found.dedup();
    found.sort();
    found.dedup();
    twice.sort();
    assert_eq!(found, twice);
    turn();
    for file in &manifest.files {
        let bytes = backup.bytes(&file.name).unwrap();
        backup.remove(&file.name).unwrap();
        assert_eq!(checked(&backup).flaws[0].file, file.name);
        backup.put(&file.name, &bytes[..bytes.len() - 1]);
        assert_eq!(checked(&backup).flaws[0].file, file.name);
        backup.put(&file.name, &bytes);
    }
    backup.put("notes.txt", b"");
    let found = checked(&backup);
    assert_eq!((found.flaws, found.strays), (vec![], vec!["notes.txt".to_owned()]));
}

#[test]
fn a_manifest_that_is_changed_or_cut_anywhere_is_none() {
    let mut rig = source(2, &[]);
    let (backup, manifest) = take_all(&mut rig);
    let text = backup.bytes(MANIFEST_NAME).unwrap();
    assert_eq!(Manifest::decode(&text).unwrap(), manifest);
    for length in 0..text.len() {
        assert!(Manifest::decode(&text[..length]).is_err(), "{length} bytes");
    }
    for at in 0..text.len() {
        let mut text = text.clone();
        text[at] ^= 1;
        assert!(Manifest::decode(&text).is_err(), "byte {at}");
    }
    for found in ["0", "2", "11"] {
        let other = String::from_utf8(text.clone()).unwrap();
        let other = other.replacen("quorate backup 1", &format!("quorate backup {found}"), 1);
        let said = Manifest::decode(other.as_bytes()).unwrap_err().to_string();
        let expected = format!("backup.manifest: backup format {found}, this program reads 1");
        assert_eq!(said, expected);
    }
    let said = Manifest::decode(b"something else\n").unwrap_err();
    assert!(matches!(said, ManifestError::Foreign));
    // What the checksum covers may still be impossible.
    let mut other = manifest.clone();
    other.end.position = Position(9 * SEGMENT);
    assert!(Manifest::decode(other.encode().as_bytes()).is_err());
    let mut other = manifest.clone();
    other.files.remove(0);
    assert!(Manifest::decode(other.encode().as_bytes()).is_err());
    // Numbers at their end: sizes that nobody can hold, and a segment behind which there is no position.
    let mut other = manifest.clone();
    other.files.iter_mut().for_each(|file| file.bytes = u64::MAX);
    assert_eq!(Manifest::decode(other.encode().as_bytes()).unwrap().bytes(), u64::MAX);
    let mut other = manifest;
    other.first = Position(u64::MAX - SEGMENT + 1);
    other.end.position = Position(u64::MAX);
    other.files.truncate(1);
    other.files[0].name = segment_name(other.first);
    assert!(Manifest::decode(other.encode().as_bytes()).is_err());
}

#[test]
fn a_new_group_has_the_same_entries_and_nothing_that_fits_the_old_one() {
    for snapshots in [&[][..], &[2 * SEGMENT + 100, 3 * SEGMENT + 100]] {
        let mut rig = source(4, snapshots);
        let (backup, manifest) = take_all(&mut rig);
        let (disk, done) = restored(&backup, NEW_GROUP);
        let (old, new) = (manifest.end, done.end);
        assert_eq!((new.position, new.sequence, new.term), (old.position, old.sequence, old.term));
        assert_ne!(new.chain, old.chain);
        let was = entries(&backup, &manifest, GROUP);
        assert!(was.len() > 100, "{}", was.len());
        assert!(was == entries(&disk, &manifest, NEW_GROUP));
        for position in manifest.snapshots() {
            let old = verify(&backup, GROUP, position, &mut |_| Ok(())).unwrap();
            let new = verify(&disk, NEW_GROUP, position, &mut |_| Ok(())).unwrap();
            assert_eq!((old.state_hash, old.state_bytes), (new.state_hash, new.state_bytes));
            assert_ne!(old.before.chain, new.before.chain);
        }
        let refused = start(&disk, GROUP).map(|node| node.tail).unwrap_err();
        assert!(refused.to_string().contains("of group 000000000000beef"), "{refused}");
        let node = start(&disk, NEW_GROUP).unwrap();
        assert_eq!((node.tail, node.stateless), (new, true));
        assert!(node.report.rewritten.is_empty(), "{}", node.report);
        // Its header page lost, a segment of the old group does not pass for one of the new: the frames chain otherwise.
        let name = segment_name(manifest.segments().nth(1).unwrap());
        let mut foreign = backup.bytes(&name).unwrap();
        foreign[..4096].fill(0);
        disk.put(&name, &foreign);
        let refused = start(&disk, NEW_GROUP).map(|node| node.tail);
        assert!(matches!(refused, Err(RecoveryError::Damage { .. })), "{refused:?}");
    }
}

#[test]
fn the_wrong_group_and_the_wrong_place_are_refused_and_nothing_is_written() {
    let mut rig = source(2, &[]);
    let (backup, _) = take_all(&mut rig);
    let to = MemoryDisk::new();
    let refused =
        |restoring: Restoring| restore(&backup, &to, &restoring, &mut |_| Ok(())).unwrap_err();
    let plain = restoring(GROUP);
    let other = refused(Restoring { group: NEW_GROUP, ..plain });
    assert!(matches!(other, BackupError::Group { found: GROUP, expected: NEW_GROUP }));
    let same = refused(Restoring { as_new_group: true, ..plain });
    assert!(matches!(same, BackupError::SameGroup { group: GROUP }));
    let bytes = refused(Restoring { segment_bytes: 2 * SEGMENT, ..plain });
    assert!(matches!(bytes, BackupError::SegmentBytes { .. }));
    assert_eq!(to.list().unwrap(), [""; 0]);
    to.put("lock", b"1");
    to.put("events.jsonl", b"{}");
    let full = restore(&backup, &to, &plain, &mut |_| Ok(())).unwrap_err();
    assert!(full.to_string().contains("events.jsonl"), "{full}");
    assert_eq!(to.list().unwrap(), ["events.jsonl", "lock"]);
}

#[test]
fn a_power_loss_anywhere_leaves_no_half_backup_and_no_half_log() {
    let mut rig = source(2, &[100, SEGMENT + 100]);
    let limit = rig.tail().position;
    let mut whole = None;
    for changes in 0.. {
        let to = MemoryDisk::new();
        to.stop_after(changes);
        let done = take(&rig.disk, &to, &taking(limit), &mut || None, &mut |_| Ok(())).is_ok();
        to.crash(changes);
        match check(&to, &mut |_| Ok(())) {
            Ok(found) => assert_eq!((found.flaws, found.strays), (vec![], vec![])),
            Err(_) => assert!(!done, "after {changes} changes"),
        }
        if done {
            whole = Some(to);
            break;
        }
    }
    let backup = whole.unwrap();
    for group in [GROUP, NEW_GROUP] {
        for changes in 0.. {
            let to = MemoryDisk::new();
            to.stop_after(changes);
            let done = restore(&backup, &to, &restoring(group), &mut |_| Ok(())).is_ok();
            to.crash(changes);
            to.stop_after(u64::MAX);
            let empty = to.list().unwrap().is_empty();
            match start(&to, group).map(|node| node.tail) {
                Ok(tail) => assert!(empty || tail.position == limit, "after {changes}: {tail:?}"),
                Err(error) => {
                    assert!(!done && error.to_string().contains("run `quorate restore` again"));
                    let again = restore(&backup, &to, &restoring(group), &mut |_| Ok(()));
                    assert_eq!(again.unwrap().end.position, limit);
                    assert_eq!(start(&to, group).unwrap().tail.position, limit);
                }
            }
            if done {
                break;
            }
        }
    }
}

//! One bit changes in one file, of every kind that a data directory has: the node starts with all of its log, or it refuses and
//! names the file. What is lost in one place only is had back from others; who says so is named in `docs/DURABILITY.md`.

use std::collections::BTreeMap;
use std::io::Write;

use super::*;
use crate::journal::incoming::INCOMING_FOLDER;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::rig::{GENERATION, GROUP, Rig, SEGMENT};
use crate::journal::snapshot::{
    SNAPSHOT_FOLDER, SnapshotWriter, Stamp, parse_snapshot_name, snapshot_name, verify,
};
use crate::types::Timestamp;

fn snapshot(disk: &MemoryDisk, before: Predecessor) {
    let mut pace = |_| Ok(());
    let mut writer = SnapshotWriter::create(disk, before, &mut pace).unwrap();
    writer.write_all(&vec![7; 30_000]).unwrap();
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

/// A machine without power, whose directory has everything that there can be.
fn full() -> Rig {
    let mut rig = Rig::started();
    rig.settings.known_names.extend([SNAPSHOT_FOLDER.to_owned(), INCOMING_FOLDER.to_owned()]);
    rig.fill_to(2 * SEGMENT + 3000);
    rig.keep();
    rig.sync_all();
    let place = *rig.ends.range(..=Position(SEGMENT + 5000)).next_back().unwrap().1;
    snapshot(&rig.disk, place);
    let at = *rig.ends.range(..=Position(2 * SEGMENT + 1000)).next_back().unwrap().1;
    rig.ask_cut(at);
    rig.sync_all();
    rig.append_term_start(2);
    rig.fill_to(2 * SEGMENT + 6000);
    rig.keep();
    rig.sync_all();
    let taken = rig.disk.bytes(&snapshot_name(place.position)).unwrap();
    rig.disk.put(&format!("{INCOMING_FOLDER}0000000000009000.qsnap.part"), &taken[..9000]);
    rig.power_loss(1);
    rig
}

/// What a file is, and where in it.
fn kind(name: &str, offset: u64) -> &'static str {
    if name == "node.state" {
        return "node state";
    }
    let page = offset < 4096;
    match name.split_once('/').map(|(folder, _)| folder) {
        Some("quarantine") => "quarantine",
        Some("snapshots") => "snapshot",
        Some("incoming") => "incoming",
        _ if page && (1024..2048).contains(&offset) => "seals",
        _ if page => "header page",
        _ => "log",
    }
}

/// What came of it, and how often.
#[derive(Default, Debug)]
struct Came {
    started: u32,
    refused: u32,
}

#[test]
fn r13_rot_in_every_kind_of_file_is_harmless_or_refused_by_name() {
    let mut came: BTreeMap<&str, Came> = BTreeMap::new();
    let names = full().disk.list().unwrap();
    for name in names {
        let length = full().disk.bytes(&name).unwrap().len() as u64;
        let offsets = [9, 70, 1030, 1540, 4097, 4110, 4096 + 40, 4096 + 900, length / 2];
        for offset in offsets.into_iter().filter(|&offset| offset < length) {
            let mut rig = full();
            rig.disk.rot(&name, offset, |bytes| bytes[0] ^= 1);
            let damaged = rig.disk.bytes(&name);
            let all = rig.reported;
            let context = format!("{name} at {offset}");
            let of = came.entry(kind(&name, offset)).or_default();
            match rig.start() {
                Ok(()) => {
                    of.started += 1;
                    // A bit where nothing was written yet is torn, and kept aside.
                    assert!(rig.tail().position >= all, "{context}");
                    assert!(!rig.node().report.provisional, "{context}");
                }
                Err(error) => {
                    of.refused += 1;
                    let told = error.to_string();
                    assert!(told.contains(&name), "{context}: {told}");
                    assert_eq!(rig.disk.bytes(&name), damaged, "{context}: it is left as it is");
                }
            }
            if let Some(position) = parse_snapshot_name(&name) {
                let used = verify(&rig.disk, GROUP, position, &mut |_| Ok(()));
                assert!(used.is_err(), "{context}: no start takes it for good");
            }
        }
    }
    let kinds: Vec<_> = came.keys().copied().collect();
    let all = ["header page", "incoming", "log", "node state", "quarantine", "seals", "snapshot"];
    assert_eq!(kinds, all);
    for (kind, of) in &came {
        assert!(of.started > 0, "{kind}: {of:?}");
        // Of the log there is one copy here: that the others have it, too, is theirs to say. And what says that it is of
        // another version is left alone.
        let may = matches!(*kind, "log" | "header page");
        assert_eq!(of.refused > 0, may, "{kind}: {of:?}");
    }
}

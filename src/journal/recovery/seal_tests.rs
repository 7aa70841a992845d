//! Both seals of a file rot at once: what they said cannot be had back, and nothing that may have been durable is cut for it.

use super::tests::{damage, flip, name, newest_seal, written};
use super::*;
use crate::journal::rig::{Rig, SEGMENT};
use crate::journal::segment_header::SEAL_OFFSETS;

/// A burst over both seals, as long as it must be for that.
fn rot_seals(rig: &Rig, base: u64) {
    let end_of_first = (SEAL_OFFSETS[1] - 8) as u64;
    rig.disk.rot(&name(base), end_of_first, |bytes| bytes[..16].iter_mut().for_each(|b| *b ^= 4));
}

/// A node whose log was cut, and has grown since: all of it is durable and certain.
fn cut_and_grown() -> Rig {
    let mut rig = written(5000);
    let at = *rig.ends.range(..Position(3000)).next_back().unwrap().1;
    rig.ask_cut(at);
    rig.sync_all();
    rig.append_term_start(2);
    rig.fill_to(9000);
    rig.sync_all();
    rig
}

/// Seed 9002036 of the simulator, when its rot crossed sectors: the record of a cut was taken for one that was not finished.
#[test]
fn r13_what_was_durable_after_a_cut_is_not_cut_when_both_seals_rot() {
    let mut rig = cut_and_grown();
    rig.power_loss(1);
    rot_seals(&rig, 0);
    let before = rig.disk.list().unwrap();
    let ranges = damage(&mut rig);
    assert_eq!((ranges.len(), ranges[0].finding), (1, Finding::SealsLost), "{ranges:?}");
    assert_eq!((&*ranges[0].file, ranges[0].offset), (&*name(0), SEAL_OFFSETS[0] as u64));
    assert_eq!(rig.disk.list().unwrap(), before, "nothing was touched");
    // One seal of the two is enough.
    let mut rig = cut_and_grown();
    let tail = rig.tail();
    let newest = newest_seal(&rig);
    rig.power_loss(1);
    rig.disk.rot(&name(0), newest.offset() as u64 + 9, |bytes| bytes[0] ^= 1);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
}

#[test]
fn a_burst_over_both_seals_and_the_frames_behind_them_is_damage_and_not_a_torn_end() {
    let mut rig = written(SEGMENT + 2000);
    rig.power_loss(1);
    rot_seals(&rig, SEGMENT);
    flip(&rig, SEGMENT, 1000);
    let ranges = damage(&mut rig);
    assert!(ranges.iter().any(|range| range.finding == Finding::SealsLost), "{ranges:?}");
    assert!(ranges.iter().any(|range| range.finding == Finding::BadFrame), "{ranges:?}");
}

#[test]
fn both_seals_of_a_file_whose_frames_are_good_are_written_anew() {
    for base in [0, SEGMENT] {
        let mut rig = written(SEGMENT + 2000);
        let tail = rig.tail();
        rig.power_loss(1);
        rot_seals(&rig, base);
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail);
        let report = rig.node().report.clone();
        assert!(report.rewritten.contains(&Position(base)), "{report}");
        rig.power_loss(2);
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail);
    }
}

/// Files above a cut are blanked, seals and all: power that fails in the middle of that leaves two torn ones, and no damage.
#[test]
fn two_seals_torn_by_the_blanking_of_a_cut_are_no_damage() {
    for changes in 1..60 {
        for seed in 0..8 {
            let mut rig = written(SEGMENT + 5000);
            let at = *rig.ends.range(..Position(SEGMENT - 3000)).next_back().unwrap().1;
            rig.disk.stop_after(changes);
            rig.ask_cut(at);
            for _ in 0..20 {
                rig.step_sync();
            }
            rig.power_loss(seed);
            rig.start().unwrap();
            assert!(rig.tail().position >= at.position);
        }
    }
}

/// At the base of a segment the cut's seal is in the file before, and the one that is blanked may keep good frames.
#[test]
fn nor_are_they_where_the_cut_is_at_the_base_of_their_file() {
    for changes in 1..60 {
        for seed in 0..8 {
            let mut rig = written(SEGMENT + 5000);
            let at = *rig.ends.get(&Position(SEGMENT)).unwrap();
            rig.disk.stop_after(changes);
            rig.ask_cut(at);
            for _ in 0..20 {
                rig.step_sync();
            }
            rig.power_loss(seed);
            rig.start().unwrap();
            assert!(rig.tail().position >= at.position);
        }
    }
}

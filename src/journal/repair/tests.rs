use super::*;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::rig::{GROUP, Rig, SEGMENT};
use crate::journal::seal::Seal;
use proptest::prelude::*;

const PEER: NodeId = NodeId(2);
const LIAR: NodeId = NodeId(1);

fn name(base: u64) -> String {
    segment_name(Position(base))
}

fn written(position: u64) -> Rig {
    let mut rig = Rig::started();
    rig.fill_to(position);
    rig.sync_all();
    rig.power_loss(1);
    rig
}

/// The payloads of all files, as a peer has them.
fn good_log(rig: &Rig) -> Vec<u8> {
    (0..8)
        .filter_map(|n| rig.disk.bytes(&name(n * SEGMENT)))
        .flat_map(|file| file[4096..].to_vec())
        .collect()
}

/// Repairs with the help of a peer that has `log`; the bytes that it was asked for.
fn mend(
    disk: &MemoryDisk,
    base: u64,
    far: FarSide,
    log: &[u8],
) -> Result<(Mended, u64), RepairError> {
    let repair = Repair::new(disk, GROUP, SEGMENT, Position(base), far)?;
    drive(disk, repair, log).map(|(mut mended, asked)| (mended.remove(0), asked))
}

fn drive(
    disk: &MemoryDisk,
    mut repair: Repair,
    log: &[u8],
) -> Result<(Vec<Mended>, u64), RepairError> {
    let mut asked = 0;
    for _ in 0..1000 {
        match repair.step(disk)? {
            RepairStep::Going => {}
            RepairStep::Needs(from, to) => {
                assert!(from < to && to.since(from) <= LANE_PIECE_BYTES);
                asked += to.since(from);
                repair.patch(PEER, from, &log[from.0 as usize..to.0 as usize]);
            }
            RepairStep::Refused(node) => panic!("{node:?} is honest"),
            RepairStep::Whole => return Ok((repair.swap(disk).unwrap(), asked)),
        }
    }
    panic!("it ends");
}

/// Rot in every part of a file: afterwards it is the one that it was, but for what no checksum covers.
#[test]
fn k11_whatever_rots_in_a_file_is_had_back_from_a_peer() {
    type Injury = fn(&MemoryDisk);
    let injuries: &[(&str, Injury)] = &[
        ("header", |disk| disk.rot(&name(SEGMENT), 20, |b| b[0] ^= 1)),
        ("both seals", |disk| disk.rot(&name(SEGMENT), 1530, |b| b[..16].fill(7))),
        ("first frame", |disk| disk.rot(&name(SEGMENT), 4100, |b| b[0] ^= 1)),
        ("the whole page and the first frames", |disk| {
            disk.rot(&name(SEGMENT), 0, |b| b[..6000].fill(0xEE));
        }),
        ("middle", |disk| disk.rot(&name(SEGMENT), 40_000, |b| b[..100].fill(0))),
        ("two places", |disk| {
            disk.rot(&name(SEGMENT), 10_000, |b| b[0] ^= 1);
            disk.rot(&name(SEGMENT), 60_000, |b| b[0] ^= 1);
        }),
        ("last frame", |disk| disk.rot(&name(SEGMENT), 4096 + SEGMENT - 900, |b| b[..899].fill(3))),
        ("cut short", |disk| {
            let bytes = disk.bytes(&name(SEGMENT)).unwrap();
            disk.put(&name(SEGMENT), &bytes[..20_000]);
        }),
        ("gone", |disk| disk.remove(&name(SEGMENT)).unwrap()),
        ("unreadable", |disk| disk.fail_reads(&name(SEGMENT), 20_000..20_512)),
        ("all of it", |disk| disk.rot(&name(SEGMENT), 0, |b| b.fill(0x55))),
    ];
    for (what, injury) in injuries {
        let mut rig = written(2 * SEGMENT + 2000);
        let log = good_log(&rig);
        let good = rig.disk.bytes(&name(SEGMENT)).unwrap();
        injury(&rig.disk);
        let damaged = rig.disk.bytes(&name(SEGMENT));
        let (mended, asked) = mend(&rig.disk, SEGMENT, FarSide::NextFile, &log).unwrap();
        assert_eq!(mended.kept_at.is_some(), damaged.is_some(), "{what}");
        if let (Some(kept), Some(damaged)) = (&mended.kept_at, damaged) {
            let kept = rig.disk.bytes(kept).unwrap();
            assert!(kept == damaged || *what == "unreadable", "{what}: the damaged file is kept");
        }
        let now = rig.disk.bytes(&name(SEGMENT)).unwrap();
        assert!(now[4096..] == good[4096..], "{what}: every byte of the log");
        assert_eq!(
            SegmentHeader::decode(&now).unwrap().before,
            SegmentHeader::decode(&good).unwrap().before
        );
        assert!(!Seal::both_lost(&now, GROUP), "{what}");
        let page_only = matches!(*what, "header" | "both seals");
        assert_eq!(asked == 0, page_only, "{what}: no peer is asked for what this node has");
        rig.start().unwrap();
        assert!(rig.node().report.cut.is_none() && rig.tail().position.0 > 2 * SEGMENT, "{what}");
    }
}

#[test]
fn d17_a_file_before_which_all_is_removed_is_repaired_by_its_own_header() {
    let rig = written(2 * SEGMENT + 2000);
    let log = good_log(&rig);
    rig.disk.remove(&name(0)).unwrap();
    rig.disk.rot(&name(SEGMENT), 9000, |b| b[0] ^= 1);
    mend(&rig.disk, SEGMENT, FarSide::NextFile, &log).unwrap();
    rig.disk.rot(&name(SEGMENT), 20, |b| b[0] ^= 1);
    let refused = mend(&rig.disk, SEGMENT, FarSide::NextFile, &log);
    assert!(matches!(refused, Err(RepairError::NearSide)), "{refused:?}");
}

#[test]
fn a_file_that_ends_the_log_is_repaired_up_to_its_seal() {
    let mut rig = written(SEGMENT + 9000);
    let log = good_log(&rig);
    let certain = *rig.ends.range(..).next_back().unwrap().1;
    rig.disk.rot(&name(SEGMENT), 4096 + 5000, |b| b[0] ^= 1);
    assert!(rig.start().is_err());
    mend(&rig.disk, SEGMENT, FarSide::Seal(certain), &log).unwrap();
    rig.start().unwrap();
    assert_eq!(rig.tail(), certain);
}

/// Files of which each hides what the one before it must end with.
#[test]
fn g131_damaged_files_that_adjoin_are_repaired_as_one() {
    let end = 4 * SEGMENT + 2000;
    let limit = Position(end);
    for (rotten, from_scratch) in [(1..3, false), (1..4, true), (0..4, true)] {
        let mut rig = written(end);
        let log = good_log(&rig);
        let good: Vec<_> = (0..4).map(|n| rig.disk.bytes(&name(n * SEGMENT)).unwrap()).collect();
        for number in rotten.clone() {
            let name = name(number * SEGMENT);
            if from_scratch {
                rig.disk.remove(&name).unwrap();
            } else {
                rig.disk.rot(&name, 0, |bytes| bytes[..5000].fill(0xEE));
            }
        }
        let first = rotten.start * SEGMENT;
        let alone = mend(&rig.disk, first, FarSide::NextFile, &log);
        assert!(matches!(alone, Err(RepairError::FarSide)), "{alone:?}");
        let repair = || Repair::new(&rig.disk, GROUP, SEGMENT, Position(first), FarSide::NextFile);
        // One that may not be touched, for the log has not left it.
        let short = repair().unwrap().reaching(Position(rotten.end * SEGMENT), None);
        assert!(matches!(drive(&rig.disk, short, &log), Err(RepairError::FarSide)));
        let (mended, _) = drive(&rig.disk, repair().unwrap().reaching(limit, None), &log).unwrap();
        let bases: Vec<_> = mended.iter().map(|of| of.base.0 / SEGMENT).collect();
        assert_eq!(bases, rotten.clone().collect::<Vec<_>>());
        assert!(mended.iter().all(|of| of.kept_at.is_some() != from_scratch && of.peer_bytes > 0));
        for (number, good) in good.iter().enumerate() {
            let now = rig.disk.bytes(&name(number as u64 * SEGMENT)).unwrap();
            assert!(now[4096..] == good[4096..], "{rotten:?}: file {number}");
            let header = |bytes: &[u8]| SegmentHeader::decode(bytes).unwrap();
            assert_eq!(header(&now).before, header(good).before);
            assert_eq!(header(&now).generation, header(good).generation);
        }
        rig.start().unwrap();
        assert!(rig.node().report.cut.is_none() && rig.tail().position >= limit);
    }
}

#[test]
fn a_peer_whose_bytes_do_not_fit_is_refused_and_the_next_one_helps() {
    let rig = written(2 * SEGMENT + 2000);
    let log = good_log(&rig);
    rig.disk.rot(&name(SEGMENT), 30_000, |b| b[0] ^= 1);
    let mut repair =
        Repair::new(&rig.disk, GROUP, SEGMENT, Position(SEGMENT), FarSide::NextFile).unwrap();
    let mut from_liar = true;
    let mut refused = 0;
    loop {
        match repair.step(&rig.disk).unwrap() {
            RepairStep::Going => {}
            RepairStep::Needs(from, to) => {
                let mut bytes = log[from.0 as usize..to.0 as usize].to_vec();
                if from_liar {
                    bytes[700] ^= 1; // in the first frames, or in a later one
                }
                repair.patch(if from_liar { LIAR } else { PEER }, from, &bytes);
            }
            RepairStep::Refused(node) => {
                assert_eq!(node, LIAR);
                refused += 1;
                from_liar = false;
            }
            RepairStep::Whole => break,
        }
    }
    assert_eq!(refused, 1);
}

/// The log of another group's node chains in itself and does not fit on the far side.
#[test]
fn a_log_that_chains_and_is_another_one_is_refused_at_the_far_side() {
    let rig = written(2 * SEGMENT + 2000);
    let mut other = Rig::started();
    let limit = SEGMENT / 2;
    other.fill_to(limit);
    other.append_term_start(2);
    other.fill_to(2 * SEGMENT + 2000);
    other.sync_all();
    let foreign = good_log(&other);
    rig.disk.rot(&name(0), 4096 + 1000, |b| b[..60_000].fill(1));
    let mut repair =
        Repair::new(&rig.disk, GROUP, SEGMENT, Position(0), FarSide::NextFile).unwrap();
    for _ in 0..100 {
        match repair.step(&rig.disk).unwrap() {
            RepairStep::Needs(from, to) => {
                repair.patch(LIAR, from, &foreign[from.0 as usize..to.0 as usize]);
            }
            RepairStep::Refused(node) => return assert_eq!(node, LIAR),
            RepairStep::Going => {}
            RepairStep::Whole => break,
        }
    }
    panic!("it was taken");
}

#[test]
fn power_may_fail_at_any_change_that_a_repair_makes() {
    for changes in 0..40 {
        for seed in 0..4 {
            let mut rig = written(2 * SEGMENT + 2000);
            let log = good_log(&rig);
            let good = rig.disk.bytes(&name(SEGMENT)).unwrap();
            rig.disk.rot(&name(SEGMENT), 30_000, |b| b[0] ^= 1);
            let mut repair =
                Repair::new(&rig.disk, GROUP, SEGMENT, Position(SEGMENT), FarSide::NextFile)
                    .unwrap();
            while let RepairStep::Needs(from, to) = repair.step(&rig.disk).unwrap() {
                repair.patch(PEER, from, &log[from.0 as usize..to.0 as usize]);
            }
            rig.disk.stop_after(changes);
            let _ = repair.swap(&rig.disk);
            rig.power_loss(seed);
            let now = rig.disk.bytes(&name(SEGMENT)).unwrap();
            if now[4096..] == good[4096..] {
                rig.start().unwrap();
            } else {
                assert!(matches!(
                    rig.start(),
                    Err(crate::journal::recovery::RecoveryError::Damage { .. })
                ));
                mend(&rig.disk, SEGMENT, FarSide::NextFile, &log).unwrap();
                rig.start().unwrap();
            }
            assert!(rig.tail().position.0 > 2 * SEGMENT);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Any bursts in one file: repaired to the byte.
    #[test]
    fn any_rot_in_a_file_is_had_back(
        bursts in proptest::collection::vec((0_u64..4096 + SEGMENT, 1_usize..5000, 1_u8..), 1..6),
    ) {
        let mut rig = written(2 * SEGMENT + 2000);
        let log = good_log(&rig);
        for &(offset, length, change) in &bursts {
            rig.disk.rot(&name(SEGMENT), offset, |bytes| {
                bytes.iter_mut().take(length).for_each(|byte| *byte ^= change);
            });
        }
        mend(&rig.disk, SEGMENT, FarSide::NextFile, &log).unwrap();
        let now = rig.disk.bytes(&name(SEGMENT)).unwrap();
        prop_assert!(now[4096..] == log[SEGMENT as usize..2 * SEGMENT as usize]);
        rig.start().unwrap();
    }
}

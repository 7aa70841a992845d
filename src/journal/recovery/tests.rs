//! Recovery against a node that really wrote, crashed and damaged in every way.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::journal::memory::{HotTier, SegmentMemory, segment_name};
use crate::journal::recovery_table::Zone;
use crate::journal::rig::{GROUP, Rig, SEGMENT};
use crate::journal::seal::Seal;
use crate::journal::segment_header::{Content, SegmentHeader};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::types::Nanos;

pub(super) const PAGE: u64 = SEGMENT_HEADER_BYTES as u64;

pub(super) fn name(base: u64) -> String {
    segment_name(Position(base))
}

/// A node whose log is durable and certain up to `position`, stopped.
pub(super) fn written(position: u64) -> Rig {
    let mut rig = Rig::started();
    rig.fill_to(position);
    rig.sync_all();
    rig
}

pub(super) fn newest_seal(rig: &Rig) -> Seal {
    let files = (0..8).filter_map(|n| rig.disk.bytes(&name(n * SEGMENT)));
    files.filter_map(|page| Seal::newest(&page, GROUP)).max_by_key(Seal::order).unwrap()
}

pub(super) fn flip(rig: &Rig, base: u64, offset: u64) {
    rig.disk.rot(&name(base), PAGE + offset, |bytes| bytes[0] ^= 1);
}

pub(super) fn damage(rig: &mut Rig) -> Vec<DamagedRange> {
    match rig.start() {
        Err(RecoveryError::Damage { ranges, .. }) => ranges,
        Ok(()) => panic!("started: {}", rig.node().report),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_blank_directory_is_the_genesis() {
    let mut rig = Rig::new();
    rig.start().unwrap();
    assert_eq!(rig.tail(), Predecessor::genesis(GROUP));
    let report = rig.node().report.clone();
    assert!(rig.node().stateless && report.provisional && !report.state_missing);
    rig.crash_process();
    rig.start().unwrap();
    assert!(rig.node().stateless, "nothing has happened yet");
}

#[test]
fn nothing_changes_on_the_disk_when_all_is_certain() {
    let mut rig = written(3 * SEGMENT + 1000);
    let tail = rig.tail();
    rig.power_loss(1);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    let report = &rig.node().report;
    assert!(report.rewritten.is_empty() && report.cut.is_none());
    assert_eq!((report.finding, report.decision), (Finding::End, Decision::CleanEnd));
}

#[test]
fn a_log_that_ends_with_a_full_segment_goes_on_in_the_next() {
    let mut rig = Rig::started();
    while rig.tail().position.0 < SEGMENT {
        let left = SEGMENT - rig.tail().position.0;
        rig.append(&vec![3; if left > 1024 { 992 } else { left as usize - 32 }]);
    }
    assert_eq!(rig.tail().position.0, SEGMENT);
    rig.sync_all();
    for seed in 0..3 {
        rig.power_loss(seed);
        rig.start().unwrap();
        assert_eq!(rig.tail().position.0, SEGMENT);
    }
    rig.append(b"on it goes");
    rig.sync_all();
    rig.crash_process();
    rig.start().unwrap();
    assert!(rig.tail().position.0 > SEGMENT);
}

#[test]
fn what_is_only_in_the_hot_tier_survives_the_process_and_reaches_the_disk() {
    let mut rig = written(5000);
    rig.fill_to(2 * SEGMENT + 3000);
    let tail = rig.tail();
    rig.crash_process();
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    let report = rig.node().report.clone();
    assert!(report.hot_intact && report.from_hot_bytes > 2 * SEGMENT - 3000, "{report}");
    assert_eq!(report.rewritten.len(), 3);
    rig.power_loss(7);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail, "recovery made it durable");
}

#[test]
fn a_hot_tier_that_lost_a_segment_is_not_intact() {
    let mut rig = written(5000);
    rig.node().state.update(NodeState::allow_memory).unwrap();
    rig.fill_to(SEGMENT + 3000);
    rig.crash_process();
    rig.tier.remove(Position(SEGMENT)).unwrap();
    rig.start().unwrap();
    let report = rig.node().report.clone();
    assert_eq!((report.finding, report.decision), (Finding::HotMissing, Decision::CutTorn));
    assert!(report.provisional && !report.hot_intact, "what it acknowledged from memory is gone");
    assert_eq!(rig.tail().position.0, SEGMENT);
}

#[test]
fn a_hot_frame_that_was_overwritten_ends_the_log_and_the_promise() {
    let mut rig = written(5000);
    rig.node().state.update(NodeState::allow_memory).unwrap();
    let good = rig.tail();
    rig.append(&[9; 100]);
    rig.append(&[9; 100]);
    rig.crash_process();
    let (mut memory, _) = rig.tier.open(Position(0)).unwrap();
    memory.bytes_mut(good.position.0 + 40, 1)[0] ^= 1;
    drop(memory);
    rig.start().unwrap();
    assert_eq!(rig.tail(), good);
    let report = rig.node().report.clone();
    assert_eq!(report.finding, Finding::HotBadFrame);
    assert!(report.provisional);
    let cut = report.cut.as_ref().unwrap();
    let kept = rig.disk.bytes(&cut.kept_at).unwrap();
    assert_eq!(SegmentHeader::decode(&kept).unwrap().before, good);
}

/// A2 (#1900): an unclean stop never hangs the replay: the tail is cut with a report. A3 (#1812): also when the torn frame
/// crosses a page.
#[test]
fn a2_a3_a_torn_last_frame_across_a_page_is_cut_kept_and_reported() {
    // Only what of the frame's second page reached the disk varies.
    for torn in [0_usize, 1, 500, 512, 900, 1000] {
        let mut rig = Rig::started();
        while rig.tail().position.0 + 600 < 4096 {
            rig.append(&[1; 400]);
        }
        rig.sync_all();
        let certain = rig.tail();
        // It reaches the disk without a seal: never promised.
        let before = rig.disk.bytes(&name(0)).unwrap();
        rig.append(&[2; 1500]);
        let end = rig.tail().position.0;
        assert!(certain.position.0 < 4096 && end > 4096 + 1000, "{certain:?} {end}");
        let frame = rig.hot_payload(0)[certain.position.0 as usize..end as usize].to_vec();
        let torn_at = 4096 + torn - certain.position.0 as usize;
        rig.power_loss(1);
        let mut bytes = before;
        bytes[(PAGE + certain.position.0) as usize..][..torn_at].copy_from_slice(&frame[..torn_at]);
        rig.disk.put(&name(0), &bytes);
        rig.start().unwrap();
        assert_eq!(rig.tail(), certain);
        let report = rig.node().report.clone();
        assert_eq!(
            (report.finding, report.zone, report.decision),
            (Finding::BadFrame, Zone::AboveClaimed, Decision::CutTorn)
        );
        assert!(!report.provisional);
        let cut = report.cut.clone().unwrap();
        assert_eq!((cut.from, cut.promised), (certain.position, false));
        let kept = rig.disk.bytes(&cut.kept_at).unwrap();
        let header = SegmentHeader::decode(&kept).unwrap();
        assert_eq!((header.content, header.before), (Content::Quarantine, certain));
        assert!(frame.starts_with(&kept[PAGE as usize..]), "the very bytes are kept");
        assert!(report.to_string().contains("kept_at=quarantine/"), "{report}");
        // It is gone from the log for good, and the log goes on.
        rig.append(b"next");
        rig.sync_all();
        let tail = rig.tail();
        rig.power_loss(9);
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail);
    }
}

#[test]
fn a_bad_frame_between_certain_and_claimed_is_cut_and_makes_provisional() {
    let mut rig = written(3000);
    let certain = rig.tail();
    rig.append(&[1; 600]);
    rig.append(&[2; 600]);
    // One batch, synced, whose seal claims it and nothing later makes certain.
    rig.node().syncer.set_settle_delay_ns(Nanos::SECOND);
    rig.step_sync();
    assert!(rig.reported > certain.position);
    rig.power_loss(1);
    flip(&rig, 0, certain.position.0 + 100);
    rig.reported = certain.position;
    rig.start().unwrap();
    assert_eq!(rig.tail(), certain);
    let report = rig.node().report.clone();
    assert_eq!((report.zone, report.decision), (Zone::Claimed, Decision::CutProvisional));
    assert!(report.provisional);
    let cut = report.cut.unwrap();
    assert!(cut.promised && cut.entries == 2, "{cut}");
    // It stays provisional, and the claim is gone with the cut.
    rig.power_loss(2);
    rig.start().unwrap();
    let report = &rig.node().report;
    assert!(report.provisional && report.decision == Decision::CleanEnd, "{report}");
}

/// R13: a damaged log entry never makes recovery skip to the next file.
#[test]
fn r13_damage_is_never_cut_nor_skipped() {
    let mut rig = written(3 * SEGMENT + 2000);
    let ends: Vec<_> = rig.ends.values().copied().collect();
    let tail = rig.tail();
    rig.power_loss(1);
    for (base, offset) in [(0, 2000), (SEGMENT, 40), (2 * SEGMENT, 30_000), (3 * SEGMENT, 1000)] {
        let position = Position(base + offset);
        let from = ends.iter().rfind(|end| end.position <= position).unwrap().position;
        let to = ends.iter().find(|end| end.position > position).unwrap().position;
        flip(&rig, base, offset);
        let before = rig.disk.list().unwrap();
        let ranges = damage(&mut rig);
        assert_eq!(ranges.len(), 1, "{ranges:?}");
        let range = &ranges[0];
        assert_eq!((range.from, range.to), (from, to), "the very frame at {position}");
        assert_eq!(
            (range.file.as_str(), range.offset),
            (&*name(base), PAGE + from.since(Position(base)))
        );
        assert_eq!(rig.disk.list().unwrap(), before, "nothing was touched");
        // Repaired (as a peer's bytes would), it starts.
        flip(&rig, base, offset);
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail);
        rig.power_loss(1);
    }
}

#[test]
fn every_damaged_range_is_named() {
    let mut rig = written(2 * SEGMENT + 2000);
    rig.power_loss(1);
    for position in [1000, 20_000, SEGMENT + 5000, 2 * SEGMENT + 500] {
        flip(&rig, position / SEGMENT * SEGMENT, position % SEGMENT);
    }
    // A whole header of a frame, so that where it ends is not known either.
    let (&start, _) = rig.ends.range(Position(40_000)..).next().unwrap();
    rig.disk.rot(&name(0), PAGE + start.0, |bytes| bytes[..32].fill(0xEE));
    let ranges = damage(&mut rig);
    assert_eq!(ranges.len(), 5, "{ranges:#?}");
    assert!(ranges.windows(2).all(|pair| pair[0].to <= pair[1].from));
    assert_eq!(ranges[2].from, start);
}

#[test]
fn a_missing_or_short_or_unreadable_file_below_certain_is_damage() {
    for case in 0..4 {
        let mut rig = written(3 * SEGMENT + 2000);
        rig.power_loss(1);
        let bytes = rig.disk.bytes(&name(SEGMENT)).unwrap();
        let finding = match case {
            0 => {
                rig.disk.remove(&name(SEGMENT)).unwrap();
                Finding::Missing
            }
            1 => {
                rig.disk.put(&name(SEGMENT), &bytes[..30_000]);
                Finding::Missing
            }
            2 => {
                rig.disk.fail_reads(&name(SEGMENT), 20_000..20_512);
                Finding::Unreadable
            }
            _ => {
                // A piece lost in the middle reads as zeroes.
                rig.disk.rot(&name(SEGMENT), PAGE, |bytes| bytes[8192..16384].fill(0));
                Finding::Hole
            }
        };
        let ranges = damage(&mut rig);
        assert_eq!(ranges[0].file, name(SEGMENT), "{ranges:?}");
        // The last good frame may reach into the hole; the one that stands in it is what is found.
        assert!(ranges[0].finding == finding || case == 3, "{ranges:?}");
    }
}

#[test]
fn the_end_of_a_certain_log_cannot_be_lost_unnoticed() {
    let mut rig = written(2 * SEGMENT + 2000);
    rig.power_loss(1);
    let last = rig.disk.bytes(&name(2 * SEGMENT)).unwrap();
    rig.disk.rot(&name(2 * SEGMENT), PAGE + 1000, |bytes| bytes.fill(0));
    assert!(matches!(
        damage(&mut rig)[0].finding,
        Finding::BadFrame | Finding::End | Finding::Hole
    ));
    rig.disk.put(&name(2 * SEGMENT), &last);
    rig.start().unwrap();
}

#[test]
fn a_damaged_header_page_is_written_anew_from_the_chain() {
    let mut rig = written(2 * SEGMENT + 2000);
    let tail = rig.tail();
    rig.power_loss(1);
    for base in [SEGMENT, 2 * SEGMENT] {
        rig.disk.rot(&name(base), 0, |bytes| bytes[16] ^= 4);
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail);
        assert!(rig.node().report.rewritten.contains(&Position(base)));
        rig.crash_process();
    }
}

#[test]
fn damage_on_the_disk_is_repaired_from_the_hot_tier_after_a_crash_of_the_process() {
    let mut rig = written(SEGMENT + 9000);
    let tail = rig.tail();
    rig.crash_process();
    flip(&rig, SEGMENT, 4000);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    let repaired = rig.node().report.repaired_at.unwrap();
    assert!(repaired.0 <= SEGMENT + 4000 && repaired.0 > SEGMENT, "{}", rig.node().report);
    rig.power_loss(1);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
}

#[test]
fn the_log_of_another_node_with_the_same_beginning_is_not_taken_for_this_one() {
    let mut rig = written(3000);
    rig.power_loss(1);
    let ours = rig.disk.bytes(&name(0)).unwrap();
    let mut other = Rig::started();
    other.fill_to(1500);
    other.append_term_start(2);
    other.fill_to(4000);
    other.sync_all();
    // Their frames, our seal.
    let mut bytes = other.disk.bytes(&name(0)).unwrap();
    bytes[1024..2048].copy_from_slice(&ours[1024..2048]);
    rig.disk.put(&name(0), &bytes);
    assert_eq!(damage(&mut rig)[0].finding, Finding::NotTheSealedLog);
}

#[test]
fn a_file_that_does_not_adjoin_the_log_is_moved_away_as_it_is() {
    let mut rig = written(3000);
    let tail = rig.tail();
    rig.power_loss(1);
    let mut far = SegmentHeader::decode(&rig.disk.bytes(&name(0)).unwrap()).unwrap();
    far.before.position = Position(SEGMENT << 40);
    let mut file = far.encode().to_vec();
    file.extend([7; 5000]);
    rig.disk.put(&segment_name(far.before.position), &file);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    let report = rig.node().report.clone();
    assert_eq!(report.moved, [format!("quarantine/stray-{}", segment_name(far.before.position))]);
    assert_eq!(rig.disk.bytes(&report.moved[0]).unwrap(), file);
    assert_eq!(report.decision, Decision::CutTorn);
    rig.crash_process();
    rig.start().unwrap();
    assert_eq!((rig.tail(), rig.node().report.moved.len()), (tail, 0));
}

#[test]
fn a_file_that_lost_its_prepared_end_gets_it_back() {
    let mut rig = written(3000);
    rig.power_loss(1);
    let bytes = rig.disk.bytes(&name(0)).unwrap();
    rig.disk.put(&name(0), &bytes[..10_000]);
    rig.start().unwrap();
    assert_eq!(rig.disk.bytes(&name(0)).unwrap(), bytes_with_newer_seal(&rig, &bytes));
}

#[test]
fn a_padding_frame_whose_zeroes_are_gone_gets_them_back() {
    let mut rig = written(SEGMENT + 2000);
    let tail = rig.tail();
    rig.power_loss(1);
    let bytes = rig.disk.bytes(&name(0)).unwrap();
    rig.disk.put(&name(0), &bytes[..bytes.len() - 8]);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    assert!(rig.payload(0) == bytes[PAGE as usize..], "and nothing else has changed");
}

#[test]
fn garbage_in_the_body_of_padding_cuts_nothing() {
    let mut rig = written(SEGMENT + 2000);
    let tail = rig.tail();
    rig.power_loss(1);
    flip(&rig, 0, SEGMENT - 8);
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    assert!(rig.node().report.cut.is_none() && !rig.node().report.provisional);
}

/// The same file but for its seals.
fn bytes_with_newer_seal(rig: &Rig, bytes: &[u8]) -> Vec<u8> {
    let mut expected = bytes.to_vec();
    expected[1024..2048].copy_from_slice(&rig.disk.bytes(&name(0)).unwrap()[1024..2048]);
    expected
}

#[test]
fn foreign_files_are_refused_by_name() {
    let mut rig = written(3000);
    rig.power_loss(1);
    let good = rig.disk.bytes(&name(0)).unwrap();
    rig.disk.put("holiday.jpg", b"\xFF\xD8");
    let error = rig.start().unwrap_err();
    assert!(matches!(&error, RecoveryError::ForeignFile { name } if name == "holiday.jpg"));
    assert!(error.to_string().starts_with("holiday.jpg: not a file of this node"));
    rig.disk.remove("holiday.jpg").unwrap();
    rig.disk.put(&name(SEGMENT), b"%PDF-1.7 and so on");
    let error = rig.start().unwrap_err();
    assert!(matches!(
        &error,
        RecoveryError::Header { name: file, error: HeaderError::Foreign { .. } } if *file == name(SEGMENT)
    ));
    rig.disk.remove(&name(SEGMENT)).unwrap();
    let header = SegmentHeader { group: GroupId(5), ..SegmentHeader::decode(&good).unwrap() };
    let mut other = good.clone();
    header.encode_into(&mut other);
    rig.disk.put(&name(0), &other);
    let error = rig.start().unwrap_err();
    assert!(matches!(error, RecoveryError::Header { error: HeaderError::Group { .. }, .. }));
    rig.disk.put(&name(0), &good);
    rig.disk.put(&name(SEGMENT), &good);
    let error = rig.start().unwrap_err();
    assert!(matches!(error, RecoveryError::Header { error: HeaderError::Base { .. }, .. }));
    rig.disk.remove(&name(SEGMENT)).unwrap();
    rig.settings.segment_bytes = 2 * SEGMENT;
    let error = rig.start().unwrap_err();
    assert!(matches!(error, RecoveryError::Header { error: HeaderError::SegmentBytes { .. }, .. }));
    rig.settings.segment_bytes = SEGMENT;
    rig.settings.known_names = vec!["snapshots/".to_owned()];
    rig.disk.put("snapshots/1", b"");
    rig.start().unwrap();
}

#[test]
fn a_lost_node_state_is_no_state_and_a_damaged_one_is_refused() {
    let mut rig = written(3000);
    let tail = rig.tail();
    rig.power_loss(1);
    let state = rig.disk.bytes("node.state").unwrap();
    // One copy rots: the other has everything, and it is mended.
    rig.disk.rot("node.state", 100, |bytes| bytes[0] ^= 1);
    rig.start().unwrap();
    assert!(!rig.node().report.provisional);
    rig.crash_process();
    rig.disk.rot("node.state", 4096 + 100, |bytes| bytes[0] ^= 1);
    rig.start().unwrap();
    rig.crash_process();
    for copy in [100, 4096 + 100] {
        rig.disk.rot("node.state", copy, |bytes| bytes[0] ^= 1);
    }
    let error = rig.start().unwrap_err();
    assert!(matches!(error, RecoveryError::NodeState(NodeStateError::Damaged)), "{error}");
    rig.disk.remove("node.state").unwrap();
    rig.start().unwrap();
    assert_eq!(rig.tail(), tail);
    assert!(rig.node().stateless);
    let report = &rig.node().report;
    assert!(report.state_missing && report.provisional);
    assert_eq!(state.len(), 8192);
}

#[test]
fn the_clean_mark_vouches_for_the_log() {
    let mut rig = written(3000);
    let tail = rig.tail();
    rig.node().state.update(NodeState::allow_memory).unwrap();
    let mark = crate::journal::node_state::CleanMark { tail, commit: Commit(tail.position) };
    rig.node().state.update(|state| state.stop(mark, Durable(tail.position))).unwrap();
    rig.power_loss(1);
    rig.start().unwrap();
    let report = rig.node().report.clone();
    assert!(report.clean_start && !report.provisional && !report.hot_intact);
    assert_eq!(rig.node().state.state().unwrap().clean_mark, None);
    rig.power_loss(1);
    rig.start().unwrap();
    assert!(rig.node().report.provisional, "the mark covered one stop only");
}

/// The process dies with a batch over two files written and not synced; while recovery writes them anew the power fails, too.
#[test]
fn power_may_fail_at_any_change_that_recovery_makes() {
    let mut done = false;
    for changes in 0..80 {
        let mut rig = written(SEGMENT - 3000);
        let certain = rig.tail();
        rig.fill_to(SEGMENT + 3000);
        // The seal is in the second file, and only the first one is synced.
        rig.disk.fail_syncs(&name(SEGMENT));
        rig.step_sync();
        assert!(rig.node().failed);
        let tail = rig.tail();
        rig.crash_process();
        rig.disk.stop_after(changes);
        match rig.start() {
            Ok(()) => {
                assert_eq!(rig.tail(), tail);
                done = true;
                break;
            }
            Err(RecoveryError::Io { .. } | RecoveryError::NodeState(_)) => {
                rig.power_loss(changes);
                rig.reported = certain.position;
                rig.start().unwrap();
            }
            Err(other) => panic!("after {changes} changes: {other}"),
        }
        // What it says it has, it has.
        let tail = rig.tail();
        rig.power_loss(changes + 1);
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail);
    }
    assert!(done, "recovery makes fewer changes than that");
}

#[test]
fn an_unfinished_cut_is_finished() {
    use crate::journal::node_state::Truncation;
    use crate::types::CutEpoch;
    let mut rig = written(SEGMENT + 9000);
    let (_, &at) = rig.ends.range(..Position(5000)).next_back().unwrap();
    for machine in [false, true] {
        // The crash comes right after the record: the files still hold everything.
        let epoch = CutEpoch(rig.node().epoch.0 + 1);
        rig.node().state.update(|state| state.truncate(Truncation { at, epoch })).unwrap();
        rig.reported = at.position;
        if machine {
            rig.power_loss(1);
        } else {
            rig.crash_process();
        }
        rig.start().unwrap();
        assert_eq!(rig.tail(), at);
        let report = &rig.node().report;
        assert!(report.finished_cut && report.cut.is_none() && !report.provisional, "{report}");
        assert_eq!(rig.node().epoch, epoch);
        assert!(rig.disk.bytes(&name(SEGMENT)).is_none_or(|bytes| bytes.iter().all(|&b| b == 0)));
        rig.fill_to(SEGMENT + 9000);
        rig.sync_all();
        let tail = rig.tail();
        rig.crash_process();
        rig.start().unwrap();
        assert_eq!(rig.tail(), tail, "the record says nothing about what came after it");
    }
}

#[test]
fn the_terms_of_the_log_come_back() {
    let mut rig = Rig::started();
    for term in 2..6 {
        rig.fill_to(u64::from(term) * 20_000);
        rig.append_term_start(term);
    }
    let expected: Vec<_> = rig.node().log.terms().iter().collect();
    rig.sync_all();
    rig.power_loss(1);
    rig.start().unwrap();
    let found: Vec<_> = rig.node().log.terms().iter().collect();
    assert_eq!(found, expected);
    assert_eq!(rig.node().log.last_leadership().term.0, 5);
}

/// What a test does to the end of a log.
#[derive(Clone, Debug)]
enum Injury {
    Truncate(u64),
    Zero(u64, u64),
    Flip(u64),
    Garbage(u64, Vec<u8>),
    Header(u64),
}

fn injury() -> impl Strategy<Value = Injury> {
    let at = 0..3 * SEGMENT;
    prop_oneof![
        at.clone().prop_map(Injury::Truncate),
        (at.clone(), 1_u64..9000).prop_map(|(from, length)| Injury::Zero(from, length)),
        at.clone().prop_map(Injury::Flip),
        (at, proptest::collection::vec(any::<u8>(), 1..2000))
            .prop_map(|(from, bytes)| Injury::Garbage(from, bytes)),
        (0..PAGE).prop_map(Injury::Header),
    ]
}

impl Injury {
    /// Does it to the log of `rig`; the first position that is not as it was.
    fn inflict(&self, rig: &Rig) {
        let change = |at: u64, change: &dyn Fn(&mut [u8])| {
            let base = at / SEGMENT * SEGMENT;
            rig.disk.rot(&name(base), PAGE + at % SEGMENT, |bytes| change(bytes));
        };
        match self {
            Self::Truncate(at) => {
                let base = at / SEGMENT * SEGMENT;
                if let Some(bytes) = rig.disk.bytes(&name(base)) {
                    let keep = ((PAGE + at % SEGMENT) as usize).min(bytes.len());
                    rig.disk.put(&name(base), &bytes[..keep]);
                }
            }
            Self::Zero(at, length) => change(*at, &|bytes| {
                let length = bytes.len().min(*length as usize);
                bytes[..length].fill(0);
            }),
            Self::Flip(at) => change(*at, &|bytes| {
                if let Some(byte) = bytes.first_mut() {
                    *byte ^= 0x10;
                }
            }),
            Self::Garbage(at, garbage) => change(*at, &|bytes| {
                let length = bytes.len().min(garbage.len());
                bytes[..length].copy_from_slice(&garbage[..length]);
            }),
            Self::Header(at) => rig.disk.rot(&name(SEGMENT), *at, |bytes| {
                if let Some(byte) = bytes.first_mut() {
                    *byte ^= 0x10;
                }
            }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens to the files: either a prefix comes back that holds everything certain, or the damage is named, in
    /// the right place, and nothing is changed.
    #[test]
    fn any_injury_gives_a_prefix_or_names_the_damage(
        certain in 0_u64..2 * SEGMENT,
        more in 0_u64..SEGMENT / 2,
        injuries in proptest::collection::vec(injury(), 1..4),
    ) {
        let mut rig = written(certain);
        let certain = rig.tail();
        rig.fill_to(certain.position.0 + more);
        rig.step_sync();
        rig.power_loss(certain.position.0);
        let certain = newest_seal(&rig).certain;
        rig.reported = certain.position;
        for injury in &injuries {
            injury.inflict(&rig);
        }
        let names: BTreeSet<_> = rig.disk.list().unwrap().into_iter().collect();
        match rig.start() {
            Ok(()) => prop_assert!(rig.tail().position >= certain.position),
            Err(RecoveryError::Damage { ranges, .. }) => {
                let first = &ranges[0];
                prop_assert!(first.from < certain.position || first.finding == Finding::SealsLost);
                prop_assert!(rig.ends.contains_key(&first.from), "it ends with a whole frame");
                let now: BTreeSet<_> = rig.disk.list().unwrap().into_iter().collect();
                prop_assert_eq!(names, now);
            }
            Err(RecoveryError::Header { error, .. }) => {
                prop_assert!(injuries.iter().any(|injury| matches!(injury, Injury::Header(at) if *at < 10)),
                    "{}", error);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

//! The recovery table: total, by the rules that it must obey, as `docs/DURABILITY.md` prints it, and acted on: for every cell
//! that a disk and a hot tier can show, a data directory is made that shows it, and recovery does what the cell says.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::collections::BTreeSet;

use quorate::frame::{FrameHeader, Kind, Predecessor, crc};
use quorate::journal::memory_disk::MemoryDisk;
use quorate::journal::node_state::{BootId, NodeState, NodeStateStore, StartInput, Truncation};
use quorate::journal::recovery::{Boot, Recovered, RecoveryError, RecoverySettings, recover};
use quorate::journal::recovery_table::{Decision, Finding, RECOVERY_TABLE, Zone, decide};
use quorate::journal::repair::{FarSide, Repair, RepairStep};
use quorate::journal::seal::Seal;
use quorate::journal::segment_header::{Content, SegmentHeader};
use quorate::journal::{
    Disk, HeapHotTier, HeapMemory, HeapView, HotTier, SegmentMemory, segment_name,
};
use quorate::limits::SEGMENT_BYTES_MIN as SEGMENT;
use quorate::types::{
    Chain, Commit, CutEpoch, Generation, GroupId, Incarnation, Leadership, NodeId, Position,
    Sequence, Term, Timestamp,
};
use zerocopy::IntoBytes;

const GROUP: GroupId = GroupId(0xFEED);
const NODE: NodeId = NodeId(1);
const BOOT: BootId = BootId([7; 16]);
const PAGE: usize = 4096;

#[test]
fn every_finding_in_every_zone_has_a_decision_that_obeys_the_rules() {
    assert_eq!(RECOVERY_TABLE.len(), Finding::ALL.len());
    let names: BTreeSet<_> = Finding::ALL.iter().map(|finding| finding.name()).collect();
    assert_eq!(names.len(), Finding::ALL.len());
    for finding in Finding::ALL {
        for zone in Zone::ALL {
            let decision = decide(finding, zone);
            let cuts = matches!(decision, Decision::CutTorn | Decision::CutProvisional);
            match (finding, zone) {
                (Finding::GoodFrame, _) => assert_eq!(decision, Decision::Keep),
                // What was durable is never cut and never denied.
                (_, Zone::BelowCertain) => assert_eq!(decision, Decision::Damage, "{finding:?}"),
                (Finding::NotTheSealedLog | Finding::SealsLost, _) => {
                    assert_eq!(decision, Decision::Damage);
                }
                // What may have been promised is never dropped without saying so.
                (_, Zone::Claimed) => assert_eq!(decision, Decision::CutProvisional, "{finding:?}"),
                // What nobody was promised never keeps a node from starting.
                (_, Zone::AboveClaimed) => {
                    assert!(cuts || decision == Decision::CleanEnd, "{finding:?}");
                }
            }
        }
    }
}

#[test]
fn the_documentation_prints_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/DURABILITY.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect())
        .collect();
    for finding in Finding::ALL {
        let row = rows.iter().find(|row| row[0] == finding.name() && row.len() == 5);
        let row = row.unwrap_or_else(|| panic!("{} is not in {path}", finding.name()));
        let printed = &row[2..];
        let real = Zone::ALL.map(|zone| decide(finding, zone).name());
        assert_eq!(printed, real, "{}", finding.name());
    }
}

/// A log of frames of 96 bytes, in which the first segment is padded, and some of the second is filled.
struct Log {
    bytes: Vec<u8>,
    /// What stands before each frame, and at the end.
    before: Vec<Predecessor>,
}

impl Log {
    fn new() -> Self {
        let mut log = Self { bytes: Vec::new(), before: vec![Predecessor::genesis(GROUP)] };
        while log.end().position.0 + 96 <= SEGMENT {
            log.push(Kind::Command, 96);
        }
        log.push(Kind::Padding, SEGMENT - log.end().position.0);
        for _ in 0..40 {
            log.push(Kind::Command, 96);
        }
        log
    }

    fn end(&self) -> Predecessor {
        *self.before.last().unwrap()
    }

    fn push(&mut self, kind: Kind, length: u64) {
        let end = self.end();
        let padding = kind == Kind::Padding;
        let sequence = if padding { end.sequence } else { end.sequence.next() };
        let payload =
            vec![end.sequence.0 as u8 | 1; if padding { 0 } else { length as usize - 32 }];
        let mut header = FrameHeader::new(length as u32, kind, Term(1), sequence, Timestamp(5));
        header.crc = crc::chain(end.chain, &header, end.position, &payload).0.into();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend(payload);
        self.bytes.resize((end.position.0 + length) as usize, 0);
        self.before.push(end.after(&header));
    }

    fn at(&self, position: u64) -> Predecessor {
        *self.before.iter().find(|before| before.position.0 >= position).unwrap()
    }

    /// The two files of the log up to `end`, the first with the seal.
    fn files(&self, end: Predecessor, seal: &Seal) -> [Vec<u8>; 2] {
        [0, SEGMENT].map(|base| {
            let header = SegmentHeader {
                content: Content::Segment,
                group: GROUP,
                generation: Generation::default(),
                segment_bytes: SEGMENT,
                before: self.at(base),
                cut_epoch: CutEpoch(0),
            };
            let mut file = header.encode().to_vec();
            if base == 0 {
                file[seal.offset()..][..512].copy_from_slice(&seal.encode(GROUP));
            }
            let to = end.position.0.clamp(base, base + SEGMENT);
            file.extend_from_slice(&self.bytes[base as usize..to as usize]);
            file.resize(PAGE + SEGMENT as usize, 0);
            file
        })
    }
}

/// A directory, and a hot tier, in which the log stops as `finding` says and where `zone` says.
struct Case {
    log: Log,
    disk: MemoryDisk,
    tier: HeapHotTier,
    stop: Predecessor,
    /// `None`: no directory can show it.
    possible: bool,
}

impl Case {
    fn new(finding: Finding, zone: Zone) -> Self {
        let log = Log::new();
        let stop = match finding {
            Finding::OtherHistory | Finding::HotMissing => log.at(SEGMENT),
            _ => log.at(SEGMENT + 1000),
        };
        let (below, above) = (log.at(SEGMENT - 900), log.at(SEGMENT + 2000));
        let (certain, claimed) = match zone {
            Zone::BelowCertain => (above, above),
            Zone::Claimed => (below, above),
            Zone::AboveClaimed => (below, stop),
        };
        let seal = Seal {
            number: 6,
            epoch: CutEpoch(0),
            certain,
            claimed,
            known_commit: Commit(Position(96)),
        };
        let disk = MemoryDisk::new();
        let tier = HeapHotTier::new(SEGMENT, 1);
        let mut case = Self { log, disk, tier, stop, possible: true };
        case.write_state(None);
        case.show(finding, zone, seal);
        case
    }

    fn write_state(&self, truncation: Option<Truncation>) {
        let store = NodeStateStore::open(&self.disk, GROUP, NODE).unwrap();
        let input = StartInput {
            boot_id: BOOT,
            hot_tier_id: 1,
            hot_whole: false,
            promise_lost: false,
            first_incarnation: Incarnation(1),
        };
        let mut state = NodeState::start(None, GROUP, NODE, input).state;
        state.found(Leadership::default()).unwrap();
        if let Some(truncation) = truncation {
            state.truncate(truncation).unwrap();
        }
        store.record_start(&self.disk, &state).unwrap();
    }

    fn show(&mut self, finding: Finding, zone: Zone, seal: Seal) {
        let stop = self.stop.position.0;
        let offset = PAGE + (stop % SEGMENT) as usize;
        let mut unreadable = None;
        let mut files = self.log.files(self.stop, &seal);
        match finding {
            Finding::GoodFrame => self.possible = false,
            Finding::End => {}
            Finding::Hole => files[1][offset + 500] = 1,
            Finding::BadFrame => {
                files = self.log.files(self.log.end(), &seal);
                files[1][offset + 50] ^= 1;
            }
            Finding::Missing => files[1].truncate(offset + 10),
            Finding::Unreadable => {
                files = self.log.files(self.log.end(), &seal);
                unreadable = Some(offset as u64..offset as u64 + 20);
            }
            Finding::OtherHistory => {
                let mut header = SegmentHeader::decode(&files[1]).unwrap();
                header.before.chain = Chain(99);
                header.encode_into(&mut files[1]);
            }
            Finding::NotTheSealedLog => {
                // Only below what is certain: it is found there or nowhere.
                self.possible = zone == Zone::BelowCertain;
                let other = Predecessor { chain: Chain(99), ..self.stop };
                let seal = Seal { certain: other, claimed: other, ..seal };
                files = self.log.files(self.log.end(), &seal);
                self.stop = *self.log.before.iter().rfind(|b| b.position.0 < stop).unwrap();
            }
            Finding::HotEnd | Finding::HotBadFrame | Finding::HotMissing => {
                // Some of the log is on the disk, the rest of it up to the stop in the hot tier only.
                let durable = self.log.at(SEGMENT - 400);
                files = self.log.files(durable, &seal);
                files[1].fill(0);
                self.fill_tier(finding);
            }
            Finding::SealsLost => {
                // What is below that which the seals that are left call certain is damage whatever the others said.
                self.possible = zone != Zone::BelowCertain;
                files = self.log.files(self.log.end(), &seal);
                files[1][offset + 50] ^= 1;
                files[1][1024 + 500..1024 + 520].fill(7);
            }
            Finding::CutRecorded => {
                // The record lowers every mark to the cut itself.
                self.possible = zone == Zone::AboveClaimed;
                files = self.log.files(self.log.end(), &seal);
                self.disk.put("node.state", &[]);
                Disk::remove(&self.disk, "node.state").unwrap();
                self.write_state(Some(Truncation { at: self.stop, epoch: CutEpoch(1) }));
            }
        }
        for (base, file) in [0, SEGMENT].into_iter().zip(files) {
            self.disk.put(&segment_name(Position(base)), &file);
        }
        if let Some(range) = unreadable {
            self.disk.fail_reads(&segment_name(Position(SEGMENT)), range);
        }
    }

    fn fill_tier(&mut self, finding: Finding) {
        let bases = if finding == Finding::HotMissing { 1 } else { 2 };
        for base in [0, SEGMENT].into_iter().take(bases) {
            self.tier.create(Position(base)).unwrap();
            let (mut memory, _) = self.tier.open(Position(base)).unwrap();
            let end = self.stop.position.0.min(base + SEGMENT);
            let bytes = &self.log.bytes[base as usize..end as usize];
            memory.bytes_mut(0, bytes.len()).copy_from_slice(bytes);
            if finding == Finding::HotBadFrame && base == SEGMENT {
                let next = self.stop.position.0 - SEGMENT;
                memory.bytes_mut(next, 4).copy_from_slice(&96_u32.to_le_bytes());
            }
        }
    }

    fn recover(&mut self) -> Result<Recovered<HeapMemory, HeapView>, RecoveryError> {
        let settings = RecoverySettings::new(GROUP, NODE, SEGMENT);
        let store = NodeStateStore::open(&self.disk, GROUP, NODE).unwrap();
        let boot = Boot { boot_id: BOOT, first_incarnation: Incarnation(1) };
        recover(&self.disk, &mut self.tier, &settings, &store, boot)
    }
}

#[test]
fn recovery_does_what_the_table_says_for_every_cell_that_can_be() {
    let (mut cells, mut repaired) = (0, 0);
    for finding in Finding::ALL {
        for zone in Zone::ALL {
            let mut case = Case::new(finding, zone);
            if !case.possible {
                continue;
            }
            cells += 1;
            let decision = decide(finding, zone);
            let context = format!("{} {}", finding.name(), zone.name());
            match case.recover() {
                Ok(recovered) => {
                    let report = &recovered.report;
                    assert_eq!(
                        (report.finding, report.zone, report.decision),
                        (finding, zone, decision),
                        "{context}"
                    );
                    assert_eq!(recovered.tail, case.stop, "{context}");
                    assert_eq!(recovered.durable.position(), case.stop.position);
                    let provisional = decision == Decision::CutProvisional;
                    assert_eq!(report.provisional, provisional, "{context}");
                    check_kept_bytes(&case, finding, decision, &recovered);
                }
                Err(RecoveryError::Damage { ranges, certain }) => {
                    assert_eq!(decision, Decision::Damage, "{context}");
                    assert_eq!(ranges[0].finding, finding, "{context}");
                    assert_eq!(ranges[0].from, case.stop.position, "{context}");
                    repaired += usize::from(check_repair(&mut case, finding, certain));
                }
                Err(other) => panic!("{context}: {other}"),
            }
        }
    }
    assert_eq!(cells, 9 * 3 + 2 + 2, "all but what is no stop, and what cannot be in a zone");
    assert_eq!(repaired, 6, "what is lost in one file");
}

/// Damage in one file is had back from a node that has the log, and the node starts with all that was certain. What another
/// node's bytes cannot mend, or of which the hot tier had the beginning alone, is refused as before. Returns whether it was
/// repaired.
fn check_repair(case: &mut Case, finding: Finding, certain: Predecessor) -> bool {
    use Finding::{HotBadFrame, HotEnd, HotMissing, NotTheSealedLog, SealsLost};
    let context = finding.name();
    let before = case.disk.list().unwrap();
    let base = case.stop.position.segment_base(SEGMENT);
    let far = FarSide::Seal(certain);
    let mended = (certain.position.segment_base(SEGMENT) == base)
        .then(|| mend(case, base, far))
        .is_some_and(|mended| mended);
    let hopeless =
        matches!(finding, SealsLost | NotTheSealedLog | HotEnd | HotBadFrame | HotMissing);
    assert_eq!(mended, !hopeless, "{context}");
    if mended {
        let recovered = case.recover().unwrap();
        assert!(recovered.tail.position >= certain.position, "{context}");
        assert!(recovered.report.cut.is_none() && !recovered.report.provisional, "{context}");
    } else {
        assert_eq!(case.disk.list().unwrap(), before, "{context}: nothing was touched");
        assert!(matches!(case.recover(), Err(RecoveryError::Damage { .. })), "{context}");
    }
    mended
}

/// Repairs the segment at `base` with the bytes of the whole log.
fn mend(case: &Case, base: Position, far: FarSide) -> bool {
    let Ok(mut repair) = Repair::new(&case.disk, GROUP, SEGMENT, base, far) else { return false };
    loop {
        match repair.step(&case.disk) {
            Ok(RepairStep::Going) => {}
            Ok(RepairStep::Needs(from, to)) => {
                repair.patch(NodeId(2), from, &case.log.bytes[from.0 as usize..to.0 as usize]);
            }
            Ok(RepairStep::Whole) => {
                repair.swap(&case.disk).unwrap();
                return true;
            }
            Ok(RepairStep::Refused(_)) | Err(_) => return false,
        }
    }
}

/// Where bytes were cut they are kept aside; where there were none, nothing is.
fn check_kept_bytes(
    case: &Case,
    finding: Finding,
    decision: Decision,
    recovered: &Recovered<HeapMemory, HeapView>,
) {
    use Finding::{BadFrame, Hole, HotBadFrame, Missing, Unreadable};
    let bytes_there = matches!(finding, Hole | BadFrame | Unreadable | HotBadFrame | Missing);
    let cut = recovered.report.cut.as_ref();
    // A file that ends early has nothing but the last few bytes, if they are not zero.
    if finding != Missing {
        let expected = bytes_there && decision != Decision::CleanEnd;
        assert_eq!(cut.is_some(), expected, "{finding:?} {decision:?}");
    }
    if let Some(cut) = cut {
        let kept = case.disk.bytes(&cut.kept_at).unwrap();
        let header = SegmentHeader::decode(&kept).unwrap();
        assert_eq!((header.before, header.content), (case.stop, Content::Quarantine));
        assert_eq!(cut.promised, decision == Decision::CutProvisional);
    }
}

#[test]
fn the_sequence_of_the_last_entry_comes_back() {
    let mut case = Case::new(Finding::End, Zone::AboveClaimed);
    let recovered = case.recover().unwrap();
    let entries = case.log.before.iter().take_while(|b| b.position < case.stop.position).count();
    // One of the frames is padding, which has no sequence of its own.
    assert_eq!(recovered.tail.sequence, Sequence(entries as u64 - 1));
}

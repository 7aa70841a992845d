//! A data directory of anybody's making: recovery ends with a log that the next start finds as it is, or says what is wrong,
//! having removed nothing. It never panics.
//!
//! Input: files one after the other, each as its name (a byte: which of the names below), its length / 64 (two bytes), and
//! that many bytes. A file whose name has bit 7 set gets a good header page, group and all, in front of its bytes, so that the
//! fuzzer need not guess checksums; bit 6 adds a seal that claims and vouches for all there is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::frame::{FrameHeader, Predecessor, crc};
use quorate::journal::memory_disk::MemoryDisk;
use quorate::journal::node_state::{BootId, NodeStateStore};
use quorate::journal::recovery::{Boot, Recovered, RecoveryError, RecoverySettings, recover};
use quorate::journal::seal::Seal;
use quorate::journal::segment_header::{Content, SegmentHeader};
use quorate::journal::{Disk, HeapHotTier, HeapMemory, HeapView, segment_name};
use quorate::limits::{FRAME_HEADER_BYTES, SEGMENT_BYTES_MIN};
use quorate::types::{
    Chain, Commit, CutEpoch, Generation, GroupId, Incarnation, NodeId, Position, Sequence, Term,
};
use zerocopy::{FromBytes, IntoBytes};

const GROUP: GroupId = GroupId(7);
const NODE: NodeId = NodeId(0);

fuzz_target!(|data: &[u8]| {
    let disk = MemoryDisk::new();
    let mut rest = data;
    let mut before = Predecessor::genesis(GROUP);
    while let Some((&[name, high, low], bytes)) = rest.split_first_chunk::<3>() {
        let length = (usize::from(high) << 8 | usize::from(low)) * 64;
        let (bytes, left) = bytes.split_at(length.min(bytes.len()));
        rest = left;
        let base = Position(u64::from(name & 3) * SEGMENT_BYTES_MIN);
        match name & 0x3F {
            0..=3 => disk.put(&segment_name(base), &segment(name, base, &mut before, bytes)),
            4 => disk.put("node.state", bytes),
            5 => disk.put("quarantine/00000000-0000000000000000-0000000000000040.qlog", bytes),
            6 => disk.put(&format!("{}.new", segment_name(base)), bytes),
            _ => {}
        }
    }
    let names = disk.list().unwrap();
    match start(&disk, 1) {
        Ok(recovered) => {
            let again = start(&disk, 2).expect("what recovery leaves behind, it accepts");
            assert_eq!(again.tail, recovered.tail);
            let report = &again.report;
            assert!(report.rewritten.is_empty() && report.cut.is_none() && report.moved.is_empty());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            let now = disk.list().unwrap();
            assert!(names.iter().all(|name| now.contains(name) || name.ends_with(".new")));
        }
    }
});

type Start = Result<Recovered<HeapMemory, HeapView>, RecoveryError>;

fn start(disk: &MemoryDisk, boot: u8) -> Start {
    let mut hot = HeapHotTier::new(SEGMENT_BYTES_MIN, u64::from(boot));
    let settings = RecoverySettings::new(GROUP, NODE, SEGMENT_BYTES_MIN);
    let store = NodeStateStore::open(disk, GROUP, NODE).map_err(RecoveryError::NodeState)?;
    let boot = Boot { boot_id: BootId([boot; 16]), first_incarnation: Incarnation(1) };
    recover(disk, &mut hot, &settings, &store, boot)
}

/// The bytes of a segment file: as given, or behind a good page and with good checksums.
fn segment(name: u8, base: Position, before: &mut Predecessor, bytes: &[u8]) -> Vec<u8> {
    if name & 0x80 == 0 {
        return bytes.to_vec();
    }
    if before.position != base {
        let position = base;
        *before = Predecessor { position, sequence: Sequence(1), term: Term(1), chain: Chain(9) };
    }
    let header = SegmentHeader {
        content: Content::Segment,
        group: GROUP,
        generation: Generation::default(),
        segment_bytes: SEGMENT_BYTES_MIN,
        before: *before,
        cut_epoch: CutEpoch(0),
    };
    let mut file = header.encode().to_vec();
    let mut payload = bytes[..bytes.len().min(SEGMENT_BYTES_MIN as usize)].to_vec();
    let start = *before;
    chain(&mut payload, before);
    if name & 0x40 != 0 {
        let (certain, claimed) = (start, *before);
        let known_commit = Commit(start.position);
        let seal = Seal { number: 3, epoch: CutEpoch(0), certain, claimed, known_commit };
        file[seal.offset()..][..512].copy_from_slice(&seal.encode(GROUP));
    }
    file.extend(payload);
    file
}

/// Gives what looks like frames the checksums, sequences and term that they need to follow one another.
fn chain(payload: &mut [u8], before: &mut Predecessor) {
    let mut at = 0;
    while let Some(bytes) = payload.get_mut(at..at + FRAME_HEADER_BYTES) {
        let mut header = FrameHeader::read_from_bytes(bytes).unwrap();
        let length = header.length() as usize;
        if length < FRAME_HEADER_BYTES
            || header.kind == 1
            || at + header.span() as usize > payload.len()
        {
            return;
        }
        header.version = 1.into();
        header.flags = 0;
        header.sequence = before.sequence.next().0.into();
        header.term = before.term.0.into();
        let body = &payload[at + FRAME_HEADER_BYTES..at + length];
        header.crc = crc::chain(before.chain, &header, before.position, body).0.into();
        payload[at..at + FRAME_HEADER_BYTES].copy_from_slice(header.as_bytes());
        *before = before.after(&header);
        at += header.span() as usize;
    }
}

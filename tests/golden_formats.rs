//! The formats on the disk, byte by byte: what this version writes is what `tests/golden/` holds, and reads back as what it
//! means. A difference is a change of format: a new version number, not a new golden file.
//!
//! `QUORATE_BLESS=1 cargo test --test golden_formats` writes the files of formats that are new.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

use std::fmt::Write as _;
use std::path::PathBuf;

use quorate::frame::payload::{EventCursor, TimerFired};
use quorate::frame::{FrameHeader, Kind, Predecessor, crc};
use quorate::journal::memory_disk::MemoryDisk;
use quorate::journal::node_state::{
    BootId, CleanMark, NODE_STATE_NAME, NodeState, NodeStateStore, StartInput, Truncation,
};
use quorate::journal::seal::Seal;
use quorate::journal::segment_header::{Content, SegmentHeader};
use quorate::types::{
    Chain, Commit, CutEpoch, Durable, Generation, GroupId, Incarnation, Leadership, NodeId,
    Position, Sequence, Term, Timestamp,
};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

const GROUP: GroupId = GroupId(0x0123_4567_89AB_CDEF);
const GENERATION: Generation = Generation { counter: 2, random: 0xA1B2_C3D4 };

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Sixteen bytes to a line, behind their offset; lines of zeroes are left out, the last line is the length.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes.chunks(16).enumerate() {
        if line.iter().any(|&byte| byte != 0) {
            write!(text, "{:06x} ", number * 16).unwrap();
            for byte in line {
                write!(text, " {byte:02x}").unwrap();
            }
            text.push('\n');
        }
    }
    writeln!(text, "{:06x}", bytes.len()).unwrap();
    text
}

fn undump(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let offset = usize::from_str_radix(words.next().unwrap(), 16).unwrap();
        bytes.resize(offset, 0);
        bytes.extend(words.map(|word| u8::from_str_radix(word, 16).unwrap()));
    }
    bytes
}

/// Compares with the golden file, and returns the file's bytes.
fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = path(name);
    let text = dump(bytes);
    if std::env::var_os("QUORATE_BLESS").is_some() && !path.exists() {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == text, "{name}: the format has changed\n--- golden\n{found}--- now\n{text}");
    undump(&found)
}

fn mark(position: u64, sequence: u64, term: u32, chain: u32) -> Predecessor {
    Predecessor {
        position: Position(position),
        sequence: Sequence(sequence),
        term: Term(term),
        chain: Chain(chain),
    }
}

fn header(content: Content, before: Predecessor) -> SegmentHeader {
    SegmentHeader {
        content,
        group: GROUP,
        generation: GENERATION,
        segment_bytes: 16 * 1024 * 1024,
        before,
        cut_epoch: CutEpoch(3),
    }
}

#[test]
fn header_page_of_a_segment_with_both_seals() {
    let written = header(Content::Segment, mark(0x0300_0000, 70_000, 9, 0xCAFE_BABE));
    let seal = |number| Seal {
        number,
        epoch: CutEpoch(3),
        certain: mark(0x0300_0400 + number, 70_010, 9, 0x1111_2222),
        claimed: mark(0x0300_0800 + number, 70_020, 10, 0x3333_4444),
        known_commit: Commit(Position(0x0300_0200)),
    };
    let mut page = written.encode();
    for seal in [seal(40), seal(41)] {
        page[seal.offset()..][..512].copy_from_slice(&seal.encode(GROUP));
    }
    let page = golden("segment-header-page.hex", &page);
    assert_eq!(SegmentHeader::decode(&page), Ok(written));
    assert_eq!(Seal::newest(&page, GROUP), Some(seal(41)));
    assert_eq!(Seal::decode(&page[1024..1536], GROUP), Some(seal(40)));
}

#[test]
fn header_page_of_saved_bytes() {
    let written = header(Content::Quarantine, mark(0x0300_0420, 70_011, 9, 0x5555_6666));
    let page = golden("quarantine-header-page.hex", &written.encode());
    assert_eq!(SegmentHeader::decode(&page), Ok(written));
}

#[test]
fn node_state_with_everything_and_with_nothing() {
    let node = NodeId(2);
    let input = StartInput {
        boot_id: BootId(*b"0123456789abcdef"),
        hot_tier_id: 0x7777_8888_9999_AAAA,
        hot_whole: false,
        promise_lost: false,
        first_incarnation: Incarnation(0x1234),
    };
    let disk = MemoryDisk::new();
    let store = NodeStateStore::open(&disk, GROUP, node).unwrap();
    let blank = NodeState::start(None, GROUP, node, input).state;
    store.record_start(&disk, &blank).unwrap();
    let bytes = golden("node-state-first-start.hex", &disk.bytes(NODE_STATE_NAME).unwrap());
    assert_eq!(read_back(&bytes, node), blank);

    let leadership = Leadership { generation: GENERATION, term: Term(11) };
    let tail = mark(0x0300_0420, 70_011, 9, 0x5555_6666);
    let full = store
        .update(|state| {
            state.vote_as_witness(leadership, NodeId(4))?;
            state.found(leadership)?;
            state.allow_memory()?;
            state.truncate(Truncation { at: mark(0x0100_0040, 5, 3, 0x99), epoch: CutEpoch(1) })?;
            let commit = Commit(Position(0x0300_0200));
            state.stop(CleanMark { tail, commit }, Durable(tail.position))
        })
        .unwrap();
    let bytes = golden("node-state-stopped.hex", &disk.bytes(NODE_STATE_NAME).unwrap());
    assert_eq!(read_back(&bytes, node), full);
}

fn read_back(bytes: &[u8], node: NodeId) -> NodeState {
    let disk = MemoryDisk::new();
    disk.put(NODE_STATE_NAME, bytes);
    NodeStateStore::open(&disk, GROUP, node).unwrap().state().unwrap()
}

#[test]
fn frames_as_they_follow_the_genesis() {
    let open = &b"0123456789abcdefname"[..];
    golden("frames.hex", &frames(&[(Kind::SessionOpen, open), (Kind::Command, b"")]));
}

#[test]
fn frames_of_a_timer_and_of_the_event_cursor() {
    let fired = TimerFired { id: U64::new(0x0102_0304_0506_0708), schedule: U64::new(9) };
    let cursor = EventCursor { through: U64::new(0x1112_1314_1516_1718) };
    let entries = [(Kind::Timer, fired.as_bytes()), (Kind::EventCursor, cursor.as_bytes())];
    let bytes = golden("timer-and-cursor-frames.hex", &frames(&entries));
    assert_eq!(TimerFired::ref_from_bytes(&bytes[32..48]), Ok(&fired));
    assert_eq!(EventCursor::ref_from_bytes(&bytes[96..104]), Ok(&cursor));
}

fn frames(entries: &[(Kind, &[u8])]) -> Vec<u8> {
    let mut before = Predecessor::genesis(GROUP);
    let mut log = Vec::new();
    for &(kind, payload) in entries {
        let length = (32 + payload.len()) as u32;
        let sequence = before.sequence.next();
        let mut header =
            FrameHeader::new(length, kind, Term(1), sequence, Timestamp(1_700_000_000));
        header.crc = crc::chain(before.chain, &header, before.position, payload).0.into();
        log.extend_from_slice(header.as_bytes());
        log.extend_from_slice(payload);
        before = before.after(&header);
        log.resize(before.position.0 as usize, 0);
    }
    log
}

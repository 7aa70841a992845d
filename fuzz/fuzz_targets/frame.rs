//! Any bytes as a log: what is accepted chains, and is accepted again; no length leads out of the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::frame::payload::batch_items;
use quorate::frame::{FrameError, Kind, Predecessor, check_frame, crc};
use quorate::journal::reader::{SliceBytes, Walker};
use quorate::types::{Chain, GroupId, Position, Sequence, Term};
use zerocopy::{FromBytes, IntoBytes};

const SEGMENT_BYTES: u64 = 64 * 1024;

fuzz_target!(|bytes: &[u8]| {
    // The first bytes say what stands before, the rest is the log.
    let Some((head, log)) = bytes.split_first_chunk::<4>() else { return };
    let start = Predecessor {
        position: Position(u64::from(head[0]) * 32),
        sequence: Sequence(head[1].into()),
        term: Term(head[2].into()),
        chain: Predecessor::genesis(GroupId(head[3].into())).chain,
    };
    check_any(start, log);
    let repaired = with_good_checksums(start, log);
    let mut walker =
        Walker::new(SliceBytes { base: start.position, bytes: &repaired }, SEGMENT_BYTES, start);
    let limit = Position(u64::MAX);
    let mut before = start;
    while let Ok(Some(found)) = walker.next_frame(limit) {
        assert_eq!(found.position, before.position);
        assert!(found.header.span() >= 32);
        let padding = found.header.kind() == Some(Kind::Padding);
        let sequence = if padding { before.sequence } else { before.sequence.next() };
        assert_eq!(found.header.sequence(), sequence);
        assert!(found.header.term() >= before.term);
        let _ = batch_items(found.payload).count();
        before = before.after(&found.header);
    }
    assert_eq!(walker.before(), before);
});

/// Bytes as they are: judged without reading beyond them.
fn check_any(start: Predecessor, log: &[u8]) {
    let Some(word) = log.first_chunk().map(|&word| u32::from_le_bytes(word)) else { return };
    if let Ok(header) = check_frame(start, SEGMENT_BYTES, word, log) {
        let payload = match header.kind() {
            Some(Kind::Padding) => &[][..],
            _ => &log[32..header.length() as usize],
        };
        assert_eq!(crc::chain(start.chain, &header, start.position, payload), header.chain());
    }
}

/// The same bytes with the checksum that each frame should have, so that what lies behind the checksum is reached too.
fn with_good_checksums(start: Predecessor, log: &[u8]) -> Vec<u8> {
    let mut log = log.to_vec();
    let mut before = start;
    loop {
        let at = before.position.since(start.position) as usize;
        let Some(bytes) = log.get(at..) else { return log };
        let Some(word) = bytes.first_chunk().map(|&word| u32::from_le_bytes(word)) else {
            return log;
        };
        let mut header = match check_frame(before, SEGMENT_BYTES, word, bytes) {
            Err(FrameError::Chain { computed: Chain(computed), .. }) => {
                log[at + 4..at + 8].copy_from_slice(&computed.to_le_bytes());
                quorate::frame::FrameHeader::read_from_bytes(&log[at..at + 32]).expect("32 bytes")
            }
            Ok(header) => header,
            Err(_) => return log,
        };
        header.length.set(word);
        assert_eq!(header.as_bytes().len(), 32);
        before = before.after(&header);
    }
}

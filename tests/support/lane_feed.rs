//! Feeds arbitrary bytes to the decoder of catch-up frames. Used by the fuzz target `lane` and by a property test; nothing may
//! panic, and what is taken for a frame is written again as the same bytes, but for reserved ones.
//!
//! The input is a byte of mode and a stream. Bit 0: the end that reads it. Bit 1: the first frame gets a header that is let in,
//! with the checksum of its bytes.

use quorate::control::lane::wire::{
    CatchUpHeader, LANE_HEADER_BYTES, LANE_MAGIC, LANE_VERSION, LaneEnd, LaneNodes, decode, encode,
};
use quorate::frame::crc::crc32c;
use quorate::types::{Generation, GroupId, NodeId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

const GENERATION: Generation = Generation { counter: 1, random: 7 };

fn nodes(own: u16) -> LaneNodes {
    LaneNodes { group: GroupId(7), own: NodeId(own), generation: GENERATION }
}

/// Returns how many frames were taken.
pub(crate) fn feed(input: &[u8]) -> usize {
    let Some((mode, bytes)) = input.split_first() else { return 0 };
    let end = if mode & 1 == 0 { LaneEnd::Source } else { LaneEnd::Asker };
    let mut stream = bytes.to_vec();
    if mode & 2 != 0 {
        let_in(&mut stream);
    }
    let (mut rest, mut taken) = (&stream[..], 0);
    while let Ok(Some(frame)) = decode(rest, end, &nodes(2)) {
        let mut again = Vec::new();
        encode(&mut again, &frame.message, NodeId(2), &nodes(frame.from.0));
        assert_eq!(again.len(), frame.bytes);
        let same = decode(&again, end, &nodes(2)).expect("it was written here").expect("whole");
        assert_eq!(same, frame);
        rest = &rest[frame.bytes..];
        taken += 1;
    }
    taken
}

/// Gives the first frame of a stream a header that is let in.
fn let_in(stream: &mut [u8]) {
    let Ok((mut header, body)) = CatchUpHeader::read_from_prefix(&*stream) else { return };
    header.magic = U16::new(LANE_MAGIC);
    header.version = LANE_VERSION;
    header.group = U64::new(7);
    header.generation = U64::new(GENERATION.to_u64());
    header.to = U16::new(2);
    header.checksum = U32::new(0);
    let body = &body[..body.len().min(header.length.get() as usize)];
    header.checksum = U32::new(crc32c(crc32c(0, header.as_bytes()), body));
    stream[..LANE_HEADER_BYTES].copy_from_slice(header.as_bytes());
}

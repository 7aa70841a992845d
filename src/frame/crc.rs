//! The running checksum that makes the log a chain.
//!
//! CRC-32C (Castagnoli, RFC 3720 §12.1), started from the checksum of the frame before, over: length, term, kind, flags,
//! version, sequence, timestamp (the header without its own checksum field), the frame's position, and the payload.

use crc_fast::{CrcAlgorithm, Digest};

use super::FrameHeader;
use crate::types::{Chain, Position};

/// Bytes of the header and the position that are checksummed.
const COVERED_BYTES: usize = 36;

/// The checksum of a frame that stands at `position` behind a frame whose checksum is `before`.
///
/// `payload` is empty for padding, whose body is neither stored nor chained.
#[inline]
#[must_use]
pub fn chain(before: Chain, header: &FrameHeader, position: Position, payload: &[u8]) -> Chain {
    let [first, sequence, timestamp] = header.words();
    // Each word joins the upper half of one field with the lower half of the next.
    let words = [
        u64::from(header.length()) | first << 32,
        first >> 32 | sequence << 32,
        sequence >> 32 | timestamp << 32,
        timestamp >> 32 | position.0 << 32,
    ];
    let mut covered = [0_u8; COVERED_BYTES];
    let (head, last) = covered.as_chunks_mut::<8>();
    for (bytes, word) in head.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    last.copy_from_slice(&((position.0 >> 32) as u32).to_le_bytes());
    Chain(crc32c_of_two(before.0, &covered, payload))
}

/// With one state for both parts: making one is a good part of the cost of a small frame. Not to be inlined: what is done
/// before and after it is a handful of instructions, this is hundreds.
#[inline(never)]
fn crc32c_of_two(before: u32, covered: &[u8; COVERED_BYTES], payload: &[u8]) -> u32 {
    let mut digest = digest(before);
    digest.update(covered);
    digest.update(payload);
    digest.finalize() as u32
}

/// CRC-32C of `bytes`, continued from `before` (0 to begin).
#[must_use]
pub fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let mut digest = digest(before);
    digest.update(bytes);
    digest.finalize() as u32
}

#[inline]
fn digest(before: u32) -> Digest {
    Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(before ^ u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::types::{Sequence, Term, Timestamp};

    /// The definition, bit by bit.
    fn plain(before: u32, bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        !bytes.iter().fold(!before, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
    }

    #[test]
    fn check_value_of_the_standard() {
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
        assert_eq!(plain(0, b"123456789"), 0xE306_9283);
    }

    #[test]
    fn continues_where_it_stopped() {
        let whole = crc32c(0, b"123456789");
        assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), whole);
        assert_eq!(crc32c(whole, b""), whole);
    }

    #[test]
    fn a_frame_is_checksummed_as_documented_whatever_its_length() {
        let payload: Vec<u8> = (0..3000_u32).map(|n| ((n * 7) >> 3) as u8).collect();
        let position = Position(0x0123_4567_89AB_CDE0);
        for length in (0..300).chain([1000, 1023, 1024, 1408, 3000]) {
            let (sequence, time) =
                (Sequence(0xFEDC_BA98_7654_3210), Timestamp(0x1122_3344_5566_7788));
            let header = FrameHeader::new(
                length as u32 + 32,
                Kind::Timer,
                Term(0xA1B2_C3D4),
                sequence,
                time,
            );
            let bytes = zerocopy::IntoBytes::as_bytes(&header);
            let mut covered = bytes[..4].to_vec();
            covered.extend_from_slice(&bytes[8..]);
            covered.extend_from_slice(&position.0.to_le_bytes());
            covered.extend_from_slice(&payload[..length]);
            let chained = chain(Chain(0xDEAD_BEEF), &header, position, &payload[..length]);
            assert_eq!(chained.0, plain(0xDEAD_BEEF, &covered));
        }
    }
}

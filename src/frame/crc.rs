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
#[must_use]
pub fn chain(before: Chain, header: &FrameHeader, position: Position, payload: &[u8]) -> Chain {
    let mut covered = [0_u8; COVERED_BYTES];
    let bytes = zerocopy::IntoBytes::as_bytes(header);
    covered[..4].copy_from_slice(&bytes[..4]);
    covered[4..28].copy_from_slice(&bytes[8..]);
    covered[28..].copy_from_slice(&position.0.to_le_bytes());
    Chain(crc32c(crc32c(before.0, &covered), payload))
}

/// CRC-32C of `bytes`, continued from `before` (0 to begin).
#[must_use]
#[allow(clippy::cast_possible_truncation)] // a 32-bit CRC in the library's 64-bit state
pub fn crc32c(before: u32, bytes: &[u8]) -> u32 {
    let mut digest =
        Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(before ^ u32::MAX));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_standard() {
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
    }

    #[test]
    fn continues_where_it_stopped() {
        let whole = crc32c(0, b"123456789");
        assert_eq!(crc32c(crc32c(0, b"1234"), b"56789"), whole);
        assert_eq!(crc32c(whole, b""), whole);
    }
}

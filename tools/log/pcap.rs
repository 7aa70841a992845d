//! A log as a capture: each frame as the datagrams that carry it on the wire, in IPv4 and UDP.

use std::io::{self, Write};

use zerocopy::IntoBytes;

use quorate::journal::reader::Found;
use quorate::stream::datagram::{DatagramHeader, DatagramKind};
use quorate::types::{Generation, GroupId, Leadership};

/// Of a capture with times in nanoseconds.
const MAGIC: u32 = 0xA1B2_3C4D;
/// Packets are IP packets.
const LINK_RAW: u32 = 101;
/// Longest packet.
const PACKET_BYTES_MAX: u32 = 65_535;
/// Bytes of the log in one datagram.
const PIECE_BYTES: usize = 32 * 1024;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
/// Port of both ends: none that means something else.
const PORT: u16 = 7000;
/// Sender and receiver: addresses for documentation.
const FROM: [u8; 4] = [192, 0, 2, 1];
const TO: [u8; 4] = [192, 0, 2, 2];

/// What stands before the first packet.
pub(crate) fn begin(out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(4_u16.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(PACKET_BYTES_MAX.to_le_bytes());
    bytes.extend(LINK_RAW.to_le_bytes());
    out.write_all(&bytes)
}

/// One frame; of padding the header.
pub(crate) fn frame(
    out: &mut dyn Write,
    group: GroupId,
    generation: Generation,
    found: &Found<'_>,
) -> io::Result<()> {
    let leadership = Leadership { generation, term: found.header.term() };
    let mut bytes = found.header.as_bytes().to_vec();
    bytes.extend_from_slice(found.payload);
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
        let mut header = DatagramHeader::new(DatagramKind::Data, group, None, leadership);
        header.position.set(found.position.0 + (number * PIECE_BYTES) as u64);
        packet(out, found.header.timestamp().0, header.as_bytes(), piece)?;
    }
    Ok(())
}

fn packet(out: &mut dyn Write, time_ns: u64, header: &[u8], body: &[u8]) -> io::Result<()> {
    let udp_bytes = UDP_BYTES + header.len() + body.len();
    let length = (IP_BYTES + udp_bytes) as u16;
    let mut bytes = Vec::new();
    bytes.extend(((time_ns / 1_000_000_000) as u32).to_le_bytes());
    bytes.extend(((time_ns % 1_000_000_000) as u32).to_le_bytes());
    bytes.extend(u32::from(length).to_le_bytes());
    bytes.extend(u32::from(length).to_le_bytes());
    let mut ip = [0; IP_BYTES];
    // Version 4 with a header of five words; time to live 1; UDP.
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[8] = 1;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&FROM);
    ip[16..20].copy_from_slice(&TO);
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(ip);
    bytes.extend(PORT.to_be_bytes());
    bytes.extend(PORT.to_be_bytes());
    bytes.extend((udp_bytes as u16).to_be_bytes());
    // No checksum: the log has its own.
    bytes.extend([0; 2]);
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(body);
    out.write_all(&bytes)
}

/// The checksum of an IPv4 header (RFC 791).
fn checksum(header: &[u8; IP_BYTES]) -> u16 {
    let (words, _) = header.as_chunks::<2>();
    let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

const _: () = assert!(IP_BYTES + UDP_BYTES + 64 + PIECE_BYTES <= PACKET_BYTES_MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ip_header_sums_to_nothing() {
        // The example of the calculation that every textbook has.
        let words = [0x4500_0073_u32, 0x0000_4000, 0x4011_0000, 0xc0a8_0001, 0xc0a8_00c7];
        let mut header = [0; IP_BYTES];
        for (bytes, word) in header.chunks_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        assert_eq!(checksum(&header), 0xb861);
    }
}

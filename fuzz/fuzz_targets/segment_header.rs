//! Header pages and seals, of anybody: nothing panics, and what is accepted is written again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::journal::seal::Seal;
use quorate::journal::segment_header::{SEAL_OFFSETS, SegmentHeader};
use quorate::limits::SEAL_BYTES;

fuzz_target!(|page: &[u8]| {
    match SegmentHeader::decode(page) {
        Ok(header) => {
            let own = SegmentHeader::decode_segment(
                page,
                header.group,
                header.segment_bytes,
                header.before.position,
            );
            assert!(own.is_ok() || own.is_err_and(|error| !error.to_string().is_empty()));
            assert_eq!(header.encode()[..128], page[..128]);
            if let Some(seal) = Seal::newest(page, header.group) {
                let places = SEAL_OFFSETS.map(|at| page.get(at..at + SEAL_BYTES));
                let sector = seal.encode(header.group);
                assert!(places.into_iter().flatten().any(|found| found == sector));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

//! Datagrams of arbitrary bytes: nothing panics, no memory is lost, and the seeds of the fuzz target still mean something.

#[path = "support/datagram_feed.rs"]
mod datagram_feed;

use proptest::prelude::*;

/// One record of the feed: length, mode, and bytes that are often 0 or 255.
fn record(mut random: u64) -> Vec<u8> {
    let mut next = || {
        random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (random >> 33) as u32
    };
    let length = next() % 200;
    let mut record = vec![length as u8, (next() % 8) as u8];
    record.extend((0..length).map(|_| match next() % 4 {
        0 => 0,
        1 => 255,
        _ => next() as u8,
    }));
    record
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn garbage_changes_nothing_that_it_should_not(
        records in prop::collection::vec(any::<u64>(), 0..60),
    ) {
        let input: Vec<u8> = records.into_iter().flat_map(record).collect();
        datagram_feed::feed(&input);
    }
}

#[test]
fn the_seeds_of_the_fuzz_target_are_fed() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/datagram");
    let mut count = 0;
    for entry in std::fs::read_dir(&corpus).expect("the corpus is part of the repository") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        datagram_feed::feed(&bytes);
        count += 1;
    }
    assert!(count >= 10, "{count} seeds");
}

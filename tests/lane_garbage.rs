//! Whatever comes over a catch-up connection: no panic, and no frame that was not sent.

#[path = "support/lane_feed.rs"]
mod lane_feed;

use proptest::prelude::*;

/// The seeds of the fuzz target reach every kind of frame.
#[test]
fn the_seeds_are_taken_as_they_are_named() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/lane");
    let mut seeds = 0;
    for seed in std::fs::read_dir(folder).expect("the seeds are there") {
        let seed = seed.expect("it can be read");
        let bytes = std::fs::read(seed.path()).expect("it can be read");
        let bad = seed.file_name().to_string_lossy().starts_with("bad-");
        assert_eq!(lane_feed::feed(&bytes) > 0, !bad, "{:?}", seed.file_name());
        seeds += 1;
    }
    assert!(seeds >= 9, "{seeds} seeds");
}

proptest! {
    #[test]
    fn garbage_is_refused_without_a_panic(
        mode in 0..4_u8,
        kind in 0..6_u8,
        length in prop_oneof![0..64_u32, any::<u32>()],
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut input = vec![mode, b'Q', b'l', 1, kind];
        input.extend(length.to_le_bytes());
        input.resize(1 + 40, 0);
        input.extend(body);
        lane_feed::feed(&input);
    }
}

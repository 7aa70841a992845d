//! Arbitrary bytes to the decoder of catch-up frames: see `tests/support/lane_feed.rs`.

#![no_main]

#[path = "../../tests/support/lane_feed.rs"]
mod lane_feed;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    lane_feed::feed(input);
});

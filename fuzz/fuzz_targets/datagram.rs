//! Arbitrary datagrams to the parser, the lanes of a node, and a client: see `tests/support/datagram_feed.rs`.

#![no_main]

#[path = "../../tests/support/datagram_feed.rs"]
mod datagram_feed;

libfuzzer_sys::fuzz_target!(|input: &[u8]| datagram_feed::feed(input));

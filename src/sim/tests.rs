//! The simulator itself: it repeats, it finds nothing where nothing is wrong, and it hits what it is meant to hit.

use super::*;

#[test]
fn a_seed_plays_the_same_run_again() {
    for seed in 0..4 {
        let plan = Plan::draw(seed, None);
        let (first, second) = (run(&plan, false), run(&plan, true));
        assert_eq!(first.trace_hash, second.trace_hash);
        assert_eq!((first.events, first.commands), (second.events, second.commands));
    }
}

/// The only node that may lead has lost its memory, and the two that have the log may not lead: it takes their log over, and
/// stands by all votes.
#[test]
fn r3_seed_1011_the_log_of_nodes_that_never_lead_is_taken_over_by_the_one_that_may() {
    let outcome = run(&Plan::draw(1011, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("leader-sync") > 0);
}

/// A follower took more from the files of its leader than the leader's stream had sent: what it said of itself was held for a
/// lie, and the stream stood still.
#[test]
fn d16_seed_1000088_who_caught_up_beyond_what_was_streamed_is_believed() {
    let outcome = run(&Plan::draw(1_000_088, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("caught-up") > 0);
}

/// A piece ended inside the padding of a segment: its frame needs no body, so that the log ended above the bytes that had come.
#[test]
fn a7_seed_1000119_a_piece_that_ends_inside_padding_is_taken() {
    let outcome = run(&Plan::draw(1_000_119, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// A node was started anew, and a word of its earlier life came late: the leader held it for a follower, and never called it.
#[test]
fn k2_seed_1000476_a_late_word_of_an_earlier_life_does_not_keep_a_node_out() {
    let outcome = run(&Plan::draw(1_000_476, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

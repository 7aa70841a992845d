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

/// It had given up its role to take a log over, and its leader, which it still had, did not know.
#[test]
fn seed_123_one_that_took_over_a_log_for_nothing_follows_again() {
    let outcome = run(&Plan::draw(123, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("pull") > 0);
}

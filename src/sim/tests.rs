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

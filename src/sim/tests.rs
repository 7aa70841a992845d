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

/// A tool for those who look into a seed: `SEED=7 cargo test --release sim::tests::look -- --ignored --nocapture`.
#[test]
#[ignore = "for looking at one seed"]
fn look() {
    let word = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = word("SEED").unwrap_or(0);
    let plan = Plan::draw(seed, word("NODES").map(|nodes| nodes as usize));
    let outcome = run(&plan, true);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("{plan:?}\n{:?}\n{:?}", outcome.violation, outcome.coverage);
}

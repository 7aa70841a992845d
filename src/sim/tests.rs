//! The simulator itself: it repeats, it finds nothing where nothing is wrong, and it hits what it is meant to hit.

use super::*;
use crate::types::Nanos;

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

/// A file rotted on one node when all others had let go what it held: nobody gave the bytes, and it stayed damaged for ever.
#[test]
fn d17_seed_120_what_all_others_have_let_go_keeps_nobody_damaged() {
    let outcome = run(&Plan::draw(120, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// A quiet world of three voters and two observers, and what became of it with the observers `far` away.
fn with_observers(far: (u64, u64)) -> Outcome {
    let ordinary = |plan: &Plan| plan.stories.is_empty() && plan.chaos_ns < 20 * Nanos::SECOND;
    let plan = (0..100).map(|seed| Plan::draw(seed, Some(5))).find(ordinary);
    let mut plan = plan.expect("half of them are");
    plan.observers = vec![false, false, false, true, true];
    plan.only(&[]);
    (plan.look_ns, plan.segment_bytes, plan.window_bytes) = (0, 256 * 1024, 256 * 1024);
    plan.command_bytes_max = 64;
    plan.priorities = vec![1; 5];
    plan.far = far;
    (plan.loss, plan.duplicate, plan.corrupt, plan.detour) = (0, 0, 0, (0, 1));
    (plan.delay_ns, plan.sync_ns, plan.think_ns) =
        ((50_000, 50_000), 100_000, 3 * Nanos::MILLISECOND);
    (plan.chaos_ns, plan.fault_gap_ns) = (5 * Nanos::SECOND, 1_000 * Nanos::SECOND);
    run(&plan, false)
}

#[test]
fn k11_two_observers_behind_80_ms_and_1_per_cent_loss_slow_nobody_and_stay_close() {
    let near = with_observers((0, 0));
    let far = with_observers((80 * Nanos::MILLISECOND, 10_000));
    for outcome in [&near, &far] {
        assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
        assert!(outcome.coverage.of("observer-follows") > 0);
        assert!(outcome.pace.answers > 1000, "{outcome:?}");
    }
    // Clients wait as long as without the distance, to within a tenth, at the mean and at the worst.
    let mean = |outcome: &Outcome| outcome.pace.waited_ns / outcome.pace.answers;
    assert!(mean(&far) <= mean(&near) * 11 / 10, "{} and {} ns", mean(&far), mean(&near));
    assert!(far.pace.longest_wait_ns <= near.pace.longest_wait_ns * 11 / 10 + Nanos::MILLISECOND);
    // One way, and for what was lost one more there and back: never as long as three of those.
    let way = 80 * Nanos::MILLISECOND;
    assert!(near.pace.observer_lag_ns < way / 2, "{}", near.pace.observer_lag_ns);
    assert!(
        far.pace.observer_lag_ns >= way && far.pace.observer_lag_ns < 7 * way,
        "{}",
        far.pace.observer_lag_ns
    );
}

/// A follower took more from the files of its leader than the leader's stream had sent: what it said of itself was held for a
/// lie, and the stream stood still.
#[test]
fn d16_seed_1000088_who_caught_up_beyond_what_was_streamed_is_believed() {
    let plan = Plan { retention_bytes: 0, ..Plan::draw(1_000_088, None) };
    let outcome = run(&plan, false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("caught-up") > 0);
}

/// A piece ended inside the padding of a segment: its frame needs no body, so that the log ended above the bytes that had come.
#[test]
fn a7_seed_1000119_a_piece_that_ends_inside_padding_is_taken() {
    let outcome = run(&Plan::draw(1_000_119, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// A node that was behind asked three others first that were cut off, and waited as long for each as for one that is slow: the
/// quorum that needed it waited too.
#[test]
fn k2_seed_7002233_sources_that_are_gone_cost_little() {
    let outcome = run(&Plan::draw(7_002_233, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("caught-up") > 0);
}

/// A core was told to lead, or of another durability, and of a fence in one turn: it appended the one, and then was fenced. The
/// checker took that for growth after the fence.
#[test]
fn d7_seeds_212_and_77129_what_is_appended_before_a_fence_in_the_same_step_is_no_growth() {
    for seed in [212, 77_129] {
        let outcome = run(&Plan::draw(seed, None), false);
        assert!(outcome.violation.is_none(), "{seed}: {:?}", outcome.violation);
    }
}

/// What a wiped node had been told at the founding came once more: it took all others for blank, and stood in a generation of
/// its own.
#[test]
fn d3_seed_140_opinions_of_the_founding_that_come_again_make_nobody_stand() {
    let outcome = run(&Plan::draw(140, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("replay") > 0);
}

/// The power of a node failed 1.4 ms after it had been counted into the quorum that is healed first: it had been struck in the
/// last moment of the chaos.
#[test]
fn seed_5000841_who_is_about_to_lose_its_power_is_not_counted_into_the_healed_quorum() {
    let outcome = run(&Plan::draw(5_000_841, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("power-loss") > 0);
}

/// The last frame that was durable rotted before a seal said that it was, and then the power failed.
#[test]
fn k11_seed_5000523_rot_that_looks_torn_leaves_a_node_that_says_it_may_have_forgotten() {
    let outcome = run(&Plan::draw(5_000_523, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("rot") > 0);
}

/// A node that was behind stood before padding whose term start it did not have, and counted it as committed.
#[test]
fn a7_seed_7001092_padding_joins_with_the_term_start_behind_it() {
    let outcome = run(&Plan::draw(7_001_092, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// It had given up its role to take a log over, and its leader, which it still had, did not know.
#[test]
fn seed_123_one_that_took_over_a_log_for_nothing_follows_again() {
    let outcome = run(&Plan::draw(123, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    assert!(outcome.coverage.of("pull") > 0);
}

/// A node was started anew, and a word of its earlier life came late: the leader held it for a follower, and never called it.
#[test]
fn k2_seed_1000476_a_late_word_of_an_earlier_life_does_not_keep_a_node_out() {
    let outcome = run(&Plan::draw(1_000_476, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// A node with the higher priority heard its leader late: control saw a restarted node ahead of it, and took over that one's log
/// when its core had long acknowledged more.
#[test]
fn r3_seed_20002832_what_was_acknowledged_since_the_canvass_is_not_cut() {
    let outcome = run(&Plan::draw(20_002_832, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// The log rotted below the one snapshot that a node had been given: it was thrown away for that, and no other could be taken.
#[test]
fn r14_seed_20000048_a_snapshot_outlasts_damage_to_the_log_below_it() {
    let outcome = run(&Plan::draw(20_000_048, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// A sync that was to fail had not come yet when the faults ended: a node of the quorum that was healed failed 6 ms later.
#[test]
fn seed_20005578_no_sync_fails_when_the_faults_are_over() {
    let outcome = run(&Plan::draw(20_005_578, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// Votes for term 7 came when term 8 had committed: whoever leads late in an older term need not have that.
#[test]
fn seed_20021687_a_leader_that_is_elected_late_lacks_only_what_newer_terms_committed() {
    let outcome = run(&Plan::draw(20_021_687, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// A leader without a quorum turned two commands away, and logged the three behind them before its term was open: refused when
/// they were applied, they were held for logged when they came again, and their client waited for ever.
#[test]
fn a12_seed_20025396_what_was_logged_too_early_is_taken_when_it_comes_again() {
    let outcome = run(&Plan::draw(20_025_396, None), false);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

//! Who leads, and when somebody else does.

use super::{Fault, Script};

/// A crash of the leader is over in under 2.5 leader timeouts.
const OUTAGE_MS: u64 = 375;

#[test]
fn g1_the_leader_dies_and_the_clients_go_on_with_another() {
    let played = Script::of(3).at(1000, Fault::Crash, 0, 2000).play();
    let leads = played.leads();
    assert!(leads.len() == 2 && leads[1].0 - 1000 < OUTAGE_MS, "{leads:?}");
    assert!(played.answered(1000 + OUTAGE_MS, 3000) > 50, "g5: and in order, say the checkers");
}

#[test]
fn g2_a_follower_dies_and_no_client_notices() {
    let played = Script::of(3).at(1000, Fault::Crash, 1, 2000).play();
    assert_eq!(played.leads().len(), 1);
    assert!(played.answered(1000, 1100) > 2);
}

#[test]
fn g7_the_lead_is_handed_over_three_times_under_load_and_g13_the_order_stays() {
    let mut script = Script::of(3);
    for turn in 0..3 {
        script = script.at(1000 + 400 * turn, Fault::HandOver, 1, 0);
    }
    let leads = script.play().leads();
    assert_eq!(leads.len(), 4, "g6, g8: there and back, with commands under way: {leads:?}");
    assert!(leads.windows(2).all(|pair| pair[0].1 != pair[1].1));
}

#[test]
fn g11_of_equal_logs_the_highest_priority_leads() {
    for (priorities, order) in [([1, 3, 2], [1, 2]), ([2, 1, 3], [2, 0]), ([1, 1, 1], [0, 1])] {
        let mut script = Script::of(3).priorities(&priorities);
        script.plan.commands = 20; // all are as recent as the others when it dies
        let leads = script.at(1500, Fault::Crash, 0, 1500).play().leads();
        let nodes: Vec<_> = leads.iter().map(|(_, node)| *node).collect();
        assert_eq!(nodes, order, "{priorities:?}");
    }
}

#[test]
fn g83_nodes_that_never_lead_vote_and_acknowledge() {
    let script = Script::of(3).priorities(&[1, 0, 0]);
    let played = script.at(1000, Fault::Crash, 1, 1000).at(2500, Fault::Crash, 0, 300).play();
    assert!(played.answered(1100, 2000) > 20, "one that never leads makes a quorum");
    assert!(played.leads().iter().all(|(_, node)| *node == 0));
    assert_eq!(played.leads().len(), 2, "g84: the only one that may lead is back");
    assert_eq!(played.answered(2510, 2790), 0);
}

#[test]
fn g85_one_that_never_leads_has_the_newest_log_and_it_is_taken_over() {
    // Node 1 leads, node 2 never does, node 0 lags.
    let script = Script::of(3).priorities(&[1, 2, 0]);
    let played = script.way(1000, Fault::Lag, (0, 2), 400).at(1100, Fault::Isolate, 0, 1500).play();
    assert!(played.outcome.coverage.of("leader-sync") > 0);
    assert_eq!(played.leads()[1].1, 0);
}

#[test]
fn g91_a_leader_that_was_parted_comes_back_as_a_follower() {
    let leads = Script::of(3).at(1000, Fault::Isolate, 0, 1000).play().leads();
    assert_eq!(leads.len(), 2, "{leads:?}");
}

#[test]
fn g92_the_larger_part_goes_on_when_its_leader_dies_too() {
    let script = Script::of(5).part(1000, 0b01111, 2500);
    let played = script.at(1500, Fault::Crash, 0, 1500).play();
    assert_eq!(played.leads().len(), 2);
    assert!(played.answered(1500 + OUTAGE_MS, 3000) > 30);
}

#[test]
fn g102_leaders_die_one_after_the_other() {
    let mut script = Script::of(3);
    for turn in 0..4 {
        script = script.at(800 + 700 * turn, Fault::Crash, 0, 300);
    }
    assert_eq!(script.play().leads().len(), 5);
}

#[test]
fn g103_nobody_founds_a_group_before_all_are_there() {
    let script = Script::of(3).at(60, Fault::Crash, 2, 1500);
    let first = script.play().leads()[0];
    assert!(first.0 > 1560, "{first:?}");
}

#[test]
fn g113_one_that_comes_back_from_alone_disturbs_nobody() {
    let played = Script::of(3).at(1000, Fault::Isolate, 1, 1500).play();
    assert_eq!(played.leads().len(), 1);
    assert!(played.lines("Term(2)").is_empty(), "no term was raised");
}

#[test]
fn g116_clocks_that_are_set_elect_nobody() {
    let mut script = Script::of(3);
    for node in 0..3 {
        script = script.at(1000 + 300 * node as u64, Fault::ClockStep, node, 0);
    }
    assert_eq!(script.play().leads().len(), 1);
}

#[test]
fn d11_a_leader_with_another_clock_takes_time_no_way_back() {
    let script = Script::of(3).at(1000, Fault::ClockStep, 1, 0).at(1500, Fault::HandOver, 1, 0);
    let played = script.at(2000, Fault::ClockStep, 1, 0).at(2500, Fault::HandOver, 1, 0).play();
    assert_eq!(played.leads().len(), 3);
    assert_eq!(played.outcome.coverage.of("session-lost"), 0, "no session expires for it");
}

#[test]
fn g126_clients_find_the_leader_through_any_node() {
    let mut script = Script::of(5);
    for client in 0..3 {
        script = script.at(1000 + 200 * client as u64, Fault::ClientDies, client, 0);
    }
    assert!(script.play().outcome.coverage.of("redirect") > 0);
}

#[test]
fn g129_one_way_of_many_is_cut_and_the_leader_stays() {
    let script = Script::of(3).way(1000, Fault::OneWay, (0, 1), 800);
    let played = script.way(2200, Fault::OneWay, (1, 0), 800).play();
    assert_eq!(played.leads().len(), 1);
    assert!(played.answered(1000, 3000) > 50);
}

#[test]
fn g129_two_who_hear_only_the_third_agree_on_who_leads() {
    let script = Script::of(3).at(1000, Fault::Bridge, 0, 1500);
    let played = script.at(1200, Fault::Crash, 0, 50).play();
    assert!(played.answered(1800, 2500) > 10, "one of them, or the third");
}

#[test]
fn g130_a_leader_that_slept_too_long_leads_no_more() {
    let played = Script::of(3).at(1000, Fault::Pause, 0, 600).play();
    assert_eq!(played.leads().len(), 2, "d9: what it does when it wakes, the checkers see");
}

#[test]
fn d8_a_leader_that_hears_nobody_falls_silent_and_another_leads() {
    let script = Script::of(3).way(1000, Fault::OneWay, (1, 0), 1500);
    let leads = script.way(1000, Fault::OneWay, (2, 0), 1500).play().leads();
    assert!(leads.len() == 2 && leads[1].0 < 1000 + 2 * OUTAGE_MS, "{leads:?}");
}

#[test]
fn r4_an_election_that_failed_is_tried_again() {
    let script = Script::of(3).at(1000, Fault::Crash, 0, 2500);
    let played = script.at(1010, Fault::ControlCut, 1, 800).play();
    let leads = played.leads();
    assert!(leads.len() == 2 && leads[1].0 > 1800, "{leads:?}");
}

#[test]
fn r10_a_slow_node_stalls_nobody_and_r16_its_gap_heals_without_an_election() {
    let played = Script::of(3).way(1000, Fault::Lag, (0, 1), 1000).play();
    assert_eq!(played.leads().len(), 1);
    assert!(played.answered(1000, 2000) > 50);
}

#[test]
fn d19_what_three_of_five_hold_survives_two_leaders() {
    let mut script = Script::of(5);
    for turn in 0..2 {
        let at = 1000 + 260 * turn;
        script = script.way(at, Fault::Lag, (0, 3), 100).way(at, Fault::Lag, (0, 4), 100);
        script = script.at(at + 60, Fault::Crash, 0, 1500);
    }
    assert!(script.play().leads().len() >= 2);
}

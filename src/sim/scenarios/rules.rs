//! Groups of two, hand-overs that go wrong, and who may answer: scenarios that other tests touch, each for itself.

use super::{Fault, Played, Script};
use crate::mutants::Mutant;

/// Two nodes of which one alone votes: it is the quorum. This is what a leader of two that may lead alone is.
fn voter_and_observer() -> Script {
    let mut script = Script::of(2);
    script.plan.observers = vec![false, true];
    script
}

impl Played {
    /// Commands of each client with their places in the order, by their numbers.
    pub(super) fn assert_in_order(&self) {
        let told = self.lines("told: Placed");
        let word = |text: &str, name: &str| -> u64 {
            let rest = text.split(name).nth(1).expect("the trace names it");
            rest.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse()
                .expect("digits")
        };
        let mut placed: Vec<_> =
            told.iter().map(|(_, text)| (word(text, "number: "), word(text, "place: "))).collect();
        placed.sort_unstable();
        assert!(placed.len() > 100, "{}", placed.len());
        for pair in placed.windows(2) {
            let same_client = pair[0].0 >> 32 == pair[1].0 >> 32;
            assert!(!same_client || pair[0].1 < pair[1].1, "{pair:?}");
        }
    }

    /// Answers that this client had between these times, ms.
    pub(super) fn heard_by(&self, client: usize, from: u64, to: u64) -> usize {
        let lines = self.lines(&format!("client {client}: Ended"));
        lines.iter().filter(|(at, _)| (from..to).contains(at)).count()
    }
}

/// Clients with much under way.
pub(super) fn busy(mut script: Script) -> Script {
    script.plan.in_flight = 16;
    script.plan.think_ns /= 5;
    script.plan.commands = 2000;
    script
}

#[test]
fn g5_the_order_of_each_clients_commands_is_kept_when_leaders_die() {
    let script = busy(Script::of(3)).at(1000, Fault::Crash, 0, 500);
    let played = script.at(2000, Fault::Crash, 0, 500).play();
    assert_eq!(played.leads().len(), 3);
    played.assert_in_order();
}

#[test]
fn g6_the_lead_of_two_goes_there_and_back_three_times() {
    let script = (0..6)
        .fold(Script::of(2), |script, turn| script.at(800 + 400 * turn, Fault::HandOver, 1, 0));
    let leads = script.play().leads();
    assert_eq!(leads.len(), 7, "{leads:?}");
    assert!(leads.windows(2).all(|pair| pair[0].1 != pair[1].1), "{leads:?}");
}

#[test]
fn g8_the_lead_is_handed_over_under_load_and_no_client_loses_anything() {
    let script = (0..4).fold(busy(Script::of(3)), |script, turn| {
        script.at(1000 + 500 * turn, Fault::HandOver, 1, 0)
    });
    let played = script.play();
    assert_eq!(played.leads().len(), 5);
    assert_eq!(played.outcome.coverage.of("session-lost"), 0);
    for turn in 0..4 {
        let at = 1000 + 500 * turn;
        assert!(played.answered(at, at + 60) > 3, "turn {turn}: it goes on at once");
    }
}

#[test]
fn g13_the_order_is_kept_across_two_transfers_with_commands_under_way() {
    let script = busy(Script::of(3)).at(1000, Fault::HandOver, 1, 0);
    let played = script.at(1300, Fault::HandOver, 2, 0).play();
    assert_eq!(played.leads().len(), 3);
    played.assert_in_order();
}

#[test]
fn g14_the_only_voter_of_two_starts_again_alone_and_leads() {
    let script = voter_and_observer().at(900, Fault::Crash, 1, 2500);
    let played = script.at(1200, Fault::Crash, 0, 300).play();
    assert!(played.answered(1700, 3300) > 50);
    assert!(played.leads().windows(2).all(|pair| pair[0].1 == pair[1].1));
}

#[test]
fn g16_the_only_voter_of_two_does_not_notice_that_the_other_is_gone() {
    let played = voter_and_observer().at(1000, Fault::Crash, 1, 2000).play();
    assert_eq!(played.leads().len(), 1);
    assert_eq!(played.outcome.coverage.of("quorum-lost"), 0);
    assert!(played.answered(1000, 1100) > 2 && played.answered(1100, 3000) > 50);
}

#[test]
fn g17_what_a_leader_of_two_takes_in_alone_is_neither_acknowledged_nor_left_hanging() {
    let played = Script::of(2).at(1000, Fault::Crash, 1, 1500).play();
    assert_eq!(played.answered(1160, 2500), 0);
    let lost = played.lines("Quorum { present: false }")[0].0;
    assert!(lost < 1250, "it is told so: {lost}");
    assert!(played.answered(2500, 4000) > 20, "and decided when the other is back");
}

#[test]
fn g18_the_second_of_two_does_not_promote_itself() {
    for script in [Script::of(2), voter_and_observer()] {
        let played = script.at(1000, Fault::Crash, 0, 2000).play();
        assert_eq!(played.answered(1010, 3000), 0);
        let leads = played.leads();
        assert!(leads.iter().all(|(at, _)| *at < 1000 || *at >= 3000), "{leads:?}");
    }
}

#[test]
fn g84_the_only_node_that_may_lead_fails_and_leads_again_when_it_is_back() {
    let script = Script::of(3).priorities(&[1, 0, 0]);
    let played = script.at(1000, Fault::Crash, 0, 1200).play();
    assert_eq!(played.answered(1010, 2200), 0);
    let leads = played.leads();
    assert!(leads.len() == 2 && leads[1].1 == 0 && leads[1].0 >= 2200, "{leads:?}");
    assert!(played.answered(2300, 4000) > 50);
}

#[test]
fn g97_a_hand_over_that_another_overlaps_or_whose_target_dies_harms_nothing_and_is_done_again() {
    let mut script = busy(Script::of(3));
    // Long enough for a target to die in the middle.
    script.plan.sync_ns = 10 * super::MS;
    let script = script.at(1000, Fault::HandOver, 1, 0).at(1000, Fault::HandOver, 2, 0);
    let script = script.at(2000, Fault::HandOver, 1, 0).at(2001, Fault::Crash, 1, 600);
    let played = script.at(3300, Fault::HandOver, 1, 0).play();
    let leads = played.leads();
    let within =
        |from: u64, to: u64| leads.iter().filter(|(at, _)| (from..to).contains(at)).count();
    assert_eq!(within(1000, 1900), 1, "one of two: {leads:?}");
    assert!(!played.lines("TransferFailed").is_empty(), "and the one whose target died is told");
    assert_eq!(within(2000, 3300), 0, "who led leads on: {leads:?}");
    assert!(played.answered(2200, 2600) > 20, "with the third");
    assert_eq!(within(3300, 4000), 1, "done again: {leads:?}");
    assert_eq!(played.outcome.coverage.of("session-lost"), 0);
}

#[test]
fn g114_a_leader_that_nobody_hears_steps_down_in_a_leader_timeout() {
    let played = Script::of(3).at(1000, Fault::Isolate, 0, 1500).play();
    let lost = played.lines("Quorum { present: false }")[0].0;
    assert!((1100..1250).contains(&lost), "{lost}");
}

/// The leader and the first client are parted from the others, who go on.
fn parted_with_a_client() -> Script {
    let mut script = busy(Script::of(3));
    script.plan.readers = 1;
    let lasts_ns = 1200 * super::MS;
    let (fault, sides) = (Fault::Partition, 1 | 1 << 32);
    let strike = super::Strike { fault, aimed: true, node: 0, other: 0, sides, lasts_ns };
    script.strikes.push((1000 * super::MS, strike));
    script
}

#[test]
fn g115_a_leader_cut_off_with_a_client_that_reads_answers_it_nothing_while_another_leads() {
    let played = parted_with_a_client().play();
    assert!(played.heard_by(0, 500, 1000) > 20, "it reads");
    let next = played.leads()[1].0;
    assert!((1000..1400).contains(&next), "{next}");
    assert_eq!(played.heard_by(0, 1010, 2190), 0, "no quorum echoes what it would answer");
    assert!(played.heard_by(1, next + 50, 2190) > 10, "the others are answered");
    // The rule taken out, it is answered by one whom nobody hears.
    let mut script = parted_with_a_client();
    script.plan.mutant = Some(Mutant::AnswerWithoutQuorum);
    let played = Played { outcome: super::run_script(&script.plan, &script.strikes) };
    assert!(played.heard_by(0, 1010, 2190) > 0);
}

#[test]
fn g117_the_highest_priority_waits_until_it_is_as_recent_as_the_others() {
    for lags in [true, false] {
        // The third leads first, by its priority; then the first, by its own.
        let script = Script::of(3).priorities(&[2, 1, 3]).at(1000, Fault::Crash, 0, 300);
        let script = if lags { script.way(1700, Fault::Lag, (0, 2), 1500) } else { script };
        let leads = script.at(1900, Fault::Crash, 0, 1500).play().leads();
        let nodes: Vec<_> = leads.iter().take(3).map(|(_, node)| *node).collect();
        assert_eq!(nodes, [2, 0, if lags { 1 } else { 2 }], "lags {lags}: {leads:?}");
    }
}

#[test]
fn g118_the_newest_log_is_on_a_node_that_never_leads_and_the_lead_ends_where_it_is_wanted() {
    // Node 1 leads, node 2 never does, node 0 lags: nobody leads as a caretaker, the log is taken over instead.
    let script = Script::of(3).priorities(&[1, 2, 0]);
    let script = script.way(1000, Fault::Lag, (0, 2), 400).at(1100, Fault::Isolate, 0, 1200);
    let played = script.at(3000, Fault::HandOver, 1, 0).play();
    assert!(played.outcome.coverage.of("leader-sync") > 0);
    let nodes: Vec<_> = played.leads().iter().map(|(_, node)| *node).collect();
    assert_eq!(nodes, [1, 0, 1]);
}

#[test]
fn g124_what_clients_that_died_had_under_way_is_asked_later_and_answered_as_it_was_decided() {
    let mut script = busy(Script::of(3)).at(1000, Fault::Crash, 0, 500);
    // Client after client dies, before and after the next one leads, and goes on with its session.
    for turn in 0..12 {
        script = script.at(990 + 50 * turn, Fault::ClientDies, turn as usize % 3, 0);
    }
    let played = script.play();
    assert!(played.outcome.coverage.of("resolved-later") > 20);
    assert_eq!(played.outcome.coverage.of("session-lost"), 0);
    played.assert_in_order();
}

//! K: a group that is started together, which of equals leads, and who only looks on.

use super::{Fault, Played, Script};
use crate::mutants::Mutant;

/// One node is late: it comes 1.5 s after the others.
fn one_is_late() -> Script {
    Script::of(3).on(55, Fault::Crash, (2, 2), 1500)
}

#[test]
fn k3_started_together_the_group_is_whole_before_it_takes_changes() {
    let played = one_is_late().play();
    assert!(played.leads()[0].0 >= 1555, "{:?}", played.leads());
    assert_eq!(played.answered(0, 1555), 0);
    assert!(played.answered(1555, 4000) > 50);
}

/// All stop at 1 s, and come back one after the other.
fn all_come_back() -> Script {
    let script = Script::of(3).on(1000, Fault::Crash, (0, 0), 100);
    script.on(1000, Fault::Crash, (1, 1), 300).on(1000, Fault::Crash, (2, 2), 600)
}

#[test]
fn k3_started_again_together_it_waits_for_the_last_too_but_not_for_ever() {
    let leads = all_come_back().play().leads();
    assert!(leads.len() == 2 && (1600..2000).contains(&leads[1].0), "{leads:?}");
    // That is what the time that a start waits is for.
    let mut script = all_come_back();
    script.plan.start_wait_ns = 0;
    let leads = script.play().leads();
    assert!((1300..1600).contains(&leads[1].0), "{leads:?}");
    let script = Script::of(3).on(1000, Fault::Crash, (0, 0), 100);
    let script = script.on(1000, Fault::Crash, (1, 1), 100).on(1000, Fault::Crash, (2, 2), 2900);
    let leads = script.play().leads();
    assert!((2000..2500).contains(&leads[1].0), "two are a quorum: {leads:?}");
}

#[test]
fn k3_off_a_part_of_a_group_that_founds_it_is_noticed() {
    let noticed = one_is_late().without(Mutant::StatelessVotesCount).noticed();
    assert_eq!(noticed, Some("elected"));
}

/// Clients have long had all their answers, and the last of the list leads, when all stop.
fn equal_logs(priorities: &[u8]) -> Vec<(u64, usize)> {
    let mut script = Script::of(priorities.len()).priorities(priorities);
    script.plan.commands = 20;
    let nodes = priorities.len();
    let mut script = script.on(1500, Fault::HandOver, (nodes - 1, nodes - 1), 0);
    for node in 0..nodes {
        // The first of the list is the last to come back.
        script = script.on(2500, Fault::Crash, (node, node), 100 + 50 * (nodes - node) as u64);
    }
    let played = script.play();
    assert_eq!(played.answered(1400, 4000), 0, "nothing is under way");
    played.leads()
}

#[test]
fn k8_of_equal_logs_the_first_line_of_the_list_leads() {
    for nodes in [2, 3, 5] {
        let leads: Vec<_> = equal_logs(&vec![1; nodes]).into_iter().map(|(_, node)| node).collect();
        assert_eq!(leads, [0, nodes - 1, 0], "{nodes} nodes");
    }
    // Of equals: what is preferred is preferred.
    let leads: Vec<_> = equal_logs(&[1, 2, 1]).into_iter().map(|(_, node)| node).collect();
    assert_eq!(leads, [1, 2, 1]);
}

/// Two voters, and a third node that observes, or not.
fn with_a_third(observes: bool) -> Script {
    let mut script = Script::of(3);
    script.plan.observers = vec![false, false, observes];
    script
}

fn by_the_third(played: &Played) -> usize {
    played.leads().iter().filter(|(_, node)| *node == 2).count()
}

#[test]
fn k9_an_observer_never_leads_not_alone_not_after_a_restart_not_by_vote_and_has_everything() {
    // One voter is gone, then both, then all; what an observer says makes no majority.
    let script = || {
        |observes| {
            let script = with_a_third(observes).on(1000, Fault::Crash, (0, 0), 900);
            let script = script.on(1500, Fault::Crash, (1, 1), 400);
            script.on(1550, Fault::Crash, (2, 2), 100)
        }
    };
    let played = script()(true).play();
    assert!(played.answered(500, 1000) > 20);
    assert_eq!(played.answered(1010, 1900), 0, "one of two voters is none");
    assert_eq!(by_the_third(&played), 0);
    assert!(played.leads().iter().all(|(at, _)| *at < 1000 || *at >= 1900));
    // That all have the same log in the end is what the last phase waits for; and it follows while the others are at work.
    assert!(played.outcome.coverage.of("observer-follows") > 100);
    // As a voter it makes the majority.
    let played = script()(false).play();
    assert!(played.answered(1400, 1500) > 2);
}

#[test]
fn k9_an_observer_with_the_newest_log_does_not_lead_either() {
    // What the leader took in last only the observer has; then the leader is gone.
    for observes in [true, false] {
        let script = with_a_third(observes).on(1000, Fault::Lag, (0, 1), 900);
        let played = script.on(1100, Fault::Isolate, (0, 0), 800).play();
        assert_eq!(by_the_third(&played), usize::from(!observes), "{:?}", played.leads());
    }
}

//! A: holes that another system is known to have.

use super::super::check::Violation;
use super::rules::busy;
use super::{Fault, MS, Played, Script};
use crate::mutants::Mutant;

/// A crash of the leader is over in under 2.5 leader timeouts.
const OUTAGE_MS: u64 = 375;

/// Node 0 leads and only node 1 hears it; another leads; node 0 leads again and only node 2 hears it. What node 1 had said
/// of its log then comes once more.
fn said_in_an_older_term(rule: Option<Mutant>) -> Result<Played, Violation> {
    let mut script = busy(Script::of(5));
    (script.plan.mutant, script.plan.command_bytes_max) = (rule, 1000);
    let script = script.part_off(1000, 0b00011, true, 240);
    // From then on clients reach nobody, until it leads again.
    let script = script.part_off(1010, 0, true, 310).on(1300, Fault::HandOver, (0, 0), 0);
    let mut stage = script.part_off(1320, 0b00101, true, 300).stage();
    stage.until(1100)?;
    let old = stage.seen(0);
    assert!(old.commit.0 < old.tail.position, "two of five have it");
    let said = stage.world.captured[0].data_of(1);
    stage.until(1320)?;
    stage.until_so(|stage| stage.seen(0).tail.position > old.tail.position)?;
    let now = stage.seen(0);
    assert!(stage.serves(0) && now.fence.term > old.fence.term, "it leads again");
    let (old, new) = (old.tail.position, now.tail.position);
    assert!(now.commit.0 < old && old < new, "{now:?}: over the positions of {old}");
    for bytes in &said {
        stage.arrives(1, 0, bytes);
    }
    stage.until(stage.now_ms() + 10)?;
    assert_eq!(stage.seen(0).commit, now.commit, "that was of another term");
    stage.end()
}

#[test]
fn a1_positions_of_members_in_an_older_term_do_not_count_towards_commit() {
    assert!(said_in_an_older_term(None).unwrap().answered(2100, 4000) > 50);
}

#[test]
fn a1_off_positions_of_an_older_term_commit_what_no_quorum_has() {
    let broken = said_in_an_older_term(Some(Mutant::CountOldAcks)).map(drop).unwrap_err();
    assert_eq!(broken.checker, "committed_on_a_quorum");
}

#[test]
fn a8_the_winner_of_an_election_does_not_wait_for_the_dead_member() {
    for nodes in [3, 5] {
        // As many die as may.
        let dead = nodes / 2;
        let script = |dead| {
            (0..dead)
                .fold(Script::of(nodes), |s, node| s.on(1000, Fault::Crash, (node, node), 2500))
        };
        let led_after = |dead| script(dead).play().leads()[1].0 - 1000;
        let (one, most) = (led_after(1), led_after(dead));
        assert!(most < OUTAGE_MS, "{nodes} nodes, {dead} dead: {most} ms");
        // Every further one costs no time of its own.
        assert!(most <= one + 40, "{nodes} nodes: {one} ms with one dead, {most} ms with {dead}");
        let played = script(dead).play();
        assert!(played.answered(1000 + OUTAGE_MS, 3500) > 100, "{nodes} nodes");
    }
}

/// Leaders die with much under way, and all clients have the sessions that they had.
fn leaders_gone() -> Script {
    (0..4)
        .fold(busy(Script::of(3)), |script, turn| script.at(800 + 700 * turn, Fault::Crash, 0, 300))
}

#[test]
fn a12_a_client_whose_leader_is_gone_reconnects_and_its_unanswered_commands_are_applied_once() {
    let played = leaders_gone().play();
    assert_eq!(played.leads().len(), 5);
    let coverage = &played.outcome.coverage;
    assert_eq!(coverage.of("session-lost"), 0);
    assert!(coverage.of("duplicate-answered") > 0, "some had taken effect already");
    for turn in 0..4 {
        let dies = 800 + 700 * turn;
        for client in 0..3 {
            assert!(played.heard_by(client, dies + OUTAGE_MS, dies + 700) > 5, "client {client}");
        }
    }
    played.assert_in_order();
}

#[test]
fn a12_off_what_comes_again_and_takes_effect_again_is_noticed() {
    assert_eq!(leaders_gone().without(Mutant::ApplyTwice).noticed(), Some("applied_twice"));
}

/// The longest time between two answers that overlaps with `from..to`, ms; in thousandths of them.
fn longest_pause(played: &Played, from: u64, to: u64) -> u64 {
    let micros = |line: &String| -> Option<u64> {
        let (seconds, micros) = line.split_whitespace().next()?.split_once('.')?;
        Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
    };
    let told = played.outcome.lines.iter().filter(|line| line.contains("told: Placed"));
    let times: Vec<_> = told.filter_map(micros).collect();
    let pauses = times.windows(2).filter(|pair| pair[1] > from * 1000 && pair[0] < to * 1000);
    pauses.map(|pair| pair[1] - pair[0]).max().expect("there are answers")
}

/// Clients that hardly think, on disks of today.
fn eager() -> Script {
    let mut script = busy(Script::of(3));
    (script.plan.think_ns, script.plan.sync_ns) = (MS / 4, MS / 10);
    script.plan.commands = 20_000;
    script
}

#[test]
fn a13_a_planned_hand_over_is_at_least_50_times_shorter_than_a_crash() {
    let turns = || [1000, 1500, 2000, 2500, 3000];
    let play = |fault, for_ms| {
        let strike = |script: Script, at| script.at(at, fault, 1, for_ms);
        turns().into_iter().fold(eager(), strike).play()
    };
    let median = |played: &Played| {
        assert_eq!(played.leads().len(), 6);
        let mut pauses = turns().map(|at| longest_pause(played, at, at + 400));
        pauses.sort_unstable();
        pauses[2]
    };
    let planned = median(&play(Fault::HandOver, 0));
    let crash = turns().into_iter().fold(eager(), |script, at| script.at(at, Fault::Crash, 0, 200));
    let crash = median(&crash.play());
    assert!(planned * 50 <= crash, "{planned} and {crash} us");
}

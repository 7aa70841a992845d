//! The shipped election type, with the shipped node state and commit rule, explored exhaustively within small bounds; each
//! rule that is taken out must be missed.
//!
//! `cargo test --features sim --test model -- --nocapture` prints what was explored.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "model/explore.rs"]
mod explore;
#[path = "model/group.rs"]
mod group;

use std::time::{Duration, Instant};

use explore::{Found, explore};
use group::{CoreRules, Group};
use quorate::control::election::{Mutant, Mutants};

/// Bounds of a case that is not explored to its end, and of the search for a broken rule.
const STATES_MAX: usize = 2_000_000;
const TIME: Duration = Duration::from_secs(60);

/// With `QUORATE_MODEL_LONG` set the larger bounds are explored too: minutes, with optimisation.
fn long() -> bool {
    std::env::var_os("QUORATE_MODEL_LONG").is_some()
}

fn either<T>(short: T, larger: T) -> T {
    if long() { larger } else { short }
}

/// Every state within the bounds keeps every invariant.
fn holds(name: &str, group: &Group) {
    let begin = Instant::now();
    match explore(group, either(STATES_MAX, 40_000_000), either(TIME, 10 * TIME)) {
        Found::Holds { states, depth } => {
            println!("{name}: holds, {states} states, depth {depth}, {:?}", begin.elapsed());
        }
        found => panic!("{name}: {found:#?}"),
    }
}

/// As far as the bounds on states and time go, every state keeps every invariant.
fn holds_so_far(name: &str, group: &Group) {
    let begin = Instant::now();
    match explore(group, either(30_000, 10_000_000), either(TIME, 5 * TIME)) {
        Found::Holds { states, depth } => {
            println!("{name}: holds, {states} states, depth {depth}, {:?}", begin.elapsed());
        }
        Found::NotComplete { states, depth } => println!(
            "{name}: holds so far (not complete), {states} states, depth {depth}, {:?}",
            begin.elapsed()
        ),
        found @ Found::Broken { .. } => panic!("{name}: {found:#?}"),
    }
}

/// The rule that was taken out is missed.
fn breaks(name: &str, group: &Group, expected: &[&str]) {
    let begin = Instant::now();
    match explore(group, STATES_MAX, 4 * TIME) {
        Found::Broken { rule, schedule, states } => {
            let steps = schedule.len();
            println!("{name}: broken in {steps} steps, {states} states, {:?}", begin.elapsed());
            assert!(expected.contains(&rule), "{rule}: {schedule:#?}");
        }
        found => panic!("{name}: nobody missed it: {found:?}"),
    }
}

fn without(mutant: Mutant, group: Group) -> Group {
    Group { mutants: Mutants::NONE.with(mutant), ..group }
}

const LACKS: &[&str] = &["a leader lacks a committed entry"];
const TWO_LEADERS: &[&str] = &["two leaders in one term"];
const ANY: &[&str] =
    &["a leader lacks a committed entry", "two leaders in one term", "two committed histories"];

#[test]
fn m2_fence_before_vote() {
    let group = Group { entries: either(2, 3), ..Group::THREE };
    holds("M2 on, terms 2, log 2 (3)", &group);
}

#[test]
fn m2_fence_before_vote_three_terms() {
    holds_so_far("M2 on, terms 3, log 2", &Group { terms: 3, ..Group::THREE });
}

#[test]
fn m2_control_looks_at_positions_at_any_time() {
    holds_so_far("M2 on, glances, terms 2, log 2", &Group { glances: true, ..Group::THREE });
}

#[test]
fn m2_off_a_vote_before_the_fence() {
    let group = Group { entries: 3, ..Group::THREE };
    breaks("M2 off: vote before the fence", &without(Mutant::VoteBeforeFence, group), LACKS);
}

#[test]
fn m2_off_a_vote_on_positions_read_before_the_fence() {
    let group = Group { glances: true, ..Group::THREE };
    breaks("M2 off: old positions", &without(Mutant::VoteOnOldPositions, group), LACKS);
}

#[test]
fn m2_off_a_vote_for_an_older_log() {
    breaks("off: recency", &without(Mutant::VoteForOlderLog, Group::THREE), LACKS);
}

#[test]
fn m2_off_d7_old_bytes_after_the_fence() {
    let core = CoreRules { fence: false, ..CoreRules::ALL };
    breaks("M2 off: D7", &Group { core, ..Group::THREE }, LACKS);
}

#[test]
fn off_two_votes_in_one_term() {
    breaks("off: one vote", &without(Mutant::VoteTwice, Group::THREE), TWO_LEADERS);
}

#[test]
fn r5_off_votes_of_another_term_count() {
    let group = Group { terms: 3, ..Group::THREE };
    breaks("R5 off: old votes", &without(Mutant::CountOldVotes, group), TWO_LEADERS);
}

#[test]
fn d5_votes_survive_the_end_of_a_process() {
    let group = Group { writes: true, process_crashes: 1, entries: 1, ..Group::THREE };
    holds_so_far("votes are durable, terms 2, one crash", &group);
}

#[test]
fn d5_off_an_answer_before_the_vote_is_durable() {
    let group = Group { writes: true, process_crashes: 1, entries: 1, ..Group::THREE };
    let group = without(Mutant::AnswerBeforeDurable, group);
    breaks("off: durable votes", &group, TWO_LEADERS);
}

#[test]
fn m3_memory_acknowledgements_and_machine_crashes() {
    let group = Group { syncs: true, machine_crashes: 2, ..Group::THREE };
    holds_so_far("M3 on, terms 2, log 2, two crashes", &group);
}

#[test]
fn m3_off_votes_of_those_who_may_have_forgotten_count() {
    let group = Group { syncs: true, forgotten: true, ..Group::THREE };
    breaks("M3 off: votes", &without(Mutant::ProvisionalVotesCount, group), LACKS);
}

#[test]
fn m3_after_an_acknowledged_entry_was_lost() {
    let group = Group { syncs: true, forgotten: true, ..Group::THREE };
    holds_so_far("M3 on, one has forgotten, terms 2, log 2", &group);
}

#[test]
fn m3_off_readmission_waits_for_nothing() {
    let core = CoreRules { readmission_waits: false, ..CoreRules::ALL };
    let group = Group { syncs: true, forgotten: true, core, ..Group::THREE };
    breaks("M3 off: readmission", &group, LACKS);
}

#[test]
fn m8_a_wiped_disk() {
    let group = Group { syncs: true, wipes: 1, ..Group::THREE };
    holds_so_far("M8 on, terms 2, log 2, one wipe", &group);
}

#[test]
fn d6_off_a_node_without_state_is_a_witness() {
    let group = Group { wipes: 1, ..Group::THREE };
    breaks("M8 off: witness", &without(Mutant::StatelessIsWitness, group), LACKS);
}

#[test]
fn d6_off_a_node_without_state_votes_as_if_it_had_some() {
    let group = Group { wipes: 1, ..Group::THREE };
    breaks("M8 off: votes", &without(Mutant::StatelessVotesCount, group), LACKS);
}

#[test]
fn m8_founding_by_every_voter() {
    let group = Group { founding: true, wipes: 1, entries: 1, ..Group::THREE };
    holds_so_far("M8 founding on, terms 2, log 1, one wipe", &group);
}

#[test]
fn m8_off_founding_by_a_majority() {
    let group = Group { founding: true, wipes: 1, ..Group::THREE };
    let group = without(Mutant::StatelessVotesCount, group);
    breaks("M8 off: founding by a majority", &group, ANY);
}

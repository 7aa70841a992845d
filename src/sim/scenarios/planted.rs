//! Rules that decide in one order of events only: a story makes it, and without the rule its checker notices.

use crate::mutants::Mutant;
use crate::sim::plan::Plan;
use crate::sim::run;
use crate::sim::stories::Story;

/// Worlds that are tried.
const WORLDS: u64 = 60;

/// With `mutant` planted, `checker` notices that one of these worlds goes wrong; with the rule in place it goes well.
fn decides(story: Story, mutant: Mutant, checker: &str) {
    for seed in 0..WORLDS {
        let mut plan = Plan::telling(seed, story);
        plan.mutant = Some(mutant);
        let Some((_, violation)) = run(&plan, false).violation else { continue };
        assert_eq!(violation.checker, checker, "{seed}: {violation:?}");
        plan.mutant = None;
        let outcome = run(&plan, false);
        assert!(outcome.violation.is_none(), "{seed}: {:?}", outcome.violation);
        return;
    }
    panic!("{mutant:?} shows in none of {WORLDS} worlds");
}

#[test]
fn a1_what_was_said_to_a_leader_of_an_older_term_commits_nothing_in_its_new_one() {
    decides(Story::Returning, Mutant::CountOldAcks, "committed_on_a_quorum");
}

#[test]
fn d3_who_comes_from_another_founding_has_no_part_in_this_one() {
    decides(Story::Foundling, Mutant::MixGenerations, "one_generation");
}

#[test]
fn d7_bytes_that_wait_for_a_core_behind_its_fence_are_dropped() {
    decides(Story::Heir, Mutant::LateChunk, "fence");
}

#[test]
fn bytes_that_one_leader_sent_out_of_order_are_not_those_of_the_next() {
    decides(Story::Riddled, Mutant::KeepOldRanges, "committed_on_a_quorum");
}

#[test]
fn r1_a_leader_that_was_replaced_answers_no_question_from_what_it_has() {
    decides(Story::Usurped, Mutant::AnswerWithoutQuorum, "linearizable");
}

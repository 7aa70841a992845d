//! The shipped election type, with the shipped node state and commit rule, explored exhaustively within small bounds; each
//! rule that is taken out must be missed.
//!
//! `cargo test --features sim --test model -- --nocapture` prints what was explored.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "model/explore.rs"]
mod explore;
#[path = "model/generations.rs"]
mod generations;
#[path = "model/group.rs"]
mod group;
#[path = "model/node_state.rs"]
mod node_state;
#[path = "model/small.rs"]
mod small;
#[path = "model/sync.rs"]
mod sync;
#[path = "model/verified.rs"]
mod verified;

use std::time::{Duration, Instant};

use explore::{Found, Model, explore};
use generations::Histories;
use group::{CoreRules, Group};
use node_state::Writes;
use quorate::control::election::{Mutant, Mutants};
use sync::{Before, Sync};
use verified::Verified;

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
fn holds<M: Model>(name: &str, group: &M) {
    let begin = Instant::now();
    match explore(group, either(STATES_MAX, 40_000_000), 10 * TIME) {
        Found::Holds { states, depth } => {
            println!("{name}: holds, {states} states, depth {depth}, {:?}", begin.elapsed());
        }
        found => panic!("{name}: {found:#?}"),
    }
}

/// As far as the bounds on states and time go, every state keeps every invariant.
fn holds_so_far<M: Model>(name: &str, group: &M) {
    let begin = Instant::now();
    match explore(group, either(30_000, 10_000_000), either(TIME / 4, 5 * TIME)) {
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
fn breaks<M: Model>(name: &str, group: &M, expected: &[&str]) {
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
fn m3_three_terms() {
    let group = Group { terms: 3, syncs: true, machine_crashes: 1, ..Group::THREE };
    holds_so_far("M3 on, terms 3, log 2, one crash", &group);
}

#[test]
fn m3_three_terms_after_an_acknowledged_entry_was_lost() {
    let group = Group { terms: 3, syncs: true, forgotten: true, ..Group::THREE };
    holds_so_far("M3 on, one has forgotten, terms 3, log 2", &group);
}

#[test]
fn m3_five_nodes() {
    let group = Group { nodes: 5, syncs: true, machine_crashes: 2, ..Group::THREE };
    holds_so_far("M3 on, five nodes, terms 2, log 2, two crashes", &group);
}

#[test]
fn m3_five_nodes_after_an_acknowledged_entry_was_lost() {
    let group = Group { nodes: 5, syncs: true, forgotten: true, ..Group::THREE };
    holds_so_far("M3 on, five nodes, one has forgotten, terms 2, log 2", &group);
}

#[test]
fn m3_off_five_nodes_votes_of_those_who_may_have_forgotten_count() {
    let group = Group { nodes: 5, syncs: true, forgotten: true, ..Group::THREE };
    breaks("M3 off: votes, five nodes", &without(Mutant::ProvisionalVotesCount, group), LACKS);
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

/// The first entry of the next term, and one of the old leader's while its successor has the votes kept already.
const HANDS_OVER: Group = Group { hand_overs: 1, entries: 2, ..Group::THREE };

#[test]
fn a13_votes_that_are_kept_for_a_hand_over() {
    holds_so_far("kept votes, terms 2, log 2, one hand-over", &HANDS_OVER);
}

#[test]
fn a13_votes_that_are_kept_survive_the_end_of_a_process() {
    let group = Group { process_crashes: 1, writes: true, ..HANDS_OVER };
    holds_so_far("kept votes, terms 2, log 2, one hand-over, one crash", &group);
}

#[test]
fn a13_off_a_kept_vote_is_given_without_a_fence() {
    let group = Group { entries: 3, ..HANDS_OVER };
    breaks("off: kept votes are decided", &without(Mutant::ReservedVoteUndecided, group), LACKS);
}

#[test]
fn a13_off_a_kept_vote_is_given_away() {
    let group = without(Mutant::ReservedVoteTwice, HANDS_OVER);
    breaks("off: kept votes are kept", &group, TWO_LEADERS);
}

fn verified_without(mutants: &[Mutant]) -> Verified {
    let mutants = mutants.iter().fold(Mutants::NONE, |planted, mutant| planted.with(*mutant));
    Verified { mutants, ..Verified::THREE }
}

#[test]
fn m1_verified_counts() {
    holds("M1 on, terms 3, log 2", &Verified::THREE);
}

#[test]
fn m1_datagrams_that_frames_straddle() {
    let world = Verified { piece: 48, terms: either(2, 3), ..Verified::THREE };
    holds("M1 on, half frames, terms 2 (3), log 2", &world);
}

#[test]
fn m1_five_nodes() {
    let world = Verified { nodes: 5, ..Verified::THREE };
    holds_so_far("M1 on, five nodes, terms 3, log 2", &world);
}

#[test]
fn d1_off_an_old_log_is_acknowledged() {
    breaks("M1 off: D1", &verified_without(&[Mutant::AcknowledgeUnmatched]), ANY);
}

#[test]
fn m1_off_an_old_log_is_applied() {
    let world = verified_without(&[Mutant::CommitUnmatched]);
    breaks("M1 off: apply", &world, &["a node applied what is not committed"]);
}

#[test]
fn m1_off_the_match_answer_is_used_twice() {
    let lost =
        ["a leader lacks a committed entry", "two committed histories", "what was applied is cut"];
    breaks("M1 off: match twice", &verified_without(&[Mutant::MatchTwice]), &lost);
}

/// A chain proves what stands before a frame, not whose log it is in: an old leader's frame chains to what the new one has.
#[test]
fn m1_off_old_ranges_are_kept() {
    let world = verified_without(&[Mutant::KeepOldRanges]);
    breaks("M1 off: old ranges", &world, &["a node applied what is not committed"]);
}

#[test]
fn m1_a_datagram_that_is_not_what_was_sent() {
    let world = Verified { spoiled: 1, terms: either(2, 3), ..Verified::THREE };
    holds("M1 on, a spoiled datagram, terms 2 (3), log 2", &world);
}

#[test]
fn m1_off_the_chain_is_not_checked() {
    let world = Verified { spoiled: 1, ..verified_without(&[Mutant::SkipChain]) };
    breaks("M1 off: chain", &world, ANY);
}

const VOTES_WITHOUT: &[&str] = &["it votes without what it acknowledged"];

fn writes_without(name: &str, mutant: Mutant) {
    let world = Writes { mutants: Mutants::NONE.with(mutant), ..Writes::ON };
    breaks(name, &world, VOTES_WITHOUT);
}

#[test]
fn m4_every_order_of_writes_and_crashes() {
    holds("M4 on, four crashes", &Writes::ON);
}

#[test]
fn d5_off_the_clean_mark_stays() {
    writes_without("M4 off: clean mark removed (D5)", Mutant::CleanMarkStays);
}

#[test]
fn m4_off_a_clean_mark_clears_provisional() {
    writes_without("M4 off: clean mark keeps provisional", Mutant::CleanMarkClears);
}

#[test]
fn m4_off_the_clean_mark_before_the_last_sync() {
    writes_without("M4 off: sync before clean mark", Mutant::CleanMarkBeforeSync);
}

#[test]
fn m4_off_memory_is_promised_before_it_is_allowed() {
    writes_without("M4 off: allowed before promised", Mutant::PromiseBeforeAllowed);
}

#[test]
fn m4_off_memory_is_forbidden_before_a_sync() {
    writes_without("M4 off: sync before forbidding", Mutant::ForbidBeforeSync);
}

#[test]
fn m4_off_provisional_is_forgotten() {
    writes_without("M4 off: provisional is durable", Mutant::ForgetProvisional);
}

#[test]
fn m4_off_readmitted_before_it_holds_what_it_lacked() {
    writes_without("M4 off: readmission waits", Mutant::ReadmitBeforeSync);
}

const STUCK: &[&str] = &["a majority is alive and talks, and nobody leads"];

#[test]
fn m6_the_log_of_a_node_that_never_leads() {
    holds("M6 on, three nodes, terms 2 (3), log 2", &Sync { terms: either(2, 3), ..Sync::THREE });
}

#[test]
fn m6_the_log_of_an_observer() {
    let world = Sync { nodes: 4, never: 3, observers: 3, terms: either(2, 3), ..Sync::THREE };
    holds_so_far("M6 on, three voters and an observer", &world);
}

#[test]
fn m6_five_nodes_of_which_two_never_lead() {
    holds_so_far("M6 on, five nodes", &Sync { nodes: 5, never: 3, observers: 5, ..Sync::THREE });
}

#[test]
fn m6_off_priority_before_recency() {
    let mutants = Mutants::NONE.with(Mutant::PriorityBeatsRecency);
    breaks("M6 off: recency first", &Sync { mutants, ..Sync::THREE }, STUCK);
    let mutants = mutants.with(Mutant::VoteForOlderLog);
    breaks("M6 off: recency first, voters too", &Sync { mutants, ..Sync::THREE }, LACKS);
}

#[test]
fn m6_off_no_leader_sync() {
    let mutants = Mutants::NONE.with(Mutant::NoLeaderSync);
    breaks("M6 off: leader sync", &Sync { mutants, ..Sync::THREE }, STUCK);
}

/// A take-over that was begun before a leader called, and goes on after it, would cut what was acknowledged to that leader,
/// did it not cut only for a log that is newer than its own when the answer comes. The shipped core ends it besides.
#[test]
fn m6_a_take_over_that_outlives_the_call_of_a_leader_cuts_nothing() {
    let world = Sync { call_ends_take_over: false, ..Sync::THREE };
    holds("M6: a call does not end a take-over", &world);
}

/// Four nodes of which the first `voters` vote at first.
fn members(voters: usize, terms: u32, entries: u64) -> Sync {
    Sync {
        nodes: 4,
        never: 4,
        observers: voters,
        terms,
        entries,
        changes: true,
        deaths: false,
        ..Sync::THREE
    }
}

fn members_without(mutant: Mutant, world: Sync) -> Sync {
    Sync { mutants: Mutants::NONE.with(mutant), ..world }
}

#[test]
fn m7_from_three_voters() {
    holds_so_far("M7 on, from three voters, terms 3, log 3", &members(3, 3, 3));
}

#[test]
fn m7_from_four_voters() {
    holds_so_far("M7 on, from four voters, terms 3, log 3", &members(4, 3, 3));
}

#[test]
fn m7_somebody_leads_after_a_death() {
    let world = Sync { deaths: true, ..members(3, 2, 3) };
    holds_so_far("M7 on, from three voters, terms 2, log 3, one death", &world);
}

/// A machine goes down, and what its node promised last is lost: it may have been an entry of the change.
fn members_who_forget(voters: usize, terms: u32, entries: u64) -> Sync {
    Sync { forgets: 1, ..members(voters, terms, entries) }
}

#[test]
fn m7_a_node_may_have_forgotten_inside_a_change() {
    let name = "M7 on, from three voters, one forgets, terms 2 (3), log 3";
    holds_so_far(name, &members_who_forget(3, either(2, 3), 3));
    let name = "M7 on, from four voters, one forgets, terms 2 (3), log 3";
    holds_so_far(name, &members_who_forget(4, either(2, 3), 3));
}

/// A leader makes three voters of four, and commits that with one of the others, which then forgets it.
const FORGOTTEN: &[Before] = &[
    Before::Receives { node: 1, term: 1, upto: 1 },
    Before::Receives { node: 2, term: 1, upto: 1 },
    Before::Commits { leader: 0 },
    Before::Changes { leader: 0, other: 3 },
    Before::Receives { node: 1, term: 1, upto: 2 },
    Before::Commits { leader: 0 },
    Before::Forgets { node: 1 },
];

#[test]
fn m7_after_a_node_forgot_a_committed_change() {
    let world = Sync { before: FORGOTTEN, ..members(4, 2, 3) };
    holds_so_far("M7 on, a committed change was forgotten, terms 2, log 3", &world);
}

#[test]
fn m7_off_votes_of_who_forgot_a_committed_change_count() {
    let world = Sync { before: FORGOTTEN, ..members(4, 2, 3) };
    let world = members_without(Mutant::ProvisionalVotesCount, world);
    breaks("M7 off: votes of who forgot (after 7 steps)", &world, ANY);
}

#[test]
fn m7_off_a_change_before_an_own_entry_is_committed() {
    let before =
        &[Before::Changes { leader: 0, other: 1 }, Before::Elected { node: 1, heard: 0b1110 }];
    let world = Sync { before, ..members(4, 3, 3) };
    let world = members_without(Mutant::ChangeBeforeOwnCommit, world);
    breaks("M7 off: own-term commit first (after 2 steps)", &world, ANY);
}

#[test]
fn m7_off_several_changes_at_a_time() {
    let before = &[
        Before::Receives { node: 1, term: 1, upto: 1 },
        Before::Receives { node: 2, term: 1, upto: 1 },
        Before::Commits { leader: 0 },
        Before::Changes { leader: 0, other: 1 },
        Before::Changes { leader: 0, other: 1 },
    ];
    let world = members_without(Mutant::ManyChanges, Sync { before, ..members(4, 2, 4) });
    breaks("M7 off: one at a time (after 5 steps)", &world, ANY);
}

/// A leader's change is cut by the next leader, which commits an entry of its own.
const CUT_LIST: &[Before] = &[
    Before::Receives { node: 1, term: 1, upto: 1 },
    Before::Receives { node: 2, term: 1, upto: 1 },
    Before::Commits { leader: 0 },
    Before::Changes { leader: 0, other: 1 },
    Before::Elected { node: 1, heard: 0b1110 },
    Before::Receives { node: 0, term: 2, upto: 2 },
    Before::Receives { node: 2, term: 2, upto: 2 },
    Before::Commits { leader: 1 },
];

#[test]
fn m7_after_a_list_was_cut() {
    let world = Sync { before: CUT_LIST, ..members(4, 3, 3) };
    holds_so_far("M7 on, a list was cut, terms 3, log 3", &world);
}

#[test]
fn m7_off_a_list_that_was_cut_goes_on_holding() {
    let world = Sync { before: CUT_LIST, ..members(4, 3, 3) };
    let world = members_without(Mutant::KeepCutList, world);
    breaks("M7 off: reverted when cut (after 8 steps)", &world, ANY);
}

const CUT_WITHOUT: &[&str] = &["what it told clients is committed was cut without a refusal"];
const TWO_HISTORIES: &[&str] = &["two committed histories in one generation"];

#[test]
fn m5_two_overrides_and_a_restart() {
    holds_so_far("M5 on, two overrides, a restart, terms 2, log 2", &Histories::ON);
}

#[test]
fn m5_one_override() {
    let world = Histories { overrides: 1, restarts: either(0, 1), ..Histories::ON };
    holds("M5 on, one override, no restart (one), terms 2, log 2", &world);
}

#[test]
fn d2_off_nobody_refuses() {
    let mutants = Mutants::NONE.with(Mutant::NeverRefuse);
    breaks("M5 off: refuse", &Histories { mutants, ..Histories::ON }, CUT_WITHOUT);
}

#[test]
fn d2_off_after_a_restart_only_what_is_known_is_answered_for() {
    let mutants = Mutants::NONE.with(Mutant::KnownCommitOnly);
    breaks("M5 off: bound after a restart", &Histories { mutants, ..Histories::ON }, CUT_WITHOUT);
}

#[test]
fn d3_off_generations_are_told_apart_by_their_number_alone() {
    let world = Histories { random: false, entries: 3, restarts: 0, ..Histories::ON };
    breaks("M5 off: a random number for each generation", &world, TWO_HISTORIES);
}

#[test]
fn m5_off_a_nodes_own_say_lowers_the_quorum() {
    let world = Histories { opens: false, entries: 3, ..Histories::ON };
    breaks("M5 off: an override opens a generation", &world, TWO_HISTORIES);
}

#[test]
fn d2_off_who_is_not_named_votes_at_once() {
    let world =
        Histories { observers: false, entries: 3, overrides: 1, restarts: 0, ..Histories::ON };
    breaks("M5 off: who is not named observes", &world, TWO_HISTORIES);
}

//! D: schedules against our own design, each found on paper.

use core::cell::Cell;
use std::rc::Rc;

use zerocopy::IntoBytes;

use super::super::check::Violation;
use super::super::machine::{GROUP, Part};
use super::super::world::Event;
use super::rules::busy;
use super::stage::Stage;
use super::{Fault, MS, Played, Script};
use crate::control::constants::GroupConstants;
use crate::control::message::{Envelope, Message};
use crate::mutants::Mutant;
use crate::types::{Leadership, NodeId, Term};

/// Node 0 leads, and what it appends only node 1 hears; it dies, and node 2 leads the others; then node 1 hears of that, and
/// for a while nothing of node 2's log. `few`: one of the others does not hear it either.
fn old_bytes(few: bool, rule: Option<Mutant>) -> Stage {
    let mut script = busy(Script::of(5));
    (script.plan.mutant, script.plan.command_bytes_max) = (rule, 200);
    let script = script.part_off(1000, 0b00011, true, 400).part_off(1010, 0, true, 390);
    let script = script.on(1120, Fault::Crash, (0, 0), 1500);
    let script = script.on(1390, Fault::Lag, (2, 1), 410);
    if few { script.on(1390, Fault::Lag, (2, 3), 410).stage() } else { script.stage() }
}

fn old_tail_counts(rule: Option<Mutant>) -> Result<Played, Violation> {
    let mut stage = old_bytes(true, rule);
    stage.until(1380)?;
    let (old, before) = (stage.seen(1), stage.seen(2));
    assert!(stage.serves(2) && old.tail.position > before.tail.position, "{old:?} {before:?}");
    stage.until(1530)?;
    let (leader, follower) = (stage.seen(2), stage.seen(1));
    assert_eq!(follower.fence, leader.fence, "it has heard of the term");
    assert_eq!(follower.tail, old.tail, "and has its old bytes still");
    assert!(leader.tail.position > old.tail.position, "over the same positions");
    assert_eq!(leader.commit, before.commit, "two of five have that");
    stage.end()
}

#[test]
fn d1_old_bytes_over_the_same_positions_commit_nothing_and_are_cut() {
    let played = old_tail_counts(None).unwrap();
    assert_eq!(played.answered(1402, 1530), 0);
    assert!(played.answered(1800, 3000) > 50);
    let cut = played.lines("node 1: Event(Cut {");
    assert!(!cut.is_empty(), "as it enters the term");
}

#[test]
fn d1_off_an_old_tail_that_is_reported_commits() {
    let broken = old_tail_counts(Some(Mutant::AcknowledgeUnmatched)).map(drop).unwrap_err();
    assert_eq!(broken.checker, "committed_on_a_quorum");
}

/// Node 1 hears the commit position before it knows where the logs part.
fn old_bytes_are_applied(rule: Option<Mutant>) -> Result<Played, Violation> {
    let mut stage = old_bytes(false, rule);
    stage.until(1780)?;
    let (old, leader) = (stage.seen(1), stage.seen(2));
    assert!(leader.commit.0 > old.commit.0 && leader.fence == old.fence, "{old:?} {leader:?}");
    for bytes in stage.world.captured[4].data_of(2) {
        stage.arrives(2, 1, &bytes);
    }
    stage.until(1790)?;
    let now = stage.seen(1);
    if rule.is_none() {
        assert_eq!((now.commit, now.applied, now.tail), (old.commit, old.applied, old.tail));
    }
    stage.end()
}

#[test]
fn d1_old_bytes_are_not_applied_when_the_commit_position_is_heard() {
    assert!(old_bytes_are_applied(None).unwrap().answered(1800, 3000) > 50);
}

#[test]
fn d1_off_old_bytes_that_are_applied_are_noticed() {
    let broken = old_bytes_are_applied(Some(Mutant::CommitUnmatched)).map(drop).unwrap_err();
    assert_eq!(broken.checker, "committed_changed");
}

/// A group of these three nodes with a history of its own, whose leader dies at 1 s.
fn history(seed: u64, rule: Option<Mutant>) -> Stage {
    let mut script = busy(Script::of(3));
    (script.plan.seed, script.plan.mutant) = (seed, rule);
    script.on(1000, Fault::Crash, (0, 0), 1000).stage()
}

/// All that was ever said lately in the other history comes here too, while this one elects, and later: addresses, numbers of
/// nodes and terms are the same.
fn another_history(seeds: (u64, u64), rule: Option<Mutant>) -> Result<Played, Violation> {
    let (mut here, mut there) = (history(seeds.0, rule), history(seeds.1, None));
    there.until(1100)?;
    here.until(1100)?;
    assert_ne!(here.seen(1).fence.generation, there.seen(1).fence.generation);
    for round in 1..=12 {
        // The other one is a little ahead: it has voted when this one asks.
        there.until(1130 + 30 * round)?;
        here.until(1100 + 30 * round)?;
        for node in 0..3 {
            let said = &there.world.captured[node];
            for (from, bytes) in said.datagrams() {
                here.arrives(from, node, &bytes);
            }
            for bytes in said.letters() {
                here.world.schedule(here.world.now, Event::Control { to: node, bytes });
            }
        }
    }
    if rule.is_none() {
        assert_eq!(here.seen(1).fence.term, there.seen(1).fence.term, "equal terms");
    }
    here.end()
}

#[test]
fn d3_two_generations_never_mix_datagrams_votes_or_acknowledgements_even_at_equal_terms() {
    for seeds in [(1, 2), (2, 1)] {
        let played = another_history(seeds, None).unwrap();
        assert_eq!(played.leads().len(), 2, "one died: {:?}", played.leads());
        assert!(played.answered(1500, 3000) > 50);
        assert!(!played.lines("Generation { theirs").is_empty(), "and it is told");
    }
}

#[test]
fn d3_off_two_generations_that_mix_are_noticed() {
    let broken = |seeds| another_history(seeds, Some(Mutant::MixGenerations)).map(drop).err();
    let by = [(1, 2), (2, 1)].into_iter().find_map(broken).map(|broken| broken.checker);
    assert!(by.is_some());
}

/// Node 0 takes over node 2's log, and a leader of a newer term calls while the bytes are with its core, which is slow.
fn late_chunk(rule: Option<Mutant>) -> Result<(Stage, u64), Violation> {
    let mut script = busy(Script::of(3)).priorities(&[1, 2, 0]);
    script.plan.mutant = rule;
    let script = script.on(1000, Fault::Lag, (1, 0), 400).on(1100, Fault::Isolate, (1, 1), 800);
    let mut stage = script.stage();
    stage.until(1100)?;
    stage.until_so(|stage| !stage.process(0).control_link.to_lane.is_empty())?;
    let before = stage.seen(0);
    let (core, until) = (Part::Core as usize, stage.world.now.plus(5 * MS));
    stage.world.machines[0].paused_until[core] = until;
    let leadership = Leadership { term: Term(before.fence.term.0 + 9), ..before.fence };
    let call = Message::Lead { founder: None };
    let call = Envelope { from: NodeId(1), leadership, message: call };
    let bytes: Rc<[u8]> = call.encode(GROUP, &GroupConstants::from_fn(|_| 0)).as_bytes().into();
    stage.world.schedule(stage.world.now, Event::Control { to: 0, bytes });
    let most = Cell::new(before.tail.position);
    stage.until_so(|stage| {
        let seen = stage.seen(0);
        most.set(most.get().max(seen.tail.position));
        seen.fence == leadership
    })?;
    stage.until(stage.now_ms() + 2)?;
    Ok((stage, most.get().since(before.tail.position)))
}

#[test]
fn d7_a_catch_up_chunk_that_comes_after_the_fence_is_refused() {
    let (stage, grown) = late_chunk(None).unwrap();
    assert_eq!(grown, 0, "what was with the core is dropped");
    let played = stage.end().unwrap();
    let fenced = played.lines("node 0: Fenced {");
    assert!(!fenced.is_empty() && played.answered(2200, 4000) > 50);
}

#[test]
fn d7_off_a_chunk_that_is_taken_after_the_fence_is_noticed() {
    let broken = late_chunk(Some(Mutant::LateChunk)).map(drop).unwrap_err();
    assert_eq!(broken.checker, "fence");
}

/// The leader's process stands still from 1 s on for 600 ms; commands go on arriving in its sockets.
fn asleep(rule: Option<Mutant>) -> Result<Played, Violation> {
    let mut script = busy(Script::of(3)).on(1000, Fault::Pause, (0, 0), 600);
    script.plan.mutant = rule;
    let mut stage = script.stage();
    stage.until(1500)?;
    // What the others said to it before lies in its sockets, too.
    for bytes in stage.world.captured[0].data_of(1) {
        stage.arrives(1, 0, &bytes);
    }
    stage.until(1598)?;
    let asleep = stage.seen(0);
    let next = stage.seen(1).fence;
    assert!(next > asleep.fence, "another leads");
    stage.until(1900)?;
    let log = stage.process(0).core.log();
    let own = log.latest_at_or_below(asleep.fence).expect("it led");
    assert_eq!(own.leadership, asleep.fence);
    assert!(own.end <= asleep.tail.position, "nothing that it took in after waking is in its term");
    let leaders = stage.process(1).core.log();
    let end = leaders.latest_at_or_below(asleep.fence).expect("it has that term").end;
    let (own, theirs) = (log.predecessor_at(own.end.min(end)), leaders.predecessor_at(end));
    assert_eq!(own, theirs, "what it has of it is in the new leader's log");
    assert_eq!(stage.seen(0).fence, next);
    stage.end()
}

#[test]
fn d9_a_leader_that_slept_accepts_nothing_in_its_term_and_what_it_commits_is_in_the_next_ones_log()
{
    let played = asleep(None).unwrap();
    assert_eq!(played.leads().len(), 2);
    assert!(played.answered(1300, 3000) > 100);
}

#[test]
fn d9_off_a_leader_that_goes_on_when_it_wakes_is_noticed() {
    let broken = asleep(Some(Mutant::NoCheckQuorum)).map(drop).unwrap_err();
    assert_eq!(broken.checker, "check_quorum");
}

/// A leader is cut off with the clients, and then starts again, still cut off.
fn ex_leader_starts_again() -> Script {
    let script = busy(Script::of(3)).part_off(1000, 0b001, true, 700);
    script.on(1100, Fault::Crash, (0, 0), 300)
}

#[test]
fn d12_an_ex_leader_with_an_uncommitted_tail_restarts_cuts_lists_and_follows_by_itself() {
    let played = ex_leader_starts_again().play();
    let cut = played.lines("node 0: Event(Cut {");
    assert_eq!(cut.len(), 1, "{cut:?}");
    assert!(cut[0].0 >= 1700 && !cut[0].1.contains("entries: 0,"), "{cut:?}");
    assert_eq!(played.leads().len(), 2);
    // Without a hand: at the end all logs are equal, which the last phase waits for.
    assert!(played.answered(1800, 4000) > 100);
}

#[test]
fn d12_off_a_tail_that_is_cut_unsaved_or_untold_is_noticed() {
    for rule in [Mutant::CutUnsaved, Mutant::CutUntold] {
        assert_eq!(ex_leader_starts_again().without(rule).noticed(), Some("cut_kept"), "{rule:?}");
    }
}

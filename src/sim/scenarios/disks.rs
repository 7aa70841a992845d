//! Disks that are full for a while, and disks that stand still.

use super::{Fault, Script};

/// All of them.
fn everywhere(script: Script, fault: Fault, for_ms: u64) -> Script {
    (0..3).fold(script, |script, node| script.at(1000, fault, node, for_ms))
}

/// A group whose log soon comes to the end of the segments that are there.
fn with_short_segments() -> Script {
    let mut script = Script::of(3);
    script.plan.segment_bytes = 64 * 1024;
    script.plan.window_bytes = 32 * 1024;
    (script.plan.command_bytes_max, script.plan.commands) = (4_000, 1_500);
    script
}

/// `Fault::DiskStall` makes four of it.
const STALL_PARTS: u64 = 4;

#[test]
fn g76_a_leader_whose_disk_gets_full_hands_over_to_one_with_room() {
    let played = Script::of(3).at(1000, Fault::DiskFull, 0, 1500).play();
    let leads = played.leads();
    assert!(leads.len() == 2 && leads[1].0 < 1700, "{leads:?}");
    assert_eq!(played.outcome.coverage.of("handed-over"), 1);
    assert!(played.answered(1000, 1700) > 50, "nobody waits for a time-out");
}

#[test]
fn g76_a_follower_whose_disk_is_full_stays_one_and_comes_back_by_itself() {
    let played = with_short_segments().at(1000, Fault::DiskFull, 1, 1500).play();
    assert_eq!(played.leads().len(), 1);
    assert!(played.answered(1000, 2500) > 100);
    assert!(!played.lines("DiskFull {").is_empty() && !played.lines("DiskRoom {").is_empty());
}

#[test]
fn a_group_without_any_room_says_so_and_goes_on_when_there_is_some() {
    let played = everywhere(with_short_segments(), Fault::DiskFull, 2000).play();
    assert_eq!(played.leads().len(), 1, "another would be no better");
    assert!(played.outcome.coverage.of("no-space-refused") > 0);
    let (meanwhile, after) = (played.answered(2500, 2900), played.answered(3000, 5000));
    assert!(meanwhile == 0 && after > 100, "{meanwhile} meanwhile, {after} after");
}

#[test]
fn a_node_without_room_does_not_lead_where_another_can() {
    // The leader dies, and the first of the others by the list has a full disk.
    let script = Script::of(3).priorities(&[3, 2, 1]).at(1000, Fault::DiskFull, 1, 3000);
    let leads = script.at(1500, Fault::Crash, 0, 1000).play().leads();
    assert_eq!(leads[1].1, 2, "{leads:?}");
    assert!(leads[1].0 - 1500 < 375, "and nobody has waited for it: {leads:?}");
}

#[test]
fn a_disk_that_stands_still_on_a_follower_slows_nobody() {
    let played = Script::of(3).at(1000, Fault::DiskStall, 1, 3000 / STALL_PARTS).play();
    assert_eq!(played.leads().len(), 1);
    assert_eq!(played.outcome.coverage.of("disk-stall-told"), 1);
    let (before, meanwhile) = (played.answered(500, 1000), played.answered(1000, 1500));
    assert!(meanwhile * 10 > before * 9, "{before} before, {meanwhile} meanwhile");
}

#[test]
fn a_disk_that_stands_still_under_the_leader_makes_it_give_the_lead_up() {
    let played = Script::of(3).at(1000, Fault::DiskStall, 0, 3000 / STALL_PARTS).play();
    let leads = played.leads();
    assert!(leads.len() == 2 && leads[1].0 < 1600, "{leads:?}");
    assert_eq!(played.outcome.coverage.of("lead-given-up"), 1);
    assert!(played.answered(1700, 4000) > 200, "the others go on without it");
}

#[test]
fn where_every_disk_stands_still_nobody_gives_anything_up() {
    let played = everywhere(Script::of(3), Fault::DiskStall, 2000 / STALL_PARTS).play();
    assert_eq!(played.leads().len(), 1);
    assert_eq!(played.outcome.coverage.of("lead-given-up"), 0);
    assert!(played.answered(3100, 5000) > 100);
}

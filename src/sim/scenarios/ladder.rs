//! The durability ladder, changed while commands are under way.

use super::{Fault, Script};
use crate::link::{Durability, Rung};

/// Tells the leader: bit 0 is the leader's rung, bit 1 the followers'; 1 is the disk.
fn change(script: Script, ms: u64, bits: u64) -> Script {
    let mut script = script.at(ms, Fault::Ladder, 0, 0);
    script.strikes.last_mut().expect("pushed above").1.sides = bits;
    script
}

#[test]
fn g71_every_rung_of_the_ladder_can_be_reached_from_every_other_while_it_is_used() {
    for from in 0..4 {
        let rung = |bit: u64| if from >> bit & 1 == 0 { Rung::Memory } else { Rung::Disk };
        let mut script = Script::of(3);
        script.plan.durability = Durability { leader: rung(0), follower: rung(1) };
        let others = (0..4).filter(|to| *to != from);
        // There and back, each way.
        for (turn, to) in others.enumerate() {
            script = change(script, 800 + 600 * turn as u64, to);
            script = change(script, 1100 + 600 * turn as u64, from);
        }
        let played = script.play();
        assert_eq!(played.lines("DurabilityChanged").len(), 6 * 3, "six times, on three nodes");
        assert_eq!(played.leads().len(), 1);
        assert!(played.answered(800, 3000) > 300, "{} answers", played.answered(800, 3000));
    }
}

#[test]
fn a_looser_ladder_holds_when_the_stricter_one_has_committed_it() {
    // The leader's disk stands still for less than would cost it the lead, and is asked for no more: that must wait for it.
    let script = Script::of(3).at(1000, Fault::DiskStall, 0, 300 / 4);
    let played = change(script, 1020, 0b00).play();
    assert_eq!((played.leads().len(), played.answered(1030, 1290)), (1, 0));
    let told = played.lines("DurabilityChanged");
    assert!(told.len() == 3 && told[0].0 >= 1300, "{told:?}");
}

#[test]
fn a_stricter_ladder_holds_from_when_it_is_asked_for() {
    let mut script = Script::of(3);
    script.plan.durability = Durability { leader: Rung::Memory, follower: Rung::Memory };
    for node in 1..3 {
        script = script.at(1000, Fault::DiskStall, node, 300 / 4);
    }
    let played = change(script, 1020, 0b11).play();
    assert!(played.answered(1000, 1020) > 0 && played.answered(1030, 1290) == 0);
    let told = played.lines("DurabilityChanged");
    assert!(told.len() == 3 && told[0].0 >= 1300, "its own entry, too: {told:?}");
}

#[test]
fn a_change_survives_its_leader_and_a_restart_of_everybody() {
    let script = change(Script::of(3), 1000, 0b11).at(1200, Fault::Crash, 0, 300);
    let mut script = script;
    for node in 0..3 {
        script = script.at(2500, Fault::Crash, node, 300 + node as u64 * 100);
    }
    let played = script.play();
    let now = "now: Durability { leader: Disk, follower: Disk }";
    let told = played.lines("DurabilityChanged");
    assert_eq!(told.len(), 3, "a node that starts again knows it already: {told:?}");
    assert!(told.iter().all(|(_, line)| line.contains(now)));
}

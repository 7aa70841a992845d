//! G137: the power fails after each single change of a disk, of one machine and of all, in a short history, on every rung of the
//! ladder. The history is the same up to there, so every boundary between two writes, syncs and names is met.

use super::super::check::Violation;
use super::super::nemesis::Phase;
use super::super::world::{Event, World};
use super::{MS, Script};
use crate::link::{Durability, Rung};
use crate::sim::Plan;

const NODES: usize = 3;
/// Machines that lost their power have it again after this, ms.
const DARK_MS: u64 = 40;
/// Worlds of one kind that are played by default, at most: evenly spread boundaries. `QUORATE_POWER_ALL` plays each.
const WORLDS_MAX: u64 = 24;

/// A few commands that fill a segment and enter the next one.
fn plan(durability: Durability) -> Plan {
    let mut plan = Script::of(NODES).plan;
    plan.durability = durability;
    (plan.segment_bytes, plan.window_bytes) = (64 * 1024, 32 * 1024);
    (plan.clients, plan.commands, plan.in_flight) = (2, 14, 2);
    (plan.think_ns, plan.command_bytes_max, plan.sync_ns) = (2 * MS, 4_000, MS);
    plan.chaos_ns = 260 * MS;
    plan.faults = 0;
    plan
}

/// Changes of each disk until the group is founded everywhere, and until the history ends.
fn boundaries(plan: &Plan) -> [(u64, u64); NODES] {
    let mut world = World::new(plan, false);
    world.begin();
    let changes = |world: &World| -> Vec<u64> {
        world.machines.iter().map(|machine| machine.disk.changes()).collect()
    };
    let mut founded = None;
    while world.phase == Phase::Chaos {
        world.play().expect("nothing goes wrong by itself");
        if world.founders.count_ones() as usize == NODES {
            founded.get_or_insert_with(|| changes(&world));
        }
    }
    let (founded, end) = (founded.expect("in time"), changes(&world));
    core::array::from_fn(|node| (founded[node], end[node]))
}

/// Plays the same history until the disk of `node` has been changed so often; then the power fails there, or everywhere.
fn fail(plan: &Plan, node: usize, changes: u64, everywhere: bool) -> Result<(), Violation> {
    let mut world = World::new(plan, false);
    world.begin();
    world.machines[node].disk.stop_after(changes);
    let mut dark = false;
    while !world.is_over() {
        world.play()?;
        if !dark && world.machines[node].disk.changes() >= changes {
            dark = true;
            for other in (0..NODES).filter(|other| everywhere || *other == node) {
                world.power_off(other, changes.wrapping_mul(0x9E37_79B9) ^ other as u64);
                let at = world.now.plus((DARK_MS + other as u64) * MS);
                world.schedule(at, Event::Start(other));
            }
        }
    }
    assert!(dark, "the history is the same, so it comes to that change");
    Ok(())
}

/// Every boundary of every node, or as many as there is time for.
fn fail_at_each(durability: Durability, everywhere: bool) {
    let plan = plan(durability);
    let ends = boundaries(&plan);
    let every = option_env!("QUORATE_POWER_ALL").is_some();
    for (node, (founded, end)) in ends.into_iter().enumerate() {
        assert!(end > founded + 20, "there is a history: {ends:?}");
        let count = end - founded;
        let step = if every { 1 } else { count.div_ceil(WORLDS_MAX / NODES as u64) };
        for changes in (founded + 1..=end).step_by(step as usize) {
            let kept = fail(&plan, node, changes, everywhere);
            let place = format!("{durability}: node {node}, change {changes}, all {everywhere}");
            assert!(kept.is_ok(), "{place}: {kept:?}");
        }
    }
}

const LADDER: [Durability; 4] = [
    Durability { leader: Rung::Disk, follower: Rung::Memory },
    Durability { leader: Rung::Disk, follower: Rung::Disk },
    Durability { leader: Rung::Memory, follower: Rung::Disk },
    Durability { leader: Rung::Memory, follower: Rung::Memory },
];

#[test]
fn g137_one_machine_loses_its_power_after_each_change_of_its_disk() {
    for durability in LADDER {
        fail_at_each(durability, false);
    }
}

/// On the lowest rung of both what no disk had reached may be gone then: there is no promise to hold.
#[test]
fn g137_all_machines_lose_their_power_after_each_change_of_a_disk() {
    for durability in &LADDER[..3] {
        fail_at_each(*durability, true);
    }
}

#[test]
fn what_was_only_in_memory_is_missed_when_all_machines_lose_their_power() {
    // The checkers would notice: on the lowest rung of both they do.
    let plan = plan(LADDER[3]);
    let [(founded, end), ..] = boundaries(&plan);
    let lost = (founded + 1..=end).any(|changes| fail(&plan, 0, changes, true).is_err());
    assert!(lost, "none of {founded}..{end} was missed");
}

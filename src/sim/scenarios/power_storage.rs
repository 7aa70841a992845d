//! G137, further: the power fails after each change of a disk that a snapshot, a segment that leaves, a snapshot of another node,
//! a cut or a repair makes. A history is played once to find those changes, and then again and again up to each of them.

use super::super::check::Violation;
use super::super::nemesis::Phase;
use super::super::world::{Event, World};
use super::retention::trimming;
use super::{Fault, MS, Script};
use crate::journal::{Disk, parse_segment_name};
use crate::link::{Durability, Rung};
use crate::types::Nanos;

/// Machines that lost their power have it again after this, ms.
const DARK_MS: u64 = 40;
/// Worlds of one kind that are played by default, at most: evenly spread boundaries. `QUORATE_POWER_ALL` plays each.
const WORLDS_MAX: usize = 6;
/// Changes behind one of these that are taken for a part of it.
const BEHIND: u64 = 6;

/// What a history is about: something at the names in a directory that begins or ends like this.
#[derive(Clone, Copy, Debug)]
enum About {
    Snapshots,
    Leaving,
    Incoming,
    Cut,
    Repair,
}

impl About {
    /// Of the names in a directory those that tell of it.
    fn of<'a>(self, names: &'a [String]) -> Vec<&'a String> {
        let tells = |name: &&'a String| match self {
            Self::Snapshots => name.starts_with("snapshots/"),
            Self::Leaving => parse_segment_name(name).is_some(),
            Self::Incoming => name.starts_with("incoming/"),
            Self::Cut => name.starts_with("quarantine/") && !name.contains("damaged-"),
            Self::Repair => name.contains("damaged-") || name.strip_suffix(".new").is_some(),
        };
        names.iter().filter(tells).collect()
    }

    /// Whether the step between these two was a part of it.
    fn shows(self, before: &[String], after: &[String]) -> bool {
        let (old, new) = (self.of(before), self.of(after));
        match self {
            // Many steps, each of which writes something of what is on its way.
            Self::Incoming => !old.is_empty() || !new.is_empty(),
            Self::Leaving => old.first() < new.first(),
            Self::Snapshots | Self::Cut | Self::Repair => old != new,
        }
    }

    fn script(self, durability: Durability) -> Script {
        let mut script = trimming(3);
        script.plan.durability = durability;
        script.plan.chaos_ns = 1_400 * MS;
        (script.plan.commands, script.plan.think_ns) = (170, MS);
        match self {
            Self::Snapshots | Self::Leaving => script,
            Self::Incoming => script.at(200, Fault::Isolate, 1, 800),
            Self::Cut | Self::Repair => {
                script.plan.retention_bytes = 0;
                let cut = matches!(self, Self::Cut);
                // It goes on with what it was sent, and nobody takes it.
                if cut { script.part(250, 0b001, 500) } else { script }
            }
        }
    }
}

/// Bytes of a file that node 1 has left rot, once.
fn rot(world: &mut World, rotten: &mut bool) {
    let Some(process) = &mut world.machines[1].process else { return };
    let (reach, segment) = (process.mender.scrub().reach(), world.plan.segment_bytes);
    if !*rotten && reach.0 > 2 * segment {
        *rotten = true;
        let machine = &world.machines[1];
        machine.disk.rot("0000000000000000.qlog", 4096 + 30_000, |bytes| bytes[0] ^= 1);
        world.rotten[1] = Some(machine.clock.local(world.now));
    }
}

/// The same history, every time.
struct History {
    about: About,
    world: World,
    rotten: bool,
}

impl History {
    fn begin(about: About, durability: Durability) -> Self {
        let Script { plan, strikes } = about.script(durability);
        let mut world = World::new(&plan, false);
        world.begin();
        for (at, strike) in strikes {
            world.schedule(Nanos(at), Event::Strike(strike));
        }
        Self { about, world, rotten: false }
    }

    fn play(&mut self) -> Result<(), Violation> {
        if matches!(self.about, About::Repair) {
            rot(&mut self.world, &mut self.rotten);
        }
        self.world.play()
    }

    /// Of each disk the changes of which it is about, in order.
    fn boundaries(mut self) -> Vec<(usize, u64)> {
        let mut found = Vec::new();
        let look = |world: &World| -> Vec<(u64, Vec<String>)> {
            let disks = world.machines.iter().map(|machine| &machine.disk);
            disks.map(|disk| (disk.changes(), disk.list().expect("it reads"))).collect()
        };
        let mut before = look(&self.world);
        while self.world.phase == Phase::Chaos {
            self.play().expect("nothing goes wrong by itself");
            let changed =
                |(old, machine): (&(u64, Vec<String>), &super::super::machine::Machine)| {
                    old.0 != machine.disk.changes()
                };
            if !before.iter().zip(&self.world.machines).any(changed) {
                continue;
            }
            let after = look(&self.world);
            for (node, (old, new)) in before.iter().zip(&after).enumerate() {
                if self.about.shows(&old.1, &new.1) {
                    found.extend((old.0 + 1..=new.0 + BEHIND).map(|changes| (node, changes)));
                }
            }
            before = after;
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The power fails when the disk of `node` has been changed so often: there, or everywhere.
    fn fail(mut self, node: usize, changes: u64, everywhere: bool) -> Result<(), Violation> {
        self.world.machines[node].disk.stop_after(changes);
        let mut dark = false;
        while !self.world.is_over() {
            self.play()?;
            let world = &mut self.world;
            if !dark && world.machines[node].disk.changes() >= changes {
                dark = true;
                for other in (0..world.plan.nodes).filter(|&other| everywhere || other == node) {
                    world.power_off(other, changes.wrapping_mul(0x9E37_79B9) ^ other as u64);
                    let at = world.now.plus((DARK_MS + other as u64) * MS);
                    world.schedule(at, Event::Start(other));
                }
            }
        }
        assert!(dark, "the history is the same, so it comes to that change");
        Ok(())
    }
}

const RUNGS: [Durability; 2] = [
    Durability { leader: Rung::Disk, follower: Rung::Memory },
    Durability { leader: Rung::Disk, follower: Rung::Disk },
];

fn fail_at_each(about: About) {
    let every = option_env!("QUORATE_POWER_ALL").is_some();
    for (durability, everywhere) in [(RUNGS[0], false), (RUNGS[0], true), (RUNGS[1], true)] {
        let boundaries = History::begin(about, durability).boundaries();
        assert!(boundaries.len() > WORLDS_MAX, "{about:?}: it is about {boundaries:?}");
        let step = if every { 1 } else { boundaries.len().div_ceil(WORLDS_MAX) };
        for &(node, changes) in boundaries.iter().step_by(step) {
            let kept = History::begin(about, durability).fail(node, changes, everywhere);
            let place = format!("{about:?}, {durability}: {node}, {changes}, all {everywhere}");
            assert!(kept.is_ok(), "{place}: {kept:?}");
        }
    }
}

#[test]
fn g137_the_power_fails_while_a_snapshot_is_taken() {
    fail_at_each(About::Snapshots);
}

#[test]
fn g137_the_power_fails_while_segments_leave() {
    fail_at_each(About::Leaving);
}

#[test]
fn g137_the_power_fails_while_a_snapshot_of_another_node_is_taken_over() {
    fail_at_each(About::Incoming);
}

#[test]
fn g137_the_power_fails_while_a_log_is_cut() {
    fail_at_each(About::Cut);
}

#[test]
fn g137_the_power_fails_while_a_damaged_file_is_repaired() {
    fail_at_each(About::Repair);
}

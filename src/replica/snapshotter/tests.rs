use zerocopy::IntoBytes;

use super::*;
use crate::frame::Kind;
use crate::frame::payload::{CommandPrefix, SessionOpen};
use crate::journal::memory::segment_name;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::rig::{GROUP, Rig, SEGMENT};
use crate::journal::snapshot::SNAPSHOT_FOLDER;
use crate::service::Echo;
use crate::types::{ClientSequence, Commit, SessionId};

type Worker = Snapshotter<MemoryDisk, Echo>;

/// A log with one session whose client sends commands, everything committed and on the disk.
struct World {
    rig: Rig,
    session: u64,
    commands: u64,
}

impl World {
    fn new() -> Self {
        let mut rig = Rig::started();
        rig.settings.known_names.push(SNAPSHOT_FOLDER.to_owned());
        let open = SessionOpen { nonce: 5.into(), timeout: 1_000_000.into() };
        rig.append_kind(Kind::SessionOpen, 1, open.as_bytes());
        let session = rig.tail().sequence.0;
        let mut world = Self { rig, session, commands: 0 };
        world.commands(3);
        world
    }

    fn commands(&mut self, count: u64) {
        for _ in 0..count {
            self.commands += 1;
            let payload = self.command();
            let term = self.rig.tail().term.0;
            self.rig.append_kind(Kind::Command, term, &payload);
        }
        self.commit();
    }

    /// The client's last one.
    fn command(&self) -> Vec<u8> {
        let number = self.commands;
        let prefix = CommandPrefix {
            session: self.session.into(),
            client_sequence: number.into(),
            received_through: number.saturating_sub(2).into(),
        };
        let mut payload = prefix.as_bytes().to_vec();
        payload.resize(payload.len() + 100 + number as usize % 700, number as u8);
        payload
    }

    fn fill_to(&mut self, position: u64) {
        while self.rig.tail().position.0 < position {
            self.commands(1);
        }
    }

    /// All of the log is committed, and on the disk.
    fn commit(&mut self) {
        self.rig.keep();
        self.rig.sync_all();
        let tail = self.rig.tail().position;
        self.rig.node().shared.commit.store(tail.0, Ordering::Release);
    }

    fn worker(&mut self, interval_bytes: u64, kept: usize) -> Worker {
        let settings = SnapshotSettings {
            group: GROUP,
            segment_bytes: SEGMENT,
            limits: limits(),
            interval_bytes,
            kept,
        };
        let (disk, shared) = (self.rig.disk.clone(), self.rig.node().shared.clone());
        Snapshotter::new(disk, shared, settings, Echo::new()).unwrap()
    }

    /// A snapshot is asked for and taken; its position.
    fn snapshot(&mut self) -> Position {
        let mut worker = self.worker(0, 9);
        worker.ask(1);
        match run(&mut worker).as_slice() {
            [SnapshotEvent::Taken { stamp, answers: 1 }] => stamp.before.position,
            events => panic!("{events:?}"),
        }
    }

    fn log(&self) -> ReplayLog<'_, MemoryDisk> {
        ReplayLog { disk: &self.rig.disk, group: GROUP, segment_bytes: SEGMENT }
    }

    /// The state at the end of the log as a start makes it, and how.
    fn start(&mut self) -> (State<Echo>, super::super::Replayed) {
        let tail = self.rig.tail().position;
        let mut state = State::new(Echo::new(), limits());
        let replayed = self.log().replay(Commit(tail), tail, &mut state).unwrap();
        assert_eq!(replayed.at.before, self.rig.tail());
        (state, replayed)
    }

    /// Its hash, made from the log alone.
    fn hash_of_the_log(&mut self) -> u64 {
        let tail = self.rig.tail().position;
        let mut state = State::new(Echo::new(), limits());
        self.log().apply(Place::genesis(GROUP), tail, u64::MAX, &mut state).unwrap();
        state.state_hash()
    }
}

fn limits() -> StateLimits {
    let sessions = crate::session::SessionLimits {
        sessions_max: 4,
        in_flight_max: 8,
        reply_bytes_total: 64 * 1024,
        session_reply_bytes: 32 * 1024,
    };
    StateLimits { sessions, reply_bytes_max: 4096 }
}

/// Steps until there is nothing to do; what it said.
fn run(worker: &mut Worker) -> Vec<SnapshotEvent> {
    for _ in 0..1000 {
        if worker.step(Nanos(0), &mut |_| Ok(())) == 0 {
            return core::iter::from_fn(|| worker.poll_event()).collect();
        }
    }
    panic!("it never comes to rest");
}

fn refused(replayed: &super::super::Replayed) -> Vec<Position> {
    replayed.refused.iter().map(|(position, _)| *position).collect()
}

#[test]
fn r6_a_snapshot_carries_its_position_and_a_start_from_it_reports_it() {
    let mut world = World::new();
    let at = world.snapshot();
    assert_eq!(at, world.rig.tail().position);
    world.fill_to(3 * SEGMENT);
    let (state, replayed) = world.start();
    let stamp = replayed.snapshot.expect("it begins with the snapshot");
    assert_eq!(stamp.before, world.rig.ends[&at]);
    assert_eq!(state.state_hash(), world.hash_of_the_log());
    assert_eq!(state.sequence(), world.rig.tail().sequence);
}

#[test]
fn a_command_that_comes_again_after_a_restore_has_its_stored_reply() {
    let mut world = World::new();
    let at = world.snapshot();
    let (mut state, _) = world.start();
    let (session, last) = (SessionId(world.session), ClientSequence(world.commands));
    let reply = |state: &State<Echo>| -> Vec<u8> {
        let stored = state.sessions().reply(session, last).expect("kept in the snapshot");
        stored.chunks.flatten().copied().collect()
    };
    let kept = reply(&state);
    assert_eq!(kept, world.command()[size_of::<CommandPrefix>()..]);
    // The same command, once more in the log.
    let seen = state.service().seen();
    world.commands -= 1;
    world.commands(1);
    let (from, tail) = (world.rig.ends[&at], world.rig.tail());
    let from = Place { before: from, ..Place::genesis(GROUP) };
    let to = world.log().apply(from, tail.position, u64::MAX, &mut state).unwrap();
    assert_eq!(to.before, tail);
    assert_eq!(state.service().seen(), seen, "the service did not see it again");
    assert_eq!(reply(&state), kept);
}

#[test]
fn r14_a_damaged_snapshot_falls_back_to_the_older_one_and_the_log() {
    let mut world = World::new();
    let older = world.snapshot();
    world.fill_to(2 * SEGMENT);
    let newer = world.snapshot();
    let right = world.hash_of_the_log();
    assert_eq!(world.start().1.snapshot.unwrap().before.position, newer);
    // Every part of it: stamp, front of a block, state.
    for offset in [3, 40, 4096 + 1, 4096 + 90] {
        world.rig.disk.rot(&snapshot_name(newer), offset, |bytes| bytes[0] ^= 1);
        let (state, replayed) = world.start();
        assert_eq!(replayed.snapshot.as_ref().unwrap().before.position, older, "byte {offset}");
        assert_eq!(refused(&replayed), [newer]);
        assert_eq!(state.state_hash(), right);
        world.rig.disk.rot(&snapshot_name(newer), offset, |bytes| bytes[0] ^= 1);
    }
    // Both: the log alone.
    for at in [older, newer] {
        world.rig.disk.rot(&snapshot_name(at), 4096 + 90, |bytes| bytes[0] ^= 1);
    }
    let (state, replayed) = world.start();
    assert_eq!((replayed.snapshot.is_none(), refused(&replayed)), (true, vec![newer, older]));
    assert_eq!(state.state_hash(), right);
    // The worker goes on from the log, and moves them out of the way.
    world.commands(1);
    let mut worker = world.worker(0, 9);
    worker.ask(1);
    let events = run(&mut worker);
    assert!(
        matches!(
            events.as_slice(),
            [
                SnapshotEvent::Damaged { kept_at: Some(_), .. },
                SnapshotEvent::Damaged { kept_at: Some(_), .. },
                SnapshotEvent::Taken { .. }
            ]
        ),
        "{events:?}"
    );
    assert_eq!(snapshots(&world.rig.disk).unwrap(), [world.rig.tail().position]);
}

#[test]
fn r14_a_snapshot_outlasts_damage_to_the_log_below_it() {
    let mut world = World::new();
    world.fill_to(SEGMENT + SEGMENT / 2);
    let at = world.snapshot();
    world.commands(3);
    let rot = |world: &World, offset| {
        world.rig.disk.rot(&segment_name(Position(SEGMENT)), offset, |bytes| bytes[0] ^= 1);
    };
    // In an entry below it: nothing says any more that it is of this log, and nothing can be taken in its place.
    rot(&world, 4096 + 300);
    let mut worker = world.worker(0, 9);
    worker.ask(1);
    let events = run(&mut worker);
    assert!(matches!(events.as_slice(), [SnapshotEvent::Failed { .. }]), "{events:?}");
    assert_eq!(snapshots(&world.rig.disk).unwrap(), [at], "it is as good as before");
    rot(&world, 4096 + 300);
    // In the header page of its segment: the log can be read from its birth.
    rot(&world, 20);
    let second = world.snapshot();
    rot(&world, 20);
    // Repaired: the next one stands on it.
    world.commands(3);
    let third = world.snapshot();
    assert_eq!(snapshots(&world.rig.disk).unwrap(), [at, second, third]);
}

#[test]
fn a_snapshot_of_another_log_is_not_believed() {
    let mut world = World::new();
    let at = world.snapshot();
    let stolen = world.rig.disk.bytes(&snapshot_name(at)).unwrap();
    // Another history of the same group, with an entry that ends at the same place.
    let mut other = World { rig: Rig::started(), session: 0, commands: 0 };
    let before = other.rig.tail().position;
    let payload = vec![9; (at.since(before) - 32) as usize];
    other.rig.append_kind(Kind::Command, 1, &payload);
    other.commit();
    assert_eq!(other.rig.tail().position, at);
    other.rig.disk.put(&snapshot_name(at), &stolen);
    let (_, replayed) = other.start();
    assert!(replayed.snapshot.is_none());
    let [(_, SnapshotError::OtherLog { log: Some(_), .. })] = replayed.refused.as_slice() else {
        panic!("{:?}", replayed.refused)
    };
    // And where no entry ends at that place.
    let mut other = World { rig: Rig::started(), session: 0, commands: 0 };
    other.rig.append_kind(Kind::Command, 1, &vec![9; 2000]);
    other.commit();
    other.rig.disk.put(&snapshot_name(at), &stolen);
    let (_, replayed) = other.start();
    assert!(matches!(
        replayed.refused.as_slice(),
        [(_, SnapshotError::OtherLog { log: None, .. })]
    ));
}

#[test]
fn d22_a_snapshot_of_a_log_that_was_given_up_is_none_of_the_next_one() {
    let mut world = World::new();
    let kept = world.rig.tail();
    world.fill_to(SEGMENT / 2);
    let dead = world.snapshot();
    // All above `kept` is given up: what was committed there, too, which only a person may decide.
    world.rig.ask_cut(kept);
    world.rig.sync_all();
    world.rig.crash_process();
    world.rig.start().unwrap();
    assert_eq!(world.rig.tail(), kept);
    let (state, replayed) = world.start();
    assert!(replayed.snapshot.is_none() && refused(&replayed) == [dead]);
    assert_eq!(state.state_hash(), world.hash_of_the_log());
    // Another history grows beyond it, with an entry that ends just there.
    let open = SessionOpen { nonce: 6.into(), timeout: 1_000_000.into() };
    world.rig.append_kind(Kind::SessionOpen, 2, open.as_bytes());
    (world.session, world.commands) = (world.rig.tail().sequence.0, 0);
    world.fill_to(dead.0 - 2000);
    world.commands += 1;
    let mut payload = world.command();
    payload.resize((dead.since(world.rig.tail().position) - 32) as usize, 7);
    world.rig.append_kind(Kind::Command, 2, &payload);
    assert_eq!(world.rig.tail().position, dead);
    world.commands(3);
    let (state, replayed) = world.start();
    assert!(replayed.snapshot.is_none() && refused(&replayed) == [dead]);
    assert_eq!(state.state_hash(), world.hash_of_the_log());
}

#[test]
fn it_takes_one_per_interval_and_keeps_so_many() {
    let mut world = World::new();
    let mut worker = world.worker(SEGMENT, 2);
    assert!(run(&mut worker).is_empty(), "the log has not grown by the interval");
    let mut taken: Vec<Position> = Vec::new();
    for _ in 0..4 {
        let last = taken.last().copied().unwrap_or_default();
        world.fill_to(last.0 + SEGMENT - 2000);
        assert!(run(&mut worker).is_empty(), "not yet");
        world.fill_to(last.0 + SEGMENT);
        match run(&mut worker).as_slice() {
            [SnapshotEvent::Taken { stamp, answers: 0 }] => taken.push(stamp.before.position),
            events => panic!("{events:?}"),
        }
        assert!(run(&mut worker).is_empty(), "once");
    }
    assert_eq!(snapshots(&world.rig.disk).unwrap(), taken[2..]);
    // Asked for, with nothing new.
    worker.ask(1);
    let events = run(&mut worker);
    let current = SnapshotEvent::Current { position: taken[3], answers: 1 };
    assert_eq!(format!("{events:?}"), format!("{:?}", [current]));
    worker.ask(1);
    assert!(run(&mut worker).is_empty(), "that request was answered");
}

#[test]
fn nothing_uncommitted_and_nothing_that_is_not_on_the_disk_gets_into_a_snapshot() {
    let mut world = World::new();
    let committed = world.rig.tail().position;
    world.commands(5);
    let tail = world.rig.tail().position;
    for (commit, durable, expected) in [
        (committed.0, tail.0, committed),
        (tail.0, committed.0, committed),
        // Within an entry: what ends below it.
        (committed.0 + 40, tail.0, committed),
    ] {
        let shared = world.rig.node().shared.clone();
        shared.commit.store(commit, Ordering::Release);
        shared.durable.store(durable, Ordering::Release);
        assert_eq!(world.snapshot(), expected);
        world.rig.disk.remove(&snapshot_name(expected)).unwrap();
    }
}

#[test]
fn a_power_loss_at_every_change_leaves_a_start_with_the_same_state() {
    let mut done = false;
    let mut changes = 0;
    while !done {
        let mut world = World::new();
        world.snapshot();
        world.fill_to(SEGMENT + 1000);
        let right = world.hash_of_the_log();
        let mut worker = world.worker(0, 1);
        worker.ask(1);
        world.rig.disk.stop_after(changes);
        done = matches!(run(&mut worker).as_slice(), [SnapshotEvent::Taken { .. }]);
        world.rig.power_loss(changes);
        world.rig.start().unwrap();
        let (state, replayed) = world.start();
        assert_eq!(state.state_hash(), right, "after {changes} changes");
        assert!(refused(&replayed).is_empty() && replayed.snapshot.is_some());
        changes += 1;
    }
    assert!(changes > 5, "it was stopped in the middle, too");
}

#[test]
fn a_full_disk_is_told_and_tried_again_later() {
    let mut world = World::new();
    let mut worker = world.worker(0, 2);
    worker.ask(1);
    world.rig.disk.set_space(Some(0));
    let events = run(&mut worker);
    assert!(
        matches!(events.as_slice(), [SnapshotEvent::Failed { answers: 1, error }]
            if error.kind() == io::ErrorKind::StorageFull),
        "{events:?}"
    );
    world.rig.disk.set_space(None);
    worker.ask(2);
    assert!(matches!(run(&mut worker).as_slice(), [SnapshotEvent::Taken { answers: 2, .. }]));
}

#[test]
fn a_snapshot_that_could_not_be_read_back_stays_where_it_is() {
    let mut world = World::new();
    let mut worker = world.worker(0, 2);
    worker.ask(1);
    let disk = world.rig.disk.clone();
    // The node ends while it is read back.
    let mut pace = |_| match snapshots(&disk).unwrap().len() {
        0 => Ok(()),
        _ => Err(io::Error::from(io::ErrorKind::Interrupted)),
    };
    while worker.step(Nanos(0), &mut pace) > 0 && worker.events.is_empty() {}
    let event = worker.poll_event();
    assert!(matches!(event, Some(SnapshotEvent::Failed { answers: 1, .. })), "{event:?}");
    let quarantined = |name: &String| name.starts_with("quarantine/");
    assert!(!disk.list().unwrap().iter().any(quarantined));
    let (state, replayed) = world.start();
    assert!(replayed.snapshot.is_some() && replayed.refused.is_empty());
    assert_eq!(state.state_hash(), world.hash_of_the_log());
    // The same worker takes it again.
    worker.ask(2);
    assert!(matches!(run(&mut worker).as_slice(), [SnapshotEvent::Taken { answers: 2, .. }]));
}

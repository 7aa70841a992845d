//! Settings that a core takes, in groups of cores on a network without sockets.

use super::{Pair, settings};
use crate::link::{CoreEvent, CoreToControl, Identity};
use crate::replica::tests::{Faults, STEP_NS, World, address};
use crate::runtime::node::settings::core_settings;
use crate::types::{Generation, Incarnation, Nanos, NodeId, Term};

/// A group of three, with a leader, and with all of its log applied everywhere.
fn group(set: &[Pair<'_>]) -> World {
    let mut world = unled(set);
    world.lead(1);
    assert!(world.run(5000, |world| world.all_applied() && world.commit().0 > 0));
    world
}

/// The first node, which has forgotten nothing.
pub(super) fn identity() -> Identity {
    Identity {
        node: NodeId(0),
        incarnation: Incarnation(0),
        provisional: false,
        stateless: false,
        generation: Generation::default(),
        fence: Term(0),
    }
}

fn unled(set: &[Pair<'_>]) -> World {
    let members = [0, 1, 2].map(address);
    let node = |node: usize| {
        let identity = Identity { node: NodeId(node as u16), ..identity() };
        core_settings(&settings(node, &members, set), identity, true)
    };
    World::of((0..3).map(node).collect(), Faults::default(), 1)
}

fn steps(ns: u64) -> usize {
    (ns / STEP_NS) as usize
}

/// How far ahead of a quorum that has fallen silent the leader has sent.
fn sent_ahead(window: &str) -> u64 {
    let mut world = group(&[("group.window_bytes", window)]);
    world.wire.borrow_mut().cut_off = vec![address(1), address(2)];
    world.wire.borrow_mut().sends.clear();
    let quorum = world.commit();
    world.append(40, 900);
    world.run(steps(50 * Nanos::MILLISECOND), |_| false);
    let wire = world.wire.borrow();
    let end = wire.sends.iter().map(|(from, _, length)| from.0 + *length as u64).max();
    end.expect("it sends").saturating_sub(quorum.0)
}

#[test]
fn r15_group_window_bytes() {
    for window in [6144_u64, 16_384] {
        let ahead = sent_ahead(&window.to_string());
        assert!(ahead <= window && ahead > window - 2048, "{ahead} of {window}");
    }
}

/// Whether anything is committed while these nodes sync nothing.
fn commits(set: &[Pair<'_>], stalled: &[usize]) -> bool {
    let mut world = unled(set);
    for node in stalled {
        world.nodes[*node].stalled = true;
    }
    world.lead(1);
    world.run(5000, |world| world.commit().0 > 0)
}

#[test]
fn r15_group_durability_leader() {
    assert!(commits(&[("group.durability.leader", "memory")], &[0]));
    assert!(!commits(&[("group.durability.leader", "disk")], &[0]));
}

#[test]
fn r15_group_durability_follower() {
    assert!(commits(&[("group.durability.follower", "memory")], &[1, 2]));
    assert!(!commits(&[("group.durability.follower", "disk")], &[1, 2]));
    assert!(commits(&[("group.durability.follower", "disk")], &[1]), "one of them is enough");
}

/// Hashes that a node reports for 64 entries.
fn hashes(interval: &str) -> usize {
    let mut world = group(&[("group.state_hash_interval", interval)]);
    for node in &mut world.nodes {
        node.facts.clear();
    }
    world.append(64, 10);
    assert!(world.run(5000, |world| world.all_applied()));
    let of = |node: &crate::replica::tests::Node| {
        let hashes =
            node.facts.iter().filter(|fact| matches!(fact, CoreToControl::StateHash { .. }));
        hashes.count()
    };
    let counts: Vec<_> = world.nodes.iter().map(of).collect();
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    counts[0]
}

#[test]
fn r15_group_state_hash_interval() {
    assert_eq!(hashes("4"), 16);
    assert_eq!(hashes("32"), 2);
}

/// Datagrams of an idle group in a second.
fn idle_datagrams(heartbeat_ms: &str) -> u64 {
    let mut world =
        group(&[("timing.heartbeat_ms", heartbeat_ms), ("timing.leader_timeout_ms", "400")]);
    world.run(steps(200 * Nanos::MILLISECOND), |_| false);
    let before = world.wire.borrow().sent;
    world.run(steps(Nanos::SECOND), |_| false);
    let sent = world.wire.borrow().sent;
    sent - before
}

#[test]
fn r15_timing_heartbeat_ms() {
    let (often, seldom) = (idle_datagrams("5"), idle_datagrams("50"));
    // To each of two, and what they answer.
    assert!((400..=900).contains(&often) && (40..=90).contains(&seldom), "{often} {seldom}");
}

/// How long a leader goes on believing in a quorum that is gone.
fn believes_ns(timeout_ms: &str) -> u64 {
    let mut world = group(&[("timing.leader_timeout_ms", timeout_ms)]);
    world.run(steps(20 * Nanos::MILLISECOND), |_| false);
    world.wire.borrow_mut().cut_off = vec![address(1), address(2)];
    let start = world.now;
    let lost = CoreToControl::Event(CoreEvent::Quorum { present: false });
    let noticed = world.run(steps(2 * Nanos::SECOND), |world| world.nodes[0].facts.contains(&lost));
    assert!(noticed);
    world.now.since(start)
}

#[test]
fn r15_timing_leader_timeout_ms() {
    for timeout in [50, 450] {
        let ns = believes_ns(&timeout.to_string());
        let timeout_ns = timeout * Nanos::MILLISECOND;
        assert!((timeout_ns - 15_000_000..2 * timeout_ns + 15_000_000).contains(&ns), "{ns}");
    }
}

#[test]
fn r15_transport_client_pool_bytes() {
    // What becomes of traffic that the pool has no room for: tests/client_lanes.rs.
    for (text, bytes) in [("8 MiB", 8 << 20), ("32 MiB", 32 << 20)] {
        let world = unled(&[("transport.client_pool_bytes", text)]);
        assert_eq!(world.client_pool_bytes(), bytes);
    }
}

//! A service that is not deterministic on one node: the others find out, and go on without it.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;
#[path = "support/watched.rs"]
mod watched;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use group::{CALM, Group, PATIENCE, SMALL};
use quorate::control::event::Event;
use quorate::runtime::{Ended, Node, NodeOptions};
use quorate::service::{Context, Echo};
use quorate::types::Sequence;
use watched::{Watch, Watched};

/// The last entry that this service handles as it should.
const FAITHFUL_THROUGH: Sequence = Sequence(40);

/// Makes the state of one node go wrong, as if the service had read a clock.
#[derive(Clone)]
struct Fickle {
    diverges: bool,
    wrong: u64,
}

impl Watch for Fickle {
    fn command(&mut self, context: &Context<'_>, _command: &[u8]) {
        if self.diverges && context.sequence > FAITHFUL_THROUGH {
            self.wrong += 1;
        }
    }
    fn twist(&self) -> u64 {
        self.wrong
    }
}

struct Running {
    node: Node,
    events: Receiver<Event>,
}

fn start(group: &Group, number: usize, diverges: bool) -> Running {
    let (listener, events) = unbounded();
    let options = NodeOptions {
        quiet: true,
        stop: Arc::new(AtomicBool::new(false)),
        listener: Some(listener),
        outlet: None,
    };
    let service = Watched { service: Echo::new(), watch: Fickle { diverges, wrong: 0 } };
    let node = Node::start(&group.nodes[number].settings, service, options).unwrap();
    Running { node, events }
}

fn mismatches(running: &Running) -> Vec<Event> {
    let about_state = |event: &Event| {
        matches!(event, Event::StateHashMismatch { .. } | Event::NoMajorityState { .. })
    };
    running.events.try_iter().filter(about_state).collect()
}

#[test]
fn d15_a_follower_whose_service_diverges_stops_and_the_others_go_on_p() {
    let every = &["group.state_hash_interval=8"][..];
    let group = Group::found(3, "echo", &[SMALL, CALM, every].concat());
    let mut nodes: Vec<_> = (0..3).map(|number| start(&group, number, number == 2)).collect();
    let mut caller = group.client("load");
    let deadline = Instant::now() + PATIENCE;
    let diverged = nodes.pop().unwrap();
    while !diverged.node.is_ended() {
        assert!(Instant::now() < deadline, "it goes on");
        caller.load(1, 64);
    }
    assert_eq!(diverged.node.wait(), Ended::Halted);
    let told = diverged.events.try_iter().find_map(|event| match event {
        Event::StateHashMismatch { sequence, own, majority } => {
            Some((event.code(), sequence, own, majority))
        }
        _ => None,
    });
    let (code, sequence, own, majority) = told.expect("it says why");
    assert_eq!(code, 1105);
    assert_ne!(own, majority);
    assert!(sequence > FAITHFUL_THROUGH, "{sequence}");
    assert!(sequence.0 <= FAITHFUL_THROUGH.0 + 8, "found at the next comparison: {sequence}");

    caller.load(100, 64);
    caller.assert_all_applied();
    caller.close();
    // The end of a session is not waited for by its client: the other node may not have it yet.
    let deadline = Instant::now() + PATIENCE;
    while !group::applied_the_same(&[0, 1].map(|node| group.status(node).unwrap_or_default())) {
        assert!(Instant::now() < deadline, "one of the two stays behind");
        std::thread::sleep(Duration::from_millis(5));
    }
    for running in &nodes {
        assert!(!running.node.is_ended());
        assert_eq!(mismatches(running), []);
        running.node.stop();
    }
    for running in nodes {
        assert_eq!(running.node.wait(), Ended::Orderly);
    }
    let logs = [0, 1].map(|node| group.replay(node));
    let of = |log: &group::Replayed| (log.sequence, log.chain, log.state_hash);
    assert_eq!(of(&logs[0]), of(&logs[1]));
    logs[0].assert_holds(&caller);
}

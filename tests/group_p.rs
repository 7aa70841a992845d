//! Groups of real processes: what becomes of them, and of what they acknowledged, when nodes die, stop, freeze and return.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use group::{Group, SMALL};

#[test]
fn k2_a_follower_killed_under_load_returns_catches_up_and_keeps_its_memory_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(500, 64);
    group.kill(2);
    caller.load(200, 64);
    group.start_node(2);
    caller.load(500, 64);
    let statuses = group.settle();
    assert_eq!(statuses.len(), 3);
    // Its hot tier outlived the process, so it forgot nothing that it had promised.
    let (events, told) = (group.events(2), group.told(2));
    assert!(!events.contains("provisional") && group.events_with(2, "Q-1112") == 0, "{told}");
    caller.close();
    group.settle();
    group.stop_all();
    caller.assert_all_applied();
    let log = group.replay_all();
    log.assert_holds(&caller);
    assert_eq!(log.commands.len(), 1200);
}

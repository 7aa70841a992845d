//! A loaded group whose nodes are restarted one after the other, as for an upgrade: no client notices more than a pause.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use group::{CALM, Caller, Group, PATIENCE, err, numbered};
use serde_json::Value;

/// Between two commands of a client.
const PACE: Duration = Duration::from_millis(3);

/// Sends until told to end; every command must be answered by the service.
fn load(mut caller: Caller, answered: &AtomicUsize, stop: &AtomicBool) -> Caller {
    let mut sent = 0;
    while !stop.load(Ordering::Acquire) {
        caller.send(&numbered(sent, 100));
        sent += 1;
        let next = Instant::now() + PACE;
        while Instant::now() < next {
            caller.turn_within(PACE.as_nanos() as u64);
        }
        answered.store(caller.done.len(), Ordering::Release);
    }
    caller.drain();
    caller
}

fn leads(group: &Group, node: usize) -> bool {
    group.status(node).is_some_and(|status| status["role"] == "leader")
}

/// One leads, and all others follow it with votes of their own.
fn whole(statuses: &[Value]) -> bool {
    let leaders = statuses.iter().filter(|status| status["role"] == "leader").count();
    let leader = &statuses[0]["leader"];
    leaders == 1
        && statuses
            .iter()
            .all(|status| status["leader"] == *leader && status["standing"] == "voter")
}

#[test]
fn a13_a_loaded_group_is_restarted_node_by_node_with_no_client_error_p() {
    let mut group = Group::start(3, "echo", CALM);
    let callers = [group.client("one"), group.client("two")];
    let sessions = callers.each_ref().map(Caller::session);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut number = 0;
    let threads = callers.map(|caller| {
        let (stop, answered, own) = (Arc::clone(&stop), Arc::clone(&answered), number);
        number += 1;
        thread::spawn(move || load(caller, &answered[own], &stop))
    });
    let mut handed = 0;
    for node in [0, 1, 2] {
        group.wait_until("it is whole", whole);
        handed += u64::from(leads(&group, node));
        let deadline = Instant::now() + PATIENCE;
        while leads(&group, node) {
            // It may be refused while the other has not caught up: a script tries again, as this one does.
            let output = group.run(node, "step-down", &[]);
            assert!(output.status.success() || Instant::now() < deadline, "{}", err(&output));
        }
        group.stop(node);
        group.start_node(node);
        group.wait_until("the node is back", whole);
        // Commands are answered again before the next one goes.
        let before = answered.each_ref().map(|count| count.load(Ordering::Acquire));
        let deadline = Instant::now() + PATIENCE;
        while answered.iter().zip(before).any(|(now, then)| now.load(Ordering::Acquire) <= then) {
            assert!(
                Instant::now() < deadline,
                "after the restart of node {node} nothing is answered"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert!(handed >= 1, "the first leader was among them");
    stop.store(true, Ordering::Release);
    let mut callers = threads.map(|thread| thread.join().unwrap());
    for (caller, session) in callers.iter_mut().zip(sessions) {
        caller.assert_all_applied();
        assert_eq!(caller.host.client.session(), Some(session), "the session outlived all of it");
        caller.close();
    }
    let statuses = group.settle();
    let terms = statuses.iter().map(|status| status["term"].as_u64().unwrap()).max();
    assert_eq!(terms, Some(1 + handed), "the lead changed as planned, and no other way");
    group.stop_all();
    let log = group.replay_all();
    for caller in &callers {
        log.assert_holds(caller);
    }
    assert_eq!(log.commands.len(), callers.iter().map(|caller| caller.done.len()).sum::<usize>());
}

//! Hand-overs: what is on the disks before the leader stops, and what a vote that is kept is worth.

use super::rig::{Rig, Role, TIMEOUT_NS, leadership, member, recency};
use crate::control::event::{Event, TransferFailure};
use crate::control::message::{Message, Standing};
use crate::link::ControlToCore;
use crate::types::{Nanos, NodeId, Term};

const TIMEOUT_MS: u64 = TIMEOUT_NS / Nanos::MILLISECOND;
const TO: NodeId = NodeId(1);
const RESERVE: Message = Message::Reserve { term: Term(3), candidate: TO };

/// Node 0 leads term 2, and everybody has been heard of.
fn led(nodes: usize) -> Rig {
    let mut rig = Rig::lived(&vec![1; nodes]);
    assert_eq!(rig.settle(), 0);
    rig.run(600);
    rig
}

/// Node 0 hands over to node 1, and its core takes no more commands.
fn stopped(nodes: usize) -> Rig {
    let mut rig = led(nodes);
    rig.nodes[0].machine.transfer(rig.now, TO).expect("begun");
    rig.obey(0);
    assert!(rig.until(20, stops).is_some());
    rig
}

fn stops(rig: &Rig) -> bool {
    rig.nodes[0].told.contains(&ControlToCore::HandOver { to: TO })
}

fn writes(rig: &Rig) -> usize {
    rig.nodes.iter().map(|node| node.writes).sum()
}

/// Grants to node 1 in this term that a node sent.
fn grants(rig: &Rig, from: u16, term: u32) -> usize {
    let grant = |(to, sent): &&(NodeId, crate::control::message::Envelope)| {
        (*to, sent.from, sent.leadership) == (TO, NodeId(from), leadership(term))
            && matches!(sent.message, Message::Vote { granted: true, .. })
    };
    rig.sent.iter().filter(grant).count()
}

#[test]
fn a13_no_write_of_a_node_state_stands_between_the_stop_and_the_next_leader() {
    for nodes in [2, 3, 5] {
        let mut rig = led(nodes);
        let before = writes(&rig);
        rig.nodes[0].machine.transfer(rig.now, TO).expect("begun");
        rig.obey(0);
        assert!(rig.until(20, stops).is_some());
        assert_eq!(writes(&rig), before + nodes, "each has kept its vote");
        assert!(
            rig.nodes.iter().all(|node| !node.told.contains(&ControlToCore::Fence(leadership(3)))),
            "and the old leadership went on"
        );
        assert!(rig.until(50, |rig| rig.leader() == Some(1) && rig.settled()).is_some());
        assert_eq!(writes(&rig), before + nodes, "nobody waited for a disk");
        assert_eq!(rig.nodes[1].role, Role::Leads(leadership(3)));
        for node in &rig.nodes {
            let told = |order| node.told.iter().position(|told| *told == order);
            let fenced = told(ControlToCore::Fence(leadership(3))).expect("fenced before the vote");
            let lead = told(ControlToCore::Lead(leadership(3)));
            assert!(lead.is_none_or(|lead| lead > fenced));
        }
        assert!(rig.nodes[0].events.contains(&Event::Transferred { to: TO }));
    }
}

#[test]
fn a_leader_that_waits_for_a_vote_to_be_kept_leads_on_and_asks_again() {
    let mut rig = led(3);
    rig.nodes[1].paused = true;
    rig.nodes[0].machine.transfer(rig.now, TO).expect("begun");
    rig.obey(0);
    rig.run(50);
    assert!(!stops(&rig), "its target has kept nothing yet");
    rig.nodes[1].paused = false;
    assert!(rig.until(30, |rig| rig.leader() == Some(1)).is_some());
}

#[test]
fn of_those_that_are_not_needed_nobody_is_waited_for_long() {
    let mut rig = led(3);
    rig.nodes[2].paused = true;
    rig.nodes[0].machine.transfer(rig.now, TO).expect("begun");
    rig.obey(0);
    let passed = rig.until(TIMEOUT_MS, |rig| rig.leader() == Some(1)).expect("handed over");
    assert!(passed < TIMEOUT_MS / 2, "{passed} ms");
}

#[test]
fn a_hand_over_that_fails_leaves_the_leadership_as_it_was_and_a_group_that_works() {
    let mut rig = stopped(3);
    rig.kill(1);
    rig.run(2 * TIMEOUT_MS);
    let why = TransferFailure::TooSlow;
    assert!(rig.nodes[0].events.contains(&Event::TransferFailed { to: TO, why }));
    rig.run(2000);
    assert_eq!(rig.leaders, [(leadership(2), NodeId(0))], "no term was raised");
    assert_eq!(rig.nodes[2].role, Role::Follows(leadership(2), NodeId(0)));
    // The kept term is lost to who starts again: the leader stands above it.
    rig.restart(1);
    rig.run(600);
    assert_eq!(rig.settle(), 0);
    assert_eq!(rig.nodes[1].role, Role::Follows(leadership(4), NodeId(0)));
    // And the next hand-over is one like any other.
    rig.run(600);
    rig.nodes[0].machine.transfer(rig.now, TO).expect("begun");
    rig.obey(0);
    assert!(rig.until(50, |rig| rig.leader() == Some(1)).is_some());
}

#[test]
fn a_leader_that_dies_while_votes_are_kept_is_replaced_as_fast_as_any() {
    let mut rig = stopped(3);
    rig.cut = vec![(0, 1), (0, 2)]; // it tells nobody to stand
    rig.run(2);
    rig.kill(0);
    let passed = rig.until(1000, |rig| rig.leader().is_some()).expect("another leads");
    assert!(passed < 5 * TIMEOUT_MS / 2, "{passed} ms");
    rig.cut.clear();
    rig.restart(0);
    assert_ne!(rig.settle(), 0);
}

#[test]
fn a_vote_that_is_kept_is_given_to_nobody_else() {
    let mut rig = led(3);
    for node in [0, 2] {
        rig.deliver(2, 0, 2, RESERVE);
        assert_eq!(rig.nodes[2].settings.vote, Some(TO));
        let request =
            Message::VoteRequest { recency: recency(9, 4096), instance: 7, transfer: true };
        rig.deliver(2, node, 3, request);
        assert_eq!(rig.nodes[2].settings.vote, Some(TO));
    }
    let granted = rig.sent.iter().filter(|(_, sent)| {
        sent.from == NodeId(2)
            && sent.leadership == leadership(3)
            && matches!(sent.message, Message::Vote { granted: true, .. })
    });
    assert_eq!(granted.count(), 0);
}

#[test]
fn a_vote_that_is_kept_is_no_vote_for_a_log_that_is_behind_not_even_by_a_later_life() {
    let behind = Message::VoteRequest { recency: recency(2, 64), instance: 7, transfer: true };
    let level = Message::VoteRequest { recency: recency(2, 128), instance: 7, transfer: true };
    for restarts in [false, true] {
        let mut rig = led(3);
        rig.deliver(2, 0, 2, RESERVE);
        rig.nodes[2].recency = recency(2, 128);
        if restarts {
            rig.kill(2);
            rig.restart(2);
        }
        rig.deliver(2, 1, 3, behind);
        assert_eq!(grants(&rig, 2, 3), 0, "restarted: {restarts}");
        rig.deliver(2, 1, 3, behind);
        assert_eq!(grants(&rig, 2, 3), 0, "nor when it is asked again");
        rig.deliver(2, 1, 3, level);
        rig.deliver(2, 1, 3, level);
        assert_eq!(grants(&rig, 2, 3), 2, "the same answer, again");
    }
}

#[test]
fn only_the_leader_that_a_node_follows_has_votes_kept_and_only_by_who_has_forgotten_nothing() {
    let mut rig = led(3);
    for (from, term) in [(1, 2), (0, 1), (0, 3)] {
        rig.deliver(2, from, term, RESERVE);
    }
    let unknown = Message::Reserve { term: Term(3), candidate: NodeId(9) };
    rig.deliver(2, 0, 2, unknown);
    rig.deliver(2, 0, 2, Message::Reserve { term: Term(2), candidate: TO });
    assert_eq!(rig.nodes[2].settings.promised, leadership(2));
    let mut rig = Rig::new((0..3).map(|node| member(node, &[1; 3], 1)));
    rig.nodes[2].settings.standing = Standing::Provisional;
    rig.restart(2);
    rig.settle();
    rig.deliver(2, 0, 2, RESERVE);
    assert_eq!(rig.nodes[2].settings.promised, leadership(2));
}

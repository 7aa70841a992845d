//! Who says that it has won the founding, and who must not.

use super::rig::{Rig, settings};
use super::{ElectionSettings, NodeId, Position, Tail};
use crate::control::message::{Message, Standing};
use crate::link::Recency;
use crate::types::Incarnation;

/// Node 1 is a founder, and is cut off before a frame reaches it; 0 and 2 commit. Node 2 is wiped. Node 1, which has seen that
/// 0 lives still, stands with its empty log, has the vote of the wiped one, and starts anew. It looks like one that has won
/// the founding: it has voted for itself, and its log is empty. Whom it makes a founder has forgotten what 0 and 2 committed.
#[test]
fn d3_a_founder_with_an_empty_log_that_voted_for_itself_has_not_won_the_founding() {
    let mut rig = Rig::blank(&[1, 1, 1]);
    let called = |rig: &Rig| rig.nodes[1].settings.standing == Standing::Clean;
    assert!(rig.until(8000, called).is_some());
    rig.partition(&[1], &[0, 2]);
    let led = rig.leaders.clone();
    assert!(rig.until(100, |rig| rig.nodes[2].recency > Recency::default()).is_some());
    assert_eq!(rig.nodes[2].recency, rig.nodes[0].recency, "both have what is committed");
    assert_eq!(rig.nodes[1].recency, Recency::default());

    rig.kill(2);
    let incarnation = Incarnation(5000);
    rig.nodes[2].settings = ElectionSettings { incarnation, seed: 9, ..settings(2, &[1, 1, 1]) };
    rig.nodes[2].recency = Recency::default();
    rig.restart(2);
    rig.cut.clear();
    rig.partition(&[0], &[1, 2]);
    rig.run(500);
    // Node 0 answers one question of node 1, and is gone.
    let said = |rig: &Rig, from: usize, is: &dyn Fn(&Message) -> bool, by: u16, to: u16| {
        rig.sent[from..].iter().any(|(whom, envelope)| {
            (envelope.from, *whom) == (NodeId(by), NodeId(to)) && is(&envelope.message)
        })
    };
    let before = rig.sent.len();
    let asked = |message: &Message| matches!(message, Message::Canvass { .. });
    assert!(rig.until(2000, |rig| said(rig, before, &asked, 1, 0)).is_some());
    rig.cut.clear();
    rig.partition(&[0], &[2]);
    rig.run(3);
    let answered = |message: &Message| matches!(message, Message::Opinion(_));
    assert!(said(&rig, before, &answered, 0, 1));
    rig.kill(0);
    let voted = |rig: &Rig| [1, 2].iter().all(|&n: &usize| votes(rig, n) == Some(NodeId(1)));
    assert!(rig.until(2000, voted).is_some());
    assert!(rig.nodes[1].settings.promised > led[0].0 && rig.leaders == led);

    rig.kill(1);
    rig.restart(1);
    rig.run(4000);
    assert_eq!(rig.nodes[2].settings.standing, Standing::Stateless, "it has forgotten");
    assert_eq!(rig.leaders, led, "nobody leads without the log of node 0");
    rig.restart(0);
    rig.cut.clear();
    assert_eq!(rig.settle(), 0);
    assert!(rig.nodes[0].recency.tail > Tail(Position(64)));
}

/// Who has won says so after each start, until it promises a newer leadership.
#[test]
fn k3_who_won_the_founding_knows_it_after_a_start_until_it_promises_a_newer_leadership() {
    let mut rig = Rig::blank(&[1, 1, 1]);
    assert!(rig.until(8000, |rig| !rig.leaders.is_empty()).is_some());
    rig.kill(0);
    for _ in 0..2 {
        let before = rig.sent.len();
        rig.restart(0);
        rig.run(5);
        let says = |(_, envelope): &(_, super::Envelope)| envelope.message == Message::Founded;
        assert!(rig.sent[before..].iter().any(says));
        rig.kill(0);
    }
    assert!(rig.nodes[0].settings.won_founding && !rig.nodes[1].settings.won_founding);
    rig.restart(0);
    rig.settle();
    rig.partition(&[0], &[1, 2]);
    rig.until(8000, |rig| rig.leaders.len() > 2);
    rig.cut.clear();
    rig.settle();
    rig.run(500);
    assert!(rig.nodes.iter().all(|node| node.settings.standing == Standing::Clean));
    assert!(rig.nodes.iter().all(|node| !node.settings.won_founding), "others have led since");
}

fn votes(rig: &Rig, node: usize) -> Option<NodeId> {
    rig.nodes[node].settings.vote
}

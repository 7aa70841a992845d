//! R: what went wrong elsewhere with quorums, priorities and late answers, and must not here.

use std::rc::Rc;

use super::super::check::Violation;
use super::super::machine::GROUP;
use super::super::world::Event;
use super::rules::busy;
use super::{Fault, MS, Played, Script, Strike};
use crate::control::message::{Envelope, Message, Standing};
use crate::mutants::Mutant;

/// A crash of the leader is over in under 2.5 leader timeouts.
const OUTAGE_MS: u64 = 375;

/// The leader alone with all clients, from 1 s on.
fn alone_with_its_clients() -> Script {
    busy(Script::of(3)).part(1000, 0b001, 1500)
}

#[test]
fn r1_a_leader_that_loses_its_quorum_acknowledges_nothing_from_then_on_and_another_leads() {
    let played = alone_with_its_clients().play();
    assert!(played.answered(900, 1000) > 10, "they were at work");
    // What was committed before is told within the two ways to a client.
    assert_eq!(played.answered(1002, 2500), 0, "nobody holds what it takes in now");
    let lost = played.lines("Quorum { present: false }")[0].0;
    assert!((1100..1250).contains(&lost), "and it says so: {lost}");
    assert_eq!(played.leads().len(), 2, "the others have one of their own");
    assert!(played.answered(2500, 4000) > 50, "whom the clients find when they can");
}

#[test]
fn r1_off_a_leader_that_goes_on_alone_is_noticed() {
    let noticed = |rule| alone_with_its_clients().without(rule).noticed();
    assert_eq!(noticed(Mutant::CommitAlone), Some("committed_on_a_quorum"));
    assert_eq!(noticed(Mutant::NoCheckQuorum), Some("check_quorum"));
}

#[test]
fn r3_priorities_1_1_0_elect_somebody_whoever_dies() {
    for priorities in [[1, 1, 0], [1, 0, 1], [0, 1, 1]] {
        for dies in 0..3 {
            let script = Script::of(3).priorities(&priorities);
            let played = script.on(1000, Fault::Crash, (dies, dies), 2000).play();
            let leads = played.leads();
            assert!(leads.iter().all(|(_, node)| priorities[*node] > 0), "{leads:?}");
            let led = leads[0].1 == dies;
            assert_eq!(leads.len(), 1 + usize::from(led), "{priorities:?}, {dies} dies: {leads:?}");
            if led {
                assert!(leads[1].0 < 1000 + OUTAGE_MS, "{priorities:?}, {dies} dies: {leads:?}");
            }
            assert!(played.answered(1000 + OUTAGE_MS, 3000) > 50, "{priorities:?}, {dies} dies");
        }
    }
}

/// Node 1, which is preferred, was elected once and follows again; it stands once more, and nobody hears that. Then the votes
/// of its first election come again.
fn old_votes(rule: Option<Mutant>) -> Result<Played, Violation> {
    let mut script = Script::of(3).priorities(&[1, 3, 1]);
    script.plan.mutant = rule;
    let script = script.on(800, Fault::Isolate, (1, 1), 300).at(1400, Fault::Crash, 0, 300);
    let script = script.on(2000, Fault::Isolate, (1, 1), 300).at(2700, Fault::Crash, 0, 900);
    let mut stage = script.stage();
    stage.until(1950)?;
    assert!(stage.serves(1));
    let letters = stage.world.captured[1].letters();
    let is_vote = |bytes: &Rc<[u8]>| {
        let letter = Envelope::decode(bytes, GROUP).map(|(letter, _)| letter.message);
        matches!(letter, Ok(Message::Vote { granted: true, standing: Standing::Clean, .. }))
    };
    let votes: Vec<_> = letters.into_iter().filter(is_vote).collect();
    assert!(!votes.is_empty(), "by these it was elected");
    stage.until(2690)?;
    let before = stage.seen(1).fence;
    stage.until_so(|stage| stage.seen(1).fence > before)?;
    let (fault, lasts_ns) = (Fault::ControlCut, 200 * MS);
    let alone = Strike { fault, aimed: false, node: 1, other: 1, sides: 0, lasts_ns };
    stage.world.strike(&alone);
    for _ in 0..8 {
        for bytes in &votes {
            let bytes = Rc::clone(bytes);
            stage.world.schedule(stage.world.now, Event::Control { to: 1, bytes });
        }
        stage.until(stage.now_ms() + 10)?;
        assert!(!stage.serves(1), "nobody voted for it in this term");
    }
    stage.end()
}

#[test]
fn r5_votes_of_an_older_election_never_count_in_a_newer_one() {
    let played = old_votes(None).unwrap();
    assert_eq!(played.leads().len(), 5, "{:?}", played.leads());
}

#[test]
fn r5_off_votes_of_an_older_election_elect_somebody_wrongly() {
    let broken = old_votes(Some(Mutant::CountOldVotes)).map(drop).unwrap_err();
    assert_eq!(broken.checker, "elected");
}

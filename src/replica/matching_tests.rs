//! Where logs part, when one of the two cores has forgotten its older leaderships.

use super::matching::{self, AGREED, GONE, Verdict};
use super::tests::{Faults, World, leadership};
use crate::link::{MatchReply, Purpose};
use crate::types::{Position, Term};

/// Nodes 0 and 1 have had six terms, of which node 0 remembers two; node 2 has had the first of them.
fn forgetful() -> World {
    let mut world = World::new(3, Faults::default(), 40);
    for term in 1..=6 {
        let leader = world.elect(term, if term == 1 { &[0, 1, 2] } else { &[0, 1] });
        let same =
            |world: &mut World| world.tail(0) == world.tail(1) && world.tail(0).term == Term(term);
        assert!(world.run(5000, same));
        world.append_at(leader, 3, 200);
        world.run(500, |_| false);
        if term == 1 {
            assert_eq!(world.tail(2), world.tail(0));
            world.cut_off(&[2]);
        }
    }
    world.nodes[0].core.log.set_terms_max(2);
    world
}

#[test]
fn a_leader_that_forgot_leads_to_the_files_and_not_to_the_beginning() {
    let world = forgetful();
    let (log, behind) = (&world.nodes[0].core.log, &world.nodes[2].core.log);
    let below = log.forgot_terms_below().expect("it remembers two");
    assert_eq!(log.hot_base(), Position(0), "all bytes are in memory");
    let question = matching::question(behind, 7, leadership(6));
    let answer = matching::answer(log, &question);
    assert_eq!((answer.agreed, answer.position.get()), (GONE, below.0));
    assert_eq!(matching::judge(behind, &answer), Verdict::Gone(below));
    let question = matching::lane_question(behind, 7, Purpose::LeaderSync, leadership(6));
    let end = behind.tail().position;
    let older = MatchReply::Older { leadership: leadership(1), end, below };
    assert_eq!(matching::reply(log, &question), older);
    // Whoever remembers says it at once.
    let whole = &world.nodes[1].core.log;
    let question = matching::question(behind, 7, leadership(6));
    let answer = matching::answer(whole, &question);
    assert_eq!((answer.agreed, answer.position.get()), (AGREED, end.0));
}

#[test]
fn a_follower_that_forgot_asks_for_nothing_below_and_cuts_nothing() {
    let world = forgetful();
    let log = &world.nodes[0].core.log;
    let reply = MatchReply::AskBelow(leadership(1));
    assert_eq!(matching::judge_reply(log, reply), Verdict::Nonsense);
    // The other has frames of the first term alone.
    let limit = world.nodes[2].core.log.last_leadership();
    let question = matching::question(log, 8, leadership(6));
    let answer = matching::answer(&world.nodes[2].core.log, &question);
    assert_eq!(answer.agreed, matching::ASK_LOWER);
    assert_eq!(limit, leadership(1));
    assert_eq!(matching::judge(log, &answer), Verdict::Gone(log.tail().position));
    // One that remembers asks on.
    let whole = &world.nodes[1].core.log;
    assert_eq!(matching::judge_reply(whole, reply), Verdict::AskBelow(leadership(1)));
}

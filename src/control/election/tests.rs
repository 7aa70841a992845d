//! Groups of control machines: who leads when, and what is never done.

use super::lead::TransferRefusal;
use super::rig::{Rig, Role, TIMEOUT_NS, leadership, member, recency, settings};
use super::{Election, ElectionSettings, Input, Output};
use crate::control::disk::DiskState;
use crate::control::event::{Event, IntruderReason, TransferFailure};
use crate::control::message::{Envelope, Message, Opinion, Standing};
use crate::link::{ControlToCore, CoreToControl, Recency};
use crate::types::{Generation, Incarnation, Leadership, Nanos, NodeId, Position, Term};

const TIMEOUT_MS: u64 = TIMEOUT_NS / Nanos::MILLISECOND;

/// At most one leader per leadership, whatever else happened.
fn assert_one_leader_per_term(rig: &Rig) {
    let mut leaders = rig.leaders.clone();
    leaders.sort_unstable();
    leaders.dedup();
    let terms: Vec<_> = leaders.iter().map(|(leadership, _)| leadership).collect();
    assert!(terms.windows(2).all(|pair| pair[0] < pair[1]), "{leaders:?}");
}

#[test]
fn a_blank_group_is_founded_by_all_and_led_by_the_first() {
    let mut rig = Rig::blank(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    rig.run(200);
    for node in &rig.nodes {
        assert_eq!(node.machine.standing(), Standing::Clean);
        assert_eq!(node.settings.standing, Standing::Clean, "durably");
        assert!(node.told.contains(&ControlToCore::Admitted));
        let founded = node.events.iter().filter(|e| matches!(e, Event::Founded { .. })).count();
        assert_eq!(founded, 1);
        let lead = node.told.iter().position(|order| {
            matches!(order, ControlToCore::Lead(_) | ControlToCore::Follow { .. })
        });
        let fence = node.told.iter().position(|o| matches!(o, ControlToCore::Fence(_)));
        assert!(fence < lead, "fence first");
    }
    assert!(rig.nodes[1].told.contains(&ControlToCore::MayAckMemory(true)));
    assert!(rig.nodes[0].told.contains(&ControlToCore::MayAckMemory(false)), "its rung is disk");
    assert_eq!(rig.leaders.len(), 1);
}

#[test]
fn a_group_whose_nodes_have_logs_and_no_state_opens_a_generation_above_the_logs() {
    // Whatever is drawn: the logs are of generation 1.5.
    for (random, restored) in [(0, vec![0, 1, 2]), (77, vec![0, 1, 2]), (0, vec![1]), (77, vec![1])]
    {
        let drawn = |n| ElectionSettings { generation_random: random, ..settings(n, &[1; 3]) };
        let mut rig = Rig::new((0..3).map(drawn));
        for &node in &restored {
            rig.nodes[node].recency = recency(3, 640);
        }
        assert_eq!(rig.settle(), restored[0], "the one with the log leads");
        let (led, _) = rig.leaders[0];
        assert_eq!(led.generation, Generation { counter: 2, random }, "{restored:?}");
        assert_eq!(led.term, Term(4), "terms never go down in a log");
        assert!(rig.nodes.iter().all(|node| node.settings.standing == Standing::Clean));
    }
}

#[test]
fn k3_blank_nodes_found_nothing_while_one_is_missing_and_do_when_it_comes() {
    let mut rig = Rig::blank(&[1, 1, 1]);
    rig.kill(1);
    rig.run(20_000);
    assert!(rig.leaders.is_empty());
    rig.restart(1);
    rig.settle();
    assert_one_leader_per_term(&rig);
}

#[test]
fn a_single_node_leads_by_itself() {
    let mut rig = Rig::blank(&[1]);
    assert_eq!(rig.settle(), 0);
    let mut rig = Rig::lived(&[1]);
    assert_eq!(rig.settle(), 0);
    assert_eq!(rig.nodes[0].settings.promised, leadership(2));
}

#[test]
fn g11_the_highest_priority_leads_among_equals_and_recency_beats_it() {
    let mut rig = Rig::lived(&[1, 3, 2]);
    assert_eq!(rig.settle(), 1);
    let mut rig = Rig::lived(&[1, 3, 2]);
    rig.nodes[0].recency = recency(1, 96);
    assert_eq!(rig.settle(), 0);
}

#[test]
fn a8_a_dead_leader_is_replaced_within_two_and_a_half_timeouts_without_its_answer() {
    for nodes in 2..=7 {
        let priorities = vec![1; nodes];
        let mut rig = Rig::lived(&priorities);
        rig.settle();
        rig.run(500);
        if nodes == 2 {
            continue; // nobody can replace one of two
        }
        for round in 0..20 {
            let leader = rig.leader().expect("somebody leads");
            rig.run(round * 7);
            rig.kill(leader);
            let passed = rig.until(2000, |rig| rig.leader().is_some()).expect("replaced");
            assert!(passed < TIMEOUT_MS * 2, "{nodes} nodes, round {round}: {passed} ms");
            rig.restart(leader);
            rig.settle();
            rig.run(600);
        }
        assert_one_leader_per_term(&rig);
    }
}

#[test]
fn r2_half_of_the_voters_elect_nobody() {
    for (nodes, alive) in [(2, 1), (4, 2), (6, 3), (3, 1), (5, 2)] {
        let mut rig = Rig::lived(&vec![1; nodes]);
        rig.settle();
        let led = rig.leaders.len();
        for node in alive..nodes {
            rig.kill(node);
        }
        rig.run(20_000);
        assert_eq!(rig.leaders.len(), led, "{alive} of {nodes}");
        assert_eq!(rig.leader(), None, "check-quorum");
        rig.restart(alive);
        rig.settle();
    }
}

#[test]
fn r4_an_election_that_fails_is_tried_again() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    rig.settle();
    rig.kill(0);
    // No vote and no request gets through, in the middle of the election.
    rig.until(2000, |rig| {
        rig.sent.iter().any(|(_, e)| matches!(e.message, Message::VoteRequest { .. }))
            && rig.leaders.len() == 1
    });
    rig.partition(&[1], &[2]);
    rig.run(3000);
    assert_eq!(rig.leaders.len(), 1);
    rig.cut.clear();
    rig.settle();
    assert_one_leader_per_term(&rig);
}

#[test]
fn r5_votes_of_another_term_or_another_life_never_count() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    rig.cut = vec![(1, 0), (2, 0)];
    let own = &mut rig.nodes[0];
    // Told to stand by a leader it follows.
    let lead = Message::Lead { founder: None };
    own.machine.handle(rig.now, Input::Tick);
    rig.deliver(0, 1, 1, lead);
    rig.deliver(0, 1, 1, Message::Stand);
    let standing = |rig: &Rig| rig.nodes[0].settings.promised;
    assert_eq!(standing(&rig), leadership(2));
    let instance = rig.nodes[0].settings.instance;
    let vote = |instance, granted| Message::Vote {
        granted,
        instance,
        standing: Standing::Clean,
        incarnation: Incarnation(1),
    };
    rig.deliver(0, 2, 1, vote(instance, true));
    rig.deliver(0, 2, 2, vote(instance + 1, true));
    rig.deliver(0, 2, 2, vote(instance, false));
    assert!(rig.leaders.is_empty());
    rig.deliver(0, 2, 2, vote(instance, true));
    assert_eq!(rig.leaders, [(leadership(2), NodeId(0))]);

    // A13: whoever was still writing its vote down when it was called is called again as soon as it can follow.
    rig.sent.clear();
    rig.deliver(0, 1, 1, vote(instance, true));
    assert!(rig.sent.is_empty(), "a vote of an older term");
    rig.deliver(0, 1, 2, vote(instance, true));
    let calls: Vec<_> = rig.sent.iter().map(|(to, envelope)| (*to, envelope.message)).collect();
    assert_eq!(calls, [(NodeId(1), lead)]);
    let instance = rig.nodes[1].settings.instance;
    rig.deliver(0, 1, 2, Message::Following { instance });
    let instance = rig.nodes[0].settings.instance;
    rig.sent.clear();
    rig.deliver(0, 1, 2, vote(instance, true));
    assert!(rig.sent.is_empty(), "it follows already");
}

#[test]
fn d6_a_wiped_voter_and_a_lagging_one_elect_nobody() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    rig.nodes[0].recency = recency(2, 256);
    rig.cut = vec![(0, 2), (2, 0)];
    rig.kill(1);
    rig.kill(0);
    let wiped = ElectionSettings { incarnation: Incarnation(900), ..settings(1, &[1, 1, 1]) };
    rig.nodes[1].settings = wiped;
    rig.nodes[1].recency = Recency::default();
    rig.restart(1);
    let led = rig.leaders.len();
    rig.run(30_000);
    assert_eq!(rig.leaders.len(), led);
    let told = |e: &&Event| matches!(e, Event::MayNotLead { stateless: true });
    assert_eq!(rig.nodes[1].events.iter().filter(told).count(), 1);
    rig.cut.clear();
    rig.restart(0);
    assert_eq!(rig.settle(), 0);
    assert!(!rig.nodes[1].told.contains(&ControlToCore::Admitted), "it is no founder");
}

#[test]
fn a_founder_that_restarts_before_it_is_called_is_a_founder_still() {
    let mut rig = Rig::blank(&[1, 1]);
    // Node 1 votes, and its process ends before the call.
    rig.until(2000, |rig| {
        rig.sent.iter().any(|(_, e)| matches!(e.message, Message::Vote { granted: true, .. }))
    });
    rig.kill(1);
    rig.run(30);
    rig.restart(1);
    rig.settle();
    assert_eq!(rig.nodes[1].machine.standing(), Standing::Clean);
}

#[test]
fn a_founding_whose_winner_ends_before_it_calls_is_completed_when_it_returns() {
    let mut rig = Rig::blank(&[1, 1, 1]);
    assert!(rig.until(2000, |rig| !rig.leaders.is_empty()).is_some());
    rig.kill(0);
    rig.run(8000);
    let standings = |rig: &Rig| [0, 1, 2].map(|node: usize| rig.nodes[node].settings.standing);
    let (clean, none) = (Standing::Clean, Standing::Stateless);
    assert_eq!(standings(&rig), [clean, none, none]);
    assert_eq!(rig.leaders.len(), 1);
    // One of them is wiped meanwhile: it is no founder, whatever it is told.
    rig.nodes[2].settings = ElectionSettings { seed: 9, ..settings(2, &[1, 1, 1]) };
    rig.kill(2);
    rig.restart(2);
    rig.restart(0);
    rig.settle();
    assert_eq!(standings(&rig), [clean, clean, none]);
    assert_one_leader_per_term(&rig);
}

/// The disks are slow: who voted has moved on to a newer term by the time its candidate has won.
#[test]
fn k3_a_founding_whose_voters_moved_on_before_they_were_called_is_completed() {
    let mut rig = Rig::blank(&[1, 1, 1]);
    let granted = |rig: &Rig, by: u16, term: u32| {
        let sent = rig.sent.iter().map(|(_, envelope)| *envelope);
        sent.filter(|e| e.from == NodeId(by) && e.leadership.term == Term(term))
            .find(|e| matches!(e.message, Message::Vote { granted: true, .. }))
    };
    let stood =
        |rig: &Rig| rig.sent.iter().any(|(_, e)| matches!(e.message, Message::VoteRequest { .. }));
    assert!(rig.until(7000, stood).is_some());
    rig.cut = vec![(2, 0)];
    let both = |rig: &Rig| granted(rig, 1, 1).is_some() && granted(rig, 2, 1).is_some();
    assert!(rig.until(100, both).is_some());
    rig.run(3);
    // Node 1, which knows nothing of a winner, stands in the next term, and node 2 votes for it.
    rig.cut = vec![(0, 1), (0, 2), (1, 0), (2, 0)];
    rig.nodes[1].machine.stand_at_once();
    assert!(rig.until(50, |rig| granted(rig, 2, 2).is_some()).is_some());
    // Now the vote that node 0 lacked arrives.
    let vote = granted(&rig, 2, 1).unwrap();
    let now = rig.now;
    rig.nodes[0].machine.handle(now, Input::Message(vote));
    rig.run(5);
    assert_eq!(rig.nodes[0].settings.standing, Standing::Clean, "it has founded the group");
    rig.cut.clear();
    rig.settle();
    rig.run(500);
    for node in &rig.nodes {
        assert_eq!(node.settings.standing, Standing::Clean);
    }
    assert_one_leader_per_term(&rig);
}

#[test]
fn d21_after_a_power_loss_of_all_the_group_comes_back_when_every_voter_answers_not_before() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    for (index, node) in rig.nodes.iter_mut().enumerate() {
        node.settings.standing = Standing::Provisional;
        node.recency = recency(1, 64 + 32 * index as u64);
    }
    for node in 0..3 {
        rig.restart(node);
    }
    rig.kill(2);
    rig.run(20_000);
    assert!(rig.leaders.is_empty());
    rig.restart(2);
    assert_eq!(rig.settle(), 2, "the most recent log");
    assert_eq!(rig.nodes[2].machine.standing(), Standing::Clean, "its winner is whole again");
    assert_eq!(rig.nodes[0].machine.standing(), Standing::Provisional);
    let needed = Position(64);
    let fact = CoreToControl::Readmit { node: NodeId(0), incarnation: Incarnation(100), needed };
    rig.nodes[2].machine.handle(rig.now, Input::Core(fact));
    rig.obey(2);
    rig.run(100);
    assert_eq!(rig.nodes[0].settings.standing, Standing::Clean, "readmitted, durably");
    assert!(rig.nodes[0].events.contains(&Event::Readmitted));
}

#[test]
fn readmission_meant_for_another_life_or_by_an_older_leader_is_void() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    rig.nodes[2].settings.standing = Standing::Provisional;
    rig.restart(2);
    assert_eq!(rig.settle(), 0);
    let readmit = |incarnation| Message::Readmit { incarnation, needed: Position(0) };
    rig.deliver(2, 0, 2, readmit(Incarnation(101)));
    rig.deliver(2, 0, 1, readmit(Incarnation(102)));
    rig.deliver(2, 1, 2, readmit(Incarnation(102)));
    assert_eq!(rig.nodes[2].machine.standing(), Standing::Provisional);
    rig.deliver(2, 0, 2, readmit(Incarnation(102)));
    assert_eq!(rig.nodes[2].machine.standing(), Standing::Clean);
}

#[test]
fn d8_a_leader_that_can_send_but_not_hear_is_replaced() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    rig.cut = vec![(1, 0), (2, 0)];
    let passed = rig.until(3000, |rig| rig.leader().is_some_and(|leader| leader != 0));
    assert!(passed.is_some_and(|ms| ms < 4 * TIMEOUT_MS), "{passed:?}");
    rig.cut.clear();
    assert_ne!(rig.settle(), 0);
    assert_one_leader_per_term(&rig);
}

#[test]
fn a_follower_that_cannot_hear_disturbs_nobody() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    // It can send; or only the leader is out of its sight.
    for cut in [vec![(0, 2), (1, 2)], vec![(0, 2)], vec![(0, 2), (2, 0)]] {
        rig.cut = cut;
        rig.run(3000);
        assert_eq!(rig.leaders.len(), 1);
        rig.cut.clear();
        rig.run(600);
        assert!(rig.settled(), "and it follows again, in the same term");
    }
}

#[test]
fn d9_a_leader_that_slept_follows_when_it_wakes() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    rig.nodes[0].paused = true;
    assert!(rig.until(1000, |rig| rig.leader().is_some()).is_some());
    rig.run(2000);
    rig.nodes[0].paused = false;
    rig.run(TIMEOUT_MS * 2);
    assert!(rig.settled());
    assert_one_leader_per_term(&rig);
}

#[test]
fn a_leader_stands_again_above_a_term_that_somebody_promised() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    rig.kill(2);
    rig.nodes[2].settings.promised = leadership(9);
    rig.restart(2);
    assert!(rig.until(1000, Rig::settled).is_some());
    rig.run(600);
    assert_eq!(rig.settle(), 0, "the same leader");
    assert_eq!(rig.nodes[2].settings.promised, leadership(10));
}

#[test]
fn a_leader_that_a_quorum_has_left_does_not_stand_above_the_next_one() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    rig.run(600);
    let machine = &mut rig.nodes[0].machine;
    let announce = |from| Envelope {
        from: NodeId(from),
        leadership: leadership(3),
        message: Message::Opinion(Opinion {
            round: 0,
            hears: false,
            seen_leader: true,
            standing: Standing::Clean,
            recency: recency(2, 64),
            disk: DiskState::Good,
        }),
    };
    for from in [1, 2] {
        machine.handle(rig.now, Input::Message(announce(from)));
    }
    machine.handle(rig.now.plus(TIMEOUT_NS / 2), Input::Tick);
    let fences = |output: &Output| matches!(output, Output::ToCore(ControlToCore::Fence(_)));
    while let Some(output) = machine.poll() {
        assert!(!fences(&output), "{output:?}");
    }
    assert!(!machine.leads());
}

#[test]
fn k2_a_follower_that_was_restarted_is_called_again_in_the_same_term() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    rig.run(1000);
    rig.kill(2);
    rig.run(100);
    rig.restart(2);
    rig.settle();
    assert_eq!(rig.leaders.len(), 1);
    let follow = ControlToCore::Follow { leadership: leadership(2), leader: NodeId(0) };
    let follows = |node: usize| rig.nodes[node].told.iter().filter(|o| **o == follow).count();
    assert_eq!((follows(1), follows(2)), (1, 2), "who follows already is left alone");
}

#[test]
fn k2_what_an_earlier_life_said_late_does_not_keep_a_node_that_never_stands_from_being_called() {
    let mut rig = Rig::lived(&[1, 1, 0]);
    assert_eq!(rig.settle(), 0);
    let before = rig.nodes[2].settings.instance;
    rig.kill(2);
    rig.restart(2);
    // Its first words arrive, and the answers to them do not.
    rig.cut.push((0, 2));
    rig.run(1000);
    rig.deliver(0, 2, 2, Message::Following { instance: before });
    rig.cut.clear();
    assert_eq!(rig.settle(), 0);
}

#[test]
fn d3_generations_never_mix() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    let other = Leadership { generation: Generation { counter: 2, random: 9 }, term: Term(40) };
    for message in [
        Message::Lead { founder: None },
        Message::VoteRequest { recency: recency(90, 4096), instance: 3, transfer: true },
        Message::Stand,
    ] {
        let envelope = Envelope { from: NodeId(2), leadership: other, message };
        rig.nodes[1].machine.handle(rig.now, Input::Message(envelope));
    }
    let seen = CoreToControl::LeadershipSeen { leadership: other, node: NodeId(2) };
    rig.nodes[1].machine.handle(rig.now, Input::Core(seen));
    rig.obey(1);
    assert_eq!(rig.nodes[1].settings.promised, leadership(2));
    let refused = |event: &&Event| {
        matches!(event, Event::Intruder { why: IntruderReason::Generation { .. }, .. })
    };
    assert_eq!(rig.nodes[1].events.iter().filter(refused).count(), 1, "told once");
    rig.run(500);
    assert_eq!(rig.leader(), Some(0));
    assert_eq!(rig.leaders.len(), 1);
}

/// A wiped node was told once more what its earlier life was told at the founding: it took all others for blank, and stood.
#[test]
fn d3_opinions_that_an_earlier_life_was_given_answer_no_question_of_this_one() {
    let round = |instance| {
        let mut machine = Election::new(ElectionSettings { instance, ..settings(0, &[1; 3]) });
        machine.handle(Nanos(1), Input::Tick);
        let outputs = core::iter::from_fn(|| machine.poll());
        let rounds = outputs.filter_map(|output| match output {
            Output::Send(_, Envelope { message: Message::Canvass { round }, .. }) => Some(round),
            _ => None,
        });
        rounds.last().expect("it asks")
    };
    assert_ne!(round(1 << 40), round(1 << 50));
}

/// While it had no state it heard of a newer generation than its group's. Later, long since a voter again, it stood in that
/// one: nobody listened, and what it had promised there kept it out for good.
#[test]
fn d3_what_a_node_without_state_heard_of_another_generation_is_void_when_it_is_a_voter() {
    let priorities = [1, 1, 2];
    let lived = (0..2).map(|node| member(node, &priorities, 1));
    let mut rig = Rig::new(lived.chain([settings(2, &priorities)]));
    (rig.nodes[0].recency, rig.nodes[1].recency) = (recency(1, 64), recency(1, 64));
    let leader = rig.settle();
    let generation = Generation { counter: 1, random: 1 + leadership(1).generation.random };
    let other = Leadership { generation, term: Term(40) };
    let message = Message::Canvass { round: 1 };
    let stranger = Envelope { from: NodeId(1), leadership: other, message };
    rig.nodes[2].machine.handle(rig.now, Input::Message(stranger));
    rig.obey(2);
    rig.run(500);
    let (node, incarnation) = (NodeId(2), rig.nodes[2].settings.incarnation);
    let fact = CoreToControl::Readmit { node, incarnation, needed: Position(64) };
    rig.nodes[leader].machine.handle(rig.now, Input::Core(fact));
    rig.obey(leader);
    rig.run(100);
    assert_eq!(rig.nodes[2].settings.standing, Standing::Clean);
    rig.kill(leader);
    assert!(rig.until(3000, |rig| rig.leader() == Some(2)).is_some(), "{:?}", rig.leaders);
    assert_eq!(rig.nodes[2].settings.promised.generation, leadership(1).generation);
}

#[test]
fn the_log_of_a_node_that_never_leads_is_taken_over_first() {
    let mut rig = Rig::lived(&[1, 1, 0]);
    rig.nodes[2].recency = recency(1, 128);
    assert_eq!(rig.settle(), 0);
    assert_eq!(rig.nodes[0].pulls, [NodeId(2)]);
    assert_eq!(rig.nodes[0].recency.tail.0, Position(192), "its log, and the term's own entry");
    assert_eq!(rig.leaders, [(leadership(2), NodeId(0))], "no term was raised for it");
}

#[test]
fn k9_an_observer_never_leads_nor_votes() {
    let mut rig = Rig::new((0..3).map(|node| {
        let mut settings = member(node, &[1, 1, 9], 1);
        settings.members[2].voter = false;
        settings
    }));
    for node in &mut rig.nodes {
        node.recency = recency(1, 64);
    }
    assert_eq!(rig.settle(), 0);
    rig.kill(0);
    rig.run(20_000);
    assert_eq!(rig.leaders.len(), 1, "one voter of two is no quorum");
    assert_eq!(rig.nodes[2].settings.vote, None);
    rig.restart(0);
    assert!(rig.settle() < 2);
    assert_eq!(rig.nodes[2].settings.vote, None);
}

#[test]
fn k9_a_group_is_founded_by_its_voters_alone_and_nobody_waits_for_its_observers() {
    let mut rig = Rig::new((0..4).map(|node| {
        let mut settings = settings(node, &[1, 1, 1, 9]);
        settings.members[3].voter = false;
        settings
    }));
    rig.kill(3);
    let begin = rig.now;
    assert_eq!(rig.settle(), 0);
    let start_wait_ns = rig.nodes[0].settings.start_wait_ns;
    assert!(rig.now.since(begin) < start_wait_ns, "all voters are there");
    // It comes later, is called, and follows; without having been admitted to anything.
    rig.restart(3);
    rig.run(2_000);
    assert!(matches!(rig.nodes[3].role, Role::Follows(_, NodeId(0))), "{:?}", rig.nodes[3].role);
    assert_eq!(rig.nodes[3].machine.standing(), Standing::Stateless);
    assert_eq!(rig.leaders.len(), 1);
    // Alone, and after a restart, it leads nobody.
    (0..3).for_each(|node| rig.kill(node));
    rig.run(20_000);
    rig.kill(3);
    rig.restart(3);
    rig.run(20_000);
    assert_eq!(rig.leaders.len(), 1);
    assert_eq!(rig.nodes[3].settings.vote, None);
}

#[test]
fn d3_an_observer_that_was_called_once_listens_to_no_other_generation() {
    let mut settings = settings(3, &[1, 1, 1, 1]);
    settings.members[3].voter = false;
    settings.promised = leadership(2);
    let mut machine = Election::new(settings);
    let other = Generation { counter: 1, random: 6 };
    let lead = |generation| Envelope {
        from: NodeId(0),
        leadership: Leadership { generation, term: Term(9) },
        message: Message::Lead { founder: None },
    };
    let mut fences = |generation| {
        machine.handle(Nanos(1), Input::Message(lead(generation)));
        let outputs = core::iter::from_fn(|| machine.poll());
        outputs.filter(|output| matches!(output, Output::ToCore(ControlToCore::Fence(_)))).count()
    };
    assert_eq!(fences(other), 0);
    assert_eq!(fences(leadership(2).generation), 1);
}

#[test]
fn a_transfer_goes_to_the_chosen_node_and_wrong_targets_are_refused_by_name() {
    let mut rig = Rig::new((0..5).map(|node| {
        let mut settings = member(node, &[1, 1, 0, 1, 1], 1);
        settings.members[3].voter = false;
        settings
    }));
    for node in &mut rig.nodes {
        node.recency = recency(1, 64);
    }
    assert_eq!(rig.settle(), 0);
    rig.run(600);
    let now = rig.now;
    let machine = &mut rig.nodes[0].machine;
    let node = NodeId;
    let mut refused = |to| machine.transfer(now, node(to)).expect_err("refused");
    assert_eq!(refused(0), TransferRefusal::Itself { node: node(0) });
    assert_eq!(refused(2), TransferRefusal::NeverLeads { node: node(2) });
    assert_eq!(refused(3), TransferRefusal::Observer { node: node(3) });
    assert_eq!(refused(7), TransferRefusal::Unknown { node: node(7) });
    let machine = &mut rig.nodes[1].machine;
    assert_eq!(machine.transfer(now, node(0)), Err(TransferRefusal::NotLeading));
    rig.nodes[0].machine.transfer(now, node(4)).expect("begun");
    let again = rig.nodes[0].machine.transfer(now, node(1));
    assert_eq!(again, Err(TransferRefusal::Busy { to: node(4) }));
    rig.obey(0);
    let passed = rig.until(100, |rig| rig.leader() == Some(4)).expect("handed over");
    assert!(passed < 10, "{passed} ms: no timeout is waited for");
    rig.settle();
    assert!(rig.nodes[0].events.contains(&Event::Transferred { to: node(4) }));
    assert_one_leader_per_term(&rig);
}

#[test]
fn a_transfer_to_a_node_that_does_not_stand_ends_and_the_leader_leads_on() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    assert_eq!(rig.settle(), 0);
    rig.run(600);
    rig.nodes[0].machine.transfer(rig.now, NodeId(1)).expect("begun");
    rig.kill(1);
    rig.obey(0);
    rig.run(TIMEOUT_MS + 50);
    assert_eq!(rig.leader(), Some(0));
    assert_eq!(rig.leaders.len(), 1);
    assert!(rig.nodes[0].told.contains(&ControlToCore::KeepLead));
    let failed = Event::TransferFailed { to: NodeId(1), why: TransferFailure::TooSlow };
    assert!(rig.nodes[0].events.contains(&failed));
    rig.run(4000); // it has left
    let refused = rig.nodes[0].machine.transfer(rig.now, NodeId(1));
    assert_eq!(refused, Err(TransferRefusal::NotFollowing { node: NodeId(1) }));
}

#[test]
fn a_target_that_is_behind_is_refused_by_the_core() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    rig.settle();
    rig.run(600);
    let machine = &mut rig.nodes[0].machine;
    machine.transfer(rig.now, NodeId(1)).expect("begun");
    while machine.poll().is_some() {}
    let fact = CoreToControl::HandOver { to: NodeId(1), behind: Some(4096) };
    machine.handle(rig.now, Input::Core(fact));
    let failed =
        Event::TransferFailed { to: NodeId(1), why: TransferFailure::Behind { bytes: 4096 } };
    assert_eq!(machine.poll(), Some(Output::Event(failed)));
    assert!(machine.transfer(rig.now, NodeId(2)).is_ok());
}

#[test]
fn step_down_hands_over_to_the_best_of_the_others() {
    let mut rig = Rig::lived(&[3, 1, 2]);
    assert_eq!(rig.settle(), 0);
    rig.run(600);
    assert_eq!(rig.nodes[0].machine.step_down(rig.now), Ok(NodeId(2)));
    rig.obey(0);
    assert!(rig.until(50, |rig| rig.leader() == Some(2)).is_some());
    let mut one = Rig::lived(&[1]);
    one.settle();
    let alone = one.nodes[0].machine.step_down(one.now);
    assert_eq!(alone, Err(TransferRefusal::NobodyElse));
}

#[test]
fn a_group_that_starts_waits_for_all_voters_a_while_and_then_needs_only_a_quorum() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    rig.kill(2);
    rig.run(4900);
    assert!(rig.leaders.is_empty());
    assert!(rig.until(1000, |rig| rig.leader().is_some()).is_some());
    // One that has seen a leader since its own start tells: nobody waits.
    let mut rig = Rig::lived(&[1, 1, 1]);
    rig.settle();
    rig.kill(0);
    rig.kill(1);
    rig.run(1000);
    rig.restart(1);
    assert!(rig.until(1000, |rig| rig.leader().is_some()).is_some());
}

#[test]
fn a_candidate_with_an_older_log_gets_no_vote_and_the_better_one_wins() {
    let mut rig = Rig::lived(&[9, 1, 1]);
    rig.nodes[1].recency = recency(1, 96);
    rig.nodes[2].recency = recency(1, 96);
    // Its canvass lies to it: it stands all the same.
    rig.deliver(0, 1, 1, Message::Lead { founder: None });
    rig.deliver(0, 1, 1, Message::Stand);
    rig.settle();
    assert_eq!(rig.leader(), Some(1));
    assert_one_leader_per_term(&rig);
}

#[test]
fn opinions_of_another_round_are_not_counted() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    rig.cut = vec![(1, 0), (2, 0)];
    rig.step();
    let opinion = Opinion {
        round: 99,
        hears: false,
        seen_leader: true,
        standing: Standing::Clean,
        recency: recency(1, 64),
        disk: DiskState::Good,
    };
    rig.deliver(0, 1, 1, Message::Opinion(opinion));
    rig.run(1000);
    assert!(!rig.nodes[0].told.iter().any(|order| matches!(order, ControlToCore::Fence(_))));
    rig.deliver(0, 1, 1, Message::Opinion(Opinion { round: 1, ..opinion }));
    rig.run(50);
    assert!(rig.nodes[0].told.iter().any(|order| matches!(order, ControlToCore::Fence(_))));
}

#[test]
fn another_member_list_holds_at_once() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    rig.settle();
    let mut smaller = rig.nodes[0].settings.members.clone();
    smaller[2].voter = false;
    for node in 0..3 {
        rig.nodes[node].machine.set_members(rig.now, &smaller);
        rig.nodes[node].settings.members = smaller.clone();
    }
    rig.run(600);
    assert_eq!(rig.leader(), Some(0), "the leader leads on");
    rig.kill(0);
    rig.run(5000);
    assert_eq!(rig.leader(), None, "one of two is no quorum");
    rig.restart(0);
    rig.settle();
}

#[test]
fn many_schedules_of_kills_and_cuts_never_give_two_leaders_of_a_term() {
    let mut random = 1_u64;
    let mut draw = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for round in 0..30_usize {
        let nodes = 3 + round % 3;
        let mut rig = Rig::lived(&vec![1; nodes]);
        for _ in 0..40 {
            let node = draw(nodes as u64) as usize;
            match draw(6) {
                0 => rig.kill(node),
                1 if !rig.nodes[node].up => rig.restart(node),
                2 => rig.cut.push((node, draw(nodes as u64) as usize)),
                3 => rig.cut.clear(),
                4 => rig.nodes[node].paused ^= true,
                _ => {}
            }
            rig.run(20 + draw(300));
        }
        assert_one_leader_per_term(&rig);
        rig.cut.clear();
        for node in 0..nodes {
            rig.nodes[node].paused = false;
            if !rig.nodes[node].up {
                rig.restart(node);
            }
        }
        rig.settle();
        rig.run(1000);
        assert!(rig.settled(), "and it stays so");
        assert!(rig.nodes.iter().any(|node| matches!(node.role, Role::Leads(_))));
    }
}

#[test]
fn a_refused_node_is_forgotten_and_its_data_calls_nobody() {
    let mut rig = Rig::lived(&[1, 1, 1]);
    let leader = rig.settle();
    let node = NodeId(leader as u16);
    let newer = CoreToControl::LeadershipSeen { leadership: leadership(99), node };
    let [refusing, listening] = [1, 2].map(|step| (leader + step) % 3);
    rig.nodes[refusing].machine.handle(rig.now, Input::Refused(node));
    assert!(rig.nodes[refusing].machine.present().all(|present| present != node));
    let mut fences = |index: usize| {
        rig.nodes[index].told.clear();
        rig.nodes[index].machine.handle(rig.now, Input::Core(newer));
        rig.obey(index);
        rig.nodes[index].told.contains(&ControlToCore::Fence(leadership(99)))
    };
    assert!(!fences(refusing), "only a node that was let in is followed for its data");
    assert!(fences(listening));
}

//! Local queries on the virtual wire: what a node says of its own state, and what it does not claim.

use core::net::SocketAddr;
use std::rc::Rc;

use zerocopy::{FromBytes, IntoBytes};

use super::core::Work;
use super::tests::{Faults, GROUP, STEP_NS, TestNetwork, World, address, leadership};
use crate::client::{Client, ClientSettings, ClientState, Demand, Lag, ReadOutcome, Reader};
use crate::limits::LOCAL_QUERIES_MAX;
use crate::link::ControlToCore;
use crate::mutants::{Mutant, Mutants};
use crate::stream::datagram::{DatagramHeader, DatagramKind, parse};
use crate::stream::local::{CommitAnswer, LocalAnswerBody, LocalOutcome, LocalQueryBody};
use crate::stream::network::{Destination, Network};
use crate::types::{Commit, Leadership, Nanos, NodeId, Position, Sequence};

const MS: u64 = Nanos::MILLISECOND;

/// A datagram on the virtual wire.
type Flying = (Nanos, u64, SocketAddr, SocketAddr, Vec<u8>);

fn network(world: &World, port: u16) -> TestNetwork {
    let members = (0..world.nodes.len() as u16).map(|n| (NodeId(n), address(n))).collect();
    TestNetwork { own: address(port), members, wire: Rc::clone(&world.wire), batch: vec![] }
}

fn reader(world: &World) -> Reader<TestNetwork> {
    Reader::new(GROUP, 5, network(world, 1000))
}

/// Asks, and lets time pass until the answer is here.
fn ask(
    world: &mut World,
    reader: &mut Reader<TestNetwork>,
    node: u16,
    demand: Demand,
) -> (ReadOutcome, Lag, Vec<u8>) {
    let number = reader.ask(world.now, address(node), b"", demand).expect("room");
    let mut end = None;
    let ended = world.run(200_000, |world| {
        reader.poll(world.now, |reading| {
            assert_eq!(reading.number, number);
            end = Some((reading.outcome, reading.lag, reading.reply.to_vec()));
        });
        end.is_some()
    });
    assert!(ended, "every question has an end");
    let (outcome, lag, reply) = end.expect("it ended");
    (outcome, lag.expect("the node said something"), reply)
}

fn fresh(within_ns: u64) -> Demand {
    Demand { within_ns, wait_ns: 50 * MS, ..Demand::default() }
}

fn whole(seed: u64) -> World {
    let mut world = World::new(3, Faults::default(), seed);
    world.lead(1);
    assert!(world.run(2000, |world| world.all_applied() && world.commit().0 > 0));
    world
}

/// Everything that the leader has committed, at this moment.
fn committed(world: &World) -> Position {
    world.commit()
}

#[test]
fn g136_any_node_answers_from_its_own_state_and_says_how_far_that_is() {
    let mut world = whole(1);
    world.append(20, 100);
    assert!(world.run(5000, |world| world.all_applied()));
    let mut reader = reader(&world);
    for node in 0..3 {
        let (outcome, lag, reply) = ask(&mut world, &mut reader, node, Demand::default());
        let core = &world.nodes[usize::from(node)].core;
        assert_eq!((outcome, reply.len()), (ReadOutcome::Answered, 24));
        assert_eq!((lag.node, lag.leadership), (Some(NodeId(node)), leadership(1)));
        assert_eq!((lag.applied, lag.sequence), (core.applied.0, core.state.sequence()));
        assert_eq!((lag.commit, lag.term.0), (core.commit.0, 1));
        assert!(lag.heard_ns.expect("it hears its leader") < 20 * MS);
        assert_eq!(core.counters.local_answers, 1);
        // Whoever was asked once has found out since.
        world.run(50, |_| false);
        let (_, lag, _) = ask(&mut world, &mut reader, node, Demand::default());
        assert!(lag.lag_ns.expect("it knows") < 20 * MS, "{lag:?}");
    }
}

#[test]
fn g136_a_fresh_answer_of_a_follower_holds_all_that_was_committed_before_it_was_asked_for() {
    for seed in 0..10 {
        let faults = Faults { loss: 10, duplicate: 5, reorder_ns: 300_000 };
        let mut world = World::new(3, faults, seed);
        world.lead(1);
        let mut reader = reader(&world);
        for round in 0..20 {
            world.append(5, 300);
            world.run(20, |_| false);
            let (before, at) = (committed(&world), world.now);
            let node = round % 3;
            let demand = Demand { wait_ns: Nanos::SECOND, ..fresh(0) };
            let (outcome, lag, _) = ask(&mut world, &mut reader, node, demand);
            assert_eq!(outcome, ReadOutcome::Answered, "seed {seed}, round {round}");
            assert!(lag.applied >= before, "seed {seed}, round {round}: {lag:?} and {before:?}");
            let known_at = Nanos(lag.given_at.0 - lag.lag_ns.expect("it knows"));
            assert!(known_at >= at, "it was found out after the question");
        }
    }
}

#[test]
fn g136_a_bound_is_kept_by_what_was_found_out_before_it_was_asked() {
    let mut world = whole(3);
    let mut reader = reader(&world);
    assert_eq!(ask(&mut world, &mut reader, 1, fresh(0)).0, ReadOutcome::Answered);
    // The leader cannot be asked any more; what it said is good for as long as the bound allows.
    world.wire.borrow_mut().cut_off = vec![address(0)];
    let (outcome, lag, _) = ask(&mut world, &mut reader, 1, fresh(20 * MS));
    assert_eq!(outcome, ReadOutcome::Answered);
    assert!(lag.lag_ns.expect("it knows") < 5 * MS);
    world.run((30 * MS / STEP_NS) as usize, |_| false);
    let (outcome, lag, reply) = ask(&mut world, &mut reader, 1, fresh(20 * MS));
    assert_eq!((outcome, reply.len()), (ReadOutcome::TooStale, 0));
    assert!(lag.lag_ns.expect("it knows, from before") > 70 * MS, "{lag:?}");
    assert_eq!(world.nodes[1].core.counters.local_refusals, 1);
    // However old: that is always to be had, and it says so.
    let (outcome, lag, _) = ask(&mut world, &mut reader, 1, Demand::default());
    assert_eq!(outcome, ReadOutcome::Answered);
    assert!(lag.lag_ns > Some(70 * MS) && lag.heard_ns > Some(70 * MS), "{lag:?}");
}

#[test]
fn g136_a_node_that_has_heard_no_leader_claims_nothing() {
    let mut world = whole(4);
    world.nodes[2].order(ControlToCore::Fence(leadership(2)));
    world.run(5, |_| false);
    let mut reader = reader(&world);
    let (outcome, lag, _) = ask(&mut world, &mut reader, 2, fresh(u64::MAX - 1));
    assert_eq!((outcome, lag.lag_ns, lag.heard_ns), (ReadOutcome::TooStale, None, None));
    let (outcome, lag, _) = ask(&mut world, &mut reader, 2, Demand::default());
    assert_eq!((outcome, lag.lag_ns, lag.heard_ns), (ReadOutcome::Answered, None, None));
    // Following somebody who says nothing is no better.
    let order = ControlToCore::Follow { leadership: leadership(2), leader: NodeId(1) };
    world.nodes[2].order(order);
    let (outcome, lag, _) = ask(&mut world, &mut reader, 2, fresh(u64::MAX - 1));
    assert_eq!((outcome, lag.lag_ns, lag.heard_ns), (ReadOutcome::TooStale, None, None));
    world.nodes[2].order(ControlToCore::Stop);
    world.run(2, |_| false);
    let (outcome, ..) = ask(&mut world, &mut reader, 2, Demand::default());
    assert_eq!(outcome, ReadOutcome::Stopping);
}

#[test]
fn g136_r1_a_leader_that_no_quorum_hears_vouches_for_nothing_neither_to_clients_nor_to_followers() {
    let plant = |planted: bool| {
        let mut world = World::new(5, Faults::default(), 5);
        if planted {
            world.nodes[0].core.settings.mutants = Mutants::NONE.with(Mutant::ConfirmWithoutQuorum);
        }
        world.lead(1);
        assert!(world.run(2000, |world| world.all_applied() && world.commit().0 > 0));
        // Leader and one follower are parted from the others, who go on without them.
        let parted = (0..2).flat_map(|a| (2..5).map(move |b| [address(a), address(b)]));
        world.wire.borrow_mut().parted = parted.collect();
        world.run((5 * MS / STEP_NS) as usize, |_| false);
        let mut reader = reader(&world);
        [0, 1].map(|node| ask(&mut world, &mut reader, node, fresh(0)).0)
    };
    assert_eq!(plant(false), [ReadOutcome::TooStale; 2]);
    assert_eq!(plant(true), [ReadOutcome::Answered; 2], "the rule is what makes the difference");
}

#[test]
fn g136_what_lay_in_a_socket_is_old_though_it_was_heard_now() {
    let late = |mutants: Mutants| {
        let mut world = World::new(3, Faults::default(), 6);
        world.nodes[2].core.settings.mutants = mutants;
        world.lead(1);
        assert!(world.run(2000, |world| world.all_applied() && world.commit().0 > 0));
        let mut reader = reader(&world);
        assert_eq!(ask(&mut world, &mut reader, 2, fresh(u64::MAX - 1)).0, ReadOutcome::Answered);
        // What the leader says to node 2 is under way for long.
        let mut held = Vec::new();
        let begun = world.now;
        world.run((40 * MS / STEP_NS) as usize, |world| {
            let is_held = |flying: &mut Flying| flying.2 == address(0) && flying.3 == address(2);
            held.extend(world.wire.borrow_mut().flying.extract_if(.., is_held));
            false
        });
        assert!(held.len() > 1);
        // The first of it comes now, and nothing else.
        let now = world.now;
        held.truncate(1);
        held[0].0 = now;
        world.wire.borrow_mut().flying.append(&mut held);
        world.wire.borrow_mut().parted = vec![[address(0), address(2)]];
        world.run(5, |_| false);
        let demand = Demand::default();
        let (_, lag, _) = ask(&mut world, &mut reader, 2, demand);
        assert!(lag.heard_ns.expect("just now") < MS);
        (lag.lag_ns.expect("from before"), world.now.since(begun))
    };
    let (said, truth) = late(Mutants::NONE);
    assert!(said >= truth, "{said} of {truth}");
    let (said, truth) = late(Mutants::NONE.with(Mutant::FreshOnHearing));
    assert!(said < truth / 4, "{said} of {truth}");
}

#[test]
fn g136_a_client_reads_what_it_wrote_at_any_node_or_is_told_that_it_is_not_there_yet() {
    let mut world = whole(7);
    let members = (0..3).map(address).collect();
    let settings = ClientSettings::new(GROUP, members, 7);
    let mut client = Client::new(settings, network(&world, 1001)).expect("good settings");
    assert!(world.run(20_000, |world| {
        client.poll(world.now, |_| {});
        client.state() == ClientState::Open
    }));
    let mut reader = reader(&world);
    for round in 1..=20 {
        client.send(b"a command").expect("open");
        let mut wrote = None;
        assert!(world.run(5000, |world| {
            client.poll(world.now, |answer| wrote = Some(answer.sequence));
            wrote.is_some()
        }));
        let at_least = wrote.expect("it was answered");
        // The followers have not heard yet that it is committed.
        let node = 1 + round % 2;
        assert!(world.nodes[node as usize].core.state.sequence() < at_least);
        let at_once = Demand { at_least, ..Demand::default() };
        let (outcome, lag, _) = ask(&mut world, &mut reader, node, at_once);
        assert!(outcome == ReadOutcome::Behind || lag.sequence >= at_least, "{lag:?}");
        let (outcome, lag, reply) =
            ask(&mut world, &mut reader, node, Demand { wait_ns: 50 * MS, ..at_once });
        assert_eq!(outcome, ReadOutcome::Answered);
        assert!(lag.sequence >= at_least);
        assert_eq!(reply[..8], u64::from(round).to_le_bytes(), "commands that took effect");
    }
    // What nobody has written does not come.
    let at_least = Sequence(1 << 40);
    let demand = Demand { at_least, wait_ns: 5 * MS, ..Demand::default() };
    let before = world.now;
    let (outcome, lag, _) = ask(&mut world, &mut reader, 2, demand);
    assert_eq!(outcome, ReadOutcome::Behind);
    assert!(lag.sequence < at_least && world.now.since(before) >= 5 * MS);
    let mutants = Mutants::NONE.with(Mutant::IgnoreDemand);
    world.nodes[2].core.settings.mutants = mutants;
    assert_eq!(ask(&mut world, &mut reader, 2, demand).0, ReadOutcome::Answered);
}

#[test]
fn g136_a_state_is_as_fresh_as_what_is_applied_to_it() {
    let held_up = |mutants: Mutants| {
        let mut world = whole(8);
        world.nodes[2].core.settings.mutants = mutants;
        // Node 2 hears what is committed, and not the entries.
        let data =
            |flying: &mut Flying| is_of(flying, DatagramKind::Data) && flying.3 == address(2);
        world.append(10, 100);
        let mut reader = reader(&world);
        let mut end = None;
        world.run(200, |world| {
            drop(world.wire.borrow_mut().flying.extract_if(.., data).collect::<Vec<_>>());
            false
        });
        let committed = committed(&world);
        reader.ask(world.now, address(2), b"", fresh(0)).expect("room");
        assert!(world.run(20_000, |world| {
            drop(world.wire.borrow_mut().flying.extract_if(.., data).collect::<Vec<_>>());
            reader.poll(world.now, |reading| end = Some((reading.outcome, reading.lag)));
            end.is_some()
        }));
        let (outcome, lag) = end.expect("it ended");
        (outcome, lag.expect("it says").applied >= committed)
    };
    assert_eq!(held_up(Mutants::NONE), (ReadOutcome::TooStale, false));
    let planted = Mutants::NONE.with(Mutant::FreshUnapplied);
    assert_eq!(held_up(planted), (ReadOutcome::Answered, false), "the rule makes the difference");
}

#[test]
fn g136_what_was_certain_before_a_change_of_leader_still_is() {
    let mut world = whole(9);
    let mut reader = reader(&world);
    assert_eq!(ask(&mut world, &mut reader, 2, fresh(0)).0, ReadOutcome::Answered);
    world.led_by(1, 2);
    world.wire.borrow_mut().cut_off = vec![address(0), address(1)];
    let (outcome, lag, _) = ask(&mut world, &mut reader, 2, fresh(20 * MS));
    assert_eq!((outcome, lag.leadership), (ReadOutcome::Answered, leadership(2)));
    // With the next leader it goes on, and a word of the last one is nothing to it.
    world.wire.borrow_mut().cut_off.clear();
    assert!(world.run(5000, |world| world.all_at(1)));
    for node in 0..3 {
        let (outcome, lag, _) = ask(&mut world, &mut reader, node, fresh(0));
        assert_eq!((outcome, lag.term.0), (ReadOutcome::Answered, 2));
    }
    // Another history, begun by a person: what was certain says nothing of it.
    let mut other = leadership(3);
    other.generation.counter += 1;
    world.nodes[2].order(ControlToCore::Fence(other));
    world.run(2, |_| false);
    let (outcome, lag, _) = ask(&mut world, &mut reader, 2, fresh(u64::MAX - 1));
    assert_eq!((outcome, lag.lag_ns), (ReadOutcome::TooStale, None));
}

#[test]
fn g136_a_leader_whose_term_is_not_open_yet_vouches_for_what_it_has_committed_beyond_it() {
    let mut world = whole(11);
    world.append(20, 100);
    assert!(world.run(5000, |world| world.all_applied()));
    let mut reader = reader(&world);
    let answers = |world: &World| {
        let mut said = Vec::new();
        for flying in &world.wire.borrow().flying {
            if let Ok((_, DatagramKind::CommitAnswer, body)) = parse(&flying.4, GROUP) {
                let (answer, _) = CommitAnswer::read_from_prefix(body).expect("an answer");
                said.push(Position(answer.commit.get()));
            }
        }
        said
    };
    // What is applied lies behind by more than one duty cycle's share.
    let opened = Position(64);
    reader.ask(world.now, address(1), b"", fresh(0)).expect("room");
    let mut said = Vec::new();
    assert!(world.run(5000, |world| {
        let Work::Leader(leading) = &mut world.nodes[0].core.work else { unreachable!() };
        (leading.opened, leading.term_opened) = (false, opened);
        assert_eq!(leading.vouches_for(Commit(Position(0))), opened);
        assert_eq!(leading.vouches_for(Commit(Position(128))), Position(128));
        reader.poll(world.now, |_| {});
        said = answers(world);
        !said.is_empty()
    }));
    assert_eq!(said, [committed(&world)], "and not only the beginning of its term");
}

fn is_of(flying: &Flying, kind: DatagramKind) -> bool {
    parse(&flying.4, GROUP).is_ok_and(|(_, is, _)| is == kind)
}

#[test]
fn g136_an_answer_of_a_leader_whose_log_was_longer_than_the_next_ones_is_asked_for_anew() {
    let mut world = whole(12);
    let mut reader = reader(&world);
    // Node 0 opens term 2 above entries that nobody else has or gets.
    let nobody_gets = |world: &mut World| {
        let data = |flying: &mut Flying| is_of(flying, DatagramKind::Data);
        drop(world.wire.borrow_mut().flying.extract_if(.., data).collect::<Vec<_>>());
    };
    world.append(20, 200);
    world.led_by(0, 2);
    let demand = Demand { wait_ns: 9 * Nanos::SECOND, ..fresh(0) };
    reader.ask(world.now, address(2), b"", demand).expect("room");
    let mut answered = false;
    let heard = world.run(20_000, |world| {
        nobody_gets(world);
        reader.poll(world.now, |_| answered = true);
        let flying = &world.wire.borrow().flying;
        flying.iter().any(|flying| is_of(flying, DatagramKind::CommitAnswer))
    });
    assert!(heard && !answered);
    world.run(5, |world| {
        nobody_gets(world);
        false
    });
    // It dies; the next one has a shorter log, and there is nothing to do.
    let longer = world.nodes[0].core.log.tail().position;
    world.wire.borrow_mut().cut_off = vec![address(0)];
    world.led_by(1, 3);
    let mut end = None;
    assert!(world.run(20_000, |world| {
        reader.poll(world.now, |reading| end = Some(reading.outcome));
        end.is_some()
    }));
    assert_eq!(end, Some(ReadOutcome::Answered));
    assert!(world.nodes[2].core.applied.0 < longer);
}

#[test]
fn g136_a_process_that_stood_still_between_its_clock_and_its_socket_states_an_age_that_counts_it() {
    let mut world = whole(13);
    let mut reader = reader(&world);
    assert_eq!(ask(&mut world, &mut reader, 1, fresh(0)).0, ReadOutcome::Answered);
    world.wire.borrow_mut().parted = vec![[address(0), address(1)]];
    for within_ns in [20 * MS, u64::MAX] {
        // The question is sent when the cycle that takes it has begun 50 ms ago by its clock.
        let demand = Demand { within_ns, wait_ns: 0, ..Demand::default() };
        let taken = world.nodes[1].core.counters.local_answers;
        reader.ask(world.now, address(1), b"", demand).expect("room");
        world.run(1, |_| false);
        let asked = |flying: &Flying| flying.2 == address(1000) && flying.3 == address(1);
        assert!(!world.wire.borrow().flying.iter().any(asked), "it was taken");
        assert_eq!(world.nodes[1].core.counters.local_answers, taken, "not in that cycle");
        world.now = world.now.plus(50 * MS);
        let mut end = None;
        assert!(world.run(5, |world| {
            reader.poll(world.now, |reading| end = Some((reading.outcome, reading.lag)));
            end.is_some()
        }));
        let (outcome, lag) = end.expect("it ended");
        let lag_ns = lag.and_then(|lag| lag.lag_ns).expect("from before");
        assert!(lag_ns >= 50 * MS, "{lag_ns}");
        let bounded = within_ns != u64::MAX;
        assert_eq!(outcome == ReadOutcome::TooStale, bounded, "{outcome:?}");
    }
}

#[test]
fn g136_what_was_answered_of_one_history_is_void_in_the_next_though_the_state_gets_as_far() {
    let mut world = whole(14);
    let mut reader = reader(&world);
    // Node 2 gets no entries until it was told what is committed.
    let data = |flying: &mut Flying| is_of(flying, DatagramKind::Data) && flying.3 == address(2);
    world.append(10, 100);
    let end_of_log = world.nodes[0].core.log.tail().position;
    let mut steps = 0;
    world.run(200, |world| {
        drop(world.wire.borrow_mut().flying.extract_if(.., data).collect::<Vec<_>>());
        false
    });
    assert_eq!(committed(&world), end_of_log);
    reader.ask(world.now, address(2), b"", fresh(u64::MAX - 1)).expect("room");
    let mut end = None;
    world.run(20_000, |world| {
        drop(world.wire.borrow_mut().flying.extract_if(.., data).collect::<Vec<_>>());
        let told = |flying: &Flying| is_of(flying, DatagramKind::CommitAnswer);
        steps += usize::from(steps > 0 || world.wire.borrow().flying.iter().any(told));
        steps > 5
    });
    assert!(world.nodes[2].core.applied.0 < end_of_log);
    assert!(world.run(20_000, |world| {
        reader.poll(world.now, |reading| end = Some((reading.outcome, reading.lag)));
        world.nodes[2].core.applied.0 >= end_of_log
    }));
    assert!(end.is_none());
    let mut other = leadership(1);
    other.generation.counter += 1;
    world.nodes[2].order(ControlToCore::Fence(other));
    assert!(world.run(20_000, |world| {
        reader.poll(world.now, |reading| end = Some((reading.outcome, reading.lag)));
        end.is_some()
    }));
    let (outcome, lag) = end.expect("it ended");
    let lag_ns = lag.and_then(|lag| lag.lag_ns);
    assert_eq!((outcome, lag_ns), (ReadOutcome::TooStale, None));
}

#[test]
fn a_question_that_comes_again_and_again_does_not_wait_for_ever() {
    let mut world = whole(15);
    let mut stranger = network(&world, 1000);
    let begun = world.now;
    let mut heard = 0;
    while heard == 0 && world.now.since(begun) < 30 * Nanos::SECOND {
        let kind = DatagramKind::LocalQuery;
        let header = DatagramHeader::new(kind, GROUP, None, Leadership::default());
        let body = LocalQueryBody {
            nonce: 1.into(),
            number: 1.into(),
            within: u64::MAX.into(),
            at_least: u64::MAX.into(),
            wait: u64::MAX.into(),
        };
        stranger.send(Destination::Address(address(1)), &header, body.as_bytes(), &[]);
        world.run(4, |_| {
            heard += stranger.poll();
            false
        });
        world.now = world.now.plus(Nanos::SECOND);
    }
    let waited = world.now.since(begun);
    assert!((10..13).contains(&(waited / Nanos::SECOND)), "{waited}");
}

#[test]
fn so_many_questions_wait_and_one_that_comes_again_waits_once() {
    let mut world = whole(10);
    let mut stranger = network(&world, 1000);
    let say = |stranger: &mut TestNetwork, number: u64, bytes: usize| {
        let kind = DatagramKind::LocalQuery;
        let header = DatagramHeader::new(kind, GROUP, None, Leadership::default());
        let body = LocalQueryBody {
            nonce: 1.into(),
            number: number.into(),
            within: u64::MAX.into(),
            at_least: u64::MAX.into(),
            wait: (30 * MS).into(),
        };
        let to = Destination::Address(address(1));
        stranger.send(to, &header, body.as_bytes(), &vec![0; bytes]);
    };
    let hear = |world: &mut World, stranger: &mut TestNetwork, steps: usize| {
        let mut heard = Vec::new();
        world.run(steps, |_| {
            for index in 0..stranger.poll() {
                let (_, bytes) = stranger.datagram(index);
                let (_, _, body) = parse(bytes, GROUP).expect("a node's");
                let (answer, _) = LocalAnswerBody::read_from_prefix(body).expect("an answer");
                heard.push((answer.number.get(), LocalOutcome::from_u8(answer.outcome)));
            }
            false
        });
        heard
    };
    for number in 1..=LOCAL_QUERIES_MAX as u64 {
        for _ in 0..2 {
            say(&mut stranger, number, 900);
        }
        world.run(1, |_| false);
    }
    assert_eq!(hear(&mut world, &mut stranger, 5), []);
    say(&mut stranger, 1 << 20, 0);
    let full = Some(LocalOutcome::BackPressure);
    assert_eq!(hear(&mut world, &mut stranger, 5), [(1 << 20, full)]);
    let heard = hear(&mut world, &mut stranger, (40 * MS / STEP_NS) as usize);
    let numbers: Vec<u64> = heard.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=LOCAL_QUERIES_MAX as u64).collect::<Vec<_>>(), "once, in order");
    assert!(heard.iter().all(|(_, outcome)| *outcome == Some(LocalOutcome::Behind)));
}

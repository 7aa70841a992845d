//! A client of a real group gives up, and another one asks later what became of its commands.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use group::{CALM, Group, SMALL, err, out};
use quorate::client::Outcome;
use serde_json::Value;

fn leader(group: &mut Group) -> usize {
    let statuses = group.wait_until("one leads and the others follow it", |statuses| {
        statuses.iter().any(|status| status["role"] == "leader" && status["quorum"] == true)
            && statuses.iter().all(|status| status["leader"] == statuses[0]["leader"])
    });
    statuses[0]["leader"].as_u64().unwrap() as usize
}

/// A client has answers to two commands; then the followers stand still, and it gives up on the next three.
fn give_up(group: &Group, followers: &[usize], round: usize, session: &Path) {
    let mut caller = group.client("gives up");
    for word in ["first", "second"] {
        caller.call(format!("r{round} {word}").as_bytes());
    }
    for node in followers {
        group.signal(*node, "STOP");
    }
    let late: Vec<_> = (0..3).map(|number| format!("r{round} late {number}")).collect();
    for command in &late {
        caller.send(command.as_bytes());
    }
    (0..20).for_each(|_| caller.turn());
    let mut unknown = 0;
    caller.host.client.give_up(|answer| unknown += u32::from(answer.outcome == Outcome::Unknown));
    assert_eq!(unknown, 3);
    let ticket = caller.host.client.ticket().expect("the session is open");
    let mut kept = format!("{ticket}\n");
    for command in &late {
        for byte in command.bytes() {
            write!(kept, "{byte:02x}").unwrap();
        }
        kept.push('\n');
    }
    fs::write(session, kept).unwrap();
    // Nobody can say yet: the session and its commands are kept again.
    let session = session.to_str().unwrap();
    let asked = ["--input", "/dev/null", "--timeout", "1", "--session", session];
    let asked = group.run(0, "send", &asked);
    assert_eq!(asked.status.code(), Some(3), "{}", err(&asked));
    let told = out(&asked);
    assert!(told.lines().all(|line| line.starts_with("unknown")), "{told}");
    // A busy host may have taken so long that the leader has stepped down: then there was nobody to send them to.
    assert!(told.lines().count() == 3 || err(&asked).contains("NO_QUORUM"), "{}", err(&asked));
}

/// What became of them, and nothing else.
fn ask_later(group: &Group, round: usize, session: &Path) -> BTreeSet<u64> {
    let session = session.to_str().unwrap();
    let asked = group.run(0, "send", &["--json", "--input", "/dev/null", "--session", session]);
    assert_eq!(asked.status.code(), Some(0), "{}{}", out(&asked), err(&asked));
    let answers: Vec<Value> =
        out(&asked).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let requests: Vec<_> = answers.iter().map(|answer| answer["request"].as_u64()).collect();
    assert_eq!(requests, [Some(3), Some(4), Some(5)], "under the numbers they had");
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer["outcome"], "applied");
        assert!(answer.to_string().contains(&format!("r{round} late {number}")), "{answer}");
    }
    assert!(!Path::new(session).exists(), "there is nothing left to ask");
    answers.iter().map(|answer| answer["sequence"].as_u64().unwrap()).collect()
}

#[test]
fn g124_what_was_unknown_when_a_client_gave_up_is_asked_later_and_was_applied_once_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let session = group.path().join("session");
    let mut places = BTreeSet::new();
    for round in 0..2 {
        let lead = leader(&mut group);
        group.settle();
        let followers: Vec<_> = (0..3).filter(|node| *node != lead).collect();
        give_up(&group, &followers, round, &session);
        if round == 1 {
            // What only the old leader has is decided by the next one, when it is sent again.
            group.kill(lead);
        }
        for node in &followers {
            group.signal(*node, "CONT");
        }
        leader(&mut group);
        places.extend(ask_later(&group, round, &session));
        if round == 1 {
            group.start_node(lead);
        }
    }
    group.settle();
    let kept = session.to_str().unwrap();
    fs::write(&session, "7fffffff-1-1-1\n6869\n").unwrap();
    let lost = group.run(0, "send", &["--input", "/dev/null", "--session", kept]);
    assert_eq!(lost.status.code(), Some(3));
    assert!(err(&lost).contains("does not know the session any more"), "{}", err(&lost));
    fs::write(&session, "no ticket\n").unwrap();
    let bad = group.run(0, "send", &["--input", "/dev/null", "--session", kept]);
    assert_eq!(bad.status.code(), Some(2), "{}", err(&bad));
    group.stop_all();
    // A command that is applied twice ends the replay.
    let log = group.replay_all();
    assert_eq!(log.commands.len(), 2 * 5);
    let in_log: BTreeSet<_> = log.commands.values().map(|sequence| sequence.0).collect();
    assert!(places.len() == 6 && places.is_subset(&in_log), "{places:?} {in_log:?}");
    let sessions: BTreeSet<_> = log.commands.keys().map(|(session, _)| *session).collect();
    assert_eq!(sessions.len(), 2, "whoever asked later had the session of before");
}

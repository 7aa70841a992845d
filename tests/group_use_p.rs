//! A group of real processes as its users see it: the market's own orders, commands by hand, readers beside the nodes.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use group::{Group, PATIENCE, SMALL, err, market_data, out, quorate, replay};
use quorate::frame::Kind;
use quorate::io::log_reader::{LogReader, ReadOptions};
use quorate::service::BuiltIn;
use quorate::service::book::command::SeedLevel;
use quorate::service::book::{LevelView, Side};
use quorate::service::lobster::{parse_book_row, parse_message};
use quorate::types::Sequence;
use zerocopy::IntoBytes;

/// Events after which the best bid and ask are the exchange's.
const BEST_THROUGH: usize = 439;

fn lines(path: &std::path::Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

#[test]
fn q1_the_exchanges_own_book_through_three_processes_p() {
    let (Some(messages), Some(rows)) = (
        market_data("AAPL_2012-06-21_message_10.csv"),
        market_data("AAPL_2012-06-21_orderbook_10.csv"),
    ) else {
        println!("SKIPPED: no market data (set QUORATE_DATA)");
        return;
    };
    let (messages, rows) = (lines(&messages), lines(&rows));
    // Every entry's state is compared by the nodes themselves: a difference would stop one of them.
    let every = &["group.state_hash_interval=1"][..];
    let mut group = Group::start(3, "book", &[SMALL, every].concat());
    let mut caller = group.client("exchange");
    let mut exchange = BTreeMap::new();
    let mut numbers = Vec::new();
    for (index, (message, row)) in messages.iter().zip(&rows).enumerate() {
        let line = index as u64 + 1;
        let mut levels = Vec::new();
        parse_book_row(line, row, &mut levels).unwrap();
        let mut command = Vec::new();
        // The first row is the book after the first event: it is the seed, and stands for that event.
        if index == 0 {
            SeedLevel::encode(&levels, &mut command);
        } else {
            command.extend_from_slice(parse_message(line, message).unwrap().as_bytes());
        }
        numbers.push((caller.send(&command), levels));
    }
    caller.drain();
    for (number, levels) in numbers.drain(..).take(BEST_THROUGH) {
        let best = [Side::Buy, Side::Sell].map(|side| {
            let level = levels.iter().find(|level| level.side == side as u8).unwrap();
            (level.price.get(), u64::from(level.size.get()))
        });
        exchange.insert(caller.done[&number].sequence, best);
    }
    assert_eq!(exchange.len(), BEST_THROUGH);
    caller.close();
    let statuses = group.settle();
    assert!(statuses.iter().all(|status| status["state_hash"] == statuses[0]["state_hash"]));
    group.stop_all();
    for node in 0..3 {
        let mut compared = 0;
        let log = replay(&group.nodes[node].settings, |service, sequence: Sequence| {
            let BuiltIn::Book(book) = service else { panic!("a book") };
            let Some(wanted) = exchange.get(&sequence) else { return };
            let best = [Side::Buy, Side::Sell].map(|side| {
                let level: LevelView = book.levels(side).next().unwrap();
                (level.price, level.size)
            });
            assert_eq!(best, *wanted, "node {node}, entry {sequence}");
            compared += 1;
        });
        assert_eq!(compared, BEST_THROUGH);
        log.assert_holds(&caller);
    }
    let log = group.replay_all();
    assert_eq!(log.commands.len(), messages.len());
}

#[test]
fn d14_a_reader_beside_a_node_under_load_sees_committed_entries_only_and_no_error_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let mut caller = group.client("load");
    caller.load(20, 100);
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = [0, 1]
        .map(|node| {
            let (directory, stop) = (group.data(node).to_owned(), Arc::clone(&stop));
            thread::spawn(move || read_along(&directory, &stop))
        })
        .into();
    for _ in 0..10 {
        group.load(&mut caller, 100, 1500);
    }
    caller.close();
    let last = group.settle()[0]["sequence"].as_u64().unwrap();
    thread::sleep(Duration::from_millis(100));
    stop.store(true, Ordering::Release);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), Sequence(last), "it saw everything in the end");
    }
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

/// Follows a log until told to stop and at its end; returns the last entry seen.
fn read_along(directory: &std::path::Path, stop: &AtomicBool) -> Sequence {
    let mut reader = LogReader::open(directory, ReadOptions::default()).unwrap();
    assert!(reader.shared().is_some(), "it knows what the node shares");
    let mut last = Sequence(0);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (commit_before, ending) = (reader.commit().unwrap(), stop.load(Ordering::Acquire));
        let found = match reader.next_frame() {
            Ok(Some(found)) => Some((found.header, found.position)),
            Ok(None) => None,
            Err(trouble) => panic!("{}: {trouble}", directory.display()),
        };
        let Some((header, position)) = found else {
            assert!(reader.before().position >= commit_before.position(), "it stops at the commit");
            if ending {
                return last;
            }
            assert!(Instant::now() < deadline);
            reader.refresh().unwrap();
            continue;
        };
        let commit = reader.commit().unwrap();
        assert!(position < commit.position(), "{position} is not below {commit:?}");
        assert!(reader.before().position <= commit.position(), "its end is not either");
        if header.kind() != Some(Kind::Padding) {
            assert_eq!(header.sequence().0, last.0 + 1);
            last = header.sequence();
        }
    }
}

#[test]
fn echo_by_hand_send_tail_and_status_p() {
    let mut group = Group::start(3, "echo", SMALL);
    let input = group.path().join("lines");
    fs::write(&input, "one\ntwo\n\nthree\n").unwrap();
    let sent = group.run(1, "send", &["--input", input.to_str().unwrap()]);
    assert_eq!((sent.status.code(), out(&sent).as_str()), (Some(0), "one\ntwo\n\nthree\n"));
    let sent = group.run(0, "send", &["--json", "--input", input.to_str().unwrap()]);
    let text = out(&sent);
    let replies: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(replies.len(), 4, "{text}");
    assert!(replies.iter().all(|reply| reply["outcome"] == "applied"), "{text}");
    // Their sessions ended because they asked, not by the time-out.
    group.wait_until("no session is open", |statuses| {
        statuses.iter().all(|status| status["words"]["sessions"] == 0)
    });
    let mut log = Command::new(env!("CARGO_BIN_EXE_quorate-log"));
    let log = out(&log.arg("dump").arg(group.data(0)).output().unwrap());
    let closed: Vec<_> = log.lines().filter(|line| line.contains("session-close")).collect();
    assert!(closed.len() == 2 && closed.iter().all(|line| line.contains("asked")), "{log}");
    group.settle();

    // Term start, setting, session, four commands; the same from every node.
    let tails: Vec<_> = (0..3).map(|node| out(&group.run(node, "tail", &["-n", "7"]))).collect();
    assert_eq!(tails[0].lines().count(), 7, "{}", tails[0]);
    assert!(tails[0].lines().nth(3).unwrap().ends_with(" one"), "{}", tails[0]);
    assert!(tails.iter().all(|tail| *tail == tails[0]));
    let sequence = replies[2]["sequence"].to_string();
    let from = group.run(2, "tail", &["--from", &sequence, "-n", "2", "--json"]);
    let first: serde_json::Value =
        serde_json::from_str(out(&from).lines().next().unwrap()).unwrap();
    assert_eq!(first["sequence"], replies[2]["sequence"]);
    let all = group.run(0, "tail", &["--no-follow"]);
    let sequence = group.status(0).unwrap()["sequence"].as_u64().unwrap();
    assert_eq!(out(&all).lines().count() as u64, sequence);

    let leads: Vec<_> =
        (0..3).map(|node| group.run(node, "status", &["--is-leader"]).status.code()).collect();
    assert_eq!(leads, [Some(0), Some(1), Some(1)]);
    let status = group.run(0, "status", &[]);
    assert!(out(&status).contains("role         leader"), "{}", out(&status));
    let status = group.run(1, "status", &["--json"]);
    let status: serde_json::Value = serde_json::from_str(&out(&status)).unwrap();
    assert_eq!((&status["role"], &status["leader"]), (&"follower".into(), &0.into()));
    group.stop_all();
    let gone = group.run(0, "status", &["--is-leader"]);
    assert_eq!(gone.status.code(), Some(1));
    let gone = group.run(0, "status", &[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(err(&gone).contains("no node runs here"), "{}", err(&gone));
}

#[test]
fn book_by_hand_and_a_bad_line_is_named_p() {
    let group = Group::start(3, "book", SMALL);
    let input = group.path().join("orders");
    let orders = "new buy 100 @ 585.33 id 7\nnew sell 40 @ 585.33 id 8\ncancel 10 id 7\n";
    fs::write(&input, orders).unwrap();
    let input = input.to_str().unwrap();
    let sent = group.run(0, "send", &["--input", input]);
    let text = format!("{}{}", out(&sent), err(&sent));
    fs::write(input, "new buy 100 @ 585.33 id 17\nnew buy many @ 585.33 id 18\n").unwrap();
    let bad = group.run(0, "send", &["--input", input]);
    assert_eq!(bad.status.code(), Some(2), "{text}");
    assert_eq!(out(&bad).lines().count(), 1, "the line before it was sent and answered");
    assert!(err(&bad).contains("line 2, column 9: expected a size"), "{}", err(&bad));
    let best = group.path().join("question");
    fs::write(&best, "best\n").unwrap();
    let best = group.run(0, "send", &["--query", "--input", best.to_str().unwrap()]);
    assert!(out(&best).contains("585.33"), "{} {text}", out(&best));
    let missing = group.run(0, "send", &["--input", "/no/such/file"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("/no/such/file"), "{}", err(&missing));
}

#[test]
fn send_without_a_group_says_so_p() {
    let group = Group::found(3, "echo", SMALL);
    let sent = group.run(0, "send", &["--timeout", "1", "--input", "/dev/null"]);
    assert_eq!(sent.status.code(), Some(3));
    assert!(err(&sent).contains("no leader answered"), "{}", err(&sent));
    let no_configuration = quorate().arg("send").output().unwrap();
    assert_eq!(no_configuration.status.code(), Some(2), "{}", err(&no_configuration));
}

/// CPU time of all threads of a node, ns.
fn cpu_ns(group: &Group, node: usize) -> u64 {
    let tasks = format!("/proc/{}/task", group.process(node));
    let ran = |task: std::io::Result<fs::DirEntry>| -> u64 {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    fs::read_dir(tasks).unwrap().map(ran).sum()
}

#[test]
fn a_group_at_rest_takes_under_two_per_cent_of_a_core_each_p() {
    let mut group = Group::start(3, "echo", &[]);
    let mut caller = group.client("before");
    caller.load(20, 64);
    caller.close();
    group.settle();
    // What follows traffic, and the last seal, are over.
    thread::sleep(Duration::from_secs(1));
    let before = [0, 1, 2].map(|node| (group.word(node, "verified"), cpu_ns(&group, node)));
    let start = Instant::now();
    thread::sleep(Duration::from_secs(3));
    let (after, took) = ([0, 1, 2].map(|node| cpu_ns(&group, node)), start.elapsed());
    for (node, (tail, ran)) in before.into_iter().enumerate() {
        let share = (after[node] - ran) as f64 / took.as_nanos() as f64;
        println!("node {node}: {:.2} % of a core", share * 100.0);
        // Code that is not optimised spends more on each wake-up.
        let limit = if cfg!(debug_assertions) { 0.06 } else { 0.02 };
        assert!(share < limit, "node {node}: {:.2} % of a core", share * 100.0);
        assert_eq!(group.word(node, "verified"), tail, "nothing happened");
    }
}

//! R15: every configuration knob has an effect, proved by a test of its own.
//!
//! A test `r15_<key>` (dots as underscores, `members_priority` for `members.*.priority`) proves it, wherever in the sources
//! it stands; a key whose effect another test proves is listed in [`ELSEWHERE`] with that test's name.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod source;

use std::collections::BTreeSet;

use source::{code, sources};

use quorate::runtime::config::KEYS;

/// Keys whose effect a test proves that is named after something else.
const ELSEWHERE: &[(&str, &str)] =
    &[("node.id", "r11_listing_oneself_among_the_members_is_fine_and_being_absent_is_not")];

/// Keys whose effect is not proved yet. This list only gets shorter: a key that is proved must leave it.
const UNPROVED: &[&str] = &[
    "group.id",
    "group.name",
    "group.service",
    "group.book.orders_max",
    "group.book.levels_max",
    "group.book.changes_max",
    "group.segment_bytes",
    "group.window_bytes",
    "group.command_bytes_max",
    "group.durability.leader",
    "group.durability.follower",
    "group.state_hash_interval",
    "group.sessions_max",
    "group.session_in_flight_max",
    "group.reply_bytes_total",
    "members.*.id",
    "members.*.name",
    "members.*.data",
    "members.*.control",
    "members.*.priority",
    "node.data_dir",
    "node.hot_dir",
    "node.admin_socket",
    "transport.kind",
    "transport.group",
    "transport.source_specific",
    "transport.interface",
    "transport.ttl",
    "transport.datagram_bytes",
    "transport.socket_buffer_bytes",
    "transport.gso",
    "threads.core.cpu",
    "threads.control.cpu",
    "threads.sync.cpu",
    "threads.idle",
    "threads.lock_memory",
    "threads.busy_poll_us",
    "threads.scheduling",
    "timing.heartbeat_ms",
    "timing.leader_timeout_ms",
    "timing.session_timeout_min_ms",
    "timing.session_timeout_max_ms",
    "group.session_reply_bytes",
    "transport.client_pool_bytes",
    "sync.group_delay_us",
    "sync.batch_bytes_max",
    "faults.loss",
    "faults.duplicate",
    "faults.corrupt",
    "faults.delay_ms",
    "faults.reorder_ms",
    "faults.seed",
];

#[test]
fn every_key_has_a_test_that_proves_its_effect() {
    let tests = test_names();
    assert!(tests.len() > 100, "the tests were found");
    let judged = judge(&tests, &KEYS.iter().map(|key| key.name).collect::<Vec<_>>());
    assert!(judged.is_empty(), "{}", judged.join("\n"));
}

#[test]
fn the_judgement_finds_what_is_missing() {
    let tests: BTreeSet<_> = ["r15_a_b".to_owned(), "r15_members_name".to_owned()].into();
    assert!(judge_with(&tests, &["a.b", "members.*.name"], &[], &[]).is_empty());
    assert_eq!(judge_with(&tests, &["a.c"], &[], &[]), ["a.c: no test r15_a_c"]);
    assert!(judge_with(&tests, &["a.c"], &[], &["a.c"]).is_empty());
    assert_eq!(judge_with(&tests, &["a.b"], &[], &["a.b"]).len(), 1, "proved and listed");
    assert!(judge_with(&tests, &["a.c"], &[("a.c", "r15_a_b")], &[]).is_empty());
    assert_eq!(judge_with(&tests, &["a.c"], &[("a.c", "gone")], &[]).len(), 1, "no such test");
    assert_eq!(judge_with(&tests, &["a.b"], &[("a.x", "r15_a_b")], &[]).len(), 1, "no such key");
}

fn judge(tests: &BTreeSet<String>, keys: &[&str]) -> Vec<String> {
    judge_with(tests, keys, ELSEWHERE, UNPROVED)
}

fn judge_with(
    tests: &BTreeSet<String>,
    keys: &[&str],
    elsewhere: &[(&str, &str)],
    unproved: &[&str],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for key in keys {
        let own = format!("r15_{}", key.replace(".*", "").replace('.', "_"));
        let other = elsewhere.iter().find(|(name, _)| name == key).map(|(_, test)| *test);
        let proved = tests.contains(&own) || other.is_some_and(|other| tests.contains(other));
        match (proved, unproved.contains(key)) {
            (true, true) => wrong.push(format!("{key}: is proved, take it off the list")),
            (false, false) => wrong.push(format!("{key}: no test {}", other.unwrap_or(&own))),
            _ => {}
        }
    }
    let listed = elsewhere.iter().map(|(key, _)| key).chain(unproved);
    for key in listed.filter(|key| !keys.contains(key)) {
        wrong.push(format!("{key}: is listed, and no such key exists"));
    }
    wrong
}

/// Names of all functions that stand behind `#[test]`, and of all tests within `proptest!`.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources(&["src", "tests", "tools"]) {
        let code = code(&source.text);
        let parts = code.split("#[test]").skip(1);
        for part in parts {
            let Some(name) = part.split("fn ").nth(1) else { continue };
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
            names.insert(name[..end].to_owned());
        }
    }
    names
}

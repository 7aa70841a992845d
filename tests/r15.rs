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
const ELSEWHERE: &[(&str, &str)] = &[
    ("node.id", "r11_listing_oneself_among_the_members_is_fine_and_being_absent_is_not"),
    ("group.id", "the_data_of_another_group_is_refused_p"),
    ("group.service", "r7_numbers_are_the_logs_own_and_the_same_everywhere_p"),
    ("group.book.orders_max", "the_limits_of_a_book_are_those_of_the_configuration_p"),
    ("group.book.levels_max", "the_limits_of_a_book_are_those_of_the_configuration_p"),
    ("group.book.changes_max", "the_limits_of_a_book_are_those_of_the_configuration_p"),
    ("threads.core.cpu", "threads_run_where_and_how_the_configuration_says_p"),
    ("threads.control.cpu", "threads_run_where_and_how_the_configuration_says_p"),
    ("threads.sync.cpu", "threads_run_where_and_how_the_configuration_says_p"),
    ("threads.lock_memory", "threads_run_where_and_how_the_configuration_says_p"),
    ("threads.scheduling", "threads_run_where_and_how_the_configuration_says_p"),
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
    assert!(judge_with(&tests, &["a.b", "members.*.name"], &[]).is_empty());
    assert_eq!(judge_with(&tests, &["a.c"], &[]), ["a.c: no test r15_a_c"]);
    assert!(judge_with(&tests, &["a.c"], &[("a.c", "r15_a_b")]).is_empty());
    assert_eq!(judge_with(&tests, &["a.c"], &[("a.c", "gone")]), ["a.c: no test gone"]);
    assert_eq!(judge_with(&tests, &["a.b"], &[("a.x", "r15_a_b")]).len(), 1, "no such key");
}

fn judge(tests: &BTreeSet<String>, keys: &[&str]) -> Vec<String> {
    judge_with(tests, keys, ELSEWHERE)
}

fn judge_with(tests: &BTreeSet<String>, keys: &[&str], elsewhere: &[(&str, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for key in keys {
        let own = format!("r15_{}", key.replace(".*", "").replace('.', "_"));
        let other = elsewhere.iter().find(|(name, _)| name == key).map(|(_, test)| *test);
        if !tests.contains(&own) && !other.is_some_and(|other| tests.contains(other)) {
            wrong.push(format!("{key}: no test {}", other.unwrap_or(&own)));
        }
    }
    for (key, _) in elsewhere.iter().filter(|(key, _)| !keys.contains(key)) {
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

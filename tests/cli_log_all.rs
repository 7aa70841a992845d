//! Every verb of `quorate-log`: on any directory, and as its own help shows it.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod log_files;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use quorate::io::shared_page::MappedWords;
use quorate::link::SharedPage;
use serde_json::Value;

use log_files::program::{err, log, out, shell, verbs};
use log_files::{Folder, Log, offset};

const FIRST: &str = "0000000000000000.qlog";

/// What follows the path in a call of each verb, and the exit codes of it on a directory without a log, with one entry, with
/// a torn tail, with rot in the middle, and of a node that runs.
const CALLS: &[(&str, &[&str], [u8; 5])] = &[
    ("info", &[], [2, 0, 0, 0, 0]),
    ("ls", &[], [2, 0, 0, 0, 0]),
    ("dump", &[], [2, 0, 0, 3, 0]),
    ("tail", &[], [2, 0, 0, 3, 0]),
    ("get", &["1"], [2, 0, 0, 0, 0]),
    ("find", &["--sequence", "1"], [2, 0, 0, 0, 0]),
    ("grep", &["."], [2, 0, 0, 3, 0]),
    ("verify", &[], [2, 0, 1, 3, 0]),
    ("diff", &["OTHER"], [2, 0, 0, 3, 0]),
    ("hash", &[], [2, 0, 0, 3, 0]),
    ("stats", &[], [2, 0, 0, 3, 0]),
    ("gaps", &[], [2, 0, 1, 3, 0]),
    ("terms", &[], [2, 0, 0, 3, 0]),
    ("sessions", &[], [2, 0, 0, 3, 0]),
    ("snapshots", &[], [2, 0, 0, 0, 0]),
    ("members", &[], [2, 1, 1, 3, 1]),
    ("trace", &["4"], [2, 1, 0, 0, 0]),
    ("latency", &[], [2, 0, 0, 3, 0]),
    ("retention", &["--size", "1"], [2, 0, 0, 0, 0]),
    ("export", &[], [2, 0, 0, 3, 0]),
    // A directory is no file of lines.
    ("import", &["NEW"], [3, 3, 3, 3, 3]),
];
/// Verbs that read no log.
const WITHOUT_A_LOG: &[&str] = &["completions", "man"];

/// A log that is live, as far as a reader can see: as long as the second is held.
fn live(folder: &Path) -> MappedWords {
    let made = Log::with_commands(20);
    made.write(folder, made.tail.position);
    let tier = folder.join("tier");
    fs::create_dir(&tier).unwrap();
    fs::copy(folder.join(FIRST), tier.join(FIRST)).unwrap();
    let words = MappedWords::create(&tier).unwrap();
    let data = folder.canonicalize().unwrap();
    let told = format!("{}\n{}\n", data.join("tier").display(), data.display());
    fs::write(folder.join("hot.path"), told).unwrap();
    words.words().verified.store(made.tail.position.0, Ordering::Release);
    words.words().commit.store(made.position_of(8).0, Ordering::Release);
    words
}

/// Names, lengths, times and bytes of all files below a folder.
fn files(folder: &Path) -> BTreeMap<String, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            let changed = entry.metadata().unwrap().modified().unwrap();
            let name = entry.path().to_str().unwrap().to_owned();
            found.insert(name, (changed, fs::read(entry.path()).unwrap()));
        }
    }
    found
}

#[test]
fn every_verb_copes_with_every_directory_and_changes_nothing() {
    let folder = Folder::new();
    for name in ["empty", "one", "torn", "rotten", "live", "foreign"] {
        fs::create_dir(folder.0.join(name)).unwrap();
    }
    let mut one = Log::new();
    one.start_term(1);
    one.write(&folder.0.join("one"), one.tail.position);
    let mut torn = Log::with_commands(10);
    let end = torn.tail;
    torn.command(2, 11, b"never promised");
    torn.write_sealed(&folder.0.join("torn"), end, end, end.position);
    folder.change(&format!("torn/{FIRST}"), |file| file[offset(end.position) + 32..].fill(0));
    let rotten = Log::with_commands(20);
    rotten.write(&folder.0.join("rotten"), rotten.tail.position);
    let at = offset(rotten.position_of(9)) + 40;
    folder.change(&format!("rotten/{FIRST}"), |file| file[at] ^= 1);
    let _words = live(&folder.0.join("live"));
    fs::write(folder.0.join("foreign/notes.txt"), "hello").unwrap();
    fs::write(folder.0.join("foreign").join(FIRST), "this is no segment").unwrap();
    let before = files(&folder.0);
    for verb in verbs().into_iter().filter(|verb| !WITHOUT_A_LOG.contains(&&**verb)) {
        let found = CALLS.iter().find(|(name, ..)| *name == verb);
        let (_, more, codes) = found.unwrap_or_else(|| panic!("no call for {verb}"));
        let places = ["empty", "one", "torn", "rotten", "live", "foreign"];
        let codes = codes.iter().chain([&codes[0]]);
        for (place, expected) in places.into_iter().zip(codes) {
            let path = folder.file(place);
            let more: Vec<_> = more
                .iter()
                .map(|word| if *word == "OTHER" { path.as_str() } else { *word })
                .collect();
            // What is torn stands above the commit position.
            let torn =
                if place == "torn" && verb != "import" { &["--uncommitted"][..] } else { &[] };
            for form in [&[][..], &["--json"]] {
                let args = [&[&*verb, &*path], &more[..], torn, form].concat();
                let output = log(&args);
                let said = format!("{args:?}: {}{}", out(&output), err(&output));
                assert_eq!(output.status.code(), Some((*expected).into()), "{said}");
                assert!(!said.contains("panicked"), "{said}");
                if !form.is_empty() {
                    let lines = out(&output);
                    for line in lines.lines() {
                        let value: Value = serde_json::from_str(line).expect(&said);
                        assert!(value.is_object(), "{said}");
                    }
                }
                // Data on stdout, talk on stderr: nobody is left without a word.
                let silent = output.stdout.is_empty() && output.stderr.is_empty();
                assert!(!silent || *expected == 0, "{said}");
            }
        }
    }
    assert!(before == files(&folder.0), "nothing was written");
}

#[test]
fn every_verb_shows_two_examples_that_work() {
    let folder = Folder::new();
    for name in ["group/node-0", "group/node-1"] {
        fs::create_dir_all(folder.0.join(name)).unwrap();
        let made = Log::with_commands(200);
        made.write(&folder.0.join(name), made.tail.position);
    }
    let mut tried = 0;
    for verb in verbs() {
        let help = out(&log(&[&verb, "--help"]));
        let examples = help.lines().skip_while(|line| *line != "Examples:").skip(1);
        let examples: Vec<_> = examples.map(str::trim).filter(|line| !line.is_empty()).collect();
        assert!(examples.len() >= 2, "{verb}: {help}");
        for example in examples {
            assert!(example.contains(&format!("quorate-log {verb} ")), "{example}");
            let output = shell(&folder.0, example);
            let status = output.status.code().unwrap();
            assert!(status <= 1, "{example}: {status}: {}", err(&output));
            tried += 1;
        }
    }
    assert!(tried >= 2 * CALLS.len(), "{tried}");
}

#[test]
fn shells_and_manuals_know_every_verb() {
    let bash = out(&log(&["completions", "bash"]));
    let page = out(&log(&["man"]));
    assert!(page.starts_with(".ie") && page.contains(".TH quorate-log 1"), "{page}");
    for verb in verbs() {
        assert!(bash.contains(&format!("quorate__log__subcmd__{verb}")), "{verb}: {bash}");
        assert!(page.contains(&format!("quorate\\-log\\-{verb}(1)")), "{verb}: {page}");
        let own = out(&log(&["man", &verb]));
        assert!(own.contains(&format!(".TH quorate-log-{verb} 1")), "{own}");
    }
    assert_eq!(log(&["man", "nothing"]).status.code(), Some(2));
}

#[test]
fn no_verb_minds_a_reader_that_goes_away() {
    let folder = Folder::new();
    let made = Log::with_commands(3000);
    made.write(&folder.0, made.tail.position);
    for (verb, more, _) in CALLS.iter().filter(|(verb, ..)| *verb != "import") {
        let more = more.join(" ").replace("OTHER", ".");
        let output = shell(&folder.0, &format!("quorate-log {verb} . {more} | true"));
        assert_eq!(err(&output), "", "{verb}");
    }
}

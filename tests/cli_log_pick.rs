//! `quorate-log`: which entries are shown, in which order, from where, and what reads them.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod log_files;

use std::fs;

use log_files::program::{code, err, json, log, out, sequences, shell};
use log_files::{Folder, Log};

const FIRST: &str = "0000000000000000.qlog";

/// A log of 3,002 entries in several segments.
fn long() -> (Folder, Log, String) {
    let (folder, made) = (Folder::new(), Log::with_commands(3000));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    (folder, made, path)
}

/// Name of the segment that holds an entry.
fn file_of(made: &Log, sequence: u64) -> String {
    format!("{:016x}.qlog", made.position_of(sequence).segment_base(log_files::SEGMENT).0)
}

#[test]
fn entries_are_selected_by_their_bytes_and_by_their_clients_numbers() {
    let (_folder, _, path) = long();
    let pick = |args: &[&str]| sequences(&[&["dump", &path], args].concat());
    assert_eq!(pick(&["--client-sequence", "7..9"]), [9, 10]);
    assert_eq!(pick(&["--text", "^command 10[01]$"]), [102, 103]);
    assert_eq!(pick(&["--text", "tester"]), [2], "entries that are no commands have bytes, too");
    assert_eq!(pick(&["--hex", "20333030(30)?$"]), [302, 3002]);
    assert_eq!(pick(&["--hex", "^636f6d6d616e642037$", "--session", "2"]), [9]);
    for wrong in [&["--text", "a("][..], &["--client-sequence", "x"], &["--since", "yesterday"]] {
        let output = log(&[&["dump", &path], wrong].concat());
        assert_eq!((code(&output), out(&output)), (2, String::new()), "{wrong:?}");
    }
}

#[test]
fn newest_first_is_the_same_list_from_its_other_end() {
    let (folder, made, path) = long();
    assert!(made.starts.len() > 2);
    let mut all = sequences(&["dump", &path]);
    all.reverse();
    assert_eq!(sequences(&["dump", "-r", &path]), all);
    assert_eq!(sequences(&["dump", "-r", "-n", "3", &path]), [3002, 3001, 3000]);
    let picked = ["dump", "-r", &path, "--sequence", "1200..1203", "-n", "2"];
    assert_eq!(sequences(&picked), [1202, 1201]);
    let at = log_files::offset(made.position_of(1500));
    folder.change(&file_of(&made, 1500), |file| file[at + 40] ^= 1);
    let (lines, status) = json(&["dump", "-r", &path, "--sequence", "1498..1503"]);
    let seen: Vec<_> = lines.iter().map(|line| line["sequence"].as_u64()).collect();
    assert_eq!(seen, [Some(1502), Some(1501), None, Some(1499), Some(1498)]);
    assert_eq!((lines[2]["problem"].as_str(), status), (Some("damaged"), 3));
}

#[test]
fn a_pipeline_goes_on_where_it_was() {
    let (folder, mut made) = (Folder::new(), Log::with_commands(100));
    made.write(&folder.0, made.tail.position);
    let (path, file) = (folder.file(""), folder.file("seen"));
    let next =
        |args: &[&str]| sequences(&[&["dump", &path, "--cursor-file", &file], args].concat());
    assert_eq!(next(&["-n", "3"]), [1, 2, 3]);
    assert_eq!(next(&["-n", "2"]), [4, 5]);
    // What does not match was looked at, too.
    assert_eq!(next(&["--text", "command 5$"]), [7]);
    assert_eq!(next(&[]), [0; 0]);
    made.command(2, 101, b"one more");
    made.write(&folder.0, made.tail.position);
    assert_eq!(next(&[]), [103]);
    assert_eq!(next(&[]), [0; 0]);

    let shown = out(&log(&["dump", &path, "-n", "10", "--show-cursor"]));
    let cursor = shown.lines().last().unwrap().strip_prefix("-- cursor: ").unwrap().to_owned();
    assert_eq!(sequences(&["dump", &path, "--after", &cursor, "-n", "1"]), [11]);
    let (lines, _) = json(&["dump", &path, "-n", "10", "--show-cursor"]);
    assert_eq!(lines.last().unwrap()["cursor"], cursor);
    // The entry that it names was cut, and another one is there.
    let mut other = Log::with_commands(5);
    (6..=20).for_each(|number| other.command(2, number, b"COMMAND 0"));
    other.write(&folder.0, other.tail.position);
    let refused = log(&["dump", &path, "--after", &cursor]);
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("is not in this log: it was cut"), "{}", err(&refused));
    for wrong in [&["--after", "x"][..], &["-r", "--show-cursor"]] {
        assert_eq!(code(&log(&[&["dump", &path], wrong].concat())), 2, "{wrong:?}");
    }
    fs::write(&file, "nonsense\n").unwrap();
    assert_eq!(code(&log(&["dump", &path, "--cursor-file", &file])), 2);
}

#[test]
fn grep_shows_what_matches_and_says_whether_anything_does() {
    let (folder, mut made) = (Folder::new(), Log::with_commands(300));
    let mut order = Vec::new();
    let line = b"new buy 100 @ 585.33 id 7";
    quorate::service::ServiceKind::Book.encode(1, line, &mut order).unwrap();
    made.command(2, 301, &order);
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let grep = |args: &[&str]| sequences(&[&["grep", &path], args].concat());
    assert_eq!(grep(&["command 2[0-9]$"]), (22..=31).collect::<Vec<_>>());
    assert_eq!(grep(&["command 2[0-9]$", "-r", "-n", "1"]), [31]);
    assert_eq!(grep(&["(?i)COMMAND", "-v"]), [1, 2, 303]);
    assert_eq!(grep(&["buy 100 @ 585", "--service", "book"]), [303]);
    assert_eq!(grep(&["--digits", "^0101"]), [303]);
    let count = log(&["grep", &path, "command", "--count"]);
    assert_eq!((out(&count), code(&count)), ("300\n".to_owned(), 0));
    let none = log(&["grep", &path, "no such thing", "--count"]);
    assert_eq!((out(&none), code(&none)), ("0\n".to_owned(), 1));
    assert_eq!(json(&["grep", &path, "command 1$", "--count"]).0[0]["count"], 1);
    assert_eq!(code(&log(&["grep", &path, "("])), 2);
    let at = log_files::offset(made.position_of(50));
    folder.change(FIRST, |file| file[at + 40] ^= 1);
    assert_eq!(code(&log(&["grep", &path, "command", "--count"])), 3);
}

#[test]
fn get_shows_one_entry_whole() {
    let (folder, made, path) = long();
    let shown = log(&["get", &path, "5"]);
    let expected = format!(
        "position          {}\nsequence          5\nterm              1\n\
         time              2026-11-22T09:00:00.005000000Z\ntime_ns           1795338000005000000\n\
         kind              command\nbytes             65\nchain             {:08x}\n\
         file              {}\noffset            {}\nsession           2\nclient_sequence   3\n\
         received_through  2\ncommand           \"command 3\"\n\
         {}00000000  02 00 00 00 00 00 00 00  03 00 00 00 00 00 00 00  |................|\n\
         {}00000010  02 00 00 00 00 00 00 00  63 6f 6d 6d 61 6e 64 20  |........command |\n\
         {}00000020  33{}  |3|\n",
        made.position_of(5),
        made.before(6).chain.0,
        folder.file(FIRST),
        log_files::offset(made.position_of(5)),
        "    ",
        "    ",
        "    ",
        " ".repeat(15 * 3 + 1),
    );
    assert_eq!((out(&shown), code(&shown)), (expected, 0));
    let (entry, _) = json(&["get", &path, "2999"]);
    assert_eq!((&entry[0]["sequence"], &entry[0]["client_sequence"]), (&2999.into(), &2997.into()));
    assert!(entry[0]["payload"].as_str().unwrap().ends_with("636f6d6d616e642032393937"));
    let at = made.position_of(1500).0 + 33;
    assert_eq!(json(&["get", &path, "--position", &at.to_string()]).0[0]["sequence"], 1500);
    for absent in ["0", "3003", "99999999999"] {
        let output = log(&["get", &path, absent]);
        assert_eq!((code(&output), out(&output)), (1, String::new()), "{absent}");
        assert!(err(&output).contains("not in this log"), "{}", err(&output));
    }
    assert_eq!(code(&log(&["get", &path])), 2);
    let at = log_files::offset(made.position_of(5));
    folder.change(FIRST, |file| file[at + 40] ^= 1);
    assert_eq!(code(&log(&["get", &path, "5"])), 3);
}

#[test]
fn find_says_where_a_time_or_an_entry_stands() {
    let (folder, made, path) = long();
    let found = log(&["find", &path, "--time", "2026-11-22T09:00:01.4995Z"]);
    let file = folder.file(&file_of(&made, 1500));
    let text = out(&found);
    assert_eq!(code(&found), 0);
    assert!(text.contains("\nsequence  1500\n") && text.contains(&file), "{text}");
    let offset = format!("\noffset    {}\n", log_files::offset(made.position_of(1500)));
    assert!(text.contains(&offset), "{text}");
    for number in [1, 2, 1500, 3002] {
        let wanted = number.to_string();
        let (lines, status) = json(&["find", &path, "--sequence", &wanted]);
        assert_eq!((&lines[0]["position"], status), (&made.position_of(number).0.into(), 0));
    }
    for start in &made.starts {
        // The first entry of a segment, also where padding of the same time stands in front of it.
        let wanted = start.sequence.0 + 1;
        let time = (log_files::NINE + wanted * 1_000_000).to_string();
        assert_eq!(json(&["find", &path, "--time", &time]).0[0]["sequence"], wanted);
    }
    let none = log(&["find", &path, "--time", "2026-11-22T10:00:00Z"]);
    assert_eq!(code(&none), 1);
    assert!(err(&none).contains("the log ends below it, at"), "{}", err(&none));
    assert_eq!(code(&log(&["find", &path])), 2);
}

#[test]
fn commands_are_read_by_a_program_of_the_users() {
    let (folder, made) = (Folder::new(), Log::with_commands(3));
    made.write(&folder.0, made.tail.position);
    let path = folder.file("");
    let decoder = "while read -r line; do echo \"{\\\"hex\\\":\\\"$line\\\"}\"; done";
    let (lines, status) = json(&["dump", &path, "--kind", "command", "--decoder", decoder]);
    assert_eq!((&lines[0]["command"]["hex"], status), (&"636f6d6d616e642031".into(), 0));
    let text = out(&log(&["dump", &path, "--kind", "command", "--decoder", decoder]));
    assert!(text.ends_with("command={\"hex\":\"636f6d6d616e642033\"}\n"), "{text}");
    // One that ends: what it did not read is shown as bytes.
    let ended = log(&["dump", &path, "--kind", "command", "--decoder", "head -n 0"]);
    assert_eq!(code(&ended), 3);
    assert_eq!(out(&ended).lines().count(), 4);
    assert!(err(&ended).contains("the decoder gave no line"), "{}", err(&ended));
    assert!(out(&ended).ends_with("command=\"command 3\"\n"));
}

#[test]
fn timers_and_events_are_read() {
    use quorate::frame::Kind;
    use quorate::frame::payload::{EventCursor, TimerFired};
    use zerocopy::IntoBytes;
    let (folder, mut made) = (Folder::new(), Log::with_commands(1));
    made.append(Kind::Timer, TimerFired { id: 7.into(), schedule: 9.into() }.as_bytes());
    made.append(Kind::EventCursor, EventCursor { through: 12.into() }.as_bytes());
    made.write(&folder.0, made.tail.position);
    let text = out(&log(&["dump", &folder.file(""), "-r", "-n", "2"]));
    assert!(
        text.contains(" timer=7 schedule=9\n") && text.contains(" events_through=12\n"),
        "{text}"
    );
}

#[test]
fn bytes_are_shown_below_an_entry_when_asked() {
    let (folder, made) = (Folder::new(), Log::with_commands(1));
    made.write(&folder.0, made.tail.position);
    let shown = shell(&folder.0, "quorate-log dump . -x --kind command");
    let text = out(&shown);
    assert!(text.ends_with("|........command |\n    00000020  31                                                |1|\n"), "{text}");
    assert!(!text.contains('\x1b'), "no colours in a pipe");
}

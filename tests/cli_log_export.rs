//! `quorate-log export` and `import`: a log for other programs, and back.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod log_files;

use std::fs;
use std::process::Command;

use quorate::stream::datagram::DatagramHeader;
use serde_json::Value;
use zerocopy::FromBytes;

use log_files::program::{code, err, json, log, out, shell};
use log_files::{Folder, Log};

/// A change of lines, and what is said of them.
type Case<'a> = (&'a dyn Fn(&mut Vec<String>), &'a str);

/// A log of all that it can hold: leaderships, sessions, large and empty commands, padding.
fn varied() -> Log {
    let mut made = Log::with_commands(1500);
    made.start_term(2);
    made.open_session("desk, \"7\"");
    made.command(2, 1501, &[]);
    made.command(2, 1502, &vec![0xA5; 40_000]);
    made.command(2, 1503, &vec![0; 30_000]);
    made.close_session(2);
    made
}

#[test]
fn what_is_exported_is_imported_as_the_same_log() {
    let (folder, made) = (Folder::new(), varied());
    fs::create_dir(folder.0.join("node")).unwrap();
    made.write(&folder.0.join("node"), made.tail.position);
    let line = "quorate-log export node | quorate-log import - again";
    let output = shell(&folder.0, line);
    assert_eq!(code(&output), 0, "{}", err(&output));
    let (end, chain) = (made.tail.position, made.tail.chain.0);
    let entries = made.tail.sequence;
    let expected = format!("{entries} entries, up to position {end}, checksum {chain:08x}\n");
    assert_eq!(out(&output), expected);
    for start in &made.starts {
        let name = format!("{:016x}.qlog", start.position.0);
        let [one, other] =
            ["node", "again"].map(|dir| fs::read(folder.0.join(dir).join(&name)).unwrap());
        assert!(one[4096..] == other[4096..], "{name}");
        assert!(one[..1024] == other[..1024], "header page of {name}");
    }
    assert_eq!(code(&log(&["verify", &folder.file("again")])), 0);
    let same = json(&["diff", &folder.file("node"), &folder.file("again"), "--deep"]);
    assert_eq!((&same.0[0]["verdict"], same.1), (&"same".into(), 0));
    // A log from its second segment on, and nothing into what is there.
    let from = format!(
        "quorate-log export node --position {}.. > part; quorate-log import part second",
        made.starts[1].position
    );
    assert_eq!(code(&shell(&folder.0, &from)), 0);
    assert_eq!(code(&log(&["verify", &folder.file("second")])), 0);
    let again = shell(&folder.0, "quorate-log import part second");
    assert_eq!((code(&again), out(&again)), (2, String::new()));
    assert_eq!(code(&log(&["verify", &folder.file("second")])), 0);
}

#[test]
fn lines_that_are_changed_make_no_log() {
    let (folder, made) = (Folder::new(), Log::with_commands(20));
    made.write(&folder.0, made.tail.position);
    let lines = out(&log(&["export", &folder.file("")]));
    let lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 23);
    let cases: [Case<'_>; 9] = [
        (&|lines| drop(lines.remove(0)), "line 1: quorate_log: 1 was expected"),
        (&|lines| drop(lines.remove(5)), "line 6: position: "),
        (&|lines| lines.swap(7, 8), "line 8: position: "),
        (&|lines| lines[9] = lines[9].replace("636f6d", "636f6e"), "line 10: checksum "),
        (
            &|lines| lines[9] = lines[9].replace("\"time_ns\":1", "\"time_ns\":2"),
            "line 10: checksum ",
        ),
        (&|lines| lines[9].truncate(30), "line 10: "),
        (&|lines| lines[9] = lines[9].replace("636f6d", "63zz6d"), "line 10: payload: pairs"),
        (&|lines| lines[0] = lines[0].replace("65536", "65537"), "line 1: segment_bytes: "),
        (&|lines| lines.clear(), "line 1: no line is there"),
    ];
    for (number, (change, said)) in cases.iter().enumerate() {
        let mut lines = lines.clone();
        change(&mut lines);
        fs::write(folder.0.join("lines"), lines.join("\n")).unwrap();
        let output = log(&["import", &folder.file("lines"), &folder.file("made")]);
        let found = err(&output);
        assert!(found.starts_with(&format!("quorate-log: {said}")), "case {number}: {found}");
        assert_eq!(code(&output), 3, "case {number}");
        assert!(!folder.0.join("made").exists() && !folder.0.join("made.new").exists());
    }
}

#[test]
fn a_table_has_a_row_for_each_entry() {
    let (folder, made) = (Folder::new(), varied());
    made.write(&folder.0, made.tail.position);
    let table = out(&log(&["export", &folder.file(""), "--format", "csv"]));
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len() as u64, made.tail.sequence.0 + 1);
    assert_eq!(rows[0].split(',').count(), 12);
    let time = "1795338000003000000,2026-11-22T09:00:00.003000000Z";
    let third = format!("{},3,1,{time},command,65,", made.position_of(3));
    assert!(rows[3].starts_with(&third), "{}", rows[3]);
    let quoted = rows.iter().find(|row| row.contains("desk")).unwrap();
    assert!(quoted.contains("\"name=desk, \"\"7\"\" timeout_ns="), "{quoted}");
}

#[test]
fn a_capture_holds_the_frames_as_the_datagrams_that_carry_them() {
    let (folder, made) = (Folder::new(), varied());
    made.write(&folder.0, made.tail.position);
    let output = log(&["export", &folder.file(""), "--format", "pcap"]);
    let bytes = &output.stdout[..];
    assert_eq!(bytes[..4], 0xA1B2_3C4D_u32.to_le_bytes());
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut log_bytes, mut first) = (24, vec![0; made.bytes.len()], true);
    while at < bytes.len() {
        let length = word(bytes, at + 8) as usize;
        let nanoseconds =
            u64::from(word(bytes, at)) * 1_000_000_000 + u64::from(word(bytes, at + 4));
        assert!(!first || nanoseconds == log_files::NINE + 1_000_000);
        first = false;
        let packet = &bytes[at + 16..][..length];
        assert_eq!((packet[0], packet[9]), (0x45, 17));
        let (header, body) = DatagramHeader::read_from_prefix(&packet[28..]).unwrap();
        assert_eq!(header.group.get(), log_files::GROUP.0);
        log_bytes[header.position.get() as usize..][..body.len()].copy_from_slice(body);
        at += 16 + length;
    }
    assert!(log_bytes == made.bytes, "every byte of the log, at its position");
    fs::write(folder.0.join("log.pcap"), bytes).unwrap();
    let shark =
        Command::new("tshark").args(["-r", &folder.file("log.pcap"), "-T", "json"]).output();
    let Ok(shark) = shark else {
        eprintln!("SKIPPED reading it with tshark: it is not installed");
        return;
    };
    let packets: Value = serde_json::from_slice(&shark.stdout).unwrap();
    assert!(packets.as_array().unwrap().len() as u64 > made.tail.sequence.0);
}

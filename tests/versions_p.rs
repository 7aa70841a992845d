//! Every file and every handshake says of which version it is, and another version is refused by name: which was found,
//! which is read. A node that finds such a file does not start, and changes nothing.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use group::{CALM, Group, SMALL, err, out};
use quorate::control::lane::wire::{CatchUpHeader, LANE_VERSION, LaneEnd, LaneNodes};
use quorate::control::lane::wire::{LaneError, decode};
use quorate::control::message::{CONTROL_VERSION, ControlDatagram, ControlError, Envelope};
use quorate::frame::crc::crc32c;
use quorate::frame::{FRAME_VERSION, FrameHeader, Kind, Predecessor, check_frame};
use quorate::io::shared_page::{MappedWords, SHARED_WORDS_FILE, SharedReader};
use quorate::journal::snapshot::SNAPSHOT_VERSION;
use quorate::service::image::{read_start, write_start};
use quorate::stream::datagram::{DATAGRAM_VERSION, DatagramError, DatagramHeader, parse};
use quorate::types::{Generation, GroupId, NodeId, Sequence, Term, Timestamp};
use zerocopy::{FromZeros, IntoBytes};

const GROUP: GroupId = GroupId(7);

/// The files of a data directory that a start may not change, with their bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let inner = self::files(&path).into_iter();
            files.extend(inner.map(|(inside, bytes)| (format!("{name}/{inside}"), bytes)));
        } else if !["lock", "hot.path"].contains(&&*name) {
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

/// Makes the bytes of a file those of another version.
type Change = fn(&mut [u8], u8);

/// Another version in each block of a file, with the checksum that such a file would have.
fn reversion(bytes: &mut [u8], version: &[u8], at: usize, block: usize, crc_at: usize) {
    for block in bytes.chunks_mut(block) {
        block[at..at + version.len()].copy_from_slice(version);
        let crc = crc32c(0, &block[..crc_at]);
        block[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn g111_a_node_refuses_each_file_of_another_version_by_name_and_changes_nothing_p() {
    let mut group = Group::start(1, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("one");
    group.load(&mut caller, 200, 1000);
    assert!(group.run(0, "snapshot", &[]).status.success());
    assert_eq!(group.status(0).unwrap()["version"], env!("CARGO_PKG_VERSION"));
    group.stop_all();
    let data = group.data(0).to_owned();
    let snapshot = fs::read_dir(data.join("snapshots")).unwrap().next().unwrap().unwrap();
    let snapshot = format!("snapshots/{}", snapshot.file_name().to_string_lossy());
    let first = "0000000000000000.qlog";
    let before = files(&data);
    let kinds: [(&str, &str, Change); 3] = [
        (first, "segment format", |bytes, version| {
            reversion(&mut bytes[..128], &[version, 0], 8, 128, 124);
        }),
        ("node.state", "format", |bytes, version| {
            reversion(bytes, &[version, 0], 8, 4096, 4092);
        }),
        (&snapshot, "snapshot format", |bytes, version| {
            reversion(&mut bytes[..128], &[version, 0, 0, 0], 8, 128, 124);
        }),
    ];
    for (name, what, change) in kinds {
        for version in [0, 2] {
            let mut bytes = before[name].clone();
            change(&mut bytes, version);
            fs::write(data.join(name), &bytes).unwrap();
            let found = files(&data);
            let told = group.told(0).len();
            group.start_node(0);
            assert_eq!(group.wait_end(0).code(), Some(3), "{name}");
            let told = group.told(0)[told..].to_owned();
            let expected = format!("{what} {version}, this program reads 1");
            assert!(told.contains(&expected) && told.contains(name), "{name}: {told}");
            assert_eq!(files(&data), found, "{name}: nothing is changed");
            fs::write(data.join(name), &before[name]).unwrap();
        }
    }
    // A bit of the version that turned is damage, and not another version: it is handled as damage is.
    let mut bytes = before[&snapshot].clone();
    bytes[8] ^= 4;
    fs::write(data.join(&snapshot), &bytes).unwrap();
    group.start_node(0);
    group.settle();
    assert_eq!(group.events_with(0, "Q-1131"), 1, "{}", group.told(0));
    group.stop_all();
    caller.assert_all_applied();
}

#[test]
fn g111_a_backup_of_another_version_is_refused_by_the_tool_and_by_restore_p() {
    let mut group = Group::start(1, "echo", SMALL);
    let mut caller = group.client("one");
    group.load(&mut caller, 10, 100);
    let to = group.path().join("backup");
    let made = group.run(0, "backup", &["--to", to.to_str().unwrap()]);
    assert!(made.status.success(), "{}", err(&made));
    group.stop_all();
    let fresh = Group::found(1, "echo", SMALL);
    let manifest = to.join("backup.manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    for version in [0, 2] {
        let other = text.replacen("quorate backup 1\n", &format!("quorate backup {version}\n"), 1);
        fs::write(&manifest, other).unwrap();
        let expected = format!("backup format {version}, this program reads 1");
        let mut verify = Command::new(env!("CARGO_BIN_EXE_quorate-log"));
        let verified = verify.arg("verify").arg(&to).output().unwrap();
        assert_eq!(verified.status.code(), Some(3), "{}", out(&verified));
        assert!(err(&verified).contains(&expected), "{}", err(&verified));
        let restored = fresh.run(0, "restore", &["--from", to.to_str().unwrap()]);
        assert_eq!(restored.status.code(), Some(3));
        assert!(err(&restored).contains(&expected), "{}", err(&restored));
        assert!(!fresh.data(0).join("node.state").exists());
    }
}

#[test]
fn g111_frames_and_images_of_another_version_are_refused_by_name() {
    let mut header = FrameHeader::new(32, Kind::Command, Term(1), Sequence(1), Timestamp(5));
    for version in [0, FRAME_VERSION + 1] {
        header.version = version.into();
        let found = check_frame(Predecessor::genesis(GROUP), 1 << 16, 32, header.as_bytes());
        let said = found.unwrap_err().to_string();
        let expected = format!("format version {version}, this program reads {FRAME_VERSION}");
        assert!(said.contains(&expected), "{said}");
    }
    for version in [1_u32, 3] {
        let mut image = Vec::new();
        write_start(&mut image, *b"TEST", version).unwrap();
        let said = read_start(&mut image.as_slice(), *b"TEST", 2).unwrap_err().to_string();
        assert!(
            said.contains(&format!("snapshot version {version}, this program reads 2")),
            "{said}"
        );
    }
    assert_eq!(SNAPSHOT_VERSION, 1, "the node test above tries the neighbours of this one");
}

#[test]
fn g111_shared_words_of_another_version_are_refused_by_name() {
    let group = group::Folder::new();
    drop(MappedWords::create(group.path()).unwrap());
    let page = fs::read(group.path().join(SHARED_WORDS_FILE)).unwrap();
    for version in [b'0', b'2'] {
        let mut page = page.clone();
        let at = page.iter().position(|&byte| byte == b'\n').unwrap() - 1;
        page[at] = version;
        fs::write(group.path().join(SHARED_WORDS_FILE), page).unwrap();
        let said = SharedReader::open(group.path()).unwrap_err().to_string();
        let expected =
            format!("shared words of format {}, this program reads 1", char::from(version));
        assert_eq!(said, expected);
    }
}

#[test]
fn g111_datagrams_and_connections_of_another_version_are_refused_by_their_number() {
    for version in [DATAGRAM_VERSION - 1, DATAGRAM_VERSION + 1] {
        let mut datagram = DatagramHeader::new_zeroed();
        datagram.magic = u16::from_le_bytes(*b"Qr").into();
        datagram.version = version;
        // Whatever kind of thing it is: data, hello, welcome.
        for kind in 0..=u8::MAX {
            datagram.kind = kind;
            let refused = parse(datagram.as_bytes(), GROUP).map(|_| ()).unwrap_err();
            assert_eq!(refused, DatagramError::Version { version });
        }
    }
    for version in [CONTROL_VERSION - 1, CONTROL_VERSION + 1] {
        let mut datagram = ControlDatagram::new_zeroed();
        datagram.magic = u16::from_le_bytes(*b"Qc").into();
        datagram.version = version;
        // Another version may have another length.
        let longer = [datagram.as_bytes(), &[0; 40]].concat();
        for bytes in [datagram.as_bytes(), &datagram.as_bytes()[..40], &longer] {
            let refused = Envelope::decode(bytes, GROUP).map(|_| ()).unwrap_err();
            assert_eq!(refused, ControlError::Version(version));
        }
    }
    let own = NodeId(1);
    let nodes = LaneNodes { group: GROUP, own, generation: Generation::default() };
    for version in [LANE_VERSION - 1, LANE_VERSION + 1] {
        let mut header = CatchUpHeader::new_zeroed();
        header.magic = u16::from_le_bytes(*b"Ql").into();
        header.version = version;
        for end in [LaneEnd::Asker, LaneEnd::Source] {
            let refused = decode(header.as_bytes(), end, &nodes).map(|_| ()).unwrap_err();
            assert_eq!(refused, LaneError::Version(version));
            let expected =
                format!("protocol version {version}, this program speaks {LANE_VERSION}");
            assert_eq!(refused.to_string(), expected);
        }
    }
}

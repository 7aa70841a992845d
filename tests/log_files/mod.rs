//! Logs made by hand from the format alone, to be read, damaged and read again.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test program uses a part of it

pub mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::IntoBytes;

use quorate::frame::payload::{CommandPrefix, SessionClose, SessionOpen, TermStart};
use quorate::frame::{FrameHeader, Kind, Predecessor, crc};
use quorate::journal::seal::Seal;
use quorate::journal::segment_header::{Content, SegmentHeader};
use quorate::journal::segment_name;
use quorate::limits::{SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES};
use quorate::types::{Commit, CutEpoch, Generation, GroupId, Position, Term, Timestamp};

/// Payload bytes of a segment.
pub const SEGMENT: u64 = SEGMENT_BYTES_MIN;
/// Whose logs these are.
pub const GROUP: GroupId = GroupId(0x00a7_0000_0000_00b3);
/// Their generation.
pub const GENERATION: Generation = Generation { counter: 1, random: 0xc0ff_ee00 };
/// 2026-11-22T09:00:00Z.
pub const NINE: u64 = 1_795_338_000_000_000_000;

/// A folder of this test alone, gone with it.
pub struct Folder(pub PathBuf);

impl Folder {
    /// An empty one.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("quorate-log-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    /// Changes one file in place.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.0.join(name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
    /// Path of a file in it.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A log in the making.
pub struct Log {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What stands before the next frame.
    pub tail: Predecessor,
    /// What stood before each segment.
    pub starts: Vec<Predecessor>,
    /// What stood before each entry, by its sequence from 1 on.
    pub before: Vec<Predecessor>,
}

impl Log {
    /// An empty one.
    pub fn new() -> Self {
        let tail = Predecessor::genesis(GROUP);
        Self { bytes: Vec::new(), tail, starts: vec![tail], before: Vec::new() }
    }

    /// A leadership, a client, and `commands` commands of the bytes `command <n>`, a millisecond apart.
    pub fn with_commands(commands: u64) -> Self {
        let mut log = Self::new();
        log.start_term(1);
        log.open_session("tester");
        for number in 1..=commands {
            log.command(2, number, format!("command {number}").as_bytes());
        }
        log
    }

    /// One entry; padding in front of it where it does not fit.
    pub fn append(&mut self, kind: Kind, payload: &[u8]) {
        let span = (32 + payload.len() as u64).next_multiple_of(32);
        let left = self.starts.last().unwrap().position.plus(SEGMENT).since(self.tail.position);
        if span > left {
            self.frame(Kind::Padding, left as u32, &[]);
            self.bytes.resize(self.tail.position.0 as usize, 0);
            self.starts.push(self.tail);
        }
        self.before.push(self.tail);
        self.frame(kind, 32 + payload.len() as u32, payload);
        if self.tail.position == self.starts.last().unwrap().position.plus(SEGMENT) {
            self.starts.push(self.tail);
        }
    }

    fn frame(&mut self, kind: Kind, length: u32, payload: &[u8]) {
        let before = self.tail;
        let sequence = if kind == Kind::Padding { before.sequence } else { before.sequence.next() };
        let time = Timestamp(NINE + sequence.0 * 1_000_000);
        let mut header = FrameHeader::new(length, kind, before.term, sequence, time);
        let chain = crc::chain(before.chain, &header, before.position, payload);
        header.crc.set(chain.0);
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(32), 0);
        self.tail = before.after(&header);
    }

    /// A new leadership of node 0.
    pub fn start_term(&mut self, term: u32) {
        self.tail.term = Term(term);
        let start = TermStart {
            generation: GENERATION.to_u64().into(),
            base: self.tail.position.0.into(),
            service_version: 1.into(),
            leader: 0.into(),
            reserved: 0.into(),
        };
        self.append(Kind::TermStart, start.as_bytes());
    }

    /// A session; its id is the entry's sequence.
    pub fn open_session(&mut self, name: &str) {
        let open = SessionOpen { nonce: 0xABCD.into(), timeout: 10_000_000_000.into() };
        self.append(Kind::SessionOpen, &[open.as_bytes(), name.as_bytes()].concat());
    }

    /// The end of one.
    pub fn close_session(&mut self, session: u64) {
        let close = SessionClose { session: session.into(), reason: 1, reserved: [0; 7] };
        self.append(Kind::SessionClose, close.as_bytes());
    }

    /// What stands before a command's bytes.
    pub fn prefix(session: u64, number: u64) -> CommandPrefix {
        CommandPrefix {
            session: session.into(),
            client_sequence: number.into(),
            received_through: (number - 1).into(),
        }
    }

    /// A command.
    pub fn command(&mut self, session: u64, number: u64, bytes: &[u8]) {
        let prefix = Self::prefix(session, number);
        self.append(Kind::Command, &[prefix.as_bytes(), bytes].concat());
    }

    /// Position of an entry.
    pub fn position_of(&self, sequence: u64) -> Position {
        self.before[sequence as usize - 1].position
    }

    /// What stands before an entry.
    pub fn before(&self, sequence: u64) -> Predecessor {
        self.before[sequence as usize - 1]
    }

    /// The header page of the segment at an index.
    pub fn header(&self, index: usize) -> SegmentHeader {
        SegmentHeader {
            content: Content::Segment,
            group: GROUP,
            generation: GENERATION,
            segment_bytes: SEGMENT,
            before: self.starts[index],
            cut_epoch: CutEpoch(0),
        }
    }

    /// Writes the segment files. The last one has a seal: everything is certain, committed up to `commit`.
    pub fn write(&self, folder: &Path, commit: Position) {
        self.write_sealed(folder, self.tail, self.tail, commit);
    }

    /// As [`Log::write`], with other promises.
    pub fn write_sealed(
        &self,
        folder: &Path,
        certain: Predecessor,
        claimed: Predecessor,
        commit: Position,
    ) {
        let seal =
            Seal { number: 8, epoch: CutEpoch(0), certain, claimed, known_commit: Commit(commit) };
        for (index, start) in self.starts.iter().enumerate() {
            let mut file = self.header(index).encode().to_vec();
            if index + 1 == self.starts.len() {
                file[seal.offset()..][..512].copy_from_slice(&seal.encode(GROUP));
            }
            let from = start.position.0 as usize;
            let to = self.bytes.len().min(from + SEGMENT as usize);
            file.extend_from_slice(&self.bytes[from..to]);
            file.resize(SEGMENT_HEADER_BYTES + SEGMENT as usize, 0);
            fs::write(folder.join(segment_name(start.position)), file).unwrap();
        }
    }
}

/// Where a position stands in its file.
pub fn offset(position: Position) -> usize {
    (position.0 % SEGMENT) as usize + SEGMENT_HEADER_BYTES
}

/// The entries of [`Log::with_commands`] that are commands have these sequences.
pub const FIRST_COMMAND: u64 = 3;

/// Writes a log of segments of `segment_bytes` with holes: each holds `entries` commands, then padding. All is committed.
pub fn write_sparse(folder: &Path, segment_bytes: u64, segments: u64, entries: u64) {
    let mut made = Log::new();
    made.tail.term = Term(1);
    for number in 0..segments {
        let before = made.tail;
        let header = SegmentHeader { segment_bytes, before, ..made.header(0) };
        made.bytes.clear();
        for entry in 1..=entries {
            let prefix = Log::prefix(2, number * entries + entry);
            made.frame(Kind::Command, 32 + 30, &[prefix.as_bytes(), b"sparse"].concat());
        }
        let left = before.position.plus(segment_bytes).since(made.tail.position);
        made.frame(Kind::Padding, left as u32, &[]);
        let mut file = header.encode().to_vec();
        if number + 1 == segments {
            let (certain, commit) = (made.tail, Commit(made.tail.position));
            let epoch = CutEpoch(0);
            let seal = Seal { number: 1, epoch, certain, claimed: certain, known_commit: commit };
            file[seal.offset()..][..512].copy_from_slice(&seal.encode(GROUP));
        }
        file.extend_from_slice(&made.bytes);
        let path = folder.join(segment_name(before.position));
        fs::write(&path, &file).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(SEGMENT_HEADER_BYTES as u64 + segment_bytes).unwrap();
    }
}

//! The manifest of a backup: text, one thing to a line, the last of which covers all before it.

use core::fmt;
use core::fmt::Write as _;
use core::str::FromStr;
use std::io::{self, ErrorKind};

use crate::frame::Predecessor;
use crate::frame::crc::crc32c;
use crate::journal::memory::{Disk, DurableFile, parse_segment_name};
use crate::journal::snapshot::parse_snapshot_name;
use crate::types::{Chain, Generation, GroupId, NodeId, Position, Sequence, Term, Timestamp};

/// Name of the file.
pub const MANIFEST_NAME: &str = "backup.manifest";
/// Version of the format that this program writes.
pub const MANIFEST_VERSION: u32 = 1;
/// What the first line begins with.
const FIRST_WORDS: &str = "quorate backup ";
/// What the last line begins with.
const LAST_WORD: &str = "crc ";
/// A longer one is none: a line for each of half a million segments.
const MANIFEST_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A file of a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSum {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC-32C of all of it.
    pub crc: u32,
}

/// What a backup is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Whose log.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
    /// From which node.
    pub node: NodeId,
    /// When it was begun.
    pub taken: Timestamp,
    /// Where its log begins.
    pub first: Position,
    /// The last entry in it, and where it ends.
    pub end: Predecessor,
    /// Generation of that entry.
    pub generation: Generation,
    /// Its files: segments by position, then snapshots by position.
    pub files: Vec<FileSum>,
}

/// Why a directory holds no whole backup.
#[derive(Debug)]
#[non_exhaustive]
pub enum ManifestError {
    /// No manifest: a backup that was cut short has none either.
    Absent,
    /// Not written by Quorate.
    Foreign,
    /// Another version of the format.
    Version {
        /// As found.
        found: String,
    },
    /// A line is missing or cannot be, or the checksum is another one.
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// The host could not read it.
    Host(io::Error),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => {
                write!(f, "{MANIFEST_NAME} is not there: no backup, or one that was cut short")
            }
            Self::Foreign => write!(f, "{MANIFEST_NAME}: not written by Quorate"),
            Self::Version { found } => {
                write!(
                    f,
                    "{MANIFEST_NAME}: backup format {found}, this program reads {MANIFEST_VERSION}"
                )
            }
            Self::Damaged { what } => write!(f, "{MANIFEST_NAME} is damaged: {what}"),
            Self::Host(error) => write!(f, "{MANIFEST_NAME}: {error}"),
        }
    }
}

impl core::error::Error for ManifestError {}

impl Manifest {
    /// Positions of its snapshots, oldest first.
    pub fn snapshots(&self) -> impl Iterator<Item = Position> {
        self.files.iter().filter_map(|file| parse_snapshot_name(&file.name))
    }

    /// Bases of its segments, lowest first.
    pub fn segments(&self) -> impl Iterator<Item = Position> {
        self.files.iter().filter_map(|file| parse_segment_name(&file.name))
    }

    /// Bytes of its files; what nobody can hold counts as all there can be.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// As it stands in the file.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("{FIRST_WORDS}{MANIFEST_VERSION}\n");
        let mut line = |name: &str, value: &dyn fmt::Display| {
            // Writing to a string never fails.
            let _ = writeln!(text, "{name} {value}");
        };
        line("group", &format_args!("{:016x}", self.group.0));
        line("segment_bytes", &self.segment_bytes);
        line("node", &self.node.0);
        line("taken", &self.taken.0);
        line("first", &self.first.0);
        line("position", &self.end.position.0);
        line("sequence", &self.end.sequence.0);
        line("term", &self.end.term.0);
        line("chain", &format_args!("{:08x}", self.end.chain.0));
        line("generation", &format_args!("{:016x}", self.generation.to_u64()));
        for FileSum { name, bytes, crc } in &self.files {
            line("file", &format_args!("{name} {bytes} {crc:08x}"));
        }
        let crc = crc32c(0, text.as_bytes());
        let _ = writeln!(text, "{LAST_WORD}{crc:08x}");
        text
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`ManifestError`], but for those of the host.
    pub fn decode(text: &[u8]) -> Result<Self, ManifestError> {
        let words = text.strip_prefix(FIRST_WORDS.as_bytes()).ok_or(ManifestError::Foreign)?;
        // Another version may end otherwise, so the version is looked at before the checksum.
        let version = words.split(|&byte| byte == b'\n').next().unwrap_or_default();
        if version != MANIFEST_VERSION.to_string().as_bytes() {
            let found = String::from_utf8_lossy(&version[..version.len().min(16)]).into_owned();
            return Err(ManifestError::Version { found });
        }
        let damaged = |what: &str| ManifestError::Damaged { what: what.to_owned() };
        let text = core::str::from_utf8(text).map_err(|_| damaged("it is not text"))?;
        let ends = text.strip_suffix('\n').and_then(|text| text.rfind('\n'));
        let (covered, last) = text.split_at(ends.map_or(0, |at| at + 1));
        let found = last.strip_prefix(LAST_WORD).map(str::trim_end);
        let computed = format!("{:08x}", crc32c(0, covered.as_bytes()));
        if found != Some(computed.as_str()) {
            return Err(damaged("its checksum is another one"));
        }
        Lines { lines: covered.lines().skip(1) }.manifest()
    }
}

/// Reads the manifest of the backup in a directory.
///
/// # Errors
/// [`ManifestError`].
pub fn read_manifest<D: Disk>(disk: &D) -> Result<Manifest, ManifestError> {
    let file = disk.open(MANIFEST_NAME).map_err(|error| match error.kind() {
        ErrorKind::NotFound => ManifestError::Absent,
        _ => ManifestError::Host(error),
    })?;
    let length = file.length().map_err(ManifestError::Host)?;
    if length > MANIFEST_BYTES_MAX {
        let what = format!("{length} bytes, at most {MANIFEST_BYTES_MAX}");
        return Err(ManifestError::Damaged { what });
    }
    let mut text = vec![0; length as usize];
    let read = file.read_at(&mut text, 0).map_err(ManifestError::Host)?;
    Manifest::decode(&text[..read])
}

/// The lines between the first and the last.
struct Lines<'a, I: Iterator<Item = &'a str>> {
    lines: I,
}

impl<'a, I: Iterator<Item = &'a str>> Lines<'a, I> {
    fn manifest(mut self) -> Result<Manifest, ManifestError> {
        let group = GroupId(self.hex("group")?);
        let segment_bytes = self.number("segment_bytes")?;
        let node = NodeId(self.number("node")?);
        let taken = Timestamp(self.number("taken")?);
        let first = Position(self.number("first")?);
        let end = Predecessor {
            position: Position(self.number("position")?),
            sequence: Sequence(self.number("sequence")?),
            term: Term(self.number("term")?),
            chain: Chain(self.hex("chain")? as u32),
        };
        let generation = Generation::from_u64(self.hex("generation")?);
        let files = self.files()?;
        let manifest =
            Manifest { group, segment_bytes, node, taken, first, end, generation, files };
        manifest.possible()
    }

    fn value(&mut self, name: &'static str) -> Result<&'a str, ManifestError> {
        let line = self.lines.next().unwrap_or_default();
        let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
        value.ok_or_else(|| ManifestError::Damaged { what: format!("no line `{name}`") })
    }

    fn number<T: FromStr>(&mut self, name: &'static str) -> Result<T, ManifestError> {
        let text = self.value(name)?;
        text.parse().map_err(|_| cannot_be(name, text))
    }

    fn hex(&mut self, name: &'static str) -> Result<u64, ManifestError> {
        let text = self.value(name)?;
        u64::from_str_radix(text, 16).map_err(|_| cannot_be(name, text))
    }

    fn files(self) -> Result<Vec<FileSum>, ManifestError> {
        let file = |line: &str| {
            let mut words = line.strip_prefix("file ")?.split(' ');
            let (name, bytes, crc) = (words.next()?, words.next()?, words.next()?);
            let ours = parse_segment_name(name).is_some() || parse_snapshot_name(name).is_some();
            let crc = u32::from_str_radix(crc, 16).ok()?;
            let bytes = bytes.parse().ok()?;
            (ours && words.next().is_none()).then(|| FileSum { name: name.to_owned(), bytes, crc })
        };
        self.lines.map(|line| file(line).ok_or_else(|| cannot_be("file", line))).collect()
    }
}

fn cannot_be(name: &str, value: &str) -> ManifestError {
    ManifestError::Damaged { what: format!("{name} cannot be `{value}`") }
}

impl Manifest {
    /// What the checksum covers may still be nothing that this program wrote.
    fn possible(self) -> Result<Self, ManifestError> {
        use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
        let sizes = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
        if !self.segment_bytes.is_power_of_two() || !sizes.contains(&self.segment_bytes) {
            return Err(cannot_be("segment_bytes", &self.segment_bytes.to_string()));
        }
        let mut next = self.first;
        for base in self.segments() {
            if base != next || !base.0.is_multiple_of(self.segment_bytes) {
                return Err(cannot_be("file", &format!("{:016x}", base.0)));
            }
            let end = base.0.checked_add(self.segment_bytes);
            next = Position(end.ok_or_else(|| cannot_be("file", &format!("{:016x}", base.0)))?);
        }
        let last = next.0.checked_sub(self.segment_bytes).map(Position);
        if last.is_none_or(|last| last < self.first || self.end.position <= last)
            || self.end.position > next
        {
            return Err(cannot_be("position", &self.end.position.0.to_string()));
        }
        Ok(self)
    }
}

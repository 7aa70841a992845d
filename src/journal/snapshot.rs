//! A snapshot's file: the state after an entry of the log, and the stamp that says after which.
//!
//! ```text
//!      0 +-----------------------------------------------------------+
//!        | stamp, 128 bytes, crc last; zero behind it                |   4096 bytes
//!   4096 +-----------------------------------------------------------+
//!        | crc32c u32 | length u32 | up to 65,528 bytes of the state |   65,536 bytes, the last one shorter
//!        +-----------------------------------------------------------+
//!        | …                                                         |
//! ```
//!
//! Little-endian. The checksum of a block covers its length and bytes and starts from the one of the block before, the
//! first one's from the log's chain where the state was taken: blocks of two snapshots never pass for one. Blocks stand at
//! fixed places, so a piece of the file can be judged, and sent again, on its own.
//!
//! The file is written under another name, the stamp last, and has its own name only once all of it is durable.

#[cfg(test)]
mod tests;

use core::fmt;
use std::io::{self, ErrorKind, Read, Write};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::memory::{Disk, DurableFile};
use super::quarantine_name;
use crate::frame::Predecessor;
use crate::frame::crc::crc32c;
use crate::limits::{SEGMENT_HEADER_BYTES, SNAPSHOT_BLOCK_BYTES};
use crate::types::{Chain, Generation, GroupId, Position, Sequence, Term, Timestamp};

/// First bytes of every snapshot.
pub const SNAPSHOT_MAGIC: [u8; 8] = *b"QUORSNP\n";
/// Version of the format that this program writes.
pub const SNAPSHOT_VERSION: u32 = 1;
/// Folder of the snapshots in the data directory.
pub const SNAPSHOT_FOLDER: &str = "snapshots/";

/// Bytes in front of the blocks.
pub const SNAPSHOT_PAGE_BYTES: usize = SEGMENT_HEADER_BYTES;
const PAGE_BYTES: usize = SNAPSHOT_PAGE_BYTES;
/// Checksum and length in front of a block's bytes.
const BLOCK_FRONT_BYTES: usize = 8;
/// Bytes of the state in a full block.
const BLOCK_STATE_BYTES: usize = SNAPSHOT_BLOCK_BYTES - BLOCK_FRONT_BYTES;
/// Bytes written between two syncs: what waits for the disk behind them waits for so much at most.
const SYNC_BYTES: u64 = 1024 * 1024;
/// Longest name of a service in a stamp, in bytes; longer ones are cut there.
const SERVICE_BYTES: usize = 32;
/// What a file ends with that is not whole yet.
pub(super) const NEW_SUFFIX: &str = ".new";

const _: () = assert!(SYNC_BYTES.is_multiple_of(SNAPSHOT_BLOCK_BYTES as u64));

/// Which state it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Whose.
    pub group: GroupId,
    /// Generation of the last entry applied.
    pub generation: Generation,
    /// The last entry applied, and where the log goes on.
    pub before: Predecessor,
    /// Cluster time.
    pub time: Timestamp,
    /// Fingerprint of the state.
    pub state_hash: u64,
    /// Name of the service.
    pub service: String,
    /// Version of its rules.
    pub service_version: u32,
    /// Bytes of the state.
    pub state_bytes: u64,
    /// Checksum of the last block.
    pub blocks_crc: u32,
}

/// Why a file is not a snapshot that this node can use.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Not a file of ours.
    Foreign {
        /// Its first eight bytes.
        magic: [u8; 8],
    },
    /// Ours, but another version of the format.
    Version {
        /// As found.
        found: u32,
    },
    /// The stamp's checksum does not match: torn, or damaged.
    Checksum {
        /// As found.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// The checksum matches and a field is impossible.
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Of another group.
    Group {
        /// As found.
        found: GroupId,
        /// Ours.
        expected: GroupId,
    },
    /// Its position is not the one in its name: it has been renamed.
    Position {
        /// As found.
        found: Position,
        /// As the name says.
        expected: Position,
    },
    /// It is not a state of this log: the log's chain is another one there.
    OtherLog {
        /// In the stamp.
        stamped: Predecessor,
        /// In the log, if it goes there at all.
        log: Option<Predecessor>,
    },
    /// The log does not say whether it is a state of this log: what stands below it there has left, or is damaged.
    Unconfirmed {
        /// In the stamp.
        stamped: Predecessor,
    },
    /// Bytes of it are missing or damaged, or are no state of this service.
    State(io::Error),
    /// The host could not read.
    Host(io::Error),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { magic } => {
                write!(f, "not a Quorate snapshot: it starts with \"{}\"", magic.escape_ascii())
            }
            Self::Version { found } => {
                write!(f, "snapshot format {found}, this program reads {SNAPSHOT_VERSION}")
            }
            Self::Checksum { found, computed } => {
                write!(f, "stamp checksum {found:#010x}, computed {computed:#010x}")
            }
            Self::Field { field, value } => write!(f, "stamp field {field} cannot be {value}"),
            Self::Group { found, expected } => {
                write!(f, "of group {:016x}, this node's is {:016x}", found.0, expected.0)
            }
            Self::Position { found, expected } => {
                write!(f, "position {:016x} in a file named {:016x}", found.0, expected.0)
            }
            Self::OtherLog { stamped, log: Some(log) } => write!(
                f,
                "not of this log: entry {} with chain {:08x} at {}, in the log entry {} with chain {:08x}",
                stamped.sequence, stamped.chain.0, stamped.position, log.sequence, log.chain.0
            ),
            Self::OtherLog { stamped, log: None } => {
                write!(f, "not of this log, where no entry ends at {}", stamped.position)
            }
            Self::Unconfirmed { stamped } => {
                write!(
                    f,
                    "the log cannot be read up to {}: nothing says whose state it is",
                    stamped.position
                )
            }
            Self::State(error) | Self::Host(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::State(error) | Self::Host(error) => Some(error),
            _ => None,
        }
    }
}

/// Name of the snapshot at `position`: 16 hex digits and `.qsnap`, in its folder.
#[must_use]
pub fn snapshot_name(position: Position) -> String {
    format!("{SNAPSHOT_FOLDER}{:016x}.qsnap", position.0)
}

/// The position in a snapshot's name.
#[must_use]
pub fn parse_snapshot_name(name: &str) -> Option<Position> {
    let digits = name.strip_prefix(SNAPSHOT_FOLDER)?.strip_suffix(".qsnap")?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (digits.len() == 16 && digits.bytes().all(hex))
        .then(|| u64::from_str_radix(digits, 16).ok().map(Position))
        .flatten()
}

/// Positions of the snapshots in a data directory, oldest first.
///
/// # Errors
/// The host's.
pub fn snapshots<D: Disk>(disk: &D) -> io::Result<Vec<Position>> {
    let mut positions: Vec<_> =
        disk.list()?.iter().filter_map(|name| parse_snapshot_name(name)).collect();
    positions.sort_unstable();
    Ok(positions)
}

/// Reads the snapshot of `group` at `position` to its end: every block of it must be good. `pace` is called with the bytes of
/// each piece that is read: it may wait, and its error ends the reading.
///
/// # Errors
/// [`SnapshotError`]; [`SnapshotError::Host`] says nothing about the snapshot.
pub fn verify<D: Disk>(
    disk: &D,
    group: GroupId,
    position: Position,
    pace: &mut dyn FnMut(usize) -> io::Result<()>,
) -> Result<Stamp, SnapshotError> {
    let mut reader = SnapshotReader::open(disk, group, position)?;
    let mut piece = vec![0; SNAPSHOT_BLOCK_BYTES];
    loop {
        match reader.read(&mut piece).map_err(SnapshotError::of_reading)? {
            0 => break,
            read => pace(read).map_err(SnapshotError::Host)?,
        }
    }
    let stamp = reader.stamp().clone();
    reader.finish().map_err(SnapshotError::State)?;
    Ok(stamp)
}

/// A snapshot that another version of the format wrote, and which that is. What only looks so, because it is damaged, is none:
/// the stamp's version and checksum stay where they are in every version.
///
/// # Errors
/// The host's.
pub fn of_another_version<D: Disk>(disk: &D) -> io::Result<Option<(String, u32)>> {
    for position in snapshots(disk)? {
        let name = snapshot_name(position);
        let mut stamp = [0; STAMP_BYTES];
        let read = disk.open(&name).and_then(|file| file.read_at(&mut stamp, 0));
        // What cannot be read is found out when it is needed.
        if let Ok(STAMP_BYTES) = read
            && let Ok((fields, _)) = Fields::ref_from_prefix(&stamp)
            && let Err(SnapshotError::Version { found }) = Stamp::decode(&stamp)
            && fields.crc.get() == fields.checksum()
        {
            return Ok(Some((name, found)));
        }
    }
    Ok(None)
}

/// Removes what a crash left of snapshots that were being written.
///
/// # Errors
/// The host's.
pub fn remove_unfinished<D: Disk>(disk: &D) -> io::Result<()> {
    let names = disk.list()?;
    let unfinished = |name: &&String| {
        let whole = name.strip_suffix(NEW_SUFFIX);
        whole.is_some_and(|whole| parse_snapshot_name(whole).is_some())
    };
    names.iter().filter(unfinished).try_for_each(|name| disk.remove(name))
}

/// Moves a snapshot that cannot be used to `quarantine/`; returns its name there.
///
/// # Errors
/// The host's.
pub fn set_aside<D: Disk>(disk: &D, position: Position) -> io::Result<String> {
    let name = snapshot_name(position);
    let kept = quarantine_name(&disk.list()?, &name[SNAPSHOT_FOLDER.len()..]);
    disk.rename(&name, &kept)?;
    disk.sync_directory()?;
    Ok(kept)
}

impl SnapshotError {
    /// What became of a read: [`SnapshotReader`] says of what is damaged, and only of that, that its data is invalid.
    fn of_reading(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidData => Self::State(error),
            _ => Self::Host(error),
        }
    }

    /// What the host could not read now may be read later, and a log that is damaged may be repaired: then nothing is wrong
    /// with the snapshot.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Host(_) | Self::Unconfirmed { .. })
    }
}

/// Moves a snapshot to `quarantine/` that cannot be used because of what it is; returns its name there. One that may be used
/// later stays.
pub fn set_aside_for<D: Disk>(disk: &D, position: Position, why: &SnapshotError) -> Option<String> {
    (!why.may_pass()).then(|| set_aside(disk, position).ok()).flatten()
}

/// Writes one: give it the state, then [`SnapshotWriter::finish`].
pub struct SnapshotWriter<'a, D: Disk> {
    disk: &'a D,
    name: String,
    file: D::File,
    /// The block that is being filled, its front included.
    block: Vec<u8>,
    offset: u64,
    state_bytes: u64,
    chain: u32,
    /// Is told of each block; its error ends the writing.
    pace: &'a mut dyn FnMut(usize) -> io::Result<()>,
}

impl<'a, D: Disk> SnapshotWriter<'a, D> {
    /// Begins a snapshot of the state behind `before`. `pace` is called with the bytes of each block before it is written:
    /// it may wait, or give up.
    ///
    /// # Errors
    /// The host's.
    pub fn create(
        disk: &'a D,
        before: Predecessor,
        pace: &'a mut dyn FnMut(usize) -> io::Result<()>,
    ) -> io::Result<Self> {
        let name = snapshot_name(before.position);
        let new = format!("{name}{NEW_SUFFIX}");
        let file = match disk.create(&new) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                disk.remove(&new)?;
                disk.create(&new)?
            }
            other => other?,
        };
        let block = Vec::with_capacity(SNAPSHOT_BLOCK_BYTES);
        let (offset, chain) = (PAGE_BYTES as u64, before.chain.0);
        let mut writer = Self { disk, name, file, block, offset, state_bytes: 0, chain, pace };
        writer.block.resize(BLOCK_FRONT_BYTES, 0);
        Ok(writer)
    }

    /// The state is whole: makes the snapshot durable under its name. Its bytes and checksum in `stamp` are filled in.
    ///
    /// # Errors
    /// The host's: nothing has the snapshot's name then.
    pub fn finish(mut self, stamp: Stamp) -> io::Result<Stamp> {
        if self.block.len() > BLOCK_FRONT_BYTES {
            self.write_block()?;
        }
        let stamp = Stamp { state_bytes: self.state_bytes, blocks_crc: self.chain, ..stamp };
        self.file.write_at(&stamp.encode(), 0)?;
        self.file.sync()?;
        self.disk.rename(&format!("{}{NEW_SUFFIX}", self.name), &self.name)?;
        self.disk.sync_directory()?;
        Ok(stamp)
    }

    fn write_block(&mut self) -> io::Result<()> {
        (self.pace)(self.block.len())?;
        let length = (self.block.len() - BLOCK_FRONT_BYTES) as u32;
        self.block[4..BLOCK_FRONT_BYTES].copy_from_slice(&length.to_le_bytes());
        self.chain = crc32c(self.chain, &self.block[4..]);
        self.block[..4].copy_from_slice(&self.chain.to_le_bytes());
        self.file.write_at(&self.block, self.offset)?;
        self.offset += self.block.len() as u64;
        self.state_bytes += u64::from(length);
        self.block.truncate(BLOCK_FRONT_BYTES);
        if (self.offset - PAGE_BYTES as u64).is_multiple_of(SYNC_BYTES) {
            self.file.sync()?;
        }
        Ok(())
    }
}

impl<D: Disk> Write for SnapshotWriter<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = SNAPSHOT_BLOCK_BYTES - self.block.len();
        let taken = room.min(bytes.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == SNAPSHOT_BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads one, and believes nothing that its checksums do not cover.
#[derive(Debug)]
pub struct SnapshotReader<F> {
    file: F,
    stamp: Stamp,
    block: Vec<u8>,
    /// Of `block`, bytes that were given out.
    given: usize,
    offset: u64,
    left: u64,
    chain: u32,
}

impl<F: DurableFile> SnapshotReader<F> {
    /// Opens the snapshot of `group` at `position` and reads its stamp.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        group: GroupId,
        position: Position,
    ) -> Result<Self, SnapshotError> {
        let file = disk.open(&snapshot_name(position)).map_err(SnapshotError::Host)?;
        let mut page = [0; PAGE_BYTES];
        let length = file.read_at(&mut page, 0).map_err(SnapshotError::Host)?;
        let stamp = Stamp::decode(&page[..length])?;
        if let Some(&byte) = page[STAMP_BYTES..].iter().find(|&&byte| byte != 0) {
            return Err(SnapshotError::Field { field: "behind the stamp", value: byte.into() });
        }
        if stamp.group != group {
            return Err(SnapshotError::Group { found: stamp.group, expected: group });
        }
        let found = stamp.before.position;
        if found != position {
            return Err(SnapshotError::Position { found, expected: position });
        }
        let (left, chain) = (stamp.state_bytes, stamp.before.chain.0);
        let offset = PAGE_BYTES as u64;
        Ok(Self { file, stamp, block: Vec::new(), given: 0, offset, left, chain })
    }

    /// Which state it is.
    #[must_use]
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Reads all of it, and believes none of it before that.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(mut self) -> Result<(), SnapshotError> {
        io::copy(&mut self, &mut io::sink()).map_err(SnapshotError::State)?;
        self.finish().map_err(SnapshotError::State)
    }

    /// The reader of the state has everything that it wants: that must have been all, and the checksums must agree.
    ///
    /// # Errors
    /// `InvalidData`.
    pub fn finish(self) -> io::Result<()> {
        let unread = self.left + (self.block.len() - self.given) as u64;
        if unread > 0 {
            return Err(invalid(format!("{unread} bytes behind the end of the state")));
        }
        if self.chain != self.stamp.blocks_crc {
            let (found, computed) = (self.stamp.blocks_crc, self.chain);
            return Err(invalid(format!(
                "blocks end with {computed:#010x}, stamped {found:#010x}"
            )));
        }
        Ok(())
    }

    /// The next block, if there is one.
    fn read_block(&mut self) -> io::Result<()> {
        let length = self.left.min(BLOCK_STATE_BYTES as u64) as usize;
        self.block.resize(BLOCK_FRONT_BYTES + length, 0);
        self.given = self.block.len();
        if length == 0 {
            return Ok(());
        }
        let read = self.file.read_at(&mut self.block, self.offset)?;
        let at = self.offset;
        if read < self.block.len() {
            return Err(invalid(format!("the file ends in the block at byte {at}")));
        }
        let word = |from| {
            let bytes: &[u8; 4] = self.block[from..].first_chunk().expect("the front is there");
            u32::from_le_bytes(*bytes)
        };
        let (found, computed) = (word(0), crc32c(self.chain, &self.block[4..]));
        if found != computed || word(4) as usize != length {
            return Err(invalid(format!(
                "the block at byte {at} is damaged: checksum {found:#010x}, computed {computed:#010x}"
            )));
        }
        self.chain = computed;
        self.offset += self.block.len() as u64;
        self.left -= length as u64;
        self.given = BLOCK_FRONT_BYTES;
        Ok(())
    }
}

impl<F: DurableFile> Read for SnapshotReader<F> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.given == self.block.len() {
            self.read_block()?;
        }
        let taken = (self.block.len() - self.given).min(bytes.len());
        bytes[..taken].copy_from_slice(&self.block[self.given..][..taken]);
        self.given += taken;
        Ok(taken)
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

/// Bytes of a stamp.
const STAMP_BYTES: usize = 128;

/// The stamp as it lies in the file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Fields {
    magic: [u8; 8],
    version: U32,
    blocks_crc: U32,
    group: U64,
    generation: U64,
    position: U64,
    sequence: U64,
    term: U32,
    chain: U32,
    time: U64,
    state_hash: U64,
    state_bytes: U64,
    service: [u8; SERVICE_BYTES],
    service_version: U32,
    reserved: U64,
    crc: U32,
}

const _: () = assert!(size_of::<Fields>() == STAMP_BYTES && STAMP_BYTES <= 512);

impl Fields {
    fn checksum(&self) -> u32 {
        crc32c(0, &self.as_bytes()[..STAMP_BYTES - 4])
    }
}

/// Judges blocks one after the other, as they come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlockCheck {
    chain: u32,
    state_bytes: u64,
}

impl BlockCheck {
    /// Nothing of the snapshot with this stamp was seen yet.
    #[must_use]
    pub fn of(stamp: &Stamp) -> Self {
        Self { chain: stamp.before.chain.0, state_bytes: 0 }
    }

    /// Whether `block` is good, and follows from the one before.
    pub fn next(&mut self, block: &[u8]) -> bool {
        let Some((front, state)) = block.split_first_chunk::<BLOCK_FRONT_BYTES>() else {
            return false;
        };
        let [a, b, c, d, length @ ..] = *front;
        let computed = crc32c(self.chain, &block[4..]);
        let good = u32::from_le_bytes([a, b, c, d]) == computed
            && u32::from_le_bytes(length) as usize == state.len();
        self.chain = computed;
        self.state_bytes += state.len() as u64;
        good
    }

    /// Whether the last block was the one that the stamp names as the last.
    #[must_use]
    pub fn is_whole(&self, stamp: &Stamp) -> bool {
        (self.chain, self.state_bytes) == (stamp.blocks_crc, stamp.state_bytes)
    }
}

impl Stamp {
    /// Bytes of the snapshot's file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let blocks = self.state_bytes.div_ceil(BLOCK_STATE_BYTES as u64);
        let fronts = blocks.saturating_mul(BLOCK_FRONT_BYTES as u64);
        (PAGE_BYTES as u64).saturating_add(fronts).saturating_add(self.state_bytes)
    }

    /// The page in front of the blocks.
    #[must_use]
    pub fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut service = [0; SERVICE_BYTES];
        let mut length = self.service.len().min(SERVICE_BYTES);
        while !self.service.is_char_boundary(length) {
            length -= 1;
        }
        service[..length].copy_from_slice(&self.service.as_bytes()[..length]);
        let mut fields = Fields {
            magic: SNAPSHOT_MAGIC,
            version: SNAPSHOT_VERSION.into(),
            blocks_crc: self.blocks_crc.into(),
            group: self.group.0.into(),
            generation: self.generation.to_u64().into(),
            position: self.before.position.0.into(),
            sequence: self.before.sequence.0.into(),
            term: self.before.term.0.into(),
            chain: self.before.chain.0.into(),
            time: self.time.0.into(),
            state_hash: self.state_hash.into(),
            state_bytes: self.state_bytes.into(),
            service,
            service_version: self.service_version.into(),
            reserved: 0.into(),
            crc: 0.into(),
        };
        fields.crc = fields.checksum().into();
        let mut page = [0; PAGE_BYTES];
        page[..STAMP_BYTES].copy_from_slice(fields.as_bytes());
        page
    }

    /// Reads a stamp, whoever's it is.
    ///
    /// # Errors
    /// The first rule of [`SnapshotError`] that is broken, but for those that need the group or the log.
    pub fn decode(page: &[u8]) -> Result<Self, SnapshotError> {
        let Ok((fields, _)) = Fields::ref_from_prefix(page) else {
            return Err(SnapshotError::Field { field: "length", value: page.len() as u64 });
        };
        if fields.magic != SNAPSHOT_MAGIC {
            return Err(SnapshotError::Foreign { magic: fields.magic });
        }
        let version = fields.version.get();
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { found: version });
        }
        let (found, computed) = (fields.crc.get(), fields.checksum());
        if found != computed {
            return Err(SnapshotError::Checksum { found, computed });
        }
        let value = fields.reserved.get();
        if value != 0 {
            return Err(SnapshotError::Field { field: "reserved", value });
        }
        let service = fields.service.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Self {
            group: GroupId(fields.group.get()),
            generation: Generation::from_u64(fields.generation.get()),
            before: Predecessor {
                position: Position(fields.position.get()),
                sequence: Sequence(fields.sequence.get()),
                term: Term(fields.term.get()),
                chain: Chain(fields.chain.get()),
            },
            time: Timestamp(fields.time.get()),
            state_hash: fields.state_hash.get(),
            service: String::from_utf8_lossy(service).into_owned(),
            service_version: fields.service_version.get(),
            state_bytes: fields.state_bytes.get(),
            blocks_crc: fields.blocks_crc.get(),
        })
    }
}

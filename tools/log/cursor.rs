//! A place in a log that a pipeline goes on from: `--show-cursor`, `--after`, `--cursor-file`.

use core::fmt;
use core::str::FromStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use zerocopy::FromBytes;

use quorate::error::{EXIT_FAILURE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::frame::{FrameHeader, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use quorate::runtime::terminal::complain;
use quorate::types::{Chain, GroupId, Position};

/// The last entry that was looked at: its place and its checksum, which say whether it is still the same one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    group: GroupId,
    position: Position,
    chain: Chain,
}

/// A text that is no cursor.
#[derive(Debug)]
pub(crate) struct NoCursor;

impl fmt::Display for NoCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no cursor: GROUP-POSITION-CHECKSUM, as --show-cursor prints it")
    }
}

impl core::error::Error for NoCursor {}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}-{:08x}", self.group.0, self.position.0, self.chain.0)
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let mut parts = text.trim().split('-');
        let mut part = || {
            let digits = parts.next().filter(|part| !part.starts_with('+'));
            digits.and_then(|part| u64::from_str_radix(part, 16).ok())
        };
        let numbers = (part(), part(), part());
        let (Some(group), Some(position), Some(chain)) = numbers else { return Err(NoCursor) };
        let chain = u32::try_from(chain).map_err(|_| NoCursor)?;
        let cursor =
            Self { group: GroupId(group), position: Position(position), chain: Chain(chain) };
        parts.next().is_none().then_some(cursor).ok_or(NoCursor)
    }
}

impl Cursor {
    /// The place of an entry.
    pub(crate) fn of(group: GroupId, found: &Found<'_>) -> Self {
        Self { group, position: found.position, chain: found.header.chain() }
    }

    /// What stands before the entry behind it. None: the entry is not there (any more).
    fn place(self, reader: &LogReader) -> Option<Predecessor> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let read = reader.bytes_at(self.position, &mut bytes).ok()?;
        let header = FrameHeader::read_from_bytes(&bytes).ok().filter(|_| read == bytes.len())?;
        let possible = FRAME_HEADER_BYTES..=FRAME_BYTES_MAX;
        let same = header.chain() == self.chain && possible.contains(&(header.length() as usize));
        let before = Predecessor { position: self.position, ..reader.before() };
        (same && reader.group() == self.group).then(|| before.after(&header))
    }
}

/// From where, and what is left behind for the next time.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Cursors {
    /// Only entries behind this cursor
    #[arg(long, value_name = "CURSOR", conflicts_with = "cursor_file")]
    after: Option<Cursor>,
    /// At the end, print the cursor of the last entry that was looked at
    #[arg(long)]
    pub(crate) show_cursor: bool,
    /// Go on behind the cursor in this file, if it is there, and leave the new one in it
    #[arg(long, value_name = "FILE")]
    cursor_file: Option<PathBuf>,
}

impl Cursors {
    /// Whether any was given.
    pub(crate) fn are_used(&self) -> bool {
        self.after.is_some() || self.show_cursor || self.cursor_file.is_some()
    }

    /// Goes to the cursor that was given, if one was, and returns it.
    pub(crate) fn start(&self, reader: &mut LogReader) -> Result<Option<Cursor>, u8> {
        let cursor = match (&self.after, &self.cursor_file) {
            (Some(cursor), _) => Some(*cursor),
            (None, Some(file)) => read(file)?,
            (None, None) => None,
        };
        let Some(cursor) = cursor else { return Ok(None) };
        let Some(before) = cursor.place(reader) else {
            complain(&format_args!(
                "the entry of cursor {cursor} is not in this log: it was cut, has left, or is of another log"
            ));
            return Err(EXIT_FINDINGS);
        };
        reader.restart(before);
        Ok(Some(cursor))
    }

    /// Leaves the cursor in the file that was named for it: the old one stays whole until the new one is.
    pub(crate) fn keep(&self, cursor: Option<Cursor>) -> io::Result<()> {
        let (Some(file), Some(cursor)) = (&self.cursor_file, cursor) else { return Ok(()) };
        let mut new = file.clone().into_os_string();
        new.push(".new");
        fs::write(&new, format!("{cursor}\n"))?;
        fs::rename(&new, file)
    }
}

fn read(file: &Path) -> Result<Option<Cursor>, u8> {
    match fs::read_to_string(file) {
        Ok(text) => text.parse().map(Some).map_err(|error| {
            complain(&format_args!("{}: {error}", file.display()));
            EXIT_USAGE
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            complain(&format_args!("{}: {error}", file.display()));
            Err(EXIT_FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_printed_and_nothing_else_is_one() {
        let cursor =
            Cursor { group: GroupId(0xa7), position: Position(1 << 40), chain: Chain(0xbeef) };
        assert_eq!(cursor.to_string(), "00000000000000a7-10000000000-0000beef");
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for bad in ["", "1-2", "1-2-3-4", "1-2-123456789", "g-1-1", "+1-1-1", "1--1"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}

//! Which entries: by position, sequence, term, kind, session, client's number, time and bytes.

use core::ops::Range;

use quorate::frame::payload::{CommandPrefix, SessionClose};
use quorate::frame::{Kind, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::limits::COMMAND_PREFIX_BYTES;
use quorate::types::{Position, Sequence, Timestamp};
use regex::bytes::Regex;
use zerocopy::FromBytes;

use crate::parse::{kind, pattern, range, time};
use crate::walk::start_at;

/// Cluster time only grows along a log, and where it does not, that is what somebody may be looking for: so much of it on
/// both sides of what was asked for is read, too.
const TIME_SLACK_NS: u64 = 60_000_000_000;

/// Which entries; what is left out does not matter.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Selection {
    /// Only entries that stand in this range: `A..B`, `A..`, `..B`, or `A` for the one that holds it
    #[arg(long, value_name = "RANGE", value_parser = range, help_heading = SELECTION)]
    position: Option<Range<u64>>,
    /// Only these entry numbers: `A..B` (B not included), `A..`, `..B`, or `A`
    #[arg(long, value_name = "RANGE", value_parser = range, help_heading = SELECTION)]
    sequence: Option<Range<u64>>,
    /// Only entries of these terms
    #[arg(long, value_name = "RANGE", value_parser = range, help_heading = SELECTION)]
    term: Option<Range<u64>>,
    /// Only entries of these kinds; padding is shown only when it is named
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = kind)]
    #[arg(help_heading = SELECTION)]
    kind: Vec<Kind>,
    /// Only entries of this client's session
    #[arg(long, value_name = "ID", help_heading = SELECTION)]
    session: Option<u64>,
    /// Only commands that their clients gave these numbers
    #[arg(long, value_name = "RANGE", value_parser = range, help_heading = SELECTION)]
    client_sequence: Option<Range<u64>>,
    /// Only entries from then on: 2026-11-22T09:30:00Z, 09:30 today (UTC), nanoseconds since 1970, `5m` or `2 hours ago`
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = SELECTION)]
    since: Option<Timestamp>,
    /// Only entries before then
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = SELECTION)]
    until: Option<Timestamp>,
    /// Only entries whose bytes (of a command: the command's own) hold this pattern
    #[arg(long, value_name = "REGEX", value_parser = pattern, help_heading = SELECTION)]
    text: Option<Regex>,
    /// The same, looked for in the bytes' hexadecimal digits
    #[arg(long, value_name = "REGEX", value_parser = pattern, help_heading = SELECTION)]
    hex: Option<Regex>,
    /// Padding, too, where no kinds are named.
    #[arg(skip)]
    padding: bool,
}

/// Heading over these flags in `--help`.
const SELECTION: &str = "Which entries";

impl Selection {
    /// Entries of one kind.
    pub(crate) fn of_kind(kind: Kind) -> Self {
        Self { kind: vec![kind], ..Self::default() }
    }

    /// The same, padding included.
    pub(crate) fn with_padding(&self) -> Self {
        Self { padding: true, ..self.clone() }
    }

    /// Whether an entry is wanted.
    pub(crate) fn wants(&self, found: &Found<'_>) -> bool {
        let header = &found.header;
        let within = |range: &Option<Range<u64>>, value: u64| {
            range.as_ref().is_none_or(|range| range.contains(&value))
        };
        let kind = header.kind();
        let kinds = if self.kind.is_empty() {
            self.padding || kind != Some(Kind::Padding)
        } else {
            kind.is_some_and(|kind| self.kind.contains(&kind))
        };
        let overlaps = self.position.as_ref().is_none_or(|range| {
            found.position.0 < range.end && found.position.plus(header.span()).0 > range.start
        });
        kinds
            && overlaps
            && within(&self.sequence, header.sequence().0)
            && within(&self.term, header.term().0.into())
            && self.since.is_none_or(|since| header.timestamp() >= since)
            && self.until.is_none_or(|until| header.timestamp() < until)
            && self.session.is_none_or(|session| session_of(found) == Some(session))
            && self.client_sequence.as_ref().is_none_or(|range| {
                client_sequence_of(found).is_some_and(|number| range.contains(&number))
            })
            && self.text.as_ref().is_none_or(|text| text.is_match(own_bytes(found)))
            && self.hex.as_ref().is_none_or(|hex| hex.is_match(&digits(own_bytes(found))))
    }

    /// Whether no entry behind `found` can be wanted: positions, sequences and terms only grow, and so does cluster time,
    /// give or take [`TIME_SLACK_NS`].
    pub(crate) fn is_over(&self, found: &Found<'_>) -> bool {
        let past = |range: &Option<Range<u64>>, value: u64| {
            range.as_ref().is_some_and(|range| value >= range.end)
        };
        past(&self.position, found.position.0)
            || past(&self.sequence, found.header.sequence().0)
            || past(&self.term, found.header.term().0.into())
            || self.until.is_some_and(|until| {
                found.header.timestamp().0 >= until.0.saturating_add(TIME_SLACK_NS)
            })
    }

    /// Whether nothing is wanted that ends at or below what stands before a segment.
    pub(crate) fn is_under(&self, next: &Predecessor) -> bool {
        self.position.as_ref().is_some_and(|range| next.position.0 <= range.start)
            || self.sequence.as_ref().is_some_and(|range| next.sequence.0 < range.start)
            || self.term.as_ref().is_some_and(|range| u64::from(next.term.0) < range.start)
    }

    /// Goes to the segment in which what is wanted begins, as far as positions, sequences, terms or times say so.
    pub(crate) fn start(&self, reader: &mut LogReader) {
        let position = self.position.as_ref().map(|range| Position(range.start));
        let sequence = self.sequence.as_ref().map(|range| Sequence(range.start));
        let since = self.since.map(|since| Timestamp(since.0.saturating_sub(TIME_SLACK_NS)));
        let earliest = since.and_then(|since| reader.segment_before(since));
        if position.is_none() && sequence.is_none() && earliest.is_none() {
            return;
        }
        start_at(reader, |start: &Predecessor| {
            position.is_none_or(|position| start.position <= position)
                && sequence.is_none_or(|sequence| start.sequence < sequence)
                && (since.is_none() || earliest.is_some_and(|at| start.position <= at.position))
        });
    }

    /// Whether everything is wanted.
    pub(crate) fn is_everything(&self) -> bool {
        self.kind.is_empty()
            && self.position.is_none()
            && self.sequence.is_none()
            && self.term.is_none()
            && self.session.is_none()
            && self.client_sequence.is_none()
            && self.text.is_none()
            && self.hex.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }
}

/// The session that an entry belongs to.
pub(crate) fn session_of(found: &Found<'_>) -> Option<u64> {
    match found.header.kind()? {
        Kind::SessionOpen => Some(found.header.sequence().0),
        Kind::SessionClose => {
            SessionClose::read_from_prefix(found.payload).ok().map(|(close, _)| close.session.get())
        }
        Kind::Command | Kind::CommandBatch => CommandPrefix::read_from_prefix(found.payload)
            .ok()
            .map(|(prefix, _)| prefix.session.get()),
        _ => None,
    }
}

/// The number that a client gave to a command.
pub(crate) fn client_sequence_of(found: &Found<'_>) -> Option<u64> {
    let is_command = matches!(found.header.kind(), Some(Kind::Command | Kind::CommandBatch));
    let (prefix, _) = CommandPrefix::read_from_prefix(found.payload).ok().filter(|_| is_command)?;
    Some(prefix.client_sequence.get())
}

/// What an entry carries; of commands what their client sent.
pub(crate) fn own_bytes<'a>(found: &Found<'a>) -> &'a [u8] {
    match found.header.kind() {
        Some(Kind::Command | Kind::CommandBatch) => {
            found.payload.get(COMMAND_PREFIX_BYTES..).unwrap_or(found.payload)
        }
        _ => found.payload,
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn digits(bytes: &[u8]) -> Vec<u8> {
    let digit = |number: u8| b"0123456789abcdef"[usize::from(number)];
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

//! Which entries: by position, sequence, term, kind, session, time and number.

use core::ops::Range;
use core::str::FromStr;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp as Time, civil, tz::TimeZone};

use quorate::frame::payload::{CommandPrefix, SessionClose};
use quorate::frame::{Kind, Predecessor};
use quorate::io::log_reader::LogReader;
use quorate::journal::reader::Found;
use quorate::types::{Position, Sequence, Timestamp};
use zerocopy::FromBytes;

use crate::walk::start_at;

/// Which entries; what is left out does not matter.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct Selection {
    /// Only entries that stand in this range: `A..B`, `A..`, `..B`, or `A` for the one that holds it
    #[arg(long, value_name = "RANGE", value_parser = range)]
    position: Option<Range<u64>>,
    /// Only these entry numbers: `A..B` (B not included), `A..`, `..B`, or `A`
    #[arg(long, value_name = "RANGE", value_parser = range)]
    sequence: Option<Range<u64>>,
    /// Only entries of these terms
    #[arg(long, value_name = "RANGE", value_parser = range)]
    term: Option<Range<u64>>,
    /// Only entries of these kinds; padding is shown only when it is named
    #[arg(long, value_name = "KIND,…", value_delimiter = ',', value_parser = kind)]
    kind: Vec<Kind>,
    /// Only entries of this client's session
    #[arg(long, value_name = "ID")]
    session: Option<u64>,
    /// Only entries from then on: 2026-11-22T09:30:00Z, 09:30 today (UTC), nanoseconds since 1970, or `5m` ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only entries before then
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
}

impl Selection {
    /// Whether an entry is wanted.
    pub(crate) fn wants(&self, found: &Found<'_>) -> bool {
        let header = &found.header;
        let within = |range: &Option<Range<u64>>, value: u64| {
            range.as_ref().is_none_or(|range| range.contains(&value))
        };
        let kind = header.kind();
        let kinds = if self.kind.is_empty() {
            kind != Some(Kind::Padding)
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
    }

    /// Whether no entry behind `found` can be wanted: positions, sequences and terms only grow. (So does cluster time, but a
    /// tool that looks for what went wrong does not count on it.)
    pub(crate) fn is_over(&self, found: &Found<'_>) -> bool {
        let past = |range: &Option<Range<u64>>, value: u64| {
            range.as_ref().is_some_and(|range| value >= range.end)
        };
        past(&self.position, found.position.0)
            || past(&self.sequence, found.header.sequence().0)
            || past(&self.term, found.header.term().0.into())
    }

    /// Whether positions or sequences are narrowed: then there is a segment to start in.
    pub(crate) fn start(&self, reader: &mut LogReader) {
        let position = self.position.as_ref().map(|range| Position(range.start));
        let sequence = self.sequence.as_ref().map(|range| Sequence(range.start));
        if position.is_none() && sequence.is_none() {
            return;
        }
        start_at(reader, |start: &Predecessor| {
            position.is_none_or(|position| start.position <= position)
                && sequence.is_none_or(|sequence| start.sequence < sequence)
        });
    }

    /// Whether everything is wanted.
    pub(crate) fn is_everything(&self) -> bool {
        self.kind.is_empty()
            && self.position.is_none()
            && self.sequence.is_none()
            && self.term.is_none()
            && self.session.is_none()
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

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let wrong =
        || "a number, or a range of numbers: A..B, A.., ..B (0x for hexadecimal)".to_owned();
    let part = |part: &str, absent: u64| match part {
        "" => Ok(absent),
        _ => number(part).ok_or_else(wrong),
    };
    let range = if let Some((from, to)) = text.split_once("..") {
        part(from, 0)?..part(to, u64::MAX)?
    } else {
        let only = number(text).ok_or_else(wrong)?;
        only..only.checked_add(1).ok_or_else(wrong)?
    };
    if range.is_empty() { Err("an empty range".to_owned()) } else { Ok(range) }
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("one of: {}", Kind::ALL.map(Kind::name).join(", ")))
}

fn time(text: &str) -> Result<Timestamp, String> {
    let now = || Time::try_from(SystemTime::now()).map_err(|error| error.to_string());
    let found = if let Ok(nanoseconds) = text.parse::<u64>() {
        return Ok(Timestamp(nanoseconds));
    } else if let Ok(time) = Time::from_str(text) {
        time
    } else if let Ok(time) = civil::DateTime::from_str(text) {
        time.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?.timestamp()
    } else if let Ok(time) = civil::Time::from_str(text) {
        let today = now()?.to_zoned(TimeZone::UTC).date().to_datetime(time);
        today.to_zoned(TimeZone::UTC).map_err(|error| error.to_string())?.timestamp()
    } else if let Ok(ago) = SignedDuration::from_str(text) {
        now()?.checked_sub(ago).map_err(|error| error.to_string())?
    } else {
        return Err(
            "a time such as 2026-11-22T09:30:00Z, 09:30, 5m (ago), or nanoseconds".to_owned()
        );
    };
    let nanoseconds = u64::try_from(found.as_nanosecond());
    nanoseconds.map(Timestamp).map_err(|_| "a time from 1970 to 2554".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_a_number_is_itself() {
        assert_eq!(range("3..7"), Ok(3..7));
        assert_eq!(range("3.."), Ok(3..u64::MAX));
        assert_eq!(range("..0x20"), Ok(0..32));
        assert_eq!(range("5"), Ok(5..6));
        for bad in ["", "x", "7..3", "3-7", "1...2", "-1"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let nine = Timestamp(1_795_338_000_000_000_000);
        assert_eq!(time("2026-11-22T09:00:00Z"), Ok(nine));
        assert_eq!(time("2026-11-22T10:00:00+01:00"), Ok(nine));
        assert_eq!(time("2026-11-22 09:00"), Ok(nine));
        assert_eq!(time("1795338000000000000"), Ok(nine));
        assert!(time("5m").unwrap() > nine || time("5m").is_ok());
        assert!(time("09:30").is_ok());
        for bad in ["", "yesterday", "1960-01-01T00:00:00Z"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}

//! What people write on the command line: ranges, kinds, times, patterns.

use core::ops::Range;
use core::str::FromStr;
use std::time::SystemTime;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp as Time, civil, tz::TimeZone};
use regex::bytes::{Regex, RegexBuilder};

use quorate::frame::Kind;
use quorate::types::Timestamp;

/// Memory of a compiled pattern: one that needs more is refused.
const PATTERN_BYTES_MAX: usize = 8 << 20;

/// A number, decimal or hexadecimal.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Numbers from A up to B.
pub(crate) fn range(text: &str) -> Result<Range<u64>, String> {
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

/// A kind by its name.
pub(crate) fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("one of: {}", Kind::ALL.map(Kind::name).join(", ")))
}

/// A time as people write it.
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
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
    } else if let Some(ago) = ago(text) {
        now()?.checked_sub(ago).map_err(|error| error.to_string())?
    } else {
        return Err(
            "a time such as 2026-11-22T09:30:00Z, 09:30, 5m or \"2 hours ago\", or nanoseconds"
                .to_owned(),
        );
    };
    let nanoseconds = u64::try_from(found.as_nanosecond());
    nanoseconds.map(Timestamp).map_err(|_| "a time from 1970 to 2554".to_owned())
}

/// `5m`, `2 hours ago`, `1 day`: how long ago, whichever way it is said. A day has 24 hours.
fn ago(text: &str) -> Option<SignedDuration> {
    let span = Span::from_str(text).ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok().map(SignedDuration::abs)
}

/// A length of time.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, String> {
    ago(text).ok_or_else(|| "a length of time such as 100ms, 5s, 2h".to_owned())
}

/// A number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)];
    let found = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?.trim_end();
        Some((number.parse::<u64>().ok()?, *shift))
    });
    let bytes = found.and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "bytes, such as 4096, 64MiB, 10GiB".to_owned())
}

/// A pattern that is looked for in bytes.
pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
    // The parser's own message is several lines with a picture; its last line says what is wrong.
    let told = |error: regex::Error| error.to_string().lines().last().unwrap_or("").to_owned();
    RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build().map_err(told)
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
    fn sizes_have_units_of_1024() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("10 GiB"), Ok(10 << 30));
        for bad in ["", "KiB", "1KB", "-1", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_that_is_none_is_said_in_one_line() {
        assert!(pattern("a(b").unwrap_err().contains("unclosed group"));
        assert!(pattern("a{1000}{1000}{1000}").is_err(), "one that would need much memory");
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let nine = Timestamp(1_795_338_000_000_000_000);
        assert_eq!(time("2026-11-22T09:00:00Z"), Ok(nine));
        assert_eq!(time("2026-11-22T10:00:00+01:00"), Ok(nine));
        assert_eq!(time("2026-11-22 09:00"), Ok(nine));
        assert_eq!(time("1795338000000000000"), Ok(nine));
        assert!(time("1 hour ago").unwrap() < time("5m").unwrap());
        assert!(time("2 days").unwrap() < time("1h").unwrap());
        assert!(time("09:30").is_ok());
        for bad in ["", "yesterday", "1960-01-01T00:00:00Z"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}

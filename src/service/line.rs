//! Reading a line of text field by field, with errors that say where, and what would be right there.

use core::fmt;

/// What would be right at a place of a line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Expected {
    /// Seconds after midnight.
    Seconds,
    /// The type of a LOBSTER message.
    EventType,
    /// An order id.
    OrderId,
    /// A size.
    Size,
    /// A price in units of 0.0001.
    Price,
    /// A price in currency units.
    DecimalPrice,
    /// The price field of a halt message.
    HaltPrice,
    /// A direction.
    Direction,
    /// The price of a level.
    LevelPrice,
    /// The size of a level.
    LevelSize,
    /// Four fields per level.
    WholeLevel,
    /// No more levels than one command holds.
    FewerLevels,
    /// What separates fields.
    Comma,
    /// The end of the line.
    End,
    /// What a line starts with.
    Verb,
    /// What a question starts with.
    Question,
    /// A side.
    Side,
    /// This word.
    Word(&'static str),
    /// A flag of a new order, or the end of the line.
    Flag,
    /// A number of levels.
    Levels,
}

impl Expected {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Seconds => "seconds after midnight, as 34200.004241176 (below 18446744073)",
            Self::EventType => "the event type, 1 to 7",
            Self::OrderId => "an order id, 1 to 9223372036854775807",
            Self::Size => "a size, 1 to 4294967295",
            Self::Price => "a price in units of 0.0001, as 5853300 (1 to 9999999998)",
            Self::DecimalPrice => {
                "a price of at most four decimals, as 585.33 (0.0001 to 999999.9998)"
            }
            Self::HaltPrice => "-1 (halted), 0 (quoting) or 1 (trading)",
            Self::Direction => "the direction, 1 (buy) or -1 (sell)",
            Self::LevelPrice => "a level's price in units of 0.0001, or 9999999999 for none",
            Self::LevelSize => "a level's size, 0 to 4294967295",
            Self::WholeLevel => {
                "a whole level: ask price, ask size, bid price, bid size, with commas between"
            }
            Self::FewerLevels => "at most 100 levels",
            Self::Comma => "a comma and the next field",
            Self::End => "the end of the line",
            Self::Verb => "new, cancel, replace, delete, seed, or a LOBSTER message",
            Self::Question => "best, depth or order",
            Self::Side => "buy or sell",
            Self::Word(word) => word,
            Self::Flag => "cancel-on-close, immediate, post-only, or the end of the line",
            Self::Levels => "a number of levels, 1 to 4294967295",
        }
    }
}

/// A line that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LineError {
    /// Which line, from 1.
    pub line: u64,
    /// Which byte of it, from 1: where the field starts that is wrong, or missing.
    pub column: usize,
    /// What would be right there.
    pub expected: Expected,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, expected } = self;
        write!(f, "line {line}, column {column}: expected {}", expected.text())
    }
}

impl core::error::Error for LineError {}

/// A line, and how far it has been read. What is read by one of its functions is only taken if it is what was asked for.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    bytes: &'a [u8],
    at: usize,
    number: u64,
}

impl<'a> Line<'a> {
    /// A line of this number; a line end at its end is no part of it.
    pub(super) fn new(number: u64, bytes: &'a [u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        Self { bytes, at: 0, number }
    }
    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }
    /// The error that something else was expected here.
    pub(super) fn error(&self, expected: Expected) -> LineError {
        LineError { line: self.number, column: self.at + 1, expected }
    }
    /// Skips blanks.
    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.rest().first(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }
    /// Takes the next word and the blanks around it: bytes up to a blank. Empty at the end of the line.
    pub(super) fn word(&mut self) -> &'a [u8] {
        self.skip_blanks();
        let rest = self.rest();
        let length = rest.iter().position(|byte| matches!(byte, b' ' | b'\t'));
        let word = &rest[..length.unwrap_or(rest.len())];
        self.at += word.len();
        self.skip_blanks();
        word
    }
    /// As [`Line::word`], of which `read` makes something, or nothing is taken.
    pub(super) fn word_as<T>(
        &mut self,
        expected: Expected,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T, LineError> {
        self.skip_blanks();
        let start = self.clone();
        read(self.word()).ok_or_else(|| start.error(expected))
    }
    /// Takes a field that ends at a comma (which is taken too, and must be there unless `last`) or at the line's end.
    pub(super) fn field_as<T>(
        &mut self,
        expected: Expected,
        last: bool,
        read: impl FnOnce(&'a [u8]) -> Option<T>,
    ) -> Result<T, LineError> {
        let rest = self.rest();
        let comma = rest.iter().position(|&byte| byte == b',');
        let field = &rest[..comma.unwrap_or(rest.len())];
        let value = read(field).ok_or_else(|| self.error(expected))?;
        self.at += field.len();
        match (comma, last) {
            (Some(_), false) => self.at += 1,
            (None, false) => return Err(self.error(Expected::Comma)),
            (Some(_), true) => return Err(self.error(Expected::End)),
            (None, true) => {}
        }
        Ok(value)
    }
    /// Nothing but blanks is left.
    pub(super) fn end(&mut self, expected: Expected) -> Result<(), LineError> {
        self.skip_blanks();
        if self.rest().is_empty() { Ok(()) } else { Err(self.error(expected)) }
    }
}

/// An unsigned number in digits and nothing else.
pub(super) fn number(field: &[u8]) -> Option<u64> {
    if field.is_empty() {
        return None;
    }
    field.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// A decimal number times `10^decimals`, exactly. With more decimals than that it is `None`, unless `cut` says that they
/// are dropped.
pub(super) fn decimal(field: &[u8], decimals: u32, cut: bool) -> Option<u64> {
    let dot = field.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match dot {
        Some(dot) => (&field[..dot], &field[dot + 1..]),
        None => (field, &[][..]),
    };
    if dot.is_some() && !fraction.first().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let kept = fraction.len().min(decimals as usize);
    if kept < fraction.len() && !(cut && fraction.iter().all(u8::is_ascii_digit)) {
        return None;
    }
    let fraction = if kept == 0 { 0 } else { number(&fraction[..kept])? };
    let fraction = fraction.checked_mul(10u64.checked_pow(decimals - kept as u32)?)?;
    number(whole)?.checked_mul(10u64.checked_pow(decimals)?)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, decimals, cut, value) in [
            ("34200.004241176", 9, true, Some(34_200_004_241_176)),
            ("34200.00426064", 9, true, Some(34_200_004_260_640)),
            ("34200.0042606409999", 9, true, Some(34_200_004_260_640)),
            ("34200", 9, true, Some(34_200_000_000_000)),
            ("0.000000001", 9, true, Some(1)),
            ("585.33", 4, false, Some(5_853_300)),
            ("585.33001", 4, false, None),
            ("585.", 4, false, None),
            (".5", 4, false, None),
            ("", 4, false, None),
            ("5e2", 4, false, None),
            ("1.5x", 1, true, None),
            ("18446744073.709551615", 9, true, Some(u64::MAX)),
            ("18446744073.709551616", 9, true, None),
            ("99999999999999999999", 0, true, None),
        ] {
            assert_eq!(decimal(text.as_bytes(), decimals, cut), value, "{text}");
        }
    }
}

//! The book's commands, questions and answers as text.
//!
//! One command per line; blank lines and lines that start with `#` are none. Prices of commands are in currency units.
//!
//! ```text
//! new buy 100 @ 585.33 id 7                       a new order; flags may follow:
//! new sell 50 @ 585.40 id 8 post-only cancel-on-close        (and `immediate`)
//! cancel 30 id 7                                  takes 30 away
//! replace id 7 80 @ 585.35                        another size and price
//! delete id 7
//! 34200.004241176,1,16113575,18,5853300,1         a LOBSTER message, as it is in the file
//! seed 5859400,200,5853300,18,…                   a row of a LOBSTER orderbook file
//! ```
//!
//! Questions: `best`, `depth 5`, `order 7`.

use zerocopy::IntoBytes;

use super::Query;
use super::command::{
    Cancel, Delete, FLAG_CANCEL_ON_CLOSE, FLAG_IMMEDIATE, FLAG_POST_ONLY, New, ORDER_ID_MAX,
    PRICE_MAX, Replace, SeedLevel, Side,
};
use crate::service::line::{Expected, Line, LineError, decimal, number};
use crate::service::lobster::{parse_message, parse_row};

/// Reads a line as a command and appends its bytes to `target`; `false` when the line is blank or a comment. `number` is
/// the line's, for the error.
///
/// # Errors
/// Where the line is wrong, and what would be right. Nothing is appended then.
pub fn encode_command(number: u64, line: &[u8], target: &mut Vec<u8>) -> Result<bool, LineError> {
    let mut words = Line::new(number, line);
    words.skip_blanks();
    match words.rest().first() {
        None | Some(b'#') => return Ok(false),
        Some(b'0'..=b'9') => {
            target.extend_from_slice(parse_message(number, line)?.as_bytes());
            return Ok(true);
        }
        Some(_) => {}
    }
    let verb = words.word_as(Expected::Verb, Verb::read)?;
    match verb {
        Verb::New => target.extend_from_slice(read_new(&mut words)?.as_bytes()),
        Verb::Cancel => {
            let size = words.word_as(Expected::Size, size_of_order)?;
            let order = id_of_order(&mut words)?;
            words.end(Expected::End)?;
            target.extend_from_slice(Cancel::new(order, size).as_bytes());
        }
        Verb::Replace => {
            let order = id_of_order(&mut words)?;
            let size = words.word_as(Expected::Size, size_of_order)?;
            let price = limit(&mut words)?;
            words.end(Expected::End)?;
            target.extend_from_slice(Replace::new(order, size, price).as_bytes());
        }
        Verb::Delete => {
            let order = id_of_order(&mut words)?;
            words.end(Expected::End)?;
            target.extend_from_slice(Delete::new(order).as_bytes());
        }
        Verb::Seed => {
            let mut levels = Vec::new();
            parse_row(words, &mut levels)?;
            SeedLevel::encode(&levels, target);
        }
    }
    Ok(true)
}

/// Reads a line as a question and appends its bytes to `target`.
///
/// # Errors
/// Where the line is wrong, and what would be right.
pub fn encode_query(number: u64, line: &[u8], target: &mut Vec<u8>) -> Result<(), LineError> {
    let mut words = Line::new(number, line);
    let question = words.word_as(Expected::Question, |word| match word {
        b"best" | b"depth" | b"order" => Some(word),
        _ => None,
    })?;
    let query = match question {
        b"best" => Query::depth(1),
        b"depth" => Query::depth(words.word_as(Expected::Levels, size_of_order)?),
        _ => Query::order(words.word_as(Expected::OrderId, order_id)?),
    };
    words.end(Expected::End)?;
    target.extend_from_slice(query.as_bytes());
    Ok(())
}

enum Verb {
    New,
    Cancel,
    Replace,
    Delete,
    Seed,
}

impl Verb {
    fn read(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"new" => Self::New,
            b"cancel" => Self::Cancel,
            b"replace" => Self::Replace,
            b"delete" => Self::Delete,
            b"seed" => Self::Seed,
            _ => return None,
        })
    }
}

fn read_new(words: &mut Line<'_>) -> Result<New, LineError> {
    let side = words.word_as(Expected::Side, |word| match word {
        b"buy" => Some(Side::Buy),
        b"sell" => Some(Side::Sell),
        _ => None,
    })?;
    let size = words.word_as(Expected::Size, size_of_order)?;
    let price = limit(words)?;
    let order = id_of_order(words)?;
    let mut flags = 0;
    while !words.rest().is_empty() {
        flags |= words.word_as(Expected::Flag, |word| match word {
            b"cancel-on-close" => Some(FLAG_CANCEL_ON_CLOSE),
            b"immediate" => Some(FLAG_IMMEDIATE),
            b"post-only" => Some(FLAG_POST_ONLY),
            _ => None,
        })?;
    }
    Ok(New::order(side, size, price, order, flags))
}

fn limit(words: &mut Line<'_>) -> Result<u64, LineError> {
    words.word_as(Expected::Word("@ and a price"), |word| (word == b"@").then_some(()))?;
    words.word_as(Expected::DecimalPrice, |word| {
        decimal(word, 4, false).filter(|price| (1..=PRICE_MAX).contains(price))
    })
}

fn id_of_order(words: &mut Line<'_>) -> Result<u64, LineError> {
    words.word_as(Expected::Word("id and an order id"), |word| (word == b"id").then_some(()))?;
    words.word_as(Expected::OrderId, order_id)
}

fn order_id(word: &[u8]) -> Option<u64> {
    number(word).filter(|id| (1..=ORDER_ID_MAX).contains(id))
}

fn size_of_order(word: &[u8]) -> Option<u32> {
    number(word).and_then(|size| u32::try_from(size).ok()).filter(|&size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::super::command::Command;
    use super::*;

    fn encoded(line: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(encode_command(1, line.as_bytes(), &mut bytes), Ok(true), "{line}");
        assert!(Command::parse(&bytes).is_ok(), "{line}");
        bytes
    }

    #[test]
    fn lines_become_commands() {
        let new = New::order(Side::Buy, 100, 5_853_300, 7, 0);
        assert_eq!(encoded("new buy 100 @ 585.33 id 7"), new.as_bytes());
        let flags = FLAG_POST_ONLY | FLAG_CANCEL_ON_CLOSE;
        let new = New::order(Side::Sell, 1, 1, 8, flags);
        assert_eq!(
            encoded("\t new sell 1  @ 0.0001 id 8 post-only cancel-on-close \r\n"),
            new.as_bytes()
        );
        assert_eq!(encoded("cancel 30 id 7"), Cancel::new(7, 30).as_bytes());
        assert_eq!(encoded("replace id 7 80 @ 585.35"), Replace::new(7, 80, 5_853_500).as_bytes());
        assert_eq!(encoded("delete id 7"), Delete::new(7).as_bytes());
        assert_eq!(encoded("34200.004241176,1,16113575,18,5853300,1").len(), 32);
        assert_eq!(encoded("seed 12,5,10,7").len(), 4 + 2 * 16);
        let mut none = Vec::new();
        for line in ["", "  \n", "# new buy"] {
            assert_eq!(encode_command(1, line.as_bytes(), &mut none), Ok(false));
        }
        assert!(none.is_empty());
    }

    #[test]
    fn errors_say_where_and_what_would_be_right() {
        for (line, message) in [
            (
                "buy 100",
                "column 1: expected new, cancel, replace, delete, seed, or a LOBSTER message",
            ),
            ("new bay 100", "column 5: expected buy or sell"),
            ("new buy -1 @ 5 id 7", "column 9: expected a size, 1 to 4294967295"),
            ("new buy 1 585", "column 11: expected @ and a price"),
            ("new buy 1", "column 10: expected @ and a price"),
            ("new buy 1 @ 5 order 7", "column 15: expected id and an order id"),
            (
                "new buy 1 @ 5 id 7 soon",
                "column 20: expected cancel-on-close, immediate, post-only, or the end of the line",
            ),
            ("delete id 7 now", "column 13: expected the end of the line"),
            ("34200.1,1", "column 10: expected a comma and the next field"),
        ] {
            let mut bytes = Vec::new();
            let error = encode_command(4, line.as_bytes(), &mut bytes).expect_err(line);
            assert_eq!(error.to_string(), format!("line 4, {message}"));
            assert!(bytes.is_empty());
        }
    }

    #[test]
    fn questions_become_queries() {
        for (line, query) in
            [("best", Query::depth(1)), ("depth 5", Query::depth(5)), ("order 7", Query::order(7))]
        {
            let mut bytes = Vec::new();
            assert_eq!(encode_query(1, line.as_bytes(), &mut bytes), Ok(()));
            assert_eq!(bytes, query.as_bytes());
        }
        let error = encode_query(1, b"worst", &mut Vec::new()).expect_err("no question");
        assert_eq!(error.expected, Expected::Question);
    }
}

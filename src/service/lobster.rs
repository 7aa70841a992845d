//! LOBSTER files: what happened on NASDAQ, one event per line, and the book after it.
//!
//! A *message* line is `seconds,type,order id,size,price,direction`; the seconds after midnight have as many decimals as the
//! file gives (digits below the nanosecond are dropped). A line of an *orderbook* file is, level by level,
//! `ask price,ask size,bid price,bid size`; a level that does not exist has the price 9999999999 or -9999999999. Prices are
//! in units of 0.0001.
//!
//! ```
//! use quorate::service::lobster::parse_message;
//! let message = parse_message(1, b"34200.25,1,7,100,5853300,-1").expect("a message");
//! assert_eq!((message.time_ns.get(), message.price.get()), (34_200_250_000_000, 5_853_300));
//! let error = parse_message(3, b"34200.25,9,7,100,5853300,-1").expect_err("no such type");
//! assert_eq!(error.to_string(), "line 3, column 10: expected the event type, 1 to 7");
//! ```

use zerocopy::little_endian::{I64, U32, U64};

use super::book::Side;
use super::book::command::{
    CommandKind, Lobster, ORDER_ID_MAX, PRICE_MAX, SEED_LEVELS_MAX, SeedLevel,
};
use super::line::{Expected, Line, LineError, decimal, number};

/// The price of a level that does not exist; with a minus sign on the bid side.
const NO_LEVEL: u64 = 9_999_999_999;

/// Reads one line of a message file as a command of the book. `line` is its number, for the error.
///
/// # Errors
/// Where the line is wrong, and what would be right.
pub fn parse_message(line: u64, bytes: &[u8]) -> Result<Lobster, LineError> {
    let mut line = Line::new(line, bytes);
    let time_ns = line.field_as(Expected::Seconds, false, |field| decimal(field, 9, true))?;
    let event = line.field_as(Expected::EventType, false, |field| {
        number(field).filter(|event| (1..=7).contains(event))
    })? as u8;
    let orders = event <= 4;
    let order = line.field_as(Expected::OrderId, false, |field| match field {
        b"-1" if !orders => Some(0),
        _ => number(field).filter(|&id| id <= ORDER_ID_MAX && (id > 0 || !orders)),
    })?;
    let size = line.field_as(Expected::Size, false, |field| {
        let size = number(field).and_then(|size| u32::try_from(size).ok());
        size.filter(|&size| size > 0 || !orders)
    })?;
    let price_kind = if event == 7 { Expected::HaltPrice } else { Expected::Price };
    let price = line.field_as(price_kind, false, |field| match (event, field) {
        (7, b"-1") => Some(-1),
        (7, _) => number(field).filter(|&price| price <= 1).map(u64::cast_signed),
        _ => number(field).filter(|price| (1..=PRICE_MAX).contains(price)).map(u64::cast_signed),
    })?;
    let direction = line.field_as(Expected::Direction, true, |field| match field {
        b"1" => Some(1),
        b"-1" => Some(-1),
        _ => None,
    })?;
    Ok(Lobster {
        kind: CommandKind::Lobster as u8,
        event,
        direction,
        reserved: 0,
        size: U32::new(size),
        time_ns: U64::new(time_ns),
        order: U64::new(order),
        price: I64::new(price),
    })
}

/// Reads one line of an orderbook file: the levels that exist, best first, bids and asks by turns, appended to `levels`.
///
/// # Errors
/// Where the line is wrong, and what would be right.
pub fn parse_book_row(
    line: u64,
    bytes: &[u8],
    levels: &mut Vec<SeedLevel>,
) -> Result<(), LineError> {
    parse_row(Line::new(line, bytes), levels)
}

/// As [`parse_book_row`], for what is left of a line.
pub(super) fn parse_row(mut line: Line<'_>, levels: &mut Vec<SeedLevel>) -> Result<(), LineError> {
    let first = levels.len();
    loop {
        for side in [Side::Sell, Side::Buy] {
            if levels.len() - first == SEED_LEVELS_MAX {
                return Err(line.error(Expected::FewerLevels));
            }
            let price =
                line.field_as(Expected::LevelPrice, false, |field| level_price(field, side));
            let price = price.map_err(whole_level)?;
            let ends = side == Side::Buy && !line.rest().contains(&b',');
            let size = line.field_as(Expected::LevelSize, ends, |field| {
                let size = number(field).and_then(|size| u32::try_from(size).ok());
                size.filter(|&size| size > 0 || price == NO_LEVEL)
            });
            let size = size.map_err(whole_level)?;
            if price != NO_LEVEL {
                levels.push(SeedLevel::new(side, price, size));
            }
            if ends {
                return Ok(());
            }
        }
    }
}

/// Writes a message as the line it was read from, but for the zeros at the end of its decimals.
///
/// # Errors
/// The writer's.
pub fn write_message(message: &Lobster, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    let nanoseconds = message.time_ns.get();
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    write!(out, "{seconds}")?;
    if fraction > 0 {
        let digits = 9 - (0..9).take_while(|&n| fraction.is_multiple_of(10u64.pow(n + 1))).count();
        let shown = fraction / 10u64.pow(9 - digits as u32);
        write!(out, ".{shown:0digits$}")?;
    }
    let Lobster { event, order, size, price, direction, .. } = message;
    write!(out, ",{event},{order},{size},{price},{direction}")
}

fn level_price(field: &[u8], side: Side) -> Option<u64> {
    match (side, field) {
        (Side::Buy, b"-9999999999") => Some(NO_LEVEL),
        (Side::Sell, _) if number(field) == Some(NO_LEVEL) => Some(NO_LEVEL),
        _ => number(field).filter(|price| (1..=PRICE_MAX).contains(price)),
    }
}

/// A row that ends within a level lacks more than a comma.
fn whole_level(error: LineError) -> LineError {
    match error.expected {
        Expected::Comma => LineError { expected: Expected::WholeLevel, ..error },
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_read_exactly() {
        let message = parse_message(1, b"34200.00426064,2,16113584,18,5853200,-1\r\n").expect("ok");
        assert_eq!((message.event, message.direction), (2, -1));
        assert_eq!(message.time_ns.get(), 34_200_004_260_640);
        assert_eq!((message.order.get(), message.size.get()), (16_113_584, 18));
        assert_eq!(message.price.get(), 5_853_200);
        let halt = parse_message(1, b"36000,7,0,0,-1,-1").expect("ok");
        assert_eq!((halt.event, halt.price.get()), (7, -1));
        assert!(parse_message(1, b"36000,6,-1,500,5853200,-1").is_ok());
    }

    #[test]
    fn errors_say_where_and_what_would_be_right() {
        for (line, column, expected) in [
            ("", 1, Expected::Seconds),
            ("34200.x,1,1,1,1,1", 1, Expected::Seconds),
            ("34200", 6, Expected::Comma),
            ("34200,0,1,1,1,1", 7, Expected::EventType),
            ("34200,1,0,1,1,1", 9, Expected::OrderId),
            ("34200,1,9223372036854775808,1,1,1", 9, Expected::OrderId),
            ("34200,1,1,0,1,1", 11, Expected::Size),
            ("34200,1,1,4294967296,1,1", 11, Expected::Size),
            ("34200,1,1,1,-1,1", 13, Expected::Price),
            ("34200,1,1,1,9999999999,1", 13, Expected::Price),
            ("34200,7,1,1,2,1", 13, Expected::HaltPrice),
            ("34200,1,1,1,1,2", 15, Expected::Direction),
            ("34200,1,1,1,1", 14, Expected::Comma),
            ("34200,1,1,1,1,1,1", 16, Expected::End),
            ("34200,1, 1,1,1,1", 9, Expected::OrderId),
        ] {
            let error = LineError { line: 7, column, expected };
            assert_eq!(parse_message(7, line.as_bytes()), Err(error), "{line}");
        }
    }

    #[test]
    fn a_row_gives_the_levels_that_exist() {
        let mut levels = Vec::new();
        parse_book_row(1, b"12,5,10,7,9999999999,0,9,1\n", &mut levels).expect("ok");
        let expected = [
            SeedLevel::new(Side::Sell, 12, 5),
            SeedLevel::new(Side::Buy, 10, 7),
            SeedLevel::new(Side::Buy, 9, 1),
        ];
        assert_eq!(levels, expected);
        for (row, column, expected) in [
            ("12,5,10", 8, Expected::WholeLevel),
            ("12,5", 5, Expected::WholeLevel),
            ("12,5,10,7,", 11, Expected::LevelPrice),
            ("12,5,10,0", 9, Expected::LevelSize),
            ("12,5,-9999999998,0", 6, Expected::LevelPrice),
        ] {
            let error = LineError { line: 2, column, expected };
            assert_eq!(parse_book_row(2, row.as_bytes(), &mut Vec::new()), Err(error), "{row}");
        }
        let row = ["12,5,10,7"; 101].join(",");
        let error = parse_book_row(1, row.as_bytes(), &mut Vec::new()).expect_err("too many");
        assert_eq!(error.expected, Expected::FewerLevels);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_alike(
            time_ns: u64, event in 1u8..=4, order in 1..=ORDER_ID_MAX, size in 1u32..,
            price in 1..=PRICE_MAX, buy: bool,
        ) {
            let message = Lobster {
                kind: CommandKind::Lobster as u8,
                event,
                direction: if buy { 1 } else { -1 },
                reserved: 0,
                size: U32::new(size),
                time_ns: U64::new(time_ns),
                order: U64::new(order),
                price: I64::new(price.cast_signed()),
            };
            let mut line = String::new();
            write_message(&message, &mut line).expect("a string takes it");
            prop_assert_eq!(parse_message(1, line.as_bytes()), Ok(message), "{}", line);
        }

        #[test]
        fn nothing_panics(
            bytes in prop::collection::vec(
                prop_oneof![Just(b','), Just(b'-'), Just(b'.'), b'0'..=b'9', any::<u8>()],
                0..60,
            ),
        ) {
            let _ = parse_message(1, &bytes);
            let _ = parse_book_row(1, &bytes, &mut Vec::new());
        }
    }
}

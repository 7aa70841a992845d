//! What the book answers: a chain of records, each starting with a byte that says which.
//!
//! An order that matches gets a [`Fill`] per order it met, in the order of the matches, then one [`Placed`].

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::command::wire;

/// What the first byte of a record says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ReportKind {
    /// [`Fill`].
    Fill = 1,
    /// [`Placed`].
    Placed = 2,
    /// [`Reduced`].
    Reduced = 3,
    /// [`Noted`].
    Noted = 4,
    /// [`Depth`], behind it its [`DepthLevel`]s.
    Depth = 5,
    /// [`OrderState`].
    Order = 6,
}

/// [`Placed::end`]: what was left of it rests in the book.
pub const END_RESTS: u8 = 1;
/// [`Placed::end`]: it was filled.
pub const END_FILLED: u8 = 2;
/// [`Placed::end`]: what was left of it was cancelled.
pub const END_CANCELLED: u8 = 3;

wire! {
    /// The order met one that rested.
    Fill = 32 {
        /// [`ReportKind::Fill`].
        kind: u8,
        /// Reserved, 0.
        reserved: [u8; 3],
        /// Size of the match.
        size: U32,
        /// Price of the match: the resting order's.
        price: U64,
        /// The resting order.
        maker: U64,
        /// Size that the resting order has left.
        maker_left: U32,
        /// Reserved, 0.
        reserved_2: U32,
    }
    /// What became of a new or replaced order.
    Placed = 24 {
        /// [`ReportKind::Placed`].
        kind: u8,
        /// [`END_RESTS`], [`END_FILLED`] or [`END_CANCELLED`].
        end: u8,
        /// Reserved, 0.
        reserved: [u8; 2],
        /// Size that rests now.
        resting: U32,
        /// Size that was filled.
        filled: U32,
        /// [`Fill`]s in front of this record.
        fills: U32,
        /// The order.
        order: U64,
    }
    /// An order has less size now.
    Reduced = 24 {
        /// [`ReportKind::Reduced`].
        kind: u8,
        /// Reserved, 0.
        reserved: [u8; 3],
        /// Size that rests now; 0: the order is gone.
        resting: U32,
        /// Size that was taken away.
        taken: U32,
        /// Reserved, 0.
        reserved_2: U32,
        /// The order: for one that a seeded level stands for, the level's.
        order: U64,
    }
    /// Taken note of; no order changed, or (a seed) as many were added.
    Noted = 8 {
        /// [`ReportKind::Noted`].
        kind: u8,
        /// Trading state from now on: 0 trading, 1 quoting only, 2 halted.
        trading: u8,
        /// Reserved, 0.
        reserved: [u8; 2],
        /// Orders added.
        added: U32,
    }
    /// The best levels of both sides.
    Depth = 16 {
        /// [`ReportKind::Depth`].
        kind: u8,
        /// Trading state: 0 trading, 1 quoting only, 2 halted.
        trading: u8,
        /// Reserved, 0.
        reserved: [u8; 2],
        /// Levels of bids that follow, best first.
        bids: U32,
        /// Levels of asks that follow behind them, best first.
        asks: U32,
        /// Reserved, 0.
        reserved_2: U32,
    }
    /// One level.
    DepthLevel = 24 {
        /// Price.
        price: U64,
        /// Size of all its orders.
        size: U64,
        /// How many they are.
        orders: U32,
        /// Reserved, 0.
        reserved: U32,
    }
    /// One order.
    OrderState = 40 {
        /// [`ReportKind::Order`].
        kind: u8,
        /// [`super::Side`].
        side: u8,
        /// Flags it was placed with.
        flags: u8,
        /// Reserved, 0.
        reserved: u8,
        /// Size it has left.
        size: U32,
        /// Limit.
        price: U64,
        /// Its id.
        order: U64,
        /// The session it belongs to; 0: none that is open.
        owner: U64,
        /// Orders in front of it at its price.
        ahead: U64,
    }
}

/// A record, seen in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report<'a> {
    /// [`Fill`].
    Fill(&'a Fill),
    /// [`Placed`].
    Placed(&'a Placed),
    /// [`Reduced`].
    Reduced(&'a Reduced),
    /// [`Noted`].
    Noted(&'a Noted),
    /// [`Depth`] with its bids and its asks.
    Depth(&'a Depth, &'a [DepthLevel], &'a [DepthLevel]),
    /// [`OrderState`].
    Order(&'a OrderState),
}

/// Bytes that are no records of the book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedReport;

/// The records of a reply, one after the other; an error is the last item.
pub fn reports(mut bytes: &[u8]) -> impl Iterator<Item = Result<Report<'_>, MalformedReport>> {
    core::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let next = split(bytes);
        bytes = next.map_or(&[], |(_, rest)| rest);
        Some(next.map(|(report, _)| report).ok_or(MalformedReport))
    })
}

fn split(bytes: &[u8]) -> Option<(Report<'_>, &[u8])> {
    Some(match bytes.first()? {
        1 => front(bytes, Report::Fill)?,
        2 => front(bytes, Report::Placed)?,
        3 => front(bytes, Report::Reduced)?,
        4 => front(bytes, Report::Noted)?,
        5 => {
            let (depth, rest) = Depth::ref_from_prefix(bytes).ok()?;
            let levels = |rest, count: U32| {
                <[DepthLevel]>::ref_from_prefix_with_elems(rest, count.get() as usize).ok()
            };
            let (bids, rest) = levels(rest, depth.bids)?;
            let (asks, rest) = levels(rest, depth.asks)?;
            (Report::Depth(depth, bids, asks), rest)
        }
        6 => front(bytes, Report::Order)?,
        _ => return None,
    })
}

fn front<'a, T: FromBytes + KnownLayout + Immutable + Unaligned + 'a>(
    bytes: &'a [u8],
    report: impl Fn(&'a T) -> Report<'a>,
) -> Option<(Report<'a>, &'a [u8])> {
    let (record, rest) = T::ref_from_prefix(bytes).ok()?;
    Some((report(record), rest))
}

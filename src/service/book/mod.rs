//! `book`: a price-time limit order book, the reference service.
//!
//! # What it does
//!
//! * A **new** order matches what it crosses, best price first and first come first at a price, at the price of the order
//!   that rests; what is left of it rests. **Cancel** takes part of an order away, **delete** all of it, **replace** gives it
//!   another size and price. The reply says what was met and what rests ([`report`]).
//! * Order ids are drawn by the client and are unique in the whole book. An order belongs to the session that placed it:
//!   other sessions cannot change it while that one is open. When it closes, its orders are deleted if they were placed with
//!   [`FLAG_CANCEL_ON_CLOSE`], and belong to nobody from then on if not. Nothing stops a
//!   session from trading with itself.
//! * A **LOBSTER message** is something that happened on an exchange: it is taken as a fact and matches nothing. Its orders
//!   belong to nobody. Messages 1 to 4 change orders; 5 (hidden execution) and 6 (cross trade) change none; 7 halts trading
//!   (new and replaced orders are rejected), lets quoting go on (they are rejected only if they would match), or trading.
//! * A **seed** sets up levels as they stand elsewhere. Each becomes one order, in front of whatever comes later, which stands
//!   for all orders of that level. A LOBSTER message about an order that the book never saw is taken to be about the
//!   seeded order of its side and price: its size is what the seeded order loses. Without one, or with one that has less
//!   than that, the message is rejected as [`UNKNOWN_ORDER`].
//!
//! # Bounds
//!
//! Everything is allocated at construction. A full book, or a command that changes more orders than can be undone, is a
//! rejection; [`BookLimits`] are constants of the group, so it is one on every node. So is an order of a session that has
//! as many as one may have: closing it changes them all in one step of the core.

pub mod command;
pub mod describe;
pub mod report;
mod rules;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
pub mod text;

use std::io::{self, Read, Write};

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

pub use command::Side;
use command::{FLAG_CANCEL_ON_CLOSE, MALFORMED, UNKNOWN_ORDER, wire};
use report::{Depth, DepthLevel, OrderState, ReportKind};
use store::Store;

use super::{CloseReason, Context, Rejection, Reply, Service};

/// Bounds of a book. Constants of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BookLimits {
    /// Orders that rest at once.
    pub orders_max: usize,
    /// Price levels of one side.
    pub levels_max: usize,
    /// Orders that one unit (a command, or a whole batch) changes.
    pub changes_max: usize,
    /// Orders of one session that rest at once. All of them leave the session, or the book, in the one step that closes it,
    /// so this bounds how long that step takes. A client that needs more opens another session.
    pub session_orders_max: usize,
}

impl Default for BookLimits {
    fn default() -> Self {
        Self {
            orders_max: 1 << 17,
            levels_max: 1 << 12,
            changes_max: 1 << 16,
            session_orders_max: 1 << 12,
        }
    }
}

/// The order book.
#[derive(Clone, Debug)]
pub struct Book {
    store: Store,
}

/// A price level, as it is seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LevelView {
    /// Price.
    pub price: u64,
    /// Size of all its orders.
    pub size: u64,
    /// How many they are.
    pub orders: u32,
}

/// An order, as it is seen from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderView {
    /// Its id.
    pub order: u64,
    /// Session it belongs to; 0: none that is open.
    pub owner: u64,
    /// Its side.
    pub side: Side,
    /// Limit.
    pub price: u64,
    /// Size it has left.
    pub size: u32,
}

/// [`Query::kind`]: the best `levels` levels of both sides; the answer is a [`Depth`].
pub const QUERY_DEPTH: u8 = 1;
/// [`Query::kind`]: one order; the answer is an [`OrderState`].
pub const QUERY_ORDER: u8 = 2;

wire! {
    /// A question to the book.
    Query = 16 {
        /// [`QUERY_DEPTH`] or [`QUERY_ORDER`].
        kind: u8,
        /// Reserved, 0.
        reserved: [u8; 3],
        /// Levels per side.
        levels: U32,
        /// Which order.
        order: U64,
    }
}

impl Query {
    /// Asks for the best `levels` levels; 1 asks for the best bid and ask.
    #[must_use]
    pub fn depth(levels: u32) -> Self {
        Self { kind: QUERY_DEPTH, reserved: [0; 3], levels: U32::new(levels), order: U64::new(0) }
    }
    /// Asks for one order.
    #[must_use]
    pub fn order(order: u64) -> Self {
        Self { kind: QUERY_ORDER, reserved: [0; 3], levels: U32::new(0), order: U64::new(order) }
    }
}

impl Book {
    /// An empty book. Panics when a limit is 0 or does not fit in 31 bits: configurations are checked before.
    #[must_use]
    pub fn new(limits: BookLimits) -> Self {
        let BookLimits { orders_max, levels_max, changes_max, session_orders_max } = limits;
        let range = 1..1usize << 31;
        assert!(range.contains(&orders_max) && range.contains(&(2 * levels_max)), "book limits");
        assert!(range.contains(&changes_max), "book limits");
        assert!(range.contains(&session_orders_max), "book limits");
        Self { store: Store::new(limits) }
    }
    /// The best level of a side.
    #[must_use]
    pub fn best(&self, side: Side) -> Option<LevelView> {
        self.levels(side).next()
    }
    /// The levels of a side, best first.
    #[must_use]
    pub fn levels(&self, side: Side) -> impl ExactSizeIterator<Item = LevelView> {
        self.store.levels(side).map(|level| LevelView {
            price: level.price,
            size: level.total,
            orders: level.count,
        })
    }
    /// The orders of a side in the order in which they would be met.
    pub fn orders(&self, side: Side) -> impl Iterator<Item = OrderView> {
        self.store.levels(side).flat_map(|level| self.store.queue(level)).map(view)
    }
    /// One order.
    #[must_use]
    pub fn order(&self, order: u64) -> Option<OrderView> {
        self.store.find(order).map(|slot| view(self.store.order(slot)))
    }
    /// Orders that rest.
    #[must_use]
    pub fn order_count(&self) -> usize {
        self.store.count()
    }
    /// Matches and reported executions so far, and the size of all of them.
    #[must_use]
    pub fn traded(&self) -> (u64, u64) {
        (self.store.scalars.trades, self.store.scalars.volume)
    }
}

impl Service for Book {
    fn name(&self) -> &'static str {
        "book"
    }
    fn begin(&mut self) {
        self.store.begin();
    }
    fn keep(&mut self) {
        self.store.keep();
    }
    fn roll_back(&mut self) {
        self.store.roll_back();
    }
    fn apply(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        rules::apply(&mut self.store, context.session.0, command, reply)
    }
    /// Answers a [`Query`].
    fn query(&self, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        let query = Query::ref_from_bytes(request).map_err(|_| MALFORMED)?;
        match query.kind {
            QUERY_DEPTH => self.write_depth(query.levels.get() as usize, reply),
            QUERY_ORDER => self.write_order(query.order.get(), reply),
            _ => Err(MALFORMED),
        }
    }
    /// At most [`BookLimits::session_orders_max`] steps.
    fn session_closed(&mut self, context: &Context<'_>, _why: CloseReason) {
        while let Some(slot) = self.store.first_of(context.session.0) {
            if self.store.order(slot).flags & FLAG_CANCEL_ON_CLOSE == 0 {
                self.store.disown(slot);
            } else {
                self.store.unlink(slot).expect("nothing bounds it outside of a unit");
            }
        }
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        snapshot::write(&self.store, writer)
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        snapshot::read(&mut self.store, reader)
    }
    fn state_hash(&self) -> u64 {
        self.store.hash()
    }
}

impl Book {
    fn write_depth(&self, levels: usize, reply: &mut Reply<'_>) -> Result<(), Rejection> {
        let count = |side| self.levels(side).len().min(levels) as u32;
        let head = Depth {
            kind: ReportKind::Depth as u8,
            trading: self.store.scalars.trading,
            reserved: [0; 2],
            bids: U32::new(count(Side::Buy)),
            asks: U32::new(count(Side::Sell)),
            reserved_2: U32::new(0),
        };
        reply.write(head.as_bytes())?;
        for side in [Side::Buy, Side::Sell] {
            for level in self.levels(side).take(levels) {
                let record = DepthLevel {
                    price: U64::new(level.price),
                    size: U64::new(level.size),
                    orders: U32::new(level.orders),
                    reserved: U32::new(0),
                };
                reply.write(record.as_bytes())?;
            }
        }
        Ok(())
    }
    fn write_order(&self, order: u64, reply: &mut Reply<'_>) -> Result<(), Rejection> {
        let slot = self.store.find(order).ok_or(UNKNOWN_ORDER)?;
        let order = self.store.order(slot);
        let record = OrderState {
            kind: ReportKind::Order as u8,
            side: order.side as u8,
            flags: order.flags,
            reserved: 0,
            size: U32::new(order.size),
            price: U64::new(order.price),
            order: U64::new(order.id),
            owner: U64::new(order.owner),
            ahead: U64::new(self.store.ahead_of(slot) as u64),
        };
        reply.write(record.as_bytes())
    }
}

fn view(order: &store::Order) -> OrderView {
    let store::Order { id, owner, side, price, size, .. } = *order;
    OrderView { order: id, owner, side, price, size }
}

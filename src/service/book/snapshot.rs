//! The book in a snapshot. Orders stand in the order in which they would be met, bids first, so equal books have equal
//! snapshots. Numbers are little-endian `u64`s:
//!
//! ```text
//! "QBOK" | version u32 | orders_max | levels_max | changes_max | session_orders_max
//! next arrival | trades | volume | last price | trading | orders
//! per order: id | owner | arrival | price | size, flags << 32, side << 40
//! state hash
//! ```

use std::io::{self, Read, Write};

use super::command::{FLAGS, ORDER_ID_MAX, PRICE_MAX, SESSION_ORDERS_FULL, Side};
use super::rules::{STOPPED, seed_id};
use super::store::{FLAG_SEEDED, Order, Scalars, Store};
use crate::service::image::{
    ImageError, read_limit, read_start, read_words, require, write_start, write_words,
};

const MAGIC: [u8; 4] = *b"QBOK";
const VERSION: u32 = 2;

/// Writes the book.
pub(super) fn write(store: &Store, writer: &mut dyn Write) -> io::Result<()> {
    write_start(writer, MAGIC, VERSION)?;
    for (_, limit) in limits(store) {
        write_words(writer, &[limit])?;
    }
    let Scalars { next_arrival, trades, volume, last_price, trading } = store.scalars;
    let count = store.count() as u64;
    write_words(writer, &[next_arrival, trades, volume, last_price, u64::from(trading), count])?;
    for side in [Side::Buy, Side::Sell] {
        for order in store.levels(side).flat_map(|level| store.queue(level)) {
            let Order { id, owner, arrival, price, size, flags, side, .. } = *order;
            let packed = u64::from(size) | u64::from(flags) << 32 | (side as u64) << 40;
            write_words(writer, &[id, owner, arrival, price, packed])?;
        }
    }
    write_words(writer, &[store.hash()])
}

/// Replaces the book. After an error it is empty.
pub(super) fn read(store: &mut Store, reader: &mut dyn Read) -> io::Result<()> {
    store.clear();
    read_into(store, reader).inspect_err(|_| store.clear())
}

fn read_into(store: &mut Store, reader: &mut dyn Read) -> io::Result<()> {
    read_start(reader, MAGIC, VERSION)?;
    for (name, limit) in limits(store) {
        read_limit(reader, name, limit)?;
    }
    let [next_arrival, trades, volume, last_price, trading, count] = read_words(reader)?;
    require(trading <= u64::from(STOPPED), "trading state", trading)?;
    require(count <= store.limits().orders_max as u64, "order count", count)?;
    let trading = trading as u8;
    store.scalars = Scalars { next_arrival, trades, volume, last_price, trading };
    for _ in 0..count {
        let order = read_order(store, reader)?;
        let linked = store.link_restored(order);
        linked.map_err(|why| match why {
            SESSION_ORDERS_FULL => ImageError::Field { name: "order owner", found: order.owner },
            _ => ImageError::Field { name: "price levels", found: order.price },
        })?;
    }
    let crossed = match (store.best(Side::Buy), store.best(Side::Sell)) {
        (Some(bid), Some(ask)) => bid.price >= ask.price,
        _ => false,
    };
    require(!crossed, "crossed book of orders", count)?;
    let [found] = read_words(reader)?;
    let computed = store.hash();
    if found == computed { Ok(()) } else { Err(ImageError::Hash { found, computed }.into()) }
}

fn read_order(store: &Store, reader: &mut dyn Read) -> io::Result<Order> {
    let [id, owner, arrival, price, packed] = read_words(reader)?;
    let (size, flags, side) = (packed as u32, (packed >> 32) as u8, packed >> 40);
    let side = u8::try_from(side).ok().and_then(Side::from_u8);
    let side = side.ok_or(ImageError::Field { name: "order side", found: packed })?;
    require((1..=PRICE_MAX).contains(&price), "order price", price)?;
    require(size > 0, "order size", packed)?;
    let id_fits = match flags {
        FLAG_SEEDED => id == seed_id(side, price) && owner == 0,
        _ => (1..=ORDER_ID_MAX).contains(&id) && flags & !FLAGS == 0,
    };
    require(id_fits && store.find(id).is_none(), "order id", id)?;
    require(arrival < store.scalars.next_arrival, "order arrival", arrival)?;
    // Later orders of a price have come later: the queue's order is restored, and nothing else passes for it.
    let before = store.last_at(side, price);
    require(before.is_none_or(|before| before.arrival < arrival), "order arrival", arrival)?;
    let mut order = Order::new(id, owner, side, price, size, flags);
    order.arrival = arrival;
    Ok(order)
}

fn limits(store: &Store) -> [(&'static str, u64); 4] {
    let limits = store.limits();
    [
        ("orders_max", limits.orders_max as u64),
        ("levels_max", limits.levels_max as u64),
        ("changes_max", limits.changes_max as u64),
        ("session_orders_max", limits.session_orders_max as u64),
    ]
}

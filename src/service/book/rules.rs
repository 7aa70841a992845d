//! What each command does to the store.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::command::{
    BAD_FLAGS, BAD_ORDER_ID, BAD_PRICE, BAD_SIDE, BAD_SIZE, Cancel, Command, FLAG_IMMEDIATE,
    FLAG_POST_ONLY, FLAGS, HALTED, Lobster, MALFORMED, MISMATCH, NOT_OWNER, New, ORDER_EXISTS,
    ORDER_ID_MAX, PRICE_MAX, Replace, SeedLevel, Side, UNKNOWN_ORDER, WOULD_CROSS,
};
use super::report::{
    END_CANCELLED, END_FILLED, END_RESTS, Fill, Noted, Placed, Reduced, ReportKind,
};
use super::store::{FLAG_SEEDED, Order, Store};
use crate::service::{Rejection, Reply};

/// Trading states.
pub(super) const TRADING: u8 = 0;
pub(super) const QUOTING: u8 = 1;
pub(super) const STOPPED: u8 = 2;

/// Applies one command of `session`.
pub(super) fn apply(
    store: &mut Store,
    session: u64,
    command: &[u8],
    reply: &mut Reply<'_>,
) -> Result<(), Rejection> {
    match Command::parse(command)? {
        Command::New(new) => place_new(store, session, new, reply),
        Command::Cancel(cancel) => cancel_part(store, session, cancel, reply),
        Command::Replace(replace) => change(store, session, replace, reply),
        Command::Delete(delete) => {
            let slot = find_own(store, session, delete.order.get())?;
            take(store, slot, store.order(slot).size, reply)
        }
        Command::Lobster(message) => take_message(store, session, message, reply),
        Command::Seed(levels) => seed(store, levels, reply),
    }
}

/// The id of the order that stands for a seeded level: above those of clients.
pub(super) const fn seed_id(side: Side, price: u64) -> u64 {
    (1 << 63) | ((side as u64 - 1) << 62) | price
}

fn place_new(
    store: &mut Store,
    session: u64,
    new: &New,
    reply: &mut Reply<'_>,
) -> Result<(), Rejection> {
    let side = Side::from_u8(new.side).ok_or(BAD_SIDE)?;
    let id = check_new_id(store, new.order.get())?;
    let (price, size) = (check_price(new.price.get())?, check_size(new.size.get())?);
    let contradicts = new.flags & FLAG_IMMEDIATE != 0 && new.flags & FLAG_POST_ONLY != 0;
    if new.flags & !FLAGS != 0 || contradicts {
        return Err(BAD_FLAGS);
    }
    enter(store, Order::new(id, session, side, price, size, new.flags), reply)
}

fn cancel_part(
    store: &mut Store,
    session: u64,
    cancel: &Cancel,
    reply: &mut Reply<'_>,
) -> Result<(), Rejection> {
    let slot = find_own(store, session, cancel.order.get())?;
    take(store, slot, cancel.size.get(), reply)
}

fn change(
    store: &mut Store,
    session: u64,
    replace: &Replace,
    reply: &mut Reply<'_>,
) -> Result<(), Rejection> {
    let slot = find_own(store, session, replace.order.get())?;
    let (price, size) = (check_price(replace.price.get())?, check_size(replace.size.get())?);
    let before = *store.order(slot);
    if price == before.price && size <= before.size {
        if size < before.size {
            store.resize(slot, size)?;
        }
        return placed(reply, before.id, END_RESTS, size, (0, 0));
    }
    store.unlink(slot)?;
    enter(store, Order::new(before.id, session, before.side, price, size, before.flags), reply)
}

/// Matches an order that is not in the book, and lets rest what is left of it.
fn enter(store: &mut Store, order: Order, reply: &mut Reply<'_>) -> Result<(), Rejection> {
    let crossing = crosses(store, order.side, order.price);
    let trading = store.scalars.trading;
    if trading == STOPPED || (trading == QUOTING && crossing) {
        return Err(HALTED);
    }
    if crossing && order.flags & FLAG_POST_ONLY != 0 {
        return Err(WOULD_CROSS);
    }
    let Order { id, side, price, size, flags, .. } = order;
    let (left, fills) = if crossing { meet(store, side, price, size, reply)? } else { (size, 0) };
    let end = match left {
        0 => END_FILLED,
        _ if flags & FLAG_IMMEDIATE != 0 => END_CANCELLED,
        _ => END_RESTS,
    };
    let resting = if end == END_RESTS { left } else { 0 };
    if resting > 0 {
        let mut rest = order;
        rest.size = left;
        store.link(rest)?;
    }
    placed(reply, id, end, resting, (size - left, fills))
}

/// Matches up to `size` against the other side, as far as `price` allows: the size left, and how many orders were met.
fn meet(
    store: &mut Store,
    side: Side,
    price: u64,
    size: u32,
    reply: &mut Reply<'_>,
) -> Result<(u32, u32), Rejection> {
    let (mut left, mut fills) = (size, 0);
    while left > 0 && crosses(store, side, price) {
        let Some(best) = store.best(side.opposite()) else { break };
        let slot = best.first;
        let maker = *store.order(slot);
        let matched = left.min(maker.size);
        let maker_left = maker.size - matched;
        let fill = Fill {
            kind: ReportKind::Fill as u8,
            reserved: [0; 3],
            size: U32::new(matched),
            price: U64::new(maker.price),
            maker: U64::new(maker.id),
            maker_left: U32::new(maker_left),
            reserved_2: U32::new(0),
        };
        reply.write(fill.as_bytes())?;
        shrink(store, slot, maker_left)?;
        note_trade(store, maker.price, matched);
        left -= matched;
        fills += 1;
    }
    Ok((left, fills))
}

fn take_message(
    store: &mut Store,
    session: u64,
    message: &Lobster,
    reply: &mut Reply<'_>,
) -> Result<(), Rejection> {
    match message.event {
        1..=4 => {}
        5 | 6 => return noted(store, 0, reply),
        7 => {
            store.scalars.trading = match message.price.get() {
                -1 => STOPPED,
                0 => QUOTING,
                1 => TRADING,
                _ => return Err(BAD_PRICE),
            };
            return noted(store, 0, reply);
        }
        _ => return Err(MALFORMED),
    }
    let side = match message.direction {
        1 => Side::Buy,
        -1 => Side::Sell,
        _ => return Err(BAD_SIDE),
    };
    let price = u64::try_from(message.price.get()).map_err(|_| BAD_PRICE)?;
    let (price, size) = (check_price(price)?, check_size(message.size.get())?);
    if message.event == 1 {
        let id = check_new_id(store, message.order.get())?;
        if crosses(store, side, price) {
            return Err(WOULD_CROSS);
        }
        store.link(Order::new(id, 0, side, price, size, 0))?;
        return placed(reply, id, END_RESTS, size, (0, 0));
    }
    let slot = match find_own(store, session, message.order.get()) {
        Err(UNKNOWN_ORDER) => {
            let seeded = store.find(seed_id(side, price)).ok_or(UNKNOWN_ORDER)?;
            // Part of it is gone already by messages about orders it stands for: this is about another one.
            if store.order(seeded).size < size {
                return Err(UNKNOWN_ORDER);
            }
            seeded
        }
        found => found?,
    };
    let order = *store.order(slot);
    if order.side != side || order.price != price {
        return Err(MISMATCH);
    }
    let deletes_known = message.event == 3 && order.flags & FLAG_SEEDED == 0;
    let taken = if deletes_known { order.size } else { size };
    take(store, slot, taken, reply)?;
    if message.event == 4 {
        note_trade(store, price, taken);
    }
    Ok(())
}

fn seed(store: &mut Store, levels: &[SeedLevel], reply: &mut Reply<'_>) -> Result<(), Rejection> {
    for level in levels {
        let side = Side::from_u8(level.side).ok_or(BAD_SIDE)?;
        let (price, size) = (check_price(level.price.get())?, check_size(level.size.get())?);
        let id = seed_id(side, price);
        if store.find(id).is_some() {
            return Err(ORDER_EXISTS);
        }
        if crosses(store, side, price) {
            return Err(WOULD_CROSS);
        }
        store.link(Order::new(id, 0, side, price, size, FLAG_SEEDED))?;
    }
    noted(store, levels.len() as u32, reply)
}

/// Takes `size` away from an order, or all of it.
fn take(store: &mut Store, slot: u32, size: u32, reply: &mut Reply<'_>) -> Result<(), Rejection> {
    let order = *store.order(slot);
    if size == 0 || size > order.size {
        return Err(BAD_SIZE);
    }
    let resting = order.size - size;
    shrink(store, slot, resting)?;
    let record = Reduced {
        kind: ReportKind::Reduced as u8,
        reserved: [0; 3],
        resting: U32::new(resting),
        taken: U32::new(size),
        reserved_2: U32::new(0),
        order: U64::new(order.id),
    };
    reply.write(record.as_bytes())
}

/// Leaves an order with `size`; with 0 it is gone.
fn shrink(store: &mut Store, slot: u32, size: u32) -> Result<(), Rejection> {
    if size == 0 { store.unlink(slot).map(|_| ()) } else { store.resize(slot, size) }
}

/// The slot of an order that `session` may change.
fn find_own(store: &Store, session: u64, id: u64) -> Result<u32, Rejection> {
    check_id(id)?;
    let slot = store.find(id).ok_or(UNKNOWN_ORDER)?;
    let owner = store.order(slot).owner;
    if owner == 0 || owner == session { Ok(slot) } else { Err(NOT_OWNER) }
}

/// Whether an order of `side` at `price` would match.
fn crosses(store: &Store, side: Side, price: u64) -> bool {
    store.best(side.opposite()).is_some_and(|best| match side {
        Side::Buy => price >= best.price,
        Side::Sell => price <= best.price,
    })
}

fn note_trade(store: &mut Store, price: u64, size: u32) {
    store.scalars.trades = store.scalars.trades.saturating_add(1);
    store.scalars.volume = store.scalars.volume.saturating_add(u64::from(size));
    store.scalars.last_price = price;
}

fn check_new_id(store: &Store, id: u64) -> Result<u64, Rejection> {
    check_id(id)?;
    if store.find(id).is_some() { Err(ORDER_EXISTS) } else { Ok(id) }
}

fn check_id(id: u64) -> Result<(), Rejection> {
    if (1..=ORDER_ID_MAX).contains(&id) { Ok(()) } else { Err(BAD_ORDER_ID) }
}

fn check_price(price: u64) -> Result<u64, Rejection> {
    if (1..=PRICE_MAX).contains(&price) { Ok(price) } else { Err(BAD_PRICE) }
}

fn check_size(size: u32) -> Result<u32, Rejection> {
    if size > 0 { Ok(size) } else { Err(BAD_SIZE) }
}

fn placed(
    reply: &mut Reply<'_>,
    order: u64,
    end: u8,
    resting: u32,
    (filled, fills): (u32, u32),
) -> Result<(), Rejection> {
    let record = Placed {
        kind: ReportKind::Placed as u8,
        end,
        reserved: [0; 2],
        resting: U32::new(resting),
        filled: U32::new(filled),
        fills: U32::new(fills),
        order: U64::new(order),
    };
    reply.write(record.as_bytes())
}

fn noted(store: &Store, added: u32, reply: &mut Reply<'_>) -> Result<(), Rejection> {
    let trading = store.scalars.trading;
    let kind = ReportKind::Noted as u8;
    reply.write(Noted { kind, trading, reserved: [0; 2], added: U32::new(added) }.as_bytes())
}

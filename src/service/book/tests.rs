//! The book against a naive one: a list of orders, searched from end to end.

use proptest::prelude::*;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U32, U64};

use super::command::*;
use super::report::{Report, reports};
use super::*;
use crate::types::{ClientSequence, Sequence, SessionId, Timestamp};

/// Small enough that everything fills up.
const TINY: BookLimits =
    BookLimits { orders_max: 7, levels_max: 4, changes_max: 4, session_orders_max: 4 };

#[derive(Clone, Debug)]
enum Act {
    New { side: Side, size: u32, price: u64, id: u64, flags: u8 },
    Cancel { id: u64, size: u32 },
    Replace { id: u64, size: u32, price: u64 },
    Delete { id: u64 },
    Message { event: u8, id: u64, size: u32, price: i64, buy: bool },
    Seed { levels: Vec<(Side, u64, u32)> },
    Garbage(Vec<u8>),
}

impl Act {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match *self {
            Self::New { side, size, price, id, flags } => {
                bytes.extend_from_slice(New::order(side, size, price, id, flags).as_bytes());
            }
            Self::Cancel { id, size } => bytes.extend_from_slice(Cancel::new(id, size).as_bytes()),
            Self::Replace { id, size, price } => {
                bytes.extend_from_slice(Replace::new(id, size, price).as_bytes());
            }
            Self::Delete { id } => bytes.extend_from_slice(Delete::new(id).as_bytes()),
            Self::Message { event, id, size, price, buy } => bytes.extend_from_slice(
                Lobster {
                    kind: CommandKind::Lobster as u8,
                    event,
                    direction: if buy { 1 } else { -1 },
                    reserved: 0,
                    size: U32::new(size),
                    time_ns: U64::new(0),
                    order: U64::new(id),
                    price: I64::new(price),
                }
                .as_bytes(),
            ),
            Self::Seed { ref levels } => {
                let levels: Vec<SeedLevel> = levels
                    .iter()
                    .map(|&(side, price, size)| SeedLevel::new(side, price, size))
                    .collect();
                SeedLevel::encode(&levels, &mut bytes);
            }
            Self::Garbage(ref garbage) => bytes.clone_from(garbage),
        }
        bytes
    }
}

/// The naive book: orders in the order in which they came to rest.
#[derive(Clone, Debug, Default)]
struct Naive {
    orders: Vec<OrderView>,
    on_close: Vec<u64>,
    seeded: Vec<u64>,
    trades: (u64, u64),
    trading: i64,
    changes: usize,
}

impl Naive {
    fn sorted(&self, side: Side) -> Vec<OrderView> {
        let mut orders: Vec<OrderView> =
            self.orders.iter().copied().filter(|order| order.side == side).collect();
        orders.sort_by_key(|order| match side {
            Side::Buy => u64::MAX - order.price,
            Side::Sell => order.price,
        });
        orders
    }
    fn change(&mut self) -> Result<(), Rejection> {
        if self.changes == TINY.changes_max {
            return Err(UNIT_TOO_LARGE);
        }
        self.changes += 1;
        Ok(())
    }
    fn find(&self, id: u64) -> Option<OrderView> {
        self.orders.iter().copied().find(|order| order.order == id)
    }
    fn own(&self, session: u64, id: u64) -> Result<OrderView, Rejection> {
        if id == 0 {
            return Err(BAD_ORDER_ID);
        }
        let order = self.find(id).ok_or(UNKNOWN_ORDER)?;
        if [0, session].contains(&order.owner) { Ok(order) } else { Err(NOT_OWNER) }
    }
    fn crossing(&self, side: Side, price: u64) -> bool {
        self.sorted(side.opposite()).first().is_some_and(|best| match side {
            Side::Buy => best.price <= price,
            Side::Sell => best.price >= price,
        })
    }
    fn set(&mut self, id: u64, size: u32) -> Result<(), Rejection> {
        self.change()?;
        if size == 0 {
            self.orders.retain(|order| order.order != id);
        } else {
            let order = self.orders.iter_mut().find(|order| order.order == id);
            order.expect("it is there").size = size;
        }
        Ok(())
    }
    fn rest(&mut self, order: OrderView) -> Result<(), Rejection> {
        self.change()?;
        if self.orders.len() == TINY.orders_max {
            return Err(ORDERS_FULL);
        }
        let owned = self.orders.iter().filter(|one| one.owner == order.owner).count();
        if order.owner != 0 && owned == TINY.session_orders_max {
            return Err(SESSION_ORDERS_FULL);
        }
        let mut prices: Vec<u64> = self.sorted(order.side).iter().map(|one| one.price).collect();
        prices.dedup();
        if prices.len() == TINY.levels_max && !prices.contains(&order.price) {
            return Err(LEVELS_FULL);
        }
        self.orders.push(order);
        Ok(())
    }
    fn check(price: u64, size: u32) -> Result<(), Rejection> {
        if price == 0 {
            return Err(BAD_PRICE);
        }
        if size == 0 { Err(BAD_SIZE) } else { Ok(()) }
    }
    fn enter(&mut self, mut order: OrderView, flags: u8) -> Result<(), Rejection> {
        let crossing = self.crossing(order.side, order.price);
        if self.trading == -1 || (self.trading == 0 && crossing) {
            return Err(HALTED);
        }
        if crossing && flags & FLAG_POST_ONLY != 0 {
            return Err(WOULD_CROSS);
        }
        while order.size > 0 && self.crossing(order.side, order.price) {
            let maker = self.sorted(order.side.opposite())[0];
            let size = maker.size.min(order.size);
            self.set(maker.order, maker.size - size)?;
            order.size -= size;
            self.trades.0 += 1;
            self.trades.1 += u64::from(size);
        }
        if order.size > 0 && flags & FLAG_IMMEDIATE == 0 {
            self.rest(order)?;
        }
        Ok(())
    }
    fn act(&mut self, session: u64, act: &Act) -> Result<(), Rejection> {
        match *act {
            Act::New { side, size, price, id, flags } => {
                if id == 0 {
                    return Err(BAD_ORDER_ID);
                }
                if self.find(id).is_some() {
                    return Err(ORDER_EXISTS);
                }
                Self::check(price, size)?;
                if flags > 7 || flags & 6 == 6 {
                    return Err(BAD_FLAGS);
                }
                self.on_close.retain(|&one| one != id);
                self.on_close.extend((flags & FLAG_CANCEL_ON_CLOSE != 0).then_some(id));
                self.enter(OrderView { order: id, owner: session, side, price, size }, flags)
            }
            Act::Cancel { id, size } => {
                let order = self.own(session, id)?;
                if size == 0 || size > order.size {
                    return Err(BAD_SIZE);
                }
                self.set(id, order.size - size)
            }
            Act::Replace { id, size, price } => {
                let order = self.own(session, id)?;
                Self::check(price, size)?;
                if order.price == price && size <= order.size {
                    return if size < order.size { self.set(id, size) } else { Ok(()) };
                }
                self.set(id, 0)?;
                // Flags that matter when it enters again: an immediate one never rested.
                let flags = Self::flags_of(id);
                self.enter(OrderView { owner: session, price, size, ..order }, flags)
            }
            Act::Delete { id } => {
                self.own(session, id)?;
                self.set(id, 0)
            }
            Act::Message { event: 7, price, .. } => {
                if !(-1..=1).contains(&price) {
                    return Err(BAD_PRICE);
                }
                self.trading = price;
                Ok(())
            }
            Act::Message { event: 5 | 6, .. } => Ok(()),
            Act::Message { event, id, size, price, buy } => {
                if !(1..=4).contains(&event) {
                    return Err(MALFORMED);
                }
                let side = if buy { Side::Buy } else { Side::Sell };
                self.message(
                    session,
                    event,
                    OrderView {
                        order: id,
                        owner: 0,
                        side,
                        price: u64::try_from(price).map_err(|_| BAD_PRICE)?,
                        size,
                    },
                )
            }
            Act::Seed { ref levels } => {
                for &(side, price, size) in levels {
                    Self::check(price, size)?;
                    let id = rules::seed_id(side, price);
                    if self.find(id).is_some() {
                        return Err(ORDER_EXISTS);
                    }
                    if self.crossing(side, price) {
                        return Err(WOULD_CROSS);
                    }
                    self.rest(OrderView { order: id, owner: 0, side, price, size })?;
                    self.seeded.push(id);
                }
                Ok(())
            }
            Act::Garbage(_) => Err(MALFORMED),
        }
    }
    fn flags_of(id: u64) -> u8 {
        // Post-only ids are those above 6 in these tests, so that the model need not keep flags.
        if id > 6 { FLAG_POST_ONLY } else { 0 }
    }
    fn message(&mut self, session: u64, event: u8, told: OrderView) -> Result<(), Rejection> {
        Self::check(told.price, told.size)?;
        if event == 1 {
            if told.order == 0 {
                return Err(BAD_ORDER_ID);
            }
            if self.find(told.order).is_some() {
                return Err(ORDER_EXISTS);
            }
            if self.crossing(told.side, told.price) {
                return Err(WOULD_CROSS);
            }
            self.on_close.retain(|&one| one != told.order);
            return self.rest(told);
        }
        let order = match self.own(session, told.order) {
            Err(UNKNOWN_ORDER) => self
                .find(rules::seed_id(told.side, told.price))
                .filter(|order| order.size >= told.size)
                .ok_or(UNKNOWN_ORDER)?,
            found => found?,
        };
        if (order.side, order.price) != (told.side, told.price) {
            return Err(MISMATCH);
        }
        let all = event == 3 && order.order == told.order;
        let taken = if all { order.size } else { told.size };
        if taken > order.size {
            return Err(BAD_SIZE);
        }
        self.set(order.order, order.size - taken)?;
        if event == 4 {
            self.trades.0 += 1;
            self.trades.1 += u64::from(taken);
        }
        Ok(())
    }
    fn close(&mut self, session: u64) {
        let on_close = self.on_close.clone();
        self.orders.retain(|one| one.owner != session || !on_close.contains(&one.order));
        for order in self.orders.iter_mut().filter(|order| order.owner == session) {
            order.owner = 0;
        }
    }
}

#[derive(Clone, Debug)]
enum Unit {
    /// Commands of a session that stand or fall together.
    Acts(u64, Vec<Act>),
    Close(u64),
}

/// A number of a range, and now and then 0, which is right nowhere.
fn mostly(range: core::ops::Range<u32>) -> impl Strategy<Value = u32> {
    prop_oneof![30 => range, 1 => Just(0)]
}

fn act() -> impl Strategy<Value = Act> {
    let side = || prop_oneof![Just(Side::Buy), Just(Side::Sell)];
    let price = || mostly(1..9).prop_map(u64::from);
    let id = |range| mostly(range).prop_map(u64::from);
    prop_oneof![
        8 => (side(), mostly(1..12), price(), id(1..7), 0u8..4)
            .prop_map(|(side, size, price, id, flags)| Act::New { side, size, price, id, flags }),
        6 => (side(), mostly(1..12), 1u64..4, id(7..13), 0u8..2).prop_map(
            |(side, size, price, id, flags)| {
                // Bids low and asks high: these rest, and fill the book.
                let price = if side == Side::Buy { price } else { price + 5 };
                Act::New { side, size, price, id, flags: flags | FLAG_POST_ONLY }
            }
        ),
        1 => (side(), 0u8..=255).prop_map(|(side, flags)| {
            Act::New { side, size: 1, price: 4, id: 1, flags: flags | 8 }
        }),
        3 => (id(1..13), mostly(1..4)).prop_map(|(id, size)| Act::Cancel { id, size }),
        4 => (id(1..13), mostly(1..12), price())
            .prop_map(|(id, size, price)| Act::Replace { id, size, price }),
        2 => id(1..13).prop_map(|id| Act::Delete { id }),
        5 => (0u8..7, id(1..7), mostly(1..6), -1i64..9, any::<bool>()).prop_map(
            |(event, id, size, price, buy)| Act::Message { event, id, size, price, buy }
        ),
        1 => prop_oneof![6 => Just(1i64), 1 => -1i64..3].prop_map(|price| {
            Act::Message { event: 7, id: 0, size: 0, price, buy: true }
        }),
        2 => prop::collection::vec((side(), price(), mostly(1..6)), 0..3)
            .prop_map(|levels| Act::Seed { levels }),
        1 => prop::collection::vec(7u8.., 0..30).prop_map(Act::Garbage),
    ]
}

fn unit() -> impl Strategy<Value = Unit> {
    prop_oneof![
        6 => (1u64..4, act()).prop_map(|(session, act)| Unit::Acts(session, vec![act])),
        4 => (1u64..4, prop::collection::vec(act(), 0..9))
            .prop_map(|(session, acts)| Unit::Acts(session, acts)),
        1 => (1u64..4).prop_map(Unit::Close),
    ]
}

fn context(session: u64) -> Context<'static> {
    Context::alone(Sequence(1), Timestamp(1), SessionId(session), ClientSequence(1))
}

fn snapshot_of(book: &Book) -> Vec<u8> {
    let mut bytes = Vec::new();
    book.snapshot(&mut bytes).expect("memory takes it");
    bytes
}

/// Applies a unit to both books and compares what came of it.
fn step(book: &mut Book, naive: &mut Naive, unit: &Unit) {
    match unit {
        Unit::Close(session) => {
            book.session_closed(&context(*session), CloseReason::Silent);
            naive.close(*session);
        }
        Unit::Acts(session, acts) => {
            let before = (book.state_hash(), snapshot_of(book), naive.clone());
            naive.changes = 0;
            book.begin();
            let result = acts.iter().try_for_each(|act| {
                let mut buffer = [0; 4096];
                let mut reply = Reply::new(&mut buffer);
                let result = book.apply(&context(*session), &act.bytes(), &mut reply);
                assert_eq!(result, naive.act(*session, act), "{act:?} on {:?}", before.2);
                assert!(result.is_err() || reports(reply.written()).all(|report| report.is_ok()));
                result
            });
            if result.is_ok() {
                book.keep();
            } else {
                book.roll_back();
                *naive = before.2;
                assert_eq!((book.state_hash(), snapshot_of(book)), (before.0, before.1));
            }
        }
    }
    book.store.assert_sound();
    for side in [Side::Buy, Side::Sell] {
        assert!(book.orders(side).eq(naive.sorted(side)), "{side:?}");
    }
    assert_eq!(book.traded(), naive.trades);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn r12_random_commands_with_failing_batches_equal_the_naive_book(
        units in prop::collection::vec(unit(), 1..60),
    ) {
        let (mut book, mut naive) = (Book::new(TINY), Naive { trading: 1, ..Naive::default() });
        for unit in &units {
            step(&mut book, &mut naive, unit);
        }
        let bytes = snapshot_of(&book);
        let mut copy = Book::new(TINY);
        copy.restore(&mut &bytes[..]).expect("its own snapshot");
        copy.store.assert_sound();
        prop_assert_eq!(snapshot_of(&copy), bytes);
        prop_assert_eq!(copy.state_hash(), book.state_hash());
        let mut naive_copy = naive.clone();
        for unit in &units {
            step(&mut copy, &mut naive_copy, unit);
            step(&mut book, &mut naive, unit);
            prop_assert_eq!(copy.state_hash(), book.state_hash());
        }
    }

    #[test]
    fn damaged_snapshots_are_refused(
        units in prop::collection::vec(unit(), 1..20), at in 0usize..5000, bit in 0u8..8,
    ) {
        let (mut book, mut naive) = (Book::new(TINY), Naive { trading: 1, ..Naive::default() });
        for unit in &units {
            step(&mut book, &mut naive, unit);
        }
        let mut bytes = snapshot_of(&book);
        let at = at % bytes.len();
        prop_assert!(Book::new(TINY).restore(&mut &bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(book.restore(&mut &bytes[..]).is_err());
        prop_assert_eq!(book.order_count(), 0);
    }
}

/// Sends lines to a book; the reports of the last one.
fn send(book: &mut Book, session: u64, lines: &[&str]) -> Result<Vec<String>, Rejection> {
    let mut said = Vec::new();
    for line in lines {
        let mut command = Vec::new();
        text::encode_command(1, line.as_bytes(), &mut command).expect(line);
        let mut buffer = [0; 4096];
        let mut reply = Reply::new(&mut buffer);
        book.begin();
        let result = book.apply(&context(session), &command, &mut reply);
        match result {
            Ok(()) => book.keep(),
            Err(_) => book.roll_back(),
        }
        result?;
        said = reports(reply.written())
            .map(|report| match report.expect("its own reports") {
                Report::Fill(fill) => {
                    format!(
                        "{} x {} from {}, {} left",
                        fill.size, fill.price, fill.maker, fill.maker_left
                    )
                }
                Report::Placed(placed) => format!(
                    "{}: filled {} in {}, rests {}",
                    placed.order, placed.filled, placed.fills, placed.resting
                ),
                Report::Reduced(reduced) => {
                    format!("{}: took {}, rests {}", reduced.order, reduced.taken, reduced.resting)
                }
                other => format!("{other:?}"),
            })
            .collect();
    }
    Ok(said)
}

#[test]
fn an_order_meets_the_best_price_first_and_the_first_at_a_price() {
    let mut book = Book::new(BookLimits::default());
    let sell = ["new sell 10 @ 1.02 id 1", "new sell 5 @ 1.01 id 2", "new sell 7 @ 1.01 id 3"];
    send(&mut book, 1, &sell).expect("accepted");
    let said = send(&mut book, 2, &["new buy 20 @ 1.02 id 4"]).expect("accepted");
    assert_eq!(
        said,
        [
            "5 x 10100 from 2, 0 left",
            "7 x 10100 from 3, 0 left",
            "8 x 10200 from 1, 2 left",
            "4: filled 20 in 3, rests 0"
        ]
    );
    let said = send(&mut book, 2, &["new buy 5 @ 1.02 id 4 immediate"]).expect("accepted");
    assert_eq!(said, ["2 x 10200 from 1, 0 left", "4: filled 2 in 1, rests 0"]);
    assert_eq!((book.order_count(), book.traded()), (0, (4, 22)));
}

#[test]
fn replacing_keeps_priority_only_when_it_asks_for_less() {
    let mut book = Book::new(BookLimits::default());
    let queue = |book: &Book| book.orders(Side::Buy).map(|order| order.order).collect::<Vec<_>>();
    let buy = ["new buy 10 @ 1 id 1", "new buy 10 @ 1 id 2", "replace id 1 9 @ 1"];
    assert_eq!(send(&mut book, 1, &buy).expect("accepted"), ["1: filled 0 in 0, rests 9"]);
    assert_eq!(queue(&book), [1, 2]);
    send(&mut book, 1, &["replace id 1 10 @ 1"]).expect("accepted");
    assert_eq!(queue(&book), [2, 1]);
    send(&mut book, 1, &["replace id 1 10 @ 1.5"]).expect("accepted");
    assert_eq!(queue(&book), [1, 2]);
    send(&mut book, 2, &["new sell 1 @ 1.6 id 3"]).expect("accepted");
    let said = send(&mut book, 2, &["replace id 3 11 @ 1.5"]).expect("accepted");
    assert_eq!(said, ["10 x 15000 from 1, 0 left", "3: filled 10 in 1, rests 1"]);
}

#[test]
fn orders_belong_to_sessions_that_are_open() {
    let mut book = Book::new(BookLimits::default());
    let orders = ["new buy 1 @ 1 id 1 cancel-on-close", "new buy 1 @ 1 id 2"];
    send(&mut book, 1, &orders).expect("accepted");
    assert_eq!(send(&mut book, 2, &["delete id 2"]), Err(NOT_OWNER));
    book.session_closed(&context(1), CloseReason::Asked);
    assert_eq!(book.order(1), None);
    assert_eq!(book.order(2).map(|order| order.owner), Some(0));
    assert!(send(&mut book, 2, &["delete id 2"]).is_ok());
    book.store.assert_sound();
}

#[test]
fn closing_a_session_is_bounded_by_the_orders_that_one_may_have() {
    let limits = BookLimits { session_orders_max: 3, ..BookLimits::default() };
    let mut book = Book::new(limits);
    let orders = ["new buy 1 @ 1 id 1 cancel-on-close", "new buy 1 @ 2 id 2", "new buy 1 @ 3 id 3"];
    send(&mut book, 1, &orders).expect("accepted");
    assert_eq!(send(&mut book, 1, &["new buy 1 @ 4 id 4"]), Err(SESSION_ORDERS_FULL));
    // What does not rest needs no room, nor does an order that takes the place of one's own, nor another session's.
    assert!(send(&mut book, 1, &["new sell 1 @ 3 id 5"]).is_ok());
    assert!(send(&mut book, 1, &["new buy 1 @ 4 id 4", "replace id 4 2 @ 5"]).is_ok());
    assert_eq!(send(&mut book, 1, &["new buy 1 @ 4 id 6"]), Err(SESSION_ORDERS_FULL));
    assert!(send(&mut book, 2, &["new buy 1 @ 4 id 6"]).is_ok());

    let image = snapshot_of(&book);
    let mut other = Book::new(limits);
    other.restore(&mut &image[..]).expect("a book of these limits");
    assert_eq!(send(&mut other, 1, &["new buy 1 @ 4 id 7"]), Err(SESSION_ORDERS_FULL));

    book.session_closed(&context(1), CloseReason::Silent);
    assert_eq!((book.order_count(), book.order(1)), (3, None));
    book.store.assert_sound();
    // Orders of nobody are not counted, and a session of the same number begins anew.
    assert!(send(&mut book, 1, &orders[..1]).is_ok());
    book.store.assert_sound();
}

#[test]
fn messages_about_orders_from_before_reduce_the_seeded_level() {
    let mut book = Book::new(BookLimits::default());
    send(&mut book, 1, &["seed 12,5,10,7", "34200,2,99,3,10,1"]).expect("accepted");
    assert_eq!(book.best(Side::Buy).map(|best| best.size), Some(4));
    assert_eq!(send(&mut book, 1, &["34200,4,98,5,10,1"]), Err(UNKNOWN_ORDER));
    assert_eq!(send(&mut book, 1, &["34200,3,98,4,9,1"]), Err(UNKNOWN_ORDER));
    send(&mut book, 1, &["34200,1,97,6,10,1", "34200,3,96,4,10,1"]).expect("accepted");
    assert_eq!(book.best(Side::Buy).map(|best| (best.size, best.orders)), Some((6, 1)));
    assert_eq!(send(&mut book, 1, &["34200,3,97,6,10,-1"]), Err(MISMATCH));
    assert_eq!(send(&mut book, 1, &["34200,1,95,6,12,1"]), Err(WOULD_CROSS));
}

#[test]
fn halts_stop_new_orders_until_trading_resumes() {
    let mut book = Book::new(BookLimits::default());
    send(&mut book, 1, &["new buy 1 @ 1 id 1", "1,7,0,0,-1,-1"]).expect("accepted");
    assert_eq!(send(&mut book, 1, &["new buy 1 @ 1 id 2"]), Err(HALTED));
    assert!(send(&mut book, 1, &["cancel 1 id 1", "1,7,0,0,0,-1", "new buy 1 @ 1 id 2"]).is_ok());
    assert_eq!(send(&mut book, 1, &["new sell 1 @ 1 id 3"]), Err(HALTED));
    assert!(send(&mut book, 1, &["1,7,0,0,1,-1", "new sell 1 @ 1 id 3"]).is_ok());
    assert_eq!(book.order_count(), 0);
}

#[test]
fn questions_are_answered() {
    let mut book = Book::new(BookLimits::default());
    let orders = ["new buy 3 @ 1 id 1", "new buy 4 @ 1 id 2", "new sell 5 @ 2 id 3"];
    send(&mut book, 1, &orders).expect("accepted");
    let ask = |query: Query| {
        let mut buffer = [0; 256];
        let mut reply = Reply::new(&mut buffer);
        book.query(query.as_bytes(), &mut reply).map(|()| reply.written().to_vec())
    };
    let depth = ask(Query::depth(5)).expect("answered");
    let Some(Ok(Report::Depth(_, bids, asks))) = reports(&depth).next() else { panic!("depth") };
    let seen = |level: &DepthLevel| (level.price.get(), level.size.get(), level.orders.get());
    assert_eq!(bids.iter().map(seen).collect::<Vec<_>>(), [(10_000, 7, 2)]);
    assert_eq!(asks.iter().map(seen).collect::<Vec<_>>(), [(20_000, 5, 1)]);
    let order = ask(Query::order(2)).expect("answered");
    let Some(Ok(Report::Order(order))) = reports(&order).next() else { panic!("order") };
    assert_eq!((order.size.get(), order.ahead.get(), order.owner.get()), (4, 1, 1));
    assert_eq!(ask(Query::order(9)), Err(UNKNOWN_ORDER));
    let mut reply = Reply::new(&mut []);
    assert_eq!(book.query(b"?", &mut reply), Err(MALFORMED));
}

//! Order flow for demonstrations and measurements: endless, and the same for the same seed.
//!
//! Most orders come to rest near a fair price that walks at random, and most of those are deleted again; some are cut down
//! or replaced; about one command in ten takes what rests. The generator keeps a book of its own, so that it speaks only of
//! orders that exist: a book that is given its commands alone, in their order, rejects none.

use zerocopy::IntoBytes;

use super::book::command::{Cancel, Delete, FLAG_IMMEDIATE, FLAG_POST_ONLY, New, Replace};
use super::book::{Book, BookLimits, Side};
use super::hash::mix;
use super::{Context, Reply, Service};
use crate::types::{ClientSequence, Sequence, SessionId, Timestamp};

/// One cent.
const TICK: u64 = 100;
/// Orders that rest at once: below the fewest nothing is deleted, at the most nothing is added.
const RESTING_MIN: usize = 40;
const RESTING_MAX: usize = 2000;
/// The fair price stays between these.
const FAIR_MIN: u64 = 1_000_000;
const FAIR_MAX: u64 = 20_000_000;
/// Bytes of the longest reply that a command of the generator gets from its own book: one fill per resting order.
const REPLY_BYTES: usize = 32 * (RESTING_MAX + 2);

/// The generator.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    fair: u64,
    next_order: u64,
    /// Ids of orders that rest, and some that no longer do.
    resting: Vec<u64>,
    book: Book,
    command: Vec<u8>,
    reply: Box<[u8]>,
}

impl Generator {
    /// A generator of the flow that `seed` stands for.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let limits = BookLimits {
            orders_max: 2 * RESTING_MAX,
            levels_max: 2 * RESTING_MAX,
            changes_max: 2 * RESTING_MAX,
            session_orders_max: 2 * RESTING_MAX,
        };
        Self {
            random: Random(seed),
            fair: 5_855_000,
            next_order: 1,
            resting: Vec::with_capacity(2 * RESTING_MAX),
            book: Book::new(limits),
            command: Vec::with_capacity(64),
            reply: vec![0; REPLY_BYTES].into_boxed_slice(),
        }
    }
    /// The next command, as bytes for the book. Allocates nothing.
    pub fn command(&mut self) -> &[u8] {
        self.walk();
        self.forget_gone();
        self.command.clear();
        let resting = self.book.order_count();
        match self.random.below(100) {
            _ if resting < RESTING_MIN => self.rest(),
            _ if resting >= RESTING_MAX => self.delete(),
            0..47 => self.rest(),
            47..79 => self.delete(),
            79..84 => self.cut_down(),
            84..90 => self.replace(),
            _ => self.aggress(),
        }
        self.follow();
        &self.command
    }

    /// Moves the fair price by a tick, now and then.
    fn walk(&mut self) {
        match self.random.below(16) {
            0 => self.fair = (self.fair + TICK).min(FAIR_MAX),
            1 => self.fair = (self.fair - TICK).max(FAIR_MIN),
            _ => {}
        }
    }
    /// Drops ids of orders that were filled, once they have piled up.
    fn forget_gone(&mut self) {
        if self.resting.len() == self.resting.capacity() {
            let book = &self.book;
            self.resting.retain(|&order| book.order(order).is_some());
        }
    }
    fn rest(&mut self) {
        let side = self.random.side();
        let (price, size) = (self.passive_price(side), self.size());
        let order = self.new_order();
        self.put(New::order(side, size, price, order, FLAG_POST_ONLY).as_bytes());
    }
    fn delete(&mut self) {
        let at = self.pick();
        let order = self.resting.swap_remove(at);
        self.put(Delete::new(order).as_bytes());
    }
    fn cut_down(&mut self) {
        let at = self.pick();
        let order = self.resting[at];
        let size = self.book.order(order).map_or(1, |order| order.size);
        let part = 1 + self.random.below(size.into()) as u32;
        self.put(Cancel::new(order, part).as_bytes());
    }
    fn replace(&mut self) {
        let at = self.pick();
        let order = self.resting[at];
        let side = self.book.order(order).map_or(Side::Buy, |order| order.side);
        let (price, size) = (self.passive_price(side), self.size());
        self.put(Replace::new(order, size, price).as_bytes());
    }
    /// Takes what rests on the other side, as far as two ticks beyond the best price.
    fn aggress(&mut self) {
        let side = self.random.side();
        let Some(best) = self.book.best(side.opposite()) else { return self.rest() };
        let reach = TICK * self.random.below(3);
        let price = match side {
            Side::Buy => best.price + reach,
            Side::Sell => (best.price - reach.min(best.price - 1)).max(1),
        };
        let flags = if self.random.below(10) < 7 { FLAG_IMMEDIATE } else { 0 };
        let (size, order) = (self.size(), self.new_order());
        self.put(New::order(side, size, price, order, flags).as_bytes());
    }

    /// A price near the fair one that does not meet the other side.
    fn passive_price(&mut self, side: Side) -> u64 {
        let mut distance = 1;
        while distance < 40 && self.random.below(4) < 3 {
            distance += 1;
        }
        let away = distance * TICK;
        let best = self.book.best(side.opposite()).map(|best| best.price);
        match side {
            Side::Buy => (self.fair - away).min(best.map_or(u64::MAX, |ask| ask - TICK)),
            Side::Sell => (self.fair + away).max(best.map_or(0, |bid| bid + TICK)),
        }
    }
    /// Round lots mostly.
    fn size(&mut self) -> u32 {
        match self.random.below(10) {
            0..6 => 100 * (1 + self.random.below(5) as u32),
            6..9 => 1 + self.random.below(99) as u32,
            _ => 100 * (1 + self.random.below(40) as u32),
        }
    }
    fn new_order(&mut self) -> u64 {
        let order = self.next_order;
        self.next_order += 1;
        self.resting.push(order);
        order
    }
    /// Where an order stands in `resting` that rests. There is one: fewer than the fewest are never picked from.
    fn pick(&mut self) -> usize {
        loop {
            let at = self.random.below(self.resting.len() as u64) as usize;
            if self.book.order(self.resting[at]).is_some() {
                return at;
            }
            self.resting.swap_remove(at);
        }
    }
    fn put(&mut self, command: &[u8]) {
        self.command.extend_from_slice(command);
    }
    /// Gives the command to its own book.
    fn follow(&mut self) {
        let context = Context::alone(Sequence(0), Timestamp(0), SessionId(1), ClientSequence(0));
        self.book.begin();
        let result = self.book.apply(&context, &self.command, &mut Reply::new(&mut self.reply));
        assert!(result.is_ok(), "the generator knows the book: {result:?}");
        self.book.keep();
    }
}

/// Numbers that look random and follow from a seed.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0, 0x5EED)
    }
    /// From 0 to below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
    fn side(&mut self) -> Side {
        if self.below(2) == 0 { Side::Buy } else { Side::Sell }
    }
}

#[cfg(test)]
mod tests {
    use super::super::book::command::Command;
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_flow_and_another_another() {
        let flow = |seed| {
            let mut generator = Generator::new(seed);
            (0..500).flat_map(|_| generator.command().to_vec()).collect::<Vec<u8>>()
        };
        assert_eq!(flow(7), flow(7));
        assert_ne!(flow(7), flow(8));
    }

    #[test]
    fn another_book_accepts_everything_and_stays_a_market() {
        let mut generator = Generator::new(1);
        let mut book = Book::new(BookLimits::default());
        let mut buffer = vec![0; 1 << 17];
        let mut kinds = [0u32; 7];
        for n in 1..=50_000 {
            let command = generator.command();
            kinds[usize::from(command[0])] += 1;
            assert!(Command::parse(command).is_ok());
            let context =
                Context::alone(Sequence(n), Timestamp(n), SessionId(9), ClientSequence(n));
            book.begin();
            let result = book.apply(&context, command, &mut Reply::new(&mut buffer));
            assert_eq!(result, Ok(()), "command {n}");
            book.keep();
        }
        let [bid, ask] = [Side::Buy, Side::Sell].map(|side| book.best(side).expect("a market"));
        assert!(bid.price < ask.price && ask.price - bid.price < 100 * TICK);
        assert!((RESTING_MIN / 2..=RESTING_MAX).contains(&book.order_count()));
        let (trades, _) = book.traded();
        assert!((2_000..20_000).contains(&trades), "{trades} trades");
        assert!(kinds[1..=4].iter().all(|&count| count > 1000), "{kinds:?}");
    }
}

//! The orders that rest: by id, by owner, and in price-time order, all in memory that is there from the start.
//!
//! Orders and levels lie in slabs and refer to each other by slot. A side's levels stand in a sorted array, the best one
//! last: that is where a book is busy, so an insertion moves few entries. Everything that changes goes through five small
//! steps ([`Store::link`], [`Store::unlink`], [`Store::resize`], [`Store::disown`] and the scalars). Each writes down what
//! undoes it, and undoing them backwards brings every slot back to where it was: an order taken out of a queue keeps its
//! links, which are right again once everything after has been undone.

use super::BookLimits;
use super::command::{LEVELS_FULL, ORDERS_FULL, SESSION_ORDERS_FULL, Side, UNIT_TOO_LARGE};
use crate::service::Rejection;
use crate::service::hash::Fingerprint;
use crate::service::index::Index;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// [`Order::flags`]: stands for all orders of a level, as seeded.
pub(super) const FLAG_SEEDED: u8 = 0x80;

/// An order: one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(64))]
pub(super) struct Order {
    pub(super) id: u64,
    /// Session it belongs to; 0: none that is open.
    pub(super) owner: u64,
    /// Counts orders as they come to rest: time priority.
    pub(super) arrival: u64,
    pub(super) price: u64,
    pub(super) size: u32,
    level: u32,
    ahead: u32,
    behind: u32,
    owner_ahead: u32,
    owner_behind: u32,
    pub(super) side: Side,
    pub(super) flags: u8,
}

const _: () = assert!(size_of::<Order>() == 64);

impl Order {
    /// An order that is not in the book yet.
    pub(super) fn new(id: u64, owner: u64, side: Side, price: u64, size: u32, flags: u8) -> Self {
        Self {
            id,
            owner,
            arrival: 0,
            price,
            size,
            level: NONE,
            ahead: NONE,
            behind: NONE,
            owner_ahead: NONE,
            owner_behind: NONE,
            side,
            flags,
        }
    }
    fn digest(&self) -> u64 {
        let packed = u64::from(self.size) | u64::from(self.flags) << 32 | (self.side as u64) << 40;
        Fingerprint::new(self.id).pair(self.owner, self.arrival).pair(self.price, packed).finish()
    }
}

/// All orders of one price on one side, first come first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Level {
    pub(super) price: u64,
    pub(super) total: u64,
    pub(super) count: u32,
    pub(super) first: u32,
    last: u32,
}

/// What changes besides orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Scalars {
    pub(super) next_arrival: u64,
    pub(super) trades: u64,
    pub(super) volume: u64,
    pub(super) last_price: u64,
    /// 0 trading, 1 quoting only, 2 halted.
    pub(super) trading: u8,
}

/// The store.
#[derive(Clone, Debug)]
pub(super) struct Store {
    limits: BookLimits,
    orders: Box<[Order]>,
    vacant_orders: Vec<u32>,
    levels: Box<[Level]>,
    vacant_levels: Vec<u32>,
    ladders: [Vec<Rung>; 2],
    by_id: Index,
    /// Session to the first of its orders.
    by_owner: Index,
    /// Session to how many of them rest.
    owned: Index,
    pub(super) scalars: Scalars,
    /// Running sum of the orders' digests.
    sum: u64,
    unit: Option<Before>,
    changes: Vec<Change>,
}

/// A level's place on its side: the greater the key, the better the price.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rung {
    key: u64,
    level: u32,
}

/// What was before a unit.
#[derive(Clone, Copy, Debug)]
struct Before {
    scalars: Scalars,
    sum: u64,
}

/// What a step changed, so that it can be undone.
#[derive(Clone, Copy, Debug)]
enum Change {
    Linked { slot: u32 },
    Unlinked { slot: u32, order: Order },
    Resized { slot: u32, size: u32 },
}

impl Store {
    /// An empty store.
    pub(super) fn new(limits: BookLimits) -> Self {
        let BookLimits { orders_max, levels_max, changes_max, .. } = limits;
        let level = Level { price: 0, total: 0, count: 0, first: NONE, last: NONE };
        let ladder = || Vec::with_capacity(levels_max);
        Self {
            limits,
            orders: vec![Order::new(0, 0, Side::Buy, 0, 0, 0); orders_max].into_boxed_slice(),
            vacant_orders: (0..orders_max as u32).rev().collect(),
            levels: vec![level; 2 * levels_max].into_boxed_slice(),
            vacant_levels: (0..2 * levels_max as u32).rev().collect(),
            ladders: [ladder(), ladder()],
            by_id: Index::new(orders_max),
            by_owner: Index::new(orders_max),
            owned: Index::new(orders_max),
            scalars: Scalars::default(),
            sum: 0,
            unit: None,
            changes: Vec::with_capacity(changes_max),
        }
    }
    /// Removes everything.
    pub(super) fn clear(&mut self) {
        self.vacant_orders.clear();
        self.vacant_orders.extend((0..self.limits.orders_max as u32).rev());
        self.vacant_levels.clear();
        self.vacant_levels.extend((0..2 * self.limits.levels_max as u32).rev());
        self.ladders.iter_mut().for_each(Vec::clear);
        self.by_id.clear();
        self.by_owner.clear();
        self.owned.clear();
        self.changes.clear();
        (self.scalars, self.sum, self.unit) = (Scalars::default(), 0, None);
    }
    /// Its limits.
    pub(super) fn limits(&self) -> BookLimits {
        self.limits
    }
    /// Orders that rest.
    pub(super) fn count(&self) -> usize {
        self.by_id.count()
    }
    /// The slot of an order.
    pub(super) fn find(&self, id: u64) -> Option<u32> {
        self.by_id.get(id)
    }
    /// The order in a slot.
    pub(super) fn order(&self, slot: u32) -> &Order {
        &self.orders[slot as usize]
    }
    /// The best level of a side.
    pub(super) fn best(&self, side: Side) -> Option<&Level> {
        self.ladder(side).last().map(|rung| &self.levels[rung.level as usize])
    }
    /// The levels of a side, best first.
    pub(super) fn levels(&self, side: Side) -> impl ExactSizeIterator<Item = &Level> {
        self.ladder(side).iter().rev().map(|rung| &self.levels[rung.level as usize])
    }
    /// The orders of a level, first come first.
    pub(super) fn queue(&self, level: &Level) -> impl Iterator<Item = &Order> {
        core::iter::successors(self.orders.get(level.first as usize), |order| {
            self.orders.get(order.behind as usize)
        })
    }
    /// The last order at a price.
    pub(super) fn last_at(&self, side: Side, price: u64) -> Option<&Order> {
        let key = key_of(side, price);
        let at = self.ladder(side).binary_search_by_key(&key, |rung| rung.key).ok()?;
        let level = &self.levels[self.ladder(side)[at].level as usize];
        Some(self.order(level.last))
    }
    /// Orders in front of this one at its price.
    pub(super) fn ahead_of(&self, slot: u32) -> usize {
        core::iter::successors(Some(self.order(slot).ahead), |&at| {
            self.orders.get(at as usize).map(|order| order.ahead)
        })
        .take_while(|&at| at != NONE)
        .count()
    }
    /// The first order of a session.
    pub(super) fn first_of(&self, owner: u64) -> Option<u32> {
        self.by_owner.get(owner)
    }
    /// Orders of a session that rest.
    pub(super) fn count_of(&self, owner: u64) -> usize {
        self.owned.get(owner).map_or(0, |count| count as usize)
    }
    /// Fingerprint of all of it.
    pub(super) fn hash(&self) -> u64 {
        let Scalars { next_arrival, trades, volume, last_price, trading } = self.scalars;
        Fingerprint::new(0xB00C)
            .word(self.count() as u64)
            .word(self.sum)
            .word(next_arrival)
            .word(trades)
            .word(volume)
            .word(last_price)
            .word(u64::from(trading))
            .finish()
    }

    /// From here on, changes can be undone.
    pub(super) fn begin(&mut self) {
        self.changes.clear();
        self.unit = Some(Before { scalars: self.scalars, sum: self.sum });
    }
    /// The changes stand.
    pub(super) fn keep(&mut self) {
        self.changes.clear();
        self.unit = None;
    }
    /// Undoes the changes, the last one first.
    pub(super) fn roll_back(&mut self) {
        let Some(before) = self.unit.take() else { return };
        while let Some(change) = self.changes.pop() {
            match change {
                Change::Linked { slot } => {
                    self.detach(slot);
                }
                Change::Unlinked { slot, order } => self.reattach(slot, order),
                Change::Resized { slot, size } => self.put_size(slot, size),
            }
        }
        self.scalars = before.scalars;
        assert!(self.sum == before.sum, "undoing a unit leaves no trace");
    }
    /// Lets an order rest, last at its price.
    ///
    /// # Errors
    /// [`ORDERS_FULL`], [`SESSION_ORDERS_FULL`], [`LEVELS_FULL`], [`UNIT_TOO_LARGE`]; nothing changed then.
    pub(super) fn link(&mut self, mut order: Order) -> Result<(), Rejection> {
        self.check_unit()?;
        let &slot = self.vacant_orders.last().ok_or(ORDERS_FULL)?;
        if order.owner != 0 && self.count_of(order.owner) >= self.limits.session_orders_max {
            return Err(SESSION_ORDERS_FULL);
        }
        order.level = self.find_or_add_level(order.side, order.price)?;
        self.vacant_orders.pop();
        order.arrival = self.scalars.next_arrival;
        self.scalars.next_arrival += 1;
        order.ahead = self.levels[order.level as usize].last;
        order.behind = NONE;
        self.attach(slot, order);
        self.note(Change::Linked { slot });
        Ok(())
    }
    /// As [`Store::link`], with the arrival that the order has: for restoring, level by level in the order of arrival.
    pub(super) fn link_restored(&mut self, order: Order) -> Result<(), Rejection> {
        let next = core::mem::replace(&mut self.scalars.next_arrival, order.arrival);
        let linked = self.link(order);
        self.scalars.next_arrival = next;
        linked
    }
    /// Takes an order out.
    ///
    /// # Errors
    /// [`UNIT_TOO_LARGE`]; nothing changed then.
    pub(super) fn unlink(&mut self, slot: u32) -> Result<Order, Rejection> {
        self.check_unit()?;
        let order = self.detach(slot);
        self.note(Change::Unlinked { slot, order });
        Ok(order)
    }
    /// Gives an order another size, above 0. Its place in the queue stays.
    ///
    /// # Errors
    /// [`UNIT_TOO_LARGE`]; nothing changed then.
    pub(super) fn resize(&mut self, slot: u32, size: u32) -> Result<(), Rejection> {
        self.check_unit()?;
        self.note(Change::Resized { slot, size: self.order(slot).size });
        self.put_size(slot, size);
        Ok(())
    }
    /// The order belongs to nobody from now on. Outside of units: cannot be undone.
    pub(super) fn disown(&mut self, slot: u32) {
        assert!(self.unit.is_none(), "sessions close between units");
        self.leave_owner(slot);
        let order = &mut self.orders[slot as usize];
        self.sum = self.sum.wrapping_sub(order.digest());
        order.owner = 0;
        self.sum = self.sum.wrapping_add(order.digest());
    }

    fn check_unit(&self) -> Result<(), Rejection> {
        let fits = self.unit.is_none() || self.changes.len() < self.limits.changes_max;
        if fits { Ok(()) } else { Err(UNIT_TOO_LARGE) }
    }
    fn note(&mut self, change: Change) {
        if self.unit.is_some() {
            self.changes.push(change);
        }
    }
    fn put_size(&mut self, slot: u32, size: u32) {
        let order = &mut self.orders[slot as usize];
        self.sum = self.sum.wrapping_sub(order.digest());
        let level = &mut self.levels[order.level as usize];
        level.total = level.total - u64::from(order.size) + u64::from(size);
        order.size = size;
        self.sum = self.sum.wrapping_add(order.digest());
    }
    /// Puts an order into a vacant slot that was taken for it, between its neighbours as its links name them.
    fn attach(&mut self, slot: u32, mut order: Order) {
        let level = &mut self.levels[order.level as usize];
        level.total += u64::from(order.size);
        level.count += 1;
        match order.ahead {
            NONE => level.first = slot,
            ahead => self.orders[ahead as usize].behind = slot,
        }
        match order.behind {
            NONE => level.last = slot,
            behind => self.orders[behind as usize].ahead = slot,
        }
        (order.owner_ahead, order.owner_behind) = (NONE, NONE);
        if order.owner != 0 {
            if let Some(first) = self.by_owner.get(order.owner) {
                order.owner_behind = first;
                self.orders[first as usize].owner_ahead = slot;
            }
            self.by_owner.set(order.owner, slot);
            self.owned.set(order.owner, self.count_of(order.owner) as u32 + 1);
        }
        self.by_id.set(order.id, slot);
        self.sum = self.sum.wrapping_add(order.digest());
        self.orders[slot as usize] = order;
    }
    /// The opposite of [`Store::attach`]; the slot becomes vacant, and the level if it was its last order.
    fn detach(&mut self, slot: u32) -> Order {
        self.leave_owner(slot);
        let order = self.orders[slot as usize];
        let level = &mut self.levels[order.level as usize];
        level.total -= u64::from(order.size);
        level.count -= 1;
        match order.ahead {
            NONE => level.first = order.behind,
            ahead => self.orders[ahead as usize].behind = order.behind,
        }
        match order.behind {
            NONE => level.last = order.ahead,
            behind => self.orders[behind as usize].ahead = order.ahead,
        }
        if level.count == 0 {
            self.remove_level(order.side, order.level);
        }
        self.by_id.remove(order.id);
        self.vacant_orders.push(slot);
        self.sum = self.sum.wrapping_sub(order.digest());
        order
    }
    /// Undoes [`Store::unlink`]: the order goes back to its slot and between its neighbours.
    fn reattach(&mut self, slot: u32, mut order: Order) {
        assert!(self.vacant_orders.pop() == Some(slot), "changes are undone in their order");
        let level = self.find_or_add_level(order.side, order.price);
        order.level = level.expect("there was room for it before");
        self.attach(slot, order);
    }
    fn leave_owner(&mut self, slot: u32) {
        let Order { owner, owner_ahead, owner_behind, .. } = self.orders[slot as usize];
        if owner == 0 {
            return;
        }
        match self.count_of(owner) as u32 - 1 {
            0 => {
                self.owned.remove(owner);
            }
            left => self.owned.set(owner, left),
        }
        match (owner_ahead, owner_behind) {
            (NONE, NONE) => {
                self.by_owner.remove(owner);
            }
            (NONE, behind) => self.by_owner.set(owner, behind),
            (ahead, behind) => self.orders[ahead as usize].owner_behind = behind,
        }
        if owner_behind != NONE {
            self.orders[owner_behind as usize].owner_ahead = owner_ahead;
        }
    }
    fn find_or_add_level(&mut self, side: Side, price: u64) -> Result<u32, Rejection> {
        let key = key_of(side, price);
        let ladder = &mut self.ladders[side as usize - 1];
        let at = ladder.partition_point(|rung| rung.key < key);
        if let Some(rung) = ladder.get(at)
            && rung.key == key
        {
            return Ok(rung.level);
        }
        if ladder.len() == self.limits.levels_max {
            return Err(LEVELS_FULL);
        }
        let level = self.vacant_levels.pop().expect("as many as both ladders hold");
        ladder.insert(at, Rung { key, level });
        self.levels[level as usize] = Level { price, total: 0, count: 0, first: NONE, last: NONE };
        Ok(level)
    }
    fn remove_level(&mut self, side: Side, level: u32) {
        let key = key_of(side, self.levels[level as usize].price);
        let ladder = &mut self.ladders[side as usize - 1];
        let at = ladder.partition_point(|rung| rung.key < key);
        assert!(ladder[at].level == level, "a level stands where its price belongs");
        ladder.remove(at);
        self.vacant_levels.push(level);
    }
    fn ladder(&self, side: Side) -> &[Rung] {
        &self.ladders[side as usize - 1]
    }
}

const fn key_of(side: Side, price: u64) -> u64 {
    match side {
        Side::Buy => price,
        Side::Sell => !price,
    }
}

#[cfg(test)]
impl Store {
    /// Checks every relation between orders, levels, ladders and indexes.
    pub(super) fn assert_sound(&self) {
        let mut orders = 0;
        let mut sum = 0u64;
        for side in [Side::Buy, Side::Sell] {
            let ladder = self.ladder(side);
            assert!(ladder.is_sorted_by(|a, b| a.key < b.key));
            for level in self.levels(side) {
                let queue: Vec<&Order> = self.queue(level).collect();
                assert!(!queue.is_empty() && queue.len() == level.count as usize);
                assert_eq!(
                    queue.iter().map(|order| u64::from(order.size)).sum::<u64>(),
                    level.total
                );
                assert!(queue.is_sorted_by(|a, b| a.arrival < b.arrival));
                for order in queue {
                    assert!(order.price == level.price && order.side == side && order.size > 0);
                    let slot = self.find(order.id).expect("indexed");
                    assert_eq!(self.order(slot), order);
                    orders += 1;
                    sum = sum.wrapping_add(order.digest());
                    if order.owner != 0 {
                        let owned = core::iter::successors(self.by_owner.get(order.owner), |&at| {
                            Some(self.order(at).owner_behind).filter(|&at| at != NONE)
                        });
                        let owned: Vec<u32> = owned.collect();
                        assert_eq!(owned.iter().filter(|&&at| at == slot).count(), 1);
                        assert_eq!(owned.len(), self.count_of(order.owner));
                    }
                }
            }
        }
        assert_eq!((orders, sum), (self.count(), self.sum));
        assert_eq!(self.owned.count(), self.by_owner.count());
        assert_eq!(self.vacant_orders.len() + orders, self.limits.orders_max);
        let levels: usize = self.ladders.iter().map(Vec::len).sum();
        assert_eq!(self.vacant_levels.len() + levels, 2 * self.limits.levels_max);
    }
}

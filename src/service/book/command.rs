//! The book's commands as bytes: fixed little-endian structs, written in the send buffer and seen by `apply` in place.
//!
//! The first byte says which. A command is exactly as long as its struct (a [`Seed`] as its head and the levels it counts),
//! and reserved bytes are 0; anything else is [`MALFORMED`]. Prices are in units of 0.0001, sizes in shares.

use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::service::Rejection;

/// Highest price: one below the mark that LOBSTER files use for "no such level".
pub const PRICE_MAX: u64 = 9_999_999_998;
/// Highest order id of a client. Ids above are those of seeded levels.
pub const ORDER_ID_MAX: u64 = (1 << 63) - 1;
/// Levels in one [`Seed`], at most.
pub const SEED_LEVELS_MAX: usize = 200;

/// [`New::flags`]: delete the order when the session that sent it closes.
pub const FLAG_CANCEL_ON_CLOSE: u8 = 1;
/// [`New::flags`]: what does not match at once does not rest.
pub const FLAG_IMMEDIATE: u8 = 2;
/// [`New::flags`]: reject the order rather than match it.
pub const FLAG_POST_ONLY: u8 = 4;
/// All flags of a [`New`].
pub const FLAGS: u8 = FLAG_CANCEL_ON_CLOSE | FLAG_IMMEDIATE | FLAG_POST_ONLY;

/// One side of the book.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Side {
    /// Bids.
    Buy = 1,
    /// Asks.
    Sell = 2,
}

impl Side {
    /// The side with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Buy),
            2 => Some(Self::Sell),
            _ => None,
        }
    }
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

macro_rules! rejections {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Rejection = Rejection($code);)*

        /// What a rejection of the book means, in words.
        #[must_use]
        pub const fn rejection_text(rejection: Rejection) -> Option<&'static str> {
            match rejection {
                $($name => Some($text),)*
                _ => None,
            }
        }
    };
}

rejections! {
    /// Not a command: wrong kind, length, or reserved bytes.
    MALFORMED = 1, "not a command of the book";
    /// Neither buy nor sell.
    BAD_SIDE = 2, "the side is neither buy nor sell";
    /// 0, or above [`PRICE_MAX`]; in a halt message none of -1, 0, 1.
    BAD_PRICE = 3, "the price is out of range";
    /// 0, or more than the order has.
    BAD_SIZE = 4, "the size is 0, or more than the order has";
    /// 0, or above [`ORDER_ID_MAX`].
    BAD_ORDER_ID = 5, "the order id is out of range";
    /// Unknown flags, or two that contradict each other.
    BAD_FLAGS = 6, "unknown or contradicting flags";
    /// An order of this id rests in the book.
    ORDER_EXISTS = 7, "an order of this id rests in the book";
    /// No order of this id rests in the book.
    UNKNOWN_ORDER = 8, "no such order rests in the book";
    /// The order belongs to another session that is open.
    NOT_OWNER = 9, "the order belongs to another session";
    /// As many orders rest as there is room for.
    ORDERS_FULL = 10, "no room for another order";
    /// As many price levels exist on that side as there is room for.
    LEVELS_FULL = 11, "no room for another price level";
    /// The order must not match, and would.
    WOULD_CROSS = 12, "the order would cross the book";
    /// Trading is halted.
    HALTED = 13, "trading is halted";
    /// A unit (a command, or a whole batch) changes more orders than can be undone.
    UNIT_TOO_LARGE = 14, "changes more orders at once than the book allows";
    /// A message names an order with another price or side.
    MISMATCH = 15, "the message contradicts the order it names";
    /// As many orders of this session rest as one session may have.
    SESSION_ORDERS_FULL = 16, "no room for another order of this session";
}

/// What the first byte of a command says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum CommandKind {
    /// [`New`].
    New = 1,
    /// [`Cancel`].
    Cancel = 2,
    /// [`Replace`].
    Replace = 3,
    /// [`Delete`].
    Delete = 4,
    /// [`Lobster`].
    Lobster = 5,
    /// [`Seed`].
    Seed = 6,
}

macro_rules! wire {
    ($(
        $(#[$doc:meta])*
        $name:ident = $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
            #[repr(C)]
            pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }

            const _: () = assert!(size_of::<$name>() == $bytes && align_of::<$name>() == 1);
        )*
    };
}
pub(super) use wire;

wire! {
    /// A new limit order: matches what it crosses, the rest of it rests.
    New = 24 {
        /// [`CommandKind::New`].
        kind: u8,
        /// [`Side`].
        side: u8,
        /// [`FLAG_CANCEL_ON_CLOSE`], [`FLAG_IMMEDIATE`], [`FLAG_POST_ONLY`].
        flags: u8,
        /// Reserved, 0.
        reserved: u8,
        /// Size.
        size: U32,
        /// Limit.
        price: U64,
        /// Its id, drawn by the client, unique in the whole book.
        order: U64,
    }
    /// Takes part of an order away; all of it when `size` is what it has. Its priority stays.
    Cancel = 16 {
        /// [`CommandKind::Cancel`].
        kind: u8,
        /// Reserved, 0.
        reserved: [u8; 3],
        /// How much to take away.
        size: U32,
        /// Which order.
        order: U64,
    }
    /// Gives an order another size and price. Its priority stays if the price stays and the size does not grow; otherwise
    /// it is as a new order, and may match.
    Replace = 24 {
        /// [`CommandKind::Replace`].
        kind: u8,
        /// Reserved, 0.
        reserved: [u8; 3],
        /// Its size from now on.
        size: U32,
        /// Its limit from now on.
        price: U64,
        /// Which order.
        order: U64,
    }
    /// Takes an order away.
    Delete = 16 {
        /// [`CommandKind::Delete`].
        kind: u8,
        /// Reserved, 0.
        reserved: [u8; 7],
        /// Which order.
        order: U64,
    }
    /// One line of a LOBSTER message file: something that happened on the exchange.
    Lobster = 32 {
        /// [`CommandKind::Lobster`].
        kind: u8,
        /// 1 new, 2 cancelled in part, 3 deleted, 4 executed, 5 executed hidden, 6 cross trade, 7 halt.
        event: u8,
        /// 1 buy, -1 sell: the side of the order that the message is about.
        direction: i8,
        /// Reserved, 0.
        reserved: u8,
        /// Size.
        size: U32,
        /// Nanoseconds after midnight.
        time_ns: U64,
        /// The exchange's order id.
        order: U64,
        /// Price; in a halt message -1 halted, 0 quoting again, 1 trading again.
        price: I64,
    }
    /// Levels of a book as it stands somewhere else. [`SeedLevel`]s follow.
    Seed = 4 {
        /// [`CommandKind::Seed`].
        kind: u8,
        /// How many follow.
        levels: u8,
        /// Reserved, 0.
        reserved: [u8; 2],
    }
    /// One level: becomes one order that stands for all orders of it.
    SeedLevel = 16 {
        /// Price.
        price: U64,
        /// Size.
        size: U32,
        /// [`Side`].
        side: u8,
        /// Reserved, 0.
        reserved: [u8; 3],
    }
}

/// A command, seen in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// [`New`].
    New(&'a New),
    /// [`Cancel`].
    Cancel(&'a Cancel),
    /// [`Replace`].
    Replace(&'a Replace),
    /// [`Delete`].
    Delete(&'a Delete),
    /// [`Lobster`].
    Lobster(&'a Lobster),
    /// [`Seed`] and its levels.
    Seed(&'a [SeedLevel]),
}

impl<'a> Command<'a> {
    /// Sees the command in `bytes`.
    ///
    /// # Errors
    /// [`MALFORMED`]: wrong kind, length, or reserved bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Rejection> {
        let command = match bytes.first() {
            Some(1) => Self::New(exact(bytes)?),
            Some(2) => Self::Cancel(exact(bytes)?),
            Some(3) => Self::Replace(exact(bytes)?),
            Some(4) => Self::Delete(exact(bytes)?),
            Some(5) => Self::Lobster(exact(bytes)?),
            Some(6) => {
                let (head, rest) = Seed::ref_from_prefix(bytes).map_err(|_| MALFORMED)?;
                let levels = <[SeedLevel]>::ref_from_bytes(rest).map_err(|_| MALFORMED)?;
                let counted = usize::from(head.levels) == levels.len();
                if !counted || levels.len() > SEED_LEVELS_MAX || head.reserved != [0; 2] {
                    return Err(MALFORMED);
                }
                Self::Seed(levels)
            }
            _ => return Err(MALFORMED),
        };
        let clean = match command {
            Self::New(new) => new.reserved == 0,
            Self::Cancel(cancel) => cancel.reserved == [0; 3],
            Self::Replace(replace) => replace.reserved == [0; 3],
            Self::Delete(delete) => delete.reserved == [0; 7],
            Self::Lobster(message) => message.reserved == 0,
            Self::Seed(levels) => levels.iter().all(|level| level.reserved == [0; 3]),
        };
        if clean { Ok(command) } else { Err(MALFORMED) }
    }
}

impl New {
    /// A new order.
    #[must_use]
    pub fn order(side: Side, size: u32, price: u64, order: u64, flags: u8) -> Self {
        Self {
            kind: CommandKind::New as u8,
            side: side as u8,
            flags,
            reserved: 0,
            size: U32::new(size),
            price: U64::new(price),
            order: U64::new(order),
        }
    }
}

impl Cancel {
    /// Takes `size` away from `order`.
    #[must_use]
    pub fn new(order: u64, size: u32) -> Self {
        let (size, order) = (U32::new(size), U64::new(order));
        Self { kind: CommandKind::Cancel as u8, reserved: [0; 3], size, order }
    }
}

impl Replace {
    /// Gives `order` another size and price.
    #[must_use]
    pub fn new(order: u64, size: u32, price: u64) -> Self {
        let (size, price, order) = (U32::new(size), U64::new(price), U64::new(order));
        Self { kind: CommandKind::Replace as u8, reserved: [0; 3], size, price, order }
    }
}

impl Delete {
    /// Takes `order` away.
    #[must_use]
    pub fn new(order: u64) -> Self {
        Self { kind: CommandKind::Delete as u8, reserved: [0; 7], order: U64::new(order) }
    }
}

impl SeedLevel {
    /// One level.
    #[must_use]
    pub fn new(side: Side, price: u64, size: u32) -> Self {
        let (price, size) = (U64::new(price), U32::new(size));
        Self { price, size, side: side as u8, reserved: [0; 3] }
    }
    /// Appends the command that seeds `levels` to `target`. Panics above [`SEED_LEVELS_MAX`].
    pub fn encode(levels: &[Self], target: &mut Vec<u8>) {
        assert!(levels.len() <= SEED_LEVELS_MAX, "more levels than one command holds");
        let count = levels.len() as u8;
        let head = Seed { kind: CommandKind::Seed as u8, levels: count, reserved: [0; 2] };
        target.extend_from_slice(head.as_bytes());
        target.extend_from_slice(levels.as_bytes());
    }
}

fn exact<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    bytes: &[u8],
) -> Result<&T, Rejection> {
    T::ref_from_bytes(bytes).map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_seen_as_written_and_at_their_exact_length_only() {
        let new = New::order(Side::Sell, 5, 77, 9, FLAG_POST_ONLY);
        assert_eq!(Command::parse(new.as_bytes()), Ok(Command::New(&new)));
        let mut seed = Vec::new();
        let levels = [SeedLevel::new(Side::Buy, 10, 3), SeedLevel::new(Side::Sell, 11, 4)];
        SeedLevel::encode(&levels, &mut seed);
        assert_eq!(Command::parse(&seed), Ok(Command::Seed(&levels)));
        let (cancel, replace, delete) = (Cancel::new(9, 1), Replace::new(9, 1, 2), Delete::new(9));
        let commands =
            [new.as_bytes(), &seed, cancel.as_bytes(), replace.as_bytes(), delete.as_bytes()];
        for command in commands {
            assert!(Command::parse(command).is_ok());
            let longer = [command, &[0]].concat();
            assert_eq!(Command::parse(&longer), Err(MALFORMED));
            for cut in 0..command.len() {
                assert_eq!(Command::parse(&command[..cut]), Err(MALFORMED));
            }
        }
        let mut dirty = new;
        dirty.reserved = 1;
        assert_eq!(Command::parse(dirty.as_bytes()), Err(MALFORMED));
        assert_eq!(Command::parse(&[7; 24]), Err(MALFORMED));
    }
}

//! The quantities of DESIGN §2 as types, so that no two of them are ever mixed up.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(/// One leadership. Term 0 is before the first.
    Term(u32));
number!(/// Entry number, +1 per entry; padding repeats it. 0 is before the first entry.
    Sequence(u64));
number!(/// Byte offset in the log since its birth.
    Position(u64));
number!(/// Index of a node in the group's founding list; never reused for another machine.
    NodeId(u16));
number!(/// A node's life as a voter: raised whenever it may have forgotten what it acknowledged.
    Incarnation(u32));
number!(/// A group's identity, drawn at founding.
    GroupId(u64));
number!(/// A client's session: the sequence of the entry that opened it.
    SessionId(u64));
number!(/// A client's own numbering of its commands, from 1.
    ClientSequence(u64));
number!(/// Running checksum of the log: the CRC-32C of the last frame, which started from the one before.
    Chain(u32));
number!(/// Counts cuts of a log, so that reports about bytes that are gone are recognised.
    CutEpoch(u32));
number!(/// Monotonic time in nanoseconds. Decisions use only this.
    Nanos(u64));
number!(/// Cluster time in nanoseconds since the Unix epoch. Recorded, never decided upon.
    Timestamp(u64));

/// A history of the group: a counter and a random draw, so that two sides that mint one apart never collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Generation {
    /// +1 for each unsafe act (compared first).
    pub counter: u32,
    /// Drawn at minting.
    pub random: u32,
}

impl Generation {
    /// The one number that stands for it on disk and on the wire.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        ((self.counter as u64) << 32) | self.random as u64
    }
    /// The inverse of [`Generation::to_u64`].
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // the two halves are what is wanted
    pub const fn from_u64(word: u64) -> Self {
        Self { counter: (word >> 32) as u32, random: word as u32 }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.counter, self.random)
    }
}

/// A leadership: terms are compared only within a generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Leadership {
    /// History in which the term was won.
    pub generation: Generation,
    /// Term.
    pub term: Term,
}

impl fmt::Display for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.generation, self.term)
    }
}

impl Position {
    /// `self + bytes`; overflow is impossible before 16 EiB of log and is an invariant.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
    /// Bytes from `earlier` to `self`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }
    /// Start of the segment of `segment_bytes` (a power of two) that holds this position.
    #[must_use]
    pub const fn segment_base(self, segment_bytes: u64) -> Self {
        Self(self.0 & !(segment_bytes - 1))
    }
}

impl Nanos {
    /// One microsecond.
    pub const MICROSECOND: u64 = 1_000;
    /// One millisecond.
    pub const MILLISECOND: u64 = 1_000_000;
    /// One second.
    pub const SECOND: u64 = 1_000_000_000;

    /// Later by `nanoseconds`, saturating: a deadline that far away never comes.
    #[must_use]
    pub const fn plus(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }
    /// Nanoseconds since `earlier`, 0 if that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Sequence {
    /// The entry after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

macro_rules! position_kind {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
        #[repr(transparent)]
        pub struct $name(pub Position);

        impl $name {
            /// The bare position, where positions of different kinds must be compared.
            #[must_use]
            pub const fn position(self) -> Position {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

position_kind!(/// End of the contiguous bytes that arrived: for flow control only.
    Received);
position_kind!(/// End of the last frame whose chain reaches back to this leader's log: counts for commit, apply and repair.
    Verified);
position_kind!(/// End of what the sync thread made durable on this node.
    Durable);
position_kind!(/// End of what the group has decided.
    Commit);
position_kind!(/// End of what the service has been given.
    Applied);
position_kind!(/// End of the last whole frame of a node's own chain, whoever led: elections compare it.
    Tail);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_round_trips_and_orders_by_counter() {
        let a = Generation { counter: 1, random: u32::MAX };
        let b = Generation { counter: 2, random: 0 };
        assert!(a < b && a.to_u64() < b.to_u64());
        assert_eq!(Generation::from_u64(a.to_u64()), a);
    }

    #[test]
    fn segment_base_is_the_start_of_the_segment() {
        assert_eq!(Position(0x2_0040).segment_base(0x1_0000), Position(0x2_0000));
        assert_eq!(Position(0x2_0000).segment_base(0x1_0000), Position(0x2_0000));
    }
}

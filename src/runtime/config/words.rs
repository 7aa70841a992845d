//! Settings that are one of a few words.

use crate::link::Rung;

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$about:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $type { $($(#[$about])* $variant,)* }

        impl $type {
            /// The words for them, in order.
            pub const NAMES: &'static [&'static str] = &[$($word),*];
            /// The word for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
            /// What the word stands for.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($word => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

words!(/// How the leader's bytes reach the others.
TransportKind {
    /// Multicast where a probe of it comes back, else unicast.
    Auto = "auto",
    /// One datagram for all.
    Multicast = "multicast",
    /// The same bytes to each.
    Unicast = "unicast",
});
words!(/// What the core thread does when there is nothing to do.
Idle {
    /// Spins or yields while there is traffic, parks after silence.
    Adaptive = "adaptive",
    /// Looks again at once.
    Spin = "spin",
    /// Gives its CPU away for a moment.
    Yield = "yield",
    /// Spins, then yields, then sleeps longer and longer.
    Backoff = "backoff",
    /// Sleeps until something arrives.
    Park = "park",
});
words!(/// Scheduling class of the core thread.
Scheduling {
    /// As everything else.
    Normal = "normal",
    /// Before everything else.
    Fifo = "fifo",
});
words!(/// The rungs of the durability ladder by name.
RungName {
    /// In the hot tier.
    Memory = "memory",
    /// On the disk.
    Disk = "disk",
});

impl From<RungName> for Rung {
    fn from(name: RungName) -> Self {
        match name {
            RungName::Memory => Self::Memory,
            RungName::Disk => Self::Disk,
        }
    }
}

//! What went over the lane, and what was turned away.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};

use crate::control::lane::wire::LaneError;
use crate::types::Position;

macro_rules! refused {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// Why something was turned away.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Refused { $($(#[$doc])* $name),* }

        impl Refused {
            const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

refused! {
    /// No member, or another one than its connection belongs to.
    Stranger = "stranger",
    /// Not a frame.
    Garbage = "garbage",
    /// A frame that is too long.
    Oversize = "oversize",
    /// Bytes that were changed on their way.
    Checksum = "checksum",
    /// Another version.
    Version = "version",
    /// Another group.
    Group = "group",
    /// Another generation.
    Generation = "generation",
    /// For another node.
    Misdirected = "misdirected",
    /// More connections, or questions, than anybody needs.
    TooMany = "too_many",
    /// Said nothing, or took nothing, for too long.
    TimedOut = "timed_out",
    /// There was no room for it in this node.
    NoRoom = "no_room",
}

impl From<LaneError> for Refused {
    fn from(error: LaneError) -> Self {
        match error {
            LaneError::Garbage => Self::Garbage,
            LaneError::Oversize => Self::Oversize,
            LaneError::Checksum => Self::Checksum,
            LaneError::Version(_) => Self::Version,
            LaneError::Group(_) => Self::Group,
            LaneError::Generation(_) => Self::Generation,
            LaneError::Misdirected(_) => Self::Misdirected,
        }
    }
}

/// Counted by the carrier, shown by control.
#[derive(Debug, Default)]
pub(in crate::runtime) struct CarrierCounts {
    refused: [AtomicU64; Refused::ALL.len()],
    taken_bytes: AtomicU64,
    served_bytes: AtomicU64,
    /// Where the log could not be read for another node, and 1 more; 0: nowhere that control does not know of.
    unreadable: AtomicU64,
}

impl CarrierCounts {
    pub(super) fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }
    pub(super) fn took(&self, bytes: usize) {
        self.taken_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    pub(super) fn served(&self, bytes: usize) {
        self.served_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn could_not_read(&self, position: Position) {
        self.unreadable.store(position.0 + 1, Ordering::Relaxed);
    }
    /// Where the log could not be read since the last time.
    pub(in crate::runtime) fn take_unreadable(&self) -> Option<Position> {
        self.unreadable.swap(0, Ordering::Relaxed).checked_sub(1).map(Position)
    }

    /// For `quorate status`.
    pub(in crate::runtime) fn json(&self) -> Value {
        let count = |counter: &AtomicU64| Value::from(counter.load(Ordering::Relaxed));
        let refused: Map<_, _> = Refused::ALL
            .iter()
            .map(|(why, text)| ((*text).to_owned(), count(&self.refused[*why as usize])))
            .collect();
        let mut all = Map::new();
        all.insert("taken_bytes".into(), count(&self.taken_bytes));
        all.insert("served_bytes".into(), count(&self.served_bytes));
        all.insert("refused".into(), refused.into());
        all.into()
    }
}

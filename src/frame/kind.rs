//! What an entry of the log is.

/// The kind of a frame. The numbers are the format; 0 is never a kind, so zeroed memory is never a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Fills a segment to its end; repeats the sequence of the entry before it.
    Padding = 1,
    /// Opens a leadership.
    TermStart = 2,
    /// Opens a client's session.
    SessionOpen = 3,
    /// Closes a client's session.
    SessionClose = 4,
    /// One command of a client.
    Command = 5,
    /// Several commands of a client that take effect together or not at all.
    CommandBatch = 6,
    /// A timer of the service fires.
    Timer = 7,
    /// Events up to here have reached the outside.
    EventCursor = 8,
    /// A snapshot was taken.
    SnapshotMark = 9,
    /// The member list.
    Membership = 10,
    /// A record of a location.
    Location = 11,
    /// A group-wide setting.
    GroupSetting = 12,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Padding,
        Self::TermStart,
        Self::SessionOpen,
        Self::SessionClose,
        Self::Command,
        Self::CommandBatch,
        Self::Timer,
        Self::EventCursor,
        Self::SnapshotMark,
        Self::Membership,
        Self::Location,
        Self::GroupSetting,
    ];

    /// The kind with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1..=12 => Some(Self::ALL[number as usize - 1]),
            _ => None,
        }
    }

    /// Its name in tools and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Padding => "padding",
            Self::TermStart => "term-start",
            Self::SessionOpen => "session-open",
            Self::SessionClose => "session-close",
            Self::Command => "command",
            Self::CommandBatch => "command-batch",
            Self::Timer => "timer",
            Self::EventCursor => "event-cursor",
            Self::SnapshotMark => "snapshot-mark",
            Self::Membership => "membership",
            Self::Location => "location",
            Self::GroupSetting => "group-setting",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_nothing_else_is_a_kind() {
        for number in 0..=u8::MAX {
            match Kind::from_u8(number) {
                Some(kind) => assert_eq!(kind as u8, number),
                None => assert!(number == 0 || number > 12),
            }
        }
    }
}

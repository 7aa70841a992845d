//! What must be the same on all nodes of a group, and who is refused because it is not.
//!
//! Every control datagram carries the sender's constants, and the [`Door`] looks at them before any machine that decides
//! hears the message: a vote, a call or a state hash of a node that would decide differently never counts.

use core::fmt;

use super::event::{Event, IntruderReason};
use super::message::Envelope;
use crate::frame::crc::crc32c;
use crate::limits::NODES_MAX;
use crate::types::NodeId;

macro_rules! constants {
    ($($(#[$doc:meta])* $variant:ident = $key:literal, $form:ident;)*) => {
        /// One setting of which all nodes have the same value.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Constant { $($(#[$doc])* $variant,)* }

        impl Constant {
            /// All of them, in the order in which they travel.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// The key of the configuration.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$variant => $key,)* }
            }
            /// What its number stands for.
            #[must_use]
            pub const fn form(self) -> Form {
                match self { $(Self::$variant => Form::$form,)* }
            }
        }
    };
}

constants! {
    /// Name of the service.
    Service = "group.service", Digest;
    /// Orders that a book holds.
    BookOrders = "group.book.orders_max", Number;
    /// Price levels of a side of a book.
    BookLevels = "group.book.levels_max", Number;
    /// Orders that one command may change.
    BookChanges = "group.book.changes_max", Number;
    /// Payload of a segment.
    SegmentBytes = "group.segment_bytes", Number;
    /// Window of the replication stream.
    WindowBytes = "group.window_bytes", Number;
    /// Largest command.
    CommandBytes = "group.command_bytes_max", Number;
    /// What counts for commit on a leader.
    LeaderRung = "group.durability.leader", Rung;
    /// What counts for commit on a follower.
    FollowerRung = "group.durability.follower", Rung;
    /// Entries between two comparisons of state hashes.
    HashInterval = "group.state_hash_interval", Number;
    /// Sessions open at once.
    Sessions = "group.sessions_max", Number;
    /// Commands of a session unanswered at once.
    InFlight = "group.session_in_flight_max", Number;
    /// Room for kept replies.
    ReplyBytes = "group.reply_bytes_total", Number;
    /// Room for those of one session.
    SessionReplyBytes = "group.session_reply_bytes", Number;
    /// Where the nodes take datagrams, in order.
    DataAddresses = "members.*.data", Digest;
    /// Where their control threads are reached, in order.
    ControlAddresses = "members.*.control", Digest;
    /// Who may lead before whom, in order.
    Priorities = "members.*.priority", Digest;
    /// Who neither votes nor counts, in order.
    Observers = "members.*.observer", Digest;
}

/// What the number of a [`Constant`] stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Itself.
    Number,
    /// A rung of the durability ladder: 0 memory, 1 disk.
    Rung,
    /// A text, by its CRC-32C; of a list, each item followed by a newline.
    Digest,
}

/// The values of all constants on one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GroupConstants([u64; GroupConstants::COUNT]);

/// The first constant that differs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Difference {
    /// Which.
    pub constant: Constant,
    /// Value of the other node.
    pub theirs: u64,
    /// Value of this one.
    pub ours: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { constant, theirs, ours } = self;
        let key = constant.key();
        let rung = |value: u64| if value == 0 { "memory" } else { "disk" };
        match constant.form() {
            Form::Number => write!(f, "{key} = {theirs}, this node {ours}"),
            Form::Rung => write!(f, "{key} = {}, this node {}", rung(*theirs), rung(*ours)),
            Form::Digest => write!(f, "another {key} than this node"),
        }
    }
}

impl GroupConstants {
    /// How many there are.
    pub const COUNT: usize = Constant::ALL.len();

    /// Asks for the value of each.
    #[must_use]
    pub fn from_fn(mut value: impl FnMut(Constant) -> u64) -> Self {
        Self(core::array::from_fn(|place| value(Constant::ALL[place])))
    }

    /// As they travel: one number for each, in the order of [`Constant::ALL`].
    #[must_use]
    pub const fn from_numbers(numbers: [u64; Self::COUNT]) -> Self {
        Self(numbers)
    }

    /// The numbers.
    #[must_use]
    pub const fn numbers(&self) -> &[u64; Self::COUNT] {
        &self.0
    }

    /// Where `theirs` differ from these.
    #[must_use]
    pub fn difference(&self, theirs: &Self) -> Option<Difference> {
        let place = (0..Self::COUNT).find(|place| self.0[*place] != theirs.0[*place])?;
        let (theirs, ours) = (theirs.0[place], self.0[place]);
        Some(Difference { constant: Constant::ALL[place], theirs, ours })
    }

    /// The number of a text.
    #[must_use]
    pub fn digest(text: &str) -> u64 {
        crc32c(0, text.as_bytes()).into()
    }
}

/// Lets nodes in whose constants are those of this group, and that speak from where the member list has them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Door {
    constants: GroupConstants,
    /// Why a node was refused last: each reason is told once. The last place is for all that no list of members can hold.
    told: [Option<IntruderReason>; NODES_MAX + 1],
}

/// A message that must not be listened to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// To be told, unless it was already.
    pub event: Option<Event>,
}

impl Door {
    /// The door of a node with these constants.
    #[must_use]
    pub const fn new(constants: GroupConstants) -> Self {
        Self { constants, told: [None; NODES_MAX + 1] }
    }

    /// The constants of this node.
    #[must_use]
    pub const fn constants(&self) -> &GroupConstants {
        &self.constants
    }

    /// Judges a message with the constants that came with it; `listed`: it comes from the address that the member list has
    /// for the node that it names.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(
        &mut self,
        envelope: &Envelope,
        theirs: &GroupConstants,
        listed: bool,
    ) -> Result<(), Refused> {
        let place = usize::from(envelope.from.0).min(NODES_MAX);
        let why = match self.constants.difference(theirs) {
            Some(difference) => IntruderReason::Constant(difference),
            None if !listed => IntruderReason::Unknown,
            None => {
                self.told[place] = None;
                return Ok(());
            }
        };
        let before = self.told[place].replace(why);
        let event = Event::Intruder { node: NodeId(envelope.from.0), why };
        Err(Refused { event: (before != Some(why)).then_some(event) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::Message;
    use crate::types::Leadership;

    fn envelope(node: u16) -> Envelope {
        Envelope { from: NodeId(node), leadership: Leadership::default(), message: Message::Stand }
    }

    fn ours() -> GroupConstants {
        GroupConstants::from_fn(|constant| constant as u64 + 100)
    }

    #[test]
    fn every_constant_that_differs_is_named_with_both_values() {
        for &constant in Constant::ALL {
            let theirs =
                GroupConstants::from_fn(|other| other as u64 + 100 + u64::from(other == constant));
            let found = ours().difference(&theirs).unwrap();
            let value = constant as u64 + 100;
            assert_eq!(found, Difference { constant, theirs: value + 1, ours: value });
            let mut door = Door::new(ours());
            let text = door.admit(&envelope(2), &theirs, true).unwrap_err().event.unwrap();
            let text = text.to_string();
            assert!(
                text.starts_with("Q-1008 node 2 has ") && text.contains(constant.key()),
                "{text}"
            );
        }
        assert_eq!(ours().difference(&ours()), None);
    }

    #[test]
    fn each_reason_is_told_once_until_the_node_was_let_in() {
        let mut door = Door::new(ours());
        let other = GroupConstants::from_fn(|_| 7);
        let mut told = |node, theirs, listed| match door.admit(&envelope(node), &theirs, listed) {
            Ok(()) => None,
            Err(refused) => Some(refused.event.is_some()),
        };
        assert_eq!(told(1, other, true), Some(true));
        assert_eq!(told(1, other, true), Some(false));
        assert_eq!(told(2, other, true), Some(true), "of each node by itself");
        assert_eq!(told(1, ours(), false), Some(true), "another reason");
        assert_eq!(told(1, ours(), true), None);
        assert_eq!(told(1, other, true), Some(true));
        assert_eq!(told(99, ours(), false), Some(true));
        assert_eq!(
            told(999, ours(), false),
            Some(false),
            "numbers that no list holds share a place"
        );
    }
}

//! What travels when a client asks one node by itself, whoever leads: a question in one datagram, and an answer that states
//! how far the node's state is and how old it may be.
//!
//! ```text
//!  client --LocalQuery--> any node --CommitQuestion--> its leader
//!  client <-LocalAnswer-- any node <--CommitAnswer---- its leader
//! ```
//!
//! A reply may take several datagrams. Each begins with the whole [`LocalAnswerBody`], and the header's `position` says where
//! in the reply its bytes belong; those of one answer have the same `stamp`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// [`LocalQueryBody::within`]: however old the state is. [`LocalAnswerBody::lag`] and `heard`: nobody can tell.
pub const ANY_AGE_NS: u64 = u64::MAX;

/// A question to one node. What is asked follows.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LocalQueryBody {
    /// Drawn by the client: tells clients at one address apart.
    pub nonce: U64,
    /// The client's number for it.
    pub number: U64,
    /// The answer holds all that anybody was told up to so long before the question came, ns; [`ANY_AGE_NS`]: what there is.
    pub within: U64,
    /// The answer holds this entry of the log; 0: any.
    pub at_least: U64,
    /// How long the question may wait for that, ns.
    pub wait: U64,
}

/// The answer of a node. The reply follows, or a part of it.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LocalAnswerBody {
    /// Of the question.
    pub nonce: U64,
    /// Of the question.
    pub number: U64,
    /// [`LocalOutcome`].
    pub outcome: u8,
    /// Reserved, 0.
    pub reserved: u8,
    /// Of a rejection.
    pub code: U16,
    /// Bytes of the whole reply.
    pub length: U32,
    /// Term of the last entry that the answer holds.
    pub term: U32,
    /// Reserved, 0.
    pub reserved_term: U32,
    /// Where that entry ends.
    pub applied: U64,
    /// Its number.
    pub sequence: U64,
    /// The answer holds all that anybody was told up to so long before it was given, ns; [`ANY_AGE_NS`]: nobody can tell.
    pub lag: U64,
    /// How long ago something of the leader was taken in, ns; 0 on the leader; [`ANY_AGE_NS`]: nobody is followed, or heard.
    pub heard: U64,
}

/// What became of a question to one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum LocalOutcome {
    /// Answered as was asked.
    Answered = 1,
    /// The service (or the engine, by its codes) refused it. `code` says why.
    Rejected = 2,
    /// In the time it could wait, the node could not make sure that its state is as fresh as was asked.
    TooStale = 3,
    /// In the time it could wait, the entry that the answer had to hold did not come.
    Behind = 4,
    /// The node is stopping, or has stopped for good.
    Stopping = 5,
    /// As many questions wait as may.
    BackPressure = 6,
    /// It is longer than a node takes.
    TooLong = 7,
}

impl LocalOutcome {
    /// The outcome with this number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Answered,
            2 => Self::Rejected,
            3 => Self::TooStale,
            4 => Self::Behind,
            5 => Self::Stopping,
            6 => Self::BackPressure,
            7 => Self::TooLong,
            _ => return None,
        })
    }
}

/// A follower asks its leader where everything ends that anybody in the group was told by now.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CommitQuestion {
    /// Number of the question: the answer is bound to it.
    pub number: U64,
}

/// The leader's answer, once a quorum has echoed a stamp that it took after the question came.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct CommitAnswer {
    /// The question it answers.
    pub number: U64,
    /// Everything that anybody was told before the question was asked ends here or below.
    pub commit: U64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_nothing_else_is_an_outcome() {
        for number in 0..=u8::MAX {
            let outcome = LocalOutcome::from_u8(number);
            assert_eq!(outcome.is_some(), (1..=7).contains(&number));
            assert!(outcome.is_none_or(|outcome| outcome as u8 == number));
        }
    }

    #[test]
    fn a_question_and_an_answer_fit_where_the_limits_say() {
        assert_eq!((size_of::<LocalQueryBody>(), size_of::<LocalAnswerBody>()), (40, 64));
        let smallest = crate::limits::DATAGRAM_BYTES_MIN - crate::limits::DATAGRAM_HEADER_BYTES;
        assert!(size_of::<LocalAnswerBody>() + 64 <= smallest, "and some bytes of a reply");
    }
}

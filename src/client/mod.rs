//! The client library: a session with the group, by polling. No thread, no clock, no runtime of its own.
//!
//! ```text
//!            send / try_claim / query                poll
//!  program --------------------------> outbox --> lane --> node
//!  program <-------------------------- handler <- lane <-- node
//!              one answer per request
//! ```
//!
//! Every command taken by [`Client::send`] takes effect once, whatever becomes of nodes and datagrams: it is kept until
//! its answer is here, and sent again, under the same number, to whoever leads next. Each request ends in one
//! [`Answer`]; only when the session is lost, or the program gives up waiting, is that [`Outcome::Unknown`]. A program that
//! kept its commands can ask later, as long as the group keeps the session: a client with the [`SessionTicket`] of the
//! earlier one sends them again, under the same numbers, and each ends as it was decided.
//!
//! A [`Reader`] is the other way to ask: one node by itself, without a session, from a state that may be old and says how old.

mod connect;
mod core;
mod outbox;
mod reader;
mod session;
mod settings;
mod ticket;

pub use self::core::{Claim, Client};
pub use reader::{
    Demand, Lag, READS_MAX, ReadOutcome, ReadRefusal, Reader, ReaderCounters, Reading,
};
pub use settings::{
    CLIENT_NAME_BYTES_MAX, ClientSettings, ClientSettingsError, FORWARD_AFTER_NS_DEFAULT,
    SESSION_TIMEOUT_NS_DEFAULT,
};

pub use ticket::{BadTicket, SessionTicket};

use std::fmt;

use crate::types::{ClientSequence, Sequence};

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Request {
    /// A command, or a batch of them.
    Command(ClientSequence),
    /// A query, numbered apart from the commands.
    Query(u64),
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Done.
    Applied,
    /// Refused by the service or the engine, without a trace.
    Rejected {
        /// Why: the service's own code, or one of the engine's (from 0xFF00 up).
        code: u16,
    },
    /// Decided earlier, but the reply is no longer kept.
    Forgotten,
    /// Longer than the group takes now: it took no effect. The session ends, because its numbers no longer fit.
    TooLong,
    /// It took effect or not: the session is gone, or nobody waits any longer.
    Unknown,
}

/// The end of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    /// Of which request.
    pub request: Request,
    /// What became of it.
    pub outcome: Outcome,
    /// The entry of the log that decided it, 0 if none.
    pub sequence: Sequence,
    /// The service's reply.
    pub reply: &'a [u8],
}

/// Why a request is not taken. Nothing was sent and no number was used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// No node has welcomed this client (again) yet.
    NotConnected,
    /// As much as may be waits for answers.
    BackPressured,
    /// The node that was found hears no quorum, or no leader with one: [`Client::no_quorum_since`] tells since when.
    NoQuorum,
    /// The leader has no room for more of the log, and turns away what was sent before: [`Client::no_space_since`] tells since
    /// when. What was sent is sent again until there is room.
    NoSpace,
    /// It is longer than the group takes.
    TooLong {
        /// As given, in bytes.
        bytes: usize,
        /// What is allowed, in bytes.
        bytes_max: usize,
    },
    /// The session has ended.
    Closed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => write!(f, "no node has welcomed this client"),
            Self::BackPressured => write!(f, "too much waits for answers"),
            Self::NoQuorum => write!(f, "there is no quorum (NO_QUORUM)"),
            Self::NoSpace => write!(f, "the leader has no room on its disk (NO_SPACE)"),
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "{bytes} bytes, at most {bytes_max} are taken")
            }
            Self::Closed => write!(f, "the session has ended"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Where the client is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClientState {
    /// It looks for the leader.
    Connecting,
    /// It has a lane.
    Open,
    /// Those it reaches say that there is no quorum; it goes on asking.
    NoQuorum,
    /// The leader has no room for more of the log; it goes on asking.
    NoSpace,
    /// It has asked to close and waits for what is unanswered.
    Closing,
    /// Nothing more happens.
    Closed(CloseCause),
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseCause {
    /// The program asked.
    Asked,
    /// The group no longer knows the session: it was silent for too long.
    SessionLost,
    /// A command was too long for the group.
    TooLong,
    /// The program gave up waiting.
    GaveUp,
}

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ClientCounters {
    /// Hellos sent.
    pub hellos: u64,
    /// Lanes begun.
    pub lanes: u64,
    /// Redirects followed.
    pub redirects: u64,
    /// Lanes begun through a node that passes on what leader and client say to each other.
    pub forwarded: u64,
    /// Answers given to the program.
    pub answers: u64,
    /// Answers that came again.
    pub duplicates: u64,
    /// Datagrams that were not for this client, or not understood.
    pub dropped: u64,
}

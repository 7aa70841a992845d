//! What a client is built with, checked once.

use core::fmt;
use core::net::SocketAddr;

use super::ticket::SessionTicket;
use crate::limits::{LANE_MESSAGE_BYTES_MAX, LANE_WINDOW_BYTES_DEFAULT, SESSION_IN_FLIGHT_MAX};
use crate::stream::EndSettings;
use crate::types::{GroupId, Nanos};

/// Longest name of a client, in bytes of UTF-8.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// Default of [`ClientSettings::session_timeout_ns`].
pub const SESSION_TIMEOUT_NS_DEFAULT: u64 = 10 * Nanos::SECOND;
/// Default of [`ClientSettings::forward_after_ns`].
pub const FORWARD_AFTER_NS_DEFAULT: u64 = 100 * Nanos::MILLISECOND;

/// What a client is built with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientSettings {
    /// The group.
    pub group: GroupId,
    /// Addresses of its members; any one that lives is enough.
    pub members: Vec<SocketAddr>,
    /// A name for people, up to [`CLIENT_NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Draws the nonce of the session and the epochs of its lanes: must differ between any two clients of the group, so it
    /// comes from the host's randomness.
    pub seed: u64,
    /// Goes on with the session of an earlier client instead of opening one. What that one had no answer to is sent again
    /// first, in the same order: it gets the same numbers, and the answers that were decided.
    pub resume: Option<SessionTicket>,
    /// Silence after which the group may close the session, in nanoseconds.
    pub session_timeout_ns: u64,
    /// Silence of the node, while it owes something, after which the leader is looked for again, in nanoseconds.
    pub reconnect_ns: u64,
    /// How long a request waits for its answer on a lane that lives before the leader is looked for again, in nanoseconds.
    pub answer_timeout_ns: u64,
    /// How long a leader that a node names may fail to answer before that node is asked to pass on what client and leader say
    /// to each other, in nanoseconds. 0: as soon as the first redirect has come to nothing. `u64::MAX`: never.
    pub forward_after_ns: u64,
    /// Requests that may be unanswered at once, at most [`SESSION_IN_FLIGHT_MAX`].
    pub in_flight_max: usize,
    /// Memory for unanswered requests, in bytes; at least twice the largest message.
    pub buffer_bytes: usize,
    /// Its end of the lane. The window must be that of the nodes.
    pub end: EndSettings,
}

impl ClientSettings {
    /// The defaults.
    #[must_use]
    pub fn new(group: GroupId, members: Vec<SocketAddr>, seed: u64) -> Self {
        Self {
            group,
            members,
            name: String::new(),
            seed,
            resume: None,
            session_timeout_ns: SESSION_TIMEOUT_NS_DEFAULT,
            reconnect_ns: 150 * Nanos::MILLISECOND,
            answer_timeout_ns: Nanos::SECOND,
            forward_after_ns: FORWARD_AFTER_NS_DEFAULT,
            in_flight_max: SESSION_IN_FLIGHT_MAX,
            buffer_bytes: 4 * 1024 * 1024,
            end: EndSettings {
                window_bytes: LANE_WINDOW_BYTES_DEFAULT,
                status_delay_ns: 50 * Nanos::MICROSECOND,
                heartbeat_ns: 20 * Nanos::MILLISECOND,
                keep_alive_ns: Nanos::SECOND,
                round_trip_ns: 200 * Nanos::MICROSECOND,
            },
        }
    }
    /// Whether they can work.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ClientSettingsError> {
        let bytes = self.name.len();
        if self.members.is_empty() {
            Err(ClientSettingsError::NoMembers)
        } else if bytes > CLIENT_NAME_BYTES_MAX {
            Err(ClientSettingsError::NameTooLong { bytes })
        } else if self.buffer_bytes < 2 * LANE_MESSAGE_BYTES_MAX {
            Err(ClientSettingsError::BufferTooSmall { bytes: self.buffer_bytes })
        } else if !(1..=SESSION_IN_FLIGHT_MAX).contains(&self.in_flight_max) {
            Err(ClientSettingsError::InFlight { in_flight: self.in_flight_max })
        } else if self.end.keep_alive_ns > self.session_timeout_ns / 2 {
            Err(ClientSettingsError::KeepAlive { keep_alive_ns: self.end.keep_alive_ns })
        } else if self.end.heartbeat_ns == 0 || self.end.window_bytes == 0 {
            Err(ClientSettingsError::Zero)
        } else {
            Ok(())
        }
    }
}

/// The rule that settings break.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ClientSettingsError {
    /// No member is named.
    NoMembers,
    /// The name is longer than [`CLIENT_NAME_BYTES_MAX`].
    NameTooLong {
        /// Its length, in bytes.
        bytes: usize,
    },
    /// The buffer holds fewer than two of the largest messages.
    BufferTooSmall {
        /// As given, in bytes.
        bytes: usize,
    },
    /// None, or more than [`SESSION_IN_FLIGHT_MAX`], may be unanswered.
    InFlight {
        /// As given.
        in_flight: usize,
    },
    /// The client would be silent for more than half of the session's time-out.
    KeepAlive {
        /// As given, in nanoseconds.
        keep_alive_ns: u64,
    },
    /// The heartbeat or the window is 0.
    Zero,
}

impl fmt::Display for ClientSettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMembers => write!(f, "no member of the group is named: name at least one"),
            Self::NameTooLong { bytes } => write!(
                f,
                "the client's name has {bytes} bytes: at most {CLIENT_NAME_BYTES_MAX} are allowed"
            ),
            Self::BufferTooSmall { bytes } => write!(
                f,
                "a buffer of {bytes} bytes is too small: at least {} are needed",
                2 * LANE_MESSAGE_BYTES_MAX
            ),
            Self::InFlight { in_flight } => write!(
                f,
                "{in_flight} unanswered requests: from 1 to {SESSION_IN_FLIGHT_MAX} are allowed"
            ),
            Self::KeepAlive { keep_alive_ns } => write!(
                f,
                "a keep-alive of {keep_alive_ns} ns is more than half of the session's time-out"
            ),
            Self::Zero => write!(f, "neither the heartbeat nor the window may be 0"),
        }
    }
}

impl core::error::Error for ClientSettingsError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_named() {
        let member = SocketAddr::from(([127, 0, 0, 1], 1));
        let good = ClientSettings::new(GroupId(1), vec![member], 1);
        assert_eq!(good.check(), Ok(()));
        let broken = |change: &dyn Fn(&mut ClientSettings)| {
            let mut settings = good.clone();
            change(&mut settings);
            settings.check().expect_err("broken")
        };
        assert_eq!(broken(&|s| s.members.clear()), ClientSettingsError::NoMembers);
        let bytes = 65;
        assert_eq!(
            broken(&|s| s.name = "x".repeat(bytes)),
            ClientSettingsError::NameTooLong { bytes }
        );
        assert_eq!(
            broken(&|s| s.buffer_bytes = 5),
            ClientSettingsError::BufferTooSmall { bytes: 5 }
        );
        assert_eq!(
            broken(&|s| s.in_flight_max = 0),
            ClientSettingsError::InFlight { in_flight: 0 }
        );
        assert_eq!(
            broken(&|s| s.end.keep_alive_ns = u64::MAX),
            ClientSettingsError::KeepAlive { keep_alive_ns: u64::MAX }
        );
        assert_eq!(broken(&|s| s.end.heartbeat_ns = 0), ClientSettingsError::Zero);
        let text = ClientSettingsError::NameTooLong { bytes }.to_string();
        assert!(text.contains("65") && text.contains("64"), "{text}");
    }
}

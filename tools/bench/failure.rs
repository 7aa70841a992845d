//! Why a measurement did not come about.

use std::fmt;
use std::io;

use quorate::error::{EXIT_FAILURE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::io::cpu::Refused;

/// The reasons.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A setting that cannot be, and what would be right.
    Usage(String),
    /// A process that was needed did not do its part.
    Child {
        /// Which.
        verb: &'static str,
        /// What happened.
        what: String,
    },
    /// The host refused something.
    Host {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        error: io::Error,
    },
    /// The host did not grant a placement.
    Refused(Refused),
    /// Ctrl-C, or a request to end.
    Interrupted,
}

impl Failure {
    /// As `map_err` wants it: names what was asked of the host.
    pub(crate) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Host { what, error }
    }

    /// Exit code of the program.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Interrupted => EXIT_FINDINGS,
            Self::Child { .. } | Self::Host { .. } | Self::Refused(_) => EXIT_FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => f.write_str(what),
            Self::Child { verb, what } => write!(f, "process {verb}: {what}"),
            Self::Host { what, error } => write!(f, "{what}: {error}"),
            Self::Refused(refused) => write!(f, "{refused}"),
            Self::Interrupted => f.write_str("interrupted: nothing is reported"),
        }
    }
}

//! Where a thread runs, and how: CPU, scheduling class, locked memory, name.
//!
//! All of it is a wish: what the host does not grant is a [`Refused`], of which the caller makes one warning.
#![allow(unsafe_code)]

use core::fmt;
use std::io;

/// Something the host did not grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// What was asked for.
    pub what: String,
    /// The host's reason.
    pub why: String,
}

impl Refused {
    pub(crate) fn host(what: impl Into<String>, error: &io::Error) -> Self {
        Self { what: what.into(), why: error.to_string() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: not granted: {}", self.what, self.why)
    }
}

//! What is wrong at a place of a log, and how bad that is.

use core::fmt;

use serde_json::{Value, json};

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS};
use quorate::frame::{FrameError, Predecessor};
use quorate::journal::reader::{Cause, Trouble};
use quorate::journal::seal::Seal;
use quorate::types::Position;

/// A range of a log that could not be decoded.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Problem {
    /// The file, as far as there is one.
    pub(crate) file: String,
    /// Where in it.
    pub(crate) offset: u64,
    /// First position that is not decoded.
    pub(crate) from: Position,
    /// Where decoding goes on; none: nowhere.
    pub(crate) to: Option<Position>,
    /// What it is.
    pub(crate) what: What,
    /// The rule that is broken, in words.
    pub(crate) rule: String,
}

/// What a problem is, by what was promised about its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum What {
    /// Bytes of padding that are not zero. No checksum covers them and no entry is the worse for it, but something wrote
    /// there.
    Stray,
    /// Never promised: a write that a crash cut short. A start of the node cuts it.
    Torn,
    /// A sync was asked for and perhaps returned: a start of the node cuts it and comes back provisional.
    Doubtful,
    /// Promised, and not there.
    Missing,
    /// Promised, and damaged.
    Damaged,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Stray => "stray",
            Self::Torn => "torn",
            Self::Doubtful => "doubtful",
            Self::Missing => "missing",
            Self::Damaged => "damaged",
        }
    }

    /// The exit code of a verb that decodes. `findings`: also what is no damage counts.
    pub(crate) fn code(self, findings: bool) -> u8 {
        match self {
            Self::Stray | Self::Torn | Self::Doubtful if findings => EXIT_FINDINGS,
            Self::Stray | Self::Torn | Self::Doubtful => EXIT_DONE,
            Self::Missing | Self::Damaged => EXIT_FAILURE,
        }
    }
}

/// Judges the place where a walk stopped. `resumes`: something behind it chains again.
pub(crate) fn judge(trouble: &Trouble, seal: Option<Seal>, resumes: bool) -> What {
    let absent = match &trouble.cause {
        Cause::Frame(FrameError::Unpublished) => true,
        // Not even a header: the file ends, or is not there.
        Cause::Frame(FrameError::Short { needed }) => *needed <= 32,
        _ => false,
    };
    let promised = if absent { What::Missing } else { What::Damaged };
    match seal {
        Some(seal) if trouble.position < seal.certain.position => promised,
        Some(seal) if trouble.position < seal.claimed.position => What::Doubtful,
        // Nobody says what was promised: a log that goes on behind it was whole once.
        None if resumes => promised,
        _ => What::Torn,
    }
}

impl Problem {
    pub(crate) fn json(&self) -> Value {
        json!({
            "problem": self.what.name(),
            "file": self.file,
            "offset": self.offset,
            "from": self.from.0,
            "to": self.to.map(|to| to.0),
            "rule": self.rule,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, from, what, rule, .. } = self;
        write!(f, "{} at {from} ({file} at byte {offset}): {rule}; ", what.name())?;
        match self.to {
            Some(to) if *what == What::Stray => {
                write!(f, "{} bytes, of no entry", to.since(*from))
            }
            Some(to) => {
                write!(f, "goes on at {to}, {} bytes are not decoded", to.since(*from))
            }
            None => write!(f, "nothing behind it can be decoded"),
        }
    }
}

/// A header page or a seal speaks of another predecessor than the frames do.
pub(crate) fn contradiction(what: &str, says: Predecessor, frames: Predecessor) -> String {
    let show = |at: Predecessor| {
        format!("sequence {}, term {}, checksum {:08x}", at.sequence, at.term, at.chain.0)
    };
    format!("{what} says {}, the frames {}", show(says), show(frames))
}

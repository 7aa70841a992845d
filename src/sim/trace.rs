//! What happened in a run: always as a hash, so that two runs of a seed can be compared, and as text where somebody reads it.

use std::collections::VecDeque;

use crate::service::hash::Fingerprint;
use crate::types::Nanos;

/// Lines kept, at most: the last ones.
const LINES_MAX: usize = 100_000;

/// The trace of a run.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    /// An empty one, with text or without.
    pub(super) fn new(text: bool) -> Self {
        Self { hash: 0, lines: text.then(VecDeque::new) }
    }

    /// Something happened: `what` in numbers.
    pub(super) fn event(&mut self, now: Nanos, what: [u64; 3]) {
        let [first, second, third] = what;
        let hash = Fingerprint::new(self.hash).word(now.0);
        self.hash = hash.word(first).word(second).word(third).finish();
    }

    /// The same in words, if anybody reads them.
    pub(super) fn line(&mut self, now: Nanos, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            let (seconds, micros) = (now.0 / Nanos::SECOND, now.0 % Nanos::SECOND / 1000);
            lines.push_back(format!("{seconds:>3}.{micros:06}  {}", text()));
        }
    }

    /// The hash of everything so far.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// The text so far.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default().into()
    }
}

//! What control hears of this node's disk, and tells of it.

use serde_json::{Value, json};

use super::events::EventSink;
use crate::control::disk::{DiskFacts, DiskSettings, DiskWatch};
use crate::control::election::Election;
use crate::link::SharedWords;
use crate::types::Nanos;

/// The watch over a disk, and what it found last.
pub(super) struct DiskDesk {
    watch: DiskWatch,
    facts: DiskFacts,
}

impl DiskDesk {
    pub(super) fn new(settings: DiskSettings) -> Self {
        Self { watch: DiskWatch::new(settings), facts: DiskFacts::default() }
    }

    /// Looks at what the sync thread and the keeper share; tells the election and whoever reads the events.
    pub(super) fn look(
        &mut self,
        now: Nanos,
        words: &SharedWords,
        machine: &mut Election,
        events: &mut EventSink,
    ) {
        self.facts = DiskFacts::of(words);
        self.watch.look(now, self.facts);
        machine.set_disk(now, self.watch.state());
        while let Some(event) = self.watch.poll() {
            events.event(&event);
        }
    }

    /// For the status.
    pub(super) fn json(&self) -> Value {
        json!({
            "state": self.watch.state().name(),
            "free_bytes": self.facts.free_bytes,
            "segments_blocked": self.facts.blocked,
        })
    }
}

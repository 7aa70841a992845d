//! What recovery found and did, for people and for programs.

use core::fmt;

use super::scan::Scan;
use crate::journal::node_state::{NodeState, StartDecision};
use crate::journal::recovery_table::{Decision, Finding, Zone};
use crate::types::{Incarnation, Position, Sequence};

/// What recovery found and did. Its `Display` is one line of `key=value` pairs.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own, told on one line
pub struct RecoveryReport {
    /// End of the log.
    pub tail: Position,
    /// Sequence of its last entry.
    pub sequence: Sequence,
    /// Why it ends there.
    pub finding: Finding,
    /// Where that is.
    pub zone: Zone,
    /// What was decided.
    pub decision: Decision,
    /// End of what was certain.
    pub certain: Position,
    /// End of what was claimed.
    pub claimed: Position,
    /// Bytes that were only in the hot tier and are on the disk now.
    pub from_hot_bytes: u64,
    /// Position at which the disk's bytes were bad below the end of the log, and good in the hot tier.
    pub repaired_at: Option<Position>,
    /// Segment files written anew.
    pub rewritten: Vec<Position>,
    /// What was cut, if anything.
    pub cut: Option<CutReport>,
    /// Segment files that did not adjoin the log, where they are now.
    pub moved: Vec<String>,
    /// A cut that was recorded before the crash has been finished.
    pub finished_cut: bool,
    /// The last stop was an orderly one.
    pub clean_start: bool,
    /// The hot tier is the one of last time, and whole.
    pub hot_intact: bool,
    /// Segment files were found and no node state: whatever this node promised is unknown.
    pub state_missing: bool,
    /// The node is provisional from here on.
    pub provisional: bool,
    /// Its incarnation.
    pub incarnation: Incarnation,
}

/// Bytes that recovery took out of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CutReport {
    /// First byte cut.
    pub from: Position,
    /// End of the bytes found.
    pub to: Position,
    /// Whole frames among them, as far as they can be told apart.
    pub entries: u64,
    /// The file that keeps them.
    pub kept_at: String,
    /// They may have been promised.
    pub promised: bool,
}

impl RecoveryReport {
    pub(super) fn new<M, V>(
        scan: &Scan<M, V>,
        previous: Option<&NodeState>,
        start: &StartDecision,
    ) -> Self {
        let replaced = scan.tail != scan.durable_end;
        let bad = !matches!(scan.durable_stop.finding, Finding::End | Finding::Missing);
        Self {
            tail: scan.tail.position,
            sequence: scan.tail.sequence,
            finding: scan.stop.finding,
            zone: scan.zone,
            decision: scan.decision,
            certain: scan.marks.certain.position,
            claimed: scan.marks.claimed.position,
            from_hot_bytes: scan.tail.position.since(scan.durable_end.position),
            repaired_at: (replaced && bad).then_some(scan.durable_end.position),
            rewritten: Vec::new(),
            cut: None,
            moved: Vec::new(),
            finished_cut: scan.marks.limit.is_some(),
            clean_start: previous.is_some_and(|state| state.clean_mark.is_some()),
            hot_intact: start.hot_intact,
            state_missing: previous.is_none() && !scan.files.is_empty(),
            provisional: start.state.provisional,
            incarnation: start.state.incarnation,
        }
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "recovery tail={} sequence={} finding={} zone={} decision={} certain={} claimed={} from_hot_bytes={} \
             clean_start={} hot_intact={} provisional={} incarnation={} rewritten={}",
            self.tail,
            self.sequence,
            self.finding.name(),
            self.zone.name(),
            self.decision.name(),
            self.certain,
            self.claimed,
            self.from_hot_bytes,
            self.clean_start,
            self.hot_intact,
            self.provisional,
            self.incarnation,
            self.rewritten.len(),
        )?;
        if let Some(at) = self.repaired_at {
            write!(f, " repaired_at={at}")?;
        }
        if self.finished_cut {
            write!(f, " finished_cut=true")?;
        }
        if self.state_missing {
            write!(f, " state_missing=true")?;
        }
        if !self.moved.is_empty() {
            write!(f, " moved={}", self.moved.join(","))?;
        }
        self.cut.as_ref().map_or(Ok(()), |cut| write!(f, " {cut}"))
    }
}

impl fmt::Display for CutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cut_from={} cut_to={} cut_bytes={} cut_entries={} cut_promised={} kept_at={}",
            self.from,
            self.to,
            self.to.since(self.from),
            self.entries,
            self.promised,
            self.kept_at
        )
    }
}

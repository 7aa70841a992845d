//! Where two logs part, as far as only the durable files tell: chains that left memory, and leaderships that are forgotten.
//!
//! A core remembers the newest starts of terms, and none that its disk alone knows. Whoever reads the files for it finds the
//! segment in which the frames of a leadership end by the header pages, which say of which leadership the frame before them
//! is, and walks that one.

use super::files::LogFiles;
use super::memory::{Disk, parse_segment_name};
use super::reader::{ChainEnd, follow_chain};
use crate::frame::Predecessor;
use crate::link::MatchReply;
use crate::types::{GroupId, Leadership, Position};

/// Frames of a leadership end here: the newest at or below the one that was asked of, or none at all.
type End = (Leadership, Position);

impl<D: Disk> LogFiles<'_, D> {
    /// A core's reply about where two logs part, with what only the files hold. What the host cannot read is not known.
    #[must_use]
    pub fn filed(&self, group: GroupId, reply: MatchReply) -> MatchReply {
        match reply {
            MatchReply::Filed(position) => self.agreed(group, position),
            MatchReply::Older { leadership, end, below } => {
                match self.latest_at_or_below(group, leadership, below) {
                    Ok(Some((found, ends))) if found == leadership => {
                        self.agreed(group, ends.min(end))
                    }
                    Ok(Some((found, _))) => MatchReply::AskBelow(found),
                    Ok(None) => MatchReply::Unknown,
                    Err(first) => MatchReply::Gone(first),
                }
            }
            known => known,
        }
    }

    fn agreed(&self, group: GroupId, position: Position) -> MatchReply {
        match self.chain_at(group, position) {
            Ok(Some(chain)) => MatchReply::Agreed { position, chain },
            Ok(None) => MatchReply::Unknown,
            Err(first) => MatchReply::Gone(first),
        }
    }

    /// The newest leadership at or below `leadership` that has frames below `below`, and where they end. A newer one begins at
    /// `below`. None: the files do not tell.
    ///
    /// # Errors
    /// Where the log begins, if frames of that leadership have left it.
    fn latest_at_or_below(
        &self,
        group: GroupId,
        leadership: Leadership,
        below: Position,
    ) -> Result<Option<End>, Position> {
        let names = self.disk.list().unwrap_or_default();
        let mut bases: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
        bases.sort_unstable();
        let Some(&first) = bases.first() else { return Ok(None) };
        if first >= below && first > Position(0) {
            return Err(first); // all that is so old has left
        }
        bases.truncate(bases.partition_point(|&base| base < below));
        // Leaderships rise along the log: the last segment that begins behind one that is old enough.
        let (mut old, mut new) = (None, bases.len());
        let mut next = 0;
        while next < new {
            let Some(before) = self.before(group, bases[next]) else { return Ok(None) };
            if before.0 <= leadership {
                old = Some((next, before));
            } else {
                new = next;
            }
            let done = old.as_ref().map_or(0, |(index, _)| index + 1);
            next = done + (new - done) / 2;
        }
        let Some((_, (before, at))) = old else { return Err(first) };
        Ok(self.end_of(leadership, below, before, at))
    }

    /// Of which leadership the frame before a segment is, and that frame.
    fn before(&self, group: GroupId, base: Position) -> Option<(Leadership, Predecessor)> {
        if base == Position(0) {
            return Some((Leadership::default(), Predecessor::genesis(group)));
        }
        let header = self.header(group, base).ok().flatten()?;
        let term = header.before.term;
        Some((Leadership { generation: header.generation, term }, header.before))
    }

    /// As [`LogFiles::latest_at_or_below`]: they end in the segment that begins behind `at`, a frame of `before`, or in the
    /// padding at its end.
    fn end_of(
        &self,
        leadership: Leadership,
        below: Position,
        before: Leadership,
        at: Predecessor,
    ) -> Option<End> {
        let limit = below.min(at.position.plus(2 * self.segment_bytes));
        let ChainEnd { tail, terms, .. } =
            follow_chain(self, self.segment_bytes, at, before.generation, limit);
        let newer = terms.iter().find(|start| start.leadership > leadership);
        let older = terms.iter().rev().find(|start| start.leadership <= leadership);
        let found = older.map_or(before, |start| start.leadership);
        let whole = (tail.position == below).then_some(below);
        Some((found, newer.map(|start| start.base).or(whole)?))
    }
}

#[cfg(test)]
mod tests;

//! Bringing the state up to what is known to be committed, before the threads start: the newest snapshot that is good and
//! of this log, then the log from there on. Without one, the log from its start: the log is the state.

use std::io;

use crate::frame::Predecessor;
use crate::journal::Disk;
use crate::journal::files::{LogFiles, Standing, gone_below};
use crate::journal::reader::{Cause, Trouble, Walker};
use crate::journal::snapshot::{SnapshotError, SnapshotReader, Stamp, snapshots};
use crate::service::Service;
use crate::session::State;
use crate::types::{Commit, Generation, GroupId, Position};

/// What the state was made of.
#[derive(Debug)]
pub struct Replayed {
    /// End of what was applied.
    pub at: Place,
    /// The snapshot that it began with.
    pub snapshot: Option<Stamp>,
    /// Snapshots that could not be used, newest first.
    pub refused: Vec<(Position, SnapshotError)>,
}

/// A place in the log, between two entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// What stands before it.
    pub before: Predecessor,
    /// Generation of that.
    pub generation: Generation,
}

impl Place {
    /// Before the first entry of a group's log.
    #[must_use]
    pub fn genesis(group: GroupId) -> Self {
        Self { before: Predecessor::genesis(group), generation: Generation::default() }
    }

    /// Where a snapshot was taken.
    #[must_use]
    pub fn of(stamp: &Stamp) -> Self {
        Self { before: stamp.before, generation: stamp.generation }
    }
}

/// The log that a state is made of.
#[derive(Clone, Copy, Debug)]
pub struct ReplayLog<'a, D> {
    /// The node's data directory.
    pub disk: &'a D,
    /// Whose log.
    pub group: GroupId,
    /// Payload bytes of a segment.
    pub segment_bytes: u64,
}

impl<D: Disk> ReplayLog<'_, D> {
    /// Brings a state that has applied nothing yet up to `commit`, or to the newest snapshot below `tail` if that is
    /// further: it was taken of what was committed. One above `tail` is of a log that was given up: it is refused, too.
    ///
    /// # Errors
    /// Where the durable log could not be read, and why. Snapshots that cannot be used are no error: see
    /// [`Replayed::refused`].
    pub fn replay<S: Service>(
        &self,
        commit: Commit,
        tail: Position,
        state: &mut State<S>,
    ) -> Result<Replayed, Trouble> {
        let newest_first = snapshots(self.disk).unwrap_or_default().into_iter().rev();
        let above = newest_first.take_while(|&position| position > tail);
        let mut refused: Vec<_> =
            above.map(|position| (position, self.is_above(position))).collect();
        let (snapshot, others) = self.restore(tail, state);
        refused.extend(others);
        let from = snapshot.as_ref().map_or_else(|| Place::genesis(self.group), Place::of);
        let at = self.apply(from, commit.position(), u64::MAX, state)?;
        Ok(Replayed { at, snapshot, refused })
    }

    /// Applies entries from `from` on that end at or below `limit`: about `bytes` of them. Returns where it went to.
    ///
    /// # Errors
    /// Where the log could not be read, and why.
    pub fn apply<S: Service>(
        &self,
        from: Place,
        limit: Position,
        bytes: u64,
        state: &mut State<S>,
    ) -> Result<Place, Trouble> {
        let log = LogFiles::new(self.disk, self.segment_bytes);
        let mut walker = Walker::new(log, self.segment_bytes, from.before);
        let mut generation = from.generation;
        let enough = Position(from.before.position.0.saturating_add(bytes));
        while walker.before().position < enough {
            let found = match walker.next_frame(limit) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(trouble) => return Err(self.gone(trouble)),
            };
            generation =
                found.leadership(generation).map_or(generation, |opened| opened.generation);
            let kind = found.header.kind().expect("the walk lets only known kinds pass");
            state.apply_frame(kind, &found.header, found.payload);
        }
        Ok(Place { before: walker.before(), generation })
    }

    /// Nothing is there because it has left: says so.
    fn gone(&self, trouble: Trouble) -> Trouble {
        match gone_below(self.disk, trouble.position) {
            Ok(Some(first)) if trouble.may_be_end() => {
                Trouble { cause: Cause::Gone(first), ..trouble }
            }
            _ => trouble,
        }
    }

    /// Restores the newest snapshot at or below `limit` that can be used; without one the state is as it was.
    pub fn restore<S: Service>(
        &self,
        limit: Position,
        state: &mut State<S>,
    ) -> (Option<Stamp>, Vec<(Position, SnapshotError)>) {
        let mut refused = Vec::new();
        let positions = snapshots(self.disk).unwrap_or_else(|error| {
            refused.push((Position(0), SnapshotError::Host(error)));
            Vec::new()
        });
        let newest_first = positions.into_iter().rev().filter(|&at| at <= limit);
        let mut empty = None;
        for position in newest_first {
            if empty.is_none() {
                let mut image = Vec::new();
                if let Err(error) = state.snapshot(&mut image) {
                    refused.push((position, SnapshotError::State(error)));
                    return (None, refused);
                }
                empty = Some(image);
            }
            match self.restore_one(position, state) {
                Ok(stamp) => return (Some(stamp), refused),
                Err(error) => refused.push((position, error)),
            }
        }
        // What a broken snapshot left in the state goes again.
        if let Some(empty) = empty {
            let again = state.restore(&mut empty.as_slice());
            again.expect("a service restores what it wrote itself");
        }
        (None, refused)
    }

    fn restore_one<S: Service>(
        &self,
        position: Position,
        state: &mut State<S>,
    ) -> Result<Stamp, SnapshotError> {
        let mut reader = SnapshotReader::open(self.disk, self.group, position)?;
        let stamp = reader.stamp().clone();
        self.confirm(&stamp)?;
        state.restore(&mut reader).map_err(unreadable)?;
        reader.finish().map_err(SnapshotError::State)?;
        let stamped = (stamp.before.sequence, stamp.state_hash);
        if (state.sequence(), state.state_hash()) != stamped {
            return Err(SnapshotError::Field { field: "state_hash", value: stamp.state_hash });
        }
        Ok(stamp)
    }

    /// Why a snapshot above the end of the log is none of it.
    fn is_above(&self, position: Position) -> SnapshotError {
        match SnapshotReader::open(self.disk, self.group, position) {
            Ok(reader) => SnapshotError::OtherLog { stamped: reader.stamp().before, log: None },
            Err(error) => error,
        }
    }

    /// The log has this entry at this place.
    fn confirm(&self, stamp: &Stamp) -> Result<(), SnapshotError> {
        let stamped = stamp.before;
        let log = LogFiles::new(self.disk, self.segment_bytes);
        let found = log.look_at(self.group, stamped.position);
        match found.map_err(SnapshotError::Host)? {
            Standing::Entry(found) if found == stamped => Ok(()),
            Standing::Entry(found) => Err(SnapshotError::OtherLog { stamped, log: Some(found) }),
            Standing::Nothing => Err(SnapshotError::OtherLog { stamped, log: None }),
            Standing::Unknown => Err(SnapshotError::Unconfirmed { stamped }),
        }
    }
}

/// What a restore ended with: what the host could not read says nothing about the snapshot.
fn unreadable(error: io::Error) -> SnapshotError {
    match error.raw_os_error() {
        Some(_) => SnapshotError::Host(error),
        None => SnapshotError::State(error),
    }
}

//! Bringing the state up to what is known to be committed, before the threads start: the log is the state.

use crate::frame::Predecessor;
use crate::journal::Disk;
use crate::journal::files::LogFiles;
use crate::journal::reader::{Trouble, Walker};
use crate::service::Service;
use crate::session::State;
use crate::types::{Applied, Commit, GroupId};

/// Applies the log from its start up to `commit`.
///
/// # Errors
/// Where the durable log could not be read, and why.
pub fn replay<D: Disk, S: Service>(
    disk: &D,
    group: GroupId,
    segment_bytes: u64,
    commit: Commit,
    state: &mut State<S>,
) -> Result<Applied, Trouble> {
    let log = LogFiles::new(disk, segment_bytes);
    let mut walker = Walker::new(log, segment_bytes, Predecessor::genesis(group));
    while let Some(found) = walker.next_frame(commit.position())? {
        let kind = found.header.kind().expect("the walk lets only known kinds pass");
        state.apply_frame(kind, &found.header, found.payload);
    }
    Ok(Applied(walker.before().position))
}

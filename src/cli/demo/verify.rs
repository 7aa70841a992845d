//! Do all logs and states agree, and is every acknowledged command in them once? Read from the logs, not asked of the nodes.

use std::collections::HashMap;

use zerocopy::FromBytes;

use quorate::frame::payload::CommandPrefix;
use quorate::frame::{FrameHeader, Kind};
use quorate::io::log_reader::{LogReader, ReadOptions};
use quorate::runtime::config::Settings;
use quorate::runtime::state_limits;
use quorate::service::BuiltIn;
use quorate::session::{Outcome, State};
use quorate::types::{ClientSequence, Sequence, SessionId};

use super::group::Group;
use super::load::Load;
use super::{Args, DemoError};

/// What the logs say.
pub(super) struct Verified {
    pub(super) agree: bool,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) sequence: Sequence,
    pub(super) state_hash: u64,
    /// What differs, for people.
    pub(super) differences: Vec<String>,
}

/// What one node's log says.
struct LogSummary {
    sequence: Sequence,
    chain: u32,
    state_hash: u64,
    frames: u64,
    lost: u64,
    duplicated: u64,
}

pub(super) fn verify(args: &Args, group: &Group, load: &Load) -> Result<Verified, DemoError> {
    let _ = args;
    let mut summaries = Vec::new();
    for settings in group.settings() {
        summaries.push(summarize(settings, load)?);
    }
    let first = &summaries[0];
    let mut differences = Vec::new();
    for (number, summary) in summaries.iter().enumerate().skip(1) {
        let pairs = [
            ("last sequence", first.sequence.0, summary.sequence.0),
            ("chain", u64::from(first.chain), u64::from(summary.chain)),
            ("state hash", first.state_hash, summary.state_hash),
            ("frames", first.frames, summary.frames),
        ];
        for (what, ours, theirs) in pairs {
            if ours != theirs {
                let text = format!("{what}: node 0 has {ours:#x}, node {number} {theirs:#x}");
                differences.push(text);
            }
        }
    }
    Ok(Verified {
        agree: differences.is_empty(),
        lost: summaries.iter().map(|summary| summary.lost).max().unwrap_or(0),
        duplicated: summaries.iter().map(|summary| summary.duplicated).max().unwrap_or(0),
        sequence: first.sequence,
        state_hash: first.state_hash,
        differences,
    })
}

/// Replays one log into a fresh state and looks for every acknowledged command.
fn summarize(settings: &Settings, load: &Load) -> Result<LogSummary, DemoError> {
    let directory = &settings.node.data_dir;
    let fail = |error: &dyn core::fmt::Display| {
        DemoError::Failed(format!("{}: {error}", directory.display()))
    };
    let options = ReadOptions { uncommitted: true, ..ReadOptions::default() };
    let mut reader = LogReader::open(directory, options).map_err(|error| fail(&error))?;
    let service = BuiltIn::new(settings.group.service, settings.group.book);
    let mut state = State::new(service, state_limits(settings));
    let mut applied: HashMap<ClientSequence, u64> = HashMap::new();
    let (mut frames, mut duplicated, mut chain) = (0, 0, 0);
    loop {
        let found = match reader.next_frame() {
            Ok(Some(found)) => found,
            Ok(None) => break,
            // Zeroes where the next frame would stand: the end of a log that was stopped in order.
            Err(trouble) if trouble.may_be_end() => break,
            Err(trouble) => return Err(fail(&trouble)),
        };
        frames += 1;
        chain = found.header.chain().0;
        let kind = found.header.kind().expect("the reader lets only known kinds pass");
        let outcome = state.apply_frame(kind, &found.header, found.payload).outcome;
        if let Some(command) = ours(kind, &found.header, found.payload, load.session)
            && matches!(outcome, Outcome::Replied { .. })
            && applied.insert(command, found.header.sequence().0).is_some()
        {
            duplicated += 1;
        }
    }
    let lost = load
        .acknowledged
        .iter()
        .filter(|(command, sequence)| {
            applied.get(command).is_none_or(|at| **sequence != 0 && at != *sequence)
        })
        .count() as u64;
    Ok(LogSummary {
        sequence: state.sequence(),
        chain,
        state_hash: state.state_hash(),
        frames,
        lost,
        duplicated,
    })
}

/// The client's number of a command, if it is one of our session.
fn ours(
    kind: Kind,
    _header: &FrameHeader,
    payload: &[u8],
    session: Option<SessionId>,
) -> Option<ClientSequence> {
    if !matches!(kind, Kind::Command | Kind::CommandBatch) {
        return None;
    }
    let (prefix, _) = CommandPrefix::read_from_prefix(payload).ok()?;
    (Some(SessionId(prefix.session.get())) == session)
        .then(|| ClientSequence(prefix.client_sequence.get()))
}

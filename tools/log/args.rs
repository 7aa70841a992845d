//! What every verb is told: which log, how much of it, and for whom the answer is.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use quorate::error::{EXIT_FAILURE, EXIT_USAGE};
use quorate::io::log_reader::{LogReader, OpenError, ReadOptions, Target, Tiers};
use quorate::io::shared_page::SharedReader;
use quorate::runtime::terminal::complain;

/// Which log, and for whom.
#[derive(clap::Args)]
pub(crate) struct Source {
    /// Data directory, directory of segments, segment file, or quarantine file
    path: PathBuf,
    /// Read on above the commit position: what is there may still be cut
    #[arg(long)]
    uncommitted: bool,
    /// Read the durable files alone, not the hot ones
    #[arg(long)]
    durable: bool,
    /// One JSON object to a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl Source {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Another log, read as this one.
    pub(crate) fn beside(&self, path: &Path) -> Self {
        Self { path: path.to_owned(), ..*self }
    }

    /// What to read, as the flags say.
    pub(crate) fn options(&self) -> ReadOptions {
        let tiers = if self.durable { Tiers::Durable } else { Tiers::Both };
        ReadOptions { uncommitted: self.uncommitted, tiers }
    }

    /// Opens it, or says why not and with which exit code to end.
    pub(crate) fn open(&self) -> Result<LogReader, u8> {
        self.open_with(self.options())
    }

    /// As [`Source::open`], whatever the flags say.
    pub(crate) fn open_with(&self, options: ReadOptions) -> Result<LogReader, u8> {
        LogReader::open(&self.path, options).map_err(|error| refused(&error))
    }

    /// As [`Source::open`], for one place of it.
    pub(crate) fn open_for(&self, target: Target) -> Result<LogReader, u8> {
        LogReader::open_for(&self.path, self.options(), target).map_err(|error| refused(&error))
    }
}

/// Says why a log cannot be opened, and with which exit code to end.
pub(crate) fn refused(error: &OpenError) -> u8 {
    complain(error);
    match error {
        OpenError::Host { error, .. } if error.kind() == io::ErrorKind::NotFound => EXIT_USAGE,
        OpenError::NoSegments { .. } => EXIT_USAGE,
        _ => EXIT_FAILURE,
    }
}

/// To the end, whatever is committed.
pub(crate) const EVERYTHING: ReadOptions = ReadOptions { uncommitted: true, tiers: Tiers::Both };

/// Whether stdout is a terminal whose user does not mind colours.
pub(crate) fn colour() -> bool {
    static COLOUR: LazyLock<bool> = LazyLock::new(|| {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        !unwanted && io::stdout().is_terminal()
    });
    *COLOUR
}

/// Whether the node of this log runs, as far as that can be told without touching it: the process that wrote its page is
/// there. (In another namespace it is not seen; then the log is treated as a dead node's.)
pub(crate) fn is_live(reader: &LogReader) -> bool {
    let process = reader.shared().map(SharedReader::process);
    process.is_some_and(|process| Path::new("/proc").join(process.to_string()).exists())
}

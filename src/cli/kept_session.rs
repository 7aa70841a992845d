//! A session with unanswered commands, in a file: the ticket on the first line, then one command on each, in hexadecimal digits.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use quorate::client::SessionTicket;

/// What is kept; nothing for the first time.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) ticket: Option<SessionTicket>,
    pub(super) commands: Vec<Vec<u8>>,
}

impl Kept {
    /// What `file` keeps; nothing if there is none.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read?,
        };
        let bad = || io::Error::other("this is no session kept by `quorate send`");
        let mut lines = text.lines();
        let ticket = lines.next().and_then(|line| line.parse().ok()).ok_or_else(bad)?;
        let commands = lines.map(from_hex).collect::<Option<_>>().ok_or_else(bad)?;
        Ok(Self { ticket: Some(ticket), commands })
    }

    /// Keeps it in `file`, whole or not at all; removes the file when there is nothing to be asked any more.
    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        let Some(ticket) = self.ticket.filter(|_| !self.commands.is_empty()) else {
            return match fs::remove_file(file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
        };
        let mut text = format!("{ticket}\n");
        for command in &self.commands {
            for byte in command {
                // Writing to a string never fails.
                let _ = write!(text, "{byte:02x}");
            }
            text.push('\n');
        }
        let new = file.with_extension("new");
        let mut options = OpenOptions::new();
        let mut writer = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        writer.write_all(text.as_bytes())?;
        writer.sync_all()?;
        fs::rename(&new, file)
    }
}

fn from_hex(line: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16).map(|digit| digit as u8);
    if !line.len().is_multiple_of(2) {
        return None;
    }
    let pairs = line.as_bytes().chunks_exact(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

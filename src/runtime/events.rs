//! Where events go: one line each to stderr for people, one JSON object each to `events.jsonl` for programs, and to
//! whoever listens in process.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crossbeam_channel::{Sender, TrySendError};
use jiff::Timestamp;
use serde_json::json;

use crate::control::event::Event;
use crate::types::NodeId;

/// Name of the file of events in a data directory.
pub const EVENTS_NAME: &str = "events.jsonl";
/// Size at which the file of events is set aside as `events.1.jsonl`, bytes.
const EVENTS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Writes events down.
#[derive(Debug)]
pub struct EventSink {
    node: NodeId,
    quiet: bool,
    path: PathBuf,
    file: File,
    written_bytes: u64,
    listener: Option<Sender<Event>>,
}

impl EventSink {
    /// Appends to the file of events in `data_dir`.
    ///
    /// # Errors
    /// The host's.
    pub fn open(data_dir: &Path, node: NodeId, quiet: bool) -> io::Result<Self> {
        let path = data_dir.join(EVENTS_NAME);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let written_bytes = file.metadata()?.len();
        Ok(Self { node, quiet, path, file, written_bytes, listener: None })
    }

    /// Also hands every event to `listener`; one that does not keep up misses some.
    pub fn listen(&mut self, listener: Sender<Event>) {
        self.listener = Some(listener);
    }

    /// Takes an event.
    pub fn event(&mut self, event: &Event) {
        self.line(event.code(), &event.to_string());
        if let Some(listener) = &self.listener
            && let Err(TrySendError::Disconnected(_)) = listener.try_send(event.clone())
        {
            self.listener = None;
        }
    }

    /// Takes a line of its own: what the host refused, how the node started and stopped.
    pub fn line(&mut self, code: u16, text: &str) {
        let time = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        if !self.quiet {
            // Nobody to tell if stderr is gone.
            let _ = writeln!(io::stderr().lock(), "{time:.3} node {} {text}", self.node);
        }
        let object = json!({
            "time": time.to_string(), "node": self.node.0, "code": format!("Q-{code}"), "text": text,
        });
        let line = format!("{object}\n");
        if self.written_bytes > EVENTS_BYTES_MAX {
            let aside = self.path.with_file_name("events.1.jsonl");
            let fresh = std::fs::rename(&self.path, aside)
                .and_then(|()| OpenOptions::new().create(true).append(true).open(&self.path));
            if let Ok(fresh) = fresh {
                (self.file, self.written_bytes) = (fresh, 0);
            }
        }
        // A full disk must not stop the node over a line of text; stderr has it.
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.written_bytes += line.len() as u64;
        }
    }
}

//! A program of the user's that reads commands: one line of hexadecimal digits in, one line of text out.

use core::cell::RefCell;
use core::time::Duration;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use quorate::error::EXIT_FAILURE;
use quorate::runtime::terminal::complain;

use crate::select::digits;

/// How long an answer may take. A decoder that keeps its output back until it has a buffer full never answers.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest line that is taken from it.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// The program, running; ended when this goes.
pub(crate) struct Decoder {
    running: RefCell<Running>,
}

struct Running {
    child: Child,
    /// None: it failed, which was said once.
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Decoder {
    /// Starts it, or says why not and with which exit code to end.
    pub(crate) fn start(command: &str) -> Result<Self, u8> {
        let spawned = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let failed = |error: &dyn core::fmt::Display| {
            complain(&format_args!("--decoder {command:?}: {error}"));
            EXIT_FAILURE
        };
        let mut child = spawned.map_err(|error| failed(&error))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| failed(&"no pipes"))?;
        // One question at a time, so one answer.
        let (sender, lines) = sync_channel(1);
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            while let Some(line) = next_line(&mut output) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { running: RefCell::new(Running { child, input: Some(input), lines }) })
    }

    /// What it says of a command. None: it failed, now or before.
    pub(crate) fn decode(&self, command: &[u8]) -> Option<String> {
        let mut running = self.running.borrow_mut();
        let mut line = digits(command);
        line.push(b'\n');
        let sent = running.input.as_mut()?.write_all(&line);
        let answer = sent.ok().and_then(|()| running.lines.recv_timeout(ANSWER).ok());
        if answer.is_none() {
            running.input = None;
            complain(&format_args!(
                "the decoder gave no line within {} s for one it was given (does it end, or buffer its output?); commands are shown as bytes from here on",
                ANSWER.as_secs()
            ));
        }
        answer
    }

    /// Whether it failed.
    pub(crate) fn failed(&self) -> bool {
        self.running.borrow().input.is_none()
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let running = self.running.get_mut();
        running.input = None;
        // It may have ended by itself; nobody waits for one that does not.
        let _ = running.child.kill();
        let _ = running.child.wait();
    }
}

fn next_line(output: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = Vec::new();
    let read = output.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).ok()?;
    let whole = read > 0 && line.last() == Some(&b'\n');
    whole.then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
}

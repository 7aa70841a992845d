//! The admin socket: a Unix socket in the data directory, one request line in, one JSON line out.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

/// Connections at once.
const CONNECTIONS_MAX: usize = 16;
/// Longest request line, bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// First token of connections; lower ones belong to the control thread.
pub(super) const FIRST_TOKEN: usize = 16;
/// How long a client of the socket waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The listening side, polled by the control thread.
#[derive(Debug)]
pub(super) struct Admin {
    listener: UnixListener,
    path: PathBuf,
    connections: HashMap<usize, Connection>,
    next_token: usize,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Admin {
    /// Listens at `path`, readable by this user only. A socket that a dead node left behind is replaced: the caller holds
    /// the data directory's lock.
    pub(super) fn open(path: &Path, registry: &Registry, token: Token) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            listener,
            path: path.into(),
            connections: HashMap::new(),
            next_token: FIRST_TOKEN,
        })
    }

    /// Takes new connections.
    pub(super) fn accept(&mut self, registry: &Registry) {
        while let Ok((mut stream, _)) = self.listener.accept() {
            if self.connections.len() >= CONNECTIONS_MAX {
                continue; // dropped: the client sees the end of the stream and says so
            }
            let token = self.next_token;
            self.next_token += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            if registry.register(&mut stream, Token(token), interest).is_ok() {
                let connection = Connection { stream, request: Vec::new(), answer: Vec::new() };
                self.connections.insert(token, connection);
            }
        }
    }

    /// A connection can be read or written: answers whole request lines with what `answer` gives.
    pub(super) fn ready(&mut self, token: Token, mut answer: impl FnMut(&str) -> String) {
        let Some(connection) = self.connections.get_mut(&token.0) else { return };
        if connection.exchange(&mut answer).is_err() {
            self.connections.remove(&token.0);
        }
    }
}

impl Connection {
    /// An error ends the connection; so does its orderly end, once everything is answered.
    fn exchange(&mut self, answer: &mut impl FnMut(&str) -> String) -> io::Result<()> {
        let mut ended = false;
        let mut buffer = [0; 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(count) => self.request.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.request.len() > REQUEST_BYTES_MAX {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        while let Some(end) = self.request.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.request.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.answer.extend_from_slice(answer(line.trim()).as_bytes());
            self.answer.push(b'\n');
        }
        while !self.answer.is_empty() {
            match self.stream.write(&self.answer) {
                Ok(count) => drop(self.answer.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if ended { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // Left behind, it would only be replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Asks a running node: one request line, one answer line.
///
/// # Errors
/// The host's: `NotFound` or `ConnectionRefused` mean that no node runs there.
pub fn ask(path: &Path, request: &str) -> io::Result<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"\n") {
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8(answer).map_err(|_| ErrorKind::InvalidData.into())
}

//! What the three programs say and how they end: data on stdout, talk on stderr, exit codes of [`crate::error`].

use core::fmt::Display;
use std::io::{self, BufWriter, ErrorKind, Write};

use crate::error::{EXIT_DONE, EXIT_FAILURE};

/// Runs `body` with a buffered stdout and returns its exit code. A reader that goes away (`| head`) ends it quietly: what
/// it wanted, it has.
pub fn with_stdout(body: impl FnOnce(&mut dyn Write) -> io::Result<u8>) -> u8 {
    let mut out = BufWriter::new(io::stdout().lock());
    let result = body(&mut out);
    // Flushed here and not on drop, where an error would be lost. What was written before an error is still wanted.
    match result.and_then(|code| out.flush().map(|()| code)) {
        Ok(code) => code,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            // The rest of the buffer has no reader.
            let _ = out.into_parts();
            EXIT_DONE
        }
        Err(error) => {
            complain(&format_args!("stdout: {error}"));
            EXIT_FAILURE
        }
    }
}

/// Says something on stderr, each line with the program's name in front.
pub fn complain(message: &dyn Display) {
    let name = std::env::args_os().next();
    let name = name.as_deref().map(std::path::Path::new).and_then(|path| path.file_stem());
    let name = name.map_or_else(|| "quorate".into(), |name| name.to_string_lossy());
    let mut err = io::stderr().lock();
    for line in message.to_string().lines() {
        // In one piece, or lines of several processes mix. Nobody is left to be told when stderr is gone.
        let _ = err.write_all(format!("{name}: {line}\n").as_bytes());
    }
}

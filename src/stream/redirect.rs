//! The body of a redirect: the leader's address as text, or nothing when nobody knows it.

use core::fmt::Write;
use core::net::SocketAddr;

/// Longest address: an IPv6 address with scope and port.
const TEXT_BYTES_MAX: usize = 64;

/// An address as text, without allocating.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RedirectText {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl RedirectText {
    /// The text of `leader`; empty for nobody.
    #[must_use]
    pub fn new(leader: Option<SocketAddr>) -> Self {
        let mut text = Self { bytes: [0; TEXT_BYTES_MAX], length: 0 };
        if let Some(leader) = leader {
            let written = write!(text, "{leader}");
            assert!(written.is_ok(), "an address fits");
        }
        text
    }
    /// The body.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for RedirectText {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// The address a redirect names. `Ok(None)`: the leader is not known.
///
/// # Errors
/// The body is no address.
pub fn parse_redirect(body: &[u8]) -> Result<Option<SocketAddr>, BadRedirect> {
    if body.is_empty() {
        return Ok(None);
    }
    let text = core::str::from_utf8(body).map_err(|_| BadRedirect)?;
    text.parse().map(Some).map_err(|_| BadRedirect)
}

/// The body of a redirect is no address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BadRedirect;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_garbage_is_refused() {
        for text in ["127.0.0.1:9", "[fe80::1%4294967295]:65535", "[::ffff:255.255.255.255]:1"] {
            let address: SocketAddr = text.parse().expect("an address");
            let body = RedirectText::new(Some(address));
            assert_eq!(parse_redirect(body.as_bytes()), Ok(Some(address)));
        }
        assert_eq!(parse_redirect(RedirectText::new(None).as_bytes()), Ok(None));
        assert_eq!(parse_redirect(b"nonsense"), Err(BadRedirect));
        assert_eq!(parse_redirect(&[0xFF, 0xFE]), Err(BadRedirect));
    }
}

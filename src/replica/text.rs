//! Text on the core thread, which does not allocate.

use core::net::SocketAddr;

/// An address as text, without allocating.
#[derive(Debug)]
pub(super) struct Text {
    bytes: [u8; 64],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 64], length: 0 }
    }
}

impl Text {
    /// Writes an address.
    pub(super) fn address(&mut self, address: SocketAddr) {
        use core::fmt::Write;
        // An IPv6 address with zone and port takes 58 bytes at most.
        let _ = write!(self, "{address}");
    }
    /// What was written.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl core::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.length + text.len();
        let space = self.bytes.get_mut(self.length..end).ok_or(core::fmt::Error)?;
        space.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

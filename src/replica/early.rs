//! Hellos that come to a leader before its term is open: kept until it is, so that clients which were quicker than the
//! election need not ask again.

use core::net::SocketAddr;
use std::collections::VecDeque;

use super::core::HelloBytes;

/// As many are kept; whoever comes later asks again. They are all answered in one duty cycle, which bounds them.
const EARLY_MAX: usize = 256;

/// The hellos.
#[derive(Debug)]
pub(super) struct EarlyHellos {
    waiting: VecDeque<(SocketAddr, HelloBytes)>,
}

impl EarlyHellos {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::with_capacity(EARLY_MAX) }
    }

    /// Keeps the latest hello from each address.
    pub(super) fn keep(&mut self, from: SocketAddr, hello: &HelloBytes) {
        if let Some((_, known)) = self.waiting.iter_mut().find(|(known, _)| *known == from) {
            *known = *hello;
        } else if self.waiting.len() < EARLY_MAX {
            self.waiting.push_back((from, *hello));
        }
    }

    /// The next one to answer, in the order in which they came.
    pub(super) fn take(&mut self) -> Option<(SocketAddr, HelloBytes)> {
        self.waiting.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_latest_of_each_address_is_kept_in_order_and_no_more_than_fit() {
        let mut early = EarlyHellos::new();
        for port in 0..2 * EARLY_MAX as u16 {
            early.keep(from(port), &HelloBytes::copy(&[1, port as u8]));
        }
        early.keep(from(0), &HelloBytes::copy(&[2, 2, 2]));
        for port in 0..EARLY_MAX as u16 {
            let (address, hello) = early.take().expect("kept");
            let bytes: &[u8] = if port == 0 { &[2, 2, 2] } else { &[1, port as u8] };
            assert_eq!((address, hello.bytes()), (from(port), bytes));
        }
        assert!(early.take().is_none());
    }
}

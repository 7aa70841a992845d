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

    /// Keeps the latest hello of each client: from one address come those of all whom a follower passes on.
    pub(super) fn keep(&mut self, from: SocketAddr, hello: &HelloBytes) {
        let same = |(known, other): &&mut (SocketAddr, HelloBytes)| {
            *known == from && other.nonce() == hello.nonce()
        };
        if let Some((_, known)) = self.waiting.iter_mut().find(same) {
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

    fn hello(nonce: u64, last: u8) -> HelloBytes {
        let mut bytes = [0; 9];
        bytes[..8].copy_from_slice(&nonce.to_le_bytes());
        bytes[8] = last;
        HelloBytes::copy(&bytes)
    }

    #[test]
    fn those_of_several_clients_from_one_address_are_kept_apart() {
        let mut early = EarlyHellos::new();
        for (nonce, last) in [(1, 1), (2, 1), (1, 2)] {
            early.keep(from(7), &hello(nonce, last));
        }
        for (nonce, last) in [(1, 2), (2, 1)] {
            let (_, kept) = early.take().expect("kept");
            assert_eq!(kept.bytes(), hello(nonce, last).bytes());
        }
        assert!(early.take().is_none());
    }

    #[test]
    fn the_latest_of_each_address_is_kept_in_order_and_no_more_than_fit() {
        let mut early = EarlyHellos::new();
        for port in 0..2 * EARLY_MAX as u16 {
            early.keep(from(port), &hello(1, port as u8));
        }
        early.keep(from(0), &hello(1, 77));
        for port in 0..EARLY_MAX as u16 {
            let (address, kept) = early.take().expect("kept");
            let last = if port == 0 { 77 } else { port as u8 };
            assert_eq!((address, kept.bytes()), (from(port), hello(1, last).bytes()));
        }
        assert!(early.take().is_none());
    }
}

//! How a client finds the leader: hello to the one it believes in, then to all, at growing intervals; redirects are
//! followed at once, but not in circles.

use core::net::SocketAddr;

use crate::types::Nanos;

/// First wait for an answer to a hello, in nanoseconds; it doubles with each round.
const WAIT_MIN_NS: u64 = 4 * Nanos::MILLISECOND;
/// For as many rounds it doubles, and then stays for as long as an election takes: whoever lost a leader finds the next one
/// soon.
const ROUNDS_QUICK: u32 = 2;
/// See [`ROUNDS_QUICK`].
const ROUNDS_STEADY: u32 = 5;
/// Longest wait, in nanoseconds.
const WAIT_MAX_NS: u64 = 500 * Nanos::MILLISECOND;
/// Redirects followed between two rounds.
const REDIRECTS_MAX: u32 = 4;

/// The search.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Search {
    /// Names the lane that the welcome begins; one for the whole search, so that a welcome to any of its hellos will do.
    pub(crate) epoch: u64,
    /// Whom to ask first.
    preferred: Option<SocketAddr>,
    round: u32,
    redirects: u32,
    next: Nanos,
}

/// Whom to say hello to now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Ask {
    One(SocketAddr),
    All,
}

impl Search {
    /// A search that begins at `now`.
    pub(crate) fn new(now: Nanos, epoch: u64, preferred: Option<SocketAddr>) -> Self {
        Self { epoch, preferred, round: 0, redirects: 0, next: now }
    }
    /// When [`Search::poll`] has something to say.
    pub(crate) fn deadline(&self) -> Nanos {
        self.next
    }
    /// Whom to ask now, if it is time. `random` spreads the clients of a group that lost its leader.
    pub(crate) fn poll(&mut self, now: Nanos, random: u64) -> Option<Ask> {
        if now < self.next {
            return None;
        }
        let later = self.round.saturating_sub(ROUNDS_QUICK + ROUNDS_STEADY);
        let doublings = self.round.min(ROUNDS_QUICK) + later.min(8);
        let wait = (WAIT_MIN_NS << doublings).min(WAIT_MAX_NS);
        self.next = now.plus(wait * 3 / 4 + random % (wait / 2));
        self.redirects = 0;
        let first = self.round == 0;
        self.round += 1;
        Some(match self.preferred.take() {
            Some(address) if first => Ask::One(address),
            _ => Ask::All,
        })
    }
    /// A node named the leader: whom to ask now, unless too many have been believed.
    pub(crate) fn on_redirect(&mut self, leader: SocketAddr) -> Option<Ask> {
        if self.redirects >= REDIRECTS_MAX {
            return None;
        }
        self.redirects += 1;
        Some(Ask::One(leader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_preferred_node_first_then_all_at_growing_intervals() {
        let mut search = Search::new(Nanos(0), 1, Some(address(7)));
        assert_eq!(search.poll(Nanos(0), 5), Some(Ask::One(address(7))));
        let mut last = 0;
        for round in 1..20 {
            let due = search.deadline();
            assert_eq!(search.poll(Nanos(due.0 - 1), 5), None);
            assert_eq!(search.poll(due, 5), Some(Ask::All));
            let wait = search.deadline().since(due);
            assert!(wait >= last && wait <= WAIT_MAX_NS, "round {round}: {wait}");
            last = wait;
        }
        assert!(last > WAIT_MAX_NS / 2);
    }

    #[test]
    fn redirects_are_followed_but_not_in_circles() {
        let mut search = Search::new(Nanos(0), 1, None);
        assert_eq!(search.poll(Nanos(0), 0), Some(Ask::All));
        for _ in 0..REDIRECTS_MAX {
            assert_eq!(search.on_redirect(address(9)), Some(Ask::One(address(9))));
        }
        assert_eq!(search.on_redirect(address(9)), None);
        let due = search.deadline();
        assert_eq!(search.poll(due, 0), Some(Ask::All));
        assert!(search.on_redirect(address(9)).is_some());
    }
}

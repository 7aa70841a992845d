//! How a client finds the leader: hello to the one it believes in, then to all, at growing intervals; redirects are
//! followed at once, but not in circles. A leader that is named and does not answer may be out of reach: then a node that
//! named it is asked to pass on what client and leader say to each other, in turn with asking all.

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
/// A node that passes on is given at least so long, ns: its leader may be far.
const WAIT_THROUGH_NS: u64 = 50 * Nanos::MILLISECOND;

/// The search.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Search {
    /// Names the lane that the welcome begins: the same as long as the same way is tried, so that a welcome to any of its
    /// hellos will do. To the leader each way is an address of its own: the last one to be tried must win.
    pub(crate) epoch: u64,
    /// Who is asked to pass on, in this round.
    through: Option<SocketAddr>,
    /// Who may be asked next, because it named a leader.
    door: Option<SocketAddr>,
    /// Who was asked last.
    tried: Option<SocketAddr>,
    /// How long after the first redirect one is asked, ns; `u64::MAX`: never.
    forward_after_ns: u64,
    forward_at: Option<Nanos>,
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
    /// This one, to pass on what is said.
    Through(SocketAddr),
}

impl Search {
    /// A search that begins at `now`.
    pub(crate) fn new(
        now: Nanos,
        epoch: u64,
        preferred: Option<SocketAddr>,
        forward_after_ns: u64,
    ) -> Self {
        let (through, door, tried, forward_at) = (None, None, None, None);
        Self {
            epoch,
            through,
            door,
            tried,
            forward_after_ns,
            forward_at,
            preferred,
            round: 0,
            redirects: 0,
            next: now,
        }
    }
    /// Who passes on what is said now.
    pub(crate) fn through(&self) -> Option<SocketAddr> {
        self.through
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
        let before = self.through.take();
        if self.forward_at.is_some_and(|at| now >= at) {
            self.through = self.door.take();
        }
        if self.through != before {
            self.epoch += 1;
        }
        if let Some(door) = self.through {
            self.tried = Some(door);
            self.next = self.next.max(now.plus(WAIT_THROUGH_NS));
            return Some(Ask::Through(door));
        }
        Some(match self.preferred.take() {
            Some(address) if first => Ask::One(address),
            _ => Ask::All,
        })
    }
    /// A node named the leader: whom to ask now, unless too many have been believed.
    pub(crate) fn on_redirect(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        leader: SocketAddr,
    ) -> Option<Ask> {
        if self.through.is_some() {
            return None; // asked now, the leader would know this lane at two addresses
        }
        // Another one than last time, if there is one.
        if self.door.is_none_or(|door| Some(door) == self.tried) {
            self.door = Some(from);
        }
        self.forward_at.get_or_insert(Nanos(now.0.saturating_add(self.forward_after_ns)));
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
        let mut search = Search::new(Nanos(0), 1, Some(address(7)), u64::MAX);
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
        let mut search = Search::new(Nanos(0), 1, None, u64::MAX);
        assert_eq!(search.poll(Nanos(0), 0), Some(Ask::All));
        for _ in 0..REDIRECTS_MAX {
            assert_eq!(
                search.on_redirect(Nanos(0), address(1), address(9)),
                Some(Ask::One(address(9)))
            );
        }
        assert_eq!(search.on_redirect(Nanos(0), address(1), address(9)), None);
        let due = search.deadline();
        assert_eq!(search.poll(due, 0), Some(Ask::All));
        assert!(search.on_redirect(Nanos(0), address(1), address(9)).is_some());
    }

    #[test]
    fn a_node_that_names_a_leader_out_of_reach_is_asked_to_pass_on_and_another_one_the_next_time() {
        let after = 20 * Nanos::MILLISECOND;
        let mut search = Search::new(Nanos(0), 1, None, after);
        let (mut asked, mut epochs) = (Vec::new(), vec![1]);
        while asked.len() < 3 {
            let now = search.deadline();
            let ask = search.poll(now, 0).expect("it is time");
            if let Ask::Through(node) = ask {
                assert!(now.0 >= after, "first it is left to the redirect");
                assert!(search.deadline() >= now.plus(WAIT_THROUGH_NS));
                assert_eq!(search.through(), Some(node));
                assert_eq!(search.on_redirect(now, address(1), address(9)), None);
                asked.push(node);
            } else {
                assert_eq!((ask, search.through()), (Ask::All, None), "in turn with all");
                for node in [1, 2] {
                    search.on_redirect(now, address(node), address(9));
                }
            }
            if Some(&search.epoch) != epochs.last() {
                epochs.push(search.epoch);
            }
        }
        assert_eq!(asked, [address(1), address(2), address(1)]);
        assert_eq!(epochs, [1, 2, 3, 4, 5, 6], "each way has a lane of its own");
    }

    #[test]
    fn nobody_is_asked_to_pass_on_by_a_client_that_does_not_want_it() {
        let mut search = Search::new(Nanos(0), 1, None, u64::MAX);
        for _ in 0..100 {
            let now = search.deadline();
            assert_eq!(search.poll(now, 0), Some(Ask::All));
            search.on_redirect(now, address(1), address(9));
        }
        assert_eq!(search.epoch, 1);
    }
}

//! Whose datagrams a node passes on between its leader and clients that do not reach the leader themselves: a table of fixed
//! size. What it holds is not needed for anything but the next datagram: a client whose route is gone says hello again.
//!
//! ```text
//!          hello, lane                    hello, lane
//!  client ------------> node with routes ------------> leader
//!         <------------                  <------------
//!          by nonce, or by session and lane
//! ```

use core::net::SocketAddr;

use super::datagram::LaneHeader;
use super::index::SessionIndex;
use crate::types::Nanos;

/// A route whose client said nothing for so long gives way to another client when all are taken, ns.
const ROUTE_IDLE_NS: u64 = 5 * Nanos::SECOND;

/// One client that is passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Route {
    /// Of its hellos; 0: no route.
    nonce: u64,
    /// The lane it asked for last.
    epoch: u64,
    /// 0 until the leader has welcomed it.
    session: u64,
    client: SocketAddr,
    /// When it said something last.
    heard: Nanos,
}

/// The table. Never allocates after construction.
#[derive(Clone, Debug)]
pub struct Routes {
    table: Box<[Route]>,
    by_nonce: SessionIndex,
    by_session: SessionIndex,
    free: Vec<u32>,
}

impl Routes {
    /// Room for `routes` clients.
    #[must_use]
    pub fn new(routes: usize) -> Self {
        let client = SocketAddr::from(([0, 0, 0, 0], 0));
        let none = Route { nonce: 0, epoch: 0, session: 0, client, heard: Nanos(0) };
        Self {
            table: vec![none; routes].into_boxed_slice(),
            by_nonce: SessionIndex::new(routes),
            by_session: SessionIndex::new(routes),
            free: (0..routes as u32).rev().collect(),
        }
    }

    /// How many clients are passed on.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table.len() - self.free.len()
    }

    /// A client that does not reach the leader says hello: whether it is passed on.
    pub fn on_hello(&mut self, now: Nanos, client: SocketAddr, nonce: u64, epoch: u64) -> bool {
        if nonce == 0 {
            return false;
        }
        if let Some(number) = self.by_nonce.find(nonce) {
            let route = &mut self.table[number as usize];
            if epoch < route.epoch {
                return false; // it was under way for long
            }
            (route.client, route.epoch, route.heard) = (client, epoch, now);
            return true;
        }
        let Some(number) = self.take_free(now) else { return false };
        self.table[number as usize] = Route { nonce, epoch, session: 0, client, heard: now };
        self.by_nonce.insert(nonce, number);
        true
    }

    /// The leader answers the hello with this nonce: for whom that is.
    #[must_use]
    pub fn asker(&self, nonce: u64) -> Option<SocketAddr> {
        self.by_nonce.find(nonce).map(|number| self.table[number as usize].client)
    }

    /// The leader welcomes a client to a lane: for whom that is.
    pub fn on_welcome(&mut self, nonce: u64, session: u64, epoch: u64) -> Option<SocketAddr> {
        let number = self.by_nonce.find(nonce)?;
        let Route { epoch: asked, session: known, client, .. } = self.table[number as usize];
        if asked != epoch || session == 0 {
            return None;
        }
        if known != session {
            self.by_session.remove(known);
            if let Some(other) = self.by_session.find(session) {
                self.table[other as usize].session = 0;
            }
            self.by_session.insert(session, number);
            self.table[number as usize].session = session;
        }
        Some(client)
    }

    /// A datagram of a lane came from `client`: whether it is passed on to the leader.
    pub fn on_client(&mut self, now: Nanos, client: SocketAddr, lane: &LaneHeader) -> bool {
        let Some(number) = self.by_session.find(lane.session.get()) else { return false };
        let route = &mut self.table[number as usize];
        let known = route.client == client && route.epoch == lane.epoch.get();
        if known {
            route.heard = now;
        }
        known
    }

    /// A datagram of a lane came from the leader: for whom it is.
    #[must_use]
    pub fn client(&self, lane: &LaneHeader) -> Option<SocketAddr> {
        let number = self.by_session.find(lane.session.get())?;
        let route = &self.table[number as usize];
        (route.epoch == lane.epoch.get()).then_some(route.client)
    }

    /// Forgets all of them: the leader they lead to leads no more.
    pub fn clear(&mut self) {
        for number in 0..self.table.len() as u32 {
            if self.table[number as usize].nonce != 0 {
                self.remove(number);
            }
        }
    }

    fn take_free(&mut self, now: Nanos) -> Option<u32> {
        if self.free.is_empty() {
            let idle = |route: &Route| now.since(route.heard) >= ROUTE_IDLE_NS;
            let number = self.table.iter().position(idle)?;
            self.remove(number as u32);
        }
        self.free.pop()
    }

    fn remove(&mut self, number: u32) {
        let route = &mut self.table[number as usize];
        self.by_nonce.remove(route.nonce);
        self.by_session.remove(route.session);
        (route.nonce, route.session) = (0, 0);
        self.free.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }
    fn lane(session: u64, epoch: u64) -> LaneHeader {
        LaneHeader { session: session.into(), epoch: epoch.into() }
    }

    #[test]
    fn a_client_is_passed_on_on_the_lane_it_was_welcomed_to_and_on_no_other() {
        let mut routes = Routes::new(2);
        assert!(routes.on_hello(Nanos(1), address(1), 11, 5));
        assert_eq!(routes.asker(11), Some(address(1)));
        assert!(!routes.on_client(Nanos(1), address(1), &lane(7, 5)), "not welcomed yet");
        assert_eq!(routes.on_welcome(11, 7, 4), None, "of an older lane");
        assert_eq!(routes.on_welcome(12, 7, 5), None, "nobody asked");
        assert_eq!(routes.on_welcome(11, 7, 5), Some(address(1)));
        assert!(routes.on_client(Nanos(1), address(1), &lane(7, 5)));
        assert!(!routes.on_client(Nanos(1), address(2), &lane(7, 5)), "from elsewhere");
        assert!(!routes.on_client(Nanos(1), address(1), &lane(7, 4)), "an older lane");
        assert_eq!(routes.client(&lane(7, 5)), Some(address(1)));
        assert_eq!(routes.client(&lane(7, 6)), None);
        assert!(!routes.on_hello(Nanos(1), address(3), 11, 4), "older than what it asked last");
        assert!(routes.on_hello(Nanos(1), address(3), 11, 6));
        assert_eq!(routes.client(&lane(7, 5)), None, "the older lane has ended");
        assert_eq!(routes.on_welcome(11, 7, 6), Some(address(3)));
        assert_eq!(routes.client(&lane(7, 6)), Some(address(3)));
        assert!(!routes.on_hello(Nanos(1), address(1), 0, 1), "a hello has a nonce");
        routes.clear();
        assert_eq!((routes.count(), routes.client(&lane(7, 6)), routes.asker(11)), (0, None, None));
    }

    #[test]
    fn a_full_table_takes_a_new_client_only_in_place_of_a_silent_one() {
        let mut routes = Routes::new(2);
        assert!(routes.on_hello(Nanos(1), address(1), 11, 1));
        assert!(routes.on_hello(Nanos(1), address(2), 12, 1));
        assert_eq!(routes.on_welcome(12, 8, 1), Some(address(2)));
        let later = Nanos(ROUTE_IDLE_NS);
        assert!(!routes.on_hello(later, address(3), 13, 1), "nobody has been silent for as long");
        assert!(routes.on_client(later, address(2), &lane(8, 1)));
        let later = later.plus(1);
        assert!(routes.on_hello(later, address(3), 13, 1));
        assert_eq!((routes.asker(11), routes.count()), (None, 2));
        assert!(routes.on_client(later, address(2), &lane(8, 1)), "who spoke stays");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn whatever_comes_it_stays_whole(
            acts in prop::collection::vec((0..5_u8, 0..12_u64, 0..8_u64, 0..3_u64, 0..4_u64), 1..400),
        ) {
            let (mut routes, mut now) = (Routes::new(4), Nanos(0));
            for (act, nonce, session, epoch, wait) in acts {
                now = now.plus(wait * Nanos::SECOND);
                match act {
                    0 => drop(routes.on_hello(now, address(nonce as u16), nonce, epoch)),
                    1 => drop(routes.on_welcome(nonce, session, epoch)),
                    2 => drop(routes.on_client(now, address(nonce as u16), &lane(session, epoch))),
                    3 => drop(routes.client(&lane(session, epoch))),
                    _ if nonce == 0 => routes.clear(),
                    _ => {}
                }
                let taken = |route: &&Route| route.nonce != 0;
                prop_assert_eq!(routes.table.iter().filter(taken).count(), routes.count());
                for (number, route) in (0..).zip(&routes.table).filter(|(_, route)| taken(route)) {
                    prop_assert_eq!(routes.by_nonce.find(route.nonce), Some(number));
                    let known = routes.by_session.find(route.session);
                    prop_assert_eq!(known, (route.session != 0).then_some(number));
                }
                for session in 1..8 {
                    let number = routes.by_session.find(session);
                    prop_assert!(number.is_none_or(|n| routes.table[n as usize].session == session));
                }
            }
        }
    }
}

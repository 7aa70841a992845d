//! A follower passes datagrams on between its leader and clients that do not reach the leader themselves, unchanged but for
//! the flag that asked for it. Sessions, order and repair are between the client and the leader, which sees the client at this
//! node's address; nothing is kept here but the way back.
//!
//! It goes one hop, and within one leadership: what comes from another member is passed to a client only if it is of the
//! leadership that this node obeys, and the routes end with it.

use core::net::SocketAddr;

use zerocopy::FromBytes;

use super::core::{Core, HelloBytes, Now, Work};
use crate::journal::SegmentMemory;
use crate::service::Service;
use crate::stream::datagram::{
    DatagramHeader, DatagramKind, FLAG_FORWARD, HelloBody, LaneHeader, RefuseBody, RefuseReason,
    WelcomeBody, parse,
};
use crate::stream::network::{Destination, Network};
use crate::stream::routes::Routes;

/// Clients that one node passes on, at most: more are shown to the leader only.
pub(super) const ROUTES_MAX: usize = 1024;
/// Bytes of one datagram behind its header, at most.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The clients, and the datagram that is passed on.
#[derive(Debug)]
pub(super) struct Forwarding {
    routes: Routes,
    /// The body of the datagram in hand, copied out of the network's ring.
    body: Box<[u8]>,
    length: usize,
}

impl Forwarding {
    pub(super) fn new() -> Self {
        Self {
            routes: Routes::new(ROUTES_MAX),
            body: vec![0; BODY_BYTES_MAX].into_boxed_slice(),
            length: 0,
        }
    }

    /// Takes the body of a datagram out of the network's ring.
    pub(super) fn take(&mut self, body: &[u8]) {
        self.length = body.len().min(BODY_BYTES_MAX);
        self.body[..self.length].copy_from_slice(&body[..self.length]);
    }

    /// The leadership of the routes is over.
    pub(super) fn clear(&mut self) {
        if self.routes.count() > 0 {
            self.routes.clear();
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.body[..self.length]
    }
}

impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    /// The address of the leader, if this node follows one and has heard it lately.
    fn leader_heard(&self, now: Now) -> Option<SocketAddr> {
        let Work::Follower(following) = &self.work else { return None };
        let index = self.settings.index_of(self.leader()?)?;
        let heard = following.hears(now.at, self.settings.leader_timeout_ns);
        heard.then(|| self.settings.peers[index].address)
    }

    fn is_member(&self, address: SocketAddr) -> bool {
        self.settings.peers.iter().any(|peer| peer.address == address)
    }

    /// A client says hello, perhaps because it does not reach the leader.
    pub(super) fn hear_hello(
        &mut self,
        now: Now,
        from: SocketAddr,
        header: &DatagramHeader,
        hello: &HelloBytes,
    ) {
        let asks = header.flags & FLAG_FORWARD != 0;
        if !asks || !self.forward_hello(now, from, header, hello) {
            self.on_hello(now, from, hello);
        }
    }

    /// Whether this hello is passed on to the leader.
    fn forward_hello(
        &mut self,
        now: Now,
        from: SocketAddr,
        header: &DatagramHeader,
        hello: &HelloBytes,
    ) -> bool {
        let Ok((body, _)) = HelloBody::read_from_prefix(hello.bytes()) else { return false };
        let Some(leader) = self.leader_heard(now) else { return false };
        let (nonce, epoch) = (body.nonce.get(), body.epoch.get());
        if self.is_member(from) || !self.forwarding.routes.on_hello(now.at, from, nonce, epoch) {
            return false;
        }
        let mut header = *header;
        header.flags &= !FLAG_FORWARD;
        self.counters.forwarded += 1;
        self.send(Destination::Address(leader), &header, hello.bytes());
        true
    }

    /// The leader answers a hello that was passed on, with this datagram of the batch.
    pub(super) fn answer_forwarded(&mut self, index: usize, now: Now) {
        let (from, bytes) = self.network.datagram(index);
        let Ok((header, kind, body)) = parse(bytes, self.settings.group) else { return };
        let header = *header;
        self.forwarding.take(body);
        let Forwarding { routes, .. } = &mut self.forwarding;
        let client = if kind == DatagramKind::Welcome {
            WelcomeBody::read_from_prefix(body).ok().and_then(|(welcome, _)| {
                let (nonce, session) = (welcome.nonce.get(), welcome.session.get());
                routes.on_welcome(nonce, session, welcome.epoch.get())
            })
        } else {
            let refused = RefuseBody::read_from_prefix(body).ok();
            refused.and_then(|(refuse, _)| routes.asker(refuse.nonce.get()))
        };
        match client {
            Some(client) if self.leader_heard(now) == Some(from) => {
                self.counters.forwarded += 1;
                let to = Destination::Address(client);
                self.network.send(to, &header, &[], self.forwarding.bytes());
            }
            _ => self.counters.dropped_garbage += 1,
        }
    }

    /// A datagram of a lane, its body in hand, came to a node that does not lead: it is passed on, or its client is told where
    /// to go.
    pub(super) fn pass_on(&mut self, now: Now, from: SocketAddr, header: &DatagramHeader) {
        if !matches!(self.work, Work::Follower(_)) {
            return;
        }
        let Ok((lane, _)) = LaneHeader::read_from_prefix(self.forwarding.bytes()) else {
            self.counters.dropped_garbage += 1;
            return;
        };
        let leader = self.leader_heard(now);
        let to = if self.is_member(from) {
            let ours = leader == Some(from) && header.leadership() == self.fence;
            let Some(client) = self.forwarding.routes.client(&lane).filter(|_| ours) else {
                self.counters.dropped_stale += 1;
                return;
            };
            client
        } else if !self.forwarding.routes.on_client(now.at, from, &lane) {
            return self.redirect(now, from, Some(lane));
        } else if let Some(leader) = leader {
            leader
        } else {
            // As for a hello: nobody leads, as far as this node knows.
            self.counters.no_quorum_refusals += 1;
            return self.refuse_lane(now, from, lane, RefuseReason::NoQuorum);
        };
        self.counters.forwarded += 1;
        // Should the datagrams of this node be smaller than those of the sender, each part is one of the lane.
        let (prefix, rest) = self.forwarding.bytes().split_at(size_of::<LaneHeader>());
        self.network.send(Destination::Address(to), header, prefix, rest);
    }
}

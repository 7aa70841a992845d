//! WIP
use super::core::{Core, HelloBytes, Now};
use super::counters::Counters;
use super::settings::CoreSettings;
use crate::journal::SegmentMemory;
use crate::service::Service;
use crate::session::{Outcome, State};
use crate::stream::datagram::{DatagramHeader, DatagramKind};
use crate::stream::network::Network;
use crate::types::Nanos;
use core::net::SocketAddr;
#[derive(Debug)]
pub(super) struct Clients {}
impl Clients {
    pub(super) fn new(_s: &CoreSettings) -> Self {
        Self {}
    }
    pub(super) fn close(&mut self) {}
    pub(super) fn open(&mut self, _now: Nanos) {}
    pub(super) fn deadline(&self) -> Nanos {
        Nanos(u64::MAX)
    }
    pub(super) fn on_lane(
        &mut self,
        _n: Nanos,
        _f: SocketAddr,
        _h: &DatagramHeader,
        _k: DatagramKind,
        _b: &[u8],
        _c: &mut Counters,
    ) {
    }
    pub(super) fn answer<S: Service>(
        &mut self,
        _n: Nanos,
        _s: &State<S>,
        _o: &Outcome,
        _c: &mut Counters,
    ) {
    }
}
impl<N: Network, M: SegmentMemory, S: Service> Core<N, M, S> {
    pub(super) fn on_hello(
        &mut self,
        _now: Now,
        _from: SocketAddr,
        _h: &DatagramHeader,
        _b: &HelloBytes,
    ) {
    }
    pub(super) fn serve_clients(&mut self, _now: Now) -> usize {
        0
    }
}

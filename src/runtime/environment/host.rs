//! The ordinary environment: UDP sockets, files, and segments mapped from a memory file system.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::{ControlNetwork, LaneNet, LiveNetwork, Storage, Transport};
use crate::io::files::HostDisk;
use crate::io::hot_tier::{HostHotTier, HotTierSettings};
use crate::io::multicast::probe;
use crate::io::shared_page::MappedWords;
use crate::io::udp::{self, NetworkCounters, UdpNetwork, UdpSettings};
use crate::link::{Shared, Wake};
use crate::runtime::carrier::net::TcpLane;
use crate::runtime::config::Settings;
use crate::runtime::control_thread::SourceError;
use crate::runtime::host_client::{ConnectError, ConnectOptions};
use crate::runtime::node::{NodeError, udp_settings};
use crate::types::Nanos;

/// How long a probe of multicast waits for its own datagram.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// Hot segments that must find room when a node starts.
const HOT_SEGMENTS_MIN: u64 = 4;

/// UDP, the data directory, and a hot tier in memory where the host has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Host;

impl Transport for Host {
    type Network = UdpNetwork;
    type Control = HostControl;

    fn network(&self, settings: &Settings, _: Arc<dyn Wake>) -> Result<UdpNetwork, NodeError> {
        let (udp, auto) = udp_settings(settings, settings.transport.kind);
        let udp = match auto {
            Some(multicast) if carries_multicast(&multicast) => multicast,
            _ => udp,
        };
        UdpNetwork::open(&udp).map_err(NodeError::Network)
    }

    fn control(&self, settings: &Settings, _: Arc<dyn Wake>) -> Result<HostControl, NodeError> {
        let address = settings.own().control;
        let failed = |error| NodeError::Control(SourceError::control(address, error));
        let socket = UdpSocket::bind(address).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(HostControl { socket })
    }

    /// TCP; nothing for a group of one, which has nobody to take anything from.
    fn catch_up(&self, settings: &Settings) -> Result<Option<Box<dyn LaneNet>>, NodeError> {
        if settings.members.len() < 2 {
            return Ok(None);
        }
        let address = settings.own().catch_up;
        let lane = TcpLane::open(address);
        let lane =
            lane.map_err(|error| NodeError::Control(SourceError::catch_up(address, error)))?;
        Ok(Some(Box::new(lane)))
    }

    fn client(
        &self,
        options: &ConnectOptions,
        _: Arc<dyn Wake>,
    ) -> Result<UdpNetwork, ConnectError> {
        let bind = match options.members.first() {
            Some((_, address)) if address.ip().is_loopback() => SocketAddr::new(address.ip(), 0),
            Some((_, SocketAddr::V6(_))) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
            _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        };
        let udp = UdpSettings {
            faults: options.faults,
            ..UdpSettings::client(options.members.clone(), bind)
        };
        UdpNetwork::open(&udp).map_err(ConnectError::Network)
    }
}

/// Whether a datagram of this node to its group comes back. What is wrong with the host otherwise, opening the network
/// tells.
fn carries_multicast(settings: &UdpSettings) -> bool {
    match (&settings.transport, settings.node) {
        (udp::Transport::Multicast(group), Some(node)) => {
            probe(group, node, settings.bind, PROBE_TIMEOUT).unwrap_or(false)
        }
        _ => false,
    }
}

impl LiveNetwork for UdpNetwork {
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        Self::descriptors(self)
    }
    fn next_release(&self) -> Option<Nanos> {
        Self::next_release(self)
    }
    fn is_multicast(&self) -> bool {
        Self::is_multicast(self)
    }
    fn counters(&self) -> NetworkCounters {
        Self::counters(self)
    }
    fn warnings(&self) -> Vec<String> {
        self.refused().iter().map(ToString::to_string).collect()
    }
}

/// The socket of a control thread.
#[derive(Debug)]
pub struct HostControl {
    socket: UdpSocket,
}

impl ControlNetwork for HostControl {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        // Lost or refused is the same: messages are idempotent and repeated.
        let _ = self.socket.send_to(datagram, to);
    }
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).ok()
    }
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        core::iter::once(self.socket.as_fd())
    }
}

impl Storage for Host {
    type Disk = HostDisk;
    type HotTier = HostHotTier;

    fn disk(&self, folder: &HostDisk) -> Result<HostDisk, NodeError> {
        Ok(folder.clone())
    }

    fn hot_tier(
        &self,
        folder: &HostDisk,
        settings: &Settings,
    ) -> Result<(HostHotTier, Vec<String>), NodeError> {
        let (tier, warning) = HostHotTier::open(&HotTierSettings {
            data_directory: folder.directory().to_owned(),
            directory: settings.node.hot_dir.clone(),
            segment_bytes: settings.group.segment_bytes,
            segments_min: HOT_SEGMENTS_MIN,
        })
        .map_err(NodeError::HotTier)?;
        Ok((tier, warning.iter().map(ToString::to_string).collect()))
    }

    fn words(&self, hot: &HostHotTier) -> io::Result<Shared> {
        Ok(Arc::new(MappedWords::create(hot.directory())?))
    }
}

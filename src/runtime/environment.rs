//! What a node runs on: what carries its datagrams, and what keeps its log.
//!
//! The threads of a node are the same everywhere; [`Environment`] is all that they know of the place. [`Host`] is the ordinary
//! one, with UDP, files and mapped memory, and what [`Engine::open`](super::Engine::open) and the program `quorate` use.
//! A program brings its own with [`EngineBuilder::environment`](super::EngineBuilder::environment): shared memory, a network
//! card without a kernel in between, a log on a device of its own. Everything is dispatched statically.
//!
//! One half alone is replaced with a pair: `(mine, Host)` has the transport of `mine` and the storage of the host. What an
//! implementation must keep to is checked by [`conformance`](crate::conformance).

mod host;
mod in_memory;
mod in_process;

use core::net::SocketAddr;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub use self::host::{Host, HostControl};
pub use self::in_memory::{InMemory, OwnedDisk};
pub use self::in_process::{InProcess, ProcessControl, ProcessNetwork, Taken};
pub use super::carrier::net::{LaneNet, LaneStream};
use super::config::{FoundingMember, Settings};
use super::host_client::{ConnectError, ConnectOptions};
use super::node::NodeError;
use crate::io::files::HostDisk;
use crate::io::udp::NetworkCounters;
use crate::journal::{Disk, DurableFile, HotTier};
use crate::link::{Shared, SharedWords, Wake};
use crate::stream::network::Network;
use crate::types::Nanos;

/// A transport and a storage. Whatever is both is an environment; so is a pair of the two.
pub trait Environment: Transport + Storage + 'static {}

impl<E: Transport + Storage + 'static> Environment for E {}

/// What carries datagrams between nodes, and between clients and nodes.
///
/// The addresses of the members are names: what they mean is the transport's business, and so are the settings of
/// `[transport]` and `[faults]`.
pub trait Transport {
    /// What a core or a client sends and receives with.
    type Network: LiveNetwork;
    /// What a control thread sends and receives with.
    type Control: ControlNetwork;

    /// The network of this node's core, at its data address. `wake` ends a sleep of the core: see [`LiveNetwork::waits`].
    ///
    /// # Errors
    /// [`NodeError::Environment`] for errors of one's own.
    fn network(&self, settings: &Settings, wake: Arc<dyn Wake>)
    -> Result<Self::Network, NodeError>;

    /// The network of this node's control thread, at its control address.
    ///
    /// # Errors
    /// As [`Transport::network`].
    fn control(&self, settings: &Settings, wake: Arc<dyn Wake>)
    -> Result<Self::Control, NodeError>;

    /// The network of a client of this group, at an address that nobody else has.
    ///
    /// # Errors
    /// [`ConnectError::Environment`] for errors of one's own.
    fn client(
        &self,
        options: &ConnectOptions,
        wake: Arc<dyn Wake>,
    ) -> Result<Self::Network, ConnectError>;

    /// What nodes take each other's files over, at this node's address for it. None, which is the default: nothing; then a node
    /// that fell behind what its leader holds in memory stays there, and a log that only nodes have which never lead is lost
    /// to the group until they may.
    ///
    /// # Errors
    /// As [`Transport::network`].
    fn catch_up(&self, _settings: &Settings) -> Result<Option<Box<dyn LaneNet>>, NodeError> {
        Ok(None)
    }

    /// Where the only node of a group of one is reached: where it was the `last` time, unless somebody else is there by now.
    /// Only asked where nobody has set the addresses. The default takes UDP ports on loopback that are free now.
    ///
    /// # Errors
    /// The host's.
    fn addresses(&self, last: Option<FoundingMember>) -> io::Result<FoundingMember> {
        let is_free = |address: SocketAddr| UdpSocket::bind(address).is_ok();
        if let Some(last) = last.filter(|last| is_free(last.data) && is_free(last.control)) {
            return Ok(last);
        }
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (data, control) = (bind()?, bind()?);
        Ok(FoundingMember { data: data.local_addr()?, control: control.local_addr()? })
    }
}

/// A [`Network`] beside which a thread can sleep.
///
/// A thread that found nothing to do sleeps until a descriptor is readable, until it is woken, or until something is due. A
/// transport that can do neither is polled: set `threads.idle` to `spin` or `yield`.
pub trait LiveNetwork: Network + Send + 'static {
    /// What becomes readable when a datagram arrives, at most [`WAITS_MAX`](crate::io::wake::WAITS_MAX) of them.
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        core::iter::empty()
    }
    /// Whether datagrams wait that no descriptor shows. A transport that leaves mail in memory calls `wake` after it has
    /// left it; the thread asks this after it has said that it is about to sleep, so that one of the two always sees the
    /// other.
    fn waits(&self) -> bool {
        false
    }
    /// When something that the network holds back itself is to be polled.
    fn next_release(&self) -> Option<Nanos> {
        None
    }
    /// Whether one datagram to the members reaches all of them: then receivers hold their NAKs back for each other.
    fn is_multicast(&self) -> bool {
        false
    }
    /// What went in and out so far.
    fn counters(&self) -> NetworkCounters {
        NetworkCounters::default()
    }
    /// What was granted only in part when it was opened: an event each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Short datagrams between control threads. Any of them may be lost, repeated or late.
pub trait ControlNetwork: Send + 'static {
    /// Sends one; what cannot be sent is dropped. Never blocks.
    fn send(&mut self, to: SocketAddr, datagram: &[u8]);
    /// Receives one if there is one, with its length and whence it came. What is longer than `buffer` does not arrive, or
    /// arrives cut at its end. Never blocks.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)>;
    /// What becomes readable when one arrives. Without any, the transport wakes the thread.
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        core::iter::empty()
    }
}

/// What keeps the log and the node state.
pub trait Storage {
    /// Files that survive what the storage says it survives.
    type Disk: Disk<File: DurableFile + Send + 'static> + Clone + Send + 'static;
    /// Memory for the end of the log, shared by the core with the other threads.
    type HotTier: HotTier<Memory: 'static, View: 'static> + Send + 'static;

    /// The disk of the node in this folder, which is locked. The folder also holds what is for people and tools: events, the
    /// admin socket, and the settings of an engine. A disk that can be had from elsewhere too must be refused while somebody
    /// has it.
    ///
    /// # Errors
    /// [`NodeError::Environment`] for errors of one's own.
    fn disk(&self, folder: &HostDisk) -> Result<Self::Disk, NodeError>;

    /// Its hot tier, and what is to be said about it: an event each.
    ///
    /// # Errors
    /// As [`Storage::disk`].
    fn hot_tier(
        &self,
        folder: &HostDisk,
        settings: &Settings,
    ) -> Result<(Self::HotTier, Vec<String>), NodeError>;

    /// Where the node shows its positions and counters. By default in its own memory, where only this process sees them.
    ///
    /// # Errors
    /// The host's.
    fn words(&self, _: &Self::HotTier) -> io::Result<Shared> {
        Ok(Arc::new(SharedWords::default()))
    }
}

impl<T: Transport, S> Transport for (T, S) {
    type Network = T::Network;
    type Control = T::Control;

    fn network(
        &self,
        settings: &Settings,
        wake: Arc<dyn Wake>,
    ) -> Result<Self::Network, NodeError> {
        self.0.network(settings, wake)
    }
    fn control(
        &self,
        settings: &Settings,
        wake: Arc<dyn Wake>,
    ) -> Result<Self::Control, NodeError> {
        self.0.control(settings, wake)
    }
    fn client(
        &self,
        options: &ConnectOptions,
        wake: Arc<dyn Wake>,
    ) -> Result<Self::Network, ConnectError> {
        self.0.client(options, wake)
    }
    fn catch_up(&self, settings: &Settings) -> Result<Option<Box<dyn LaneNet>>, NodeError> {
        self.0.catch_up(settings)
    }
    fn addresses(&self, last: Option<FoundingMember>) -> io::Result<FoundingMember> {
        self.0.addresses(last)
    }
}

impl<T, S: Storage> Storage for (T, S) {
    type Disk = S::Disk;
    type HotTier = S::HotTier;

    fn disk(&self, folder: &HostDisk) -> Result<Self::Disk, NodeError> {
        self.1.disk(folder)
    }
    fn hot_tier(
        &self,
        folder: &HostDisk,
        settings: &Settings,
    ) -> Result<(Self::HotTier, Vec<String>), NodeError> {
        self.1.hot_tier(folder, settings)
    }
    fn words(&self, hot: &Self::HotTier) -> io::Result<Shared> {
        self.1.words(hot)
    }
}

/// A file of an environment's disk.
pub(super) type FileOf<E> = <<E as Storage>::Disk as Disk>::File;
/// The core's memory of a segment.
pub(super) type MemoryOf<E> = <<E as Storage>::HotTier as HotTier>::Memory;
/// A reader's view of it.
pub(super) type ViewOf<E> = <<E as Storage>::HotTier as HotTier>::View;

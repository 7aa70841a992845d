//! Implementations that break one rule each: the suites of `quorate::conformance` name it.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use quorate::conformance::network::{self, Group};
use quorate::conformance::{control, disk, hot_tier, storage, transport};
use quorate::io::files::HostDisk;
use quorate::journal::memory_disk::{MemoryDisk, MemoryFile};
use quorate::journal::{
    Disk, DurableFile, HeapHotTier, HeapMemory, HeapView, HotTier, SegmentMemory, SegmentView,
};
use quorate::link::{NoWake, Wake};
use quorate::runtime::config::Settings;
use quorate::runtime::environment::{
    ControlNetwork, InMemory, InProcess, LiveNetwork, OwnedDisk, ProcessControl, ProcessNetwork,
    Storage, Transport,
};
use quorate::runtime::{ConnectError, ConnectOptions, NodeError};
use quorate::stream::datagram::{DatagramHeader, FLAG_PADS};
use quorate::stream::network::{Destination, Network};
use quorate::types::{NodeId, Position};

/// What a network, a disk, a tier or a transport of this file does wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    // Networks, also of control threads.
    TurnsABit,
    HidesItsSource,
    TellsItself,
    TellsEverybody,
    TellsNobody,
    CountsNothing,
    PadsAll,
    PadsNone,
    KeepsThePosition,
    CutsTheEnd,
    SendsTheFirstOnly,
    LosesLongOnes,
    ForgetsThePrefix,
    ChangesTheBatch,
    NeverEnds,
    KeepsAll,
    AnswersForStrangers,
    // Disks.
    CreatesOver,
    OpensAnything,
    MixesErrors,
    ListsUnsorted,
    HidesFolders,
    ReadsShort,
    ExtendsWithOldBytes,
    LiesAboutSync,
    LiesAboutNames,
    RefusesToReplace,
    RenamesByCopy,
    RemovesNothing,
    WritesLate,
    // Hot tiers.
    PopulatesNothing,
    ChangesItsIdentity,
    PublishesNothing,
    PublishesTheWordOnly,
    HasASmallHeader,
    Moves,
    // Transports.
    WakesNobody,
    WakesNodesOnly,
    AlwaysHasMail,
    SharesAddresses,
}

/// A fault, and whether it is what a failure names.
type Case<F> = (Fault, fn(&F) -> bool);

/// A network of one thread: queues by address.
struct Wire {
    fault: Fault,
    queues: Rc<RefCell<Queues>>,
    address: SocketAddr,
    members: Vec<(NodeId, SocketAddr)>,
    batch: Vec<(SocketAddr, Vec<u8>)>,
    looked: std::cell::Cell<u64>,
    counter: u64,
}

type Queues = BTreeMap<SocketAddr, VecDeque<(SocketAddr, Vec<u8>)>>;

const DATAGRAM_BYTES: usize = 1000;
const QUEUE_MAX: usize = 1000;
const BATCH_MAX: usize = 256;

impl Wire {
    fn group(fault: Fault) -> Group<Self> {
        let address = |n: u16| SocketAddr::from(([10, 0, 0, 1], 100 + n));
        let members: Vec<_> = (0..3).map(|n| (NodeId(n), address(n))).collect();
        let queues = Rc::new(RefCell::new(Queues::new()));
        let open = |n: u16| Self {
            fault,
            queues: Rc::clone(&queues),
            address: address(n),
            members: members.clone(),
            batch: Vec::new(),
            looked: std::cell::Cell::new(0),
            counter: 0,
        };
        let nodes = (0..3).map(|n| (NodeId(n), address(n), open(n))).collect();
        Group { nodes, client: open(3) }
    }

    fn leave(&self, to: SocketAddr, datagram: &[u8]) {
        let from = SocketAddr::new(self.address.ip(), 99);
        let from = if self.fault == Fault::HidesItsSource { from } else { self.address };
        let mut queues = self.queues.borrow_mut();
        let queue = queues.entry(to).or_default();
        if queue.len() < QUEUE_MAX || self.fault == Fault::KeepsAll {
            queue.push_back((from, datagram.to_vec()));
        }
    }

    fn targets(&self, to: Destination) -> Vec<SocketAddr> {
        let all = self.members.iter().map(|member| member.1);
        let others = all.clone().filter(|address| *address != self.address);
        match to {
            _ if self.fault == Fault::TellsEverybody => others.collect(),
            Destination::Members if self.fault == Fault::TellsItself => all.collect(),
            Destination::Members => others.collect(),
            Destination::Node(node) => match self.members.iter().find(|own| own.0 == node) {
                Some((_, address)) => vec![*address],
                None if self.fault == Fault::AnswersForStrangers => others.take(1).collect(),
                None => Vec::new(),
            },
            Destination::Address(address) => vec![address],
        }
    }
}

impl Network for Wire {
    fn poll(&mut self) -> usize {
        if self.fault != Fault::NeverEnds {
            self.batch.clear();
        }
        if let Some(queue) = self.queues.borrow_mut().get_mut(&self.address) {
            self.batch.extend(queue.drain(..queue.len().min(BATCH_MAX)));
        }
        self.batch.len()
    }

    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        let (from, bytes) = &self.batch[index];
        let looked = self.looked.replace(self.looked.get() + 1);
        let cut = usize::from(self.fault == Fault::ChangesTheBatch && looked > 20);
        (*from, &bytes[..bytes.len() - cut])
    }

    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        let each = DATAGRAM_BYTES - 64 - prefix.len();
        let count = bytes.len().div_ceil(each).max(1);
        for number in 0..count {
            let body = &bytes[number * each..bytes.len().min((number + 1) * each)];
            let mut own = *header;
            self.counter += u64::from(self.fault != Fault::CountsNothing);
            own.counter.set(self.counter);
            if self.fault != Fault::KeepsThePosition {
                own.position.set(header.position.get() + (number * each) as u64);
            }
            let pads = match self.fault {
                Fault::PadsAll => true,
                Fault::PadsNone => false,
                _ => number + 1 == count,
            };
            own.flags = if pads { header.flags } else { header.flags & !FLAG_PADS };
            let mut datagram = zerocopy::IntoBytes::as_bytes(&own).to_vec();
            datagram.extend(prefix.iter().chain(body));
            let length = datagram.len();
            match self.fault {
                Fault::TurnsABit => datagram[length - 1] ^= 4,
                Fault::CutsTheEnd => datagram.truncate(length.min(900)),
                Fault::SendsTheFirstOnly if number > 0 => continue,
                Fault::LosesLongOnes if length > 900 => continue,
                Fault::TellsNobody => continue,
                _ => {}
            }
            for address in self.targets(to) {
                self.leave(address, &datagram);
            }
        }
    }

    fn body_bytes(&self, prefix: usize) -> usize {
        let prefix = if self.fault == Fault::ForgetsThePrefix { 0 } else { prefix };
        DATAGRAM_BYTES - 64 - prefix
    }
}

#[test]
fn networks_that_break_a_rule_are_caught() {
    type Named = network::Failure;
    let judge = |fault| network::check(Wire::group(fault), || {});
    let passed = judge(Fault::None).unwrap();
    assert!(passed.resent == 0 && passed.dropped_bytes > 0, "{passed:?}");
    let cases: [Case<Named>; 17] = [
        (Fault::TurnsABit, |failure| matches!(failure, Named::Altered { .. })),
        (Fault::HidesItsSource, |failure| matches!(failure, Named::Source { .. })),
        (Fault::TellsItself, |failure| matches!(failure, Named::Misdelivered { .. })),
        (Fault::TellsEverybody, |failure| matches!(failure, Named::Misdelivered { .. })),
        (Fault::TellsNobody, |failure| matches!(failure, Named::Lost { .. })),
        (Fault::CountsNothing, |failure| matches!(failure, Named::Counter { .. })),
        (Fault::PadsAll, |failure| matches!(failure, Named::Pads { .. })),
        (Fault::PadsNone, |failure| matches!(failure, Named::Pads { .. })),
        (Fault::KeepsThePosition, |failure| matches!(failure, Named::Altered { .. })),
        (Fault::CutsTheEnd, |failure| matches!(failure, Named::Altered { .. })),
        (Fault::SendsTheFirstOnly, |failure| matches!(failure, Named::Lost { .. })),
        (Fault::LosesLongOnes, |failure| matches!(failure, Named::Lost { .. })),
        (Fault::ForgetsThePrefix, |failure| matches!(failure, Named::Body { .. })),
        (Fault::ChangesTheBatch, |failure| matches!(failure, Named::Batch { .. })),
        (Fault::NeverEnds, |failure| matches!(failure, Named::Endless { .. })),
        (Fault::KeepsAll, |failure| matches!(failure, Named::Unbounded { .. })),
        (Fault::AnswersForStrangers, |failure| matches!(failure, Named::Misdelivered { .. })),
    ];
    for (fault, expected) in cases {
        let failure = judge(fault).expect_err("it is broken");
        assert!(expected(&failure), "{fault:?}: {failure}");
    }
}

/// A disk in memory with a fault.
#[derive(Clone)]
struct BadDisk {
    fault: Fault,
    inner: MemoryDisk,
}

struct BadFile {
    fault: Fault,
    inner: MemoryFile,
    /// Bytes that were cut off, from where.
    cut: Option<(u64, Vec<u8>)>,
    late: Vec<(u64, Vec<u8>)>,
}

impl BadDisk {
    fn file(&self, inner: MemoryFile) -> BadFile {
        BadFile { fault: self.fault, inner, cut: None, late: Vec::new() }
    }
}

impl Disk for BadDisk {
    type File = BadFile;

    fn open(&self, name: &str) -> io::Result<BadFile> {
        match self.inner.open(name) {
            Err(_) if self.fault == Fault::OpensAnything => self.create(name),
            Err(_) if self.fault == Fault::MixesErrors => Err(ErrorKind::InvalidInput.into()),
            found => found.map(|file| self.file(file)),
        }
    }
    fn create(&self, name: &str) -> io::Result<BadFile> {
        if self.fault == Fault::CreatesOver {
            let _ = self.inner.remove(name);
        }
        self.inner.create(name).map(|file| self.file(file))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.inner.list()?;
        match self.fault {
            Fault::ListsUnsorted => names.reverse(),
            Fault::HidesFolders => names.retain(|name| !name.contains('/')),
            _ => {}
        }
        Ok(names)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match self.fault {
            Fault::RefusesToReplace
                if [from, to].iter().all(|name| self.inner.bytes(name).is_some()) =>
            {
                Err(ErrorKind::AlreadyExists.into())
            }
            Fault::RenamesByCopy => {
                let bytes = self.inner.bytes(from).ok_or(ErrorKind::NotFound)?;
                self.inner.put(to, &bytes);
                Ok(())
            }
            _ => self.inner.rename(from, to),
        }
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        match self.fault {
            Fault::RemovesNothing => self.inner.open(name).map(drop),
            _ => self.inner.remove(name),
        }
    }
    fn sync_directory(&self) -> io::Result<()> {
        if self.fault == Fault::LiesAboutNames { Ok(()) } else { self.inner.sync_directory() }
    }
}

impl DurableFile for BadFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.fault == Fault::WritesLate {
            self.late.push((offset, bytes.to_vec()));
            return Ok(());
        }
        self.inner.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let most = if self.fault == Fault::ReadsShort { 4096 } else { usize::MAX };
        let length = bytes.len().min(most);
        self.inner.read_at(&mut bytes[..length], offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        for (offset, bytes) in self.late.drain(..) {
            self.inner.write_at(&bytes, offset)?;
        }
        if self.fault == Fault::LiesAboutSync { Ok(()) } else { self.inner.sync() }
    }
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let old = self.inner.length()?;
        if self.fault == Fault::ExtendsWithOldBytes && length < old {
            let mut bytes = vec![0; (old - length) as usize];
            self.inner.read_at(&mut bytes, length)?;
            self.cut = Some((length, bytes));
        }
        self.inner.set_length(length)?;
        if let Some((from, bytes)) = self.cut.take_if(|_| length > old) {
            self.inner.write_at(&bytes[..(length - from) as usize], from)?;
        }
        Ok(())
    }
}

impl Drop for BadFile {
    fn drop(&mut self) {
        for (offset, bytes) in self.late.drain(..) {
            let _ = self.inner.write_at(&bytes, offset);
        }
    }
}

#[test]
fn disks_that_break_a_rule_are_caught() {
    type Named = disk::Failure;
    // A fault of durability shows in some power losses, and in others not.
    let judge = |fault| {
        (0..20).find_map(|seed| {
            let mut losses = seed * 10;
            let reopen = |disk: BadDisk| {
                losses += 1;
                disk.inner.crash(losses);
                Ok(disk)
            };
            disk::check(BadDisk { fault, inner: MemoryDisk::new() }, reopen).err()
        })
    };
    assert_eq!(judge(Fault::None), None);
    let cases: [Case<Named>; 13] = [
        (Fault::CreatesOver, |failure| matches!(failure, Named::NotRefused { .. })),
        (Fault::OpensAnything, |failure| matches!(failure, Named::NotRefused { .. })),
        (Fault::MixesErrors, |failure| matches!(failure, Named::NotRefused { .. })),
        (Fault::ListsUnsorted, |failure| matches!(failure, Named::Names { .. })),
        (Fault::HidesFolders, |failure| matches!(failure, Named::Names { .. })),
        (Fault::ReadsShort, |failure| matches!(failure, Named::Bytes { .. })),
        (Fault::ExtendsWithOldBytes, |failure| matches!(failure, Named::Bytes { .. })),
        (Fault::LiesAboutSync, |failure| {
            matches!(failure, Named::Bytes { .. } | Named::Length { .. })
        }),
        (Fault::LiesAboutNames, |failure| matches!(failure, Named::Names { .. })),
        (Fault::RefusesToReplace, |failure| matches!(failure, Named::Refused { .. })),
        (Fault::RenamesByCopy, |failure| matches!(failure, Named::Names { .. })),
        (Fault::RemovesNothing, |failure| matches!(failure, Named::NotRefused { .. })),
        (Fault::WritesLate, |failure| matches!(failure, Named::Length { .. })),
    ];
    for (fault, expected) in cases {
        let failure = judge(fault).expect("it is broken");
        assert!(expected(&failure), "{fault:?}: {failure}");
    }
}

/// A hot tier on the heap with a fault.
struct BadTier {
    fault: Fault,
    inner: HeapHotTier,
    opened: u64,
}

struct BadMemory {
    fault: Fault,
    inner: HeapMemory,
    own: Vec<u8>,
}

struct BadView {
    fault: Fault,
    inner: HeapView,
}

impl HotTier for BadTier {
    type Memory = BadMemory;
    type View = BadView;

    fn create(&mut self, base: Position) -> io::Result<()> {
        self.inner.create(base)
    }
    fn populate(&mut self, base: Position, offset: u64, length: u64) -> io::Result<()> {
        match self.fault {
            Fault::PopulatesNothing => self.inner.populate(base, offset + length, 0),
            _ => self.inner.populate(base, offset, length),
        }
    }
    fn open(&mut self, base: Position) -> io::Result<(BadMemory, BadView)> {
        let (inner, view) = self.inner.open(base)?;
        let own = inner.bytes(0, inner.payload_bytes() as usize).to_vec();
        let fault = self.fault;
        Ok((BadMemory { fault, inner, own }, BadView { fault, inner: view }))
    }
    fn list(&self) -> io::Result<Vec<Position>> {
        let mut bases = self.inner.list()?;
        if self.fault == Fault::ListsUnsorted {
            bases.reverse();
        }
        Ok(bases)
    }
    fn remove(&mut self, base: Position) -> io::Result<()> {
        match self.fault {
            Fault::RemovesNothing => self.inner.open(base).map(drop),
            _ => self.inner.remove(base),
        }
    }
    fn id(&self) -> u64 {
        let by = if self.fault == Fault::ChangesItsIdentity { self.opened } else { 0 };
        self.inner.id() + by
    }
}

impl SegmentMemory for BadMemory {
    fn payload_bytes(&self) -> u64 {
        self.inner.payload_bytes()
    }
    fn header_mut(&mut self) -> &mut [u8] {
        let header = self.inner.header_mut();
        let cut = if self.fault == Fault::HasASmallHeader { 512 } else { 0 };
        let length = header.len() - cut;
        &mut header[..length]
    }
    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        match self.fault {
            Fault::Moves => &self.own[offset as usize..][..length],
            _ => self.inner.bytes(offset, length),
        }
    }
    fn bytes_mut(&mut self, offset: u64, length: usize) -> &mut [u8] {
        match self.fault {
            Fault::Moves => &mut self.own[offset as usize..][..length],
            _ => self.inner.bytes_mut(offset, length),
        }
    }
    fn publish(&mut self, offset: u64, word: u32) {
        match self.fault {
            Fault::PublishesNothing => {
                self.inner.bytes_mut(offset, 4).copy_from_slice(&word.to_le_bytes());
            }
            Fault::Moves => {
                let all = self.own.len();
                self.inner.bytes_mut(0, all).copy_from_slice(&self.own);
                self.inner.publish(offset, word);
                self.own = self.inner.bytes(0, all).to_vec();
            }
            _ => self.inner.publish(offset, word),
        }
    }
    fn published(&self, offset: u64) -> u32 {
        self.inner.published(offset)
    }
}

impl SegmentView for BadView {
    fn bytes(&self, offset: u64, length: usize) -> &[u8] {
        let bytes = self.inner.bytes(offset, length);
        match self.fault {
            // What is behind the first word is an older state.
            Fault::PublishesTheWordOnly if bytes.iter().any(|byte| *byte != 0) => {
                self.inner.bytes(offset + 8192, length)
            }
            _ => bytes,
        }
    }
}

#[test]
fn hot_tiers_that_break_a_rule_are_caught() {
    const BYTES: u64 = 64 * 1024;
    type Named = hot_tier::Failure;
    let judge = |fault| {
        let reopen = |tier: BadTier| Ok(BadTier { opened: tier.opened + 1, ..tier });
        let tier = BadTier { fault, inner: HeapHotTier::new(BYTES, 7), opened: 0 };
        hot_tier::check(tier, BYTES, reopen)
    };
    judge(Fault::None).unwrap();
    let cases: [Case<Named>; 8] = [
        (Fault::PopulatesNothing, |failure| {
            matches!(failure, Named::Bytes { .. } | Named::NotRefused { .. })
        }),
        (Fault::ChangesItsIdentity, |failure| *failure == Named::Identity),
        (Fault::PublishesNothing, |failure| matches!(failure, Named::Bytes { .. })),
        (Fault::PublishesTheWordOnly, |failure| matches!(failure, Named::Bytes { .. })),
        (Fault::HasASmallHeader, |failure| matches!(failure, Named::Size { .. })),
        (Fault::Moves, |failure| matches!(failure, Named::Moved { .. })),
        (Fault::ListsUnsorted, |failure| matches!(failure, Named::Segments { .. })),
        (Fault::RemovesNothing, |failure| matches!(failure, Named::Segments { .. })),
    ];
    for (fault, expected) in cases {
        let failure = judge(fault).expect_err("it is broken");
        assert!(expected(&failure), "{fault:?}: {failure}");
    }
}

/// A place in the process with a fault.
struct BadTransport {
    fault: Fault,
    inner: InProcess,
}

struct BadNetwork {
    fault: Fault,
    inner: ProcessNetwork,
}

struct BadControl {
    fault: Fault,
    inner: ProcessControl,
}

impl Transport for BadTransport {
    type Network = BadNetwork;
    type Control = BadControl;

    fn network(&self, settings: &Settings, wake: Arc<dyn Wake>) -> Result<BadNetwork, NodeError> {
        let wake = if self.fault == Fault::WakesNobody { Arc::new(NoWake) } else { wake };
        let inner = match self.inner.network(settings, Arc::clone(&wake)) {
            Err(_) if self.fault == Fault::SharesAddresses => {
                InProcess::new().network(settings, wake)?
            }
            inner => inner?,
        };
        Ok(BadNetwork { fault: self.fault, inner })
    }
    fn control(&self, settings: &Settings, wake: Arc<dyn Wake>) -> Result<BadControl, NodeError> {
        let inner = self.inner.control(settings, wake)?;
        Ok(BadControl { fault: self.fault, inner })
    }
    fn client(
        &self,
        options: &ConnectOptions,
        wake: Arc<dyn Wake>,
    ) -> Result<BadNetwork, ConnectError> {
        let deaf = [Fault::WakesNobody, Fault::WakesNodesOnly].contains(&self.fault);
        let wake = if deaf { Arc::new(NoWake) } else { wake };
        Ok(BadNetwork { fault: self.fault, inner: self.inner.client(options, wake)? })
    }
    fn addresses(
        &self,
        last: Option<quorate::runtime::config::FoundingMember>,
    ) -> io::Result<quorate::runtime::config::FoundingMember> {
        self.inner.addresses(last)
    }
}

impl Network for BadNetwork {
    fn poll(&mut self) -> usize {
        self.inner.poll()
    }
    fn datagram(&self, index: usize) -> (SocketAddr, &[u8]) {
        self.inner.datagram(index)
    }
    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        self.inner.send(to, header, prefix, bytes);
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        self.inner.body_bytes(prefix)
    }
}

impl LiveNetwork for BadNetwork {
    fn waits(&self) -> bool {
        match self.fault {
            Fault::AlwaysHasMail => true,
            Fault::WakesNobody => false,
            _ => self.inner.waits(),
        }
    }
}

impl ControlNetwork for BadControl {
    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        let mut bytes = datagram.to_vec();
        match self.fault {
            Fault::TurnsABit => bytes[0] ^= 1,
            Fault::LosesLongOnes if bytes.len() > 64 => return,
            Fault::CutsTheEnd => bytes.truncate(500),
            _ => {}
        }
        self.inner.send(to, &bytes);
    }
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let (length, from) = self.inner.receive(buffer)?;
        match self.fault {
            Fault::HidesItsSource => Some((length, SocketAddr::from(([10, 0, 0, 9], 9)))),
            _ => Some((length, from)),
        }
    }
}

#[test]
fn transports_that_break_a_rule_are_caught() {
    type Named = transport::Failure;
    let judge = |fault| transport::check(&BadTransport { fault, inner: InProcess::new() });
    assert!(judge(Fault::None).unwrap().wakes);
    // One that has to be polled is allowed, and says so.
    assert!(!judge(Fault::WakesNobody).unwrap().wakes);
    let altered =
        |failure: &Named| matches!(failure, Named::Control(control::Failure::Altered { .. }));
    let cases: [Case<Named>; 7] = [
        (Fault::WakesNodesOnly, |failure| matches!(failure, Named::Missed { .. })),
        (Fault::AlwaysHasMail, |failure| matches!(failure, Named::Sleepless)),
        (Fault::SharesAddresses, |failure| matches!(failure, Named::Taken(_))),
        (Fault::TurnsABit, altered),
        (Fault::HidesItsSource, altered),
        (Fault::CutsTheEnd, altered),
        (Fault::LosesLongOnes, |failure| {
            matches!(failure, Named::Control(control::Failure::Lost { .. }))
        }),
    ];
    for (fault, expected) in cases {
        let failure = judge(fault).expect_err("it is broken");
        assert!(expected(&failure), "{fault:?}: {failure}");
    }
}

/// Gives the same disk to everybody.
struct Everybodys(InMemory);

impl Storage for Everybodys {
    type Disk = MemoryDisk;
    type HotTier = HeapHotTier;

    fn disk(&self, _: &HostDisk) -> Result<MemoryDisk, NodeError> {
        Ok(self.0.memory_disk().clone())
    }
    fn hot_tier(
        &self,
        folder: &HostDisk,
        settings: &Settings,
    ) -> Result<(HeapHotTier, Vec<String>), NodeError> {
        self.0.hot_tier(folder, settings)
    }
}

#[test]
fn a_disk_for_everybody_is_caught() {
    let name = format!("quorate-conformance-everybody-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let caught = storage::check(&Everybodys(InMemory::new()), &folder, || {});
    let own: Result<OwnedDisk, _> = InMemory::new().own();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(caught, Err(storage::Failure::Shared)), "{caught:?}");
    own.unwrap();
}

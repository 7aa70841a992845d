//! The file `node.state`: two copies, each in a block of its own with a checksum.
//!
//! An update writes the first copy, syncs, writes the second, syncs, and only then returns. A crash in between leaves the new
//! state or the one before, neither of which has been acted on beyond what it says; after it returned, either copy may rot
//! and the other still holds the newest state. Opening completes an update that was cut short. The file is born under
//! another name with both copies whole, so that a file without a valid copy is always damage.
//!
//! Control and the sync thread share one store. Both may block; the core never comes here.

use core::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BootId, CleanMark, NodeState, Refused, Truncation};
use crate::frame::Predecessor;
use crate::frame::crc::crc32c;
use crate::journal::memory::{Disk, DurableFile};
use crate::journal::seal::Mark;
use crate::mutants::Mutants;
use crate::types::{
    Commit, CutEpoch, Generation, GroupId, Incarnation, Leadership, NodeId, Position, Term,
};

/// Name of the file in the data directory.
pub const NODE_STATE_NAME: &str = "node.state";
/// Its name while it is being born.
const BIRTH_NAME: &str = "node.state.new";
/// Bytes of each of its two copies.
pub const NODE_STATE_COPY_BYTES: usize = 4096;
/// Where the copies stand, and how far apart.
const BLOCK_BYTES: usize = NODE_STATE_COPY_BYTES;
/// First bytes of a copy.
const MAGIC: [u8; 8] = *b"QUORNODE";
/// Version of the format that this program writes.
const VERSION: u16 = 1;

const PROVISIONAL: u32 = 1;
const MAY_ACK_MEMORY: u32 = 2;
const FOUNDED: u32 = 4;
const CLEAN_MARK: u32 = 8;
const TRUNCATION: u32 = 16;
const WON_FOUNDING: u32 = 32;

/// Why the node state cannot be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum NodeStateError {
    /// The host failed. After a failed write or sync the store refuses everything.
    Io(io::Error),
    /// The file is there and neither copy is valid: it was damaged, and what the node promised is unknown.
    Damaged,
    /// The file starts like nothing of ours.
    Foreign,
    /// Another version of the format.
    Version {
        /// As found.
        found: u16,
    },
    /// The state of another group.
    Group {
        /// As found.
        found: GroupId,
        /// Ours.
        expected: GroupId,
    },
    /// The state of another node.
    Node {
        /// As found.
        found: NodeId,
        /// Ours.
        expected: NodeId,
    },
    /// An earlier write or sync failed.
    Poisoned,
    /// There is no state yet: the node has not been started.
    Absent,
    /// The change itself is refused.
    Refused(Refused),
}

/// The one way to read and change the node state.
#[derive(Debug)]
pub struct NodeStateStore<F> {
    group: GroupId,
    node: NodeId,
    inner: Mutex<Inner<F>>,
}

#[derive(Debug)]
struct Inner<F> {
    /// None until the first start writes a state.
    current: Option<(F, NodeState)>,
    number: u64,
    poisoned: bool,
}

impl<F: DurableFile> NodeStateStore<F> {
    /// Opens the state of this node, if it has one.
    ///
    /// # Errors
    /// [`NodeStateError`]: the host's, or a file that is damaged or not this node's.
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        group: GroupId,
        node: NodeId,
    ) -> Result<Self, NodeStateError> {
        let names = disk.list().map_err(NodeStateError::Io)?;
        if names.iter().any(|name| name == BIRTH_NAME) {
            disk.remove(BIRTH_NAME).map_err(NodeStateError::Io)?;
        }
        let mut inner = Inner { current: None, number: 0, poisoned: false };
        if names.iter().any(|name| name == NODE_STATE_NAME) {
            let mut file = disk.open(NODE_STATE_NAME).map_err(NodeStateError::Io)?;
            let (state, number, both) = read(&file)?;
            if state.group != group {
                return Err(NodeStateError::Group { found: state.group, expected: group });
            }
            if state.node != node {
                return Err(NodeStateError::Node { found: state.node, expected: node });
            }
            if !both {
                write_copies(&mut file, &state, number).map_err(NodeStateError::Io)?;
            }
            inner = Inner { current: Some((file, state)), number, poisoned: false };
        }
        Ok(Self { group, node, inner: Mutex::new(inner) })
    }

    /// Whose state it is.
    #[must_use]
    pub fn owner(&self) -> (GroupId, NodeId) {
        (self.group, self.node)
    }

    /// The state as it stands on the disk.
    #[must_use]
    pub fn state(&self) -> Option<NodeState> {
        self.lock().current.as_ref().map(|(_, state)| state.clone())
    }

    /// Writes the state that a start has decided, durably. The only way to write one where there was none.
    ///
    /// # Errors
    /// The host's; the store then refuses everything.
    pub fn record_start<D: Disk<File = F>>(
        &self,
        disk: &D,
        state: &NodeState,
    ) -> Result<(), NodeStateError> {
        assert!(state.group == self.group && state.node == self.node && state.clean_mark.is_none());
        let mut inner = self.lock();
        if inner.current.is_some() {
            return inner.write(state.clone());
        }
        if inner.poisoned {
            return Err(NodeStateError::Poisoned);
        }
        let born = give_birth(disk, state);
        inner.poisoned = born.is_err();
        inner.number = 1;
        inner.current = Some((born.map_err(NodeStateError::Io)?, state.clone()));
        Ok(())
    }

    /// As [`NodeStateStore::record_start`], with the rule that it is on the disk taken out: only what is planted does this.
    pub(in crate::journal) fn assume_start(&self, state: &NodeState) {
        if let Some((_, current)) = &mut self.lock().current {
            current.clone_from(state);
        }
    }

    /// Changes the state; it is on the disk when this returns. A refused change changes nothing.
    ///
    /// # Errors
    /// The refusal of `change`; the host's, after which the store refuses everything.
    pub fn update(
        &self,
        change: impl FnOnce(&mut NodeState) -> Result<(), Refused>,
    ) -> Result<NodeState, NodeStateError> {
        let mut inner = self.lock();
        let Some((_, state)) = &inner.current else { return Err(NodeStateError::Absent) };
        let mut changed = state.clone();
        change(&mut changed).map_err(NodeStateError::Refused)?;
        if changed != *state || inner.poisoned {
            inner.write(changed.clone())?;
        }
        Ok(changed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<F>> {
        // A panic while the lock is held leaves the last durable state in place: nothing is half changed in memory.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: DurableFile> Inner<F> {
    fn write(&mut self, changed: NodeState) -> Result<(), NodeStateError> {
        if self.poisoned {
            return Err(NodeStateError::Poisoned);
        }
        let Some((file, state)) = &mut self.current else { return Err(NodeStateError::Absent) };
        self.number += 1;
        // Set first: a panic or an error in the middle must not leave the store usable.
        self.poisoned = true;
        write_copies(file, &changed, self.number).map_err(NodeStateError::Io)?;
        *state = changed;
        self.poisoned = false;
        Ok(())
    }
}

fn give_birth<D: Disk>(disk: &D, state: &NodeState) -> io::Result<D::File> {
    let mut file = disk.create(BIRTH_NAME)?;
    write_copies(&mut file, state, 1)?;
    drop(file);
    disk.sync_directory()?;
    disk.rename(BIRTH_NAME, NODE_STATE_NAME)?;
    disk.sync_directory()?;
    disk.open(NODE_STATE_NAME)
}

fn write_copies<F: DurableFile>(file: &mut F, state: &NodeState, number: u64) -> io::Result<()> {
    let block = Block::new(state, number);
    for copy in 0..2 {
        file.write_at(block.as_bytes(), copy * BLOCK_BYTES as u64)?;
        file.sync()?;
    }
    Ok(())
}

/// The newest valid copy, its number, and whether the other one is the same.
fn read<F: DurableFile>(file: &F) -> Result<(NodeState, u64, bool), NodeStateError> {
    let mut blocks = [[0; BLOCK_BYTES]; 2];
    let mut failure = None;
    for (block, offset) in blocks.iter_mut().zip([0, BLOCK_BYTES as u64]) {
        // A block that cannot be read is a bad copy: the other one may be good.
        if let Err(error) = file.read_at(block, offset) {
            block.fill(0);
            failure = Some(error);
        }
    }
    let copies = blocks.each_ref().map(|block| decode_node_state(block));
    let newest = copies
        .iter()
        .filter_map(|copy| copy.as_ref().ok())
        .max_by_key(|&&(_, number)| number)
        .cloned();
    let Some((state, number)) = newest else {
        return match (failure, copies) {
            (Some(error), _) => Err(NodeStateError::Io(error)),
            (None, [Err(first @ NodeStateError::Version { .. }), _]) => Err(first),
            (None, [Err(NodeStateError::Foreign), Err(NodeStateError::Foreign)]) => {
                Err(NodeStateError::Foreign)
            }
            _ => Err(NodeStateError::Damaged),
        };
    };
    let both = copies.iter().all(|copy| copy.as_ref().is_ok_and(|&(_, n)| n == number));
    Ok((state, number, both))
}

/// Reads one copy: the state and the number of the write that made it.
///
/// # Errors
/// [`NodeStateError::Foreign`], [`NodeStateError::Version`] or [`NodeStateError::Damaged`].
pub fn decode_node_state(block: &[u8]) -> Result<(NodeState, u64), NodeStateError> {
    let Ok((block, _)) = Block::ref_from_prefix(block) else { return Err(NodeStateError::Damaged) };
    if block.magic != MAGIC {
        let foreign = block.magic.iter().zip(MAGIC).any(|(&found, m)| found != 0 && found != m);
        return Err(if foreign { NodeStateError::Foreign } else { NodeStateError::Damaged });
    }
    if block.version.get() != VERSION {
        return Err(NodeStateError::Version { found: block.version.get() });
    }
    let known = PROVISIONAL | MAY_ACK_MEMORY | FOUNDED | CLEAN_MARK | TRUNCATION | WON_FOUNDING;
    let as_written =
        block.flags.get() & !known == 0 && block.reserved.iter().all(|&byte| byte == 0);
    if block.crc.get() != block.checksum() || !as_written {
        return Err(NodeStateError::Damaged);
    }
    Ok((block.state(), block.number.get()))
}

/// A copy as it lies in the file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Block {
    magic: [u8; 8],
    version: U16,
    node: U16,
    flags: U32,
    number: U64,
    group: U64,
    generation: U64,
    term: U32,
    /// Node voted for, plus one; 0 for none.
    vote: U32,
    boot_id: [u8; 16],
    hot_tier_id: U64,
    incarnation: U32,
    truncation_epoch: U32,
    clean_tail: Mark,
    clean_commit: U64,
    truncation: Mark,
    reserved: [u8; BLOCK_BYTES - 140],
    /// Covers the whole block.
    crc: U32,
}

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && align_of::<Block>() == 1);

impl Block {
    fn new(state: &NodeState, number: u64) -> Self {
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        let flags = flag(state.provisional, PROVISIONAL)
            | flag(state.may_ack_memory, MAY_ACK_MEMORY)
            | flag(state.founded, FOUNDED)
            | flag(state.clean_mark.is_some(), CLEAN_MARK)
            | flag(state.truncation.is_some(), TRUNCATION)
            | flag(state.won_founding, WON_FOUNDING);
        let mark = state.clean_mark.unwrap_or_else(|| CleanMark {
            tail: Predecessor::default(),
            commit: Commit(Position(0)),
        });
        let truncation = state
            .truncation
            .unwrap_or_else(|| Truncation { at: Predecessor::default(), epoch: CutEpoch(0) });
        let mut block = Self {
            magic: MAGIC,
            version: U16::new(VERSION),
            node: U16::new(state.node.0),
            flags: U32::new(flags),
            number: U64::new(number),
            group: U64::new(state.group.0),
            generation: U64::new(state.leadership.generation.to_u64()),
            term: U32::new(state.leadership.term.0),
            vote: U32::new(state.vote.map_or(0, |node| u32::from(node.0) + 1)),
            boot_id: state.boot_id.0,
            hot_tier_id: U64::new(state.hot_tier_id),
            incarnation: U32::new(state.incarnation.0),
            truncation_epoch: U32::new(truncation.epoch.0),
            clean_tail: Mark::new(mark.tail),
            clean_commit: U64::new(mark.commit.position().0),
            truncation: Mark::new(truncation.at),
            reserved: [0; BLOCK_BYTES - 140],
            crc: U32::new(0),
        };
        block.crc = U32::new(block.checksum());
        block
    }

    fn checksum(&self) -> u32 {
        crc32c(0, &self.as_bytes()[..BLOCK_BYTES - 4])
    }

    fn state(&self) -> NodeState {
        let flags = self.flags.get();
        let on = |bit| flags & bit != 0;
        NodeState {
            group: GroupId(self.group.get()),
            node: NodeId(self.node.get()),
            leadership: Leadership {
                generation: Generation::from_u64(self.generation.get()),
                term: Term(self.term.get()),
            },
            vote: self.vote.get().checked_sub(1).map(|node| NodeId(node as u16)),
            boot_id: BootId(self.boot_id),
            incarnation: Incarnation(self.incarnation.get()),
            hot_tier_id: self.hot_tier_id.get(),
            may_ack_memory: on(MAY_ACK_MEMORY),
            provisional: on(PROVISIONAL),
            founded: on(FOUNDED),
            won_founding: on(WON_FOUNDING),
            clean_mark: on(CLEAN_MARK).then(|| CleanMark {
                tail: self.clean_tail.predecessor(),
                commit: Commit(Position(self.clean_commit.get())),
            }),
            truncation: on(TRUNCATION).then(|| Truncation {
                at: self.truncation.predecessor(),
                epoch: CutEpoch(self.truncation_epoch.get()),
            }),
            mutants: Mutants::NONE,
        }
    }
}

impl fmt::Display for NodeStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{NODE_STATE_NAME}: {error}"),
            Self::Damaged => write!(
                f,
                "{NODE_STATE_NAME}: both copies are damaged, so what this node promised is unknown; move the data \
                 directory aside and let the node rejoin as new"
            ),
            Self::Foreign => write!(f, "{NODE_STATE_NAME}: not written by Quorate"),
            Self::Version { found } => {
                write!(f, "{NODE_STATE_NAME}: format {found}, this program reads {VERSION}")
            }
            Self::Group { found, expected } => write!(
                f,
                "{NODE_STATE_NAME}: of group {:016x}, this node's is {:016x}",
                found.0, expected.0
            ),
            Self::Node { found, expected } => {
                write!(f, "{NODE_STATE_NAME}: of node {found}, this is node {expected}")
            }
            Self::Poisoned => write!(f, "{NODE_STATE_NAME}: an earlier write or sync failed"),
            Self::Absent => write!(f, "{NODE_STATE_NAME}: this node has not been started yet"),
            Self::Refused(refused) => write!(f, "{NODE_STATE_NAME}: {refused}"),
        }
    }
}

impl core::error::Error for NodeStateError {}

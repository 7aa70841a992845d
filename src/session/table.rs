//! The table of sessions.

use super::replies::{Answer, Arena, Kept, StoredReply, chunks_of};
use crate::limits::{
    REPLY_BYTES_MAX, REPLY_CHUNK_BYTES, REPLY_SPACE_BYTES_DEFAULT, SESSION_IN_FLIGHT_MAX,
    SESSION_REPLY_BYTES_DEFAULT, SESSIONS_DEFAULT, SESSIONS_MAX,
};
use crate::service::hash::Fingerprint;
use crate::service::index::Index;
use crate::types::{ClientSequence, Sequence, SessionId, Timestamp};

/// Sessions that one call of [`Sessions::expired`] looks at.
const EXPIRY_LOOKS: usize = 64;
/// No slot.
const NONE: u32 = u32::MAX;

/// Bounds of the table. Constants of the group: a node with others would decide differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionLimits {
    /// Sessions open at once, 1 to [`SESSIONS_MAX`].
    pub sessions_max: usize,
    /// Replies kept per session, so also commands of one client that may be unanswered at once: 1 to
    /// [`SESSION_IN_FLIGHT_MAX`].
    pub in_flight_max: usize,
    /// Bytes of replies kept for all sessions, counted in chunks of [`REPLY_CHUNK_BYTES`].
    pub reply_bytes_total: usize,
    /// Bytes of replies kept for one session, so that it does not take the room of all. Counted in the same way.
    pub session_reply_bytes: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            sessions_max: SESSIONS_DEFAULT,
            in_flight_max: SESSION_IN_FLIGHT_MAX,
            reply_bytes_total: REPLY_SPACE_BYTES_DEFAULT,
            session_reply_bytes: SESSION_REPLY_BYTES_DEFAULT,
        }
    }
}

/// As many sessions are open as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionsFull;

impl core::fmt::Display for SessionsFull {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("as many sessions are open as the group allows")
    }
}

impl core::error::Error for SessionsFull {}

/// What is to be done with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is the next one: apply it.
    Apply,
    /// It was applied: answer with the stored reply.
    Stored,
    /// Commands before it are missing: refuse it.
    Gap {
        /// The one that would be next.
        expected: ClientSequence,
    },
    /// It was applied, and its reply is no longer kept.
    Forgotten,
    /// There is no such session.
    UnknownSession,
}

/// One session, for those who ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Its id.
    pub id: SessionId,
    /// Drawn by the client when it opened it.
    pub nonce: u64,
    /// Silence after which it may be closed, ns of cluster time.
    pub timeout: u64,
    /// The last command that was applied.
    pub last: ClientSequence,
    /// Replies through this one are no longer kept.
    pub forgotten_through: ClientSequence,
    /// Cluster time of its last entry in the log.
    pub active: Timestamp,
}

/// The table: sessions by id, and their replies. All of its memory is allocated by [`Sessions::new`].
#[derive(Clone, Debug)]
pub struct Sessions {
    limits: SessionLimits,
    slots: Box<[Slot]>,
    /// `ring` descriptors per slot; a reply's place is its client sequence modulo `ring`, a power of two.
    kept: Box<[Kept]>,
    ring: usize,
    arena: Arena,
    by_id: Index,
    by_nonce: Index,
    vacant: Vec<u32>,
    /// Slots in the order of their ids, which is that of opening.
    oldest: u32,
    newest: u32,
    /// Running sum of the sessions' digests.
    sum: u64,
    /// Where [`Sessions::expired`] goes on: local, not replicated.
    cursor: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    info: SessionInfo,
    /// Chunks that its replies take.
    chunks: usize,
    /// Running sum of its replies' digests.
    replies_sum: u64,
    /// Its part of the table's sum.
    digest: u64,
    older: u32,
    newer: u32,
    /// When it was last heard, cluster time: local, not replicated.
    heard: Timestamp,
    /// [`Sessions::expired`] has named it: local, not replicated.
    named: bool,
}

impl Sessions {
    /// An empty table. Panics when a limit is out of its range: configurations are checked before they get here.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        assert!((1..=SESSIONS_MAX).contains(&limits.sessions_max), "sessions_max");
        assert!((1..=SESSION_IN_FLIGHT_MAX).contains(&limits.in_flight_max), "in_flight_max");
        assert!(limits.session_reply_bytes <= limits.reply_bytes_total, "session_reply_bytes");
        let ring = limits.in_flight_max.next_power_of_two();
        Self {
            limits,
            slots: vec![Slot::VACANT; limits.sessions_max].into_boxed_slice(),
            kept: vec![Kept::EMPTY; limits.sessions_max * ring].into_boxed_slice(),
            ring,
            arena: Arena::new(limits.reply_bytes_total),
            by_id: Index::new(limits.sessions_max),
            by_nonce: Index::new(limits.sessions_max),
            vacant: (0..limits.sessions_max as u32).rev().collect(),
            oldest: NONE,
            newest: NONE,
            sum: 0,
            cursor: NONE,
        }
    }
    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> &SessionLimits {
        &self.limits
    }
    /// Sessions that are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_id.count()
    }
    /// One session.
    #[must_use]
    pub fn info(&self, session: SessionId) -> Option<SessionInfo> {
        self.by_id.get(session.0).map(|slot| self.slots[slot as usize].info)
    }
    /// All sessions, by id.
    pub fn iter(&self) -> impl Iterator<Item = SessionInfo> + '_ {
        core::iter::successors(self.slots.get(self.oldest as usize), |slot| {
            self.slots.get(slot.newer as usize)
        })
        .map(|slot| slot.info)
    }
    /// The session that was opened with this nonce.
    #[must_use]
    pub fn find_nonce(&self, nonce: u64) -> Option<SessionId> {
        self.by_nonce.get(nonce).map(|slot| self.slots[slot as usize].info.id)
    }
    /// Opens a session. Ids rise, and neither id nor nonce is in use: asserted, the log's order and
    /// [`Sessions::find_nonce`] give both.
    ///
    /// # Errors
    /// [`SessionsFull`].
    pub fn open(
        &mut self,
        id: SessionId,
        nonce: u64,
        timeout: u64,
        time: Timestamp,
    ) -> Result<(), SessionsFull> {
        let info = SessionInfo {
            id,
            nonce,
            timeout,
            last: ClientSequence(0),
            forgotten_through: ClientSequence(0),
            active: time,
        };
        self.insert(info)
    }
    /// Closes a session and drops its replies; `false` when there is none of this id.
    pub fn close(&mut self, session: SessionId) -> bool {
        let Some(slot) = self.by_id.remove(session.0) else { return false };
        let index = slot as usize;
        let last = self.slots[index].info.last;
        self.forget(index, last);
        let Slot { info, digest, older, newer, .. } = self.slots[index];
        self.sum = self.sum.wrapping_sub(digest);
        self.by_nonce.remove(info.nonce);
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer as usize].older = older,
        }
        if self.cursor == slot {
            self.cursor = newer;
        }
        self.slots[index] = Slot::VACANT;
        self.vacant.push(slot);
        true
    }
    /// What is to be done with this command.
    #[must_use]
    pub fn judge(&self, session: SessionId, command: ClientSequence) -> Verdict {
        let Some(info) = self.info(session) else { return Verdict::UnknownSession };
        let expected = ClientSequence(info.last.0.saturating_add(1));
        if command == expected {
            Verdict::Apply
        } else if command > expected {
            Verdict::Gap { expected }
        } else if command > info.forgotten_through {
            Verdict::Stored
        } else {
            Verdict::Forgotten
        }
    }
    /// Whether a reply of `length` bytes to the session's next command can be kept.
    #[must_use]
    pub fn fits(&self, session: SessionId, length: usize) -> bool {
        let Some(index) = self.by_id.get(session.0) else { return false };
        let slot = &self.slots[index as usize];
        let oldest = ClientSequence(slot.info.forgotten_through.0 + 1);
        // What `record` is going to drop to make room in the ring.
        let dropped = if self.is_full(slot) {
            self.kept[self.place(index as usize, oldest)].chunks()
        } else {
            0
        };
        let (needed, own) = (chunks_of(length), slot.chunks - dropped);
        length <= REPLY_BYTES_MAX
            && needed <= self.arena.free() + dropped
            && own + needed <= self.limits.session_reply_bytes / REPLY_CHUNK_BYTES
    }
    /// Records that the session's next command, `command`, was answered, and keeps the reply. Panics unless
    /// [`Sessions::judge`] says [`Verdict::Apply`] and [`Sessions::fits`] says yes (an empty reply always fits).
    pub fn record(
        &mut self,
        session: SessionId,
        command: ClientSequence,
        answer: Answer,
        sequence: Sequence,
        time: Timestamp,
        bytes: &[u8],
    ) {
        let index = self.by_id.get(session.0).expect("only open sessions record") as usize;
        let slot = &self.slots[index];
        assert!(command.0 == slot.info.last.0 + 1, "commands are recorded in their order");
        if self.is_full(slot) {
            self.forget(index, ClientSequence(slot.info.forgotten_through.0 + 1));
        }
        let kept = self.arena.keep(command.0, sequence.0, answer, bytes);
        self.kept[self.place(index, command)] = kept;
        let slot = &mut self.slots[index];
        slot.info.last = command;
        slot.info.active = time;
        slot.chunks += kept.chunks();
        slot.replies_sum = slot.replies_sum.wrapping_add(kept.digest);
        self.settle(index);
    }
    /// The client has every reply through `command`: they are dropped. What is not answered yet stays.
    pub fn received_through(&mut self, session: SessionId, command: ClientSequence) {
        if let Some(slot) = self.by_id.get(session.0) {
            let through = command.min(self.slots[slot as usize].info.last);
            if through > self.slots[slot as usize].info.forgotten_through {
                self.forget(slot as usize, through);
                self.settle(slot as usize);
            }
        }
    }
    /// The log has an entry of this session: it is alive, on every node.
    pub fn active(&mut self, session: SessionId, time: Timestamp) {
        if let Some(slot) = self.by_id.get(session.0) {
            self.slots[slot as usize].info.active = time;
            self.settle(slot as usize);
        }
    }
    /// The client was heard at `time`, besides the log: keeps the session from expiring *here*. Local, not replicated.
    pub fn touch(&mut self, session: SessionId, time: Timestamp) {
        if let Some(slot) = self.by_id.get(session.0) {
            let slot = &mut self.slots[slot as usize];
            slot.heard = slot.heard.max(time);
            slot.named = false;
        }
    }
    /// The kept reply to a command.
    #[must_use]
    pub fn reply(&self, session: SessionId, command: ClientSequence) -> Option<StoredReply<'_>> {
        if self.judge(session, command) != Verdict::Stored {
            return None;
        }
        let index = self.by_id.get(session.0)?;
        let kept = &self.kept[self.place(index as usize, command)];
        Some(StoredReply {
            answer: Answer::from_u32(kept.answer)?,
            sequence: Sequence(kept.sequence),
            length: kept.length as usize,
            chunks: self.arena.bytes(kept),
        })
    }
    /// Looks at some sessions, going round, and names one that has been silent for longer than its timeout: neither in the
    /// log, nor [touched](Sessions::touch), nor before `not_before` (term start plus grace). Each is named once until it is
    /// touched or [`Sessions::name_again`] is called. `None` says only that none of those looked at is.
    pub fn expired(&mut self, time: Timestamp, not_before: Timestamp) -> Option<SessionId> {
        for _ in 0..EXPIRY_LOOKS.min(self.count()) {
            if self.cursor == NONE {
                self.cursor = self.oldest;
            }
            let slot = &mut self.slots[self.cursor as usize];
            self.cursor = slot.newer;
            let heard = slot.info.active.max(slot.heard).max(not_before);
            if !slot.named && time.0.saturating_sub(heard.0) > slot.info.timeout {
                slot.named = true;
                return Some(slot.info.id);
            }
        }
        None
    }
    /// Forgets what [`Sessions::expired`] has named, and what was heard: a new leadership starts afresh.
    pub fn name_again(&mut self) {
        let mut at = self.oldest;
        while at != NONE {
            let slot = &mut self.slots[at as usize];
            (slot.named, slot.heard) = (false, Timestamp(0));
            at = slot.newer;
        }
    }
    /// Fingerprint of the replicated part: sessions, their last commands, their kept replies.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        Fingerprint::new(0x5E55).word(self.count() as u64).word(self.sum).finish()
    }

    /// Closes all sessions.
    pub(super) fn clear(&mut self) {
        self.by_id.clear();
        self.by_nonce.clear();
        self.arena.clear();
        self.slots.fill(Slot::VACANT);
        self.vacant.clear();
        self.vacant.extend((0..self.limits.sessions_max as u32).rev());
        (self.oldest, self.newest, self.cursor, self.sum) = (NONE, NONE, NONE, 0);
    }
    /// Adds a session as it stands, without replies: its slot.
    pub(super) fn insert(&mut self, info: SessionInfo) -> Result<(), SessionsFull> {
        if let Some(newest) = self.slots.get(self.newest as usize) {
            assert!(newest.info.id < info.id, "sessions are opened in the order of their ids");
        }
        assert!(self.by_nonce.get(info.nonce).is_none(), "a nonce opens one session");
        let slot = self.vacant.pop().ok_or(SessionsFull)?;
        self.slots[slot as usize] = Slot { info, older: self.newest, ..Slot::VACANT };
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.slots[newest as usize].newer = slot,
        }
        self.newest = slot;
        self.by_id.set(info.id.0, slot);
        self.by_nonce.set(info.nonce, slot);
        self.settle(slot as usize);
        Ok(())
    }

    fn place(&self, slot: usize, command: ClientSequence) -> usize {
        slot * self.ring + (command.0 as usize & (self.ring - 1))
    }
    fn is_full(&self, slot: &Slot) -> bool {
        slot.info.last.0 - slot.info.forgotten_through.0 >= self.limits.in_flight_max as u64
    }
    /// Drops replies through `through`, which was applied. The caller settles the session, or closes it.
    fn forget(&mut self, index: usize, through: ClientSequence) {
        let from = self.slots[index].info.forgotten_through.0 + 1;
        for command in from..=through.0 {
            let place = self.place(index, ClientSequence(command));
            let kept = core::mem::replace(&mut self.kept[place], Kept::EMPTY);
            self.arena.release(&kept);
            let slot = &mut self.slots[index];
            slot.chunks -= kept.chunks();
            slot.replies_sum = slot.replies_sum.wrapping_sub(kept.digest);
        }
        self.slots[index].info.forgotten_through = through;
    }
    /// Brings the table's sum up to date with a session that changed.
    fn settle(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let SessionInfo { id, nonce, timeout, last, forgotten_through, active } = slot.info;
        let digest = Fingerprint::new(id.0)
            .pair(nonce, timeout)
            .pair(last.0, forgotten_through.0)
            .pair(active.0, slot.replies_sum)
            .finish();
        self.sum = self.sum.wrapping_sub(slot.digest).wrapping_add(digest);
        slot.digest = digest;
    }
}

impl Slot {
    const VACANT: Self = Self {
        info: SessionInfo {
            id: SessionId(0),
            nonce: 0,
            timeout: 0,
            last: ClientSequence(0),
            forgotten_through: ClientSequence(0),
            active: Timestamp(0),
        },
        chunks: 0,
        replies_sum: 0,
        digest: 0,
        older: NONE,
        newer: NONE,
        heard: Timestamp(0),
        named: false,
    };
}

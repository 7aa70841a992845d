//! What a node must never forget: its term, its vote, its life as a voter, and what it was allowed to promise.
//!
//! The state changes only through the functions here, each of which refuses what its write-order rule forbids. The rules
//! (DESIGN §6, explored exhaustively in `tests/model.rs`):
//!
//! 1. A new boot id or incarnation, `provisional`, and the removal of the clean mark are **one** write, durable before the
//!    first acknowledgement or vote after a start.
//! 2. `may_ack_memory` is durable before the first status that relies on it, and cleared only after a sync that covers
//!    everything acknowledged.
//! 3. Only re-admission clears `provisional`, durably, before the first vote or promise from memory. A clean mark never does.
//! 4. The clean mark is written only after acknowledging has stopped and the last sync has returned.
//! 5. Votes and terms are durable before they are acted on. That is [`NodeStateStore::update`]: it returns after the sync.

mod store;

pub use store::{
    NODE_STATE_COPY_BYTES, NODE_STATE_NAME, NodeStateError, NodeStateStore, decode_node_state,
};

use core::fmt;

use crate::frame::Predecessor;
use crate::link::Promise;
use crate::mutants::{Mutant, Mutants};
use crate::types::{
    Commit, CutEpoch, Durable, GroupId, Incarnation, Leadership, NodeId, Position, Tail,
};

/// Random identity of one boot of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct BootId(pub [u8; 16]);

/// Left by an orderly stop: everything this node ever acknowledged is on its disk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CleanMark {
    /// End of the log, all of it durable.
    pub tail: Predecessor,
    /// Commit position known then.
    pub commit: Commit,
}

/// The log was cut: whatever older seals claim above `at` is void.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Truncation {
    /// What stands before the cut: the log's end after it.
    pub at: Predecessor,
    /// Number of the cut.
    pub epoch: CutEpoch,
}

/// The durable state of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[allow(clippy::struct_excessive_bools)] // each is a fact of its own
pub struct NodeState {
    /// Which group.
    pub group: GroupId,
    /// Which node of it.
    pub node: NodeId,
    /// Newest leadership it has promised not to go below.
    pub leadership: Leadership,
    /// For whom it voted in that leadership.
    pub vote: Option<NodeId>,
    /// Boot of the machine in which it was last started.
    pub boot_id: BootId,
    /// Its life as a voter.
    pub incarnation: Incarnation,
    /// Identity of the hot tier it was last started with.
    pub hot_tier_id: u64,
    /// It may have promised what was only in memory.
    pub may_ack_memory: bool,
    /// It may have forgotten what it promised: it neither votes nor counts as a voter.
    pub provisional: bool,
    /// It has been part of a founded group, or was admitted to one. Until then it has no state worth the name.
    pub founded: bool,
    /// It has won the founding election in `leadership`. That is recorded: a founder whose log is empty still, and who has voted
    /// for itself since, looks the same, and whoever voted for it may have been wiped.
    pub won_founding: bool,
    /// The last stop was an orderly one, and nothing has been acknowledged since.
    pub clean_mark: Option<CleanMark>,
    /// The newest cut of its log.
    pub truncation: Option<Truncation>,
    /// Rules taken out, to prove that this is noticed; never on the disk.
    pub mutants: Mutants,
}

/// What a start finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartInput {
    /// The machine's boot.
    pub boot_id: BootId,
    /// The hot tier's identity.
    pub hot_tier_id: u64,
    /// The hot tier holds the log up to where it was being written ([`super::recovery`] finds that out).
    pub hot_whole: bool,
    /// Recovery must cut, or misses, bytes that this node may have promised.
    pub promise_lost: bool,
    /// First incarnation of a node without state. It must exceed every earlier one of the same node, so it is drawn from
    /// the calendar by the caller.
    pub first_incarnation: Incarnation,
}

/// What a start decides. `state` must be durable before anything is acknowledged or voted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StartDecision {
    /// To be written.
    pub state: NodeState,
    /// The hot tier is the one of last time, and whole: what was in it was not lost.
    pub hot_intact: bool,
    /// The node has no state of an earlier life: it is no witness of anything.
    pub stateless: bool,
}

/// Why a change of the state was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refused {
    /// The state of this start is not written yet: the clean mark of the last stop still stands.
    NotStarted,
    /// The node may have forgotten what it promised.
    Provisional,
    /// The node is not provisional: there is nothing to re-admit it to.
    NotProvisional,
    /// Not everything needed is on the disk.
    NotDurable {
        /// What is.
        durable: Durable,
        /// What is needed.
        needed: Position,
    },
    /// The log's end is below where it must be.
    Behind {
        /// Own end.
        tail: Tail,
        /// Where it must be.
        needed: Position,
    },
    /// It has promised a newer leadership.
    OlderLeadership {
        /// What it promised.
        promised: Leadership,
    },
    /// It has voted for another in this leadership.
    VotedFor {
        /// For whom.
        node: NodeId,
    },
    /// Cuts are numbered upwards.
    CutEpoch {
        /// The number of the newest.
        newest: CutEpoch,
    },
}

impl NodeState {
    /// State of a node that has none: as good as nothing until it is founded or admitted.
    #[must_use]
    pub fn blank(group: GroupId, node: NodeId) -> Self {
        Self {
            group,
            node,
            leadership: Leadership::default(),
            vote: None,
            boot_id: BootId::default(),
            incarnation: Incarnation(0),
            hot_tier_id: 0,
            may_ack_memory: false,
            provisional: true,
            founded: false,
            won_founding: false,
            clean_mark: None,
            truncation: None,
            mutants: Mutants::NONE,
        }
    }

    /// Starts the node: decides what it may have lost, and what it is from now on.
    #[must_use]
    pub fn start(
        previous: Option<&Self>,
        group: GroupId,
        node: NodeId,
        input: StartInput,
    ) -> StartDecision {
        let Some(previous) = previous else {
            let state = Self {
                boot_id: input.boot_id,
                hot_tier_id: input.hot_tier_id,
                incarnation: input.first_incarnation,
                ..Self::blank(group, node)
            };
            return StartDecision { state, hot_intact: false, stateless: true };
        };
        assert!(previous.group == group && previous.node == node, "the state of another node");
        let hot_intact = previous.boot_id == input.boot_id
            && previous.hot_tier_id == input.hot_tier_id
            && input.hot_whole;
        let memory_lost = !hot_intact && previous.may_ack_memory && previous.clean_mark.is_none();
        let lost = memory_lost || input.promise_lost;
        let has = |mutant| previous.mutants.has(mutant);
        let cleared = has(Mutant::ForgetProvisional)
            || (has(Mutant::CleanMarkClears) && previous.clean_mark.is_some());
        let kept_mark = previous.clean_mark.filter(|_| has(Mutant::CleanMarkStays));
        let state = Self {
            boot_id: input.boot_id,
            hot_tier_id: input.hot_tier_id,
            incarnation: Incarnation(previous.incarnation.0 + u32::from(lost)),
            provisional: (previous.provisional && !cleared) || lost,
            clean_mark: kept_mark,
            ..previous.clone()
        };
        StartDecision { state, hot_intact, stateless: !previous.founded }
    }

    /// Whether it may vote as an ordinary voter.
    #[must_use]
    pub const fn may_vote(&self) -> bool {
        self.is_started() && !self.provisional
    }

    /// Whether a status may promise what is only in memory.
    #[must_use]
    pub const fn may_promise_memory(&self) -> bool {
        self.may_vote() && (self.may_ack_memory || self.mutants.has(Mutant::PromiseBeforeAllowed))
    }

    /// Takes over what control is about to act on; `durable` is what of the log is on the disk.
    ///
    /// # Errors
    /// What of it this state refuses.
    pub fn keep(&mut self, promise: &Promise, durable: Durable) -> Result<(), Refused> {
        if promise.admitted {
            self.found(promise.leadership)?;
            self.won_founding = promise.founding;
        } else {
            self.raise(promise.leadership)?;
        }
        if let Some(needed) = promise.readmitted {
            self.readmit(needed, durable)?;
        }
        if let Some(vote) = promise.vote {
            // Control says with each vote what it is worth.
            self.vote_as_witness(promise.leadership, vote)?;
        }
        if promise.may_ack_memory {
            self.allow_memory()?;
        }
        Ok(())
    }

    /// Cuts that its log has seen.
    #[must_use]
    pub fn cut_epoch(&self) -> CutEpoch {
        self.truncation.map_or(CutEpoch(0), |truncation| truncation.epoch)
    }

    /// Allows promises from memory, once this is durable.
    ///
    /// # Errors
    /// Before the state of this start is written.
    pub fn allow_memory(&mut self) -> Result<(), Refused> {
        self.started()?;
        self.may_ack_memory = true;
        Ok(())
    }

    /// No more promises from memory: the caller has stopped them, and `acknowledged` is the end of all it ever gave.
    ///
    /// # Errors
    /// While anything acknowledged is not on the disk, or the node is provisional.
    pub fn forbid_memory(
        &mut self,
        acknowledged: Position,
        durable: Durable,
    ) -> Result<(), Refused> {
        self.started()?;
        self.ordinary()?;
        if !self.mutants.has(Mutant::ForbidBeforeSync) {
            covered(acknowledged, durable)?;
        }
        self.may_ack_memory = false;
        Ok(())
    }

    /// Ends the time as provisional: it holds on its disk everything up to the leader's tail at its rejoin (`needed`), and
    /// the leader has committed an entry of its own term appended after that.
    ///
    /// # Errors
    /// When `needed` is not on the disk.
    pub fn readmit(&mut self, needed: Position, durable: Durable) -> Result<(), Refused> {
        self.started()?;
        if !self.provisional {
            return Err(Refused::NotProvisional);
        }
        if !self.mutants.has(Mutant::ReadmitBeforeSync) {
            covered(needed, durable)?;
        }
        self.provisional = false;
        self.founded = true;
        self.won_founding = false;
        Ok(())
    }

    /// Takes part as an observer from now on, for which no promise is kept: should it become a voter (again), it is one that
    /// may have forgotten.
    ///
    /// # Errors
    /// Before the state of this start is written.
    pub fn observe(&mut self) -> Result<(), Refused> {
        self.started()?;
        if !self.provisional {
            self.provisional = true;
            self.incarnation.0 += 1;
        }
        Ok(())
    }

    /// Every voter has granted its vote in one leadership, each after its fence: the group is founded, or its provisional
    /// winner is no longer so.
    ///
    /// # Errors
    /// Before the state of this start is written, or below what was promised.
    pub fn found(&mut self, leadership: Leadership) -> Result<(), Refused> {
        self.started()?;
        self.raise(leadership)?;
        self.provisional = false;
        self.founded = true;
        Ok(())
    }

    /// Promises never to go below `leadership`.
    ///
    /// # Errors
    /// When a newer one is promised already.
    pub fn raise(&mut self, leadership: Leadership) -> Result<(), Refused> {
        self.started()?;
        if leadership < self.leadership {
            return Err(Refused::OlderLeadership { promised: self.leadership });
        }
        if leadership > self.leadership {
            self.leadership = leadership;
            self.vote = None;
            self.won_founding = false;
        }
        Ok(())
    }

    /// Votes for `candidate` in `leadership`. The caller has the core's answer to its fence.
    ///
    /// # Errors
    /// When it promised a newer leadership, voted for another in this one, or is provisional.
    pub fn vote(&mut self, leadership: Leadership, candidate: NodeId) -> Result<(), Refused> {
        self.ordinary()?;
        self.vote_as_witness(leadership, candidate)
    }

    /// As [`NodeState::vote`], in an election by all votes, in which provisional voters count too.
    ///
    /// # Errors
    /// When it promised a newer leadership, or voted for another in this one.
    pub fn vote_as_witness(
        &mut self,
        leadership: Leadership,
        candidate: NodeId,
    ) -> Result<(), Refused> {
        self.raise(leadership)?;
        match self.vote {
            Some(node) if node != candidate => Err(Refused::VotedFor { node }),
            _ => {
                self.vote = Some(candidate);
                Ok(())
            }
        }
    }

    /// Records a cut, which lowers what older seals claim. Written after the cut bytes are saved, before the files are cut.
    ///
    /// # Errors
    /// When a cut of that number, or a higher one, is recorded already.
    pub fn truncate(&mut self, truncation: Truncation) -> Result<(), Refused> {
        self.started()?;
        // Not always by one: a log whose node state was lost knows from its seals how often it was cut.
        let newest = self.cut_epoch();
        if truncation.epoch <= newest {
            return Err(Refused::CutEpoch { newest });
        }
        self.truncation = Some(truncation);
        Ok(())
    }

    /// Leaves the clean mark: acknowledging has stopped with the log ending at `mark.tail`, and the last sync has returned
    /// `durable`.
    ///
    /// # Errors
    /// While the log's end is not on the disk.
    pub fn stop(&mut self, mark: CleanMark, durable: Durable) -> Result<(), Refused> {
        self.started()?;
        if !self.mutants.has(Mutant::CleanMarkBeforeSync) {
            covered(mark.tail.position, durable)?;
        }
        if mark.commit.position() > mark.tail.position {
            let tail = Tail(mark.tail.position);
            return Err(Refused::Behind { tail, needed: mark.commit.position() });
        }
        self.clean_mark = Some(mark);
        Ok(())
    }

    const fn is_started(&self) -> bool {
        self.clean_mark.is_none() || self.mutants.has(Mutant::CleanMarkStays)
    }

    fn started(&self) -> Result<(), Refused> {
        if self.is_started() { Ok(()) } else { Err(Refused::NotStarted) }
    }

    fn ordinary(&self) -> Result<(), Refused> {
        if self.provisional { Err(Refused::Provisional) } else { Ok(()) }
    }
}

fn covered(needed: Position, durable: Durable) -> Result<(), Refused> {
    if durable.position() < needed {
        return Err(Refused::NotDurable { durable, needed });
    }
    Ok(())
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => write!(f, "the state of this start is not written yet"),
            Self::Provisional => write!(f, "this node may have forgotten what it promised"),
            Self::NotProvisional => write!(f, "this node is not provisional"),
            Self::NotDurable { durable, needed } => {
                write!(f, "durable to {durable}, needed to {needed}")
            }
            Self::Behind { tail, needed } => {
                write!(f, "the log ends at {tail}, needed to {needed}")
            }
            Self::OlderLeadership { promised } => write!(f, "leadership {promised} is promised"),
            Self::VotedFor { node } => write!(f, "voted for node {node} in this leadership"),
            Self::CutEpoch { newest } => write!(f, "cut number {newest} is recorded already"),
        }
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Chain, Generation, Sequence, Term};

    fn input() -> StartInput {
        StartInput {
            boot_id: BootId([1; 16]),
            hot_tier_id: 7,
            hot_whole: true,
            promise_lost: false,
            first_incarnation: Incarnation(1000),
        }
    }

    fn at(position: u64) -> Predecessor {
        Predecessor {
            position: Position(position),
            sequence: Sequence(position / 32),
            term: Term(1),
            chain: Chain(5),
        }
    }

    fn term(term: u32) -> Leadership {
        Leadership { generation: Generation { counter: 1, random: 2 }, term: Term(term) }
    }

    fn start(previous: Option<&NodeState>, input: StartInput) -> StartDecision {
        NodeState::start(previous, GroupId(1), NodeId(0), input)
    }

    /// A member in good standing that has just been started.
    fn member() -> NodeState {
        let mut state = start(None, input()).state;
        state.found(term(1)).unwrap();
        start(Some(&state), input()).state
    }

    #[test]
    fn without_state_it_is_provisional_and_no_witness_until_founded() {
        let first = start(None, input());
        assert!(first.stateless && first.state.provisional && !first.hot_intact);
        assert_eq!(first.state.incarnation, Incarnation(1000));
        // Nothing happened, and it is started again: there is still no state worth the name.
        let again = start(Some(&first.state), input());
        assert!(again.stateless && again.state.provisional);
        let mut state = again.state;
        assert_eq!(state.clone().vote(term(1), NodeId(0)), Err(Refused::Provisional));
        assert_eq!(state.vote_as_witness(term(1), NodeId(0)), Ok(()));
        assert_eq!(state.found(term(1)), Ok(()));
        assert!(!start(Some(&state), input()).stateless);
        assert_eq!(state.vote, Some(NodeId(0)), "founding in the same term keeps the vote");
    }

    #[test]
    fn a_voter_that_observed_for_a_while_may_have_forgotten_and_does_not_vote() {
        let mut state = member();
        let before = state.incarnation;
        state.observe().unwrap();
        state.observe().unwrap();
        assert_eq!(
            state.incarnation,
            Incarnation(before.0 + 1),
            "one new life, not one at each start"
        );
        let mut again = start(Some(&state), input()).state;
        assert!(again.provisional && !again.may_vote() && !again.may_promise_memory());
        assert_eq!(again.readmit(Position(64), Durable(Position(64))), Ok(()));
        assert!(again.may_vote(), "as any other that comes back");
    }

    #[test]
    fn another_boot_or_tier_makes_provisional_only_who_may_have_acked_from_memory() {
        let mut state = member();
        let rebooted = StartInput { boot_id: BootId([2; 16]), ..input() };
        let other_tier = StartInput { hot_tier_id: 8, ..input() };
        let holes = StartInput { hot_whole: false, ..input() };
        for lost in [rebooted, other_tier, holes] {
            let decision = start(Some(&state), lost);
            assert!(!decision.hot_intact && !decision.state.provisional);
        }
        state.allow_memory().unwrap();
        for lost in [rebooted, other_tier, holes] {
            let decision = start(Some(&state), lost);
            assert!(decision.state.provisional && !decision.state.may_vote());
            assert_eq!(decision.state.incarnation.0, state.incarnation.0 + 1);
            assert_eq!(decision.state.boot_id, lost.boot_id);
        }
        let intact = start(Some(&state), input());
        assert!(intact.hot_intact && intact.state.may_promise_memory());
        assert_eq!(intact.state.incarnation, state.incarnation);
    }

    #[test]
    fn a_lost_promise_makes_provisional_even_when_the_memory_is_intact() {
        let lost = start(Some(&member()), StartInput { promise_lost: true, ..input() });
        assert!(lost.state.provisional && lost.state.incarnation > member().incarnation);
    }

    #[test]
    fn the_clean_mark_spares_a_reboot_and_is_gone_with_the_first_write_of_a_start() {
        let mut state = member();
        state.allow_memory().unwrap();
        let mark = CleanMark { tail: at(64), commit: Commit(Position(32)) };
        assert_eq!(
            state.clone().stop(mark, Durable(Position(32))),
            Err(Refused::NotDurable { durable: Durable(Position(32)), needed: Position(64) })
        );
        state.stop(mark, Durable(Position(64))).unwrap();
        assert!(!state.may_vote() && !state.may_promise_memory());
        assert_eq!(state.clone().allow_memory(), Err(Refused::NotStarted));
        assert_eq!(state.clone().vote(term(9), NodeId(1)), Err(Refused::NotStarted));
        let rebooted = StartInput { boot_id: BootId([2; 16]), ..input() };
        let decision = start(Some(&state), rebooted);
        assert!(!decision.state.provisional && decision.state.clean_mark.is_none());
    }

    #[test]
    fn d5_a_clean_mark_never_clears_provisional_and_covers_no_later_acks() {
        let mut state = member();
        state.allow_memory().unwrap();
        let rebooted = |n| StartInput { boot_id: BootId([n; 16]), ..input() };
        let mut lost = start(Some(&state), rebooted(2)).state;
        let mark = CleanMark { tail: at(64), commit: Commit(Position(32)) };
        lost.stop(mark, Durable(Position(64))).unwrap();
        assert!(start(Some(&lost), rebooted(2)).state.provisional);
        // Clean mark, restart, acks from memory, power loss: not clean.
        state.stop(mark, Durable(Position(64))).unwrap();
        let restarted = start(Some(&state), rebooted(3)).state;
        assert!(restarted.may_promise_memory());
        assert!(start(Some(&restarted), rebooted(4)).state.provisional);
    }

    #[test]
    fn memory_acks_are_forbidden_only_once_covered() {
        let mut state = member();
        state.allow_memory().unwrap();
        let early = state.forbid_memory(Position(96), Durable(Position(64)));
        assert!(matches!(early, Err(Refused::NotDurable { .. })) && state.may_ack_memory);
        state.forbid_memory(Position(96), Durable(Position(96))).unwrap();
        assert!(!state.may_ack_memory);
    }

    #[test]
    fn readmission_needs_everything_on_the_disk() {
        let mut state = start(Some(&member()), StartInput { promise_lost: true, ..input() }).state;
        let early = state.readmit(Position(96), Durable(Position(64)));
        assert!(matches!(early, Err(Refused::NotDurable { .. })) && state.provisional);
        assert_eq!(
            state.forbid_memory(Position(0), Durable(Position(0))),
            Err(Refused::Provisional)
        );
        state.readmit(Position(96), Durable(Position(96))).unwrap();
        assert!(state.may_vote());
        assert_eq!(
            state.readmit(Position(96), Durable(Position(96))),
            Err(Refused::NotProvisional)
        );
    }

    #[test]
    fn one_vote_per_leadership_and_never_backwards() {
        let mut state = member();
        state.vote(term(2), NodeId(1)).unwrap();
        state.vote(term(2), NodeId(1)).unwrap();
        assert_eq!(state.vote(term(2), NodeId(2)), Err(Refused::VotedFor { node: NodeId(1) }));
        assert_eq!(
            state.vote(term(1), NodeId(1)),
            Err(Refused::OlderLeadership { promised: term(2) })
        );
        state.raise(term(3)).unwrap();
        assert_eq!(state.vote, None);
        state.vote(term(3), NodeId(2)).unwrap();
    }

    #[test]
    fn d3_a_founding_is_won_by_its_winner_alone_until_it_promises_more() {
        let won = Promise {
            leadership: term(1),
            vote: Some(NodeId(0)),
            may_ack_memory: false,
            admitted: true,
            founding: true,
            readmitted: None,
            ahead: false,
        };
        let keep = |state: &NodeState, promise| {
            let mut state = state.clone();
            state.keep(&promise, Durable(Position(0))).unwrap();
            state.won_founding
        };
        let blank = start(None, input()).state;
        assert!(!keep(&blank, Promise { founding: false, ..won }), "called, or told");
        let mut winner = blank;
        winner.keep(&won, Durable(Position(0))).unwrap();
        winner = start(Some(&winner), input()).state;
        assert!(winner.won_founding, "after a start too");
        let same = Promise { admitted: false, founding: false, may_ack_memory: true, ..won };
        assert!(keep(&winner, same));
        assert!(
            !keep(&winner, Promise { leadership: term(2), ..same }),
            "its own vote or another's"
        );
        let mut lost = start(Some(&winner), StartInput { promise_lost: true, ..input() }).state;
        lost.readmit(Position(0), Durable(Position(0))).unwrap();
        assert!(!lost.won_founding);
    }

    #[test]
    fn cuts_are_numbered() {
        let mut state = member();
        let cut = |epoch| Truncation { at: at(64), epoch: CutEpoch(epoch) };
        assert_eq!(state.truncate(cut(0)), Err(Refused::CutEpoch { newest: CutEpoch(0) }));
        state.truncate(cut(1)).unwrap();
        assert_eq!(state.truncate(cut(1)), Err(Refused::CutEpoch { newest: CutEpoch(1) }));
        state.truncate(cut(7)).unwrap();
        assert_eq!(state.cut_epoch(), CutEpoch(7));
    }
}

//! Who is on the list: the rules by which a group changes it while it runs.
//!
//! The list is an entry of the log. The newest one in a node's own log holds, whether it is committed or not, and a cut
//! brings the one before back. A leader changes one thing at a time, and only once an entry of its own term is committed: so
//! a quorum of the list before and one of the list after always share a node. What votes are counted by is the list as it
//! stands after the fence, like every other fact that a vote is decided on.
//!
//! The runtime does not offer this yet; the rules are here, and every schedule of them is explored (`tests/model.rs`).

use core::fmt;

use super::election::Member;
use crate::limits::NODES_MAX;
use crate::mutants::{Mutant, Mutants};
use crate::types::{Commit, NodeId, Position};

/// What a leader may want of the list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Change {
    /// A node that is not on the list gets the log from now on, as an observer.
    Add(NodeId),
    /// An observer votes from now on, and has this priority.
    Promote(NodeId, u8),
    /// A voter is an observer from now on.
    Demote(NodeId),
    /// A node leaves.
    Remove(NodeId),
}

/// Where the leader stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leader {
    /// Which node it is.
    pub node: NodeId,
    /// End of the entry that opened its term.
    pub term_opened: Position,
    /// What is committed.
    pub commit: Commit,
}

/// What a leader knows of a node that is to vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// It may have forgotten what it promised, or has no state.
    pub provisional: bool,
    /// What it promised to keep.
    pub promised: Position,
}

/// Why a list is not changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// Nothing of the leader's own term is committed: an older leader's change may still be under way.
    NotOpened,
    /// The change before is not committed.
    Unsettled {
        /// Where it ends.
        at: Position,
    },
    /// It is on the list already.
    Known(NodeId),
    /// It is not on the list.
    Unknown(NodeId),
    /// It votes already, or does not.
    Already(NodeId),
    /// It may have forgotten what it promised.
    Provisional(NodeId),
    /// It lacks what is committed.
    Behind {
        /// Which node.
        node: NodeId,
        /// What it holds.
        promised: Position,
        /// What is committed.
        commit: Commit,
    },
    /// The leader hands the lead over before it leaves.
    Leads(NodeId),
    /// No more nodes fit.
    Full,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Listed {
    /// End of the entry that says so; 0: it is what the group was founded with.
    end: Position,
    members: Vec<Member>,
}

/// The lists of a node's log that still matter: the newest, and those that a cut could bring back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Membership {
    /// Oldest first, never empty.
    lists: Vec<Listed>,
    commit: Position,
    /// Rules taken out, to prove that this is noticed.
    mutants: Mutants,
}

impl Membership {
    /// What a group is founded with.
    #[must_use]
    pub fn founded_with(members: Vec<Member>) -> Self {
        let first = Listed { end: Position(0), members };
        Self { lists: vec![first], commit: Position(0), mutants: Mutants::NONE }
    }

    /// Takes rules out.
    #[cfg(feature = "sim")]
    pub fn plant(&mut self, mutants: Mutants) {
        self.mutants = mutants;
    }

    /// The list that holds: the newest in the log.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.lists.last().expect("never empty").members
    }

    /// The same as node `own` sees it: a node that is on the list no more neither votes nor leads.
    #[must_use]
    pub fn seen_by(&self, own: NodeId) -> Vec<Member> {
        let mut members = self.members().to_vec();
        if members.iter().all(|member| member.node != own) {
            members.push(Member { node: own, voter: false, priority: 0 });
        }
        members
    }

    /// How many vote.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.members().iter().filter(|member| member.voter).count()
    }

    /// Whether a node votes.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.members().iter().any(|member| member.node == node && member.voter)
    }

    /// A list joined the log; its entry ends at `end`. It holds at once.
    pub fn appended(&mut self, end: Position, members: Vec<Member>) {
        self.lists.push(Listed { end, members });
    }

    /// The log was cut: what it said above `position` holds no more.
    pub fn cut(&mut self, position: Position) {
        if !self.mutants.has(Mutant::KeepCutList) {
            let keep = self.lists.partition_point(|list| list.end <= position);
            self.lists.truncate(keep.max(1));
        }
    }

    /// Nothing below `commit` is ever cut: lists that a newer one there replaced are forgotten.
    pub fn committed(&mut self, commit: Commit) {
        self.commit = self.commit.max(commit.0);
        let last = self.lists.partition_point(|list| list.end <= self.commit);
        self.lists.drain(..last.saturating_sub(1));
    }

    /// The list that the leader may append for `change`; `held` is what it knows of the node.
    ///
    /// # Errors
    /// Why not.
    pub fn changed(
        &self,
        leader: Leader,
        change: Change,
        held: Held,
    ) -> Result<Vec<Member>, Refusal> {
        self.is_settled(leader)?;
        let mut members = self.members().to_vec();
        let at = |node| members.iter().position(|member: &Member| member.node == node);
        match change {
            Change::Add(node) if at(node).is_some() => return Err(Refusal::Known(node)),
            Change::Add(_) if members.len() == NODES_MAX => return Err(Refusal::Full),
            Change::Add(node) => members.push(Member { node, voter: false, priority: 0 }),
            Change::Promote(node, priority) => {
                let index = at(node).ok_or(Refusal::Unknown(node))?;
                if members[index].voter {
                    return Err(Refusal::Already(node));
                }
                self.is_ready(node, held, leader.commit)?;
                members[index] = Member { node, voter: true, priority };
            }
            Change::Demote(node) | Change::Remove(node) if node == leader.node => {
                return Err(Refusal::Leads(node));
            }
            Change::Demote(node) => {
                let index = at(node).ok_or(Refusal::Unknown(node))?;
                if !members[index].voter {
                    return Err(Refusal::Already(node));
                }
                members[index] = Member { node, voter: false, priority: 0 };
            }
            Change::Remove(node) => {
                let index = at(node).ok_or(Refusal::Unknown(node))?;
                members.remove(index);
            }
        }
        Ok(members)
    }

    /// One change at a time, and the leader knows of every older one.
    fn is_settled(&self, leader: Leader) -> Result<(), Refusal> {
        let opened = leader.commit.0 >= leader.term_opened;
        if !opened && !self.mutants.has(Mutant::ChangeBeforeOwnCommit) {
            return Err(Refusal::NotOpened);
        }
        let at = self.lists.last().map_or(Position(0), |list| list.end);
        // With that rule taken out, only one's own changes are waited for.
        let own = opened || at >= leader.term_opened;
        if at > leader.commit.0 && own && !self.mutants.has(Mutant::ManyChanges) {
            return Err(Refusal::Unsettled { at });
        }
        Ok(())
    }

    fn is_ready(&self, node: NodeId, held: Held, commit: Commit) -> Result<(), Refusal> {
        if self.mutants.has(Mutant::PromoteUnready) {
            return Ok(());
        }
        if held.provisional {
            return Err(Refusal::Provisional(node));
        }
        if held.promised < commit.0 {
            return Err(Refusal::Behind { node, promised: held.promised, commit });
        }
        Ok(())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpened => write!(f, "nothing of this term is committed yet"),
            Self::Unsettled { at } => write!(f, "the change that ends at {at} is not committed"),
            Self::Known(node) => write!(f, "node {node} is on the list"),
            Self::Unknown(node) => write!(f, "node {node} is not on the list"),
            Self::Already(node) => write!(f, "node {node} is that already"),
            Self::Provisional(node) => {
                write!(f, "node {node} may have forgotten what it promised")
            }
            Self::Behind { node, promised, commit } => {
                write!(f, "node {node} holds up to {promised}, committed is up to {commit}")
            }
            Self::Leads(node) => write!(f, "node {node} leads: hand the lead over first"),
            Self::Full => write!(f, "at most {NODES_MAX} nodes"),
        }
    }
}

impl core::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::election::rig::{leadership, member, recency};
    use crate::control::election::{Election, ElectionSettings, Input, Output};
    use crate::control::message::{Envelope, Message};
    use crate::link::ControlToCore;
    use crate::types::{Generation, Leadership, Nanos};

    fn founded() -> Membership {
        let member = |n| Member { node: NodeId(n), voter: n < 3, priority: u8::from(n < 3) };
        Membership::founded_with((0..4).map(member).collect())
    }

    fn leader(commit: u64) -> Leader {
        Leader { node: NodeId(0), term_opened: Position(64), commit: Commit(Position(commit)) }
    }

    fn held(promised: u64) -> Held {
        Held { provisional: false, promised: Position(promised) }
    }

    const PROMOTE: Change = Change::Promote(NodeId(3), 1);

    #[test]
    fn a_list_holds_from_when_it_is_appended_until_it_is_cut() {
        let mut lists = founded();
        let four = lists.changed(leader(64), PROMOTE, held(64)).unwrap();
        lists.appended(Position(96), four);
        assert!(lists.is_voter(NodeId(3)) && lists.voters() == 4);
        lists.cut(Position(64));
        assert!(!lists.is_voter(NodeId(3)) && lists.voters() == 3);
    }

    #[test]
    fn nothing_changes_before_an_entry_of_the_leaders_own_term_is_committed() {
        let refused = founded().changed(leader(32), PROMOTE, held(64));
        assert_eq!(refused, Err(Refusal::NotOpened));
    }

    #[test]
    fn one_change_at_a_time() {
        let mut lists = founded();
        let three = lists.changed(leader(64), Change::Remove(NodeId(2)), held(0)).unwrap();
        lists.appended(Position(96), three);
        let refused = lists.changed(leader(64), PROMOTE, held(96));
        assert_eq!(refused, Err(Refusal::Unsettled { at: Position(96) }));
        lists.committed(Commit(Position(96)));
        assert!(lists.changed(leader(96), PROMOTE, held(96)).is_ok());
    }

    #[test]
    fn who_may_have_forgotten_or_lacks_something_does_not_vote() {
        let forgot = Held { provisional: true, ..held(64) };
        let refused = founded().changed(leader(64), PROMOTE, forgot);
        assert_eq!(refused, Err(Refusal::Provisional(NodeId(3))));
        let refused = founded().changed(leader(64), PROMOTE, held(32));
        assert!(matches!(refused, Err(Refusal::Behind { .. })), "{refused:?}");
    }

    #[test]
    fn a_leader_does_not_leave_and_who_left_sees_itself_as_an_observer() {
        let refused = founded().changed(leader(64), Change::Remove(NodeId(0)), held(0));
        assert_eq!(refused, Err(Refusal::Leads(NodeId(0))));
        let mut lists = founded();
        let left = lists.changed(leader(64), Change::Remove(NodeId(2)), held(0)).unwrap();
        lists.appended(Position(96), left);
        let own = lists.seen_by(NodeId(2)).into_iter().find(|member| member.node == NodeId(2));
        assert_eq!(own, Some(Member { node: NodeId(2), voter: false, priority: 0 }));
        assert!(!lists.members().iter().any(|member| member.node == NodeId(2)));
    }

    /// The fences that a node asks for when node 7, which is not on its list, stands in `of`.
    fn judged(of: Leadership, mutants: Mutants) -> Vec<Leadership> {
        let settings = ElectionSettings { mutants, ..member(0, &[1, 1, 1], 1) };
        let mut machine = Election::new(settings);
        let now = Nanos(Nanos::SECOND);
        machine.handle(now, Input::Tick);
        let message =
            Message::VoteRequest { recency: recency(9, 999), instance: 1, transfer: false };
        let request = Envelope { from: NodeId(7), leadership: of, message };
        machine.handle(now, Input::Message(request));
        let fence = |output| match output {
            Output::ToCore(ControlToCore::Fence(leadership)) => Some(leadership),
            _ => None,
        };
        core::iter::from_fn(|| machine.poll()).filter_map(fence).collect()
    }

    #[test]
    fn who_stands_is_judged_by_the_generation_and_not_by_ones_own_list() {
        assert_eq!(judged(leadership(9), Mutants::NONE), [leadership(9)]);
        let other = Generation { counter: 9, random: 9 };
        let other = Leadership { generation: other, ..leadership(9) };
        assert_eq!(judged(other, Mutants::NONE), [], "another history");
        let mutants = Mutants::NONE.with(Mutant::JudgeByList);
        assert_eq!(judged(leadership(9), mutants), [], "with the rule taken out");
    }

    #[test]
    fn what_is_committed_is_not_kept_twice() {
        let mut lists = founded();
        for n in 1..=20 {
            let change = if n % 2 == 1 { PROMOTE } else { Change::Demote(NodeId(3)) };
            let end = 64 + 32 * n;
            let members = lists.changed(leader(end - 32), change, held(end)).unwrap();
            lists.appended(Position(end), members);
            lists.committed(Commit(Position(end)));
            assert_eq!(lists.lists.len(), 1);
        }
    }
}

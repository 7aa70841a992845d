//! A node meets a group whose log is not its own: does it follow, cut and follow, or refuse?
//!
//! Within one generation a leader holds everything committed, so what lies above a node's known commit may be cut. Across
//! generations nothing says so: a generation is opened by a person (or by `solo`, which a person set) who may not have known
//! what others had committed. Then a node gives up nothing that it may have been the one to commit: it refuses, naming both
//! sides, until a person decides. And it is a new generation with its own voters that goes on alone: no node's own say ever
//! lowers a quorum.
//!
//! The runtime opens no generations yet; the rules are here, and every schedule of them is explored (`tests/model.rs`).

use core::fmt;

use super::election::Member;
use crate::mutants::{Mutant, Mutants};
use crate::types::{Commit, Generation, NodeId, Position};

/// What a node may have helped to commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Answerable {
    /// Known as committed.
    pub commit: Commit,
    /// End of all that it acknowledged to a leader, or offered as one, in its generation.
    pub offered: Position,
    /// It has restarted, and not by an orderly stop, since what it knows as committed last reached `offered`: it does not
    /// know what was committed of it.
    pub unsure: bool,
}

impl Answerable {
    /// Below this nothing is given up to another generation.
    #[must_use]
    pub fn bound(&self, mutants: Mutants) -> Position {
        if self.unsure && !mutants.has(Mutant::KnownCommitOnly) {
            self.offered.max(self.commit.0)
        } else {
            self.commit.0
        }
    }
}

/// The two logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Meeting {
    /// Of this node.
    pub own: Generation,
    /// End of its log.
    pub tail: Position,
    /// Of the group.
    pub theirs: Generation,
    /// End of its log.
    pub their_tail: Position,
    /// Where the two logs part.
    pub common: Position,
}

/// What comes of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// The own generation is the newer one: the group is met as an intruder.
    Older,
    /// Everything here is in the group's log too.
    Follow,
    /// What lies above `from` is cut, quarantined and listed; then it follows.
    Cut {
        /// The logs part here.
        from: Position,
        /// Up to here it was acknowledged, or offered: it is possibly committed, and said to be so.
        possibly_committed: Position,
    },
    /// A person decides.
    Refuse(Refusal),
}

/// Both sides of what a person has to decide.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Refusal {
    /// Where the logs part.
    pub common: Position,
    /// Up to here this node does not give anything up.
    pub bound: Position,
    /// End of the group's log.
    pub their_tail: Position,
}

/// Judges a meeting.
#[must_use]
pub fn judge(meeting: Meeting, answerable: Answerable, mutants: Mutants) -> Verdict {
    let Meeting { own, tail, theirs, their_tail, common } = meeting;
    if theirs < own {
        return Verdict::Older;
    }
    if common >= tail {
        return Verdict::Follow;
    }
    let bound = if own == theirs { answerable.commit.0 } else { answerable.bound(mutants) };
    if common < bound && !mutants.has(Mutant::NeverRefuse) {
        return Verdict::Refuse(Refusal { common, bound, their_tail });
    }
    let possibly_committed = answerable.offered.min(tail).max(common);
    Verdict::Cut { from: common, possibly_committed }
}

/// Why no generation is opened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OverrideRefusal {
    /// Nobody is named.
    Nobody,
    /// Not on the list.
    Unknown(NodeId),
    /// Who opens it must be named.
    NotNamed(NodeId),
}

/// The list that opens a generation by a person's act on node `own`: the named survivors vote, and a majority of those is its
/// quorum; everybody else is an observer until promoted through the log.
///
/// # Errors
/// Why none is opened.
pub fn survivors(
    members: &[Member],
    own: NodeId,
    named: &[NodeId],
) -> Result<Vec<Member>, OverrideRefusal> {
    if named.is_empty() {
        return Err(OverrideRefusal::Nobody);
    }
    if !named.contains(&own) {
        return Err(OverrideRefusal::NotNamed(own));
    }
    let unknown = named.iter().find(|node| members.iter().all(|member| member.node != **node));
    if let Some(node) = unknown {
        return Err(OverrideRefusal::Unknown(*node));
    }
    let list = members.iter().map(|member| {
        let voter = named.contains(&member.node);
        Member { voter, priority: if voter { member.priority.max(1) } else { 0 }, ..*member }
    });
    Ok(list.collect())
}

/// The generation after `before`: the number drawn at its opening tells two of them apart that were opened apart.
#[must_use]
pub fn next_generation(before: Generation, random: u32) -> Generation {
    Generation { counter: before.counter + 1, random }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { common, bound, their_tail } = self;
        write!(
            f,
            "the logs part at {common}, but up to {bound} this node may have told clients that it is committed (the group's log \
             ends at {their_tail})"
        )
    }
}

impl core::error::Error for Refusal {}

impl fmt::Display for OverrideRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => write!(f, "nobody is named"),
            Self::Unknown(node) => write!(f, "node {node} is not on the list"),
            Self::NotNamed(node) => write!(f, "node {node} opens it and must be named"),
        }
    }
}

impl core::error::Error for OverrideRefusal {}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Generation = Generation { counter: 1, random: 1 };
    const NEW: Generation = Generation { counter: 2, random: 9 };

    fn meeting(theirs: Generation, common: u64) -> Meeting {
        let (tail, their_tail) = (Position(128), Position(160));
        Meeting { own: OLD, tail, theirs, their_tail, common: Position(common) }
    }

    fn answerable(commit: u64, unsure: bool) -> Answerable {
        Answerable { commit: Commit(Position(commit)), offered: Position(128), unsure }
    }

    #[test]
    fn k4_behind_is_no_question() {
        let told = judge(meeting(NEW, 128), answerable(128, true), Mutants::NONE);
        assert_eq!(told, Verdict::Follow);
    }

    #[test]
    fn k5_above_its_own_bound_it_cuts_and_says_what_was_acknowledged() {
        let told = judge(meeting(NEW, 96), answerable(96, false), Mutants::NONE);
        let (from, possibly_committed) = (Position(96), Position(128));
        assert_eq!(told, Verdict::Cut { from, possibly_committed });
    }

    #[test]
    fn d2_below_it_it_refuses_and_names_both_sides() {
        let told = judge(meeting(NEW, 64), answerable(96, false), Mutants::NONE);
        let (common, bound) = (Position(64), Position(96));
        assert_eq!(told, Verdict::Refuse(Refusal { common, bound, their_tail: Position(160) }));
        let told = judge(meeting(NEW, 96), answerable(64, true), Mutants::NONE);
        assert!(matches!(told, Verdict::Refuse(_)), "it does not know what was committed");
        let told = judge(meeting(OLD, 96), answerable(64, true), Mutants::NONE);
        assert!(matches!(told, Verdict::Cut { .. }), "its own generation's leader knows");
    }

    #[test]
    fn d3_an_older_generation_is_not_followed() {
        let older = Meeting { own: NEW, theirs: OLD, ..meeting(NEW, 128) };
        assert_eq!(judge(older, answerable(0, false), Mutants::NONE), Verdict::Older);
    }

    #[test]
    fn the_named_survivors_vote_and_nobody_else() {
        let member = |n| Member { node: NodeId(n), voter: true, priority: 1 };
        let list: Vec<_> = (0..3).map(member).collect();
        let named = survivors(&list, NodeId(1), &[NodeId(1)]).unwrap();
        let voters: Vec<_> = named.iter().map(|member| member.voter).collect();
        assert_eq!(voters, [false, true, false]);
        let others = survivors(&list, NodeId(1), &[NodeId(0)]);
        assert_eq!(others, Err(OverrideRefusal::NotNamed(NodeId(1))));
        let unknown = survivors(&list, NodeId(1), &[NodeId(1), NodeId(7)]);
        assert_eq!(unknown, Err(OverrideRefusal::Unknown(NodeId(7))));
    }
}

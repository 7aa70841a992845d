//! What the group has decided: the commit rule of DESIGN §6, as a pure function of what each node promised.

use crate::limits::NODES_MAX;
use crate::link::Rung;
use crate::types::{Commit, Incarnation, Nanos, Position};

/// What a leader knows of one other node, from its statuses of this leadership.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Progress {
    /// Voter, or only a copy.
    pub voter: bool,
    /// Newest incarnation heard of; acknowledgements of older ones are discarded.
    pub incarnation: Incarnation,
    /// End of its last verified frame.
    pub verified: Position,
    /// End of what is on its disk.
    pub durable: Position,
    /// What it promised to keep.
    pub promised: Position,
    /// It may have forgotten promises of an earlier life: counts with what is durable only.
    pub provisional: bool,
    /// It has no state of an earlier life: does not count at all.
    pub stateless: bool,
    /// Newest of the leader's send stamps that it echoed.
    pub echo: Nanos,
}

impl Progress {
    /// Takes a status. Returns whether it was of the current incarnation, or opened a newer one.
    pub fn update(&mut self, status: Self) -> bool {
        if status.incarnation < self.incarnation {
            return false;
        }
        if status.incarnation > self.incarnation {
            *self = Self { voter: self.voter, incarnation: status.incarnation, ..Self::default() };
        }
        self.provisional = status.provisional;
        self.stateless = status.stateless;
        // Datagrams overtake each other; within one incarnation and leadership nothing promised is ever taken back.
        self.verified = self.verified.max(status.verified);
        self.durable = self.durable.max(status.durable);
        self.promised = self.promised.max(status.promised);
        self.echo = self.echo.max(status.echo);
        true
    }

    /// What counts for commit: nothing from a node without state, only its disk from a provisional one, and where the policy
    /// says so: a promise may have been given before that was heard of.
    fn counts(&self, rung: Rung) -> Position {
        match (self.voter && !self.stateless, self.provisional) {
            (true, false) if rung == Rung::Disk => self.promised.min(self.durable),
            (false, _) => Position(0),
            (true, true) => self.durable,
            (true, false) => self.promised,
        }
    }
}

/// Voters that must hold an entry, of `voters`.
#[must_use]
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The leader's own side of the rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderSide {
    /// The leader is a voter (a leader always is, but for a group that is being taken over).
    pub promised: Position,
    /// End of the entry that opened this term: nothing below it is committed by counting.
    pub term_opened: Position,
    /// How far an entry must have come on a follower.
    pub followers: Rung,
}

/// The commit position that follows from what the voters promised, if it is above `before`.
///
/// `others` are all nodes but the leader; `voters` counts the leader too.
#[must_use]
pub fn commit_position(
    leader: LeaderSide,
    others: &[Progress],
    voters: usize,
    before: Commit,
) -> Option<Commit> {
    let quorum = majority(voters);
    let mut counts = [Position(0); NODES_MAX];
    counts[0] = leader.promised;
    for (slot, progress) in counts[1..].iter_mut().zip(others) {
        *slot = progress.counts(leader.followers);
    }
    let known = &mut counts[..=others.len()];
    known.sort_unstable_by(|a, b| b.cmp(a));
    let quorum_position = *known.get(quorum - 1)?;
    let position = quorum_position.min(leader.promised);
    (position >= leader.term_opened && position > before.0).then_some(Commit(position))
}

/// Whether a quorum of voters (the leader included) echoed a stamp not older than `oldest`. A node without state is no
/// witness: it may have helped another leader, and forgotten that.
#[must_use]
pub fn quorum_heard(others: &[Progress], voters: usize, oldest: Nanos) -> bool {
    let heard = others.iter().filter(|o| o.voter && !o.stateless && o.echo >= oldest).count();
    heard + 1 >= majority(voters)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(promised: u64) -> Progress {
        Progress { voter: true, promised: Position(promised), ..Progress::default() }
    }

    fn committed(leader: u64, opened: u64, others: &[Progress]) -> Option<u64> {
        let side = LeaderSide {
            promised: Position(leader),
            term_opened: Position(opened),
            followers: Rung::Memory,
        };
        commit_position(side, others, others.len() + 1, Commit::default()).map(|commit| commit.0.0)
    }

    #[test]
    fn r2_quorum_of_4_is_3_and_of_6_is_4() {
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(majority), [1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(committed(100, 0, &[voter(100), voter(0), voter(0)]), None);
        assert_eq!(committed(100, 0, &[voter(100), voter(90), voter(0)]), Some(90));
    }

    #[test]
    fn commit_never_passes_the_leaders_own_promise() {
        assert_eq!(committed(50, 0, &[voter(100), voter(100)]), Some(50));
    }

    #[test]
    fn an_entry_of_an_older_term_is_not_committed_by_counting() {
        assert_eq!(committed(100, 96, &[voter(64), voter(64)]), None);
        assert_eq!(committed(100, 96, &[voter(96), voter(64)]), Some(96));
    }

    #[test]
    fn provisional_nodes_count_with_their_disk_and_stateless_ones_not_at_all() {
        let provisional = Progress { provisional: true, durable: Position(32), ..voter(100) };
        assert_eq!(committed(100, 0, &[provisional, voter(0)]), Some(32));
        let stateless = Progress { stateless: true, durable: Position(100), ..provisional };
        assert_eq!(committed(100, 0, &[stateless, voter(0)]), None);
    }

    #[test]
    fn d20_where_the_policy_says_disk_a_promise_from_memory_does_not_count() {
        let on_disk = |durable| Progress { durable: Position(durable), ..voter(100) };
        let followers = Rung::Disk;
        let side = LeaderSide { promised: Position(100), term_opened: Position(0), followers };
        let commit = |others: &[Progress]| commit_position(side, others, 3, Commit::default());
        assert_eq!(commit(&[on_disk(0), on_disk(0)]), None);
        assert_eq!(commit(&[on_disk(64), on_disk(0)]), Some(Commit(Position(64))));
    }

    #[test]
    fn observers_never_count() {
        let observer = Progress { voter: false, ..voter(100) };
        let side = LeaderSide {
            promised: Position(100),
            term_opened: Position(0),
            followers: Rung::Memory,
        };
        assert_eq!(commit_position(side, &[observer, voter(0)], 2, Commit::default()), None);
    }

    #[test]
    fn a_single_voter_commits_by_itself() {
        assert_eq!(committed(100, 32, &[]), Some(100));
    }

    #[test]
    fn acknowledgements_of_an_older_incarnation_are_discarded() {
        let mut progress = voter(64);
        let newer = Progress { incarnation: Incarnation(1), ..voter(0) };
        assert!(progress.update(newer));
        assert_eq!(progress.promised, Position(0), "a new life starts with no promise");
        assert!(!progress.update(voter(64)), "a late status of the old life");
        assert_eq!(progress.promised, Position(0));
    }
}

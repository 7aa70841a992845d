//! Do all copies agree? Each node tells the others the hash of its state every few hundred entries.

use crate::types::{NodeId, Sequence};

/// Checkpoints kept: a node further behind is compared when it gets there, by the others' newer words.
const CHECKPOINTS_MAX: usize = 64;

/// The hashes heard, by checkpoint.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StateHashes {
    own: NodeId,
    /// Whose hashes make a majority.
    voters: Vec<NodeId>,
    checkpoints: Vec<Checkpoint>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Checkpoint {
    sequence: Sequence,
    hashes: Vec<(NodeId, u64)>,
    settled: bool,
}

/// What the comparison of one checkpoint says about this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// Nothing (yet).
    Open,
    /// A majority has another hash: this node has diverged.
    Minority {
        /// Its own.
        own: u64,
        /// The majority's.
        majority: u64,
    },
    /// All voters have spoken, and no hash has a majority.
    NoMajority,
}

impl StateHashes {
    /// Nothing heard yet. An observer's hash is compared with the majority of the `voters`, and makes none.
    #[must_use]
    pub fn new(own: NodeId, voters: impl IntoIterator<Item = NodeId>) -> Self {
        let voters = voters.into_iter().collect();
        Self { own, voters, checkpoints: Vec::with_capacity(CHECKPOINTS_MAX) }
    }

    /// Takes a hash, a node's own too. The answer is about this node, once per checkpoint.
    pub fn hear(&mut self, node: NodeId, sequence: Sequence, hash: u64) -> Comparison {
        let index = match self.checkpoints.binary_search_by_key(&sequence, |c| c.sequence) {
            Ok(index) => index,
            Err(mut index) => {
                if self.checkpoints.len() == CHECKPOINTS_MAX {
                    if index == 0 {
                        return Comparison::Open; // older than all that is kept
                    }
                    self.checkpoints.remove(0);
                    index -= 1;
                }
                let fresh = Checkpoint { sequence, hashes: Vec::new(), settled: false };
                self.checkpoints.insert(index, fresh);
                index
            }
        };
        let checkpoint = &mut self.checkpoints[index];
        match checkpoint.hashes.iter_mut().find(|(from, _)| *from == node) {
            Some(known) => known.1 = hash,
            None => checkpoint.hashes.push((node, hash)),
        }
        self.compare(index)
    }

    fn compare(&mut self, index: usize) -> Comparison {
        let majority = self.voters.len() / 2 + 1;
        let checkpoint = &mut self.checkpoints[index];
        if checkpoint.settled {
            return Comparison::Open;
        }
        let counted = || checkpoint.hashes.iter().filter(|(node, _)| self.voters.contains(node));
        let votes = |hash: u64| counted().filter(|(_, h)| *h == hash).count();
        let winner = counted().map(|(_, h)| *h).find(|&h| votes(h) >= majority);
        let all_spoke = counted().count() >= self.voters.len();
        let own = checkpoint.hashes.iter().find(|(node, _)| *node == self.own).map(|(_, h)| *h);
        match (winner, own) {
            (Some(majority), Some(own)) => {
                checkpoint.settled = true;
                if own == majority {
                    Comparison::Open
                } else {
                    Comparison::Minority { own, majority }
                }
            }
            (None, Some(_)) if all_spoke => {
                checkpoint.settled = true;
                Comparison::NoMajority
            }
            _ => Comparison::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_three(own: u16) -> StateHashes {
        StateHashes::new(NodeId(own), (0..3).map(NodeId))
    }

    #[test]
    fn observers_make_no_majority_and_are_judged_by_that_of_the_voters() {
        let mut voter = of_three(0);
        let mut observer = of_three(3);
        for hashes in [&mut voter, &mut observer] {
            for (node, hash) in [(0, 7), (3, 8), (4, 8)] {
                assert_eq!(hashes.hear(NodeId(node), Sequence(1), hash), Comparison::Open);
            }
        }
        assert_eq!(voter.hear(NodeId(1), Sequence(1), 7), Comparison::Open);
        let verdict = observer.hear(NodeId(1), Sequence(1), 7);
        assert_eq!(verdict, Comparison::Minority { own: 8, majority: 7 });
        // Nor do they keep voters that all disagree from noticing it, or make them notice too soon.
        let mut voter = of_three(0);
        for (node, hash) in [(0, 1), (3, 9), (4, 9), (1, 2)] {
            assert_eq!(voter.hear(NodeId(node), Sequence(2), hash), Comparison::Open);
        }
        assert_eq!(voter.hear(NodeId(2), Sequence(2), 3), Comparison::NoMajority);
    }

    #[test]
    fn d15_the_minority_stops_and_the_majority_goes_on() {
        let mut odd = of_three(2);
        let mut even = of_three(0);
        for hashes in [&mut odd, &mut even] {
            assert_eq!(hashes.hear(NodeId(2), Sequence(100), 7), Comparison::Open);
            assert_eq!(hashes.hear(NodeId(0), Sequence(100), 8), Comparison::Open);
        }
        let verdict = odd.hear(NodeId(1), Sequence(100), 8);
        assert_eq!(verdict, Comparison::Minority { own: 7, majority: 8 });
        assert_eq!(even.hear(NodeId(1), Sequence(100), 8), Comparison::Open);
    }

    #[test]
    fn with_no_majority_all_stop() {
        let mut hashes = of_three(0);
        hashes.hear(NodeId(0), Sequence(1), 1);
        hashes.hear(NodeId(1), Sequence(1), 2);
        assert_eq!(hashes.hear(NodeId(2), Sequence(1), 3), Comparison::NoMajority);
    }

    #[test]
    fn a_node_that_gets_there_late_is_still_compared() {
        let mut hashes = of_three(2);
        hashes.hear(NodeId(0), Sequence(1), 1);
        hashes.hear(NodeId(1), Sequence(1), 1);
        let late = hashes.hear(NodeId(2), Sequence(1), 2);
        assert_eq!(late, Comparison::Minority { own: 2, majority: 1 });
    }

    #[test]
    fn memory_is_bounded() {
        let mut hashes = of_three(0);
        for sequence in 0..1000 {
            hashes.hear(NodeId(1), Sequence(sequence), 1);
        }
        assert_eq!(hashes.checkpoints.len(), CHECKPOINTS_MAX);
        assert_eq!(hashes.hear(NodeId(1), Sequence(3), 1), Comparison::Open);
    }
}

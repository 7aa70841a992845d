//! Bugs that can be planted, to prove that those who look for them find them. None can be in a program that is shipped.

/// One rule taken out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Mutant {
    /// A voter decides before its core has answered the fence.
    VoteBeforeFence,
    /// A voter decides on positions that it knew before the fence.
    VoteOnOldPositions,
    /// A voter grants its vote to a log that is behind its own.
    VoteForOlderLog,
    /// Votes and terms are acted on before they are on the disk.
    AnswerBeforeDurable,
    /// A second vote in the same term, for another candidate.
    VoteTwice,
    /// Votes of nodes that may have forgotten what they promised count like others.
    ProvisionalVotesCount,
    /// A node without state is a witness in an election by all votes.
    StatelessIsWitness,
    /// Answers to an earlier life of the candidate, or about another term, count.
    CountOldVotes,
    /// Priority decides before recency.
    PriorityBeatsRecency,
    /// Readmission meant for an earlier life, or given by an earlier leader, is taken.
    ReadmitAnyLife,
    /// A voter that hears its leader helps to depose it.
    IgnoreLeader,
    /// The most recent log of a node that may not lead is left behind.
    NoLeaderSync,
}

impl Mutant {
    /// All of them, with the names that they go by.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::VoteBeforeFence, "vote-before-fence"),
        (Self::VoteOnOldPositions, "vote-on-old-positions"),
        (Self::VoteForOlderLog, "vote-for-older-log"),
        (Self::AnswerBeforeDurable, "answer-before-durable"),
        (Self::VoteTwice, "vote-twice"),
        (Self::ProvisionalVotesCount, "provisional-votes-count"),
        (Self::StatelessIsWitness, "stateless-is-witness"),
        (Self::CountOldVotes, "count-old-votes"),
        (Self::PriorityBeatsRecency, "priority-beats-recency"),
        (Self::ReadmitAnyLife, "readmit-any-life"),
        (Self::IgnoreLeader, "ignore-leader"),
        (Self::NoLeaderSync, "no-leader-sync"),
    ];
}

/// The rules that are taken out: none, but in tests and in the simulator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mutants {
    #[cfg(any(test, feature = "sim"))]
    planted: u32,
}

impl Mutants {
    /// All rules stand.
    pub const NONE: Self = Self {
        #[cfg(any(test, feature = "sim"))]
        planted: 0,
    };

    /// With this rule taken out too.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub const fn with(self, mutant: Mutant) -> Self {
        Self { planted: self.planted | 1 << mutant as u32 }
    }

    /// Whether the rule is taken out.
    #[cfg(any(test, feature = "sim"))]
    pub(super) const fn has(self, mutant: Mutant) -> bool {
        self.planted >> mutant as u32 & 1 == 1
    }

    /// Whether the rule is taken out: never.
    #[cfg(not(any(test, feature = "sim")))]
    #[allow(clippy::unused_self)] // the same call in both builds
    pub(super) const fn has(self, _: Mutant) -> bool {
        false
    }
}

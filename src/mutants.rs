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
    /// D6: votes of nodes without state count like others.
    StatelessVotesCount,
    /// D6: a node without state is a witness in an election by all votes.
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
    /// A leader counts acknowledgements given in an older leadership.
    CountOldAcks,
    /// A leader commits entries of older terms by counting.
    CommitOldTerm,
    /// A leader commits what it holds alone.
    CommitAlone,
    /// A leader commits before its own disk has what its rung asks for.
    CommitBeforeDisk,
    /// A follower acknowledges what its leader has, before it has it.
    AcknowledgeAhead,
    /// D1: a follower acknowledges its old log before it knows where that parts from its leader's.
    AcknowledgeUnmatched,
    /// D8: a leader that no quorum hears goes on.
    NoCheckQuorum,
    /// A command that came again takes effect again.
    ApplyTwice,
    /// A question is answered without asking whether this node still leads.
    AnswerWithoutQuorum,
    /// A follower gives up more of its log than it must.
    CutCommitted,
    /// D1: a follower takes its own old bytes for committed before it knows where its log parts from its leader's.
    CommitUnmatched,
    /// D3: what two generations say is mixed.
    MixGenerations,
    /// D5: the clean mark of a stop is still on the disk when the next life acknowledges.
    KeepCleanMark,
    /// D7: bytes that were asked for before the fence are taken after it.
    LateChunk,
    /// D9: a status that lay in the socket says that the leader is heard now.
    EchoOnArrival,
    /// A leader serves clients before an entry of its own term is committed and applied.
    OpenEarly,
    /// A node forgets for whom it voted when its process starts again.
    ForgetVote,
    /// An answer to where the logs part is used again.
    MatchTwice,
    /// What was received out of order from one leader counts as received from the next.
    KeepOldRanges,
    /// D11: cluster time is the clock of whoever leads.
    ClockGoesBack,
    /// D12: what is cut is kept nowhere.
    CutUnsaved,
    /// D12: nobody is told of a cut.
    CutUntold,
    /// D15: a node that a majority contradicts goes on.
    IgnoreStateHash,
    /// D19: a follower gives up what it acknowledged when it enters a term, before it knows the match point.
    ForgetAtEntering,
    /// D20: memory is relied on before the node state says that it may be.
    AckMemoryUnrecorded,
    /// D21: no election by all votes, but for the founding.
    NoElectionByAll,
    /// A vote that is kept for somebody is given without a fence, and without a look at the logs.
    ReservedVoteUndecided,
    /// A vote that is kept for one candidate is given to another, and then to the one all the same.
    ReservedVoteTwice,
    /// A timer that is pending no more fires all the same.
    FireCancelled,
    /// A timer that fired stays pending.
    FireTwice,
    /// A timer fires before its time.
    FireEarly,
    /// A leader fires no timer that was due before its term.
    ForgetTimers,
    /// The cursor goes past events that nobody was given.
    CursorAhead,
    /// A follower takes what it hears of its leader for what the leader says now.
    FreshOnHearing,
    /// A leader answers what is committed without asking whether it still leads.
    ConfirmWithoutQuorum,
    /// A state counts as fresh before what was committed is applied to it.
    FreshUnapplied,
    /// A node answers from a state that does not hold the entry that was asked for.
    IgnoreDemand,
    /// Segments leave though no snapshot covers them.
    TrimUncovered,
    // From here on: rules that the simulator does not plant.
    /// A snapshot that came from another node is used without a look at its blocks (`journal/incoming/tests.rs`).
    TakeUnverified,
    // From here on: rules that only the model looks for (`tests/model.rs`), because it sees further or sooner.
    /// A frame is taken whatever stands before it.
    SkipChain,
    /// The clean mark of the last stop is not removed by a start.
    CleanMarkStays,
    /// A clean mark makes a node that may have forgotten a voter again.
    CleanMarkClears,
    /// The clean mark is written before the last sync.
    CleanMarkBeforeSync,
    /// Memory is promised before that is allowed on the disk.
    PromiseBeforeAllowed,
    /// The permission to promise memory is taken back before everything promised is on the disk.
    ForbidBeforeSync,
    /// That a node may have forgotten what it promised is itself forgotten by its next start.
    ForgetProvisional,
    /// A node is a voter again before it holds what it lacked.
    ReadmitBeforeSync,
    /// A leader changes the list before anything of its own term is committed.
    ChangeBeforeOwnCommit,
    /// A leader changes the list though its last change is not committed.
    ManyChanges,
    /// A list that was cut goes on holding.
    KeepCutList,
    /// A node that may have forgotten, or lacks something, becomes a voter.
    PromoteUnready,
    /// Who is not on a node's own list is not listened to.
    JudgeByList,
    /// A node that meets another generation cuts whatever it must to follow.
    NeverRefuse,
    /// A node that restarted answers only for what it knows as committed.
    KnownCommitOnly,
}

impl Mutant {
    /// Those that the simulator plants: the name that each goes by, and the checkers of which one must notice it.
    pub const ALL: &'static [(Self, &'static str, &'static [&'static str])] = &[
        (Self::VoteBeforeFence, "vote-before-fence", ELECTED_WRONGLY),
        (Self::VoteOnOldPositions, "vote-on-old-positions", ELECTED_WRONGLY),
        (Self::VoteForOlderLog, "vote-for-older-log", ELECTED_WRONGLY),
        (Self::AnswerBeforeDurable, "answer-before-durable", ELECTED_WRONGLY),
        (Self::VoteTwice, "vote-twice", ELECTED_WRONGLY),
        (Self::ProvisionalVotesCount, "provisional-votes-count", ELECTED_WRONGLY),
        (Self::StatelessVotesCount, "stateless-votes-count", &["elected", "liveness", "assertion"]),
        (Self::StatelessIsWitness, "stateless-is-witness", ELECTED_WRONGLY),
        (Self::CountOldVotes, "count-old-votes", ELECTED_WRONGLY),
        (Self::PriorityBeatsRecency, "priority-beats-recency", &["liveness"]),
        (Self::ReadmitAnyLife, "readmit-any-life", &["readmitted_early"]),
        (Self::IgnoreLeader, "ignore-leader", &["heard_leader_deposed"]),
        (Self::NoLeaderSync, "no-leader-sync", &["liveness"]),
        (Self::CountOldAcks, "count-old-acks", &["committed_on_a_quorum"]),
        (Self::CommitOldTerm, "commit-old-term", &["own_term_commit"]),
        (Self::CommitAlone, "commit-alone", &["committed_on_a_quorum"]),
        (Self::CommitBeforeDisk, "commit-before-disk", &["committed_on_a_quorum"]),
        (Self::AcknowledgeAhead, "acknowledge-ahead", &["committed_on_a_quorum"]),
        (Self::AcknowledgeUnmatched, "acknowledge-unmatched", &["committed_on_a_quorum"]),
        (Self::NoCheckQuorum, "no-check-quorum", &["check_quorum"]),
        (Self::ApplyTwice, "apply-twice", &["applied_twice"]),
        (Self::AnswerWithoutQuorum, "answer-without-quorum", &["linearizable"]),
        (Self::CutCommitted, "cut-committed", &["committed_cut", "cut_kept", "assertion"]),
        (Self::ReservedVoteUndecided, "reserved-vote-undecided", ELECTED_WRONGLY),
        (Self::ReservedVoteTwice, "reserved-vote-twice", ELECTED_WRONGLY),
        (Self::CommitUnmatched, "commit-unmatched", &["committed_changed", "assertion"]),
        (Self::MixGenerations, "mix-generations", &["one_generation"]),
        (Self::KeepCleanMark, "keep-clean-mark", &["promise_lost"]),
        (Self::LateChunk, "late-chunk", &["fence"]),
        (Self::EchoOnArrival, "echo-on-arrival", &["check_quorum"]),
        (
            Self::OpenEarly,
            "open-early",
            &["linearizable", "local_lag", "answered_too_early", "assertion"],
        ),
        (Self::ForgetVote, "forget-vote", &["one_vote", "fence"]),
        (Self::MatchTwice, "match-twice", &["committed_cut", "committed_on_a_quorum", "liveness"]),
        (
            Self::KeepOldRanges,
            "keep-old-ranges",
            &["committed_on_a_quorum", "committed_changed", "applied_order"],
        ),
        (Self::ClockGoesBack, "clock-goes-back", &["cluster_time"]),
        (Self::CutUnsaved, "cut-unsaved", &["cut_kept"]),
        (Self::CutUntold, "cut-untold", &["cut_kept"]),
        (Self::IgnoreStateHash, "ignore-state-hash", &["liveness"]),
        (Self::ForgetAtEntering, "forget-at-entering", &["committed_cut", "assertion"]),
        (Self::AckMemoryUnrecorded, "ack-memory-unrecorded", &["promise_lost"]),
        (Self::FireCancelled, "fire-cancelled", &["timers"]),
        (Self::FireTwice, "fire-twice", &["timers"]),
        (Self::FireEarly, "fire-early", &["timers"]),
        (Self::ForgetTimers, "forget-timers", &["liveness"]),
        (Self::CursorAhead, "cursor-ahead", &["events"]),
        (Self::NoElectionByAll, "no-election-by-all", &["liveness"]),
        (Self::FreshOnHearing, "fresh-on-hearing", &["local_lag"]),
        (Self::ConfirmWithoutQuorum, "confirm-without-quorum", &["local_lag"]),
        (Self::FreshUnapplied, "fresh-unapplied", &["local_lag"]),
        (Self::IgnoreDemand, "ignore-demand", &["local_demand"]),
        (Self::TrimUncovered, "trim-uncovered", &["recovery", "liveness", "assertion"]),
    ];

    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(mutant, ..)| *mutant)
    }
}

/// What a wrong vote comes to: two leaders, a leader that lacks something, a promise that was not kept.
const ELECTED_WRONGLY: &[&str] = &[
    "elected",
    "one_leader",
    "leader_completeness",
    "one_vote",
    "fence",
    "committed_changed",
    "committed_cut",
    "assertion",
];

/// The rules that are taken out: none, but in tests and in the simulator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Mutants {
    #[cfg(any(test, feature = "sim"))]
    planted: u128,
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
        Self { planted: self.planted | 1 << mutant as u128 }
    }

    /// Whether the rule is taken out.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) const fn has(self, mutant: Mutant) -> bool {
        self.planted >> mutant as u128 & 1 == 1
    }

    /// Whether the rule is taken out: never.
    #[cfg(not(any(test, feature = "sim")))]
    #[allow(clippy::unused_self)] // the same call in both builds
    pub(crate) const fn has(self, _: Mutant) -> bool {
        false
    }
}

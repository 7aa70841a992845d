//! What recovery decides where the log stops: one row per finding, one column per zone, nothing left to a special case.
//!
//! The rows are those of the table in `docs/DURABILITY.md`. A log *stops* where the next frame is not there or not good, both
//! on the disk and, after a crash of the process alone, in the hot tier, whose frames go on where the disk's stop.

/// Where a stop stands against the newest seal (or clean mark, or record of a cut).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(usize)]
pub enum Zone {
    /// Below what is certain: it was on the disk when a sync returned.
    BelowCertain = 0,
    /// From what is certain up to what is claimed: a sync was asked for, and may have returned.
    Claimed = 1,
    /// At or above what is claimed: nobody was ever told that it is on the disk.
    AboveClaimed = 2,
}

/// What stands where the next frame should.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(usize)]
pub enum Finding {
    /// A. A frame that follows: the log goes on.
    GoodFrame = 0,
    /// B. Nothing, and nothing behind it: zeroes to the end of all files.
    End = 1,
    /// C. Nothing here (length 0), and bytes behind it.
    Hole = 2,
    /// D. Bytes that are not a frame that follows.
    BadFrame = 3,
    /// E. The file, or this part of it, is missing.
    Missing = 4,
    /// F. The medium gives an error.
    Unreadable = 5,
    /// G. A segment of our group whose header page names another predecessor: another history, or a leftover.
    OtherHistory = 6,
    /// H. The frames chain, and the one that is certain is not among them: another log of our group.
    NotTheSealedLog = 7,
    /// I. The hot tier's log ends here, as it should: nothing published, in a segment that is there.
    HotEnd = 8,
    /// J. The hot tier shows a published frame that does not follow.
    HotBadFrame = 9,
    /// K. The hot tier's next segment is not there.
    HotMissing = 10,
    /// L. The record of a cut says that the log ends here.
    CutRecorded = 11,
    /// M. Both seals of a file are damaged, and what they said decides what the log's end is worth.
    SealsLost = 12,
}

/// What is done about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// The frame belongs to the log.
    Keep,
    /// The log ends here, and nothing is missing.
    CleanEnd,
    /// Never promised: cut, reported, and whatever bytes are there kept aside.
    CutTorn,
    /// It may have been promised: as [`Decision::CutTorn`], and the node comes back provisional.
    CutProvisional,
    /// It was promised and is damaged: never cut. The node does not start; the range is to be brought from a peer.
    Damage,
}

impl Finding {
    /// All of them, in the order of the rows.
    pub const ALL: [Self; 13] = [
        Self::GoodFrame,
        Self::End,
        Self::Hole,
        Self::BadFrame,
        Self::Missing,
        Self::Unreadable,
        Self::OtherHistory,
        Self::NotTheSealedLog,
        Self::HotEnd,
        Self::HotBadFrame,
        Self::HotMissing,
        Self::CutRecorded,
        Self::SealsLost,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GoodFrame => "good-frame",
            Self::End => "end",
            Self::Hole => "hole",
            Self::BadFrame => "bad-frame",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::OtherHistory => "other-history",
            Self::NotTheSealedLog => "not-the-sealed-log",
            Self::HotEnd => "hot-end",
            Self::HotBadFrame => "hot-bad-frame",
            Self::HotMissing => "hot-missing",
            Self::CutRecorded => "cut-recorded",
            Self::SealsLost => "seals-lost",
        }
    }
}

impl Zone {
    /// All of them, in the order of the columns.
    pub const ALL: [Self; 3] = [Self::BelowCertain, Self::Claimed, Self::AboveClaimed];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BelowCertain => "below-certain",
            Self::Claimed => "claimed",
            Self::AboveClaimed => "above-claimed",
        }
    }
}

impl Decision {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::CleanEnd => "clean-end",
            Self::CutTorn => "cut-torn",
            Self::CutProvisional => "cut-provisional",
            Self::Damage => "damage",
        }
    }
}

use Decision::{CleanEnd, CutProvisional, CutTorn, Damage, Keep};

/// The table: rows as in [`Finding::ALL`], columns as in [`Zone::ALL`].
///
/// In row B the middle column cuts nothing but the claim: the bytes it spoke of are not there. Rows I to K speak of a hot tier
/// that is the one of last time; whether it being incomplete lost promises made from memory is decided by the node state
/// (`NodeState::start`), in every column. In row L the bytes are in `quarantine/` already. Seals are written by turns, with a
/// sync between them: power that fails tears one of the two, so in row M it is not known what is certain, and nothing is cut.
pub const RECOVERY_TABLE: [[Decision; 3]; 13] = [
    /* A good frame          */ [Keep, Keep, Keep],
    /* B end                 */ [Damage, CutProvisional, CleanEnd],
    /* C hole                */ [Damage, CutProvisional, CutTorn],
    /* D bad frame           */ [Damage, CutProvisional, CutTorn],
    /* E missing             */ [Damage, CutProvisional, CutTorn],
    /* F unreadable          */ [Damage, CutProvisional, CutTorn],
    /* G other history       */ [Damage, CutProvisional, CutTorn],
    /* H not the sealed log  */ [Damage, Damage, Damage],
    /* I hot end             */ [Damage, CutProvisional, CleanEnd],
    /* J hot bad frame       */ [Damage, CutProvisional, CutTorn],
    /* K hot missing         */ [Damage, CutProvisional, CutTorn],
    /* L cut recorded        */ [Damage, CutProvisional, CleanEnd],
    /* M seals lost          */ [Damage, Damage, Damage],
];

/// The table's answer.
#[must_use]
pub const fn decide(finding: Finding, zone: Zone) -> Decision {
    RECOVERY_TABLE[finding as usize][zone as usize]
}

const _: () = {
    let mut row = 0;
    while row < Finding::ALL.len() {
        assert!(Finding::ALL[row] as usize == row, "rows in order, none missing");
        row += 1;
    }
    let mut column = 0;
    while column < Zone::ALL.len() {
        assert!(Zone::ALL[column] as usize == column, "columns in order, none missing");
        column += 1;
    }
};

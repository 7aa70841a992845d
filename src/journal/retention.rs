//! Which segments of the durable log may leave: decided from what is there, what stands on it, and the limits.
//!
//! Segments leave from the oldest on, one after the other, so that what stays is one run. One leaves when the log is larger or
//! older than it need be, and
//!
//! * every snapshot that is kept lies above it, and there are two at least: one that is damaged falls back to the one before;
//! * no member of the group lacks any of it, unless that would make the log larger than even that is worth. Such a member gets
//!   a snapshot, and the log from there on.

use super::segment_file::seal_base;
use crate::types::{NodeId, Position, Timestamp};

/// Good snapshots without which nothing leaves.
pub const RETENTION_SNAPSHOTS_MIN: usize = 2;

/// How much of a log stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(clippy::struct_field_names)] // units stand last
pub struct RetentionLimits {
    /// Bytes of the log that may stay; what is older leaves. 0: its size is no reason to leave.
    pub size_bytes: u64,
    /// Age that segments may have; older ones leave, ns. 0: age is no reason to leave.
    pub age_ns: u64,
    /// Bytes of the log that stay, at most, for a member that lacks them.
    pub member_bytes: u64,
}

/// A segment that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeld {
    /// Where it begins.
    pub base: Position,
    /// Time of the first entry behind it.
    pub closed: Timestamp,
}

/// What is there, and who wants it.
#[derive(Clone, Copy, Debug)]
pub struct Retention<'a> {
    /// How much may stay.
    pub limits: RetentionLimits,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Now, by the clock that entries are stamped with.
    pub now: Timestamp,
    /// End of the log on this disk.
    pub end: Position,
    /// The snapshots that are kept.
    pub snapshots: &'a [Position],
    /// The other members, and where the log on their disk ends, if they said so.
    pub members: &'a [(NodeId, Option<Position>)],
}

/// Why a segment stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pin {
    /// The log is neither too large nor too old.
    Limits,
    /// Too few good snapshots lie above it.
    Snapshots,
    /// A member lacks some of it.
    Member(NodeId),
}

impl Retention<'_> {
    /// Why this segment, the oldest, stays. None: it leaves.
    #[must_use]
    pub fn pin(&self, segment: &SegmentHeld) -> Option<Pin> {
        let end = segment.base.plus(self.segment_bytes);
        let size = self.end.since(segment.base.min(self.end));
        if !self.is_due(segment, size) {
            return Some(Pin::Limits);
        }
        if self.floor().is_none_or(|floor| end > floor) {
            return Some(Pin::Snapshots);
        }
        let lacks = |held: Option<Position>| held.unwrap_or_default() < end;
        let behind = self.members.iter().filter(|(_, held)| lacks(*held));
        let furthest = behind.min_by_key(|(_, held)| held.unwrap_or_default());
        furthest.filter(|_| size <= self.limits.member_bytes).map(|(node, _)| Pin::Member(*node))
    }

    fn is_due(&self, segment: &SegmentHeld, size: u64) -> bool {
        let RetentionLimits { size_bytes, age_ns, .. } = self.limits;
        let age_ns_now = self.now.0.saturating_sub(segment.closed.0);
        (size_bytes > 0 && size > size_bytes) || (age_ns > 0 && age_ns_now > age_ns)
    }

    /// Nothing from here on may leave: the last byte before the oldest snapshot proves that it is of this log. One that lies
    /// above all of the log is of another, which was given up.
    fn floor(&self) -> Option<Position> {
        let own = || self.snapshots.iter().filter(|&&snapshot| snapshot <= self.end);
        let oldest = *own().min().filter(|_| own().count() >= RETENTION_SNAPSHOTS_MIN)?;
        Some(seal_base(oldest, Position(0), self.segment_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: u64 = 1024;
    const DAY_NS: u64 = 24 * 60 * 60 * crate::types::Nanos::SECOND;

    fn segment(number: u64) -> SegmentHeld {
        SegmentHeld { base: Position(number * SEGMENT), closed: Timestamp(number * DAY_NS) }
    }

    fn retention<'a>(
        snapshots: &'a [Position],
        members: &'a [(NodeId, Option<Position>)],
    ) -> Retention<'a> {
        Retention {
            limits: RetentionLimits {
                size_bytes: 4 * SEGMENT,
                age_ns: 0,
                member_bytes: 7 * SEGMENT,
            },
            segment_bytes: SEGMENT,
            now: Timestamp(10 * DAY_NS),
            end: Position(10 * SEGMENT + 100),
            snapshots,
            members,
        }
    }

    /// How many of the oldest leave.
    fn leaving(retention: &Retention<'_>) -> u64 {
        (0..10).take_while(|&number| retention.pin(&segment(number)).is_none()).count() as u64
    }

    #[test]
    fn what_is_beyond_the_size_leaves_and_no_more() {
        let snapshots = [Position(9 * SEGMENT), Position(10 * SEGMENT)];
        let mut all = retention(&snapshots, &[]);
        assert_eq!(leaving(&all), 7, "what is left is no larger than four segments");
        assert_eq!(all.pin(&segment(7)), Some(Pin::Limits));
        all.limits.size_bytes = 0;
        assert_eq!(all.pin(&segment(0)), Some(Pin::Limits), "no limit at all");
        all.limits.age_ns = 6 * DAY_NS;
        assert_eq!(leaving(&all), 4, "closed more than six days ago");
    }

    #[test]
    fn nothing_leaves_that_the_oldest_snapshot_stands_on_or_without_two() {
        let one = [Position(9 * SEGMENT)];
        assert_eq!(retention(&one, &[]).pin(&segment(0)), Some(Pin::Snapshots));
        assert_eq!(retention(&[], &[]).pin(&segment(0)), Some(Pin::Snapshots));
        let two = [Position(3 * SEGMENT + 5), Position(9 * SEGMENT)];
        assert_eq!(leaving(&retention(&two, &[])), 3);
        // The end of the segment before is the place: that segment's last frame says whether it is of this log.
        let at_a_base = [Position(3 * SEGMENT), Position(9 * SEGMENT)];
        assert_eq!(leaving(&retention(&at_a_base, &[])), 2);
    }

    #[test]
    fn a10_a_member_keeps_what_it_lacks_up_to_a_limit() {
        let snapshots = [Position(9 * SEGMENT), Position(10 * SEGMENT)];
        let late = [
            (NodeId(1), Some(Position(10 * SEGMENT))),
            (NodeId(2), Some(Position(5 * SEGMENT + 9))),
        ];
        let all = retention(&snapshots, &late);
        assert_eq!(leaving(&all), 5);
        assert_eq!(all.pin(&segment(5)), Some(Pin::Member(NodeId(2))));
        let later =
            [(NodeId(1), Some(Position(SEGMENT))), (NodeId(2), Some(Position(5 * SEGMENT)))];
        let all = retention(&snapshots, &later);
        assert_eq!(leaving(&all), 4, "7 segments are kept for it");
        assert_eq!(all.pin(&segment(4)), Some(Pin::Member(NodeId(1))));
        let mut unlimited = all;
        unlimited.limits.member_bytes = u64::MAX;
        assert_eq!(leaving(&unlimited), 1);
        assert_eq!(leaving(&retention(&snapshots, &[(NodeId(3), None)])), 4, "it may lack all");
    }

    #[test]
    fn d22_snapshots_above_the_end_of_the_log_cover_nothing() {
        let snapshots = [5, 6].map(|number| Position(number * SEGMENT + 10));
        let leave = |end| leaving(&Retention { end: Position(end), ..retention(&snapshots, &[]) });
        assert_eq!(leave(8 * SEGMENT), 4);
        // The log was given up from below both, or from between them.
        assert_eq!((leave(5 * SEGMENT), leave(snapshots[1].0 - 1)), (0, 0));
    }

    #[test]
    fn d18_a_dead_voter_does_not_fill_the_disks() {
        for end in (10..1000_u64).map(|number| number * SEGMENT) {
            let snapshots = [Position(end - SEGMENT), Position(end)];
            let dead = [(NodeId(2), Some(Position(0)))];
            let all = Retention { end: Position(end), ..retention(&snapshots, &dead) };
            let left = (0..2000).find(|&number| all.pin(&segment(number)).is_some()).unwrap();
            assert!(end - left * SEGMENT <= all.limits.member_bytes);
        }
    }
}

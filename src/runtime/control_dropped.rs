//! Datagrams at the control port that are not a message of another member: counted by reason, and told of now and then.

use serde_json::{Value, json};

use crate::control::message::{CONTROL_VERSION, ControlError};
use crate::types::Nanos;

/// Shortest time between two lines about them, ns.
const TELL_NS: u64 = 60 * Nanos::SECOND;

/// What was dropped since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ControlDropped {
    garbage: u64,
    version: u64,
    /// The newest of those.
    other_version: Option<u8>,
    group: u64,
    /// Well formed, and not from a member's address under that member's number.
    stranger: u64,
    /// How many were told of.
    told: u64,
    tell_at: Nanos,
}

impl ControlDropped {
    /// One that is no message of this group.
    pub(super) fn count(&mut self, error: ControlError) {
        match error {
            ControlError::Garbage => self.garbage += 1,
            ControlError::Version(found) => {
                self.version += 1;
                self.other_version = Some(found);
            }
            ControlError::Group(_) => self.group += 1,
        }
    }

    /// One from somebody who is no member.
    pub(super) fn count_stranger(&mut self) {
        self.stranger += 1;
    }

    /// A line about what came since the last one: at once for the first, then at most one a minute.
    pub(super) fn line(&mut self, now: Nanos) -> Option<String> {
        let Self { garbage, version, group, stranger, .. } = *self;
        let all = garbage + version + group + stranger;
        if all == self.told || now < self.tell_at {
            return None;
        }
        (self.told, self.tell_at) = (all, now.plus(TELL_NS));
        let found = self.other_version.map_or_else(String::new, |found| {
            format!(" (the last {found}, this program speaks {CONTROL_VERSION})")
        });
        Some(format!(
            "datagrams that are not for this node arrive at its control port: ignored, so far {garbage} of garbage, \
             {version} of another version{found}, {group} of another group, {stranger} from an address that is no member's"
        ))
    }

    /// For `quorate status`.
    pub(super) fn json(&self) -> Value {
        json!({
            "garbage": self.garbage, "version": self.version, "group": self.group,
            "stranger": self.stranger,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GroupId;

    #[test]
    fn each_reason_has_its_counter_and_the_line_comes_once_a_minute() {
        let mut dropped = ControlDropped::default();
        assert_eq!(dropped.line(Nanos(5)), None, "nothing to tell");
        dropped.count(ControlError::Garbage);
        let first = dropped.line(Nanos(5)).expect("the first at once");
        assert!(first.contains("1 of garbage, 0 of another version"), "{first}");
        for _ in 0..1000 {
            dropped.count(ControlError::Version(9));
            dropped.count(ControlError::Group(GroupId(3)));
            dropped.count_stranger();
            assert_eq!(dropped.line(Nanos(TELL_NS)), None);
        }
        let second = dropped.line(Nanos(TELL_NS + 5)).expect("a minute later");
        let versions =
            format!("1000 of another version (the last 9, this program speaks {CONTROL_VERSION})");
        assert!(
            second.contains(&format!("{versions}, 1000 of another group, 1000 from")),
            "{second}"
        );
        assert_eq!(dropped.line(Nanos(9 * TELL_NS)), None, "nothing new");
        let counts = json!({"garbage": 1, "version": 1000, "group": 1000, "stranger": 1000});
        assert_eq!(dropped.json(), counts);
    }
}

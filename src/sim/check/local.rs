//! What readers were told by nodes, each of its own state, against what took effect and who was told so when.

use std::collections::BTreeMap;

use super::history::History;
use super::{Checked, Violation};
use crate::client::ReadOutcome;
use crate::sim::reader::Read;
use crate::types::{Nanos, Sequence};

/// A clock of the world runs too fast or too slow by so little that a time differs by less than one part in so many.
const DRIFT: u64 = 1_000;

/// What all readers were told.
#[derive(Default)]
pub(super) struct Locals {
    /// By entry: commands that had taken effect with it, and the last of them.
    states: BTreeMap<Sequence, (u64, u64)>,
}

impl Locals {
    /// A question has ended. `life` is that of the node's process now; all that anybody was told before `certain` is in the
    /// answer, as the node says.
    pub(super) fn ended(
        &mut self,
        history: &History,
        read: &Read,
        life: u64,
        certain: Option<Nanos>,
    ) -> Checked {
        let Read { asked, outcome, lag, told } = *read;
        let fail = |checker, why: &str| Err(Violation::new(checker, format!("{why}: {read:?}")));
        match (outcome, lag) {
            (ReadOutcome::Behind, Some(lag)) if lag.sequence >= asked.demand.at_least => {
                return fail("local_demand", "it holds what it refuses");
            }
            (ReadOutcome::Rejected { .. } | ReadOutcome::TooLong, _) => {
                return fail("local_answer", "no question is one to be rejected");
            }
            (ReadOutcome::Answered, _) => {}
            _ => return Ok(()),
        }
        let (Some(lag), Some((count, last))) = (lag, told) else {
            return fail("local_answer", "an answer without a reply");
        };
        if count > history.commands() || (count > 0 && history.at(count - 1) != Some(last)) {
            return fail("local_answer", "never so, in the order of commands");
        }
        if *self.states.entry(lag.sequence).or_insert((count, last)) != (count, last) {
            return fail("local_answer", "another state with that entry last");
        }
        if let Some(certain) = certain
            && count < history.known_before(certain)
        {
            let text = format!("{} were known at {certain}", history.known_before(certain));
            return fail("local_lag", &text);
        }
        let within_ns = asked.demand.within_ns;
        if within_ns != u64::MAX {
            let slack = within_ns + within_ns / DRIFT + DRIFT;
            let oldest = Nanos(asked.sent_at.0.saturating_sub(slack));
            if certain.is_none_or(|certain| certain < oldest) {
                return fail("local_lag", "older than was asked for");
            }
        }
        if lag.sequence < asked.demand.at_least
            || asked.wrote.is_some_and(|(_, place)| count <= place)
        {
            return fail("local_demand", "it does not hold what was asked for");
        }
        if life == asked.life && (lag.sequence < asked.before.0 || count < asked.before.1) {
            return fail("local_backward", "less than the same process said before");
        }
        Ok(())
    }
}

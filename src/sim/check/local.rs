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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Demand, Lag};
    use crate::sim::reader::Asked;
    use crate::types::{Leadership, Position, Term};

    /// An answer with 0 commands, after the entry `sequence`.
    fn read(sequence: u64) -> Read {
        let lag = Lag {
            node: None,
            leadership: Leadership::default(),
            term: Term(1),
            applied: Position(0),
            sequence: Sequence(sequence),
            commit: Position(0),
            lag_ns: None,
            heard_ns: None,
            given_at: Nanos(0),
        };
        let demand = Demand { at_least: Sequence(2), ..Demand::default() };
        let (sent_at, before) = (Nanos(50_000), (Sequence(3), 0));
        let asked = Asked { node: 0, life: 1, sent_at, demand, wrote: None, before };
        Read { asked, outcome: ReadOutcome::Answered, lag: Some(lag), told: Some((0, 0)) }
    }

    fn judged(change: impl Fn(&mut Read), life: u64, certain: Option<Nanos>) -> &'static str {
        let mut read = read(3);
        change(&mut read);
        let mut locals = Locals::default();
        locals.states.insert(Sequence(9), (1, 1));
        let judged = locals.ended(&History::new(1, Vec::new()), &read, life, certain);
        judged.map_or_else(|violation| violation.checker, |()| "fine")
    }

    #[test]
    fn each_claim_that_is_not_so_is_noticed() {
        let sequence = |number| {
            move |read: &mut Read| read.lag.as_mut().expect("there").sequence = Sequence(number)
        };
        let refused = |read: &mut Read| read.outcome = ReadOutcome::Behind;
        let bounded = |read: &mut Read| read.asked.demand.within_ns = 20_000;
        assert_eq!(judged(|_| {}, 1, None), "fine");
        assert_eq!(judged(sequence(2), 1, None), "local_backward");
        assert_eq!(judged(sequence(2), 2, None), "fine", "another process");
        assert_eq!(judged(sequence(1), 2, None), "local_demand");
        assert_eq!(judged(refused, 1, None), "local_demand");
        assert_eq!(judged(sequence(9), 1, None), "local_answer", "another state than before");
        assert_eq!(judged(|read| read.told = Some((1, 7)), 1, None), "local_answer");
        assert_eq!(judged(|read| read.told = None, 1, None), "local_answer");
        assert_eq!(judged(bounded, 1, None), "local_lag");
        assert_eq!(judged(bounded, 1, Some(Nanos(10_000))), "local_lag");
        assert_eq!(judged(bounded, 1, Some(Nanos(40_000))), "fine");
    }
}

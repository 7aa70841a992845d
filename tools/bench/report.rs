//! What a run says: a table for people, one object for programs, and whether it may be believed.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::distribution::{Distribution, PERCENTILES, Unit};
use crate::environment::{Disturbance, Environment};
use crate::rounds::{Plan, Series};

/// Stolen CPU time above which a run says more about the neighbours than about what was measured, in percent.
const STOLEN_PERCENT_MAX: f64 = 5.0;
/// CPU time of processes that have nothing to do with the run above which it says more about them, in percent.
const OTHERS_PERCENT_MAX: f64 = 10.0;
/// Share of the asked rate that must be reached.
const RATE_REACHED_MIN: f64 = 0.99;

/// Why a run must not be believed; empty: it may.
pub(crate) struct Validity(Vec<String>);

impl Validity {
    /// Judges what all runs have in common.
    pub(crate) fn of_host(environment: &Environment) -> Self {
        let mut why = Vec::new();
        if cfg!(debug_assertions) {
            why.push("debug build: measure with --release".to_owned());
        }
        if let Some(found) = environment.disturbance() {
            let Disturbance { stolen, others } = found;
            if stolen > STOLEN_PERCENT_MAX {
                why.push(format!("the hypervisor took {stolen:.1} % of the CPU time away"));
            }
            if others > OTHERS_PERCENT_MAX {
                why.push(format!("other processes had {others:.1} % of the CPU time"));
            }
        }
        Self(why)
    }

    /// Adds what is wrong with the load of one series.
    pub(crate) fn judge(&mut self, series: &Series, plan: &Plan) {
        let lost = series.sum(|outcome| outcome.lost);
        if lost > 0 {
            self.0.push(format!("{}: {lost} replies were lost", series.name));
        }
        if series.sum(|outcome| outcome.answered) == 0 {
            self.0.push(format!("{}: nothing was answered", series.name));
        }
        let Some(rate) = plan.rate else { return };
        for (index, outcome) in series.rounds.iter().enumerate() {
            let seconds = outcome.sending_ns.max(plan.measure_ns) as f64 / 1e9;
            let reached = outcome.sent as f64 / seconds;
            // The last send is intended one interval before the end, so one send of grace.
            if (outcome.sent + 1) as f64 / seconds < rate.get() as f64 * RATE_REACHED_MIN {
                self.0.push(format!(
                    "{}: sent {reached:.0} a second instead of {rate} in round {}",
                    series.name,
                    index + 1
                ));
            }
        }
    }

    /// One more reason.
    pub(crate) fn add(&mut self, why: String) {
        self.0.push(why);
    }

    /// Whether the run may be believed.
    pub(crate) fn is_valid(&self) -> bool {
        self.0.is_empty()
    }

    /// Loud if it may not.
    pub(crate) fn to_text(&self) -> String {
        if self.is_valid() {
            return "valid\n".to_owned();
        }
        self.0.iter().fold(String::new(), |mut text, why| {
            let _ = writeln!(text, "*** INVALID: {why}"); // a String takes everything
            text
        })
    }

    /// Puts `valid` and `why` into a report.
    pub(crate) fn insert(&self, report: &mut Map<String, Value>) {
        report.insert("valid".to_owned(), json!(self.is_valid()));
        report.insert("why".to_owned(), json!(self.0));
    }
}

/// Heading of [`row`].
pub(crate) fn heading(what: &str) -> String {
    let columns = ["count", "p50", "p90", "p99", "p99.9", "max"];
    columns.iter().fold(format!("{what:<30}"), |mut line, column| {
        let _ = write!(line, "{column:>10}");
        line
    })
}

/// One distribution as a line of a table.
pub(crate) fn row(name: &str, distribution: &Distribution, unit: Unit) -> String {
    let mut line = format!("{name:<30}{:>10}", distribution.count());
    for percentile in &PERCENTILES {
        let _ = write!(line, "{:>10}", unit.to_text(distribution.at_ns(percentile)));
    }
    let _ = write!(line, "{:>10}", unit.to_text(distribution.max_ns()));
    line
}

/// Ratios as a line of the same table.
pub(crate) fn ratio_row(name: &str, ratios: &[(&'static str, Option<f64>)]) -> String {
    ratios.iter().fold(format!("{name:<30}{:>10}", ""), |mut line, (_, ratio)| {
        let text = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2} x"));
        let _ = write!(line, "{text:>10}");
        line
    })
}

/// Ratios for a report.
pub(crate) fn ratios_json(ratios: &[(&'static str, Option<f64>)]) -> Value {
    let entries = ratios.iter();
    Value::Object(
        entries.map(|(key, ratio)| ((*key).to_owned(), json!(ratio.map(thousandths)))).collect(),
    )
}

/// Three digits behind the point: more would only look exact.
fn thousandths(ratio: f64) -> f64 {
    (ratio * 1_000.0).round() / 1_000.0
}

/// What a series counted, all rounds together, and its median per round.
pub(crate) fn series_json(series: &Series) -> Value {
    let median = &PERCENTILES[0];
    let medians: Vec<Value> = series
        .rounds
        .iter()
        .map(|outcome| Unit::Microseconds.to_json(outcome.response.at_ns(median)))
        .collect();
    json!({
        "sent": series.sum(|outcome| outcome.sent),
        "answered": series.sum(|outcome| outcome.answered),
        "lost": series.sum(|outcome| outcome.lost),
        "unexpected": series.sum(|outcome| outcome.unexpected),
        "refused": series.sum(|outcome| outcome.refused),
        "per_second": series.per_second().round(),
        "round_p50_us": medians,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::load::{Load, Outcome};
    use crate::schedule::Schedule;

    fn outcome(sent: u64, sending_ns: u64) -> Outcome {
        let mut outcome = Load::new(Schedule::closed(0, 0), 0).finish();
        (outcome.sent, outcome.answered, outcome.sending_ns) = (sent, sent, sending_ns);
        outcome
    }

    fn plan(rate: u64) -> Plan {
        let rate = NonZeroU64::new(rate);
        Plan { rounds: 1, rate, warm_up_ns: 0, measure_ns: 1_000_000_000 }
    }

    fn judged(outcome: Outcome, plan: &Plan) -> Vec<String> {
        let mut validity = Validity(Vec::new());
        validity.judge(&Series { name: "it", rounds: vec![outcome] }, plan);
        validity.0
    }

    #[test]
    fn a_missed_rate_and_lost_replies_make_a_run_invalid() {
        assert_eq!(judged(outcome(1_000, 999_000_000), &plan(1_000)), [""; 0]);
        assert_eq!(judged(outcome(1_000, 1_005_000_000), &plan(1_000)), [""; 0]);
        let late = judged(outcome(1_000, 1_100_000_000), &plan(1_000));
        assert_eq!(late, ["it: sent 909 a second instead of 1000 in round 1"]);
        let mut lossy = outcome(1_000, 999_000_000);
        lossy.lost = 3;
        assert_eq!(judged(lossy, &plan(1_000)), ["it: 3 replies were lost"]);
        assert_eq!(judged(outcome(0, 0), &plan(0)), ["it: nothing was answered"]);
    }

    #[test]
    fn an_invalid_run_is_loud_in_both_forms() {
        assert!(Validity(Vec::new()).is_valid());
        let validity = Validity(vec!["the reason".to_owned()]);
        assert_eq!(validity.to_text(), "*** INVALID: the reason\n");
        let mut report = Map::new();
        validity.insert(&mut report);
        assert_eq!(report["valid"], false);
        assert_eq!(report["why"][0], "the reason");
    }

    #[test]
    fn the_columns_of_heading_row_and_ratios_line_up() {
        let mut distribution = Distribution::new();
        (0..20_000).for_each(|ns| distribution.record_ns(ns));
        let width = heading("x").len();
        assert_eq!(row("x", &distribution, Unit::Microseconds).len(), width);
        let ratios = [("p50", Some(1.0)), ("p90", None), ("p99", None), ("p99_9", None)];
        assert_eq!(ratio_row("x", &ratios).len() + 10, width);
    }
}

//! How long things took: a histogram of three significant digits, and only as many percentiles as it can answer for.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Longest duration told apart, in nanoseconds; longer ones count as this long.
const LONGEST_NS: u64 = 60_000_000_000;

/// The percentiles of every report, with the fewest samples that support each: ten beyond it, because fewer say how
/// unlucky one run was and not how the system behaves.
pub(crate) const PERCENTILES: [Percentile; 4] = [
    Percentile { key: "p50", quantile: 0.5, samples_min: 20 },
    Percentile { key: "p90", quantile: 0.9, samples_min: 100 },
    Percentile { key: "p99", quantile: 0.99, samples_min: 1_000 },
    Percentile { key: "p99_9", quantile: 0.999, samples_min: 10_000 },
];

/// One column of a report.
pub(crate) struct Percentile {
    /// Its key in JSON.
    pub(crate) key: &'static str,
    /// The share of samples at or below it.
    pub(crate) quantile: f64,
    /// Samples needed before it is reported.
    pub(crate) samples_min: u64,
}

/// Median over the rounds of `subject`'s percentile divided by `base`'s in the same round. Where the samples of single
/// rounds do not support it, of all rounds together; nothing where those do not either.
pub(crate) fn ratio(
    subject: &[&Distribution],
    base: &[&Distribution],
    percentile: &Percentile,
) -> Option<f64> {
    let of = |subject: &Distribution, base: &Distribution| {
        let base = base.at_ns(percentile).filter(|ns| *ns > 0)?;
        Some(subject.at_ns(percentile)? as f64 / base as f64)
    };
    let by_round = subject.iter().zip(base).filter_map(|(subject, base)| of(subject, base));
    median(by_round.collect())
        .or_else(|| of(&Distribution::merged(subject), &Distribution::merged(base)))
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The unit of a report; recorded is always in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// Whole nanoseconds.
    Nanoseconds,
    /// Nanoseconds of one out of this many that were timed together, with two digits behind the point.
    NanosecondsOfBatch(u32),
    /// Microseconds with three digits behind the point.
    Microseconds,
    /// Milliseconds with one digit behind the point.
    Milliseconds,
}

/// Durations of one kind.
#[derive(Clone)]
pub(crate) struct Distribution {
    histogram: Histogram<u64>,
}

impl Distribution {
    /// None yet.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3)
            .expect("constant bounds that the histogram accepts");
        Self { histogram }
    }

    /// One more.
    pub(crate) fn record_ns(&mut self, duration_ns: u64) {
        self.histogram.saturating_record(duration_ns);
    }

    /// All of the other's too.
    fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all distributions have the same bounds");
    }

    /// All of them together.
    pub(crate) fn merged(all: &[&Self]) -> Self {
        let mut merged = Self::new();
        for one in all {
            merged.merge(one);
        }
        merged
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The duration that this share of the samples does not exceed; nothing while there are too few samples to say.
    pub(crate) fn at_ns(&self, percentile: &Percentile) -> Option<u64> {
        (self.count() >= percentile.samples_min)
            .then(|| self.histogram.value_at_quantile(percentile.quantile))
    }

    /// The longest, if there is any.
    pub(crate) fn max_ns(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.histogram.max())
    }

    /// `{count, p50, p90, p99, p99_9, max}`; null for what the samples do not support.
    pub(crate) fn to_json(&self, unit: Unit) -> Value {
        let mut object = Map::new();
        object.insert("count".to_owned(), json!(self.count()));
        for percentile in &PERCENTILES {
            object.insert(percentile.key.to_owned(), unit.to_json(self.at_ns(percentile)));
        }
        object.insert("max".to_owned(), unit.to_json(self.max_ns()));
        Value::Object(object)
    }
}

impl Unit {
    /// A duration as a number of this unit, or null.
    pub(crate) fn to_json(self, duration_ns: Option<u64>) -> Value {
        match (duration_ns, self) {
            (None, _) => Value::Null,
            (Some(ns), Self::Nanoseconds) => json!(ns),
            (Some(ns), Self::NanosecondsOfBatch(batch)) => {
                json!((ns as f64 * 100.0 / f64::from(batch)).round() / 100.0)
            }
            (Some(ns), Self::Microseconds) => json!(ns as f64 / 1_000.0),
            (Some(ns), Self::Milliseconds) => json!((ns as f64 / 100_000.0).round() / 10.0),
        }
    }

    /// A duration for a table: `-` where there is none.
    pub(crate) fn to_text(self, duration_ns: Option<u64>) -> String {
        match (duration_ns, self) {
            (None, _) => "-".to_owned(),
            (Some(ns), Self::Nanoseconds) => ns.to_string(),
            (Some(ns), Self::NanosecondsOfBatch(batch)) => {
                format!("{:.1}", ns as f64 / f64::from(batch))
            }
            (Some(ns), Self::Microseconds) => format!("{:.1}", ns as f64 / 1_000.0),
            (Some(ns), Self::Milliseconds) => format!("{:.1}", ns as f64 / 1_000_000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: u64) -> Distribution {
        let mut distribution = Distribution::new();
        (1..=count).for_each(|ns| distribution.record_ns(ns));
        distribution
    }

    #[test]
    fn a_percentile_appears_with_the_sample_that_supports_it_and_not_before() {
        for percentile in &PERCENTILES {
            assert_eq!(of(percentile.samples_min - 1).at_ns(percentile), None);
            assert!(of(percentile.samples_min).at_ns(percentile).is_some());
            let beyond = percentile.samples_min as f64 * (1.0 - percentile.quantile);
            assert!(beyond > 9.99, "{}: only {beyond} samples beyond it", percentile.key);
        }
    }

    #[test]
    fn json_has_every_key_and_null_for_what_is_not_known() {
        let empty = of(0).to_json(Unit::Nanoseconds);
        assert_eq!(
            empty.to_string(),
            r#"{"count":0,"p50":null,"p90":null,"p99":null,"p99_9":null,"max":null}"#
        );
        let some = of(1_000).to_json(Unit::Microseconds);
        assert_eq!(some["count"], 1_000);
        assert_eq!(some["p50"], 0.5);
        assert_eq!(some["p99"], 0.99);
        assert!(some["p99_9"].is_null());
        assert_eq!(some["max"], 1.0);
        assert_eq!(of(1_000).to_json(Unit::NanosecondsOfBatch(32))["max"], 31.25);
    }

    #[test]
    fn three_digits_are_kept_and_too_long_is_the_longest() {
        let mut distribution = Distribution::new();
        distribution.record_ns(123_456_789);
        let max = distribution.max_ns().expect("one sample");
        assert!(max.abs_diff(123_456_789) < 123_456);
        distribution.record_ns(u64::MAX);
        assert!(distribution.max_ns().expect("two samples") >= LONGEST_NS);
    }

    #[test]
    fn merging_is_recording_both() {
        let merged = Distribution::merged(&[&of(10_000), &of(10_000)]);
        assert_eq!(merged.count(), 20_000);
        assert_eq!(merged.at_ns(&PERCENTILES[0]), of(10_000).at_ns(&PERCENTILES[0]));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let rounds = |medians: &[u64]| -> Vec<Distribution> {
            let one = |ns: &u64| {
                let mut distribution = Distribution::new();
                (0..400).for_each(|_| distribution.record_ns(*ns));
                distribution
            };
            medians.iter().map(one).collect()
        };
        // The machine is three times slower in the last round: the ratio does not notice.
        let (base, subject) = (rounds(&[1_000, 1_000, 3_000]), rounds(&[2_000, 1_500, 6_000]));
        let (base, subject): (Vec<_>, Vec<_>) = (base.iter().collect(), subject.iter().collect());
        let p50 = ratio(&subject, &base, &PERCENTILES[0]).expect("enough samples");
        assert!((p50 - 2.0).abs() < 0.01, "{p50}");
        let p99 = ratio(&subject, &base, &PERCENTILES[2]).expect("enough in all rounds together");
        assert!((p99 - 2.0).abs() < 0.01, "{p99}");
        assert_eq!(ratio(&subject, &base, &PERCENTILES[3]), None, "1,200 samples have no p99.9");
    }
}

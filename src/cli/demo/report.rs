//! What a demo ends with.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Args;
use super::load::Load;
use super::verify::Verified;
use quorate::types::Nanos;

/// The end of a demo.
pub(super) struct Report {
    object: Value,
    good: bool,
    differences: Vec<String>,
}

impl Report {
    pub(super) fn new(
        args: &Args,
        seed: u64,
        load: &Load,
        statuses: &[Value],
        verified: Verified,
    ) -> Self {
        let word = |name: &str| -> u64 {
            statuses.iter().filter_map(|status| status["words"][name].as_u64()).sum()
        };
        let transport = statuses.first().map_or(Value::Null, |status| status["transport"].clone());
        let acknowledged = load.acknowledged.len() as u64;
        let per_second = acknowledged.saturating_mul(Nanos::SECOND) / load.elapsed_ns;
        let good = verified.agree && verified.lost == 0 && verified.duplicated == 0;
        let object = json!({
            "nodes": args.nodes,
            "observers": args.observers,
            "transport": transport,
            "service": args.service.name(),
            "durability": args.durability,
            "commands": load.sent,
            "acknowledged": acknowledged,
            "rejected": load.rejected,
            "unknown": load.unknown,
            "lost": verified.lost,
            "duplicated": verified.duplicated,
            "agree": verified.agree,
            "sequence": verified.sequence.0,
            "state_hash": format!("{:016x}", verified.state_hash),
            "per_second": per_second,
            "latency_us": latency(&load.latency_ns),
            "bytes": load.bytes,
            "repairs": word("repairs_sent"),
            "naks": word("naks_sent"),
            "outages_ms": load.outages_ns.iter().copied().map(ms).collect::<Vec<_>>(),
            "seed": seed,
        });
        Self { object, good, differences: verified.differences }
    }

    /// All logs agree, nothing acknowledged is missing, nothing took effect twice.
    pub(super) fn is_good(&self) -> bool {
        self.good
    }

    pub(super) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.object)
    }

    pub(super) fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let o = &self.object;
        let text = |key: &str| match &o[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        writeln!(
            out,
            "{} nodes by {}, service {}, durability {}",
            text("nodes"),
            text("transport"),
            text("service"),
            text("durability")
        )?;
        writeln!(
            out,
            "commands     {} sent, {} acknowledged ({} of them rejected by the service), {} unknown",
            text("commands"),
            text("acknowledged"),
            text("rejected"),
            text("unknown")
        )?;
        writeln!(
            out,
            "rate         {} per second, {} bytes in all",
            text("per_second"),
            text("bytes")
        )?;
        let latency = &o["latency_us"];
        let us = |key: &str| latency[key].as_f64().map_or("-".into(), |us| format!("{us:.1}"));
        writeln!(
            out,
            "latency      p50 {} us, p90 {}, p99 {}, p99.9 {}, max {}",
            us("p50"),
            us("p90"),
            us("p99"),
            us("p99_9"),
            us("max")
        )?;
        if let Some(outages) = outages(&o["outages_ms"]) {
            writeln!(out, "outages      {outages}")?;
        }
        writeln!(out, "repairs      {} sent for {} NAKs", text("repairs"), text("naks"))?;
        writeln!(
            out,
            "logs         {} at entry {}, state {}",
            if o["agree"] == true { "all agree" } else { "DIFFER" },
            text("sequence"),
            text("state_hash")
        )?;
        writeln!(out, "lost         {} acknowledged commands", text("lost"))?;
        writeln!(out, "duplicated   {}", text("duplicated"))?;
        for difference in &self.differences {
            writeln!(out, "difference   {difference}")?;
        }
        Ok(())
    }
}

/// Milliseconds, to the tenth: more would only look exact.
fn ms(ns: u64) -> f64 {
    (ns as f64 / 100_000.0).round() / 10.0
}

/// One for each kill, for people.
fn outages(list: &Value) -> Option<String> {
    let list: Vec<f64> = list.as_array()?.iter().filter_map(Value::as_f64).collect();
    let mut sorted = list.clone();
    sorted.sort_by(f64::total_cmp);
    let (worst, count) = (sorted.last()?, sorted.len());
    let median = f64::midpoint(sorted[count / 2], sorted[(count - 1) / 2]);
    let each: Vec<String> = list.iter().map(ToString::to_string).collect();
    let each = each.join(", ");
    Some(format!("{count} kills, median {median:.1} ms, worst {worst} ms: {each}"))
}

/// Percentiles, as far as the count supports them: ten samples must lie beyond one.
fn latency(histogram: &Histogram<u64>) -> Value {
    let count = histogram.len();
    let at = |quantile: f64, beyond: u64| {
        (count >= 10 * beyond).then(|| histogram.value_at_quantile(quantile) as f64 / 1000.0)
    };
    json!({
        "count": count,
        "p50": at(0.5, 2),
        "p90": at(0.9, 10),
        "p99": at(0.99, 100),
        "p99_9": at(0.999, 1000),
        "max": (count > 0).then(|| histogram.max() as f64 / 1000.0),
    })
}

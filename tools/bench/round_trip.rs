//! The verbs `floor` and `rtt`: round trips of the floors, and of a group beside them.

use std::sync::atomic::AtomicBool;

use quorate::io::cpu::pin_thread;
use quorate::limits::{COMMAND_BYTES_MAX, DATAGRAM_HEADER_BYTES};
use serde_json::{Map, Value, json};

use crate::commit::Commit;
use crate::distribution::{PERCENTILES, Unit};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::floor::Floor;
use crate::report::{Validity, heading, ratio_row, ratios_json, row, series_json};
use crate::rounds::{Series, ratios, run};
use crate::settings::{FLOOR_PAYLOAD_MAX, LoadArgs, RttArgs, within};
use crate::shared_memory;
use crate::subject::Subject;

/// Runs the floors alone. Returns whether the run is valid.
pub(crate) fn floor(args: &LoadArgs, stop: &AtomicBool) -> Result<bool, Failure> {
    within("--payload", args.payload as u64, 0, FLOOR_PAYLOAD_MAX as u64)?;
    measure("floor", args, None, stop)
}

/// Runs the floors and a group. Returns whether the run is valid.
pub(crate) fn rtt(args: &RttArgs, stop: &AtomicBool) -> Result<bool, Failure> {
    within("--payload", args.load.payload as u64, 0, COMMAND_BYTES_MAX as u64)?;
    measure("rtt", &args.load, Some(args), stop)
}

/// Runs the floors and `group`, in turn.
fn measure(
    verb: &'static str,
    args: &LoadArgs,
    group: Option<&RttArgs>,
    stop: &AtomicBool,
) -> Result<bool, Failure> {
    let plan = args.plan()?;
    let cpus = args.cpus()?;
    let group_settings = group.map(|group| group.group(&cpus)).transpose()?;
    let environment = Environment::read();
    if let Some(first) = cpus.first() {
        pin_thread(*first).map_err(Failure::Refused)?;
    }
    let shared_memory = shared_memory::round_trips(cpus.get(1).copied());

    let in_datagram = args.payload.min(FLOOR_PAYLOAD_MAX);
    let skeleton = args.floor(DATAGRAM_HEADER_BYTES + in_datagram, &cpus);
    let skeleton = Floor::skeleton(skeleton, args.nodes);
    let raw_udp = Floor::raw_udp(args.floor(in_datagram, &cpus));
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(skeleton), Box::new(raw_udp)];
    if let Some(settings) = group_settings {
        subjects.push(Box::new(Commit::new(settings, args.payload)));
    }
    let all = run(&mut subjects, &plan, stop, |round, name, outcome| {
        let p50 = Unit::Microseconds.to_text(outcome.response.at_ns(&PERCENTILES[0]));
        eprintln!("round {:>3}  {name:<10} p50 {p50:>8} us", round + 1);
    })?;

    let mut validity = Validity::of_host(&environment);
    for series in &all {
        validity.judge(series, &plan);
    }
    println!("quorate-bench {verb}: {}", args.to_text(&cpus));
    if let Some(group) = group {
        println!("{}", group.to_text());
    }
    println!("{}", environment.to_text());
    println!("{}", heading("round trip, us"));
    for series in &all {
        println!("{}", row(series.name, &series.response(), Unit::Microseconds));
        if plan.rate.is_some() {
            let name = format!("{}, from actual send", series.name);
            println!("{}", row(&name, &series.service(), Unit::Microseconds));
        }
    }
    println!("ratio, median of the rounds");
    for (subject, base) in pairs(&all) {
        let name = format!("{} / {}", subject.name, base.name);
        println!("{}", ratio_row(&name, &ratios(subject, base)));
    }
    println!("{}", heading("shared memory, ns"));
    println!("{}", row("word there and back", &shared_memory, Unit::Nanoseconds));
    print!("{}", validity.to_text());

    if args.json {
        let mut report = Map::new();
        report.insert("verb".to_owned(), json!(verb));
        validity.insert(&mut report);
        insert_series(&mut report, &all, plan.rate.is_some());
        report.insert("shared_memory_ns".to_owned(), shared_memory.to_json(Unit::Nanoseconds));
        let mut settings = args.to_json(&cpus);
        if let Some(group) = group {
            group.insert(&mut settings);
        }
        report.insert("settings".to_owned(), Value::Object(settings));
        report.insert("environment".to_owned(), environment.to_json());
        println!("{}", Value::Object(report));
    }
    Ok(validity.is_valid())
}

/// Every series against the one below it: what it costs above its floor.
fn pairs(all: &[Series]) -> Vec<(&Series, &Series)> {
    let named = |name| all.iter().find(|series| series.name == name);
    let order = ["commit", "skeleton", "raw_udp"];
    let found: Vec<&Series> = order.iter().filter_map(|name| named(*name)).collect();
    found.iter().zip(found.iter().skip(1)).map(|(subject, base)| (*subject, *base)).collect()
}

fn insert_series(report: &mut Map<String, Value>, all: &[Series], open: bool) {
    let mut counts = Map::new();
    for series in all {
        let us = Unit::Microseconds;
        report.insert(format!("{}_us", series.name), series.response().to_json(us));
        if open {
            report.insert(format!("{}_service_us", series.name), series.service().to_json(us));
        }
        counts.insert(series.name.to_owned(), series_json(series));
    }
    let ratios: Map<String, Value> = pairs(all)
        .into_iter()
        .map(|(subject, base)| {
            (format!("{}_to_{}", subject.name, base.name), ratios_json(&ratios(subject, base)))
        })
        .collect();
    report.insert("ratios".to_owned(), Value::Object(ratios));
    report.insert("counts".to_owned(), Value::Object(counts));
}

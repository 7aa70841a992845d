//! `quorate simulate`: plays seeded worlds until one of them breaks a promise.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::mutants::Mutant;
use quorate::sim::{Coverage, Fault, Plan, STATES, run};
use serde_json::json;

/// Play simulated worlds: whole groups through faults, with every promise checked after every step.
///
/// Exit codes: 0 every promise was kept and everything was hit, 1 a promise was broken or something was never hit.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them; drawn and printed if it is not given.
    #[arg(long)]
    from: Option<u64>,
    /// Nodes of each group; drawn if it is not given.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: Option<u16>,
    /// Only these kinds of faults, by name.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    faults: Vec<Fault>,
    /// Take this rule out of the shipped code, and see that a checker notices: exit code 1 when one did. `list` names them.
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Worlds that are played at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Print what happens in the first seed, line by line.
    #[arg(long)]
    trace: bool,
    /// Do not ask that everything is hit: for a few seeds.
    #[arg(long)]
    any_coverage: bool,
    /// One object on the last line.
    #[arg(long)]
    json: bool,
}

fn fault(name: &str) -> Result<Fault, String> {
    let names = || Fault::KINDS.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
    Fault::named(name).ok_or_else(|| format!("one of {}", names()))
}

impl Args {
    fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::draw(seed, self.nodes.map(usize::from));
        plan.mutant = self.mutant.as_deref().and_then(Mutant::named);
        if !self.faults.is_empty() {
            plan.only(&self.faults);
        }
        plan
    }

    /// The flags that make another run of a seed the same.
    fn flags(&self) -> String {
        let nodes = self.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        let names: Vec<_> = self.faults.iter().map(|fault| fault.name()).collect();
        let faults =
            if names.is_empty() { String::new() } else { format!(" --faults {}", names.join(",")) };
        nodes + &faults
    }
}

/// What a campaign has come to.
#[derive(Default)]
struct Totals {
    seeds: u64,
    simulated: Duration,
    events: u64,
    commands: u64,
    coverage: Coverage,
}

/// A seed that broke a promise.
struct Broken {
    seed: u64,
    checker: String,
    text: String,
}

enum Played {
    Well { simulated: Duration, events: u64, commands: u64, coverage: Coverage },
    Broken(Broken),
}

pub(super) fn run_campaign(args: &Args) -> u8 {
    match args.mutant.as_deref() {
        None => {}
        Some("list") => {
            for (_, name, checkers) in Mutant::ALL {
                println!("{name:<26} {}", checkers.join(" or "));
            }
            return EXIT_DONE;
        }
        Some(name) => {
            if let Some(mutant) = Mutant::named(name) {
                return hunt(args, mutant);
            }
            eprintln!("--mutant {name}: no such rule; `--mutant list` names them");
            return EXIT_USAGE;
        }
    }
    let from = args.from.unwrap_or_else(|| RandomState::new().hash_one(0) >> 24);
    if args.trace {
        return trace(&args.plan(from));
    }
    eprintln!("seeds {from} to {}", from + args.seeds.saturating_sub(1));
    let started = Instant::now();
    let (totals, broken) = campaign(args, from);
    let missed = totals.missed();
    let complete = args.any_coverage || missed.is_empty();
    report(args, &totals, started.elapsed(), &missed);
    if let Some(broken) = &broken {
        println!("seed {}: {}", broken.seed, broken.text);
        println!(
            "repeat: quorate simulate --seeds 1 --from {}{} --trace",
            broken.seed,
            args.flags()
        );
    }
    if !complete && broken.is_none() {
        println!("never hit: {}", missed.join(", "));
    }
    if args.json {
        let seed = broken.as_ref().map(|broken| broken.seed);
        println!(
            "{}",
            json!({
                "seeds": totals.seeds, "from": from, "violation_seed": seed, "missed": missed,
                "simulated_hours": totals.simulated.as_secs_f64() / 3600.0,
                "seconds": started.elapsed().as_secs_f64(), "events": totals.events,
                "commands": totals.commands,
            })
        );
    }
    if broken.is_none() && complete { EXIT_DONE } else { EXIT_FINDINGS }
}

/// Plays worlds with a planted bug until its checker notices.
fn hunt(args: &Args, mutant: Mutant) -> u8 {
    let from = args.from.unwrap_or(0);
    let (_, name, checkers) =
        Mutant::ALL.iter().find(|(m, ..)| *m == mutant).expect("it has a name");
    let (totals, broken) = campaign(args, from);
    let Some(broken) = broken else {
        println!("{name}: not noticed in {} seeds", totals.seeds);
        return EXIT_DONE;
    };
    let Broken { seed, checker, text } = &broken;
    println!("{name}: seed {seed}, {text}");
    if !checkers.contains(&checker.as_str()) {
        println!("{name}: {checker} noticed it, not {}", checkers.join(" or "));
        return EXIT_FAILURE;
    }
    // The same world with the rule in place keeps every promise.
    let mut plan = args.plan(*seed);
    plan.mutant = None;
    if let Played::Broken(broken) = play(&plan) {
        println!("{name}: seed {seed} breaks without it too: {}", broken.text);
        return EXIT_FAILURE;
    }
    println!("{name}: noticed by {checker} after {} seeds", seed - from + 1);
    EXIT_FINDINGS
}

fn campaign(args: &Args, from: u64) -> (Totals, Option<Broken>) {
    let next = AtomicU64::new(from);
    let end = from.saturating_add(args.seeds);
    let mut totals = Totals::default();
    let mut broken: Option<Broken> = None;
    quiet_panics();
    thread::scope(|scope| {
        let (sender, played) = mpsc::channel();
        for _ in 0..args.jobs.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send(play(&args.plan(seed))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut said = Instant::now();
        for played in played {
            match played {
                Played::Well { simulated, events, commands, coverage } => {
                    totals.seeds += 1;
                    totals.simulated += simulated;
                    totals.events += events;
                    totals.commands += commands;
                    totals.coverage.add(&coverage);
                }
                Played::Broken(found) => {
                    // No more seeds are begun; of those under way the lowest that fails is told.
                    next.store(end, Ordering::Relaxed);
                    broken = broken.take().filter(|other| other.seed < found.seed).or(Some(found));
                }
            }
            if said.elapsed() > Duration::from_secs(10) {
                said = Instant::now();
                eprintln!("{} seeds, {:.1} simulated hours", totals.seeds, totals.hours());
            }
        }
    });
    (totals, broken)
}

thread_local! {
    static PLAYING: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A broken assertion of the shipped code is a finding like any other: it names its seed, also where panics abort.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        if let Some(seed) = PLAYING.get() {
            eprintln!("seed {seed}: {panic}");
            eprintln!("repeat: quorate simulate --seeds 1 --from {seed} --trace");
        } else {
            eprintln!("{panic}");
        }
    }));
}

fn play(plan: &Plan) -> Played {
    let seed = plan.seed;
    PLAYING.set(Some(seed));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(plan, false)));
    PLAYING.set(None);
    let Ok(outcome) = outcome else {
        let (checker, text) = ("assertion".to_owned(), "an assertion failed".to_owned());
        return Played::Broken(Broken { seed, checker, text });
    };
    if let Some((at, violation)) = outcome.violation {
        let at = Duration::from_nanos(at.0);
        let text = format!("{} after {at:.6?}: {}", violation.checker, violation.text);
        let checker = violation.checker.to_owned();
        return Played::Broken(Broken { seed, checker, text });
    }
    Played::Well {
        simulated: Duration::from_nanos(outcome.simulated.0),
        events: outcome.events,
        commands: outcome.commands,
        coverage: outcome.coverage,
    }
}

fn trace(plan: &Plan) -> u8 {
    println!("{plan:#?}");
    let outcome = run(plan, true);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("trace hash {:016x}", outcome.trace_hash);
    if outcome.violation.is_none() { EXIT_DONE } else { EXIT_FINDINGS }
}

impl Totals {
    fn hours(&self) -> f64 {
        self.simulated.as_secs_f64() / 3600.0
    }

    /// What was never hit.
    fn missed(&self) -> Vec<&'static str> {
        let faults = Fault::KINDS.iter().map(|fault| fault.name());
        faults.chain(STATES.iter().copied()).filter(|what| self.coverage.of(what) == 0).collect()
    }
}

fn report(args: &Args, totals: &Totals, took: Duration, missed: &[&str]) {
    let (hours, seconds) = (totals.hours(), took.as_secs_f64());
    println!(
        "{} seeds: {hours:.2} simulated hours in {seconds:.1} s ({:.1} hours in 10 minutes), {} events, {} commands",
        totals.seeds,
        hours * 600.0 / seconds,
        totals.events,
        totals.commands,
    );
    if args.json {
        return;
    }
    let faults = Fault::KINDS.iter().map(|fault| fault.name());
    for what in faults.chain(STATES.iter().copied()).filter(|what| !missed.contains(what)) {
        println!("  {what:<20} {:>10}", totals.coverage.of(what));
    }
}

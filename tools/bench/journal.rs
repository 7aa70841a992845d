//! The verb `journal`: appending to the log at several payload sizes, each beside its floor.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use quorate::io::cpu::{allowed_cpus, pin_thread};
use quorate::io::hot_tier::{HostHotTier, HotTierError, HotTierSettings, MEMORY_DIRECTORY};
use quorate::limits::SEGMENT_BYTES_DEFAULT;
use serde_json::{Map, Value, json};

use crate::append::{BATCH, Measured, PAYLOAD_MAX, SEGMENTS, measure};
use crate::distribution::{Distribution, PERCENTILES, Unit, ratio};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::report::{Validity, heading, ratio_row, ratios_json, row};
use crate::scratch::Scratch;
use crate::settings::within;

const UNIT: Unit = Unit::NanosecondsOfBatch(BATCH);
/// The payload size whose distributions stand at the top of the report, if it was measured.
const PAYLOAD_OF_REPORT: usize = 64;

/// What the verb is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JournalArgs {
    /// Bytes of the payloads
    #[arg(long, value_delimiter = ',', default_values_t = [32, 64, 256, 1024])]
    payloads: Vec<usize>,
    /// Rounds; in each one log and floor take a turn at every size
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// CPU to run on [default: the last one allowed]
    #[arg(long)]
    cpu: Option<usize>,
    /// Folder for the segments [default: the memory file system, else the temporary folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One object on the last line
    #[arg(long)]
    json: bool,
}

/// Runs the verb. Returns whether the run is valid.
pub(crate) fn run(args: &JournalArgs, stop: &AtomicBool) -> Result<bool, Failure> {
    check(args)?;
    let environment = Environment::read();
    let cpu = place(args.cpu)?;
    let scratch = Scratch::new(&folder(args))?;
    let mut tier = open_tier(scratch.path())?;
    let all = measure(&mut tier, &args.payloads, args.rounds, stop)?;
    let validity = Validity::of_host(&environment);

    let megabytes = SEGMENTS as u64 * (SEGMENT_BYTES_DEFAULT >> 20);
    println!(
        "quorate-bench journal: {} rounds of {megabytes} MiB for each of log and floor, CPU {cpu}, in {}",
        args.rounds,
        folder(args).display(),
    );
    println!("{}", environment.to_text());
    println!("{}", heading("one frame, ns (of batches)"));
    for one in &all {
        let rows = [("append", one.appends()), ("floor", one.floors())];
        for (name, distribution) in &rows {
            let name = format!("{name}, {} bytes", one.payload_bytes);
            println!("{}", row(&name, distribution, UNIT));
        }
        println!("{}", ratio_row("  append / floor", &one.ratios()));
        let [append, floor] = one.quickest_ns().map(|ns| UNIT.to_text(ns));
        println!("  quickest round at p50: append {append}, floor {floor}");
    }
    print!("{}", validity.to_text());
    if args.json {
        println!("{}", report(args, &all, &validity, &environment));
    }
    Ok(validity.is_valid())
}

fn check(args: &JournalArgs) -> Result<(), Failure> {
    within("--rounds", args.rounds as u64, 1, 1_000)?;
    if args.payloads.is_empty() {
        return Err(Failure::Usage("--payloads names no size".to_owned()));
    }
    args.payloads
        .iter()
        .try_for_each(|bytes| within("--payloads", *bytes as u64, 0, PAYLOAD_MAX as u64))
}

/// One CPU, so that the thread does not move in between.
fn place(wanted: Option<usize>) -> Result<usize, Failure> {
    let allowed = allowed_cpus();
    let cpu = match wanted {
        Some(cpu) if allowed.contains(&cpu) => cpu,
        Some(cpu) => {
            let text = format!("--cpu {cpu} is none of the CPUs {allowed:?} of this process");
            return Err(Failure::Usage(text));
        }
        None => *allowed.last().expect("a process that runs has a CPU"),
    };
    pin_thread(cpu).map_err(Failure::Refused)?;
    Ok(cpu)
}

fn folder(args: &JournalArgs) -> PathBuf {
    let memory = Path::new(MEMORY_DIRECTORY);
    match &args.dir {
        Some(dir) => dir.clone(),
        None if memory.is_dir() => memory.to_owned(),
        None => std::env::temp_dir(),
    }
}

fn open_tier(dir: &Path) -> Result<HostHotTier, Failure> {
    let settings = HotTierSettings {
        data_directory: dir.to_owned(),
        directory: Some(dir.join("hot")),
        segment_bytes: SEGMENT_BYTES_DEFAULT,
        segments_min: SEGMENTS as u64,
    };
    let opened = HostHotTier::open(&settings).map_err(|error| match error {
        HotTierError::Host { error, .. } => Failure::Host { what: "opening the tier", error },
        other => Failure::Usage(other.to_string()),
    })?;
    let (tier, warning) = opened;
    if let Some(warning) = warning {
        eprintln!("quorate-bench: {warning}");
    }
    Ok(tier)
}

impl Measured {
    fn appends(&self) -> Distribution {
        Distribution::merged(&self.append.iter().collect::<Vec<_>>())
    }
    fn floors(&self) -> Distribution {
        Distribution::merged(&self.floor.iter().collect::<Vec<_>>())
    }
    fn ratios(&self) -> Vec<(&'static str, Option<f64>)> {
        let append: Vec<_> = self.append.iter().collect();
        let floor: Vec<_> = self.floor.iter().collect();
        PERCENTILES.iter().map(|of| (of.key, ratio(&append, &floor, of))).collect()
    }
    /// The lowest median of any round, of appends and of the floor: what the code costs while it has its core to itself.
    fn quickest_ns(&self) -> [Option<u64>; 2] {
        let [median, ..] = &PERCENTILES;
        [&self.append, &self.floor]
            .map(|rounds| rounds.iter().filter_map(|round| round.at_ns(median)).min())
    }
    fn insert(&self, report: &mut Map<String, Value>) {
        report.insert("payload_bytes".to_owned(), json!(self.payload_bytes));
        report.insert("append_ns".to_owned(), self.appends().to_json(UNIT));
        report.insert("floor_ns".to_owned(), self.floors().to_json(UNIT));
        report.insert("append_to_floor".to_owned(), ratios_json(&self.ratios()));
        let [append, floor] = self.quickest_ns().map(|ns| UNIT.to_json(ns));
        report.insert("quickest_round_ns".to_owned(), json!({ "append": append, "floor": floor }));
    }
}

fn report(
    args: &JournalArgs,
    all: &[Measured],
    validity: &Validity,
    environment: &Environment,
) -> Value {
    let mut report = Map::new();
    report.insert("verb".to_owned(), json!("journal"));
    validity.insert(&mut report);
    let one = all.iter().find(|one| one.payload_bytes == PAYLOAD_OF_REPORT).unwrap_or(&all[0]);
    one.insert(&mut report);
    let payloads: Vec<Value> = all
        .iter()
        .map(|one| {
            let mut entry = Map::new();
            one.insert(&mut entry);
            Value::Object(entry)
        })
        .collect();
    report.insert("payloads".to_owned(), json!(payloads));
    let settings = json!({
        "rounds": args.rounds,
        "batch": BATCH,
        "segment_bytes": SEGMENT_BYTES_DEFAULT,
        "segments": SEGMENTS,
    });
    report.insert("settings".to_owned(), settings);
    report.insert("environment".to_owned(), environment.to_json());
    Value::Object(report)
}

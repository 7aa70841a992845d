//! Flags, and the checked settings that they become.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use quorate::io::cpu::allowed_cpus;
use quorate::limits::{DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES, NODES_MAX};
use quorate::runtime::config::{Idle, RungName, TransportKind};
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::floor::{Cpus, FloorSettings};
use crate::group::{GroupSettings, program_beside};
use crate::rounds::Plan;
use crate::waiting::Waiting;

/// Most sends a second that may be asked for.
const RATE_MAX: u64 = 10_000_000;
/// Largest payload that one datagram of the skeleton carries behind as many bytes as our header has.
pub(crate) const FLOOR_PAYLOAD_MAX: usize = DATAGRAM_BYTES_MAX - DATAGRAM_HEADER_BYTES;

/// What every measurement of round trips can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// Nodes of the group, and of the skeleton beside it.
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: usize,
    /// Bytes of a command.
    #[arg(long, default_value_t = 32)]
    pub(crate) payload: usize,
    /// Commands a second, stamped with their intended time; 0: closed loop, one at a time.
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u64,
    /// Rounds; in each one every subject takes its turn.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Measured seconds of each turn.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Load before each turn counts, in milliseconds.
    #[arg(long, default_value_t = 300)]
    pub(crate) warm_up_ms: u64,
    /// How the processes of the floors wait.
    #[arg(long, value_enum, default_value_t = Waiting::YieldPoll)]
    pub(crate) wait: Waiting,
    /// CPUs of the processes, round robin, this one's first: a list such as 0,1, or "any" for no placement. All by default.
    #[arg(long)]
    pub(crate) cpus: Option<String>,
    /// One object on the last line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the measurement of a group can be told besides.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RttArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// How the leader's bytes reach the others
    #[arg(long, value_parser = PossibleValuesParser::new(TransportKind::NAMES), default_value = "unicast")]
    pub(crate) transport: String,
    /// How far an entry must have come on the leader before it counts; followers acknowledge from memory
    #[arg(long, value_parser = PossibleValuesParser::new(RungName::NAMES), default_value = "memory")]
    pub(crate) durability: String,
    /// What the nodes' cores do when there is nothing to do
    #[arg(long, value_parser = PossibleValuesParser::new(Idle::NAMES), default_value = "adaptive")]
    pub(crate) idle: String,
    /// The `quorate` program [default: the one beside this one]
    #[arg(long)]
    pub(crate) program: Option<PathBuf>,
    /// Folder for the nodes' data, removed afterwards [default: the temporary folder]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

impl RttArgs {
    /// The group to be measured.
    pub(crate) fn group(&self, cpus: &Cpus) -> Result<GroupSettings, Failure> {
        Ok(GroupSettings {
            hosts: None,
            program: self.program.clone().map_or_else(program_beside, Ok)?,
            dir: self.dir.clone().unwrap_or_else(std::env::temp_dir),
            nodes: self.load.nodes,
            transport: self.transport.clone(),
            durability: [self.durability.clone(), RungName::Memory.name().to_owned()],
            idle: self.idle.clone(),
            allowed: allowed_cpus(),
            cpus: cpus.clone(),
        })
    }
    /// One line for people.
    pub(crate) fn to_text(&self) -> String {
        let Self { transport, durability, idle, .. } = self;
        format!("group: {transport}, leader {durability}, cores idle by {idle}")
    }
    /// Adds what is said here to the settings of a report.
    pub(crate) fn insert(&self, settings: &mut Map<String, Value>) {
        for (key, value) in
            [("transport", &self.transport), ("durability", &self.durability), ("idle", &self.idle)]
        {
            settings.insert(key.to_owned(), json!(value));
        }
    }
}

impl LoadArgs {
    /// The load of each round.
    pub(crate) fn plan(&self) -> Result<Plan, Failure> {
        within("--nodes", self.nodes as u64, 1, NODES_MAX as u64)?;
        within("--rounds", self.rounds as u64, 1, 1_000)?;
        within("--rate", self.rate, 0, RATE_MAX)?;
        within("--warm-up-ms", self.warm_up_ms, 0, 60_000)?;
        if !(0.05..=600.0).contains(&self.seconds) {
            let text = format!("--seconds {} is not between 0.05 and 600", self.seconds);
            return Err(Failure::Usage(text));
        }
        Ok(Plan {
            rounds: self.rounds,
            rate: NonZeroU64::new(self.rate),
            warm_up_ns: self.warm_up_ms * 1_000_000,
            measure_ns: nanoseconds(self.seconds),
        })
    }

    /// CPUs for the processes, all of them allowed.
    pub(crate) fn cpus(&self) -> Result<Cpus, Failure> {
        let allowed = allowed_cpus();
        match self.cpus.as_deref() {
            None => Ok(allowed),
            Some("any") => Ok(Cpus::new()),
            Some(list) => list.split(',').map(|word| one_of(&allowed, word)).collect(),
        }
    }

    /// The floors' part, for datagrams of `datagram_bytes`.
    pub(crate) fn floor(&self, datagram_bytes: usize, cpus: &Cpus) -> FloorSettings {
        // A turn, its last replies, and time to spare on a busy machine.
        let turn = Duration::from_secs_f64(self.seconds) + Duration::from_millis(self.warm_up_ms);
        let lifetime_s = turn.as_secs() + 60;
        FloorSettings { datagram_bytes, wait: self.wait, cpus: cpus.clone(), lifetime_s }
    }

    /// One line for people.
    pub(crate) fn to_text(&self, cpus: &Cpus) -> String {
        let load = match self.rate {
            0 => "closed loop".to_owned(),
            rate => format!("{rate}/s from the intended send time"),
        };
        let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
        format!(
            "{} nodes, {}-byte commands, {load}, {} rounds of {} s, floors wait by {}, CPUs {}",
            self.nodes,
            self.payload,
            self.rounds,
            self.seconds,
            self.wait.name(),
            if cpus.is_empty() { "any".to_owned() } else { cpus.join(",") },
        )
    }

    /// For a report.
    pub(crate) fn to_json(&self, cpus: &Cpus) -> Map<String, Value> {
        let entries = [
            ("nodes", json!(self.nodes)),
            ("payload_bytes", json!(self.payload)),
            ("rate_per_second", json!(self.rate)),
            ("rounds", json!(self.rounds)),
            ("seconds", json!(self.seconds)),
            ("warm_up_ms", json!(self.warm_up_ms)),
            ("floor_wait", json!(self.wait.name())),
            ("cpus", json!(cpus)),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// Refuses a number outside `min..=max` by the flag's name.
pub(crate) fn within(flag: &str, value: u64, min: u64, max: u64) -> Result<(), Failure> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Failure::Usage(format!("{flag} {value} is not between {min} and {max}")))
}

/// Seconds that were checked to be positive and few.
fn nanoseconds(seconds: f64) -> u64 {
    u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap_or(u64::MAX)
}

fn one_of(allowed: &[usize], word: &str) -> Result<usize, Failure> {
    let cpu = word.trim().parse().ok().filter(|cpu| allowed.contains(cpu));
    cpu.ok_or_else(|| {
        let text = format!("--cpus: \"{word}\" is none of the CPUs {allowed:?} of this process");
        Failure::Usage(text)
    })
}

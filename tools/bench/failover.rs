//! The verb `failover`: what a client at a constant rate sees of a leader that is killed, paused, cut off, or hands over.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;
use quorate::io::clock::HostClock;
use quorate::io::cpu::allowed_cpus;
use quorate::limits::{COMMAND_BYTES_MAX, NODES_MAX};
use quorate::runtime::config::{Idle, Layers, RungName, Settings, TransportKind};
use quorate::runtime::{ConnectOptions, ask};
use serde_json::{Map, Value, json};

use crate::distribution::{Distribution, PERCENTILES, Unit};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::group::{Group, GroupSettings, program_beside};
use crate::hosts::{Hosts, MadeHosts};
use crate::report::{Validity, heading, row};
use crate::scratch::Scratch;
use crate::settings::within;
use crate::watched::{Counts, Watch, send};

const UNIT: Unit = Unit::Milliseconds;
/// How long the group may take for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often its nodes are asked.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Between two troubles, so that the one leaves no trace in the other.
const REST: Duration = Duration::from_millis(200);
/// A calm time is as long as this; a leader sleeps for this many leader timeouts.
const CALM: Duration = Duration::from_millis(300);
const SLEEP_TIMEOUTS: u32 = 3;
/// How bytes travel where ways are cut.
const UNICAST: &str = "unicast";
/// Syncs of the disk that are timed before.
const SYNCS: u8 = 100;

/// What is done to the leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Kind {
    /// Its process is killed, and started again once another one leads
    Kill,
    /// Its process is stopped for three leader timeouts, and goes on
    Pause,
    /// It hands the lead to another node, as by `quorate transfer`
    Transfer,
    /// It and the others no longer hear each other, until another one leads and three leader timeouts are over
    Partition,
    /// The same, but it no longer hears the others, and they hear it
    Deaf,
    /// The same, but they no longer hear it, and it hears them
    Mute,
    /// Nothing: how long a client goes without an answer on this machine anyway
    Calm,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Transfer => "transfer",
            Self::Partition => "partition",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::Calm => "calm",
        }
    }

    /// It cuts ways between nodes: they need network namespaces of their own.
    const fn cuts(self) -> bool {
        matches!(self, Self::Partition | Self::Deaf | Self::Mute)
    }
}

/// What the verb is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct FailoverArgs {
    /// What is done to the leader; in each round each of them, in this order
    #[arg(long, value_enum, value_delimiter = ',',
          default_values = ["kill", "pause", "transfer", "calm"])]
    kinds: Vec<Kind>,
    /// Rounds
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Commands a second, stamped with their intended time
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// Bytes of a command
    #[arg(long, default_value_t = 32)]
    payload: usize,
    /// How the leader's bytes reach the others
    #[arg(long, value_parser = PossibleValuesParser::new(TransportKind::NAMES), default_value = "auto")]
    transport: String,
    /// How far an entry must have come on the leader before it counts; followers acknowledge from memory
    #[arg(long, value_parser = PossibleValuesParser::new(RungName::NAMES), default_value = "disk")]
    durability: String,
    /// What the nodes' cores do when there is nothing to do
    #[arg(long, value_parser = PossibleValuesParser::new(Idle::NAMES), default_value = "adaptive")]
    idle: String,
    /// The `quorate` program [default: the one beside this one]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Folder for the nodes' data, removed afterwards [default: the temporary folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// One object on the last line
    #[arg(long)]
    json: bool,
    /// The network namespaces that the nodes are to run in, made by the process that started this one
    #[arg(long, hide = true)]
    hosts: Option<String>,
}

/// Runs the verb. Returns whether the run is valid.
pub(crate) fn run(args: &FailoverArgs, stop: &AtomicBool) -> Result<bool, Failure> {
    let mut args = args.clone();
    if let Some(valid) = among_hosts(&mut args, stop)? {
        return Ok(valid);
    }
    let args = &args;
    let settings = args.check()?;
    let environment = Environment::read();
    let sync = measure_sync(&settings)?;
    let (gaps_ns, counts) = measure(args, &settings, stop)?;
    let outages = by_kind(args, &gaps_ns);
    let mut validity = Validity::of_host(&environment);
    if counts.failed > 0 {
        validity.add(format!("{} commands were not answered by the service", counts.failed));
    }

    println!("quorate-bench failover: {}", args.to_text());
    println!("{}", environment.to_text());
    println!("{}", heading("without an answer, ms"));
    for (kind, each) in &outages {
        println!("{}", row(kind.name(), &distribution(each), UNIT));
    }
    println!("{}", row("one sync of the disk", &sync, UNIT));
    let ratio = kill_to_transfer(&outages);
    let text = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1} x"));
    println!("kill / transfer at p50: {text}");
    print!("{}", validity.to_text());
    if args.json {
        let mut report = report(args, &outages, ratio, counts, &environment);
        report.insert("sync_ms".to_owned(), sync.to_json(UNIT));
        validity.insert(&mut report);
        println!("{}", Value::Object(report));
    }
    Ok(validity.is_valid())
}

/// Where ways between nodes are to be cut, the run is another process's, in a network namespace beside those of the nodes:
/// this machine's own network is left alone. Returns whether it is valid; nothing, where the run is this one's: of that, what
/// is not possible is left out by name.
fn among_hosts(args: &mut FailoverArgs, stop: &AtomicBool) -> Result<Option<bool>, Failure> {
    if args.hosts.is_some() {
        UNICAST.clone_into(&mut args.transport);
        return Ok(None);
    }
    if !args.kinds.iter().any(|kind| kind.cuts()) {
        return Ok(None);
    }
    args.check()?;
    if args.transport == "multicast" {
        let what = "ways between nodes are cut for unicast only: --transport unicast";
        return Err(Failure::Usage(what.to_owned()));
    }
    let why = match MadeHosts::new(args.nodes) {
        Ok(hosts) => return run_among(&hosts.0, stop).map(Some),
        Err(why) => why,
    };
    for kind in args.kinds.iter().filter(|kind| kind.cuts()) {
        println!("{}: left out, no network namespaces: {why}", kind.name());
    }
    args.kinds.retain(|kind| !kind.cuts());
    Ok(args.kinds.is_empty().then_some(false))
}

fn run_among(hosts: &Hosts, stop: &AtomicBool) -> Result<bool, Failure> {
    let this = std::env::current_exe().map_err(Failure::host("finding this program"))?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &hosts.client()]).arg(this).args(std::env::args_os().skip(1));
    command.args(["--hosts", hosts.prefix()]);
    let mut child = command.spawn().map_err(Failure::host("starting ip"))?;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().map_err(Failure::host("waiting for a child"))? {
            return match status.code() {
                Some(0) => Ok(true),
                Some(1) => Ok(false),
                _ => Err(Failure::Child { verb: "failover", what: status.to_string() }),
            };
        }
        if stop.load(Ordering::Relaxed) && !std::mem::replace(&mut told, true) {
            let id = child.id().to_string();
            let kill = Command::new("kill").args(["-TERM", &id]).status();
            kill.map_err(Failure::host("starting kill"))?;
        }
        thread::sleep(ASK_EVERY);
    }
}

impl FailoverArgs {
    fn check(&self) -> Result<GroupSettings, Failure> {
        within("--rounds", self.rounds as u64, 1, 1_000)?;
        within("--nodes", self.nodes as u64, 3, NODES_MAX as u64)?;
        within("--rate", self.rate, 1, 1_000_000)?;
        within("--payload", self.payload as u64, 0, COMMAND_BYTES_MAX as u64)?;
        Ok(GroupSettings {
            program: self.program.clone().map_or_else(program_beside, Ok)?,
            dir: self.dir.clone().unwrap_or_else(std::env::temp_dir),
            nodes: self.nodes,
            hosts: self.hosts.as_ref().map(|name| Hosts::made_by_another(name, self.nodes)),
            transport: self.transport.clone(),
            durability: [self.durability.clone(), RungName::Memory.name().to_owned()],
            idle: self.idle.clone(),
            allowed: allowed_cpus(),
            cpus: Vec::new(),
        })
    }

    fn to_text(&self) -> String {
        let Self { nodes, payload, rate, rounds, transport, durability, idle, .. } = self;
        format!(
            "{nodes} nodes, {payload}-byte commands, {rate}/s from the intended send time, {rounds} rounds; \
             {transport}, leader {durability}, cores idle by {idle}"
        )
    }
}

/// How long the disk takes to make a small write durable: votes and terms wait for it, several times in a row.
fn measure_sync(settings: &GroupSettings) -> Result<Distribution, Failure> {
    let scratch = Scratch::new(&settings.dir)?;
    let file =
        File::create(scratch.path().join("block")).map_err(Failure::host("creating a file"))?;
    let mut distribution = Distribution::new();
    for number in 0..SYNCS {
        let begin = Instant::now();
        file.write_all_at(&[number; 512], 0).map_err(Failure::host("writing a file"))?;
        file.sync_data().map_err(Failure::host("syncing a file"))?;
        distribution.record_ns(begin.elapsed().as_nanos() as u64);
    }
    Ok(distribution)
}

/// Troubles the group in every way, in every round; returns the longest gap of each trouble.
fn measure(
    args: &FailoverArgs,
    settings: &GroupSettings,
    stop: &AtomicBool,
) -> Result<(Vec<u64>, Counts), Failure> {
    let group = Group::start(settings)?;
    let nodes =
        (0..args.nodes).map(|number| load(&group, number)).collect::<Result<Vec<_>, _>>()?;
    let mut options = ConnectOptions::of(&nodes[0], "quorate-bench");
    options.faults = None;
    let payload: Vec<u8> = (0..args.payload).map(|n| (n % 251) as u8).collect();
    let watch = &Watch::default();
    thread::scope(|scope| {
        // Nodes end with the thread that started them: so the client has the other one.
        let client = scope.spawn(move || send(options, args.rate, &payload, watch));
        let client_ended = || client.is_finished();
        let mut trouble =
            Troublemaker { group, nodes: &nodes, watch, stop, client_ended: &client_ended };
        let troubled = trouble.run(args);
        watch.end();
        let sent = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (sent, troubled) {
            (Ok(counts), Ok(())) => Ok((watch.gaps_ns(), counts)),
            // Whoever interrupted it wants to hear of that.
            (_, Err(Failure::Interrupted)) => Err(Failure::Interrupted),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
        }
    })
}

fn load(group: &Group, number: usize) -> Result<Settings, Failure> {
    Layers::new()
        .file(&group.config_of(number))
        .check()
        .map_err(|errors| Failure::Child { verb: "quorate init", what: errors.to_string() })
}

struct Troublemaker<'a> {
    group: Group,
    nodes: &'a [Settings],
    watch: &'a Watch,
    stop: &'a AtomicBool,
    client_ended: &'a dyn Fn() -> bool,
}

impl Troublemaker<'_> {
    fn run(&mut self, args: &FailoverArgs) -> Result<(), Failure> {
        let mut number = 0;
        for round in 0..args.rounds {
            for kind in &args.kinds {
                let leader = self.wait_for("the group to be whole", &[], is_whole)?;
                self.wait_for_client()?; // the first time it may still look for the group
                self.let_pass(REST)?;
                number += 1;
                self.watch.set_trouble(number);
                self.trouble(*kind, leader)?;
                self.wait_for("the group to be whole again", &[], is_whole)?;
                self.wait_for_client()?;
                self.watch.set_trouble(0);
                let gap_ns = self.watch.gaps_ns().get(number - 1).copied();
                let text = UNIT.to_text(gap_ns);
                eprintln!("round {:>3}  {:<10} {text:>8} ms", round + 1, kind.name());
            }
        }
        Ok(())
    }

    fn trouble(&mut self, kind: Kind, leader: usize) -> Result<(), Failure> {
        let another = |statuses: &[Value]| self::leader(statuses).filter(|other| *other != leader);
        match kind {
            Kind::Kill => {
                self.group.kill(leader)?;
                self.wait_for("another leader", &[leader], another)?;
                self.group.start_again(leader)
            }
            Kind::Pause => {
                self.group.signal(leader, "STOP")?;
                let timeout = Duration::from_nanos(self.nodes[leader].timing.leader_timeout_ns);
                let wake = Instant::now() + SLEEP_TIMEOUTS * timeout;
                let other = self.wait_for("another leader", &[leader], another);
                let left = wake.saturating_duration_since(Instant::now());
                let slept = self.let_pass(left);
                self.group.signal(leader, "CONT")?;
                other.and(slept)
            }
            Kind::Transfer => {
                let before =
                    self.wait_for("a term", &[], |statuses| Some(newest_term(statuses)))?;
                let to = (leader + 1) % self.nodes.len();
                let answer = self.ask(leader, &format!("transfer {to}"));
                if answer.as_ref().is_none_or(|answer| answer["handing_to"] != to) {
                    let what = format!("node {leader} does not hand over: {answer:?}");
                    return Err(Failure::Child { verb: "quorate transfer", what });
                }
                self.wait_for("the hand-over", &[], |statuses| {
                    (newest_term(statuses) > before && self::leader(statuses).is_some())
                        .then_some(())
                })
            }
            Kind::Partition | Kind::Deaf | Kind::Mute => {
                let timeout = Duration::from_nanos(self.nodes[leader].timing.leader_timeout_ns);
                let heal = Instant::now() + SLEEP_TIMEOUTS * timeout;
                self.cut_off(kind, leader)?;
                let other = self.wait_for("another leader", &[leader], another);
                let cut = self.let_pass(heal.saturating_duration_since(Instant::now()));
                self.hosts()?.heal().map_err(network)?;
                other.and(cut)
            }
            Kind::Calm => self.let_pass(CALM),
        }
    }

    fn hosts(&self) -> Result<&Hosts, Failure> {
        self.group.hosts().ok_or_else(|| network("the nodes share a host".to_owned()))
    }

    /// Cuts the ways between the leader and the others, all or those in one direction.
    fn cut_off(&self, kind: Kind, leader: usize) -> Result<(), Failure> {
        let hosts = self.hosts()?;
        for other in (0..self.nodes.len()).filter(|other| *other != leader) {
            if kind != Kind::Mute {
                hosts.cut(other, leader).map_err(network)?;
            }
            if kind != Kind::Deaf {
                hosts.cut(leader, other).map_err(network)?;
            }
        }
        Ok(())
    }

    /// Waits until a command is answered that was to be sent after this.
    fn wait_for_client(&self) -> Result<(), Failure> {
        let (now_ns, deadline) = (HostClock.now().0, Instant::now() + PATIENCE);
        while self.watch.answered_ns() < now_ns {
            self.let_pass(ASK_EVERY)?;
            if Instant::now() > deadline {
                let what = "no answer although the group is whole".to_owned();
                return Err(Failure::Child { verb: "client", what });
            }
        }
        Ok(())
    }

    fn let_pass(&self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
            if (self.client_ended)() {
                let what = "it ended before the run did".to_owned();
                return Err(Failure::Child { verb: "client", what });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn ask(&self, number: usize, request: &str) -> Option<Value> {
        let answer = ask(&self.nodes[number].node.admin_socket, request).ok()?;
        serde_json::from_str(&answer).ok()
    }

    /// Asks all nodes but those that cannot answer, until `wanted` finds something in their answers.
    fn wait_for<T>(
        &mut self,
        what: &str,
        without: &[usize],
        wanted: impl Fn(&[Value]) -> Option<T>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = (0..self.nodes.len()).filter(|number| !without.contains(number));
            let statuses: Vec<_> = asked.filter_map(|number| self.ask(number, "status")).collect();
            if statuses.len() + without.len() == self.nodes.len()
                && let Some(found) = wanted(&statuses)
            {
                return Ok(found);
            }
            self.group.check()?;
            if Instant::now() > deadline {
                let short = |status: &Value| {
                    let of = ["node", "role", "leader", "term", "standing"];
                    of.map(|key| format!("{key} {}", status[key])).join(" ")
                };
                let found: Vec<_> = statuses.iter().map(short).collect();
                let what = format!("waited in vain for {what}: {}", found.join(", "));
                return Err(Failure::Child { verb: "quorate node", what });
            }
            self.let_pass(ASK_EVERY)?;
        }
    }
}

fn network(what: String) -> Failure {
    Failure::Child { verb: "ip", what }
}

/// Who leads with a quorum behind it.
fn leader(statuses: &[Value]) -> Option<usize> {
    let leads = statuses.iter().filter(|status| status["role"] == "leader");
    let leads = leads.filter(|status| status["quorum"] == true);
    let newest = leads.max_by_key(|status| status["term"].as_u64());
    newest.and_then(|status| usize::try_from(status["node"].as_u64()?).ok())
}

fn newest_term(statuses: &[Value]) -> Option<u64> {
    statuses.iter().filter_map(|status| status["term"].as_u64()).max()
}

/// One leads, and the others follow it with votes of their own; returns who.
fn is_whole(statuses: &[Value]) -> Option<usize> {
    let leader = leader(statuses)?;
    let follows = |status: &Value| status["leader"] == leader && status["standing"] == "voter";
    statuses.iter().all(follows).then_some(leader)
}

type Outages = Vec<(Kind, Vec<u64>)>;

fn by_kind(args: &FailoverArgs, gaps_ns: &[u64]) -> Outages {
    let kinds = args.kinds.iter().enumerate();
    kinds
        .map(|(place, kind)| {
            (*kind, gaps_ns.iter().skip(place).step_by(args.kinds.len()).copied().collect())
        })
        .collect()
}

fn distribution(each_ns: &[u64]) -> Distribution {
    let mut distribution = Distribution::new();
    for ns in each_ns {
        distribution.record_ns(*ns);
    }
    distribution
}

fn of_kind(outages: &Outages, kind: Kind) -> Option<Distribution> {
    outages.iter().find(|(of, _)| *of == kind).map(|(_, each)| distribution(each))
}

/// How many times shorter a hand-over is than a failover, at the median.
fn kill_to_transfer(outages: &Outages) -> Option<f64> {
    let [median, ..] = &PERCENTILES;
    let [kill, transfer] =
        [Kind::Kill, Kind::Transfer].map(|kind| of_kind(outages, kind)?.at_ns(median));
    Some(kill? as f64 / transfer?.max(1) as f64)
}

fn report(
    args: &FailoverArgs,
    outages: &Outages,
    ratio: Option<f64>,
    counts: Counts,
    environment: &Environment,
) -> Map<String, Value> {
    let mut report = Map::new();
    report.insert("verb".to_owned(), json!("failover"));
    let first = outages.first().map_or(Kind::Kill, |(kind, _)| *kind);
    let shown = of_kind(outages, Kind::Kill).or_else(|| of_kind(outages, first));
    let shown = shown.unwrap_or_else(Distribution::new);
    report.insert("outages_ms".to_owned(), shown.to_json(UNIT));
    let kinds = outages.iter().map(|(kind, each)| {
        let mut one = Map::new();
        one.insert("outages_ms".to_owned(), distribution(each).to_json(UNIT));
        let each = each.iter().map(|ns| UNIT.to_json(Some(*ns)));
        one.insert("each_ms".to_owned(), each.collect());
        (kind.name().to_owned(), Value::Object(one))
    });
    report.insert("kinds".to_owned(), Value::Object(kinds.collect()));
    let ratio = ratio.map(|ratio| (ratio * 10.0).round() / 10.0);
    report.insert("kill_to_transfer".to_owned(), json!({"p50": ratio}));
    let Counts { sent, answered, failed } = counts;
    report
        .insert("counts".to_owned(), json!({"sent": sent, "answered": answered, "failed": failed}));
    report.insert(
        "settings".to_owned(),
        json!({
            "nodes": args.nodes, "payload_bytes": args.payload, "rate": args.rate,
            "rounds": args.rounds, "transport": args.transport,
            "durability": args.durability, "idle": args.idle,
        }),
    );
    report.insert("environment".to_owned(), environment.to_json());
    report
}

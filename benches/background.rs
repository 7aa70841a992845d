//! What clients see of the work that a node does beside theirs: a snapshot of a large state that is taken, and a follower that
//! was away and takes what it missed.
//!
//! Three nodes on this host (this program as processes, with a service whose state is `--state-megabytes`) and a client that
//! sends `--rate` commands a second, each stamped with its intended time. In each of `--rounds` it is watched for `--seconds`
//! while nothing else goes on (calm), then while the leader takes a snapshot, while all nodes take one at once, and while a
//! follower that was stopped for `--megabytes` of log catches up, which is sent by another client, at full speed, while nobody
//! watches. Ratios are medians over the rounds, each to the calm of the same round. `--set KEY=VALUE` changes the group's
//! settings; the folder is the temporary one (`TMPDIR`).
//!
//! Informs only: the exit code is 0 whatever the figures are.
#![allow(clippy::unwrap_used)] // what cannot be measured is not worth going on for

#[allow(dead_code)]
#[path = "../tools/bench/distribution.rs"]
mod distribution;
#[path = "../tests/support/group.rs"]
mod group;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use distribution::{Distribution, PERCENTILES, Percentile, Unit, ratio};
use group::Group;
use quorate::client::{Outcome, Refusal, Request};
use quorate::io::process::die_with_parent;
use quorate::runtime::config::Layers;
use quorate::runtime::{ConnectOptions, Engine, HostClient, ask};
use quorate::service::{Context, Rejection, Reply, Service};
use quorate::types::{ClientSequence, Nanos};
use serde_json::Value;

const NODES: u16 = 3;
/// Bytes of a command that is watched, and of one that makes the log long.
const COMMAND_BYTES: usize = 32;
const BULK_BYTES: usize = 16 * 1024;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(20);
/// Between two windows, not watched.
const REST: Duration = Duration::from_millis(500);
/// Bytes that a snapshot writes and reads at a time.
const PIECE_WORDS: usize = 8 * 1024;

/// Many words, of which each command changes one.
#[derive(Clone)]
struct Words {
    all: Vec<u64>,
    hash: u64,
    undo: Vec<(usize, u64)>,
}

impl Words {
    fn new(megabytes: usize) -> Self {
        let all: Vec<u64> = (0..megabytes as u64 * (1 << 17)).map(mix).collect();
        Self { hash: 0, all, undo: Vec::with_capacity(64) }
    }

    fn set(&mut self, at: usize, word: u64) {
        self.hash ^= mix(self.all[at] ^ at as u64) ^ mix(word ^ at as u64);
        self.all[at] = word;
    }
}

/// Spreads the bits of a word (the finalizer of `MurmurHash3`).
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

impl Service for Words {
    fn name(&self) -> &'static str {
        "words"
    }
    fn begin(&mut self) {
        self.undo.clear();
    }
    fn keep(&mut self) {
        self.undo.clear();
    }
    fn roll_back(&mut self) {
        while let Some((at, word)) = self.undo.pop() {
            self.set(at, word);
        }
    }
    fn apply(
        &mut self,
        _context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        let number = command.first_chunk().map_or(0, |&bytes| u64::from_le_bytes(bytes));
        let at = (mix(number) % self.all.len() as u64) as usize;
        self.undo.push((at, self.all[at]));
        self.set(at, number);
        reply.write(&number.to_le_bytes())
    }
    fn query(&self, _request: &[u8], _reply: &mut Reply<'_>) -> Result<(), Rejection> {
        Ok(())
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        writer.write_all(&self.hash.to_le_bytes())?;
        let mut bytes = Vec::with_capacity(8 * PIECE_WORDS);
        for piece in self.all.chunks(PIECE_WORDS) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|word| word.to_le_bytes()));
            writer.write_all(&bytes)?;
        }
        Ok(())
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        let mut word = [0; 8];
        reader.read_exact(&mut word)?;
        self.hash = u64::from_le_bytes(word);
        let mut bytes = vec![0; 8 * PIECE_WORDS];
        for piece in self.all.chunks_mut(PIECE_WORDS) {
            let bytes = &mut bytes[..8 * piece.len()];
            reader.read_exact(bytes)?;
            for (word, bytes) in piece.iter_mut().zip(bytes.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
        }
        Ok(())
    }
    fn state_hash(&self) -> u64 {
        self.hash
    }
}

/// What the client is watched through. Window 0 is not.
#[derive(Default)]
struct Watch {
    window: AtomicUsize,
    over: AtomicBool,
    windows: Mutex<Vec<Distribution>>,
}

impl Watch {
    fn record(&self, ns: u64) {
        let window = self.window.load(Ordering::Acquire);
        if window > 0 {
            let mut windows = self.windows.lock().unwrap();
            while windows.len() < window {
                windows.push(Distribution::new());
            }
            windows[window - 1].record_ns(ns);
        }
    }
}

/// Sends until the watch is over; from the intended time on each answer is late.
fn send(options: ConnectOptions, rate: u64, watch: &Watch) {
    let mut client = HostClient::new(options).unwrap();
    client.connect(PATIENCE.as_nanos() as u64).unwrap();
    let (start, mut sent) = (client.now(), 0);
    let mut waiting: VecDeque<(ClientSequence, Nanos)> = VecDeque::new();
    while !watch.over.load(Ordering::Acquire) {
        let now = client.now();
        let due = start.plus((u128::from(sent) * 1_000_000_000 / u128::from(rate)) as u64);
        if now >= due {
            match client.client.send(&command(sent, COMMAND_BYTES)) {
                Ok(number) => {
                    waiting.push_back((number, due));
                    sent += 1;
                    client.client.flush(now);
                    continue;
                }
                Err(refusal @ (Refusal::TooLong { .. } | Refusal::Closed)) => panic!("{refusal}"),
                Err(_) => {}
            }
        }
        let wait_ns = due.since(now).clamp(1, 100 * Nanos::MICROSECOND);
        client.turn_within(wait_ns, |answer| {
            let Request::Command(number) = answer.request else { return };
            assert_eq!(answer.outcome, Outcome::Applied);
            let (first, intended) = waiting.pop_front().unwrap();
            assert_eq!(first, number, "answers come in order");
            watch.record(now.since(intended));
        });
    }
    client.close(Nanos::SECOND);
}

fn command(number: u64, bytes: usize) -> Vec<u8> {
    let mut command = vec![0; bytes];
    command[..8].copy_from_slice(&number.to_le_bytes());
    command
}

/// The nodes' processes. Dropping them ends them.
struct Nodes {
    group: Group,
    processes: Vec<Option<Child>>,
    state_megabytes: u64,
}

impl Nodes {
    fn start(&mut self, node: usize) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--node").arg(&self.group.nodes[node].file);
        command.args(["--parent", &std::process::id().to_string()]);
        command.args(["--state-megabytes", &self.state_megabytes.to_string()]);
        self.processes[node] = Some(command.stdin(Stdio::null()).spawn().unwrap());
    }

    fn kill(&mut self, node: usize) {
        let mut process = self.processes[node].take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Node that leads, once there is one and all that run follow it or lead.
    fn leader(&self) -> usize {
        let mut leader = None;
        wait("the group is whole", || {
            let roles: Vec<_> = (0..self.processes.len())
                .filter(|node| self.processes[*node].is_some())
                .map(|node| (node, self.group.status(node).map(|status| status["role"].clone())))
                .collect();
            leader = roles.iter().find(|(_, role)| *role == Some("leader".into())).map(|it| it.0);
            roles.iter().all(|(_, role)| role.is_some() && *role != Some("none".into()))
        });
        leader.unwrap_or_else(|| self.leader())
    }

    /// Has these nodes take a snapshot; returns when all have.
    fn snapshot(&self, nodes: &[usize]) {
        let ask_one = |&node: &usize| -> u64 {
            let socket = &self.group.nodes[node].settings.node.admin_socket;
            let answer: Value = serde_json::from_str(&ask(socket, "snapshot").unwrap()).unwrap();
            answer["request"].as_u64().unwrap()
        };
        let asked: Vec<_> = nodes.iter().map(|node| (*node, ask_one(node))).collect();
        wait("the snapshots are taken", || {
            asked.iter().all(|(node, request)| {
                let status = self.group.status(*node).unwrap_or_default();
                assert!(status["snapshot"]["failure"].is_null(), "{}", status["snapshot"]);
                status["snapshot"]["answered"].as_u64() >= Some(*request)
            })
        });
    }

    /// Makes the log longer by so much.
    fn load(&self, megabytes: u64) {
        let options = ConnectOptions::of(&self.group.nodes[0].settings, "load");
        let mut client = HostClient::new(options).unwrap();
        client.connect(PATIENCE.as_nanos() as u64).unwrap();
        let (all, until) = (megabytes * (1 << 20) / BULK_BYTES as u64, Instant::now() + PATIENCE);
        let (mut sent, mut answered) = (0, 0);
        while answered < all {
            assert!(Instant::now() < until, "the log does not get longer: {answered} of {all}");
            while sent < all && client.client.send(&command(sent, BULK_BYTES)).is_ok() {
                sent += 1;
            }
            let now = client.now();
            client.client.flush(now);
            client.turn_within(100_000, |answer| {
                answered += u64::from(matches!(answer.request, Request::Command(_)));
            });
        }
        client.close(Nanos::SECOND);
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "waited for: {what}");
        thread::sleep(LOOK);
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in 0..self.processes.len() {
            if self.processes[node].is_some() {
                self.kill(node);
            }
        }
    }
}

const KINDS: [&str; 4] = ["calm", "snapshot", "snapshots", "catch-up"];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let values = |name: &str| -> Vec<String> {
        let named = |pair: &&[String]| pair[0] == name;
        arguments.windows(2).filter(named).map(|pair| pair[1].clone()).collect()
    };
    let number = |name: &str, default: u64| {
        values(name).first().map_or(default, |text| text.parse().unwrap())
    };
    let state_megabytes = number("--state-megabytes", 1024);
    if let Some(file) = values("--node").first() {
        return run_node(Path::new(file), state_megabytes, number("--parent", 0));
    }
    let (rate, rounds) = (number("--rate", 1_000), number("--rounds", 3));
    let (seconds, megabytes) = (number("--seconds", 20), number("--megabytes", 1024));
    let set = values("--set");
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let group = Group::found(NODES, "echo", &set);
    let mut nodes = Nodes { group, processes: vec![None, None, None], state_megabytes };
    (0..usize::from(NODES)).for_each(|node| nodes.start(node));
    nodes.leader();
    let (options, watch) =
        (ConnectOptions::of(&nodes.group.nodes[0].settings, "watched"), Watch::default());
    let (mut catch_ups, mut cycles) = (Vec::new(), [Cycles::default(); KINDS.len()]);
    thread::scope(|scope| {
        scope.spawn(|| send(options, rate, &watch));
        for round in 0..rounds as usize {
            catch_ups.push(play(&mut nodes, &watch, round, (seconds, megabytes), &mut cycles));
        }
        watch.over.store(true, Ordering::Release);
    });
    println!(
        "a state of {state_megabytes} MiB, {rate} commands of {COMMAND_BYTES} bytes a second, {rounds} rounds; us from the \
         intended time"
    );
    report(&watch.windows.into_inner().unwrap(), rounds as usize);
    println!(
        "the leader's core: duty cycles in all, over 0.1 ms, over 1 ms; the longest since it started, at the end"
    );
    for (kind, cycles) in KINDS.iter().zip(cycles) {
        let Cycles { all, over_100us, over_1ms, longest_ns } = cycles;
        println!("{kind:>10} {all:>12} {over_100us:>9} {over_1ms:>9} {:>9} us", longest_ns / 1_000);
    }
    println!("catching up: {}", catch_ups.join("; "));
}

/// What the leader's core says of its duty cycles.
#[derive(Clone, Copy, Default)]
struct Cycles {
    all: u64,
    over_100us: u64,
    over_1ms: u64,
    longest_ns: u64,
}

impl Cycles {
    fn of(status: &Value) -> Self {
        let word = |name: &str| status["counters"][name].as_u64().unwrap();
        Self {
            all: word("duty_cycles"),
            over_100us: word("cycles_over_100us"),
            over_1ms: word("cycles_over_1ms"),
            longest_ns: word("longest_cycle_ns"),
        }
    }

    fn add(&mut self, before: Self, after: Self) {
        self.all += after.all - before.all;
        self.over_100us += after.over_100us - before.over_100us;
        self.over_1ms += after.over_1ms - before.over_1ms;
        self.longest_ns = self.longest_ns.max(after.longest_ns);
    }
}

fn play(
    nodes: &mut Nodes,
    watch: &Watch,
    round: usize,
    (seconds, megabytes): (u64, u64),
    cycles: &mut [Cycles; KINDS.len()],
) -> String {
    let leader = nodes.leader();
    let mut window = |nodes: &mut Nodes, kind: usize, during: &dyn Fn(&mut Nodes)| {
        thread::sleep(REST);
        let before = Cycles::of(&nodes.group.status(leader).unwrap());
        watch.window.store(round * KINDS.len() + kind + 1, Ordering::Release);
        during(nodes);
        watch.window.store(0, Ordering::Release);
        cycles[kind].add(before, Cycles::of(&nodes.group.status(leader).unwrap()));
    };
    window(nodes, 0, &|_| thread::sleep(Duration::from_secs(seconds)));
    window(nodes, 1, &|nodes| nodes.snapshot(&[leader]));
    window(nodes, 2, &|nodes| nodes.snapshot(&[0, 1, 2]));
    let follower = (leader + 1) % usize::from(NODES);
    nodes.kill(follower);
    nodes.load(megabytes);
    let before = nodes.group.events_with(follower, "Q-1120");
    nodes.start(follower);
    window(nodes, 3, &|nodes| {
        wait("the follower has caught up", || nodes.group.events_with(follower, "Q-1120") > before);
    });
    nodes.leader();
    let events = nodes.group.events(follower);
    let last = events.lines().rev().find(|line| line.contains("Q-1120")).unwrap();
    let event: Value = serde_json::from_str(last).unwrap();
    event["text"].as_str().unwrap_or_default().to_owned()
}

fn report(windows: &[Distribution], rounds: usize) {
    let of = |kind: usize| -> Vec<&Distribution> {
        (0..rounds).filter_map(|round| windows.get(round * KINDS.len() + kind)).collect()
    };
    print!("{:>10} {:>8}", "", "count");
    for percentile in &PERCENTILES {
        print!(" {:>9}", percentile.key);
    }
    println!(" {:>9}   of calm: p50, p99, p99.9", "max");
    for (kind, name) in KINDS.iter().enumerate() {
        let all = Distribution::merged(&of(kind));
        print!("{name:>10} {:>8}", all.count());
        for percentile in &PERCENTILES {
            print!(" {:>9}", Unit::Microseconds.to_text(all.at_ns(percentile)));
        }
        print!(" {:>9}  ", Unit::Microseconds.to_text(all.max_ns()));
        let of_calm = |percentile: &Percentile| {
            ratio(&of(kind), &of(0), percentile)
                .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
        };
        for percentile in [&PERCENTILES[0], &PERCENTILES[2], &PERCENTILES[3]] {
            print!(" {:>5}", of_calm(percentile));
        }
        println!();
    }
}

/// The process of a node. It ends with the one that started it.
fn run_node(file: &Path, state_megabytes: u64, parent: u64) {
    die_with_parent(parent as u32).unwrap();
    let engine = Engine::node_of(Layers::new().file(file));
    let engine = engine.open(Words::new(state_megabytes as usize)).unwrap();
    while !engine.is_ended() {
        thread::sleep(LOOK);
    }
}

//! A group of real `quorate node` processes on loopback, for one test: founded by `quorate init`, ended and removed with
//! the test, whatever becomes of it.
#![allow(dead_code)] // each test program uses a part of it

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate::client::{Answer, ClientState, Outcome, Refusal, Request};
use quorate::frame::Kind;
use quorate::frame::payload::CommandPrefix;
use quorate::io::hot_tier::MEMORY_DIRECTORY;
use quorate::io::log_reader::{LogReader, ReadOptions};
use quorate::runtime::config::{Layers, Settings, VARIABLE_PREFIX};
use quorate::runtime::{ConnectOptions, HostClient, ask, state_limits};
use quorate::service::{BuiltIn, Service};
use quorate::session::State;
use quorate::types::{ClientSequence, Nanos, Sequence, SessionId};
use serde_json::Value;
use zerocopy::FromBytes;

/// How long anything may take before the test fails: the host may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
const ASK_INTERVAL: Duration = Duration::from_millis(10);

/// Settings of a group whose segments are as small as they may be, so that there are many.
pub(crate) const SMALL: &[&str] = &[
    "group.command_bytes_max=4096",
    "group.window_bytes=65536",
    "group.segment_bytes=131072",
    "transport.client_pool_bytes=8388608",
];

/// Settings of a group that no busy host talks into an election: for tests that tell whether there was one.
pub(crate) const CALM: &[&str] =
    &["timing.leader_timeout_ms=3000", "timing.session_timeout_min_ms=6000"];

/// A folder of one test, gone with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }
    pub(crate) fn below(parent: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("quorate-group-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program, without variables that would change its configuration.
pub(crate) fn quorate() -> Command {
    without_variables(Command::new(env!("CARGO_BIN_EXE_quorate")))
}

/// The same in a network namespace: `ip` becomes it.
pub(crate) fn quorate_on(host: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host, env!("CARGO_BIN_EXE_quorate")]);
    without_variables(command)
}

fn without_variables(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(VARIABLE_PREFIX) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Market data, which is not part of the repository: `QUORATE_DATA`, or `../shared/data`.
pub(crate) fn market_data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("QUORATE_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    let path = folder.join(name);
    path.exists().then_some(path)
}

/// A group of processes wants the machine to itself: its tests run one after the other, but for those that have two groups.
static ALONE: Mutex<()> = Mutex::new(());

thread_local! {
    static GROUPS: Cell<usize> = const { Cell::new(0) };
}

/// This thread's turn.
struct Turn(#[allow(dead_code)] Option<MutexGuard<'static, ()>>);

impl Turn {
    fn take() -> Self {
        let first = GROUPS.replace(GROUPS.get() + 1) == 0;
        Self(first.then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        GROUPS.set(GROUPS.get() - 1);
    }
}

/// The group.
pub(crate) struct Group {
    pub(crate) nodes: Vec<Node>,
    folder: Folder,
    hot: Folder,
    /// Network namespaces in which the nodes run, if they have any.
    hosts: Vec<String>,
    /// Given up last, when its processes have ended.
    _turn: Turn,
}

/// One of its nodes.
pub(crate) struct Node {
    pub(crate) file: PathBuf,
    pub(crate) settings: Settings,
    process: Option<Child>,
}

impl Group {
    /// Writes the configurations, and starts nothing.
    pub(crate) fn found(nodes: u16, service: &str, set: &[&str]) -> Self {
        Self::found_with(nodes, service, set, |init, _| {
            init.args(["--nodes", &nodes.to_string()]);
            Vec::new()
        })
    }

    /// As [`Group::found`]; `tell` says to `quorate init` which nodes there are, and in which namespaces they run.
    pub(crate) fn found_with(
        nodes: u16,
        service: &str,
        set: &[&str],
        tell: impl FnOnce(&mut Command, &Folder) -> Vec<String>,
    ) -> Self {
        let turn = Turn::take();
        let folder = Folder::new();
        let memory = Path::new(MEMORY_DIRECTORY);
        let hot =
            if memory.is_dir() { Folder::below(memory) } else { Folder::below(folder.path()) };
        let mut init = quorate();
        init.args(["init", "--service", service, "--dir"]);
        init.arg(folder.path().join("group"));
        let hosts = tell(&mut init, &folder);
        for pair in set {
            init.args(["--set", pair]);
        }
        let output = init.output().unwrap();
        assert!(output.status.success(), "{}", err(&output));
        let node = |number: u16| {
            let file = folder.path().join(format!("group/node-{number}.toml"));
            let text = fs::read_to_string(&file).unwrap();
            let own = hot.path().join(format!("node-{number}"));
            let own = own.to_str().unwrap();
            let text = text.replacen("[node]\n", &format!("[node]\nhot_dir = {own:?}\n"), 1);
            fs::write(&file, text).unwrap();
            let settings = Layers::new().file(&file).check().unwrap();
            Node { file, settings, process: None }
        };
        let nodes = (0..nodes).map(node).collect();
        Self { nodes, folder, hot, hosts, _turn: turn }
    }

    /// Founds a group and starts it.
    pub(crate) fn start(nodes: u16, service: &str, set: &[&str]) -> Self {
        Self::found(nodes, service, set).start_all()
    }

    /// Starts all its nodes.
    pub(crate) fn start_all(mut self) -> Self {
        for node in 0..self.nodes.len() {
            self.start_node(node);
        }
        self.wait_until("the group is whole", |statuses| {
            statuses.iter().all(|status| status["role"] != "none")
                && statuses.iter().any(|status| status["quorum"] == true)
        });
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
    pub(crate) fn hot(&self, node: usize) -> PathBuf {
        self.hot.path().join(format!("node-{node}"))
    }
    pub(crate) fn data(&self, node: usize) -> &Path {
        &self.nodes[node].settings.node.data_dir
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        self.start_node_with(node, &[]);
    }

    /// Starts a node with some settings changed.
    pub(crate) fn start_node_with(&mut self, node: usize, set: &[&str]) {
        let log = self.folder.path().join(format!("node-{node}.err"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = match self.hosts.get(node) {
            Some(host) => quorate_on(host),
            None => quorate(),
        };
        command.args(["node", "--with-parent", &std::process::id().to_string(), "--config"]);
        command.arg(&self.nodes[node].file);
        for pair in set {
            command.args(["--set", pair]);
        }
        let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let before = self.nodes[node].process.replace(process);
        assert!(before.is_none(), "node {node} runs already");
    }

    /// What the node wrote to stderr, over all its lives.
    pub(crate) fn told(&self, node: usize) -> String {
        fs::read_to_string(self.folder.path().join(format!("node-{node}.err"))).unwrap_or_default()
    }
    fn describe(&self, node: usize) -> String {
        let names = |directory: &Path| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        let (hot, data) = (names(&self.hot(node)), names(self.data(node)));
        format!("{}hot {hot:?}\ndurable {data:?}\n", self.told(node))
    }
    /// Its events, over all its lives.
    pub(crate) fn events(&self, node: usize) -> String {
        fs::read_to_string(self.data(node).join("events.jsonl")).unwrap_or_default()
    }
    pub(crate) fn events_with(&self, node: usize, code: &str) -> usize {
        let code = format!("\"code\":\"{code}\"");
        self.events(node).lines().filter(|line| line.contains(&code)).count()
    }

    /// What a power switch does to a process.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node].process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }
    pub(crate) fn process(&self, node: usize) -> u32 {
        self.nodes[node].process.as_ref().expect("it runs").id()
    }
    pub(crate) fn signal(&self, node: usize, signal: &str) {
        send_signal(self.process(node), signal);
    }
    /// Stops a node in order.
    pub(crate) fn stop(&mut self, node: usize) {
        self.ask_to_stop(node);
        self.wait_stopped(node);
    }
    /// Stops all at once: those left over would elect another leader, who begins with an entry of its own.
    pub(crate) fn stop_all(&mut self) {
        let running: Vec<_> = self.runs().collect();
        for node in &running {
            self.ask_to_stop(*node);
        }
        for node in running {
            self.wait_stopped(node);
        }
    }
    fn ask_to_stop(&self, node: usize) {
        ask(&self.nodes[node].settings.node.admin_socket, "stop").unwrap();
    }
    fn wait_stopped(&mut self, node: usize) {
        let status = self.wait_end(node);
        assert!(status.success(), "node {node}: {status}\n{}", self.told(node));
    }
    /// Waits until a node has ended by itself.
    pub(crate) fn wait_end(&mut self, node: usize) -> ExitStatus {
        let mut process = self.nodes[node].process.take().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                let _ = process.kill();
                let _ = process.wait();
                panic!("node {node} does not end:\n{}", self.told(node));
            }
            std::thread::sleep(ASK_INTERVAL);
        }
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].process.is_some())
    }
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        let answer = ask(&self.nodes[node].settings.node.admin_socket, "status").ok()?;
        serde_json::from_str(&answer).ok()
    }
    pub(crate) fn word(&self, node: usize, name: &str) -> u64 {
        let status = self.status(node).expect("it answers");
        status["words"][name].as_u64().unwrap_or_else(|| panic!("no word {name}"))
    }

    /// Waits until what the running nodes say of themselves is as wanted.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        wanted: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let running: Vec<_> = self.runs().collect();
            let statuses: Vec<_> = running.iter().filter_map(|node| self.status(*node)).collect();
            if statuses.len() == running.len() && wanted(&statuses) {
                return statuses;
            }
            for node in running {
                let ended = self.nodes[node].process.as_mut().unwrap().try_wait().unwrap();
                assert!(ended.is_none(), "node {node}: {ended:?}\n{}", self.told(node));
            }
            assert!(
                Instant::now() < deadline,
                "waiting until {what}: {statuses:#?}\n{}",
                (0..self.nodes.len()).map(|node| self.describe(node)).collect::<String>()
            );
            std::thread::sleep(ASK_INTERVAL);
        }
    }
    /// Waits until all running nodes have applied the same entries.
    pub(crate) fn settle(&mut self) -> Vec<Value> {
        self.wait_until("all have applied the same", applied_the_same)
    }

    /// Waits until no running node is behind: a small group keeps only the last few segments in memory for the slow.
    pub(crate) fn keep_together(&mut self) {
        self.wait_until("nobody is behind", |statuses| {
            let tail = |status: &Value| status["positions"]["tail"].as_u64();
            statuses.iter().all(|status| tail(status) == tail(&statuses[0]))
        });
    }
    /// Sends commands in portions, none of which leaves a slow node behind what is kept in memory.
    pub(crate) fn load(&mut self, caller: &mut Caller, commands: u64, bytes: usize) {
        let portion = (50_000 / bytes as u64).max(1);
        let mut left = commands;
        while left > 0 {
            caller.load(left.min(portion), bytes);
            left -= left.min(portion);
            self.keep_together();
        }
    }

    pub(crate) fn client(&self, name: &str) -> Caller {
        Caller::new(&self.nodes[0].settings, name)
    }
    /// Runs a subcommand on the configuration of a node.
    pub(crate) fn run(&self, node: usize, subcommand: &str, args: &[&str]) -> Output {
        let mut command = quorate();
        command.arg(subcommand).arg("--config").arg(&self.nodes[node].file).args(args);
        command.output().unwrap()
    }

    /// Replays the log of a node that has stopped.
    pub(crate) fn replay(&self, node: usize) -> Replayed {
        replay(&self.nodes[node].settings, |_, _| {})
    }
    /// Replays all logs, which must be the same; returns one.
    pub(crate) fn replay_all(&self) -> Replayed {
        let first = self.replay(0);
        for node in 1..self.nodes.len() {
            let other = self.replay(node);
            let of = |log: &Replayed| (log.frames, log.sequence, log.chain, log.state_hash);
            assert_eq!(of(&first), of(&other), "node {node} differs from node 0");
        }
        first
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

/// Whether nodes that said this of themselves have applied all that any of them has, and it is on their disks.
pub(crate) fn applied_the_same(statuses: &[Value]) -> bool {
    let position = |status: &Value, name: &str| status["positions"][name].as_u64();
    let tail = statuses.iter().filter_map(|status| position(status, "tail")).max();
    statuses.iter().all(|status| {
        status["role"] != "none"
            && position(status, "applied") == tail
            && position(status, "durable") == tail
    })
}

pub(crate) fn send_signal(process: u32, signal: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{signal}"), &process.to_string()]);
    assert!(kill.status().unwrap().success());
}

/// What a log says when it is applied to a service in its first state.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) frames: u64,
    pub(crate) sequence: Sequence,
    pub(crate) chain: u32,
    pub(crate) state_hash: u64,
    /// Which entry applied which command of which session. One that was applied twice ends the test.
    pub(crate) commands: BTreeMap<(SessionId, ClientSequence), Sequence>,
}

impl Replayed {
    /// Every command that was answered with its entry is in the log, there.
    pub(crate) fn assert_holds(&self, caller: &Caller) {
        let session = caller.session();
        for (command, done) in &caller.done {
            if !matches!(done.outcome, Outcome::Applied | Outcome::Rejected { .. }) {
                continue;
            }
            let at = self.commands.get(&(session, *command));
            assert_eq!(at, Some(&done.sequence), "command {command:?} was acknowledged");
        }
    }
}

/// Replays one log; `after` sees the service after each entry that carries a command.
pub(crate) fn replay(settings: &Settings, mut after: impl FnMut(&BuiltIn, Sequence)) -> Replayed {
    let options = ReadOptions { uncommitted: true, ..ReadOptions::default() };
    let directory = &settings.node.data_dir;
    let mut reader = LogReader::open(directory, options).unwrap();
    let service = BuiltIn::new(settings.group.service, settings.group.book);
    let mut state = State::new(service, state_limits(settings));
    let mut log = Replayed {
        frames: 0,
        sequence: Sequence(0),
        chain: 0,
        state_hash: 0,
        commands: BTreeMap::new(),
    };
    loop {
        let found = match reader.next_frame() {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(trouble) if trouble.may_be_end() => break,
            Err(trouble) => panic!("{}: {trouble}", directory.display()),
        };
        log.frames += 1;
        log.chain = found.header.chain().0;
        let kind = found.header.kind().unwrap();
        let sequence = found.header.sequence();
        let expected = if kind == Kind::Padding { log.sequence.0 } else { log.sequence.0 + 1 };
        assert_eq!(sequence.0, expected, "numbering is the log's, without gaps");
        log.sequence = sequence;
        let outcome = state.apply_frame(kind, &found.header, found.payload).outcome;
        if !matches!(kind, Kind::Command | Kind::CommandBatch) {
            continue;
        }
        if matches!(outcome, quorate::session::Outcome::Replied { .. }) {
            let (prefix, _) = CommandPrefix::read_from_prefix(found.payload).unwrap();
            let number = ClientSequence(prefix.client_sequence.get());
            let key = (SessionId(prefix.session.get()), number);
            assert_eq!(log.commands.insert(key, sequence), None, "{key:?} was applied twice");
        }
        after(state.service(), sequence);
    }
    log.state_hash = state.service().state_hash();
    log.state_hash ^= state.state_hash().rotate_left(1);
    log
}

/// What became of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    pub(crate) sequence: Sequence,
    pub(crate) reply: Vec<u8>,
}

/// A client that keeps what became of everything it asked.
pub(crate) struct Caller {
    pub(crate) host: HostClient,
    pub(crate) done: BTreeMap<ClientSequence, Done>,
    session: Option<SessionId>,
}

impl Caller {
    pub(crate) fn new(settings: &Settings, name: &str) -> Self {
        let mut options = ConnectOptions::of(settings, name);
        options.faults = None;
        Self::with(options)
    }
    pub(crate) fn with(options: ConnectOptions) -> Self {
        let mut host = HostClient::new(options).unwrap();
        host.connect(PATIENCE.as_nanos() as u64).unwrap();
        let session = host.client.session();
        Self { host, done: BTreeMap::new(), session }
    }
    /// Its session; the first one, should it have been lost.
    pub(crate) fn session(&self) -> SessionId {
        self.session.unwrap()
    }
    pub(crate) fn turn(&mut self) {
        self.turn_within(2 * Nanos::MILLISECOND);
    }
    pub(crate) fn turn_within(&mut self, wait_ns: u64) {
        let Self { host, done, .. } = self;
        host.turn_within(wait_ns, |answer: Answer<'_>| {
            if let Request::Command(number) = answer.request {
                let reply = answer.reply.to_vec();
                let (outcome, sequence) = (answer.outcome, answer.sequence);
                let before = done.insert(number, Done { outcome, sequence, reply });
                assert_eq!(before, None, "{number:?} was answered twice");
            }
        });
    }
    /// Sends a command, as soon as there is room for it.
    pub(crate) fn send(&mut self, command: &[u8]) -> ClientSequence {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.host.client.send(command) {
                Ok(number) => {
                    self.host.client.flush(self.host.now());
                    return number;
                }
                Err(refusal @ (Refusal::TooLong { .. } | Refusal::Closed)) => {
                    panic!("{refusal:?}")
                }
                Err(refusal) => assert!(Instant::now() < deadline, "{refusal:?}"),
            }
            self.turn();
        }
    }
    /// Sends a command and waits for its answer.
    pub(crate) fn call(&mut self, command: &[u8]) -> Done {
        let number = self.send(command);
        self.wait_for(number);
        self.done[&number].clone()
    }
    fn wait_for(&mut self, number: ClientSequence) {
        let deadline = Instant::now() + PATIENCE;
        while !self.done.contains_key(&number) {
            assert!(Instant::now() < deadline, "no answer to {number:?}: {:?}", self.state());
            self.turn();
        }
    }
    pub(crate) fn state(&self) -> ClientState {
        self.host.client.state()
    }
    /// Waits until everything is answered.
    pub(crate) fn drain(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.host.client.unanswered() > 0 {
            let left = self.host.client.unanswered();
            assert!(Instant::now() < deadline, "{left} unanswered: {:?}", self.state());
            self.turn();
        }
    }
    /// Sends numbered commands of `bytes` bytes.
    pub(crate) fn load(&mut self, commands: u64, bytes: usize) {
        for _ in 0..commands {
            let command = numbered(self.done.len() as u64, bytes);
            self.send(&command);
        }
        self.drain();
    }
    /// All answers so far are those of the echo service.
    pub(crate) fn assert_all_applied(&self) {
        let wrong = self.done.iter().find(|(_, done)| done.outcome != Outcome::Applied);
        assert!(wrong.is_none(), "{wrong:?}");
    }
    pub(crate) fn close(&mut self) {
        self.host.close(5 * Nanos::SECOND);
    }
}

/// Bytes that differ from one number to the next.
pub(crate) fn numbered(number: u64, bytes: usize) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    (0..bytes).map(|at| mixed[at % 8].wrapping_add((at / 8) as u8)).collect()
}

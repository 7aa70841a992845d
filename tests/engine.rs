//! A node inside one's own program: what it keeps, what it says, and what it calls.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate::Engine;
use quorate::client::{Outcome, Refusal};
use quorate::conformance;
use quorate::control::event::Event;
use quorate::io::hot_tier::told_tier;
use quorate::io::log_reader::{LogReader, ReadOptions};
use quorate::runtime::config::{Founding, FoundingMember, Layers, TransportKind};
use quorate::runtime::{Ended, EngineBuilder, EngineError, ExecuteError, HostClient, ask};
use quorate::service::hash::Fingerprint;
use quorate::service::{CloseReason, Context, Rejection, Reply, Role, Service};
use quorate::types::{GroupId, Nanos};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names the folder to a child process that embeds an engine.
const CHILD_VARIABLE: &str = "TEST_ENGINE_CHILD";
/// A command of 0 is rejected with this.
const NOTHING_TO_ADD: u16 = 7;

/// A sum; each command adds to it. Tells a test what was called.
#[derive(Clone, Default, Debug)]
struct Sum {
    total: u64,
    before: u64,
    sessions: u64,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Sum {
    fn tell(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
    fn heard(&self, call: &str) -> bool {
        self.calls.lock().unwrap().iter().any(|known| known.starts_with(call))
    }
}

impl Service for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }
    fn begin(&mut self) {
        self.before = self.total;
    }
    fn keep(&mut self) {}
    fn roll_back(&mut self) {
        self.total = self.before;
    }
    fn apply(
        &mut self,
        _: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        let amount = command.try_into().map(u64::from_le_bytes).map_err(|_| Rejection(1))?;
        // After the change, so that there is something to roll back.
        self.total = self.total.wrapping_add(amount);
        if amount == 0 {
            self.total = u64::MAX;
            return Err(Rejection(NOTHING_TO_ADD));
        }
        reply.write(&self.total.to_le_bytes())
    }
    fn query(&self, _: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        reply.write(&self.total.to_le_bytes())?;
        reply.write(&self.sessions.to_le_bytes())
    }
    fn session_opened(&mut self, context: &Context<'_>) {
        self.sessions += 1;
        self.tell(format!("opened {}", context.session));
    }
    fn session_closed(&mut self, context: &Context<'_>, why: CloseReason) {
        self.sessions = self.sessions.saturating_sub(1);
        self.tell(format!("closed {} {why:?}", context.session));
    }
    fn role_changed(&mut self, role: Role) {
        self.tell(format!("role {role:?}"));
    }
    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        [self.total, self.sessions]
            .iter()
            .try_for_each(|word| writer.write_all(&word.to_le_bytes()))
    }
    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        let mut words = [[0; 8]; 2];
        words.iter_mut().try_for_each(|word| reader.read_exact(word))?;
        [self.total, self.sessions] = words.map(u64::from_le_bytes);
        Ok(())
    }
    fn state_hash(&self) -> u64 {
        Fingerprint::new(1).pair(self.total, self.sessions).finish()
    }
}

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("quorate-engine-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
    /// Small segments: the tests run side by side.
    fn builder(&self) -> EngineBuilder {
        small(Engine::builder(&self.0))
    }
    fn open(&self) -> Engine {
        self.builder().open(Sum::default()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn small(builder: EngineBuilder) -> EngineBuilder {
    builder
        .set("group.command_bytes_max", "64 KiB")
        .set("group.window_bytes", "256 KiB")
        .set("group.segment_bytes", "1 MiB")
}

fn add(engine: &Engine, amount: u64) -> Result<u64, ExecuteError> {
    engine.execute(&amount.to_le_bytes(), PATIENCE).map(|done| word(&done.reply))
}

fn total(engine: &Engine) -> u64 {
    word(&engine.query(b"", PATIENCE).unwrap().reply)
}

fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

/// Waits for something that happens on other threads.
fn wait(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_service_of_these_tests_conforms() {
    let commands: Vec<Vec<u8>> = (0..40_u64).map(|n| (n % 5).to_le_bytes().to_vec()).collect();
    let passed = conformance::service::check(Sum::default, &commands).unwrap();
    assert_eq!((passed.commands, passed.rejected), (40, 8));
}

#[test]
fn an_engine_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Engine>();
}

#[test]
fn what_was_executed_is_there_after_a_stop_and_after_a_drop() {
    let folder = Folder::new("reopen");
    let engine = folder.open();
    let group = engine.settings().group.id;
    let data_dir = engine.settings().node.data_dir.clone();
    assert_eq!(add(&engine, 5).unwrap(), 5);
    assert_eq!(add(&engine, 7).unwrap(), 12);
    let done = engine.execute(&8_u64.to_le_bytes(), PATIENCE).unwrap();
    assert_eq!(word(&done.reply), 20);
    let status = engine.status();
    assert_eq!(status.role, Some(Role::Leader));
    assert!(status.quorum && status.applied_sequence >= done.sequence, "{status:?}");
    assert!(status.applied <= status.tail && status.tail.0 > 0, "{status:?}");
    let tier = told_tier(&data_dir).unwrap();
    assert!(tier.is_dir());
    assert_eq!(engine.stop(), Ended::Orderly);
    assert!(!tier.exists(), "{} is left behind", tier.display());

    // The log of an engine that has stopped is an ordinary log.
    let mut reader = LogReader::open(&data_dir, ReadOptions::default()).unwrap();
    let mut last = 0;
    while let Some(found) = reader.next_frame().unwrap() {
        last = found.header.sequence.get();
    }
    assert!(last >= done.sequence.0, "{last}");

    let engine = folder.open();
    assert_eq!(engine.settings().group.id, group);
    assert_eq!(total(&engine), 20);
    assert_eq!(add(&engine, 1).unwrap(), 21);
    drop(engine);
    assert_eq!(total(&folder.open()), 21);
}

/// The other half of the next test; on its own it does nothing.
#[test]
fn child_that_embeds_an_engine() {
    let Some(path) = std::env::var_os(CHILD_VARIABLE) else { return };
    let engine = small(Engine::builder(Path::new(&path))).open(Sum::default()).unwrap();
    loop {
        let total = add(&engine, 1).unwrap();
        // Whole lines: the parent reads them while they are written.
        io::stdout().write_all(format!("acknowledged {total}\n").as_bytes()).unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_the_kill_of_the_program() {
    let folder = Folder::new("crash");
    let mut acknowledged = 0;
    for life in 1..=2 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_embeds_an_engine", "--exact", "--nocapture"])
            .env(CHILD_VARIABLE, &folder.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed amidst its work; what it wrote until then is read to the end.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut killed = false;
        for line in lines.map_while(Result::ok) {
            // The harness writes to the same place, without ending its line.
            let Some((_, number)) = line.split_once("acknowledged ") else { continue };
            acknowledged = number.parse().unwrap();
            if acknowledged >= 25 * life && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself, after {acknowledged}");
    }
    // As after a power loss: what was in memory is gone, what is on the disk is enough.
    let tier = told_tier(&folder.0.join("node-0")).unwrap();
    assert!(tier.is_dir(), "hot segments outlive the process");
    fs::remove_dir_all(tier).unwrap();
    let engine = folder.open();
    let total = total(&engine);
    // One more may have been under way.
    assert!((acknowledged..=acknowledged + 1).contains(&total), "{total}, not {acknowledged}");
    assert_eq!(engine.stop(), Ended::Orderly);
}

#[test]
fn sessions_and_roles_reach_the_service() {
    let folder = Folder::new("sessions");
    let service = Sum::default();
    let engine = folder.builder().open(service.clone()).unwrap();
    let mut client = engine.client().unwrap();
    assert!(service.heard("role Leader"));
    let session = client.client.session().unwrap();
    assert!(service.heard(&format!("opened {session}")));
    wait("the session is counted", || engine.status().sessions == 1);
    client.close(Nanos::SECOND * 10);
    wait("the session closes", || service.heard(&format!("closed {session} Asked")));
    // The engine's own session ends with the engine.
    add(&engine, 1).unwrap();
    assert_eq!(engine.stop(), Ended::Orderly);
    let calls = service.calls.lock().unwrap().join("\n");
    assert_eq!(calls.matches("opened").count(), 2, "{calls}");
    assert_eq!(calls.matches("Asked").count(), 2, "{calls}");
}

#[test]
fn events_are_told_in_process() {
    let folder = Folder::new("events");
    let engine = folder.open();
    let events = engine.events();
    let mut heard = Vec::new();
    wait("founded and leading", || {
        heard.extend(events.try_recv());
        let founded = heard.iter().any(|event| matches!(event, Event::Founded { .. }));
        founded && heard.iter().any(|event| matches!(event, Event::RoleChange { leads: true, .. }))
    });
    drop(engine);
    let text = fs::read_to_string(folder.0.join("node-0/events.jsonl")).unwrap();
    assert!(
        text.contains("Q-1113") && text.contains("Q-1010") && text.contains("Q-1190"),
        "{text}"
    );
}

#[test]
fn two_engines_do_not_share_a_folder() {
    let folder = Folder::new("shared");
    let engine = folder.open();
    let file = folder.0.join("engine.toml");
    let before = fs::read_to_string(&file).unwrap();
    let error = folder.builder().open(Sum::default()).unwrap_err().to_string();
    let holder = format!("process {}", std::process::id());
    assert!(error.contains(&holder) && error.contains("node-0"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before, "the first one's file is as it was");
    assert_eq!(add(&engine, 1).unwrap(), 1, "and it works on");
    assert_eq!(engine.stop(), Ended::Orderly);
    assert_eq!(total(&folder.open()), 1);
}

#[test]
fn a_batch_that_fails_leaves_no_trace_and_the_code_arrives() {
    let folder = Folder::new("batch");
    let engine = folder.open();
    let [one, two, zero] = [1_u64, 2, 0].map(u64::to_le_bytes);
    engine.execute_batch(&[&one, &two], PATIENCE).unwrap();
    assert_eq!(total(&engine), 3);
    let rejected = engine.execute_batch(&[&one, &two, &zero], PATIENCE).unwrap_err();
    assert!(matches!(rejected, ExecuteError::Rejected { code: NOTHING_TO_ADD, .. }), "{rejected}");
    assert_eq!(total(&engine), 3);
    let rejected = engine.execute(&zero, PATIENCE).unwrap_err();
    assert!(matches!(rejected, ExecuteError::Rejected { code: NOTHING_TO_ADD, .. }), "{rejected}");
    assert_eq!(add(&engine, 4).unwrap(), 7, "a rejection is no end");
    let long = vec![0; 64 * 1024 + 1];
    let refused = engine.execute(&long, PATIENCE).unwrap_err();
    let bytes_max = 64 * 1024;
    let expected = Refusal::TooLong { bytes: bytes_max + 1, bytes_max };
    assert!(matches!(refused, ExecuteError::Refused(found) if found == expected), "{refused}");
}

#[test]
fn a_client_of_ones_own_has_many_in_flight() {
    let folder = Folder::new("client");
    let engine = folder.open();
    let mut client: HostClient = engine.client().unwrap();
    let (mut sent, mut answered) = (0_u64, 0_u64);
    let mut most = 0;
    let deadline = Instant::now() + PATIENCE;
    while answered < 500 {
        assert!(Instant::now() < deadline, "{answered} of {sent} answered");
        while sent < 500 && client.client.send(&1_u64.to_le_bytes()).is_ok() {
            sent += 1;
        }
        most = most.max(client.client.unanswered());
        client.turn(|answer| {
            answered += 1;
            assert_eq!((answer.outcome, word(answer.reply)), (Outcome::Applied, answered));
        });
    }
    assert!(most > 1, "{most}");
    client.close(Nanos::SECOND);
    assert_eq!(total(&engine), 500);
}

#[test]
fn settings_that_are_wrong_are_named_and_nothing_is_founded() {
    let folder = Folder::new("settings");
    let wrong = folder.builder().set("timing.heartbeat", "5").set("sync.batch_bytes_max", "much");
    let error = wrong.open(Sum::default()).unwrap_err();
    assert!(matches!(error, EngineError::Config(_)));
    let error = error.to_string();
    assert!(
        error.contains("timing.heartbeat_ms") && error.contains("set by the program"),
        "{error}"
    );
    assert!(error.contains("sync.batch_bytes_max"), "{error}");
    assert!(!folder.0.join("engine.toml").exists());

    let file = folder.0.join("own.toml");
    fs::write(&file, "[timing]\nheartbeat_ms = 5\nleader_timeout_ms = 100\n").unwrap();
    let engine = folder.builder().config_file(&file).set("timing.leader_timeout_ms", "200");
    let engine = engine.open(Sum::default()).unwrap();
    let timing = &engine.settings().timing;
    assert_eq!(timing.heartbeat_ns, 5 * Nanos::MILLISECOND);
    assert_eq!(timing.leader_timeout_ns, 200 * Nanos::MILLISECOND);
    drop(engine);
    // What holds for the life of the group was written down, the rest was not.
    let engine = Engine::open(&folder.0, Sum::default()).unwrap();
    assert_eq!(engine.settings().group.segment_bytes, 1 << 20);
    assert_eq!(engine.settings().timing.heartbeat_ns, 10 * Nanos::MILLISECOND);
}

#[test]
fn a_port_that_was_taken_in_the_meantime_is_exchanged() {
    let folder = Folder::new("ports");
    let engine = folder.open();
    let own = engine.settings().own().clone();
    add(&engine, 3).unwrap();
    drop(engine);
    let _other = UdpSocket::bind(own.data).unwrap();
    let engine = folder.open();
    assert_ne!(engine.settings().own().data, own.data);
    assert_eq!(total(&engine), 3);
    let file = folder.0.join("engine.toml");
    let told = Layers::new().file(&file).check().unwrap();
    assert_eq!(told.own(), engine.settings().own(), "tools read it there");
}

#[test]
fn a_log_without_its_file_is_not_taken_for_a_new_group() {
    let folder = Folder::new("orphan");
    drop(folder.open());
    let file = folder.0.join("engine.toml");
    fs::remove_file(&file).unwrap();
    let error = folder.builder().open(Sum::default()).unwrap_err();
    assert!(matches!(error, EngineError::Orphan { .. }));
    assert!(error.to_string().contains("engine.toml") && !file.exists(), "{error}");
}

#[test]
fn an_engine_that_was_stopped_from_outside_says_so() {
    let folder = Folder::new("outside");
    let engine = folder.open();
    add(&engine, 1).unwrap();
    let answer = ask(&engine.settings().node.admin_socket, "stop").unwrap();
    assert!(answer.contains("stopping"), "{answer}");
    wait("the node ends", || engine.is_ended());
    let error = engine.execute(&1_u64.to_le_bytes(), Duration::from_millis(300)).unwrap_err();
    // Its session was open when it was sent, or the leader had been missed before.
    assert!(matches!(error, ExecuteError::Unknown | ExecuteError::Refused(_)), "{error}");
    assert_eq!(engine.stop(), Ended::Orderly);
    assert_eq!(total(&folder.open()), 1);
}

#[test]
fn three_engines_are_a_group() {
    let folder = Folder::new("group");
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sockets: Vec<_> = (0..3).map(|_| (bind(), bind())).collect();
    let members = sockets.iter().map(|(data, control)| FoundingMember {
        data: data.local_addr().unwrap(),
        control: control.local_addr().unwrap(),
    });
    let founding = Founding {
        group: GroupId(0x00C0_FFEE),
        transport: TransportKind::Unicast,
        multicast_port: 0,
        members: members.collect(),
        settings: Vec::new(),
    };
    drop(sockets);
    fs::create_dir_all(&folder.0).unwrap();
    let open = |node: usize| {
        let file = folder.0.join(Founding::file_name(node));
        fs::write(&file, founding.file(&folder.0, node).unwrap()).unwrap();
        let hot = folder.0.join(format!("hot-{node}"));
        let builder = Engine::node_of(Layers::new().file(&file));
        let builder = small(builder).set("node.hot_dir", &hot.to_string_lossy());
        builder.open(Sum::default()).unwrap()
    };
    let [leader, second, third] = [0, 1, 2].map(open);
    // Each asks its own node, and ends up with the leader.
    assert_eq!(add(&leader, 1).unwrap(), 1);
    assert_eq!(add(&second, 2).unwrap(), 3);
    assert_eq!(add(&third, 4).unwrap(), 7);
    let applied = |engine: &Engine| engine.status().applied_sequence;
    wait("all have applied it", || {
        [&second, &third].iter().all(|engine| applied(engine) == applied(&leader))
    });
    assert_eq!(second.status().role, Some(Role::Follower));
    assert_eq!(second.status().leader, Some(quorate::types::NodeId(0)));
    assert_eq!(second.status().leadership, leader.status().leadership);
    drop(second);
    assert_eq!(add(&leader, 1).unwrap(), 8, "two of three are a quorum");
    drop(third);
    let error = leader.execute(&1_u64.to_le_bytes(), Duration::from_millis(700)).unwrap_err();
    let fits = matches!(error, ExecuteError::Unknown | ExecuteError::Refused(Refusal::NoQuorum));
    assert!(fits, "one of three is none: {error}");
    let _ = leader.stop();
}

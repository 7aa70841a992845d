//! Commands of every size, and a thousand sessions at once, through three processes.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::process::{Command, Stdio};
use std::time::Instant;

use group::{Group, PATIENCE, numbered};
use quorate::client::{Client, ClientSettings, ClientState, CloseCause, Outcome, Refusal, Request};
use quorate::io::clock::HostClock;
use quorate::io::udp::{UdpNetwork, UdpSettings};
use quorate::limits::COMMAND_BYTES_MAX;
use quorate::runtime::config::Settings;
use quorate::types::{ClientSequence, SessionId};

const SESSIONS: usize = 1000;
const COMMANDS_EACH: u64 = 3;
/// Descriptors that a process of so many clients needs.
const DESCRIPTORS: u64 = 1200;
const CHILD: &str = "QUORATE_TEST_OF_SESSIONS";

#[test]
fn commands_of_every_size_come_back_byte_for_byte_p() {
    let mut group = Group::start(3, "echo", &[]);
    let mut caller = group.client("sizes");
    let mut sizes = vec![0, 1, 31, 32, 33, 1000];
    sizes.extend(1391..=1410); // around what one datagram holds
    sizes.extend([65_535, 65_536, 65_537, COMMAND_BYTES_MAX - 1, COMMAND_BYTES_MAX]);
    for (number, bytes) in sizes.iter().enumerate() {
        let command = numbered(number as u64, *bytes);
        let done = caller.call(&command);
        assert_eq!(done.outcome, Outcome::Applied, "{bytes} bytes");
        assert!(done.reply == command, "{bytes} bytes came back as {}", done.reply.len());
    }
    // All under way together, largest first.
    let sent: Vec<_> = sizes.iter().rev().map(|bytes| (*bytes, numbered(77, *bytes))).collect();
    for (bytes, command) in sent {
        let number = caller.send(&command);
        caller.drain();
        assert!(caller.done[&number].reply == command, "{bytes} bytes");
    }

    let before = group.settle()[0]["positions"]["tail"].clone();
    let refused = caller.host.client.send(&vec![7; COMMAND_BYTES_MAX + 1]);
    let (bytes, bytes_max) = (COMMAND_BYTES_MAX + 1, COMMAND_BYTES_MAX);
    assert_eq!(refused, Err(Refusal::TooLong { bytes, bytes_max }));
    for _ in 0..20 {
        caller.turn();
    }
    assert_eq!(group.settle()[0]["positions"]["tail"], before, "the log did not grow");
    assert_eq!(caller.call(b"the session goes on").outcome, Outcome::Applied);
    caller.close();
    group.settle();
    group.stop_all();
    group.replay_all().assert_holds(&caller);
}

#[test]
fn a_command_that_has_become_too_long_is_refused_by_name_and_never_logged_p() {
    let mut group = Group::start(3, "echo", &["group.command_bytes_max=65536"]);
    let mut caller = group.client("sizes");
    caller.call(b"short");
    for node in 0..3 {
        group.kill(node);
    }
    let number = caller.host.client.send(&vec![1; 20_000]).unwrap();
    for node in 0..3 {
        group.start_node_with(node, &["group.command_bytes_max=10000"]);
    }
    caller.drain();
    assert_eq!(caller.done[&number].outcome, Outcome::TooLong);
    assert_eq!(caller.state(), ClientState::Closed(CloseCause::TooLong));
    group.settle();
    group.stop_all();
    let log = group.replay_all();
    assert_eq!(log.commands.len(), 1, "{:?}", log.commands);
}

/// The limit on open files is often just above a thousand: then this test runs again in a process that has more.
#[test]
fn a_thousand_sessions_at_once_p() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let limits = files.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    let limits: Vec<_> = limits.collect();
    if limits[0] >= DESCRIPTORS {
        return a_thousand_sessions();
    }
    if limits[1] < DESCRIPTORS || std::env::var_os(CHILD).is_some() {
        println!("SKIPPED: {DESCRIPTORS} open files are needed, the host allows {limits:?}");
        return;
    }
    let mut again = Command::new("sh");
    again.args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\"")]);
    again.arg(std::env::current_exe().unwrap());
    again.args(["--exact", "a_thousand_sessions_at_once_p", "--nocapture"]).env(CHILD, "1");
    let output = again.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed") && !text.contains("SKIPPED"), "{text}");
}

struct Member {
    client: Client<UdpNetwork>,
    sent: u64,
    answers: Vec<(ClientSequence, u64)>,
}

impl Member {
    fn new(settings: &Settings, number: usize) -> Self {
        let members: Vec<_> = settings.members.iter().map(|m| (m.id, m.data)).collect();
        let addresses = members.iter().map(|(_, address)| *address).collect();
        let bind = "127.0.0.1:0".parse().unwrap();
        let udp = UdpSettings { socket_buffer_bytes: 65_536, ..UdpSettings::client(members, bind) };
        let seed = 0x5EED_0000 + number as u64;
        let mut of = ClientSettings::new(settings.group.id, addresses, seed);
        of.in_flight_max = 4;
        of.session_timeout_ns = 60_000_000_000;
        let client = Client::new(of, UdpNetwork::open(&udp).unwrap()).unwrap();
        Self { client, sent: 0, answers: Vec::new() }
    }
    fn poll(&mut self, number: usize) -> usize {
        let answers = &mut self.answers;
        self.client.poll(HostClock.now(), |answer| {
            let Request::Command(command) = answer.request else { panic!("nobody asked") };
            assert_eq!(answer.outcome, Outcome::Applied, "session {number}");
            assert_eq!(answer.reply, text(number, command.0).as_bytes());
            answers.push((command, answer.sequence.0));
        })
    }
}

fn text(session: usize, command: u64) -> String {
    format!("session {session} command {command}")
}

fn a_thousand_sessions() {
    let mut group = Group::start(3, "echo", &[]);
    let settings = group.nodes[0].settings.clone();
    let mut members: Vec<_> = (0..SESSIONS).map(|number| Member::new(&settings, number)).collect();
    let turn = |members: &mut Vec<Member>, what: &str, done: &dyn Fn(&Member) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        while !members.iter().all(done) {
            let work: usize =
                members.iter_mut().enumerate().map(|(number, m)| m.poll(number)).sum();
            if work == 0 {
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            if Instant::now() > deadline {
                let left: Vec<_> = members.iter().filter(|member| !done(member)).collect();
                let some: Vec<_> =
                    left.iter().take(3).map(|m| (m.client.state(), *m.client.counters())).collect();
                panic!("{} are not {what}, such as {some:?}", left.len());
            }
        }
    };
    turn(&mut members, "open", &|member| member.client.state() == ClientState::Open);
    group.wait_until("all sessions are open", |statuses| {
        statuses.iter().all(|status| status["words"]["sessions"] == SESSIONS)
    });
    for round in 1..=COMMANDS_EACH {
        for (number, member) in members.iter_mut().enumerate() {
            member.sent = round;
            member.client.send(text(number, round).as_bytes()).unwrap();
        }
        turn(&mut members, "answered", &|member| member.answers.len() as u64 == member.sent);
    }
    let now = HostClock.now();
    let sessions: Vec<SessionId> =
        members.iter().map(|member| member.client.session().unwrap()).collect();
    for member in &mut members {
        member.client.close(now);
    }
    turn(&mut members, "closed", &|member| {
        member.client.state() == ClientState::Closed(CloseCause::Asked)
    });
    group.wait_until("all sessions are closed", |statuses| {
        statuses.iter().all(|status| status["words"]["sessions"] == 0)
    });
    group.settle();
    group.stop_all();
    let log = group.replay_all();
    assert_eq!(log.commands.len() as u64, SESSIONS as u64 * COMMANDS_EACH);
    for (session, member) in sessions.iter().zip(&members) {
        for (command, sequence) in &member.answers {
            assert_eq!(log.commands[&(*session, *command)].0, *sequence);
        }
    }
}

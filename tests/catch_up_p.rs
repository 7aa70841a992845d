//! Nodes that take each other's files: leader sync, and followers that fell behind what their leader holds in memory. Real
//! processes, while connections break, sources die and strangers dial.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/group.rs"]
mod group;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use group::{CALM, Caller, Group, PATIENCE, SMALL, numbered};
use serde_json::Value;

/// Stops everything in order, and compares the logs with each other and with what the client was told.
fn finish(mut group: Group, mut caller: Caller) {
    caller.drain();
    caller.close();
    group.settle();
    group.stop_all();
    caller.assert_all_applied();
    let log = group.replay_all();
    log.assert_holds(&caller);
    assert_eq!(log.commands.len(), caller.done.len());
}

fn tail(group: &Group, node: usize) -> u64 {
    group.status(node).unwrap()["positions"]["tail"].as_u64().unwrap()
}

fn wait(group: &Group, what: &str, mut until: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !until() {
        let told: String = (0..group.nodes.len()).map(|node| group.told(node)).collect();
        assert!(Instant::now() < deadline, "waiting until {what}\n{told}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until a follower has what the leader had at this moment, while commands go on.
fn catch_up(group: &Group, caller: &mut Caller, node: usize, leader: usize) {
    let goal = tail(group, leader);
    wait(group, "it has caught up", || {
        caller.send(&numbered(7, 64));
        caller.turn();
        let Some(status) = group.status(node) else { return false }; // it is just starting
        let tail = status["positions"]["tail"].as_u64().unwrap();
        tail >= goal && status["catch_up"]["behind"] == false
    });
}

#[test]
fn g83_the_log_of_a_node_that_never_leads_is_taken_over_before_anybody_leads_p() {
    for commands in [20, 600] {
        // A few of them are in memory, many are in files alone.
        let set = [SMALL, CALM, &["members.2.priority=0"]].concat();
        let mut group = Group::start(3, "echo", &set);
        let mut caller = group.client("load");
        group.load(&mut caller, 20, 64);
        group.kill(1);
        caller.load(commands, 3000);
        group.keep_together();
        group.kill(0);
        let recent = tail(&group, 2);
        group.start_node(1);
        caller.load(20, 64);
        let statuses = group.wait_until("node 1 leads", |statuses| {
            statuses.iter().all(|status| status["leader"] == 1)
        });
        assert_eq!(statuses.len(), 2);
        assert!(tail(&group, 1) > recent);
        assert!(group.events_with(1, "Q-1118") > 0, "{}", group.told(1));
        let taken = group.status(1).unwrap()["catch_up"]["taken_bytes"].as_u64().unwrap();
        assert!(taken >= commands * 3000, "{taken}");
        group.start_node(0);
        catch_up(&group, &mut caller, 0, 1);
        finish(group, caller);
    }
}

#[test]
fn g104_a_follower_that_fell_behind_catches_up_while_traffic_goes_on_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    group.load(&mut caller, 20, 64);
    for round in 0..3 {
        if round == 1 {
            group.kill(2);
        } else {
            group.signal(2, "STOP");
        }
        caller.load(600, 3000);
        let started = Instant::now();
        if round == 1 {
            group.start_node(2);
        } else {
            group.signal(2, "CONT");
        }
        catch_up(&group, &mut caller, 2, 0);
        println!("round {round}: caught up after {:?}", started.elapsed());
    }
    group.settle();
    for code in ["Q-1102", "Q-1119", "Q-1120"] {
        assert!(group.events_with(2, code) >= 3, "{code}: {}", group.told(2));
    }
    let served = |node| group.status(node).unwrap()["catch_up"]["served_bytes"].as_u64().unwrap();
    assert!(served(1) > served(0), "from the other follower first: {} {}", served(0), served(1));
    for node in 0..3 {
        let status = group.status(node).unwrap();
        assert_eq!((&status["term"], &status["catch_up"]["behind"]), (&1.into(), &false.into()));
        assert_eq!(status["catch_up"]["taking"], Value::Null);
    }
    finish(group, caller);
}

#[test]
fn a7_many_terms_are_taken_in_one_transfer_and_a_blank_node_joins_an_old_group_p() {
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    group.load(&mut caller, 20, 64);
    group.stop(2);
    for to in [1, 0, 1, 0] {
        caller.load(150, 3000);
        group.keep_together();
        let from = usize::from(to != 1);
        let output = group.run(from, "transfer", &["--to", &to.to_string()]);
        assert!(output.status.success(), "{output:?}");
    }
    std::fs::remove_dir_all(group.data(2)).unwrap();
    std::fs::remove_dir_all(group.hot(2)).unwrap();
    group.start_node(2);
    catch_up(&group, &mut caller, 2, 0);
    assert!(group.events_with(2, "Q-1120") >= 1, "{}", group.told(2));
    group.wait_until("it is a voter again", |statuses| {
        statuses.iter().all(|status| status["standing"] == "voter")
    });
    let terms = group.status(0).unwrap()["term"].as_u64().unwrap();
    assert!(terms >= 5, "{terms}");
    let taken = group.status(2).unwrap()["catch_up"]["taken_bytes"].as_u64().unwrap();
    assert!(taken >= 600 * 3000, "{taken}");
    finish(group, caller);
}

/// Carries connections from addresses of its own to others, counts what comes back, and cuts them at some counts.
struct Proxy {
    addresses: Vec<SocketAddr>,
    back: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    fn to(targets: &[SocketAddr], cuts: Vec<u64>) -> Self {
        let (back, ended) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let cuts = Arc::new(Mutex::new(cuts));
        let listen = |target: &SocketAddr| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (address, target) = (listener.local_addr().unwrap(), *target);
            let (back, cuts, ended) = (Arc::clone(&back), Arc::clone(&cuts), Arc::clone(&ended));
            std::thread::spawn(move || {
                for asker in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    Self::join(asker.unwrap(), target, &back, &cuts);
                }
            });
            address
        };
        let addresses = targets.iter().map(listen).collect();
        Self { addresses, back, ended }
    }

    fn join(
        asker: TcpStream,
        target: SocketAddr,
        back: &Arc<AtomicU64>,
        cuts: &Arc<Mutex<Vec<u64>>>,
    ) {
        let Ok(source) = TcpStream::connect(target) else { return };
        let forth = (asker.try_clone().unwrap(), source.try_clone().unwrap());
        let (back, cuts) = (Arc::clone(back), Arc::clone(cuts));
        std::thread::spawn(move || carry(forth.0, forth.1, |_| false));
        std::thread::spawn(move || {
            carry(source, asker, |bytes| {
                let all = back.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
                let mut cuts = cuts.lock().unwrap();
                let due = cuts.first().is_some_and(|cut| all >= *cut);
                due.then(|| cuts.remove(0)).is_some()
            });
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for address in &self.addresses {
            let _ = TcpStream::connect(address);
        }
    }
}

/// Copies until one side ends, or `cut` says so.
fn carry(mut from: TcpStream, mut to: TcpStream, mut cut: impl FnMut(usize) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() || cut(count) {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[test]
fn g104_a_transfer_that_is_broken_off_three_times_takes_little_twice_p() {
    const RANGE: u64 = 8000 * 3000;
    let mut group = Group::start(3, "echo", &[SMALL, CALM].concat());
    let mut caller = group.client("load");
    group.load(&mut caller, 20, 64);
    group.stop(2);
    let before = tail(&group, 0);
    caller.load(RANGE / 3000, 3000);
    let range = tail(&group, 0) - before;
    let targets = [0, 1].map(|node: usize| group.nodes[0].settings.members[node].catch_up);
    let cuts = [3, 6, 9].map(|tenths| range * tenths / 10).to_vec();
    let proxy = Proxy::to(&targets, cuts);
    let [first, second] =
        [0, 1].map(|node| format!("members.{node}.catch_up={}", proxy.addresses[node]));
    group.start_node_with(2, &[&first, &second]);
    wait(&group, "it answers", || group.status(2).is_some());
    group.settle();
    let back = proxy.back.load(Ordering::Relaxed);
    println!("{back} bytes for a range of {range}: {:.3}", back as f64 / range as f64);
    assert!(back >= range / 10 * 9, "{back} of {range}: it came this way");
    assert!(back <= range / 10 * 11, "{back} bytes were sent for {range}");
    finish(group, caller);
}

#[test]
fn a4_when_the_source_dies_another_one_is_asked_p() {
    let slow = ["catch_up.bytes_per_second=1048576"];
    let mut group = Group::start(5, "echo", &[SMALL, CALM, &slow].concat());
    let mut caller = group.client("load");
    group.load(&mut caller, 20, 64);
    group.signal(4, "STOP");
    caller.load(1500, 3000);
    group.signal(4, "CONT");
    let mut dead = Vec::new();
    for _ in 0..2 {
        let mut from = None;
        wait(&group, "it takes from somebody else", || {
            let status = group.status(4).unwrap();
            from = status["catch_up"]["taking"]["from"].as_u64().map(|from| from as usize);
            from.is_some_and(|from| from != 0 && !dead.contains(&from))
        });
        let from = from.unwrap();
        group.kill(from);
        dead.push(from);
    }
    // Two of five are left beside it: it is needed again, as soon as it is back.
    catch_up(&group, &mut caller, 4, 0);
    for node in dead {
        group.start_node(node);
        catch_up(&group, &mut caller, node, 0);
    }
    assert!(group.events_with(4, "Q-1121") >= 1, "{}", group.told(4));
    caller.load(20, 64);
    finish(group, caller);
}

#[test]
fn strangers_garbage_and_half_open_connections_are_refused_and_counted_p() {
    let mut group = Group::start(2, "echo", &[SMALL, CALM].concat());
    let address = group.nodes[0].settings.members[0].catch_up;
    let refused = |group: &Group, why: &str| {
        group.status(0).unwrap()["catch_up"]["refused"][why].as_u64().unwrap()
    };
    let dial = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    let header = |version: u8, length: u32, group: u64| {
        let mut frame = b"Ql".to_vec();
        frame.extend([version, 2]);
        frame.extend(length.to_le_bytes());
        frame.extend(group.to_le_bytes());
        frame.resize(40 + 32, 0);
        frame
    };
    let ended = |mut stream: TcpStream| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut byte = [0];
        assert!(!matches!(stream.read(&mut byte), Ok(1)), "nothing is answered");
    };
    ended(dial(b"GET / HTTP/1.1\r\nHost: somebody\r\n\r\n and so on, longer than a header"));
    ended(dial(&header(9, 32, 1)));
    ended(dial(&header(1, u32::MAX, 1)));
    ended(dial(&header(1, 32, 1)));
    for why in ["garbage", "version", "oversize", "checksum"] {
        assert_eq!(refused(&group, why), 1, "{why}");
    }
    // Somebody from elsewhere, though on this machine.
    let elsewhere =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    elsewhere.bind(&SocketAddr::from(([127, 0, 0, 9], 0)).into()).unwrap();
    elsewhere.connect(&address.into()).unwrap();
    ended(elsewhere.into());
    assert_eq!(refused(&group, "stranger"), 1);
    // Many that say nothing: no more than a few are kept, and those not for long.
    let silent: Vec<_> = (0..100).map(|_| dial(&[])).collect();
    wait(&group, "the others are turned away", || refused(&group, "too_many") >= 60);
    wait(&group, "the silent are told off", || {
        refused(&group, "too_many") + refused(&group, "timed_out") >= 100
    });
    drop(silent);
    group.settle();
    group.stop_all();
}

#[test]
fn r15_members_catch_up() {
    let mut group = Group::found(2, "echo", &[SMALL, CALM].concat());
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = own.local_addr().unwrap();
    drop(own);
    group.start_node_with(0, &[&format!("members.0.catch_up={address}")]);
    group.start_node(1);
    group.settle();
    assert!(TcpListener::bind(address).is_err(), "it listens there");
    assert!(
        TcpListener::bind(group.nodes[0].settings.members[0].control).is_ok(),
        "and only there"
    );
    let default = group.nodes[1].settings.members[1].control;
    assert!(TcpListener::bind(default).is_err(), "the other one beside its control address");
    group.stop_all();
}

#[test]
fn r15_catch_up_bytes_per_second() {
    const RANGE: u64 = 600 * 3000;
    let mut passed = Vec::new();
    for rate in [1 << 20, 1 << 30] {
        let set = format!("catch_up.bytes_per_second={rate}");
        let mut group = Group::start(3, "echo", &[SMALL, CALM, &[&set]].concat());
        let mut caller = group.client("load");
        group.load(&mut caller, 20, 64);
        group.stop(2);
        caller.load(RANGE / 3000, 3000);
        group.start_node(2);
        wait(&group, "it has begun", || group.events_with(2, "Q-1119") > 0);
        let started = Instant::now();
        wait(&group, "it has caught up", || group.events_with(2, "Q-1120") > 0);
        passed.push(started.elapsed());
        group.settle();
        group.stop_all();
    }
    println!("{RANGE} bytes at 1 MiB/s and at 1 GiB/s: {passed:?}");
    // At the slower rate they cannot come sooner, whatever the host does.
    assert!(passed[0] >= Duration::from_millis(1200), "{passed:?}");
    assert!(passed[1] < passed[0], "{passed:?}");
}

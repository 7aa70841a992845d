//! The network beside the bare socket: what a call costs, a round trip, a one-way flood. A few seconds; loopback.
//!
//! Both threads of a pair are pinned, to different CPUs where there are two. Compare rows of one run only. With an argument
//! (`calls`, `trips`, `runs`, `flood`) only that part runs.
#![allow(clippy::unwrap_used)]
#![allow(clippy::similar_names)] // sent, send

use std::hint::{black_box, spin_loop};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use quorate::io::cpu::{allowed_cpus, pin_thread};
use quorate::io::multicast::MulticastSettings;
use quorate::io::udp::{Gso, Transport, UdpNetwork, UdpSettings};
use quorate::stream::datagram::{DatagramHeader, DatagramKind};
use quorate::stream::network::{Destination, Network};
use quorate::types::{GroupId, Leadership, NodeId};

const ROUNDS: usize = 8;
const ROUND_TRIPS: usize = 4_000;
const WARM_UP: usize = 200;
const FLOOD: Duration = Duration::from_millis(400);

fn main() {
    if std::env::args().len() == 1 {
        println!("to measure: cargo bench --bench network [-- calls|trips|runs|flood]");
        return; // run as a test
    }
    let cpus = &*CPUS;
    println!(
        "CPUs {cpus:?}; loopback; header of 64 bytes in each datagram of ours and of the bare socket alike\n"
    );
    let only = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wanted =
        |section: &str| only.as_ref().is_none_or(|only| section.starts_with(only.as_str()));
    if wanted("calls") {
        calls();
    }
    if wanted("trips") {
        trips();
    }
    if wanted("runs") {
        runs();
    }
    if wanted("flood") {
        floods();
    }
}

/// The rows are interleaved in rounds, so that what else the machine does hits all of them alike.
fn trips() {
    println!("\nround trip, us                        p50      p90      p99    p99.9");
    for body in [32, 1024] {
        let mut rows = [const { Vec::new() }; 4];
        let transports = transports();
        for _ in 0..ROUNDS {
            rows[0].extend(bare_round_trips(body, true));
            rows[1].extend(bare_round_trips(body, false));
            rows[2].extend(round_trips(body, &transports[0].1));
            rows[3].extend(round_trips(body, &transports[1].1));
        }
        let names = ["bare, connected", "bare, with addresses", transports[0].0, transports[1].0];
        for (name, row) in names.iter().zip(rows) {
            print_trips(&format!("{name}, {body} B"), row);
        }
    }
}

fn floods() {
    println!(
        "\none way                           datagrams/s   MB/s   lost   datagrams per call out / in"
    );
    for body in [32, 1024, 1344] {
        bare_flood(body);
        flood("plain, one at a time", body, 1, Gso::Off);
        flood("batched in, 16 at a time", body, 16, Gso::Off);
        flood("GSO + GRO, 16 at a time", body, 16, Gso::Auto);
        flood("GSO + GRO, 64 at a time", body, 64, Gso::Auto);
    }
}

fn transports() -> [(&'static str, Transport); 2] {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let group = SocketAddr::new("239.255.79.1".parse().unwrap(), port);
    [
        ("network, unicast", Transport::Unicast),
        ("network, multicast", Transport::Multicast(MulticastSettings::new(group))),
    ]
}

fn pair(change: impl Fn(&mut UdpSettings)) -> [UdpNetwork; 2] {
    let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = |n: usize| sockets[n].local_addr().unwrap();
    let members = vec![(NodeId(0), address(0)), (NodeId(1), address(1))];
    drop(sockets);
    [0, 1].map(|node| {
        let mut settings = UdpSettings::node(NodeId(node), members.clone()).unwrap();
        change(&mut settings);
        UdpNetwork::open(&settings).unwrap()
    })
}

fn bare_pair() -> (UdpSocket, UdpSocket) {
    let [one, two] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    one.connect(two.local_addr().unwrap()).unwrap();
    two.connect(one.local_addr().unwrap()).unwrap();
    one.set_nonblocking(true).unwrap();
    two.set_nonblocking(true).unwrap();
    (one, two)
}

fn header(node: u16) -> DatagramHeader {
    let kind = DatagramKind::Data;
    DatagramHeader::new(kind, GroupId(1), Some(NodeId(node)), Leadership::default())
}

/// The CPUs at the start: a thread inherits those of the one that starts it, which may be pinned by then.
static CPUS: LazyLock<Vec<usize>> = LazyLock::new(allowed_cpus);

fn pin(nth: usize) {
    let cpus = &*CPUS;
    if let Err(refused) = pin_thread(cpus[nth % cpus.len()]) {
        println!("{refused}");
    }
}

/// Nanoseconds per call: the best of five rounds.
fn per_call(times: u32, mut call: impl FnMut()) -> f64 {
    let round = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..times).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / f64::from(times)
    };
    (0..5).map(|_| round(&mut call)).fold(f64::INFINITY, f64::min)
}

fn calls() {
    pin(0);
    let mut buffer = [0; 2048];
    let (one, two) = bare_pair();
    println!("one call, ns");
    println!(
        "  bare recv, nothing there         {:7.0}",
        per_call(20_000, || {
            let _ = black_box(two.recv(&mut buffer));
        })
    );
    println!(
        "  bare send + recv, 96 B           {:7.0}",
        per_call(5_000, || {
            one.send(&buffer[..96]).unwrap();
            two.recv(&mut buffer).unwrap();
        })
    );
    for (name, gso) in [("", Gso::Off), (", GRO on", Gso::Auto)] {
        let [mut one, mut two] = pair(|settings| settings.gso = gso);
        let idle = per_call(20_000, || assert_eq!(two.poll(), 0));
        println!("  poll, nothing there{name:8}      {idle:7.0}");
        let both = per_call(5_000, || {
            one.send(Destination::Members, &header(0), &[], &buffer[..32]);
            assert_eq!(two.poll(), 1);
        });
        println!("  send + poll, 96 B{name:8}        {both:7.0}");
        let burst = per_call(500, || {
            for _ in 0..16 {
                one.send(Destination::Members, &header(0), &[], &buffer[..32]);
            }
            let mut come = 0;
            while come < 16 {
                come += two.poll();
            }
        });
        println!("  the same, 16 and then polls{name:8}   {:5.0} each", burst / 16.0);
    }
    let [_one, mut two] = pair(|settings| settings.transport = transports()[1].1.clone());
    let idle = per_call(20_000, || assert_eq!(two.poll(), 0));
    println!("  poll, nothing there, two sockets {idle:7.0}");
}

#[allow(clippy::cast_sign_loss)] // a place among them
fn print_trips(name: &str, mut trips: Vec<Duration>) {
    trips.sort_unstable();
    let at =
        |share: f64| trips[((trips.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1e3;
    println!("  {name:32} {:7.2}  {:7.2}  {:7.2}  {:7.2}", at(0.5), at(0.9), at(0.99), at(0.999));
}

/// Runs `echo` on another CPU while `trip` is timed here.
fn timed_trips(mut echo: impl FnMut() + Send + 'static, mut trip: impl FnMut()) -> Vec<Duration> {
    static STOP: AtomicBool = AtomicBool::new(false);
    STOP.store(false, Ordering::Relaxed);
    let other = thread::spawn(move || {
        pin(1);
        while !STOP.load(Ordering::Relaxed) {
            echo();
        }
    });
    pin(0);
    let trips = (0..ROUND_TRIPS + WARM_UP).map(|_| {
        let start = Instant::now();
        trip();
        start.elapsed()
    });
    let trips = trips.skip(WARM_UP).collect();
    STOP.store(true, Ordering::Relaxed);
    other.join().unwrap();
    trips
}

fn bare_round_trips(body: usize, connected: bool) -> Vec<Duration> {
    let (one, two) = bare_pair();
    let mut buffer = [0; 2048];
    if connected {
        let echo = move || {
            let mut buffer = [0; 2048];
            if let Ok(length) = two.recv(&mut buffer) {
                two.send(&buffer[..length]).unwrap();
            }
        };
        return timed_trips(echo, || {
            one.send(&buffer[..64 + body]).unwrap();
            while one.recv(&mut buffer).is_err() {}
        });
    }
    let [one, two] = [one, two].map(|socket| {
        let address = socket.local_addr().unwrap();
        drop(socket);
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    let to = two.local_addr().unwrap();
    let echo = move || {
        let mut buffer = [0; 2048];
        if let Ok((length, from)) = two.recv_from(&mut buffer) {
            two.send_to(&buffer[..length], from).unwrap();
        }
    };
    timed_trips(echo, || {
        one.send_to(&buffer[..64 + body], to).unwrap();
        while one.recv_from(&mut buffer).is_err() {}
    })
}

fn round_trips(body: usize, transport: &Transport) -> Vec<Duration> {
    let [mut one, mut two] = pair(|settings| settings.transport = transport.clone());
    let bytes = vec![7; body];
    let answer = bytes.clone();
    let echo = move || {
        if two.poll() > 0 {
            two.send(Destination::Members, &header(1), &[], &answer);
        }
    };
    timed_trips(echo, || {
        one.send(Destination::Members, &header(0), &[], &bytes);
        while one.poll() == 0 {}
    })
}

fn print_flood(
    name: &str,
    body: usize,
    sent: u64,
    received: u64,
    per_call: (f64, f64),
    took: Duration,
) {
    let per_second = received as f64 / took.as_secs_f64();
    println!(
        "  {:30} {:10.0} {:7.0} {:5.1}%   {:.1} / {:.1}",
        format!("{name}, {body} B"),
        per_second,
        per_second * body as f64 / 1e6,
        (sent - received) as f64 / sent as f64 * 100.0,
        per_call.0,
        per_call.1,
    );
}

/// What a datagram costs when one thread sends a run and receives it: no other CPU, no scheduler in it.
fn runs() {
    println!("\nrun of 40, sent and received        ns each    GB/s");
    for body in [32, 1024, 1344] {
        for (name, gso) in [("plain", Gso::Off), ("GSO + GRO", Gso::Auto)] {
            let ([mut one, mut two], prefix) = sized_pair(body, gso);
            let bytes = vec![7; body * RUN];
            let whole = per_call(100, || {
                one.send(Destination::Members, &header(0), &prefix, &bytes);
                let mut come = 0;
                while come < RUN {
                    come += two.poll();
                }
            });
            let each = whole / RUN as f64;
            println!("  {:32} {each:8.0} {:7.2}", format!("{name}, {body} B"), body as f64 / each);
        }
    }
}

const RUN: usize = 40;

/// A pair whose datagrams hold `body` bytes. The setting has a lower end: below it the prefix takes the room that is too much.
fn sized_pair(body: usize, gso: Gso) -> ([UdpNetwork; 2], Vec<u8>) {
    let pair = pair(|settings| {
        settings.gso = gso;
        settings.datagram_bytes = (64 + body).max(256);
    });
    let prefix = vec![0; pair[0].body_bytes(0) - body];
    (pair, prefix)
}

/// Datagrams that the sender may be ahead of the receiver, so that it is the pair that is measured and not the drops.
const AHEAD: u64 = 1024;

/// Sends for a while with `send` (which returns how many), receives with `receive` on another CPU.
fn timed_flood(
    mut send: impl FnMut() -> u64,
    mut receive: impl FnMut() -> u64 + Send + 'static,
) -> (u64, u64, Duration) {
    static RECEIVED: AtomicU64 = AtomicU64::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    RECEIVED.store(0, Ordering::Relaxed);
    STOP.store(false, Ordering::Relaxed);
    let (ready, started) = mpsc::channel();
    let other = thread::spawn(move || {
        pin(1);
        ready.send(()).unwrap();
        let mut total = 0;
        while !STOP.load(Ordering::Relaxed) {
            match receive() {
                0 => spin_loop(),
                n => total += n,
            }
            RECEIVED.store(total, Ordering::Relaxed);
        }
    });
    started.recv().unwrap();
    pin(0);
    let (start, mut sent, mut waited) = (Instant::now(), 0, 0);
    while start.elapsed() < FLOOD {
        // What was lost never comes: waiting ends, and the lost ones count as come.
        let ahead = sent - RECEIVED.load(Ordering::Relaxed) > AHEAD + waited;
        if ahead {
            let end = Instant::now() + Duration::from_millis(5);
            while sent - RECEIVED.load(Ordering::Relaxed) > AHEAD / 2 + waited {
                if Instant::now() > end {
                    waited = sent - RECEIVED.load(Ordering::Relaxed);
                }
                spin_loop();
            }
        }
        sent += send();
    }
    thread::sleep(Duration::from_millis(2));
    let took = start.elapsed();
    STOP.store(true, Ordering::Relaxed);
    other.join().unwrap();
    (sent, RECEIVED.load(Ordering::Relaxed), took)
}

fn bare_flood(body: usize) {
    let (one, two) = bare_pair();
    let buffer = [0; 2048];
    let send = || u64::from(one.send(&buffer[..64 + body]).is_ok());
    let receive = move || {
        let mut buffer = [0; 2048];
        u64::from(two.recv(&mut buffer).is_ok())
    };
    let (sent, received, took) = timed_flood(send, receive);
    print_flood("bare send and recv", body, sent, received, (1.0, 1.0), took);
}

fn flood(name: &str, body: usize, at_a_time: usize, gso: Gso) {
    let ([mut one, mut two], prefix) = sized_pair(body, gso);
    let bytes = vec![7; body * at_a_time];
    let (report, counted) = mpsc::channel();
    let receive = {
        let mut calls = (0_u64, 0_u64);
        move || {
            let got = two.poll() as u64;
            if got > 0 {
                calls = (calls.0 + 1, calls.1 + got);
                let _ = report.send(calls);
            }
            got
        }
    };
    let send = || {
        one.send(Destination::Members, &header(0), &prefix, &bytes);
        at_a_time as u64
    };
    let (sent, received, took) = timed_flood(send, receive);
    let counters = one.counters();
    let out = counters.datagrams_sent as f64 / counters.send_calls as f64;
    let (calls, datagrams) = counted.iter().last().unwrap_or((1, 0));
    print_flood(name, body, sent, received, (out, datagrams as f64 / calls as f64), took);
}

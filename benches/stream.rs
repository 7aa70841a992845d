//! What the stream machine costs: in round trips (virtual time), and in nanoseconds of CPU per datagram, each beside its
//! floor (the same loop with nothing but the callback).
//!
//! `cargo bench --bench stream`

#[path = "../tests/support/stream_world.rs"]
mod stream_world;

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Instant;

use quorate::stream::datagram::{DatagramHeader, DatagramKind, FLAG_LANE, LaneHeader, StatusBody};
use quorate::stream::message::{AnswerHeader, AnswerKind, RequestHeader, RequestKind};
use quorate::stream::network::{Destination, Network};
use quorate::stream::{
    LanesSettings, Medium, NodeLanes, Pace, Receiver, ReceiverOutput, ReceiverSettings, Report,
    Sender, SenderSettings,
};
use quorate::types::{
    ClientSequence, GroupId, Leadership, Nanos, Position, Received, Sequence, SessionId,
};
use stream_world::{Link, Packet, World};
use zerocopy::{FromZeros, IntoBytes};

const ROUND_TRIP_NS: u64 = 100_000;
const DATAGRAM: u64 = 1_344;
/// Rounds of each measurement; the median is printed.
const ROUNDS: usize = 15;

fn main() {
    println!("in round trips, virtual time, {} us each:", ROUND_TRIP_NS / 1_000);
    for (name, receivers, multicast) in [
        ("unicast, 1 receiver", 1, false),
        ("multicast, 2 receivers", 2, true),
        ("multicast, 4 receivers", 4, true),
    ] {
        let (round_trips, naks) = sixty_four_gaps(receivers, multicast);
        println!("  64 gaps repaired, {name:24} {round_trips:6.2} round trips, {naks} NAKs");
    }
    println!("on the CPU, median of {ROUNDS} rounds:");
    report("receiver: datagram in order", in_order(), "loop with the callback alone", floor());
    report("receiver: datagram opens a gap, is asked for and filled", gaps(), "", 0.0);
    report("sender: burst, status, poll (3 receivers)", sender(), "", 0.0);
    report("lanes: command in, answer out, acknowledged", lanes(1), "", 0.0);
    report("lanes: the same, 10,000 sessions open", lanes(10_000), "", 0.0);
}

fn report(name: &str, ns: f64, floor_name: &str, floor_ns: f64) {
    if floor_name.is_empty() {
        println!("  {name:56} {ns:8.1} ns");
    } else {
        println!("  {name:56} {ns:8.1} ns   ({floor_name}: {floor_ns:.1} ns)");
    }
}

/// Median nanoseconds per step of `rounds` runs of `run`, which does `steps` steps.
fn median(steps: u64, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = cpu_ns();
            run();
            (cpu_ns() - start) / steps as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// Nanoseconds this process has spent on a CPU, where the host says so: others that share the machine do not count then.
fn cpu_ns() -> f64 {
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    let elapsed = BEGIN.get_or_init(Instant::now).elapsed().as_nanos() as f64;
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(elapsed)
}

/// Round trips from the first lost datagram to the last repair, the worst of ten; and the NAKs of that time.
fn sixty_four_gaps(receivers: usize, multicast: bool) -> (f64, u64) {
    let sender = SenderSettings { receivers, multicast, ..SenderSettings::default() };
    let medium =
        if multicast { Medium::Multicast { receivers: receivers as u16 } } else { Medium::Unicast };
    let receiver = ReceiverSettings { medium, ..ReceiverSettings::default() };
    let mut world = World::new(sender, receiver, 8 << 20, Link::clean(ROUND_TRIP_NS), 1);
    let (mut tail, mut worst, mut naks) = (0, 0, 0);
    for round in 0..34 {
        let start = tail;
        world.lose = Box::new(move |_, _, packet| {
            matches!(packet, Packet::Data { from, repair: false, .. }
                if (from - start) / DATAGRAM % 2 == 1)
        });
        let (before, written_at) = (world.naks, world.now);
        tail += 129 * DATAGRAM;
        world.write(tail);
        assert!(world.run(written_at + 1_000_000_000, World::complete));
        // The first rounds only measure the round trip.
        if round >= 24 {
            worst = worst.max(world.now - written_at - ROUND_TRIP_NS / 2);
            naks = naks.max(world.naks - before);
        }
        let settle = world.now + 20 * ROUND_TRIP_NS;
        world.run(settle, |_| false);
    }
    world.assert_equal_bytes();
    (worst as f64 / ROUND_TRIP_NS as f64, naks)
}

fn in_order() -> f64 {
    let mut receiver = Receiver::new(ReceiverSettings::default(), Position(0));
    let (mut at, steps) = (Position(0), 1_000_000);
    median(steps, || {
        for step in 0..steps {
            let to = at.plus(DATAGRAM);
            receiver.on_data(Nanos(step), at, to, false, |from, to| {
                black_box((from, to));
            });
            at = to;
        }
    })
}

fn floor() -> f64 {
    let (mut at, steps) = (Position(0), 30_000_000);
    median(steps, || {
        for _ in 0..steps {
            let to = at.plus(DATAGRAM);
            black_box((at, to));
            at = to;
        }
    })
}

/// 64 gaps at a time: open them all, ask, fill them all. Per datagram, of which there are two for each gap.
fn gaps() -> f64 {
    let mut receiver = Receiver::new(ReceiverSettings::default(), Position(0));
    let (mut base, mut now) = (Position(0), Nanos(1_000_000));
    let rounds = 2_000;
    median(rounds * 128, || {
        for _ in 0..rounds {
            for gap in 0..64 {
                let from = base.plus((2 * gap + 1) * DATAGRAM);
                receiver.on_data(now, from, from.plus(DATAGRAM), false, |_, _| {});
            }
            let Some(ReceiverOutput::Nak(ranges)) = receiver.poll(now) else {
                panic!("64 gaps, one NAK")
            };
            assert_eq!(ranges.len(), 64);
            now = now.plus(ROUND_TRIP_NS);
            for gap in 0..64 {
                let from = base.plus(2 * gap * DATAGRAM);
                receiver.on_data(now, from, from.plus(DATAGRAM), true, |_, _| {});
            }
            base = base.plus(128 * DATAGRAM);
        }
    })
}

/// One datagram's worth of bytes out, three statuses in.
fn sender() -> f64 {
    let settings =
        SenderSettings { receivers: 3, pace: Pace::Fastest(2), ..SenderSettings::default() };
    let mut sender = Sender::new(settings, Position(0));
    let (mut tail, mut now, steps) = (Position(0), Nanos(1_000_000), 200_000);
    median(steps, || {
        for _ in 0..steps {
            tail = tail.plus(DATAGRAM);
            now = now.plus(1_000);
            sender.set_tail(tail);
            while let Some(transmit) = sender.poll(now) {
                black_box(transmit);
            }
            for receiver in 0..3 {
                let report = Report {
                    window_end: tail.plus(1 << 22),
                    echo: Nanos(now.0 - 900),
                    ..Report::received(Received(tail))
                };
                sender.on_status(now, receiver, &report);
            }
        }
    })
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl Network for Nowhere {
    fn poll(&mut self) -> usize {
        0
    }
    fn datagram(&self, _index: usize) -> (SocketAddr, &[u8]) {
        unreachable!("nothing comes")
    }
    fn send(&mut self, to: Destination, header: &DatagramHeader, prefix: &[u8], bytes: &[u8]) {
        black_box((to, header, prefix, bytes));
    }
    fn body_bytes(&self, prefix: usize) -> usize {
        1_408 - size_of::<DatagramHeader>() - prefix
    }
}

/// Commands of 32 bytes, the sessions in turn; per command.
fn lanes(sessions: u64) -> f64 {
    let settings = LanesSettings { lanes: sessions as usize, ..LanesSettings::default() };
    let mut lanes = NodeLanes::new(&settings);
    let group = GroupId(1);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    for session in 1..=sessions {
        lanes.open(Nanos(1), SessionId(session), 1, peer).expect("room");
    }
    let template = DatagramHeader::new(DatagramKind::Data, group, None, Leadership::default());
    let mut header = template;
    header.flags = FLAG_LANE;
    let request = RequestHeader {
        length: 56.into(),
        ..RequestHeader::new(RequestKind::Command, ClientSequence(1), ClientSequence(0))
    };
    let answer = AnswerHeader::new(AnswerKind::Applied, ClientSequence(1), Sequence(1));
    let (mut at, mut now, steps) = (0, Nanos(1_000), sessions.max(100_000));
    let mut acknowledgement = [0_u8; size_of::<LaneHeader>() + size_of::<StatusBody>()];
    let mut body = [0_u8; size_of::<LaneHeader>() + 56];
    body[16..40].copy_from_slice(request.as_bytes());
    median(steps, || {
        for step in 0..steps {
            let (session, round) = (1 + step % sessions, step / sessions);
            let lane = LaneHeader { session: session.into(), epoch: 1.into() };
            body[..16].copy_from_slice(lane.as_bytes());
            now = now.plus(1_000);
            header.stamp = now.0.into();
            header.position = (56 * (at + round)).into();
            header.commit = (56 * (at + round)).into();
            lanes.on_datagram(now, peer, &header, DatagramKind::Data, &body).expect("in order");
            while let Some(lane) = lanes.next_ready() {
                let message = lanes.message(lane).expect("good").expect("whole");
                black_box(message.payload.contiguous());
                lanes.consume(now, lane);
                lanes.answer(lane, answer, &[&[7; 32]]).expect("room");
            }
            lanes.transmit(now, &mut Nowhere, &template, 64);
            // The client has its answer, and says so.
            let received = 56 * (at + round + 1);
            let status = StatusBody {
                received: received.into(),
                window_end: (received + 65_536).into(),
                echo: now.0.into(),
                ..StatusBody::new_zeroed()
            };
            header.commit = received.into();
            acknowledgement[..16].copy_from_slice(lane.as_bytes());
            acknowledgement[16..].copy_from_slice(status.as_bytes());
            now = now.plus(1_000);
            let kind = DatagramKind::Status;
            lanes.on_datagram(now, peer, &header, kind, &acknowledgement).expect("a status");
            lanes.transmit(now, &mut Nowhere, &template, 64);
        }
        at += steps / sessions;
    })
}

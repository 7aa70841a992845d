//! What a command of the order book costs, in nanoseconds, next to a floor that any book by order id has to pay: putting the
//! id into a hash map of the same size and taking one out.
//!
//! Each figure is the median and the best of rounds of many commands; a round starts from a book with resting orders.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use quorate::frame::payload::{CommandPrefix, SessionOpen};
use quorate::frame::{FrameHeader, Kind};
use quorate::service::book::command::{Cancel, Delete, FLAG_CANCEL_ON_CLOSE, New, Replace};
use quorate::service::book::{Book, BookLimits, Side};
use quorate::service::generator::Generator;
use quorate::service::{CloseReason, Context, Reply, Service};
use quorate::session::{Outcome, State, StateLimits};
use quorate::types::{ClientSequence, Sequence, SessionId, Term, Timestamp};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

// Short rounds, many of them: a round that the host interrupts is no longer the median.
const ROUNDS: usize = 301;
const COMMANDS: u64 = 2_000;

/// An id far from its neighbours', as ids of many clients are.
fn id(n: u64) -> u64 {
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1) | 1
}

fn price(n: u64) -> u64 {
    5_000_000 - 100 * (n % 97)
}

fn run(book: &mut Book, commands: &[Vec<u8>], buffer: &mut [u8]) {
    for (n, command) in commands.iter().enumerate() {
        let context = Context::alone(
            Sequence(n as u64),
            Timestamp(0),
            SessionId(1),
            ClientSequence(n as u64),
        );
        book.begin();
        let result = book.apply(&context, command, &mut Reply::new(buffer));
        assert!(black_box(result).is_ok());
        book.keep();
    }
}

fn bytes(commands: impl Iterator<Item = impl IntoBytes + zerocopy::Immutable>) -> Vec<Vec<u8>> {
    commands.map(|command| command.as_bytes().to_vec()).collect()
}

/// Runs rounds and prints what one of `count` steps takes.
fn report(name: &str, count: u64, mut round: impl FnMut() -> u128) -> f64 {
    let mut each: Vec<f64> = (0..ROUNDS).map(|_| round() as f64 / count as f64).collect();
    each.sort_by(f64::total_cmp);
    println!("{name:<28} {:>8.1} ns median {:>8.1} ns best", each[ROUNDS / 2], each[0]);
    each[ROUNDS / 2]
}

fn timed(work: impl FnOnce()) -> u128 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos()
}

fn main() {
    let mut buffer = vec![0; 1 << 20];
    let mut book = Book::new(BookLimits::default());
    let resting = bytes((0..COMMANDS).map(|n| New::order(Side::Buy, 100, price(n), id(n), 0)));
    let deleting = bytes((0..COMMANDS).map(|n| Delete::new(id((n * 7919) % COMMANDS))));
    let cutting = bytes((0..COMMANDS).map(|n| Cancel::new(id((n * 7919) % COMMANDS), 1)));
    let moving =
        bytes((0..COMMANDS).map(|n| Replace::new(id((n * 7919) % COMMANDS), 100, price(n + 1))));
    let meeting = bytes((0..COMMANDS).map(|n| New::order(Side::Sell, 100, 1, id(COMMANDS + n), 0)));

    let floor = report("floor: hash map in and out", 2 * COMMANDS, || {
        let mut map = HashMap::with_capacity(2 * BookLimits::default().orders_max);
        timed(|| {
            for n in 0..COMMANDS {
                map.insert(black_box(id(n)), n);
            }
            for n in 0..COMMANDS {
                black_box(map.remove(&id((n * 7919) % COMMANDS)));
            }
        })
    });
    let new = report("new, comes to rest", COMMANDS, || {
        let spent = timed(|| run(&mut book, &resting, &mut buffer));
        run(&mut book, &deleting, &mut buffer);
        spent
    });
    let delete = report("delete, anywhere", COMMANDS, || {
        run(&mut book, &resting, &mut buffer);
        timed(|| run(&mut book, &deleting, &mut buffer))
    });
    println!("{:<28} {:>8.1} x the floor", "new and delete", (new + delete) / (2.0 * floor));
    report("cancel a part", COMMANDS, || {
        run(&mut book, &resting, &mut buffer);
        let spent = timed(|| run(&mut book, &cutting, &mut buffer));
        run(&mut book, &deleting, &mut buffer);
        spent
    });
    report("replace, another price", COMMANDS, || {
        run(&mut book, &resting, &mut buffer);
        let spent = timed(|| run(&mut book, &moving, &mut buffer));
        run(&mut book, &deleting, &mut buffer);
        spent
    });
    report("new, matches one order", COMMANDS, || {
        run(&mut book, &resting, &mut buffer);
        timed(|| run(&mut book, &meeting, &mut buffer))
    });
    assert_eq!(book.order_count(), 0);
    closing(&mut buffer);
    flow(&mut buffer);
}

/// A session ends that has as many orders as one may have, each at a level of its own, the farthest first: the longest
/// single step of the book.
fn closing(buffer: &mut [u8]) {
    let limits = BookLimits::default();
    let orders = limits.session_orders_max.min(limits.levels_max) as u64;
    let order = |n| New::order(Side::Buy, 1, 1 + n, 1 + n, FLAG_CANCEL_ON_CLOSE);
    let placing = bytes((0..orders).rev().map(order));
    let mut book = Book::new(limits);
    let context = Context::alone(Sequence(1), Timestamp(0), SessionId(1), ClientSequence(1));
    let each = report("close, one order of many", orders, || {
        run(&mut book, &placing, buffer);
        timed(|| book.session_closed(&context, CloseReason::Silent))
    });
    println!("{:<28} {:>8.1} us", "close, all of them", each * orders as f64 / 1e3);
    assert_eq!(book.order_count(), 0);
}

/// The generator's flow: by the book alone, and as entries of a log, with session, kept reply and state hash.
fn flow(buffer: &mut [u8]) {
    let mut generator = Generator::new(1);
    let commands: Vec<Vec<u8>> = (0..COMMANDS).map(|_| generator.command().to_vec()).collect();
    let mut book = Book::new(BookLimits::default());
    let mut first = Vec::new();
    book.snapshot(&mut first).expect("memory takes it");
    report("flow, the book alone", COMMANDS, || {
        book.restore(&mut &first[..]).expect("its own snapshot");
        timed(|| run(&mut book, &commands, buffer))
    });
    let mut state = State::new(book, StateLimits::default());
    first.clear();
    state.snapshot(&mut first).expect("memory takes it");
    report("flow, as entries of a log", COMMANDS, || {
        state.restore(&mut &first[..]).expect("its own snapshot");
        let entry = |state: &mut State<Book>, kind, payload: &[u8]| {
            let (sequence, length) = (state.sequence().next(), 32 + payload.len() as u32);
            let header = FrameHeader::new(length, kind, Term(1), sequence, Timestamp(sequence.0));
            state.apply_frame(kind, &header, payload).outcome
        };
        let open = SessionOpen { nonce: U64::new(1), timeout: U64::new(u64::MAX) };
        entry(&mut state, Kind::SessionOpen, open.as_bytes());
        let payloads: Vec<Vec<u8>> = (1..)
            .zip(&commands)
            .map(|(n, command): (u64, _)| {
                let prefix = CommandPrefix {
                    session: U64::new(1),
                    client_sequence: U64::new(n),
                    received_through: U64::new(n.saturating_sub(8)),
                };
                [prefix.as_bytes(), command].concat()
            })
            .collect();
        timed(|| {
            for payload in &payloads {
                let outcome = entry(&mut state, Kind::Command, payload);
                assert!(matches!(outcome, Outcome::Replied { .. }));
            }
            black_box(state.state_hash());
        })
    });
}

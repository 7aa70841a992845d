//! After construction, applying entries allocates nothing: the core must not wait for an allocator.

#![allow(unsafe_code)] // a global allocator cannot be written without

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use quorate::frame::payload::{CommandPrefix, SessionClose, SessionOpen};
use quorate::frame::{FrameHeader, Kind};
use quorate::service::book::BookLimits;
use quorate::service::generator::Generator;
use quorate::service::{BuiltIn, Reply, ServiceKind};
use quorate::session::{Answer, Outcome, SessionLimits, State, StateLimits};
use quorate::types::{ClientSequence, SessionId, Term, Timestamp};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // At the end of a thread its counter may be gone already; nothing is measured then.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`; the pointer came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

struct Node {
    state: State<BuiltIn>,
    payload: Vec<u8>,
}

impl Node {
    fn new(kind: ServiceKind) -> Self {
        let book = BookLimits {
            orders_max: 8192,
            levels_max: 4096,
            changes_max: 8192,
            session_orders_max: 8192,
        };
        let sessions = SessionLimits {
            sessions_max: 64,
            in_flight_max: 16,
            reply_bytes_total: 1 << 16,
            session_reply_bytes: 1 << 15,
        };
        let limits = StateLimits { sessions, reply_bytes_max: 1 << 17 };
        let state = State::new(BuiltIn::new(kind, book), limits);
        Self { state, payload: Vec::with_capacity(1 << 20) }
    }
    fn entry(&mut self, kind: Kind) -> Outcome {
        let sequence = self.state.sequence().next();
        let length = 32 + self.payload.len() as u32;
        let header = FrameHeader::new(length, kind, Term(1), sequence, Timestamp(sequence.0));
        self.state.apply_frame(kind, &header, &self.payload).outcome
    }
    fn open(&mut self, nonce: u64) -> SessionId {
        self.payload.clear();
        let open = SessionOpen { nonce: U64::new(nonce), timeout: U64::new(1000) };
        self.payload.extend_from_slice(open.as_bytes());
        match self.entry(Kind::SessionOpen) {
            Outcome::SessionOpened { id, .. } => id,
            other => panic!("not opened: {other:?}"),
        }
    }
    fn close(&mut self, session: SessionId) {
        self.payload.clear();
        let close = SessionClose { session: U64::new(session.0), reason: 2, reserved: [0; 7] };
        self.payload.extend_from_slice(close.as_bytes());
        self.entry(Kind::SessionClose);
    }
    fn send(&mut self, kind: Kind, session: SessionId, n: u64, command: &[u8]) -> Outcome {
        self.payload.clear();
        let prefix = CommandPrefix {
            session: U64::new(session.0),
            client_sequence: U64::new(n),
            received_through: U64::new(n.saturating_sub(3)),
        };
        self.payload.extend_from_slice(prefix.as_bytes());
        self.payload.extend_from_slice(command);
        self.entry(kind)
    }
}

fn batch_of(commands: &[&[u8]]) -> Vec<u8> {
    let one = |command: &&[u8]| [&(command.len() as u32).to_le_bytes(), *command].concat();
    commands.iter().flat_map(one).collect()
}

#[test]
fn applying_allocates_nothing() {
    for kind in ServiceKind::ALL {
        let mut node = Node::new(kind);
        let mut generator = Generator::new(3);
        let first = node.open(1);
        let failing = batch_of(&[&[3; 100], &[0; 7], &[9; 9]]);
        let mut reply = vec![0; 1 << 16];
        let large = vec![200; 40_000];
        let (mut applied, mut rejected) = (0, 0);
        let before = allocations();
        for n in 1..=20_000u64 {
            let command = generator.command();
            match node.send(Kind::Command, first, n, command) {
                Outcome::Replied { answer: Answer::Applied, .. } => applied += 1,
                Outcome::Replied { .. } => rejected += 1,
                other => panic!("not answered: {other:?}"),
            }
            let kept = node.state.sessions().reply(first, ClientSequence(n)).expect("kept");
            assert!(kept.copy_to(&mut reply).is_some());
            if n % 50 == 0 {
                node.send(Kind::Command, first, n, &[]);
                node.send(Kind::Command, first, n + 7, &[]);
                let other = node.open(n);
                node.send(Kind::CommandBatch, other, 1, &failing);
                node.send(Kind::Command, other, 2, &large);
                node.state.query(&[], &mut Reply::new(&mut reply)).ok();
                node.state.sessions_mut().touch(other, Timestamp(n));
                node.state.sessions_mut().expired(Timestamp(n), Timestamp(0));
                node.close(other);
            }
            if n % 256 == 0 {
                assert_ne!(node.state.state_hash(), 0);
            }
        }
        assert_eq!(allocations() - before, 0, "{kind}: allocations while applying");
        assert_eq!((applied, rejected), (20_000, 0), "{kind}");
    }
    let before = allocations();
    drop(std::hint::black_box(vec![0u8; 10]));
    assert_eq!(allocations() - before, 1, "the counter counts");
}

//! R12: rolling back leaves no trace in every mode, inside a batch too; for every built-in service, by itself and under the
//! engine's own state.

use proptest::prelude::*;
use quorate::conformance;
use quorate::frame::payload::{CommandPrefix, SessionOpen};
use quorate::frame::{FrameHeader, Kind};
use quorate::service::book::BookLimits;
use quorate::service::generator::Generator;
use quorate::service::{BuiltIn, Rejection, Service, ServiceKind};
use quorate::session::{Answer, Outcome, SessionLimits, State, StateLimits};
use quorate::types::{SessionId, Term, Timestamp};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

const BOOK: BookLimits =
    BookLimits { orders_max: 300, levels_max: 64, changes_max: 100, session_orders_max: 200 };

/// Commands that the book takes, and between them some that it rejects before, amidst and after changing something.
fn mixed_flow(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(seed);
    let wrong = [
        "new buy 100000 @ 999999.9998 id 900000001",
        "new sell 1 @ 0.0001 id 900000002 post-only",
        "delete id 900000003",
        "34200,4,900000004,1,5853300,1",
        "seed 9999999998,5,1,5,9999999998,6,2,6",
    ];
    let mut commands = Vec::new();
    while commands.len() < count {
        let mut command = Vec::new();
        if commands.len() % 5 == 3 {
            let line = wrong[commands.len() / 5 % wrong.len()];
            ServiceKind::Book.encode(1, line.as_bytes(), &mut command).expect(line);
        } else if commands.len() % 11 == 5 {
            command.extend_from_slice(&[0xEE; 9]);
        } else {
            command.extend_from_slice(generator.command());
        }
        commands.push(command);
    }
    commands
}

#[test]
fn r12_the_built_in_services_conform() {
    let commands = mixed_flow(11, 600);
    for kind in ServiceKind::ALL {
        let passed = conformance::service::check(|| BuiltIn::new(kind, BOOK), &commands)
            .unwrap_or_else(|failure| panic!("{kind}: {failure}"));
        assert_eq!(passed.commands, 600);
        assert!(passed.batches == 150 && passed.snapshot_bytes > 0);
        let (few, many) = if kind == ServiceKind::Book { (100, 450) } else { (0, 0) };
        assert!((few..=many).contains(&passed.rejected), "{kind}: {passed:?}");
    }
}

/// A node's state under a log.
struct Node {
    state: State<BuiltIn>,
    session: SessionId,
    sent: u64,
}

impl Node {
    fn new(kind: ServiceKind, reply_bytes: usize) -> Self {
        let sessions = SessionLimits {
            sessions_max: 2,
            in_flight_max: 8,
            reply_bytes_total: reply_bytes,
            session_reply_bytes: reply_bytes,
        };
        let limits = StateLimits { sessions, reply_bytes_max: 1 << 12 };
        let state = State::new(BuiltIn::new(kind, BOOK), limits);
        let mut node = Self { state, session: SessionId(0), sent: 0 };
        let open = SessionOpen { nonce: U64::new(1), timeout: U64::new(u64::MAX) };
        match node.entry(Kind::SessionOpen, open.as_bytes()) {
            Outcome::SessionOpened { id, .. } => node.session = id,
            other => panic!("no session: {other:?}"),
        }
        node
    }
    fn entry(&mut self, kind: Kind, payload: &[u8]) -> Outcome {
        let sequence = self.state.sequence().next();
        let length = 32 + payload.len() as u32;
        let header = FrameHeader::new(length, kind, Term(1), sequence, Timestamp(0));
        self.state.apply_frame(kind, &header, payload).outcome
    }
    fn send(&mut self, kind: Kind, bytes: &[u8], keeps: u64) -> Answer {
        self.sent += 1;
        let prefix = CommandPrefix {
            session: U64::new(self.session.0),
            client_sequence: U64::new(self.sent),
            received_through: U64::new((self.sent - 1).saturating_sub(keeps)),
        };
        match self.entry(kind, &[prefix.as_bytes(), bytes].concat()) {
            Outcome::Replied { answer, .. } => answer,
            other => panic!("no answer: {other:?}"),
        }
    }
    fn service(&self) -> (u64, Vec<u8>) {
        let mut bytes = Vec::new();
        self.state.service().snapshot(&mut bytes).expect("memory takes it");
        (self.state.service().state_hash(), bytes)
    }
}

fn batch_of(commands: &[Vec<u8>]) -> Vec<u8> {
    let one = |command: &Vec<u8>| [&(command.len() as u32).to_le_bytes()[..], command].concat();
    commands.iter().flat_map(one).collect()
}

/// A batch that fails at its k-th command, for every k, and one whose lengths lie: each is as if it had never been.
#[test]
fn r12_a_batch_that_fails_at_any_place_leaves_no_trace() {
    let commands = mixed_flow(5, 60);
    let good: Vec<Vec<u8>> = {
        let mut generator = Generator::new(5);
        (0..48).map(|_| generator.command().to_vec()).collect()
    };
    let bad = commands.iter().find(|command| command.starts_with(&[0xEE])).expect("there is one");
    let mut node = Node::new(ServiceKind::Book, 1 << 14);
    let mut twin = Node::new(ServiceKind::Book, 1 << 14);
    for (index, chunk) in good.chunks(6).enumerate() {
        let before = node.service();
        for place in 0..=chunk.len() {
            let mut failing = chunk.to_vec();
            failing.insert(place, bad.clone());
            let answer = node.send(Kind::CommandBatch, &batch_of(&failing), 0);
            assert_eq!(answer, Answer::Rejected(Rejection(1)));
            assert_eq!(node.service(), before, "chunk {index}, place {place}");
        }
        let mut torn = batch_of(chunk);
        torn.pop();
        let answer = node.send(Kind::CommandBatch, &torn, 0);
        assert_eq!(answer, Answer::Rejected(Rejection::MALFORMED_BATCH));
        assert_eq!(node.service(), before);
        // The same batch without the bad command takes effect as its commands do one by one.
        assert_eq!(node.send(Kind::CommandBatch, &batch_of(chunk), 0), Answer::Applied);
        for command in chunk {
            assert_eq!(twin.send(Kind::Command, command, 0), Answer::Applied);
        }
        assert_eq!(node.service(), twin.service());
    }
}

/// The engine rolls back too: a command that the service applied, and whose reply cannot be kept.
#[test]
fn r12_a_command_without_room_for_its_reply_leaves_no_trace() {
    for kind in ServiceKind::ALL {
        let mut node = Node::new(kind, 4 * 64);
        let mut generator = Generator::new(2);
        let (mut refused, mut unseen) = (0, 0);
        for _ in 0..200 {
            let command = generator.command().to_vec();
            let before = node.service();
            match node.send(Kind::Command, &command, 6) {
                Answer::Applied => {}
                Answer::Rejected(why) => {
                    refused += u32::from(why == Rejection::REPLY_SPACE);
                    unseen += u32::from(why != Rejection::REPLY_SPACE);
                    assert_eq!(node.service(), before, "{kind}: {why:?}");
                }
            }
        }
        assert!(refused > 20, "{kind}: {refused}");
        // Of the orders that were refused the book knows nothing: later commands about them are rejected.
        assert!((kind == ServiceKind::Book) == (unseen > 0), "{kind}: {unseen}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the stream and wherever it is cut into batches: a snapshot gives the same state, which goes on alike.
    #[test]
    fn r12_streams_cut_anywhere_survive_a_snapshot(
        seed: u64, cuts in prop::collection::vec(1usize..9, 10..40), at in 0usize..10,
    ) {
        let commands = mixed_flow(seed, cuts.iter().sum());
        let mut node = Node::new(ServiceKind::Book, 1 << 14);
        let mut copy = Node::new(ServiceKind::Book, 1 << 14);
        let mut rest = &commands[..];
        for (index, &cut) in cuts.iter().enumerate() {
            if index == at {
                let mut bytes = Vec::new();
                node.state.snapshot(&mut bytes).expect("memory takes it");
                copy.state.restore(&mut &bytes[..]).expect("its own snapshot");
                (copy.session, copy.sent) = (node.session, node.sent);
            }
            let (batch, behind) = rest.split_at(cut);
            rest = behind;
            let before = node.service();
            let answer = node.send(Kind::CommandBatch, &batch_of(batch), 2);
            if answer != Answer::Applied {
                prop_assert_eq!(node.service(), before);
            }
            if index >= at {
                prop_assert_eq!(copy.send(Kind::CommandBatch, &batch_of(batch), 2), answer);
                prop_assert_eq!(copy.state.state_hash(), node.state.state_hash());
            }
        }
    }
}

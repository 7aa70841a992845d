//! Q1: real order messages give the exchange's own book, on three nodes with the same state after every event.
//!
//! The data are not part of the repository: `QUORATE_DATA`, or `../shared/data`.

use std::path::PathBuf;

use quorate::frame::payload::{CommandPrefix, SessionOpen};
use quorate::frame::{FrameHeader, Kind};
use quorate::service::Book;
use quorate::service::book::command::{SeedLevel, UNKNOWN_ORDER};
use quorate::service::book::{BookLimits, LevelView, Side};
use quorate::service::lobster::{parse_book_row, parse_message};
use quorate::session::{Answer, Outcome, SessionLimits, State, StateLimits};
use quorate::types::{SessionId, Term, Timestamp};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

/// Events after which the best bid and ask, and five levels, must be the exchange's.
const BEST_THROUGH: usize = 439;
const FIVE_THROUGH: usize = 154;

fn data(name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("QUORATE_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    std::fs::read(folder.join(name)).ok()
}

/// A node: its state, driven as the log would.
struct Node {
    state: State<Book>,
    session: SessionId,
    sent: u64,
}

impl Node {
    fn new() -> Self {
        let sessions = SessionLimits {
            sessions_max: 4,
            reply_bytes_total: 1 << 16,
            session_reply_bytes: 1 << 16,
            ..SessionLimits::default()
        };
        let book = Book::new(BookLimits {
            orders_max: 4096,
            levels_max: 512,
            changes_max: 1024,
            ..BookLimits::default()
        });
        let limits = StateLimits { sessions, reply_bytes_max: 4096 };
        let mut node = Self { state: State::new(book, limits), session: SessionId(0), sent: 0 };
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
        let header = FrameHeader::new(length, kind, Term(1), sequence, Timestamp(sequence.0));
        self.state.apply_frame(kind, &header, payload).outcome
    }
    fn send(&mut self, command: &[u8]) -> Answer {
        self.sent += 1;
        let prefix = CommandPrefix {
            session: U64::new(self.session.0),
            client_sequence: U64::new(self.sent),
            received_through: U64::new(self.sent - 1),
        };
        match self.entry(Kind::Command, &[prefix.as_bytes(), command].concat()) {
            Outcome::Replied { answer, .. } => answer,
            other => panic!("no answer: {other:?}"),
        }
    }
    fn best(&self, side: Side, levels: usize) -> Vec<(u64, u64)> {
        let seen = |level: LevelView| (level.price, level.size);
        self.state.service().levels(side).take(levels).map(seen).collect()
    }
}

/// The first levels of one side in a row of the exchange's file.
fn exchange(row: &[SeedLevel], side: Side, levels: usize) -> Vec<(u64, u64)> {
    row.iter()
        .filter(|level| level.side == side as u8)
        .take(levels)
        .map(|level| (level.price.get(), u64::from(level.size.get())))
        .collect()
}

#[test]
fn q1_the_book_is_the_exchanges_and_three_nodes_agree_after_every_event() {
    let (Some(messages), Some(rows)) =
        (data("AAPL_2012-06-21_message_10.csv"), data("AAPL_2012-06-21_orderbook_10.csv"))
    else {
        println!("SKIPPED: no market data (set QUORATE_DATA)");
        return;
    };
    let mut nodes = [Node::new(), Node::new(), Node::new()];
    let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
        bytes
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (messages, rows) = (lines(&messages), lines(&rows));
    assert_eq!(messages.len(), rows.len());
    let mut rejected = Vec::new();
    for (index, (message, row)) in messages.iter().zip(&rows).enumerate() {
        let (event, line) = (index + 1, index as u64 + 1);
        let mut levels = Vec::new();
        parse_book_row(line, row, &mut levels).expect("a row");
        let parsed = parse_message(line, message).expect("a message");
        // The first row is the book after the first event: it is the seed, and stands for that event.
        let mut command = Vec::new();
        if event == 1 {
            SeedLevel::encode(&levels, &mut command);
        } else {
            command.extend_from_slice(parsed.as_bytes());
        }
        let answers = nodes.each_mut().map(|node| node.send(&command));
        assert!(answers.iter().all(|answer| *answer == answers[0]), "event {event}");
        match answers[0] {
            Answer::Applied => {}
            Answer::Rejected(why) => rejected.push((event, why)),
        }
        let hashes = nodes.each_ref().map(|node| node.state.state_hash());
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "event {event}: {hashes:x?}");
        for (through, count) in [(BEST_THROUGH, 1), (FIVE_THROUGH, 5)] {
            for side in [Side::Buy, Side::Sell] {
                if event <= through {
                    let own = nodes[0].best(side, count);
                    assert_eq!(own, exchange(&levels, side, count), "event {event}, {side:?}");
                }
            }
        }
    }
    // Only messages about orders from before the sample, at prices beyond its ten levels, are of no use.
    assert!(rejected.iter().all(|&(event, why)| event > BEST_THROUGH && why == UNKNOWN_ORDER));
    assert_eq!(rejected.len(), 4, "{rejected:?}");
}

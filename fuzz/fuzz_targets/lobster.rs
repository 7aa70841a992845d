//! Lines of text into the order book: nothing panics, errors point into the line, and what is read is read again alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::service::book::command::Command;
use quorate::service::book::{BookLimits, Side};
use quorate::service::lobster::{parse_book_row, parse_message};
use quorate::service::{Book, Context, Reply, Service, ServiceKind};
use quorate::types::{ClientSequence, Sequence, SessionId, Timestamp};

fuzz_target!(|data: &[u8]| {
    let limits =
        BookLimits { orders_max: 64, levels_max: 16, changes_max: 32, session_orders_max: 48 };
    let mut book = Book::new(limits);
    let mut buffer = [0; 4096];
    for (index, line) in data.split(|&byte| byte == b'\n').take(64).enumerate() {
        let number = index as u64 + 1;
        for error in [
            parse_message(number, line).err(),
            parse_book_row(number, line, &mut Vec::new()).err(),
            ServiceKind::Book.encode_query(number, line, &mut Vec::new()).err(),
        ]
        .into_iter()
        .flatten()
        {
            assert!(error.line == number && (1..=line.len() + 1).contains(&error.column));
        }
        let mut command = Vec::new();
        match ServiceKind::Book.encode(number, line, &mut command) {
            Ok(false) => assert!(command.is_empty()),
            Ok(true) => {
                assert!(Command::parse(&command).is_ok());
                let text = ServiceKind::Book.describe_command(&command).text;
                let mut again = Vec::new();
                let read = ServiceKind::Book.encode(number, text.as_bytes(), &mut again);
                // A seed is shown with asks and bids by turns, whatever their order was: as long, if not the same.
                assert_eq!(read, Ok(true), "{text}");
                assert!(again == command || (command[0] == 6 && again.len() == command.len()));
                apply(&mut book, number, &command, &mut buffer);
            }
            Err(error) => {
                assert!(command.is_empty() && (1..=line.len() + 1).contains(&error.column));
                // Not a line: then bytes of a command, perhaps.
                apply(&mut book, number, line, &mut buffer);
            }
        }
    }
});

fn apply(book: &mut Book, number: u64, command: &[u8], buffer: &mut [u8]) {
    let before = book.state_hash();
    let (session, own) = (SessionId(1 + number % 2), ClientSequence(number));
    let context = Context::alone(Sequence(number), Timestamp(number), session, own);
    let mut reply = Reply::new(buffer);
    book.begin();
    match book.apply(&context, command, &mut reply) {
        Ok(()) => {
            book.keep();
            let _ = ServiceKind::Book.describe_reply(reply.written());
        }
        Err(_) => {
            book.roll_back();
            assert_eq!(book.state_hash(), before);
        }
    }
    if let (Some(bid), Some(ask)) = (book.best(Side::Buy), book.best(Side::Sell)) {
        assert!(bid.price < ask.price);
    }
}

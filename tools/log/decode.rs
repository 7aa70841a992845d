//! What an entry says, field by field.

use serde_json::{Value, json};
use zerocopy::FromBytes;

use quorate::frame::Kind;
use quorate::frame::payload::{
    CommandPrefix, GroupSetting, Member, SETTING_DURABILITY, SessionClose, SessionOpen, TermStart,
    batch_items,
};
use quorate::journal::reader::Found;
use quorate::service::CloseReason;
use quorate::service::book::command::{
    Command, FLAG_CANCEL_ON_CLOSE, FLAG_IMMEDIATE, FLAG_POST_ONLY,
};
use quorate::service::book::command::{New, SeedLevel, Side};
use quorate::service::lobster::write_message;
use quorate::types::Generation;

/// Bytes of a command that are shown unless all are wanted.
const SHOWN_BYTES: usize = 32;

/// Whose commands they are.
#[derive(Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Service {
    /// Anybody's: text as text, other bytes as hexadecimal digits.
    #[default]
    Opaque,
    /// Of the order book.
    Book,
}

type Fields = Vec<(&'static str, Value)>;

/// The fields of an entry's payload, in order. What does not fit its kind is said so and shown as bytes.
pub(crate) fn fields(found: &Found<'_>, service: Service, whole: bool) -> Fields {
    let payload = found.payload;
    let fields = match found.header.kind() {
        Some(Kind::Padding) => Some(Vec::new()),
        Some(Kind::TermStart) => term_start(payload),
        Some(Kind::SessionOpen) => session_open(found),
        Some(Kind::SessionClose) => session_close(payload),
        Some(Kind::Command) => command(payload, service, whole),
        Some(Kind::CommandBatch) => batch(payload, service, whole),
        Some(Kind::Membership) => membership(payload),
        Some(Kind::GroupSetting) => group_setting(payload),
        _ => None,
    };
    fields.unwrap_or_else(|| vec![("payload", bytes(payload, whole))])
}

fn term_start(payload: &[u8]) -> Option<Fields> {
    let (start, _) = TermStart::read_from_prefix(payload).ok()?;
    Some(vec![
        ("leader", json!(start.leader.get())),
        ("generation", json!(Generation::from_u64(start.generation.get()).to_string())),
        ("base", json!(start.base.get())),
        ("service_version", json!(start.service_version.get())),
    ])
}

fn session_open(found: &Found<'_>) -> Option<Fields> {
    let (open, name) = SessionOpen::read_from_prefix(found.payload).ok()?;
    Some(vec![
        ("session", json!(found.header.sequence().0)),
        ("name", json!(String::from_utf8_lossy(name))),
        ("timeout_ns", json!(open.timeout.get())),
        ("nonce", json!(format!("{:016x}", open.nonce.get()))),
    ])
}

fn session_close(payload: &[u8]) -> Option<Fields> {
    let (close, _) = SessionClose::read_from_prefix(payload).ok()?;
    let reason = match CloseReason::from_u8(close.reason) {
        Some(CloseReason::Asked) => json!("asked"),
        Some(CloseReason::Silent) => json!("silent"),
        Some(CloseReason::Operator) => json!("operator"),
        Some(CloseReason::Protocol) => json!("protocol"),
        None => json!(close.reason),
    };
    Some(vec![("session", json!(close.session.get())), ("reason", reason)])
}

fn prefix(payload: &[u8]) -> Option<(Fields, &[u8])> {
    let (prefix, rest) = CommandPrefix::read_from_prefix(payload).ok()?;
    let fields = vec![
        ("session", json!(prefix.session.get())),
        ("client_sequence", json!(prefix.client_sequence.get())),
        ("received_through", json!(prefix.received_through.get())),
    ];
    Some((fields, rest))
}

fn command(payload: &[u8], service: Service, whole: bool) -> Option<Fields> {
    let (mut fields, command) = prefix(payload)?;
    fields.push(("command", one(command, service, whole)));
    Some(fields)
}

fn batch(payload: &[u8], service: Service, whole: bool) -> Option<Fields> {
    let (mut fields, commands) = prefix(payload)?;
    let commands: Vec<_> = batch_items(commands)
        .map(|item| item.map_or_else(|_| json!("malformed"), |item| one(item, service, whole)))
        .collect();
    fields.push(("commands", json!(commands)));
    Some(fields)
}

fn one(command: &[u8], service: Service, whole: bool) -> Value {
    let text = (service == Service::Book).then(|| book(command)).flatten();
    text.map_or_else(|| bytes(command, whole), Value::String)
}

fn membership(mut payload: &[u8]) -> Option<Fields> {
    let mut members = Vec::new();
    while !payload.is_empty() {
        let (member, rest) = Member::read_from_prefix(payload).ok()?;
        let (name, rest) = rest.split_at_checked(member.name_length.get().into())?;
        let (address, rest) = rest.split_at_checked(member.address_length.get().into())?;
        members.push(json!({
            "node": member.node.get(),
            "name": String::from_utf8_lossy(name),
            "address": String::from_utf8_lossy(address),
            "voter": member.flags & 1 != 0,
            "priority": member.priority,
        }));
        payload = rest;
    }
    Some(vec![("members", json!(members))])
}

fn group_setting(payload: &[u8]) -> Option<Fields> {
    let (setting, _) = GroupSetting::read_from_prefix(payload).ok()?;
    let (key, value) = (setting.key.get(), setting.value.get());
    if key != SETTING_DURABILITY {
        return Some(vec![("key", json!(key)), ("value", json!(value))]);
    }
    let rung = |number: u64| match number & 0xFF {
        0 => json!("memory"),
        1 => json!("disk"),
        other => json!(other),
    };
    Some(vec![
        ("key", json!("durability")),
        ("leader", rung(value)),
        ("follower", rung(value >> 8)),
    ])
}

/// Bytes as text if they are printable, else as hexadecimal digits.
fn bytes(bytes: &[u8], whole: bool) -> Value {
    let shown = if whole { bytes.len() } else { bytes.len().min(SHOWN_BYTES) };
    let more = match bytes.len() - shown {
        0 => String::new(),
        more => format!("…(+{more} bytes)"),
    };
    let printable = |text: &&str| !text.is_empty() && !text.chars().any(char::is_control);
    if let Some(text) = core::str::from_utf8(&bytes[..shown]).ok().filter(printable) {
        return json!(format!("{text:?}{more}"));
    }
    let digits: Vec<_> = bytes[..shown].iter().map(|byte| format!("{byte:02x}")).collect();
    json!(format!("{}{more}", digits.concat()))
}

/// A command of the book as the line from which it can be made; none for bytes that are none.
fn book(command: &[u8]) -> Option<String> {
    Some(match Command::parse(command).ok()? {
        Command::New(new) => new_order(new),
        Command::Cancel(cancel) => format!("cancel {} id {}", cancel.size, cancel.order),
        Command::Replace(replace) => {
            let limit = price(replace.price.get());
            format!("replace id {} {} @ {limit}", replace.order, replace.size)
        }
        Command::Delete(delete) => format!("delete id {}", delete.order),
        Command::Lobster(message) => {
            let mut line = String::new();
            write_message(message, &mut line).ok()?;
            line
        }
        Command::Seed(levels) => seed(levels),
    })
}

fn new_order(new: &New) -> String {
    let mut line = format!(
        "new {} {} @ {} id {}",
        side(new.side),
        new.size,
        price(new.price.get()),
        new.order
    );
    for (flag, name) in [
        (FLAG_CANCEL_ON_CLOSE, " cancel-on-close"),
        (FLAG_IMMEDIATE, " immediate"),
        (FLAG_POST_ONLY, " post-only"),
    ] {
        if new.flags & flag != 0 {
            line += name;
        }
    }
    line
}

/// A row of a LOBSTER order book: ask and bid of each level, best first.
fn seed(levels: &[SeedLevel]) -> String {
    let of = |side: Side| levels.iter().filter(move |level| level.side == side as u8);
    let count = of(Side::Sell).count().max(of(Side::Buy).count());
    let field = |level: Option<&SeedLevel>, none: &str| {
        level.map_or(format!("{none},0"), |level| format!("{},{}", level.price, level.size))
    };
    let (mut asks, mut bids) = (of(Side::Sell), of(Side::Buy));
    let fields: Vec<_> = (0..count)
        .flat_map(|_| [field(asks.next(), "9999999999"), field(bids.next(), "-9999999999")])
        .collect();
    format!("seed {}", fields.join(","))
}

fn side(side: u8) -> &'static str {
    if side == Side::Buy as u8 {
        "buy"
    } else if side == Side::Sell as u8 {
        "sell"
    } else {
        "?"
    }
}

/// A price, whose unit is 0.0001.
fn price(price: u64) -> String {
    let text = format!("{}.{:04}", price / 10_000, price % 10_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::service::book::text::encode_command;

    #[test]
    fn a_command_of_the_book_is_shown_as_the_line_it_came_from() {
        for line in [
            "new buy 100 @ 585.33 id 7",
            "new sell 1 @ 0.0001 id 8 cancel-on-close post-only",
            "new sell 5 @ 12 id 9 immediate",
            "cancel 30 id 7",
            "replace id 7 80 @ 585.35",
            "delete id 7",
            "34200.004241176,1,16113575,18,5853300,1",
            "seed 5859400,200,5853300,18,5859800,200,5853000,150",
            "seed 5859400,200,-9999999999,0",
        ] {
            let mut command = Vec::new();
            assert_eq!(encode_command(1, line.as_bytes(), &mut command), Ok(true), "{line}");
            assert_eq!(book(&command).as_deref(), Some(line));
        }
        assert_eq!(book(b"new buy"), None);
        assert_eq!(one(b"new buy", Service::Book, false), json!("\"new buy\""));
    }

    #[test]
    fn bytes_are_text_or_digits_and_say_what_is_left_out() {
        assert_eq!(bytes(b"hello", false), json!("\"hello\""));
        assert_eq!(bytes(&[0, 255], false), json!("00ff"));
        assert_eq!(bytes(b"", false), json!(""));
        let long = bytes(&[b'x'; 40], false);
        assert_eq!(long.as_str().map(|text| text.ends_with("x\"…(+8 bytes)")), Some(true));
        assert_eq!(bytes(&[1; 40], true), json!("01".repeat(40)));
    }
}

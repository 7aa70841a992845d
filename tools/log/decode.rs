//! What an entry says, field by field.

use serde_json::{Value, json};
use zerocopy::FromBytes;

use quorate::frame::Kind;
use quorate::frame::payload::{
    CommandPrefix, EventCursor, GroupSetting, Member, SETTING_DURABILITY, SessionClose,
    SessionOpen, TermStart, TimerFired, batch_items,
};
use quorate::journal::reader::Found;
use quorate::service::{CloseReason, ServiceKind};
use quorate::types::Generation;

use crate::decoder::Decoder;
use crate::select::digits;

/// Bytes of a command that are shown unless all are wanted.
const SHOWN_BYTES: usize = 32;

/// How commands are shown.
#[derive(Clone, Copy)]
pub(crate) struct Commands<'a> {
    /// Whose they are; none: anybody's.
    pub(crate) service: Option<ServiceKind>,
    /// All bytes, not the first ones only.
    pub(crate) whole: bool,
    /// The bytes below the line, in hexadecimal digits and as text.
    pub(crate) hexdump: bool,
    /// For programs: fields. For people: one line of text.
    pub(crate) json: bool,
    /// What reads commands, in place of a service.
    pub(crate) decoder: Option<&'a Decoder>,
}

impl Commands<'_> {
    /// As bytes, for people, without colours.
    pub(crate) const PLAIN: Self =
        Self { service: None, whole: false, hexdump: false, json: false, decoder: None };
}

type Fields = Vec<(&'static str, Value)>;

/// The fields of an entry's payload, in order. What does not fit its kind is said so and shown as bytes.
pub(crate) fn fields(found: &Found<'_>, show: Commands<'_>) -> Fields {
    let payload = found.payload;
    let fields = match found.header.kind() {
        Some(Kind::Padding) => Some(Vec::new()),
        Some(Kind::TermStart) => term_start(payload),
        Some(Kind::SessionOpen) => session_open(found),
        Some(Kind::SessionClose) => session_close(payload),
        Some(Kind::Command) => command(payload, show),
        Some(Kind::CommandBatch) => batch(payload, show),
        Some(Kind::Timer) => timer(payload),
        Some(Kind::EventCursor) => event_cursor(payload),
        Some(Kind::Membership) => membership(payload),
        Some(Kind::GroupSetting) => group_setting(payload),
        _ => None,
    };
    fields.unwrap_or_else(|| vec![("payload", bytes(payload, show.whole))])
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

fn timer(payload: &[u8]) -> Option<Fields> {
    let (timer, _) = TimerFired::read_from_prefix(payload).ok()?;
    Some(vec![("timer", json!(timer.id.get())), ("schedule", json!(timer.schedule.get()))])
}

fn event_cursor(payload: &[u8]) -> Option<Fields> {
    let (cursor, _) = EventCursor::read_from_prefix(payload).ok()?;
    Some(vec![("events_through", json!(cursor.through.get()))])
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

fn command(payload: &[u8], show: Commands<'_>) -> Option<Fields> {
    let (mut fields, command) = prefix(payload)?;
    fields.push(("command", one(command, show)));
    Some(fields)
}

fn batch(payload: &[u8], show: Commands<'_>) -> Option<Fields> {
    let (mut fields, commands) = prefix(payload)?;
    let commands: Vec<_> = batch_items(commands)
        .map(|item| item.map_or_else(|_| json!("malformed"), |item| one(item, show)))
        .collect();
    fields.push(("commands", json!(commands)));
    Some(fields)
}

fn one(command: &[u8], show: Commands<'_>) -> Value {
    if let Some(line) = show.decoder.and_then(|decoder| decoder.decode(command)) {
        let fields = serde_json::from_str(&line).ok().filter(|_| show.json);
        return fields.unwrap_or(Value::String(line));
    }
    let Some(service) = show.service else { return bytes(command, show.whole) };
    let description = service.describe_command(command);
    if show.json {
        serde_json::from_str(&description.to_json()).unwrap_or(Value::String(description.text))
    } else {
        Value::String(description.text)
    }
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
    let digits = String::from_utf8_lossy(&digits(&bytes[..shown])).into_owned();
    json!(format!("{digits}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_its_service_reads_it() {
        let mut command = Vec::new();
        let line = b"new buy 100 @ 585.33 id 7";
        assert_eq!(ServiceKind::Book.encode(1, line, &mut command), Ok(true));
        let show = |service, json| one(&command, Commands { service, json, ..Commands::PLAIN });
        assert_eq!(show(Some(ServiceKind::Book), false), json!("new buy 100 @ 585.33 id 7"));
        assert_eq!(show(Some(ServiceKind::Book), true)["order"], 7);
        assert!(show(None, true).as_str().is_some_and(|text| text.starts_with("0101")));
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

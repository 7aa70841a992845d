//! Entries and problems as lines for people and for programs.

use std::io::{self, Write};

use jiff::Timestamp as Time;
use serde_json::{Map, Value, json};

use quorate::frame::Kind;
use quorate::journal::reader::Found;
use quorate::types::Timestamp;

use crate::args::colour;
use crate::decode::{Commands, fields};
use crate::problem::Problem;

/// What a terminal is told for colours: cyan, faint, red.
const KIND_COLOUR: &str = "36";
const KEY_COLOUR: &str = "2";
const PROBLEM_COLOUR: &str = "31";
/// Bytes on a line of a dump.
const HEXDUMP_BYTES: usize = 16;

/// The heading over entries.
pub(crate) fn heading(out: &mut dyn Write, show: Commands<'_>) -> io::Result<()> {
    if show.json {
        return Ok(());
    }
    writeln!(
        out,
        "{:>12} {:>10} {:>5} {:<30} {:<13} {:>7}  DETAIL",
        "POSITION", "SEQUENCE", "TERM", "TIME", "KIND", "BYTES"
    )
}

/// What every entry has.
pub(crate) fn head(found: &Found<'_>) -> [(&'static str, Value); 8] {
    let header = &found.header;
    [
        ("position", json!(found.position.0)),
        ("sequence", json!(header.sequence().0)),
        ("term", json!(header.term().0)),
        ("time", json!(time_text(header.timestamp()))),
        ("time_ns", json!(header.timestamp().0)),
        ("kind", json!(header.kind().map_or("unknown", Kind::name))),
        ("bytes", json!(header.length())),
        ("chain", json!(format!("{:08x}", header.chain().0))),
    ]
}

/// Names and values, one below the other.
pub(crate) fn print_fields(out: &mut dyn Write, fields: &[(&str, Value)]) -> io::Result<()> {
    let width = fields.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    for (key, value) in fields {
        match value {
            Value::String(text) => writeln!(out, "{key:<width$}  {text}")?,
            Value::Null => writeln!(out, "{key:<width$}  -")?,
            other => writeln!(out, "{key:<width$}  {other}")?,
        }
    }
    Ok(())
}

/// One entry.
pub(crate) fn entry(out: &mut dyn Write, show: Commands<'_>, found: &Found<'_>) -> io::Result<()> {
    let header = &found.header;
    let kind = header.kind().map_or("unknown", Kind::name);
    let details = fields(found, show);
    if show.json {
        let mut object = Map::new();
        let all = head(found).into_iter().chain(details);
        object.extend(all.map(|(key, value)| (key.to_owned(), value)));
        return writeln!(out, "{}", Value::Object(object));
    }
    write!(
        out,
        "{:>12} {:>10} {:>5} {:<30} {} {:>7} ",
        found.position,
        header.sequence(),
        header.term(),
        time_text(header.timestamp()),
        paint(KIND_COLOUR, &format!("{kind:<13}")),
        header.length(),
    )?;
    for (key, value) in details {
        let key = paint(KEY_COLOUR, key);
        match value {
            Value::String(text) => write!(out, " {key}={text}")?,
            other => write!(out, " {key}={other}")?,
        }
    }
    writeln!(out)?;
    if show.hexdump { hexdump(out, found.payload) } else { Ok(()) }
}

/// Bytes, sixteen to a line: where, in digits, and as text.
pub(crate) fn hexdump(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    for (number, line) in bytes.chunks(HEXDUMP_BYTES).enumerate() {
        write!(out, "    {:08x} ", number * HEXDUMP_BYTES)?;
        for at in 0..HEXDUMP_BYTES {
            let gap = if at == HEXDUMP_BYTES / 2 { "  " } else { " " };
            match line.get(at) {
                Some(byte) => write!(out, "{gap}{byte:02x}")?,
                None => write!(out, "{gap}  ")?,
            }
        }
        let text = |&byte: &u8| {
            let shown = byte == b' ' || byte.is_ascii_graphic();
            if shown { char::from(byte) } else { '.' }
        };
        writeln!(out, "  |{}|", line.iter().map(text).collect::<String>())?;
    }
    Ok(())
}

/// Text in a colour, where colours are wanted.
pub(crate) fn paint(code: &str, text: &str) -> String {
    if colour() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// One range that cannot be decoded, in its place among the entries.
pub(crate) fn problem(out: &mut dyn Write, json: bool, problem: &Problem) -> io::Result<()> {
    if json {
        return writeln!(out, "{}", problem.json());
    }
    writeln!(out, "{}", paint(PROBLEM_COLOUR, &format!("! {problem}")))
}

/// A time as people and programs read it, to the nanosecond, in UTC.
pub(crate) fn time_text(time: Timestamp) -> String {
    Time::from_nanosecond(time.0.into()).map_or_else(|_| time.to_string(), |t| format!("{t:.9}"))
}

/// Columns under their headings: those of `left` start at the left, the others, numbers, end at the right.
pub(crate) fn table(out: &mut dyn Write, rows: &[Vec<String>], left: &[&str]) -> io::Result<()> {
    let titles = rows.first().map_or(&[][..], Vec::as_slice);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..titles.len()).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for ((cell, title), &width) in row.iter().zip(titles).zip(&widths) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            let pad = " ".repeat(width - cell.chars().count());
            let (first, second) =
                if left.contains(&title.as_str()) { (cell, &pad) } else { (&pad, cell) };
            line.push_str(first);
            line.push_str(second);
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_to_the_nanosecond() {
        let text = time_text(Timestamp(1_795_338_000_000_000_001));
        assert_eq!(text, "2026-11-22T09:00:00.000000001Z");
    }

    #[test]
    fn bytes_are_dumped_in_digits_and_as_text() {
        let mut out = Vec::new();
        hexdump(&mut out, b"0123456789abcdef\x00\xffz").unwrap();
        let text = String::from_utf8(out).unwrap();
        let first =
            "    00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|";
        let second = format!("    00000010  00 ff 7a{}  |..z|", " ".repeat(13 * 3 + 1));
        assert_eq!(text, format!("{first}\n{second}\n"));
    }

    #[test]
    fn tables_align_numbers_right_and_names_left() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["NAME", "BYTES", "END"]), row(["a", "10", "-"]), row(["bcdef", "7", "5"])];
        let mut out = Vec::new();
        table(&mut out, &rows, &["NAME"]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME   BYTES  END\na         10    -\nbcdef      7    5\n");
    }
}

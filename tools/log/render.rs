//! Entries and problems as lines for people and for programs.

use std::io::{self, Write};

use jiff::Timestamp as Time;
use serde_json::{Map, Value, json};

use quorate::frame::Kind;
use quorate::journal::reader::Found;
use quorate::types::Timestamp;

use crate::decode::{Commands, fields};
use crate::problem::Problem;

/// The heading over entries.
pub(crate) fn heading(out: &mut dyn Write, show: Commands) -> io::Result<()> {
    if show.json {
        return Ok(());
    }
    writeln!(
        out,
        "{:>12} {:>10} {:>5} {:<30} {:<13} {:>7}  DETAIL",
        "POSITION", "SEQUENCE", "TERM", "TIME", "KIND", "BYTES"
    )
}

/// One entry.
pub(crate) fn entry(out: &mut dyn Write, show: Commands, found: &Found<'_>) -> io::Result<()> {
    let header = &found.header;
    let kind = header.kind().map_or("unknown", Kind::name);
    let details = fields(found, show);
    if show.json {
        let mut object = Map::new();
        let head = [
            ("position", json!(found.position.0)),
            ("sequence", json!(header.sequence().0)),
            ("term", json!(header.term().0)),
            ("time", json!(time_text(header.timestamp()))),
            ("time_ns", json!(header.timestamp().0)),
            ("kind", json!(kind)),
            ("bytes", json!(header.length())),
            ("chain", json!(format!("{:08x}", header.chain().0))),
        ];
        let all = head.into_iter().chain(details);
        object.extend(all.map(|(key, value)| (key.to_owned(), value)));
        return writeln!(out, "{}", Value::Object(object));
    }
    write!(
        out,
        "{:>12} {:>10} {:>5} {:<30} {kind:<13} {:>7} ",
        found.position,
        header.sequence(),
        header.term(),
        time_text(header.timestamp()),
        header.length(),
    )?;
    for (key, value) in details {
        match value {
            Value::String(text) => write!(out, " {key}={text}")?,
            other => write!(out, " {key}={other}")?,
        }
    }
    writeln!(out)
}

/// One range that cannot be decoded, in its place among the entries.
pub(crate) fn problem(out: &mut dyn Write, json: bool, problem: &Problem) -> io::Result<()> {
    if json { writeln!(out, "{}", problem.json()) } else { writeln!(out, "! {problem}") }
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
    fn tables_align_numbers_right_and_names_left() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["NAME", "BYTES", "END"]), row(["a", "10", "-"]), row(["bcdef", "7", "5"])];
        let mut out = Vec::new();
        table(&mut out, &rows, &["NAME"]).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME   BYTES  END\na         10    -\nbcdef      7    5\n");
    }
}

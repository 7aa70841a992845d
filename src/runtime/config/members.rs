//! `failover.csv`: the member list as `host,port`, one node to a line, in the order of leadership; observers say so in a third
//! field.

use core::fmt::{self, Write};
use std::path::Path;

use super::error::{ConfigError, ConfigErrors, Origin, Rule};
use crate::limits::NODES_MAX;

/// One line of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberLine {
    /// Where it stands, from 1.
    pub line: usize,
    /// An IP address, or a name that the host resolves.
    pub host: String,
    /// Port of the data address; control takes the next one.
    pub port: u16,
    /// It only observes.
    pub observer: bool,
}

/// The third field of an observer's line.
const OBSERVER: &str = "observer";

/// What a line broke.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MemberLineError {
    /// Two fields to a line, three for an observer.
    Fields {
        /// As found.
        count: usize,
    },
    /// The third field, where there is one, says that the node is an observer.
    Third,
    /// The host has letters, digits, `-`, `.` and `:` only.
    Host,
    /// The port leaves room for the next one.
    Port,
    /// Each pair of ports belongs to one node.
    Twice {
        /// Line of the other.
        line: usize,
    },
    /// A group has so many nodes at most.
    TooMany,
    /// At least one line.
    Empty,
    /// The name must resolve.
    Unresolved {
        /// What the host says.
        host: String,
    },
}

impl fmt::Display for MemberLineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields { count } => {
                write!(f, "{count} fields where `host,port` are two")
            }
            Self::Third => write!(f, "the third field can only be `{OBSERVER}`"),
            Self::Host => write!(f, "host is neither an address nor a name"),
            Self::Port => write!(
                f,
                "port is not a number from 1 to {} (control takes the one after it)",
                u16::MAX - 1
            ),
            Self::Twice { line } => write!(f, "overlaps the ports of line {line} on the same host"),
            Self::TooMany => write!(f, "a group has at most {NODES_MAX} nodes"),
            Self::Empty => write!(f, "no member in it; one `host,port` to a line"),
            Self::Unresolved { host } => write!(f, "host cannot be resolved: {host}"),
        }
    }
}

/// Reads a member list. Empty lines and lines that start with `#` are skipped; a first line `host,port` is a heading.
///
/// # Errors
/// The first line that is wrong.
pub fn read_members(path: &Path, text: &str) -> Result<Vec<MemberLine>, ConfigErrors> {
    let mut members: Vec<MemberLine> = Vec::new();
    for (index, content) in text.lines().enumerate() {
        let line = index + 1;
        let content = content.trim();
        let heading = members.is_empty() && content.eq_ignore_ascii_case("host,port");
        if content.is_empty() || content.starts_with('#') || heading {
            continue;
        }
        let wrong = |error| line_error(path, line, content, error);
        let fields: Vec<_> = content.split(',').map(str::trim).collect();
        let (host, port, observer) = match fields[..] {
            [host, port] => (host, port, false),
            [host, port, OBSERVER] => (host, port, true),
            [_, _, _] => return Err(wrong(MemberLineError::Third)),
            _ => return Err(wrong(MemberLineError::Fields { count: fields.len() })),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:_%".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong(MemberLineError::Host));
        }
        let port = port.parse().ok().filter(|port| (1..u16::MAX).contains(port));
        let port: u16 = port.ok_or_else(|| wrong(MemberLineError::Port))?;
        let overlaps = |other: &&MemberLine| other.host == host && other.port.abs_diff(port) < 2;
        if let Some(other) = members.iter().find(overlaps) {
            return Err(wrong(MemberLineError::Twice { line: other.line }));
        }
        if members.len() == NODES_MAX {
            return Err(wrong(MemberLineError::TooMany));
        }
        members.push(MemberLine { line, host: host.into(), port, observer });
    }
    if members.is_empty() {
        Err(line_error(path, 0, "", MemberLineError::Empty))
    } else {
        Ok(members)
    }
}

/// The error of one line.
#[must_use]
pub fn line_error(path: &Path, line: usize, content: &str, error: MemberLineError) -> ConfigErrors {
    ConfigErrors(vec![ConfigError {
        origin: Origin::File { path: path.into(), line },
        key: String::new(),
        found: (!content.is_empty()).then(|| content.to_owned()),
        rule: Rule::MemberLine(error),
    }])
}

/// Writes a member list that [`read_members`] reads.
#[must_use]
pub fn write_members<'a>(members: impl IntoIterator<Item = (&'a str, u16, bool)>) -> String {
    let mut text = String::from("# host,port of each node in the order of leadership\n");
    for (host, port, observer) in members {
        let third = if observer { format!(",{OBSERVER}") } else { String::new() };
        writeln!(text, "{host},{port}{third}").expect("writes to text");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<MemberLine>, String> {
        read_members(Path::new("failover.csv"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn k10_a_bad_line_is_refused_with_its_number() {
        let cases = [
            ("a,1\nb,2\n\nc\n", "failover.csv:4: `c`: 1 fields where `host,port` are two"),
            ("a,1\nb,2,3\n", "failover.csv:2: `b,2,3`: the third field can only be `observer`"),
            ("a,1\nb,2,observer,3\n", "failover.csv:2: `b,2,observer,3`: 4 fields where"),
            ("a,1\n,2\n", "failover.csv:2: `,2`: host is neither"),
            ("a b,1\n", "failover.csv:1: `a b,1`: host is neither"),
            ("# x\na,0\n", "failover.csv:2: `a,0`: port is not"),
            ("a,65535\n", "failover.csv:1: `a,65535`: port is not"),
            ("a,7000\nb,7000\na,7001\n", "failover.csv:3: `a,7001`: overlaps the ports of line 1"),
            ("# nobody\n", "failover.csv: no member"),
        ];
        for (text, message) in cases {
            let error = read(text).expect_err(text);
            assert!(error.starts_with(message), "{text:?} gave {error}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = write_members([
            ("10.0.0.1", 7000, false),
            ("fe80::1", 7000, false),
            ("b.example", 9, true),
        ]);
        let members = read(&text).unwrap();
        let second = MemberLine { line: 3, host: "fe80::1".into(), port: 7000, observer: false };
        assert_eq!(members[1], second);
        assert!(members[2].observer && members[2].host == "b.example");
        assert_eq!(members.len(), 3);
        assert_eq!(read("host,port\r\n10.0.0.1, 7000\r\n").unwrap()[0].line, 2);
    }

    #[test]
    fn one_more_than_a_group_holds_is_refused() {
        let lines: Vec<_> = (0..=NODES_MAX).map(|n| format!("h{n},7000")).collect();
        assert!(
            read(&lines.join("\n"))
                .unwrap_err()
                .contains(&format!("failover.csv:{}", NODES_MAX + 1))
        );
    }
}

//! What can be wrong with a configuration: where, which key, which rule, and what would be right.

use core::fmt;
use core::net::SocketAddr;
use std::path::PathBuf;

use super::keys::Takes;
use super::members::MemberLineError;

/// Where a value comes from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// Line, from 1; 0 where it is the file as a whole.
        line: usize,
    },
    /// An environment variable of this name.
    Variable(String),
    /// This flag of the command line.
    Flag(String),
    /// The program that embeds the library.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "${name}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Program => write!(f, "set by the program"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Debug)]
pub struct ConfigError {
    /// Where it stands.
    pub origin: Origin,
    /// The key it is about; empty where it is the file as a whole.
    pub key: String,
    /// What stands there, as typed; none where something is missing.
    pub found: Option<String>,
    /// The rule that is broken.
    pub rule: Rule,
}

/// The rules.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Rule {
    /// A line of a member list must be right.
    MemberLine(MemberLineError),
    /// There must be a file to read.
    NoFile {
        /// Why none was found.
        why: NoFile,
    },
    /// The file must be readable.
    Readable {
        /// What the host says.
        host: String,
    },
    /// The text must be TOML.
    Syntax {
        /// What is wrong, and what would be right.
        message: String,
    },
    /// Only keys of the reference.
    Known {
        /// What was meant, most likely.
        nearest: Option<String>,
    },
    /// A section holds keys.
    Section,
    /// Members are tables.
    MemberTables,
    /// Text must be UTF-8.
    Utf8,
    /// It must be set.
    Required {
        /// What it takes.
        takes: Takes,
    },
    /// It must be a value that the key takes.
    Takes {
        /// What it takes.
        takes: Takes,
    },
    /// A group has 1 to this many members.
    MemberCount {
        /// Most.
        max: usize,
    },
    /// A member's id is its place in the list.
    MemberPlace {
        /// Its place.
        place: usize,
    },
    /// Somebody may lead.
    NobodyLeads,
    /// Somebody votes.
    NobodyVotes,
    /// Member names are unique.
    MemberName {
        /// Place of the other one.
        other: usize,
    },
    /// Addresses of members are unique.
    MemberAddress {
        /// The key that has the same.
        other: String,
    },
    /// Addresses that talk to each other are of one family.
    Family {
        /// The key it must agree with.
        other: String,
        /// And what that is.
        address: SocketAddr,
    },
    /// The node is one of the members.
    Member {
        /// How many there are.
        members: usize,
    },
    /// Two of the largest frames fit in the window.
    Window {
        /// At least.
        bytes: u64,
        /// Largest command.
        command_bytes_max: u64,
    },
    /// Two windows fit in a segment.
    Segment {
        /// At least.
        bytes: u64,
        /// The window.
        window_bytes: u64,
    },
    /// The path of a socket fits in a socket's address.
    SocketPath {
        /// At most.
        bytes_max: usize,
    },
    /// Multicast needs a group.
    MulticastGroup,
    /// At least this much, because of another key.
    AtLeast {
        /// Smallest.
        min: u64,
        /// The other key.
        because: &'static str,
    },
}

/// Why there is no configuration file to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoFile {
    /// Neither a flag nor the variable names one.
    NotNamed,
    /// The folder that the variable names holds none.
    Empty,
    /// It holds several, and the node's id does not choose one.
    Several {
        /// Their names.
        names: Vec<String>,
    },
}

impl fmt::Display for NoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNamed => write!(
                f,
                "no configuration: give --config FILE, or name a file or folder in QUORATE_CONFIG"
            ),
            Self::Empty => {
                write!(f, "holds no node.toml or node-<id>.toml; `quorate init` makes them")
            }
            Self::Several { names } => write!(
                f,
                "holds {}: choose one with --config FILE, or by its id in QUORATE_NODE_ID",
                names.join(", ")
            ),
        }
    }
}

impl Rule {
    pub(super) const fn takes(takes: Takes) -> Self {
        Self::Takes { takes }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MemberLine(error) => write!(f, "{error}"),
            Self::NoFile { why } => write!(f, "{why}"),
            Self::Readable { host } => write!(f, "cannot be read: {host}"),
            Self::Syntax { message } => write!(f, "{message}"),
            Self::Known { nearest: Some(nearest) } => {
                write!(f, "no such key; did you mean {nearest}?")
            }
            Self::Known { nearest: None } => {
                write!(f, "no such key; `quorate config reference` lists them")
            }
            Self::Section => write!(f, "is a section and takes keys, not a value"),
            Self::MemberTables => write!(f, "members are tables: [[members]] before each"),
            Self::Utf8 => write!(f, "is not UTF-8"),
            Self::Required { takes } => write!(f, "must be set: {takes}"),
            Self::Takes { takes } => write!(f, "takes {takes}"),
            Self::MemberCount { max } => write!(f, "a group has 1 to {max} members"),
            Self::MemberPlace { place } => {
                write!(f, "an id is the place in the list: {place} here")
            }
            Self::NobodyLeads => {
                write!(
                    f,
                    "nobody could lead: at least one member that is no observer has a priority above 0"
                )
            }
            Self::NobodyVotes => {
                write!(f, "nobody would vote: at least one member is no observer")
            }
            Self::MemberName { other } => write!(f, "is the name of member {other} too"),
            Self::MemberAddress { other } => {
                write!(f, "is the address of {other} too: each takes one of its own")
            }
            Self::Family { other, address } => {
                write!(f, "must be of the same family as {other} ({address})")
            }
            Self::Member { members } => {
                write!(f, "is not in the member list: 0 to {}", members.saturating_sub(1))
            }
            Self::Window { bytes, command_bytes_max } => write!(
                f,
                "too small: at least {bytes}, two of the largest frames with group.command_bytes_max = {command_bytes_max}"
            ),
            Self::Segment { bytes, window_bytes } => write!(
                f,
                "too small: at least {bytes}, two windows with group.window_bytes = {window_bytes}"
            ),
            Self::SocketPath { bytes_max } => {
                write!(f, "too long for a socket: at most {bytes_max} bytes")
            }
            Self::MulticastGroup => {
                write!(f, "multicast needs transport.group: \"ip:port\" of a multicast group")
            }
            Self::AtLeast { min, because } => {
                write!(f, "too small: at least {min}, because of {because}")
            }
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        match (&*self.key, &self.found) {
            ("", None) => {}
            ("", Some(found)) => write!(f, "`{found}`: ")?,
            (key, None) => write!(f, "{key}: ")?,
            (key, Some(found)) => write!(f, "{key} = {found}: ")?,
        }
        write!(f, "{}", self.rule)
    }
}

impl core::error::Error for ConfigError {}

/// Everything that is wrong, never empty: by file and line, then variables, then flags.
#[derive(Clone, PartialEq, Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "\n" };
            write!(f, "{between}{error}")?;
        }
        Ok(())
    }
}

impl core::error::Error for ConfigErrors {}

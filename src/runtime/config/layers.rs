//! The raw layer: what was typed, where, and which of it counts. A later layer wins over an earlier one, key by key.
//!
//! Nothing stops at the first mistake: all of them are collected, so that one run of `quorate config check` names them all.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::check::check;
use super::error::{ConfigError, ConfigErrors, NoFile, Origin, Rule};
use super::keys::{self, Default, KEYS, Key, VARIABLE_PREFIX, find, is_section, member_place};
use super::settings::Settings;
use super::value::{Value, from_file, from_text};
use crate::limits::NODES_MAX;

/// A value and where it comes from.
#[derive(Clone, PartialEq, Debug)]
pub struct Assigned {
    /// The value.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// Settings as typed, layer over layer.
#[derive(Clone, Default, Debug)]
pub struct Layers {
    values: BTreeMap<String, Assigned>,
    /// Where each member of the list is opened.
    members: BTreeMap<usize, Origin>,
    /// The last file read: where a missing key should have been.
    file: Option<PathBuf>,
    /// A file could not be read at all: what it lacks says nothing.
    unread: bool,
    errors: Vec<ConfigError>,
}

impl Layers {
    /// Defaults only.
    #[must_use]
    pub fn new() -> Self {
        <Self as core::default::Default>::default()
    }

    /// Lays a TOML file over what is there.
    #[must_use]
    pub fn file(mut self, path: &Path) -> Self {
        match fs::read(path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => self.text(path, &text),
                Err(error) => {
                    let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                    let line = line_of(&String::from_utf8_lossy(valid), valid.len());
                    self.unread = true;
                    self.refuse(Origin::File { path: path.into(), line }, "", None, Rule::Utf8);
                    self
                }
            },
            Err(error) => {
                self.unread = true;
                let rule = Rule::Readable { host: error.to_string() };
                self.refuse(Origin::File { path: path.into(), line: 0 }, "", None, rule);
                self
            }
        }
    }

    /// Lays the text of a TOML file over what is there. `path` names it in errors, and relative paths in it start from the
    /// folder that holds it.
    #[must_use]
    pub fn text(mut self, path: &Path, text: &str) -> Self {
        self.file = Some(path.into());
        match DeTable::parse(text) {
            Ok(table) => FileReader { layers: &mut self, path, text }.table("", table.get_ref()),
            Err(error) => {
                self.unread = true;
                let at = error.span().map_or(0, |span| span.start);
                let origin = Origin::File { path: path.into(), line: line_of(text, at) };
                let message = format!("not TOML: {}", error.message().replace('\n', "; "));
                self.refuse(origin, "", None, Rule::Syntax { message });
            }
        }
        self
    }

    /// Lays the environment over what is there: `QUORATE_NODE_DATA_DIR` sets `node.data_dir`, `QUORATE_MEMBERS_0_DATA` the
    /// first member's `data`. Empty variables count as absent, and other names that start with `QUORATE_` are left alone
    /// unless they name a section, for then they were meant to be a key.
    #[must_use]
    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut variables: Vec<_> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, value)| name.starts_with(VARIABLE_PREFIX) && !value.is_empty())
            .collect();
        variables.sort();
        for (name, value) in variables {
            let origin = || Origin::Variable(name.clone());
            match (key_of_variable(&name), value.into_string()) {
                (Some(key), Ok(text)) => self.assign_text(&key, &text, origin()),
                (Some(key), Err(_)) => self.refuse(origin(), &key, None, Rule::Utf8),
                (None, _) if names_a_section(&name) => {
                    let names: Vec<_> = KEYS.iter().map(Key::variable).collect();
                    let nearest = keys::nearest(&name, names.iter().map(String::as_str));
                    let rule = Rule::Known { nearest: nearest.map(str::to_owned) };
                    self.refuse(origin(), "", None, rule);
                }
                (None, _) => {}
            }
        }
        self
    }

    /// Lays one flag of the command line over what is there. `flag` names it in errors.
    #[must_use]
    pub fn flag(mut self, flag: &str, key: &str, text: &str) -> Self {
        self.assign_text(key, text, Origin::Flag(flag.into()));
        self
    }

    /// Lays one value over what is there, as text, on behalf of the program that embeds the library.
    #[must_use]
    pub fn set(mut self, key: &str, text: &str) -> Self {
        self.assign_text(key, text, Origin::Program);
        self
    }

    /// The settings, if nothing is wrong with them.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(self) -> Result<Settings, ConfigErrors> {
        check(self)
    }

    /// The value of a key that somebody set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Assigned> {
        self.values.get(name)
    }

    /// How long the member list is: one more than the highest place that somebody mentioned.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.last_key_value().map_or(0, |(&place, _)| place + 1)
    }

    /// Where `name` was set, or should have been.
    pub(super) fn origin(&self, name: &str) -> Origin {
        let file = || self.file.clone().map(|path| Origin::File { path, line: 0 });
        self.values
            .get(name)
            .map(|assigned| assigned.origin.clone())
            .or_else(|| self.members.get(&member_place(name)?.0).cloned())
            .or_else(file)
            .unwrap_or(Origin::Default)
    }

    /// What counts for `name`: what somebody set, else the default; none where both are absent.
    pub(super) fn effective(&self, name: &str) -> Option<Assigned> {
        if let Some(assigned) = self.values.get(name) {
            return Some(assigned.clone());
        }
        let key = find(name).expect("only keys of the table are asked for");
        let value = match key.default {
            Default::Required | Default::Absent(_) => return None,
            Default::Number(number) => Value::Number(number),
            Default::Flag(flag) => Value::Flag(flag),
            Default::Text(text) => from_text(key.takes, text).expect("defaults are tested"),
        };
        Some(Assigned { value, origin: Origin::Default })
    }

    /// What is wrong so far, and whether more can be said.
    pub(super) fn take_errors(&mut self) -> (Vec<ConfigError>, bool) {
        (core::mem::take(&mut self.errors), !self.unread)
    }

    fn assign_text(&mut self, name: &str, text: &str, origin: Origin) {
        let Some(key) = find(name) else {
            return self.unknown(name, origin);
        };
        match from_text(key.takes, text) {
            Ok(value) => self.assign(name, value, origin),
            Err(rule) => self.refuse(origin, name, Some(format!("{text:?}")), rule),
        }
    }

    fn assign(&mut self, name: &str, value: Value, origin: Origin) {
        if let Some((place, _)) = member_place(name) {
            if place >= NODES_MAX {
                let rule = Rule::MemberCount { max: NODES_MAX };
                return self.refuse(origin, name, None, rule);
            }
            self.members.entry(place).or_insert_with(|| origin.clone());
        }
        let value = match value {
            // What a relative path means must not change when the process changes its folder.
            Value::Path(path) if !is_auto(&path) => {
                Value::Path(std::path::absolute(&path).unwrap_or(path))
            }
            value => value,
        };
        self.values.insert(name.into(), Assigned { value, origin });
    }

    fn unknown(&mut self, name: &str, origin: Origin) {
        let own = member_place(name).map(|(place, _)| place.to_string());
        let nearest = keys::nearest(
            &own.as_ref().map_or(name.to_owned(), |own| name.replacen(own.as_str(), "*", 1)),
            KEYS.iter().map(|key| key.name).chain(keys::sections()),
        );
        let nearest = nearest.map(|nearest| match &own {
            Some(own) => nearest.replacen('*', own, 1),
            None => nearest.to_owned(),
        });
        self.refuse(origin, name, None, Rule::Known { nearest });
    }

    fn refuse(&mut self, origin: Origin, key: &str, found: Option<String>, rule: Rule) {
        self.errors.push(ConfigError { origin, key: key.into(), found, rule });
    }
}

/// Walks the tables of one file.
struct FileReader<'a> {
    layers: &'a mut Layers,
    path: &'a Path,
    text: &'a str,
}

impl FileReader<'_> {
    fn origin(&self, at: usize) -> Origin {
        Origin::File { path: self.path.into(), line: line_of(self.text, at) }
    }

    /// Takes all keys of a table; `prefix` is empty or ends with a dot.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (word, value) in table {
            let name = format!("{prefix}{}", word.get_ref());
            let origin = self.origin(word.span().start);
            match value.get_ref() {
                _ if name == "members" => self.members(value.get_ref(), origin),
                value if find(&name).is_some() => {
                    self.value(&name, value, origin);
                }
                DeValue::Table(inner) if is_section(&name) => {
                    self.table(&format!("{name}."), inner);
                }
                _ if is_section(&name) => {
                    self.layers.refuse(origin, &name, None, Rule::Section);
                }
                _ => self.layers.unknown(&name, origin),
            }
        }
    }

    fn members(&mut self, value: &DeValue<'_>, origin: Origin) {
        let DeValue::Array(members) = value else {
            return self.layers.refuse(origin, "members", None, Rule::MemberTables);
        };
        for (place, member) in members.iter().enumerate() {
            let origin = self.origin(member.span().start);
            match member.get_ref() {
                _ if place >= NODES_MAX => {
                    let rule = Rule::MemberCount { max: NODES_MAX };
                    return self.layers.refuse(origin, "members", None, rule);
                }
                DeValue::Table(table) => {
                    self.layers.members.entry(place).or_insert(origin);
                    self.table(&format!("members.{place}."), table);
                }
                _ => self.layers.refuse(origin, "members", None, Rule::MemberTables),
            }
        }
    }

    fn value(&mut self, name: &str, value: &DeValue<'_>, origin: Origin) {
        let takes = find(name).expect("the caller found it").takes;
        match from_file(takes, value) {
            Ok(Value::Path(path)) if !is_auto(&path) => {
                let folder = self.path.parent().unwrap_or(Path::new(""));
                self.layers.assign(name, Value::Path(folder.join(path)), origin);
            }
            Ok(value) => self.layers.assign(name, value, origin),
            Err(rule) => self.layers.refuse(origin, name, Some(as_typed(value)), rule),
        }
    }
}

/// A value of the wrong sort, short enough for a message.
fn as_typed(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => match integer.radix() {
            16 => format!("0x{}", integer.as_str()),
            8 => format!("0o{}", integer.as_str()),
            2 => format!("0b{}", integer.as_str()),
            _ => integer.as_str().to_owned(),
        },
        DeValue::Float(float) => float.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.char_indices().filter(|&(index, c)| c == '\n' && index < at).count() + 1
}

/// The key that this variable sets.
fn key_of_variable(name: &str) -> Option<String> {
    if let Some((place, field)) =
        name.strip_prefix("QUORATE_MEMBERS_").and_then(|rest| rest.split_once('_'))
    {
        let place: usize = place.parse().ok()?;
        let key = format!("members.{place}.{}", field.to_ascii_lowercase());
        return find(&key).map(|_| key);
    }
    KEYS.iter().find(|key| key.variable() == name).map(|key| key.name.to_owned())
}

fn names_a_section(variable: &str) -> bool {
    KEYS.iter().any(|key| {
        let section = keys::variable(key.section());
        variable.strip_prefix(&*section).is_some_and(|rest| rest.starts_with('_'))
    })
}

/// The file to read when no flag names one: what `QUORATE_CONFIG` names. In a folder that is its only `node.toml` or
/// `node-<id>.toml`, or the one that `QUORATE_NODE_ID` chooses.
///
/// # Errors
/// Why there is none.
pub fn default_file(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, ConfigErrors> {
    let no_file = |origin, why| {
        let rule = Rule::NoFile { why };
        Err(ConfigErrors(vec![ConfigError { origin, key: String::new(), found: None, rule }]))
    };
    let Some(folder) = variable("QUORATE_CONFIG").filter(|folder| !folder.is_empty()) else {
        return no_file(Origin::Default, NoFile::NotNamed);
    };
    let folder = PathBuf::from(folder);
    if !folder.is_dir() {
        return Ok(folder);
    }
    let origin = Origin::File { path: folder.clone(), line: 0 };
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        names.extend(entry.file_name().into_string().ok().filter(|name| is_node_file(name)));
    }
    names.sort();
    let own = variable(&keys::variable("node.id")).and_then(|id| id.into_string().ok());
    let own = own.map(|id| format!("node-{id}.toml"));
    match &names[..] {
        [] => no_file(origin, NoFile::Empty),
        [only] => Ok(folder.join(only)),
        _ => match own.filter(|own| names.contains(own)) {
            Some(own) => Ok(folder.join(own)),
            None => no_file(origin, NoFile::Several { names }),
        },
    }
}

/// `node.toml`, `node-7.toml`.
fn is_node_file(name: &str) -> bool {
    let id = |name: &str| name.strip_prefix('-').is_some_and(|id| id.parse::<u16>().is_ok());
    name.strip_prefix("node")
        .and_then(|rest| rest.strip_suffix(".toml"))
        .is_some_and(|rest| rest.is_empty() || id(rest))
}

/// Whether a path is the word that stands for a choice of the program's own.
pub(super) fn is_auto(path: &Path) -> bool {
    path == Path::new("auto")
}

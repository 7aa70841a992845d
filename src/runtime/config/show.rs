//! Settings and keys as people and programs read them.

use core::fmt::Write;
use std::path::Path;

use serde_json::{Map, Number, Value as Json, json};

use super::error::Origin;
use super::keys::{Default, KEYS, Key};
use super::settings::Settings;
use super::value::Value;

/// The settings as a TOML file: every key, with where its value comes from.
#[must_use]
pub fn settings_toml(settings: &Settings) -> String {
    write_toml(settings, true, None)
}

/// The settings as a TOML file that will lie in `folder`: only what somebody set, paths below it relative to it.
pub(super) fn chosen_toml(settings: &Settings, folder: &Path) -> String {
    write_toml(settings, false, Some(folder))
}

fn write_toml(settings: &Settings, all: bool, folder: Option<&Path>) -> String {
    let mut text = String::new();
    let mut open = String::new();
    for (name, assigned) in settings.effective() {
        let (heading, field) = place(name);
        let mut line = String::new();
        match assigned {
            Some(assigned) if all => {
                let value = format!("{field} = {}", assigned.value);
                write!(line, "{value:<48} # {}", assigned.origin).expect("writes to text");
            }
            Some(assigned) if assigned.origin != Origin::Default => {
                let value = relative(&assigned.value, folder);
                write!(line, "{field} = {value}").expect("writes to text");
            }
            None if all => {
                let key = super::keys::find(name).expect("of the table");
                let means = absent(key).unwrap_or_default();
                line = format!("{:<48} # absent: {means}", format!("# {field}"));
            }
            _ => continue,
        }
        if heading != open {
            let between = if text.is_empty() { "" } else { "\n" };
            let title = if name.starts_with("members.") {
                "[[members]]".to_owned()
            } else {
                format!("[{heading}]")
            };
            writeln!(text, "{between}{title}").expect("writes to text");
            heading.clone_into(&mut open);
        }
        writeln!(text, "{line}").expect("writes to text");
    }
    text
}

/// A path below `folder`, relative to it; anything else as it is.
fn relative(value: &Value, folder: Option<&Path>) -> Value {
    match (value, folder) {
        (Value::Path(path), Some(folder)) => match path.strip_prefix(folder) {
            Ok(path) => Value::Path(path.into()),
            Err(_) => value.clone(),
        },
        _ => value.clone(),
    }
}

/// Splits a name into what its section is told apart by, and the rest: `members.3` and `data`, `group` and `durability.leader`.
fn place(name: &str) -> (&str, &str) {
    let dot = match name.strip_prefix("members.") {
        Some(rest) => rest.find('.').map(|dot| dot + "members.".len()),
        None => name.find('.'),
    };
    dot.map_or((name, ""), |dot| (&name[..dot], &name[dot + 1..]))
}

/// The settings as one object: name to value and origin.
#[must_use]
pub fn settings_json(settings: &Settings) -> Json {
    let mut all = Map::new();
    for (name, assigned) in settings.effective() {
        let entry = match assigned {
            Some(assigned) => json!({
                "value": value_json(&assigned.value),
                "origin": assigned.origin.to_string(),
            }),
            None => json!({ "value": null, "origin": "absent" }),
        };
        all.insert(name.clone(), entry);
    }
    Json::Object(all)
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::Flag(flag) => json!(flag),
        Value::Number(number) => json!(number),
        Value::Probability(share) => Number::from_f64(*share).map_or(Json::Null, Json::Number),
        Value::Identity(number) => json!(format!("{number:016x}")),
        Value::Text(text) => json!(text),
        Value::Path(path) => json!(path.to_string_lossy()),
        Value::Address(address) => json!(address.to_string()),
        Value::Interface(ip) => ip.map_or(json!("auto"), |ip| json!(ip.to_string())),
        Value::Cpu(cpu) => cpu.map_or(json!("any"), |cpu| json!(cpu)),
    }
}

/// The default in words.
fn default_text(key: &Key) -> String {
    match key.default {
        Default::Required => "must be set".to_owned(),
        Default::Absent(means) => format!("absent: {means}"),
        Default::Number(number) => number.to_string(),
        Default::Flag(flag) => flag.to_string(),
        Default::Text(text) => text.to_owned(),
    }
}

fn absent(key: &Key) -> Option<&'static str> {
    match key.default {
        Default::Absent(means) => Some(means),
        _ => None,
    }
}

/// The reference of all keys as a page.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         This page is the output of `quorate config reference`; a test keeps the two equal.\n\n\
         A node reads one TOML file. Flags of the command line beat environment variables, which beat the file, which beats the\n\
         defaults. Every key can be set by `--set key=value` and by the variable given below; in the names of the members' keys `*`\n\
         stands for the place in the list, from 0 (`QUORATE_MEMBERS_0_DATA`). An empty variable counts as absent. Sizes may be\n\
         written as text with a unit: `\"16 MiB\"`.\n\n\
         Keys of `[group]` and `[[members]]` are the same on all nodes, names apart: nodes compare them whenever they speak to each\n\
         other, and refuse one that has others (Q-1008, which names the key).\n",
    );
    let mut open = "";
    for key in KEYS {
        if key.section() != open {
            open = key.section();
            let title = if open == "members" { "[[members]]" } else { &format!("[{open}]") };
            writeln!(text, "\n## {title}").expect("writes to text");
        }
        writeln!(text, "\n### `{}`\n\n{}\n", key.name, key.meaning).expect("writes to text");
        writeln!(text, "* takes: {}", key.takes).expect("writes to text");
        writeln!(text, "* default: {}", default_text(key)).expect("writes to text");
        writeln!(text, "* variable: `{}`", key.variable()).expect("writes to text");
    }
    text
}

/// The reference as one object for each key.
pub fn reference_json() -> impl Iterator<Item = Json> {
    KEYS.iter().map(|key| {
        json!({
            "key": key.name,
            "takes": key.takes.to_string(),
            "default": default_text(key),
            "required": key.default == Default::Required,
            "variable": key.variable(),
            "meaning": key.meaning,
        })
    })
}

//! The folder of a group of one node: its file of settings, and the ports it listens at.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::BuildHasher;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::{EngineError, Laid};
use crate::io::files::HostDisk;
use crate::io::hot_tier::told_tier;
use crate::journal::Disk;
use crate::journal::node_state::NODE_STATE_NAME;
use crate::runtime::config::{
    Founding, FoundingMember, Layers, Origin, Settings, TransportKind, Value,
};
use crate::runtime::environment::{Environment, Transport};
use crate::runtime::node::NodeError;
use crate::types::GroupId;

/// Name of the file of settings in the folder of an engine.
pub const ENGINE_FILE: &str = "engine.toml";
/// Folder of the node in it.
const NODE_FOLDER: &str = "node-0";

/// The settings of the group in `folder`; founds it where there is none.
pub(super) fn settings<E: Environment>(
    folder: &Path,
    environment: &E,
    start: &Laid,
    service: &str,
) -> Result<Settings, EngineError> {
    let folder = std::path::absolute(folder).map_err(at(folder))?;
    let (file, data_dir) = (folder.join(ENGINE_FILE), folder.join(NODE_FOLDER));
    // Whoever has the node has the file too. The node takes the lock again: nothing but a refusal can come in between.
    let lock =
        HostDisk::open(&data_dir).map_err(|error| EngineError::Node(NodeError::Disk(error)))?;
    match fs::read_to_string(&file) {
        Ok(text) => reopen(&file, &text, environment, start),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let disk = environment.disk(&lock).map_err(EngineError::Node)?;
            if disk.open(NODE_STATE_NAME).is_ok() {
                return Err(EngineError::Orphan { file, data_dir });
            }
            found(&folder, &file, environment, start, service)
        }
        Err(error) => Err(at(&file)(error)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let path = path.to_owned();
    move |error| EngineError::File { path, error }
}

fn check(file: &Path, text: &str, start: &Laid) -> Result<Settings, EngineError> {
    start.lay(Layers::new().text(file, text)).check().map_err(EngineError::Config)
}

/// Draws a group, and writes down what holds for all of its life.
fn found(
    folder: &Path,
    file: &Path,
    transport: &impl Transport,
    start: &Laid,
    service: &str,
) -> Result<Settings, EngineError> {
    let mut founding = Founding {
        group: GroupId(RandomState::new().hash_one(std::process::id()).max(1)),
        transport: TransportKind::Unicast,
        multicast_port: 0, // of unicast there is none
        members: vec![transport.addresses(None).map_err(at(folder))?],
        settings: Vec::new(),
    };
    let text = |founding: &Founding| founding.file(folder, 0).map_err(EngineError::Config);
    let chosen = check(file, &text(&founding)?, start)?;
    // Tools decode the commands of the built-in services; those of others are bytes.
    if service.parse::<crate::service::ServiceKind>().is_ok() {
        founding.settings.push(("group.service".to_owned(), service.to_owned()));
    }
    for (name, assigned) in chosen.effective() {
        if let Some(assigned) = assigned
            && name.starts_with("group.")
            && assigned.origin != Origin::Default
        {
            founding.settings.push((name.clone(), plain(&assigned.value)));
        }
    }
    let text = text(&founding)?;
    write_whole(file, &text).map_err(at(file))?;
    check(file, &text, start)
}

/// A value as [`Layers::set`] takes it.
fn plain(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Identity(number) => format!("{number:016x}"),
        other => other.to_string(),
    }
}

/// Reads what was written at founding. Addresses that somebody else has by now are exchanged for free ones: nobody but this
/// group depends on them.
fn reopen(
    file: &Path,
    text: &str,
    transport: &impl Transport,
    start: &Laid,
) -> Result<Settings, EngineError> {
    let settings = check(file, text, start)?;
    let fixed = settings.effective().iter().any(|(name, assigned)| {
        let of_file = |origin: &Origin| matches!(origin, Origin::File { path, .. } if path == file);
        ["members.0.data", "members.0.control"].contains(&&**name)
            && assigned.as_ref().is_none_or(|assigned| !of_file(&assigned.origin))
    });
    if fixed || settings.members.len() > 1 {
        return Ok(settings);
    }
    let last = FoundingMember { data: settings.own().data, control: settings.own().control };
    let fresh = transport.addresses(Some(last)).map_err(at(file))?;
    if fresh == last {
        return Ok(settings);
    }
    let pairs = [(last.data, fresh.data), (last.control, fresh.control)];
    let text = pairs.iter().fold(text.to_owned(), |text, (old, new)| {
        text.replacen(&format!("\"{old}\""), &format!("\"{new}\""), 1)
    });
    let settings = check(file, &text, start)?;
    write_whole(file, &text).map_err(at(file))?;
    Ok(settings)
}

/// Writes a file that is there whole or not at all, also after a power loss.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("toml.new");
    let mut file = File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Removes the hot segments of a node that has stopped in order: everything in them is on the disk, they lie in memory that
/// others need, and outside the folder, where nobody would find them once the folder is gone.
pub(super) fn tidy(settings: &Settings) {
    if settings.node.hot_dir.is_some() {
        return;
    }
    // Whoever has started a node there since then needs them.
    let Ok(lock) = HostDisk::open(&settings.node.data_dir) else { return };
    if let Ok(tier) = told_tier(&settings.node.data_dir) {
        // What stays is used again at the next start.
        let _ = fs::remove_dir_all(tier);
    }
    drop(lock);
}

//! `quorate restore`: a backup becomes the log of a node, or the beginning of a new group.

use std::path::PathBuf;

use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_USAGE};
use quorate::io::beside::BesideDisk;
use quorate::io::files::HostDisk;
use quorate::journal::backup::{BackupError, ManifestError, Restored, Restoring, restore};
use quorate::runtime::config::Settings;
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::GroupId;

use super::backup::PaceFlags;
use super::flags::ConfigFlags;

/// Puts a backup into the data directory of a node, which must be empty; the node then starts as one that may have forgotten
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// The backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Makes it the beginning of another group, with this identity: the one in the configuration (group.id)
    #[arg(long, value_name = "ID", value_parser = identity)]
    as_new_group: Option<GroupId>,
    #[command(flatten)]
    pace: PaceFlags,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let group = settings.group.id;
    if let Some(wanted) = args.as_new_group
        && wanted != group
    {
        complain(&format_args!(
            "--as-new-group {:016x}: the configuration is of group {:016x}; write the new identity there, on all its nodes",
            wanted.0, group.0
        ));
        return EXIT_USAGE;
    }
    let restoring = Restoring {
        group,
        segment_bytes: settings.group.segment_bytes,
        as_new_group: args.as_new_group.is_some(),
    };
    let disk = match HostDisk::open(&settings.node.data_dir) {
        Ok(disk) => disk,
        Err(error) => {
            complain(&error);
            return EXIT_FAILURE;
        }
    };
    let from = BesideDisk::new(&args.from);
    match restore(&from, &disk, &restoring, &mut args.pace.pace()) {
        Ok(restored) => say(args, &settings, &restored),
        Err(error) => {
            complain(&format_args!("{}: {error}", args.from.display()));
            hint(&error);
            exit_code(&error)
        }
    }
}

fn hint(error: &BackupError) {
    if let BackupError::Group { expected, .. } = error {
        complain(&format_args!(
            "--as-new-group {:016x} makes it the beginning of that group",
            expected.0
        ));
    }
}

fn exit_code(error: &BackupError) -> u8 {
    match error {
        BackupError::Manifest(ManifestError::Absent | ManifestError::Foreign)
        | BackupError::Group { .. }
        | BackupError::SameGroup { .. }
        | BackupError::SegmentBytes { .. }
        | BackupError::NotEmpty { .. } => EXIT_USAGE,
        _ => EXIT_FAILURE,
    }
}

fn say(args: &Args, settings: &Settings, restored: &Restored) -> u8 {
    let (manifest, end) = (&restored.manifest, restored.end);
    with_stdout(|out| {
        if args.json {
            let object = json!({
                "directory": settings.node.data_dir.display().to_string(),
                "group": format!("{:016x}", settings.group.id.0),
                "of_group": format!("{:016x}", manifest.group.0),
                "first": manifest.first.0,
                "position": end.position.0,
                "sequence": end.sequence.0,
                "bytes": manifest.bytes(),
            });
            writeln!(out, "{object}")?;
        } else {
            writeln!(
                out,
                "{}: the log of group {:016x} up to entry {} at position {}, {} bytes",
                settings.node.data_dir.display(),
                settings.group.id.0,
                end.sequence,
                end.position,
                manifest.bytes()
            )?;
        }
        Ok(EXIT_DONE)
    })
}

fn identity(text: &str) -> Result<GroupId, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let plain = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    number
        .filter(|&number| number != 0)
        .map(GroupId)
        .ok_or_else(|| "1 to 16 hexadecimal digits, not all 0".to_owned())
}

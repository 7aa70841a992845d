//! `quorate backup`: a backup of a node, which may be running.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::io::LogReader;
use quorate::io::backup_folder::{BackupFolder, BackupFolderError};
use quorate::io::beside::BesideDisk;
use quorate::io::log_reader::{OpenError, ReadOptions, Tiers};
use quorate::journal::backup::{BackupError, Taken, Taking, take};
use quorate::runtime::config::Settings;
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::Timestamp;

use super::flags::ConfigFlags;

/// So much is copied in a second, unless another number is given: the disk stays free for the log.
const BYTES_PER_SECOND: u64 = 64 << 20;

/// Copies what is committed and on the disk of a node, running or not, into a new directory; exit code 1 when that is nothing
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// The directory that becomes the backup; it must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    pace: PaceFlags,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// How fast.
#[derive(clap::Args)]
pub(super) struct PaceFlags {
    /// Most bytes copied in a second
    #[arg(long, value_name = "BYTES", default_value_t = BYTES_PER_SECOND,
          value_parser = clap::value_parser!(u64).range(65_536..))]
    bytes_per_second: u64,
}

impl PaceFlags {
    /// Waits with each piece until it is its turn.
    pub(super) fn pace(&self) -> impl FnMut(usize) -> std::io::Result<()> + use<> {
        let (begin, rate) = (Instant::now(), self.bytes_per_second as f64);
        let mut copied = 0;
        move |bytes| {
            let turn = Duration::from_secs_f64(copied as f64 / rate);
            copied += bytes;
            sleep(turn.saturating_sub(begin.elapsed()));
            Ok(())
        }
    }
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let begun = match taking(&settings) {
        Ok(begun) => begun,
        Err(code) => return code,
    };
    let folder = match BackupFolder::begin(&args.to) {
        Ok(folder) => folder,
        Err(error) => {
            complain(&error);
            let wrong_use = matches!(error, BackupFolderError::NotEmpty { .. });
            return if wrong_use { EXIT_USAGE } else { EXIT_FAILURE };
        }
    };
    let from = BesideDisk::new(&settings.node.data_dir);
    let mut limit = || taking(&settings).ok().map(|taking| taking.limit);
    let taken = match take(&from, folder.disk(), &begun, &mut limit, &mut args.pace.pace()) {
        Ok(taken) => taken,
        Err(error) => {
            complain(&error);
            return if matches!(error, BackupError::Nothing) {
                EXIT_FINDINGS
            } else {
                EXIT_FAILURE
            };
        }
    };
    if let Err(error) = folder.finish() {
        complain(&error);
        return EXIT_FAILURE;
    }
    for flaw in &taken.left_out {
        complain(&format_args!("left out, damaged: {flaw}"));
    }
    say(args, &taken)
}

/// What there is to be taken.
fn taking(settings: &Settings) -> Result<Taking, u8> {
    let options = ReadOptions { uncommitted: false, tiers: Tiers::Durable };
    let reader = LogReader::open(&settings.node.data_dir, options).map_err(|error| {
        complain(&error);
        match error {
            OpenError::NoSegments { .. } => EXIT_FINDINGS,
            _ => EXIT_FAILURE,
        }
    })?;
    if reader.group() != settings.group.id {
        let (found, expected) = (reader.group().0, settings.group.id.0);
        let directory = settings.node.data_dir.display();
        complain(&format_args!(
            "{directory}: of group {found:016x}, the configuration of {expected:016x}"
        ));
        return Err(EXIT_USAGE);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Taking {
        group: settings.group.id,
        segment_bytes: reader.segment_bytes(),
        node: settings.node.id,
        limit: reader.limit(),
        taken: Timestamp(now.as_nanos() as u64),
    })
}

fn say(args: &Args, taken: &Taken) -> u8 {
    let manifest = &taken.manifest;
    let (end, snapshots) = (manifest.end, manifest.snapshots().count());
    let segments = manifest.files.len() - snapshots;
    with_stdout(|out| {
        if args.json {
            let object = json!({
                "directory": args.to.display().to_string(),
                "group": format!("{:016x}", manifest.group.0),
                "first": manifest.first.0,
                "position": end.position.0,
                "sequence": end.sequence.0,
                "segments": segments,
                "snapshots": manifest.snapshots().map(|at| at.0).collect::<Vec<_>>(),
                "bytes": manifest.bytes(),
                "left_out": taken.left_out.iter().map(ToString::to_string).collect::<Vec<_>>(),
            });
            writeln!(out, "{object}")?;
        } else {
            writeln!(
                out,
                "{}: {segments} segments from position {} on, {snapshots} snapshots, {} bytes; the log up to entry {} at position {}",
                args.to.display(),
                manifest.first,
                manifest.bytes(),
                end.sequence,
                end.position
            )?;
        }
        Ok(EXIT_DONE)
    })
}

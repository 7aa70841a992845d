//! `quorate config check|show|reference`.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_FINDINGS, EXIT_USAGE};
use quorate::runtime::config::{
    ConfigErrors, Rule, Settings, reference_json, reference_markdown, settings_json, settings_toml,
};
use quorate::runtime::terminal::{complain, with_stdout};

use super::flags::ConfigFlags;

/// Looks at a configuration, or explains it
#[derive(clap::Subcommand)]
pub(crate) enum Args {
    /// Says what is wrong with a file, with line and key; exit code 1 if anything is
    Check(FileArgs),
    /// Says what is in force, and where each value comes from
    Show(FileArgs),
    /// Explains every key: type, unit, range, default, variable, meaning
    Reference {
        /// One JSON object for each key
        #[arg(long)]
        json: bool,
    },
}

/// A file and what to change in it.
#[derive(clap::Args)]
pub(crate) struct FileArgs {
    /// The same as --config FILE
    #[arg(conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFlags,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args {
        Args::Check(args) => check(args),
        Args::Show(args) => show(args),
        Args::Reference { json } => with_stdout(|out| reference(out, *json)),
    }
}

fn check(args: &FileArgs) -> u8 {
    let result = args.config.load(args.file.as_deref());
    let unreadable = |errors: &ConfigErrors| {
        let host = |rule: &Rule| matches!(rule, Rule::Readable { .. } | Rule::NoFile { .. });
        errors.0.iter().any(|error| host(&error.rule))
    };
    let code = match &result {
        Ok(_) => EXIT_DONE,
        Err(errors) if unreadable(errors) => EXIT_USAGE,
        Err(_) => EXIT_FINDINGS,
    };
    with_stdout(|out| {
        match &result {
            Ok(_) if args.json => writeln!(out, "{}", json!({ "good": true, "errors": [] }))?,
            Ok(settings) => good(out, settings)?,
            Err(errors) if args.json => {
                let errors: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
                writeln!(out, "{}", json!({ "good": false, "errors": errors }))?;
            }
            Err(errors) => writeln!(out, "{errors}")?,
        }
        Ok(code)
    })
}

fn good(out: &mut dyn Write, settings: &Settings) -> io::Result<()> {
    writeln!(
        out,
        "good: node {} ({}) of {} in group {:016x}, service {}, {}",
        settings.node.id,
        settings.own().name,
        settings.members.len(),
        settings.group.id.0,
        settings.group.service.name(),
        settings.transport.kind.name(),
    )
}

fn show(args: &FileArgs) -> u8 {
    match args.config.load(args.file.as_deref()) {
        Ok(settings) => with_stdout(|out| {
            if args.json {
                writeln!(out, "{}", settings_json(&settings))?;
            } else {
                write!(out, "{}", settings_toml(&settings))?;
            }
            Ok(EXIT_DONE)
        }),
        Err(errors) => {
            complain(&errors);
            EXIT_USAGE
        }
    }
}

fn reference(out: &mut dyn Write, json: bool) -> io::Result<u8> {
    if json {
        for key in reference_json() {
            writeln!(out, "{key}")?;
        }
    } else {
        write!(out, "{}", reference_markdown())?;
    }
    Ok(EXIT_DONE)
}

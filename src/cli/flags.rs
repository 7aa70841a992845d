//! Flags that several subcommands share: which configuration, and what to change in it.

use std::path::{Path, PathBuf};

use quorate::error::EXIT_USAGE;
use quorate::runtime::config::{ConfigErrors, Layers, Settings, default_file};
use quorate::runtime::terminal::complain;

/// Which configuration.
#[derive(clap::Args)]
pub(crate) struct ConfigFlags {
    /// Configuration file [default: what `QUORATE_CONFIG` names]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    set: SetFlags,
}

/// What to change in it.
#[derive(clap::Args, Default)]
pub(crate) struct SetFlags {
    /// Sets a key of the configuration, whatever file and environment say (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

impl ConfigFlags {
    /// The settings that a subcommand works with; or, after saying what is wrong, the exit code to end with.
    pub(crate) fn settings(&self) -> Result<Settings, u8> {
        self.load(None).map_err(|errors| {
            complain(&errors);
            EXIT_USAGE
        })
    }
    /// Reads file, environment and flags, and checks them. `file` stands for `--config` where it is given.
    pub(crate) fn load(&self, file: Option<&Path>) -> Result<Settings, ConfigErrors> {
        let file = match file.or(self.config.as_deref()) {
            Some(file) => file.to_owned(),
            None => default_file(|name| std::env::var_os(name))?,
        };
        self.set.lay_over(Layers::new().file(&file).environment(std::env::vars_os())).check()
    }
}

impl SetFlags {
    /// Lays the flags over what is there.
    pub(crate) fn lay_over(&self, layers: Layers) -> Layers {
        self.set.iter().fold(layers, |layers, (key, text)| layers.flag("--set", key, text))
    }
    /// The keys and their values.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.set
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.trim().into(), value.trim().into())),
        _ => Err("KEY=VALUE, such as timing.heartbeat_ms=5".into()),
    }
}

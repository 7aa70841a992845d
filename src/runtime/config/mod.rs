//! Configuration in two layers: [`Layers`] is what was typed and where (flags beat `QUORATE_*` variables beat the file beat
//! the defaults); [`Settings`] is what came out of checking it, once, and cannot be wrong.
//!
//! [`KEYS`] is the one table that both are made from. Every error says where, which key, and what would be right.

mod check;
mod error;
mod found;
mod keys;
mod layers;
mod members;
mod settings;
mod show;
mod value;
mod words;

pub use error::{ConfigError, ConfigErrors, NoFile, Origin, Rule};
pub use found::{Founding, FoundingMember};
pub use keys::{Default, KEYS, Key, SERVICES, Takes, VARIABLE_PREFIX, nearest, variable};
pub use layers::{Assigned, Layers, default_file};
pub use members::{MemberLine, MemberLineError, line_error, read_members, write_members};
pub use settings::{
    CatchUpSettings, GroupSettings, MemberSettings, NodeSettings, RetentionSettings,
    ScrubbingSettings, Settings, SnapshotSettings, SyncSettings, ThreadSettings, TimingSettings,
    TransportSettings, Values,
};
pub use show::{reference_json, reference_markdown, settings_json, settings_toml};
pub use value::Value;
pub use words::{Idle, RungName, Scheduling, TransportKind};

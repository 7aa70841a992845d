//! `quorate durability`: how far an entry must have come before it counts, told or changed while the group runs.

use std::path::Path;
use std::time::{Duration, Instant};

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS};
use quorate::link::Durability;
use quorate::runtime::config::RungName;
use quorate::runtime::terminal::{complain, with_stdout};
use serde_json::{Value, json};

use super::flags::ConfigFlags;
use super::status::{Unanswered, request};

const ASK_INTERVAL: Duration = Duration::from_millis(5);

/// Tells the durability in force, or asks the leader for another one and waits until it is; exit code 1 when it refuses
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigFlags,
    /// How far an entry must have come on the leader: memory or disk [default: as it is]
    #[arg(long, value_name = "RUNG", value_parser = rung)]
    leader: Option<RungName>,
    /// How far on a follower: memory or disk [default: as it is]
    #[arg(long, value_name = "RUNG", value_parser = rung)]
    follower: Option<RungName>,
    /// How long to wait until it is in force, in seconds
    #[arg(long, default_value_t = 10)]
    wait: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

fn rung(text: &str) -> Result<RungName, String> {
    RungName::from_name(text).ok_or_else(|| "memory or disk".to_owned())
}

pub(crate) fn run(args: &Args) -> u8 {
    let settings = match args.config.settings() {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let socket = &settings.node.admin_socket;
    match change(socket, args) {
        Ok(Ok(durability)) => with_stdout(|out| {
            if args.json {
                writeln!(out, "{durability}")?;
            } else {
                let rung = |role: &str| durability[role].as_str().unwrap_or_default().to_owned();
                writeln!(out, "leader {}, followers {}", rung("leader"), rung("follower"))?;
            }
            Ok(EXIT_DONE)
        }),
        Ok(Err(why)) => {
            complain(&why);
            EXIT_FINDINGS
        }
        Err(error) => {
            complain(&error.text(socket));
            EXIT_FAILURE
        }
    }
}

/// Asks where something is to change, and waits; returns what is in force, or why not.
fn change(socket: &Path, args: &Args) -> Result<Result<Value, String>, Unanswered> {
    let begin = Instant::now();
    let before = request(socket, "status")?["durability"].clone();
    if args.leader.is_none() && args.follower.is_none() {
        return Ok(Ok(before));
    }
    let rung = |role: &str, given: Option<RungName>| {
        given.or_else(|| before[role].as_str().and_then(RungName::from_name))
    };
    let (leader, follower) = (rung("leader", args.leader), rung("follower", args.follower));
    let (Some(leader), Some(follower)) = (leader, follower) else {
        return Ok(Err("the node does not tell its durability: it is of another version".into()));
    };
    let wanted = Durability { leader: leader.into(), follower: follower.into() };
    let [leader, follower] = [wanted.leader.name(), wanted.follower.name()];
    let wanted = json!({"leader": leader, "follower": follower});
    loop {
        // Again each time: a leader without room, or without a quorum, does not keep the order.
        let answer = request(socket, &format!("durability {leader} {follower}"))?;
        if let Some(why) = answer["error"].as_str() {
            let status = request(socket, "status")?;
            let leads = &status["leader"];
            let where_to =
                if leads.is_null() { String::new() } else { format!(": node {leads} does") };
            return Ok(Err(format!("{why}{where_to}")));
        }
        if request(socket, "status")?["durability"] == wanted {
            return Ok(Ok(wanted));
        }
        if begin.elapsed() >= Duration::from_secs(args.wait) {
            let text = "it is not in force yet: no quorum, or no room; ask again";
            return Ok(Err(text.to_owned()));
        }
        std::thread::sleep(ASK_INTERVAL);
    }
}

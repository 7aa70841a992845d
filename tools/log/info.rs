//! `quorate-log info`: whose log this is, how far it goes, and what the node says of itself.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use quorate::error::{EXIT_DONE, EXIT_FAILURE};
use quorate::io::log_reader::{LogReader, Tier};
use quorate::journal::node_state::{
    NODE_STATE_COPY_BYTES, NODE_STATE_NAME, NodeState, decode_node_state,
};
use quorate::journal::segment_header::Content;
use quorate::runtime::terminal::with_stdout;
use quorate::types::Generation;

use crate::args::Source;
use crate::ls::saved;
use crate::render::print_fields;
use crate::walk::{End, lowest, start_at, walk};

/// Says whose log it is, how far it goes, and what the node says of itself
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log info group/node-0
  quorate-log info group/node-0 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| info(out, args, &mut reader)),
        Err(code) => code,
    }
}

fn info(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let mut fields = log_fields(args, reader)?;
    fields.extend(live_fields(reader));
    let state = node_state(args.source.path());
    let code = if matches!(state, Some(Err(_))) { EXIT_FAILURE } else { EXIT_DONE };
    match state {
        Some(Ok((state, number))) => fields.extend(state_fields(&state, number)),
        Some(Err(error)) => fields.push(("node_state", json!(error))),
        None => {}
    }
    if args.source.json {
        let object: Map<_, _> =
            fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        writeln!(out, "{}", Value::Object(object))?;
        return Ok(code);
    }
    print_fields(out, &fields)?;
    Ok(code)
}

type Fields = Vec<(&'static str, Value)>;

fn log_fields(args: &Args, reader: &mut LogReader) -> io::Result<Fields> {
    // Only the last segment is walked: what lies before it is `verify`'s.
    let first = reader.before();
    start_at(reader, |_| true);
    let mut generation = header_generation(reader);
    let End { at, .. } = walk(reader, |step| {
        if let crate::walk::Step::Frame(_, found) = step
            && let Some(leadership) = found.leadership(generation)
        {
            generation = leadership.generation;
        }
        Ok(core::ops::ControlFlow::Continue(()))
    })?;
    let segments = reader.segments();
    let content = segments.iter().find_map(|segment| segment.header.ok());
    let what = match content.map(|header| header.content) {
        Some(Content::Quarantine) => "saved bytes",
        _ if args.source.path().is_file() => "segment",
        _ => "directory",
    };
    let count = |tier| segments.iter().filter(|segment| segment.tier == tier).count();
    let seal = reader.seal();
    Ok(vec![
        ("path", json!(args.source.path().display().to_string())),
        ("what", json!(what)),
        ("group", json!(format!("{:016x}", reader.group().0))),
        ("segment_bytes", json!(reader.segment_bytes())),
        ("durable_files", json!(count(Tier::Durable))),
        ("hot_files", json!(count(Tier::Hot))),
        ("hot_directory", json!(reader.tier().map(|tier| tier.display().to_string()))),
        ("saved_files", json!(saved(args.source.path()).len())),
        ("first_position", json!(lowest(reader).0)),
        ("first_sequence", json!(first.sequence.next().0)),
        ("end_position", json!(at.position.0)),
        ("end_sequence", json!(at.sequence.0)),
        ("end_term", json!(at.term.0)),
        ("end_generation", json!(generation.to_string())),
        ("end_chain", json!(format!("{:08x}", at.chain.0))),
        ("commit_known", json!(reader.commit().map(|commit| commit.position().0))),
        ("sealed_certain", json!(seal.map(|seal| seal.certain.position.0))),
        ("sealed_claimed", json!(seal.map(|seal| seal.claimed.position.0))),
        ("cut_epoch", json!(seal.map(|seal| seal.epoch.0))),
    ])
}

fn header_generation(reader: &LogReader) -> Generation {
    let here = reader.before().position;
    let headers = reader.segments().iter().filter_map(|segment| segment.header.ok());
    let mut headers = headers.filter(|header| header.before.position == here);
    headers.next().map_or(Generation::default(), |header| header.generation)
}

/// What the node shares while it runs; the last values if it does not.
fn live_fields(reader: &LogReader) -> Fields {
    let Some(shared) = reader.shared() else { return Vec::new() };
    let words: Map<_, _> =
        shared.words().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let role = match words.get("role").and_then(Value::as_u64) {
        Some(1) => "follower",
        Some(2) => "leader",
        _ => "none",
    };
    vec![
        ("process", json!(shared.process())),
        ("running", json!(crate::args::is_live(reader))),
        ("role", json!(role)),
        ("verified", json!(shared.verified().position().0)),
        ("committed", json!(shared.commit().position().0)),
        ("durable", json!(shared.durable().position().0)),
        ("applied", words.get("applied").cloned().unwrap_or_default()),
        ("sessions", words.get("sessions").cloned().unwrap_or_default()),
    ]
}

/// The newest valid copy of the node state, or what is wrong with it; none where there is no such file.
fn node_state(data: &Path) -> Option<Result<(NodeState, u64), String>> {
    let path = data.join(NODE_STATE_NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        // Also below a file: a segment has no node state beside it.
        Err(error) if !path.exists() || error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(error.to_string())),
    };
    let copies = bytes.chunks(NODE_STATE_COPY_BYTES).map(decode_node_state);
    let (good, bad): (Vec<_>, Vec<_>) = copies.partition(Result::is_ok);
    let newest = good.into_iter().flatten().max_by_key(|&(_, number)| number);
    Some(newest.ok_or_else(|| match bad.into_iter().next() {
        Some(Err(error)) => error.to_string(),
        _ => "empty".to_owned(),
    }))
}

fn state_fields(state: &NodeState, number: u64) -> Fields {
    let mark = state.clean_mark.map(|mark| mark.tail.position.0);
    let cut = state.truncation.map(|cut| cut.at.position.0);
    vec![
        ("node", json!(state.node.0)),
        ("state_number", json!(number)),
        ("promised", json!(state.leadership.to_string())),
        ("vote", json!(state.vote.map(|node| node.0))),
        ("incarnation", json!(state.incarnation.0)),
        ("boot_id", json!(state.boot_id.to_string())),
        ("hot_tier_id", json!(format!("{:016x}", state.hot_tier_id))),
        ("may_ack_memory", json!(state.may_ack_memory)),
        ("provisional", json!(state.provisional)),
        ("founded", json!(state.founded)),
        ("won_founding", json!(state.won_founding)),
        ("clean_mark", json!(mark)),
        ("last_cut_at", json!(cut)),
    ]
}

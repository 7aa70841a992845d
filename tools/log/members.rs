//! `quorate-log members`: who was in the group, as its log says.

use std::io::{self, Write};

use quorate::error::EXIT_FINDINGS;
use quorate::frame::Kind;
use quorate::io::log_reader::LogReader;
use quorate::runtime::terminal::{complain, with_stdout};

use crate::args::Source;
use crate::decode::Commands;
use crate::dump::say_end;
use crate::list::{Entry, Listing, Visit};
use crate::problem::Problem;
use crate::render;
use crate::select::Selection;

/// Shows the last list of members that is in the log; exit code 1: none is
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log members group/node-0
  quorate-log members group/node-0 --all --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Every list, newest first
    #[arg(long)]
    all: bool,
}

struct Lists {
    show: Commands<'static>,
}

impl Visit for Lists {
    fn entry(&mut self, out: &mut dyn Write, entry: Entry<'_>) -> io::Result<bool> {
        render::entry(out, self.show, &entry.found).map(|()| true)
    }

    fn problem(&mut self, out: &mut dyn Write, problem: &Problem) -> io::Result<()> {
        render::problem(out, self.show.json, problem)
    }
}

pub(crate) fn run(args: &Args) -> u8 {
    match args.source.open() {
        Ok(mut reader) => with_stdout(|out| members(out, args, &mut reader)),
        Err(code) => code,
    }
}

fn members(out: &mut dyn Write, args: &Args, reader: &mut LogReader) -> io::Result<u8> {
    let show = Commands { json: args.source.json, ..Commands::PLAIN };
    let most = (!args.all).then_some(1);
    let listing = Listing::newest(Selection::of_kind(Kind::Membership), most);
    render::heading(out, show)?;
    let listed = listing.list(out, show.json, reader, &mut Lists { show })?;
    out.flush()?;
    if let Some(end) = listed.end {
        say_end(reader, end);
    }
    if listed.entries > 0 {
        return Ok(listed.code);
    }
    complain(&"no list of members is in this log: they are as the nodes' configuration says");
    Ok(listed.code.max(EXIT_FINDINGS))
}

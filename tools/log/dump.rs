//! `quorate-log dump`: entries, decoded.

use std::io::{self, Write};

use quorate::error::EXIT_FAILURE;
use quorate::io::log_reader::LogReader;
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::service::ServiceKind;

use crate::args::Source;
use crate::decode::Commands;
use crate::decoder::Decoder;
use crate::list::{Entry, Listing, Visit};
use crate::problem::Problem;
use crate::render;
use crate::walk::{End, Why};

/// Shows entries, decoded; says in their place what cannot be decoded
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log dump group/node-0 --kind command -n 20 --service book
  quorate-log dump group/node-0 --since '2 hours ago' --cursor-file seen --json")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    listing: Listing,
    #[command(flatten)]
    look: Look,
}

/// How commands are shown.
#[derive(clap::Args)]
pub(crate) struct Look {
    /// Whose commands they are (book, echo, sequencer): shown as that service reads them
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<ServiceKind>,
    /// A command line that reads commands: one in hexadecimal digits to a line in, one line (text or JSON) out for each
    #[arg(long, value_name = "CMD", conflicts_with = "service")]
    decoder: Option<String>,
    /// Show all bytes of each command
    #[arg(long)]
    whole: bool,
    /// Show the bytes below each entry, in hexadecimal digits and as text
    #[arg(short = 'x', long, conflicts_with = "json")]
    hexdump: bool,
}

impl Look {
    /// Starts the decoder, if there is one.
    pub(crate) fn decoder(&self) -> Result<Option<Decoder>, u8> {
        self.decoder.as_deref().map(Decoder::start).transpose()
    }

    pub(crate) fn commands<'a>(&self, json: bool, decoder: Option<&'a Decoder>) -> Commands<'a> {
        let Self { service, whole, hexdump, .. } = *self;
        Commands { service, whole, hexdump, json, decoder }
    }
}

/// Writes entries and problems as they come.
pub(crate) struct Print<'a> {
    pub(crate) show: Commands<'a>,
}

impl Visit for Print<'_> {
    fn entry(&mut self, out: &mut dyn Write, entry: Entry<'_>) -> io::Result<bool> {
        render::entry(out, self.show, &entry.found).map(|()| true)
    }

    fn problem(&mut self, out: &mut dyn Write, problem: &Problem) -> io::Result<()> {
        render::problem(out, self.show.json, problem)
    }
}

pub(crate) fn run(args: &Args) -> u8 {
    let opened = args.source.open().and_then(|reader| Ok((reader, args.look.decoder()?)));
    match opened {
        Ok((mut reader, decoder)) => {
            with_stdout(|out| dump(out, args, decoder.as_ref(), &mut reader))
        }
        Err(code) => code,
    }
}

fn dump(
    out: &mut dyn Write,
    args: &Args,
    decoder: Option<&Decoder>,
    reader: &mut LogReader,
) -> io::Result<u8> {
    let show = args.look.commands(args.source.json, decoder);
    render::heading(out, show)?;
    let listed = args.listing.list(out, show.json, reader, &mut Print { show })?;
    // Behind the data, where both go to one terminal.
    out.flush()?;
    if let Some(end) = listed.end {
        say_end(reader, end);
    }
    Ok(listed.code.max(decoder_code(decoder)))
}

/// The exit code that a decoder earned.
pub(crate) fn decoder_code(decoder: Option<&Decoder>) -> u8 {
    if decoder.is_some_and(Decoder::failed) { EXIT_FAILURE } else { 0 }
}

/// Says that there is more than was shown, if so.
pub(crate) fn say_end(reader: &LogReader, end: End) {
    let limit = reader.limit();
    let mut word = [0; 4];
    let more = match reader.shared() {
        Some(shared) => shared.verified().position() > limit,
        None => reader.bytes_at(limit, &mut word).is_ok_and(|read| read == 4 && word != [0; 4]),
    };
    if end.why == Why::Limit && more {
        complain(&format_args!(
            "read up to the commit position, {limit} (sequence {}); --uncommitted reads on",
            end.at.sequence
        ));
    }
}

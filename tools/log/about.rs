//! `quorate-log completions` and `man`: what shells complete and the manual, from the same description as the flags.

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use quorate::error::{EXIT_DONE, EXIT_USAGE};
use quorate::runtime::terminal::{complain, with_stdout};

const NAME: &str = "quorate-log";

/// Prints what a shell needs to complete verbs and flags
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log completions bash > quorate-log.bash
  quorate-log completions fish")]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

/// Prints the manual page of the program, or of one verb
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  quorate-log man > quorate-log.1
  quorate-log man grep")]
pub(crate) struct Manual {
    /// Which verb
    verb: Option<String>,
}

pub(crate) fn completions(args: &Completions, mut all: Command) -> u8 {
    with_stdout(|out| {
        let mut text = Vec::new();
        clap_complete::generate(args.shell, &mut all, NAME, &mut text);
        out.write_all(&text).map(|()| EXIT_DONE)
    })
}

pub(crate) fn manual(args: &Manual, all: &Command) -> u8 {
    let page = match &args.verb {
        None => Some(all.clone()),
        Some(verb) => all.find_subcommand(verb).map(|found| {
            let name = format!("{NAME}-{verb}");
            found.clone().bin_name(format!("{NAME} {verb}")).display_name(name)
        }),
    };
    let Some(page) = page else {
        complain(&"no verb of that name");
        return EXIT_USAGE;
    };
    with_stdout(|out| {
        let mut text = Vec::new();
        Man::new(page).render(&mut text)?;
        out.write_all(&text).map(|()| EXIT_DONE)
    })
}

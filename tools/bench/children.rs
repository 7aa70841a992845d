//! Processes that are this program again: started with a hidden verb, told what to do in two lines, ended by their id.
//!
//! A child binds its socket and prints the address; the parent answers with one line of addresses. After that its standard
//! input stays open and silent: its end means that the parent is gone. A child ends with its parent (by the kernel's signal
//! and by that end of input, whichever works first) and after its lifetime in any case.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use quorate::io::cpu::pin_thread;
use quorate::io::process::die_with_parent;

use crate::failure::Failure;
use crate::waiting::Waiting;

/// How long a child may take to say its address.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What every hidden verb is told on its command line.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct ChildArgs {
    /// Process that started this one.
    #[arg(long)]
    pub(crate) parent: u32,
    /// Ends by itself after this many seconds.
    #[arg(long)]
    pub(crate) lifetime_s: u64,
    /// How to wait for datagrams.
    #[arg(long, value_enum)]
    pub(crate) wait: Waiting,
    /// CPU to run on.
    #[arg(long)]
    pub(crate) cpu: Option<usize>,
}

/// A child that runs. Dropping it ends it.
pub(crate) struct Running {
    process: Child,
    input: ChildStdin,
    /// The socket it is bound to.
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts this program with a hidden verb and reads the child's address.
    pub(crate) fn start(verb: &'static str, args: &ChildArgs) -> Result<Self, Failure> {
        let failed = |what: String| Failure::Child { verb, what };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.arg(verb);
        command.args(["--parent", &args.parent.to_string()]);
        command.args(["--lifetime-s", &args.lifetime_s.to_string()]);
        command.args(["--wait", args.wait.name()]);
        if let Some(cpu) = args.cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| failed(error.to_string()))?;
        let input = process.stdin.take().expect("asked for a pipe");
        let output = process.stdout.take().expect("asked for a pipe");
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut running = Self { process, input, address: unspecified };

        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let result = BufReader::new(output).read_line(&mut line).map(|_| line);
            let _ = sender.send(result); // nobody waits any more: too late
        });
        let line = receiver
            .recv_timeout(START_TIMEOUT)
            .map_err(|_| failed(format!("said nothing within {START_TIMEOUT:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        let address = line.trim_end();
        running.address =
            address.parse().map_err(|_| failed(format!("said \"{address}\", not its address")))?;
        Ok(running)
    }

    /// Tells it whom it deals with, which starts its work.
    pub(crate) fn tell(&mut self, addresses: &[SocketAddr]) -> Result<(), Failure> {
        let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        writeln!(self.input, "{}", words.join(" "))
            .map_err(|error| Failure::Child { verb: "child", what: error.to_string() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child's side of the two lines: binds nothing itself, says `address`, returns the addresses it is told.
pub(crate) fn introduce(args: &ChildArgs, address: SocketAddr) -> Result<Vec<SocketAddr>, Failure> {
    let failed = |what: String| Failure::Child { verb: "child", what };
    die_with_parent(args.parent).map_err(|error| failed(error.to_string()))?;
    if let Some(cpu) = args.cpu {
        pin_thread(cpu).map_err(|refused| failed(refused.to_string()))?;
    }
    let lifetime = Duration::from_secs(args.lifetime_s);
    std::thread::spawn(move || {
        std::thread::sleep(lifetime);
        std::process::exit(0);
    });
    println!("{address}");
    std::io::stdout().flush().map_err(|error| failed(error.to_string()))?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| failed(error.to_string()))?;
    let addresses = line
        .split_whitespace()
        .map(|word| word.parse().map_err(|_| failed(format!("was told \"{word}\", no address"))))
        .collect::<Result<_, _>>()?;
    std::thread::spawn(|| {
        // Whatever this returns, and whatever arrives on it, the parent is gone or confused.
        let _ = std::io::stdin().read(&mut [0_u8; 1]);
        std::process::exit(0);
    });
    Ok(addresses)
}

//! A group of nodes as processes: founded with `quorate init`, one `quorate node` each, in folders that are gone afterwards.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use quorate::io::hot_tier::MEMORY_DIRECTORY;
use quorate::io::process::{die_with_parent, run_on};

use crate::failure::Failure;
use crate::floor::Cpus;
use crate::hosts::Hosts;
use crate::load::UNANSWERED_MAX;
use crate::scratch::Scratch;

/// Hidden verb: becomes another program, which then ends with its parent.
pub(crate) const BECOME: &str = "bench-become";

/// Variables that would change the configuration of the nodes behind our back.
const VARIABLE_PREFIX: &str = "QUORATE_";
/// Last bytes of a node's talk that are shown when it has ended.
const TALK_BYTES: usize = 2_000;

/// What [`BECOME`] is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BecomeArgs {
    /// Process that started this one.
    #[arg(long)]
    parent: u32,
    /// CPUs to run on; none: those of the parent.
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// What a group is founded with.
#[derive(Clone, Debug)]
pub(crate) struct GroupSettings {
    /// The `quorate` program.
    pub(crate) program: PathBuf,
    /// Folder in which data folders are made.
    pub(crate) dir: PathBuf,
    /// Nodes.
    pub(crate) nodes: usize,
    /// Network namespaces for the nodes; none: all on loopback.
    pub(crate) hosts: Option<Hosts>,
    /// `unicast`, `multicast` or `auto`.
    pub(crate) transport: String,
    /// Rung of the leader and of the followers.
    pub(crate) durability: [String; 2],
    /// What a core does when there is nothing to do.
    pub(crate) idle: String,
    /// CPUs that nodes may use.
    pub(crate) allowed: Cpus,
    /// CPUs of the cores, round robin, the first one being the client's; empty: anywhere.
    pub(crate) cpus: Cpus,
}

/// A group that runs. Dropping it ends its nodes and removes its folders.
pub(crate) struct Group {
    settings: GroupSettings,
    nodes: Vec<Node>,
    data: Scratch,
    /// For its `Drop`, after that of the nodes.
    _hot: Option<Scratch>,
}

struct Node {
    process: Child,
    /// It was killed: that it has ended is no failure.
    killed: bool,
    arguments: Vec<OsString>,
    talk: PathBuf,
}

impl Group {
    /// Founds a group and starts its nodes.
    pub(crate) fn start(settings: &GroupSettings) -> Result<Self, Failure> {
        let data = Scratch::new(&settings.dir)?;
        let memory = Path::new(MEMORY_DIRECTORY);
        let hot = memory.is_dir().then(|| Scratch::new(memory)).transpose()?;
        found(settings, data.path())?;
        let mut nodes = Vec::new();
        for number in 0..settings.nodes {
            let mut arguments: Vec<OsString> = vec!["node".into(), "--config".into()];
            arguments.push(data.path().join(format!("node-{number}.toml")).into());
            if let Some(hot) = &hot {
                let place = hot.path().join(format!("node-{number}"));
                arguments.push("--set".into());
                arguments.push(setting("node.hot_dir", place.as_os_str()));
            }
            if !settings.cpus.is_empty() {
                let cpu = settings.cpus[(1 + number) % settings.cpus.len()];
                arguments.push("--set".into());
                arguments.push(setting("threads.core.cpu", cpu.to_string()));
            }
            let talk = data.path().join(format!("node-{number}.talk"));
            nodes.push(Node::start(settings, number, arguments, talk)?);
        }
        Ok(Self { settings: settings.clone(), nodes, data, _hot: hot })
    }

    /// The namespaces of its nodes, if they have any.
    pub(crate) fn hosts(&self) -> Option<&Hosts> {
        self.settings.hosts.as_ref()
    }

    /// A configuration file that names the members.
    pub(crate) fn config(&self) -> PathBuf {
        self.config_of(0)
    }

    /// The configuration file of a node.
    pub(crate) fn config_of(&self, number: usize) -> PathBuf {
        self.data.path().join(format!("node-{number}.toml"))
    }

    /// What a power switch does to a process.
    pub(crate) fn kill(&mut self, number: usize) -> Result<(), Failure> {
        let node = &mut self.nodes[number];
        node.killed = true;
        node.process.kill().map_err(Failure::host("killing a node"))?;
        node.process.wait().map_err(Failure::host("waiting for a node"))?;
        Ok(())
    }

    /// Starts a node that was killed.
    pub(crate) fn start_again(&mut self, number: usize) -> Result<(), Failure> {
        let Node { arguments, talk, .. } = &self.nodes[number];
        let node = Node::start(&self.settings, number, arguments.clone(), talk.clone())?;
        self.nodes[number] = node;
        Ok(())
    }

    /// Sends a signal to a node's process.
    pub(crate) fn signal(&self, number: usize, signal: &str) -> Result<(), Failure> {
        let mut kill = Command::new("kill");
        kill.arg(format!("-{signal}")).arg(self.nodes[number].process.id().to_string());
        let status = kill.status().map_err(Failure::host("starting kill"))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::Child { verb: "kill", what: format!("signal {signal}: {status}") })
    }

    /// Says which node has ended, and what it said last, if one has.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        for (number, node) in self.nodes.iter_mut().enumerate().filter(|(_, node)| !node.killed) {
            let status = node.process.try_wait().map_err(Failure::host("waiting for a node"))?;
            if let Some(status) = status {
                let talk = fs::read(&node.talk).unwrap_or_default();
                let talk = String::from_utf8_lossy(&talk[talk.len().saturating_sub(TALK_BYTES)..]);
                let what = format!("node {number} has ended ({status}): {}", talk.trim());
                return Err(Failure::Child { verb: "quorate node", what });
            }
        }
        Ok(())
    }
}

impl Node {
    fn start(
        settings: &GroupSettings,
        number: usize,
        arguments: Vec<OsString>,
        talk: PathBuf,
    ) -> Result<Self, Failure> {
        let file = File::create(&talk).map_err(Failure::host("creating a file"))?;
        let again = file.try_clone().map_err(Failure::host("creating a file"))?;
        let this = std::env::current_exe().map_err(Failure::host("finding this program"))?;
        let mut command = match &settings.hosts {
            // It becomes the program, too: the process stays the same.
            Some(hosts) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &hosts.name(number)]).arg(this);
                command
            }
            None => Command::new(this),
        };
        command.args([BECOME, "--parent", &std::process::id().to_string()]);
        if !settings.allowed.is_empty() {
            let cpus: Vec<String> = settings.allowed.iter().map(ToString::to_string).collect();
            command.args(["--cpus", &cpus.join(",")]);
        }
        command.arg("--").arg(&settings.program).args(&arguments);
        without_variables(&mut command);
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        let process = command.spawn().map_err(Failure::host("starting a node"))?;
        Ok(Self { process, killed: false, arguments, talk })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The `quorate` program that lies beside this one.
pub(crate) fn program_beside() -> Result<PathBuf, Failure> {
    let this = std::env::current_exe().map_err(Failure::host("finding this program"))?;
    let program = this.with_file_name("quorate");
    if program.is_file() {
        return Ok(program);
    }
    let text = format!("{} is not there: build it, or name it with --program", program.display());
    Err(Failure::Usage(text))
}

/// The process of [`BECOME`]. Returns only when it could not.
pub(crate) fn run_become(args: &BecomeArgs) -> Failure {
    let [program, arguments @ ..] = &args.command[..] else {
        return Failure::Usage("no program to become".to_owned());
    };
    if let Err(error) = die_with_parent(args.parent) {
        return Failure::Host { what: "ending with the parent", error };
    }
    if !args.cpus.is_empty()
        && let Err(error) = run_on(&args.cpus)
    {
        return Failure::Host { what: "choosing CPUs", error };
    }
    // The kernel's promise to end this process with its parent outlives the change of program.
    let error = Command::new(program).args(arguments).exec();
    Failure::Host { what: "becoming another program", error }
}

fn found(settings: &GroupSettings, dir: &Path) -> Result<(), Failure> {
    let [leader, follower] = &settings.durability;
    let mut command = Command::new(&settings.program);
    command.args(["init", "--service", "echo"]);
    match &settings.hosts {
        Some(hosts) => {
            let list = dir.join("members.csv");
            fs::write(&list, hosts.members()).map_err(Failure::host("writing the member list"))?;
            command.arg("--members").arg(list);
        }
        None => {
            command.args(["--nodes", &settings.nodes.to_string()]);
        }
    }
    command.args(["--transport", &settings.transport]);
    for (key, value) in [
        ("group.durability.leader", leader),
        ("group.durability.follower", follower),
        ("threads.idle", &settings.idle),
        ("group.session_in_flight_max", &UNANSWERED_MAX.to_string()),
    ] {
        command.arg("--set").arg(setting(key, value));
    }
    command.arg("--dir").arg(dir);
    without_variables(&mut command);
    let output = command.output().map_err(Failure::host("starting quorate init"))?;
    if output.status.success() {
        return Ok(());
    }
    let what = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::Child { verb: "quorate init", what })
}

fn setting(key: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut text = OsString::from(key);
    text.push("=");
    text.push(value);
    text
}

fn without_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(VARIABLE_PREFIX) {
            command.env_remove(name);
        }
    }
}

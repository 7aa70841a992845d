//! The nodes of a demo: processes of this very program, in folders that are gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde_json::Value;

use quorate::io::hot_tier::MEMORY_DIRECTORY;
use quorate::runtime::config::{Layers, Settings, VARIABLE_PREFIX};

use super::{Args, DemoError, check};
use crate::cli::status::request;

/// How long nodes may take to start, to settle, and to stop.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often they are asked.
pub(super) const ASK_INTERVAL: Duration = Duration::from_millis(20);

/// A running group. Dropping it ends the nodes and removes their folders.
pub(super) struct Group {
    nodes: Vec<Node>,
    folder: PathBuf,
    hot: PathBuf,
    keep: bool,
}

struct Node {
    /// None while it is dead.
    process: Option<Child>,
    settings: Settings,
}

impl Group {
    pub(super) fn start(args: &Args, seed: u64) -> Result<Self, DemoError> {
        let name = format!("quorate-demo-{}-{seed:x}", std::process::id());
        let folder = args.keep.clone().unwrap_or_else(|| std::env::temp_dir().join(&name));
        let memory = Path::new(MEMORY_DIRECTORY);
        let hot = if memory.is_dir() { memory.join(&name) } else { folder.join("hot") };
        fs::create_dir_all(&hot).map_err(|error| failed(&hot.display().to_string(), &error))?;
        let mut group = Self { nodes: Vec::new(), folder, hot, keep: args.keep.is_some() };
        group.found(args, seed)?;
        for number in 0..usize::from(args.nodes) {
            let node = group.start_node(number)?;
            group.nodes.push(node);
        }
        Ok(group)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Settings of each node.
    pub(super) fn settings(&self) -> impl Iterator<Item = &Settings> {
        self.nodes.iter().map(|node| &node.settings)
    }

    /// Says so if a node has ended.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            if let Some(process) = &mut node.process
                && let Ok(Some(status)) = process.try_wait()
            {
                let events = node.settings.node.data_dir.join("events.jsonl");
                let last = fs::read_to_string(events).unwrap_or_default();
                let last = last.lines().last().unwrap_or("it left no events").to_owned();
                return Err(DemoError::Failed(format!(
                    "node {number} has ended ({status}): {last}"
                )));
            }
        }
        Ok(())
    }

    /// What the running nodes say of themselves.
    pub(super) fn statuses(&self) -> Vec<Value> {
        let running = self.nodes.iter().filter(|node| node.process.is_some());
        running
            .filter_map(|node| request(&node.settings.node.admin_socket, "status").ok())
            .collect()
    }

    /// What a power switch does to a process.
    pub(super) fn kill(&mut self, number: usize) -> Result<(), DemoError> {
        if let Some(mut process) = self.nodes[number].process.take() {
            process.kill().map_err(|error| failed("killing a node", &error))?;
            process.wait().map_err(|error| failed("waiting for a node", &error))?;
        }
        Ok(())
    }

    /// Starts a node that was killed.
    pub(super) fn start_again(&mut self, number: usize) -> Result<(), DemoError> {
        let node = self.start_node(number)?;
        self.nodes[number] = node;
        Ok(())
    }

    /// Waits until all nodes have applied the same entries, and returns what they say of themselves.
    pub(super) fn settle(&mut self, stop: &AtomicBool) -> Result<Vec<Value>, DemoError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            check(stop)?;
            self.check()?;
            let statuses = self.statuses();
            let applied = |status: &Value| status["positions"]["applied"].as_u64();
            let tail =
                statuses.iter().filter_map(|status| status["positions"]["tail"].as_u64()).max();
            let settled = statuses.len() == self.nodes.len()
                && statuses.iter().all(|status| applied(status) == tail);
            if settled || Instant::now() > deadline {
                return Ok(statuses); // the logs tell whether it is the truth
            }
            std::thread::sleep(ASK_INTERVAL);
        }
    }

    /// Stops all nodes in order.
    pub(super) fn stop(&mut self) -> Result<(), DemoError> {
        for (number, node) in self.nodes.iter().enumerate() {
            if let Err(error) = request(&node.settings.node.admin_socket, "stop") {
                let text = error.text(&node.settings.node.admin_socket);
                return Err(DemoError::Failed(format!("stopping node {number}: {text}")));
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let Some(process) = &mut node.process else { continue };
            loop {
                match process.try_wait() {
                    Ok(Some(status)) if status.success() => break,
                    Ok(Some(status)) => {
                        return Err(DemoError::Failed(format!(
                            "node {number} ended with {status}"
                        )));
                    }
                    Ok(None) if Instant::now() < deadline => std::thread::sleep(ASK_INTERVAL),
                    Ok(None) => {
                        return Err(DemoError::Failed(format!("node {number} does not stop")));
                    }
                    Err(error) => return Err(failed("waiting for a node", &error)),
                }
            }
        }
        Ok(())
    }

    /// Writes the configurations, by the same command that an operator would use.
    fn found(&self, args: &Args, seed: u64) -> Result<(), DemoError> {
        let mut command = this_program()?;
        command.args(["init", "--nodes", &args.nodes.to_string()]);
        command.args(["--observers", &args.observers.to_string()]);
        command.args(["--service", args.service.name(), "--transport", &args.transport]);
        command.arg("--dir").arg(&self.folder);
        let follower = "memory".to_owned();
        let mut set = vec![
            ("group.durability.leader", args.durability.clone()),
            ("group.durability.follower", follower),
        ];
        if args.loss > 0.0 || args.duplicate > 0.0 || args.reorder_ms > 0 {
            set.push(("faults.loss", args.loss.to_string()));
            set.push(("faults.duplicate", args.duplicate.to_string()));
            set.push(("faults.reorder_ms", args.reorder_ms.to_string()));
            set.push(("faults.seed", seed.to_string()));
        }
        for (key, value) in set {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        let output = command.output().map_err(|error| failed("starting quorate init", &error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(DemoError::Usage(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    fn start_node(&self, number: usize) -> Result<Node, DemoError> {
        let file = self.folder.join(format!("node-{number}.toml"));
        let hot = self.hot.join(format!("node-{number}"));
        let hot = format!("node.hot_dir={}", hot.display());
        let settings = Layers::new().file(&file).check();
        let settings = settings.map_err(|errors| DemoError::Failed(errors.to_string()))?;
        let mut command = this_program()?;
        command.args(["node", "--quiet", "--with-parent", &std::process::id().to_string()]);
        command.arg("--config").arg(&file).args(["--set", &hot]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().map_err(|error| failed("starting a node", &error))?;
        Ok(Node { process: Some(process), settings })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            // Both fail only when it has ended already, which is what is wanted.
            let _ = process.kill();
            let _ = process.wait();
        }
        // What cannot be removed is not worth hiding the result for.
        let _ = fs::remove_dir_all(&self.hot);
        if !self.keep {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// This program again, without variables that would change the configuration behind our back.
fn this_program() -> Result<Command, DemoError> {
    let program =
        std::env::current_exe().map_err(|error| failed("finding this program", &error))?;
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(VARIABLE_PREFIX) {
            command.env_remove(name);
        }
    }
    Ok(command)
}

pub(super) fn failed(what: &str, error: &std::io::Error) -> DemoError {
    DemoError::Failed(format!("{what}: {error}"))
}

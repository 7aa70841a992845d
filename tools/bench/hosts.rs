//! Hosts on one machine: a network namespace for each node and one for the client, joined by a bridge. A way between two nodes
//! is cut in one direction and in silence: the sender is given a neighbour's address that nobody has.

use std::process::Command;

/// Where frames go that are to get lost.
const NOBODY: &str = "02:00:00:00:00:01";
/// Data port of every node; control takes the next one.
const PORT: u16 = 9_000;

/// The names of the namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    prefix: String,
    nodes: usize,
}

/// Namespaces that are gone when this is dropped.
pub(crate) struct MadeHosts(pub(crate) Hosts);

impl MadeHosts {
    /// Makes them, or says why that is not possible.
    pub(crate) fn new(nodes: usize) -> Result<Self, String> {
        let prefix = format!("quorate-bench-{}", std::process::id());
        let made = Self(Hosts { prefix, nodes });
        made.0.build()?;
        Ok(made)
    }
}

impl Drop for MadeHosts {
    fn drop(&mut self) {
        let Hosts { nodes, .. } = self.0;
        let names = (0..=nodes).map(|node| self.0.name(node));
        for name in names.chain([self.0.bridge()]) {
            // Those that were never made are not there to be removed.
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

impl Hosts {
    /// Those that another process has made.
    pub(crate) fn made_by_another(prefix: &str, nodes: usize) -> Self {
        Self { prefix: prefix.to_owned(), nodes }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        for node in 0..=self.nodes {
            let (host, port) = (self.name(node), format!("port{node}"));
            ip(&["netns", "add", &host])?;
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", &host];
            ip(&[&["-n", &bridge, "link", "add", &port], &pair[..]].concat())?;
            ip(&["-n", &bridge, "link", "set", &port, "master", "br0", "up"])?;
            let address = format!("{}/24", address(node));
            ip(&["-n", &host, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &host, "link", "set", "eth0", "up"])?;
            ip(&["-n", &host, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{}-bridge", self.prefix)
    }

    /// The namespace of a node.
    pub(crate) fn name(&self, node: usize) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// The namespace of the client.
    pub(crate) fn client(&self) -> String {
        self.name(self.nodes)
    }

    /// The member list, as `quorate init` reads it.
    pub(crate) fn members(&self) -> String {
        let lines: Vec<_> =
            (0..self.nodes).map(|node| format!("{},{PORT}", address(node))).collect();
        lines.join("\n")
    }

    /// What `from` sends to `to` gets lost from now on.
    pub(crate) fn cut(&self, from: usize, to: usize) -> Result<(), String> {
        let (host, address) = (self.name(from), address(to));
        let lost = ["lladdr", NOBODY, "dev", "eth0", "nud", "permanent"];
        ip(&[&["-n", &host, "neigh", "replace", &address], &lost[..]].concat())
    }

    /// All ways are open again.
    pub(crate) fn heal(&self) -> Result<(), String> {
        (0..self.nodes).try_for_each(|node| {
            ip(&["-n", &self.name(node), "neigh", "flush", "nud", "permanent", "dev", "eth0"])
        })
    }
}

fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("ip {}: {why}", arguments.join(" ")))
}

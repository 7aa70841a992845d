//! Hosts on one machine: a network namespace for each node and one for the clients, joined by a bridge. Ways between them are
//! cut one by one and in one direction, in silence: the sender is given a neighbour's address that nobody has.
#![allow(dead_code)] // each test program uses a part of it
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Where frames go that are to get lost.
const NOBODY: &str = "02:00:00:00:00:01";

/// The namespaces; gone when dropped.
pub(crate) struct Hosts {
    prefix: String,
    nodes: u16,
}

/// Runs `test` among so many hosts, on a thread that lives where the clients do; says why not, where there can be none.
pub(crate) fn among_hosts(nodes: u16, test: impl FnOnce(&Hosts) + Send + 'static) {
    let hosts = match Hosts::new(nodes) {
        Ok(hosts) => hosts,
        Err(why) => return println!("SKIPPED: no network namespaces: {why}"),
    };
    let run = move || {
        hosts.enter();
        test(&hosts);
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

impl Hosts {
    fn new(nodes: u16) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let hosts = Self { prefix: format!("quorate-{}-{number}", std::process::id()), nodes };
        hosts.build()?;
        Ok(hosts)
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&["netns", "add", &bridge])?;
        ip(&["-n", &bridge, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &bridge, "link", "set", "br0", "up"])?;
        for node in 0..=self.nodes {
            let (host, port) = (self.host(node), format!("port{node}"));
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

    /// Name of a node's namespace; behind the last node, the clients'.
    pub(crate) fn host(&self, node: u16) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// The member list, as `quorate init` reads it.
    pub(crate) fn members(&self) -> String {
        let lines: Vec<_> = (0..self.nodes).map(|node| format!("{},9000", address(node))).collect();
        lines.join("\n")
    }

    /// Moves this thread to where the clients are; what it starts is there too.
    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.host(self.nodes))).unwrap();
        // SAFETY: takes a live descriptor and a flag; moves this thread only.
        assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
    }

    /// What `from` sends to `to` gets lost.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let (host, address) = (self.host(from as u16), address(to as u16));
        let lost = ["neigh", "replace", &address, "lladdr", NOBODY, "dev", "eth0", "nud"];
        ip(&[&["-n", &host], &lost[..], &["permanent"]].concat()).unwrap();
    }

    /// Nothing gets from one side to the other, nor back.
    pub(crate) fn part(&self, one: &[usize], other: &[usize]) {
        for &a in one {
            for &b in other {
                self.cut(a, b);
                self.cut(b, a);
            }
        }
    }

    /// Where the clients are, among those between whom ways are cut.
    pub(crate) fn clients(&self) -> usize {
        usize::from(self.nodes)
    }

    /// All ways are open again.
    pub(crate) fn heal(&self) {
        for node in 0..=self.nodes {
            ip(&["-n", &self.host(node), "neigh", "flush", "nud", "permanent", "dev", "eth0"])
                .unwrap();
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let nodes = (0..=self.nodes).map(|node| self.host(node));
        for name in nodes.chain([self.bridge()]) {
            // Those that were never made are not there to be removed.
            let _ = ip(&["netns", "delete", &name]);
        }
    }
}

fn address(node: u16) -> String {
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

//! `quorate init`: founds a group by writing one configuration for each of its nodes.

use std::collections::hash_map::RandomState;
use std::fs::{self, OpenOptions};
use std::hash::BuildHasher;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_USAGE};
use quorate::limits::NODES_MAX;
use quorate::runtime::config::{
    Founding, FoundingMember, MemberLineError, SERVICES, TransportKind, line_error, read_members,
    write_members,
};
use quorate::runtime::terminal::{complain, with_stdout};
use quorate::types::GroupId;

use super::flags::SetFlags;

/// Pairs of neighbouring ports that are tried before the host is held to have none.
const PORT_TRIES: usize = 200;

/// Founds a group: draws its identity and writes one configuration for each node
#[derive(clap::Args)]
pub(crate) struct Args {
    /// So many nodes on this host, on loopback
    #[arg(long, value_name = "N", required_unless_present = "members",
          value_parser = clap::value_parser!(u16).range(1..=NODES_MAX as i64))]
    nodes: Option<u16>,
    /// So many of them, the last ones, are observers: they get the whole log, but neither vote nor lead
    #[arg(long, value_name = "N", default_value = "0", conflicts_with = "members")]
    observers: u16,
    /// The nodes of this list: `host,port` to a line (`host,port,observer` for one that never votes), in the order of
    /// leadership; control takes port + 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "base_port"])]
    members: Option<PathBuf>,
    /// Folder to write to; made when absent
    #[arg(long, value_name = "DIR", env = "QUORATE_CONFIG")]
    dir: PathBuf,
    /// How the leader's bytes reach the others
    #[arg(long, value_name = "KIND", default_value = "auto",
          value_parser = clap::builder::PossibleValuesParser::new(TransportKind::NAMES))]
    transport: String,
    /// The state machine that the group runs
    #[arg(long, value_name = "NAME", default_value = "echo",
          value_parser = clap::builder::PossibleValuesParser::new(SERVICES))]
    service: String,
    /// First of the ports, two for each node and one for multicast [default: free ones]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    #[command(flatten)]
    set: SetFlags,
}

pub(crate) fn run(args: &Args) -> u8 {
    let written = members(args).and_then(|Listed { members, observers, multicast_port }| {
        let mut settings = vec![("group.service".to_owned(), args.service.clone())];
        settings.extend(observers.into_iter().map(observer));
        settings.extend_from_slice(args.set.pairs());
        let founding = Founding {
            group: draw_group(),
            transport: TransportKind::from_name(&args.transport).expect("clap knows the words"),
            multicast_port,
            members,
            settings,
        };
        write_all(args, &founding)
    });
    match written {
        Ok(paths) => with_stdout(|out| {
            for path in paths {
                writeln!(out, "{}", path.display())?;
            }
            Ok(EXIT_DONE)
        }),
        Err(Failure { message, code }) => {
            complain(&message);
            code
        }
    }
}

/// Why nothing was founded.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn usage(message: &impl ToString) -> Self {
        Self { message: message.to_string(), code: EXIT_USAGE }
    }
    fn host(path: &Path, error: &io::Error) -> Self {
        Self { message: format!("{}: {error}", path.display()), code: EXIT_FAILURE }
    }
}

/// A group's identity: 64 random bits of the host, which is where a new hasher gets its keys from. Never 0.
fn draw_group() -> GroupId {
    GroupId(RandomState::new().hash_one(std::process::id()).max(1))
}

/// The setting that makes a member an observer.
fn observer(place: usize) -> (String, String) {
    (format!("members.{place}.observer"), "true".to_owned())
}

/// The nodes of a group, the places of its observers, and a port for multicast.
struct Listed {
    members: Vec<FoundingMember>,
    observers: Vec<usize>,
    multicast_port: u16,
}

fn members(args: &Args) -> Result<Listed, Failure> {
    if let Some(path) = &args.members {
        return listed(path);
    }
    let (members, multicast_port) = on_loopback(args)?;
    let voters = members.len().saturating_sub(args.observers.into());
    if voters == 0 {
        let text =
            format!("--observers {}: {} nodes would have no voter", args.observers, members.len());
        return Err(Failure::usage(&text));
    }
    let observers = (voters..members.len()).collect();
    Ok(Listed { members, observers, multicast_port })
}

fn on_loopback(args: &Args) -> Result<(Vec<FoundingMember>, u16), Failure> {
    match args.base_port {
        Some(base) => {
            let nodes = args.nodes.expect("clap requires it");
            if u32::from(base) + 2 * u32::from(nodes) > u32::from(u16::MAX) {
                let message = format!(
                    "--base-port {base}: {nodes} nodes need {} ports from there on",
                    2 * nodes + 1
                );
                return Err(Failure::usage(&message));
            }
            let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let member = |node| FoundingMember {
                data: at(base + 2 * node),
                control: at(base + 2 * node + 1),
            };
            Ok(((0..nodes).map(member).collect(), base + 2 * nodes))
        }
        None => free_ports(args.nodes.expect("clap requires it")),
    }
}

/// Ports that are free now on loopback. All are held until the last one is known, so that they differ.
fn free_ports(nodes: u16) -> Result<(Vec<FoundingMember>, u16), Failure> {
    let fail = |error| Failure::host(Path::new("free ports on loopback"), &error);
    let mut held = Vec::new();
    let mut members = Vec::new();
    for _ in 0..nodes {
        let (member, sockets) = free_pair().map_err(fail)?;
        members.push(member);
        held.push(sockets);
    }
    let multicast = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(fail)?;
    Ok((members, multicast.local_addr().map_err(fail)?.port()))
}

/// Two free ports in a row, the second one for UDP and TCP, and what holds them.
fn free_pair() -> io::Result<(FoundingMember, (UdpSocket, UdpSocket, TcpListener))> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..PORT_TRIES {
        let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let data = first.local_addr()?;
        let Some(port) = data.port().checked_add(1) else { continue };
        let control = SocketAddr::new(data.ip(), port);
        match UdpSocket::bind(control).and_then(|udp| Ok((udp, TcpListener::bind(control)?))) {
            Ok((udp, tcp)) => return Ok((FoundingMember { data, control }, (first, udp, tcp))),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The nodes of a list. Multicast takes the port behind the highest one in it.
fn listed(path: &Path) -> Result<Listed, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::host(path, &error))?;
    let lines = read_members(path, &text).map_err(|error| Failure::usage(&error))?;
    let mut members = Vec::new();
    for line in &lines {
        let ip = resolve(&line.host, line.port).map_err(|host| {
            let content = format!("{},{}", line.host, line.port);
            let error = MemberLineError::Unresolved { host };
            Failure::usage(&line_error(path, line.line, &content, error))
        })?;
        members.push(FoundingMember {
            data: SocketAddr::new(ip, line.port),
            control: SocketAddr::new(ip, line.port + 1),
        });
    }
    let highest = lines.iter().map(|line| line.port + 1).max().expect("never empty");
    let observers = (0..lines.len()).filter(|place| lines[*place].observer).collect();
    let multicast_port = highest.checked_add(1).unwrap_or(lines[0].port);
    Ok(Listed { members, observers, multicast_port })
}

/// An address of the host, IPv4 if it has one.
fn resolve(host: &str, port: u16) -> Result<IpAddr, String> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let addresses = (host, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let addresses: Vec<_> = addresses.map(|address| address.ip()).collect();
    let v4 = addresses.iter().find(|ip| ip.is_ipv4());
    v4.or(addresses.first()).copied().ok_or_else(|| "no address".to_owned())
}

/// Writes all files, or none: everything is looked at before anything is written.
fn write_all(args: &Args, founding: &Founding) -> Result<Vec<PathBuf>, Failure> {
    let dir = &std::path::absolute(&args.dir).map_err(|error| Failure::host(&args.dir, &error))?;
    let mut files = Vec::new();
    for node in 0..founding.members.len() {
        let text = founding.file(dir, node).map_err(|errors| Failure::usage(&errors))?;
        files.push((dir.join(Founding::file_name(node)), text));
    }
    let list = dir.join("failover.csv");
    if !args.members.as_ref().is_some_and(|given| same_file(given, &list)) {
        files.push((list, list_text(founding)));
    }
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        let message = format!("{}: exists already; nothing was written", path.display());
        return Err(Failure::usage(&message));
    }
    fs::create_dir_all(dir).map_err(|error| Failure::host(dir, &error))?;
    for (index, (path, text)) in files.iter().enumerate() {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(text.as_bytes())) {
            // Half a group would be worse than none; these files were made just now, by this very loop.
            let made = index + usize::from(error.kind() != io::ErrorKind::AlreadyExists);
            for (path, _) in &files[..made] {
                let _ = fs::remove_file(path);
            }
            return Err(Failure::host(path, &error));
        }
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// The member list of the group: data addresses, for each control address is the next port.
fn list_text(founding: &Founding) -> String {
    let hosts: Vec<_> = founding
        .members
        .iter()
        .map(|member| (member.data.ip().to_string(), member.data.port()))
        .collect();
    let lines = hosts.iter().enumerate();
    let observes = |place| founding.settings.contains(&observer(place));
    write_members(lines.map(|(place, (host, port))| (host.as_str(), *port, observes(place))))
}

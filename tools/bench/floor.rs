//! The floors of a round trip, with nothing of Quorate in them: bare processes that forward datagrams.
//!
//! * **raw UDP**: two processes, connected sockets, one datagram there and back.
//! * **bare quorum skeleton**: client -> leader -> every follower -> leader -> client, the leader answering as soon as it
//!   and the answering followers are a majority. For three nodes that is the first follower's answer. No log, no checksum,
//!   no repair: whatever a commit costs above this is ours.
//!
//! Plain `recvfrom` and `sendto` in all of them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::children::{ChildArgs, Running, introduce};
use crate::failure::Failure;
use crate::subject::{Sent, Subject};
use crate::waiting::{Waiter, Waiting};

/// Hidden verb: sends every datagram back where it came from, on a connected socket if told one address.
pub(crate) const ECHO: &str = "bench-echo";
/// Hidden verb: the skeleton's leader.
pub(crate) const FORWARD: &str = "bench-forward";

/// Bytes of a datagram that carry the number.
pub(crate) const NUMBER_BYTES: usize = 8;
/// Receive buffer asked for; the host may give less.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Largest datagram of UDP over IPv4.
const DATAGRAM_BYTES: usize = 65_507;
/// Numbers whose answers are counted at once: far more than are ever unanswered.
const NUMBERS: usize = 8192;

/// Where the processes of a subject run: round robin over these CPUs, or anywhere when there are none.
pub(crate) type Cpus = Vec<usize>;

/// What both floors are made with.
#[derive(Clone, Debug)]
pub(crate) struct FloorSettings {
    /// Bytes of a datagram.
    pub(crate) datagram_bytes: usize,
    /// How all processes wait, the one that measures included.
    pub(crate) wait: Waiting,
    /// CPUs of the processes: the client's first.
    pub(crate) cpus: Cpus,
    /// Processes end by themselves after this.
    pub(crate) lifetime_s: u64,
}

impl FloorSettings {
    fn child(&self, index: usize) -> ChildArgs {
        let cpu = (!self.cpus.is_empty()).then(|| self.cpus[index % self.cpus.len()]);
        ChildArgs { parent: std::process::id(), lifetime_s: self.lifetime_s, wait: self.wait, cpu }
    }
}

/// Either floor, as the client sees it.
pub(crate) struct Floor {
    name: &'static str,
    settings: FloorSettings,
    /// Nodes of the skeleton; none: raw UDP.
    nodes: Option<usize>,
    round: Option<Round>,
}

struct Round {
    socket: UdpSocket,
    /// Whom to send to; none: the socket is connected.
    to: Option<SocketAddr>,
    bytes: Vec<u8>,
    /// For their `Drop`, which ends them.
    _children: Vec<Running>,
}

impl Floor {
    /// Two processes.
    pub(crate) fn raw_udp(settings: FloorSettings) -> Self {
        Self { name: "raw_udp", settings, nodes: None, round: None }
    }
    /// `nodes` processes (at least one) and the client.
    pub(crate) fn skeleton(settings: FloorSettings, nodes: usize) -> Self {
        assert!(nodes > 0, "a group has a leader");
        Self { name: "skeleton", settings, nodes: Some(nodes), round: None }
    }
}

impl Subject for Floor {
    fn name(&self) -> &'static str {
        self.name
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let socket = bind()?;
        let client = local_address(&socket)?;
        let mut children = Vec::new();
        if let Some(nodes) = self.nodes {
            let mut leader = Running::start(FORWARD, &self.settings.child(1))?;
            let mut told = vec![client];
            for index in 1..nodes {
                let mut follower = Running::start(ECHO, &self.settings.child(1 + index))?;
                follower.tell(&[])?;
                told.push(follower.address);
                children.push(follower);
            }
            leader.tell(&told)?;
            children.insert(0, leader);
        } else {
            let mut echo = Running::start(ECHO, &self.settings.child(1))?;
            echo.tell(&[client])?;
            children.push(echo);
        }
        let to = self.nodes.map(|_| children[0].address);
        if to.is_none() {
            socket.connect(children[0].address).map_err(Failure::host("connecting a socket"))?;
        }
        let bytes = vec![0; self.settings.datagram_bytes.max(NUMBER_BYTES)];
        self.round = Some(Round { socket, to, bytes, _children: children });
        Ok(())
    }

    fn try_send(&mut self, number: u64) -> Result<Sent, Failure> {
        let round = self.round.as_mut().expect("between begin and end");
        round.bytes[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
        let result = match round.to {
            Some(leader) => round.socket.send_to(&round.bytes, leader),
            None => round.socket.send(&round.bytes),
        };
        match result {
            Ok(_) => Ok(Sent::Yes),
            Err(error) if is_passing(&error) => Ok(Sent::Refused),
            Err(error) => Err(Failure::Host { what: "sending a datagram", error }),
        }
    }

    fn poll(&mut self, answered: &mut dyn FnMut(u64)) -> Result<usize, Failure> {
        let round = self.round.as_mut().expect("between begin and end");
        match round.socket.recv_from(&mut round.bytes) {
            Ok((length, _)) => {
                if let Some(number) = number_of(&round.bytes[..length]) {
                    answered(number);
                }
                Ok(1)
            }
            Err(error) if is_passing(&error) => Ok(0),
            Err(error) => Err(Failure::Host { what: "receiving a datagram", error }),
        }
    }

    fn idle(&mut self) {
        // The one that measures never parks: the time of the next send would be missed by the host's timer slack.
        match self.settings.wait {
            Waiting::Spin => std::hint::spin_loop(),
            Waiting::Yield | Waiting::YieldPoll => std::thread::yield_now(),
        }
    }

    fn end(&mut self) {
        self.round = None;
    }
}

/// The process of [`ECHO`].
pub(crate) fn run_echo(args: &ChildArgs) -> Result<(), Failure> {
    let socket = bind()?;
    let told = introduce(args, local_address(&socket)?)?;
    if let [peer] = told[..] {
        socket.connect(peer).map_err(Failure::host("connecting a socket"))?;
        return serve(args, &socket, |bytes, _| {
            let _ = socket.send(bytes); // what the host drops is a lost reply, which the client counts
        });
    }
    serve(args, &socket, |bytes, from| {
        let _ = socket.send_to(bytes, from); // likewise
    })
}

/// The process of [`FORWARD`]: told the client's address, then the followers'.
pub(crate) fn run_forward(args: &ChildArgs) -> Result<(), Failure> {
    let socket = bind()?;
    let told = introduce(args, local_address(&socket)?)?;
    let Some((&client, followers)) = told.split_first() else {
        let what = "was told no client".to_owned();
        return Err(Failure::Child { verb: FORWARD, what });
    };
    let mut answers = Answers::new(followers.len());
    serve(args, &socket, |bytes, from| {
        let Some(number) = number_of(bytes) else { return };
        // Drops of the host are lost replies, which the client counts.
        if from == client {
            for follower in followers {
                let _ = socket.send_to(bytes, follower);
            }
            if answers.asked(number) {
                let _ = socket.send_to(bytes, client);
            }
        } else if answers.answered(number) {
            let _ = socket.send_to(bytes, client);
        }
    })
}

/// Counts followers' answers until they and the leader are a majority.
struct Answers {
    needed: usize,
    counts: Vec<(u64, usize)>,
}

impl Answers {
    fn new(followers: usize) -> Self {
        Self { needed: followers.div_ceil(2), counts: vec![(u64::MAX, 0); NUMBERS] }
    }
    /// A send went out; whether it is answered already.
    fn asked(&mut self, number: u64) -> bool {
        self.counts[number as usize % NUMBERS] = (number, 0);
        self.needed == 0
    }
    /// A follower answered; whether that made the majority.
    fn answered(&mut self, number: u64) -> bool {
        let (of, count) = &mut self.counts[number as usize % NUMBERS];
        if *of != number {
            return false;
        }
        *count += 1;
        *count == self.needed
    }
}

/// Receives for ever, or until the process is ended.
fn serve(
    args: &ChildArgs,
    socket: &UdpSocket,
    mut handle: impl FnMut(&[u8], SocketAddr),
) -> Result<(), Failure> {
    let mut waiter = Waiter::new(args.wait, socket).map_err(Failure::host("polling"))?;
    let mut bytes = vec![0; DATAGRAM_BYTES];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => {
                waiter.busy();
                handle(&bytes[..length], from);
            }
            Err(error) if is_passing(&error) => {
                waiter.idle().map_err(Failure::host("polling"))?;
            }
            Err(error) => return Err(Failure::Host { what: "receiving a datagram", error }),
        }
    }
}

/// A non-blocking socket on loopback and a port that is free.
fn bind() -> Result<UdpSocket, Failure> {
    let socket =
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failure::host("binding a socket"))?;
    socket.set_nonblocking(true).map_err(Failure::host("setting up a socket"))?;
    socket2::SockRef::from(&socket)
        .set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
        .map_err(Failure::host("setting up a socket"))?;
    Ok(socket)
}

fn local_address(socket: &UdpSocket) -> Result<SocketAddr, Failure> {
    socket.local_addr().map_err(Failure::host("asking for a socket's address"))
}

/// Nothing there, no room, a signal, or the echo of a peer that is not up yet or has just gone.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionRefused
    )
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_that_makes_a_majority_is_passed_on_and_no_other() {
        for (followers, wanted) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            let mut answers = Answers::new(followers);
            assert!(!answers.asked(9));
            let passed: Vec<usize> = (1..=followers).filter(|_| answers.answered(9)).collect();
            assert_eq!(passed, [wanted], "{followers} followers");
        }
        assert!(Answers::new(0).asked(9), "alone is a majority of one");
    }

    #[test]
    fn answers_to_what_was_not_asked_or_is_long_past_are_dropped() {
        let mut answers = Answers::new(2);
        assert!(!answers.answered(5));
        answers.asked(5);
        answers.asked(5 + NUMBERS as u64);
        assert!(!answers.answered(5));
        assert!(answers.answered(5 + NUMBERS as u64));
    }
}

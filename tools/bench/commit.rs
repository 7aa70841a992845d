//! A group of nodes as a subject: from a client's command to its reply, which comes after the commit.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use quorate::client::{Answer, Client, ClientSettings, ClientState, Outcome, Refusal, Request};
use quorate::io::clock::HostClock;
use quorate::io::udp::{UdpNetwork, UdpSettings};
use quorate::runtime::config::Layers;

use crate::failure::Failure;
use crate::group::{Group, GroupSettings};
use crate::load::UNANSWERED_MAX;
use crate::subject::{Sent, Subject};

/// How long a group may take to let a client in.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether its nodes still run, while waiting for that.
const CHECK_EVERY: Duration = Duration::from_millis(50);

/// The group, founded anew for each round.
pub(crate) struct Commit {
    settings: GroupSettings,
    payload: Vec<u8>,
    round: Option<Round>,
}

struct Round {
    client: Client<UdpNetwork>,
    /// What to add to a number to have the client's; known with the first command.
    offset: Option<u64>,
    /// For its `Drop`, after the client's.
    group: Group,
}

impl Commit {
    /// Commands of `payload_bytes` to the echo service.
    pub(crate) fn new(settings: GroupSettings, payload_bytes: usize) -> Self {
        let payload = (0..payload_bytes).map(|n| (n % 251) as u8).collect();
        Self { settings, payload, round: None }
    }
}

impl Subject for Commit {
    fn name(&self) -> &'static str {
        "commit"
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let group = Group::start(&self.settings)?;
        let client = connect(&group)?;
        let mut round = Round { client, offset: None, group };
        round.wait_until_open()?;
        self.round = Some(round);
        Ok(())
    }

    fn try_send(&mut self, number: u64) -> Result<Sent, Failure> {
        let round = self.round.as_mut().expect("between begin and end");
        let sequence = match round.client.send(&self.payload) {
            Ok(sequence) => sequence,
            Err(
                Refusal::BackPressured
                | Refusal::NotConnected
                | Refusal::NoQuorum
                | Refusal::NoSpace,
            ) => {
                return Ok(Sent::Refused);
            }
            Err(refusal @ (Refusal::TooLong { .. } | Refusal::Closed)) => {
                return Err(failed(format!("a command was refused: {refusal:?}")));
            }
        };
        round.client.flush(HostClock.now());
        let offset = *round.offset.get_or_insert(sequence.0.wrapping_sub(number));
        assert_eq!(sequence.0, number.wrapping_add(offset), "every accepted send has a number");
        Ok(Sent::Yes)
    }

    fn poll(&mut self, answered: &mut dyn FnMut(u64)) -> Result<usize, Failure> {
        let round = self.round.as_mut().expect("between begin and end");
        let offset = round.offset.unwrap_or_default();
        let mut wrong = None;
        let worked = round.client.poll(HostClock.now(), |answer| match number(&answer) {
            Some(sequence) if answer.reply == self.payload => {
                answered(sequence.wrapping_sub(offset));
            }
            _ => wrong = Some((answer.request, answer.outcome)),
        });
        match wrong {
            None => Ok(worked),
            Some((request, outcome)) => {
                Err(failed(format!("{request:?} ended as {outcome:?}, or with another's reply")))
            }
        }
    }

    fn idle(&mut self) {
        std::thread::yield_now();
    }

    fn end(&mut self) {
        self.round = None;
    }

    fn explain(&mut self) -> Result<(), Failure> {
        self.round.as_mut().map_or(Ok(()), |round| round.group.check())
    }
}

impl Round {
    fn wait_until_open(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + OPEN_TIMEOUT;
        let mut check = Instant::now();
        while self.client.state() != ClientState::Open {
            if self.client.poll(HostClock.now(), |_| ()) == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
            let now = Instant::now();
            if now >= check {
                self.group.check()?;
                check = now + CHECK_EVERY;
            }
            if now >= end {
                let state = self.client.state();
                return Err(failed(format!("{state:?} after {OPEN_TIMEOUT:?}")));
            }
        }
        Ok(())
    }
}

/// The client's number of a command that was applied.
fn number(answer: &Answer<'_>) -> Option<u64> {
    match (answer.request, answer.outcome) {
        (Request::Command(sequence), Outcome::Applied) => Some(sequence.0),
        _ => None,
    }
}

fn connect(group: &Group) -> Result<Client<UdpNetwork>, Failure> {
    let settings = Layers::new().file(&group.config()).check();
    let settings = settings.map_err(|errors| failed(errors.to_string()))?;
    let members: Vec<_> = settings.members.iter().map(|member| (member.id, member.data)).collect();
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let addresses = members.iter().map(|(_, address)| *address).collect();
    let network = UdpNetwork::open(&UdpSettings::client(members, bind))
        .map_err(|error| failed(error.to_string()))?;
    // One client of a group of its own: any seed differs from all others.
    let mut client = ClientSettings::new(settings.group.id, addresses, HostClock.now().0);
    client.in_flight_max = UNANSWERED_MAX;
    "quorate-bench".clone_into(&mut client.name);
    Client::new(client, network).map_err(|error| failed(error.to_string()))
}

fn failed(what: String) -> Failure {
    Failure::Child { verb: "client", what }
}

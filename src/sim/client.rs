//! A simulated client: the shipped library under a program that sends commands and questions, and remembers what it was told.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::clock::Clock;
use super::ledger::{Ledger, REFUSED};
use super::machine::GROUP;
use super::plan::Plan;
use super::reader::Wrote;
use super::wire::{Endpoint, SharedPort, SimNetwork};
use crate::client::{Client, ClientSettings, ClientState, Outcome, Request, SessionTicket};
use crate::stream::prng::Prng;
use crate::types::Nanos;

/// A request's end, as the checkers want it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// The command has this place in the order.
    Placed {
        /// Its number.
        number: u64,
        /// Its place.
        place: u64,
    },
    /// The command was refused by the service.
    Refused {
        /// Its number.
        number: u64,
    },
    /// So many commands had taken effect.
    Counted {
        /// How many.
        count: u64,
    },
    /// Nobody knows (the session was lost), or the reply is no longer kept.
    Unknown,
    /// Something that no request of this program can end with.
    Wrong(Outcome),
}

/// A request that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ended {
    /// When it was given to the library, in the world's time.
    pub(super) sent_at: Nanos,
    /// How.
    pub(super) told: Told,
}

/// A request without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    number: u64,
    sent_at: Nanos,
    /// Of the command, in bytes.
    length: usize,
    /// By an earlier life.
    resumed: bool,
}

/// One client, life after life.
pub(super) struct SimClient {
    number: usize,
    pub(super) clock: Clock,
    pub(super) port: SharedPort,
    pub(super) library: Client<SimNetwork>,
    random: Prng,
    waiting: BTreeMap<Request, Waiting>,
    /// What an earlier life sent without an answer: to be sent again, in this order, before anything else.
    again: VecDeque<(Request, Waiting)>,
    /// Of those, how many were answered.
    pub(super) resolved: u64,
    /// Commands sent, in all lives; and questions.
    sent: u64,
    asked: u64,
    next_at: Nanos,
    pub(super) wake_at: Nanos,
    /// Until then its program stands still.
    pub(super) asleep_until: Nanos,
    /// Commands answered, in all lives.
    pub(super) answered: u64,
    /// Sessions lost.
    pub(super) lives: u64,
    /// The last command that it was told of: its entry, and its place.
    pub(super) wrote: Option<Wrote>,
    /// Commands it may send.
    pub(super) budget: u64,
}

impl SimClient {
    pub(super) fn new(number: usize, plan: &Plan, clock: Clock, seed: u64) -> Self {
        let port = SharedPort::default();
        let mut random = Prng::new(seed);
        let library = library(number, plan, &port, random.next_u64(), None);
        Self {
            number,
            clock,
            port,
            library,
            random,
            waiting: BTreeMap::new(),
            again: VecDeque::new(),
            resolved: 0,
            sent: 0,
            asked: 0,
            next_at: Nanos(0),
            wake_at: Nanos(0),
            asleep_until: Nanos(0),
            answered: 0,
            lives: 1,
            wrote: None,
            budget: plan.commands,
        }
    }

    /// Whether nothing is owed to it.
    pub(super) fn is_satisfied(&self) -> bool {
        self.waiting.is_empty() && self.again.is_empty()
    }

    /// Redirects that it has followed in this life.
    pub(super) fn redirects(&self) -> u64 {
        self.library.counters().redirects
    }

    /// Where it stands, for the trace.
    pub(super) fn state(&self) -> ClientState {
        self.library.state()
    }

    /// The program dies; another one takes its place, with a session of its own.
    pub(super) fn restart(&mut self, plan: &Plan) {
        self.port.borrow_mut().clear();
        self.library = library(self.number, plan, &self.port, self.random.next_u64(), None);
        self.waiting.clear();
        self.again.clear();
        self.lives += 1;
    }

    /// The program dies; another one goes on with its session, and asks what became of what had no answer (G124).
    pub(super) fn resume(&mut self, plan: &Plan) {
        let Some(ticket) = self.library.ticket() else { return self.restart(plan) };
        self.port.borrow_mut().clear();
        let mut again = core::mem::take(&mut self.waiting);
        again.retain(|request, _| matches!(request, Request::Command(_)));
        again.extend(self.again.drain(..));
        let resumed = |(request, waiting)| (request, Waiting { resumed: true, ..waiting });
        self.again = again.into_iter().map(resumed).collect();
        let seed = self.random.next_u64();
        self.library = library(self.number, plan, &self.port, seed, Some(ticket));
    }

    /// One turn at `now`. What ended goes to `ended`.
    pub(super) fn step(&mut self, now: Nanos, plan: &Plan, ended: &mut Vec<Ended>) {
        let local = self.clock.local(now);
        let (waiting, resolved, before) = (&mut self.waiting, &mut self.resolved, ended.len());
        let wrote = &mut self.wrote;
        self.library.poll(local, |answer| {
            let Some(Waiting { number, sent_at, resumed, .. }) = waiting.remove(&answer.request)
            else {
                ended.push(Ended { sent_at: now, told: Told::Wrong(answer.outcome) });
                return;
            };
            let told = told(answer.request, number, answer.outcome, answer.reply);
            if let Told::Placed { place, .. } = told {
                *wrote = (*wrote).max(Some((answer.sequence, place)));
            }
            *resolved += u64::from(resumed && matches!(told, Told::Placed { .. }));
            ended.push(Ended { sent_at, told });
        });
        self.answered += (ended.len() - before) as u64;
        if matches!(self.library.state(), ClientState::Closed(_)) {
            self.restart(plan);
        }
        self.ask_again();
        if now >= self.next_at {
            let gap = self.random.below(2 * plan.think_ns) + 1;
            self.next_at = now.plus(gap);
            self.ask(now, plan);
            self.library.flush(local);
        }
        self.wake_at = self.clock.world(self.library.deadline()).min(self.next_at);
    }

    fn ask_again(&mut self) {
        while let Some(&(request, waiting)) = self.again.front() {
            let Ok(number) = self.library.send(&command(waiting.number, waiting.length)) else {
                return;
            };
            // Under another number it would be another command.
            assert_eq!(Request::Command(number), request, "a resumed client sends it again");
            self.again.pop_front();
            self.waiting.insert(request, waiting);
        }
    }

    fn ask(&mut self, now: Nanos, plan: &Plan) {
        if !self.again.is_empty() {
            return;
        }
        if self.sent >= self.budget || self.waiting.len() >= plan.in_flight {
            return;
        }
        let reads = self.number < plan.readers;
        if reads && self.asked >= self.budget {
            return;
        }
        if self.random.below(10) == 0 || reads {
            if let Ok(request) = self.library.query(&[]) {
                self.asked += u64::from(reads);
                let waiting = Waiting { number: 0, sent_at: now, length: 0, resumed: false };
                self.waiting.insert(request, waiting);
            }
            return;
        }
        let number = (self.number as u64) << 32 | (self.sent + 1);
        let length = 8 + self.random.below(plan.command_bytes_max as u64) as usize;
        if let Ok(sequence) = self.library.send(&command(number, length)) {
            self.sent += 1;
            let waiting = Waiting { number, sent_at: now, length, resumed: false };
            self.waiting.insert(Request::Command(sequence), waiting);
        }
    }
}

fn command(number: u64, length: usize) -> Vec<u8> {
    let mut command = vec![number as u8; length];
    command[..8].copy_from_slice(&number.to_le_bytes());
    command
}

fn library(
    number: usize,
    plan: &Plan,
    port: &SharedPort,
    seed: u64,
    resume: Option<SessionTicket>,
) -> Client<SimNetwork> {
    let members = (0..plan.nodes).map(|node| Endpoint::Node(node).address()).collect();
    let network = SimNetwork::new(Endpoint::Client(number), plan.nodes, Rc::clone(port));
    let mut settings = ClientSettings::new(GROUP, members, seed);
    (settings.in_flight_max, settings.resume) = (plan.in_flight, resume);
    settings.session_timeout_ns = plan.session_timeout_ns;
    settings.end.keep_alive_ns = settings.end.keep_alive_ns.min(plan.session_timeout_ns / 5);
    if !plan.forward {
        settings.forward_after_ns = u64::MAX;
    }
    Client::new(settings, network).expect("the defaults work")
}

fn told(request: Request, number: u64, outcome: Outcome, reply: &[u8]) -> Told {
    let word = reply.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    match (request, outcome, word) {
        (Request::Command(_), Outcome::Applied, Some(place)) => Told::Placed { number, place },
        (Request::Command(_), Outcome::Rejected { code }, _)
            if code == REFUSED.0 && Ledger::refuses(number) =>
        {
            Told::Refused { number }
        }
        (Request::Query(_), Outcome::Applied, Some(count)) => Told::Counted { count },
        (_, Outcome::Forgotten | Outcome::Unknown, _) => Told::Unknown,
        (_, outcome, _) => Told::Wrong(outcome),
    }
}

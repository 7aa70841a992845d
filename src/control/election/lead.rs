//! Leading: calling the others, making voters of those who may have forgotten, handing over, and the end of it.

use core::fmt;

use super::members::Known;
use super::reserve::HandOver;
use super::{CALL_NS, Election, Intent, Mutant, Output, Phase, Target};
use crate::control::event::{Event, TransferFailure};
use crate::control::message::{Message, Standing};
use crate::link::ControlToCore;
use crate::types::{Incarnation, Leadership, Nanos, NodeId, Position};

/// A leader waits this part of the leader timeout before it stands again above a newer term: another leader calls by then.
const RENEW_PARTS: u64 = 3;

/// A leadership of this node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reign {
    leadership: Leadership,
    founding: bool,
    /// When it was first seen that somebody promised a newer leadership.
    newer: Option<Nanos>,
    pub(super) hand_over: Option<HandOver>,
}

impl Reign {
    pub(super) fn leadership(&self) -> Leadership {
        self.leadership
    }
}

/// Why a transfer is not begun.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TransferRefusal {
    /// This node does not lead.
    NotLeading,
    /// It leads already.
    Itself {
        /// The target.
        node: NodeId,
    },
    /// Not on the member list.
    Unknown {
        /// The target.
        node: NodeId,
    },
    /// An observer never leads.
    Observer {
        /// The target.
        node: NodeId,
    },
    /// Priority 0 never leads.
    NeverLeads {
        /// The target.
        node: NodeId,
    },
    /// It does not follow this leader now.
    NotFollowing {
        /// The target.
        node: NodeId,
    },
    /// Another transfer is under way.
    Busy {
        /// Its target.
        to: NodeId,
    },
    /// No other node could take the lead.
    NobodyElse,
}

impl fmt::Display for TransferRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeading => write!(f, "this node does not lead"),
            Self::Itself { node } => write!(f, "node {node} leads already"),
            Self::Unknown { node } => write!(f, "node {node} is not a member"),
            Self::Observer { node } => write!(f, "node {node} is an observer: it never leads"),
            Self::NeverLeads { node } => write!(f, "node {node} has priority 0: it never leads"),
            Self::NotFollowing { node } => write!(f, "node {node} does not follow now"),
            Self::Busy { to } => write!(f, "the lead is being handed to node {to}"),
            Self::NobodyElse => write!(f, "no other node could take the lead now"),
        }
    }
}

impl core::error::Error for TransferRefusal {}

impl Election {
    /// Takes the lead: the votes are in, and everything it needs is durable.
    pub(super) fn wins(&mut self, now: Nanos, leadership: Leadership, founding: bool) {
        if founding {
            let generation = leadership.generation;
            self.event(Event::Founded { generation });
            self.founded_in = Some(leadership);
        }
        for known in &mut self.known {
            *known = Known {
                following: None,
                readmit: None,
                reserved: Leadership::default(),
                founder: known.founder.filter(|_| founding),
                ..*known
            };
        }
        self.may_ack(self.settings.durability.leader);
        self.outputs.push_back(Output::ToCore(ControlToCore::Lead(leadership)));
        self.phase = Phase::Leading(Reign { leadership, founding, newer: None, hand_over: None });
        self.handing = None;
        self.announce_at = Nanos(0);
        self.call_at = now;
        self.call(now);
    }

    /// What a leader does as time passes.
    pub(super) fn reign(&mut self, now: Nanos) {
        let electable = self.is_electable();
        let relief = self.wants_relief() && now >= self.relieve_at;
        let wait_ns = self.settings.leader_timeout_ns / RENEW_PARTS;
        let Phase::Leading(reign) = &mut self.phase else { return };
        let leadership = reign.leadership;
        if self.highest > leadership {
            reign.newer.get_or_insert(now);
        }
        let rested = reign.newer.is_some_and(|at| now >= at.plus(wait_ns));
        match reign.hand_over {
            Some(hand_over) if now >= hand_over.until => {
                reign.hand_over = None;
                self.fail_transfer(TransferFailure::TooSlow);
                self.outputs.push_back(Output::ToCore(ControlToCore::KeepLead));
            }
            Some(_) => self.go_on_handing(now),
            None if rested && electable => return self.renew(now, leadership),
            None if relief => self.relieve(now),
            _ => {}
        }
        self.call(now);
    }

    /// Somebody promised a newer term than this one: only a newer one still will be followed. But if so many did that there
    /// is no quorum left for this one, another leads, or will.
    fn renew(&mut self, now: Nanos, leadership: Leadership) {
        let left = self.settings.members.iter().zip(&self.known);
        let left = left.filter(|(member, known)| member.voter && known.promised <= leadership);
        if left.count() < self.settings.quorum() {
            return self.lost_quorum(now);
        }
        let next = self.next_leadership();
        self.stand(next, false);
    }

    /// Calls who does not follow, and tells who is a voter again.
    fn call(&mut self, now: Nanos) {
        if now < self.call_at {
            return;
        }
        self.call_at = now.plus(CALL_NS);
        let Phase::Leading(Reign { leadership, founding, .. }) = self.phase else { return };
        for index in 0..self.known.len() {
            let node = self.settings.members[index].node;
            if index == self.own {
                continue;
            }
            self.call_one(index, leadership, founding);
            let known = self.known[index];
            if let Some((incarnation, needed)) = known.readmit {
                self.send(node, leadership, Message::Readmit { incarnation, needed });
            }
        }
    }

    fn call_one(&mut self, index: usize, leadership: Leadership, founding: bool) {
        let known = self.known[index];
        if known.following != Some(leadership) {
            let founder = known.founder.filter(|_| founding);
            self.send(self.settings.members[index].node, leadership, Message::Lead { founder });
        }
    }

    /// A vote came after the lead was won. While its voter made it durable it could not be called: now it can, and the
    /// clients that are still with it need not wait until everybody is called again.
    pub(super) fn call_voter(&mut self, voter: usize, of: Leadership) {
        if let Phase::Leading(Reign { leadership, founding, .. }) = self.phase
            && of == leadership
        {
            self.call_one(voter, leadership, founding);
        }
    }

    pub(super) fn reign_deadline(&self, reign: &Reign) -> Nanos {
        let calls = self.known.iter().enumerate().any(|(index, known)| {
            index != self.own
                && (known.following != Some(reign.leadership) || known.readmit.is_some())
        });
        let mut next = if calls { self.call_at } else { Nanos(u64::MAX) };
        if let Some(hand_over) = reign.hand_over {
            next = next.min(hand_over.deadline());
        }
        if let (Some(at), None) = (reign.newer, reign.hand_over) {
            next = next.min(at.plus(self.settings.leader_timeout_ns / RENEW_PARTS));
        }
        if reign.hand_over.is_none() && self.wants_relief() {
            next = next.min(self.relieve_at);
        }
        next
    }

    /// The core no longer hears a quorum, and has fallen silent: this leadership is over.
    pub(super) fn lost_quorum(&mut self, now: Nanos) {
        if !matches!(self.phase, Phase::Leading(_)) {
            return;
        }
        self.fail_transfer(TransferFailure::LostQuorum);
        // Those who still hear each other go first.
        let half_ns = self.settings.leader_timeout_ns / 2;
        self.not_before = now.plus(half_ns + self.draw(half_ns));
        self.look(now);
    }

    pub(super) fn fail_transfer(&mut self, why: TransferFailure) {
        if let Some(to) = self.handing.take() {
            self.event(Event::TransferFailed { to, why });
        }
    }

    /// The core says that a node holds what makes it a voter again.
    pub(super) fn readmits(&mut self, node: NodeId, incarnation: Incarnation, needed: Position) {
        if let Phase::Leading(_) = self.phase
            && let Some(index) = self.settings.index_of(node)
        {
            self.known[index].readmit = Some((incarnation, needed));
            self.call_at = Nanos(0);
        }
    }

    /// Its leader says that this node is a voter again.
    pub(super) fn on_readmit(
        &mut self,
        now: Nanos,
        by: Target,
        incarnation: Incarnation,
        needed: Position,
    ) {
        if self.standing == Standing::Clean {
            return self.announce_to(by.leader); // it says so until it is heard
        }
        let this_life = incarnation == self.settings.incarnation;
        let any = self.has(Mutant::ReadmitAnyLife);
        match self.phase {
            Phase::Following { target, since } if any || (target == by && this_life) => {
                let intent = Intent::Readmit { target, since, needed };
                self.persist(now, intent, self.glance.recency);
            }
            _ => {}
        }
    }

    /// To whom the lead is being handed.
    #[must_use]
    pub fn handing(&self) -> Option<NodeId> {
        self.handing
    }

    /// Begins to hand the lead to `to`. How it ends is told by an event.
    ///
    /// # Errors
    /// [`TransferRefusal`]: nothing has changed.
    pub fn transfer(&mut self, now: Nanos, to: NodeId) -> Result<(), TransferRefusal> {
        let Phase::Leading(reign) = &mut self.phase else {
            return Err(TransferRefusal::NotLeading);
        };
        if let Some(hand_over) = reign.hand_over {
            return Err(TransferRefusal::Busy { to: hand_over.target(&self.settings) });
        }
        let index = self.settings.index_of(to).ok_or(TransferRefusal::Unknown { node: to })?;
        let member = self.settings.members[index];
        if index == self.own {
            return Err(TransferRefusal::Itself { node: to });
        }
        if !member.voter {
            return Err(TransferRefusal::Observer { node: to });
        }
        if member.priority == 0 {
            return Err(TransferRefusal::NeverLeads { node: to });
        }
        if self.known[index].following != Some(reign.leadership) || !self.known[index].present {
            return Err(TransferRefusal::NotFollowing { node: to });
        }
        self.handing = Some(to);
        self.begin_to_hand(now, index);
        Ok(())
    }

    /// Hands the lead to the best of the others.
    ///
    /// # Errors
    /// [`TransferRefusal`]: nothing has changed.
    pub fn step_down(&mut self, now: Nanos) -> Result<NodeId, TransferRefusal> {
        if !matches!(self.phase, Phase::Leading(_)) {
            return Err(TransferRefusal::NotLeading);
        }
        let best = self.best_follower(|_| true).ok_or(TransferRefusal::NobodyElse)?;
        let to = self.settings.members[best].node;
        self.transfer(now, to).map(|()| to)
    }

    /// The core has stopped taking commands and the target holds everything; or is `behind` by so many bytes.
    pub(super) fn on_hand_over(&mut self, now: Nanos, to: NodeId, behind: Option<u64>) {
        let Phase::Leading(reign) = &mut self.phase else { return };
        let Some(hand_over) = &mut reign.hand_over else { return };
        if hand_over.target(&self.settings) != to {
            return;
        }
        if let Some(bytes) = behind {
            reign.hand_over = None;
            self.fail_transfer(TransferFailure::Behind { bytes });
        } else {
            hand_over.is_ready(now);
        }
    }

    /// It won the founding election, and perhaps could not call everybody, or not in time: those who voted for it are founders
    /// all the same.
    pub(super) fn tell_founders(&mut self) {
        let Some(leadership) = self.founded_in else { return };
        for index in 0..self.settings.members.len() {
            if index != self.own {
                self.send(self.settings.members[index].node, leadership, Message::Founded);
            }
        }
    }

    /// The winner of a founding election in which this node voted for it: with the vote that it remembers durably, or with one
    /// of this life, after which it may have promised newer terms. One that was wiped since remembers neither.
    pub(super) fn on_founded(&mut self, now: Nanos, by: Target) {
        let last = self.promised == by.leadership && self.vote == Some(by.leader);
        let voted = last || self.given.contains(&(by.leadership, by.leader));
        if !self.is_founded() && voted && !self.is_busy() {
            let intent = Intent::Found { leadership: self.promised };
            self.persist(now, intent, self.glance.recency);
        }
    }

    /// Another member list holds.
    pub(super) fn relist(&mut self, now: Nanos) {
        match &self.phase {
            // Places on the list have changed: what refers to them begins again.
            Phase::Looking(_) | Phase::Standing(_) => {
                self.phase = Phase::Waiting { until: now };
            }
            Phase::Leading(Reign { hand_over: Some(_), .. }) => {
                if let Phase::Leading(reign) = &mut self.phase {
                    reign.hand_over = None;
                }
                self.fail_transfer(TransferFailure::TooSlow);
                self.outputs.push_back(Output::ToCore(ControlToCore::KeepLead));
            }
            _ => {}
        }
    }
}

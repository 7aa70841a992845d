//! Handing over without waiting for a disk: votes that are kept ahead.
//!
//! The coming term, and the vote in it for the target, are made durable on all voters while the old leadership goes on. That
//! binds each of them to give this vote to nobody else, and says nothing about logs: it is no vote yet. Then the core takes no
//! more commands, the target catches up and stands, and each voter does what it does for any candidate: it fences its core,
//! compares the logs on what the core reports after that, and answers. Only the write is behind it already.
//!
//! If the hand-over fails the leadership goes on, with everybody who followed it. The kept term is lost: who starts again
//! holds it for promised, says so, and the leader stands above it.

use super::{Election, ElectionSettings, Intent, Mutant, Output, Phase, Target};
use crate::control::message::{Message, Standing};
use crate::link::{ControlToCore, Promise, Rung};
use crate::types::{Leadership, Nanos, NodeId};

/// What is missing for a hand-over is asked for again after this, ns.
const ASK_AGAIN_NS: u64 = 10 * Nanos::MILLISECOND;
/// The leader waits this part of the leader timeout for all votes to be kept; after that a quorum of them is enough.
const ALL_KEPT_PARTS: u64 = 3;

/// A transfer under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct HandOver {
    to: usize,
    /// In which it is to lead.
    next: Leadership,
    step: Step,
    /// What the step wants is asked for again then.
    ask_at: Nanos,
    pub(super) until: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    /// The votes are being kept; until then by all who follow.
    Keeping { all_until: Nanos },
    /// The core was told: it takes no more commands, and the target catches up.
    Stopping,
    /// The target has everything: it is told to stand.
    Standing,
}

/// A vote that is being kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reservation {
    promise: Promise,
    /// Who asked, and the leadership that goes on.
    by: Target,
}

impl HandOver {
    /// To whom.
    pub(super) fn target(&self, settings: &ElectionSettings) -> NodeId {
        settings.members[self.to].node
    }

    pub(super) fn deadline(&self) -> Nanos {
        match self.step {
            Step::Keeping { all_until } => self.ask_at.min(all_until).min(self.until),
            Step::Stopping => self.until,
            Step::Standing => self.ask_at.min(self.until),
        }
    }

    /// The core takes no more commands, and the target has everything.
    pub(super) fn is_ready(&mut self, now: Nanos) {
        (self.step, self.ask_at) = (Step::Standing, now);
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn fold(&mut self) {
        let never = Nanos(u64::MAX);
        (self.ask_at, self.until) = (never, never);
        if let Step::Keeping { all_until } = &mut self.step {
            *all_until = never;
        }
    }
}

impl Election {
    /// The leadership in which it has a role. Where votes are kept for a hand-over, it is older than what is promised.
    pub(super) fn role(&self) -> Option<Leadership> {
        match &self.phase {
            Phase::Leading(reign) => Some(reign.leadership()),
            Phase::Following { target, .. } => Some(target.leadership),
            _ => None,
        }
    }

    /// The newest leadership that it has to do with: the one of its role; without a role, what it promised.
    pub(super) fn current(&self) -> Leadership {
        self.role().unwrap_or(self.promised)
    }

    /// A fence, or a write of the node state, is under way: what wants another one comes again.
    pub(super) fn is_busy(&self) -> bool {
        self.reserving.is_some()
            || self.allowing
            || matches!(self.phase, Phase::Fencing(_) | Phase::Persisting { .. })
    }

    /// The node state says all of it already: the vote was kept for a hand-over.
    pub(super) fn is_durable(&self, promise: &Promise) -> bool {
        let Promise { leadership, vote, may_ack_memory, admitted, readmitted, .. } = *promise;
        (leadership, vote) == (self.promised, self.vote)
            && (self.may_ack_memory || !may_ack_memory)
            && !admitted
            && readmitted.is_none()
    }

    /// Takes over the vote that is durable now.
    pub(super) fn takes_vote(&mut self, intent: &Intent, promise: &Promise) {
        let same = promise.leadership == self.promised;
        let decided = match intent {
            Intent::Vote { granted, .. } => *granted,
            Intent::Stand { .. } => true,
            _ => self.decided && same,
        };
        // The mutant gives to another what it keeps, and forgets that it did.
        let kept = same && !self.decided && self.vote.is_some();
        if !(kept && self.has(Mutant::ReservedVoteTwice)) {
            (self.vote, self.decided) = (promise.vote, decided);
        }
    }

    /// Has the votes of the coming term kept for the member at `to`.
    pub(super) fn begin_to_hand(&mut self, now: Nanos, to: usize) {
        let next = self.next_leadership();
        let timeout = self.settings.leader_timeout_ns;
        let all_until = now.plus(timeout / ALL_KEPT_PARTS);
        let step = Step::Keeping { all_until };
        if let Phase::Leading(reign) = &mut self.phase {
            let until = now.plus(timeout);
            reign.hand_over = Some(HandOver { to, next, step, ask_at: now, until });
        }
        self.go_on_handing(now);
    }

    /// Asks for what is missing; goes a step further when nothing is.
    pub(super) fn go_on_handing(&mut self, now: Nanos) {
        let Phase::Leading(reign) = &mut self.phase else { return };
        let leadership = reign.leadership();
        let Some(hand_over) = &mut reign.hand_over else { return };
        let due = now >= hand_over.ask_at;
        if due {
            hand_over.ask_at = now.plus(ASK_AGAIN_NS);
        }
        let hand_over = *hand_over;
        let to = hand_over.target(&self.settings);
        match hand_over.step {
            Step::Keeping { all_until } => {
                if due {
                    self.ask_to_keep(leadership, hand_over);
                }
                if self.votes_are_kept(hand_over, now >= all_until) {
                    let until = now.plus(self.settings.leader_timeout_ns);
                    if let Phase::Leading(reign) = &mut self.phase {
                        reign.hand_over =
                            Some(HandOver { step: Step::Stopping, until, ..hand_over });
                    }
                    self.outputs.push_back(Output::ToCore(ControlToCore::HandOver { to }));
                }
            }
            Step::Standing if due => self.send(to, leadership, Message::Stand),
            Step::Stopping | Step::Standing => {}
        }
    }

    /// Asks the others first: this node's own write holds its thread up.
    fn ask_to_keep(&mut self, leadership: Leadership, hand_over: HandOver) {
        let HandOver { next, .. } = hand_over;
        let candidate = hand_over.target(&self.settings);
        for index in 0..self.known.len() {
            let member = self.settings.members[index];
            if index != self.own && member.voter && self.known[index].reserved != next {
                let message = Message::Reserve { term: next.term, candidate };
                self.send(member.node, leadership, message);
            }
        }
        let by = Target { leadership, leader: self.settings.node };
        self.reserve(by, next, candidate);
    }

    /// Whether the target, this node and a quorum have kept their votes; `all`: nobody else is waited for any more.
    fn votes_are_kept(&self, hand_over: HandOver, enough: bool) -> bool {
        let HandOver { to, next, .. } = hand_over;
        let kept = |index: usize| {
            if index == self.own {
                self.promised >= next
            } else {
                self.known[index].reserved == next
            }
        };
        let voters = || (0..self.known.len()).filter(|&index| self.settings.members[index].voter);
        let follows = |index: &usize| self.known[*index].following == self.role();
        kept(self.own)
            && kept(to)
            && voters().filter(|&index| kept(index)).count() >= self.settings.quorum()
            && (enough || voters().filter(follows).all(kept))
    }

    /// Makes the vote in `next` for `candidate` durable, while the role goes on.
    fn reserve(&mut self, by: Target, next: Leadership, candidate: NodeId) {
        if self.is_busy() || next <= self.promised {
            return;
        }
        let durability = self.settings.durability;
        let leads = candidate == self.settings.node;
        let rung = if leads { durability.leader } else { durability.follower };
        let promise = Promise {
            leadership: next,
            vote: Some(candidate),
            may_ack_memory: rung == Rung::Memory,
            admitted: false,
            founding: false,
            readmitted: None,
            ahead: true,
        };
        self.reserving = Some(Reservation { promise, by });
        self.outputs.push_back(Output::Persist(promise));
    }

    /// The leader that this node follows wants its vote to be kept.
    pub(super) fn on_reserve(&mut self, by: Target, next: Leadership, candidate: NodeId) {
        let follows = matches!(self.phase, Phase::Following { target, .. } if target == by);
        let members = &self.settings.members;
        let leads = |index: usize| members[index].is_electable();
        let may_lead = self.settings.index_of(candidate).is_some_and(leads);
        if !follows || !may_lead || !members[self.own].voter || self.standing != Standing::Clean {
            return;
        }
        self.highest = self.highest.max(next);
        if (next, Some(candidate)) == (self.promised, self.vote) {
            return self.send(by.leader, by.leadership, Message::Reserved { term: next.term });
        }
        self.reserve(by, next, candidate);
    }

    /// A vote is kept, durably.
    pub(super) fn reserved(&mut self, now: Nanos, reservation: &Reservation) {
        let Reservation { promise, by } = *reservation;
        (self.promised, self.vote, self.decided) = (promise.leadership, promise.vote, false);
        self.may_ack_memory |= promise.may_ack_memory;
        if self.role() != Some(by.leadership) {
            return; // it was lost meanwhile
        }
        if by.leader == self.settings.node {
            self.go_on_handing(now);
        } else {
            let term = promise.leadership.term;
            self.send(by.leader, by.leadership, Message::Reserved { term });
        }
    }

    /// A follower has kept its vote.
    pub(super) fn on_reserved(
        &mut self,
        now: Nanos,
        from: usize,
        of: Leadership,
        next: Leadership,
    ) {
        if self.role() == Some(of) {
            self.known[from].reserved = self.known[from].reserved.max(next);
            self.go_on_handing(now);
        }
    }

    /// The leader wants this node to lead: it stands at once, in the term for which its vote is kept, if that is the newest.
    pub(super) fn on_stand(&mut self, now: Nanos, from: NodeId, leadership: Leadership) {
        let by = Target { leadership, leader: from };
        let follows = matches!(self.phase, Phase::Following { target, .. } if target == by);
        if follows && self.is_electable() && self.standing == Standing::Clean {
            let kept = self.promised > leadership
                && self.promised >= self.highest
                && self.vote == Some(self.settings.node);
            let leadership = if kept { self.promised } else { self.next_leadership() };
            self.fence(Intent::Stand { leadership, transfer: true });
            self.advance(now);
        }
    }
}

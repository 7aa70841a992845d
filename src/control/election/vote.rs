//! Standing, and voting.

use super::{Election, Intent, Mutant, Phase};
use crate::control::message::{Message, Standing};
use crate::link::Recency;
use crate::types::{Incarnation, Leadership, Nanos, NodeId};

/// Votes that are missing are asked for again after this, ns.
const ASK_AGAIN_NS: u64 = 10 * Nanos::MILLISECOND;
/// Retries are spread over this part of the leader timeout, at first.
pub(super) const STAND_SPREAD_PARTS: u64 = 8;

/// Votes in founding elections that a node remembers besides the last.
const FOUNDING_VOTES_MAX: usize = 8;

/// A vote that was granted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Ballot {
    pub(super) standing: Standing,
    pub(super) incarnation: Incarnation,
}

/// An election in which this node stands.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Candidacy {
    leadership: Leadership,
    /// Its log after its own fence.
    recency: Recency,
    transfer: bool,
    /// By member.
    ballots: Vec<Option<Ballot>>,
    ask_at: Nanos,
    until: Nanos,
}

impl Candidacy {
    pub(super) fn deadline(&self) -> Nanos {
        self.ask_at.min(self.until)
    }

    #[cfg(any(test, feature = "sim"))]
    pub(super) fn fold(&mut self) {
        (self.ask_at, self.until) = (Nanos(u64::MAX), Nanos(u64::MAX));
    }
}

impl Election {
    /// Stands in `leadership`: its own core is fenced first.
    pub(super) fn stand(&mut self, leadership: Leadership, transfer: bool) {
        self.fence(Intent::Stand { leadership, transfer });
    }

    /// Its own vote is durable: asks the others.
    pub(super) fn stands(
        &mut self,
        now: Nanos,
        leadership: Leadership,
        transfer: bool,
        recency: Recency,
    ) {
        let mut ballots = vec![None; self.settings.members.len()];
        if self.is_voter() {
            let incarnation = self.settings.incarnation;
            ballots[self.own] = Some(Ballot { standing: self.standing, incarnation });
        }
        let half_ns = self.settings.leader_timeout_ns / 2;
        let until = now.plus(half_ns + self.draw(half_ns / 2));
        self.phase = Phase::Standing(Candidacy {
            leadership,
            recency,
            transfer,
            ballots,
            ask_at: now,
            until,
        });
        self.count(now);
        self.campaign(now);
    }

    /// Asks for the votes that are missing; gives up when its time is over.
    pub(super) fn campaign(&mut self, now: Nanos) {
        let Phase::Standing(candidacy) = &mut self.phase else { return };
        if now >= candidacy.until {
            return self.failed(now);
        }
        if now < candidacy.ask_at {
            return;
        }
        candidacy.ask_at = now.plus(ASK_AGAIN_NS);
        let Candidacy { leadership, recency, transfer, .. } = *candidacy;
        let instance = self.settings.instance;
        let request = Message::VoteRequest { recency, instance, transfer };
        let missing: Vec<_> = candidacy
            .ballots
            .iter()
            .zip(&self.settings.members)
            .filter(|(ballot, member)| ballot.is_none() && member.voter)
            .map(|(_, member)| member.node)
            .collect();
        for node in missing {
            self.send(node, leadership, request);
        }
    }

    /// A vote came in, or a refusal.
    pub(super) fn on_vote(
        &mut self,
        now: Nanos,
        from: usize,
        leadership: Leadership,
        instance: u64,
        ballot: Option<Ballot>,
    ) {
        let any = self.has(Mutant::CountOldVotes);
        let Phase::Standing(candidacy) = &mut self.phase else {
            return self.call_voter(from, leadership);
        };
        // R5: a vote counts in its own term, for the life of the process that asked for it.
        let for_this = leadership == candidacy.leadership && instance == self.settings.instance;
        if let Some(ballot) = ballot
            && (for_this || any)
        {
            candidacy.ballots[from] = Some(ballot);
            self.count(now);
        }
    }

    /// Whether the votes are enough: a quorum of those who forgot nothing, at once; or every voter's.
    fn count(&mut self, now: Nanos) {
        let Phase::Standing(candidacy) = &self.phase else { return };
        let leadership = candidacy.leadership;
        let voters = self.settings.members.iter().zip(&candidacy.ballots);
        let ballots: Vec<_> = voters.filter(|(m, _)| m.voter).map(|(_, b)| *b).collect();
        let with = |standing| ballots.iter().flatten().filter(|b| b.standing == standing).count();
        let stateless = with(Standing::Stateless);
        let mut clean = with(Standing::Clean);
        if self.has(Mutant::ProvisionalVotesCount) {
            clean += with(Standing::Provisional);
        }
        if self.has(Mutant::StatelessVotesCount) {
            clean += stateless;
        }
        let all = ballots.iter().all(Option::is_some);
        let founding = stateless == ballots.len();
        let witnessed = stateless == 0 || founding || self.has(Mutant::StatelessIsWitness);
        if clean >= self.settings.quorum()
            && (self.standing == Standing::Clean
                || self.has(Mutant::ProvisionalVotesCount)
                || self.has(Mutant::StatelessVotesCount))
        {
            self.wins(now, leadership, false);
        } else if all && witnessed && (founding || !self.has(Mutant::NoElectionByAll)) {
            if founding {
                for (known, ballot) in self.known.iter_mut().zip(&candidacy.ballots) {
                    known.founder = ballot.map(|ballot| ballot.incarnation);
                }
            }
            if self.standing == Standing::Clean {
                self.wins(now, leadership, false);
            } else {
                let recency = candidacy.recency;
                self.persist(now, Intent::Win { leadership, founding }, recency);
            }
        }
    }

    /// Another node asks for this one's vote; `intent` is the vote asked for.
    pub(super) fn on_vote_request(&mut self, now: Nanos, intent: Intent, transfer: bool) {
        let Intent::Vote { candidate, leadership, instance, .. } = intent else { return };
        if self.is_busy() || self.phase == Phase::Pulling {
            return; // it asks again
        }
        if leadership < self.promised {
            return self.answer(candidate, false, instance);
        }
        if leadership == self.promised {
            let entered = self.role() == Some(leadership);
            let decided = self.decided || self.has(Mutant::ReservedVoteUndecided);
            let bound = self.decided || !self.has(Mutant::ReservedVoteTwice);
            match self.vote {
                Some(voted) if voted == candidate && decided => {
                    return self.answer(candidate, true, instance);
                }
                Some(voted) if voted != candidate && bound && !self.has(Mutant::VoteTwice) => {
                    return self.answer(candidate, false, instance);
                }
                _ if entered => return self.answer(candidate, false, instance),
                // If it is kept for the candidate, or an earlier life gave it: the logs decide, after the fence.
                _ => {}
            }
        }
        // Nobody helps to depose a leader that it hears, but for a leader that asks for it.
        let own_leader = self.leader() == Some(candidate);
        if self.hears(now) && !transfer && !own_leader && !self.has(Mutant::IgnoreLeader) {
            return self.answer(candidate, false, instance);
        }
        if self.has(Mutant::VoteBeforeFence) {
            self.persist(now, intent, self.glance.recency);
            let fence = crate::link::ControlToCore::Fence(leadership);
            self.outputs.push_back(super::Output::ToCore(fence));
            return;
        }
        self.fence(intent);
    }

    fn answer(&mut self, candidate: NodeId, granted: bool, instance: u64) {
        let message = Message::Vote {
            granted,
            instance,
            standing: self.standing,
            incarnation: self.settings.incarnation,
        };
        self.send(candidate, self.promised, message);
    }

    /// Its decision is durable: it says so, and waits for a winner.
    pub(super) fn voted(&mut self, now: Nanos, candidate: NodeId, granted: bool, instance: u64) {
        if granted && !self.is_founded() {
            self.given.push((self.promised, candidate));
            let old = self.given.len().saturating_sub(FOUNDING_VOTES_MAX);
            self.given.drain(..old);
        }
        self.answer(candidate, granted, instance);
        let timeout = self.settings.leader_timeout_ns;
        // A candidate that it refused is behind: somebody better should stand soon.
        let wait = if granted { timeout / 2 } else { 0 };
        self.phase = Phase::Waiting { until: now.plus(wait + self.draw(timeout / 4)) };
    }
}

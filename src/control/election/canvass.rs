//! The canvass: who would vote, who is the best, and when this node stands.

use super::vote::STAND_SPREAD_PARTS;
use super::{Election, Intent, Member, Mutant, Mutants, Output, Phase};
use crate::control::event::Event;
use crate::control::message::{Envelope, Message, Opinion, Standing};
use crate::link::Recency;
use crate::types::Nanos;

/// Whoever has not answered, or still heard a leader, is asked again after this, ns; doubling up to the leader timeout.
const ASK_AGAIN_NS: u64 = 10 * Nanos::MILLISECOND;
/// How long the answers of the living are waited for, ns.
const COLLECT_NS: u64 = 20 * Nanos::MILLISECOND;
/// A pull of a more recent log that failed is tried again after this, ns.
const PULL_AGAIN_NS: u64 = 500 * Nanos::MILLISECOND;

/// A canvass under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Looking {
    round: u64,
    since: Nanos,
    ask_at: Nanos,
    ask_ns: u64,
    /// By member; this node's own is not kept here.
    opinions: Vec<Option<Opinion>>,
    /// When this node stands, and its place in the order.
    stand: Option<(Nanos, usize)>,
    /// Who led until now: nobody waits for its answer.
    lost: Option<crate::types::NodeId>,
    collected: bool,
}

/// What the opinions come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Advice {
    /// No election can be won yet.
    Wait,
    /// This node is the `place`-th best to stand.
    Stand {
        /// 0 is the best.
        place: usize,
    },
    /// This node would be the best, but for the log of a node that will not stand.
    Pull {
        /// That node.
        from: usize,
        /// Its log.
        recency: Recency,
    },
}

/// Judges the opinions of all members (`own` among them): a pure function, the same on every node that heard the same.
///
/// With a quorum of voters that have forgotten nothing and hear no leader, the best of those stands. Without one, or where
/// none of those may lead, all voters must take part, and either none of them or every one is without state.
pub(super) fn advise(
    members: &[Member],
    own: usize,
    opinions: &[Option<Opinion>],
    mutants: Mutants,
) -> Advice {
    let priority_first = mutants.has(Mutant::PriorityBeatsRecency);
    let willing = |index: usize| {
        let mut opinion = opinions[index].filter(|opinion| !opinion.hears)?;
        if opinion.standing == Standing::Provisional && mutants.has(Mutant::ProvisionalVotesCount) {
            opinion.standing = Standing::Clean;
        }
        Some(opinion)
    };
    let voters = || (0..members.len()).filter(|&index| members[index].voter);
    let is = |index: usize, standing| {
        willing(index).is_some_and(|opinion: Opinion| opinion.standing == standing)
    };
    let clean = voters().filter(|&index| is(index, Standing::Clean)).count();
    let stateless = voters().filter(|&index| is(index, Standing::Stateless)).count();
    let count = voters().count();
    let clean_leads = voters().any(|n| is(n, Standing::Clean) && members[n].is_electable());
    let by_quorum = clean > count / 2 && clean_leads;
    let by_all = voters().all(|index| willing(index).is_some())
        && (stateless == 0 || stateless == count || mutants.has(Mutant::StatelessIsWitness));
    if !by_quorum && !by_all {
        return Advice::Wait;
    }
    let takes_part = |index: usize| {
        willing(index).filter(|opinion| !by_quorum || opinion.standing == Standing::Clean)
    };
    // A log as recent as theirs has the votes of so many that it wins: then a better disk goes first.
    let needed = if by_quorum { count / 2 + 1 } else { count };
    let can_win = |recency: Recency| {
        let grants = |&index: &usize| takes_part(index).is_some_and(|of| of.recency <= recency);
        voters().filter(grants).count() >= needed
    };
    let rank = |index: usize| {
        let opinion = takes_part(index)?;
        let member = members[index];
        let place = core::cmp::Reverse(index);
        let recency = opinion.recency;
        let disk = can_win(recency).then_some(core::cmp::Reverse(opinion.disk));
        member.is_electable().then_some(if priority_first {
            (disk, Recency::default(), member.priority, Some(recency), place)
        } else {
            (disk, recency, member.priority, None, place)
        })
    };
    let Some(mine) = rank(own) else { return Advice::Wait };
    let place = (0..members.len()).filter(|&i| rank(i).is_some_and(|r| r > mine)).count();
    let own_recency = opinions[own].map_or_else(Recency::default, |opinion| opinion.recency);
    let ahead = (0..members.len())
        .filter(|&index| !members[index].is_electable())
        .filter_map(|index| Some((takes_part(index)?.recency, index)))
        .max_by_key(|(recency, index)| (*recency, core::cmp::Reverse(*index)))
        .filter(|(recency, _)| *recency > own_recency);
    match ahead {
        Some((recency, from)) if place == 0 && !priority_first => Advice::Pull { from, recency },
        _ => Advice::Stand { place },
    }
}

impl Election {
    /// Begins a canvass.
    pub(super) fn look(&mut self, now: Nanos) {
        let lost = self.leader().filter(|leader| *leader != self.settings.node);
        self.round += 1;
        self.phase = Phase::Looking(Looking {
            round: self.round,
            since: now,
            ask_at: now,
            ask_ns: ASK_AGAIN_NS,
            opinions: vec![None; self.settings.members.len()],
            stand: None,
            lost,
            collected: false,
        });
        self.announce_at = self.announce_at.min(now.plus(super::CALL_NS));
        self.consider(now);
    }

    fn own_opinion(&self, now: Nanos, round: u64) -> Opinion {
        Opinion {
            round,
            hears: self.hears(now),
            seen_leader: self.seen_leader,
            standing: self.standing,
            recency: self.glance.recency,
            disk: self.disk,
        }
    }

    /// Another node asks what this one would do.
    pub(super) fn canvassed(&mut self, now: Nanos, from: usize, round: u64) {
        let opinion = self.own_opinion(now, round);
        // Who asks does not follow (any more), whatever an earlier life of it may have said late: it is called again.
        self.known[from].following = None;
        let node = self.settings.members[from].node;
        self.send(node, self.promised, Message::Opinion(opinion));
        if matches!(self.phase, Phase::Following { .. }) && !opinion.hears && self.is_electable() {
            self.look(now); // the other's clock ran out a little earlier: the best should not come late
        }
    }

    pub(super) fn on_opinion(&mut self, from: usize, opinion: Opinion) {
        if let Phase::Looking(looking) = &mut self.phase
            && looking.round == opinion.round
        {
            looking.opinions[from] = Some(opinion);
        }
        self.known[from].disk = opinion.disk;
    }

    /// Asks again who has not answered; stands when it is this node's turn.
    pub(super) fn consider(&mut self, now: Nanos) {
        self.ask(now);
        let starting = self.is_group_start(now);
        let own = self.own_opinion(now, self.round);
        let Phase::Looking(looking) = &mut self.phase else { return };
        looking.opinions[self.own] = Some(own);
        let members = &self.settings.members;
        let everybody = members.iter().zip(&looking.opinions).all(|(member, opinion)| {
            opinion.is_some() || !member.voter || looking.lost == Some(member.node)
        });
        looking.collected |= everybody || now.since(looking.since) >= COLLECT_NS;
        if !looking.collected || starting || now < self.not_before {
            return;
        }
        let mutants = self.settings.mutants;
        let no_sync = mutants.has(Mutant::NoLeaderSync);
        let advice = advise(members, self.own, &looking.opinions, mutants);
        let place = match advice {
            Advice::Wait => {
                looking.stand = None;
                let mut others = looking.opinions.iter().flatten();
                let group = others.any(|opinion| opinion.standing != Standing::Stateless);
                return self.tell_why_not(group);
            }
            Advice::Pull { from, recency } if !no_sync => return self.pull(now, from, recency),
            Advice::Pull { .. } => 0,
            Advice::Stand { place } => place,
        };
        let turn_ns = self.settings.leader_timeout_ns / 4 * place as u64;
        let at = match looking.stand {
            Some((at, before)) if before == place => at,
            _ => now.plus(turn_ns),
        };
        looking.stand = Some((at, place));
        if now >= at {
            let leadership = self.next_leadership();
            self.stand(leadership, false);
        }
    }

    /// Says once why this node does not stand, where the reason is its own.
    fn tell_why_not(&mut self, others_have_state: bool) {
        let may = self.standing == Standing::Clean || !others_have_state;
        if !may && !core::mem::replace(&mut self.may_not_lead_told, true) {
            self.event(Event::MayNotLead { stateless: !self.is_founded() });
        }
    }

    fn ask(&mut self, now: Nanos) {
        let cap_ns = self.settings.leader_timeout_ns;
        let Phase::Looking(looking) = &mut self.phase else { return };
        if now < looking.ask_at {
            return;
        }
        looking.ask_at = now.plus(looking.ask_ns);
        looking.ask_ns = (looking.ask_ns * 2).min(cap_ns);
        let round = looking.round;
        self.tell_founders();
        // Everybody, again: an answer may have become another one.
        for (index, member) in self.settings.members.iter().enumerate() {
            if index != self.own {
                let message = Message::Canvass { round };
                let envelope =
                    Envelope { from: self.settings.node, leadership: self.promised, message };
                self.outputs.push_back(Output::Send(member.node, envelope));
            }
        }
    }

    /// The group starts, and not everybody is here yet: the first election waits a while.
    fn is_group_start(&self, now: Nanos) -> bool {
        let Phase::Looking(looking) = &self.phase else { return false };
        let mut others = looking.opinions.iter().flatten();
        let started = self.started.unwrap_or(now);
        let voters = self.settings.members.iter().enumerate();
        let all = voters
            .filter(|(index, member)| member.voter && *index != self.own)
            .all(|(index, _)| looking.opinions[index].is_some());
        !all && !self.seen_leader
            && !others.any(|opinion| opinion.seen_leader)
            && now.since(started) < self.settings.start_wait_ns
    }

    pub(super) fn looking_deadline(&self, looking: &Looking) -> Nanos {
        let mut next = looking.ask_at;
        if !looking.collected {
            next = next.min(looking.since.plus(COLLECT_NS));
        }
        let at = looking.stand.map(|(at, _)| at.max(self.not_before));
        next.min(at.unwrap_or(next))
    }

    /// Leader sync: the log of a node that will not stand is taken over before a term is raised.
    fn pull(&mut self, now: Nanos, from: usize, recency: Recency) {
        if now < self.pull_not_before {
            return;
        }
        self.pull_not_before = now.plus(PULL_AGAIN_NS);
        let node = self.settings.members[from].node;
        self.event(Event::LeaderSync { from: node, tail: recency.tail });
        let intent = Intent::Pull { from: node, recency };
        if recency.last > self.fenced {
            self.fence(intent);
        } else {
            self.phase = Phase::Pulling;
            self.outputs.push_back(Output::Pull { from: node, recency });
        }
    }

    pub(super) fn on_pulled(&mut self, now: Nanos, whole: bool) {
        if self.phase == Phase::Pulling {
            if whole {
                self.pull_not_before = now;
            }
            self.look(now);
        }
    }

    /// An election came to nothing: the next one waits, longer each time.
    pub(super) fn failed(&mut self, now: Nanos) {
        let step = self.settings.leader_timeout_ns / STAND_SPREAD_PARTS;
        let spread = step << self.attempts.min(4);
        self.attempts = self.attempts.saturating_add(1);
        self.not_before = now.plus(self.draw(spread));
        self.look(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::disk::DiskState;
    use crate::types::{Generation, Leadership, NodeId, Position, Tail, Term};

    fn members(priorities: &[u8]) -> Vec<Member> {
        let member = |(n, &priority)| Member { node: NodeId(n as u16), voter: true, priority };
        priorities.iter().enumerate().map(member).collect()
    }

    fn opinion(term: u32, tail: u64) -> Opinion {
        let generation = Generation { counter: 1, random: 1 };
        let last = Leadership { generation, term: Term(term) };
        Opinion {
            round: 1,
            hears: false,
            seen_leader: true,
            standing: Standing::Clean,
            recency: Recency { last, tail: Tail(Position(tail)) },
            disk: DiskState::Good,
        }
    }

    /// What every member makes of the same opinions.
    fn all(members: &[Member], opinions: &[Option<Opinion>]) -> Vec<Advice> {
        (0..members.len()).map(|own| advise(members, own, opinions, Mutants::NONE)).collect()
    }

    const fn stand(place: usize) -> Advice {
        Advice::Stand { place }
    }

    #[test]
    fn g11_recency_decides_then_priority_then_the_order_of_the_list() {
        let group = members(&[1, 2, 1]);
        let equal = [Some(opinion(3, 64)); 3];
        assert_eq!(all(&group, &equal), [stand(1), stand(0), stand(2)]);
        let longer = [Some(opinion(3, 64)), Some(opinion(3, 64)), Some(opinion(3, 96))];
        assert_eq!(all(&group, &longer), [stand(2), stand(1), stand(0)]);
        let newer = [Some(opinion(4, 32)), Some(opinion(3, 64)), Some(opinion(3, 96))];
        assert_eq!(all(&group, &newer), [stand(0), stand(2), stand(1)]);
    }

    #[test]
    fn a_quorum_of_nodes_that_never_lead_takes_the_vote_of_all() {
        let group = members(&[0, 2, 0]);
        let mut opinions = [Some(opinion(1, 96)), Some(opinion(1, 64)), Some(opinion(1, 96))];
        opinions[1].as_mut().unwrap().standing = Standing::Provisional;
        let ahead = opinions[0].unwrap();
        assert_eq!(all(&group, &opinions)[1], Advice::Pull { from: 0, recency: ahead.recency });
        opinions[1].as_mut().unwrap().recency = ahead.recency;
        assert_eq!(all(&group, &opinions)[1], stand(0));
        opinions[2] = None;
        assert_eq!(all(&group, &opinions)[1], Advice::Wait);
    }

    #[test]
    fn k8_equal_logs_the_first_line_leads() {
        assert_eq!(all(&members(&[1; 3]), &[Some(opinion(1, 64)); 3])[0], stand(0));
    }

    #[test]
    fn r3_priorities_1_1_0_elect_somebody() {
        let group = members(&[1, 1, 0]);
        let told = all(&group, &[Some(opinion(1, 64)); 3]);
        assert_eq!(told, [stand(0), stand(1), Advice::Wait], "0 never leads");
    }

    #[test]
    fn the_log_of_a_node_that_never_leads_is_pulled_by_the_best_of_the_others() {
        let group = members(&[1, 2, 0]);
        let ahead = opinion(2, 96);
        let told = all(&group, &[Some(opinion(2, 64)), Some(opinion(2, 64)), Some(ahead)]);
        let pull = Advice::Pull { from: 2, recency: ahead.recency };
        assert_eq!(told, [stand(1), pull, Advice::Wait]);
        // An observer's too, though it has no vote.
        let mut group = members(&[1, 1, 1]);
        group[2].voter = false;
        let told = all(&group, &[Some(opinion(2, 64)), Some(opinion(2, 64)), Some(ahead)]);
        assert_eq!(told, [pull, stand(1), Advice::Wait]);
    }

    #[test]
    fn nobody_disturbs_a_leader_that_a_quorum_hears() {
        let hears = Some(Opinion { hears: true, ..opinion(1, 64) });
        let lone = Some(opinion(1, 64));
        assert_eq!(all(&members(&[1; 3]), &[lone, hears, hears]), [Advice::Wait; 3]);
        assert_eq!(all(&members(&[1; 3]), &[lone, hears, None]), [Advice::Wait; 3]);
        assert_eq!(all(&members(&[1; 3]), &[lone, lone, hears])[0], stand(0));
    }

    #[test]
    fn d6_a_lagging_and_a_blank_node_elect_nobody() {
        let blank = Some(Opinion { standing: Standing::Stateless, ..opinion(0, 0) });
        let group = members(&[1; 3]);
        assert_eq!(all(&group, &[None, Some(opinion(1, 32)), blank]), [Advice::Wait; 3]);
        let told = all(&group, &[Some(opinion(1, 64)), Some(opinion(1, 32)), blank]);
        assert_eq!(told, [stand(0), stand(1), Advice::Wait], "a clean quorum needs no witness");
        let provisional = Some(Opinion { standing: Standing::Provisional, ..opinion(1, 64) });
        let told = all(&group, &[provisional, Some(opinion(1, 32)), blank]);
        assert_eq!(told, [Advice::Wait; 3], "one without state is no witness");
    }

    #[test]
    fn d21_provisional_nodes_elect_the_most_recent_when_every_voter_answers_and_not_before() {
        let provisional =
            |tail| Some(Opinion { standing: Standing::Provisional, ..opinion(1, tail) });
        let group = members(&[1; 3]);
        let some = [provisional(64), provisional(96), None];
        assert_eq!(all(&group, &some), [Advice::Wait; 3]);
        let every = [provisional(64), provisional(96), provisional(32)];
        assert_eq!(all(&group, &every), [stand(1), stand(0), stand(2)]);
    }

    #[test]
    fn r3_a_provisional_node_stands_by_all_votes_where_no_clean_one_may_lead_and_pulls_their_log() {
        let group = members(&[0, 2, 0]);
        let lost = Some(Opinion { standing: Standing::Provisional, ..opinion(1, 64) });
        let ahead = opinion(1, 96);
        let told = all(&group, &[Some(ahead), lost, Some(ahead)]);
        let pull = Advice::Pull { from: 0, recency: ahead.recency };
        assert_eq!(told, [Advice::Wait, pull, Advice::Wait]);
        let level = Some(Opinion { standing: Standing::Provisional, ..ahead });
        assert_eq!(all(&group, &[Some(ahead), level, Some(ahead)])[1], stand(0));
        assert_eq!(all(&group, &[Some(ahead), level, None]), [Advice::Wait; 3], "not by a quorum");
    }

    #[test]
    fn a_group_is_founded_by_every_voter_or_not_at_all() {
        let blank = Some(Opinion { standing: Standing::Stateless, ..opinion(0, 0) });
        let group = members(&[1; 3]);
        assert_eq!(all(&group, &[blank, blank, None]), [Advice::Wait; 3]);
        assert_eq!(all(&group, &[blank, blank, blank]), [stand(0), stand(1), stand(2)]);
    }
}

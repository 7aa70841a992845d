//! Stories: faults that belong together, because only in that order do they put a rule to the test.
//!
//! Single faults drawn at random hardly ever make such a schedule. A story draws its details and is told over and over,
//! aimed at who leads at the time; the world around it is an ordinary one, which the shipped code must get through.

use super::faults::{Fault, Strike};
use super::plan::Plan;
use crate::stream::prng::Prng;
use crate::types::Nanos;

const MS: u64 = Nanos::MILLISECOND;

/// What is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Story {
    /// The leader dies, and those who could follow it hear only it: both want its vote, and it dies once more while it votes.
    Rivals,
    /// A leader is cut off with a client that reads there, and the others, who have just started, elect another at once.
    Usurped,
    /// One node lags, another one forgets, and the leader goes: nobody who is left may lead.
    Forgetful,
    /// A leader goes on for a moment with too few, follows another, and leads again: what was said to it then comes now.
    Returning,
    /// A node that forgot is told what an earlier life of it was told.
    LateWords,
    /// A voter is held up between its look at its core and its vote, while its core takes in a last entry.
    LateLook,
    /// The one who may lead next lags behind one who never leads when the faults end.
    NeverLeads,
    /// Leaders die one after the other, while others have not found out where the logs part.
    Dynasty,
    /// The lead is handed from node to node while votes are late.
    HandedRound,
    /// A process stops in order and starts again, and soon after the power goes.
    CleanThenDark,
    /// All machines lose power.
    Dark,
    /// A leader that is cut off is told again what it was told before.
    Echoes,
    /// Two who know nothing of each other found the group, each a generation of its own.
    Founders,
    /// The leader is cut off, who could follow it takes over the log of one who never leads, and it is back before that is done.
    Heir,
    /// A node comes back with the disk of another founding, and the leader goes.
    Foundling,
    /// One lacks a piece in the middle, the other the end, and the leader dies.
    Riddled,
}

impl Story {
    /// Those that are drawn with the rest of a world.
    pub const ALL: &'static [Self] = &[
        Self::Rivals,
        Self::Usurped,
        Self::Forgetful,
        Self::Returning,
        Self::LateWords,
        Self::LateLook,
        Self::NeverLeads,
        Self::Dynasty,
        Self::HandedRound,
        Self::CleanThenDark,
        Self::Dark,
        Self::Echoes,
        Self::Founders,
    ];
    /// Those that take the place of another, drawn apart, so that the other worlds stay what they were.
    pub const APART: &'static [Self] = &[Self::Heir, Self::Foundling, Self::Riddled];

    /// The size of a group in which it comes to most, where any size will do.
    pub(super) const fn size(self) -> Option<usize> {
        match self {
            Self::Usurped | Self::LateLook | Self::Riddled => Some(3),
            Self::Returning => Some(5),
            _ => None,
        }
    }

    /// Its strikes go for who leads then, and not for who led when it began.
    pub(super) const fn follows_the_lead(self) -> bool {
        matches!(self, Self::Dynasty | Self::HandedRound | Self::NeverLeads)
    }

    /// At its beginning whoever may lead next lags behind one who never leads.
    pub(super) const fn lags_first(self) -> bool {
        matches!(self, Self::NeverLeads | Self::Heir)
    }

    /// What the world must be like for it.
    pub(super) fn set_up(self, plan: &mut Plan, random: &mut Prng) {
        match self {
            Self::LateLook => plan.look_ns = 10 * MS,
            Self::HandedRound => {
                plan.look_ns = 2 * MS;
                plan.detour = (100_000, 100 * MS);
            }
            Self::Usurped => {
                plan.clients = plan.clients.max(2);
                plan.readers = 1;
                plan.askers = plan.askers.max(1);
            }
            Self::Returning => {
                (plan.clients, plan.in_flight, plan.command_bytes_max) = (4, 16, 200);
                plan.commands = 500;
            }
            Self::Dynasty => plan.loss = 100_000,
            Self::Founders => plan.detour = (300_000, 300 * MS),
            Self::Riddled => {
                (plan.clients, plan.in_flight, plan.command_bytes_max) = (4, 16, 200);
                plan.commands = 1_000;
                plan.think_ns = MS;
                plan.readers = 0;
            }
            Self::NeverLeads | Self::Heir if plan.nodes > 2 => {
                for priority in &mut plan.priorities {
                    *priority = [0, 1, 2][random.below(3) as usize];
                }
                let first = random.below(plan.nodes as u64) as usize;
                plan.priorities[first] = 1;
                plan.priorities[(first + 1) % plan.nodes] = 2;
                plan.priorities[(first + 2) % plan.nodes] = 0;
                plan.fault_gap_ns = 4 * Nanos::SECOND;
                if random.below(2) == 0 {
                    plan.detour = (300_000, 100 * MS); // a take-over takes its time
                }
            }
            _ => {}
        }
    }

    /// Its strikes, each with the time since it began, ns.
    pub(super) fn strikes(self, random: &mut Prng, nodes: usize) -> Vec<(u64, Strike)> {
        let mut told = Teller { random, nodes, strikes: Vec::new() };
        match self {
            Self::Rivals => told.rivals(),
            Self::Usurped => told.usurped(),
            Self::Forgetful => told.forgetful(),
            Self::Returning => told.returning(),
            Self::LateWords => told.late_words(),
            Self::LateLook => told.late_look(),
            Self::NeverLeads => told.never_leads(),
            Self::Dynasty => told.dynasty(),
            Self::HandedRound => told.handed_round(),
            Self::CleanThenDark => told.clean_then_dark(),
            Self::Dark => told.at(0, Fault::Blackout, 0, 20 * MS),
            Self::Echoes => told.echoes(),
            Self::Founders => told.founders(),
            Self::Heir => told.heir(),
            Self::Foundling => told.foundling(),
            Self::Riddled => told.riddled(),
        }
        told.strikes
    }
}

struct Teller<'a> {
    random: &'a mut Prng,
    nodes: usize,
    strikes: Vec<(u64, Strike)>,
}

impl Teller<'_> {
    fn draw(&mut self, least: u64, most: u64) -> u64 {
        least + self.random.below(most - least + 1)
    }

    fn strike(&mut self, at: u64, fault: Fault, nodes: (usize, usize), sides: u64, lasts_ns: u64) {
        let (node, other) = (nodes.0 % self.nodes, nodes.1 % self.nodes);
        let strike = Strike { fault, aimed: true, node, other, sides, lasts_ns };
        self.strikes.push((at, strike));
    }

    fn at(&mut self, at: u64, fault: Fault, node: usize, lasts_ns: u64) {
        let sides = self.random.next_u64();
        self.strike(at, fault, (node, node), sides, lasts_ns);
    }

    fn way(&mut self, at: u64, fault: Fault, from: usize, to: usize, lasts_ns: u64) {
        self.strike(at, fault, (from, to), 0, lasts_ns);
    }

    fn rivals(&mut self) {
        let lasts = self.draw(200 * MS, 700 * MS);
        self.strike(0, Fault::Bridge, (0, 0), 0xAAAA_AAAA, lasts);
        let down = self.draw(MS, 30 * MS);
        self.at(1, Fault::Crash, 0, down);
        let mut at = down;
        for _ in 0..4 {
            at += self.draw(MS, 60 * MS);
            let down = self.draw(MS, 8 * MS);
            self.at(at, Fault::VoteCrash, 0, down);
            self.at(at + 10 * MS, Fault::Replay, 1, 0);
        }
        for _ in 0..4 {
            let (at, node) = (self.draw(0, lasts), self.draw(0, 2) as usize);
            self.at(at, Fault::Replay, node, 0);
        }
    }

    fn usurped(&mut self) {
        let majority = self.nodes / 2 + 1;
        for node in majority..self.nodes {
            self.way(0, Fault::Lag, 0, node, 500 * MS);
        }
        let at = self.draw(180 * MS, 260 * MS);
        // The leader and the first client, who asks questions.
        self.strike(at, Fault::Partition, (0, 0), 1 | 1 << 32, 300 * MS);
        for node in 1..majority {
            let (after, down) = (self.draw(0, 10 * MS), self.draw(MS, 5 * MS));
            self.at(at + after, Fault::Crash, node, down);
        }
        let after = self.draw(5 * MS, 60 * MS);
        self.at(at + after, Fault::ClientDies, 1, 0);
    }

    fn forgetful(&mut self) {
        let lasts = self.draw(40 * MS, 140 * MS);
        self.way(0, Fault::Lag, 0, 1, lasts);
        let at = self.draw(10 * MS, lasts);
        let fault = [Fault::PowerLoss, Fault::PowerLoss, Fault::Wipe][self.draw(0, 2) as usize];
        let down = self.draw(MS, 20 * MS);
        self.at(at, fault, 2, down);
        let at = at + self.draw(0, 10 * MS);
        let away = self.draw(300 * MS, 900 * MS);
        match self.draw(0, 2) {
            0 => self.at(at, Fault::Isolate, 0, away),
            1 => self.at(at, Fault::Crash, 0, away),
            _ => {
                // It comes back for the canvass and goes before the vote.
                self.at(at, Fault::Crash, 0, 5 * MS);
                let at = at + self.draw(10 * MS, 150 * MS);
                self.at(at, Fault::ControlCut, 0, away);
            }
        }
    }

    fn returning(&mut self) {
        let clients = 0xFF << 32;
        let healed = self.draw(300 * MS, 400 * MS);
        self.strike(0, Fault::Partition, (0, 0), 0b11 | clients, healed);
        // No client reaches anybody until the old leader leads again.
        let quiet = self.draw(100 * MS, 160 * MS);
        let back = healed + self.draw(60 * MS, 150 * MS);
        let heard = back + self.draw(20 * MS, 120 * MS);
        self.strike(quiet, Fault::Partition, (0, 0), 0xFF, heard - quiet);
        for again in 0..4 {
            self.at(back + again * 10 * MS, Fault::HandOver, 0, 0);
        }
        let alone = heard + self.draw(0, 60 * MS);
        self.strike(alone, Fault::Partition, (0, 0), 0b101 | clients, 300 * MS);
        for _ in 0..12 {
            let when = alone + self.draw(5 * MS, 150 * MS);
            self.at(when, Fault::Replay, 0, 0);
            let when = alone + self.draw(2 * MS, 150 * MS);
            self.at(when, Fault::OldWords, 0, 0);
        }
    }

    fn late_words(&mut self) {
        for round in 0..2 {
            let at = round * 300 * MS;
            let lasts = self.draw(50 * MS, 250 * MS);
            let down = self.draw(MS, 20 * MS);
            self.at(at, Fault::PowerLoss, 1, down);
            self.way(at + 3 * MS, Fault::Lag, 0, 1, lasts);
            for _ in 0..4 {
                let when = at + down + self.draw(0, lasts);
                self.at(when, Fault::Replay, 1, 0);
            }
        }
    }

    fn late_look(&mut self) {
        let at = self.draw(172 * MS, 200 * MS);
        let down = self.draw(MS, 4 * MS);
        self.at(at, Fault::Crash, 2, down);
        let lasts = at + down + self.draw(0, 15 * MS);
        self.way(0, Fault::Lag, 0, 1, lasts);
    }

    fn never_leads(&mut self) {
        // Those who may lead lag already: see `World::tell_last_story`.
        let at = self.draw(20 * MS, 55 * MS);
        let away = self.draw(300 * MS, 600 * MS);
        self.at(at, Fault::Isolate, 0, away);
    }

    fn heir(&mut self) {
        let at = self.draw(20 * MS, 55 * MS);
        let away = self.draw(170 * MS, 280 * MS);
        self.at(at, Fault::Isolate, 0, away);
        let stall = self.draw(60 * MS, 400 * MS);
        self.at(at + 140 * MS, Fault::PullStall, 0, stall);
    }

    fn foundling(&mut self) {
        let lasts = self.draw(400 * MS, 900 * MS);
        self.at(0, Fault::OtherFounding, 1, lasts);
        let at = self.draw(20 * MS, 300 * MS);
        let away = self.draw(100 * MS, 500 * MS);
        let fault = [Fault::Isolate, Fault::Crash, Fault::ControlCut][self.draw(0, 2) as usize];
        self.at(at, fault, 0, away);
    }

    fn riddled(&mut self) {
        let hole = self.draw(5 * MS, 30 * MS);
        let end = hole + self.draw(2 * MS, 8 * MS);
        let lag = end + self.draw(0, 6 * MS);
        let dies = lag + self.draw(MS, 15 * MS);
        // It cannot say what it lacks.
        self.way(0, Fault::Lag, 1, 0, dies);
        self.way(hole, Fault::Lag, 0, 1, end - hole);
        self.way(lag, Fault::Lag, 0, 2, dies - lag + MS);
        let down = self.draw(250 * MS, 500 * MS);
        self.at(dies, Fault::Crash, 0, down);
    }

    fn echoes(&mut self) {
        let lasts = self.draw(600 * MS, 900 * MS);
        self.at(0, Fault::DataCut, 0, lasts);
        for at in (10 * MS..lasts).step_by(30_000_000) {
            self.at(at, Fault::Replay, 0, 0);
        }
    }

    fn founders(&mut self) {
        for _ in 0..4 {
            let (at, node) = (self.draw(0, 300 * MS), self.draw(0, 6) as usize);
            self.at(at, Fault::Replay, node, 0);
        }
    }

    fn dynasty(&mut self) {
        let mut at = 0;
        for _ in 0..3 {
            let lag = self.draw(20 * MS, 100 * MS);
            for node in 2..self.nodes {
                if self.draw(0, 1) == 0 {
                    self.way(at, Fault::Lag, 0, node, lag);
                }
            }
            at += lag;
            let down = self.draw(MS, 400 * MS);
            self.at(at, Fault::Crash, 0, down);
            for _ in 0..3 {
                let (when, node) = (at + self.draw(0, 250 * MS), self.draw(0, 2) as usize);
                self.at(when, Fault::Replay, node, 0);
            }
            at += self.draw(150 * MS, 260 * MS);
        }
    }

    fn handed_round(&mut self) {
        let mut at = 0;
        for _ in 0..5 {
            self.at(at, Fault::HandOver, 0, 0);
            let slow = self.draw(1, 150 * MS);
            self.at(at + MS, Fault::DataCut, 1, slow.min(20 * MS));
            self.at(at, Fault::Replay, 1, 0);
            at += self.draw(50 * MS, 400 * MS);
        }
    }

    fn clean_then_dark(&mut self) {
        self.at(0, Fault::Restart, 1, 0);
        let at = self.draw(300 * MS, 700 * MS);
        let down = self.draw(MS, 50 * MS);
        self.at(at, Fault::PowerLoss, 1, down);
    }
}

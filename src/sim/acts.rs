//! What the nemesis does besides cutting ways and stopping threads: aimed strikes, stories, blank disks, rot, hand-over.

use super::faults::{Fault, Strike};
use super::nemesis::Phase;
use super::stories::Story;
use super::world::{Event, World};
use crate::control::message::Standing;
use crate::journal::Disk;
use crate::replica::Doing;
use crate::types::Nanos;

/// From one story to the next, at most, ns.
const STORY_GAP_NS: u64 = 900 * Nanos::MILLISECOND;
/// The last story is told so long before the faults end, at most, ns.
const LAST_STORY_NS: u64 = 60 * Nanos::MILLISECOND;

impl World {
    /// The node that leads, by the newest leadership.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| {
            let seen = self.machines[*node].process.as_ref()?.core.observe();
            matches!(seen.doing, Doing::Leads { .. }).then_some((seen.fence, *node))
        };
        (0..self.plan.nodes).filter_map(|node| leads(&node)).max().map(|(_, node)| node)
    }

    /// Where an aimed strike goes.
    pub(super) fn aim(&self, strike: &Strike) -> Strike {
        let nodes = self.plan.nodes;
        let first = if strike.aimed { self.leader().unwrap_or(0) } else { 0 };
        let place = |node: usize| (first + node) % nodes;
        let everybody = (1 << nodes) - 1;
        let side = |node: usize| (strike.sides >> node & 1) << place(node);
        let sides = (0..nodes).map(side).sum::<u64>() | strike.sides & !everybody;
        Strike {
            aimed: false,
            node: place(strike.node),
            other: place(strike.other),
            sides,
            ..*strike
        }
    }

    pub(super) fn begin_stories(&mut self) {
        if self.plan.stories.is_empty() {
            return;
        }
        self.next_story(Nanos::SECOND);
        if self.plan.stories.contains(&Story::Founders) {
            for _ in 0..4 * self.plan.nodes {
                let at = Nanos(self.fault_random.below(300 * Nanos::MILLISECOND));
                let node = self.fault_random.below(self.plan.nodes as u64) as usize;
                let other = self.fault_random.below(self.plan.nodes as u64) as usize;
                let lasts_ns = self.fault_random.below(80 * Nanos::MILLISECOND);
                let (fault, aimed) = (Fault::OneWay, false);
                let strike = Strike { fault, aimed, node, other, sides: 0, lasts_ns };
                self.schedule(at, Event::Strike(strike));
            }
        }
        if self.plan.stories.contains(&Story::NeverLeads) && self.plan.nodes > 1 {
            let before = self.fault_random.below(LAST_STORY_NS);
            let at = Nanos(self.plan.chaos_ns.saturating_sub(before));
            self.schedule(at, Event::LastStory);
        }
    }

    /// Whoever may lead next lags, by what is sent from now on; those who never lead do not.
    pub(super) fn tell_last_story(&mut self) {
        let Some(node) = self.leader() else { return };
        for other in (0..self.plan.nodes).filter(|&other| other != node) {
            if self.plan.priorities[other] > 0 {
                let (fault, lasts_ns) = (Fault::Lag, LAST_STORY_NS);
                self.strike(&Strike { fault, aimed: false, node, other, sides: 0, lasts_ns });
            }
        }
    }

    fn next_story(&mut self, after_ns: u64) {
        let at = self.now.plus(after_ns);
        if at.0 < self.plan.chaos_ns {
            self.schedule(at, Event::Story);
        }
    }

    /// Tells a story; the next one comes a while after its end.
    pub(super) fn tell_story(&mut self) {
        let stories = self.plan.stories.len() as u64;
        let story = self.plan.stories[self.fault_random.below(stories) as usize];
        let strikes = story.strikes(&mut self.fault_random, self.plan.nodes);
        self.trace.line(self.now, || format!("story: {story:?}"));
        let end = strikes.iter().map(|(at, strike)| at + strike.lasts_ns).max().unwrap_or(0);
        if story.lags_first() {
            self.tell_last_story();
        }
        for (at, strike) in strikes {
            let strike = if story.follows_the_lead() { strike } else { self.aim(&strike) };
            self.schedule(self.now.plus(at), Event::Strike(strike));
        }
        let gap = self.fault_random.below(STORY_GAP_NS);
        self.next_story(end + gap);
    }

    /// The process or the machine of a node ends at `at`, whatever comes before.
    pub(super) fn doom(&mut self, node: usize, at: Nanos) {
        self.doomed_until[node] = self.doomed_until[node].max(at);
    }

    /// A process dies.
    pub(super) fn crash(&mut self, node: usize) {
        self.count_process(node);
        self.machines[node].crash_process();
    }

    /// It holds no state of an earlier life, or will not when it starts; or some of its log has rotted.
    pub(super) fn is_blank(&self, node: usize) -> bool {
        self.blank & 1 << node != 0 || self.rotten[node].is_some()
    }

    /// A machine comes back with another disk.
    pub(super) fn wipe(&mut self, node: usize) {
        self.count_process(node);
        self.machines[node].replace_disk();
        self.rotten[node] = None;
        self.checks.wiped(node);
        self.blank |= 1 << node;
        self.strangers &= !(1 << node);
        if !self.plan.observers[node] {
            self.founders |= 1 << node;
        }
        self.trace.line(self.now, || format!("node {node}: an empty disk"));
    }

    /// A process dies, and some bytes of one of its files of the log change before it comes back.
    pub(super) fn rot(&mut self, node: usize, draw: u64) {
        let process = self.machines[node].process.as_ref();
        let written = process.map_or(0, |process| process.core.observe().tail.position.0);
        self.crash(node);
        self.blank |= 1 << node;
        let disk = &self.machines[node].disk;
        let names = disk.list().unwrap_or_default();
        let names: Vec<_> = names
            .iter()
            .filter(|name| crate::journal::parse_segment_name(name).is_some())
            .collect();
        let Some(name) = names.get(draw as usize % names.len().max(1)) else { return };
        // The log of a run fills little of its first file, and the header page is a page among many.
        let reach = written.clamp(1, self.plan.segment_bytes);
        let anywhere = (draw >> 8) % (crate::limits::SEGMENT_HEADER_BYTES as u64 + reach);
        // Now and then it goes for both seals of the file, which lie side by side.
        let between_seals = crate::journal::segment_header::SEAL_OFFSETS[1] as u64 - 1;
        let offset = if (draw >> 54).is_multiple_of(16) { between_seals } else { anywhere };
        disk.rot(name, offset, |bytes| {
            for byte in bytes.iter_mut().take(1 + (draw >> 40) as usize % 40) {
                *byte ^= 1 << (draw >> 50 & 7);
            }
        });
        self.trace.line(self.now, || format!("node {node}: {name} rots at {offset}"));
    }

    /// The run ends here: nobody may lead, and nobody did.
    pub(super) fn stop_as_it_must(&mut self) {
        self.coverage.hit("needs-a-person", 1);
        self.phase = Phase::Over;
    }

    /// No quorum is left that remembers, and those who have no state are no witnesses: a person is needed (DESIGN §6).
    pub(super) fn is_hopeless(&self) -> bool {
        let standing = |node: usize| {
            let process = self.machines[node].process.as_ref();
            process.map(|process| process.control.standing())
        };
        let count =
            |which| self.plan.voters().filter(|&node| standing(node) == Some(which)).count();
        let (clean, stateless) = (count(Standing::Clean), count(Standing::Stateless));
        let clean_leads =
            |node| standing(node) == Some(Standing::Clean) && self.plan.is_electable(node);
        let electable = (0..self.plan.nodes).any(clean_leads);
        let by_quorum = clean >= self.plan.majority() && electable;
        !by_quorum
            && stateless > 0
            && stateless < self.plan.voters().count()
            && self.phase != Phase::Chaos
    }
}

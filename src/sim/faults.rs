//! What goes wrong: kinds of faults, when they strike, and what they leave alone.

use super::plan::Plan;
use crate::stream::prng::Prng;
use crate::types::Nanos;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// A kind of fault.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Fault { $($(#[$doc])* $name),* }

        impl Fault {
            /// All kinds.
            pub const KINDS: &'static [Self] = &[$(Self::$name),*];
            /// The kind with this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::KINDS.iter().copied().find(|kind| kind.name() == name)
            }
            /// Its bit in a plan.
            #[must_use]
            pub(super) const fn bit(self) -> u32 {
                1 << self as u32
            }
            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

faults! {
    /// A process dies; what it wrote is there.
    Crash = "crash",
    /// A machine loses power, perhaps in the middle of a write.
    PowerLoss = "power-loss",
    /// All machines lose power at once.
    Blackout = "blackout",
    /// A process stops in order, and starts again.
    Restart = "orderly-restart",
    /// All threads of a process stand still.
    Pause = "pause",
    /// One thread of a process stands still.
    Stall = "thread-stall",
    /// The nodes are parted in two; clients are on either side.
    Partition = "partition",
    /// What one node sends to another is lost, not the other way round.
    OneWay = "one-way-loss",
    /// A node's control thread hears nobody and is heard by nobody; its core is.
    ControlCut = "control-cut",
    /// A node's core hears nobody and is heard by nobody; its control thread is.
    DataCut = "data-cut",
    /// A node is cut off from everybody.
    Isolate = "isolation",
    /// A wall clock is set.
    ClockStep = "clock-step",
    /// A disk fails to sync a segment, and says so once.
    SyncFails = "sync-failure",
    /// A disk is full for a while.
    DiskFull = "disk-full",
    /// A client dies.
    ClientDies = "client-death",
    /// A core hears nothing of another one; control threads hear each other.
    Lag = "one-way-data-loss",
    /// Two parts of the group hear each other no more; one node hears both.
    Bridge = "bridge",
    /// What was sent to a node a while ago comes once more.
    Replay = "replay",
    /// A process dies while a vote of its node is being made durable, or right after.
    VoteCrash = "crash-at-a-vote",
    /// A machine comes back with an empty disk.
    Wipe = "wiped-disk",
    /// Bytes of a file of the log change while the machine is down.
    Rot = "rot",
    /// A disk does nothing for a while: no write and no sync returns.
    DiskStall = "disk-stall",
    /// The service of a node goes another way than the others.
    Diverge = "divergence",
    /// No fault, but as good a time for others to strike: the leader is told to hand over. Drawn by itself.
    HandOver = "hand-over",
    /// Neither: the leader is told to change the durability of the group. Drawn by itself.
    Ladder = "durability-change",
    /// A client reaches one node alone. Drawn by itself.
    OneDoor = "one-door",
    /// A client's program stands still, longer than its session lasts. Drawn by itself.
    Nap = "client-nap",
    /// A machine comes back with a disk of another founding. Only stories tell of it, and of what follows.
    OtherFounding = "other-founding",
    /// What a node was told as a leader of older terms comes once more.
    OldWords = "old-words",
    /// The core of the next node that takes a log over stands still when it is given the first bytes.
    PullStall = "take-over-stall",
}

/// Kinds that are drawn by themselves, or told of by stories alone.
const APART: [Fault; 7] = [
    Fault::HandOver,
    Fault::OneDoor,
    Fault::Ladder,
    Fault::Nap,
    Fault::OtherFounding,
    Fault::OldWords,
    Fault::PullStall,
];

/// One strike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Strike {
    pub(super) fault: Fault,
    /// Nodes are counted from the one that leads when it strikes: 0 is the leader.
    pub(super) aimed: bool,
    pub(super) node: usize,
    pub(super) other: usize,
    /// Bits: one for each node, and more.
    pub(super) sides: u64,
    /// How long it lasts, ns.
    pub(super) lasts_ns: u64,
}

/// Draws the next hand-over and the time until it.
pub(super) fn draw_hand_over(random: &mut Prng, plan: &Plan) -> (u64, Strike) {
    let wait = random.below(2 * plan.hand_over_gap_ns) + 1;
    let other = random.below(plan.nodes as u64) as usize;
    (wait, Strike { fault: Fault::HandOver, aimed: false, node: 0, other, sides: 0, lasts_ns: 0 })
}

/// In some worlds the durability of the group changes now and then. Drawn apart, so that all else stays what it was for a seed.
pub(super) fn draw_ladder(plan: &Plan) -> Vec<(u64, Strike)> {
    let mut random = Prng::new(plan.seed ^ 0x4C41_4444);
    let some = random.below(6) == 0 && plan.has(Fault::Ladder);
    let count = if some { 1 + random.below(8) } else { 0 };
    let mut draw = |_| {
        let (at, sides) = (random.below(plan.chaos_ns), random.next_u64());
        let fault = Fault::Ladder;
        (at, Strike { fault, aimed: false, node: 0, other: 0, sides, lasts_ns: 0 })
    };
    (0..count).map(&mut draw).collect()
}

/// Draws the next strike and the time until it.
pub(super) fn draw(random: &mut Prng, plan: &Plan) -> (u64, Strike) {
    let wait = random.below(2 * plan.fault_gap_ns) + 1;
    let kinds = Fault::KINDS.iter().filter(|kind| !APART.contains(kind) && plan.has(**kind));
    let some: Vec<_> = kinds.copied().collect();
    let fault =
        if some.is_empty() { Fault::Crash } else { some[random.below(some.len() as u64) as usize] };
    let node = random.below(plan.nodes as u64) as usize;
    let other = random.below(plan.nodes as u64) as usize;
    let longest = [5, 60, 300, 2_000][random.below(4) as usize] * Nanos::MILLISECOND;
    let strike = Strike {
        fault,
        // Every other one goes for who leads, or for who does not.
        aimed: random.below(2) == 0,
        node,
        other,
        sides: random.next_u64(),
        lasts_ns: random.below(longest) + 1,
    };
    (wait, strike)
}

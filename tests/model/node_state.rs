//! M4: the order in which one node writes its state, acknowledges, votes, stops and crashes. The rest of the group is the
//! promise that the node holds what it acknowledged whenever it votes as an ordinary voter.

use quorate::frame::Predecessor;
use quorate::journal::node_state::{BootId, CleanMark, NodeState, Refused, StartInput};
use quorate::link::Promise;
use quorate::mutants::Mutants;
use quorate::types::{
    Chain, Commit, Durable, Generation, GroupId, Incarnation, Leadership, NodeId, Position,
    Sequence, Term,
};

use crate::explore::Model;

const GROUP: GroupId = GroupId(1);
const NODE: NodeId = NodeId(0);

/// What is explored, and within which bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writes {
    pub(crate) crashes: u8,
    pub(crate) entries: u8,
    pub(crate) mutants: Mutants,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    disk: NodeState,
    /// Entries on the disk, and in memory.
    durable: u8,
    hot: u8,
    hot_whole: bool,
    boot: u8,
    running: Option<Running>,
    /// The ladder of the followers says memory.
    memory_policy: bool,
    /// End of everything acknowledged by any life of this node: the rest of the group relies on it.
    acked: u8,
    crashes: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Running {
    /// As decided by the start; on the disk once `recorded`.
    state: NodeState,
    recorded: bool,
    stopping: bool,
}

#[derive(Clone, Debug)]
#[allow(dead_code)] // read by people, in a schedule
pub(crate) enum Step {
    Start { provisional: bool },
    RecordStart,
    AllowMemory,
    Append,
    Acknowledge { upto: u8 },
    Sync,
    CatchUp,
    Readmitted,
    PolicyDisk,
    ForbidMemory,
    Stop,
    CleanMark,
    ProcessCrash,
    MachineCrash,
}

fn position(entries: u8) -> Position {
    Position(u64::from(entries) * 32)
}

fn mark(entries: u8) -> CleanMark {
    let tail = Predecessor {
        position: position(entries),
        sequence: Sequence(u64::from(entries)),
        term: Term(1),
        chain: Chain(1),
    };
    CleanMark { tail, commit: Commit(Position(0)) }
}

fn leadership() -> Leadership {
    Leadership { generation: Generation { counter: 1, random: 1 }, term: Term(1) }
}

impl Writes {
    pub(crate) const ON: Self = Self { crashes: 4, entries: 2, mutants: Mutants::NONE };
}

impl State {
    fn start(&self) -> Self {
        let input = StartInput {
            boot_id: BootId([self.boot; 16]),
            hot_tier_id: 0,
            hot_whole: self.hot_whole,
            promise_lost: false,
            first_incarnation: Incarnation(1),
        };
        let decision = NodeState::start(Some(&self.disk), GROUP, NODE, input);
        let mut after = self.clone();
        if !decision.hot_intact {
            (after.hot, after.hot_whole) = (self.durable, true);
        }
        after.running = Some(Running { state: decision.state, recorded: false, stopping: false });
        after
    }

    fn crash(&self, machine: bool) -> Self {
        let mut after = Self { running: None, crashes: self.crashes + 1, ..self.clone() };
        if machine {
            (after.boot, after.hot, after.hot_whole) = (self.boot + 1, 0, false);
        }
        after
    }

    fn set(&self, change: impl FnOnce(&mut Running)) -> Self {
        let mut after = self.clone();
        if let Some(running) = &mut after.running {
            change(running);
        }
        after
    }

    /// A durable change of the state, unless it is refused.
    fn write(&self, change: impl FnOnce(&mut NodeState) -> Result<(), Refused>) -> Option<Self> {
        let mut after = self.clone();
        change(&mut after.disk).ok()?;
        let state = after.disk.clone();
        if let Some(running) = &mut after.running {
            running.state = state;
        }
        Some(after)
    }

    /// What control is about to act on.
    fn keep(&self, may_ack_memory: bool, readmitted: Option<Position>) -> Option<Self> {
        let leadership = leadership();
        let promise = Promise {
            leadership,
            vote: None,
            may_ack_memory,
            admitted: false,
            founding: false,
            readmitted,
            ahead: false,
        };
        self.write(|state| state.keep(&promise, Durable(position(self.durable))))
    }

    fn works(&self, entries: u8, running: &Running, out: &mut Vec<(Step, Self)>) {
        let recorded = running.recorded;
        if recorded && self.memory_policy && !running.state.may_ack_memory {
            out.extend(self.keep(true, None).map(|after| (Step::AllowMemory, after)));
        }
        if self.hot < entries {
            out.push((Step::Append, Self { hot: self.hot + 1, ..self.clone() }));
        }
        let memory = running.state.may_promise_memory() && self.memory_policy;
        let upto = if memory { self.hot } else { self.durable };
        if recorded && running.state.may_vote() && self.acked < upto {
            out.push((Step::Acknowledge { upto }, Self { acked: upto, ..self.clone() }));
        }
        if recorded && running.state.provisional {
            // A leader has everything that was acknowledged.
            if self.hot < self.acked {
                out.push((Step::CatchUp, Self { hot: self.acked, ..self.clone() }));
            }
            let needed = Some(position(self.acked));
            out.extend(self.keep(false, needed).map(|after| (Step::Readmitted, after)));
        }
        if self.memory_policy {
            out.push((Step::PolicyDisk, Self { memory_policy: false, ..self.clone() }));
        } else if recorded && running.state.may_ack_memory {
            let durable = Durable(position(self.durable));
            let after = self.write(|state| state.forbid_memory(position(self.acked), durable));
            out.extend(after.map(|after| (Step::ForbidMemory, after)));
        }
        if recorded {
            out.push((Step::Stop, self.set(|running| running.stopping = true)));
        }
    }
}

impl Model for Writes {
    type State = State;
    type Step = Step;

    fn begin(&self) -> State {
        let mut disk = NodeState::blank(GROUP, NODE);
        disk.mutants = self.mutants;
        disk.found(leadership()).unwrap();
        disk.boot_id = BootId([1; 16]);
        disk.stop(mark(0), Durable(Position(0))).unwrap();
        State {
            disk,
            durable: 0,
            hot: 0,
            hot_whole: false,
            boot: 1,
            running: None,
            memory_policy: true,
            acked: 0,
            crashes: 0,
        }
    }

    fn steps(&self, state: &State) -> Vec<(Step, State)> {
        let mut out = Vec::new();
        if state.crashes < self.crashes {
            out.push((Step::MachineCrash, state.crash(true)));
        }
        let Some(running) = &state.running else {
            let after = state.start();
            let provisional = after.running.as_ref().is_some_and(|r| r.state.provisional);
            out.push((Step::Start { provisional }, after));
            return out;
        };
        if state.crashes < self.crashes {
            out.push((Step::ProcessCrash, state.crash(false)));
        }
        if state.durable < state.hot {
            out.push((Step::Sync, State { durable: state.hot, ..state.clone() }));
        }
        if !running.recorded {
            let mut after = state.set(|running| running.recorded = true);
            after.disk = running.state.clone();
            out.push((Step::RecordStart, after));
        }
        if running.stopping {
            let durable = Durable(position(state.durable));
            let after = state.write(|disk| disk.stop(mark(state.hot), durable));
            out.extend(after.map(|after| (Step::CleanMark, State { running: None, ..after })));
        } else {
            state.works(self.entries, running, &mut out);
        }
        out
    }

    /// It may vote as an ordinary voter without something it acknowledged.
    fn broken(&self, state: &State) -> Option<&'static str> {
        let running = state.running.as_ref()?;
        let votes = running.recorded && !running.stopping && running.state.may_vote();
        (votes && state.hot < state.acked).then_some("it votes without what it acknowledged")
    }
}

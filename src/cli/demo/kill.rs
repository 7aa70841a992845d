//! `--kill-leader`: while the client sends, the leader's process is killed, again and again, and started anew each time.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use quorate::stream::prng::Prng;

use super::group::{ASK_INTERVAL, Group, PATIENCE};
use super::load::{Load, Source};
use super::{Args, DemoError, check};

/// The group is left in peace for this long between two kills, and up to as long again, so that they come at any phase of
/// its heartbeats.
const PEACE: Duration = Duration::from_millis(200);
/// Fewer voters than this have no leader while one is dead.
const VOTERS_TO_FAIL_OVER: usize = 3;

/// What the two threads of a demo tell each other: one sends, the other watches the nodes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The group has let the client in.
    connected: AtomicBool,
    /// Kills so far.
    kills: AtomicUsize,
    /// Nobody is killed any more.
    peace: AtomicBool,
    /// The watcher gave up: sending is of no use.
    over: AtomicBool,
}

impl Progress {
    /// The client has a session.
    pub(super) fn connect(&self) {
        self.connected.store(true, Ordering::Release);
    }
    /// Kills so far.
    pub(super) fn kills(&self) -> usize {
        self.kills.load(Ordering::Acquire)
    }
    /// Whether nobody is killed any more.
    pub(super) fn is_peace(&self) -> bool {
        self.peace.load(Ordering::Acquire)
    }
    /// Whether sending must end early.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Sends everything that `source` gives while watching the nodes, and killing those that lead if that is asked for.
pub(super) fn run(
    args: &Args,
    seed: u64,
    group: &mut Group,
    source: Source,
    stop: &AtomicBool,
) -> Result<Load, DemoError> {
    let progress = &Progress::default();
    let settings = group.settings().next().expect("a demo has at least one node").clone();
    thread::scope(|scope| {
        // Nodes end with the thread that started them: so the watching is done here, and the sending there.
        let sender = scope.spawn(move || Load::run(args, &settings, source, progress, stop));
        let mut watcher = Watcher { group, stop, progress, sender };
        let outcome = watcher.run(args.kills(), seed);
        progress.over.store(outcome.is_err(), Ordering::Release);
        let load = watcher.sender.join();
        let load = load.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.and(load)
    })
}

struct Watcher<'scope, 'a> {
    group: &'a mut Group,
    stop: &'a AtomicBool,
    progress: &'a Progress,
    sender: ScopedJoinHandle<'scope, Result<Load, DemoError>>,
}

impl Watcher<'_, '_> {
    fn run(&mut self, kills: usize, seed: u64) -> Result<(), DemoError> {
        let mut random = Prng::new(seed);
        while self.progress.kills() < kills && !self.sender.is_finished() {
            let extra = PEACE.mul_f64(random.next_u64() as f64 / u64::MAX as f64);
            self.watch(PEACE + extra)?;
            if self.progress.connected.load(Ordering::Acquire) && !self.sender.is_finished() {
                self.kill_leader()?;
            }
        }
        if kills > 0 {
            self.watch(PEACE)?; // the last outage too is seen to its end
        }
        self.progress.peace.store(true, Ordering::Release);
        while !self.sender.is_finished() {
            self.watch(ASK_INTERVAL)?;
        }
        let killed = self.progress.kills();
        if killed < kills {
            eprintln!("quorate: the input ended after {killed} of {kills} kills");
        }
        Ok(())
    }

    /// Lets time pass, until nothing is sent any more, and looks after the nodes.
    fn watch(&mut self, time: Duration) -> Result<(), DemoError> {
        let until = Instant::now() + time;
        loop {
            self.look()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.sender.is_finished() {
                return Ok(());
            }
            thread::sleep(left.min(ASK_INTERVAL));
        }
    }

    fn look(&mut self) -> Result<(), DemoError> {
        check(self.stop)?;
        self.group.check()
    }

    /// Kills the leader if there is one, and starts it again once another one leads; returns when the group is whole.
    fn kill_leader(&mut self) -> Result<(), DemoError> {
        let Some(dead) = leader(&self.group.statuses()) else { return Ok(()) };
        let nodes = self.group.settings().count();
        // Before it dies, so that what is answered afterwards counts as an outage of this kill.
        let kill = self.progress.kills.fetch_add(1, Ordering::AcqRel) + 1;
        self.group.kill(dead)?;
        let voters = self.group.settings().next().map_or(0, |settings| {
            settings.members.iter().filter(|member| !member.observer).count()
        });
        if voters >= VOTERS_TO_FAIL_OVER {
            self.wait_for("another leader", |statuses| leader(statuses).is_some())?;
        }
        let reached = reached(&self.group.statuses());
        self.group.start_again(dead)?;
        self.wait_for("the node that was killed", |statuses| {
            statuses.len() == nodes && is_whole(statuses, reached)
        })?;
        eprintln!("quorate: kill {kill}: node {dead} led, is started again and follows");
        Ok(())
    }

    fn wait_for(&mut self, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Result<(), DemoError> {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&self.group.statuses()) {
            if Instant::now() > deadline {
                let text = format!("waited in vain for {what}: see --keep for the events");
                return Err(DemoError::Failed(text));
            }
            self.look()?;
            thread::sleep(ASK_INTERVAL);
        }
        Ok(())
    }
}

/// Who leads with a quorum behind it.
fn leader(statuses: &[Value]) -> Option<usize> {
    let leads = statuses.iter().filter(|status| status["role"] == "leader");
    let leads = leads.filter(|status| status["quorum"] == true);
    // One that has not heard of its successor yet may say so too.
    let newest = leads.max_by_key(|status| status["term"].as_u64());
    newest.and_then(|status| usize::try_from(status["node"].as_u64()?).ok())
}

/// The end of what is known to be committed.
fn reached(statuses: &[Value]) -> u64 {
    let commits = statuses.iter().filter_map(|status| status["positions"]["commit"].as_u64());
    commits.max().unwrap_or(0)
}

/// One leads, the others follow it, with votes of their own unless they only observe, and all hold what was committed when
/// it began.
fn is_whole(statuses: &[Value], reached: u64) -> bool {
    let Some(leader) = leader(statuses) else { return false };
    statuses.iter().all(|status| {
        status["leader"] == leader
            && (status["standing"] == "voter" || status["standing"] == "observer")
            && status["positions"]["applied"].as_u64() >= Some(reached)
    })
}

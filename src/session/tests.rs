//! The rules of the session table, by themselves and through [`State`].

use std::collections::BTreeMap;

use proptest::prelude::*;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::*;
use crate::frame::payload::{CommandPrefix, SessionClose, SessionOpen, TimerFired};
use crate::frame::{FrameHeader, Kind};
use crate::service::timers::TIMER_RETRY_NS;
use crate::service::{Context, Echo, Rejection, Reply, Sequencer, Service};
use crate::types::{ClientSequence, Sequence, SessionId, Term, Timestamp};

const SMALL: SessionLimits = SessionLimits {
    sessions_max: 4,
    in_flight_max: 3,
    reply_bytes_total: 10 * 64,
    session_reply_bytes: 6 * 64,
};

/// Drives a [`State`] as a log would.
struct Log<S> {
    state: State<S>,
    time: u64,
}

impl<S: Service> Log<S> {
    fn new(service: S, sessions: SessionLimits) -> Self {
        let limits = StateLimits { sessions, reply_bytes_max: 1024 };
        Self { state: State::new(service, limits), time: 1000 }
    }
    fn entry(&mut self, kind: Kind, payload: &[u8]) -> Outcome {
        let sequence = self.state.sequence().next();
        let length = 32 + payload.len() as u32;
        let header = FrameHeader::new(length, kind, Term(1), sequence, Timestamp(self.time));
        let applied = self.state.apply_frame(kind, &header, payload);
        assert_eq!(applied.sequence, sequence);
        applied.outcome
    }
    fn open(&mut self, nonce: u64) -> Outcome {
        let open = SessionOpen { nonce: U64::new(nonce), timeout: U64::new(500) };
        self.entry(Kind::SessionOpen, open.as_bytes())
    }
    fn close(&mut self, session: SessionId) -> Outcome {
        let session = U64::new(session.0);
        let close = SessionClose { session, reason: 1, reserved: [0; 7] };
        self.entry(Kind::SessionClose, close.as_bytes())
    }
    fn send(&mut self, kind: Kind, who: SessionId, n: u64, received: u64, bytes: &[u8]) -> Outcome {
        let prefix = CommandPrefix {
            session: U64::new(who.0),
            client_sequence: U64::new(n),
            received_through: U64::new(received),
        };
        self.entry(kind, &[prefix.as_bytes(), bytes].concat())
    }
    fn command(&mut self, who: SessionId, n: u64, received: u64, bytes: &[u8]) -> Outcome {
        self.send(Kind::Command, who, n, received, bytes)
    }
    fn reply(&self, who: SessionId, n: u64) -> Option<Vec<u8>> {
        let reply = self.state.sessions().reply(who, ClientSequence(n))?;
        let mut bytes = vec![0; 2048];
        let length = reply.copy_to(&mut bytes)?;
        bytes.truncate(length);
        Some(bytes)
    }
    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.state.snapshot(&mut bytes).expect("memory takes it");
        bytes
    }
}

fn opened(outcome: Outcome) -> SessionId {
    match outcome {
        Outcome::SessionOpened { id, .. } => id,
        other => panic!("not opened: {other:?}"),
    }
}

fn replied(session: SessionId, n: u64, answer: Answer) -> Outcome {
    Outcome::Replied { session, client_sequence: ClientSequence(n), answer }
}

fn refused(session: SessionId, n: u64, why: Verdict) -> Outcome {
    Outcome::Refused { session, client_sequence: ClientSequence(n), why }
}

fn batch(commands: &[&[u8]]) -> Vec<u8> {
    commands
        .iter()
        .flat_map(|command| [&(command.len() as u32).to_le_bytes()[..], command].concat())
        .collect()
}

/// A timer of the service that fires is the one that is pending, and due: nothing else is.
#[test]
fn a_timer_fires_only_if_that_scheduling_is_pending_and_due() {
    let mut log = Log::new(Alarm::default(), SessionLimits::default());
    let who = opened(log.open(1));
    let fire = |log: &mut Log<Alarm>, schedule: u64| {
        let fired = TimerFired { id: U64::new(7), schedule: U64::new(schedule) };
        log.entry(Kind::Timer, fired.as_bytes())
    };
    // Due at 2000, then moved to 3000: the first scheduling is nothing any more.
    log.command(who, 1, 0, &2000u64.to_le_bytes());
    log.command(who, 2, 0, &3000u64.to_le_bytes());
    assert_eq!(fire(&mut log, 2), Outcome::None, "not due");
    log.time = 3000;
    assert_eq!(fire(&mut log, 1), Outcome::None, "moved");
    let image = log.snapshot();
    assert_eq!(fire(&mut log, 2), Outcome::TimerFired);
    assert_eq!(fire(&mut log, 2), Outcome::None, "fired");
    assert_eq!(log.state.service().fired, [3000]);
    // A node that begins with a snapshot taken before fires the same.
    let mut other = Log::new(Alarm::default(), SessionLimits::default());
    other.state.restore(&mut &image[..]).expect("an image of such a state");
    other.time = 3000;
    assert_eq!(fire(&mut other, 2), Outcome::TimerFired);
    assert_eq!(fire(&mut other, 2), Outcome::None);
    assert_eq!(other.state.state_hash(), log.state.state_hash());
}

/// A command that is rejected has scheduled and emitted nothing; a timer that is rejected comes again.
#[test]
fn r12_timers_and_events_of_a_rejected_unit_leave_no_trace() {
    let mut log = Log::new(Alarm::default(), SessionLimits::default());
    let who = opened(log.open(1));
    log.command(who, 1, 0, &2000u64.to_le_bytes());
    let before = (log.state.effects().timers.state_hash(), log.state.effects().outbox.state_hash());
    log.command(who, 2, 0, &REJECTED_DUE.to_le_bytes());
    let after = (log.state.effects().timers.state_hash(), log.state.effects().outbox.state_hash());
    assert_eq!(after, before);
    log.time = 2000;
    log.state.service_mut().rejects = true;
    let fired = TimerFired { id: U64::new(7), schedule: U64::new(1) };
    assert_eq!(log.entry(Kind::Timer, fired.as_bytes()), Outcome::None);
    let again = log.state.effects().timers.first().expect("it is pending");
    assert_eq!((again.due, again.schedule), (Timestamp(2000 + TIMER_RETRY_NS), 2));
    assert_eq!(log.state.effects().outbox.last(), 1, "what was emitted by the first command");
}

/// A command with this is rejected, after it was carried out.
const REJECTED_DUE: u64 = 2500;

/// Wakes at the time that the last command says.
#[derive(Clone, Debug, Default)]
struct Alarm {
    fired: Vec<u64>,
    rejects: bool,
}

impl Service for Alarm {
    fn name(&self) -> &'static str {
        "alarm"
    }
    fn begin(&mut self) {}
    fn keep(&mut self) {}
    fn roll_back(&mut self) {}
    fn apply(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        _: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        let due = command.try_into().map(u64::from_le_bytes).map_err(|_| Rejection(1))?;
        context.schedule(7, Timestamp(due))?;
        context.emit(command)?;
        if due == REJECTED_DUE { Err(Rejection(2)) } else { Ok(()) }
    }
    fn timer(&mut self, context: &Context<'_>, id: u64) -> Result<(), Rejection> {
        context.emit(b"ring")?;
        if self.rejects || id != 7 {
            return Err(Rejection(3));
        }
        self.fired.push(context.time.0);
        Ok(())
    }
    fn query(&self, _: &[u8], _: &mut Reply<'_>) -> Result<(), Rejection> {
        Ok(())
    }
    fn snapshot(&self, _: &mut dyn std::io::Write) -> std::io::Result<()> {
        Ok(())
    }
    fn restore(&mut self, _: &mut dyn std::io::Read) -> std::io::Result<()> {
        Ok(())
    }
    fn state_hash(&self) -> u64 {
        0
    }
}

/// D10: command 5 arrives before 4: it is refused, 4 is still applied once.
#[test]
fn d10_a_gap_is_refused_and_consumes_nothing() {
    let mut log = Log::new(Echo::new(), SessionLimits::default());
    let who = opened(log.open(1));
    for n in 1..=3 {
        assert_eq!(log.command(who, n, n - 1, &[n as u8]), replied(who, n, Answer::Applied));
    }
    let service_before = log.state.service().clone();
    let kept_before = log.state.sessions().info(who);
    let gap = Verdict::Gap { expected: ClientSequence(4) };
    assert_eq!(log.command(who, 5, 3, b"five"), refused(who, 5, gap));
    assert_eq!(log.state.service(), &service_before);
    assert_eq!(log.state.sessions().info(who), kept_before);
    assert_eq!(log.reply(who, 5), None);
    assert_eq!(log.command(who, 4, 2, b"four"), replied(who, 4, Answer::Applied));
    let repeated = Outcome::Repeated {
        session: who,
        client_sequence: ClientSequence(4),
        answer: Answer::Applied,
    };
    assert_eq!(log.command(who, 4, 2, b"four"), repeated);
    assert_eq!(log.command(who, 5, 4, b"five"), replied(who, 5, Answer::Applied));
    assert_eq!(log.state.service().seen().count, 5);
    assert_eq!(log.reply(who, 5).as_deref(), Some(&b"five"[..]));
}

#[test]
fn a_repeated_command_is_answered_from_the_store_with_the_same_bytes() {
    let mut log = Log::new(Sequencer::new(), SessionLimits::default());
    let who = opened(log.open(9));
    log.command(who, 1, 0, b"");
    let first = log.reply(who, 1);
    assert_eq!(first, Some(2u64.to_le_bytes().to_vec()));
    // Whatever bytes come under the same number: the command was that of the first time.
    log.command(who, 1, 0, b"other bytes");
    assert_eq!(log.reply(who, 1), first);
    assert_eq!(log.state.service().ordered(), 1);
    // A number in the store is not received by being sent: the reply stays.
    log.command(who, 1, 1, b"");
    assert_eq!(log.reply(who, 1), first);
}

#[test]
fn replies_go_as_the_client_has_them_and_the_oldest_when_it_never_says() {
    let mut log = Log::new(Echo::new(), SMALL);
    let who = opened(log.open(1));
    for n in 1..=3 {
        log.command(who, n, 0, b"x");
    }
    log.command(who, 4, 2, b"x");
    assert_eq!(log.reply(who, 2), None);
    assert!(log.reply(who, 3).is_some());
    assert_eq!(log.command(who, 2, 0, b"x"), refused(who, 2, Verdict::Forgotten));
    log.command(who, 5, 0, b"x");
    assert!(log.reply(who, 3).is_some(), "three are kept");
    log.command(who, 6, 0, b"x");
    assert_eq!(log.reply(who, 3), None, "the fourth pushes the oldest out");
    assert_eq!(log.command(who, 0, 0, b"x"), refused(who, 0, Verdict::Forgotten));
}

#[test]
fn a_reply_without_room_is_rolled_back_and_rejected_by_name() {
    let mut log = Log::new(Echo::new(), SMALL);
    let [a, b] = [1, 2].map(|nonce| opened(log.open(nonce)));
    assert_eq!(log.command(a, 1, 0, &[1; 6 * 64]), replied(a, 1, Answer::Applied));
    let before = log.state.service().clone();
    let rejected = Answer::Rejected(Rejection::REPLY_SPACE);
    assert_eq!(log.command(a, 2, 0, &[1; 1]), replied(a, 2, rejected), "over its own bound");
    assert_eq!(log.command(b, 1, 0, &[1; 5 * 64]), replied(b, 1, rejected), "over that of all");
    assert_eq!(log.state.service(), &before);
    assert_eq!(log.reply(a, 2), Some(vec![]));
    assert_eq!(log.command(b, 2, 0, &[1; 4 * 64]), replied(b, 2, Answer::Applied));
    assert_eq!(log.command(a, 3, 2, &[1; 6 * 64]), replied(a, 3, Answer::Applied));
    // What the ring is going to drop counts as room already.
    log.command(b, 3, 0, b"");
    assert_eq!(log.command(b, 4, 0, b""), replied(b, 4, Answer::Applied));
    assert_eq!(log.command(b, 5, 0, &[2; 4 * 64]), replied(b, 5, Answer::Applied));
}

#[test]
fn r12_a_failing_batch_leaves_no_trace() {
    let mut log = Log::new(Echo::new(), SessionLimits::default());
    let who = opened(log.open(1));
    let good = batch(&[b"one", b"", b"three"]);
    assert_eq!(log.send(Kind::CommandBatch, who, 1, 0, &good), replied(who, 1, Answer::Applied));
    assert_eq!(log.reply(who, 1), Some(good.clone()), "echoes: the reply is built as the batch is");
    let before = log.state.service().clone();
    let malformed = Answer::Rejected(Rejection::MALFORMED_BATCH);
    let cut = &good[..good.len() - 1];
    assert_eq!(log.send(Kind::CommandBatch, who, 2, 1, cut), replied(who, 2, malformed));
    let too_long = Answer::Rejected(Rejection::REPLY_TOO_LONG);
    let bulky = batch(&[b"one", &[7; 1020]]);
    assert_eq!(log.send(Kind::CommandBatch, who, 3, 2, &bulky), replied(who, 3, too_long));
    assert_eq!(log.state.service(), &before);
    assert_eq!(log.reply(who, 3), Some(vec![]));
    assert_eq!(log.send(Kind::CommandBatch, who, 4, 3, &[]), replied(who, 4, Answer::Applied));
}

#[test]
fn one_nonce_opens_one_session_and_a_full_table_says_so() {
    let mut log = Log::new(Echo::new(), SMALL);
    let first = opened(log.open(7));
    assert_eq!(opened(log.open(7)), first);
    assert_eq!(log.state.sessions().count(), 1);
    for nonce in 0..3 {
        opened(log.open(nonce));
    }
    assert_eq!(log.open(99), Outcome::SessionsFull { nonce: 99 });
    let reason = crate::service::CloseReason::Asked;
    assert_eq!(log.close(first), Outcome::SessionClosed { id: first, reason });
    assert_eq!(log.close(first), Outcome::None);
    assert_eq!(log.command(first, 1, 0, b""), refused(first, 1, Verdict::UnknownSession));
    assert_ne!(opened(log.open(7)), first, "a closed session is not found again");
    let ids: Vec<u64> = log.state.sessions().iter().map(|info| info.id.0).collect();
    assert!(ids.is_sorted() && ids.len() == 4);
}

#[test]
fn impossible_payloads_change_nothing() {
    let mut log = Log::new(Echo::new(), SMALL);
    for kind in [
        Kind::SessionOpen,
        Kind::SessionClose,
        Kind::Command,
        Kind::CommandBatch,
        Kind::Timer,
        Kind::EventCursor,
        Kind::GroupSetting,
    ] {
        assert_eq!(log.entry(kind, &[0; 7]), Outcome::Malformed);
    }
    assert_eq!(log.entry(Kind::SessionClose, &[0; 16]), Outcome::Malformed);
    for kind in [Kind::Membership, Kind::TermStart] {
        assert_eq!(log.entry(kind, &[]), Outcome::None);
    }
    assert_eq!(log.state.sequence(), Sequence(10));
}

#[test]
fn time_never_goes_back_and_padding_is_nothing() {
    let mut log = Log::new(Echo::new(), SMALL);
    log.entry(Kind::TermStart, &[0; 24]);
    log.time = 10;
    log.entry(Kind::TermStart, &[0; 24]);
    assert_eq!(log.state.time(), Timestamp(1000));
    let before = log.state.state_hash();
    let padding =
        FrameHeader::new(64, Kind::Padding, Term(1), log.state.sequence(), Timestamp(u64::MAX));
    log.state.apply_frame(Kind::Padding, &padding, &[]);
    assert_eq!(log.state.state_hash(), before);
}

#[test]
fn silent_sessions_are_named_once_and_those_heard_are_not() {
    let mut table = Sessions::new(SessionLimits { sessions_max: 200, ..SMALL });
    for n in 1..=200 {
        table.open(SessionId(n), n, 100, Timestamp(n)).expect("room");
    }
    let all = |table: &mut Sessions, time, not_before| {
        let mut named: Vec<u64> = Vec::new();
        for _ in 0..400 {
            named.extend(table.expired(Timestamp(time), Timestamp(not_before)).map(|id| id.0));
        }
        named.sort_unstable();
        named
    };
    let hash = table.state_hash();
    assert_eq!(all(&mut table, 110, 0), (1..=9).collect::<Vec<_>>());
    assert!(all(&mut table, 110, 0).is_empty());
    table.touch(SessionId(4), Timestamp(105));
    table.name_again();
    assert!(all(&mut table, 300, 250).is_empty(), "the grace of a new leadership");
    table.touch(SessionId(4), Timestamp(105));
    assert!(table.close(SessionId(3)) && !table.close(SessionId(3)));
    assert_eq!(
        all(&mut table, 203, 0),
        (1..=102).filter(|&n| n != 3 && n != 4).collect::<Vec<_>>()
    );
    assert_eq!(all(&mut table, 206, 0), [4, 103, 104, 105]);
    table.open(SessionId(201), 3, 100, Timestamp(3)).expect("room");
    assert_ne!(table.state_hash(), hash);
}

#[test]
fn a_thousand_sessions_and_more_come_and_go() {
    let mut table = Sessions::new(SessionLimits {
        sessions_max: 1500,
        in_flight_max: 4,
        reply_bytes_total: 1500 * 4 * 64,
        session_reply_bytes: 4 * 64,
    });
    let mut open: Vec<u64> = Vec::new();
    for id in 1..=6000u64 {
        if open.len() == 1500 {
            assert_eq!(table.open(SessionId(id), id, 1, Timestamp(0)), Err(SessionsFull));
            // Any one goes: the table has no order but that of the ids.
            let gone = open.remove((id * 7919 % 1500) as usize);
            assert!(table.close(SessionId(gone)));
        }
        table.open(SessionId(id), id, 1, Timestamp(0)).expect("room");
        open.push(id);
        for n in 1..=5 {
            let (id, n) = (SessionId(id), ClientSequence(n));
            assert!(table.fits(id, 64));
            table.record(id, n, Answer::Applied, Sequence(1), Timestamp(0), &id.0.to_le_bytes());
        }
    }
    assert!(table.iter().map(|info| info.id.0).eq(open.iter().copied()));
    for &id in &open {
        let reply = table.reply(SessionId(id), ClientSequence(5)).expect("kept");
        assert_eq!(reply.chunks.flatten().copied().collect::<Vec<u8>>(), id.to_le_bytes());
    }
}

/// What a client did, for the model.
#[derive(Clone, Debug)]
enum Step {
    Open(u64),
    Close(usize),
    Command { who: usize, ahead: i64, received: u64, length: usize },
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0u64..6).prop_map(Step::Open),
        1 => (0usize..4).prop_map(Step::Close),
        12 => (0usize..4, -4i64..4, 0u64..5, 0usize..200)
            .prop_map(|(who, ahead, received, length)| Step::Command { who, ahead, received, length }),
        1 => (0u64..1000).prop_map(Step::Tick),
    ]
}

fn play(log: &mut Log<Echo>, step: &Step) -> Outcome {
    let pick = |log: &Log<Echo>, n: usize| log.state.sessions().iter().nth(n);
    match *step {
        Step::Open(nonce) => log.open(nonce),
        Step::Close(n) => match pick(log, n) {
            Some(info) => log.close(info.id),
            None => Outcome::None,
        },
        Step::Command { who, ahead, received, length } => match pick(log, who) {
            Some(info) => {
                let n = info.last.0.saturating_add_signed(ahead);
                let received = n.saturating_sub(received);
                log.command(info.id, n, received, &vec![n as u8; length])
            }
            None => Outcome::None,
        },
        Step::Tick(nanoseconds) => {
            log.time += nanoseconds;
            Outcome::None
        }
    }
}

/// The rules, naively: what each session's last commands were answered.
#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<u64, ModelSession>,
}

#[derive(Debug, Default)]
struct ModelSession {
    nonce: u64,
    last: u64,
    forgotten: u64,
    replies: BTreeMap<u64, (Answer, Vec<u8>)>,
}

impl ModelSession {
    fn chunks(&self) -> usize {
        self.replies.values().map(|(_, bytes)| bytes.len().div_ceil(64)).sum()
    }
    fn forget(&mut self, through: u64) {
        self.forgotten = self.forgotten.max(through.min(self.last));
        self.replies = self.replies.split_off(&(self.forgotten + 1));
    }
}

impl Model {
    fn command(&mut self, id: u64, n: u64, received: u64, length: usize) -> Outcome {
        let others: usize =
            self.sessions.iter().filter(|(one, _)| **one != id).map(|(_, one)| one.chunks()).sum();
        let (who, client_sequence) = (SessionId(id), ClientSequence(n));
        let Some(session) = self.sessions.get_mut(&id) else {
            return refused(who, n, Verdict::UnknownSession);
        };
        if n > session.last + 1 {
            let expected = ClientSequence(session.last + 1);
            return refused(who, n, Verdict::Gap { expected });
        }
        if n <= session.forgotten {
            return refused(who, n, Verdict::Forgotten);
        }
        session.forget(received.min(n - 1));
        if n <= session.last {
            let answer = session.replies[&n].0;
            return Outcome::Repeated { session: who, client_sequence, answer };
        }
        if session.replies.len() == SMALL.in_flight_max {
            session.forget(session.forgotten + 1);
        }
        let chunks = session.chunks() + length.div_ceil(64);
        let reply = if chunks > SMALL.session_reply_bytes / 64
            || others + chunks > SMALL.reply_bytes_total / 64
        {
            (Answer::Rejected(Rejection::REPLY_SPACE), Vec::new())
        } else {
            (Answer::Applied, vec![n as u8; length])
        };
        session.last = n;
        session.replies.insert(n, reply.clone());
        replied(who, n, reply.0)
    }
    fn play(&mut self, step: &Step, sequence: u64) -> Outcome {
        let pick = |model: &Self, n: usize| model.sessions.keys().nth(n).copied();
        match *step {
            Step::Open(nonce) => {
                let known = self.sessions.iter().find(|(_, one)| one.nonce == nonce);
                if let Some((&id, _)) = known {
                    return Outcome::SessionOpened { id: SessionId(id), nonce };
                }
                if self.sessions.len() == SMALL.sessions_max {
                    return Outcome::SessionsFull { nonce };
                }
                self.sessions.insert(sequence, ModelSession { nonce, ..ModelSession::default() });
                Outcome::SessionOpened { id: SessionId(sequence), nonce }
            }
            Step::Close(n) => match pick(self, n) {
                Some(id) => {
                    self.sessions.remove(&id);
                    let reason = crate::service::CloseReason::Asked;
                    Outcome::SessionClosed { id: SessionId(id), reason }
                }
                None => Outcome::None,
            },
            Step::Command { who, ahead, received, length } => match pick(self, who) {
                Some(id) => {
                    let n = self.sessions[&id].last.saturating_add_signed(ahead);
                    self.command(id, n, n.saturating_sub(received), length)
                }
                None => Outcome::None,
            },
            Step::Tick(_) => Outcome::None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_table_follows_the_rules(steps in prop::collection::vec(step(), 1..200)) {
        let (mut log, mut model) = (Log::new(Echo::new(), SMALL), Model::default());
        for step in &steps {
            let sequence = log.state.sequence().next().0;
            prop_assert_eq!(play(&mut log, step), model.play(step, sequence), "{:?}", step);
            prop_assert_eq!(log.state.sessions().count(), model.sessions.len());
            for (info, (id, session)) in log.state.sessions().iter().zip(&model.sessions) {
                prop_assert_eq!((info.id.0, info.last.0), (*id, session.last));
                prop_assert_eq!(info.forgotten_through.0, session.forgotten);
                prop_assert_eq!(log.state.sessions().find_nonce(session.nonce), Some(info.id));
                for n in 0..=session.last + 1 {
                    let kept = session.replies.get(&n).map(|(_, bytes)| bytes.clone());
                    prop_assert_eq!(log.reply(info.id, n), kept);
                }
            }
        }
    }

    #[test]
    fn snapshots_bring_everything_back(
        steps in prop::collection::vec(step(), 1..80),
        after in prop::collection::vec(step(), 0..20),
    ) {
        let mut log = Log::new(Echo::new(), SMALL);
        for step in &steps {
            play(&mut log, step);
        }
        let bytes = log.snapshot();
        let mut copy = Log::new(Echo::new(), SMALL);
        copy.open(77);
        copy.state.restore(&mut &bytes[..]).expect("its own snapshot");
        copy.time = log.time;
        prop_assert_eq!(copy.state.state_hash(), log.state.state_hash());
        prop_assert_eq!(copy.snapshot(), bytes);
        for step in &after {
            prop_assert_eq!(play(&mut copy, step), play(&mut log, step));
            prop_assert_eq!(copy.state.state_hash(), log.state.state_hash());
        }
        prop_assert_eq!(copy.snapshot(), log.snapshot());
    }

    #[test]
    fn damaged_snapshots_are_refused(cut in 0usize..600, flip in 0usize..600, bit in 0u8..8) {
        let mut log = Log::new(Echo::new(), SMALL);
        let who = opened(log.open(1));
        for n in 1..=3 {
            log.command(who, n, 0, &[n as u8; 90]);
        }
        let bytes = log.snapshot();
        let mut copy = Log::new(Echo::new(), SMALL);
        let cut = cut % bytes.len();
        prop_assert!(copy.state.restore(&mut &bytes[..cut]).is_err());
        let mut flipped = bytes.clone();
        flipped[flip % bytes.len()] ^= 1 << bit;
        prop_assert!(copy.state.restore(&mut &flipped[..]).is_err());
        prop_assert!(copy.state.restore(&mut &bytes[..]).is_ok());
    }
}

//! The code of docs/GUIDE.md, run. The page shows parts of this file word for word; the last test sees to that.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

#[path = "support/reminders.rs"]
mod reminders;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate::Engine;
use quorate::client::{Answer, Demand, Outcome, Refusal, Request};
use quorate::conformance::{service, storage, transport};
use quorate::control::event::Event;
use quorate::frame::payload::batch_items;
use quorate::io::HostHotTier;
use quorate::io::files::{HostDisk, HostFile};
use quorate::journal::{Disk, DurableFile};
use quorate::runtime::config::{Founding, FoundingMember, Layers, Settings, TransportKind};
use quorate::runtime::environment::{Host, InMemory, InProcess, Storage};
use quorate::runtime::{ConnectOptions, Ended, EngineError, ExecuteError, HostClient, NodeError};
use quorate::service::hash::Fingerprint;
use quorate::service::{CloseReason, Context, Echo, Rejection, Reply, Service};
use quorate::types::{ClientSequence, GroupId, Nanos};
use reminders::{Reminders, cancel, remind, say};

type Outcomes = Result<(), Box<dyn Error>>;

/// A folder of one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("quorate-guide-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SEATS: usize = 200;
const FREE: u64 = 0;
const SOLD: u64 = u64::MAX;

/// Codes of our own, below `Rejection::ENGINE`.
const NOT_A_COMMAND: Rejection = Rejection(1);
const NO_SUCH_SEAT: Rejection = Rejection(2);
const TAKEN: Rejection = Rejection(3);

/// The seats of a theatre: free, sold, or held by the session of a client that is still choosing.
#[derive(Clone)]
struct Theatre {
    seats: [u64; SEATS],
    /// What each seat was before the unit changed it, oldest first.
    changes: Vec<(usize, u64)>,
}

impl Theatre {
    fn new() -> Self {
        Self { seats: [FREE; SEATS], changes: Vec::with_capacity(SEATS) }
    }

    fn set(&mut self, seat: usize, state: u64) {
        self.changes.push((seat, self.seats[seat]));
        self.seats[seat] = state;
    }
}

impl Service for Theatre {
    fn name(&self) -> &'static str {
        "theatre"
    }

    fn begin(&mut self) {
        self.changes.clear();
    }

    fn keep(&mut self) {
        self.changes.clear();
    }

    fn roll_back(&mut self) {
        while let Some((seat, before)) = self.changes.pop() {
            self.seats[seat] = before;
        }
    }

    fn apply(
        &mut self,
        context: &Context<'_>,
        command: &[u8],
        reply: &mut Reply<'_>,
    ) -> Result<(), Rejection> {
        let [verb, seat] = command else { return Err(NOT_A_COMMAND) };
        let seat = usize::from(*seat);
        let state = *self.seats.get(seat).ok_or(NO_SUCH_SEAT)?;
        let own = context.session.0;
        let next = match verb {
            b'h' if state == FREE => own,
            b'b' if state == FREE || state == own => SOLD,
            b'h' | b'b' => return Err(TAKEN),
            _ => return Err(NOT_A_COMMAND),
        };
        // A batch may change a seat twice; beyond this many changes it is none that makes sense.
        if self.changes.len() == SEATS {
            return Err(NOT_A_COMMAND);
        }
        self.set(seat, next);
        reply.write(&context.sequence.0.to_le_bytes())
    }

    fn query(&self, _: &[u8], reply: &mut Reply<'_>) -> Result<(), Rejection> {
        let free = self.seats.iter().filter(|state| **state == FREE).count() as u64;
        reply.write(&free.to_le_bytes())
    }

    fn session_closed(&mut self, context: &Context<'_>, _: CloseReason) {
        for state in &mut self.seats {
            if *state == context.session.0 {
                *state = FREE;
            }
        }
    }

    fn snapshot(&self, writer: &mut dyn Write) -> io::Result<()> {
        self.seats.iter().try_for_each(|state| writer.write_all(&state.to_le_bytes()))
    }

    fn restore(&mut self, reader: &mut dyn Read) -> io::Result<()> {
        for state in &mut self.seats {
            let mut bytes = [0; 8];
            reader.read_exact(&mut bytes)?;
            *state = u64::from_le_bytes(bytes);
        }
        self.changes.clear();
        Ok(())
    }

    fn state_hash(&self) -> u64 {
        self.seats.iter().fold(Fingerprint::new(1), |hash, state| hash.word(*state)).finish()
    }
}

#[test]
fn one_line() -> Outcomes {
    let folder = Folder::new("one-line");
    let path = &folder.0;

    let engine = Engine::open(path, Echo::new())?;
    let done = engine.execute(b"hello", Duration::from_secs(5))?;
    assert_eq!(done.reply, b"hello");

    assert_eq!(engine.stop(), Ended::Orderly);
    Ok(())
}

#[test]
fn timers_and_events() -> Outcomes {
    let folder = Folder::new("reminders");
    let (path, patience) = (&folder.0, Duration::from_secs(20));

    let engine = Engine::open(path, Reminders::default())?;
    engine.execute(&remind(1, 30), patience)?;
    engine.execute(&remind(2, 60_000), patience)?;
    engine.execute(&cancel(2), patience)?;

    let events = engine.service_events();
    let event = events.next(patience).expect("the timer fires, and the service says so");
    assert_eq!((event.number(), event.bytes()), (1, &b"fired 1"[..]));
    // Only now the group may forget it; before, the next leader would hand it out again.
    events.taken_through(event.number());

    engine.execute(&say("hello"), patience)?;
    assert_eq!(events.next(patience).map(|event| event.number()), Some(2));
    Ok(())
}

#[test]
fn the_theatre_conforms() {
    let verbs = [b'h', b'b', b'x', b'b'];
    let commands: Vec<_> = (0..=250).map(|n| vec![verbs[usize::from(n % 4)], n / 3]).collect();
    let passed = service::check(Theatre::new, &commands).expect("the theatre conforms");
    assert!(passed.applied > 50 && passed.rejected > 50);
}

#[test]
fn the_theatre_runs() -> Outcomes {
    let folder = Folder::new("theatre");
    let path = &folder.0;
    let patience = Duration::from_secs(5);

    let engine = Engine::open(path, Theatre::new())?;
    engine.execute(b"b\x07", patience)?;

    // Seats 8 and 7, or none: 7 is sold, so 8 stays free.
    match engine.execute_batch(&[b"b\x08", b"b\x07"], patience) {
        Err(ExecuteError::Rejected { code, .. }) => assert_eq!(code, TAKEN.0),
        other => panic!("{other:?}"),
    }
    let done = engine.execute_batch(&[b"b\x08", b"b\x09"], patience)?;
    assert_eq!(batch_items(&done.reply).count(), 2);

    let free = engine.query(b"", patience)?;
    assert_eq!(free.reply, 197_u64.to_le_bytes());

    // Held seats are free again when the session of their client ends.
    let mut client = engine.client()?;
    client.client.send(b"h\x20")?;
    while client.client.unanswered() > 0 {
        client.turn(|answer| assert_eq!(answer.outcome, Outcome::Applied));
    }
    assert_eq!(engine.query(b"", patience)?.reply, 196_u64.to_le_bytes());
    client.close(5 * Nanos::SECOND);
    engine.execute(b"b\x20", patience)?;
    let _ = engine.stop();

    // The log brings all of it back.
    let engine = Engine::open(path, Theatre::new())?;
    assert_eq!(engine.query(b"", patience)?.reply, 196_u64.to_le_bytes());
    Ok(())
}

#[test]
fn settings_and_events() -> Outcomes {
    let folder = Folder::new("settings");
    let path = &folder.0;

    let engine = Engine::builder(path)
        .set("group.segment_bytes", "64 MiB")
        .set("timing.heartbeat_ms", "5")
        .set("threads.idle", "park")
        .stderr(true)
        .open(Theatre::new())?;

    let event: Event = engine.events().recv_timeout(Duration::from_secs(5))?;
    println!("{} {event}", event.code());
    let status = engine.status();
    println!("{:?}, {} of {} on the disk", status.role, status.durable, status.tail);
    Ok(())
}

fn run_node(file: &Path) -> Result<Engine, EngineError> {
    Engine::node_of(Layers::new().file(file)).open(Theatre::new())
}

fn connect(file: &Path) -> Result<HostClient, Box<dyn Error>> {
    let settings = Layers::new().file(file).check()?;
    let mut client = HostClient::new(ConnectOptions::of(&settings, "box office"))?;
    client.connect(10 * Nanos::SECOND)?;
    Ok(client)
}

/// Buys these seats, as many at once as the group takes, and says what became of each.
fn buy(client: &mut HostClient, seats: &[u8], patience_ns: u64) -> BTreeMap<u8, Outcome> {
    let deadline = client.now().plus(patience_ns);
    let mut asked: BTreeMap<ClientSequence, u8> = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    let mut left = seats.iter();
    let mut next = left.next();
    while next.is_some() || client.client.unanswered() > 0 {
        while let Some(&seat) = next {
            match client.client.send(&[b'b', seat]) {
                Ok(number) => {
                    asked.insert(number, seat);
                    next = left.next();
                }
                // These do not pass.
                Err(Refusal::TooLong { .. } | Refusal::Closed) => return outcomes,
                // The others do: take answers, and try again.
                Err(_) => break,
            }
        }
        let take = |answer: Answer<'_>| {
            if let Request::Command(number) = answer.request {
                outcomes.insert(asked[&number], answer.outcome);
            }
        };
        if client.now() < deadline {
            client.turn_within(10 * Nanos::MILLISECOND, take);
        } else {
            // Whatever has no answer ends as `Outcome::Unknown`.
            client.client.give_up(take);
            break;
        }
    }
    outcomes
}

#[test]
fn a_client_of_ones_own() -> Outcomes {
    let folder = Folder::new("client");
    let engine = Engine::open(&folder.0, Theatre::new())?;
    let file = folder.0.join("engine.toml");

    let mut client = connect(&file)?;
    let outcomes = buy(&mut client, &[10, 11, 10, 250], 30 * Nanos::SECOND);
    assert_eq!(outcomes[&11], Outcome::Applied);
    assert_eq!(outcomes[&10], Outcome::Rejected { code: TAKEN.0 }, "the second time");
    assert_eq!(outcomes[&250], Outcome::Rejected { code: NO_SUCH_SEAT.0 });

    let number = client.client.send_batch(&[b"b\x01", b"b\x02"])?;
    let mut answer = None;
    while answer.is_none() {
        client.turn(|found| {
            if found.request == Request::Command(number) {
                let replies = batch_items(found.reply).map(|reply| reply.map(<[u8]>::to_vec));
                answer = Some((found.outcome, replies.collect::<Result<Vec<_>, _>>()));
            }
        });
    }
    let (outcome, replies) = answer.unwrap();
    assert_eq!((outcome, replies.unwrap().len()), (Outcome::Applied, 2));

    // Nobody is there any more to say whether it happened.
    let _ = engine.stop();
    let outcomes = buy(&mut client, &[12], Nanos::SECOND / 2);
    assert_eq!(outcomes[&12], Outcome::Unknown);
    assert!(buy(&mut client, &[13], Nanos::SECOND).is_empty(), "the session is closed");
    Ok(())
}

#[test]
fn a_group_of_ones_own() -> Outcomes {
    let folder = Folder::new("group");
    std::fs::create_dir_all(&folder.0)?;
    let bind = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sockets: Vec<_> = (0..3).map(|_| (bind(), bind())).collect();
    let member = |(data, control): &(std::net::UdpSocket, std::net::UdpSocket)| FoundingMember {
        data: data.local_addr().unwrap(),
        control: control.local_addr().unwrap(),
    };
    let founding = Founding {
        group: GroupId(0x7EA7),
        transport: TransportKind::Unicast,
        multicast_port: 0,
        members: sockets.iter().map(member).collect(),
        settings: vec![
            ("group.command_bytes_max".into(), "64 KiB".into()),
            ("group.window_bytes".into(), "256 KiB".into()),
            ("group.segment_bytes".into(), "1 MiB".into()),
        ],
    };
    drop(sockets);
    let mut engines = Vec::new();
    for node in 0..3 {
        let file = folder.0.join(Founding::file_name(node));
        let text = founding.file(&folder.0, node)?;
        // Hot segments in the folder, which goes with the test.
        let hot = format!("data_dir = \"node-{node}\"\nhot_dir = \"hot-{node}\"");
        std::fs::write(&file, text.replace(&format!("data_dir = \"node-{node}\""), &hot))?;
        engines.push(run_node(&file)?);
    }
    let mut client = connect(&folder.0.join("node-2.toml"))?;
    let outcomes = buy(&mut client, &[1, 2, 3], 30 * Nanos::SECOND);
    assert!(outcomes.values().all(|outcome| *outcome == Outcome::Applied), "{outcomes:?}");
    client.close(5 * Nanos::SECOND);
    Ok(())
}

/// The host's storage, with every sync of a file counted.
#[derive(Clone, Default)]
struct Counted {
    syncs: Arc<AtomicU64>,
}

#[derive(Clone)]
struct CountedDisk {
    disk: HostDisk,
    syncs: Arc<AtomicU64>,
}

struct CountedFile {
    file: HostFile,
    syncs: Arc<AtomicU64>,
}

impl Storage for Counted {
    type Disk = CountedDisk;
    type HotTier = HostHotTier;

    fn disk(&self, folder: &HostDisk) -> Result<CountedDisk, NodeError> {
        Ok(CountedDisk { disk: folder.clone(), syncs: Arc::clone(&self.syncs) })
    }

    fn hot_tier(
        &self,
        folder: &HostDisk,
        settings: &Settings,
    ) -> Result<(HostHotTier, Vec<String>), NodeError> {
        Host.hot_tier(folder, settings)
    }
}

impl CountedDisk {
    fn counted(&self, file: HostFile) -> CountedFile {
        CountedFile { file, syncs: Arc::clone(&self.syncs) }
    }
}

impl Disk for CountedDisk {
    type File = CountedFile;

    fn open(&self, name: &str) -> io::Result<CountedFile> {
        self.disk.open(name).map(|file| self.counted(file))
    }
    fn create(&self, name: &str) -> io::Result<CountedFile> {
        self.disk.create(name).map(|file| self.counted(file))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
}

impl DurableFile for CountedFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync()
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }
}

#[test]
fn an_environment_of_ones_own() -> Outcomes {
    let folder = Folder::new("environment");
    let path = &folder.0;
    let patience = Duration::from_secs(30);

    let place = InProcess::new();
    let address = || FoundingMember { data: place.address(), control: place.address() };
    let founding = Founding {
        group: GroupId(0x7EA8),
        transport: TransportKind::Unicast,
        multicast_port: 0,
        members: vec![address(), address(), address()],
        settings: vec![
            ("group.command_bytes_max".into(), "64 KiB".into()),
            ("group.window_bytes".into(), "256 KiB".into()),
            ("group.segment_bytes".into(), "1 MiB".into()),
        ],
    };
    let open = |node| -> Result<_, Box<dyn Error>> {
        let text = founding.file(path, node)?;
        let layers = Layers::new().text(&path.join(Founding::file_name(node)), &text);
        let builder = Engine::node_of(layers).environment((place.clone(), InMemory::new()));
        Ok(builder.open(Theatre::new())?)
    };
    let engines = [open(0)?, open(1)?, open(2)?];
    engines[1].execute(b"b\x07", patience)?;

    assert_eq!(engines[2].query(b"", patience)?.reply, 199_u64.to_le_bytes());

    let sold = engines[1].execute(b"b\x08", patience)?.sequence;
    for engine in &engines {
        // With the sale of before, which this node may not have heard of yet.
        let own = Demand { at_least: sold, wait_ns: 5 * Nanos::SECOND, ..Demand::default() };
        let read = engine.query_local(b"", own)?;
        assert_eq!(read.reply, 198_u64.to_le_bytes());
        // With all that anybody has been told up to 20 ms ago.
        let young = Demand {
            within_ns: 20 * Nanos::MILLISECOND,
            wait_ns: 5 * Nanos::SECOND,
            ..Demand::default()
        };
        let read = engine.query_local(b"", young)?;
        println!("entry {}, {:?} ns old", read.lag.sequence, read.lag.lag_ns);
    }
    Ok(())
}

#[test]
fn a_storage_of_ones_own() -> Outcomes {
    let folder = Folder::new("storage");
    let path = &folder.0.join("engine");
    let patience = Duration::from_secs(5);

    let counted = Counted::default();
    let engine = Engine::builder(path).environment((Host, counted.clone())).open(Theatre::new())?;
    engine.execute(b"b\x07", patience)?;
    assert!(counted.syncs.load(Ordering::Relaxed) > 0);

    let path = &folder.0;
    transport::check(&InProcess::new())?;
    storage::check(&Counted::default(), &path.join("check"), || {})?;
    Ok(())
}

#[test]
fn the_guide_shows_this_code() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/GUIDE.md");
    let page = std::fs::read_to_string(page).unwrap();
    let own = lines(concat!(include_str!("guide.rs"), include_str!("support/reminders.rs")));
    let blocks = blocks(&page);
    assert!(blocks.len() > 5, "the page's code was found");
    for block in blocks {
        let wanted = lines(block);
        assert!(!wanted.is_empty(), "{block}");
        let found = own.windows(wanted.len()).any(|window| window == wanted);
        assert!(found, "this stands on the page, but not in tests/guide.rs:\n{block}");
    }
    let changed = "let engine = Engine::open(path, Echo::new())?;\nengine.halt();";
    let changed = lines(changed);
    assert!(!own.windows(changed.len()).any(|window| window == changed));
}

/// Lines that say something, without their indentation.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// The Rust code on a page.
fn blocks(page: &str) -> Vec<&str> {
    let rest = page.split("```rust\n").skip(1);
    rest.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

/// docs/OPERATIONS.md has a row for every code that a node may show, and for no other.
#[test]
fn every_event_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/OPERATIONS.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| Q-")?.split(' ').next());
    let told: Vec<_> = rows.collect();
    let mut real = Vec::new();
    let mut codes = |path: &str, before: &str| {
        let text = std::fs::read_to_string(root.join(path)).unwrap();
        let found = text.split(before).skip(1).filter_map(|rest| {
            let digits = rest.get(..4)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.to_owned())
        });
        let count = real.len();
        real.extend(found);
        assert!(real.len() > count, "{path} has codes");
    };
    codes("src/control/event.rs", "} => ");
    codes("src/control/event.rs", "Self::DiskFailed => ");
    codes("src/control/event.rs", "Self::Readmitted => ");
    codes("src/control/event.rs", "Self::SpaceBack => ");
    codes("src/control/event.rs", "Self::QuorumRegained => ");
    codes("src/control/event.rs", "Self::Readmitted => ");
    codes("src/control/event.rs", "Self::InsufficientNodes => ");
    codes("src/runtime/node/open.rs", ".line(");
    codes("src/runtime/node/wiring.rs", ".line(");
    codes("src/runtime/control_thread.rs", ".line(");
    codes("src/control/repair.rs", "} => ");
    codes("src/runtime/scrub.rs", ".line(");
    codes("src/runtime/snapshots.rs", ".line(");
    codes("src/runtime/renewal.rs", ".line(");
    codes("src/runtime/retention.rs", ".line(");
    codes("src/runtime/scrub.rs", ".line(");
    codes("src/control/repair.rs", "} => ");
    real.sort();
    real.dedup();
    assert_eq!(told, real);
}

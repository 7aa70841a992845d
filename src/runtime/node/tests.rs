//! R15: what a setting does, from the configuration to the part that it changes. What takes a whole node stands in
//! `tests/settings_p.rs`.

mod cores;
mod network;

use core::sync::atomic::Ordering::Relaxed;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use super::settings::{core_settings, election_settings, group_constants, syncer_settings};
use crate::control::constants::Constant;
use crate::control::election::rig;
use crate::journal::node_state::NodeState;
use crate::journal::rig::Rig;
use crate::link::SharedWords;
use crate::replica::tests::{GROUP, leadership};
use crate::runtime::config::{KEYS, Layers, Settings};
use crate::runtime::threads::group_delay;
use crate::types::{Nanos, NodeId, Position};

/// A setting as it is typed.
type Pair<'a> = (&'a str, &'a str);

/// The configuration of a node of a group with these data addresses; small, and with some keys set.
fn layers(node: usize, members: &[SocketAddr], set: &[Pair<'_>]) -> Layers {
    let member = |(place, data): (usize, &SocketAddr)| {
        let control = 50_001 + place;
        format!("[[members]]\ndata = \"{data}\"\ncontrol = \"127.0.0.1:{control}\"\n")
    };
    let group = format!("[group]\nid = \"{:016x}\"\n", GROUP.0);
    let members: Vec<_> = members.iter().enumerate().map(member).collect();
    let own = format!("[node]\nid = {node}\ndata_dir = \"data\"\n");
    let text = group + &members.concat() + &own;
    let small = [
        ("group.command_bytes_max", "1024"),
        ("group.window_bytes", "8192"),
        ("group.segment_bytes", "65536"),
        ("group.sessions_max", "16"),
        ("group.session_reply_bytes", "1 MiB"),
        ("group.reply_bytes_total", "1 MiB"),
        ("transport.client_pool_bytes", "4 MiB"),
    ];
    let layers = Layers::new().text(Path::new("/node.toml"), &text);
    small.iter().chain(set).fold(layers, |layers, (key, value)| layers.set(key, value))
}

fn settings(node: usize, members: &[SocketAddr], set: &[Pair<'_>]) -> Settings {
    let settings = layers(node, members, set).check();
    settings.unwrap_or_else(|errors| panic!("{set:?}: {errors}"))
}

/// Settings of the first of three nodes.
fn of_three(set: &[Pair<'_>]) -> Settings {
    settings(0, &addresses(3), set)
}

/// Data addresses that were free a moment ago.
fn addresses(nodes: usize) -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..nodes).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
    let address =
        |socket: std::io::Result<UdpSocket>| socket.and_then(|socket| socket.local_addr());
    sockets.into_iter().map(|socket| address(socket).expect("loopback has free ports")).collect()
}

/// The node that three of them elect, with equal logs.
fn leader(set: &[Pair<'_>]) -> NodeId {
    let members = addresses(3);
    let configured = |node: usize| {
        let settings = settings(node, &members, set);
        let mut state = NodeState::blank(settings.group.id, settings.node.id);
        state.found(leadership(1)).expect("it is new");
        election_settings(&settings, &state, false)
    };
    let mut rig = rig::Rig::new((0..3).map(configured));
    NodeId(rig.settle() as u16)
}

#[test]
fn r15_members_priority() {
    assert_eq!(leader(&[]), NodeId(0), "of equals the first");
    assert_eq!(leader(&[("members.0.priority", "0")]), NodeId(1), "0 never leads");
    assert_eq!(leader(&[("members.2.priority", "3"), ("members.1.priority", "2")]), NodeId(2));
    let nobody =
        ["members.0.priority", "members.1.priority", "members.2.priority"].map(|key| (key, "0"));
    let error = layers(0, &addresses(3), &nobody).check().unwrap_err().to_string();
    assert!(error.contains("nobody could lead"), "{error}");
}

#[test]
fn r15_members_observer() {
    assert_eq!(leader(&[("members.0.observer", "true")]), NodeId(1), "an observer never leads");
    let most = [("members.2.observer", "true"), ("members.2.priority", "9")];
    assert_eq!(leader(&most), NodeId(0), "whatever its priority");
    // Nor does it count, in the election and in the core.
    let configured = of_three(&most);
    let election = election_settings(&configured, &NodeState::blank(GROUP, NodeId(0)), true);
    assert_eq!((election.voters(), election.quorum()), (2, 2));
    let core = core_settings(&configured, cores::identity(), false);
    assert_eq!(core.peers.iter().map(|peer| peer.voter).collect::<Vec<_>>(), [true, true, false]);
    let refused = |set: &[Pair<'_>]| layers(0, &addresses(3), set).check().unwrap_err().to_string();
    let all = ["members.0.observer", "members.1.observer", "members.2.observer"];
    let error = refused(&all.map(|key| (key, "true")));
    assert!(error.contains("nobody would vote"), "{error}");
    let error =
        refused(&[(all[0], "true"), ("members.1.priority", "0"), ("members.2.priority", "0")]);
    assert!(error.contains("nobody could lead"), "{error}");
}

#[test]
fn r15_members_id() {
    let members = addresses(3);
    let of =
        |set: &[Pair<'_>]| layers(0, &members, set).check().map_err(|errors| errors.to_string());
    assert_eq!(of(&[("members.1.id", "1")]).map(|settings| settings.members[1].id), Ok(NodeId(1)));
    let error = of(&[("members.1.id", "2")]).unwrap_err();
    assert!(error.contains("members.1.id") && error.contains("place in the list"), "{error}");
}

/// Lengths of the batches in which a log of 20,000 bytes becomes durable.
fn batches(set: &[Pair<'_>]) -> Vec<u64> {
    let mut rig = Rig::new();
    let configured = syncer_settings(&of_three(set));
    rig.syncer.batch_bytes_max = configured.batch_bytes_max;
    rig.start().expect("an empty log starts");
    rig.append_term_start(1);
    rig.fill_to(20_000);
    let (mut batches, mut last) = (Vec::new(), Position(0));
    while rig.step_sync() > 0 && rig.reported > last {
        batches.push(rig.reported.since(last));
        last = rig.reported;
    }
    batches
}

#[test]
fn r15_sync_batch_bytes_max() {
    let whole = batches(&[]);
    assert_eq!(whole.len(), 1);
    let parts = batches(&[("sync.batch_bytes_max", "4096")]);
    assert!(parts.len() >= 4 && parts.iter().all(|part| *part < 4096 + 1100), "{parts:?}");
}

/// How long sync gathers, as leader and as follower.
fn delays(rung: &str, delay_us: &str) -> [u64; 2] {
    let set = [
        ("group.durability.leader", rung),
        ("group.durability.follower", rung),
        ("sync.group_delay_us", delay_us),
    ];
    let settings = settings(0, &addresses(3), &set);
    let words = SharedWords::default();
    words.durability.store(settings.group.durability.value(), Relaxed);
    [2, 1].map(|role| {
        words.role.store(role, Relaxed);
        group_delay(&words, settings.sync.group_delay_ns)
    })
}

#[test]
fn r15_sync_group_delay_us() {
    assert_eq!(delays("disk", "0"), [0, 0], "who waits for the disk is not kept waiting");
    for delay in [0, 3000, 20_000] {
        // What the sync thread does with them: nothing is written before the first byte is that old.
        let text = delay.to_string();
        for gathered_ns in delays("disk", &text) {
            assert_eq!(gathered_ns, delay * Nanos::MICROSECOND);
            let mut rig = Rig::started();
            rig.sync_all();
            rig.node().syncer.set_group_delay_ns(gathered_ns);
            rig.append(b"one");
            let start = rig.now;
            while rig.step_sync() == 0 {
                assert!(rig.now.since(start) <= gathered_ns + 2 * Nanos::MILLISECOND);
            }
            assert!(rig.now.since(start) >= gathered_ns);
        }
    }
    assert_eq!(delays("memory", "20000")[1], 20 * Nanos::MILLISECOND);
}

/// Keys of `group` and `members` of which nodes may have different values: names, what each datagram carries by itself, and
/// what is its place in the list anyway.
const NOT_COMPARED: &[&str] =
    &["group.id", "group.name", "members.*.id", "members.*.name", "members.*.catch_up"];

#[test]
fn what_must_be_the_same_on_all_nodes_is_compared() {
    for key in KEYS.iter().filter(|key| ["group", "members"].contains(&key.section())) {
        let compared = Constant::ALL.iter().any(|constant| constant.key() == key.name);
        assert_ne!(compared, NOT_COMPARED.contains(&key.name), "{}", key.name);
    }
    let members = addresses(3);
    let constants = |set: &[Pair<'_>]| group_constants(&settings(0, &members, set), "echo");
    let own = constants(&[]);
    let others = [
        ("group.book.orders_max", "7"),
        ("group.book.levels_max", "7"),
        ("group.book.changes_max", "7"),
        ("group.segment_bytes", "131072"),
        ("group.window_bytes", "9000"),
        ("group.command_bytes_max", "1025"),
        ("group.durability.leader", "memory"),
        ("group.durability.follower", "disk"),
        ("group.state_hash_interval", "7"),
        ("group.sessions_max", "7"),
        ("group.session_in_flight_max", "7"),
        ("group.reply_bytes_total", "2 MiB"),
        ("members.1.data", "127.0.0.1:7"),
        ("members.1.control", "127.0.0.1:7"),
        ("members.2.priority", "7"),
        ("members.2.observer", "true"),
    ];
    for pair in others {
        let found = own.difference(&constants(&[pair])).expect(pair.0).constant.key();
        assert_eq!(found, pair.0.replace(".1.", ".*.").replace(".2.", ".*."));
    }
    // Room for one session is at most that for all.
    let roomy = constants(&[("group.reply_bytes_total", "2 MiB")]);
    let both = [("group.reply_bytes_total", "2 MiB"), ("group.session_reply_bytes", "2 MiB")];
    let found = roomy.difference(&constants(&both)).expect("they differ");
    assert_eq!(found.constant, Constant::SessionReplyBytes);
    // What runs counts, whatever the file says.
    let service = group_constants(&settings(0, &members, &[("group.service", "book")]), "echo");
    assert_eq!(own.difference(&service), None);
    let service = group_constants(&settings(0, &members, &[]), "book");
    assert_eq!(own.difference(&service).map(|found| found.constant), Some(Constant::Service));
    assert_eq!(others.len() + 2, Constant::ALL.len(), "each has been tried");
    let named = constants(&[("group.name", "other"), ("members.1.name", "other")]);
    assert_eq!(own.difference(&named), None);
}

//! The configuration as a user meets it: what is accepted, what each mistake is answered with, and which layer wins.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use quorate::io::faults::FaultSettings;
use quorate::limits::{COMMAND_BYTES_MAX, FRAME_BYTES_MAX, NODES_MAX};
use quorate::link::Rung;
use quorate::runtime::config::{
    Default, Founding, FoundingMember, Idle, KEYS, Layers, Origin, Settings, TransportKind,
    reference_json, reference_markdown, settings_json, settings_toml,
};
use quorate::service::ServiceKind;
use quorate::types::{GroupId, NodeId};

const GOOD: &str = r#"
[group]
id = "00000000000000a7"
[[members]]
data = "127.0.0.1:7000"
control = "127.0.0.1:7001"
[[members]]
data = "127.0.0.1:7002"
control = "127.0.0.1:7003"
[[members]]
data = "127.0.0.1:7004"
control = "127.0.0.1:7005"
[node]
id = 1
data_dir = "data"
"#;

fn read(text: &str) -> Result<Settings, String> {
    let layers = Layers::new().text(Path::new("/etc/quorate/node.toml"), text);
    layers.check().map_err(|errors| errors.to_string())
}

fn good() -> Layers {
    Layers::new().text(Path::new("/etc/quorate/node.toml"), GOOD)
}

/// The one error that a value gives in an otherwise good configuration.
fn error(key: &str, value: &str) -> String {
    let errors = good().set(key, value).check().expect_err(&format!("{key} = {value}"));
    assert_eq!(errors.0.len(), 1, "{errors}");
    errors.0[0].to_string()
}

#[test]
fn a_small_file_and_the_defaults_make_settings() {
    let settings = read(GOOD).unwrap();
    assert_eq!(settings.group.id, GroupId(0xa7));
    assert_eq!(settings.node.id, NodeId(1));
    assert_eq!(settings.own().data, "127.0.0.1:7002".parse().unwrap());
    assert_eq!(settings.members[2].name, "node-2");
    assert_eq!(settings.group.durability.leader, Rung::Disk);
    assert_eq!(settings.group.durability.follower, Rung::Memory);
    assert_eq!(settings.threads.idle, Idle::Adaptive);
    assert_eq!(settings.group.service, ServiceKind::Echo);
    assert_eq!(settings.transport.kind, TransportKind::Auto);
    assert_eq!(settings.transport.interface, settings.own().data.ip());
    assert_eq!(settings.timing.heartbeat_ns, 10_000_000);
    assert_eq!(settings.faults, None);
    let faults = good().set("faults.seed", "9").set("faults.loss", "0.5").check().unwrap().faults;
    assert_eq!(faults, Some(FaultSettings { loss: 0.5, seed: 9, ..FaultSettings::default() }));
    // Relative to the file, whatever folder the process is in.
    assert_eq!(settings.node.data_dir, Path::new("/etc/quorate/data"));
    assert_eq!(settings.node.admin_socket, Path::new("/etc/quorate/data/admin.sock"));
    assert_eq!(settings.node.hot_dir, None);
}

#[test]
fn r11_listing_oneself_among_the_members_is_fine_and_being_absent_is_not() {
    for id in 0..3 {
        let settings = good().set("node.id", &id.to_string()).check().unwrap();
        assert_eq!(settings.own().id, NodeId(id));
    }
    assert_eq!(
        error("node.id", "3"),
        "set by the program: node.id = 3: is not in the member list: 0 to 2"
    );
}

#[test]
fn flags_beat_variables_beat_the_file_beats_the_default() {
    let file = format!("{GOOD}\n[timing]\nheartbeat_ms = 11\nleader_timeout_ms = 300\n");
    let file = || Layers::new().text(Path::new("/etc/quorate/node.toml"), &file);
    let variable = |name: &str, value: &str| [(OsString::from(name), OsString::from(value))];
    let heartbeat = |layers: Layers| layers.check().unwrap().timing.heartbeat_ns / 1_000_000;
    assert_eq!(heartbeat(good()), 10);
    assert_eq!(heartbeat(file()), 11);
    let set = variable("QUORATE_TIMING_HEARTBEAT_MS", "12");
    assert_eq!(heartbeat(file().environment(set.clone())), 12);
    let all = file().environment(set).flag("--set", "timing.heartbeat_ms", "13");
    let settings = all.check().unwrap();
    assert_eq!(settings.timing.heartbeat_ns, 13_000_000);
    let origin = |name: &str| {
        let found = settings.effective().iter().find(|(key, _)| key == name);
        found.and_then(|(_, assigned)| assigned.clone()).map(|assigned| assigned.origin)
    };
    assert_eq!(origin("timing.heartbeat_ms"), Some(Origin::Flag("--set".into())));
    let path = PathBuf::from("/etc/quorate/node.toml");
    assert_eq!(origin("timing.leader_timeout_ms"), Some(Origin::File { path, line: 19 }));
    assert_eq!(origin("timing.session_timeout_min_ms"), Some(Origin::Default));
    assert_eq!(origin("transport.group"), None);
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    for key in KEYS {
        let name = key.variable().replace('*', "0");
        let layers = good().environment([(name.clone().into(), "\u{1}".into())]);
        // No key takes a control character, but for paths, which the host judges.
        match layers.check() {
            Err(errors) => {
                assert!(errors.to_string().starts_with(&format!("${name}: ")), "{errors}");
            }
            Ok(_) => assert!(key.name.ends_with("_dir") || key.name.ends_with("_socket"), "{name}"),
        }
    }
}

#[test]
fn variables_that_name_no_key() {
    let run = |name: &str, value: &str| good().environment([(name.into(), value.into())]).check();
    assert_eq!(
        run("QUORATE_NODE_DATADIR", "x").unwrap_err().to_string(),
        "$QUORATE_NODE_DATADIR: no such key; did you mean QUORATE_NODE_DATA_DIR?"
    );
    assert!(run("QUORATE_MEMBERS_0_DATE", "x").is_err());
    assert!(run("QUORATE_CONFIG", "/somewhere").is_ok(), "not a section");
    assert!(run("QUORATE_NODE_ID", "").is_ok(), "empty counts as absent");
    let settings = run("QUORATE_MEMBERS_2_NAME", "third").unwrap();
    assert_eq!(settings.members[2].name, "third");
}

#[test]
fn mistakes_in_a_file_are_named_with_their_lines_all_at_once() {
    let text = "\
[group]
id = 12
windw_bytes = 12
durability = { leader = \"disc\" }

[[members]]
data = \"127.0.0.1:0\"
control = \"127.0.0.1:7001\"
[node]
id = \"0\"
[timing]
heartbeat = 10
[timings]
x = 1
[sync]
group_delay_us = [1, 2]
[faults]
loss = 1.5
";
    let expected = [
        ": node.data_dir: must be set: a path",
        ":2: group.id = 12: takes text of 1 to 16 hexadecimal digits, not all 0",
        ":3: group.windw_bytes: no such key; did you mean group.window_bytes?",
        ":4: group.durability.leader = \"disc\": takes \"memory\" or \"disk\"",
        ":7: members.0.data = \"127.0.0.1:0\": takes \"ip:port\", neither of them 0, such as \"127.0.0.1:7000\"",
        ":10: node.id = \"0\": takes a whole number, 0 to 15",
        ":12: timing.heartbeat: no such key; did you mean timing.heartbeat_ms?",
        ":13: timings: no such key; did you mean timing?",
        ":16: sync.group_delay_us = […]: takes a whole number, 0 to 100000 us",
        ":18: faults.loss = 1.5: takes a share, 0 to 1",
    ];
    let expected = expected.map(|line| format!("/etc/quorate/node.toml{line}"));
    let found = read(text).unwrap_err();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn text_that_is_not_toml_gives_one_error_with_its_line() {
    for (text, line) in [("a = [1", 1), ("[group]\nid = \"1\"\nid = \"2\"", 3), ("x\n=", 1)] {
        let error = read(text).unwrap_err();
        assert_eq!(error.lines().count(), 1, "{error}");
        let place = format!("/etc/quorate/node.toml:{line}: not TOML: ");
        assert!(error.starts_with(&place), "{text:?}: {error}");
    }
    let sections = read("group = 1\nmembers = 2\n[node]\nid = 1").unwrap_err();
    assert!(sections.contains(":1: group: is a section and takes keys"), "{sections}");
    assert!(sections.contains(":2: members: members are tables"), "{sections}");
}

#[test]
fn values_that_do_not_fit_together_are_named_with_what_would_be_right() {
    let window = 2 * FRAME_BYTES_MAX;
    assert_eq!(
        error("group.window_bytes", "1 MiB"),
        format!(
            "set by the program: group.window_bytes = 1048576: too small: at least {window}, \
             two of the largest frames with group.command_bytes_max = {COMMAND_BYTES_MAX}"
        )
    );
    assert!(good().set("group.window_bytes", &window.to_string()).check().is_ok());
    assert!(error("group.segment_bytes", "4 MiB").contains("at least 8388608, two windows"));
    assert!(
        error("group.segment_bytes", "12 MiB").contains("takes a power of two, 64 KiB to 1 GiB")
    );
    assert!(error("timing.leader_timeout_ms", "29").contains("at least 30, because of timing.hea"));
    assert!(error("timing.session_timeout_min_ms", "299").contains("at least 300"));
    assert!(error("timing.session_timeout_max_ms", "999").contains("at least 1000, because of"));
    assert!(error("group.reply_bytes_total", "1 MiB").contains("because of group.session_reply"));
    assert!(error("transport.kind", "multicast").contains("multicast needs transport.group"));
    assert!(error("transport.group", "127.0.0.1:7").contains("such as \"239.1.2.3:7000\""));
    assert!(error("transport.group", "[ff15::1]:7").contains("same family as members.0.data"));
    assert!(error("transport.interface", "::1").contains("same family as members.0.data"));
    assert!(error("members.1.id", "2").contains("an id is the place in the list: 1 here"));
    assert!(error("members.1.name", "node-0").contains("is the name of member 0 too"));
    assert!(error("members.1.data", "127.0.0.1:7001").contains("address of members.0.control too"));
    let long = format!("/{}", "x".repeat(120));
    assert!(error("node.admin_socket", &long).contains("at most 107 bytes"));
    let gap = good().set("members.4.data", "127.0.0.1:9").check().unwrap_err().to_string();
    assert!(gap.contains("members.3.data: must be set"), "{gap}");
}

#[test]
fn a_group_has_a_bounded_number_of_members() {
    assert!(read("").unwrap_err().contains("members: a group has 1 to 16 members"));
    let member = |n: usize| {
        let (data, control) = (7000 + 2 * n, 7001 + 2 * n);
        format!("[[members]]\ndata = \"127.0.0.1:{data}\"\ncontrol = \"127.0.0.1:{control}\"\n")
    };
    let file = |count: usize| {
        let members: Vec<_> = (0..count).map(member).collect();
        format!("group.id = \"1\"\nnode = {{ id = 0, data_dir = \"d\" }}\n{}", members.concat())
    };
    assert_eq!(read(&file(NODES_MAX)).unwrap().members.len(), NODES_MAX);
    let error = read(&file(NODES_MAX + 1)).unwrap_err();
    let line = 3 + 3 * NODES_MAX;
    assert!(error.contains(&format!(".toml:{line}: members: a group has")), "{error}");
}

#[test]
fn what_show_prints_is_a_configuration_with_the_same_effect() {
    let settings = good()
        .set("group.name", "a \"name\" with # and \\")
        .set("transport.group", "239.1.2.3:7000")
        .set("threads.core.cpu", "3")
        .set("faults.loss", "0.05")
        .set("node.hot_dir", "/dev/shm/x y")
        .check()
        .unwrap();
    let again = read(&settings_toml(&settings)).unwrap();
    assert_eq!(*again, *settings);
    assert_eq!(settings.group.name, "a \"name\" with # and \\");
}

#[test]
fn json_names_every_key_with_value_and_origin() {
    let settings = good().check().unwrap();
    let json = settings_json(&settings);
    assert_eq!(json["group.id"]["value"], "00000000000000a7");
    assert_eq!(json["group.window_bytes"]["value"], 4_194_304);
    assert_eq!(json["group.window_bytes"]["origin"], "default");
    assert_eq!(json["members.2.data"]["origin"], "/etc/quorate/node.toml:11");
    assert_eq!(json["transport.group"]["value"], serde_json::Value::Null);
    let members = KEYS.iter().filter(|key| key.name.starts_with("members.")).count();
    assert_eq!(json.as_object().unwrap().len(), KEYS.len() - members + 3 * members);
}

#[test]
fn the_reference_page_is_what_the_program_prints() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIGURATION.md");
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(
        page == reference_markdown(),
        "docs/CONFIGURATION.md is stale: quorate config reference > docs/CONFIGURATION.md"
    );
    assert_eq!(reference_json().count(), KEYS.len());
}

#[test]
fn every_default_is_in_force_and_printed() {
    let json = settings_json(&good().check().unwrap());
    for key in KEYS {
        let value = &json[key.name.replace('*', "0")]["value"];
        match key.default {
            Default::Required => assert!(!value.is_null(), "{}", key.name),
            Default::Absent(_) => assert!(value.is_null(), "{}", key.name),
            Default::Number(number) => assert_eq!(value, number, "{}", key.name),
            Default::Flag(flag) => assert_eq!(value, flag, "{}", key.name),
            Default::Text("0") => assert_eq!(value, 0.0, "{}", key.name),
            Default::Text(text) => assert_eq!(value, text, "{}", key.name),
        }
    }
}

#[test]
fn founding_files_are_good_and_agree_about_the_group() {
    let member = |n: u16| FoundingMember {
        data: ([10, 0, 0, n as u8], 7000).into(),
        control: ([10, 0, 0, n as u8], 7001).into(),
    };
    let founding = Founding {
        group: GroupId(0x1234_5678_9abc_def0),
        transport: TransportKind::Multicast,
        multicast_port: 7100,
        members: (1..=5).map(member).collect(),
        settings: vec![("group.service".into(), "book".into())],
    };
    let folder = Path::new("/srv/q");
    for node in 0..5 {
        let text = founding.file(folder, node).unwrap();
        let file = folder.join(Founding::file_name(node));
        let settings = Layers::new().text(&file, &text).check().unwrap();
        assert_eq!(settings.node.id.0 as usize, node);
        assert_eq!(settings.node.data_dir, folder.join(format!("node-{node}")));
        assert_eq!(settings.group.id, founding.group);
        assert_eq!(settings.group.service, ServiceKind::Book);
        assert_eq!(settings.transport.group, Some("239.255.222.240:7100".parse().unwrap()));
        assert_eq!(settings.members.len(), 5);
    }
    let wrong = Founding { settings: vec![("sync.batch".into(), "1".into())], ..founding };
    let error = wrong.file(folder, 0).unwrap_err().to_string();
    assert_eq!(
        error,
        "--set sync.batch: sync.batch: no such key; did you mean sync.batch_bytes_max?"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is typed, the answer is settings or errors that say where.
    #[test]
    fn no_text_panics(text in "(\\[{0,2}(group|members|node|timing|x)\\]{0,2}|[a-z_.]{1,9} = |[0-9\"{}\\[\\]., \\n=-]{1,9}){0,12}") {
        if let Err(errors) = Layers::new().text(Path::new("/f"), &text).check() {
            prop_assert!(!errors.0.is_empty());
            for error in errors.0 {
                prop_assert!(error.to_string().starts_with("/f"), "{error}");
            }
        }
    }

    /// Any value of any key, as text: it is in force, or refused with the key's name.
    #[test]
    fn no_value_panics(index in 0..KEYS.len(), text in "(-?[0-9.e]{1,20}|[ -~]{0,20}|[0-9]{1,3}(\\.[0-9]{1,3}){3}:[0-9]{1,5})") {
        let name = KEYS[index].name.replace('*', "1");
        if let Err(errors) = good().set(&name, &text).check() {
            prop_assert!(errors.to_string().len() > name.len());
        }
    }
}

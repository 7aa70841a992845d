//! Which module may import which (docs/ARCHITECTURE.md), where `unsafe` may stand, and that decisions touch no host.
//!
//! The tests read the sources. Each rule is also tried on a snippet that breaks it, so that none of them passes for want of
//! looking.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod source;

use source::{Source, line_of, sources};

/// Every module of the library and what it may import besides itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("types", &["limits"]),
    ("error", &[]),
    ("mutants", &[]),
    ("frame", &["limits", "types", "error"]),
    ("link", &["limits", "types", "error", "frame"]),
    ("journal", &["limits", "types", "error", "mutants", "frame", "link"]),
    ("stream", &["limits", "types", "error", "frame"]),
    ("service", &["limits", "types", "error", "frame"]),
    ("session", &["limits", "types", "error", "mutants", "frame", "service"]),
    (
        "replica",
        &[
            "limits", "types", "error", "mutants", "frame", "link", "journal", "stream", "session",
            "service",
        ],
    ),
    ("control", &["limits", "types", "error", "mutants", "frame", "link"]),
    ("client", &["limits", "types", "error", "frame", "stream"]),
    ("io", &["limits", "types", "error", "frame", "link", "journal", "stream", "replica"]),
    (
        "runtime",
        &[
            "limits", "types", "error", "frame", "link", "journal", "stream", "session", "service",
            "replica", "control", "client", "io",
        ],
    ),
    (
        "sim",
        &[
            "limits", "types", "error", "mutants", "frame", "link", "journal", "stream", "session",
            "service", "replica", "control", "client",
        ],
    ),
    (
        "conformance",
        &["limits", "types", "frame", "link", "journal", "stream", "service", "io", "runtime"],
    ),
];

/// Modules that are the host's side of the fence.
const HOST: &[&str] = &["io", "runtime"];

/// What only the host's side may name: paths as they stand in code.
const HOST_ONLY: &[&str] = &[
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::time",
    "std::os",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "Instant::now",
    "SystemTime",
    "thread::spawn",
    "thread::sleep",
    "RandomState",
    "println!",
    "eprintln!",
    "libc::",
    "mio::",
    "socket2::",
    "memmap2::",
    "clap::",
    "serde::",
    "serde_json::",
];

/// Collections whose order differs from run to run: no decision may depend on it.
const UNORDERED: &[&str] = &["HashMap", "HashSet"];

#[test]
fn every_module_imports_only_what_stands_below_it() {
    let sources = sources(&["src"]);
    assert!(sources.len() > 20, "the sources were found");
    let found: Vec<_> = sources.iter().flat_map(wrong_imports).collect();
    assert!(found.is_empty(), "imports against the order:\n{}", found.join("\n"));
}

#[test]
fn decisions_touch_no_host() {
    let found: Vec<_> = sources(&["src"]).iter().flat_map(host_uses).collect();
    assert!(found.is_empty(), "the host outside io and runtime:\n{}", found.join("\n"));
}

#[test]
fn unsafe_stands_only_in_io() {
    // Tests may: one enters a network of its own, one counts what the allocator is asked for.
    let all = sources(&["src", "tools", "benches"]);
    let found: Vec<_> = all.iter().flat_map(unsafe_uses).collect();
    assert!(found.is_empty(), "unsafe outside src/io:\n{}", found.join("\n"));
}

#[test]
fn programs_use_the_public_api() {
    let all = sources(&["tools", "benches"]);
    let found: Vec<_> = all.iter().flat_map(|source| paths(source, "crate")).collect();
    let found = found.iter().filter(|(_, path)| is_module(path)).count();
    assert_eq!(found, 0);
}

#[test]
fn the_architecture_page_says_the_same() {
    let page = std::fs::read_to_string(source::root().join("docs/ARCHITECTURE.md")).unwrap();
    let rows =
        page.lines().skip_while(|line| *line != "## Modules").filter(|l| l.starts_with("| `"));
    let mut told = Vec::new();
    for row in rows.take_while(|row| row.split('|').count() == 5) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let words = |cell: &str| -> Vec<String> {
            cell.split_whitespace().map(|word| word.trim_matches('`').to_owned()).collect()
        };
        told.push((words(cells[1]).remove(0), words(cells[3])));
    }
    let own = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let real: Vec<(_, Vec<_>)> =
        LAYERS.iter().map(|(module, allowed)| ((*module).to_owned(), own(allowed))).collect();
    assert_eq!(told, real);
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let journal = |text: &str| Source::of("src/journal/writer.rs", text);
    let imports = |text: &str| wrong_imports(&journal(text));
    assert_eq!(
        imports("use crate::limits;\nuse crate::{frame::Kind, control::Vote};\n"),
        ["src/journal/writer.rs:2: journal may not import control"]
    );
    assert_eq!(imports("fn f() -> crate::io::File { todo() }").len(), 1);
    assert_eq!(imports("use super::super::replica::Replica;").len(), 1);
    assert_eq!(imports("use super::{memory::Disk, super::stream};").len(), 1);
    assert_eq!(imports("use super::memory::Disk;\nuse self::x;"), [""; 0]);
    assert_eq!(imports("// crate::io\n#[cfg(test)]\nmod tests { use crate::replica; }"), [""; 0]);
    assert_eq!(imports("use crate::nowhere::X;").len(), 1, "a module without a rule");
    let root = wrong_imports(&Source::of("src/client/mod.rs", "use super::replica::Replica;"));
    assert_eq!(root, ["src/client/mod.rs:1: client may not import replica"]);

    let host = |text: &str| !host_uses(&journal(text)).is_empty();
    assert!(!host("use std::io::{self, Read};\nuse core::net::SocketAddr;"));
    assert!(host("use std::fs;"));
    assert!(host("use std::{collections::BTreeMap, fs::File};"));
    assert!(host("fn f() {\n std::time::Instant::now();\n}"));
    assert!(host("use std::collections::HashMap;"));
    assert!(host("use std::net::{SocketAddr, UdpSocket};"));
    assert!(!host("#[cfg(test)]\nmod tests { use std::thread; }"));
    let io = Source::of("src/io/udp.rs", "use std::net::UdpSocket;");
    assert_eq!(host_uses(&io).len(), 0);

    assert_eq!(unsafe_uses(&journal("fn f() { unsafe { g() } }")).len(), 1);
    assert_eq!(unsafe_uses(&journal("// unsafe\nlet unsafe_code = \"unsafe\";")).len(), 0);
    assert_eq!(unsafe_uses(&Source::of("src/io/map.rs", "unsafe { g() }")).len(), 0);
}

/// The module of the library that a file belongs to; none for its root and for the program.
fn module(source: &Source) -> Option<&str> {
    let path = source.path.strip_prefix("src/")?;
    let module = path.split(['/', '.']).next()?;
    (!["lib", "main", "cli"].contains(&module)).then_some(module)
}

fn is_module(path: &str) -> bool {
    LAYERS.iter().any(|(module, _)| *module == path)
}

fn wrong_imports(source: &Source) -> Vec<String> {
    let Some(own) = module(source) else {
        return Vec::new();
    };
    let Some((_, allowed)) = LAYERS.iter().find(|(module, _)| *module == own) else {
        return vec![format!("{}:1: {own} has no place in the order of modules", source.path)];
    };
    let mut found = Vec::new();
    for (line, imported) in paths(source, "crate").into_iter().chain(parents(source)) {
        if imported != own && !allowed.contains(&&*imported) {
            found.push(format!("{}:{line}: {own} may not import {imported}", source.path));
        }
    }
    found
}

/// What is named directly behind `word::`, in code outside tests, with its line: `a` and `b` of `crate::{a::x, b}`.
fn paths(source: &Source, word: &str) -> Vec<(usize, String)> {
    let code = source.code_without_tests();
    let mut found = Vec::new();
    for (at, _) in code.match_indices(word) {
        let starts = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if let Some(rest) = code[at + word.len()..].trim_start().strip_prefix("::") {
            let rest = rest.trim_start();
            if starts {
                let line = line_of(&code, at);
                found.extend(heads(rest).into_iter().map(|head| (line, head)));
            }
        }
    }
    found
}

/// What `super::` reaches beyond the own module.
fn parents(source: &Source) -> Vec<(usize, String)> {
    // How many `super` lead from the file to the root: src/journal/writer.rs is two below it, src/journal/mod.rs one.
    let parts: Vec<_> = source.path.trim_end_matches(".rs").split('/').skip(1).collect();
    let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
    let up = vec!["super"; depth].join("::");
    let mut found = paths(source, &up);
    // `use super::{a, super::b}`
    if depth > 1 {
        let rest = vec!["super"; depth - 1].join("::");
        let code = source.code_without_tests();
        for (at, _) in code.match_indices("super::{") {
            let list = &code[at + "super::".len()..];
            for item in items(list) {
                let item =
                    item.trim().strip_prefix(&*rest).and_then(|item| item.strip_prefix("::"));
                let line = line_of(&code, at);
                found.extend(item.into_iter().flat_map(heads).map(|head| (line, head)));
            }
        }
    }
    found
}

/// The first words of a path, or of each path of a list in braces.
fn heads(rest: &str) -> Vec<String> {
    if rest.starts_with('{') {
        return items(rest).into_iter().flat_map(|item| heads(item.trim())).collect();
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let word = &rest[..end];
    // `super` is looked at by its own depth, `self` is the own module.
    (!["", "super", "self"].contains(&word)).then(|| word.to_owned()).into_iter().collect()
}

/// The items of the list in braces that starts here.
fn items(list: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut start = 1;
    let mut items = Vec::new();
    for (index, byte) in list.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    items.push(&list[start..index]);
                    break;
                }
            }
            b',' if depth == 1 => {
                items.push(&list[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    items
}

fn host_uses(source: &Source) -> Vec<String> {
    let Some(own) = module(source).filter(|own| !HOST.contains(own)) else {
        return Vec::new();
    };
    let code = flat_imports(&source.code_without_tests());
    let mut found = Vec::new();
    for word in HOST_ONLY.iter().chain(UNORDERED) {
        for (at, _) in code.match_indices(word) {
            let starts = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let ends = word.ends_with([':', '!'])
                || !code[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
            if starts && ends {
                let line = line_of(&code, at);
                found.push(format!("{}:{line}: {own} names {word}", source.path));
            }
        }
    }
    found
}

/// Writes each `use std::{a, b::{c, d}};` as `std::a std::b::c std::b::d` on its first line.
fn flat_imports(code: &str) -> String {
    let mut out = code.to_owned();
    let found: Vec<_> = code.match_indices("use std::").collect();
    for (at, _) in found.into_iter().rev() {
        let Some(end) = code[at..].find(';').map(|end| at + end) else { continue };
        let tree = &code[at + "use ".len()..end];
        let lines = "\n".repeat(tree.matches('\n').count());
        let flat = flatten("", tree.trim()).join(" ");
        out.replace_range(at..=end, &format!("{flat}{lines}"));
    }
    out
}

fn flatten(prefix: &str, tree: &str) -> Vec<String> {
    match tree.find('{') {
        Some(open) => {
            let prefix = format!("{prefix}{}", tree[..open].trim());
            items(&tree[open..]).iter().flat_map(|item| flatten(&prefix, item.trim())).collect()
        }
        None => vec![format!("{prefix}{tree}")],
    }
}

fn unsafe_uses(source: &Source) -> Vec<String> {
    if source.path.starts_with("src/io/") {
        return Vec::new();
    }
    let code = &source.code;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let whole =
        |at: &usize| !code[..*at].ends_with(word) && !code[at + "unsafe".len()..].starts_with(word);
    let at = code.match_indices("unsafe").map(|(at, _)| at).filter(whole);
    at.map(|at| format!("{}:{}: unsafe", source.path, line_of(code, at))).collect()
}

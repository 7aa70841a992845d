//! House rules that neither the compiler nor clippy knows: sizes, leftovers, links.
//!
//! Each rule is also tried on a snippet that breaks it.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use source::{Source, files, line_of, relative, root, sources};

/// Where the project's own Rust code lies.
const FOLDERS: &[&str] = &["src", "tools", "tests", "benches", "fuzz"];

/// Columns of code; a literal is not broken for the sake of a column. Comments may be somewhat wider, and so may tests,
/// where rustfmt does not reach into the macros.
const CODE_COLUMNS: usize = 100;
const TEST_COLUMNS: usize = 125;
const COMMENT_COLUMNS: usize = 130;
const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 80;
/// The same for tests, which tell a story in order.
const TEST_FUNCTION_LINES: usize = 110;

/// Functions that are longer, by file and name, with the length that each must not pass. Entries go when the function gets
/// shorter; new ones want a reason beside them.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// What must not stay in the code.
const LEFTOVERS: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore", "assert!(true"];

#[test]
fn lines_are_short_enough_to_read() {
    let found: Vec<_> = sources(FOLDERS).iter().flat_map(wide_lines).collect();
    assert!(found.is_empty(), "wide lines:\n{}", found.join("\n"));
}

#[test]
fn files_are_short_enough_to_read() {
    let sources = sources(FOLDERS);
    assert!(sources.len() > 30, "the sources were found");
    for source in sources {
        let lines = source.text.lines().count();
        assert!(lines <= FILE_LINES, "{}: {lines} lines, at most {FILE_LINES}", source.path);
    }
}

#[test]
fn functions_are_short_enough_to_read() {
    let mut found = Vec::new();
    let mut known: BTreeMap<_, _> =
        LONG_FUNCTIONS.iter().map(|&(path, name, lines)| ((path, name), lines)).collect();
    let sources = sources(FOLDERS);
    for source in &sources {
        for (line, name, lines) in long_functions(source) {
            let own = known.keys().find(|key| **key == (&*source.path, &*name)).copied();
            match own.and_then(|own| known.remove(&own)) {
                Some(most) if lines <= most => {}
                _ => found.push(format!("{}:{line}: {name} has {lines} lines", source.path)),
            }
        }
    }
    assert!(found.is_empty(), "long functions:\n{}", found.join("\n"));
    assert!(known.is_empty(), "no longer long, take them off the list: {known:?}");
}

#[test]
fn nothing_is_left_over() {
    let found: Vec<_> = sources(FOLDERS).iter().flat_map(leftovers).collect();
    assert!(found.is_empty(), "left over:\n{}", found.join("\n"));
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut pages = files("docs", "md");
    pages.extend(fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path()));
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for (line, link) in links(&text) {
            let file = link.split('#').next().unwrap();
            let there = file.is_empty() || page.parent().unwrap().join(file).exists();
            assert!(there, "{}:{line}: {link} does not exist", relative(&page));
        }
    }
}

#[test]
fn every_program_and_benchmark_is_listed() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let listed = targets(&manifest);
    for path in &listed {
        assert!(root().join(path).exists(), "Cargo.toml lists {path}, which is not there");
    }
    let mut there = vec!["src/main.rs".to_owned()];
    let own = |folder: &str| fs::read_dir(root().join(folder)).into_iter().flatten();
    for entry in own("benches") {
        let path = entry.unwrap().path();
        there.extend(path.extension().is_some_and(|e| e == "rs").then(|| relative(&path)));
    }
    for entry in own("tools") {
        let path = entry.unwrap().path().join("main.rs");
        // A folder with a manifest is a package of its own.
        let inside = path.exists() && !path.with_file_name("Cargo.toml").exists();
        there.extend(inside.then(|| relative(&path)));
    }
    for path in there {
        assert!(listed.contains(&path), "{path} is not listed in Cargo.toml");
    }
}

#[test]
fn every_fuzz_target_is_listed_and_has_seeds() {
    let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
    let listed: BTreeSet<_> = targets(&manifest).into_iter().collect();
    for target in files("fuzz/fuzz_targets", "rs") {
        let name = target.file_stem().unwrap().to_str().unwrap();
        assert!(listed.contains(&format!("fuzz_targets/{name}.rs")), "{name} is not listed");
        let seeds = fs::read_dir(root().join("fuzz/corpus").join(name));
        assert!(seeds.is_ok_and(|seeds| seeds.count() > 0), "{name} has no seeds");
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let rows = page.lines().skip_while(|line| *line != "## Dependencies");
    let rows = rows.take_while(|line| *line != "## Decisions");
    let told: BTreeSet<_> =
        rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    let sections = ["dependencies", "dev-dependencies"].map(|name| manifest[name].as_table());
    let real: BTreeSet<_> =
        sections.into_iter().flatten().flat_map(|table| table.keys().map(String::as_str)).collect();
    assert_eq!(told, real);
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let of = |text: &str| Source::of("src/x.rs", text);
    let long = "x".repeat(101);
    assert_eq!(wide_lines(&of(&format!("let {long} = 1;"))).len(), 1);
    assert_eq!(wide_lines(&of(&format!("let a = \"{long}\";"))).len(), 0);
    assert_eq!(wide_lines(&of(&format!("// {long}"))).len(), 0);
    assert_eq!(wide_lines(&of(&format!("// {long} {long}"))).len(), 1);

    let body = "    f();\n".repeat(FUNCTION_LINES);
    let text =
        format!("struct A;\nimpl A {{\n    fn long(a: [u8; 3]) -> u8 {{\n{body}    }}\n}}\n");
    assert_eq!(long_functions(&of(&text)), [(3, "long".to_owned(), FUNCTION_LINES + 2)]);
    let body = "    f();\n".repeat(FUNCTION_LINES - 2);
    assert_eq!(long_functions(&of(&format!("fn fits() {{\n{body}}}\n"))), []);
    assert_eq!(long_functions(&of("trait T { fn g(&self); }\nfn h() {}\n")), []);

    assert_eq!(leftovers(&of("fn f() { todo!() }")), ["src/x.rs:1: todo!"]);
    assert_eq!(leftovers(&of(concat!("// FIX", "ME later\nlet a = \"todo!\";"))).len(), 1);
    assert_eq!(leftovers(&of("#[test]\n#[ignore = \"slow\"]\nfn f() {}")).len(), 1);

    let page = "[a](docs/A.md) `[b](c)`\n![d](e.png) [f](https://g) [h](#i)\n```\n[x](y)\n```\n";
    let found: Vec<_> = links(page);
    assert_eq!(found, [(1, "docs/A.md".into()), (2, "e.png".into()), (2, "#i".into())]);

    let manifest =
        "[lib]\npath = \"src/lib.rs\"\n[[bin]]\npath = \"a/main.rs\"\n[[bench]]\nname = \"b\"\n";
    assert_eq!(targets(manifest), ["a/main.rs", "benches/b.rs"]);
}

fn wide_lines(source: &Source) -> Vec<String> {
    let shipped = source.code_without_tests();
    let mut shipped = shipped.lines();
    let mut found = Vec::new();
    for (index, (text, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
        let columns = text.chars().count();
        let test = shipped.next().is_none_or(|line| line.trim().is_empty());
        let most = if test { TEST_COLUMNS } else { CODE_COLUMNS };
        // Literals count as their quotes: what is blank in the code and not in the text.
        let comment = code.trim().is_empty() && text.trim_start().starts_with("//");
        let literal =
            text.chars().filter(|c| *c != ' ').count() - code.chars().filter(|c| *c != ' ').count();
        let wide = match (comment, literal) {
            (true, _) => columns > COMMENT_COLUMNS,
            (false, 0) => columns > most,
            (false, _) => code.split_whitespace().map(|w| w.len() + 1).sum::<usize>() > most,
        };
        if wide {
            found.push(format!("{}:{}: {columns} columns", source.path, index + 1));
        }
    }
    found
}

/// Line, name and lines of every function that is longer than it should be.
fn long_functions(source: &Source) -> Vec<(usize, String, usize)> {
    let code = &source.code;
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name = code[at + 3..].trim_start();
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
        let Some(body) = body(&code[at..]) else { continue };
        let lines = body.matches('\n').count() + 1;
        let most = if source.is_test() { TEST_FUNCTION_LINES } else { FUNCTION_LINES };
        if end > 0 && lines > most {
            found.push((line_of(code, at), name[..end].to_owned(), lines));
        }
    }
    found
}

/// From a function's `fn` through its closing brace; none if it has no body.
fn body(code: &str) -> Option<&str> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (index, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b';' if braces == 0 && others == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(&code[..=index]);
                }
            }
            _ => {}
        }
    }
    None
}

fn leftovers(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for word in LEFTOVERS {
        for (at, _) in source.code.match_indices(word) {
            found.push(format!("{}:{}: {word}", source.path, line_of(&source.code, at)));
        }
    }
    // In comments, where the code is blank.
    for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")] {
        for (at, _) in source.text.match_indices(word) {
            let line = line_of(&source.text, at);
            let comment = source.text.lines().nth(line - 1).is_some_and(|line| {
                line.find("//").is_some_and(|start| line[start..].contains(word))
            });
            found.extend(comment.then(|| format!("{}:{line}: {word}", source.path)));
        }
    }
    found
}

/// Relative links of a page outside code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        let plain: String = line.split('`').step_by(2).collect();
        for rest in plain.split("](").skip(1) {
            let link = rest.split(')').next().unwrap_or_default();
            let elsewhere = link.contains("://") || link.starts_with("mailto:");
            found.extend((!elsewhere).then(|| (index + 1, link.to_owned())));
        }
    }
    found
}

/// Paths of the programs and benchmarks that a manifest lists.
fn targets(manifest: &str) -> Vec<String> {
    let table: toml::Table = manifest.parse().unwrap();
    let mut found = Vec::new();
    for kind in ["bin", "bench"] {
        for target in table.get(kind).and_then(toml::Value::as_array).into_iter().flatten() {
            let name = target.get("name").and_then(toml::Value::as_str);
            let path = target.get("path").and_then(toml::Value::as_str);
            let default = || format!("benches/{}.rs", name.unwrap());
            found.push(path.map_or_else(default, str::to_owned));
        }
    }
    found
}

//! Reading the project's own sources: files, code without comments and text, code without its tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test program uses a part of it

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the package.
pub struct Source {
    /// Its path from the package's root, with `/`.
    pub path: String,
    /// As it stands there.
    pub text: String,
    /// The same length in lines, with comments and the insides of literals blank.
    pub code: String,
}

impl Source {
    /// A source that is not a file, for tests of the tests.
    pub fn of(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: code(text) }
    }
    /// Whether the whole file is a test: `tests.rs`, `model_tests.rs`, all of a folder `tests`.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
    }
    /// The code with every item blank that stands behind `#[cfg(test)]`, or nothing if the whole file is a test.
    pub fn code_without_tests(&self) -> String {
        if self.is_test() { String::new() } else { without_tests(&self.code) }
    }
}

/// The package's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` with this extension, sorted by path. An absent folder holds none.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The path from the package's root, with `/`.
pub fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap();
    path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// All Rust sources below these folders.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    let files = folders.iter().flat_map(|folder| files(folder, "rs"));
    files.map(|file| Source::of(&relative(&file), &fs::read_to_string(&file).unwrap())).collect()
}

/// The line, from 1, of a byte offset.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Blanks comments and the insides of literals; every other byte, and every line break, stays where it is.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let word_before =
            at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let (skip, end) = if rest.starts_with("//") {
            (0, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (0, block_comment(rest))
        } else if let Some(hashes) = raw_string(rest).filter(|_| !word_before) {
            let open = rest.find('"').unwrap() + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            (open, open + rest[open..].find(&close).unwrap_or(rest.len() - open))
        } else if rest.starts_with('"') {
            (1, quoted(rest))
        } else if let Some(end) = character(rest) {
            (1, end)
        } else {
            at += rest.chars().next().unwrap().len_utf8();
            continue;
        };
        for byte in &mut out[at + skip..at + end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        // Behind the closing quote and hashes, if there are any.
        let closing = rest[end..].find(|c| c != '"' && c != '#' && c != '\'').unwrap_or(0);
        at += end + if skip > 0 { closing.max(1) } else { 0 };
    }
    String::from_utf8(out).unwrap()
}

/// Bytes of the block comment, nested ones included, that starts here.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest[at..].chars().next().unwrap().len_utf8();
        }
    }
    at
}

/// The number of hashes, if a raw string starts here.
fn raw_string(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// Bytes up to the closing quote of the string that starts here.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (index, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index,
            _ => {}
        }
    }
    rest.len()
}

/// Bytes up to the closing quote, if a character (not a lifetime) starts here.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        let first = escape.chars().next()?.len_utf8();
        return Some(2 + first + escape[first..].find('\'')?);
    }
    let first = inside.chars().next()?.len_utf8();
    inside[first..].starts_with('\'').then_some(1 + first)
}

/// Blanks the items behind `#[cfg(test)]` in code that [`code`] made; everything, if that is what `#![cfg(test)]` says.
pub fn without_tests(code: &str) -> String {
    let blank = |out: &mut String, range: core::ops::Range<usize>| {
        let blanked: String =
            out[range.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
        out.replace_range(range, &blanked);
    };
    let mut out = code.to_owned();
    if code.contains("#![cfg(test)]") {
        blank(&mut out, 0..code.len());
    }
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = item_end(&out, start + "#[cfg(test)]".len());
        blank(&mut out, start..end);
    }
    out
}

/// Where the item ends that starts at `from`: behind its braces, or behind its semicolon.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (index, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && byte == b'}' {
                    return index + 1;
                }
            }
            b';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_literals_and_tests_are_blanked_and_nothing_else() {
    let text = r##"
let a = "crate::io \" //"; // crate::io
let b = r#"crate::io " "#; /* crate::io /* nested */ crate::io */ let c = '"'; let d: &'a str = b"x\\";
let e = '\''; let f = '\u{1F}'; use crate::frame;
#[cfg(test)]
mod tests { fn f() { crate::io } }
#[cfg(test)]
use crate::io;
use crate::types;
"##;
    let code = code(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert_eq!(code.len(), text.len());
    assert_eq!(code.matches("crate::io").count(), 2, "{code}");
    let code = without_tests(&code);
    assert!(!code.contains("crate::io"), "{code}");
    assert!(code.contains("crate::frame") && code.contains("crate::types"));
    assert!(code.contains("let c = ' '; let d: &'a str = b\"   \";"), "{code}");
    assert_eq!(without_tests("#![cfg(test)]\nfn f() {}").trim(), "");
}

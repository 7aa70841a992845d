//! `quorate-log verify` of a backup: its manifest, and all that the manifest vouches for.

use std::path::Path;

use serde_json::json;

use quorate::error::{EXIT_DONE, EXIT_FAILURE, EXIT_FINDINGS};
use quorate::io::beside::BesideDisk;
use quorate::journal::backup::{Checked, MANIFEST_NAME, check};
use quorate::runtime::terminal::{complain, with_stdout};

/// Whether this is a backup: a manifest is there.
pub(crate) fn is_one(path: &Path) -> bool {
    path.join(MANIFEST_NAME).exists()
}

/// Reads all of it, and names what is wrong.
pub(crate) fn verify(path: &Path, json: bool) -> u8 {
    let checked = match check(&BesideDisk::new(path), &mut |_| Ok(())) {
        Ok(checked) => checked,
        Err(error) => {
            complain(&format_args!("{}: {error}", path.display()));
            return EXIT_FAILURE;
        }
    };
    let (code, verdict) = match (checked.flaws.is_empty(), checked.strays.is_empty()) {
        (true, true) => (EXIT_DONE, "good"),
        (true, false) => (EXIT_FINDINGS, "findings"),
        (false, _) => (EXIT_FAILURE, "damage"),
    };
    with_stdout(|out| {
        let strays = checked.strays.iter().map(|name| (name.as_str(), "not part of the backup"));
        let flaws = checked.flaws.iter().map(|flaw| (flaw.file.as_str(), flaw.what.as_str()));
        for (file, what) in flaws.chain(strays) {
            if json {
                writeln!(out, "{}", json!({"file": file, "problem": what}))?;
            } else {
                writeln!(out, "{}: {what}", path.join(file).display())?;
            }
        }
        if json {
            writeln!(out, "{}", summary(&checked, verdict))?;
        } else {
            let manifest = &checked.manifest;
            writeln!(
                out,
                "backup of group {:016x}: {verdict}: {} files, {} bytes, positions {} to {}, up to entry {}; {} problems",
                manifest.group.0,
                manifest.files.len(),
                manifest.bytes(),
                manifest.first,
                manifest.end.position,
                manifest.end.sequence,
                checked.flaws.len() + checked.strays.len()
            )?;
        }
        Ok(code)
    })
}

fn summary(checked: &Checked, verdict: &str) -> serde_json::Value {
    let manifest = &checked.manifest;
    json!({
        "verified": "backup",
        "verdict": verdict,
        "group": format!("{:016x}", manifest.group.0),
        "node": manifest.node.0,
        "taken": manifest.taken.0,
        "from": manifest.first.0,
        "to": manifest.end.position.0,
        "last_sequence": manifest.end.sequence.0,
        "snapshots": manifest.snapshots().map(|at| at.0).collect::<Vec<_>>(),
        "bytes": manifest.bytes(),
        "problems": checked.flaws.len() + checked.strays.len(),
    })
}

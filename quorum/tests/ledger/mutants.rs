//! Every rule of the ledger, broken one at a time: a story must go another way than it is told.
//!
//! The names are read from the source, so that a rule without a story can't hide. The table in `tests/README.md` says
//! which story notices which fault first; `BLESS=1` rewrites its rows.

use crate::cases::{files, replay};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every fault that the ledger's source asks for.
fn faults() -> Vec<String> {
    let mut names = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger");
    for entry in std::fs::read_dir(folder).expect("the ledger's source") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(path).expect("source");
        names.extend(text.split('"').filter(|part| is_fault(part)).map(str::to_owned));
    }
    names.sort();
    names.dedup();
    names
}

fn is_fault(text: &str) -> bool {
    let plain = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    text.strip_prefix("ledger.").is_some_and(plain)
}

/// Guards that stand behind another one: (guard, the one before it). No story reaches them while that one holds, so both
/// are broken, and what is told must differ from what is told with the first one broken.
const BEHIND: [(&str, &str); 1] = [("ledger.started_before_pivot", "ledger.grant_step_assumed")];

/// The first story that goes another way, or can't be told at all, with this fault planted.
fn noticed_by(fault: &str, stories: &[(PathBuf, String)]) -> Option<String> {
    let before = BEHIND.iter().find(|(behind, _)| *behind == fault).map(|(_, first)| quorum::mutants::plant(first));
    let told: Vec<Option<String>> = stories
        .iter()
        .map(|(_, text)| match before {
            Some(_) => std::panic::catch_unwind(|| replay(text)).ok(),
            None => Some(text.clone()),
        })
        .collect();
    let _planted = quorum::mutants::plant(fault);
    let differs = |text: &str, told: &Option<String>| std::panic::catch_unwind(|| replay(text)).ok() != *told;
    let (story, _) = stories.iter().zip(&told).find(|((_, text), told)| differs(text, told))?;
    Some(story.0.file_name()?.to_string_lossy().into_owned())
}

#[test]
fn every_broken_rule_changes_a_story() {
    let stories: Vec<(PathBuf, String)> =
        files().into_iter().map(|file| (file.clone(), std::fs::read_to_string(file).expect("story"))).collect();
    std::panic::set_hook(Box::new(|_| {}));
    let mut rows = BTreeMap::new();
    let mut unnoticed = Vec::new();
    for fault in faults() {
        match noticed_by(&fault, &stories) {
            Some(story) => {
                rows.insert(fault, story);
            }
            None => unnoticed.push(fault),
        }
    }
    let _default = std::panic::take_hook();
    assert!(
        unnoticed.is_empty(),
        "no story notices {} of {}: {unnoticed:?}",
        unnoticed.len(),
        rows.len() + unnoticed.len()
    );
    let table: Vec<String> = rows
        .iter()
        .map(|(fault, story)| format!("| `{fault}` | `every_broken_rule_changes_a_story`: {story} |"))
        .collect();
    keep_table(&table);
}

/// Compares the rows of `tests/README.md` that begin with a fault of the ledger, or rewrites them.
fn keep_table(rows: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/README.md");
    let told = std::fs::read_to_string(&path).expect("tests/README.md");
    let is_ours = |line: &&str| line.starts_with("| `ledger.");
    let kept: Vec<&str> = told.lines().filter(is_ours).collect();
    if kept == rows {
        return;
    }
    assert!(
        std::env::var_os("BLESS").is_some(),
        "tests/README.md tells other rows about the ledger: run again with BLESS=1"
    );
    let mut lines: Vec<String> = Vec::new();
    let mut is_written = false;
    for line in told.lines() {
        if is_ours(&line) || line == "<!-- ledger -->" {
            if !is_written {
                lines.extend(rows.iter().cloned());
                is_written = true;
            }
            continue;
        }
        lines.push(line.to_owned());
    }
    std::fs::write(path, lines.join("\n") + "\n").expect("write");
}

//! Data cases: what is asked, a line of dashes, what became of it. Readable aloud; `BLESS=1` rewrites the answers.

use crate::script::World;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Runs a file and returns it with the answers that were given now.
pub fn replay(text: &str) -> String {
    let mut world = World::new();
    let mut out = String::new();
    let mut asked: Vec<&str> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line != "----" {
            writeln!(out, "{line}").expect("writing to a string");
            if !line.is_empty() && !line.starts_with('#') {
                asked.push(line);
            }
            continue;
        }
        writeln!(out, "----").expect("writing to a string");
        for line in asked.drain(..) {
            if ["begin", "fresh"].contains(&line) {
                world = World::new();
            }
            out.push_str(&world.say(line));
        }
        // The old answer ends at an empty line.
        for old in lines.by_ref() {
            if old.is_empty() {
                break;
            }
        }
        out.push('\n');
    }
    assert!(asked.is_empty(), "asked without an answer: {asked:?}");
    format!("{}\n", out.trim_end())
}

pub fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/ledger");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("testdata").map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_story_goes_as_it_is_told() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for file in files() {
        let told = std::fs::read_to_string(&file).expect("case");
        let seen = replay(&told);
        if seen == told {
            continue;
        }
        if bless {
            std::fs::write(&file, seen).expect("write");
        } else {
            wrong.push(format!("{}:\n{}", file.display(), first_difference(&told, &seen)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn first_difference(told: &str, seen: &str) -> String {
    let pair = told.lines().zip(seen.lines()).enumerate().find(|(_, (told, seen))| told != seen);
    match pair {
        Some((line, (told, seen))) => format!("line {}:\n  told: {told}\n  seen: {seen}", line + 1),
        None => "one is longer".to_owned(),
    }
}

//! Bad configuration: every problem at once, with file, line, key and remedy.
//!
//! One case a file in `agent/testdata/config/`: `NAME.toml` is checked as `antipode config check` does, and what it says
//! is in `NAME.txt`. `BLESS=1` rewrites the texts; a missing one fails.

use antipode::config::{AgentConfig, Problem, Problems, check_spec};
use antipode::driver::work::kind_problems;
use std::path::{Path, PathBuf};

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config");
    let entries = std::fs::read_dir(dir).expect("the cases").filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|ext| ext == "toml")).collect();
    files.sort();
    files
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

/// Problems and warnings of a file.
fn judged(name: &str, text: &str) -> (Vec<Problem>, Vec<Problem>) {
    if name.starts_with("agent-") {
        let problems = AgentConfig::parse(name, text).err().map(|Problems(found)| found).unwrap_or_default();
        return (problems, Vec::new());
    }
    let checked = check_spec(name, text, None);
    let mut problems = checked.problems;
    problems.extend(kind_problems(name, text));
    problems.sort_by_key(|problem| problem.line);
    (problems, checked.warnings)
}

fn told(name: &str, text: &str) -> String {
    let (problems, warnings) = judged(name, text);
    let mut said = if problems.is_empty() { "good\n".to_owned() } else { "refused\n".to_owned() };
    problems.iter().for_each(|problem| said.push_str(&format!("{problem}\n")));
    warnings.iter().for_each(|warning| said.push_str(&format!("warning {warning}\n")));
    said
}

#[test]
fn every_case_says_what_its_text_says() {
    let mut differ = Vec::new();
    for path in cases() {
        let said = told(&name_of(&path), &std::fs::read_to_string(&path).expect("a case"));
        let expected = path.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &said).expect("written");
        }
        let before = std::fs::read_to_string(&expected).unwrap_or_else(|_| "(no text; BLESS=1 writes it)\n".into());
        if before != said {
            differ.push(format!("--- {}\nexpected:\n{before}said:\n{said}", name_of(&path)));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn cases_named_good_are_good_and_all_others_say_something() {
    for path in cases() {
        let name = name_of(&path);
        let (problems, warnings) = judged(&name, &std::fs::read_to_string(&path).expect("a case"));
        let silent = problems.is_empty() && warnings.is_empty();
        assert_eq!(silent, name.contains("good"), "{name}: {problems:#?} {warnings:#?}");
    }
}

/// A problem is of use only if it says where and what to do.
#[test]
fn every_problem_has_its_line_key_and_remedy() {
    for path in cases() {
        let text = std::fs::read_to_string(&path).expect("a case");
        let lines = text.lines().count();
        let (problems, warnings) = judged(&name_of(&path), &text);
        for problem in problems.iter().chain(&warnings) {
            assert!((1..=lines.max(1)).contains(&problem.line), "{problem}");
            assert!(!problem.key.is_empty() && !problem.what.is_empty() && !problem.remedy.is_empty(), "{problem}");
        }
    }
}

//! The house rules as a test: sizes, who may import whom, words that must not stay.
//!
//! Each rule is a function from a file to complaints, and each is tested on text that breaks it, so that a rule
//! that can't fail is noticed.

use std::path::{Path, PathBuf};

/// A Rust source file of the repository.
struct Source {
    path: String,
    text: String,
}

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const PARAMETERS_MAX: usize = 5;

/// Folders whose code decides: they own no clock, socket, file or task.
const PURE: [&str; 14] = [
    "quorum/src/lease/",
    "quorum/src/ledger/",
    "quorum/src/replica/",
    "quorum/src/codec/",
    "quorum/src/timing",
    "quorum/src/id.rs",
    "quorum/src/moment.rs",
    "quorum/src/roster.rs",
    "agent/src/engine/",
    "agent/src/heartbeat/",
    "agent/src/detector/",
    "agent/src/policy/",
    "agent/src/placement/",
    "agent/src/failover/",
];

/// What a pure folder must not name.
const IMPURE: [&str; 11] = [
    "tokio::",
    "quinn_proto::",
    "std::fs",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process::",
    "Instant::now",
    "SystemTime::now",
    "crate::driver",
    "HashMap",
    "HashSet",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace").to_path_buf()
}

fn sources() -> Vec<Source> {
    let root = root();
    let mut open: Vec<PathBuf> =
        ["agent", "quorum", "fencing", "tests", "examples"].iter().map(|dir| root.join(dir)).collect();
    let mut sources = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            let entries = std::fs::read_dir(&path).expect("a readable folder");
            open.extend(entries.map(|entry| entry.expect("a readable entry").path()));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = std::fs::read_to_string(&path).expect("a readable source");
            let path = path.strip_prefix(&root).expect("within the root").display().to_string();
            sources.push(Source { path, text });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 15, "found only {} sources", sources.len());
    sources
}

/// The part of a file before its unit tests.
fn production(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

fn file_size(source: &Source) -> Vec<String> {
    let lines = production(&source.text).lines().count();
    let too_long = lines > FILE_LINES_MAX;
    too_long.then(|| format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path)).into_iter().collect()
}

/// A pure dispatcher may be longer if a comment above it begins with "dispatcher:" and says why.
fn function_size(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines: Vec<&str> = source.text.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let starts = ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "async fn ", "pub async fn ", "const fn "];
        let ends = [";", "{}"].iter().any(|end| line.trim_end().ends_with(end));
        if !starts.iter().any(|prefix| code.starts_with(prefix)) || ends {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(line.len() - code.len()));
        let Some(length) = lines[start..].iter().position(|line| *line == closing) else { continue };
        let excused = lines[..start].iter().rev().take(12).any(|line| line.contains("dispatcher:"));
        if length + 1 > FUNCTION_LINES_MAX && !excused {
            let at = format!("{}:{}", source.path, start + 1);
            complaints.push(format!("{at}: {} lines, at most {FUNCTION_LINES_MAX}", length + 1));
        }
    }
    complaints
}

fn parameters(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, _) in source.text.match_indices("fn ") {
        let line_start = source.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let before = source.text[line_start..at].trim_start();
        let is_code = ["", "pub ", "pub(super) ", "pub(crate) ", "async ", "pub async "].contains(&before);
        let rest = &source.text[at..];
        let (Some(open), Some(body)) = (rest.find('('), rest.find('{')) else { continue };
        let excused =
            source.text[..line_start].lines().last().is_some_and(|line| line.contains("the trait's signature"));
        if !is_code || open > body || excused {
            continue;
        }
        let count = count_parameters(&rest[open..]);
        if count >= PARAMETERS_MAX {
            let line = source.text[..at].lines().count();
            complaints.push(format!("{}:{line}: {count} parameters; make it a struct with names", source.path));
        }
    }
    complaints
}

/// Parameters of the list that `text` begins with, `self` not counted.
fn count_parameters(text: &str) -> usize {
    let mut depth = 0i32;
    let mut commas = 0;
    let mut last = ' ';
    for c in text.chars() {
        match c {
            '(' | '[' | '<' => depth += 1,
            '>' if last == '-' || last == '=' => {}
            ')' | ']' | '>' => depth -= 1,
            ',' if depth == 1 => commas += 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if !c.is_whitespace() {
            last = c;
        }
    }
    let count = commas + usize::from(last != ',' && last != '(');
    let receiver = text.trim_start_matches(['(', '&', ' ', '\n']).trim_start_matches("mut ");
    count - usize::from(receiver.starts_with("self"))
}

fn imports(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    if source.path.starts_with("tests/") {
        return complaints;
    }
    let code = production(&source.text);
    let mut forbid = |needle: &str, why: &str| {
        for (n, line) in code.lines().enumerate() {
            if line.split("//").next().unwrap_or("").contains(needle) {
                complaints.push(format!("{}:{}: {needle} {why}", source.path, n + 1));
            }
        }
    };
    if PURE.iter().any(|folder| source.path.starts_with(folder)) && !source.path.contains("test") {
        IMPURE.iter().for_each(|needle| forbid(needle, "in a pure folder"));
    }
    let of = |krate: &str| source.path.starts_with(krate);
    if of("quorum/") {
        forbid("fencing::", "in quorum, which knows neither fencing nor the agent");
    }
    if of("fencing/") {
        forbid("quorum::", "in fencing, which knows neither quorum nor the agent");
    }
    if of("quorum/") || of("fencing/") {
        forbid("antipode::", "in a crate that doesn't know the agent");
    }
    if of("agent/src/sim/") {
        forbid("crate::driver", "in the simulator, which never imports drivers");
    }
    complaints
}

fn words(source: &Source) -> Vec<String> {
    if source.path == "tests/tidy.rs" {
        return Vec::new();
    }
    let banned = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX", "#[ignore", "#[should_panic", "#[allow("];
    let mut complaints = Vec::new();
    for (n, line) in source.text.lines().enumerate() {
        for word in banned.iter().filter(|word| line.contains(**word)) {
            complaints.push(format!("{}:{}: {word}", source.path, n + 1));
        }
    }
    complaints
}

fn header(source: &Source) -> Vec<String> {
    let has = source.text.starts_with("//!") || source.text.starts_with("#!");
    (!has).then(|| format!("{}: begins without //! that says what it is", source.path)).into_iter().collect()
}

fn sleeping_tests(source: &Source) -> Vec<String> {
    let is_test = source.path.starts_with("tests/") || source.path.contains("/tests");
    let sleeps = |line: &&str| line.contains("thread::sleep") || line.contains("time::sleep(");
    let found = source.text.lines().filter(sleeps).count();
    if source.path == "tests/tidy.rs" || !is_test || found == 0 {
        return Vec::new();
    }
    vec![format!("{}: sleeps {found} times: wait for a condition with a limit", source.path)]
}

/// Faults that the source asks for and that the table in `tests/README.md` doesn't name.
fn untold_faults(source: &Source, table: &str) -> Vec<String> {
    if !source.path.contains("/src/") {
        return Vec::new();
    }
    let asks = source.text.split("mutants::on(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let untold = asks.filter(|fault| !table.contains(&format!("| `{fault}` |")));
    untold.map(|fault| format!("{}: the fault {fault} has no row in tests/README.md", source.path)).collect()
}

/// Crates that a manifest asks for and the fuzzers' lock file doesn't know of: then `make fuzz` can't begin.
fn unlocked(package: &str, manifest: &str, lock: &str) -> Vec<String> {
    let asked = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]\n")).unwrap_or_default();
    let asked = asked.lines().filter(|line| !line.starts_with('#'));
    let asked = asked.filter_map(|line| line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()));
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    let locked: Vec<&str> = entry.unwrap_or_default().lines().filter_map(|line| line.strip_prefix(" \"")).collect();
    let is_locked = |name: &str| locked.iter().any(|line| line.split([' ', '"']).next() == Some(name));
    asked.filter(|name| !is_locked(name)).map(|name| format!("tests/fuzz/Cargo.lock: {package} needs {name}")).collect()
}

fn holds(rule: fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    holds(file_size);
}

#[test]
fn no_function_is_too_long() {
    holds(function_size);
}

#[test]
fn no_function_takes_a_heap_of_parameters() {
    holds(parameters);
}

#[test]
fn nobody_imports_what_they_may_not() {
    holds(imports);
}

#[test]
fn no_unfinished_code_and_no_silenced_lint_stays() {
    holds(words);
}

#[test]
fn every_file_says_what_it_is() {
    holds(header);
}

#[test]
fn no_test_sleeps() {
    holds(sleeping_tests);
}

#[test]
fn every_planted_fault_has_a_row_that_says_what_notices_it() {
    let table = std::fs::read_to_string(root().join("tests/README.md")).expect("the table");
    let untold: Vec<String> = sources().iter().flat_map(|source| untold_faults(source, &table)).collect();
    assert!(untold.is_empty(), "{}", untold.join("\n"));
}

#[test]
fn the_fuzzers_lock_file_knows_all_that_our_packages_need() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect(path);
    let lock = read("tests/fuzz/Cargo.lock");
    let of = |(package, dir): (&str, &str)| unlocked(package, &read(&format!("{dir}/Cargo.toml")), &lock);
    let unlocked: Vec<String> =
        [("quorum", "quorum"), ("fencing", "fencing"), ("antipode", "agent")].into_iter().flat_map(of).collect();
    assert!(unlocked.is_empty(), "cargo metadata in tests/fuzz mends it:\n{}", unlocked.join("\n"));
}

#[test]
fn each_rule_can_fail() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let asks = source("agent/src/a.rs", "if mutants::on(\"a.b\") {}");
    assert_eq!(untold_faults(&asks, "| `a.c` | `t` |").len(), 1);
    assert_eq!(untold_faults(&asks, "| `a.b` | `t` |").len(), 0);
    assert_eq!(file_size(&source("a.rs", &"x\n".repeat(801))).len(), 1);
    let long = format!("fn f() {{\n{}}}\n", "    x();\n".repeat(70));
    assert_eq!(function_size(&source("a.rs", &long)).len(), 1);
    let short = long.replace("fn f() {", "fn f() {}\n{");
    assert_eq!(function_size(&source("a.rs", &short)).len(), 0);
    assert_eq!(parameters(&source("a.rs", "fn f(a: A, b: B<C, D>, c: C, d: D, e: E) {}")).len(), 1);
    assert_eq!(parameters(&source("a.rs", "fn f(&self, a: A, b: fn(X) -> Y, c: C, d: D) {}")).len(), 0);
    let foreign = "// Five: the trait's signature.\nfn f(a: A, b: B, c: C, d: D, e: E) {}";
    assert_eq!(parameters(&source("a.rs", foreign)).len(), 0);
    assert_eq!(imports(&source("quorum/src/lease/a.rs", "use std::fs;\n")).len(), 1);
    assert_eq!(imports(&source("quorum/src/a.rs", "use fencing::x;\n")).len(), 1);
    assert_eq!(imports(&source("fencing/src/a.rs", "use quorum::x;\n")).len(), 1);
    assert_eq!(words(&source("a.rs", "todo!()\n#[allow(x)]\n")).len(), 2);
    assert_eq!(header(&source("a.rs", "fn f() {}\n")).len(), 1);
    assert_eq!(sleeping_tests(&source("tests/a.rs", "std::thread::sleep(x)\n")).len(), 1);
    let manifest = "[package]\n\n[dependencies]\na.workspace = true\nb = \"1\"\n\n[dev-dependencies]\nc = \"1\"\n";
    let lock = "[[package]]\nname = \"p\"\ndependencies = [\n \"a 1.0\",\n]\n";
    assert_eq!(unlocked("p", manifest, lock), ["tests/fuzz/Cargo.lock: p needs b"]);
}

//! Every folder of `tests/scenarios/` is a test: its script must hold, and its trace must be that of `expect`.
//!
//! `BLESS=1` rewrites `expect` where the script held; a missing one fails.
//!
//! Not libtest: the list of tests is the list of folders, so that each is run, named and chosen by itself.

use antipode::sim::scenario::{Report, Scenario, golden};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

/// Rows of the fault matrix that are scenarios here; the README says why the others aren't.
const ROWS: [std::ops::RangeInclusive<u32>; 5] = [1..=16, 18..=24, 26..=35, 37..=40, 42..=42];

type Outcome = Result<(), String>;

struct Case {
    name: String,
    run: Box<dyn Fn() -> Outcome + Send + Sync>,
}

fn case(name: impl Into<String>, run: impl Fn() -> Outcome + Send + Sync + 'static) -> Case {
    Case { name: name.into(), run: Box::new(run) }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace").join("tests/scenarios")
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root()).expect("the scenarios are there");
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a readable entry").path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn name_of(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn main() -> ExitCode {
    let mut cases: Vec<Case> = Vec::new();
    for folder in folders() {
        cases.push(case(name_of(&folder), move || holds(&folder)));
    }
    cases.push(case("every_row_of_the_fault_matrix_is_told", every_row_is_told));
    #[cfg(feature = "mutants")]
    cases.push(case("the_planted_faults_that_rows_are_about_are_noticed", planted_faults_are_noticed));
    for example in ["site-lost-and-home-again", "link-cut-moves-nothing", "witness-alone-decides-nothing"] {
        let path = root().join(format!("../../examples/scenarios/{example}.scenario"));
        cases.push(case(format!("example_{example}"), move || played(&path).map(|_| ())));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_exact = arguments.iter().any(|argument| argument == "--exact");
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| {
        let fits = |filter: &&String| if is_exact { name == filter.as_str() } else { name.contains(filter.as_str()) };
        filters.is_empty() || filters.iter().any(fits)
    };
    cases.retain(|case| is_wanted(&case.name));
    if arguments.iter().any(|argument| argument == "--list") {
        // Nothing is ever left out: a list of what is left out is empty.
        let ignored = arguments.iter().any(|argument| argument == "--ignored");
        cases.iter().filter(|_| !ignored).for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    run_all(cases)
}

/// Runs the cases on as many threads as there are cores, each case on one.
fn run_all(cases: Vec<Case>) -> ExitCode {
    let (total, waiting, failed) = (cases.len(), Mutex::new(cases), Mutex::new(0));
    let worker = || {
        while let Some(case) = { waiting.lock().expect("no panic holds it").pop() } {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&case.run));
            let outcome = outcome.unwrap_or_else(|_| Err("panicked".to_owned()));
            match outcome {
                Ok(()) => println!("test {} ... ok", case.name),
                Err(because) => {
                    *failed.lock().expect("no panic holds it") += 1;
                    println!("test {} ... FAILED\n{because}\n", case.name);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(worker))));
    let failed = *failed.lock().expect("no panic holds it");
    println!("\n{} of {total} held", total - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a scenario; its script must hold.
fn played(path: &Path) -> Result<Report, String> {
    let report = Scenario::load(path).and_then(|scenario| scenario.play()).map_err(|problems| problems.to_string())?;
    match &report.fault {
        None => Ok(report),
        Some(fault) => {
            let trace = golden::render(&report.lines);
            Err(format!("{trace}line {}: {}\n  {}", fault.line, fault.text, fault.because))
        }
    }
}

/// Planted faults that a row of its own is about.
#[cfg(feature = "mutants")]
const PLANTED: [(&str, &str); 2] = [
    ("row-06-site-can-not-hear", "detector.ignores_deafness"),
    ("row-29-declared-lost-while-alive", "engine.lost_host_waits"),
];

#[cfg(feature = "mutants")]
fn planted_faults_are_noticed() -> Outcome {
    for (row, fault) in PLANTED {
        let _planted = quorum::mutants::plant(fault);
        if played(&root().join(row)).is_ok() && holds(&root().join(row)).is_ok() {
            return Err(format!("{row} is told as ever with {fault}"));
        }
    }
    Ok(())
}

fn holds(folder: &Path) -> Outcome {
    let readme = std::fs::read_to_string(folder.join("README.md"));
    let is_told = readme.is_ok_and(|text| text.starts_with("# ") && text.lines().count() >= 3);
    if !is_told {
        return Err(format!("{} has no README.md that says why it is there", folder.display()));
    }
    let report = played(folder)?;
    let (file, found) = (folder.join("expect"), golden::render(&report.lines));
    if std::env::var_os("BLESS").is_some_and(|bless| bless == "1") {
        return std::fs::write(&file, found).map_err(|error| format!("write {}: {error}", file.display()));
    }
    let Ok(wanted) = std::fs::read_to_string(&file) else {
        return Err(format!("{} is missing; look at the trace, then BLESS=1\n{found}", file.display()));
    };
    let differences = golden::differences(&golden::parse(&wanted)?, &report.lines);
    if differences.is_empty() {
        return Ok(());
    }
    let mut text = format!("the trace isn't that of {}\n", file.display());
    for difference in differences {
        let _infallible = writeln!(text, "{difference}");
    }
    Err(text + "if every line of this is as it should be: BLESS=1, and say so in the commit")
}

/// The READMEs name the rows that they are about: a line `Row 5.` or `Rows 2 and 3.` right below the title.
fn every_row_is_told() -> Outcome {
    let mut told = BTreeSet::new();
    for folder in folders() {
        let text = std::fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        let rows = text.lines().find(|line| line.starts_with("Row"));
        let numbers =
            rows.unwrap_or_default().split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
        told.extend(numbers);
    }
    let wanted: BTreeSet<u32> = ROWS.into_iter().flatten().collect();
    let missing: Vec<&u32> = wanted.difference(&told).collect();
    let overview = std::fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let others = (1..=44).filter(|row| !wanted.contains(row));
    let unexplained: Vec<u32> = others.filter(|row| !overview.contains(&format!("| {row} |"))).collect();
    if missing.is_empty() && unexplained.is_empty() {
        return Ok(());
    }
    Err(format!("rows without a scenario: {missing:?}; rows without a reason in README.md: {unexplained:?}"))
}

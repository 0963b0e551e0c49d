//! Runs a model to the end and says what came out: one line per run, always shown.

use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::fmt::Debug;
use std::hash::Hash;
use std::io::Write;
use std::time::Instant;

/// What a run is called in the table.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    /// Which model.
    pub model: &'static str,
    /// Which parameters, or which rule is broken.
    pub variant: &'static str,
}

/// Explores everything and expects every invariant to hold.
///
/// # Panics
/// If an invariant breaks (with the path to it), if a `sometimes` property was never seen (the model would be
/// vacuous), or if the exploration did not end by itself.
pub fn holds<M>(name: Name, model: M) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let explored = explore(model);
    explored.say(name, if explored.broken.is_some() { "BROKEN" } else { "holds, exhausted" });
    if let Some((invariant, path)) = &explored.broken {
        panic!("{} / {}: {invariant} is broken:\n{path}", name.model, name.variant);
    }
    assert!(explored.exhausted, "{} / {}: the exploration stopped early", name.model, name.variant);
    assert_eq!(explored.unseen, Vec::<&str>::new(), "{} / {}: never happens", name.model, name.variant);
    explored.states
}

/// Explores a model with a broken rule and expects a counterexample to exactly this invariant.
///
/// # Panics
/// If everything was explored without one, or if another invariant broke first.
pub fn breaks<M>(name: Name, invariant: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let explored = explore(model);
    let result = explored.broken.as_ref().map_or("NOTHING BREAKS".to_owned(), |(broken, _)| format!("breaks {broken}"));
    explored.say(name, &result);
    let Some((broken, path)) = &explored.broken else {
        panic!("{} / {}: no counterexample in {} states", name.model, name.variant, explored.states);
    };
    assert_eq!(broken, invariant, "{} / {}: another invariant broke:\n{path}", name.model, name.variant);
    if std::env::var_os("ANTIPODE_MODEL_PATHS").is_some() {
        let _ = writeln!(std::io::stderr(), "{path}");
    }
}

/// Whether the long runs are wanted; says so if not.
pub fn long_run_wanted(name: Name) -> bool {
    let wanted = std::env::var_os("ANTIPODE_TEST_LONG").is_some();
    if !wanted {
        let text = "not run here: it is part of `make test-long`";
        let _ = writeln!(std::io::stderr(), "model {:<10} {:<44} {text}", name.model, name.variant);
    }
    wanted
}

struct Explored {
    states: usize,
    steps: usize,
    depth: usize,
    exhausted: bool,
    unseen: Vec<&'static str>,
    broken: Option<(String, String)>,
    seconds: f64,
}

impl Explored {
    fn say(&self, name: Name, result: &str) {
        let _ = writeln!(
            std::io::stderr(),
            "model {:<10} {:<44} {:>10} states {:>11} steps depth {:>3} {:>7.1} s  {result}",
            name.model,
            name.variant,
            self.states,
            self.steps,
            self.depth,
            self.seconds
        );
    }
}

/// Breadth first on one thread, so that a counterexample is a shortest one and every run is the same.
fn explore<M>(model: M) -> Explored
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let begun = Instant::now();
    let checker = model.checker().threads(1).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let seconds = begun.elapsed().as_secs_f64();
    let found = checker.discoveries();
    let failures = |property: &stateright::Property<M>| property.expectation.discovery_is_failure();
    let properties = checker.model().properties();
    let broken = properties.iter().filter(|property| failures(property)).find_map(|property| {
        let path = found.get(property.name)?;
        let steps: Vec<String> = path.clone().into_actions().iter().map(|action| format!("  {action:?}")).collect();
        Some((property.name.to_owned(), format!("{}\n  -> {:?}", steps.join("\n"), path.last_state())))
    });
    let sometimes = properties.iter().filter(|property| matches!(property.expectation, Expectation::Sometimes));
    let unseen = sometimes.map(|property| property.name).filter(|name| !found.contains_key(name)).collect();
    Explored {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        // No limit was set, so the only thread ends when nothing is left or when an invariant broke.
        exhausted: checker.is_done() && broken.is_none(),
        unseen,
        broken,
        seconds,
    }
}

#[cfg(feature = "mutants")]
thread_local!(static PLANTED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });

/// Plants faults in the production functions in the thread that explores. Models call it with the faults that they
/// were given; without the feature there are none.
pub fn plant(faults: &'static [&'static str]) {
    #[cfg(feature = "mutants")]
    if !PLANTED.replace(true) {
        for fault in faults {
            // The thread explores one model and ends: the faults stay as long as it does.
            let _kept = std::mem::ManuallyDrop::new(quorum::mutants::plant(fault));
        }
    }
    #[cfg(not(feature = "mutants"))]
    assert!(faults.is_empty(), "planted faults need the feature `mutants`");
}

/// [`breaks`] with faults planted in this thread too, which walks the path of the counterexample again.
#[cfg(feature = "mutants")]
pub fn breaks_planted<M>(name: Name, invariant: &str, planted: (&'static [&'static str], M))
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let (faults, model) = planted;
    let _planted: Vec<_> = faults.iter().map(|fault| quorum::mutants::plant(fault)).collect();
    PLANTED.set(true);
    breaks(name, invariant, model);
}

//! Faults planted on purpose, so that tests can show that each guard is watched.
//!
//! With the feature `mutants` one fault can be chosen at run time, per thread; without it [`on`] is a constant
//! `false`, and none of this is in the binary. `tests/mutants.rs` lists each fault with the claim that catches it.

/// Every fault that can be planted, with the guard that it removes.
pub const ALL: [(&str, &str); 12] = [
    ("rc-as-proof", "an accepted `off` counts as a reading of off"),
    ("skip-second-read", "one reading of off is enough"),
    ("skip-settle", "the two readings may follow each other at once"),
    ("skip-identity", "it isn't checked for which machine the device speaks"),
    ("ignore-feed", "one feed off is enough"),
    ("feeds-apart", "feeds may have been off at different times"),
    ("storage-alone", "storage exclusion is enough without network isolation"),
    ("accelerator-as-proof", "a poison pill counts as evidence"),
    ("between-as-off", "powering off, paused, suspended count as off"),
    ("one-device-of-level", "one device of a level is enough"),
    ("stale-stamp", "an overtaken task may still call devices"),
    ("login-again", "a refused login is tried again"),
];

#[cfg(feature = "mutants")]
mod planted {
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    /// Whether the fault `name` is planted in this thread.
    pub fn on(name: &str) -> bool {
        debug_assert!(super::ALL.iter().any(|(known, _)| *known == name), "no such fault: {name}");
        CHOSEN.get() == Some(name)
    }

    /// Runs `body` with the fault `name` planted in this thread.
    pub fn with<T>(name: &'static str, body: impl FnOnce() -> T) -> T {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                CHOSEN.set(None);
            }
        }
        CHOSEN.set(Some(name));
        let _reset = Reset;
        body()
    }
}

#[cfg(feature = "mutants")]
pub use planted::{on, with};

/// Whether the fault `_name` is planted: never in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) const fn on(_name: &str) -> bool {
    false
}

//! Faults planted on purpose, chosen at run time, so that tests can show that each guard is watched.
//!
//! A guard asks [`on`] with the fault's name. Without the feature `mutants` the answer is `false` at compile time,
//! and the optimizer removes the fault: a released binary has none. A test plants a fault in its own thread; a live
//! test, whose processes it can't reach into, names faults in `ANTIPODE_MUTANTS`, separated by commas.

/// Whether the fault `name` is planted in this thread.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn on(_name: &str) -> bool {
    false
}

#[cfg(feature = "mutants")]
pub use planted::{Planted, on, plant};

#[cfg(feature = "mutants")]
mod planted {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::sync::LazyLock;

    /// Faults planted in every thread of this process, read once.
    static EVERYWHERE: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let named = std::env::vars().find(|(key, _)| key == "ANTIPODE_MUTANTS").map(|(_, names)| names);
        named.unwrap_or_default().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    });

    thread_local! {
        static PLANTED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// Whether the fault `name` is planted in this thread or in the whole process.
    pub fn on(name: &str) -> bool {
        EVERYWHERE.contains(name) || PLANTED.with_borrow(|planted| planted.contains(name))
    }

    /// Keeps a fault planted until it is dropped.
    #[derive(Debug)]
    #[must_use = "the fault goes with this value"]
    pub struct Planted(String);

    /// Plants the fault `name` in this thread.
    pub fn plant(name: &str) -> Planted {
        PLANTED.with_borrow_mut(|planted| planted.insert(name.to_owned()));
        Planted(name.to_owned())
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.with_borrow_mut(|planted| planted.remove(&self.0));
        }
    }
}

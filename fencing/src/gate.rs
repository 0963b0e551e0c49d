//! Who may still call a device: the newest task for a target, as long as it isn't cancelled, past its deadline, or about an older
//! incarnation than one already seen.
//!
//! Contract: per target the highest stamp and the highest host epoch only rise; a lower one is refused for ever, also
//! after a restart (the journal brings the gate's state back). A cancelled stamp is refused for ever.
//! Not here: the ledger's own opinion; the agent's guard is asked in addition, last thing before a device call.

use crate::mutants;
use crate::name::HostName;
use crate::request::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a task may not call a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A newer decision about this target was seen.
    #[error("a newer task stands at {newest}; this one is at {asked}")]
    Overtaken {
        /// The newest seen.
        newest: Stamp,
        /// The one that asks.
        asked: Stamp,
    },
    /// The target was seen under a later host epoch: it has been admitted again since.
    #[error("the host was admitted again: its epoch is {newest}, this task is about {asked}")]
    Readmitted {
        /// The latest epoch seen.
        newest: u64,
        /// The one that asks.
        asked: u64,
    },
    /// The task was cancelled.
    #[error("the task was cancelled")]
    Cancelled,
}

/// What the gate keeps about one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    newest: Stamp,
    he: u64,
    cancelled: Option<Stamp>,
}

/// The gate of one executor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    marks: BTreeMap<HostName, Mark>,
}

impl Gate {
    /// Takes note of a task and says whether it may begin. An equal stamp may begin again (the same task, retried).
    ///
    /// # Errors
    /// [`Refusal`]: the gate is unchanged then.
    pub fn admit(&mut self, target: &HostName, he: u64, stamp: Stamp) -> Result<(), Refusal> {
        self.check(target, he, stamp)?;
        let mark = self.marks.entry(target.clone()).or_default();
        mark.newest = mark.newest.max(stamp);
        mark.he = mark.he.max(he);
        Ok(())
    }

    /// Takes note that everything about `target` up to and including `stamp` is over.
    pub fn cancel(&mut self, target: &HostName, stamp: Stamp) {
        let mark = self.marks.entry(target.clone()).or_default();
        mark.newest = mark.newest.max(stamp);
        mark.cancelled = mark.cancelled.max(Some(stamp));
    }

    /// Takes note that `target` is admitted under `he`: what is about an older epoch is over.
    pub fn admitted_again(&mut self, target: &HostName, he: u64) {
        let mark = self.marks.entry(target.clone()).or_default();
        mark.he = mark.he.max(he);
    }

    /// Whether a task may (still) call devices of `target`.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn check(&self, target: &HostName, he: u64, stamp: Stamp) -> Result<(), Refusal> {
        if mutants::on("stale-stamp") {
            return Ok(());
        }
        let mark = self.marks.get(target).copied().unwrap_or_default();
        if stamp < mark.newest {
            return Err(Refusal::Overtaken { newest: mark.newest, asked: stamp });
        }
        if he < mark.he {
            return Err(Refusal::Readmitted { newest: mark.he, asked: he });
        }
        if mark.cancelled.is_some_and(|cancelled| stamp <= cancelled) {
            return Err(Refusal::Cancelled);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostName {
        HostName::new("tk-p1").unwrap()
    }

    fn at(index: u64) -> Stamp {
        Stamp { era: 1, term: 3, index }
    }

    #[test]
    fn an_overtaken_task_is_refused() {
        let mut gate = Gate::default();
        gate.admit(&host(), 4, at(10)).unwrap();
        gate.admit(&host(), 4, at(20)).unwrap();
        assert!(matches!(gate.check(&host(), 4, at(10)), Err(Refusal::Overtaken { .. })));
        assert_eq!(gate.check(&host(), 4, at(20)), Ok(()));
    }

    #[test]
    fn a_host_that_was_admitted_again_is_not_hit_by_a_late_task() {
        let mut gate = Gate::default();
        gate.admit(&host(), 4, at(10)).unwrap();
        gate.admitted_again(&host(), 5);
        assert_eq!(gate.check(&host(), 4, at(10)), Err(Refusal::Readmitted { newest: 5, asked: 4 }));
        assert_eq!(gate.admit(&host(), 4, at(30)), Err(Refusal::Readmitted { newest: 5, asked: 4 }));
        assert_eq!(gate.admit(&host(), 5, at(31)), Ok(()));
    }

    #[test]
    fn a_cancelled_task_stays_cancelled_and_a_newer_one_may_begin() {
        let mut gate = Gate::default();
        gate.admit(&host(), 4, at(10)).unwrap();
        gate.cancel(&host(), at(10));
        assert_eq!(gate.admit(&host(), 4, at(10)), Err(Refusal::Cancelled));
        assert_eq!(gate.admit(&host(), 4, at(11)), Ok(()));
    }

    #[test]
    fn a_cancellation_that_arrives_before_its_task_holds() {
        let mut gate = Gate::default();
        gate.cancel(&host(), at(10));
        assert_eq!(gate.admit(&host(), 4, at(10)), Err(Refusal::Cancelled));
    }
}

//! Executors at several surviving sites: which one is given a fence order, and when the next one is.
//!
//! The majority side's leader runs one relay per fence task. An executor that can't reach the devices, says that
//! nothing could be proven, or stays away too long is followed by the next; the earlier ones go on. The first
//! evidence ends all of them.
//! Contract: nobody at the target's own site is asked while somebody elsewhere is left; the order of candidates is
//! deterministic; every executor that was given the order is told of its end.
//! Not here: that only the majority side fences (the ledger), how an order travels (the agent).

use crate::moment::Moment;
use crate::name::{HostName, SiteName};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// An agent that could carry out the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Its host.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// How many of the target's devices it has read successfully of late.
    pub devices_in_reach: usize,
}

/// What a relay is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayInput {
    /// Time has passed; also the first input.
    Tick,
    /// An executor gave its verdict.
    Concluded {
        /// Who.
        host: HostName,
        /// Whether it is evidence.
        proven: bool,
    },
    /// An executor can't be reached, or refused the order.
    Gone {
        /// Who.
        host: HostName,
    },
}

/// What a relay wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayEffect {
    /// Give the order to this executor.
    Assign {
        /// Who.
        host: HostName,
    },
    /// Tell this executor that the task is over.
    Cancel {
        /// Who.
        host: HostName,
    },
    /// Every candidate has failed; nobody is at work any more.
    Exhausted,
}

/// Passes one order along the candidates.
#[derive(Clone, Debug)]
pub struct Relay {
    waiting: Vec<Candidate>,
    at_work: BTreeSet<HostName>,
    patience: Duration,
    next_at: Option<Moment>,
    over: bool,
}

impl Relay {
    /// A relay for a target at `target_site`. `patience` is how long one executor is waited for before the next is
    /// asked as well.
    pub fn new(mut candidates: Vec<Candidate>, target_site: &SiteName, patience: Duration) -> Self {
        // Reversed, because the next one is taken from the end.
        candidates.sort_by_key(|candidate| {
            let at_home = candidate.site == *target_site;
            std::cmp::Reverse((at_home, std::cmp::Reverse(candidate.devices_in_reach), candidate.host.clone()))
        });
        Self { waiting: candidates, at_work: BTreeSet::new(), patience, next_at: None, over: false }
    }

    /// Decides what follows from `input`.
    pub fn step(&mut self, now: Moment, input: RelayInput, effects: &mut Vec<RelayEffect>) {
        if self.over {
            return;
        }
        match input {
            RelayInput::Tick => {}
            RelayInput::Concluded { host, proven } => {
                self.at_work.remove(&host);
                if proven {
                    self.over = true;
                    let rest = std::mem::take(&mut self.at_work);
                    effects.extend(rest.into_iter().map(|host| RelayEffect::Cancel { host }));
                    return;
                }
            }
            RelayInput::Gone { host } => {
                self.at_work.remove(&host);
            }
        }
        let impatient = self.next_at.is_none_or(|at| at <= now);
        if self.at_work.is_empty() || impatient {
            self.ask_next(now, effects);
        }
    }

    /// When `step` wants to be called again.
    pub fn deadline(&self) -> Option<Moment> {
        if self.over || self.waiting.is_empty() { None } else { self.next_at }
    }

    fn ask_next(&mut self, now: Moment, effects: &mut Vec<RelayEffect>) {
        match self.waiting.pop() {
            Some(candidate) => {
                self.at_work.insert(candidate.host.clone());
                self.next_at = Some(now.plus(self.patience));
                effects.push(RelayEffect::Assign { host: candidate.host });
            }
            None if self.at_work.is_empty() => {
                self.over = true;
                effects.push(RelayEffect::Exhausted);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(host: &str, site: &str, devices_in_reach: usize) -> Candidate {
        Candidate { host: HostName::new(host).unwrap(), site: SiteName::new(site).unwrap(), devices_in_reach }
    }

    fn relay() -> Relay {
        let candidates =
            vec![candidate("tk-k2", "tokyo", 9), candidate("ng-w", "nagoya", 1), candidate("os-k1", "osaka", 2)];
        Relay::new(candidates, &SiteName::new("tokyo").unwrap(), Duration::from_secs(3))
    }

    fn step(relay: &mut Relay, ms: u64, input: RelayInput) -> Vec<String> {
        let mut effects = Vec::new();
        relay.step(Moment::from_millis(ms), input, &mut effects);
        let name = |effect| match effect {
            RelayEffect::Assign { host } => format!("assign {host}"),
            RelayEffect::Cancel { host } => format!("cancel {host}"),
            RelayEffect::Exhausted => "exhausted".to_owned(),
        };
        effects.into_iter().map(name).collect()
    }

    fn concluded(host: &str, proven: bool) -> RelayInput {
        RelayInput::Concluded { host: HostName::new(host).unwrap(), proven }
    }

    #[test]
    fn who_reaches_most_devices_is_asked_first_and_the_targets_own_site_last() {
        let mut relay = relay();
        assert_eq!(step(&mut relay, 0, RelayInput::Tick), ["assign os-k1"]);
        assert_eq!(step(&mut relay, 10, concluded("os-k1", false)), ["assign ng-w"]);
        assert_eq!(step(&mut relay, 20, RelayInput::Gone { host: HostName::new("ng-w").unwrap() }), ["assign tk-k2"]);
        assert_eq!(step(&mut relay, 30, concluded("tk-k2", false)), ["exhausted"]);
    }

    #[test]
    fn a_slow_executor_is_joined_by_the_next_and_the_first_evidence_ends_both() {
        let mut relay = relay();
        assert_eq!(step(&mut relay, 0, RelayInput::Tick), ["assign os-k1"]);
        assert_eq!(relay.deadline(), Some(Moment::from_millis(3_000)));
        assert_eq!(step(&mut relay, 2_999, RelayInput::Tick), [""; 0]);
        assert_eq!(step(&mut relay, 3_000, RelayInput::Tick), ["assign ng-w"]);
        assert_eq!(step(&mut relay, 3_500, concluded("ng-w", true)), ["cancel os-k1"]);
        assert_eq!(step(&mut relay, 9_000, RelayInput::Tick), [""; 0]);
    }
}

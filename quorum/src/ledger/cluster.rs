//! The cluster itself: its creation, its time spans, what its members understand.

use super::apply::rule;
use super::command::Bootstrap;
use super::event::Event;
use super::refusal::Refusal;
use super::spec_check::SpecProblems;
use super::state::{Cluster, Ledger};
use crate::id::{Era, HostName};
use crate::mutants;
use crate::timing::Timing;
use std::collections::BTreeSet;

/// The version that every cluster begins with, whoever founds it: what `apply` makes of an old entry must not depend on the
/// release that applies it.
pub const FIRST_VERSION: u32 = 1;

/// The version of the replicated format that this release understands.
const THIS_RELEASE: u32 = 1;

/// The version of the replicated format that this program understands. The feature `next-release` plays the release that
/// comes next, so that an upgrade can be rehearsed with two real programs.
pub const VERSION: u32 = if cfg!(feature = "next-release") { THIS_RELEASE + 1 } else { THIS_RELEASE };

impl Ledger {
    pub(super) fn bootstrap(&mut self, bootstrap: &Bootstrap, events: &mut Vec<Event>) -> Result<(), Refusal> {
        rule("ledger.bootstrap_twice", self.cluster.is_none(), || Refusal::AlreadyBootstrapped {})?;
        check_timing(&bootstrap.timing)?;
        self.era = Era(1);
        self.config.era = self.era;
        self.version = FIRST_VERSION;
        self.cluster =
            Some(Cluster { name: bootstrap.cluster.clone(), lab: bootstrap.lab, timing: bootstrap.timing.clone() });
        events.push(Event::Bootstrapped { cluster: bootstrap.cluster.clone(), lab: bootstrap.lab });
        Ok(())
    }

    /// A weaker setting is refused, not warned about. What voters wait for hosts that are admitted can only rise:
    /// a holder may still count with the older, longer lease (protocol §3).
    pub(super) fn set_timing(&mut self, timing: &Timing, events: &mut Vec<Event>) -> Result<(), Refusal> {
        check_timing(timing)?;
        let problems = self.spec_problems(&self.spec.spec, timing);
        rule("ledger.timing_breaks_spec", problems.is_empty(), || Refusal::SpecInvalid {
            problems: SpecProblems(problems),
        })?;
        let terms = timing.lease_terms();
        for incarnation in self.hosts.values_mut().flat_map(|host| host.incarnations.values_mut()) {
            incarnation.terms =
                if mutants::on("ledger.lease_lowered_while_held") { terms } else { incarnation.terms.widest(terms) };
        }
        let cluster = self.cluster.as_mut().expect("checked before every command");
        cluster.timing = timing.clone();
        events.push(Event::TimingSet { lease: timing.lease, voter_wait: timing.voter_wait() });
        Ok(())
    }

    pub(super) fn supports_version(
        &mut self,
        host: &HostName,
        version: u32,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        if self.supports.insert(host.clone(), version) != Some(version) {
            events.push(Event::Supports { host: host.clone(), version });
        }
        Ok(())
    }

    /// New kinds of entries may be proposed only when nobody who has to apply or obey them is left behind: an unknown
    /// entry halts a voter (invariant I17).
    pub(super) fn raise_version(&mut self, version: u32, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let higher = version > self.version;
        rule("ledger.version_lowered", higher, || Refusal::VersionNotHigher { asked: version, now: self.version })?;
        for host in self.bound() {
            let supports = self.supports.get(host).copied().unwrap_or(0);
            rule("ledger.version_unsupported", supports >= version, || Refusal::VersionUnsupported {
                host: host.clone(),
                supports,
            })?;
        }
        self.version = version;
        events.push(Event::ClusterVersionSet { version });
        Ok(())
    }
}

impl Ledger {
    /// Everybody who applies entries or obeys them: voters, learners, admitted hosts.
    fn bound(&self) -> impl Iterator<Item = &HostName> {
        let members = self.membership.all_voters().chain(self.membership.learners.values()).map(|voter| &voter.host);
        members.chain(self.hosts.keys().filter(|host| self.admitted(host).is_some()))
    }

    /// The version that everybody understands who applies entries or obeys them. One who has said nothing understands the
    /// first, as releases do that know no other.
    pub fn understood_by_all(&self) -> u32 {
        self.bound().map(|host| self.understood_by(host)).min().unwrap_or(FIRST_VERSION)
    }

    /// The version that `host` understands, as far as it has said.
    pub fn understood_by(&self, host: &HostName) -> u32 {
        self.supports.get(host).copied().unwrap_or(FIRST_VERSION)
    }

    /// Those among them who understand no more than the version in force while somebody understands more.
    pub fn behind(&self) -> BTreeSet<&HostName> {
        let newest = self.supports.values().copied().max().unwrap_or(FIRST_VERSION);
        let is_behind = |host: &&HostName| newest > self.version && self.understood_by(host) <= self.version;
        self.bound().filter(is_behind).collect()
    }
}

fn check_timing(timing: &Timing) -> Result<(), Refusal> {
    let violations: Vec<String> = timing.check().iter().map(ToString::to_string).collect();
    rule("ledger.weak_timing", violations.is_empty(), || Refusal::TimingTooWeak { violations: violations.join("; ") })
}

//! The voter's side: when it promises, and when it has waited out what it promised.
//!
//! Grants are not persisted. Instead `last_grant` defaults to the latest moment at which something may have been
//! promised that this process does not know of, or that it promised under another configuration: its start, the
//! last configuration applied or snapshot installed, the host's admission, the last jump of its clock.
//!
//! Invariants: no grant once the host's end is persisted, committed or not (I5); `Expired` no earlier than L_v after
//! the voter's own last grant, on its slower clock (I6).
//!
//! Not here: what counts as evidence (`ledger` counts the `Expired` of a majority), persisting.

use super::{Answer, Claim, Expired, Grant, LeaseRequest, Refusal};
use crate::id::{Era, HostEpoch, HostName, VoterId};
use crate::moment::Moment;
use crate::mutants;
use crate::roster::{ConfigId, Membership};
use crate::timing::LeaseTerms;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a voter's log and applied state say at the moment of a request, about one host.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The era in force.
    pub era: Era,
    /// The host's newest admission in the *applied* state.
    pub admitted: Option<Claim>,
    /// The highest host epoch for which Lost, Retired or evidence is in the log or snapshot: persisted or handed to
    /// the disk, committed or not. An entry cut off again by a new leader no longer counts.
    pub ended: Option<HostEpoch>,
    /// Whether the log holds a configuration entry that is not applied.
    pub configuration_pending: bool,
    /// Whether something persisted could not be decoded.
    pub undecodable: bool,
    /// Identity of the applied configuration.
    pub config: ConfigId,
    /// Its members.
    pub membership: &'a Membership,
    /// L as applied.
    pub lease: Duration,
}

/// A host epoch whose Lost or Retired is *committed* and persisted here, and for which lease evidence is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Who.
    pub host: HostName,
    /// Which admission.
    pub host_epoch: HostEpoch,
    /// The widest terms in force at any log position since that admission.
    pub terms: LeaseTerms,
}

/// Whether a voter trusts the rate of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClockTrust {
    /// As far as peers can tell it runs within ρ.
    Trusted,
    /// Two peers see it off by more than ρ/2: it says nothing about elapsed time.
    Suspect,
}

/// Decides whether a request is granted: every rule of protocol §3 for "voter v must refuse if".
///
/// # Errors
/// The first rule, in the order of [`Refusal`], that forbids it.
pub fn judge(me: VoterId, claim: Claim, facts: &Facts<'_>) -> Result<(), Refusal> {
    let rules = [
        (Refusal::OtherEra, claim.era != facts.era, "lease.grant_across_eras"),
        (Refusal::NotVoter, !facts.membership.is_voter(me), "lease.grant_as_learner"),
        (Refusal::Undecodable, facts.undecodable, "lease.grant_undecodable"),
        (Refusal::ConfigurationPending, facts.configuration_pending, "lease.grant_while_pending"),
        (Refusal::HasEnded, facts.ended >= Some(claim.host_epoch), "lease.grant_after_end"),
    ];
    for (refusal, broken, mutant) in rules {
        if broken && !mutants::on(mutant) {
            return Err(refusal);
        }
    }
    judge_admission(claim, facts.admitted)
}

/// Exactly what the applied state says, in every part.
fn judge_admission(claim: Claim, admitted: Option<Claim>) -> Result<(), Refusal> {
    let Some(admitted) = admitted else {
        return if mutants::on("lease.grant_not_admitted") { Ok(()) } else { Err(Refusal::NotAdmitted) };
    };
    let rules = [
        (Refusal::Superseded, claim.host_epoch < admitted.host_epoch, "lease.grant_superseded"),
        (Refusal::NotYetApplied, claim.host_epoch > admitted.host_epoch, "lease.grant_not_yet_applied"),
        (Refusal::OtherBoot, claim.boot != admitted.boot, "lease.grant_other_boot"),
        (Refusal::OtherInstance, claim.instance != admitted.instance, "lease.grant_other_instance"),
    ];
    match rules.into_iter().find(|(_, broken, mutant)| *broken && !mutants::on(mutant)) {
        Some((refusal, ..)) => Err(refusal),
        None => Ok(()),
    }
}

/// Whether a voter that promised last at `last_grant` has waited long enough at `now`: L_v on its slower clock.
pub fn has_waited(now: Moment, last_grant: Moment, terms: LeaseTerms) -> bool {
    let waited = if mutants::on("lease.wait_on_larger_clock") {
        now.held_since(last_grant)
    } else {
        now.waited_since(last_grant)
    };
    waited >= terms.voter_wait()
}

/// The later of two moments, on each clock by itself.
fn later(a: Moment, b: Moment) -> Moment {
    Moment { boot_ns: a.boot_ns.max(b.boot_ns), raw_ns: a.raw_ns.max(b.raw_ns) }
}

/// What one voter process has promised. Never persisted.
#[derive(Clone, Debug)]
pub struct VoterLease {
    me: VoterId,
    /// No host's last grant counts as earlier than this.
    floor: Moment,
    /// Last grant or admission, by host. A later host epoch only moves it forward, which is the safe side.
    hosts: BTreeMap<HostName, Moment>,
    trust: ClockTrust,
}

impl VoterLease {
    /// A voter process that begins at `start`: whatever its predecessor promised, it promised before that.
    pub fn new(me: VoterId, start: Moment) -> Self {
        let floor = if mutants::on("lease.restart_forgets") { Moment::default() } else { start };
        Self { me, floor, hosts: BTreeMap::new(), trust: ClockTrust::Trusted }
    }

    /// Answers a request; a grant is remembered from `now` on.
    ///
    /// `now` must be read after the facts were collected in the same step, so that nothing is granted on facts that
    /// a later entry has overtaken.
    pub fn request(&mut self, now: Moment, request: &LeaseRequest, facts: &Facts<'_>) -> Answer {
        if let Err(reason) = judge(self.me, request.claim, facts) {
            return Answer::Refuse { voter: self.me, nonce: request.nonce, reason };
        }
        self.remember(now, &request.host);
        Answer::Grant(Grant {
            voter: self.me,
            config: facts.config,
            voters: facts.membership.voters.keys().copied().collect(),
            outgoing: facts.membership.outgoing.keys().copied().collect(),
            lease: facts.lease,
            host: request.host.clone(),
            host_epoch: request.claim.host_epoch,
            nonce: request.nonce,
        })
    }

    /// The `Expired` that may be proposed now, for those of `ended` that have waited. Proposed again, idempotently,
    /// until seen applied: this remembers nothing of what was proposed.
    ///
    /// Nothing while the clock is suspect, while this member has no vote, or while a configuration is pending (it
    /// would be discarded in `apply`).
    pub fn expired_due(&self, now: Moment, ended: &[Ended], facts: &Facts<'_>) -> Vec<Expired> {
        let may_speak = self.trust == ClockTrust::Trusted || mutants::on("lease.suspect_clock_speaks");
        if !may_speak || !facts.membership.is_voter(self.me) || facts.configuration_pending || facts.undecodable {
            return Vec::new();
        }
        let waited = |ended: &&Ended| has_waited(now, self.last_grant(&ended.host), ended.terms);
        let say = |ended: &Ended| Expired {
            voter: self.me,
            host: ended.host.clone(),
            host_epoch: ended.host_epoch,
            config: facts.config,
        };
        ended.iter().filter(waited).map(say).collect()
    }

    /// When the next of `ended` will have waited, counted on both clocks; `None` while the clock is suspect or
    /// nothing is waited for.
    pub fn deadline(&self, ended: &[Ended]) -> Option<Moment> {
        match self.trust {
            ClockTrust::Suspect => None,
            ClockTrust::Trusted => {
                ended.iter().map(|ended| self.last_grant(&ended.host).plus(ended.terms.voter_wait())).min()
            }
        }
    }

    /// The moment from which this voter counts its wait for `host`: its last grant, or the default.
    pub fn last_grant(&self, host: &HostName) -> Moment {
        self.hosts.get(host).map_or(self.floor, |&granted| later(granted, self.floor))
    }

    /// The admission of `host` was applied.
    pub fn on_admitted(&mut self, now: Moment, host: &HostName) {
        if !mutants::on("lease.admission_keeps_grants") {
            self.remember(now, host);
        }
    }

    /// A configuration, also a joint step, was applied: promises made under the one before say nothing under this
    /// one, so every wait starts again.
    pub fn on_configuration_applied(&mut self, now: Moment) {
        if !mutants::on("lease.configuration_keeps_grants") {
            self.restart_waits(now);
        }
    }

    /// A snapshot was installed: it may contain a configuration change.
    pub fn on_snapshot_installed(&mut self, now: Moment) {
        if !mutants::on("lease.snapshot_keeps_grants") {
            self.restart_waits(now);
        }
    }

    /// This machine's clock jumped, or its process slept in a way that the two clocks tell differently.
    pub fn on_clock_jump(&mut self, now: Moment) {
        self.restart_waits(now);
    }

    /// Two peers see this clock off by more than ρ/2.
    pub fn on_clock_suspect(&mut self, now: Moment) {
        self.trust = ClockTrust::Suspect;
        self.restart_waits(now);
    }

    /// The clock runs true again; what passed in between is not counted.
    pub fn on_clock_trusted(&mut self, now: Moment) {
        self.trust = ClockTrust::Trusted;
        if !mutants::on("lease.suspect_time_counts") {
            self.restart_waits(now);
        }
    }

    /// The host was removed from the cluster. Should it come back, its admission starts a new count.
    pub fn forget(&mut self, host: &HostName) {
        self.hosts.remove(host);
    }

    fn remember(&mut self, now: Moment, host: &HostName) {
        match self.hosts.get_mut(host) {
            Some(last) => *last = later(*last, now),
            None => {
                self.hosts.insert(host.clone(), now);
            }
        }
    }

    fn restart_waits(&mut self, now: Moment) {
        self.floor = later(self.floor, now);
    }
}

//! Looks at the whole world after every event, with eyes that no agent has.
//!
//! It knows real time, every clock's rate, what really runs and what was really written, and hears every fact that any
//! replica applies. What it concludes rests on these alone, never on what an agent believes. Each check names the
//! invariant of protocol §10.

mod asked;
mod facts;
mod seen;

pub use seen::Seen;

use super::host::SimHost;
use super::network::nanos;
use super::place::Writes;
use super::world::World;
use quorum::id::{Epoch, GroupName, HostName, PlanId, TaskId, VoterId};
use quorum::ledger::{EvidenceKind, Incarnation, Ledger, TicketState};
use quorum::roster::Membership;
use std::collections::{BTreeMap, BTreeSet};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which, as in protocol §10.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

/// What the oracle remembers between events.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// The first thing that was found broken.
    broken: Option<Violation>,
    /// The configuration as far as facts were taken in.
    membership: Membership,
    /// Highest epoch that ever ran.
    epochs: BTreeMap<GroupName, Epoch>,
    /// By era and index: a new era's log goes on from what its survivor knew.
    hashes: BTreeMap<(u16, u64), [u8; 32]>,
    applied: BTreeMap<HostName, u64>,
    /// Facts up to here, in this era, were taken in, the last from this host at this time.
    heard: ((u16, u64), Option<(HostName, u64)>),
    ended: BTreeMap<Incarnation, u64>,
    admitted: BTreeMap<HostName, Incarnation>,
    inert: BTreeMap<Incarnation, EvidenceKind>,
    inert_for: BTreeMap<(Incarnation, GroupName), EvidenceKind>,
    granted: BTreeMap<(GroupName, Epoch), Incarnation>,
    tickets: BTreeMap<GroupName, (Epoch, Incarnation)>,
    stopped: BTreeSet<(GroupName, Epoch)>,
    /// Grants behind which a person accepted a loss, or which the ledger itself counted as losing something: how much at
    /// most, in nanoseconds, if anybody said so.
    lossy: BTreeMap<(GroupName, Epoch), Option<u64>>,
    acknowledged: BTreeMap<GroupName, Writes>,
    /// Who hears nothing of whom, since when; and who ever did since the peer's last admission.
    suspects: BTreeMap<(HostName, HostName), u64>,
    suspected: BTreeSet<(HostName, HostName)>,
    open_tasks: BTreeSet<TaskId>,
    /// Groups that the log ties to an admission.
    pins: BTreeMap<GroupName, Incarnation>,
    /// Those of them of which their keepers have taken note.
    noted_pins: BTreeSet<GroupName>,
    /// When a voter granted last, and how long it must wait from then on, in real time.
    lease_grants: BTreeMap<(VoterId, Incarnation), (u64, u64)>,
    /// When the configuration came into force.
    configured_ns: u64,
    vouchers: Vec<asked::Voucher>,
    drills: BTreeMap<PlanId, GroupName>,
    persisted: BTreeMap<HostName, u64>,
    /// Voters that have an entry on their disk which they can't read, and where.
    unknown: BTreeMap<HostName, u64>,
    /// Set by whoever plants faults: what is wrong now.
    pub(super) marks: BTreeSet<&'static str>,
    /// What was reached, for coverage.
    pub(super) seen: Seen,
}

/// Spans that are counted together are rounded, and counted on clocks that are off by up to ρ each.
const ROUNDED_NS: u64 = 10_000_000;

impl Oracle {
    pub(super) fn new(membership: &Membership) -> Self {
        Self { membership: membership.clone(), ..Self::default() }
    }

    /// What a cluster that goes on from this ledger has behind it.
    pub(super) fn go_on(&mut self, ledger: &Ledger) {
        let at = ledger.applied().0;
        self.membership = ledger.membership().clone();
        self.heard = ((ledger.era().0, at), None);
        for (host, state) in ledger.hosts() {
            for (he, incarnation) in &state.incarnations {
                let of = Incarnation { host: host.clone(), he: *he };
                if incarnation.ended.is_some() {
                    self.ended.insert(of.clone(), at);
                }
                for evidence in &incarnation.evidence {
                    self.believes(&of, evidence.kind, &evidence.scope);
                }
                if *he == state.he {
                    self.admitted.insert(host.clone(), of);
                }
            }
        }
        for (group, state) in ledger.groups() {
            self.pins.extend(state.pin.as_ref().map(|pin| (group.clone(), pin.of.clone())));
            if state.pin.as_ref().is_some_and(|pin| pin.acknowledged.is_some()) {
                self.noted_pins.insert(group.clone());
            }
            let Some(ticket) = &state.ticket else { continue };
            self.epochs.insert(group.clone(), ticket.epoch);
            self.granted.insert((group.clone(), ticket.epoch), ticket.of.clone());
            self.tickets.insert(group.clone(), (ticket.epoch, ticket.of.clone()));
            if matches!(ticket.state, TicketState::Stopped { .. }) {
                self.stopped.insert((group.clone(), ticket.epoch));
            }
        }
        self.open_tasks = ledger.tasks().iter().filter(|(_, task)| !task.is_over()).map(|(id, _)| *id).collect();
    }

    /// What was reached in this run.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    pub(super) fn breaks(&mut self, invariant: &'static str, text: String) {
        self.broken.get_or_insert(Violation { invariant, text });
    }

    /// Looks at all hosts.
    ///
    /// # Errors
    /// The first invariant found broken since the world began.
    pub(super) fn look(&mut self, hosts: &BTreeMap<HostName, SimHost>, now_ns: u64) -> Result<(), Violation> {
        self.at_most_one_runs(hosts, now_ns);
        self.replicas_agree(hosts);
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn at_most_one_runs(&mut self, hosts: &BTreeMap<HostName, SimHost>, now_ns: u64) {
        let mut running: Vec<(&GroupName, &HostName, Epoch)> = Vec::new();
        for (name, host) in hosts {
            let Some(boot) = &host.boot else { continue };
            for (group, place) in &host.places {
                let Some(epoch) = place.running else { continue };
                if let Some((_, other, older)) = running.iter().find(|(of, ..)| *of == group) {
                    let text = format!("{group} runs on {other} (epoch {older}) and on {name} (epoch {epoch})");
                    self.breaks("I1", text);
                }
                running.push((group, name, epoch));
                self.has_a_right(host, (group, epoch, place.started_under));
                let is_pinned = self.pins.get(group).is_some_and(|of| of.host == *name);
                if place.is_tied && !(is_pinned && self.noted_pins.contains(group)) {
                    let text = format!("{group} on {name} is out of its lease's reach, and the log has no pin of it");
                    self.breaks("I12", text);
                }
                let executes = !boot.slice_frozen && !boot.is_asleep;
                if executes && !place.is_tied {
                    self.runs_within_its_lease(host, group, now_ns);
                }
            }
        }
    }

    /// What runs has the newest grant of its epoch, under the host epoch that it was granted to, and nothing proves
    /// that
    /// host epoch over.
    fn has_a_right(&mut self, host: &SimHost, what: (&GroupName, Epoch, Option<quorum::id::HostEpoch>)) {
        let (group, epoch, he) = what;
        let highest = self.epochs.entry(group.clone()).or_default();
        if epoch < *highest {
            let text = format!("{group} runs at epoch {epoch} after epoch {highest} ran");
            self.breaks("I3", text);
            return;
        }
        *highest = epoch;
        // I4 and I11 hold but for pinned groups (protocol §5).
        let is_pinned = self.pins.get(group).is_some_and(|of| of.host == host.spec.name);
        let Some(he) = he.filter(|_| !is_pinned) else { return };
        let of = Incarnation { host: host.spec.name.clone(), he };
        if self.granted.get(&(group.clone(), epoch)) != Some(&of) {
            let text = format!("{group} runs at epoch {epoch} on {of}, to whom that epoch was never granted");
            self.breaks("I11", text);
        }
        if let Some(kind) = self.proves_inert(&of, group) {
            let text = format!("{group} runs on {of}, which {kind:?} proved inert");
            self.breaks("I4", text);
        }
    }

    /// Nothing executes past the end of the lease that its keeper goes by, not even while a reset is on its way.
    fn runs_within_its_lease(&mut self, host: &SimHost, group: &GroupName, now_ns: u64) {
        let Some(boot) = &host.boot else { return };
        let left = || boot.left.as_ref().and_then(|(record, _)| record.as_ref()).map(|record| record.expires);
        let expiry = boot.keeper.as_ref().map_or_else(left, super::keeper::SimKeeper::last_expiry);
        let Some(expiry) = expiry else { return };
        let end_ns = boot.clock.real_at(expiry);
        // W and δ_hw are real time, the lease is counted on a clock that may be fast by ρ.
        if now_ns > end_ns + end_slack(end_ns) {
            let late = (now_ns - end_ns) / 1_000_000;
            let text = format!("{group} executes on {} {late} ms after its lease ended", host.spec.name);
            self.breaks("I12", text);
        }
    }

    /// The state is equal at every index on all replicas, and whoever applied the end of a host epoch has it.
    fn replicas_agree(&mut self, hosts: &BTreeMap<HostName, SimHost>) {
        for (name, host) in hosts {
            let Some(engine) = host.engine() else { continue };
            let ledger = engine.ledger();
            let index = ledger.applied().0;
            let before = self.applied.get(name).copied();
            if before == Some(index) {
                continue;
            }
            self.applied.insert(name.clone(), index);
            if let Some(unknown) = self.unknown.get(name).copied().filter(|unknown| *unknown <= index) {
                self.breaks("I17", format!("{name} went past entry {unknown}, which it can't read"));
            }
            let hash = ledger.chain_hash();
            let known = *self.hashes.entry((ledger.era().0, index)).or_insert(hash);
            if known != hash {
                self.breaks("I14", format!("{name} disagrees about the state at index {index}"));
            }
            if before.is_none_or(|before| index != before + 1) {
                let forgets = |(of, at): &(&Incarnation, &u64)| {
                    let known = ledger.host(&of.host).is_none() || ledger.is_ended(of);
                    of.he.era() == ledger.era() && **at <= index && !known
                };
                if let Some((of, at)) = self.ended.iter().find(forgets) {
                    let text = format!("{name} at index {index} has forgotten that {of} ended at index {at}");
                    self.breaks("I16", text);
                }
            }
        }
    }

    /// A running owner's writes were answered. `before`: what its copy had.
    pub(super) fn acknowledged(&mut self, group: &GroupName, (epoch, span_ns): (Epoch, u64), before: &Writes) {
        let truth = self.acknowledged.entry(group.clone()).or_default();
        let lost_ns = (!before.has(truth)).then(|| before.misses(truth));
        // What was never answered and lies on the copy that goes on is part of what there is from here.
        truth.clone_from(before);
        truth.add(epoch, span_ns);
        let Some(lost_ns) = lost_ns else { return };
        let lost_ms = lost_ns / 1_000_000;
        match self.lossy.get(&(group.clone(), epoch)) {
            None => {
                let text = format!(
                    "{group} goes on at epoch {epoch} without {lost_ms} ms of answered writes, which nobody accepted"
                );
                self.breaks("I10", text);
            }
            Some(Some(most_ns)) if lost_ns > most_ns + most_ns / 500 + ROUNDED_NS => {
                let most_ms = most_ns / 1_000_000;
                let text = format!(
                    "{group} goes on at epoch {epoch} without {lost_ms} ms of answered writes; {most_ms} ms were counted"
                );
                self.breaks("I10", text);
            }
            Some(_) => {}
        }
    }

    /// A voter has an entry on its disk that no agent of this version can read: it applies and grants nothing behind it
    /// (I17).
    pub(super) fn cannot_read(&mut self, host: &HostName, index: u64) {
        self.unknown.entry(host.clone()).or_insert(index);
    }

    /// What its voter had on the disk is gone, or counts no more.
    pub(super) fn forgets(&mut self, host: &HostName) {
        self.persisted.remove(host);
        self.unknown.remove(host);
    }

    /// A voter has entries up to here on its disk.
    pub(super) fn persisted(&mut self, host: &HostName, last: u64) {
        self.persisted.insert(host.clone(), last);
    }
}

/// How much later than its own count a lease may end in real time: half of ρ of everything that was counted since boot
/// is
/// already in the clock; what remains is the rounding, and W counted in real time.
fn end_slack(_end_ns: u64) -> u64 {
    10_000_000
}

impl World {
    /// A pet reached the watchdog now: even if it is the last one, the host executes nothing any more when its lease
    /// ends (I7).
    pub(super) fn judge_pet(&mut self, name: &HostName) {
        let timing = &self.founded.timing;
        let (worst, delta_hw) = (nanos(timing.watchdog_worst), nanos(timing.delta_hw));
        let host = &self.hosts[name];
        let Some(boot) = &host.boot else { return };
        let Some(keeper) = &boot.keeper else { return };
        let Some(expiry) = keeper.expiry() else { return };
        if host.places.values().all(|place| place.running.is_none() || place.is_tied) {
            return;
        }
        let end_ns = boot.clock.real_at(expiry);
        let reset_ns = self.now_ns + worst + delta_hw;
        if reset_ns > end_ns + end_slack(end_ns) {
            let late = (reset_ns - end_ns) / 1_000_000;
            self.oracle.breaks("I7", format!("{name} petted; its reset could come {late} ms after its lease ends"));
        }
    }
}

//! What others may ask of the ledger. Nothing here changes anything.

use super::audit::{AuditHead, digest};
use super::cover::Reach;
use super::evidence::{EvidenceKind, Incarnation};
use super::plan::PlanState;
use super::spec::{GroupSpec, LedgerSpec, SpecRevision};
use super::state::{
    Brake, Cluster, FenceTask, Freeze, GroupState, HostState, IncarnationState, Ledger, LossAcceptance,
    PendingOverride, Restriction, Tombstones,
};
use super::{FreezeScope, PlaceScope};
use crate::id::{Epoch, Era, GroupName, HostEpoch, HostName, LogIndex, PlanId, SiteName, TaskId};
use crate::roster::{ConfigId, Membership};
use crate::timing::Timing;
use std::collections::BTreeMap;
use std::time::Duration;

impl Ledger {
    /// A ledger to which nothing was applied.
    pub fn new() -> Self {
        Self::default()
    }

    /// A ledger to which nothing was applied, of a cluster whose first voters are known from elsewhere than the log
    /// (the first voter's own configuration, before entry 1).
    pub fn founded_by(membership: Membership) -> Self {
        Self { membership, ..Self::default() }
    }

    /// Where the last applied entry is.
    pub fn position(&self) -> super::Position {
        self.position
    }

    /// The index of the last applied entry.
    pub fn applied(&self) -> LogIndex {
        self.position.index
    }

    /// The era; 0 before the cluster exists.
    pub fn era(&self) -> Era {
        self.era
    }

    /// What was said at the cluster's creation; none before.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The time spans in force; none before the cluster exists.
    pub fn timing(&self) -> Option<&Timing> {
        self.cluster.as_ref().map(|cluster| &cluster.timing)
    }

    /// The spec in force and where it came from.
    pub fn spec_revision(&self) -> &SpecRevision {
        &self.spec
    }

    /// The spec in force.
    pub fn spec(&self) -> &LedgerSpec {
        &self.spec.spec
    }

    /// A group's part of the spec in force.
    pub fn group_spec(&self, group: &GroupName) -> Option<&GroupSpec> {
        self.spec.spec.groups.get(group)
    }

    /// The identity of the configuration of voters in force.
    pub fn config_id(&self) -> ConfigId {
        self.config
    }

    /// The voters and learners in force.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Every host that was ever admitted.
    pub fn hosts(&self) -> &BTreeMap<HostName, HostState> {
        &self.hosts
    }

    /// A host's admissions; none if it never had one.
    pub fn host(&self, host: &HostName) -> Option<&HostState> {
        self.hosts.get(host)
    }

    /// One admission of a host, as long as it is remembered.
    pub fn incarnation(&self, of: &Incarnation) -> Option<&IncarnationState> {
        self.hosts.get(&of.host)?.incarnations.get(&of.he).map(AsRef::as_ref)
    }

    /// The current admission of a host if it may act: neither lost nor retired.
    pub fn admitted(&self, host: &HostName) -> Option<(HostEpoch, &IncarnationState)> {
        let state = self.hosts.get(host)?;
        let current = state.incarnations.get(&state.he)?;
        current.ended.is_none().then_some((state.he, current))
    }

    /// Whether this admission of a host is over: lost, retired, superseded, or never was. What no voter may grant to.
    pub fn is_ended(&self, of: &Incarnation) -> bool {
        self.admitted(&of.host).is_none_or(|(he, _)| he != of.he)
    }

    /// Whether `Lost` or `Retired` for exactly this admission was applied.
    pub fn lost_or_retired(&self, of: &Incarnation) -> bool {
        self.incarnation(of).is_some_and(|state| state.ended.is_some())
    }

    /// L_v: what a voter waits after its own last grant to this admission, by the largest L, ρ and δ_io in force at
    /// any log position since it was admitted. None if the admission isn't remembered.
    pub fn largest_lease_wait(&self, of: &Incarnation) -> Option<Duration> {
        Some(self.incarnation(of)?.terms.voter_wait())
    }

    /// Whether the lease of this host, as it is admitted now, would prove it harmless to a group: its class can, and
    /// the group accepts it. Where no possible owner's lease would and no device could, automatic failover is
    /// impossible, and that is shown before the disaster.
    pub fn lease_would_prove(&self, group: &GroupName, host: &HostName) -> bool {
        let class = self.hosts.get(host).and_then(|state| state.incarnations.get(&state.he)).map(|state| state.class);
        let accepted = self.group_spec(group).is_some_and(|spec| spec.accept.contains(&EvidenceKind::SelfFenced));
        accepted && class.is_some_and(|class| self.class_allows(EvidenceKind::SelfFenced, class))
    }

    /// The admissions of a host about which evidence is still asked for: ended, and named by a possible owner.
    pub fn unproven_on(&self, host: &HostName) -> Vec<Incarnation> {
        let mut unproven: Vec<Incarnation> = Vec::new();
        for (group, state) in self.groups_on(host) {
            for owner in state.owners.keys().filter(|owner| owner.host == *host && self.lost_or_retired(owner)) {
                if self.cover(group, owner, Reach::Anywhere).is_err() && !unproven.contains(owner) {
                    unproven.push(owner.clone());
                }
            }
        }
        unproven
    }

    /// The L that a voter writes into a grant to this admission: lowering takes effect at its next one, so that a
    /// holder never sees it shrink while it counts.
    pub fn lease_to_grant(&self, of: &Incarnation) -> Option<Duration> {
        Some(self.incarnation(of)?.terms.lease)
    }

    /// Every group that was created.
    pub fn groups(&self) -> &BTreeMap<GroupName, GroupState> {
        &self.groups
    }

    /// A group; none if it wasn't created or was removed.
    pub fn group(&self, group: &GroupName) -> Option<&GroupState> {
        self.groups.get(group)
    }

    /// The groups that name a host as possible owner, in any of its admissions.
    pub fn groups_on(&self, host: &HostName) -> impl Iterator<Item = (&GroupName, &GroupState)> {
        let names = self.on_host.get(host).into_iter().flatten();
        names.filter_map(|name| self.groups.get_key_value(name))
    }

    /// The epoch that the next grant of a group gets.
    pub fn next_epoch(&self, group: &GroupName) -> Option<Epoch> {
        self.groups.get(group).map(|state| state.epoch.next())
    }

    /// The host epoch that the next admission of a host gets.
    pub fn next_host_epoch(&self, host: &HostName) -> HostEpoch {
        let last = self.hosts.get(host).map(|state| state.he);
        let last = last.or_else(|| self.tombstones.hosts.get(host).copied());
        last.unwrap_or_default().max(HostEpoch::in_era(self.era, 0)).next()
    }

    /// Fence tasks: those by which somebody may still act, and the last ones by which nobody can.
    pub fn tasks(&self) -> &BTreeMap<TaskId, FenceTask> {
        &self.tasks
    }

    /// Open plans and the last closed ones.
    pub fn plans(&self) -> &BTreeMap<PlanId, PlanState> {
        &self.plans
    }

    /// The open plan of a group, if any.
    pub fn open_plan(&self, group: &GroupName) -> Option<&PlanState> {
        self.plans.values().find(|plan| plan.is_open() && plan.plan.group == *group)
    }

    /// Freezes in force.
    pub fn freezes(&self) -> &BTreeMap<LogIndex, Freeze> {
        &self.freezes
    }

    /// Maintenance in force.
    pub fn maintenance(&self) -> &BTreeMap<PlaceScope, Restriction> {
        &self.maintenance
    }

    /// Holds in force.
    pub fn holds(&self) -> &BTreeMap<PlaceScope, Restriction> {
        &self.holds
    }

    /// The brake, if it is set.
    pub fn brake(&self) -> Option<&Brake> {
        self.brake.as_ref()
    }

    /// Overrides that wait for a second person.
    pub fn overrides(&self) -> &BTreeMap<LogIndex, PendingOverride> {
        &self.overrides
    }

    /// Acceptances of losses of this term.
    pub fn losses(&self) -> &BTreeMap<LogIndex, LossAcceptance> {
        &self.losses
    }

    /// Where removed names go on.
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// The end of the audit chain.
    pub fn audit_head(&self) -> &AuditHead {
        &self.audit
    }

    /// The cluster version: entries of newer kinds must not be proposed.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What each member reported to understand.
    pub fn supports(&self) -> &BTreeMap<HostName, u32> {
        &self.supports
    }

    /// Where a host stands, by the spec in force.
    pub fn site_of(&self, host: &HostName) -> Option<&SiteName> {
        self.spec.spec.site_of(host)
    }

    /// The maintenance under which a host is, of itself or of its site.
    pub fn maintenance_of(&self, host: &HostName) -> Option<&Restriction> {
        self.restriction_of(&self.maintenance, host)
    }

    /// The hold under which a host is, of itself or of its site.
    pub fn hold_of(&self, host: &HostName) -> Option<&Restriction> {
        self.restriction_of(&self.holds, host)
    }

    fn restriction_of<'a>(
        &self,
        from: &'a BTreeMap<PlaceScope, Restriction>,
        host: &HostName,
    ) -> Option<&'a Restriction> {
        let site = self.site_of(host);
        from.get(&PlaceScope::Host(host.clone())).or_else(|| from.get(&PlaceScope::Site(site?.clone())))
    }

    /// The freeze that keeps a host from being declared lost automatically.
    pub fn freeze_of_host(&self, host: &HostName) -> Option<(LogIndex, &Freeze)> {
        let site = self.site_of(host);
        self.find_freeze(|scope| match scope {
            FreezeScope::Cluster => true,
            FreezeScope::Site(frozen) => Some(frozen) == site,
            FreezeScope::Group(_) => false,
        })
    }

    /// The freeze that keeps a group from being moved automatically: of the cluster, of itself, or of the site where
    /// it ran last.
    pub fn freeze_of_group(&self, group: &GroupName) -> Option<(LogIndex, &Freeze)> {
        let site = self.groups.get(group).and_then(|state| self.site_of(state.last_owner.as_ref()?));
        self.find_freeze(|scope| match scope {
            FreezeScope::Cluster => true,
            FreezeScope::Site(frozen) => Some(frozen) == site,
            FreezeScope::Group(frozen) => frozen == group,
        })
    }

    fn find_freeze(&self, covers: impl Fn(&FreezeScope) -> bool) -> Option<(LogIndex, &Freeze)> {
        self.freezes.iter().find(|(_, freeze)| covers(&freeze.scope)).map(|(index, freeze)| (*index, freeze))
    }

    /// Hash of the whole state. Costs a pass over it: for tests at every index, in production now and then; between,
    /// compare [`Ledger::chain_hash`].
    pub fn state_hash(&self) -> [u8; 32] {
        digest(self)
    }

    /// Hash of what commands can change: the state but for the position and the chain, which every entry moves. For
    /// tests: a refused command leaves it equal.
    pub fn content_hash(&self) -> [u8; 32] {
        digest(&Self { position: super::Position::default(), chain: [0; 32], ..self.clone() })
    }

    /// Hash over every entry, outcome and event so far.
    pub fn chain_hash(&self) -> [u8; 32] {
        self.chain
    }
}

#[cfg(feature = "mutants")]
impl Ledger {
    /// As a snapshot would have it that forgot which admissions are over: a planted fault.
    #[must_use]
    pub fn without_ends(mut self) -> Self {
        let incarnations = self.hosts.values_mut().flat_map(|host| host.incarnations.values_mut());
        incarnations.for_each(|incarnation| incarnation.ended = None);
        self
    }
}

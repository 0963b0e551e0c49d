//! What a cluster spec promises, held against what the protocol, the machines and the cluster as it stands can keep.
//!
//! Contract: every problem and every warning of a file at once, each at the line that causes it. A problem refuses the
//! spec; a warning is shown before it is applied and afterwards: what will not happen by itself in a disaster is said
//! before it.
//!
//! Not here: the keys that only a kind knows (`driver::work` checks them), the files on this machine (`doctor`).

use super::group::{GroupConfig, Tier};
use super::reader::{Problem, Reader, survey};
use super::spec_file::ClusterSpec;
use super::{ledger_spec, timing_of};
use quorum::id::{HostName, SiteName};
use quorum::ledger::{Class, Ledger, SpecProblem};
use quorum::timing::{Inequality, Timing, Violation};
use std::collections::BTreeSet;

/// A spec that was read and judged.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The spec as read; not to be used while there are problems, and none if it can't be read at all.
    pub spec: Option<ClusterSpec>,
    /// What keeps it from being applied.
    pub problems: Vec<Problem>,
    /// What its author should know.
    pub warnings: Vec<Problem>,
}

/// Reads and judges `text`, the content of `file`, for the cluster in `known`, or for a new one.
pub fn check_spec(file: &str, text: &str, known: Option<&Ledger>) -> Checked {
    let found = survey(file, text, |root| {
        let spec = ClusterSpec::read(root)?;
        Judge { root, spec: &spec, timing: timing_of(&spec), known }.judge();
        Some(spec)
    });
    Checked { spec: found.value, problems: found.problems, warnings: found.warnings }
}

/// One spec being judged.
struct Judge<'a> {
    root: &'a Reader<'a>,
    spec: &'a ClusterSpec,
    timing: Timing,
    known: Option<&'a Ledger>,
}

impl Judge<'_> {
    fn judge(&self) {
        for violation in self.timing.check() {
            self.violation(&violation);
        }
        let checked = ledger_spec(self.spec);
        let problems = match self.known.filter(|ledger| ledger.cluster().is_some()) {
            Some(ledger) => ledger.spec_problems(&checked, &self.timing),
            None => checked.problems(&self.timing, self.spec.cluster.lab),
        };
        problems.iter().for_each(|problem| self.problem(problem));
        self.identity();
        self.domains();
        for group in self.spec.groups.values() {
            self.places(group);
            self.evidence(group);
            self.targets(group);
            self.order(group);
        }
    }

    fn violation(&self, violation: &Violation) {
        let by_hand = &self.spec.cluster.timing;
        let key = match violation.inequality {
            Inequality::WatchdogArmed | Inequality::WatchdogSpans => "watchdog_worst",
            Inequality::Lease | Inequality::VoterWait if by_hand.lease.is_some() => "timing.lease",
            Inequality::Lease | Inequality::VoterWait | Inequality::LostRenewals => "timing.renewal",
            Inequality::Renewal | Inequality::Periods => "timing.renewal",
            Inequality::KeeperPeriod => "timing.keeper_period",
            Inequality::Drift => "timing.rho_ppm",
            Inequality::Detection | Inequality::LostBeats if by_hand.detection.is_some() => "timing.detection",
            Inequality::Detection | Inequality::LostBeats | Inequality::Beat => "beat",
            Inequality::Election => "timing.election",
            Inequality::Range => "round_trip_max",
        };
        let mut path = vec!["cluster"];
        path.extend(key.split('.'));
        let what = format!("breaks {}: is {}, must be {}", violation.inequality, violation.is, violation.must_be);
        self.root.problem_at(&path, what, violation.remedy);
    }

    /// The name and the kind of a cluster are for its life.
    fn identity(&self) {
        let Some(cluster) = self.known.and_then(Ledger::cluster) else { return };
        if cluster.name.as_str() != self.spec.cluster.name {
            let what = format!("is not this cluster's: it is {}", cluster.name);
            self.root.problem_at(&["cluster", "name"], what, "apply the spec of this cluster");
        }
        if cluster.lab != self.spec.cluster.lab {
            let is = if cluster.lab { "this cluster was created as a lab" } else { "this cluster is no lab" };
            self.root.problem_at(&["cluster", "lab"], is, "it can't be changed: create another cluster");
        }
    }

    /// dispatcher: where each problem of the ledger stands in the file, and what to do about it. What the reader has
    /// reported already is left out.
    fn problem(&self, problem: &SpecProblem) {
        let what = problem.to_string();
        let at = |path: &[&str], remedy: &str| self.root.problem_at(path, what.as_str(), remedy);
        match problem {
            SpecProblem::SiteUnknown { .. }
            | SpecProblem::DeviceUnknown { .. }
            | SpecProblem::PlaceUnknown { .. }
            | SpecProblem::PlaceAtWitness { .. }
            | SpecProblem::PlaceHostElsewhere { .. }
            | SpecProblem::PlaceEmpty { .. }
            | SpecProblem::HomeWithoutPlace(_)
            | SpecProblem::AfterUnknown { .. } => {}
            SpecProblem::GroupDropped(group) => at(&["group", group.as_str()], "keep its [[group]] until then"),
            SpecProblem::HostDropped(host) => at(&["host", host.as_str()], "keep its [[host]] until then"),
            SpecProblem::HostMoved(host) => at(&["host", host.as_str(), "site"], "keep its site until then"),
            SpecProblem::SiteOfVoterDropped(site) => at(&["site", site.as_str()], "keep its [[site]] until then"),
            SpecProblem::SettleTooShort { device, .. } => {
                at(&["device", device.as_str(), "settle"], "write settle = \"1s\" or more");
            }
            SpecProblem::DeviceOfLab(device) => {
                at(&["device", device.as_str(), "lab"], "use a real device; a lab is created with cluster.lab = true");
            }
            SpecProblem::PlaceInUse { group, host } => {
                let site = self.spec.hosts.get(host).map(|host| host.site.as_str()).unwrap_or_default();
                at(&["group", group.as_str(), "at", site], "keep the place until the group has left it");
            }
            SpecProblem::VolumeShared { other, .. } => {
                at(&["group", other.as_str(), "volume"], "give each group its own volume, or make them one group");
            }
            SpecProblem::SharedNeedsReservations { group, volume } => {
                let path = ["group", group.as_str(), "volume", volume.as_str()];
                at(&path, "set persistent reservations, or take \"self-fenced\" out of `accept`");
            }
            SpecProblem::SharedNeedsDeltaIo { group, volume } => {
                let path = ["group", group.as_str(), "volume", volume.as_str()];
                at(&path, "set persistent reservations, or cluster.timing.delta_io = \"1s\"");
            }
            SpecProblem::TargetOutOfReach { group, floor, .. } => {
                let remedy = format!("write target_rpo = \"{}ms\" or more, or tier = \"approve\"", floor.as_millis());
                at(&["group", group.as_str(), "target_rpo"], &remedy);
            }
            SpecProblem::NothingAccepted(group) => {
                at(&["group", group.as_str(), "accept"], "write e.g. accept = [\"powered-off\", \"self-fenced\"]");
            }
            SpecProblem::Approvals(_) => at(&["cluster", "approvals"], "write 1 or 2"),
            SpecProblem::BrakeTooWeak => at(&["cluster", "brake"], "leave the brake at its defaults"),
        }
    }

    /// A majority must survive the loss of any site, and two other domains must see it.
    fn domains(&self) {
        if self.spec.sites.len() < 3 {
            let what =
                format!("has {} of at least 3 sites: no majority survives the loss of one", self.spec.sites.len());
            let remedy = "add a [[site]] with witness = true and a voter there; automatic failover of a site is \
                          impossible until then";
            self.root.warn_at(&["site"], what, remedy);
        }
        let Some(ledger) = self.known.filter(|ledger| ledger.cluster().is_some()) else { return };
        let voters: Vec<_> = ledger.membership().all_voters().collect();
        let sites: BTreeSet<&SiteName> = voters.iter().map(|voter| &voter.site).collect();
        if voters.len() < 3 || sites.len() < 3 {
            let what = format!("the {} voters span {} domains, of at least 3", voters.len(), sites.len());
            self.root.warn_at(
                &["site"],
                what,
                "antipode quorum add a voter at another site; until then a site's loss \
                                                may take the majority along",
            );
        }
        for site in &sites {
            let there = voters.iter().filter(|voter| voter.site == **site).count();
            if sites.len() > 1 && there * 2 >= voters.len() {
                let what = format!("holds {there} of {} voters: its loss takes the majority along", voters.len());
                self.root.warn_at(&["site", site.as_str()], what, "move voters to other sites");
            }
        }
    }

    /// Somewhere to go: for a machine's loss another machine, for a site's loss another site.
    fn places(&self, group: &GroupConfig) {
        let name = group.name.as_str();
        let hosts = group.places.values().map(|place| place.hosts.len()).sum::<usize>();
        if group.places.len() > 1 || matches!(group.tier, Tier::Restore) {
            return;
        }
        let promises = matches!(group.tier, Tier::Auto | Tier::Approve);
        if hosts < 2 && promises {
            let what = "has one host in all: nothing could take it over";
            self.root.problem_at(&["group", name, "at"], what, "add a place at another site, or tier = \"manual\"");
        } else {
            let what = "has places at one site only: it is down when that site is, until it returns";
            self.root.warn_at(&["group", name, "at"], what, "add a place at another site");
        }
    }

    /// Whether the loss of each host could be proven without a person.
    fn evidence(&self, group: &GroupConfig) {
        let accepts = |kind: &str| group.accept.iter().any(|accepted| accepted == kind);
        let mut hopeless = Vec::new();
        for host in group.places.values().flat_map(|place| &place.hosts) {
            let by_device = accepts("powered-off") || accepts("storage-excluded") || accepts("hypervisor-off");
            if !(self.has_device(host) && by_device || accepts("self-fenced") && self.lease_proves(host)) {
                hopeless.push(host.to_string());
            }
        }
        if hopeless.is_empty() || matches!(group.tier, Tier::Manual | Tier::Restore) {
            return;
        }
        let what = format!(
            "automatic failover impossible here: nothing that the group accepts can prove {} harmless",
            hopeless.join(", ")
        );
        let remedy = "give these hosts a [[device]] in `fencing` and accept \"powered-off\", or a commissioned watchdog, \
                      \"self\" in `fencing` and accept \"self-fenced\"; until then a person must vouch \
                      (antipode fence override)";
        self.root.warn_at(&["group", group.name.as_str(), "accept"], what, remedy);
    }

    fn has_device(&self, host: &HostName) -> bool {
        let levels = self.spec.hosts.get(host).map(|host| host.fencing.as_slice()).unwrap_or_default();
        levels.iter().any(|level| level.iter().any(|device| device != "self" && device != "operator"))
    }

    /// The lease of a host that was admitted with a weak class is no evidence; of one that never was, nobody knows yet.
    fn lease_proves(&self, host: &HostName) -> bool {
        let levels = self.spec.hosts.get(host).map(|host| host.fencing.as_slice()).unwrap_or_default();
        if !levels.iter().flatten().any(|device| device == "self") {
            return false;
        }
        let admitted = self.known.and_then(|ledger| ledger.admitted(host));
        admitted.is_none_or(|(_, state)| match state.class {
            Class::A | Class::B => true,
            Class::C | Class::D => false,
        })
    }

    fn targets(&self, group: &GroupConfig) {
        let Some(target) = group.target_rto.filter(|_| matches!(group.tier, Tier::Auto)) else { return };
        let by_lease_only = group.accept.iter().all(|kind| kind == "self-fenced");
        let least = if by_lease_only { self.timing.voter_wait() } else { self.timing.detection };
        let least = least.max(group.hold_off);
        if target < least {
            let what = format!("is {target:?}, but a takeover begins {least:?} after the loss at the earliest");
            let remedy = "raise it, add a fencing device to the hosts, or shorten hold_off";
            self.root.warn_at(&["group", group.name.as_str(), "target_rto"], what, remedy);
        }
    }

    /// A group that starts by itself only after one that doesn't, waits for a person after all.
    fn order(&self, group: &GroupConfig) {
        if group.tier != Tier::Auto {
            return;
        }
        for before in group.after.iter().filter_map(|name| self.spec.groups.get(name)) {
            if before.tier != Tier::Auto {
                let what = format!("waits for {}, which a person must start", before.name);
                let at = ["group", group.name.as_str(), "after"];
                self.root.warn_at(&at, what, "give both the same tier");
            }
        }
    }
}

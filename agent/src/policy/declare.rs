//! The gate between "nobody near me hears it" and `Lost`.
//!
//! A site or host may be declared lost only when a majority of voters in at least two other failure domains report
//! it silent, each in a report no older than T_D, and when no healthy voter still hears it. A is deaf to B while W
//! hears B is a fault of the link A–B and declares nothing.

use quorum::id::{HostEpoch, HostName, SiteName};
use quorum::mutants;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Whether a declaration waits for the lease's end or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As soon as it is corroborated: a positive fence is ready, or the operator wants it so.
    Eager,
    /// Just before the lease of the host runs out: nothing is lost by waiting, and a blip costs nothing.
    Lazy,
}

/// One voter's latest report as the leader has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// The voter's host.
    pub host: HostName,
    /// Its failure domain.
    pub site: SiteName,
    /// Age of its report by the leader's clock; `None` if there is none.
    pub age: Option<Duration>,
    /// It doesn't trust its own ears.
    pub abstains: bool,
    /// Sites that it hears nothing of.
    pub sites: BTreeSet<SiteName>,
    /// Hosts of other sites that it doesn't hear.
    pub hosts: BTreeSet<HostName>,
}

impl Reporter {
    fn is_fresh(&self, within: Duration) -> bool {
        self.age.is_some_and(|age| age <= within)
    }

    fn suspects(&self, host: &HostName, site: &SiteName) -> bool {
        self.sites.contains(site) || self.hosts.contains(host)
    }
}

/// What the leader knows of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The host epoch that would be declared lost.
    pub host_epoch: HostEpoch,
    /// Declaration is stopped by maintenance.
    pub in_maintenance: bool,
    /// Smallest hold-off among its groups, counted from the suspicion.
    pub hold_off: Duration,
    /// Eager or lazy, when its whole site is silent.
    pub mode: Mode,
    /// Eager or lazy, while other hosts of its site are heard: eager only where that brings its groups up earlier.
    pub alone: Mode,
    /// Time since the leader itself last granted it a lease, or since the leader could have.
    pub since_grant: Duration,
    /// How long a voter waits after its last grant: L_v.
    pub lease_wait: Duration,
    /// How long all reporters have been silent about it, by the leader's own count; zero if the leader still hears it.
    pub silent_for: Duration,
}

/// All that a declaration depends on.
#[derive(Clone, Debug)]
pub struct DeclareView {
    /// Hosts that hold a host epoch, by site; witnesses are sites like others here.
    pub sites: BTreeMap<SiteName, BTreeMap<HostName, HostFacts>>,
    /// The voters in force.
    pub voters: Vec<Reporter>,
    /// How many of them must agree.
    pub majority: usize,
    /// T_D.
    pub detection: Duration,
    /// 99 % of commits take no longer.
    pub commit_p99: Duration,
    /// New declarations are held by a freeze that covers the site.
    pub frozen: BTreeSet<SiteName>,
    /// The brake is set.
    pub braked: bool,
}

/// A host and its epoch, with the reason for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The hosts, always one by one.
    pub hosts: Vec<(HostName, HostEpoch)>,
    /// All hosts of the site at once.
    pub whole_site: bool,
    /// The site.
    pub site: SiteName,
    /// Who reported: voter's host, its site, the report's age.
    pub reports: Vec<(HostName, SiteName, Duration)>,
}

/// Why a suspect host isn't declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// Too few fresh reports of healthy voters.
    TooFewReports {
        /// Reports that count.
        have: usize,
        /// Reports needed.
        need: usize,
    },
    /// The reports come from fewer than two failure domains other than the site's own.
    OneDomain,
    /// This healthy voter still hears it: a link fault.
    StillHeardBy(HostName),
    /// Frozen by an operator.
    Frozen,
    /// In maintenance.
    Maintenance,
    /// The brake is set.
    Braked,
}

/// A host that will be declared if nothing changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The host.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
    /// `Ok`: how much longer the lazy wait or hold-off lasts. `Err`: what stands against it.
    pub until: Result<Duration, WhyNot>,
}

/// What to declare now, and what waits for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declaration {
    /// To be proposed now.
    pub now: Vec<Declared>,
    /// Suspect and not declared, with the reason.
    pub waiting: Vec<Waiting>,
}

/// Decides which suspect hosts are to be declared lost now.
pub fn declare(view: &DeclareView) -> Declaration {
    let mut declaration = Declaration::default();
    for (site, hosts) in &view.sites {
        let judged: BTreeMap<&HostName, Result<Duration, WhyNot>> = hosts
            .iter()
            .filter(|(host, _)| view.voters.iter().any(|voter| voter.suspects(host, site)))
            .map(|(host, facts)| (host, judge(view, site, host, facts)))
            .collect();
        let corroborated = |host: &HostName| matches!(judged.get(host), Some(Ok(_)));
        let whole_site = hosts.keys().all(corroborated);
        let mut due = Vec::new();
        for (host, verdict) in judged {
            let wait = wait(view, &hosts[host], whole_site);
            match verdict.map(|left| left.max(wait)) {
                Ok(Duration::ZERO) => due.push((host.clone(), hosts[host].host_epoch)),
                until => declaration.waiting.push(Waiting { host: host.clone(), site: site.clone(), until }),
            }
        }
        if !due.is_empty() {
            let reports = reports(view, site, &due[0].0);
            let whole_site = due.len() == hosts.len();
            declaration.now.push(Declared { hosts: due, whole_site, site: site.clone(), reports });
        }
    }
    declaration
}

/// How much longer a corroborated host is waited for. A part of a site may be the beginning of the whole: single hosts
/// wait one more T_D, unless another host of the site was heard after their T_D ran out, which the detector shows as the
/// site not being suspect. And it is mostly an agent that stands still: where its groups wait for the end of its lease
/// anyway, it is given until then to come back.
fn wait(view: &DeclareView, facts: &HostFacts, whole_site: bool) -> Duration {
    let is_whole = whole_site || mutants::on("policy.single_host_in_haste");
    let lazy = match if is_whole { facts.mode } else { facts.alone } {
        Mode::Eager => Duration::ZERO,
        Mode::Lazy => facts.lease_wait.saturating_sub(view.commit_p99 + Duration::from_millis(250)),
    };
    let single = if is_whole { Duration::ZERO } else { view.detection.saturating_sub(facts.silent_for) };
    single.max(lazy.saturating_sub(facts.since_grant))
}

fn reports(view: &DeclareView, site: &SiteName, host: &HostName) -> Vec<(HostName, SiteName, Duration)> {
    let counts = |voter: &&Reporter| counts(view, voter, site, host);
    view.voters
        .iter()
        .filter(counts)
        .map(|voter| (voter.host.clone(), voter.site.clone(), voter.age.unwrap_or_default()))
        .collect()
}

fn counts(view: &DeclareView, voter: &Reporter, site: &SiteName, host: &HostName) -> bool {
    voter.is_fresh(view.detection) && !voter.abstains && voter.host != *host && voter.suspects(host, site)
}

/// `Ok`: corroborated, and how much of the hold-off is left. `Err`: not corroborated, or held.
fn judge(view: &DeclareView, site: &SiteName, host: &HostName, facts: &HostFacts) -> Result<Duration, WhyNot> {
    let hears = |voter: &&Reporter| voter.is_fresh(view.detection) && !voter.abstains && !voter.suspects(host, site);
    // The host's own voter hears it, too: as long as its last word is fresh, the ledger takes no declaration. Whoever else
    // hears it says more.
    let (own, others): (Vec<&Reporter>, Vec<&Reporter>) =
        view.voters.iter().filter(hears).partition(|v| v.host == *host);
    if let Some(voter) = others.first().or(own.first()).filter(|_| !mutants::on("policy.ignores_who_hears")) {
        return Err(WhyNot::StillHeardBy(voter.host.clone()));
    }
    let reporters: Vec<&Reporter> = view.voters.iter().filter(|voter| counts(view, voter, site, host)).collect();
    if reporters.len() < view.majority && !mutants::on("policy.minority_declares") {
        return Err(WhyNot::TooFewReports { have: reporters.len(), need: view.majority });
    }
    let domains: BTreeSet<&SiteName> = reporters.iter().map(|voter| &voter.site).filter(|s| *s != site).collect();
    if domains.len() < 2 && !mutants::on("policy.one_domain_declares") {
        return Err(WhyNot::OneDomain);
    }
    if view.frozen.contains(site) {
        return Err(WhyNot::Frozen);
    }
    if facts.in_maintenance {
        return Err(WhyNot::Maintenance);
    }
    if view.braked {
        return Err(WhyNot::Braked);
    }
    Ok(facts.hold_off.saturating_sub(facts.silent_for))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorum::id::Era;

    fn site(name: &str) -> SiteName {
        SiteName::new(name).expect("a name")
    }

    fn host(name: &str) -> HostName {
        HostName::new(name).expect("a name")
    }

    fn facts(mode: Mode) -> HostFacts {
        HostFacts {
            host_epoch: HostEpoch::in_era(Era(1), 1),
            in_maintenance: false,
            hold_off: Duration::ZERO,
            mode,
            alone: mode,
            since_grant: Duration::from_millis(400),
            lease_wait: Duration::from_millis(3_800),
            silent_for: Duration::from_millis(10),
        }
    }

    fn voter(name: &str, at: &str, suspects: &[&str]) -> Reporter {
        Reporter {
            host: host(name),
            site: site(at),
            age: Some(Duration::from_millis(60)),
            abstains: false,
            sites: suspects.iter().map(|s| site(s)).collect(),
            hosts: BTreeSet::new(),
        }
    }

    /// One voter each at a, b and w; b and w hear nothing of a.
    fn view(mode: Mode) -> DeclareView {
        let hosts = |name: &str| BTreeMap::from([(host(name), facts(mode))]);
        DeclareView {
            sites: BTreeMap::from([(site("a"), hosts("a1")), (site("b"), hosts("b1"))]),
            voters: vec![
                Reporter { age: None, ..voter("a1", "a", &[]) },
                voter("b1", "b", &["a"]),
                voter("w1", "w", &["a"]),
            ],
            majority: 2,
            detection: Duration::from_millis(350),
            commit_p99: Duration::from_millis(50),
            frozen: BTreeSet::new(),
            braked: false,
        }
    }

    fn why_not(view: &DeclareView) -> WhyNot {
        let declaration = declare(view);
        assert!(declaration.now.is_empty(), "{declaration:?}");
        declaration.waiting[0].until.clone().expect_err("not corroborated")
    }

    #[test]
    fn a_site_that_both_other_domains_report_silent_is_declared_host_by_host() {
        let declaration = declare(&view(Mode::Eager));
        assert_eq!(declaration.now.len(), 1);
        assert_eq!(declaration.now[0].hosts, [(host("a1"), HostEpoch::in_era(Era(1), 1))]);
        assert_eq!(declaration.now[0].reports.len(), 2);
    }

    #[test]
    fn a_site_whose_own_voter_spoke_within_t_d_is_not_declared_yet() {
        let mut view = view(Mode::Eager);
        view.voters[0].age = Some(Duration::from_millis(349));
        let declaration = declare(&view);
        assert_eq!(declaration.now, []);
        assert_eq!(declaration.waiting[0].until, Err(WhyNot::StillHeardBy(host("a1"))));
        view.voters[0].age = Some(Duration::from_millis(351));
        assert_eq!(declare(&view).now.len(), 1);
    }

    #[test]
    fn a_site_that_the_witness_still_hears_is_a_link_fault() {
        let mut view = view(Mode::Eager);
        view.voters[2].sites.clear();
        assert_eq!(why_not(&view), WhyNot::StillHeardBy(host("w1")));
    }

    #[test]
    fn a_voter_that_abstains_counts_neither_for_nor_against() {
        let mut view = view(Mode::Eager);
        view.voters[2].abstains = true;
        assert_eq!(why_not(&view), WhyNot::TooFewReports { have: 1, need: 2 });
        view.voters[2].sites.clear();
        assert_eq!(why_not(&view), WhyNot::TooFewReports { have: 1, need: 2 });
    }

    #[test]
    fn a_stale_report_does_not_count() {
        let mut view = view(Mode::Eager);
        view.voters[1].age = Some(Duration::from_millis(351));
        assert_eq!(why_not(&view), WhyNot::TooFewReports { have: 1, need: 2 });
    }

    #[test]
    fn a_voter_of_the_site_that_still_speaks_and_hears_its_host_prevents_the_declaration() {
        let mut view = view(Mode::Eager);
        let second = facts(Mode::Eager);
        view.sites.get_mut(&site("a")).expect("site a").insert(host("a2"), second);
        view.voters[0] = voter("a2", "a", &[]);
        assert_eq!(why_not(&view), WhyNot::StillHeardBy(host("a2")));
    }

    #[test]
    fn two_reports_from_one_domain_are_not_enough() {
        let mut view = view(Mode::Eager);
        view.voters[2].site = site("b");
        assert_eq!(why_not(&view), WhyNot::OneDomain);
    }

    #[test]
    fn a_lazy_declaration_waits_until_just_before_the_lease_ends() {
        let declaration = declare(&view(Mode::Lazy));
        assert!(declaration.now.is_empty());
        // 3800 − 50 − 250 − 400 since the last grant.
        assert_eq!(declaration.waiting[0].until, Ok(Duration::from_millis(3_100)));
    }

    #[test]
    fn freeze_maintenance_and_brake_each_hold_it() {
        let mut frozen = view(Mode::Eager);
        frozen.frozen.insert(site("a"));
        assert_eq!(why_not(&frozen), WhyNot::Frozen);
        let mut kept = view(Mode::Eager);
        kept.sites.get_mut(&site("a")).and_then(|hosts| hosts.get_mut(&host("a1"))).expect("a1").in_maintenance = true;
        assert_eq!(why_not(&kept), WhyNot::Maintenance);
        let mut braked = view(Mode::Eager);
        braked.braked = true;
        assert_eq!(why_not(&braked), WhyNot::Braked);
    }

    /// Of two hosts at a, a1 is silent; `alone` is how it is declared while a2 is heard.
    fn one_of_two(alone: Mode) -> DeclareView {
        let mut view = view(Mode::Eager);
        let both = [host("a1"), host("a2")].map(|host| (host, HostFacts { alone, ..facts(Mode::Eager) }));
        view.sites.insert(site("a"), BTreeMap::from(both));
        for voter in &mut view.voters[1..] {
            voter.sites.clear();
            voter.hosts.insert(host("a1"));
        }
        view
    }

    #[test]
    fn a_single_silent_host_waits_to_see_whether_its_site_follows() {
        let declaration = declare(&one_of_two(Mode::Eager));
        assert!(declaration.now.is_empty(), "{declaration:?}");
        assert_eq!(declaration.waiting[0].until, Ok(Duration::from_millis(340)));
    }

    #[test]
    fn a_single_silent_host_whose_groups_wait_for_its_lease_has_until_then_to_come_back() {
        let mut view = one_of_two(Mode::Lazy);
        let of_a1 = |view: &mut DeclareView, since_grant| {
            let hosts = view.sites.get_mut(&site("a")).expect("site a");
            let a1 = hosts.get_mut(&host("a1")).expect("a1");
            (a1.since_grant, a1.silent_for) = (since_grant, since_grant);
        };
        of_a1(&mut view, Duration::from_millis(3_499));
        assert_eq!(declare(&view).waiting[0].until, Ok(Duration::from_millis(1)));
        of_a1(&mut view, Duration::from_millis(3_500));
        let declaration = declare(&view);
        assert_eq!(declaration.now[0].hosts, [(host("a1"), HostEpoch::in_era(Era(1), 1))]);
        assert!(!declaration.now[0].whole_site);
    }

    #[test]
    fn a_single_host_is_waited_for_no_longer_once_its_whole_site_is_silent() {
        let mut view = one_of_two(Mode::Lazy);
        for voter in &mut view.voters[1..] {
            voter.sites.insert(site("a"));
        }
        let declaration = declare(&view);
        assert!(declaration.now[0].whole_site && declaration.now[0].hosts.len() == 2, "{declaration:?}");
    }

    /// Each gate, left open by a planted fault, changes what is decided about a view that it is there for.
    #[cfg(feature = "mutants")]
    #[test]
    fn every_gate_left_open_is_noticed() {
        let mut heard = view(Mode::Eager);
        heard.voters[2].sites.clear();
        let mut few = view(Mode::Eager);
        few.voters[2].abstains = true;
        let mut one_domain = view(Mode::Eager);
        one_domain.voters[1] = voter("w2", "w", &["a"]);
        let cases = [
            ("policy.ignores_who_hears", heard),
            ("policy.minority_declares", few),
            ("policy.one_domain_declares", one_domain),
            ("policy.single_host_in_haste", one_of_two(Mode::Lazy)),
        ];
        for (fault, view) in cases {
            let before = declare(&view);
            let _planted = quorum::mutants::plant(fault);
            assert_ne!(declare(&view), before, "{fault}");
        }
    }
}

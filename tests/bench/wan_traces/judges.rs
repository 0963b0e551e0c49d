//! Who thinks what of the site, beat by beat: the product, an accrual detector, a fixed timeout.

use super::trace::{BEAT_NS, HOSTS, OBSERVERS};
use antipode::detector::{Detector, Health, Heard, Params};
use antipode::policy::{DeclareView, HostFacts, Mode, Reporter, declare};
use quorum::id::{AgentInstance, Era, HostEpoch, HostName, SiteName};
use quorum::moment::Moment;
use quorum::timing::{Measured, Timing};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

/// T_D of the product and the fixed timeout beside it.
const DETECTION: Duration = Duration::from_millis(350);
/// No detector can judge before this silence: the product's margin has a floor of 4Δ.
const QUIET_NS: u64 = 3 * BEAT_NS;
/// The least one-way delay.
const DELAY_NS: u64 = 20_000_000;
/// How often an open suspicion is looked at again, for lazy declaration.
const LOOK_NS: u64 = 50_000_000;
/// So many of a host's last beats are remembered: more than are sent while one is on its way.
const LEFT_MAX: usize = 64;
/// Standard deviations of the normal distribution at which φ reaches 8.
const PHI_8_SIGMA: f64 = 5.61;

/// How the product may be told to declare: a whole site, and a host whose neighbours are heard. "Eager" by the operator;
/// by a fence that is quicker than the lease; lazy.
const POLICIES: [(Mode, Mode); 3] = [(Mode::Eager, Mode::Lazy), (Mode::Eager, Mode::Eager), (Mode::Lazy, Mode::Lazy)];

/// What was counted.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    beats: u64,
    one_observer: u64,
    site: [Declared; POLICIES.len()],
    host: [Declared; POLICIES.len()],
    phi: Declared,
    fixed: Declared,
}

/// Declarations of one judge.
#[derive(Clone, Copy, Default)]
pub struct Declared {
    all: u64,
    unexplained: u64,
    /// Of the unexplained ones, those of a host that had really sent nothing for as long: its agent stood still.
    stalled: u64,
}

impl Declared {
    fn plus(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            unexplained: self.unexplained + other.unexplained,
            stalled: self.stalled + other.stalled,
        }
    }
}

impl Counts {
    /// Both together.
    pub fn plus(self, other: &Self) -> Self {
        let both = |one: [Declared; _], two: [Declared; _]| std::array::from_fn(|nth| one[nth].plus(two[nth]));
        Self {
            beats: self.beats + other.beats,
            one_observer: self.one_observer + other.one_observer,
            site: both(self.site, other.site),
            host: both(self.host, other.host),
            phi: self.phi.plus(other.phi),
            fixed: self.fixed.plus(other.fixed),
        }
    }

    /// The table.
    pub fn text(&self, days: u64) -> String {
        let mut text = format!(
            "{days} simulated days, {HOSTS} hosts, {OBSERVERS} observers, round trip 40 ms, Δ 50 ms, T_D {} ms, {:.0} M beats\n",
            DETECTION.as_millis(),
            self.beats as f64 / 1e6
        );
        let columns = ("all", "false (no blackout)", "of an agent that stood still");
        let _ = writeln!(text, "{:<58}{:>10}{:>22}{:>32}", "declarations", columns.0, columns.1, columns.2);
        let rows = [
            ("product, eager, whole site", self.site[0]),
            ("product, lazy (lease-only), whole site", self.site[2]),
            ("product, eager, single hosts", self.host[0]),
            ("product, lazy (lease-only), single hosts", self.host[2]),
            ("product, single hosts that a quick fence reaches", self.host[1]),
            ("accrual detector (normal, n 1000, φ 8), both observers", self.phi),
            ("fixed timeout of T_D, both observers", self.fixed),
        ];
        for (name, declared) in rows {
            let Declared { all, unexplained, stalled } = declared;
            let _ = writeln!(text, "{name:<58}{all:>10}{unexplained:>22}{stalled:>32}");
        }
        let _ = writeln!(text, "suspicions of the whole site at one observer only: {}", self.one_observer);
        text
    }
}

/// Mean and deviation of the last thousand gaps.
#[derive(Default)]
struct Gaps {
    gaps: VecDeque<f64>,
    sum: f64,
    squares: f64,
}

impl Gaps {
    fn add(&mut self, gap: f64) {
        self.gaps.push_back(gap);
        self.sum += gap;
        self.squares += gap * gap;
        if self.gaps.len() > 1_000 {
            let old = self.gaps.pop_front().unwrap_or_default();
            self.sum -= old;
            self.squares -= old * old;
        }
    }

    /// The silence at which φ reaches 8.
    fn limit(&self) -> f64 {
        if self.gaps.len() < 100 {
            return 1e9;
        }
        let n = self.gaps.len() as f64;
        let mean = self.sum / n;
        mean + PHI_8_SIGMA * (self.squares / n - mean * mean).max(0.0).sqrt()
    }
}

/// One observer's ears.
struct Observer {
    detector: Detector,
    last: [u64; HOSTS],
    /// When the last beat that arrived from each host was sent.
    sent: [u64; HOSTS],
    gaps: [Gaps; HOSTS],
    /// The last span in which the whole site was suspect to the accrual detector and to the fixed timeout.
    spans: [(u64, u64); 2],
    was_suspect: bool,
}

/// All judges on one trace.
pub struct Judges {
    /// What was counted so far.
    pub counts: Counts,
    hosts: [HostName; HOSTS],
    site: SiteName,
    observers: [Observer; OBSERVERS],
    /// Declared in the current suspicion, by each of [`POLICIES`].
    declared: [BTreeSet<HostName>; POLICIES.len()],
    looked_ns: u64,
    lease_wait: Duration,
    health: Health,
    /// When each host last sent, whatever became of it: what no judge can know.
    left: [VecDeque<u64>; HOSTS],
}

impl Judges {
    /// Nobody heard yet.
    pub fn new() -> Self {
        let beat = Duration::from_nanos(BEAT_NS);
        let hosts = ["a1", "a2", "a3"].map(|name| HostName::new(name).expect("a name"));
        let site = SiteName::new("a").expect("a name");
        let roster: BTreeMap<HostName, SiteName> = hosts.iter().map(|host| (host.clone(), site.clone())).collect();
        let observer = || {
            let params = Params { beat, detection: DETECTION, delay: Duration::from_millis(20) };
            let mut detector = Detector::new(params);
            detector.roster(Moment::from_ns(0), &roster, |_| true);
            let gaps = [Gaps::default(), Gaps::default(), Gaps::default()];
            Observer { detector, last: [0; HOSTS], sent: [0; HOSTS], gaps, spans: [(0, 0); 2], was_suspect: false }
        };
        let timing = Timing::derive(Measured::new(Duration::from_millis(1_100), Duration::from_millis(40)));
        Self {
            counts: Counts::default(),
            observers: [observer(), observer()],
            hosts,
            site,
            declared: Default::default(),
            looked_ns: 0,
            lease_wait: timing.voter_wait(),
            health: Health::new(beat),
            left: Default::default(),
        }
    }

    /// A host sends a beat, which need not arrive.
    pub fn left(&mut self, host: usize, at: u64) {
        let left = &mut self.left[host];
        if left.len() == LEFT_MAX {
            left.pop_front();
        }
        left.push_back(at);
    }

    /// A beat arrived; everything between the last arrival and this one is judged first.
    pub fn heard(&mut self, (observer, host): (usize, usize), (number, sent): (u64, u64), at: u64) {
        self.counts.beats += 1;
        self.look_until(at);
        self.rivals((observer, host), at);
        let ears = &mut self.observers[observer];
        if ears.last[host] != 0 {
            ears.gaps[host].add((at - ears.last[host]) as f64);
        }
        ears.last[host] = at;
        ears.sent[host] = ears.sent[host].max(sent);
        let heard = Heard { path: 0, agent: AgentInstance([1; 16]), seq: number, at: Moment::from_ns(at) };
        ears.detector.heard(&self.hosts[host], heard);
        if ears.was_suspect {
            self.judge(at);
        }
    }

    /// The product, wherever its judgement can have changed before `at`.
    fn look_until(&mut self, at: u64) {
        let oldest = self.observers.iter().flat_map(|ears| ears.last).min().unwrap_or_default();
        let any_suspect = self.observers.iter().any(|ears| ears.was_suspect);
        if at < oldest + QUIET_NS && !any_suspect {
            return;
        }
        loop {
            let due = self.observers.iter().filter_map(|ears| ears.detector.deadline()).map(|at| at.boot_ns).min();
            let look = if any_suspect { self.looked_ns + LOOK_NS } else { u64::MAX };
            let next = due.unwrap_or(u64::MAX).min(look).max(self.looked_ns + 1);
            if next > at {
                return;
            }
            self.judge(next);
        }
    }

    fn judge(&mut self, at: u64) {
        self.looked_ns = at;
        let now = Moment::from_ns(at);
        let mut alone = 0;
        for ears in &mut self.observers {
            let _changes = ears.detector.judge(now, &self.health);
            let (sites, hosts) = ears.detector.suspects();
            let began = !sites.is_empty() && !ears.was_suspect;
            ears.was_suspect = !sites.is_empty() || !hosts.is_empty();
            alone += u64::from(began);
        }
        self.counts.one_observer += alone;
        for (nth, modes) in POLICIES.into_iter().enumerate() {
            let declaration = declare(&self.view(modes, at));
            let lost: BTreeSet<HostName> =
                declaration.now.iter().flat_map(|now| now.hosts.iter().map(|(host, _)| host.clone())).collect();
            let fresh: Vec<HostName> = lost.difference(&self.declared[nth]).cloned().collect();
            self.count(nth, &fresh, at);
            self.declared[nth].extend(fresh);
            // Whoever is trusted again at both may be declared anew: in the product it would be admitted first.
            let trusted = |host: &HostName| {
                self.observers.iter().all(|ears| {
                    let (sites, hosts) = ears.detector.suspects();
                    sites.is_empty() && !hosts.contains(host)
                })
            };
            self.declared[nth] = self.declared[nth].iter().filter(|host| !trusted(host)).cloned().collect();
        }
    }

    fn count(&mut self, nth: usize, fresh: &[HostName], at: u64) {
        let least = DETECTION - Duration::from_nanos(BEAT_NS);
        let explained = self.blackout(at) >= least;
        let counted = |stood_still: bool| {
            let stalled = u64::from(!explained && stood_still);
            Declared { all: 1, unexplained: u64::from(!explained), stalled }
        };
        let quiet = |host: &HostName| self.hosts.iter().position(|of| of == host).map(|host| self.quiet(host, at));
        let stood_still = |host: &HostName| quiet(host).is_some_and(|quiet| quiet >= least);
        if fresh.len() == HOSTS {
            let declared = counted(fresh.iter().all(stood_still));
            self.counts.site[nth] = self.counts.site[nth].plus(declared);
        } else {
            let declared: Vec<_> = fresh.iter().map(|host| counted(stood_still(host))).collect();
            self.counts.host[nth] = declared.into_iter().fold(self.counts.host[nth], Declared::plus);
        }
    }

    /// For how long a host has sent nothing, as far as somebody one way off can know.
    fn quiet(&self, host: usize, at: u64) -> Duration {
        let known = at.saturating_sub(DELAY_NS);
        let last = self.left[host].iter().rev().find(|left| **left <= known).copied().unwrap_or_default();
        Duration::from_nanos(known - last)
    }

    /// For how long nothing that any host of the site sent has arrived anywhere, by the time of sending.
    fn blackout(&self, at: u64) -> Duration {
        let last_sent = self.observers.iter().flat_map(|ears| ears.sent).max().unwrap_or_default();
        // What was sent within the last one-way delay is still under way and says nothing.
        Duration::from_nanos(at.saturating_sub(last_sent).saturating_sub(DELAY_NS))
    }

    fn view(&self, (mode, alone): (Mode, Mode), at: u64) -> DeclareView {
        let facts = |nth: usize| {
            let last = self.observers.iter().map(|ears| ears.last[nth]).max().unwrap_or_default();
            let since = Duration::from_nanos(at.saturating_sub(last));
            HostFacts {
                host_epoch: HostEpoch::in_era(Era(1), 1),
                in_maintenance: false,
                hold_off: Duration::ZERO,
                mode,
                alone,
                since_grant: since,
                lease_wait: self.lease_wait,
                silent_for: since,
            }
        };
        let hosts = self.hosts.iter().enumerate().map(|(nth, host)| (host.clone(), facts(nth))).collect();
        let voter = |name: &str, ears: Option<&Observer>| {
            let (sites, hosts) = ears.map(|ears| ears.detector.suspects()).unwrap_or_default();
            Reporter {
                host: HostName::new(&format!("{name}1")).expect("a name"),
                site: SiteName::new(name).expect("a name"),
                age: ears.map(|_| Duration::from_millis(25)),
                abstains: false,
                sites: sites.into_iter().collect(),
                hosts: hosts.into_iter().collect(),
            }
        };
        DeclareView {
            sites: BTreeMap::from([(self.site.clone(), hosts)]),
            // The site's own voter has made no progress with anybody.
            voters: vec![voter("a", None), voter("b", Some(&self.observers[0])), voter("w", Some(&self.observers[1]))],
            majority: 2,
            detection: DETECTION,
            commit_p99: Duration::from_millis(60),
            frozen: BTreeSet::new(),
            braked: false,
        }
    }

    /// Spans in which the whole site was suspect to the two other detectors end with any arrival.
    fn rivals(&mut self, (observer, _): (usize, usize), at: u64) {
        let fixed_ns = DETECTION.as_nanos() as u64;
        let ears = &self.observers[observer];
        let newest = ears.last.iter().max().copied().unwrap_or_default();
        if at < newest + BEAT_NS / 2 || ears.last.contains(&0) {
            return;
        }
        let after = |limit: &dyn Fn(usize) -> u64| (0..HOSTS).map(|host| ears.last[host] + limit(host)).max();
        let begins = [after(&|host| ears.gaps[host].limit() as u64), after(&|_| fixed_ns)];
        for (nth, begin) in begins.into_iter().enumerate() {
            let Some(begin) = begin.filter(|begin| *begin < at) else { continue };
            let (from, until) = self.observers[1 - observer].spans[nth];
            // The other observer may still be in the middle of its own span: it is met when that one ends.
            let both_from = from.max(begin);
            let met = both_from < until.min(at);
            self.observers[observer].spans[nth] = (begin, at);
            if met {
                let explained = self.blackout(both_from) >= DETECTION - Duration::from_nanos(BEAT_NS);
                let declared = Declared { all: 1, unexplained: u64::from(!explained), stalled: 0 };
                let of = if nth == 0 { &mut self.counts.phi } else { &mut self.counts.fixed };
                *of = of.plus(declared);
            }
        }
    }
}

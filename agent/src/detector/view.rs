//! One observer's view of all peers: who is trusted, who is suspect, since when.

use super::arrivals::Arrivals;
use super::health::Health;
use quorum::id::{AgentInstance, HostName, SiteName};
use quorum::moment::Moment;
use quorum::mutants;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Fresh beats in a row after which a suspect is trusted again.
const TRUST_AFTER: u32 = 3;
/// Longest T_D to which lateness, refuted suspicions and sickness may stretch a path's margin.
const DETECTION_MAX: Duration = Duration::from_secs(1);
/// One refuted suspicion is forgiven each time this passes without another. A day, as the lateness of a path is that of the
/// last day: after an hour, single hosts of the generated WAN traces are wrongly declared twice as often.
const REFUTED_FADES: Duration = Duration::from_secs(86_400);
/// How long a peer that was never heard is awaited: agents need to start and to shake hands.
const AWAITED: Duration = Duration::from_secs(3);

/// What the detector is tuned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Δ: the peers' beat interval.
    pub beat: Duration,
    /// T_D: from the last beat sent to suspicion.
    pub detection: Duration,
    /// Largest one-way delay expected.
    pub delay: Duration,
}

impl Params {
    /// α by configuration, never below the floor of protocol §4.
    fn margin(&self) -> Duration {
        let configured = self.detection.saturating_sub(self.beat).saturating_sub(self.delay);
        configured.max(self.beat * 4).max(Duration::from_millis(60))
    }
}

/// What this observer holds of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Registered and not heard yet, within the grace.
    Awaited,
    /// Heard on at least one path.
    Trusted,
    /// Silent on all paths, or deaf to this observer.
    Suspect {
        /// When the silence outgrew the expectation, or the deafness was believed.
        since: Moment,
        /// It is heard, and says that it doesn't hear this observer: its lease can't be renewed from here.
        deaf: bool,
    },
}

/// A beat as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Which path.
    pub path: u8,
    /// The sender's agent process: another one starts its sequence anew.
    pub agent: AgentInstance,
    /// Its sequence number.
    pub seq: u64,
    /// When the kernel received it.
    pub at: Moment,
}

/// A judgement that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// About whom.
    pub peer: HostName,
    /// Now trusted or suspect.
    pub judgement: Judgement,
    /// Why, for people.
    pub because: String,
}

#[derive(Clone, Debug)]
struct Peer {
    site: SiteName,
    /// It speaks to this observer: only then does its silence say something.
    is_expected: bool,
    agent: Option<AgentInstance>,
    /// Outside of the map, which keeps room for eleven paths.
    paths: BTreeMap<u8, Box<Arrivals>>,
    judgement: Judgement,
    registered: Moment,
    /// Refuted suspicions, fading; each widens the margin by a quarter.
    refuted: u32,
    /// When one was refuted or forgiven last.
    refuted_at: Moment,
    /// The life of the agent in which it became suspect. One that comes back in another life was rightly suspected.
    suspected: Option<AgentInstance>,
    /// Since when each of its beats says that it doesn't hear this observer.
    deaf_since: Option<Moment>,
    /// Its agent has heard this observer in its life.
    was_echoed: bool,
    /// What stands for it in [`Detector::due`].
    due: Option<Moment>,
}

/// The view.
#[derive(Clone, Debug)]
pub struct Detector {
    params: Params,
    peers: BTreeMap<HostName, Peer>,
    /// When each peer that isn't suspect would be, by an observer in full health. A voter hears a thousand of them, and
    /// judges after each beat: only those whose time has come, and those of whom something is new.
    due: BTreeSet<(Moment, HostName)>,
    /// Of whom something is new.
    touched: BTreeSet<HostName>,
    /// Who is suspect.
    suspect: BTreeSet<HostName>,
    /// Everybody is to be judged: the tuning or the roster changed.
    all: bool,
    /// The sickness of the last judgement.
    stretch: u32,
}

impl Detector {
    /// Knows nobody yet.
    pub fn new(params: Params) -> Self {
        let (peers, due) = (BTreeMap::new(), BTreeSet::new());
        Self { params, peers, due, touched: BTreeSet::new(), suspect: BTreeSet::new(), all: true, stretch: 0 }
    }

    /// Takes the roster: new peers are awaited, missing ones forgotten. Who isn't expected to speak to this observer is
    /// heard all the same, and never suspect.
    pub fn roster(
        &mut self,
        now: Moment,
        hosts: &BTreeMap<HostName, SiteName>,
        is_expected: impl Fn(&HostName) -> bool,
    ) {
        self.all = true;
        self.peers.retain(|name, _| hosts.contains_key(name));
        self.due.retain(|(_, name)| hosts.contains_key(name));
        for (name, site) in hosts {
            let is_expected = is_expected(name);
            let peer = self.peers.entry(name.clone()).or_insert_with(|| Peer {
                site: site.clone(),
                is_expected,
                agent: None,
                paths: BTreeMap::new(),
                judgement: Judgement::Awaited,
                registered: now,
                refuted: 0,
                refuted_at: now,
                suspected: None,
                deaf_since: None,
                was_echoed: false,
                due: None,
            });
            peer.site.clone_from(site);
            if is_expected != peer.is_expected {
                (peer.is_expected, peer.registered) = (is_expected, now);
                (peer.judgement, peer.deaf_since) = (Judgement::Awaited, None);
                peer.paths.clear();
            }
        }
        let is_suspect = |name: &HostName| self.peers.get(name).is_some_and(Peer::is_suspect);
        self.suspect.retain(is_suspect);
    }

    /// Changes the tuning; what was heard stays.
    pub fn tune(&mut self, params: Params) {
        self.params = params;
        self.all = true;
    }

    /// Takes a beat. Returns false if it was stale, replayed or from a stranger.
    pub fn heard(&mut self, from: &HostName, heard: Heard) -> bool {
        let every = self.params.beat;
        let Some(peer) = self.peers.get_mut(from) else { return false };
        self.touched.insert(from.clone());
        if peer.agent != Some(heard.agent) {
            peer.agent = Some(heard.agent);
            peer.paths.clear();
            (peer.deaf_since, peer.was_echoed) = (None, false);
        }
        peer.forgive(heard.at);
        peer.paths.entry(heard.path).or_insert_with(|| Box::new(Arrivals::new(every))).heard(heard.seq, heard.at)
    }

    /// Takes what a peer's newest beat says of how long ago it heard this observer; `None`: never in its agent's life.
    /// One beat alone proves nothing: a peer that was paused says so too, before it has read what waits for it.
    pub fn echoed(&mut self, from: &HostName, age: Option<Duration>, at: Moment) {
        let limit = self.params.detection;
        let Some(peer) = self.peers.get_mut(from) else { return };
        self.touched.insert(from.clone());
        peer.was_echoed |= age.is_some();
        if age.is_some_and(|age| age <= limit) || mutants::on("detector.ignores_deafness") {
            peer.deaf_since = None;
        } else {
            peer.deaf_since.get_or_insert(at);
        }
    }

    /// Judges every peer at `now`. The caller has handed in everything that the kernel had received before.
    pub fn judge(&mut self, now: Moment, health: &Health) -> Vec<Change> {
        let params = self.params;
        let stretch = u32::from(health.sickness());
        let mut changes = Vec::new();
        for name in self.whom_to_judge(now, stretch) {
            let Some(peer) = self.peers.get_mut(&name) else { continue };
            let before = peer.judgement;
            peer.judge(now, params, stretch);
            if std::mem::discriminant(&before) != std::mem::discriminant(&peer.judgement) {
                changes.push(Change { peer: name.clone(), judgement: peer.judgement, because: peer.because(now) });
                match peer.is_suspect() {
                    true => self.suspect.insert(name.clone()),
                    false => self.suspect.remove(&name),
                };
            }
            let due = peer.suspect_at(params, 0);
            let before = std::mem::replace(&mut peer.due, due);
            if before != due {
                if let Some(at) = before {
                    self.due.remove(&(at, name.clone()));
                }
                if let Some(at) = due {
                    self.due.insert((at, name));
                }
            }
        }
        changes
    }

    /// Nobody else's judgement can have changed since the last one: sickness only puts off when a peer becomes suspect,
    /// and one that is suspect is trusted again by what it says.
    fn whom_to_judge(&mut self, now: Moment, stretch: u32) -> BTreeSet<HostName> {
        let mut names = std::mem::take(&mut self.touched);
        if std::mem::take(&mut self.all) || stretch != self.stretch {
            names.extend(self.peers.keys().cloned());
        } else {
            // Both clocks must say so, so none that either order of them would put further back is missed.
            let is_due = |(at, _): &&(Moment, HostName)| at.boot_ns <= now.boot_ns;
            names.extend(self.due.iter().take_while(is_due).map(|(_, name)| name.clone()));
        }
        self.stretch = stretch;
        names
    }

    /// When the next peer would become suspect if nothing more is heard.
    pub fn deadline(&self) -> Option<Moment> {
        if self.all || !self.touched.is_empty() {
            return self.peers.values().filter_map(|peer| peer.suspect_at(self.params, 0)).min();
        }
        self.due.first().map(|(at, _)| *at)
    }

    /// What this observer holds of `peer`; `None` for a stranger.
    pub fn judgement(&self, peer: &HostName) -> Option<Judgement> {
        self.peers.get(peer).map(|peer| peer.judgement)
    }

    /// When `peer` was last heard on any path, and with which sequence number.
    pub fn last_heard(&self, peer: &HostName) -> Option<(u64, Moment)> {
        self.peers.get(peer)?.paths.values().filter_map(|path| path.last()).max_by_key(|(_, at)| *at)
    }

    /// Paths of `peer` on which beats arrive now, and how many it has been heard on at all.
    pub fn paths(&self, peer: &HostName, now: Moment) -> (usize, usize) {
        let Some(peer) = self.peers.get(peer) else { return (0, 0) };
        let margin = self.params.margin();
        let live = |path: &Arrivals| path.expected().is_some_and(|at| !now.either_reached(at.plus(margin)));
        (peer.paths.values().filter(|path| live(path)).count(), peer.paths.len())
    }

    /// Beats of `peer` that were sent and never came, over all paths.
    pub fn lost(&self, peer: &HostName) -> u64 {
        self.peers.get(peer).map_or(0, |peer| peer.paths.values().map(|path| path.lost()).sum())
    }

    /// Suspect sites (all of whose hosts are suspect here) and suspect hosts of other sites.
    pub fn suspects(&self) -> (Vec<SiteName>, Vec<HostName>) {
        if self.suspect.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let mut silent: BTreeMap<&SiteName, bool> = BTreeMap::new();
        for peer in self.peers.values() {
            let all = silent.entry(&peer.site).or_insert(true);
            *all &= peer.is_suspect();
        }
        let is_of_another = |host: &&HostName| self.peers.get(*host).is_some_and(|peer| !silent[&peer.site]);
        let hosts = self.suspect.iter().filter(is_of_another).cloned().collect();
        (silent.iter().filter(|(_, all)| **all).map(|(site, _)| (*site).clone()).collect(), hosts)
    }

    /// Whether anybody is suspect.
    pub fn suspects_anybody(&self) -> bool {
        !self.suspect.is_empty()
    }

    /// Whether `peer` speaks to this observer, so that its silence would say something.
    pub fn expects(&self, peer: &HostName) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.is_expected)
    }
}

impl Peer {
    fn is_suspect(&self) -> bool {
        matches!(self.judgement, Judgement::Suspect { .. })
    }

    /// Margin of one path: the configured one, widened by what the path has shown and by the observer's sickness.
    fn margin(&self, path: &Arrivals, params: Params, stretch: u32) -> Duration {
        let seen = path.far_lateness().map_or(Duration::ZERO, |late| late * 3 / 2);
        let base = params.margin().max(seen);
        let widened = base + base / 4 * self.refuted.min(8) + params.detection * stretch;
        let most = DETECTION_MAX.max(params.detection).saturating_sub(params.beat + params.delay);
        widened.min(most.max(params.margin()) + params.detection * stretch)
    }

    /// When what it says of its own hearing is believed: a peer that has just begun needs to shake hands first.
    fn deaf_at(&self, params: Params) -> Option<Moment> {
        let since = self.deaf_since?;
        let grace = if self.was_echoed { params.detection } else { AWAITED };
        Some(since.plus(grace))
    }

    fn suspect_at(&self, params: Params, stretch: u32) -> Option<Moment> {
        if self.is_suspect() {
            return None;
        }
        let silent_at = self.silent_at(params, stretch);
        [silent_at, self.deaf_at(params)].into_iter().flatten().min()
    }

    /// When the silence on all its paths outgrows what was expected.
    fn silent_at(&self, params: Params, stretch: u32) -> Option<Moment> {
        if !self.is_expected {
            return None;
        }
        if self.paths.is_empty() {
            return Some(self.registered.plus(AWAITED));
        }
        let silent_at = |path: &Arrivals| path.expected().map(|at| at.plus(self.margin(path, params, stretch)));
        self.paths.values().filter_map(|path| silent_at(path)).max()
    }

    /// Forgets a refuted suspicion that is long ago.
    fn forgive(&mut self, now: Moment) {
        if self.refuted > 0 && now.waited_since(self.refuted_at) >= REFUTED_FADES {
            (self.refuted, self.refuted_at) = (self.refuted - 1, now);
        }
    }

    fn judge(&mut self, now: Moment, params: Params, stretch: u32) {
        match self.judgement {
            Judgement::Suspect { .. } => {
                let fresh = |path: &Arrivals| {
                    let silent_at = path.expected().map(|at| at.plus(self.margin(path, params, stretch)));
                    path.fresh_in_a_row() >= TRUST_AFTER && silent_at.is_some_and(|at| !now.either_reached(at))
                };
                if self.deaf_since.is_none() && self.paths.values().any(|path| fresh(path)) {
                    self.judgement = Judgement::Trusted;
                    if self.suspected == self.agent || mutants::on("detector.the_dead_refute") {
                        (self.refuted, self.refuted_at) = ((self.refuted + 1).min(8), now);
                    }
                }
            }
            Judgement::Awaited | Judgement::Trusted => {
                // The waiter's clock: a host is called silent only when both clocks say so.
                let is_over = |at: Option<Moment>| at.is_some_and(|at| now.both_reached(at));
                let is_silent = is_over(self.silent_at(params, stretch));
                if is_silent || is_over(self.deaf_at(params)) {
                    self.suspected = self.agent;
                }
                if is_silent {
                    self.judgement = Judgement::Suspect { since: now, deaf: false };
                    self.paths.values_mut().for_each(|path| path.silenced());
                } else if is_over(self.deaf_at(params)) {
                    self.judgement = Judgement::Suspect { since: now, deaf: true };
                } else if !self.paths.is_empty() {
                    self.judgement = Judgement::Trusted;
                }
            }
        }
    }

    fn because(&self, now: Moment) -> String {
        let last = self.paths.values().filter_map(|path| path.last()).map(|(_, at)| at).max();
        match (self.judgement, last) {
            (Judgement::Suspect { deaf: true, .. }, _) => {
                let span = self.deaf_since.map(|since| now.held_since(since)).unwrap_or_default();
                format!("its beats arrive and say, for {} ms now, that it doesn't hear this host", span.as_millis())
            }
            (Judgement::Suspect { .. }, Some(at)) => {
                format!("silent for {} ms on all paths", now.held_since(at).as_millis())
            }
            (Judgement::Suspect { .. }, None) => "never heard since this agent started".to_owned(),
            (Judgement::Trusted | Judgement::Awaited, _) => "beats arrive".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: Params = Params {
        beat: Duration::from_millis(50),
        detection: Duration::from_millis(350),
        delay: Duration::from_millis(20),
    };

    fn ms(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    fn host(name: &str) -> HostName {
        HostName::new(name).expect("a name")
    }

    fn detector() -> Detector {
        let mut detector = Detector::new(PARAMS);
        let site = |name: &str| SiteName::new(name).expect("a name");
        let roster = [("a1", "a"), ("a2", "a"), ("b1", "b")].map(|(h, s)| (host(h), site(s))).into();
        detector.roster(ms(0), &roster, |_| true);
        detector
    }

    fn beat(detector: &mut Detector, from: &str, seq: u64, at: u64) {
        let heard = Heard { path: 0, agent: AgentInstance([1; 16]), seq, at: ms(at) };
        detector.heard(&host(from), heard);
    }

    #[test]
    fn who_is_not_expected_to_speak_is_never_suspect_and_awaited_from_when_it_is() {
        let mut detector = Detector::new(PARAMS);
        let roster = [("a1", "a"), ("b1", "b")].map(|(name, site)| (host(name), SiteName::new(site).expect("a name")));
        let roster = roster.into();
        let expect = |detector: &mut Detector, at: u64, names: &'static [&str]| {
            detector.roster(ms(at), &roster, |host| names.contains(&host.as_str()));
        };
        let health = Health::new(PARAMS.beat);
        let suspects = |detector: &mut Detector, at: u64| {
            detector.judge(ms(at), &health);
            assert_eq!(detector.suspects_anybody(), !detector.suspects().0.is_empty());
            detector.suspects().0.into_iter().map(|site| site.to_string()).collect::<Vec<_>>()
        };
        expect(&mut detector, 0, &["a1"]);
        assert!(detector.expects(&host("a1")) && !detector.expects(&host("b1")));
        assert_eq!(suspects(&mut detector, 60_000), ["a"], "b1 owes it nothing");
        beat(&mut detector, "b1", 1, 60_000);
        assert_eq!(detector.last_heard(&host("b1")), Some((1, ms(60_000))), "it is heard all the same");
        assert_eq!(suspects(&mut detector, 120_000), ["a"]);
        expect(&mut detector, 120_000, &["a1", "b1"]);
        assert_eq!(suspects(&mut detector, 122_999), ["a"], "it may take its time to begin");
        assert_eq!(suspects(&mut detector, 123_000), ["a", "b"]);
        expect(&mut detector, 130_000, &["b1"]);
        assert_eq!(suspects(&mut detector, 200_000), ["b"], "nothing is held against who owes nothing any more");
    }

    #[test]
    fn a_peer_is_suspect_one_detection_time_after_its_last_beat_left() {
        let mut detector = detector();
        for seq in 1..=40 {
            // Sent at seq·50, 20 ms under way.
            beat(&mut detector, "a1", seq, seq * 50 + 20);
        }
        let health = Health::new(PARAMS.beat);
        detector.judge(ms(2_020), &health);
        assert_eq!(detector.deadline().map(|at| at.boot_ns / 1_000_000), Some(2_000 + 350));
        assert!(detector.judge(ms(2_349), &health).is_empty());
        let changes = detector.judge(ms(2_350), &health);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].because, "silent for 330 ms on all paths");
    }

    #[test]
    fn three_fresh_beats_refute_a_suspicion_and_widen_the_margin() {
        let mut detector = detector();
        let health = Health::new(PARAMS.beat);
        beat(&mut detector, "a1", 1, 1_000);
        detector.judge(ms(1_001), &health);
        detector.judge(ms(2_000), &health);
        assert!(matches!(detector.judgement(&host("a1")), Some(Judgement::Suspect { .. })));
        for seq in 21..=23 {
            assert!(matches!(detector.judgement(&host("a1")), Some(Judgement::Suspect { .. })));
            beat(&mut detector, "a1", seq, 1_000 + seq * 50);
            detector.judge(ms(1_001 + seq * 50), &health);
        }
        assert_eq!(detector.judgement(&host("a1")), Some(Judgement::Trusted));
        assert!(detector.deadline().expect("a trusted peer") > ms(1_000 + 23 * 50 + 50 + 280));
    }

    /// A detector whose a1 fell silent at 1 s, and then spoke from `at` on in the life `agent`, each of its beats judged.
    fn spoke_again(agent: u8, at: u64) -> Detector {
        let mut detector = detector();
        let health = Health::new(PARAMS.beat);
        beat(&mut detector, "a1", 20, 1_000);
        detector.judge(ms(1_001), &health);
        detector.judge(ms(2_000), &health);
        for at in (at..=at + 150).step_by(50) {
            let heard = Heard { path: 0, agent: AgentInstance([agent; 16]), seq: at / 50, at: ms(at) };
            detector.heard(&host("a1"), heard);
            detector.judge(heard.at, &health);
        }
        assert_eq!(detector.judgement(&host("a1")), Some(Judgement::Trusted));
        detector
    }

    /// How long after its last beat a1 would be suspect.
    fn patience(detector: &Detector) -> u64 {
        let (_, last) = detector.last_heard(&host("a1")).expect("it was heard");
        (detector.peers[&host("a1")].suspect_at(PARAMS, 0).expect("it is trusted").boot_ns - last.boot_ns) / 1_000_000
    }

    #[test]
    fn who_comes_back_in_another_life_refutes_nothing() {
        // The first life was silent because it was dead.
        assert_eq!(patience(&spoke_again(2, 2_100)), 50 + 280);
        assert_eq!(patience(&spoke_again(1, 2_100)), 50 + 280 + 70);
    }

    #[test]
    fn a_refuted_suspicion_is_forgiven_after_a_day() {
        let mut detector = spoke_again(1, 2_100);
        let day = 86_400_000;
        beat(&mut detector, "a1", 43 + day / 50, 2_150 + day);
        assert_eq!(detector.peers[&host("a1")].refuted, 1);
        beat(&mut detector, "a1", 46 + day / 50, 2_300 + day);
        assert_eq!(detector.peers[&host("a1")].refuted, 0);
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_death_that_counts_as_refuted_is_noticed() {
        let _planted = quorum::mutants::plant("detector.the_dead_refute");
        assert_ne!(patience(&spoke_again(2, 2_100)), 50 + 280);
    }

    #[test]
    fn a_site_is_suspect_when_all_its_hosts_are() {
        let mut detector = detector();
        let health = Health::new(PARAMS.beat);
        for at in [3_000u64, 3_050, 3_100] {
            for peer in ["a1", "a2", "b1"] {
                beat(&mut detector, peer, at / 50, at);
            }
        }
        for at in (3_150..4_000).step_by(50) {
            beat(&mut detector, "a2", at / 50, at);
            beat(&mut detector, "b1", at / 50, at);
            detector.judge(ms(at), &health);
        }
        assert_eq!(detector.suspects(), (vec![], vec![host("a1")]));
        for at in (4_000..5_000).step_by(50) {
            beat(&mut detector, "b1", at / 50, at);
            detector.judge(ms(at), &health);
        }
        assert_eq!(detector.suspects(), (vec![SiteName::new("a").expect("a name")], vec![]));
    }

    #[test]
    fn a_peer_that_was_never_heard_is_awaited_before_it_is_suspect() {
        let mut detector = detector();
        let health = Health::new(PARAMS.beat);
        assert!(detector.judge(ms(2_900), &health).is_empty());
        assert_eq!(detector.judge(ms(3_000), &health).len(), 3);
    }

    /// a1 speaks every 50 ms until `until`, and hears us up to `deaf_from`.
    fn one_way(deaf_from: u64, until: u64) -> Detector {
        let mut detector = detector();
        let health = Health::new(PARAMS.beat);
        for at in (1_000..until).step_by(50) {
            beat(&mut detector, "a1", at / 50, at);
            let age = at.saturating_sub(deaf_from);
            detector.echoed(&host("a1"), Some(Duration::from_millis(age)), ms(at));
            detector.judge(ms(at), &health);
        }
        detector
    }

    fn is_deaf(detector: &Detector) -> bool {
        matches!(detector.judgement(&host("a1")), Some(Judgement::Suspect { deaf: true, .. }))
    }

    #[test]
    fn a_peer_that_is_heard_and_hears_nothing_is_suspect() {
        // Deaf from 2 s: its echo is too old at 2.4 s, and is believed one detection time later.
        assert!(!is_deaf(&one_way(2_000, 2_750)));
        assert!(is_deaf(&one_way(2_000, 2_801)));
        let mut detector = one_way(2_000, 2_801);
        detector.echoed(&host("a1"), Some(Duration::ZERO), ms(2_850));
        beat(&mut detector, "a1", 57, 2_850);
        detector.judge(ms(2_850), &Health::new(PARAMS.beat));
        assert_eq!(detector.judgement(&host("a1")), Some(Judgement::Trusted));
    }

    #[test]
    fn one_beat_of_a_peer_that_was_paused_says_nothing_of_its_hearing() {
        let mut detector = one_way(u64::MAX, 2_000);
        detector.echoed(&host("a1"), Some(Duration::from_secs(2)), ms(2_000));
        detector.echoed(&host("a1"), Some(Duration::ZERO), ms(2_050));
        beat(&mut detector, "a1", 60, 3_000);
        detector.judge(ms(3_000), &Health::new(PARAMS.beat));
        assert!(!is_deaf(&detector));
    }

    #[test]
    fn judging_only_whom_it_concerns_says_what_judging_everybody_says() {
        let (mut some, mut all) = (detector(), detector());
        let mut chance = 7_u64;
        let mut draw = |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % below
        };
        let (mut healthy, mut at, mut changed) = (Health::new(PARAMS.beat), 0, 0);
        for step in 1..20_000_u64 {
            at += draw(20);
            let peer = ["a1", "a2", "b1"][draw(3) as usize];
            // Now and then one falls silent for a while, is deaf, or the observer is late.
            let is_away = (at / 1_500) % 3 == ["a1", "a2", "b1"].iter().position(|p| *p == peer).unwrap_or(0) as u64;
            if draw(200) == 0 {
                healthy.woke_late(ms(at), Duration::from_millis(draw(400)));
            }
            healthy.woke_late(ms(at), Duration::ZERO);
            let tells_hearing = draw(3) == 0;
            for detector in [&mut some, &mut all] {
                if !is_away {
                    beat(detector, peer, step, at);
                }
                if !is_away && tells_hearing {
                    detector.echoed(&host(peer), Some(Duration::from_millis((at / 700) % 2 * 400)), ms(at));
                }
            }
            all.all = true;
            let (seen, whole) = (some.judge(ms(at), &healthy), all.judge(ms(at), &healthy));
            assert_eq!(seen, whole, "at {at} ms");
            assert_eq!(some.deadline(), all.peers.values().filter_map(|peer| peer.suspect_at(PARAMS, 0)).min());
            changed += seen.len();
        }
        assert!(changed > 100, "only {changed} judgements changed");
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn an_observer_that_ignores_deafness_is_noticed() {
        let _planted = quorum::mutants::plant("detector.ignores_deafness");
        assert!(!is_deaf(&one_way(2_000, 2_801)));
    }
}

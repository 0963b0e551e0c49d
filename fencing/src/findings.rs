//! What is weaker than people may think: devices that die with their target, proofs that grew old, hosts that nothing
//! could prove harmless. Shown by `fence status` and `doctor` before the disaster.

use crate::evidence::{EvidenceKind, NotEnough, foresee};
use crate::facts::{Binding, DeviceFacts};
use crate::moment::Moment;
use crate::name::{DeviceName, HostName};
use crate::reading::Observed;
use crate::silence::{Contact, correlate, domains};
use crate::target::Target;
use crate::topology::{Fenced, Level, Topology, probe_order};
use crate::trouble::Trouble;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the schedule of readings knows about one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProofRecord {
    /// When it was last read well: login, identity and state. `None`: not since the executor started.
    pub proven_at: Option<Moment>,
    /// How old the last good reading of an earlier executor process was when this one started.
    pub inherited_age: Option<Duration>,
    /// How long that reading took.
    pub latency: Option<Duration>,
    /// What that reading showed.
    pub observed: Option<Observed>,
    /// What went wrong the last time, if it did.
    pub trouble: Option<Trouble>,
    /// Since when nothing at all was heard.
    pub silent_since: Option<Moment>,
    /// Attempts that failed since the last good one.
    pub failures_in_a_row: u32,
}

impl ProofRecord {
    /// Age of the last good reading; `None` if there is none.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        let own = self.proven_at.map(|at| now.since(at));
        own.or(self.inherited_age.map(|age| age + now.since_start()))
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// Good to know.
    Info,
    /// Weaker than it looks.
    Warning,
    /// Fencing would not work here.
    Error,
}

/// Something worth a person's attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// A stable word for machines.
    pub code: &'static str,
    /// How much it matters.
    pub weight: Weight,
    /// The host or device it is about.
    pub subject: String,
    /// What is the case.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

/// How well one level could prove its host harmless right now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// The host.
    pub host: HostName,
    /// The level, counted from 1.
    pub level: usize,
    /// The evidence it would bring (`powered-off`, ...).
    pub would_prove: Option<EvidenceKind>,
    /// Why it would bring none.
    pub why_not: Option<String>,
    /// Age of the oldest of its devices' last good readings; `None` if one of them has none.
    pub oldest_proof: Option<Duration>,
    /// Whether all its devices were read well within the limit.
    pub ready: bool,
}

/// What the judgement needs to know.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The topology.
    pub topology: &'a Topology,
    /// The records of all devices.
    pub records: &'a BTreeMap<DeviceName, ProofRecord>,
    /// Now.
    pub now: Moment,
    /// A reading older than this counts as untested.
    pub stale_after: Duration,
}

impl View<'_> {
    /// Each level's outlook, by host.
    pub fn outlook(&self) -> Vec<Outlook> {
        let mut all = Vec::new();
        for fenced in self.topology.targets().values() {
            for (index, level) in fenced.levels.iter().enumerate() {
                all.push(self.outlook_of(&fenced.target, index + 1, level));
            }
        }
        all
    }

    /// Everything that deserves attention, what matters most first.
    pub fn attention(&self) -> Vec<Attention> {
        let mut all = Vec::new();
        for fenced in self.topology.targets().values() {
            self.judge_target(fenced, &mut all);
        }
        for facts in self.topology.devices().values() {
            self.judge_device(facts, &mut all);
        }
        for silence in correlate(&self.contacts()) {
            let (text, remedy) = (silence.to_string(), "check power and network of the place, not device by device");
            all.push(SILENT_TOGETHER.about(&silence.domain.to_string(), text, remedy));
        }
        all.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| (&a.subject, a.code).cmp(&(&b.subject, b.code))));
        all
    }

    /// What was last heard from each device.
    pub fn contacts(&self) -> Vec<Contact> {
        let contact = |facts: &DeviceFacts| {
            let silent_since = self.records.get(&facts.name).and_then(|record| record.silent_since);
            Contact { device: facts.name.clone(), place: facts.place.clone(), silent_since }
        };
        let asked = |facts: &&DeviceFacts| facts.proves.is_evidence();
        self.topology.devices().values().filter(asked).map(contact).collect()
    }

    fn outlook_of(&self, target: &Target, number: usize, level: &Level) -> Outlook {
        let facts = self.topology.level_facts(level);
        let hope = foresee(&probe_order(&target.host), target, &facts);
        let (would_prove, why_not) = match hope {
            Ok((kind, _)) => (Some(kind), None),
            Err(not_enough) => (None, Some(not_enough.to_string())),
        };
        let ages: Option<Vec<Duration>> =
            facts.iter().filter(|facts| facts.proves.is_evidence()).map(|facts| self.age(&facts.name)).collect();
        let oldest_proof = ages.and_then(|ages| ages.into_iter().max());
        let fresh = oldest_proof.is_some_and(|age| age <= self.stale_after);
        let healthy =
            facts.iter().all(|facts| self.records.get(&facts.name).is_none_or(|record| record.trouble.is_none()));
        let ready = would_prove.is_some() && fresh && healthy;
        Outlook { host: target.host.clone(), level: number, would_prove, why_not, oldest_proof, ready }
    }

    fn age(&self, device: &DeviceName) -> Option<Duration> {
        self.records.get(device).and_then(|record| record.age(self.now))
    }

    fn judge_target(&self, fenced: &Fenced, all: &mut Vec<Attention>) {
        let host = fenced.target.host.as_str();
        let order = probe_order(&fenced.target.host);
        let levels: Vec<Vec<&DeviceFacts>> =
            fenced.levels.iter().map(|level| self.topology.level_facts(level)).collect();
        let hopes: Vec<_> = levels.iter().map(|facts| foresee(&order, &fenced.target, facts)).collect();
        if !hopes.iter().any(Result::is_ok) {
            let text = "no level of devices can prove it harmless: only the lease or a person can".to_owned();
            all.push(WITHOUT_PROOF.about(host, text, "add a level with a device that reads its power"));
        }
        for (index, _) in hopes.iter().enumerate().filter(|(_, hope)| **hope == Err(NotEnough::Service)) {
            let text = format!("level {} excludes it from storage only: not enough alone", index + 1);
            let remedy = "add network isolation to the level, or move addresses by something that checks the epoch";
            all.push(STORAGE_ALONE.about(host, text, remedy));
        }
        let evident: Vec<&DeviceFacts> =
            levels.into_iter().flatten().filter(|facts| facts.proves.is_evidence()).collect();
        let home = |facts: &&DeviceFacts| facts.place.site.is_some() && facts.place.site == fenced.target.place.site;
        if !evident.is_empty() && evident.iter().all(home) {
            let text = "all its devices stand at its own site and die with it: in a site loss only the lease or a person proves".to_owned();
            all.push(DIE_WITH_SITE.about(host, text, "give it a watchdog (class A) and the level \"self\""));
        }
        for facts in evident {
            judge_shared(&fenced.target, facts, all);
        }
    }

    fn judge_device(&self, facts: &DeviceFacts, all: &mut Vec<Attention>) {
        let name = facts.name.as_str();
        if let Binding::Wired(by) = &facts.binding {
            let text = format!("it can't report whose machine it switches; attested by {by}");
            all.push(WIRING_ATTESTED.about(name, text, "test the wiring whenever cables are moved"));
        }
        if facts.lab {
            let text = "a laboratory's stand-in: its evidence is accepted by a lab cluster only".to_owned();
            all.push(LAB_DEVICE.about(name, text, "use the real device in production"));
        }
        if !facts.proves.is_evidence() {
            return;
        }
        let record = self.records.get(&facts.name);
        if let Some(trouble) = record.and_then(|record| record.trouble.as_ref()) {
            let failures = record.map_or(0, |record| record.failures_in_a_row);
            let text = format!("it {trouble} ({failures} failures in a row)");
            all.push(FAILING.about(name, text, trouble.remedy()));
        }
        let remedy = "run `antipode fence test`; look at the device if that fails";
        match self.age(&facts.name) {
            None => all.push(NEVER_READ.about(name, "it was never read".to_owned(), remedy)),
            Some(age) if age > self.stale_after => {
                let text = format!("it was last read {} min ago", age.as_secs() / 60);
                all.push(READ_LONG_AGO.about(name, text, remedy));
            }
            Some(_) => {}
        }
    }
}

/// A device that shares power, network or room with the host fails exactly when it is needed. Its site is judged apart.
fn judge_shared(target: &Target, facts: &DeviceFacts, all: &mut Vec<Attention>) {
    let mut here = target.place.clone();
    here.site = None;
    let theirs = domains(&facts.place);
    for domain in domains(&here).into_iter().filter(|domain| theirs.contains(domain)) {
        let text =
            format!("it shares {domain} with {}, which it has to fence: what takes that away takes both", target.host);
        let remedy = "feed or connect the device another way, or add a level that doesn't share it";
        all.push(SHARES_FATE.about(facts.name.as_str(), text, remedy));
    }
}

/// A sort of finding: its stable word, and how much it matters.
struct Sort(&'static str, Weight);

const SILENT_TOGETHER: Sort = Sort("devices-silent-together", Weight::Error);
const WITHOUT_PROOF: Sort = Sort("host-without-proof", Weight::Warning);
const STORAGE_ALONE: Sort = Sort("storage-alone", Weight::Warning);
const DIE_WITH_SITE: Sort = Sort("devices-die-with-site", Weight::Info);
const WIRING_ATTESTED: Sort = Sort("wiring-attested", Weight::Info);
const LAB_DEVICE: Sort = Sort("lab-device", Weight::Info);
const FAILING: Sort = Sort("device-failing", Weight::Error);
const NEVER_READ: Sort = Sort("device-untested", Weight::Error);
const READ_LONG_AGO: Sort = Sort("device-untested", Weight::Warning);
const SHARES_FATE: Sort = Sort("device-shares-fate", Weight::Warning);

impl Sort {
    fn about(self, subject: &str, text: String, remedy: &str) -> Attention {
        Attention { code: self.0, weight: self.1, subject: subject.to_owned(), text, remedy: remedy.to_owned() }
    }
}

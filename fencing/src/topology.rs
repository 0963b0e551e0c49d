//! The fencing topology: which devices, in which levels, can prove which host harmless.
//!
//! A *level* is a set of devices that must all succeed. Levels are tried by order; levels that share no device and no
//! endpoint are independent and run at the same time.
//! Contract: a [`Topology`] was checked as a whole; what can't work is a [`Problem`], all of them at once. What can
//! work and is weaker than people may think is a finding (`findings`).

use crate::evidence::{NotEnough, foresee};
use crate::facts::{Binding, DeviceFacts, Proves};
use crate::name::{DeviceName, HostName};
use crate::request::{FenceOrder, Stamp};
use crate::target::Target;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Something in a configuration that can't work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The table's name and the key, as `device bmc-tk-p1: url`.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub remedy: String,
}

impl Problem {
    /// A problem at `key`.
    pub fn new(key: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.key, self.what, self.remedy)
    }
}

/// Devices that must all succeed, in the order they were written.
pub type Level = Vec<DeviceName>;

/// A target with its levels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fenced {
    /// The host.
    pub target: Target,
    /// Its levels, in order.
    pub levels: Vec<Level>,
}

/// All targets and devices, checked together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    targets: BTreeMap<HostName, Fenced>,
    devices: BTreeMap<DeviceName, DeviceFacts>,
}

impl Topology {
    /// Checks targets and devices as a whole.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn new(targets: Vec<Fenced>, devices: Vec<DeviceFacts>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut topology = Self::default();
        for facts in devices {
            let key = format!("device {}", facts.name);
            if topology.devices.insert(facts.name.clone(), facts).is_some() {
                problems.push(Problem::new(key, "there are two devices of this name", "rename one of them"));
            }
        }
        for fenced in targets {
            let key = format!("host {}", fenced.target.host);
            topology.check_levels(&fenced, &mut problems);
            if topology.targets.insert(fenced.target.host.clone(), fenced).is_some() {
                problems.push(Problem::new(key, "there are two hosts of this name", "rename one of them"));
            }
        }
        topology.check_shared_devices(&mut problems);
        if problems.is_empty() { Ok(topology) } else { Err(problems) }
    }

    /// The targets by name.
    pub fn targets(&self) -> &BTreeMap<HostName, Fenced> {
        &self.targets
    }

    /// The devices by name.
    pub fn devices(&self) -> &BTreeMap<DeviceName, DeviceFacts> {
        &self.devices
    }

    /// The facts of a level's devices.
    pub fn level_facts(&self, level: &Level) -> Vec<&DeviceFacts> {
        level.iter().filter_map(|name| self.devices.get(name)).collect()
    }

    fn check_levels(&self, fenced: &Fenced, problems: &mut Vec<Problem>) {
        for (index, level) in fenced.levels.iter().enumerate() {
            let key = format!("host {}: fencing level {}", fenced.target.host, index + 1);
            if level.is_empty() {
                problems.push(Problem::new(&key, "the level is empty", "name its devices or remove it"));
            }
            let mut seen = BTreeSet::new();
            for name in level {
                if !seen.insert(name) {
                    problems.push(Problem::new(&key, format!("{name} stands there twice"), "name it once"));
                }
                match self.devices.get(name) {
                    None => {
                        let near = nearest(name.as_str(), self.devices.keys().map(DeviceName::as_str));
                        let remedy = near
                            .map_or("add a [[device]] of this name".into(), |near| format!("did you mean {near:?}?"));
                        problems.push(Problem::new(
                            &key,
                            format!("there is no device {name:?}", name = name.as_str()),
                            remedy,
                        ));
                    }
                    Some(facts) => check_device(&key, fenced, facts, problems),
                }
            }
            self.check_enough(&key, fenced, level, problems);
        }
    }

    fn check_enough(&self, key: &str, fenced: &Fenced, level: &Level, problems: &mut Vec<Problem>) {
        let facts = self.level_facts(level);
        if facts.len() != level.len() || !facts.iter().any(|facts| facts.proves.is_evidence()) {
            return; // unknown devices were reported; accelerators and levels that wait prove nothing on purpose
        }
        let order = probe_order(&fenced.target.host);
        match foresee(&order, &fenced.target, &facts) {
            Ok(_) | Err(NotEnough::Service) => {} // storage alone may do for groups whose address move checks the epoch
            Err(NotEnough::Feeds(feeds)) => problems.push(Problem::new(
                key,
                format!("it leaves feeds {} on", feeds.join(", ")),
                "a level must cover all feeds of the host: put the outlets of all its feeds into one level",
            )),
            Err(NotEnough::Writes) => problems.push(Problem::new(
                key,
                "network isolation alone never proves a host harmless: it may still write",
                "add a device that ends its writes to the same level, for example a reservation",
            )),
            Err(NotEnough::Missing(_) | NotEnough::NoEvidence | NotEnough::Apart(_)) => {}
        }
    }

    fn check_shared_devices(&self, problems: &mut Vec<Problem>) {
        let mut users: BTreeMap<&DeviceName, BTreeSet<&HostName>> = BTreeMap::new();
        for fenced in self.targets.values() {
            for name in fenced.levels.iter().flatten() {
                users.entry(name).or_default().insert(&fenced.target.host);
            }
        }
        for (name, hosts) in users.into_iter().filter(|(_, hosts)| hosts.len() > 1) {
            let Some(facts) = self.devices.get(name) else { continue };
            let one_host_only = match &facts.proves {
                Proves::Machine | Proves::Feeds(_) | Proves::Hypervisor(_) | Proves::Network => true,
                Proves::Storage(_) | Proves::Nothing(_) | Proves::Elsewhere(_) => false,
            };
            if one_host_only {
                let hosts: Vec<String> = hosts.into_iter().map(ToString::to_string).collect();
                problems.push(Problem::new(
                    format!("device {name}"),
                    format!("hosts {} all name it, but it switches one thing", hosts.join(", ")),
                    "write one [[device]] per host (the same address with another plug or system)",
                ));
            }
        }
    }
}

fn check_device(key: &str, fenced: &Fenced, facts: &DeviceFacts, problems: &mut Vec<Problem>) {
    if let Proves::Feeds(feeds) = &facts.proves {
        for feed in feeds.difference(&fenced.target.feeds) {
            let what = format!("{} switches feed {feed}, which the host doesn't have", facts.name);
            problems.push(Problem::new(
                key,
                what,
                "name the feed in the host's `feeds`, or correct the device's `feed`",
            ));
        }
    }
    if facts.binding == Binding::Reported && facts.proves.is_evidence() && fenced.target.identity.is_empty() {
        problems.push(Problem::new(
            key,
            format!("nothing says which machine {} must report", facts.name),
            "give the host its `uuid` or `serial`, or attest the device's wiring with `wired = \"who, when\"`",
        ));
    }
}

/// An order that exists only to ask what a level would prove.
pub(crate) fn probe_order(host: &HostName) -> FenceOrder {
    FenceOrder::new(host.clone(), 0, Stamp::default(), Duration::ZERO)
}

/// Whether two levels may run at the same time: no device and no endpoint in common.
pub fn are_independent(one: &[&DeviceFacts], other: &[&DeviceFacts]) -> bool {
    let clash =
        |a: &DeviceFacts, b: &DeviceFacts| a.name == b.name || (!a.endpoint.is_empty() && a.endpoint == b.endpoint);
    !one.iter().any(|a| other.iter().any(|b| clash(a, b)))
}

/// Longer than any key, kind or name.
const WORD_CHARS_MAX: usize = 128;

/// The candidate that `text` was probably meant to be, if one is near enough.
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let length = text.chars().count();
    // Of what isn't a word nothing is near, and finding out would take the square of its length.
    if length > WORD_CHARS_MAX {
        return None;
    }
    let reach = (length / 3).max(1);
    candidates
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|(d, _)| *d <= reach)
        .min()
        .map(|(_, c)| c)
}

/// Edits (insert, remove, replace, swap neighbours) from one text to the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=other.len()).collect();
    for i in 1..=one.len() {
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[one.len()][other.len()]
}

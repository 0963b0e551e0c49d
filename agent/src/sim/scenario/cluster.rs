//! `cluster.toml`: a cluster spec as operators write it, and `[sim]`, which says what the world adds.
//!
//! ```toml
//! [sim]
//! seed = 1                  # of everything that is drawn
//! voters = ["tk-1", …]      # the first host of each site if absent
//! lead = "ng-1"             # who prefers to lead; the first voter at a witness if absent
//! delay = "20ms"            # one way between any two hosts
//! jitter = "0ms"
//! off = ["os-1"]            # hosts that `boot` doesn't power on
//! [sim.host.tk-1]
//! class = "C"
//! drift_ppm = 200           # how fast its clocks run
//! ```

use super::super::{World, WorldSpec};
use super::words::{Cast, parse_span};
use crate::config::{ClusterSpec, Problem, Problems};
use quorum::id::{GroupName, HostName, SiteName, VoterId};
use quorum::ledger::Class;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A cluster to be played.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The spec as text, without `[sim]`; what is applied.
    pub source: String,
    pub(super) spec: ClusterSpec,
    seed: u64,
    voters: Vec<HostName>,
    lead: Option<HostName>,
    delay: Duration,
    jitter: Duration,
    pub(super) off: BTreeSet<HostName>,
    classes: BTreeMap<HostName, Class>,
    rates: BTreeMap<HostName, i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    sim: RawSim,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSim {
    seed: Option<u64>,
    voters: Option<Vec<HostName>>,
    lead: Option<HostName>,
    delay: Option<String>,
    jitter: Option<String>,
    #[serde(default)]
    off: Vec<HostName>,
    #[serde(default)]
    host: BTreeMap<HostName, RawHost>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    class: Option<Class>,
    drift_ppm: Option<i64>,
}

impl Cluster {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// Every problem of the spec, or those of `[sim]`.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        let (source, extras) = split(text);
        let spec = ClusterSpec::parse(file, &source)?;
        let problem = |line, key: &str, what: String, remedy: &str| {
            Problems(vec![Problem { file: file.into(), line, key: key.into(), what, remedy: remedy.into() }])
        };
        let raw: Raw = toml::from_str(&extras).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let line = extras[..at.min(extras.len())].matches('\n').count() + 1;
            problem(line, "sim", error.message().to_owned(), "the keys of [sim] are in tests/scenarios/README.md")
        })?;
        let sim = raw.sim;
        let span = |key: &str, text: &Option<String>, default: Duration| match text {
            None => Ok(default),
            Some(text) => parse_span(text)
                .ok_or_else(|| problem(0, key, format!("{text:?} is no span"), "write 250ms, 1.5s, 3m or 1h")),
        };
        let (delay, jitter) = (
            span("sim.delay", &sim.delay, Duration::from_millis(20))?,
            span("sim.jitter", &sim.jitter, Duration::ZERO)?,
        );
        let named = sim.voters.iter().flatten().chain(&sim.lead).chain(&sim.off).chain(sim.host.keys());
        if let Some(stranger) = named.into_iter().find(|host| !spec.hosts.contains_key(*host)) {
            let what = format!("{stranger} is no host of the spec");
            return Err(problem(0, "sim", what, "name hosts that [[host]] names"));
        }
        let voters = sim.voters.unwrap_or_else(|| first_of_each_site(&spec));
        let at_witness = |host: &&HostName| spec.sites.get(&spec.hosts[*host].site).is_some_and(|site| site.witness);
        Ok(Self {
            seed: sim.seed.unwrap_or(1),
            lead: sim.lead.or_else(|| voters.iter().find(at_witness).cloned()),
            voters,
            delay,
            jitter,
            off: sim.off.into_iter().collect(),
            classes: sim.host.iter().filter_map(|(host, raw)| Some((host.clone(), raw.class?))).collect(),
            rates: sim.host.iter().filter_map(|(host, raw)| Some((host.clone(), raw.drift_ppm?))).collect(),
            source,
            spec,
        })
    }

    pub(super) fn cast(&self) -> Cast {
        Cast {
            hosts: self.spec.hosts.values().map(|host| (host.name.clone(), host.site.clone())).collect(),
            groups: self.spec.groups.keys().cloned().collect(),
        }
    }

    /// The world in which every host is off.
    pub(super) fn world(&self) -> World {
        let voter = |name: &HostName| {
            let position = self.voters.iter().position(|voter| voter == name)?;
            Some(VoterId(u64::try_from(position).unwrap_or(0) + 1))
        };
        let hosts = self.spec.hosts.values().map(|host| {
            (host.name.clone(), host.site.clone(), voter(&host.name), self.lead.as_ref() == Some(&host.name))
        });
        let mut world = World::new(&WorldSpec {
            seed: self.seed,
            hosts: hosts.collect(),
            groups: self.copies(),
            watchdog_worst: self.spec.cluster.watchdog_worst,
            round_trip_max: self.spec.cluster.round_trip_max,
        });
        let names: Vec<HostName> = self.spec.hosts.keys().cloned().collect();
        for from in &names {
            for to in names.iter().filter(|to| *to != from) {
                let link = world.network.link(from, to);
                (link.delay, link.jitter) = (self.delay, self.jitter);
            }
        }
        for (name, host) in &mut world.hosts {
            host.spec.class = self.classes.get(name).copied().unwrap_or(host.spec.class);
            host.spec.rate_ppm = self.rates.get(name).copied().unwrap_or(host.spec.rate_ppm);
        }
        world
    }

    /// Groups with volumes, and where copies are: the home's first host has the data.
    fn copies(&self) -> Vec<(GroupName, Vec<HostName>)> {
        let with_volumes = self.spec.groups.values().filter(|group| !group.volumes.is_empty());
        let copies = with_volumes.map(|group| {
            let home = group.places.get(&group.home).into_iter();
            let others = group.places.iter().filter(|(site, _)| **site != group.home).map(|(_, place)| place);
            let hosts = home.chain(others).flat_map(|place| place.hosts.iter().cloned());
            (group.name.clone(), hosts.collect())
        });
        copies.collect()
    }
}

fn first_of_each_site(spec: &ClusterSpec) -> Vec<HostName> {
    let first = |site: &SiteName| spec.hosts.values().find(|host| host.site == *site).map(|host| host.name.clone());
    spec.sites.keys().filter_map(first).collect()
}

/// The spec and `[sim]`, each with the other's lines blank, so that line numbers stay true.
fn split(text: &str) -> (String, String) {
    let (mut spec, mut extras) = (String::new(), String::new());
    let mut is_extra = false;
    for line in text.lines() {
        let header = line.trim_start_matches('[');
        if header.len() < line.len() && header.starts_with(|c: char| c.is_ascii_alphabetic()) {
            is_extra = header.starts_with("sim]") || header.starts_with("sim.");
        }
        let (to, blank) = if is_extra { (&mut extras, &mut spec) } else { (&mut spec, &mut extras) };
        to.push_str(line);
        to.push('\n');
        blank.push('\n');
    }
    (spec, extras)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"[cluster]
name = "demo"
[[site]]
name = "a"
[[host]]
name = "a-1"
site = "a"
[sim]
seed = 3
[sim.host.a-1]
class = "C"
"#;

    #[test]
    fn the_worlds_own_keys_are_no_part_of_the_spec() {
        let cluster = Cluster::parse("cluster.toml", SMALL).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(!cluster.source.contains("sim"));
        assert_eq!((cluster.seed, cluster.classes.len(), cluster.voters.len()), (3, 1, 1));
    }

    #[test]
    fn a_wrong_key_of_the_world_is_named_with_its_line() {
        let problems = Cluster::parse("cluster.toml", &SMALL.replace("seed", "sead")).expect_err("a wrong key");
        assert!(problems.to_string().starts_with("cluster.toml:9: sim: unknown field `sead`"), "{problems}");
        let problems = Cluster::parse("cluster.toml", &SMALL.replace("host.a-1", "host.b")).expect_err("a stranger");
        assert!(problems.to_string().contains("b is no host of the spec"), "{problems}");
    }
}

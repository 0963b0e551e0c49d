//! From the executor's status to what this agent's devices could prove of each host, and how quickly.
//!
//! Pure. A device that the last reading found in trouble proves nothing now. How long switching takes is never guessed:
//! a level whose devices don't all say `off_within` may prove its host, and doesn't make a declaration eager.

use crate::config::{ClusterSpec, switches_within};
use crate::engine::{Prospect, SeenRunning};
use fencing::EvidenceKind;
use fencing::executor::{DeviceStatus, Status};
use fencing::facts::Proves;
use quorum::id::HostName;
use std::collections::BTreeMap;
use std::time::Duration;

/// The levels of each host, and how long each device takes to switch at worst, as the spec says.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    levels: BTreeMap<HostName, Vec<Vec<String>>>,
    within: BTreeMap<String, Duration>,
}

impl Paths {
    pub(super) fn of(spec: &ClusterSpec) -> Self {
        let levels = spec.hosts.values().map(|host| (host.name.clone(), host.fencing.clone()));
        let within =
            spec.devices.iter().filter_map(|(name, params)| Some((name.to_string(), switches_within(params)?)));
        Self { levels: levels.collect(), within: within.collect() }
    }

    /// One for each host that has a device to be told: one whose readings are evidence, or a poison pill, by which the
    /// host dies sooner and which proves nothing.
    pub(super) fn prospects(&self, status: &Status) -> Vec<Prospect> {
        let devices: BTreeMap<&str, &DeviceStatus> =
            status.devices.iter().map(|device| (device.facts.name.as_str(), device)).collect();
        let of_host = |(host, levels): (&HostName, &Vec<Vec<String>>)| {
            let mut theirs: Vec<&DeviceStatus> =
                levels.iter().flatten().filter_map(|name| devices.get(name.as_str())).copied().collect();
            theirs.retain(|device| !matches!(device.facts.proves, Proves::Elsewhere(_)));
            if theirs.is_empty() {
                return None;
            }
            theirs.retain(|device| device.facts.proves.is_evidence());
            let good = theirs.iter().filter(|device| device.trouble.is_none() && device.proof_age.is_some()).count();
            let (proven_ms_ago, takes_ms) = self.quickest(status, (host, levels), &devices).unzip();
            Some(Prospect {
                host: host.clone(),
                devices: u32::try_from(good).unwrap_or(u32::MAX),
                proven_ms_ago,
                takes_ms: takes_ms.flatten(),
                running: theirs.iter().filter_map(|device| running(device)).min_by_key(|seen| seen.ms_ago),
            })
        };
        self.levels.iter().filter_map(of_host).collect()
    }

    /// Of the levels that would prove the host powered off and were read well, the one that is known to be quickest.
    fn quickest(
        &self,
        status: &Status,
        (host, levels): (&HostName, &[Vec<String>]),
        devices: &BTreeMap<&str, &DeviceStatus>,
    ) -> Option<(u32, Option<u32>)> {
        let ready = status.outlook.iter().filter(|outlook| {
            outlook.host.as_str() == host.as_str()
                && outlook.ready
                && outlook.would_prove == Some(EvidenceKind::PoweredOff)
        });
        let path = |outlook: &fencing::findings::Outlook| {
            let level = levels.get(outlook.level.checked_sub(1)?)?;
            let takes: Option<Vec<Duration>> =
                level.iter().map(|name| self.takes(devices.get(name.as_str())?)).collect();
            let takes = takes.and_then(|takes| takes.into_iter().max());
            Some((millis(outlook.oldest_proof?), takes.map(millis)))
        };
        ready.filter_map(path).min_by_key(|(age, takes)| (takes.unwrap_or(u32::MAX), *age))
    }

    /// Identity read, order, state read, settled, read again; each call as slow as the last reading.
    fn takes(&self, device: &DeviceStatus) -> Option<Duration> {
        let within = self.within.get(device.facts.name.as_str())?;
        let rhythm = device.facts.rhythm;
        Some(*within + rhythm.poll + rhythm.settle + device.latency? * 3)
    }
}

fn running(device: &DeviceStatus) -> Option<SeenRunning> {
    device.shows.as_ref().filter(|shows| shows.is_contrary())?;
    let ms_ago = u32::try_from(device.proof_age?.as_millis()).unwrap_or(u32::MAX);
    Some(SeenRunning { device: device.facts.name.to_string(), ms_ago })
}

fn millis(span: Duration) -> u32 {
    // Rounded up: a path is never called quicker or fresher than it is.
    u32::try_from(span.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencing::findings::Outlook;
    use fencing::reading::{Observed, Power};

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// One BMC of tk-1 as its last reading left it: read 2 s ago within 100 ms, showing "on".
    fn status(trouble: Option<&str>) -> Status {
        let table = "name = 'bmc'\nkind = 'command'\nprogram = '/bmc'\nwired = 'ops-1'".parse().expect("TOML");
        let facts = fencing::device::build(table).expect("a good device").facts().clone();
        let device = DeviceStatus {
            facts,
            proof_age: Some(MS(2_000)),
            latency: Some(MS(100)),
            shows: Some(Observed::Power(Power::On)),
            trouble: trouble.map(str::to_owned),
            failures_in_a_row: u32::from(trouble.is_some()),
        };
        let outlook = Outlook {
            host: fencing::name::HostName::new("tk-1").expect("a name"),
            level: 1,
            would_prove: Some(EvidenceKind::PoweredOff),
            why_not: None,
            oldest_proof: Some(MS(2_000)),
            ready: trouble.is_none(),
        };
        Status { devices: vec![device], outlook: vec![outlook], attention: Vec::new(), under_way: Vec::new() }
    }

    fn paths(within: Option<Duration>) -> Paths {
        let levels = vec![vec!["bmc".to_owned()], vec!["self".to_owned()]];
        Paths {
            levels: BTreeMap::from([(HostName::new("tk-1").expect("a name"), levels)]),
            within: within.map(|within| ("bmc".to_owned(), within)).into_iter().collect(),
        }
    }

    #[test]
    fn a_level_that_was_read_well_says_how_long_it_takes_only_if_its_owner_did() {
        let [untimed] = &paths(None).prospects(&status(None))[..] else { panic!("one host has a device") };
        assert_eq!((untimed.devices, untimed.proven_ms_ago, untimed.takes_ms), (1, Some(2_000), None));
        let [timed] = &paths(Some(MS(1_500))).prospects(&status(None))[..] else { panic!("one host has a device") };
        // To switch 1.5 s, to poll 0.5 s, to settle 1 s, and three readings.
        assert_eq!(timed.takes_ms, Some(1_500 + 500 + 1_000 + 300));
        assert_eq!(timed.running, Some(SeenRunning { device: "bmc".into(), ms_ago: 2_000 }));
    }

    #[test]
    fn a_device_in_trouble_proves_nothing_now() {
        let [prospect] = &paths(Some(MS(1_500))).prospects(&status(Some("can't be reached")))[..] else {
            panic!("one host has a device")
        };
        assert_eq!((prospect.devices, prospect.proven_ms_ago, prospect.takes_ms), (0, None, None));
    }
}

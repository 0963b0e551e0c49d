//! Correlated silence: when everything that stands in one place falls silent together, the place has lost power or
//! network, and that is what a person must be told, not "device 1 failed, device 2 failed, ...".
//!
//! It is an explanation and never evidence: a silent site may be running.

use crate::moment::Moment;
use crate::name::DeviceName;
use crate::target::Place;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What was last heard from one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The device.
    pub device: DeviceName,
    /// Where it stands.
    pub place: Place,
    /// Since when nothing at all was heard from it; `None` if its last answer was an answer, whatever it said.
    pub silent_since: Option<Moment>,
}

/// Something that fails as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "domain", content = "name")]
pub enum Domain {
    /// A site.
    Site(String),
    /// A power circuit.
    Power(String),
    /// A network segment.
    Network(String),
    /// A room or rack.
    Room(String),
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(name) => write!(f, "site {name}"),
            Self::Power(name) => write!(f, "power circuit {name}"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::Room(name) => write!(f, "room {name}"),
        }
    }
}

/// All devices of a domain are silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Silence {
    /// The domain.
    pub domain: Domain,
    /// Its devices, two at least.
    pub devices: BTreeSet<DeviceName>,
    /// Since when the last of them is silent.
    pub since: Moment,
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, domain) = (self.devices.len(), &self.domain);
        write!(
            f,
            "all {count} fencing devices of {domain} are silent: it has lost power or network; this proves nothing about its hosts"
        )
    }
}

/// The domains all of whose devices (two at least) are silent, the largest first; one that says no more than a larger
/// one is left out.
pub fn correlate(contacts: &[Contact]) -> Vec<Silence> {
    let mut members: BTreeMap<Domain, Vec<&Contact>> = BTreeMap::new();
    for contact in contacts {
        for domain in domains(&contact.place) {
            members.entry(domain).or_default().push(contact);
        }
    }
    let mut silences: Vec<Silence> =
        members.into_iter().filter_map(|(domain, contacts)| silence(domain, &contacts)).collect();
    silences.sort_by_key(|silence| std::cmp::Reverse(silence.devices.len()));
    let mut told: Vec<Silence> = Vec::new();
    for silence in silences {
        if !told.iter().any(|larger| silence.devices.is_subset(&larger.devices)) {
            told.push(silence);
        }
    }
    told
}

/// Every domain that `place` belongs to, the widest sort first.
pub(crate) fn domains(place: &Place) -> Vec<Domain> {
    let site = place.site.iter().map(|name| Domain::Site(name.to_string()));
    let room = place.room.iter().map(|name| Domain::Room(name.to_string()));
    let power = place.power.iter().map(|name| Domain::Power(name.to_string()));
    let network = place.network.iter().map(|name| Domain::Network(name.to_string()));
    site.chain(room).chain(power).chain(network).collect()
}

fn silence(domain: Domain, contacts: &[&Contact]) -> Option<Silence> {
    if contacts.len() < 2 {
        return None;
    }
    let since: Option<Vec<Moment>> = contacts.iter().map(|contact| contact.silent_since).collect();
    let since = since?.into_iter().max()?;
    Some(Silence { domain, devices: contacts.iter().map(|contact| contact.device.clone()).collect(), since })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{DomainName, SiteName};

    fn contact(name: &str, site: &str, room: Option<&str>, silent_ms: Option<u64>) -> Contact {
        let place = Place {
            site: Some(SiteName::new(site).unwrap()),
            room: room.map(|room| DomainName::new(room).unwrap()),
            ..Place::default()
        };
        let silent_since = silent_ms.map(Moment::from_millis);
        Contact { device: DeviceName::new(name).unwrap(), place, silent_since }
    }

    #[test]
    fn a_site_all_of_whose_devices_are_silent_is_named_once() {
        let contacts = [
            contact("t1", "tokyo", Some("r1"), Some(500)),
            contact("t2", "tokyo", Some("r1"), Some(900)),
            contact("t3", "tokyo", None, Some(700)),
            contact("o1", "osaka", None, None),
        ];
        let silences = correlate(&contacts);
        assert_eq!(silences.len(), 1, "{silences:?}");
        assert_eq!(silences[0].domain, Domain::Site("tokyo".into()));
        assert_eq!((silences[0].devices.len(), silences[0].since), (3, Moment::from_millis(900)));
    }

    #[test]
    fn one_device_that_answers_clears_its_site_but_not_a_silent_room_in_it() {
        let contacts = [
            contact("t1", "tokyo", Some("r1"), Some(1)),
            contact("t2", "tokyo", Some("r1"), Some(2)),
            contact("t3", "tokyo", None, None),
        ];
        let silences = correlate(&contacts);
        assert_eq!(silences.iter().map(|silence| &silence.domain).collect::<Vec<_>>(), [&Domain::Room("r1".into())]);
    }

    #[test]
    fn one_silent_device_is_no_silent_site() {
        assert_eq!(correlate(&[contact("t1", "tokyo", None, Some(1))]), []);
    }
}

//! Topologies: what is refused, what is flagged, what would be proven.

use fencing::evidence::EvidenceKind;
use fencing::facts::{Binding, DeviceFacts, Proves, Rhythm};
use fencing::findings::{ProofRecord, View};
use fencing::moment::Moment;
use fencing::name::{DeviceName, DomainName, FeedName, HostName, SiteName, VolumeName};
use fencing::plan::{Plan, Starts};
use fencing::request::{FenceOrder, Stamp};
use fencing::target::{ExpectedIdentity, MachineUuid, Place, Target};
use fencing::topology::{Fenced, Topology};
use fencing::trouble::Trouble;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn device(name: &str, proves: Proves) -> DeviceFacts {
    let binding = match proves {
        Proves::Machine => Binding::Reported,
        _ => Binding::Wired("ops-1".into()),
    };
    let second = Duration::from_secs(1);
    let rhythm = Rhythm { read_limit: second, off_limit: second, poll: second, settle: second, off_again: second };
    let name = DeviceName::new(name).unwrap();
    DeviceFacts {
        name,
        kind: "double",
        proves,
        binding,
        rhythm,
        endpoint: String::new(),
        place: Place::default(),
        lab: false,
    }
}

fn feed(name: &str) -> FeedName {
    FeedName::new(name).unwrap()
}

fn fenced(feeds: &[&str], levels: &[&[&str]]) -> Fenced {
    let identity =
        ExpectedIdentity { uuid: MachineUuid::parse("11111111-2222-3333-4444-0000000000aa").ok(), serial: None };
    let feeds = feeds.iter().map(|name| feed(name)).collect();
    let target = Target { host: HostName::new("tk-p1").unwrap(), identity, feeds, place: Place::default() };
    let name = |name: &&str| DeviceName::new(*name).unwrap();
    Fenced { target, levels: levels.iter().map(|level| level.iter().map(name).collect()).collect() }
}

fn problems(fenced: Vec<Fenced>, devices: Vec<DeviceFacts>) -> String {
    let problems = Topology::new(fenced, devices).expect_err("this topology must be refused");
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_problem_is_told_at_once_with_a_remedy() {
    let mut host = fenced(&["a"], &[&["bcm"], &[], &["port"]]);
    host.target.identity = ExpectedIdentity::default();
    host.levels.push(vec![DeviceName::new("bmc").unwrap()]);
    let text = problems(vec![host], vec![device("bmc", Proves::Machine), device("port", Proves::Network)]);
    assert!(text.contains("did you mean \"bmc\"?"), "{text}");
    assert!(text.contains("level 2: the level is empty"), "{text}");
    assert!(text.contains("network isolation alone never proves"), "{text}");
    assert!(text.contains("nothing says which machine bmc must report"), "{text}");
}

#[test]
fn a_level_that_leaves_a_feed_on_is_refused() {
    let pdu = device("pdu-a", Proves::Feeds(BTreeSet::from([feed("a")])));
    let text = problems(vec![fenced(&["a", "b"], &[&["pdu-a"]])], vec![pdu]);
    assert!(text.contains("it leaves feeds b on"), "{text}");
}

#[test]
fn one_bmc_for_two_hosts_is_refused() {
    let mut second = fenced(&[], &[&["bmc"]]);
    second.target.host = HostName::new("tk-p2").unwrap();
    let text = problems(vec![fenced(&[], &[&["bmc"]]), second], vec![device("bmc", Proves::Machine)]);
    assert!(text.contains("hosts tk-p1, tk-p2 all name it"), "{text}");
}

#[test]
fn levels_at_one_endpoint_follow_each_other_and_others_start_at_once() {
    let mut ipmi = device("ipmi", Proves::Machine);
    let mut redfish = device("redfish", Proves::Machine);
    ipmi.endpoint = "10.0.0.9".into();
    redfish.endpoint = "10.0.0.9".into();
    let pdu = device("pdu", Proves::Feeds(BTreeSet::from([feed("a")])));
    let own = device("self", Proves::Elsewhere("the lease to run out"));
    let levels: &[&[&str]] = &[&["ipmi"], &["redfish"], &["pdu"], &["self"]];
    let topology = Topology::new(vec![fenced(&["a"], levels)], vec![ipmi, redfish, pdu, own]).unwrap();
    let order = FenceOrder::new(HostName::new("tk-p1").unwrap(), 1, Stamp::default(), Duration::from_secs(9));
    let plan = Plan::of(&topology, &order).unwrap();
    let starts: Vec<&Starts> = plan.levels.iter().map(|level| &level.starts).collect();
    let expected = [&Starts::AtOnce, &Starts::After(vec![1]), &Starts::AtOnce, &Starts::Waits("the lease to run out")];
    assert_eq!(starts, expected);
}

fn codes(topology: &Topology, records: &BTreeMap<DeviceName, ProofRecord>, now_s: u64) -> Vec<String> {
    let (now, stale_after) = (Moment::from_millis(now_s * 1000), Duration::from_secs(3600));
    let view = View { topology, records, now, stale_after };
    view.attention().iter().map(|item| format!("{} {}", item.subject, item.code)).collect()
}

#[test]
fn a_device_that_shares_power_with_its_target_is_flagged() {
    let circuit = DomainName::new("ups-1").unwrap();
    let mut bmc = device("bmc", Proves::Machine);
    bmc.place.power.insert(circuit.clone());
    let mut host = fenced(&[], &[&["bmc"]]);
    host.target.place.power.insert(circuit);
    let topology = Topology::new(vec![host], vec![bmc]).unwrap();
    assert!(codes(&topology, &BTreeMap::new(), 1).contains(&"bmc device-shares-fate".to_owned()));
}

#[test]
fn a_host_whose_devices_all_die_with_its_site_is_told_before_the_disaster() {
    let site = SiteName::new("tokyo").unwrap();
    let mut bmc = device("bmc", Proves::Machine);
    bmc.place.site = Some(site.clone());
    let mut host = fenced(&[], &[&["bmc"]]);
    host.target.place.site = Some(site);
    let topology = Topology::new(vec![host], vec![bmc]).unwrap();
    assert!(codes(&topology, &BTreeMap::new(), 1).contains(&"tk-p1 devices-die-with-site".to_owned()));
}

#[test]
fn storage_alone_is_taken_and_flagged() {
    let pr = device("pr", Proves::Storage(BTreeSet::from([VolumeName::new("v").unwrap()])));
    let topology = Topology::new(vec![fenced(&[], &[&["pr"]])], vec![pr]).unwrap();
    let codes = codes(&topology, &BTreeMap::new(), 1);
    assert!(codes.contains(&"tk-p1 storage-alone".to_owned()), "{codes:?}");
    assert!(codes.contains(&"tk-p1 host-without-proof".to_owned()), "{codes:?}");
}

#[test]
fn an_old_proof_and_a_failing_device_are_told_and_a_fresh_one_is_ready() {
    let devices = vec![device("bmc", Proves::Machine)];
    let topology = Topology::new(vec![fenced(&[], &[&["bmc"]])], devices).unwrap();
    let name = DeviceName::new("bmc").unwrap();
    let mut record = ProofRecord { proven_at: Some(Moment::from_millis(1_000)), ..ProofRecord::default() };
    let records = BTreeMap::from([(name.clone(), record.clone())]);
    assert_eq!(codes(&topology, &records, 60), [""; 0]);
    let (now, stale_after) = (Moment::from_millis(60_000), Duration::from_secs(3600));
    let outlook = View { topology: &topology, records: &records, now, stale_after }.outlook();
    assert!(outlook[0].ready && outlook[0].would_prove == Some(EvidenceKind::PoweredOff), "{outlook:?}");
    assert_eq!(codes(&topology, &records, 7_200), ["bmc device-untested"]);
    record.trouble = Some(Trouble::LoginRefused { because: "401".into() });
    let records = BTreeMap::from([(name, record)]);
    assert_eq!(codes(&topology, &records, 60), ["bmc device-failing"]);
}

#[test]
fn a_proof_of_an_earlier_process_keeps_its_age() {
    let record = ProofRecord { inherited_age: Some(Duration::from_secs(100)), ..ProofRecord::default() };
    assert_eq!(record.age(Moment::from_millis(5_000)), Some(Duration::from_secs(105)));
}

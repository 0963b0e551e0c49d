//! Tests of both sides: each claim a function that returns what is wrong, so that the same claims show that each
//! planted fault is seen.

use super::*;
use crate::id::{LogIndex, SiteName};
use crate::roster::{Membership, VoterInfo};
use std::collections::{BTreeMap, BTreeSet};

mod holding;
mod race;
mod voting;

const S: fn(u64) -> Duration = Duration::from_secs;

fn at(seconds: u64) -> Moment {
    Moment::from_ns(seconds * 1_000_000_000)
}

fn host() -> HostName {
    HostName::new("tk-k1").unwrap()
}

fn he(count: u64) -> HostEpoch {
    HostEpoch::in_era(Era(1), count)
}

fn claim() -> Claim {
    Claim { era: Era(1), host_epoch: he(7), boot: BootId([1; 16]), instance: KeeperInstance([2; 16]) }
}

fn config(index: u64) -> ConfigId {
    ConfigId { era: Era(1), index: LogIndex(index) }
}

fn half(ids: &[u64]) -> BTreeMap<VoterId, VoterInfo> {
    let site = SiteName::new("witness").unwrap();
    let info = |id| VoterInfo { id: VoterId(id), host: host(), site: site.clone() };
    ids.iter().map(|&id| (VoterId(id), info(id))).collect()
}

fn members(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
    Membership { voters: half(voters), outgoing: half(outgoing), learners: half(learners) }
}

fn ids(ids: &[u64]) -> Vec<VoterId> {
    ids.iter().copied().map(VoterId).collect()
}

/// What must be true, and whether it was: the broken ones by name.
#[derive(Default)]
struct Claims(Vec<&'static str>);

impl Claims {
    fn hold(&mut self, claim: &'static str, holds: bool) {
        if !holds {
            self.0.push(claim);
        }
    }
}

#[test]
fn a_pet_needs_the_reserve_on_both_clocks() {
    let expires = Moment { boot_ns: 100, raw_ns: 100 };
    let reserve = Duration::from_nanos(40);
    assert!(may_pet(Moment::from_ns(60), expires, reserve), "the last nanosecond still counts");
    assert!(!may_pet(Moment::from_ns(61), expires, reserve));
    assert!(!may_pet(Moment { boot_ns: 61, raw_ns: 0 }, expires, reserve), "the machine slept");
    assert!(!may_pet(Moment { boot_ns: 0, raw_ns: 61 }, expires, reserve), "its clock was slewed");
}

/// Each planted fault, and the claims that notice it.
#[cfg(feature = "mutants")]
#[test]
fn every_planted_fault_of_the_lease_is_noticed() {
    let claims = || [holding::broken_claims(), voting::broken_claims(), race::broken_claims()].concat();
    assert_eq!(claims(), Vec::<&str>::new());
    for fault in FAULTS {
        let _planted = crate::mutants::plant(fault);
        let noticed = claims();
        assert!(!noticed.is_empty(), "nothing notices {fault}");
        println!("{fault}: {}", noticed.join(", "));
    }
}

/// Every fault that the lease asks for.
#[cfg(feature = "mutants")]
const FAULTS: [&str; 27] = [
    "lease.voter_wait_is_lease",
    "lease.pet_at_one_w",
    "lease.pet_trusts_one_clock",
    "lease.count_other_host_epoch",
    "lease.count_non_member",
    "lease.expiry_from_receipt",
    "lease.count_other_agent",
    "lease.joint_counts_one_half",
    "lease.longest_lease_counts",
    "lease.grant_across_eras",
    "lease.grant_as_learner",
    "lease.grant_undecodable",
    "lease.grant_while_pending",
    "lease.grant_after_end",
    "lease.grant_not_admitted",
    "lease.grant_superseded",
    "lease.grant_not_yet_applied",
    "lease.grant_other_boot",
    "lease.grant_other_instance",
    "lease.wait_on_larger_clock",
    "lease.restart_forgets",
    "lease.admission_keeps_grants",
    "lease.suspect_clock_speaks",
    "lease.configuration_keeps_grants",
    "lease.snapshot_keeps_grants",
    "lease.suspect_time_counts",
    "lease.ignore_config_id",
];

//! From what the fencing crate proved to the ledger's own word for it, and from what could be proven to how eagerly a
//! loss is declared (protocol §5, §6).
//!
//! The replicated format doesn't change when a device driver does: this is the only place that knows both words.
//! Invariant: nothing is added here. What a device didn't observe isn't claimed; evidence that the ledger's word can't
//! be made of is a failure with a reason, never weaker evidence.

use super::core::Engine;
use crate::policy::Mode;
use fencing::EvidenceKind;
use fencing::evidence::{Finding, Proven};
use quorum::id::{DeviceName, GroupName, HostName};
use quorum::ledger::{self, Declare, Evidence, HypervisorReading, Incarnation, Observation, PowerReading};
use std::time::Duration;

/// A positive fence path must have been probed good within this to make a declaration eager.
pub(super) const PROBED_WITHIN: Duration = Duration::from_secs(60);
/// How often a device's state stands behind a [`Proven`].
const READS: u32 = 2;

/// The ledger's word for evidence that `observer` got about `of`; for the VMs of several groups, one for each.
///
/// # Errors
/// What is missing for it, for people.
pub(super) fn translate(
    of: &Incarnation,
    evidence: &fencing::Evidence,
    observer: &HostName,
) -> Result<Vec<Evidence>, String> {
    if evidence.target().as_str() != of.host.as_str() || evidence.he() != of.he.0 {
        return Err(format!("the evidence is about {} he {}, not {of}", evidence.target(), evidence.he()));
    }
    let observed = match evidence.kind() {
        EvidenceKind::PoweredOff => {
            let readings: Result<Vec<PowerReading>, String> = evidence.seen().iter().map(power_reading).collect();
            vec![Observation::PoweredOff { readings: readings? }]
        }
        EvidenceKind::HypervisorOff => {
            evidence.seen().iter().map(hypervisor_reading).collect::<Result<Vec<_>, String>>()?
        }
        EvidenceKind::StorageExcluded => {
            return Err("the host is excluded from its storage; by which command and on which paths, which the \
                        ledger asks as well, this device doesn't say"
                .to_owned());
        }
    };
    let lab = evidence.is_lab();
    let about = |observed| Evidence { of: of.clone(), observed, observer: observer.clone(), lab };
    Ok(observed.into_iter().map(about).collect())
}

fn hypervisor_reading(proof: &Proven) -> Result<Observation, String> {
    let Finding::VmOff { group, standing } = proof.finding() else {
        return Err(format!("{} doesn't read a VM", proof.device()));
    };
    let Some(standing) = standing else {
        return Err(format!(
            "{} says that the VM is off; whether it is detached and won't start by itself, which the ledger asks as \
             well, it doesn't say",
            proof.device()
        ));
    };
    let reading = HypervisorReading {
        source: standing.source.clone(),
        reads: READS,
        agent_contained: standing.agent_contained,
        pending_starts: standing.pending_starts,
        detached: standing.detached,
        automatic_start_off: standing.automatic_start_off,
    };
    let group = GroupName::new(group.as_str()).map_err(|error| error.to_string())?;
    Ok(Observation::HypervisorOff { group, reading })
}

fn power_reading(proof: &Proven) -> Result<PowerReading, String> {
    match proof.finding() {
        Finding::MachineOff | Finding::FeedsOff(_) => {}
        Finding::VmOff { .. } | Finding::Excluded(_) | Finding::Isolated => {
            return Err(format!("{} doesn't read power", proof.device()));
        }
    }
    let device = DeviceName::new(proof.device().as_str()).map_err(|error| error.to_string())?;
    let apart = proof.second().since(proof.first());
    // A `Proven` can't be made of a reading whose identity isn't the target's.
    Ok(PowerReading { device, reads: READS, apart, identity_matches: true })
}

impl Engine {
    /// Whether the loss of a host is declared as soon as it is detected, when its whole site is silent and when it is
    /// silent alone. `commit` is what a commit takes.
    ///
    /// A site: if the operator wants it so, or a positive fence path was probed good within a minute that is quicker
    /// than the lease by far. A host alone: if that brings its groups up earlier as well. Where the end of its lease is
    /// what they wait for, they wait as long however early it is declared, and till then it may come back.
    pub(super) fn declare_modes(&self, host: &HostName, commit: Duration) -> (Mode, Mode) {
        let mode = |is_eager| if is_eager { Mode::Eager } else { Mode::Lazy };
        let quick = || self.has_quick_fence(host, self.timing.detection + commit);
        match self.ledger.spec().policy.declare {
            Declare::Eager => (Mode::Eager, mode(self.needs_a_fence(host) || quick())),
            Declare::Lazy => (Mode::Lazy, Mode::Lazy),
            Declare::Measured => {
                let measured = mode(quick());
                (measured, measured)
            }
        }
    }

    /// Whether the lease of the host proves nothing to some group on it: a device or a person has to, and the sooner it
    /// is lost, the sooner they begin.
    fn needs_a_fence(&self, host: &HostName) -> bool {
        self.ledger.groups_on(host).any(|(group, _)| !self.ledger.lease_would_prove(group, host))
    }

    fn has_quick_fence(&self, host: &HostName, declared_in: Duration) -> bool {
        let site = self.ledger.site_of(host);
        let limit = self.timing.eager_limit();
        let ms = |ms: u32| Duration::from_millis(u64::from(ms));
        let accepts = |group| {
            let spec = self.ledger.group_spec(group);
            spec.is_some_and(|spec| spec.accept.contains(&ledger::EvidenceKind::PoweredOff))
        };
        let mut groups = self.ledger.groups_on(host).map(|(group, _)| group).peekable();
        let is_of_use = groups.peek().is_none() || groups.any(accepts);
        // What stands at the host's own site is lost with it.
        is_of_use
            && self.prospects_of(host).iter().filter(|(from, _)| self.ledger.site_of(from) != site).any(|(_, path)| {
                let is_probed = path.proven_ms_ago.is_some_and(|age| ms(age) <= PROBED_WITHIN);
                is_probed && path.takes_ms.is_some_and(|takes| ms(takes) + declared_in < limit)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencing::FenceOrder;
    use fencing::evidence::{LevelView, Pair};
    use fencing::moment::Moment;
    use fencing::reading::{Observed, Power, Reading};
    use fencing::request::Stamp;
    use fencing::target::{ExpectedIdentity, Place, ReportedIdentity, Target};
    use quorum::id::{Era, HostEpoch};
    use std::collections::BTreeSet;

    fn of(he: u64) -> Incarnation {
        Incarnation { host: HostName::new("tk-1").expect("a name"), he: HostEpoch::in_era(Era(1), he) }
    }

    /// What a BMC proves about tk-1 in admission `he`, by two readings `apart_us` apart.
    fn proven(he: u64, apart_us: u64, proves: &str) -> fencing::Evidence {
        observed(he, apart_us, (proves, Observed::Power(Power::Off)))
    }

    fn observed(he: u64, apart_us: u64, (proves, observed): (&str, Observed)) -> fencing::Evidence {
        let table = format!("name = 'bmc'\nkind = 'command'\nprogram = '/bmc'\nwired = 'ops-1'\n{proves}");
        let device = fencing::device::build(table.parse().expect("TOML")).expect("a good device");
        let facts = device.facts();
        let host = fencing::name::HostName::new("tk-1").expect("a name");
        let (identity, feeds, place) = (ExpectedIdentity::default(), BTreeSet::new(), Place::default());
        let target = Target { host: host.clone(), identity, feeds, place };
        let at = |us| Moment::at(Duration::from_micros(us));
        let reading = |asked, answered| Reading {
            asked: at(asked),
            answered: at(answered),
            observed: observed.clone(),
            identity: ReportedIdentity::none(),
            lab: true,
        };
        let (first, second) = (reading(0, 10), reading(10 + apart_us, 20 + apart_us));
        let proof = Proven::of(facts, &target, Pair { first: &first, second: &second }).expect("two readings");
        let order = FenceOrder::new(host, of(he).he.0, Stamp::default(), Duration::from_secs(9));
        let level = LevelView { number: 1, devices: &[facts] };
        fencing::Evidence::combine(&order, &target, level, vec![proof]).expect("evidence")
    }

    #[test]
    fn two_readings_become_the_ledgers_word_with_the_time_between_them() {
        let observer = HostName::new("os-1").expect("a name");
        let [evidence] = &translate(&of(7), &proven(7, 1_234_567, ""), &observer).expect("powered off")[..] else {
            panic!("one piece of evidence")
        };
        assert!(evidence.lab && evidence.of == of(7) && evidence.observer == observer);
        let Observation::PoweredOff { readings } = &evidence.observed else { panic!("{evidence:?}") };
        let apart = Duration::from_micros(1_234_567);
        assert_eq!((readings.len(), readings[0].reads, readings[0].apart), (1, 2, apart));
    }

    #[test]
    fn evidence_about_another_admission_is_no_evidence() {
        let observer = HostName::new("os-1").expect("a name");
        assert!(translate(&of(8), &proven(7, 1_500_000, ""), &observer).is_err());
    }

    #[test]
    fn what_a_device_did_not_observe_is_not_claimed_for_it() {
        let observer = HostName::new("os-1").expect("a name");
        let vm = proven(7, 1_500_000, "proves = 'hypervisor'\ngroup = 'erp'");
        let because = translate(&of(7), &vm, &observer).expect_err("nobody saw it detached");
        assert!(because.contains("detached"), "{because}");
    }

    #[test]
    fn a_vm_that_is_off_and_stays_so_is_told_with_everything_that_was_read() {
        let observer = HostName::new("os-1").expect("a name");
        let standing = fencing::reading::Standing {
            source: "vc-1".into(),
            agent_contained: true,
            pending_starts: 0,
            detached: true,
            automatic_start_off: true,
        };
        let sight = Observed::Vm { power: Power::Off, standing };
        let vm = observed(7, 1_500_000, ("proves = 'hypervisor'\ngroup = 'erp'", sight));
        let [evidence] = &translate(&of(7), &vm, &observer).expect("evidence")[..] else { panic!("one") };
        let Observation::HypervisorOff { group, reading } = &evidence.observed else { panic!("{evidence:?}") };
        assert_eq!((group.as_str(), reading.source.as_str(), reading.reads), ("erp", "vc-1", 2));
        assert!(reading.agent_contained && reading.detached && reading.automatic_start_off);
    }
}

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
use quorum::id::{DeviceName, HostName};
use quorum::ledger::{self, Declare, Evidence, Incarnation, Observation, PowerReading};
use std::time::Duration;

/// A positive fence path must have been probed good within this to make a declaration eager.
const PROBED_WITHIN: Duration = Duration::from_secs(60);
/// How often a device's state stands behind a [`Proven`].
const READS: u32 = 2;

/// The ledger's word for evidence that `observer` got about `of`.
///
/// # Errors
/// What is missing for it, for people.
pub(super) fn translate(
    of: Incarnation,
    evidence: &fencing::Evidence,
    observer: &HostName,
) -> Result<Evidence, String> {
    if evidence.target().as_str() != of.host.as_str() || evidence.he() != of.he.0 {
        return Err(format!("the evidence is about {} he {}, not {of}", evidence.target(), evidence.he()));
    }
    let observed = match evidence.kind() {
        EvidenceKind::PoweredOff => {
            let readings: Result<Vec<PowerReading>, String> = evidence.seen().iter().map(power_reading).collect();
            Observation::PoweredOff { readings: readings? }
        }
        EvidenceKind::HypervisorOff => {
            return Err("the hypervisor says that the VM is off; whether it is detached and won't start by itself, \
                        which the ledger asks as well, this device doesn't observe"
                .to_owned());
        }
        EvidenceKind::StorageExcluded => {
            return Err("the host is excluded from its storage; by which command and on which paths, which the \
                        ledger asks as well, this device doesn't say"
                .to_owned());
        }
    };
    Ok(Evidence { of, observed, observer: observer.clone(), lab: evidence.is_lab() })
}

fn power_reading(proof: &Proven) -> Result<PowerReading, String> {
    match proof.finding() {
        Finding::MachineOff | Finding::FeedsOff(_) => {}
        Finding::VmOff(_) | Finding::Excluded(_) | Finding::Isolated => {
            return Err(format!("{} doesn't read power", proof.device()));
        }
    }
    let device = DeviceName::new(proof.device().as_str()).map_err(|error| error.to_string())?;
    let apart = proof.second().since(proof.first());
    // A `Proven` can't be made of a reading whose identity isn't the target's.
    Ok(PowerReading { device, reads: READS, apart, identity_matches: true })
}

impl Engine {
    /// Whether the loss of a host is declared as soon as it is detected: the operator wants it so, or a positive fence
    /// path was probed good within a minute that is quicker than the lease by far. `commit` is what a commit takes.
    pub(super) fn declare_mode(&self, host: &HostName, commit: Duration) -> Mode {
        let is_eager = match self.ledger.spec().policy.declare {
            Declare::Eager => true,
            Declare::Lazy => false,
            Declare::Measured => self.has_quick_fence(host, self.timing.detection + commit),
        };
        if is_eager { Mode::Eager } else { Mode::Lazy }
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

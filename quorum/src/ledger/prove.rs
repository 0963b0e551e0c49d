//! Accepting evidence (protocol §6): what was seen must be enough to be proof, and about somebody who is ended.
//!
//! Invariant: without `Lost` or `Retired` in the log no evidence is accepted, because until then a voter may still
//! grant. Evidence about an older admission stays acceptable as long as a possible owner names it.

use super::apply::rule;
use super::event::Event;
use super::evidence::{
    AcceptedEvidence, Evidence, EvidenceKind, Exclusion, HypervisorReading, Incarnation, Observation, PowerReading,
    Scope,
};
use super::refusal::Refusal;
use super::spec::Shape;
use super::state::{Ended, IncarnationState, Ledger};
use crate::id::{BootId, DeviceName, Era, GroupName, HardwareId, HostEpoch, HostName, KeeperInstance, LogIndex};
use crate::mutants;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often "off" must be read.
const READS_MIN: u32 = 2;

impl Ledger {
    pub(super) fn prove(&mut self, evidence: &Evidence, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let (scope, is_sufficient, device_lab) = self.check_evidence(evidence)?;
        let accepted = AcceptedEvidence {
            kind: evidence.observed.kind(),
            scope,
            index: self.position.index,
            observer: Some(evidence.observer.clone()),
            lab: evidence.lab || device_lab,
            is_sufficient,
            at_once: false,
        };
        self.accept_evidence(&evidence.of, accepted, events);
        Ok(())
    }

    pub(super) fn accept_evidence(&mut self, of: &Incarnation, accepted: AcceptedEvidence, events: &mut Vec<Event>) {
        events.push(Event::EvidenceAccepted {
            of: of.clone(),
            kind: accepted.kind,
            scope: accepted.scope.clone(),
            lab: accepted.lab,
        });
        self.incarnation_mut(of).evidence.push(accepted);
    }

    /// Whether the evidence would be accepted now.
    ///
    /// # Errors
    /// The rule that refuses it.
    pub fn may_prove(&self, evidence: &Evidence) -> Result<(), Refusal> {
        self.check_evidence(evidence).map(|_| ())
    }

    /// What the evidence reaches to, whether it is enough by itself, and whether a device of the lab is behind it.
    fn check_evidence(&self, evidence: &Evidence) -> Result<(Scope, bool, bool), Refusal> {
        let of = &evidence.of;
        let state = self.ended_incarnation(of)?;
        self.check_lab(evidence.lab, || format!("what {} saw", evidence.observer))?;
        let mut device_lab = false;
        let mut is_sufficient = true;
        let scope = match &evidence.observed {
            Observation::PoweredOff { readings } => {
                device_lab = self.check_power(&of.host, readings)?;
                Scope::Host
            }
            Observation::Released { boot, instance, groups, era, named } => {
                self.check_released(
                    of,
                    state,
                    &Attestation { boot: *boot, instance: *instance, era: *era, named: *named },
                )?;
                Scope::Groups(groups.iter().cloned().collect())
            }
            Observation::Returned { boot, hardware, drawn_at, remnants, armed } => {
                let answer = Answer { boot: *boot, hardware: *hardware, drawn_at: *drawn_at, armed: *armed };
                check_returned(of, state, &answer)?;
                check_remnants(of, remnants)?;
                Scope::Host
            }
            Observation::HypervisorOff { group, reading } => {
                self.check_is_vm(group, &of.host)?;
                check_hypervisor(of, reading)?;
                Scope::Groups(BTreeSet::from([group.clone()]))
            }
            Observation::StorageExcluded { volumes, exclusion, isolation } => {
                check_exclusion(of, exclusion)?;
                is_sufficient = isolation.is_some();
                Scope::Groups(self.excluded_groups(of, volumes)?)
            }
        };
        let kind = evidence.observed.kind();
        let known = state
            .evidence
            .iter()
            .any(|old| old.kind == kind && old.is_sufficient >= is_sufficient && old.scope == scope);
        rule("ledger.evidence_twice", !known, || Refusal::EvidenceKnown { of: of.clone() })?;
        Ok((scope, is_sufficient, device_lab))
    }

    /// An admission about which evidence may be accepted: it is ended, and somebody still asks.
    pub(super) fn ended_incarnation(&self, of: &Incarnation) -> Result<&IncarnationState, Refusal> {
        let state = self.incarnation(of).ok_or_else(|| Refusal::EvidenceNotNeeded { of: of.clone() })?;
        rule("ledger.evidence_without_lost", state.ended.is_some(), || Refusal::EvidenceTooEarly { of: of.clone() })?;
        Ok(state)
    }

    /// Power must have been read "off" twice, a settle time apart, from every device of one level, each for the right
    /// machine. Says whether a device of the lab was among them.
    fn check_power(&self, host: &HostName, readings: &[PowerReading]) -> Result<bool, Refusal> {
        let spec = self.spec.spec.hosts.get(host).ok_or_else(|| Refusal::UnknownHost { host: host.clone() })?;
        let mut lab = false;
        for reading in readings {
            let device = &reading.device;
            let of_host = spec.fencing.iter().flatten().any(|named| named == device);
            let known = self.spec.spec.devices.get(device).filter(|_| of_host);
            let known = known.ok_or_else(|| Refusal::UnknownDevice { device: device.clone() })?;
            lab |= known.lab;
            check_reading(reading, known.settle)?;
        }
        self.check_lab(lab, || "the fencing device".to_owned())?;
        let read: BTreeSet<&DeviceName> = readings.iter().map(|reading| &reading.device).collect();
        let whole =
            spec.fencing.iter().any(|level| !level.is_empty() && level.iter().all(|device| read.contains(device)));
        rule("ledger.one_feed_of_two", whole, || Refusal::LevelIncomplete { host: host.clone() })?;
        Ok(lab)
    }

    /// The keeper's word counts for the boot and record that it was armed with. What an older era left behind isn't
    /// known here by boot: there its word must be of this era, and name a record of an older one.
    fn check_released(&self, of: &Incarnation, state: &IncarnationState, said: &Attestation) -> Result<(), Refusal> {
        let other_epoch = || Refusal::ReleasedOtherEpoch { of: of.clone() };
        rule("ledger.released_of_another_era", said.era == self.era, other_epoch)?;
        match state.ended {
            Some(Ended::EraOver { .. }) => {
                return rule("ledger.released_of_this_era", said.named < of.he, other_epoch);
            }
            Some(Ended::Lost { .. } | Ended::Retired { .. }) | None => {}
        }
        rule("ledger.released_of_another_epoch", said.named == of.he, other_epoch)?;
        let same_boot = state.boot == Some(said.boot);
        rule("ledger.released_of_another_boot", same_boot, || Refusal::ReleasedOtherBoot { of: of.clone() })?;
        // A keeper that was restarted attests for the record that it found, once that is over for good.
        let retired = match state.ended {
            Some(Ended::Retired { .. } | Ended::Lost { was_retired: true, .. }) => true,
            Some(Ended::Lost { was_retired: false, .. } | Ended::EraOver { .. }) | None => false,
        };
        let right_keeper = state.instance == Some(said.instance) || retired;
        rule("ledger.released_by_another_keeper", right_keeper, || Refusal::ReleasedOtherKeeper { of: of.clone() })
    }

    fn check_is_vm(&self, group: &GroupName, host: &HostName) -> Result<(), Refusal> {
        let place =
            self.group_spec(group).and_then(|spec| spec.places.values().find(|place| place.hosts.contains(host)));
        let is_vm = place.is_some_and(|place| place.shape == Shape::Vm);
        rule("ledger.hypervisor_of_no_vm", is_vm, || Refusal::NotAVm { group: group.clone(), host: host.clone() })
    }

    /// Groups *all* of whose volumes are named.
    fn excluded_groups(&self, of: &Incarnation, volumes: &[String]) -> Result<BTreeSet<GroupName>, Refusal> {
        let named: BTreeSet<&String> = volumes.iter().collect();
        let any_is_enough = mutants::on("ledger.one_volume_of_two");
        let excluded: BTreeSet<GroupName> = self
            .groups_on(&of.host)
            .filter(|(group, _)| {
                let Some(spec) = self.group_spec(group) else { return false };
                let mut theirs = spec.volumes.iter().map(|volume| named.contains(&volume.backend));
                !spec.volumes.is_empty() && if any_is_enough { theirs.any(|is| is) } else { theirs.all(|is| is) }
            })
            .map(|(group, _)| group.clone())
            .collect();
        rule("ledger.nothing_excluded", !excluded.is_empty(), || Refusal::NothingExcluded { of: of.clone() })?;
        Ok(excluded)
    }
}

/// What a keeper attests.
struct Attestation {
    boot: BootId,
    instance: KeeperInstance,
    era: Era,
    named: HostEpoch,
}

/// What a machine answers from another boot.
struct Answer {
    boot: BootId,
    hardware: HardwareId,
    drawn_at: LogIndex,
    armed: Option<HostEpoch>,
}

fn check_reading(reading: &PowerReading, settle: Duration) -> Result<(), Refusal> {
    let device = || reading.device.clone();
    rule("ledger.power_of_another_machine", reading.identity_matches, || Refusal::WrongTarget { device: device() })?;
    rule("ledger.power_read_once", reading.reads >= READS_MIN, || Refusal::ReadOnce { device: device() })?;
    rule("ledger.power_reads_too_close", reading.apart >= settle, || Refusal::ReadsTooClose {
        device: device(),
        apart: reading.apart,
        settle,
    })
}

/// The same machine, from another boot, asked after it was admitted.
fn check_returned(of: &Incarnation, state: &IncarnationState, answer: &Answer) -> Result<(), Refusal> {
    let fresh = answer.drawn_at >= state.admitted_at;
    rule("ledger.late_hello_returns", fresh, || Refusal::NonceTooOld { of: of.clone() })?;
    let other_boot = state.boot != Some(answer.boot);
    rule("ledger.returned_in_the_same_boot", other_boot, || Refusal::ReturnedSameBoot { of: of.clone() })?;
    let same_machine = state.hardware.is_none_or(|hardware| hardware == answer.hardware);
    rule("ledger.another_machine_returned", same_machine, || Refusal::WrongHardware { host: of.host.clone() })?;
    // The ledger may be behind what an older era did in the answering boot: only a boot that never was armed is new.
    let known_boot = !matches!(state.ended, Some(Ended::EraOver { .. })) || answer.armed.is_none();
    rule("ledger.armed_boot_returns", known_boot, || Refusal::KeeperArmed { of: of.clone() })
}

fn check_remnants(of: &Incarnation, remnants: &[GroupName]) -> Result<(), Refusal> {
    match remnants.first() {
        None => Ok(()),
        Some(group) => {
            rule("ledger.remnant_ignored", false, || Refusal::RemnantFound { of: of.clone(), group: group.clone() })
        }
    }
}

fn check_hypervisor(of: &Incarnation, reading: &HypervisorReading) -> Result<(), Refusal> {
    let unsure = [
        (reading.reads < READS_MIN, "it was read once"),
        (!reading.agent_contained, "the agent beside it could start it again"),
        (reading.pending_starts > 0, "a power-on task is pending"),
        (!reading.detached, "it is registered, with its disks"),
        (!reading.automatic_start_off, "HA or autostart is on"),
    ];
    match unsure.into_iter().find(|(is_so, _)| *is_so) {
        None => Ok(()),
        Some((_, what)) => rule("ledger.hypervisor_unsure", false, || Refusal::HypervisorUnsure {
            of: of.clone(),
            what: what.to_owned(),
        }),
    }
}

fn check_exclusion(of: &Incarnation, exclusion: &Exclusion) -> Result<(), Refusal> {
    let unsure = match exclusion {
        Exclusion::PreemptAndAbort { every_path, keys_read_back } => {
            [(!every_path, "not on every path"), (!keys_read_back, "the keys were not read back")]
        }
        Exclusion::Preempt { every_path, keys_read_back, drained, io_timeout } => [
            (!every_path || !keys_read_back, "not on every path, or the keys were not read back"),
            (drained < io_timeout, "without abort, what is in flight must time out first"),
        ],
        Exclusion::MappingRemoved { read_back } => [(!read_back, "the mapping was not read back"), (false, "")],
        Exclusion::ReplicaRoleTaken { source_write_blocked } => {
            [(!source_write_blocked, "the source was not seen to refuse writes"), (false, "")]
        }
    };
    match unsure.into_iter().find(|(is_so, _)| *is_so) {
        None => Ok(()),
        Some((_, what)) => rule("ledger.exclusion_unsure", false, || Refusal::ExclusionUnsure {
            of: of.clone(),
            what: what.to_owned(),
        }),
    }
}

/// What an operator's word adds.
pub(super) fn attested(index: LogIndex, at_once: bool) -> AcceptedEvidence {
    AcceptedEvidence {
        kind: EvidenceKind::Attested,
        scope: Scope::Host,
        index,
        observer: None,
        lab: false,
        is_sufficient: true,
        at_once,
    }
}

//! Evidence: what was observed that proves a host, or a group's instance on it, harmless (protocol §6).
//!
//! The rules, all of them here and nowhere else:
//! - evidence is made of two readings of the wanted state, a settle time apart, from a device that speaks for the target;
//! - a level is enough only if *all* its evidence-giving devices are proven, all feeds of the target were off at one
//!   and the same time, and together they end both writes and service (storage exclusion ends only writes);
//! - nothing else makes evidence: the fields are private, there is no `Deserialize`, no conversion from a return
//!   code, from a [`Trouble`] or from a timeout. *Unknown* has no way to become *dead*.
//!
//! Not here: evidence that others give (lease, keeper, returned boot, people): it is the ledger's.

use crate::facts::{Binding, DeviceFacts, Ends, Proves};
use crate::moment::Moment;
use crate::mutants;
use crate::name::{DeviceName, FeedName, GroupName, HostName, VolumeName};
use crate::reading::{Access, Observed, Power, Reading, Standing};
use crate::request::{AddressMove, FenceOrder};
use crate::target::{Comparison, Target};
use crate::trouble::Trouble;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// How it is known that the device speaks for the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// It reported the target's identity in both readings: says which value agreed.
    Reported(String),
    /// A person attested the wiring: says who and when.
    Wired(String),
    /// The readings name the volumes and keys themselves.
    Claim,
}

/// Checks that `reading` is about `target`.
///
/// # Errors
/// [`Trouble::WrongMachine`] or [`Trouble::Nameless`]: the device must not be used for this target.
pub fn identify(facts: &DeviceFacts, target: &Target, reading: &Reading) -> Result<Basis, Trouble> {
    if mutants::on("skip-identity") {
        return Ok(Basis::Claim);
    }
    match (target.identity.compare(&reading.identity), &facts.binding) {
        (Comparison::Other { expected, reported }, _) => Err(Trouble::WrongMachine { expected, reported }),
        (Comparison::Same(value), _) => Ok(Basis::Reported(value)),
        (Comparison::Unsaid, Binding::Wired(by)) => Ok(Basis::Wired(by.clone())),
        (Comparison::Unsaid, Binding::Claim) => Ok(Basis::Claim),
        (Comparison::Unsaid, Binding::Reported) => Err(Trouble::Nameless { reported: reading.identity.clone() }),
    }
}

/// Why two readings don't prove a device's state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProof {
    /// The device gives no evidence by its nature.
    #[error("{0}")]
    NoEvidence(&'static str),
    /// A reading shows something else than the wanted state.
    #[error("it reads: {0}")]
    Otherwise(Observed),
    /// The device doesn't speak for the target.
    #[error("it {0}")]
    Identity(Trouble),
    /// The readings lie too close together.
    #[error("the two readings lie {apart:?} apart, {needed:?} are needed")]
    TooClose {
        /// From the end of the first to the beginning of the second.
        apart: Duration,
        /// The device's settle time.
        needed: Duration,
    },
    /// The reading is of another sort than the device's facts say.
    #[error("a {kind} device must not report: {observed}")]
    Foreign {
        /// The device's kind.
        kind: &'static str,
        /// What it reported.
        observed: Observed,
    },
}

/// What one proven device shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// The machine is off.
    MachineOff,
    /// These feeds of it are off.
    FeedsOff(BTreeSet<FeedName>),
    /// The VM of this group is off.
    VmOff {
        /// The group.
        group: GroupName,
        /// Why it stays so, as far as the device says it: nothing it says could bring it back.
        standing: Option<Standing>,
    },
    /// It can't write to these volumes.
    Excluded(BTreeSet<VolumeName>),
    /// It can't be reached.
    Isolated,
}

/// A device whose wanted state was read twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proven {
    device: DeviceName,
    kind: &'static str,
    finding: Finding,
    ends: Ends,
    basis: Basis,
    first: Moment,
    second: Moment,
    settle: Duration,
    lab: bool,
}

/// Two readings of one device.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The first reading of the wanted state.
    pub first: &'a Reading,
    /// The one that confirms it.
    pub second: &'a Reading,
}

impl Proven {
    /// Makes the proof of one device out of two readings.
    ///
    /// # Errors
    /// [`NotProof`] says which rule isn't met. Nothing follows about the target then.
    pub fn of(facts: &DeviceFacts, target: &Target, pair: Pair<'_>) -> Result<Self, NotProof> {
        let Pair { first, second } = pair;
        let finding = finding_of(facts, first)?;
        if finding_of(facts, second)? != finding {
            return Err(NotProof::Otherwise(second.observed.clone()));
        }
        let apart = second.asked.since(first.answered);
        if apart < facts.rhythm.settle && !mutants::on("skip-second-read") && !mutants::on("skip-settle") {
            return Err(NotProof::TooClose { apart, needed: facts.rhythm.settle });
        }
        identify(facts, target, first).map_err(NotProof::Identity)?;
        let basis = identify(facts, target, second).map_err(NotProof::Identity)?;
        Ok(Self {
            device: facts.name.clone(),
            kind: facts.kind,
            ends: facts.proves.ends(),
            finding,
            basis,
            first: first.answered,
            second: second.asked,
            settle: facts.rhythm.settle,
            lab: facts.lab || first.lab || second.lab,
        })
    }

    /// The device.
    pub fn device(&self) -> &DeviceName {
        &self.device
    }

    /// What it shows.
    pub fn finding(&self) -> &Finding {
        &self.finding
    }

    /// How it is known that it speaks for the target.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// End of the first reading.
    pub fn first(&self) -> Moment {
        self.first
    }

    /// Beginning of the second.
    pub fn second(&self) -> Moment {
        self.second
    }
}

/// Whether `observed` is the state that this device has to show.
pub fn is_wanted(facts: &DeviceFacts, reading: &Reading) -> bool {
    finding_of(facts, reading).is_ok()
}

fn finding_of(facts: &DeviceFacts, reading: &Reading) -> Result<Finding, NotProof> {
    let observed = &reading.observed;
    let foreign = || NotProof::Foreign { kind: facts.kind, observed: observed.clone() };
    let is_off = match observed {
        Observed::Power(Power::Off) => true,
        Observed::Power(Power::Between(_)) => mutants::on("between-as-off"),
        Observed::Power(Power::On)
        | Observed::Vm { .. }
        | Observed::Storage(_)
        | Observed::Isolated(_)
        | Observed::Note(_) => false,
    };
    let off = |finding| match observed {
        Observed::Power(_) if is_off => Ok(finding),
        Observed::Power(_) => Err(NotProof::Otherwise(observed.clone())),
        Observed::Vm { .. } | Observed::Storage(_) | Observed::Isolated(_) | Observed::Note(_) => Err(foreign()),
    };
    match (&facts.proves, observed) {
        (Proves::Machine, _) => off(Finding::MachineOff),
        (Proves::Feeds(feeds), _) => off(Finding::FeedsOff(feeds.clone())),
        (Proves::Hypervisor(group), Observed::Vm { standing, .. }) if observed.is_harmless() => {
            Ok(Finding::VmOff { group: group.clone(), standing: Some(standing.clone()) })
        }
        (Proves::Hypervisor(_), Observed::Vm { .. }) => Err(NotProof::Otherwise(observed.clone())),
        (Proves::Hypervisor(group), _) => off(Finding::VmOff { group: group.clone(), standing: None }),
        (Proves::Storage(wanted), Observed::Storage(volumes)) => {
            let excluded = |volume| volumes.get(volume) == Some(&Access::Excluded);
            if !wanted.is_empty() && wanted.iter().all(excluded) {
                Ok(Finding::Excluded(wanted.clone()))
            } else {
                Err(NotProof::Otherwise(observed.clone()))
            }
        }
        (Proves::Network, Observed::Isolated(true)) => Ok(Finding::Isolated),
        (Proves::Network, Observed::Isolated(false)) => Err(NotProof::Otherwise(observed.clone())),
        (Proves::Storage(_), Observed::Power(_) | Observed::Vm { .. } | Observed::Isolated(_) | Observed::Note(_))
        | (Proves::Network, Observed::Power(_) | Observed::Vm { .. } | Observed::Storage(_) | Observed::Note(_)) => {
            Err(foreign())
        }
        (Proves::Nothing(_), _) if mutants::on("accelerator-as-proof") => Ok(Finding::MachineOff),
        (Proves::Nothing(why) | Proves::Elsewhere(why), _) => Err(NotProof::NoEvidence(why)),
    }
}

/// What evidence covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "scope")]
pub enum Scope {
    /// The whole host.
    Host,
    /// One group's instance on the host.
    Group {
        /// The group.
        group: GroupName,
    },
    /// Groups all of whose volumes are among these.
    Volumes {
        /// The volumes.
        volumes: BTreeSet<VolumeName>,
    },
}

/// The protocol's name for what was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvidenceKind {
    /// Power state read "off" twice, all feeds.
    PoweredOff,
    /// The hypervisor of record says that the VM is off.
    HypervisorOff,
    /// Excluded from storage, and cut off from its clients or from their addresses.
    StorageExcluded,
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PoweredOff => "powered-off",
            Self::HypervisorOff => "hypervisor-off",
            Self::StorageExcluded => "storage-excluded",
        })
    }
}

/// Proof that a host, or a part of what ran on it, can do no more harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    target: HostName,
    he: u64,
    kind: EvidenceKind,
    scope: Scope,
    level: usize,
    seen: Vec<Proven>,
    lab: bool,
}

/// Why the proven devices of a level aren't enough.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEnough {
    /// A device of the level is still missing.
    #[error("{0} isn't proven")]
    Missing(DeviceName),
    /// The level has no device that gives evidence.
    #[error("no device of this level gives evidence")]
    NoEvidence,
    /// Some feeds of the target weren't off.
    #[error("feeds {0:?} aren't proven off: the machine may still have power")]
    Feeds(Vec<String>),
    /// All feeds were off, but not at the same time.
    #[error("the feeds weren't off at the same time for {0:?}")]
    Apart(Duration),
    /// Writes may go on.
    #[error("network isolation alone isn't enough: the host may still write")]
    Writes,
    /// Clients may still reach the old instance.
    #[error("storage exclusion alone isn't enough: without network isolation clients still reach the old instance")]
    Service,
}

/// A level of which evidence is to be made.
#[derive(Clone, Copy, Debug)]
pub struct LevelView<'a> {
    /// Its number, counted from 1.
    pub number: usize,
    /// Its devices.
    pub devices: &'a [&'a DeviceFacts],
}

impl Evidence {
    /// Combines the proven devices of one level.
    ///
    /// # Errors
    /// [`NotEnough`] says what is missing; nothing follows about the target then.
    pub fn combine(
        order: &FenceOrder,
        target: &Target,
        level: LevelView<'_>,
        proven: Vec<Proven>,
    ) -> Result<Self, NotEnough> {
        let missing = |facts: &&&DeviceFacts| !proven.iter().any(|proof| proof.device == facts.name);
        let counts = |facts: &&&DeviceFacts| facts.proves.is_evidence();
        if let Some(facts) = level.devices.iter().filter(counts).find(missing)
            && !mutants::on("one-device-of-level")
        {
            return Err(NotEnough::Missing(facts.name.clone()));
        }
        if proven.is_empty() {
            return Err(NotEnough::NoEvidence);
        }
        check_at_one_time(&proven)?;
        let findings: Vec<_> = proven.iter().map(|proof| (&proof.finding, proof.ends)).collect();
        let (kind, scope) = conclude(order, target, &findings)?;
        let lab = proven.iter().any(|proof| proof.lab);
        let (host, number) = (target.host.clone(), level.number);
        Ok(Self { target: host, he: order.he, kind, scope, level: number, seen: proven, lab })
    }

    /// The host.
    pub fn target(&self) -> &HostName {
        &self.target
    }

    /// The host epoch that it covers.
    pub fn he(&self) -> u64 {
        self.he
    }

    /// What was observed.
    pub fn kind(&self) -> EvidenceKind {
        self.kind
    }

    /// What it covers.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The level that brought it, counted from 1.
    pub fn level(&self) -> usize {
        self.level
    }

    /// The devices and readings behind it.
    pub fn seen(&self) -> &[Proven] {
        &self.seen
    }

    /// Whether a laboratory's stand-in had a part in it: only a cluster created as a lab accepts that.
    pub fn is_lab(&self) -> bool {
        self.lab
    }
}

/// All devices of a level must have shown the wanted state over one common span at least as long as the longest settle time.
fn check_at_one_time(proven: &[Proven]) -> Result<(), NotEnough> {
    let last_first = proven.iter().map(|proof| proof.first).max().unwrap_or_default();
    let first_second = proven.iter().map(|proof| proof.second).min().unwrap_or_default();
    let needed = proven.iter().map(|proof| proof.settle).max().unwrap_or_default();
    let loose = ["feeds-apart", "skip-second-read", "skip-settle"].into_iter().any(mutants::on);
    if first_second < last_first.plus(needed) && !loose {
        return Err(NotEnough::Apart(needed));
    }
    Ok(())
}

/// What a level would prove if all its devices showed the wanted state. For plans and configuration checks; it makes no evidence.
///
/// # Errors
/// [`NotEnough`]: the level can't be enough whatever its devices say.
pub fn foresee(
    order: &FenceOrder,
    target: &Target,
    devices: &[&DeviceFacts],
) -> Result<(EvidenceKind, Scope), NotEnough> {
    let hope = |facts: &&DeviceFacts| {
        let finding = match &facts.proves {
            Proves::Machine => Finding::MachineOff,
            Proves::Feeds(feeds) => Finding::FeedsOff(feeds.clone()),
            Proves::Hypervisor(group) => Finding::VmOff { group: group.clone(), standing: None },
            Proves::Storage(volumes) => Finding::Excluded(volumes.clone()),
            Proves::Network => Finding::Isolated,
            Proves::Nothing(_) | Proves::Elsewhere(_) => return None,
        };
        Some((finding, facts.proves.ends()))
    };
    let hopes: Vec<(Finding, Ends)> = devices.iter().filter_map(hope).collect();
    if hopes.is_empty() {
        return Err(NotEnough::NoEvidence);
    }
    let findings: Vec<_> = hopes.iter().map(|(finding, ends)| (finding, *ends)).collect();
    conclude(order, target, &findings)
}

type Findings<'a> = [(&'a Finding, Ends)];

fn conclude(order: &FenceOrder, target: &Target, findings: &Findings<'_>) -> Result<(EvidenceKind, Scope), NotEnough> {
    let mut feeds_off = None;
    let mut volumes = BTreeSet::new();
    let mut vm = None;
    for (finding, _) in findings {
        match finding {
            Finding::MachineOff => return Ok((EvidenceKind::PoweredOff, Scope::Host)),
            Finding::FeedsOff(feeds) => feeds_off.get_or_insert_with(BTreeSet::new).extend(feeds.iter().cloned()),
            Finding::Excluded(names) => volumes.extend(names.iter().cloned()),
            Finding::VmOff { group, .. } => vm = Some(group.clone()),
            Finding::Isolated => {}
        }
    }
    if let Some(feeds_off) = feeds_off {
        let still_on: Vec<String> = target.feeds.difference(&feeds_off).map(ToString::to_string).collect();
        let enough = still_on.is_empty() || mutants::on("ignore-feed");
        return if enough { Ok((EvidenceKind::PoweredOff, Scope::Host)) } else { Err(NotEnough::Feeds(still_on)) };
    }
    if let Some(group) = vm {
        return Ok((EvidenceKind::HypervisorOff, Scope::Group { group }));
    }
    let mut ends = findings.iter().fold(Ends::default(), |all, (_, ends)| all.and(*ends));
    ends.service |= order.address_move == AddressMove::EpochChecked || mutants::on("storage-alone");
    match ends {
        Ends { writes: true, service: true } => Ok((EvidenceKind::StorageExcluded, Scope::Volumes { volumes })),
        Ends { writes: true, service: false } => Err(NotEnough::Service),
        Ends { writes: false, service: true | false } => Err(NotEnough::Writes),
    }
}

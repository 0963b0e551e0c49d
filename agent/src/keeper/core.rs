//! What the keeper decides: pet, withhold, or end everything protected, step by step and in this order.
//!
//! Contract (protocol §2, §3): [`Core::step`] is a function of its arguments and of what it was given before. It
//! returns one [`Action`]; the driver performs it, looks again, and steps again. The same code runs in the keeper, in
//! the simulator and under the model checker.
//!
//! Invariants:
//! - [`Action::Pet`] while a host epoch is armed implies `n + 2·W + δ_hw ≤ E_h` on *both* clocks at the check (3·W if
//!   the device can be closed after the keeper's death). In every other phase it implies that the slice was seen
//!   frozen and empty and that every helper was done in the very facts of that step.
//! - A host epoch that was retired is never armed again; nothing leaves this order: latch, freeze, kill, verify,
//!   sweep, wait δ_io, attest.
//! - The slice is thawed only for a larger host epoch, and a record's sequence is echoed only after that.
//!
//! A record that is refused (torn, stale, lower, foreign) extends nothing: the last adopted one stays in force until
//! its own E_h, which is when the right really ends.
//!
//! Not here: clocks, memory, cgroups, devices (`driver`), the record's bytes (`record`), which groups are named in an
//! attestation (`driver`).

use quorum::id::{BootId, Era, HostEpoch, KeeperInstance};
use quorum::lease;
use quorum::moment::Moment;
use quorum::mutants;
use std::time::Duration;

mod reason;
mod saved;

pub use reason::Reason;
pub use saved::Saved;

#[cfg(test)]
mod explore;
#[cfg(test)]
mod tests;

/// What a keeper knows for its whole life. All spans are real time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Params {
    /// This boot. A record of another one is refused.
    pub boot: BootId,
    /// This keeper. A record for another one is refused.
    pub instance: KeeperInstance,
    /// W: commissioned worst time from the last pet to the reset, times 1.1.
    pub watchdog_worst: Duration,
    /// δ_hw: from the watchdog's firing until the host executes nothing any more.
    pub delta_hw: Duration,
    /// δ_io: from the end of the last process until none of its I/O can take effect any more.
    pub delta_io: Duration,
    /// No honest E_h lies further ahead than this; a record that says so is refused.
    pub lease_max: Duration,
}

/// The part of a record that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head {
    /// The cluster's era.
    pub era: Era,
    /// The host epoch that the lease belongs to.
    pub he: HostEpoch,
    /// The boot in which it was admitted.
    pub boot: BootId,
    /// The keeper with which it was admitted.
    pub instance: KeeperInstance,
    /// E_h: when the lease ends, on both clocks. [`Moment::default`] orders the keeper to retire `he` now.
    pub expiry: Moment,
    /// Rises with every record that the agent writes.
    pub sequence: u64,
}

/// What was found in the shared record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordView {
    /// Nothing was ever written.
    Absent,
    /// No slot holds together: it was being written, or its checksum is wrong.
    Torn,
    /// A whole record.
    Whole(Head),
}

/// How far the helper programs are (protocol §2: an unfinished helper means no pet).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Helpers {
    /// All wait, locked and ready, for the trigger; also when there are none.
    Ready,
    /// Triggered; at least one has not answered.
    Running,
    /// Triggered, and all have answered "done".
    Done,
    /// As [`Helpers::Done`], but at least one has ended since: what it did stands, but nothing can be armed.
    Spent,
    /// At least one ended or broke its contract without being done.
    Lost,
}

/// The watchdog as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// There is one; it was not opened or taken over yet.
    Unset,
    /// Set up, read back, and the last pet was accepted.
    Good,
    /// It refused a pet or can't be trusted any more.
    Failed,
    /// This host has none (class D): nothing backs the kill.
    Missing,
}

/// The protected slice as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SliceSeen {
    /// `cgroup.events` says `populated 0`.
    pub empty: bool,
    /// `cgroup.events` says `frozen 1`.
    pub frozen: bool,
    /// `cgroup.stat` says that there is no cgroup in it: no start that was on its way can arrive any more.
    pub bare: bool,
}

/// What the driver observed right before this step, and before it read the clocks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The slice; `None` if the kernel would not tell.
    pub slice: Option<SliceSeen>,
    /// The helpers.
    pub helpers: Helpers,
    /// The watchdog.
    pub device: Device,
    /// Whether a close of the device can come after this keeper's death: no holder has it.
    pub may_close_late: bool,
    /// The latest sequence of which the driver saw that none of its unpinned groups is left in a pinned cgroup.
    pub pins_settled: u64,
}

/// What the driver must do now, before it steps again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Open the device or take it from the holder, set it up, read it back.
    SetUp,
    /// Freeze the protected slice.
    Freeze,
    /// Kill everything in the slice and trigger the helpers, unless they run already.
    Kill,
    /// Remove every cgroup in the slice.
    Sweep,
    /// Publish that nothing of this host epoch is left.
    Attest(HostEpoch),
    /// Make the cgroup of this host epoch, thaw the slice, and make the helpers ready again.
    Thaw(HostEpoch),
    /// Pet, at the latest one period after the last pet, and publish the page.
    Pet,
    /// Don't pet. Publish the page; look again soon.
    Withhold,
}

/// How far the end of the protected slice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clearing {
    /// Freeze it next.
    Freeze,
    /// It was told to freeze; kill next.
    Kill,
    /// Killed; not yet seen frozen, empty and with its helpers done.
    Verify,
}

/// What became of a record: adopted unless `Ok(None)`, which is the one adopted last.
type Verdict = Result<Option<Head>, Reason>;

/// Where the keeper is. See the diagram in `keeper/mod.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The slice is being ended. Nothing is petted.
    Clearing(Clearing),
    /// Verified at this moment; δ_io is being waited out.
    Settling(Moment),
    /// Frozen and empty; waits for a larger host epoch.
    Rest,
    /// A larger one came; the slice is being thawed for it. Whether that was ordered since the last pet.
    Thawing(Head, bool),
    /// Its workloads may run until the lease ends.
    Armed(Head),
}

/// The keeper's decisions and all that they rest on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    params: Params,
    phase: Phase,
    /// The highest era adopted.
    era: Era,
    /// The latch: no host epoch up to this one is ever armed. Zero before the first.
    retired: HostEpoch,
    /// The last sequence adopted.
    sequence: u64,
    /// The last sequence whose armed set is in force.
    echoed: u64,
    /// The host epoch that an attestation is owed for.
    owed: Option<HostEpoch>,
    /// The last host epoch attested.
    attested: Option<HostEpoch>,
    /// Why the last record was refused or the last pet withheld.
    reason: Reason,
    /// Why the last host epoch was retired.
    cause: Reason,
}

impl Core {
    /// A keeper that has just started, with whatever record an earlier one left behind.
    ///
    /// The host epoch `found` (of this boot) and every one up to `floor` (the latch in an earlier keeper's page) is
    /// treated as retired: the slice is frozen, killed and verified before the first pet, and `found` is attested.
    pub fn restarted(params: Params, found: Option<Head>, floor: HostEpoch) -> Self {
        let found = found.filter(|head| head.boot == params.boot && !mutants::on("keeper.restart_forgets_found"));
        let found_he = found.map(|head| head.he);
        Self {
            phase: Phase::Clearing(Clearing::Freeze),
            era: found.map_or(Era::default(), |head| head.era),
            retired: found_he.map_or(floor, |he| he.max(floor)),
            sequence: 0,
            echoed: 0,
            owed: found_he,
            attested: None,
            reason: Reason::Started,
            cause: if found.is_some() { Reason::Started } else { Reason::None },
            params,
        }
    }

    /// Decides what to do at `now`, which was read after `record` and `facts` were observed.
    pub fn step(&mut self, now: Moment, record: RecordView, facts: &Facts) -> Action {
        let verdict = self.judge(now, record);
        if mutants::on("keeper.echoes_refused")
            && let RecordView::Whole(head) = record
        {
            self.echoed = head.sequence;
        }
        match self.phase {
            Phase::Clearing(stage) => self.clearing(now, stage, facts),
            Phase::Settling(since) => self.settling(now, since, facts),
            Phase::Rest => self.rest(now, verdict, facts),
            Phase::Thawing(head, ordered) => self.thawing(now, (head, ordered), facts),
            Phase::Armed(head) => self.armed(now, (head, verdict), facts),
        }
    }

    /// Whether this record may be adopted: `Ok(None)` if it is the one adopted last.
    fn judge(&self, now: Moment, record: RecordView) -> Verdict {
        let head = match record {
            RecordView::Absent => return Err(Reason::NoRecord),
            RecordView::Torn => return Err(Reason::Torn),
            RecordView::Whole(head) => head,
        };
        if head.boot != self.params.boot {
            return Err(Reason::ForeignBoot);
        }
        if head.instance != self.params.instance && !mutants::on("keeper.takes_foreign") {
            return Err(Reason::ForeignInstance);
        }
        if head.era < self.era {
            return Err(Reason::LowerEra);
        }
        if head.he <= self.retired && !mutants::on("keeper.forgets_latch") {
            return Err(Reason::RetiredEpoch);
        }
        if (head.sequence < self.sequence || head.sequence == 0) && !mutants::on("keeper.takes_stale") {
            return Err(Reason::Stale);
        }
        if head.sequence == self.sequence {
            return Ok(None);
        }
        let latest = now.plus(self.params.lease_max);
        if head.expiry.boot_ns > latest.boot_ns || head.expiry.raw_ns > latest.raw_ns {
            return Err(Reason::TooFar);
        }
        Ok(Some(head))
    }

    /// The pet inequality: `now + 2·W + δ_hw ≤ expiry` on both clocks; 3·W if a close can come late.
    fn may_pet(&self, now: Moment, expiry: Moment, facts: &Facts) -> bool {
        let spans = if mutants::on("keeper.pets_at_w") { 1 } else { self.spans(facts) };
        lease::may_pet(now, expiry, self.params.watchdog_worst * spans + self.params.delta_hw)
    }

    /// How many W stand between a check and the reset.
    pub fn spans(&self, facts: &Facts) -> u32 {
        if facts.may_close_late && !mutants::on("keeper.close_keeps_two") { 3 } else { 2 }
    }

    /// No process, none can arrive or begin to run, and whatever needs a program is done.
    fn verified(facts: &Facts) -> bool {
        let Some(slice) = facts.slice else { return false };
        let helped = match facts.helpers {
            Helpers::Done | Helpers::Spent => true,
            Helpers::Ready | Helpers::Running | Helpers::Lost => mutants::on("keeper.ignores_helpers"),
        };
        let shut = slice.frozen && slice.bare || mutants::on("keeper.rests_open");
        slice.empty && shut && helped
    }

    /// The latch falls *before* anything else happens.
    fn retire(&mut self, he: HostEpoch, because: Reason) -> Action {
        self.retired = self.retired.max(he);
        self.owed = Some(he);
        (self.reason, self.cause) = (because, because);
        self.phase = Phase::Clearing(Clearing::Kill);
        if mutants::on("keeper.rests_open") { Action::Withhold } else { Action::Freeze }
    }

    fn armed(&mut self, now: Moment, (mut head, verdict): (Head, Verdict), facts: &Facts) -> Action {
        match verdict {
            Ok(Some(newer)) if newer.he > head.he => return self.retire(head.he, Reason::Superseded),
            Ok(Some(newer)) if newer.he < head.he => self.reason = Reason::LowerEpoch,
            Ok(Some(newer)) => {
                self.adopt(newer);
                head = newer;
                self.phase = Phase::Armed(head);
            }
            Ok(None) => self.reason = Reason::None,
            Err(because) => self.reason = because,
        }
        if facts.device == Device::Failed {
            return self.retire(head.he, Reason::DeviceFailed);
        }
        if facts.slice.is_none() {
            return self.retire(head.he, Reason::SliceUnreadable);
        }
        if !self.may_pet(now, head.expiry, facts) {
            return self.retire(head.he, Reason::Expired);
        }
        if facts.pins_settled == self.sequence || mutants::on("keeper.echoes_unsettled") {
            self.echoed = self.sequence;
        } else if self.echoed != self.sequence && self.reason == Reason::None {
            self.reason = Reason::PinsUnsettled;
        }
        Action::Pet
    }

    fn adopt(&mut self, head: Head) {
        let rises = head.sequence > self.sequence || mutants::on("keeper.takes_stale");
        assert!(rises, "a record's sequence only rises");
        self.era = head.era;
        self.sequence = head.sequence;
        self.reason = Reason::None;
    }

    fn clearing(&mut self, now: Moment, stage: Clearing, facts: &Facts) -> Action {
        match stage {
            Clearing::Freeze => {
                self.phase = Phase::Clearing(Clearing::Kill);
                Action::Freeze
            }
            Clearing::Kill => {
                self.phase = Phase::Clearing(Clearing::Verify);
                Action::Kill
            }
            Clearing::Verify if Self::verified(facts) || mutants::on("keeper.skips_verify") => {
                self.phase = Phase::Settling(now);
                self.reason = Reason::None;
                self.settling(now, now, facts)
            }
            Clearing::Verify => self.chase(facts),
        }
    }

    /// What is missing is ordered, again if need be: a process may have been moved in, or a write may have failed.
    fn chase(&mut self, facts: &Facts) -> Action {
        let (because, next, action) = match (facts.slice, facts.helpers) {
            (None, _) => (Reason::SliceUnreadable, Clearing::Freeze, Action::Withhold),
            (Some(slice), _) if !slice.frozen => (Reason::NotFrozen, Clearing::Freeze, Action::Withhold),
            (Some(slice), _) if !slice.empty => (Reason::NotEmpty, Clearing::Kill, Action::Withhold),
            (Some(_), Helpers::Ready) => (Reason::HelperUnfinished, Clearing::Kill, Action::Withhold),
            (Some(slice), _) if !slice.bare => (Reason::NotEmpty, Clearing::Verify, Action::Sweep),
            (Some(_), Helpers::Lost) => (Reason::HelperLost, Clearing::Verify, Action::Withhold),
            (Some(_), Helpers::Running | Helpers::Done | Helpers::Spent) => {
                (Reason::HelperUnfinished, Clearing::Verify, Action::Withhold)
            }
        };
        self.reason = because;
        self.phase = Phase::Clearing(next);
        if mutants::on("keeper.pets_before_verify") && action == Action::Withhold { Action::Pet } else { action }
    }

    fn settling(&mut self, now: Moment, since: Moment, facts: &Facts) -> Action {
        if !self.still_verified(facts) {
            return self.chase(facts);
        }
        let waited = now.both_reached(since.plus(self.params.delta_io)) || mutants::on("keeper.attests_before_io");
        if !waited {
            return self.pet_at_rest(facts);
        }
        self.phase = Phase::Rest;
        match self.owed.take() {
            Some(he) => {
                self.attested = Some(he);
                Action::Attest(he)
            }
            None => self.pet_at_rest(facts),
        }
    }

    fn still_verified(&self, facts: &Facts) -> bool {
        Self::verified(facts) || mutants::on("keeper.skips_verify")
    }

    fn rest(&mut self, now: Moment, verdict: Verdict, facts: &Facts) -> Action {
        if !self.still_verified(facts) {
            return self.chase(facts);
        }
        let admitted = verdict.and_then(|newer| match newer {
            Some(head) => self.admissible(now, &head, facts).map(|()| Some(head)),
            None => Ok(None),
        });
        match admitted {
            Ok(Some(head)) => {
                self.adopt(head);
                self.phase = Phase::Thawing(head, true);
                return Action::Thaw(head.he);
            }
            Ok(None) => self.reason = Reason::None,
            Err(because) => self.reason = because,
        }
        self.pet_at_rest(facts)
    }

    /// Whether this whole record may be armed from rest.
    fn admissible(&self, now: Moment, head: &Head, facts: &Facts) -> Result<(), Reason> {
        match facts.device {
            Device::Unset => return Err(Reason::NotSetUp),
            Device::Failed => return Err(Reason::DeviceFailed),
            Device::Good | Device::Missing => {}
        }
        if facts.helpers == Helpers::Spent {
            return Err(Reason::HelperLost);
        }
        if self.may_pet(now, head.expiry, facts) { Ok(()) } else { Err(Reason::Expired) }
    }

    /// The slice is verified: setting the device up is a pet like any other now.
    fn pet_at_rest(&mut self, facts: &Facts) -> Action {
        match facts.device {
            Device::Unset => Action::SetUp,
            Device::Good | Device::Failed | Device::Missing => Action::Pet,
        }
    }

    fn thawing(&mut self, now: Moment, (head, ordered): (Head, bool), facts: &Facts) -> Action {
        if !self.may_pet(now, head.expiry, facts) {
            return self.retire(head.he, Reason::Expired);
        }
        let thawed = facts.slice.is_some_and(|slice| !slice.frozen) && facts.helpers == Helpers::Ready;
        if !thawed {
            self.phase = Phase::Thawing(head, !ordered);
            return if ordered { Action::Pet } else { Action::Thaw(head.he) };
        }
        self.phase = Phase::Armed(head);
        self.armed(now, (head, Ok(None)), facts)
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The latch: no host epoch up to this one runs or renews again. Zero before the first.
    pub fn retired(&self) -> HostEpoch {
        self.retired
    }

    /// The host epoch that is armed, if one is.
    pub fn armed_epoch(&self) -> Option<HostEpoch> {
        match self.phase {
            Phase::Armed(head) | Phase::Thawing(head, _) => Some(head.he),
            Phase::Clearing(_) | Phase::Settling(_) | Phase::Rest => None,
        }
    }

    /// The last adopted sequence; the driver keeps that record's armed set for the attestation.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The last sequence whose armed set is in force: a group named in it may begin its first start step.
    pub fn echoed(&self) -> u64 {
        self.echoed
    }

    /// The last host epoch that was attested by this keeper.
    pub fn attested(&self) -> Option<HostEpoch> {
        self.attested
    }

    /// Why the last record was refused or the last pet withheld.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Why the last host epoch was retired; [`Reason::None`] before the first.
    pub fn cause(&self) -> Reason {
        self.cause
    }

    /// What this keeper was told at its start.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Whether the keeper may end in an orderly way: nothing is armed, all is verified gone and attested.
    pub fn may_stop(&self) -> bool {
        self.phase == Phase::Rest && self.owed.is_none()
    }
}
